"""Finds the same photograph, or two photographs of the same eye, among many: arrays in, pairs out.

No files and no manifests (audit.py), and no judgement on whether a pair is a leak.

Three steps, each on fewer pairs: local contrast of thumbnails is correlated over all shifts; the structure of the
remaining pairs is matched point by point (SIFT) under one similarity transform; frames that agree without any shift
hold the same photograph, frames that agree only after a shift show the same eye twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

SAME_PHOTOGRAPH, SAME_EYE = "same_photograph", "same_eye"

_SIDE = 512  # longest side of the copy that is compared
_COARSE, _FINE = (48, 1.0), (128, 1.5)  # thumbnails: side and Gaussian sigma in pixels
_HASH_CELLS, _HASH_CELL, _HASH_SIGMA, _HASH_LEVEL = 20, 3, 2.5, 0.4
# Measured on the 685 photographs of DRIVE, STARE, CHASE_DB1 and IDRiD, 23 pairs of photographs of one eye and 68
# of the same photograph. Coarse and fine thumbnails: one eye from .36 and .35; the fine step leaves under
# 0.1 % of all pairs. Matched points: one eye from 42, different eyes up to 7. Detail of whole frames: the
# same photograph from .97, one eye up to .77.
_COARSE_MINIMUM, _FINE_MINIMUM = 0.33, 0.31
_POINTS_MINIMUM = 20
_DETAIL_MINIMUM = 0.92
_BLOCK = 64  # views correlated with one at a time


@dataclass(frozen=True)
class Pair:
    """Two positions of a sequence of views, `first` < `second`, and what they share.

    `relation` is SAME_PHOTOGRAPH or SAME_EYE, `similarity` the correlation of fine detail of the two frames laid
    on each other without a shift, in [-1, 1].
    """

    first: int
    second: int
    relation: str
    similarity: float


@dataclass(frozen=True, eq=False)
class View:
    """What is kept of one photograph for comparing it with others.

    Attributes
    ----------
    green
        uint8 (h, w), green channel of the whole frame, longest side at most 512.
    inside
        bool (h, w), where the photograph is not black border.
    """

    green: NDArray[np.uint8]
    inside: NDArray[np.bool_]

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns that are not black border; the whole frame if everything is."""
        spans = []
        for axis in (1, 0):
            used = np.flatnonzero(self.inside.mean(axis=axis) > 0.05)
            spans.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(None))
        return spans[0], spans[1]

    @cached_property
    def coarse(self) -> NDArray[np.complex64]:
        """Spectrum of the coarse thumbnail's local contrast."""
        return _spectrum(self.contrast(*_COARSE))

    @cached_property
    def fine(self) -> NDArray[np.complex64]:
        """Spectrum of the fine thumbnail's local contrast."""
        return _spectrum(self.contrast(*_FINE))

    @cached_property
    def points(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """SIFT points (n, 2) as x, y in the whole frame, and their descriptors (n, 128)."""
        core = cv2.erode(self.inside.astype(np.uint8), np.ones((15, 15), np.uint8))
        even = cv2.createCLAHE(4, (8, 8)).apply(self.green)
        found, descriptors = cv2.SIFT.create(600, contrastThreshold=0.02).detectAndCompute(even, core)
        return np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2), descriptors

    def contrast(self, side: int, sigma: float) -> NDArray[np.float32]:
        """Local contrast of a thumbnail of the cropped photograph, centred in float32 (side, side)."""
        green, inside = self.green[self.box], self.inside[self.box].astype(np.float32)
        scale = side / max(green.shape)
        size = (max(1, round(green.shape[1] * scale)), max(1, round(green.shape[0] * scale)))
        small = cv2.resize(green.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        core = np.pad((cv2.resize(inside, size, interpolation=cv2.INTER_AREA) > 0.9).astype(np.uint8), 2)
        core = cv2.erode(core, np.ones((5, 5), np.uint8))[2:-2, 2:-2]
        centred = np.zeros((side, side), dtype=np.float32)
        top, left = (side - size[1]) // 2, (side - size[0]) // 2
        part = (slice(top, top + size[1]), slice(left, left + size[0]))
        centred[part] = local_contrast(small, core > 0, sigma)
        return centred


def view(image: NDArray[np.uint8]) -> View:
    """Reduce a photograph, uint8 (H, W, 3) RGB, to what comparisons need."""
    scale = _SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # Blurred, so that the noise of encoding does not move the outline.
    bright = cv2.GaussianBlur(image.max(axis=2), (0, 0), max(image.shape[1] / 170, 0.5))
    inside = bright > max(12.0, 0.25 * float(np.percentile(bright, 95)))
    return View(np.ascontiguousarray(image[..., 1]), inside)


def local_contrast(grey: NDArray[np.float32], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Grey values minus their Gaussian mean over the pixels inside, zero outside; float32 (H, W)."""
    weight = inside.astype(np.float32)
    mean = cv2.GaussianBlur(grey * weight, (0, 0), sigma)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    return (grey - mean / np.maximum(share, 1e-3)) * weight


def perceptual_hash(photograph: View) -> str:
    """What a photograph looks like as 200 hex digits, hardly changed by resizing or encoding it anew.

    Two bits for each cell of a 20 x 20 grid over the cropped photograph: 1 where its local contrast is clearly
    positive, 2 where clearly negative, else 0. `likeness` compares two of them.
    """
    contrast = photograph.contrast(_HASH_CELLS * _HASH_CELL, _HASH_SIGMA)
    cells = contrast.reshape(_HASH_CELLS, _HASH_CELL, _HASH_CELLS, _HASH_CELL).mean(axis=(1, 3)).ravel()
    level = _HASH_LEVEL * cells.std()
    return np.packbits(np.stack([cells < -level, cells > level], axis=1)).tobytes().hex()


SAME_LIKENESS = 0.7
"""Perceptual hashes at least this alike belong to one photograph, or to two of one eye in nearly the same place.

Measured: copies encoded anew, darkened or reduced to a third from .77; different eyes up to .64.
"""


def likeness(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float32]:
    """Correlations of perceptual hashes, float32 (n, m) in [-1, 1]; 0 for an empty hash."""
    return _signs(first) @ _signs(second).T


def _signs(hashes: Sequence[str]) -> NDArray[np.float32]:
    """Cells of hashes, -1, 0 or 1, each row divided by its norm: float32 (n, 400)."""
    cells = _HASH_CELLS**2
    rows = np.zeros((len(hashes), cells), dtype=np.float32)
    for row, digits in zip(rows, hashes, strict=True):
        if digits:
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).reshape(cells, 2)
            row += bits[:, 1].astype(np.float32) - bits[:, 0]
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)


def find(views: Sequence[View], *, progress: Callable[[int, int], None] | None = None) -> list[Pair]:
    """All pairs that show the same photograph or the same eye, in the order of the views.

    Parameters
    ----------
    progress
        Called with (views done, number of views).
    """
    pairs = []
    coarse = [view.coarse for view in views]
    for first in range(len(views)):
        for start in range(first + 1, len(views), _BLOCK):
            best = _best_shift(coarse[first], np.stack(coarse[start : start + _BLOCK]), _COARSE[0])
            for second in (np.flatnonzero(best >= _COARSE_MINIMUM) + start).tolist():
                if _best_shift(views[first].fine, views[second].fine, _FINE[0]).item() < _FINE_MINIMUM:
                    continue
                relation, similarity = compare(views[first], views[second])
                if relation:
                    pairs.append(Pair(first, second, relation, similarity))
        if progress:
            progress(first + 1, len(views))
    return pairs


def _spectrum(contrast: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Of the contrast with unit norm, padded by half its side so that shifts do not wrap round."""
    padded = contrast.shape[0] * 3 // 2
    return scipy.fft.rfft2(_unit(contrast), s=(padded, padded))


def _best_shift(first: NDArray[np.complex64], second: NDArray[np.complex64], side: int) -> NDArray[np.float32]:
    """Largest correlation over all shifts; `second` may be a stack of spectra (n, ...), then (n,)."""
    shape = (side * 3 // 2, side * 3 // 2)
    return scipy.fft.irfft2(first.conj() * second, s=shape).max(axis=(-2, -1))


def compare(first: View, second: View) -> tuple[str, float]:
    """SAME_PHOTOGRAPH, SAME_EYE or "", and the correlation of fine detail without a shift."""
    detail = _frame_detail(first, second)
    if detail >= _DETAIL_MINIMUM:
        return SAME_PHOTOGRAPH, detail
    transform = _shared_points(first, second)
    if transform is None:
        return "", detail
    registered, overlap = _registered_detail(first, second, transform)
    # Another frame around the same photograph: the border of the photograph moves along with its content.
    if overlap > 0.985 and registered >= _DETAIL_MINIMUM and not _same_aspect(first, second):
        return SAME_PHOTOGRAPH, registered
    return SAME_EYE, detail


def _same_aspect(first: View, second: View) -> bool:
    ratios = [v.green.shape[1] / v.green.shape[0] for v in (first, second)]
    return abs(ratios[0] / ratios[1] - 1) < 0.02


def _frame_detail(first: View, second: View) -> float:
    """Correlation of local contrast of the two whole frames at the same size; 0 if their shapes differ."""
    if not _same_aspect(first, second):
        return 0.0
    size = (320, max(1, round(320 * first.green.shape[0] / first.green.shape[1])))
    detail, inside = [], []
    for frame in (first, second):
        small = cv2.resize(frame.inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        inside.append(away_from_rim(small > 0))
        grey = cv2.resize(frame.green.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        detail.append(local_contrast(grey, inside[-1], 5))
    return _correlation(detail[0], detail[1], inside[0] & inside[1])


def _registered_detail(first: View, second: View, transform: NDArray[np.float64]) -> tuple[float, float]:
    """Correlation of local contrast after registration, and the overlap (IoU) of the two photographs' outlines."""
    size = (second.green.shape[1], second.green.shape[0])
    grey = cv2.warpAffine(first.green.astype(np.float32), transform, size, flags=cv2.INTER_LINEAR)
    outline = cv2.warpAffine(first.inside.astype(np.uint8), transform, size, flags=cv2.INTER_NEAREST) > 0
    both = outline & second.inside
    detail = [local_contrast(g, both, 8) for g in (grey, second.green.astype(np.float32))]
    union = float((outline | second.inside).sum())
    return _correlation(detail[0], detail[1], away_from_rim(both)), float(both.sum()) / max(union, 1.0)


def _shared_points(first: View, second: View) -> NDArray[np.float64] | None:
    """Similarity transform (2, 3) from first to second that enough matched points agree on, or None."""
    (here, one), (there, two) = first.points, second.points
    if one is None or two is None or min(len(one), len(two)) < 2:
        return None
    matches = [m for m in cv2.BFMatcher().knnMatch(one, two, k=2) if m[0].distance < 0.8 * m[1].distance]
    if len(matches) < _POINTS_MINIMUM:
        return None
    source = here[[m[0].queryIdx for m in matches]]
    target = there[[m[0].trainIdx for m in matches]]
    transform, agreed = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=4)
    # Repeated matches to one point collapse the scale to zero; they are no agreement.
    if transform is None or not 0.5 < np.hypot(transform[0, 0], transform[0, 1]) < 2:
        return None
    return transform if int(agreed.sum()) >= _POINTS_MINIMUM else None


def away_from_rim(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`inside` bool (h, w) without the four pixels next to its rim, where local contrast is that of the rim."""
    return cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    if not inside.any():
        return 0.0
    return float((_unit(first[inside]) * _unit(second[inside])).sum())


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(values))
    return (values / norm if norm > 0 else values).astype(np.float32)
