"""Lesions as objects: how many there are and how large, how many are found and how many false ones are marked.

Masks in, numbers out; no network, no files. Pixel metrics are in metrics.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import pieces, postprocess
from retina_seg.fov import crop_box

COVERED = 0.2
"""A marked piece is false where less than this share of it lies on lesions; a lesion is found where at least this share
of it is marked by pieces that are not: one piece over the whole retina finds nothing."""
SMALLEST = 1e-6
"""Marked pieces of less than this many squared diameters of the field of view count for nothing.

They are specks that resampling leaves at the rim of a threshold: less than 12 pixels in IDRiD's photographs, whose
smallest lesions have about 20.
"""
FALSE_PER_IMAGE = (1, 2, 4, 8)
THRESHOLDS: tuple[float, ...] = tuple(float(1 / (1 + np.exp(-logit))) for logit in np.linspace(-7, 7, 29))
"""Thresholds of the curve, evenly spaced in log odds."""


@dataclass(frozen=True)
class Extent:
    """How much of a target is marked in a photograph.

    Attributes
    ----------
    count : pieces, 8-connected, but for those that are smaller than SMALLEST.
    pixels : area of all that is marked.
    disc_areas : their area in areas of the optic disc, the unit of the ETDRS; NaN where the disc is not known.
    """

    count: int
    pixels: int
    disc_areas: float


def extent(mask: NDArray[np.bool_], fov: NDArray[np.bool_], disc_pixels: int | None = None) -> Extent:
    """The extent of what `mask` marks in the field of view `fov`, both bool (H, W).

    `disc_pixels` is the area of the optic disc where it is known.
    """
    count, labels = pieces.numbered(mask)
    areas = pieces.areas(labels, count, mask)
    pixels = int(areas.sum())
    counted = int(np.count_nonzero(areas >= smallest_area(fov)))
    return Extent(counted, pixels, pixels / disc_pixels if disc_pixels else math.nan)


def smallest_area(fov: NDArray[np.bool_]) -> int:
    """SMALLEST in pixels, at least 1, for a field of view bool (H, W)."""
    return max(postprocess.smallest_area(fov, SMALLEST), 1)


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of `mask` bool (H, W), nothing without any: of a disc mask the disc itself."""
    count, labels = pieces.numbered(mask)
    return labels == 1 + np.argmax(pieces.areas(labels, count, mask)) if count else np.zeros_like(mask)


def is_cut(piece: NDArray[np.bool_], fov: NDArray[np.bool_]) -> bool:
    """Whether a piece reaches the rim of the field of view or of the picture, both bool (H, W): it may go on there."""
    inner = cv2.erode(np.pad(fov, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    return bool((piece & ~inner).any())


@dataclass(frozen=True)
class Detections:
    """The lesions of one image, and at T thresholds those found and the false pieces, int64 (T,); they add up."""

    lesions: int
    found: NDArray[np.int64]
    false: NDArray[np.int64]


def detections(
    prob: NDArray[np.float32], truth: NDArray[np.bool_], fov: NDArray[np.bool_], thresholds: Sequence[float]
) -> Detections:
    """What is found in one image at each threshold.

    Parameters
    ----------
    prob : float (H, W) in [0, 1].
    truth, fov : bool (H, W); what lies outside the field of view has no influence.
    thresholds : a pixel with this probability or more is marked.
    """
    least = smallest_area(fov)
    y0, x0, y1, x1 = crop_box(fov)
    inside = fov[y0:y1, x0:x1]
    prob, truth = prob[y0:y1, x0:x1], truth[y0:y1, x0:x1] & inside
    lesions, labels = pieces.numbered(truth)
    sizes = pieces.areas(labels, lesions, truth)
    found, false = [], []
    for threshold in thresholds:
        mask = (prob >= threshold) & inside
        marked, numbers = pieces.numbered(mask)
        area, on_lesions = (pieces.areas(numbers, marked, where) for where in (mask, mask & truth))
        true = on_lesions >= COVERED * area
        false.append(np.count_nonzero(~true & (area >= least)))
        hits = np.flatnonzero(mask & truth)
        hits = hits[true[numbers.ravel()[hits] - 1]]
        covered = np.bincount(labels.ravel()[hits], minlength=lesions + 1)[1:]
        found.append(np.count_nonzero(covered >= COVERED * sizes) if lesions else 0)
    return Detections(lesions, np.array(found, dtype=np.int64), np.array(false, dtype=np.int64))


def sensitivities(
    images: Sequence[Detections], weights: NDArray[np.float64], limits: Sequence[float] = FALSE_PER_IMAGE
) -> NDArray[np.float64]:
    """Share of lesions found with so many false pieces an image (FROC), (n, limits).

    The threshold falls from the highest, at which nothing is marked, until the false pieces are too many: the share is
    the best so far, and between the last threshold and the next it grows in proportion to the false pieces.

    Parameters
    ----------
    images : their detections at the same T thresholds, which ascend.
    weights : how often each image counts, (n, images).

    Returns NaN where no image that counts has a lesion.
    """
    lesions = weights @ np.array([one.lesions for one in images], dtype=float)
    found, false = (weights @ np.array([getattr(one, name) for one in images], float) for name in ("found", "false"))
    with np.errstate(invalid="ignore", divide="ignore"):
        share, false = found / lesions[:, None], false / weights.sum(axis=1, keepdims=True)
    share, false = (_descending(values) for values in (share, false))
    result = np.empty((len(weights), len(limits)))
    for row, (x, y) in enumerate(zip(false, share, strict=True)):
        for column, limit in enumerate(limits):
            within = int(np.searchsorted(x, limit, side="right"))  # the first threshold with too many
            result[row, column] = (
                y[-1] if within == len(x) else np.interp(limit, x[within - 1 :][:2], y[within - 1 :][:2])
            )
    return np.where(lesions[:, None] > 0, result, math.nan)


def _descending(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest value so far while the threshold falls, 0 before the first: (n, T) to (n, T + 1)."""
    return np.maximum.accumulate(np.pad(values[:, ::-1], ((0, 0), (1, 0))), axis=1)
