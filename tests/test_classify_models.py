import math
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_iris
from sklearn.svm import SVC
from torch.nn import functional as F

from retina_seg.classify.convolutional import C3_READS
from retina_seg.classify.lecun import links
from retina_seg.classify.linear import quadratic_features
from retina_seg.classify.models import MODELS, build_model
from retina_seg.errors import UserError
from retina_seg.models import count_parameters

# A shape of images each network takes, as odd as it may be, and arguments that keep it small.
SHAPES = {
    "linear": (3, 12, 10),
    "polynomial": (2, 5, 7),
    "mlp": (3, 12, 10),
    "lecun_single_layer": (1, 16, 16),
    "lecun_two_layers": (1, 16, 16),
    "lecun_locally_connected": (1, 16, 16),
    "lecun_constrained": (1, 16, 16),
    "lecun_constrained_2": (1, 16, 16),
    "lenet_5": (3, 28, 28),
    "small_cnn": (2, 17, 9),
    "vgg16": (3, 35, 41),
    "row_rnn": (2, 9, 7),
    "transformer": (3, 12, 16),
    "lesion_grader": (3, 35, 41),
}
ARGUMENTS = {"vgg16": {"hidden": 8, "pool": 2}, "lesion_grader": {"grid": 16, "arguments": {"width": 4}}}
VECTORS = ("linear", "polynomial", "mlp", "row_rnn")

# Links and weights of LeCun 1989.
LECUN = {
    "lecun_single_layer": (2570, 2570),
    "lecun_two_layers": (3240, 3240),
    "lecun_locally_connected": (1226, 1226),
    "lecun_constrained": (2266, 1132),
    "lecun_constrained_2": (5194, 1060),
}

# Number of the layer in torchvision.models.vgg16().features and its convolution's channels.
VGG16_LAYERS = {
    **{0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)},
    **{17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)},
}


def _shape(name: str) -> tuple[int, int, int]:
    return SHAPES.get(name, (3, 28, 28))


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


def _new(name: str, outputs: int = 10) -> torch.nn.Sequential:
    return build_model(name, _shape(name), outputs, arguments=ARGUMENTS.get(name))


@cache
def _evaluated(name: str) -> torch.nn.Sequential:
    """A network in evaluation mode for tests that leave it as it is. Its batch norms have seen something."""
    torch.manual_seed(0)
    net = _new(name).train()
    with torch.no_grad():
        net(torch.randn(4, *_shape(name)))
    return net.eval()


def test_logits_are_the_heads_of_the_bodys_features(name):
    net, image = _evaluated(name), torch.randn(3, *_shape(name))
    with torch.inference_mode():
        logits = net(image)
        features = net.body(image)
        torch.testing.assert_close(net.head(features), logits)
    assert logits.shape == (3, 10)
    assert logits.dtype == torch.float32
    assert features.ndim in (2, 4)
    assert len(features) == 3


@pytest.mark.parametrize("outputs", [1, 14])
def test_there_are_as_many_logits_as_asked_for_on_the_same_body(name, outputs):
    net = _new(name, outputs).eval()
    net.body.load_state_dict(_evaluated(name).body.state_dict())
    with torch.inference_mode():
        assert net(torch.randn(2, *_shape(name))).shape == (2, outputs)


def test_every_weight_learns(name):
    torch.manual_seed(0)
    net = _new(name).train()
    F.cross_entropy(net(torch.randn(6, *_shape(name))), torch.arange(6)).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key


def test_saved_weights_give_the_same_logits(name):
    net = _evaluated(name)
    torch.manual_seed(1)
    other, image = _new(name).eval(), torch.randn(2, *_shape(name))
    with torch.inference_mode():
        assert not torch.equal(net(image), other(image))
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(other(image), net(image), rtol=0, atol=0)


