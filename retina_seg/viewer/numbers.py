"""Numbers beside the picture, ready to read: biomarkers and scores as label, value with unit, and one sentence.

Nothing is measured here (biomarkers, metrics) and nothing shown without the doubts that speak against it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from retina_seg import biomarkers, extents, metrics, overlay
from retina_seg.biomarkers import Description
from retina_seg.datasets import LESIONS
from retina_seg.inference import Prediction
from retina_seg.lesions import Extent

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


def measure(prediction: Prediction, disc_pixels: int | None = None) -> dict[str, float]:
    """Biomarkers of the vessels and extents of the lesions and the disc, by name; {} where they are withheld.

    Extents are called `<target>_count`, `<target>_pixels` and, of lesions, `<target>_disc_areas`, NaN without
    `disc_pixels`.
    """
    if withheld(prediction):
        return {}
    found: dict[str, float] = {}
    if VESSELS in prediction.targets:
        mask = prediction.mask[prediction.targets.index(VESSELS)]
        found |= asdict(biomarkers.measure(mask, prediction.fov))
    for target, extent in extents.measure(prediction, disc_pixels).items():
        found |= {f"{target}_{name}": value for name, value in asdict(extent).items()}
        if target not in LESIONS:
            del found[f"{target}_disc_areas"]
    return found


def remarks(measured: Mapping[str, float]) -> list[str]:
    """What unusual biomarkers say about the mask: a sentence for each."""
    said = []
    known = {name: value for name, value in measured.items() if name in biomarkers.DESCRIPTIONS}
    for name, distance in biomarkers.unusual(known).items():
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
    for target in (*LESIONS, extents.DISC):
        if f"{target}_count" in measured:
            found.append(_extent(target, {name: measured.get(f"{target}_{name}", math.nan) for name in _EXTENT}))
    return found


_EXTENT = ("count", "pixels", "disc_areas")


def _extent(target: str, measured: Mapping[str, float]) -> Number:
    """One line for a lesion or the disc: how many pieces and how large."""
    extent = Extent(int(measured["count"]), int(measured["pixels"]), measured["disc_areas"])
    label = overlay.title(target).capitalize()
    if target == extents.DISC:
        return Number(f"{target}_pixels", label, f"{extent.pixels:,} px", "Area that is marked as the optic disc.")
    if not extent.count:
        return Number(f"{target}_count", label, "none found", overlay.MEANING[target])
    if math.isnan(extent.disc_areas):
        return Number(f"{target}_count", label, f"{extent.count}, {extent.pixels:,} px", overlay.MEANING[target])
    areas = "less than 0.01" if extent.disc_areas < 0.01 else f"{extent.disc_areas:.2f}"
    return Number(f"{target}_count", label, f"{extent.count}, {areas} disc areas", overlay.MEANING[target])


def scores(
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    fov: NDArray[np.bool_],
    auc: float,
    *,
    of: str = "",
    note: str = "",
) -> list[Number]:
    """SCORES of a mask (H, W) against the truth (H, W) inside the field of view (H, W).

    `of` is the target, where there are several and labels must tell them apart; `note` is what must be known of the
    truth, and comes first.
    """
    counts = metrics.confusion_counts(mask, truth, fov)
    values = {**{name: getattr(counts, name) for name in SCORES if name != "auc"}, "auc": auc}
    called = f", {overlay.title(of)}" if of else ""
    noted = [Number("truth", f"Truth{called}", "look twice", note)] if note else []
    return noted + [
        Number(name, label + called, "undefined" if math.isnan(values[name]) else f"{values[name]:.3f}", sentence)
        for name, (label, sentence) in SCORES.items()
    ]
