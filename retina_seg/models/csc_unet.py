"""Convolutional sparse coding unrolled into a network, in front of a U-Net.

The iterations themselves are in sparse.py; no learning of atoms but by the gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from monai.networks.nets import BasicUNet
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg import sparse
from retina_seg.models.blocks import CONVOLUTION, pad


class SparseCode(nn.Module):
    """A convolutional dictionary whose codes of an image are the layer's output.

    z = the codes after `steps` iterations of FISTA from 0, all at least 0, of
        min over z >= 0 of 1/2 |x - D z|^2 + sum over k of penalty_k |z_k|_1
    with atoms d_k = v_k / |v_k| and penalty_k = softplus(rho_k): the scale cannot escape, whatever the gradient does.
    Gradients pass through every iteration (Gregor & LeCun 2010; Sreter & Giryes 2018, equation 7).

    Parameters
    ----------
    channels : C of the images.
    atoms : K.
    side : of an atom, px, odd.
    steps : iterations; more may be asked for after the training (`steps` is an attribute).
    penalty : at the beginning, of every atom, in units of the images.
    stride : distance of neighbouring places of an atom, px.
    """

    def __init__(self, channels: int, atoms: int, *, side: int, steps: int, penalty: float, stride: int = 1) -> None:
        super().__init__()
        if side < 1 or side % 2 == 0:
            raise ValueError(f"side must be odd and above 0, got {side}")
        if min(atoms, steps, stride) < 1 or penalty <= 0:
            raise ValueError(f"atoms {atoms}, steps {steps}, penalty {penalty} and stride {stride} must be above 0")
        self.steps, self.stride = steps, stride
        self.penalty_factor = 1.0  # raises every penalty after the training
        self.directions = nn.Parameter(sparse.unit(torch.randn(atoms, channels, side, side)))  # v
        self.slopes = nn.Parameter(torch.full((atoms,), math.log(math.expm1(penalty))))  # rho

    @property
    def atoms(self) -> Tensor:
        """The atoms (K, C, s, s), of norm 1."""
        return sparse.unit(self.directions)

    @property
    def penalties(self) -> Tensor:
        """The penalty of each atom, (K,)."""
        return self.penalty_factor * F.softplus(self.slopes)

    def dictionary(self, size: Sequence[int]) -> sparse.Convolutional:
        """The dictionary for images of (H, W)."""
        height, width = size
        return sparse.Convolutional(self.atoms, (height, width), self.stride)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`image` (N, C, H, W) to codes (N, K, h, w) and to what they make of it, (N, C, H, W)."""
        with torch.autocast(image.device.type, enabled=False):  # thresholds of half precision would be coarse
            dictionary = self.dictionary(image.shape[-2:])
            folded, pixels = dictionary.folded(), dictionary.fold(image.float())
            # Several times as fast as channels first, on the CPU.
            atoms = folded.atoms.contiguous(memory_format=torch.channels_last)
            folded, pixels = replace(folded, atoms=atoms), pixels.contiguous(memory_format=torch.channels_last)
            with torch.no_grad():  # a bound, not a weight
                gain = folded.gain()
            penalty = self.penalties.view(-1, 1, 1)
            codes = sparse.code(pixels, folded, penalty, self.steps, nonnegative=True, gain=gain)
            return codes, dictionary.unfold(folded.synthesise(codes))


