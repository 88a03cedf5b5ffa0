"""Photographs made worse: what is done to them, what is scored and remembered, on drawn photographs."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from retina_seg import datasets, matrices, phantom, protocols, robustness, scoring
from retina_seg.datasets import Sample
from retina_seg.degradations import DEGRADATIONS, Line, read_all, remember
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter
from retina_seg.models import build_model
from retina_seg.robustness import predict, score
from retina_seg.scoring import Remembered

PHOTOGRAPH = phantom.draw(3, width=120, height=112)


class Watching:
    """Stands for a Segmenter: keeps the photographs it is shown."""

    def __init__(self):
        self.seen = []

    def predict(self, image, fov=None, *, judge=True):
        self.seen.append(image)
        prob = image[None, ..., 1].astype(np.float32) / 255
        return Remembered(prob, np.ones(image.shape[:2], bool) if fov is None else fov, ("vessels",))


def shown(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The photograph as the network sees it, and the probabilities that are scored."""
    watching = Watching()
    sample = Sample("x", PHOTOGRAPH.image, {"vessels": PHOTOGRAPH.vessels}, PHOTOGRAPH.fov)
    found = predict(watching, sample, DEGRADATIONS[name])
    assert found.fov is PHOTOGRAPH.fov
    return watching.seen[0], found.prob


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_changes_the_photograph_and_scores_at_its_own_size(name):
    before = PHOTOGRAPH.image.copy()
    image, prob = shown(name)
    assert image.dtype == np.uint8
    assert prob.shape == (1, *PHOTOGRAPH.image.shape[:2])
    assert np.array_equal(PHOTOGRAPH.image, before)
    assert np.array_equal(image, before) == (name == "untouched")


@pytest.mark.parametrize(
    "names", [("blur 1", "blur 1.5", "blur 2"), ("noise 5", "noise 10", "noise 20"), ("JPEG 50", "JPEG 20", "JPEG 10")]
)
def test_what_is_called_worse_is_further_from_the_photograph(names):
    errors = [np.square(shown(name)[0].astype(float) - PHOTOGRAPH.image).mean() for name in names]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_noise_has_its_standard_deviation_and_is_the_same_each_time():
    inside = (PHOTOGRAPH.image > 60) & (PHOTOGRAPH.image < 195)
    image = shown("noise 10")[0]
    assert (image.astype(float) - PHOTOGRAPH.image)[inside].std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(image, shown("noise 10")[0])


