"""Pieces several networks share: inputs of any size and the settings of MONAI's convolutions.

No network and no layer that belongs to one network alone.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

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
