"""Manifests: one CSV row per photograph (files, sizes, hashes, splits, labels); read, write, check.

No pixels: they are the business of datasets.py and audit.py. What a set's licence says is in cards.py.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path, PurePosixPath

from retina_seg.errors import UserError
from retina_seg.files import read_text, write_text

SPLITS = ("train", "val", "test")
EYES = ("left", "right", "")
_TARGET, _HASH, _SPLIT, _LABEL = "target:", "sha256:", "split:", "label:"
_FIXED = (
    *("id", "subject", "eye", "image", "fov", "width", "height"),
    *("pixel_sha256", "reduced_sha256", "perceptual_hash", "same_photograph", "same_eye"),
)
_RELATIONS = ("same_photograph", "same_eye")
_HEXADECIMAL = re.compile(r"[0-9a-f]{0,200}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _/.-]*")
_LONGEST_SIDE = 100_000  # px
_LONGEST_CELL = 4096


@dataclass(frozen=True)
class Row:
    """One photograph of a set and everything known about it without opening a file.

    Attributes
    ----------
    dataset
        Name of the set, e.g. ``"drive"``.
    id
        Unique inside the set: ``"21"``, ``"im0001"``, ``"01L"``, ``"train/IDRiD_001"``.
    subject
        The unit that is split and resampled; both eyes of a CHASE child share one.
    eye
        ``"left"``, ``"right"`` or ``""`` where the release does not say.
    image
        POSIX path below the set's own folder.
    targets
        Target name -> POSIX path. A target without a file is not in the mapping.
    fov
        Path of the released field-of-view file, ``""`` where there is none.
    splits
        Protocol name -> ``"train"``, ``"val"`` or ``"test"``; a protocol that leaves the row out is absent.
        Validation images are training data too when a final model is fitted.
    labels
        Whole-image labels as text, e.g. ``{"dr_grade": "2"}``.
    width, height
        Size in pixels in the original release (a local copy may be smaller).
    pixel_sha256
        Hash of the decoded pixels of the original release (`datasets.pixel_hash`), ``""`` where only a
        reduced copy was at hand.
    target_sha256
        The same for each target's decoded two-valued pixels, and for ``"fov"``.
    reduced_sha256
        Hash of the decoded pixels of the reduced copy that was at hand in place of the original, else ``""``.
    perceptual_hash
        200 hex digits that hardly change when the photograph is resized or re-encoded
        (`duplicates.perceptual_hash`).
    same_photograph, same_eye
        Keys of the other rows, of this set or another, that show the same photograph, or the same eye in
        another photograph.
    """

    dataset: str
    id: str
    subject: str
    eye: str
    image: str
    targets: Mapping[str, str]
    fov: str
    splits: Mapping[str, str]
    labels: Mapping[str, str]
    width: int
    height: int
    pixel_sha256: str
    target_sha256: Mapping[str, str] = field(default_factory=dict)
    reduced_sha256: str = ""
    perceptual_hash: str = ""
    same_photograph: tuple[str, ...] = ()
    same_eye: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``"dataset:id"``, unique over all sets."""
        return f"{self.dataset}:{self.id}"

    def files(self) -> list[str]:
        """Every path of the row: the image, its targets, its field of view."""
        return [self.image, *self.targets.values(), *([self.fov] if self.fov else [])]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which ``"im2"`` comes before ``"im10"``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    # No number of an image has more digits; int() refuses thousands of them.
    return tuple((0, int(part), "") if part[0].isdecimal() and len(part) < 19 else (1, 0, part) for part in parts)


def is_plain(name: str) -> bool:
    """Whether a name of a manifest is a relative POSIX path that stays below the set's folder, and can be shown."""
    parts = PurePosixPath(name)
    inside = parts.parts and not parts.is_absolute() and ".." not in parts.parts
    return bool(inside) and not set(name) & {"\\", ":"} and name.isprintable()


