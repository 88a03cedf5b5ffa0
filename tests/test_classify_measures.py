"""Measures of classifiers against formulas written out here, hand-made tables and scikit-learn; NaN rules."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from retina_seg.classify import measures
from retina_seg.metrics import Array


def answers(seed: int = 0, n: int = 300, classes: int = 4, skill: float = 1.5) -> tuple[Array, Array]:
    """prob float32 (n, classes) with ties, and truth int64 (n,), of an unequal number of each class."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    logits = np.round(rng.normal(skill * (truth[:, None] == np.arange(classes)), 1.0), 1)
    return softmax(logits, axis=1).astype(np.float32), truth


def table_of(predicted: Array, truth: Array, classes: int) -> Array:
    table = np.zeros((classes, classes))
    for row, column in zip(truth, predicted, strict=True):
        table[row, column] += 1
    return table


def kappa_of(table: Array) -> float:
    """Cohen 1968, from the confusion matrix."""
    classes, total = len(table), table.sum()
    observed = expected = 0.0
    for i in range(classes):
        for j in range(classes):
            observed += (i - j) ** 2 * table[i, j]
            expected += (i - j) ** 2 * table[i].sum() * table[:, j].sum() / total
    return 1 - observed / expected


def auc_of(score: Array, marked: Array) -> float:
    """Pair by pair; a tie counts one half."""
    above, below = score[marked][:, None], score[~marked][None]
    return float(((above > below) + 0.5 * (above == below)).mean())


def ece_of(prob: Array, truth: Array, bins: int) -> float:
    inside: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row, label in zip(prob, truth, strict=True):
        confidence = float(row.max())
        inside[min(int(confidence * bins), bins - 1)].append((confidence, int(row.argmax()) == label))
    error = 0.0
    for members in inside:
        if members:
            confidence, right = (sum(column) / len(members) for column in zip(*members, strict=True))
            error += len(members) / len(truth) * abs(right - confidence)
    return error


# --- scores


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_agree_with_formulas_written_out(seed: int, classes: int) -> None:
    prob, truth = answers(seed, classes=classes)
    prob64 = prob / prob.sum(axis=1, keepdims=True, dtype=np.float64)
    table = table_of(prob.argmax(axis=1), truth, classes)
    hit, given, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    truth_rows = np.eye(classes)[truth]
    expected = {
        "accuracy": hit.sum() / len(truth),
        "balanced_accuracy": (hit / given).mean(),
        "macro_f1": (2 * hit / (given + said)).mean(),
        "quadratic_kappa": kappa_of(table),
        "macro_auc": np.mean([auc_of(prob[:, k], truth == k) for k in range(classes)]),
        "log_loss": -np.mean([math.log(row[label]) for row, label in zip(prob64, truth, strict=True)]),
        "brier": sum(float((row - one) @ (row - one)) for row, one in zip(prob64, truth_rows, strict=True))
        / len(truth),
        "ece": ece_of(prob64, truth, 15),
    }
    found = measures.scores(prob, truth)
    assert tuple(found) == measures.METRICS
    assert all(type(value) is float for value in found.values())
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6 if name == "macro_auc" else 1e-9), name
    assert 0.4 < found["accuracy"] < 0.95  # an easy or an empty task would prove nothing
    assert set(measures.METRICS) > measures.LOWER_IS_BETTER


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    prob, truth = answers(5, classes=classes)
    prob = prob.astype(np.float64)
    prob /= prob.sum(axis=1, keepdims=True)
    truth[truth == classes - 1] = 0  # one class is never right
    prob[0] = np.eye(classes)[(truth[0] + 1) % classes]  # surely wrong
    predicted, found = prob.argmax(axis=1), measures.scores(prob, truth)
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.recall_score(truth, predicted, average="macro", zero_division=np.nan),
        "macro_f1": sk.f1_score(truth, predicted, average="macro"),
        "log_loss": sk.log_loss(truth, prob, labels=np.arange(classes)),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    if classes == 10:  # all classes occur
        kappa = sk.cohen_kappa_score(truth, predicted, weights="quadratic", labels=np.arange(classes))
        assert found["quadratic_kappa"] == pytest.approx(kappa, rel=1e-9)


