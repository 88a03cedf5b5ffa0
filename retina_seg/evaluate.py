"""Scores of a model by a published protocol: pooled, per image, with intervals, human row and leak guard.

No formulas (metrics.py, lesions.py, boundaries.py), tables (scores.py) or networks: any function from Sample to
probabilities is scored.
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

from retina_seg import boundaries, datasets, lesions, metrics, preprocess, protocols
from retina_seg._version import __version__
from retina_seg.datasets import LESIONS, Sample
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.lesions import Detections
from retina_seg.manifest import Row
from retina_seg.metrics import MASK_METRICS, Array, Counts, Ranking, RankingPool, Tally
from retina_seg.preprocess import Preprocess
from retina_seg.scores import METRICS, Report, interval95, mean, resample_weights, resampled_means, rounded, spread

_HASHES = ("image_sha256", "label_sha256", "fov_sha256")
# Larger images are ranked coarsely: the scores of all their pixels would not fit in memory.
_EXACT_PIXELS = 2**22
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
    threshold : a pixel with this probability or more is marked; one for all targets, or target -> threshold.
    threshold_source : how it was chosen and on which images, in words.
    trained_on : `Row.key` ("drive:21") of all training and validation images; None where nobody knows.
    weights_sha256, postprocessing, provenance : copied into the report; `provenance` holds plain values.
    preprocess : where it is given, targets are also scored at the size the network reads.
    further : whether the report gets `Report.further`, which takes a third of the time of large photographs.
    """

    name: str
    predict: Callable[[Sample], PredictionLike]
    threshold: float | Mapping[str, float]
    threshold_source: str
    trained_on: frozenset[str] | None = None
    weights_sha256: str = ""
    postprocessing: str = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    further: bool = True

    def __post_init__(self) -> None:
        given = self.threshold.values() if isinstance(self.threshold, Mapping) else [self.threshold]
        if not all(0 <= value <= 1 for value in given) or not self.threshold_source:
            raise UserError(
                f"{self.name}: threshold {self.threshold!r} from {self.threshold_source!r}; a score needs "
                "one in [0, 1] and the images it was chosen on, which are training or validation images"
            )

    def threshold_of(self, target: str) -> float:
        """The threshold of one target; UserError where there is none."""
        if not isinstance(self.threshold, Mapping):
            return self.threshold
        if target not in self.threshold:
            raise UserError(f"{self.name} has no threshold for {target}, only for {', '.join(self.threshold)}")
        return self.threshold[target]


@dataclass(frozen=True)
class _Scored:
    """One target of one image as one rater marked it; no pixels, so that any number of images fits in memory."""

    row: Row
    fold: int
    hashes: dict[str, str]
    inside: Tally
    frame: Tally
    values: dict[str, float]  # METRICS inside the field of view
    working: Tally | None = None  # at the size the network reads, where that is another
    detections: Detections | None = None  # at lesions.THRESHOLDS and, last, at the candidate's own
    distances: dict[str, float] = field(default_factory=dict)  # boundaries.DISTANCES

    @property
    def subject(self) -> str:
        return f"{self.row.dataset}:{self.row.subject}"


class _Found:
    """All images of one target, and the rankings of their pixels pooled by fold and by block."""

    def __init__(self) -> None:
        self.images: list[_Scored] = []
        self._pools: dict[tuple[int, str], RankingPool] = {}

    def add(self, image: _Scored, rankings: Mapping[str, Ranking]) -> None:
        """One image more; its blocks are "inside" and "outside" the field of view and perhaps "working"."""
        self.images.append(image)
        for block, ranking in rankings.items():
            self._pools.setdefault((image.fold, block), RankingPool()).add(ranking)

    def ranking(self, *blocks: str, fold: int | None = None) -> Ranking:
        """Of the pixels of these blocks in all images, or in those of one fold."""
        pools = [pool for key, pool in self._pools.items() if key[1] in blocks and fold in (None, key[0])]
        return metrics.merged([pool.ranking for pool in pools])


Model = Candidate | Callable[[int], Candidate]
"""A Candidate, or for protocols with folds a function from the fold (1, 2, ...) to its Candidate."""


