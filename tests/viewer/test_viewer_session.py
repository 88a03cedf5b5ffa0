from dataclasses import fields

import numpy as np
import pytest

from retina_seg import metrics
from retina_seg.errors import UserError
from retina_seg.viewer import batches, engine, graders, numbers
from retina_seg.viewer.opened import Loaded, Photograph
from retina_seg.viewer.session import RESULTS, DroppedTruth, Session

TITLES = {"one": "first model", "two": "second model"}


@pytest.fixture
def session():
    return Session()


KEPT = ("current", "um_of_size")  # not of one photograph


@pytest.fixture(autouse=True)
def inside(monkeypatch):
    """Names of the models that coded a photograph, in place of the models themselves."""
    coded = []

    def code(name, loaded):
        coded.append(name)
        return engine.Inside(loaded.image, np.zeros((1, 2, 2), np.float32), {})

    monkeypatch.setattr(engine, "inside", code)
    monkeypatch.setattr(graders, "grade", lambda name, loaded: graders.Graded([], [], {}))
    return coded


def used(session, photograph):
    """Leave something of a photograph in every place of a session."""
    session.open(photograph)
    session.thresholds[photograph.id, "one"] = {"vessels": 0.6}
    marked = np.zeros(session.load(photograph).image.shape[:2], np.bool_)
    marked[50:60, 50:60] = True
    session.truths[photograph.id] = DroppedTruth("truth file", {"vessels": "truth.png"}, {"vessels": marked})
    session.refused[photograph.id] = "another file is too small"
    session.um_per_px[photograph.id] = 7.5
    session.scene(photograph, ("one", "two"), TITLES)
    session.chosen(photograph, "one")
    session.inside(photograph, "atoms")
    session.graded(photograph, "grader")
    session.measured(photograph, "one")
    session.auc(photograph, "one", "vessels", marked)
    session.batch[photograph.id, "one"] = batches.segment(photograph, "one", lambda: session.predict(photograph, "one"))


def stores(session):
    return {field.name: getattr(session, field.name) for field in fields(session)}


def test_a_photograph_is_opened_once_and_looked_at(session, photograph):
    first, second = photograph("1"), photograph("2")
    session.open(first)
    session.open(second)
    session.open(first)
    assert list(session.photographs) == [first.id, second.id]
    assert session.current == first.id


def test_uploads_come_and_go(session, photograph):
    drawn = photograph("d")
    files = [photograph(str(number), source="file") for number in range(3)]
    session.open(drawn)
    session.keep_uploads(files[:2])
    assert list(session.photographs) == [drawn.id, files[0].id, files[1].id]
    assert session.current == files[0].id
    session.current = files[1].id
    session.keep_uploads(files[:2])
    assert session.current == files[1].id
    session.keep_uploads(files)
    assert session.current == files[2].id
    session.keep_uploads(files[:1])
    assert list(session.photographs) == [drawn.id, files[0].id]
    assert session.current == drawn.id
    session.keep_uploads([])
    assert list(session.photographs) == [drawn.id]


def test_closing_forgets_everything_of_one_photograph_and_nothing_of_others(session, photograph, runs):
    gone, stays = photograph("gone", source="file"), photograph("stays")
    used(session, stays)
    before = {name: len(store) for name, store in stores(session).items()}
    used(session, gone)
    assert all(len(store) > before[name] for name, store in stores(session).items() if name not in KEPT)
    session.close(gone.id)
    assert {name: len(store) for name, store in stores(session).items()} == before
    assert gone.id not in repr(stores(session))
    assert session.current == stays.id
    session.close(stays.id)
    assert not any(stores(session).values())


def test_closing_what_is_not_open_does_nothing(session):
    session.close("file:none")
    assert session.current == ""


def test_a_model_runs_once_for_each_photograph(session, photograph, runs):
    one = photograph("1")
    assert not session.has(one, "one")
    first = session.predict(one, "one")
    assert session.has(one, "one")
    assert session.predict(one, "one") is first
    session.scene(one, ("one",), TITLES)
    session.chosen(one, "one")
    session.thresholds[one.id, "one"] = {"vessels": 0.8}
    session.chosen(one, "one")
    assert runs == ["one"]
    session.scene(one, ("one", "two"), TITLES)
    session.predict(photograph("2"), "one")
    assert runs == ["one", "two", "one"]


def test_only_the_results_used_last_stay(session, photograph, runs):
    several = [photograph(str(number)) for number in range(RESULTS + 2)]
    for one in several:
        used(session, one)
        session.predict(several[0], "one")
    assert session.has(several[0], "one")
    assert session.has(several[-1], "one")
    assert not session.has(several[1], "one")
    for name in ("_loaded", "_results", "_scenes", "_chosen", "_measured"):
        assert len(stores(session)[name]) <= RESULTS


def test_pixels_are_read_once_while_they_are_at_hand(session, drawing):
    reads = []

    def read():
        reads.append(1)
        return Loaded(drawing.image, None, {})

    one = Photograph("file:1", "eye", "file", read)
    session.load(one)
    session.load(one)
    assert len(reads) == 1


def test_a_photograph_that_cannot_be_read_says_so_every_time(session, runs):
    def read():
        raise UserError("eye.png is damaged")

    broken = Photograph("file:1", "eye.png", "file", read)
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            session.scene(broken, ("one",), TITLES)
    assert not session.has(broken, "one")
    assert runs == []


