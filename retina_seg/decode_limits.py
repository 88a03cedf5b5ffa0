"""Limits of what is decoded: pixels, bytes, pages, the size of a file, and what a file beyond them is told.

Not here: the formats (decode, decode_png, decode_tiff, decode_nifti).
"""

import io
import time
from typing import Any, BinaryIO

from retina_seg.errors import UserError

MAX_PIXELS = 100_000_000
"""Largest number of pixels that is decoded (10,000 x 10,000); fundus cameras stay below 30 million."""
MAX_BYTES = 6 * MAX_PIXELS
"""Largest number of bytes that pixels may take, in a file and in memory: RGB of 16 bits at `MAX_PIXELS`."""
MAX_FILE = MAX_BYTES + 150_000_000
"""Largest image file in bytes: `MAX_BYTES` without compression, and some room for what editors add."""
MAX_PAGES = 100
"""Pages that are looked at in one file; a photograph with its previews has at most about ten."""

_MAX_SCANNED = 50 * MAX_PIXELS
_USUAL_SCANS = 20
_PARSING_SECONDS = 2.0  # of computing; the blocks of an honest file take some milliseconds
_TOO_LARGE = f"reduce it to at most {MAX_PIXELS:,} pixels (no fundus camera makes more)"


def check_file(name: object, size: int) -> None:
    """UserError for a file of no bytes or of more than `MAX_FILE`."""
    if size == 0:
        raise UserError(f"{name} is an empty file (0 bytes): copy it again from where it came from")
    if size > MAX_FILE:
        raise UserError(
            f"{name} is too large, {size:,} bytes: expected an image file of at most {MAX_FILE:,}, "
            "export the photograph with compression (PNG, TIFF)"
        )


def check_size(name: object, width: int, height: int, min_side: int) -> None:
    """UserError for more than `MAX_PIXELS` pixels and for a side below `min_side`."""
    if width * height > MAX_PIXELS:
        raise UserError(f"{name} is too large, {width} x {height} pixels: {_TOO_LARGE}")
    if min(width, height) < min_side:
        raise UserError(f"{name} is too small, {width} x {height} pixels: expected at least {min_side} on each side")


def check_bytes(name: object, width: int, height: int, bytes_per_pixel: float) -> None:
    """UserError for pixels that take more than `MAX_BYTES`."""
    size = width * height * bytes_per_pixel
    if size > MAX_BYTES:
        raise UserError(
            f"{name} is too large, {width} x {height} pixels of {bytes_per_pixel:g} bytes ({size / 1e9:.1f} GB): "
            f"expected at most {MAX_BYTES / 1e9:.1f} GB, reduce it or export it with fewer bits in each channel"
        )


def check_scans(name: object, width: int, height: int, scans: int) -> None:
    """UserError for a JPEG that goes through its pixels again and again; a progressive one does about ten times."""
    if width * height * scans > _MAX_SCANNED and scans > _USUAL_SCANS:
        raise UserError(
            f"{name} is a JPEG of {width} x {height} pixels in {scans} scans, which takes too long: export it again"
        )


def too_many_pixels(name: object) -> UserError:
    """What a file is told whose number of pixels a decoder refuses without saying it."""
    return UserError(f"{name} is too large, more than {MAX_PIXELS:,} pixels: {_TOO_LARGE}")


def several_pages(name: object, pages: int | str) -> UserError:
    """What a file is told of which nobody can know the page that is meant."""
    return UserError(f"{name} holds {pages} pages: expected one photograph, save the page you mean as a file")


class Parsed(io.RawIOBase):
    """A stream that stops a reader which goes through more blocks than an honest file has.

    Files can consist of millions of empty blocks, which readers written in Python take one by one. Computing
    time of the own thread is counted, not waiting for a slow disk; `ValueError` beyond the limit.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._until: float | None = time.thread_time() + _PARSING_SECONDS

    def parsed(self) -> None:
        """From here on pixels are decoded, whose number is limited: no limit any more."""
        self._until = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Bytes as the stream has them."""
        if self._until is not None and time.thread_time() > self._until:
            raise ValueError("it consists of far too many blocks")
        return self._stream.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move as the stream does."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Where the stream is."""
        return self._stream.tell()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        """As `read`; pillow reads some heads by lines."""
        self.read(0)
        return self._stream.readline(-1 if size is None else size)

    def readinto(self, buffer: Any, /) -> int:
        """As `read`."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
