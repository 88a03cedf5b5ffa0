"""Names for what is not read: other formats by their first bytes, and kinds of JPEG and JPEG 2000 by their heads.

Not here: reading (decode). A sound file of another kind must not be called damaged.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

HEAD = 512
"""Bytes of a file that tell its format."""

_FORMATS = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (128, b"DICM", "a DICOM file"),
    (0, b"PK\x03\x04", "a ZIP archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    *((4, b"ftyp" + brand, "a HEIC photograph") for brand in (b"hei", b"hev", b"heix", b"mif1", b"msf1")),
    (4, b"ftypavi", "an AVIF photograph"),
    (4, b"ftypcrx", "a camera's raw file"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL image"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    *((0, magic, "a JPEG XR image") for magic in (b"II\xbc\x00", b"II\xbc\x01")),
    *((0, magic, "a Photoshop document") for magic in (b"8BPS", b"8BPB")),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"MATLAB 5", "a MATLAB file"),
    (0, b"SIMPLE  =", "a FITS image"),
    (0, b"NRRD", "an NRRD image"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"qoif", "a QOI image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"P7\n", "a PAM image"),
    (0, b"PF\n", "a PFM image in colour"),
    (0, b"FUJIFILM", "a camera's raw file"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"\xd0\xcf\x11\xe0", "an old office document"),
    (344, b"n+1\0", "a NIfTI image without the suffix .nii or .nii.gz"),
    (4, b"n+2\0", "a NIfTI image without the suffix .nii or .nii.gz"),
)
_FRAMES = {  # ITU-T T.81, table B.1; T.87
    0xC3: "a lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    0xCB: "a lossless JPEG with arithmetic coding",
    0xF7: "a JPEG-LS image",
}
_FRAME_MARKERS = (*(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)), 0xF7)
_EXPORT = "which cannot be read here even if it is sound: export it as PNG, TIFF or JPEG of 8 bits"
_MAX_MARKERS = 10_000
_MAX_BOXES = 2**20


def content(head: bytes) -> str:
    """What a file is that is no image of the formats read, from its first `HEAD` bytes."""
    for offset, magic, name in _FORMATS:
        if head[offset:].startswith(magic):
            return name
    text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "a text file" if text else "no image, or one whose head is damaged"


def unread(stream: BinaryIO) -> str | None:
    """Why a JPEG or JPEG 2000 file may not be read though it is sound, as the rest of a sentence, or None."""
    stream.seek(0)
    head = stream.read(12)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(stream)
    if head.startswith(b"\xff\x4f\xff\x51") or head[4:8] == b"jP  ":
        stream.seek(0)
        return _jpeg_2000(stream.read(_MAX_BOXES))
    return None


def rare_bmp(error: str) -> str:
    """What pillow says of a BMP that it does not know, as the rest of a sentence."""
    return f"is a BMP of a rare kind ({error}), {_EXPORT}"


def scans(stream: BinaryIO) -> int:
    """How often a JPEG goes through its pixels; 1 where the first scan has all channels and is the only one."""
    stream.seek(2)
    channels, progressive = 0, False
    for marker, length in _segments(stream):
        if marker in _FRAME_MARKERS:
            progressive, channels = marker in (0xC2, 0xCA), stream.read(6)[-1]
            stream.seek(length - 6, 1)
        elif marker == 0xDA:
            if not progressive and stream.read(1) == bytes([channels]):
                return 1
            count = 1
            while piece := stream.read(2**24):
                count += piece.count(b"\xff\xda")
            return count
        else:
            stream.seek(length, 1)
    return 1


def _segments(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """Marker and length of each segment, the stream behind both; whoever asks moves it on (ITU-T T.81, B.1.1)."""
    for _ in range(_MAX_MARKERS):
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or (length := int.from_bytes(head[2:], "big") - 2) < 0:
            return
        yield head[1], length


def _jpeg(stream: BinaryIO) -> str | None:
    """What the frame header says (ITU-T T.81, B.2)."""
    stream.seek(2)
    for marker, length in _segments(stream):
        if marker in _FRAME_MARKERS:
            frame = stream.read(6).ljust(6, b"\0")
            if marker in _FRAMES:
                return f"is {_FRAMES[marker]}, {_EXPORT}"
            if frame[0] != 8 or frame[5] not in (1, 3, 4):
                return f"is a JPEG of {frame[0]} bits and {frame[5]} channels, {_EXPORT}"
            return None
        stream.seek(length, 1)
    return None


def _jpeg_2000(head: bytes) -> str | None:
    """What the size marker says (ITU-T T.800, A.5.1)."""
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(head) < start + 43:
        return None
    channels, bits = *struct.unpack_from(">H", head, start + 40), (head[start + 42] & 0x7F) + 1
    if channels > 4 or (channels > 1 and bits > 8):
        return f"is a JPEG 2000 image of {bits} bits in {channels} channels, {_EXPORT}"
    return None
