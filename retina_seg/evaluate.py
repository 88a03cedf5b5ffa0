"""Scores of a model by a published protocol: pooled, per image, with intervals, human row and leak guard.

No formulas (metrics.py), tables (scores.py) or networks: any function from Sample to probabilities is scored.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retina_seg import datasets, metrics, protocols
from retina_seg._version import __version__
from retina_seg.datasets import Sample
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.manifest import Row
from retina_seg.metrics import MASK_METRICS, Array, Counts, Tally
from retina_seg.scores import METRICS, Report, mean, resample_weights, rounded, spread

_HASHES = ("image_sha256", "label_sha256", "fov_sha256")
_NOTHING = np.zeros((2, metrics.HISTOGRAM_BINS), dtype=np.int64)


class PredictionLike(Protocol):
    """What a predictor returns; `inference.Prediction` is one."""

    @property
    def prob(self) -> Array:
        """Probabilities, float32 (K, H, W) in [0, 1], at the photograph's own size."""

    @property
    def fov(self) -> Array:
        """Field of view, bool (H, W): the one of the Sample."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The K names."""


@dataclass(frozen=True)
class Candidate:
    """What is scored, and its past.

    Attributes
    ----------
    name : what the report calls it.
    predict : from a Sample to its prediction. The Sample's `fov` is always set and is the one to use.
    threshold : a pixel with this probability or more is marked.
    threshold_source : how it was chosen and on which images, in words.
    trained_on : `Row.key` ("drive:21") of all training and validation images; None where nobody knows.
    weights_sha256, postprocessing, provenance : copied into the report; `provenance` holds plain values.
    """

    name: str
    predict: Callable[[Sample], PredictionLike]
    threshold: float
    threshold_source: str
    trained_on: frozenset[str] | None = None
    weights_sha256: str = ""
    postprocessing: str = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or not self.threshold_source:
            raise UserError(
                f"{self.name}: threshold {self.threshold!r} from {self.threshold_source!r}; a score needs "
                "one in [0, 1] and the images it was chosen on, which are training or validation images"
            )


@dataclass(frozen=True)
class _Scored:
    """One image as one rater marked it: pixels for the exact pooled curves, tallies for everything else."""

    row: Row
    fold: int
    image_sha256: str
    prob: Array  # float (H, W)
    truth: Array  # bool (H, W)
    fov: Array  # bool (H, W)
    inside: Tally
    frame: Tally
    values: dict[str, float]  # METRICS inside the field of view

    @property
    def subject(self) -> str:
        return f"{self.row.dataset}:{self.row.subject}"


def evaluate(
    model: Candidate | Callable[[int], Candidate],
    protocol: str,
    data_root: str | Path,
    *,
    split: str = "test",
    seed: int = 0,
    n_bootstrap: int = 2000,
    progress: Callable[[int, int], None] | None = None,
    on_prediction: Callable[[Row, Sample, PredictionLike], None] | None = None,
) -> Report:
    """Score a model by a protocol.

    All pixels stay in memory until the end (about 6 bytes each), because pooled AUC and AP are exact.

    Parameters
    ----------
    model
        A Candidate, or for protocols with folds a function from the fold (1, 2, ...) to its Candidate.
    protocol
        Name in `protocols.PROTOCOLS`.
    seed, n_bootstrap
        Resamples of subjects behind the 95 % percentile intervals; the same seed gives the same intervals.
    progress
        Called with (images done, images in all).
    on_prediction
        Called with every row, Sample (field of view filled in) and prediction, e.g. to save them.

    Raises
    ------
    UserError
        Unknown protocol or split, missing data, a prediction of another size or with another field of view.
    """
    plan, selected = protocols.find(protocol), protocols.cases(protocol, split)
    candidates: dict[int, Candidate] = {}
    images, observers = [], []
    for done, (fold, row) in enumerate(selected):
        if progress:
            progress(done, len(selected))
        if fold not in candidates:
            candidates[fold] = model if isinstance(model, Candidate) else model(fold)
        sample = _sample(row, plan.target, data_root)
        prediction = candidates[fold].predict(sample)
        if on_prediction:
            on_prediction(row, sample, prediction)
        prob = _probability(prediction, sample, plan.target)
        images.append(_score(fold, row, sample, plan.target, prob, candidates[fold].threshold))
        if plan.second_observer in sample.targets:
            human = sample.targets[plan.second_observer].astype(np.float32)
            observers.append(_score(fold, row, sample, plan.target, human, 0.5))
    if progress:
        progress(len(selected), len(selected))
    return _report(protocol, split, candidates, images, observers, {"n": n_bootstrap, "seed": seed})


