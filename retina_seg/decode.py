"""From an image file to the pixels it stores: PNG, TIFF, JPEG, PPM, GIF, BMP, WebP, 2-D NIfTI.

Not here: what the values mean (photograph or label), scaling to 8 bits, writing (all in io).

What a file is, its content decides (a JPEG named .png is read); only NIfTI is told by its suffix.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retina_seg.errors import UserError

MAX_PIXELS = 100_000_000
"""Largest number of pixels that is decoded (10,000 x 10,000); fundus cameras stay below 30 million."""

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


def decode(path: Path, *, min_side: int = 1) -> NDArray[Any]:
    """Pixels as stored, turned upright (EXIF, TIFF orientation); sizes are checked before decoding.

    Parameters
    ----------
    path : image file
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
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected an image file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is an empty file (0 bytes): copy it again from where it came from")
        if path.name.lower().endswith((".nii", ".nii.gz")):
            return _decode_nifti(path, min_side)
        # pillow warns of large images and broken EXIF: the first is decided here, the second does no harm.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode_picture(path, min_side)
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path} may not be read: {error.strerror}") from error
    # The decoders raise nearly every kind of exception on damaged files.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or incomplete and cannot be decoded ({error}): copy or export it again"
        ) from error


def _decode_picture(path: Path, min_side: int) -> NDArray[Any]:
    try:
        opened = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large, more than {MAX_PIXELS:,} pixels: {_TOO_LARGE}") from error
    except UnidentifiedImageError as error:
        if _is_tiff(path):
            return _decode_deep_tiff(path, min_side)
        raise UserError(
            f"{path} is {_content(path)}: expected PNG, TIFF, JPEG, PPM, GIF, BMP, WebP or 2-D NIfTI"
        ) from error
    with opened as picture:
        _check_size(path, picture.size, min_side)
        _check_pages(path, picture)
        if picture.mode == "LAB":
            raise UserError(f"{path} stores CIE L*a*b* colours: export it as RGB")
        if not _is_deep_colour(picture):
            picture.load()  # for TIFF this turns the picture and clears the tag
            array = _palette_colours(picture) if picture.mode == "P" else _as_array(picture)
        elif picture.format == "TIFF":
            return _decode_deep_tiff(path, min_side)
        else:
            array = _decode_opencv(path)
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


def _decode_deep_tiff(path: Path, min_side: int) -> NDArray[Any]:
    """TIFF with more than 8 bits in several channels, or of a number type pillow does not know."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        _check_size(path, (page.imagewidth, page.imagelength), min_side)
        if sum(other.shape == page.shape for other in file.pages) > 1:
            raise _several_pages(path, len(file.pages))
        try:
            array = page.asarray()
        except ValueError:  # a compression that tifffile leaves to others
            if page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
                raise
            return _decode_opencv(path)  # turns the picture itself
        if page.axes.startswith("S"):  # planes one after the other
            array = np.moveaxis(array, 0, -1)  # (H, W, C)
        tag = page.tags.get(_ORIENTATION_TAG)
        return _upright(array, int(tag.value) if tag else 1)


def _decode_opencv(path: Path) -> NDArray[Any]:
    import cv2

    # From memory: cv2.imread cannot open every unicode path on every system.
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("OpenCV cannot decode it")
    if array.ndim == 3 and array.shape[2] in (3, 4):
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]  # BGR(A) -> RGB(A)
    return np.ascontiguousarray(array)


def _decode_nifti(path: Path, min_side: int) -> NDArray[Any]:
    """(W, H[, 1], C) as stored, first axis x, to (H, W, C); the affine is not used."""
    import nibabel

    volume = nibabel.load(path)
    shape = tuple(volume.shape)
    colours = volume.get_data_dtype().fields is not None
    beyond_plane = tuple(n for n in shape[2:] if n != 1)
    if len(shape) < 2 or beyond_plane not in ((), (3,)) or (colours and beyond_plane):
        raise UserError(f"{path} is a NIfTI image of shape {shape}: expected (W, H), (W, H, 1) or (W, H, 3)")
    _check_size(path, shape[:2], min_side)
    data = np.asarray(volume.dataobj)
    if colours:
        data = np.stack([data[name] for name in data.dtype.fields or ()], axis=-1)  # (W, H[, 1], C)
        beyond_plane = data.shape[-1:]
    return np.array(data.reshape(*shape[:2], *beyond_plane).swapaxes(0, 1))  # (H, W[, C])


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    return np.ascontiguousarray(_UPRIGHT[orientation](array)) if orientation in _UPRIGHT else array


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF: the picture itself is still good
        return 1


def _check_size(path: Path, size: Sequence[int], min_side: int) -> None:
    width, height = int(size[0]), int(size[1])
    if width * height > MAX_PIXELS:
        raise UserError(f"{path} is too large, {width} x {height} pixels: {_TOO_LARGE}")
    if min(width, height) < min_side:
        raise UserError(f"{path} is too small, {width} x {height} pixels: expected at least {min_side} on each side")


def _check_pages(path: Path, picture: Image.Image) -> None:
    """Other pages must be smaller or larger versions of a TIFF's first, or previews of a camera JPEG."""
    pages = getattr(picture, "n_frames", 1)
    if pages == 1 or picture.format == "MPO":
        return
    first = picture.size
    for number in range(1, pages):
        picture.seek(number)
        if picture.format != "TIFF" or picture.size == first:
            raise _several_pages(path, pages)
    picture.seek(0)


def _several_pages(path: Path, pages: int) -> UserError:
    return UserError(f"{path} holds {pages} pages: expected one photograph, save the page you mean as a file")


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    for offset, magic, name in _OTHER_CONTENT:
        if head[offset:].startswith(magic):
            return name
    text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "a text file" if text else "no image, or one whose head is damaged"
