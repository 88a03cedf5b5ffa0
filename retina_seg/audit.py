"""Looks at the pixels of a data root: writes manifest rows from them, and compares them with the manifests.

How a release names its files is in releases.py, what makes two photographs alike in duplicates.py.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retina_seg import agreement, cards, datasets, decode, duplicates, io, manifest, releases
from retina_seg.errors import UserError
from retina_seg.manifest import Finding, Row

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being looked at)."""

_THREADS = 2
_RELEASE_SIZE = {"idrid_grade": (4288, 2848)}
"""Size of the photographs of a release whose copies are often reduced."""
_SAME_FOLDER = {"idrid_seg": "idrid_grade", "idrid_grade": "idrid_seg"}
_LISTED = 10  # more missing files than this become one finding
_HASH_DIGITS = 200  # of a whole perceptual hash
_OWNER = 5.0  # an annotation that fits a photograph this well is its own


@dataclass
class _Look:
    """What the files of one row hold. `view` is None where the photograph cannot be read."""

    row: Row
    size: tuple[int, int] = (0, 0)
    image_hash: str = ""
    view: duplicates.View | None = None
    target_hash: dict[str, str] = field(default_factory=dict)
    marked: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    resaved: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, severity: str, kind: str, path: str, message: str) -> None:
        self.findings.append(Finding(severity, kind, (path,), message))


def scan(dataset: str, data_root: str | Path, *, progress: Progress | None = None) -> list[Row]:
    """Manifest rows of a set, written from its files: sizes, hashes, relations, subjects, splits.

    The two IDRiD sets share photographs, so a scan of one looks at the photographs of the other as well.

    Raises
    ------
    UserError
        The copy is not whole, or a file cannot be used; a manifest is only written from a whole copy.
    """
    folder = datasets.set_folder(dataset, data_root)
    looks = _look_at(releases.rows(dataset, folder), folder, progress)
    problems = [finding for look in looks for finding in look.findings if finding.severity == "error"]
    if problems:
        raise UserError(f"{folder}: {len(problems)} problems, the first: {problems[0].message}")
    here = [_described(look) for look in looks]
    others = releases.rows(_SAME_FOLDER[dataset], folder) if dataset in _SAME_FOLDER else []
    views = [look.view for look in looks if look.view is not None]
    views += [quick_view(datasets.existing(folder, row.image)) for row in others]
    related = _with_relations([*here, *others], duplicates.find(views, progress=_labelled(progress, "comparing")))
    by_set = {dataset: related[: len(here)]}
    if others:
        by_set[_SAME_FOLDER[dataset]] = related[len(here) :]
    return releases.with_splits(by_set)[dataset]


def check(names: str | Sequence[str], data_root: str | Path, *, progress: Progress | None = None) -> list[Finding]:
    """Compare the files of one or several sets with their packaged manifests.

    Finds missing and unreadable files, wrong sizes, labels that are not two-valued, pixels other than the
    manifest's, annotations that fit another photograph better than their own, one photograph (or one eye)
    twice within and across the given sets and against the manifests of all other sets, and subjects on both
    sides of a split. Copies that differ from the release without harm (reduced photographs, masks saved anew
    without loss) are named as "info".

    Returns
    -------
    Findings, errors first. A true copy of the releases gives no error; what the published splits do wrong
    themselves are warnings.

    Raises
    ------
    UserError
        A set is unknown, or none of the sets is below the data root.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    findings: list[Finding] = []
    folders: dict[str, Path] = {}
    absent: list[UserError] = []
    for name in wanted:
        try:
            folders[name] = datasets.set_folder(name, data_root)
        except UserError as error:
            datasets.spec(name)
            absent.append(error)
            findings.append(Finding("error", "missing", (datasets.spec(name).folder,), f"{name}: {error}"))
    if not folders and absent:
        raise absent[0]
    looks: list[_Look] = []
    for name, folder in folders.items():
        listed = datasets.rows(name)
        findings += manifest.check(listed, known_shared=cards.card(name).known_shared_subjects)
        found = _look_at(listed, folder, progress, expected=True)
        findings += _collected(found)
        findings += _disagreements(found)
        looks += found
    related = _relations(looks, progress)
    seen = {frozenset(finding.files) for finding in related}
    findings = [f for f in findings if f.kind != "duplicate" or frozenset(f.files) not in seen] + related
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def compare(rows: Sequence[Row], folder: Path, *, progress: Progress | None = None) -> list[Finding]:
    """Compare the files in a set's own folder with its rows, each row by itself: what `fetch` needs to know."""
    return _collected(_look_at(rows, folder, progress, expected=True))


