from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_seg import datasets, io
from retina_seg.errors import UserError
from retina_seg.viewer import opened


def png(pixels):
    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize("name", opened.DRAWN)
def test_every_drawn_example_can_be_opened(name):
    photograph = opened.drawn(name)
    assert (photograph.source, photograph.name) == ("drawn", name)
    loaded = photograph.read()
    assert loaded.image.dtype == np.uint8
    assert loaded.image.shape == (584, 565, 3)
    assert loaded.fov is None
    assert loaded.truths["vessels"].shape == (584, 565)
    assert 0.03 < loaded.truths["vessels"].mean() < 0.2


def test_an_upload_is_read_when_it_is_looked_at(drawing):
    asked = []

    def content():
        asked.append(1)
        return png(drawing.image)

    photograph = opened.upload("17", "Doe.png", content)
    assert (photograph.id, photograph.name, photograph.source) == ("file:17", "Doe.png", "file")
    assert asked == []
    loaded = photograph.read()
    np.testing.assert_array_equal(loaded.image, drawing.image)
    assert loaded.fov is None
    assert loaded.truths == {}


def test_a_damaged_upload_is_named(drawing):
    with pytest.raises(UserError, match=r"Doe\.png is damaged"):
        opened.upload("1", "Doe.png", lambda: png(drawing.image)[:2000]).read()


def test_a_truth_is_read(drawing):
    marked = opened.truth("truth.png", png(drawing.vessels.astype(np.uint8) * 255), drawing.vessels.shape)
    assert marked.dtype == bool
    np.testing.assert_array_equal(marked, drawing.vessels)


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a.T, lambda a: a[::2, ::2]])
def test_a_truth_of_another_size_is_refused_with_both_sizes(drawing, change):
    other = change(drawing.vessels.astype(np.uint8) * 255)
    with pytest.raises(UserError) as error:
        opened.truth("truth.png", png(other), drawing.vessels.shape)
    for text in ("truth.png", f"{other.shape[1]} x {other.shape[0]}", "200 x 206"):
        assert text in str(error.value)


def test_a_truth_with_more_than_two_colours_is_refused(drawing):
    with pytest.raises(UserError, match="more than two values"):
        opened.truth("truth.png", png(drawing.image), drawing.vessels.shape)


def test_without_a_data_root_there_are_no_sets():
    assert opened.sets(None) == []
    with pytest.raises(UserError, match="--data-root"):
        opened.find("drive:01", None)


def test_sets_below_a_data_root(drawn_drive, tmp_path):
    assert opened.sets(drawn_drive) == ["drive"]
    assert opened.sets(tmp_path) == []
    photograph = opened.find("drive:01", drawn_drive)
    assert (photograph.id, photograph.name, photograph.source) == ("drive:01", "drive 01", "drive")
    row = next(row for row in datasets.rows("drive") if row.id == "01")
    sample = datasets.load(row, drawn_drive)
    loaded = photograph.read()
    np.testing.assert_array_equal(loaded.image, sample.image)
    np.testing.assert_array_equal(loaded.fov, sample.fov)
    np.testing.assert_array_equal(loaded.truths["vessels"], sample.targets["vessels"])


@pytest.mark.parametrize("key", ["drive:99", "drive:", "drive", "nothing:01", ""])
def test_what_no_set_has_is_a_user_error(drawn_drive, key):
    with pytest.raises(UserError):
        opened.find(key, drawn_drive)


def test_a_photograph_that_is_missing_from_its_set_is_a_user_error(tmp_path):
    (tmp_path / "DRIVE").mkdir()
    with pytest.raises(UserError, match="missing"):
        opened.find("drive:01", tmp_path).read()


def test_the_public_sets(data_root: Path):
    sets = opened.sets(data_root)
    assert set(sets) <= set(datasets.DATASETS)
    assert "drive" in sets
    loaded = opened.find("drive:01", data_root).read()
    assert loaded.image.shape == (584, 565, 3)
    assert loaded.fov is not None
    expected = io.read_mask(data_root / "DRIVE" / "test" / "1st_manual" / "01_manual1.gif")
    np.testing.assert_array_equal(loaded.truths["vessels"], expected)
