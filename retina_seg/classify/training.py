"""Training of classifiers: labelled examples in, a run folder out. The loop itself is in retina_seg.loop."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from retina_seg import checkpoint, loop, zoo
from retina_seg.augment import Augmenter
from retina_seg.checkpoint import BaseCard
from retina_seg.classify import examples, inference, tasks
from retina_seg.classify.config import ClassifyConfig, ClassifyTraining
from retina_seg.classify.examples import Labelled
from retina_seg.classify.inference import ClassifierCard, ClassifierModel, outputs_of
from retina_seg.classify.losses import OUTPUTS, get_loss
from retina_seg.classify.outputs import ORDINAL, VALUE, probabilities, split
from retina_seg.classify.pooled import LesionMaps
from retina_seg.classify.tasks import Wanted
from retina_seg.errors import UserError
from retina_seg.inference import choose_device
from retina_seg.models import count_parameters
from retina_seg.patches import Examples
from retina_seg.preprocess import Preprocess

_VALUES_AT_ONCE = 4_000_000  # of the images that a network looks at together, 16 MB
_MOST_AT_ONCE = 256
_HELD = 2  # an example is held so often at one moment, at least
_FEWEST_WATCHED = 10
_OF_FEATURES = ("none", "flips")
_LARGEST_LOG_TEMPERATURE = math.log(20)


class Looked(dict[str, NDArray[np.float32]]):
    """Key of an example -> what one frozen body makes of it, prepared in one size and way.

    `differing` : key of a photograph that was read -> what of it is not the release's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.differing: dict[str, Sequence[str]] = {}


def fit(
    config: ClassifyConfig,
    run: Path,
    data_root: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[loop.Progress], None] | None = None,
    looked: Looked | None = None,
) -> ClassifierCard:
    """Train a classifier and leave everything about it in the folder `run`; see `loop.fit`.

    Parameters
    ----------
    looked : what the frozen body has made of examples in an earlier training of the same body, size and preprocessing;
        filled with those of this one.

    Raises
    ------
    UserError
        For unknown names in the config, missing data, a folder that already holds a run, or a state of
        another config.
    Interrupted
        After a signal; the state is saved.
    """
    choose_device(device)
    task = _Classification(config, data_root, device, pretrained=not resume, looked=looked)
    again = f"retina-seg classify train --resume {quote(str(run))} --data-root {quote(str(data_root))}"
    return loop.fit(task, config, run, again=again, resume=resume, device=device, progress=progress)


def wanted(config: ClassifyConfig, data_root: str | Path) -> Wanted:
    """What of its task a config asks for."""
    data = config.data
    return Wanted(
        data_root=Path(data_root),
        size=data.size,
        fold=data.fold,
        shift=data.shift,
        folder=data.folder,
        seed=config.seed,
        preprocess=Preprocess(**config.preprocess.model_dump()),
    )


class Stream(Examples):
    """Examples of a whole training: all of them once, in an order drawn by the seed, before any comes again.

    Item `index` depends on the seed and the index alone.
    """

    def __init__(self, part: Labelled, *, augment: str, length: int, seed: int) -> None:
        self.part, self.length, self.seed = part, length, seed
        self._round, self._order = -1, np.zeros(0, np.int64)
        shape = part.images[0].shape
        if augment != "none" and shape[1] == 1:
            raise UserError(f"training.augment is {augment!r}, and vectors of {shape[0]} features cannot be: use none")
        self._augmenter = None if augment == "none" else Augmenter(augment, shape[1], shape[0])

    def __len__(self) -> int:
        """Examples of the whole training."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` float32 (C, h, w) and `labels` (heads,)."""
        round_, place = divmod(index, len(self.part))
        if round_ != self._round:
            self._round = round_
            self._order = np.random.default_rng([self.seed, round_]).permutation(len(self.part))
        number = int(self._order[place])
        image = self.part.images[number]
        if self._augmenter:
            middle = image.shape[1] // 2, image.shape[2] // 2
            chance = int(np.random.default_rng([self.seed, 1, index]).integers(2**32))
            last = np.ascontiguousarray(image.transpose(1, 2, 0))
            image = self._augmenter(last, (), middle, chance)[0].transpose(2, 0, 1)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image)),
            "labels": torch.from_numpy(self.part.labels[number]),
        }


