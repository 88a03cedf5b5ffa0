"""Drawn colour fundus photographs with exact truth: vessels, calibres, disc, fovea, field of view.

No real photograph and no network enters here; degrading or augmenting photographs is `augment.py`.

Order: trunks along the arcades -> branches that seek free space, calibres by Murray's law -> light absorbed by the
blood column (Beer-Lambert) -> optics and sensor. Lengths are in radii of the field of view (FOV) unless the name says
`_px`, so that one seed shows the same eye at every size. "Measured" means: measured on the 20 DRIVE training
photographs (565 x 584 px, 45 degrees, FOV radius 269 px); a "DRIVE pixel" is 1/269.
"""

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from retina_seg.errors import UserError

Floats = NDArray[np.float64]
Places = NDArray[np.complex128]  # x + iy
Bools = NDArray[np.bool_]

SIDES = (64, 8192)  # of a drawing, px
DRIVE_PX = 1 / 269
FOV_RADIUS = 0.476  # per shorter side of the image; measured

# Landmarks (measured), as x + iy from the centre of the FOV, right eye: disc on the right, y downwards.
DISC_AT, DISC_SEMI_AXES = 0.70 - 0.08j, (0.130, 0.142)
FOVEA_FREE = 0.13  # vessels end at this distance from the fovea

# Growth. Chosen so that annotated length (measured: 31 radii), density (.125 of the FOV), calibre distribution,
# ends (105) and junctions (153) come out as measured.
STEP = 0.01
VEIN_RADIUS = 4.5 * DRIVE_PX  # of the widest vein; calibre measured 8 to 11 px
ARTERY_TO_VEIN = 0.72  # calibre ratio; 2/3 to 3/4 in healthy eyes
LEAK = 1.1e-5  # r dr/ds: flow lost to branches too small to be drawn, in proportion to the radius
FADE = 0.10  # length over which a vessel that meets another one thins out
END_RADIUS = 0.3 * DRIVE_PX  # where a vessel ends, far below what can be seen
GAP, GAP_PER_RADIUS = 0.09, 8.0  # distance between branchings: the larger of a constant and a multiple of the radius
CROWD_SIGMA, CROWD_LIMIT = 0.040, 0.65  # how far a vessel makes itself felt, and how much of it ends another one
WOBBLE = 0.030  # SD of the random part of the turn per step, radians; gives the tortuosity

# Light, per channel (R, G, B): absorbance per radius of blood, and its limit by scatter in front of the vessel. With
# the blur they give what was measured at vessel centres: green .07, .18, .27, .36 at 2, 4, 6, 9 px; blue 2/3, red 1/3.
ABSORB = {"vein": (8.0, 22.0, 14.0), "artery": (3.5, 16.0, 11.0)}
ABSORB_LIMIT = np.array([0.22, 0.45, 0.28])
REFLEX = {"vein": 0.15, "artery": 0.40}  # share of the absorbance taken away by the light reflex of a wide vessel
VISIBLE = 0.030  # peak green absorbance after the blur below which no vessel is marked; sets the share of thin ones
MEAN_RGB = np.array([174.0, 96.0, 59.0])  # in the FOV, median over the photographs; measured
RADIAL = np.array([[1.22, 1.08, 1.00], [-0.46, -0.14, 0.0]])  # fall-off: first + second * r^2; measured
MACULA = ((0.15, (0.23, 0.20, 0.17)), (0.04, (0.02, 0.08, 0.05)))  # sigma and darkening: yellow spot, foveola
DISC_GAIN, CUP_GAIN = np.array([0.35, 0.75, 0.60]), np.array([0.15, 0.45, 0.45])  # to the 99.5th percentile measured
TEXTURE = ((3.0, 0.008), (7.0, 0.008), (14.0, 0.009), (30.0, 0.013), (70.0, 0.028), (160.0, 0.030))  # px, SD / mean
VEIL = (25.0, 35.0, 22.0)  # most stray light at one side of the rim, grey levels
BLUR = 0.8 * DRIVE_PX  # sigma of the optics; from the measured profile of vessel edges
APERTURE, FRINGE = (0.997, 0.9945, 0.993), (-0.004, 0.0, 0.001)  # radius and shift along x of the rim; measured
BLACK = 7.0  # grey level outside the FOV; measured
GRAIN, GRAIN_SIGMA_PX = (2.2, 2.4, 2.4), (0.5, 0.72)  # SD in grey levels; correlation (y, x); measured


