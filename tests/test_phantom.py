"""Drawn photographs: the truth is exact, the anatomy obeys its laws, and the picture shows what the truth says."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from retina_seg import phantom
from retina_seg.errors import UserError
from retina_seg.phantom import Phantom, Segment, draw

SEEDS = (0, 1, 2, 3)


@cache
def drawn(seed: int) -> Phantom:
    """One drawing of DRIVE's size, shared by the tests (they only read it)."""
    return draw(seed)


def radius_px(picture: Phantom) -> float:
    return float(np.sqrt(picture.fov.sum() / np.pi))


def test_same_seed_gives_the_same_photograph_and_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = draw(5, width=160, height=160), draw(5, width=160, height=160)
    for name in ("image", "vessels", "disc", "fov"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.fovea == two.fovea
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_seeds_differ():
    assert len({drawn(seed).vessels.tobytes() for seed in SEEDS}) == len(SEEDS)
    assert len({drawn(seed).image.tobytes() for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 97), (300, 200), (211, 330), (900, 700)])
def test_every_size_shows_the_same_eye(width: int, height: int):
    picture, reference = draw(1, width=width, height=height), drawn(1)
    assert picture.image.shape == (height, width, 3)
    assert picture.image.dtype == np.uint8
    for layer in (picture.vessels, picture.disc, picture.fov):
        assert layer.shape == (height, width)
        assert layer.dtype == bool
    radius = phantom.FOV_RADIUS * min(width, height)
    assert radius_px(picture) == pytest.approx(radius, rel=0.01)
    assert len(picture.segments) == len(reference.segments)
    scale = min(width, height) / 565
    for mine, other in zip(picture.segments, reference.segments, strict=True):
        np.testing.assert_allclose(mine.width_px, scale * other.width_px)
        np.testing.assert_allclose(np.diff(mine.path, axis=0), scale * np.diff(other.path, axis=0), atol=1e-9)
    assert 0.08 < picture.vessels[picture.fov].mean() < 0.20


@pytest.mark.parametrize("seed", SEEDS)
def test_truth_lies_in_the_field_of_view_and_spares_the_fovea(seed: int):
    picture = drawn(seed)
    assert not (picture.vessels & ~picture.fov).any()
    assert not (picture.disc & ~picture.fov).any()
    rows, columns = np.nonzero(picture.vessels)
    nearest = np.hypot(rows - picture.fovea[0], columns - picture.fovea[1]).min()
    assert nearest > 0.9 * phantom.FOVEA_FREE * radius_px(picture)


@pytest.mark.parametrize("seed", SEEDS)
def test_vessel_density_is_that_of_annotated_photographs(seed: int):
    # DRIVE, first observer: 80 % of the training photographs lie between .108 and .144.
    picture = drawn(seed)
    assert 0.10 < picture.vessels[picture.fov].mean() < 0.155


@pytest.mark.parametrize("seed", SEEDS)
def test_branching_obeys_murray_and_calibre_never_grows(seed: int):
    segments = drawn(seed).segments
    children: dict[int, list[int]] = {}
    for index, segment in enumerate(segments):
        assert segment.path.shape == (len(segment.width_px), 2)
        assert (np.diff(segment.width_px) <= 1e-12).all()
        assert -1 <= segment.parent < index
        if segment.parent >= 0:
            children.setdefault(segment.parent, []).append(index)
            parent = segments[segment.parent]
            np.testing.assert_array_equal(segment.path[0], parent.path[-1])
            assert segment.kind == parent.kind
    pairs = {parent: pair for parent, pair in children.items() if len(pair) == 2}
    assert len(pairs) > 60
    assert max(len(pair) for pair in children.values()) == 2
    for parent, pair in pairs.items():
        flow = sum(segments[child].width_px[0] ** 3 for child in pair)
        assert flow == pytest.approx(segments[parent].width_px[-1] ** 3, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_calibres_are_those_of_a_retina(seed: int):
    picture = drawn(seed)
    widest = {
        kind: max(segment.width_px[0] for segment in picture.segments if segment.kind == kind)
        for kind in ("artery", "vein")
    }
    assert 7 < widest["vein"] < 12
    assert 0.6 < widest["artery"] / widest["vein"] < 0.85


def straight(width_px: float, angle: float, kind: str = "vein") -> tuple[Segment, np.ndarray]:
    """A long straight vessel through (100.3, 100.7) in a 200 x 200 frame, and the pixels' distances from its axis."""
    along = np.array([np.sin(angle), np.cos(angle)])
    path = np.array([100.3, 100.7]) + np.linspace(-200, 200, 80)[:, None] * along
    away = np.indices((200, 200)) - np.array([100.3, 100.7])[:, None, None]
    return Segment(path, np.full(80, width_px), kind, -1), np.abs(away[0] * along[1] - away[1] * along[0])


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, 1.2, np.pi / 2])
@pytest.mark.parametrize("width_px", [2.0, 3.7, 6.0, 9.5])
def test_truth_of_a_straight_vessel_is_exact(width_px: float, angle: float):
    vessel, distance = straight(width_px, angle)
    _, marked = phantom._blood((vessel, straight(0.01, angle, "artery")[0]), (200, 200), 269.0)
    sure = np.abs(distance - width_px / 2) > 1e-9
    np.testing.assert_array_equal(marked[sure], (distance <= width_px / 2)[sure])
    # The usual way to measure calibre from a mask: twice the distance to the background, on the centreline.
    centre = (distance < 0.5) & (np.hypot(*(np.indices((200, 200)) - 100)) < 80)
    measured = 2 * ndimage.distance_transform_edt(marked)[centre].max() - 0.5
    assert measured == pytest.approx(width_px, abs=1.0)
    chord = 200 / max(abs(np.cos(angle)), abs(np.sin(angle)))
    if angle in (0.3, 1.2):  # along the axes and diagonals of the grid, the number of rows is whole
        assert marked.sum() / chord == pytest.approx(width_px, rel=0.03)


