"""Subgroups and Simpson's paradox: the kidney stones of Charig 1986, and what must not warn."""

import math
from dataclasses import replace

import numpy as np
import pytest

from retina_seg import datasets, subgroups
from retina_seg.metrics import Array
from retina_seg.subgroups import Subgroup

STONES = ("small stones", "large stones")
CHARIG = ([81, 192], [87, 263], [234, 55], [270, 80])  # Charig et al., BMJ 1986: open surgery, percutaneous


def test_subgroups_are_in_natural_order_and_the_unnamed_last() -> None:
    groups = ["camera 10", "", "camera 2", "camera 2", "zeiss", "camera 2", ""]
    found = subgroups.by_subgroup(np.array([True, True, True, False, False, False, False]), groups)
    assert found == [
        Subgroup("camera 2", 3, pytest.approx(1 / 3)),
        Subgroup("camera 10", 1, 1.0),
        Subgroup("zeiss", 1, 0.0),
        Subgroup("not given", 2, 0.5),
    ]
    assert subgroups.by_subgroup([], []) == []


def test_undefined_scores_are_not_counted() -> None:
    found = subgroups.by_subgroup(np.array([0.5, np.nan, 0.7, np.nan]), ["a", "a", "a", "b"])
    assert found[0] == Subgroup("a", 2, pytest.approx(0.6))
    assert (found[1].name, found[1].count) == ("b", 0)
    assert math.isnan(found[1].mean)


def test_the_kidney_stones_are_a_reversal() -> None:
    warning = subgroups.simpson(*CHARIG, STONES, models=("surgery", "puncture"))
    assert warning is not None
    for figure in ("273/350 = 78.0 %", "289/350 = 82.6 %", "surgery is worse than puncture in total"):
        assert figure in warning
    assert "small stones (surgery 81/87 = 93.1 %, puncture 234/270 = 86.7 %)" in warning
    assert "large stones (surgery 192/263 = 73.0 %, puncture 55/80 = 68.8 %)" in warning
    assert "but better in every subgroup" in warning
    assert "no examples" not in warning
    mirrored = subgroups.simpson(*CHARIG[2:], *CHARIG[:2], STONES)
    assert mirrored is not None
    assert "A is better than B in total" in mirrored
    assert "but worse in every subgroup" in mirrored


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (([81, 192], [87, 263]), ([200, 40], [270, 80])),  # better everywhere and in total
        (([75, 192], [87, 263]), ([234, 55], [270, 80])),  # worse in one subgroup and in total
        (([78, 192], [90, 263]), ([234, 55], [270, 80])),  # ties in one subgroup (.8667)
        (([81, 192], [87, 263]), ([273, 0], [350, 0])),  # ties in total
        (([81, 0], [87, 0]), ([0, 55], [0, 80])),  # no subgroup in common
        (([0, 0], [0, 0]), ([234, 55], [270, 80])),  # no examples of one
    ],
)
def test_no_warning_without_a_reversal_in_every_subgroup(
    a: tuple[list[int], list[int]], b: tuple[list[int], list[int]]
) -> None:
    assert subgroups.simpson(*a, *b, STONES) is None
    assert subgroups.simpson(*b, *a, STONES) is None


def test_a_subgroup_of_one_model_only_is_named_and_not_compared() -> None:
    a, all_a, b, all_b = CHARIG
    warning = subgroups.simpson([*a, 1, 0], [*all_a, 4, 0], [*b, 0, 0], [*all_b, 0, 0], [*STONES, "unknown", "nobody"])
    assert warning is not None
    assert "one of the two has no examples in unknown (A 1/4 = 25.0 %, B none)" in warning
    assert "274/354" in warning  # still in the total
    assert "nobody" not in warning
    assert subgroups.simpson([*a, 200], [*all_a, 200], [*b, 0], [*all_b, 0], [*STONES, "x"]) is None  # lifts the total
    assert subgroups.simpson([], [], [], [], []) is None


def spread_out(right: list[int], every: list[int]) -> tuple[Array, list[str]]:
    """Answers one by one, in a mixed order."""
    correct = np.concatenate([np.arange(n) < k for k, n in zip(right, every, strict=True)])
    order = np.random.default_rng(0).permutation(len(correct))
    return correct[order], np.repeat(STONES, every)[order].tolist()


