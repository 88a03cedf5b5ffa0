"""Tables from records made of a real report: every number is computed again from the JSON files."""

import csv
import json
import statistics
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retina_seg import degradations, markdown, protocols, results, zoo
from retina_seg.config import Config
from retina_seg.errors import UserError
from retina_seg.groups import grouped, paired
from retina_seg.published import PUBLISHED
from retina_seg.records import FOLDER, VARIANTS, Record, changes, read, read_all
from retina_seg.results import METRICS, page

TRAINING = {"steps": 100, "batch_size": 2, "accumulate": 2, "patch_size": 64, "warmup_steps": 10}


def report(protocol: str, shift: float, split: str) -> dict:
    """The packaged model's report, every score of every image moved by `shift`."""
    loaded = deepcopy(zoo.reports("vessels-drive")[protocol if protocol.startswith("cross") else "drive"])
    del loaded["curves"]
    loaded["protocol"], loaded["split"] = protocol, split
    for block in (loaded["fov"], loaded["full_frame"], *loaded["per_image"]):
        for metric in METRICS:
            block[metric] += shift
    loaded["ci95"]["dice"] = [edge + shift for edge in loaded["ci95"]["dice"]]
    return loaded


def record(
    name="net", protocol="drive", seed=0, shift=0.0, *, sources=None, split="test", photographs=None, **training
) -> Record:
    variants = {}
    for number, variant in enumerate(VARIANTS):
        variants[variant] = report(protocol, shift - number / 1000, split)
        if variant != "plain":
            variants[variant]["per_image"] = []
        if variant.endswith("clean"):
            variants[variant]["postprocessing"] = "small pieces removed"
    sources = sources or (protocol,)
    config = Config.model_validate(
        {
            "name": name,
            "seed": seed,
            "data": {"protocols": sources, "photographs": photographs},
            "model": "unet",
            "training": {**TRAINING, **training},
        }
    )
    return Record(
        name=name,
        protocol=protocol,
        split=split,
        sources=sources,
        seed=seed,
        config=config.model_dump(mode="json"),
        parameters=12345,
        steps=100,
        seconds=90 + 60 * seed,
        device="cpu",
        learnt_from=[],
        log=[{"step": 10, "loss": 0.2, "dice": 0.8, "auc": 0.97}],
        weights_sha256=(f"{name}{seed}",),
        default="plain",
        variants=variants,
    )


def put(folder, *records):
    for one in records:
        path = one.path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.to_json(), encoding="utf-8")


def row(text: str, begin: str, number: int = 0) -> list[str]:
    """Cells of the row that begins with `begin`; the `number`th one."""
    found = [line for line in text.splitlines() if line.startswith(f"| {begin} |")]
    return [cell.strip() for cell in found[number].strip("|").split("|")]


SHIFTS = (0.0, 0.002, -0.001)
THREE = [record(seed=seed, shift=shift) for seed, shift in enumerate(SHIFTS)]


@pytest.fixture
def folder(tmp_path):
    put(tmp_path, *THREE, record("weak", shift=-0.02))
    return tmp_path


def test_records_survive_the_disk(folder):
    assert read(folder / "net" / "drive-seed1.json") == THREE[1]
    assert [(one.name, one.seed) for one in read_all(folder)] == [
        ("net", 0),
        ("net", 1),
        ("net", 2),
        ("weak", 0),
    ]


def test_the_table_has_the_numbers_of_the_json(folder):
    texts = [(folder / "net" / f"drive-seed{seed}.json").read_text() for seed in range(3)]
    loaded = [json.loads(text)["variants"]["plain"] for text in texts]
    text = page(read_all(folder))
    header, cells = row(text, "model"), row(text, "net")
    shown = dict(zip(header, cells, strict=True))
    for title, metric in {"AUC": "auc", "Dice": "dice", "MCC": "mcc", "sensitivity": "sensitivity"}.items():
        values = [one["fov"][metric] for one in loaded]
        assert shown[title] == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    frame = [one["full_frame"]["dice"] for one in loaded]
    assert shown["Dice, full frame"] == f"{statistics.mean(frame):.4f} ± {statistics.stdev(frame):.4f}"
    low, high = (statistics.mean(one["ci95"]["dice"][k] for one in loaded) for k in (0, 1))
    assert shown["Dice, 95 %"] == f"{low:.4f} to {high:.4f}"
    assert (shown["network"], shown["parameters"], shown["seeds"]) == ("unet", "12,345", "3")
    assert shown["schedule"] == "100 × 4 × 64"
    assert shown["minutes"] == "2 (cpu)"  # 90, 150 and 210 seconds


