import zlib

import numpy as np
import pytest

from retina_seg import phantom
from retina_seg.viewer import pyramid
from retina_seg.viewer.pyramid import COARSEST, FULL, Plane

SIZES = [(1, 1), (511, 513), (512, 512), (513, 1025), (1281, 700), (2601, 37), (2600, 1320)]  # width, height


def tiles_of(unpack, plane, level, size):
    """All tiles of a plane at a level, by name, as they arrive in the browser."""
    names = pyramid.keys("p", level, size)
    message = pyramid.pack({}, [(name, *plane.tile(*pyramid.parse(name)[1:])) for name in names])
    return unpack(message)[1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((565, 584), [(565, 584)]),
        ((1280, 1280), [(1280, 1280)]),
        ((1281, 3), [(1281, 3), (641, 2)]),
        ((4288, 2848), [(4288, 2848), (2144, 1424), (1072, 712)]),
    ],
)
def test_levels_halve_until_the_coarsest_is_small(size, expected):
    assert pyramid.levels(*size) == expected
    assert max(expected[-1]) <= COARSEST


@pytest.mark.parametrize("size", SIZES)
def test_tiles_put_together_again_are_the_plane(unpack, joined, size):
    rng = np.random.default_rng(0)
    width, height = size
    prob = rng.random((height, width), dtype=np.float32)
    mask = prob > 0.7
    shown = tiles_of(unpack, Plane(prob, "prob"), 0, size)
    np.testing.assert_allclose(joined(shown, "p", 0, size) / FULL, prob, rtol=0, atol=1.01 / FULL)
    shown = tiles_of(unpack, Plane(mask, "mask"), 0, size)
    np.testing.assert_array_equal(joined(shown, "p", 0, size), mask)


@pytest.mark.parametrize("size", [size for size in SIZES if max(size) > COARSEST])
def test_every_level_has_its_size_and_the_mean_of_the_plane(unpack, joined, size):
    prob = np.random.default_rng(0).random(size[::-1], dtype=np.float32)
    plane = Plane(prob, "prob")
    for level, reduced in enumerate(pyramid.levels(*size)):
        shown = joined(tiles_of(unpack, plane, level, reduced), "p", level, reduced) / FULL
        assert shown.shape == reduced[::-1]
        assert shown.mean() == pytest.approx(prob.mean(), abs=0.02)


def test_a_level_holds_the_means_and_majorities_of_the_pixels_below(unpack, joined):
    size, half, quarter = pyramid.levels(2600, 1320)
    prob = np.random.default_rng(1).random(size[::-1], dtype=np.float32)
    mask = prob > 0.5
    for level, reduced in ((1, half), (2, quarter)):
        side = 2**level
        blocks = (reduced[1], side, reduced[0], side)
        means = prob.reshape(blocks).mean(axis=(1, 3))
        shown = joined(tiles_of(unpack, Plane(prob, "prob"), level, reduced), "p", level, reduced)
        np.testing.assert_allclose(shown / FULL, means, rtol=0, atol=1.1 / FULL)
        shares = mask.reshape(blocks).mean(axis=(1, 3))
        shown = joined(tiles_of(unpack, Plane(mask, "mask"), level, reduced), "p", level, reduced)
        np.testing.assert_array_equal(shown, shares >= 0.5)


def test_pictures_are_near_in_colour_and_in_grey(unpack, joined):
    size = (700, 530)
    rows, columns = np.mgrid[:530, :700]
    colour = np.stack([rows % 256, columns % 256, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    colour = np.where((rows // 256 + columns // 256)[..., None] % 2, 255 - colour, colour)
    for array in (colour, np.ascontiguousarray(colour[..., 0])):
        shown = joined(tiles_of(unpack, Plane(array, "picture"), 0, size), "p", 0, size)
        assert shown.shape == array.shape
        assert np.abs(shown.astype(int) - array).mean() < 3


def test_the_ends_of_the_range_and_the_input_stay(unpack):
    prob = np.array([[0, 1, 0.5]], np.float32)
    plane = Plane(prob, "prob")
    kept = prob.copy()
    assert tiles_of(unpack, plane, 0, (3, 1))["p/0/0/0"].tolist() == [0, FULL, FULL // 2]
    np.testing.assert_array_equal(prob, kept)


@pytest.mark.parametrize("kind", ["picture", "prob", "mask"])
@pytest.mark.parametrize("place", [(0, 2, 0), (0, 0, 1), (0, -1, 0), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (9, 0, 0)])
def test_there_are_no_other_tiles(kind, place):
    array = {"picture": np.uint8, "prob": np.float32, "mask": np.bool_}[kind]
    plane = Plane(np.zeros((300, 800), array), kind)
    plane.tile(0, 1, 0)
    with pytest.raises(IndexError):
        plane.tile(*place)


def test_names_of_tiles_are_read_back():
    names = pyramid.keys("prob:a:hard_exudates", 2, (1025, 512))
    assert [pyramid.parse(name) for name in names] == [("prob:a:hard_exudates", 2, column, 0) for column in range(3)]
    for text in ("", "colour", "colour/0/0", "colour/0/0/x", "colour/0/0/", "a/b/c/d"):
        with pytest.raises(ValueError, match=r"."):
            pyramid.parse(text)


def test_a_message_is_read_back(unpack):
    tiles = [("a", "u8", zlib.compress(b"\1\0")), ("é", "u16", zlib.compress(b"\xff\xff"))]
    header, pixels = unpack(pyramid.pack({"id": "eye é"}, tiles))
    assert header["id"] == "eye é"
    assert {name: values.tolist() for name, values in pixels.items()} == {"a": [1, 0], "é": [65535]}
    assert unpack(pyramid.pack({}, [])) == ({"tiles": []}, {})


def test_contrast_rises_and_nothing_else_changes():
    faint = phantom.draw(1, width=200, height=206, contrast=0.4)
    before = faint.image.copy()
    shown = pyramid.contrast(faint.image)
    np.testing.assert_array_equal(faint.image, before)
    assert (shown.shape, shown.dtype) == (before.shape, np.uint8)
    inside = faint.fov
    assert shown[..., 1][inside].std() > 1.2 * before[..., 1][inside].std()