def folder() -> Path:
    """Directory of the manifests: inside the installed package, else beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "data_manifests", package.parent / "data_manifests"):
        if (candidate / "drive.csv").is_file():
            return candidate
    raise UserError(
        f"no data manifests in {package} or beside it: the installation is incomplete, reinstall retina-seg"
    )


def read(path: str | Path) -> list[Row]:
    """Read the rows of one manifest; the set's name is the stem of the file's name.

    Raises
    ------
    UserError
        The file is missing, a column is unknown or missing, or a cell does not fit its column.
    """
    path = Path(path)
    table = csv.reader(StringIO(read_text(path), newline=""))
    rows = []
    try:
        header = next(table, [])
        _check_header(path, header)
        for number, cells in enumerate(table, start=2):
            if len(cells) != len(header):
                raise UserError(f"{path}, line {number}: {len(cells)} cells, the header has {len(header)}")
            rows.append(_row(path, number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {table.line_num}: this is no table of comma-separated values ({error})"
        ) from None
    if not rows:
        raise UserError(f"{path}: a manifest without rows; write it again with `retina-seg data scan`")
    return rows


def write(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows of one set as CSV: sorted by id, one line each, ``\\n`` line ends, in one atomic step.

    ``read(path)`` gives the same rows back when the file's stem is the set's name.
    """
    path = Path(path)
    if len({row.dataset for row in rows}) != 1:
        raise UserError(f"{path}: a manifest holds the rows of exactly one set, not of none or of several")
    ordered = sorted(rows, key=lambda row: natural_key(row.id))
    columns = _columns(ordered)
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in ordered:
        cells = _cells(row)
        writer.writerow([cells.get(column, "") for column in columns])
    write_text(path, buffer.getvalue())


def _check_header(path: Path, header: Sequence[str]) -> None:
    prefixes = (_TARGET, _HASH, _SPLIT, _LABEL)
    missing = [column for column in _FIXED if column not in header]
    unknown = [column for column in header if column not in _FIXED and not column.startswith(prefixes)]
    if missing or unknown or len(set(header)) != len(header):
        raise UserError(
            f"{path}: not a manifest header; missing columns: {', '.join(missing) or 'none'}; "
            f"unknown columns: {', '.join(unknown)[:200] or 'none'}; expected {', '.join(_FIXED)} and columns that "
            f"start with {', '.join(prefixes)}, each once"
        )


def _row(path: Path, number: int, cells: Mapping[str, str]) -> Row:
    def group(prefix: str) -> dict[str, str]:
        given = {name: cell for name, cell in cells.items() if name.startswith(prefix) and cell}
        return {name.removeprefix(prefix): cell for name, cell in given.items()}

    splits = group(_SPLIT)
    if not set(splits.values()) <= set(SPLITS) or cells["eye"] not in EYES:
        raise UserError(f"{path}, line {number}: a split is one of {SPLITS} or empty, an eye one of {EYES}")
    if wrong := _wrong(cells, group(_TARGET), group(_HASH)):
        raise UserError(f"{path}, line {number}: {wrong}")
    return Row(
        dataset=path.stem,
        id=cells["id"],
        subject=cells["subject"],
        eye=cells["eye"],
        image=cells["image"],
        targets=group(_TARGET),
        fov=cells["fov"],
        splits=splits,
        labels=group(_LABEL),
        width=int(cells["width"]),
        height=int(cells["height"]),
        pixel_sha256=cells["pixel_sha256"],
        target_sha256=group(_HASH),
        reduced_sha256=cells["reduced_sha256"],
        perceptual_hash=cells["perceptual_hash"],
        same_photograph=tuple(cells["same_photograph"].split()),
        same_eye=tuple(cells["same_eye"].split()),
    )


