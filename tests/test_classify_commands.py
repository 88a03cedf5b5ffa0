import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from retina_seg import io, phantom
from retina_seg.classify import (
    commands,
    comparisons,
    drawing,
    evaluation,
    fundus,
    inference,
    painting,
    studies,
    training,
)
from retina_seg.classify.config import load_config
from retina_seg.classify.inference import Classifier
from retina_seg.cli import app
from retina_seg.errors import Interrupted, UserError
from retina_seg.fov import find_fov

PATCHES = """
name: patches
data: {task: vessel-patches, size: 9}
preprocess: {colour: green}
model: {name: small_cnn, arguments: {features: [8, 8]}}
training: {steps: 150, batch_size: 64, learning_rate: 0.01, validate_every: 150}
"""


@pytest.fixture(scope="module")
def patch_run(drawn_drive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    (folder / "patches.yaml").write_text(PATCHES)
    _run("train", folder / "patches.yaml", "--out", folder / "run", "--data-root", drawn_drive, "--device", "cpu")
    return folder / "run"


def _run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["classify", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def _refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["classify", *map(str, arguments)])
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_the_help_lists_the_commands():
    text = _run("--help")
    assert all(name in text for name in ("train", "evaluate", "predict", "explain", "paint", "study", "list"))
    listed = _run("list")
    assert "vessel-patches" in listed
    assert "lecun_constrained_2" in listed
    assert "hidden=(128,), activation=relu" in listed
    assert "dr_grade, dme_risk, eye" in listed
    assert "least_squares" in listed


@pytest.mark.parametrize("name", ["vessel-patches", "idrid-grade"])
def test_the_list_knows_the_columns(name, drawn_drive, data_root):
    from retina_seg.classify import tasks

    root = drawn_drive if name == "vessel-patches" else data_root
    found = tasks.load(name, tasks.Wanted(data_root=root, size=64 if name == "idrid-grade" else 9))
    assert tuple(found.test.columns) == tasks.find(name).columns
    assert all(head.ordered == tasks.find(name).ordered for head in found.heads)


def test_a_patch_classifier_is_trained_scored_and_paints(patch_run, drawn_drive, tmp_path):
    assert (patch_run / "curves.png").is_file()
    text = _run(
        "evaluate", patch_run, "--data-root", drawn_drive, "--json", tmp_path / "r.json", "--out", tmp_path / "p"
    )
    assert "accuracy" in text
    assert "balanced" in text
    assert "photograph" in text  # the column of the task
    by_quality = _run("evaluate", patch_run, "--data-root", drawn_drive, "--by", "quality")
    assert "quality" in by_quality
    assert any(word in by_quality for word in ("in doubt", "clear"))
    scored = json.loads((tmp_path / "r.json").read_text())["heads"]["pixel"]["scores"]
    assert scored["macro_auc"] > 0.8
    assert len(list((tmp_path / "p").glob("*.png"))) == 3

    classifier = Classifier.from_pretrained(patch_run, "cpu")
    drawing = phantom.draw(77, width=160, height=150)
    prob = painting.paint(classifier, drawing.image, drawing.fov)
    assert prob.shape == drawing.vessels.shape
    assert not prob[~drawing.fov].any()
    assert prob[drawing.vessels & drawing.fov].mean() > 1.4 * prob[~drawing.vessels & drawing.fov].mean()
    # Pixel by pixel, the long way: the patch cut out around it and asked alone.
    prepared = painting.preprocess.apply(drawing.image, drawing.fov, classifier.settings)
    around = fundus.padded(prepared.image, 9)
    y0, x0 = prepared.geometry.box[:2]
    for y, x in ((60, 70), (75, 40), (90, 100)):
        patch = around[:, y - y0 : y - y0 + 9, x - x0 : x - x0 + 9]
        assert classifier.probabilities(patch[None].copy())[0][0, 1] == pytest.approx(prob[y, x], abs=1e-5)


def test_photographs_are_painted_with_a_threshold_given_or_chosen(patch_run, drawn_drive, tmp_path):
    drawing = phantom.draw(77, width=160, height=150)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        io.write_rgb(tmp_path / folder / "eye.png", drawing.image)
    given = ("--out", tmp_path / "out", "--device", "cpu")
    _run("paint", patch_run, tmp_path / "a", tmp_path / "b" / "eye.png", *given, "--threshold", 0.9)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 8
    assert sum(name.endswith("_mask.png") for name in names) == 2
    classifier = Classifier.from_pretrained(patch_run, "cpu")
    prob = painting.paint(classifier, drawing.image, find_fov(drawing.image))
    mask = next((tmp_path / "out").glob("*_mask.png"))
    np.testing.assert_array_equal(io.read_image(mask)[..., 0] > 0, prob >= 0.9)
    _run("paint", patch_run, tmp_path / "a" / "eye.png", *given, "--data-root", drawn_drive)
    chosen = painting._threshold(classifier, drawn_drive)[0]
    np.testing.assert_array_equal(io.read_image(tmp_path / "out" / "eye_mask.png")[..., 0] > 0, prob >= chosen)


def test_one_bad_photograph_stops_no_other_from_being_painted(patch_run, tmp_path):
    for name in ("a.png", "c.png"):
        io.write_rgb(tmp_path / name, phantom.draw(77, width=160, height=150).image)
    (tmp_path / "b.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    given = ("paint", patch_run, tmp_path, "--out", out, "--device", "cpu", "--threshold", 0.9)
    text = _run(*given, code=2)
    assert "b.png" in text
    assert {path.name for path in out.glob("*_mask.png")} == {"a_mask.png", "c_mask.png"}
    (out / "a_mask.png").write_bytes(b"drawn by hand")
    assert "a_mask.png" in _refused(*given)
    assert (out / "a_mask.png").read_bytes() == b"drawn by hand"


def test_what_cannot_be_asked_of_a_patch_classifier_is_said(patch_run, tmp_path):
    path = tmp_path / "eye.png"
    io.write_rgb(path, phantom.draw(0, width=200, height=200).image)
    assert "paint with it, by `retina-seg classify paint`" in _refused("predict", patch_run, path)
    assert "the masks of a protocol have their own" in _refused("paint", patch_run, "--out", path, "--threshold", 0.5)
    assert "idrid has no annotation of vessels" in _refused(
        "paint", patch_run, "--out", tmp_path / "painted", "--protocol", "idrid"
    )
    assert not (tmp_path / "painted").exists()
    done = CliRunner().invoke(app, ["classify", "predict", str(patch_run), str(path)])
    assert isinstance(done.exception, UserError)
    assert "no single image can ask" in str(done.exception)


def test_pictures_that_are_no_photographs_are_not_graded(grader_run, tmp_path):
    blue = tmp_path / "blue.png"
    io.write_rgb(blue, np.ascontiguousarray(phantom.draw(0, width=400, height=400).image[..., ::-1]))
    text = _run("predict", grader_run, blue, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert f"{blue}: withheld: This does not look like a fundus photograph" in text
    assert "dr_grade" not in text
    said = json.loads((tmp_path / "a.json").read_text())["images"][str(blue)]
    assert any("fundus" in text for text in said["warnings"])
    assert said["dr_grade"] == said["dme_risk"] == {"answer": None, "probabilities": {}}
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert (row["dr_grade"], row["dme_risk_p_0"], "fundus" in row["warnings"]) == ("", "", True)


def test_answers_are_replaced_where_nothing_is_lost(grader_run, tmp_path):
    first, second = tmp_path / "p1" / "eye.png", tmp_path / "p2" / "eye.png"
    for seed, path in enumerate((first, second)):
        path.parent.mkdir()
        io.write_rgb(path, phantom.draw(seed, width=200, height=200).image)
    table = tmp_path / "mine.json"
    _run("predict", grader_run, first, "--json", table)
    own = table.read_bytes()
    _run("predict", grader_run, first, "--json", table)
    assert table.read_bytes() == own
    assert "--overwrite" in _refused("predict", grader_run, second, "--json", table)  # of another photograph
    _run("predict", grader_run, first, second, "--json", table)
    for changed in (b"patient;grade\n", own + b"my remark\n"):
        table.write_bytes(changed)
        assert "--overwrite" in _refused("predict", grader_run, first, "--json", table)
        assert table.read_bytes() == changed
    _run("predict", grader_run, first, "--json", table, "--overwrite")
    assert table.read_bytes() == own


def test_a_table_of_answers_is_never_replaced_unasked(grader_run, tmp_path):
    photograph, table = tmp_path / "eye.png", tmp_path / "grades.csv"
    io.write_rgb(photograph, phantom.draw(0, width=200, height=200).image)
    given = ("predict", grader_run, photograph, "--csv", table)
    _run(*given)
    own = table.read_bytes()
    table.write_bytes(own.replace(b",,", b",checked,"))  # nothing tells who wrote that
    assert "--overwrite" in _refused(*given)
    assert table.read_bytes() != own
    _run(*given, "--overwrite")
    assert table.read_bytes() == own
    assert "a file of its own" in _refused(*given, "--json", table)


def test_an_unexpected_error_stops_one_answer_only(grader_run, tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        io.write_rgb(path, phantom.draw(0, width=200, height=200).image)
    predict = Classifier.predict

    def runs_out(classifier, source):
        if source == paths[0]:
            raise MemoryError("no memory left")
        return predict(classifier, source)

    monkeypatch.setattr(Classifier, "predict", runs_out)
    _run("predict", grader_run, tmp_path, "--csv", tmp_path / "a.csv", code=2)
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())}
    assert "MemoryError" in rows[str(paths[0])]["error"]
    assert rows[str(paths[1])]["error"] == ""


def test_names_in_a_table_of_answers_are_no_formulas(grader_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io.write_rgb("=1+1.png", phantom.draw(0, width=200, height=200).image)
    _run("predict", grader_run, "=1+1.png", "--csv", "a.csv")
    assert next(csv.DictReader(Path("a.csv").read_text().splitlines()))["image"] == "'=1+1.png"


def test_digits_are_predicted_and_explained(tmp_path):
    config = tmp_path / "digits.yaml"
    config.write_text(
        "name: digits\ndata: {task: digits, size: 16}\nmodel: {name: small_cnn, arguments: {features: [8, 8]}}\n"
        "training: {steps: 40, batch_size: 64, learning_rate: 0.01, validate_every: 40}\n"
    )
    _run("train", config, "--out", tmp_path / "run", "--device", "cpu")
    drawn = np.full((32, 32, 3), 255, np.uint8)
    drawn[4:28, 14:18] = 0
    io.write_rgb(tmp_path / "one.png", drawn)
    text = _run("predict", tmp_path / "run", tmp_path / "one.png", "--json", tmp_path / "answers.json")
    found = json.loads((tmp_path / "answers.json").read_text())["images"][str(tmp_path / "one.png")]["digit"]
    assert f"digit {found['answer']}" in text
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    _run("explain", tmp_path / "run", tmp_path / "one.png", "--out", tmp_path / "explained")
    drawn = {path.stem for path in (tmp_path / "explained").glob("*.png")}
    assert drawn == {"filters", "features", "cam-digit", "curves"}
    _run("explain", tmp_path / "run", tmp_path / "one.png", "--out", tmp_path / "explained", "--unit", 1)
    assert (tmp_path / "explained" / "activating.png").is_file()
    assert "--layer says where --unit is looked for" in _refused(
        "explain", tmp_path / "run", tmp_path / "one.png", "--layer", "body"
    )
    report = tmp_path / "reports" / "digits.json"
    text = _run("evaluate", tmp_path / "run", "--against", tmp_path / "run", "--json", report)
    assert "the same examples: no subgroup can turn the order" in text
    difference, said = json.loads(report.read_text())["comparison"]
    assert "+0.0000 (+0.0000 to +0.0000) on 360 examples" in difference
    assert "no subgroup can turn the order" in said


def test_what_cannot_be_compared_is_found_before_anything_is_scored(digits_and_flowers, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda *_args, **_more: pytest.fail("scored"))
    assert "they cannot be compared" in _refused("evaluate", digits_and_flowers[0], "--against", digits_and_flowers[1])
    assert "there is no classifier" in _refused("evaluate", digits_and_flowers[0], "--against", "nowhere")


@pytest.fixture
def digits_and_flowers(tmp_path):
    short = {"steps": 30, "batch_size": 30, "validate_every": 30}
    for task, size in (("digits", 8), ("iris", None)):
        config = studies.Arm(task, {"task": task, "size": size}, "linear", training=short).config(0, 0)
        training.fit(config, tmp_path / task, tmp_path, device="cpu")
    return tmp_path / "digits", tmp_path / "iris"


def test_who_stops_keeps_what_has_been_answered(digits_and_flowers, tmp_path, monkeypatch):
    drawn = np.zeros((16, 16, 3), np.uint8)
    for number in range(4):
        drawn[2 + number : 12, 6:9] = 255
        io.write_rgb(tmp_path / f"{number}.png", drawn)
    (tmp_path / "1.png").write_bytes(b"nothing")
    read = io.read_image

    def until_the_fourth(path, **more):
        if path.name == "3.png":
            raise KeyboardInterrupt
        return read(path, **more)

    monkeypatch.setattr(io, "read_image", until_the_fourth)
    answers = tmp_path / "new" / "answers.json"
    table = answers.with_suffix(".csv")
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    given = ["classify", "predict", str(digits_and_flowers[0]), *paths, "--json", str(answers), "--csv", str(table)]
    CliRunner().invoke(app, given)
    found = json.loads(answers.read_text())
    assert list(found["images"]) == [paths[0], paths[2]]
    assert list(found["failed"]) == [paths[1]]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["image"] for row in rows] == [paths[0], paths[2], paths[1]]
    for row in rows[:2]:
        said = found["images"][row["image"]]["digit"]
        assert row["digit"] == said["answer"]
        assert float(row[f"digit_p_{row['digit']}"]) == pytest.approx(said["probabilities"][row["digit"]], abs=1e-4)
    assert (rows[2]["digit"], rows[2]["error"]) == ("", found["failed"][paths[1]])


def test_a_photograph_that_is_too_small_is_not_graded(grader_run, tmp_path):
    io.write_rgb(tmp_path / "small.png", phantom.draw(0, width=200, height=200).image[::4, ::4])
    text = _run("predict", grader_run, tmp_path / "small.png", code=2)
    assert "64" in text
    assert text.count("small.png") == 1
    assert "dr_grade" not in text


def test_tables_of_a_classifier_that_has_seen_some_are_of_the_others(capsys):
    scored = evaluation.kept("dr-grade")
    assert 0 < len(scored.leaked) < scored.n_examples
    commands.show(scored, ["eye"])
    text = capsys.readouterr().out
    for head in scored.clean.values():
        assert all(f" {count} " in text for row in head.confusion for count in row)
        assert all(f"{share:.4f}" in text for _, share in head.subgroups["eye"].values())
    assert text.count("truth, without leaks") == 2


def test_nothing_is_drawn_of_a_unit_that_nothing_moves(tmp_path):
    short = {"steps": 30, "batch_size": 30, "validate_every": 30}
    config = studies.Arm("digits", {"task": "digits", "size": 16}, "small_cnn", {"features": [4, 4]}, short).config(
        0, 0
    )
    training.fit(config, tmp_path / "run", tmp_path, device="cpu")
    classifier = Classifier.from_pretrained(tmp_path / "run", "cpu")
    with torch.no_grad():
        for layer in classifier.net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.zero_()
                layer.bias.fill_(-1)
    with pytest.raises(UserError, match="none of the first 300 test images activates unit 1"):
        drawing.draw_activating(classifier, tmp_path, tmp_path / "out", 1, None)


def test_who_stops_a_study_reads_the_command_of_the_study(monkeypatch, tmp_path):
    def stopped(*_args, **_more):
        raise Interrupted("stopped at step 3 of 9", "retina-seg classify train --resume /tmp/gone")

    monkeypatch.setattr(comparisons, "run", stopped)
    monkeypatch.setattr(sys, "argv", ["retina-seg", "classify", "study", "petals"])
    done = CliRunner().invoke(app, ["classify", "study", "petals", "--results", str(tmp_path)])
    assert str(done.exception) == "stopped at step 3 of 9; go on with: retina-seg classify study petals"


def test_training_is_begun_or_resumed_not_both(tmp_path):
    for arguments in ((), (tmp_path / "a.yaml", "--resume", tmp_path), ("--resume", tmp_path, "--set", "seed=1")):
        done = CliRunner().invoke(app, ["classify", "train", *map(str, arguments)])
        assert isinstance(done.exception, UserError)


def test_a_study_is_recorded_goes_on_and_becomes_a_table(tmp_path, monkeypatch):
    flowers = {"task": "iris"}
    short = {"steps": 30, "batch_size": 30, "validate_every": 10, "learning_rate": 0.05}
    arms = (
        studies.Arm("linear", flowers, "linear", training=short),
        studies.Arm("MLP", flowers, "mlp", training=short),
    )
    study = studies.Study("Flowers", "Two networks.", arms, seeds=2, curve=True)
    monkeypatch.setattr(comparisons, "STUDIES", {"flowers": lambda: study})
    trained = []
    original = comparisons._train

    def counted(study, arm, which, *others):
        trained.append((arm.name, which[0]))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(study, arm, which, *others)

    monkeypatch.setattr(comparisons, "_train", counted)
    with pytest.raises(KeyboardInterrupt):
        comparisons.run("flowers", tmp_path, tmp_path)
    path = comparisons.run("flowers", tmp_path, tmp_path)
    assert trained == [("linear", 0), ("linear", 1), ("MLP", 0), ("MLP", 0), ("MLP", 1)]
    rows = json.loads(path.read_text())["rows"]
    assert [(row["arm"], row["seed"]) for row in rows] == [("linear", 0), ("linear", 1), ("MLP", 0), ("MLP", 1)]
    page, picture = comparisons.write(tmp_path, tmp_path / "RESULTS.md")
    assert picture.is_file()
    mean = np.mean([row["scores"]["species"]["accuracy"] for row in rows[:2]])
    line = next(line for line in page.read_text().splitlines() if line.startswith("| linear |"))
    assert f"| {mean:.4f} ±" in line
    assert "| 15 | 90 |" in line
    with pytest.raises(UserError, match="unknown study 'x': choose one of flowers"):
        comparisons.run("x", tmp_path, tmp_path)
    for damaged in ("{}", '{"rows": [{}]}', '{"rows": [1]}', '{"rows": 5}', "[]"):
        path.write_text(damaged)
        with pytest.raises(UserError, match="no record of a study"):
            comparisons.run("flowers", tmp_path, tmp_path)
    path.write_text('{"rows": []}')
    assert "Two networks" not in comparisons.write(tmp_path, tmp_path / "RESULTS.md")[0].read_text()


def test_a_frozen_body_looks_once_at_what_several_trainings_learn_from(tmp_path, monkeypatch):
    short = {"steps": 4, "batch_size": 8, "validate_every": 4, "warmup_steps": 1}
    digits, given = {"task": "digits", "size": 16}, {"features": [4, 6]}
    body = studies.Arm("body", digits, "small_cnn", given, short).config(0, 0)
    training.fit(body, tmp_path / "body", tmp_path, device="cpu")
    frozen = {**short, "start": str(tmp_path / "body"), "frozen": True}
    arms = tuple(
        studies.Arm(f"{share:.0%}", {**digits, "share": share}, "small_cnn", given, frozen) for share in (0.1, 1)
    )
    monkeypatch.setattr(comparisons, "STUDIES", {"frozen": lambda: studies.Study("Frozen", "", arms, seeds=2)})
    asked, new, original = [], [], training.HeadOnly.features

    def counted(net, part, device, looked):
        asked.extend(part.keys)
        new.extend(key for key in part.keys if key not in looked)
        return original(net, part, device, looked)

    monkeypatch.setattr(training.HeadOnly, "features", counted)
    rows = json.loads(comparisons.run("frozen", tmp_path, tmp_path, device="cpu").read_text())["rows"]
    assert len(rows) == 4
    assert len(new) == len(set(asked)) < len(asked)
    other = studies.Arm("other", digits, "small_cnn", {"features": [4, 5]}, frozen)
    assert len({comparisons._body(arm) for arm in (*arms, other)}) == 2


def test_the_study_of_patches_trains_what_the_configuration_says():
    root = Path(__file__).resolve().parents[1] / "configs" / "classify"
    config = load_config(root / "patch-cnn.yaml")
    (arm, *_) = studies.STUDIES["patches"]().arms
    assert arm.config(0, 0).model_copy(update={"name": config.name}) == config


def test_a_study_of_painted_masks_stands_beside_segmenters(drawn_drive, tmp_path, monkeypatch):
    patches = studies.Arm(
        "patch by patch",
        {"task": "vessel-patches", "size": 9},
        "small_cnn",
        {"features": [4, 4]},
        {"steps": 30, "batch_size": 32, "validate_every": 30},
        {"colour": "green"},
    )
    arms = (patches, studies.Arm("a U-Net", segmenter="vessels-small"))
    study = studies.Study("Painted", "Two ways.", arms, seeds=1, painted=True)
    monkeypatch.setattr(comparisons, "STUDIES", {"painted": lambda: study})
    path = comparisons.run("painted", drawn_drive, tmp_path, device="cpu")
    slow, fast = json.loads(path.read_text())["rows"]
    assert slow["examples"] == 16  # photographs, however many patches are cut of them
    assert 0.5 < slow["scores"]["vessels"]["auc"] < fast["scores"]["vessels"]["auc"]
    assert (fast["parameters"], fast["identity"]["segmenter"]) == (94_681, "vessels-small")
    assert slow["seconds"] > 0
    comparisons.write(tmp_path, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| | parameters | photographs | AUC | Dice | trainings | seconds a photograph |" in text
    assert "/painted.png)" in text
    before = (tmp_path / "painted.png").stat().st_mtime_ns
    comparisons.run("painted", drawn_drive, tmp_path, device="cpu")  # all is on record
    assert (tmp_path / "painted.png").stat().st_mtime_ns == before
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "rows": record["rows"][:1]}))  # stopped: the picture has all arms or none
    comparisons.run("painted", drawn_drive, tmp_path, device="cpu")
    assert (tmp_path / "painted.png").stat().st_mtime_ns == before
    (tmp_path / "painted.png").unlink()
    comparisons.run("painted", drawn_drive, tmp_path, device="cpu")
    assert (tmp_path / "painted.png").is_file()


