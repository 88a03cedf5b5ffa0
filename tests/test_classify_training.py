import json
import os
import shutil
import signal
from dataclasses import replace

import mnist_files
import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from retina_seg import checkpoint, loop
from retina_seg.classify import drawing, evaluation, examples, inference, losses, outputs, pairs, tasks, training
from retina_seg.classify.config import ClassifyConfig, load_config
from retina_seg.classify.inference import Classifier
from retina_seg.errors import Interrupted, UserError

IRIS = """
name: iris
data: {task: iris}
model: linear
training: {steps: 60, batch_size: 30, learning_rate: 0.05, validate_every: 20}
"""
DIGITS = """
name: digits
data: {task: digits, size: 8}
model: {name: mlp, arguments: {hidden: [32]}}
training: {steps: 60, batch_size: 64, learning_rate: 0.01, validate_every: 20}
"""


@pytest.fixture
def iris(tmp_path):
    path = tmp_path / "iris.yaml"
    path.write_text(IRIS)
    return path


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    (folder / "digits.yaml").write_text(DIGITS)
    training.fit(load_config(folder / "digits.yaml"), folder / "run", folder, device="cpu")
    return folder / "run"


def _config(text: str, **changes: object) -> ClassifyConfig:
    import yaml

    tree = yaml.safe_load(text)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        tree[part] = {**tree[part], name: value} if name else value
    return ClassifyConfig.model_validate(tree)


def _weights(run):
    from safetensors.torch import load_file

    return load_file(run / checkpoint.WEIGHTS)


def test_learns_digits_and_says_how_well(digits_run):
    scored = evaluation.evaluate(digits_run, digits_run.parent, device="cpu")
    head = scored.heads["digit"]
    assert head.scores["accuracy"] > 0.85
    assert head.ci95["accuracy"][0] < head.scores["accuracy"] < head.ci95["accuracy"][1]
    assert scored.leaked == [] == scored.warnings
    right = [row["digit"]["truth"] == row["digit"]["answer"] for row in scored.per_example]
    assert np.mean(right) == pytest.approx(head.scores["accuracy"])
    assert np.trace(head.confusion) == sum(right)
    assert json.loads(scored.to_json())["n_examples"] == len(right) == 360


def test_scores_of_shuffled_answers_are_chance(digits_run):
    classifier = Classifier.from_pretrained(digits_run, "cpu")
    part = tasks.load("digits", tasks.Wanted(size=8)).test
    said = training.outputs(classifier.net, part, "cpu")
    mixed = np.random.default_rng(0).permutation(len(said))
    answered = classifier.calibrated(torch.from_numpy(said[mixed]))
    scores = evaluation.report(classifier.card, part, answered, split="test", columns=()).heads["digit"].scores
    assert abs(scores["accuracy"] - 0.1) < 0.05
    assert abs(scores["macro_auc"] - 0.5) < 0.05


def test_training_examples_are_a_leak(digits_run):
    scored = evaluation.evaluate(digits_run, digits_run.parent, split="train", device="cpu")
    assert len(scored.leaked) == scored.n_examples
    assert any("LEAK" in one for one in scored.warnings)
    assert any("not a test score" in one for one in scored.warnings)


def test_what_is_without_leaks_is_scored_as_if_it_were_all_there_is(digits_run):
    classifier = Classifier.from_pretrained(digits_run, "cpu")
    part = tasks.load("digits", tasks.Wanted(size=8)).test
    answered = classifier.calibrated(torch.from_numpy(training.outputs(classifier.net, part, "cpu")))
    rest = np.arange(200, len(part))
    alone = evaluation.report(classifier.card, part.take(rest), [answered[0][rest]], split="test", columns=())
    both = evaluation.report(classifier.card, part, answered, split="test", columns=(), leaked=part.keys[:200])
    assert both.clean["digit"].scores == alone.heads["digit"].scores != both.heads["digit"].scores
    assert both.clean["digit"].ci95 == alone.heads["digit"].ci95
    assert both.clean["digit"].confusion == alone.heads["digit"].confusion
    assert (both.clean_joint, both.clean_joint_ci95) == (alone.joint, alone.joint_ci95)
    assert alone.joint_ci95[0] <= alone.joint == alone.heads["digit"].scores["accuracy"] <= alone.joint_ci95[1]
    nothing = evaluation.report(classifier.card, part, answered, split="test", columns=(), leaked=part.keys)
    assert nothing.clean == {}


