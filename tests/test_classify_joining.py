"""Graders of several folds joined: the mean of what the members say, as sure as they are right on what is new."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from retina_seg import checkpoint
from retina_seg.classify import evaluation, inference, joining, outputs, tasks, training
from retina_seg.classify.config import ClassifyConfig
from retina_seg.classify.inference import Classifier
from retina_seg.cli import app
from retina_seg.errors import UserError

FOLDS = 5
MODEL = {
    "name": "lesion_grader",
    "arguments": {"grid": 8, "features": 4, "targets": 2, "arguments": {"width": 4}, "dropout": 0.0},
}
STEPS = {"steps": 6, "batch_size": 16, "learning_rate": 0.01, "validate_every": 6, "warmup_steps": 1}


def _config(**changes: object) -> ClassifyConfig:
    tree = {"name": "grades", "data": {"task": "digits", "size": 32}, "model": MODEL, "training": STEPS}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        tree[part] = {**tree[part], name: value} if name else value
    return ClassifyConfig.model_validate(tree)


@pytest.fixture(autouse=True, scope="module")
def _folds_of_watched_digits():
    """A task without files whose folds are taken for those of IDRiD's grades."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "digits", replace(tasks.TASKS["digits"], watched_folds=True))
        yield


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A run whose body, which has seen a few digits, goes on unchanged."""
    run = tmp_path_factory.mktemp("body") / "run"
    training.fit(_config(data__share=0.02), run, run, device="cpu")
    return run


@pytest.fixture(scope="module")
def frozen(body):
    return _config(training={**STEPS, "start": str(body), "frozen": True})


@pytest.fixture(scope="module")
def joined(tmp_path_factory, frozen):
    folder = tmp_path_factory.mktemp("joined")
    seen = []
    original = training.outputs

    def counted(net, part, device):
        if part.images[0].shape == (1, 32, 32):
            seen.extend(part.keys)
        return original(net, part, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "outputs", counted)
        joining.fit_folds(frozen, folder / "run", folder, device="cpu")
    return folder / "run", seen


def test_the_joined_grader_says_the_mean_of_its_members(joined):
    run, _ = joined
    both = Classifier.from_pretrained(run, "cpu")
    members = [Classifier.from_pretrained(run / f"fold{fold}", "cpu") for fold in range(1, FOLDS + 1)]
    digits = np.random.default_rng(0).random((3, 1, 32, 32)).astype(np.float32)
    said = [member.outputs(digits) for member in members]
    np.testing.assert_allclose(both.outputs(digits), np.mean(said, axis=0), atol=1e-5)
    assert np.std(said, axis=0).min() > 1e-5  # each has learnt something of its own
    assert [member.card.training["config"]["data"]["fold"] for member in members] == [1, 2, 3, 4, 5]
    assert both.card.parameters == sum(one.numel() for one in both.net.parameters())
    assert both.card.name == both.card.training["config"]["name"] == "grades"


def test_the_body_looks_at_every_example_once(joined):
    _, seen = joined
    assert len(seen) == len(set(seen)) > 1500


def test_temperatures_are_chosen_on_what_each_member_has_not_learnt_from(joined):
    run, _ = joined
    card = inference.card_of(run)
    said, truth, keys = [], [], []
    for fold in range(1, FOLDS + 1):
        member = Classifier.from_pretrained(run / f"fold{fold}", "cpu")
        part = tasks.load("digits", tasks.Wanted(size=32, fold=fold)).val
        new = [i for i, key in enumerate(part.keys) if key not in member.card.training["images"]]
        part = part.take(np.array(new))
        said.append(member.outputs(np.stack([part.images[i] for i in range(len(part))])))
        truth += part.labels[:, 0].tolist()
        keys += part.keys
    expected = training.temperature(torch.from_numpy(np.concatenate(said)), outputs.SOFTMAX, np.array(truth))
    assert card.temperatures == {"digit": pytest.approx(expected, abs=2e-3)}
    assert f"{len(truth)} validation examples of 5 folds" in card.temperature_source
    assert set(keys) <= set(card.training["watched_images"])
    members = [inference.card_of(run / f"fold{fold}") for fold in range(1, FOLDS + 1)]
    assert set(card.training["images"]) == {key for member in members for key in member.training["images"]}
    assert [one["weights_sha256"] for one in card.training["members"]] == [one.weights_sha256 for one in members]


def test_the_joined_grader_is_scored_and_what_it_has_seen_is_known(joined):
    run, _ = joined
    scored = evaluation.evaluate(run, run, device="cpu")
    assert len(scored.leaked) == scored.n_examples  # digits of one fold are learnt from in the others


def test_finished_folds_stay_and_an_unfinished_one_goes_on(joined, frozen, tmp_path):
    run, _ = joined
    again = tmp_path / "run"
    for fold in (1, 2, 3, 4, 5):
        shutil.copytree(run / f"fold{fold}", again / f"fold{fold}")
    for name in (checkpoint.CARD, checkpoint.WEIGHTS):
        (again / "fold4" / name).unlink()  # stopped before its end
    before = (again / "fold1" / checkpoint.WEIGHTS).stat().st_mtime_ns
    steps = []
    joining.fit_folds(frozen, again, tmp_path, device="cpu", progress=lambda fold, p: steps.append((fold, p.step)))
    assert {fold for fold, _ in steps} <= {4}
    assert (again / "fold1" / checkpoint.WEIGHTS).stat().st_mtime_ns == before
    one, other = (load_file(folder / checkpoint.WEIGHTS) for folder in (run, again))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_command_trains_the_folds(body, frozen, joined, tmp_path):
    path = tmp_path / "grades.yaml"
    path.write_text(yaml.safe_dump(frozen.model_dump(mode="json")))
    for fold in range(1, FOLDS + 1):
        shutil.copytree(joined[0] / f"fold{fold}", tmp_path / "run" / f"fold{fold}")
    command = ["classify", "train-folds", str(path), "--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "validation examples of 5 folds" in result.output
    assert (tmp_path / "run" / checkpoint.WEIGHTS).is_file()
    assert "already holds a run" in str(CliRunner().invoke(app, command).exception)
    other = CliRunner().invoke(app, [*command[:4], str(tmp_path / "run2"), "--set", "seed=1", "--device", "cpu"])
    assert other.exit_code == 0, other.output
    shutil.rmtree(tmp_path / "run2" / "fold1")
    for path in (tmp_path / "run2").glob("*.*"):
        path.unlink()
    mixed = CliRunner().invoke(app, [*command[:4], str(tmp_path / "run2"), "--device", "cpu"])
    assert "fold2 was trained by another configuration" in str(mixed.exception)


def test_what_cannot_be_joined_is_refused(body, frozen, joined, tmp_path):
    runs = [joined[0] / f"fold{fold}" for fold in (1, 2)]
    with pytest.raises(UserError, match="two runs or more, got 1"):
        joining.join(runs[:1], tmp_path / "one", tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        joining.join(runs, joined[0], tmp_path)
    with pytest.raises(UserError, match="same weights"):
        joining.join([runs[0], runs[0]], tmp_path / "one", tmp_path)
    other = shutil.copytree(runs[1], tmp_path / "other")
    weights = load_file(other / checkpoint.WEIGHTS)
    name = next(key for key in weights if key.startswith("body."))
    save_file({**weights, name: weights[name] + 1}, other / checkpoint.WEIGHTS)
    card = inference.card_of(other)
    checkpoint.save_model(
        Classifier(inference.build(card), card, "cpu").net, card, other / checkpoint.WEIGHTS, other / checkpoint.CARD
    )
    with pytest.raises(UserError, match="has another body"):
        joining.join([runs[0], other], tmp_path / "one", tmp_path)
    checkpoint.write_card(inference.card_of(runs[1]).model_copy(update={"task": "digits-320"}), other / checkpoint.CARD)
    shutil.copy(runs[1] / checkpoint.WEIGHTS, other / checkpoint.WEIGHTS)
    with pytest.raises(UserError, match=r"differs from .* in its task"):
        joining.join([runs[0], other], tmp_path / "one", tmp_path)
    with pytest.raises(UserError, match=r"with training.frozen are joined"):
        joining.fit_folds(_config(), tmp_path / "one", tmp_path)
    with pytest.raises(UserError, match="iris has no folds"):
        joining.fit_folds(_config(data={"task": "iris"}), tmp_path / "one", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "digits", replace(tasks.TASKS["digits"], watched_folds=False))
        with pytest.raises(UserError, match="digits has no folds of validation"):  # its folds are of test digits
            joining.fit_folds(frozen, tmp_path / "one", tmp_path)
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="in one process"):
            joining.fit_folds(frozen, tmp_path / "one", tmp_path)
    several = frozen.model.model_copy(update={"arguments": {**MODEL["arguments"], "readers": 2}})
    with pytest.raises(UserError, match="readers: the folds make the readers"):
        joining.fit_folds(frozen.model_copy(update={"model": several}), tmp_path / "one", tmp_path)
    both = frozen.data.model_copy(update={"fit": ["train", "val"]})
    with pytest.raises(UserError, match=r"data.fit holds val"):
        joining.fit_folds(frozen.model_copy(update={"data": both}), tmp_path / "one", tmp_path)
    with pytest.raises(UserError, match="is joined already"):
        joining.join([joined[0], joined[0]], tmp_path / "one", tmp_path)
    assert not (tmp_path / "one").exists()


def test_folds_of_another_body_are_found_before_anything_is_trained(body, frozen, joined, tmp_path):
    run = shutil.copytree(joined[0] / "fold2", tmp_path / "run" / "fold2")
    card = inference.card_of(run)
    owed = [{**card.training["learnt_from"][0], "weights_sha256": "0" * 64}]
    training_ = {**card.training, "learnt_from": owed}
    checkpoint.write_card(card.model_copy(update={"training": training_}), run / checkpoint.CARD)
    with pytest.raises(UserError, match="fold2 was trained by another configuration or body"):
        joining.fit_folds(frozen, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run" / "fold1").exists()


def test_values_have_no_temperature(body, tmp_path):
    config = _config(training={**STEPS, "start": str(body), "frozen": True, "loss": "least_squares"})
    card = joining.fit_folds(config, tmp_path / "run", tmp_path, device="cpu")
    assert (card.temperatures, card.temperature_source) == ({}, "")


def test_a_grader_needs_a_reader():
    with pytest.raises(UserError, match="readers is 0, at least 1 is needed"):
        inference.build_model("lesion_grader", (1, 32, 32), 6, arguments={**MODEL["arguments"], "readers": 0})
    with pytest.raises(UserError, match="grid is 4, at least 8 is needed"):
        inference.build_model("lesion_grader", (1, 32, 32), 6, arguments={**MODEL["arguments"], "grid": 4})
