"""What a network has learnt and what it does with a photograph, as arrays: filters, feature maps, dictionaries.

No drawing (see report and figures) and no coding of its own: the iterations are in sparse, the networks in models.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args

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
_REPEATS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d)


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
    penalty : learnt for each atom, float32 (K,): lambda of `csc_unet`, what `dict_unet` takes off before its ReLU; None
        where all atoms share one that is not learnt.
    """

    image: Array
    label: Array | None
    scale: int
    penalty: Array | None = None


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


class Images(Protocol):
    """Images float32 (C, h, w), an array or a sequence of them, perhaps read when they are asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> Array:
        """One of them."""


class Activation(NamedTuple):
    """Where an image excites a unit most.

    Attributes
    ----------
    image : number of the image.
    place : its pixel (y, x) where the patch begins.
    patch : what the unit sees there, float32 (C, p, p).
    value : of the unit.
    """

    image: int
    place: tuple[int, int]
    patch: Array
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
        return [Atoms(net.coder.atoms.cpu().numpy(), None, 1, net.coder.penalties.cpu().numpy())]
    if isinstance(net, DictUNet):
        return [Atoms(net.atoms.cpu().numpy(), None, 1, _array(net.bias.flatten()))]
    count, side = net.count, net.side
    labels = _label_atoms(net)
    return [
        Atoms(found.view(count, -1, side, side).cpu().numpy(), None if labels is None else labels[number], scale)
        for number, (scale, found) in enumerate(zip(net.scales, net.atoms, strict=True))
    ]


def _batch(net: nn.Module, image: Array) -> Tensor:
    """A prepared image (C, H, W) as the network wants it, (1, C, H, W), where the network is; a copy."""
    return torch.tensor(np.ascontiguousarray(image))[None].to(next(net.parameters()).device)


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
def codes(net: nn.Module, image: Array, fov: NDArray[np.bool_] | None = None) -> list[Codes]:
    """The codes of a prepared image float32 (C, H, W) at each scale of the network's dictionary.

    Codes of `patch_dictionary` have both signs, those of the two others are at least 0. With `fov` (H, W) density and
    use count the places inside it. UserError for a network without a dictionary.
    """
    net = dictionary_net(net)
    batch = _batch(net, image)
    height, width = batch.shape[2:]
    if isinstance(net, CSCUNet):
        found, rebuilt = net.coder(batch)
        return [_codes(found[0], net.coder.stride, rebuilt[0], fov)]
    if isinstance(net, DictUNet):
        dictionary = sparse.Convolutional(net.atoms, (height, width), net.stride)
        return [_codes(F.relu(dictionary.correlate(batch) - net.bias)[0], net.stride, None, fov)]
    size = -(-height // net.stride), -(-width // net.stride)
    phi = net.features(net.seen(batch))  # (places, features)
    result = []
    for number in range(len(net.scales)):
        positive, negative = net.signed(phi, number)
        result.append(_codes((positive - negative).T.reshape(net.count, *size), net.stride, None, fov))
    return result


def _codes(maps: Tensor, stride: int, rebuilt: Tensor | None, fov: NDArray[np.bool_] | None) -> Codes:
    found = maps.cpu().numpy()
    inside = np.ones(found.shape[1:], bool) if fov is None else fov[::stride, ::stride]
    return Codes(
        found,
        stride,
        float((found[:, inside] != 0).mean()),
        np.abs(found[:, inside]).mean(axis=1),
        None if rebuilt is None else rebuilt.cpu().numpy(),
    )


@torch.no_grad()
def votes(net: nn.Module, image: Array, place: tuple[int, int], *, target: int = 0) -> list[Vote]:
    """Which atoms voted at pixel (y, x) of a prepared image (C, H, W), the loudest first.

    Of `patch_dictionary`: the parts of the value of `target` there, summed over the patches that cover the pixel and
    divided by their number. With ridge they and the parts of the means add up to `PatchDictionary.values`; of an MLP,
    which is linear only as long as the same units are on, a part is the code times the slope of the value in it
    (gradient x input, Shrikumar 2017). Of `csc_unet`: the parts of the rebuilt pixel, channels summed. UserError for
    `dict_unet`, whose U-Net takes no sum, for a target there is not, and where the pixel lies outside.
    """
    net = dictionary_net(net)
    y, x = place
    if not (0 <= y < image.shape[1] and 0 <= x < image.shape[2]):
        raise UserError(f"pixel ({y}, {x}) lies outside the image of {image.shape[1]} x {image.shape[2]}")
    if isinstance(net, CSCUNet):
        found = _rebuilding_votes(net, image, place)
    elif isinstance(net, PatchDictionary):
        if not 0 <= target < net.outputs:
            raise UserError(f"target {target}: the model finds {net.outputs}, counted from 0")
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

    Of `csc_unet`, divided by the number of pixels; of the first scale of `patch_dictionary`, divided by the number of
    patches; UserError else.
    """
    net = dictionary_net(net)
    batch = _batch(net, image)
    dictionary: sparse.Dictionary
    if isinstance(net, CSCUNet):
        dictionary, signals, nonnegative = net.coder.dictionary(image.shape[1:]), batch, True
        penalty: Tensor | float = net.coder.penalties.view(-1, 1, 1)
        shared = image[0].size
    elif isinstance(net, PatchDictionary):
        dictionary, nonnegative = sparse.Patches(net.atoms[0]), False
        penalty = net.penalty_factor * net.penalty
        signals, _ = net.signals(net.seen(batch), net.scales[0])
        shared = len(signals)
    else:
        raise UserError("dict_unet asks its dictionary once: there is nothing to iterate")
    found = {}
    for name, accelerated in (("ista", False), ("fista", True)):
        run = sparse.iterations(signals, dictionary, penalty, steps, nonnegative=nonnegative, accelerated=accelerated)
        values = [float(sparse.objective(signals, one, dictionary, penalty)) for one in run]
        found[name] = np.array(values, np.float32) / shared
    return found


