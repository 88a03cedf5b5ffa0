"""What can be learnt: every set of labelled examples behind one interface, by name.

No network. Retinal tasks are read in fundus; what may be wrong with their sets is on the cards of data_manifests.
"""

import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn import datasets as toys
from sklearn.model_selection import StratifiedKFold, train_test_split

from retina_seg import datasets, protocols
from retina_seg.classify import fundus
from retina_seg.classify.examples import Images, Labelled
from retina_seg.classify.outputs import Head
from retina_seg.errors import UserError
from retina_seg.preprocess import Preprocess

DIGITS = tuple("0123456789")
_FOLDS = 5
_MOST_BYTES = 2**30  # of an idx file, unpacked; MNIST's largest has 47 million


@dataclass(frozen=True)
class LearningSet:
    """A task with its data: the questions, and labelled examples to learn from, to watch and to be scored on.

    `differing` gets the photographs that are read and are not the release's: key -> what of each.
    """

    heads: tuple[Head, ...]
    train: Labelled
    val: Labelled
    test: Labelled
    differing: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def part(self, name: str) -> Labelled:
        """train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True)
class Wanted:
    """What of a task is asked for; see `config.ClassifyData`."""

    data_root: Path = Path("data")
    size: int | None = None
    fold: int = 1
    shift: int = 0
    folder: str = ""
    seed: int = 0
    preprocess: Preprocess = field(default_factory=Preprocess)


@dataclass(frozen=True)
class TaskSpec:
    """How a task is read.

    Attributes
    ----------
    load : reads it.
    retinal : whether its images are photographs, prepared as `preprocess` says.
    ordered : whether its answers are `Head.ordered`.
    prepare : one image uint8 (H, W, 3) as the task has its images, for shape (C, h, w) and preprocess; None where a
        single image has no answer.
    size : side of the images unless another is wanted.
    folds : how many folds there are.
    watched_folds : whether a fold says which examples are watched, the test examples being the same in all.
    about : in a line, for a list.
    columns : by which its scores are split (`Labelled.columns`).
    """

    load: Callable[[Wanted], LearningSet]
    about: str
    prepare: Callable[[NDArray[np.uint8], Sequence[int], Preprocess], NDArray[np.float32]] | None = None
    size: int = 1
    folds: int = 1
    watched_folds: bool = False
    retinal: bool = False
    ordered: bool = False
    columns: tuple[str, ...] = ()


def _labelled(images: Images, labels: NDArray[np.int64] | NDArray[np.float32], name: str) -> Labelled:
    """Examples that are nobody's in particular: each is its own subject."""
    keys = tuple(f"{name}:{number}" for number in range(len(images)))
    return Labelled(images, labels.reshape(len(images), -1), keys, keys)


def _digits(wanted: Wanted) -> tuple[Images, NDArray[np.int64]]:
    """scikit-learn's 1,797 digits, enlarged from 8 x 8, paper 0 and ink 1."""
    found = toys.load_digits()
    return _Scaled(found.images / 16, wanted.size or TASKS["digits"].size), found.target.astype(np.int64)


@dataclass(frozen=True)
class _Scaled:
    """Images (N, h, w), bytes or floats in [0, 1], each `_scaled` to a side when it is asked for."""

    images: NDArray[np.uint8] | NDArray[np.float64]
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        image = self.images[index]
        return _scaled(image / 255 if image.dtype == np.uint8 else image, self.side)


def _scaled(image: NDArray[np.floating[Any]], side: int) -> NDArray[np.float32]:
    """An image (h, w) in [0, 1] in the middle of a square of paper, 0, at the wanted side: (1, side, side)."""
    height, width = image.shape
    longer = max(height, width)
    above, left = (longer - height) // 2, (longer - width) // 2
    square = np.pad(image, ((above, longer - height - above), (left, longer - width - left))).astype(np.float32)
    method = cv2.INTER_AREA if side < longer else cv2.INTER_CUBIC
    return np.clip(cv2.resize(square, (side, side), interpolation=method), 0, 1)[None]


def _shifted(part: Labelled, shift: int) -> Labelled:
    """Every image moved by up to `shift` px each way, paper coming in from outside; the same in every run."""
    if not shift:
        return part
    rng = np.random.default_rng(shift)
    moved = []
    for number in range(len(part)):
        image = part.images[number]
        dy, dx = rng.integers(-shift, shift + 1, 2)
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)))
        height, width = image.shape[1:]
        moved.append(padded[:, shift - dy : shift - dy + height, shift - dx : shift - dx + width])
    return replace(part, images=np.stack(moved))


