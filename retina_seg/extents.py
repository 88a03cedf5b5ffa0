"""How much of each lesion, and of the disc, a prediction marks: pieces, pixels and disc areas, as a table.

Counting is in lesions.py; nothing is drawn and no file written.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np

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
    """Area of the optic disc of the photograph in its pixels; None where it is not found beyond doubt.

    There is doubt where `quality` has some about the photograph or the mask, and where the disc reaches the rim of the
    field of view: part of it may be missing. Only its largest piece counts: there is one disc. `finder` looks for it
    where the prediction itself has none.
    """
    if withheld(prediction):
        return None
    found = prediction
    if DISC not in prediction.targets:
        if finder is None:
            return None
        found = finder.predict(prediction.image, prediction.fov, judge=False)
    place = found.targets.index(DISC)
    if quality.of_mask(DISC, found.prob[place], found.mask[place], found.fov):
        return None
    disc = lesions.largest_piece(found.mask[place])
    return None if lesions.is_cut(disc, found.fov) else int(np.count_nonzero(disc))


def withheld(prediction: Prediction) -> bool:
    """Whether nothing should be counted: something is wrong with the photograph (`quality.Doubt.withholds`)."""
    return quality.withheld(prediction.photograph_doubts)


def measure(prediction: Prediction, unit: int | None) -> dict[str, Extent]:
    """Target -> extent of every lesion and of the disc that the prediction has; {} where it has none of them.

    {} as well where numbers are `withheld`. Of the disc only the largest piece counts: there is one. `unit` is the area
    of the optic disc in pixels (`disc_pixels`), None where it is not known.
    """
    found = {}
    for target in [] if withheld(prediction) else measurable(prediction.targets):
        mask = prediction.mask[prediction.targets.index(target)]
        if target == DISC:
            found[target] = lesions.extent(lesions.largest_piece(mask), prediction.fov)
        else:
            found[target] = lesions.extent(mask, prediction.fov, unit)
    return found


def recorded(prediction: Prediction, found: Mapping[str, Extent], unit: int | None) -> Prediction:
    """The prediction whose provenance, and so its JSON, has the extents and their unit too; itself without any."""
    if not found:
        return prediction
    extents = {target: plain(extent) for target, extent in found.items()}
    return replace(prediction, provenance={**prediction.provenance, "extent": extents, "disc_pixels": unit})


def plain(extent: Extent) -> dict[str, float | None]:
    """An extent as JSON knows it, disc areas to 4 significant digits."""
    areas = None if math.isnan(extent.disc_areas) else float(f"{extent.disc_areas:.4g}")
    return {"count": extent.count, "pixels": extent.pixels, "disc_areas": areas}


COLUMNS = ("photograph", "target", "count", "pixels", "disc_areas")


def lines(photograph: str, targets: Iterable[str], found: Mapping[str, Extent]) -> list[dict[str, Any]]:
    """A line of the table (COLUMNS) for each target of a photograph; what is not known is empty."""
    return [
        {"photograph": photograph, "target": target, **(plain(found[target]) if target in found else _UNKNOWN)}
        for target in measurable(targets)
    ]


_UNKNOWN: dict[str, float | None] = dict.fromkeys(COLUMNS[2:])


def csv_text(table: Sequence[Mapping[str, Any]]) -> str:
    """`lines` as CSV text."""
    return io.comma_separated(table, COLUMNS)


def read_csv(text: str) -> list[dict[str, Any]]:
    """The lines of a table that `csv_text` wrote, or a spreadsheet saved anew; ValueError for another table.

    A spreadsheet sets semicolons or tabs between cells where commas are for decimals, and puts a byte order mark first.
    """
    first = text.removeprefix("\ufeff").partition("\n")[0]
    between = max(",;\t", key=first.count)
    reader = csv.DictReader(StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=between, restkey="")
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"columns {', '.join(reader.fieldnames or ())}, not {', '.join(COLUMNS)}")
    found = []
    for number, line in enumerate(reader, start=2):
        if "" in line or None in line.values():
            raise ValueError(f"line {number} has not {len(COLUMNS)} cells")
        row = {name: io.without_guard(cell) for name, cell in line.items()}
        if between != ",":
            row |= {name: row[name].replace(",", ".") for name in COLUMNS[2:]}
        found.append(row)
    return found