def test_a_report_is_kept_with_its_run_and_read_again(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(run / evaluation.REPORTS, ignore_errors=True)
    assert evaluation.kept(run) is None
    scored = evaluation.evaluate(run, tmp_path, device="cpu")
    path = evaluation.keep(scored, run)
    again = evaluation.kept(run)
    assert again.heads["digit"].confusion == scored.heads["digit"].confusion
    assert set(drawing.measured(again)) == {"confusion-digit", "roc-digit", "reliability-digit"}
    path.write_text(path.read_text().replace(scored.provenance["weights_sha256"], "other"))
    with pytest.raises(UserError, match="of other weights"):
        evaluation.kept(run)
    path.write_text("{}")
    with pytest.raises(UserError, match="is no report"):
        evaluation.kept(run)


def test_nothing_left_to_score_is_an_error(digits_run):
    keys = tasks.load("digits", tasks.Wanted(size=8)).test.keys
    with pytest.raises(UserError, match="nothing is left to score"):
        evaluation.evaluate(digits_run, digits_run.parent, leave_out=keys, device="cpu")


def test_resumed_equals_uninterrupted(iris, tmp_path):
    config = load_config(iris)
    whole = training.fit(config, tmp_path / "whole", tmp_path, device="cpu")

    def stop(progress: loop.Progress) -> None:
        if progress.step == 33 and not progress.phase:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="retina-seg classify train --resume"):
        training.fit(config, tmp_path / "run", tmp_path, device="cpu", progress=stop)
    again = training.fit(config, tmp_path / "run", tmp_path, resume=True, device="cpu")
    assert again.weights_sha256 == whole.weights_sha256
    (tmp_path / "run" / checkpoint.CARD).unlink()
    with pytest.raises(UserError, match="is not finished"):
        Classifier.from_pretrained(tmp_path / "run", "cpu")


def test_every_example_is_seen_once_before_any_comes_again():
    part = tasks.load("iris", tasks.Wanted()).train
    stream = training.Stream(part, augment="none", length=270, seed=1)
    seen = [stream[index]["image"].numpy().tobytes() for index in range(270)]
    _values, counts = np.unique(np.array(seen), return_counts=True)
    assert sum(counts) == 270
    assert set(counts % 3) == {0}
    assert seen[:90] != seen[90:180]
    assert seen == [
        training.Stream(part, augment="none", length=9, seed=1)[i]["image"].numpy().tobytes() for i in range(270)
    ]


def test_a_frozen_body_stays_as_it_is_and_is_part_of_the_weights(digits_run, tmp_path):
    config = _config(DIGITS, training__start=str(digits_run), training__frozen=True, training__steps=30, seed=5)
    card = training.fit(config, tmp_path / "run", tmp_path, device="cpu")
    before, after = _weights(digits_run), _weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("body."))
    assert not any(torch.equal(before[key], after[key]) for key in before if key.startswith("head."))
    assert card.training["learnt_from"][0]["name"] == "digits"
    assert Classifier.from_pretrained(tmp_path / "run", "cpu").card.weights_sha256 == card.weights_sha256