def _sample(row: Row, target: str, data_root: str | Path) -> Sample:
    """The row's Sample, its field of view found where the set releases none."""
    sample = datasets.load(row, data_root)
    if target not in sample.targets:
        raise UserError(f"{row.key} has no annotation of {target}; it cannot be scored")
    return sample if sample.fov is not None else replace(sample, fov=find_fov(sample.image))


def _probability(prediction: PredictionLike, sample: Sample, target: str) -> Array:
    """The target's channel (H, W), checked against the photograph."""
    if target not in prediction.targets:
        raise UserError(f"the model finds {', '.join(prediction.targets)}; this protocol scores {target}")
    prob: Array = prediction.prob[prediction.targets.index(target)]
    if prob.shape != sample.targets[target].shape:
        raise UserError(
            f"{sample.id}: the prediction has shape {prob.shape}, the annotation "
            f"{sample.targets[target].shape}; predict at the photograph's own size"
        )
    if sample.fov is None or not np.array_equal(prediction.fov, sample.fov):
        raise UserError(f"{sample.id}: predicted in another field of view than sample.fov; use that one")
    return prob


def _score(fold: int, row: Row, sample: Sample, target: str, prob: Array, threshold: float) -> _Scored:
    truth, fov = sample.targets[target], sample.fov
    assert fov is not None
    inside = metrics.tally(prob, truth, fov, threshold)
    values = inside.metrics()
    values["auc"], values["ap"] = metrics.auc(prob, truth, fov), metrics.average_precision(prob, truth, fov)
    return _Scored(
        row=row,
        fold=fold,
        image_sha256=datasets.pixel_hash(sample.image),
        prob=prob,
        truth=truth,
        fov=fov,
        inside=inside,
        frame=metrics.tally(prob, truth, None, threshold),
        values={name: values[name] for name in METRICS},
    )


def _report(
    protocol: str,
    split: str,
    candidates: Mapping[int, Candidate],
    images: Sequence[_Scored],
    observers: Sequence[_Scored],
    resample: Mapping[str, int],
) -> Report:
    plan, first = protocols.find(protocol), next(iter(candidates.values()))
    sources = {"released with the set" if image.row.fov else "found in the photograph" for image in images}
    humans = {(one.fold, one.row.key): one for one in observers}
    table = [_row(one, candidates[one.fold].threshold, humans.get((one.fold, one.row.key))) for one in images]
    leaked, warnings = _leaks(candidates, images)
    changed = [image.row.key for image, row in zip(images, table, strict=True) if _differs(image, row, plan.target)]
    warnings += [f"files differ from the release in the manifest: {', '.join(changed)}"] if changed else []
    warnings += [f"scored on split {split!r}: not a test score"] if split != "test" else []
    pooled, tally = _pooled(images, METRICS), metrics.pool([image.inside for image in images])
    binned = tally.metrics()
    binning = {f"{name}_binned_minus_exact": binned[name] - pooled[name] for name in ("auc", "ap")}
    oracle = metrics.best_threshold(*_pixels(images))[0]
    return Report(
        model=", ".join(dict.fromkeys(candidate.name for candidate in candidates.values())),
        protocol=protocol,
        split=split,
        target=plan.target,
        annotator=plan.annotator,
        n_images=len(images),
        n_subjects=len({image.subject for image in images}),
        threshold=first.threshold if len({c.threshold for c in candidates.values()}) == 1 else math.nan,
        threshold_source="; ".join(dict.fromkeys(c.threshold_source for c in candidates.values())),
        fov_source=", ".join(sorted(sources)),
        postprocessing=first.postprocessing,
        fov=pooled,
        full_frame=_pooled(images, METRICS, frame=True),
        **_spread(images, METRICS, resample),
        at_half=_at(images, 0.5, "threshold 0.5, chosen on no image"),
        oracle=_at(images, oracle, "threshold chosen on the scored images: an upper bound, not a result"),
        second_observer=_human(plan.second_observer, observers, resample) if observers else None,
        per_fold=[_fold(fold, candidates[fold], images) for fold in candidates if fold],
        per_image=table,
        curves={name: rounded(values) for name, values in metrics.curves_from_histogram(tally.histogram).items()},
        bootstrap={**resample, "unit": "subject", **binning},
        warnings=[plan.note, *warnings] if plan.note else warnings,
        leaked_images=leaked,
        provenance=_provenance(candidates, table),
    )