class HeadOnly(nn.Module):
    """A network whose images are what its body made of the examples beforehand; its weights are those of the whole."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.body, self.head = net.get_submodule("body"), net.get_submodule("head")
        self.body.requires_grad_(False).eval()
        self._vectors = False  # known once it has looked

    def forward(self, features: Tensor) -> Tensor:
        """features (N, F, h', w'), of a body that returns vectors (N, F, 1, 1), to outputs (N, K)."""
        found: Tensor = self.head(features.flatten(1) if self._vectors else features)
        return found

    def features(self, part: Labelled, device: str, looked: Looked) -> Labelled:
        """The part with what the body makes of its images in their place; `looked` knows some and gets the others."""
        new = np.array([number for number, key in enumerate(part.keys) if key not in looked], np.int64)
        if len(new):
            coming = part.take(new)
            looked.update(zip(coming.keys, outputs(self.body.to(device), coming, device), strict=True))
        found = np.stack([looked[key] for key in part.keys])
        self._vectors = found.ndim == 2
        shape = (*found.shape, 1, 1) if self._vectors else found.shape
        return Labelled(found.reshape(shape), part.labels, part.keys, part.subjects, part.columns)


def outputs(net: nn.Module, part: Labelled, device: str) -> NDArray[np.float32]:
    """What a network says of all examples, (N, outputs); a few are read at a time."""
    size = max(1, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // part.images[0].size))
    batches = (
        np.stack([part.images[number] for number in range(first, min(first + size, len(part)))])
        for first in range(0, len(part), size)
    )
    return outputs_of(net, batches, device)


class _Classification:
    """The `loop.Task` of answering questions about an image."""

    watched = "minus_loss"

    def __init__(
        self,
        config: ClassifyConfig,
        data_root: str | Path,
        device: str,
        *,
        pretrained: bool,
        looked: Looked | None = None,
    ) -> None:
        self.config, self._device = config, choose_device(device)
        self._looked = Looked() if looked is None else looked
        self._loss = get_loss(config.training.loss)
        self.kind = OUTPUTS[config.training.loss]
        data = config.data
        self._data = tasks.load(data.task, wanted(config, data_root))
        self.heads = self._data.heads
        if (bad := [head.name for head in self.heads if not head.classes]) and self.kind != VALUE:
            raise UserError(
                f"training.loss is {config.training.loss!r}, {', '.join(bad)} is a number: use least_squares"
            )
        if (bad := [head.name for head in self.heads if len(head.classes) < 3]) and self.kind == ORDINAL:
            raise UserError(
                f"training.loss is ordinal, {', '.join(bad)} has no more than two classes: use cross_entropy"
            )
        if config.training.class_weights and (bad := [head.name for head in self.heads if not head.classes]):
            raise UserError(f"training.class_weights: {', '.join(bad)} is a number and has no classes; leave it out")
        self.examples = ",".join((*self._data.train.keys, *self._data.val.keys))
        self.shape = tuple(self._data.train.images[0].shape)
        self._card = ClassifierCard(
            name=config.name,
            parameters=0,
            task=data.task,
            heads={head.name: head.classes for head in self.heads},
            outputs=self.kind,
            model=ClassifierModel(name=config.model.name, in_shape=self.shape, arguments=config.model.arguments),
            preprocess=config.preprocess,
        )
        values = _HELD * math.prod(self.shape)
        loop.check_memory(lambda: inference.build(self._card), dict.fromkeys(config.training.plan(), values))
        torch.manual_seed(config.seed)
        self.net: nn.Module = inference.build(self._card, pretrained=pretrained and not config.training.start)
        self._parameters = count_parameters(self.net)
        self._owed = [_start(self.net, config.training.start)] if config.training.start else []
        self.learnt_from: Sequence[Mapping[str, str]] = checkpoint.debts(self._owed)
        if config.training.frozen:
            if not any(True for _ in self.net.get_submodule("body").parameters()):
                raise UserError(f"training.frozen: the body of {config.model.name} learns nothing; leave it out")
            if not config.training.start and not config.model.arguments.get("weights"):
                raise UserError("training.frozen keeps the body as it is: give training.start or a file of weights")
            if config.training.augment not in _OF_FEATURES:
                raise UserError(
                    f"training.augment is {config.training.augment!r}: what a frozen body makes of the images can be "
                    f"augmented by {' or '.join(_OF_FEATURES)} only"
                )
            self.net = HeadOnly(self.net)

    def prepare(self, say: Callable[[str], None], *, fresh: bool) -> None:
        """Choose the examples; of a frozen body what it makes of them."""
        data = self.config.data
        parts = [self._data.part(name) for name in data.fit]
        self._fit = examples.few(parts[0] if len(parts) == 1 else examples.joined(parts), data.share, self.config.seed)
        self._monitor = (
            self._fit if data.monitor in data.fit and data.monitor == "train" else self._data.part(data.monitor)
        )
        if self._owed and not set(self._monitor.keys) & set(self._fit.keys):
            # What the body was trained on it sees better than what is new: that would make the head look too sure.
            (earlier,) = self._owed
            known = set(tasks.seen(data.task, self._monitor, earlier.training.get("images", ())))
            unseen = np.array([i for i, key in enumerate(self._monitor.keys) if key not in known], np.int64)
            if len(unseen) < _FEWEST_WATCHED:
                raise UserError(
                    f"training.start: {earlier.name} has seen all but {len(unseen)} of the {len(self._monitor)} "
                    "examples that would be watched: give another seed or fold, or start from another model"
                )
            self._monitor = self._monitor.take(unseen)
        if isinstance(self.net, HeadOnly):
            say("looking at the images with the frozen body")
            self._fit, self._monitor = (
                self.net.features(one, self._device, self._looked) for one in (self._fit, self._monitor)
            )
            self._looked.differing.update(self._data.differing)
        elif self.config.training.workers and tasks.find(data.task).retinal:
            say("comparing the photographs with the release")  # what other processes read is not known here
            for part in (self._fit, self._monitor):
                for number in range(len(part)):
                    _ = part.images[number]
        self._weights = [
            _class_weights(_answers(self._fit, number), len(head.classes))
            if self.config.training.class_weights and head.classes
            else None
            for number, head in enumerate(self.heads)
        ]

    @property
    def differing(self) -> list[str]:
        """See `loop.Task`; photographs that a body learns from are read during the training only."""
        used = {key.partition("@")[0] for part in (self._fit, self._monitor) for key in part.keys}
        found = {**self._looked.differing, **self._data.differing}
        return [f"{key} {name}" for key, names in sorted(found.items()) if key in used for name in names]

    def dataset(self, number: int, stage: ClassifyTraining, length: int) -> Stream:
        """The examples in the order in which they are seen."""
        return Stream(self._fit, augment=stage.augment, length=length, seed=self.config.seed + number)

    def loss(self, stage: ClassifyTraining) -> loop.BatchLoss:
        """The mean loss of the questions."""

        def value(outputs: Tensor, batch: loop.Batch) -> Tensor:
            return self._value(outputs, batch["labels"])

        return value

    def _value(self, outputs: Tensor, labels: Tensor, *, weighted: bool = True) -> Tensor:
        parts = []
        for number, one in enumerate(split(outputs, self.heads, self.kind)):
            weights = self._weights[number] if weighted else None
            parts.append(self._loss(one, labels[:, number], None if weights is None else weights.to(one.device)))
        return torch.stack(parts).mean()

    def validate(self, net: nn.Module, device: str) -> dict[str, float]:
        """Minus the loss of the watched examples, unweighted, and of every question the share of right answers."""
        said, labels = torch.from_numpy(outputs(net, self._monitor, device)), torch.from_numpy(self._monitor.labels)
        result = {"minus_loss": -float(self._value(said, labels, weighted=False))}
        for number, (head, one) in enumerate(zip(self.heads, split(said, self.heads, self.kind), strict=True)):
            name = f"{head.name}_" if len(self.heads) > 1 else ""
            if head.classes:
                right = probabilities(one, self.kind).argmax(dim=1) == labels[:, number]
                result[f"{name}accuracy"] = float(right.float().mean())
            else:
                result[f"{name}rmse"] = float((one[:, 0] - labels[:, number]).square().mean().sqrt())
        return result

    def card(self, net: nn.Module, device: str, facts: Mapping[str, Any]) -> ClassifierCard:
        """The card; temperatures are chosen on the watched examples where none of them is learnt from."""
        held_out = not set(self._fit.keys) & set(self._monitor.keys)
        temperatures = {}
        if held_out and self.kind != VALUE:
            said = torch.from_numpy(outputs(net, self._monitor, device))
            for number, (head, one) in enumerate(zip(self.heads, split(said, self.heads, self.kind), strict=True)):
                temperatures[head.name] = round(temperature(one, self.kind, _answers(self._monitor, number)), 3)
        # A photograph of which 2,000 patches are learnt from is named once.
        seen, watched = (
            list(dict.fromkeys(key.partition("@")[0] for key in part.keys)) for part in (self._fit, self._monitor)
        )
        for other in self._owed:  # what chose its thresholds or temperatures chose something of this one
            before = other.training
            watched += [*before.get("threshold_images", ()), *before.get("watched_images", ())]
        facts = {**facts, "images": seen, "watched_images": list(dict.fromkeys(watched))}
        source = f"{len(self._monitor)} validation examples, not learnt from" if temperatures else ""
        return self._card.model_copy(
            update={
                "parameters": self._parameters,
                "temperatures": temperatures,
                "temperature_source": source,
                "training": checkpoint.owing(facts, self._owed),
            }
        )


def temperature(outputs: Tensor, kind: str, labels: NDArray[np.int64]) -> float:
    """What outputs (N, width) of one head are divided by so that labels (N,) are likeliest (Guo 2017)."""
    truth = torch.from_numpy(labels)[:, None]

    def surprise(logarithm: float) -> float:
        prob = probabilities(outputs.double(), kind, math.exp(logarithm))
        return -float(prob.gather(1, truth).clamp(min=1e-12).log().mean())

    found = minimize_scalar(surprise, bounds=(-_LARGEST_LOG_TEMPERATURE, _LARGEST_LOG_TEMPERATURE), method="bounded")
    return math.exp(found.x)


def _answers(part: Labelled, number: int) -> NDArray[np.int64]:
    """Numbers of the answers (N,) to one question that has classes."""
    return part.labels[:, number].astype(np.int64)


def _class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """N / (K n_k) of every class; of one that does not occur 0."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def _start(net: nn.Module, name: str) -> BaseCard:
    """Give the body of a network the weights of another one's; the card of that one. UserError where it does not fit.

    A `lesion_grader` may begin with a packaged model that segments, or a run of one.
    """
    if isinstance(body := net.get_submodule("body"), LesionMaps) and not inference.is_classifier(name):
        segmenter, card = zoo.load(name)
        try:
            body.segmenter.load_state_dict(segmenter.state_dict())
        except RuntimeError:
            raise UserError(
                f"training.start: {name} is a {card.model.name} {card.model.arguments} of {len(card.targets)} targets "
                "and does not fit: give model.arguments.segmenter, arguments and targets as it has them"
            ) from None
        return card
    start = inference.Classifier.from_pretrained(name, "cpu")
    own, given = net.state_dict(), start.net.state_dict()
    wanted = [key for key in own if key.startswith("body.")]
    unfit = [key for key in wanted if key not in given or own[key].shape != given[key].shape]
    if unfit:
        raise UserError(
            f"training.start: {len(unfit)} of the {len(wanted)} tensors of this network's body, {unfit[0]} the first, "
            f"are not as in {name}, a {start.card.model.name} {start.card.model.arguments} of images "
            f"{start.card.model.in_shape}: start from a run of the same model"
        )
    net.load_state_dict({**own, **{key: given[key] for key in wanted}})
    return start.card
