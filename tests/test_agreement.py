"""An annotation scores best on its own photograph, upright."""

import numpy as np
import pytest
from drawn_set import photograph

from retina_seg import agreement, duplicates

SEEDS = range(4)


@pytest.fixture(scope="module")
def views():
    return [duplicates.view(photograph(seed)[0]) for seed in SEEDS]


def reduced(views, vessels_of):
    return {at: agreement.reduce(photograph(seed)[1], views[at]) for at, seed in vessels_of.items()}


def test_vessels_fit_their_own_photograph(views):
    found = agreement.scores(views, reduced(views, {seed: seed for seed in SEEDS}), "vessels")
    assert sorted(found) == list(SEEDS)
    for own, best, _ in found.values():
        assert own > 0.3
        assert best < own / 2


def test_swapped_vessels_fit_each_others_photograph(views):
    found = agreement.scores(views, reduced(views, {0: 1, 1: 0, 2: 2}), "vessels")
    assert found[0][1] > found[0][0]
    assert (found[0][2], found[1][2]) == ("photograph 1", "photograph 0")
    assert found[2][0] > found[2][1]


@pytest.mark.parametrize(
    ("turned", "said"),
    [
        (np.fliplr, "itself mirrored"),
        (np.flipud, "itself upside down"),
        (lambda a: a[::-1, ::-1], "itself turned by 180"),
    ],
)
def test_turned_vessels_are_named(views, turned, said):
    marked = {0: agreement.reduce(np.ascontiguousarray(turned(photograph(0)[1])), views[0])}
    own, best, where = agreement.scores(views, marked, "vessels")[0]
    assert best > own
    assert where == said


def test_empty_annotations_have_no_score(views):
    assert agreement.scores(views, {0: np.zeros(views[0].green.shape, np.float32)}, "vessels") == {}


def test_bright_targets_have_the_opposite_sign(views):
    marked = reduced(views, {0: 0})
    dark, bright = (agreement.scores(views, marked, name)[0][0] for name in ("vessels", "hard_exudates"))
    assert dark > 0 > bright


def test_reduce_keeps_the_marked_share():
    view = duplicates.view(np.repeat(photograph(0)[0], 5, axis=0).repeat(5, axis=1))
    vessels = photograph(0)[1].repeat(5, axis=0).repeat(5, axis=1)
    assert agreement.reduce(vessels, view).mean() == pytest.approx(vessels.mean(), abs=1e-3)