def evaluate(
    model: Model,
    protocol: str,
    data_root: str | Path,
    *,
    split: str = "test",
    seed: int = 0,
    n_bootstrap: int = 2000,
    progress: Callable[[int, int], None] | None = None,
    on_prediction: Callable[[Row, Sample, PredictionLike], None] | None = None,
) -> dict[str, Report]:
    """Score a model by a protocol: target -> report, for every target of the protocol that the model finds.

    Each photograph is predicted once and forgotten. Pooled AUC and AP are exact for photographs of up to 4
    megapixels; of larger ones scores that hardly differ are tied, and the report's `bootstrap` bounds what that does.

    Parameters
    ----------
    model
        See `Model`.
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
        Unknown protocol or split, missing data, a prediction of another size or with another field of view, a model
        that finds no target of the protocol.
    """
    return evaluate_together(
        {"": model},
        protocol,
        data_root,
        split=split,
        seed=seed,
        n_bootstrap=n_bootstrap,
        progress=progress,
        on_prediction=on_prediction,
    )[""]


def evaluate_together(
    models: Mapping[str, Model],
    protocol: str,
    data_root: str | Path,
    *,
    split: str = "test",
    seed: int = 0,
    n_bootstrap: int = 2000,
    progress: Callable[[int, int], None] | None = None,
    on_prediction: Callable[[Row, Sample, PredictionLike], None] | None = None,
) -> dict[str, dict[str, Report]]:
    """`evaluate` of several models, name -> target -> report; every photograph is read once for all of them."""
    plan, selected = protocols.find(protocol), protocols.cases(protocol, split)
    candidates: dict[str, dict[int, Candidate]] = {name: {} for name in models}
    found: dict[str, dict[str, _Found]] = {name: {} for name in models}
    observers: list[_Scored] = []
    coarse = any(_is_large(row) for _, row in selected)
    for done, (fold, row) in enumerate(selected):
        if progress:
            progress(done, len(selected))
        for name, model in models.items():
            if fold not in candidates[name]:
                candidates[name][fold] = model if isinstance(model, Candidate) else model(fold)
        shown = _Shown.of(fold, row, data_root, coarse=coarse)
        for name in models:
            candidate = candidates[name][fold]
            prediction = candidate.predict(shown.sample)
            if on_prediction:
                on_prediction(row, shown.sample, prediction)
            for target in _targets(prediction, plan.targets):
                prob = _probability(prediction, shown.sample, target)
                found[name].setdefault(target, _Found()).add(*_score(shown, target, prob, candidate))
        if plan.second_observer in shown.sample.targets:
            human = shown.sample.targets[plan.second_observer].astype(np.float32)
            observers.append(_marked(shown, plan.targets[0], human, 0.5))
    if progress:
        progress(len(selected), len(selected))
    resample = {"n": n_bootstrap, "seed": seed}
    return {
        name: {
            target: _report(protocol, split, target, candidates[name], scored, observers, resample)
            for target, scored in found[name].items()
        }
        for name in models
    }


@dataclass(frozen=True)
class _Shown:
    """A photograph to be scored: its Sample with a field of view, `fov` bool (H, W), and the hashes of both.

    `coarse` says how its pixels are ranked, alike for all photographs that are scored together.
    """

    fold: int
    row: Row
    sample: Sample
    fov: Array
    hashes: Mapping[str, str]
    coarse: bool

    @classmethod
    def of(cls, fold: int, row: Row, data_root: str | Path, *, coarse: bool) -> "_Shown":
        """Read; the field of view is found where the set releases none."""
        sample = datasets.load(row, data_root)
        fov = find_fov(sample.image) if sample.fov is None else sample.fov
        hashes = {"image_sha256": datasets.pixel_hash(sample.image), "fov_sha256": datasets.pixel_hash(fov)}
        return cls(fold, row, replace(sample, fov=fov), fov, hashes, coarse)


def _is_large(row: Row) -> bool:
    return row.width * row.height > _EXACT_PIXELS


def _targets(prediction: PredictionLike, wanted: Sequence[str]) -> list[str]:
    """The targets of the protocol that the model finds."""
    found = [target for target in wanted if target in prediction.targets]
    if not found:
        raise UserError(f"the model finds {', '.join(prediction.targets)}; this protocol scores {', '.join(wanted)}")
    return found


