import numpy as np
import pytest

from retina_seg import datasets, metrics, train
from retina_seg.config import load_config
from retina_seg.ensemble import join
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter
from retina_seg.photographs import rows_of


@pytest.fixture(scope="module")
def runs(tiny_config, tiny_run, drawn_drive, tmp_path_factory):
    """Two finished runs that differ in their seed."""
    other = tmp_path_factory.mktemp("runs") / "other"
    train.fit(load_config(tiny_config, ["seed=1"]), other, drawn_drive, device="cpu")
    return tiny_run, other


@pytest.fixture(scope="module")
def joined(runs, drawn_drive, tmp_path_factory):
    out = tmp_path_factory.mktemp("joined") / "both"
    join(runs, out, drawn_drive, device="cpu")
    return out


def test_an_ensemble_averages_the_probabilities_of_its_members(runs, joined, drawn_drive):
    row = rows_of(["drive"], ["val"])[0]
    sample = datasets.load(row, drawn_drive)
    probs = [Segmenter.from_pretrained(run, "cpu").predict(sample.image, sample.fov).prob for run in (*runs, joined)]
    np.testing.assert_allclose(probs[2], (probs[0] + probs[1]) / 2, atol=1e-6)


def test_its_threshold_is_chosen_on_the_images_of_its_members(runs, joined, drawn_drive):
    segmenter = Segmenter.from_pretrained(joined, "cpu")
    members = [Segmenter.from_pretrained(run, "cpu").card for run in runs]
    card = segmenter.card
    assert card.name == "both"
    assert card.training["images"] == members[0].training["images"]
    assert card.threshold_source == members[0].threshold_source
    assert card.parameters == 2 * members[0].parameters
    assert [member["weights_sha256"] for member in card.training["members"]] == [m.weights_sha256 for m in members]
    prob, truth = [], []
    for row in rows_of(["drive"], ["val"]):
        sample = datasets.load(row, drawn_drive)
        prob.append(segmenter.predict(sample.image, sample.fov).prob[0][sample.fov])
        truth.append(sample.targets["vessels"][sample.fov])
    prob, truth = np.concatenate(prob), np.concatenate(truth)
    best = max(metrics.dice(prob >= threshold, truth) for threshold in np.linspace(0.01, 0.99, 99))
    assert metrics.dice(prob >= card.thresholds["vessels"], truth) > best - 0.002


def test_what_cannot_be_joined(runs, joined, tiny_config, drawn_drive, tmp_path):
    with pytest.raises(UserError, match="two models or more"):
        join(runs[:1], tmp_path / "out", drawn_drive)
    with pytest.raises(UserError, match="already holds"):
        join(runs, joined, drawn_drive)
    with pytest.raises(UserError, match=r"differs from .* in its"):
        join([runs[0], joined], tmp_path / "out", drawn_drive)
    with pytest.raises(UserError, match="same weights"):
        join([runs[0], runs[0]], tmp_path / "out", drawn_drive)
    other = tmp_path / "other"
    train.fit(load_config(tiny_config, ["data.threshold_on=fit"]), other, drawn_drive, device="cpu")
    with pytest.raises(UserError, match="its threshold chosen on other images"):
        join([runs[0], other], tmp_path / "out", drawn_drive)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="already holds"):
        train.fit(load_config(tiny_config), joined, drawn_drive, device="cpu")
