"""Training patches as torch data: where they are cut, how they are augmented, how every one is reproducible.

No files and no normalisation: photographs arrive prepared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from retina_seg.augment import Augmenter
from retina_seg.errors import UserError


@dataclass(frozen=True)
class TrainingImage:
    """A prepared photograph: `image` float32 (C, h, w), `target` bool (K, h, w), `fov` bool (h, w)."""

    image: NDArray[np.float32]
    target: NDArray[np.bool_]
    fov: NDArray[np.bool_]


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Augmented square patches centred inside the field of view.

    Item `index` depends on the seed and the index alone, for any non-negative index: not on workers, on
    processes or on what was drawn before. A resumed run therefore sees what the uninterrupted one sees.

    Parameters
    ----------
    images : photographs to cut from, each equally often.
    size : side of the patch, px.
    augment : name in augment.PIPELINES.
    length : number of patches of the whole training.
    """

    def __init__(self, images: Sequence[TrainingImage], *, size: int, augment: str, length: int, seed: int) -> None:
        if not images:
            raise UserError("there are no training images: check data.protocol and data.fit")
        self.images = list(images)
        self.size, self.length, self.seed = size, length, seed
        self._augmenter = Augmenter(augment, size)

    def __len__(self) -> int:
        """Patches of the whole training."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`image` float32 (C, s, s), `target` float32 (K, s, s) in {0, 1}, `fov` float32 (1, s, s) in {0, 1}."""
        rng = np.random.default_rng([self.seed, index])
        source = self.images[rng.integers(len(self.images))]
        centre = self._centre(source.fov, rng)
        reach = self._augmenter.reach
        image = _cut(source.image, centre, reach)
        masks = _cut(np.concatenate([source.target, source.fov[None]]).astype(np.uint8), centre, reach)
        image, masks = self._augmenter(
            np.ascontiguousarray(image.transpose(1, 2, 0)),
            np.ascontiguousarray(masks.transpose(1, 2, 0)),
            int(rng.integers(2**32)),
        )
        labels = torch.from_numpy(masks.transpose(2, 0, 1).astype(np.float32))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": pixels, "target": labels[:-1], "fov": labels[-1:]}

    def _centre(self, fov: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
        """A patch centre, uniform in the box where the patch stays over the field of view as far as it can."""
        position = []
        for axis in (0, 1):
            inside = np.flatnonzero(fov.any(axis=1 - axis))
            low, high = inside[0] + self.size // 2, inside[-1] + 1 - self.size // 2
            if high <= low:  # the patch is larger than the field of view: move it by a quarter of its side
                middle = (inside[0] + inside[-1]) // 2
                low, high = middle - self.size // 8, middle + self.size // 8
            position.append(int(rng.integers(low, high + 1)))
        return position[0], position[1]


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
    dataset: PatchDataset, *, batch_size: int, start: int = 0, workers: int = 0, pin_memory: bool = False
) -> DataLoader[dict[str, torch.Tensor]]:
    """Batches of `dataset` from patch `start` to its end."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RangeSampler(start, len(dataset)),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        drop_last=True,
    )


def _cut(array: NDArray, centre: tuple[int, int], side: int) -> NDArray:
    """The square (C, side, side) around `centre` of `array` (C, h, w), zeros where it leaves the array."""
    out = np.zeros((array.shape[0], side, side), array.dtype)
    (y, x), (h, w) = (c - side // 2 for c in centre), array.shape[1:]
    y0, y1, x0, x1 = max(y, 0), min(y + side, h), max(x, 0), min(x + side, w)
    if y1 > y0 and x1 > x0:
        out[:, y0 - y : y1 - y, x0 - x : x1 - x] = array[:, y0:y1, x0:x1]
    return out
