"""Numbers beside the picture, ready to read: biomarkers and scores as label, value with unit, and one sentence.

Nothing is measured here (biomarkers, metrics) and nothing shown without the doubts that speak against it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from retina_seg import biomarkers, metrics
from retina_seg.biomarkers import Description
from retina_seg.inference import Prediction

VESSELS = "vessels"


@dataclass(frozen=True)
class Number:
    """One number: `name` as in tables, `label` and `value` (with its unit) as read, `sentence` what it means."""

    name: str
    label: str
    value: str
    sentence: str


SCORES: Mapping[str, tuple[str, str]] = {
    "dice": ("Dice", "Overlap of result and truth: 1 is perfect, 0 is none."),
    "sensitivity": ("Sensitivity", "Share of the true pixels that were found."),
    "specificity": ("Specificity", "Share of the other pixels that were rightly left alone."),
    "auc": ("AUC", "How well the probabilities rank true pixels above the others: .5 is chance, 1 is perfect."),
}
"""What is shown where the truth is known: label and sentence."""


def withheld(prediction: Prediction) -> list[str]:
    """Why no biomarker may be shown; empty where nothing speaks against it."""
    return [doubt.text for doubt in prediction.doubts if doubt.withholds]


def measure(prediction: Prediction) -> dict[str, float]:
    """Biomarkers of the vessels by name; {} where the model finds none or they are withheld."""
    if VESSELS not in prediction.targets or withheld(prediction):
        return {}
    mask = prediction.mask[prediction.targets.index(VESSELS)]
    return asdict(biomarkers.measure(mask, prediction.fov))


def remarks(measured: Mapping[str, float]) -> list[str]:
    """What unusual biomarkers say about the mask: a sentence for each."""
    said = []
    for name, distance in biomarkers.unusual(measured).items():
        description = biomarkers.DESCRIPTIONS[name]
        side, meaning = ("low", "many vessels may be missing") if distance < 0 else ("high", "much may be no vessel")
        value = _text(description, measured[name])
        said.append(
            f"{description.label} {value} is unusually {side}: {meaning}. Compare the mask with the photograph."
        )
    return said


def _text(description: Description, value: float) -> str:
    if description.unit.startswith("%"):
        value = 100 * value
    return f"{value:.{description.digits}f} {description.unit}".strip()


def readable(measured: Mapping[str, float], um_per_px: float | None = None) -> list[Number]:
    """Biomarkers as label, value and sentence; lengths in real units too where the size of a pixel is known."""
    found = []
    for name, description in biomarkers.DESCRIPTIONS.items():
        if name not in measured:
            continue
        value = measured[name]
        text = _text(description, value)
        if math.isnan(value):
            text = "not measurable"
        elif um_per_px and description.unit == "px":
            length = value * um_per_px
            text += f" = {length:.0f} µm" if length < 10_000 else f" = {length / 1000:.1f} mm"
        found.append(Number(name, description.label, text, description.sentence))
    return found


def scores(mask: NDArray[np.bool_], truth: NDArray[np.bool_], fov: NDArray[np.bool_], auc: float) -> list[Number]:
    """SCORES of a mask (H, W) against the truth (H, W) inside the field of view (H, W)."""
    counts = metrics.confusion_counts(mask, truth, fov)
    values = {**{name: getattr(counts, name) for name in SCORES if name != "auc"}, "auc": auc}
    return [
        Number(name, label, "undefined" if math.isnan(values[name]) else f"{values[name]:.3f}", sentence)
        for name, (label, sentence) in SCORES.items()
    ]
