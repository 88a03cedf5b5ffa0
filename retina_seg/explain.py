"""What a dictionary model has learnt and what it does with a photograph, as arrays.

No drawing (see report) and no coding of its own: the iterations are in sparse, the networks in models.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retina_seg import models, sparse
from retina_seg.errors import UserError
from retina_seg.models.csc_unet import CSCUNet
from retina_seg.models.dict_unet import DictUNet
from retina_seg.models.patch_dictionary import PatchDictionary

Array = NDArray[np.float32]
DictionaryNet = CSCUNet | DictUNet | PatchDictionary
MODELS = tuple(name for name, net in models.MODELS.items() if net in get_args(DictionaryNet))
"""Names in `models.MODELS` of the networks with a dictionary."""


@dataclass(frozen=True)
class Atoms:
    """The dictionary of one scale.

    Attributes
    ----------
    image : the atoms, float32 (K, C, side, side), each of norm 1. In the upper layer of a `patch_dictionary` the last
        of the C channels are votes of the layer below.
    label : what a code of 1 adds to the label patch of each target, float32 (K, T, side, side); only where a linear
        readout says it (`patch_dictionary` with ridge), else None.
    scale : distance of an atom's pixels in the image, px.
    """

    image: Array
    label: Array | None
    scale: int


@dataclass(frozen=True)
class Codes:
    """An image in the words of one dictionary.

    Attributes
    ----------
    maps : the code of every atom at every place, float32 (K, h, w); places lie `stride` px apart.
    density : share of the codes that are not 0.
    use : mean size of the code of each atom, float32 (K,).
    rebuilt : what the codes make of the image, float32 (C, H, W), and None where nothing rebuilds it.
    """

    maps: Array
    stride: int
    density: float
    use: Array
    rebuilt: Array | None


@dataclass(frozen=True)
class Vote:
    """What one atom says of one pixel: `value` is its part of the sum, summed over the places that see the pixel."""

    scale: int
    atom: int
    value: float


def dictionary_net(net: nn.Module) -> DictionaryNet:
    """The network itself where it has a dictionary; UserError where it has none."""
    if not isinstance(net, CSCUNet | DictUNet | PatchDictionary):
        raise UserError(f"a {type(net).__name__} has no dictionary to show: take a model of {', '.join(MODELS)}")
    return net


@torch.no_grad()
def atoms(net: nn.Module) -> list[Atoms]:
    """The dictionaries of a network, one for each of its scales; UserError for a network without."""
    net = dictionary_net(net)
    if isinstance(net, CSCUNet):
        return [Atoms(net.coder.atoms.cpu().numpy(), None, 1)]
    if isinstance(net, DictUNet):
        return [Atoms(net.atoms.cpu().numpy(), None, 1)]
    count, side = net.count, net.side
    labels = _label_atoms(net)
    return [
        Atoms(found.view(count, -1, side, side).cpu().numpy(), None if labels is None else labels[number], scale)
        for number, (scale, found) in enumerate(zip(net.scales, net.atoms, strict=True))
    ]


def _batch(net: DictionaryNet, image: Array) -> Tensor:
    """A prepared image (C, H, W) as the network wants it, (1, C, H, W), where the network is."""
    return torch.from_numpy(image)[None].to(next(net.parameters()).device)


def _label_atoms(net: PatchDictionary) -> list[Array] | None:
    """(K, T, side, side) of each scale: the mean of what a positive and a negated negative code of 1 add."""
    weight = _ridge(net)
    if weight is None:
        return None
    found = []
    for number in range(len(net.scales)):
        positive, negative = net.signed(weight, number)
        found.append(((positive - negative) / 2).T.reshape(net.count, -1, net.side, net.side).cpu().numpy())
    return found


def _ridge(net: PatchDictionary) -> Tensor | None:
    """W, (T side^2, features), of a ridge readout; None of another."""
    return net.read.weight if net.readout == "ridge" and isinstance(net.read.weight, Tensor) else None


@torch.no_grad()
def codes(net: nn.Module, image: Array) -> list[Codes]:
    """The codes of a prepared image float32 (C, H, W) at each scale of the network's dictionary.

    Codes of `patch_dictionary` have both signs, those of the two others are at least 0. UserError for a network
    without a dictionary.
    """
    net = dictionary_net(net)
    batch = _batch(net, image)
    height, width = batch.shape[2:]
    if isinstance(net, CSCUNet):
        found, rebuilt = net.coder(batch)
        return [_codes(found[0], net.coder.stride, rebuilt[0])]
    if isinstance(net, DictUNet):
        dictionary = sparse.Convolutional(net.atoms, (height, width), net.stride)
        return [_codes(F.relu(dictionary.correlate(batch) - net.bias)[0], net.stride, None)]
    size = -(-height // net.stride), -(-width // net.stride)
    phi = net.features(net.seen(batch))  # (places, features)
    result = []
    for number in range(len(net.scales)):
        positive, negative = net.signed(phi, number)
        result.append(_codes((positive - negative).T.reshape(net.count, *size), net.stride, None))
    return result


def _codes(maps: Tensor, stride: int, rebuilt: Tensor | None) -> Codes:
    return Codes(
        maps.cpu().numpy(),
        stride,
        float((maps != 0).float().mean()),
        maps.abs().mean(dim=(1, 2)).cpu().numpy(),
        None if rebuilt is None else rebuilt.cpu().numpy(),
    )


@torch.no_grad()
def votes(net: nn.Module, image: Array, place: tuple[int, int], *, target: int = 0) -> list[Vote]:
    """Which atoms voted at pixel (y, x) of a prepared image (C, H, W), the loudest first.

    Of `patch_dictionary`: the parts of the value of `target` there, summed over the patches that cover the pixel and
    divided by their number. With ridge they and the parts of the means add up to `PatchDictionary.values`; of an MLP,
    which is linear only as long as the same units are on, a part is the code times the slope of the value in it
    (gradient x input, Shrikumar 2017). Of `csc_unet`: the parts of the rebuilt pixel, channels summed. UserError for
    `dict_unet`, whose U-Net takes no sum, and where the pixel lies outside.
    """
    net = dictionary_net(net)
    y, x = place
    if not (0 <= y < image.shape[1] and 0 <= x < image.shape[2]):
        raise UserError(f"pixel ({y}, {x}) lies outside the image of {image.shape[1]} x {image.shape[2]}")
    if isinstance(net, CSCUNet):
        found = _rebuilding_votes(net, image, place)
    elif isinstance(net, PatchDictionary):
        found = _label_votes(net, image, place, target)
    else:
        raise UserError("the atoms of dict_unet do not vote one by one: take csc_unet or patch_dictionary")
    return sorted((vote for vote in found if vote.value), key=lambda vote: -abs(vote.value))


def _rebuilding_votes(net: CSCUNet, image: Array, place: tuple[int, int]) -> list[Vote]:
    maps, _ = net.coder(_batch(net, image))
    dictionary = net.coder.dictionary(image.shape[1:])
    parts = []
    for k in range(maps.shape[1]):
        alone = torch.zeros_like(maps)
        alone[:, k] = maps[:, k]
        parts.append(float(dictionary.synthesise(alone)[0, :, place[0], place[1]].sum()))
    return [Vote(1, k, part) for k, part in enumerate(parts)]


def _label_votes(net: PatchDictionary, image: Array, place: tuple[int, int], target: int) -> list[Vote]:
    batch, reach = _batch(net, image), net.side // 2
    height, width = batch.shape[2:]
    places = [
        (row, column, (place[0] - net.stride * row + reach) * net.side + place[1] - net.stride * column + reach)
        for row in range(-(-height // net.stride))
        for column in range(-(-width // net.stride))
        if abs(place[0] - net.stride * row) <= reach and abs(place[1] - net.stride * column) <= reach
    ]
    across = -(-width // net.stride)
    phi = net.features(net.seen(batch), torch.tensor([row * across + column for row, column, _ in places]))
    with torch.enable_grad():
        phi = phi.requires_grad_()
        said = net.read(net.norm(phi))  # (patches, T side^2)
        columns = torch.tensor([target * net.side**2 + inside for _, _, inside in places], device=said.device)
        (slopes,) = torch.autograd.grad(said.gather(1, columns[:, None]).sum(), phi)  # (patches, features)
    parts = (phi.detach() * slopes).sum(dim=0) / len(places)  # (features,)
    found = []
    for number, scale in enumerate(net.scales):
        positive, negative = net.signed(parts, number)
        found += [Vote(scale, k, float(part)) for k, part in enumerate(positive + negative)]
    return found


@torch.no_grad()
def objective(net: nn.Module, image: Array, steps: int = 50) -> dict[str, Array]:
    """The objective of the codes of a prepared image (C, H, W) after 1, 2, ..., `steps` iterations: "ista", "fista".

    Of `csc_unet` and of the first scale of `patch_dictionary`, divided by the number of pixels; UserError else.
    """
    net = dictionary_net(net)
    batch = _batch(net, image)
    dictionary: sparse.Dictionary
    if isinstance(net, CSCUNet):
        dictionary, signals, nonnegative = net.coder.dictionary(image.shape[1:]), batch, True
        penalty: Tensor | float = net.coder.penalties.view(-1, 1, 1)
    elif isinstance(net, PatchDictionary):
        dictionary, nonnegative, penalty = sparse.Patches(net.atoms[0]), False, net.penalty
        signals, _ = net.signals(net.seen(batch), net.scales[0])
    else:
        raise UserError("dict_unet asks its dictionary once: there is nothing to iterate")
    found = {}
    for name, accelerated in (("ista", False), ("fista", True)):
        run = sparse.iterations(signals, dictionary, penalty, steps, nonnegative=nonnegative, accelerated=accelerated)
        values = [float(sparse.objective(signals, one, dictionary, penalty)) for one in run]
        found[name] = np.array(values, np.float32) / image[0].size
    return found
