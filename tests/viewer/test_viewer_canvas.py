import re
from types import SimpleNamespace

import pytest

from retina_seg.viewer import canvas, parts
from retina_seg.viewer.scene import Scene, Source


@pytest.fixture
def scene(prediction):
    return Scene("shown", "drawn:1", [Source("a", "m", prediction)], {})


@pytest.fixture
def page(monkeypatch, scene, unpack):
    """The page with the picture: `state` is Streamlit's, `thresholds` what the user chose."""
    page = SimpleNamespace(state={}, thresholds=[], mounted=None)
    monkeypatch.setattr(canvas, "st", SimpleNamespace(session_state=page.state))

    def mount(**given):
        page.mounted = given

    monkeypatch.setattr(canvas, "_component", mount)

    def run():
        canvas.show(scene, thresholds={"a:vessels": 0.6}, um_per_px=7.0, on_thresholds=page.thresholds.append)
        return unpack(page.mounted["data"])

    def say(name, value):
        page.state[canvas.KEY] = {name: value}
        page.mounted[f"on_{name}_change"]()

    page.run, page.say = run, say
    return page


def test_a_scene_opens_with_all_of_it(page):
    header, tiles = page.run()
    assert header["scene"]["thresholds"] == {"a:vessels": 0.6}
    assert header["scene"]["um_per_px"] == 7.0
    assert "colour/0/0/0" in tiles


def test_tiles_are_sent_once_when_they_are_asked_for(page):
    page.run()
    page.say("want", {"id": "shown", "tiles": ["green/0/0/0", "nothing/0/0/0"]})
    header, tiles = page.run()
    assert "scene" not in header
    assert list(tiles) == ["green/0/0/0"]
    assert "scene" in page.run()[0]


@pytest.mark.parametrize(
    "wanted",
    [
        *({"id": "another", "tiles": ["green/0/0/0"]}, {"id": "shown", "tiles": []}, {"id": "shown"}, {}, None),
        *("nonsense", ["shown"], 7, {"id": "shown", "tiles": "green/0/0/0"}, {"id": ["shown"], "tiles": [None]}),
    ],
)
def test_everything_else_is_answered_with_the_scene(page, wanted):
    page.run()
    page.say("want", wanted)
    assert "scene" in page.run()[0]


def test_thresholds_of_this_scene_are_passed_on(page):
    page.run()
    page.say("thresholds", {"scene": "another", "values": {"a:vessels": 0.2}})
    assert page.thresholds == []
    page.say("thresholds", {"scene": "shown", "values": {"a:vessels": 1}})
    assert page.thresholds == [{"a:vessels": 1.0}]


@pytest.mark.parametrize("component", ["canvas", "pointer"])
def test_the_picture_asks_no_other_address(component):
    for suffix in ("html", "css", "js"):
        text = parts.read(component, suffix)
        assert text.strip()
        assert not re.search(r"https?://|\bimport\s*\(|@import|\burl\(|\bfetch\(|XMLHttpRequest", text)


@pytest.mark.parametrize("told", ["nonsense", None, 3, {"scene": "shown"}, {"scene": "shown", "values": [0.5]}])
def test_thresholds_that_are_none_are_passed_over(page, told):
    page.run()
    page.say("thresholds", told)
    assert page.thresholds == []


def test_only_probabilities_are_thresholds(page):
    page.run()
    values = {"a:vessels": 0.25, "b": "nan", "c": float("nan"), "d": -1, "e": 2, "f": None}
    page.say("thresholds", {"scene": "shown", "values": values})
    assert page.thresholds == [{"a:vessels": 0.25}]
