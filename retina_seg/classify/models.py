"""Classifiers by name. All read (N, C, h, w) of the size they were built for and return logits (N, K).

No network itself (see the file of its family), no losses and no training.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from retina_seg.classify.convolutional import lenet_5, small_cnn, vgg16
from retina_seg.classify.lecun import (
    lecun_constrained,
    lecun_constrained_2,
    lecun_locally_connected,
    lecun_single_layer,
    lecun_two_layers,
)
from retina_seg.classify.linear import linear, mlp, polynomial
from retina_seg.classify.pooled import lesion_grader
from retina_seg.classify.sequences import row_rnn, transformer
from retina_seg.errors import UserError
from retina_seg.models import build_named

# Each is built as a body (image to features) and a head (features to logits), `net.body` and `net.head`, so that a
# body trained on one task can go on to another.
MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "linear": linear,
    "polynomial": polynomial,
    "mlp": mlp,
    "lecun_single_layer": lecun_single_layer,
    "lecun_two_layers": lecun_two_layers,
    "lecun_locally_connected": lecun_locally_connected,
    "lecun_constrained": lecun_constrained,
    "lecun_constrained_2": lecun_constrained_2,
    "lenet_5": lenet_5,
    "small_cnn": small_cnn,
    "vgg16": vgg16,
    "row_rnn": row_rnn,
    "transformer": transformer,
    "lesion_grader": lesion_grader,
}


def arguments_of(name: str) -> str:
    """The arguments of a network with what they are where none is given, in words; "" where it has none."""
    given = inspect.signature(MODELS[name]).parameters.values()
    own = [one for one in given if one.kind is one.KEYWORD_ONLY and one.name != "pretrained"]
    return ", ".join(one.name + ("" if one.default is one.empty else f"={one.default}") for one in own)


def build_model(
    name: str,
    in_shape: Sequence[int],
    outputs: int,
    *,
    arguments: Mapping[str, Any] | None = None,
    pretrained: bool = True,
) -> nn.Sequential:
    """A new classifier, with random weights unless its arguments name a file of weights to begin with.

    Parameters
    ----------
    name : in MODELS.
    in_shape : (C, h, w) of its images; a vector of F features is an image of (F, 1, 1).
    outputs : K, the number of classes, or of values to predict.
    arguments : further arguments of the network's constructor.
    pretrained : False passes over the file named by the argument `weights`: for a network that gets its own
        trained weights anyway, perhaps where that file is not.

    Raises
    ------
    UserError
        For an unknown network or argument, naming the known ones, for a shape of images or values the network
        refuses, and for a file of weights that is missing or does not fit.
    """
    if len(in_shape) != 3 or min(in_shape) < 1:
        raise UserError(f"the shape of the images must be (channels, height, width) above 0, got {tuple(in_shape)}")
    if outputs < 1:
        raise UserError(f"a classifier needs at least 1 output, got {outputs}")
    given = {"in_shape": in_shape, "outputs": outputs}
    return build_named("classifier", MODELS, name, given, arguments=arguments, pretrained=pretrained)
