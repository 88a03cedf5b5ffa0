"""A packaged model or a run scored by a protocol: the Segmenter on one side, evaluate on the other.

No formulas and no tables.
"""

from collections.abc import Callable
from pathlib import Path

from retina_seg import io, zoo
from retina_seg.checkpoint import Card
from retina_seg.datasets import Sample
from retina_seg.evaluate import Candidate, PredictionLike, evaluate
from retina_seg.inference import Prediction, Segmenter
from retina_seg.manifest import Row
from retina_seg.protocols import find
from retina_seg.scores import Report


def candidate(segmenter: Segmenter, target: str) -> Candidate:
    """The segmenter's output `target` as something evaluate can score, with its past from the card."""
    card = segmenter.card

    def predict(sample: Sample) -> Prediction:
        return segmenter.predict(sample.image, sample.fov)

    return Candidate(
        name=card.name,
        predict=predict,
        threshold=card.thresholds.get(target, 0.5),
        threshold_source=card.threshold_source,
        trained_on=seen_images(card),
        weights_sha256=card.weights_sha256,
        provenance={"flips": segmenter.flips, "device": segmenter.device, "parameters": card.parameters},
    )


def seen_images(card: Card) -> frozenset[str] | None:
    """`dataset:id` of every image that shaped the weights or the thresholds; None where the card is silent."""
    if "images" not in card.training:
        return None
    return frozenset(card.training["images"]) | frozenset(card.training.get("threshold_images", ()))


def score(
    model: str | Path,
    protocol: str,
    data_root: str | Path,
    *,
    device: str = "auto",
    flips: bool | None = None,
    save_to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a packaged model or run folder; `save_to` gets mask, probability and JSON of every image.

    For protocols with folds `model` is a folder pattern with `{fold}`, for example `runs/stare-fold{fold}`.

    Raises
    ------
    UserError
        For an unknown model or protocol, or data that is missing.
    """
    plan = find(protocol)

    def load(fold: int) -> Candidate:
        name = str(model).replace("{fold}", str(fold))
        return candidate(Segmenter.from_pretrained(name, device, flips=flips), plan.target)

    def keep(row: Row, sample: Sample, prediction: PredictionLike) -> None:
        if save_to is not None and isinstance(prediction, Prediction):
            prediction.save(save_to, row.key.replace(":", "_").replace("/", "_"), what=("mask", "prob"))

    return evaluate(load, protocol, data_root, progress=progress, on_prediction=keep)


def keep(report: Report, model: str | Path) -> Path | None:
    """Write the report of a run folder into that folder; gives the file, or None where nothing is kept.

    Kept is what the run itself is worth: not what a packaged model, several folds or the network used in another
    way than its card says (`flips`) scored.
    """
    if str(model) in zoo.names() or "{fold}" in str(model):
        return None
    flips = {one["provenance"]["flips"] for one in report.provenance["models"]}
    if flips != {zoo.card(model).inference.flips}:
        return None
    path = zoo.report_path(model, report.protocol)
    io.make_folder(path.parent)
    io.write_text(path, report.to_json())
    return path