@dataclass(frozen=True)
class Segment:
    """A vessel between two branchings, running away from the disc; it may leave the FOV.

    path: float64 (n, 2), centreline (y, x) in pixels, pixel centres at whole numbers; width_px: float64 (n,), calibre;
    parent: index of the segment it branches from, whose last point is path[0]; -1 at the disc.
    """

    path: Floats
    width_px: Floats
    kind: Literal["artery", "vein"]
    parent: int


@dataclass(frozen=True)
class Phantom:
    """A drawn photograph: image uint8 (H, W, 3) RGB; vessels, disc, fov bool (H, W); fovea (y, x) in pixels.

    `vessels`: every pixel of the FOV whose centre lies within half a calibre of a centreline (half a pixel at least),
    as far as the vessel has visible contrast. `segments` also holds the ends that have faded below it.
    """

    image: NDArray[np.uint8]
    vessels: Bools
    disc: Bools
    fov: Bools
    fovea: tuple[float, float]
    segments: tuple[Segment, ...]


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

    seed: whole number, 0 or more; width, height: pixels, 64 to 8192; eye: a right eye has its disc on the right,
    None lets the seed decide; contrast: factor on the absorbance of blood, 0 to 3 (the truth stays that of 1);
    noise: factor on the sensor noise, 0 to 20. Raises UserError for anything else.
    """
    _check(seed, width, height, eye, contrast, noise)
    anatomy, surface, sensor = (np.random.default_rng([seed, part]) for part in range(3))
    disc, fovea = DISC_AT + complex(*anatomy.normal(0, (0.02, 0.045))), complex(*anatomy.normal(0, 0.02, 2))
    left = anatomy.random() < {"left": 1.0, "right": 0.0, None: 0.5}[eye]  # drawn in any case: the same eye, mirrored
    radius_px = FOV_RADIUS * min(width, height)
    scale = radius_px * np.array([1.0, -1.0 if left else 1.0])  # (y, x)
    origin = np.array([height - 1, width - 1]) / 2 + radius_px * anatomy.normal((0.02, 0.0), 0.01)
    segments = tuple(line.segment(origin, scale) for line in _vessels(anatomy, disc, fovea))
    y, x = ((np.arange(side) - origin[axis]) / scale[axis] for axis, side in enumerate((height, width)))
    place = x + 1j * y[:, None]  # (H, W), position in FOV radii, as in a right eye
    fov = np.abs(place) <= 1.0
    light = _surface(surface, place, disc, fovea)  # (H, W, 3)
    absorbance, marked = _blood(segments, (height, width), radius_px)
    seen = place.real * np.sign(scale[1]) + 1j * place.imag  # as the camera sees it: x to the right in both eyes
    image = _photograph(sensor, light * np.exp(-contrast * absorbance), seen, noise)
    y_fovea, x_fovea = (origin + scale * (fovea.imag, fovea.real)).tolist()
    return Phantom(image, fov & marked, fov & (_disc_distance(place, disc) <= 1), fov, (y_fovea, x_fovea), segments)


def _check(seed: int, width: int, height: int, eye: str | None, contrast: float, noise: float) -> None:
    for name, value, low, high in (("width", width, *SIDES), ("height", height, *SIDES), ("seed", seed, 0, 2**63 - 1)):
        if not isinstance(value, int | np.integer) or not low <= value <= high:
            raise UserError(f"{name} is {value!r}: give a whole number from {low} to {high}")
    if eye not in ("left", "right", None):
        raise UserError(f"eye is {eye!r}: give 'left', 'right' or None")
    for name, factor, top in (("contrast", contrast, 3), ("noise", noise, 20)):
        if not 0 <= factor <= top:
            raise UserError(f"{name} is {factor!r}: give a factor from 0 to {top}")


class _Shoot(NamedTuple):
    """The growing end of a vessel, on x + iy, where turning is multiplying; it steers towards its goals in turn."""

    radius: float
    vein: bool
    at: complex
    heading: complex  # unit
    goals: tuple[complex, ...]
    trunk: bool = False  # holds its course whatever stands there
    parent: int = -1  # line it leaves from; -1 at the disc


class _Line(NamedTuple):
    """A finished segment in FOV radii."""

    path: list[complex]
    radii: list[float]
    vein: bool
    parent: int

    def segment(self, origin: Floats, scale: Floats) -> Segment:
        path = origin + scale * np.array([(at.imag, at.real) for at in self.path])
        return Segment(path, 2 * scale[0] * np.array(self.radii), "vein" if self.vein else "artery", self.parent)


class _Ground:
    """What a growing vessel feels: disc, fovea and the vessels already there."""

    CELL, REACH, SIDE = 0.02, 7, 120  # a grid over [-1.2, 1.2]^2

    def __init__(self, disc: complex, fovea: complex) -> None:
        self.disc, self.fovea = disc, fovea
        side = np.arange(-self.REACH, self.REACH + 1) * self.CELL
        self._stamp = np.exp(-(side[:, None] ** 2 + side**2) / (2 * CROWD_SIGMA**2))
        self._grids = np.zeros((2, self.SIDE + 2 * self.REACH, self.SIDE + 2 * self.REACH))  # arteries, veins

    def _window(self, at: complex) -> tuple[slice, slice]:
        row, column = (min(max(int((v + 1.2) / self.CELL), 0), self.SIDE - 1) for v in (at.imag, at.real))
        return slice(row, row + 2 * self.REACH + 1), slice(column, column + 2 * self.REACH + 1)

    def add(self, line: _Line) -> None:
        for window in map(self._window, line.path):
            near = self._grids[int(line.vein)][window]
            np.maximum(near, self._stamp, out=near)

    def crowd(self, tip: "_Shoot", distance: float, angle: float) -> float:
        """How near vessels are ahead of the tip: 1 on one, a Gaussian beside it; the other kind counts less."""
        rows, columns = self._window(tip.at + distance * tip.heading * cmath.rect(1, angle))
        artery, vein = self._grids[:, rows.start + self.REACH, columns.start + self.REACH]
        return float(vein + 0.7 * artery if tip.vein else artery + 0.7 * vein)

    def stops(self, tip: "_Shoot", age: int) -> bool:
        """If a branch ends: at the fovea, back at the disc, or (when clear of its own parent) at another vessel."""
        from_disc, free = _disc_distance(tip.at, self.disc), 8 if tip.parent >= 0 else 35  # steps
        if from_disc < 1.6:  # among the trunks
            return tip.parent >= 0 and bool(from_disc < 1.1)
        return abs(tip.at - self.fovea) < FOVEA_FREE or (age > free and self.crowd(tip, 0.03, 0.0) > CROWD_LIMIT)


def _disc_distance(place: Any, disc: complex) -> Any:
    """Distance of a place or an array of places from the centre of the disc, 1 on its edge."""
    return abs((place - disc).real / DISC_SEMI_AXES[0] + 1j * (place - disc).imag / DISC_SEMI_AXES[1])


def _vessels(rng: np.random.Generator, disc: complex, fovea: complex) -> list[_Line]:
    """Grow all vessels, the widest first, so that finer ones fill the space that is left."""
    ground, lines, waiting = _Ground(disc, fovea), list[_Line](), list(_trunks(rng, disc, fovea))
    while waiting:
        widest, first = max(range(len(waiting)), key=lambda i: waiting[i].radius), len(lines)
        waiting += _grow(rng, waiting.pop(widest), lines, ground)
        for line in lines[first:]:
            ground.add(line)
    return lines


def _trunks(rng: np.random.Generator, disc: complex, fovea: complex) -> Iterator[_Shoot]:
    """Arcades around the fovea, nasal vessels, small ones from the disc to the macula; read off the photographs."""
    for side in (-1, 1):  # superior, inferior
        top = rng.uniform(0.56, 0.74)
        for vein in (True, False):
            radius = VEIN_RADIUS * (1.0 if vein else ARTERY_TO_VEIN) * rng.normal(1, 0.05)
            j = (rng.normal(0, 0.03, (10, 2)) @ (1, 1j)).tolist()
            # The artery keeps beside the vein; in half of the arcades they cross once.
            beside = 0.0 if vein else rng.choice((-1, 1)) * rng.uniform(0.05, 0.10)
            beyond = top + beside * rng.choice((-1, 1))
            up, root = 1j * side, disc + 0.03 + 0.025j * side + 0.4 * j[0]
            to_arcade = (disc + 0.2 * up + 0.5 * (j[1] + beside), disc + 0.4 * up - 0.07 + 0.7 * (j[2] + beside))
            drop = np.array((0.1 * beyond, 0, rng.uniform(-0.05, 0.20), rng.uniform(0.0, 0.40)))
            arcade = fovea + up * (beyond - drop) + (0.36 + j[3], j[4], -0.5, -1.1)
            upright = (disc + 0.25 * up + 0.07 + j[5], disc + 0.6 * up + 0.10 + 2 * j[6], disc + 1.3 * up + 6 * j[7])
            nasal = (disc + 0.08 * up + 0.14 + j[8], disc + 0.25 * up + 0.5 + 2 * j[9])
            yield _Shoot(radius, vein, root, up, (*to_arcade, *arcade.tolist()), trunk=True)
            yield _Shoot(radius * rng.uniform(0.55, 0.70), vein, root + 0.01, up, upright, trunk=True)
            yield _Shoot(radius * rng.uniform(0.40, 0.55), vein, root + 0.015, 1 + 0j, nasal, trunk=True)
            macular = (disc + 0.06 * up - 0.16 + j[6], disc + 0.12 * up - 0.34 + 2 * j[7], fovea + 0.1 * up)
            yield _Shoot(radius * rng.uniform(0.28, 0.42), vein, root - 0.03, -1 + 0j, macular)


def _grow(rng: np.random.Generator, tip: _Shoot, lines: list[_Line], ground: _Ground) -> list[_Shoot]:
    """Append one vessel's lines, grown step by step, and return the branches that leave it."""
    branches, path, radii = list[_Shoot](), [tip.at], [tip.radius]
    age, curl, since, gap = 0, 0.0, 0.0, _gap(rng, tip, ground)
    while abs(tip.at) < 1.04:
        if len(tip.goals) > 1 and abs(tip.goals[0] - tip.at) < 0.12:
            tip = tip._replace(goals=tip.goals[1:])
        curl = 0.84 * curl + rng.normal(0, WOBBLE * (0.6 if tip.trunk else 1.0))
        heading = tip.heading * cmath.rect(1, curl + _turn(tip, ground))
        radius = math.sqrt(max(tip.radius**2 - 2 * LEAK * STEP, 0.0))
        tip = tip._replace(at=tip.at + STEP * heading, heading=heading, radius=radius)
        age += 1
        if radius < END_RADIUS or (not tip.trunk and ground.stops(tip, age)):
            # What has been stopped dives out of sight; its beginning keeps the calibre that Murray's law gave it.
            fade = np.linspace(1, 0, 1 + min(len(radii), 1 + round(FADE / STEP)))[:-1]
            radii[-len(fade) :] = (fade * radii[-len(fade) :]).tolist()
            break
        path.append(tip.at)
        radii.append(radius)
        since += STEP
        if since > gap and abs(tip.at) < 0.98 and _disc_distance(tip.at, ground.disc) > 1.3:
            since, gap = 0.0, _gap(rng, tip, ground)
            fork = _fork(rng, tip, ground)
            if fork is not None:
                lines.append(_Line(path, radii, tip.vein, tip.parent))
                tip, branch = (shoot._replace(parent=len(lines) - 1) for shoot in fork)
                branches.append(branch)
                path, radii = [tip.at], [tip.radius]
    if len(path) > 1:
        lines.append(_Line(path, radii, tip.vein, tip.parent))
    return branches


