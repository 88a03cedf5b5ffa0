"""Segmentation losses: (logits, target, fov) -> scalar; MONAI's where it has them, restricted to the field of view.

No metric and no optimiser.
"""

import math
from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceLoss, FocalLoss, SoftclDiceLoss, TverskyLoss
from torch import Tensor
from torch.nn import functional as F

from retina_seg.errors import UserError

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _mean_inside(values: Tensor, fov: Tensor) -> Tensor:
    """Mean of `values` (N, K, h, w) over the pixels of `fov` (N, 1, h, w)."""
    return (values * fov).sum() / (fov.sum() * values.shape[1]).clamp(min=1)


def _inside(logits: Tensor, target: Tensor, fov: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and target with everything outside `fov` set to 0.

    The sigmoid comes first: a masked logit of 0 would count as a probability of one half.
    """
    return torch.sigmoid(logits) * fov, target * fov


def bce(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """Binary cross-entropy, mean over field-of-view pixels and channels."""
    return _mean_inside(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), fov)


def balanced_bce(prevalence: Sequence[float]) -> Loss:
    """Cross-entropy of each target divided by what its prevalence alone would cost; then the mean over targets.

    The entropy of the prevalence is the loss of a network that knows nothing else, so every target starts at 1 and a
    lesion that covers a thousandth of the retina weighs as much as one that covers a fiftieth. Each term is still
    cross-entropy: the probabilities mean what they say.

    Parameters
    ----------
    prevalence : share of the field of view that each target covers, in [0, 1]; less than 1e-4 counts as that.
    """
    shares = [min(max(share, 1e-4), 0.5) for share in prevalence]
    entropies = [-share * math.log(share) - (1 - share) * math.log1p(-share) for share in shares]

    def loss(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
        weights = 1 / logits.new_tensor(entropies)
        values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return _mean_inside(values * weights.view(1, -1, 1, 1), fov)

    return loss


def dice(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """Soft Dice, pooled over the batch so that patches with little truth weigh little (Milletari 2016)."""
    return DiceLoss(batch=True)(*_inside(logits, target, fov))


def bce_dice(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """Sum of `bce` and `dice`."""
    return bce(logits, target, fov) + dice(logits, target, fov)


def focal(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """Focal loss with gamma 2 (Lin 2017, equation 4), mean over field-of-view pixels and channels."""
    return _mean_inside(FocalLoss(gamma=2.0, reduction="none")(logits, target), fov)


def tversky(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """Tversky loss with alpha .3 for false positives and beta .7 for misses (Salehi 2017), batch pooled."""
    return TverskyLoss(alpha=0.3, beta=0.7, batch=True)(*_inside(logits, target, fov))


def bce_cldice(logits: Tensor, target: Tensor, fov: Tensor) -> Tensor:
    """`bce` plus half the soft centreline Dice (Shit 2021) of the patches."""
    prob, truth = _inside(logits, target, fov)
    return bce(logits, target, fov) + 0.5 * SoftclDiceLoss(iter_=5)(prob, truth)


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "dice": dice,
    "bce_dice": bce_dice,
    "focal": focal,
    "tversky": tversky,
    "bce_cldice": bce_cldice,
}


BALANCED: dict[str, Callable[[Sequence[float]], Loss]] = {"balanced_bce": balanced_bce}
"""Losses that must know how often each target occurs."""


def get_loss(name: str, prevalence: Sequence[float] = ()) -> Loss:
    """The loss called `name`; UserError lists the known ones.

    `prevalence` is the share of the field of view that each target covers, for the losses of BALANCED.
    """
    if name in BALANCED:
        return BALANCED[name](prevalence)
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join((*LOSSES, *BALANCED))}")
    return LOSSES[name]
