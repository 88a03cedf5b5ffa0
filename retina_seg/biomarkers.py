"""Measurements of a vessel mask that a clinician or researcher reads: density, calibre, tortuosity, fractal dimension.

Not here: metrics against a truth (metrics.py), networks, files, drawings.

Conventions of every function
-----------------------------
mask : bool (H, W), or integer where anything but 0 means "vessel". Floats are refused, so that a probability map
    never passes for a mask.
fov : the field of view, same kind and shape, or None for the whole frame. The mask is cut to it first: pixels
    outside it have no influence whatsoever.
Undefined is NaN, never 0. Density and length of an empty mask are 0.0, for there it is known that nothing is marked;
    in an empty field of view everything is NaN.
Errors are ValueError (shapes) and TypeError (kind of array): mistakes of a program, not of its user.

How: cut to the field of view -> thin -> trace the centre lines from junction to junction -> drop spurs -> smooth ->
read calibre, length and bending along the smoothed lines. Where vessels meet or leave the field of view neither
calibre nor course is that of one vessel; these stretches count for `length_px` and the fractal dimension only.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.ndimage import map_coordinates
from scipy.sparse import csgraph

from retina_seg.fov import crop_box

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.complex128]  # x + iy, pixel centres at whole numbers
Fov = npt.ArrayLike | None

LEAST_LENGTH_PX = 10.0
"""Stretches of centre line shorter than this, or than LEAST_CALIBRES times their calibre, have no tortuosity."""
LEAST_CALIBRES = 2.0
BOXES = 2.0 ** -np.arange(3, 6.01, 0.5)
"""Box sides of the fractal dimension, as parts of the longer side of the field of view: 1/8 to 1/64."""

_BORDER = 2  # px of background around the cut mask: neighbours of neighbours exist
_LEAST_BOX_PX = 2.0
_LEAST_BOXES = 5  # sizes, or a slope is not to be trusted
_OFFSETS = (np.arange(4) + 0.5) / 4  # of the grid of boxes, in boxes
_SMOOTH_PX, _SMOOTH_CALIBRE = 2.0, 0.25  # SD of the smoothing along a centre line: px + part of the calibre
_SPUR_CIRCLE, _SPUR_PX = 1.2, 2.0  # a branch that gets no further than part of the inscribed circle + px is a spur
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # neighbours x1 to x8: E, NE, N, ...


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
    lines = _centre_lines(marked, inside)
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
    return _calibre(_centre_lines(*_inside(mask, fov)))


def tortuosity(mask: npt.ArrayLike, fov: Fov = None) -> float:
    """Arc length over chord, 1 for straight vessels; NaN where no stretch of vessel is long enough.

    The ratio of Lotmar, Freiburghaus & Bracher (Graefes Arch Ophthalmol 211, 1979) for every stretch between
    junctions, free ends and rim, averaged with the lengths as weights: the harmonic mean, sum of arcs over sum of
    chords, to which a vessel that almost returns to its beginning adds no more than its length. Closed loops have no
    chord and do not count. The arc is that of the smoothed line; from pixel to pixel it would be up to 8 % too long.
    Straight vessels are measured as 1.00, arcs of a radius of 15 px or more to 1.5 % up to a calibre of 5 px.
    """
    return _tortuosity(_centre_lines(*_inside(mask, fov)))


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
    return _fractal_dimension(_centre_lines(*_inside(mask, fov)))


@dataclass(frozen=True)
class Description:
    """What a reader is told about a biomarker.

    `unit` is "" for a ratio; one that begins with "%" asks for the value times 100. `digits` after the point are
    worth showing; `sentence` needs no mathematics.
    """

    label: str
    unit: str
    digits: int
    sentence: str


# Ranges: 5th to 95th percentile of `measure` on the first annotator's masks of the 20 DRIVE training photographs,
# STARE (20) and CHASE_DB1 (28), pooled. Lengths were divided by the width of the field of view, 536 to 922 px.
# Exact: density .074 to .141, calibre 2.68 to 3.93, tortuosity 1.028 to 1.073, dimension 1.302 to 1.534,
# length 5324 to 10637. The sets differ, by annotator as much as by camera: CHASE_DB1 has no dimension above 1.44.
DESCRIPTIONS: dict[str, Description] = {
    "density": Description(
        "Vessel density",
        "% of the field of view",
        1,
        "Part of the visible retina that is covered by vessels: 7 to 14 % in most hand-marked photographs.",
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


def calibre_um(calibre_px: float, um_per_px: float) -> float:
    """Calibre in micrometres: pixels times the micrometres on the retina that a pixel spans."""
    return calibre_px * um_per_px


class _Lines(NamedTuple):
    """Centre lines, point after point and path after path; a path runs from junction or end to the next one."""

    place: Places  # (n,), smoothed
    path: Indices  # (n,), number of the path, ascending
    calibre: Floats  # (n,), px
    single: Bools  # (n,), away from junctions and rim: the course is that of one vessel
    clear: Bools  # (n,), away from ends too: so is the calibre
    length_px: float
    pixels: Array  # int (m, 2), y and x of the skeleton in the cut-out
    shape: tuple[int, int]  # of the cut-out


def _binary(values: npt.ArrayLike, name: str) -> Bools:
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} is {array.dtype}; expected bool or integer (a thresholded map)")
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected one image (H, W)")
    return cast(Bools, array if array.dtype.kind == "b" else array != 0)


def _inside(mask: npt.ArrayLike, fov: Fov) -> tuple[Bools, Bools]:
    """Mask inside the field of view, and the field of view, cut to its box and framed by background."""
    marked = _binary(mask, "mask")
    inside = np.ones_like(marked) if fov is None else _binary(fov, "fov")
    if inside.shape != marked.shape:
        raise ValueError(f"shapes differ: field of view {inside.shape}, mask {marked.shape}")
    if not inside.any():
        return (np.zeros((2 * _BORDER, 2 * _BORDER), np.bool_),) * 2
    y0, x0, y1, x1 = crop_box(inside)
    # Row by row in memory, whatever view was given: flat indices are used below.
    inside, marked = (np.ascontiguousarray(np.pad(cut[y0:y1, x0:x1], _BORDER)) for cut in (inside, marked))
    return inside & marked, inside


def _density(marked: Bools, inside: Bools) -> float:
    pixels = np.count_nonzero(inside)
    return float(np.count_nonzero(marked) / pixels) if pixels else math.nan


def _calibre(lines: _Lines) -> float:
    if not lines.clear.any():
        return math.nan
    length, clear = np.bincount(lines.path), np.bincount(lines.path, lines.clear)
    mean = np.bincount(lines.path, lines.clear * lines.calibre) / np.maximum(clear, 1)
    # A path counts with its whole length: what is taken off at junctions is longer the wider the vessels are.
    return float(np.average(mean, weights=length * (clear > 0)))


def _tortuosity(lines: _Lines) -> float:
    first, last = _ends(lines.path)
    closed = np.abs(lines.place[last] - lines.place[first]) < 0.5
    kept = np.flatnonzero(lines.single & ~closed)
    if not kept.size:
        return math.nan
    # Stretches: what is left of a path, in pieces where something was taken out of its middle.
    apart = (np.diff(kept) > 1) | (np.diff(lines.path[kept]) > 0)
    stretch = np.concatenate([[0], np.cumsum(apart, dtype=np.int64)])
    place = lines.place[kept]
    begin, end = (np.unique(ends) for ends in _ends(stretch))
    arc, chord = _arcs(place, stretch), np.abs(place[end] - place[begin])
    calibre = np.bincount(stretch, lines.calibre[kept]) / np.bincount(stretch)
    told = arc >= np.maximum(LEAST_LENGTH_PX, LEAST_CALIBRES * calibre)
    arcs, chords = float(arc[told].sum()), float(chord[told].sum())
    return arcs / chords if chords else math.nan


def _fractal_dimension(lines: _Lines) -> float:
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


def _centre_lines(marked: Bools, inside: Bools) -> _Lines:
    """Centre lines of a framed mask, with what is measured along them."""
    width = marked.shape[1]
    pixels = np.flatnonzero(_thin(marked))
    distance = _distance(marked)
    pixels = pixels[~_spurs(pixels, width, distance)]
    point, path = _trace(pixels, width)
    shape = (marked.shape[0] - 2 * _BORDER, width - 2 * _BORDER)
    skeleton = np.stack(np.divmod(pixels, width), 1) - _BORDER
    if not point.size:
        length = 0.0 if inside.any() else math.nan
        nowhere = np.zeros(0, np.bool_)
        return _Lines(np.zeros(0, np.complex128), point, np.zeros(0), nowhere, nowhere, length, skeleton, shape)
    at = pixels[point]
    y, x = np.divmod(at, width)
    radius = distance.ravel()[at].astype(np.float64)
    mean_radius = np.bincount(path, radius) / np.bincount(path)
    place = _smooth(x + 1j * y, path, _SMOOTH_PX + _SMOOTH_CALIBRE * (2 * mean_radius - 1))
    first, last = _ends(path)
    along = np.cumsum(np.abs(np.diff(place, prepend=place[0])))
    # Inside the circle that touches the edges around a junction the vessels are one; around an end, it is round.
    begun, goes_on = along - along[first] > radius[first] + 1, along[last] - along > radius[last] + 1
    shared = np.bincount(point) > 1  # a junction is the end of several paths
    # A circle that touches the rim says nothing of the vessel, which goes on outside.
    off_rim = _distance(inside).ravel()[at] > radius + 2
    single = off_rim & (begun | ~shared[point[first]]) & (goes_on | ~shared[point[last]])
    calibre, length = _widths(place, radius, distance), float(_arcs(place, path).sum())
    return _Lines(place, path, calibre, single, off_rim & begun & goes_on, length, skeleton, shape)


def _distance(marked: Bools) -> npt.NDArray[np.float32]:
    """Exact Euclidean distance to the nearest unmarked pixel, 0 on unmarked ones."""
    return cast(
        npt.NDArray[np.float32],
        cv2.distanceTransform(marked.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
    )


def _widths(place: Places, radius: Floats, distance: Array) -> Floats:
    """Calibre (n,) in pixels at each point of the smoothed centre lines; see `calibre_px`."""
    tangent = np.gradient(place) if place.size > 1 else np.ones_like(place)
    normal = 1j * tangent / np.maximum(np.abs(tangent), 1e-9)
    reach = np.maximum(radius - 1, 1.0)
    to_edge = np.zeros((2, place.size))
    for side, sign in enumerate((-1, 1)):
        seen = place + sign * reach * normal
        to_edge[side] = map_coordinates(distance, (seen.imag, seen.real), order=1, output=np.float64)
    to_edge[to_edge < 0.5] = 0  # beyond the edge; what is read there is interpolated from the vessel's own pixels
    beyond = np.maximum(np.abs(normal.real), np.abs(normal.imag))
    beyond[to_edge.sum(axis=0) == 0] = 1  # a line of single pixels is one pixel wide at any angle
    return 2 * reach + to_edge.sum(axis=0) - beyond


def _ends(path: Indices) -> tuple[Indices, Indices]:
    """Index of the first and of the last point of each point's path; both (n,)."""
    size = np.bincount(path)
    last = np.cumsum(size) - 1
    return (last - size + 1)[path], last[path]


