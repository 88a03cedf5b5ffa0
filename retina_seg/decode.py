"""From an image file, on disk or in memory, to the pixels it stores; which file is which format.

Not here: what the values mean (photograph or label), scaling to 8 bits, writing (all in io), the formats with
more to them than pillow does (decode_png, decode_tiff, decode_nifti).

What a file is, its content decides (a JPEG named .png is read); only NIfTI is told by its suffix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from retina_seg import decode_names, decode_nifti, decode_pillow, decode_png, decode_pnm, decode_tags, decode_tiff
from retina_seg.decode_limits import (
    MAX_PIXELS,
    Parsed,
    check_bytes,
    check_file,
    check_scans,
    check_size,
    several_pages,
    too_many_pixels,
)
from retina_seg.decode_nifti import Placement
from retina_seg.errors import UserError

__all__ = ["MAX_PIXELS", "InMemory", "Placement", "Source", "decode", "placement"]

_FORMATS = ("JPEG", "PPM", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000")
_EXPECTED = "expected PNG, TIFF, JPEG, PPM, GIF, BMP, WebP, AVIF, JPEG 2000 or 2-D NIfTI"
_IF_BUILT = {"an AVIF photograph": "avif", "a JPEG 2000 image": "jpg_2000"}  # features of pillow
_ORIENTATION_TAG = 274  # EXIF 2.32 and TIFF 6.0: values 1 to 8
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True, repr=False)
class InMemory:
    """An image file that is not on the disk, such as an upload; nothing that reads it writes to the disk.

    Attributes
    ----------
    name : its file name, which errors and provenance show; the suffix tells NIfTI (.nii, .nii.gz).
    data : its content.
    """

    name: str
    data: bytes

    def __repr__(self) -> str:
        return f"InMemory({self.name!r}, {len(self.data)} bytes)"

    def __str__(self) -> str:
        return self.name


Source = Path | InMemory
"""Where an image file is; as text, what errors call it."""


def decode(source: Source, *, min_side: int = 1) -> NDArray[Any]:
    """Pixels as stored, turned upright (EXIF, TIFF orientation); sizes are checked before decoding.

    Parameters
    ----------
    source : image file, by its path or in memory
    min_side : a smaller width or height is an error

    Returns
    -------
    (H, W) or (H, W, C), of any number type, a copy; C = 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Palettes
    are resolved, CMYK is converted without a colour profile.

    Raises
    ------
    UserError
        no such file, folder, empty, no image, unknown format or compression, damaged, too small, more than
        `MAX_PIXELS` or the bytes of `decode_limits`, several pages
    """
    _check_there(source)
    try:
        with _open(source) as stream:
            check_file(source, stream.seek(0, 2))
            stream.seek(0)
            if decode_nifti.is_nifti_name(source.name):
                array = decode_nifti.pixels(stream, source, min_side)
            else:
                with decode_pillow.no_warnings():
                    array = _decode_picture(stream, source, min_side)
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{source} may not be read: {error.strerror}") from error
    except Image.DecompressionBombError as error:
        raise too_many_pixels(source) from error
    # The decoders raise nearly every kind of exception on damaged files.
    except Exception as error:
        raise _damaged(source, error) from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise _damaged(source, f"values of shape {array.shape}")
    return array


def placement(source: Source) -> Placement | None:
    """Where a NIfTI image lies in space, from its header alone; None for all other files and damaged headers."""
    if not decode_nifti.is_nifti_name(source.name):
        return None
    try:
        _check_there(source)
        with _open(source) as stream:
            return decode_nifti.placement(stream)
    except Exception:  # of every kind for damaged headers; `decode` tells what is wrong
        return None


def _check_there(source: Source) -> None:
    if isinstance(source, Path):
        if source.is_dir():
            raise UserError(f"{source} is a folder: expected an image file")
        if not source.is_file():
            raise UserError(f"{source}: no such file")


def _damaged(source: Source, why: object) -> UserError:
    return UserError(f"{source} is damaged or incomplete and cannot be decoded ({why}): copy or export it again")


def _open(source: Source) -> BinaryIO:
    return BytesIO(source.data) if isinstance(source, InMemory) else source.open("rb")


def _decode_picture(stream: BinaryIO, source: Source, min_side: int) -> NDArray[Any]:
    head = stream.read(decode_names.HEAD)
    stream.seek(0)
    if decode_tags.is_tiff(head):
        array, orientation = decode_tiff.pixels(stream, source, min_side)
        return _upright(array, orientation)
    if head.startswith(decode_png.MAGIC):
        file = decode_png.essential(stream)
        picture = Image.open(file, formats=("PNG",))
        _check_picture(picture, source, min_side)
        if not decode_png.is_deep_colour(picture):
            return _upright(decode_pillow.array(picture), _orientation(picture))
        check_bytes(source, *picture.size, 2 * len(picture.getbands()))
        return _upright(decode_png.deep_colours(file, picture), _orientation(picture))
    try:
        return _decode_other(stream, source, min_side)
    except UnidentifiedImageError as error:
        content = decode_names.content(head)
        export = ", export it as one of these" if content.endswith(("image", "photograph")) else ""
        reason = decode_names.unread(stream) or f"is {content}: {_EXPECTED}{export}"
        if content in _IF_BUILT and features.check(_IF_BUILT[content]):
            raise ValueError(f"{content} whose head is damaged") from error
        raise UserError(f"{source} {reason}") from error
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        if unread := decode_names.unread(stream):
            raise UserError(f"{source} {unread}") from error
        if (masked := decode_pillow.bmp_by_masks(stream, source, min_side)) is not None:
            return masked
        if str(error).startswith("Unsupported BMP"):
            raise UserError(f"{source} {decode_names.rare_bmp(str(error))}") from error
        raise


def _decode_other(stream: BinaryIO, source: Source, min_side: int) -> NDArray[Any]:
    parsed = Parsed(stream)
    picture = Image.open(cast(BinaryIO, parsed), formats=_FORMATS)
    _check_picture(picture, source, min_side)
    if picture.format == "JPEG2000":
        if reason := decode_names.unread(stream):
            raise UserError(f"{source} {reason}")
        check_bytes(source, *picture.size, 4 * len(picture.getbands()))  # numbers of 32 bits while it is decoded
    if picture.mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        raise UserError(
            f"{source} is a JPEG of four inks (CMYK) without Adobe's marker, so that nobody can know whether 0 is "
            "no ink or all of it: export it as RGB"
        )
    if picture.format == "WEBP":
        check_bytes(source, *picture.size, 8)  # pillow and libwebp hold it several times
    if picture.format in ("JPEG", "MPO"):
        check_scans(source, *picture.size, decode_names.scans(stream))
    if picture.tile and picture.tile[0].codec_name != "bmp_rle":  # pillow goes through its runs in Python
        parsed.parsed()
    if decode_pnm.is_slow(picture):
        return decode_pnm.pixels(stream, picture, source)
    return _upright(decode_pillow.array(picture), _orientation(picture))


def _check_picture(picture: Image.Image, source: Source, min_side: int) -> None:
    """Size and pages; the previews in a camera's JPEG (MPO) are no pages."""
    check_size(source, *picture.size, min_side)
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        # To count the frames of a GIF takes as long as to go through them.
        raise several_pages(source, "several" if picture.format == "GIF" else picture.n_frames)  # type: ignore[attr-defined]


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    return np.ascontiguousarray(_UPRIGHT[orientation](array)) if orientation in _UPRIGHT else array


def _orientation(picture: Image.Image) -> int:
    """That of EXIF; editors leave XMP packets behind that say another, which no viewer follows."""
    for packet in ("xmp", "XML:com.adobe.xmp"):
        picture.info.pop(packet, None)
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF: the picture itself is still good
        return 1