def _digits_by_fold(wanted: Wanted) -> LearningSet:
    """Five folds; of what is not the test fold a fifth, drawn by the seed, is watched."""
    images, labels = _digits(wanted)
    everything = _labelled(images, labels, "digits")
    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(labels, labels))
    rest, test = folds[wanted.fold - 1]
    train, val = train_test_split(rest, test_size=0.2, stratify=labels[rest], random_state=_drawn_by(wanted))
    moved = _shifted(everything.take(test), wanted.shift)
    return LearningSet((Head("digit", DIGITS),), everything.take(train), everything.take(val), moved)


def _drawn_by(wanted: Wanted) -> int:
    """The seed as scikit-learn takes it: seeds of a configuration may be larger."""
    return wanted.seed % 2**32


def _digits_320(wanted: Wanted) -> LearningSet:
    """As many digits as LeCun 1989 had: 320 to learn from and 160 to be scored on, with 160 others to watch."""
    images, labels = _digits(wanted)
    everything = _labelled(images, labels, "digits")
    train, rest = train_test_split(
        np.arange(len(labels)), train_size=320, test_size=320, stratify=labels, random_state=_drawn_by(wanted)
    )
    val, test = train_test_split(rest, test_size=160, stratify=labels[rest], random_state=_drawn_by(wanted))
    moved = _shifted(everything.take(test), wanted.shift)
    return LearningSet((Head("digit", DIGITS),), everything.take(train), everything.take(val), moved)


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """An array of MNIST's file format (idx), compressed or not; UserError where it is missing or something else."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            try:
                with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                    content = stream.read(_MOST_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{path} cannot be unpacked ({error}): get it again") from None
            if len(content) > _MOST_BYTES:
                raise UserError(f"{path} holds more than {_MOST_BYTES:,} bytes: it is not of a set like MNIST")
            dimensions = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
            start = 4 + 4 * dimensions
            shape = np.frombuffer(content[4:start].ljust(start - 4, b"\xff"), ">u4").astype(int)
            if not dimensions or len(content) != start + math.prod(map(int, shape)):
                raise UserError(f"{path} is not a whole idx file of bytes, as MNIST has them: get it again")
            return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    raise UserError(
        f"there is no {name} or {name}.gz in {folder}: put MNIST's four files there, or name the folder they are in by "
        "data.folder, below the data root or absolute"
    )


def _mnist(wanted: Wanted) -> LearningSet:
    """Any set in MNIST's four files; the last tenth of the training images is watched. Keys tell files apart."""
    folder = wanted.data_root / (wanted.folder or "MNIST")
    parts = []
    for name in ("train", "t10k"):
        images, labels = _idx(folder, f"{name}-images-idx3-ubyte"), _idx(folder, f"{name}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise UserError(f"{folder}: {name} has images {images.shape} and labels {labels.shape}: they do not fit")
        if not images.size:
            raise UserError(f"{folder}: {name} has images {images.shape}: there is nothing in them")
        pixels = _Scaled(images, wanted.size or TASKS["mnist"].size)
        content = zlib.crc32(labels.tobytes(), zlib.crc32(images.tobytes()))
        parts.append(_labelled(pixels, labels.astype(np.int64), f"{folder.name}-{name}-{content:08x}"))
    everything, test = parts
    classes = tuple(str(number) for number in range(1 + int(max(everything.labels.max(), test.labels.max()))))
    if len(classes) < 2:
        raise UserError(f"{folder}: all images have label 0, and with one class there is nothing to tell apart")
    if len(everything) < 10:
        raise UserError(
            f"{folder} has {len(everything)} training images: a tenth is watched, so at least 10 are needed"
        )
    border = len(everything) - len(everything) // 10
    train, val = everything.take(np.arange(border)), everything.take(np.arange(border, len(everything)))
    return LearningSet((Head("digit", classes),), train, val, _shifted(test, wanted.shift))


def _flowers(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], list[NDArray[np.int64]]]:
    """Measures (150, 4) of Fisher's irises, their species, and 90, 30 and 30 of them by the seed."""
    found = toys.load_iris()
    labels = found.target.astype(np.int64)
    train, rest = train_test_split(np.arange(150), train_size=90, stratify=labels, random_state=seed)
    val, test = train_test_split(rest, test_size=30, stratify=labels[rest], random_state=seed)
    return found.data.astype(np.float32), labels, [train, val, test]


def _iris(wanted: Wanted) -> LearningSet:
    """The species from sepal and petal length and width, each standardised by the training flowers."""
    measures, labels, parts = _flowers(_drawn_by(wanted))
    mean, deviation = measures[parts[0]].mean(axis=0), measures[parts[0]].std(axis=0)
    everything = _labelled(((measures - mean) / deviation)[:, :, None, None], labels, "iris")
    train, val, test = (everything.take(part) for part in parts)
    return LearningSet((Head("species", ("setosa", "versicolor", "virginica")),), train, val, test)


