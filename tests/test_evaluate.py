"""Evaluation on drawn images with known answers, and the human row on the real sets."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from retina_seg import datasets, metrics, protocols, scoring
from retina_seg.datasets import Sample
from retina_seg.errors import UserError
from retina_seg.evaluate import Candidate, choose_threshold, evaluate
from retina_seg.fov import find_fov
from retina_seg.manifest import Row
from retina_seg.metrics import Array
from retina_seg.preprocess import Preprocess
from retina_seg.protocols import EvaluationProtocol, cases
from retina_seg.scores import METRICS, Report, compare, markdown_table

SIZE = 72
SUBJECTS = ("a", "a", "b", "b", "c", "d")
PROTOCOLS = {
    "toy": EvaluationProtocol(("stare",), "toy", note="drawn"),
    "toy-fold": EvaluationProtocol(("stare",), "toy-fold", folds=2),
    "toy-all": EvaluationProtocol(("stare", "drive"), ""),
}


@dataclass(frozen=True)
class Drawn:
    """A stand-in for inference.Prediction."""

    prob: Array
    fov: Array
    targets: tuple[str, ...] = ("vessels",)


def rows(dataset: str) -> list[Row]:
    """Six test images of four subjects and two training images of two more, in two sets."""
    return [
        Row(
            dataset=dataset,
            id=f"im{index}",
            subject=subject,
            eye="",
            image=f"im{index}.png",
            targets={"vessels": "v.png"},
            fov="fov.png" if index else "",
            splits={
                "toy": "train" if index > 5 else "test",
                "toy-fold/1": "test" if index < 3 else "train",
                "toy-fold/2": "test" if 2 < index < 6 else "val",
            },
            labels={},
            width=SIZE,
            height=SIZE,
            pixel_sha256="",
            same_photograph=("drive:im7",) if dataset == "stare" and index == 2 else (),
        )
        for index, subject in enumerate((*SUBJECTS, "e", "f"))
    ]


def load(row: Row, data_root: str | Path) -> Sample:
    """Lines 3 px wide; the second observer draws the left two thirds of what the first draws."""
    rng = np.random.default_rng(int(row.id[2:]) + (100 if row.dataset == "drive" else 0))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    fov = np.hypot(y, x) < SIZE * 0.46
    truth = np.zeros((SIZE, SIZE), dtype=bool)
    for start in rng.integers(8, SIZE - 8, 4):
        truth[start : start + 3] = True
    targets = {"vessels": truth}
    if row.id not in ("im5", "im6", "im7"):
        targets["vessels_observer2"] = truth & (x < SIZE / 6)
    image = np.where(fov, 120, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    image[0, 0] = int(row.id[2:])
    return Sample(row.id, image, targets, fov if row.fov else None)


@pytest.fixture(autouse=True)
def _drawn_sets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "data_root" in request.fixturenames:
        return
    monkeypatch.setattr(datasets, "rows", rows)
    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr("retina_seg.evaluate.find_fov", lambda image: image[..., 0] > 60)
    for name, protocol in PROTOCOLS.items():
        monkeypatch.setitem(protocols.PROTOCOLS, name, protocol)


def noisy(noise: float) -> Callable[[Sample], Drawn]:
    def predict(sample: Sample) -> Drawn:
        assert sample.fov is not None
        rng = np.random.default_rng(int(sample.image[0, 0, 0]))
        truth = sample.targets["vessels"]
        prob = np.clip(0.3 + 0.4 * truth + rng.normal(0, noise, truth.shape), 0, 1)
        return Drawn((prob * sample.fov).astype(np.float32)[None], sample.fov)

    return predict


def candidate(noise: float = 0.2, **changes: object) -> Candidate:
    one = Candidate("toy-net", noisy(noise), 0.45, "drawn val", frozenset({"stare:im6"}), "beef")
    return replace(one, **changes)  # type: ignore[arg-type]


def score(model: Candidate | None = None, protocol: str = "toy", n_bootstrap: int = 50, **more: object) -> Report:
    found = evaluate(model or candidate(), protocol, "nowhere", n_bootstrap=n_bootstrap, **more)  # type: ignore[arg-type]
    return found["vessels"]


def pixels(report: Report, model: Candidate) -> tuple[Array, Array, Array]:
    """prob, truth, fov of the scored images, straight from the drawing."""
    keys = {(one["dataset"], one["id"]) for one in report.per_image}
    chosen = [row for name in ("stare", "drive") for row in rows(name) if (name, row.id) in keys]
    arrays = []
    for row in chosen:
        sample = load(row, "")
        sample = replace(sample, fov=sample.image[..., 0] > 60)
        prediction = model.predict(sample)
        arrays.append((prediction.prob[0], sample.targets["vessels"], sample.fov))
    prob, truth, fov = (np.stack(parts) for parts in zip(*arrays, strict=True))
    return prob, truth, fov


def test_pooled_and_per_image_scores_agree_with_sklearn() -> None:
    model = candidate()
    report = score(model)
    prob, truth, fov = pixels(report, model)
    assert report.n_images == 6
    assert report.n_subjects == 4
    assert report.fov["auc"] == pytest.approx(roc_auc_score(truth[fov], prob[fov]), abs=1e-12)
    assert report.fov["ap"] == pytest.approx(average_precision_score(truth[fov], prob[fov]), abs=1e-12)
    assert report.fov["dice"] == pytest.approx(f1_score(truth[fov], prob[fov] >= 0.45), abs=1e-12)
    assert report.full_frame["auc"] == pytest.approx(roc_auc_score(truth.ravel(), prob.ravel()), abs=1e-12)
    assert report.full_frame["specificity"] > report.fov["specificity"]
    dices = [f1_score(t[f], p[f] >= 0.45) for p, t, f in zip(prob, truth, fov, strict=True)]
    assert [one["dice"] for one in report.per_image] == pytest.approx(dices)
    assert report.per_image_mean["dice"] == pytest.approx(np.mean(dices))
    assert report.per_image_sd["dice"] == pytest.approx(np.std(dices, ddof=1))
    cldices = [metrics.cldice(p >= 0.45, t, f) for p, t, f in zip(prob, truth, fov, strict=True)]
    assert report.per_image_mean["cldice"] == pytest.approx(np.mean(cldices))


def test_other_thresholds_are_labelled_and_bracket_the_result() -> None:
    model = candidate()
    report = score(model)
    prob, truth, fov = pixels(report, model)
    assert report.at_half["dice"] == pytest.approx(f1_score(truth[fov], prob[fov] >= 0.5))
    assert report.oracle["dice"] == pytest.approx(metrics.best_threshold(prob, truth, fov)[1], abs=1e-4)
    assert report.oracle["dice"] >= max(report.fov["dice"] - 1e-4, report.at_half["dice"])
    assert "upper bound" in report.oracle["label"]
    assert report.threshold == 0.45
    assert report.threshold_source == "drawn val"


def test_the_second_observer_is_scored_as_if_a_model() -> None:
    report = score()
    human = report.second_observer
    assert human is not None
    assert human["n_images"] == 5
    values = []
    for row in rows("stare")[:5]:
        sample = load(row, "")
        fov = sample.image[..., 0] > 60
        values.append(f1_score(sample.targets["vessels"][fov], sample.targets["vessels_observer2"][fov]))
    assert human["per_image_mean"]["dice"] == pytest.approx(np.mean(values))
    assert human["fov"]["specificity"] == 1
    assert "auc" not in human["fov"]
    assert [one["second_observer_dice"] for one in report.per_image] == pytest.approx([*values, None])


def test_the_json_is_strict_and_has_what_the_issue_asks_for() -> None:
    report = score(candidate(0.05, threshold=1.0))  # marks nothing: precision and MCC are undefined
    loaded = json.loads(report.to_json(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    asked = "model protocol split n_images threshold threshold_source fov per_image_mean per_image_sd ci95"
    assert {*asked.split(), "full_frame", "second_observer", "per_image"} <= set(loaded)
    assert set(loaded["fov"]) == set(METRICS) == set(loaded["ci95"]) == set(loaded["full_frame"])
    assert {"auc", "ap", "dice", "sensitivity", "specificity", "accuracy", "mcc", "cldice"} <= set(METRICS)
    assert loaded["fov"]["dice"] == 0
    assert loaded["fov"]["precision"] is None
    assert loaded["per_image_mean"]["precision"] is None
    assert loaded["ci95"]["precision"] == [None, None]
    assert loaded["undefined"]["precision"] == loaded["undefined"]["mcc"] == 6
    assert loaded["undefined"]["dice"] == 0
    assert loaded["fov_source"] == "found in the photograph, released with the set"
    assert loaded["provenance"]["training_sets"] == ["stare"]
    assert loaded["provenance"]["models"][0]["weights_sha256"] == "beef"
    assert len(loaded["provenance"]["data_sha256"]) == 64


def test_the_curves_are_pooled_inside_the_field_of_view() -> None:
    model = candidate()
    report = score(model)
    prob, truth, fov = pixels(report, model)
    curves = {name: np.array(values) for name, values in report.curves.items()}
    assert all(0 < values.size <= metrics.PR_POINTS for values in curves.values())
    area = np.trapezoid(curves["tpr"], curves["fpr"])
    assert area == pytest.approx(roc_auc_score(truth[fov], prob[fov]), abs=1e-4)
    area = np.sum(np.diff(curves["recall"], prepend=0) * curves["precision"])
    assert area == pytest.approx(average_precision_score(truth[fov], prob[fov]), abs=1e-3)
    # The point of the model's threshold lies on both, as far as thinned ones can say.
    sensitivity, fpr = report.fov["sensitivity"], 1 - report.fov["specificity"]
    assert np.interp(fpr, curves["fpr"], curves["tpr"]) == pytest.approx(sensitivity, abs=5e-3)
    assert np.interp(sensitivity, curves["recall"], curves["precision"]) == pytest.approx(
        report.fov["precision"], abs=5e-3
    )
    loaded = json.loads(report.to_json())["curves"]
    assert loaded["roc_threshold"] == [None, *report.curves["roc_threshold"][1:]]
    assert loaded["tpr"] == report.curves["tpr"]


def test_intervals_resample_subjects_and_repeat_with_the_seed() -> None:
    report, again, other = score(seed=1), score(seed=1), score(seed=2)
    assert report.to_json() == again.to_json()
    assert report.ci95 != other.ci95
    for name in ("auc", "ap", "dice", "mcc", "cldice", "brier"):
        low, high = report.ci95[name]
        assert low <= report.fov[name] <= high
        low, high = report.ci95_per_image_mean[name]
        assert low <= report.per_image_mean[name] <= high
    assert report.bootstrap["unit"] == "subject"
    assert abs(report.bootstrap["auc_binned_minus_exact"]) < 1e-4
    assert abs(report.bootstrap["ap_binned_minus_exact"]) < 1e-3


def test_one_subject_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "rows", lambda dataset: rows(dataset)[:2])
    report = score()
    assert report.n_subjects == 1
    assert all(math.isnan(edge) for edge in report.ci95["dice"])
    assert "–" in markdown_table(report)


def test_one_model_per_fold() -> None:
    asked = []

    def model(fold: int) -> Candidate:
        asked.append(fold)
        return candidate(name=f"net-{fold}", threshold=0.4 + fold / 20, trained_on=frozenset({"stare:im7"}))

    report = score(model, "toy-fold")  # type: ignore[arg-type]
    assert asked == [1, 2]
    assert report.model == "net-1, net-2"
    assert math.isnan(report.threshold)
    assert [(one["fold"], one["threshold"]) for one in report.per_fold] == [(1, 0.45), (2, 0.5)]
    assert [one["fold"] for one in report.per_image] == [1, 1, 1, 2, 2, 2]
    assert [one["threshold"] for one in report.per_image] == [0.45] * 3 + [0.5] * 3
    first = score(candidate(), "toy-fold").per_fold[0]
    assert report.per_fold[0]["fov"] == first["fov"]
    pooled = sum((metrics.Counts(**one["counts"]) for one in report.per_image), metrics.Counts())
    assert report.fov["dice"] == pooled.dice


@pytest.mark.parametrize(
    ("trained_on", "leaked"),
    [
        (frozenset({"stare:im6", "stare:im7", "mine:photo"}), []),
        (frozenset({"stare:im0"}), ["stare:im0", "stare:im1"]),  # the other image of subject a
        (frozenset({"drive:im7"}), ["stare:im2"]),  # the same photograph in another set
    ],
)
def test_the_leak_guard(trained_on: frozenset[str], leaked: list[str]) -> None:
    report = score(candidate(trained_on=trained_on), n_bootstrap=0)
    assert report.leaked_images == leaked
    loud = [warning for warning in report.warnings if warning.startswith("LEAK")]
    assert len(loud) == bool(leaked)
    assert all(key in loud[0] for key in leaked)


def test_what_must_be_said_is_said() -> None:
    assert score().warnings == ["drawn"]
    assert "unknown" in score(candidate(trained_on=None)).warnings[1]
    assert score(candidate(trained_on=None)).provenance["training_sets"] is None
    assert "not a test score" in score(split="train").warnings[-1]
    text = markdown_table(score(candidate(trained_on=frozenset({"stare:im0"}))))
    for part in ("`toy`", "test", "6 images", "observer 1", "0.45", "drawn val", "LEAK"):
        assert part in text


def test_a_changed_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(dataset: str) -> list[Row]:
        one, two, *rest = rows(dataset)
        right = datasets.pixel_hash(load(one, "").image)
        return [replace(one, pixel_sha256=right), replace(two, target_sha256={"vessels": "0" * 64}), *rest]

    monkeypatch.setattr(datasets, "rows", listed)
    warnings = score().warnings
    assert any("differ" in text and "stare:im1" in text and "stare:im0" not in text for text in warnings)


def test_progress_and_predictions_are_handed_out() -> None:
    done, seen = [], []
    score(
        progress=lambda *step: done.append(step),
        on_prediction=lambda row, sample, prediction: seen.append((row.key, sample.fov is None, prediction)),
    )
    assert done == [(k, 6) for k in range(7)]
    assert [(key, missing) for key, missing, _ in seen] == [(f"stare:im{k}", False) for k in range(6)]


def test_flipping_the_prediction_outside_the_fov_moves_only_the_full_frame() -> None:
    def outside(sample: Sample) -> Drawn:
        prediction = noisy(0.2)(sample)
        return Drawn(np.where(prediction.fov, prediction.prob, 0.9).astype(np.float32), prediction.fov)

    one, other = score(), score(candidate(predict=outside))
    assert one.fov == other.fov
    assert one.ci95 == other.ci95
    assert one.at_half == other.at_half
    assert one.full_frame["specificity"] > other.full_frame["specificity"]


def test_wrong_predictions_are_refused() -> None:
    def small(sample: Sample) -> Drawn:
        prediction = noisy(0.2)(sample)
        return Drawn(prediction.prob[:, ::2, ::2], prediction.fov)

    def elsewhere(sample: Sample) -> Drawn:
        prediction = noisy(0.2)(sample)
        return Drawn(prediction.prob, np.roll(prediction.fov, 1))

    def lesions(sample: Sample) -> Drawn:
        return replace(noisy(0.2)(sample), targets=("disc",))

    for predict, words in ((small, "own size"), (elsewhere, "field of view"), (lesions, "disc")):
        with pytest.raises(UserError, match=words):
            score(candidate(predict=predict))
    for changes in ({"threshold": 1.5}, {"threshold": math.nan}, {"threshold_source": ""}):
        with pytest.raises(UserError, match="threshold"):
            candidate(**changes)
    with pytest.raises(UserError, match="expected one of drive, stare-10"):
        score(protocol="driv")
    with pytest.raises(UserError, match="no images in split 'tset'"):
        score(split="tset")
    with pytest.raises(UserError, match="no images in split 'train'"):
        score(protocol="toy-all", split="train")


def test_a_protocol_without_a_column_scores_all_images_of_its_sets() -> None:
    report = score(protocol="toy-all", n_bootstrap=5)
    assert [one["dataset"] for one in report.per_image] == ["stare"] * 8 + ["drive"] * 8
    assert report.n_subjects == 12


def test_choose_threshold_maximises_pooled_dice_and_refuses_test() -> None:
    model = candidate()
    prob, truth, fov = pixels(score(model), model)
    scored = list(zip(prob, truth, fov, strict=True))
    threshold, how = choose_threshold(iter(scored), "toy")
    dice = metrics.dice(prob >= threshold, truth, fov)
    assert dice == pytest.approx(metrics.best_threshold(prob, truth, fov)[1], abs=1e-4)
    assert all(word in how for word in ("6 val images", "toy", "Dice", f"{dice:.4f}"))
    flipped = [(np.where(f, p, 1 - p), t ^ ~f, f) for p, t, f in scored]
    assert choose_threshold(flipped, "toy")[0] == threshold
    with pytest.raises(UserError, match="train or val"):
        choose_threshold(scored, "toy", split="test")
    with pytest.raises(UserError, match="nothing is marked in the 0 train images"):
        choose_threshold([], "toy", split="train")


def test_two_reports_compare_and_one_survives_json() -> None:
    good, bad = score(candidate(0.15), n_bootstrap=0), score(candidate(0.3), n_bootstrap=0)
    for metric in ("dice", "cldice", "mcc"):
        result = compare(good, json.loads(bad.to_json()), metric, n_bootstrap=100)
        assert result["pooled"]["a"] == pytest.approx(good.fov[metric])
        assert result["pooled"]["b"] == pytest.approx(bad.fov[metric])
        assert result["per_image_mean"]["b"] == pytest.approx(bad.per_image_mean[metric])
        assert result["pooled"]["ci95"][0] > 0
    assert markdown_table(json.loads(good.to_json())) == markdown_table(good)
    with pytest.raises(UserError, match="not scored on the same images"):
        compare(good, score(protocol="toy-all", n_bootstrap=0))


def test_subgroups_that_turn_the_order_of_two_models_round_are_named() -> None:
    def counted(name: str, stare: tuple[int, int], drive: tuple[int, int]) -> Report:
        """Of 100 marked pixels so many found and so many others painted in every photograph."""
        rows = []
        for row in report.per_image:
            tp, fp = stare if row["dataset"] == "stare" else drive
            rows.append({**row, "counts": {"tp": tp, "fp": fp, "fn": 100 - tp, "tn": 1000}})
        return replace(report, model=name, per_image=rows)

    report = score(protocol="toy-all", n_bootstrap=0)
    assert {row["dataset"] for row in report.per_image} == {"stare", "drive"}
    few, many = counted("few", (90, 1), (20, 0)), counted("many", (90, 0), (100, 280))
    by_set = scoring.groups_of("toy-all", ["set"], "nowhere")
    (said,) = scoring.reversals(few, many, by_set)
    assert said.startswith("by set: few is better than many by Dice of all pixels")
    assert "one is better than other" in scoring.reversals(few, many, by_set, names=("one", "other"))[0]
    assert "drive (few 0.3333, many 0.4167); stare (few 0.9424, many 0.9474)" in said
    (none,) = scoring.reversals(few, counted("others", (90, 2), (20, 0)), by_set)
    assert none == "by set: no subgroup turns the order of the two by pooled Dice round"
    assert scoring.reversals(few, many, {}) == []
    with pytest.raises(UserError, match="--by 'colour'"):
        scoring.groups_of("toy-all", ["colour"], "nowhere")
    with pytest.raises(UserError, match="not scored on the same images"):
        scoring.reversals(few, score(n_bootstrap=0), by_set)


# --- several targets


@dataclass(frozen=True)
class Lesions:
    """A stand-in for inference.Prediction that finds targets of `lesion_load`."""

    prob: Array
    fov: Array
    targets: tuple[str, ...] = ("disc", "microaneurysms")


def lesion_load(row: Row, data_root: str | Path) -> Sample:
    """Each image has a disc; all but the first have two small lesions."""
    sample = load(row, data_root)
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.hypot(y - 40, x - 30) < 12
    lesions = np.zeros((SIZE, SIZE), dtype=bool)
    if row.id != "im0":
        lesions[20:24, 30:34] = lesions[52:56, 40:44] = True
    return replace(sample, targets={"disc": disc, "microaneurysms": lesions})


def find_lesions(sample: Sample) -> Lesions:
    """The disc two pixels too small on one side, one lesion of two, and a false one."""
    assert sample.fov is not None
    disc, spots = (0.9 * sample.targets[name] for name in ("disc", "microaneurysms"))
    disc[:31] = 0
    spots[40:] = 0
    spots[14:18, 34:38] = 0.8
    return Lesions(np.stack([disc, spots]).astype(np.float32), sample.fov)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> dict[str, Report]:
    monkeypatch.setattr(datasets, "load", lesion_load)
    targets = ("microaneurysms", "hard_exudates", "disc")
    protocol = EvaluationProtocol(("stare",), "toy", targets=targets, second_observer="")
    monkeypatch.setitem(protocols.PROTOCOLS, "toy", protocol)
    thresholds = {"disc": 0.5, "microaneurysms": 0.25}
    model = Candidate("toy-net", find_lesions, thresholds, "drawn", frozenset(), preprocess=Preprocess(fov_diameter=64))
    monkeypatch.setattr("retina_seg.preprocess.SCALE_TOLERANCE", 1.01)
    return evaluate(model, "toy", "nowhere", n_bootstrap=50)


def test_every_target_that_the_model_finds_has_a_report(both: dict[str, Report]) -> None:
    assert list(both) == ["microaneurysms", "disc"]
    assert [report.target for report in both.values()] == list(both)
    assert [report.threshold for report in both.values()] == [0.25, 0.5]
    assert protocols.report_name("toy", "disc") == "toy-disc"
    assert protocols.report_name("drive", "vessels") == "drive"
    for report in both.values():
        assert report.second_observer is None
        assert math.isnan(report.fov["cldice"])
        assert "cldice" not in markdown_table(report)
        assert report.provenance["models"][0]["threshold"] == report.threshold
    assert math.isnan(both["microaneurysms"].per_image[0]["dice"])


def test_lesions_are_counted(both: dict[str, Report]) -> None:
    froc = both["microaneurysms"].further["froc"]
    assert froc["lesions"] == 10
    assert froc["at_threshold"] == {"sensitivity": 0.5, "false_per_image": 1.0}
    assert froc["sensitivity"] == [0.5] * 4
    assert froc["ci95"] == [[0.5, 0.5]] * 4
    assert froc["per_image"][:2] == [["stare:im0", 0, 0, 1], ["stare:im1", 2, 1, 1]]
    assert "boundary" not in both["microaneurysms"].further
    text = markdown_table(both["microaneurysms"])
    assert "Of 10 lesions found" in text
    assert "0.5000 at 1.0" in text


def test_the_disc_has_a_boundary(both: dict[str, Report]) -> None:
    boundary = both["disc"].further["boundary"]
    assert 0 < boundary["mean_distance"]["mean"] < boundary["hausdorff95"]["mean"] < 4
    assert boundary["mean_distance"]["undefined"] == 0
    assert len(boundary["per_image"]) == 6
    assert "froc" not in both["disc"].further
    assert "Outlines lie" in markdown_table(both["disc"])
    assert both["disc"].fov["iou"] == pytest.approx(0.93, abs=0.05)


def test_no_disc_at_all_has_no_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lesion_load)
    monkeypatch.setitem(protocols.PROTOCOLS, "toy", EvaluationProtocol(("stare",), "toy", targets=("disc",)))

    def blind(sample: Sample) -> Lesions:
        found = find_lesions(sample)
        return replace(found, prob=np.zeros_like(found.prob))

    report = evaluate(Candidate("blind", blind, 0.5, "drawn", frozenset()), "toy", "nowhere", n_bootstrap=5)["disc"]
    assert report.further["boundary"]["mean_distance"]["undefined"] == 6
    assert "Outlines lie – (–) pixels" in markdown_table(report)


def test_the_working_size_stands_beside_labelled_so(both: dict[str, Report]) -> None:
    for report in both.values():
        small = report.further["working_size"]
        assert "64 pixels" in small["label"]
        assert "not comparable" in small["label"]
        assert small["fov"]["dice"] == pytest.approx(report.fov["dice"], abs=0.1)
        assert small["fov"] != report.fov
        assert json.loads(report.to_json())["further"]["working_size"]["label"] == small["label"]


def test_large_images_are_ranked_coarsely_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = score(candidate(0.15))
    monkeypatch.setattr("retina_seg.evaluate._EXACT_PIXELS", 100)
    coarse = score(candidate(0.15))
    for name in ("auc", "ap"):
        off = abs(coarse.fov[name] - exact.fov[name])
        assert off < 1e-4
        assert off <= coarse.bootstrap[f"{name}_off_at_most"] < 0.05
        assert f"{name}_off_at_most" not in exact.bootstrap
    assert coarse.fov["dice"] == exact.fov["dice"]


def test_a_target_without_a_threshold_is_refused() -> None:
    with pytest.raises(UserError, match="no threshold for vessels, only for disc"):
        score(candidate(threshold={"disc": 0.5}))
    with pytest.raises(UserError, match="threshold"):
        candidate(threshold={"disc": 1.5})


# --- the real sets


@pytest.mark.parametrize(
    ("protocol", "n_images", "dice"),
    [
        ("drive", 20, 0.788),  # the published .788
        ("stare-10", 10, 0.7595),  # the published .759
        # The published .768 is of another eight to twenty split, training 11L-14R and testing 01L-10R.
        ("chase-8-20", 20, 0.783),
    ],
)
def test_the_human_row_is_the_published_one(protocol: str, n_images: int, dice: float, data_root: Path) -> None:
    values = []
    for _, row in cases(protocol):
        sample = datasets.load(row, data_root)
        fov = find_fov(sample.image) if sample.fov is None else sample.fov
        values.append(metrics.dice(sample.targets["vessels_observer2"], sample.targets["vessels"], fov))
    assert len(values) == n_images
    assert np.mean(values) == pytest.approx(dice, abs=0.0025)


def test_drive_by_the_command_path(data_root: Path) -> None:
    def blind(sample: Sample) -> Drawn:
        assert sample.fov is not None
        return Drawn(np.full((1, *sample.fov.shape), 0.25, dtype=np.float32), sample.fov)

    blank = Candidate("blind", blind, 0.5, "a constant", frozenset())
    report = evaluate(blank, "drive", data_root, n_bootstrap=20)["vessels"]
    assert report.n_images == 20
    assert report.fov["auc"] == 0.5
    assert report.fov["dice"] == 0
    assert report.second_observer is not None
    assert report.second_observer["n_images"] == 20
    assert 0.785 <= report.second_observer["per_image_mean"]["dice"] <= 0.791
    assert 0.785 <= report.second_observer["fov"]["dice"] <= 0.792
    assert report.warnings == []
