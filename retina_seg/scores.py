"""The scores of one model by one protocol as a record: JSON, tables, intervals, comparison of two.

Nothing is measured here (evaluate.py, metrics.py) and nothing drawn or written to disk.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from retina_seg import markdown, metrics
from retina_seg.errors import UserError
from retina_seg.metrics import LOWER_IS_BETTER, MASK_METRICS, Array, Tally

METRICS = ("auc", "ap", *MASK_METRICS, "ece", "brier")
TITLES = {
    **dict(zip(METRICS, METRICS, strict=True)),
    **{"auc": "AUC", "ap": "AP", "dice": "Dice", "iou": "Jaccard", "mcc": "MCC", "cldice": "clDice"},
}
"""Metrics as tables call them."""
TABLE_COLUMNS = ("metric", "pooled", "95 % interval", "image mean ± SD", "full frame", "second observer")


@dataclass(frozen=True)
class Report:
    """The scores of one model by one protocol; the JSON has the same names.

    `fov` is pooled over the pixels inside the field of view, `full_frame` over all pixels; all else is inside
    the field of view. `per_image_sd` is the sample standard deviation. An undefined metric is NaN (null in
    JSON), left out of means and counted by `undefined`. `threshold` is NaN where folds differ (`per_fold`).
    `curves` are those of `metrics.curves_from_histogram`, pooled over the images, to 5 significant digits; the
    threshold's own point on them is in `fov`: (1 - specificity, sensitivity) and (sensitivity, precision).
    `further` holds what only some targets have: `froc` of lesions, `boundary` of the disc, and `working_size`, the
    scores at the size the network reads.
    """

    model: str
    protocol: str
    split: str
    target: str
    annotator: str
    n_images: int
    n_subjects: int
    threshold: float
    threshold_source: str
    fov_source: str
    postprocessing: str
    fov: dict[str, float]
    per_image_mean: dict[str, float]
    per_image_sd: dict[str, float]
    ci95: dict[str, list[float]]
    ci95_per_image_mean: dict[str, list[float]]
    undefined: dict[str, int]
    full_frame: dict[str, float]
    at_half: dict[str, Any]
    oracle: dict[str, Any]
    second_observer: dict[str, Any] | None
    per_fold: list[dict[str, Any]]
    per_image: list[dict[str, Any]]
    curves: dict[str, list[float]]
    bootstrap: dict[str, Any]
    warnings: list[str]
    leaked_images: list[str]
    provenance: dict[str, Any]
    further: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """Strict JSON text, one line for each curve, each image and each group of scores."""
        return to_json(self.to_dict())


def headline(target: str) -> tuple[str, str]:
    """The two metrics that say most of a target; models are ranked by the first."""
    return {"vessels": ("dice", "auc"), "disc": ("iou", "auc")}.get(target, ("ap", "dice"))


AnyReport = Report | Mapping[str, Any]  # a report, or its JSON once loaded


def to_json(report: dict[str, Any]) -> str:
    """Strict JSON text of a report's plain values, the reverse of `from_json`."""
    return laid_out(report, depth=2) + "\n"


def from_json(text: str) -> dict[str, Any]:
    """What `Report.to_json` wrote, as plain values; older reports lack `curves` or have an empty `further`.

    A seal (`files`) is left out.

    Raises
    ------
    ValueError
        The text is not JSON, or not of a report.
    """
    loaded = json.loads(text)
    needed = {one.name for one in fields(Report)} - {"curves", "further"}
    if not isinstance(loaded, dict) or not needed <= set(loaded):
        raise ValueError("not a report of this version")
    groups = [loaded[name] for name in ("fov", "per_image_mean", "per_image_sd", "ci95", "full_frame")]
    rows = loaded["per_image"]
    if not isinstance(rows, list) or any(not isinstance(one, dict) or set(METRICS) - set(one) for one in groups + rows):
        raise ValueError("a report without all of its scores")
    wrong = {type(one[name]).__name__ for one in groups[:1] + rows for name in METRICS} - {"float", "int", "NoneType"}
    if wrong:
        raise ValueError("scores that are no numbers")
    return {**{name: one for name, one in loaded.items() if name != "seal"}, "further": loaded.get("further", {})}


