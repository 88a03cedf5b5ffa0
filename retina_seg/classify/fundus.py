"""Retinal photographs as examples of classification: pixels of DRIVE with their surroundings, grades of IDRiD.

No network; the tasks made of them are in tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, preprocess
from retina_seg.classify.examples import Labelled
from retina_seg.classify.outputs import Head
from retina_seg.fov import find_fov
from retina_seg.manifest import Row
from retina_seg.photographs import load_photograph, rows_of
from retina_seg.preprocess import Preprocess
from retina_seg.subgroups import eye_of

PIXEL = Head("pixel", ("background", "vessel"))
GRADE = Head("dr_grade", ("0", "1", "2", "3", "4"), ordered=True)
"""Diabetic retinopathy: none, mild, moderate, severe, proliferative (International Clinical scale)."""
OEDEMA = Head("dme_risk", ("0", "1", "2"), ordered=True)
"""Risk of macular oedema: no hard exudates, some but none within a disc diameter of the fovea, some within it."""
GRADE_FOLDS, _BLOCK = 5, 17
_SPLITS = ("train", "val", "test")
_PIXELS = {"train": 2000, "val": 1000, "test": 1000}
"""Patches of each photograph, half of them around a vessel pixel."""


@dataclass(frozen=True)
class Patches:
    """Square patches float32 (C, side, side) around places of prepared photographs, 0 beyond their borders.

    `photographs` are float32 (C, h + side - 1, w + side - 1), padded; `places` int (N, 3): photograph, y, x.
    """

    photographs: Sequence[NDArray[np.float32]]
    places: NDArray[np.int64]
    side: int

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Cut one."""
        number, y, x = self.places[index]
        return self.photographs[number][:, y : y + self.side, x : x + self.side]


@dataclass(frozen=True)
class Photographs:
    """Whole photographs as `prepare` makes them, read anew each time.

    `differing` gets what is not the release's of those that are read: key -> "image" (`datasets.differing`).
    """

    rows: Sequence[Row]
    data_root: Path
    side: int
    settings: Preprocess
    differing: dict[str, Sequence[str]] = field(default_factory=dict)
    _compared: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Read one."""
        row = self.rows[index]
        sample = datasets.load(row, self.data_root)
        if index not in self._compared:
            self._compared.add(index)
            if found := datasets.differing(row, datasets.hashes(sample), sample.image.shape[1::-1]):
                self.differing[row.key] = found
        image = sample.image
        return prepare(image, (self.settings.channels, self.side, self.side), self.settings)


def padded(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A prepared photograph (C, h, w) in which the patch of pixel (y, x) begins at (y, x)."""
    before, after = side // 2, side - side // 2 - 1
    return np.pad(image, ((0, 0), (before, after), (before, after)))


