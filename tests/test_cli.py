import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from retina_seg import cli, terminal, zoo
from retina_seg._version import __version__
from retina_seg.errors import Interrupted, UserError

COMMANDS = [
    ["demo"],
    ["predict"],
    ["train"],
    ["evaluate"],
    ["benchmark"],
    ["robustness"],
    ["results"],
    ["models", "list"],
    ["models", "show"],
    ["models", "verify"],
    ["data", "list"],
    ["data", "check"],
    ["data", "scan"],
    ["data", "fetch"],
]


@pytest.fixture
def run(monkeypatch):
    """Run the command line in this process as `main` does; gives exit code and output."""

    def call(*arguments: object, width: int = 200) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", str(width))
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if isinstance(result.exception, UserError | Interrupted):
            return (2 if isinstance(result.exception, UserError) else 130), str(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


@pytest.fixture
def photograph(drawn, tmp_path):
    path = tmp_path / "eye.png"
    Image.fromarray(drawn.image).save(path)
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_command(run, command):
    code, output = run(*command, "--help")
    assert code == 0
    assert "Usage" in output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(run, command):
    assert "Example" in run(*command, "--help")[1]


def test_version(run):
    assert run("--version") == (0, f"retina-seg {__version__}\n")


def test_predict(run, photograph, tiny_run, tmp_path):
    code, output = run("predict", photograph, "--model", tiny_run, "--out", tmp_path / "out", "--save", "mask,nifti")
    assert code == 0
    assert "1 of 1 photographs" in output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"eye_mask.png", "eye_mask.nii.gz", "eye.json"}


def test_paths_with_brackets_are_printed_as_they_are(run, photograph, tiny_run, tmp_path):
    code, output = run("predict", photograph, "--model", tiny_run, "--out", tmp_path / "[red]out[/nope]")
    assert code == 0
    assert "[red]out[/nope]" in output


