import json
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from retina_seg import datasets, metrics, postprocess, protocols, scoring, zoo
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter


@pytest.fixture(scope="module")
def report(tiny_run, drawn_drive, tmp_path_factory):
    saved = tmp_path_factory.mktemp("saved")
    return scoring.score(str(tiny_run), "drive", drawn_drive, device="cpu", save_to=saved)["vessels"], saved


def test_scores_are_those_of_the_public_path(report, tiny_run, drawn_drive):
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    threshold = segmenter.card.thresholds["vessels"]
    prob, truth = [], []
    for _, row in protocols.cases("drive"):
        sample = datasets.load(row, drawn_drive)
        prob.append(segmenter.predict(sample.image, sample.fov).prob[0][sample.fov])
        truth.append(sample.targets["vessels"][sample.fov])
    prob, truth = np.concatenate(prob), np.concatenate(truth)
    scores = report[0]
    assert scores.n_images == 20
    assert scores.threshold == threshold
    assert scores.fov["dice"] == pytest.approx(metrics.dice(prob >= threshold, truth), abs=1e-12)
    assert scores.fov["auc"] == pytest.approx(metrics.auc(prob, truth), abs=1e-12)


def test_the_report_knows_the_model(report, tiny_run):
    scores = report[0]
    model = scores.provenance["models"][0]
    assert model["weights_sha256"] == Segmenter.from_pretrained(tiny_run, "cpu").card.weights_sha256
    assert model["trained_on"] == [f"drive:{n}" for n in range(21, 41)]
    assert not scores.leaked_images
    assert "validation images" in scores.threshold_source
    # The second observer marks what the first does in these drawings.
    assert scores.second_observer["fov"]["dice"] == 1
    assert any("differ from the release" in warning for warning in scores.warnings)


def test_the_json_has_the_promised_names(report):
    record = json.loads(report[0].to_json())
    assert set(record) >= {
        *("model", "protocol", "split", "n_images", "threshold", "threshold_source", "fov", "per_image_mean"),
        *("per_image_sd", "ci95", "full_frame", "second_observer", "per_image"),
    }
    names = {"auc", "ap", "dice", "sensitivity", "specificity", "accuracy", "mcc", "cldice"}
    assert names <= set(record["fov"])
    assert len(record["per_image"]) == 20
    low, high = record["ci95"]["dice"]
    assert low <= record["fov"]["dice"] <= high


def test_predictions_are_saved(report):
    saved = report[1]
    assert len(list(saved.iterdir())) == 60
    mask = np.asarray(Image.open(saved / "drive_01_mask.png"))
    assert mask.shape == (104, 96)


def test_scoring_training_images_is_called_a_leak(tiny_run, drawn_drive):
    scores = scoring.score(str(tiny_run), "cross-drive", drawn_drive, device="cpu")["vessels"]
    assert len(scores.leaked_images) == 20
    assert any(warning.startswith("LEAK") for warning in scores.warnings)


