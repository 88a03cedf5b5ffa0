"""An annotation fits its own photograph, in place."""

import math

import numpy as np
import pytest
from drawn_set import photograph

from retina_seg import agreement, duplicates

SEEDS = range(3)
SIZE = (300, 290)


def view(seed):
    return duplicates.view(photograph(seed, *SIZE)[0])


def score(seed, vessels, target="vessels"):
    return agreement.fit(view(seed), agreement.reduce(vessels, view(seed)), target)


@pytest.mark.parametrize("seed", SEEDS)
def test_vessels_belong_to_their_own_photograph_only(seed):
    own, other = photograph(seed, *SIZE)[1], photograph((seed + 1) % 3, *SIZE)[1]
    assert agreement.belongs(score(seed, own), "vessels")
    assert score(seed, own) > 2 * score(seed, other)
    assert not agreement.belongs(score(seed, other), "vessels")


TURNED = {
    "mirrored": np.fliplr,
    "upside down": np.flipud,
    "turned by 180 degrees": lambda a: a[::-1, ::-1],
    "moved by 8 pixels": lambda a: np.roll(a, 8, axis=1),
}


@pytest.mark.parametrize("turn", TURNED.values(), ids=TURNED.keys())
def test_vessels_out_of_place_do_not_belong(turn):
    assert not agreement.belongs(score(0, np.ascontiguousarray(turn(photograph(0, *SIZE)[1]))), "vessels")


def test_what_should_be_bright_does_not_belong_where_it_is_dark():
    vessels = photograph(0, *SIZE)[1]
    assert score(0, vessels, "hard_exudates") < 0
    assert not agreement.belongs(score(0, vessels, "hard_exudates"), "hard_exudates")


def test_an_annotated_disc_belongs():
    from retina_seg import phantom

    drawing = phantom.draw(0, width=SIZE[0], height=SIZE[1])
    assert agreement.belongs(score(0, drawing.disc, "disc"), "disc")
    assert not agreement.belongs(score(0, np.fliplr(drawing.disc), "disc"), "disc")


def test_empty_annotations_and_blank_photographs_have_no_score_and_no_verdict():
    nothing = np.zeros(SIZE[::-1], bool)
    assert math.isnan(score(0, nothing))
    blank = duplicates.view(np.full((80, 90, 3), 80, np.uint8))
    some = np.zeros((80, 90), np.float32)
    some[30:40, 20:70] = 1
    assert math.isnan(agreement.fit(blank, some, "vessels"))
    assert agreement.belongs(float("nan"), "vessels")


def test_score_does_not_depend_on_brightness_gain():
    image, vessels = photograph(0, *SIZE)
    darker = duplicates.view((image * 0.6).astype(np.uint8))
    assert agreement.fit(darker, agreement.reduce(vessels, darker), "vessels") == pytest.approx(
        score(0, vessels), rel=0.15
    )


def test_reduce_keeps_the_marked_share():
    large = duplicates.view(photograph(0, *SIZE)[0].repeat(3, axis=0).repeat(3, axis=1))
    vessels = photograph(0, *SIZE)[1].repeat(3, axis=0).repeat(3, axis=1)
    assert agreement.reduce(vessels, large).mean() == pytest.approx(vessels.mean(), abs=1e-3)