def test_the_caption_says_how_it_was_measured(folder):
    text = page(read_all(folder))
    for part in (
        *(
            "20 test images of 20 subjects",
            "inside the field of view (released with the set)",
            "observer 1 (1st_manual)",
        ),
        *("highest pooled Dice on 20 training images", "1 to 3 seeds", "no post-processing"),
    ):
        assert part in text


def test_the_human_comes_first_and_published_figures_are_labelled(folder):
    text = page(read_all(folder))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| second human observer |")
    human = zoo.reports("vessels-drive")["drive"]["second_observer"]
    cells = dict(zip(row(text, "model"), row(text, "second human observer"), strict=True))
    assert cells["Dice"] == f"{human['fov']['dice']:.4f}"
    assert cells["AUC"] == "–"
    published = [line for line in lines if "*published: " in line]
    assert len(published) == sum(figure.protocol == "drive" for figure in PUBLISHED)
    assert any("Little W-Net (re-scored" in line and "| 0.9811 |" in line for line in published)
    assert any("DRIU" in line and "| 0.821 |" in line for line in published)
    names = [line.split("|")[1].strip() for line in lines]
    # .8316, then .8283 of Little W-Net, then .8113, and last who publishes no Dice.
    order = [names.index("net"), names.index("weak †")]
    assert order[0] < next(k for k, name in enumerate(names) if "SA-UNetv2" in name) < order[1]


def test_too_few_seeds_are_marked(folder):
    text = page(read_all(folder))
    assert "| weak † |" in text
    assert "| net |" in text
    assert "net †" not in text
    assert "fewer than three seeds: no claim about the method" in text


def test_variants_are_shown_beside_each_other(folder):
    text = page(read_all(folder))
    cells = row(text, "net", 1)
    for number in range(4):
        dice = statistics.mean(THREE[k].report["fov"]["dice"] for k in range(3)) - number / 1000
        assert cells[1 + number].startswith(f"{dice:.4f} ±")
    assert cells[1].endswith("*")
    assert "Post-processing: small pieces removed" in text


def test_a_comparison_is_a_minus_b(folder):
    text = page(read_all(folder))
    assert "Each minus net, the highest Dice" in text
    assert row(text, "weak †", 2)[1].startswith("-0.0200")
    other = page(read_all(folder), reference="weak")
    assert "Each minus weak †:" in other
    assert row(other, "net", 2)[1].startswith("+0.0200")
    with pytest.raises(UserError, match="there are records of net, weak"):
        page(read_all(folder), reference="strong")


def test_seeds_are_paired_and_averaged_before_subjects_are_resampled():
    rng = np.random.default_rng(0)
    a, b = [], []
    for seed in range(3):
        for side, gain in ((a, 0.01), (b, 0.0)):
            one = record("a" if side is a else "b", seed=seed)
            for image in one.report["per_image"]:
                image["dice"] += gain + rng.normal(0, 0.01)
            side.append(one)
    extra = record("b", seed=7, shift=0.3)  # a seed that only one side has
    (left,), (right,) = grouped(a), grouped([*b, extra])
    found = paired(left, right, "dice", n_bootstrap=4000)
    tables = [np.array([[i["dice"] for i in one.report["per_image"]] for one in side]) for side in (a, b)]
    difference = tables[0].mean(axis=0) - tables[1].mean(axis=0)
    assert found["difference"] == pytest.approx(difference.mean(), abs=1e-12)
    draws = rng.choice(difference, (4000, difference.size)).mean(axis=1)
    assert found["ci95"] == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=4e-4)
    assert found["p_value"] < 0.01
    swapped = paired(right, left, "dice", n_bootstrap=4000)
    assert swapped["difference"] == -found["difference"]
    assert paired(left, grouped([extra])[0], "dice") is None


