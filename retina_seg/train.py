"""Training of networks that segment: photographs and teachers in, a run folder out; one validation.

The loop itself is in loop, patches are cut in patches.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retina_seg import checkpoint, datasets, loop, metrics, preprocess, zoo
from retina_seg.checkpoint import Card, CardInference, CardModel
from retina_seg.config import Config, DataConfig, TrainingConfig
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter, choose_device, predict_probability
from retina_seg.loop import Progress
from retina_seg.losses import get_loss
from retina_seg.manifest import Row
from retina_seg.models import Begins, OwnLoss, build_model, count_parameters
from retina_seg.patches import PatchDataset, TrainingImage
from retina_seg.photographs import Photograph, drawn_image, load_photograph, rows_of
from retina_seg.preprocess import Preprocess

_FEATURES = 16  # of a pixel that any network holds at the same moment, at least
_SEEDS_A_STAGE = 100_003  # so that no stage of any usual seed sees the patches of another


def fit(
    config: Config,
    run: Path,
    data_root: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Card:
    """Train a network that segments and leave everything about it in the folder `run`; see `loop.fit`.

    Raises
    ------
    UserError
        For unknown names in the config, missing data, a folder that already holds a run, or a state of
        another config.
    Interrupted
        After a signal; the state is saved.
    """
    choose_device(device)
    task = _Segmentation(config, data_root, device, pretrained=not resume)
    again = f"retina-seg train --resume {quote(str(run))} --data-root {quote(str(data_root))}"
    return loop.fit(task, config, run, again=again, resume=resume, device=device, progress=progress)


class _Segmentation:
    """The `loop.Task` of finding targets in photographs."""

    def __init__(self, config: Config, data_root: str | Path, device: str, *, pretrained: bool) -> None:
        several = len(config.data.targets) > 1
        self.watched = f"{config.data.targets[0]}_ap" if several else "ap"
        self.config, self.data_root, self._device = config, data_root, choose_device(device)
        self.settings = Preprocess(**config.preprocess.model_dump())
        self.net, earlier = _seeded_network(config, self.settings, pretrained=pretrained)
        self._teachers = [Segmenter.from_pretrained(name, device, flips=True) for name in config.data.teachers]
        _check_teachers(self._teachers, config.data.targets)
        self._fit_rows = _few(rows_of(config.data.protocols, config.data.fit), config) if config.data.fit else []
        self._monitor_rows = rows_of(config.data.protocols, config.data.monitor)
        self._owed = [*earlier, *(teacher.card for teacher in self._teachers)]
        self.learnt_from: Sequence[Mapping[str, str]] = checkpoint.debts(self._owed)
        self.examples = ",".join(row.key for row in (*self._fit_rows, *self._monitor_rows))
        self.differing: Sequence[str] = ()

    def prepare(self, say: Callable[[str], None], *, fresh: bool) -> None:
        """Read the photographs; the teachers look at them, and a network that begins from them does."""
        data = self.config.data
        parts = (self._fit_rows, self._monitor_rows)
        self._fit_set, self._monitor_set = _photographs(parts, self.data_root, data.targets, self.settings)
        shown = {one.row.key: one for one in (*self._fit_set, *self._monitor_set)}
        self.differing = [f"{key} {name}" for key, one in shown.items() for name in one.differing]
        self._images = [photograph.for_patches() for photograph in self._fit_set]
        if self._teachers:
            self._images = [
                _taught(image, photograph, self._teachers, data, self.data_root)
                for image, photograph in zip(self._images, self._fit_set, strict=True)
            ]
        self._images += [drawn_image(number, data.targets, self.settings) for number in range(data.drawn)]
        if isinstance(self.net, Begins) and fresh and not self.config.training.start:
            say("learning the dictionary")
            self.net.to(self._device)
            whole = [tuple(map(torch.from_numpy, (one.image, one.target, one.fov))) for one in self._images]
            self.net.begin(whole, self.config.seed)
        self._prevalence = _prevalence(self._images)

    def dataset(self, number: int, stage: TrainingConfig, length: int) -> PatchDataset:
        """The patches of a stage."""
        return PatchDataset(
            self._images,
            size=stage.patch_size,
            augment=stage.augment,
            on_target=stage.on_target,
            length=length,
            seed=self.config.seed + _SEEDS_A_STAGE * number,
        )

    def loss(self, stage: TrainingConfig) -> loop.BatchLoss:
        """The loss of the stage, and what the network is trained for beside the targets."""
        loss = get_loss(stage.loss, self._prevalence)

        def value(logits: Tensor, batch: loop.Batch) -> Tensor:
            of_targets = loss(logits, batch["target"], batch["fov"])
            return of_targets + self.net.own_loss(batch["fov"]) if isinstance(self.net, OwnLoss) else of_targets

        return value

    def validate(self, net: nn.Module, device: str) -> dict[str, float]:
        """`validate` on the monitor images."""
        return validate(net, self._monitor_set, self.config.data.targets, device)

    def card(self, net: nn.Module, device: str, facts: Mapping[str, Any]) -> Card:
        """The card; which images choose the thresholds is told at `DataConfig`."""
        config = self.config
        fit_keys, monitor_keys = ([one.row.key for one in part] for part in (self._fit_set, self._monitor_set))
        held_out = config.data.threshold_on == "monitor" and not set(fit_keys) & set(monitor_keys)
        shown, keys = (self._monitor_set, monitor_keys) if held_out else (self._fit_set, fit_keys)
        if shown:
            source = f"{len(keys)} {'validation images, not trained on' if held_out else 'training images'}"
            tallied = histograms(net, shown, device=device, flips=config.inference.flips)
        else:
            source = f"{len(self._images)} drawn photographs"
            tallied = _drawn_histograms(net, self._images, device=device, flips=config.inference.flips)
        thresholds = [metrics.best_threshold_from_histogram(histogram)[0] for histogram in tallied]
        return Card(
            name=config.name,
            targets=config.data.targets,
            model=CardModel(
                name=config.model.name, in_channels=self.settings.channels, arguments=config.model.arguments
            ),
            preprocess=self.settings.to_dict(),
            inference=CardInference(**config.inference.model_dump()),
            thresholds={t: round(v, 4) for t, v in zip(config.data.targets, thresholds, strict=True)},
            threshold_source=f"highest pooled Dice on {source}",
            parameters=count_parameters(net),
            training=checkpoint.owing(
                {
                    **facts,
                    "images": fit_keys,
                    "drawn": config.data.drawn,
                    "threshold_images": keys,
                    # The best of several weights is chosen on them.
                    "watched_images": monitor_keys if config.training.patience else [],
                },
                self._owed,
            ),
        )


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


def _drawn_histograms(
    net: nn.Module, images: Sequence[TrainingImage], *, device: str, flips: bool
) -> list[NDArray[np.int64]]:
    """`histograms` over training images as the network reads them."""
    net.eval()
    found = []
    for one in images:
        prob = predict_probability(net, one.image, device=device, flips=flips)
        marked = one.target >= 0.5
        found.append([metrics.score_histogram(p, t, one.fov) for p, t in zip(prob, marked, strict=True)])
    return [np.sum(of_target, axis=0) for of_target in zip(*found, strict=True)]


def _seeded_network(config: Config, settings: Preprocess, *, pretrained: bool) -> tuple[nn.Module, list[Card]]:
    """The network before the first step, and the card of the model it starts from, if it starts from one.

    Without `pretrained` the file named by the argument `weights` is not needed: a resumed run has weights of its own.
    """

    def build(pretrained: bool) -> nn.Module:
        model, targets = config.model, len(config.data.targets)
        return build_model(model.name, settings.channels, targets, arguments=model.arguments, pretrained=pretrained)

    sides = {s: settings.fov_diameter or 0 if s.patch_size == "image" else s.patch_size for s in config.training.plan()}
    values = settings.channels + len(config.data.targets) + _FEATURES
    loop.check_memory(lambda: build(False), {stage: values * side**2 for stage, side in sides.items()})
    torch.manual_seed(config.seed)
    net = build(pretrained and not config.training.start)
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
        prob = teacher.predict(pixels, photograph.fov, judge=False).prob
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


def _photographs(
    parts: Sequence[Sequence[Row]], data_root: str | Path, targets: Sequence[str], settings: Preprocess
) -> list[list[Photograph]]:
    """The photographs of each part; one that is in several is read once."""
    rows = {row.key: row for part in parts for row in part}
    loaded = {key: load_photograph(row, data_root, targets, settings) for key, row in rows.items()}
    return [[loaded[row.key] for row in part] for part in parts]
