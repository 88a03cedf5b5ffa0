"""Readers of the public sets and of any folder of images: from a manifest row to a Sample of arrays.

No transforms, no torch; checks across images are in audit.py, decoding of file formats in io.py.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import cards, io, manifest
from retina_seg.errors import UserError
from retina_seg.manifest import Row

LESIONS = ("microaneurysms", "haemorrhages", "hard_exudates", "soft_exudates")
FOLDER = "folder"
"""Set name of the rows of `folder_rows`."""
_NAMED = 20


@dataclass(frozen=True)
class DatasetSpec:
    """Where a set lies, what is annotated in it and by which protocols it is split.

    `absent_is_empty` names the targets for which no file means "does not occur"; for any other target no file
    means "not annotated", and the target is then left out of the Sample. `label_compression` is what the
    release's annotation files use, in Pillow's words, where a copy is known that was saved anew.
    """

    folder: str
    targets: tuple[str, ...]
    protocols: tuple[str, ...]
    absent_is_empty: tuple[str, ...] = ()
    label_compression: str = ""


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
    "idrid_seg": DatasetSpec("IDRiD", (*LESIONS, "disc"), ("idrid",), absent_is_empty=LESIONS, label_compression="raw"),
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
    image: NDArray[np.uint8]
    targets: Mapping[str, NDArray[np.bool_]]
    fov: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Summary:
    """One line of `retina-seg data list`.

    `splits` maps a protocol to its number of images per split; `missing` counts the files of the manifest that
    are not below the data root (None without a data root).
    """

    name: str
    title: str
    folder: str
    images: int
    targets: tuple[str, ...]
    splits: Mapping[str, Mapping[str, int]]
    licence: str
    registration: bool
    files: int
    missing: int | None


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


def by_key() -> dict[str, Row]:
    """The rows of all packaged manifests by their keys, as "drive:21"."""
    return {row.key: row for dataset in DATASETS for row in rows(dataset)}


def folder_rows(folder: str | Path, *, recursive: bool = False) -> list[Row]:
    """Rows for the images of any folder: no targets, no splits, each image a subject of its own.

    Only names are looked at. Sizes are 0 and hashes empty, as nothing is known about such images in advance.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: expected a folder of images")
    names = [path.relative_to(root).as_posix() for path in io.find_images([root], recursive=recursive)]
    if not names:
        raise UserError(f"{root} holds no images: expected files named {', '.join(io.IMAGE_SUFFIXES)}")
    return [Row(FOLDER, name, name, "", name, {}, "", {}, {}, 0, 0, "") for name in names]


def summary(data_root: str | Path | None = None) -> list[Summary]:
    """What is known about every set, and with a data root what of it is there."""
    lines = []
    for name, entry in DATASETS.items():
        listed, words = rows(name), cards.card(name)
        counts: dict[str, dict[str, int]] = {}
        for protocol in entry.protocols:
            sides = [row.splits.get(protocol, "") for row in listed]
            counts[protocol] = {split: sides.count(split) for split in manifest.SPLITS}
        files = [path for row in listed for path in row.files()]
        missing = None
        if data_root is not None:
            missing = sum(not (Path(data_root) / entry.folder / path).is_file() for path in files)
        lines.append(
            Summary(
                name,
                words.title,
                entry.folder,
                len(listed),
                entry.targets,
                counts,
                words.licence,
                words.registration,
                len(files),
                missing,
            )
        )
    return lines


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


