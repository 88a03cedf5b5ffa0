"""Swin UNETR: a transformer of shifted windows as encoder, a convolutional decoder.

No other transformers.
"""

from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn

from retina_seg.models.blocks import pad


class SwinUNETR(nn.Module):
    """Swin transformer with skip connections to a convolutional decoder (Hatamizadeh 2022), MONAI's `SwinUNETR`.

    Parameters
    ----------
    feature_size : channels of the first level, a multiple of 12; every level below has twice as many.
    window_size : side of the windows in which tokens see each other, in tokens.
    dropout : probability, on the tokens.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        feature_size: int = 12,
        window_size: int = 7,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if window_size < 1:
            raise ValueError(f"window_size must be at least 1, got {window_size}")
        # MONAI's default normalises the decoder over each image, see AttentionUNet; batch norm does not.
        self.net = MonaiSwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            spatial_dims=2,
            feature_size=feature_size,
            window_size=window_size,
            drop_rate=dropout,
            norm_name="batch",
        )

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 32)
        return self.net(padded)[..., :height, :width]