def _petals(wanted: Wanted) -> LearningSet:
    """A regression on one feature: the width of a petal, cm, from its length, cm."""
    measures, _, parts = _flowers(_drawn_by(wanted))
    everything = _labelled(measures[:, 2:3, None, None], measures[:, 3:4], "petals")
    train, val, test = (everything.take(part) for part in parts)
    return LearningSet((Head("petal_width_cm", ()),), train, val, test)


def _vessel_patches(wanted: Wanted) -> LearningSet:
    """Vessel or background in the middle of a patch, places drawn by the seed."""
    size = wanted.size or TASKS["vessel-patches"].size
    differing: dict[str, Sequence[str]] = {}
    heads, parts = fundus.vessel_patches(wanted.data_root, size, wanted.preprocess, wanted.seed, differing)
    return LearningSet(heads, parts["train"], parts["val"], parts["test"], differing)


def _grades(wanted: Wanted) -> LearningSet:
    """Grades of whole photographs; the fold says which of them are watched."""
    size = wanted.size or TASKS["idrid-grade"].size
    differing: dict[str, Sequence[str]] = {}
    heads, parts = fundus.grades(wanted.data_root, size, wanted.preprocess, wanted.fold, differing)
    return LearningSet(heads, parts["train"], parts["val"], parts["test"], differing)


def _prepare_digit(image: NDArray[np.uint8], shape: Sequence[int], _settings: Preprocess) -> NDArray[np.float32]:
    """A digit of any size and shape, light ink on dark or dark on light, as the tasks of digits have them."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255.0
    ink = 1 - grey if np.median(grey) > 0.5 else grey
    return _scaled(ink, shape[1])


TASKS: dict[str, TaskSpec] = {
    "digits": TaskSpec(_digits_by_fold, "scikit-learn's 1,797 digits, five folds", _prepare_digit, 16, _FOLDS),
    "digits-320": TaskSpec(
        _digits_320, "320 of them to learn from, 160 to be scored on, by the seed", _prepare_digit, 16
    ),
    "mnist": TaskSpec(_mnist, "four files of MNIST's format below data.folder", _prepare_digit, 28),
    "iris": TaskSpec(_iris, "three species from four measures of 150 flowers"),
    "petals": TaskSpec(_petals, "the width of a petal from its length: a regression"),
    "vessel-patches": TaskSpec(
        _vessel_patches,
        "vessel or background in the middle of a patch, DRIVE",
        None,
        27,
        retinal=True,
        columns=("photograph",),
    ),
    "idrid-grade": TaskSpec(
        _grades,
        "retinopathy grade and risk of macular oedema, IDRiD; five folds of validation photographs",
        fundus.prepare,
        512,
        fundus.GRADE_FOLDS,
        watched_folds=True,
        retinal=True,
        ordered=True,
        columns=("dr_grade", "dme_risk", "eye"),
    ),
}


def find(name: str) -> TaskSpec:
    """The task called `name`; UserError lists the known ones."""
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]


def load(name: str, wanted: Wanted) -> LearningSet:
    """A task with its data.

    Raises
    ------
    UserError
        For an unknown task, a fold it does not have, a shift of images that cannot be shifted, missing files.
    """
    spec = find(name)
    if not 1 <= wanted.fold <= spec.folds:
        raise UserError(f"data.fold is {wanted.fold}: {name} has {spec.folds} fold{'s' * (spec.folds > 1)}")
    if wanted.shift and spec.prepare is not _prepare_digit:
        raise UserError(f"data.shift moves digits: {name} has none; leave it out")
    if wanted.shift >= (wanted.size or spec.size):
        raise UserError(f"data.shift is {wanted.shift} px: that moves digits of {wanted.size or spec.size} px away")
    if wanted.folder and name != "mnist":
        raise UserError(f"data.folder: {name} has no files of its own; leave it out")
    if not spec.retinal and wanted.preprocess != Preprocess():
        raise UserError(f"preprocess: {name} has no photographs; leave it out")
    if wanted.size and spec.size == 1:
        raise UserError(f"data.size: {name} has no images; leave it out")
    return spec.load(wanted)


def seen(name: str, part: Labelled, images: Iterable[str]) -> list[str]:
    """Keys of the examples of a task that `images` show: themselves, or the same eye in another photograph."""
    if not find(name).retinal:
        known_images = frozenset(images)
        return [key for key in part.keys if key in known_images]
    known = datasets.by_key()
    shown = {key: known[key.partition("@")[0]] for key in part.keys}
    rows = {row.key: row for row in shown.values()}
    bad = set(protocols.leaks(rows.values(), [key.partition("@")[0] for key in images]))
    return [key for key, row in shown.items() if row.key in bad]
