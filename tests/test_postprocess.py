"""Small pieces on drawn masks with known answers."""

import numpy as np
import pytest
from scipy import ndimage

from retina_seg import postprocess
from retina_seg.postprocess import small_pieces, smallest_area, without_small_pieces


def disc(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(y, x) < size / 2


@pytest.fixture
def mask():
    """A line of 10 pixels, a block of 4, a diagonal of 3 and a single pixel."""
    drawn = np.zeros((20, 20), dtype=bool)
    drawn[2, 2:12] = True
    drawn[6:8, 6:8] = True
    drawn[[12, 13, 14], [4, 5, 6]] = True
    drawn[17, 17] = True
    return drawn


@pytest.mark.parametrize(("area", "gone"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 4), (5, 8), (10, 8), (11, 18)])
def test_pieces_smaller_than_the_area_are_found(mask, area, gone):
    found = small_pieces(mask, area)
    assert found.sum() == gone
    assert not (found & ~mask).any()


def test_corners_connect(mask):
    assert not small_pieces(mask, 3)[13, 5]  # the diagonal is one piece of 3


def test_an_empty_and_a_full_mask():
    assert not small_pieces(np.zeros((5, 5), dtype=bool), 99).any()
    assert not small_pieces(np.ones((5, 5), dtype=bool), 25).any()
    assert small_pieces(np.ones((5, 5), dtype=bool), 26).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_mask_turns_the_answer(turns):
    mask = np.random.default_rng(0).random((40, 50)) > 0.7
    turned = small_pieces(np.rot90(mask, turns), 6)
    np.testing.assert_array_equal(turned, np.rot90(small_pieces(mask, 6), turns))


def test_agrees_with_scipy():
    mask = np.random.default_rng(1).random((60, 60)) > 0.75
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    np.testing.assert_array_equal(small_pieces(mask, 7), np.isin(labels, 1 + np.flatnonzero(sizes < 7)))


def test_the_area_follows_the_field_of_view():
    assert smallest_area(disc(500), 1e-4) == 25
    assert smallest_area(disc(1000), 1e-4) == 100
    assert smallest_area(disc(500), 0) == 0
    with pytest.raises(ValueError, match="at least 0"):
        smallest_area(disc(20), -1)
    # What was measured: 6 pixels on DRIVE.
    assert smallest_area(disc(540)) == 6


def test_only_removed_pixels_change(mask):
    rng = np.random.default_rng(2)
    prob = np.where(mask, rng.uniform(0.5, 1, mask.shape), rng.uniform(0, 0.49, mask.shape)).astype(np.float32)
    before = prob.copy()
    cleaned = without_small_pieces(prob, np.ones_like(mask), 0.5, smallest=5 / 400)
    np.testing.assert_array_equal(prob, before)
    assert cleaned.dtype == np.float32
    gone = small_pieces(mask, 5)
    assert gone.sum() == 8
    assert not cleaned[gone].any()
    np.testing.assert_array_equal(cleaned[~gone], prob[~gone])


def test_a_pixel_at_the_threshold_is_marked():
    prob = np.zeros((9, 9), dtype=np.float32)
    prob[4, 4], prob[1, 1] = 0.3, 0.29
    cleaned = without_small_pieces(prob, np.ones((9, 9), dtype=bool), 0.3, smallest=2 / 81)
    assert cleaned[4, 4] == 0
    assert cleaned[1, 1] == np.float32(0.29)


def test_what_lies_outside_counts_for_nothing():
    fov = disc(40)
    prob = np.random.default_rng(3).random((40, 40)).astype(np.float32)
    flipped = np.where(fov, prob, 1 - prob)
    one, other = (without_small_pieces(each, fov, 0.6, smallest=8 / 1600) for each in (prob, flipped))
    np.testing.assert_array_equal(one[fov], other[fov])
    np.testing.assert_array_equal(one[~fov], prob[~fov])
    assert (one != prob).any()


def test_it_says_what_it_does():
    assert "8-connected" in postprocess.describe()
    assert f"{postprocess.SMALLEST:g}" in postprocess.describe()
