"""How each release names its files and how the protocols split them: manifest rows before any pixel is read.

No pixels (audit.py fills in sizes and hashes); readers of the arrays are in datasets.py.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retina_seg.errors import UserError
from retina_seg.manifest import Row, natural_key

Splits = dict[str, str]
_VESSELS, _OBSERVER2 = "vessels", "vessels_observer2"

_STARE_IDS = tuple(
    f"im{number:04d}"
    for number in (1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324)
)
_STARE_10_VAL = ("im0082", "im0139")
# Test and validation images of Oliveira et al. 2018, as PROTOCOLS.md quotes them; the rest trains.
_STARE_FOLDS: tuple[tuple[str, str], ...] = (
    ("0255 0239 0324 0291", "0240 0319"),
    ("0162 0163 0004 0005", "0240 0319"),
    ("0081 0082 0002 0003", "0240 0319"),
    ("0077 0240 0001 0319", "0255 0324"),
    ("0235 0236 0044 0139", "0240 0319"),
)
_CHASE_FOLDS: tuple[tuple[str, str], ...] = (
    ("01R 01L 02R 02L 03R 03L 04R", "04L 05R"),
    ("04L 05R 05L 06R 06L 07R 07L", "08R 08L"),
    ("08R 08L 09R 09L 10R 10L 11R", "11L 12R"),
    ("11L 12R 12L 13R 13L 14R 14L", "01R 01L"),
)
_IDRID_PARTS = (("train", "a. Training Set"), ("test", "b. Testing Set"))
_IDRID_IMAGES = "1. Original Images"
_IDRID_MASKS = "A. Segmentation/2. All Segmentation Groundtruths"
# Target -> folder, suffix of the file name, number of files in the release.
_IDRID_TARGETS: dict[str, tuple[str, str, int]] = {
    "microaneurysms": ("1. Microaneurysms", "MA", 81),
    "haemorrhages": ("2. Haemorrhages", "HE", 80),
    "hard_exudates": ("3. Hard Exudates", "EX", 81),
    "soft_exudates": ("4. Soft Exudates", "SE", 40),
    "disc": ("5. Optic Disc", "OD", 81),
}
_GRADES = "B. Disease Grading/2. Groundtruths/{} IDRiD_Disease Grading_{} Labels.csv"
_CENTRES = "C. Localization/2. Groundtruths/"
_DISC = _CENTRES + "1. Optic Disc Center Location/{} IDRiD_OD_Center_{} Set_Markups.csv"
_FOVEA = _CENTRES + "2. Fovea Center Location/IDRiD_Fovea_Center_{} Set_Markups.csv"


def rows(dataset: str, folder: Path) -> list[Row]:
    """Rows of a release with every path, eye, subject and label, but sizes 0 and no hash, relation or split.

    Parameters
    ----------
    folder
        The set's own folder. Only IDRiD is looked into: which masks exist, and the tables of labels.

    Raises
    ------
    UserError
        The set is unknown, or the IDRiD folder is not whole: an image without a mask file is an image without
        the lesion, so a row may only be written from a whole copy.
    """
    if dataset not in _ROWS:
        raise UserError(f"unknown set {dataset!r}: expected one of {', '.join(_ROWS)}")
    return _ROWS[dataset](folder)


def with_splits(rows_of: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The same rows with the columns of their protocols filled in.

    Relations between rows (`same_photograph`, `same_eye`, `subject`) must be there: the inner validation images
    of IDRiD are drawn so that no eye is on two sides of any split, also across its two sets where both are given.
    """
    drawn = _idrid_validation([row for name in ("idrid_seg", "idrid_grade") for row in rows_of.get(name, ())])
    return {name: [replace(row, splits=_splits(row, drawn)) for row in group] for name, group in rows_of.items()}


