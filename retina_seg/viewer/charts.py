"""Charts of evaluation reports for the results page: ROC, precision and recall, Dice by photograph.

Specifications only; the browser draws them. Figures as files are in report.
"""

from collections.abc import Callable, Mapping
from typing import Any

import altair
import pandas

Reports = Mapping[str, Mapping[str, Any]]
"""What the legend calls it -> report, as `zoo.reports` gives it."""

TITLES = {
    "auc": "AUC",
    "ap": "average precision",
    "dice": "Dice",
    "iou": "Jaccard",
    "mcc": "MCC",
    "cldice": "Dice of centre lines",
    "ece": "calibration error",
    "brier": "Brier score",
}
"""What a metric is called where that is not its name."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
_HEIGHT = 420


def summary(reports: Reports) -> list[dict[str, Any]]:
    """One row for each report and one for its second human observer: pooled scores, Dice with its 95 % interval."""
    names = ("auc", "ap", "dice", "iou", "sensitivity", "specificity", "mcc", "cldice")
    rows = []
    for title, report in reports.items():
        raters = {title: report, f"{title}: second human": report["second_observer"]}
        for rater, scores in raters.items():
            if scores:
                low, high = scores["ci95"]["dice"]
                interval = None if low is None else f"{low:.3f} to {high:.3f}"
                rows.append(
                    {"model, protocol": rater, "photographs": report["n_images"], "Dice, 95 % interval": interval}
                    | {name: scores["fov"].get(name) for name in names}
                )
    return rows


def roc(reports: Reports) -> altair.LayerChart:
    """ROC curves, pooled inside the field of view; a dot is the model at its own threshold, a cross the human."""

    def point(scores: Mapping[str, float]) -> tuple[float, float]:
        return 1 - scores["specificity"], scores["sensitivity"]

    return _curves(reports, ("fpr", "tpr", "roc_threshold"), ("1 - specificity", "sensitivity"), point)


def probabilities(answers: Mapping[str, float], meanings: Mapping[str, str]) -> altair.Chart:
    """A bar for every possible answer of a classifier, as long as it is likely, named with its meaning."""
    names = [f"{answer} {meanings.get(answer, '')}".strip() for answer in answers]
    frame = pandas.DataFrame({"answer": names, "probability": list(answers.values())})
    return (
        altair.Chart(frame, height=30 * len(names) + 40)
        .mark_bar(color=COLOURS[0])
        .encode(
            x=altair.X("probability:Q", scale=altair.Scale(domain=(0, 1)), axis=altair.Axis(format="%")),
            y=altair.Y("answer:N", sort=None, title=None, axis=altair.Axis(labelLimit=220, labelOverlap=False)),
            tooltip=["answer:N", altair.Tooltip("probability:Q", format=".1%")],
        )
    )


def precision_recall(reports: Reports) -> altair.LayerChart:
    """Precision against recall, pooled inside the field of view; dots and crosses as in `roc`."""

    def point(scores: Mapping[str, float]) -> tuple[float, float]:
        return scores["sensitivity"], scores["precision"]

    names = ("recall", "precision", "pr_threshold")
    return _curves(reports, names, ("recall (sensitivity)", "precision"), point)


def _curves(
    reports: Reports,
    names: tuple[str, str, str],
    axes: tuple[str, str],
    point: Callable[[Mapping[str, float]], tuple[float, float]],
) -> altair.LayerChart:
    lines, points = [], []
    for name, report in reports.items():
        curves = report.get("curves") or {}
        triples = zip(*(curves.get(column, ()) for column in names), strict=True)
        lines += [{"report": name, "x": x, "y": y, "threshold": at, "n": n} for n, (x, y, at) in enumerate(triples)]
        raters = {"model": report["fov"], "second human": (report["second_observer"] or {}).get("fov")}
        needed = ("sensitivity", "specificity", "precision")
        for rater, scores in raters.items():
            if scores and all(scores[key] is not None for key in needed):
                x, y = point(scores)
                points.append({"report": name, "rater": rater, "x": x, "y": y})
    domain = altair.Scale(domain=[0, 1])
    place = {"x": altair.X("x:Q", title=axes[0], scale=domain), "y": altair.Y("y:Q", title=axes[1], scale=domain)}
    numbers = [altair.Tooltip("x:Q", format=".3f", title=axes[0]), altair.Tooltip("y:Q", format=".3f", title=axes[1])]
    curve = (
        altair.Chart(pandas.DataFrame(lines, columns=["report", "x", "y", "threshold", "n"]))
        .mark_line()
        .encode(
            **place,
            color=_colour(reports, legend=True),
            order="n:Q",
            tooltip=["report:N", *numbers, altair.Tooltip("threshold:Q", format=".3f")],
        )
    )
    shape = altair.Shape("rater:N", scale=altair.Scale(domain=["model", "second human"], range=["circle", "cross"]))
    shape = shape.legend(None)  # the page says it in words
    marks = (
        altair.Chart(pandas.DataFrame(points, columns=["report", "rater", "x", "y"]))
        .mark_point(size=90, filled=True, opacity=1)
        .encode(**place, color=_colour(reports, legend=True), shape=shape, tooltip=["report:N", "rater:N", *numbers])
    )
    return (curve + marks).properties(height=_HEIGHT)


def distribution(reports: Reports, metric: str) -> altair.LayerChart:
    """Every photograph as a dot, the mean as a line, by report."""
    rows = [
        {"report": name, "photograph": f"{row['dataset']} {row['id']}", metric: row[metric]}
        for name, report in reports.items()
        for row in report["per_image"]
    ]
    base = altair.Chart(pandas.DataFrame(rows)).encode(
        x=altair.X(
            f"{metric}:Q", scale=altair.Scale(zero=False), title=f"{TITLES.get(metric, metric)}; the line is the mean"
        ),
        y=altair.Y("report:N", title=None, axis=altair.Axis(labelLimit=220, labelOverlap=False)),
        color=_colour(reports, legend=False),
    )
    dots = base.mark_circle(size=70, opacity=0.7).encode(
        tooltip=["photograph:N", altair.Tooltip(f"{metric}:Q", format=".3f")]
    )
    means = base.mark_tick(thickness=3, size=26).encode(
        x=altair.X(f"mean({metric}):Q", title=""), tooltip=altair.value(None)
    )
    return (dots + means).properties(height=max(110, 55 * len(reports)))


def _colour(reports: Reports, *, legend: bool) -> altair.Color:
    names = list(reports)
    scale = altair.Scale(domain=names, range=[COLOURS[number % len(COLOURS)] for number in range(len(names))])
    shown = altair.Legend(orient="bottom", columns=1, labelLimit=400, title=None) if legend else None
    return altair.Color("report:N", scale=scale, legend=shown)