def _probability(prediction: PredictionLike, sample: Sample, target: str) -> Array:
    """The target's channel (H, W), checked against the photograph."""
    if target not in sample.targets:
        raise UserError(f"{sample.id} has no annotation of {target}; it cannot be scored")
    prob: Array = prediction.prob[prediction.targets.index(target)]
    if prob.shape != sample.targets[target].shape:
        raise UserError(
            f"{sample.id}: the prediction has shape {prob.shape}, the annotation "
            f"{sample.targets[target].shape}; predict at the photograph's own size"
        )
    if sample.fov is None or not np.array_equal(prediction.fov, sample.fov):
        raise UserError(f"{sample.id}: predicted in another field of view than sample.fov; use that one")
    return prob


def _marked(shown: _Shown, target: str, prob: Array, threshold: float) -> _Scored:
    """What every target of every rater has; `auc` and `ap` are binned."""
    truth, fov = shown.sample.targets[target], shown.fov
    lines = target == "vessels"
    inside = metrics.tally(prob, truth, fov, threshold, centrelines=lines)
    outside = metrics.tally(prob, truth, ~fov, threshold, centrelines=False)
    frame = inside + outside
    if lines:  # skeletons are no sum of parts
        frame = replace(frame, skeleton=metrics.skeleton_counts(prob >= threshold, truth))
    values = inside.metrics()
    return _Scored(
        row=shown.row,
        fold=shown.fold,
        hashes={**shown.hashes, "label_sha256": datasets.pixel_hash(truth)},
        inside=inside,
        frame=frame,
        values={name: values[name] for name in METRICS},
    )


def _score(shown: _Shown, target: str, prob: Array, candidate: Candidate) -> tuple[_Scored, dict[str, Ranking]]:
    """What a model found, with what only some targets and some networks have, and the rankings of its pixels."""
    truth, fov, threshold = shown.sample.targets[target], shown.fov, candidate.threshold_of(target)
    image, coarse = _marked(shown, target, prob, threshold), shown.coarse
    rankings = {
        block: metrics.ranking(prob, truth, where, coarse=coarse)
        for block, where in (("inside", fov), ("outside", ~fov))
    }
    image = replace(image, values=image.values | _areas(rankings["inside"]))
    if not candidate.further:
        return image, rankings
    if target in LESIONS:
        found = lesions.detections(prob, truth, fov, (*lesions.THRESHOLDS, threshold))
        image = replace(image, detections=found)
    if target == "disc":
        image = replace(image, distances=boundaries.distances((prob >= threshold) & fov, truth & fov))
    geometry = preprocess.plan(fov, candidate.preprocess or Preprocess())
    if geometry.work == geometry.crop:
        return image, rankings
    small, inside = preprocess.to_grid(prob.astype(np.float32), geometry), preprocess.apply_to_target(fov, geometry)
    small, marked = np.clip(small, 0, 1), preprocess.apply_to_target(truth, geometry)
    working = metrics.tally(small, marked, inside, threshold, centrelines=target == "vessels")
    rankings["working"] = metrics.ranking(small, marked, inside, coarse=coarse)
    return replace(image, working=working), rankings


def _areas(ranking: Ranking) -> dict[str, float]:
    return {"auc": metrics.auc_from_histogram(ranking.counts), "ap": metrics.ap_from_histogram(ranking.counts)}


