"""The one schema of a training run: strict, from YAML, with overrides from the command line.

Never imported by models or losses; those take plain arguments.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from retina_seg import io
from retina_seg.errors import UserError
from retina_seg.preprocess import Colour

# What no training needs more of: beyond lie slips of the finger and files that are meant to do harm.
MOST_STEPS, MOST_EXAMPLES, MOST_SIDE, MOST_WORKERS = 100_000_000, 65_536, 4096, 64
_MOST_BYTES, _MOST_VALUES, _DEEPEST = 2**20, 10_000, 12  # of a configuration: its text, its values, its levels
_MOST_ARGUMENTS, _LARGEST_ARGUMENT, _LONGEST_TEXT = 256, 4096, 4096
_MOST_MEMBERS = 64
_TOLD = 8  # of many problems these are told


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """ValueError for arguments of a network, in a configuration or on a card, that could only be meant to do harm."""
    values = list(_values(arguments))
    if len(values) > _MOST_ARGUMENTS:
        raise ValueError(f"more than {_MOST_ARGUMENTS} values")
    for value in values:
        if isinstance(value, int | float) and not abs(value) <= _LARGEST_ARGUMENT:
            raise ValueError(f"numbers are at most {_LARGEST_ARGUMENT}, got {_shown(value)}")
    count = arguments.get("count", 2)
    large = isinstance(count, int | float) and count > _MOST_MEMBERS
    if name == "ensemble" and (large or arguments.get("member") == name):
        raise ValueError(f"an ensemble has up to {_MOST_MEMBERS} members, none of them an ensemble")


def _values(tree: Any, level: int = 0) -> Iterator[Any]:
    """Every key and value of nested settings; ValueError for what is nested, long or large beyond any use."""
    if level > _DEEPEST:
        raise ValueError(f"nested in more than {_DEEPEST} levels")
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _values(key, level + 1)
            yield from _values(value, level + 1)
    elif isinstance(tree, list | tuple | set):
        for value in tree:
            yield from _values(value, level + 1)
    else:
        if isinstance(tree, int) and tree.bit_length() > 64:
            raise ValueError("a whole number of more than 64 bits")
        if isinstance(tree, float) and not math.isfinite(tree):
            raise ValueError(f"{tree} is no number to compute with")
        if isinstance(tree, str) and len(tree) > _LONGEST_TEXT:
            raise ValueError(f"text of more than {_LONGEST_TEXT} characters")
        yield tree


class _Strict(BaseModel):
    """Unknown keys are errors: a typo must never train a different model in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PreprocessConfig(_Strict):
    """See `preprocess.Preprocess`."""

    colour: Colour = "rgb"
    clahe: bool = False
    fov_diameter: int | None = Field(default=None, ge=64, le=MOST_SIDE)
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
    photographs: int | None = Field(
        None, ge=1, le=MOST_EXAMPLES, description="train on so many of the fit images, drawn by the seed"
    )
    drawn: int = Field(0, ge=0, le=10_000, description="drawn photographs that train too")
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

    @model_validator(mode="after")
    def _is_bounded(self) -> "ModelConfig":
        check_arguments(self.name, self.arguments)
        return self


def _named(value: Any) -> Any:
    """`model: unet` is short for `model: {name: unet}`."""
    return {"name": value} if isinstance(value, str) else value


PatchSize = Annotated[int, Field(ge=32, le=MOST_SIDE)] | Literal["image"]


class StageConfig(_Strict):
    """A part of a training: what is not set here is as in `training`."""

    steps: int = Field(ge=1, le=MOST_STEPS)
    batch_size: int | None = Field(default=None, ge=1, le=MOST_EXAMPLES)
    patch_size: PatchSize | None = None
    on_target: float | None = Field(default=None, ge=0, le=1)
    augment: str | None = None
    loss: str | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0, le=MOST_STEPS)


