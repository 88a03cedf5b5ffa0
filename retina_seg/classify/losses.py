"""Losses of classifiers: (outputs of one head, labels, class weights) -> scalar.

No metric and no optimiser; what the outputs mean is in outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from retina_seg.classify.outputs import ORDINAL, SOFTMAX, VALUE, Kind
from retina_seg.errors import UserError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood of softmax outputs (N, K) under labels int64 (N,), weighted by class (K,)."""
    return F.cross_entropy(outputs, labels, weights)


def cross_entropy_gradient(x: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `cross_entropy` of the linear outputs x W^T in W, by hand: the mean of (yhat - y) x^T.

    x (N, d), labels int64 (N,), W (K, d) -> (K, d), with yhat the softmax of x W^T and y the label as a one-hot row.
    For two classes it is (yhat - y) x of logistic regression (Bishop 2006, equation 4.91).
    """
    predicted = torch.softmax(x @ weight.T, dim=1)
    return (predicted - F.one_hot(labels, len(weight))).T @ x / len(x)


def least_squares(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of the squared distance of outputs (N, K) to the one-hot labels, or of (N, 1) to numbers float32 (N,)."""
    if labels.is_floating_point():
        return F.mse_loss(outputs[:, 0], labels)
    squares = (outputs - F.one_hot(labels, outputs.shape[1])).square().sum(dim=1)
    if weights is None:
        return squares.mean()
    chosen = weights[labels]
    return (squares * chosen).sum() / chosen.sum()


def ordinal(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """CORN (Shi, Cao and Raschka 2021, equation 5): whether the grade lies above k, asked where it is at least k.

    outputs (N, K - 1), labels int64 (N,) in 0 ... K - 1.
    """
    steps = torch.arange(outputs.shape[1], device=outputs.device)
    asked = (labels[:, None] >= steps).float()
    if weights is not None:
        asked = asked * weights[labels][:, None]
    losses = F.binary_cross_entropy_with_logits(outputs, (labels[:, None] > steps).float(), reduction="none")
    return (losses * asked).sum() / asked.sum().clamp(min=1e-12)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "least_squares": least_squares, "ordinal": ordinal}
OUTPUTS: dict[str, Kind] = {"cross_entropy": SOFTMAX, "least_squares": VALUE, "ordinal": ORDINAL}
"""What the outputs of a network mean that was trained with a loss."""


def get_loss(name: str) -> Loss:
    """The loss called `name`; UserError lists the known ones."""
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
