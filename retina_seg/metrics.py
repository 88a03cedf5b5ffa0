"""Metrics of a prediction against a binary truth: numpy arrays (prob or mask, truth, fov) in, one float out.

Not here: protocols and intervals (evaluate.py), losses, metrics of whole-image labels, torch.

Conventions of every function
-----------------------------
prob : float (...) in [0, 1]; a bool array is read as probabilities 0 and 1.
mask, truth, fov : bool (...), or integer where anything but 0 means "marked". Floats are refused, so that a
    probability map never passes for a mask.
fov : same shape as truth, or None for the whole frame. Pixels outside it have no influence whatsoever.
Undefined is NaN, never 0 or 1. Where the truth marks nothing, AUC, AP, Dice, IoU, sensitivity, MCC and clDice
    are undefined; a prediction that marks nothing where the truth does is wrong, not undefined (Dice 0).
Errors are ValueError (shapes, range) and TypeError (kind of array): mistakes of a program, not of its user.

What pools exactly is kept in `Counts` (integers that add up), `Ranking` (for AUC and AP) and `Tally` (everything the
other metrics need).
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from skimage.morphology import skeletonize

Array = npt.NDArray[Any]
Fov = npt.ArrayLike | None

ECE_BINS = 15
HISTOGRAM_BINS = 4096  # a power of two: prob * HISTOGRAM_BINS is exact, so are the counts above a bin edge
ROC_POINTS, PR_POINTS = 100, 300

MASK_METRICS = ("dice", "iou", "sensitivity", "specificity", "precision", "accuracy", "mcc", "cldice")
"""Names of the metrics of a thresholded output, in the order of every table."""
PROB_METRICS = ("auc", "ap", "ece", "brier")
"""Names of the metrics of the probabilities themselves."""
LOWER_IS_BETTER = frozenset({"ece", "brier"})


def _binary(values: npt.ArrayLike, name: str) -> npt.NDArray[np.bool_]:
    """`values` as bool; integers are marked where not 0."""
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} is {array.dtype}; expected bool or integer (a thresholded map)")
    return cast(npt.NDArray[np.bool_], array if array.dtype.kind == "b" else array != 0)


def _inside(values: Array, truth: npt.ArrayLike, fov: Fov) -> tuple[Array, Array]:
    """`values` and `truth` of the pixels inside `fov`, both (n,)."""
    target = _binary(truth, "truth")
    if values.shape != target.shape:
        raise ValueError(f"shapes differ: prediction {values.shape}, truth {target.shape}")
    if fov is None:
        return values.ravel(), target.ravel()
    keep = _binary(fov, "fov")
    if keep.shape != target.shape:
        raise ValueError(f"shapes differ: field of view {keep.shape}, truth {target.shape}")
    return values[keep], target[keep]


def _scored(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov) -> tuple[Array, Array]:
    """Probabilities and truth inside `fov`, both (n,), the probabilities checked."""
    values = np.asarray(prob)
    values = values.astype(np.float32) if values.dtype.kind == "b" else values
    if values.dtype.kind != "f":
        raise TypeError(f"prob is {values.dtype}; expected floating-point probabilities in [0, 1]")
    inside, target = _inside(values, truth, fov)
    if inside.size and not (inside.min() >= 0 and inside.max() <= 1):  # NaN fails both comparisons
        raise ValueError("prob has values outside [0, 1] or not a number: apply the sigmoid, once")
    return inside, target


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class Counts:
    """Pixels by outcome; adding `Counts` pools images, and every ratio is of the pooled pixels.

    Each ratio is in [0, 1] (`mcc` in [-1, 1]) or NaN where undefined.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def dice(self) -> float:
        """Dice = F1 = 2 TP / (2 TP + FP + FN); NaN where the truth marks nothing."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn) if self.tp + self.fn else math.nan

    @property
    def iou(self) -> float:
        """Jaccard index TP / (TP + FP + FN); NaN where the truth marks nothing."""
        return _ratio(self.tp, self.tp + self.fp + self.fn) if self.tp + self.fn else math.nan

    @property
    def sensitivity(self) -> float:
        """Recall TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP)."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN where nothing was marked."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def mcc(self) -> float:
        """Matthews correlation; NaN where prediction or truth is constant."""
        margins = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return _ratio(self.tp * self.tn - self.fp * self.fn, math.sqrt(margins))


