"""Metrics against scikit-learn, MONAI and hand-computed values; invariance outside the field of view."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from PIL import Image
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from retina_seg import metrics
from retina_seg.metrics import Array, Counts

OF_MASK: dict[str, Callable[..., float]] = {
    "dice": metrics.dice,
    "iou": metrics.iou,
    "sensitivity": metrics.sensitivity,
    "specificity": metrics.specificity,
    "precision": metrics.precision,
    "accuracy": metrics.accuracy,
    "mcc": metrics.mcc,
    "cldice": metrics.cldice,
}
OF_PROB: dict[str, Callable[..., float]] = {
    "auc": metrics.auc,
    "ap": metrics.average_precision,
    "ece": metrics.ece,
    "brier": metrics.brier,
}


def disc(size: int = 96, radius: float = 40) -> Array:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(y, x) <= radius


def scene(seed: int = 0, size: int = 96) -> tuple[Array, Array, Array]:
    """prob, truth, fov: a few lines 3 px wide, found with noise; rounded scores, so there are many ties."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size, size), dtype=bool)
    for start in (20, 45, 70):
        truth[start : start + 3, 10:-10] = True
        truth[10:-10, start + 4 : start + 7] = True
    prob = np.clip(0.25 + 0.4 * truth + rng.normal(0, 0.2, truth.shape), 0, 1).astype(np.float32)
    return np.round(prob, 2), truth, disc(size)


# --- against other implementations


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_mask_metrics_agree_with_sklearn(seed: int, whole: bool) -> None:
    prob, truth, fov = scene(seed)
    mask, inside = prob >= 0.5, np.ones_like(fov) if whole else fov
    y, p = truth[inside], mask[inside]
    expected = {
        "dice": sk.f1_score(y, p),
        "iou": sk.jaccard_score(y, p),
        "sensitivity": sk.recall_score(y, p),
        "specificity": sk.recall_score(~y, ~p),
        "precision": sk.precision_score(y, p),
        "accuracy": sk.accuracy_score(y, p),
        "mcc": sk.matthews_corrcoef(y, p),
    }
    for name, value in expected.items():
        assert OF_MASK[name](mask, truth, None if whole else fov) == pytest.approx(value, abs=1e-12), name