def eyes(related: Iterable[Row]) -> list[list[Row]]:
    """Group rows that share a subject, a photograph or an eye, directly or through others, over all sets."""
    group_of: dict[str, list[Row]] = {}
    for row in related:
        links = _links(row)
        merged = [row]
        for other in {id(group_of[link]): group_of[link] for link in links if link in group_of}.values():
            merged = other + merged
        group_of |= {link: merged for member in merged for link in _links(member)}
    return list({id(group): group for group in group_of.values()}.values())


def _links(row: Row) -> list[str]:
    return [f"{row.dataset}/{row.subject}", row.key, *row.same_photograph, *row.same_eye]


def _row(dataset: str, name: str, image: str, *, eye: str = "", subject: str = "", fov: str = "") -> Row:
    return Row(dataset, name, subject or name, eye, image, {}, fov, {}, {}, 0, 0, "")


def _drive(folder: Path) -> list[Row]:
    found = []
    for number in range(1, 41):
        name, part = f"{number:02d}", "training" if number > 20 else "test"
        targets = {_VESSELS: f"{part}/1st_manual/{name}_manual1.gif"}
        if part == "test":
            targets[_OBSERVER2] = f"{part}/2nd_manual/{name}_manual2.gif"
        row = _row("drive", name, f"{part}/images/{name}_{part}.tif", fov=f"{part}/mask/{name}_{part}_mask.gif")
        found.append(replace(row, targets=targets))
    return found


def _stare(folder: Path) -> list[Row]:
    return [
        replace(
            _row("stare", name, f"stare-images/{name}.ppm"),
            targets={_VESSELS: f"labels-ah/{name}.ah.ppm", _OBSERVER2: f"labels-vk/{name}.vk.ppm"},
        )
        for name in _STARE_IDS
    ]


def _chase(folder: Path) -> list[Row]:
    found = []
    for child in range(1, 15):
        for side, eye in (("L", "left"), ("R", "right")):
            name = f"{child:02d}{side}"
            row = _row("chase_db1", name, f"Image_{name}.jpg", eye=eye, subject=name[:2])
            targets = {_VESSELS: f"Image_{name}_1stHO.png", _OBSERVER2: f"Image_{name}_2ndHO.png"}
            found.append(replace(row, targets=targets))
    return found


def _idrid_seg(folder: Path) -> list[Row]:
    found = []
    for number in range(1, 82):
        name, part = f"IDRiD_{number:02d}", _IDRID_PARTS[number > 54][1]
        paths = {
            target: f"{_IDRID_MASKS}/{part}/{below}/{name}_{suffix}.tif"
            for target, (below, suffix, _) in _IDRID_TARGETS.items()
        }
        targets = {target: path for target, path in paths.items() if (folder / path).is_file()}
        row = _row("idrid_seg", name, f"A. Segmentation/{_IDRID_IMAGES}/{part}/{name}.jpg")
        found.append(replace(row, targets=targets))
    for target, (below, _, count) in _IDRID_TARGETS.items():
        here = sum(target in row.targets for row in found)
        if here != count:
            raise UserError(
                f"{folder / _IDRID_MASKS}: {here} files in the folders {below}, the release has {count}; "
                "without them an image would count as free of that lesion. Unpack part A of IDRiD again"
            )
    return found


