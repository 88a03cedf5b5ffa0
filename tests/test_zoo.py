import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from retina_seg import checkpoint, protocols, scores, scoring, zoo
from retina_seg.errors import UserError
from retina_seg.scores import METRICS, Report


def report(run, protocol="drive", **changes):
    """The report of a run, as `retina-seg evaluate` keeps it: made up, but whole."""
    one, card = dict.fromkeys(METRICS, 0.5), zoo.card(run)
    fields = {
        **{"model": card.name, "protocol": protocol, "split": "test", "target": "vessels", "annotator": "observer 1"},
        **{"n_images": 1, "n_subjects": 1, "threshold": 0.5, "threshold_source": "nowhere", "fov_source": "drawn"},
        **{"postprocessing": "none", "second_observer": {"fov": {"dice": 0.75}}, "per_image": [{"id": "01", **one}]},
        **dict.fromkeys(("fov", "per_image_mean", "per_image_sd", "full_frame"), one),
        **{key: {name: [0.25, 0.75] for name in METRICS} for key in ("ci95", "ci95_per_image_mean")},
        **{name: {} for name in ("undefined", "at_half", "oracle", "bootstrap", "curves")},
        **{name: [] for name in ("per_fold", "warnings", "leaked_images")},
        "provenance": {"models": [{"weights_sha256": card.weights_sha256}]},
    }
    return Report(**{**fields, **changes})


@pytest.fixture
def run(tiny_run, tmp_path):
    """A finished run that nobody has scored."""
    return shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))


def keep(run, *reports):
    for one in reports:
        path = zoo.report_path(run, one.protocol)
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.to_json(), encoding="utf-8")


def test_packaged_models_are_sound_and_small():
    assert "vessels-drive" in zoo.names()
    assert zoo.verify() == dict.fromkeys(zoo.names(), "")
    assert sum(path.stat().st_size for path in zoo.FOLDER.rglob("*") if path.is_file()) < 25e6


@pytest.mark.parametrize("name", zoo.names())
def test_cards_are_complete(name):
    card = zoo.card(name)
    assert card.name == name
    assert card.description
    assert card.limits
    assert card.scores
    assert card.speed
    sets = {image.partition(":")[0] for image in card.training["images"]}
    assert sets == set(card.terms)
    assert set(card.thresholds) == set(card.targets)


@pytest.mark.parametrize("name", zoo.names())
def test_no_packaged_model_has_seen_a_test_photograph_of_idrid(name):
    """Not through another set of the same eyes either; lesions and disc learnt from all that is left."""
    tested = [row for _, row in protocols.cases("idrid")]
    assert len(tested) == 27
    learnt = scoring.seen_images(zoo.card(name))
    assert protocols.leaks(tested, learnt) == []
    assert sum(key.startswith("idrid_seg:") for key in learnt) == (54 if name in ("lesions", "disc") else 0)


def test_vessels_drive_learnt_from_the_twenty_training_images_alone():
    card = zoo.card("vessels-drive")
    expected = {f"drive:{number}" for number in range(21, 41)}
    assert set(card.training["images"]) == expected
    assert set(card.training["threshold_images"]) <= expected


def test_a_run_folder_is_a_model(tiny_run):
    net, card = zoo.load(tiny_run)
    assert card.name == "tiny"
    assert sum(p.numel() for p in net.parameters()) == card.parameters


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="vessels-drive"):
        zoo.load("vessel")
    with pytest.raises(UserError, match="packaged models are"):
        zoo.load(tmp_path)


def test_an_unfinished_run_says_how_to_finish(tiny_run, tmp_path):
    shutil.copy(tiny_run / checkpoint.STATE, tmp_path)
    with pytest.raises(UserError, match="--resume"):
        zoo.load(tmp_path)


@pytest.mark.parametrize("name", zoo.names())
def test_packaged_reports_are_those_of_the_card(name):
    card, reports = zoo.card(name), zoo.reports(name)
    assert list(reports) == list(card.scores)
    for protocol, one in reports.items():
        assert one["model"] == name
        assert protocols.report_name(one["protocol"], one["target"]) == protocol
        assert [model["weights_sha256"] for model in one["provenance"]["models"]] == [card.weights_sha256]
        assert set(one["provenance"]["models"][0]["trained_on"]) >= set(card.training["images"])
        kept = dict(card.scores[protocol])
        short = {name: dict(block) for name, block in one["further"].items()}
        for block in short.values():
            block.pop("per_image", None)
        assert kept.pop("further", {}) == short
        for key, value in kept.items():
            found = one[key]["fov"] if key == "second_observer" else one[key]
            if isinstance(value, dict):
                assert set(found) == set(value), key
                for metric in value:
                    assert found[metric] == pytest.approx(value[metric], abs=1e-6), (key, metric)
            else:
                assert found == value, key
        assert len(one["per_image"]) == one["n_images"]