def _arcs(place: Places, path: Indices) -> Floats:
    """Length of each path."""
    step = np.abs(np.diff(place))
    step[path[1:] != path[:-1]] = 0
    return cast(Floats, np.bincount(path[1:], step, minlength=int(path[-1]) + 1))


def _smooth(place: Places, path: Indices, sd: Floats) -> Places:
    """Points smoothed along their paths, with ends that stay; sd: (paths,), in points.

    The kernel is a Gaussian times (3 - (t/sd)^2) / 2, which leaves curves of third order as they are: a plain one
    would make every bend shallower (Wand & Schucany, Can J Stat 18, 1990). Beyond an end the line goes on as its
    own mirror image in that point.
    """
    first, last = _ends(path)
    here, sd = np.arange(place.size), sd[path]
    total, weights = np.zeros_like(place), np.zeros(place.size)
    reach = math.ceil(3.5 * sd.max())
    for t in range(-reach, reach + 1):
        some = here if abs(t) <= 3.5 * sd.min() else np.flatnonzero(abs(t) <= 3.5 * sd)
        u2, at, start, stop = (t / sd[some]) ** 2, some + t, first[some], last[some]
        weight = np.exp(-u2 / 2) * (3 - u2) / 2
        end = np.clip(at, start, stop)
        mirrored = np.clip(2 * end - at, start, stop)
        total[some] += weight * np.where(end == at, place[end], 2 * place[end] - place[mirrored])
        weights[some] += weight
    return total / weights


