"""U-Nets that weigh their features by place: attention gates and spatial attention.

No transformers.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import AttentionUnet as MonaiAttentionUNet
from monai.networks.nets.attentionunet import AttentionLayer
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.models.blocks import CONVOLUTION, pad


class AttentionUNet(nn.Module):
    """U-Net whose skip connections pass a gate set by the level below (Oktay 2018), MONAI's `AttentionUnet`.

    Parameters
    ----------
    channels : of each level; the grid is halved at every one but the first.
    dropout : probability, after every convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        channels: Sequence[int] = (16, 32, 48, 64, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.net = MonaiAttentionUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            dropout=dropout,
        )
        # MONAI normalises the merged features over each image: the padding, and how much of the photograph is
        # seen at once, would then change every pixel. Batch norm as in all other layers does not look around.
        for layer in self.net.modules():
            if isinstance(layer, AttentionLayer):
                conv = layer.merge.conv
                layer.merge = Convolution(2, conv.in_channels, conv.out_channels, dropout=dropout, **CONVOLUTION)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, self.multiple)
        return self.net(padded)[..., :height, :width]


class SAUNet(nn.Module):
    """SA-UNet: U-Net with DropBlock after every convolution and spatial attention at the bottom (Guo 2021).

    The defaults are the published network: 537,299 weights from 3 channels to 1; the paper's 538,707 count the
    running means and variances of the batch norms too.

    Parameters
    ----------
    features : channels of each level; the grid is halved at every one but the first.
    drop : share of the features DropBlock sets to zero in training.
    block_size : side of the squares in which it does.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        features: Sequence[int] = (16, 32, 64, 128),
        drop: float = 0.1,
        block_size: int = 7,
    ) -> None:
        super().__init__()
        if len(features) < 2 or min(features) < 1:
            raise ValueError(f"features needs at least 2 numbers above 0, got {list(features)}")

        def convolution(c: int, c_out: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(c, c_out, 3, padding=1),
                DropBlock(drop, block_size),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            )

        *levels, bottom = features
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(c, deeper), convolution(deeper, deeper))
            for c, deeper in pairwise((in_channels, *levels))
        )
        self.bottom = nn.ModuleList([convolution(levels[-1], bottom), convolution(bottom, bottom)])
        self.attention = SpatialAttention()
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c, higher, 3, stride=2, padding=1, output_padding=1)
            for c, higher in pairwise(reversed(features))
        )
        self.decoder = nn.ModuleList(nn.Sequential(convolution(2 * c, c), convolution(c, c)) for c in reversed(levels))
        self.head = nn.Conv2d(features[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        x, (height, width) = pad(image, 2 ** len(self.encoder))
        skips = []
        for level in self.encoder:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)  # (N, c, h / 2, w / 2)
        first, second = self.bottom
        x = first(x)
        x = second(x * self.attention(x))
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)[..., :height, :width]


class SpatialAttention(nn.Module):
    """One weight in (0, 1) for every place, from mean and maximum over the channels (Woo 2018, Guo 2021)."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`features` (N, C, h, w) to weights (N, 1, h, w)."""
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)  # (N, 2, h, w)
        return torch.sigmoid(self.convolution(pooled))


class DropBlock(nn.Module):
    """Dropout of whole squares, each channel its own (Ghiasi 2018); nothing happens in evaluation mode.

    Neighbouring features say the same, so that single ones are no loss.

    Parameters
    ----------
    drop : share of the features that is dropped.
    block_size : side of the squares; on smaller maps the shorter side of the map.
    """

    def __init__(self, drop: float, block_size: int) -> None:
        super().__init__()
        if not 0 <= drop < 1 or block_size < 1:
            raise ValueError(f"drop must be in [0, 1) and block_size at least 1, got {drop} and {block_size}")
        self.drop, self.block_size = drop, block_size

    def forward(self, features: Tensor) -> Tensor:
        """`features` (N, C, h, w), thinned."""
        if not self.training or not self.drop:
            return features
        height, width = features.shape[-2:]
        side = min(self.block_size, height, width)
        # Squares lie wholly inside, so that fewer of them must bring the same share (equation 1 of Ghiasi 2018).
        rows, columns = height - side + 1, width - side + 1
        rate = self.drop / side**2 * height * width / (rows * columns)
        corners = torch.rand(*features.shape[:2], rows, columns, device=features.device) < rate
        dropped = F.pad(corners, (side - 1,) * 4)
        for dim in (2, 3):
            dropped = _any_of_neighbours(dropped, side, dim)  # at last (N, C, h, w)
        kept = (~dropped).to(features.dtype)
        share = kept.mean(dtype=torch.float32).clamp(min=1e-6)  # in float32: half precision cannot count this far
        return features * (kept / share)


def _any_of_neighbours(marks: Tensor, side: int, dim: int) -> Tensor:
    """Whether one of `side` neighbours along `dim` is marked; that dim gets shorter by `side` - 1.

    By doubling the reach: a max-pooling took longer than the convolutions beside it.
    """
    reach = 1
    while reach < side:
        step = min(reach, side - reach)
        length = marks.shape[dim] - step
        marks = marks.narrow(dim, 0, length) | marks.narrow(dim, step, length)
        reach += step
    return marks