def confusion_counts(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> Counts:
    """Count true and false positives and negatives inside `fov`."""
    marked, target = _inside(_binary(mask, "mask"), truth, fov)
    tp = int(np.count_nonzero(marked & target))
    fp = int(np.count_nonzero(marked)) - tp
    fn = int(np.count_nonzero(target)) - tp
    return Counts(tp, fp, fn, marked.size - tp - fp - fn)


def dice(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Dice coefficient (= F1)."""
    return confusion_counts(mask, truth, fov).dice


def iou(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Intersection over union (= Jaccard index)."""
    return confusion_counts(mask, truth, fov).iou


def sensitivity(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Share of the marked truth that was found (= recall)."""
    return confusion_counts(mask, truth, fov).sensitivity


def specificity(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Share of the background left alone."""
    return confusion_counts(mask, truth, fov).specificity


def precision(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Share of what was marked that is marked in the truth."""
    return confusion_counts(mask, truth, fov).precision


def accuracy(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Share of pixels that agree."""
    return confusion_counts(mask, truth, fov).accuracy


def mcc(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Matthews correlation coefficient."""
    return confusion_counts(mask, truth, fov).mcc


def skeleton_counts(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> Array:
    """Skeleton pixels behind clDice, which add up over images.

    Both inputs are cut to `fov` before they are thinned: thinning the frame and cutting afterwards would let
    pixels outside the field of view move centre lines inside it.

    Returns int64 (4,): prediction skeleton inside the truth, prediction skeleton, truth skeleton inside the
    mask, truth skeleton. The thinning is scikit-image's (Zhang & Suen 1984).
    """
    marked, target = _binary(mask, "mask"), _binary(truth, "truth")
    if marked.ndim != 2:
        raise ValueError(f"centre lines need one image (H, W); the mask has shape {marked.shape}")
    _inside(marked, target, fov)  # for its checks
    keep = True if fov is None else _binary(fov, "fov")
    marked, target = marked & keep, target & keep
    predicted, true = skeletonize(marked), skeletonize(target)
    parts = (predicted & target, predicted, true & marked, true)
    return np.array([np.count_nonzero(part) for part in parts], dtype=np.int64)


def cldice_from_counts(counts: npt.ArrayLike) -> float:
    """Centre-line Dice of (pooled) `skeleton_counts` (4,): Shit et al., CVPR 2021, equations 1 and 2."""
    hit, predicted, found, true = (int(value) for value in np.asarray(counts))
    if true == 0:
        return math.nan
    if hit == 0 or found == 0:
        return 0.0
    t_precision, t_sensitivity = hit / predicted, found / true  # eq. 1
    return 2 * t_precision * t_sensitivity / (t_precision + t_sensitivity)  # eq. 2


def cldice(mask: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Centre-line Dice (Shit et al., CVPR 2021) of one image (H, W), skeletons of what lies inside `fov`."""
    return cldice_from_counts(skeleton_counts(mask, truth, fov))


def auc(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Area under the ROC curve, exact; a tie between a marked and an unmarked pixel counts one half.

    The Mann-Whitney form (Hanley & McNeil 1982): the share of (marked, unmarked) pairs in the right order.
    """
    values, target = _scored(prob, truth, fov)
    marked, unmarked = np.sort(values[target]), np.sort(values[~target])
    if not marked.size or not unmarked.size:
        return math.nan
    below = np.searchsorted(unmarked, marked, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(unmarked, marked, side="right").sum(dtype=np.int64)
    return (int(below) + int(not_above)) / (2 * marked.size * unmarked.size)


def _curve(values: Array, target: Array) -> tuple[Array, Array, Array]:
    """Distinct scores of marked pixels, ascending, with TP and FP of `values >= score`, all (n,)."""
    marked, unmarked = np.sort(values[target]), np.sort(values[~target])
    scores, first = np.unique(marked, return_index=True)
    return scores, marked.size - first, unmarked.size - np.searchsorted(unmarked, scores, side="left")


def average_precision(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Area under the precision-recall curve as a step function, exact (no interpolation; = AUPR).

    The sum over thresholds of precision times the recall gained; only scores of marked pixels gain recall.
    """
    values, target = _scored(prob, truth, fov)
    _, tp, fp = _curve(values, target)
    if not tp.size:
        return math.nan
    gained = tp - np.append(tp[1:], 0)
    return float(np.sum(gained * (tp / (tp + fp))) / tp[0])


def best_threshold(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> tuple[float, float]:
    """Threshold t with the highest Dice of `prob >= t`, and that Dice, over all thresholds (exact).

    The best is the score of a marked pixel: raising t up to the next one drops unmarked pixels only. On test
    images this is the oracle, an upper bound and not a result. (NaN, NaN) where the truth marks nothing.
    """
    values, target = _scored(prob, truth, fov)
    scores, tp, fp = _curve(values, target)
    if not scores.size:
        return math.nan, math.nan
    curve = 2 * tp / (tp + fp + tp[0])
    best = int(np.argmax(curve))
    return float(scores[best]), float(curve[best])


@dataclass(frozen=True)
class Ranking:
    """All that AUC and AP depend on: how many pixels share each score.

    Attributes
    ----------
    levels : distinct scores (n,), ascending; of a coarse ranking whole numbers that ascend with the score.
    counts : int64 (2, n), unmarked [0] and marked [1] pixels: a histogram for `auc_from_histogram`,
        `ap_from_histogram` and `binning_error`.
    """

    levels: Array
    counts: Array


def ranking(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None, *, coarse: bool = False) -> Ranking:
    """The ranking of an image's pixels, exact unless `coarse`.

    A coarse one ties scores whose odds differ by less than 1 in 10,000 (2^-13), which keeps images of many
    megapixels small; `binning_error` of its counts bounds what that changes.
    """
    values, target = _scored(prob, truth, fov)
    if coarse:
        counts = np.bincount(_odds_level(values) + (_TOP_LEVEL + 1) * target, minlength=2 * (_TOP_LEVEL + 1))
        counts = counts.reshape(2, -1)
        levels = np.flatnonzero(counts.any(axis=0))
        return Ranking(levels, counts[:, levels])
    levels, place = np.unique(values, return_inverse=True)
    return Ranking(levels, np.stack([np.bincount(place[part], minlength=levels.size) for part in (~target, target)]))


def merged(rankings: Sequence[Ranking]) -> Ranking:
    """The ranking of the pixels of several images, all exact or all coarse."""
    levels, place = np.unique(np.concatenate([one.levels for one in rankings]), return_inverse=True)
    counts = np.concatenate([one.counts for one in rankings], axis=1)
    total = np.zeros((2, levels.size), dtype=np.int64)
    for row, given in zip(total, counts, strict=True):
        np.add.at(row, place, given)
    return Ranking(levels, total)


class RankingPool:
    """The ranking of more and more images, all exact or all coarse, without the images."""

    def __init__(self) -> None:
        self._parts: list[Ranking] = []

    def add(self, ranking: Ranking) -> None:
        """One image more."""
        self._parts.append(ranking)
        if sum(part.levels.size for part in self._parts[1:]) > _PENDING_LEVELS:
            self._parts = [merged(self._parts)]

    @property
    def ranking(self) -> Ranking:
        """Of the pixels of all images so far."""
        if len(self._parts) > 1:
            self._parts = [merged(self._parts)]
        return self._parts[0]


_PENDING_LEVELS = 2**24  # merged when there are more: a quarter of a gigabyte
_DROPPED_BITS = 10  # of the 23 of a float's mantissa
_HALF_LEVEL = int(np.float32(0.5).view(np.int32)) >> _DROPPED_BITS
_TOP_LEVEL = 2 * _HALF_LEVEL


def _odds_level(values: Array) -> Array:
    """Whole number in [0, _TOP_LEVEL] that ascends with the score: its leading bits, above .5 those of 1 - score."""
    scores = np.abs(values, dtype=np.float32)
    above = scores > 0.5
    level = np.where(above, 1 - scores, scores).view(np.int32) >> _DROPPED_BITS
    return np.where(above, _TOP_LEVEL - level, level)


def _bin(values: Array, bins: int) -> Array:
    """Index of the bin of each value: [k / bins, (k + 1) / bins), the last one closed."""
    return np.minimum((values * values.dtype.type(bins)).astype(np.int64), bins - 1)


def score_histogram(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None, *, bins: int = HISTOGRAM_BINS) -> Array:
    """Histogram int64 (2, bins) of unmarked [0] and marked [1] pixels over bins of equal width on [0, 1]."""
    values, target = _scored(prob, truth, fov)
    return np.bincount(_bin(values, bins) + bins * target, minlength=2 * bins).reshape(2, bins)


def auc_from_histogram(histogram: Array) -> float:
    """AUC with all pixels of a bin tied; off by at most `binning_error(histogram)[0]`."""
    unmarked, marked = histogram
    pairs = float(unmarked.sum()) * float(marked.sum())
    below = np.cumsum(unmarked) - 0.5 * unmarked
    return _ratio(float(marked @ below), pairs)


def ap_from_histogram(histogram: Array) -> float:
    """Average precision with all pixels of a bin tied; off by at most `binning_error(histogram)[1]`."""
    unmarked, marked = histogram[:, ::-1]
    tp, fp = np.cumsum(marked), np.cumsum(unmarked)
    return _ratio(float(np.sum(marked * (tp / np.maximum(tp + fp, 1)))), float(marked.sum()))


def binning_error(histogram: Array) -> tuple[float, float]:
    """Bounds on |binned - exact| for AUC and average precision, from the binned counts alone.

    AUC: a pair inside a bin counts one half and is worth 0 to 1. AP: the precision at a marked pixel lies
    between those of "all unmarked pixels of its bin come first" and "none of them does".
    """
    unmarked, marked = histogram[:, ::-1]
    tp, fp = np.cumsum(marked), np.cumsum(unmarked)
    pairs = float(marked.sum()) * float(unmarked.sum())
    auc_bound = _ratio(0.5 * float(unmarked @ marked), pairs)
    highest = tp / np.maximum(tp + (fp - unmarked), 1)
    lowest = (tp - marked) / np.maximum(tp - marked + fp, 1)
    return auc_bound, _ratio(float(np.sum(marked * (highest - lowest))), float(marked.sum()))


def best_threshold_from_histogram(histogram: Array) -> tuple[float, float]:
    """Threshold k / bins with the highest Dice, and that Dice; of several equally good ones the middle one.

    Dice at these thresholds is exact where bins is a power of two. (NaN, NaN) where the truth marks nothing.
    """
    fp, tp = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]
    if not tp[0]:
        return math.nan, math.nan
    curve = 2 * tp / (tp + fp + tp[0])
    best = np.flatnonzero(curve == curve.max())
    index = int(best[len(best) // 2])
    return index / histogram.shape[1], float(curve[index])


def curves_from_histogram(
    histogram: Array, *, roc_points: int = ROC_POINTS, pr_points: int = PR_POINTS
) -> dict[str, list[float]]:
    """ROC and precision-recall curve at thresholds k / bins, thinned to at most that many points.

    The points are exact where bins is a power of two. Kept are those that matter most to the area, under the lines
    between them for ROC and under the steps of average precision for precision-recall. Steps need more points:
    a falling curve of n points has steps that lie below it by about 1 / (2 n) at worst.

    Returns
    -------
    fpr, tpr, roc_threshold : from (0, 0), threshold infinity, to (1, 1), threshold 0.
    recall, precision, pr_threshold : from the highest threshold that marks a pixel to threshold 0.

    Thresholds descend; `prob >= threshold` is marked. A curve is empty where it is undefined: without marked
    truth, and ROC also without unmarked truth.
    """
    bins = histogram.shape[1]
    fp, tp = np.cumsum(histogram[:, ::-1], axis=1).astype(float)
    thresholds = np.arange(bins - 1, -1, -1) / bins
    curves = {name: np.empty(0) for name in ("fpr", "tpr", "roc_threshold", "recall", "precision", "pr_threshold")}
    if tp[-1] and fp[-1]:
        fpr, tpr = (np.append(0, count / count[-1]) for count in (fp, tp))
        kept = _thinned(fpr, tpr, roc_points, _triangles)
        curves |= {"fpr": fpr[kept], "tpr": tpr[kept], "roc_threshold": np.append(np.inf, thresholds)[kept]}
    if tp[-1]:
        some = tp + fp > 0
        recall, precision = tp[some] / tp[-1], tp[some] / (tp + fp)[some]
        kept = _thinned(recall, precision, pr_points, _steps)
        curves |= {"recall": recall[kept], "precision": precision[kept], "pr_threshold": thresholds[some][kept]}
    return {name: values.tolist() for name, values in curves.items()}


def _thinned(x: Array, y: Array, points: int, areas: Callable[[Array, Array], Array]) -> list[int]:
    """Indices of the ends and of the points that move the area most, found one by one; where none does, fewer."""

    def best(first: int, last: int) -> tuple[float, int, int, int]:
        gains = areas(x[first : last + 1], y[first : last + 1])
        index = int(np.argmax(gains))
        return -float(gains[index]), first + index, first, last

    kept = {0, len(x) - 1}
    stretches = [best(0, len(x) - 1)]
    while len(kept) < points and stretches[0][0] < 0:
        _, index, first, last = stretches[0]
        kept.add(index)
        heapq.heapreplace(stretches, best(first, index))
        heapq.heappush(stretches, best(index, last))
    return sorted(kept)


def _triangles(x: Array, y: Array) -> Array:
    """Area between the line from the first point to the last and the two lines by way of each point, (n,)."""
    return np.abs((x - x[0]) * (y[-1] - y[0]) - (y - y[0]) * (x[-1] - x[0])) / 2


def _steps(x: Array, y: Array) -> Array:
    """Area between the step from the first point to the height of the last and the two by way of each, (n,)."""
    return np.abs((x - x[0]) * (y - y[-1]))


def calibration_bins(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None, *, bins: int = ECE_BINS) -> Array:
    """Per bin of equal width: pixels [0], sum of probabilities [1], marked pixels [2]; float64 (3, bins)."""
    values, target = _scored(prob, truth, fov)
    sums = [np.bincount(_bin(values, bins), weights=w, minlength=bins) for w in (None, values, target)]
    return np.stack(sums).astype(np.float64)


def ece_from_bins(table: Array) -> float:
    """Expected calibration error of (pooled) `calibration_bins` (3, bins)."""
    pixels, probability, marked = table
    return _ratio(float(np.abs(probability - marked).sum()), float(pixels.sum()))


def ece(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None, *, bins: int = ECE_BINS) -> float:
    """Expected calibration error in [0, 1] of the probability of "marked", 15 bins of equal width on [0, 1].

    Mean over pixels of |mean probability - share marked| of their bin (Naeini et al. 2015; for the class
    "marked", not for the likelier one).
    """
    return ece_from_bins(calibration_bins(prob, truth, fov, bins=bins))


def brier(prob: npt.ArrayLike, truth: npt.ArrayLike, fov: Fov = None) -> float:
    """Mean squared difference between probability and truth (Brier 1950), in [0, 1]."""
    values, target = _scored(prob, truth, fov)
    return _ratio(float(_squared_error(values, target)), values.size)


def _squared_error(values: Array, target: Array) -> np.float64:
    return np.float64(np.square(values.astype(np.float64) - target).sum())


def mask_metrics(counts: npt.ArrayLike, skeleton: npt.ArrayLike) -> dict[str, float]:
    """All MASK_METRICS from (pooled) tp, fp, fn, tn (4,) and `skeleton_counts` (4,)."""
    pooled = Counts(*(int(value) for value in np.asarray(counts)))
    values = {name: float(getattr(pooled, name)) for name in MASK_METRICS if name != "cldice"}
    return {**values, "cldice": cldice_from_counts(skeleton)}


@dataclass(frozen=True)
class Tally:
    """What one image adds to the pooled metrics; all fields add up over images, with weights if need be."""

    counts: Array  # int (4,): tp, fp, fn, tn
    skeleton: Array  # int (4,), see skeleton_counts
    histogram: Array  # int (2, HISTOGRAM_BINS), see score_histogram
    calibration: Array  # float (3, ECE_BINS), see calibration_bins
    squared_error: Array  # float (1,)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def counts_at(self, threshold: float) -> Counts:
        """Counts at another threshold, exact where it is a multiple of 1 / HISTOGRAM_BINS."""
        edge = math.ceil(threshold * HISTOGRAM_BINS)
        (tn, fn), (fp, tp) = self.histogram[:, :edge].sum(axis=1), self.histogram[:, edge:].sum(axis=1)
        return Counts(int(tp), int(fp), int(fn), int(tn))

    def metrics(self) -> dict[str, float]:
        """All MASK_METRICS and PROB_METRICS; auc and ap are binned, within `binning_error` of exact."""
        values = mask_metrics(self.counts, self.skeleton)
        values["auc"], values["ap"] = auc_from_histogram(self.histogram), ap_from_histogram(self.histogram)
        values["ece"] = ece_from_bins(self.calibration)
        values["brier"] = _ratio(float(self.squared_error[0]), float(self.counts.sum()))
        return values


def tally(prob: Array, truth: Array, fov: Array | None, threshold: float, *, centrelines: bool = True) -> Tally:
    """Tally of one image: prob float (H, W), truth and fov bool (H, W); marked is `prob >= threshold`.

    Without `centrelines` clDice is undefined: it takes long on large images and says nothing of what is not a line.
    """
    mask = prob >= threshold
    return Tally(
        counts=np.array(astuple(confusion_counts(mask, truth, fov)), dtype=np.int64),
        skeleton=skeleton_counts(mask, truth, fov) if centrelines else np.zeros(4, dtype=np.int64),
        histogram=score_histogram(prob, truth, fov),
        calibration=calibration_bins(prob, truth, fov),
        squared_error=np.array([_squared_error(*_scored(prob, truth, fov))]),
    )


def resampled(tallies: Sequence[Tally], weights: Array) -> Iterator[Tally]:
    """Sum of the tallies for every row of `weights` (n, images), which says how often each image counts."""
    # float64 holds whole numbers up to 2^53 exactly, and multiplies far faster than int64
    stacks = {f.name: np.stack([getattr(t, f.name) for t in tallies]).astype(float) for f in fields(Tally)}
    for times in np.asarray(weights, dtype=float):
        yield Tally(**{name: np.tensordot(times, stack, 1) for name, stack in stacks.items()})


def pool(tallies: Sequence[Tally]) -> Tally:
    """Sum of the tallies of several images."""
    return next(resampled(tallies, np.ones((1, len(tallies)))))
