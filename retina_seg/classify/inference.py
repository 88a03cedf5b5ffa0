"""Classifier: from an image to an answer with its probabilities; the cards and the packaged weights of classifiers.

No training and no scores.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from retina_seg import checkpoint, io, quality, zoo
from retina_seg.checkpoint import BaseCard
from retina_seg.classify import tasks
from retina_seg.classify.models import build_model
from retina_seg.classify.outputs import VALUE, Head, Kind, probabilities, split, width
from retina_seg.config import PreprocessConfig
from retina_seg.decode import InMemory
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.inference import choose_device, photograph_doubts
from retina_seg.preprocess import Preprocess
from retina_seg.quality import Doubt

FOLDER = zoo.CLASSIFIERS
_AT_ONCE = 256


class ClassifierModel(checkpoint._Strict):
    """What `models.build_model` needs."""

    name: str
    in_shape: tuple[int, int, int]
    arguments: dict[str, Any] = Field(default_factory=dict)


class ClassifierCard(BaseCard):
    """Everything that belongs to the weights of a classifier.

    Attributes
    ----------
    task : in `tasks.TASKS`.
    heads : question -> possible answers, in order; none where the answer is a number.
    outputs : "softmax", "ordinal" or "value" (`outputs.probabilities`).
    temperatures : question -> what its outputs are divided by, so that probabilities are frequencies.
    temperature_source : which examples chose them, "" where none did.
    scores : which test examples -> question -> score -> value, and "joint" for all questions at once.
    """

    task: str
    heads: dict[str, tuple[str, ...]]
    outputs: Kind
    model: ClassifierModel
    preprocess: PreprocessConfig = PreprocessConfig()
    temperatures: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    temperature_source: str = ""

    def questions(self) -> tuple[Head, ...]:
        """The heads."""
        ordered = tasks.find(self.task).ordered
        return tuple(Head(name, classes, ordered) for name, classes in self.heads.items())


@dataclass(frozen=True)
class Answer:
    """What a classifier says to one question.

    Attributes
    ----------
    question : name of the head.
    answer : the most likely class, or the number.
    probabilities : class -> probability, {} where the answer is a number.
    """

    question: str
    answer: str
    probabilities: Mapping[str, float]


def build(card: ClassifierCard, *, pretrained: bool = False) -> nn.Module:
    """The network of a card, with random weights."""
    outputs = sum(width(head, card.outputs) for head in card.questions())
    model = card.model
    return build_model(model.name, model.in_shape, outputs, arguments=model.arguments, pretrained=pretrained)


def names() -> list[str]:
    """Names of the packaged classifiers."""
    return zoo.packaged(FOLDER)


def files(name: str | Path) -> tuple[Path, Path]:
    """Paths of weights and card of a packaged classifier or a run folder; UserError where there is neither."""
    if str(name) in zoo.names():
        raise UserError(f"{name} is a model that segments: use it with `retina-seg predict`, without `classify`")
    return zoo.files(name, FOLDER, names(), what="classifier", command="classify train")


def package(run: Path, updates: Mapping[str, object], folder: Path = FOLDER) -> ClassifierCard:
    """Copy a finished run's weights and card into `folder`; the card's fields are replaced by `updates`."""
    weights, path = files(run)
    original = checkpoint.read_any_card(path, ClassifierCard)
    finished = ClassifierCard.model_validate({**original.model_dump(), **updates})
    io.make_folder(folder)
    with io.atomic(folder / f"{finished.name}{zoo.SUFFIX}") as temporary:
        temporary.write_bytes(weights.read_bytes())
    checkpoint.write_card(finished, folder / f"{finished.name}.json")
    return finished


def verify() -> dict[str, str]:
    """Load every packaged classifier; name -> "" where all is sound, else what is wrong."""
    problems = {}
    for name in names():
        try:
            Classifier.from_pretrained(name, "cpu")
            problems[name] = ""
        except UserError as error:
            problems[name] = str(error)
    return problems


def seen_by(card: BaseCard) -> list[str]:
    """What a model has learnt from, or what chose its thresholds, temperatures or last step; [] if it does not say."""
    training = card.training
    return [key for part in ("images", "threshold_images", "watched_images") for key in training.get(part, ())]


def is_classifier(name: str | Path) -> bool:
    """Whether a packaged model or run folder of this name is of a classifier."""
    if str(name) in names():
        return True
    try:
        found = io.read_json(Path(name) / checkpoint.CARD)
    except UserError:
        return False
    return isinstance(found, dict) and "heads" in found


def card_of(name: str | Path) -> ClassifierCard:
    """The card of a packaged classifier or of a run folder."""
    return checkpoint.read_any_card(files(name)[1], ClassifierCard)


@dataclass(frozen=True)
class Classified:
    """The answers about an image, and of a photograph what makes them doubtful (`quality`)."""

    answers: tuple[Answer, ...]
    doubts: tuple[Doubt, ...]

    @property
    def withheld(self) -> bool:
        """Whether a doubt is such that the answers should not be shown."""
        return quality.withheld(self.doubts)


class Classifier:
    """A network that answers questions about an image.

    Examples
    --------
    >>> grader = Classifier.from_pretrained("dr-grade")
    >>> grade, oedema = grader.predict("eye.jpg").answers
    >>> grade.answer, grade.probabilities["0"]
    """

    def __init__(self, net: nn.Module, card: ClassifierCard, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.net, self.card = net.eval().to(self.device), card
        self.settings = Preprocess(**card.preprocess.model_dump())

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto") -> "Classifier":
        """A packaged classifier, or the folder of a finished run; UserError where it is neither, damaged or changed."""
        weights, path = files(name)
        card = checkpoint.read_any_card(path, ClassifierCard)
        net = checkpoint.fitting(partial(build, card), weights, path)
        return cls(checkpoint.load_weights(net, weights, card, path), card, device)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An image uint8 (H, W, 3) as the network reads it, float32 (C, h, w); UserError for tasks without images."""
        how = tasks.find(self.card.task).prepare
        if how is None:
            raise UserError(f"{self.card.name} answers {self.card.task}, which no single image can ask")
        return how(image, self.card.model.in_shape, self.settings)

    def predict(self, source: str | Path | InMemory | NDArray[Any] | PIL.Image.Image) -> Classified:
        """The answer to every question about an image, and doubts about a photograph.

        Parameters
        ----------
        source : file, by its path or in memory, uint8 (H, W, 3) RGB, or an array or PIL image that is read as a file
            with its pixels would be (`io.as_photograph`).

        Raises
        ------
        UserError
            For what is no image, and a file smaller than photographs, of digits than 4 pixels, may be.
        """
        image = self.read(source)
        return Classified(tuple(self.answers(self.prepare(image))), self.doubts(image))

    def read(self, source: str | Path | InMemory | NDArray[Any] | PIL.Image.Image) -> NDArray[np.uint8]:
        """An image uint8 (H, W, 3) of the kind it answers about: digits may be smaller than photographs."""
        if not isinstance(source, str | os.PathLike | InMemory):
            return io.as_photograph(source)
        retinal = tasks.find(self.card.task).retinal
        return io.read_image(source, min_side=io.MIN_SIDE if retinal else 4)

    def doubts(self, image: NDArray[np.uint8]) -> tuple[Doubt, ...]:
        """What makes answers about a photograph uint8 (H, W, 3) doubtful; () where the task has no photographs."""
        if not tasks.find(self.card.task).retinal:
            return ()
        return quality.for_grading(photograph_doubts(image, find_fov(image)))

    def answers(self, prepared: NDArray[np.float32]) -> list[Answer]:
        """The answer to every question about a prepared image float32 (C, h, w)."""
        found = []
        for head, prob in zip(self.card.questions(), self.probabilities(prepared[None]), strict=True):
            if not head.classes:
                found.append(Answer(head.name, f"{prob[0, 0]:.3g}", {}))
                continue
            named = {one: float(value) for one, value in zip(head.classes, prob[0], strict=True)}
            found.append(Answer(head.name, head.classes[int(prob[0].argmax())], named))
        return found

    def probabilities(self, prepared: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Of images float32 (N, C, h, w), for every question (N, K) that sum to 1, or (N, 1) numbers."""
        return self.calibrated(torch.from_numpy(self.outputs(prepared)))

    def calibrated(self, outputs: Tensor) -> list[NDArray[np.float32]]:
        """Outputs (N, sum of widths) as probabilities of every question, divided by its temperature."""
        heads, found = self.card.questions(), []
        for head, one in zip(heads, split(outputs, heads, self.card.outputs), strict=True):
            found.append(self._of_head(head, one).numpy())
        return found

    def _of_head(self, head: Head, outputs: Tensor) -> Tensor:
        prob = probabilities(outputs, self.card.outputs, self.card.temperatures.get(head.name, 1.0))
        if self.card.outputs != VALUE or not head.classes:
            return prob
        # Least squares aims at 0 and 1 but is bound by neither. Where nothing is above 0 the order must stay.
        below = prob.amin(dim=1, keepdim=True) * (prob.amax(dim=1, keepdim=True) <= 0)
        inside = (prob - below).clamp(min=1e-6)
        return inside / inside.sum(dim=1, keepdim=True)

    @torch.inference_mode()
    def outputs(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network says of images float32 (N, C, h, w): float32 (N, outputs)."""
        return outputs_of(
            self.net, [prepared[i : i + _AT_ONCE] for i in range(0, len(prepared), _AT_ONCE)], self.device
        )


@torch.inference_mode()
def outputs_of(net: nn.Module, batches: Iterable[NDArray[np.float32]], device: str) -> NDArray[np.float32]:
    """What a network in evaluation mode says of batches (n, C, h, w), all together (N, outputs)."""
    net.eval()
    found = [net(torch.from_numpy(np.ascontiguousarray(batch)).to(device)).float().cpu().numpy() for batch in batches]
    return np.concatenate(found)
