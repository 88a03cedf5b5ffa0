"""A patch classifier as a segmenter: it answers for every pixel by itself. Scored as every segmenter is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, evaluate, inference, io, metrics, overlay, preprocess, protocols, scoring
from retina_seg.classify import fundus
from retina_seg.classify.inference import Classifier, seen_by
from retina_seg.datasets import Sample
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
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
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Report, float]:
    """The report of a patch classifier by a vessel protocol, and the seconds that a photograph takes.

    Its threshold is the one of highest Dice on the validation photographs of DRIVE. `save_to` gets mask and
    probability of every photograph.
    """
    classifier = Classifier.from_pretrained(model, device)

    def predict(sample: Sample) -> Remembered:
        if sample.fov is None:
            raise UserError(f"{sample.id} has no field of view")
        prob = paint(classifier, sample.image, sample.fov)
        return Remembered(prob[None], sample.fov, ("vessels",))

    def save(row: Row, _sample: Sample, prediction: evaluate.PredictionLike) -> None:
        if save_to is not None:
            io.write_mask(save_to / f"{row.id}_mask.png", prediction.prob[0] >= threshold)
            io.write_probability(save_to / f"{row.id}_prob.tif", prediction.prob[0])

    _check(classifier)
    if "vessels" not in protocols.find(protocol).targets:
        raise UserError(f"{protocol} has no annotation of vessels: choose another protocol, as drive")
    if save_to is not None:
        io.make_folder(save_to)
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


def paint_files(
    model: str | Path,
    photographs: Sequence[tuple[Path, str]],
    out: Path,
    data_root: str | Path,
    *,
    threshold: float | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Paint photographs, and write mask, probability and overlay of each into `out` when it is done; their paths.

    `photographs` : path and stem of the results of each, as `batch.plan` has them.

    Without `threshold` it is chosen as in `score`, on photographs below `data_root`.
    """
    classifier = Classifier.from_pretrained(model, device)
    _check(classifier)
    io.make_folder(out)
    chosen = _threshold(classifier, data_root)[0] if threshold is None else threshold
    written = []
    for done, (path, stem) in enumerate(photographs):
        if progress:
            progress(done, len(photographs))
        image = io.read_image(path)
        fov = find_fov(image)
        prob = paint(classifier, image, fov)
        mask = inference.threshold(prob[None], (chosen,), fov)
        paths = [out / f"{stem}_{kind}" for kind in ("mask.png", "prob.tif", "overlay.png")]
        io.write_mask(paths[0], mask[0])
        io.write_probability(paths[1], prob)
        io.write_rgb(paths[2], overlay.blend(image, mask, ("vessels",)))
        written += paths
    return written


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
