"""Distances between the outlines of two masks, MONAI's, for one compact object such as the optic disc."""

import math
import warnings

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from numpy.typing import NDArray

from retina_seg.fov import crop_box

DISTANCES = ("mean_distance", "hausdorff95")


def distances(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """How far the outlines of `mask` and `truth`, both bool (H, W), lie apart, in pixels.

    Returns
    -------
    mean_distance : mean over both outlines of the distance to the other one.
    hausdorff95 : the larger of the two 95th percentiles of these distances.

    NaN where one of the masks is empty.
    """
    if not (mask.any() and truth.any()):
        return dict.fromkeys(DISTANCES, math.nan)
    y0, x0, y1, x1 = crop_box(mask | truth, 1)
    a, b = (torch.from_numpy(one[y0:y1, x0:x1].copy())[None, None] for one in (mask, truth))  # (1, 1, h, w)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about itself
        usual = compute_average_surface_distance(a, b, include_background=True, symmetric=True)
        worst = compute_hausdorff_distance(a, b, include_background=True, percentile=95)
    return {"mean_distance": float(usual), "hausdorff95": float(worst)}
