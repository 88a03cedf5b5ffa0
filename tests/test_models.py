import pytest
import torch

from retina_seg.errors import UserError
from retina_seg.models import MODELS, build_model, count_parameters


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (16, 80)])
def test_logits_have_the_size_of_the_image(name, size):
    net = build_model(name, 3, 2).eval()
    with torch.inference_mode():
        logits = net(torch.randn(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.dtype == torch.float32


def test_every_weight_learns(name):
    torch.manual_seed(0)
    net = build_model(name, 1, 1).train()
    net(torch.randn(2, 1, 64, 64)).square().mean().backward()
    idle = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias in front of a batch norm has gradient zero up to rounding; MONAI's residual U-Net has some.
    assert not [key for key in idle if not key.endswith("bias")]


def test_saved_weights_give_the_same_logits(name):
    net, other = build_model(name, 3, 1).eval(), build_model(name, 3, 1).eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        assert not torch.equal(net(image), other(image))
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(net(image), other(image), rtol=0, atol=0)


def test_export(name):
    net = build_model(name, 3, 1).eval()
    image = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(net, (image,))
    torch.testing.assert_close(exported.module()(image), net(image))


def test_a_far_pixel_does_not_change_a_near_one(name):
    """Padding to a size the network takes must not shift or leak: far below the field of view nothing changes."""
    net = build_model(name, 1, 1).eval()
    image = torch.randn(1, 1, 40, 600)
    changed = image.clone()
    changed[..., -1] += 5
    with torch.inference_mode():
        torch.testing.assert_close(net(changed)[..., :100], net(image)[..., :100])


def test_stem_runs_on_the_folded_grid():
    net = build_model("unet", 3, 2, arguments={"stem": 2, "features": [8, 8, 8, 8, 8, 8]}).eval()
    assert net(torch.randn(1, 3, 45, 51)).shape == (1, 2, 45, 51)


def test_default_unet_is_small():
    assert 70_000 <= count_parameters(build_model("unet", 3, 1)) <= 500_000


def test_errors():
    with pytest.raises(UserError, match="residual_unet"):
        build_model("vnet", 3, 1)
    with pytest.raises(UserError, match="features"):
        build_model("unet", 3, 1, arguments={"feature": [1]})
    with pytest.raises(UserError, match="6 numbers"):
        build_model("unet", 3, 1, arguments={"features": [8, 8]})
