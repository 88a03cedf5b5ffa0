"""Several networks that vote.

No networks of its own: the members come from `models.build_model`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Probabilities nearer to 0 or 1 than this have no finite logit in float32.
_NEAREST = 1e-6


class Ensemble(nn.Module):
    """Networks for the same targets; the logit of the mean of their probabilities (Lakshminarayanan 2017)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """`image` (N, C, H, W) to logits (N, K, H, W)."""
        prob = torch.stack([torch.sigmoid(member(image).float()) for member in self.members]).mean(dim=0)
        return torch.logit(prob, eps=_NEAREST)
