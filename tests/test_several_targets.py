"""Lesions and disc through the whole path on drawn photographs: training, scores, records, tables."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from retina_seg import benchmark, checkpoint, datasets, lesions, records, results, scoring, train, zoo
from retina_seg.cli import app
from retina_seg.config import load_config
from retina_seg.errors import UserError
from retina_seg.photographs import load_photograph
from retina_seg.preprocess import Preprocess

TARGETS = ("haemorrhages", "soft_exudates", "disc")


@pytest.fixture(scope="module")
def reports(tiny_lesions, drawn_idrid):
    return scoring.score(tiny_lesions, "idrid", drawn_idrid, device="cpu")


def test_a_report_for_each_target_that_is_learnt(reports):
    assert tuple(reports) == TARGETS
    for target, report in reports.items():
        assert (report.target, report.n_images, report.protocol) == (target, 27, "idrid")
        assert report.leaked_images == []
        assert report.second_observer is None
    assert set(reports["haemorrhages"].further) == {"froc", "working_size"}
    assert set(reports["disc"].further) == {"boundary", "working_size"}


def test_the_drawn_disc_is_learnt(reports):
    assert reports["disc"].fov["auc"] > 0.9  # chance is .5: the way from truth to network and back is straight


def test_no_file_means_no_lesion(reports, drawn_idrid):
    without = [row for row in datasets.rows("idrid_seg") if "soft_exudates" not in row.targets]
    assert without
    assert not datasets.load(without[0], drawn_idrid).targets["soft_exudates"].any()
    scored = {row["id"]: row for row in reports["soft_exudates"].per_image}
    empty = [scored[row.id] for row in without if row.id in scored]
    assert len(empty) == reports["soft_exudates"].undefined["dice"] == 13
    assert all(math.isnan(row["dice"]) and row["counts"]["tp"] == 0 for row in empty)


def test_a_file_that_is_named_but_missing_is_an_error(drawn_idrid, tmp_path, tiny_lesions):
    shutil.copytree(drawn_idrid, tmp_path / "data")
    row = next(row for row in datasets.rows("idrid_seg") if row.splits["idrid"] == "test" and "disc" in row.targets)
    (tmp_path / "data" / "IDRiD" / row.targets["disc"]).unlink()
    with pytest.raises(UserError, match=r"_OD\.tif is missing although the manifest names it"):
        scoring.score(tiny_lesions, "idrid", tmp_path / "data", device="cpu")


def test_the_command_keeps_a_report_for_each_target(tiny_lesions, drawn_idrid, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_lesions, run)
    monkeypatch.setenv("COLUMNS", "400")
    given = ["--protocol", "idrid", "--data-root", str(drawn_idrid), "--json", str(tmp_path / "scores.json")]
    result = CliRunner().invoke(app, ["evaluate", str(run), *given])
    assert result.exit_code == 0, result.output
    assert "soft exudates" in result.output
    assert "lesions found" in result.output
    assert "Outlines lie" in result.output
    assert list(zoo.reports(run)) == [f"idrid-{target}" for target in TARGETS]
    for target in TARGETS:
        assert json.loads((tmp_path / f"scores-{target}.json").read_text())["target"] == target
    card = zoo.package(run, {"name": "spots"}, tmp_path / "packaged")
    assert list(card.scores) == [f"idrid-{target}" for target in TARGETS]
    assert "idrid-disc: Jaccard" in card.headline()
    assert "idrid-haemorrhages: AP" in card.headline()


def test_a_benchmark_records_every_target_once(tiny_lesions, drawn_idrid, tmp_path, monkeypatch):
    counted = []
    detections = lesions.detections
    monkeypatch.setattr(lesions, "detections", lambda *given: counted.append(1) or detections(*given))
    config = load_config(tiny_lesions / checkpoint.CONFIG, ["training.steps=3", "training.validate_every=3"])
    cells = benchmark.plan([config], ["idrid"], [0])
    assert len(cells) == 1
    places = {"out": tmp_path / "runs", "folder": tmp_path / "records", "device": "cpu"}
    made = benchmark.run(cells, drawn_idrid, **places)
    assert [record.target for record in made] == list(TARGETS)
    assert len(counted) == 2 * 27  # of two lesions, in the variant that is the result alone
    assert set(made[0].report["further"]) == {"froc", "working_size"}
    paths = sorted(path.name for path in (tmp_path / "records" / config.name).glob("*.json"))
    assert paths == [f"idrid-{target}-seed0.json" for target in sorted(TARGETS)]
    again = []
    benchmark.run(cells, drawn_idrid, **places, on_record=lambda record, new: again.append(new))
    assert again == [False] * 3
    known = records.read_all(tmp_path / "records")
    page = results.page(known)
    for target in TARGETS:
        assert f"## `idrid`, {target.replace('_', ' ')}" in page
    assert "*published: L-Seg*" in page
    assert "would rank second in the challenge" in page
    lines = {line["target"]: line for line in results.flat(known) if line["is_result"]}
    assert lines["disc"]["iou"] == pytest.approx(made[2].report["fov"]["iou"])


def test_what_is_not_of_the_protocol_is_refused(tiny_lesions, tiny_run, drawn_idrid):
    with pytest.raises(UserError, match="finds vessels; this protocol scores microaneurysms"):
        scoring.score(tiny_run, "idrid", drawn_idrid, device="cpu")
    config = load_config(tiny_lesions / checkpoint.CONFIG)
    with pytest.raises(UserError, match="tiny-lesions learns haemorrhages, soft_exudates, disc, not vessels"):
        benchmark.plan([config], ["drive"], [0])


def test_truth_is_held_as_bits(drawn_idrid):
    row = datasets.rows("idrid_seg")[0]
    sample = datasets.load(row, drawn_idrid)
    photograph = load_photograph(row, drawn_idrid, TARGETS, Preprocess(fov_diameter=80))
    assert photograph.bits.nbytes == 4 * 104 * 128 // 8
    np.testing.assert_array_equal(photograph.truth, np.stack([sample.targets[target] for target in TARGETS]))
    assert photograph.truth.dtype == photograph.fov.dtype == bool
    assert photograph.fov.shape == (104, 128)


def test_only_the_wanted_annotations_are_read(drawn_idrid, monkeypatch):
    row = next(row for row in datasets.rows("idrid_seg") if "soft_exudates" not in row.targets)
    read = []
    original = datasets.io.read_mask
    monkeypatch.setattr(datasets.io, "read_mask", lambda path: read.append(path.name) or original(path))
    sample = datasets.load(row, drawn_idrid, ["disc", "soft_exudates"])
    assert list(sample.targets) == ["soft_exudates", "disc"]
    assert not sample.targets["soft_exudates"].any()
    assert len(read) == 1
    assert read[0].endswith("_OD.tif")
    assert set(datasets.load(row, drawn_idrid).targets) == {*datasets.LESIONS, "disc"}


def test_a_training_starts_from_a_network_of_other_targets(tiny_lesions, tiny_run, drawn_idrid, tmp_path):
    """Everything but the last layer is taken over, at another scale too, and what it has seen counts as seen."""
    settings = [f"training.start={tiny_run}", "training.steps=1", "training.warmup_steps=0", "training.ema=0"]
    settings += ["training.learning_rate=1e-9", "training.weight_decay=0", "name=other"]
    card = train.fit(
        load_config(tiny_lesions / checkpoint.CONFIG, settings), tmp_path / "run", drawn_idrid, device="cpu"
    )
    before, after = (load_file(run / checkpoint.WEIGHTS) for run in (tiny_run, tmp_path / "run"))
    differing = {key for key in after if before[key].shape != after[key].shape}
    assert differing == {"net.final_conv.weight", "net.final_conv.bias"}
    for key in set(after) - differing:
        if "running" not in key and "batches" not in key:
            torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-7)
    assert {key.partition(":")[0] for key in card.training["images"]} == {"drive", "idrid_seg"}
    wide = [*settings, "model.arguments.features=[8,4,4,4,4,4]"]
    with pytest.raises(UserError, match="does not fit"):
        train.fit(load_config(tiny_lesions / checkpoint.CONFIG, wide), tmp_path / "wide", drawn_idrid, device="cpu")