def test_scores_by_hand() -> None:
    prob = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    found = measures.scores(prob, np.array([0, 1, 2, 0]))
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)
    # table: truth 0 -> 0, 2; 1 -> 0; 2 -> 2. Observed 1 + 4; expected (1*2*1 + 1*2*1 + 2*2*4 + 1*2*4) / 4
    assert found["quadratic_kappa"] == pytest.approx(1 - 5 / 7)
    assert found["macro_auc"] == pytest.approx((3 / 4 + 3 / 3 + 3 / 3) / 3)
    assert found["log_loss"] == pytest.approx(-math.log(0.7 * 0.4 * 0.8 * 0.3) / 4)
    assert found["brier"] == pytest.approx((0.14 + 0.72 + 0.06 + 0.74) / 4)
    assert found["ece"] == pytest.approx((0.3 + 0.6 + 0.2 + 0.4) / 4)  # each in a bin of its own


def test_ends_of_the_scales() -> None:
    truth = np.array([0, 1, 2, 2])
    right = measures.scores(np.eye(3)[truth], truth)
    assert right == pytest.approx(
        {**dict.fromkeys(measures.METRICS, 1.0), "log_loss": 0.0, "brier": 0.0, "ece": 0.0}, abs=1e-12
    )
    wrong = measures.scores(np.eye(3)[[1, 2, 0, 0]], truth)
    assert (wrong["accuracy"], wrong["brier"], wrong["ece"]) == (0, 2, 1)
    assert wrong["log_loss"] == pytest.approx(36.04, abs=0.01)
    assert measures.quadratic_kappa([0, 4], [4, 0]) == -1


def test_shuffled_predictions_score_chance() -> None:
    prob, truth = answers(n=4000, classes=3, skill=2.0)
    assert measures.scores(prob, truth)["macro_auc"] > 0.85
    shuffled = measures.scores(prob, np.random.default_rng(1).permutation(truth))
    assert shuffled["macro_auc"] == pytest.approx(0.5, abs=0.02)
    assert shuffled["quadratic_kappa"] == pytest.approx(0, abs=0.05)
    assert shuffled["balanced_accuracy"] == pytest.approx(1 / 3, abs=0.03)


def test_kappa_weighs_classes_by_their_distance_where_one_is_missing_from_both() -> None:
    predicted, truth = np.array([0, 2, 4, 4, 2, 0, 4]), np.array([0, 2, 4, 2, 0, 4, 4])  # no 1 and no 3
    expected = kappa_of(table_of(predicted, truth, 5))
    assert measures.quadratic_kappa(predicted, truth) == pytest.approx(expected, abs=1e-12)
    predicted, truth = np.array([0, 1, 4, 4, 1, 0, 4]), np.array([0, 1, 4, 1, 0, 4, 4])  # unequal distances
    expected = kappa_of(table_of(predicted, truth, 5))
    assert measures.quadratic_kappa(predicted, truth) == pytest.approx(expected, abs=1e-12)
    assert sk.cohen_kappa_score(truth, predicted, weights="quadratic") != pytest.approx(expected, abs=0.01)


def test_a_half_precision_softmax_scores_as_the_exact_one() -> None:
    prob, truth = answers()
    assert measures.scores(prob.astype(np.float16), truth) == pytest.approx(measures.scores(prob, truth), abs=2e-3)


# --- undefined


def test_undefined_is_nan_and_nothing_else_is() -> None:
    def undefined(prob: Array, truth: list[int]) -> set[str]:
        found = measures.scores(prob, np.array(truth, dtype=np.int64))
        return {name for name, value in found.items() if math.isnan(value)}

    says_0, says_2 = np.tile([0.8, 0.1, 0.1], (4, 1)), np.tile([0.1, 0.1, 0.8], (4, 1))
    assert undefined(np.empty((0, 3)), []) == set(measures.METRICS)
    assert undefined(says_0, [0, 0, 0, 0]) == {"quadratic_kappa", "macro_auc"}
    assert undefined(says_2, [0, 0, 0, 0]) == {"macro_auc"}
    assert undefined(says_0, [0, 1, 2, 0]) == set()
    assert measures.scores(says_0, np.array([0, 1, 2, 0]))["quadratic_kappa"] == 0
    assert measures.scores(says_2, np.array([0, 0, 0, 0]))["quadratic_kappa"] == 0


