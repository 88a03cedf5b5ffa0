"""From the outputs of a classifier to probabilities, for every question it answers.

No network and no loss; tensors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["softmax", "ordinal", "value"]
SOFTMAX: Kind = "softmax"
ORDINAL: Kind = "ordinal"
VALUE: Kind = "value"


@dataclass(frozen=True)
class Head:
    """One question: its name and the possible answers; none where the answer is a number.

    `ordered` : whether an answer can be off by more or less, as grades are and digits are not.
    """

    name: str
    classes: tuple[str, ...]
    ordered: bool = False


def width(head: Head, kind: str) -> int:
    """Outputs a head takes: K of softmax, K - 1 of ordinal, one of a number."""
    return max(len(head.classes), 1) - (kind == ORDINAL)


def split(outputs: Tensor, heads: Sequence[Head], kind: str) -> list[Tensor]:
    """The outputs (N, sum of widths) of each head, (N, width)."""
    return list(torch.split(outputs, [width(head, kind) for head in heads], dim=1))


def probabilities(outputs: Tensor, kind: str, temperature: float = 1.0) -> Tensor:
    """Of one head: outputs (N, width), divided by the temperature, to probabilities (N, K) that sum to 1.

    Softmax, or of ordinal outputs, which say how likely the answer lies above k given that it is not below (Shi, Cao
    and Raschka 2021, CORN), p(y > k) = product of sigmoids up to k. Numbers are returned as they are.
    """
    if kind == VALUE:
        return outputs
    scaled = outputs / temperature
    if kind == SOFTMAX:
        return torch.softmax(scaled, dim=1)
    above = torch.cumprod(torch.sigmoid(scaled), dim=1)  # (N, K - 1)
    edge = above.new_ones(len(above), 1)
    return torch.cat([edge, above], dim=1) - torch.cat([above, edge * 0], dim=1)
