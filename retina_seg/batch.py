"""Many photographs one after another: what cannot be segmented is set aside, the rest goes on.

The segmenting of one photograph is in inference, names and formats of files in io.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retina_seg import extents, io
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter
from retina_seg.lesions import Extent

EXTENTS = "lesions.csv"
"""Table of the lesions (`extents`) of all photographs, beside the results of models that find some."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input: the files written, the warnings and the extents of lesions, or the error."""

    source: Path
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    extents: Mapping[str, Extent] = field(default_factory=dict)


def plan(inputs: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Every photograph of files and folders with the stem of its results; no two stems are alike.

    Masks and overlays of an earlier run in a folder are not taken for photographs.

    Raises
    ------
    UserError
        If a folder holds no image.
    """
    named = {Path(given).absolute() for given in inputs}
    sources = io.find_images(inputs)
    results = {result for folder in {source.parent for source in sources} for result in _results_in(folder)}
    sources = [source for source in sources if source.absolute() in named or source.absolute() not in results]
    return list(zip(sources, io.output_stems(sources), strict=True))


def _results_in(folder: Path) -> set[Path]:
    """Files in `folder` that the JSON beside them lists as results of a photograph."""
    results: set[Path] = set()
    for record in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # somebody else's JSON
            results |= {(folder / name).absolute() for name in json.loads(record.read_text("utf-8")).get("files", ())}
    return results


def predict_files(
    segmenter: Segmenter,
    planned: Sequence[tuple[Path, str]],
    out: Path,
    *,
    what: tuple[str, ...] = ("mask", "prob", "overlay"),
    on_done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Segment the photographs of `plan` and save the results in `out`.

    Models of lesions add to the table EXTENTS after each photograph, with empty cells where nothing can be counted;
    lines of other photographs and other targets stay. A photograph that cannot be read or written is reported in its
    Outcome and leaves no file.

    Raises
    ------
    UserError
        If `out` cannot be made, or holds something else that is called like the table.
    """
    io.make_folder(out)
    measured = extents.measurable(segmenter.card.targets)
    table = _earlier(out / EXTENTS) if measured else {}
    finder = extents.disc_finder(segmenter.card.targets, segmenter.device)
    outcomes = []
    for source, stem in planned:
        try:
            prediction = segmenter.predict(source)
            unit = extents.disc_pixels(prediction, finder)
            found = extents.measure(prediction, unit)
            files = tuple(extents.recorded(prediction, found, unit).save(out, stem, what=what))
            outcome = Outcome(source, files, tuple(prediction.provenance["warnings"]), extents=found)
        except UserError as error:
            outcome = Outcome(source, error=str(error))
        except Exception as error:  # whatever it is, the other photographs can still be segmented
            outcome = Outcome(source, error=f"could not be segmented: {type(error).__name__}: {error}")
        outcomes.append(outcome)
        if measured:
            table |= _by_key(extents.lines(stem, measured, outcome.extents))
            io.write_bytes(out / EXTENTS, extents.csv_text(list(table.values())).encode())
        if on_done is not None:
            on_done(outcome)
    return outcomes


def _earlier(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of the table of earlier photographs, {} where there is none."""
    if not path.exists():
        return {}
    try:
        return _by_key(extents.read_csv(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a table of lesions that can be added to ({error}): move it away, or choose another --out"
        ) from None


def _by_key(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["photograph"], line["target"]): line for line in lines}
