"""Centre lines of a vessel mask: thinned, traced from junction to junction, freed of spurs, smoothed, with calibres.

Not here: what is read off them (biomarkers.py), cutting a mask to its field of view (fov.py, biomarkers.py), networks.

How: frame by background -> thin -> drop spurs -> trace -> smooth -> look for both edges at each point. Pixels are
numbered row by row (flat indices); a path is a run of points, and arrays hold point after point, path after path.
"""

import math
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.ndimage import map_coordinates
from scipy.sparse import csgraph

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.complex128]  # x + iy, pixel centres at whole numbers

_BORDER = 2  # px of background around the mask: neighbours of neighbours exist
_SMOOTH_PX, _SMOOTH_CALIBRE = 2.0, 0.25  # SD of the smoothing along a centre line: px + part of the calibre
_SPUR_CIRCLE, _SPUR_PX = 1.2, 2.0  # a branch that gets no further than part of the inscribed circle + px is a spur
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # neighbours x1 to x8: E, NE, N, ...


class Lines(NamedTuple):
    """Centre lines, point after point and path after path; a path runs from junction or end to the next one."""

    place: Places  # (n,), smoothed; the mask's first pixel is at 2 + 2i, behind the border
    path: Indices  # (n,), number of the path, ascending
    calibre: Floats  # (n,), px
    single: Bools  # (n,), away from junctions and rim: the course is that of one vessel
    clear: Bools  # (n,), away from ends too: so is the calibre
    length_px: float
    pixels: Array  # int (m, 2), y and x of the skeleton in the mask
    shape: tuple[int, int]  # of the mask


def centre_lines(marked: Bools, inside: Bools) -> Lines:
    """Centre lines of a mask (H, W) with what is measured along them; `inside` is the field of view, same shape.

    Nothing may be marked outside the field of view. Without any line the length is 0.0, in an empty field NaN.
    """
    shape = marked.shape
    # Row by row in memory, whatever view was given: flat indices are used below.
    marked, inside = (np.ascontiguousarray(np.pad(array, _BORDER)) for array in (marked, inside))
    width = marked.shape[1]
    pixels = np.flatnonzero(_thin(marked))
    distance = _distance(marked)
    pixels = pixels[~_spurs(pixels, width, distance)]
    point, path = _trace(pixels, width)
    skeleton = np.stack(np.divmod(pixels, width), 1) - _BORDER
    if not point.size:
        length = 0.0 if inside.any() else math.nan
        nowhere = np.zeros(0, np.bool_)
        return Lines(np.zeros(0, np.complex128), point, np.zeros(0), nowhere, nowhere, length, skeleton, shape)
    at = pixels[point]
    y, x = np.divmod(at, width)
    radius = distance.ravel()[at].astype(np.float64)
    mean_radius = np.bincount(path, radius) / np.bincount(path)
    place = _smooth(x + 1j * y, path, _SMOOTH_PX + _SMOOTH_CALIBRE * (2 * mean_radius - 1))
    first, last = path_ends(path)
    along = np.cumsum(np.abs(np.diff(place, prepend=place[0])))
    # Inside the circle that touches the edges around a junction the vessels are one; around an end, it is round.
    begun, goes_on = along - along[first] > radius[first] + 1, along[last] - along > radius[last] + 1
    shared = np.bincount(point) > 1  # a junction is the end of several paths
    # A circle that touches the rim says nothing of the vessel, which goes on outside.
    off_rim = _distance(inside).ravel()[at] > radius + 2
    single = off_rim & (begun | ~shared[point[first]]) & (goes_on | ~shared[point[last]])
    calibre, length = _widths(place, radius, distance), float(arc_lengths(place, path).sum())
    return Lines(place, path, calibre, single, off_rim & begun & goes_on, length, skeleton, shape)


def path_ends(path: Indices) -> tuple[Indices, Indices]:
    """Index of the first and of the last point of each point's path; both (n,). path: (n,), ascending."""
    size = np.bincount(path)
    last = np.cumsum(size) - 1
    return (last - size + 1)[path], last[path]


def arc_lengths(place: Places, path: Indices) -> Floats:
    """Length (paths,) of each path, in the unit of `place` (n,); path: (n,), ascending from 0 without gaps."""
    step = np.abs(np.diff(place))
    step[path[1:] != path[:-1]] = 0
    return cast(Floats, np.bincount(path[1:], step, minlength=int(path[-1]) + 1))


def _distance(marked: Bools) -> npt.NDArray[np.float32]:
    """Exact Euclidean distance to the nearest unmarked pixel, 0 on unmarked ones."""
    return cast(
        npt.NDArray[np.float32],
        cv2.distanceTransform(marked.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
    )


def _widths(place: Places, radius: Floats, distance: Array) -> Floats:
    """Calibre (n,) in pixels at each point of the smoothed centre lines; see `biomarkers.calibre_px`."""
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


def _smooth(place: Places, path: Indices, sd: Floats) -> Places:
    """Points smoothed along their paths, with ends that stay; sd: (paths,), in points.

    The kernel is a Gaussian times (3 - (t/sd)^2) / 2, which leaves curves of third order as they are: a plain one
    would make every bend shallower (Wand & Schucany, Can J Stat 18, 1990). Beyond an end the line goes on as its
    own mirror image in that point.
    """
    first, last = path_ends(path)
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
    first, last = (np.unique(ends) for ends in path_ends(path))  # (paths,)
    from_end, to_end = links[point[first]], links[point[last]]
    junction = np.where(from_end > 2, first, last)
    radius = distance.ravel()[pixels[point[junction]]]
    short = np.abs(place[last] - place[first]) < _SPUR_CIRCLE * radius + _SPUR_PX
    short &= (np.minimum(from_end, to_end) == 1) & (np.maximum(from_end, to_end) > 2)
    spur[point[short[path]]] = True
    spur[links > 2] = False
    return spur
