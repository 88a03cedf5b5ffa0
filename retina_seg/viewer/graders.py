"""Classifiers of the viewer: what they answer about a photograph and what they look at, as pictures.

Models that segment are in engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import checkpoint, explain, figures, quality, report
from retina_seg.classify import drawing, evaluation, inference, tasks
from retina_seg.classify.inference import Answer, Classifier, ClassifierCard
from retina_seg.viewer import engine
from retina_seg.viewer.opened import Loaded

TITLES = {"dr_grade": "Diabetic retinopathy, grade", "dme_risk": "Risk of macular oedema"}
"""Questions as the page calls them."""
MEANINGS: dict[str, Mapping[str, str]] = {
    "dr_grade": {"0": "none", "1": "mild", "2": "moderate", "3": "severe", "4": "proliferative"},
    "dme_risk": {
        "0": "no hard exudates",
        "1": "hard exudates, none near the fovea",
        "2": "hard exudates near the fovea",
    },
}
"""Question -> answer -> what it means."""


def error_of(card: ClassifierCard) -> str:
    """How far its probabilities are off on the test photographs of its card, in words; "" without scores."""
    scores = list(card.scores.values())[-1] if card.scores else {}
    errors = [f"{scores[name]['ece']:.2f}" for name in card.heads if "ece" in scores.get(name, {})]
    if not errors:
        return ""
    return f", and on test photographs still off by {' and '.join(errors)} (expected calibration error)"


@dataclass(frozen=True)
class Graded:
    """What a classifier says of a photograph, what makes that doubtful, and what it looks at.

    `figures` are those of `drawing.explained` as PNG, by name. There are no answers and figures where a doubt withholds
    them.
    """

    answers: Sequence[Answer]
    doubts: Sequence[str]
    figures: Mapping[str, bytes]


def names(runs: tuple[str, ...]) -> dict[str, str]:
    """Name or run folder of every classifier of photographs -> what the page calls it; the packaged ones first."""
    found = {name: name for name in inference.names()}
    found |= {run: title for run, title in engine.titles(runs).items() if inference.is_classifier(run)}
    return {name: title for name, title in found.items() if _of_photographs(name)}


def _of_photographs(name: str) -> bool:
    spec = tasks.find(card(name).task)
    return spec.retinal and spec.prepare is not None


def card(name: str) -> ClassifierCard:
    """The card of a classifier."""
    return inference.card_of(name)


def measured(name: str) -> tuple[str, Mapping[str, bytes]]:
    """What a classifier was worth on test photographs: of how many, in words, and the figures of its report as PNG.

    Nothing where there is no report; UserError where it is damaged.
    """
    path = evaluation.report_path(name)
    return _measured(name, path.stat().st_mtime_ns) if path.is_file() else ("", {})


@lru_cache(maxsize=engine.MODELS)
def _measured(name: str, _written: int) -> tuple[str, Mapping[str, bytes]]:
    scored = evaluation.kept(name)
    assert scored is not None
    unseen = scored.n_examples - len(scored.leaked) if scored.clean else scored.n_examples
    text = f"{unseen} test photographs of {scored.task}, none of which the classifier has seen"
    return text, {title: report.png(figure) for title, figure in drawing.measured(scored).items()}


def learning(name: str) -> bytes | None:
    """The learning curves of a run folder as PNG; None of what keeps no log, as packaged classifiers."""
    log = Path(name) / checkpoint.LOG
    return _learning(name, log.stat().st_mtime_ns) if log.is_file() else None


@lru_cache(maxsize=engine.MODELS)
def _learning(name: str, _written: int) -> bytes | None:
    return next((report.png(figure) for figure in drawing.learning(name).values()), None)


@lru_cache(maxsize=engine.MODELS)
def _classifier(name: str) -> Classifier:
    return Classifier.from_pretrained(name)


def grade(name: str, loaded: Loaded) -> Graded:
    """Ask a classifier about a photograph; waits while another visitor runs a model."""
    with engine.turn():
        classifier = _classifier(name)
        doubts = classifier.doubts(loaded.image)
        texts = [doubt.text for doubt in doubts]
        if quality.withheld(doubts):
            return Graded((), texts, {})
        prepared = classifier.prepare(loaded.image)
        answers = classifier.answers(prepared)
        drawn = drawing.explained(classifier, prepared, answers)
        first = sorted(drawn, key=lambda name: not name.startswith("cam"))  # what a visitor asks first
        return Graded(answers, texts, {name: report.png(drawn[name]) for name in first})


class _Prepared:
    """Photographs as a classifier reads them, each prepared when it is asked for."""

    def __init__(self, classifier: Classifier, photographs: Sequence[Loaded]) -> None:
        self._classifier, self._photographs = classifier, photographs

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        return self._classifier.prepare(self._photographs[number].image)


def activating(name: str, photographs: Sequence[Loaded], unit: int) -> tuple[bytes, list[int]]:
    """The patches of photographs that excite a unit of the last maps most, as PNG, and which photographs they are of.

    UserError for a unit that the classifier does not have; waits while another visitor runs a model.
    """
    with engine.turn():
        classifier = _classifier(name)
        found = explain.activating(classifier.net, _Prepared(classifier, photographs), unit)
        return report.png(figures.activating_grid(found)), [one.image for one in found]