def vessel_patches(
    data_root: Path, size: int, settings: Preprocess, seed: int, differing: dict[str, Sequence[str]] | None = None
) -> tuple[tuple[Head, ...], dict[str, Labelled]]:
    """Is the pixel in the middle of a patch on a vessel: as many patches of either kind from every photograph of DRIVE.

    Photographs keep the side of the split they have by protocol `drive`. `differing` gets what of each is not the
    release's (`datasets.differing`).
    """
    parts = {}
    for number, split in enumerate(_SPLITS):
        rows = rows_of(["drive"], [split])
        rng = np.random.default_rng([seed, number])
        images: list[NDArray[np.float32]] = []
        places, labels = [], []
        for row in rows:
            photograph = load_photograph(row, data_root, ("vessels",), settings)
            if photograph.differing and differing is not None:
                differing[row.key] = photograph.differing
            shown = photograph.for_patches()
            vessel = shown.target[0].astype(bool)
            kinds = [np.argwhere(shown.fov & where) for where in (~vessel, vessel)]
            count = min(_PIXELS[split] // 2, *map(len, kinds))
            for label, found in enumerate(kinds):
                chosen = found[rng.choice(len(found), count, replace=False)]
                places.append(np.column_stack([np.full(len(chosen), len(images)), chosen]))
                labels.append(np.full((len(chosen), 1), label))
            images.append(padded(shown.image, size))
        at, answers = np.concatenate(places), np.concatenate(labels).astype(np.int64)
        owners = [rows[photograph] for photograph in at[:, 0]]
        keys = tuple(f"{row.key}@{y},{x}" for row, (_, y, x) in zip(owners, at, strict=True))
        subjects = tuple(f"{row.dataset}:{row.subject}" for row in owners)
        columns = {"photograph": tuple(row.id for row in owners)}
        parts[split] = Labelled(Patches(images, at, size), answers, keys, subjects, columns)
    return (PIXEL,), parts


def grades(
    data_root: Path,
    size: int,
    settings: Preprocess,
    fold: int,
    differing: dict[str, Sequence[str]] | None = None,
) -> tuple[tuple[Head, ...], dict[str, Labelled]]:
    """Grade of diabetic retinopathy and risk of macular oedema of the photographs of IDRiD, official split.

    Photographs that the manifest knows to show an eye of a test photograph are not learnt from. `fold`, 1 to
    GRADE_FOLDS, says which of the rest are for validation (`validation_block`). `differing` gets what of
    the photographs is not the release's, when they are read.
    """
    heads = (GRADE, OEDEMA)
    tested = rows_of(["idrid-grade"], ["test"])
    known = {row.key for row in tested}
    rest = [
        row for row in rows_of(["idrid-grade"], ["train", "val"]) if not known & {*row.same_photograph, *row.same_eye}
    ]
    watched = validation_block(rest, fold)
    sides = {
        "train": [row for row in rest if row.key not in watched],
        "val": [row for row in rest if row.key in watched],
        "test": tested,
    }
    parts: dict[str, Labelled] = {}
    for split, rows in sides.items():
        for row in rows:
            datasets.existing(Path(data_root) / datasets.spec(row.dataset).folder, row.image)
        answers = np.array([[int(row.labels[head.name]) for head in heads] for row in rows], np.int64)
        columns = {head.name: tuple(row.labels[head.name] for row in rows) for head in heads}
        columns |= {"eye": tuple(eye_of(row) for row in rows)}
        subjects = tuple(f"{row.dataset}:{row.subject}" for row in rows)
        images = Photographs(rows, Path(data_root), size, settings, {} if differing is None else differing)
        parts[split] = Labelled(images, answers, tuple(row.key for row in rows), subjects, columns)
    return heads, parts


def validation_block(rows: Sequence[Row], fold: int) -> frozenset[str]:
    """Keys of the photographs of IDRiD that validate in a fold: blocks of neighbouring numbers, and their other views.

    IDRiD tells no patients. Photographs with neighbouring numbers look like the two eyes of one person (64 % are of
    opposite sides, and 38 % have the same grade and risk, 19 % by chance): drawn one by one, validation photographs
    would have their fellow eyes among those that are learnt from.
    """
    found = {row.key for row in rows if (int(row.id[-3:]) - 1) // _BLOCK % GRADE_FOLDS == fold - 1}
    while more := {row.key for row in rows if found & {*row.same_photograph, *row.same_eye}} - found:
        found |= more
    return frozenset(found)


def prepare(image: NDArray[np.uint8], shape: Sequence[int], settings: Preprocess) -> NDArray[np.float32]:
    """A photograph uint8 (H, W, 3) as float32 `shape` (C, side, side): its field of view, prepared, in a square.

    It is resampled to fill the square, unless `settings` say its scale: then it stands in the middle of the square.
    """
    prepared = preprocess.apply(image, find_fov(image), settings).image
    height, width = prepared.shape[1:]
    wanted = shape[1]
    side = wanted if settings.fov_diameter else max(height, width)
    square = np.zeros((len(prepared), side, side), np.float32)
    (y, high, top), (x, wide, left) = _overlap(height, side), _overlap(width, side)
    square[:, top : top + high, left : left + wide] = prepared[:, y : y + high, x : x + wide]
    if side == wanted:
        return square
    method = cv2.INTER_AREA if side > wanted else cv2.INTER_CUBIC
    return np.stack([cv2.resize(channel, (wanted, wanted), interpolation=method) for channel in square])


def _overlap(length: int, side: int) -> tuple[int, int, int]:
    """Where what is shown of a length begins in it, how long it is, and where it begins in the middle of a side."""
    shown = min(length, side)
    return (length - shown) // 2, shown, (side - shown) // 2


def strips(image: NDArray[np.float32], side: int, rows: int) -> Iterator[NDArray[np.float32]]:
    """The patches of all pixels of a prepared photograph (C, h, w), some rows at a time: (rows * w, C, side, side)."""
    around = padded(image, side)
    for first in range(0, image.shape[1], rows):
        strip = around[:, first : first + rows + side - 1]
        windows = np.lib.stride_tricks.sliding_window_view(strip, (side, side), axis=(1, 2))  # (C, rows, w, side, side)
        yield windows.transpose(1, 2, 0, 3, 4).reshape(-1, image.shape[0], side, side)