class CSCUNet(nn.Module):
    """Sparse codes of the image and the image itself, read by a U-Net.

        z = SparseCode(x),   xhat = D z,   logits = UNet([norm(z), x])

    Trained with the segmentation's loss plus `reconstruction_weight` times the mean of (xhat - x)^2 over the field of
    view (`own_loss`), so that the atoms stay able to rebuild the photograph. With a stride s the U-Net works on the
    coarser grid of the codes: every block of s x s pixels enters as channels beside them and has its own logits.

    Parameters
    ----------
    atoms, side, steps, penalty, stride : see `SparseCode`.
    reconstruction_weight : mu; 0 leaves the reconstruction out of the loss.
    features : channels of the five encoder levels and of the last decoder level of the U-Net.
    blocks : every pair of convolutions of the encoder is a SparseCode too, of two iterations with atoms of 3 x 3
        (after Liu 2021, CSC-Unet), `features` its numbers of atoms.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        atoms: int = 32,
        side: int = 9,
        steps: int = 5,
        penalty: float = 0.3,
        stride: int = 2,
        reconstruction_weight: float = 0.05,
        features: Sequence[int] = (32, 32, 48, 64, 64, 32),
        blocks: bool = False,
    ) -> None:
        super().__init__()
        if reconstruction_weight < 0:
            raise ValueError(f"reconstruction_weight must be at least 0, got {reconstruction_weight}")
        self.coder = SparseCode(in_channels, atoms, side=side, steps=steps, penalty=penalty, stride=stride)
        self.stride, self.reconstruction_weight = stride, reconstruction_weight
        self._misfit: Tensor | None = None
        self.net = CodesAndPixels(atoms, in_channels, out_channels, stride=stride, features=features, blocks=blocks)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 16 * self.stride)
        codes, rebuilt = self.coder(padded)
        if self.training:
            self._misfit = (rebuilt - padded)[..., :height, :width].square().mean(dim=1, keepdim=True)
        return self.net(codes, padded)[..., :height, :width]

    def recode(self, steps: int | None, penalty_factor: float) -> None:
        """See `models.Recodes`."""
        self.coder.steps, self.coder.penalty_factor = steps or self.coder.steps, penalty_factor

    def own_loss(self, fov: Tensor) -> Tensor:
        """What the training adds to its loss for the images of the last forward pass; `fov` (N, 1, H, W)."""
        misfit, self._misfit = self._misfit, None
        if misfit is None:
            raise RuntimeError("own_loss belongs to a forward pass in training mode: there was none")
        return self.reconstruction_weight * (misfit * fov).sum() / fov.sum().clamp(min=1)


class CodesAndPixels(nn.Module):
    """A U-Net that reads codes beside the pixels they stand for, on the grid of the codes.

    Parameters
    ----------
    codes, in_channels, out_channels : channels of the codes, the image and the logits.
    stride : pixels of the image for one of the codes, in both directions; every block of pixels enters as channels.
    features : see `CSCUNet`.
    blocks : see `CSCUNet`.
    """

    def __init__(
        self,
        codes: int,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        features: Sequence[int],
        blocks: bool = False,
    ) -> None:
        super().__init__()
        if len(features) != 6:
            raise ValueError(f"features needs 6 numbers, got {list(features)}")
        self.stride, self.norm = stride, nn.BatchNorm2d(codes)
        reads, gives = codes + in_channels * stride**2, out_channels * stride**2
        self.net = (
            _CodedUNet(reads, gives, features)
            if blocks
            else BasicUNet(
                spatial_dims=2, in_channels=reads, out_channels=gives, features=tuple(features), **CONVOLUTION
            )
        )

    def forward(self, codes: Tensor, image: Tensor) -> Tensor:
        """Codes (N, K, H / stride, W / stride) and image (N, C, H, W) to logits (N, K', H, W)."""
        pixels = F.pixel_unshuffle(image, self.stride) if self.stride > 1 else image
        # With one channel memory says nothing of its order; torch would go on with channels first, slowly.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        logits = self.net(torch.cat([self.norm(codes), pixels], dim=1))
        return F.pixel_shuffle(logits, self.stride) if self.stride > 1 else logits


class _CodedUNet(nn.Module):
    """MONAI's `BasicUNet` with a SparseCode in the place of every pair of convolutions on the way down."""

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int]) -> None:
        super().__init__()
        *levels, last = features
        self.coders = nn.ModuleList(
            SparseCode(c, atoms, side=3, steps=2, penalty=0.1) for c, atoms in pairwise((in_channels, *levels))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(atoms) for atoms in levels)
        upwards = list(zip(levels[:0:-1], levels[-2::-1], [*levels[-2:0:-1], last], strict=True))
        self.decoder = nn.ModuleList(
            UpCat(2, c, skipped, higher, halves=level < len(upwards) - 1, dropout=0.0, **CONVOLUTION)
            for level, (c, skipped, higher) in enumerate(upwards)
        )
        self.head = nn.Conv2d(last, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for coder, norm in zip(self.coders, self.norms, strict=True):
            codes, _ = coder(F.max_pool2d(skips[-1], 2) if skips else x)
            skips.append(norm(codes))  # (N, c, h / 2^level, w / 2^level)
        x = skips.pop()
        for up in self.decoder:
            x = up(x, skips.pop())
        return self.head(x)
