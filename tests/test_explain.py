"""What is shown of a dictionary model is what the model does."""

import numpy as np
import pytest
import torch

from retina_seg import explain, sparse
from retina_seg.errors import UserError
from retina_seg.models import build_model

PATCHES = {"count": 7, "side": 5, "scales": [1, 2], "steps": 10, "readout": "ridge"}
CODES = {"atoms": 6, "side": 5, "features": [4] * 6}


def _net(name: str, channels: int = 2, **changed):
    torch.manual_seed(0)
    arguments = {"patch_dictionary": PATCHES, "csc_unet": CODES, "dict_unet": {"count": 6, "side": 5}}[name]
    return build_model(name, channels, 2, arguments={**arguments, **changed}).eval()


def _image(channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((channels, 32, 48)).astype(np.float32)


def test_atoms_are_those_of_the_network():
    first, second = explain.atoms(_net("patch_dictionary"))
    assert (first.scale, second.scale) == (1, 2)
    assert first.image.shape == (7, 2, 5, 5)
    assert first.label.shape == (7, 2, 5, 5)
    for name in ("csc_unet", "dict_unet"):
        (found,) = explain.atoms(_net(name))
        assert found.image.shape == (6, 2, 5, 5)
        assert found.label is None
        np.testing.assert_allclose(np.linalg.norm(found.image.reshape(6, -1), axis=1), 1, atol=1e-5)


def test_label_atoms_are_what_a_code_adds():
    net = _net("patch_dictionary")
    phi = torch.zeros(2, net.read.weight.shape[1])
    block = 2 * 7 + 2
    phi[0, block + 3], phi[1, block + 7 + 3] = 1, 1  # atom 3 of the second scale: a code of 1 and one of -1
    said = net.read(phi).view(2, 2, 5, 5).numpy()
    label = explain.atoms(net)[1].label
    np.testing.assert_allclose(label[3], (said[0] - said[1]) / 2, atol=1e-6)


def test_codes_rebuild_the_image():
    net, image = _net("csc_unet"), _image()
    (found,) = explain.codes(net, image)
    assert found.maps.shape == (6, 16, 24)
    assert found.maps.min() == 0
    assert found.density == pytest.approx((found.maps != 0).mean())
    np.testing.assert_allclose(found.use, found.maps.mean(axis=(1, 2)), rtol=1e-5)
    dictionary = sparse.Convolutional(net.coder.atoms, (32, 48), 2)
    expected = dictionary.synthesise(torch.from_numpy(found.maps)[None])[0]
    np.testing.assert_allclose(found.rebuilt, expected.detach().numpy(), atol=1e-5)


def test_codes_of_patches_and_of_a_first_layer():
    found = explain.codes(_net("patch_dictionary"), _image())
    assert [one.maps.shape for one in found] == [(7, 16, 24)] * 2
    assert found[0].maps.min() < 0 < found[0].maps.max()
    assert found[0].rebuilt is None
    (first,) = explain.codes(_net("dict_unet"), _image())
    assert first.maps.shape == (6, 16, 24)
    assert first.maps.min() == 0


@pytest.mark.parametrize("layers", [1, 2])
def test_votes_of_a_label_dictionary_add_up_to_its_value(layers):
    """Together with what the means of the patches say."""
    net, image = _net("patch_dictionary", layers=layers), _image()
    values = net.values(torch.from_numpy(image)[None])[0]
    weight = net.read.weight.clone()
    for place, target in (((0, 0), 0), ((17, 30), 1), ((31, 47), 1)):
        found = explain.votes(net, image, place, target=target)
        assert [abs(vote.value) for vote in found] == sorted((abs(vote.value) for vote in found), reverse=True)
        for block in (0, 14 + 2 * layers):  # without the atoms' columns only the means speak
            net.read.weight[:, block : block + 14] = 0
        means = net.values(torch.from_numpy(image)[None])[0]
        net.read.weight.copy_(weight)
        total = sum(vote.value for vote in found) + float(means[(target, *place)])
        assert total == pytest.approx(float(values[(target, *place)]), abs=1e-4)


def test_votes_of_an_mlp_add_up_to_its_value_while_the_same_units_are_on():
    """With every unit on, the MLP is linear: what the atoms say is what is lost without their columns."""
    net, image = _net("patch_dictionary", readout="mlp"), _image()
    first = net.read[0]
    with torch.no_grad():
        first.bias += 100
    values = net.values(torch.from_numpy(image)[None])[0]
    votes = {place: explain.votes(net, image, place, target=1) for place in ((0, 0), (17, 30))}
    with torch.no_grad():
        for block in (0, 16):
            first.weight[:, block : block + 14] = 0
    without = net.values(torch.from_numpy(image)[None])[0]
    for place, found in votes.items():
        total = sum(vote.value for vote in found)
        assert total == pytest.approx(float((values - without)[(1, *place)].detach()), rel=1e-3, abs=1e-4)
        assert abs(total) > 1e-3


def test_votes_of_codes_add_up_to_the_rebuilt_pixel():
    net, image = _net("csc_unet"), _image()
    (found,) = explain.codes(net, image)
    for place in ((0, 0), (13, 20), (31, 47)):
        total = sum(vote.value for vote in explain.votes(net, image, place))
        assert total == pytest.approx(float(found.rebuilt[(slice(None), *place)].sum()), abs=1e-4)


def test_the_objective_falls():
    for name in ("csc_unet", "patch_dictionary"):
        curves = explain.objective(_net(name), _image(), steps=30)
        assert set(curves) == {"ista", "fista"}
        assert len(curves["ista"]) == 30
        assert (np.diff(curves["ista"]) <= 1e-4 * curves["ista"][:-1]).all()
        assert curves["fista"][-1] <= curves["ista"][-1] + 1e-5


def test_errors_name_what_was_given():
    with pytest.raises(UserError, match="a UNet has no dictionary"):
        explain.atoms(build_model("unet", 1, 1))
    with pytest.raises(UserError, match=r"pixel \(32, 0\) lies outside"):
        explain.votes(_net("csc_unet"), _image(), (32, 0))
    with pytest.raises(UserError, match="dict_unet do not vote"):
        explain.votes(_net("dict_unet"), _image(), (1, 1))
    with pytest.raises(UserError, match="nothing to iterate"):
        explain.objective(_net("dict_unet"), _image())
