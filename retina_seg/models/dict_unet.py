"""A learnt dictionary as the first layer of a U-Net.

The learning of atoms is in atoms.py; iterated sparse codes are in csc_unet.py.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg import atoms, sparse
from retina_seg.models.blocks import pad
from retina_seg.models.csc_unet import CodesAndPixels


class DictUNet(nn.Module):
    """What a dictionary answers, beside the image itself, read by a U-Net.

        h = ReLU(D * x - b),   logits = UNet([h, x])

    which is one step of sparse coding from 0, up to its scale (`sparse.iterations`). The atoms are learnt from patches
    of the training photographs before the first step (`begin`).

    Parameters
    ----------
    mode : "frozen", atoms that stay as they were learnt; "initialised", atoms that the training goes on with;
        "random", directions at random that the training goes on with: the control.
    learner : in `atoms.LEARNERS`.
    count, side, stride : number of atoms, their side in px (odd), distance of the places where they are asked.
    penalty : of the learner's codes, and b at the beginning; b is trained in every mode.
    features : channels of the five encoder levels and of the last decoder level of the U-Net.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        mode: Literal["frozen", "initialised", "random"] = "initialised",
        learner: str = "online",
        count: int = 32,
        side: int = 9,
        stride: int = 2,
        penalty: float = 0.25,
        features: Sequence[int] = (32, 32, 48, 64, 64, 32),
    ) -> None:
        super().__init__()
        if mode not in ("frozen", "initialised", "random") or learner not in atoms.LEARNERS:
            raise ValueError(f"mode {mode!r} or learner {learner!r} is unknown")
        if side < 1 or side % 2 == 0 or stride < 1:
            raise ValueError(f"side must be odd and above 0, stride above 0, got {side} and {stride}")
        if count < 1 or penalty < 0:
            raise ValueError(f"count {count} must be above 0, penalty {penalty} at least 0")
        self.mode, self.learner, self.penalty = mode, learner, penalty
        directions = sparse.unit(torch.randn(count, in_channels, side, side))
        self.atoms = nn.Parameter(directions, requires_grad=mode != "frozen")  # (K, C, side, side)
        self.bias = nn.Parameter(torch.full((count, 1, 1), float(penalty)))
        self.stride = stride
        self.net = CodesAndPixels(count, in_channels, out_channels, stride=stride, features=features)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        padded, (height, width) = pad(image, 16 * self.stride)
        dictionary = sparse.Convolutional(self.atoms, (padded.shape[2], padded.shape[3]), self.stride)
        answers = F.relu(dictionary.folded().correlate(dictionary.fold(padded)) - self.bias)
        return self.net(answers, padded)[..., :height, :width]

    def begin(self, images: Sequence[Sequence[Tensor]], seed: int) -> None:
        """Learn the atoms from image (C, h, w), target (K, h, w), field of view (h, w) of each photograph."""
        if self.mode == "random":
            return
        rng, number = np.random.default_rng(seed), max(1, _PATCHES // len(images))
        drawn = [_patches(image, fov, self.atoms.shape[-1], rng, number) for image, _, fov in images]
        count, channels, side, _ = self.atoms.shape
        found = atoms.learn(self.learner, np.concatenate(drawn), count, penalty=self.penalty, seed=seed)
        with torch.no_grad():
            self.atoms.copy_(torch.from_numpy(found.atoms).view(count, channels, side, side))


# Patches that teach the atoms.
_PATCHES = 30_000


def _patches(
    image: Tensor, fov: Tensor, side: int, rng: np.random.Generator, number: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Patches (n, C side^2) of an image (C, h, w) around places drawn inside its field of view, without their means."""
    chosen = torch.from_numpy(atoms.places(fov.numpy(), rng, number))
    signals = F.unfold(image[None], side, padding=side // 2)[0].T[chosen].view(len(chosen), len(image), side**2)
    return (signals - signals.mean(dim=2, keepdim=True)).flatten(1).numpy()
