"""Pieces several networks share: inputs of any size and the settings of MONAI's convolutions.

No network and no layer that belongs to one network alone.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

# MONAI's blocks in the order convolution, batch norm, ReLU; the norm's shift makes a bias useless.
CONVOLUTION: dict[str, Any] = {"act": ("relu", {"inplace": True}), "norm": "batch", "bias": False}


def pad(image: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """`image` with zeros below and to the right up to a multiple of `multiple`, and its own (H, W)."""
    height, width = image.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return (F.pad(image, padding) if any(padding) else image), (height, width)
