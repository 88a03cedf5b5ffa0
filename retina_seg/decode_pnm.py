"""PNM files whose values pillow takes one by one: plain text, and largest values other than 255. Same values, faster.

Not here: the other PNM files and their heads (decode).
"""

import re
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retina_seg.errors import UserError

_MAX_PLAIN = 40_000_000  # values of a text file, which takes some 50 ns for each
_BLOCK = 2**20


def is_slow(picture: Image.Image) -> bool:
    """Whether pillow would read this file value by value."""
    return picture.format == "PPM" and picture.tile[0].codec_name in ("ppm", "ppm_plain")  # type: ignore[attr-defined]


def pixels(stream: BinaryIO, picture: Image.Image, name: object) -> NDArray[Any]:
    """(H, W) or (H, W, 3) of a picture that pillow opened from `stream`: uint8, grey of more than 8 bits int32.

    Scaled so that the largest value, as the head says it, becomes 255 or 65535 (netpbm, pgm(5) and ppm(5)).

    Raises
    ------
    UserError
        for text of more values than can be read in reasonable time
    ValueError
        for too few values and values out of range
    """
    tile = picture.tile[0]  # type: ignore[attr-defined]
    shape = (picture.height, picture.width, 3) if picture.mode == "RGB" else (picture.height, picture.width)
    count = int(np.prod(shape))
    stream.seek(tile.offset)
    if tile.codec_name == "ppm_plain":
        if count > _MAX_PLAIN:
            raise UserError(
                f"{name} is text of {count:,} numbers: expected at most {_MAX_PLAIN:,}, save it as binary PNM"
            )
        text = re.sub(rb"#[^\r\n]*", b" ", stream.read(8 * count + _BLOCK))
        if picture.mode == "1":
            return _bits(text, count).reshape(shape)
        # Told how many values to expect, numpy makes up those that are missing.
        values = np.fromstring(text.decode("ascii"), np.int32, sep=" ")[:count]
    else:
        kind = np.dtype("u1" if tile.args[-1] < 256 else ">u2")
        values = np.frombuffer(stream.read(count * kind.itemsize), kind)
    if len(values) != count:
        raise ValueError(f"{len(values)} of {count} values")
    top = 65535 if picture.mode == "I" else 255
    scaled = np.empty(count, np.int32 if picture.mode == "I" else np.uint8)
    for start in range(0, count, _BLOCK):
        block = values[start : start + _BLOCK]
        if block.min() < 0 or (tile.codec_name == "ppm_plain" and block.max() > tile.args[-1]):
            raise ValueError(f"values beyond {tile.args[-1]}")
        scaled[start : start + _BLOCK] = np.minimum(np.rint(block / tile.args[-1] * top), top)
    return scaled.reshape(shape)


def _bits(text: bytes, count: int) -> NDArray[np.uint8]:
    """0 and 255 of a plain PBM, where 1 is black and white space may be left out."""
    digits = np.frombuffer(text.translate(None, b" \t\r\n\v\f"), np.uint8)[:count]
    if len(digits) != count or not ((digits == ord("0")) | (digits == ord("1"))).all():
        raise ValueError("digits that are missing or not 0 and 1")
    return np.where(digits == ord("0"), np.uint8(255), np.uint8(0))
