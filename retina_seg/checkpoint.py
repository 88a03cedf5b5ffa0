"""The run folder on disk: weights and their cards, log, and the state of an unfinished run.

No training and no inference; packaged weights are found by zoo.
"""

import csv
import errno
import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from retina_seg import files, io
from retina_seg.config import MOST_SIDE, MOST_STEPS, PreprocessConfig, RunConfig, check_arguments, problems
from retina_seg.errors import UserError
from retina_seg.models import build_model
from retina_seg.preprocess import Preprocess
from retina_seg.scores import TITLES, headline

CONFIG, LOG, TABLE, CURVES = "config.yaml", "log.jsonl", "log.csv", "curves.png"
WEIGHTS, CARD, STATE = "weights.safetensors", "card.json", "state.pt"
LOCK = ".lock"
_ABANDONED_S = 3600  # an unfinished file of so many seconds ago has no writer any more
_MOST_CARD, _MOST_HEADER, _TOLD = 16 * 2**20, 16 * 2**20, 500  # bytes; characters of what is wrong


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _file_name(name: str) -> str:
    """A name that files and folders are called by."""
    if name in ("", ".", "..") or set(name) & {"/", "\\"} or not name.isprintable() or len(name) > 200:
        raise ValueError("a name has no separators of folders and no control characters")
    return name


Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$", max_length=100)]
"""The name of what is found in photographs; files are called by it."""
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class _Past(BaseModel):
    """What is read of `BaseCard.training`; whatever else it says stands for people only."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    config: dict[str, Any] = {}
    images: list[str] = []
    threshold_images: list[str] = []
    watched_images: list[str] = []
    learnt_from: list[dict[str, str]] = []
    members: list[dict[str, str]] = []
    steps: int = Field(0, ge=0)
    seconds: float = Field(0, ge=0)


def _past(training: dict[str, Any]) -> dict[str, Any]:
    _Past.model_validate(training)
    return training


class CardModel(_Strict):
    """What `models.build_model` needs."""

    name: str
    in_channels: int
    arguments: dict[str, Any] = {}


class CardInference(_Strict):
    """How the network is used unless the caller says otherwise."""

    flips: bool = False
    window: int = Field(default=1024, ge=64, le=MOST_SIDE)


class BaseCard(_Strict):
    """What the card of any network says: where its weights come from and what they are worth.

    Attributes
    ----------
    training : config, images (`dataset:id`), steps, seconds, precision, versions, and as `differing` files that
        were not the release's.
    terms : training set -> its owners' terms in a sentence.
    speed : what was measured -> seconds.
    limits : known failures, in sentences.
    """

    name: Annotated[str, AfterValidator(_file_name)]
    description: str = ""
    parameters: int = Field(ge=0, le=10**10)
    weights_sha256: Hash = ""
    training: Annotated[dict[str, Any], AfterValidator(_past)] = {}
    terms: dict[str, str] = {}
    scores: dict[str, Any] = {}
    speed: dict[str, float] = {}
    limits: tuple[str, ...] = ()


AnyCard = TypeVar("AnyCard", bound=BaseCard)


class Card(BaseCard):
    """Everything that belongs to weights that segment: how to use them, and what every card says.

    Attributes
    ----------
    targets : the K outputs, in order.
    preprocess : arguments of `preprocess.Preprocess`.
    thresholds, threshold_source : probability from which a pixel counts, and which images chose it.
    scores : report (`protocols.report_name`) -> summary of the report of `retina-seg evaluate`.
    """

    targets: tuple[Target, ...] = Field(min_length=1, max_length=64)
    model: CardModel
    preprocess: dict[str, Any]
    inference: CardInference = CardInference()
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]]
    threshold_source: str

    @model_validator(mode="after")
    def _belongs_together(self) -> "Card":
        settings = Preprocess(**PreprocessConfig.model_validate(self.preprocess).model_dump())
        if settings.channels != self.model.in_channels:
            raise ValueError(f"colour {settings.colour} has {settings.channels} channels, not {self.model.in_channels}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("a target is named twice")
        if missing := set(self.targets) - set(self.thresholds):
            raise ValueError(f"no threshold for {', '.join(sorted(missing))}")
        for score in self.scores.values():
            if not isinstance(score, dict) or not isinstance(score.get("fov"), dict):
                raise ValueError("scores without a block fov")
            if not all(value is None or isinstance(value, int | float) for value in score["fov"].values()):
                raise ValueError("a score is a number, or null where it is undefined")
        return self

    def headline(self) -> str:
        """The two scores that say most of every target, in one line."""
        parts = []
        for name, score in self.scores.items():
            values = {metric: score["fov"].get(metric) for metric in headline(score.get("target", "vessels"))}
            known = [f"{TITLES[metric]} {value:.4f}" for metric, value in values.items() if value is not None]
            parts.append(f"{name}: {', '.join(known)}")
        return "; ".join(parts)


def owing(training: Mapping[str, Any], owed: Sequence[BaseCard]) -> dict[str, Any]:
    """What a card says of a training that owes something to other models: what those have seen, it has seen.

    Where one of them does not say what it has seen, nobody knows it of this one either: `images` is left out.
    """
    if not owed:
        return dict(training)
    result = {**training, "learnt_from": debts(owed)}
    if all("images" in other.training for other in owed):
        keys = [key for other in owed for key in other.training["images"]]
        result["images"] = list(dict.fromkeys([*training["images"], *keys]))
    else:
        del result["images"]
    return result


def debts(owed: Sequence[BaseCard]) -> list[dict[str, str]]:
    """Name and weights of the models a training owes something to."""
    return [{"name": other.name, "weights_sha256": other.weights_sha256} for other in owed]


def check_free(out: Path) -> None:
    """UserError where a folder already holds a run, finished or not, or a file that a run would replace."""
    if any((out / name).exists() for name in (CARD, STATE, CONFIG)):
        raise UserError(f"{out} already holds a run: choose another --out")
    _check_unused(out, (WEIGHTS, LOG, TABLE, CURVES))


def check_new(run: Path, kind: type[RunConfig]) -> None:
    """UserError where a training, with a configuration of this kind, cannot begin in a folder.

    Configuration and log alone are of a training that ended before its first saved state: nothing is lost.
    """
    if any((run / name).exists() for name in (STATE, CARD, WEIGHTS)):
        raise UserError(f"{run} already holds a run: choose another --out, or go on with --resume {run}")
    config = run / CONFIG
    try:
        ours = config.exists() and kind.from_yaml(text := io.read_text(config)).to_yaml() == text
        read_log(run)
    except ValueError:
        ours = False
    _check_unused(run, (CURVES,) if ours else (CONFIG, LOG, TABLE, CURVES))


def _check_unused(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).exists() and not files.is_own(folder / name):
            raise UserError(f"{folder / name} is there already and no training wrote it: choose another --out")


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Keep a run folder, which is made where it is missing, for this process; the system frees it when that ends.

    What killed trainings left of unfinished files is removed. UserError while another process has the folder.
    """
    begun = any((run / name).exists() for name in (LOCK, CONFIG, STATE))
    lock = FileLock(io.make_folder(run) / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{run} is being trained by another process: wait for it, or choose another --out") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{run / LOCK} cannot be locked ({error}): choose another --out") from None
    try:
        # In a folder that no training has had yet others may be writing.
        io.remove_parts(run, older_than_s=0 if begun else _ABANDONED_S)
        yield
    finally:
        lock.release()


