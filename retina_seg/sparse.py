"""Sparse coding: a signal x as a sum of few atoms of a dictionary D, found by iterative shrinkage.

    min over z of 1/2 |x - D z|^2 + sum |penalty z|                                                           (1)

The iterations and what they need, to be read beside the papers; no learning of atoms, no network, no photographs.
Beck & Teboulle 2009, SIAM J. Imaging Sci. 2(1) (ISTA, FISTA); Gregor & LeCun 2010 (a fixed number of iterations as
layers); Sreter & Giryes 2018 (the same with convolutions).
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Frequencies an axis for each pixel of an atom beyond the first, at which the gain of a convolutional dictionary is
# looked up, and how often matrices are squared to bound their largest eigenvalue.
_FREQUENCIES, _SQUARED = 16, 6


def unit(atoms: Tensor) -> Tensor:
    """Each of the K atoms (K, ...) divided by its norm, so that the penalty means the same for all; 0 stays 0."""
    norms = torch.linalg.vector_norm(atoms.flatten(1), dim=1)  # (K,)
    return atoms / norms.clamp(min=1e-12).view(-1, *[1] * (atoms.ndim - 1))


def shrink(values: Tensor, threshold: Tensor | float, *, nonnegative: bool) -> Tensor:
    """The proximal map of the penalty: values moved towards 0 by the threshold, those below it are 0.

    Both signs: sign(v) max(|v| - t, 0) (Beck & Teboulle, equation 1.5); `nonnegative`: max(v - t, 0).
    """
    if nonnegative:
        return F.relu(values - threshold)
    return values - torch.minimum(torch.maximum(values, -_tensor(threshold, values)), _tensor(threshold, values))


def _tensor(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _largest(matrices: Tensor) -> Tensor:
    """An upper bound of the largest eigenvalue of positive semidefinite Hermitian matrices (..., n, n), (...).

    With the Frobenius norm, lambda(G) = lambda(G^p)^(1/p) <= |G^p|^(1/p) <= n^(1/2p) lambda(G): p = 64 is within 3 %
    for n = 64, and takes a fraction of the time of the eigenvalues.
    """
    result = matrices.new_zeros(matrices.shape[:-2], dtype=matrices.real.dtype)
    for squared in range(_SQUARED + 1):
        norm = torch.linalg.matrix_norm(matrices).clamp(min=torch.finfo(result.dtype).tiny)
        result = result + norm.log() / 2**squared
        if squared < _SQUARED:
            matrices = matrices / norm[..., None, None]
            matrices = matrices @ matrices
    return result.exp()


@dataclass(frozen=True, eq=False)
class Patches:
    """A dictionary of signals of P numbers: D z = z A.

    Attributes
    ----------
    atoms : A, float (K, P).
    """

    atoms: Tensor

    def synthesise(self, codes: Tensor) -> Tensor:
        """D z: codes (n, K) to signals (n, P)."""
        return codes @ self.atoms

    def correlate(self, signals: Tensor) -> Tensor:
        """D^T r, the adjoint of `synthesise`: signals (n, P) to codes (n, K)."""
        return signals @ self.atoms.T

    def gain(self) -> Tensor:
        """The largest eigenvalue of D^T D, a scalar: the Lipschitz constant of the gradient of (1)."""
        smaller = self.atoms if self.atoms.shape[0] < self.atoms.shape[1] else self.atoms.T
        return torch.linalg.eigvalsh(smaller @ smaller.T)[-1]


@dataclass(frozen=True, eq=False)
class Convolutional:
    """A dictionary of small pictures at every place, or at every `stride`-th: D z = sum over k of z_k * d_k.

    Outside the image there is nothing: no code, and a signal of 0.

    Attributes
    ----------
    atoms : d, float (K, C, s, s).
    size : (H, W) of the images.
    stride : distance of neighbouring places, px.
    padding : places beyond the first pixel, px; None for s // 2, which puts an atom of odd s around its place.
    """

    atoms: Tensor
    size: tuple[int, int]
    stride: int = 1
    padding: int | None = None

    @property
    def _padding(self) -> int:
        return self.atoms.shape[-1] // 2 if self.padding is None else self.padding

    def synthesise(self, codes: Tensor) -> Tensor:
        """D z: codes (N, K, h, w) to images (N, C, H, W)."""
        side, padding = self.atoms.shape[-1], self._padding
        spare = [
            full - ((places - 1) * self.stride - 2 * padding + side)
            for full, places in zip(self.size, codes.shape[-2:], strict=True)
        ]
        return F.conv_transpose2d(codes, self.atoms, stride=self.stride, padding=padding, output_padding=spare)

    def correlate(self, images: Tensor) -> Tensor:
        """D^T r, the adjoint of `synthesise`: images (N, C, H, W) to codes (N, K, h, w), h = ceil(H / stride)."""
        return F.conv2d(images, self.atoms, stride=self.stride, padding=self._padding)

    def folded(self) -> "Convolutional":
        """The same dictionary with a stride of 1, for `fold`ed images: the same codes, found several times as fast.

        ValueError where `padding` would give other places than one for every stride-th pixel.
        """
        if self.stride == 1:
            return self
        height, width = self.size
        size = -(-height // self.stride), -(-width // self.stride)
        padding = -(-self._padding // self.stride)
        atoms = self._phases()
        if (missing := 2 * padding + 1 - atoms.shape[-1]) < 0:
            raise ValueError(f"atoms of {self.atoms.shape[-1]} px with padding {self._padding} cannot be folded")
        return Convolutional(F.pad(atoms, (0, missing, 0, missing)), size, padding=padding)

    def _phases(self) -> Tensor:
        """The atoms with every stride-th pixel as a channel, (K, C stride^2, ., .)."""
        before = -self._padding % self.stride
        behind = -(self.atoms.shape[-1] + before) % self.stride
        return F.pixel_unshuffle(F.pad(self.atoms, (before, behind, before, behind)), self.stride)

    def fold(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) with every block of stride x stride pixels as channels, (N, C stride^2, h, w)."""
        height, width = self.size
        padded = F.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        return F.pixel_unshuffle(padded, self.stride)

    def unfold(self, folded: Tensor) -> Tensor:
        """The reverse of `fold`."""
        return F.pixel_shuffle(folded, self.stride)[..., : self.size[0], : self.size[1]]

    def gain(self) -> Tensor:
        """An upper bound of the largest eigenvalue of D^T D, a scalar, at most some percent above it.

        On an endless image D is a product of matrices d^(f) (C, K), one at each frequency f, and its gain the largest
        eigenvalue of any sum over k of d^_k(f) d^_k(f)^H. Between the frequencies that are looked at it is at most
        1 / cos(pi n / N)^2 higher, as for any trigonometric polynomial of degree n at N points an axis (Ehlich &
        Zeller 1964).
        """
        phases = self._phases()  # with a stride each of its phases is a channel
        degree = phases.shape[-1] - 1
        points = max(1, _FREQUENCIES * degree)
        spectrum = torch.fft.rfft2(phases, s=(points, points)).permute(2, 3, 1, 0)  # (f, f', C, K)
        return _largest(spectrum @ spectrum.mH).max() / math.cos(math.pi * degree / points) ** 2