def _labelled(progress: Progress | None, text: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(done, total, text)) if progress else None


def _look_at(rows: Sequence[Row], folder: Path, progress: Progress | None, *, expected: bool = False) -> list[_Look]:
    looks = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for look in pool.map(lambda row: _look(row, folder, expected), rows):
            looks.append(look)
            if progress:
                progress(len(looks), len(rows), f"reading {look.row.key}")
    return looks


def _look(row: Row, folder: Path, expected: bool) -> _Look:
    """Read every file of a row; with `expected` compare with what the row says about them."""
    look = _Look(row)
    if outside := [name for name in row.files() if not manifest.is_plain(name)]:
        text = f"{outside[0]} is not a plain relative POSIX path below the set's folder"
        look.add("error", "path", outside[0], f"{row.key}: {text}")
        return look
    if (folder / row.image).is_file():
        try:
            image = io.read_image(folder / row.image)
        except UserError as error:
            look.add("error", "unreadable", row.image, f"{row.key}: {error}")
        else:
            look.size = (image.shape[1], image.shape[0])
            look.image_hash = datasets.pixel_hash(image)
            look.view = duplicates.view(image)
            if expected:
                _compare_image(look)
    else:
        look.add("error", "missing", row.image, f"{row.key}: {row.image} is missing")
    for name, path in (*row.targets.items(), *([("fov", row.fov)] if row.fov else [])):
        if (folder / path).is_file():
            _look_at_target(look, name, path, folder)
        else:
            look.add("error", "missing", path, f"{row.key}: {path} is missing")
    return look


def _known_look(row: Row) -> str:
    """The perceptual hash of a row; "", which is like nothing, where the manifest has none that is whole."""
    return row.perceptual_hash if len(row.perceptual_hash) == _HASH_DIGITS else ""


def _look_at_target(look: _Look, name: str, path: str, folder: Path) -> None:
    try:
        marked = io.read_mask(folder / path)
    except UserError as error:
        kind = "values" if _decodes(folder / path) else "unreadable"
        look.add("error", kind, path, f"{look.row.key}: {error}")
        return
    size = (marked.shape[1], marked.shape[0])
    look.target_hash[name] = datasets.pixel_hash(marked)
    known = look.row.target_sha256.get(name, "")
    if look.view is not None and size != look.size:
        text = f"{name} is {_x(size)} pixels, its photograph {_x(look.size)}; get both from the same source"
        look.add("error", "size", path, f"{look.row.key}: {text}")
    elif known and known != look.target_hash[name] and look.size in ((0, 0), (look.row.width, look.row.height)):
        text = f"the pixels of {name} are not the release's; a score against them is not comparable"
        look.add("error", "content", path, f"{look.row.key}: {text}")
    released = datasets.spec(look.row.dataset).label_compression
    if released and _compression(folder / path) not in ("", released):
        look.resaved.append(path)
    if look.view is not None and size == look.size and name != "fov":
        look.marked[name] = agreement.reduce(marked, look.view)


