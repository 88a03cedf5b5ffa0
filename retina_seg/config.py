"""The one schema of a training run: strict, from YAML, with overrides from the command line.

Never imported by models or losses; those take plain arguments.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from retina_seg.errors import UserError
from retina_seg.preprocess import Colour


class _Strict(BaseModel):
    """Unknown keys are errors: a typo must never train a different model in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PreprocessConfig(_Strict):
    """See `preprocess.Preprocess`."""

    colour: Colour = "rgb"
    clahe: bool = False
    fov_diameter: int | None = Field(default=None, ge=64)
    local_contrast: float | None = Field(default=None, ge=1, le=500)


class DataConfig(_Strict):
    """Which photographs train and which watch.

    `fit` and `monitor` name splits of the protocols' manifests. Where a monitor image also trains, its curve is
    labelled as one of training images, and thresholds are chosen on the fit images. `threshold_on: fit` does that too
    where the monitor images are to be scored, on the drawn photographs where `fit` is empty. `photographs` trains on
    so many of the fit images only, drawn by the seed; those of a smaller number are among those of a larger one.

    `drawn` photographs (`phantom`) train beside those of `fit`, or alone where `fit` is empty. `teachers` are
    packaged models or run folders; the network then learns a mean of the truth, weighing `truth_weight`, and of
    what the teachers see in the training photographs (Hinton 2015), four flips of each averaged.
    """

    protocols: tuple[str, ...] = Field(min_length=1)
    fit: tuple[Literal["train", "val"], ...] = ("train",)
    monitor: tuple[Literal["train", "val"], ...] = Field(("val",), min_length=1)
    targets: tuple[str, ...] = Field(("vessels",), min_length=1)
    threshold_on: Literal["monitor", "fit"] = "monitor"
    photographs: int | None = Field(None, ge=1, description="train on so many of the fit images, drawn by the seed")
    drawn: int = Field(0, ge=0, description="drawn photographs that train too")
    teachers: tuple[str, ...] = ()
    truth_weight: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _something_trains(self) -> "DataConfig":
        if not self.fit and not self.drawn:
            raise ValueError("data.fit is empty and data.drawn is 0: nothing would be trained on")
        return self


class ModelConfig(_Strict):
    """A network in `models.MODELS` and arguments of its constructor."""

    name: str
    arguments: dict[str, Any] = {}


def _named(value: Any) -> Any:
    """`model: unet` is short for `model: {name: unet}`."""
    return {"name": value} if isinstance(value, str) else value


PatchSize = Annotated[int, Field(ge=32)] | Literal["image"]


class StageConfig(_Strict):
    """A part of a training: what is not set here is as in `training`."""

    steps: int = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    patch_size: PatchSize | None = None
    on_target: float | None = Field(default=None, ge=0, le=1)
    augment: str | None = None
    loss: str | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)


