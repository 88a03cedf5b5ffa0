import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from retina_seg import checkpoint, datasets, loop, photographs, train
from retina_seg.config import TrainingConfig, load_config
from retina_seg.errors import Interrupted, UserError
from retina_seg.inference import Segmenter
from retina_seg.losses import bce
from retina_seg.preprocess import Preprocess


def _bce(logits, batch):
    return bce(logits, batch["target"], batch["fov"])


def _weights(run):
    return load_file(run / checkpoint.WEIGHTS)


def _assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)


def test_a_run_folder_holds_everything(tiny_run, tiny_config):
    names = {path.name for path in tiny_run.iterdir()}
    assert names >= {"config.yaml", "log.jsonl", "log.csv", "state.pt", "weights.safetensors", "card.json"}
    assert load_config(tiny_run / "config.yaml") == load_config(tiny_config)
    log = checkpoint.read_log(tiny_run)
    assert [entry["step"] for entry in log] == [4, 6]
    assert {"loss", "learning_rate", "seconds", "dice", "auc"} <= set(log[0])
    with (tiny_run / "log.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["loss"]) for line in table] == [entry["loss"] for entry in log]


def test_the_card_says_where_the_weights_come_from(tiny_run):
    card = checkpoint.read_card(tiny_run / checkpoint.CARD)
    assert card.training["images"] == [f"drive:{n}" for n in range(21, 37)]
    assert card.training["threshold_images"] == [f"drive:{n}" for n in range(37, 41)]
    assert "4 validation images" in card.threshold_source
    assert card.training["config"]["training"]["steps"] == card.training["steps"] == 6
    assert 0 < card.thresholds["vessels"] < 1


def test_thresholds_come_from_training_images_where_monitor_images_are_trained_on(tiny_config, drawn_drive, tmp_path):
    config = load_config(tiny_config, ["data.fit=[train,val]", "training.steps=2"])
    card = train.fit(config, tmp_path / "run", drawn_drive, device="cpu")
    assert "20 training images" in card.threshold_source
    assert len(card.training["threshold_images"]) == 20


def test_thresholds_come_from_drawn_photographs_where_nothing_else_may_choose_them(tiny_config, drawn_drive, tmp_path):
    alone = ["data.fit=[]", "data.drawn=2", "data.threshold_on=fit", "training.steps=2"]
    card = train.fit(load_config(tiny_config, alone), tmp_path / "run", drawn_drive, device="cpu")
    assert "2 drawn photographs" in card.threshold_source
    assert card.training["threshold_images"] == []
    assert 0 < card.thresholds["vessels"] < 1


def test_resumed_equals_uninterrupted_with_dropout(tiny_config, drawn_drive, tmp_path):
    """The chances of dropout go on where they stopped."""
    config = load_config(tiny_config, ["model.arguments.dropout=0.3", "training.validate_every=2"])
    train.fit(config, tmp_path / "whole", drawn_drive, device="cpu")
    sent = []

    def stop(progress: loop.Progress) -> None:
        if progress.step == 3 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train.fit(config, tmp_path / "run", drawn_drive, device="cpu", progress=stop)
    train.fit(config, tmp_path / "run", drawn_drive, resume=True, device="cpu")
    _assert_equal_weights(_weights(tmp_path / "run"), _weights(tmp_path / "whole"))


def test_resumed_equals_uninterrupted(tiny_config, tiny_run, drawn_drive, tmp_path):
    """Stopped by a signal in the middle of an interval, then resumed: the same weights, bit for bit."""
    config, run = load_config(tiny_config), tmp_path / "run"

    def stop(progress: loop.Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=f"--resume {run} --data-root {drawn_drive}"):
        train.fit(config, run, drawn_drive, device="cpu", progress=stop)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint.load_state(run)["step"] == 3
    assert not (run / checkpoint.WEIGHTS).exists()
    card = train.fit(config, run, drawn_drive, resume=True, device="cpu")
    _assert_equal_weights(_weights(run), _weights(tiny_run))
    assert card.thresholds == checkpoint.read_card(tiny_run / checkpoint.CARD).thresholds
    for resumed, whole in zip(checkpoint.read_log(run), checkpoint.read_log(tiny_run), strict=True):
        assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}


