"""The published protocols: which photographs a model is scored on, and whether it has seen them before.

No scores (evaluate.py) and no pixels; the splits themselves are columns of the manifests.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from retina_seg import datasets
from retina_seg.errors import UserError
from retina_seg.manifest import Row

_UNSEEN = "all images of a set; only for models that did not learn from it"
# Its published folds part two children, see its note: leaks that are known.
KNOWN_TO_LEAK = ("chase-4fold",)
CROSS, CROSS_SINGLE = CROSSED = ("cross", "cross-single")
CROSS_SOURCES = ("drive", "stare-10", "chase-20-8")
"""Protocols whose training images stand for their sets when other sets are scored."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Which images are scored against which annotation.

    Attributes
    ----------
    datasets : names of sets.
    column : split column of the manifest; "" scores every image of the sets.
    folds : number of folds, 0 for none. Fold k has the column `<column>/k`; one model per fold is scored on
        that fold's test images, and the pixels of all folds are pooled.
    targets : names of the reference annotations; a model is scored by those of them that it finds.
    second_observer : name of the annotation of the human scored beside the model, where there is one.
    annotator : who made the reference, in words.
    note : what must be said beside the number.
    """

    datasets: tuple[str, ...]
    column: str
    folds: int = 0
    targets: tuple[str, ...] = ("vessels",)
    second_observer: str = "vessels_observer2"
    annotator: str = "observer 1"
    note: str = ""


PROTOCOLS: dict[str, EvaluationProtocol] = {
    "drive": EvaluationProtocol(("drive",), "drive", annotator="observer 1 (1st_manual)"),
    "stare-10": EvaluationProtocol(("stare",), "stare-10", annotator="observer 1 (ah)"),
    "stare-5fold": EvaluationProtocol(("stare",), "stare-5fold", folds=5, annotator="observer 1 (ah)"),
    "chase-20-8": EvaluationProtocol(("chase_db1",), "chase-20-8", annotator="observer 1 (1stHO)"),
    "chase-8-20": EvaluationProtocol(("chase_db1",), "chase-8-20", annotator="observer 1 (1stHO)"),
    "chase-4fold": EvaluationProtocol(
        ("chase_db1",),
        "chase-4fold",
        folds=4,
        annotator="observer 1 (1stHO)",
        note="children 04 and 11 are on both sides of the published split: training and test in folds 2 and 4, "
        "validation and test in folds 1 and 3",
    ),
    "idrid": EvaluationProtocol(
        ("idrid_seg",),
        "idrid",
        targets=(*datasets.LESIONS, "disc"),
        second_observer="",
        annotator="the release's masks",
    ),
    "cross-drive": EvaluationProtocol(("drive",), "", annotator="observer 1 (1st_manual)", note=_UNSEEN),
    "cross-stare": EvaluationProtocol(("stare",), "", annotator="observer 1 (ah)", note=_UNSEEN),
    "cross-chase": EvaluationProtocol(("chase_db1",), "", annotator="observer 1 (1stHO)", note=_UNSEEN),
}


def find(name: str) -> EvaluationProtocol:
    """The protocol called `name`; UserError with the known names for any other name."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def report_name(name: str, target: str) -> str:
    """What the scores of one target by the protocol are called: "drive", but "idrid-disc" where it has several."""
    known = PROTOCOLS.get(name)
    return f"{name}-{target}" if known is not None and len(known.targets) > 1 else name


def columns(name: str) -> dict[int, str]:
    """Split column of each fold (1, 2, ...), {0: column} without folds, {} where all images are test images."""
    protocol = find(name)
    if protocol.folds:
        return {fold: f"{protocol.column}/{fold}" for fold in range(1, protocol.folds + 1)}
    return {0: protocol.column} if protocol.column else {}


def cross(name: str = CROSS) -> list[tuple[tuple[str, ...], str]]:
    """What one of CROSSED measures: protocols whose training images are learnt from, and the protocol of the score.

    Every set to every other one, then, but for `cross-single`, every set from all others (leave one set out).
    """
    whole = {PROTOCOLS[name].datasets: name for name in PROTOCOLS if not PROTOCOLS[name].column}
    targets = {source: whole[PROTOCOLS[source].datasets] for source in CROSS_SOURCES}
    single: list[tuple[tuple[str, ...], str]]
    single = [((a,), targets[b]) for a in CROSS_SOURCES for b in CROSS_SOURCES if a != b]
    others = [(tuple(a for a in CROSS_SOURCES if a != b), targets[b]) for b in reversed(CROSS_SOURCES)]
    return single if name == CROSS_SINGLE else single + others


def cases(name: str, split: str = "test") -> list[tuple[int, Row]]:
    """(fold, row) of every image of a split ("train", "val", "test"), fold by fold.

    The fold counts from 1 and is 0 where the protocol has none. Where `column` is empty all images are test
    images. UserError where there is no such image.
    """
    protocol = find(name)
    rows = [row for dataset in protocol.datasets for row in datasets.rows(dataset)]
    if not protocol.column:
        found = [(0, row) for row in rows] if split == "test" else []
    else:
        found = [(k, row) for k, column in columns(name).items() for row in rows if row.splits.get(column) == split]
    if not found:
        raise UserError(f"protocol {name!r} has no images in split {split!r}: expected train, val or test")
    return found


def leaks(scored: Iterable[Row], trained_on: Iterable[str]) -> list[str]:
    """Keys of the scored rows that the training shows: the same photograph, the same eye or the same subject.

    Parameters
    ----------
    trained_on
        `Row.key` ("drive:21") of the training and validation images. Keys that no manifest knows, such as a
        user's own photographs, can only match by name.
    """
    keys = frozenset(trained_on)
    sets = {key.partition(":")[0] for key in keys} & set(datasets.DATASETS)
    learnt = [row for dataset in sorted(sets) for row in datasets.rows(dataset) if row.key in keys]
    subjects = {(row.dataset, row.subject) for row in learnt}
    shown = keys.union(*((*row.same_photograph, *row.same_eye) for row in learnt))
    pixels = {row.pixel_sha256 for row in learnt} - {""}
    return [
        row.key
        for row in scored
        if row.key in shown
        or (row.dataset, row.subject) in subjects
        or row.pixel_sha256 in pixels
        or not keys.isdisjoint((*row.same_photograph, *row.same_eye))
    ]