def test_blood_absorbs_along_the_chord_of_a_cylinder():
    vessel, distance = straight(9.0, 0.4, "vein")
    absorbance, _ = phantom._blood((vessel, straight(0.01, 0.4, "artery")[0]), (200, 200), 20_000.0)
    # 20,000 px radius: so little blood in 9 px that neither saturation nor reflex matters.
    inside = distance < 3.5
    chord = 2 * np.sqrt(4.5**2 - distance[inside] ** 2)
    expected = chord[:, None] / 20_000 * np.array(phantom.ABSORB["vein"])
    np.testing.assert_allclose(absorbance[inside], expected, rtol=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_truth_agrees_with_brute_force(seed: int):
    picture = draw(seed, width=150, height=150)
    radius = phantom.FOV_RADIUS * 150
    rng = np.random.default_rng(0)
    pixels = np.argwhere(picture.fov)
    pixels = pixels[rng.choice(len(pixels), 1500, replace=False)]
    expected = np.zeros(len(pixels), bool)
    for segment in picture.segments:
        for a, b, wa, wb in zip(segment.path, segment.path[1:], segment.width_px, segment.width_px[1:], strict=False):
            along = np.clip((pixels - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            r = (wa + along * (wb - wa)) / 2
            near = np.linalg.norm(pixels - a - along[:, None] * (b - a), axis=1) <= np.maximum(r, 0.5)
            expected |= near & phantom._visible(r / radius, segment.kind, 1 / radius)
    np.testing.assert_array_equal(picture.vessels[tuple(pixels.T)], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_vessels_are_darker_than_their_surroundings_in_green(seed: int):
    picture = drawn(seed)
    green = picture.image[..., 1].astype(float)
    inner = ndimage.binary_erosion(picture.fov, iterations=20) & ~ndimage.binary_dilation(picture.disc, iterations=20)
    depth = ndimage.distance_transform_edt(picture.vessels)
    around = inner & ndimage.binary_dilation(picture.vessels, iterations=6)
    around &= ~ndimage.binary_dilation(picture.vessels, iterations=2)
    level = green[around].mean()
    assert green[inner & (depth >= 1) & (depth < 2)].mean() < 0.96 * level
    assert green[inner & (depth >= 2)].mean() < 0.88 * level
    assert green[inner & (depth >= 3)].mean() < 0.80 * level


@pytest.mark.parametrize("seed", SEEDS)
def test_disc_is_bright_macula_dark_and_outside_black(seed: int):
    picture = drawn(seed)
    green = picture.image[..., 1].astype(float)
    y, x = np.indices(green.shape)
    from_fovea = np.hypot(y - picture.fovea[0], x - picture.fovea[1]) / radius_px(picture)
    background = picture.fov & ~picture.vessels & ~picture.disc
    typical = np.median(green[background])
    assert np.median(green[picture.disc & ~picture.vessels]) > 1.3 * typical
    assert green[from_fovea < 0.06].mean() < 0.95 * np.median(green[background & (np.abs(from_fovea - 0.4) < 0.1)])
    outside = ~ndimage.binary_dilation(picture.fov, iterations=4)
    assert picture.image[outside].max() < 25
    assert 4 < picture.image[outside].mean() < 10


def test_contrast_and_noise_change_the_picture_but_not_the_truth():
    plain, pale, quiet, usual = (
        draw(2, width=200, height=200, contrast=contrast, noise=noise)
        for contrast, noise in ((1, 0), (0, 0), (1, 0), (1, 1))
    )
    for other in (pale, usual):
        np.testing.assert_array_equal(plain.vessels, other.vessels)
    np.testing.assert_array_equal(plain.image, quiet.image)
    wide = ndimage.binary_erosion(plain.vessels)
    assert plain.image[wide, 1].mean() < 0.9 * pale.image[wide, 1].mean()
    difference = usual.image.astype(int) - plain.image
    assert 0.5 < difference[plain.fov].std() < 4


def test_side_of_the_disc():
    columns = {}
    for eye in ("left", "right"):
        picture = draw(0, width=128, height=128, eye=eye)
        columns[eye] = np.nonzero(picture.disc)[1].mean() - np.nonzero(picture.fov)[1].mean()
    assert columns["left"] < 0 < columns["right"]
    sides = {np.nonzero(drawn(seed).disc)[1].mean() < 282 for seed in (*SEEDS, 4, 5)}
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"width": 63}, "width is 63"),
        ({"height": 10}, "height is 10"),
        ({"width": 100_000}, "width is 100000"),
        ({"width": 565.0}, "width is 565.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"eye": "both"}, "eye is 'both'"),
        ({"contrast": -0.1}, "contrast is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_impossible_options_are_named(options: dict, named: str):
    with pytest.raises(UserError, match=named):
        draw(**options)