def test_the_untouched_score_is_that_of_evaluate_and_nothing_is_scored_twice(
    tiny_run, drawn_drive, tmp_path, monkeypatch
):
    names = ["untouched", "noise 20"]
    lines = score(
        *(tiny_run, "drive", drawn_drive),
        degradations=names,
        device="cpu",
        on_lines=lambda found: remember(tmp_path, found),
    )
    alone = scoring.score(tiny_run, "drive", drawn_drive, device="cpu")["vessels"]
    assert [line.degradation for line in lines] == names
    assert (lines[0].dice, lines[0].auc) == pytest.approx((alone.fov["dice"], alone.fov["auc"]), abs=1e-6)
    assert lines[1].auc != lines[0].auc
    assert (lines[0].config, lines[0].learnt_from, lines[0].seed) == ("tiny", "drive", 0)
    assert (lines[0].n_images, lines[0].leaked) == (20, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-drive-seed0.json"]
    assert read_all(tmp_path) == lines

    def again(*_args, **_more):
        raise AssertionError("scored again")

    monkeypatch.setattr(robustness, "evaluate", again)
    assert score(tiny_run, "drive", drawn_drive, degradations=names, known=lines, device="cpu") == lines
    stale = [replace(line, weights_sha256="other") for line in lines]
    with pytest.raises(AssertionError, match="scored again"):
        score(tiny_run, "drive", drawn_drive, degradations=names, known=stale, device="cpu")


def test_what_a_model_has_seen_is_counted_and_folds_are_refused(tiny_run, drawn_drive):
    (line,) = score(tiny_run, "cross-drive", drawn_drive, degradations=["untouched"], device="cpu")
    assert (line.n_images, line.leaked) == (40, 20)
    assert "| tiny ‡ † |" in "\n".join(matrices.degraded([line]))
    with pytest.raises(UserError, match="stare-5fold has folds"):
        score(tiny_run, "stare-5fold", drawn_drive, device="cpu")


LINE = Line("net", "drive", 1, "a", "drive", "vessels", "noise 10", None, 1.0, "d", 20, 0, 0.7, 0.9)


def test_new_lines_take_the_place_of_the_same_measurement(tmp_path):
    remember(tmp_path, [LINE, replace(LINE, penalty_factor=2.0)])
    remember(tmp_path, [replace(LINE, weights_sha256="b", dice=0.8)])
    assert [(one.penalty_factor, one.dice) for one in read_all(tmp_path)] == [(1.0, 0.8), (2.0, 0.7)]
    remember(tmp_path, [replace(LINE, learnt_from="drive-5photographs"), replace(LINE, seed=None, learnt_from="")])
    names = {"net-drive-seed1.json", "net-drive-5photographs-seed1.json", "net.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("change", [{"dice": None}, {"dice": "0.7"}, {"degradation": "fog"}, {"penalty_factor": None}])
def test_damaged_lines_are_named(tmp_path, change):
    (tmp_path / "broken.json").write_text(json.dumps([{**asdict(LINE), **change}]))
    with pytest.raises(UserError, match=r"broken\.json holds no scores"):
        read_all(tmp_path)


def test_codes_are_found_in_another_way_where_a_network_has_some(dictionary_run, tiny_run, drawn_drive):
    names = ["untouched"]
    (own,) = score(dictionary_run, "drive", drawn_drive, degradations=names, device="cpu")
    (sparser,) = score(dictionary_run, "drive", drawn_drive, degradations=names, penalty_factor=3, device="cpu")
    (longer,) = score(dictionary_run, "drive", drawn_drive, degradations=names, steps=20, device="cpu")
    assert own.setting == (None, 1.0)
    assert (sparser.setting, longer.setting) == ((None, 3), (20, 1.0))
    assert len({own.auc, sparser.auc, longer.auc}) == 3
    with pytest.raises(UserError, match="tiny is a unet: it has no sparse codes"):
        score(tiny_run, "drive", drawn_drive, degradations=names, steps=20, device="cpu")
    for factor in (0, math.nan, math.inf):
        with pytest.raises(UserError, match="above 0"):
            score(dictionary_run, "drive", drawn_drive, degradations=names, penalty_factor=factor, device="cpu")
    with pytest.raises(UserError, match=r"unknown degradation 'fog': expected some of untouched, blur 1"):
        score(tiny_run, "drive", drawn_drive, degradations=["fog"], device="cpu")


@pytest.mark.parametrize("name", ["csc_unet", "patch_dictionary"])
def test_higher_penalties_leave_fewer_codes(name):
    torch.manual_seed(0)
    net = build_model(name, 1, 1).eval()
    image = torch.randn(1, 1, 64, 64)

    def active() -> int:
        codes = net.coder(image)[0] if name == "csc_unet" else net.features(image)[:, : 2 * net.count]
        return int((codes > 0).sum())

    before = active()
    net.recode(None, 2)
    fewer = active()
    net.recode(None, 1e6)
    assert before > fewer > active() == 0
    net.recode(None, 1)
    assert active() == before


def test_the_page_shows_what_was_made_worse():
    lines = [
        replace(LINE, seed=seed, weights_sha256=str(seed), degradation=name, steps=steps, dice=0.7 + seed / 100)
        for name in ("noise 10", "untouched")
        for steps in (None, 10)
        for seed in range(3 if steps is None else 1)
    ]
    text = "\n".join(matrices.degraded(lines))
    assert "| model | untouched | noise 10 |" in text
    assert "| net | 0.7100 ± 0.0100 | 0.7100 ± 0.0100 |" in text
    assert "| net, 10 iterations † | 0.7000 | 0.7000 |" in text
    assert matrices.degraded([]) == []
    other = replace(LINE, learnt_from="stare-10")
    assert "| net from drive † |" in "\n".join(matrices.degraded([LINE, other]))
    with pytest.raises(
        UserError, match=r"net-drive-seed1\.json and net-stare-10-seed1\.json .* not scored on the same"
    ):
        matrices.degraded([LINE, replace(other, data_sha256="e")])


def test_a_real_photograph_made_worse_scores_lower(data_root):
    row = protocols.cases("drive")[0][1]
    sample = datasets.load(row, data_root)
    segmenter = Segmenter.from_pretrained("vessels-small", "cpu")
    found = {}
    for name in ("untouched", "noise 20", "JPEG 10", "blur 2"):
        mask = predict(segmenter, sample, DEGRADATIONS[name]).prob[0] >= segmenter.card.thresholds["vessels"]
        truth = sample.targets["vessels"]
        found[name] = 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    assert found["untouched"] > 0.75
    assert all(found[name] < found["untouched"] - 0.02 for name in ("noise 20", "JPEG 10", "blur 2"))
