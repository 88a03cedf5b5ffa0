"""A patch classifier as a segmenter: it answers for every pixel by itself. Scored as every segmenter is."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, evaluate, files, inference, io, metrics, preprocess, protocols, scoring
from retina_seg.classify import fundus
from retina_seg.classify.inference import Classifier, seen_by
from retina_seg.datasets import Sample
from retina_seg.decode import InMemory
from retina_seg.errors import UserError
from retina_seg.inference import Prediction
from retina_seg.manifest import Row
from retina_seg.photographs import load_photograph, rows_of
from retina_seg.scores import Report
from retina_seg.scoring import Remembered

TASK = "vessel-patches"
_ROWS = 4  # of pixels at once: 2,000 patches of 27 x 27 x 3 are 18 MB


def paint(classifier: Classifier, image: NDArray[np.uint8], fov: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probability of a vessel of every pixel inside the field of view, float32 (H, W), from the patch around it.

    Half of the patches it has learnt from are vessels: probabilities are those of such a mixture, too high for a
    retina, of which a tenth is vessel. The threshold, chosen on whole photographs, makes up for it. UserError for a
    classifier of another task.
    """
    _check(classifier)
    prepared = preprocess.apply(image, fov, classifier.settings)
    side = classifier.card.model.in_shape[1]
    width, inside = prepared.image.shape[2], prepared.fov
    prob = np.zeros(inside.shape, np.float32)
    for number, patches in enumerate(fundus.strips(prepared.image, side, _ROWS)):
        here = inside[number * _ROWS : (number + 1) * _ROWS]
        if here.any():
            chosen = np.ascontiguousarray(patches[here.ravel()])
            prob[number * _ROWS : number * _ROWS + len(patches) // width][here] = classifier.probabilities(chosen)[0][
                :, 1
            ]
    return preprocess.undo(prob[None], fov, prepared.geometry)[0]


def score(
    model: str | Path,
    protocol: str,
    data_root: str | Path,
    *,
    save_to: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Report, float]:
    """The report of a patch classifier by a vessel protocol, and the seconds that a photograph takes.

    Its threshold is the one of highest Dice on the validation photographs of DRIVE. `save_to` gets mask and
    probability of every photograph; UserError where others would be lost, but for `overwrite`.
    """
    classifier = Classifier.from_pretrained(model, device)

    def predict(sample: Sample) -> Remembered:
        if sample.fov is None:
            raise UserError(f"{sample.id} has no field of view")
        prob = paint(classifier, sample.image, sample.fov)
        return Remembered(prob[None], sample.fov, ("vessels",))

    def save(row: Row, _sample: Sample, prediction: evaluate.PredictionLike) -> None:
        if save_to is not None:
            contents = {
                f"{row.id}_mask.png": io.mask_png(prediction.prob[0] >= threshold),
                f"{row.id}_prob.tif": io.probability_tiff(prediction.prob[0]),
            }
            files.check_replaceable((save_to / name for name in contents), overwrite=overwrite)
            files.write_all(save_to, contents)

    _check(classifier)
    if "vessels" not in protocols.find(protocol).targets:
        raise UserError(f"{protocol} has no annotation of vessels: choose another protocol, as drive")
    if save_to is not None:
        files.make_folder(save_to)
    threshold, source = _threshold(classifier, data_root)
    silent = "images" not in classifier.card.training
    candidate = evaluate.Candidate(
        name=classifier.card.name,
        predict=predict,
        threshold=threshold,
        threshold_source=source,
        trained_on=None if silent else frozenset(seen_by(classifier.card)),
        weights_sha256=classifier.card.weights_sha256,
        provenance={"device": classifier.device, "parameters": classifier.card.parameters},
    )
    candidate, seconds = scoring.timed(candidate)
    found = evaluate.evaluate(candidate, protocol, data_root, progress=progress, on_prediction=save)
    return found["vessels"], float(np.mean(seconds))


class PatchSegmenter:
    """A patch classifier with the interface of `inference.Segmenter`: photographs in, predictions out.

    Parameters
    ----------
    classifier : of the task TASK; UserError for any other.
    threshold, threshold_source : a pixel of this probability or more is marked, and what chose it.
    """

    targets = ("vessels",)

    def __init__(self, classifier: Classifier, threshold: float, threshold_source: str) -> None:
        _check(classifier)
        self.classifier, self.device = classifier, classifier.device
        self.threshold, self.threshold_source = threshold, threshold_source

    @classmethod
    def from_pretrained(
        cls, model: str | Path, data_root: str | Path, *, threshold: float | None = None, device: str = "auto"
    ) -> "PatchSegmenter":
        """A packaged classifier or run folder.

        Without `threshold` it is chosen as in `score`, on photographs below `data_root`.
        """
        classifier = Classifier.from_pretrained(model, device)
        _check(classifier)
        if threshold is not None:
            return cls(classifier, threshold, "given by the caller")
        return cls(classifier, *_threshold(classifier, data_root))

    def predict(self, source: str | Path | InMemory | NDArray[np.uint8]) -> Prediction:
        """Segment one photograph; UserError where it cannot be one."""
        started = time.perf_counter()
        photograph = inference.opened(source)
        card = self.classifier.card
        return inference.concluded(
            photograph,
            paint(self.classifier, photograph.image, photograph.fov)[None],
            targets=self.targets,
            thresholds=(self.threshold,),
            facts={
                **{"model": card.name, "weights_sha256": card.weights_sha256, "device": self.device},
                "threshold_source": self.threshold_source,
            },
            fov_diameter=self.classifier.settings.fov_diameter,
            started=started,
        )


def _check(classifier: Classifier) -> None:
    if classifier.card.task != TASK:
        raise UserError(f"{classifier.card.name} answers {classifier.card.task}: only {TASK} can be painted with")


def _threshold(classifier: Classifier, data_root: str | Path) -> tuple[float, str]:
    """The threshold of highest Dice on the validation photographs of DRIVE, and in words where it is from."""
    rows = rows_of(["drive"], ["val"])
    histograms = []
    for row in rows:
        shown = load_photograph(row, data_root, ("vessels",), classifier.settings)
        image = datasets.load(row, data_root).image
        prob = paint(classifier, image, shown.fov)
        histograms.append(metrics.score_histogram(prob, shown.truth[0], shown.fov))
    learnt = {row.key for row in rows} & set(classifier.card.training.get("images", ()))
    beside = "also learnt from" if learnt else "not trained on"
    value = round(metrics.best_threshold_from_histogram(np.sum(histograms, axis=0))[0], 4)
    return value, f"highest pooled Dice on {len(rows)} validation images, {beside}"