def test_means_over_classes_leave_out_those_that_are_absent() -> None:
    prob, truth = answers(classes=4)
    kept = truth != 2
    prob, truth = prob[kept], truth[kept]
    predicted = prob.argmax(axis=1)
    assert (predicted == 2).any()
    areas = measures.auc_per_class(prob, truth)
    assert np.isnan(areas).tolist() == [False, False, True, False]
    found = measures.scores(prob, truth)
    assert found["macro_auc"] == pytest.approx(areas[[0, 1, 3]].mean())
    recall = [np.mean(predicted[truth == k] == k) for k in (0, 1, 3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recall))
    f1 = [2 * np.sum((predicted == k) & (truth == k)) / (np.sum(predicted == k) + np.sum(truth == k)) for k in range(4)]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))  # predicted though absent: a mistake, F1 0
    never = np.where(np.arange(4) == 2, 0, prob)
    never = never / never.sum(axis=1, keepdims=True)
    said = never.argmax(axis=1)
    f1 = [2 * np.sum((said == k) & (truth == k)) / (np.sum(said == k) + np.sum(truth == k)) for k in (0, 1, 3)]
    assert measures.scores(never, truth)["macro_f1"] == pytest.approx(np.mean(f1))


# --- tables and curves


def test_joint_accuracy_wants_every_head_right() -> None:
    predictions = [np.array([0, 1, 2, 0]), np.array([1, 1, 0, 0])]
    truths = [np.array([0, 1, 2, 2]), np.array([1, 0, 0, 0])]
    assert measures.joint_accuracy(predictions, truths) == 0.5
    assert measures.joint_accuracy(predictions[:1], truths[:1]) == 0.75
    assert math.isnan(measures.joint_accuracy([[]], [[]]))


