"""Training patches as torch data: where they are cut, how they are augmented, how every one is reproducible.

No files and no normalisation: photographs arrive prepared.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from retina_seg import pieces
from retina_seg.augment import Augmenter
from retina_seg.errors import UserError

# Whole photographs of a batch have one size: the largest, rounded up to a multiple of this many pixels.
_WHOLE_MULTIPLE = 32


@dataclass(frozen=True)
class TrainingImage:
    """A prepared photograph: `image` float32 (C, h, w), `fov` bool (h, w), `target` (K, h, w).

    `target` is bool, or float32 in [0, 1] where it is what a teacher sees.
    """

    image: NDArray[np.float32]
    target: NDArray[np.bool_] | NDArray[np.float32]
    fov: NDArray[np.bool_]


@dataclass(frozen=True)
class _Source:
    """A photograph as patches are cut from it, channels last.

    `image` float32 (h, w, C); `labels`: target and field of view, uint8 together where the target is bool, else
    float32 (h, w, K) and uint8 (h, w, 1); `box`: first and last row, first and last column of the field of view;
    `pieces`: for each target its connected pieces, each the indices into the flattened (h, w) of its pixels, where
    they were asked for.
    """

    image: NDArray[np.float32]
    labels: tuple[NDArray[np.uint8] | NDArray[np.float32], ...]
    box: tuple[int, int, int, int]
    pieces: tuple[list[NDArray[np.int64]], ...] = ()

    @classmethod
    def of(cls, given: TrainingImage, *, with_pieces: bool = False) -> "_Source":
        rows, columns = (np.flatnonzero(given.fov.any(axis=axis)) for axis in (1, 0))
        hard = given.target.dtype == np.bool_
        parts = [np.concatenate([given.target, given.fov[None]])] if hard else [given.target, given.fov[None]]
        return cls(
            _channels_last(given.image),
            tuple(_channels_last(part.astype(np.uint8) if part.dtype == np.bool_ else part) for part in parts),
            (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])),
            tuple(_pieces((target >= 0.5) & given.fov) for target in given.target) if with_pieces else (),
        )


def _pieces(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The `pieces` of `mask` (h, w), each as the indices of its pixels in the flattened mask."""
    count, labels = pieces.numbered(mask)
    pixels = np.flatnonzero(mask)
    pixels = pixels[np.argsort(labels.ravel()[pixels], kind="stable")]
    return np.split(pixels, np.cumsum(pieces.areas(labels, count, mask))[:-1]) if count else []


class Examples(Dataset[dict[str, torch.Tensor]], ABC):
    """What a training sees, in order; every item is the same in every run."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples of the whole training."""


class PatchDataset(Examples):
    """Augmented square patches centred inside the field of view, or whole photographs.

    Item `index` depends on the seed and the index alone, for any non-negative index: not on workers, on
    processes or on what was drawn before. A resumed run therefore sees what the uninterrupted one sees.

    Parameters
    ----------
    images : photographs to cut from, each equally often.
    size : side of the patch, px; "image" for whole photographs, all of them once before any comes again.
    augment : name in augment.PIPELINES.
    length : number of patches of the whole training.
    on_target : share of the patches that are cut around something marked, for targets that most patches would miss:
        first a target is drawn, of those that occur at all, then a photograph that shows it, then one of its pieces,
        so that small lesions come as often as large ones. The others are uniform over the field of view.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        *,
        size: int | Literal["image"],
        augment: str,
        length: int,
        seed: int,
        on_target: float = 0.0,
    ) -> None:
        if not images:
            raise UserError("there are no training images: check data.protocols and data.fit")
        if on_target and size == "image":
            raise UserError("training.on_target places patches: give training.patch_size a number of pixels, not image")
        self.images = [_Source.of(image, with_pieces=on_target > 0) for image in images]
        shown = {k: [one for one in self.images if one.pieces and one.pieces[k]] for k in range(len(images[0].target))}
        self._showing = [(k, sources) for k, sources in shown.items() if sources]
        self._on_target = on_target
        if on_target and not self._showing:
            raise UserError("training.on_target: nothing is marked in the training images")
        self.whole = size == "image"
        longest = max(max(image.fov.shape) for image in images)
        self.size = longest + -longest % _WHOLE_MULTIPLE if size == "image" else size
        self.length, self.seed = length, seed
        self._augmenter = Augmenter(augment, self.size, images[0].image.shape[0])

    def __len__(self) -> int:
        """Patches of the whole training."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`image` float32 (C, s, s), `target` float32 (K, s, s) in [0, 1], `fov` float32 (1, s, s) in {0, 1}."""
        rng = np.random.default_rng([self.seed, index])
        if self.whole:
            round_, place = divmod(index, len(self.images))
            order = np.random.default_rng([self.seed, round_]).permutation(len(self.images))
            source = self.images[order[place]]
            height, width = source.image.shape[:2]
            centre = height // 2, width // 2
        elif self._on_target and rng.random() < self._on_target:
            source, centre = self._around_a_piece(rng)
        else:
            source = self.images[rng.integers(len(self.images))]
            centre = self._centre(source.box, rng)
        image, labels = self._augmenter(source.image, source.labels, centre, int(rng.integers(2**32)))
        truth = torch.cat([_channels_first(label) for label in labels])
        return {"image": _channels_first(image), "target": truth[:-1], "fov": truth[-1:]}

    def _around_a_piece(self, rng: np.random.Generator) -> tuple[_Source, tuple[int, int]]:
        """A photograph, and a patch centre up to a quarter of a side away from a pixel that is marked in it."""
        target, sources = self._showing[rng.integers(len(self._showing))]
        source = sources[rng.integers(len(sources))]
        shown = source.pieces[target]
        piece = shown[rng.integers(len(shown))]
        y, x = divmod(int(piece[rng.integers(len(piece))]), source.image.shape[1])
        away = rng.integers(-(self.size // 4), self.size // 4 + 1, 2)
        return source, (y + int(away[0]), x + int(away[1]))

    def _centre(self, box: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int]:
        """A patch centre, uniform in the box where the patch stays over the field of view as far as it can."""
        position = []
        for first, last in (box[:2], box[2:]):
            low, high = first + self.size // 2, last + 1 - self.size // 2
            if high <= low:  # the patch is larger than the field of view: move it by a quarter of its side
                middle = (first + last) // 2
                low, high = middle - self.size // 8, middle + self.size // 8
            position.append(int(rng.integers(low, high + 1)))
        return position[0], position[1]


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """(C, h, w) to (h, w, C), in memory too."""
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _channels_first(array: NDArray[Any]) -> torch.Tensor:
    """(h, w, C) to a float32 tensor (C, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32))


class RangeSampler(Sampler[int]):
    """The indices from `start` to `stop`, in order: the shuffling is in the patches themselves."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        """Indices in order."""
        return iter(range(self.start, self.stop))

    def __len__(self) -> int:
        """Number of indices."""
        return self.stop - self.start


def loader(
    dataset: Examples, *, batch_size: int, start: int = 0, workers: int = 0, pin_memory: bool = False
) -> DataLoader[dict[str, torch.Tensor]]:
    """Batches of `dataset` from example `start` to its end."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RangeSampler(start, len(dataset)),
        num_workers=workers,
        # One of its own: drawing from the common generator would give a resumed run other chances (dropout).
        generator=torch.Generator(),
        pin_memory=pin_memory,
        drop_last=True,
    )