def _deletable() -> tuple[Bools, Bools]:
    """Whether thinning deletes a pixel with these neighbours (bit k: x_{k+1}), in odd and in even passes.

    Guo & Hall, CACM 32 (1989), algorithm A1, in the words of Lam, Lee & Suen, IEEE PAMI 14 (1992), p. 879: G1 to G3.
    """
    bits = ((np.arange(256) >> np.arange(8)[:, None]) & 1).astype(np.bool_)  # (8, 256)
    x = dict(enumerate((*bits, bits[0]), start=1))  # x1 to x9 = x1
    crossings = np.sum([~x[i] & (x[i + 1] | x[i + 2]) for i in (1, 3, 5, 7)], axis=0)
    n1 = np.sum([x[i] | x[i + 1] for i in (1, 3, 5, 7)], axis=0)
    n2 = np.sum([x[i + 1] | x[i + 2] for i in (1, 3, 5, 7)], axis=0)
    fewer = np.minimum(n1, n2)
    simple = (crossings == 1) & (fewer >= 2) & (fewer <= 3)  # G1, G2
    return simple & ~((x[2] | x[3] | ~x[8]) & x[1]), simple & ~((x[6] | x[7] | ~x[4]) & x[5])  # G3, G3'


_DELETABLE = _deletable()