def test_an_undefined_image_counts_for_neither():
    a, b = record("a"), record("b", shift=-0.1)
    a.report["per_image"][0]["auc"] = None
    found = paired(grouped([a])[0], grouped([b])[0], "auc")
    assert found["difference"] == pytest.approx(0.1)


def test_crossed_sets_are_a_matrix(tmp_path):
    crossed = [
        record(protocol=p, sources=s, seed=k) for s, p in protocols.cross() if p != "cross-drive" for k in (0, 1)
    ]
    put(tmp_path, *crossed, *THREE)
    text = page(read_all(tmp_path))
    assert "## Across sets" in text
    dice = {p: zoo.reports("vessels-drive")[p]["fov"]["dice"] for p in ("cross-stare", "cross-chase")}
    cells = row(text, "drive †")
    assert cells[1] == "2"
    assert cells[2].startswith(f"{dice['cross-stare']:.4f} ± 0.0000 / 0.97")
    assert cells[3].startswith(f"{dice['cross-chase']:.4f}")
    assert row(text, "stare-10 †")[2:] == ["–", cells[3]]
    assert row(text, "drive + stare-10 †")[2:] == ["–", cells[3]]
    assert "cross-stare: 20 images, observer 1 (ah)" in text
    assert "| *published: Little W-Net from DRIVE" in text
    human = zoo.reports("vessels-drive")["cross-stare"]["second_observer"]["fov"]["dice"]
    assert row(text, "second human observer", 1)[2] == f"{human:.4f} / –"


def test_the_diagonal_is_the_own_test_split(tmp_path):
    base = record(protocol="cross-stare", sources=("stare-10",))
    put(tmp_path, replace(base, sources=("drive",)), record(protocol="cross-chase", sources=("stare-10",)))
    own = record(protocol="stare-10", shift=0.01)
    put(tmp_path, own)
    text = page(read_all(tmp_path))
    assert row(text, "stare-10 †")[2] == f"({own.report['fov']['dice']:.4f} / {own.report['fov']['auc']:.4f})"


def test_ablations_stand_apart_with_what_differs(tmp_path):
    put(
        tmp_path,
        record("net"),
        record("ablation-reference", shift=0.001),
        record("ablation-loss", shift=-0.009, loss="dice"),
    )
    text = page(read_all(tmp_path))
    main, apart = text.split("## Ablations")
    assert "ablation" not in main
    cells = dict(zip(row(apart, "model"), row(apart, "ablation-loss †"), strict=True))
    assert cells["what differs"] == "training.loss dice (was bce)"
    assert cells["Δ Dice"].startswith("-0.0100")
    assert cells["Δ AUC"].startswith("-0.0100")
    reference = dict(zip(row(apart, "model"), row(apart, "ablation-reference †"), strict=True))
    assert (reference["what differs"], reference["Δ Dice"]) == ("–", "–")


def test_trainings_with_few_photographs_stand_in_a_matrix_of_their_own():
    parts = [record("net", seed=seed, shift=-0.1, photographs=2) for seed in range(3)]
    text = page([*THREE, *parts, record("some", photographs=10, shift=-0.05)])
    whole, few = text.split("## Few training photographs")
    assert "| some" not in whole
    assert row(few, "model") == ["model", "2", "10", "all"]
    dice = [one.report["fov"]["dice"] for one in parts]
    assert row(few, "net")[1:] == [f"{dice[0]:.4f} ± 0.0000", "–", row(text, "net")[7]]
    assert row(few, "some †")[1] == row(few, "some †")[3] == "–"


