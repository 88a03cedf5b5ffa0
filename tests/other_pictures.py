"""Pictures of anything but a retina, drawn for the tests of what must be refused. No test lives here."""

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]
Draw = Callable[[np.random.Generator], Floats]

SIDE = 540
down, across = np.mgrid[:SIDE, :SIDE].astype(np.float32)
apart = np.hypot(across - (SIDE - 1) / 2, down - (SIDE - 1) / 2)
WORDS = ("the", "patient", "was", "seen", "on", "Monday", "with", "blood", "pressure", "of", "120", "over", "80", "and")
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
RETINA = np.array([0.68, 0.375, 0.23])  # red, green, blue of a usual photograph
# Red, green and blue of a retina at its darkest 1 %, its quantiles at a fifth each, and its brightest 1 %.
SCALE = np.array([[0.42, 0.18, 0.08], [0.6, 0.29, 0.16], [0.66, 0.35, 0.2], [0.71, 0.39, 0.24], [0.76, 0.45, 0.28]])
ABSORBED = np.array([0.35, 1.0, 0.66])  # how strongly blood darkens each channel


def stretched(values: Floats) -> Floats:
    """In [0, 1]; half a percent at either end is cut."""
    low, high = np.quantile(values[::3, ::3], [0.005, 0.995])
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def soft(values: Floats, sigma: float) -> Floats:
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma) if sigma > 0.2 else values


