"""Classifiers that read an image as a vector: linear, in the features of the quadratic kernel, fully connected.

No layer here knows which pixels are neighbours.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from monai.networks.nets import FullyConnectedNet
from torch import Tensor, nn

from retina_seg.errors import UserError

ACTIVATIONS = ("relu", "tanh", "sigmoid")

# With d inputs there are d (d + 1) / 2 features: 8,256 for 128 inputs, 307,720 for a digit of 28 x 28.
MAX_QUADRATIC_INPUTS = 128


def linear(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Logits that are affine in the pixels: (N, C, h, w) to (N, K).

    With the cross-entropy it is multinomial logistic regression, with the squared error linear regression.
    """
    return nn.Sequential(OrderedDict(body=nn.Flatten(), head=nn.Linear(math.prod(in_shape), outputs)))


def polynomial(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Logits that are affine in all products of two pixels: (N, C, h, w) to (N, K), through `quadratic_features`.

    Raises
    ------
    UserError
        For more than `MAX_QUADRATIC_INPUTS` inputs C h w.
    """
    inputs = math.prod(in_shape)
    features = inputs * (inputs + 1) // 2
    if inputs > MAX_QUADRATIC_INPUTS:
        raise UserError(
            f"the polynomial classifier has a weight for every product of two inputs, and {inputs} inputs "
            f"({' x '.join(map(str, in_shape))}) would give {features:,} features: it takes at most "
            f"{MAX_QUADRATIC_INPUTS} inputs; make data.size smaller or choose another model"
        )
    body = nn.Sequential(nn.Flatten(), _Quadratic())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(features, outputs)))


def mlp(
    in_shape: Sequence[int],
    outputs: int,
    *,
    hidden: Sequence[int] = (128,),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Fully connected network (Rumelhart 1986), MONAI's `FullyConnectedNet`: (N, C, h, w) to (N, K).

    Parameters
    ----------
    hidden : units of each hidden layer, from the image to the logits; empty for none, which is `linear`.
    activation : of the hidden units, one of ACTIVATIONS.
    dropout : probability, after every hidden layer.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if any(units < 1 for units in hidden):
        raise ValueError(f"hidden needs numbers above 0, got {list(hidden)}")
    # Its layers fit, but come in one row; and its own order, dropout before the activation, would not drop a sigmoid.
    net = FullyConnectedNet(math.prod(in_shape), outputs, hidden, dropout=dropout, act=activation, adn_ordering="AD")
    *body, head = net.children()
    return nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=head))


def quadratic_features(x: Tensor) -> Tensor:
    """The features phi of the homogeneous quadratic kernel, <phi(x), phi(y)> = <x, y>^2 (Schölkopf 2002, section 2.1).

    phi(x) holds x_i x_i and, for i < j, sqrt(2) x_i x_j, ordered by i and then j; for two inputs it is
    (x_1^2, sqrt(2) x_1 x_2, x_2^2).

    Parameters
    ----------
    x : (N, d), floating.

    Returns
    -------
    (N, d (d + 1) / 2), of the same dtype.
    """
    i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    products = x[:, i] * x[:, j]  # (N, d (d + 1) / 2)
    return torch.where(i == j, products, math.sqrt(2) * products)


class _Quadratic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return quadratic_features(x)
