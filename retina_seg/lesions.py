"""Lesions as objects: how many there are and how large, how many are found and how many false ones are marked.

Masks in, numbers out; no network, no files. Pixel metrics are in metrics.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retina_seg import pieces, postprocess
from retina_seg.fov import crop_box

COVERED = 0.2
"""A lesion is found where at least this share of it is marked; a marked piece is false where less than this share of
it lies on lesions."""
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


def largest_piece(mask: NDArray[np.bool_]) -> int:
    """Area in pixels of the largest piece of `mask` bool (H, W), 0 without any: of a disc mask the disc itself."""
    count, labels = pieces.numbered(mask)
    return int(pieces.areas(labels, count, mask).max()) if count else 0


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
        covered = pieces.areas(labels, lesions, mask & truth)
        found.append(np.count_nonzero(covered >= COVERED * sizes) if lesions else 0)
        marked, numbers = pieces.numbered(mask)
        area, on_lesions = (pieces.areas(numbers, marked, where) for where in (mask, mask & truth))
        false.append(np.count_nonzero((on_lesions < COVERED * area) & (area >= least)))
    return Detections(lesions, np.array(found, dtype=np.int64), np.array(false, dtype=np.int64))


def sensitivities(
    images: Sequence[Detections], weights: NDArray[np.float64], limits: Sequence[float] = FALSE_PER_IMAGE
) -> NDArray[np.float64]:
    """Highest share of lesions found at a threshold with at most so many false pieces an image (FROC), (n, limits).

    Parameters
    ----------
    images : their detections at the same T thresholds.
    weights : how often each image counts, (n, images).

    Returns NaN where no image that counts has a lesion; 0 where every threshold has more false pieces.
    """
    lesions = weights @ np.array([one.lesions for one in images], dtype=float)
    found, false = (weights @ np.array([getattr(one, name) for one in images], float) for name in ("found", "false"))
    false = false / weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = found / lesions[:, None]
    best = [np.max(np.where(false <= limit, share, 0), axis=1) for limit in limits]
    return np.where(lesions[:, None] > 0, np.stack(best, axis=1), math.nan)
