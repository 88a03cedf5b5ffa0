"""Reading the sets: shapes, types, the quirks of each release, and no silent loss."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_set import COUNT, NAME, make, photograph
from PIL import Image

from retina_seg import datasets, duplicates
from retina_seg.errors import UserError


def by_id(name: str, wanted: str):
    return next(row for row in datasets.rows(name) if row.id == wanted)


def test_drawn_rows_load_as_they_were_drawn(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    for number, row in enumerate(datasets.rows(NAME)):
        sample = datasets.load(row, made.root)
        image, vessels = photograph(number)
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.targets["vessels"], vessels)
        assert sample.fov is None


def test_a_file_the_manifest_names_is_never_silently_absent(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    row = datasets.rows(NAME)[0]
    (made.folder / row.targets["vessels"]).unlink()
    with pytest.raises(UserError, match="missing although the manifest names it"):
        datasets.load(row, made.root)


def test_labels_of_another_size_or_with_grey_values_are_errors(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    row = datasets.rows(NAME)[0]
    label = made.folder / row.targets["vessels"]
    Image.open(label).resize((50, 50), Image.Resampling.NEAREST).save(label)
    with pytest.raises(UserError, match="50x50 pixels, its image 168x160"):
        datasets.load(row, made.root)
    Image.fromarray(photograph(0)[0][..., 1]).save(label)
    with pytest.raises(UserError, match="two"):
        datasets.load(row, made.root)


def test_a_lesion_without_a_file_is_empty_where_the_release_means_absent(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    spec = datasets.DatasetSpec("DRAWN", ("vessels", "soft_exudates", "disc"), ("drawn",), ("soft_exudates",))
    monkeypatch.setattr(datasets, "DATASETS", {NAME: spec})
    sample = datasets.load(datasets.rows(NAME)[0], made.root)
    assert set(sample.targets) == {"vessels", "soft_exudates"}
    assert sample.targets["soft_exudates"].shape == sample.image.shape[:2]
    assert not sample.targets["soft_exudates"].any()


def test_a_wrong_data_root_is_explained(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    row = datasets.rows(NAME)[0]
    for root, said in (
        (tmp_path / "nowhere", "is not a folder"),
        (made.folder, f"is the DRAWN folder itself; give the folder above it, {made.root}"),
        (tmp_path, f"has no folder DRAWN; did you mean {made.root}"),
        (made.manifests, "data fetch drawn"),
    ):
        with pytest.raises(UserError) as raised:
            datasets.load(row, root)
        assert said in str(raised.value)
    with pytest.raises(UserError, match="expected one of drawn"):
        datasets.rows("drive")


def test_any_folder_of_images_becomes_rows_that_load(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    rows = datasets.folder_rows(made.folder / "images")
    assert [row.image for row in rows] == [f"{number}.png" for number in range(COUNT)]
    sample = datasets.load(rows[2], made.folder / "images")
    np.testing.assert_array_equal(sample.image, photograph(2)[0])
    assert sample.targets == {}
    with pytest.raises(UserError, match="no images"):
        datasets.folder_rows(made.manifests)
    with pytest.raises(UserError, match="not a folder"):
        datasets.folder_rows(made.folder / "nowhere")


def test_summary_counts_what_is_there(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    (made.folder / "images" / "0.png").unlink()
    (line,) = datasets.summary(made.root)
    assert (line.name, line.images, line.files, line.missing) == (NAME, COUNT, 2 * COUNT, 1)
    assert line.splits == {"drawn": {"train": 3, "val": 0, "test": 2}}
    assert datasets.summary()[0].missing is None


def test_pixel_hash_knows_pixels_shape_and_type_but_not_the_file_format(tmp_path):
    image = photograph(0)[0]
    Image.fromarray(image).save(tmp_path / "a.tif", compression="tiff_deflate")
    again = np.array(Image.open(tmp_path / "a.tif"))
    assert datasets.pixel_hash(again) == datasets.pixel_hash(image)
    assert datasets.pixel_hash(image[::-1]) != datasets.pixel_hash(image)
    assert datasets.pixel_hash(image.reshape(80, 336, 3)) != datasets.pixel_hash(image)
    flags = image[..., 0] > 9
    assert datasets.pixel_hash(flags) != datasets.pixel_hash(flags.astype(np.uint8))


def test_cached_rows_cannot_be_spoilt_by_a_caller():
    datasets.rows("drive").clear()
    assert len(datasets.rows("drive")) == 40


def test_real_drive_reads_with_both_observers(data_root):
    sample = datasets.load(by_id("drive", "01"), data_root)
    assert sample.image.shape == (584, 565, 3)
    assert sample.fov is not None
    assert (sample.fov.shape, sample.fov.dtype) == ((584, 565), np.bool_)
    assert 0.6 < sample.fov.mean() < 0.75
    first, second = sample.targets["vessels"], sample.targets["vessels_observer2"]
    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert 0.75 < dice < 0.85
    assert set(datasets.load(by_id("drive", "21"), data_root).targets) == {"vessels"}


@pytest.mark.parametrize(("name", "wanted", "share"), [("stare", "im0001", 0.1), ("chase_db1", "14R", 0.07)])
def test_other_real_vessel_sets_read_with_both_observers(data_root, name, wanted, share):
    sample = datasets.load(by_id(name, wanted), data_root)
    assert set(sample.targets) == {"vessels", "vessels_observer2"}
    for target in sample.targets.values():
        assert target.shape == sample.image.shape[:2]
        assert abs(target.mean() - share) < 0.05
    assert sample.fov is None


def test_real_idrid_lesions_read_and_absent_ones_are_empty(data_root):
    sample = datasets.load(by_id("idrid_seg", "IDRiD_43"), data_root)
    assert set(sample.targets) == set(datasets.DATASETS["idrid_seg"].targets)
    assert all(target.shape == (2848, 4288) for target in sample.targets.values())
    assert not sample.targets["haemorrhages"].any()
    assert 0.005 < sample.targets["disc"].mean() < 0.05


def test_real_reduced_grading_photograph_is_recognised(data_root):
    row = by_id("idrid_grade", "train/IDRiD_001")
    sample = datasets.load(row, data_root)
    digest = duplicates.perceptual_hash(duplicates.view(sample.image))
    assert duplicates.likeness([digest], [row.perceptual_hash])[0, 0] >= duplicates.SAME_LIKENESS
    assert row.labels["dr_grade"] == "3"
    assert (row.width, row.height) == (4288, 2848)


def test_files_outside_the_folder_of_the_set_are_not_read(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    first, other = datasets.rows(NAME)[:2]
    outside = tmp_path / "secret.png"
    outside.write_bytes((made.folder / other.image).read_bytes())
    for name in ("../../secret.png", str(outside), "images/../../../secret.png"):
        with pytest.raises(UserError, match="not a plain relative POSIX path"):
            datasets.load(replace(first, image=name), made.root)
    (made.folder / first.image).unlink()
    (made.folder / first.image).symlink_to(outside)  # as a copy of a set that consists of links
    np.testing.assert_array_equal(datasets.load(first, made.root).image, photograph(1)[0])


def test_differences_from_the_release_are_told_by_pixels(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch)
    row = datasets.rows(NAME)[0]
    sample = datasets.load(row, made.root)
    size, found = (row.width, row.height), datasets.hashes(sample)
    assert datasets.differing(row, found, size) == []
    inverted = datasets.hashes(replace(sample, targets={"vessels": ~sample.targets["vessels"]}))
    assert datasets.differing(row, inverted, size) == ["vessels"]
    assert datasets.differing(row, {"image": "00"}, size) == ["image"]
    known = replace(row, pixel_sha256="", reduced_sha256="00")
    assert datasets.differing(known, {"image": "11"}, size) == []  # the original, whose hash nobody knows
    assert datasets.differing(known, {"image": "00"}, (10, 10)) == []
    assert datasets.differing(known, {"image": "11"}, (10, 10)) == ["image"]
