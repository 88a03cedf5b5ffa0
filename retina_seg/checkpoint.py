"""The run folder on disk: weights and their cards, log, and the state of an unfinished run.

No training and no inference; packaged weights are found by zoo.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from retina_seg import io
from retina_seg.errors import UserError
from retina_seg.models import build_model
from retina_seg.scores import TITLES, headline

CONFIG, LOG, TABLE = "config.yaml", "log.jsonl", "log.csv"
WEIGHTS, CARD, STATE = "weights.safetensors", "card.json", "state.pt"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CardModel(_Strict):
    """What `models.build_model` needs."""

    name: str
    in_channels: int
    arguments: dict[str, Any] = {}


class CardInference(_Strict):
    """How the network is used unless the caller says otherwise."""

    flips: bool = False
    window: int = 1024


class BaseCard(_Strict):
    """What the card of any network says: where its weights come from and what they are worth.

    Attributes
    ----------
    training : config, images (`dataset:id`), steps, seconds, precision, versions.
    terms : training set -> its owners' terms in a sentence.
    speed : what was measured -> seconds.
    limits : known failures, in sentences.
    """

    name: str
    description: str = ""
    parameters: int
    weights_sha256: str = ""
    training: dict[str, Any] = {}
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

    targets: tuple[str, ...]
    model: CardModel
    preprocess: dict[str, Any]
    inference: CardInference = CardInference()
    thresholds: dict[str, float]
    threshold_source: str

    def headline(self) -> str:
        """The two scores that say most of every target, in one line."""
        parts = []
        for name, score in self.scores.items():
            values = {metric: score["fov"][metric] for metric in headline(score.get("target", "vessels"))}
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
    """UserError where a folder already holds a run, finished or not."""
    if any((out / name).exists() for name in (CARD, STATE, CONFIG)):
        raise UserError(f"{out} already holds a run: choose another --out")


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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = "heads" if kind is Card else "targets"  # what only the other kind of card has
        if isinstance(found, dict) and other in found:
            what = "a classifier: use `retina-seg classify`" if kind is Card else "a model that segments, no classifier"
            raise UserError(f"{path} is the card of {what}")
        return kind.model_validate(found)
    except FileNotFoundError:
        raise UserError(f"there is no model card {path}: is the training finished?") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        raise UserError(f"{path} is not a model card of this version: {' '.join(str(error).split())}") from None


def load_model(weights_path: Path, card_path: Path) -> tuple[nn.Module, Card]:
    """The network in evaluation mode, and its card.

    Raises
    ------
    UserError
        If a file is missing, the weights are not those of the card or do not fit the network.
    """
    card = read_card(card_path)
    model = card.model
    net = build_model(model.name, model.in_channels, len(card.targets), arguments=model.arguments, pretrained=False)
    return load_weights(net, weights_path, card, card_path), card


def load_weights(net: nn.Module, weights_path: Path, card: BaseCard, card_path: Path) -> nn.Module:
    """The network with the weights of its card, in evaluation mode; raises as `load_model`."""
    if not weights_path.is_file():
        raise UserError(f"there are no weights {weights_path} beside the card {card_path.name}")
    if (found := sha256(weights_path)) != card.weights_sha256:
        raise UserError(
            f"{weights_path} has hash {found[:12]}, its card says {card.weights_sha256[:12]}: "
            "the file was changed or damaged; get both again"
        )
    try:
        net.load_state_dict(load_file(weights_path))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights_path} does not fit the network of its card {card_path.name}: {error}") from None
    return net.eval()


def sha256(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write the state of a run: nested dicts and lists of tensors, numbers and text."""
    with io.atomic(folder / STATE) as temporary:
        torch.save(dict(state), temporary)


def load_state(folder: Path) -> dict[str, Any]:
    """The state of an unfinished run, on the CPU; UserError where there is none. Nothing in it is executed."""
    path = folder / STATE
    if not path.is_file():
        raise UserError(f"{folder} has no {STATE}: there is nothing to resume; start with --out {folder}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its text tells how to read what may not be read
        raise UserError(f"{path} cannot be read: it is damaged, or no state of a run; start anew") from error
    if not isinstance(state, dict) or {"config", "learnt_from", "step", "net"} - set(state):
        raise UserError(f"{path} is no state of a run: start anew")
    return state


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
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is no log of a run ({error}): remove its last line, or the file") from None