class Schedule(_Strict):
    """How the weights of any network are found. One step is one change of the weights."""

    steps: int = Field(ge=1, le=MOST_STEPS)
    start: str = Field("", description="packaged model or run folder that the weights start from")
    batch_size: int = Field(2, ge=1, le=MOST_EXAMPLES, description="examples a process and forward pass")
    accumulate: int = Field(1, ge=1, le=MOST_EXAMPLES, description="forward passes a step")
    augment: str = "none"
    loss: str
    optimiser: Literal["adamw", "adam", "rmsprop", "momentum", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(100, ge=0, le=MOST_STEPS)
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    # YAML reads a bare `no` as false. A CPU without bfloat16 computes in float32 (loop.computed_in).
    precision: Annotated[
        Literal["no", "bf16", "fp16"], BeforeValidator(lambda given: "no" if given is False else given)
    ] = "no"
    validate_every: int = Field(250, ge=1, le=MOST_STEPS, description="steps between validations and saved states")
    patience: int = Field(
        0,
        ge=0,
        le=MOST_STEPS,
        description="validations without a better score before it stops early with the best weights; 0: never",
    )
    workers: int = Field(0, ge=0, le=MOST_WORKERS, description="processes that prepare examples beside the training")

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

    steps: int = Field(ge=1, le=MOST_STEPS, description="the sum of the stages' steps, where there are stages")
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
    window: int = Field(
        default=1024, ge=64, le=MOST_SIDE, description="side of the sliding window for large photographs, px"
    )


Model = Annotated[ModelConfig, BeforeValidator(_named)]


class RunConfig(_Strict):
    """What every training run has, whatever it is for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)
    seed: int = Field(0, ge=0, lt=2**63)
    model: Model
    training: Schedule
    track: tuple[Literal["tensorboard"], ...] = ()

    def to_yaml(self) -> str:
        """The resolved configuration, loadable again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The reverse of `to_yaml`; what is younger than the text has its default, which is what was done before.

        ValueError for text that is something else.
        """
        return cls.model_validate(_tree(text))


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
    if not path.exists():
        raise UserError(f"there is no configuration {path}: give the path of a YAML file")
    text = io.read_text(path, most=_MOST_BYTES)
    try:
        tree = _tree(text)
    except ValueError as error:
        raise UserError(f"{path} is not YAML as expected: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no settings: expected keys such as name, data, model, training")
    for override in overrides:
        _override(tree, override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        changed = f" with {' '.join(f'--set {_cut(override)}' for override in overrides)}" if overrides else ""
        raise UserError(f"{path}{changed}: {problems(error)}") from None


def problems(error: ValidationError) -> str:
    """What is wrong with settings or a card: every key and why, the first few of many."""
    told = [
        f"{_cut('.'.join(map(str, e['loc']))) or 'the whole'}: {_problem(e['type'], e['msg'], e['input'])}"
        for e in error.errors(include_url=False)[:_TOLD]
    ]
    return "; ".join([*told, *([f"and {error.error_count() - _TOLD} more"] if error.error_count() > _TOLD else [])])


class _Loader(yaml.SafeLoader):
    """YAML without merged mappings, which a short text can make endless, and without a key that is given twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise ValueError(f"<< in line {key.start_mark.line + 1}: write the settings out")
        super().flatten_mapping(node)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """What PyYAML makes of it; ValueError for a long one: minutes would go by before 1:1:1:... is a number."""
        if len(str(node.value)) > _LONGEST_TEXT:
            raise ValueError(f"text of more than {_LONGEST_TEXT} characters in line {node.start_mark.line + 1}")
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """What PyYAML makes of it; ValueError for a key that is given twice."""
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            names = [str(key.value) for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), names[0])
            raise ValueError(f"{_shown(twice)} is given twice in the lines from {node.start_mark.line + 1}")
        return found


def _tree(text: str) -> Any:
    """What YAML text holds; ValueError for what is no YAML, or is large or nested beyond any use."""
    if len(text) > _MOST_BYTES:
        raise ValueError(f"text of more than {_MOST_BYTES} characters")
    try:
        tree = yaml.load(text, _Loader)
        for number, _ in enumerate(_values(tree)):  # an alias counts as often as it is used
            if number > _MOST_VALUES:
                raise ValueError(f"more than {_MOST_VALUES} values")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # PyYAML has an error of its own for some kinds of wrong values only: 2001-99-99, !!bool maybe, !!timestamp now.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(_one_line(error)[:500]) from None
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"--set {_shown(override)}: expected key.subkey=value, for example training.steps=100")
    *parents, last = key.split(".")
    if len(parents) >= _DEEPEST:
        raise UserError(f"--set {_shown(override)}: no setting lies {len(parents)} levels deep")
    node: Any = tree
    for parent in parents:
        if isinstance(node.get(parent), str) and parent == "model":
            node[parent] = _named(node[parent])
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {_shown(override)}: {parent} has no keys below it")
    try:
        node[last] = _tree(text)
    except ValueError as error:
        raise UserError(f"--set {_shown(override)}: the value is not YAML: {error}") from None


def _problem(kind: str, message: str, given: object) -> str:
    if kind == "extra_forbidden":
        return "there is no such key"
    return _one_line(message) + (f", got {_shown(given)}" if isinstance(given, str | int | float) else "")


def _shown(value: object) -> str:
    """A value as it stands in a sentence, short."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:76]}..."


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
