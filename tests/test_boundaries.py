"""Distances between outlines of drawn circles with known answers."""

import math

import numpy as np
import pytest

from retina_seg.boundaries import DISTANCES, distances


def circle(radius, y=100, x=100, size=200):
    yy, xx = np.mgrid[:size, :size]
    return np.hypot(yy - y, xx - x) <= radius


def test_circles_around_one_centre_lie_their_difference_apart():
    found = distances(circle(50), circle(40))
    assert found["mean_distance"] == pytest.approx(10, abs=0.3)
    assert found["hausdorff95"] == pytest.approx(10, abs=0.7)


def test_equal_masks_have_no_distance_and_the_order_does_not_matter():
    assert distances(circle(30), circle(30)) == dict.fromkeys(DISTANCES, 0)
    assert distances(circle(30), circle(30, y=110)) == pytest.approx(distances(circle(30, y=110), circle(30)))


def test_a_far_piece_moves_the_distance():
    mask = circle(30) | circle(5, y=10, x=10)
    assert distances(mask, circle(30))["mean_distance"] > 3


def test_an_empty_mask_has_no_outline():
    nothing = np.zeros((200, 200), dtype=bool)
    for pair in ((nothing, circle(30)), (circle(30), nothing), (nothing, nothing)):
        assert all(math.isnan(value) for value in distances(*pair).values())


def test_masks_at_the_edge_of_the_frame():
    found = distances(circle(30, y=0), circle(30, y=0, x=104))
    assert 0 < found["mean_distance"] < 4
