"""Manifests: what is written is read again, what is wrong is said."""

from dataclasses import replace

import pytest

from retina_seg import cards, datasets, manifest
from retina_seg.errors import UserError
from retina_seg.manifest import Row


def row(name: str = "1", **changes: object) -> Row:
    plain = Row(
        dataset="set",
        id=name,
        subject=name,
        eye="left",
        image=f"images/{name}.png",
        targets={"vessels": f"labels/{name}.png"},
        fov="",
        splits={"a": "train", "b/1": "test"},
        labels={"dr_grade": "2"},
        width=30,
        height=20,
        pixel_sha256="ab" + name,
        target_sha256={"vessels": "cd"},
        reduced_sha256="",
        perceptual_hash="ef",
        same_photograph=("other:1", "other:2"),
        same_eye=(),
    )
    return replace(plain, **changes)


def kinds(findings):
    return [(finding.severity, finding.kind) for finding in findings]


def test_rows_survive_writing_and_reading(tmp_path):
    rows = [
        row("1"),
        row("2", targets={}, labels={}, splits={}, target_sha256={}, same_photograph=(), eye=""),
        row("3", image='odd, "name".png', fov="fov/3.gif", same_eye=("set:1",)),
    ]
    manifest.write(rows, tmp_path / "set.csv")
    assert manifest.read(tmp_path / "set.csv") == rows


def test_file_is_the_same_for_any_order_of_rows_and_sorted_as_people_count(tmp_path):
    rows = [row("im10"), row("im2"), row("im1")]
    manifest.write(rows, tmp_path / "a.csv")
    manifest.write(rows[::-1], tmp_path / "b.csv")
    text = (tmp_path / "a.csv").read_bytes()
    assert text == (tmp_path / "b.csv").read_bytes()
    assert [line.split(b",")[0] for line in text.splitlines()] == [b"id", b"im1", b"im2", b"im10"]
    assert text.endswith(b"\n")
    assert b"\r" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("split:a", "slit:a", "slit:a"),
        ("pixel_sha256", "pixels", "pixel_sha256"),
        ("left", "top", "eye"),
        ("train", "training", "split"),
        (",30,", ",0,", "width"),
        (",30,", ",30", "cells"),
        ("images/1.png", "", "must not be empty"),
    ],
)
def test_a_broken_manifest_is_named_with_its_fault(tmp_path, before, after, said):
    manifest.write([row()], tmp_path / "set.csv")
    text = (tmp_path / "set.csv").read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "set.csv").write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        manifest.read(tmp_path / "set.csv")