def _pixels(scored: Sequence[_Scored], frame: bool = False) -> tuple[Array, Array, Array | None]:
    """prob, truth, fov of all images, each (n,)."""
    prob, truth, fov = (
        np.concatenate([getattr(one, name).ravel() for one in scored]) for name in ("prob", "truth", "fov")
    )
    return prob, truth, None if frame else fov


def _pooled(scored: Sequence[_Scored], names: Sequence[str], *, frame: bool = False) -> dict[str, float]:
    values = metrics.pool([one.frame if frame else one.inside for one in scored]).metrics()
    if "auc" in names:
        pixels = _pixels(scored, frame)
        values["auc"], values["ap"] = metrics.auc(*pixels), metrics.average_precision(*pixels)
    return {name: values[name] for name in names}


def _spread(scored: Sequence[_Scored], names: Sequence[str], resample: Mapping[str, int]) -> dict[str, Any]:
    table = np.array([[one.values[name] for name in names] for one in scored])  # (images, m)
    weights = resample_weights([one.subject for one in scored], resample["n"], resample["seed"])
    return spread(table, names, [one.inside for one in scored], weights)


def _at(scored: Sequence[_Scored], threshold: float, label: str) -> dict[str, Any]:
    """Pooled ratios inside the field of view at another threshold."""
    counts = [metrics.confusion_counts(one.prob >= threshold, one.truth, one.fov) for one in scored]
    pooled = sum(counts, Counts())
    ratios = {name: getattr(pooled, name) for name in MASK_METRICS if name != "cldice"}
    image_mean = mean(np.array([one.dice for one in counts]))
    return {"label": label, "threshold": threshold, **ratios, "per_image_mean_dice": image_mean}


def _human(target: str, observers: Sequence[_Scored], resample: Mapping[str, int]) -> dict[str, Any]:
    """The second observer scored as if a model; a marking has no curve, hence no auc, ap, ece, brier."""
    return {
        "target": target,
        "n_images": len(observers),
        "fov": _pooled(observers, MASK_METRICS),
        "full_frame": _pooled(observers, MASK_METRICS, frame=True),
        **_spread(observers, MASK_METRICS, resample),
    }


def _fold(fold: int, candidate: Candidate, images: Sequence[_Scored]) -> dict[str, Any]:
    own = [image for image in images if image.fold == fold]
    means = {name: mean(np.array([one.values[name] for one in own])) for name in METRICS}
    head = {"fold": fold, "n_images": len(own), "threshold": candidate.threshold}
    return {**head, "fov": _pooled(own, METRICS), "per_image_mean": means}


