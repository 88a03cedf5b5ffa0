"""The protocol table against PROTOCOLS' rules, and the leak guard."""

from dataclasses import replace

import pytest

from retina_seg import datasets
from retina_seg.errors import UserError
from retina_seg.manifest import Row
from retina_seg.protocols import PROTOCOLS, cases, columns, cross, leaks


def row(name: str, subject: str, dataset: str = "stare") -> Row:
    return Row(dataset, name, subject, "", f"{name}.png", {}, "", {}, {}, 9, 9, f"hash of {dataset} {name}")


ROWS = [row("1", "a"), row("2", "a"), row("3", "b"), row("4", "c")]


@pytest.fixture
def _drawn_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "rows", lambda name: ROWS if name == "stare" else [row(k, "a", name) for k in "12"])


@pytest.mark.usefixtures("_drawn_sets")
def test_a_leak_is_the_image_its_subject_its_copy_or_its_pixels() -> None:
    def leaked(scored: list[Row], *trained_on: str) -> list[str]:
        return leaks(scored, trained_on)

    assert leaked(ROWS) == []
    assert leaked(ROWS, "stare:4") == ["stare:4"]
    assert leaked(ROWS, "stare:1") == ["stare:1", "stare:2"]
    assert leaked(ROWS, "drive:1", "drive:2") == [], "subjects of different sets are different people"
    assert leaked(ROWS, "mine:1", "odd name") == []
    copy = replace(ROWS[2], same_photograph=("drive:2",))
    assert leaked([copy], "drive:2") == ["stare:3"]
    assert leaked([replace(ROWS[2], same_eye=("drive:2",))], "drive:2") == ["stare:3"]
    pixels = replace(ROWS[2], pixel_sha256="hash of drive 1")
    assert leaked([pixels], "drive:1") == ["stare:3"]
    assert leaked([replace(ROWS[2], pixel_sha256="")], "drive:1") == []
    own = [row("photo", "x", "mine")]
    assert leaked(own, "mine:photo") == ["mine:photo"]


@pytest.mark.usefixtures("_drawn_sets")
def test_a_copy_noted_on_the_training_side_only_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = [replace(row("1", "a", "drive"), same_photograph=("stare:4",), same_eye=("stare:3",))]
    monkeypatch.setattr(datasets, "rows", lambda name: noted if name == "drive" else ROWS)
    assert leaks(ROWS, {"drive:1"}) == ["stare:3", "stare:4"]


def test_unknown_names_are_listed() -> None:
    with pytest.raises(UserError, match=r"unknown protocol 'driv': expected one of drive, stare-10"):
        cases("driv")
    with pytest.raises(UserError, match="no images in split 'tests': expected train, val or test"):
        cases("drive", "tests")
    with pytest.raises(UserError, match="no images in split 'train'"):
        cases("cross-drive", "train")


def test_columns_are_those_of_the_manifests() -> None:
    assert columns("drive") == {0: "drive"}
    assert columns("stare-5fold") == {k: f"stare-5fold/{k}" for k in range(1, 6)}
    assert columns("cross-drive") == {}
    for name, plan in PROTOCOLS.items():
        known = {column for dataset in plan.datasets for column in datasets.DATASETS[dataset].protocols}
        assert set(columns(name).values()) <= known
    with pytest.raises(UserError, match="unknown protocol"):
        columns("driv")


def test_cross_scores_sets_that_were_not_learnt_from() -> None:
    pairs = cross()
    assert len(pairs) == len(set(pairs)) == 9
    assert [len(sources) for sources, _ in pairs] == [1] * 6 + [2] * 3
    for sources, target in pairs:
        learnt = [row for source in sources for split in ("train", "val") for _, row in cases(source, split)]
        scored = [row for _, row in cases(target)]
        assert {row.dataset for row in learnt}.isdisjoint(row.dataset for row in scored)
        assert leaks(scored, {row.key for row in learnt}) == []
    assert (("drive", "stare-10"), "cross-chase") in pairs


def test_drive_is_the_official_split() -> None:
    by_split = {split: {one.id for _, one in cases("drive", split)} for split in ("train", "val", "test")}
    assert by_split["test"] == {f"{k:02}" for k in range(1, 21)}
    assert by_split["val"] == {"37", "38", "39", "40"}
    assert by_split["train"] == {str(k) for k in range(21, 37)}
    assert {fold for fold, _ in cases("drive")} == {0}
    assert len(cases("cross-drive")) == 40


@pytest.mark.parametrize(
    ("name", "n_train", "n_test"),
    [("stare-10", 10, 10), ("chase-20-8", 20, 8), ("chase-8-20", 8, 20), ("drive", 20, 20)],
)
def test_a_protocol_splits_subjects(name: str, n_train: int, n_test: int) -> None:
    test = [one for _, one in cases(name)]
    columns = PROTOCOLS[name].column
    everything = [one for dataset in PROTOCOLS[name].datasets for one in datasets.rows(dataset)]
    train = {one.key for one in everything if one.splits.get(columns) in ("train", "val")}
    assert len(test) == n_test
    assert len(train) == n_train
    assert leaks(test, train) == []


@pytest.mark.parametrize(("name", "sizes"), [("stare-5fold", [4] * 5), ("chase-4fold", [7] * 4)])
def test_the_folds_test_every_image_once(name: str, sizes: list[int]) -> None:
    plan = PROTOCOLS[name]
    folded = cases(name)
    everything = datasets.rows(plan.datasets[0])
    assert sorted(one.key for _, one in folded) == sorted(one.key for one in everything)
    assert [sum(fold == k for fold, _ in folded) for k in range(1, plan.folds + 1)] == sizes
    shared: dict[str, dict[int, set[str]]] = {"train": {}, "val": {}}
    for k in range(1, plan.folds + 1):
        parts = {part: {one.key for fold, one in cases(name, part) if fold == k} for part in ("train", "val")}
        test = [one for fold, one in folded if fold == k]
        assert parts["train"] | parts["val"] == {one.key for one in everything} - {one.key for one in test}
        for part, keys in parts.items():
            shared[part][k] = {one.subject for one in test if one.key in leaks(test, keys)}
    if name == "chase-4fold":  # the published folds part the eyes of two children, as the note says
        assert shared["train"] == {1: set(), 2: {"04"}, 3: set(), 4: {"11"}}
        assert shared["val"] == {1: {"04"}, 2: set(), 3: {"11"}, 4: set()}
        assert "04 and 11" in plan.note
    else:
        assert not any(subjects for folds in shared.values() for subjects in folds.values())