def _compare_image(look: _Look) -> None:
    row, released = look.row, (look.row.width, look.row.height)
    if look.view is None:
        return
    likeness = duplicates.likeness([duplicates.perceptual_hash(look.view)], [_known_look(row)])
    alike = bool(likeness[0, 0] >= duplicates.SAME_LIKENESS)
    if look.size == released:
        if look.image_hash == row.pixel_sha256 or (alike and not row.pixel_sha256):
            return
        if alike and row.image.lower().endswith((".jpg", ".jpeg")):
            text = "decodes to slightly other pixels than the release; another JPEG decoder, or saved anew"
            look.add("warning", "content", row.image, f"{row.key}: {text}")
            return
        text = "holds other pixels than the release; get the set again from its owners"
        look.add("error", "content", row.image, f"{row.key}: {row.image} {text}")
        return
    smaller = look.size[0] < released[0] and abs(look.size[0] * released[1] / released[0] - look.size[1]) < 2
    if not smaller:
        text = f"is {_x(look.size)} pixels, the release {_x(released)}; get the set again from its owners"
        look.add("error", "size", row.image, f"{row.key}: {row.image} {text}")
    elif look.image_hash != row.reduced_sha256 and not alike:
        text = f"is another photograph (and reduced to {_x(look.size)}); get the set again from its owners"
        look.add("error", "content", row.image, f"{row.key}: {row.image} {text}")
    else:
        look.add("info", "reduced", row.image, f"reduced copy: {_x(look.size)} instead of {_x(released)}")


def _collected(looks: Sequence[_Look]) -> list[Finding]:
    """Findings of all rows of one set, the many alike of them as one."""
    name = looks[0].row.dataset if looks else ""
    by_group: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    findings = []
    for finding in (finding for look in looks for finding in look.findings):
        if finding.kind in ("missing", "reduced"):
            by_group[finding.kind, finding.message if finding.kind == "reduced" else ""].append(finding)
        else:
            findings.append(finding)
    for (kind, message), group in by_group.items():
        files = tuple(path for finding in group for path in finding.files)
        if kind == "reduced":
            text = f"{name}: {len(group)} photographs are a {message}; name the size beside any score"
            findings.append(Finding("info", kind, files, text))
        elif len(group) <= _LISTED:
            findings += group
        else:
            total = sum(len(look.row.files()) for look in looks)
            text = f"{name}: {len(files)} of {total} files are missing, the first {files[0]}"
            text += f"; the copy is incomplete, get it again with `retina-seg data fetch {name}`"
            findings.append(Finding("error", kind, files, text))
    resaved = tuple(path for look in looks for path in look.resaved)
    if resaved:
        text = f"{name}: {len(resaved)} annotations were saved anew with another compression, without loss"
        findings.append(Finding("info", "resaved", resaved, text))
    return findings


def _disagreements(looks: Sequence[_Look]) -> list[Finding]:
    """Annotations that do not fit their photograph, and the photograph of the set that they fit, if any."""
    findings = []
    for look in looks:
        for name, marked in look.marked.items():
            if look.view is None or agreement.belongs(agreement.fit(look.view, marked, name), name):
                continue
            others = {
                other.row.key: agreement.fit(other.view, marked, name)
                for other in looks
                if other is not look and other.view is not None and other.view.green.shape == marked.shape
            }
            best = max(others, key=others.__getitem__, default="")
            text = f"{look.row.key}: the marked {name} do not stand out in the photograph"
            text += f"; they fit {best}" if best and others[best] > _OWNER else ""
            text += "; image and annotation do not belong together, get the set again"
            findings.append(Finding("error", "mismatch", (look.row.image, look.row.targets[name]), text))
    return findings


def _relations(looks: Sequence[_Look], progress: Progress | None) -> list[Finding]:
    """One photograph or one eye twice: by pixels among the given sets, by perceptual hash against all others."""
    seen = [look for look in looks if look.view is not None]
    views = [look.view for look in seen if look.view is not None]
    rows = [look.row for look in seen]
    findings = [
        _relation(rows[pair.first], rows[pair.second], pair.relation)
        for pair in duplicates.find(views, progress=_labelled(progress, "comparing"))
    ]
    given = {row.dataset for row in rows}
    elsewhere = [row for name in datasets.DATASETS if name not in given for row in datasets.rows(name)]
    alike = duplicates.likeness(
        [duplicates.perceptual_hash(view) for view in views], [_known_look(row) for row in elsewhere]
    )
    for here, there in np.argwhere(alike >= duplicates.SAME_LIKENESS).tolist():
        # Hashes cannot tell a copy from a second photograph of the eye in nearly the same place; the manifest can.
        noted_eye = elsewhere[there].key in rows[here].same_eye
        relation = duplicates.SAME_EYE if noted_eye else duplicates.SAME_PHOTOGRAPH
        findings.append(_relation(rows[here], elsewhere[there], relation))
    return findings