def test_the_study_of_the_hybrids_stands_apart_beside_its_reference():
    names = ("hybrids-reference", "hybrids-csc")
    runs = [
        record(name, seed=seed, shift=shift) for name, shift in zip(names, (0, 0.01), strict=True) for seed in (0, 1, 2)
    ]
    runs += [record(name, seed=seed, shift=-0.1, photographs=2) for name in names for seed in (0, 1, 2)]
    runs += [record(name, "cross-stare", sources=("drive",)) for name in names]
    runs += [record("hybrids-long-reference", steps=900), record("hybrids-long-csc", shift=0.02, steps=900)]
    runs += [
        record("hybrids-dict-random", shift=0.03, seed=seed) for seed in (0, 1, 2)
    ]  # a control, of all images alone
    worse = [
        degradations.Line(*(names[1], "drive", 0, "a", "drive", "vessels", "noise 10", None, 2.0, "d", 20, 0, 0.7, 0.9))
    ]
    text = page([record(), *runs], worse=worse, study="What holds.\n")
    whole, apart = text.split("## What the hybrids are good for")
    assert "hybrids" not in whole
    assert apart.lstrip().startswith("What holds.")
    assert row(apart, "hybrids-csc", 0)[1:4] == ["unet", "12,345", "100 × 4 × 64"]
    few = row(apart, "hybrids-csc", 1)
    assert few[1].endswith("(+0.0000 (+0.0000 to +0.0000))")
    assert "(+0.0100 (+0.0100 to +0.0100))" in few[2]
    assert "(" not in row(apart, "hybrids-reference", 1)[1]
    assert row(apart, "hybrids-dict-random", 1)[1] == markdown.DASH
    assert "(+0.0300 (+0.0300 to +0.0300))" in row(apart, "hybrids-dict-random", 1)[2]
    to_the_end = apart.split("### `drive`, all training images")[1]
    assert row(to_the_end, "hybrids-long-csc †")[1].endswith("(+0.0200 (+0.0200 to +0.0200))")
    assert row(apart, "model", 5) == ["model", "drive, on cross-stare"]
    assert row(apart, "hybrids-csc, penalty × 2 †")[1] == "0.7000"


def test_joint_trainings_stand_beside_the_others(tmp_path):
    together = ("drive", "stare-10")
    put(tmp_path, *THREE, record("both", sources=together, shift=-0.005))
    put(tmp_path, record("ablation-reference"), record("ablation-joint", sources=together, shift=0.01))
    assert (tmp_path / "both" / "drive+stare-10-on-drive-seed0.json").is_file()
    main, apart = page(read_all(tmp_path)).split("## Ablations")
    assert "Across sets" not in main
    assert row(main, "both from drive + stare-10 †")[4] == "1"
    cells = dict(zip(row(apart, "model"), row(apart, "ablation-joint from drive + stare-10 †"), strict=True))
    assert cells["what differs"] == "data.protocols ['drive', 'stare-10'] (was ['drive'])"
    assert cells["Δ Dice"].startswith("+0.0100")


def test_validation_images_have_tables_of_their_own(tmp_path):
    put(tmp_path, *THREE, *(record(seed=k, split="val", shift=0.05) for k in range(3)))
    assert (tmp_path / "net" / "drive-val-seed0.json").is_file()
    test, validation = page(read_all(tmp_path)).split("## `drive`, validation images")
    assert "20 validation images" in validation
    assert "published: " not in validation
    assert row(test, "net")[7].startswith("0.8316")
    assert row(validation, "net")[7].startswith("0.8813")


def test_files(folder, tmp_path):
    (folder / results.INTRODUCTION).write_text("What was asked.\n", encoding="utf-8")
    out = tmp_path / "RESULTS.md"
    assert results.write(folder, out, worse=folder / "worse") == [out, folder / "results.csv", folder / "results.json"]
    text = out.read_text(encoding="utf-8")
    assert "What was asked." in text
    assert text.count("\n\n\n") == 0
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 16
    first = next(line for line in lines if (line["config"], line["seed"], line["variant"]) == ("net", "1", "plain"))
    assert float(first["dice"]) == THREE[1].report["fov"]["dice"]
    assert first["is_result"] == "True"
    assert json.loads((folder / "results.json").read_text())[0]["config"] == "net"
    again = {path: path.read_bytes() for path in (out, folder / "results.csv", folder / "results.json")}
    results.write(folder, out, worse=folder / "worse")
    assert {path: path.read_bytes() for path in again} == again


def test_records_that_must_not_be_averaged_are_refused():
    with pytest.raises(UserError, match=r"seeds 0 and 1 were trained with different settings \(training\.loss dice"):
        page([record(), record(seed=1, loss="dice")])
    other = record("other")
    other.report["provenance"]["data_sha256"] = "beef"
    with pytest.raises(UserError, match="net and other were not scored on the same images"):
        page([record(), other])


