"""The pages of the viewer without a browser; what only a browser shows is in e2e."""

import json
import logging
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.formparsers import MultiPartParser
from streamlit import config
from streamlit.testing.v1 import AppTest

from retina_seg import Segmenter, checkpoint, phantom, zoo
from retina_seg.errors import UserError
from retina_seg.viewer import engine, graders, guard, launch, numbers, opened
from retina_seg.viewer.opened import Loaded

MODEL = zoo.DEFAULT
SECONDS = 60


@pytest.fixture(scope="module")
def eyes() -> list[phantom.Phantom]:
    """Three drawn photographs just large enough for the packaged model."""
    return [phantom.draw(seed, width=400, height=413) for seed in range(3)]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained(MODEL, "cpu", flips=False)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, segmenter: Segmenter) -> list[str]:
    """Names of the models that ran so far; the packaged one runs without flips, a quarter of the time."""
    ran: list[str] = []

    def load(name: str) -> Segmenter:
        ran.append(name)
        return segmenter

    monkeypatch.setattr(engine, "_segmenter", load)
    return ran


@pytest.fixture
def unsafe_settings() -> Iterator[None]:
    """Whatever a test does to the settings of the server is taken back."""
    before = {name: config.get_option(name) for name in launch.PRIVATE}
    yield
    for name, value in before.items():
        config.set_option(name, value)


@pytest.fixture
def settings(unsafe_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a server that `retina-seg app` started."""
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)  # taken back afterwards
    for name, value in launch.PRIVATE.items():
        config.set_option(name, value)
    launch.keep_uploads_in_memory()


@pytest.fixture
def app(settings: None, runs: list[str], eyes: list[phantom.Phantom], monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The viewer as a visitor finds it, with a small first example; no run folders and no data root."""
    monkeypatch.delenv(launch.DATA_ROOT, raising=False)
    monkeypatch.delenv(launch.RUNS, raising=False)
    first = Loaded(eyes[1].image, None, {numbers.VESSELS: eyes[1].vessels})
    monkeypatch.setitem(opened.DRAWN, "Drawn eye A", lambda: first)
    return visit()


def visit() -> AppTest:
    """A new visitor, at the first page."""
    page = AppTest.from_file(str(launch.script()), default_timeout=SECONDS).run()
    assert not page.exception
    return page


def go(page: AppTest, name: str) -> AppTest:
    """Follow the link to a page, "" for the first; `AppTest.switch_page` knows only pages that are files."""
    (page._page_hash,) = (key for key, known in page._registered_pages.items() if known["url_pathname"] == name)
    page.run()
    page._page_hash = ""
    assert not page.exception
    return page


def png(pixels: NDArray[np.generic]) -> bytes:
    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def drop(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    """Put files into the first uploader, in place of those that are there."""
    page.file_uploader(key="files").set_value([(name, content, "image/png") for name, content in files]).run()
    assert not page.exception
    return page


def button(page: AppTest, label: str):
    (found,) = (one for one in page.button if one.label.startswith(label))
    return found


def words(page: AppTest) -> str:
    """Everything that can be read on the page, as Markdown."""
    kinds = (page.title, page.subheader, page.markdown, page.caption, page.error, page.warning, page.info)
    return "\n".join(element.value for kind in kinds for element in kind)


def message(page: AppTest) -> dict[str, object]:
    """Header of the message to the picture."""
    (picture,) = (element for element in page.main if getattr(element, "key", None) == "canvas")
    content = picture.proto.bytes
    return json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])


def session(page: AppTest):
    return page.session_state["session"]


