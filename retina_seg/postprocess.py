"""Removal of small isolated pieces from a vessel map: vessels hang together, specks are mostly noise.

Arrays in, arrays out; no network, no files. Off unless asked for: every score says whether it was used.
"""

import numpy as np
from numpy.typing import NDArray

from retina_seg import pieces
from retina_seg.preprocess import diameter

# vessels-drive at its threshold on the 20 DRIVE training photographs, which are its own training photographs too, four
# flips averaged. Area in squared diameters (pixels there): pooled Dice, clDice, AUC inside the field of view.
#   none .83312 .8423 .9839      2e-5 (6) .83315 .8428 .9832     5e-5 (15) .83305 .8427 .9819
#   1e-4 (29) .83291 .8423 .9808   2e-4 (58) .83226 .8404 .9787    4e-4 (117) .83144 .8381 .9765
# The highest Dice was taken. The gain is next to nothing and AUC falls: two fifths and more of the pixels in small
# pieces are vessel.
SMALLEST = 2e-5
"""Default area of the smallest piece that stays, in squared diameters of the field of view."""


def smallest_area(fov: NDArray[np.bool_], smallest: float = SMALLEST) -> int:
    """Area in pixels of the smallest piece that stays, so that one number serves every camera.

    Parameters
    ----------
    fov : field of view bool (H, W); its diameter is that of `preprocess.diameter`.
    smallest : area in squared diameters, at least 0.

    Raises
    ------
    ValueError
        For a negative `smallest`.
    """
    if not smallest >= 0:
        raise ValueError(f"expected an area of at least 0 squared diameters, got {smallest}")
    return round(smallest * diameter(fov) ** 2)


def small_pieces(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Pixels of the `pieces` of `mask` bool (H, W) that have fewer than `area` pixels, bool (H, W)."""
    count, labels = pieces.numbered(mask)
    small = np.append(False, pieces.areas(labels, count, mask) < area)  # 0 is what is not marked
    return np.asarray(small[labels])


def without_small_pieces(
    prob: NDArray[np.float32], fov: NDArray[np.bool_], threshold: float, *, smallest: float = SMALLEST
) -> NDArray[np.float32]:
    """Probabilities whose mask at `threshold` has no small pieces: theirs become 0, all others stay.

    Curves and their areas (AUC, AP) of the result are those of the altered map. Only what is marked inside the
    field of view counts as a piece; pixels outside stay as they are.

    Parameters
    ----------
    prob : float (H, W) in [0, 1].
    fov : bool (H, W).
    threshold : a pixel with this probability or more is marked.
    smallest : see `smallest_area`.
    """
    gone = small_pieces((prob >= threshold) & fov, smallest_area(fov, smallest))
    return np.where(gone, prob.dtype.type(0), prob)


def describe(smallest: float = SMALLEST) -> str:
    """What `without_small_pieces` does, in words, for reports."""
    return (
        f"pieces (8-connected) smaller than {smallest:g} squared diameters of the field of view removed, "
        "their probabilities set to 0"
    )
