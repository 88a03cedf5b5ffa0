"""Readers of the public sets and of any folder of images: from a manifest row to a Sample of arrays.

No transforms, no torch, no checks across images (audit.py).
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from retina_seg import manifest
from retina_seg.errors import UserError
from retina_seg.manifest import Row

LESIONS = ("microaneurysms", "haemorrhages", "hard_exudates", "soft_exudates")


@dataclass(frozen=True)
class DatasetSpec:
    """Where a set lies, what is annotated in it and by which protocols it is split.

    `absent_is_empty` names the targets for which no file means "does not occur"; for any other target no file
    means "not annotated", and the target is then left out of the Sample.
    """

    folder: str
    targets: tuple[str, ...]
    protocols: tuple[str, ...]
    absent_is_empty: tuple[str, ...] = ()


DATASETS: dict[str, DatasetSpec] = {
    "drive": DatasetSpec("DRIVE", ("vessels", "vessels_observer2"), ("drive",)),
    "stare": DatasetSpec(
        "STARE",
        ("vessels", "vessels_observer2"),
        ("stare-10", "stare-5fold/1", "stare-5fold/2", "stare-5fold/3", "stare-5fold/4", "stare-5fold/5"),
    ),
    "chase_db1": DatasetSpec(
        "CHASE_DB1",
        ("vessels", "vessels_observer2"),
        ("chase-20-8", "chase-8-20", "chase-4fold/1", "chase-4fold/2", "chase-4fold/3", "chase-4fold/4"),
    ),
    "idrid_seg": DatasetSpec("IDRiD", (*LESIONS, "disc"), ("idrid",), absent_is_empty=LESIONS),
    "idrid_grade": DatasetSpec("IDRiD", (), ("idrid-grade",)),
}


@dataclass(frozen=True)
class Sample:
    """One photograph with its truth.

    Attributes
    ----------
    id
        The row's id.
    image
        uint8 (H, W, 3) RGB.
    targets
        Name -> bool (H, W).
    fov
        bool (H, W), or None where the set releases none (`fov.find_fov` finds it).
    """

    id: str
    image: np.ndarray
    targets: Mapping[str, np.ndarray]
    fov: np.ndarray | None


def spec(dataset: str) -> DatasetSpec:
    """The set's entry in DATASETS; UserError with the known names for any other name."""
    if dataset not in DATASETS:
        raise UserError(f"unknown set {dataset!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[dataset]


@cache
def _packaged_rows(path: Path) -> tuple[Row, ...]:
    return tuple(manifest.read(path))


def rows(dataset: str) -> list[Row]:
    """Rows of the packaged manifest, in its order."""
    spec(dataset)
    return list(_packaged_rows(manifest.folder() / f"{dataset}.csv"))


def set_folder(dataset: str, data_root: str | Path) -> Path:
    """The set's own folder below the data root; UserError saying what to do where it is not there."""
    name, root = spec(dataset).folder, Path(data_root)
    if (root / name).is_dir():
        return root / name
    advice = f"get the set with `retina-seg data fetch {dataset} --data-root {root}`"
    if not root.is_dir():
        problem = "is not a folder"
        advice = f"give the folder that holds {name}/ with --data-root or RETINA_SEG_DATA, or {advice}"
    elif root.resolve().name == name:
        problem, advice = f"is the {name} folder itself", f"give the folder above it, {root.resolve().parent}"
    else:
        problem = f"has no folder {name}"
        nested = next((path.parent for path in sorted(root.glob(f"*/{name}")) if path.is_dir()), None)
        advice = f"did you mean {nested}?" if nested else advice
    raise UserError(f"data root {root} {problem}; {advice}")


def load(row: Row, data_root: str | Path) -> Sample:
    """Read one row's image, targets and field of view.

    A target of the set that the row names no file for is all False where the release means "does not occur"
    (IDRiD lesions) and left out where it means "not annotated" (DRIVE training, second observer).

    Raises
    ------
    UserError
        A file that the manifest names is missing or unreadable, a label is not two-valued, or the sizes of image
        and labels differ.
    """
    root = set_folder(row.dataset, data_root)
    image = _read_rgb(_existing(root, row.image))
    shape = image.shape[:2]
    targets = {name: read_label(_existing(root, path)) for name, path in row.targets.items()}
    for name in spec(row.dataset).absent_is_empty:
        targets.setdefault(name, np.zeros(shape, dtype=bool))
    fov = read_label(_existing(root, row.fov)) if row.fov else None
    for name, array in (*targets.items(), ("fov", fov)):
        if array is not None and array.shape != shape:
            raise UserError(
                f"{row.key}: {name} is {array.shape[1]}x{array.shape[0]} pixels, its image {shape[1]}x{shape[0]}; "
                f"get the set again, or run `retina-seg data check {row.dataset}`"
            )
    return Sample(row.id, image, targets, fov)


def _existing(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        raise UserError(f"{path} is missing although the manifest names it; the copy of the set is incomplete")
    return path


def _read_rgb(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as opened:
            return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from error


def read_label(path: str | Path) -> np.ndarray:
    """Read a two-valued annotation as bool (H, W).

    Marked is what is shown bright: white in grey files (DRIVE, STARE), in 1-bit files (CHASE_DB1) and in palette
    files (DRIVE second observer: index 1, nearly white; IDRiD: index 1, shown red), red in the RGBA file of the
    IDRiD release. Grey files with the values 0 and 1 count as well.

    Raises
    ------
    UserError
        The file cannot be read, or shows more than two values.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            values = _brightness(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: cannot be read as an annotation ({error})") from error
    levels = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if len(levels) > 2:
        raise UserError(f"{path}: an annotation holds two values, this file {len(levels)} ({levels[:6]}...)")
    return values > (0 if levels[-1] <= 1 else 127)


def _brightness(opened: Image.Image) -> np.ndarray:
    """The brightest channel of the shown colours, uint8 (H, W)."""
    if opened.mode == "P":
        palette = np.array(opened.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        table = np.zeros(256, dtype=np.uint8)
        table[: len(palette)] = palette.max(axis=1)
        return table[np.asarray(opened)]
    if opened.mode in ("1", "L"):
        return np.asarray(opened.convert("L"))
    if opened.mode not in ("LA", "RGB", "RGBA"):
        raise ValueError(f"mode {opened.mode} is not one in which annotations are stored")
    return np.asarray(opened.convert("RGB")).max(axis=2)


def pixel_hash(array: np.ndarray) -> str:
    """SHA-256 of decoded pixels with their shape, so that a lossless re-save keeps its hash.

    uint8 (H, W, 3) for photographs, bool (H, W) for annotations.
    """
    head = f"{'x'.join(map(str, array.shape))} {array.dtype.name}\n"
    return hashlib.sha256(head.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def difference_hash(image: np.ndarray) -> str:
    """Perceptual hash: signs of 256 horizontal brightness differences of a 17 x 16 thumbnail, 64 hex digits.

    Resizing or re-encoding a photograph flips few of its 256 bits, another photograph flips many. Grey is the
    mean of red and green: the blue channel is mostly noise in fundus photographs.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB.
    """
    grey = Image.fromarray(image).convert("RGB").resize((17, 16), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int32)[..., :2].sum(axis=2)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes().hex()
