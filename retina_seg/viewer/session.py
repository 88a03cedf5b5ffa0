"""What one visitor has opened and what came of it: bounded in entries, shared with nobody.

Lives in Streamlit's session state and ends with it.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retina_seg import metrics
from retina_seg.inference import Prediction
from retina_seg.viewer import engine, graders, numbers
from retina_seg.viewer.opened import Loaded, Photograph
from retina_seg.viewer.scene import Scene, Source

RESULTS = 4
"""Results kept with all their pixels: one of 4288 x 2848 takes about 120 MB."""
PIXELS = 50_000_000
"""Most pixels that results kept have together, where there are more than _COMPARED."""
_COMPARED = 2  # results that are in view at once


def _remembered(store: OrderedDict[Any, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """The entry of `key`, made where it is missing; of those used last as many stay as RESULTS and PIXELS allow."""
    if key not in store:
        store[key] = make()
    store.move_to_end(key)
    while len(store) > RESULTS or (len(store) > _COMPARED and sum(map(_pixels, store.values())) > PIXELS):
        store.popitem(last=False)
    return store[key]


def _pixels(entry: Any) -> int:
    """Pixels of the photograph that an entry holds."""
    if isinstance(entry, Loaded):
        return entry.image.shape[0] * entry.image.shape[1]
    if isinstance(entry, Scene):
        return entry.first.fov.size
    return entry.fov.size if isinstance(entry, Prediction) else 0


@dataclass(frozen=True)
class DroppedTruth:
    """What a visitor dropped for a photograph.

    `id` is unique, `files` target -> name of its file, `targets` target -> bool (H, W), `notes` target -> what was done
    to it or is odd, where there is something to say.
    """

    id: str
    files: Mapping[str, str]
    targets: Mapping[str, NDArray[np.bool_]]
    notes: Mapping[str, str] = field(default_factory=dict)


_NO_TRUTH = DroppedTruth("", {}, {})


@dataclass
class Session:
    """The state of one visitor.

    Attributes
    ----------
    photographs : by id, in the order they were opened.
    current : id of the one in view, "" for none.
    thresholds : (photograph, model) -> target -> threshold the visitor chose.
    truths : photograph -> the annotation dropped for it.
    refused : photograph -> why the annotation dropped last was not taken.
    um_per_px : photograph -> size of a pixel the visitor gave.
    um_of_size : (height, width) -> size of a pixel the visitor gave for all photographs of that size.
    batch : (photograph, model) -> what `batches.segment` made of it.
    """

    photographs: dict[str, Photograph] = field(default_factory=dict)
    current: str = ""
    thresholds: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    truths: dict[str, DroppedTruth] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    um_per_px: dict[str, float] = field(default_factory=dict)
    um_of_size: dict[tuple[int, int], float] = field(default_factory=dict)
    batch: dict[tuple[str, str], Any] = field(default_factory=dict)
    _loaded: OrderedDict[str, Loaded] = field(default_factory=OrderedDict, repr=False)
    _results: OrderedDict[tuple[str, str], Prediction] = field(default_factory=OrderedDict, repr=False)
    _insides: OrderedDict[tuple[str, str], engine.Inside] = field(default_factory=OrderedDict, repr=False)
    _graded: OrderedDict[tuple[str, str], graders.Graded] = field(default_factory=OrderedDict, repr=False)
    _scenes: OrderedDict[Hashable, Scene] = field(default_factory=OrderedDict, repr=False)
    _chosen: OrderedDict[Hashable, Prediction] = field(default_factory=OrderedDict, repr=False)
    _measured: OrderedDict[Hashable, Mapping[str, float]] = field(default_factory=OrderedDict, repr=False)
    _aucs: dict[Hashable, float] = field(default_factory=dict, repr=False)

    def open(self, photograph: Photograph) -> None:
        """Add a photograph and look at it."""
        self.photographs.setdefault(photograph.id, photograph)
        self.current = photograph.id

    def keep_uploads(self, uploads: Sequence[Photograph]) -> None:
        """Make the dropped files of `photographs` those of `uploads`: new ones come, removed ones go."""
        listed = {photograph.id: photograph for photograph in uploads}
        for gone in [key for key, one in self.photographs.items() if one.source == "file" and key not in listed]:
            self.close(gone)
        new = [key for key in listed if key not in self.photographs]
        self.photographs.update({key: listed[key] for key in new})
        if new:
            self.current = new[0]

    def close(self, key: str) -> None:
        """Forget a photograph and everything made of it."""
        self.photographs.pop(key, None)
        self.truths.pop(key, None)
        self.refused.pop(key, None)
        self.um_per_px.pop(key, None)
        self._loaded.pop(key, None)
        for store in (
            self.thresholds,
            self.batch,
            self._results,
            self._insides,
            self._graded,
            self._scenes,
            self._chosen,
            self._measured,
            self._aucs,
        ):
            for entry in [entry for entry in store if entry[0] == key]:  # type: ignore[index]
                del store[entry]  # type: ignore[arg-type]
        if self.current == key:
            self.current = next(iter(self.photographs), "")

    def load(self, photograph: Photograph) -> Loaded:
        """The photograph's pixels; UserError where it has none."""
        return _remembered(self._loaded, photograph.id, photograph.read)

    def predict(self, photograph: Photograph, model: str) -> Prediction:
        """The model's result at its own threshold; the model runs only where it is not at hand."""
        loaded = self.load(photograph)
        return _remembered(self._results, (photograph.id, model), lambda: engine.segment(model, loaded))

    def inside(self, photograph: Photograph, model: str) -> engine.Inside:
        """What a dictionary model does with the photograph."""
        loaded = self.load(photograph)
        return _remembered(self._insides, (photograph.id, model), lambda: engine.inside(model, loaded))

    def graded(self, photograph: Photograph, classifier: str) -> graders.Graded:
        """What a classifier says of the photograph, and what it looks at."""
        loaded = self.load(photograph)
        return _remembered(self._graded, (photograph.id, classifier), lambda: graders.grade(classifier, loaded))

    def has(self, photograph: Photograph, model: str) -> bool:
        """Whether `predict` would not run the model."""
        return (photograph.id, model) in self._results

    def known_truths(self, photograph: Photograph) -> dict[str, NDArray[np.bool_]]:
        """Annotations by target: those of its set or drawing, and the one the visitor dropped."""
        dropped = self.truths.get(photograph.id, _NO_TRUTH)
        return {**self.load(photograph).truths, **dropped.targets}

    def add_truth(self, key: str, truth: DroppedTruth) -> None:
        """Keep a truth beside those of other targets of the photograph `key`."""
        old = self.truths.get(key)
        if old is not None:
            files, targets = {**old.files, **truth.files}, {**old.targets, **truth.targets}
            kept = {name: note for name, note in old.notes.items() if name not in truth.targets}
            truth = DroppedTruth(f"{old.id} {truth.id}", files, targets, {**kept, **truth.notes})
        self.truths[key] = truth

    def forget_truth(self, key: str, target: str) -> None:
        """Drop the truth of one target; with the last one the photograph has none."""
        old = self.truths.pop(key, None)
        if old is not None and set(old.targets) - {target}:
            files = {name: file for name, file in old.files.items() if name != target}
            left = {name: mask for name, mask in old.targets.items() if name != target}
            notes = {name: note for name, note in old.notes.items() if name != target}
            self.truths[key] = DroppedTruth(f"{old.id} without {target}", files, left, notes)

    def forget_truths(self, key: str) -> None:
        """Drop the truths of all targets."""
        self.truths.pop(key, None)

    def note(self, photograph: Photograph, target: str) -> str:
        """What was done to the truth that was dropped for a target, or is odd about it; "" for nothing."""
        return self.truths.get(photograph.id, _NO_TRUTH).notes.get(target, "")

    def scene(self, photograph: Photograph, models: Sequence[str], titles: Mapping[str, str]) -> Scene:
        """What the browser draws: the results of one or two models on one photograph."""
        key = (photograph.id, tuple(models), self.truths.get(photograph.id, _NO_TRUTH).id)

        def make() -> Scene:
            sources = [
                Source(letter, titles[model], self.predict(photograph, model))
                for letter, model in zip("ab", models, strict=False)
            ]
            found = {target for source in sources for target in source.prediction.targets}
            truths = {t: mask for t, mask in self.known_truths(photograph).items() if t in found}
            return Scene(repr(key), photograph.id, sources, truths)

        return _remembered(self._scenes, key, make)

    def chosen(self, photograph: Photograph, model: str) -> Prediction:
        """The result at the thresholds the visitor chose."""
        prediction = self.predict(photograph, model)
        own = self.thresholds.get((photograph.id, model), {})
        wanted = tuple(own.get(t, given) for t, given in zip(prediction.targets, prediction.thresholds, strict=True))
        if wanted == prediction.thresholds:
            return prediction
        return _remembered(self._chosen, (photograph.id, model, wanted), lambda: prediction.at(*wanted))

    def measured(self, photograph: Photograph, model: str) -> Mapping[str, float]:
        """`numbers.measure` of `chosen`; it takes half a second for a large photograph, so it is done once."""
        prediction = self.chosen(photograph, model)
        key = (photograph.id, model, prediction.thresholds)
        return _remembered(self._measured, key, lambda: numbers.measure(prediction, engine.disc_pixels(prediction)))

    def pixel_size(self, photograph: Photograph) -> float | None:
        """Micrometres on the retina that a pixel spans, None where the visitor gave none for this photograph."""
        height, width = self.load(photograph).image.shape[:2]
        return self.um_per_px.get(photograph.id, self.um_of_size.get((height, width)))

    def auc(self, photograph: Photograph, model: str, target: str, truth: NDArray[np.bool_]) -> float:
        """AUC inside the field of view; it does not depend on a threshold and is computed once."""
        key = (photograph.id, model, target, self.truths.get(photograph.id, _NO_TRUTH).id)
        if key not in self._aucs:
            prediction = self.predict(photograph, model)
            prob = prediction.prob[prediction.targets.index(target)]
            self._aucs[key] = metrics.auc(prob, truth, prediction.fov)
        return self._aucs[key]
