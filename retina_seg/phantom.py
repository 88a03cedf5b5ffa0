"""Drawn colour fundus photographs with exact truth (vessels, calibres, disc, fovea, field of view), for demo and tests.

No real photograph and no network enters here; degrading or augmenting photographs is `augment.py`.

How a drawing is made:
anatomy (positions in radii of the field of view, so that every size shows the same eye) -> trunks along the
arcades -> branches grown towards points without blood (space colonisation: Runions et al. 2005, "Modeling and
visualization of leaf venation patterns") -> calibres from the blood flow (Murray 1926: r0^3 = r1^3 + r2^3) ->
light absorbed by the blood column (Beer-Lambert) -> optics and sensor.

"Measured" below means: measured on the 20 DRIVE training photographs (565 x 584 px, 45 degrees, field of view of
269 px radius). Lengths are in radii of the field of view (FOV) unless the name says `_px`; a "DRIVE pixel" is
1/269 of it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from retina_seg.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MIN_SIDE_PX, MAX_SIDE_PX = 64, 8192
DRIVE_PX = 1 / 269  # one pixel of DRIVE

# Geometry (measured, or read off the photographs).
FOV_RADIUS = 0.476  # per shorter side of the image
DISC_AT = (-0.08, 0.71)  # (y, x) from the centre of the FOV, right eye
DISC_RADII = (0.135, 0.120)  # semi-axes (y, x)
FOVEA_FREE = 0.13  # vessels end at this distance from the fovea
STEP = 0.02  # growth step; halved twice before drawing

# Branches, one row per generation: points to reach in the unit disc, distance at which a point counts as reached,
# distance at which a vessel notices a point. Chosen to give the measured length of annotated vessels (31 radii),
# ends (105) and junctions (153).
GENERATIONS = ((30, 0.15, 0.80), (120, 0.08, 0.40), (400, 0.045, 0.20))
# Flow that leaves a vessel per unit of length through branches too small to be drawn, by generation (trunk first);
# with the widest calibre it decides the calibre distribution.
PATIENCE = 6  # steps without coming closer after which a point is given up
INERTIA = 0.6  # weight of a vessel's own direction against the pull of the points
TORTUOSITY = ((0.45, 0.006), (0.20, 0.003), (0.11, 0.0012))  # wavelength and amplitude of the windings
LEAK = (1.0, 1.0, 0.6, 0.3)
RIM_FLOW = 0.8  # flow of a trunk that leaves the FOV
VEIN_CALIBRE = 9.5 * DRIVE_PX  # widest vein; measured 8 to 11 px
ARTERY_TO_VEIN = 0.70  # calibre ratio; 2/3 to 3/4 in healthy eyes

# Colour. Absorbance per radius of blood and channel (R, G, B); measured at vessel centres by calibre:
# green .066 at 2 px, .18 at 4 px, .33 at 7 px; red about .35 and blue about .6 of green.
ABSORB = {"vein": (8.0, 22.0, 14.0), "artery": (3.5, 16.0, 11.0)}
REFLEX = {"vein": 0.15, "artery": 0.40}  # share of the absorbance that the light reflex of a wide vessel takes away
ABSORB_LIMIT = np.array([0.30, 0.50, 0.30])  # light scattered in front of a wide vessel bounds its absorbance
VISIBLE = 0.035  # peak green absorbance (after blur) below which an annotator sees no vessel: 2 SD of the noise
MEAN_RGB = np.array([174.0, 96.0, 59.0])  # median over the photographs of the mean in the FOV
BLACK = 7.0  # grey level outside the FOV
BLUR = 0.8 * DRIVE_PX  # sigma of the optics
GRAIN = (1.7, 1.7, 1.7)  # SD of the sensor noise in grey levels
GRAIN_SIGMA_PX = (0.4, 0.75)  # its correlation (y, x): neighbours along x .52, along y .15
RADIAL = np.array([[1.17, 1.07, 1.0], [-0.40, -0.13, 0.0]])  # brightness along the radius: first + second * r^2
# Macula: sigma and relative darkening per channel, of the yellow spot and of the foveola.
MACULA = ((0.14, (0.10, 0.14, 0.12)), (0.045, (0.02, 0.08, 0.05)))
DISC_GAIN, CUP_GAIN = np.array([0.35, 0.70, 0.55]), np.array([0.15, 0.45, 0.45])
VEIL = (25.0, 35.0, 22.0)  # grey levels of stray light at one side of the rim, at most
APERTURE, FRINGE = (0.997, 0.993, 0.991), (-0.004, 0.0, 0.001)  # radius and shift along x of the rim per channel
# Texture: SD relative to the mean, by grid spacing in DRIVE pixels.
TEXTURE = ((3.0, 0.006), (7.0, 0.006), (14.0, 0.008), (30.0, 0.013), (70.0, 0.030), (160.0, 0.030))


@dataclass(frozen=True)
class Segment:
    """A stretch of vessel between two branchings; `path` runs away from the disc.

    path: float64 (n, 2), centreline (y, x) in pixels, pixel centres at whole numbers; may leave the FOV.
    width_px: float64 (n,), calibre; parent: index of the segment it branches from, -1 at the disc.
    """

    path: Floats
    width_px: Floats
    kind: Literal["artery", "vein"]
    parent: int


@dataclass(frozen=True)
class Phantom:
    """A drawn photograph: image uint8 (H, W, 3) RGB; vessels, disc, fov bool (H, W); fovea (y, x) in pixels.

    `vessels` holds every pixel of the FOV whose centre lies within half a calibre of the centreline, as far as the
    vessel has visible contrast (lines thinner than a pixel count as one pixel wide). `segments` also holds
    the ends that have faded below it.
    """

    image: NDArray[np.uint8]
    vessels: Bools
    disc: Bools
    fov: Bools
    fovea: tuple[float, float]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class _Tree:
    """Vessel nodes; a parent's index is below its children's, -1 at a root."""

    pos: Floats  # (n, 2)
    parent: Ints  # (n,)
    vein: Bools  # (n,)
    generation: Ints  # (n,), 0 = trunk

    def direction(self) -> Floats:
        """Unit vectors (n, 2) from the parent; zero at a root."""
        step = np.where(self.parent[:, None] >= 0, self.pos - self.pos[self.parent], 0.0)
        return step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)


def draw(
    seed: int = 0,
    *,
    width: int = 565,
    height: int = 584,
    eye: Literal["left", "right"] | None = None,
    contrast: float = 1.0,
    noise: float = 1.0,
) -> Phantom:
    """Draw one photograph; the same seed shows the same eye at every size.

    seed : non-negative whole number
    width, height : pixels, 64 to 8192
    eye : side of the optic disc (right eye: disc on the right); None lets the seed decide
    contrast : factor on the absorbance of blood, 0 to 3; the truth stays that of contrast 1
    noise : factor on the sensor noise, 0 to 20

    Raises UserError for sizes or options outside these ranges.
    """
    _check(seed, width, height, eye, contrast, noise)
    anatomy, surface, sensor = (np.random.default_rng([seed, part]) for part in range(3))
    disc = np.array(DISC_AT) + anatomy.normal(0, (0.045, 0.02))
    fovea = anatomy.normal(0, 0.02, 2)
    left = bool(anatomy.random() < 0.5) if eye is None else eye == "left"
    centre = anatomy.normal((0.02, 0.0), 0.01)
    tree = _vessel_tree(anatomy, disc, fovea)

    radius_px = FOV_RADIUS * min(width, height)
    flip = np.array([1.0, -1.0 if left else 1.0])
    origin = np.array([(height - 1) / 2, (width - 1) / 2]) + radius_px * centre
    segments = _segments(tree, origin, radius_px * flip)
    yx = np.stack(np.indices((height, width)).astype(np.float64), -1)
    place = (yx - origin) / (radius_px * flip)  # (H, W, 2), position in FOV radii, right eye
    fov = np.hypot(place[..., 0], place[..., 1]) <= 1.0

    light = _surface(surface, place, disc, fovea)  # (H, W, 3)
    absorbance, marked = _blood(segments, (height, width), radius_px)
    image = _photograph(sensor, light * np.exp(-contrast * absorbance), place, flip, noise=noise)
    in_disc = _ellipse(place, disc) <= 1.0
    at = origin + radius_px * flip * fovea
    return Phantom(image, marked & fov, in_disc & fov, fov, (float(at[0]), float(at[1])), segments)


def _check(seed: int, width: int, height: int, eye: str | None, contrast: float, noise: float) -> None:
    for name, side in (("width", width), ("height", height)):
        if not isinstance(side, int | np.integer) or not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
            raise UserError(f"{name} is {side!r}: give a whole number of pixels from {MIN_SIDE_PX} to {MAX_SIDE_PX}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"seed is {seed!r}: give a whole number, 0 or more")
    if eye not in ("left", "right", None):
        raise UserError(f"eye is {eye!r}: give 'left', 'right' or None")
    for name, factor, top in (("contrast", contrast, 3), ("noise", noise, 20)):
        if not 0 <= factor <= top:
            raise UserError(f"{name} is {factor!r}: give a factor from 0 to {top}")


def _ellipse(place: Floats, disc: Floats) -> Floats:
    """Distance from the centre of the disc, 1 on its edge."""
    return np.hypot((place[..., 0] - disc[0]) / DISC_RADII[0], (place[..., 1] - disc[1]) / DISC_RADII[1])


# Anatomy ------------------------------------------------------------------------------------------------------------


def _vessel_tree(rng: np.random.Generator, disc: Floats, fovea: Floats) -> _Tree:
    """Trunks, then four generations of branches, smoothed and gently wound."""
    tree = _trunks(rng, disc, fovea)
    for generation in range(1, len(GENERATIONS) + 1):
        # Arteries and veins reach the same regions, crossing each other; finer branches share the space out.
        for vein in (True, False) if generation == 1 else (None,):
            tree = _grow(rng, tree, generation, vein, disc, fovea)
    for _ in range(2):
        tree = _smooth(_halve(tree), rounds=12)
    return _wind(rng, tree)


def _trunks(rng: np.random.Generator, disc: Floats, fovea: Floats) -> _Tree:
    """Arcades around the fovea, nasal trunks and small vessels from the disc towards the fovea (read off photographs)."""
    paths: list[tuple[Floats, bool]] = []
    for side in (-1.0, 1.0):  # superior, inferior
        height = rng.uniform(0.60, 0.75)
        for vein in (True, False):
            j = rng.normal(0, 0.03, (4, 6))
            root = (disc[0] + 0.02 * side + 0.4 * j[0, 4], disc[1] + 0.03 + 0.4 * j[0, 5])
            top = height if vein else height + rng.choice([-1, 1]) * rng.uniform(0.05, 0.11)
            arcade = [(disc[0] + 0.2 * side, disc[1] + 0.5 * j[0, 0]),
                      (disc[0] + 0.42 * side, disc[1] - 0.09 + 0.7 * j[0, 1]),
                      (fovea[0] + 0.9 * top * side, fovea[1] + 0.36 + j[0, 2]),
                      (fovea[0] + top * side, fovea[1] - 0.04 + j[0, 3]),
                      (fovea[0] + (top - rng.uniform(0.0, 0.15)) * side, fovea[1] - 0.50),
                      (fovea[0] + (top - rng.uniform(0.1, 0.35)) * side, fovea[1] - 1.1)]
            upright = [(disc[0] + 0.22 * side, disc[1] + 0.06 + j[1, 0]),
                       (disc[0] + 0.50 * side, disc[1] + 0.08 + 2 * j[1, 1]),
                       (disc[0] + 1.0 * side, disc[1] + 0.05 + 5 * j[1, 2])]
            nasal = [(disc[0] + 0.06 * side + 0.5 * j[2, 0], disc[1] + 0.12),
                     (disc[0] + 0.18 * side + 2 * j[2, 1], disc[1] + 0.35)]
            macular = [(disc[0] + 0.05 * side + 0.5 * j[3, 0], disc[1] - 0.12),
                       (disc[0] + 0.11 * side + j[3, 1], disc[1] - 0.27),
                       (fovea[0] + 0.15 * side + j[3, 2], fovea[1] + 0.22)]
            paths += [(_curve([root, *knots]), vein) for knots in (arcade, upright, nasal, macular)]
    pos = np.concatenate([path for path, _ in paths])
    starts = np.cumsum([0] + [len(path) for path, _ in paths[:-1]])
    parent = np.arange(-1, len(pos) - 1)
    parent[starts] = -1
    vein_node = np.concatenate([np.full(len(path), vein) for path, vein in paths])
    return _Tree(pos, parent, vein_node, np.zeros(len(pos), np.int64))


def _curve(knots: list[tuple[float, float]]) -> Floats:
    """Smooth path (n, 2) through the knots in steps of STEP, ending just outside the FOV."""
    points = np.array(knots)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    path = CubicSpline(along, points)(np.arange(0.0, along[-1], STEP))
    outside = np.flatnonzero(np.linalg.norm(path, axis=1) > 1.03)
    return path[: outside[0] + 1] if outside.size else path


def _grow(
    rng: np.random.Generator, tree: _Tree, generation: int, vein: bool | None, disc: Floats, fovea: Floats
) -> _Tree:
    """Let one generation of branches grow towards random points, each drawing the nearest vessel (of one kind, or any)."""
    count, kill, reach = GENERATIONS[generation - 1]
    points = np.sqrt(rng.random(count))[:, None] * _towards(rng.uniform(0, 2 * np.pi, count))
    points = points[(np.linalg.norm(points - fovea, axis=1) > FOVEA_FREE + kill / 3) & (_ellipse(points, disc) > 1.6)]
    closest, patience = np.full(len(points), np.inf), np.full(len(points), PATIENCE)
    while len(points):
        usable = np.flatnonzero(tree.vein == vein) if vein is not None else np.arange(len(tree.pos))
        distance, near = cKDTree(tree.pos[usable]).query(points)
        active = distance < reach
        patience = np.where(active & (distance > closest - 0.1 * STEP), patience - 1, patience)
        closest = np.minimum(closest, distance)
        keep = (distance > kill) & (patience > 0)  # neither reached nor out of reach for good
        target, pulled = points[keep & active], usable[near[keep & active]]
        points, closest, patience = points[keep], closest[keep], patience[keep]
        if not len(target):
            break
        pull = np.zeros_like(tree.pos)
        np.add.at(pull, pulled, _unit(target - tree.pos[pulled]))
        node = np.unique(pulled)
        heading = _unit(pull[node]) + INERTIA * tree.direction()[node] + rng.normal(0, 0.15, (len(node), 2))
        pos = tree.pos[node] + STEP * _unit(heading)
        free = (np.linalg.norm(pos - fovea, axis=1) > FOVEA_FREE) & (_ellipse(pos, disc) > 1.1)
        free &= (np.linalg.norm(pos, axis=1) < 1.03) & (cKDTree(tree.pos[usable]).query(pos)[0] > 0.6 * STEP)
        tree = _Tree(
            np.concatenate([tree.pos, pos[free]]),
            np.concatenate([tree.parent, node[free]]),
            np.concatenate([tree.vein, tree.vein[node[free]]]),
            np.concatenate([tree.generation, np.full(int(free.sum()), generation)]),
        )
    return tree


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _towards(angle: Floats) -> Floats:
    return np.stack([np.sin(angle), np.cos(angle)], -1)


def _halve(tree: _Tree) -> _Tree:
    """Put a node in the middle of every edge."""
    inner = tree.parent >= 0
    index = np.cumsum(1 + inner) - 1  # of the old nodes among the new
    pos = np.empty((index[-1] + 1, 2))
    parent = np.full(len(pos), -1)
    vein, generation = np.repeat(tree.vein, 1 + inner), np.repeat(tree.generation, 1 + inner)
    pos[index] = tree.pos
    pos[index[inner] - 1] = (tree.pos[inner] + tree.pos[tree.parent[inner]]) / 2
    parent[index[inner]] = index[inner] - 1
    parent[index[inner] - 1] = index[tree.parent[inner]]
    return _Tree(pos, parent, vein, generation)


def _smooth(tree: _Tree, rounds: int) -> _Tree:
    """Move every node towards the middle of its parent and its main child."""
    flow, parent = _flow(tree), tree.parent
    main = np.full(len(parent), -1)
    for node in np.argsort(flow, kind="stable"):  # the last writer is the child with most flow
        if parent[node] >= 0:
            main[parent[node]] = node
    moved = np.flatnonzero((parent >= 0) & (main >= 0))
    pos = tree.pos.copy()
    for _ in range(rounds):
        pos[moved] += 0.5 * ((pos[parent[moved]] + pos[main[moved]]) / 2 - pos[moved])
    return _Tree(pos, parent, tree.vein, tree.generation)


def _wind(rng: np.random.Generator, tree: _Tree) -> _Tree:
    """Gentle tortuosity: shift all nodes by a sum of plane waves, so that no vessel crosses another by it."""
    shift = np.zeros_like(tree.pos)
    for wavelength, amplitude in TORTUOSITY:
        for angle, phase, course in rng.uniform(0, 2 * np.pi, (6, 3)):
            wave = np.sin(2 * np.pi / wavelength * (tree.pos @ _towards(angle)) + phase)
            shift += amplitude * wave[:, None] * _towards(course)
    return _Tree(tree.pos + shift, tree.parent, tree.vein, tree.generation)


def _flow(tree: _Tree) -> Floats:
    """Blood flow (n,) through each node; at a branching exactly the sum over the children."""
    parent, inner = tree.parent, tree.parent >= 0
    children = np.bincount(parent[inner], minlength=len(parent))
    length = np.where(inner, np.linalg.norm(tree.pos - tree.pos[parent], axis=1), 0.0)
    flow = np.where(children > 1, 0.0, np.array(LEAK)[tree.generation] * length)
    at_rim = (children == 0) & (np.linalg.norm(tree.pos, axis=1) > 0.99)
    flow += np.where(at_rim, np.where(tree.generation == 0, RIM_FLOW, 0.02), 0.0)
    for node in range(len(parent) - 1, -1, -1):
        if parent[node] >= 0:
            flow[parent[node]] += flow[node]
    return flow


def _segments(tree: _Tree, origin: Floats, scale: Floats) -> tuple[Segment, ...]:
    """Cut the tree at its branchings; positions and calibres in pixels."""
    flow, pos = _flow(tree), origin + scale * tree.pos
    calibre = np.cbrt(flow / flow[tree.vein].max()) * VEIN_CALIBRE * abs(scale[0])
    calibre *= np.where(tree.vein, 1.0, ARTERY_TO_VEIN)
    children: list[list[int]] = [[] for _ in flow]
    for node, parent in enumerate(tree.parent):
        if parent >= 0:
            children[parent].append(node)
    segments: list[Segment] = []
    todo = [([root, children[root][0]], -1) for root in np.flatnonzero(tree.parent < 0)]
    while todo:
        nodes, parent = todo.pop()
        while len(children[nodes[-1]]) == 1:
            nodes.append(children[nodes[-1]][0])
        # The first node belongs to the parent vessel and has its calibre; this one starts with its own.
        width = np.concatenate([calibre[nodes[1:2]], calibre[nodes[1:]]])
        segments.append(Segment(pos[nodes], width, "vein" if tree.vein[nodes[1]] else "artery", parent))
        todo += [([nodes[-1], child], len(segments) - 1) for child in children[nodes[-1]]]
    return tuple(segments)


# Light --------------------------------------------------------------------------------------------------------------


def _blood(segments: tuple[Segment, ...], shape: tuple[int, int], radius_px: float) -> tuple[Floats, Bools]:
    """Absorbance float64 (H, W, 3) of all vessels, and the pixels (H, W) an annotator would mark."""
    absorbance = np.zeros((*shape, 3))
    marked = np.zeros(shape, bool)
    for kind, absorb in ABSORB.items():
        paths = [(segment.path, segment.width_px / 2) for segment in segments if segment.kind == kind]
        depth, reflex, seen = _columns(paths, shape, radius_px, absorb[1])
        through = depth[..., None] / radius_px * np.array(absorb) * (1 - REFLEX[kind] * reflex)[..., None]
        absorbance += ABSORB_LIMIT * (1 - np.exp(-through / ABSORB_LIMIT))
        marked |= seen
    return absorbance, marked


def _columns(
    paths: list[tuple[Floats, Floats]], shape: tuple[int, int], radius_px: float, absorb: float
) -> tuple[Floats, Floats, Bools]:
    """Depth of the blood column in pixels, strength of the reflex 0..1, marked pixels, each (H, W), for one kind.

    A vessel is a cylinder: the column at distance d from the centreline is 2 sqrt(r^2 - d^2) deep (chord of a circle).
    """
    a = np.concatenate([path[:-1] for path, _ in paths])
    b = np.concatenate([path[1:] for path, _ in paths])
    ra = np.concatenate([radius[:-1] for _, radius in paths])
    rb = np.concatenate([radius[1:] for _, radius in paths])
    depth, reflex, marked = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    half = np.ceil(np.maximum(ra, rb) + 1.5 + np.abs(b - a).max(axis=1) / 2).astype(np.int64)
    for size in np.unique(half):
        chosen = np.flatnonzero(half == size)
        offset = np.stack(np.meshgrid(*[np.arange(-size, size + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
        for part in np.array_split(chosen, max(1, len(chosen) * len(offset) // 2_000_000)):
            ab, corner = b[part] - a[part], a[part]
            pixel = np.rint((a[part] + b[part]) / 2).astype(np.int64)[:, None] + offset  # (n, k, 2)
            to = pixel - corner[:, None]
            along = np.einsum("nkd,nd->nk", to, ab) / np.maximum((ab**2).sum(1), 1e-12)[:, None]
            along = np.clip(along, 0, 1)
            d2 = ((to - along[..., None] * ab[:, None]) ** 2).sum(-1)
            r = ra[part, None] + along * (rb - ra)[part, None]
            within = ((pixel >= 0) & (pixel < shape)).all(-1)
            r, d2, at = r[within], d2[within], np.ravel_multi_index(tuple(pixel[within].T), shape)
            # A line thinner than the pixel grid is drawn wider and shallower: same blood, no aliasing.
            wide2 = r**2 + 0.25
            chord = 2 * np.sqrt(np.maximum(wide2 - d2, 0)) * r**2 / wide2
            np.maximum.at(depth.reshape(-1), at, chord)
            strength = np.clip(r / radius_px / DRIVE_PX / 1.5 - 1, 0, 1) * np.exp(-d2 / (0.3 * r) ** 2)
            np.maximum.at(reflex.reshape(-1), at, strength)
            marked.reshape(-1)[at[(d2 <= np.maximum(r, 0.5) ** 2) & _visible(r / radius_px, absorb)]] = True
    return depth, reflex, marked


def _visible(radius: Floats, absorb: float) -> Bools:
    """Whether a vessel of this radius (in FOV radii) shows: peak absorbance of the cylinder blurred by the optics.

    Half an ellipse has SD r / 2 and area pi r^2; the peak is that of a Gaussian of equal area and variance.
    """
    peak = absorb * np.pi * radius**2 / np.sqrt(2 * np.pi * (radius**2 / 4 + BLUR**2))
    return peak >= VISIBLE


def _surface(rng: np.random.Generator, place: Floats, disc: Floats, fovea: Floats) -> Floats:
    """Light (H, W, 3), in grey levels, from the fundus without its vessels."""
    r2 = (place**2).sum(-1)
    tint = np.exp(rng.normal(0, 0.13) + rng.normal(0, (0.05, 0.08, 0.06)))
    light = MEAN_RGB * tint * (RADIAL[0] + RADIAL[1] * r2[..., None])
    light *= np.exp(0.08 * (place @ rng.normal(0, 1, 2)))[..., None]
    for spacing, sd in TEXTURE:
        grid = [_field(rng, place, spacing * DRIVE_PX) for _ in range(2)]
        light *= 1 + sd * (0.8 * grid[0][..., None] + 0.6 * grid[1][..., None] * np.array([-1.0, 0.2, 1.0]))
    from_fovea = np.hypot(*np.moveaxis(place - fovea, -1, 0))[..., None]
    for sigma, drop in MACULA:
        light *= 1 - np.array(drop) * np.exp(-((from_fovea / sigma) ** 2) / 2)
    edge = _ellipse(place, disc)
    light *= _streaks(rng, place, disc, edge)[..., None]
    rim = 1 / (1 + np.exp((edge - 1) / 0.07))
    cup = 1 / (1 + np.exp((_ellipse(place, disc + np.array([0.0, -0.015])) - rng.uniform(0.40, 0.60)) / 0.08))
    return light * (1 + rim[..., None] * DISC_GAIN) * (1 + cup[..., None] * CUP_GAIN)


def _streaks(rng: np.random.Generator, place: Floats, disc: Floats, edge: Floats) -> Floats:
    """Nerve fibres: factor (H, W), fine bright rays above and below the disc, and a soft halo around it."""
    rays = CubicSpline(np.linspace(-np.pi, np.pi, 181), rng.normal(0, 1, 181))
    away = place - disc
    angle = np.arctan2(away[..., 0], -away[..., 1] * 1.0)
    upright = np.abs(np.sin(angle))
    reach = np.exp(-np.maximum(edge - 1, 0) / 1.8) * (edge > 1)
    return 1 + reach * upright * (0.025 * rays(angle) + 0.06)


def _field(rng: np.random.Generator, place: Floats, spacing: float) -> Floats:
    """Smooth random field (H, W), mean 0, SD about 1: cubic spline through white noise on a grid in FOV radii."""
    knots = np.arange(-1.6, 1.6 + spacing, spacing)
    grid = rng.normal(0, 1.25, (len(knots), len(knots)))  # the spline between knots loses a fifth of the SD
    y, x = place[:, 0, 0], place[0, :, 1]
    return CubicSpline(knots, CubicSpline(knots, grid, axis=0)(y), axis=1)(x)


def _photograph(rng: np.random.Generator, light: Floats, place: Floats, flip: Floats, *, noise: float) -> NDArray[np.uint8]:
    """Camera: blur, veil, aperture with its coloured rim, sensor noise, 8 bits."""
    pixel = abs(place[1, 0, 0] - place[0, 0, 0])  # in FOV radii
    yx = place * flip
    glare = np.clip(yx @ _towards(rng.normal(np.pi, 0.6)), 0, 1) ** 6 * rng.uniform(0, 1)
    image = np.empty_like(light)
    for c in range(3):
        image[..., c] = ndimage.gaussian_filter(light[..., c], max(BLUR / pixel, 0.5)) + VEIL[c] * glare
        shifted = np.hypot(yx[..., 0], yx[..., 1] - FRINGE[c])
        image[..., c] = BLACK + (image[..., c] - BLACK) / (1 + np.exp((shifted - APERTURE[c]) / (0.6 * max(pixel, DRIVE_PX))))
    common = rng.normal(0, 1, light.shape[:2])
    for c in range(3):
        grain = ndimage.gaussian_filter(0.85 * common + 0.53 * rng.normal(0, 1, common.shape), GRAIN_SIGMA_PX)
        image[..., c] += noise * GRAIN[c] * grain / grain.std() * np.sqrt(np.clip(image[..., c] / MEAN_RGB[c], 0.15, 2))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
