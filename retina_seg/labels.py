"""What a label image marks where that is not plain: maps of several classes, and labels that are turned round.

How label files are read is in io, what the public sets store in datasets.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg.errors import UserError

VESSELS = "vessels"
MOST = 0.25
"""Largest share of the field of view that a target takes; vessels take 3 to 25 %, lesions and the disc less."""

_RIM = 0.06  # of the root of the field's area: how deep what masks of one field differ in reaches
_MOST_OF_RIM = 0.02  # share of the field
_CLASSES = 16  # an image with more values than these is no map of classes
_LEAST = 0.05  # share of what is marked that arteries take at least, and veins, in a map of both
_SAMPLE = 100_000  # pixels in which a picture of many values is told soon
_COLOURS = {
    "black": (0, 0, 0),
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
_ONE_CLASS = "Save what you mean as an image of its own with two values (0 and 255, say)"
_UNHARMED = "Save labels without interpolation and as PNG, never as JPEG"


def of_classes(array: NDArray[np.generic], name: str, target: str = "") -> NDArray[np.bool_]:
    """What a label with more than two values marks, where there is no doubt: arteries and veins are vessels.

    A map of both, as the artery and vein sets have it: a black or white background on more than half of the image,
    arteries red, veins blue, and where they cross or cannot be told apart other full colours or white.

    Parameters
    ----------
    array : (H, W) or (H, W, 3), of any number type
    name : what the error calls it
    target : what is to be marked, "" where that is not known

    Returns
    -------
    bool (H, W)

    Raises
    ------
    UserError
        for all other labels; it says which values there are and what they may be
    """
    pixels = array.reshape(*array.shape[:2], -1)  # (H, W, C)
    found = _values(pixels)
    if found is None:
        raise UserError(
            f"{name} has more than two values, and more than {_CLASSES}: expected a label image with two (0 and 255, "
            f"say). {_UNHARMED}"
        )
    values, shares, places = found
    if not _coloured(values):
        raise UserError(
            f"{name} has more than two values: the {len(values)} grey values {_listed(values, shares)}. They may be "
            "classes, a rim or a level that says 'ignore', or come from interpolation or JPEG, and which of them is "
            f"marked cannot be known. {_ONE_CLASS}. {_UNHARMED}"
        )
    marked = _arteries_and_veins(values, shares)
    if marked is not None and target == VESSELS:
        return np.asarray(marked[places])
    what = "a map of arteries and veins" if marked is not None else "a map of classes"
    raise UserError(
        f"{name} has more than two values: the {len(values)} colours {_listed(values, shares)}. That looks like "
        f"{what}, and which colours mark {target or 'what is meant'} cannot be known. {_ONE_CLASS}"
    )


def _values(pixels: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.float64], NDArray[np.intp]] | None:
    """Values (N, C), the most frequent first, their shares (N,) and which of them stands where (H, W)."""
    flat = pixels.reshape(-1, pixels.shape[2])
    if len(np.unique(flat[:: max(1, len(flat) // _SAMPLE)], axis=0)) > _CLASSES:
        return None
    places = np.full(len(flat), -1, np.intp)
    left = np.arange(len(flat))
    values: list[NDArray[np.generic]] = []
    counts: list[int] = []
    while len(left):
        if len(values) == _CLASSES:
            return None
        values.append(flat[left[0]])
        same = (flat[left] == values[-1]).all(axis=1)
        if not same.any():  # NaN
            return None
        places[left[same]] = len(values) - 1
        counts.append(int(same.sum()))
        left = left[~same]
    order = np.argsort(np.negative(counts), kind="stable")
    shares = np.array(counts)[order] / len(flat)
    return np.array(values)[order], shares, np.argsort(order)[places].reshape(pixels.shape[:2])


def _coloured(values: NDArray[np.generic]) -> bool:
    return bool((values != values[:, :1]).any())


def _arteries_and_veins(values: NDArray[np.generic], shares: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which of the values (N, 3) are vessels, bool (N,); None where this is no map of arteries and veins."""
    full = values.astype(np.float64) / max(float(values.max()), 1)
    names = [_called(value) for value in full]
    background = names[0]
    if background not in ("black", "white") or shares[0] <= 0.5:
        return None
    others = names[1:]
    if "" in others or background in others or (background == "white" and "black" in others):
        return None
    least = _LEAST * shares[1:].sum()
    for kind in ("red", "blue"):
        if sum(share for name, share in zip(others, shares[1:], strict=True) if name == kind) < least:
            return None
    return np.arange(len(values)) > 0


