"""The shallow model: sparse codes of patches at several scales, read by a label dictionary or a small MLP.

The iterations are in sparse.py, the learning of atoms in atoms.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg import atoms, sparse
from retina_seg.models.blocks import separable
from retina_seg.models.controls import platt

# Codes that are computed at once: few enough to stay in a processor's cache, enough to keep a GPU busy.
_AT_ONCE = {"cpu": 2**9, "cuda": 2**15}


class PatchDictionary(nn.Module):
    """Every patch as few atoms, at several scales; what the codes say of its label patch; overlaps averaged.

        alpha = argmin 1/2 |x - alpha D|^2 + penalty |alpha|_1                (patch without its mean, each scale)
        phi   = [max(alpha, 0), max(-alpha, 0), mean] of all scales
        label patch = phi W (`ridge`) or MLP(phi) (`mlp`);   logits = mean over the patches that cover a pixel

    The atoms are learnt before the first step of the training (`begin`) and then stay as they are, and so does W,
    which solves (Phi^T Phi + ridge I) W = Phi^T Y for the label patches Y, both less their means; the steps of a
    training find the slope and shift that make logits of its values. The MLP is fitted there to the label patches of
    places drawn once, by their cross-entropy, many times faster than from patches that are coded anew in every step;
    the steps go on with it.

    With `layers` above 1 the dictionaries read, beside the image, what a ridge of one layer less says of it: patches
    of its votes are coded as patches of the photograph are, and so far more of it bears on each pixel (auto-context,
    Tu & Bai 2010).

    Parameters
    ----------
    learner : in `atoms.LEARNERS`.
    supervision : "none"; "joint": atoms learnt from patches and label patches together; "consistent": and from which
        atoms belong to vessels (with the learner "ksvd" LC-KSVD, Jiang 2011). The codes of a photograph then come from
        its patches alone, and W from ridge as without.
    count : K, atoms at each scale.
    side : of a patch, pixels, odd.
    scales : distance of a patch's pixels; the image is smoothed by a Gaussian of half of it where that is above 1.
    penalty, steps : of the codes; iterations of FISTA.
    readout : "ridge" or "mlp".
    hidden : width of the MLP's one hidden layer.
    layers : 1, or more for dictionaries of votes; each takes as long as the first.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        learner: str = "online",
        supervision: Literal["none", "joint", "consistent"] = "none",
        count: int = 128,
        side: int = 9,
        scales: Sequence[int] = (1, 2, 4),
        penalty: float = 0.25,
        steps: int = 25,
        readout: Literal["ridge", "mlp"] = "mlp",
        hidden: int = 128,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if side % 2 == 0 or side < 3 or not scales or any(not isinstance(one, int) or one < 1 for one in scales):
            raise ValueError(
                f"side must be odd and at least 3, scales whole numbers of at least 1; got {side}, {list(scales)}"
            )
        if min(count, steps, hidden) < 1 or penalty < 0:
            raise ValueError(
                f"count {count}, steps {steps} and hidden {hidden} must be above 0, penalty {penalty} at least 0"
            )
        if learner not in atoms.LEARNERS:
            raise ValueError(f"learner {learner!r} is none of {', '.join(atoms.LEARNERS)}")
        if supervision not in ("none", "joint", "consistent") or readout not in ("ridge", "mlp"):
            raise ValueError(f"supervision {supervision!r} or readout {readout!r} is unknown")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.below: PatchDictionary | None = None
        if layers > 1:
            self.below = PatchDictionary(
                *(in_channels, out_channels),
                learner=learner,
                supervision=supervision,
                count=count,
                side=side,
                scales=scales,
                penalty=penalty,
                steps=steps,
                readout="ridge",
                layers=layers - 1,
            ).requires_grad_(False)
            self.middle: Tensor  # (K, 1, 1), of what the layer below says, and
            self.spread: Tensor  # (K, 1, 1), its standard deviation
            self.register_buffer("middle", torch.zeros(out_channels, 1, 1))
            self.register_buffer("spread", torch.ones(out_channels, 1, 1))
            in_channels += out_channels
        self.learner, self.supervision, self.count = learner, supervision, count
        self.side, self.scales, self.stride = side, tuple(scales), 2
        self.penalty, self.steps, self.outputs = penalty, steps, out_channels
        self.penalty_factor = 1.0  # raises the penalty after the training
        length, features = in_channels * side**2, len(scales) * (2 * count + in_channels)
        directions = torch.randn(len(scales), count, length)
        self.atoms: Tensor  # (S, K, C side^2)
        self.gains: Tensor  # (S,)
        self.register_buffer("atoms", torch.stack([sparse.unit(one) for one in directions]))
        self.register_buffer("gains", torch.stack([sparse.Patches(one).gain() for one in self.atoms]))
        labels = out_channels * side**2
        self.norm: nn.Module
        self.read: nn.Module
        if readout == "ridge":
            self.norm, self.read = nn.Identity(), _Fixed(features, labels)
            self.slope = nn.Parameter(torch.full((out_channels, 1, 1), 4.0))
            self.shift = nn.Parameter(torch.full((out_channels, 1, 1), -2.0))
        else:
            self.norm = nn.BatchNorm1d(features, affine=False)
            self.read = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, labels))
        self.readout = readout
        self.norm.eval()  # see `train`

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        values = self.values(image)
        return values * self.slope + self.shift if self.readout == "ridge" else values

    def values(self, image: Tensor) -> Tensor:
        """What the readout says, (N, K, H, W): of ridge about the share of votes, of the MLP logits."""
        return self._said(self.seen(image))

    def _said(self, seen: Tensor) -> Tensor:
        """`values` of what `seen` returned."""
        number, _, height, width = seen.shape
        said = self.read(self.norm(self.features(seen)))  # (N * places, K side^2)
        said = said.view(number, -1, said.shape[1]).transpose(1, 2)  # (N, K side^2, places)
        votes = self._fold(said, (height, width))
        return votes / self._fold(torch.ones_like(said[:1]), (height, width))

    def _fold(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        return F.fold(patches, size, self.side, padding=self.side // 2, stride=self.stride)

    @torch.no_grad()
    def seen(self, image: Tensor) -> Tensor:
        """What the dictionaries read: `image` (N, C, H, W), above the first layer with K channels of votes behind."""
        if self.below is None:
            return image
        return self._beside(image, self.below.values(image))

    def _beside(self, image: Tensor, votes: Tensor) -> Tensor:
        """(..., C, H, W) and what the layer below says of it, (..., K, H, W), as further channels."""
        return torch.cat([image, ((votes - self.middle) / self.spread).to(image.dtype)], dim=-3)

    @torch.no_grad()
    def features(self, image: Tensor, chosen: Tensor | None = None) -> Tensor:
        """phi of every second pixel in both directions, (N * places, features), image by image and row by row; `image`
        is what `seen` returns.

        `chosen`, indices (n,), leaves all places out but those.
        """
        with torch.autocast(image.device.type, enabled=False):
            parts = []
            for number, scale in enumerate(self.scales):
                signals, means = self.signals(image.float(), scale)
                if chosen is not None:
                    signals, means = signals[chosen], means[chosen]
                coded = [self._codes(some, number) for some in signals.split(_AT_ONCE[signals.device.type])]
                parts += [torch.cat(coded), means]
            return torch.cat(parts, dim=1)

    def signed(self, values: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """What belongs to the positive and to the negative codes of scale `number`, (..., K) each, in values that stand
        like phi in their last dimension."""
        block = values.shape[-1] // len(self.scales)
        positive, negative = values[..., number * block :][..., : 2 * self.count].split(self.count, dim=-1)
        return positive, negative

    def _codes(self, signals: Tensor, number: int) -> Tensor:
        dictionary, gain = sparse.Patches(self.atoms[number]), self.gains[number]
        codes = sparse.code(signals, dictionary, self.penalty_factor * self.penalty, self.steps, gain=gain)
        return torch.cat([F.relu(codes), F.relu(-codes)], dim=1)

    def train(self, mode: bool = True) -> "PatchDictionary":
        """As of any network, but that phi is divided by the deviations `begin` found, in training too."""
        super().train(mode)
        self.norm.eval()
        return self

    def recode(self, steps: int | None, penalty_factor: float) -> None:
        """See `models.Recodes`; in every layer."""
        self.steps, self.penalty_factor = steps or self.steps, penalty_factor
        if self.below is not None:
            self.below.recode(steps, penalty_factor)

    def signals(self, image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Patches without their means, (N * places, C side^2), and the means, (N * places, C)."""
        if scale > 1:
            image = _smoothed(image, scale / 2)
        reach = scale * (self.side // 2)
        patches = F.unfold(image, self.side, dilation=scale, padding=reach, stride=self.stride)
        patches = patches.transpose(1, 2).reshape(-1, image.shape[1], self.side**2)
        means = patches.mean(dim=2)
        return (patches - means[..., None]).flatten(1), means

    def begin(self, images: Sequence[Sequence[Tensor]], seed: int) -> None:
        """Learn the atoms, and W of ridge, from image (C, h, w), target (K, h, w), field of view (h, w) of each."""
        if self.below is not None:
            images = self._voted(self.below, images, seed)
        rng = np.random.default_rng(seed)
        drawn = [_Drawn.of(self, one, rng, max(1, _PATCHES // len(images))) for one in images]
        labels = torch.cat([one.labels for one in drawn]).numpy()
        middle = labels.reshape(len(labels), self.outputs, -1)[:, :, self.side**2 // 2]
        for number in range(len(self.scales)):
            signals = torch.cat([one.signals[number] for one in drawn]).numpy()
            if self.supervision == "none":
                found = atoms.learn(self.learner, signals, self.count, penalty=self.penalty, seed=seed)
            else:
                classes = np.asarray((middle >= 0.5).any(axis=1)) if self.supervision == "consistent" else None
                found = atoms.learn_jointly(
                    self.learner, signals, labels, self.count, penalty=self.penalty, seed=seed, classes=classes
                )
            self.atoms[number] = torch.from_numpy(found.atoms)
            self.gains[number] = sparse.Patches(self.atoms[number]).gain()
        if isinstance(self.read, _Fixed):
            self._solve(images, self.read, rng)
            self._calibrate(images, seed)
        else:
            self._fit_read(images, rng, seed)

    @torch.no_grad()
    def _voted(
        self, below: "PatchDictionary", images: Sequence[Sequence[Tensor]], seed: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Let the layer below begin, and give its votes to the images as further channels of mean 0 and deviation 1."""
        below.begin(images, seed)
        votes = [below.values(image[None].to(self.gains.device))[0] for image, _, _ in images]
        inside = torch.cat([one.cpu()[:, fov.bool()] for one, (_, _, fov) in zip(votes, images, strict=True)], dim=1)
        self.middle.copy_(inside.mean(dim=1)[:, None, None])
        self.spread.copy_(inside.std(dim=1).clamp(min=1e-6)[:, None, None])
        return [
            (self._beside(image.to(one.device), one).cpu(), target, fov)
            for one, (image, target, fov) in zip(votes, images, strict=True)
        ]

    @torch.no_grad()
    def _solve(self, images: Sequence[Sequence[Tensor]], read: "_Fixed", rng: np.random.Generator) -> None:
        """W of ridge from patches of all images, drawn inside the field of view, in float64."""
        labels, features = read.weight.shape
        gram, products = (read.weight.new_zeros(features + 1, n, dtype=torch.float64) for n in (features + 1, labels))
        for coded, said in self._examples(images, rng, _SOLVED):
            phi = torch.cat([coded, torch.ones_like(coded[:, :1])], dim=1).double()  # the last is the intercept
            gram += phi.T @ phi
            products += phi.T @ said.double()
        penalty = torch.full_like(gram[0], _RIDGE)
        penalty[-1] = 0
        weight = torch.linalg.solve(gram + penalty.diag(), products)
        read.weight.copy_(weight[:-1].T)
        read.bias.copy_(weight[-1])

    def _fit_read(self, images: Sequence[Sequence[Tensor]], rng: np.random.Generator, seed: int) -> None:
        """The MLP to label patches of places drawn inside the field of view, by Adam over `_PASSES` of them."""
        phi, labels = map(torch.cat, zip(*self._examples(images, rng, _READ), strict=True))
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(self.read.parameters(), lr=_RATE)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _PASSES * -(-len(phi) // _BATCH))
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(phi.mean(dim=0))
        norm.running_var.copy_(phi.var(dim=0, unbiased=False))
        for _ in range(_PASSES):
            order = torch.randperm(len(phi), generator=generator).to(phi.device)
            for some in order.split(_BATCH):
                loss = F.binary_cross_entropy_with_logits(self.read(norm(phi[some])), labels[some])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                falling.step()

    def _examples(
        self, images: Sequence[Sequence[Tensor]], rng: np.random.Generator, number: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """phi and the label patches of places drawn inside the field of view, image by image, about `number` in all."""
        device = self.gains.device
        for image, target, fov in images:
            chosen = self._places(fov, rng, max(1, number // len(images))).to(device)
            yield self.features(image[None].to(device), chosen), self._labels(target.to(device))[chosen]

    def _places(self, fov: Tensor, rng: np.random.Generator, number: int) -> Tensor:
        """Up to `number` places inside the field of view (h, w), drawn without repetition: indices (n,)."""
        return torch.from_numpy(atoms.places(fov[:: self.stride, :: self.stride].numpy(), rng, number))

    def _labels(self, target: Tensor) -> Tensor:
        """The label patches of a target (K, h, w), (places, K side^2)."""
        return F.unfold(target[None].float(), self.side, padding=self.side // 2, stride=self.stride)[0].T

    @torch.no_grad()
    def _calibrate(self, images: Sequence[Sequence[Tensor]], seed: int) -> None:
        """Slope and shift of the logits from the pixels of up to five images."""
        device = self.slope.device
        said = [(self._said(image[None].to(device))[0].cpu(), fov.bool()) for image, _, fov in images[:5]]
        values = torch.cat([one[:, inside] for one, inside in said], dim=1)
        truth = torch.cat([target[:, fov.bool()] for _, target, fov in images[:5]], dim=1)
        for k, (slope, shift) in enumerate(platt(values, truth, seed)):
            self.slope[k], self.shift[k] = slope, shift


# Patches that teach the atoms of a scale, those that teach W, and what is added to the diagonal of its equations.
_PATCHES, _SOLVED, _RIDGE = 30_000, 400_000, 10.0
# Patches that teach the MLP, how often they pass, how many a step, and its first learning rate.
_READ, _PASSES, _BATCH, _RATE = 200_000, 8, 1024, 2e-3


class _Fixed(nn.Module):
    """A linear map that no gradient changes."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.randn(outputs, features) / features)
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class _Drawn:
    """Patches drawn from inside the field of view of one image: of every scale (n, C side^2), and their labels."""

    signals: list[Tensor]
    labels: Tensor

    @classmethod
    def of(
        cls,
        net: PatchDictionary,
        photograph: Sequence[Tensor],
        rng: np.random.Generator,
        number: int,
    ) -> "_Drawn":
        image, target, fov = photograph
        chosen = net._places(fov, rng, number)
        signals = [net.signals(image[None], scale)[0][chosen] for scale in net.scales]
        return cls(signals, net._labels(target)[chosen])


def _smoothed(image: Tensor, sigma: float) -> Tensor:
    """`image` (N, C, H, W) under a Gaussian of 3 standard deviations, each channel for itself, 0 outside."""
    reach = max(1, round(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / sigma) ** 2)
    taps = (taps / taps.sum()).to(image.dtype)
    return separable(F.pad(image, (reach, reach, reach, reach)), taps, taps)
