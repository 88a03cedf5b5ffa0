"""Field of view of a fundus photograph: find it, crop to it, shrink it, fit its circle.

Not here: what surrounds, covers or stands beside it (framing), reading files (io), resampling (preprocess).

The edge of the field of view is the level line with the steepest step of log brightness that encloses a good
part of the frame; a circle is fitted where it is round, and the outline is drawn at the photograph's size.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from retina_seg import framing
from retina_seg.errors import UserError
from retina_seg.framing import WORK_SIDE

_FLOOR = 8.0  # grey levels added before the logarithm: sensor noise of a dark border is below
_LEVELS = np.geomspace(6.0, 110.0, 12)  # tried, in grey levels of a photograph scaled to a 99 % quantile of 255
_DARKEST = 12.0  # a 99 % quantile below this is a black picture
_DARK_FRAME = 25.0  # of 255: a picture that is all field of view has a higher median
_SMALLEST_SIDE = 16  # of a picture in which an edge can be told at all
_SMALLEST = 0.06  # of the frame: what is smaller is no field of view
_SMALLEST_ZOOMED = 0.01  # the same, where nothing larger is there: through a lens, the field is a small part
_ZOOM_MARGIN = 0.02  # of the longer side
_ZOOM_BELOW = 0.5  # of the sides of the frame: a smaller field of view is looked for once more, from near
_LEAST_STEP = 0.45  # of log brightness across the edge: a factor of 1.6
_SPACING = 4  # of edge points, in work pixels
_EDGE = 0.2  # part of the step at which the edge is drawn
_ON_CIRCLE = 0.015  # of the radius: distance at which an edge point still supports a circle
_INSIDE = 0.75  # part of the edge points that a circle must hold, or it is that of some spot
_ANGLES = np.linspace(-np.pi, np.pi, 1440, endpoint=False)
_NO_FOV = "no field of view found: {}. Is it a fundus photograph?"

Points = NDArray[np.float64]  # (n, 2): x, y


class Circle(NamedTuple):
    """Centre and radius in pixels; the centre of the first pixel is (0, 0)."""

    y: float
    x: float
    radius: float


def find_fov(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the part of a photograph that shows the retina.

    A photograph without a border (a crop, say) is field of view everywhere; the border may have another colour
    than black (`framing.surround`) and lie within a thin frame (`framing.without_frame`). Notches and labels at the
    edge are left out; a field that the frame or the camera cuts straight stays cut; dark parts of the rim are filled.
    The result is one piece without holes, but for what boxes cover (`framing.boxes`), one piece on each side of a bar
    (`framing.severed`), and one for each photograph where there are several (`framing.apart`).

    Parameters
    ----------
    image : uint8 (H, W, 3) RGB, or (H, W)

    Returns
    -------
    bool (H, W)

    Raises
    ------
    UserError
        for pictures that are black or noise, and for a bright spot too small to be a field of view
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected a uint8 (H, W, 3) image, got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST_SIDE:
        raise UserError(_NO_FOV.format(f"the picture is only {width} x {height} pixels"))
    scale = max(1.0, max(height, width) / WORK_SIDE)
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale > 1 else image
    fov = _found(image, small)
    if framing.fills_box(fov) and (framed := _within_frame(image, small)) is not None:
        return framed  # the edge that was found may be that of the frame
    return fov


def _found(image: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The field of view of a photograph (H, W, 3) or (H, W), looked for in a reduced copy of it."""
    height, width = image.shape[:2]
    size = small.shape[1::-1]
    if (margins := framing.surround(small)).any():  # one margin may lie within another
        small = _blackened(small, margins)
        margins = framing.surround(small)
    labels = framing.boxes(small)
    clean = _blackened(small, margins | labels)
    try:
        outline, bright = _search(clean)
    except _TooSmall:
        outline, bright = _search(clean, _SMALLEST_ZOOMED)
    rough = np.ones(bright.shape, bool) if outline is None else _filled(outline, bright.shape)
    covered = labels | framing.black_boxes(clean, rough)
    numbers = framing.apart(bright | covered)
    if numbers.max() == 1 and labels.any():  # a bar across the field of view cuts a part off
        numbers += framing.severed(bright & ~labels, rough)
    zoom = np.array([width / size[0], height / size[1]])
    outlines = [outline]
    if numbers.max() > 1:
        outlines = _searched_apart(clean, numbers) or outlines
    fov = np.ones((height, width), bool) if outlines[0] is None else np.zeros((height, width), bool)
    for one in outlines:
        if one is not None:
            fov |= _filled((one + 0.5) * zoom - 0.5, (height, width))
    y0, x0, y1, x1 = crop_box(fov, round(_ZOOM_MARGIN * max(fov.shape)))
    if max((y1 - y0) / height, (x1 - x0) / width) < _ZOOM_BELOW:
        return _from_near(image, fov, (y0, x0, y1, x1))
    if covered.any():
        hidden = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3), np.uint8))
        fov &= cv2.resize(hidden, (width, height), interpolation=cv2.INTER_NEAREST) == 0
    return fov