def test_log_lines_after_the_saved_step_are_dropped(tiny_config, drawn_drive, tmp_path):
    run = tmp_path / "run"

    def stop(progress: loop.Progress) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train.fit(load_config(tiny_config), run, drawn_drive, device="cpu", progress=stop)
    with (run / checkpoint.LOG).open("a") as file:
        file.write(json.dumps({"step": 6, "loss": 0.0}) + "\n")
    train.fit(load_config(tiny_config), run, drawn_drive, resume=True, device="cpu")
    assert [entry["step"] for entry in checkpoint.read_log(run)] == [4, 6]
    assert checkpoint.read_log(run)[1]["loss"] > 0


def test_other_seeds_give_other_weights(tiny_config, tiny_run, drawn_drive, tmp_path):
    train.fit(load_config(tiny_config, ["seed=1"]), tmp_path / "run", drawn_drive, device="cpu")
    name = next(name for name in _weights(tiny_run) if name.endswith("conv.weight"))
    assert not torch.equal(_weights(tmp_path / "run")[name], _weights(tiny_run)[name])


def test_accumulated_batches_equal_a_large_batch_without_batch_statistics():
    """Two half batches give the gradient of the whole one; shown on the loop's own step with a linear network."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, 8, 8, generator=generator)
    target = (image.mean(1, keepdim=True) > 0).float()
    fov = torch.ones(4, 1, 8, 8)
    results = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        size = 4 // accumulate
        training = TrainingConfig(steps=5, batch_size=size, accumulate=accumulate, warmup_steps=0)
        accelerator = Accelerator(gradient_accumulation_steps=accumulate, cpu=True)
        trainer = loop._Training(accelerator, torch.nn.Conv2d(3, 1, 1), training, [_bce])
        parts = [
            {"image": image[i : i + size], "target": target[i : i + size], "fov": fov[i : i + size]}
            for i in range(0, 4, size)
        ]
        trainer.train_step(iter(parts))
        results.append(trainer.net.weight.detach().clone())
        AcceleratorState._reset_state(reset_partial_state=True)
    torch.testing.assert_close(results[0], results[1])


def test_learns_a_drawn_eye(tiny_config, drawn_drive, tmp_path):
    """A network that sees one photograph again and again must come to know its vessels."""
    settings = ["training.steps=120", "training.validate_every=120", "training.patch_size=96", "training.augment=none"]
    settings += ["model.arguments.features=[8,8,16,16,16,8]", "training.ema=0.9", "training.batch_size=4"]
    config = load_config(tiny_config, settings)
    train.fit(config, tmp_path / "run", drawn_drive, device="cpu")
    (entry,) = checkpoint.read_log(tmp_path / "run")
    assert entry["auc"] > 0.84
    assert entry["dice"] > 0.5


def test_bfloat16_runs_on_the_cpu(tiny_config, tiny_run, drawn_drive, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_knows_bfloat16", lambda: True)  # those that do not imitate it
    config = load_config(tiny_config, ["training.precision=bf16"])
    train.fit(config, tmp_path / "run", drawn_drive, device="cpu")
    for entry, exact in zip(checkpoint.read_log(tmp_path / "run"), checkpoint.read_log(tiny_run), strict=True):
        assert entry["loss"] == pytest.approx(exact["loss"], rel=0.05)
        assert entry["loss"] != exact["loss"]
    assert all(t.dtype != torch.bfloat16 for t in _weights(tmp_path / "run").values())
    assert checkpoint.read_card(tmp_path / "run" / checkpoint.CARD).training["precision"] == "bf16"


def test_a_cpu_without_bfloat16_computes_in_float32(tiny_config, drawn_drive, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_knows_bfloat16", lambda: False)
    for asked in ("bf16", "no"):  # both here: on another CPU `tiny_run` has another layout, and rounds otherwise
        config = load_config(tiny_config, [f"training.precision={asked}"])
        train.fit(config, tmp_path / asked, drawn_drive, device="cpu")
        assert checkpoint.read_card(tmp_path / asked / checkpoint.CARD).training["precision"] == "no"
    same = _weights(tmp_path / "no")
    assert all(torch.equal(value, same[name]) for name, value in _weights(tmp_path / "bf16").items())


def test_a_gpu_is_asked_for_what_the_configuration_says():
    assert [loop.computed_in(name, "cuda") for name in ("no", "bf16", "fp16")] == ["no", "bf16", "fp16"]


def test_two_processes_train_together(tiny_config, drawn_drive, tmp_path):
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "retina_seg.cli"]
    call += ["train", tiny_config, "--out", tmp_path / "run", "--data-root", drawn_drive, "--device", "cpu"]
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("card.json") == 1
    card = checkpoint.read_card(tmp_path / "run" / checkpoint.CARD)
    assert card.training["processes"] == 2
    assert [entry["step"] for entry in checkpoint.read_log(tmp_path / "run")] == [4, 6]


def test_learning_rate_warms_up_and_falls():
    training = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [loop.learning_rate(training, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (9, 10)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0.01 <= rates[-1] < 0.02


STAGES = "training.stages=[{steps: 3}, {steps: 4, patch_size: image, batch_size: 1, learning_rate: 0.001, loss: dice}]"


@pytest.fixture(scope="module")
def staged(tiny_config, drawn_drive, tmp_path_factory):
    """A finished run of two stages, and its config."""
    config = load_config(tiny_config, [STAGES, "training.steps=7"])
    run = tmp_path_factory.mktemp("staged") / "run"
    train.fit(config, run, drawn_drive, device="cpu")
    return run, config


def test_stages_have_their_own_losses_and_rates(staged):
    log = checkpoint.read_log(staged[0])
    assert [entry["step"] for entry in log] == [3, 4, 7]
    assert log[1]["learning_rate"] <= 0.001 < log[0]["learning_rate"] * 100
    assert checkpoint.read_card(staged[0] / checkpoint.CARD).training["steps"] == 7


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_training_resumes_within_and_between_stages(staged, drawn_drive, tmp_path, at):
    run, config = tmp_path / "run", staged[1]
    sent = []

    def stop(progress: loop.Progress) -> None:
        if progress.step == at and not sent:
            sent.append(at)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train.fit(config, run, drawn_drive, device="cpu", progress=stop)
    assert checkpoint.load_state(run)["step"] == at
    train.fit(config, run, drawn_drive, resume=True, device="cpu")
    _assert_equal_weights(_weights(run), _weights(staged[0]))


@pytest.mark.parametrize("name", loop.OPTIMISERS)
def test_every_optimiser_walks_downhill(name):
    """On a convex loss (one 1 x 1 convolution, cross-entropy) each must get lower; the first step of SGD by hand."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, 8, 8, generator=generator)
    batch = {"image": image, "target": (image.mean(1, keepdim=True) > 0).float(), "fov": torch.ones(4, 1, 8, 8)}
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 1, 1)
    training = TrainingConfig(
        steps=30, optimiser=name, warmup_steps=0, learning_rate=0.05, weight_decay=0, clip=1e9, ema=0
    )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    prob = torch.sigmoid(net(image))
    gradient = ((prob - batch["target"]) * image).mean(dim=(0, 2, 3)).detach()  # of cross-entropy, by hand
    trainer = loop._Training(Accelerator(cpu=True), net, training, [_bce])
    losses = []
    for _ in range(20):
        trainer.clear_loss()
        trainer.train_step(iter([batch]))
        losses.append(trainer.mean_loss)
        if name == "sgd" and len(losses) == 1:
            torch.testing.assert_close(net.weight.detach()[0, :, 0, 0], before["weight"][0, :, 0, 0] - 0.05 * gradient)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[-1] < losses[0]
    assert all(a > b for a, b in itertools.pairwise(losses[:8]))


