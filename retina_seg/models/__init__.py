"""Networks by name. All read (N, C, H, W) of any size and return logits (N, K, H, W) of that size.

No weights (see zoo), no losses and no training.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from retina_seg.errors import UserError
from retina_seg.models.unet import ResidualUNet, UNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "residual_unet": ResidualUNet,
}


def build_model(
    name: str, in_channels: int, out_channels: int, *, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """A new network with random weights.

    Parameters
    ----------
    name : in MODELS.
    in_channels, out_channels : C and K.
    arguments : further arguments of the network's constructor.

    Raises
    ------
    UserError
        For an unknown network or argument, naming the known ones, and for values the network refuses.
    """
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    known = [p for p in inspect.signature(MODELS[name]).parameters if p not in ("in_channels", "out_channels")]
    arguments = dict(arguments or {})
    if unknown := set(arguments) - set(known):
        raise UserError(f"model {name!r} has no argument {', '.join(sorted(unknown))}: it takes {', '.join(known)}")
    try:
        return MODELS[name](in_channels, out_channels, **arguments)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"model {name!r} cannot be built with {arguments}: {error}") from error


def count_parameters(model: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
