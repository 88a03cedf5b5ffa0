"""The training loop: fit, one interval of steps, the state of a run. Plain PyTorch on Hugging Face accelerate.

Knows no photographs and no classes: what is learnt is a `Task` (train, classify.training). Reads no command line and
draws nothing; the run folder it fills is described at `fit`.
"""

import contextlib
import hashlib
import math
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retina_seg import checkpoint, datasets, io
from retina_seg._version import __version__
from retina_seg.checkpoint import CONFIG, BaseCard, RunLog
from retina_seg.config import RunConfig, Schedule
from retina_seg.errors import Interrupted, UserError
from retina_seg.inference import choose_device
from retina_seg.patches import Examples, loader

_COPIES = 5  # of the weights: themselves, their average, their gradients and two moments
AnyCard = TypeVar("AnyCard", bound=BaseCard, covariant=True)
Batch = Mapping[str, Tensor]
BatchLoss = Callable[[Tensor, Batch], Tensor]
"""(outputs of the network, batch) -> scalar."""
# Full-batch gradient descent is `sgd` on whole photographs with batch_size times accumulate of them all.
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "sgd": torch.optim.SGD,
}

# What each of them remembers of a weight.
_MOMENTS = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "rmsprop": {"step", "square_avg"},
    "momentum": {"momentum_buffer"},
    "sgd": set(),
}


@dataclass(frozen=True)
class Progress:
    """Where a training stands: `step` of `steps`, the smoothed loss, and the newest validation or {}.

    `warning` is something to know at once, told one time.
    """

    step: int
    steps: int
    loss: float
    validation: dict[str, float]
    phase: str = ""
    warning: str = ""

    def describe(self) -> str:
        """Loss and validation scores in a few words, or what follows the last step."""
        if self.phase:
            return self.phase
        return " ".join([f"loss {self.loss:.4f}", *(f"{k} {v:.4f}" for k, v in self.validation.items())])


class Task(Protocol[AnyCard]):
    """What is learnt: everything of a training that depends on what the network is for.

    Attributes
    ----------
    net : the network before the first step.
    learnt_from : name and weights of the models the training owes something to.
    watched : which score of `validate` early stopping goes by; more is better.
    examples : what it learns from and watches, in words; other words are other data, with which no run goes on.
    differing : files that were read and are not those of the release, as "drive:21 vessels" (`datasets.differing`).
    """

    net: nn.Module
    watched: str
    learnt_from: Sequence[Mapping[str, str]]
    examples: str

    @property
    def differing(self) -> Sequence[str]:
        """See above."""

    def prepare(self, say: Callable[[str], None], *, fresh: bool) -> None:
        """Read the data, and with `fresh` what the network learns before its first step; `say` what takes long."""

    def dataset(self, number: int, stage: Any, length: int) -> Examples:
        """`length` examples of the stage `number`; each is {"image": float32 (C, h, w), ...}, the same in every run."""

    def loss(self, stage: Any) -> BatchLoss:
        """The loss of a stage, as the config's `training.plan` has it."""

    def validate(self, net: nn.Module, device: str) -> dict[str, float]:
        """Scores of images that are watched."""

    def card(self, net: nn.Module, device: str, facts: Mapping[str, Any]) -> AnyCard:
        """The card of the finished network; `facts` of the training belong into its `training`."""