def _report(
    protocol: str,
    split: str,
    target: str,
    candidates: Mapping[int, Candidate],
    found: _Found,
    observers: Sequence[_Scored],
    resample: Mapping[str, int],
) -> Report:
    plan, images = protocols.find(protocol), found.images
    sources = {"released with the set" if image.row.fov else "found in the photograph" for image in images}
    humans = {(one.fold, one.row.key): one for one in observers}
    thresholds = {fold: candidate.threshold_of(target) for fold, candidate in candidates.items()}
    table = [_row(one, thresholds[one.fold], humans.get((one.fold, one.row.key))) for one in images]
    leaked, warnings = _leaks(candidates, images)
    changed = [image.row.key for image in images if _differs(image, target)]
    warnings += [f"files differ from the release in the manifest: {', '.join(changed)}"] if changed else []
    warnings += [f"scored on split {split!r}: not a test score"] if split != "test" else []
    inside = found.ranking("inside")
    pooled, tally = _pooled(images, inside), metrics.pool([image.inside for image in images])
    binned = tally.metrics()
    binning = {f"{name}_binned_minus_exact": binned[name] - pooled[name] for name in ("auc", "ap")}
    if any(_is_large(image.row) for image in images):
        bounds = metrics.binning_error(inside.counts)
        binning |= dict(zip(("auc_off_at_most", "ap_off_at_most"), bounds, strict=True))
    oracle = metrics.best_threshold_from_histogram(tally.histogram)[0]
    return Report(
        model=", ".join(dict.fromkeys(candidate.name for candidate in candidates.values())),
        protocol=protocol,
        split=split,
        target=target,
        annotator=plan.annotator,
        n_images=len(images),
        n_subjects=len({image.subject for image in images}),
        threshold=next(iter(thresholds.values())) if len(set(thresholds.values())) == 1 else math.nan,
        threshold_source="; ".join(dict.fromkeys(c.threshold_source for c in candidates.values())),
        fov_source=", ".join(sorted(sources)),
        postprocessing=next(iter(candidates.values())).postprocessing,
        fov=pooled,
        full_frame=_pooled(images, found.ranking("inside", "outside"), frame=True),
        **_spread(images, METRICS, resample),
        at_half=_at(images, 0.5, "threshold 0.5, chosen on no image"),
        oracle=_at(images, oracle, "threshold chosen on the scored images: an upper bound, not a result"),
        second_observer=_human(plan.second_observer, observers, resample) if observers else None,
        per_fold=[_fold(fold, thresholds[fold], found) for fold in candidates if fold],
        per_image=table,
        curves={name: rounded(values) for name, values in metrics.curves_from_histogram(tally.histogram).items()},
        bootstrap={**resample, "unit": "subject", **binning},
        warnings=[plan.note, *warnings] if plan.note else warnings,
        leaked_images=leaked,
        provenance=_provenance(candidates, target, table),
        further={**_froc(images, resample), **_boundary(images, resample), **_working(found, candidates)},
    )


def _pooled(scored: Sequence[_Scored], ranking: Ranking | None = None, *, frame: bool = False) -> dict[str, float]:
    """METRICS of the pixels of all images, or MASK_METRICS without a ranking."""
    values = metrics.pool([one.frame if frame else one.inside for one in scored]).metrics()
    if ranking is not None:
        values |= _areas(ranking)
    return {name: values[name] for name in (MASK_METRICS if ranking is None else METRICS)}


def _weights(scored: Sequence[_Scored], resample: Mapping[str, int]) -> Array:
    return resample_weights([one.subject for one in scored], resample["n"], resample["seed"])


def _spread(scored: Sequence[_Scored], names: Sequence[str], resample: Mapping[str, int]) -> dict[str, Any]:
    table = np.array([[one.values[name] for name in names] for one in scored])  # (images, m)
    return spread(table, names, [one.inside for one in scored], _weights(scored, resample))


def _at(scored: Sequence[_Scored], threshold: float, label: str) -> dict[str, Any]:
    """Pooled ratios inside the field of view at another threshold, a multiple of 1 / 4096."""
    counts = [one.inside.counts_at(threshold) for one in scored] if not math.isnan(threshold) else [Counts()]
    pooled = sum(counts, Counts())
    ratios = {name: getattr(pooled, name) for name in MASK_METRICS if name != "cldice"}
    image_mean = mean(np.array([one.dice for one in counts]))
    return {"label": label, "threshold": threshold, **ratios, "per_image_mean_dice": image_mean}


def _human(target: str, observers: Sequence[_Scored], resample: Mapping[str, int]) -> dict[str, Any]:
    """The second observer scored as if a model; a marking has no curve, hence no auc, ap, ece, brier."""
    return {
        "target": target,
        "n_images": len(observers),
        "fov": _pooled(observers),
        "full_frame": _pooled(observers, frame=True),
        **_spread(observers, MASK_METRICS, resample),
    }


