"""Retinal image segmentation: `Segmenter` from a photograph to a mask, `Prediction` what it gives.

Importing the package imports neither torch nor MONAI; the public names are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retina_seg._version import __version__
from retina_seg.errors import UserError

if TYPE_CHECKING:
    from retina_seg.decode import InMemory
    from retina_seg.inference import Prediction, Segmenter
    from retina_seg.io import read_image
    from retina_seg.phantom import draw

_HOMES = {
    "InMemory": "retina_seg.decode",
    "Prediction": "retina_seg.inference",
    "Segmenter": "retina_seg.inference",
    "draw": "retina_seg.phantom",
    "read_image": "retina_seg.io",
}

__all__ = ["InMemory", "Prediction", "Segmenter", "UserError", "__version__", "draw", "read_image"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
