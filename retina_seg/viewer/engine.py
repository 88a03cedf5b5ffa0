"""Models of the viewer: loaded once per server and used by one visitor at a time.

What a visitor keeps of their results is in session.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from streamlit.runtime.scriptrunner import get_script_run_ctx

from retina_seg import explain, extents, io, preprocess, report, zoo
from retina_seg.classify.inference import is_classifier
from retina_seg.fov import find_fov
from retina_seg.inference import Prediction, Segmenter
from retina_seg.viewer.opened import Loaded

MODELS = 4
"""Models kept in memory."""

_one_at_a_time = threading.Lock()  # two models at once would each take twice as long, and their memory
_PATIENCE = 0.2  # s, between two looks whether a page that waits is still there


@contextmanager
def turn() -> Iterator[None]:
    """Wait until no other visitor runs a model; a page that was closed or run anew meanwhile gives up its place.

    Outside a page, as in the thread that loads the first model, nothing is given up.
    """
    while not _one_at_a_time.acquire(timeout=_PATIENCE):
        _stop_if_left()
    try:
        _stop_if_left()
        yield
    finally:
        _one_at_a_time.release()


def _stop_if_left() -> None:
    """End the run of this page where Streamlit has been told to: it does so whenever the session state is asked."""
    if get_script_run_ctx(suppress_warning=True) is not None:
        "session" in st.session_state  # noqa: B015


def names(runs: tuple[str, ...]) -> dict[str, str]:
    """Name or run folder of every model that segments -> what the page calls it; the packaged ones first."""
    return {name: name for name in zoo.names()} | {
        run: title for run, title in titles(runs).items() if not is_classifier(run)
    }


def titles(runs: tuple[str, ...]) -> dict[str, str]:
    """Run folder -> what the page calls it."""
    stems = io.output_stems([f"{run}.png" for run in runs])  # all different, with folders above where they must
    return {run: f"{stem} (run)" for run, stem in zip(runs, stems, strict=True)}


@lru_cache(maxsize=MODELS)
def _segmenter(name: str) -> Segmenter:
    return Segmenter.from_pretrained(name)


def warm() -> None:
    """Load the first model, so that the first photograph does not wait for it."""
    with turn():
        _segmenter(zoo.names()[0])


def disc_pixels(prediction: Prediction) -> int | None:
    """Area of the optic disc, the unit for lesions, by the packaged network where the prediction has none of its own.

    None where there is no need for it, or no disc beyond doubt.
    """
    if not extents.measurable(prediction.targets):
        return None
    with turn():
        return extents.disc_pixels(prediction, _disc_finder(prediction.targets))


@lru_cache(maxsize=MODELS)
def _disc_finder(targets: Sequence[str]) -> Segmenter | None:
    return extents.disc_finder(targets)


@dataclass(frozen=True)
class Inside:
    """What a dictionary model does with a photograph.

    Attributes
    ----------
    picture : the photograph as large as the network reads it, uint8 (h, w, 3).
    image : what the network reads, float32 (C, h, w).
    figures : those of `report.dictionary` as PNG, by name.
    """

    picture: NDArray[np.uint8]
    image: NDArray[np.float32]
    figures: Mapping[str, bytes]


def has_dictionary(name: str) -> bool:
    """Whether `inside` can show something of a model; it is not loaded for that."""
    return zoo.card(name).model.name in explain.MODELS


def inside(name: str, loaded: Loaded) -> Inside:
    """Code a photograph with a model's dictionary; waits while another visitor runs one. UserError without one."""
    with turn():
        segmenter = _segmenter(name)
        fov = find_fov(loaded.image) if loaded.fov is None else loaded.fov
        prepared = preprocess.apply(loaded.image, fov, segmenter.settings)
        figures = report.dictionary(segmenter.net, prepared)
        return Inside(
            preprocess.crop(loaded.image, prepared.geometry),
            prepared.image,
            {name: report.png(figure) for name, figure in figures.items()},
        )


def votes(name: str, image: NDArray[np.float32], place: tuple[int, int]) -> bytes | None:
    """The atoms that vote at pixel (y, x) of a prepared image, as PNG; None for a model whose atoms do not vote."""
    with turn():
        net = _segmenter(name).net
        if isinstance(net, explain.DictUNet):
            return None
        return report.png(report.votes(explain.votes(net, image, place), explain.atoms(net)))


def segment(name: str, loaded: Loaded) -> Prediction:
    """Run a model, loaded on first use; waits while another visitor runs one. UserError as `Segmenter.predict`."""
    with turn():
        return _segmenter(name).predict(loaded.image, loaded.fov)