def _froc(images: Sequence[_Scored], resample: Mapping[str, int]) -> dict[str, Any]:
    """Lesions found against false pieces an image; {} for what is no lesion."""
    found = [image.detections for image in images if image.detections is not None]
    if not found:
        return {}
    curve = [replace(one, found=one.found[:-1], false=one.false[:-1]) for one in found]
    own = [replace(one, found=one.found[-1:], false=one.false[-1:]) for one in found]
    once = np.ones((1, len(found)))
    limits = lesions.FALSE_PER_IMAGE
    share = lesions.sensitivities(curve, once)[0]
    draws = lesions.sensitivities(curve, _weights(images, resample).astype(float))
    total = sum(one.lesions for one in found)
    return {
        "froc": {
            "rule": f"false: less than {lesions.COVERED:.0%} of a piece on lesions; "
            f"found: at least {lesions.COVERED:.0%} "
            "of a lesion marked by pieces that are not false; pieces below "
            f"{lesions.SMALLEST:g} squared diameters of the field of view are passed over",
            "lesions": total,
            "false_per_image": list(limits),
            "sensitivity": share.tolist(),
            "ci95": [interval95(column) for column in draws.T],
            "at_threshold": {
                "sensitivity": float(lesions.sensitivities(own, once, [math.inf])[0, 0]),
                "false_per_image": float(np.mean([one.false[0] for one in own])),
            },
            "per_image": [
                [image.row.key, one.lesions, int(one.found[-1]), int(one.false[-1])]
                for image, one in zip(images, found, strict=True)
            ],
        }
    }


def _boundary(images: Sequence[_Scored], resample: Mapping[str, int]) -> dict[str, Any]:
    """Distances between outlines, means over images; {} where none were taken."""
    if not images[0].distances:
        return {}
    table = np.array([[image.distances[name] for name in boundaries.DISTANCES] for image in images])
    draws = resampled_means(table, _weights(images, resample))
    columns = zip(boundaries.DISTANCES, table.T, draws.T, strict=True)
    return {
        "boundary": {
            "unit": "pixels of the photograph",
            **{
                name: {"mean": mean(values), "ci95": interval95(draw), "undefined": int(np.isnan(values).sum())}
                for name, values, draw in columns
            },
            "per_image": [[image.row.key, *map(float, values)] for image, values in zip(images, table, strict=True)],
        }
    }


def _working(found: _Found, candidates: Mapping[int, Candidate]) -> dict[str, Any]:
    """Pooled scores at the size the network reads, the truth reduced to it; {} where no image was resampled."""
    tallies = [image.working for image in found.images if image.working is not None]
    if not tallies or len(tallies) < len(found.images):
        return {}
    diameters = {c.preprocess.fov_diameter for c in candidates.values() if c.preprocess is not None}
    values = metrics.pool(tallies).metrics() | _areas(found.ranking("working"))
    label = (
        f"at the size the network reads, a field of view of {', '.join(map(str, sorted(filter(None, diameters))))} "
        "pixels, the annotation reduced to it: not comparable with scores at the photograph's own size"
    )
    return {"working_size": {"label": label, "fov": {name: values[name] for name in METRICS}}}


def _fold(fold: int, threshold: float, found: _Found) -> dict[str, Any]:
    own = [image for image in found.images if image.fold == fold]
    means = {name: mean(np.array([one.values[name] for one in own])) for name in METRICS}
    head = {"fold": fold, "n_images": len(own), "threshold": threshold}
    return {**head, "fov": _pooled(own, found.ranking("inside", fold=fold)), "per_image_mean": means}


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
        **{name: image.hashes[name] for name in _HASHES},
    }


def _differs(image: _Scored, target: str) -> bool:
    """Whether the photograph or its annotation is not what the manifest describes."""
    used = {"image": image.hashes["image_sha256"], target: image.hashes["label_sha256"]}
    return bool(datasets.differing(image.row, used))


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


def _provenance(candidates: Mapping[int, Candidate], target: str, table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    learnt = [candidate.trained_on for candidate in candidates.values()]
    sets = sorted({key.partition(":")[0] for keys in learnt for key in keys or ()})
    models = [
        {
            "fold": fold or None,
            "name": candidate.name,
            "weights_sha256": candidate.weights_sha256,
            "threshold": candidate.threshold_of(target),
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