def rounded(values: Sequence[float]) -> list[float]:
    """Each value to 5 significant digits."""
    return [float(f"{value:.5g}") for value in values]


def laid_out(value: Any, *, depth: int, indent: str = "") -> str:
    """JSON text: what holds lists or dicts has a line for each item, down to `depth`; all else stands on one line."""
    items = list(value.values()) if isinstance(value, dict) else value
    if not depth or not isinstance(items, list | tuple) or not any(isinstance(item, dict | list) for item in items):
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(items)
    inner = indent + " "
    lines = [name + laid_out(item, depth=depth - 1, indent=inner) for name, item in zip(names, items, strict=True)]
    text = ",\n".join(inner + line for line in lines)
    return f"{{\n{text}\n{indent}}}" if isinstance(value, dict) else f"[\n{text}\n{indent}]"


def _plain(value: Any) -> Any:
    """`value` as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- tables


def table_rows(report: AnyReport) -> list[tuple[str, ...]]:
    """One row of text per metric that is defined, columns as in TABLE_COLUMNS."""
    scores = _loaded(report)
    human = (scores["second_observer"] or {}).get("fov", {})
    rows: list[tuple[str, ...]] = []
    for name in METRICS:
        if name == "cldice" and scores["fov"][name] is None:  # of what is no line
            continue
        rows.append(
            (
                name,
                markdown.number(scores["fov"][name]),
                markdown.interval(scores["ci95"][name]),
                f"{markdown.number(scores['per_image_mean'][name])} ± {markdown.number(scores['per_image_sd'][name])}",
                markdown.number(scores["full_frame"][name]),
                markdown.number(human.get(name)),
            )
        )
    return rows


def markdown_table(report: AnyReport) -> str:
    """The scores as a Markdown table, the protocol above it and the warnings below."""
    scores = _loaded(report)
    threshold = "per fold" if scores["threshold"] is None else f"{scores['threshold']:.4g}"
    head = (
        f"{scores['model']}: protocol `{scores['protocol']}`, {scores['target'].replace('_', ' ')}, "
        f"{scores['split']}, {scores['n_images']} images of {scores['n_subjects']} subjects, {scores['annotator']}, "
        f"field of view {scores['fov_source']}, threshold {threshold} ({scores['threshold_source']}), "
        f"post-processing {scores['postprocessing']}"
    )
    lines = [head, "", markdown.table(TABLE_COLUMNS, table_rows(scores))]
    lines += [line for text in further_lines(scores) for line in ("", text)]
    lines += [line for warning in scores["warnings"] for line in ("", f"Note: {warning}.")]
    return "\n".join(lines) + "\n"


def further_lines(report: AnyReport) -> list[str]:
    """What only some targets have, each in a sentence: FROC, distances of outlines, scores at the working size."""
    further = _loaded(report)["further"]
    lines = []
    if froc := further.get("froc"):
        points = zip(froc["false_per_image"], froc["sensitivity"], froc["ci95"], strict=True)
        curve = ", ".join(f"{markdown.number(s)} ({markdown.interval(ci)}) at {limit}" for limit, s, ci in points)
        own = froc["at_threshold"]
        lines.append(
            f"Of {froc['lesions']} lesions found at so many false ones an image: {curve}; at the threshold "
            f"{markdown.number(own['sensitivity'])} at {own['false_per_image']:.1f} ({froc['rule']})."
        )
    if boundary := further.get("boundary"):
        usual, worst = boundary["mean_distance"], boundary["hausdorff95"]
        lines.append(
            f"Outlines lie {markdown.number(usual['mean'], 1)} ({markdown.interval(usual['ci95'], 1)}) "
            f"{boundary['unit']} apart, the 95th percentile {markdown.number(worst['mean'], 1)} "
            f"({markdown.interval(worst['ci95'], 1)})."
        )
    if small := further.get("working_size"):
        names = ("auc", "ap", "dice", "iou")
        values = ", ".join(f"{name} {markdown.number(small['fov'][name])}" for name in names)
        lines.append(f"{values} {small['label']}.")
    return lines


def worst_first(report: AnyReport, metric: str = "dice") -> list[dict[str, Any]]:
    """Rows of the per-image table from the worst image to the best; where the metric is undefined comes last."""
    _check_metric(metric)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    rows = [dict(row) for row in _loaded(report)["per_image"]]
    return sorted(rows, key=lambda row: (row[metric] is None, sign * (row[metric] or 0)))


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}: expected one of {', '.join(METRICS)}")


def _loaded(report: AnyReport) -> Mapping[str, Any]:
    return report.to_dict() if isinstance(report, Report) else report


# --- resampling of subjects


def resample_weights(subjects: Sequence[str], n: int, seed: int) -> Array:
    """How often each image counts in each of `n` bootstrap resamples of the subjects, int (n, images).

    All images of a subject go together. (0, images) where there is one subject only: it has no interval.
    """
    names, index = np.unique(subjects, return_inverse=True)
    shares = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), shares, size=n if len(names) > 1 else 0)
    return np.asarray(draws[:, index])


def mean(values: Array) -> float:
    """Mean of the values that are defined; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def interval95(samples: Array) -> list[float]:
    """95 % percentile interval of the samples that are defined; [NaN, NaN] without any."""
    defined = samples[~np.isnan(samples)]
    return [float(edge) for edge in np.percentile(defined, (2.5, 97.5))] if defined.size else [math.nan] * 2


