"""Records put together over seeds, ranked and compared in pairs.

No tables (results.py).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina_seg import protocols
from retina_seg.errors import UserError
from retina_seg.records import Record, changes
from retina_seg.scores import compare, headline

ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Group:
    """The records of one configuration and target by one protocol: they differ in the seed only."""

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Stands for what all have in common."""
        return self.records[0]

    @property
    def title(self) -> str:
        """The configuration's name, marked where there are too few seeds for a claim."""
        joined = "" if self.first.crossed else self.first.learnt
        return self.first.name + joined + self.marks

    @property
    def headline(self) -> tuple[str, str]:
        """The two metrics that say most; groups are ranked by the first."""
        return headline(self.first.target)

    @property
    def marks(self) -> str:
        """What must be known of the group; what they mean stands at the head of the page (results.py)."""
        return (" ‡" if self.leaked else "") + ("" if len(self.records) >= ENOUGH_SEEDS else " †")

    @property
    def leaked(self) -> bool:
        """Whether a training has seen what it is scored on, beyond what the protocol itself publishes."""
        return self.first.protocol not in protocols.KNOWN_TO_LEAK and any(
            one.report["leaked_images"] for one in self.records
        )

    def values(self, metric: str, block: str = "fov", variant: str = "") -> list[float]:
        """A score of every seed; NaN where undefined."""
        reports = (record.variants[variant or record.default] for record in self.records)
        return [math.nan if report[block][metric] is None else report[block][metric] for report in reports]

    def mean(self, metric: str) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values(metric)))


def grouped(records: Iterable[Record]) -> list[Group]:
    """Records put together over seeds.

    Raises
    ------
    UserError
        Records of one group that were trained differently, or records of one protocol that were not scored on the
        same images, annotations and fields of view: their scores must not be averaged or compared.
    """
    found: dict[tuple[Any, ...], list[Record]] = {}
    scored: dict[tuple[str, ...], Record] = {}
    for record in sorted(records, key=lambda one: (one.name, one.seed)):
        key = (record.name, record.sources, record.scored_as, record.split, record.photographs)
        group = found.setdefault(key, [])
        if group and (changed := changes({**group[0].config, "seed": 0}, {**record.config, "seed": 0})):
            raise UserError(
                f"{record.name} by {record.protocol}: seeds {group[0].seed} and {record.seed} were trained with "
                f"different settings ({changed}): remove the records of one and run the benchmark again"
            )
        group.append(record)
        other = scored.setdefault((record.scored_as, record.split), record)
        if other.report["provenance"]["data_sha256"] != record.report["provenance"]["data_sha256"]:
            raise UserError(
                f"{other.name} and {record.name} were not scored on the same images, annotations and fields of view "
                f"by {record.protocol}: remove the record of one and run the benchmark again"
            )
    return [Group(tuple(group)) for group in found.values()]


def paired(a: Group, b: Group, metric: str, *, n_bootstrap: int = 2000, seed: int = 0) -> dict[str, Any] | None:
    """Is A better than B? The difference A - B of the per-image scores, by a paired bootstrap over subjects.

    Every image's score is first averaged over the seeds that both have, so that seed is paired with seed; then
    `scores.compare` resamples the subjects. The interval is that of the images for these very trainings: how much
    another seed would move the scores is what the SD over seeds says.

    Returns
    -------
    `per_image_mean` of `scores.compare`: a, b, difference, ci95, p_value; None where no seed is in both.
    """
    common = {one.seed for one in a.records} & {one.seed for one in b.records}
    if not common:
        return None
    one, other = (_over_seeds([r for r in group.records if r.seed in common], metric) for group in (a, b))
    difference: dict[str, Any] = compare(one, other, metric, n_bootstrap=n_bootstrap, seed=seed)["per_image_mean"]
    return difference


def _over_seeds(records: Sequence[Record], metric: str) -> dict[str, Any]:
    """A report whose images have the mean of `metric` over the records, None where it is undefined in one."""
    tables = [record.report["per_image"] for record in records]
    rows = []
    for images in zip(*tables, strict=True):
        values = [image[metric] for image in images]
        counts = {key: sum(image["counts"][key] for image in images) for key in images[0]["counts"]}
        skeleton = np.sum([image["skeleton"] for image in images], axis=0).tolist()
        mean = None if None in values else float(np.mean(values))
        rows.append({**images[0], metric: mean, "counts": counts, "skeleton": skeleton})
    return {**records[0].report, "per_image": rows}


def best_first(groups: Iterable[Group]) -> list[Group]:
    """By the mean of the headline; undefined ones and those that have seen what they are scored on last."""

    def place(group: Group) -> tuple[bool, bool, float]:
        score = group.mean(group.headline[0])
        return group.leaked, math.isnan(score), -score

    return sorted(groups, key=place)
