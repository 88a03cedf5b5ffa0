"""What learnt models must beat: the pixel itself, and a vesselness filter with nothing to learn but its scale.

No networks.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.models.blocks import separable

# Pixels that choose a slope and a shift.
_CALIBRATED = 200_000


class Pixel(nn.Module):
    """Logistic regression on the channels of each pixel alone: the raw image as a classifier."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__()
        self.read = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        return self.read(image)


class Frangi(nn.Module):
    """The vesselness of dark lines (Frangi 1998, equation 15), the highest of all scales and channels.

        V = exp(-(l1 / l2)^2 / (2 beta^2)) (1 - exp(-(l1^2 + l2^2) / (2 c^2)))   where l2 > 0, else 0

    with the eigenvalues |l1| <= |l2| of sigma^2 times the Hessian under a Gaussian of sigma. Logits are slope V +
    shift, which `begin` takes from the training photographs (Platt 1999) and a training goes on with.

    Parameters
    ----------
    sigmas : standard deviations of the Gaussians, px.
    beta, c : of the formula; c in units of the image.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        sigmas: Sequence[float] = (1.0, 1.5, 2.0, 3.0),
        beta: float = 0.5,
        c: float = 1.0,
    ) -> None:
        super().__init__()
        if not sigmas or min(sigmas) <= 0 or beta <= 0 or c <= 0:
            raise ValueError(f"sigmas, beta and c must be above 0, got {list(sigmas)}, {beta}, {c}")
        self.sigmas, self.beta, self.c = tuple(sigmas), beta, c
        self.slope = nn.Parameter(torch.full((out_channels, 1, 1), 8.0))
        self.shift = nn.Parameter(torch.full((out_channels, 1, 1), -3.0))

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        return self.slope * self.vesselness(image) + self.shift

    @torch.no_grad()
    def vesselness(self, image: Tensor) -> Tensor:
        """V of `image` (N, C, H, W), (N, 1, H, W) in [0, 1]."""
        found = [self._at(image, sigma).amax(dim=1, keepdim=True) for sigma in self.sigmas]
        return torch.stack(found).amax(dim=0)

    def _at(self, image: Tensor, sigma: float) -> Tensor:
        yy, xx, xy = (sigma**2 * _derivative(image, sigma, order) for order in ((2, 0), (0, 2), (1, 1)))
        middle, spread = (yy + xx) / 2, torch.sqrt(((yy - xx) / 2) ** 2 + xy**2)
        first, second = middle - spread, middle + spread
        larger = torch.where(second.abs() >= first.abs(), second, first)
        smaller = torch.where(second.abs() >= first.abs(), first, second)
        ratio = smaller / torch.where(larger == 0, 1, larger)
        shape = torch.exp(-(ratio**2) / (2 * self.beta**2))
        strength = 1 - torch.exp(-(smaller**2 + larger**2) / (2 * self.c**2))
        return torch.where(larger > 0, shape * strength, 0)

    @torch.no_grad()
    def begin(self, images: Sequence[Sequence[Tensor]], seed: int) -> None:
        """Slope and shift from image (C, h, w), target (K, h, w), field of view (h, w) of each photograph."""
        values = torch.cat([self.vesselness(image[None])[0, 0][fov.bool()] for image, _, fov in images])
        truth = torch.cat([target[:, fov.bool()] for _, target, fov in images], dim=1)
        for k, (slope, shift) in enumerate(platt(values.expand(len(truth), -1), truth, seed)):
            self.slope[k], self.shift[k] = slope, shift


def platt(values: Tensor, truth: Tensor, seed: int) -> list[tuple[float, float]]:
    """Slope and shift of each of K rows (n,) that make slope value + shift logits of the truth (Platt 1999).

    values, truth : (K, n); truth in [0, 1], marked from one half. Of a row in which nothing or everything is marked
    nothing can be learnt: slope 1, shift 0.
    """
    rng = np.random.default_rng(seed)
    chosen = torch.from_numpy(rng.choice(values.shape[1], min(_CALIBRATED, values.shape[1]), replace=False))
    found = []
    for value, marked in zip(values[:, chosen].numpy(), truth[:, chosen].numpy() >= 0.5, strict=True):
        if not 0 < np.count_nonzero(marked) < len(marked):
            found.append((1.0, 0.0))
            continue
        fitted = LogisticRegression(C=1e6).fit(value[:, None], marked)
        found.append((float(fitted.coef_[0, 0]), float(fitted.intercept_[0])))
    return found


def _derivative(image: Tensor, sigma: float, order: tuple[int, int]) -> Tensor:
    """Derivatives along (y, x) of `image` (N, C, H, W) under a Gaussian of 4 standard deviations, edges repeated."""
    reach = math.ceil(4 * sigma)
    down, along = (_taps(sigma, reach, one).to(image) for one in order)
    return separable(F.pad(image, (reach, reach, reach, reach), mode="replicate"), down, along)


def _taps(sigma: float, reach: int, order: int) -> Tensor:
    """The Gaussian or its first or second derivative at whole pixels, for correlation."""
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (x / sigma) ** 2)
    taps = taps / taps.sum()
    return (taps, taps * x / sigma**2, taps * (x**2 - sigma**2) / sigma**4)[order]
