"""Convolutional classifiers: LeNet-5 of 1998, a small modern network, VGG16 with its weights from a file.

Not LeCun's networks of 1989, see lecun; no download.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.networks.nets.basic_unet import TwoConv
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.errors import UserError
from retina_seg.models.blocks import CONVOLUTION
from retina_seg.models.vgg_unet import VGG16, load_encoder

# The maps of S2 that each map of C3 reads (LeCun 1998, table I).
C3_READS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def lenet_5(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """LeNet-5 (LeCun 1998, section II.B, figure 2): (N, C, 32, 32) or (N, C, 28, 28) to logits (N, K).

    Its layers bear the paper's names, `net.body.c1` to `net.body.f6`, and have the paper's numbers of weights: C1 156
    for one channel, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164. Images of 28 x 28 get two pixels of zeros all round.
    The paper's output units, which measure the distance to drawn digits, are replaced by an affine layer.

    Raises
    ------
    UserError
        For images of another size.
    """
    channels, height, width = in_shape
    if (height, width) not in ((28, 28), (32, 32)):
        raise UserError(
            f"LeNet-5 reads images of 28 x 28 or 32 x 32, got {height} x {width}: set data.size to 28 or 32, or choose "
            "another model"
        )
    body = OrderedDict[str, nn.Module](
        pad=nn.ZeroPad2d((32 - height) // 2),
        c1=nn.Sequential(nn.Conv2d(channels, 6, 5), _ScaledTanh()),  # (N, 6, 28, 28)
        s2=nn.Sequential(_Subsampling(6), _ScaledTanh()),  # (N, 6, 14, 14)
        c3=nn.Sequential(_PartialConvolution(C3_READS, 5), _ScaledTanh()),  # (N, 16, 10, 10)
        s4=nn.Sequential(_Subsampling(16), _ScaledTanh()),  # (N, 16, 5, 5)
        c5=nn.Sequential(nn.Conv2d(16, 120, 5), _ScaledTanh()),  # (N, 120, 1, 1)
        flatten=nn.Flatten(),
        f6=nn.Sequential(nn.Linear(120, 84), _ScaledTanh()),  # (N, 84)
    )
    return nn.Sequential(OrderedDict(body=nn.Sequential(body), head=nn.Linear(84, outputs)))


def small_cnn(
    in_shape: Sequence[int],
    outputs: int,
    *,
    features: Sequence[int] = (32, 64, 128),
    dropout: float = 0.0,
) -> nn.Sequential:
    """Stages of two 3 x 3 convolutions with batch norm (Ioffe 2015) and ReLU: (N, C, h, w) from 8 x 8 to (N, K).

    Max pooling halves the maps after every stage, unless a side would fall below two pixels. The head averages them
    (Lin 2014, global average pooling).

    Parameters
    ----------
    features : channels of each stage.
    dropout : probability, before the last layer.

    Raises
    ------
    UserError
        For smaller images.
    """
    c, height, width = in_shape
    if min(height, width) < 8:
        raise UserError(
            f"small_cnn reads images from 8 x 8, got {height} x {width}: set data.size to 8 or more, or choose another "
            "model"
        )
    if not features or min(features) < 1:
        raise ValueError(f"features needs one or more numbers above 0, got {list(features)}")
    side, layers = min(height, width), list[nn.Module]()
    for c_out in features:
        layers.append(TwoConv(2, c, c_out, **CONVOLUTION))
        c = c_out
        if side >= 4:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(c, outputs))
    return nn.Sequential(OrderedDict(body=nn.Sequential(*layers), head=head))


def vgg16(
    in_shape: Sequence[int],
    outputs: int,
    *,
    weights: str | None = None,
    hidden: int = 4096,
    pool: int = 7,
    dropout: float = 0.5,
) -> nn.Sequential:
    """VGG16 (Simonyan 2015, table 1, configuration D, without batch norm): (N, C, h, w) from 32 x 32 to (N, K).

    With the defaults, 3 channels and 1,000 classes it has the published 138 million weights. They come in
    torchvision's order: `net.body` is its `features`, and `net.head` its `classifier` two places further on.

    Parameters
    ----------
    weights : file of VGG16's weights with torchvision's names, or None for random ones. The convolutions begin with
        them, and so do the two hidden layers of the head where the file has both and both have its shapes. The last
        layer is always new. Images are standardised one by one, not as ImageNet's were: a frozen body sees other values
        than it has learnt from.
    hidden : units of the two hidden layers.
    pool : side of the grid the maps are averaged to before them, so that images need not be 224 x 224.
    dropout : probability, after each hidden layer.

    Raises
    ------
    UserError
        For images too small for five poolings; for weights that are missing, unreadable or not VGG16's.
    """
    channels, height, width = in_shape
    if min(height, width) < 32:
        raise UserError(
            f"vgg16 halves its maps five times and needs images from 32 x 32, got {height} x {width}: set data.size to "
            "32 or more, or choose another model"
        )
    if hidden < 1 or pool < 1:
        raise ValueError(f"hidden and pool must be at least 1, got {hidden} and {pool}")
    body = _vgg16_convolutions(channels)
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(pool),
        nn.Flatten(),
        nn.Linear(VGG16[-1][-1] * pool**2, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )
    if weights:
        load_encoder(body, weights)
        _load_hidden(head, Path(weights))
    return nn.Sequential(OrderedDict(body=body, head=head))


def _vgg16_convolutions(channels: int) -> nn.Sequential:
    """(N, C, h, w) to (N, 512, h / 32, w / 32)."""
    layers, c = list[nn.Module](), channels
    for block in VGG16:
        for c_out in block:
            layers += [nn.Conv2d(c, c_out, 3, padding=1), nn.ReLU(inplace=True)]
            c = c_out
        layers.append(nn.MaxPool2d(2))
    for layer in layers:
        # As in VGG16UNet: without batch norm the signal dies out unless the weights keep its size (He 2015).
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _load_hidden(head: nn.Sequential, path: Path) -> None:
    """Fill the hidden layers of VGG16's head from a file that `load_encoder` has read, if both fit."""
    loaded = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    given = {
        f"{number + 2}.{part}": loaded.get(f"classifier.{number}.{part}")
        for number in (0, 3)
        for part in ("weight", "bias")
    }
    own = head.state_dict()
    if all(tensor is not None and tensor.shape == own[key].shape for key, tensor in given.items()):
        head.load_state_dict({**own, **given})


