"""U-Net on the convolutions of VGG16, and its weights from a file in torchvision's layout.

No classifier, no download.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from monai.networks.nets.basic_unet import UpCat
from safetensors.torch import load_file
from torch import Tensor, nn

from retina_seg.errors import UserError
from retina_seg.models.blocks import CONVOLUTION, pad

# Configuration D (Simonyan 2015, table 1): output channels of the convolutions between the poolings.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16UNet(nn.Module):
    """U-Net whose encoder is the 13 convolutions of VGG16 (Simonyan 2015, configuration D without batch norm).

    The encoder's weights have torchvision's names, `features.0.weight` to `features.28.bias`. Those trained on
    ImageNet read other normalised colours than ours; training the whole network on makes up for it.

    Parameters
    ----------
    decoder : channels of the four decoder levels, from coarse to fine.
    dropout : probability, after every convolution of the decoder.
    weights : file of VGG16's weights for the encoder, or None for random ones; see `load_encoder`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        decoder: Sequence[int] = (256, 128, 64, 32),
        dropout: float = 0.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if len(decoder) != 4:
            raise ValueError(f"decoder needs 4 numbers, got {list(decoder)}")
        layers: list[nn.Module] = []
        c = in_channels
        for level, block in enumerate(VGG16):
            if level:
                layers.append(nn.MaxPool2d(2))
            for c_out in block:
                layers += [nn.Conv2d(c, c_out, 3, padding=1), nn.ReLU(inplace=True)]
                c = c_out
        self.features = nn.Sequential(*layers)
        for layer in self.features:
            # Without batch norm the signal dies out in 13 layers unless the weights keep its size (He 2015).
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        skips = [block[-1] for block in VGG16[-2::-1]]
        self.up = nn.ModuleList(
            UpCat(2, below, skip, c_out, dropout=dropout, **CONVOLUTION)
            for (below, c_out), skip in zip(pairwise((c, *decoder)), skips, strict=True)
        )
        self.head = nn.Conv2d(decoder[-1], out_channels, 1)
        if weights is not None:
            load_encoder(self.features, weights)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        x, (height, width) = pad(image, 16)
        skips = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x)[..., :height, :width]


def load_encoder(features: nn.Sequential, weights: str | Path) -> None:
    """Fill `features` from a .safetensors file or one of `torch.save`, as torchvision's `vgg16` names its weights.

    Keys of the classifier are passed over; nothing in the file is executed.

    Raises
    ------
    UserError
        For a file that is missing or unreadable, and for other names or shapes than VGG16's.
    """
    path = Path(weights)
    wanted = "expected torchvision's vgg16 weights (features.0.weight to features.28.bias) as .pth or .safetensors"
    if not path.is_file():
        raise UserError(f"there is no file {path} with weights for the encoder: {wanted}")
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # its text may tell how to run what is in the file
        raise UserError(f"{path} cannot be read as weights: {wanted}") from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise UserError(f"{path} holds no weights by name: {wanted}")
    given = {key: tensor for key, tensor in loaded.items() if not key.startswith("classifier.")}
    own = {f"features.{key}": tensor for key, tensor in features.state_dict().items()}
    problems = [f"{key} is missing" for key in own if key not in given]
    problems += [f"{key} has no place" for key in given if key not in own]
    problems += [
        f"{key} has shape {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{path} does not fit the encoder: {', '.join(problems[:3])}{more}; {wanted}")
    features.load_state_dict({key.removeprefix("features."): tensor for key, tensor in given.items()})
