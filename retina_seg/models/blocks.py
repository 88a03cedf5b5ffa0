"""Pieces several networks share: inputs of any size, the settings of MONAI's convolutions, norms folded into them.

No network and no layer that belongs to one network alone.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

# MONAI's blocks in the order convolution, batch norm, ReLU; the norm's shift makes a bias useless.
CONVOLUTION: dict[str, Any] = {"act": ("relu", {"inplace": True}), "norm": "batch", "bias": False}


def separable(image: Tensor, down: Tensor, along: Tensor) -> Tensor:
    """`image` (N, C, H, W) correlated with taps (a,) down its columns and (b,) along its rows, each channel for itself:
    (N, C, H - a + 1, W - b + 1)."""
    channels = image.shape[1]
    rows = F.conv2d(image, down.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, along.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def pad(image: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """`image` with zeros below and to the right up to a multiple of `multiple`, and its own (H, W)."""
    height, width = image.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return (F.pad(image, padding) if any(padding) else image), (height, width)


def fold_norms(net: nn.Module) -> None:
    """Take batch norms that follow a convolution into its weights, in place: the same results in evaluation, sooner.

    W' = W g / s, b' = (b - m) g / s + h with mean m, deviation s, gain g and shift h of each channel (Markus 2018,
    "Fusing batch normalization and convolution in runtime"). Only where a container runs one after the other.
    """
    for container in [one for one in net.modules() if isinstance(one, nn.Sequential)]:
        steps = list(_steps(container))
        for (holder, name, conv), (after, norm_name, norm) in pairwise(steps):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(holder, name, fuse_conv_bn_eval(conv, norm))
                setattr(after, norm_name, nn.Identity())


def _steps(container: nn.Sequential) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """What a container runs in order, containers within it unpacked: (holder, name in it, module)."""
    for name, module in container.named_children():
        if isinstance(module, nn.Sequential):
            yield from _steps(module)
        else:
            yield container, name, module