def resampled_means(table: Array, weights: Array) -> Array:
    """Mean over the images where it is defined of each column of `table` (images, m), per resample (n, m)."""
    counted = weights @ (~np.isnan(table)).astype(float)
    total = weights @ np.nan_to_num(table)
    return np.divide(total, counted, out=np.full(total.shape, np.nan), where=counted > 0)


def spread(table: Array, names: Sequence[str], tallies: Sequence[Tally], weights: Array) -> dict[str, Any]:
    """Mean, SD and undefined counts of the per-image `table` (images, m), 95 % intervals of mean and pooled.

    The pooled intervals of auc and ap are those of binned probabilities; the report's `bootstrap` says how far
    binning moves the scores themselves, and `metrics.binning_error` how far it could.
    """
    draws = [tally.metrics() for tally in metrics.resampled(tallies, weights)]
    defined = {k: column[~np.isnan(column)] for k, column in zip(names, table.T, strict=True)}
    means = resampled_means(table, weights)
    return {
        "per_image_mean": {name: mean(values) for name, values in defined.items()},
        "per_image_sd": {k: float(v.std(ddof=1)) if v.size > 1 else math.nan for k, v in defined.items()},
        "ci95": {name: interval95(np.array([draw[name] for draw in draws])) for name in names},
        "ci95_per_image_mean": {k: interval95(v) for k, v in zip(names, means.T, strict=True)},
        "undefined": {name: len(table) - values.size for name, values in defined.items()},
    }


