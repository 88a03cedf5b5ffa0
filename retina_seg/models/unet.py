"""U-Nets, MONAI's with the arguments this project uses and inputs of any size.

No cascades and no attention: each family has its own file.
"""

from collections.abc import Sequence

from monai.networks.nets import BasicUNet
from monai.networks.nets import UNet as MonaiUNet
from torch import Tensor, nn
from torch.nn import functional as F


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
        if len(features) != 6:
            raise ValueError(f"features needs 6 numbers, got {list(features)}")
        self.stem = stem
        self.net = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels * stem**2,
            out_channels=out_channels * stem**2,
            features=tuple(features),
            act=("relu", {"inplace": True}),
            norm="batch",
            bias=False,
            dropout=dropout,
        )

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = _pad(image, 16 * self.stem)
        if self.stem > 1:
            padded = F.pixel_unshuffle(padded, self.stem)  # (N, C s^2, H / s, W / s)
        logits = self.net(padded)
        if self.stem > 1:
            logits = F.pixel_shuffle(logits, self.stem)  # (N, K, H, W)
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
        padded, (height, width) = _pad(image, self.multiple)
        return self.net(padded)[..., :height, :width]


def _pad(image: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """`image` with zeros below and to the right up to a multiple of `multiple`, and its own (H, W)."""
    height, width = image.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return (F.pad(image, padding) if any(padding) else image), (height, width)
