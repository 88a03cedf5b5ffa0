"""Centre lines: the skeleton against scikit-image, every link in one path, lines of drawn masks that can be told."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from skimage.morphology import thin

from retina_seg import centrelines, phantom
from retina_seg.centrelines import arc_lengths, centre_lines, path_ends

Bools = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def vessels() -> Bools:
    return phantom.draw(0).vessels


def disc(size: int, radius: float) -> Bools:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(y, x) <= radius


def cross(calibre: int) -> Bools:
    mask = np.zeros((100, 140), dtype=bool)
    mask[40 : 40 + calibre, 10:130] = True
    mask[10:90, 60 : 60 + calibre] = True
    return mask


def everywhere(mask: Bools) -> centrelines.Lines:
    return centre_lines(mask, np.ones_like(mask))


def test_the_skeleton_is_that_of_guo_and_hall(vessels: Bools) -> None:
    noise = np.random.default_rng(0).random((150, 140)) < 0.6
    diagonal = np.eye(120, dtype=bool) | np.eye(120, k=1, dtype=bool)  # two pixels wide
    for mask in (vessels, noise, diagonal, diagonal[::-1], disc(80, 30)):
        framed = np.pad(mask, 2)
        assert np.array_equal(centrelines._thin(framed), thin(framed))


def test_every_link_of_the_skeleton_is_in_one_path(vessels: Bools) -> None:
    framed = np.pad(vessels | np.pad(disc(40, 12) & ~disc(40, 9), ((0, 544), (0, 525))), 2)
    pixels = np.flatnonzero(centrelines._thin(framed))
    a, b = centrelines._links(pixels, framed.shape[1])
    point, path = centrelines._trace(pixels, framed.shape[1])
    same = path[1:] == path[:-1]
    steps = {frozenset(pair) for pair in zip(point[1:][same].tolist(), point[:-1][same].tolist(), strict=True)}
    assert steps == {frozenset(pair) for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert same.sum() == len(a)


@pytest.mark.parametrize("calibre", [1, 5, 9])
def test_a_cross_is_four_paths_from_its_middle(calibre: int) -> None:
    mask = cross(calibre)
    lines = everywhere(mask)
    assert lines.shape == mask.shape
    assert mask[tuple(lines.pixels.T)].all()
    ends = lines.place[np.stack([np.unique(end) for end in path_ends(lines.path)])]  # (2, paths)
    middle = 62 + 42j + (1 + 1j) * (calibre - 1) / 2  # behind the border of 2 px
    assert ends.shape == (2, 4)
    assert np.abs(ends - middle).min(axis=0).max() < 1.5
    assert lines.length_px == pytest.approx(120 + 80, abs=2 * calibre + 4)
    assert lines.calibre[lines.clear] == pytest.approx(calibre, abs=1e-6)
    assert not (lines.clear & ~lines.single).any()
    assert np.abs(lines.place[lines.single] - middle).min() > calibre / 2


def test_a_bump_is_a_spur_and_a_branch_is_not() -> None:
    mask = np.zeros((60, 120), dtype=bool)
    mask[30:37, 10:110] = True
    straight = everywhere(mask)
    mask[28:30, 60] = True
    assert everywhere(mask).path.max() == straight.path.max() == 0
    mask[5:30, 60] = True
    assert everywhere(mask).path.max() == 2


def test_near_the_rim_a_line_is_not_that_of_one_vessel() -> None:
    mask = np.zeros((60, 120), dtype=bool)
    mask[30:35, :] = True
    inside = np.ones_like(mask)
    inside[:, :20] = inside[:, 100:] = False
    lines = centre_lines(mask & inside, inside)
    x = lines.place[lines.single].real - 2
    assert 22 < x.min() < 30
    assert 90 < x.max() < 97


def test_views_of_any_order_give_the_same_and_stay_as_they_are(vessels: Bools) -> None:
    expected, copy = everywhere(vessels), np.asfortranarray(vessels)
    for found, wanted in zip(everywhere(copy), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert np.array_equal(copy, vessels)


def test_ends_and_lengths_of_paths() -> None:
    place = np.array([0, 3, 3 + 4j, 10, 20, 20 + 1j, 22 + 1j])
    path = np.array([0, 0, 0, 1, 2, 2, 2])
    first, last = path_ends(path)
    assert first.tolist() == [0, 0, 0, 3, 4, 4, 4]
    assert last.tolist() == [2, 2, 2, 3, 6, 6, 6]
    assert arc_lengths(place, path).tolist() == [7, 0, 3]


def test_no_lines() -> None:
    nothing = np.zeros((30, 40), dtype=bool)
    for mask in (nothing, np.zeros((0, 0), dtype=bool)):
        assert math.isnan(centre_lines(mask, mask).length_px)
    lines = everywhere(nothing)
    assert lines.length_px == 0
    assert lines.place.size == lines.path.size == len(lines.pixels) == 0
