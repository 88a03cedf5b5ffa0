"""Whatever the browser says, a pixel of the picture is chosen."""

import pytest
import streamlit

from retina_seg.viewer import pointer

SIZE = (60, 80)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, (30, 40)),
        ({}, (30, 40)),
        ({"pixel": None}, (30, 40)),
        ({"pixel": {"picture": "eye", "x": 79, "y": 0}}, (0, 79)),
        ({"pixel": {"picture": "another", "x": 79, "y": 0}}, (30, 40)),
        ({"pixel": {"picture": "eye", "x": 80, "y": 0}}, (30, 40)),
        ({"pixel": {"picture": "eye", "x": -1, "y": 0}}, (30, 40)),
        ({"pixel": {"picture": "eye", "x": "7", "y": 0}}, (30, 40)),
        ({"pixel": {"picture": "eye", "x": 3.5, "y": 0}}, (30, 40)),
        ({"pixel": "eye"}, (30, 40)),
    ],
)
def test_only_a_pixel_of_this_picture_is_taken(told, expected, monkeypatch):
    monkeypatch.setattr(streamlit, "session_state", {pointer.KEY: told})
    assert pointer.chosen("eye", SIZE) == expected