def _idrid_grade(folder: Path) -> list[Row]:
    found = []
    for (split, part), letter, word in zip(_IDRID_PARTS, ("a.", "b."), ("Training", "Testing"), strict=True):
        grades = _table(folder / _GRADES.format(letter, word))
        disc = _table(folder / _DISC.format(letter, word))
        fovea = _table(folder / _FOVEA.format(word))
        count = 413 if split == "train" else 103
        if not set(grades) == set(disc) == set(fovea) or len(grades) != count:
            raise UserError(
                f"{folder}: the tables of parts B and C name {len(grades)}, {len(disc)} and {len(fovea)} {split} "
                f"images, expected the same {count} in each; unpack parts B and C of IDRiD again"
            )
        for name in sorted(grades, key=natural_key):
            path = f"B. Disease Grading/{_IDRID_IMAGES}/{part}/{name}.jpg"
            labels = dict(zip(("dr_grade", "dme_risk"), grades[name], strict=True))
            labels |= dict(zip(("disc_x", "disc_y"), disc[name], strict=True))
            labels |= dict(zip(("fovea_x", "fovea_y"), fovea[name], strict=True))
            found.append(replace(_row("idrid_grade", f"{split}/{name}", path), labels=labels))
    return found


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """First three columns of a table of the release: name -> two values. Padding columns and rows are skipped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line[:3]] for line in csv.reader(file)][1:]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a table of IDRiD ({error})") from error
    found = {line[0]: (line[1], line[2]) for line in lines if len(line) == 3 and all(line)}
    if not all(value.isdigit() for values in found.values() for value in values):
        raise UserError(f"{path}: expected whole numbers in the second and third column")
    return found


_ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "drive": _drive,
    "stare": _stare,
    "chase_db1": _chase,
    "idrid_seg": _idrid_seg,
    "idrid_grade": _idrid_grade,
}


def _splits(row: Row, drawn: frozenset[str]) -> Splits:
    if row.dataset == "drive":
        return {"drive": "test" if int(row.id) <= 20 else _train(int(row.id) >= 37)}
    if row.dataset == "stare":
        first = "test" if _STARE_IDS.index(row.id) >= 10 else _train(row.id in _STARE_10_VAL)
        return {"stare-10": first, **_folds("stare-5fold", _STARE_FOLDS, row.id.removeprefix("im"))}
    if row.dataset == "chase_db1":
        child = int(row.subject)
        return {
            "chase-20-8": "test" if child > 10 else _train(child > 8),
            "chase-8-20": "test" if child > 4 else _train(child == 4),
            **_folds("chase-4fold", _CHASE_FOLDS, row.id),
        }
    protocol = "idrid" if row.dataset == "idrid_seg" else "idrid-grade"
    return {protocol: "test" if _is_idrid_test(row) else _train(row.key in drawn)}


def _train(is_validation: bool) -> str:
    return "val" if is_validation else "train"


def _folds(protocol: str, folds: Sequence[tuple[str, str]], name: str) -> Splits:
    return {
        f"{protocol}/{number}": "test" if name in test.split() else _train(name in val.split())
        for number, (test, val) in enumerate(folds, start=1)
    }


def _is_idrid_test(row: Row) -> bool:
    return _IDRID_PARTS[1][1] in row.image


def _idrid_validation(idrid: Sequence[Row]) -> frozenset[str]:
    """Keys of inner validation rows: a fifth of the training images, alike in soft exudates and in grades.

    Whole eyes are drawn, and never one that is also a test image of either set. A segmentation validation eye
    validates in grading too, and no other segmentation eye does, so that a model of both tasks has a
    clean validation set. The order of drawing is that of hashes of the names: fixed, and unrelated to them.
    """
    pool = [sorted(eye, key=lambda row: row.key) for eye in eyes(idrid) if not any(map(_is_idrid_test, eye))]
    pool.sort(key=lambda eye: hashlib.sha256(eye[0].key.encode()).hexdigest())
    drawn: list[Row] = []
    for protocol in ("idrid_seg", "idrid_grade"):
        members = [row for row in idrid if row.dataset == protocol and not _is_idrid_test(row)]
        for stratum in sorted({_stratum(row) for row in members}):
            wanted = round(0.2 * sum(_stratum(row) == stratum for row in members))
            for eye in pool:
                taken = sum(row.dataset == protocol and _stratum(row) == stratum for row in drawn)
                first = next((row for row in eye if row.dataset == protocol), None)
                only_graded = protocol == "idrid_seg" or all(row.dataset == protocol for row in eye)
                fits = first is not None and _stratum(first) == stratum and only_graded
                if taken < wanted and fits and first not in drawn:
                    drawn += eye
    return frozenset(row.key for row in drawn)


def _stratum(row: Row) -> str:
    return row.labels.get("dr_grade", f"soft exudates: {'soft_exudates' in row.targets}")