def test_confusion_has_the_truth_in_its_rows() -> None:
    assert measures.confusion([1, 1, 0], [0, 1, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    prob, truth = answers(classes=4)
    table = measures.confusion(prob.argmax(axis=1), truth, 4)
    assert table.dtype == np.int64
    assert np.array_equal(table, table_of(prob.argmax(axis=1), truth, 4))
    assert not np.array_equal(table, table.T)
    assert measures.confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_points_of_a_curve_are_rates_at_a_threshold_and_lie_over_the_area() -> None:
    prob, truth = answers(classes=3)
    curves = measures.roc(prob, truth)
    assert len(curves) == 3
    for k, (fpr, tpr, area) in enumerate(curves):
        assert area == pytest.approx(auc_of(prob[:, k], truth == k), abs=1e-6)
        assert np.trapezoid(tpr, fpr) == pytest.approx(area, abs=1e-12)
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        score, marked = prob[:, k], truth == k
        rates = {(np.mean(score[~marked] >= t), np.mean(score[marked] >= t)) for t in score}
        assert set(zip(fpr.tolist(), tpr.tolist(), strict=True)) - {(0.0, 0.0)} <= rates


def test_a_class_that_is_absent_has_no_curve() -> None:
    prob, truth = answers(classes=3)
    curves = measures.roc(prob[truth != 0], truth[truth != 0])
    assert [math.isnan(curve.auc) for curve in curves] == [True, False, False]
    assert [curve.fpr.size == curve.tpr.size == 0 for curve in curves] == [True, False, False]
    assert all(math.isnan(curve.auc) for curve in measures.roc(prob[truth == 1], truth[truth == 1]))


# --- regression


def test_regression_scores_by_formula() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 10, 80)
    predicted = truth + rng.normal(2, 4, 80)
    error = predicted - truth
    expected = {
        "mae": np.abs(error).mean(),
        "rmse": math.sqrt((error**2).mean()),
        "r2": 1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum(),
    }
    assert measures.regression_scores(predicted, truth) == pytest.approx(expected)
    assert measures.regression_scores([1, 4], [1, 2]) == pytest.approx({"mae": 1, "rmse": math.sqrt(2), "r2": -7})


def test_a_constant_truth_has_no_r2() -> None:
    for predicted, truth in (([3.0, 5.0], [4.0, 4.0]), ([4.0, 4.0], [4.0, 4.0]), ([1.0], [2.0])):
        found = measures.regression_scores(predicted, truth)
        assert math.isnan(found["r2"])
        assert found["mae"] == pytest.approx(np.abs(np.subtract(predicted, truth)).mean())
    assert all(math.isnan(value) for value in measures.regression_scores([], []).values())


# --- calibration


def test_reliability_by_hand() -> None:
    prob = np.array([[0.55, 0.45], [0.42, 0.58], [0.95, 0.05], [0.0, 1.0], [0.9, 0.1]])
    found = measures.reliability(prob, np.array([0, 0, 0, 1, 1]))
    assert found.count.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert found.confidence[[5, 9]] == pytest.approx([0.565, 0.95])
    assert found.accuracy[[5, 9]] == pytest.approx([0.5, 2 / 3])
    empty = found.count == 0
    assert np.array_equal(np.isnan(found.confidence), empty)
    assert np.array_equal(np.isnan(found.accuracy), empty)


def test_reliability_holds_the_calibration_error() -> None:
    prob, truth = answers(seed=3)
    found = measures.reliability(prob, truth, bins=15)
    filled = found.count > 0
    gap = np.abs(found.accuracy - found.confidence)[filled]
    assert gap @ found.count[filled] / len(truth) == pytest.approx(measures.scores(prob, truth)["ece"])
    assert found.count.sum() == len(truth)


# --- intervals


def accuracy(predicted: Array, truth: Array) -> float:
    return float(np.mean(predicted == truth))


def test_an_interval_is_deterministic_and_has_the_width_of_the_standard_error() -> None:
    prob, truth = answers(n=400)
    predicted, names = prob.argmax(axis=1), [str(index) for index in range(400)]
    low, high = measures.bootstrap(accuracy, (predicted, truth), names)
    share = accuracy(predicted, truth)
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 400), rel=0.1)
    assert measures.bootstrap(accuracy, (predicted, truth), names) == [low, high]
    other = measures.bootstrap(accuracy, (predicted, truth), names, n=100, seed=1)
    assert other != [low, high]
    assert measures.bootstrap(accuracy, (predicted, truth), names, n=100, seed=1) == other


def test_examples_of_a_subject_are_drawn_together() -> None:
    groups = ["a", "b", "a", "c", "b", "d", "a"]
    seen = []

    def note(rows: Array, matrix: Array) -> float:
        assert np.array_equal(matrix, rows[:, None] * [1, 10])  # rows of all arrays stay together
        seen.append(np.bincount(rows, minlength=7))
        return 0.0

    rows = np.arange(7)
    measures.bootstrap(note, (rows, rows[:, None] * [1, 10]), groups, n=200)
    counts = np.array(seen)
    assert len(counts) == 200
    for first, second in ((0, 2), (0, 6), (1, 4)):
        assert np.array_equal(counts[:, first], counts[:, second])
    assert set(counts[:, [0, 1, 3, 5]].sum(axis=1)) == {4}
    assert counts.max() > 1


def test_copies_of_a_subject_do_not_narrow_its_interval() -> None:
    prob, truth = answers(n=60)
    predicted, subjects = prob.argmax(axis=1), [str(index) for index in range(60)]
    once = measures.bootstrap(accuracy, (predicted, truth), subjects)
    copied = (np.tile(predicted, 4), np.tile(truth, 4))
    assert measures.bootstrap(accuracy, copied, subjects * 4) == pytest.approx(once)
    low, high = measures.bootstrap(accuracy, copied, [str(index) for index in range(240)])
    assert high - low < 0.65 * (once[1] - once[0])


