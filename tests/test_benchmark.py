"""Small benchmarks on drawn photographs, and plans on the real manifests."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from retina_seg import (
    benchmark,
    checkpoint,
    datasets,
    phantom,
    postprocess,
    protocols,
    results,
    scoring,
    train,
    zoo,
)
from retina_seg.benchmark import Cell, plan, seeds_of
from retina_seg.config import load_config
from retina_seg.errors import Interrupted, UserError
from retina_seg.photographs import rows_of
from retina_seg.records import VARIANTS, read, read_all


def go(cells, root, base, **more):
    return benchmark.run(cells, root, out=base / "runs", folder=base / "results", device="cpu", **more)


def no_training(*_args, **_more):
    raise AssertionError("trained again")


@pytest.fixture(scope="module")
def config(tiny_config):
    return load_config(tiny_config)


@pytest.fixture(scope="module")
def done(config, drawn_drive, tmp_path_factory):
    """A finished benchmark of two seeds: its folder, which nobody changes, and its records."""
    base = tmp_path_factory.mktemp("benchmark")
    return base, go(plan([config], ["drive"], (0, 1)), drawn_drive, base)


@pytest.fixture
def copy(done, tmp_path):
    """A copy of the finished benchmark."""
    return shutil.copytree(done[0], tmp_path / "copy")


@pytest.fixture(scope="module")
def drawn_both(drawn_drive, tmp_path_factory):
    """DRIVE and STARE, drawn."""
    root = tmp_path_factory.mktemp("both")
    (root / "DRIVE").symlink_to(drawn_drive / "DRIVE")
    drawing = phantom.draw(5, width=120, height=112)
    for number, row in enumerate(datasets.rows("stare")):
        for name in row.files():
            path = root / "STARE" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Every photograph has pixels of its own.
            pixels = np.roll(drawing.image, number) if name == row.image else drawing.vessels.astype(np.uint8) * 255
            Image.fromarray(pixels).save(path)
    return root


def test_every_cell_is_trained_and_recorded(done):
    base, records = done
    assert [(record.name, record.protocol, record.seed) for record in records] == [("tiny", "drive", k) for k in (0, 1)]
    for record in records:
        run = base / "runs" / "tiny" / "drive" / f"seed{record.seed}"
        card = zoo.card(run)
        assert record.weights_sha256 == (card.weights_sha256,)
        assert (record.parameters, record.steps) == (card.parameters, 6)
        assert record.config["seed"] == record.seed == card.training["config"]["seed"]
        path = base / "results" / "tiny" / f"drive-seed{record.seed}.json"
        assert read(path) == record
        assert path.stat().st_size < 25e3
        assert str(base) not in path.read_text()
    assert records[0].weights_sha256 != records[1].weights_sha256


def test_the_record_holds_what_evaluate_says(done, drawn_drive):
    base, (record, _) = done
    run = base / "runs" / "tiny" / "drive" / "seed0"
    assert record.default == "plain"
    for name in ("plain", "flips+clean"):
        variant, kept = scoring.VARIANTS[name], record.variants[name]
        scored = scoring.score(run, "drive", drawn_drive, device="cpu", flips=variant.flips, clean=variant.clean)
        alone = scored["vessels"]
        assert kept["fov"] == pytest.approx(alone.fov, rel=1e-5)
        assert kept["full_frame"] == pytest.approx(alone.full_frame, rel=1e-5)
        assert kept["postprocessing"] == alone.postprocessing
        assert "curves" not in kept
        assert len(kept["per_image"]) == (20 if name == "plain" else 0)
    assert record.variants["plain"]["postprocessing"] == "none"
    assert record.report["second_observer"]["fov"]["dice"] == 1
    assert record.report["leaked_images"] == []
    assert zoo.reports(run)["drive"]["fov"]["dice"] == pytest.approx(record.report["fov"]["dice"], rel=1e-5)


def test_nothing_is_done_twice(copy, config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    monkeypatch.setattr(scoring, "variants", no_training)
    files = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    told = []
    records = go(plan([config], ["drive"], (0, 1)), drawn_drive, copy, on_record=lambda *one: told.append(one))
    assert [new for _, new in told] == [False, False]
    assert [record for record, _ in told] == records
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("stale", ["weights", "post-processing"])
def test_a_stale_record_is_made_again_without_training(stale, copy, done, config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    path, record = copy / "results" / "tiny" / "drive-seed0.json", done[1][0]
    if stale == "weights":
        path.write_text(replace(record, weights_sha256=("beef",)).to_json())
    else:
        path.write_text(path.read_text().replace(postprocess.describe(), postprocess.describe(0.5)))
    told = []
    go(plan([config], ["drive"], (0,)), drawn_drive, copy, on_record=lambda _, new: told.append(new))
    assert told == [True]
    assert read(path) == record


def test_an_interrupted_benchmark_goes_on(done, config, drawn_drive, tmp_path):
    """Ctrl-C in the second training: the first one stays, the second ends in the weights it would have had."""

    def stop(number: int, text: str) -> None:
        if number == 1 and "step 3" in text:
            os.kill(os.getpid(), signal.SIGINT)

    cells = plan([config], ["drive"], (0, 1))
    with pytest.raises(Interrupted, match=r"stopped at tiny on drive, seed 1 \(1 of 2 done\); nothing is lost"):
        go(cells, drawn_drive, tmp_path, progress=stop)
    run = tmp_path / "runs" / "tiny" / "drive" / "seed1"
    assert checkpoint.load_state(run)["step"] == 3
    assert [path.name for path in (tmp_path / "results" / "tiny").iterdir()] == ["drive-seed0.json"]
    first = tmp_path / "runs" / "tiny" / "drive" / "seed0" / checkpoint.WEIGHTS
    written = first.stat().st_mtime_ns
    told = []
    records = go(cells, drawn_drive, tmp_path, on_record=lambda _, new: told.append(new))
    assert told == [False, True]
    assert first.stat().st_mtime_ns == written
    assert [record.weights_sha256 for record in records] == [record.weights_sha256 for record in done[1]]


def test_ctrl_c_while_scoring_is_told_in_the_same_way(copy, config, drawn_drive, monkeypatch):
    (copy / "results" / "tiny" / "drive-seed0.json").unlink()

    def stop(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "variants", stop)
    with pytest.raises(Interrupted, match="0 of 1 done"):
        go(plan([config], ["drive"], (0,)), drawn_drive, copy)


def test_a_training_killed_before_its_first_state_begins_again(done, config, drawn_drive, tmp_path):
    run = tmp_path / "runs" / "tiny" / "drive" / "seed0"
    run.mkdir(parents=True)
    (run / checkpoint.CONFIG).write_text(config.to_yaml())
    with FileLock(run / checkpoint.LOCK), pytest.raises(UserError, match="trained by another process"):
        go(plan([config], ["drive"], (0,)), drawn_drive, tmp_path)
    (record,) = go(plan([config], ["drive"], (0,)), drawn_drive, tmp_path)
    assert record.weights_sha256 == done[1][0].weights_sha256


def test_other_settings_are_refused_before_anything_is_trained(copy, tiny_config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    other = load_config(tiny_config, ["training.steps=7", "training.augment=none"])
    with pytest.raises(UserError, match=r"training\.steps 7 \(was 6\), training\.augment none \(was standard\)"):
        go(plan([other], ["drive"], (2, 0)), drawn_drive, copy)


def test_a_damaged_record_is_refused_before_anything_is_trained(copy, config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    (copy / "results" / "tiny" / "drive-seed1.json").write_text("{")
    with pytest.raises(UserError, match="not a record"):
        go(plan([config], ["drive"], (2, 1)), drawn_drive, copy)


def test_folds_and_crossed_sets(copy, tiny_config, drawn_both):
    short = load_config(tiny_config, ["training.steps=2", "training.validate_every=2"])
    (folded,) = go(plan([short], ["stare-5fold"], (0,)), drawn_both, copy)
    assert len(folded.weights_sha256) == len(set(folded.weights_sha256)) == 5
    assert folded.steps == 10
    assert folded.config["data"]["protocols"] == ["stare-5fold"]
    assert folded.report["n_images"] == 20
    assert [one["fold"] for one in folded.report["per_fold"]] == [1, 2, 3, 4, 5]
    runs = copy / "runs" / "tiny" / "stare-5fold" / "seed0"
    assert sorted(path.name for path in runs.iterdir()) == [f"fold{k}" for k in range(1, 6)]
    assert zoo.card(runs / "fold3").training["config"]["data"]["protocols"] == ["stare-5fold/3"]

    whole = load_config(tiny_config)
    (crossed,) = go([Cell(whole, ("drive",), "cross-stare", 0)], drawn_both, copy)
    assert crossed.path(copy / "results").name == "drive-on-cross-stare-seed0.json"
    assert crossed.path(copy / "results").is_file()
    assert crossed.weights_sha256 == read(copy / "results" / "tiny" / "drive-seed0.json").weights_sha256
    for record in (folded, crossed):
        assert record.report["leaked_images"] == []
        assert not any("LEAK" in text for text in record.report["warnings"])
    page = results.page(read_all(copy / "results"))
    assert all(part in page for part in ("## `drive`", "## `stare-5fold`", "## Across sets"))


def test_validation_images_are_scored_without_having_been_seen(config, drawn_drive, tmp_path):
    (record,) = go(plan([config], ["drive"], (0,), split="val"), drawn_drive, tmp_path)
    assert record.path(tmp_path / "results").name == "drive-val-seed0.json"
    assert record.path(tmp_path / "results").is_file()
    assert (record.split, record.report["split"], record.report["n_images"]) == ("val", "val", 4)
    assert "16 training images" in record.report["threshold_source"]
    assert record.report["leaked_images"] == []
    assert not (tmp_path / "runs" / "tiny" / "drive" / "seed0" / "reports").exists()


def test_all_seeds_together_have_a_record_of_their_own(copy, config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    cells = plan([config], ["drive"], (0, 1))
    *alone, together = go(cells, drawn_drive, copy, joined=True)
    assert [record.seed for record in alone] == [0, 1]
    assert together.path(copy / "results") == copy / "results" / "tiny-ensemble" / "drive-seed0.json"
    assert together.parameters == 2 * alone[0].parameters
    assert together.steps == 12
    assert together.report["leaked_images"] == []
    card = zoo.card(copy / "runs" / "tiny-ensemble" / "drive" / "seed0")
    assert [one["weights_sha256"] for one in card.training["members"]] == [one.weights_sha256[0] for one in alone]
    assert go(cells, drawn_drive, copy, joined=True) == [*alone, together]
    page = results.page(read_all(copy / "results"))
    assert "| tiny-ensemble † | unet |" in page
    shutil.rmtree(copy / "runs")
    assert go(cells, drawn_drive, copy, joined=True) == [*alone, together]
    (copy / "results" / "tiny-ensemble" / "drive-seed0.json").unlink()
    with pytest.raises(AssertionError, match="trained again"):
        go(cells, drawn_drive, copy, joined=True)


def test_records_without_their_run_folders_are_not_made_again(copy, config, drawn_drive, monkeypatch):
    shutil.rmtree(copy / "runs")
    cells = plan([config], ["drive"], (0, 1))
    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", no_training)
        told = []
        go(cells, drawn_drive, copy, on_record=lambda _, new: told.append(new))
        assert told == [False, False]
        path = copy / "results" / "tiny" / "drive-seed1.json"
        path.write_text(path.read_text().replace(postprocess.describe(), postprocess.describe(0.5)))
        with pytest.raises(AssertionError, match="trained again"):  # it was scored as it is no longer
            go(cells, drawn_drive, copy)
    # What another training starts from is trained all the same.
    start = copy / "runs" / "tiny" / "drive" / "seed0"
    after = config.model_copy(
        update={"name": "after", "training": config.training.model_copy(update={"start": str(start)})}
    )
    go(plan([config, after], ["drive"], (0,)), drawn_drive, copy, variants=False)
    assert (start / checkpoint.CARD).is_file()


def test_a_record_of_other_settings_is_refused(copy, tiny_config, drawn_drive, monkeypatch):
    monkeypatch.setattr(train, "fit", no_training)
    shutil.rmtree(copy / "runs")
    other = load_config(tiny_config, ["training.steps=7"])
    with pytest.raises(UserError, match=r"drive-seed0\.json is of other settings .* training\.steps 7 \(was 6\)"):
        go(plan([other], ["drive"], (2, 0)), drawn_drive, copy)


def test_few_photographs_have_folders_and_records_of_their_own(copy, done, tiny_config, drawn_drive):
    config = load_config(tiny_config, ["name=few"])
    cells = plan([config], ["drive"], (2,), photographs=(1, 3, None))
    one, three, whole = go(cells, drawn_drive, copy, variants=False)
    assert (one.photographs, three.photographs, whole.photographs) == (1, 3, None)
    names = [record.path(copy / "results").name for record in (one, three, whole)]
    assert names == ["drive-1photographs-seed2.json", "drive-3photographs-seed2.json", "drive-seed2.json"]
    assert all((copy / "results" / "few" / name).is_file() for name in names)
    seen = [zoo.card(copy / "runs" / "few" / name / "seed2") for name in ("drive-1photographs", "drive-3photographs")]
    assert [len(card.training["images"]) for card in seen] == [1, 3]
    assert "1 training images" in one.report["threshold_source"]
    assert set(one.variants) == {"plain"}
    page = results.page(read_all(copy / "results"))
    assert "### `drive`, few photographs" in page
    assert "| model | 1 | 3 | all |" in page


def test_variants_left_out_are_made_up_for_without_training(copy, config, drawn_drive, monkeypatch):
    path = copy / "results" / "tiny" / "drive-seed0.json"
    path.unlink()
    cells = plan([config], ["drive"], (0,))
    (quick,) = go(cells, drawn_drive, copy, variants=False)
    assert set(quick.variants) == {"plain"}
    page = results.page([quick])
    assert "– | – | – |" in page.split("Flips and post-processing")[1]
    monkeypatch.setattr(train, "fit", no_training)
    (complete,) = go(cells, drawn_drive, copy)
    assert set(complete.variants) == set(VARIANTS)
    assert complete.variants["plain"] == quick.variants["plain"]
    (again,) = go(cells, drawn_drive, copy, variants=False)
    assert again == complete


# --- plans: manifests only


def test_cross_single_leaves_the_joint_trainings_out(config):
    cells = plan([config], ["cross-single"], (0,))
    assert len(cells) == 6
    assert {len(cell.sources) for cell in cells} == {1}
    with pytest.raises(UserError, match="cross-single scores all images"):
        plan([config], ["cross-single"], (0,), split="val")


def test_the_best_step_is_never_chosen_on_what_is_scored(tiny_config):
    early = load_config(tiny_config, ["training.patience=2"])
    with pytest.raises(UserError, match="patience would choose the best step on what is scored"):
        plan([early], ["drive"], (0,), split="val")
    (cell,) = plan([early], ["drive"], (0,))
    assert cell.leaks() == []


def test_more_photographs_than_there_are_are_refused(config):
    with pytest.raises(UserError, match=r"tiny on drive, 17 photographs, seed 0: there are 16 training images"):
        plan([config], ["drive"], (0,), photographs=(1, 17))
    with pytest.raises(UserError, match="--photographs '1,0'"):
        benchmark.photographs_of("1,0")
    assert benchmark.photographs_of("1, 5,all") == (1, 5, None)


def test_cross_is_every_pair_and_every_set_left_out(config):
    cells = plan([config], ["cross"], (0,))
    of = {"drive": "drive", "stare-10": "stare", "chase-20-8": "chase_db1"}
    seen = set()
    for cell in cells:
        scored = {row.dataset for _, row in protocols.cases(cell.protocol)}
        seen.add((frozenset(of[source] for source in cell.sources), *scored))
    sets = set(of.values())
    single = {(frozenset({a}), b) for a in sets for b in sets if a != b}
    assert seen == single | {(frozenset(sets - {b}), b) for b in sets}
    assert len(cells) == 9
    folders = {path.as_posix() for cell in cells for path, _ in cell.trainings().values()}
    assert folders == {
        *("tiny/drive/seed0", "tiny/stare-10/seed0", "tiny/chase-20-8/seed0"),
        *("tiny/drive+stare-10/seed0", "tiny/drive+chase-20-8/seed0", "tiny/stare-10+chase-20-8/seed0"),
    }
    # The single sources are those of the protocols themselves: no training of their own.
    own = plan([config], ["drive", "stare-10", "chase-20-8"], (0,))
    trained = {path: settings for cell in cells for path, settings in cell.trainings().values()}
    for cell in own:
        assert all(trained[path] == settings for path, settings in cell.trainings().values())


@pytest.mark.parametrize("fit", [("train",), ("train", "val")])
def test_no_cell_is_scored_on_what_it_saw(tiny_config, fit):
    config = load_config(tiny_config, [f"data.fit={list(fit)}"])
    lesions = load_config(tiny_config, [f"data.fit={list(fit)}", "data.targets=[disc]"])
    names = [name for name in benchmark.NAMES if name != "idrid"]
    for cell in [*plan([config], names, (0,)), *plan([lesions], ["idrid"], (0,))]:
        for fold, (_, settings) in cell.trainings().items():
            seen = rows_of(settings.data.protocols, settings.data.fit + settings.data.monitor)
            scored = [row for k, row in protocols.cases(cell.protocol) if k == fold]
            leaked = protocols.leaks(scored, {row.key for row in seen})
            assert scored
            assert not leaked or cell.protocol == "chase-4fold"  # the published folds part two children
            assert settings.data.monitor == ("val",)
            assert settings.data.fit == fit


def test_without_validation_images_those_that_train_are_watched(config, monkeypatch):
    def listed(name):
        return [
            replace(row, splits={key: split.replace("val", "train") for key, split in row.splits.items()})
            for row in packaged(name)
        ]

    packaged = datasets.rows
    monkeypatch.setattr(datasets, "rows", listed)
    ((_, settings),) = Cell(config, ("stare-10",), "stare-10", 0).trainings().values()
    assert settings.data.monitor == settings.data.fit == ("train",)
    assert rows_of(settings.data.protocols, settings.data.monitor)


def test_a_joint_training_learns_from_all_it_names(tiny_config):
    joint = load_config(tiny_config, ["data.protocols=[drive,stare-10]"])
    cells = plan([joint], ["drive", "stare-10"], (0,))
    assert [(cell.sources, cell.protocol) for cell in cells] == [
        (("drive", "stare-10"), p) for p in ("drive", "stare-10")
    ]
    (path, settings), other = (cell.trainings()[0] for cell in cells)
    assert other == (path, settings)
    assert path.as_posix() == "tiny/drive+stare-10/seed0"
    assert settings.data.protocols == ("drive", "stare-10")
    for cell in cells:
        seen = rows_of(settings.data.protocols, ("train", "val"))
        assert protocols.leaks([row for _, row in protocols.cases(cell.protocol)], {row.key for row in seen}) == []
    overlapping = load_config(tiny_config, ["data.protocols=[stare-10,stare-5fold]"])
    with pytest.raises(UserError, match=r"would learn from images it is scored on: stare:\w+.* and 5 more"):
        plan([overlapping], ["stare-10"], (0,))
    with pytest.raises(UserError, match=r"learns from drive \+ stare-10 together: score it by one of these"):
        plan([joint], ["stare-5fold"], (0,))
    assert len(plan([joint], ["cross"], (0,))) == 9


def test_what_a_cell_learns_from_must_exist_or_come_before_and_know_nothing_of_the_test(config, copy, drawn_drive):
    seed0 = copy / "runs" / "tiny" / "drive" / "seed0"

    def taught(*teachers, name="taught"):
        data = config.data.model_copy(update={"teachers": tuple(map(str, teachers))})
        return config.model_copy(update={"name": name, "data": data})

    for protocol in ("stare-10", "drive"):  # fails before anything is trained
        with pytest.raises(UserError, match="there is no model or finished run"):
            go(plan([taught(copy / "nothing")], [protocol], (0,)), drawn_drive, copy)
    with pytest.raises(UserError, match="vessels has seen images that are scored: drive:37"):
        go(plan([taught("vessels")], ["drive"], (0,), split="val"), drawn_drive, copy)
    assert len(go(plan([taught(seed0)], ["drive"], (0,)), drawn_drive, copy)) == 1
    # Its teacher is another cell of the same benchmark.
    own = taught(copy / "runs" / "first" / "drive-val" / "seed0", name="second")
    first = config.model_copy(update={"name": "first"})
    assert len(go(plan([first, own], ["drive"], (0,), split="val"), drawn_drive, copy)) == 2


def test_the_order_gives_whole_tables_early(config):
    other = config.model_copy(update={"name": "other"})
    cells = plan([config, other], ["drive", "stare-10", "drive"], (0, 1))
    assert [(cell.seed, cell.protocol, cell.config.name) for cell in cells] == [
        (seed, protocol, name) for seed in (0, 1) for protocol in ("drive", "stare-10") for name in ("tiny", "other")
    ]


def test_errors(config, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"unknown protocol 'drove'.*stare-5fold.*cross"):
        plan([config], ["drove"], (0,))
    with pytest.raises(UserError, match="--split 'train': expected test or val"):
        plan([config], ["drive"], (0,), split="train")
    with pytest.raises(UserError, match="leave out --split val"):
        plan([config], ["cross"], (0,), split="val")
    with pytest.raises(UserError, match=r"tiny trains on validation images \(data.fit\)"):
        plan(
            [config.model_copy(update={"data": config.data.model_copy(update={"fit": ("val",)})})],
            ["drive"],
            (0,),
            split="val",
        )
    with pytest.raises(UserError, match="unknown protocol 'cross-drive'"):
        plan([config], ["cross-drive"], (0,))
    with pytest.raises(UserError, match="several configurations are called tiny"):
        plan([config, config], ["drive"], (0,))
    disc = config.model_copy(update={"data": config.data.model_copy(update={"targets": ("disc",)})})
    with pytest.raises(UserError, match="tiny learns disc, not vessels"):
        plan([disc], ["drive"], (0,))
    assert seeds_of("0, 12") == (0, 12)
    for wrong in ("", "a", "0,,1", "1,1", "-1", "01,1"):
        with pytest.raises(UserError, match="--seeds"):
            seeds_of(wrong)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        go(plan([config], ["drive"], (0,)), tmp_path, tmp_path)


def test_the_names_of_the_variants_are_those_of_the_records():
    assert list(scoring.VARIANTS) == list(VARIANTS)


def test_a_record_reads_line_by_line(done):
    text = done[1][0].to_json()
    assert json.loads(text)["name"] == "tiny"
    lines = text.splitlines()
    assert sum(line.lstrip().startswith('{"id"') for line in lines) == 20
    assert max(map(len, lines)) < 1500
