"""Masks over photographs as plain pixels: the fixed colours of the targets, blending, agreement with the truth.

No figures with axes (see report).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Distinguishable with every common colour deficiency and against the orange of a fundus (after Okabe and Ito).
COLOURS: dict[str, tuple[int, int, int]] = {
    "vessels": (86, 240, 255),
    "microaneurysms": (255, 105, 235),
    "haemorrhages": (0, 114, 178),
    "hard_exudates": (240, 228, 66),
    "soft_exudates": (255, 255, 255),
    "disc": (0, 200, 140),
}
MEANING = {
    "microaneurysms": "Round red dots, smaller than a vein is wide at the disc: swellings of capillaries.",
    "haemorrhages": "Larger or irregular red spots: blood outside the vessels.",
    "hard_exudates": "Bright yellow deposits with sharp borders: fat that leaked from vessels.",
    "soft_exudates": "Whitish patches with soft borders, also called cotton-wool spots: swollen nerve fibres.",
}
"""Lesions of diabetic retinopathy in the terms of the ETDRS (Report 10, 1991), a sentence each."""
_TITLES = {"disc": "optic disc"}
OTHER = (204, 121, 167)
HIT, FALSE, MISSED = (255, 255, 255), (240, 228, 66), (0, 114, 255)


def colour(target: str) -> tuple[int, int, int]:
    """The fixed colour of a target, RGB 0 to 255."""
    return COLOURS.get(target, OTHER)


def title(target: str) -> str:
    """What people call a target: "hard exudates"."""
    return _TITLES.get(target, target.replace("_", " "))


def blend(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], targets: Sequence[str], opacity: float = 0.65
) -> NDArray[np.uint8]:
    """`image` uint8 (H, W, 3) with the K layers of `mask` bool (K, H, W) in the colours of `targets`."""
    out = image.astype(np.float32)
    for layer, target in zip(mask, targets, strict=True):
        out[layer] = (1 - opacity) * out[layer] + opacity * np.asarray(colour(target), np.float32)
    return np.rint(out).astype(np.uint8)


def legend(width: int, targets: Sequence[str]) -> NDArray[np.uint8]:
    """What the colours of the targets mean: a dark band uint8 (h, `width`, 3), in as many rows as it takes."""
    size = max(width // 50, 11)
    font = ImageFont.load_default(size)
    places: list[tuple[int, int]] = []
    step, x, row = 2 * size, size // 2, 0
    for target in targets:
        length = round(1.5 * size + font.getlength(title(target)))
        if places and x + length > width:
            x, row = size // 2, row + 1
        places.append((x, row))
        x += length + size
    band = Image.new("RGB", (width, step * (row + 1)), (24, 24, 24))
    draw = ImageDraw.Draw(band)
    for (x, row), target in zip(places, targets, strict=True):
        middle = step * row + size
        draw.rectangle((x, middle - size // 2, x + size, middle + size // 2), fill=colour(target))
        draw.text((x + round(1.5 * size), middle), title(target), fill=(235, 235, 235), font=font, anchor="lm")
    return np.asarray(band)


def agreement(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_], fov: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """`image` darkened, with hits white, false pixels yellow and missed ones blue, inside `fov`; all (H, W)."""
    out = np.repeat((image.mean(axis=2, keepdims=True) * 0.5).astype(np.uint8), 3, axis=2)
    for where, colour in ((mask & truth, HIT), (mask & ~truth, FALSE), (~mask & truth, MISSED)):
        out[where & fov] = colour
    return out
