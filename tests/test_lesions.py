"""Detection of lesions on drawn squares with known answers."""

import math

import numpy as np
import pytest

from retina_seg import lesions
from retina_seg.lesions import Detections, detections, sensitivities


def squares(*boxes, size=60):
    """Mask bool (size, size) with the squares (y, x, side)."""
    mask = np.zeros((size, size), dtype=bool)
    for y, x, side in boxes:
        mask[y : y + side, x : x + side] = True
    return mask


FOV = squares((2, 2, 56))
TRUTH = squares((10, 10, 10), (10, 30, 10), (40, 10, 10))


def found_and_false(mask, truth=TRUTH, fov=FOV):
    one = detections(mask.astype(np.float32), truth, fov, [0.5])
    return one.lesions, int(one.found[0]), int(one.false[0])


def test_a_lesion_is_found_where_a_fifth_of_it_is_marked():
    assert found_and_false(squares((10, 10, 5))) == (3, 1, 0)
    assert found_and_false(squares((10, 10, 4))) == (3, 0, 0)  # 16 of 100 pixels: not found, and nothing false
    assert found_and_false(TRUTH) == (3, 3, 0)
    assert found_and_false(np.zeros_like(TRUTH)) == (3, 0, 0)


def test_a_piece_is_false_where_less_than_a_fifth_of_it_lies_on_lesions():
    assert found_and_false(squares((50, 50, 4))) == (3, 0, 1)
    assert found_and_false(squares((10, 10, 21))) == (3, 1, 0)  # 441 px, 110 of them on lesions, 10 on the second
    assert found_and_false(squares((10, 10, 25))) == (3, 2, 0)  # 625 px, 150 of them on lesions
    assert found_and_false(squares((16, 16, 40))) == (3, 0, 1)  # far too large: it covers much of two and finds none


def test_pixels_that_touch_at_a_corner_are_one_piece():
    assert found_and_false(squares((50, 50, 2), (52, 52, 2))) == (3, 0, 1)
    assert found_and_false(squares((50, 50, 2), (53, 53, 2))) == (3, 0, 2)


def test_what_lies_outside_the_field_of_view_does_not_count():
    assert found_and_false(squares((0, 0, 2), (58, 0, 2)), truth=squares((0, 20, 2), (40, 10, 10))) == (1, 0, 0)


def test_an_image_without_lesions_has_false_pieces_only():
    assert found_and_false(squares((50, 50, 4)), truth=np.zeros_like(TRUTH)) == (0, 0, 1)


def test_more_is_marked_at_lower_thresholds():
    rng = np.random.default_rng(0)
    prob = np.clip(0.4 * TRUTH + rng.uniform(0, 0.6, TRUTH.shape), 0, 1).astype(np.float32)
    one = detections(prob, TRUTH, FOV, lesions.THRESHOLDS)
    assert one.found.shape == one.false.shape == (len(lesions.THRESHOLDS),)
    assert one.found.max() == 3
    assert one.found[-1] == 0
    assert one.false[-1] == 0


@pytest.mark.parametrize("value", [0.01, 0.3, 1.0])
def test_marking_everything_finds_nothing(value):
    one = detections(np.full(TRUTH.shape, value, np.float32), TRUTH, FOV, lesions.THRESHOLDS)
    assert sensitivities([one], np.ones((1, 1)))[0].tolist() == [0, 0, 0, 0]


def test_froc_lowers_the_threshold_until_there_are_too_many_false_pieces():
    images = [
        Detections(4, np.array([4, 3, 1]), np.array([9, 2, 0])),
        Detections(0, np.array([0, 0, 0]), np.array([3, 0, 0])),
    ]
    once = np.ones((1, 2))
    assert sensitivities(images, once, [0, 1, 3.5, 6, 9])[0] == pytest.approx([0.25, 0.75, 0.875, 1.0, 1.0])
    # The second image alone has no lesions; the first alone has more false pieces an image.
    alone = sensitivities(images, np.array([[0, 1], [1, 0]]), [1, 2])
    assert all(math.isnan(value) for value in alone[0])
    assert alone[1].tolist() == [0.5, 0.75]
    assert sensitivities([Detections(2, np.array([2]), np.array([5]))], np.ones((1, 1)), [1])[0, 0] == 0.2
    # Lower thresholds that have fewer false pieces again come too late.
    late = Detections(4, np.array([4, 2, 1]), np.array([0, 9, 0]))
    assert sensitivities([late], np.ones((1, 1)), [0])[0, 0] == 0.25


def test_thresholds_ascend_evenly_in_log_odds():
    odds = [math.log(value / (1 - value)) for value in lesions.THRESHOLDS]
    assert np.diff(odds) == pytest.approx(0.5)
    assert 0.5 in lesions.THRESHOLDS


def test_extent_counts_pieces_and_measures_them_in_disc_areas():
    found = lesions.extent(TRUTH, FOV, disc_pixels=600)
    assert (found.count, found.pixels, found.disc_areas) == (3, 300, 0.5)
    assert math.isnan(lesions.extent(TRUTH, FOV).disc_areas)
    assert math.isnan(lesions.extent(TRUTH, FOV, disc_pixels=0).disc_areas)
    assert lesions.extent(np.zeros_like(TRUTH), FOV, 600) == lesions.Extent(0, 0, 0.0)


def test_the_largest_piece_is_the_disc():
    found = lesions.largest_piece(squares((10, 10, 20), (50, 50, 3)))
    np.testing.assert_array_equal(found, squares((10, 10, 20)))
    assert not lesions.largest_piece(np.zeros_like(TRUTH)).any()


def test_a_piece_at_the_rim_is_cut():
    assert not lesions.is_cut(squares((3, 3, 10)), FOV)
    assert lesions.is_cut(squares((2, 10, 10)), FOV)  # the rim of the field of view
    assert lesions.is_cut(squares((0, 10, 10)), np.ones_like(FOV))  # the border of the picture


def test_specks_are_passed_over_in_large_photographs():
    fov = squares((0, 0, 2000), size=2000)  # the smallest piece that counts has four pixels
    assert lesions.smallest_area(fov) == 4
    assert lesions.smallest_area(FOV) == 1
    truth = squares((100, 100, 10), size=2000)
    mask = squares((100, 100, 10), (500, 500, 1), (600, 600, 2), size=2000)
    one = detections(mask.astype(np.float32), truth, fov, [0.5])
    assert (one.lesions, int(one.found[0]), int(one.false[0])) == (1, 1, 1)
    found = lesions.extent(mask, fov)
    assert (found.count, found.pixels) == (2, 105)
