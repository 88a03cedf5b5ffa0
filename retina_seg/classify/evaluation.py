"""A classifier scored on one side of its task: scores with intervals, confusion, reliability, subgroups, leaks.

No formulas (see measures) and no drawing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retina_seg import datasets, files, io, photographs, subgroups
from retina_seg.classify import examples, inference, measures, tasks, training
from retina_seg.classify.config import ClassifyConfig
from retina_seg.classify.inference import Classifier
from retina_seg.classify.outputs import Head
from retina_seg.errors import UserError

REPORTS = "reports"
RESAMPLES = 1000
_NAMED = 5


@dataclass(frozen=True)
class HeadReport:
    """The scores of one question.

    Attributes
    ----------
    classes : the answers in order, () of a number.
    scores, ci95 : `measures.scores` or of numbers `measures.regression_scores`; 95 % intervals by subject.
    confusion : examples, (truth, answer); [] of a number.
    reliability : confidence, accuracy and count of ten bins of the answer's probability.
    roc : class -> its area under the curve.
    subgroups : column of the task -> subgroup -> [examples, share of right answers].
    """

    classes: tuple[str, ...]
    scores: dict[str, float]
    ci95: dict[str, list[float]]
    confusion: list[list[int]] = field(default_factory=list)
    reliability: dict[str, list[float]] = field(default_factory=dict)
    roc: dict[str, float] = field(default_factory=dict)
    subgroups: dict[str, dict[str, list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassReport:
    """The scores of one classifier on one side of its task; the JSON has the same names.

    `heads` are of all examples, `clean` of those that show no eye the model has learnt from, where some do: both are
    printed, and only `clean` are test scores then. `joint` is the share of examples whose answers are all right, with
    its 95 % interval by subject; NaN where a question has no classes. `clean_joint` is that of `clean`. `comparison` is
    what `pairs` says of it and another classifier.
    """

    model: str
    task: str
    split: str
    n_examples: int
    n_subjects: int
    heads: dict[str, HeadReport]
    joint: float
    joint_ci95: list[float]
    leaked: list[str]
    clean: dict[str, HeadReport]
    clean_joint: float
    clean_joint_ci95: list[float]
    warnings: list[str]
    per_example: list[dict[str, Any]]
    provenance: dict[str, Any]
    comparison: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Strict JSON text, NaN as null."""
        return io.json_text(asdict(self))


def evaluate(
    model: str | Path,
    data_root: str | Path,
    *,
    split: str = "test",
    columns: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    device: str = "auto",
) -> ClassReport:
    """Score a packaged classifier or run folder on the test (or val, train) examples of its task.

    Parameters
    ----------
    columns : that the scores must be split by. They are by all that the task has; of photographs there is also
        `photographs.QUALITY`, which is looked at where it is named.
    leave_out : images whose examples are not scored, by their keys or those of others of the same eye.

    Raises
    ------
    UserError
        No such model, split, column or data.
    """
    classifier = Classifier.from_pretrained(model, device)
    card = classifier.card
    if split not in ("train", "val", "test"):
        raise UserError(f"there is no split {split!r}: choose train, val or test")
    part = part_of(card, data_root, split)
    whole = len(part)
    if leave_out:
        out = set(tasks.seen(card.task, part, leave_out))
        part = part.take(np.array([i for i, key in enumerate(part.keys) if key not in out], np.int64))
        if not len(part):
            raise UserError(f"all {len(out)} {split} examples of {card.task} are left out: nothing is left to score")
    if photographs.QUALITY in columns and tasks.find(card.task).retinal:
        part = replace(part, columns={**part.columns, photographs.QUALITY: tuple(_qualities(part, data_root))})
    if unknown := set(columns) - set(part.columns):
        known = ", ".join(part.columns) or "none"
        raise UserError(f"{card.task} has no column {', '.join(sorted(unknown))}: it has {known}")
    said = training.outputs(classifier.net, part, classifier.device)
    answered = classifier.calibrated(torch.from_numpy(said))
    leaked = tasks.seen(card.task, part, inference.seen_by(card))
    warnings = []
    if "images" not in card.training:
        warnings.append(f"{card.name}: training examples unknown, not checked whether it saw these")
    if split != "test":
        warnings.append(f"scored on split {split!r}: not a test score")
    if leaked:
        named = ", ".join(leaked[:_NAMED]) + (f" and {len(leaked) - _NAMED} more" if len(leaked) > _NAMED else "")
        same = " or from others of the same eye" if tasks.find(card.task).retinal else ""
        warnings.append(
            f"LEAK: {card.name} learnt from {len(leaked)} of the {len(part)} scored examples, chose its temperature or "
            f"last step on them{same} ({named}): "
            + ("the scores without them are the ones to quote" if len(leaked) < len(part) else "no score is a result")
        )
    made = report(card, part, answered, split=split, columns=tuple(part.columns), leaked=leaked, warnings=warnings)
    return replace(made, provenance={**made.provenance, "left_out": whole - len(part)})