def test_full_batch_gradient_descent_sees_every_photograph_in_every_step(tiny_config, drawn_drive, tmp_path):
    """Two runs with other seeds and no augmentation follow the same path, whatever the order of the photographs."""
    settings = ["training.optimiser=sgd", "training.patch_size=image", "training.augment=none", "training.steps=2"]
    settings += ["training.batch_size=16", "training.validate_every=1", "training.warmup_steps=0", "training.ema=0"]
    losses = []
    for name, more in (("a", []), ("b", ["training.batch_size=8", "training.accumulate=2"])):
        train.fit(load_config(tiny_config, settings + more), tmp_path / name, drawn_drive, device="cpu")
        losses.append([entry["loss"] for entry in checkpoint.read_log(tmp_path / name)])
    # Batch norm sees 16 photographs at once or 8; all else is equal.
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_training_starts_from_another_run(tiny_config, tiny_run, drawn_drive, tmp_path):
    settings = [f"training.start={tiny_run}", "training.steps=1", "training.warmup_steps=0", "training.ema=0"]
    settings += ["training.learning_rate=1e-9", "training.weight_decay=0"]
    card = train.fit(load_config(tiny_config, settings), tmp_path / "run", drawn_drive, device="cpu")
    for name, tensor in _weights(tmp_path / "run").items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(tensor, _weights(tiny_run)[name], rtol=0, atol=1e-7)
    assert card.training["learnt_from"][0]["name"] == "tiny"
    wide = load_config(tiny_config, [*settings, "model.arguments.features=[8,4,4,4,4,4]"])
    with pytest.raises(UserError, match="does not fit"):
        train.fit(wide, tmp_path / "wide", drawn_drive, device="cpu")
    assert not (tmp_path / "wide").exists()


