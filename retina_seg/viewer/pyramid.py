"""Planes for the browser: pictures, probabilities and masks at several resolutions, cut into compressed tiles.

What the planes of a result are is in scene.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 512
COARSEST = 1280
"""Longest side, in pixels, of the level that is sent with a scene; each finer level has twice the pixels a side."""
FULL = 65000
"""Stands for probability 1 in a tile: every threshold of three decimals is a whole number then."""
_ROUNDING = 1e-3  # of FULL: half a step of float32 near 1, so that a probability on the threshold stays on it

_QUALITY = 92  # of JPEG; chroma is kept at full resolution, or thin vessels fade
_DEFLATE = 1  # probabilities hardly shrink further, and a tile must not make the user wait

Kind = Literal["picture", "prob", "mask"]


def levels(width: int, height: int) -> list[tuple[int, int]]:
    """(width, height) of every level, the photograph's own first; the last has no side above COARSEST."""
    sizes = [(width, height)]
    while max(sizes[-1]) > COARSEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


@dataclass
class Plane:
    """One plane at all levels.

    Attributes
    ----------
    array : "picture" uint8 (H, W, 3) or (H, W), "prob" float32 (H, W) in [0, 1], "mask" bool (H, W).
    kind : which of them.
    """

    array: NDArray[Any]
    kind: Kind
    _reduced: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False)

    def tile(self, level: int, column: int, row: int) -> tuple[str, bytes]:
        """Type and content of a tile: "image/jpeg", or zlib-compressed "u16" (0 to FULL) or "u8" (0, 1).

        Raises
        ------
        IndexError
            For a tile outside the plane.
        """
        if min(level, column, row) < 0:
            raise IndexError(f"there is no tile {level}/{column}/{row}")
        array = self._at(level)
        part = array[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        if 0 in part.shape:
            raise IndexError(f"there is no tile {level}/{column}/{row}")
        if self.kind == "picture":
            return "image/jpeg", jpeg(part)
        if self.kind == "prob":
            scaled = (FULL * part.astype(np.float64) + _ROUNDING).astype("<u2")
            return "u16", zlib.compress(scaled.tobytes(), _DEFLATE)
        return "u8", zlib.compress(part.astype(np.uint8).tobytes(), _DEFLATE)

    def _at(self, level: int) -> NDArray[Any]:
        """The plane at a level; a mask is set where at least half of the area is."""
        if level == 0:
            return self.array
        if level not in self._reduced:
            size = levels(self.array.shape[1], self.array.shape[0])[level]
            source = self.array.astype(np.float32) if self.kind == "mask" else self.array
            reduced = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
            self._reduced[level] = reduced >= 0.5 if self.kind == "mask" else reduced
        return self._reduced[level]


def jpeg(part: NDArray[np.uint8]) -> bytes:
    """Pixels uint8, grey (h, w) or RGB (h, w, 3), as a JPEG file with all of its colour."""
    pixels = part if part.ndim == 2 else cv2.cvtColor(part, cv2.COLOR_RGB2BGR)
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *sampling])
    return content.tobytes()


def keys(plane: str, level: int, size: tuple[int, int]) -> list[str]:
    """Names of all tiles of a plane at a level of (width, height): "plane/level/column/row"."""
    columns, rows = (-(-side // TILE) for side in size)
    return [f"{plane}/{level}/{column}/{row}" for row in range(rows) for column in range(columns)]


def parse(key: str) -> tuple[str, int, int, int]:
    """Plane, level, column and row of a tile's name; ValueError for any other text."""
    plane, level, column, row = key.rsplit("/", 3)
    return plane, int(level), int(column), int(row)


def contrast(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`image` uint8 (H, W, 3) with the contrast of its lightness evened out (CLAHE, clip 3, 8 x 8 tiles)."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lightness = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(np.dstack([lightness, lab[..., 1:]]), cv2.COLOR_LAB2RGB)


def pack(header: dict[str, Any], tiles: Sequence[tuple[str, str, bytes]]) -> bytes:
    """One message: length of the header (uint32, little endian), header (JSON), contents of the tiles.

    `tiles` are (name, type, content); the header gets their names, types and places as "tiles".
    """
    places, start = [], 0
    for key, kind, content in tiles:
        places.append({"key": key, "type": kind, "start": start, "length": len(content)})
        start += len(content)
    text = json.dumps({**header, "tiles": places}).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *(content for _, _, content in tiles)])
