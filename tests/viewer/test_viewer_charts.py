import copy

import pytest

from retina_seg import scores, zoo
from retina_seg.viewer import charts

CHARTS = [charts.roc, charts.precision_recall, lambda reports: charts.distribution(reports, "dice")]


@pytest.fixture(scope="module")
def reports():
    return zoo.reports("vessels-drive")


@pytest.fixture
def old(reports):
    """A report from before there were curves, of a set with one observer and too few photographs for an interval."""
    report = copy.deepcopy(reports["drive"])
    del report["curves"]
    report["second_observer"] = None
    report["ci95"]["dice"] = [None, None]
    return report


def values(specification):
    """Rows of data of every layer."""
    found = []
    for layer in specification["layer"]:
        name = (layer.get("data") or specification["data"])["name"]
        found.append(specification["datasets"][name])
    return found


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_are_valid_with_all_kinds_of_reports(chart, reports, old):
    for shown in (reports, {"old": old}, {**reports, "old": old}, {"a: b [c].d": reports["drive"]}):
        specification = chart(shown).to_dict()
        assert len(specification["layer"]) == 2
        assert specification["height"] > 0


@pytest.mark.parametrize("chart", [charts.roc, charts.precision_recall])
def test_no_report_and_no_curves_are_no_error(chart, old):
    assert chart({}).to_dict()["layer"]
    assert values(chart({"old": old}).to_dict())[0] == []


def test_the_roc_curve_goes_past_the_operating_point(reports):
    shown = {"drive": reports["drive"]}
    lines, points = values(charts.roc(shown).to_dict())
    curves, pooled = reports["drive"]["curves"], reports["drive"]["fov"]
    assert [(row["x"], row["y"]) for row in lines] == list(zip(curves["fpr"], curves["tpr"], strict=True))
    (model, human) = points
    assert model["rater"] == "model"
    assert (model["x"], model["y"]) == (1 - pooled["specificity"], pooled["sensitivity"])
    second = reports["drive"]["second_observer"]["fov"]
    assert (human["x"], human["y"]) == (1 - second["specificity"], second["sensitivity"])
    nearest = min((row["x"] - model["x"]) ** 2 + (row["y"] - model["y"]) ** 2 for row in lines) ** 0.5
    assert nearest < 0.03


def test_precision_and_recall_go_past_the_operating_point(reports):
    lines, points = values(charts.precision_recall({"drive": reports["drive"]}).to_dict())
    pooled = reports["drive"]["fov"]
    assert (points[0]["x"], points[0]["y"]) == (pooled["sensitivity"], pooled["precision"])
    nearest = min((row["x"] - points[0]["x"]) ** 2 + (row["y"] - points[0]["y"]) ** 2 for row in lines) ** 0.5
    assert nearest < 0.03


@pytest.mark.parametrize("metric", scores.METRICS)
def test_every_score_of_every_photograph_is_a_dot(reports, metric):
    specification = charts.distribution(reports, metric).to_dict()
    dots = values(specification)[0]
    assert [row[metric] for row in dots] == [row[metric] for one in reports.values() for row in one["per_image"]]
    assert {row["report"] for row in dots} == set(reports)


def test_an_undefined_score_is_no_error(reports):
    report = copy.deepcopy(reports["drive"])
    report["per_image"][0]["dice"] = None
    assert charts.distribution({"one": report}, "dice").to_dict()
    for row in report["per_image"]:
        row["dice"] = None
    assert charts.distribution({"one": report}, "dice").to_dict()


def test_the_summary_has_a_row_for_model_and_human(reports, old):
    rows = charts.summary({"drive": reports["drive"], "old": old})
    assert [row["model, protocol"] for row in rows] == ["drive", "drive: second human", "old"]
    pooled = reports["drive"]["fov"]
    assert (rows[0]["auc"], rows[0]["dice"], rows[0]["photographs"]) == (pooled["auc"], pooled["dice"], 20)
    low, high = reports["drive"]["ci95"]["dice"]
    assert rows[0]["Dice, 95 % interval"] == f"{low:.3f} to {high:.3f}"
    assert rows[1]["dice"] == reports["drive"]["second_observer"]["fov"]["dice"]
    assert rows[2]["Dice, 95 % interval"] is None
    assert charts.summary({}) == []


def test_more_reports_than_colours(reports):
    many = {f"report {number}": reports["drive"] for number in range(len(charts.COLOURS) + 2)}
    specification = charts.distribution(many, "dice").to_dict()
    scale = specification["layer"][0]["encoding"]["color"]["scale"]
    assert len(scale["range"]) == len(scale["domain"]) == len(many)
