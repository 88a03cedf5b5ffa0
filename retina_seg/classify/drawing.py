"""Pictures of a classifier as files: what its report says, and what it looks at in an image.

How they look is in retina_seg.figures, what is shown of a network in retina_seg.explain.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retina_seg import checkpoint, explain, figures, report
from retina_seg.classify import evaluation, inference, measures
from retina_seg.classify.evaluation import ClassReport, HeadReport
from retina_seg.classify.inference import Answer, Classifier
from retina_seg.classify.outputs import ORDINAL, Head, width
from retina_seg.errors import UserError

_LOOKED_THROUGH = 300


def draw_report(scored: ClassReport, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Draw the figures of `measured`, each as PNG; returns the paths."""
    return report.write(measured(scored), out, overwrite=overwrite)


def measured(scored: ClassReport) -> dict[str, Any]:
    """What a report says of every question that has classes, as figures: confusion-, roc- and reliability-<question>.

    Of the examples that the classifier has not seen, where it has seen some.
    """
    drawn = {}
    for name, head in (scored.clean or scored.heads).items():
        if head.classes:
            drawn[f"confusion-{name}"] = figures.confusion(head.confusion, head.classes)
            drawn[f"roc-{name}"] = figures.roc_curves(_roc(scored, name, head))
            drawn[f"reliability-{name}"] = figures.reliability_diagram(**head.reliability)
    return drawn


def _roc(scored: ClassReport, name: str, head: HeadReport) -> dict[str, tuple[Any, Any, float]]:
    """The curve of every class from the probabilities of the examples, with the area that the report has."""
    seen = frozenset(scored.leaked if scored.clean else ())
    answers = [one[name] for one in scored.per_example if one["key"] not in seen]
    prob = np.array([one["probabilities"] for one in answers])
    truth = np.array([head.classes.index(one["truth"]) for one in answers])
    # They are rounded in the report.
    found = measures.roc(prob / prob.sum(axis=1, keepdims=True), truth)
    return {one: (curve.fpr, curve.tpr, head.roc[one]) for one, curve in zip(head.classes, found, strict=True)}


def draw_learning(name: str | Path, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Draw the figure of `learning`, if there is one, as PNG; returns its path."""
    return report.write(learning(name), out, overwrite=overwrite)


def learning(name: str | Path) -> dict[str, Any]:
    """How a classifier learnt, as figure: curves of loss and watched scores. Only a run folder with a log has any."""
    log = [] if str(name) in inference.names() else checkpoint.read_log(Path(name))
    return {"curves": report.learning(log)} if log else {}


def draw_explained(
    classifier: Classifier, image: NDArray[np.uint8], out: Path, *, overwrite: bool = False
) -> list[Path]:
    """Draw the figures of `explained` for an image uint8 (H, W, 3), each as PNG; returns the paths.

    UserError for a classifier that reads no single images.
    """
    prepared = classifier.prepare(image)
    return report.write(explained(classifier, prepared, classifier.answers(prepared)), out, overwrite=overwrite)


def explained(classifier: Classifier, prepared: NDArray[np.float32], answers: Sequence[Answer]) -> dict[str, Any]:
    """What a classifier looks at in a prepared image float32 (C, h, w), as figures; `answers` are its own.

    filters where the network has any, features where it has maps, and of every question cam-<question>: where the
    image speaks for the answer, or of an ordinal question or a number for more of it.
    """
    drawn: dict[str, Any] = {}
    with suppress(UserError):  # a network without, as one of recurrent layers
        drawn["filters"] = figures.filter_grid(explain.filters(classifier.net, classifier.card.model.in_shape))
    if maps := explain.feature_maps(classifier.net, prepared):
        drawn["features"] = figures.feature_map_grid(maps)
        del maps  # of a photograph they are large
    first = 0
    for head, answer in zip(classifier.card.questions(), answers, strict=True):
        chosen, title = _asked(head, answer, classifier.card.outputs)
        cam = explain.class_activation(classifier.net, prepared, [first + one for one in chosen])
        drawn[f"cam-{head.name}"] = figures.activation_overlay(prepared, cam, title=title)
        first += width(head, classifier.card.outputs)
    return drawn


def draw_activating(
    classifier: Classifier,
    data_root: str | Path,
    out: Path,
    unit: int,
    layer: str | None,
    *,
    overwrite: bool = False,
) -> Path:
    """Draw the patches of the first test images that activate a unit most.

    UserError as `explain.activating`, and where none of them does.
    """
    part = evaluation.part_of(classifier.card, data_root, "test")
    images = part.take(np.arange(min(len(part), _LOOKED_THROUGH))).images
    found = explain.activating(classifier.net, images, unit, layer=layer)
    if not found:
        raise UserError(f"none of the first {len(images)} test images activates unit {unit}: choose another one")
    return report.write({"activating": figures.activating_grid(found)}, out, overwrite=overwrite)[0]


def _asked(head: Head, answer: Answer, kind: str) -> tuple[list[int], str]:
    """The outputs of a head that say its answer, and what their activation is called."""
    if kind == ORDINAL:
        return list(range(width(head, kind))), f"{head.name} {answer.answer}: what raises it"
    if not head.classes:
        return [0], f"{head.name} {answer.answer}: what raises it"
    return [head.classes.index(answer.answer)], f"{head.name}: what speaks for {answer.answer}"
