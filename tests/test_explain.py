"""What is shown of a model is what the model does."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM
from torch import nn

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
        assert found.penalty.shape == (6,)
    np.testing.assert_allclose(explain.atoms(_net("csc_unet"))[0].penalty, 0.3, rtol=1e-5)
    assert first.penalty is None


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


def test_codes_outside_the_field_of_view_are_not_counted():
    fov = np.zeros((32, 48), bool)
    fov[:, 24:] = True
    (found,) = explain.codes(_net("csc_unet"), _image(), fov)
    half = found.maps[:, :, 12:]
    assert found.density == pytest.approx((half != 0).mean())
    np.testing.assert_allclose(found.use, half.mean(axis=(1, 2)), rtol=1e-5)


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
        assert explain.iterations(_net(name)) > 1
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


class _Ours(nn.Module):
    """A convolution that is no nn.Conv2d."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 1, 3, 5))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight, padding=(1, 2))


def _classifier(head: nn.Module | None = None) -> nn.Sequential:
    """Two blocks of 3 and 4 maps of 2 channels, and 3 outputs; layers work in place where they can."""
    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.MaxPool2d(2)),
    )
    head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4, 3))
    return nn.Sequential(OrderedDict(body=body, head=head)).eval()


def _filled(conv: nn.Conv2d, weights: object) -> nn.Conv2d:
    """The convolution without bias with these weights."""
    with torch.no_grad():
        conv.weight.copy_(torch.as_tensor(weights))
    return conv


def test_filters_are_a_copy_of_the_first_convolutions_weights():
    net = _classifier()
    found = explain.filters(net)
    np.testing.assert_array_equal(found, net.body[0].weight.detach().numpy())
    found[:] = 7
    assert net.body[0].weight.abs().max() < 1
    ours = nn.Sequential(nn.ConvTranspose2d(1, 1, 2), _Ours(), nn.Conv2d(2, 1, 1))
    assert explain.filters(ours).shape == (2, 1, 3, 5)


def test_filters_of_a_layer_that_reads_all_pixels_are_pictures():
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 24))
    found = explain.filters(net, (2, 3, 4))
    assert found.shape == (5, 2, 3, 4)
    image = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    expected = net[1](torch.from_numpy(image).flatten()) - net[1].bias
    np.testing.assert_allclose((found * image).sum(axis=(1, 2, 3)), expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    for shape in (None, (2, 3, 5), (24, 1, 1)):
        with pytest.raises(UserError, match="has no filters"):
            explain.filters(net, shape)


def test_feature_maps_are_the_ends_of_the_blocks():
    net, image = _classifier(), _image()
    found = explain.feature_maps(net, image)
    assert {name: maps.shape for name, maps in found.items()} == {"body.2": (3, 32, 48), "body.5": (4, 16, 24)}
    for name, maps in found.items():
        expected = net.body[: int(name[-1]) + 1](torch.from_numpy(image)[None])[0]
        np.testing.assert_allclose(maps, expected.detach().numpy(), atol=1e-6)
    up = nn.Sequential(net.body, nn.Upsample(scale_factor=4), nn.Conv2d(4, 5, 1))
    shapes = [maps.shape for maps in explain.feature_maps(up, image).values()]
    assert shapes == [(3, 32, 48), (4, 16, 24), (5, 32, 48)]
    assert explain.feature_maps(nn.Sequential(nn.Flatten(), nn.Linear(2 * 32 * 48, 3)), image) == {}


def test_the_images_that_excite_a_unit_are_those_with_its_pattern():
    pattern = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    conv = _filled(nn.Conv2d(1, 2, 3, padding=1, bias=False), torch.stack([-pattern, pattern])[:, None])
    net = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2 * 12 * 15, 1))
    images = np.random.default_rng(0).uniform(-0.1, 0.1, (5, 1, 12, 15)).astype(np.float32)
    images[2] = 0  # behind the ReLU nothing moves the unit
    planted = {3: (1, 7, 4), 0: (0.5, 0, 12), 4: (0.3, 9, 0)}  # image: strength and place
    for number, (strength, y, x) in planted.items():
        images[number, 0, y : y + 3, x : x + 3] = strength * pattern.numpy()
    found = explain.activating(net, images, 1)
    assert [one.image for one in found] == [3, 0, 4, 1]
    for one in found[:3]:
        strength, y, x = planted[one.image]
        assert one.place == (y, x)
        assert one.value == pytest.approx(9 * strength)
        np.testing.assert_allclose(one.patch[0], strength * pattern.numpy())
    assert len(explain.activating(net, images, 1, count=2)) == 2
    before_the_relu = explain.activating(net, images, 1, layer="0")
    assert [one.image for one in before_the_relu] == [3, 0, 4, 1, 2]