def save_model(net: nn.Module, card: AnyCard, weights_path: Path, card_path: Path) -> AnyCard:
    """Write weights and card, weights first; returns the card with the hash of the weights."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    data = save(tensors, metadata={"format": "pt"})
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    with io.atomic(weights_path) as temporary:
        temporary.write_bytes(data)
    write_card(card, card_path)
    return card


def write_card(card: BaseCard, path: Path) -> None:
    """Write a card as JSON."""
    io.write_json(path, card.model_dump(mode="json"))


def read_card(path: Path) -> Card:
    """Read and check a card; UserError where it is missing or not one."""
    return read_any_card(path, Card)


def read_any_card(path: Path, kind: type[AnyCard]) -> AnyCard:
    """`read_card` of any kind of network."""
    if not path.exists():
        raise UserError(f"there is no model card {path}: is the training finished?")
    found = io.read_json(path, most=_MOST_CARD)
    other = "heads" if kind is Card else "targets"  # what only the other kind of card has
    if isinstance(found, dict) and other in found:
        what = "a classifier: use `retina-seg classify`" if kind is Card else "a model that segments, no classifier"
        raise UserError(f"{path} is the card of {what}")
    try:
        card = kind.model_validate(found)
        check_arguments("", found["model"])  # of a classifier the shape of its images, too
        check_arguments(found["model"]["name"], found["model"].get("arguments", {}))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a model card of this version: {_said(error)}") from None
    return card


def load_model(weights_path: Path, card_path: Path) -> tuple[nn.Module, Card]:
    """The network in evaluation mode, and its card.

    Raises
    ------
    UserError
        If a file is missing, the weights are not those of the card or do not fit the network.
    """
    card = read_card(card_path)
    model = card.model

    def build() -> nn.Module:
        return build_model(
            model.name, model.in_channels, len(card.targets), arguments=model.arguments, pretrained=False
        )

    return load_weights(fitting(build, weights_path, card_path), weights_path, card, card_path), card


def fitting(build: Callable[[], nn.Module], weights_path: Path, card_path: Path) -> nn.Module:
    """The network of a card; UserError, before memory is taken, where its weights are not what their file can hold."""
    size, held_there = weight_bytes(build), _size(weights_path, card_path)
    if size is not None and not size <= held_there <= size + _MOST_HEADER:
        raise UserError(
            f"{weights_path} does not fit the network of its card {card_path.name}: that has {size:,} bytes of "
            f"weights, the file {held_there:,}: one of them was changed or damaged; get both again"
        )
    return build()


class _Counted(TorchFunctionMode):
    """`torch.linspace` on the CPU: networks take numbers from it while they are built."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **({**(kwargs or {}), "device": "cpu"} if func is torch.linspace else kwargs or {}))


