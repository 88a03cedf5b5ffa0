"""Names of files and splits of the releases, without a pixel."""

from dataclasses import replace
from pathlib import Path

import pytest

from retina_seg import releases
from retina_seg.errors import UserError
from retina_seg.manifest import Row


def row(dataset: str, name: str, **changes: object) -> Row:
    part = "b. Testing Set" if name.startswith("test") else "a. Training Set"
    return replace(Row(dataset, name, name, "", f"{part}/{name}.jpg", {}, "", {}, {}, 0, 0, ""), **changes)


def test_ids_eyes_and_second_observers():
    drive = releases.rows("drive", Path("nowhere"))
    assert [(len(drive), drive[0].id, drive[-1].id)] == [(40, "01", "40")]
    assert [r.id for r in drive if "vessels_observer2" in r.targets] == [f"{n:02d}" for n in range(1, 21)]
    chase = releases.rows("chase_db1", Path("nowhere"))
    assert {(r.id, r.subject, r.eye) for r in chase[:2]} == {("01L", "01", "left"), ("01R", "01", "right")}
    assert len(releases.rows("stare", Path("nowhere"))) == 20


def test_idrid_rows_are_not_written_from_an_incomplete_copy(tmp_path):
    with pytest.raises(UserError, match="would count as free of that lesion"):
        releases.rows("idrid_seg", tmp_path)
    with pytest.raises(UserError, match="cannot be read as a table"):
        releases.rows("idrid_grade", tmp_path)
    with pytest.raises(UserError, match="expected one of drive"):
        releases.rows("messidor", tmp_path)


def test_tables_with_padding_are_read_and_nonsense_is_named(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("\ufeffImage,X,Y ,,,\nIDRiD_1, 3,4,,,\n,,,,,\nIDRiD_2,5,6,,\n\n", encoding="utf-8")
    assert releases._table(table) == {"IDRiD_1": ("3", "4"), "IDRiD_2": ("5", "6")}
    table.write_text("Image,X,Y\nIDRiD_1,3,left\n", encoding="utf-8")
    with pytest.raises(UserError, match="whole numbers"):
        releases._table(table)


def test_eyes_joins_rows_through_others_and_across_sets():
    rows = [
        row("idrid_seg", "1", same_eye=("idrid_grade:9",)),
        row("idrid_seg", "2", same_photograph=("idrid_grade:9",)),
        row("idrid_grade", "9", same_eye=("idrid_seg:1",), same_photograph=("idrid_seg:2",)),
        row("idrid_grade", "1"),
        row("idrid_seg", "3", subject="s"),
        row("idrid_seg", "4", subject="s"),
    ]
    groups = {frozenset(member.key for member in eye) for eye in releases.eyes(rows)}
    assert groups == {
        frozenset({"idrid_seg:1", "idrid_seg:2", "idrid_grade:9"}),
        frozenset({"idrid_grade:1"}),
        frozenset({"idrid_seg:3", "idrid_seg:4"}),
    }


def test_idrid_validation_is_fixed_stratified_and_keeps_eyes_whole():
    soft = {"soft_exudates": "x.tif"}
    seg = [row("idrid_seg", f"IDRiD_{n:02d}", targets=soft if n % 2 else {}) for n in range(1, 41)]
    grade = [row("idrid_grade", f"train/IDRiD_{n:03d}", labels={"dr_grade": str(n % 2)}) for n in range(1, 101)]
    tests = [row("idrid_grade", f"test/IDRiD_{n:03d}") for n in range(1, 5)]
    # Segmentation 1 to 20 are graded too; 1 and 2 show eyes of the grading test set.
    seg = [
        replace(r, same_photograph=(f"idrid_grade:train/IDRiD_{n:03d}",)) if n <= 20 else r
        for n, r in enumerate(seg, start=1)
    ]
    seg[0] = replace(seg[0], same_eye=("idrid_grade:test/IDRiD_001",))
    seg[1] = replace(seg[1], same_eye=("idrid_grade:test/IDRiD_002",))
    done = releases.with_splits({"idrid_seg": seg, "idrid_grade": grade + tests})
    again = releases.with_splits({"idrid_seg": seg[::-1], "idrid_grade": (grade + tests)[::-1]})
    assert {r.key: r.splits for g in done.values() for r in g} == {r.key: r.splits for g in again.values() for r in g}
    val = {r.key for g in done.values() for r in g if "val" in r.splits.values()}
    drawn = [r for r in done["idrid_seg"] if r.key in val]
    assert (len(drawn), sum("soft_exudates" in r.targets for r in drawn)) == (8, 4)
    assert not {"idrid_seg:IDRiD_01", "idrid_seg:IDRiD_02"} & val
    for n in range(1, 21):
        assert (f"idrid_seg:IDRiD_{n:02d}" in val) == (f"idrid_grade:train/IDRiD_{n:03d}" in val)
    graded = [r for r in done["idrid_grade"] if r.key in val]
    assert [sum(r.labels["dr_grade"] == grade for r in graded) for grade in "01"] == [10, 10]
    assert all(r.splits == {"idrid-grade": "test"} for r in done["idrid_grade"] if r.id.startswith("test"))
