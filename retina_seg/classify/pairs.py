"""Two classifiers of one task beside each other: their difference, and subgroups that turn their order round."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retina_seg import markdown
from retina_seg.classify import evaluation, measures, tasks
from retina_seg.classify.evaluation import ClassReport
from retina_seg.errors import UserError
from retina_seg.subgroups import simpson


def check_comparable(one: tuple[str, str], other: tuple[str, str]) -> None:
    """UserError for classifiers (name, task) of different tasks."""
    if one[1] != other[1]:
        raise UserError(f"{one[0]} answers {one[1]}, {other[0]} {other[1]}: they cannot be compared")


def differences(one: ClassReport, other: ClassReport, *, names: tuple[str, str] | None = None) -> list[str]:
    """By how much the first of two classifiers is better on the examples that both have answered, in sentences.

    Of every question accuracy and, where answers are ordered, quadratic kappa, of a number the RMSE, with the 95 %
    interval of the difference, subjects resampled in pairs. Examples that either has seen are left out.

    Raises
    ------
    UserError
        For reports of different tasks.
    """
    check_comparable((one.model, one.task), (other.model, other.task))
    mine, theirs = _unseen(one), _unseen(other)
    common = [key for key in mine if key in theirs]
    title = " less ".join(names or (one.model, other.model))
    if not common:
        return [f"{title}: no example has been answered by both and seen by neither, so nothing is known of them"]
    said, subjects = [], [mine[key]["subject"] for key in common]
    columns = ((mine, "answer"), (theirs, "answer"), (mine, "truth"))
    ordered = tasks.find(one.task).ordered
    for name, head in one.heads.items():
        given = [[rows[key][name][kind] for key in common] for rows, kind in columns]
        if head.classes:
            given = [[head.classes.index(text) for text in texts] for texts in given]
        arrays = [np.asarray(values) for values in given]
        difference = partial(_difference, classes=bool(head.classes), ordered=ordered)
        spread = measures.bootstrap_all(difference, arrays, subjects, n=evaluation.RESAMPLES)
        said += [
            f"{name}, {score}: {title} {markdown.difference(value, spread[score])} on {len(common)} examples"
            for score, value in difference(*arrays).items()
        ]
    return said


def _difference(
    one: NDArray[Any], other: NDArray[Any], truth: NDArray[Any], *, classes: bool, ordered: bool
) -> dict[str, float]:
    """Score -> that of the first answers less that of the others."""

    def scores(said: NDArray[Any]) -> dict[str, float]:
        if not classes:
            return {"RMSE": measures.regression_scores(said, truth)["rmse"]}
        kappa = {"quadratic kappa": measures.quadratic_kappa(said, truth)} if ordered else {}
        return {"accuracy": float(np.mean(said == truth)), **kappa}

    theirs = scores(other)
    return {name: value - theirs[name] for name, value in scores(one).items()}


def reversals(one: ClassReport, other: ClassReport, *, names: tuple[str, str] | None = None) -> list[str]:
    """Where the order of two classifiers in total is reversed in the subgroups of a column, or that it is not.

    Of every question and column that both have, by the examples that each has not seen (`ClassReport.clean`). Where
    both have answered the same examples no order can be reversed.

    Parameters
    ----------
    names : what the two are called, else their models.

    Raises
    ------
    UserError
        For reports of different tasks.
    """
    check_comparable((one.model, one.task), (other.model, other.task))
    mine, theirs = _unseen(one).keys(), _unseen(other).keys()
    if not mine or not theirs:
        return ["one of the two has seen every example it was scored on: nothing can be compared"]
    if mine == theirs:
        return ["both have answered the same examples: no subgroup can turn the order of the two round"]
    if not any(head.subgroups for head in one.heads.values()):
        return [f"{one.task} has no columns: there are no subgroups that could turn the order of the two round"]
    found = []
    heads, others = one.clean or one.heads, other.clean or other.heads
    for name, head in heads.items():
        for column, counted in head.subgroups.items():
            against = others[name].subgroups.get(column, {})
            groups = sorted({*counted, *against})
            said = simpson(
                *_counts(counted, groups), *_counts(against, groups), groups, models=names or (one.model, other.model)
            )
            found += [f"{name} by {column}: {said}"] if said else []
    apart = f"{len(mine - theirs)} examples that only the first has answered and {len(theirs - mine)} only the other"
    return found or [f"no subgroup turns the order of the two round; there are {apart}"]


def _unseen(scored: ClassReport) -> dict[str, dict[str, Any]]:
    """What was answered about the examples that a classifier has not seen, by their keys."""
    leaked = frozenset(scored.leaked)
    return {row["key"]: row for row in scored.per_example if row["key"] not in leaked}


def _counts(groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Right answers and examples of each subgroup that is named."""
    known = [groups.get(name, (0, 0.0)) for name in names]
    return [round(count * share) if count else 0 for count, share in known], [int(count) for count, _ in known]
