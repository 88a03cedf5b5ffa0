"""Networks by name. All read (N, C, H, W) of any size and return logits (N, K, H, W) of that size.

No weights (see zoo), no losses and no training.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from retina_seg.errors import UserError
from retina_seg.models.attention_unet import AttentionUNet, SAUNet
from retina_seg.models.controls import Frangi, Pixel
from retina_seg.models.csc_unet import CSCUNet
from retina_seg.models.dict_unet import DictUNet
from retina_seg.models.ensemble import Ensemble
from retina_seg.models.patch_dictionary import PatchDictionary
from retina_seg.models.r2_unet import R2UNet
from retina_seg.models.swin_unetr import SwinUNETR
from retina_seg.models.unet import ResidualUNet, UNet, UNetPlusPlus, UNetWithoutSkips, folded_unet
from retina_seg.models.vgg_unet import VGG16UNet
from retina_seg.models.w_net import WNet


def ensemble(
    in_channels: int = 3,
    out_channels: int = 1,
    *,
    member: str = "folded_unet",
    arguments: Mapping[str, Any] | None = None,
    count: int = 2,
) -> Ensemble:
    """`Ensemble` of `count` networks `member` with the same `arguments`, each with random weights of its own."""
    build = partial(build_model, member, in_channels, out_channels, arguments=arguments, pretrained=False)
    return Ensemble([build() for _ in range(count)])


MODELS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "unet_without_skips": UNetWithoutSkips,
    "folded_unet": folded_unet,
    "attention_unet": AttentionUNet,
    "unet_plus_plus": UNetPlusPlus,
    "residual_unet": ResidualUNet,
    "r2_unet": R2UNet,
    "w_net": WNet,
    "sa_unet": SAUNet,
    "swin_unetr": SwinUNETR,
    "vgg16_unet": VGG16UNet,
    "csc_unet": CSCUNet,
    "dict_unet": DictUNet,
    "patch_dictionary": PatchDictionary,
    "frangi": Frangi,
    "pixel": Pixel,
    "ensemble": ensemble,
}


@runtime_checkable
class OwnLoss(Protocol):
    """A network that is trained for something beside the targets."""

    def own_loss(self, fov: Tensor) -> Tensor:
        """A scalar to add to the loss, of the last forward pass; `fov` (N, 1, H, W) in {0, 1}."""


@runtime_checkable
class Begins(Protocol):
    """A network that learns a part of itself from whole photographs, before the first step of a training."""

    def begin(self, images: Sequence[Sequence[Tensor]], seed: int) -> None:
        """`images`: image float32 (C, h, w), target (K, h, w) in [0, 1] and field of view bool (h, w) of each, on
        the CPU; the network may be on a GPU.
        """


@runtime_checkable
class Recodes(Protocol):
    """A network of sparse codes, which may be found in another way after the training."""

    def recode(self, steps: int | None, penalty_factor: float) -> None:
        """`steps` iterations (None: as many as before), penalties `penalty_factor` times those of the training."""


Network = TypeVar("Network", bound=nn.Module)
# The argument that names a file of weights to begin with, in every network that has one.
WEIGHTS = "weights"


def build_model(
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    arguments: Mapping[str, Any] | None = None,
    pretrained: bool = True,
) -> nn.Module:
    """A new network, with random weights unless its arguments name a file of weights to begin with.

    Parameters
    ----------
    name : in MODELS.
    in_channels, out_channels : C and K.
    arguments : further arguments of the network's constructor.
    pretrained : False passes over the file named by the argument `weights`: for a network that gets its own
        trained weights anyway, perhaps where that file is not.

    Raises
    ------
    UserError
        For an unknown network or argument, naming the known ones, for values the network refuses, and for a file
        of weights that is missing or does not fit.
    """
    given = {"in_channels": in_channels, "out_channels": out_channels}
    return build_named("model", MODELS, name, given, arguments=arguments, pretrained=pretrained)


def build_named(
    what: str,
    known: Mapping[str, Callable[..., Network]],
    name: str,
    given: Mapping[str, Any],
    *,
    arguments: Mapping[str, Any] | None,
    pretrained: bool,
) -> Network:
    """A new network of those that are `known`, from its first arguments, which are `given`, and its further ones.

    Errors and `pretrained` are those of `build_model`; the messages call the network `what`.
    """
    if name not in known:
        raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")
    further = [parameter for parameter in inspect.signature(known[name]).parameters if parameter not in given]
    arguments = dict(arguments or {})
    if unknown := set(arguments) - set(further):
        takes = ", ".join(further) or "none"
        raise UserError(f"{what} {name!r} has no argument {', '.join(sorted(unknown))}: it takes {takes}")
    if not pretrained:
        arguments.pop(WEIGHTS, None)
    try:
        return known[name](**given, **arguments)
    except UserError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"{what} {name!r} cannot be built with {arguments}: {error}") from error


def count_parameters(model: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
