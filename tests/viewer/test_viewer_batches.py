import csv
import json
import zipfile
from dataclasses import replace
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image

from retina_seg import io
from retina_seg.errors import UserError
from retina_seg.viewer import batches, numbers, opened
from retina_seg.viewer.batches import FAILED, FLAGGED, SOUND, Record

PATIENT = "Doe_Jane_1950"


def failing(error):
    def predict():
        raise error

    return predict


def rows_of(text):
    return list(csv.DictReader(StringIO(text)))


def contents(packed):
    with zipfile.ZipFile(BytesIO(packed)) as file:
        assert len(set(file.namelist())) == len(file.namelist())
        return {name: file.read(name) for name in file.namelist()}


def damaged():
    """Name and content of files that cannot be opened."""
    good = BytesIO()
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(good, "PNG")
    pages = BytesIO()
    frame = Image.new("L", (80, 80))
    frame.save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (80, 80), 9)])
    return {
        "half.png": good.getvalue()[:60],
        "text.png": b"no picture",
        "empty.png": b"",
        "document.png": b"%PDF-1.4",
        "volume.nii.gz": b"\x1f\x8bnothing",
        "pages.tif": pages.getvalue(),
    }


@pytest.fixture
def usual(monkeypatch):
    """No biomarker is unusual, as those of small drawings are."""
    monkeypatch.setattr(numbers.biomarkers, "unusual", lambda measured: {})


def test_an_unusual_biomarker_flags(photograph, prediction, monkeypatch):
    monkeypatch.setattr(numbers.biomarkers, "unusual", lambda measured: {"fractal_dimension": -1.0})
    record = batches.segment(photograph("1"), "m", lambda: prediction)
    assert record.status == FLAGGED
    assert "unusually low" in record.remarks[0]
    assert record.measured


@pytest.mark.usefixtures("usual")
def test_a_sound_photograph(photograph, prediction):
    one = photograph("1")
    record = batches.segment(one, "m", lambda: prediction)
    assert (record.id, record.name, record.model, record.status) == (one.id, one.name, "m", SOUND)
    assert record.remarks == ()
    assert record.measured == numbers.measure(prediction)
    assert record.masks == {"vessels": io.mask_png(prediction.mask[0])}


@pytest.mark.usefixtures("usual")
def test_doubts_flag_and_withhold(photograph, doubtful, worthless):
    record = batches.segment(photograph("1"), "m", lambda: doubtful)
    assert (record.status, record.remarks) == (FLAGGED, ("The photograph is dark.",))
    assert record.measured
    record = batches.segment(photograph("1"), "m", lambda: worthless)
    assert (record.status, record.remarks) == (FLAGGED, ("The photograph is dark.", "No tree."))
    assert record.measured == {}
    assert record.masks


def test_errors_become_records(photograph):
    record = batches.segment(photograph("1"), "m", failing(UserError("no retina in sight")))
    assert (record.status, record.remarks, record.masks) == (FAILED, ("no retina in sight",), {})
    record = batches.segment(photograph("1"), "m", failing(KeyError(PATIENT)))
    assert (record.status, record.remarks) == (FAILED, ("unexpected KeyError",))


def test_failed_and_flagged_come_first_in_their_order():
    kinds = [SOUND, FLAGGED, FAILED, SOUND, FAILED, FLAGGED]
    records = [Record(str(number), "n", "m", status) for number, status in enumerate(kinds)]
    assert [record.id for record in batches.flagged_first(records)] == ["2", "4", "1", "5", "0", "3"]
    assert batches.flagged_first([]) == []


