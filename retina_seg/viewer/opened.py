"""Photographs at hand: uploaded files, drawn examples, images of the known sets; read when they are looked at.

Uploaded bytes stay in memory. No results (see session).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, io, labels, phantom
from retina_seg.decode import InMemory
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.manifest import Row
from retina_seg.viewer import shown


@dataclass(frozen=True)
class Loaded:
    """Pixels: image uint8 (H, W, 3); fov bool (H, W), None where it is to be found; truths name -> bool (H, W)."""

    image: NDArray[np.uint8]
    fov: NDArray[np.bool_] | None
    truths: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Photograph:
    """One photograph a user can look at.

    Attributes
    ----------
    id : unique in a session.
    name : shown on the page; it may hold a patient's name and enters no output unless the user says so.
    source : "file", "drawn" or the name of a set.
    read : gives the pixels; UserError where there are none.
    """

    id: str
    name: str
    source: str
    read: Callable[[], Loaded]


def upload(file_id: str, name: str, content: Callable[[], bytes]) -> Photograph:
    """A dropped file; `content` gives its bytes."""
    name = shown.line(name)

    def read() -> Loaded:
        return Loaded(io.read_image(InMemory(name, content())), None, {})

    return Photograph(f"file:{file_id}", name, "file", read)


def truth(name: str, content: bytes, shape: tuple[int, int], target: str = labels.VESSELS) -> NDArray[np.bool_]:
    """A dropped annotation of `target`, bool (H, W), for a photograph of `shape`; UserError where it does not fit."""
    name = shown.line(name)
    marked = io.read_mask(InMemory(name, content), target=target)
    if marked.shape != shape:
        raise UserError(
            f"{name} is {marked.shape[1]} x {marked.shape[0]} pixels, the photograph {shape[1]} x {shape[0]}: "
            "a truth must have the photograph's own size"
        )
    return marked


def right_way_round(marked: NDArray[np.bool_], loaded: Loaded, name: str, target: str) -> tuple[NDArray[np.bool_], str]:
    """`labels.right_way_round` inside the field of view of the photograph."""
    fov = find_fov(loaded.image) if loaded.fov is None else loaded.fov
    return labels.right_way_round(marked, fov, shown.line(name), target)


def _plain(seed: int, contrast: float = 1.0) -> Callable[[], Loaded]:
    def read() -> Loaded:
        drawn = phantom.draw(seed, contrast=contrast)
        return Loaded(drawn.image, None, {"vessels": drawn.vessels})

    return read


def _blurred() -> Loaded:
    drawn = phantom.draw(2)
    return Loaded(cv2.GaussianBlur(drawn.image, (0, 0), 6.0), None, {"vessels": drawn.vessels})


def _dark() -> Loaded:
    drawn = phantom.draw(4)
    return Loaded((drawn.image * 0.08).astype(np.uint8), None, {"vessels": drawn.vessels})


DRAWN: dict[str, Callable[[], Loaded]] = {
    "Drawn eye A": _plain(1),
    "Drawn eye B": _plain(5),
    "Faint vessels": _plain(3, contrast=0.5),
    "Out of focus": _blurred,
    "Too dark": _dark,
}
"""Examples that are always there; their truth is exact."""


def drawn(name: str) -> Photograph:
    """One of DRAWN."""
    return Photograph(f"drawn:{name}", name, "drawn", DRAWN[name])


def sets(data_root: Path | None) -> list[str]:
    """Names of the known sets that are below the data root."""
    if data_root is None:
        return []
    return [name for name, entry in datasets.DATASETS.items() if (data_root / entry.folder).is_dir()]


def of_set(row: Row, data_root: Path) -> Photograph:
    """A photograph of a known set with its annotations."""

    def read() -> Loaded:
        sample = datasets.load(row, data_root)
        return Loaded(sample.image, sample.fov, sample.targets)

    return Photograph(row.key, f"{row.dataset} {row.id}", row.dataset, read)


def find(key: str, data_root: Path | None) -> Photograph:
    """The photograph of a set by its key ("drive:01").

    Raises
    ------
    UserError
        If no data root is set or there is no such photograph.
    """
    name, _, identity = key.partition(":")
    if data_root is None:
        raise UserError(
            f"{key} cannot be opened: start the viewer with --data-root, the folder that holds the public sets"
        )
    for row in datasets.rows(name):
        if row.id == identity:
            return of_set(row, data_root)
    raise UserError(f"there is no photograph {key}")
