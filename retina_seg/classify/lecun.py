"""The five networks for 16 x 16 digits with which LeCun 1989 showed what constraints are worth, and their links.

"Generalization and network design strategies", technical report CRG-TR-89-4, Toronto. Not LeNet-5, see convolutional.

Links are the connections of a network, one from every unit to each unit or pixel it reads and one to its bias. Weights
are the numbers behind them, fewer where links share one. With ten outputs:

| network                 | links | weights |
| ----------------------- | ----- | ------- |
| lecun_single_layer      | 2,570 | 2,570   |
| lecun_two_layers        | 3,240 | 3,240   |
| lecun_locally_connected | 1,226 | 1,226   |
| lecun_constrained       | 2,266 | 1,132   |
| lecun_constrained_2     | 5,194 | 1,060   |

All read images float32 (N, 1, 16, 16), return logits float32 (N, K) and raise UserError for images of another shape.
Hidden units are tanh units. The outputs are left as they are, for the loss to squash. A field that reaches over the
border sees zeros there, and those links count like the others.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg.errors import UserError

SIDE = 16


def lecun_single_layer(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Net-1: every output reads every pixel."""
    _check(in_shape)
    return nn.Sequential(OrderedDict(body=nn.Flatten(), head=nn.Linear(SIDE**2, outputs)))


def lecun_two_layers(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Net-2: twelve hidden units, fully connected on both sides.

    The published 3,240 weights are 12 (256 + 1) of the hidden layer and 156 = 12 (12 + 1) of twelve output units; the
    ten digits alone would need 10 (12 + 1) and give 3,214. So this network computes twelve outputs and returns the
    first K as its logits. The others never learn. With K > 12 it computes K.
    """
    _check(in_shape)
    body = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 12), nn.Tanh())
    head = nn.Sequential(nn.Linear(12, max(12, outputs)), _First(outputs))
    return nn.Sequential(OrderedDict(body=body, head=head))


def lecun_locally_connected(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Net-3: two hidden layers, of 8 x 8 units with fields of 3 x 3 and of 4 x 4 units with fields of 5 x 5.

    Fields of neighbours lie two apart. Every unit has weights of its own.
    """
    _check(in_shape)
    body = _body(h1=_Local(1, 3, side=16), h2=_Local(1, 5, side=8))
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(16, outputs)))


def lecun_constrained(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Net-4: the first hidden layer is two maps of 8 x 8 units; the units of a map share their field's weights.

    Every unit keeps a bias of its own. The 4 x 4 units of the second layer read 5 x 5 of both maps, each with weights
    of its own.
    """
    _check(in_shape)
    body = _body(h1=_Shared(1, 2, 3, side=16), h2=_Local(2, 5, side=8))
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(16, outputs)))


def lecun_constrained_2(in_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Net-5: as Net-4, with a second layer of four maps of 4 x 4 units that share their weights too."""
    _check(in_shape)
    body = _body(h1=_Shared(1, 2, 3, side=16), h2=_Shared(2, 4, 5, side=8))
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(64, outputs)))


def links(net: nn.Module) -> int:
    """Number of connections of one of these networks: for every unit its inputs and its bias.

    Raises
    ------
    TypeError
        For a layer with weights that is not of these networks.
    """
    count = 0
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            count += layer.out_features * (layer.in_features + 1)
        elif isinstance(layer, _Local | _Shared):
            count += layer.bias.numel() * (layer.fan_in + 1)
        elif any(True for _ in layer.parameters(recurse=False)):
            raise TypeError(f"the links of a {type(layer).__name__} are not known here")
    return count


class _Local(nn.Module):
    """A map of units two apart, each with a field and a bias of its own: (N, C, s, s) to (N, 1, s / 2, s / 2)."""

    def __init__(self, in_channels: int, field: int, *, side: int) -> None:
        super().__init__()
        self.field, self.grid, self.fan_in = field, side // 2, in_channels * field**2
        self.weight = nn.Parameter(torch.empty(self.fan_in, self.grid**2))
        self.bias = nn.Parameter(torch.empty(1, self.grid, self.grid))
        _begin(self.weight, self.bias, self.fan_in)

    def forward(self, x: Tensor) -> Tensor:
        fields = F.unfold(x, self.field, padding=self.field // 2, stride=2)  # (N, C field^2, units)
        sums = torch.einsum("nfu,fu->nu", fields, self.weight)
        return sums.unflatten(1, (1, self.grid, self.grid)) + self.bias


class _Shared(nn.Module):
    """Maps of units two apart that share a field's weights but no bias: (N, C, s, s) to (N, maps, s / 2, s / 2)."""

    def __init__(self, in_channels: int, maps: int, field: int, *, side: int) -> None:
        super().__init__()
        self.field, self.fan_in = field, in_channels * field**2
        self.weight = nn.Parameter(torch.empty(maps, in_channels, field, field))
        self.bias = nn.Parameter(torch.empty(maps, side // 2, side // 2))
        _begin(self.weight, self.bias, self.fan_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=2, padding=self.field // 2) + self.bias


class _First(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.count]


def _body(h1: nn.Module, h2: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(h1=h1, tanh1=nn.Tanh(), h2=h2, tanh2=nn.Tanh(), flatten=nn.Flatten()))


def _begin(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    """Random numbers as PyTorch's own layers begin with."""
    for tensor in (weight, bias):
        nn.init.uniform_(tensor, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))


def _check(in_shape: Sequence[int]) -> None:
    if tuple(in_shape) != (1, SIDE, SIDE):
        raise UserError(
            f"LeCun's networks of 1989 read images of 1 x {SIDE} x {SIDE} (channels, height, width), got "
            f"{' x '.join(map(str, in_shape))}: set data.size to {SIDE} and take grey images, or choose another model"
        )