def test_the_table_has_a_row_for_each_with_the_columns_of_all(photograph, prediction, worthless):
    one, two, three = photograph("1"), photograph("2"), photograph("3")
    records = [
        batches.segment(one, "m", failing(UserError("no"))),
        batches.segment(two, "m", lambda: worthless),
        batches.segment(three, "m", lambda: prediction),
    ]
    stems = {one.id: "a", two.id: "b", three.id: "c"}
    rows = batches.table(records, stems, names=False)
    assert len({tuple(row) for row in rows}) == 1
    assert "file" not in rows[0]
    assert [row["photograph"] for row in rows] == ["a", "b", "c"]
    assert [row["calibre_px"] for row in rows] == [None, None, numbers.measure(prediction)["calibre_px"]]
    assert [row["width"] for row in rows] == [None, 200, 200]
    assert rows[1]["remarks"] == "The photograph is dark.; No tree."
    assert [row["file"] for row in batches.table(records, stems, names=True)] == ["eye 1", "eye 2", "eye 3"]


@pytest.mark.parametrize("kind", damaged())
@pytest.mark.parametrize("folder", ["", "clinic/"])
def test_no_error_tells_the_name_of_a_file_unless_asked(kind, folder):
    name = f"{folder}{PATIENT}_{kind}"
    one = opened.upload("1", name, lambda: damaged()[kind])
    record = batches.segment(one, "m", one.read)
    assert record.status == FAILED
    assert "unexpected" not in record.remarks[0]
    assert PATIENT in record.remarks[0]
    stems = {one.id: "photograph-01"}
    packed = contents(batches.archive([record], stems, names=False))
    assert list(packed) == ["results.csv"]
    assert PATIENT not in packed["results.csv"].decode()
    assert "clinic" not in packed["results.csv"].decode()
    (row,) = rows_of(contents(batches.archive([record], stems, names=True))["results.csv"].decode())
    assert row["file"] == name


def test_the_zip_holds_masks_and_records(photograph, prediction, two_targets):
    one, two, three = (photograph(key, name=f"{PATIENT}.png", source="file") for key in "123")
    records = [
        batches.segment(one, "m", lambda: prediction),
        batches.segment(two, "m", lambda: two_targets),
        batches.segment(three, "m", failing(UserError("no"))),
    ]
    stems = {one.id: "p-1", two.id: "p-2", three.id: "p-3"}
    packed = contents(batches.archive(records, stems, names=False))
    masks = {"p-1_mask.png": prediction.mask[0]} | {
        f"p-2_{target}_mask.png": mask for target, mask in zip(two_targets.targets, two_targets.mask, strict=True)
    }
    assert set(packed) == {*masks, "p-1.json", "p-2.json", "results.csv"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(packed[name]))) > 0, mask)
    assert json.loads(packed["p-2.json"])["files"] == list(masks)[1:]
    assert json.loads(packed["p-1.json"])["source"] is None
    assert not any(PATIENT.encode() in content or PATIENT in name for name, content in packed.items())
    assert [row["photograph"] for row in rows_of(packed["results.csv"].decode())] == ["p-1", "p-2", "p-3"]
    named = contents(batches.archive(records, stems, names=True))
    assert json.loads(named["p-1.json"])["source"] == f"{PATIENT}.png"


@pytest.mark.parametrize("name", ["=1+1.png", "+1.png", "-2+3.png", "@SUM(A1).png", "\t=1.png", "\r=1.png"])
def test_no_text_is_a_formula(photograph, prediction, name):
    one = photograph("1", name=name, source="file")
    record = replace(batches.segment(one, "m", lambda: prediction), remarks=(f"{name} is damaged",))
    (row,) = rows_of(io.comma_separated(batches.table([record], {one.id: name}, names=True)))
    assert row["file"] == f"'{name}"
    assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r")) for value in row.values())
    assert float(row["density"]) == pytest.approx(numbers.measure(prediction)["density"])


def test_commas_quotes_and_lines_stay_in_their_cell():
    rows = [{"file": 'a "b", c\nd.png', "value": 0.5}, {"file": "é", "value": None}]
    read = rows_of(io.comma_separated(rows))
    assert [row["file"] for row in read] == ['a "b", c\nd.png', "é"]
    assert [row["value"] for row in read] == ["0.5", ""]
    assert io.comma_separated([]) == ""