def test_logits_in_evaluation_are_those_of_the_image_alone(name):
    """Neither chance nor the other images of the batch."""
    net, images = _evaluated(name), torch.randn(2, *_shape(name))
    before = images.clone()
    with torch.inference_mode():
        logits = net(images)
        torch.testing.assert_close(net(images), logits, rtol=0, atol=0)
        torch.testing.assert_close(images, before, rtol=0, atol=0)
        torch.testing.assert_close(net(images[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        images[1] = torch.randn(_shape(name))
        changed = net(images)
    torch.testing.assert_close(changed[0], logits[0])
    assert not torch.allclose(changed[1], logits[1])


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_features_are_images_of_one_pixel(name):
    net = build_model(name, (4, 1, 1), 3)
    assert net(torch.randn(5, 4, 1, 1)).shape == (5, 3)


@pytest.mark.parametrize("name", LECUN)
def test_links_and_weights_are_those_of_lecun_1989(name):
    net = build_model(name, (1, 16, 16), 10)
    assert (links(net), count_parameters(net)) == LECUN[name]


@pytest.mark.parametrize("name", ["lecun_locally_connected", "lecun_constrained", "lecun_constrained_2"])
def test_links_are_what_units_answer_to(name):
    """The links one by one: inputs of a layer that change a unit, those that the border cuts off, and biases."""
    net, count = build_model(name, (1, 16, 16), 10), 0
    # Of 8 fields of 3 in a row, 1 pixel of 24 lies beyond the border; of 4 fields of 5 it is 3 of 20.
    for layer, shape, inside, whole in (
        (net.body.h1, (1, 16, 16), 23, 24),
        (net.body.h2, (1 if name == "lecun_locally_connected" else 2, 8, 8), 17, 20),
    ):
        jacobian = torch.autograd.functional.jacobian(lambda x, f=layer: f(x[None]), torch.randn(shape))
        seen = int((jacobian != 0).sum())
        assert seen % inside**2 == 0
        count += seen // inside**2 * whole**2 + layer.bias.numel()
    assert count + net.head.weight.numel() + net.head.bias.numel() == LECUN[name][0]


@pytest.mark.parametrize("name", ["lecun_constrained", "lecun_constrained_2"])
def test_shared_weights_translate_with_the_image(name):
    torch.manual_seed(0)
    net = build_model(name, (1, 16, 16), 10)
    assert _translation_error(net.body.h1, (1, 16, 16)) < 1e-5
    assert (_translation_error(net.body.h2, (2, 8, 8)) < 1e-5) is (name == "lecun_constrained_2")


def test_weights_that_are_not_shared_do_not_translate():
    torch.manual_seed(0)
    net = build_model("lecun_locally_connected", (1, 16, 16), 10)
    assert _translation_error(net.body.h1, (1, 16, 16)) > 0.1


def _translation_error(layer: torch.nn.Module, shape: tuple[int, int, int]) -> float:
    """How far the map of a translated image is from the translated map, where neither the border nor biases matter."""
    torch.nn.init.zeros_(layer.bias)
    image = torch.randn(1, *shape)
    with torch.inference_mode():
        one, other = layer(image), layer(torch.roll(image, (2, 2), (2, 3)))
    assert one.shape[2:] == (shape[1] // 2, shape[2] // 2)
    return float((other[..., 2:-1, 2:-1] - one[..., 1:-2, 1:-2]).abs().max())


def test_biases_of_shared_weights_are_each_units_own():
    net = build_model("lecun_constrained_2", (1, 16, 16), 10)
    with torch.inference_mode():
        torch.testing.assert_close(net.body.h1(torch.zeros(1, 1, 16, 16))[0], net.body.h1.bias)
    assert net.body.h1.bias.shape == (2, 8, 8)
    assert net.body.h2.bias.shape == (4, 4, 4)


def test_a_locally_connected_unit_is_the_sum_over_its_field():
    torch.manual_seed(0)
    layer = build_model("lecun_constrained", (1, 16, 16), 10).body.h2
    x = torch.randn(1, 2, 8, 8)
    field = F.pad(x, (2, 2, 2, 2))[0, :, 2 * 1 : 2 * 1 + 5, 2 * 3 : 2 * 3 + 5]  # of the unit in row 1, column 3
    expected = (field.flatten() * layer.weight[:, 4 * 1 + 3]).sum() + layer.bias[0, 1, 3]
    torch.testing.assert_close(layer(x)[0, 0, 1, 3], expected)


def test_two_layers_compute_twelve_outputs_and_return_the_first():
    torch.manual_seed(0)
    twelve, three = (build_model("lecun_two_layers", (1, 16, 16), outputs) for outputs in (12, 3))
    three.load_state_dict(twelve.state_dict())
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(three(image), twelve(image)[:, :3])
    assert links(build_model("lecun_two_layers", (1, 16, 16), 14)) == 12 * 257 + 14 * 13


def test_links_of_other_layers_are_not_guessed():
    with pytest.raises(TypeError, match="Conv2d"):
        links(torch.nn.Conv2d(1, 1, 3))


def test_lenet_5_has_the_papers_numbers_of_weights():
    net = build_model("lenet_5", (1, 32, 32), 10)
    counts = {key: count_parameters(layer) for key, layer in net.body.named_children()}
    assert counts == {"pad": 0, "c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "flatten": 0, "f6": 10164}
    assert count_parameters(net.head) == 850
    assert count_parameters(net) == 60_850


def test_a_map_of_c3_reads_the_maps_of_the_papers_table():
    layer = build_model("lenet_5", (1, 32, 32), 10).body.c3[0]
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0, :, 0, 0], torch.randn(1, 6, 14, 14))
    reads = (jacobian[:, 0] != 0).flatten(2).any(2)  # (16, 6)
    # LeCun 1998, table I, row by row: the maps of C3 that read each map of S2.
    table = ["X...XXX..XXXX.XX", "XX...XXX..XXXX.X", "XXX...XXX..X.XXX", ".XXX..XXXX..X.XX", "..XXX..XXXX.XX.X"]
    table += ["...XXX..XXXX.XXX"]
    assert ["".join("X" if one else "." for one in row) for row in reads.T.tolist()] == table
    assert sum(map(len, C3_READS)) == 60


def test_c3_is_a_convolution():
    torch.manual_seed(0)
    layer = build_model("lenet_5", (1, 32, 32), 10).body.c3[0]
    x = torch.randn(2, 6, 14, 14)
    kernels = iter(layer.weight)
    for k, reads in enumerate(C3_READS):
        own = torch.stack([next(kernels) for _ in reads])[None]
        torch.testing.assert_close(layer(x)[:, k], F.conv2d(x[:, reads], own, layer.bias[k : k + 1])[:, 0])


def test_lenet_5_pads_small_digits():
    torch.manual_seed(0)
    small, large = build_model("lenet_5", (1, 28, 28), 10), build_model("lenet_5", (1, 32, 32), 10)
    large.load_state_dict(small.state_dict())
    image = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(image), large(F.pad(image, (2, 2, 2, 2))))


def test_lenet_5_averages_and_squashes():
    net = build_model("lenet_5", (1, 32, 32), 10)
    x = torch.randn(1, 6, 28, 28)
    layer, squash = net.body.s2
    torch.nn.init.constant_(layer.weight, 3)
    torch.nn.init.constant_(layer.bias, 0.5)
    torch.testing.assert_close(layer(x)[0, 2, 1, 4], 3 * x[0, 2, 2:4, 8:10].mean() + 0.5)
    torch.testing.assert_close(squash(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), rtol=1e-4, atol=0)


def test_small_cnn_pools_no_map_below_two_pixels():
    net = build_model("small_cnn", (1, 8, 33), 2, arguments={"features": [4, 6, 8, 10]}).eval()
    assert net.body(torch.randn(1, 1, 8, 33)).shape == (1, 10, 2, 8)


def test_vgg16_has_the_published_number_of_weights():
    with torch.device("meta"):
        net = build_model("vgg16", (3, 224, 224), 1000)
        assert net(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    assert count_parameters(net) == 138_357_544
    assert count_parameters(net.body) == 14_714_688  # the convolutions of Simonyan 2015, table 2


def _vgg16_weights(hidden: int, pool: int) -> dict[str, torch.Tensor]:
    """As torchvision's file, with a smaller head."""
    generator = torch.Generator().manual_seed(1)
    shapes = {f"features.{layer}": (c_out, c, 3, 3) for layer, (c, c_out) in VGG16_LAYERS.items()}
    shapes |= {
        "classifier.0": (hidden, 512 * pool**2),
        "classifier.3": (hidden, hidden),
        "classifier.6": (1000, hidden),
    }
    tensors = {}
    for key, shape in shapes.items():
        tensors[f"{key}.weight"] = torch.rand(shape, generator=generator)
        tensors[f"{key}.bias"] = torch.rand(shape[0], generator=generator)
    return tensors


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.save(_vgg16_weights(6, 2), path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg16_begins_with_the_weights_of_a_file(tmp_path, vgg16_file, suffix):
    tensors, path = _vgg16_weights(6, 2), vgg16_file
    if suffix == ".safetensors":
        path = tmp_path / "vgg16.safetensors"
        save_file(tensors, path)
    net = build_model("vgg16", (3, 64, 64), 5, arguments={"weights": str(path), "hidden": 6, "pool": 2})
    own = net.state_dict()
    assert len(own) == len(tensors)
    for key, tensor in tensors.items():
        part, number, kind = key.split(".")
        if part == "features":
            assert torch.equal(own[f"body.{number}.{kind}"], tensor)
        elif number != "6":
            assert torch.equal(own[f"head.{int(number) + 2}.{kind}"], tensor)
    assert own["head.8.weight"].shape == (5, 6)


def test_vgg16_leaves_a_head_of_another_size_as_it_is(vgg16_file):
    """The second hidden layer would fit, but it was trained to read another first one."""
    tensors = _vgg16_weights(6, 2)
    net = build_model("vgg16", (3, 64, 64), 5, arguments={"weights": str(vgg16_file), "hidden": 6, "pool": 1})
    assert torch.equal(net.state_dict()["body.28.weight"], tensors["features.28.weight"])
    assert not torch.equal(net.state_dict()["head.5.weight"], tensors["classifier.3.weight"])


def test_vgg16_needs_no_file_where_none_is_named(tmp_path):
    arguments = {"weights": str(tmp_path / "none.pth"), "hidden": 4, "pool": 1}
    with pytest.raises(UserError, match="there is no file"):
        build_model("vgg16", (3, 32, 32), 2, arguments=arguments)
    with torch.device("meta"):
        assert build_model("vgg16", (3, 32, 32), 2, arguments=arguments, pretrained=False)
        assert build_model("vgg16", (3, 32, 32), 2, arguments={**arguments, "weights": None})
    assert "weights" in arguments


def test_quadratic_features_of_two_inputs_are_the_lectures():
    x = torch.tensor([[3.0, -5.0], [0.5, 2.0]], dtype=torch.float64)
    expected = torch.stack([x[:, 0] ** 2, math.sqrt(2) * x[:, 0] * x[:, 1], x[:, 1] ** 2], dim=1)
    torch.testing.assert_close(quadratic_features(x), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("inputs", [1, 2, 5, 30])
def test_quadratic_features_have_the_quadratic_kernel(inputs):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, inputs))
    features = [quadratic_features(torch.from_numpy(one)).numpy() for one in (x, y)]
    assert features[0].shape == (7, inputs * (inputs + 1) // 2)
    np.testing.assert_allclose(features[0] @ features[1].T, (x @ y.T) ** 2, rtol=1e-10, atol=1e-10)


def test_a_machine_with_the_kernel_is_a_linear_one_on_the_features():
    flowers = load_iris()
    x = flowers.data / flowers.data.std(axis=0)
    features = quadratic_features(torch.from_numpy(x)).numpy()
    by_kernel = SVC(kernel="poly", degree=2, gamma=1, coef0=0).fit(x, flowers.target)
    by_features = SVC(kernel="linear").fit(features, flowers.target)
    ours, theirs = by_features.decision_function(features), by_kernel.decision_function(x)
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_a_polynomial_is_affine_in_the_features_of_the_flat_image():
    net, image = build_model("polynomial", (2, 3, 1), 4), torch.randn(5, 2, 3, 1)
    torch.testing.assert_close(net(image), net.head(quadratic_features(image.reshape(5, 6))))


def test_an_mlp_without_hidden_layers_is_linear():
    torch.manual_seed(0)
    flat, mlp = build_model("linear", (2, 3, 4), 5), build_model("mlp", (2, 3, 4), 5, arguments={"hidden": []})
    assert count_parameters(mlp) == count_parameters(flat) == 5 * 25
    flat.head.load_state_dict(mlp.head.state_dict())
    image = torch.randn(6, 2, 3, 4)
    torch.testing.assert_close(mlp(image), flat(image))
    torch.testing.assert_close(flat(image), image.reshape(6, 24) @ flat.head.weight.T + flat.head.bias)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_an_mlp_alternates_affine_and_activation(activation):
    torch.manual_seed(0)
    net = build_model("mlp", (1, 3, 2), 2, arguments={"hidden": [5, 4], "activation": activation}).eval()
    weights = list(net.parameters())
    assert [tuple(w.shape) for w in weights] == [(5, 6), (5,), (4, 5), (4,), (2, 4), (2,)]
    image = torch.randn(3, 1, 3, 2)
    x = image.reshape(3, 6)
    for weight, bias in (weights[:2], weights[2:4]):
        x = getattr(torch, activation)(x @ weight.T + bias)
    torch.testing.assert_close(net(image), x @ weights[4].T + weights[5])


def test_an_mlp_drops_hidden_units_after_their_activation():
    torch.manual_seed(0)
    net = build_model("mlp", (1, 1, 4), 2, arguments={"hidden": [500], "activation": "sigmoid", "dropout": 0.4}).train()
    dropped = float((net.body(torch.randn(1, 1, 1, 4)) == 0).float().mean())
    assert 0.3 < dropped < 0.5


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_row_rnn_reads_rows_from_the_top(cell):
    """Rows with no future change no earlier state: the state after three rows is that of their image alone."""
    torch.manual_seed(0)
    net = build_model("row_rnn", (2, 5, 4), 3, arguments={"cell": cell, "layers": 2, "hidden": 6}).eval()
    image = torch.randn(1, 2, 5, 4)
    states, _ = net.body.cell(torch.stack([image[0, :, row].reshape(8) for row in range(5)])[None])
    torch.testing.assert_close(net.body(image), states[:, 4])
    torch.testing.assert_close(net.body(image[:, :, :3]), states[:, 2])
    assert not torch.allclose(net(image), net(image.flip(2)))


def test_transformer_knows_where_a_patch_lies():
    torch.manual_seed(0)
    net = build_model("transformer", (1, 8, 8), 2, arguments={"patch_size": 4, "hidden": 8, "heads": 2}).eval()
    image = torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        assert not torch.allclose(net(image), net(torch.roll(image, 4, 3)))


@pytest.mark.parametrize(
    ("name", "in_shape", "arguments", "words"),
    [
        ("lenet", (1, 28, 28), {}, "unknown classifier 'lenet': choose one of .*lenet_5"),
        ("mlp", (1, 4, 4), {"units": [1]}, "no argument units: it takes hidden, activation, dropout"),
        ("linear", (1, 4, 4), {"hidden": [1]}, "no argument hidden: it takes none"),
        ("linear", (4, 4), {}, r"\(channels, height, width\)"),
        ("linear", (1, 0, 4), {}, r"\(1, 0, 4\)"),
        ("mlp", (1, 4, 4), {"activation": "gelu"}, "relu, tanh, sigmoid"),
        ("mlp", (1, 4, 4), {"hidden": [4, 0]}, "above 0"),
        ("mlp", (1, 4, 4), {"hidden": 4}, "cannot be built"),
        ("polynomial", (1, 28, 28), {}, "784 inputs .*307,720 features.*at most 128.*data.size"),
        *((name, (1, 28, 28), {}, "1 x 16 x 16 .*got 1 x 28 x 28: set data.size to 16") for name in LECUN),
        ("lecun_constrained", (3, 16, 16), {}, "got 3 x 16 x 16.*grey"),
        ("lenet_5", (1, 30, 30), {}, "28 x 28 or 32 x 32, got 30 x 30: set data.size"),
        ("small_cnn", (1, 7, 9), {}, "8 x 8, got 7 x 9: set data.size"),
        ("small_cnn", (1, 8, 8), {"features": []}, "features"),
        ("vgg16", (3, 31, 64), {}, "32 x 32, got 31 x 64: set data.size"),
        ("vgg16", (3, 32, 32), {"hidden": 0}, "at least 1"),
        ("row_rnn", (1, 8, 8), {"cell": "rnn"}, "gru, lstm"),
        ("row_rnn", (1, 8, 8), {"layers": 0}, "cannot be built"),
        ("transformer", (1, 10, 8), {}, "patches of 4 x 4 do not fill images of 10 x 8: set data.size"),
        ("transformer", (1, 8, 8), {"hidden": 10}, "divisible"),
        ("transformer", (1, 8, 8), {"depth": 0}, "at least 1"),
    ],
)
def test_errors(name, in_shape, arguments, words):
    with pytest.raises(UserError, match=words):
        build_model(name, in_shape, 10, arguments=arguments)


def test_there_is_no_classifier_without_outputs():
    with pytest.raises(UserError, match="at least 1 output, got 0"):
        build_model("linear", (1, 4, 4), 0)
