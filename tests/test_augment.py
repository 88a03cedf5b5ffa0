import numpy as np
import pytest

from retina_seg.augment import PIPELINES, Augmenter
from retina_seg.errors import UserError

SIDE = 120  # of the photographs
CENTRE = (60, 60)


def _photograph(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = (rng.random((SIDE, SIDE, 2)) > 0.7).astype(np.uint8)
    return rng.standard_normal((SIDE, SIDE, 3)).astype(np.float32), masks


@pytest.mark.parametrize("name", PIPELINES)
def test_same_seed_same_patch(name):
    image, masks = _photograph()
    soft = masks.astype(np.float32)
    before = image.copy(), masks.copy()
    first, second = (Augmenter(name, 32)(image, [masks, soft], CENTRE, 7) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].shape == (32, 32, 3)
    assert first[0].dtype == np.float32
    for a, b, label in zip(first[1], second[1], (masks, soft), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == (32, 32, 2)
        assert a.dtype == label.dtype
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(masks, before[1])


@pytest.mark.parametrize("name", sorted(set(PIPELINES) - {"none"}))
def test_other_seeds_give_other_patches(name):
    image, masks = _photograph()
    patches = {Augmenter(name, 32)(image, [masks], CENTRE, seed)[0].tobytes() for seed in range(12)}
    assert len(patches) > 4


@pytest.mark.parametrize("size", [31, 32])
def test_none_cuts_around_the_centre(size):
    image, masks = _photograph()
    patch, (label,) = Augmenter("none", size)(image, [masks], (50, 70), 0)
    y, x = 50 - size // 2, 70 - size // 2
    np.testing.assert_array_equal(patch, image[y : y + size, x : x + size])
    np.testing.assert_array_equal(label, masks[y : y + size, x : x + size])


def test_flips_show_the_same_pixels_in_all_eight_ways():
    image, masks = _photograph()
    plain, _ = Augmenter("none", 32)(image, [masks], CENTRE, 0)
    ways = [np.rot90(way, k) for way in (plain, plain[::-1]) for k in range(4)]
    augment = Augmenter("flips", 32)
    seen = set()
    for seed in range(60):
        patch, _ = augment(image, [masks], CENTRE, seed)
        matches = [i for i, way in enumerate(ways) if np.array_equal(way, patch)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(8))


@pytest.mark.parametrize("name", ["standard", "camera"])
def test_image_and_labels_move_together(name):
    augment = Augmenter(name, 64)
    yy, xx = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    square = (abs(yy + 10) < 12) & (abs(xx - 8) < 6)
    image = np.where(square[..., None], 3.0, -3.0).astype(np.float32).repeat(3, axis=2)
    hard, soft = square[..., None].astype(np.uint8).repeat(6, axis=2), square[..., None].astype(np.float32)
    for seed in range(12):
        moved, (label, mean) = augment(image, [hard, soft], CENTRE, seed)
        seen = moved.mean(axis=2) > 0
        overlap = 2 * (seen & (label[..., 5] > 0)).sum() / (seen.sum() + label[..., 5].sum())
        assert overlap > 0.9
        assert set(np.unique(label)) <= {0, 1}
        assert ((mean[..., 0] > 0.5) == label[..., 0]).mean() > 0.98
        assert 0 <= mean.min() <= mean.max() <= 1


@pytest.mark.parametrize("name", ["standard", "camera"])
def test_outside_stays_zero(name):
    augment = Augmenter(name, 48)
    image, masks = _photograph()
    image[: SIDE // 2] = 0
    shares = [(augment(image, [masks], CENTRE, seed)[0] == 0).all(axis=2).mean() for seed in range(8)]
    assert 0.25 < min(shares) <= max(shares) < 0.75


def test_zoom_and_turn_stay_within_their_limits():
    """A bar of known length: its image in the patch says how it was turned and enlarged."""
    image = np.ones((SIDE, SIDE, 3), np.float32)
    bar = np.zeros((SIDE, SIDE, 1), np.float32)
    bar[50:71, 55:66] = 1
    areas = [Augmenter("standard", 64)(image, [bar], CENTRE, seed)[1][0].sum() / bar.sum() for seed in range(40)]
    assert 1 / 1.3**2 * 0.97 < min(areas) < 0.75
    assert 1.3 < max(areas) < 1.3**2 * 1.03


def test_camera_keeps_standardised_values():
    """Most patches must stay near what preprocessing gives: mean 0, standard deviation 1."""
    yy, xx = np.mgrid[:SIDE, :SIDE] / 9
    image = (np.sin(yy) * np.cos(xx) * 2)[..., None].repeat(3, axis=2).astype(np.float32)
    patches = np.array([Augmenter("camera", 64)(image, [], CENTRE, seed)[0] for seed in range(40)])
    assert abs(np.median(patches.mean(axis=(1, 2, 3)))) < 0.2
    assert 0.7 < np.median(patches.std(axis=(1, 2, 3))) < 1.3
    assert np.isfinite(patches).all()


def test_one_channel_has_no_colour_to_lose():
    image = _photograph()[0][..., :1]
    patches = [Augmenter("camera", 32, channels=1)(image, [], CENTRE, seed)[0] for seed in range(40)]
    assert {patch.shape for patch in patches} == {(32, 32, 1)}


def test_unknown_name():
    with pytest.raises(UserError, match="standard"):
        Augmenter("strong", 32)