def weight_bytes(build: Callable[[], nn.Module]) -> int | None:
    """How many bytes the weights of a network take, without taking them; None where only building it would tell.

    UserError as `build` raises.
    """
    try:
        with torch.device("meta"), _Counted():
            weights = build().state_dict()
    except UserError as error:
        if "meta" in str(error):
            return None
        raise
    return sum(value.numel() * value.element_size() for value in weights.values())


def load_weights(net: nn.Module, weights_path: Path, card: BaseCard, card_path: Path) -> nn.Module:
    """The network with the weights of its card, in evaluation mode; raises as `load_model`."""
    _size(weights_path, card_path)
    if (found := sha256(weights_path)) != card.weights_sha256:
        raise UserError(
            f"{weights_path} has hash {found[:12]}, its card says {card.weights_sha256[:12]}: "
            "the file was changed or damaged; get both again"
        )
    try:
        weights = load_file(weights_path)
        for name, own in net.state_dict().items():
            if name in weights and weights[name].dtype != own.dtype:
                raise RuntimeError(f"{name} is of {weights[name].dtype}, not {own.dtype}")
            if name in weights and own.is_floating_point() and not bool(weights[name].isfinite().all()):
                raise RuntimeError(f"{name} holds values that are no numbers")
        net.load_state_dict(weights)
    except (RuntimeError, SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{weights_path} does not fit the network of its card {card_path.name}: {_said(error)}"
        ) from None
    return net.eval()


