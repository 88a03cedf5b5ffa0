"""Labelled examples, chosen and put together; where they come from is in tasks and fundus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Images(Protocol):
    """Images float32 (C, h, w), read when they are asked for or all in one array."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        """One of them."""


@dataclass(frozen=True)
class Labelled:
    """Examples of one side of a split.

    Attributes
    ----------
    images : N images.
    labels : int64 (N, heads), the number of each answer, or float32 (N, 1) where the answer is a number.
    keys : what each example is called; of photographs `dataset:id`.
    subjects : the unit that is split and resampled, one an example.
    columns : name -> text of each example, by which scores can be split.
    """

    images: Images
    labels: NDArray[np.int64] | NDArray[np.float32]
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.keys)

    def take(self, chosen: NDArray[np.int64]) -> "Labelled":
        """Some of the examples."""

        def some(texts: Sequence[str]) -> tuple[str, ...]:
            return tuple(texts[index] for index in chosen)

        columns = {name: some(texts) for name, texts in self.columns.items()}
        return Labelled(
            _Chosen(self.images, chosen), self.labels[chosen], some(self.keys), some(self.subjects), columns
        )


@dataclass(frozen=True)
class _Chosen:
    images: Images
    chosen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.images[int(self.chosen[index])]


def few(part: Labelled, share: float, seed: int) -> Labelled:
    """The same share of the examples of every class of the first question, drawn by the seed; of each at least one."""
    if share == 1:
        return part
    rng = np.random.default_rng(seed)
    first = part.labels[:, 0]
    chosen: list[int] = []
    for label in np.unique(first) if part.labels.dtype == np.int64 else [None]:
        members = np.flatnonzero(first == label) if label is not None else np.arange(len(part))
        chosen += rng.permutation(members)[: max(1, round(share * len(members)))].tolist()
    return part.take(np.array(sorted(chosen)))


def joined(parts: Sequence[Labelled]) -> Labelled:
    """The examples of several parts, one behind the other."""
    keys = [key for part in parts for key in part.keys]
    subjects = [subject for part in parts for subject in part.subjects]
    columns = {name: tuple(text for part in parts for text in part.columns[name]) for name in parts[0].columns}
    labels = np.concatenate([part.labels for part in parts])
    return Labelled(_Behind([part.images for part in parts]), labels, tuple(keys), tuple(subjects), columns)


class _Behind:
    """Images of several parts, one behind the other."""

    def __init__(self, parts: Sequence[Images]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        for part in self._parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)
