"""Figures: learning curves and sample overlays of a run, dictionaries, the one-page report of a result.

Nothing is measured here; masks over photographs as plain pixels are in overlay, figures of classifiers in figures.
"""

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from retina_seg import checkpoint, datasets, explain, files, io, overlay, preprocess, quality, records
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.photographs import rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from retina_seg.inference import Prediction, Segmenter

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
_MIDDLE = 256
_ALARM = "#b00020"


def draw_run(run: Path, data_root: str | Path) -> list[Path]:
    """Draw curves.png and samples/ of a finished run; returns the paths.

    The samples are the first monitor images: hits white, false pixels yellow, missed ones blue.
    """
    from retina_seg.config import load_config
    from retina_seg.inference import Segmenter

    config = load_config(run / checkpoint.CONFIG)
    held_out = not set(config.data.fit) & set(config.data.monitor)
    written = [run / checkpoint.CURVES]
    figure = curves(checkpoint.read_log(run), "validation images" if held_out else "images that are also trained on")
    save(figure, written[0])
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


def draw_log(run: Path) -> list[Path]:
    """Draw curves.png of a finished run of a classifier from its log; returns the path."""
    save(learning(checkpoint.read_log(run)), run / checkpoint.CURVES)
    return [run / checkpoint.CURVES]


def learning(log: Sequence[Mapping[str, float]]) -> "Figure":
    """How loss and watched scores of a classifier went, from the log of its run."""
    return curves(log, "validation examples", scores=("accuracy", "rmse"), ylabel="score")


def curves(
    log: Sequence[Mapping[str, float]],
    images: str,
    *,
    scores: tuple[str, ...] = ("dice", "auc"),
    ylabel: str = "score inside the field of view",
) -> "Figure":
    """Loss and validation scores against steps, from the entries of log.jsonl.

    Parameters
    ----------
    images : says what the scores are of.
    scores : how the columns end that are drawn as scores.
    ylabel : what these are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [entry["step"] for entry in log]
    mark = "o" if len(steps) == 1 else ""  # a line of one point is none
    left.plot(steps, [entry["loss"] for entry in log], color="black", marker=mark)
    left.set(xlabel="step", ylabel="training loss, mean of the interval", yscale="log")
    columns = [key for key in log[0] if key.endswith(scores)] if log else []
    for key in columns:
        right.plot(steps, [entry[key] for entry in log], label=key, marker=mark)
    right.set(xlabel="step", ylabel=ylabel, title=images)
    right.title.set_fontsize("medium")
    if columns:
        right.legend()
    for axes in (left, right):
        plain(axes)
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
    save(figure, path)
    return [path]


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    io.write_bytes(path, png(figure))


def plain(axes: "Axes") -> None:
    """A thin grid, and lines on two sides only."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: "Figure") -> bytes:
    """A figure as a file, 120 dots an inch, with the seal of a result (`files`)."""
    written = BytesIO()
    figure.savefig(written, dpi=120, format="png", metadata={"Software": files.blank_seal()})
    return files.sealed(written.getvalue())


