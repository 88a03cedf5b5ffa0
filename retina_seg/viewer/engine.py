"""Models of the viewer: loaded once per server and used by one visitor at a time.

What a visitor keeps of their results is in session.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache

from retina_seg import extents, io, zoo
from retina_seg.inference import Prediction, Segmenter
from retina_seg.viewer.opened import Loaded

MODELS = 4
"""Models kept in memory."""

_one_at_a_time = threading.Lock()  # two at once would each take twice as long, and their memory


def names(runs: tuple[str, ...]) -> dict[str, str]:
    """Name or run folder of every model -> what the page calls it; the packaged ones first."""
    titles = io.output_stems([f"{run}.png" for run in runs])  # all different, with folders above where they must
    return {name: name for name in zoo.names()} | {
        run: f"{title} (run)" for run, title in zip(runs, titles, strict=True)
    }


@lru_cache(maxsize=MODELS)
def _segmenter(name: str) -> Segmenter:
    return Segmenter.from_pretrained(name)


def warm() -> None:
    """Load the first model, so that the first photograph does not wait for it."""
    with _one_at_a_time:
        _segmenter(zoo.names()[0])


def disc_pixels(prediction: Prediction) -> int | None:
    """Area of the optic disc, the unit for lesions, by the packaged network where the prediction has none of its own.

    None where there is no need for it, or no disc beyond doubt.
    """
    if not extents.measurable(prediction.targets):
        return None
    with _one_at_a_time:
        return extents.disc_pixels(prediction, _disc_finder(prediction.targets))


@lru_cache(maxsize=MODELS)
def _disc_finder(targets: Sequence[str]) -> Segmenter | None:
    return extents.disc_finder(targets)


def segment(name: str, loaded: Loaded) -> Prediction:
    """Run a model, loaded on first use; waits while another visitor runs one. UserError as `Segmenter.predict`."""
    with _one_at_a_time:
        return _segmenter(name).predict(loaded.image, loaded.fov)