def _wrong(cells: Mapping[str, str], targets: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """What is wrong with the cells of a row, in words; "" where nothing is."""
    for name, cell in cells.items():
        if len(cell) > _LONGEST_CELL or not cell.isprintable():
            return f"{name[:80]} holds {len(cell)} characters that are no words of a table: {cell[:40]!r}"
    for name in ("width", "height"):
        pixels = cells[name]
        if not (pixels.isascii() and pixels.isdecimal() and len(pixels) <= 6 and 0 < int(pixels) <= _LONGEST_SIDE):
            return f"{name} is {pixels!r}, expected a number of pixels up to {_LONGEST_SIDE:,}"
    if not (cells["id"] and cells["subject"] and cells["image"]):
        return "id, subject and image must not be empty"
    for path in (cells["image"], *targets.values(), *filter(None, [cells["fov"]])):
        if not is_plain(path):
            return f"{path!r} is not a plain relative POSIX path below the set's folder"
    if bad := [name for name in (*targets, *hashes) if not _NAME.fullmatch(name)]:
        return f"{bad[0]!r} is no name of a target"
    digests = {**{name: cells[name] for name in ("pixel_sha256", "reduced_sha256", "perceptual_hash")}, **hashes}
    if bad := [name for name, digest in digests.items() if not _HEXADECIMAL.fullmatch(digest)]:
        return f"the hash {bad[0]} is {digests[bad[0]][:80]!r}: expected hexadecimal digits"
    return ""


def _cells(row: Row) -> dict[str, str]:
    cells = {name: str(getattr(row, name)) for name in _FIXED if name not in _RELATIONS}
    cells |= {name: " ".join(sorted(getattr(row, name), key=natural_key)) for name in _RELATIONS}
    groups = ((_TARGET, row.targets), (_HASH, row.target_sha256), (_SPLIT, row.splits), (_LABEL, row.labels))
    for prefix, values in groups:
        cells.update({prefix + name: value for name, value in values.items()})
    return cells


def _columns(rows: Sequence[Row]) -> list[str]:
    """Header: who, which files, sizes, splits, labels, and the long hashes last."""

    def group(prefix: str) -> list[str]:
        found = {name for row in rows for name in _cells(row) if name.startswith(prefix)}
        return sorted(found, key=natural_key)

    return [
        *("id", "subject", "eye", "image", *group(_TARGET), "fov", "width", "height"),
        *(*group(_SPLIT), *group(_LABEL), *_RELATIONS),
        *("perceptual_hash", "pixel_sha256", "reduced_sha256", *group(_HASH)),
    ]


@dataclass(frozen=True)
class Finding:
    """One thing a check has to say.

    Attributes
    ----------
    severity
        ``"error"`` (results would be wrong), ``"warning"`` (know it before you quote a number) or ``"info"``.
    kind
        What was found, one word for programs: ``"missing"``, ``"duplicate"``, ``"subject"``, ...
    files
        The files or rows it is about.
    message
        A sentence for a person, with what to do.
    """

    severity: str
    kind: str
    files: tuple[str, ...]
    message: str


def check(rows: Iterable[Row], *, known_shared: Mapping[str, Sequence[str]] | None = None) -> list[Finding]:
    """Check rows among themselves, without opening a file.

    Finds ids, file paths and pixel hashes that occur twice, paths that leave the set's folder, and subjects
    on both sides of a split.

    Parameters
    ----------
    known_shared
        Protocol -> subjects that the published split itself puts on both sides (from the card). They are
        warnings; any other subject on both sides is an error.
    """
    rows = list(rows)
    return [*_check_paths(rows), *_check_unique(rows), *_check_subjects(rows, known_shared or {})]


def _check_paths(rows: Sequence[Row]) -> list[Finding]:
    findings = []
    for row in rows:
        for name in row.files():
            if not is_plain(name):
                text = f"{row.key}: {name!r} is not a plain relative POSIX path below the set's folder"
                findings.append(Finding("error", "path", (row.key,), text))
    return findings


def _check_unique(rows: Sequence[Row]) -> list[Finding]:
    ids, files, hashes = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in rows:
        ids[row.key].append(row)
        for name in row.files():
            files[row.dataset, name].append(row)
        if row.pixel_sha256 or row.reduced_sha256:
            hashes[row.pixel_sha256 or row.reduced_sha256].append(row)
    findings = []
    for key, group in ids.items():
        if len(group) > 1:
            text = f"{key}: {len(group)} rows have this id; keep one"
            findings.append(Finding("error", "id", (key,), text))
    for (_, name), group in files.items():
        if len(group) > 1:
            keys = tuple(row.key for row in group)
            text = f"{name} is named {len(group)} times, by {', '.join(keys)}; each file belongs to one row"
            findings.append(Finding("error", "path", keys, text))
    for group in hashes.values():
        for index, first in enumerate(group):
            others = [row for row in group[index + 1 :] if row.key != first.key]
            findings += [_same_pixels(first, other) for other in others]
    return findings


def _same_pixels(first: Row, second: Row) -> Finding:
    known = second.key in first.same_photograph and first.key in second.same_photograph
    text = f"{first.key} and {second.key} hold the same pixels"
    text += ", as the manifest notes" if known else "; keep one, or note the pair in same_photograph"
    return Finding("warning" if known else "error", "duplicate", (first.key, second.key), text)


def _check_subjects(rows: Sequence[Row], known_shared: Mapping[str, Sequence[str]]) -> list[Finding]:
    sides: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for protocol, split in row.splits.items():
            sides[row.dataset, protocol, row.subject][split].append(row.key)
    findings = []
    for (_, protocol, subject), by_split in sides.items():
        if len(by_split) < 2:
            continue
        known = subject in known_shared.get(protocol, ())
        keys = tuple(key for split in SPLITS for key in by_split.get(split, []))
        places = " and ".join(split for split in SPLITS if split in by_split)
        text = f"protocol {protocol}: subject {subject} is in {places}"
        text += ", as published; say so beside the number" if known else "; a subject belongs to one side"
        findings.append(Finding("warning" if known else "error", "subject", keys, text))
    return findings