def _size(weights_path: Path, card_path: Path) -> int:
    if not weights_path.is_file():
        raise UserError(f"there are no weights {weights_path} beside the card {card_path.name}")
    return weights_path.stat().st_size


def sha256(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write the state of a run: nested dicts and lists of tensors, numbers and text."""
    with io.atomic(folder / STATE) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # of PyTorch's own writer, which does not say why
            raise OSError(errno.ENOSPC, "the file could not be written whole, perhaps the disk is full") from error


class _Best(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    score: float
    step: int = Field(ge=0, le=MOST_STEPS)
    waited: int = Field(ge=0, le=MOST_STEPS)
    weights: dict[str, Tensor]


class _State(BaseModel):
    """What state.pt holds; earlier versions did not save the last four."""

    model_config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)

    config: str
    learnt_from: list[dict[str, str]]
    step: int = Field(ge=0, le=MOST_STEPS)
    net: dict[str, Tensor]
    seconds: float = Field(ge=0)
    loss: tuple[float, int]
    averaged: dict[str, Tensor]
    optimiser: dict[str, Any]
    random: Tensor
    scaler: dict[str, Any] = {}
    best: _Best | None = None
    examples: str = ""


def check_resumable(folder: Path) -> None:
    """UserError where there is no state of an unfinished run."""
    if not (folder / STATE).is_file():
        raise UserError(f"{folder} has no {STATE}: there is nothing to resume; start with --out {folder}")


def load_state(folder: Path) -> dict[str, Any]:
    """The state of an unfinished run, on the CPU; UserError where there is none. Nothing in it is executed."""
    check_resumable(folder)
    path = folder / STATE
    try:
        _check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its text tells how to read what may not be read
        raise UserError(f"{path} cannot be read: it is damaged, or no state of a run; start anew") from error
    try:
        _State.model_validate(state)
    except (ValidationError, RecursionError) as error:
        raise UserError(f"{path} is no state of a run ({_said(error)}): start anew") from None
    return state


def _check_archive(path: Path) -> None:
    """ValueError where a state would take more memory than its file: PyTorch's own are never compressed."""
    with zipfile.ZipFile(path) as archive:
        held_inside = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in held_inside):
        raise ValueError("compressed")
    if sum(one.file_size for one in held_inside) > path.stat().st_size:
        raise ValueError("more inside than the file is large")


def _said(error: Exception) -> str:
    """What is wrong, in a line that can be read."""
    return " ".join((problems(error) if isinstance(error, ValidationError) else str(error)).split())[:_TOLD]


class RunLog:
    """log.jsonl and log.csv of a run; on resuming, lines after the saved step are dropped."""

    def __init__(self, run: Path, step: int, *, enabled: bool) -> None:
        self.run, self.enabled = run, enabled
        self.entries = [entry for entry in read_log(run) if entry["step"] <= step] if step else []
        if enabled:
            self._write()

    def add(self, entry: dict[str, float]) -> None:
        """Append one line; both files are whole at any time."""
        self.entries.append(entry)
        if self.enabled:
            self._write()

    def _write(self) -> None:
        io.write_text(self.run / LOG, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        with (
            io.atomic(self.run / TABLE) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            if self.entries:
                writer = csv.DictWriter(
                    file, fieldnames=list(dict.fromkeys(key for one in self.entries for key in one))
                )
                writer.writeheader()
                writer.writerows(self.entries)


def read_log(run: Path) -> list[dict[str, float]]:
    """The lines of a run's log.jsonl, [] where there is none; UserError where it is damaged."""
    path = run / LOG
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in io.read_text(path).splitlines()]
        if any(math.isnan(entry["step"]) for entry in _LOG.validate_python(lines)):
            raise ValueError("a line without its step")
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is no log of a run ({_said(error)}): remove its last line, or the file") from None
    return lines


_LOG = TypeAdapter(list[dict[str, float]])
