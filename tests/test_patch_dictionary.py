"""The shallow model: codes, label dictionary and votes against their definitions, and what it learns."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from retina_seg import metrics, phantom, preprocess, sparse
from retina_seg.errors import UserError
from retina_seg.models import Begins, build_model, patch_dictionary
from retina_seg.preprocess import Preprocess

SMALL = {"count": 12, "side": 5, "scales": [1, 2], "steps": 10, "readout": "ridge"}
SETTINGS = Preprocess(colour="green", local_contrast=10)


def _photograph(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    drawing = phantom.draw(seed, width=224, height=232)
    prepared = preprocess.apply(drawing.image, drawing.fov, SETTINGS)
    target = preprocess.apply_to_target(drawing.vessels, prepared.geometry)
    return torch.from_numpy(prepared.image), torch.from_numpy(target[None]), torch.from_numpy(prepared.fov)


@pytest.fixture(scope="module")
def photographs():
    return [_photograph(seed) for seed in range(3)]


def _begun(photographs, **changed):
    torch.manual_seed(0)
    net = build_model("patch_dictionary", 1, 1, arguments={**SMALL, **changed})
    assert isinstance(net, Begins)
    net.begin(photographs, seed=0)
    return net.eval()


def test_codes_are_those_of_the_patches():
    net = build_model("patch_dictionary", 2, 1, arguments=SMALL)
    image = torch.randn(1, 2, 16, 12)
    phi = net.features(image)
    assert phi.shape == (8 * 6, 2 * (2 * 12 + 2))
    padded = F.pad(image, (2, 2, 2, 2))
    patch = padded[0, :, 6:11, 4:9]  # around pixel (6, 4): place 3 * 6 + 2
    means = patch.mean(dim=(1, 2))
    signal = (patch - means[:, None, None]).reshape(1, -1)
    codes = sparse.code(signal, sparse.Patches(net.atoms[0]), net.penalty, 10)[0]
    torch.testing.assert_close(phi[20, :12], codes.clamp(min=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(phi[20, 12:24], (-codes).clamp(min=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(phi[20, 24:26], means)
    chosen = torch.tensor([20, 3])
    torch.testing.assert_close(net.features(image, chosen), phi[chosen])


def test_a_flat_image_has_no_codes():
    net = build_model("patch_dictionary", 1, 1, arguments={**SMALL, "scales": [1]})
    phi = net.features(torch.full((1, 1, 20, 20), 3.0)).view(10, 10, -1)
    assert not phi[2:-2, 2:-2, :24].abs().gt(1e-5).any()
    torch.testing.assert_close(phi[2:-2, 2:-2, 24], torch.full((6, 6), 3.0))


def test_votes_that_agree_are_the_image():
    net = build_model("patch_dictionary", 1, 1, arguments=SMALL)
    image = torch.randn(2, 1, 17, 22)
    patches = F.unfold(image, 5, padding=2, stride=2)
    votes = net._fold(patches, (17, 22)) / net._fold(torch.ones_like(patches), (17, 22))
    torch.testing.assert_close(votes, image)


def test_ridge_is_scikit_learns(photographs):
    net = _begun(photographs)
    features, labels = [], []
    for image, target, fov in photographs:
        inside = fov[::2, ::2].flatten()
        features.append(net.features(image[None])[inside].double().numpy())
        labels.append(net._labels(target)[inside].double().numpy())
    fitted = Ridge(alpha=10.0).fit(np.concatenate(features), np.concatenate(labels))
    np.testing.assert_allclose(net.read.weight.numpy(), fitted.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(net.read.bias.numpy(), fitted.intercept_, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"supervision": "none"},
        {"supervision": "joint"},
        {"supervision": "consistent"},
        {"readout": "mlp", "hidden": 64},
    ],
)
def test_it_finds_drawn_vessels_it_has_not_seen(photographs, changed):
    net = _begun(photographs, **changed)
    image, target, fov = _photograph(7)
    with torch.inference_mode():
        prob = torch.sigmoid(net(image[None]))[0, 0]
    assert metrics.auc(prob.numpy(), target[0].numpy(), fov.numpy()) > 0.85  # .5 is chance
    share = target[0][fov].float().mean()
    assert 0.5 * share < prob[fov].mean() < 2 * share  # its logits are calibrated


def test_the_mlp_is_fitted_again_alike_and_goes_on_learning(photographs, monkeypatch):
    monkeypatch.setattr(patch_dictionary, "_READ", 1025)  # of three photographs 1023, of one 1025: a last batch of one
    chosen = {"readout": "mlp", "hidden": 8}
    first, again, alone = (_begun(some, **chosen) for some in (photographs, photographs, photographs[:1]))
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert all(torch.isfinite(value).all() for value in alone.state_dict().values())
    assert all(parameter.requires_grad for parameter in first.read.parameters())
    deviations = first.norm.running_var.clone()
    first.train()(photographs[0][0][None])
    assert torch.equal(first.norm.running_var, deviations)  # those of `begin`, whatever a step shows


def test_a_second_layer_reads_the_votes_of_the_first(photographs):
    net = _begun(photographs, layers=2)
    alone = _begun(photographs)
    image, _, _ = photographs[0]
    torch.testing.assert_close(net.below.values(image[None]), alone.values(image[None]))
    seen = torch.cat([net.seen(image[None])[0] for image, _, _ in photographs], dim=1)
    inside = torch.cat([fov for _, _, fov in photographs])
    torch.testing.assert_close(net.seen(image[None])[:, :1], image[None])
    assert seen[1][inside].mean().abs() < 1e-4
    assert abs(float(seen[1][inside].std()) - 1) < 1e-4
    with torch.inference_mode():
        torch.testing.assert_close(net.values(image[None]), net._said(net.seen(image[None])))
    assert net.atoms.shape == (2, 12, 2 * 25)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {"slope", "shift"}


def test_what_begins_is_what_is_saved(photographs):
    net, other = _begun(photographs), build_model("patch_dictionary", 1, 1, arguments=SMALL).eval()
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(other(photographs[0][0][None]), net(photographs[0][0][None]), rtol=0, atol=0)
    torch.testing.assert_close(net.gains[1], sparse.Patches(net.atoms[1]).gain())
    torch.testing.assert_close(torch.linalg.vector_norm(net.atoms, dim=2), torch.ones(2, 12))


def test_errors(photographs):
    image, target, fov = photographs[0]
    net = build_model("patch_dictionary", 1, 1, arguments=SMALL)
    with pytest.raises(UserError, match="empty field of view"):
        net.begin([(image, target, torch.zeros_like(fov))], seed=0)
    wrongs: tuple[dict[str, object], ...] = ({"side": 4}, {"scales": []}, {"learner": "magic"}, {"layers": 0})
    wrongs += ({"count": 0}, {"steps": 0}, {"penalty": -1.0}, {"scales": [1.5]}, {"readout": "mlp", "hidden": 0})
    for wrong in (*wrongs, {"supervision": "some"}, {"readout": "forest"}):
        with pytest.raises(UserError, match="patch_dictionary"):
            build_model("patch_dictionary", 1, 1, arguments=wrong)