class _ScaledTanh(nn.Module):
    """1.7159 tanh(2 x / 3), which is 1 at 1 and -1 at -1 (LeCun 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class _Subsampling(nn.Module):
    """Means over 2 x 2, times a weight and plus a bias of each map (LeCun 1998, section II.B)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) * self.weight + self.bias


class _PartialConvolution(nn.Module):
    """A convolution whose map k reads only the maps `reads[k]`; it has a kernel for each of these and no other."""

    places: Tensor

    def __init__(self, reads: Sequence[Sequence[int]], side: int) -> None:
        super().__init__()
        self.shape = (len(reads), 1 + max(map(max, reads)))  # maps written, maps read
        places = [k * self.shape[1] + one for k, few in enumerate(reads) for one in few]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        # Each kernel begins as in a PyTorch convolution with as many inputs as its map reads.
        bounds = torch.cat([torch.full((len(few),), (len(few) * side**2) ** -0.5) for few in reads])
        self.weight = nn.Parameter(bounds.view(-1, 1, 1) * (2 * torch.rand(len(places), side, side) - 1))
        self.bias = nn.Parameter(torch.zeros(len(reads)))

    def forward(self, x: Tensor) -> Tensor:
        written, read = self.shape
        kernels = self.weight.new_zeros(written * read, *self.weight.shape[1:])
        kernels = kernels.index_copy(0, self.places, self.weight).unflatten(0, (written, read))
        return F.conv2d(x, kernels, self.bias)
