import threading
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.runtime.scriptrunner import StopException

from retina_seg import Segmenter, zoo
from retina_seg.errors import UserError
from retina_seg.models import build_model
from retina_seg.viewer import batches, engine
from retina_seg.viewer.opened import Loaded, Photograph


@pytest.fixture
def loads(monkeypatch):
    """Names of the models that are loaded, with no model at hand before and after."""
    engine._segmenter.cache_clear()
    loaded = []
    load = Segmenter.from_pretrained

    def counted(name, device="cpu", *, flips=True):
        if flips:  # else it is the one that looks for vessels to judge photographs by
            loaded.append(name)
        return load(name, device, flips=flips)

    monkeypatch.setattr(Segmenter, "from_pretrained", counted)
    yield loaded
    engine._segmenter.cache_clear()


def test_models_have_names(tmp_path):
    assert engine.names(()) == {name: name for name in zoo.names()}
    runs = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert engine.names(runs) == {name: name for name in zoo.names()} | {runs[0]: "a (run)", runs[1]: "b (run)"}


def test_runs_of_one_folder_name_can_be_told_apart(tmp_path):
    runs = (str(tmp_path / "monday" / "vessels"), str(tmp_path / "tuesday" / "vessels"))
    titles = engine.names(runs)
    assert titles[runs[0]] != titles[runs[1]]


def test_results_are_those_of_the_library(drawing, tiny_run, loads):
    expected = Segmenter.from_pretrained(str(tiny_run)).predict(drawing.image, drawing.fov)
    loads.clear()
    for _ in range(2):
        given = engine.segment(str(tiny_run), Loaded(drawing.image, drawing.fov, {}))
        np.testing.assert_array_equal(given.prob, expected.prob)
        np.testing.assert_array_equal(given.mask, expected.mask)
        np.testing.assert_array_equal(given.fov, drawing.fov)
    assert given.provenance["field_of_view"]["source"] == "given"
    assert (
        engine.segment(str(tiny_run), Loaded(drawing.image, None, {})).provenance["field_of_view"]["source"] == "found"
    )
    assert loads == [str(tiny_run)]


def test_an_error_leaves_the_engine_free_for_the_next(drawing, tiny_run, loads):
    with pytest.raises(UserError):
        engine.segment("no such model", Loaded(drawing.image, None, {}))
    with pytest.raises(UserError):
        engine.segment(str(tiny_run), Loaded(np.zeros((80, 80, 3), np.uint8), None, {}))
    assert engine.segment(str(tiny_run), Loaded(drawing.image, drawing.fov, {})).targets == ("vessels",)


def test_one_visitor_at_a_time(drawing, monkeypatch):
    inside, most = [], []

    class Slow:
        def predict(self, image, fov):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.02)
            inside.pop()

    monkeypatch.setattr(engine, "_segmenter", lambda name: Slow())
    loaded = Loaded(drawing.image, None, {})
    visitors = [threading.Thread(target=engine.segment, args=("m", loaded)) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert most == [1] * 4


def test_the_first_model_is_warmed(loads):
    engine.warm()
    assert loads == zoo.names()[:1]


def test_a_dictionary_is_looked_into(drawing, dictionary_run, loads):
    name = str(dictionary_run)
    assert engine.has_dictionary(name)
    assert not engine.has_dictionary(zoo.DEFAULT)
    assert loads == []
    inside = engine.inside(name, Loaded(drawing.image, None, {}))
    assert list(inside.figures) == ["atoms", "codes", "penalties", "rebuilt", "objective"]
    assert all(figure.startswith(b"\x89PNG") for figure in inside.figures.values())
    assert inside.picture.shape[:2] == inside.image.shape[1:]
    assert inside.picture.shape[2] == 3
    middle = engine.votes(name, inside.image, (100, 100))
    assert middle != engine.votes(name, inside.image, (50, 120))
    with pytest.raises(UserError, match="has no dictionary"):
        engine.inside(zoo.DEFAULT, Loaded(drawing.image, None, {}))


def test_atoms_that_do_not_vote_are_not_drawn(monkeypatch):
    net = build_model("dict_unet", 1, 1, arguments={"count": 6, "side": 5, "features": [4] * 6})
    monkeypatch.setattr(engine, "_segmenter", lambda name: SimpleNamespace(net=net))
    assert engine.votes("any", np.zeros((1, 32, 32), np.float32), (3, 4)) is None


@pytest.fixture
def page(monkeypatch):
    """A run of a page in this thread: `page.append(True)` tells Streamlit that the page was left."""
    left = []

    class State:
        def __contains__(self, key):
            if left:
                raise StopException
            return False

    monkeypatch.setattr(engine, "get_script_run_ctx", lambda suppress_warning: "a run")
    monkeypatch.setattr(engine.st, "session_state", State())
    return left


def test_a_page_that_was_left_gives_up_its_turn(page, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE", 0.01)
    ran = []
    with engine.turn():
        page.append(True)
        other = threading.Thread(target=waits, args=(ran,))
        other.start()
        other.join(60)
        assert not other.is_alive()  # though the model is still in use
    assert ran == ["stopped"]
    with pytest.raises(StopException), engine.turn():
        ran.append("ran")
    page.clear()
    with engine.turn():  # nobody holds it any more
        ran.append("ran")
    assert ran == ["stopped", "ran"]


def waits(ran):
    try:
        with engine.turn():
            ran.append("ran")
    except StopException:
        ran.append("stopped")


def test_a_batch_ends_with_its_page(page, drawing):
    """What ends the run of a page is no fault of a photograph: the next one is not segmented either."""
    page.append(True)
    shown = Loaded(drawing.image, drawing.fov, {})
    photograph = Photograph("file:1", "eye.png", "file", lambda: shown)
    with pytest.raises(StopException):
        batches.segment(photograph, "vessels", lambda: engine.segment("vessels", shown))
