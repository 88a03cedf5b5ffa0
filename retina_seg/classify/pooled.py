"""A grader that counts what a segmenter sees: maps of lesions, pooled to a coarse grid, read by a small network.

The segmenter is one of retina_seg.models; its weights come from `training.start`.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg import models
from retina_seg.errors import UserError


def lesion_grader(
    in_shape: Sequence[int],
    outputs: int,
    *,
    segmenter: str = "folded_unet",
    arguments: Mapping[str, Any] | None = None,
    targets: int = 4,
    grid: int = 64,
    features: int = 24,
    dropout: float = 0.4,
    readers: int = 1,
) -> nn.Sequential:
    """Logits from how much of which lesion lies where: (N, C, h, w) to (N, K).

    The body is the network `segmenter` for `targets` lesions and the mean and the largest of each probability in every
    cell of a `grid`; the head three convolutions and what they find on average and at most, or the mean of several such
    `readers` (`joining`). A grade is defined by such counts and a lesion is small beside a photograph, so few graded
    photographs suffice where the body knows lesions.

    Raises
    ------
    UserError
        For images smaller than the grid, a grid below 8, and less than one reader, feature or target.
    """
    given = {"readers": (readers, 1), "grid": (grid, 8), "features": (features, 1), "targets": (targets, 1)}
    for name, (value, least) in given.items():
        if value < least:
            raise UserError(f"lesion_grader: model.arguments.{name} is {value}, at least {least} is needed")
    if min(in_shape[1:]) < grid:
        raise UserError(
            f"lesion_grader pools {in_shape[1]} x {in_shape[2]} px to a grid of {grid} x {grid}: raise data.size or "
            "give model.arguments.grid"
        )
    net = models.build_model(segmenter, in_shape[0], targets, arguments=arguments, pretrained=False)
    heads = [_Reader(2 * targets, features, outputs, dropout) for _ in range(readers)]
    return nn.Sequential(OrderedDict(body=LesionMaps(net, grid), head=heads[0] if readers == 1 else Readers(heads)))


class LesionMaps(nn.Module):
    """What a segmenter sees, pooled: photographs (N, C, h, w) to (N, 2 K, grid, grid) in [0, 1].

    First the square roots of the mean probabilities, which spread the many small ones, then the largest ones.
    """

    def __init__(self, segmenter: nn.Module, grid: int) -> None:
        super().__init__()
        self.segmenter, self.grid = segmenter, grid

    def forward(self, image: Tensor) -> Tensor:
        """Pooled probabilities."""
        prob = torch.sigmoid(self.segmenter(image))
        mean, largest = F.adaptive_avg_pool2d(prob, self.grid), F.adaptive_max_pool2d(prob, self.grid)
        return torch.cat([mean.sqrt(), largest], dim=1)


class Readers(nn.Module):
    """Several heads that read the same maps; their outputs are averaged."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.readers = nn.ModuleList(heads)

    def forward(self, maps: Tensor) -> Tensor:
        """maps (N, channels, grid, grid) to (N, outputs)."""
        return torch.stack([reader(maps) for reader in self.readers]).mean(dim=0)


class _Reader(nn.Module):
    """Three convolutions over the grid, to which the distance from the middle of the photograph is added as a map.

    The macula lies near the middle of a photograph, and oedema is graded by what lies near the macula.
    """

    def __init__(self, channels: int, features: int, outputs: int, dropout: float) -> None:
        super().__init__()
        widths = (channels + 1, features, features, 2 * features)
        self.convolutions = nn.Sequential()
        for before, after in pairwise(widths):
            self.convolutions.extend(
                [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
            )
        self.dropout, self.answer = nn.Dropout(dropout), nn.Linear(4 * features, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """maps (N, channels, grid, grid) to (N, outputs)."""
        found = self.convolutions(torch.cat([maps, _distance(maps)], dim=1))
        pooled = torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1)
        answered: Tensor = self.answer(self.dropout(pooled))
        return answered


def _distance(maps: Tensor) -> Tensor:
    """Of every cell from the middle, 1 at the edge: (N, 1, grid, grid)."""
    steps = torch.linspace(-1, 1, maps.shape[-1], device=maps.device, dtype=maps.dtype)
    return (steps[:, None].square() + steps[None].square()).sqrt().expand(len(maps), 1, -1, -1)
