"""A packaged model or a run scored by a protocol: the Segmenter on one side, evaluate on the other.

No formulas and no tables.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, files, io, photographs, postprocess, protocols, subgroups, zoo
from retina_seg.checkpoint import Card
from retina_seg.datasets import Sample
from retina_seg.errors import UserError
from retina_seg.evaluate import Candidate, Model, PredictionLike, evaluate, evaluate_together
from retina_seg.inference import Prediction, Segmenter, names_of
from retina_seg.manifest import Row
from retina_seg.scores import Report, paired, pooled
from retina_seg.subgroups import Subgroup


@dataclass(frozen=True, order=True)
class Variant:
    """How a trained network is used: the four flips averaged or not, small pieces removed or not."""

    flips: bool
    clean: bool

    @property
    def name(self) -> str:
        """For files and tables: "plain", "flips", "plain+clean", "flips+clean"."""
        return ("flips" if self.flips else "plain") + ("+clean" if self.clean else "")


VARIANTS = {one.name: one for one in (Variant(flips, clean) for flips in (False, True) for clean in (False, True))}


@dataclass(frozen=True)
class Remembered:
    """The part of a Prediction that is scored: prob float32 (K, H, W), fov bool (H, W), the K targets."""

    prob: NDArray[np.float32]
    fov: NDArray[np.bool_]
    targets: tuple[str, ...]


def candidate(segmenter: Segmenter) -> Candidate:
    """The segmenter as something evaluate can score, with its past from the card."""
    card = segmenter.card

    def predict(sample: Sample) -> Prediction:
        return segmenter.predict(sample.image, sample.fov, judge=False)

    return Candidate(
        name=card.name,
        predict=predict,
        threshold=card.thresholds,
        threshold_source=card.threshold_source,
        trained_on=seen_images(card),
        weights_sha256=card.weights_sha256,
        provenance={"flips": segmenter.flips, "device": segmenter.device, "parameters": card.parameters},
        preprocess=segmenter.settings,
    )


def cleaned(model: Candidate) -> Candidate:
    """The same candidate, small pieces of every target removed from what it predicts (`postprocess`)."""

    def predict(sample: Sample) -> PredictionLike:
        found = model.predict(sample)
        channels = zip(found.targets, found.prob, strict=True)
        prob = np.stack(
            [postprocess.without_small_pieces(one, found.fov, model.threshold_of(target)) for target, one in channels]
        )
        if not isinstance(found, Prediction):
            return Remembered(prob, found.fov, found.targets)
        changed = replace(found, prob=prob).at(*found.thresholds)
        said = {"threshold_source": model.threshold_source, "postprocessing": postprocess.describe()}
        return replace(changed, provenance={**changed.provenance, **said})

    return replace(model, predict=predict, postprocessing=postprocess.describe())


def timed(model: Candidate) -> tuple[Candidate, list[float]]:
    """The same model, and a list that gets the seconds of every prediction it makes."""
    seconds: list[float] = []

    def predict(sample: Sample) -> PredictionLike:
        started = time.perf_counter()
        found = model.predict(sample)
        seconds.append(time.perf_counter() - started)
        return found

    return replace(model, predict=predict), seconds


Groups = Mapping[str, str]
"""Key of a photograph, as "drive:21" -> its subgroup, "" where it is not given."""


def groups_of(protocol: str, columns: Sequence[str], data_root: str | Path) -> dict[str, Groups]:
    """Subgroups of the photographs that a protocol scores, by columns of the manifests or `photographs.QUALITY`.

    Raises UserError for a column that these photographs do not have, naming those they have.
    """
    known, rows = datasets.by_key(), [row for _, row in protocols.cases(protocol)]
    said = {row.key: subgroups.columns_of(row, known) for row in rows}
    there = dict.fromkeys(name for one in said.values() for name in one)
    for column in columns:
        if column not in {*there, photographs.QUALITY}:
            choice = ", ".join(there)
            raise UserError(f"--by {column!r}: the manifest has {choice} of these photographs; quality is looked at")
    if photographs.QUALITY in columns:
        for row in rows:
            said[row.key][photographs.QUALITY] = photographs.quality_of(row, data_root)
    return {column: {key: one.get(column, "") for key, one in said.items()} for column in columns}


def by_subgroup(report: Report, groups: Groups) -> list[Subgroup]:
    """The image means of Dice of a report, split by one column of `groups_of`."""
    return subgroups.by_subgroup([one["dice"] for one in report.per_image], _in_order(report, groups))


def _in_order(report: Report, groups: Groups) -> list[str]:
    return [groups[f"{one['dataset']}:{one['id']}"] for one in report.per_image]


def check_comparable(one: str | Path, other: str | Path, protocol: str) -> None:
    """UserError where two models find no target in common that a protocol scores; the models are not loaded."""
    targets = [set(zoo.card(_of_fold(model, 1)).targets) for model in (one, other)]
    if not targets[0] & targets[1] & set(protocols.find(protocol).targets):
        raise UserError(
            f"--against {other}: it finds {', '.join(sorted(targets[1]))}, {one} {', '.join(sorted(targets[0]))}: "
            f"nothing that {protocol} scores is found by both"
        )


def reversals(
    one: Report, other: Report, columns: Mapping[str, Groups], *, names: tuple[str, str] | None = None
) -> list[str]:
    """Where the order of two models by pooled Dice is reversed in every subgroup of a column, or that it is not.

    Parameters
    ----------
    columns : as `groups_of` gives them.
    names : what the two are called, else their models.

    Raises
    ------
    UserError
        For reports of different images.
    """
    paired(one, other)
    found = []
    for column, said_of in columns.items():
        groups = subgroups.named(_in_order(one, said_of))
        kinds = subgroups.ordered(groups)
        chosen = np.array([np.ones(len(groups), bool), *(groups == kind for kind in kinds)])
        total, *parts = (tuple(pair) for pair in pooled([one, other], chosen.astype(int), "dice").tolist())
        said = subgroups.turned_round(
            total, dict(zip(kinds, parts, strict=True)), score="Dice", models=names or (one.model, other.model)
        )
        found.append(f"by {column}: {said or 'no subgroup turns the order of the two by pooled Dice round'}")
    return found


def seen_images(card: Card) -> frozenset[str] | None:
    """`dataset:id` of every image that shaped or chose weights or thresholds; None where the card is silent."""
    if "images" not in card.training:
        return None
    chose = (card.training.get(name, ()) for name in ("threshold_images", "watched_images"))
    return frozenset(card.training["images"]).union(*chose)


def score(
    model: str | Path,
    protocol: str,
    data_root: str | Path,
    *,
    device: str = "auto",
    flips: bool | None = None,
    clean: bool = False,
    save_to: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Report]:
    """Score a packaged model or run folder: target -> report; `save_to` gets mask, probability and JSON of every image.

    Results of the same photographs in `save_to` are replaced, unchanged ones or with `overwrite` any.

    `clean` removes small pieces before scoring (`postprocess`): AUC and AP are then those of the altered map.
    For protocols with folds `model` is a folder pattern with `{fold}`, for example `runs/stare-fold{fold}`.

    Raises
    ------
    UserError
        For an unknown model or protocol, or data that is missing.
    """

    def load(fold: int) -> Candidate:
        raw = candidate(Segmenter.from_pretrained(_of_fold(model, fold), device, flips=flips))
        return cleaned(raw) if clean else raw

    def keep(row: Row, sample: Sample, prediction: PredictionLike) -> None:
        if save_to is not None and isinstance(prediction, Prediction):
            prediction.save(save_to, _stem(row), what=_SAVED, overwrite=overwrite)

    if save_to is not None:
        stems = [_stem(row) for _, row in protocols.cases(protocol)]
        targets = zoo.card(_of_fold(model, 1)).targets
        names = (name for stem in stems for _, _, name in names_of(stem, targets, _SAVED))
        files.check_replaceable((save_to / name for name in names), overwrite=overwrite)

    return evaluate(load, protocol, data_root, progress=progress, on_prediction=keep)


_SAVED = ("mask", "prob")


def _stem(row: Row) -> str:
    return row.key.replace(":", "_").replace("/", "_")


def variants(
    model: str | Path,
    protocol: str,
    data_root: str | Path,
    *,
    device: str = "auto",
    split: str = "test",
    names: Collection[str] = tuple(VARIANTS),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Report]]:
    """Score a model in those of VARIANTS that are named: name -> target -> report.

    The network reads a photograph once for both of `clean`. `Report.further` is empty but for the variant that the
    model's card names. `model` and errors are those of `score`.
    """

    @cache
    def load(fold: int, flips: bool) -> Candidate:
        raw = candidate(Segmenter.from_pretrained(_of_fold(model, fold), device, flips=flips))
        return replace(raw, predict=_remembering(raw.predict))

    def used(variant: Variant) -> Model:
        def of(fold: int) -> Candidate:
            raw = load(fold, variant.flips)
            own = Variant(zoo.card(_of_fold(model, fold)).inference.flips, clean=False)
            return replace(cleaned(raw) if variant.clean else raw, further=variant == own)

        return of

    models = {name: used(variant) for name, variant in VARIANTS.items() if name in names}
    return evaluate_together(models, protocol, data_root, split=split, progress=progress)


def _of_fold(model: str | Path, fold: int) -> str:
    return str(model).replace("{fold}", str(fold))


def _remembering(predict: Callable[[Sample], PredictionLike]) -> Callable[[Sample], Remembered]:
    """`predict` that looks once at a Sample it is given several times in turn."""
    last: list[tuple[Sample, Remembered]] = []

    def look_up(sample: Sample) -> Remembered:
        if not last or last[0][0] is not sample:
            found = predict(sample)
            last[:] = [(sample, Remembered(found.prob, found.fov, found.targets))]
        return last[0][1]

    return look_up


def keep(report: Report, model: str | Path) -> Path | None:
    """Write the report of a run folder into that folder; gives the file, or None where nothing is kept.

    Kept is what the run itself is worth: not what a packaged model, several folds or the network used in another
    way than its card says (`flips`, post-processing) scored, nor a score on other images than the test images.
    """
    if str(model) in zoo.names() or "{fold}" in str(model):
        return None
    if report.postprocessing != "none" or report.split != "test":
        return None
    flips = {one["provenance"]["flips"] for one in report.provenance["models"]}
    if flips != {zoo.card(model).inference.flips}:
        return None
    path = zoo.report_path(model, protocols.report_name(report.protocol, report.target))
    io.make_folder(path.parent)
    files.write_bytes(path, files.sealed_json(report.to_json()))
    return path