@pytest.mark.parametrize("name", zoo.names())
def test_packaged_reports_draw_what_they_score(name):
    for one in zoo.reports(name).values():
        curves = one["curves"]
        area = np.trapezoid(curves["tpr"], curves["fpr"])
        assert area == pytest.approx(one["fov"]["auc"] + one["bootstrap"]["auc_binned_minus_exact"], abs=1e-4)
        area = np.sum(np.diff(curves["recall"], prepend=0) * curves["precision"])
        assert area == pytest.approx(one["fov"]["ap"] + one["bootstrap"]["ap_binned_minus_exact"], abs=2e-3)
        known = [row["dice"] for row in scores.worst_first(one) if row["dice"] is not None]  # none: nothing is marked
        assert known == sorted(known)
        assert len(scores.worst_first(one)) == one["n_images"]


def test_packaged_reports_are_small_and_name_no_place():
    paths = list((zoo.FOLDER / zoo.REPORTS).rglob("*.json"))
    assert {path.parent.name for path in paths} <= set(zoo.names())
    for path in paths:
        text = path.read_text(encoding="utf-8")
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert len(text) < 120_000
        assert not re.search(r'"(/|[A-Za-z]:\\|~)', text)


def test_reports_of_a_run_come_in_the_order_of_the_protocols(run):
    assert zoo.reports(run) == {}
    keep(run, report(run, "of my own"), report(run, "cross-stare"), report(run), report(run, "chase-8-20"))
    (run / "reports" / ".half.part.json").write_text("{", encoding="utf-8")
    loaded = zoo.reports(run)
    assert list(loaded) == ["drive", "chase-8-20", "cross-stare", "of my own"]
    assert loaded["drive"] == report(run).to_dict()
    with pytest.raises(UserError, match="no model"):
        zoo.reports("nonesuch")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda one: one.to_json()[:300], "is not a report"),
        (lambda one: '{"model": "tiny"}', "is not a report"),
        (lambda one: "\x00", "is not a report"),
        (lambda one: replace(one, provenance={}).to_json(), "is not a report"),
        (lambda one: replace(one, protocol="drive").to_json(), "another protocol"),
        (lambda one: replace(one, provenance={"models": [{"weights_sha256": "beef"}]}).to_json(), "other weights"),
    ],
)
def test_a_damaged_or_foreign_report_is_named(run, text, words):
    keep(run, report(run))
    path = run / "reports" / "stare-10.json"
    path.write_text(text(report(run, "stare-10")), encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        zoo.reports(run)
    assert str(path) in str(caught.value)


def test_package_copies_weights_and_completes_the_card(run, tmp_path):
    folder = tmp_path / "weights"
    card = zoo.package(run, {"name": "mini", "description": "small", "limits": ["none known"]}, folder)
    assert {path.name for path in folder.iterdir()} == {"mini.safetensors", "mini.json"}
    _, loaded = checkpoint.load_model(folder / "mini.safetensors", folder / "mini.json")
    assert loaded == card
    assert loaded.description == "small"


def test_package_copies_the_reports_and_their_scores(run, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    keep(run, report(run), report(run, "cross-stare", second_observer=None))
    stale = folder / "reports" / "mini" / "stare-10.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}", encoding="utf-8")
    card = zoo.package(run, {"name": "mini"}, folder)
    monkeypatch.setattr(zoo, "FOLDER", folder)
    mini, own = zoo.reports("mini"), zoo.reports(run)
    for protocol, one in own.items():
        assert mini[protocol]["model"] == "mini"
        assert {model["name"] for model in mini[protocol]["provenance"]["models"]} == {"mini"}
        same = set(one) - {"model", "provenance"}
        assert {key: mini[protocol][key] for key in same} == {key: one[key] for key in same}
    assert list(mini) == list(own)
    assert not stale.exists()
    assert list(card.scores) == ["drive", "cross-stare"]
    assert card.headline() == "drive: Dice 0.5000, AUC 0.5000; cross-stare: Dice 0.5000, AUC 0.5000"
    assert card.scores["drive"]["second_observer"] == {"dice": 0.75}
    assert "second_observer" not in card.scores["cross-stare"]
    assert zoo.verify() == {"mini": ""}
    assert zoo.package(run, {"name": "mini", "scores": {}}, folder).scores == {}
    zoo.report_path("mini", "drive").write_text("{}", encoding="utf-8")
    assert "is not a report" in zoo.verify()["mini"]
