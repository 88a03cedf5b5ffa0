"""How good a classifier or a regressor is: numpy arrays in; numbers, tables and intervals out.

Not here: metrics of pixels (metrics.py), comparison of segmentation reports (scores.py), files, figures, torch.

Conventions of every function
-----------------------------
prob : float (N, K) in [0, 1], K >= 2, finite; rows sum to 1 within ROW_TOLERANCE and are divided by their sum.
truth : int (N,), class of each example in 0..K-1.
The predicted class is the one with the highest probability, of equal ones the first.
Undefined is NaN, never 0 or 1; without examples everything is.
Errors are ValueError (shapes, range) and TypeError (kind of array): mistakes of a program, not of its user.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from retina_seg import metrics
from retina_seg.metrics import Array
from retina_seg.scores import interval95, mean, resample_weights

METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa"),
    *("macro_auc", "log_loss", "brier", "ece"),
)
"""Names of what `scores` returns, in the order of every table."""
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece"})

_SMALLEST = float(np.finfo(np.float64).eps)  # probability, in the logarithm
ROW_TOLERANCE = 1e-3  # softmax in half precision is off by less


def _integers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} is {array.dtype}; expected integers, the class of each example")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected (N,)")
    return array.astype(np.int64)


def _classes(values: npt.ArrayLike, name: str, classes: int) -> npt.NDArray[np.int64]:
    """`values` as int64 (N,), checked to be in 0..classes-1."""
    array = _integers(values, name)
    if array.size and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(f"{name} has classes {array.min()} to {array.max()}; expected 0 to {classes - 1}")
    return array


def _same_length(one: Array, other: Array, names: str) -> None:
    if len(one) != len(other):
        raise ValueError(f"lengths differ: {len(one)} and {len(other)} ({names})")


def _checked(prob: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probabilities float64 (N, K) whose rows sum to 1, and the truth int64 (N,)."""
    values = np.asarray(prob)
    if values.dtype.kind != "f":
        raise TypeError(f"prob is {values.dtype}; expected floating-point probabilities in [0, 1]")
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"prob has shape {values.shape}; expected (N, K) with two or more classes")
    values = values.astype(np.float64)
    total = values.sum(axis=1, keepdims=True)
    if values.size and not (values.min() >= 0 and np.abs(total - 1).max() <= ROW_TOLERANCE):  # NaN fails both
        raise ValueError("prob has values below 0 or not a number, or rows that do not sum to 1: apply softmax, once")
    target = _classes(truth, "truth", values.shape[1])
    _same_length(values, target, "prob, truth")
    return values / total, target


# --- scores


def scores(prob: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, float]:
    """Every metric of METRICS.

    accuracy : in [0, 1].
    balanced_accuracy : mean recall of the classes that are in the truth, in [0, 1].
    macro_f1 : mean F1 of the classes that are in the truth or predicted, in [0, 1].
    quadratic_kappa : `quadratic_kappa`, in [-1, 1].
    macro_auc : mean of the `auc_per_class` that are defined, in [0, 1]. A class that is absent from the truth is left
        out, so it is a mean over fewer classes then; NaN where the truth has one class only.
    log_loss : mean of -ln(probability of the true class), in nats, [0, 36.05]: no probability is read as less than
        2.2e-16.
    brier : mean over examples of the sum over classes of (probability - truth)^2 (Brier 1950), in [0, 2]; of two
        classes it is twice the `metrics.brier` of one.
    ece : expected calibration error of the predicted class (Guo et al., ICML 2017, equation 3), in [0, 1]:
        sum over bins m of |B_m| / N * |accuracy(B_m) - mean confidence(B_m)|, 15 bins of equal width on [0, 1], each
        closed below.
    """
    values, target = _checked(prob, truth)
    if not target.size:
        return dict.fromkeys(METRICS, math.nan)
    predicted = values.argmax(axis=1)
    # scikit-learn has these too, but looks so closely at its input that a thousand resamples take half a minute.
    table = confusion(predicted, target, values.shape[1])
    right, are, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    of_truth = values[np.arange(len(target)), target]
    return {
        "accuracy": float(right.sum() / len(target)),
        "balanced_accuracy": float((right[are > 0] / are[are > 0]).mean()),
        "macro_f1": float((2 * right[are + said > 0] / (are + said)[are + said > 0]).mean()),
        "quadratic_kappa": _kappa(table),
        "macro_auc": mean(auc_per_class(values, target)),
        "log_loss": float(-np.log(np.clip(of_truth, _SMALLEST, 1 - _SMALLEST)).mean()),
        "brier": float(np.mean(np.sum((values - _one_hot(target, values.shape[1])) ** 2, axis=1))),
        "ece": metrics.ece(values.max(axis=1), predicted == target),
    }


def _one_hot(target: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.bool_]:
    return target[:, None] == np.arange(classes)


