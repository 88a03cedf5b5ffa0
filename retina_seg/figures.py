"""Figures of classifiers: filters, feature maps, what excites a unit, class activation, confusion, curves.

Nothing is measured here and nothing is written; learning curves of one run are in report.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from retina_seg.explain import Activation
from retina_seg.report import mosaic, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_FILTERS = 256
_LONGEST_SIDE = 640  # px of a picture in a figure: photographs would fill the memory


def filter_grid(filters: NDArray[np.float32]) -> "Figure":
    """Every filter of a layer (K, C, h, w), at most 256, on one scale.

    Of three channels in colour, grey at zero; else the mean of the channels, blue below zero, red above.
    """
    from matplotlib.figure import Figure

    shown = filters[:_MOST_FILTERS]
    columns = min(16, len(shown))
    figure = Figure(figsize=(9, 9 / columns * -(-len(shown) // columns) + 0.5), layout="constrained")
    axes = figure.subplots()
    if filters.shape[1] == 3:
        scaled = 0.5 + shown / max(2 * float(np.abs(shown).max()), 1e-9)
        picture = np.stack([mosaic(scaled[:, channel], columns) for channel in range(3)], axis=-1)
        axes.imshow(np.nan_to_num(picture, nan=1.0), interpolation="nearest")
    else:
        means = mosaic(shown.mean(axis=1), columns)
        limit = max(float(np.nanmax(np.abs(means))), 1e-9)
        axes.imshow(means, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    count = f"{len(filters)}" if len(shown) == len(filters) else f"the first {len(shown)} of {len(filters)}"
    size = " x ".join(str(length) for length in filters.shape[2:])
    axes.set_title(f"{count} filters of {size} px", fontsize="medium")
    axes.set_axis_off()
    return figure


def feature_map_grid(maps: Mapping[str, NDArray[np.float32]], *, count: int = 6) -> "Figure":
    """A row for every block (K, h, w): the `count` of its maps that vary most, each on a scale of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.7 * max(len(maps), 1)), layout="constrained")
    if not maps:
        return figure
    for row, (name, block) in zip(figure.subplots(len(maps), count, squeeze=False), maps.items(), strict=True):
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, number in zip(row, np.argsort(-block.std(axis=(1, 2)), kind="stable"), strict=False):
            axes.imshow(_smaller(block[number]), cmap="viridis")
            axes.set_title(f"map {number}", fontsize=7)
        size = " x ".join(str(length) for length in block.shape)
        row[0].set_ylabel(f"{name}\n{size}", fontsize=6)
    return figure


def activating_grid(found: Sequence[Activation]) -> "Figure":
    """The patches that excite a unit most, each with the value of the unit and the number of its image."""
    from matplotlib.figure import Figure

    columns = 3
    rows = max(-(-len(found) // columns), 1)
    figure = Figure(figsize=(6, 2.2 * rows), layout="constrained")
    for axes, one in zip(figure.subplots(rows, columns, squeeze=False).flat, found, strict=False):
        axes.imshow(_picture(one.patch), interpolation="nearest")
        axes.set_title(f"{one.value:.3g}, image {one.image}", fontsize="small")
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def activation_overlay(
    picture: NDArray[np.uint8] | NDArray[np.float32], cam: NDArray[np.float32], *, title: str = ""
) -> "Figure":
    """A picture, uint8 (H, W, 3) or as a network reads it float (C, h, w), and a map in [0, 1] of its size over it.

    Parameters
    ----------
    title : what the map is of.
    """
    from matplotlib.figure import Figure

    shown, over = _picture(picture), _smaller(cam)
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(shown)
        axes.set_axis_off()
    drawn = right.imshow(over, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * np.clip(over, 0, 1))
    left.set_title("what the network reads", fontsize="medium")
    right.set_title(title if cam.any() else f"{title}: nothing", fontsize="medium")
    figure.colorbar(drawn, ax=right, label="activation, of the highest", shrink=0.8)
    return figure


def probabilities(picture: NDArray[np.uint8], maps: Mapping[str, NDArray[np.float32]]) -> "Figure":
    """A photograph uint8 (H, W, 3) and probabilities (H, W) of its pixels by name, black 0 and white 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * (len(maps) + 1), 3.3), layout="constrained")
    first, *others = figure.subplots(1, len(maps) + 1)
    first.imshow(picture)
    first.set_title("photograph", fontsize="small")
    for axes, (name, prob) in zip(others, maps.items(), strict=True):
        axes.imshow(prob, cmap="gray", vmin=0, vmax=1)
        axes.set_title(name.replace("`", ""), fontsize="small")
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def _picture(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image for the eye, uint8 (H, W, 3): float (C, h, w) from its darkest to its brightest, in colour of three."""
    if image.dtype == np.uint8:
        return _smaller(image)
    colours = image if len(image) == 3 else np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)
    low, high = np.percentile(colours, [0.5, 99.5])
    scaled = np.clip((_smaller(np.moveaxis(colours, 0, 2)) - low) / max(float(high - low), 1e-9), 0, 1)
    return np.rint(255 * scaled).astype(np.uint8)


def _smaller(picture: NDArray[Any]) -> NDArray[Any]:
    """A picture (h, w) or (h, w, C) of at most _LONGEST_SIDE px a side."""
    scale = _LONGEST_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def confusion(matrix: ArrayLike, classes: Sequence[str]) -> "Figure":
    """How often each class (row) was answered as each (column), the shade by the share of the row.

    Parameters
    ----------
    matrix : examples, int (K, K), (truth, answer).
    """
    from matplotlib.figure import Figure

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.45 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45 if max(map(len, classes)) > 3 else 0)
    axes.set_yticks(places, classes)
    axes.set(xlabel="answer", ylabel="truth")
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def roc_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike, float]]) -> "Figure":
    """The ROC curve of every class against the rest: class -> (false positive rate, true positive rate, AUC).

    A class whose AUC is NaN has no curve; the legend says so.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for name, (fpr, tpr, area) in curves.items():
        axes.plot(fpr, tpr, label=f"{name}: AUC undefined" if np.isnan(area) else f"{name}: AUC {area:.3f}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    if curves:
        axes.legend(fontsize="small", loc="lower right")
    plain(axes)
    return figure


def reliability_diagram(confidence: ArrayLike, accuracy: ArrayLike, count: ArrayLike) -> "Figure":
    """How often the answers are right that are given with some probability, and how many these are.

    Parameters
    ----------
    confidence, accuracy : means of every bin, in [0, 1]; NaN in an empty bin.
    count : examples of every bin.
    """
    from matplotlib.figure import Figure

    said, right, many = (np.asarray(values, np.float64) for values in (confidence, accuracy, count))
    some = many > 0
    figure = Figure(figsize=(4.8, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--", label="as often as said")
    above.plot(said[some], right[some], color="C0", marker="o", label="answers")
    above.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
    above.legend(fontsize="small")
    edges = np.linspace(0, 1, len(many) + 1)
    below.bar(edges[:-1], many, width=1 / max(len(many), 1), align="edge", color="C0", edgecolor="white")
    below.set(xlabel="probability of the answer", ylabel="examples")
    for axes in (above, below):
        plain(axes)
    return figure


def compared(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], xlabel: str, ylabel: str, *, xscale: str = "linear"
) -> "Figure":
    """Curves of several runs in one picture: name -> (x, y); `xscale` is "linear" or "log"."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, marker=".", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale)
    if curves:
        axes.legend(fontsize="small")
    plain(axes)
    return figure
