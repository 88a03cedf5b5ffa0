"""Segmentation losses: (logits, target, fov) -> scalar; MONAI's where it has them, restricted to the field of view.

No metric and no optimiser.
"""

from collections.abc import Callable

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


def get_loss(name: str) -> Loss:
    """The loss called `name`; UserError lists the known ones."""
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