def test_dice_and_iou_agree_with_monai() -> None:
    prob, truth, _ = scene()
    mask = prob >= 0.5
    batch = [torch.from_numpy(one[None, None].astype(np.float32)) for one in (mask, truth)]
    assert metrics.dice(mask, truth) == pytest.approx(float(compute_dice(*batch)), abs=1e-6)
    assert metrics.iou(mask, truth) == pytest.approx(float(compute_iou(*batch)), abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prob_metrics_agree_with_sklearn(seed: int, dtype: type) -> None:
    prob, truth, fov = scene(seed)
    prob = prob.astype(dtype)
    y, p = truth[fov], prob[fov]
    assert len(np.unique(p)) < 102, "the scene must have ties"
    assert metrics.auc(prob, truth, fov) == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    assert metrics.average_precision(prob, truth, fov) == pytest.approx(sk.average_precision_score(y, p), abs=1e-12)
    assert metrics.brier(prob, truth, fov) == pytest.approx(sk.brier_score_loss(y, p), abs=1e-7)


def test_ece_agrees_with_sklearn_calibration_curve() -> None:
    rng = np.random.default_rng(3)
    prob = rng.random(20_000)
    truth = rng.random(20_000) < prob**2
    shares, means = calibration_curve(truth, prob, n_bins=15, strategy="uniform")
    pixels = np.histogram(prob, bins=15, range=(0, 1))[0]
    expected = float(np.sum(np.abs(shares - means) * pixels) / pixels.sum())
    assert metrics.ece(prob, truth) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.1


def test_best_threshold_is_the_best_of_all() -> None:
    prob, truth, fov = scene()
    threshold, best = metrics.best_threshold(prob, truth, fov)
    every = [sk.f1_score(truth[fov], prob[fov] >= t) for t in np.unique(prob)]
    assert best == pytest.approx(max(every), abs=1e-12)
    assert metrics.dice(prob >= threshold, truth, fov) == pytest.approx(best, abs=1e-12)


# --- by hand


def test_counts_by_hand() -> None:
    mask = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    truth = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    fov = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    assert metrics.confusion_counts(mask, truth) == Counts(tp=2, fp=1, fn=1, tn=4)
    counts = metrics.confusion_counts(mask, truth, fov)
    assert counts == Counts(tp=2, fp=1, fn=1, tn=2)
    assert counts.dice == pytest.approx(4 / 6)
    assert counts.iou == pytest.approx(2 / 4)
    assert counts.specificity == pytest.approx(2 / 3)
    assert counts.mcc == pytest.approx((2 * 2 - 1 * 1) / 9)


def test_counts_pool_by_addition() -> None:
    scenes = [scene(seed) for seed in range(3)]
    pooled = sum((metrics.confusion_counts(p >= 0.5, t, f) for p, t, f in scenes), Counts())
    prob, truth, fov = (np.concatenate(arrays) for arrays in zip(*scenes, strict=True))
    assert pooled == metrics.confusion_counts(prob >= 0.5, truth, fov)


def test_cldice_by_hand() -> None:
    truth = np.zeros((40, 60), dtype=bool)
    truth[20, 5:45] = True  # 40 px, one wide: its own skeleton
    mask = np.zeros_like(truth)
    mask[20, 25:55] = True  # 30 px, 20 of them on the line
    assert metrics.skeleton_counts(mask, truth).tolist() == [20, 30, 20, 40]
    precision, sensitivity = 20 / 30, 20 / 40
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert metrics.cldice(mask, truth) == pytest.approx(expected)
    fov = np.zeros_like(truth)
    fov[:, :35] = True  # truth 5..34, mask 25..34
    assert metrics.cldice(mask, truth, fov) == pytest.approx(2 * (10 / 30) / (1 + 10 / 30))


def test_cldice_does_not_reward_calibre_but_does_reward_a_found_branch() -> None:
    thick = np.zeros((60, 60), dtype=bool)
    thick[25:34, 5:55] = True
    thin = np.zeros_like(thick)
    thin[29, 9:51] = True  # the centre line only
    assert metrics.cldice(thin, thick) > 0.95
    assert metrics.dice(thin, thick) < 0.3
    branch = thick.copy()
    branch[34:55, 30] = True
    assert metrics.cldice(thick, branch) < 0.85
    assert metrics.dice(thick, branch) > 0.95


def test_auc_and_average_precision_by_hand() -> None:
    prob = np.array([0.9, 0.5, 0.5, 0.1])
    truth = np.array([True, False, True, False])
    assert metrics.auc(prob, truth) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert metrics.average_precision(prob, truth) == pytest.approx(0.5 * 1 + 0.5 * (2 / 3))
    assert metrics.auc(1 - prob, truth) == pytest.approx(1 - 3.5 / 4)


def test_calibration_by_hand() -> None:
    prob = np.array([0.0, 0.25, 0.25, 0.75, 1.0])
    truth = np.array([False, False, True, True, True])
    assert metrics.ece(prob, truth, bins=2) == pytest.approx((abs(0.5 - 1) + abs(1.75 - 2)) / 5)
    assert metrics.brier(prob, truth) == pytest.approx((0.25**2 + 0.75**2 + 0.25**2) / 5)


def test_shuffled_predictions_score_half() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(400_000) < 0.12
    prob = np.clip(rng.normal(0.2 + 0.5 * truth, 0.1), 0, 1).astype(np.float32)
    assert metrics.auc(prob, truth) > 0.99
    shuffled = rng.permutation(prob)
    assert metrics.auc(shuffled, truth) == pytest.approx(0.5, abs=0.006)
    assert metrics.average_precision(shuffled, truth) == pytest.approx(truth.mean(), abs=0.006)
    assert metrics.mcc(shuffled >= 0.45, truth) == pytest.approx(0, abs=0.01)


def test_a_bool_map_scores_as_probabilities_0_and_1() -> None:
    prob, truth, fov = scene()
    mask = prob >= 0.5
    balanced = (metrics.sensitivity(mask, truth, fov) + metrics.specificity(mask, truth, fov)) / 2
    assert metrics.auc(mask, truth, fov) == pytest.approx(balanced)
    assert metrics.brier(mask, truth, fov) == pytest.approx(1 - metrics.accuracy(mask, truth, fov))


# --- conventions


@pytest.mark.parametrize("name", OF_MASK)
def test_mask_outside_the_fov_changes_nothing(name: str) -> None:
    prob, truth, fov = scene()
    mask = prob >= 0.5
    inside = OF_MASK[name](mask, truth, fov)
    assert OF_MASK[name](mask ^ ~fov, truth, fov) == inside
    assert OF_MASK[name](mask, truth ^ ~fov, fov) == inside
    assert OF_MASK[name](mask ^ ~fov, truth) != inside, "the flip must matter without a field of view"
    frame = np.ones_like(fov)
    assert OF_MASK[name](mask, truth, frame) == OF_MASK[name](mask, truth)


@pytest.mark.parametrize("name", OF_PROB)
def test_prob_outside_the_fov_changes_nothing(name: str) -> None:
    prob, truth, fov = scene()
    inside = OF_PROB[name](prob, truth, fov)
    flipped = np.where(fov, prob, 1 - prob)
    assert OF_PROB[name](flipped, truth, fov) == inside
    assert OF_PROB[name](prob, truth ^ ~fov, fov) == inside
    assert OF_PROB[name](np.where(fov, prob, np.nan), truth, fov) == inside
    assert OF_PROB[name](flipped, truth) != inside


def test_binned_statistics_ignore_what_is_outside_the_fov() -> None:
    prob, truth, fov = scene()
    one = metrics.tally(prob, truth, fov, 0.5)
    other = metrics.tally(np.where(fov, prob, 1 - prob), truth ^ ~fov, fov, 0.5)
    for name in ("counts", "skeleton", "histogram", "calibration", "squared_error"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert metrics.best_threshold(prob, truth, fov) == metrics.best_threshold(prob, truth & fov, fov)


@pytest.mark.parametrize(
    ("truth", "mask", "undefined"),
    [
        ("none", "some", {"dice", "iou", "sensitivity", "mcc", "cldice", "auc", "ap"}),
        ("none", "none", {"dice", "iou", "sensitivity", "precision", "mcc", "cldice", "auc", "ap"}),
        ("some", "none", {"precision", "mcc"}),
        ("all", "some", {"specificity", "mcc", "auc"}),
        ("some", "some", set()),
    ],
)
def test_undefined_is_nan_and_nothing_else_is(truth: str, mask: str, undefined: set[str]) -> None:
    maps = {"none": np.zeros((9, 9), bool), "all": np.ones((9, 9), bool), "some": np.eye(9, dtype=bool)}
    values = {name: f(maps[mask], maps[truth]) for name, f in (OF_MASK | OF_PROB).items()}
    assert {name for name, value in values.items() if math.isnan(value)} == undefined
    tally = metrics.tally(maps[mask].astype(np.float32), maps[truth], None, 0.5).metrics()
    assert {name for name, value in tally.items() if math.isnan(value)} == undefined
    if truth == "some" and mask == "none":
        assert values["dice"] == values["cldice"] == values["sensitivity"] == 0
    assert math.isnan(metrics.best_threshold(maps[mask], maps["none"])[0])


def test_an_empty_field_of_view_leaves_everything_undefined() -> None:
    prob, truth, fov = scene()
    nothing = np.zeros_like(fov)
    for name, function in (OF_MASK | OF_PROB).items():
        assert math.isnan(function(prob >= 0.5, truth, nothing)), name


def test_inputs_are_left_alone_and_integers_are_read_as_marks() -> None:
    prob, truth, fov = scene()
    arrays = (prob, truth, fov)
    for array in arrays:
        array.setflags(write=False)  # a write would raise
    mask = prob >= 0.5
    for name, function in OF_MASK.items():
        value = function(mask, truth, fov)
        assert function(mask * np.uint8(255), truth.astype(np.int64), fov * np.uint8(255)) == value, name
    for function in OF_PROB.values():
        function(*arrays)


def test_wrong_arrays_are_refused() -> None:
    prob, truth, fov = scene()
    with pytest.raises(TypeError, match="mask is float32"):
        metrics.dice(prob, truth, fov)
    with pytest.raises(TypeError, match="truth is float64"):
        metrics.auc(prob, truth.astype(float), fov)
    with pytest.raises(TypeError, match="prob is int64"):
        metrics.auc(truth.astype(np.int64), truth)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.dice(truth[1:], truth)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.dice(truth, truth, fov[1:])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.auc(prob * 3, truth)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.brier(np.where(truth, np.nan, prob), truth)
    with pytest.raises(ValueError, match="one image"):
        metrics.cldice(truth[None], truth[None])


def test_importing_metrics_does_not_import_torch() -> None:
    code = "import sys, retina_seg.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- binned


@pytest.mark.parametrize("bins", [16, 256, 4096])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_binned_ranking_is_within_its_bound(bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(30_000) < 0.1
    prob = 1 / (1 + np.exp(-rng.normal(-3 + 3 * truth, 1 + 0.5 * seed)))
    histogram = metrics.score_histogram(prob, truth, bins=bins)
    auc_bound, ap_bound = metrics.binning_error(histogram)
    auc_error = abs(metrics.auc_from_histogram(histogram) - metrics.auc(prob, truth))
    ap_error = abs(metrics.ap_from_histogram(histogram) - metrics.average_precision(prob, truth))
    assert auc_error <= auc_bound + 1e-12
    assert ap_error <= ap_bound + 1e-12
    if bins == 4096:
        assert auc_bound < 1e-3
        assert ap_bound < 0.02
        assert auc_error < 2e-5
        assert ap_error < 2e-3


def test_the_bound_holds_in_the_worst_case() -> None:
    for prob in ([0.1, 0.2], [0.2, 0.1]):  # one bin: right or wrong, the histogram cannot tell
        histogram = metrics.score_histogram(np.array(prob), np.array([False, True]), bins=2)
        exact = metrics.auc(np.array(prob), np.array([False, True]))
        assert abs(metrics.auc_from_histogram(histogram) - exact) == 0.5 == metrics.binning_error(histogram)[0]


def test_histogram_is_exact_where_scores_are_bin_edges() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.2
    prob = np.clip(np.round(rng.normal(60 + 90 * truth, 40)), 0, 255) / 256
    histogram = metrics.score_histogram(prob, truth, bins=256)
    assert metrics.auc_from_histogram(histogram) == pytest.approx(sk.roc_auc_score(truth, prob), abs=1e-12)
    assert metrics.ap_from_histogram(histogram) == pytest.approx(sk.average_precision_score(truth, prob), abs=1e-12)
    threshold, best = metrics.best_threshold_from_histogram(histogram)
    assert best == pytest.approx(metrics.best_threshold(prob, truth)[1], abs=1e-12)
    assert metrics.dice(prob >= threshold, truth) == pytest.approx(best, abs=1e-12)


def test_histogram_threshold_counts_exactly_and_takes_the_middle_of_a_plateau() -> None:
    prob, truth, fov = scene()
    prob = np.clip(prob + np.random.default_rng(1).normal(0, 0.003, prob.shape), 0, 1).astype(np.float32)
    threshold, best = metrics.best_threshold_from_histogram(metrics.score_histogram(prob, truth, fov))
    assert metrics.dice(prob >= threshold, truth, fov) == pytest.approx(best, abs=1e-12)
    assert best == pytest.approx(metrics.best_threshold(prob, truth, fov)[1], abs=2e-3)
    histogram = metrics.score_histogram(truth, truth)
    assert metrics.best_threshold_from_histogram(histogram) == (0.5, 1.0)


def test_probability_one_falls_into_the_last_bin() -> None:
    histogram = metrics.score_histogram(np.array([0.0, 1.0]), np.array([False, True]))
    assert histogram[0, 0] == histogram[1, -1] == 1
    assert histogram.sum() == 2


def test_pooled_tallies_are_the_metrics_of_all_pixels() -> None:
    scenes = [scene(seed) for seed in range(4)]
    times = np.array([2, 0, 1, 1])
    tallies = [metrics.tally(*one, 0.5) for one in scenes]
    repeated = [one for one, count in zip(scenes, times, strict=True) for _ in range(count)]
    prob, truth, fov = (np.concatenate(arrays) for arrays in zip(*repeated, strict=True))
    pooled = next(metrics.resampled(tallies, times[None])).metrics()
    for name in set(OF_MASK) - {"cldice"}:
        assert pooled[name] == pytest.approx(OF_MASK[name](prob >= 0.5, truth, fov), abs=1e-12), name
    for name in OF_PROB:
        assert pooled[name] == pytest.approx(OF_PROB[name](prob, truth, fov), abs=1e-6), name
    skeletons = sum(metrics.skeleton_counts(p >= 0.5, t, f) for p, t, f in repeated)
    assert pooled["cldice"] == metrics.cldice_from_counts(skeletons)
    assert metrics.pool(tallies[:1]).metrics() == tallies[0].metrics()
    assert set(pooled) == {*metrics.MASK_METRICS, *metrics.PROB_METRICS}


def test_second_observer_of_drive(data_root: Path) -> None:
    """The human row of DRIVE by these functions, and by one formula that shares nothing with them."""
    folder, values, ours = data_root / "DRIVE" / "test", [], []
    for number in range(1, 21):
        names = (
            f"1st_manual/{number:02}_manual1.gif",
            f"2nd_manual/{number:02}_manual2.gif",
            f"mask/{number:02}_test_mask.gif",
        )
        maps = []
        for name in names:
            with Image.open(folder / name) as opened:
                maps.append(np.asarray(opened) > 0)
        one, two, fov = maps
        values.append(2 * (one & two & fov).sum() / ((one & fov).sum() + (two & fov).sum()))
        ours.append(metrics.dice(two, one, fov))
    assert ours == pytest.approx(values)
    assert np.mean(values) == pytest.approx(0.788, abs=0.0015)


# --- curves


def pixels(separation: float, share: float = 0.1, n: int = 200_000) -> tuple[Array, Array]:
    """prob float32 (n,) of two normal populations, and truth."""
    rng = np.random.default_rng(7)
    truth = rng.random(n) < share
    prob = 1 / (1 + np.exp(-(rng.normal(0, 1, n) + separation * truth - separation / 2 - 1)))
    return prob.astype(np.float32), truth


def curves(prob: Array, truth: Array, fov: Array | None = None) -> dict[str, Array]:
    found = metrics.curves_from_histogram(metrics.score_histogram(prob, truth, fov))
    return {name: np.array(values) for name, values in found.items()}


def step_area(recall: Array, precision: Array) -> float:
    return float(np.sum(np.diff(recall, prepend=0) * precision))


@pytest.mark.parametrize("separation", [0.0, 1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_thinned_curves_have_the_area_of_the_whole_ones(separation: float, share: float) -> None:
    prob, truth = pixels(separation, share)
    thin = curves(prob, truth)
    assert len(thin["fpr"]) == len(thin["tpr"]) == len(thin["roc_threshold"]) <= metrics.ROC_POINTS
    assert len(thin["recall"]) == len(thin["precision"]) == len(thin["pr_threshold"]) <= metrics.PR_POINTS
    assert np.trapezoid(thin["tpr"], thin["fpr"]) == pytest.approx(sk.roc_auc_score(truth, prob), abs=1e-4)
    exact = sk.average_precision_score(truth, prob)
    error = step_area(thin["recall"], thin["precision"]) - exact
    assert abs(error) < (1e-3 if exact > 0.8 else 1 / (2 * metrics.PR_POINTS))
    assert np.trapezoid(thin["precision"], thin["recall"]) == pytest.approx(exact, abs=1e-3)


def test_points_of_the_curves_are_those_of_their_thresholds() -> None:
    prob, truth, fov = scene()
    thin = curves(prob, truth, fov)
    for x, y, threshold in zip(thin["fpr"], thin["tpr"], thin["roc_threshold"], strict=True):
        counts = metrics.confusion_counts(prob >= threshold, truth, fov)
        assert (x, y) == pytest.approx((1 - counts.specificity, counts.sensitivity), abs=1e-12)
    for x, y, threshold in zip(thin["recall"], thin["precision"], thin["pr_threshold"], strict=True):
        counts = metrics.confusion_counts(prob >= threshold, truth, fov)
        assert (x, y) == pytest.approx((counts.sensitivity, counts.precision), abs=1e-12)
    assert (thin["fpr"][0], thin["tpr"][0], thin["roc_threshold"][0]) == (0, 0, math.inf)
    assert (thin["fpr"][-1], thin["tpr"][-1], thin["roc_threshold"][-1]) == (1, 1, 0)
    assert (thin["recall"][-1], thin["precision"][-1]) == (1, pytest.approx(truth[fov].mean()))
    for name, direction in (("fpr", 1), ("tpr", 1), ("recall", 1), ("roc_threshold", -1), ("pr_threshold", -1)):
        assert (direction * np.diff(thin[name]) >= 0).all()


def test_curves_by_hand() -> None:
    histogram = np.array([[4, 3, 0, 1], [0, 1, 0, 1]])  # unmarked, marked; thresholds 0, 1/4, 1/2, 3/4
    assert metrics.curves_from_histogram(histogram) == {
        "fpr": [0, 0.125, 0.5, 1],
        "tpr": [0, 0.5, 1, 1],
        "roc_threshold": [math.inf, 0.75, 0.25, 0],
        "recall": [0.5, 1, 1],
        "precision": [0.5, 1 / 3, 0.2],
        "pr_threshold": [0.75, 0.25, 0],
    }
    few = metrics.curves_from_histogram(histogram, roc_points=3)
    assert few["fpr"] == [0, 0.5, 1]  # the triangle over it is the larger one


def test_undefined_curves_are_empty() -> None:
    histogram = np.zeros((2, 8), dtype=int)
    histogram[0, 2] = 5
    assert not any(metrics.curves_from_histogram(histogram).values())
    whole = metrics.curves_from_histogram(histogram[::-1])
    assert whole["fpr"] == whole["tpr"] == whole["roc_threshold"] == []
    assert set(whole["precision"]) == set(whole["recall"]) == {1}


def test_an_exact_ranking_gives_the_exact_areas_and_pools():
    rng = np.random.default_rng(3)
    prob = np.round(rng.uniform(0, 1, (4, 50, 50)), 2).astype(np.float32)  # many ties
    truth, fov = rng.uniform(0, 1, prob.shape) < prob, rng.uniform(0, 1, prob.shape) < 0.8
    parts = [metrics.ranking(*one) for one in zip(prob, truth, fov, strict=True)]
    for found in (metrics.ranking(prob, truth, fov), metrics.merged(parts)):
        assert np.all(np.diff(found.levels) > 0)
        assert found.counts.sum() == fov.sum()
        assert metrics.auc_from_histogram(found.counts) == pytest.approx(metrics.auc(prob, truth, fov), abs=1e-12)
        expected = metrics.average_precision(prob, truth, fov)
        assert metrics.ap_from_histogram(found.counts) == pytest.approx(expected, abs=1e-12)


def test_a_coarse_ranking_is_within_its_bound_and_keeps_the_order():
    rng = np.random.default_rng(4)
    truth = rng.uniform(0, 1, 200_000) < 0.01
    odds = rng.normal(np.where(truth, 2, -6), 3)
    prob = (1 / (1 + np.exp(-odds))).astype(np.float32)
    found = metrics.ranking(prob, truth, coarse=True)
    auc_bound, ap_bound = metrics.binning_error(found.counts)
    assert abs(metrics.auc_from_histogram(found.counts) - metrics.auc(prob, truth)) <= auc_bound < 1e-4
    assert abs(metrics.ap_from_histogram(found.counts) - metrics.average_precision(prob, truth)) <= ap_bound < 2e-3
    halves = metrics.merged([metrics.ranking(prob[part::2], truth[part::2], coarse=True) for part in (0, 1)])
    np.testing.assert_array_equal(halves.counts, found.counts)
    levels = metrics._odds_level(np.sort(np.append(prob, np.float32([0, 0.5, 1]))))
    assert np.all(np.diff(levels) >= 0)
    assert (levels[0], levels[-1]) == (0, metrics._TOP_LEVEL)


def test_a_ranking_of_nothing_has_undefined_areas():
    empty = np.zeros(5, dtype=bool)
    for coarse in (False, True):
        for fov in (empty, None):
            found = metrics.ranking(np.full(5, 0.5, np.float32), empty, fov, coarse=coarse)
            assert math.isnan(metrics.auc_from_histogram(found.counts))
            assert math.isnan(metrics.ap_from_histogram(found.counts))
            assert all(math.isnan(bound) for bound in metrics.binning_error(found.counts))


def test_a_tally_knows_its_counts_at_other_thresholds_and_adds_up():
    rng = np.random.default_rng(5)
    prob, truth = rng.uniform(0, 1, (60, 60)).astype(np.float32), rng.uniform(0, 1, (60, 60)) < 0.3
    fov = rng.uniform(0, 1, (60, 60)) < 0.7
    inside, outside = (metrics.tally(prob, truth, part, 0.4, centrelines=False) for part in (fov, ~fov))
    for threshold in (0.0, 0.25, 0.5, 1000 / 4096, 1.0):
        assert inside.counts_at(threshold) == metrics.confusion_counts(prob >= threshold, truth, fov)
    whole = metrics.tally(prob, truth, None, 0.4)
    np.testing.assert_array_equal((inside + outside).counts, whole.counts)
    np.testing.assert_array_equal((inside + outside).histogram, whole.histogram)
    assert (inside + outside).metrics()["brier"] == pytest.approx(whole.metrics()["brier"])
    assert math.isnan(inside.metrics()["cldice"])
    assert not math.isnan(whole.metrics()["cldice"])
