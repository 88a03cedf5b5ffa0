"""Pictures of a classifier show its report and its network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retina_seg import explain, figures
from retina_seg.classify import drawing, evaluation, examples, inference
from retina_seg.classify.inference import Classifier, ClassifierCard, ClassifierModel
from retina_seg.errors import UserError

DIGIT = {"digit": ("0", "1", "2")}
GRADES = {"dr_grade": tuple("01234"), "dme_risk": tuple("012")}


def _card(
    model: str, shape, heads, *, task: str = "digits", outputs: str = "softmax", arguments: dict | None = None
) -> ClassifierCard:
    return ClassifierCard(
        name="tried",
        parameters=0,
        task=task,
        heads=heads,
        outputs=outputs,
        model=ClassifierModel(name=model, in_shape=shape, arguments=arguments or {}),
    )


def _classifier(card: ClassifierCard) -> Classifier:
    torch.manual_seed(0)
    return Classifier(inference.build(card), card, "cpu")


def _scored(prob: list[list[float]], truth: list[int]) -> evaluation.ClassReport:
    keys = tuple(f"digit:{number}" for number in range(len(truth)))
    part = examples.Labelled(np.zeros((len(truth), 1, 8, 8), np.float32), np.array(truth)[:, None], keys, keys)
    card = _card("linear", (1, 8, 8), DIGIT)
    return evaluation.report(card, part, [np.array(prob, np.float32)], split="test", columns=())


PROB = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.1, 0.30003, 0.59997]]


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_report_is_drawn(tmp_path):
    scored = _scored(PROB, [0, 1, 0, 2])
    paths = drawing.draw_report(scored, tmp_path / "one")
    assert [path.name for path in paths] == ["confusion-digit.png", "roc-digit.png", "reliability-digit.png"]
    again = drawing.draw_report(scored, tmp_path / "again")
    other = drawing.draw_report(_scored(PROB, [0, 1, 2, 0]), tmp_path / "other")
    for one, same, different in zip(paths, again, other, strict=True):
        assert one.read_bytes() == same.read_bytes()
        assert _pixels(one).shape != _pixels(different).shape or (_pixels(one) != _pixels(different)).any()


def test_roc_curves_are_those_of_the_report(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        drawing.figures, "roc_curves", lambda curves: drawn.update(curves) or figures.compared({}, "", "")
    )
    scored = _scored(PROB, [0, 1, 0, 1])
    drawing.draw_report(scored, tmp_path)
    assert list(drawn) == ["0", "1", "2"]
    assert drawn["0"][2] == scored.heads["digit"].roc["0"] == 1
    assert np.isnan(drawn["2"][2])  # no example of it
    for fpr, tpr, area in list(drawn.values())[:2]:
        assert np.trapezoid(tpr, fpr) == pytest.approx(area)
    assert drawn["1"][2] == pytest.approx(0.75)


def test_of_a_number_nothing_is_drawn(tmp_path):
    card = _card("linear", (1, 1, 1), {"width": ()}, task="petals", outputs="value")
    keys = ("a", "b", "c")
    part = examples.Labelled(np.zeros((3, 1, 1, 1), np.float32), np.array([[1], [2], [4]], np.float32), keys, keys)
    said = [np.array([[1], [2], [3]], np.float32)]
    assert drawing.draw_report(evaluation.report(card, part, said, split="test", columns=()), tmp_path) == []


def _digit(bright: slice) -> np.ndarray:
    image = np.zeros((16, 16, 3), np.uint8)
    image[3:13, bright] = 255
    return image


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("small_cnn", {"features": [4, 6]}, ["filters", "features", "cam-digit"]),
        ("lecun_locally_connected", {}, ["features", "cam-digit"]),
        ("mlp", {"hidden": [5]}, ["filters", "cam-digit"]),
        ("row_rnn", {"hidden": 5}, ["cam-digit"]),
        ("transformer", {"hidden": 8, "depth": 1, "heads": 2}, ["filters", "features", "cam-digit"]),
    ],
)
def test_what_a_classifier_looks_at_is_drawn(model, arguments, expected, tmp_path):
    classifier = _classifier(_card(model, (1, 16, 16), DIGIT, arguments=arguments))
    paths = drawing.draw_explained(classifier, _digit(slice(4, 7)), tmp_path / "one")
    assert [path.name for path in paths] == [f"{name}.png" for name in expected]
    others = drawing.draw_explained(classifier, _digit(slice(9, 12)), tmp_path / "other")
    for one, other in zip(paths, others, strict=True):
        assert len(np.unique(_pixels(one).reshape(-1, 3), axis=0)) > 10
        assert (one.read_bytes() == other.read_bytes()) == (one.name == "filters.png")


def test_how_a_run_learnt_is_drawn_from_its_log(tmp_path):
    paths = []
    for name, losses in {"one": [1.0, 0.5], "other": [1.0, 0.1]}.items():
        lines = [json.dumps({"step": step, "loss": loss, "accuracy": 1 - loss}) for step, loss in enumerate(losses)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("\n".join(lines))
        paths += drawing.draw_learning(tmp_path / name, tmp_path / name / "drawn")
    assert [path.name for path in paths] == ["curves.png", "curves.png"]
    assert (_pixels(paths[0]) != _pixels(paths[1])).any()


def test_what_keeps_no_log_has_no_learning_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dr-grade").mkdir()  # a folder called as the packaged classifier is not that classifier
    (tmp_path / "dr-grade" / "log.jsonl").write_text('{"step": 1, "loss": 1.0}')
    for name in ("dr-grade", tmp_path):
        assert drawing.draw_learning(name, tmp_path / "out") == []


@pytest.mark.parametrize(("outputs", "first", "second"), [("ordinal", [0, 1, 2, 3], [4, 5]), ("softmax", [2], [6])])
def test_each_question_is_asked_of_its_own_outputs(outputs, first, second, drawn, tmp_path, monkeypatch):
    arguments = {"arguments": {"width": 4}, "grid": 32}
    card = _card("lesion_grader", (3, 64, 64), GRADES, task="idrid-grade", outputs=outputs, arguments=arguments)
    classifier = _classifier(card)
    answers = [inference.Answer("dr_grade", "2", {}), inference.Answer("dme_risk", "1", {})]
    monkeypatch.setattr(classifier, "answers", lambda _prepared: answers)
    asked, real = [], explain.class_activation
    monkeypatch.setattr(
        drawing.explain,
        "class_activation",
        lambda net, image, output: asked.append(output) or real(net, image, output),
    )
    paths = drawing.draw_explained(classifier, drawn.image, tmp_path)
    assert [path.name for path in paths] == [
        *("filters.png", "features.png", "cam-dr_grade.png", "cam-dme_risk.png"),
    ]
    assert asked == [first, second]


def test_of_what_no_image_can_ask_nothing_is_drawn(tmp_path):
    classifier = _classifier(_card("linear", (4, 1, 1), {"species": ("a", "b")}, task="iris"))
    with pytest.raises(UserError, match="no single image"):
        drawing.draw_explained(classifier, _digit(slice(4, 7)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