def test_teachers_colour_the_truth(tiny_config, tiny_run, drawn_drive, tmp_path):
    """Without a say of the truth the target is what the teacher sees, and its photographs count as seen."""
    from retina_seg.config import DataConfig

    row = photographs.rows_of(["drive"], ["val"])[0]
    photograph = photographs.load_photograph(row, drawn_drive, ("vessels",), Preprocess())
    teacher = Segmenter.from_pretrained(tiny_run, "cpu", flips=True)
    prob = teacher.predict(datasets.load(row, drawn_drive).image, photograph.fov).prob[0]
    y0, x0, y1, x1 = photograph.prepared.geometry.box
    for weight in (0.0, 0.25):
        data = DataConfig(protocols=("drive",), teachers=(str(tiny_run),), truth_weight=weight)
        taught = train._taught(photograph.for_patches(), photograph, [teacher, teacher], data, drawn_drive)
        expected = weight * photograph.truth[0, y0:y1, x0:x1] + (1 - weight) * prob[y0:y1, x0:x1]
        np.testing.assert_allclose(taught.target[0], expected, atol=1e-6)
    settings = [f"data.teachers=[{tiny_run}]", "data.fit=[val]", "training.steps=2"]
    card = train.fit(load_config(tiny_config, settings), tmp_path / "run", drawn_drive, device="cpu")
    assert set(card.training["images"]) == {f"drive:{n}" for n in range(21, 41)}


def test_drawn_photographs_train_alone_or_beside_others(tiny_config, drawn_drive, tmp_path):
    alone = load_config(tiny_config, ["data.fit=[]", "data.drawn=2", "training.steps=2"])
    card = train.fit(alone, tmp_path / "alone", drawn_drive, device="cpu")
    assert card.training["images"] == []
    assert card.training["drawn"] == 2
    assert "4 validation images" in card.threshold_source
    with pytest.raises(UserError, match="nothing would be trained on"):
        load_config(tiny_config, ["data.fit=[]"])


