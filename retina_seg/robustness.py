"""What it costs a model that photographs are made worse.

No formulas (metrics.py) and no tables (matrices.py).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retina_seg import scoring
from retina_seg.checkpoint import Card
from retina_seg.datasets import Sample
from retina_seg.degradations import DEGRADATIONS, Change, Line
from retina_seg.errors import UserError
from retina_seg.evaluate import Candidate, PredictionLike, evaluate_together
from retina_seg.inference import Segmenter
from retina_seg.models import Recodes
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
) -> list[Line]:
    """What a packaged model or run folder scores on the test images of a protocol, made worse in each way.

    Parameters
    ----------
    degradations : of `DEGRADATIONS`.
    steps, penalty_factor : of the sparse codes of a network that has some, in the place of those of its training.
    known : lines that are not scored again where the weights are the same.

    Raises
    ------
    UserError
        An unknown degradation, model or protocol, missing data, or codes asked of a network that has none.
    """
    if unknown := [name for name in degradations if name not in DEGRADATIONS]:
        raise UserError(f"unknown degradation {unknown[0]!r}: expected some of {', '.join(DEGRADATIONS)}")
    segmenter = Segmenter.from_pretrained(model, device)
    if (steps, penalty_factor) != (None, 1.0):
        _recode(segmenter, steps, penalty_factor)
    card = segmenter.card
    asked = (card.name, _seed(card), card.weights_sha256, protocol, (steps, penalty_factor))
    seen: dict[str, list[Line]] = {}
    for line in known:
        if (line.config, line.seed, line.weights_sha256, line.protocol, line.setting) == asked:
            seen.setdefault(line.degradation, []).append(line)
    whole = scoring.candidate(segmenter)

    def worse(change: Change) -> Candidate:
        return replace(whole, predict=lambda sample: predict(segmenter, sample, change), further=False)

    models = {name: worse(DEGRADATIONS[name]) for name in degradations if name not in seen}
    reports = evaluate_together(models, protocol, data_root, progress=progress) if models else {}
    lines = []
    for name in degradations:
        lines += seen.get(name) or [
            Line(
                config=card.name,
                seed=_seed(card),
                weights_sha256=card.weights_sha256,
                protocol=protocol,
                target=target,
                degradation=name,
                steps=steps,
                penalty_factor=penalty_factor,
                n_images=report.n_images,
                dice=round(report.fov["dice"], 6),
                auc=round(report.fov["auc"], 6),
            )
            for target, report in reports[name].items()
        ]
    return lines


def predict(segmenter: Segmenter, sample: Sample, change: Change) -> PredictionLike:
    """What the network says of the photograph made worse, at the photograph's own size.

    Of a change of size the probabilities are brought back, and the field of view is found anew on the way there.
    """
    image = change(sample.image)
    if image.shape == sample.image.shape:
        return segmenter.predict(image, sample.fov)
    found, size = segmenter.predict(image), sample.image.shape[1::-1]
    prob = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in found.prob])
    assert sample.fov is not None  # evaluate fills it in
    return Remembered(prob, sample.fov, found.targets)


def _recode(segmenter: Segmenter, steps: int | None, penalty_factor: float) -> None:
    if not isinstance(segmenter.net, Recodes):
        raise UserError(f"{segmenter.card.name} is a {segmenter.card.model.name}: it has no sparse codes to change")
    if (steps is not None and steps < 1) or penalty_factor <= 0:
        raise UserError(f"steps {steps} and penalty factor {penalty_factor}: both must be above 0")
    segmenter.net.recode(steps, penalty_factor)


def _seed(card: Card) -> int | None:
    seed: int | None = card.training.get("config", {}).get("seed")
    return seed