def _thin(marked: Bools) -> Bools:
    """Skeleton of a framed mask: that of `skimage.morphology.thin`, pixel for pixel, but looking at edges only.

    Zhang & Suen (1984), faster in scikit-image, would not do: it eats up diagonal lines two pixels wide.
    """
    image = marked.astype(np.uint8)
    flat = image.reshape(-1)  # a view
    around = np.array([dy * image.shape[1] + dx for dy, dx in _RING])
    ticket = np.zeros(flat.size, np.int32)
    outline = np.flatnonzero(cv2.dilate(image, np.ones((3, 3), np.uint8)).reshape(-1) > flat)
    # A pixel can have become deletable only next to one deleted in the last two passes. At first: next to the outside.
    deleted, odd = (outline, outline), True
    while deleted[0].size or deleted[1].size:
        near = (np.concatenate(deleted)[:, None] + around).ravel()
        near = near[flat[near] != 0]
        numbers = np.arange(near.size, dtype=np.int32)
        ticket[near] = numbers
        near = near[ticket[near] == numbers]  # each pixel once
        code = np.zeros(near.size, np.uint8)
        for bit, offset in enumerate(around):
            code |= flat[near + offset] << np.uint8(bit)
        gone = near[_DELETABLE[0 if odd else 1][code]]
        flat[gone] = 0
        deleted, odd = (deleted[1], gone), not odd
    return image.view(np.bool_)


