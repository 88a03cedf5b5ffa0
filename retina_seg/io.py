"""Photographs and labels in; masks, probabilities, pictures, NIfTI, JSON out, as bytes or as files.

What is encoded holds the pixels given, the seal of this program (files) and nothing else.

Not here: how file formats are decoded (decode), data sets (datasets), figures (report).
"""

import csv
import gzip
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retina_seg import files, labels
from retina_seg.decode import InMemory, Placement, Source, decode
from retina_seg.errors import UserError
from retina_seg.files import PART as PART
from retina_seg.files import PICTURE, RESULT, StrPath, blank_seal, is_file, is_folder, sealed
from retina_seg.files import atomic as atomic
from retina_seg.files import make_folder as make_folder
from retina_seg.files import read_json as read_json
from retina_seg.files import read_text as read_text
from retina_seg.files import readable as readable
from retina_seg.files import remove_parts as remove_parts
from retina_seg.files import write_bytes as write_bytes
from retina_seg.files import write_text as write_text

MIN_SIDE = 64
"""Shortest side, in pixels, of what can be a fundus photograph."""
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".tif", ".tiff", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".gif", ".bmp", ".dib", ".webp", ".avif", ".jp2", ".jpx", ".j2k", ".j2c", ".nii", ".nii.gz"),
)
"""What `find_images` takes from a folder, in lower case; upper case is taken too."""


def as_source(given: StrPath | InMemory) -> Source:
    """A path for what names a file, an `InMemory` as it is; `.name` is the file name of both."""
    return given if isinstance(given, InMemory) else Path(given)