def _gap(rng: np.random.Generator, tip: _Shoot, ground: _Ground) -> float:
    """Distance to the next branching; long near the disc, which vessels leave almost unbranched."""
    near_disc = 1 + 1.5 * math.exp(-abs(tip.at - ground.disc) / 0.3)
    return float(max(GAP, GAP_PER_RADIUS * tip.radius) * rng.uniform(0.6, 1.4) * near_disc)


def _turn(tip: _Shoot, ground: _Ground) -> float:
    """Change of direction in one step, radians: towards the goal, away from other vessels."""
    to = tip.goals[0] - tip.at
    error = cmath.phase(to / tip.heading)
    if tip.trunk:
        return 0.13 * min(max(error, -1.0), 1.0)
    pull = 0.05 * math.sin(error) if abs(to) > 0.2 else 0.0
    return pull + 0.1 * max(math.cos(error), 0.0) * (ground.crowd(tip, 0.07, -0.6) - ground.crowd(tip, 0.07, 0.6))


def _fork(rng: np.random.Generator, tip: _Shoot, ground: _Ground) -> tuple[_Shoot, _Shoot] | None:
    """Split a vessel in two (going on, branch) by Murray's law, r0^3 = r1^3 + r2^3; None where there is no room."""
    left, right = (ground.crowd(tip, 0.09, 0.9 * side) + ground.crowd(tip, 0.14, 1.2 * side) for side in (-1, 1))
    side = -1 if left + rng.normal(0, 0.15) < right else 1
    inward, beyond_fovea = ground.fovea - tip.at, tip.at.real < ground.fovea.real + 0.1
    inner = (1j * side * tip.heading / inward).real > 0 and abs(inward) < 0.85 and tip.at.real < ground.disc.real - 0.1
    even = rng.random() < (0.3 * beyond_fovea if tip.trunk else 0.2) or tip.radius < 1.3 * DRIVE_PX
    share = rng.uniform(0.2, 0.45) if even else rng.uniform(0.33, 0.68 if inner else 0.58) ** 3  # of the flow
    r0, r1, r2 = tip.radius, tip.radius * math.cbrt(1 - share), tip.radius * math.cbrt(share)
    if min(left, right) > 1.1 or r2 < 0.75 * DRIVE_PX:
        return None
    # Angles of least work: Murray 1926, "... minimum work applied to the angle of branching of arteries".
    turn1 = math.acos(min((r0**4 + r1**4 - r2**4) / (2 * r0**2 * r1**2), 1.0))
    turn2 = math.acos(min((r0**4 + r2**4 - r1**4) / (2 * r0**2 * r2**2), 1.0)) * rng.uniform(0.8, 1.15)
    heading = tip.heading * cmath.rect(1, side * turn2)
    if inner:
        # Inside the arcades: to the fovea, or, beyond it, to the horizontal line where upper and lower vessels meet.
        x = tip.at.real - rng.uniform(0, 0.3) if beyond_fovea else ground.fovea.real + rng.uniform(-0.1, 0.3)
        goal = complex(x, ground.fovea.imag + rng.normal(0, 0.06))
    else:
        goal = tip.at + 0.6 * heading - 0.6 * inward / max(abs(inward), 0.1)
    branch = tip._replace(radius=r2, heading=heading, goals=(goal,), trunk=False)
    return tip._replace(radius=r1, heading=tip.heading * cmath.rect(1, -0.8 * side * turn1)), branch