def test_a_patch_is_what_the_unit_sees():
    """Two 3 x 3 convolutions about pooling by 2 see 8 x 8 pixels, at the border fewer; there a patch moves inside."""
    first, second = nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Conv2d(1, 1, 3, padding=1, bias=False)
    net = nn.Sequential(_filled(first, torch.ones(3, 3)), nn.AvgPool2d(2), _filled(second, torch.ones(3, 3)))
    images = np.zeros((2, 1, 20, 24), np.float32)
    images[0, 0, 10:12, 10:12] = 2  # seen most by the unit at (5, 5) of the maps, which sees 7 to 14
    images[1, 0, 0, 23] = 1
    inside, corner = explain.activating(net, images, 0)
    assert (inside.image, inside.place, inside.patch.shape) == (0, (7, 7), (1, 8, 8))
    assert (corner.image, corner.place) == (1, (0, 16))
    assert corner.patch[0, 0, 7] == 1
    (alone,) = explain.activating(net, images[1:], 0)
    assert alone.patch.shape[1] < 8


def test_what_moves_a_unit_stands_in_the_middle_of_its_patch():
    net = nn.Sequential(nn.ReLU(inplace=True), _filled(nn.Conv2d(1, 1, 3, padding=1, bias=False), torch.ones(3, 3)))
    images = np.full((2, 1, 12, 12), -1, np.float32)
    images[0, 0, 2:5, 3:6], images[1, 0, 7, 6] = 1, 1
    block, pixel = explain.activating(net, images, 0)
    assert (block.place, block.patch.shape) == ((2, 3), (1, 3, 3))
    assert (pixel.place, pixel.patch.shape) == ((6, 5), (1, 3, 3))


def test_only_units_and_layers_that_are_there_are_looked_for():
    net, images = _classifier(), _image()[None]
    assert explain.activating(net, images, 3, layer="body.5")
    for unit in (4, -1):
        with pytest.raises(UserError, match=f"unit {unit} is not one of the 4"):
            explain.activating(net, images, unit)
    with pytest.raises(UserError, match=r"layer body\.9: .* are body\.0, body\.1, body\.2, body\.4, body\.5$"):
        explain.activating(net, images, 0, layer="body.9")
    with pytest.raises(UserError, match="are none"):
        explain.activating(nn.Sequential(nn.Flatten(), nn.Linear(2 * 32 * 48, 3)), images, 0)


def _two_objects() -> tuple[nn.Sequential, np.ndarray]:
    """A network whose outputs are how much bright and how much dark there is, an image with a square of each."""
    conv = _filled(nn.Conv2d(1, 2, 3, padding=1, bias=False), torch.tensor([1.0, -1])[:, None, None, None] / 9)
    answer = nn.Linear(2, 2)
    with torch.no_grad():
        answer.weight.copy_(torch.eye(2))
    body = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2))
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 6:14, 4:12], image[0, 26:34, 22:30] = 1, -1
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), answer), image


def test_class_activation_lights_up_where_the_object_lies_and_nowhere_else():
    net, image = _two_objects()
    bright, dark = (explain.class_activation(net, image, output) for output in (0, 1))
    for cam, rows, columns in ((bright, slice(6, 14), slice(4, 12)), (dark, slice(26, 34), slice(22, 30))):
        assert cam.shape == (40, 40)
        assert cam.dtype == np.float32
        assert cam.max() == 1
        around = np.ones((40, 40), bool)
        around[rows.start - 2 : rows.stop + 2, columns.start - 2 : columns.stop + 2] = False
        assert cam[rows, columns].min() > 0.3
        assert cam[rows, columns].mean() > 0.8
        assert not cam[around].any()
    both = explain.class_activation(net, image, [0, 1])
    np.testing.assert_allclose(both, bright + dark, atol=1e-6)
    assert not explain.class_activation(net, np.zeros_like(image), 0).any()