def test_no_records(tmp_path):
    with pytest.raises(UserError, match="there are no records"):
        results.write(tmp_path, tmp_path / "RESULTS.md", worse=tmp_path / "worse")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: text.replace('"seconds"', '"minutes"'),
        lambda text: text.replace('"dice"', '"dize"'),
        lambda text: text.replace('"plain+clean"', '"other"'),
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace('"steps": 100', '"steps": "many"'),
        lambda text: text.replace('"parameters": 12345', '"parameters": "12345"'),
        lambda text: text.replace('"seconds": 90', '"seconds": null'),
        lambda text: text.replace('"data_sha256"', '"data"'),
        lambda text: text.replace('"tp"', '"true"'),
    ],
)
def test_a_damaged_record_is_named(folder, damage):
    path = folder / "net" / "drive-seed0.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=r"drive-seed0\.json is not a record"):
        read_all(folder)


def test_published_figures_are_of_known_protocols():
    known = {protocols.report_name(name, target) for name, one in protocols.PROTOCOLS.items() for target in one.targets}
    assert {figure.protocol for figure in PUBLISHED} <= known
    assert len(set(PUBLISHED)) == len(PUBLISHED)


def test_changes_are_told_in_words():
    assert changes({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == "a.b 3 (was 1)"
    assert changes({"a": {}}, {"a": {"b": [1]}}) == "a.b [1] (was none)"
    assert changes({"a": 1}, {"a": 1}) == ""


def test_optimisers_are_drawn_from_their_records(tmp_path):
    from retina_seg.report import OPTIMISERS, draw_optimisers

    put(tmp_path, *THREE)
    assert draw_optimisers(tmp_path) == []
    put(tmp_path, *(record(name, split="val") for name in OPTIMISERS))
    (picture,) = draw_optimisers(tmp_path)
    assert picture.stat().st_size > 5000


def test_megapixels_a_step():
    assert record(batch_size=8, patch_size=256, accumulate=2).megapixels_a_step == 16 * 256**2 / 1e6
    whole = record(batch_size=2, accumulate=1, patch_size="image")
    whole = replace(whole, config={**whole.config, "preprocess": {**whole.config["preprocess"], "fov_diameter": 540}})
    assert whole.megapixels_a_step == 2 * 540**2 / 1e6


def test_what_has_seen_the_test_is_marked_and_last(tmp_path):
    seen = record("seen", shift=0.1)
    seen.variants["plain"]["leaked_images"] = ["drive:01"]
    put(tmp_path, *THREE, seen)
    text = page(read_all(tmp_path))
    assert "| seen ‡ † |" in text
    assert "Each minus net," in text
    assert text.index("| net |") < text.index("| seen ‡ † |")


def test_the_published_page_is_made_of_the_published_records():
    """Nobody edits RESULTS.md by hand: `make results` writes it."""
    root = Path(__file__).resolve().parents[1]
    folder = root / FOLDER
    introduction = (folder / results.INTRODUCTION).read_text(encoding="utf-8")
    study, worse = folder / results.STUDY, degradations.read_all(root / "configs" / "robustness")
    written = study.read_text(encoding="utf-8") if study.exists() else ""
    made = page(read_all(folder), introduction=introduction, worse=worse, study=written)
    assert (root / "RESULTS.md").read_text(encoding="utf-8") == made


def test_a_page_or_table_of_others_stays_as_it_is(tmp_path):
    mine, theirs, worse = tmp_path / "mine", tmp_path / "theirs", tmp_path / "worse"
    put(mine, record("one"))
    put(theirs, record("two"))
    (page, *_) = results.write(mine, worse=worse)
    assert page == mine / "RESULTS.md"
    put(mine, record("another", shift=0.01))
    assert results.write(mine, worse=worse)[0] == page  # of these records, more of them now
    results.write(theirs, worse=worse)
    kept = page.read_bytes()
    with pytest.raises(UserError, match=r"mine/RESULTS\.md: already there.*--overwrite"):
        results.write(theirs, page, worse=worse)
    assert page.read_bytes() == kept
    for name in ("RESULTS.md", "results.csv", "results.json"):
        (theirs / name).write_text("my notes")
        with pytest.raises(UserError, match="already there"):
            results.write(theirs, worse=worse)
        assert (theirs / name).read_text() == "my notes"
        results.write(theirs, worse=worse, overwrite=True)