def test_what_was_promised_is_on_record():
    root = Path(__file__).resolve().parents[1] / "configs" / "classify" / "results"

    def accuracy(study: str, arm: str) -> float:
        rows = [row for row in json.loads((root / f"{study}.json").read_text())["rows"] if row["arm"] == arm]
        assert len(rows) >= 5
        return float(np.mean([row["scores"]["digit"]["accuracy"] for row in rows]))

    assert accuracy("networks", "LeNet-5, digits turned and moved") >= 0.985
    assert accuracy("lecun", "constrained 2, turned and moved") >= 0.95
    patches = json.loads((root / "patches.json").read_text())["rows"][0]
    assert patches["scores"]["vessels"]["auc"] >= 0.96
    scores = inference.card_of("dr-grade").scores["test, 100 photographs that no part of the model has seen"]
    assert scores["dr_grade"]["quadratic_kappa"] >= 0.55
    assert scores["joint"]["accuracy"] >= 0.45


@pytest.mark.parametrize("name", inference.names())
def test_a_packaged_classifier_comes_with_the_report_of_its_card(name):
    scored, card = evaluation.kept(name), inference.card_of(name)
    said = list(card.scores.values())
    for part, scores, joint in ((scored.heads, said[0], scored.joint), (scored.clean, said[1], scored.clean_joint)):
        for question, head in part.items():
            measured = {key: head.scores[key] for key in scores[question]}
            assert measured == pytest.approx(scores[question], abs=6e-5)
        assert joint == pytest.approx(scores["joint"]["accuracy"], abs=6e-5)


def test_the_published_page_is_made_of_the_published_records(tmp_path, monkeypatch):
    """Nobody edits it by hand: `make results` writes it."""
    root = Path(__file__).resolve().parents[1] / "configs" / "classify"
    monkeypatch.setattr(comparisons, "_draw", lambda record, path: None)
    page, *_ = comparisons.write(root / "results", tmp_path / "RESULTS.md")
    assert page.read_text(encoding="utf-8") == (root / "RESULTS.md").read_text(encoding="utf-8")