def write(figures: "Mapping[str, Figure]", folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write figures as <name>.png into a folder, all or none; returns the paths.

    UserError where another file of such a name is there, as of another photograph, but for `overwrite`.
    """
    contents = {f"{name}.png": png(figure) for name, figure in figures.items()}
    files.make_folder(folder)
    files.check_replaceable(
        (folder / name for name in contents),
        overwrite=overwrite,
        own=lambda path: path.read_bytes() == contents[path.name],
    )
    return files.write_all(folder, contents)


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
        plain(axes)
    return figure


def draw_dictionary(
    segmenter: "Segmenter",
    image: NDArray[np.uint8],
    folder: Path,
    pixel: tuple[int, int] | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Draw what a dictionary model has learnt and does with a photograph uint8 (H, W, 3); returns the paths.

    The names of `dictionary` with .png, and votes.png of a `pixel` (row, column) of the photograph. UserError for a
    model without a dictionary or whose atoms do not vote, and for a pixel that the model does not read.
    """
    explain.dictionary_net(segmenter.net)
    prepared = preprocess.apply(image, find_fov(image), segmenter.settings)
    figures = {}
    if pixel is not None:
        y, x = preprocess.place(pixel, prepared.geometry)
        if not prepared.fov[y, x]:
            raise UserError(f"pixel {pixel[0]}, {pixel[1]} lies outside the field of view: nothing is found there")
        found = explain.votes(segmenter.net, prepared.image, (y, x))
        figures["votes"] = votes(found, explain.atoms(segmenter.net))
    figures |= dictionary(segmenter.net, prepared)
    return write(figures, folder, overwrite=overwrite)


def dictionary(net: nn.Module, prepared: preprocess.Prepared) -> "dict[str, Figure]":
    """What a dictionary network has learnt and does with a prepared photograph.

    atoms and codes (of several scales atoms-1 ... and codes-1 ...), where they are learnt penalties, where the codes
    rebuild the photograph rebuilt, and where they are iterated objective. UserError for a network without a dictionary.
    """
    found = explain.atoms(net)
    said = explain.codes(net, prepared.image, prepared.fov)
    scales = [""] if len(found) == 1 else [f"-{one.scale}" for one in found]
    figures = {
        f"atoms{scale}": atom_grid(one, codes.use) for scale, one, codes in zip(scales, found, said, strict=True)
    }
    for scale, codes in zip(scales, said, strict=True):
        figures[f"codes{scale}"] = code_maps(prepared.image, codes, prepared.fov)
    if found[0].penalty is not None:
        figures["penalties"] = penalties(found[0].penalty, said[0].use)
    if said[0].rebuilt is not None:
        figures["rebuilt"] = rebuilt(prepared.image, said[0].rebuilt, prepared.fov)
    if not isinstance(net, explain.DictUNet):
        figures["objective"] = objective(explain.objective(net, _middle(prepared.image)), explain.iterations(net))
    return figures


def _middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of an image (C, h, w), at most _MIDDLE px a side: what the objective is shown of."""
    y, x = (max(0, (side - _MIDDLE) // 2) for side in image.shape[1:])
    return image[:, y : y + _MIDDLE, x : x + _MIDDLE]


def atom_grid(found: explain.Atoms, use: NDArray[np.float32]) -> "Figure":
    """Every atom, the most used first; where there are label atoms each stands at the right of its own.

    Blue below zero, red above, white at zero; one scale for all atoms and one for all label atoms.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-use)
    columns = min(16, len(order))
    figure = Figure(figsize=(9, 9 / columns * -(-len(order) // columns) + 0.5), layout="constrained")
    picture = mosaic(found.image[order].mean(axis=1), columns)  # channels averaged
    if found.label is not None:
        pairs = [found.image.mean(axis=1), found.label[:, 0]]
        pairs = [one[order] / max(float(np.abs(one).max()), 1e-9) for one in pairs]
        picture = mosaic(np.concatenate(pairs, axis=2), columns // 2)
    axes = figure.subplots()
    limit = float(np.nanmax(np.abs(picture)))
    axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    beside = "" if found.label is None else ", each beside what it says of the label"
    axes.set_title(f"{len(order)} atoms, pixels {found.scale} px apart, most used first{beside}", fontsize="medium")
    axes.set_axis_off()
    return figure


def mosaic(pictures: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Pictures (n, h, w) side by side with a pixel of NaN around each."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    canvas = np.full((rows, columns, height + 1, width + 1), np.nan, np.float32)
    for number, picture in enumerate(pictures):
        canvas[number // columns, number % columns, :height, :width] = picture
    return canvas.transpose(0, 2, 1, 3).reshape(rows * (height + 1), columns * (width + 1))


def penalties(learnt: NDArray[np.float32], use: NDArray[np.float32]) -> "Figure":
    """The penalty that each atom has learnt (K,), and the mean of its codes (K,), the most used first."""
    from matplotlib.figure import Figure

    order = np.argsort(-use)
    figure = Figure(figsize=(9, 4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, values, title in ((above, learnt, "penalty"), (below, use, "mean code")):
        axes.bar(np.arange(len(order)), values[order], color="C0")
        axes.set_ylabel(title)
        plain(axes)
    below.set_xticks(np.arange(len(order)), [str(number) for number in order], fontsize=7, rotation=90)
    below.set_xlabel("atom, most used first")
    return figure


def code_maps(image: NDArray[np.float32], codes: explain.Codes, fov: NDArray[np.bool_], *, count: int = 8) -> "Figure":
    """The prepared image (C, h, w) and the maps of the `count` atoms that are used most."""
    from matplotlib.figure import Figure

    chosen, inside = np.argsort(-codes.use)[:count], fov[:: codes.stride, :: codes.stride]
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for axes, number in zip(figure.subplots(3, 3).flat, [-1, *chosen], strict=False):
        if number < 0:
            axes.imshow(np.where(fov, image.mean(axis=0), np.nan), cmap="gray")
        else:
            shown = codes.maps[number]
            limit = max(float(np.percentile(np.abs(shown[inside]), 99.5)), 1e-9)
            axes.imshow(np.where(inside, shown, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title("what the model reads" if number < 0 else f"atom {number}", fontsize="small")
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(f"codes of one scale; {codes.density:.1%} of them are not zero", fontsize="medium")
    return figure


def rebuilt(image: NDArray[np.float32], back: NDArray[np.float32], fov: NDArray[np.bool_]) -> "Figure":
    """The prepared image (C, h, w), what its codes make of it, and the difference, blue below zero and red above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    pictures = [np.where(fov, one.mean(axis=0), np.nan) for one in (image, back, image - back)]
    low, high = np.nanpercentile(pictures[0], [0.5, 99.5])
    titles = ("what the model reads", "rebuilt from the codes", "reconstruction residual")
    for axes, picture, title in zip(figure.subplots(1, 3), pictures, titles, strict=True):
        if title == titles[2]:
            axes.imshow(picture, cmap="RdBu_r", vmin=-high, vmax=high)
        else:
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
        axes.set_title(title, fontsize="small")
        axes.set_axis_off()
    return figure


def votes(found: Sequence[explain.Vote], atoms: Sequence[explain.Atoms], *, count: int = 12) -> "Figure":
    """The `count` atoms that vote loudest at a pixel, each beside its label atom where it has one, with its vote.

    Red speaks for, blue against; all atoms on one scale and all label atoms on another.
    """
    from matplotlib.figure import Figure

    scales = {one.scale: one for one in atoms}
    limit = max(float(np.abs(one.image.mean(axis=1)).max()) for one in atoms)
    of_labels = max((float(np.abs(one.label[:, 0]).max()) for one in atoms if one.label is not None), default=1.0)
    columns = 4
    figure = Figure(figsize=(7, 1.5 * -(-count // columns) + 0.2), layout="constrained")
    places = figure.subplots(-(-count // columns), columns, squeeze=False).flat
    for axes, vote in zip(places, found[:count], strict=False):
        one = scales[vote.scale]
        picture = one.image[vote.atom].mean(axis=0) / limit
        if one.label is not None:
            gap = np.full((picture.shape[0], 1), np.nan, np.float32)
            picture = np.concatenate([picture, gap, one.label[vote.atom, 0] / of_labels], axis=1)
        axes.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(
            f"{vote.value:+.3f}  atom {vote.atom}, {vote.scale} px",
            fontsize=8,
            color="#b2182b" if vote.value > 0 else "#2166ac",
        )
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def objective(values: Mapping[str, NDArray[np.float32]], stops: int) -> "Figure":
    """What is minimised, by iteration of ISTA and FISTA, and after how many iterations the model `stops`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, curve in values.items():
        axes.plot(np.arange(1, len(curve) + 1), curve, label=name.upper())
    axes.axvline(stops, color="0.5", linestyle=":", label="the model stops")
    axes.set(xlabel="iteration", ylabel="objective, of a pixel or patch", yscale="log")
    axes.legend()
    plain(axes)
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
    if quality.withheld(prediction.doubts):
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
