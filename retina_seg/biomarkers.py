"""Measurements of a vessel mask that a clinician or researcher reads: density, calibre, tortuosity, fractal dimension.

Not here: the centre lines they are read along (centrelines.py), metrics against a truth (metrics.py), drawings.

Conventions of every function
-----------------------------
mask : bool (H, W), or integer where anything but 0 means "vessel". Floats are refused, so that a probability map
    never passes for a mask.
fov : the field of view, same kind and shape, or None for the whole frame. The mask is cut to it first: pixels
    outside it have no influence whatsoever.
Undefined is NaN, never 0. Density and length of an empty mask are 0.0, for there it is known that nothing is marked;
    in an empty field of view everything is NaN.
Errors are ValueError (shapes) and TypeError (kind of array): mistakes of a program, not of its user.

How: cut to the field of view -> find the centre lines -> read calibre, length and bending along them. Where vessels
meet or leave the field of view neither calibre nor course is that of one vessel; these stretches count for `length_px`
and the fractal dimension only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from retina_seg.centrelines import Lines, arc_lengths, centre_lines, path_ends
from retina_seg.fov import crop_box

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Fov = npt.ArrayLike | None

LEAST_LENGTH_PX = 10.0
"""Stretches of centre line shorter than this, or than LEAST_CALIBRES times their calibre, have no tortuosity."""
LEAST_CALIBRES = 2.0
BOXES = 2.0 ** -np.arange(3, 6.01, 0.5)
"""Box sides of the fractal dimension, as parts of the longer side of the field of view: 1/8 to 1/64."""

_LEAST_BOX_PX = 2.0
_LEAST_BOXES = 5  # sizes, or a slope is not to be trusted
_OFFSETS = (np.arange(4) + 0.5) / 4  # of the grid of boxes, in boxes


@dataclass(frozen=True)
class Biomarkers:
    """Measurements of one vessel mask; see the functions of the same names. NaN where undefined.

    `length_px` is the length of all centre lines inside the field of view, in pixels.
    """

    density: float
    calibre_px: float
    tortuosity: float
    fractal_dimension: float
    length_px: float


def measure(mask: npt.ArrayLike, fov: Fov = None) -> Biomarkers:
    """All biomarkers of one mask (H, W), thinned once. Errors: see the head of this file."""
    marked, inside = _inside(mask, fov)
    lines = centre_lines(marked, inside)
    return Biomarkers(
        density=_density(marked, inside),
        calibre_px=_calibre(lines),
        tortuosity=_tortuosity(lines),
        fractal_dimension=_fractal_dimension(lines),
        length_px=lines.length_px,
    )


def density(mask: npt.ArrayLike, fov: Fov = None) -> float:
    """Share of the field of view's pixels that are marked, in [0, 1]; NaN for an empty field of view."""
    return _density(*_inside(mask, fov))


def calibre_px(mask: npt.ArrayLike, fov: Fov = None) -> float:
    """Mean calibre in pixels along the centre lines, away from junctions, ends and the rim; NaN where there are none.

    At a point of the centre line both edges are looked for along its normal n, with the exact Euclidean distance
    transform D (distance to the nearest pixel centre of the background; Felzenszwalb & Huttenlocher, Theory of
    Computing 8, 2012). The sum of the two distances is the calibre and a bit: a background pixel's centre lies
    beyond the edge, by 0 to max(|nx|, |ny|) px along n, half of that on average, so that max(|nx|, |ny|) is taken
    off. The reading is from near the edges, as from the centre of a wide vessel the nearest of many pixels would be
    found, which makes it look thinner; and from both sides, as the centre line of a vessel an even number of pixels
    wide lies half a pixel off. Straight vessels 1 to 40 px wide are measured to 0.1 px on average over their angle.
    """
    return _calibre(centre_lines(*_inside(mask, fov)))


