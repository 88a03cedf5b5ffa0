"""From what pillow opened to an array: palettes as their colours, inks and YCbCr as RGB, alpha not multiplied in.

Not here: which file pillow is given (decode, decode_tiff), depths that it cuts to 8 bits (decode_png, decode_tiff).
"""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

_CONVERTED = {
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "1": "L",
}
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
