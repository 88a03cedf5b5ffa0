"""What surrounds, covers or stands beside a photograph in its picture: bright margins, boxes over a name, a second eye.

Not here: the edge of the field of view itself (fov), and what is told about it (quality).

Everything is looked for on a work copy of some 512 pixels. Of 1,236 real photographs (DRIVE, STARE, CHASE_DB1, IDRiD,
ORVS, SRahimDR, DRISHTI-GS1) none has margins or boxes by these limits, and none is taken for two.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Picture = NDArray[np.uint8]  # (h, w, 3) or (h, w)

WORK_SIDE = 512
"""Longest side, in pixels, of the reduced photograph on which everything is looked for."""

# Brightness (largest channel) of the corners of real photographs: the second darkest at most 13, the brightest 41.
_CORNER, _BRIGHT_CORNERS, _BRIGHTEST_CORNER = 0.03, 24, 60
_DARK_SURROUND = 40
_LIKE = 18.0  # grey levels, of any channel: a pixel this near to the surround's colour belongs to it
_LEAST_LIKE = 9.0  # where the surround is even
_LIKE_NEAR = 45.0  # and within `_NEAR` of it: ringing of JPEG, pixels that are half surround
_NEAR = 0.008  # of the longer side
_EDGED = 0.7  # of the border of the surround
_EVEN, _SMALL_LEFT, _LEAST_LEFT = 0.6, 0.01, 0.2  # grey levels; of the picture, where the surround is even and else
_MOST_INSIDE = 0.16  # of the convex hull of what is left: two touching circles have .12 between them
_STEPS = 10  # inwards, of a twelfth of the longer side each
_UNEVEN, _RED = 2.0, 0.5  # grey levels; share of red: both above in a retina, where surrounds are even or not red
_MOST_SURROUND, _LEAST_SURROUND = 0.95, 0.02  # of the picture

_MOST_FRAME = 0.25  # of the width or height: depth of a strip at one side
_WITHIN = 0.998  # of a field of view lies within the frame
_FRAME_LIKE, _FRAME_EVEN, _FRAME_GONE = 12, 0.7, 0.1  # grey levels; of a line, alike in the strip and beyond
_FRAME_TURNS = 0.015  # of the height: a tilted frame ends within that

_FLAT = 8  # grey levels: largest difference of a flat pixel to its neighbours
_DARK_BOX = 24
_LEAST_BOX = 0.0002  # of the picture
_MOST_BOXES = 40  # looked at, the largest
_BOX_REACH = 0.03  # of the longer side: a side lies so near to the flat part, the ringing of JPEG between
_BOX_LIKE, _BOX_UNLIKE = 20, 24  # grey levels from its colour: inside, outside
_SMALL_BOX, _BOX_CLEAR = 0.004, 60  # of the picture; grey levels
_LEAST_FILL = 0.5  # of a box has its colour; the rest may be text

_WORK_APART = 170  # pixels of the longer side, at least
_HOLE = 0.04  # of the bright part: smaller holes are filled
_LEAST_PEAK = 0.35  # of the largest: radius of the circle that fits into another photograph
_WAIST = 1.15  # radius of the smaller of two photographs, in those of the circle that fits between them
_LEAST_SEVERED = 0.1  # of the larger part of a field of view: what a bar cuts off
_SEAM_STEP, _SEAM = 8, 0.6  # grey levels over two pixels; part of a line through the field that has such a step

_FILLS_BOX, _FILLS_CIRCLE = 0.96, 0.94  # a field of view: part of its box, agreement with a circle
_NO_CIRCLE = 0.9  # of its box: a circle that is cut above and below fills .87
_LEAST_SIDE = 16
_NEARLY_ALL = 0.85  # of the picture
_LESS_RED = 0.12  # share of red in the corners of a surround, less than in the middle
_RED_CORNERS = 0.45  # share of red: more in the corners of a crop of retina


def without_frame(small: Picture) -> tuple[slice, slice]:
    """The part of a picture within even strips of one colour along its sides: a thin frame, the dark rim of a sensor.

    Parameters
    ----------
    small : uint8 (h, w, 3) or (h, w).

    Returns
    -------
    rows, columns; all of them where there is no strip beyond which the whole line has another colour at once
    """
    calm = cv2.medianBlur(small, 5)
    colours = (calm[..., None] if calm.ndim == 2 else calm).astype(np.int16)
    top, bottom = _strip(colours), _strip(colours[::-1])
    turned = colours.transpose(1, 0, 2)
    left, right = _strip(turned), _strip(turned[::-1])
    return slice(top, len(colours) - bottom), slice(left, len(turned) - right)


def _strip(colours: NDArray[np.int16]) -> int:
    """Rows of an even strip at the upper side, and of what blends into it, int16 (h, w, C)."""
    height, width = colours.shape[:2]
    most = round(_MOST_FRAME * height)
    turns = max(3, round(_FRAME_TURNS * height))
    colour = np.median(colours[0], axis=0)
    alike = (_largest(np.abs(colours[: most + turns] - colour)) < _FRAME_LIKE).mean(axis=1)
    less = np.flatnonzero(alike < _FRAME_EVEN)
    if not less.size or not 0 < less[0] <= most:
        return 0
    depth = int(less[0])
    at_ends = 2 * depth / width  # a frame at the other sides
    gone = np.flatnonzero(alike[depth : depth + turns] < _FRAME_GONE + at_ends)
    if not gone.size:
        return 0
    end = depth + int(gone[0])
    step = np.median(_largest(np.abs(colours[end : end + 1] - colours[depth - 1 : depth])))
    return end + 1 if step > _FRAME_LIKE else 0  # less in a picture that is brighter from row to row


def surround(small: Picture) -> Bools:
    """Margins that are not black: what is joined to the frame and has its colour, which may change evenly, (h, w).

    Nothing where the frame is dark, as in photographs as cameras give them, or has no colour of its own.
    """
    colours = small[..., None] if small.ndim == 2 else small
    nothing = np.zeros(colours.shape[:2], bool)
    if not _bright_corners(colours):
        return nothing
    away = _from_surround(colours)
    first = away[_at_frame(away < _LIKE)]
    spread = float(np.median(first)) if first.size else 0.0
    found = _at_frame(away < min(_LIKE, _LEAST_LIKE + 3 * spread))
    if spread > _UNEVEN and found.any() and _redness(colours[found]) > _RED:  # a crop: the rim of a retina
        return nothing
    if not _LEAST_SURROUND < found.mean() < _MOST_SURROUND or not _has_edge(found, away):
        return nothing
    if np.quantile(_largest(colours)[found], 0.9) < _DARK_SURROUND:  # only a label at the corner is bright
        return nothing
    if not _is_outside(found, _SMALL_LEFT if spread < _EVEN else _LEAST_LEFT):
        return nothing
    reach = 2 * max(1, round(_NEAR * max(found.shape))) + 1
    near = cv2.dilate(found.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    wide = found | (near & (away < _LIKE_NEAR))
    return cv2.dilate(wide.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _has_edge(found: Bools, away: NDArray[np.float32]) -> bool:
    """Whether another colour begins at once where the surround ends, and does not come about little by little."""
    near, far = (cv2.dilate(found.astype(np.uint8), np.ones((side, side), np.uint8)) > 0 for side in (5, 11))
    beyond = away[far & ~near]
    return bool(beyond.size) and float((beyond > 2 * _LEAST_LIKE).mean()) > _EDGED


def _is_outside(found: Bools, least: float) -> bool:
    """Whether the surround leaves one large part of the picture, at least `least` of it, and does not reach into it.

    An even retina without margins would be found else, but for its disc, its macula and its exudates.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~found).astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < least * found.size:
        return False
    whole = _hull(labels == largest)
    return bool(np.count_nonzero(found & whole) < _MOST_INSIDE * np.count_nonzero(whole))


