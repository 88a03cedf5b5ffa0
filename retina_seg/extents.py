"""How much of each lesion, and of the disc, a prediction marks: pieces, pixels and disc areas, as a table.

Counting is in lesions.py; nothing is drawn and no file written.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from retina_seg import io, lesions, quality, zoo
from retina_seg.datasets import LESIONS
from retina_seg.inference import Prediction, Segmenter
from retina_seg.lesions import Extent

DISC = "disc"


def disc_finder(targets: Iterable[str], device: str = "auto") -> Segmenter | None:
    """The packaged network whose disc is the unit for the lesions among `targets`; None where none is needed.

    None as well where `targets` has the disc itself, or no such network is packaged.
    """
    targets = set(targets)
    if not targets & set(LESIONS) or DISC in targets or DISC not in zoo.names():
        return None
    return Segmenter.from_pretrained(DISC, device)


def measurable(targets: Iterable[str]) -> list[str]:
    """Those of the targets that have an extent: lesions and the disc."""
    return [target for target in targets if target in (*LESIONS, DISC)]


def disc_pixels(prediction: Prediction, finder: Segmenter | None = None) -> int | None:
    """Area of the optic disc of the photograph in its pixels; None where it is not found beyond doubt (`quality`).

    Only its largest piece counts: there is one disc. `finder` looks for it where the prediction itself has none.
    """
    found = prediction
    if DISC not in prediction.targets:
        if finder is None:
            return None
        found = finder.predict(prediction.image, prediction.fov)
    place = found.targets.index(DISC)
    if quality.of_mask(DISC, found.prob[place], found.mask[place], found.fov):
        return None
    return lesions.largest_piece(found.mask[place])


def measure(prediction: Prediction, unit: int | None) -> dict[str, Extent]:
    """Target -> extent of every lesion and of the disc that the prediction has; {} where it has none of them.

    `unit` is the area of the optic disc in pixels (`disc_pixels`), None where it is not known.
    """
    found = {}
    for target in measurable(prediction.targets):
        mask = prediction.mask[prediction.targets.index(target)]
        found[target] = lesions.extent(mask, prediction.fov, None if target == DISC else unit)
    return found


def recorded(prediction: Prediction, found: Mapping[str, Extent]) -> Prediction:
    """The prediction whose provenance, and so its JSON, has the extents too; itself where there are none."""
    if not found:
        return prediction
    return replace(
        prediction,
        provenance={**prediction.provenance, "extent": {target: plain(extent) for target, extent in found.items()}},
    )


def plain(extent: Extent) -> dict[str, float | None]:
    """An extent as JSON knows it, disc areas to 4 significant digits."""
    areas = None if math.isnan(extent.disc_areas) else float(f"{extent.disc_areas:.4g}")
    return {"count": extent.count, "pixels": extent.pixels, "disc_areas": areas}


def csv_text(rows: Iterable[tuple[str, Mapping[str, Extent]]]) -> str:
    """A CSV table with a line for each photograph and target; disc areas are empty where they are unknown."""
    return io.comma_separated(
        [
            {"photograph": photograph, "target": target, **plain(extent)}
            for photograph, found in rows
            for target, extent in found.items()
        ]
    )
