"""2-D NIfTI images: pixels, and where they lie in space, by their header; plain and gzip, decided by the content.

Not here: writing (io.nifti), other formats (decode).
"""

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from retina_seg.decode_limits import check_bytes, check_size
from retina_seg.errors import UserError

_MAX_OFFSET = 2**26
"""Largest number of bytes before the pixels, and of bytes behind them; a few kB are usual before, none behind."""
_MAX_MEMBERS = 100_000  # of a gzip file; bgzip makes one for each 64 kB
_PIECE = 2**16
_HEADER_SIZES = (348, 540)  # NIfTI-1, NIfTI-2
_SILENT = logging.Logger("nifti")  # nibabel tells standard error what it repairs in a header
_SILENT.disabled = True
GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Header fields that say where an image lies (NIfTI-1.1: methods 1 to 3 and the unit)."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a NIfTI image lies in space.

    Attributes
    ----------
    affine : float64 (4, 4), from index (x, y, 0, 1), x the column and y the row of the array as it is read, to
        space in `unit`; that of the sform, else the qform, else the pixel size, as nibabel and viewers choose it.
    unit : "mm", "micron", "meter" or "unknown".
    fields : the header's values for `GEOMETRY`, from which `io.nifti` writes the same sform, qform and codes.
    """

    affine: NDArray[np.float64]
    unit: str
    fields: Mapping[str, NDArray[Any]] = field(repr=False)


def is_nifti_name(name: str) -> bool:
    """Whether a file of this name is taken for NIfTI: its suffix decides."""
    return name.lower().endswith((".nii", ".nii.gz"))


def placement(stream: BinaryIO) -> Placement:
    """Placement of an image, from the header alone; ValueError and other errors where there is none."""
    header = _header(stream)
    return Placement(
        np.array(header.get_best_affine(), np.float64),
        str(header.get_xyzt_units()[0]),
        {name: np.array(header[name]) for name in GEOMETRY},
    )


def pixels(stream: BinaryIO, name: object, min_side: int) -> NDArray[Any]:
    """(W, H[, 1], C) as stored, first axis x, to (H, W[, C]), scaled; the affine and extensions are not read.

    A compressed file is inflated to its end, as far as an honest one goes, so that its checksums are verified.

    Raises
    ------
    UserError
        for other shapes and number types, and for what is too large or small
    ValueError, zlib.error, EOFError
        for damaged files
    """
    from nibabel.volumeutils import apply_read_scaling

    header = _header(stream)
    shape, dtype = tuple(header.get_data_shape()), header.get_data_dtype()
    beyond_plane = tuple(n for n in shape[2:] if n != 1)
    if len(shape) < 2 or beyond_plane not in ((), (3,)) or (dtype.fields and beyond_plane):
        raise UserError(f"{name} is a NIfTI image of shape {shape}: expected (W, H), (W, H, 1) or (W, H, 3)")
    if not dtype.fields and dtype.kind not in "iuf":
        raise UserError(f"{name} holds numbers of type {dtype}: expected grey or RGB values")
    slope, intercept = _scaling(header)
    channels = 3 if beyond_plane else 1
    width, height = shape[:2]
    check_size(name, width, height, min_side)
    scaled = 1 if (slope, intercept) == (1, 0) else 8 / dtype.itemsize  # scaled values are float64
    check_bytes(name, width, height, channels * dtype.itemsize * max(1, scaled))
    offset, count = header.get_data_offset(), width * height * channels
    if not 0 <= offset <= _MAX_OFFSET:
        raise ValueError(f"{offset} bytes before the pixels")
    stored = np.frombuffer(_content(stream, offset + count * dtype.itemsize), dtype, count, offset)
    across = stored.reshape(width, height, *beyond_plane, order="F")  # (W, H[, C])
    if dtype.fields:
        across = np.stack([across[channel] for channel in dtype.fields], axis=-1)  # (W, H, C)
    elif (slope, intercept) != (1, 0):
        across = apply_read_scaling(across, np.float64(slope), np.float64(intercept))
    return np.array(across.swapaxes(0, 1), order="C")  # (H, W[, C])


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = header.get_slope_inter()
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _header(stream: BinaryIO) -> Any:
    """The header of NIfTI-1 or NIfTI-2 alone, so that nothing behind it is inflated."""
    import nibabel

    stream.seek(0)
    block = _inflated(stream, max(_HEADER_SIZES)) if _is_gzip(stream) else stream.read(max(_HEADER_SIZES))
    for kind, size in zip((nibabel.Nifti1Header, nibabel.Nifti2Header), _HEADER_SIZES, strict=True):
        if len(block) >= size and kind.may_contain_header(block[:size]):
            header = kind(bytes(block[:size]), check=False)
            header.check_fix(logger=_SILENT, error_level=40)  # the level of nibabel.load
            return header
    raise ValueError("no NIfTI header")


def _is_gzip(stream: BinaryIO) -> bool:
    magic = stream.read(2)
    stream.seek(0)
    return magic == b"\x1f\x8b"


def _content(stream: BinaryIO, size: int) -> bytes | bytearray:
    """The first `size` bytes, and for gzip what follows, so that its checksum is met."""
    stream.seek(0)
    content = _inflated(stream, size, to_the_end=True) if _is_gzip(stream) else stream.read(size)
    if len(content) < size:
        raise ValueError(f"{len(content)} of {size} bytes")
    return content


def _inflated(stream: BinaryIO, size: int, *, to_the_end: bool = False) -> bytearray:
    """The first `size` bytes of a gzip file; `to_the_end` verifies all checksums and reads on, but keeps no more."""
    out, beyond, members, waiting = bytearray(), 0, 0, b""
    inflater = zlib.decompressobj(wbits=31)
    while to_the_end or len(out) < size:
        waiting = waiting or stream.read(_PIECE)
        if not waiting:
            break
        if inflater.eof:  # another member, or padding with zeros
            waiting = waiting.lstrip(b"\0")
            if not waiting:
                continue
            members += 1
            if members > _MAX_MEMBERS:
                raise ValueError(f"a gzip file of more than {_MAX_MEMBERS} pieces")
            inflater = zlib.decompressobj(wbits=31)
        piece = inflater.decompress(waiting, _PIECE)
        waiting = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        beyond += max(0, len(piece) - (size - len(out)))
        if beyond > _MAX_OFFSET:
            raise ValueError(f"more than {_MAX_OFFSET} bytes behind the pixels")
        out += piece[: size - len(out)]
    if to_the_end and not inflater.eof:
        raise EOFError("the compressed data ends too early")
    return out
