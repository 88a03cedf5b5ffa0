"""Does an annotation belong to its photograph: contrast of the marked pixels with their surroundings, as scores.

No files and no verdict on a set (audit.py). Nothing here compares an annotation with a model's output.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg.duplicates import View, local_contrast

# Target -> (+1 brighter or -1 darker than the surroundings, scale of "surroundings" in pixels at 512 a side).
_LOOK: dict[str, tuple[int, float]] = {
    "vessels": (-1, 6.0),
    "vessels_observer2": (-1, 6.0),
    "microaneurysms": (-1, 3.0),
    "haemorrhages": (-1, 8.0),
    "hard_exudates": (1, 6.0),
    "soft_exudates": (1, 12.0),
    "disc": (1, 25.0),
}


def reduce(marked: NDArray[np.bool_], view: View) -> NDArray[np.float32]:
    """Share of marked pixels, float32 at the size of the view, in [0, 1]; `marked` is bool (H, W)."""
    size = (view.green.shape[1], view.green.shape[0])
    return cv2.resize(marked.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def scores(
    views: Sequence[View], marked: Mapping[int, NDArray[np.float32]], target: str
) -> dict[int, tuple[float, float, str]]:
    """Score every annotation on its own photograph and on others it does not belong to.

    A score is the correlation, over the photograph, of the annotation with local contrast, signed so that
    the target's look (dark vessels, bright exudates) is positive.

    Parameters
    ----------
    views
        Photographs of one set.
    marked
        Position in `views` -> reduced annotation of that photograph (`reduce`).

    Returns
    -------
    Position -> (own score, best score elsewhere, where): elsewhere is another photograph of the same
    shape, ``"photograph 3"``, or its own mirrored or turned by 180 degrees, ``"itself mirrored"``. Annotations
    without a marked pixel have no score and are left out.
    """
    sign, sigma = _LOOK[target]
    contrast = [sign * _contrast(view.green.astype(np.float32), view.inside, sigma) for view in views]
    found = {}
    for shape in {views[index].green.shape for index in marked}:
        places = [index for index, view in enumerate(views) if view.green.shape == shape]
        pictures = np.stack([_normed(contrast[index]) for index in places])  # (n, h * w)
        for index in (i for i in marked if i in places and marked[i].any()):
            own = places.index(index)
            against = pictures @ _normed(marked[index])
            elsewhere = {f"photograph {i}": float(s) for i, s in zip(places, against, strict=True) if i != index}
            for name, flip in (("itself mirrored", 1), ("itself upside down", 0), ("itself turned by 180", -1)):
                elsewhere[name] = float(pictures[own] @ _normed(cv2.flip(marked[index], flip)))
            where = max(elsewhere, key=elsewhere.__getitem__)
            found[index] = (float(against[own]), elsewhere[where], where)
    return found


def _contrast(green: NDArray[np.float32], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Local contrast in units of its own spread, clipped so that single bright spots do not decide."""
    core = cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    contrast = local_contrast(green, core, sigma)
    spread = float(contrast[core].std()) if core.any() else 0.0
    return np.clip(contrast / spread, -3, 3) if spread > 0 else contrast


def _normed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.ravel() - values.mean()
    norm = float(np.linalg.norm(flat))
    return flat / norm if norm > 0 else flat