def test_the_report_of_a_run_is_kept_in_its_folder(report, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    assert zoo.reports(run) == {}
    assert scoring.keep(report[0], run) == run / "reports" / "drive.json"
    assert zoo.reports(run) == {"drive": report[0].to_dict()}
    assert [path.name for path in (run / "reports").iterdir()] == ["drive.json"]


def test_no_report_is_kept_of_what_is_not_the_run_itself(report, tiny_run, drawn_drive, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    flips = zoo.card(run).inference.flips
    other = scoring.score(run, "drive", drawn_drive, device="cpu", flips=not flips)["vessels"]
    assert scoring.keep(other, run) is None
    assert scoring.keep(replace(report[0], postprocessing="pieces removed"), run) is None
    assert scoring.keep(replace(report[0], split="val"), run) is None
    assert scoring.keep(report[0], "vessels-drive") is None
    assert scoring.keep(report[0], str(run).replace("run", "{fold}")) is None
    assert not (run / "reports").exists()


@pytest.mark.parametrize("flips", [False, True])
def test_small_pieces_are_removed_from_what_is_scored(tiny_run, drawn_drive, tmp_path, monkeypatch, flips):
    remove = partial(postprocess.without_small_pieces, smallest=1e-2)  # some hundred pixels
    monkeypatch.setattr(postprocess, "without_small_pieces", remove)
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu", flips=flips)
    threshold = segmenter.card.thresholds["vessels"]
    prob, truth = [], []
    for _, row in protocols.cases("drive"):
        sample = datasets.load(row, drawn_drive)
        raw = segmenter.predict(sample.image, sample.fov).prob[0]
        prob.append(remove(raw, sample.fov, threshold)[sample.fov])
        truth.append(sample.targets["vessels"][sample.fov])
    prob, truth = np.concatenate(prob), np.concatenate(truth)
    found = scoring.score(tiny_run, "drive", drawn_drive, device="cpu", flips=flips, clean=True, save_to=tmp_path)
    scores = found["vessels"]
    assert scores.fov["dice"] == pytest.approx(metrics.dice(prob >= threshold, truth), abs=1e-12)
    assert scores.fov["auc"] == pytest.approx(metrics.auc(prob, truth), abs=1e-12)
    assert scores.postprocessing == postprocess.describe()
    record = json.loads((tmp_path / "drive_01.json").read_text())
    assert record["postprocessing"] == postprocess.describe()
    assert record["threshold_source"] == segmenter.card.threshold_source
    mask = np.asarray(Image.open(tmp_path / "drive_01_mask.png")) > 0
    sample = datasets.load(protocols.cases("drive")[0][1], drawn_drive)
    counted = scores.per_image[0]["counts"]
    assert mask[sample.fov].sum() == counted["tp"] + counted["fp"]


def test_variants_are_those_scored_one_by_one_and_look_once(tiny_run, drawn_drive, monkeypatch):
    looked, done = [], []
    predict = Segmenter.predict

    def counted(self, source, fov=None, *, judge=True):
        assert not judge  # nobody reads doubts while scores are taken
        looked.append(self.flips)
        return predict(self, source, fov, judge=judge)

    monkeypatch.setattr(Segmenter, "predict", counted)
    found = scoring.variants(tiny_run, "drive", drawn_drive, device="cpu", progress=lambda *step: done.append(step))
    # Each photograph is looked at once for each setting of flips.
    assert looked == [False, True] * 20
    assert done == [(number, 20) for number in range(21)]
    for name, variant in scoring.VARIANTS.items():
        alone = scoring.score(tiny_run, "drive", drawn_drive, device="cpu", flips=variant.flips, clean=variant.clean)
        assert found[name] == alone


def test_errors(tiny_run, drawn_drive, tmp_path):
    with pytest.raises(UserError, match="unknown protocol"):
        scoring.score(str(tiny_run), "drove", drawn_drive)
    with pytest.raises(UserError, match="no model"):
        scoring.score("nonesuch", "drive", drawn_drive)
    with pytest.raises(UserError, match="DRIVE"):
        scoring.score(str(tiny_run), "drive", tmp_path)


def test_packaged_model_reaches_its_card_on_drive(data_root):
    """The score on the card is what anybody measures: two test images, against the card's per-image spread."""
    card = Segmenter.from_pretrained("vessels-drive", "cpu").card
    segmenter = Segmenter.from_pretrained("vessels-drive", "cpu")
    dice = []
    for _, row in protocols.cases("drive")[:2]:
        sample = datasets.load(row, data_root)
        mask = segmenter.predict(sample.image, sample.fov).mask[0]
        dice.append(metrics.dice(mask, sample.targets["vessels"], sample.fov))
    score = card.scores["drive"]
    spread = score["per_image_sd"]["dice"]
    assert abs(np.mean(dice) - score["per_image_mean"]["dice"]) < 3 * spread / math.sqrt(2)
