"""The training loop: fit, one interval of steps, one validation. Plain PyTorch on Hugging Face accelerate.

Reads no command line and draws nothing; the run folder it fills is described at `fit`.
"""

import contextlib
import math
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retina_seg import checkpoint, datasets, io, metrics, preprocess, zoo
from retina_seg._version import __version__
from retina_seg.checkpoint import CONFIG, Card, CardInference, CardModel, RunLog
from retina_seg.config import Config, DataConfig, TrainingConfig
from retina_seg.errors import Interrupted, UserError
from retina_seg.inference import Segmenter, choose_device, predict_probability
from retina_seg.losses import get_loss
from retina_seg.manifest import Row
from retina_seg.models import Begins, OwnLoss, build_model, count_parameters
from retina_seg.patches import PatchDataset, TrainingImage, loader
from retina_seg.photographs import Photograph, drawn_image, load_photograph, rows_of
from retina_seg.preprocess import Preprocess

LOCK = ".lock"
_SEEDS_A_STAGE = 100_003  # so that no stage of any usual seed sees the patches of another
# Full-batch gradient descent is `sgd` on whole photographs with batch_size times accumulate of them all.
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class Progress:
    """Where a training stands: `step` of `steps`, the smoothed loss, and the newest validation or {}."""

    step: int
    steps: int
    loss: float
    validation: dict[str, float]
    phase: str = ""

    def describe(self) -> str:
        """Loss and validation scores in a few words, or what follows the last step."""
        if self.phase:
            return self.phase
        return " ".join([f"loss {self.loss:.4f}", *(f"{k} {v:.4f}" for k, v in self.validation.items())])


