"""Photographs and labels in; masks, probabilities, pictures, NIfTI, JSON out, as bytes or as files.

What is encoded holds the pixels given and nothing else. Files are written whole or not at all.

Not here: how file formats are decoded (decode), data sets (datasets), figures (report).
"""

import csv
import gzip
import json
import math
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retina_seg.decode import InMemory, Source, decode
from retina_seg.errors import UserError

MIN_SIDE = 64
"""Shortest side, in pixels, of what can be a fundus photograph."""
IMAGE_SUFFIXES = (
    *(".png", ".tif", ".tiff", ".jpg", ".jpeg", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".gif", ".bmp", ".webp", ".nii", ".nii.gz"),
)
"""What `find_images` takes from a folder, in lower case; upper case is taken too."""

StrPath = str | os.PathLike[str]


def as_source(given: StrPath | InMemory) -> Source:
    """A path for what names a file, an `InMemory` as it is; `.name` is the file name of both."""
    return given if isinstance(given, InMemory) else Path(given)


def read_image(source: StrPath | InMemory, *, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Read one fundus photograph, by its path or in memory: PNG, TIFF, JPEG, PPM, GIF, BMP, WebP or 2-D NIfTI.

    EXIF and TIFF orientation is applied. Grey becomes three equal channels, palettes become their colours,
    CMYK is converted without a colour profile; colour profiles are ignored. With alpha, colours are laid on
    black, so that what was cut out is dark like the border of a photograph; an alpha channel that has one
    value everywhere is ignored.

    More than 8 bits: integers are divided by the largest value of the smallest depth of 8, 10, 12, 14, 16
    bits that holds the image's maximum (12-bit cameras store their values in 16-bit files), floats up to 1
    are multiplied by 255, floats beyond are taken like integers. One factor serves the whole image, so
    colours keep their ratios.

    Several pages: TIFF pages of another size than the first (thumbnails) are ignored, as are the previews in
    camera JPEGs (MPO); an animation or a stack of equal pages is an error, as nobody can know the page meant.

    NIfTI: shape (W, H), (W, H, 1) or (W, H[, 1], 3), grey or RGB data type; the first axis is x (column, left
    to right), the second y (row, top to bottom), as `write_nifti` writes them; the affine is not used.

    Returns
    -------
    uint8 (H, W, 3), RGB, each side at least `min_side`, at most `decode.MAX_PIXELS` pixels

    Raises
    ------
    UserError
        for all that cannot be a fundus photograph: no such file, folder, no image, damaged, too small, too
        large (decided before decoding), one colour everywhere, several pages, negative or non-finite values
    """
    source = as_source(source)
    image = _to_uint8(_on_black(decode(source, min_side=min_side)), source)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if (image == image[0, 0]).all():
        colour = f"one colour {tuple(image[0, 0].tolist())}" if image.any() else "black"
        raise UserError(f"{source} is {colour} everywhere: expected a fundus photograph")
    return np.ascontiguousarray(image)


def read_mask(source: StrPath | InMemory) -> NDArray[np.bool_]:
    """Read a two-valued label, by its path or in memory: 0/255, 0/1, 1-bit, palette, or any two colours.

    Of two values the larger is True, of two colours the brighter. Where a palette gives its indices one and
    the same colour, the indices decide. A label with a single value is False everywhere if that is 0 (black),
    else True everywhere.

    Returns
    -------
    bool (H, W)

    Raises
    ------
    UserError
        for unreadable files and for more than two values (greyscale, JPEG, interpolated labels)
    """
    source = as_source(source)
    array = _on_black(decode(source))
    values = array.reshape(*array.shape[:2], -1)  # (H, W, C)
    first = values[0, 0]
    differs = np.logical_or.reduce([values[..., channel] != first[channel] for channel in range(values.shape[2])])
    if not differs.any():
        return np.full(differs.shape, bool(first.any()))
    second = values[differs][0]
    if (values[differs] != second).any():
        raise UserError(
            f"{source} has more than two values: expected a label image with two (0 and 255, say). "
            "Save labels without interpolation and as PNG, never as JPEG"
        )
    brighter = (float(second.sum()), *second.tolist()) > (float(first.sum()), *first.tolist())
    return differs if brighter else ~differs


def _on_black(array: NDArray[Any]) -> NDArray[Any]:
    """Remove alpha, (H, W, 2) -> (H, W) and (H, W, 4) -> (H, W, 3); the largest alpha counts as opaque."""
    if array.ndim == 2 or array.shape[2] == 3:
        return array
    colours, alpha = array[..., :-1], array[..., -1:]
    if alpha.min() < alpha.max():
        laid = colours * (alpha / np.float32(alpha.max()))
        colours = laid if array.dtype.kind == "f" else np.rint(laid).astype(array.dtype)
    return colours[..., 0] if colours.shape[2] == 1 else colours


def _to_uint8(array: NDArray[Any], source: Source) -> NDArray[np.uint8]:
    """Scale any number type to 0..255 as `read_image` documents."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{source} holds numbers of type {array.dtype}: expected grey or RGB values")
    low, high = float(array.min()), float(array.max())  # NaN if any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{source} holds NaN or infinite values: expected 0 to 1, or 0 to at most 65535")
    if low < 0 or high > 65535:
        raise UserError(f"{source} holds values from {low:g} to {high:g}: expected 0 to 1, or 0 to at most 65535")
    if array.dtype.kind == "f" and high <= 1:
        full = 1.0
    else:
        full = next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if high <= 2**bits - 1)
    return np.rint(array * np.float32(255 / full)).astype(np.uint8)