def test_predict_goes_on_after_a_bad_file_and_says_so(run, photograph, tiny_run, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("text")
    code, output = run("predict", bad, photograph, "--model", tiny_run, "--out", tmp_path / "out")
    assert code == 2
    assert "1 of 2 photographs" in output
    assert (tmp_path / "out" / "eye_mask.png").exists()
    assert not list((tmp_path / "out").glob("bad*"))


def test_predict_tells_what_it_leaves_out_and_where_it_finds_nothing(run, photograph, tiny_run, tmp_path):
    folder = tmp_path / "clinic"
    folder.mkdir()
    (folder / "a.heic").write_bytes(b"")
    code, output = run("predict", folder, "--model", tiny_run, "--out", tmp_path / "out")
    assert code == 2
    assert "1 .heic" in output
    (folder / photograph.name).write_bytes(photograph.read_bytes())
    code, output = run("predict", folder, "--model", tiny_run, "--out", tmp_path / "out")
    assert code == 0
    assert "left out of the folders, as no photographs that can be read: 1 .heic" in output


def test_predict_keeps_a_mask_drawn_by_hand(run, photograph, tiny_run, tmp_path):
    mask = tmp_path / "eye_mask.png"
    mask.write_bytes(b"drawn by hand")
    code, output = run("predict", photograph, "--model", tiny_run, "--out", tmp_path)
    assert (code, mask.read_bytes()) == (2, b"drawn by hand")
    assert "--overwrite" in output
    code, _ = run("predict", photograph, "--model", tiny_run, "--out", tmp_path, "--overwrite")
    assert (code, mask.read_bytes()[:4]) == (0, b"\x89PNG")


def test_demo_keeps_what_is_not_its_own(run, tmp_path):
    (tmp_path / "comparison.png").write_bytes(b"mine")
    code, output = run("demo", "--out", tmp_path)
    assert (code, (tmp_path / "comparison.png").read_bytes()) == (2, b"mine")
    assert "comparison.png" in output


def test_a_name_that_is_no_utf8_is_segmented(run, photograph, tiny_run, tmp_path):
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4uge.png"))
    source.write_bytes(photograph.read_bytes())
    code, output = run("predict", source, tmp_path / "\x1b[2J.png", "--model", tiny_run, "--out", tmp_path / "out")
    assert code == 2  # the second one is not there
    assert r"\x1b[2J.png: no such file" in output
    assert [os.fsencode(path.name) for path in (tmp_path / "out").glob("*_mask.png")] == [b"\xe4uge_mask.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", ".", "--out", "o"], "no images in the folder"),
        (["predict", "none.png", "--out", "o", "--model", "nonesuch"], "no model"),
        (["predict", "none.png", "--out", "o", "--save", "masks"], "mask,prob,overlay,nifti"),
        (["evaluate", "nonesuch", "--protocol", "drive"], "no model"),
        (["evaluate", "vessels-drive", "--protocol", "drove"], "unknown protocol"),
        (["benchmark", "none.yaml"], "no configuration"),
        (["results"], "there are no records in runs/benchmark/records"),
        (["results", "--results", "none"], "there are no records in none"),
        (["train"], "give either"),
        (["train", "none.yaml"], "no configuration"),
        (["train", "--resume", "none"], "no configuration"),
        (["models", "show", "nonesuch"], "no model"),
        (["data", "check", "drove"], "drove"),
    ],
)
def test_bad_input_is_one_line_and_code_2(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, output = run(*arguments)
    assert code == 2
    assert words in output
    assert "\n" not in output.strip()
    assert not list(tmp_path.iterdir())


def test_main_prints_the_error_and_no_traceback(tmp_path):
    call = [sys.executable, "-m", "retina_seg.cli", "predict", str(tmp_path), "--out", "x"]
    result = subprocess.run(call, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error:")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_train_evaluate_and_resume(run, tiny_config, drawn_drive, tmp_path):
    folder = tmp_path / "runs" / "mini"
    root = ["--data-root", drawn_drive, "--device", "cpu"]
    code, output = run("train", tiny_config, "--set", "training.steps=3", "--out", folder, *root)
    assert code == 0, output
    assert (folder / "curves.png").exists()
    assert len(list((folder / "samples").iterdir())) == 4
    report = tmp_path / "drive.json"
    code, output = run("evaluate", folder, "--protocol", "drive", "--json", report, *root)
    assert code == 0, output
    assert "dice" in output
    assert json.loads(report.read_text())["model"] == "tiny"
    kept = folder / "reports" / "drive.json"
    assert f"wrote {kept}" in output
    assert kept.read_text() == report.read_text()
    code, output = run("train", tiny_config, "--out", folder, *root)
    assert code == 2
    assert "already holds a run" in output
    code, output = run("train", "--resume", folder, "--set", "seed=1", *root)
    assert code == 2
    assert "leave out --set" in output


def test_evaluate_says_what_was_done_to_the_mask(run, tiny_run, drawn_drive, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    root, json_path = ["--data-root", drawn_drive, "--device", "cpu"], tmp_path / "clean.json"
    code, output = run("evaluate", folder, "--protocol", "drive", "--postprocess", "--json", json_path, *root)
    assert code == 0, output
    assert "8-connected" in json.loads(json_path.read_text())["postprocessing"]
    assert "post-processing: pieces" in " ".join(output.split())
    assert not (folder / "reports").exists()


def test_evaluate_compares_two_models(run, tiny_run, drawn_drive, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    root = ["--data-root", drawn_drive, "--device", "cpu"]
    options = ["--against", "vessels-small", "--by", "set", "--by", "quality", "--no-flips"]
    code, output = run("evaluate", folder, "--protocol", "drive", *options, *root)
    assert code == 0, output
    assert "by quality: no subgroup turns the order" in output
    assert any(word in output for word in ("in doubt", "clear"))
    assert "by set: no subgroup turns the order" in output
    for arguments, words in (
        (["--by", "grade"], "--by 'grade': the manifest has set, eye"),
        (["--against", "nonesuch"], "no model"),
        (["--against", "disc"], "nothing that drive scores is found by both"),
    ):
        code, refused = run("evaluate", folder, "--protocol", "drive", *arguments, *root)
        assert code == 2
        assert "\n" not in refused.strip()  # found before anything is scored
        assert words in refused
    assert "tiny less vessels-small, subjects resampled in pairs" in output
    table = output.partition("resampled in pairs")[2]
    assert "Dice" in table
    assert "-0." in table  # a few steps of training are not enough
    assert "total misleads" not in output
    _, alike = run("evaluate", folder, "--protocol", "drive", "--against", tiny_run, "--no-flips", *root)
    assert f"{folder} less {tiny_run}"[:60] in alike.replace("\n", "")


def test_benchmark_and_results(run, tiny_config, drawn_drive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = [tmp_path / name for name in ("RESULTS.md", "configs/results/results.csv", "configs/results/results.json")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the project")
    root = ["--data-root", drawn_drive, "--device", "cpu"]
    code, output = run("benchmark", tiny_config, "--seeds", "3", *root)
    assert code == 0, output
    assert "tiny on drive, seed 3: Dice 0." in output
    record = tmp_path / "runs" / "benchmark" / "records" / "tiny" / "drive-seed3.json"
    assert (tmp_path / "runs" / "benchmark" / "tiny" / "drive" / "seed3" / "card.json").is_file()
    dice = json.loads(record.read_text())["variants"]["plain"]["fov"]["dice"]
    code, output = run("benchmark", tiny_config, "--seeds", "3", *root)
    assert code == 0, output
    assert "(recorded before)" in output
    code, output = run("results")
    assert code == 0, output
    assert "wrote runs/benchmark/records/RESULTS.md" in output
    assert f"| {dice:.4f} |" in (tmp_path / "runs" / "benchmark" / "records" / "RESULTS.md").read_text()
    assert {path.read_text() for path in theirs} == {"of the project"}
    code, output = run("results", "--out", "RESULTS.md")
    assert (code, theirs[0].read_text()) == (2, "of the project")
    assert "RESULTS.md: already there" in output
    for arguments, words in (
        (["benchmark", tiny_config, "--protocol", "drove"], "unknown protocol 'drove'"),
        (["benchmark", tiny_config, "--seeds", "a"], "--seeds 'a'"),
        (["benchmark", tiny_config, "--photographs", "0"], "--photographs '0'"),
        (["results", "--reference", "none"], "there are records of tiny"),
        (["results", "--robustness", "nowhere"], "there is no such folder"),
    ):
        code, output = run(*arguments)
        assert code == 2
        assert words in output


def test_robustness_prints_and_records_what_was_made_worse(run, tiny_run, drawn_drive, tmp_path):
    folder = tmp_path / "worse"
    common = ("robustness", tiny_run, "--data-root", drawn_drive, "--device", "cpu", "--results", folder)
    code, text = run(*common, "--degradation", "untouched", "--degradation", "blur 2")
    assert code == 0, text
    (path,) = folder.iterdir()
    lines = json.loads(path.read_text())
    assert [line["degradation"] for line in lines] == ["untouched", "blur 2"]
    assert all(f"{line['dice']:.4f}" in text for line in lines)
    _, text = run(*common, "--degradation", "untouched", "--protocol", "cross-drive")
    assert "has seen 20 of the 40 images" in text
    assert len(json.loads(path.read_text())) == 3


def test_an_interrupted_benchmark_says_how_to_go_on(run, tiny_config, drawn_drive, tmp_path, monkeypatch):
    def stop(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("retina_seg.train.fit", stop)
    arguments = ["benchmark", str(tiny_config), "--out", str(tmp_path / "my runs"), "--data-root", str(drawn_drive)]
    monkeypatch.setattr(sys, "argv", ["/bin/retina-seg", *arguments])
    code, output = run(*arguments)
    assert code == 130
    assert output.startswith("stopped at tiny on drive, seed 0 (0 of 3 done)")
    assert f"go on with: retina-seg benchmark {tiny_config} --out '{tmp_path}/my runs'" in output


def test_a_run_that_takes_no_report_is_scored_all_the_same(run, tiny_run, drawn_drive, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("reports"))
    (folder / "reports").write_text("in the way")
    code, output = run("evaluate", folder, "--protocol", "drive", "--data-root", drawn_drive, "--device", "cpu")
    assert code == 0, output
    assert "note" in output
    assert "cannot be made a folder" in output
    assert "wrote" not in output


def test_models(run):
    assert "vessels-drive" in run("models", "list")[1]
    code, output = run("models", "verify")
    assert code == 0
    assert "vessels-drive: sound" in output
    card, whole = (json.loads(run("models", "show", "vessels-drive", *more)[1]) for more in ((), ("--all",)))
    assert card["targets"] == whole["targets"] == ["vessels"]
    assert card["training"]["images"] == [*whole["training"]["images"][:3], "and 17 more (--all)"]
    assert len(whole["training"]["images"]) == 20


def test_data_list(run):
    code, output = run("data", "list")
    assert code == 0
    for name in ("drive", "stare", "chase_db1", "idrid_seg", "idrid_grade"):
        assert name in output


def test_environment_names_the_data_root(run, tiny_run, drawn_drive, monkeypatch):
    monkeypatch.setenv("RETINA_SEG_DATA", str(drawn_drive))
    code, output = run("evaluate", tiny_run, "--protocol", "drive", "--device", "cpu")
    assert code == 0, output


def test_demo(run, tmp_path):
    code, output = run("demo", "--out", tmp_path / "demo")
    assert code == 0
    assert "Dice" in output
    overlay = np.asarray(Image.open(tmp_path / "demo" / "photograph_overlay.png"))
    assert overlay.shape == (584, 565, 3)


def test_the_default_model_is_the_packaged_default():
    """The command line names it without importing the library behind it."""
    assert inspect.signature(cli.predict).parameters["model"].default == zoo.DEFAULT
    assert zoo.DEFAULT in zoo.names()


def test_early_stopping_is_told():
    config = {"training": {"steps": 2000}}
    assert terminal.stopped_early({"steps": 2000, "config": config}) == ""
    stopped = terminal.stopped_early({"steps": 940, "best_step": 60, "config": config})
    assert "940 of 2000 steps" in stopped
    assert "of step 60" in stopped
    assert "2000 steps" not in terminal.stopped_early({"steps": 2000, "best_step": 60, "config": config})
