"""Checks of a data root: every planted fault is found, and true copies give no error."""

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawn_set import NAME, card, make, photograph, row, save
from PIL import Image

from retina_seg import audit, cards, datasets, duplicates, manifest
from retina_seg.errors import UserError


@pytest.fixture
def made(tmp_path, monkeypatch):
    return make(tmp_path, monkeypatch)


def image_of(made, number):
    return made.folder / row(number).image


def label_of(made, number):
    return made.folder / row(number).targets["vessels"]


def found(made, severity="error"):
    return {(f.kind, f.files) for f in audit.check(NAME, made.root) if f.severity == severity}


def rewrite(made, **changes_by_id):
    """Change rows of the manifest: rewrite(made, _0={"subject": "x"})."""
    rows = [replace(r, **changes_by_id.get(f"_{r.id}", {})) for r in made.rows()]
    manifest.write(rows, made.manifests / f"{NAME}.csv")
    datasets._packaged_rows.cache_clear()


def test_a_true_copy_gives_no_finding_and_progress_reaches_its_end(made):
    calls = []
    assert audit.check([NAME], made.root, progress=lambda *call: calls.append(call)) == []
    assert (5, 5, f"reading {NAME}:4") in calls
    assert (5, 5, "comparing") in calls


def test_lossless_copies_in_another_mode_are_the_same(made):
    Image.open(label_of(made, 0)).convert("1").save(label_of(made, 0))
    Image.open(image_of(made, 0)).convert("RGBA").save(image_of(made, 0))
    assert audit.check(NAME, made.root) == []


def test_missing_and_unreadable_files(made):
    image_of(made, 0).unlink()
    label_of(made, 1).unlink()
    image_of(made, 2).write_bytes(image_of(made, 2).read_bytes()[:900])
    label_of(made, 3).write_text("not an image")
    assert found(made) == {
        ("missing", (row(0).image,)),
        ("missing", (row(1).targets["vessels"],)),
        ("unreadable", (row(2).image,)),
        ("unreadable", (row(3).targets["vessels"],)),
    }


def test_a_half_complete_copy_is_one_finding(made, monkeypatch):
    monkeypatch.setattr(audit, "_LISTED", 3)
    for number in range(4):
        image_of(made, number).unlink()
    (finding,) = [f for f in audit.check(NAME, made.root) if f.kind == "missing"]
    assert len(finding.files) == 4
    assert "4 of 10 files are missing" in finding.message


def test_labels_that_are_not_two_valued_or_of_another_size(made):
    image, vessels = photograph(0)
    save(image[..., 1], label_of(made, 0))
    save(vessels[:-8], label_of(made, 1))
    changed = photograph(2)[1].copy()
    changed[60:70, 60:70] ^= True
    save(changed, label_of(made, 2))
    assert found(made) == {
        ("values", (row(0).targets["vessels"],)),
        ("size", (row(1).targets["vessels"],)),
        ("content", (row(2).targets["vessels"],)),
    }


def test_photographs_of_another_size_or_content(made):
    save(photograph(0)[0][:-30], image_of(made, 0))
    brighter = np.clip(photograph(1)[0].astype(int) + 9, 0, 255).astype(np.uint8)
    save(brighter, image_of(made, 1))
    kinds = {(kind, files[0]) for kind, files in found(made)}
    assert {("size", row(0).image), ("content", row(1).image)} <= kinds


def test_a_reduced_copy_is_named_not_refused(made):
    for number in range(2):
        image, vessels = photograph(number)
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        save(half, image_of(made, number))
        save(vessels[::2, ::2], label_of(made, number))
    (finding,) = audit.check(NAME, made.root)
    assert (finding.severity, finding.kind) == ("info", "reduced")
    assert finding.files == (row(0).image, row(1).image)
    assert "84x80 instead of 168x160" in finding.message