def test_intervals_of_all_scores_are_those_of_each() -> None:
    prob, truth = answers(n=40, classes=3)
    groups = [str(index // 2) for index in range(40)]
    found = measures.bootstrap_all(measures.scores, (prob, truth), groups, n=20)
    assert tuple(found) == measures.METRICS

    def alone(prob: Array, truth: Array) -> float:
        return accuracy(prob.argmax(axis=1), truth)

    assert found["accuracy"] == pytest.approx(measures.bootstrap(alone, (prob, truth), groups, n=20))
    for name, value in measures.scores(prob, truth).items():
        low, high = found[name]
        assert low < high, name
        assert name == "ece" or low < value < high, name  # a resample of few examples is less well calibrated


def test_undefined_resamples_are_left_out_and_one_subject_has_no_interval() -> None:
    def rare(values: Array) -> float:
        return float(values.mean()) if 0 in values else math.nan

    low, high = measures.bootstrap(rare, (np.arange(4),), list("abcd"), n=300)
    assert low < 1.5 < high
    assert all(math.isnan(edge) for edge in measures.bootstrap(rare, (np.arange(4),), ["a"] * 4))
    assert np.isnan(measures.bootstrap_all(lambda v: {"m": rare(v)}, (np.arange(4),), ["a"] * 4)["m"]).all()
    with pytest.raises(ValueError, match="lengths differ: 4 and 3"):
        measures.bootstrap(rare, (np.arange(4),), list("abc"))


# --- subgroups


def test_inputs_are_left_alone() -> None:
    prob, truth = answers()
    predicted, values, groups = prob.argmax(axis=1), prob[:, 0].astype(float), np.array(["a", "b", "c"] * 100)
    for array in (prob, truth, predicted, values, groups):
        array.setflags(write=False)  # a write would raise
    measures.scores(prob, truth)
    measures.roc(prob, truth)
    measures.reliability(prob, truth)
    measures.confusion(predicted, truth, 4)
    measures.joint_accuracy([predicted], [truth])
    measures.regression_scores(values, values)
    measures.bootstrap(accuracy, (predicted, truth), groups.tolist(), n=3)


@pytest.mark.parametrize("function", [measures.scores, measures.roc, measures.reliability, measures.auc_per_class])
def test_wrong_probabilities_are_refused(function: Callable[..., object]) -> None:
    prob, truth = answers()
    with pytest.raises(TypeError, match="prob is int64"):
        function(np.eye(4, dtype=np.int64)[truth], truth)
    with pytest.raises(ValueError, match="two or more classes"):
        function(prob[:, 0], truth)
    with pytest.raises(ValueError, match="softmax"):
        function(prob * 1.1, truth)
    with pytest.raises(ValueError, match="softmax"):
        function(np.where(np.arange(4) == 0, np.nan, prob), truth)
    with pytest.raises(ValueError, match="softmax"):
        function(prob + np.float32([0.5, -0.5, 0.5, -0.5]), truth)  # rows still sum to 1
    with pytest.raises(TypeError, match="truth is float64"):
        function(prob, truth.astype(float))
    with pytest.raises(ValueError, match="classes 1 to 4; expected 0 to 3"):
        function(prob, truth + 1)
    with pytest.raises(ValueError, match="lengths differ"):
        function(prob, truth[1:])


def test_other_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N,\)"):
        measures.quadratic_kappa([[0, 1]], [[0, 1]])
    with pytest.raises(ValueError, match="lengths differ"):
        measures.quadratic_kappa([0, 1], [0])
    with pytest.raises(ValueError, match="2 heads predicted, 1 in the truth"):
        measures.joint_accuracy([[0], [1]], [[0]])
    with pytest.raises(ValueError, match="head 1, head 0"):
        measures.joint_accuracy([[0, 1], [1]], [[0, 1], [1]])
    with pytest.raises(ValueError, match="predicted has classes 0 to 2"):
        measures.confusion([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match="not finite"):
        measures.regression_scores([math.nan], [1.0])
    with pytest.raises(ValueError, match=r"expected \(N,\) twice"):
        measures.regression_scores([1.0, 2.0], [1.0])


def test_importing_measures_does_not_import_torch() -> None:
    code = "import sys, retina_seg.classify.measures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
