"""Does an annotation belong to its photograph: contrast of the marked pixels with their surroundings, as a score.

No files and no verdict on a set (audit.py). Nothing here compares an annotation with a model's output.
"""

from typing import NamedTuple

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from retina_seg.duplicates import View, away_from_rim, local_contrast


class _Look(NamedTuple):
    """How a target stands out, in pixels of a view (512 a side).

    sign: +1 brighter, -1 darker than its surroundings; sigma: of the Gaussian mean of the surroundings; shifts:
    how far the annotation is moved for comparison; least: smallest `fit` of an annotation that belongs.
    """

    sign: int
    sigma: float
    shifts: tuple[int, ...]
    least: float


# Measured as `fit` on all annotations of DRIVE, STARE, CHASE_DB1 (vessels) and IDRiD: lowest of the true ones, and
# 80 % quantile of annotations laid on another photograph of the same set.
_LOOK: dict[str, _Look] = {
    "vessels": _Look(-1, 6.0, (6, 12), 4.0),  # 6.5; below 2
    "vessels_observer2": _Look(-1, 6.0, (6, 12), 4.0),  # 6.5; below 2
    "microaneurysms": _Look(-1, 2.0, (6, 12, 18), 1.5),  # 3.5; 0.9
    "haemorrhages": _Look(-1, 4.0, (8, 16, 24), 1.5),  # 2.6; 1.2
    "hard_exudates": _Look(1, 4.0, (8, 16, 24), 1.5),  # 2.7; 0.8
    "soft_exudates": _Look(1, 8.0, (10, 20, 30), 1.5),  # 2.9; 0.9
    "disc": _Look(1, 10.0, (15, 30, 45), 0.9),  # 1.2; 0.9: discs of different eyes lie in nearly the same place
}
_ANGLES = np.arange(12) * 2 * np.pi / 12


def reduce(marked: NDArray[np.bool_], view: View) -> NDArray[np.float32]:
    """Share of marked pixels, float32 at the size of the view, in [0, 1]; `marked` is bool (H, W)."""
    size = (view.green.shape[1], view.green.shape[0])
    return cv2.resize(marked.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def fit(view: View, marked: NDArray[np.float32], target: str) -> float:
    """How well an annotation fits a photograph, compared with itself moved, mirrored and turned.

    The score of one position is the sum of local contrast over the marked pixels, signed so that the target's
    look (dark vessels, bright exudates) is positive. The result is how many standard deviations the score in
    place lies above the scores of the annotation moved by a few pixels in all directions, mirrored, upside down
    and turned by 180 degrees. NaN where nothing is marked or the photograph has no contrast.

    Parameters
    ----------
    marked
        Reduced annotation (`reduce`), the shape of the view.
    """
    look = _LOOK[target]
    contrast = look.sign * _contrast(view.green.astype(np.float32), view.inside, look.sigma)
    # Entry (dy, dx) is the score of the annotation moved by (dy, dx), wrapped round at the frame.
    spectrum = scipy.fft.rfft2(marked).conj() * scipy.fft.rfft2(contrast)
    moved = scipy.fft.irfft2(spectrum, s=marked.shape)
    steps = [(round(r * np.sin(a)), round(r * np.cos(a))) for r in look.shifts for a in _ANGLES.tolist()]
    elsewhere = [moved[dy % moved.shape[0], dx % moved.shape[1]] for dy, dx in steps]
    elsewhere += [(cv2.flip(marked, code) * contrast).sum() for code in (1, 0, -1)]
    spread = float(np.std(elsewhere))
    return float((moved[0, 0] - np.mean(elsewhere)) / spread) if spread > 1e-6 and marked.any() else float("nan")


def belongs(score: float, target: str) -> bool:
    """Whether a `fit` is that of an annotation on its own photograph; True where it is undefined."""
    return not score < _LOOK[target].least


def _contrast(green: NDArray[np.float32], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Local contrast with zero mean and unit spread inside, clipped so that single bright spots do not decide."""
    core = away_from_rim(inside)
    contrast = local_contrast(green, core, sigma)
    spread = float(contrast[core].std()) if core.any() else 0.0
    clipped = np.clip(contrast / max(spread, 1e-6), -3, 3)
    return np.where(core, clipped - clipped[core].mean(), 0) if core.any() else clipped