class Schedule(_Strict):
    """How the weights of any network are found. One step is one change of the weights."""

    steps: int = Field(ge=1)
    start: str = Field("", description="packaged model or run folder that the weights start from")
    batch_size: int = Field(2, ge=1, description="examples a process and forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes a step")
    augment: str = "none"
    loss: str
    optimiser: Literal["adamw", "adam", "rmsprop", "momentum", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(100, ge=0)
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    # YAML reads a bare `no` as false. A CPU without bfloat16 computes in float32 (loop.computed_in).
    precision: Annotated[
        Literal["no", "bf16", "fp16"], BeforeValidator(lambda given: "no" if given is False else given)
    ] = "no"
    validate_every: int = Field(250, ge=1, description="steps between validations and saved states")
    patience: int = Field(
        0, ge=0, description="validations without a better score before it stops early with the best weights; 0: never"
    )
    workers: int = Field(0, ge=0, description="processes that prepare examples beside the training")

    @model_validator(mode="after")
    def _warms_up(self) -> "Schedule":
        for stage in self.plan():
            if stage.warmup_steps >= stage.steps:
                raise ValueError(
                    f"training.warmup_steps is {stage.warmup_steps}, training.steps {stage.steps}: "
                    "the warm-up must be shorter than the training, or than each of its stages"
                )
        return self

    def plan(self) -> Sequence["Schedule"]:
        """The stages, each as a training of its own: the training itself where it has none."""
        return (self,)


class TrainingConfig(Schedule):
    """How the weights of a network that segments are found.

    A training with `stages` goes through them in turn, each with a learning rate of its own that warms up and falls
    and with a new optimiser; the weights and their average go on.
    """

    steps: int = Field(ge=1, description="the sum of the stages' steps, where there are stages")
    stages: tuple[StageConfig, ...] = ()
    patch_size: PatchSize = Field(512, description="side of a patch, px, or image for whole photographs")
    on_target: float = Field(0, ge=0, le=1, description="share of patches cut around something marked")
    augment: str = "standard"
    loss: str = "bce"

    @model_validator(mode="before")
    @classmethod
    def _steps_of_stages(cls, given: Any) -> Any:
        """`steps` may be left out where there are stages."""
        stages = given.get("stages") if isinstance(given, dict) else None
        if not stages or "steps" in given or not isinstance(stages, list | tuple):
            return given
        steps = [stage.get("steps") if isinstance(stage, dict) else None for stage in stages]
        return {**given, "steps": sum(steps)} if all(isinstance(n, int) for n in steps) else {**given, "steps": 1}

    @model_validator(mode="after")
    def _stages_fit(self) -> "TrainingConfig":
        total = sum(stage.steps for stage in self.stages)
        if self.stages and total != self.steps:
            raise ValueError(f"training.steps is {self.steps}, its stages have {total}: leave steps out")
        return self

    def plan(self) -> tuple["TrainingConfig", ...]:
        """The stages, each as a training of its own: the training itself where it has none."""
        if not self.stages:
            return (self,)
        return tuple(
            self.model_copy(update={"stages": (), **stage.model_dump(exclude_none=True)}) for stage in self.stages
        )


class InferenceConfig(_Strict):
    """How the trained network is used; stored on its card."""

    flips: bool = False
    window: int = Field(default=1024, ge=64, description="side of the sliding window for large photographs, px")


Model = Annotated[ModelConfig, BeforeValidator(_named)]


class RunConfig(_Strict):
    """What every training run has, whatever it is for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    model: Model
    training: Schedule
    track: tuple[Literal["tensorboard"], ...] = ()

    def to_yaml(self) -> str:
        """The resolved configuration, loadable again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The reverse of `to_yaml`; what is younger than the text has its default, which is what was done before."""
        return cls.model_validate(yaml.safe_load(text))


class Config(RunConfig):
    """A training run from photographs to the weights of a network that segments."""

    data: DataConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    training: TrainingConfig
    inference: InferenceConfig = InferenceConfig()


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `a.b=value` overrides (values are YAML) and check every key.

    Raises
    ------
    UserError
        Naming the file, every key that is wrong and why.
    """
    return load(Config, path, overrides)


def load(schema: type[AnyConfig], path: str | Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """`load_config` of any kind of run.

    Raises
    ------
    UserError
        Naming the file, every key that is wrong and why.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no configuration {path}: give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no settings: expected keys such as name, data, model, training")
    for override in overrides:
        _override(tree, override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {_problem(e['type'], e['msg'], e['input'])}"
            for e in error.errors(include_url=False)
        )
        changed = f" with {' '.join(f'--set {override}' for override in overrides)}" if overrides else ""
        raise UserError(f"{path}{changed}: {problems}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"--set {override!r}: expected key.subkey=value, for example training.steps=100")
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        if isinstance(node.get(parent), str) and parent == "model":
            node[parent] = _named(node[parent])
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override!r}: {parent} has no keys below it")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: the value is not YAML: {_one_line(error)}") from None


def _problem(kind: str, message: str, given: object) -> str:
    if kind == "extra_forbidden":
        return "there is no such key"
    return _one_line(message) + (f", got {given!r}" if isinstance(given, str | int | float) else "")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