def _blood(segments: tuple[Segment, ...], shape: tuple[int, int], radius_px: float) -> tuple[Floats, Bools]:
    """Absorbance float64 (H, W, 3) of all vessels, and the pixels (H, W) an annotator would mark."""
    absorbance, marked = np.zeros((*shape, 3)), np.zeros(shape, bool)
    for kind, absorb in ABSORB.items():
        depth, seen = _columns([segment for segment in segments if segment.kind == kind], kind, shape, radius_px)
        absorbance += ABSORB_LIMIT * (1 - np.exp(-depth[..., None] * absorb / ABSORB_LIMIT))
        marked |= seen
    return absorbance, marked


def _columns(segments: list[Segment], kind: str, shape: tuple[int, int], radius_px: float) -> tuple[Floats, Bools]:
    """Depth of the blood column in FOV radii, less its light reflex, and the marked pixels; both (H, W).

    A vessel is a cylinder: at distance d from the centreline the column is a chord 2 sqrt(r^2 - d^2) deep.
    """
    a, b = (np.concatenate([s.path[cut] for s in segments]) for cut in (slice(-1), slice(1, None)))
    ra, rb = (np.concatenate([s.width_px[cut] / 2 for s in segments]) for cut in (slice(-1), slice(1, None)))
    depth, reflex, marked = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    half = np.ceil(np.maximum(ra, rb) + 1.2 + np.abs(b - a).max(axis=1) / 2).astype(np.int64)
    for size in np.unique(half):
        window = np.moveaxis(np.indices((2 * size + 1, 2 * size + 1)), 0, -1).reshape(-1, 2) - size
        for part in np.array_split(np.flatnonzero(half == size), 1 + (half == size).sum() * len(window) // 1_000_000):
            pixel = np.rint((a[part] + b[part]) / 2).astype(np.int64)[:, None] + window  # (n, k, 2)
            ab, to = (b - a)[part][:, None], pixel - a[part][:, None]
            along = np.clip((to * ab).sum(-1) / np.maximum((ab**2).sum(-1), 1e-12), 0, 1)  # (n, k)
            within = ((pixel >= 0) & (pixel < shape)).all(-1)
            d2 = ((to - along[..., None] * ab) ** 2).sum(-1)[within]
            r = (ra[part][:, None] + along * (rb - ra)[part][:, None])[within]
            at = np.ravel_multi_index(tuple(pixel[within].T), shape)
            # Near the size of a pixel a vessel is drawn wider and shallower: the same blood, and no aliasing.
            wide2 = r**2 + 0.25
            np.maximum.at(depth.reshape(-1), at, 2 * np.sqrt(np.maximum(wide2 - d2, 0)) * r**2 / wide2)
            strength = np.clip(r / radius_px / DRIVE_PX / 1.5 - 1, 0, 1) * np.exp(-d2 / (0.3 * r) ** 2)
            np.maximum.at(reflex.reshape(-1), at, strength)
            marked.reshape(-1)[at[(d2 <= np.maximum(r, 0.5) ** 2) & _visible(r / radius_px, kind, 1 / radius_px)]] = (
                True
            )
    return depth / radius_px * (1 - REFLEX[kind] * reflex), marked


def _visible(radius: Floats, kind: str, pixel: float) -> Bools:
    """Whether a vessel's peak after the blur shows: half an ellipse of SD r/2, taken as a Gaussian of the same area."""
    variance = radius**2 / 4 + max(BLUR, 0.5 * pixel) ** 2
    return ABSORB[kind][1] * np.pi * radius**2 / np.sqrt(2 * np.pi * variance) >= VISIBLE


def _surface(rng: np.random.Generator, place: Places, disc: complex, fovea: complex) -> Floats:
    """Light (H, W, 3), in grey levels, from the fundus without its vessels."""
    tint = np.exp(rng.normal(0, 0.14) + rng.normal(0, (0.08, 0.09, 0.08)))
    light = MEAN_RGB * tint * (RADIAL[0] + RADIAL[1] * (np.abs(place) ** 2)[..., None])
    light *= np.exp((place * complex(*rng.normal(0, 1, 2))).real[..., None] * (0.12, 0.07, 0.06))  # uneven
    for spacing, sd in TEXTURE:
        common, hue = (_field(rng, place, spacing * DRIVE_PX)[..., None] for _ in range(2))
        light *= 1 + sd * (0.8 * common + 0.6 * hue * (-1.0, 0.2, 1.0))
    for sigma, drop in MACULA:
        light *= 1 - np.exp(-((np.abs(place - fovea) / sigma) ** 2) / 2)[..., None] * drop
    edge = _disc_distance(place, disc)
    # Nerve fibres: fine bright rays above and below the disc, fading with distance.
    angle, fade = np.angle(place - disc), np.exp(-np.maximum(edge - 1, 0) / 1.8)
    rays = CubicSpline(np.linspace(-np.pi, np.pi, 181), rng.normal(0, 1, 181))(angle)
    light *= 1 + (fade * np.abs(np.sin(angle)) * (0.05 + 0.012 * rays))[..., None]
    cup = _disc_distance(place, disc + complex(*rng.normal((-0.01, 0.0), 0.01)))
    for distance, size, gain in ((edge, 1.0, DISC_GAIN), (cup, rng.uniform(0.35, 0.6), CUP_GAIN)):
        light *= 1 + gain / (1 + np.exp((distance - size) / 0.05))[..., None]
    return np.minimum(light, 250.0)  # so bright a disc that vessels drown in it is not seen in photographs


def _field(rng: np.random.Generator, place: Places, spacing: float) -> Floats:
    """Smooth random field (H, W), mean 0, SD about 1: a cubic spline through white noise on a grid."""
    knots = np.arange(-1.6, 1.6 + spacing, spacing)
    grid = rng.normal(0, 1.25, (len(knots), len(knots)))  # between its knots the spline loses a fifth of the SD
    return CubicSpline(knots, CubicSpline(knots, grid)(place[:, 0].imag), axis=1)(place[0].real)


def _photograph(rng: np.random.Generator, light: Floats, place: Places, noise: float) -> NDArray[np.uint8]:
    """Camera: blur, stray light, aperture with its coloured rim, sensor noise, 8 bits; x of `place` to the right."""
    pixel = abs(place[1, 0] - place[0, 0])
    stray = np.clip((place * cmath.rect(1, rng.normal(np.pi, 0.6))).real, 0, 1) ** 6 * rng.uniform(0, 1)
    common = rng.normal(0, 1, place.shape)
    image = np.empty(light.shape, np.uint8)
    for c in range(3):
        level = ndimage.gaussian_filter(light[..., c], max(BLUR / pixel, 0.5)) + VEIL[c] * stray
        rim = (np.abs(place - FRINGE[c]) - APERTURE[c]) / (0.6 * max(pixel, DRIVE_PX))
        level = BLACK + (level - BLACK) / (1 + np.exp(np.clip(rim, -50, 50)))
        grain = ndimage.gaussian_filter(0.85 * common + 0.53 * rng.normal(0, 1, place.shape), GRAIN_SIGMA_PX)
        level += noise * GRAIN[c] * grain / grain.std() * np.sqrt(np.clip(level / MEAN_RGB[c], 0.1, 2))
        image[..., c] = np.clip(np.rint(level), 0, 255)
    return image