def test_a_body_that_does_not_fit_is_refused(digits_run, tmp_path):
    wider = {"name": "mlp", "arguments": {"hidden": [33]}}
    with pytest.raises(
        UserError, match=r"2 of the 2 tensors of this network's body, body\..* the first, are not as in"
    ):
        training.fit(_config(DIGITS, model=wider, training__start=str(digits_run)), tmp_path / "run", tmp_path)
    cnn = {"name": "small_cnn", "arguments": {"features": [4, 6]}}
    training.fit(_config(DIGITS, model=cnn, training__steps=25), tmp_path / "cnn", tmp_path, device="cpu")
    for features in ([5, 6], [4, 7], [4, 6, 8]):
        other = {"name": "small_cnn", "arguments": {"features": features}}
        with pytest.raises(UserError, match="are not as in"):
            training.fit(_config(DIGITS, model=other, training__start=str(tmp_path / "cnn")), tmp_path / "b", tmp_path)


def _mnist(folder, seed, classes=10):
    rng = np.random.default_rng(seed)
    for part in ("train", "t10k"):
        images = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
        mnist_files.write(folder, part, images, np.arange(40, dtype=np.uint8) % classes)


def test_no_run_goes_on_with_other_examples(tmp_path):
    _mnist(tmp_path / "MNIST", 0)
    config = _config(DIGITS, data={"task": "mnist", "size": 8})

    def stop(progress):
        if progress.step == 30:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        training.fit(config, tmp_path / "run", tmp_path, device="cpu", progress=stop)
    _mnist(tmp_path / "MNIST", 1)
    with pytest.raises(UserError, match="begun with other examples"):
        training.fit(config, tmp_path / "run", tmp_path, resume=True, device="cpu")
    _mnist(tmp_path / "MNIST", 0)
    training.fit(config, tmp_path / "run", tmp_path, resume=True, device="cpu")
    _mnist(tmp_path / "MNIST", 0, classes=12)
    with pytest.raises(UserError, match=r"the data ask digit 0/1/.*/11, digits answers digit 0/"):
        evaluation.evaluate(tmp_path / "run", tmp_path, device="cpu")


