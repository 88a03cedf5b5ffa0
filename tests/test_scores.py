"""Tables, resampling of subjects and paired comparison, on hand-made per-image tables."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from retina_seg import scores
from retina_seg.errors import UserError
from retina_seg.metrics import Counts
from retina_seg.scores import METRICS, TABLE_COLUMNS, Report, compare, markdown_table, table_rows, worst_first


def table(auc: Sequence[float | None], name: str = "net", **changes: Any) -> dict[str, Any]:
    """The part of a saved report that compare reads: one image per AUC, two images per subject."""
    per_image = [
        {
            "dataset": "stare",
            "id": str(index),
            "subject": str(index // 2),
            "fold": None,
            "label_sha256": "l",
            "fov_sha256": "f",
            "auc": value,
            "dice": Counts(50 + index, 20, 10, 200).dice,
            "counts": {"tp": 50 + index, "fp": 20, "fn": 10, "tn": 200},
            "skeleton": [8, 10, 6, 10],
            "cldice": 2 * 0.8 * 0.6 / 1.4,
            **changes,
        }
        for index, value in enumerate(auc)
    ]
    return {"model": name, "protocol": "toy", "split": "test", "per_image": per_image}


def report(**changes: Any) -> Report:
    one, edges = dict.fromkeys(METRICS, 0.8125), {name: [0.75, 0.875] for name in METRICS}
    fields: dict[str, Any] = {
        "model": "net",
        "protocol": "toy",
        "split": "test",
        "target": "vessels",
        "annotator": "observer 1",
        "n_images": 6,
        "n_subjects": 3,
        "threshold": 0.4375,
        "threshold_source": "drive val",
        "fov_source": "released",
        "postprocessing": "none",
        **dict.fromkeys(("fov", "per_image_mean", "per_image_sd", "full_frame"), one),
        **dict.fromkeys(("ci95", "ci95_per_image_mean"), edges),
        "second_observer": {"fov": {"dice": 0.788}},
        **{name: {} for name in ("undefined", "at_half", "oracle", "bootstrap", "provenance", "curves")},
        **{name: [] for name in ("per_fold", "per_image", "warnings", "leaked_images")},
    }
    return Report(**{**fields, **changes})


def test_tables_hold_every_metric_and_accept_loaded_json() -> None:
    rows = table_rows(report())
    assert [row[0] for row in rows] == list(METRICS)
    assert all(len(row) == len(TABLE_COLUMNS) for row in rows)
    dice = rows[METRICS.index("dice")]
    assert dice[1:] == ("0.8125", "0.7500 to 0.8750", "0.8125 ± 0.8125", "0.8125", "0.7880")
    assert rows[METRICS.index("auc")][-1] == "–"
    assert markdown_table(json.loads(report().to_json())) == markdown_table(report())


def test_undefined_values_show_as_a_dash_and_travel_as_null() -> None:
    nowhere = {name: [math.nan, math.nan] for name in METRICS}
    undefined = report(threshold=math.nan, fov=dict.fromkeys(METRICS, math.nan), ci95=nowhere)
    assert table_rows(undefined)[0][1:3] == ("–", "–")
    assert "threshold per fold" in markdown_table(undefined)
    assert json.loads(undefined.to_json())["fov"]["auc"] is None


def test_json_turns_numpy_values_into_plain_ones() -> None:
    mixed = report(provenance={"a": np.float32(0.5), "b": np.array([1, 2]), "c": (np.int64(3), np.nan), 4: np.bool_(1)})
    assert mixed.to_dict()["provenance"] == {"a": 0.5, "b": [1, 2], "c": [3, None], "4": True}


def test_the_markdown_says_what_a_number_needs() -> None:
    text = markdown_table(report(second_observer=None, warnings=["LEAK: seen"]))
    for part in ("`toy`", "test", "6 images", "3 subjects", "observer 1", "released", "0.4375", "drive val", "LEAK"):
        assert part in text


def image(name: str, **changes: float) -> dict[str, Any]:
    return {"id": name, **dict.fromkeys(METRICS, 0.5), **changes}


def test_the_json_has_a_line_for_each_image_and_each_curve() -> None:
    curves = {"fpr": [0.0, 1.0], "roc_threshold": [math.inf, 0.0]}
    text = report(per_image=[image("a"), image("b", auc=math.nan)], curves=curves).to_json()
    assert (
        json.loads(text)
        == scores.from_json(text)
        == report(per_image=[], curves={}).to_dict()
        | {
            "per_image": [image("a"), image("b", auc=None)],
            "curves": {"fpr": [0, 1], "roc_threshold": [None, 0]},
        }
    )
    lines = text.splitlines()
    assert '  "roc_threshold": [null, 0.0]' in lines
    assert sum(line.startswith('  {"id": ') for line in lines) == 2
    assert ' "warnings": [],' in lines
    assert len(lines) < 80


def test_a_report_from_before_there_were_curves_is_read() -> None:
    old = report(per_image=[image("a")]).to_dict()
    del old["curves"]
    loaded = scores.from_json(json.dumps(old, indent=2))
    assert loaded == old
    assert table_rows(loaded) == table_rows(report())
    assert [row["id"] for row in worst_first(loaded)] == ["a"]


def test_what_is_no_report_is_refused() -> None:
    whole = report(per_image=[image("a")]).to_dict()
    assert scores.from_json(json.dumps(whole))
    texts = ["", "[]", "3", "{}", '{"model": "net"}', report().to_json()[:-20]]
    changes: list[dict[str, Any]] = [{"fov": {"auc": 1}}, {"ci95": None}, {"per_image": {}}, {"per_image": [{}]}]
    for text in (*texts, *(json.dumps(whole | change) for change in changes)):
        with pytest.raises(ValueError):  # noqa: PT011
            scores.from_json(text)


def test_the_worst_image_comes_first_and_an_undefined_one_last() -> None:
    images = [image("a", dice=0.7, brier=0.1), image("b", dice=math.nan, brier=0.0), image("c", dice=0.2, brier=0.3)]
    table = report(per_image=[*images, image("d", dice=0.0, brier=math.nan)])
    assert [row["id"] for row in worst_first(table)] == ["d", "c", "a", "b"]
    assert [row["id"] for row in worst_first(table, "brier")] == ["c", "a", "b", "d"]
    assert [row["id"] for row in worst_first(table, "auc")] == ["a", "b", "c", "d"]
    assert worst_first(json.loads(table.to_json())) == worst_first(table)
    assert [row["id"] for row in table.per_image] == ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="unknown metric 'f1'"):
        worst_first(table, "f1")


def test_five_digits_are_kept() -> None:
    assert scores.rounded([0.123456789, 0.0000123456, 1.0, 0.0]) == [0.12346, 1.2346e-05, 1.0, 0.0]
    assert math.isinf(scores.rounded([math.inf])[0])


def test_images_of_a_subject_are_drawn_together() -> None:
    weights = scores.resample_weights(["a", "b", "a", "c", "d", "b"], 1000, 0)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 1], weights[:, 5])
    assert set(weights[:, [0, 1, 3, 4]].sum(axis=1)) == {4}
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.1)
    assert scores.resample_weights(["a", "a"], 10, 0).shape == (0, 2)


def test_interval_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.05, (400, 1))
    weights = scores.resample_weights([str(index) for index in range(400)], 2000, 0)
    low, high = scores.interval95(scores.resampled_means(values, weights)[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.08)


def test_undefined_images_are_left_out_of_means() -> None:
    values = np.array([[0.5, np.nan], [0.7, np.nan], [np.nan, np.nan]])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]])
    means = scores.resampled_means(values, weights)
    assert means[:, 0] == pytest.approx([0.6, 0.5, math.nan], nan_ok=True)
    assert np.isnan(means[:, 1]).all()
    assert scores.mean(values[:, 0]) == pytest.approx(0.6)
    assert math.isnan(scores.mean(values[:, 1]))
    assert np.isnan(scores.interval95(means[:, 1])).all()


def test_a_constant_difference_is_found_with_an_interval_of_no_width() -> None:
    auc = np.random.default_rng(0).uniform(0.7, 0.9, 12)
    better, worse = table(auc + 0.01, "a"), table(auc, "b")
    result = compare(better, worse, "auc", n_bootstrap=400)
    assert result["models"] == ["a", "b"]
    assert result["n_subjects"] == 6
    assert result["pooled"] is None
    assert result["per_image_mean"]["difference"] == pytest.approx(0.01)
    assert result["per_image_mean"]["ci95"] == pytest.approx([0.01, 0.01])
    assert result["per_image_mean"]["p_value"] == pytest.approx(2 / 401)


def test_comparison_is_antisymmetric_and_nobody_beats_himself() -> None:
    rng = np.random.default_rng(1)
    a, b = table(rng.uniform(0.7, 0.9, 12)), table(rng.uniform(0.7, 0.9, 12))
    there, back = (compare(*pair, "auc")["per_image_mean"] for pair in ((a, b), (b, a)))
    assert there["difference"] == -back["difference"]
    assert there["ci95"] == pytest.approx([-edge for edge in back["ci95"][::-1]])
    assert there["p_value"] == back["p_value"]
    itself = compare(a, a)
    assert itself["pooled"]["p_value"] == itself["per_image_mean"]["p_value"] == 1
    assert itself["pooled"]["ci95"] == [0, 0]


def test_pooled_values_come_from_the_counts() -> None:
    a = table([0.8] * 4)
    b = table([0.8] * 4, counts={"tp": 40, "fp": 0, "fn": 0, "tn": 10}, skeleton=[5, 10, 5, 10])
    result = compare(a, b, "dice", n_bootstrap=50)
    assert result["pooled"]["a"] == pytest.approx(Counts(50 + 51 + 52 + 53, 80, 40, 800).dice)
    assert result["pooled"]["b"] == 1
    assert compare(a, b, "cldice", n_bootstrap=50)["pooled"]["b"] == pytest.approx(0.5)


def test_an_image_undefined_for_one_model_counts_for_neither() -> None:
    a, b = table([None, 0.8, 0.9, 0.7]), table([0.1, 0.7, 0.8, 0.6])
    result = compare(a, b, "auc", n_bootstrap=100)["per_image_mean"]
    assert result["difference"] == pytest.approx(0.1)
    assert result["b"] == pytest.approx(0.7)


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        a, b = (table(list(rng.normal(0.8, 0.05, 60))) for _ in range(2))
        p_values.append(compare(a, b, "auc", n_bootstrap=200)["per_image_mean"]["p_value"])
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.12
    assert 0.4 < np.mean(p_values) < 0.6


def test_different_images_are_not_compared() -> None:
    a = table([0.8, 0.9, 0.7])
    with pytest.raises(UserError, match="unknown metric 'f1': expected one of auc, ap"):
        compare(a, a, "f1")
    for other in (table([0.8, 0.9]), table([0.8] * 3, label_sha256="x"), table([0.8] * 3, fov_sha256="x")):
        with pytest.raises(UserError, match="not scored on the same images"):
            compare(a, other)