def iterations(net: nn.Module) -> int:
    """How many iterations the codes of a network take: 1 for `dict_unet`; UserError without a dictionary."""
    net = dictionary_net(net)
    if isinstance(net, DictUNet):
        return 1
    return net.coder.steps if isinstance(net, CSCUNet) else net.steps


def filters(net: nn.Module, in_shape: Sequence[int] | None = None) -> Array:
    """The weights of the first convolution of a network, float32 (K, C, h, w).

    Where there is none and `in_shape` (C, h, w) of the images is given: those of the first layer that reads all
    pixels, a picture for each of its units. UserError where there is nothing of the kind.
    """
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 4 and not isinstance(module, nn.ConvTranspose2d):
            return _array(weight)
    if in_shape is not None and math.prod(in_shape[1:]) > 1:
        for module in net.modules():
            if isinstance(module, nn.Linear) and module.in_features == math.prod(in_shape):
                return _array(module.weight).reshape(-1, *in_shape)
    raise UserError(f"a {type(net).__name__} without a convolution or a layer that reads all pixels has no filters")


def _array(tensor: Tensor) -> Array:
    """A copy."""
    return tensor.detach().float().cpu().numpy().copy()


@contextmanager
def _watched(net: nn.Module, see: Callable[[str, Tensor], Tensor | None], *, slopes: bool) -> Iterator[None]:
    """Let `see` name and feature maps (1, K, h, w) of every module that has any, while the network runs.

    What `see` returns takes their place. Maps are larger than 1 x 1; those of pooling, padding and dropout only repeat
    others (dropout of attention is no map of the image at all). The network is in evaluation mode, with gradients or
    without them, whatever the caller has, and afterwards as it was.
    """
    pooled: Tensor | None = None

    def hook(name: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        def run(module: nn.Module, _given: object, found: object) -> Tensor | None:
            nonlocal pooled
            if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != 1 or found[0, 0].numel() == 1:
                return None
            if isinstance(module, _REPEATS):
                pooled = found
            if found is pooled or isinstance(module, nn.Dropout):  # a block that ends with pooling returns the same
                return None
            return see(name, found)

        return run

    modes = [(module, module.training) for module in net.modules()]
    hooks = [module.register_forward_hook(hook(name)) for name, module in net.named_modules() if module is not net]
    try:
        net.eval()
        for module, _ in modes:
            # cuDNN gives no gradients of a recurrent layer in evaluation mode; without dropout both modes are the same.
            if isinstance(module, nn.RNNBase) and not module.dropout:
                module.train()
        with torch.inference_mode(False), torch.set_grad_enabled(slopes):
            yield
    finally:
        for one in hooks:
            one.remove()
        for module, training in modes:
            module.training = training


def feature_maps(net: nn.Module, image: Array) -> dict[str, Array]:
    """What the blocks of a network make of a prepared image float32 (C, h, w): module -> float32 (K, h', w').

    A block ends where the size of the maps changes: of modules that follow each other with maps of one size the last
    is taken, in order of execution. {} where a network has no maps.
    """
    found: dict[str, Array] = {}
    newest: tuple[str, Tensor] | None = None

    def see(name: str, maps: Tensor) -> None:
        nonlocal newest
        if newest is not None and newest[1].shape[2:] != maps.shape[2:]:
            found[newest[0]] = _array(newest[1][0])
        newest = name, maps

    with _watched(net, see, slopes=False):
        net(_batch(net, image))
    if newest is not None:
        found[newest[0]] = _array(newest[1][0])
    return found


def class_activation(net: nn.Module, image: Array, output: int | Sequence[int]) -> Array:
    """Where a prepared image float32 (C, h, w) speaks for an output of a classifier, float32 (h, w) from 0 to 1.

    Grad-CAM (Selvaraju 2017) of the last maps that are not pooled ones, enlarged linearly to the image. Of a network
    without feature maps, as a linear one, the size of gradient x input (Shrikumar 2017), channels summed. The highest
    value is 1; 0 everywhere where nothing speaks for the output. MONAI's GradCAM leaves its hooks and other gradients
    behind in the network and keeps what every layer needs to learn, so it is not used.

    Parameters
    ----------
    output : its number, or several whose sum is asked for, as of all steps of an ordinal answer.

    Raises
    ------
    UserError
        For an output the network does not have.
    """
    chosen = np.atleast_1d(np.asarray(output)).tolist()
    names: list[str] = []
    seen: Tensor

    def see(name: str, maps: Tensor) -> Tensor | None:
        nonlocal seen
        if name != names[-1]:
            return None
        torch.set_grad_enabled(True)  # not before: nothing is kept of the layers that lie there
        seen = maps.detach().requires_grad_()
        return seen.clone()  # a layer behind may work in place

    with _watched(net, lambda name, _: names.append(name), slopes=False):
        net(_batch(net, image))
    with _watched(net, see, slopes=not names):
        batch = seen = _batch(net, image).requires_grad_()
        said = net(batch.clone())
        if not chosen or min(chosen) < 0 or max(chosen) >= said.shape[1]:
            raise UserError(f"output {output} is not one of the {said.shape[1]} that the network has, from 0 on")
        (slopes,) = torch.autograd.grad(said[:, chosen].sum(), seen)
        maps = seen.detach()
        if seen is batch:
            found = (slopes * maps).abs().sum(dim=1, keepdim=True)
        else:
            weights = slopes.mean(dim=(2, 3), keepdim=True)  # Selvaraju 2017, equation 1
            found = F.relu((weights * maps).sum(dim=1, keepdim=True))  # equation 2
        cam = _array(F.interpolate(found, image.shape[1:], mode="bilinear")[0, 0])
    return cam / cam.max() if cam.any() else cam


def activating(
    net: nn.Module, images: Images, unit: int, *, layer: str | None = None, count: int = 9
) -> list[Activation]:
    """The places that excite a unit most, the strongest first, one an image at most.

    The patches, all of one side, are what moves the unit there: where its gradient in the image is not 0. Images in
    which nothing moves it, as behind a ReLU that is off, are left out.

    Parameters
    ----------
    images : prepared, N of float32 (C, h, w); one at a time is in memory, with what the gradient needs.
    unit : number of the map.
    layer : name of a module as in `feature_maps`; the last that has maps where it is None.
    count : places at most.

    Raises
    ------
    UserError
        For a layer or unit the network does not have.
    """
    peaks = []
    for number in range(len(images)):
        with _unit(net, images[number], unit, layer, slopes=False) as (values, _):
            place = divmod(int(values.argmax()), values.shape[1])
            peaks.append((float(values[place]), number, place))
    boxes = []
    for value, number, place in sorted(peaks, key=lambda peak: -peak[0])[:count]:
        with _unit(net, images[number], unit, layer, slopes=True) as (values, batch):
            (slopes,) = torch.autograd.grad(values[place], batch)
        moves = (slopes[0] != 0).any(dim=0).cpu().numpy()  # (h, w)
        if moves.any():
            boxes.append((value, number, _extent(moves, 0), _extent(moves, 1)))
    side = max((length for *_, (_, high), (_, wide) in boxes for length in (high, wide)), default=0)
    found = []
    for value, number, rows, columns in boxes:
        image = images[number]
        p = min(side, *image.shape[1:])
        y, x = (_around(*one, p, whole) for one, whole in zip((rows, columns), image.shape[1:], strict=True))
        found.append(Activation(number, (y, x), image[:, y : y + p, x : x + p].copy(), value))
    return found


@contextmanager
def _unit(
    net: nn.Module, image: Array, unit: int, layer: str | None, *, slopes: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The map (h', w') of a unit and the batch (1, C, h, w) it is of, for as long as gradients can be taken."""
    newest: Tensor | None = None
    names, units = [], 0

    def see(name: str, maps: Tensor) -> None:
        nonlocal newest, units
        names.append(name)
        if layer in (None, name):
            newest, units = maps[0, unit : unit + 1].clone(), maps.shape[1]  # a layer behind may work in place

    with _watched(net, see, slopes=slopes):
        batch = _batch(net, image).requires_grad_(slopes)
        net(batch.clone())
        if newest is None:
            known = ", ".join(dict.fromkeys(names)) or "none"
            raise UserError(f"no feature maps of layer {layer or 'any'}: the layers that have some are {known}")
        if not 0 <= unit < units:
            raise UserError(f"unit {unit} is not one of the {units} of the layer, from 0 on")
        yield newest[0], batch


def _extent(marks: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Where the marks (h, w) begin along an axis, and how many rows or columns it is from the first to the last."""
    places = np.unique(np.nonzero(marks)[axis])
    return int(places[0]), int(places[-1] - places[0]) + 1


def _around(start: int, length: int, side: int, whole: int) -> int:
    """Where `side` pixels begin that have the `length` from `start` in their middle, inside 0 to `whole`."""
    return min(max(0, start - (side - length) // 2), whole - side)
