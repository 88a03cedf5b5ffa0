"""Many photographs one after another: what cannot be segmented is set aside, the rest goes on.

The segmenting of one photograph is in inference, what files may be replaced in files.
"""

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol, TypeVar

from retina_seg import extents, files, io
from retina_seg.errors import UserError
from retina_seg.inference import Prediction, is_of, names_of
from retina_seg.lesions import Extent

EXTENTS = "lesions.csv"
"""Table of the lesions (`extents`) of all photographs, beside the results of models that find some."""

T = TypeVar("T")


class Predicts(Protocol):
    """What segments photographs: `inference.Segmenter`, or anything with its interface."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What it finds."""

    @property
    def device(self) -> str:
        """Where it runs."""

    def predict(self, source: Path) -> Prediction:
        """Segment one photograph; UserError where that is none."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    `files` were written; `warnings` say why the result should not be trusted, `notes` what else is to know; `extents`
    are those of lesions. Where there is an `error` nothing was written and what was there stays.
    """

    source: Path
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    extents: Mapping[str, Extent] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The photographs among files and folders.

    `planned` : path and stem of the results of each, no two stems alike; `notes` : what was left out, in sentences.
    """

    planned: list[tuple[Path, str]]
    notes: tuple[str, ...]


def survey(inputs: Sequence[str | Path]) -> Survey:
    """Every photograph of files and folders with the stem of its results.

    Masks and overlays of an earlier run in a folder are not taken for photographs: they carry the program's seal.

    Raises
    ------
    UserError
        If there is no photograph in any of them.
    """
    named = {Path(given).absolute() for given in inputs if not files.is_folder(given)}
    listing = io.list_images(inputs)
    sources = [path for path in listing.images if path.absolute() in named or not files.is_result(path)]
    left_out = dict(listing.left_out)
    if results := len(listing.images) - len(sources):
        left_out["results of this program"] = results
    if not sources:
        raise UserError(io.nothing_found(inputs, io.Listing([], left_out, listing.unsearched)))
    notes = [f"left out of the folders, as no photographs that can be read: {io.told(left_out)}"] if left_out else []
    if listing.unsearched:
        notes.append(f"not searched: {listing.unsearched} folders inside the folders; name them to segment them, too")
    empty = [str(given) for given in inputs if files.is_folder(given) and not _below(Path(given), listing.images)]
    if empty:
        notes.append(f"without a photograph: {', '.join(empty)}")
    return Survey(list(zip(sources, io.output_stems(sources), strict=True)), tuple(notes))


def _below(folder: Path, found: Iterable[Path]) -> bool:
    return any(path.parent.absolute() == folder.absolute() for path in found)


def plan(inputs: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """`Survey.planned` of `survey`."""
    return survey(inputs).planned


def predict_files(
    segmenter: Predicts,
    planned: Sequence[tuple[Path, str]],
    out: Path,
    *,
    what: tuple[str, ...] = ("mask", "prob", "overlay"),
    overwrite: bool = False,
    on_done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Segment the photographs of `plan` and save the results in `out`.

    Models of lesions add to the table EXTENTS after each photograph, with empty cells where nothing can be counted;
    lines of other photographs and other targets stay. A photograph that cannot be read or written is reported in its
    Outcome and changes no file.

    Results of the same photograph, unchanged since, are replaced. Where a stem belongs to another photograph, as of an
    earlier run on another folder, the folders above are put before it; where it belongs to another picture that lay in
    the same place, that one's result moves into a folder earlier-1, earlier-2, ... The Outcome says so.

    Parameters
    ----------
    overwrite : replace whatever has the name of a result.

    Raises
    ------
    UserError
        Before the first photograph: if `out` cannot be made, if a file of the user's has the name of a result, or
        something else is called like the table.
    """
    files.make_folder(out)
    measured = extents.measurable(segmenter.targets)
    with files.locked(out):
        files.remove_parts(out, older_than_s=0)
        if measured:
            _earlier(out / EXTENTS)
        places = _Places(out, segmenter.targets, what, overwrite)
        stems = [places.take(source, stem) for source, stem in planned]
        results = [out / name for stem in stems for name in places.names(stem)]
        _check_inputs_stay([source for source, _ in planned], results)
        files.check_replaceable(results, overwrite=overwrite)
    finder = extents.disc_finder(segmenter.targets, segmenter.device)

    def segmented(source: Path, wanted: str, stem: str) -> Outcome:
        prediction = segmenter.predict(source)
        unit = extents.disc_pixels(prediction, finder)
        found = extents.measure(prediction, unit)
        with files.locked(out):
            stem = places.take(source, stem)  # another process may have been here meanwhile
            if measured:
                _earlier(out / EXTENTS)  # where nothing can be added nothing is written
            notes = places.notes(wanted, stem, prediction.provenance)
            if not overwrite:
                notes += places.set_aside(stem, prediction.provenance, measured)
            saved = extents.recorded(prediction, found, unit).save(out, stem, what=what, overwrite=overwrite)
            if measured:
                _add_lines(out / EXTENTS, extents.lines(stem, measured, found))
        return Outcome(source, tuple(saved), tuple(prediction.provenance["warnings"]), extents=found, notes=notes)

    outcomes = []
    for (source, wanted), stem in zip(planned, stems, strict=True):
        outcome, error = attempt(partial(segmented, source, wanted, stem))
        if outcome is None:
            outcome = Outcome(source, error=error)
            if measured:
                attempt(partial(_add_unknown, out, extents.lines(stem, measured, {})))
        outcomes.append(outcome)
        if on_done is not None:
            on_done(outcome)
    return outcomes


def attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """What `work` gives and "", or None and in a sentence why it failed: the other photographs of a batch go on."""
    try:
        return work(), ""
    except UserError as error:
        return None, str(error)
    except Exception as error:  # whatever it is
        return None, f"could not be read or answered: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _Places:
    """Which results of which photographs lie in a folder, and under which names new ones can."""

    def __init__(self, out: Path, targets: Sequence[str], what: Sequence[str], overwrite: bool) -> None:
        self.out, self._targets, self._what, self._overwrite = out, targets, what, overwrite
        self._taken: dict[str, Path] = {}  # name, as a file system compares it -> the photograph that has it

    def names(self, stem: str) -> list[str]:
        """Names of the files of a stem."""
        return [name for _, _, name in names_of(stem, self._targets, self._what)]

    def take(self, source: Path, stem: str) -> str:
        """The stem, or where it is another photograph's, the first that is free: folders above before it, or a number
        behind."""
        above = source.absolute().parts[1:-1]
        with_folders = ("_".join([*above[-depth:], stem]) for depth in range(1, len(above) + 1))
        for candidate in chain([stem], with_folders, (f"{stem}_{number}" for number in count(2))):
            owner = self._taken.get(io.on_disk(candidate), source)
            if owner == source and (self._overwrite or self._is_free(source, candidate)):
                self._taken[io.on_disk(candidate)] = source
                return candidate
        raise AssertionError("there is always a next number")

    def _is_free(self, source: Path, stem: str) -> bool:
        """Whether nothing there is of another photograph; what is no result of the program is refused elsewhere."""
        record = self.out / f"{stem}.json"
        if files.is_file(record):
            if not files.is_own(record):
                return True  # the user's: nothing is done at all
            same, error = attempt(partial(is_of, record, source))
            return bool(same or error)  # a file that cannot be read now cannot be segmented either
        return not any(files.is_own(self.out / name) for name in self.names(stem))

    def notes(self, wanted: str, stem: str, provenance: Mapping[str, Any]) -> tuple[str, ...]:
        """What is to be said of the results that are about to be written, whose provenance is given."""
        said = []
        if stem != wanted:
            said.append(
                f"{self.out / wanted} is the result of another photograph, or there is no record of which, and stays: "
                f"this one is {stem}"
            )
        earlier = self._record(stem)
        if earlier.get("model", provenance["model"]) != provenance["model"]:
            said.append(f"the result of {earlier['model']} is replaced: give each model a folder to keep both")
        listed = set(map(str, earlier.get("files", ()))) - set(self.names(stem))
        if stay := sorted(name for name in listed if files.is_own(self.out / Path(name).name)):
            said.append(f"of an earlier run, not of this one: {', '.join(stay)}")
        return tuple(said)

    def _record(self, stem: str) -> dict[str, Any]:
        record = self.out / f"{stem}.json"
        found = files.read_json(record) if files.is_own(record) else {}
        return found if isinstance(found, dict) else {}

    def set_aside(self, stem: str, provenance: Mapping[str, Any], measured: Sequence[str]) -> tuple[str, ...]:
        """Move the result of a picture that lay where this one lies now into a folder of its own, and say so."""
        earlier = self._record(stem)
        known = earlier.get("photograph", {}).get("pixels_sha256")
        if not earlier or known == provenance["photograph"]["pixels_sha256"]:
            return ()
        aside = next(path for number in count(1) if not (path := self.out / f"earlier-{number}").exists())
        files.make_folder(aside)
        if measured and (lines := [one for key, one in _earlier(self.out / EXTENTS).items() if key[0] == stem]):
            _add_lines(aside / EXTENTS, lines)
        names = [Path(str(name)).name for name in earlier.get("files", ())]
        for path in [self.out / name for name in names]:
            if files.is_own(path):
                path.rename(aside / path.name)
        return (f"{self.out / stem} was the result of another picture in the same place, and now lies in {aside}",)


def _check_inputs_stay(sources: Sequence[Path], results: Sequence[Path]) -> None:
    """UserError where a result would be written in the place of a photograph of the same run."""
    inputs = {os.path.realpath(source) for source in sources}
    if taken := [path for path in results if os.path.realpath(path) in inputs]:
        raise UserError(f"{taken[0]} is one of the photographs: choose another --out for the results")


def _earlier(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of the table of earlier photographs, {} where there is none."""
    if not path.exists():
        return {}
    try:
        return _by_key(extents.read_csv(files.read_text(path)))
    except (ValueError, csv.Error) as error:  # a UserError is a ValueError
        raise UserError(
            f"{path} is not a table of lesions that can be added to ({error}): move it away, or choose another --out"
        ) from None


def _add_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines to the table, in the place of those of the same photograph and target."""
    table = {**_earlier(path), **_by_key(lines)}
    files.write_text(path, extents.csv_text(list(table.values())))


def _add_unknown(out: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines of a photograph that failed, where it has none from before."""
    with files.locked(out):
        known = _earlier(out / EXTENTS)
        _add_lines(out / EXTENTS, [line for line in lines if (line["photograph"], line["target"]) not in known])


def _by_key(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["photograph"], line["target"]): line for line in lines}
