"""From an image file, on disk or in memory, to the pixels it stores: PNG, TIFF, JPEG, PPM, GIF, BMP, WebP, 2-D NIfTI.

Not here: what the values mean (photograph or label), scaling to 8 bits, writing (all in io).

What a file is, its content decides (a JPEG named .png is read); only NIfTI is told by its suffix.
"""

import gzip
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retina_seg.errors import UserError

MAX_PIXELS = 100_000_000
"""Largest number of pixels that is decoded (10,000 x 10,000); fundus cameras stay below 30 million."""

_MAX_NIFTI_OFFSET = 2**26
"""Largest number of bytes before the pixels of a NIfTI image; a few kB are usual."""
_FORMATS = ("PNG", "TIFF", "JPEG", "PPM", "GIF", "BMP", "WEBP")
_TOO_LARGE = f"reduce it to at most {MAX_PIXELS:,} pixels (no fundus camera makes more)"
_CONVERTED = {
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "1": "L",
}
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
_OTHER_CONTENT = (
    (0, b"%PDF", "a PDF document"),
    (128, b"DICM", "a DICOM file"),
    (0, b"PK\x03\x04", "a ZIP archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (4, b"ftyphei", "a HEIC photograph"),
    (4, b"jP  \r\n", "a JPEG 2000 image"),
    (0, b"\x89HDF", "an HDF5 file"),
)


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
        no such file, folder, empty, no image, unknown format, damaged, too small, more than `MAX_PIXELS`,
        several pages
    """
    if isinstance(source, Path):
        if source.is_dir():
            raise UserError(f"{source} is a folder: expected an image file")
        if not source.is_file():
            raise UserError(f"{source}: no such file")
    try:
        if not _head(source, 1):
            raise UserError(f"{source} is an empty file (0 bytes): copy it again from where it came from")
        if source.name.lower().endswith((".nii", ".nii.gz")):
            return _decode_nifti(source, min_side)
        # pillow warns of large images and broken EXIF: the first is decided here, the second does no harm.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode_picture(source, min_side)
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{source} may not be read: {error.strerror}") from error
    # The decoders raise nearly every kind of exception on damaged files.
    except Exception as error:
        raise UserError(
            f"{source} is damaged or incomplete and cannot be decoded ({error}): copy or export it again"
        ) from error


def _open(source: Source) -> BinaryIO:
    return BytesIO(source.data) if isinstance(source, InMemory) else source.open("rb")


def _head(source: Source, size: int) -> bytes:
    with _open(source) as stream:
        return stream.read(size)


def _decode_picture(source: Source, min_side: int) -> NDArray[Any]:
    with _open(source) as stream:
        try:
            picture = Image.open(stream, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise UserError(f"{source} is too large, more than {MAX_PIXELS:,} pixels: {_TOO_LARGE}") from error
        except UnidentifiedImageError as error:
            if _is_tiff(source):
                return _decode_deep_tiff(source, min_side)
            raise UserError(
                f"{source} is {_content(source)}: expected PNG, TIFF, JPEG, PPM, GIF, BMP, WebP or 2-D NIfTI"
            ) from error
        _check_size(source, picture.size, min_side)
        _check_pages(source, picture)
        if picture.mode == "LAB":
            raise UserError(f"{source} stores CIE L*a*b* colours: export it as RGB")
        if not _is_deep_colour(picture):
            picture.load()  # for TIFF this turns the picture and clears the tag
            array = _palette_colours(picture) if picture.mode == "P" else _as_array(picture)
        elif picture.format == "TIFF":
            return _decode_deep_tiff(source, min_side)
        else:
            array = _decode_opencv(source)
        return _upright(array, _orientation(picture))


def _as_array(picture: Image.Image) -> NDArray[Any]:
    return np.array(picture.convert(_CONVERTED[picture.mode]) if picture.mode in _CONVERTED else picture)


def _palette_colours(picture: Image.Image) -> NDArray[Any]:
    """Colours of a palette image, or its indices where the palette gives all pixels one colour."""
    colours = np.array(picture.convert("RGBA" if "transparency" in picture.info else "RGB"))
    return np.array(picture) if (colours == colours[0, 0]).all() else colours


def _is_deep_colour(picture: Image.Image) -> bool:
    """Whether several channels have more than 8 bits, of which pillow would keep 8."""
    if picture.mode not in ("RGB", "RGBA", "LA", "RGBX"):
        return False
    if picture.format == "TIFF":
        bits_per_sample = picture.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits_per_sample) > 8
    return picture.format == "PNG" and ";16" in str(picture.tile[0].args)  # type: ignore[attr-defined]


def _decode_deep_tiff(source: Source, min_side: int) -> NDArray[Any]:
    """TIFF with more than 8 bits in several channels, or of a number type pillow does not know."""
    import tifffile

    with _open(source) as stream, tifffile.TiffFile(stream) as file:
        page = file.pages.first
        _check_size(source, (page.imagewidth, page.imagelength), min_side)
        if sum(other.shape == page.shape for other in file.pages) > 1:
            raise _several_pages(source, len(file.pages))
        try:
            array = page.asarray()
        except ValueError:  # a compression that tifffile leaves to others
            if page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
                raise
            return _decode_opencv(source)  # turns the picture itself
        if page.axes.startswith("S"):  # planes one after the other
            array = np.moveaxis(array, 0, -1)  # (H, W, C)
        tag = page.tags.get(_ORIENTATION_TAG)
        return _upright(array, int(tag.value) if tag else 1)


def _decode_opencv(source: Source) -> NDArray[Any]:
    import cv2

    with _open(source) as stream:
        array = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("OpenCV cannot decode it")
    if array.ndim == 3 and array.shape[2] in (3, 4):
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]  # BGR(A) -> RGB(A)
    return np.ascontiguousarray(array)


def _decode_nifti(source: Source, min_side: int) -> NDArray[Any]:
    """(W, H[, 1], C) as stored, first axis x, to (H, W, C); the affine and extensions are not read."""
    from nibabel.arrayproxy import ArrayProxy

    with _open(source) as file, _inflated(file, source) as stream:
        header = _nifti_header(stream)
        shape = tuple(header.get_data_shape())
        colours = header.get_data_dtype().fields is not None
        beyond_plane = tuple(n for n in shape[2:] if n != 1)
        if len(shape) < 2 or beyond_plane not in ((), (3,)) or (colours and beyond_plane):
            raise UserError(f"{source} is a NIfTI image of shape {shape}: expected (W, H), (W, H, 1) or (W, H, 3)")
        _check_size(source, shape[:2], min_side)
        if header.get_data_offset() > _MAX_NIFTI_OFFSET:
            raise ValueError(f"{header.get_data_offset()} bytes before the pixels")
        data = np.asarray(ArrayProxy(stream, header, mmap=False))
    if colours:
        data = np.stack([data[name] for name in data.dtype.fields or ()], axis=-1)  # (W, H[, 1], C)
        beyond_plane = data.shape[-1:]
    return np.array(data.reshape(*shape[:2], *beyond_plane).swapaxes(0, 1))  # (H, W[, C])


def _inflated(file: BinaryIO, source: Source) -> BinaryIO | gzip.GzipFile:
    return gzip.GzipFile(fileobj=file) if source.name.lower().endswith(".gz") else file


def _nifti_header(stream: BinaryIO | gzip.GzipFile) -> Any:
    """The header of NIfTI-1 (348 bytes) or NIfTI-2 (540 bytes) alone, so that nothing behind it is inflated."""
    import nibabel

    block = b""
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        block += stream.read(kind.sizeof_hdr - len(block))
        if kind.may_contain_header(block):
            return kind(block)
    raise ValueError("no NIfTI header")


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    return np.ascontiguousarray(_UPRIGHT[orientation](array)) if orientation in _UPRIGHT else array


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF: the picture itself is still good
        return 1


def _check_size(source: Source, size: Sequence[int], min_side: int) -> None:
    width, height = int(size[0]), int(size[1])
    if width * height > MAX_PIXELS:
        raise UserError(f"{source} is too large, {width} x {height} pixels: {_TOO_LARGE}")
    if min(width, height) < min_side:
        raise UserError(f"{source} is too small, {width} x {height} pixels: expected at least {min_side} on each side")


def _check_pages(source: Source, picture: Image.Image) -> None:
    """Other pages must be smaller or larger versions of a TIFF's first, or previews of a camera JPEG."""
    pages = getattr(picture, "n_frames", 1)
    if pages == 1 or picture.format == "MPO":
        return
    first = picture.size
    for number in range(1, pages):
        picture.seek(number)
        if picture.format != "TIFF" or picture.size == first:
            raise _several_pages(source, pages)
    picture.seek(0)


def _several_pages(source: Source, pages: int) -> UserError:
    return UserError(f"{source} holds {pages} pages: expected one photograph, save the page you mean as a file")


def _is_tiff(source: Source) -> bool:
    return _head(source, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _content(source: Source) -> str:
    head = _head(source, 512)
    for offset, magic, name in _OTHER_CONTENT:
        if head[offset:].startswith(magic):
            return name
    text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "a text file" if text else "no image, or one whose head is damaged"