def test_a_reversal_is_found_from_the_answers() -> None:
    (one, groups_one), (other, groups_other) = spread_out(*CHARIG[:2]), spread_out(*CHARIG[2:])
    expected = subgroups.simpson(*(count[::-1] for count in CHARIG), STONES[::-1])
    assert expected is not None
    assert subgroups.simpson_of(one, other, groups_one, groups_other) == expected  # in natural order
    unnamed = [["" if name == STONES[0] else name for name in groups] for groups in (groups_one, groups_other)]
    warning = subgroups.simpson_of(one, other, *unnamed)
    assert warning == expected.replace(STONES[0], "not given")


def test_models_with_the_same_examples_are_never_reversed_until_answers_go_missing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        groups = rng.choice(["a", "b", "c"], 40).tolist()
        one, other = rng.random((2, 40)) < rng.random((2, 1))
        assert subgroups.simpson_of(one, other, groups, groups) is None
    groups = ["easy"] * 10 + ["hard"] * 10
    one, other = (np.tile(np.arange(10), 2) < np.repeat(right, 10) for right in ([9, 3], [8, 2]))
    assert subgroups.simpson_of(one, other, groups, groups) is None
    warning = subgroups.simpson_of(one, other[:10], groups, groups[:10])  # B gave up on the hard ones
    assert warning is not None
    assert "hard (A 3/10 = 30.0 %, B none)" in warning


def test_a_pooled_score_can_be_reversed_on_the_same_photographs() -> None:
    """Of two sets with 100 marked pixels each; B paints 380 pixels where A, less right there, paints 20."""
    total, groups = (220 / 311, 380 / 670), {"s1": (180 / 191, 180 / 190), "s2": (40 / 120, 200 / 480)}
    warning = subgroups.turned_round(total, groups, score="Dice", models=("few", "many"))
    assert warning is not None
    assert "few is better than many by Dice of all pixels (few 0.7074, many 0.5672) but worse in every" in warning
    assert "s1 (few 0.9424, many 0.9474); s2 (few 0.3333, many 0.4167)" in warning
    swapped = subgroups.turned_round(total[::-1], {name: pair[::-1] for name, pair in groups.items()}, score="Dice")
    assert swapped is not None
    assert "A is worse than B" in swapped
    unknown = {**groups, "s3": (float("nan"), 0.5)}  # nothing is marked there
    assert subgroups.turned_round(total, unknown, score="Dice", models=("few", "many")) == warning
    for changed in ({**groups, "s3": (0.5, 0.4)}, {**groups, "s3": (0.5, 0.5)}, {}, {"s3": unknown["s3"]}):
        assert subgroups.turned_round(total, changed, score="Dice") is None
    assert subgroups.turned_round((0.5, 0.5), groups, score="Dice") is None
    assert subgroups.turned_round((float("nan"), 0.5), groups, score="Dice") is None


# --- columns


def test_the_side_of_an_eye_is_told_by_the_manifest_or_by_where_the_disc_lies() -> None:
    by_name = {name: {row.id: row for row in datasets.rows(name)} for name in ("chase_db1", "idrid_grade")}
    assert {subgroups.eye_of(row) for row in by_name["chase_db1"].values()} == {"left", "right"}
    row = by_name["idrid_grade"]["test/IDRiD_001"]
    assert subgroups.columns_of(row)["eye"] == "left"  # disc at 651, fovea at 1914
    assert subgroups.columns_of(by_name["idrid_grade"]["test/IDRiD_002"])["eye"] == "right"
    assert subgroups.eye_of(replace(row, labels={})) == ""


def test_what_another_set_says_of_the_same_photograph_is_known_too() -> None:
    known = {row.key: row for name in ("idrid_seg", "idrid_grade") for row in datasets.rows(name)}
    row = next(row for row in datasets.rows("idrid_seg") if row.id == "IDRiD_01")
    said, graded = subgroups.columns_of(row, known), known["idrid_grade:train/IDRiD_102"]
    assert said["set"] == "idrid_seg"
    assert (said["dr_grade"], said["eye"]) == (graded.labels["dr_grade"], subgroups.eye_of(graded))
    assert "dr_grade" not in subgroups.columns_of(row)


# --- inputs


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to the total"):
        subgroups.simpson([3], [2], [1], [2], ["a"])
    with pytest.raises(ValueError, match="four lists of 1"):
        subgroups.simpson([3, 1], [4, 2], [1, 1], [2, 2], ["a"])
    with pytest.raises(TypeError, match="correct is float64"):
        subgroups.simpson_of(np.array([0.5]), np.array([True]), ["a"], ["a"])
    with pytest.raises(ValueError, match="lengths differ"):
        subgroups.by_subgroup([0.5, 1.0], ["a"])