def _qualities(part: examples.Labelled, data_root: str | Path) -> list[str]:
    """`photographs.quality_of` the photograph that each example shows."""
    keys = [key.partition("@")[0] for key in part.keys]
    known = datasets.by_key()
    told = {key: photographs.quality_of(known[key], data_root) for key in dict.fromkeys(keys)}
    return [told[key] for key in keys]


def part_of(card: inference.ClassifierCard, data_root: str | Path, split: str) -> examples.Labelled:
    """The test, val or train examples of a classifier's task; UserError where its card has no or other ones."""
    if "config" not in card.training:
        raise UserError(f"the card of {card.name} does not hold its configuration: its examples are not known")
    config = ClassifyConfig.model_validate(card.training["config"])
    found = tasks.load(card.task, training.wanted(config, data_root))
    if found.heads != card.questions():
        asked, known = (
            ", ".join(f"{one.name} {'/'.join(one.classes)}" for one in heads)
            for heads in (found.heads, card.questions())
        )
        raise UserError(f"the data ask {asked}, {card.name} answers {known}: give those it was trained on")
    return found.part(split)


def report(
    card: inference.ClassifierCard,
    part: examples.Labelled,
    answered: Sequence[NDArray[np.float32]],
    *,
    split: str,
    columns: Sequence[str],
    leaked: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> ClassReport:
    """The report of answers that are already known: of every question (N, K) probabilities or (N, 1) numbers."""
    heads = card.questions()
    known = frozenset(leaked)
    unseen = np.array([i for i, key in enumerate(part.keys) if key not in known], np.int64)
    reports, joint, joint_ci95 = _answers(heads, part, answered, columns)
    without: dict[str, HeadReport] = {}
    without_joint, without_ci95 = math.nan, [math.nan, math.nan]
    if leaked and len(unseen):
        found = [one[unseen] for one in answered]
        without, without_joint, without_ci95 = _answers(heads, part.take(unseen), found, columns)
    return ClassReport(
        model=card.name,
        task=card.task,
        split=split,
        n_examples=len(part),
        n_subjects=len(set(part.subjects)),
        heads=reports,
        joint=joint,
        joint_ci95=joint_ci95,
        leaked=list(leaked),
        clean=without,
        clean_joint=without_joint,
        clean_joint_ci95=without_ci95,
        warnings=list(warnings),
        per_example=_table(heads, part, answered),
        provenance={
            "weights_sha256": card.weights_sha256,
            "parameters": card.parameters,
            "temperatures": card.temperatures,
            "temperature_source": card.temperature_source,
            "resamples": RESAMPLES,
        },
    )


def keep(scored: ClassReport, model: str | Path) -> Path | None:
    """Store the report in its run folder; None for packaged classifiers."""
    if str(model) in inference.names():
        return None
    path = report_path(model, scored.split)
    io.make_folder(path.parent)
    files.write_bytes(path, files.sealed_json(scored.to_json()))
    return path


def report_path(model: str | Path, split: str = "test") -> Path:
    """Where the report of a classifier is stored: in its run folder, or beside the packaged ones."""
    name = f"{inference.card_of(model).task}-{split}.json"
    return (
        inference.FOLDER / REPORTS / str(model) / name
        if str(model) in inference.names()
        else Path(model) / REPORTS / name
    )


def kept(model: str | Path, *, split: str = "test") -> ClassReport | None:
    """The report that is stored with a classifier, None where there is none; UserError for one of other weights."""
    card, path = inference.card_of(model), report_path(model, split)
    if not path.is_file():
        return None
    try:
        loaded = {key: one for key, one in io.read_json(path).items() if key != "seal"}
        heads = {part: {name: HeadReport(**one) for name, one in loaded[part].items()} for part in ("heads", "clean")}
        report = ClassReport(**{**loaded, **heads})
        same = report.provenance["weights_sha256"] == card.weights_sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no report of `retina-seg classify evaluate` ({error}): remove it") from None
    if not same:
        raise UserError(f"{path} is of other weights than {model}: evaluate again or remove it")
    return report


def _answers(
    heads: Sequence[Head], part: examples.Labelled, answered: Sequence[NDArray[np.float32]], columns: Sequence[str]
) -> tuple[dict[str, HeadReport], float, list[float]]:
    """The report of every question, and the share of examples with all answers right with its interval."""
    groups, named = part.subjects, {name: part.columns[name] for name in columns}
    reports = {
        head.name: _head(head, prob, part.labels[:, number], groups, named)
        for number, (head, prob) in enumerate(zip(heads, answered, strict=True))
    }
    if not all(head.classes for head in heads):
        return reports, math.nan, [math.nan, math.nan]
    given = [prob.argmax(axis=1) for prob in answered]
    right = np.all([one == part.labels[:, k] for k, one in enumerate(given)], axis=0)
    spread = measures.bootstrap_all(lambda chosen: {"joint": float(np.mean(chosen))}, [right], groups, n=RESAMPLES)
    return reports, measures.joint_accuracy(given, list(part.labels.T)), spread["joint"]


def _head(
    head: Head,
    prob: NDArray[np.float32],
    truth: NDArray[Any],
    groups: Sequence[str],
    columns: Mapping[str, Sequence[str]],
) -> HeadReport:
    def of(chosen: NDArray[np.float32], answers: NDArray[Any]) -> dict[str, float]:
        return _scores(head, chosen, answers)

    scores = of(prob, truth)
    spread = measures.bootstrap_all(of, [prob, truth], groups, n=RESAMPLES)
    if not head.classes:
        return HeadReport((), scores, spread)
    predicted = prob.argmax(axis=1)
    bins = measures.reliability(prob, truth)
    right = predicted == truth
    curves = measures.roc(prob, truth)
    return HeadReport(
        head.classes,
        scores,
        spread,
        confusion=measures.confusion(predicted, truth, len(head.classes)).tolist(),
        reliability={name: getattr(bins, name).tolist() for name in ("confidence", "accuracy", "count")},
        roc={name: one.auc for name, one in zip(head.classes, curves, strict=True)},
        subgroups={
            column: {one.name: [one.count, one.mean] for one in subgroups.by_subgroup(right, values)}
            for column, values in columns.items()
        },
    )


def _scores(head: Head, prob: NDArray[np.float32], truth: NDArray[Any]) -> dict[str, float]:
    if not head.classes:
        return measures.regression_scores(prob[:, 0], truth)
    found = measures.scores(prob, truth)
    if not head.ordered:
        del found["quadratic_kappa"]
    return found


def _table(
    heads: Sequence[Head], part: examples.Labelled, answered: Sequence[NDArray[np.float32]]
) -> list[dict[str, Any]]:
    rows = []
    for number, key in enumerate(part.keys):
        row: dict[str, Any] = {"key": key, "subject": part.subjects[number]}
        for place, (head, prob) in enumerate(zip(heads, answered, strict=True)):
            truth = part.labels[number, place]
            row[head.name] = {
                "truth": head.classes[truth] if head.classes else float(truth),
                "answer": head.classes[int(prob[number].argmax())] if head.classes else float(prob[number, 0]),
                "probabilities": [round(float(value), 4) for value in prob[number]] if head.classes else [],
            }
        rows.append(row)
    return rows
