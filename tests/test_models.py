import copy
from functools import cache
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from retina_seg import sparse
from retina_seg.errors import UserError
from retina_seg.models import MODELS, build_model, count_parameters
from retina_seg.models.attention_unet import DropBlock, SpatialAttention
from retina_seg.models.blocks import fold_norms

# From 3 channels to 1, as the table in README.md says.
PARAMETERS = {
    "unet": 398_137,
    "unet_without_skips": 329_017,
    "folded_unet": 431_356,
    "attention_unet": 420_957,
    "unet_plus_plus": 624_489,
    "residual_unet": 403_018,
    "r2_unet": 557_713,
    "w_net": 68_482,  # Galdran 2022
    "sa_unet": 537_299,  # Guo 2021 without the running means and variances
    "swin_unetr": 1_592_779,
    "vgg16_unet": 18_546_881,
    "csc_unet": 448_444,
    "dict_unet": 448_444,
    "patch_dictionary": 110_033,
    "frangi": 2,
    "pixel": 4,
    "ensemble": 2 * 431_356,
}

# The layout of torchvision.models.vgg16().features: number of the layer, channels in and out of a 3 x 3 convolution.
VGG16_LAYERS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@cache
def _evaluated(name: str, in_channels: int, out_channels: int) -> torch.nn.Module:
    """A network in evaluation mode for tests that leave it as it is. Its batch norms have seen something."""
    torch.manual_seed(0)
    net = build_model(name, in_channels, out_channels).train()
    with torch.no_grad():
        net(torch.randn(2, in_channels, 64, 64))
    return net.eval()


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (16, 80)])
def test_logits_have_the_size_of_the_image(name, size):
    net = _evaluated(name, 3, 2)
    with torch.inference_mode():
        logits = net(torch.randn(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.dtype == torch.float32


def test_every_weight_learns(name):
    torch.manual_seed(0)
    net = build_model(name, 1, 1).train()
    net(torch.randn(2, 1, 64, 64)).square().mean().backward()
    gradients = {key: p.grad for key, p in net.named_parameters()}
    assert not [key for key, gradient in gradients.items() if gradient is None]
    # A bias in front of a batch norm has gradient zero up to rounding; MONAI's residual U-Net has some.
    assert not [key for key, gradient in gradients.items() if not (gradient.abs().sum() > 0 or key.endswith("bias"))]


def test_saved_weights_give_the_same_logits(name):
    net, other = _evaluated(name, 3, 2), build_model(name, 3, 2).eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        assert name == "frangi" or not torch.equal(net(image), other(image))  # its two weights do not begin at random
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(net(image), other(image), rtol=0, atol=0)


def test_export(name):
    net = _evaluated(name, 3, 2)
    image = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(net, (image,))
    torch.testing.assert_close(exported.module()(image), net(image))


def test_logits_in_evaluation_are_those_of_the_image_alone(name):
    """Neither chance nor the other images of the batch."""
    net = _evaluated(name, 3, 2)
    images = torch.randn(2, 3, 37, 53)
    with torch.inference_mode():
        logits = net(images)
        torch.testing.assert_close(net(images), logits, rtol=0, atol=0)
        images[1] = torch.randn(3, 37, 53)
        torch.testing.assert_close(net(images)[0], logits[0])
        torch.testing.assert_close(net(images[:1])[0], logits[0], rtol=1e-4, atol=1e-4)


def test_a_far_pixel_does_not_change_a_near_one(name):
    """Padding to a size the network takes must not shift or leak: far below the field of view nothing changes."""
    net = _evaluated(name, 1, 1)
    image = torch.randn(1, 1, 40, 600)
    changed = image.clone()
    changed[..., -1] += 100
    with torch.inference_mode():
        before, after = net(image), net(changed)
    torch.testing.assert_close(after[..., :100], before[..., :100])
    assert not torch.equal(after[..., -10:], before[..., -10:])


def test_folded_norms_change_no_logit(name):
    net = copy.deepcopy(_evaluated(name, 3, 1))
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.affine:
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 3, 48, 64)
    with torch.inference_mode():
        before = net.eval()(image)
        fold_norms(net)
        after = net(image)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


def test_a_unet_keeps_no_norm_when_they_are_folded():
    net = build_model("unet", 3, 1, arguments={"features": [4] * 6}).eval()
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()) == 18
    fold_norms(net)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())


