"""Batches: nothing of the user's is replaced, hidden or lost, and one bad photograph stops no other."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_seg import batch, files, io
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
    with pytest.raises(UserError, match="no images in"):
        batch.plan([tmp_path])


# What folders hold


def test_what_is_left_out_of_a_folder_is_told_by_kind(folder, tmp_path):
    for name in ("x.heic", "y.HEIC", "z.dcm", "README", ".hidden.png", "._a.png"):
        (folder / name).write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    (folder / "inside").mkdir()
    shutil.copy(folder / "a.png", folder / "inside" / "c.png")
    found = batch.survey([folder])
    assert [path.name for path, _ in found.planned] == ["a.png", "b.jpg", "broken.png", "dark.png"]
    left, unsearched = found.notes
    assert left.endswith("1 .dcm, 2 .heic, 1 .txt, 1 no regular file, 1 without suffix")
    assert "1 folders inside" in unsearched


def test_an_empty_folder_beside_another_is_told_and_stops_nothing(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    found = batch.survey([empty, folder])
    assert len(found.planned) == 4
    assert f"without a photograph: {empty}" in found.notes


def test_a_folder_of_other_files_is_an_error_that_counts_them(tmp_path):
    (tmp_path / "x.heic").write_bytes(b"")
    (tmp_path / "inside").mkdir()
    with pytest.raises(UserError, match=r"there: 1 \.heic; 1 folders inside were not searched"):
        batch.plan([tmp_path])


@pytest.mark.parametrize(
    "content", ['{"files": ["a.png", "b.jpg"]}', '{"files": {"a.png": 1}}', "[" * 100_000, "9" * 9999]
)
def test_no_json_of_anybody_hides_a_photograph(folder, content):
    (folder / "index.json").write_text(content)
    os.mkfifo(folder / "pipe.json")
    (folder / "endless.json").symlink_to("/dev/zero")
    assert [path.name for path, _ in batch.plan([folder])] == ["a.png", "b.jpg", "broken.png", "dark.png"]


def test_names_that_are_no_utf8(drawn, tiny_run, tmp_path):
    Image.fromarray(drawn.image).save(tmp_path / "x.png")
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4uge.png"))
    (tmp_path / "x.png").rename(source)
    (outcome,) = batch.predict_files(Segmenter.from_pretrained(tiny_run, "cpu"), batch.plan([tmp_path]), tmp_path / "o")
    assert not outcome.error
    record = json.loads(outcome.files[-1].read_text("utf-8"))
    assert record["source"] == r"\xe4uge.png"
    assert os.fsencode(outcome.files[0].name) == b"\xe4uge_mask.png"


# What may be replaced


@pytest.fixture
def segmenter(tiny_run) -> Segmenter:
    return Segmenter.from_pretrained(tiny_run, "cpu")


@pytest.fixture
def eye(drawn, tmp_path) -> Path:
    path = tmp_path / "p1" / "eye.png"
    path.parent.mkdir()
    Image.fromarray(drawn.image).save(path)
    return path


@pytest.fixture
def other(drawn, tmp_path) -> Path:
    path = tmp_path / "p2" / "eye.png"
    path.parent.mkdir()
    Image.fromarray(drawn.image[:, ::-1].copy()).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["eye_mask.png", "eye_prob.tif", "eye_overlay.png", "eye.json"])
def test_a_file_of_the_users_stops_the_batch_before_any_work(segmenter, eye, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"drawn by hand")
    monkeypatch.setattr(segmenter, "predict", lambda source: pytest.fail("work was done"))
    with pytest.raises(UserError, match=f"{name}.*--overwrite"):
        batch.predict_files(segmenter, batch.plan([eye]), out)
    assert contents(out) == {name: b"drawn by hand"}


def test_it_is_replaced_where_that_is_asked_for(segmenter, eye, tmp_path):
    (tmp_path / "eye_mask.png").write_bytes(b"drawn by hand")
    (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",), overwrite=True)
    assert outcome.files == (tmp_path / "eye_mask.png", tmp_path / "eye.json")
    assert files.is_own(tmp_path / "eye_mask.png")


def test_a_mask_corrected_by_hand_is_not_replaced(segmenter, eye, tmp_path):
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    Image.fromarray(~io.read_mask(tmp_path / "eye_mask.png")).save(tmp_path / "eye_mask.png")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"eye_mask\.png"):
        batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    assert contents(tmp_path) == before


def test_results_of_the_same_photograph_are_replaced(segmenter, eye, tmp_path):
    for _ in range(2):
        (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), tmp_path / "out", what=("mask",))
        assert not outcome.notes
    assert set(contents(tmp_path / "out")) == {"eye_mask.png", "eye.json"}


def test_the_result_of_another_picture_in_the_same_place_is_set_aside(finder, eye, drawn, tmp_path):
    out = tmp_path / "out"
    (first,) = batch.predict_files(finder, batch.plan([eye]), out, what=("mask",))
    before, lines = contents(out), (out / batch.EXTENTS).read_text()
    Image.fromarray(drawn.image).save(eye, compress_level=1)  # the same pixels
    (outcome,) = batch.predict_files(finder, batch.plan([eye]), out, what=("mask",))
    assert not outcome.notes
    for number in (1, 2):
        Image.fromarray(np.roll(drawn.image, number, axis=0)).save(eye)  # the next patient's, in the same place
        (outcome,) = batch.predict_files(finder, batch.plan([eye]), out, what=("mask",))
        assert f"earlier-{number}" in outcome.notes[0]
        assert outcome.files == first.files
    aside = contents(out / "earlier-1")
    assert (out / "earlier-1" / batch.EXTENTS).read_text() == lines
    assert {name: aside[name] for name in before if "mask" in name} == {n: before[n] for n in before if "mask" in n}
    assert photographs_of(out / batch.EXTENTS) == {"eye"}
    assert all(files.is_own(path) for path in first.files)


def test_a_copy_of_a_photograph_replaces_its_result(segmenter, eye, tmp_path):
    out = tmp_path / "out"
    batch.predict_files(segmenter, batch.plan([eye]), out, what=("mask",))
    (tmp_path / "copy").mkdir()
    with Image.open(eye) as picture:
        picture.save(tmp_path / "copy" / "eye.tif")
    (outcome,) = batch.predict_files(segmenter, batch.plan([tmp_path / "copy"]), out, what=("mask",))
    assert outcome.files[0].name == "eye_mask.png"
    assert not outcome.notes


def test_another_photograph_of_the_same_name_gets_another_name_again_and_again(segmenter, eye, other, tmp_path):
    out, masks = tmp_path / "out", {}
    for source in (eye, other, eye, other):
        (outcome,) = batch.predict_files(segmenter, batch.plan([source]), out, what=("mask",))
        assert masks.setdefault(source, outcome.files[0]) == outcome.files[0]
        assert bool(outcome.notes) == (source == other)
    assert [path.name for path in masks.values()] == ["eye_mask.png", "p2_eye_mask.png"]
    assert "another photograph" in outcome.notes[0]
    assert len(contents(out)) == 4


def test_a_record_edited_by_hand_stops_the_batch(segmenter, eye, tmp_path):
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    record = tmp_path / "eye.json"
    record.write_text(record.read_text().replace('"flips"', '"remark": "checked", "flips"'))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"eye\.json.*--overwrite"):
        batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    assert contents(tmp_path) == before


def test_a_photograph_is_no_result_of_the_same_run(segmenter, eye, tmp_path):
    folder = eye.parent
    shutil.copy(eye, folder / "eye_mask.png")
    before = contents(folder)
    with pytest.raises(UserError, match="is one of the photographs"):
        batch.predict_files(segmenter, batch.plan([folder]), folder, what=("mask",), overwrite=True)
    assert contents(folder) == before


def test_devices_and_pipes_are_neither_waited_for_nor_replaced(segmenter, eye, tmp_path):
    out = tmp_path / "out"
    batch.predict_files(segmenter, batch.plan([eye]), out, what=("mask",))
    before = contents(out)
    for name, make in (("pipe", os.mkfifo), ("device", lambda path: path.symlink_to("/dev/zero"))):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "eye.png")
        (outcome,) = batch.predict_files(segmenter, batch.plan([tmp_path / name / "eye.png"]), out, what=("mask",))
        assert "no such file" in outcome.error
    assert contents(out) == before
    new = tmp_path / "new"
    new.mkdir()
    (new / "eye_mask.png").symlink_to("/dev/null")
    (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), new, what=("mask",))
    assert not outcome.error
    assert (new / "eye_mask.png").readlink() == Path("/dev/null")
    assert files.is_own(new / "eye.json")


def test_no_name_among_the_inputs_stops_the_others(segmenter, eye, tmp_path):
    odd = tmp_path / "..png"
    shutil.copy(eye, odd)
    inputs = [eye, odd, tmp_path / ("x" * 300 + ".png"), eye.parent / ".." / eye.parent.name / eye.name]
    outcomes = batch.predict_files(segmenter, batch.plan(inputs), tmp_path / "out", what=("mask",))
    assert [bool(outcome.error) for outcome in outcomes] == [False, False, True]
    assert [outcome.files[0].name for outcome in outcomes[:2]] == ["eye_mask.png", "png_mask.png"]


def test_results_without_their_record_are_kept(segmenter, eye, other, tmp_path):
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    (tmp_path / "eye.json").unlink()
    before = contents(tmp_path)
    (outcome,) = batch.predict_files(segmenter, batch.plan([other]), tmp_path, what=("mask",))
    assert outcome.files[0].name == "p2_eye_mask.png"
    assert before.items() <= contents(tmp_path).items()


def test_two_jobs_that_want_one_name_at_a_time_both_keep_their_results(segmenter, eye, other, tmp_path):
    out, second = tmp_path / "out", []
    predict = segmenter.predict

    def interrupted(source):  # the other job comes and goes between plan and save
        if source == eye and not second:
            second.append(source)
            second.extend(batch.predict_files(segmenter, batch.plan([other]), out, what=("mask",)))
        return predict(source)

    segmenter.predict = interrupted
    (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), out, what=("mask",))
    assert second[1].files[0].name == "eye_mask.png"
    assert outcome.files[0].name == "p1_eye_mask.png"
    assert outcome.notes


def test_another_model_and_what_it_leaves_behind_are_told(segmenter, eye, tmp_path):
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask", "prob"))
    segmenter.card = segmenter.card.model_copy(update={"name": "another"})
    (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    replaced, stale = outcome.notes
    assert "the result of tiny is replaced" in replaced
    assert "eye_prob.tif" in stale


def test_a_second_run_that_cannot_write_changes_nothing(segmenter, eye, tmp_path, monkeypatch):
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path)
    before, settle, calls = contents(tmp_path), files._settle, []

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        settle(path)

    monkeypatch.setattr(files, "_settle", full)
    (outcome,) = batch.predict_files(segmenter, batch.plan([eye]), tmp_path)
    assert "No space left" in outcome.error
    assert contents(tmp_path) == before


def test_files_of_a_killed_run_are_removed(segmenter, eye, tmp_path):
    left = tmp_path / f".retina_seg-{'0' * 16}.part.png"
    left.write_bytes(b"half")
    batch.predict_files(segmenter, batch.plan([eye]), tmp_path, what=("mask",))
    assert not left.exists()


def test_a_folder_called_like_a_result_stops_the_batch(segmenter, eye, tmp_path):
    (tmp_path / "eye_mask.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        batch.predict_files(segmenter, batch.plan([eye]), tmp_path, overwrite=True)


# The table of lesions


@pytest.fixture
def finder(tiny_lesions, monkeypatch) -> Segmenter:
    return Segmenter.from_pretrained(tiny_lesions, "cpu")


def photographs_of(table: Path) -> set[str]:
    return {line.split(",")[0] for line in table.read_text("utf-8").splitlines()[1:]}


def test_jobs_that_share_a_table_lose_no_line(finder, drawn, tmp_path):
    out, jobs = tmp_path / "out", []
    for job in range(3):
        for number in range(3):
            (tmp_path / f"{job}").mkdir(exist_ok=True)
            Image.fromarray(np.roll(drawn.image, 3 * job + number, axis=1)).save(
                tmp_path / f"{job}" / f"{job}{number}.png"
            )
        planned = batch.plan([tmp_path / f"{job}"])
        jobs.append(
            threading.Thread(target=batch.predict_files, args=(finder, planned, out), kwargs={"what": ("mask",)})
        )
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert photographs_of(out / batch.EXTENTS) == {f"{job}{number}" for job in range(3) for number in range(3)}


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_table_that_a_spreadsheet_saved_is_added_to(finder, eye, tmp_path, between):
    lines = [
        ("photograph", "target", "count", "pixels", "disc_areas"),
        ("old", "haemorrhages", "3", "40", "0,5" if between == ";" else "0.5"),
    ]
    text = "".join(f"{between.join(line)}\r\n" for line in lines)
    (tmp_path / batch.EXTENTS).write_bytes(text.encode("utf-8-sig"))
    batch.predict_files(finder, batch.plan([eye]), tmp_path, what=("mask",))
    rows = (tmp_path / batch.EXTENTS).read_text("utf-8").splitlines()
    assert rows[:2] == ["photograph,target,count,pixels,disc_areas", "old,haemorrhages,3,40,0.5"]
    assert [row.split(",")[:2] for row in rows[2:]] == [["eye", t] for t in ("haemorrhages", "soft_exudates", "disc")]


@pytest.mark.parametrize(
    "text", ["photograph,target\na,b\n", "my notes", "photograph,target,count,pixels,disc_areas\na\n"]
)
def test_any_other_table_is_left_alone_before_any_work(finder, eye, tmp_path, monkeypatch, text):
    (tmp_path / batch.EXTENTS).write_text(text)
    monkeypatch.setattr(finder, "predict", lambda source: pytest.fail("work was done"))
    with pytest.raises(UserError, match="not a table of lesions"):
        batch.predict_files(finder, batch.plan([eye]), tmp_path)
    assert (tmp_path / batch.EXTENTS).read_text() == text


def test_a_photograph_that_fails_keeps_its_lines_from_before(finder, eye, tmp_path, monkeypatch):
    table = tmp_path / batch.EXTENTS
    batch.predict_files(finder, batch.plan([eye]), tmp_path, what=("mask",))
    before = table.read_text()
    monkeypatch.setattr(finder, "predict", lambda source: 1 / 0)
    (outcome,) = batch.predict_files(finder, batch.plan([eye]), tmp_path, what=("mask",))
    assert "ZeroDivisionError" in outcome.error
    assert table.read_text() == before


def test_a_name_that_is_a_formula_has_one_set_of_lines(finder, drawn, tmp_path):
    names = ("=1+1", "'=1+1")
    for name in names:
        Image.fromarray(drawn.image).save(tmp_path / f"{name}.png")
    for _ in range(2):
        batch.predict_files(finder, batch.plan([tmp_path / f"{name}.png" for name in names]), tmp_path, what=("mask",))
    rows = (tmp_path / batch.EXTENTS).read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["'=1+1"] * 3 + ["''=1+1"] * 3


def test_a_table_that_changed_meanwhile_stops_the_photograph_before_anything_is_written(finder, eye, tmp_path):
    predict, out = finder.predict, tmp_path / "out"

    def meanwhile(source):
        (out / batch.EXTENTS).write_text("my notes")
        return predict(source)

    finder.predict = meanwhile
    (outcome,) = batch.predict_files(finder, batch.plan([eye]), out, what=("mask",))
    assert "not a table of lesions" in outcome.error
    assert [path.name for path in out.iterdir()] == [batch.EXTENTS]
