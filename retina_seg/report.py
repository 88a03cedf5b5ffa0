"""The only file that draws figures: learning curves and sample overlays of a run, the one-page report of a result.

Nothing is measured here; masks over photographs as plain pixels are in overlay.
"""

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import checkpoint, datasets, io, overlay, records
from retina_seg.photographs import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retina_seg.inference import Prediction

SAMPLES = 4
# Configurations that differ in their optimiser only -> what the picture calls them.
OPTIMISERS = {
    "ablation-gradient-descent": "gradient descent, full batch",
    "ablation-sgd": "SGD",
    "ablation-momentum": "SGD with momentum",
    "ablation-rmsprop": "RMSprop",
    "ablation-adam": "Adam",
    "ablation-reference": "AdamW",
}

# The one-page report: inches, places as parts of the page, letters a line at 8 points.
_A4, _LEFT, _WIDE, _NARROW = (8.27, 11.69), 0.07, 118, 56
_MOST_WARNINGS = 4
_ALARM = "#b00020"


def draw_run(run: Path, data_root: str | Path) -> list[Path]:
    """Draw curves.png and samples/ of a finished run; returns the paths.

    The samples are the first monitor images: hits white, false pixels yellow, missed ones blue.
    """
    from retina_seg.config import load_config
    from retina_seg.inference import Segmenter

    config = load_config(run / checkpoint.CONFIG)
    held_out = not set(config.data.fit) & set(config.data.monitor)
    written = [run / "curves.png"]
    figure = curves(checkpoint.read_log(run), "validation images" if held_out else "images that are also trained on")
    with io.atomic(written[0]) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    segmenter = Segmenter.from_pretrained(run)
    io.make_folder(run / "samples")
    for row in rows_of(config.data.protocols, config.data.monitor)[:SAMPLES]:
        sample = datasets.load(row, data_root)
        prediction = segmenter.predict(sample.image, sample.fov)
        for target, mask in zip(prediction.targets, prediction.mask, strict=True):
            name = row.key.replace(":", "_").replace("/", "_")
            written.append(run / "samples" / f"{name}_{target}.png")
            picture = overlay.agreement(sample.image, mask, sample.targets[target], prediction.fov)
            io.write_rgb(written[-1], np.concatenate([sample.image, picture], axis=1))
    return written


