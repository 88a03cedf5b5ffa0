"""Little W-Net: two small U-Nets in a row.

No other cascades.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.models.blocks import pad


class WNet(nn.Module):
    """Two small U-Nets; the second reads the image and the first one's logits (Galdran 2022).

    The defaults have the 68,482 weights of the published network from 3 channels to 1. Returned are the second
    one's logits. The authors also train the first one's against the truth; here it learns through the second.

    Parameters
    ----------
    features : channels of each level of both U-Nets; the grid is halved at every one but the first.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, *, features: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        if not features:
            raise ValueError("features needs at least 1 number, got none")
        self.multiple = 2 ** (len(features) - 1)
        self.first = _LittleUNet(in_channels, out_channels, features)
        self.second = _LittleUNet(in_channels + out_channels, out_channels, features)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, self.multiple)
        logits = self.second(torch.cat([padded, self.first(padded)], dim=1))  # reads (N, C + K, H, W)
        return logits[..., :height, :width]


class _LittleUNet(nn.Module):
    """U-Net of residual units, with a convolution on every skip connection."""

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int]) -> None:
        super().__init__()
        upwards = list(pairwise(reversed(features)))
        self.encoder = nn.ModuleList(_Residual(c, deeper) for c, deeper in pairwise((in_channels, *features)))
        self.bridges = nn.ModuleList(nn.Sequential(*_convolution(c, c)) for _, c in upwards)
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, higher, 2, stride=2) for c, higher in upwards)
        self.decoder = nn.ModuleList(_Residual(2 * c, c) for _, c in upwards)
        self.head = nn.Conv2d(features[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        first, *deeper = self.encoder
        levels = [first(image)]
        for level in deeper:
            levels.append(level(F.max_pool2d(levels[-1], 2)))  # (N, c, h / 2, w / 2)
        x = levels.pop()
        for up, bridge, level in zip(self.up, self.bridges, self.decoder, strict=True):
            x = level(torch.cat([up(x), bridge(levels.pop())], dim=1))
        return self.head(x)


class _Residual(nn.Module):
    """Two convolutions beside a 1 x 1 convolution."""

    def __init__(self, c: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(c, c_out), *_convolution(c_out, c_out))
        self.shortcut = nn.Sequential(nn.Conv2d(c, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features) + self.shortcut(features)


def _convolution(c: int, c_out: int) -> tuple[nn.Module, ...]:
    """The authors' order: ReLU before the batch norm."""
    return nn.Conv2d(c, c_out, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(c_out)