def _within_frame(image: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """The field of view within a thin frame; None where there is no frame."""
    rows, columns = framing.without_frame(small)
    inner = []
    for part, side, reduced in zip((rows, columns), image.shape, small.shape, strict=False):
        inner.append(slice(int(np.ceil(part.start * side / reduced)), int(part.stop * side / reduced)))
    within = tuple(inner)
    if image[within].shape == image.shape or min(image[within].shape[:2]) < _SMALLEST_SIDE:
        return None
    fov = np.zeros(image.shape[:2], bool)
    fov[within] = find_fov(np.ascontiguousarray(image[within]))
    return fov


def _from_near(image: NDArray[np.uint8], rough: NDArray[np.bool_], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The field of view as it is found in a part of the picture (y0, x0, y1, x1); `rough` where none is found there."""
    y0, x0, y1, x1 = box
    fov = np.zeros_like(rough)
    try:
        fov[y0:y1, x0:x1] = find_fov(np.ascontiguousarray(image[y0:y1, x0:x1]))
    except UserError:
        return rough
    return fov


def _blackened(small: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    if not where.any():
        return small
    return np.where(where if small.ndim == 2 else where[..., None], np.uint8(0), small)


def _searched_apart(small: NDArray[np.uint8], numbers: NDArray[np.int32]) -> list[Points | None]:
    """Outlines of the photographs `framing.apart` numbered, each looked for where the others are black."""
    found: list[Points | None] = []
    for number in range(1, int(numbers.max()) + 1):
        try:
            found.append(_search(_blackened(small, numbers != number))[0])
        except UserError:  # something bright that is no photograph
            continue
    return [one for one in found if one is not None]


class _TooSmall(UserError):
    """No bright part is large enough."""


def _search(small: NDArray[np.uint8], smallest: float = _SMALLEST) -> tuple[Points | None, NDArray[np.bool_]]:
    """Outline of the field of view, (m, 2), None where it is everything; and what is as bright as it, bool (h, w)."""
    best: tuple[float, Points, NDArray[np.float32], float] | None = None
    for signal in _signals(small):
        for level in _LEVELS:
            region = _region(signal, level, smallest)
            if region is None:
                continue
            step = _edge_step(signal, region)
            if best is None or step > best[0]:
                best = step, region, signal, level
    if best is None:
        raise _TooSmall(_NO_FOV.format(f"the bright part covers less than {smallest:.0%} of the picture"))
    step, edge, signal, level = best
    if step < _LEAST_STEP:
        if np.median(signal) < _DARK_FRAME:
            raise UserError(_NO_FOV.format("most of the picture is dark and its bright part has no edge"))
        return None, np.ones(signal.shape, bool)
    return _outline(_snapped(signal, edge), signal.shape[::-1]), signal >= level


def crop_box(fov: NDArray[np.bool_], margin: int = 0) -> tuple[int, int, int, int]:
    """Smallest box around the field of view, `margin` pixels wider on each side but inside the frame.

    Returns
    -------
    y0, x0, y1, x1, the last two exclusive: `image[y0:y1, x0:x1]`

    Raises
    ------
    ValueError
        for an empty field of view or a negative margin
    """
    if not fov.any() or margin < 0:
        raise ValueError("expected a field of view with at least one pixel, and a margin of 0 or more")
    ys, xs = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    return (
        max(0, int(ys[0]) - margin),
        max(0, int(xs[0]) - margin),
        min(fov.shape[0], int(ys[-1]) + 1 + margin),
        min(fov.shape[1], int(xs[-1]) + 1 + margin),
    )


def erode(fov: NDArray[np.bool_], px: float) -> NDArray[np.bool_]:
    """Remove the pixels within `px` pixels (Euclidean) of the outside, which begins at the frame too."""
    if px <= 0:
        return fov.copy()
    framed = np.pad(fov, 1).astype(np.uint8)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance[1:-1, 1:-1] > px


def circle(fov: NDArray[np.bool_]) -> Circle:
    """Circle through the edge of a field of view, cuts by the frame or the camera left aside.

    Where the edge is not round: centre and half the longer side of the field's bounding box.

    Raises
    ------
    ValueError
        for an empty field of view
    """
    y0, x0, y1, x1 = crop_box(fov)
    contours, _ = cv2.findContours(fov.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    edge = max(contours, key=cv2.contourArea)[:, 0].astype(np.float64)  # (n, 2)
    edge = edge[~_on_frame(edge, (fov.shape[1], fov.shape[0]), 1.0)]
    fitted = _fit_circle(edge[:: max(1, len(edge) // 400)])
    if fitted is not None:  # edge pixels' centres lie half a pixel inside the edge
        return fitted._replace(radius=fitted.radius + 0.5)
    return Circle((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2, max(y1 - y0, x1 - x0) / 2)


def _signals(small: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Red, and the brightest channel, freed of speckles and scaled to a 99 % quantile of 255: (h, w) each.

    Red reaches furthest into the dark rim and least into stray light; pictures without red need the other.
    """
    brightest = small if small.ndim == 2 else small.max(axis=2)
    if np.quantile(brightest[::2, ::2], 0.99) < _DARKEST:
        raise UserError(_NO_FOV.format("the picture is black or nearly so"))
    _refuse_noise(brightest)
    channels = [brightest] if small.ndim == 2 else [np.ascontiguousarray(small[..., 0]), brightest]
    signals = []
    for channel in channels:
        top = np.quantile(channel[::2, ::2], 0.99)
        if top >= _DARKEST:
            signals.append(cv2.medianBlur(channel, 5).astype(np.float32) * np.float32(255 / top))
    return signals


def _refuse_noise(brightness: NDArray[np.uint8]) -> None:
    values = brightness.astype(np.float32)
    values -= values.mean()
    power = float((values**2).mean())
    # Correlation of neighbours: above 0.95 in photographs, 0 in white noise.
    alike = float((values[:, 1:] * values[:, :-1]).mean() + (values[1:] * values[:-1]).mean()) / 2
    if power == 0 or alike < 0.5 * power:
        what = "of one colour" if power == 0 else "noise"
        raise UserError(_NO_FOV.format(f"the picture is {what}"))


def _region(signal: NDArray[np.float32], level: float, smallest: float) -> Points | None:
    """Edge of the largest connected part at or above `level`, or None where that is less than `smallest` of all."""
    bright = (signal >= level).astype(np.uint8)
    width = 2 * (min(signal.shape) // 80) + 1
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    largest = max(contours, key=cv2.contourArea)
    if cv2.contourArea(largest) < smallest * signal.size:
        return None
    points = largest[:, 0].astype(np.float64)  # (n, 2)
    return points[::_SPACING]


def _profiles(signal: NDArray[np.float32], edge: Points, reach: int) -> tuple[NDArray[np.float32], Points]:
    """Signal along the normals of the edge, (n, 2 * reach + 1), inside first, and the outward normals."""
    tangent = np.roll(edge, -2, axis=0) - np.roll(edge, 2, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    x, y = edge.T
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:  # twice the signed area
        normal = -normal
    steps = np.arange(-reach, reach + 1)
    where = (edge[:, None] + steps[None, :, None] * normal[:, None]).astype(np.float32)  # (n, steps, 2)
    values = cv2.remap(
        signal, where[..., 0], where[..., 1], interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return values, normal


def _edge_step(signal: NDArray[np.float32], edge: Points) -> float:
    """Mean step of log brightness across the edge, the frame left aside; steps count up to 2."""
    free = ~_on_frame(edge, signal.shape[::-1], 2.0)
    if free.mean() < 0.05:
        return 0.0
    reach = _reach(signal)
    values, _ = _profiles(signal, edge, reach)
    step = np.log(values[free, 0] + _FLOOR) - np.log(values[free, -1] + _FLOOR)
    return float(np.clip(step, 0.0, 2.0).mean())


def _reach(signal: NDArray[np.float32]) -> int:
    return max(3, round(0.012 * max(signal.shape)))


def _snapped(signal: NDArray[np.float32], edge: Points) -> Points:
    """Move edge points along their normals to the foot of the steepest step; frame points beyond the frame."""
    reach = _reach(signal) + 2
    values, normal = _profiles(signal, edge, reach)
    steepest = 1 + np.argmax(values[:, :-2] - values[:, 2:], axis=1)
    around = np.clip(steepest[:, None] + np.arange(-3, 4), 0, 2 * reach)
    local = np.take_along_axis(values, around, axis=1)  # (n, 7), inside first
    level = _EDGE * local[:, :1] + (1 - _EDGE) * local[:, -1:]
    after = np.maximum(np.argmax(local < level, axis=1), 1)  # first sample outside
    row = np.arange(len(edge))
    a, b = local[row, after - 1], local[row, after]
    part = np.clip((a - level[:, 0]) / np.maximum(a - b, 1e-6), 0.0, 1.0)
    shift = around[row, after - 1] + part - reach
    usual = median_filter(shift, size=9, mode="wrap")
    shift = np.where(np.abs(shift - usual) > 1.5, usual, shift)  # a few points find another edge nearby
    moved = edge + shift[:, None] * normal
    limit = np.array(signal.shape[::-1], np.float64)
    on_frame = _on_frame(edge, signal.shape[::-1], 2.0)
    outside = np.where(edge < 2.0, -2.0, np.where(edge > limit - 3.0, limit + 1.0, edge))
    return np.where(on_frame[:, None], outside, moved)


def _on_frame(points: Points, size: tuple[int, ...], distance: float) -> NDArray[np.bool_]:
    limit = np.array(size, np.float64) - 1
    return np.any((points < distance) | (points > limit - distance), axis=1, keepdims=False)


def _fit_circle(points: Points) -> Circle | None:
    """Circle that most points support; None where less than half do, or on less than a third of it."""
    if len(points) < 12:
        return None
    rng = np.random.default_rng(0)
    a, b, c = points[rng.integers(0, len(points), (3, 300))]
    centre, radius = _circumcircles(a, b, c)
    ok = np.isfinite(radius) & (radius < 4 * np.ptp(points, axis=0).max())
    if not ok.any():
        return None
    x, y = centre[ok].T[..., None]
    distance = np.hypot(points[:, 0] - x, points[:, 1] - y)  # (circles, n)
    support = (np.abs(distance - radius[ok, None]) < _ON_CIRCLE * radius[ok, None]).sum(axis=1)
    best = int(np.argmax(support))
    (x, y), r = centre[ok][best], float(radius[ok][best])
    for _ in range(3):
        near = np.abs(np.hypot(points[:, 0] - x, points[:, 1] - y) - r) < _ON_CIRCLE * r
        if near.sum() < 12:
            return None
        # Kasa (1976): x^2 + y^2 = 2 x0 x + 2 y0 y + c, linear in the unknowns.
        px, py = points[near].T
        solution, *_ = np.linalg.lstsq(np.stack([2 * px, 2 * py, np.ones(len(px))], 1), px**2 + py**2, rcond=None)
        x, y = solution[:2]
        r = float(np.sqrt(solution[2] + x**2 + y**2))
    angles = np.arctan2(points[near, 1] - y, points[near, 0] - x)
    spanned = np.unique(np.floor((angles + np.pi) / (2 * np.pi) * 36)).size / 36
    if near.mean() < 0.5 or spanned < 1 / 3:
        return None
    return Circle(float(y), float(x), r)


def _circumcircles(a: Points, b: Points, c: Points) -> tuple[Points, NDArray[np.float64]]:
    """Centres (n, 2) and radii (n,) of the circles through three points each; infinite for points in line."""
    b, c = b - a, c - a
    with np.errstate(divide="ignore", invalid="ignore"):
        d = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
        bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
        centre = np.stack([c[:, 1] * bb - b[:, 1] * cc, b[:, 0] * cc - c[:, 0] * bb], axis=1) / d[:, None]
    return centre + a, np.hypot(centre[:, 0], centre[:, 1])


def _outline(points: Points, size: tuple[int, int]) -> Points:
    """Convex outline, (m, 2): the circle where the points support one, straight where the field is cut."""
    fitted = _fit_circle(points[~_on_frame(points, size, 0.0)])
    if fitted is None:
        return _hull(points)
    centre, radius = np.array([fitted.x, fitted.y]), fitted.radius
    angle = np.arctan2(points[:, 1] - fitted.y, points[:, 0] - fitted.x)
    distance = np.hypot(points[:, 1] - fitted.y, points[:, 0] - fitted.x)
    inside = distance < (1 + _ON_CIRCLE) * radius  # not notches, not labels
    hull = _polar(_hull(points[inside]) - centre) if inside.mean() > _INSIDE else None
    if hull is None:
        return _hull(points)
    gap = hull < (1 - _ON_CIRCLE) * radius
    for run in _runs(gap):
        # A cut shows as edge points along the hull's chord; the edge of a shadow lies further in.
        within = np.isin(np.searchsorted(_ANGLES, angle), run)
        chord = np.interp(angle[within], _ANGLES, hull, period=2 * np.pi)
        if not within.any() or np.mean(distance[within] > chord - _ON_CIRCLE * radius) < 0.6:
            hull[run] = radius
    return centre + hull[:, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _hull(points: Points) -> Points:
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)


def _polar(polygon: Points) -> NDArray[np.float64] | None:
    """Distance of a convex polygon from the origin at `_ANGLES`; None where the origin is not inside."""
    order = np.argsort(np.arctan2(polygon[:, 1], polygon[:, 0]))
    start = polygon[order]
    end = np.roll(start, -1, axis=0)
    normal = np.stack([end[:, 1] - start[:, 1], start[:, 0] - end[:, 0]], axis=1)
    height = (normal * start).sum(axis=1)
    if not (height > 0).all():
        return None
    edge = np.searchsorted(np.arctan2(start[:, 1], start[:, 0]), _ANGLES) - 1
    return height[edge] / (normal[edge, 0] * np.cos(_ANGLES) + normal[edge, 1] * np.sin(_ANGLES))


def _runs(flags: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Indices of each unbroken run of True on a ring."""
    if flags.all() or not flags.any():
        return [np.flatnonzero(flags)] if flags.any() else []
    start = int(np.argmin(flags))
    order = np.roll(np.arange(len(flags)), -start)
    turned = np.roll(flags, -start)
    pieces = np.split(order, np.flatnonzero(np.diff(turned)) + 1)
    return [piece for piece in pieces if flags[piece[0]]]


def _filled(polygon: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    inward = polygon.mean(axis=0) - polygon
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    drawn = polygon + 0.5 * inward  # OpenCV fills every pixel that the outline touches
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.rint(drawn * 256).astype(np.int32)], 1, shift=8)
    return canvas.astype(bool)
