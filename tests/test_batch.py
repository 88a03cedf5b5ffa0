from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_seg import batch
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter


@pytest.fixture
def folder(drawn, tmp_path) -> Path:
    folder = tmp_path / "clinic"
    folder.mkdir()
    Image.fromarray(drawn.image).save(folder / "a.png")
    Image.fromarray(drawn.image[:, ::-1].copy()).save(folder / "b.jpg", quality=95)
    (folder / "broken.png").write_text("not a picture")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(folder / "dark.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_the_rest_of_a_batch_goes_on(folder, tiny_run, tmp_path):
    out = tmp_path / "out"
    seen = []
    outcomes = batch.predict_files(
        Segmenter.from_pretrained(tiny_run, "cpu"), batch.plan([folder]), out, what=("mask",), on_done=seen.append
    )
    assert outcomes == seen
    assert [outcome.source.name for outcome in outcomes] == ["a.png", "b.jpg", "broken.png", "dark.png"]
    assert [bool(outcome.error) for outcome in outcomes] == [False, False, True, True]
    assert "broken.png" in outcomes[2].error
    assert {path.name for path in out.iterdir()} == {"a_mask.png", "a.json", "b_mask.png", "b.json"}


def test_equal_stems_do_not_overwrite_each_other(drawn, tiny_run, tmp_path):
    paths = [tmp_path / "left" / "eye.png", tmp_path / "right" / "eye.png", tmp_path / "right" / "eye.tif"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(drawn.image).save(path)
    out = tmp_path / "out"
    outcomes = batch.predict_files(Segmenter.from_pretrained(tiny_run, "cpu"), batch.plan(paths), out, what=("mask",))
    files = [file for outcome in outcomes for file in outcome.files]
    assert len(files) == len(set(files)) == len(list(out.iterdir())) == 6


def test_results_among_the_photographs_are_not_taken_for_photographs(folder, tiny_run):
    (folder / "other.json").write_text("[1, 2]")
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    planned = batch.plan([folder])
    batch.predict_files(segmenter, planned[:1], folder)
    assert (folder / "a_mask.png").exists()
    assert batch.plan([folder]) == planned
    assert batch.plan([folder / "a_mask.png"]) == [(folder / "a_mask.png", "a_mask")]


def test_an_unexpected_error_stops_one_photograph_only(folder, tiny_run, tmp_path, monkeypatch):
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    predict = segmenter.predict

    def run_out(source):
        if source.name == "a.png":
            raise MemoryError("no memory left")
        return predict(source)

    monkeypatch.setattr(segmenter, "predict", run_out)
    outcomes = batch.predict_files(segmenter, batch.plan([folder])[:2], tmp_path / "out")
    assert [bool(outcome.error) for outcome in outcomes] == [True, False]
    assert "MemoryError" in outcomes[0].error


def test_a_folder_that_cannot_be_made_stops_before_the_first_photograph(folder, tiny_run):
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    with pytest.raises(UserError, match="choose another"):
        batch.predict_files(segmenter, batch.plan([folder]), folder / "a.png")


def test_a_missing_file_is_one_of_the_outcomes(tiny_run, tmp_path):
    planned = batch.plan([tmp_path / "none.png"])
    (outcome,) = batch.predict_files(Segmenter.from_pretrained(tiny_run, "cpu"), planned, tmp_path / "out")
    assert "none.png" in outcome.error
    assert not list((tmp_path / "out").iterdir())


def test_nothing_to_do(tmp_path):
    with pytest.raises(UserError):
        batch.plan([tmp_path])