def test_a_stage_begins_with_a_fresh_optimiser(staged, drawn_drive, tmp_path):
    """The moments of AdamW count their steps: behind the second stage those of the second stage only."""
    seen = {}

    class Watched(loop._Training):
        def train_step(self, batches):
            super().train_step(batches)
            seen[self.step] = int(next(iter(self.optimiser.state.values()))["step"])
            assert len(self.accelerator._optimizers) == 1  # a second one would unscale half-precision gradients twice

    original, loop._Training = loop._Training, Watched
    try:
        train.fit(staged[1], tmp_path / "run", drawn_drive, device="cpu")
    finally:
        loop._Training = original
    assert seen == {1: 1, 2: 2, 3: 3, 4: 1, 5: 2, 6: 3, 7: 4}


def test_a_model_of_unknown_past_stays_unknown(tiny_config, tiny_run, drawn_drive, tmp_path):
    from retina_seg import scoring

    silent = shutil.copytree(tiny_run, tmp_path / "silent")
    card = checkpoint.read_card(silent / checkpoint.CARD)
    checkpoint.write_card(card.model_copy(update={"training": {"steps": 6}}), silent / checkpoint.CARD)
    settings = [f"training.start={silent}", "training.steps=2"]
    started = train.fit(load_config(tiny_config, settings), tmp_path / "run", drawn_drive, device="cpu")
    assert scoring.seen_images(started) is None
    assert scoring.seen_images(card) is not None