def _row(image: _Scored, threshold: float, human: _Scored | None) -> dict[str, Any]:
    """One line of the per-image table; its counts let `compare` pool without the pixels."""
    return {
        "id": image.row.id,
        "dataset": image.row.dataset,
        "subject": image.row.subject,
        "fold": image.fold or None,
        "threshold": threshold,
        **image.values,
        "second_observer_dice": human.values["dice"] if human else None,
        "counts": dict(zip(("tp", "fp", "fn", "tn"), image.inside.counts.tolist(), strict=True)),
        "skeleton": image.inside.skeleton.tolist(),
        "image_sha256": image.image_sha256,
        "label_sha256": datasets.pixel_hash(image.truth),
        "fov_sha256": datasets.pixel_hash(image.fov),
    }


def _differs(image: _Scored, row: Mapping[str, Any], target: str) -> bool:
    """Whether the photograph or its annotation is not what the manifest describes."""
    known = (image.row.pixel_sha256 or None, image.row.target_sha256.get(target))
    used = (row["image_sha256"], row["label_sha256"])
    return any(a is not None and a != b for a, b in zip(known, used, strict=True))


def _leaks(candidates: Mapping[int, Candidate], images: Sequence[_Scored]) -> tuple[list[str], list[str]]:
    """Keys of scored images that the model has seen, and what must be said about it."""
    leaked: list[str] = []
    warnings = []
    for fold, candidate in candidates.items():
        rows = [image.row for image in images if image.fold == fold]
        if candidate.trained_on is None:
            warnings.append(f"{candidate.name}: training images unknown, not checked whether it saw these images")
        elif seen := protocols.leaks(rows, candidate.trained_on):
            leaked += seen
            warnings.append(
                f"LEAK: {candidate.name} learnt from {len(seen)} of the {len(rows)} scored images or from "
                f"others of their subjects ({', '.join(seen)}): this is not a test score"
            )
    return leaked, warnings


def _provenance(candidates: Mapping[int, Candidate], table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    learnt = [candidate.trained_on for candidate in candidates.values()]
    sets = sorted({key.partition(":")[0] for keys in learnt for key in keys or ()})
    models = [
        {
            "fold": fold or None,
            "name": candidate.name,
            "weights_sha256": candidate.weights_sha256,
            "threshold": candidate.threshold,
            "threshold_source": candidate.threshold_source,
            "trained_on": None if candidate.trained_on is None else sorted(candidate.trained_on),
            "provenance": dict(candidate.provenance),
        }
        for fold, candidate in candidates.items()
    ]
    hashes = [[row[key] for key in ("dataset", "id", *_HASHES)] for row in table]
    return {
        "versions": {
            "retina_seg": __version__,
            "numpy": np.__version__,
            "scikit-image": version("scikit-image"),
        },
        "training_sets": None if None in learnt else sets,
        "models": models,
        "data_sha256": hashlib.sha256(json.dumps(hashes).encode()).hexdigest(),
    }


def choose_threshold(
    scored: Iterable[tuple[Array, Array, Array | None]], protocol: str, *, split: str = "val"
) -> tuple[float, str]:
    """Threshold with the highest pooled Dice inside the field of view, and in words where it came from.

    Parameters
    ----------
    scored
        prob float (H, W), truth bool (H, W), fov bool (H, W) or None of every image; read one by one.
    protocol, split
        What the images are; only split "train" and "val" are accepted.

    Returns
    -------
    threshold : a multiple of 1 / 4096 (Dice is exact there); the middle of several that are equally good.
    how : for `Candidate.threshold_source`.
    """
    if split not in ("train", "val"):
        raise UserError(f"a threshold is chosen on split train or val, not on {split!r}")
    histograms = [metrics.score_histogram(prob, truth, fov) for prob, truth, fov in scored]
    count = f"{len(histograms)} {split} images of protocol {protocol}"
    threshold, best = metrics.best_threshold_from_histogram(np.sum([_NOTHING, *histograms], axis=0))
    if math.isnan(threshold):
        raise UserError(f"no threshold can be chosen: nothing is marked in the {count}")
    return threshold, f"highest pooled Dice ({best:.4f}) on the {count}"