def lumps(rng: np.random.Generator, size: float) -> Floats:
    """Smooth noise of mean 0 and standard deviation 1 whose lumps are `size` pixels wide."""
    side = int(np.ceil(SIDE / size)) + 2
    values = cv2.resize(rng.normal(size=(side, side)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return (values - values.mean()) / values.std()


def plasma(rng: np.random.Generator, size: float = 200.0, gain: float = 0.55) -> Floats:
    return sum((gain**n * lumps(rng, max(2, size / 2**n)) for n in range(6)), np.zeros((SIDE, SIDE)))


def slanted(rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0, np.pi)
    return np.cos(angle) * across + np.sin(angle) * down


def stroke(canvas: Floats, path: Floats, width: float, value: float = 1.0) -> None:
    """Draw a path (n, 2) of x, y."""
    cv2.polylines(canvas, [np.rint(path * 8).astype(np.int32)], False, value, max(1, round(width)), shift=3)


def plain(rng: np.random.Generator) -> Floats:
    fall = (np.hypot(across - rng.uniform(180, 360), down - rng.uniform(180, 360)) / SIDE) ** rng.uniform(1, 3)
    return 0.6 - rng.uniform(-0.3, 0.6) * fall


def gradient(rng: np.random.Generator) -> Floats:
    steps = rng.integers(5, 40)
    return 0.25 + 0.6 * np.floor(stretched(slanted(rng)) * steps) / steps


def noise(rng: np.random.Generator) -> Floats:
    return stretched(lumps(rng, rng.uniform(4, 40)) + rng.uniform(0, 1) * lumps(rng, rng.uniform(2, 10)))


def page(rng: np.random.Generator) -> Floats:
    paper, size, y = np.full((SIDE, SIDE), 255, np.uint8), rng.uniform(0.4, 1.1), 20
    step = round(22 * size + rng.integers(4, 16))
    while y < SIDE:
        text = " ".join(rng.choice(WORDS, 14))
        cv2.putText(paper, text, (int(rng.integers(-30, 30)), y), 0, size, (25,), 1 + (size > 0.8), cv2.LINE_AA)
        y += step
    found = stretched(soft(paper / 255, rng.choice([0, 0.6, 1.2, 2, 3])))
    return 1 - found if rng.random() < 0.25 else found


def bricks(rng: np.random.Generator) -> Floats:
    height, width, gap = rng.integers(20, 70), rng.integers(50, 140), rng.integers(2, 8)
    along = across + (down // height % 2) * width / 2
    tone = rng.uniform(0.5, 1, 64)[((down // height * 97 + along // width * 31) % 64).astype(int)]
    wall = tone * (down % height > gap) * (along % width > gap)
    return stretched(soft(wall, rng.uniform(0.3, 2)) + 0.08 * plasma(rng, 40))


def leaf(rng: np.random.Generator) -> Floats:
    """A midrib, side veins, and finer ones that leave them; light on dark or dark on light."""
    veins, along = np.zeros((SIDE, SIDE), np.float32), np.linspace(0, 1, 40)
    middle = np.stack([np.linspace(-20, SIDE + 20, 60), 270 + 30 * np.sin(2 * np.linspace(0, 1, 60))], axis=1)
    for n in range(59):
        stroke(veins, middle[n : n + 2], 10 - n / 7)
    for n in np.linspace(3, 55, rng.integers(5, 12)).astype(int):
        for side in (-1, 1):
            long = rng.uniform(0.3, 0.55) * SIDE
            vein = middle[n] + np.stack([0.7 * long * along, side * long * (0.8 * along - 0.1 * along**2)], axis=1)
            for part in range(39):
                stroke(veins, vein[part : part + 2], 5 - part / 10)
            for part in range(4, 38, int(rng.integers(4, 9))):
                end = vein[part] + np.array([140, -side * 100]) * rng.uniform(0.2, 0.6, 2)
                stroke(veins, np.stack([vein[part], end]), 1.3)
    turn = cv2.getRotationMatrix2D((270, 270), rng.uniform(0, 360), 1.2)
    veins = soft(cv2.warpAffine(veins, turn, (SIDE, SIDE)), rng.uniform(0.5, 1.3))
    return stretched(0.5 + rng.choice([-1, 1]) * rng.uniform(0.2, 0.5) * veins + 0.05 * plasma(rng, 150))


def skin(rng: np.random.Generator) -> Floats:
    """Pores, creases and hair."""
    hair, along = np.zeros((SIDE, SIDE), np.float32), np.linspace(0, 1, 30)[:, None]
    for _ in range(rng.integers(0, 60)):
        angle = rng.uniform(0, 2 * np.pi)
        way = along * rng.uniform(40, 200) * [np.cos(angle), np.sin(angle)] + along**2 * rng.normal(0, 30, 2)
        stroke(hair, rng.uniform(0, SIDE, 2) + way, rng.integers(1, 3))
    crease = np.abs(np.sin((slanted(rng) + 15 * lumps(rng, 80)) / rng.uniform(8, 30))) < 0.15
    surface = 0.1 * plasma(rng, 120) + 0.25 * lumps(rng, 3) * rng.uniform(0, 0.6)
    return stretched(soft(surface - 0.8 * hair - rng.uniform(0, 0.4) * crease, rng.uniform(0.3, 1.5)))


def marble(rng: np.random.Generator) -> Floats:
    veins = np.abs(np.sin(slanted(rng) / rng.uniform(20, 120) + rng.uniform(1, 4) * plasma(rng)))
    return stretched(rng.choice([-1, 1]) * veins ** rng.uniform(0.2, 1))


def clouds(rng: np.random.Generator) -> Floats:
    return stretched(plasma(rng, rng.uniform(80, 300), rng.uniform(0.4, 0.7)))


def moon(rng: np.random.Generator) -> Floats:
    ground = 0.3 * plasma(rng, 100)
    for _ in range(rng.integers(15, 40)):
        radius, (x, y) = min(4 + 6 * rng.pareto(1.5), 80), rng.uniform(0, SIDE, 2)
        away = np.hypot(across - x, down - y) / radius
        ground += np.exp(-(((away - 1) / 0.15) ** 2)) * (across > x) - 0.6 * np.clip(1 - away**2, 0, None)
    return stretched(soft(ground, rng.uniform(0.5, 1.5)))


def eye(rng: np.random.Generator) -> Floats:
    """From outside: pupil, iris, sclera with vessels, lids."""
    iris = rng.uniform(110, 240)
    pupil, spokes = iris * rng.uniform(0.2, 0.5), rng.normal(size=int(rng.integers(60, 200)))
    ray = np.interp(np.arctan2(down - 270, across - 270), np.linspace(-np.pi, np.pi, spokes.size), spokes)
    fibres = 0.45 + 0.12 * ray * (apart - pupil) / (iris - pupil) + 0.05 * lumps(rng, 10)
    seen = np.where(apart < pupil, 0.02, np.where(apart < iris, fibres, 0.85 + 0.03 * lumps(rng, 60)))
    vessels = np.zeros((SIDE, SIDE), np.float32)
    for angle in rng.uniform(0, 2 * np.pi, rng.integers(0, 14)):
        way = np.array([np.cos(angle), np.sin(angle)]) * np.linspace(iris + 20, iris + 220, 30)[:, None]
        stroke(vessels, 270 + way + np.cumsum(rng.normal(0, 3, (30, 2)), axis=0), rng.integers(1, 4))
    lids = np.abs(down - 270) > rng.uniform(0.25, 0.6) * SIDE + 20 * np.cos(across / SIDE * 3)
    return soft(np.where(lids, 0.6 + 0.05 * lumps(rng, 20), seen - 0.25 * vessels), rng.uniform(0.5, 1.5))


def branches(rng: np.random.Generator, canvas: Floats, start: Floats, angle: float, width: float, more: int) -> None:
    """A limb that wanders, and those that leave its end."""
    turned = angle + np.cumsum(rng.normal(0, 0.12, int(rng.integers(15, 45))))
    path = start + np.cumsum(4 * np.stack([np.cos(turned), np.sin(turned)], axis=1), axis=0)
    stroke(canvas, np.concatenate([start[None], path]), width)
    if more and width > 0.6:
        for side in (-1, 1):
            leave = turned[-1] + side * rng.uniform(0.15, 0.8)
            branches(rng, canvas, path[-1], leave, width * rng.uniform(0.56, 0.78), more - 1)


def river(rng: np.random.Generator) -> Floats:
    """One stream and what flows into it; or a bare tree."""
    water, angle = np.zeros((SIDE, SIDE), np.float32), rng.uniform(0, 2 * np.pi)
    branches(rng, water, 270 - 270 * np.array([np.cos(angle), np.sin(angle)]), angle, rng.uniform(6, 20), 7)
    return stretched(rng.choice([-1, 1]) * soft(water, 0.8) + rng.uniform(0, 0.2) * plasma(rng, 150))


def roads(rng: np.random.Generator) -> Floats:
    streets, along = np.zeros((SIDE, SIDE), np.float32), np.linspace(-1, 1, 40)[:, None]
    for angle in rng.uniform(0, 2 * np.pi, rng.integers(8, 24)):
        way = rng.uniform(0, SIDE, 2) + along * SIDE * [np.cos(angle), np.sin(angle)]
        stroke(streets, way + np.cumsum(rng.normal(0, 3, (40, 2)), axis=0), rng.integers(1, 8))
    return stretched(rng.choice([-1, 1]) * soft(streets, 0.7) + rng.uniform(0, 0.25) * np.sign(plasma(rng, 80)))


def net(rng: np.random.Generator) -> Floats:
    angle, mesh, bent = rng.uniform(0, np.pi), rng.uniform(12, 60), rng.uniform(0, 8)
    u = np.cos(angle) * across + np.sin(angle) * down + bent * lumps(rng, 100)
    v = np.cos(angle) * down - np.sin(angle) * across + bent * lumps(rng, 100)
    threads = np.minimum(u % mesh, v % mesh) < rng.uniform(0.05, 0.3) * mesh
    return stretched(rng.choice([-1, 1]) * soft(threads, rng.uniform(0.5, 2)) + 0.1 * plasma(rng, 100))


def layers(rng: np.random.Generator) -> Floats:
    """Bands with speckles, as in a section of the retina."""
    depth = down - 0.4 * SIDE - 30 * lumps(rng, 200)[:1]
    bands = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(4, 9)):
        bands += rng.uniform(0.3, 1) * np.exp(-(((depth - rng.uniform(0, 160)) / rng.uniform(4, 15)) ** 2))
    return stretched(bands * (1 + 0.5 * rng.normal(size=bands.shape)) + 0.1 * np.abs(rng.normal(size=bands.shape)))


def spiral(rng: np.random.Generator) -> Floats:
    wave = np.sin(apart * np.pi / rng.uniform(8, 40) + rng.integers(1, 6) * np.arctan2(down - 270, across - 270))
    return stretched(rng.choice([-1, 1]) * np.abs(wave) ** rng.uniform(0.1, 1) + 0.1 * lumps(rng, 60))


def photograph(rng: np.random.Generator) -> Floats:
    """A part of a face, a cat, a cup, a wall, a tissue."""
    names = ("astronaut.png", "chelsea.png", "coffee.png", "brick.png", "ihc.png", "grass.png", "gravel.png")
    pixels = cv2.imread(str(PHOTOGRAPHS / rng.choice(names)))[..., ::-1]
    side = int(rng.uniform(0.5, 1) * min(pixels.shape[:2]))
    top, left = (int(rng.integers(0, length - side + 1)) for length in pixels.shape[:2])
    return cv2.resize(pixels[top : top + side, left : left + side] / np.float32(255), (SIDE, SIDE))


KINDS: dict[str, Draw] = {
    "plain": plain,
    "gradient": gradient,
    "noise": noise,
    "page": page,
    "bricks": bricks,
    "leaf": leaf,
    "skin": skin,
    "marble": marble,
    "clouds": clouds,
    "moon": moon,
    "eye": eye,
    "river": river,
    "roads": roads,
    "net": net,
    "layers": layers,
    "spiral": spiral,
    "photograph": photograph,
}


def tinted(picture: Floats, rng: np.random.Generator) -> Floats:
    """A picture (h, w) or (h, w, 3) in the colours of a retina, (h, w, 3), one of four ways."""
    grey = picture if picture.ndim == 2 else picture @ np.array([0.3, 0.59, 0.11])
    way, base = rng.integers(4), RETINA * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.7, 1.3)
    if way == 0:  # seen in the light of a retina
        return 1.4 * base * grey[..., None]
    if way == 1:  # pale, on the mean colour of a retina
        return base * (1 + rng.uniform(0.3, 1) * (grey - grey.mean())[..., None])
    if way == 2:  # darkened as blood does it
        light = np.log((0.3 + 0.7 * grey) / np.median(0.3 + 0.7 * grey))
        return base * np.exp(rng.uniform(0.4, 1.2) * light[..., None] * ABSORBED)
    rank = np.argsort(np.argsort((grey + 1e-4 * rng.normal(size=grey.shape)).ravel())) / grey.size
    place, scale = np.linspace(0, 1, 6), np.concatenate([SCALE, [[0.95, 0.75, 0.5]]])
    return np.stack([np.interp(rank, place, one).reshape(grey.shape) for one in scale.T], axis=2)


def picture(kind: str, seed: int, *, like_a_retina: bool, circle: bool) -> Image:
    """A picture uint8 (SIDE, SIDE, 3), in the colours of a retina or its own, whole or cut to a circle on black."""
    rng = np.random.default_rng([seed, like_a_retina, circle, zlib.crc32(kind.encode())])
    drawn = KINDS[kind](rng)
    if like_a_retina:
        seen = tinted(drawn, rng) * (1.1 - rng.choice([0, 0.4]) * (apart / SIDE)[..., None])
    else:
        seen = drawn if drawn.ndim == 3 else drawn[..., None] * rng.uniform(0.3, 1, 3)
    pixels = np.clip(255 * seen + rng.normal(0, rng.choice([0.0, 1.0, 2.0]), seen.shape), 0, 255).astype(np.uint8)
    if circle:
        pixels[apart > 0.47 * SIDE] = 0
    return pixels