def _relation(first: Row, second: Row, relation: str) -> Finding:
    """The finding on two related rows: worse when no manifest notes the pair or a split runs between them."""
    same = relation == duplicates.SAME_PHOTOGRAPH
    noted = second.key in (first.same_photograph if same else first.same_eye)
    shared = sorted(set(first.splits) & set(second.splits))
    sides = [f"{p}: {first.splits[p]}/{second.splits[p]}" for p in shared if first.splits[p] != second.splits[p]]
    labels = [
        f"{name}: {value}/{second.labels[name]}"
        for name, value in first.labels.items()
        if name in ("dr_grade", "dme_risk") and second.labels.get(name, value) != value
    ]
    text = f"{first.key} and {second.key} show the same {'photograph' if same else 'eye in two photographs'}"
    text += f", on two sides of a split ({', '.join(sides)})" if sides else ""
    text += f", with different labels ({', '.join(labels)})" if labels else ""
    text += ", in two sets: leave one out where a model sees both" if first.dataset != second.dataset else ""
    text += "; the manifest notes it" if noted else "; no manifest notes it"
    apart = bool(sides) or first.dataset != second.dataset
    unnoted = "error" if same else "warning"
    severity = unnoted if not noted else "warning" if apart or labels else "info"
    kind = "duplicate" if same else "same_eye"
    return Finding(severity, kind, (first.key, second.key), text)


def _described(look: _Look) -> Row:
    """The row with the sizes and hashes that were seen."""
    width, height = _RELEASE_SIZE.get(look.row.dataset, look.size)
    is_release = look.size == (width, height)
    return replace(
        look.row,
        width=width,
        height=height,
        pixel_sha256=look.image_hash if is_release else "",
        reduced_sha256="" if is_release else look.image_hash,
        perceptual_hash=duplicates.perceptual_hash(look.view) if look.view else "",
        target_sha256=look.target_hash,
    )


def _with_relations(rows: Sequence[Row], pairs: Sequence[duplicates.Pair]) -> list[Row]:
    """Rows with the keys of related rows, and one subject for all photographs of an eye within a set."""
    keys: Mapping[tuple[int, str], list[str]] = defaultdict(list)
    for pair in pairs:
        keys[pair.first, pair.relation].append(rows[pair.second].key)
        keys[pair.second, pair.relation].append(rows[pair.first].key)
    related = [
        replace(
            row,
            same_photograph=tuple(sorted(keys[index, duplicates.SAME_PHOTOGRAPH], key=manifest.natural_key)),
            same_eye=tuple(sorted(keys[index, duplicates.SAME_EYE], key=manifest.natural_key)),
        )
        for index, row in enumerate(rows)
    ]
    subject: dict[str, str] = {}
    for eye in releases.eyes(related):
        for row in eye:
            first = min((other for other in eye if other.dataset == row.dataset), key=lambda r: r.id)
            subject[row.key] = first.subject
    return [replace(row, subject=subject[row.key]) for row in related]


def quick_view(path: Path) -> duplicates.View:
    """View of a photograph, decoded at a fraction of its size where the format can."""
    with Image.open(path) as opened:
        opened.draft("RGB", (512, 512))
        return duplicates.view(np.array(ImageOps.exif_transpose(opened).convert("RGB")))


def _decodes(path: Path) -> bool:
    try:
        decode.decode(path)
    except UserError:
        return False
    return True


def _compression(path: Path) -> str:
    with Image.open(path) as opened:
        return str(opened.info.get("compression", ""))


def _x(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