def find_images(paths: Iterable[StrPath], *, recursive: bool = False) -> list[Path]:
    """List the image files that `paths`, files and folders, stand for.

    Files are taken as they are, in the order given, with any suffix and even if missing: `read_image` says
    what is wrong with each, so that one bad name does not stop a batch. Folders are replaced by their files
    with an image suffix, sorted by name, without hidden files (.x) and macOS companions (._x); folders below
    them only if `recursive`, hidden folders never. A file that turns up twice is listed once.

    Raises
    ------
    UserError
        for a folder without images, and if `paths` is empty
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        files = _images_below(given, recursive) if given.is_dir() else [given]
        if not files:
            below = "" if recursive else " (folders inside it were not searched)"
            raise UserError(f"no images in the folder {given}{below}: expected {' '.join(IMAGE_SUFFIXES)}")
        for file in files:
            found.setdefault(file.absolute(), file)
    if not found:
        raise UserError("no input given: expected image files or folders")
    return list(found.values())


def _images_below(folder: Path, recursive: bool) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        files += [Path(parent, name) for name in names if is_image_name(name)]
    return sorted(file for file in files if file.is_file())


def is_image_name(name: str) -> bool:
    """Whether a file of this name, without folders, is taken for an image: IMAGE_SUFFIXES, not hidden."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def output_stems(paths: Sequence[StrPath]) -> list[str]:
    """Name a stem for the results of each input, all different even where file names ignore case.

    The stem is the file's name without its image suffix. Inputs that share one also carry their suffix
    (1.png and 1.jpg: "1_png", "1_jpg"), or else the folders above them, as many as needed (a/1.png and
    b/1.png: "a_1", "b_1"); what is still the same, or taken by another input, is numbered ("1_2").

    Returns
    -------
    one stem per path, in the same order; the same for the same list of paths
    """
    files = [Path(path).absolute() for path in paths]
    longest = max((len(file.parts) for file in files), default=0)
    stems = [_stem(file, 0, suffix=False) for file in files]
    for level in range(2 * longest):
        counts = Counter(map(_on_disk, stems))
        clashing = [i for i, stem in enumerate(stems) if counts[_on_disk(stem)] > 1]
        # Suffixes first without folders, then with one folder more at each level, without and with suffix.
        folders, suffix = (level + 1) // 2, level % 2 == 0
        proposed = {i: _stem(files[i], folders, suffix=suffix) for i in clashing}
        new_counts = Counter(map(_on_disk, proposed.values()))
        for i, stem in proposed.items():
            if new_counts[_on_disk(stem)] == 1 and counts[_on_disk(stem)] == 0:
                stems[i] = stem
    return _numbered(stems)


def _stem(file: Path, folders: int, *, suffix: bool) -> str:
    name = file.name
    known = next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    end = known or file.suffix
    base = name[: len(name) - len(end)] or name
    above = file.parts[1:-1][-folders:] if folders else []
    return "_".join([*above, base, *([end.strip(".").replace(".", "_")] if suffix and end else [])])


def _on_disk(name: str) -> str:
    """Equal for names that one of the usual file systems takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _numbered(stems: Sequence[str]) -> list[str]:
    taken = set(map(_on_disk, stems))
    seen: set[str] = set()
    result = []
    for stem in stems:
        name, number = stem, 1
        while _on_disk(name) in seen or (number > 1 and _on_disk(name) in taken):
            number += 1
            name = f"{stem}_{number}"
        seen.add(_on_disk(name))
        result.append(name)
    return result


@contextmanager
def atomic(path: StrPath) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there becomes `path` if the block ends well.

    The temporary file has the same suffixes, reaches the disk before it is renamed, and is removed on any
    error; a file that was there before stays until then. The folder must exist.

    Raises
    ------
    UserError
        if the file cannot be written (no such folder, no permission, disk full)
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part{''.join(path.suffixes[-2:])}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: StrPath) -> Path:
    """Make a folder and those above it, where they are not there yet; UserError where that is not possible."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder: {error.strerror or error}; choose another") from error
    return Path(path)


