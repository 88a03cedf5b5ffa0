"""Annotated photographs ready for a network: which rows a training uses, read, prepared, with their truth.

No patches (see patches) and no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, phantom, preprocess, quality
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.manifest import Row
from retina_seg.patches import TrainingImage
from retina_seg.preprocess import Prepared, Preprocess

QUALITY = "quality"
"""What scores can be split by though no manifest says it: `quality_of`."""


def quality_of(row: Row, data_root: str | Path) -> str:
    """Whether anything speaks against a photograph (`quality.of_photograph`): "in doubt", else "clear"."""
    image = datasets.load(row, data_root).image
    return "in doubt" if quality.of_photograph(image, find_fov(image)) else "clear"


@dataclass(frozen=True)
class Photograph:
    """A photograph for training and validation.

    `prepared` is what the network reads. Truth and field of view at the photograph's own size are held as `bits`,
    uint8 (K + 1, H, ceil(W / 8)), the field of view last: five annotations of 12 megapixels are 8 MB then, not 61.
    `differing` names what of it is not the release's (`datasets.differing`).
    """

    row: Row
    prepared: Prepared
    bits: NDArray[np.uint8]
    differing: tuple[str, ...] = ()

    @property
    def truth(self) -> NDArray[np.bool_]:
        """The annotations bool (K, H, W), unpacked anew each time."""
        return self._unpacked(self.bits[:-1])

    @property
    def fov(self) -> NDArray[np.bool_]:
        """The field of view bool (H, W), unpacked anew each time."""
        return self._unpacked(self.bits[-1])

    def _unpacked(self, bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return np.unpackbits(bits, axis=-1, count=self.prepared.geometry.width).view(np.bool_)

    def for_patches(self) -> TrainingImage:
        """Image, truth and field of view on the network's grid."""
        target = np.stack([preprocess.apply_to_target(t, self.prepared.geometry) for t in self.truth])
        return TrainingImage(self.prepared.image, target, self.prepared.fov)


def rows_of(protocols: Sequence[str], splits: Sequence[str]) -> list[Row]:
    """Rows of the packaged manifests that belong to one of `splits` under one of `protocols`.

    Raises UserError for an unknown protocol or where no row belongs.
    """
    known = {protocol: name for name, spec in datasets.DATASETS.items() for protocol in spec.protocols}
    found: dict[str, Row] = {}
    for protocol in protocols:
        if protocol not in known:
            raise UserError(f"unknown protocol {protocol!r}: choose from {', '.join(known)}")
        for row in datasets.rows(known[protocol]):
            if row.splits.get(protocol) in splits:
                found[row.key] = row
    if not found:
        raise UserError(f"no image is in the splits {', '.join(splits)} of {', '.join(protocols)}")
    return list(found.values())


def load_photograph(row: Row, data_root: str | Path, targets: Sequence[str], settings: Preprocess) -> Photograph:
    """Read and prepare one photograph; UserError where a target is not annotated in it."""
    sample = datasets.load(row, data_root, targets)
    if missing := [target for target in targets if target not in sample.targets]:
        raise UserError(
            f"{row.key} has no annotation of {', '.join(missing)}: it has {', '.join(row.targets) or 'none'}"
        )
    fov = find_fov(sample.image) if sample.fov is None else sample.fov
    bits = np.stack([np.packbits(mask, axis=-1) for mask in (*(sample.targets[target] for target in targets), fov)])
    differing = datasets.differing(row, datasets.hashes(sample), sample.image.shape[1::-1])
    return Photograph(row, preprocess.apply(sample.image, fov, settings), bits, tuple(differing))


def drawn_image(number: int, targets: Sequence[str], settings: Preprocess) -> TrainingImage:
    """The drawn photograph `number` (0, 1, ...), with exact truth; UserError for targets that are not drawn."""
    if tuple(targets) != ("vessels",):
        raise UserError(f"data.drawn: drawn photographs have the target vessels, not {', '.join(targets)}")
    drawing = phantom.draw(number)
    prepared = preprocess.apply(drawing.image, drawing.fov, settings)
    target = preprocess.apply_to_target(drawing.vessels, prepared.geometry)
    return TrainingImage(prepared.image, target[None], prepared.fov)