def read_image(source: StrPath | InMemory, *, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Read one fundus photograph, by its path or in memory.

    PNG, TIFF, JPEG, PPM, GIF, BMP, WebP, AVIF, JPEG 2000 (8 bits, or grey) or 2-D NIfTI.

    EXIF and TIFF orientation is applied, that of XMP is not. Grey becomes three equal channels, palettes become
    their colours, CMYK is converted without a colour profile; colour profiles are ignored. With alpha, colours
    are laid on black, so that what was cut out is dark like the border of a photograph; an alpha channel that
    has one value everywhere is ignored, as are channels beyond alpha.

    More than 8 bits: integers are divided by the largest value of the smallest depth of 8, 10, 12, 14, 16
    bits that holds the image's maximum (12-bit cameras store their values in 16-bit files; of signed numbers the
    sign takes one of 16 and of 8), floats up to 1 are multiplied by 255, floats beyond are taken like integers.
    What rounding or interpolation adds to floats beyond full scale (up to 1.05, or half of an integer) is cut off.
    One factor serves the whole image, so colours keep their ratios.

    Several pages: TIFF pages that say they are previews are passed over, as are pages smaller than the photograph,
    and the previews in camera JPEGs (MPO). Three pages that ImageJ calls the channels of one composite picture
    are its red, green and blue. An animation or a stack of equal pages is an error, as nobody can know the page
    meant.

    NIfTI: shape (W, H), (W, H, 1) or (W, H[, 1], 3), grey or RGB data type; the first axis is x (column, left
    to right), the second y (row, top to bottom), as `write_nifti` writes them; the affine is not used
    (`decode.placement` gives it).

    Returns
    -------
    uint8 (H, W, 3), RGB, each side at least `min_side`, at most `decode.MAX_PIXELS` pixels

    Raises
    ------
    UserError
        for all that cannot be a fundus photograph: no such file, folder, no image, a format or compression
        that is not read, damaged, too small, too large (pixels, or bytes of pixels; decided before decoding),
        one colour everywhere, several pages, negative or non-finite values
    """
    source = as_source(source)
    image = _to_uint8(_on_black(decode(source, min_side=min_side)), source)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if (image == image[0, 0]).all():
        colour = f"one colour {tuple(image[0, 0].tolist())}" if image.any() else "black"
        raise UserError(f"{source} is {colour} everywhere: expected a fundus photograph")
    return np.ascontiguousarray(image)


_AS_ARRAY = ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B")  # modes of PIL, as numpy reads them


def as_photograph(given: Any) -> NDArray[np.uint8]:
    """An array or a PIL image as a photograph uint8 (H, W, 3), read as `read_image` reads a file with its pixels.

    Grey (H, W) or (H, W, 1), RGB, and either with alpha, of any number type; uint8 (H, W, 3) is given back as it is.

    Raises
    ------
    UserError
        for all other shapes and types, negative and non-finite values
    """
    array = given
    if isinstance(given, Image.Image):
        array = np.asarray(given if given.mode in _AS_ARRAY else given.convert("RGBA"))
    if not isinstance(array, np.ndarray):
        raise UserError(
            f"a photograph of type {type(given).__name__}: expected the path of a file, InMemory, or an array "
            "(height, width, 3); of a tensor (3, height, width) give tensor.permute(1, 2, 0).cpu().numpy()"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (2,), (3,), (4,)) or 0 in array.shape:
        raise UserError(
            f"an array {array.dtype} {array.shape}: expected a photograph (height, width, 3), channels last and in the "
            "order red, green, blue; or (height, width) in grey, either with alpha"
        )
    image = _to_uint8(_on_black(array), InMemory("the array", b""))
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def read_mask(source: StrPath | InMemory, *, target: str = "") -> NDArray[np.bool_]:
    """Read a two-valued label, by its path or in memory: 0/255, 0/1, 1-bit, palette, or any two colours.

    Of two values the larger is True, of two colours the brighter. Where a palette gives its indices one and
    the same colour, the indices decide. A label with a single value is False everywhere if that is 0 (black),
    else True everywhere. More values have a meaning in one case: where `target` is "vessels", a map of arteries in
    red and veins in blue is vessels (`labels.of_classes`). Where alpha alone shows what was drawn (black on
    transparent), what is opaque is marked.

    Returns
    -------
    bool (H, W)

    Raises
    ------
    UserError
        for unreadable files, NaN and infinity, more than two values (maps of classes, greyscale, JPEG, interpolated)
    """
    source = as_source(source)
    stored = decode(source)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise UserError(f"{source} holds NaN or infinite values: expected a label image with two values (0 and 1, say)")
    array = _on_black(stored)
    if stored.shape[2:] in ((2,), (4,)) and not array.any():
        array = np.where(stored[..., -1].min() < stored[..., -1].max(), stored[..., -1], 0)
    values = array.reshape(*array.shape[:2], -1)  # (H, W, C)
    first = values[0, 0]
    differs = np.logical_or.reduce([values[..., channel] != first[channel] for channel in range(values.shape[2])])
    if not differs.any():
        return np.full(differs.shape, bool(first.any()))
    second = values[differs][0]
    if (values[differs] != second).any():
        return labels.of_classes(array, str(source), target)
    brighter = (float(second.sum()), *second.tolist()) > (float(first.sum()), *first.tolist())
    return differs if brighter else ~differs


def _on_black(array: NDArray[Any]) -> NDArray[Any]:
    """Remove alpha, (H, W, 2) -> (H, W) and (H, W, 4) -> (H, W, 3); the largest alpha counts as opaque."""
    if array.ndim == 2 or array.shape[2] == 3:
        return array
    colours, alpha = array[..., :-1], array[..., -1:]
    low, high = alpha.min(), alpha.max()
    if low < high:
        kind = np.result_type(array.dtype, np.float32) if array.dtype.kind == "f" else array.dtype
        laid = np.empty(colours.shape, kind)
        for rows in _row_blocks(array):
            block = colours[rows] * (alpha[rows] / np.float32(high))
            laid[rows] = block if kind.kind == "f" else np.rint(block).astype(kind)
        colours = laid
    return colours[..., 0] if colours.shape[2] == 1 else colours


def _row_blocks(array: NDArray[Any]) -> list[slice]:
    """Blocks of rows of about a million pixels, so that what is computed of them takes little memory."""
    height, width = array.shape[:2]
    step = max(1, 2**20 // max(1, width))
    return [slice(top, top + step) for top in range(0, height, step)]


_FLOATS_TO_1 = 1.05  # rounded factors (1/255 as float32) and interpolation lead beyond 1, integers begin at 2
_SIGNED_DEPTHS = {"i1": (7,), "i2": (8, 10, 12, 14, 15)}


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
    beyond = 0.5 if array.dtype.kind == "f" else 0.0
    if low < 0 or high > 65535 + beyond:
        raise UserError(f"{source} holds values from {low:g} to {high:g}: expected 0 to 1, or 0 to at most 65535")
    if array.dtype.kind == "f" and high <= _FLOATS_TO_1:
        full = 1.0
    else:
        depths = _SIGNED_DEPTHS.get(array.dtype.str[1:], (8, 10, 12, 14, 16))
        full = next(2.0**bits - 1 for bits in depths if high <= 2**bits - 1 + beyond)
    scaled = np.empty(array.shape, np.uint8)
    for rows in _row_blocks(array):
        scaled[rows] = np.minimum(np.rint(array[rows] * np.float32(255 / full)), 255)
    return scaled


@dataclass(frozen=True)
class Listing:
    """What files and folders hold.

    Attributes
    ----------
    images : the image files, each once.
    left_out : of the folders, kind -> how many files of it were left out, as {".heic": 2}.
    unsearched : folders inside the folders, which were not searched.
    """

    images: list[Path]
    left_out: Mapping[str, int]
    unsearched: int


def list_images(paths: Iterable[StrPath], *, recursive: bool = False) -> Listing:
    """The image files that `paths`, files and folders, stand for, and what folders hold besides.

    Files are taken as they are, in the order given, with any suffix and even if missing: `read_image` says
    what is wrong with each, so that one bad name does not stop a batch. Folders are replaced by their files
    with an image suffix, sorted by name, without hidden files (.x) and macOS companions (._x); folders below
    them only if `recursive`, hidden folders never. A file that turns up twice is listed once.
    """
    found: dict[Path, Path] = {}
    others: Counter[str] = Counter()
    unsearched = 0
    for given in map(Path, paths):
        if not is_folder(given):
            found.setdefault(_place(given), given)
            continue
        for parent, folders, names in os.walk(given):
            inside = [name for name in folders if not name.startswith(".")]
            folders[:] = sorted(inside) if recursive else []
            unsearched += 0 if recursive else len(inside)
            images = [name for name in names if is_image_name(name) and is_file(Path(parent, name))]
            others.update(left_out(set(names) - set(images)))
            for file in sorted(Path(parent, name) for name in images):
                found.setdefault(_place(file), file)
    return Listing(list(found.values()), dict(sorted(others.items())), unsearched)


def _place(path: Path) -> Path:
    """The absolute path, without "." and ".." in it."""
    return Path(os.path.normpath(path.absolute()))


def find_images(paths: Iterable[StrPath], *, recursive: bool = False) -> list[Path]:
    """The image files of `list_images`.

    Raises
    ------
    UserError
        where there are none
    """
    paths = list(paths)
    listing = list_images(paths, recursive=recursive)
    if not listing.images:
        raise UserError(nothing_found(paths, listing))
    return listing.images


def nothing_found(paths: Sequence[StrPath], listing: Listing) -> str:
    """The sentence about `paths` in which there is no image, with what there is instead."""
    if not paths:
        return "no input given: expected image files or folders"
    there = told(listing.left_out)
    there = f"; there: {there}" if there else ""
    if listing.unsearched:
        there += f"; {listing.unsearched} folders inside were not searched: name them, too"
    named = ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return f"no images in the folder{'s' * (len(paths) > 1)} {named}{there}. Expected {' '.join(IMAGE_SUFFIXES)}"


def left_out(names: Iterable[str]) -> dict[str, int]:
    """Kind of file -> how many of these file names, without folders, are of it and no image's; hidden ones left aside.

    The kind is the suffix in lower case, ".heic", or "without suffix"; what is called like an image and no regular file
    is "no regular file".
    """
    shown = [name for name in names if not name.startswith(".")]
    kinds = ("no regular file" if is_image_name(n) else Path(n).suffix.lower() or "without suffix" for n in shown)
    return dict(sorted(Counter(kinds).items()))


def told(kinds: Mapping[str, int]) -> str:
    """`left_out` in words: "2 .heic, 1 .txt"; "" for none."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


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
    places = [_place(Path(path)) for path in paths]
    longest = max((len(place.parts) for place in places), default=0)
    stems = [_stem(place, 0, suffix=False) for place in places]
    for level in range(2 * longest):
        counts = Counter(map(on_disk, stems))
        clashing = [i for i, stem in enumerate(stems) if counts[on_disk(stem)] > 1]
        # Suffixes first without folders, then with one folder more at each level, without and with suffix.
        folders, suffix = (level + 1) // 2, level % 2 == 0
        proposed = {i: _stem(places[i], folders, suffix=suffix) for i in clashing}
        new_counts = Counter(map(on_disk, proposed.values()))
        for i, stem in proposed.items():
            if new_counts[on_disk(stem)] == 1 and counts[on_disk(stem)] == 0:
                stems[i] = stem
    return _numbered(stems)