def tortuosity(mask: npt.ArrayLike, fov: Fov = None) -> float:
    """Arc length over chord, 1 for straight vessels; NaN where no stretch of vessel is long enough.

    The ratio of Lotmar, Freiburghaus & Bracher (Graefes Arch Ophthalmol 211, 1979) for every stretch between
    junctions, free ends and rim, averaged with the lengths as weights: the harmonic mean, sum of arcs over sum of
    chords, to which a vessel that almost returns to its beginning adds no more than its length. Closed loops have no
    chord and do not count. The arc is that of the smoothed line; from pixel to pixel it would be up to 8 % too long.
    Straight vessels are measured as 1.00, arcs of a radius of 15 px or more to 1.5 % up to a calibre of 5 px.
    """
    return _tortuosity(centre_lines(*_inside(mask, fov)))


def fractal_dimension(mask: npt.ArrayLike, fov: Fov = None) -> float:
    """Box-counting dimension of the centre lines, in [0, 2]; NaN where they are shorter than the largest box.

    Minus the slope of log N(s) over log s (least squares), N(s) being the number of boxes of side s that hold part
    of a centre line (review: Masters, Annu Rev Biomed Eng 6, 2004). Sides s are BOXES times the longer side of the
    field of view, so that the size of the photograph hardly matters, and N(s) is the fewest of 16 positions of the
    grid, so that the position of the eye hardly does. Curves of known dimension come out within 0.07, lines always
    a little below 1. Boxes below 2 px are left out; a field of view so small that fewer than five sizes remain has
    no dimension. Other methods and other boxes give other values (1.7 in many papers): compare only what was
    measured alike.
    """
    return _fractal_dimension(centre_lines(*_inside(mask, fov)))


CLEARLY = 0.5
"""A biomarker is unusual where it lies outside its range by more than this part of the range's width."""


@dataclass(frozen=True)
class Description:
    """What a reader is told about a biomarker.

    `unit` is "" for a ratio; one that begins with "%" asks for the value times 100. `digits` after the point are
    worth showing; `sentence` needs no mathematics. `usual` is the range in hand-marked photographs, where a
    value far from it tells of missing or invented vessels.
    """

    label: str
    unit: str
    digits: int
    sentence: str
    usual: tuple[float, float] | None = None


# Ranges: 5th to 95th percentile of `measure` on the first annotator's masks of the 20 DRIVE training photographs,
# STARE (20) and CHASE_DB1 (28), pooled. Lengths were divided by the width of the field of view, 536 to 922 px.
# The sets differ, by annotator as much as by camera: CHASE_DB1 has no dimension above 1.44.
DESCRIPTIONS: dict[str, Description] = {
    "density": Description(
        "Vessel density",
        "% of the field of view",
        1,
        "Part of the visible retina that is covered by vessels: 7 to 14 % in most hand-marked photographs.",
        (0.074, 0.141),
    ),
    "calibre_px": Description(
        "Mean calibre",
        "px",
        1,
        "Average width of the vessels, fine ones included: 2.7 to 3.9 px in most hand-marked photographs when the"
        " field of view is 540 px wide, and more in proportion when it is wider.",
    ),
    "tortuosity": Description(
        "Tortuosity",
        "",
        3,
        "How much longer the vessels are than straight lines between their ends, where 1 is straight: 1.03 to 1.07"
        " in most hand-marked photographs.",
    ),
    "fractal_dimension": Description(
        "Fractal dimension",
        "",
        2,
        "How finely the vessels branch to fill the retina, where 1 is a single line and 2 a surface filled evenly:"
        " 1.30 to 1.53 in most hand-marked photographs.",
        (1.302, 1.534),
    ),
    "length_px": Description(
        "Vessel length",
        "px",
        0,
        "Length of all vessels together: 5300 to 10600 px in most hand-marked photographs when the field of view is"
        " 540 px wide, and more in proportion when it is wider.",
    ),
}
"""What to write beside each field of Biomarkers, in the order of every table."""


def unusual(measured: Mapping[str, float]) -> dict[str, float]:
    """Biomarkers that lie clearly outside their usual range: name -> distance in widths of the range, negative below.

    `measured` has the fields of Biomarkers; NaN is passed over. Masks of the packaged model without flips: no DRIVE
    photograph of 40, 3 of 20 of STARE and none of 28 of CHASE_DB1; 7 of 81 of IDRiD, in which most vessels are missed.
    """
    found = {}
    for name, value in measured.items():
        usual = DESCRIPTIONS[name].usual
        if usual is not None and not math.isnan(value):
            low, high = usual
            distance = (min(value - low, 0.0) + max(value - high, 0.0)) / (high - low)
            if abs(distance) > CLEARLY:
                found[name] = distance
    return found