def _links(pixels: Indices, width: int) -> tuple[Indices, Indices]:
    """Pairs of skeleton pixels that follow each other: 4-neighbours, and diagonal ones without a common 4-neighbour.

    pixels: flat indices, ascending. This "mixed adjacency" (Gonzalez & Woods, Digital Image Processing, 2.5)
    has no small triangles, so that a pixel with three links is a junction.
    """

    def neighbour(step: int) -> Indices:  # position in `pixels`, or -1
        found = np.searchsorted(pixels, pixels + step)
        found[found == pixels.size] = 0
        return np.where(pixels[found] == pixels + step, found, -1)

    if not pixels.size:
        return pixels, pixels
    right, left, below = neighbour(1), neighbour(-1), neighbour(width)
    below_right = np.where((right >= 0) | (below >= 0), -1, neighbour(width + 1))
    below_left = np.where((left >= 0) | (below >= 0), -1, neighbour(width - 1))
    pairs = [(np.flatnonzero(to >= 0), to[to >= 0]) for to in (right, below, below_right, below_left)]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _graph(a: Indices, b: Indices, points: int) -> sparse.csr_array:
    both = (np.concatenate([a, b]), np.concatenate([b, a]))
    return sparse.csr_array((np.ones(2 * len(a), np.int8), both), shape=(points, points))


def _trace(pixels: Indices, width: int) -> tuple[Indices, Indices]:
    """Paths between junctions and ends: (n,) position in `pixels` of each point, path after path, and its path.

    A junction is the end of each of its paths, so it occurs several times. A closed loop begins and ends in its
    first pixel. Single pixels are no paths.
    """
    a, b = _links(pixels, width)
    ends = np.concatenate([a, b])
    if not ends.size:
        return ends, ends
    links = np.bincount(ends, minlength=pixels.size)
    _, piece = csgraph.connected_components(_graph(a, b, pixels.size), directed=False)
    loop = np.bincount(piece, links != 2) == 0
    cut = links > 2
    cut[np.unique(piece, return_index=True)[1][loop]] = True
    # Each link of a junction gets a copy of its own: what remains are paths.
    at_cut = np.flatnonzero(cut[ends])
    pixel = np.concatenate([np.arange(pixels.size), ends[at_cut]])
    ends[at_cut] = pixels.size + np.arange(at_cut.size)
    used, ends = np.unique(ends, return_inverse=True)
    pixel, a, b = pixel[used], ends[: len(a)], ends[len(a) :]
    _, path = csgraph.connected_components(_graph(a, b, pixel.size), directed=False)
    tip = np.flatnonzero(np.bincount(ends) == 1)
    tips = tip[np.argsort(path[tip], kind="stable")].reshape(-1, 2)  # (paths, 2)
    # Tied together end to beginning they are one line, which a single search runs through in order.
    line = _graph(np.concatenate([a, tips[:-1, 1]]), np.concatenate([b, tips[1:, 0]]), pixel.size)
    order = csgraph.breadth_first_order(line, tips[0, 0], return_predecessors=False)
    return pixel[order], path[order].astype(np.int64)


def _spurs(pixels: Indices, width: int, distance: Array) -> Bools:
    """Skeleton pixels (m,) of spurs: branches that hardly leave the circle inscribed at their junction."""
    spur = np.zeros(pixels.size, np.bool_)
    point, path = _trace(pixels, width)
    if not point.size:
        return spur
    a, b = _links(pixels, width)
    links = np.bincount(np.concatenate([a, b]), minlength=pixels.size)
    y, x = np.divmod(pixels[point], width)
    place = x + 1j * y
    first, last = (np.unique(ends) for ends in _ends(path))  # (paths,)
    from_end, to_end = links[point[first]], links[point[last]]
    junction = np.where(from_end > 2, first, last)
    radius = distance.ravel()[pixels[point[junction]]]
    short = np.abs(place[last] - place[first]) < _SPUR_CIRCLE * radius + _SPUR_PX
    short &= (np.minimum(from_end, to_end) == 1) & (np.maximum(from_end, to_end) > 2)
    spur[point[short[path]]] = True
    spur[links > 2] = False
    return spur
