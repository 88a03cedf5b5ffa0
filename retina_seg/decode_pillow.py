"""From what pillow opened to an array: palettes as their colours, inks and YCbCr as RGB, alpha not multiplied in.

And the BMP layouts that pillow does not know.

Not here: which file pillow is given (decode, decode_tiff), depths that it cuts to 8 bits (decode_png, decode_tiff).
"""

import ctypes
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from retina_seg.decode_limits import check_bytes, check_size
from retina_seg.errors import UserError

_CONVERTED = {
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "1": "L",
}
_BMP_HEAD = 70  # bytes to the end of the masks, where they stand in all headers of 40 bytes and more
_MASKS, _MASKS_WITH_ALPHA = 3, 6  # codes of the field "compression"
_BLOCK = 2**20  # pixels that are taken at once
_lock = threading.Lock()
_readers = 0
_filters = warnings.catch_warnings()

# Without a handler of the application, Python prints what libraries report of damaged files.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def array(picture: Image.Image) -> NDArray[Any]:
    """Decode a picture, (H, W) or (H, W, C); a palette that gives all pixels one colour leaves its indices."""
    picture.load()
    if picture.mode != "P":
        return np.array(picture.convert(_CONVERTED[picture.mode]) if picture.mode in _CONVERTED else picture)
    colours = np.array(picture.convert("RGBA" if "transparency" in picture.info else "RGB"))
    return np.array(picture) if (colours == colours[0, 0]).all() else colours


def bmp_by_masks(stream: BinaryIO, name: object, min_side: int) -> NDArray[np.uint8] | None:
    """(H, W, 3), or (H, W, 4) with alpha, of a BMP of 16 or 32 bits with masks, else None.

    Its header says by masks which bits are which colour; pillow knows some of the layouts.

    Raises
    ------
    UserError
        for colours whose bits are apart or missing, and for what is too large or small
    ValueError
        for damaged files
    """
    stream.seek(0)
    head = stream.read(_BMP_HEAD).ljust(_BMP_HEAD, b"\0")
    start, header, width, height, _, bits, kind = struct.unpack_from("<IIiiHHI", head, 10)
    if head[:2] != b"BM" or header < 40 or kind not in (_MASKS, _MASKS_WITH_ALPHA) or bits not in (16, 32):
        return None
    masks = struct.unpack_from("<4I" if header >= 56 or kind == _MASKS_WITH_ALPHA else "<3I", head, 54)
    masks = masks if masks[3:] != (0,) else masks[:3]
    if not all(_is_one_run(mask) and mask < 2**bits for mask in masks):
        raise UserError(
            f"{name} is a BMP of {bits} bits with the masks {', '.join(f'{mask:#x}' for mask in masks)}, which cannot "
            "be read here even if it is sound: export it as PNG"
        )
    rows = abs(height)
    check_size(name, width, rows, min_side)
    check_bytes(name, width, rows, bits // 8 + len(masks))
    stride = -(-width * bits // 32) * 4
    stream.seek(start)
    stored = stream.read(stride * rows)
    if width < 1 or rows < 1 or len(stored) < stride * rows:
        raise ValueError(f"{len(stored)} of {stride * rows} bytes")
    lines = np.frombuffer(stored, np.uint8).reshape(rows, stride)[:, : width * bits // 8]
    out = np.empty((rows, width, len(masks)), np.uint8)
    for top in range(0, rows, max(1, _BLOCK // width)):
        part = slice(top, top + max(1, _BLOCK // width))
        words = np.ascontiguousarray(lines[part]).view(f"<u{bits // 8}").astype(np.uint32)  # (rows, W)
        for channel, mask in enumerate(masks):
            low = mask & -mask
            out[part, :, channel] = np.rint((words & np.uint32(mask)) // np.uint32(low) * (255 / (mask // low)))
    return out if height < 0 else out[::-1].copy()


def _is_one_run(mask: int) -> bool:
    """Whether the bits of a mask lie side by side, and there are any."""
    filled = mask // (mask & -mask) if mask else 0
    return filled > 0 and filled & (filled + 1) == 0


@contextmanager
def no_warnings() -> Iterator[None]:
    """Pillow's warnings of large images and of broken EXIF: the first is decided before, the second does no harm.

    Python's filters of warnings belong to all threads: the first reader of several sets them, the last puts
    back what was there.
    """
    global _readers, _filters
    with _lock:
        if _readers == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore")
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.__exit__(None, None, None)


def _silence_libtiff() -> None:
    """The libtiff in pillow's wheels prints its errors; pillow raises them as well, which is enough."""
    site = Path(PIL.__file__).parent
    for library in (*site.parent.glob("pillow.libs/libtiff*"), *site.glob(".dylibs/libtiff*")):
        try:
            loaded = ctypes.CDLL(str(library))
            loaded.TIFFSetErrorHandler(None)
            loaded.TIFFSetWarningHandler(None)
        except (OSError, AttributeError):
            continue


_silence_libtiff()
