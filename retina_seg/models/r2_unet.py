"""R2U-Net: a U-Net of recurrent residual units.

No other residual networks; the strided one is in unet.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.models.blocks import pad


class R2UNet(nn.Module):
    """U-Net whose every level runs two recurrent convolutions inside a residual unit (Alom 2018).

    The recurrence reads deeper without more weights: one kernel is used `recurrences` + 1 times.

    Parameters
    ----------
    features : channels of each level; the grid is halved at every one but the first.
    recurrences : t of the paper; 0 makes it a residual U-Net.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        features: Sequence[int] = (16, 32, 64, 128),
        recurrences: int = 2,
    ) -> None:
        super().__init__()
        if not features or recurrences < 0:
            raise ValueError(f"expected features and recurrences of at least 0, got {list(features)}, {recurrences}")
        upwards = list(pairwise(reversed(features)))
        self.encoder = nn.ModuleList(
            _RecurrentResidual(c, deeper, recurrences) for c, deeper in pairwise((in_channels, *features))
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, higher, 2, stride=2) for c, higher in upwards)
        self.decoder = nn.ModuleList(_RecurrentResidual(2 * c, c, recurrences) for _, c in upwards)
        self.head = nn.Conv2d(features[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        x, (height, width) = pad(image, 2 ** len(self.up))
        first, *deeper = self.encoder
        levels = [first(x)]
        for level in deeper:
            levels.append(level(F.max_pool2d(levels[-1], 2)))  # (N, c, h / 2, w / 2)
        x = levels.pop()
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([levels.pop(), up(x)], dim=1))
        return self.head(x)[..., :height, :width]


class _RecurrentResidual(nn.Module):
    """x + R(R(x)) with two recurrent convolutions R; a 1 x 1 convolution first brings x to `c_out`."""

    def __init__(self, c: int, c_out: int, recurrences: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(c, c_out, 1)
        self.body = nn.Sequential(_Recurrent(c_out, recurrences), _Recurrent(c_out, recurrences))

    def forward(self, features: Tensor) -> Tensor:
        entry = self.entry(features)
        return entry + self.body(entry)


class _Recurrent(nn.Module):
    """A convolution of the input, then of the input plus what came out before.

    One kernel reads both, where the paper's equation has one for each. Every pass has a batch norm of its own: the
    features differ from pass to pass, and running means over all of them would fit none (Cooijmans 2017).
    """

    def __init__(self, c: int, recurrences: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(recurrences + 1))

    def forward(self, features: Tensor) -> Tensor:
        first, *later = self.norms
        state = F.relu(first(self.convolution(features)))
        for norm in later:
            state = F.relu(norm(self.convolution(features + state)))
        return state