def curves(log: Sequence[Mapping[str, float]], images: str) -> "Figure":
    """Loss and validation scores against steps, from the entries of log.jsonl; `images` says what they are of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [entry["step"] for entry in log]
    left.plot(steps, [entry["loss"] for entry in log], color="black")
    left.set(xlabel="step", ylabel="training loss, mean of the interval", yscale="log")
    scores = [key for key in log[0] if key.endswith(("dice", "auc"))] if log else []
    for key in scores:
        right.plot(steps, [entry[key] for entry in log], label=key)
    right.set(xlabel="step", ylabel="score inside the field of view", title=images)
    right.title.set_fontsize("medium")
    if scores:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_optimisers(folder: Path) -> list[Path]:
    """Draw optimisers.png beside the records of a benchmark; returns its path, [] without two of `OPTIMISERS`.

    Of each the first seed by protocol `drive`, scored on validation images.
    """
    asked = ("drive", "val", 0)
    stored = {one.name: one for one in records.read_all(folder) if (one.protocol, one.split, one.seed) == asked}
    runs = {title: stored[name] for name, title in OPTIMISERS.items() if name in stored}
    if len(runs) < 2:
        return []
    figure = compared_curves(
        {title: (run.log, run.megapixels_a_step) for title, run in runs.items()}, "validation images"
    )
    path = folder / "optimisers.png"
    with io.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return [path]


def compared_curves(runs: Mapping[str, tuple[Sequence[Mapping[str, float]], float]], images: str) -> "Figure":
    """Training loss and validation AUC of several runs against how much they have seen.

    Parameters
    ----------
    runs : name -> entries of its log.jsonl, and megapixels a step.
    images : says what the AUC is of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, (log, megapixels)) in enumerate(runs.items()):
        seen = [entry["step"] * megapixels for entry in log]
        style = {"color": f"C{number}", "marker": ".", "label": name}
        left.plot(seen, [entry["loss"] for entry in log], **style)
        right.plot(seen, [entry["auc"] for entry in log], **style)
    left.set(xlabel="megapixels seen", ylabel="training loss, mean of the interval")
    right.set(xlabel="megapixels seen", ylabel="AUC inside the field of view", title=images)
    right.title.set_fontsize("medium")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def one_page(
    prediction: "Prediction",
    *,
    title: str,
    columns: Sequence[Sequence[tuple[str, str, str]]],
    model: str,
) -> bytes:
    """A PDF page (A4) of one result: photograph, result, warnings, numbers, the model in a line.

    Parameters
    ----------
    title : what the page calls the photograph.
    columns : at most two lists of label, value with unit, sentence; they stand side by side.
    model : what a reader must know of the model.
    """
    from matplotlib.figure import Figure

    page = Figure(figsize=_A4, facecolor="white")
    _write(
        page,
        (_LEFT, 0.967),
        textwrap.shorten(f"Retinal segmentation: {title}", 62, placeholder=" …"),
        16,
        weight="bold",
    )
    _write(page, (_LEFT, 0.943), "RESEARCH USE ONLY: not a medical device, not for diagnosis.", 10, colour=_ALARM)
    pictures = (prediction.image, overlay.blend(prediction.image, prediction.mask, prediction.targets))
    names = ("photograph", "result: " + ", ".join(target.replace("_", " ") for target in prediction.targets))
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        axes = page.add_axes((_LEFT + 0.44 * number, 0.58, 0.42, 0.33))
        axes.imshow(_for_print(picture))
        axes.set_title(name, fontsize=10)
        axes.axis("off")
    height = 0.56
    texts = [doubt.text for doubt in prediction.doubts]
    if len(texts) > _MOST_WARNINGS:
        texts[_MOST_WARNINGS - 1 :] = [f"{len(texts) - _MOST_WARNINGS + 1} more; see the JSON beside this page."]
    for text in texts:
        height = _paragraph(page, (_LEFT, height), f"Warning: {text}", _WIDE, lines=2, colour=_ALARM)
    if any(doubt.withholds for doubt in prediction.doubts):
        height = _paragraph(page, (_LEFT, height), "Biomarkers are withheld because of this.", _WIDE, colour=_ALARM)
    for number, column in enumerate(filter(None, columns)):
        left, top = _LEFT + 0.44 * number, height - 0.01
        for label, value, sentence in column:
            _write(page, (left, top), label, 9, weight="bold")
            _write(page, (left + 0.19, top), value, 9)
            top = _paragraph(page, (left, top - 0.016), sentence, _NARROW, lines=4) - 0.004
    provenance = prediction.provenance
    thresholds = ", ".join(f"{t} {v:.3f}" for t, v in zip(prediction.targets, prediction.thresholds, strict=True))
    made = (
        f"Threshold: {thresholds} ({provenance['threshold_source']}). "
        f"Photograph {provenance['width']} x {provenance['height']} px, network {provenance['working_width']} x "
        f"{provenance['working_height']} px. retina_seg {provenance['versions']['retina_seg']}, weights "
        f"{provenance['weights_sha256'][:12]}."
    )
    foot = _paragraph(page, (_LEFT, 0.12), f"Model {model}.", _WIDE, lines=4)
    _paragraph(page, (_LEFT, foot), made, _WIDE, lines=2)
    written = BytesIO()
    page.savefig(written, format="pdf", metadata={"Title": title, "Creator": "retina_seg", "CreationDate": None})
    return written.getvalue()


def _for_print(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most 1400 pixels a side: sharp on paper, and a file of less than a few megabytes."""
    scale = 1400 / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _paragraph(
    page: "Figure", place: tuple[float, float], text: str, width: int, *, lines: int = 2, colour: str = "#444444"
) -> float:
    """Small text of `width` letters a line, cut after `lines`; returns the height of the page (0 to 1) below it."""
    wrapped = textwrap.wrap(text, width, max_lines=lines, placeholder=" …")
    _write(page, place, "\n".join(wrapped), 8, colour=colour)
    return place[1] - 0.0137 * len(wrapped) - 0.003


def _write(
    page: "Figure", place: tuple[float, float], text: str, size: int, *, weight: str = "normal", colour: str = "black"
) -> None:
    """Text as it is, no mathematics in it; letters the font lacks become question marks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    known = "".join(letter if letter == "\n" or font.get_char_index(ord(letter)) else "?" for letter in text)
    written = page.text(*place, known, fontsize=size, weight=weight, color=colour, va="top", linespacing=1.25)
    written.set_parse_math(False)
    written.set_fontfamily("DejaVu Sans")