def _stem(file: Path, folders: int, *, suffix: bool) -> str:
    name = file.name
    known = next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    end = known or file.suffix
    base = name[: len(name) - len(end)]
    if not base.strip("."):  # ".png" and "..png": a name that is no hidden file, and no folder
        base = name.lstrip(".") or "_"
    above = file.parts[1:-1][-folders:] if folders else []
    return "_".join([*above, base, *([end.strip(".").replace(".", "_")] if suffix and end else [])])


def on_disk(name: str) -> str:
    """Equal for names that one of the usual file systems takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _numbered(stems: Sequence[str]) -> list[str]:
    taken = set(map(on_disk, stems))
    seen: set[str] = set()
    result = []
    for stem in stems:
        name, number = stem, 1
        while on_disk(name) in seen or (number > 1 and on_disk(name) in taken):
            number += 1
            name = f"{stem}_{number}"
        seen.add(on_disk(name))
        result.append(name)
    return result


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
        software=blank_seal(),
    )
    return sealed(stream.getvalue())


def rgb_png(rgb: NDArray[np.uint8], kind: str = PICTURE) -> bytes:
    """Encode a uint8 (H, W, 3) picture as PNG with a seal of `kind`; ValueError for other arrays."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected a uint8 (H, W, 3) picture, got {rgb.dtype} {rgb.shape}")
    return _png(rgb, kind)