def test_missing_and_empty_manifests_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        manifest.read(tmp_path / "none.csv")
    manifest.write([row()], tmp_path / "set.csv")
    (tmp_path / "set.csv").write_text((tmp_path / "set.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="without rows"):
        manifest.read(tmp_path / "set.csv")
    with pytest.raises(UserError, match="exactly one set"):
        manifest.write([row("1"), row("2", dataset="other")], tmp_path / "set.csv")


def test_sound_rows_give_no_finding():
    assert manifest.check([row("1"), row("2")]) == []


def test_an_id_a_path_and_pixels_that_occur_twice_are_found():
    assert ("error", "id") in kinds(manifest.check([row("1"), row("1", image="x.png", targets={})]))
    assert kinds(manifest.check([row("1"), row("2", image="images/1.png")])) == [("error", "path")]
    twins = [row("1"), row("2", pixel_sha256="ab1")]
    assert kinds(manifest.check(twins)) == [("error", "duplicate")]
    noted = [replace(twins[0], same_photograph=("set:2",)), replace(twins[1], same_photograph=("set:1",))]
    assert kinds(manifest.check(noted)) == [("warning", "duplicate")]


@pytest.mark.parametrize("path", ["/etc/passwd", "../elsewhere.png", "images\\1.png"])
def test_paths_stay_below_the_folder(path):
    assert kinds(manifest.check([row("1", image=path)])) == [("error", "path")]


@pytest.mark.parametrize("other", ["train", "val"])
def test_a_subject_on_two_sides_is_an_error_unless_published_so(other):
    rows = [row("1", subject="s", splits={"a": "test"}), row("2", subject="s", splits={"a": other})]
    findings = manifest.check(rows)
    assert kinds(findings) == [("error", "subject")]
    assert set(findings[0].files) == {"set:1", "set:2"}
    assert kinds(manifest.check(rows, known_shared={"a": ["s"]})) == [("warning", "subject")]
    assert kinds(manifest.check(rows, known_shared={"b": ["s"]})) == [("error", "subject")]


@pytest.mark.parametrize("name", list(datasets.DATASETS))
def test_packaged_manifests_and_cards_are_sound(name):
    rows, card = datasets.rows(name), cards.card(name)
    assert card.name == name
    findings = manifest.check(rows, known_shared=card.known_shared_subjects)
    assert not [finding for finding in findings if finding.severity == "error"]
    shared = {(f.message.split()[1].rstrip(":"), f.message.split()[3]) for f in findings if f.kind == "subject"}
    listed = {(protocol, subject) for protocol, names in card.known_shared_subjects.items() for subject in names}
    assert shared == listed
    assert {protocol for row in rows for protocol in row.splits} == set(datasets.DATASETS[name].protocols)
    assert all(set(row.targets) <= set(datasets.DATASETS[name].targets) for row in rows)


def test_relations_between_packaged_rows_are_mutual_and_lead_somewhere():
    rows = {row.key: row for name in datasets.DATASETS for row in datasets.rows(name)}
    for row in rows.values():
        assert all(row.key in rows[key].same_photograph for key in row.same_photograph)
        assert all(row.key in rows[key].same_eye for key in row.same_eye)


def ids(name: str, protocol: str, split: str) -> list[str]:
    return [row.id for row in datasets.rows(name) if row.splits[protocol] == split]


def test_splits_are_the_published_ones():
    assert ids("drive", "drive", "test") == [f"{n:02d}" for n in range(1, 21)]
    assert ids("drive", "drive", "train") == [str(n) for n in range(21, 37)]
    assert ids("drive", "drive", "val") == [str(n) for n in range(37, 41)]
    learnt = sorted(ids("stare", "stare-10", "train") + ids("stare", "stare-10", "val"))
    assert learnt == [f"im{n:04d}" for n in (1, 2, 3, 4, 5, 44, 77, 81, 82, 139)]
    assert ids("stare", "stare-5fold/5", "test") == ["im0044", "im0139", "im0235", "im0236"]
    assert ids("stare", "stare-5fold/4", "val") == ["im0255", "im0324"]
    tested = [name for fold in range(1, 6) for name in ids("stare", f"stare-5fold/{fold}", "test")]
    assert sorted(tested) == sorted(row.id for row in datasets.rows("stare"))
    assert ids("chase_db1", "chase-20-8", "test") == [f"{n}{side}" for n in range(11, 15) for side in "LR"]
    assert len(ids("chase_db1", "chase-8-20", "test")) == 20
    assert ids("chase_db1", "chase-4fold/2", "val") == ["08L", "08R"]
    tested = [name for fold in range(1, 5) for name in ids("chase_db1", f"chase-4fold/{fold}", "test")]
    assert sorted(tested) == sorted(row.id for row in datasets.rows("chase_db1"))
    assert [len(ids("idrid_seg", "idrid", split)) for split in ("train", "val", "test")] == [43, 11, 27]
    sizes = [len(ids("idrid_grade", "idrid-grade", split)) for split in ("train", "val", "test")]
    assert sizes[0] + sizes[1] == 413
    assert sizes[2] == 103


def test_no_idrid_validation_eye_is_anything_else_in_either_task():
    rows = {row.key: row for name in ("idrid_seg", "idrid_grade") for row in datasets.rows(name)}
    for row in rows.values():
        if "val" in row.splits.values():
            others = {rows[key].splits.popitem()[1] for key in (*row.same_photograph, *row.same_eye)}
            assert others <= {"val"}


@pytest.mark.parametrize("width", ["²", "٣", "9" * 5000, "1000000", "-3", "3.0"])
def test_a_size_is_a_number_of_pixels(tmp_path, width):
    manifest.write([row()], tmp_path / "set.csv")
    text = (tmp_path / "set.csv").read_text(encoding="utf-8")
    (tmp_path / "set.csv").write_text(text.replace(",30,", f",{width},"), encoding="utf-8")
    with pytest.raises(UserError, match="line 2: width"):
        manifest.read(tmp_path / "set.csv")


@pytest.mark.parametrize("path", ["../2.png", "/etc/passwd", "a/../../b.png", "C:\\b.png", "C:/b.png", "a\x1b[31m.png"])
@pytest.mark.parametrize("cell", ["image", "fov", "target"])
def test_paths_that_leave_the_folder_of_the_set_are_refused(tmp_path, path, cell):
    changed = {"image": {"image": path}, "fov": {"fov": path}, "target": {"targets": {"vessels": path}}}[cell]
    manifest.write([row(**changed)], tmp_path / "set.csv")
    with pytest.raises(UserError, match=r"line 2: .*(not a plain relative POSIX path|no words of a table)"):
        manifest.read(tmp_path / "set.csv")


def test_cells_that_break_readers_are_told_with_their_line(tmp_path):
    manifest.write([row()], tmp_path / "set.csv")
    text = (tmp_path / "set.csv").read_text(encoding="utf-8")
    for changed in (text.replace("left", "x" * 200_000), text.replace("left", "a\0b"), text.replace("cd", "xyz")):
        (tmp_path / "set.csv").write_text(changed, encoding="utf-8")
        with pytest.raises(UserError, match="line 2"):
            manifest.read(tmp_path / "set.csv")
    (tmp_path / "set.csv").write_text(text.replace("id,", "id,id,", 1).replace("\n1,", "\n1,1,", 1), encoding="utf-8")
    with pytest.raises(UserError, match="each once"):
        manifest.read(tmp_path / "set.csv")


def test_a_manifest_that_a_spreadsheet_saved_is_read(tmp_path):
    manifest.write([row()], tmp_path / "set.csv")
    text = (tmp_path / "set.csv").read_text(encoding="utf-8")
    (tmp_path / "set.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert manifest.read(tmp_path / "set.csv") == [row()]


def test_ids_of_any_digits_can_be_sorted():
    names = ["im²", "im10", "im2", "im" + "9" * 5000, "im٣"]
    assert sorted(names, key=manifest.natural_key)[:2] == ["im2", "im10"]