def test_parameters_are_as_documented(name):
    assert count_parameters(build_model(name, 3, 1)) == PARAMETERS[name]


def test_stem_runs_on_the_folded_grid():
    net = build_model("unet", 3, 2, arguments={"stem": 2, "features": [8, 8, 8, 8, 8, 8]}).eval()
    assert net(torch.randn(1, 3, 45, 51)).shape == (1, 2, 45, 51)


@pytest.mark.parametrize("arguments", [{}, {"stride": 1}, {"blocks": True}], ids=str)
def test_csc_unet_codes_and_rebuilds_its_image(arguments):
    """The codes are those of sparse.py; its own loss is the misfit inside the field of view and nothing else."""
    torch.manual_seed(0)
    small = {"atoms": 6, "side": 5, "features": [8] * 6, **arguments}
    net = build_model("csc_unet", 1, 2, arguments=small).train()
    image, fov = torch.randn(2, 1, 32, 48), torch.ones(2, 1, 32, 48)
    fov[..., 20:] = 0
    assert net(image).shape == (2, 2, 32, 48)
    coder = net.coder
    dictionary = sparse.Convolutional(coder.atoms, (32, 48), coder.stride)
    penalty = coder.penalties.view(-1, 1, 1)
    torch.testing.assert_close(penalty, torch.full_like(penalty, 0.3))
    codes = sparse.code(image, dictionary, penalty, 5, nonnegative=True)
    found, rebuilt = coder(image)
    torch.testing.assert_close(found, codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rebuilt, dictionary.synthesise(codes), rtol=1e-4, atol=1e-5)
    misfit = (rebuilt - image)[..., :20].square().mean()
    torch.testing.assert_close(net.own_loss(fov), 0.05 * misfit, rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match="there was none"):
        net.own_loss(fov)


def test_csc_unet_keeps_atoms_of_norm_one_and_penalties_above_zero():
    torch.manual_seed(0)
    net = build_model("csc_unet", 1, 1, arguments={"atoms": 4, "features": [8] * 6}).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.3)
    before = net.coder.atoms.detach().clone()
    for _ in range(5):
        loss = net(torch.randn(2, 1, 32, 32)).square().mean() + net.own_loss(torch.ones(2, 1, 32, 32))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(torch.linalg.vector_norm(net.coder.atoms.flatten(1), dim=1), torch.ones(4))
    assert (net.coder.penalties > 0).all()
    assert not torch.allclose(net.coder.atoms, before, atol=0.01)


def test_folded_unet_is_a_unet_with_a_stem():
    folded = build_model("folded_unet", 3, 1).eval()
    net = build_model("unet", 3, 1, arguments={"stem": 2, "features": [32, 32, 48, 64, 64, 32]}).eval()
    net.load_state_dict(folded.state_dict())
    image = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(net(image), folded(image), rtol=0, atol=0)


def test_without_skips_everything_passes_the_bottom():
    """Where the bottom says nothing, the logits know nothing of the image; those of the U-Net do."""

    def silence(_module, _inputs, output):
        return torch.zeros_like(output)

    images = torch.randn(2, 3, 64, 64)
    for name, bottom, knows in (
        ("unet_without_skips", lambda net: net.encoder[-1], False),
        ("unet", lambda net: net.net.down_4, True),
    ):
        net = _evaluated(name, 3, 2)
        handle = bottom(net).register_forward_hook(silence)
        try:
            with torch.inference_mode():
                one, other = net(images)
        finally:
            handle.remove()
        assert torch.equal(one, other) is not knows


def test_without_skips_only_the_weights_that_read_them_are_gone():
    levels = (64, 48, 32, 16)  # channels of the skip connections, and of the 3 x 3 convolutions that read them
    difference = count_parameters(build_model("unet", 3, 1)) - count_parameters(build_model("unet_without_skips", 3, 1))
    assert difference == sum(9 * c * c for c in levels)