def test_class_activation_is_enlarged_as_the_photograph_was_reduced():
    net, image = _two_objects()
    net[0].append(nn.Conv2d(2, 2, 1)).append(nn.AvgPool2d(4))
    _filled(net[0][3], torch.eye(2)[:, :, None, None])
    net.insert(1, nn.Conv2d(2, 2, 1))
    _filled(net[1], torch.eye(2)[:, :, None, None])
    with torch.no_grad():
        net[0][3].bias.zero_()
        net[1].bias.zero_()
    cam = explain.class_activation(net, image, 1)  # of 5 x 5
    y, x = np.unravel_index(cam.argmax(), cam.shape)
    assert 24 <= y < 36
    assert 20 <= x < 32


def test_class_activation_is_monais_without_its_traces():
    net, image = _classifier(nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 12, 3))), _image()
    cams = [explain.class_activation(net, image, output) for output in range(3)]
    for layer in net.body:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    theirs = GradCAM(nn_module=net, target_layers="body.5", postprocessing=lambda cam: cam)
    for output, cam in enumerate(cams):
        expected = theirs(torch.from_numpy(image)[None], class_idx=output)[0, 0].detach().numpy()
        np.testing.assert_allclose(cam, expected / max(expected.max(), 1e-9), atol=1e-5)
    assert np.any(cams, axis=(1, 2)).sum() > 1


def test_layers_behind_the_last_maps_may_work_in_place():
    net = nn.Sequential(nn.Conv2d(2, 1, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(30 * 46, 2))
    other = nn.Sequential(net[0], nn.Flatten(), nn.ReLU(), net[3])
    cam = explain.class_activation(net, _image(), [0, 1])
    np.testing.assert_allclose(cam, explain.class_activation(other, _image(), [0, 1]), atol=1e-6)


def test_without_maps_class_activation_is_gradient_times_input():
    net, image = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 2)), _image()[:, :3, :4]
    cam = explain.class_activation(net, image, 1)
    expected = np.abs(net[1].weight[1].detach().numpy().reshape(2, 3, 4) * image).sum(axis=0)
    np.testing.assert_allclose(cam, expected / expected.max(), rtol=1e-5)


@pytest.mark.parametrize("output", [3, -1, [0, 3], []])
def test_only_outputs_that_are_there_can_be_asked_for(output):
    with pytest.raises(UserError, match="not one of the 3"):
        explain.class_activation(_classifier(), _image(), output)


def _explained(net: nn.Module, image: np.ndarray) -> list[np.ndarray]:
    found = [explain.filters(net), *explain.feature_maps(net, image).values(), explain.class_activation(net, image, 1)]
    return [*found, *(one.patch for one in explain.activating(net, image[None], 2))]


def test_explaining_leaves_network_and_image_as_they_are():
    net, image = _classifier().train(), _image()
    image.flags.writeable = False  # as from a file that is mapped into memory
    net.body.requires_grad_(False)[1].eval()
    net.head[-1].weight.grad = torch.ones(3, 4)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    needs = [parameter.requires_grad for parameter in net.parameters()]
    first = _explained(net, image)
    with torch.inference_mode():
        second = _explained(net, image)
        assert not torch.is_grad_enabled()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == needs
    assert (net.head[-1].weight.grad == 1).all()
    assert all(parameter.grad is None for parameter in net.body.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(UserError):
        explain.class_activation(net, image, 9)
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())


def test_class_activation_keeps_nothing_of_the_layers_before_the_last_maps():
    """Photographs of 1296 x 1296 would take a gigabyte."""
    net, kept = _classifier(), []
    net.body[0].register_forward_hook(lambda _module, _given, found: kept.append(found.requires_grad))
    explain.class_activation(net, _image(), 0)
    assert kept == [False, False]


def test_a_recurrent_network_is_explained():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.answer = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.answer(self.cell(x[:, 0])[0][:, -1])

    torch.manual_seed(0)
    image = np.zeros((1, 5, 6), np.float32)
    image[0, 3, 2] = 1
    net = Rows().eval()
    assert (np.argwhere(explain.class_activation(net, image, 0)) == [[3, 2]]).all()
    assert not net.cell.training