def _binary(values: npt.ArrayLike, name: str) -> Bools:
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} is {array.dtype}; expected bool or integer (a thresholded map)")
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected one image (H, W)")
    return cast(Bools, array if array.dtype.kind == "b" else array != 0)


def _inside(mask: npt.ArrayLike, fov: Fov) -> tuple[Bools, Bools]:
    """Mask inside the field of view, and the field of view, both cut to its box."""
    marked = _binary(mask, "mask")
    inside = np.ones_like(marked) if fov is None else _binary(fov, "fov")
    if inside.shape != marked.shape:
        raise ValueError(f"shapes differ: field of view {inside.shape}, mask {marked.shape}")
    if not inside.any():
        return (np.zeros((0, 0), np.bool_),) * 2
    y0, x0, y1, x1 = crop_box(inside)
    inside, marked = (cut[y0:y1, x0:x1] for cut in (inside, marked))
    return inside & marked, inside


def _density(marked: Bools, inside: Bools) -> float:
    pixels = np.count_nonzero(inside)
    return float(np.count_nonzero(marked) / pixels) if pixels else math.nan


def _calibre(lines: Lines) -> float:
    if not lines.clear.any():
        return math.nan
    length, clear = np.bincount(lines.path), np.bincount(lines.path, lines.clear)
    mean = np.bincount(lines.path, lines.clear * lines.calibre) / np.maximum(clear, 1)
    # A path counts with its whole length: what is taken off at junctions is longer the wider the vessels are.
    return float(np.average(mean, weights=length * (clear > 0)))


def _tortuosity(lines: Lines) -> float:
    first, last = path_ends(lines.path)
    closed = np.abs(lines.place[last] - lines.place[first]) < 0.5
    kept = np.flatnonzero(lines.single & ~closed)
    if not kept.size:
        return math.nan
    # Stretches: what is left of a path, in pieces where something was taken out of its middle.
    apart = (np.diff(kept) > 1) | (np.diff(lines.path[kept]) > 0)
    stretch = np.concatenate([[0], np.cumsum(apart, dtype=np.int64)])
    place = lines.place[kept]
    begin, end = (np.unique(ends) for ends in path_ends(stretch))
    arc, chord = arc_lengths(place, stretch), np.abs(place[end] - place[begin])
    calibre = np.bincount(stretch, lines.calibre[kept]) / np.bincount(stretch)
    told = arc >= np.maximum(LEAST_LENGTH_PX, LEAST_CALIBRES * calibre)
    arcs, chords = float(arc[told].sum()), float(chord[told].sum())
    return arcs / chords if chords else math.nan


def _fractal_dimension(lines: Lines) -> float:
    longer = max(lines.shape)
    sides = BOXES * longer
    sides = sides[sides >= _LEAST_BOX_PX]
    if len(sides) < _LEAST_BOXES or len(lines.pixels) < sides[0]:
        return math.nan
    counts = [_boxes(lines.pixels, side, lines.shape) for side in sides]
    return float(-np.polyfit(np.log(sides), np.log(counts), 1)[0])


def _boxes(pixels: Array, side: float, shape: tuple[int, int]) -> int:
    """Fewest boxes of this side that hold all pixels (m, 2), over the positions of the grid."""
    # Counted from the middle, with offsets that mirror each other: turning the image changes next to nothing.
    from_middle = (pixels - (np.array(shape) - 1) / 2) / side  # (m, 2)
    row, column = (np.floor(from_middle[:, axis] + _OFFSETS[:, None]).astype(np.int64) for axis in (0, 1))
    row, column = row - row.min(), column - column.min()  # (offsets, m)
    wide = int(column.max()) + 1
    fewest = len(pixels)
    for y in row:
        for x in column:
            hit = np.zeros((int(row.max()) + 1) * wide, np.bool_)
            hit[y * wide + x] = True
            fewest = min(fewest, int(np.count_nonzero(hit)))
    return fewest
