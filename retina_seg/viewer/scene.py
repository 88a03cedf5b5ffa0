"""From results to what the browser draws: layers, their colours and histograms, and the tiles it asks for.

How planes are cut and packed is in pyramid, how they are drawn in canvas.js.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import metrics, overlay
from retina_seg.inference import Prediction
from retina_seg.viewer import pyramid
from retina_seg.viewer.pyramid import Plane

MESSAGE_BYTES = 2_000_000
"""A message with tiles stops growing here; what is left out is asked for again."""

THRESHOLDS = 1000
"""The slider moves in steps of one part of these; the histogram has a bin for each."""

FOV_COLOUR = (150, 150, 150)
SECOND_COLOUR = overlay.OTHER  # all targets of the model beside
TRUTH_COLOUR = (213, 94, 0)  # vermilion of Okabe and Ito: none of the targets has it


@dataclass(frozen=True)
class Source:
    """One model's result in a scene: `id` is "a" or "b", `prediction` at the thresholds of the model's card."""

    id: str
    title: str
    prediction: Prediction


@dataclass
class Scene:
    """A photograph with the results of one or two models and, where known, the truth.

    Attributes
    ----------
    id : changes with everything that changes a tile.
    photograph : the same for the same photograph.
    truths : target -> bool (H, W).
    """

    id: str
    photograph: str
    sources: Sequence[Source]
    truths: Mapping[str, NDArray[np.bool_]]
    _planes: dict[str, Plane] = field(default_factory=dict, repr=False)

    @property
    def first(self) -> Prediction:
        """The main model's result."""
        return self.sources[0].prediction

    def plane(self, name: str) -> Plane:
        """A plane by name; KeyError for a name the scene does not have."""
        if name not in self._planes:
            self._planes[name] = self._make(name)
        return self._planes[name]

    def _make(self, name: str) -> Plane:
        image = self.first.image
        if name == "colour":
            return Plane(image, "picture")
        if name == "green":
            return Plane(np.ascontiguousarray(image[..., 1]), "picture")
        if name == "contrast":
            return Plane(pyramid.contrast(image), "picture")
        if name == "fov":
            return Plane(self.first.fov, "mask")
        if name.startswith("truth:"):
            return Plane(self.truths[name.removeprefix("truth:")], "mask")
        for source in self.sources:
            for target, prob in zip(source.prediction.targets, source.prediction.prob, strict=True):
                if name == f"prob:{source.id}:{target}":
                    return Plane(prob, "prob")
        raise KeyError(name)

    def opening(self, thresholds: Mapping[str, float], um_per_px: float | None = None) -> bytes:
        """The message that shows the scene: its description and every layer at the coarsest level.

        Parameters
        ----------
        thresholds : layer ("a:vessels") -> threshold in use, where it is not the card's.
        um_per_px : size of a pixel, None where unknown.
        """
        height, width = self.first.fov.shape
        sizes = pyramid.levels(width, height)
        description = {**self.describe(), "thresholds": dict(thresholds), "um_per_px": um_per_px}
        names = ["colour", *(layer["plane"] for layer in self.layers)]
        wanted = [key for name in names for key in pyramid.keys(name, len(sizes) - 1, sizes[-1])]
        return pyramid.pack({"id": self.id, "scene": description}, [(key, *self._tile(key)) for key in wanted])

    def answer(self, wanted: Sequence[str]) -> bytes:
        """The message with tiles the browser asked for; names of tiles that do not exist are passed over."""
        tiles: list[tuple[str, str, bytes]] = []
        size = 0
        for key in wanted:
            try:
                tile = self._tile(key)
            except (KeyError, IndexError, ValueError):
                continue
            if tiles and size + len(tile[1]) > MESSAGE_BYTES:
                break
            tiles.append((key, *tile))
            size += len(tile[1])
        return pyramid.pack({"id": self.id, "asked": list(wanted)}, tiles)

    def _tile(self, key: str) -> tuple[str, bytes]:
        name, *place = pyramid.parse(key)
        return self.plane(name).tile(*place)

    def describe(self) -> dict[str, Any]:
        """What the browser must know, as plain values."""
        height, width = self.first.fov.shape
        return {
            "id": self.id,
            "photograph": self.photograph,
            "width": width,
            "height": height,
            "tile": pyramid.TILE,
            "levels": pyramid.levels(width, height),
            "sources": [{"id": source.id, "title": source.title} for source in self.sources],
            "layers": self.layers,
            "fov": "fov",
            "agreement": {"hit": overlay.HIT, "missed": overlay.MISSED, "false": overlay.FALSE},
            "scale": _viridis(),
        }

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """What can be switched on: the targets of each source, the field of view, the truths."""
        several = len(self.sources) > 1
        layers = []
        for source in self.sources:
            prediction = source.prediction
            for index, target in enumerate(prediction.targets):
                truth = self.truths.get(target)
                title = overlay.title(target)
                colour = overlay.colour(target) if source.id == "a" else SECOND_COLOUR
                layers.append(
                    {
                        **_layer(f"{source.id}:{target}", "prob", target, source.id, colour),
                        "title": f"{title} · {source.title}" if several else title,
                        "plane": f"prob:{source.id}:{target}",
                        "threshold": prediction.thresholds[index],
                        "histogram": histogram(prediction.prob[index], truth, prediction.fov),
                        "scored": truth is not None,
                        "withheld": any(doubt.withholds for doubt in prediction.doubts),
                    }
                )
        layers.append({**_layer("fov", "mask", "fov", "a", FOV_COLOUR), "title": "field of view", "contour": True})
        for target in self.truths:
            layer = _layer(f"truth:{target}", "truth", target, "", TRUTH_COLOUR)
            layers.append({**layer, "title": f"truth: {overlay.title(target)}"})
        return layers


def _layer(name: str, kind: str, target: str, source: str, colour: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "id": name,
        "kind": kind,
        "name": target,
        "source": source,
        "colour": colour,
        "plane": name,
        "on": kind != "mask",
        "opacity": 0.65,
        "contour": False,
    }


def histogram(prob: NDArray[np.float32], truth: NDArray[np.bool_] | None, fov: NDArray[np.bool_]) -> list[list[int]]:
    """Pixels inside `fov` by probability, unmarked and marked in the truth (all unmarked without one)."""
    marked = np.zeros_like(fov) if truth is None else truth
    return metrics.score_histogram(prob, marked, fov, bins=THRESHOLDS).tolist()


def _viridis() -> list[list[int]]:
    """256 colours from dark to light, RGB 0 to 255."""
    column = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(column, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1].tolist()