def _bright_corners(colours: Picture) -> bool:
    side = max(3, round(_CORNER * min(colours.shape[:2])))
    ends = (slice(None, side), slice(-side, None))
    levels = sorted(float(np.median(_largest(colours[y, x]))) for y in ends for x in ends)
    return levels[1] >= _BRIGHT_CORNERS or levels[-1] >= _BRIGHTEST_CORNER


def _from_surround(colours: Picture) -> NDArray[np.float32]:
    """How far each pixel is from the colour of the surround at its place, largest channel, (h, w).

    The colour is first that of the corners and a plane between them, then, step by step inwards on a coarse copy,
    the mean of what was found around: gradients of any form are followed, and no step of brightness is passed.
    """
    height, width = colours.shape[:2]
    smooth = cv2.medianBlur(colours, 5).reshape(height, width, -1).astype(np.float32)
    size = (max(8, width // 4), max(8, height // 4))
    coarse = cv2.resize(smooth, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    expected = _plane(coarse)
    window = (0, 0), max(size) / 24
    for _ in range(_STEPS):
        known = _at_frame(_largest(np.abs(coarse - expected)) < _LEAST_LIKE).astype(np.float32)[..., None]
        weight = cv2.GaussianBlur(known, *window)[..., None]
        total = cv2.GaussianBlur(coarse * known, *window).reshape(coarse.shape)
        expected = np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), expected)
    expected = cv2.resize(expected, (width, height), interpolation=cv2.INTER_LINEAR).reshape(smooth.shape)
    return _largest(np.abs(expected - smooth))


def _plane(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours on a plane through those of the corners, (h, w, C); one corner may be another, under a label, say."""
    height, width = colours.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y], axis=2)  # (h, w, 3)
    corners = (np.abs(x) > 1 - 2 * _CORNER) & (np.abs(y) > 1 - 2 * _CORNER)
    there, seen = terms[corners], colours[corners]  # (n, 3), (n, C)
    weight = np.ones(len(there))
    for _ in range(12):  # absolute differences are made small, not squares
        weighed = there * weight[:, None]
        fitted = np.linalg.solve(weighed.T @ there + 1e-6 * np.eye(3), weighed.T @ seen)
        weight = 1 / (np.abs(there @ fitted - seen).max(axis=1) + 2)
    return (terms @ fitted).astype(np.float32)


def _at_frame(flags: Bools) -> Bools:
    """What of `flags` is joined to the frame."""
    _, labels = cv2.connectedComponents(flags.astype(np.uint8), connectivity=4)
    touching = _labels_at_frame(labels)
    return np.isin(labels, touching[touching > 0])


def boxes(small: Picture, inside: Bools | None = None) -> Bools:
    """Rectangles of one colour with straight, sharp sides, as put over a name, (h, w).

    Parameters
    ----------
    small : uint8 (h, w, 3) or (h, w).
    inside : bool (h, w); None looks everywhere for boxes that are not black; else black ones in this part of the
        picture are looked for, whose outside is black, too.
    """
    calm = cv2.medianBlur(small, 5)  # less ringing of JPEG, sides and corners stay
    colours = calm[..., None] if calm.ndim == 2 else calm
    square = np.ones((3, 3), np.uint8)
    uneven = cv2.dilate(colours, square) - cv2.erode(colours, square)
    flat = _largest(uneven.reshape(colours.shape)) <= _FLAT
    dark = _largest(colours) < _DARK_BOX
    reach = max(3, round(_BOX_REACH * max(flat.shape))) + 4
    domain = np.ones_like(flat) if inside is None else inside
    flat &= ~dark if inside is None else dark & inside
    _, labels, stats, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=4)
    # Beyond the frame nothing is told, and the window of a box at the frame is as wide as that of others.
    padded = cv2.copyMakeBorder(colours, reach, reach, reach, reach, cv2.BORDER_REPLICATE).reshape(
        flat.shape[0] + 2 * reach, flat.shape[1] + 2 * reach, -1
    )
    framed = np.pad(domain, reach)
    found = np.zeros_like(framed)
    large = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:_MOST_BOXES]
    for number in large[stats[large, cv2.CC_STAT_AREA] >= _LEAST_BOX * flat.size]:
        x0, y0, width, height, _ = (int(value) for value in stats[number])
        core = np.s_[y0 : y0 + height, x0 : x0 + width]
        colour = np.median(colours[core][labels[core] == number], axis=0).astype(np.int16)
        window = np.s_[y0 : y0 + height + 2 * reach, x0 : x0 + width + 2 * reach]
        away = _largest(np.abs(padded[window] - colour))
        if (
            box := _box(away, framed[window], (reach, reach, reach + height, reach + width), _SMALL_BOX * flat.size)
        ) is not None:
            found[window][box] = True
    return found[reach:-reach, reach:-reach] & domain


def black_boxes(small: Picture, inside: Bools) -> Bools:
    """Black boxes in a field of view bool (h, w), and what of them lies in its outermost pixels, where all fades."""
    side = np.ones((7, 7), np.uint8)
    inner = _shrunk(inside, 3)
    found = boxes(small, inner)
    if not found.any():
        return found
    dark = (small if small.ndim == 2 else _largest(small)) < _DARK_BOX
    return found | ((cv2.dilate(found.astype(np.uint8), side) > 0) & dark & inside & ~inner)


def _box(
    away: NDArray[np.int16], domain: Bools, core: tuple[int, int, int, int], small: float
) -> tuple[slice, slice] | None:
    """The rectangle around a flat `core` (y0, x0, y1, x1), or None where its sides are not those of a box.

    `away` int16 (h, w): how far every pixel is from the core's colour. Boxes of less than `small` pixels must differ
    much from what is around them, as bright parts of an optic disc between vessels are such rectangles, too.
    """
    turned = away, domain
    sides = []
    told = seen = clear = 0
    for quarter in range(4):  # every side is once the upper one
        values, there = turned
        y0, x0, y1, x1 = _turned(core, quarter, away.shape)
        edge = y0
        for row in range(y0 - 1, -1, -1):
            line = there[row, x0:x1]
            if not line.any() or (values[row, x0:x1][line] <= _BOX_LIKE).mean() < 0.5:
                break
            edge = row
        within = there[edge + 1, x0:x1]
        if within.any() and (values[edge + 1, x0:x1][within] <= _BOX_LIKE).mean() < 0.8:
            return None
        outer = edge - 3
        if outer < 0:
            return None
        line = there[outer, x0:x1] & there[edge, x0:x1]
        told += int(np.count_nonzero(line))
        unlike = int(np.count_nonzero(values[outer, x0:x1][line] > _BOX_UNLIKE))
        seen += unlike
        clear += int(np.count_nonzero(values[outer, x0:x1][line] > _BOX_CLEAR))
        if np.count_nonzero(line) > 4 and unlike < 0.7 * np.count_nonzero(line):
            return None
        sides.append(edge)
        turned = np.rot90(values), np.rot90(there)
    top, right, bottom, left = sides
    height, width = away.shape
    # A quarter turn to the left makes the right side the upper one.
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    around = 2 * (y1 - y0 + x1 - x0)
    if told < 0.2 * around or seen < 0.8 * told:
        return None
    alike = (away[rows, columns] <= _BOX_LIKE)[domain[rows, columns]]
    if small > alike.size and (clear < 0.9 * told or told < 0.9 * around or alike.mean() < 0.9):
        return None
    return (rows, columns) if alike.mean() >= _LEAST_FILL else None


def _turned(box: tuple[int, int, int, int], quarter: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box (y0, x0, y1, x1) after so many quarter turns to the left of a picture (h, w)."""
    y0, x0, y1, x1 = box
    height, width = shape
    for _ in range(quarter):
        y0, x0, y1, x1 = width - x1, y0, width - x0, y1
        height, width = width, height
    return y0, x0, y1, x1


def _largest(values: NDArray[Any]) -> NDArray[Any]:
    """The largest channel, (h, w) of (h, w, C); many times as fast as numpy along the last axis."""
    found = values[..., 0]
    for channel in range(1, values.shape[2]):
        found = np.maximum(found, values[..., channel])
    return found


def apart(bright: Bools) -> NDArray[np.int32]:
    """Number the photographs in a picture from 1, by their bright part bool (h, w): which one a pixel is nearest to.

    Two are told by the dark gap or the waist between them: the largest circles that fit into them are larger than
    what fits in between. All is 1 where there is one photograph, int32 (h, w).
    """
    height, width = bright.shape
    step = max(1, max(bright.shape) // _WORK_APART)
    filled = _without_small_holes(bright[::step, ::step])
    distance = cv2.distanceTransform(np.pad(filled, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    peaks = _peaks(distance)
    if len(peaks) < 2:
        return np.ones((height, width), np.int32)
    rows, columns = (np.arange(side)[::step] for side in (height, width))
    y, x = np.ogrid[:height, :width]
    # The power of a point (Laguerre 1850): circles of unlike size are parted at their common chord.
    powers = [(y - rows[i]) ** 2 + (x - columns[j]) ** 2 - (step * distance[i, j]) ** 2 for i, j in peaks]
    return 1 + np.argmin(np.stack(powers), axis=0).astype(np.int32)


def _without_small_holes(flags: Bools) -> Bools:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~flags).astype(np.uint8), connectivity=4)
    inner = ~np.isin(np.arange(count), _labels_at_frame(labels))
    small = inner & (stats[:, cv2.CC_STAT_AREA] < _HOLE * np.count_nonzero(flags))
    small[0] = True  # what is set already
    return small[labels]


def _peaks(distance: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Places (row, column) whose distance from the edge is a clear maximum, the largest first."""
    top = float(distance.max())
    found: list[tuple[int, int]] = []
    for level in np.arange(0.95, _LEAST_PEAK - 0.001, -0.05) * top:
        count, labels = cv2.connectedComponents((distance >= level).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            part = np.where(labels == number, distance, 0)
            held = [peak for peak in found if labels[peak] == number]
            if not held:
                i, j = np.unravel_index(int(np.argmax(part)), part.shape)
                found.append((int(i), int(j)))
            for peak in held[1:]:  # they join here: the lower one must have been clearly higher
                if distance[peak] < _WAIST * level and distance[held[0]] >= distance[peak]:
                    found.remove(peak)
    return found


def seam(small: Picture, inside: Bools) -> bool:
    """Whether two photographs without margins meet in a straight line through the picture, upright or level.

    Parameters
    ----------
    small : uint8 (h, w, 3) or (h, w).
    inside : bool (h, w), the field of view.
    """
    colours = (small[..., None] if small.ndim == 2 else small).astype(np.int16)
    return _upright_seam(colours, inside) or _upright_seam(colours.transpose(1, 0, 2), inside.T)


def severed(flags: Bools, from_part: Bools) -> NDArray[np.int32]:
    """Number from 1 the large parts of `flags`, bool (h, w), that are not joined to one part; else 0, int32 (h, w)."""
    square = np.ones((5, 5), np.uint8)
    rest = flags & (cv2.dilate(from_part.astype(np.uint8), square) == 0)
    opened = cv2.morphologyEx(rest.astype(np.uint8), cv2.MORPH_OPEN, square)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= _LEAST_SEVERED * np.count_nonzero(from_part)
    large[0] = False
    numbers = np.zeros(count, np.int32)
    numbers[large] = 1 + np.arange(np.count_nonzero(large))
    return numbers[labels]


def _severed(inside: Bools) -> bool:
    """Whether a field of view has two large parts."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return bool(severed(inside, labels == largest).any())


def _upright_seam(colours: NDArray[np.int16], inside: Bools) -> bool:
    height, width = np.count_nonzero(inside.any(axis=1)), np.count_nonzero(inside.any(axis=0))
    left = int(np.argmax(inside.any(axis=0)))
    both = inside[:, 2:] & inside[:, :-2]
    step = _largest(np.abs(colours[:, 2:] - colours[:, :-2]))  # (h, w - 2)
    rows = both.sum(axis=0)
    strong = ((step > _SEAM_STEP) & both).sum(axis=0) / np.maximum(rows, 1)
    beside = np.maximum(np.roll(strong, 5), np.roll(strong, -5))
    place = np.arange(len(strong)) - left
    middle = (place > 0.2 * width) & (place < 0.8 * width) & (rows > 0.5 * height)
    return bool((middle & (strong > _SEAM) & (strong > 1.5 * beside)).any())


def _labels_at_frame(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))


class Framing(NamedTuple):
    """How a photograph is framed.

    several : more than one photograph; covered : part of the field of view under boxes, 0 to 1; unsure : a surround
    that is not black, and a field of view that has not the form of one.
    """

    several: bool
    covered: float
    unsure: bool


def measure(image: Picture, fov: Bools) -> Framing:
    """How a photograph uint8 (H, W, 3) is framed, whose field of view was found or given, bool (H, W)."""
    height, width = fov.shape
    scale = min(1.0, WORK_SIDE / max(fov.shape))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    inside = cv2.resize(fov.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    part = without_frame(small)
    if np.count_nonzero(inside[part]) > _WITHIN * np.count_nonzero(inside):
        small, inside = np.ascontiguousarray(small[part]), inside[part]
    if not inside.any() or min(inside.shape) < _LEAST_SIDE:  # a field of a few pixels, a sliver of a picture
        return Framing(several=False, covered=0.0, unsure=False)
    labels = boxes(small)
    whole = _hull(inside)
    margins = surround(small)
    clean = np.where((labels | margins)[..., None], np.uint8(0), small)
    covered = (labels | black_boxes(clean, whole)) & whole
    several = bool(apart(inside | covered).max() > 1)
    if not several and _box_share(whole) > _NO_CIRCLE:  # in a round field lines are those of choroidal vessels
        several = _severed(inside) or seam(small, _shrunk(inside & ~labels & ~covered, 3))
    if np.count_nonzero(inside) > _NEARLY_ALL * inside.size:
        unsure = _bright_corners(small) and _other_corners(small)
    else:
        unsure = bool(margins.any()) and not _well_formed(whole)
    return Framing(several, float(np.count_nonzero(covered) / np.count_nonzero(whole)), unsure)


def _shrunk(flags: Bools, by: int) -> Bools:
    """Without what is within `by` pixels of the outside, also beyond the frame."""
    return cv2.erode(np.pad(flags, by).astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8))[by:-by, by:-by] > 0


def _hull(flags: Bools) -> Bools:
    points = cv2.findNonZero(flags.astype(np.uint8))
    canvas = np.zeros(flags.shape, np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(points), 1)
    return canvas > 0


def _in_box(flags: Bools) -> Bools:
    ys, xs = np.flatnonzero(flags.any(axis=1)), np.flatnonzero(flags.any(axis=0))
    return flags[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def fills_box(fov: Bools) -> bool:
    """Whether a field of view, bool (h, w), is a rectangle."""
    return bool(fov.any()) and _box_share(fov) > _FILLS_BOX


def _box_share(whole: Bools) -> float:
    """How much of its box a field of view, bool (h, w), fills."""
    return float(_in_box(whole).mean())


def _well_formed(whole: Bools) -> bool:
    """Whether a convex field, bool (h, w), fills its box or a circle that the box may cut."""
    part = _in_box(whole)
    if part.mean() > _FILLS_BOX:
        return True
    height, width = part.shape
    y, x = np.ogrid[:height, :width]
    # Cut above, below or on both sides, a circle is as wide as the longer side, and its middle lies on that.
    radius = max(height, width) / 2
    best = 0.0
    for shift in np.linspace(-0.5, 0.5, 9) * abs(height - width):
        row, column = (height - 1) / 2 + shift * (width > height), (width - 1) / 2 + shift * (height > width)
        round_part = np.hypot(y - row, x - column) <= radius
        best = max(best, float((round_part & part).sum() / (round_part | part).sum()))
    return best > _FILLS_CIRCLE


def _other_corners(small: Picture) -> bool:
    """Whether the corners have another colour than the middle though no edge was found between."""
    if small.ndim == 2:
        return False
    side = max(3, round(2 * _CORNER * min(small.shape[:2])))
    height, width = small.shape[:2]
    ends = (slice(None, side), slice(-side, None))
    corners = sorted(_redness(small[y, x]) for y in ends for x in ends)
    middle = _redness(small[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3])
    return corners[1] < min(middle - _LESS_RED, _RED_CORNERS)


def _redness(part: Picture) -> float:
    """Red as a share of red, green and blue, of pixels (..., C); a third where there is one channel."""
    if part.shape[-1] == 1:
        return 1 / 3
    return float(part[..., 0].mean() / max(float(part.mean()) * 3, 1.0))