def explained(page: AppTest, model: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The explain page with a run that has a dictionary, chosen as the model."""
    monkeypatch.setenv(launch.RUNS, str(model))
    monkeypatch.setattr(engine, "_segmenter", lambda name: Segmenter.from_pretrained(name, "cpu"))
    page.run()
    page.selectbox(key="model").select(str(model)).run()
    return go(page, "explain")


# ---------------------------------------------------------------- first page


def test_a_visitor_is_told_what_to_do_and_that_nothing_leaves(app):
    text = words(app)
    for expected in ("Drop fundus photographs", "Research use only", "nothing is sent anywhere"):
        assert expected in text
    assert [one.label for one in app.main.button] == list(opened.DRAWN)
    assert [one.label for one in app.file_uploader] == ["Drop photographs here", "Folder of photographs"]
    assert app.selectbox(key="model").options == zoo.names()
    assert "--data-root" in text


@pytest.mark.usefixtures("unsafe_settings", "runs")
@pytest.mark.parametrize("wrong", list(launch.PRIVATE))
def test_a_server_that_was_started_otherwise_takes_no_photographs(wrong):
    for name, value in launch.PRIVATE.items():
        config.set_option(name, value)
    launch.keep_uploads_in_memory()
    config.set_option(wrong, {"server.enableAgentApi": True, "browser.gatherUsageStats": True}.get(wrong))
    page = visit()
    (error,) = page.error
    assert wrong in error.value
    assert "retina-seg app" in error.value
    assert not page.file_uploader
    assert not page.button
    assert not page.title


# ---------------------------------------------------------------- view


def test_a_drawn_example_is_shown_with_its_numbers_and_scores(app, runs, eyes, segmenter):
    button(app, "Drawn eye A").click().run()
    assert not app.exception
    assert not app.error
    prediction = segmenter.predict(eyes[1].image)
    text = words(app)
    for one in numbers.readable(numbers.measure(prediction)):
        assert f"{one.label}: **{one.value}**" in text
    assert "Against the truth" in text
    assert "Dice: **0." in text
    assert "400 x 413 px, field of view found" in text
    header = message(app)
    assert header["scene"]["width"] == 400
    assert [layer["id"] for layer in header["scene"]["layers"]] == ["a:vessels", "fov", "truth:vessels"]
    assert runs == [MODEL]
    app.run()
    assert runs == [MODEL]


def test_the_gallery_opens_examples_too(app, runs):
    app.selectbox[1].select("Drawn eye A")
    button(app, "Open this picture").click().run()
    assert list(session(app).photographs) == ["drawn:Drawn eye A"]
    assert message(app)["scene"]["photograph"] == "drawn:Drawn eye A"


def test_dropped_files_come_are_looked_at_and_go(app, runs, eyes):
    drop(app, ("left.png", png(eyes[0].image)), ("right.png", png(eyes[1].image)))
    assert not app.error
    chooser = app.selectbox(key="photograph")
    assert chooser.options == ["left.png", "right.png"]
    first, second = session(app).photographs
    assert message(app)["scene"]["photograph"] == first
    assert len(message(app)["scene"]["layers"]) == 2
    button(app, "Next").click().run()
    assert message(app)["scene"]["photograph"] == second
    app.selectbox(key="photograph").select(first).run()
    assert message(app)["scene"]["photograph"] == first
    button(app, "‹ Previous").click().run()
    assert session(app).current == second
    assert runs == [MODEL, MODEL]
    app.file_uploader(key="files").clear().run()
    assert session(app).photographs == {}
    assert "Drop fundus photographs" in words(app)


def test_files_of_one_name_can_be_told_apart(app, eyes):
    drop(app, ("eye.png", png(eyes[0].image)), ("eye.png", png(eyes[1].image)))
    first, second = session(app).photographs
    assert session(app).current == first
    app.run()
    assert session(app).current == first
    button(app, "Next").click().run()
    assert session(app).current == second
    app.selectbox(key="photograph").select(first).run()
    assert session(app).current == first


def test_a_folder_is_opened(app, eyes):
    files = [("clinic/eye.png", png(eyes[0].image), "image/png")]
    app.file_uploader(key="folder").set_value(files).run()
    assert not app.error
    assert [one.name for one in session(app).photographs.values()] == ["clinic/eye.png"]
    assert "Left out" not in words(app)


def test_what_a_folder_leaves_out_is_counted_by_kind(app, eyes):
    names = ("notes.txt", "a.heic", "b.HEIC", "c.dcm", ".hidden", "README", "x.*b*")
    files = [("clinic/eye.png", png(eyes[0].image), "image/png"), *((f"clinic/{name}", b"x", "") for name in names)]
    app.file_uploader(key="folder").set_value(files).run()
    assert [one.name for one in session(app).photographs.values()] == ["clinic/eye.png"]
    assert "Left out of the folder, being no images: 1 .\\*b\\*, 1 .dcm, 2 .heic, 1 .txt, 1 without suffix." in words(
        app
    )


def test_a_full_memory_is_told_before_files_are_refused(app, monkeypatch):
    drop(app, ("torn.png", b"no picture"))
    assert not app.warning
    monkeypatch.setattr(guard, "MAX_HELD", len(b"no picture") / 0.95)
    drop(app, ("torn.png", b"no picture"))
    assert [warning.value for warning in app.warning] == [guard.FULL]


@pytest.mark.parametrize("content", [b"", b"no picture", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n"])
def test_a_corrupt_file_is_named_in_a_sentence(app, runs, content):
    drop(app, ("torn_1.png", content))
    (error,) = app.error
    assert "torn\\_1.png" in error.value
    assert "Traceback" not in error.value
    assert "unexpected" not in error.value
    assert runs == []


def test_a_corrupt_file_does_not_harm_the_next(app, eyes):
    whole = png(eyes[0].image)
    drop(app, ("torn.png", whole[:4000]), ("eye.png", whole))
    assert "torn.png is damaged" in app.error[0].value
    button(app, "Next").click().run()
    assert not app.error
    assert message(app)["scene"]["width"] == 400


def test_names_and_errors_are_no_markup(app):
    drop(app, ("[a](b) **c** :red[d] <i>.png", b"no picture"))
    (error,) = app.error
    assert "\\[a\\](b)" in error.value
    assert "\\*\\*c\\*\\*" in error.value
    assert "\\<i\\>" in error.value


def test_an_unexpected_error_is_a_sentence_and_its_words_stay_out_of_the_log(app, eyes, monkeypatch, caplog):
    def fail(name, loaded):
        raise RuntimeError("Doe_Jane_1950.png")

    monkeypatch.setattr(engine, "segment", fail)
    with caplog.at_level(logging.DEBUG):
        drop(app, ("Doe_Jane_1950.png", png(eyes[0].image)))
    (error,) = app.error
    assert "unexpected" in error.value
    assert "RuntimeError" in error.value
    assert "RuntimeError" in caplog.text
    assert "Doe" not in error.value + caplog.text


def test_a_bad_photograph_has_a_banner_and_no_biomarkers(app, eyes):
    drop(app, ("night.png", png((eyes[0].image * 0.09).astype(np.uint8))))
    (banner,) = app.error
    assert "Do not rely on this result" in banner.value
    assert "dark" in banner.value
    assert "Withheld" in words(app)
    assert "Mean calibre" not in words(app)
    assert message(app)["scene"]["width"] == 400


def test_a_picture_without_a_retina_is_not_trusted(app):
    rows, columns = np.mgrid[:400, :500]
    board = np.stack([(columns // 25 + rows // 25) % 2 * 180 + 30, rows // 2, 255 - columns // 2], axis=-1)
    drop(app, ("board.png", png(board.astype(np.uint8))))
    assert len(app.error) == 1
    assert "fundus" in app.error[0].value
    assert "Mean calibre" not in words(app)


def test_a_moved_threshold_moves_the_numbers_without_the_model(app, runs, eyes, segmenter):
    button(app, "Drawn eye A").click().run()
    session(app).thresholds["drawn:Drawn eye A", MODEL] = {numbers.VESSELS: 0.7}
    app.run()
    moved = numbers.measure(segmenter.predict(eyes[1].image).at(0.7))
    assert f"Vessel density: **{100 * moved['density']:.1f} %" in words(app)
    assert message(app)["scene"]["thresholds"] == {"a:vessels": 0.7}
    assert runs == [MODEL]


def test_a_dropped_truth_gives_scores_and_a_wrong_one_a_sentence(app, eyes):
    drop(app, ("eye.png", png(eyes[0].image)))
    assert "Against the truth" not in words(app)
    marks = png(eyes[0].vessels.astype(np.uint8) * 255)
    scene = message(app)["id"]
    app.file_uploader[2].set_value(("truth.png", marks, "image/png")).run()
    assert not app.error
    assert "Against the truth" in words(app)
    assert message(app)["id"] != scene
    assert message(app)["scene"]["layers"][-1]["id"] == "truth:vessels"
    app.file_uploader[2].set_value(("small.png", png(np.zeros((20, 30), np.uint8)), "image/png")).run()
    assert "small.png is 30 x 20 pixels" in app.error[0].value
    assert "Against the truth" not in words(app)


def dropped_truth(app, pixels, name="truth.png"):
    """Drop a truth for the photograph in view; what the page says in boxes."""
    app.file_uploader[2].set_value((name, png(pixels), "image/png")).run()
    assert not app.exception
    return [box.value for kind in (app.error, app.warning) for box in kind]


def dice(app):
    return float(words(app).partition("Dice: **")[2][:5])


@pytest.mark.parametrize("outside", [True, False])
def test_an_inverted_truth_is_turned_round_and_the_page_says_so(app, eyes, outside):
    drop(app, ("eye.png", png(eyes[0].image)))
    assert dropped_truth(app, eyes[0].vessels) == []
    right = dice(app)
    assert "look twice" not in words(app)
    inverted = ~eyes[0].vessels if outside else ~eyes[0].vessels & eyes[0].fov
    (said,) = dropped_truth(app, inverted, "white_1.png")
    assert "white\\_1.png marks" in said
    assert "turned round" in said
    assert dice(app) == pytest.approx(right, abs=0.003 * (not outside))
    assert right > 0.5
    assert "Truth: **look twice**" in words(app)
    assert words(app).count("turned round") == 2  # beside the file, and beside the scores
    assert dropped_truth(app, eyes[0].vessels) == []
    assert dice(app) == right
    assert "turned round" not in words(app)


def test_a_truth_that_marks_everything_is_refused(app, eyes):
    drop(app, ("eye.png", png(eyes[0].image)))
    (said,) = dropped_truth(app, np.ones_like(eyes[0].vessels))
    assert "the whole field of view (100 %" in said
    assert "Against the truth" not in words(app)


def test_arteries_and_veins_are_the_vessels(app, eyes):
    drop(app, ("eye.png", png(eyes[0].image)))
    dropped_truth(app, eyes[0].vessels)
    right = dice(app)
    classes = eyes[0].vessels.astype(np.uint8)
    classes[:, 200:] *= 2
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[classes]
    assert dropped_truth(app, colours) == []
    assert dice(app) == right
    (said,) = dropped_truth(app, classes)
    assert "the 3 grey values 0" in said
    assert "Against the truth" not in words(app)


def test_a_truth_stays_with_its_photograph(app, eyes):
    drop(app, ("one.png", png(eyes[0].image)), ("two.png", png(eyes[1].image)))
    app.file_uploader[2].set_value(("truth.png", png(eyes[0].vessels.astype(np.uint8) * 255), "image/png")).run()
    assert "Against the truth" in words(app)
    button(app, "Next").click().run()
    assert "Against the truth" not in words(app)
    button(app, "‹ Previous").click().run()
    assert "Against the truth" in words(app)


def test_pixel_sizes_make_micrometres(app):
    button(app, "Drawn eye A").click().run()
    assert "µm**" not in words(app)
    app.number_input[0].set_value(10.0).run()
    assert " µm**" in words(app)
    assert message(app)["scene"]["um_per_px"] == 10.0


def test_two_models_are_compared(app, runs, tiny_run, monkeypatch):
    monkeypatch.setenv(launch.RUNS, str(tiny_run))
    app.run()
    assert app.selectbox(key="model").options == [*zoo.names(), "tiny (run)"]
    button(app, "Drawn eye A").click().run()
    app.selectbox(key="second model").select(str(tiny_run)).run()
    assert not app.exception
    assert not app.error
    assert runs == [MODEL, str(tiny_run)]
    assert [source["title"] for source in message(app)["scene"]["sources"]] == [MODEL, "tiny (run)"]
    app.selectbox(key="model").select(str(tiny_run)).run()
    assert not app.exception
    assert message(app)["scene"]["sources"][0]["title"] == "tiny (run)"


def test_downloads_are_offered_and_made_when_they_are_asked_for(app, monkeypatch):
    from retina_seg import report

    made = []
    monkeypatch.setattr(report, "one_page", lambda *args, **kwargs: made.append(1) or b"%PDF")
    button(app, "Drawn eye A").click().run()
    labels = [one.label for one in app.get("download_button")]
    assert labels[0] == "One-page report (PDF)"
    assert labels[-1] == "Everything (ZIP)"
    assert len(labels) == 7
    assert made == []


def test_two_visitors_share_nothing(app, eyes):
    drop(app, ("Doe_Jane.png", png(eyes[0].image)))
    other = visit()
    assert session(other) is not session(app)
    assert session(other).photographs == {}
    assert "Drop fundus photographs" in words(other)


# ---------------------------------------------------------------- batch


def test_the_batch_page_asks_for_photographs(app):
    assert "Open photographs on the left first" in words(go(app, "batch"))
    assert not app.main.button


def test_a_batch_has_a_row_for_each_with_the_failed_first(app, runs, eyes):
    drop(app, ("b_left.png", png(eyes[0].image)), ("torn.png", b"no picture"), ("a_right.png", png(eyes[1].image)))
    go(app, "batch")
    button(app, "Segment 3 of 3 photographs").click().run()
    assert not app.exception
    assert not app.error
    (table,) = app.dataframe
    assert list(table.value["status"]) == ["failed", "no remark", "no remark"]
    assert list(table.value["file"]) == ["torn.png", "b_left.png", "a_right.png"]
    assert list(table.value["photograph"]) == ["photograph-02", "photograph-01", "photograph-03"]
    assert runs == [MODEL, MODEL]  # the first one was in view before
    (filtered,) = app.segmented_control
    assert filtered.options == ["all (3)", "failed (1)", "flagged (0)", "no remark (2)"]
    filtered.set_value("no remark (2)").run()
    assert list(app.dataframe[0].value["file"]) == ["b_left.png", "a_right.png"]
    app.text_input(key="batch search").set_value("RIGHT").run()
    assert list(app.dataframe[0].value["file"]) == ["a_right.png"]
    app.text_input(key="batch search").set_value("no such photograph").run()
    assert not app.exception
    assert not app.error
    assert len(app.dataframe[0].value) == 0


def test_a_photograph_of_the_batch_opens_in_the_viewer(app, eyes):
    drop(app, ("one.png", png(eyes[0].image)), ("two.png", png(eyes[1].image)))
    go(app, "batch")
    button(app, "Segment 2 of 2 photographs").click().run()
    app.session_state["batch table all (2) "] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    app.run()
    go(app, "")  # the link beside the table
    second = list(session(app).photographs)[1]
    assert message(app)["scene"]["photograph"] == second


def test_a_picture_opened_from_another_page_leaves_the_rest_as_it_was(app, eyes):
    drop(app, ("one.png", png(eyes[0].image)))
    app.number_input[0].set_value(10.0).run()
    before = set(session(app).photographs)
    go(app, "batch")
    button(app, "Open this picture").click().run()
    go(app, "")
    assert set(session(app).photographs) == {*before, "drawn:Drawn eye A"}
    assert message(app)["scene"]["photograph"] == "drawn:Drawn eye A"
    assert message(app)["scene"]["um_per_px"] is None  # it belongs to the other photograph
    button(app, "‹ Previous").click().run()
    assert message(app)["scene"]["um_per_px"] == 10.0


def test_what_is_done_is_not_done_again(app, runs, eyes):
    drop(app, ("one.png", png(eyes[0].image)))
    go(app, "batch")
    button(app, "Segment 1 of 1 photograph").click().run()
    assert button(app, "Done: 1 photograph").disabled
    go(app, "")
    drop(app, ("two.png", png(eyes[1].image)))
    go(app, "batch")
    assert not app.dataframe  # the first photograph was taken away
    assert not button(app, "Segment 1 of 1 photograph").disabled


# ---------------------------------------------------------------- results and about


def test_a_model_without_a_dictionary_is_said_to_have_none(app, dictionary_run, monkeypatch):
    text = words(go(app, "explain"))
    assert f"{MODEL} has no dictionary" in text.replace("\\", "")
    assert any(engine.has_dictionary(name) for name in zoo.names()) or "configs/nets/csc-unet.yaml" in text
    monkeypatch.setenv(launch.RUNS, str(dictionary_run))
    assert "atoms (run)" in words(app.run()).replace("\\", "")


def test_a_dictionary_is_explained(app, eyes, dictionary_run, monkeypatch):
    page = explained(app, dictionary_run, monkeypatch)
    assert "Open a photograph on the left first." in words(page)
    button(go(page, ""), "Drawn eye A").click().run()
    go(page, "explain")
    assert not page.error
    assert [tab.label for tab in page.tabs] == ["Atoms", "Codes", "Penalties", "Rebuilt", "Objective"]
    text = words(page)
    height, width = engine.inside(str(dictionary_run), Loaded(eyes[1].image, None, {})).picture.shape[:2]
    middle = f"Chosen: row {height // 2}, column {width // 2}."
    for expected in ("Which atoms voted here?", middle, "no map of disease"):
        assert expected in text


def test_a_photograph_is_graded_and_the_reader_warned(app, eyes, grader_run, tmp_path, monkeypatch):
    run = Path(shutil.copytree(grader_run, tmp_path / "grader"))
    monkeypatch.setenv(launch.RUNS, str(run))
    page = go(app.run(), "grade")
    assert "Open a photograph on the left first." in words(page)
    assert "must not decide about anybody's care" in words(page)
    assert page.selectbox(key="model").options == zoo.names()  # a classifier finds nothing in photographs
    page.selectbox(key="classifier").select(str(run)).run()
    button(go(page, ""), "Drawn eye A").click().run()
    go(page, "grade")
    page.selectbox(key="classifier").select(str(run)).run()
    assert not page.error
    found = graders.grade(str(run), Loaded(eyes[1].image, None, {}))
    assert [metric.label for metric in page.metric] == list(graders.TITLES.values())
    assert all(metric.value in list("01234") for metric in page.metric)
    assert any("There is no report" in caption.value for caption in page.caption)
    tabs = [tab.label for tab in page.tabs]
    assert len(tabs) == len(found.figures)
    assert tabs[:2] == [f"Looked at: {title}" for title in graders.TITLES.values()]
    assert "not calibrated" in words(page)
    assert "its weights are random" in words(page)
    button(page, "Find the patches").click().run()
    assert not page.exception
    assert "image 0: Drawn eye A" in words(page)
    page.number_input(key="unit").set_value(10_000)
    button(page, "Find the patches").click().run()
    assert not page.exception
    assert any("10000" in warning.value for warning in page.warning)
    assert "How it learnt" not in [expander.label for expander in page.expander]
    (run / checkpoint.LOG).write_text('{"step": 1, "loss": 0.5, "accuracy": 0.5}', encoding="utf-8")
    assert "How it learnt" in [expander.label for expander in page.run().expander]

    def broken(_name):
        raise UserError("is no report of `retina-seg classify evaluate`")

    monkeypatch.setattr(graders, "measured", broken)
    page.run()
    assert not page.error
    assert not page.exception
    assert "is no report of" in words(page)


def test_what_is_no_photograph_is_not_graded(app, eyes, grader_run, monkeypatch):
    monkeypatch.setenv(launch.RUNS, str(grader_run))
    page = drop(app.run(), ("blue.png", png(np.ascontiguousarray(eyes[1].image[..., ::-1]))))
    go(page, "grade")
    page.selectbox(key="classifier").select(str(grader_run)).run()
    assert not page.exception
    assert not page.metric
    assert "No grade is given for such a photograph." in words(page)
    assert any("does not look like a fundus" in warning.value for warning in page.warning)


def test_results_show_the_reports_of_the_first_model_and_offer_all(app):
    go(app, "results")
    assert not app.error
    reports = zoo.reports(MODEL)
    summary, worst = (table.value for table in app.dataframe)
    assert [name for name in summary["model, protocol"] if "human" not in name] == [
        f"{MODEL}, {one}" for one in reports
    ]
    first = reports["drive"]
    assert summary["dice"][0] == first["fov"]["dice"]
    assert len(worst) == first["n_images"]
    assert worst["dice"].is_monotonic_increasing
    (chooser,) = app.multiselect
    assert chooser.options == [f"{name}, {one}" for name in zoo.names() for one in zoo.reports(name)]
    chooser.set_value(chooser.options).run()
    text = words(app)
    for report in (report for name in zoo.names() for report in zoo.reports(name).values()):
        assert all(warning in text.replace("\\", "") for warning in report["warnings"])


def test_any_score_can_be_looked_at(app):
    go(app, "results")
    (chooser,) = (one for one in app.selectbox if one.label == "Score of each photograph")
    chooser.select("ece").run()
    assert not app.exception
    assert not app.error
    assert app.dataframe[1].value["ece"].is_monotonic_decreasing


def test_reports_can_be_left_out(app):
    go(app, "results")
    (chooser,) = app.multiselect
    chooser.set_value(chooser.value[1:2]).run()
    assert len(app.dataframe[0].value) <= 2
    app.multiselect[0].set_value([]).run()
    assert not app.exception
    assert not app.error


def test_a_worst_case_opens_with_a_data_root_and_else_a_sentence_says_what_to_do(app, drawn_drive, monkeypatch):
    go(app, "results")
    app.session_state[f"worst table {MODEL}, drive dice"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    assert "--data-root" in app.error[0].value
    monkeypatch.setenv(launch.DATA_ROOT, str(drawn_drive))
    app.session_state[f"worst table {MODEL}, drive dice"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    key = f"drive:{app.dataframe[1].value['id'][0]}"
    go(app, "")
    assert message(app)["scene"]["photograph"] == key
    assert "Against the truth" in words(app)


def test_damaged_reports_are_a_warning(app, monkeypatch):
    def damaged(name):
        raise UserError("drive.json is not a report")

    monkeypatch.setattr(zoo, "reports", damaged)
    go(app, "results")
    assert "drive.json is not a report" in app.warning[0].value.replace("\\", "")
    assert "No model has a report yet" in words(app)


def test_a_run_has_a_place_on_every_page(app, tiny_run, monkeypatch):
    monkeypatch.setenv(launch.RUNS, str(tiny_run))
    for name in ("results", "about", "batch", ""):
        go(app, name)
        assert not app.error


def test_the_about_page_tells_limits_and_terms(app):
    go(app, "about")
    card = zoo.card(MODEL)
    text = words(app).replace("\\", "")
    assert card.description in text
    assert f"vessels {card.thresholds['vessels']:.3f}" in text
    for sentence in (*card.limits, *card.terms.values(), card.headline()):
        assert sentence in text


# ---------------------------------------------------------------- sets


def test_sets_below_the_data_root_are_in_the_gallery(app, drawn_drive: Path, monkeypatch):
    monkeypatch.setenv(launch.DATA_ROOT, str(drawn_drive))
    app.run()
    collection = app.selectbox[0]
    assert collection.options == ["Drawn examples", "DRIVE"]
    collection.select("drive").run()
    assert app.selectbox[1].options[0] == "01"
    button(app, "Open this picture").click().run()
    assert not app.exception
    assert message(app)["scene"]["photograph"] == "drive:01"
    assert "field of view given" in words(app)


def test_a_photograph_that_its_set_lacks_is_a_sentence(app, tmp_path, monkeypatch):
    (tmp_path / "DRIVE").mkdir()
    monkeypatch.setenv(launch.DATA_ROOT, str(tmp_path))
    app.run()
    app.selectbox[0].select("drive").run()
    button(app, "Open this picture").click().run()
    assert not app.exception
    (error,) = app.error
    assert "missing" in error.value


def test_an_error_in_the_sidebar_stays_out_of_the_log(app, monkeypatch, caplog):
    def failing(*given, **named):
        raise ValueError("cannot read Smith_John.png")

    monkeypatch.setattr(opened, "sets", failing)
    app.run()
    assert "Something unexpected" in app.error[0].value
    assert "unexpected ValueError" in caplog.text
    assert "Smith_John" not in caplog.text + words(app)