def test_a_reduced_copy_of_another_photograph_is_refused(made):
    image = cv2.resize(photograph(7)[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    save(image, image_of(made, 0))
    assert ("content", (row(0).image,)) in found(made)


def test_an_original_of_unknown_hash_is_recognised_by_its_look(made):
    rewrite(made, _0={"pixel_sha256": "", "reduced_sha256": "00"})
    assert audit.check(NAME, made.root) == []
    save(photograph(7)[0], image_of(made, 0))
    assert ("content", (row(0).image,)) in found(made)


def test_swapped_labels_do_not_belong_even_where_a_manifest_says_so(made):
    hashes = {number: dict(row(number).target_sha256) for number in range(2)}
    save(photograph(1)[1], label_of(made, 0))
    save(photograph(0)[1], label_of(made, 1))
    rewrite(made, _0={"target_sha256": hashes[1]}, _1={"target_sha256": hashes[0]})
    assert found(made) == {
        ("mismatch", (row(0).image, row(0).targets["vessels"])),
        ("mismatch", (row(1).image, row(1).targets["vessels"])),
    }


def test_one_photograph_under_two_names_is_found_whatever_its_encoding(made):
    twin = cv2.GaussianBlur(photograph(0)[0], (0, 0), 0.5)
    save(twin, image_of(made, 3))
    save(photograph(0)[1], label_of(made, 3))
    rewrite(made, _3={"pixel_sha256": "", "target_sha256": {}, "perceptual_hash": row(0).perceptual_hash})
    (finding,) = audit.check(NAME, made.root)
    assert (finding.severity, finding.kind) == ("error", "duplicate")
    assert finding.files == (f"{NAME}:0", f"{NAME}:3")
    assert "two sides of a split (drawn: train/test)" in finding.message
    rewrite(made, _0={"same_photograph": (f"{NAME}:3",)}, _3={"same_photograph": (f"{NAME}:0",)})
    (finding,) = audit.check(NAME, made.root)
    assert finding.severity == "warning"


def test_a_photograph_of_another_sets_manifest_is_recognised_without_that_sets_files(made, monkeypatch):
    other = replace(row(2), dataset="other", id="9")
    manifest.write([other], made.manifests / "other.csv")
    spec = datasets.DatasetSpec("OTHER", ("vessels",), ("drawn",))
    monkeypatch.setitem(datasets.DATASETS, "other", spec)
    (finding,) = audit.check(NAME, made.root)
    assert (finding.severity, finding.kind, finding.files) == ("error", "duplicate", (f"{NAME}:2", "other:9"))
    assert "leave one out where a model sees both" in finding.message

    rewrite(made, _2={"same_eye": ("other:9",)})
    (finding,) = audit.check(NAME, made.root)
    assert (finding.severity, finding.kind) == ("warning", "same_eye")


def test_a_subject_on_two_sides_is_found_and_the_card_can_own_up_to_it(made):
    rewrite(made, _4={"subject": "0"})
    assert found(made) == {("subject", (f"{NAME}:0", f"{NAME}:4"))}
    words = card([]) | {"known_shared_subjects": {"drawn": ["0"]}}
    (made.manifests / f"{NAME}.yaml").write_text(str(words).replace("False", "false").replace("True", "true"))
    assert found(made) == set()
    assert found(made, "warning") == {("subject", (f"{NAME}:0", f"{NAME}:4"))}


def test_a_wrong_data_root_says_what_to_do(made, tmp_path):
    for root in (tmp_path / "nowhere", made.folder, made.manifests):
        with pytest.raises(UserError, match=r"data root .*(give the folder|get the set)"):
            audit.check(NAME, root)
    with pytest.raises(UserError, match="unknown set"):
        audit.check(["nothing"], made.root)


def test_with_several_sets_an_absent_one_is_a_finding(made, monkeypatch):
    manifest.write([replace(row(9), dataset="other")], made.manifests / "other.csv")
    monkeypatch.setitem(datasets.DATASETS, "other", datasets.DatasetSpec("OTHER", (), ("drawn",)))
    (finding,) = audit.check([NAME, "other"], made.root)
    assert (finding.severity, finding.kind, finding.files) == ("error", "missing", ("OTHER",))


@pytest.mark.parametrize("name", ["drive", "stare", "chase_db1"])
def test_committed_manifests_equal_a_fresh_scan(data_root, tmp_path, name):
    manifest.write(audit.scan(name, data_root), tmp_path / f"{name}.csv")
    committed = manifest.folder() / f"{name}.csv"
    assert (tmp_path / f"{name}.csv").read_bytes() == committed.read_bytes()


def test_a_scan_refuses_an_incomplete_copy(tmp_path):
    (tmp_path / "STARE").mkdir()
    with pytest.raises(UserError, match=r"60 problems, the first: stare:im0001: stare-images/im0001\.ppm is missing"):
        audit.scan("stare", tmp_path)


def test_true_drive_gives_no_finding(data_root):
    assert audit.check("drive", data_root) == []


@pytest.fixture(scope="session")
def listed_leaks(data_root):
    """Pairs of `overlaps.csv`, a table made independently of this package, as keys of rows."""
    with (data_root / "IDRiD" / "overlaps.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    keys = []
    for line in table:
        pair = set()
        for side in "ab":
            name = line[f"image_{side}"]
            graded = line[f"set_{side}"] == "grading"
            pair.add(f"idrid_grade:{line[f'split_{side}']}/{name}" if graded else f"idrid_seg:{name}")
        keys.append(frozenset(pair))
    assert len(set(keys)) == 68
    return set(keys)


def test_packaged_hashes_of_two_sets_are_alike_only_where_the_manifests_note_it(listed_leaks):
    rows = [row for name in datasets.DATASETS for row in datasets.rows(name)]
    alike = duplicates.likeness([r.perceptual_hash for r in rows], [r.perceptual_hash for r in rows])
    pairs = [(rows[a], rows[b]) for a, b in np.argwhere(alike >= duplicates.SAME_LIKENESS).tolist() if a < b]
    assert all(b.key in (*a.same_photograph, *a.same_eye) for a, b in pairs)
    assert listed_leaks <= {frozenset({a.key, b.key}) for a, b in pairs}


def test_idrid_manifests_note_exactly_the_listed_leaks(listed_leaks):
    rows = datasets.rows("idrid_seg") + datasets.rows("idrid_grade")
    assert {frozenset({row.key, key}) for row in rows for key in row.same_photograph} == listed_leaks


def test_idrid_leaks_are_found_in_the_pixels(data_root, listed_leaks):
    everything = datasets.rows("idrid_seg") + datasets.rows("idrid_grade")
    listed = frozenset().union(*listed_leaks)
    # All listed photographs, all with a noted second photograph of the eye, and every fourth of the others, which
    # must stay without a pair; the committed manifests come from a scan of all 597.
    rows = [row for at, row in enumerate(everything) if row.key in listed or row.same_eye or at % 4 == 0]
    views = [audit.quick_view(data_root / "IDRiD" / row.image) for row in rows]
    pairs = duplicates.find(views)
    keys = {
        relation: {frozenset({rows[p.first].key, rows[p.second].key}) for p in pairs if p.relation == relation}
        for relation in (duplicates.SAME_PHOTOGRAPH, duplicates.SAME_EYE)
    }
    assert keys[duplicates.SAME_PHOTOGRAPH] == listed_leaks
    noted = {frozenset({row.key, key}) for row in rows for key in row.same_eye}
    assert keys[duplicates.SAME_EYE] == noted
    assert frozenset({"idrid_grade:train/IDRiD_017", "idrid_grade:test/IDRiD_072"}) in noted


def test_known_shared_subjects_of_the_cards_are_warnings_of_the_check():
    rows = datasets.rows("chase_db1")
    findings = manifest.check(rows, known_shared=cards.card("chase_db1").known_shared_subjects)
    assert {f.severity for f in findings} == {"warning"}
    assert any("chase-4fold/2: subject 04 is in train and test" in f.message for f in findings)