def test_who_stops_before_the_first_step_is_not_told_to_resume(tmp_path, monkeypatch):
    def stopped(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(training._Classification, "prepare", stopped)
    with pytest.raises(Interrupted, match="stopped before the first step") as stop:
        training.fit(_config(IRIS), tmp_path / "run", tmp_path, device="cpu")
    assert stop.value.again == ""


def test_a_folder_that_cannot_be_made_is_found_before_the_data_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(training._Classification, "prepare", lambda *_args, **_more: pytest.fail("looked"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to; choose another --out"):
        training.fit(_config(IRIS), tmp_path / "file" / "below" / "run", tmp_path, device="cpu")


def test_least_squares_below_zero_keep_their_order(tmp_path):
    config = _config(IRIS, training__loss="least_squares")
    training.fit(config, tmp_path / "run", tmp_path, device="cpu")
    classifier = Classifier.from_pretrained(tmp_path / "run", "cpu")
    said = torch.tensor([[-0.3, -0.01, -0.2], [0.2, 0.6, -0.1], [0.0, -1.0, -1.0]])
    (prob,) = classifier.calibrated(said)
    np.testing.assert_array_equal(prob.argmax(axis=1), said.argmax(dim=1))
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(prob[1], [0.25, 0.75, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("outputs", "foo"), ("temperatures", {"digit": 0}), ("temperatures", {"digit": -1})]
)
def test_a_card_that_means_nothing_is_refused(digits_run, tmp_path, name, value):
    run = shutil.copytree(digits_run, tmp_path / "run")
    card = json.loads((run / checkpoint.CARD).read_text())
    (run / checkpoint.CARD).write_text(json.dumps({**card, name: value}))
    with pytest.raises(UserError, match=name):
        inference.card_of(run)


def test_a_grader_begins_from_a_segmenter(tiny_run, tmp_path):
    """Only the body's segmenter is taken, and what it has seen counts as seen."""
    from retina_seg import zoo

    net, card = zoo.load(tiny_run)
    small = inference.build_model(
        "lesion_grader",
        (3, 96, 96),
        6,
        arguments={"segmenter": card.model.name, "arguments": card.model.arguments, "targets": 1, "grid": 16},
    )
    assert training._start(small, str(tiny_run)).training["images"] == card.training["images"]
    own = small.get_submodule("body").segmenter.state_dict()
    assert all(torch.equal(own[key], value) for key, value in net.state_dict().items())
    image = torch.randn(2, 3, 96, 96)
    small.eval()
    with torch.no_grad():
        maps = small.get_submodule("body")(image)
        prob = torch.sigmoid(net(image))
    assert maps.shape == (2, 2, 16, 16)
    torch.testing.assert_close(maps[:, 0], torch.nn.functional.avg_pool2d(prob, 6)[:, 0].sqrt())
    torch.testing.assert_close(maps[:, 1], torch.nn.functional.max_pool2d(prob, 6)[:, 0])
    other = inference.build_model("lesion_grader", (3, 96, 96), 6, arguments={"grid": 16})
    with pytest.raises(UserError, match="does not fit"):
        training._start(other, str(tiny_run))


def test_full_batch_gradient_descent_by_hand(tmp_path):
    """One step on all flowers is weight minus rate times the lecture's gradient, the mean of (yhat - y) x."""
    config = _config(
        IRIS,
        training={
            **{"steps": 1, "batch_size": 90, "optimiser": "sgd", "learning_rate": 0.3, "warmup_steps": 0},
            **{"weight_decay": 0, "ema": 0, "clip": 1e9, "validate_every": 1},
        },
    )
    part = tasks.load("iris", tasks.Wanted()).train
    x = torch.from_numpy(np.stack([part.images[i].ravel() for i in range(90)]))
    x = torch.cat([x, torch.ones(90, 1)], dim=1)
    torch.manual_seed(0)
    first = inference.build_model("linear", (4, 1, 1), 3).state_dict()
    weight = torch.cat([first["head.weight"], first["head.bias"][:, None]], dim=1)
    stepped = weight - 0.3 * losses.cross_entropy_gradient(x, torch.from_numpy(part.labels[:, 0]), weight)
    training.fit(config, tmp_path / "run", tmp_path, device="cpu")
    after = _weights(tmp_path / "run")
    torch.testing.assert_close(after["head.weight"], stepped[:, :4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after["head.bias"], stepped[:, 4], rtol=1e-5, atol=1e-6)


def test_the_gradient_by_hand_is_autograds():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(20, 5, generator=generator), torch.arange(20) % 3
    weight = torch.randn(3, 5, generator=generator, requires_grad=True)
    losses.cross_entropy(x @ weight.T, labels).backward()
    torch.testing.assert_close(losses.cross_entropy_gradient(x, labels, weight.detach()), weight.grad)


def test_the_gradient_of_logistic_regression_is_the_lectures():
    """With two classes the difference of the weights moves by the mean of (yhat - y) x, yhat a sigmoid."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 5, generator=generator), torch.arange(20) % 2
    weight = torch.randn(5, generator=generator, requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(x @ weight, y.float()).backward()
    by_hand = ((torch.sigmoid(x @ weight.detach()) - y)[:, None] * x).mean(dim=0)
    torch.testing.assert_close(by_hand, weight.grad)
    both = losses.cross_entropy_gradient(x, y, torch.stack([torch.zeros(5), weight.detach()]))
    torch.testing.assert_close(both[1], by_hand)
    torch.testing.assert_close(both[0], -by_hand)


def test_least_squares_finds_the_closed_form(tmp_path):
    config = _config(
        IRIS,
        name="petals",
        data={"task": "petals"},
        training={"loss": "least_squares", "steps": 1500, "batch_size": 90, "learning_rate": 0.05, "ema": 0}
        | {"weight_decay": 0, "validate_every": 1500},
    )
    training.fit(config, tmp_path / "run", tmp_path, device="cpu")
    part = tasks.load("petals", tasks.Wanted()).train
    x = np.array([part.images[i].ravel() for i in range(90)], np.float64)
    slope, offset = np.linalg.lstsq(np.hstack([x, np.ones((90, 1))]), part.labels, rcond=None)[0].ravel()
    found = _weights(tmp_path / "run")
    assert float(found["head.weight"]) == pytest.approx(slope, abs=2e-3)
    assert float(found["head.bias"]) == pytest.approx(offset, abs=5e-3)
    scored = evaluation.evaluate(tmp_path / "run", tmp_path, device="cpu")
    assert scored.heads["petal_width_cm"].scores["r2"] > 0.8


def test_ordinal_outputs_are_probabilities_that_the_loss_makes_true():
    """The loss of a constant answer is least where it answers the frequencies of the grades."""
    labels = torch.tensor([0] * 5 + [1] * 2 + [2] * 1 + [3] * 2)
    said = torch.zeros(1, 3, requires_grad=True)
    optimiser = torch.optim.LBFGS([said], max_iter=200, tolerance_grad=1e-9)

    def closure():
        optimiser.zero_grad()
        value = losses.ordinal(said.expand(10, -1), labels)
        value.backward()
        return value

    optimiser.step(closure)
    prob = outputs.probabilities(said.detach(), outputs.ORDINAL)[0]
    torch.testing.assert_close(prob, torch.tensor([0.5, 0.2, 0.1, 0.2]), atol=1e-3, rtol=0)
    random = outputs.probabilities(torch.randn(50, 4), outputs.ORDINAL, 1.7)
    torch.testing.assert_close(random.sum(dim=1), torch.ones(50))
    assert (random >= 0).all()


@pytest.mark.parametrize("kind", [outputs.SOFTMAX, outputs.ORDINAL])
def test_the_temperature_of_overconfident_outputs_is_found(kind):
    generator = torch.Generator().manual_seed(0)
    said = 2 * torch.randn(4000, 3, generator=generator)
    prob = outputs.probabilities(said, kind)
    labels = torch.multinomial(prob, 1, generator=generator)[:, 0].numpy()
    assert training.temperature(3 * said, kind, labels) == pytest.approx(3, rel=0.1)


def test_class_weights_make_rare_classes_count_alike():
    weights = training._class_weights(np.array([0] * 8 + [1] * 2), 3)
    assert weights.tolist() == pytest.approx([10 / 24, 10 / 6, 0])
    said, labels = torch.tensor([[1.0, -1.0, 0.0]]).expand(10, 3), torch.tensor([0] * 8 + [1] * 2)
    each = [float(losses.cross_entropy(said[:1], torch.tensor([label]))) for label in (0, 1)]
    assert float(losses.cross_entropy(said, labels, weights)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__loss": "hinge"}, "unknown loss 'hinge'"),
        ({"training__loss": "ordinal", "data": {"task": "petals"}}, "petal_width_cm is a number: use least_squares"),
        ({"data": {"task": "petals"}}, "petal_width_cm is a number"),
        ({"model": "lenet_5"}, "LeNet-5 reads images of 28 x 28"),
        ({"model": "linear", "training__frozen": True}, "learns nothing"),
        ({"training__augment": "flips"}, "vectors of 4 features cannot be"),
        ({"model": "mlp", "training__frozen": True}, "give training.start or a file of weights"),
        ({"preprocess": {"colour": "green"}}, "iris has no photographs"),
        ({"data": {"task": "iris", "folder": "x"}}, "iris has no files"),
        ({"data": {"task": "digits", "size": 8, "shift": 8}}, "moves digits of 8 px away"),
        (
            {"data": {"task": "petals"}, "training__loss": "least_squares", "training__class_weights": True},
            "is a number",
        ),
        ({"training__start": "nowhere"}, "there is no classifier or finished run"),
        ({"data": {"task": "idrid-grade", "size": 64}}, "is missing"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        training.fit(_config(IRIS, **changes), tmp_path / "run", tmp_path, device="cpu")
    assert not (tmp_path / "run" / checkpoint.WEIGHTS).exists()


def test_unknown_splits_columns_and_models_are_said(digits_run):
    with pytest.raises(UserError, match="choose train, val or test"):
        evaluation.evaluate(digits_run, digits_run, split="all")
    with pytest.raises(UserError, match="has no column grade: it has none"):
        evaluation.evaluate(digits_run, digits_run, columns=["grade"])
    with pytest.raises(UserError, match="packaged classifiers are"):
        evaluation.evaluate("nothing", digits_run)


def test_predicts_a_drawn_digit(digits_run):
    from sklearn.datasets import load_digits

    classifier = Classifier.from_pretrained(digits_run, "cpu")
    found = load_digits()
    right = 0
    for number in range(20):
        image = np.repeat((found.images[number] * 15.9).astype(np.uint8)[..., None], 3, axis=2)
        (answer,) = classifier.predict(np.kron(image, np.ones((5, 5, 1), np.uint8))).answers
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        right += answer.answer == str(found.target[number])
    assert right >= 16  # of 20; chance is 2


def test_a_packaged_classifier_is_listed_sound_and_the_same(digits_run, tmp_path, monkeypatch):
    inference.package(digits_run, {"name": "mini", "limits": ["Digits only."]}, tmp_path)
    monkeypatch.setattr(inference, "FOLDER", tmp_path)
    assert inference.names() == ["mini"]
    assert inference.verify() == {"mini": ""}
    card = inference.card_of("mini")
    assert card.limits == ("Digits only.",)
    assert card.weights_sha256 == inference.card_of(digits_run).weights_sha256
    (tmp_path / "mini.safetensors").write_bytes(b"changed")
    assert "was changed or damaged" in inference.verify()["mini"]


def test_a_grader_answers_every_question_and_knows_what_it_is(grader_run, tiny_run):
    from retina_seg import phantom

    classifier = Classifier.from_pretrained(grader_run, "cpu")
    answers = classifier.predict(phantom.draw(1).image).answers
    assert [one.question for one in answers] == ["dr_grade", "dme_risk"]
    assert [len(one.probabilities) for one in answers] == [5, 3]
    for one in answers:
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.answer == max(one.probabilities, key=one.probabilities.get)
    assert inference.is_classifier(grader_run)
    assert not inference.is_classifier(tiny_run)
    assert not inference.is_classifier("vessels")


def test_what_a_body_has_learnt_from_is_not_watched(data_root):
    """The packaged `lesions` has seen eight validation photographs of the grades, and three test ones."""
    from retina_seg import zoo

    images = zoo.card("lesions").training["images"]
    learning = tasks.load("idrid-grade", tasks.Wanted(data_root=data_root, size=64))
    counts = {split: len(tasks.seen("idrid-grade", learning.part(split), images)) for split in ("train", "val", "test")}
    assert counts == {"train": 38, "val": 8, "test": 3}
    assert set(tasks.seen("idrid-grade", learning.test, images)) == {
        f"idrid_grade:test/IDRiD_{number}" for number in ("088", "089", "091")
    }


def test_a_frozen_body_from_a_file_is_the_same_after_an_interruption(tmp_path, monkeypatch):
    """The features are computed anew when a run goes on: with the body of the run, not with a random one."""
    from collections import OrderedDict

    from retina_seg.classify import models

    def random_body(in_shape, outputs, *, weights=""):
        body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
        if weights:
            body.load_state_dict(torch.load(weights))
        return torch.nn.Sequential(OrderedDict(body=body, head=torch.nn.Linear(16, outputs)))

    monkeypatch.setitem(models.MODELS, "from_file", random_body)
    torch.manual_seed(7)
    torch.save(random_body((1, 8, 8), 1).get_submodule("body").state_dict(), tmp_path / "body.pth")
    model = {"name": "from_file", "arguments": {"weights": str(tmp_path / "body.pth")}}
    config = _config(DIGITS, model=model, training__frozen=True)
    whole = training.fit(config, tmp_path / "whole", tmp_path, device="cpu")

    def stop(progress: loop.Progress) -> None:
        if progress.step == 33 and not progress.phase:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        training.fit(config, tmp_path / "run", tmp_path, device="cpu", progress=stop)
    again = training.fit(config, tmp_path / "run", tmp_path, resume=True, device="cpu")
    assert again.weights_sha256 == whole.weights_sha256


def test_a_start_that_has_seen_what_would_be_watched_is_refused(digits_run, tmp_path):
    known = training.fit(_config(DIGITS, data__fit=["train", "val"]), tmp_path / "a", tmp_path, device="cpu")
    assert set(known.training["images"]) > set(inference.card_of(digits_run).training["images"])
    with pytest.raises(UserError, match="has seen all but 0 of the 288 examples"):
        training.fit(_config(DIGITS, training__start=str(tmp_path / "a")), tmp_path / "b", tmp_path, device="cpu")
    # Of another fold some of the validation digits are new, and only those are watched.
    other = training.fit(
        _config(DIGITS, data__fold=2, training__start=str(digits_run)), tmp_path / "c", tmp_path, device="cpu"
    )
    seen = inference.seen_by(inference.card_of(digits_run))
    assert 10 <= int(other.temperature_source.split()[0]) < 288
    assert set(other.training["watched_images"]) > set(inference.card_of(digits_run).training["watched_images"])
    scored = evaluation.evaluate(tmp_path / "c", tmp_path, device="cpu")
    assert set(scored.leaked) <= set(seen)
    assert len(scored.leaked) > 200
    (warning,) = scored.warnings
    assert f"and {len(scored.leaked) - 5} more" in warning


def test_models_of_the_other_kind_are_named(digits_run, tiny_run, tmp_path):
    from retina_seg import zoo

    with pytest.raises(UserError, match="is the card of a classifier: use `retina-seg classify`"):
        zoo.load(digits_run)
    with pytest.raises(UserError, match="is the card of a model that segments"):
        Classifier.from_pretrained(tiny_run)
    with pytest.raises(UserError, match="vessels is a model that segments"):
        Classifier.from_pretrained("vessels")
    with pytest.raises(UserError, match="dr-grade is a classifier, which marks nothing: use it with"):
        zoo.load("dr-grade")
    (tmp_path / checkpoint.CARD).write_text("{")
    assert not inference.is_classifier(tmp_path)


def test_differences_are_of_what_both_have_answered_and_neither_has_seen(digits_run):
    card = inference.card_of(digits_run).model_copy(
        update={"task": "idrid-grade", "heads": {"dr_grade": tuple("01234")}, "outputs": "softmax"}
    )
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 80)

    def scored(name, answers, first, leaked=()):
        keys = tuple(f"eye{number}" for number in range(first, first + len(answers)))
        labels = truth[first : first + len(answers)]
        part = examples.Labelled(np.zeros((len(answers), 1, 1, 1)), labels[:, None], keys, keys)
        prob = np.eye(5, dtype=np.float32)[answers]
        own = card.model_copy(update={"name": name})
        return evaluation.report(own, part, [prob], split="test", columns=(), leaked=leaked)

    good = np.where(rng.random(80) < 0.8, truth, 0)
    bad = np.where(rng.random(80) < 0.4, truth, 4 - truth)
    one, other = scored("good", good[:60], 0, leaked=["eye21"]), scored("bad", bad[20:], 20, leaked=["eye20"])
    accuracy, kappa = pairs.differences(one, other)
    both = slice(22, 60)
    expected = np.mean(good[both] == truth[both]) - np.mean(bad[both] == truth[both])
    assert accuracy.startswith(f"dr_grade, accuracy: good less bad {expected:+.4f} (+")
    assert accuracy.endswith("on 38 examples")
    expected = cohen_kappa_score(good[both], truth[both], weights="quadratic")
    expected -= cohen_kappa_score(bad[both], truth[both], weights="quadratic")
    assert f"dr_grade, quadratic kappa: good less bad {expected:+.4f} (+" in kappa
    (none,) = pairs.differences(scored("good", good[:20], 0), scored("bad", bad[20:], 20))
    assert "no example has been answered by both" in none


def test_numbers_are_compared_by_their_errors(digits_run):
    card = inference.card_of(digits_run).model_copy(
        update={"task": "petals", "heads": {"width": ()}, "outputs": "value", "temperatures": {}}
    )
    keys, truth = tuple("abcdef"), np.arange(6, dtype=np.float32)
    part = examples.Labelled(np.zeros((6, 1, 1, 1)), truth[:, None], keys, keys)
    one, other = (
        evaluation.report(card, part, [(truth + error)[:, None]], split="test", columns=()) for error in (1, 3)
    )
    assert pairs.differences(one, other, names=("a", "b")) == [
        "width, RMSE: a less b -2.0000 (-2.0000 to -2.0000) on 6 examples"
    ]


@pytest.mark.parametrize(("task", "known"), [("digits", False), ("iris", False), ("idrid-grade", True)])
def test_only_answers_in_an_order_have_a_quadratic_kappa(task, known):
    heads = {"x": tuple("012")}
    card = inference.ClassifierCard(
        name="x", parameters=1, task=task, heads=heads, outputs="softmax", model={"name": "mlp", "in_shape": (1, 1, 1)}
    )
    part = examples.Labelled(np.zeros((3, 1, 1, 1)), np.arange(3)[:, None], tuple("abc"), tuple("abc"))
    scored = evaluation.report(card, part, [np.eye(3, dtype=np.float32)], split="test", columns=())
    assert ("quadratic_kappa" in scored.heads["x"].scores) == known


def test_reversed_subgroups_are_said(digits_run):
    """Two models on different examples: the kidney stones of Charig 1986 as answers."""
    card = inference.card_of(digits_run).model_copy(update={"heads": {"healed": ("no", "yes")}, "outputs": "softmax"})

    def scored(name, small, large):
        right = np.array(
            [True] * small[0] + [False] * (small[1] - small[0]) + [True] * large[0] + [False] * (large[1] - large[0])
        )
        prob = np.where(right[:, None], [0.1, 0.9], [0.9, 0.1]).astype(np.float32)
        keys = tuple(f"{name}{number}" for number in range(len(right)))
        groups = ("small",) * small[1] + ("large",) * large[1]
        part = examples.Labelled(prob, np.ones((len(right), 1), np.int64), keys, keys, {"stones": groups})
        own = card.model_copy(update={"name": name})
        return evaluation.report(own, part, [prob], split="test", columns=("stones",))

    a, b = scored("A", (81, 87), (192, 263)), scored("B", (234, 270), (55, 80))
    (said,) = pairs.reversals(a, b)
    assert "A is worse than B in total" in said
    assert all(figure in said for figure in ("81/87", "192/263", "234/270", "55/80"))
    (said,) = pairs.reversals(a, b, names=("open", "closed"))
    assert said.startswith("healed by stones: open is worse than closed")
    (same,) = pairs.reversals(a, a)
    assert "both have answered the same examples" in same
    (apart,) = pairs.reversals(a, scored("C", (1, 87), (1, 263)))
    assert "350 examples that only the first has answered and 350 only the other" in apart
    bare = replace(a, heads={"healed": replace(a.heads["healed"], subgroups={})})
    (none,) = pairs.reversals(bare, b)
    assert "has no columns" in none
    (seen,) = pairs.reversals(a, replace(b, leaked=[row["key"] for row in b.per_example]))
    assert "one of the two has seen every example" in seen