def fit(
    task: Task[AnyCard],
    config: RunConfig,
    run: Path,
    *,
    again: str,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> AnyCard:
    """Train the network of a task and leave everything about it in the folder `run`.

    The folder gets config.yaml (resolved), log.jsonl and log.csv (one line an interval), state.pt (to resume),
    weights.safetensors (averaged weights) and card.json. Interrupting (Ctrl-C, SIGTERM) saves the state.

    Parameters
    ----------
    again : the command that goes on with an interrupted run.
    resume : go on from state.pt in `run`, whose result equals that of an uninterrupted run.
    device : "auto", "cpu" or "cuda"; several GPUs and machines come with `accelerate launch`.

    Raises
    ------
    UserError
        For a folder that already holds a run, a state of another config, and what the task refuses.
    Interrupted
        After a signal; the state is saved.
    """
    if config.track and find_spec("tensorboard") is None:
        raise UserError("track: tensorboard is not installed; install it with: pip install 'retina-seg[track]'")
    precision = computed_in(config.training.precision, choose_device(device))
    examples = hashlib.sha256(task.examples.encode()).hexdigest()
    if resume:
        checkpoint.check_resumable(run)
    else:
        checkpoint.check_new(run, type(config))
    _check_folder(run)
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=config.training.accumulate,
        cpu=device == "cpu",
        log_with=list(config.track) or None,
        project_dir=run,
    )
    trainer, state, told = None, None, 0
    held = contextlib.ExitStack()

    def say(phase: str) -> None:
        if progress is not None and accelerator.is_main_process:
            step = trainer.step if trainer else 0
            progress(Progress(step, step or config.training.steps, 0.0, {}, phase))

    def warn() -> None:
        """Tell of files that differ from the release, as soon as more of them are known."""
        nonlocal told
        if len(task.differing) > told and progress is not None and accelerator.is_main_process:
            step = trainer.step if trainer else 0
            progress(Progress(step, config.training.steps, 0.0, {}, warning=datasets.differences(task.differing)))
        told = len(task.differing)

    try:
        if resume and accelerator.is_main_process:
            held.enter_context(checkpoint.held(run))
        accelerator.wait_for_everyone()  # all have seen an empty folder before the first one writes to it
        if resume:
            state = checkpoint.load_state(run)
            _check_state(run, config, state, task.learnt_from, examples)
            _fill(task.net, state["net"], run)  # a task may look at its data with the network
        task.prepare(say, fresh=state is None)
        warn()
        trainer = _Training(accelerator, task.net, config.training, [task.loss(one) for one in config.training.plan()])
        data = [
            task.dataset(number, stage, stage.steps * trainer.examples_a_step(stage))
            for number, stage in enumerate(trainer.stages)
        ]
        if accelerator.is_main_process:
            if not resume:  # only whoever holds the folder can know that no other training has begun there meanwhile
                held.enter_context(checkpoint.held(run))
                checkpoint.check_new(run, type(config))
            io.write_text(run / CONFIG, config.to_yaml())
        if state is not None:
            trainer.load(state, run)
        log = RunLog(run, trainer.step, enabled=accelerator.is_main_process)
        if config.track:
            accelerator.init_trackers("tensorboard")
        with _stop_signal() as trainer.stop_asked:
            learnt_from = [dict(one) for one in task.learnt_from]
            identity = {"config": config.to_yaml(), "learnt_from": learnt_from, "examples": examples}
            _run(trainer, task, data, log, run, identity, progress, again)
        accelerator.wait_for_everyone()
        say("looking at the finished network")
        card = task.card(trainer.averaged_network(), trainer.device, _facts(config, trainer))
        warn()
        if task.differing:
            training = {**card.training, "differing": list(task.differing)}
            card = card.model_copy(update={"training": training})
        if accelerator.is_main_process:
            with _saving(trainer, again):
                card = checkpoint.save_model(
                    trainer.averaged_network(), card, run / checkpoint.WEIGHTS, run / checkpoint.CARD
                )
        return card
    except (Interrupted, KeyboardInterrupt) as stop:
        if trainer is None and state is None:
            raise Interrupted("stopped before the first step") from None
        raise Interrupted(str(stop) or "stopped after the last step", again) from None
    finally:
        held.close()
        accelerator.end_training()
        # accelerate keeps its settings for the life of the process; the next run may want others.
        AcceleratorState._reset_state(reset_partial_state=True)


def check_memory(build: Callable[[], nn.Module], values: Mapping[Schedule, int]) -> None:
    """UserError, before anything is taken, where the memory of this computer cannot be enough for a training.

    Parameters
    ----------
    build : the network.
    values : stage -> how many numbers each example and what a network makes of it are, at least.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    weights = _COPIES * (checkpoint.weight_bytes(build) or 0)
    for stage, one in values.items():
        if (needed := weights + 4 * stage.batch_size * one) > memory:
            raise UserError(
                f"training: batches of {stage.batch_size} and {weights // _COPIES / 1e9:.1f} GB of weights need "
                f"{needed / 1e9:,.0f} GB or more, and this computer has {memory / 1e9:,.0f} GB: lower "
                "training.batch_size, the size of the examples, or the size of the network"
            )


def computed_in(precision: str, device: str) -> str:
    """The precision that a training of `training.precision` has on "cpu" or "cuda".

    A CPU that does not know bfloat16 would imitate it, four times slower than float32: "no" takes its place there.
    UserError for "fp16" on a CPU.
    """
    if device != "cpu" or precision == "no":
        return precision
    if precision == "fp16":
        raise UserError("training.precision=fp16 needs a GPU: use bf16 or no on a CPU")
    return precision if _knows_bfloat16() else "no"


def _knows_bfloat16() -> bool:
    """Whether this CPU has what PyTorch's convolutions need for bfloat16, as AVX-512."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _facts(config: RunConfig, trainer: "_Training") -> dict[str, Any]:
    """What every card says of its training."""
    return {
        "config": config.model_dump(mode="json"),
        "steps": trainer.step,
        **({"best_step": trainer.best_step} if trainer.best else {}),
        "seconds": round(trainer.seconds),
        "device": trainer.device,
        "precision": trainer.accelerator.mixed_precision,
        "processes": trainer.accelerator.num_processes,
        "versions": {"retina_seg": __version__, "torch": torch.__version__},
    }