def _called(value: NDArray[np.float64]) -> str:
    """The colour of a value (3,) in [0, 1] that has next to nothing of the channels it does not have, else ""."""
    near = ((name, np.abs(value - colour).max()) for name, colour in _COLOURS.items())
    return next((name for name, distance in near if distance <= 0.25), "")


def _listed(values: NDArray[np.generic], shares: NDArray[np.float64]) -> str:
    """The values in words, each with its share: "black (86.1 %), red (7.2 %)"."""
    full = max(float(values.max()), 1)
    said = []
    for value, share in zip(values, shares, strict=True):
        exact = next((n for n, c in _COLOURS.items() if _coloured(values) and (value / full == c).all()), "")
        shown = exact or ("/".join(f"{v:g}" for v in value) if _coloured(values) else f"{value[0]:g}")
        said.append(f"{shown} ({share:.1%})".replace("%", " %"))
    return ", ".join(said)


def right_way_round(
    marked: NDArray[np.bool_], fov: NDArray[np.bool_], name: str, target: str
) -> tuple[NDArray[np.bool_], str]:
    """A truth with the target marked, turned where nearly all of the field is marked, and what was done or is odd.

    Parameters
    ----------
    marked, fov : bool (H, W); what is dark around the field of what is turned stays unmarked
    name : what the sentences call the truth
    target : what is marked

    Returns
    -------
    bool (H, W), and a sentence, "" where there is nothing to say

    Raises
    ------
    UserError
        where all of the field is marked, as in a mask of the field, or neither what is marked nor the rest can be the
        target
    """
    inside = fov if fov.any() else np.ones_like(marked)
    share = float(marked[inside].mean())
    if share == 0:
        return marked, f"{name} marks nothing inside the field of view."
    if share <= MOST:
        outside = marked.sum() > 2 * marked[inside].sum()
        return marked, f"{name} marks more outside of the field of view than inside." if outside else ""
    usual = f"of the field of view; {target.replace('_', ' ')} at most {MOST:.0%}".replace("%", " %")
    if share <= 0.5:
        return marked, f"{name} marks {100 * share:.0f} % {usual}, as a rule: look whether it marks what you mean."
    turned = _turned(marked)
    if share == 1 or (share >= 1 - MOST and _is_rim(turned, inside)):
        raise UserError(
            f"{name} marks the whole field of view ({100 * share:.0f} % of it), as a mask of the field of view does: "
            f"it can be no truth of {target.replace('_', ' ')}, nor turned round. Expected an image in which what is "
            "marked is bright (255, say) and all else dark (0)"
        )
    if share < 1 - MOST:
        raise UserError(
            f"{name} marks {100 * share:.0f} % {usual}: it cannot be used as it is, nor turned round. Expected an "
            "image in which what is marked is bright (255, say) and all else dark (0)"
        )
    return turned, (
        f"{name} marks {100 * share:.0f} % {usual}. It was turned round: what is dark in it is taken for marked."
    )


def _is_rim(turned: NDArray[np.bool_], inside: NDArray[np.bool_]) -> bool:
    """Whether next to nothing is marked, and that only at the rim of the field (of which masks differ)."""
    if not turned.any():
        return True
    if (turned & inside).sum() > _MOST_OF_RIM * inside.sum():
        return False
    radius = 1 + int(_RIM * np.sqrt(inside.sum()))
    framed = np.pad(inside.astype(np.uint8), 1)
    deep = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1] > radius
    return not bool((turned & deep).any())


def _turned(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is dark bool (H, W) inside the smallest convex area around what is marked: a field is convex."""
    columns, rows = np.nonzero(marked)[::-1]
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
    area = cv2.fillConvexPoly(np.zeros(marked.shape, np.uint8), hull, 1)
    dark = area * ~marked
    square = np.ones((3, 3), np.uint8)
    inner = dark & cv2.erode(area, square)  # the rim alone is what a circle of pixels lacks of its hull
    return (dark & cv2.dilate(inner, square)).astype(np.bool_)