Dictionary = Patches | Convolutional


def iterations(
    signals: Tensor,
    dictionary: Dictionary,
    penalty: Tensor | float,
    steps: int,
    *,
    nonnegative: bool = False,
    accelerated: bool = True,
    gain: Tensor | float | None = None,
) -> Iterator[Tensor]:
    """The codes after 1, 2, ..., `steps` iterations towards the minimum of (1), from codes of 0.

    ISTA (Beck & Teboulle, equation 3.1; Gregor & LeCun, equation 2), which never raises (1):
        z_{i+1} = shrink(z_i + D^T (x - D z_i) / L, penalty / L)
    FISTA (`accelerated`, Beck & Teboulle, equations 4.1 to 4.3), which gets there sooner but may raise it on the way:
        z_{i+1} = shrink(y_i + D^T (x - D y_i) / L, penalty / L),   t_{i+1} = (1 + sqrt(1 + 4 t_i^2)) / 2,
        y_{i+1} = z_{i+1} + (t_i - 1) / t_{i+1} (z_{i+1} - z_i)

    Parameters
    ----------
    signals : x, float, as the dictionary synthesises them.
    penalty : at least 0, of the shape of the codes or one that broadcasts to it: (K,) of patches, (K, 1, 1) of images.
    nonnegative : codes of 0 and above only; the atoms must then have both signs themselves.
    gain : L where it is known, else `dictionary.gain()`.
    """
    bound = dictionary.gain() if gain is None else gain
    residual, codes, previous, t = signals, None, None, 1.0
    ahead: Tensor | None = None  # y
    for step in range(steps):
        rise = dictionary.correlate(residual / bound)
        codes = shrink(rise if ahead is None else ahead + rise, penalty / bound, nonnegative=nonnegative)
        yield codes
        if step + 1 < steps:
            ahead = codes
            if accelerated:
                following = (1 + (1 + 4 * t * t) ** 0.5) / 2
                if previous is not None:
                    ahead = codes + (t - 1) / following * (codes - previous)
                previous, t = codes, following
            residual = signals - dictionary.synthesise(ahead)


def code(
    signals: Tensor,
    dictionary: Dictionary,
    penalty: Tensor | float,
    steps: int,
    *,
    nonnegative: bool = False,
    accelerated: bool = True,
    gain: Tensor | float | None = None,
) -> Tensor:
    """The last of `iterations`: (n, K) of patches, (N, K, h, w) of images; `steps` is at least 1."""
    run = iterations(signals, dictionary, penalty, steps, nonnegative=nonnegative, accelerated=accelerated, gain=gain)
    return deque(run, maxlen=1).pop()


def objective(signals: Tensor, codes: Tensor, dictionary: Dictionary, penalty: Tensor | float) -> Tensor:
    """The value of (1), a scalar, summed over all signals."""
    misfit = signals - dictionary.synthesise(codes)
    return 0.5 * misfit.square().sum() + (penalty * codes.abs()).sum()