def quadratic_kappa(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Cohen's kappa of ordered classes with weights (i - j)^2 (Cohen 1968), in [-1, 1].

    Both int (N,). 0 where one of the two is constant and the other is not: no better than chance. NaN where both are
    the same constant: chance alone would agree as well.
    """
    one, other = _integers(predicted, "predicted"), _integers(truth, "truth")
    _same_length(one, other, "predicted, truth")
    both = np.concatenate([one, other])
    if not both.size:
        return math.nan
    lowest = both.min()
    return _kappa(confusion(one - lowest, other - lowest, int(both.max() - lowest) + 1))


def _kappa(table: npt.NDArray[np.int64]) -> float:
    """`quadratic_kappa` of a confusion: 1 less the mean squared distance over that of independent answers."""
    places = np.arange(len(table))
    squares = (places[:, None] - places) ** 2
    chance = (squares * np.outer(table.sum(axis=1), table.sum(axis=0))).sum() / table.sum()
    return float(1 - (squares * table).sum() / chance) if chance else math.nan


def auc_per_class(prob: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Area under the ROC curve of each class against the rest, exact, float64 (K,) in [0, 1].

    NaN for a class that is absent from the truth, or that is all of it.
    """
    values, target = _checked(prob, truth)
    return np.array([metrics.auc(values[:, k], target == k) for k in range(values.shape[1])])


def joint_accuracy(predictions: Sequence[npt.ArrayLike], truths: Sequence[npt.ArrayLike]) -> float:
    """Share of examples whose every head is right, in [0, 1] (of DR and DME grade: the challenge score of IDRiD).

    Both hold one int (N,) for each head.
    """
    if len(predictions) != len(truths) or not len(predictions):
        raise ValueError(
            f"{len(predictions)} heads predicted, {len(truths)} in the truth; expected one or more of both"
        )
    right: list[Array] = []
    for head, (one, other) in enumerate(zip(predictions, truths, strict=True)):
        predicted, target = _integers(one, f"prediction {head}"), _integers(other, f"truth {head}")
        _same_length(predicted, target, f"prediction and truth of head {head}")
        _same_length(predicted, right[0] if right else predicted, f"head {head}, head 0")
        right.append(predicted == target)
    return mean(np.all(right, axis=0).astype(float))


def confusion(predicted: npt.ArrayLike, truth: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """How often each of `classes` classes (rows, the truth) was taken for each (columns), int64 (classes, classes)."""
    one, other = _classes(predicted, "predicted", classes), _classes(truth, "truth", classes)
    _same_length(one, other, "predicted, truth")
    return np.bincount(other * classes + one, minlength=classes**2).reshape(classes, classes)


class Roc(NamedTuple):
    """ROC curve of a class against the rest: points float64 (P,) from (0, 0) to (1, 1), and the area under it.

    Without the class in the truth, or without any other, the points are empty and the area is NaN.
    """

    fpr: npt.NDArray[np.float64]
    tpr: npt.NDArray[np.float64]
    auc: float


def roc(prob: npt.ArrayLike, truth: npt.ArrayLike) -> list[Roc]:
    """The ROC curve of each class; points on a straight line between two others are left out."""
    values, target = _checked(prob, truth)
    curves = []
    for k, area in enumerate(auc_per_class(values, target)):
        fpr = tpr = np.empty(0)
        if not math.isnan(area):
            fpr, tpr, _ = sk.roc_curve(target == k, values[:, k])
        curves.append(Roc(fpr, tpr, float(area)))
    return curves


def regression_scores(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, float]:
    """Errors of a predicted quantity; both float (N,), finite.

    mae, rmse : mean absolute error and root of the mean squared error, in the unit of the truth, [0, inf).
    r2 : coefficient of determination, 1 - squared error / squared deviation of the truth from its mean, (-inf, 1].
        NaN where the truth is constant.
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (predicted, truth))
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"shapes are {one.shape} and {other.shape} (predicted, truth); expected (N,) twice")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("predicted or truth has values that are not finite")
    if not one.size:
        return dict.fromkeys(("mae", "rmse", "r2"), math.nan)
    return {
        "mae": float(sk.mean_absolute_error(other, one)),
        "rmse": float(sk.root_mean_squared_error(other, one)),
        "r2": float(sk.r2_score(other, one)) if np.ptp(other) else math.nan,
    }


# --- calibration


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram of the predicted class (Guo et al., ICML 2017, section 2), bin by bin.

    Attributes
    ----------
    confidence : mean probability of the predicted class, float64 (bins,) in [0, 1]; NaN in an empty bin.
    accuracy : share of predictions that are right, likewise.
    count : examples, int64 (bins,).
    """

    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]


def reliability(prob: npt.ArrayLike, truth: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Confidence against accuracy in `bins` bins of equal width on [0, 1], each closed below and the last one above."""
    values, target = _checked(prob, truth)
    table = metrics.calibration_bins(values.max(axis=1), values.argmax(axis=1) == target, bins=bins)
    count, confidence, right = table
    filled = np.where(count > 0, count, np.nan)
    return Reliability(confidence / filled, right / filled, count.astype(np.int64))


# --- intervals


def bootstrap(
    function: Callable[..., float],
    arrays: Sequence[npt.ArrayLike],
    groups: Sequence[str],
    *,
    n: int = 2000,
    seed: int = 0,
) -> list[float]:
    """95 % percentile interval [low, high] of `function(*arrays)`, all examples of a group (a subject) drawn together.

    Resamples in which the function is NaN are left out. [NaN, NaN] where there is one group only.

    Parameters
    ----------
    arrays : each (N, ...), an example a row.
    groups : the group of each example, (N,).
    n, seed : number of resamples, and what makes them the same again (`scores.resample_weights`).
    """
    return bootstrap_all(lambda *drawn: {"": function(*drawn)}, arrays, groups, n=n, seed=seed)[""]


def bootstrap_all(
    function: Callable[..., Mapping[str, float]],
    arrays: Sequence[npt.ArrayLike],
    groups: Sequence[str],
    *,
    n: int = 2000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """`bootstrap` of a function with several named results, such as `scores`, on one set of resamples."""
    given = [np.asarray(array) for array in arrays]
    for array in given:
        _same_length(array, np.asarray(groups), "array, groups")
    weights = resample_weights(groups, n, seed)
    rows = np.arange(len(groups))
    draws = [function(*(array[np.repeat(rows, times)] for array in given)) for times in weights]
    names = draws[0] if draws else function(*given)
    return {name: interval95(np.array([draw[name] for draw in draws])) for name in names}