def _run(
    trainer: "_Training",
    task: Task[Any],
    data: Sequence[Examples],
    log: RunLog,
    run: Path,
    identity: Mapping[str, Any],
    progress: Callable[[Progress], None] | None,
    again: str,
) -> None:
    """All intervals of a training: steps, validation, log, saved state; `identity` is saved with the state."""
    training = trainer.training
    validation: dict[str, float] = {}

    def report() -> None:
        if progress is not None and trainer.accelerator.is_main_process:
            progress(Progress(trainer.step, training.steps, trainer.mean_loss, validation))

    while trainer.step < training.steps and not trainer.impatient:
        number, begin, stage_end = trainer.enter()
        stage = trainer.stages[number]
        batches = iter(
            trainer.accelerator.prepare(
                loader(
                    data[number],
                    batch_size=stage.batch_size,
                    start=(trainer.step - begin) * trainer.examples_a_step(stage),
                    workers=training.workers,
                    pin_memory=trainer.accelerator.device.type == "cuda",
                )
            )
        )
        while trainer.step < stage_end and not trainer.impatient:
            end = min((trainer.step // training.validate_every + 1) * training.validate_every, stage_end)
            train_interval(trainer, batches, end, report)
            if trainer.step == end:
                validation = task.validate(trainer.averaged_network(), trainer.device)
                entry = {
                    "step": trainer.step,
                    "seconds": round(trainer.seconds, 1),
                    "loss": trainer.mean_loss,
                    "learning_rate": trainer.learning_rate,
                    **validation,
                }
                trainer.clear_loss()
                trainer.judge(validation[task.watched])
                with _saving(trainer, again):
                    log.add(entry)
                trainer.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=trainer.step)
                report()
            if trainer.accelerator.is_main_process:
                with _saving(trainer, again):
                    checkpoint.save_state({**trainer.state(), **identity}, run)
                trainer.saved = trainer.step
            if trainer.stopped:
                raise Interrupted(f"stopped at step {trainer.step} of {training.steps}")
    trainer.take_best()


@contextlib.contextmanager
def _saving(trainer: "_Training", again: str) -> Iterator[None]:
    """Whoever's disk is full reads what is kept and how to go on."""
    try:
        yield
    except UserError as error:
        if trainer.saved:
            kept = f"The training is kept up to step {trainer.saved}; make room, then: {again}"
            raise UserError(f"{error}. {kept}") from error
        raise UserError(f"{error}. Nothing of the training is kept yet; make room, then begin again") from error


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


class _Training:
    """Everything that changes while a network is trained, and how it is saved."""

    def __init__(
        self, accelerator: Accelerator, net: nn.Module, training: Schedule, losses: Sequence[BatchLoss]
    ) -> None:
        self.accelerator, self.training, self.stages = accelerator, training, training.plan()
        self.losses = losses  # of each stage
        self.step, self.seconds, self.saved = 0, 0.0, 0
        # Without AVX-512 the gradients of convolutions of channels_last take half as long again.
        plain = accelerator.device.type == "cpu" and not _knows_bfloat16()
        self.layout = torch.contiguous_format if plain else torch.channels_last
        net = net.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.averaged = AveragedModel(net, multi_avg_fn=_moving_average(training.ema), use_buffers=True)
        self.averaged.to(accelerator.device)
        optimiser = OPTIMISERS[training.optimiser](
            net.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.net, self.optimiser = accelerator.prepare(net, optimiser)
        self.device = accelerator.device.type
        self.stop_asked: Callable[[], bool] = lambda: False
        self.stopped = False
        self.best_score, self.best_step, self.waited = -math.inf, 0, 0
        self.best: dict[str, Tensor] = {}
        self.clear_loss()

    def examples_a_step(self, stage: Schedule) -> int:
        """Examples of all processes that change the weights once."""
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
                image = batch["image"].to(memory_format=self.layout)
                value = loss(self._outputs(image), batch)
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

    def _outputs(self, image: Tensor) -> Tensor:
        try:
            return self.net(image).float()
        except ValueError as error:  # of batch norm, where one value is left to take mean and deviation of
            raise UserError(
                f"the network cannot be trained on {tuple(image.shape)} (examples, channels, height, width): {error}; "
                "raise training.batch_size, or the size of what it reads"
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

    def judge(self, score: float) -> None:
        """Remember the averaged weights where they are the best so far; NaN is never better. Only with patience."""
        if not self.training.patience:
            return
        if score > self.best_score:
            self.best_score, self.best_step, self.waited = score, self.step, 0
            self.best = {key: value.detach().clone() for key, value in self.averaged_network().state_dict().items()}
        else:
            self.waited += 1

    @property
    def impatient(self) -> bool:
        """Whether the last `patience` validations were none of them better."""
        return 0 < self.training.patience <= self.waited

    def take_best(self) -> None:
        """End with the best averaged weights, where they were remembered."""
        if self.best:
            self.averaged_network().load_state_dict(self.best)

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
            "best": {
                "score": self.best_score,
                "step": self.best_step,
                "waited": self.waited,
                "weights": self.best,
            },
        }

    def load(self, state: dict[str, Any], run: Path) -> None:
        """The reverse of `state`, which is that of the folder `run`; UserError where it does not fit the network."""
        try:
            self._load(state)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise _unfit(run, error) from None

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.saved = self.step
        self._loss_sum, self._loss_count = state["loss"]
        self.accelerator.unwrap_model(self.net).load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        averaged = int(self.averaged.n_averaged)
        if not 0 <= averaged <= self.step <= self.training.steps:
            raise ValueError(f"step {self.step} of {self.training.steps}, {averaged} of them averaged")
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, own in zip(self.optimiser.param_groups, groups, strict=True):
            group.update(own)  # the configuration, which is the same, says these
        for weight, moments in self.optimiser.state.items():
            if set(moments) not in (set(), _MOMENTS[self.training.optimiser]):
                raise ValueError(f"the optimiser remembers {', '.join(map(str, moments)) or 'nothing'}")
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape not in (weight.shape, ()):
                    raise ValueError(f"{name} of a weight {tuple(weight.shape)} is {tuple(moment.shape)}")
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if best := state.get("best"):  # states of an earlier version have none
            self.best_score, self.best_step = best["score"], best["step"]
            self.waited, self.best = best["waited"], best["weights"]
            own_weights = self.averaged_network().state_dict()
            if self.best and {k: v.shape for k, v in self.best.items()} != {k: v.shape for k, v in own_weights.items()}:
                raise ValueError("the best weights are of another network")


def _fill(net: nn.Module, weights: Mapping[str, Tensor], run: Path) -> None:
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise _unfit(run, error) from None


def _unfit(run: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:300]
    return UserError(f"{run / checkpoint.STATE} does not fit the configuration beside it ({said}): start anew")


def learning_rate(stage: Schedule, step: int) -> float:
    """Of step `step` (from 0) of a stage: linear warm-up, then half a cosine down to a hundredth."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    share = (step - stage.warmup_steps) / (stage.steps - stage.warmup_steps)
    return stage.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def is_main_process() -> bool:
    """Whether this process reports: the only one, or the first of `accelerate launch`."""
    return int(os.environ.get("RANK", "0")) == 0


def several_processes() -> bool:
    """Whether `accelerate launch` runs this in several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


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


def _check_state(
    run: Path, config: RunConfig, state: dict[str, Any], owed: Sequence[Mapping[str, str]], examples: str
) -> None:
    try:
        begun = type(config).from_yaml(state["config"])
    except ValueError:
        raise UserError(f"{run / checkpoint.STATE} holds no configuration of this version: start anew") from None
    if begun != config:
        raise UserError(f"{run} was begun with another configuration: resume without changes, or start anew")
    if (run / checkpoint.CARD).exists():
        raise UserError(f"the run {run} is finished: use it as a model, or begin another one")
    if state["learnt_from"] != list(owed):
        raise UserError(
            f"training.start or data.teachers of {run} have other weights than when it was begun: bring those back, "
            "or start anew"
        )
    if state.get("examples", examples) != examples:  # states of an earlier version do not say
        raise UserError(f"{run} was begun with other examples than these: bring those back, or start anew")


def _check_folder(run: Path) -> None:
    """UserError where the run's folder cannot be made or written to, which is said before the data are looked at."""
    nearest = next(path for path in (run, *run.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise UserError(f"{run} cannot be a run folder: {nearest} cannot be written to; choose another --out")
