"""Number and area of lesions: drawn masks with known answers, and the way through batch and command line."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from retina_seg import batch, datasets, extents, zoo
from retina_seg.cli import app
from retina_seg.inference import Prediction, Segmenter
from retina_seg.lesions import Extent

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

    def predict(self, image, fov):
        assert image.shape[:2] == fov.shape == self.mask.shape
        return prediction({"disc": self.mask})


def test_lesions_are_measured_in_areas_of_the_disc_that_the_prediction_has():
    found = measured(prediction({"hard_exudates": LESION, "disc": DISC}))
    assert found["hard_exudates"] == Extent(2, 180, 0.2)
    assert (found["disc"].count, found["disc"].pixels) == (2, 904)
    assert math.isnan(found["disc"].disc_areas)


def test_or_of_the_disc_that_another_network_finds():
    given = prediction({"hard_exudates": LESION})
    assert extents.measure(given, extents.disc_pixels(given, Finder(DISC)))["hard_exudates"].disc_areas == 0.2
    for nothing in (
        None,
        Finder(np.zeros_like(DISC)),
        Finder(block(0, 0, 100, 100)),
    ):  # none, none found, far too large
        found = extents.measure(given, extents.disc_pixels(given, nothing))["hard_exudates"]
        assert (found.count, found.pixels) == (2, 180)
        assert math.isnan(found.disc_areas)


def test_vessels_have_no_extent():
    given = prediction({"vessels": LESION})
    assert measured(given) == {}
    assert extents.recorded(given, {}) is given


def test_no_network_is_needed_where_there_are_no_lesions_or_the_disc_is_found_anyway():
    assert extents.disc_finder(["vessels"]) is None
    assert extents.disc_finder(["hard_exudates", "disc"]) is None


def test_the_table_leaves_unknown_areas_empty():
    rows = [("a", {"disc": Extent(1, 900, math.nan)}), ("b", {"haemorrhages": Extent(3, 70, 0.0778912)})]
    text = extents.csv_text(rows)
    assert text.splitlines() == [
        "photograph,target,count,pixels,disc_areas",
        "a,disc,1,900,",
        "b,haemorrhages,3,70,0.07789",
    ]


def test_a_batch_of_lesions_leaves_a_mask_for_each_target_and_one_table(tiny_lesions, drawn_idrid, tmp_path):
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
            assert int(own[target]["pixels"]) == record["extent"][target]["pixels"] == mask.sum()
        assert record["extent"].keys() == measured(segmenter.predict(file)).keys()


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
    recorded = extents.recorded(given, measured(given))
    assert recorded.provenance == {"model": "x", "extent": {"disc": {"count": 2, "pixels": 904, "disc_areas": None}}}
