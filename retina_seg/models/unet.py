"""U-Nets, MONAI's with the arguments this project uses and inputs of any size.

No cascades, no attention and no recurrence: each family has its own file.
"""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from monai.networks.nets import UNet as MonaiUNet
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.models.blocks import CONVOLUTION, pad


class UNet(nn.Module):
    """U-Net with two convolutions a level and skip connections (Ronneberger 2015), MONAI's `BasicUNet`.

    Parameters
    ----------
    features : channels of the five encoder levels and of the last decoder level.
    stem : side of the pixel block that is folded into channels before the network and unfolded after it
        (Shi 2016, pixel shuffle); 2 runs the network on half the grid with all the pixels, 1 leaves it out.
    dropout : probability, after every convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        features: Sequence[int] = (16, 32, 48, 64, 64, 16),
        stem: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_features(features)
        if stem < 1:
            raise ValueError(f"stem must be at least 1, got {stem}")
        self.stem = stem
        self.net = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels * stem**2,
            out_channels=out_channels * stem**2,
            features=tuple(features),
            dropout=dropout,
            **CONVOLUTION,
        )

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 16 * self.stem)
        if self.stem > 1:
            padded = F.pixel_unshuffle(padded, self.stem)  # (N, C s^2, H / s, W / s)
        logits = self.net(padded)
        if self.stem > 1:
            logits = F.pixel_shuffle(logits, self.stem)  # (N, K, H, W)
        return logits[..., :height, :width]


def folded_unet(in_channels: int = 3, out_channels: int = 1, *, width: int = 32, dropout: float = 0.0) -> UNet:
    """`UNet` on half the grid (`stem=2`) with twice the channels in its first level: for speed.

    Most of a U-Net's time goes into the level on the full grid, which is left out here. No pixel is: each enters
    as one of four channels in its place, and gets a logit of its own at the end (Shi 2016, pixel shuffle).

    Parameters
    ----------
    width : channels of the first level, even; the levels have 1, 1, 1.5, 2, 2 times as many, the last decoder
        level as many.
    dropout : probability, after every convolution.
    """
    if width < 2 or width % 2:
        raise ValueError(f"width must be an even number above 0, got {width}")
    features = (width, width, 3 * width // 2, 2 * width, 2 * width, width)
    return UNet(in_channels, out_channels, features=features, stem=2, dropout=dropout)


class UNetWithoutSkips(nn.Module):
    """The encoder and decoder of `UNet` without its skip connections: what these are worth, by leaving them out.

    Parameters
    ----------
    features : channels of the five encoder levels and of the last decoder level.
    dropout : probability, after every convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        features: Sequence[int] = (16, 32, 48, 64, 64, 16),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_features(features)
        *levels, last = features
        self.encoder = nn.Sequential(
            TwoConv(2, in_channels, levels[0], dropout=dropout, **CONVOLUTION),
            *(Down(2, c, deeper, dropout=dropout, **CONVOLUTION) for c, deeper in pairwise(levels)),
        )
        upwards = list(zip(levels[:0:-1], [*levels[-2:0:-1], last], strict=True))
        self.decoder = nn.ModuleList(
            UpCat(2, c, 0, higher, dropout=dropout, halves=level < len(upwards) - 1, **CONVOLUTION)
            for level, (c, higher) in enumerate(upwards)
        )
        self.head = nn.Conv2d(last, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 16)
        x = self.encoder(padded)  # (N, c, H / 16, W / 16)
        for up in self.decoder:
            x = up(x, None)
        return self.head(x)[..., :height, :width]


class UNetPlusPlus(nn.Module):
    """U-Net with nested skip connections (Zhou 2018), MONAI's `BasicUNetPlusPlus`; the logits of the last node.

    The other nodes' logits, for deep supervision, are left out.

    Parameters
    ----------
    features : channels of the five encoder levels and of the last node.
    dropout : probability, after every convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        features: Sequence[int] = (16, 32, 48, 64, 64, 16),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_features(features)
        self.net = BasicUNetPlusPlus(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            features=tuple(features),
            dropout=dropout,
            **CONVOLUTION,
        )
        # MONAI computes the logits of the other nodes even where nobody wants them; their weights would not learn.
        for node in (1, 2, 3):
            setattr(self.net, f"final_conv_0_{node}", nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 16)
        (logits,) = self.net(padded)
        return logits[..., :height, :width]


class ResidualUNet(nn.Module):
    """U-Net of strided residual units (Kerfoot 2018), MONAI's `UNet`: quick on a CPU, coarse in its first level.

    Parameters
    ----------
    channels : of each level; the grid is halved at every one but the last.
    residual_units : convolutions in each unit.
    dropout : probability, after every convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        channels: Sequence[int] = (16, 32, 64, 128),
        residual_units: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.net = MonaiUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=residual_units,
            norm="batch",
            dropout=dropout,
        )

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, self.multiple)
        return self.net(padded)[..., :height, :width]


def _check_features(features: Sequence[int]) -> None:
    if len(features) != 6:
        raise ValueError(f"features needs 6 numbers, got {list(features)}")
