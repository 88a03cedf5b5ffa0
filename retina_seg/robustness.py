"""What it costs a model that photographs are made worse.

No formulas (metrics.py) and no tables (matrices.py).
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retina_seg import protocols, scoring
from retina_seg.checkpoint import Card
from retina_seg.datasets import Sample
from retina_seg.degradations import DEGRADATIONS, Change, Line
from retina_seg.errors import UserError
from retina_seg.evaluate import PredictionLike, evaluate
from retina_seg.inference import Segmenter
from retina_seg.models import Recodes
from retina_seg.records import part_of
from retina_seg.scores import Report
from retina_seg.scoring import Remembered


def score(
    model: str | Path,
    protocol: str,
    data_root: str | Path,
    *,
    degradations: Sequence[str] = tuple(DEGRADATIONS),
    steps: int | None = None,
    penalty_factor: float = 1.0,
    known: Collection[Line] = (),
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    on_lines: Callable[[Sequence[Line]], object] | None = None,
) -> list[Line]:
    """What a packaged model or run folder scores on the test images of a protocol, made worse in one way after another.

    Parameters
    ----------
    degradations : of `DEGRADATIONS`.
    steps, penalty_factor : of the sparse codes of a network that has some, in the place of those of its training.
    known : lines that are not scored again where the weights are the same.
    progress : called with the photographs done and in all, of all degradations.
    on_lines : called with the lines of every degradation when it is scored.

    Raises
    ------
    UserError
        An unknown degradation, model or protocol, a protocol with folds, missing data, or codes asked of a network that
        has none.
    """
    if unknown := [name for name in degradations if name not in DEGRADATIONS]:
        raise UserError(f"unknown degradation {unknown[0]!r}: expected some of {', '.join(DEGRADATIONS)}")
    if protocols.find(protocol).folds:
        raise UserError(f"{protocol} has folds, each with a model of its own: choose a protocol without")
    segmenter = Segmenter.from_pretrained(model, device)
    if (steps, penalty_factor) != (None, 1.0):
        _recode(segmenter, steps, penalty_factor)
    card = segmenter.card
    asked = (*_trained(card), card.weights_sha256, protocol, (steps, penalty_factor))
    seen: dict[str, list[Line]] = {}
    for line in known:
        if (line.config, line.learnt_from, line.seed, line.weights_sha256, line.protocol, line.setting) == asked:
            seen.setdefault(line.degradation, []).append(line)
    whole, lines = scoring.candidate(segmenter), []
    for number, name in enumerate(degradations):

        def tell(done: int, total: int, number: int = number) -> None:
            if progress:
                progress(number * total + done, len(degradations) * total)

        found = seen.get(name)
        if found is None:
            worse = replace(whole, predict=_worse(segmenter, DEGRADATIONS[name]), further=False)
            reports = evaluate(worse, protocol, data_root, progress=tell)
            found = [_line(card, report, name, steps, penalty_factor) for report in reports.values()]
            if on_lines:
                on_lines(found)
        lines += found
    return lines


def _worse(segmenter: Segmenter, change: Change) -> Callable[[Sample], PredictionLike]:
    return lambda sample: predict(segmenter, sample, change)


def _line(card: Card, report: Report, degradation: str, steps: int | None, penalty_factor: float) -> Line:
    config, learnt_from, seed = _trained(card)
    return Line(
        config=config,
        learnt_from=learnt_from,
        seed=seed,
        weights_sha256=card.weights_sha256,
        protocol=report.protocol,
        target=report.target,
        degradation=degradation,
        steps=steps,
        penalty_factor=float(penalty_factor),
        data_sha256=report.provenance["data_sha256"],
        n_images=report.n_images,
        leaked=len(report.leaked_images),
        dice=round(report.fov["dice"], 6),
        auc=round(report.fov["auc"], 6),
    )


def predict(segmenter: Segmenter, sample: Sample, change: Change) -> PredictionLike:
    """What the network says of the photograph made worse, at the photograph's own size.

    Of a change of size the probabilities are brought back, and the field of view is found anew on the way there.
    """
    image = change(sample.image)
    if image.shape == sample.image.shape:
        return segmenter.predict(image, sample.fov, judge=False)
    found, size = segmenter.predict(image, judge=False), sample.image.shape[1::-1]
    prob = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in found.prob])
    assert sample.fov is not None  # evaluate fills it in
    return Remembered(prob, sample.fov, found.targets)


def _recode(segmenter: Segmenter, steps: int | None, penalty_factor: float) -> None:
    if not isinstance(segmenter.net, Recodes):
        raise UserError(f"{segmenter.card.name} is a {segmenter.card.model.name}: it has no sparse codes to change")
    if (steps is not None and steps < 1) or not 0 < penalty_factor < math.inf:
        raise UserError(f"steps {steps} and penalty factor {penalty_factor}: both must be above 0")
    segmenter.net.recode(steps, penalty_factor)


def _trained(card: Card) -> tuple[str, str, int | None]:
    """Name, what it learnt from and seed of the training."""
    config = card.training.get("config")
    if config is None:
        return card.name, "", None
    try:
        data = config["data"]
        return card.name, "+".join(data["protocols"]) + part_of("test", data.get("photographs")), int(config["seed"])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UserError(f"the card of {card.name} holds no configuration of its training in this version") from None