def mask_png(mask: NDArray[Any]) -> bytes:
    """Encode a bool (H, W) mask as an 8-bit grey PNG, 0 and 255; ValueError for more than two values."""
    if mask.ndim != 2 or not (mask.dtype == np.bool_ or np.isin(mask, (0, 1)).all()):
        raise ValueError(f"expected a two-valued (H, W) mask, got {mask.dtype} {mask.shape}")
    return _png(mask.astype(np.uint8) * np.uint8(255))


def probability_tiff(prob: NDArray[np.floating[Any]]) -> bytes:
    """Encode (H, W) probabilities, all in [0, 1] or else ValueError, as a single-page float32 TIFF (deflate)."""
    import tifffile

    if prob.ndim != 2 or not ((prob >= 0) & (prob <= 1)).all():
        raise ValueError(f"expected (H, W) probabilities from 0 to 1, got {prob.dtype} {prob.shape}")
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        prob.astype(np.float32),
        photometric="minisblack",
        compression="zlib",
        metadata=None,
        software=False,
    )
    return stream.getvalue()


def rgb_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 (H, W, 3) picture as PNG; ValueError for other arrays."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected a uint8 (H, W, 3) picture, got {rgb.dtype} {rgb.shape}")
    return _png(rgb)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def nifti(array: NDArray[Any], pixel_size_mm: float | None = None, *, compressed: bool = True) -> bytes:
    """Encode a bool, uint8 or float32 (H, W) array, or a uint8 (H, W, 3) RGB picture, as 2-D NIfTI-1.

    Stored as (W, H): the first axis is x (column), the second y (row). The affine is diag(-p, -p, 1), which
    ITK reads as direction identity, and in which viewers show the picture upright. Without `pixel_size_mm`
    p is 1 and the unit is left unknown. bool is stored as uint8 0/1. The bytes are those of .nii.gz if
    `compressed`, else of .nii.

    Raises
    ------
    ValueError
        for arrays of other types and shapes, and for a pixel size that is not above 0
    """
    import nibabel

    if array.dtype not in (np.bool_, np.uint8, np.float32):
        raise ValueError(f"expected bool, uint8 or float32, got {array.dtype}")
    data = np.ascontiguousarray(array.astype(np.uint8) if array.dtype == np.bool_ else array)
    if data.ndim == 3 and data.shape[2] == 3 and data.dtype == np.uint8:
        data = data.view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    if data.ndim != 2:
        raise ValueError(f"expected (H, W) or uint8 (H, W, 3), got {array.dtype} {array.shape}")
    size = 1.0 if pixel_size_mm is None else float(pixel_size_mm)
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"expected a pixel size above 0 mm, got {pixel_size_mm}")
    volume = nibabel.Nifti1Image(data.T, np.diag([-size, -size, 1.0, 1.0]))
    volume.header.set_xyzt_units(None if pixel_size_mm is None else "mm")
    content = volume.to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content  # the same bytes whenever it is written


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = StringIO(newline="")
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def json_text(obj: object) -> str:
    """Readable JSON in the order given; NaN and infinity become null, arrays lists, paths text.

    Raises
    ------
    TypeError
        for objects that have no JSON form
    """
    return json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_bytes(path: StrPath, content: bytes) -> None:
    """Write a file, whole or not at all; UserError where that is not possible."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_mask(path: StrPath, mask: NDArray[Any]) -> None:
    """Write `mask_png`."""
    write_bytes(path, mask_png(mask))


def write_probability(path: StrPath, prob: NDArray[np.floating[Any]]) -> None:
    """Write `probability_tiff`."""
    write_bytes(path, probability_tiff(prob))


def write_rgb(path: StrPath, rgb: NDArray[np.uint8]) -> None:
    """Write `rgb_png`."""
    write_bytes(path, rgb_png(rgb))


def write_nifti(path: StrPath, array: NDArray[Any], pixel_size_mm: float | None = None) -> None:
    """Write `nifti`, compressed where the path ends in .gz."""
    write_bytes(path, nifti(array, pixel_size_mm, compressed=Path(path).name.lower().endswith(".gz")))


def write_text(path: StrPath, text: str) -> None:
    r"""Write UTF-8 text with \n line ends on every system."""
    write_bytes(path, text.encode())


def write_json(path: StrPath, obj: object) -> None:
    """Write `json_text` as UTF-8."""
    write_text(path, json_text(obj))


def _plain(obj: object) -> object:
    """Python's own types for numpy scalars and arrays, mappings, sequences and paths, all the way down."""
    if isinstance(obj, np.ndarray | np.generic):
        obj = obj.tolist()
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(_plain(key)): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(item) for item in obj]
    return os.fspath(obj) if isinstance(obj, os.PathLike) else obj
