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

from retina_seg import checkpoint, datasets, io, overlay
from retina_seg.photographs import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retina_seg.inference import Prediction

SAMPLES = 4


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


def one_page(
    prediction: "Prediction",
    *,
    title: str,
    numbers: Sequence[tuple[str, str, str]],
    withheld: Sequence[str],
    model: str,
) -> bytes:
    """A PDF page (A4) of one result: photograph, result, numbers, warnings, the model in a line.

    Parameters
    ----------
    title : what the page calls the photograph.
    numbers : label, value with unit, sentence.
    withheld : why biomarkers are not among the numbers.
    model : what a reader must know of the model.
    """
    from matplotlib.figure import Figure

    page = Figure(figsize=(8.27, 11.69), facecolor="white")  # A4, inches
    page.text(0.07, 0.955, f"Retinal segmentation: {title}", fontsize=16, weight="bold")
    page.text(0.07, 0.935, "RESEARCH USE ONLY: not a medical device, not for diagnosis.", fontsize=10, color="#b00020")
    pictures = (prediction.image, overlay.blend(prediction.image, prediction.mask, prediction.targets))
    names = ("photograph", "result: " + ", ".join(target.replace("_", " ") for target in prediction.targets))
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        axes = page.add_axes((0.07 + 0.44 * number, 0.58, 0.42, 0.33))
        axes.imshow(_for_print(picture))
        axes.set_title(name, fontsize=10)
        axes.axis("off")
    height = 0.55
    for text in (*withheld, *(doubt.text for doubt in prediction.doubts if not doubt.withholds)):
        height = _paragraph(page, height, f"Warning: {text}", colour="#b00020")
    if withheld:
        height = _paragraph(page, height, "Biomarkers are withheld because of this.", colour="#b00020")
    for label, value, sentence in numbers:
        page.text(0.07, height, label, fontsize=10, weight="bold", va="top")
        page.text(0.30, height, value, fontsize=10, va="top")
        height = _paragraph(page, height - 0.017, sentence, size=8, colour="#444444") - 0.004
    provenance = prediction.provenance
    thresholds = ", ".join(f"{t} {v:.3f}" for t, v in zip(prediction.targets, prediction.thresholds, strict=True))
    facts = (
        f"Model {model}",
        f"Threshold: {thresholds} ({provenance['threshold_source']}). "
        f"Photograph {provenance['width']} x {provenance['height']} px, network {provenance['working_width']} x "
        f"{provenance['working_height']} px. retina_seg {provenance['versions']['retina_seg']}, weights "
        f"{provenance['weights_sha256'][:12]}.",
    )
    foot = 0.135
    for fact in facts:
        foot = _paragraph(page, foot, fact, size=8, colour="#444444") - 0.004
    written = BytesIO()
    page.savefig(written, format="pdf", metadata={"Title": title, "Creator": "retina_seg", "CreationDate": None})
    return written.getvalue()


def _for_print(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most 1400 pixels a side: sharp on paper, and a file of less than a few megabytes."""
    scale = 1400 / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _paragraph(page: "Figure", top: float, text: str, *, size: int = 9, colour: str = "black") -> float:
    """Wrapped text at a height of the page (0 to 1); returns the height below it."""
    lines = textwrap.wrap(text, width=round(930 / size))
    page.text(0.07, top, "\n".join(lines), fontsize=size, color=colour, va="top", linespacing=1.25)
    return top - 0.0019 * size * len(lines) - 0.004
