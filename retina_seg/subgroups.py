"""Scores split by a column of the manifest, and a warning where subgroups turn the order of two models round.

Of segmenters and classifiers alike; no files and no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from retina_seg.manifest import Row, natural_key
from retina_seg.metrics import Array
from retina_seg.scores import mean

NOT_GIVEN = "not given"
"""What a subgroup without a name is called."""


def columns_of(row: Row, known: Mapping[str, Row] | None = None) -> dict[str, str]:
    """What the manifest says of a photograph that scores can be split by: its set, its eye, its labels.

    Where other sets hold the same photograph, as IDRiD's grades do of its lesions, what they say of it too; `known` are
    their rows by key.
    """
    own = {"set": row.dataset, "eye": eye_of(row), **row.labels}
    for other in [known[key] for key in row.same_photograph if known and key in known]:
        more = {"eye": eye_of(other), **other.labels}
        own |= {name: text for name, text in more.items() if not own.get(name)}
    return own


def eye_of(row: Row) -> str:
    """The side, right or left: as the manifest says, else by the disc, which lies towards the nose; "" if unknown."""
    try:
        disc, fovea = float(row.labels["disc_x"]), float(row.labels["fovea_x"])
    except (KeyError, ValueError):
        return row.eye
    return row.eye or ("right" if disc > fovea else "left")


@dataclass(frozen=True)
class Subgroup:
    """Mean score of the examples of a subgroup.

    Attributes
    ----------
    name : NOT_GIVEN where the examples have none.
    count : examples whose score is defined.
    mean : of their scores, NaN without any.
    """

    name: str
    count: int
    mean: float


def by_subgroup(values: npt.ArrayLike, groups: Sequence[str]) -> list[Subgroup]:
    """The subgroups in natural order ("2" before "10"), NOT_GIVEN last.

    Parameters
    ----------
    values : bool (right or not) or float score of each example, (N,); NaN where undefined.
    groups : subgroup of each example, (N,); "" where it is not given.
    """
    scored = np.asarray(values, dtype=np.float64)
    names = named(groups)
    _same_length(scored, names, "values, groups")
    parts = [(name, scored[names == name]) for name in ordered(names)]
    return [Subgroup(name, int(np.count_nonzero(~np.isnan(part))), mean(part)) for name, part in parts]


def named(groups: Sequence[str]) -> Array:
    """The groups of the examples (N,), those without a name called NOT_GIVEN."""
    return np.array([group or NOT_GIVEN for group in groups], dtype=object)


def ordered(names: Array) -> list[str]:
    """Each group once, "2" before "10" and NOT_GIVEN last."""
    return sorted(set(names), key=lambda name: (name == NOT_GIVEN, natural_key(name)))


def simpson(
    successes_a: Sequence[int],
    totals_a: Sequence[int],
    successes_b: Sequence[int],
    totals_b: Sequence[int],
    names: Sequence[str],
    *,
    models: tuple[str, str] = ("A", "B"),
) -> str | None:
    """A warning where the order of two models in total is reversed in every subgroup (Simpson 1951), else None.

    Rates are compared exactly. A tie reverses nothing: no warning where the models tie in total or in any subgroup.
    A subgroup in which one of the models has no examples has no order: it is left out of the comparison and the
    sentence says so, but its examples stay in the total. No warning where no subgroup is left.

    Parameters
    ----------
    successes_a, totals_a, successes_b, totals_b : right answers and examples of each model in each subgroup, int (G,).
    names : of the subgroups, (G,).
    models : what the sentence calls A and B.

    Returns a sentence for a person, with the figures of the total and of each subgroup.
    """
    counts = [np.asarray(values) for values in (successes_a, totals_a, successes_b, totals_b)]
    if any(count.shape != (len(names),) or (count.size and count.dtype.kind not in "iu") for count in counts):
        raise ValueError(f"expected four lists of {len(names)} whole numbers, one for each name")
    table = np.array(counts, dtype=np.int64).reshape(2, 2, len(names))  # (model, right and all, subgroup)
    if (table < 0).any() or (table[:, 0] > table[:, 1]).any():
        raise ValueError("successes must be from 0 to the total of their subgroup")
    (right_a, all_a), (right_b, all_b) = table
    order = np.sign(right_a * all_b - right_b * all_a)  # that of right_a / all_a - right_b / all_b
    total = table.sum(axis=2)
    overall = int(np.sign(total[0, 0] * total[1, 1] - total[1, 0] * total[0, 1]))
    compared = (all_a > 0) & (all_b > 0)
    if not overall or not compared.any() or not (order[compared] == -overall).all():
        return None

    def figures(cell: Array) -> str:
        return ", ".join(f"{model} {_share(*row)}" for model, row in zip(models, cell.tolist(), strict=True))

    cells = [f"{name} ({figures(table[:, :, index])})" for index, name in enumerate(names)]
    one_sided = (all_a > 0) ^ (all_b > 0)
    parts, rest = ("; ".join(compress(cells, chosen)) for chosen in (compared, one_sided))
    better, worse = ("better", "worse") if overall > 0 else ("worse", "better")
    return (
        f"{models[0]} is {better} than {models[1]} in total ({figures(total)}) but {worse} in every subgroup "
        f"where the two can be compared: {parts}"
        + (f"; one of the two has no examples in {rest}" if rest else "")
        + "; the total misleads, for the two were tried on different mixtures of these subgroups."
    )


def _share(right: int, examples: int) -> str:
    return f"{right}/{examples} = {100 * right / examples:.1f} %" if examples else "none"


def simpson_of(
    correct_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    groups_a: Sequence[str],
    groups_b: Sequence[str],
    *,
    models: tuple[str, str] = ("A", "B"),
) -> str | None:
    """`simpson` of two models whose every answer is known, each with its own examples.

    Where both answered the same examples, as two models scored by one protocol do, no reversal is possible: each
    subgroup is then of one size for both, and the difference in total is the sum of those in the subgroups. It takes
    predictions that are missing for one of them, different test sets, or a mean that weights the examples (which this
    function does not do).

    Parameters
    ----------
    correct_a, correct_b : whether each answer is right, bool (N_A,) and (N_B,).
    groups_a, groups_b : subgroup of each example, (N_A,) and (N_B,); "" where it is not given.
    """
    pairs = [(np.asarray(correct_a), named(groups_a)), (np.asarray(correct_b), named(groups_b))]
    for correct, groups in pairs:
        if correct.dtype.kind != "b" and correct.size:
            raise TypeError(f"correct is {correct.dtype}; expected bool, whether each answer is right")
        _same_length(correct, groups, "correct, groups")
    names = ordered(np.concatenate([groups for _, groups in pairs]))
    counts = [
        [int(np.count_nonzero(marks & (groups == name))) for name in names]
        for correct, groups in pairs
        for marks in (correct.astype(bool), np.ones(len(correct), dtype=bool))
    ]
    return simpson(counts[0], counts[1], counts[2], counts[3], names, models=models)


def turned_round(
    total: tuple[float, float],
    groups: Mapping[str, tuple[float, float]],
    *,
    score: str,
    models: tuple[str, str] = ("A", "B"),
) -> str | None:
    """A warning where the order of two models by a pooled score is reversed in every subgroup, else None.

    A score pooled over all pixels, as Dice, is no mean of those of the subgroups: its order can be reversed though both
    models were scored on the same examples. Ties and undefined scores (NaN) reverse nothing; a subgroup in which a
    score is undefined has no order and is left out.

    Parameters
    ----------
    total : the score of A and of B, the higher the better.
    groups : subgroup -> the same.
    score : what the sentence calls it.
    """
    overall = np.sign(total[0] - total[1])
    orders = {name: np.sign(a - b) for name, (a, b) in groups.items() if not np.isnan(a - b)}
    if not overall or np.isnan(overall) or not orders or any(order != -overall for order in orders.values()):
        return None

    def figures(pair: tuple[float, float]) -> str:
        return ", ".join(f"{model} {value:.4f}" for model, value in zip(models, pair, strict=True))

    better, worse = ("better", "worse") if overall > 0 else ("worse", "better")
    parts = "; ".join(f"{name} ({figures(groups[name])})" for name in orders)
    return (
        f"{models[0]} is {better} than {models[1]} by {score} of all pixels ({figures(total)}) but {worse} in every "
        f"subgroup: {parts}; the total misleads, for subgroups weigh in it by what is marked in them."
    )


def _same_length(one: Array, other: Array, names: str) -> None:
    if len(one) != len(other):
        raise ValueError(f"lengths differ: {len(one)} and {len(other)} ({names})")
