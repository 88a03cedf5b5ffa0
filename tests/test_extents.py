"""Number and area of lesions: drawn masks with known answers, and the way through batch and command line."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from retina_seg import batch, datasets, extents, inference, lesions, zoo
from retina_seg.cli import app
from retina_seg.errors import UserError
from retina_seg.inference import Prediction, Segmenter
from retina_seg.lesions import Extent
from retina_seg.quality import Doubt

SIZE = 200


def prediction(masks: dict[str, np.ndarray]) -> Prediction:
    """Masks (H, W) as a prediction of a photograph that is all field of view."""
    mask = np.stack(list(masks.values()))
    shape = mask.shape[1:]
    image = np.zeros((*shape, 3), np.uint8)
    return Prediction(
        mask.astype(np.float32),
        mask,
        np.ones(shape, bool),
        image,
        tuple(masks),
        (0.5,) * len(masks),
        {"model": "drawn"},
    )


def block(y, x, height, width):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def measured(given):
    return extents.measure(given, extents.disc_pixels(given))


DISC = block(80, 80, 30, 30) | block(0, 0, 2, 2)  # 900 pixels, 2.25 % of the field, and a speck
LESION = block(10, 10, 10, 9) | block(10, 30, 9, 10)


class Finder:
    """Stands for the packaged network of the disc."""

    def __init__(self, mask):
        self.mask = mask

    def predict(self, image, fov, *, judge):
        assert image.shape[:2] == fov.shape == self.mask.shape
        return prediction({"disc": self.mask})


def test_lesions_are_measured_in_areas_of_the_disc_that_the_prediction_has():
    found = measured(prediction({"hard_exudates": LESION, "disc": DISC}))
    assert found["hard_exudates"] == Extent(2, 180, 0.2)
    assert (found["disc"].count, found["disc"].pixels) == (1, 900)  # the disc without the speck
    assert math.isnan(found["disc"].disc_areas)


def test_or_of_the_disc_that_another_network_finds():
    given = prediction({"hard_exudates": LESION})
    assert extents.measure(given, extents.disc_pixels(given, Finder(DISC)))["hard_exudates"].disc_areas == 0.2
    for nothing in (
        None,
        Finder(np.zeros_like(DISC)),
        Finder(block(50, 50, 100, 100)),
        Finder(block(80, 0, 30, 30)),
    ):  # none, none found, far too large, cut by the border
        found = extents.measure(given, extents.disc_pixels(given, nothing))["hard_exudates"]
        assert (found.count, found.pixels) == (2, 180)
        assert math.isnan(found.disc_areas)


def test_vessels_have_no_extent():
    given = prediction({"vessels": LESION})
    assert measured(given) == {}
    assert extents.recorded(given, {}, None) is given


def test_nothing_is_counted_in_a_photograph_that_is_in_doubt():
    blurred = Doubt("blurred", "The photograph is blurred.", withholds=True)
    grey = Doubt("grey", "The photograph has no colours.", withholds=False)
    given = prediction({"hard_exudates": LESION, "disc": DISC})
    assert measured(replace(given, photograph_doubts=(blurred,))) == {}
    assert extents.disc_pixels(replace(given, photograph_doubts=(blurred,))) is None
    assert measured(replace(given, photograph_doubts=(grey,))) == measured(given)


def test_no_network_is_needed_where_there_are_no_lesions_or_the_disc_is_found_anyway():
    assert extents.disc_finder(["vessels"]) is None
    assert extents.disc_finder(["hard_exudates", "disc"]) is None


def test_the_table_leaves_unknown_areas_empty():
    found = {"disc": Extent(1, 900, math.nan), "haemorrhages": Extent(3, 70, 0.0778912)}
    table = extents.lines("a", ["vessels", "haemorrhages", "disc"], found) + extents.lines("b", ["disc"], {})
    text = extents.csv_text(table)
    assert text.splitlines() == [
        "photograph,target,count,pixels,disc_areas",
        "a,haemorrhages,3,70,0.07789",
        "a,disc,1,900,",
        "b,disc,,,",
    ]
    assert extents.csv_text(extents.read_csv(text)) == text
    with pytest.raises(ValueError, match="columns a, b, not photograph"):
        extents.read_csv("a,b\n1,2\n")


def test_a_batch_of_lesions_leaves_a_mask_for_each_target_and_one_table(
    tiny_lesions, drawn_idrid, tmp_path, monkeypatch
):
    # These are too small to be counted in.
    monkeypatch.setattr(inference, "photograph_doubts", lambda *given, **named: ())
    rows = [row for row in datasets.rows("idrid_seg") if row.splits["idrid"] == "test"][:2]
    files = [drawn_idrid / "IDRiD" / row.image for row in rows]
    result = CliRunner().invoke(
        app, ["predict", *map(str, files), "--out", str(tmp_path), "--model", str(tiny_lesions)]
    )
    assert result.exit_code == 0, result.output
    targets = ["haemorrhages", "soft_exudates", "disc"]
    for file in files:
        for target in targets:
            assert (tmp_path / f"{file.stem}_{target}_mask.png").is_file()
    lines = list(csv.DictReader((tmp_path / batch.EXTENTS).read_text(encoding="utf-8").splitlines()))
    assert [(line["photograph"], line["target"]) for line in lines] == [(f.stem, t) for f in files for t in targets]
    segmenter = Segmenter.from_pretrained(tiny_lesions, "cpu")
    for file in files:
        record = json.loads((tmp_path / f"{file.stem}.json").read_text())
        own = {line["target"]: line for line in lines if line["photograph"] == file.stem}
        for target in targets:
            mask = np.asarray(Image.open(tmp_path / f"{file.stem}_{target}_mask.png")) > 0
            area = lesions.largest_piece(mask).sum() if target == "disc" else mask.sum()
            assert int(own[target]["pixels"]) == record["extent"][target]["pixels"] == area
            assert "disc_pixels" in record
        assert record["extent"].keys() == measured(segmenter.predict(file)).keys()


def test_the_table_grows_and_keeps_what_others_wrote(tiny_lesions, drawn_idrid, drawn, tmp_path):
    """A failed photograph has empty cells, lines of before stay, those of the same photograph are replaced."""
    row = next(row for row in datasets.rows("idrid_seg") if row.splits["idrid"] == "test")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    segmenter, out = Segmenter.from_pretrained(tiny_lesions, "cpu"), tmp_path / "out"
    seen = []

    def look(outcome: batch.Outcome) -> None:
        seen.append(len((out / batch.EXTENTS).read_text().splitlines()))

    planned = batch.plan([tmp_path / "broken.png", drawn_idrid / "IDRiD" / row.image])
    batch.predict_files(segmenter, planned, out, on_done=look)
    assert seen == [4, 7]  # after each photograph
    first = (out / batch.EXTENTS).read_text()
    assert "broken,haemorrhages,,," in first
    batch.predict_files(segmenter, planned[1:], out)
    assert (out / batch.EXTENTS).read_text() == first
    (out / batch.EXTENTS).write_text("something,else\n")
    with pytest.raises(UserError, match="move it away, or choose another --out"):
        batch.predict_files(segmenter, planned, out)
    (out / batch.EXTENTS).unlink()
    (out / batch.EXTENTS).mkdir()
    with pytest.raises(UserError, match="move it away, or choose another --out"):
        batch.predict_files(segmenter, planned, out)


def test_a_batch_of_vessels_has_no_such_table(tiny_run, drawn, tmp_path):
    path = tmp_path / "eye.png"
    Image.fromarray(drawn.image).save(path)
    batch.predict_files(Segmenter.from_pretrained(tiny_run, "cpu"), batch.plan([path]), tmp_path / "out")
    assert not (tmp_path / "out" / batch.EXTENTS).exists()


def test_the_packaged_disc_is_the_unit_of_packaged_lesions():
    if "disc" not in zoo.names():
        pytest.skip("no network of the disc is packaged")
    finder = extents.disc_finder(["hard_exudates"], "cpu")
    assert finder is not None
    assert finder.card.targets == ("disc",)


def test_extents_are_recorded_beside_what_was_known():
    given = replace(prediction({"disc": DISC}), provenance={"model": "x"})
    recorded = extents.recorded(given, measured(given), 900)
    extent = {"disc": {"count": 1, "pixels": 900, "disc_areas": None}}
    assert recorded.provenance == {"model": "x", "extent": extent, "disc_pixels": 900}