def test_a_teacher_must_not_change_under_a_training(tiny_config, tiny_run, staged, drawn_drive, tmp_path):
    teacher = shutil.copytree(tiny_run, tmp_path / "teacher")
    config, run = load_config(tiny_config, [f"data.teachers=[{teacher}]"]), tmp_path / "run"

    def stop(progress: loop.Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train.fit(config, run, drawn_drive, device="cpu", progress=stop)
    shutil.rmtree(teacher)
    shutil.copytree(staged[0], teacher)
    with pytest.raises(UserError, match="other weights than when it was begun"):
        train.fit(config, run, drawn_drive, resume=True, device="cpu")


def test_a_start_must_read_the_same_photographs(tiny_config, tiny_run, drawn_drive, tmp_path):
    config = load_config(tiny_config, [f"training.start={tiny_run}", "preprocess.clahe=true"])
    with pytest.raises(UserError, match="make colour, clahe and local_contrast the same"):
        train.fit(config, tmp_path / "run", drawn_drive, device="cpu")


def test_thresholds_can_be_left_to_the_training_images(tiny_config, drawn_drive, tmp_path):
    config = load_config(tiny_config, ["data.threshold_on=fit", "training.steps=2"])
    card = train.fit(config, tmp_path / "run", drawn_drive, device="cpu")
    assert "16 training images" in card.threshold_source
    assert card.training["threshold_images"] == card.training["images"]


def test_one_pixel_has_no_standard_deviation(tiny_config, drawn_drive, tmp_path):
    settings = ["model={name: folded_unet, arguments: {width: 4}}", "training.batch_size=1"]
    with pytest.raises(UserError, match=r"raise training\.batch_size, or the size"):
        train.fit(load_config(tiny_config, settings), tmp_path / "run", drawn_drive, device="cpu")
    # Nothing was saved, so the folder is free.
    train.fit(load_config(tiny_config, ["training.steps=2"]), tmp_path / "run", drawn_drive, device="cpu")


def test_moving_average_by_hand():
    update = loop._moving_average(0.5)
    average, count = [torch.tensor([0.0]), torch.tensor([0])], torch.tensor(100)
    for value in (1.0, 3.0):
        update(average, [torch.tensor([value]), torch.tensor([7])], count)
    assert average[0].item() == pytest.approx(0.5 * (0.5 * 1) + 0.5 * 3)
    assert average[1].item() == 7


def test_a_run_is_never_overwritten(tiny_config, tiny_run, drawn_drive):
    with pytest.raises(UserError, match="already holds a run"):
        train.fit(load_config(tiny_config), tiny_run, drawn_drive, device="cpu")


def test_a_finished_run_is_not_resumed(tiny_config, tiny_run, drawn_drive):
    with pytest.raises(UserError, match="is finished"):
        train.fit(load_config(tiny_config), tiny_run, drawn_drive, resume=True, device="cpu")


def test_a_run_is_trained_by_one_process_at_a_time(tiny_config, drawn_drive, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / checkpoint.LOCK), pytest.raises(UserError, match="another process"):
        train.fit(load_config(tiny_config), tmp_path / "run", drawn_drive, device="cpu")
    train.fit(load_config(tiny_config), tmp_path / "run", drawn_drive, device="cpu")


def test_few_photographs_are_among_more_and_the_threshold_is_theirs(tiny_config, drawn_drive, tmp_path):
    images = {}
    for seed, count in ((0, 1), (0, 3), (1, 3)):
        settings = [f"data.photographs={count}", f"seed={seed}", "data.threshold_on=fit", "training.steps=2"]
        run = tmp_path / f"{seed}-{count}"
        card = train.fit(load_config(tiny_config, settings), run, drawn_drive, device="cpu")
        images[seed, count] = card.training["images"]
        assert card.training["threshold_images"] == card.training["images"]
        assert len(card.training["images"]) == count
    assert set(images[0, 1]) < set(images[0, 3])
    assert images[0, 3] != images[1, 3]
    with pytest.raises(UserError, match=r"data\.photographs is 17, but only 16 are in data\.fit"):
        train.fit(load_config(tiny_config, ["data.photographs=17"]), tmp_path / "run", drawn_drive, device="cpu")


def test_a_setting_that_is_younger_than_the_run_does_not_stop_it(tiny_config, tiny_run, drawn_drive, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for name in (checkpoint.CARD, checkpoint.WEIGHTS):
        (run / name).unlink()
    state = checkpoint.load_state(run)
    assert "  local_contrast: null\n" in state["config"]
    checkpoint.save_state({**state, "config": state["config"].replace("  local_contrast: null\n", "")}, run)
    train.fit(load_config(tiny_config), run, drawn_drive, resume=True, device="cpu")
    _assert_equal_weights(_weights(run), _weights(tiny_run))


def test_resuming_another_config_is_refused(tiny_config, tiny_run, drawn_drive):
    with pytest.raises(UserError, match="another configuration"):
        train.fit(load_config(tiny_config, ["seed=3"]), tiny_run, drawn_drive, resume=True, device="cpu")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.protocols=[drove]", "unknown protocol"),
        ("data.targets=[veins]", "no annotation of veins"),
        ("training.loss=hinge", "unknown loss"),
        ("training.precision=fp16", "needs a GPU: use bf16 or no"),
        ("training.augment=strong", "unknown augmentation"),
        ("model.arguments.width=3", "no argument width"),
    ],
)
def test_bad_settings_leave_no_run(tiny_config, drawn_drive, tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        train.fit(load_config(tiny_config, [override]), tmp_path / "run", drawn_drive, device="cpu")
    assert not (tmp_path / "run" / checkpoint.CONFIG).exists()


def test_unknown_devices_leave_no_run(tiny_config, drawn_drive, tmp_path):
    with pytest.raises(UserError, match="auto, cpu, cuda"):
        train.fit(load_config(tiny_config), tmp_path / "run", drawn_drive, device="tpu")
    assert not (tmp_path / "run").exists()


def test_missing_data_leaves_no_run(tiny_config, tmp_path):
    with pytest.raises(UserError, match="DRIVE"):
        train.fit(load_config(tiny_config), tmp_path / "run", tmp_path, device="cpu")
    assert not (tmp_path / "run").exists()


def test_validation_scores_the_untouched_truth(tiny_run, drawn_drive):
    """The loop's pooled scores equal those of the public path from file to mask."""
    from retina_seg import metrics

    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    rows = photographs.rows_of(["drive"], ["val"])
    loaded = [photographs.load_photograph(row, drawn_drive, ("vessels",), Preprocess()) for row in rows]
    scores = train.validate(segmenter.net, loaded, ("vessels",), "cpu")
    prob, truth = [], []
    for row in rows:
        sample = datasets.load(row, drawn_drive)
        prediction = segmenter.predict(sample.image, sample.fov)
        prob.append(prediction.prob[0][sample.fov])
        truth.append(sample.targets["vessels"][sample.fov])
    prob, truth = np.concatenate(prob), np.concatenate(truth)
    assert scores["dice"] == pytest.approx(metrics.dice(prob >= 0.5, truth), abs=1e-9)
    assert scores["auc"] == metrics.auc_from_histogram(metrics.score_histogram(prob, truth))


def test_the_prevalence_is_that_of_the_field_of_view():
    from retina_seg.patches import TrainingImage
    from retina_seg.train import _prevalence

    fov = np.zeros((10, 10), bool)
    fov[:, :5] = True
    target = np.zeros((2, 10, 10), bool)
    target[0, 0, :] = True  # five of its ten pixels are inside
    image = np.zeros((3, 10, 10), np.float32)
    whole = TrainingImage(image, np.ones((2, 10, 10), np.float32), fov)
    assert _prevalence([TrainingImage(image, target, fov)]) == [0.1, 0.0]
    assert _prevalence([TrainingImage(image, target, fov), whole]) == [0.55, 0.5]


def test_early_stopping_keeps_the_best_weights_and_survives_an_interruption(
    tiny_config, drawn_drive, tmp_path, monkeypatch
):
    """Of scripted scores .5 .7 .6 nan the second is best: with a patience of 2 the training ends at the fourth."""
    settings = ["training.steps=12", "training.validate_every=2", "training.patience=2"]
    scripted, seen = {2: 0.5, 4: 0.7, 6: 0.6, 8: float("nan"), 10: 0.9, 12: 0.9}, {}

    def validate(net, *_):
        step = 2 * (len(seen) + 1)
        seen[step] = {key: value.clone() for key, value in net.state_dict().items()}
        return {"ap": scripted[step], "dice": 0.0, "auc": 0.0}

    def stop(progress: loop.Progress) -> None:
        if progress.step == 7 and not progress.phase:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "validate", validate)
    config = load_config(tiny_config, settings)
    with pytest.raises(Interrupted):
        train.fit(config, tmp_path / "run", drawn_drive, device="cpu", progress=stop)
    card = train.fit(config, tmp_path / "run", drawn_drive, resume=True, device="cpu")
    assert card.training["steps"] == 8
    for key, value in _weights(tmp_path / "run").items():
        torch.testing.assert_close(value, seen[4][key], rtol=0, atol=0)
    assert any(not torch.equal(seen[4][key], seen[8][key]) for key in seen[8])