def test_thresholds_are_those_of_a_photograph_and_a_model(session, photograph, runs, prediction):
    one, other = photograph("1"), photograph("2")
    session.thresholds[one.id, "one"] = {"vessels": 0.8}
    moved, measured = session.chosen(one, "one"), session.measured(one, "one")
    np.testing.assert_array_equal(moved.mask, prediction.at(0.8).mask)
    assert measured == numbers.measure(prediction.at(0.8))
    assert session.chosen(one, "two").thresholds == prediction.thresholds
    assert session.chosen(other, "one").thresholds == prediction.thresholds
    assert session.chosen(one, "one") is moved
    session.thresholds[one.id, "one"] = {"no such target": 0.1}
    assert session.chosen(one, "one") is session.predict(one, "one")


def test_numbers_go_with_a_threshold_that_leaves_nothing(session, photograph, runs):
    one = photograph("1")
    assert session.measured(one, "one")
    session.thresholds[one.id, "one"] = {"vessels": 0.9999}
    moved, measured = session.chosen(one, "one"), session.measured(one, "one")
    assert numbers.withheld(moved)
    assert measured == {}


def test_a_dropped_truth_makes_another_scene_and_goes_before_the_known_one(session, photograph, runs, drawing):
    one = photograph("1")
    before = session.scene(one, ("one",), TITLES)
    assert session.scene(one, ("one",), TITLES) is before
    np.testing.assert_array_equal(before.truths["vessels"], drawing.vessels)
    dropped = drawing.vessels[::-1].copy()
    session.truths[one.id] = DroppedTruth("file 1", {"vessels": "truth.png"}, {"vessels": dropped})
    after = session.scene(one, ("one",), TITLES)
    assert after.id != before.id
    assert after.photograph == before.photograph
    np.testing.assert_array_equal(after.truths["vessels"], dropped)
    session.truths[one.id] = DroppedTruth("file 2", {"vessels": "truth.png"}, {"vessels": dropped})
    assert session.scene(one, ("one",), TITLES).id not in (before.id, after.id)
    del session.truths[one.id]
    assert session.scene(one, ("one",), TITLES) is before
    assert runs == ["one"]


def test_scenes_of_other_models_and_photographs_have_other_names(session, photograph, runs):
    one, other = photograph("1"), photograph("2")
    ids = {
        session.scene(shown, models, TITLES).id
        for shown in (one, other)
        for models in (("one",), ("two",), ("one", "two"), ("two", "one"))
    }
    assert len(ids) == 8


def test_a_scene_has_the_truths_of_its_targets_only(session, runs, drawing):
    truths = {"vessels": drawing.vessels, "disc": drawing.disc}
    one = Photograph("drawn:1", "eye", "drawn", lambda: Loaded(drawing.image, None, truths))
    assert set(session.scene(one, ("one",), TITLES).truths) == {"vessels"}


def test_auc_is_that_of_the_library_and_follows_the_truth(session, photograph, runs, prediction, drawing, monkeypatch):
    one = photograph("1")
    expected = metrics.auc(prediction.prob[0], drawing.vessels, prediction.fov)
    assert session.auc(one, "one", "vessels", drawing.vessels) == expected
    other = drawing.vessels[::-1].copy()
    session.truths[one.id] = DroppedTruth("file", {"vessels": "truth.png"}, {"vessels": other})
    assert session.auc(one, "one", "vessels", other) == metrics.auc(prediction.prob[0], other, prediction.fov)
    monkeypatch.setattr(metrics, "auc", None)
    assert session.auc(one, "one", "vessels", other) != expected


def test_two_sessions_share_nothing(photograph, runs):
    first, second = Session(), Session()
    used(first, photograph("1"))
    assert not any(stores(second).values())
    assert not second.has(photograph("1"), "one")
    assert all(one is not two for one, two in zip(stores(first).values(), stores(second).values(), strict=True) if one)


def test_a_pixel_size_is_that_of_its_photograph_or_of_all_of_one_size(session, photograph):
    one, other = photograph("1"), photograph("2")
    assert session.pixel_size(one) is None
    session.um_per_px[one.id] = 7.5
    assert session.pixel_size(one) == 7.5
    assert session.pixel_size(other) is None
    session.um_of_size[session.load(one).image.shape[:2]] = 8.0
    assert session.pixel_size(one) == 7.5
    assert session.pixel_size(other) == 8.0


def test_truths_of_several_targets_stay_beside_each_other():
    session, mask = Session(), np.ones((4, 4), dtype=bool)
    session.add_truth("eye", DroppedTruth("1", {"disc": "od.tif"}, {"disc": mask}))
    session.add_truth("eye", DroppedTruth("2", {"haemorrhages": "he.tif"}, {"haemorrhages": mask}))
    assert dict(session.truths["eye"].files) == {"disc": "od.tif", "haemorrhages": "he.tif"}
    before = session.truths["eye"].id
    session.forget_truth("eye", "disc")
    assert list(session.truths["eye"].targets) == ["haemorrhages"]
    assert session.truths["eye"].id != before  # what was drawn with the old one is drawn anew
    session.forget_truth("eye", "haemorrhages")
    assert "eye" not in session.truths
    session.forget_truth("eye", "disc")  # nothing to forget


def test_a_photograph_is_coded_once(session, photograph, inside):
    for _ in range(3):
        session.inside(photograph("a"), "atoms")
    assert inside == ["atoms"]
