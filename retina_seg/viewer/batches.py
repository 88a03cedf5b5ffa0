"""Many photographs in the viewer: one record for each, the table of them, and everything as one ZIP.

The batch of the command line, from and to the disk, is retina_seg.batch.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from retina_seg import io
from retina_seg.errors import UserError
from retina_seg.inference import Prediction
from retina_seg.viewer import engine, numbers
from retina_seg.viewer.opened import Photograph

SOUND, FLAGGED, FAILED = "no remark", "flagged", "failed"
"""Status of a record; FLAGGED has a result and a doubt, FAILED has no result."""

STATUSES = (FAILED, FLAGGED, SOUND)


@dataclass(frozen=True)
class Record:
    """What became of one photograph.

    Attributes
    ----------
    id, name : of the photograph; the name enters no output unless the user says so.
    model : what segmented it.
    status : SOUND, FLAGGED or FAILED.
    remarks : doubts, or the error.
    measured : biomarkers by name, {} where withheld.
    masks : target -> PNG.
    provenance : of the prediction, plain values.
    """

    id: str
    name: str
    model: str
    status: str
    remarks: tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, bytes] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def segment(photograph: Photograph, model: str, predict: Callable[[], Prediction]) -> Record:
    """The record of one photograph; `predict` gives its result. No error leaves this function."""
    try:
        prediction = predict()
        measured = numbers.measure(prediction, engine.disc_pixels(prediction))
        masks = {t: io.mask_png(mask) for t, mask in zip(prediction.targets, prediction.mask, strict=True)}
    except UserError as error:
        return Record(photograph.id, photograph.name, model, FAILED, (str(error),))
    except Exception as error:  # whatever it is, the other photographs can still be segmented
        return Record(photograph.id, photograph.name, model, FAILED, (f"unexpected {type(error).__name__}",))
    remarks = (*(doubt.text for doubt in prediction.doubts), *numbers.remarks(measured))
    status = FLAGGED if remarks else SOUND
    return Record(photograph.id, photograph.name, model, status, remarks, measured, masks, prediction.provenance)


def flagged_first(records: Iterable[Record]) -> list[Record]:
    """Failed, then flagged, then sound ones; each in the order given."""
    return sorted(records, key=lambda record: STATUSES.index(record.status))


def table(records: Sequence[Record], stems: Mapping[str, str], *, names: bool) -> list[dict[str, Any]]:
    """One row for each record, the columns of the CSV; the file's name is in it only with `names`."""
    columns = list(dict.fromkeys(name for record in records for name in record.measured))
    rows = []
    for record in records:
        stem, provenance = stems[record.id], record.provenance
        remarks = "; ".join(record.remarks)
        row: dict[str, Any] = {"photograph": stem}
        if names:
            row["file"] = record.name
        else:
            remarks = stem.join(re.split(rf"(?<!\w){re.escape(record.name)}(?!\w)", remarks))
        row |= {"status": record.status, "remarks": remarks, "model": record.model}
        row |= {name: record.measured.get(name) for name in columns}
        row |= {key: provenance.get(key) for key in ("width", "height", "seconds")}
        rows.append(row)
    return rows


def archive(records: Sequence[Record], stems: Mapping[str, str], *, names: bool) -> bytes:
    """A ZIP of every mask, the JSON beside it, and results.csv."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for record in records:
            written = []
            for target, content in record.masks.items():
                middle = f"_{target}" if len(record.masks) > 1 else ""
                written.append(f"{stems[record.id]}{middle}_mask.png")
                file.writestr(written[-1], content, zipfile.ZIP_STORED)  # a PNG shrinks no further
            if written:
                provenance = {**record.provenance, "source": record.name if names else None, "files": written}
                file.writestr(f"{stems[record.id]}.json", io.json_text(provenance))
        file.writestr("results.csv", io.comma_separated(table(records, stems, names=names)))
    return packed.getvalue()
