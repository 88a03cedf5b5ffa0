import numpy as np
import pytest

from retina_seg.augment import PIPELINES, Augmenter
from retina_seg.errors import UserError


def _patch(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = (rng.random((side, side, 2)) > 0.7).astype(np.uint8)
    return rng.standard_normal((side, side, 3)).astype(np.float32), masks


@pytest.mark.parametrize("name", PIPELINES)
def test_same_seed_same_patch(name):
    augment = Augmenter(name, 32)
    image, masks = _patch(augment.reach)
    before = image.copy(), masks.copy()
    first, second = augment(image, masks, 7), Augmenter(name, 32)(image, masks, 7)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0].shape == (32, 32, 3)
    assert first[1].shape == (32, 32, 2)
    assert first[0].dtype == np.float32
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(masks, before[1])


@pytest.mark.parametrize("name", ["flips", "standard"])
def test_other_seeds_give_other_patches(name):
    augment = Augmenter(name, 32)
    image, masks = _patch(augment.reach)
    patches = {augment(image, masks, seed)[0].tobytes() for seed in range(12)}
    assert len(patches) > 4


def test_none_cuts_the_middle():
    augment = Augmenter("none", 32)
    image, masks = _patch(32)
    out = augment(image, masks, 0)
    np.testing.assert_array_equal(out[0], image)
    np.testing.assert_array_equal(out[1], masks)


def test_image_and_masks_move_together():
    augment = Augmenter("standard", 64)
    yy, xx = np.mgrid[: augment.reach, : augment.reach] - augment.reach / 2
    square = (abs(yy + 10) < 12) & (abs(xx - 8) < 6)
    for seed in range(8):
        image = np.where(square[..., None], 9.0, -9.0).astype(np.float32).repeat(3, axis=2)
        moved, masks = augment(image, square[..., None].astype(np.uint8).repeat(2, axis=2), seed)
        seen = moved.mean(axis=2) > 0
        overlap = 2 * (seen & (masks[..., 0] > 0)).sum() / (seen.sum() + masks[..., 0].sum())
        assert overlap > 0.93
        assert set(np.unique(masks)) <= {0, 1}


def test_outside_stays_zero():
    augment = Augmenter("standard", 48)
    image, masks = _patch(augment.reach)
    image[: augment.reach // 2] = 0
    moved, _ = augment(image, masks, 3)
    share = (moved == 0).all(axis=2).mean()
    assert 0.25 < share < 0.75


def test_standard_leaves_no_empty_corners():
    augment = Augmenter("standard", 40)
    ones = np.ones((augment.reach, augment.reach, 3), np.float32)
    for seed in range(20):
        masks = np.ones((augment.reach, augment.reach, 1), np.uint8)
        assert augment(ones, masks, seed)[1].all()


def test_unknown_name():
    with pytest.raises(UserError, match="standard"):
        Augmenter("strong", 32)