def test_a_full_disk_is_told_with_what_is_kept(tiny_config, drawn_drive, tmp_path, monkeypatch):
    saved, whole = [], torch.save

    def fills_up(state, path):
        if saved:
            Path(path).write_bytes(b"half")
            raise RuntimeError("unexpected pos 64 vs 0")  # as PyTorch's writer says
        saved.append(whole(state, path))

    monkeypatch.setattr(checkpoint.torch, "save", fills_up)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"disk is full.*kept up to step 4.*--resume"):
        train.fit(load_config(tiny_config), run, drawn_drive, device="cpu")
    monkeypatch.undo()
    assert not [path for path in run.iterdir() if ".part" in path.name]
    card = train.fit(load_config(tiny_config), run, drawn_drive, device="cpu", resume=True)
    assert card.training["steps"] == 6


def test_of_two_trainings_begun_at_once_one_finds_the_other(tiny_config, tiny_run, drawn_drive, tmp_path, monkeypatch):
    run, prepare = tmp_path / "run", train._Segmentation.prepare

    def prepares_slowly(task, say, *, fresh):
        shutil.copytree(tiny_run, run)  # while it reads, another training begins and ends in the folder
        prepare(task, say, fresh=fresh)

    monkeypatch.setattr(train._Segmentation, "prepare", prepares_slowly)
    with pytest.raises(UserError, match="already holds a run"):
        train.fit(load_config(tiny_config, ["seed=5"]), run, drawn_drive, device="cpu")
    for path in tiny_run.iterdir():
        if path.is_file():
            assert (run / path.name).read_bytes() == path.read_bytes()


