"""Small photographs with a result, messages to the browser taken apart, and how often a model ran."""

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retina_seg import Segmenter, phantom
from retina_seg.inference import Prediction
from retina_seg.phantom import Phantom
from retina_seg.quality import Doubt
from retina_seg.viewer import engine
from retina_seg.viewer.opened import Loaded, Photograph
from retina_seg.viewer.pyramid import TILE

MODEL = "vessels-drive"
DARK = Doubt("dark", "The photograph is dark.", withholds=False)
Unpack = Callable[[bytes], tuple[dict[str, Any], dict[str, NDArray[Any]]]]


@pytest.fixture(scope="session")
def drawing() -> Phantom:
    """A drawn photograph, 200 x 206."""
    return phantom.draw(1, width=200, height=206)


@pytest.fixture(scope="session")
def whole(drawing: Phantom) -> Prediction:
    """What the packaged model says about `drawing`."""
    return Segmenter.from_pretrained(MODEL, "cpu", flips=False).predict(drawing.image)


@pytest.fixture(scope="session")
def prediction(whole: Prediction) -> Prediction:
    """The same result without doubts."""
    return replace(whole, photograph_doubts=(), mask_doubts=())


@pytest.fixture(scope="session")
def doubtful(prediction: Prediction) -> Prediction:
    """The same result with a doubt that only warns."""
    return replace(prediction, photograph_doubts=(DARK,))


@pytest.fixture(scope="session")
def worthless(prediction: Prediction) -> Prediction:
    """The same result with a doubt that warns and one that withholds the numbers."""
    return replace(
        prediction, photograph_doubts=(DARK,), mask_doubts=(Doubt("implausible", "No tree.", withholds=True),)
    )


@pytest.fixture(scope="session")
def two_targets(prediction: Prediction) -> Prediction:
    """The same photograph as a model with two targets would see it."""
    prob = np.stack([prediction.prob[0], prediction.prob[0, ::-1]]) * prediction.fov
    targets, thresholds = ("vessels", "disc"), (0.4, 0.6)
    both = replace(prediction, prob=prob, mask=np.zeros(prob.shape, np.bool_), targets=targets, thresholds=thresholds)
    return replace(both.at(*thresholds), mask_doubts=())


@pytest.fixture
def photograph(drawing: Phantom) -> Callable[..., Photograph]:
    """Make photographs: `photograph("1", source="file")` shows `drawing`, with its truth where it is drawn."""

    def make(key: str, *, name: str = "", source: str = "drawn") -> Photograph:
        truths = {"vessels": drawing.vessels} if source == "drawn" else {}
        return Photograph(f"{source}:{key}", name or f"eye {key}", source, lambda: Loaded(drawing.image, None, truths))

    return make


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, prediction: Prediction) -> list[str]:
    """Names of the models that ran so far, in place of the models themselves."""
    ran: list[str] = []

    def segment(name: str, loaded: Loaded) -> Prediction:
        ran.append(name)
        return prediction

    monkeypatch.setattr(engine, "segment", segment)
    return ran


@pytest.fixture(scope="session")
def unpack() -> Unpack:
    """Take a message apart as the browser does: its header, and the pixels of its tiles by name."""

    def parts(message: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        length = int.from_bytes(message[:4], "little")
        header, contents = json.loads(message[4 : 4 + length]), message[4 + length :]
        assert sum(tile["length"] for tile in header["tiles"]) == len(contents)
        tiles = {}
        for tile in header["tiles"]:
            content = contents[tile["start"] : tile["start"] + tile["length"]]
            tiles[tile["key"]] = _pixels(tile["type"], content)
        return header, tiles

    return parts


def _pixels(kind: str, content: bytes) -> NDArray[Any]:
    if kind == "image/jpeg":
        return np.asarray(Image.open(BytesIO(content)))
    return np.frombuffer(zlib.decompress(content), {"u16": "<u2", "u8": "u1"}[kind])


@pytest.fixture(scope="session")
def joined() -> Callable[[dict[str, NDArray[Any]], str, int, tuple[int, int]], NDArray[Any]]:
    """Put the tiles of a plane together again: `joined(tiles, plane, level, (width, height))`."""

    def together(tiles: dict[str, NDArray[Any]], plane: str, level: int, size: tuple[int, int]) -> NDArray[Any]:
        width, height = size
        rows = []
        for row in range(-(-height // TILE)):
            high = min(TILE, height - row * TILE)
            line = []
            for column in range(-(-width // TILE)):
                wide = min(TILE, width - column * TILE)
                tile = tiles[f"{plane}/{level}/{column}/{row}"]
                line.append(tile.reshape(high, wide, *tile.shape[2:]))
            rows.append(np.concatenate(line, axis=1))
        return np.concatenate(rows)

    return together