def _png(pixels: NDArray[np.uint8], kind: str = RESULT) -> bytes:
    about = PngInfo()
    about.add_text("Software", blank_seal(kind))
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=about)
    return sealed(stream.getvalue())


def nifti(
    array: NDArray[Any],
    pixel_size_mm: float | None = None,
    *,
    placement: Placement | None = None,
    compressed: bool = True,
) -> bytes:
    """Encode a bool, uint8 or float32 (H, W) array, or a uint8 (H, W, 3) RGB picture, as 2-D NIfTI-1.

    Stored as (W, H): the first axis is x (column), the second y (row). The affine is diag(-p, -p, 1), which
    ITK reads as direction identity, and in which viewers show the picture upright. Without `pixel_size_mm`
    p is 1 and the unit is left unknown. With `placement`, that of the photograph which the array was made from,
    the array lies on that photograph: pixel size, unit, sform and qform and their codes are those given, and
    `pixel_size_mm` is not used. bool is stored as uint8 0/1. The bytes are those of .nii.gz if `compressed`,
    else of .nii.

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
    if placement is None:
        volume = nibabel.Nifti1Image(data.T, np.diag([-size, -size, 1.0, 1.0]))
        volume.header.set_xyzt_units(None if pixel_size_mm is None else "mm")
    else:
        volume = nibabel.Nifti1Image(data.T, None, _placed(placement))
    content = volume.to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content  # the same bytes whenever it is written


def _placed(placement: Placement) -> Any:
    """A header that lies where another did; numpy copies each field, from NIfTI-2 rounded to float32."""
    import nibabel

    header = nibabel.Nifti1Header()
    for name, value in placement.fields.items():
        if name == "pixdim":
            header[name][:4] = value[:4]
        else:
            header[name] = value
    return header


def comma_separated(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV text; text that a spreadsheet would take for a formula gets a leading apostrophe.

    Parameters
    ----------
    columns : default the keys of the first row; cells that a row does not have are empty.
    """
    out = StringIO(newline="")
    names = list(rows[0] if rows else ()) if columns is None else list(columns)
    if names:
        writer = csv.writer(out)
        writer.writerow([_no_formula(name) for name in names])
        if foreign := {key for row in rows for key in row} - set(names):
            raise ValueError(f"no column for {', '.join(sorted(foreign))}")
        writer.writerows([_no_formula(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = readable(value)
    return f"'{text}" if text.lstrip("'")[:1] in _FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # OWASP, "CSV Injection", with the wide forms of the signs


def without_guard(cell: str) -> str:
    """The text of a cell that `comma_separated` wrote."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in _FORMULA else cell


def json_text(obj: object) -> str:
    """Readable JSON in the order given; NaN and infinity become null, arrays lists, paths text.

    Raises
    ------
    TypeError
        for objects that have no JSON form
    """
    return json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sealed_json(obj: Mapping[str, Any]) -> bytes:
    """`json_text` of a mapping as UTF-8, with a seal as its first key (`files.sealed_json`)."""
    return files.sealed_json(json_text(obj))


def write_mask(path: StrPath, mask: NDArray[Any]) -> None:
    """Write `mask_png`."""
    write_bytes(path, mask_png(mask))


def write_probability(path: StrPath, prob: NDArray[np.floating[Any]]) -> None:
    """Write `probability_tiff`."""
    write_bytes(path, probability_tiff(prob))


def write_rgb(path: StrPath, rgb: NDArray[np.uint8], kind: str = PICTURE) -> None:
    """Write `rgb_png`."""
    write_bytes(path, rgb_png(rgb, kind))


def write_nifti(path: StrPath, array: NDArray[Any], pixel_size_mm: float | None = None) -> None:
    """Write `nifti`, compressed where the path ends in .gz."""
    write_bytes(path, nifti(array, pixel_size_mm, compressed=Path(path).name.lower().endswith(".gz")))


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
    if isinstance(obj, os.PathLike):
        obj = os.fspath(obj)
    return readable(obj) if isinstance(obj, str) else obj