def fit(
    config: Config,
    run: Path,
    data_root: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Card:
    """Train a network and leave everything about it in the folder `run`.

    The folder gets config.yaml (resolved), log.jsonl and log.csv (one line an interval), state.pt (to resume),
    weights.safetensors (averaged weights) and card.json. Interrupting (Ctrl-C, SIGTERM) saves the state.

    Parameters
    ----------
    resume : go on from state.pt in `run`, whose result equals that of an uninterrupted run.
    device : "auto", "cpu" or "cuda"; several GPUs and machines come with `accelerate launch`.

    Raises
    ------
    UserError
        For unknown names in the config, missing data, a folder that already holds a run, or a state of
        another config.
    Interrupted
        After a signal; the state is saved.
    """
    if config.track and find_spec("tensorboard") is None:
        raise UserError("track: tensorboard is not installed; install it with: pip install 'retina-seg[track]'")
    choose_device(device)
    settings = Preprocess(**config.preprocess.model_dump())
    net, earlier = _seeded_network(config, settings, pretrained=not resume)
    teachers = [Segmenter.from_pretrained(name, device, flips=True) for name in config.data.teachers]
    _check_teachers(teachers, config.data.targets)
    fit_rows = _few(rows_of(config.data.protocols, config.data.fit), config) if config.data.fit else []
    monitor_rows = rows_of(config.data.protocols, config.data.monitor)
    state = checkpoint.load_state(run) if resume else None
    owed = [*earlier, *(teacher.card for teacher in teachers)]
    _check_run(run, config, state, owed)

    accelerator = Accelerator(
        mixed_precision=config.training.precision,
        gradient_accumulation_steps=config.training.accumulate,
        cpu=device == "cpu",
        log_with=list(config.track) or None,
        project_dir=run,
    )
    lock = FileLock(run / LOCK, timeout=0)
    try:
        accelerator.wait_for_everyone()  # all have seen an empty folder before the first one writes to it
        fit_set, monitor_set = _photographs((fit_rows, monitor_rows), data_root, config.data.targets, settings)
        images = [photograph.for_patches() for photograph in fit_set]
        if teachers:
            images = [
                _taught(image, photograph, teachers, config.data, data_root)
                for image, photograph in zip(images, fit_set, strict=True)
            ]
        images += [drawn_image(number, config.data.targets, settings) for number in range(config.data.drawn)]
        if isinstance(net, Begins) and state is None and not config.training.start:
            if progress is not None and accelerator.is_main_process:
                progress(Progress(0, config.training.steps, 0.0, {}, "learning the dictionary"))
            whole = [tuple(map(torch.from_numpy, (one.image, one.target, one.fov))) for one in images]
            net.begin(whole, config.seed)
        trainer = _Training(accelerator, net, config.training, _prevalence(images))
        data = [
            PatchDataset(
                images,
                size=stage.patch_size,
                augment=stage.augment,
                on_target=stage.on_target,
                length=stage.steps * trainer.patches_a_step(stage),
                seed=config.seed + _SEEDS_A_STAGE * number,
            )
            for number, stage in enumerate(trainer.stages)
        ]
        if accelerator.is_main_process:
            _acquire(lock, run)
            io.write_text(run / CONFIG, config.to_yaml())
        if state is not None:
            trainer.load(state)
        log = RunLog(run, trainer.step, enabled=accelerator.is_main_process)
        if config.track:
            accelerator.init_trackers("tensorboard")
        with _stop_signal() as trainer.stop_asked:
            identity = {"config": config.to_yaml(), "learnt_from": _debts(owed)}
            _run(trainer, config, data, monitor_set, log, run, identity, progress)
        accelerator.wait_for_everyone()
        if progress is not None and accelerator.is_main_process:
            progress(Progress(trainer.step, trainer.step, 0.0, {}, "choosing the threshold"))
        card = _card(config, settings, trainer, fit_set, monitor_set)
        card = _with_debts(card, owed)
        if accelerator.is_main_process:
            card = checkpoint.save_model(
                trainer.averaged_network(), card, run / checkpoint.WEIGHTS, run / checkpoint.CARD
            )
        return card
    except (Interrupted, KeyboardInterrupt) as stop:
        again = f"retina-seg train --resume {quote(str(run))} --data-root {quote(str(data_root))}"
        raise Interrupted(f"{stop or 'stopped after the last step'}; go on with: {again}") from None
    finally:
        lock.release()
        accelerator.end_training()
        # accelerate keeps its settings for the life of the process; the next run may want others.
        AcceleratorState._reset_state(reset_partial_state=True)


def _run(
    trainer: "_Training",
    config: Config,
    data: Sequence[PatchDataset],
    monitor: Sequence[Photograph],
    log: "RunLog",
    run: Path,
    identity: Mapping[str, Any],
    progress: Callable[[Progress], None] | None,
) -> None:
    """All intervals of a training: steps, validation, log, saved state; `identity` is saved with the state."""
    training = config.training
    validation: dict[str, float] = {}

    def report() -> None:
        if progress is not None and trainer.accelerator.is_main_process:
            progress(Progress(trainer.step, training.steps, trainer.mean_loss, validation))

    while trainer.step < training.steps:
        number, begin, stage_end = trainer.enter()
        stage = trainer.stages[number]
        batches = iter(
            trainer.accelerator.prepare(
                loader(
                    data[number],
                    batch_size=stage.batch_size,
                    start=(trainer.step - begin) * trainer.patches_a_step(stage),
                    workers=training.workers,
                    pin_memory=trainer.accelerator.device.type == "cuda",
                )
            )
        )
        while trainer.step < stage_end:
            end = min((trainer.step // training.validate_every + 1) * training.validate_every, stage_end)
            train_interval(trainer, batches, end, report)
            if trainer.step == end:
                validation = validate(trainer.averaged_network(), monitor, config.data.targets, trainer.device)
                entry = {
                    "step": trainer.step,
                    "seconds": round(trainer.seconds, 1),
                    "loss": trainer.mean_loss,
                    "learning_rate": trainer.learning_rate,
                    **validation,
                }
                trainer.clear_loss()
                log.add(entry)
                trainer.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=trainer.step)
                report()
            if trainer.accelerator.is_main_process:
                checkpoint.save_state({**trainer.state(), **identity}, run)
            if trainer.stopped:
                raise Interrupted(f"stopped at step {trainer.step} of {training.steps}")


def train_interval(
    trainer: "_Training",
    batches: Iterator[dict[str, Tensor]],
    end: int,
    report: Callable[[], None],
) -> None:
    """Change the weights until step `end`, or until a signal asks to stop."""
    trainer.net.train()
    while trainer.step < end and not trainer.check_stop():
        trainer.train_step(batches)
        report()


def validate(
    net: nn.Module, photographs: Sequence[Photograph], targets: Sequence[str], device: str
) -> dict[str, float]:
    """Dice at .5, AUC and AP of every target, pooled over the field-of-view pixels of whole photographs."""
    tallied = histograms(net, photographs, device=device)
    result = {}
    for target, histogram in zip(targets, tallied, strict=True):
        half = histogram.shape[1] // 2
        tp, fp = int(histogram[1, half:].sum()), int(histogram[0, half:].sum())
        total = tp + fp + int(histogram[1].sum())
        prefix = f"{target}_" if len(targets) > 1 else ""
        result[f"{prefix}dice"] = 2 * tp / total if total else math.nan
        result[f"{prefix}auc"] = metrics.auc_from_histogram(histogram)
        result[f"{prefix}ap"] = metrics.ap_from_histogram(histogram)
    return result


def histograms(
    net: nn.Module, photographs: Sequence[Photograph], *, device: str, flips: bool = False
) -> list[NDArray[np.int64]]:
    """Per target, the pooled histogram of `metrics.score_histogram` over whole photographs."""
    net.eval()
    total: list[NDArray[np.int64]] = []
    for photograph in photographs:
        prob = predict_probability(net, photograph.prepared.image, device=device, flips=flips)
        fov = photograph.fov
        prob = preprocess.undo(prob, fov, photograph.prepared.geometry)
        found = [metrics.score_histogram(p, t, fov) for p, t in zip(prob, photograph.truth, strict=True)]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return total


class _Training:
    """Everything that changes while a network is trained, and how it is saved."""

    def __init__(
        self, accelerator: Accelerator, net: nn.Module, training: TrainingConfig, prevalence: Sequence[float] = ()
    ) -> None:
        self.accelerator, self.training, self.stages = accelerator, training, training.plan()
        self.losses = [get_loss(stage.loss, prevalence) for stage in self.stages]
        self.step, self.seconds = 0, 0.0
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = AveragedModel(net, multi_avg_fn=_moving_average(training.ema), use_buffers=True)
        self.averaged.to(accelerator.device)
        optimiser = OPTIMISERS[training.optimiser](
            net.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.net, self.optimiser = accelerator.prepare(net, optimiser)
        self.device = accelerator.device.type
        self.stop_asked: Callable[[], bool] = lambda: False
        self.stopped = False
        self.clear_loss()

    def patches_a_step(self, stage: TrainingConfig) -> int:
        """Patches of all processes that change the weights once."""
        return stage.batch_size * self.training.accumulate * self.accelerator.num_processes

    def enter(self) -> tuple[int, int, int]:
        """Begin or go on with the stage of the present step: its number, first step and the one behind its last."""
        number, begin, end = self._place()
        if self.step == begin:
            # Forgets its moments. With another optimiser accelerate would unscale half-precision gradients twice.
            self.optimiser.state.clear()
        return number, begin, end

    def _place(self) -> tuple[int, int, int]:
        """Number, first step and end of the stage of the present step; the last stage behind the last step."""
        ends = list(accumulate(stage.steps for stage in self.stages))
        number = min(bisect_right(ends, self.step), len(ends) - 1)
        return number, ends[number] - self.stages[number].steps, ends[number]

    def check_stop(self) -> bool:
        """Whether any process was asked to stop; all processes stop after the same step."""
        if self.stop_asked():
            self.accelerator.set_trigger()
        self.stopped = self.stopped or self.accelerator.check_trigger()
        return self.stopped

    def train_step(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """One change of the weights."""
        started = time.perf_counter()
        loss = self.losses[self._place()[0]]
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        for _ in range(self.training.accumulate):
            batch = next(batches)
            with self.accelerator.accumulate(self.net):
                image = batch["image"].to(memory_format=torch.channels_last)
                value = loss(self._logits(image), batch["target"], batch["fov"])
                if isinstance(network := self.accelerator.unwrap_model(self.net), OwnLoss):
                    value = value + network.own_loss(batch["fov"])
                if not torch.isfinite(value):
                    raise UserError(
                        f"the loss is {value.item()} at step {self.step}: lower training.learning_rate, or use "
                        "training.precision=no"
                    )
                self.accelerator.backward(value)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.net.parameters(), self.training.clip)
                self.optimiser.step()
                self.optimiser.zero_grad()
            self._loss_sum += value.item()
            self._loss_count += 1
        self.averaged.update_parameters(self.accelerator.unwrap_model(self.net))
        self.step += 1
        self.seconds += time.perf_counter() - started

    def _logits(self, image: Tensor) -> Tensor:
        try:
            return self.net(image).float()
        except ValueError as error:  # of batch norm, where one value is left to take mean and deviation of
            raise UserError(
                f"the network cannot be trained on {tuple(image.shape)} (patches, channels, height, width): {error}; "
                "raise training.batch_size or training.patch_size"
            ) from None

    @property
    def learning_rate(self) -> float:
        """Of the present step."""
        number, begin, _ = self._place()
        return learning_rate(self.stages[number], self.step - begin)

    @property
    def mean_loss(self) -> float:
        """Mean over the interval so far."""
        return self._loss_sum / max(self._loss_count, 1)

    def clear_loss(self) -> None:
        """Begin a new interval."""
        self._loss_sum, self._loss_count = 0.0, 0

    def averaged_network(self) -> nn.Module:
        """The network with averaged weights."""
        return self.averaged.module

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain values."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "seconds": self.seconds,
            "loss": [self._loss_sum, self._loss_count],
            "net": self.accelerator.unwrap_model(self.net).state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.step, self.seconds = state["step"], state["seconds"]
        self._loss_sum, self._loss_count = state["loss"]
        self.accelerator.unwrap_model(self.net).load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])


def learning_rate(stage: TrainingConfig, step: int) -> float:
    """Of step `step` (from 0) of a stage: linear warm-up, then half a cosine down to a hundredth."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    share = (step - stage.warmup_steps) / (stage.steps - stage.warmup_steps)
    return stage.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def is_main_process() -> bool:
    """Whether this process reports: the only one, or the first of `accelerate launch`."""
    return int(os.environ.get("RANK", "0")) == 0


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average with a short memory at first: min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        n = int(count)
        weight = 1 - min(decay, (1 + n) / (10 + n)) if decay else 1.0
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, weight)
            else:
                old.copy_(new)

    return update


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second one is as abrupt as ever."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            with contextlib.suppress(ValueError):  # only the main thread may listen for signals
                before[number] = signal.signal(number, remember)
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _seeded_network(config: Config, settings: Preprocess, *, pretrained: bool) -> tuple[nn.Module, list[Card]]:
    """The network before the first step, and the card of the model it starts from, if it starts from one.

    Without `pretrained` the file named by the argument `weights` is not needed: a resumed run has weights of its own.
    """
    torch.manual_seed(config.seed)
    net = build_model(
        config.model.name,
        settings.channels,
        len(config.data.targets),
        arguments=config.model.arguments,
        pretrained=pretrained and not config.training.start,
    )
    if not config.training.start:
        return net, []
    start, card = zoo.load(config.training.start)
    wanted = settings.to_dict()
    if any(card.preprocess.get(key) != wanted[key] for key in ("colour", "clahe", "local_contrast")):
        raise UserError(
            f"training.start: {config.training.start} reads photographs prepared as {card.preprocess}, this training "
            f"prepares them as {wanted}: make colour, clahe and local_contrast the same"
        )
    weights = start.state_dict()
    same = (card.model.name, card.model.arguments) == (config.model.name, config.model.arguments)
    if same and card.targets != config.data.targets:
        own = net.state_dict()  # what depends on the number of targets, the last layer, keeps its random weights
        weights = {key: weights[key] if weights[key].shape == value.shape else value for key, value in own.items()}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"training.start: {config.training.start} is a {card.model.name} {card.model.arguments} and does not fit "
            f"{config.model.name} {config.model.arguments}: {' '.join(str(error).split())[:200]}"
        ) from None
    return net, [card]


def _check_teachers(teachers: Sequence[Segmenter], targets: Sequence[str]) -> None:
    for teacher in teachers:
        if missing := set(targets) - set(teacher.card.targets):
            raise UserError(
                f"data.teachers: {teacher.card.name} finds {', '.join(teacher.card.targets)}, "
                f"not {', '.join(sorted(missing))}"
            )


def _taught(
    image: TrainingImage,
    photograph: Photograph,
    teachers: Sequence[Segmenter],
    data: DataConfig,
    data_root: str | Path,
) -> TrainingImage:
    """The training image whose target is the weighted mean of its truth and of what the teachers see."""
    pixels = datasets.load(photograph.row, data_root).image
    seen = np.zeros(image.target.shape, np.float32)
    for teacher in teachers:
        prob = teacher.predict(pixels, photograph.fov).prob
        channels = [teacher.card.targets.index(target) for target in data.targets]
        seen += np.stack([preprocess.to_grid(prob[k], photograph.prepared.geometry) for k in channels])
    # Resampling overshoots at edges.
    seen = np.clip(seen / len(teachers), 0, 1)
    target = data.truth_weight * image.target + (1 - data.truth_weight) * seen
    return replace(image, target=target.astype(np.float32))


def _few(rows: Sequence[Row], config: Config) -> list[Row]:
    """The training photographs, or as many of them as `data.photographs` says, in their own order."""
    wanted = len(rows) if config.data.photographs is None else config.data.photographs
    if wanted > len(rows):
        raise UserError(f"data.photographs is {wanted}, but only {len(rows)} are in data.fit of data.protocols")
    order = np.random.default_rng(config.seed).permutation(len(rows))
    return [rows[number] for number in sorted(order[:wanted])]


def _prevalence(images: Sequence[TrainingImage]) -> list[float]:
    """Share of the field of view that each target covers, all training images together."""
    marked = np.sum([(image.target * image.fov).sum(axis=(1, 2), dtype=np.float64) for image in images], axis=0)
    return [float(count) for count in marked / sum(np.count_nonzero(image.fov) for image in images)]


def _with_debts(card: Card, owed: Sequence[Card]) -> Card:
    """The card of weights that owe something to other models: what those have seen, these have seen.

    Where one of them does not say what it has seen, nobody knows it of these either: `images` is left out.
    """
    if not owed:
        return card
    training = {**card.training, "learnt_from": _debts(owed)}
    if all("images" in other.training for other in owed):
        keys = [key for other in owed for key in other.training["images"]]
        training["images"] = list(dict.fromkeys([*training["images"], *keys]))
    else:
        del training["images"]
    return card.model_copy(update={"training": training})


def _debts(owed: Sequence[Card]) -> list[dict[str, str]]:
    """Name and weights of the models a training owes something to."""
    return [{"name": other.name, "weights_sha256": other.weights_sha256} for other in owed]


def _acquire(lock: FileLock, run: Path) -> None:
    """Take the run for this process; UserError while another one trains it. The system frees it when we end."""
    io.make_folder(run)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{run} is being trained by another process: wait for it, or choose another --out") from None


def _photographs(
    parts: Sequence[Sequence[Row]], data_root: str | Path, targets: Sequence[str], settings: Preprocess
) -> list[list[Photograph]]:
    """The photographs of each part; one that is in several is read once."""
    rows = {row.key: row for part in parts for row in part}
    loaded = {key: load_photograph(row, data_root, targets, settings) for key, row in rows.items()}
    return [[loaded[row.key] for row in part] for part in parts]


def _check_run(run: Path, config: Config, state: dict[str, Any] | None, owed: Sequence[Card]) -> None:
    if state is None:
        # A configuration alone is of a training that ended before its first saved state: nothing is lost.
        if any((run / name).exists() for name in (checkpoint.STATE, checkpoint.CARD, checkpoint.WEIGHTS)):
            raise UserError(f"{run} already holds a run: choose another --out, or go on with --resume {run}")
        return
    if Config.from_yaml(state["config"]) != config:
        raise UserError(f"{run} was begun with another configuration: resume without changes, or start anew")
    if (run / checkpoint.CARD).exists():
        raise UserError(f"the run {run} is finished: use it as a model, or begin another one")
    if state["learnt_from"] != _debts(owed):
        raise UserError(
            f"training.start or data.teachers of {run} have other weights than when it was begun: bring those back, "
            "or start anew"
        )


def _card(
    config: Config,
    settings: Preprocess,
    trainer: _Training,
    fit_set: Sequence[Photograph],
    monitor_set: Sequence[Photograph],
) -> Card:
    """The card of a finished training; which images choose the thresholds is told at `DataConfig`."""
    fit_keys, monitor_keys = ([photograph.row.key for photograph in part] for part in (fit_set, monitor_set))
    held_out = config.data.threshold_on == "monitor" and not set(fit_keys) & set(monitor_keys)
    net = trainer.averaged_network()
    tallied = histograms(net, monitor_set if held_out else fit_set, device=trainer.device, flips=config.inference.flips)
    thresholds = [metrics.best_threshold_from_histogram(histogram)[0] for histogram in tallied]
    count = len(monitor_keys) if held_out else len(fit_keys)
    source = "validation images, not trained on" if held_out else "training images"
    return Card(
        name=config.name,
        targets=config.data.targets,
        model=CardModel(name=config.model.name, in_channels=settings.channels, arguments=config.model.arguments),
        preprocess=settings.to_dict(),
        inference=CardInference(**config.inference.model_dump()),
        thresholds={t: round(v, 4) for t, v in zip(config.data.targets, thresholds, strict=True)},
        threshold_source=f"highest pooled Dice on {count} {source}",
        parameters=count_parameters(net),
        training={
            "config": config.model_dump(mode="json"),
            "images": fit_keys,
            "drawn": config.data.drawn,
            "threshold_images": monitor_keys if held_out else fit_keys,
            "steps": trainer.step,
            "seconds": round(trainer.seconds),
            "device": trainer.device,
            "processes": trainer.accelerator.num_processes,
            "versions": {"retina_seg": __version__, "torch": torch.__version__},
        },
    )