@pytest.mark.parametrize("recurrences", [0, 2, 5])
def test_recurrences_share_their_kernel(recurrences):
    features = (4, 6, 8)
    net = build_model("r2_unet", 3, 1, arguments={"features": features, "recurrences": recurrences})

    def residual(c: int, c_out: int) -> int:
        entry = c * c_out + c_out
        return entry + 2 * (9 * c_out**2 + (recurrences + 1) * 2 * c_out)

    expected = sum(residual(c, deeper) for c, deeper in pairwise((3, *features)))
    expected += sum(4 * c * higher + higher + residual(2 * higher, higher) for c, higher in pairwise((8, 6, 4)))
    assert count_parameters(net) == expected + features[0] + 1


def test_spatial_attention_weighs_between_none_and_all():
    features = torch.randn(2, 8, 9, 11) * 10
    weights = SpatialAttention()(features)
    assert weights.shape == (2, 1, 9, 11)
    assert 0 < weights.min() < weights.max() < 1


def test_sa_unet_multiplies_by_its_attention():
    net = build_model("sa_unet", 3, 1).eval()
    image, seen = torch.randn(1, 3, 32, 32), []
    net.attention.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    net.bottom[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    net.bottom[1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    net(image)
    features, weights, weighed = seen
    assert 0 < weights.min() <= weights.max() < 1
    torch.testing.assert_close(weighed, features * weights)


def test_drop_block_drops_squares():
    torch.manual_seed(0)
    ones = torch.ones(8, 16, 40, 40)
    thinned = DropBlock(0.1, 7)(ones)
    assert 0.06 < (thinned == 0).float().mean() < 0.12, "overlapping squares drop a little less than asked for"
    assert thinned.mean() == pytest.approx(1, abs=1e-4)
    # Every dropped pixel lies in a dropped square: closing the kept pixels by one changes nothing.
    dropped = (thinned == 0).float()
    eroded = -torch.nn.functional.max_pool2d(-dropped, 7, stride=1)
    reopened = torch.nn.functional.max_pool2d(torch.nn.functional.pad(eroded, (6,) * 4), 7, stride=1)
    assert torch.equal(reopened, dropped)


def test_drop_block_leaves_evaluation_and_its_input_alone():
    ones = torch.ones(1, 2, 16, 16)
    assert DropBlock(0.5, 7).eval()(ones) is ones
    assert DropBlock(0.0, 7)(ones) is ones
    torch.manual_seed(0)
    DropBlock(0.5, 7)(ones)
    assert torch.equal(ones, torch.ones(1, 2, 16, 16))


def test_drop_block_takes_maps_smaller_than_its_squares():
    torch.manual_seed(0)
    thinned = DropBlock(0.5, 7)(torch.ones(4, 64, 3, 5))
    assert thinned.shape == (4, 64, 3, 5)
    assert 0.3 < (thinned == 0).float().mean() < 0.6


def test_w_net_cascades():
    """The second U-Net reads the image and the first one's logits."""
    net = build_model("w_net", 3, 2).eval()
    read = []
    net.second.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    image = torch.randn(1, 3, 16, 16)
    logits = net(image)
    torch.testing.assert_close(read[0], torch.cat([image, net.first(image)], dim=1))
    torch.testing.assert_close(logits, net.second(read[0]))
    single = build_model("w_net", 3, 1).first
    assert count_parameters(single) == 34_201  # Galdran 2022, the U-Net alone


def test_unet_plus_plus_has_no_head_that_is_not_asked():
    assert [key for key in build_model("unet_plus_plus", 3, 1).state_dict() if "final" in key] == [
        "net.final_conv_0_4.weight",
        "net.final_conv_0_4.bias",
    ]


def _vgg16_weights(in_channels: int = 3) -> dict[str, torch.Tensor]:
    """As torchvision's file: random convolutions, and a classifier that does not matter."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer, (c, c_out) in VGG16_LAYERS.items():
        c = in_channels if layer == 0 else c
        tensors[f"features.{layer}.weight"] = torch.randn(c_out, c, 3, 3, generator=generator) * (2 / 9 / c_out) ** 0.5
        tensors[f"features.{layer}.bias"] = torch.zeros(c_out)
    return {**tensors, "classifier.0.weight": torch.zeros(4, 7), "classifier.0.bias": torch.zeros(4)}


def test_vgg16_encoder_has_torchvisions_layout():
    net = build_model("vgg16_unet", 3, 1)
    own = {key: tuple(p.shape) for key, p in net.state_dict().items() if key.startswith("features.")}
    expected = {}
    for layer, (c, c_out) in VGG16_LAYERS.items():
        expected |= {f"features.{layer}.weight": (c_out, c, 3, 3), f"features.{layer}.bias": (c_out,)}
    assert own == expected
    assert count_parameters(net.features) == 14_714_688  # the convolutions of Simonyan 2015, table 2


@pytest.mark.parametrize("file", ["vgg16.pth", "vgg16.safetensors"])
def test_vgg16_begins_with_the_weights_of_a_file(tmp_path, file):
    tensors, path = _vgg16_weights(), tmp_path / file
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    arguments = {"weights": str(path)}
    net = build_model("vgg16_unet", 3, 1, arguments=arguments)
    for key, tensor in net.state_dict().items():
        if key.startswith("features."):
            assert torch.equal(tensor, tensors[key])
    path.unlink()
    again = build_model("vgg16_unet", 3, 1, arguments=arguments, pretrained=False)
    again.load_state_dict(net.state_dict())
    assert arguments == {"weights": str(path)}


def test_vgg16_refuses_other_files(tmp_path):
    path = tmp_path / "weights.pth"

    def refused(*words: str, in_channels: int = 3) -> None:
        with pytest.raises(UserError) as caught:
            build_model("vgg16_unet", in_channels, 1, arguments={"weights": str(path)})
        assert "\n" not in str(caught.value)
        for word in (str(path), "torchvision", *words):
            assert word in str(caught.value)

    refused("there is no file")
    path.write_bytes(b"no weights")
    refused("cannot be read")
    torch.save([1, 2], path)
    refused("no weights by name")
    tensors = _vgg16_weights()
    torch.save({key: tensor for key, tensor in tensors.items() if key != "features.28.bias"}, path)
    refused("features.28.bias is missing")
    torch.save({**tensors, "features.31.weight": torch.zeros(1)}, path)
    refused("features.31.weight has no place")
    torch.save(tensors, path)
    refused("features.0.weight has shape (64, 3, 3, 3) instead of (64, 1, 3, 3)", in_channels=1)
    torch.save({f"encoder.{key}": tensor for key, tensor in tensors.items()}, path)
    refused("features.0.weight is missing", "more")


def test_no_file_of_weights_is_needed_where_none_is_named():
    assert build_model("vgg16_unet", 3, 1, arguments={"weights": None})
    assert build_model("unet", 3, 1, pretrained=False)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("vnet", {}, "residual_unet"),
        ("unet", {"feature": [1]}, "features"),
        ("unet", {"features": [8, 8]}, "6 numbers"),
        ("unet_without_skips", {"features": [8, 8]}, "6 numbers"),
        ("unet_plus_plus", {"features": [8, 8]}, "6 numbers"),
        ("folded_unet", {"width": 7}, "even"),
        ("r2_unet", {"recurrences": -1}, "recurrences"),
        ("w_net", {"features": []}, "features"),
        ("sa_unet", {"features": [8]}, "at least 2"),
        ("sa_unet", {"drop": 1}, "drop"),
        ("swin_unetr", {"feature_size": 10}, "12"),
        ("swin_unetr", {"window_size": 0}, "at least 1"),
        ("unet", {"stem": 0}, "at least 1"),
        ("sa_unet", {"features": [0, 4]}, "above 0"),
        ("r2_unet", {"features": [-1]}, "cannot be built"),
        ("vgg16_unet", {"decoder": [8]}, "4 numbers"),
    ],
)
def test_errors(name, arguments, words):
    with pytest.raises(UserError, match=words):
        build_model(name, 3, 1, arguments=arguments)


def test_an_ensemble_is_the_mean_of_its_members_probabilities():
    net = build_model("ensemble", 3, 2, arguments={"member": "w_net", "count": 3}).eval()
    image = torch.randn(2, 3, 24, 32)
    with torch.inference_mode():
        mean = sum(torch.sigmoid(member(image)) for member in net.members) / 3
        torch.testing.assert_close(torch.sigmoid(net(image)), mean)
    with pytest.raises(UserError, match="at least one"):
        build_model("ensemble", 3, 1, arguments={"count": 0})