def load(row: Row, data_root: str | Path, wanted: Collection[str] | None = None) -> Sample:
    """Read one row's image, targets and field of view; of the targets only those `wanted`, where they are named.

    A target of the set that the row names no file for is all False where the release means "does not occur"
    (IDRiD lesions) and left out where it means "not annotated" (DRIVE training, second observer). For rows of
    `folder_rows`, `data_root` is the folder they were made from.

    How the sets store annotations, all of them read by `io.read_mask` (the brighter of two colours is marked):
    DRIVE grey GIF with 0/255, its second observer a palette GIF with the indices 0 (near black) and 1 (near
    white); STARE grey PPM with 0/255; CHASE_DB1 1-bit PNG; IDRiD palette TIFF, index 1 shown red, one file
    (81, hard exudates) RGBA with red in the original release.

    Raises
    ------
    UserError
        A file that the manifest names is missing or unreadable, an annotation is not two-valued, or the sizes
        of image and annotations differ.
    """
    root = Path(data_root) if row.dataset == FOLDER else set_folder(row.dataset, data_root)
    image = io.read_image(existing(root, row.image))
    shape = image.shape[:2]
    listed = {name: path for name, path in row.targets.items() if wanted is None or name in wanted}
    targets = {name: io.read_mask(existing(root, path)) for name, path in listed.items()}
    fov = io.read_mask(existing(root, row.fov)) if row.fov else None
    for name, array in (*targets.items(), ("fov", fov)):
        if array is not None and array.shape != shape:
            raise UserError(
                f"{row.key}: {name} is {array.shape[1]}x{array.shape[0]} pixels, its image "
                f"{shape[1]}x{shape[0]}; get the set again, or run `retina-seg data check {row.dataset}`"
            )
    if row.dataset in DATASETS:
        absent = [name for name in DATASETS[row.dataset].absent_is_empty if wanted is None or name in wanted]
        targets = {**{name: np.zeros(shape, dtype=np.bool_) for name in absent}, **targets}
    return Sample(row.id, image, targets, fov)


def existing(root: Path, name: str) -> Path:
    """The path of a file that a manifest names; UserError where it is not there, or its name leads out of it."""
    path = inside(root, name)
    if not path.is_file():
        raise UserError(f"{path} is missing although the manifest names it; the copy of the set is incomplete")
    return path


def inside(root: Path, name: str) -> Path:
    """The path of a file, there or not, in a set's own folder; UserError where its name leads out of it.

    Links are followed, wherever they lead: a copy of a set may consist of them, and whoever made them is trusted.
    """
    if not manifest.is_plain(name):
        raise UserError(f"{name!r} is not a plain relative POSIX path below {root}: the manifest is damaged or hostile")
    return root / name


def hashes(sample: Sample) -> dict[str, str]:
    """`pixel_hash` of the "image", of every target, and of "fov" where there is one."""
    found = {"image": pixel_hash(sample.image), **{name: pixel_hash(one) for name, one in sample.targets.items()}}
    return found if sample.fov is None else {**found, "fov": pixel_hash(sample.fov)}


def differing(row: Row, found: Mapping[str, str], size: tuple[int, int] | None = None) -> list[str]:
    """Which of the pixels of a row are not those that its manifest describes.

    Parameters
    ----------
    found : "image", names of targets, "fov" -> `pixel_hash`; what the manifest knows no hash of is no difference.
    size : (width, height) of the photograph; of a reduced copy the hash is another, which the manifest may know.
    """
    reduced = row.reduced_sha256 if size not in (None, (row.width, row.height)) else ""
    known = {**row.target_sha256, "image": reduced or row.pixel_sha256}
    return [name for name, one in found.items() if known.get(name, one) not in ("", one)]


def differences(names: Sequence[str]) -> str:
    """A sentence about rows, or files of them, that are not what the manifest describes; the first of many by name."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"files differ from the release in the manifest: {', '.join(names[:_NAMED])}{more}"


def pixel_hash(array: NDArray[np.uint8] | NDArray[np.bool_]) -> str:
    """SHA-256 of decoded pixels with their shape and type, so that a lossless re-save keeps its hash.

    uint8 (H, W, 3) for photographs, bool (H, W) for annotations.
    """
    head = f"{'x'.join(map(str, array.shape))} {array.dtype.name}\n"
    return hashlib.sha256(head.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
