"""Whether a picture shows a retina: measures of what a network marked as vessels, and how far they are from usual.

No network and no files: the probabilities come from elsewhere, and quality holds what is seen without them.

A network that looks for vessels finds something in leaves, skin, text or nets as well. What it finds there differs from
a vessel tree in shape (short pieces, one direction, no place where all of them meet, one width), in light (not darker
than what surrounds it, as dark in red as in green) and in what it leaves over (more contrast beside the vessels than in
them). No single one of these decides: each counts by how far it lies beyond what photographs of retinas show.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg.fov import erode
from retina_seg.quality import Doubt

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Usual(NamedTuple):
    """Between `low` and `high` nothing is counted; beyond, the distance in units of `step`, up to MOST."""

    low: float
    high: float
    step: float


# From the 2 % to the 98 % quantile, and a robust standard deviation, of 773 photographs: at most 80 of each of DRIVE,
# STARE, CHASE_DB1, IDRiD (segmentation, grading), ORVS, SRahimDR and DRISHTI-GS1; some of these as parts, sharpened,
# hazy, with another gamma, or with gains of .6 to 1.6 on each channel; and drawings.
USUAL: dict[str, Usual] = {
    "unsure": Usual(0.294, 0.488, 0.045),
    "faint": Usual(0.0422, 0.0834, 0.0103),
    "pieces": Usual(2.2, 3.77, 0.377),
    "largest": Usual(0.372, 0.982, 0.153),
    "length": Usual(6.67, 19.9, 3.32),
    "thick": Usual(3.25, 6.55, 0.707),
    "dark": Usual(0.957, 1.0, 0.00948),
    "uneven": Usual(0.312, 0.619, 0.071),
    "clear": Usual(1.08, 2.31, 0.291),
    "red": Usual(0.0644, 0.456, 0.0857),
    "red_depth": Usual(0.000254, 0.151, 0.0341),
    "red_apart": Usual(-1.51, 0.000793, 0.307),
    "rest_red_green": Usual(0.193, 0.85, 0.161),
    "rest_blue_green": Usual(-0.0514, 0.853, 0.222),
    "rest_blue": Usual(-3.32, -1.24, 0.523),
    "fine_red": Usual(-4.62, -3.21, 0.34),
    "fine_green": Usual(-3.9, -2.64, 0.306),
    "straight": Usual(0.869, 0.948, 0.0209),
    "one_way": Usual(0.0182, 0.299, 0.0641),
    "ways": Usual(0.105, 0.202, 0.0218),
    "ends": Usual(0.122, 0.198, 0.0182),
    "crowded": Usual(0.2, 0.373, 0.0442),
    "taper": Usual(1.5, 3.43, 0.412),
    "radial": Usual(0.258, 0.701, 0.114),
    "meeting": Usual(0.258, 0.76, 0.13),
    "thinning": Usual(-0.406, -0.0255, 0.0886),
}
NEEDS_COLOUR = frozenset(
    {"red", "red_depth", "red_apart", "rest_red_green", "rest_blue_green", "rest_blue", "fine_red"}
)
MOST = 4.0  # no single measure decides
# Of 1,193 photographs in whose quality there is no fault one is beyond 5.4 (9.9: so hazy that most vessels are missed);
# each camera by limits from the others only: the same one is beyond 6.5. Of 615 pictures of 43 other kinds none is
# below 8.8. Colours left aside: the same one, and DRIVE's green channels up to 5.7; five pictures are below 5.5.
STRANGE, STRANGE_GREY = 6.5, 5.5

_MARKED = 0.42  # probability
_RIM = 16.0  # px at the edge of the field that are left aside
_LOG = np.log(np.arange(256, dtype=np.float32) + 8)  # 8: noise of the dark stays small
_FEWEST = 60  # points on centrelines, to speak of directions at all
_ANY = 50  # pixels, to speak of their light


class _Seen(NamedTuple):
    """What is measured. `logs`: log of each channel (h, w); `inner`: the field without its rim; `prob`, `marked`: of
    vessels; `deep`: distance of marked pixels from the unmarked; `rest`: `inner` but vessels and what is next to them;
    `flat`: `logs` less their surroundings in `rest`."""

    logs: list[Floats]
    inner: Bools
    prob: Floats
    marked: Bools
    deep: Floats
    rest: Bools
    flat: list[Floats]


def strangeness(measured: dict[str, float], *, grey: bool) -> float:
    """How far `measures` are from those of a retina, 0 or more; of a `grey` picture its colours are left aside."""
    total = 0.0
    for name, usual in USUAL.items():
        if not (grey and name in NEEDS_COLOUR):
            beyond = max(usual.low - measured[name], measured[name] - usual.high, 0.0)
            total += min(beyond / usual.step, MOST)
    return total


def doubts(measured: dict[str, float], *, grey: bool) -> list[Doubt]:
    """What speaks against a picture of these `measures`, of a `grey` one its colours left aside; [] for a retina."""
    if strangeness(measured, grey=grey) <= (STRANGE_GREY if grey else STRANGE):
        return []
    text = (
        "No vessel tree of a retina can be made out: this is no fundus photograph, or one on which haze, disease or "
        "darkness hides most vessels. What a model finds in it is not reliable; look at the picture, and choose "
        "a clear photograph of the fundus."
    )
    return [Doubt("implausible", text, withholds=True)]


def measures(image: NDArray[np.uint8], fov: Bools, prob: Floats) -> dict[str, float]:
    """What is compared with USUAL, by name.

    Parameters
    ----------
    image : uint8 (h, w, 3) RGB, cut to the field of view, which is `quality.WORK_WIDTH` pixels wide.
    fov : bool (h, w), with at least one pixel.
    prob : float32 (h, w), probability of vessels in [0, 1].
    """
    seen = _look(image, fov, prob)
    rows, columns = np.nonzero(_centrelines(seen))
    return {**_of_pieces(seen, rows.size), **_of_light(seen), **_of_rest(seen), **_of_courses(seen, rows, columns)}


def _look(image: NDArray[np.uint8], fov: Bools, prob: Floats) -> _Seen:
    height, width = fov.shape
    # A frame of nothing: the rim of a picture without border counts too. Every fourth pixel is enough.
    coarse = erode(fov[::4, ::4], _RIM / 4)
    inner = cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    if not inner.any():
        inner = fov
    marked = (prob >= _MARKED) & inner
    bits = marked.astype(np.uint8)
    rest = inner & (cv2.dilate(bits, np.ones((5, 5), np.uint8)) == 0)
    logs = [cv2.LUT(np.ascontiguousarray(image[..., channel]), _LOG) for channel in range(3)]
    flat = [log - _surroundings(log, rest.astype(np.float32)) for log in logs]
    deep = cv2.distanceTransform(bits, cv2.DIST_L2, cv2.DIST_MASK_3)
    return _Seen(logs, inner, prob, marked, deep, rest, flat)


def _surroundings(values: Floats, weight: Floats) -> Floats:
    """Mean of the weighted pixels around each, under a Gaussian of 10 px."""
    height, width = values.shape
    size = max(1, width // 4), max(1, height // 4)
    total = cv2.GaussianBlur(cv2.resize(values * weight, size, interpolation=cv2.INTER_AREA), (0, 0), 2.5)
    share = cv2.GaussianBlur(cv2.resize(weight, size, interpolation=cv2.INTER_AREA), (0, 0), 2.5)
    return cv2.resize(total / np.maximum(share, 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)


def _centrelines(seen: _Seen) -> Bools:
    """Roughly: where the distance from the unmarked is greatest."""
    highest = cv2.dilate(seen.deep, np.ones((3, 3), np.uint8))
    return seen.marked & (seen.deep >= highest - 0.3) & (seen.deep >= 0.9)


def _of_pieces(seen: _Seen, length: int) -> dict[str, float]:
    """How sure the network is, and how its marks hang together."""
    prob = seen.prob[seen.inner]
    area, marked = prob.size, int(np.count_nonzero(seen.marked))
    _, _, stats, _ = cv2.connectedComponentsWithStats(seen.marked.astype(np.uint8), connectivity=8)
    pieces = stats[1:, cv2.CC_STAT_AREA]
    return {
        "unsure": float(np.minimum(prob, 1 - prob).sum() / (prob.sum() + 0.003 * area)),
        "faint": float((prob > 0.1).mean() - marked / area),
        "pieces": float(np.log1p(np.count_nonzero(pieces > 8))),
        "largest": float(pieces.max(initial=0) / max(marked, 1)),
        "length": length / area * 540,
        "thick": marked / max(length, 1),
    }


def _of_light(seen: _Seen) -> dict[str, float]:
    """How dark the marks are, in logarithms against their surroundings, in green and in red."""
    core = seen.marked & (seen.deep >= 1.4)
    if np.count_nonzero(core) < _ANY:
        core = seen.marked
    if np.count_nonzero(core) < _ANY:
        core = seen.inner & (seen.prob >= np.quantile(seen.prob[seen.inner], 0.95))
    red, green = -seen.flat[0][core], -seen.flat[1][core]
    depth = float(np.median(green))
    rest = _sample(seen, 1).std()
    return {
        "dark": float((green > 0.02).mean()),
        "uneven": float(green.std() / (abs(green.mean()) + 0.01)),
        "clear": float(np.log((max(depth, 0.0) + 0.01) / (rest + 0.005))),
        "red": float((red * green).sum() / ((green**2).sum() + 0.02**2 * green.size)),
        "red_depth": float(np.median(red)),
        "red_apart": float(np.log(1.002 - _alike(red, green) ** 2)),
    }


def _sample(seen: _Seen, channel: int) -> Floats:
    """Every third pixel of a channel, less its surroundings, away from the marks."""
    found = seen.flat[channel][seen.rest][::3]
    return found if found.size >= _ANY else seen.flat[channel][seen.inner][::3]


def _of_rest(seen: _Seen) -> dict[str, float]:
    """What is left beside the marks: detail in each channel, and how alike the channels are."""
    red, green, blue = (_sample(seen, channel) for channel in range(3))
    return {
        "rest_red_green": _alike(red, green),
        "rest_blue_green": _alike(blue, green),
        "rest_blue": float(np.log(blue.std() + 0.005)),
        "fine_red": _detail(seen, 0, 1),
        "fine_green": _detail(seen, 1, 2),
    }


def _alike(one: Floats, other: Floats) -> float:
    """Correlation of two samples; 1 where one of them is flat."""
    if min(one.std(), other.std()) < 1e-4:
        return 1.0
    return float(np.corrcoef(one, other)[0, 1])


def _detail(seen: _Seen, channel: int, level: int) -> float:
    """Log of the standard deviation in a level of the Laplacian pyramid of a channel; level 0 is the finest."""
    log = seen.logs[channel]
    values = np.where(seen.inner, log, np.float32(log[seen.inner].mean()))
    for _ in range(level):
        values = cv2.pyrDown(values)
    height, width = values.shape
    smooth = cv2.pyrUp(cv2.pyrDown(values), dstsize=(width, height))
    inner = seen.inner[:: 2**level, :: 2**level][:height, :width]
    return float(np.log((values - smooth)[inner].std() + 0.002)) if inner.any() else float(np.log(0.002))


def _of_courses(seen: _Seen, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> dict[str, float]:
    """Directions and widths along the centrelines, and whether they come from one place."""
    if rows.size <= _FEWEST:
        return dict(_WITHOUT_COURSES)
    angle, coherent = _directions(seen.prob, rows, columns)
    turns = np.histogram(np.mod(angle, np.pi), 12, (0, np.pi))[0] / rows.size
    width = seen.deep[rows, columns]
    centrelines = np.zeros(seen.inner.shape, np.uint8)
    centrelines[rows, columns] = 1
    beside = cv2.boxFilter(centrelines, cv2.CV_8U, (7, 7), normalize=False)[rows, columns]
    radial, usual, (y, x) = _meeting(seen.inner.shape, rows, columns, angle, width)
    away = np.hypot(rows - y, columns - x)
    return {
        "straight": coherent,
        "one_way": float(np.abs(np.exp(2j * angle).mean())),
        "ways": float(turns.max()),
        "ends": float((beside < 5).mean()),
        "crowded": float((beside > 9).mean()),
        "taper": float(np.quantile(width, 0.95) / max(float(np.median(width)), 0.5)),
        "radial": radial,
        "meeting": radial - usual,
        "thinning": float(np.corrcoef(away, width)[0, 1]) if width.std() > 1e-4 else 0.0,
    }


_WITHOUT_COURSES = {
    **{"straight": 0.0, "one_way": 1.0, "ways": 1.0, "ends": 1.0, "crowded": 0.0},
    **{"taper": 0.0, "radial": 0.0, "meeting": 0.0, "thinning": 0.0},
}


def _directions(prob: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[NDArray[np.floating], float]:
    """Direction along the marks at each point, radians, and how well the surroundings agree, mean, 0 to 1."""
    smooth = cv2.GaussianBlur(prob, (0, 0), 1.5)
    x, y = cv2.Sobel(smooth, -1, 1, 0, ksize=3), cv2.Sobel(smooth, -1, 0, 1, ksize=3)
    xx, yy, xy = (cv2.GaussianBlur(product, (0, 0), 3.0)[rows, columns] for product in (x * x, y * y, x * y))
    coherence = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + 1e-6)
    return 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2, float(coherence.mean())


def _meeting(
    shape: tuple[int, ...],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    angle: NDArray[np.floating],
    width: Floats,
) -> tuple[float, float, tuple[float, float]]:
    """How well the wide courses around the best of 15 x 15 places point to it (-1 to 1), around the median place, and
    that place (y, x)."""
    some = np.linspace(0, rows.size - 1, min(500, rows.size)).astype(int)
    y, x, along, weight = rows[some], columns[some], angle[some], width[some] ** 1.5
    places = (np.linspace(0.02, 0.98, 15) * side for side in shape)
    at_y, at_x = (place.reshape(-1, 1) for place in np.meshgrid(*places, indexing="ij"))
    to_x, to_y = (x - at_x).astype(np.float32), (y - at_y).astype(np.float32)  # (225, n)
    away = np.hypot(to_x, to_y) + 1
    towards = 2 * ((to_x * np.cos(along) + to_y * np.sin(along)) / away) ** 2 - 1
    near = weight * np.exp(-away / 200) * (away > 15)
    mean = (near * towards).sum(axis=1) / (near.sum(axis=1) + 1e-6)
    enough = np.minimum(1, near.sum(axis=1) / (0.3 * weight.sum()))
    best = int(np.argmax(mean * enough))
    return float((mean * enough)[best]), float(np.median(mean)), (float(at_y[best, 0]), float(at_x[best, 0]))
