"""PNG: the blocks of a file that its pixels need, with their checksums verified; colours of 16 bits.

Not here: colours of 8 bits and grey, which pillow reads (decode).
"""

import struct
import zlib
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAGIC = b"\x89PNG\r\n\x1a\n"

_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"eXIf")
_KEPT_TEXT = b"Raw profile type exif\0"  # how ImageMagick stored EXIF before there was eXIf
_MAX_TEXT = 2**20
_MAX_BLOCKS = 500_000  # writers put 8 kB and more in each


def essential(stream: BinaryIO) -> BytesIO:
    """The file without what its pixels do not need: texts, colour profiles, further frames, private blocks.

    Such blocks can be damaged, or inflate to any size, while the pixels are sound.

    Raises
    ------
    ValueError
        for a block that ends too early or does not match its checksum (PNG specification, 5.3)
    """
    out = BytesIO()
    out.write(stream.read(len(MAGIC)))
    pixels_met = False
    for _ in range(_MAX_BLOCKS):
        head = stream.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            if pixels_met:
                break
            raise ValueError(f"a block of the unknown kind {kind!r}")
        if kind in _KEPT and not (pixels_met and kind == b"fcTL"):
            content, checksum = stream.read(length), stream.read(4)
            if len(content) < length or len(checksum) < 4:
                raise ValueError(f"the block {kind.decode()} ends too early")
            if checksum != struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))):
                raise ValueError(f"the block {kind.decode()} does not match its checksum")
            out.writelines((head, content, checksum))
        elif kind in (b"tEXt", b"zTXt") and length <= _MAX_TEXT:
            content, checksum = stream.read(length), stream.read(4)
            if content.startswith(_KEPT_TEXT):
                out.writelines((head, content, checksum))
        else:
            stream.seek(length + 4, 1)
        pixels_met |= kind == b"IDAT"
        if kind == b"IEND":
            break
    else:
        raise ValueError(f"it consists of more than {_MAX_BLOCKS:,} blocks")
    out.seek(0)
    return out


def is_deep_colour(picture: Image.Image) -> bool:
    """Whether several channels have 16 bits, of which pillow would keep 8."""
    return picture.mode != "I;16" and ";16" in str(picture.tile[0].args)  # type: ignore[attr-defined]


def deep_colours(file: BytesIO, picture: Image.Image) -> NDArray[np.uint16]:
    """All 16 bits, (H, W, C), C = 2 (grey, alpha), 3 or 4; `picture` is what pillow opened from `file`.

    Pillow keeps the first of two bytes; told that the second is the first, it gives the second.
    """
    if picture.tile[0].args == "LA;16B":  # type: ignore[attr-defined]
        pairs = _read_as(file, "RGBA")  # (H, W, 4): both bytes of grey, both bytes of alpha
        return np.ascontiguousarray(pairs).view(">u2").astype(np.uint16)  # (H, W, 2)
    deep = _read_as(file, f"{picture.mode};16B").astype(np.uint16)
    deep <<= 8
    deep |= _read_as(file, f"{picture.mode};16L")
    return deep


def _read_as(file: BytesIO, layout: str) -> NDArray[np.uint8]:
    file.seek(0)
    picture = Image.open(file, formats=("PNG",))
    picture.tile = [picture.tile[0]._replace(args=layout)]
    return np.array(picture)
