"""What must hold on a GPU; skipped where PyTorch sees none."""

import signal

import numpy as np
import pytest
import torch

from retina_seg import checkpoint, phantom, train, zoo
from retina_seg.classify import inference as classifiers
from retina_seg.classify import training as classify_training
from retina_seg.classify.config import ClassifyConfig
from retina_seg.config import load_config
from retina_seg.errors import Interrupted
from retina_seg.inference import Segmenter
from retina_seg.models import MODELS, build_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")


@pytest.mark.parametrize("name", zoo.names())
def test_a_packaged_model_finds_the_same_on_both(name):
    image = phantom.draw(1, width=600, height=560).image
    on_cpu, on_gpu = (Segmenter.from_pretrained(name, device).predict(image) for device in ("cpu", "cuda"))
    difference = np.abs(on_cpu.prob - on_gpu.prob)
    assert difference.max() < 0.03
    assert difference.mean() < 1e-3
    assert np.mean(on_cpu.mask != on_gpu.mask) < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_the_same_outputs_and_gradients_on_both(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    net = build_model(name, 3, 1, pretrained=False).eval()
    image = torch.rand(1, 3, 64, 64)
    found = []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        logits = net(image.to(device))
        logits.square().mean().backward()
        gradients = [p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None]
        found.append((logits.detach().cpu(), torch.cat(gradients) if gradients else torch.zeros(1)))
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.linalg.norm(on_gpu - on_cpu) <= 1e-3 * torch.linalg.norm(on_cpu)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_learns_in_every_precision(precision, tiny_config, drawn_drive, tmp_path):
    settings = ["training.steps=60", "training.validate_every=30", f"training.precision={precision}"]
    card = train.fit(load_config(tiny_config, settings), tmp_path / "run", drawn_drive, device="cuda")
    log = checkpoint.read_log(tmp_path / "run")
    assert card.training["device"] == "cuda"
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["auc"] > 0.6


def test_a_run_from_the_gpu_is_gone_on_with_on_the_cpu(tiny_config, drawn_drive, tmp_path):
    config = load_config(tiny_config, ["training.steps=8", "training.validate_every=4"])

    def stop(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train.fit(config, tmp_path / "run", drawn_drive, device="cuda", progress=stop)
    card = train.fit(config, tmp_path / "run", drawn_drive, resume=True, device="cpu")
    assert card.training["steps"] == 8
    assert Segmenter.from_pretrained(tmp_path / "run", "cpu").card.parameters == card.parameters


def test_a_classifier_learns_and_answers_the_same_on_both(tmp_path):
    config = ClassifyConfig.model_validate(
        {
            "name": "digits",
            "data": {"task": "digits", "size": 28},
            "model": "lenet_5",
            "training": {"steps": 100, "batch_size": 32, "validate_every": 100},
        }
    )
    classify_training.fit(config, tmp_path / "run", tmp_path, device="cuda")
    image = np.zeros((28, 28, 3), np.uint8)
    image[4:24, 12:16] = 255
    on_cpu, on_gpu = (
        classifiers.Classifier.from_pretrained(tmp_path / "run", device).predict(image) for device in ("cpu", "cuda")
    )
    for one, other in zip(on_cpu.answers, on_gpu.answers, strict=True):
        assert one.answer == other.answer
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-2)
