"""Classifiers that read an image as a sequence: its rows in a recurrent network, its patches in a transformer.

No transformer for segmentation, see models.swin_unetr.
"""

from collections import OrderedDict
from collections.abc import Sequence

from monai.networks.nets import ViT
from torch import Tensor, nn

from retina_seg.errors import UserError

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


def row_rnn(
    in_shape: Sequence[int], outputs: int, *, cell: str = "gru", hidden: int = 64, layers: int = 1
) -> nn.Sequential:
    """Recurrent network that reads an image from the top row down: (N, C, h, w) to (N, K).

    Each of h steps reads the C w values of a row; the logits are affine in the last state.

    Parameters
    ----------
    cell : "gru" (Cho 2014) or "lstm" (Hochreiter 1997, Gers 2000).
    hidden : values of a state.
    layers : recurrent layers, each reading the states of the one below.
    """
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
    channels, _, width = in_shape
    body = _LastState(CELLS[cell](channels * width, hidden, layers, batch_first=True))
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(hidden, outputs)))


def transformer(
    in_shape: Sequence[int],
    outputs: int,
    *,
    patch_size: int = 4,
    hidden: int = 64,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Vision transformer (Dosovitskiy 2021), MONAI's `ViT`: (N, C, h, w) to (N, K).

    The logits are affine in what the last layer makes of the class token.

    Parameters
    ----------
    patch_size : side of the patches that are the tokens, px; divides h and w.
    hidden : values of a token, a multiple of `heads`.
    depth : layers of attention, each followed by a perceptron with four times `hidden` units (Dosovitskiy 2021,
        table 1).
    heads : of attention in a layer.
    dropout : probability, on the tokens and the units of the perceptrons.

    Raises
    ------
    UserError
        For images that patches of this size do not fill.
    """
    channels, height, width = in_shape
    if patch_size < 1 or depth < 1 or heads < 1:
        raise ValueError(f"patch_size, depth and heads must be at least 1, got {patch_size}, {depth} and {heads}")
    if height % patch_size or width % patch_size:
        raise UserError(
            f"patches of {patch_size} x {patch_size} do not fill images of {height} x {width}: set data.size to a "
            f"multiple of {patch_size}, or patch_size to a number that divides it"
        )
    vit = ViT(
        in_channels=channels,
        img_size=(height, width),
        patch_size=patch_size,
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        num_layers=depth,
        num_heads=heads,
        classification=True,
        dropout_rate=dropout,
        spatial_dims=2,
    )
    # The head lies beside the body here, so MONAI's own must hand on the class token as it is.
    vit.classification_head = nn.Identity()
    for block in vit.blocks:
        # MONAI makes this norm for attention to a second sequence, which there is not; its weights would not learn.
        block.norm_cross_attn = nn.Identity()
    return nn.Sequential(OrderedDict(body=_ClassToken(vit), head=nn.Linear(hidden, outputs)))


class _LastState(nn.Module):
    """(N, C, h, w) to the state of the top layer after the last row, (N, hidden)."""

    def __init__(self, cell: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, image: Tensor) -> Tensor:
        states, _ = self.cell(image.transpose(1, 2).flatten(2))  # rows (N, h, C w), states (N, h, hidden)
        return states[:, -1]


class _ClassToken(nn.Module):
    """(N, C, h, w) to (N, hidden): the first of the two results of MONAI's `ViT`."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        token, _ = self.vit(image)
        return token