def compare(
    report_a: AnyReport,
    report_b: AnyReport,
    metric: str = "dice",
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Is A better than B? Paired bootstrap over subjects of the difference A - B.

    Works on the per-image tables, so on two saved reports (loaded JSON) as well. `per_image_mean` is there
    for every metric; `pooled` is None for auc, ap, ece and brier, for which the tables hold no counts. Each
    holds `a`, `b`, `difference`, `ci95` and `p_value`: two-sided, twice the share of resamples on the other
    side of 0, and at least 2 / (n + 1).

    Raises
    ------
    UserError
        The reports do not score the same images by the same annotation and field of view.
    """
    a, b = _loaded(report_a), _loaded(report_b)
    _check_metric(metric)
    rows = paired(a, b)
    weights = resample_weights([f"{x['dataset']}:{x['subject']}" for x, _ in rows], n_bootstrap, seed)
    values = np.array([[x[metric], y[metric]] for x, y in rows], dtype=float)  # None becomes NaN
    values[np.isnan(values).any(axis=1)] = np.nan  # paired: an image counts for both or for neither
    once = np.ones((1, len(rows)), dtype=int)
    result = {
        "metric": metric,
        "models": [a["model"], b["model"]],
        "n_subjects": len({(x["dataset"], x["subject"]) for x, _ in rows}),
        "bootstrap": {"n": n_bootstrap, "seed": seed, "unit": "subject"},
        "per_image_mean": _difference(lambda times: resampled_means(values, times), once, weights),
        "pooled": None,
    }
    if metric in MASK_METRICS:
        result["pooled"] = _difference(lambda times: pooled([a, b], times, metric), once, weights)
    return result


def paired(report_a: AnyReport, report_b: AnyReport) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The rows of the per-image tables of both; UserError where these are not of the same images and annotations."""
    a, b = _loaded(report_a), _loaded(report_b)
    rows = list(zip(a["per_image"], b["per_image"], strict=False))
    same = ("dataset", "id", "fold", "label_sha256", "fov_sha256")
    if len(a["per_image"]) != len(b["per_image"]) or any(x[key] != y[key] for x, y in rows for key in same):
        raise UserError(
            f"{a['model']} ({a['protocol']}, {a['split']}) and {b['model']} ({b['protocol']}, {b['split']}) "
            "were not scored on the same images and annotations; evaluate both by one protocol"
        )
    return rows


DIFFERENCE_COLUMNS = ("", "image mean", "95 % interval", "p", "pooled", "95 % interval")


def difference_rows(report_a: AnyReport, report_b: AnyReport) -> list[tuple[str, ...]]:
    """By how much A is above B, a row of text for some metrics, columns as in DIFFERENCE_COLUMNS; see `compare`."""
    rows: list[tuple[str, ...]] = []
    for name in ("dice", "auc", "ap", "mcc", "cldice"):
        found = compare(report_a, report_b, name)
        parts = [found["per_image_mean"], found["pooled"]]
        means, together = (
            (markdown.number(part["difference"]), markdown.interval(part["ci95"])) if part else ("", "")
            for part in parts
        )
        rows.append((TITLES[name], *means, markdown.number(parts[0]["p_value"]), *together))
    return rows


def pooled(reports: Sequence[AnyReport], weights: Array, metric: str) -> Array:
    """A metric of MASK_METRICS of each report, pooled over the images per row of `weights` (n, images): (n, reports).

    A weight says how often an image counts: 0 leaves it out.
    """
    columns = []
    for table in (_loaded(report)["per_image"] for report in reports):
        counts = np.array([[row["counts"][key] for key in ("tp", "fp", "fn", "tn")] for row in table])
        skeleton = np.array([row["skeleton"] for row in table])
        draws = zip(weights @ counts, weights @ skeleton, strict=True)
        columns.append([metrics.mask_metrics(*draw)[metric] for draw in draws])
    return np.array(columns).T


def _difference(statistic: Callable[[Array], Array], once: Array, weights: Array) -> dict[str, Any]:
    a, b = (float(value) for value in statistic(once)[0])
    samples = np.diff(statistic(weights)[:, ::-1], axis=1)[:, 0] if len(weights) else np.empty(0)
    samples = samples[~np.isnan(samples)]
    tail = min(np.count_nonzero(samples <= 0), np.count_nonzero(samples >= 0))
    p_value = min(1.0, 2 * (int(tail) + 1) / (samples.size + 1)) if samples.size else math.nan
    return {"a": a, "b": b, "difference": a - b, "ci95": interval95(samples), "p_value": p_value}
