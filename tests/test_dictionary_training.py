"""The models of dictionaries through the whole path: configuration, training, resuming, scores."""

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from retina_seg import checkpoint, loop, scoring, train
from retina_seg.config import load_config
from retina_seg.errors import Interrupted
from retina_seg.inference import Segmenter
from retina_seg.models import OwnLoss, build_model

DRAWN = ["preprocess.colour=green", "preprocess.local_contrast=10"]
PATCHES = "model={name: patch_dictionary, arguments: {count: 12, side: 5, scales: [1, 2], steps: 8, hidden: 16}}"
CODES = "model={name: csc_unet, arguments: {atoms: 6, side: 5, steps: 3, features: [4, 4, 4, 4, 4, 4]}}"


def _first_layer(mode: str) -> str:
    return f"model={{name: dict_unet, arguments: {{mode: {mode}, count: 6, side: 5, features: [4, 4, 4, 4, 4, 4]}}}}"


def _weights(run) -> dict[str, torch.Tensor]:
    return load_file(run / checkpoint.WEIGHTS)


@pytest.mark.parametrize(
    "model", [PATCHES, CODES, _first_layer("initialised")], ids=lambda text: text.split(",")[0][13:]
)
def test_trained_stopped_gone_on_with_and_scored(model, tiny_config, drawn_drive, tmp_path):
    """A resumed run does not learn its dictionary again, and has the weights of an uninterrupted one."""
    config = load_config(tiny_config, [*DRAWN, model, "training.validate_every=2", "training.batch_size=4"])
    train.fit(config, tmp_path / "whole", drawn_drive, device="cpu")
    sent, told = [], []

    def stop(progress: loop.Progress) -> None:
        told.append(progress.describe())
        if progress.step == 3 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train.fit(config, tmp_path / "run", drawn_drive, device="cpu", progress=stop)
    assert ("learning the dictionary" in told) == ("csc" not in model)
    told.clear()
    card = train.fit(config, tmp_path / "run", drawn_drive, resume=True, device="cpu", progress=stop)
    assert "learning the dictionary" not in told
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "run")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert card.preprocess["local_contrast"] == 10
    report = scoring.score(tmp_path / "run", "drive", drawn_drive, device="cpu")["vessels"]
    assert np.isfinite(report.fov["auc"])
    assert report.leaked_images == []


def test_frozen_atoms_stay_and_initialised_ones_begin_as_the_same(tiny_config, drawn_drive, tmp_path):
    atoms = {}
    for mode in ("frozen", "initialised", "random"):
        for steps in (1, 6):
            settings = [*DRAWN, _first_layer(mode), f"training.steps={steps}", "training.warmup_steps=0"]
            run = tmp_path / f"{mode}{steps}"
            train.fit(load_config(tiny_config, settings), run, drawn_drive, device="cpu")
            atoms[mode, steps] = _weights(run)["atoms"]
    assert torch.equal(atoms["frozen", 1], atoms["frozen", 6])
    assert not torch.equal(atoms["initialised", 1], atoms["initialised", 6])
    begun = []
    photographs = [(torch.rand(1, 40, 40), torch.rand(1, 40, 40), torch.ones(40, 40, dtype=torch.bool))]
    for mode in ("frozen", "initialised"):
        net = build_model("dict_unet", 1, 1, arguments={"mode": mode, "count": 4, "side": 3})
        net.begin(photographs, seed=0)
        begun.append(net.atoms.detach())
    assert torch.equal(*begun)
    # One step of Adam with its averaged weights moves no atom far.
    torch.testing.assert_close(atoms["initialised", 1], atoms["frozen", 1], rtol=0, atol=0.03)
    assert (atoms["random", 1] - atoms["frozen", 1]).abs().max() > 0.1


def test_the_reconstruction_is_a_part_of_the_loss(tiny_config, drawn_drive, tmp_path):
    """With a heavy misfit the atoms rebuild the photographs better than without."""
    misfit = {}
    for weight in (0.0, 20.0):
        changed = CODES.replace("steps: 3", f"steps: 3, reconstruction_weight: {weight}")
        settings = [*DRAWN, changed, "training.steps=25", "training.ema=0", "training.validate_every=25"]
        run = tmp_path / str(weight)
        train.fit(load_config(tiny_config, settings), run, drawn_drive, device="cpu")
        net = Segmenter.from_pretrained(run, "cpu").net
        assert isinstance(net, OwnLoss)
        image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
        image = (image - image.mean()) / image.std()
        with torch.no_grad():
            misfit[weight] = float((net.coder(image)[1] - image).square().mean())
    assert misfit[20.0] < misfit[0.0]