def test_what_a_killed_training_left_is_removed(tiny_config, drawn_drive, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / checkpoint.LOCK).touch()
    left = run / f".retina_seg-{'a' * 16}.part.pt"
    left.write_bytes(b"half")
    train.fit(load_config(tiny_config), run, drawn_drive, device="cpu")
    assert not left.exists()


def test_labels_that_differ_from_the_release_are_told_at_once_and_on_the_card(tiny_config, drawn_drive, tmp_path):
    said = []
    card = train.fit(
        load_config(tiny_config), tmp_path / "run", drawn_drive, device="cpu", progress=lambda p: said.append(p)
    )
    (warning,) = [(now.step, now.warning) for now in said if now.warning]
    assert warning[0] == 0
    assert warning[1].startswith("files differ from the release in the manifest: drive:")
    assert {one.split()[0] for one in card.training["differing"]} >= set(card.training["images"])
    assert {one.split()[1] for one in card.training["differing"]} >= {"image", "vessels"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.batch_size=65536", "this computer has"),
        ("model.arguments.features=[4096,4096,4096,4096,4096,4096]", "of weights"),
    ],
)
def test_a_training_that_no_memory_can_hold_is_refused_before_it_takes_any(
    tiny_config, tmp_path, monkeypatch, change, words
):
    monkeypatch.setattr(loop.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}.__getitem__)  # 8 GB
    sizes = ["training.patch_size=512"]
    with pytest.raises(UserError, match=words):
        train.fit(load_config(tiny_config, [change, *sizes]), tmp_path / "run", tmp_path, device="cpu")
    assert not (tmp_path / "run").exists()


HARMED = {
    "weights": lambda state: state["net"].update({next(iter(state["net"])): torch.zeros(2)}),
    "moments": lambda state: next(iter(state["optimiser"]["state"].values())).update(exp_avg=torch.zeros(3)),
    "no moments": lambda state: next(iter(state["optimiser"]["state"].values())).pop("exp_avg"),
    "no optimiser": lambda state: state["optimiser"].clear(),
    "average": lambda state: state["averaged"].update(n_averaged=torch.tensor(-10)),
    "chance": lambda state: state.update(random=torch.zeros(3)),
    "step": lambda state: state.update(step=7),
}


@pytest.mark.parametrize("kind", HARMED)
def test_a_state_that_fits_no_network_is_a_sentence(tiny_config, drawn_drive, tmp_path, kind):
    run = tmp_path / "run"

    def stop(now):
        if now.step > 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train.fit(load_config(tiny_config), run, drawn_drive, device="cpu", progress=stop)
    state = torch.load(run / checkpoint.STATE, weights_only=True)
    HARMED[kind](state)
    torch.save(state, run / checkpoint.STATE)
    with pytest.raises(UserError, match=r"state\.pt does not fit the configuration beside it"):
        train.fit(load_config(tiny_config), run, drawn_drive, device="cpu", resume=True)
