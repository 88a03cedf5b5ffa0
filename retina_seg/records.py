"""What a benchmark leaves behind: one JSON file for each configuration, protocol and seed.

No training, no scoring (benchmark.py) and no tables (results.py).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from retina_seg import io, protocols, scores
from retina_seg.config import Config, TrainingConfig
from retina_seg.errors import UserError
from retina_seg.scores import Report, laid_out

FOLDER = Path("configs/results")
"""The records of this project; whoever runs a benchmark has records of his own, `BESIDE` the run folders."""
BESIDE = "records"
ENSEMBLE = "-ensemble"
"""How the name ends under which several seeds of a configuration, their probabilities averaged, are on record."""
VARIANTS = {
    "plain": "no flips",
    "plain+clean": "no flips, small pieces removed",
    "flips": "four flips",
    "flips+clean": "four flips, small pieces removed",
}
"""How a network is used (`scoring.VARIANTS`) -> words."""


@dataclass(frozen=True)
class Record:
    """One configuration, trained with one seed, scored by one protocol; the JSON has the same names.

    Attributes
    ----------
    name : of the configuration.
    protocol : in `protocols.PROTOCOLS`, the one of the score.
    split : "test", or "val" for choices that must not see test images.
    sources : protocols whose training images were learnt from; (protocol,) unless sets are crossed or joined.
    seed : of the training.
    config : the resolved configuration; with folds `data.protocols` names the protocol once.
    parameters : number of weights.
    steps, seconds : of the training, summed over folds.
    device : "cpu" or "cuda", of the training.
    weights_sha256 : one for each fold.
    learnt_from : name and weights of the models it started or learnt from, of the first fold.
    log : entries of log.jsonl (step, loss, validation scores); with folds those of the first.
    default : the variant that is the result: flips as the configuration says, no post-processing.
    variants : name (`VARIANTS`) -> `scores.Report` without its curves; all but the default one without images. The
        default one alone where nothing else was asked for.
    """

    name: str
    protocol: str
    split: str
    sources: tuple[str, ...]
    seed: int
    config: Mapping[str, Any]
    parameters: int
    steps: int
    seconds: int
    device: str
    weights_sha256: tuple[str, ...]
    learnt_from: Sequence[Mapping[str, str]]
    log: Sequence[Mapping[str, float]]
    default: str
    variants: Mapping[str, Mapping[str, Any]]

    @property
    def report(self) -> Mapping[str, Any]:
        """The result: the report of the default variant."""
        return self.variants[self.default]

    @property
    def target(self) -> str:
        """What is scored."""
        return str(self.report["target"])

    @property
    def photographs(self) -> int | None:
        """How many it learnt from where that is a part of the training images (`data.photographs`), else None."""
        number: int | None = self.config["data"]["photographs"]
        return number

    @property
    def scored_as(self) -> str:
        """The protocol, with the target where it has several (`protocols.report_name`)."""
        return protocols.report_name(self.protocol, self.target)

    @property
    def crossed(self) -> bool:
        """Whether all images of a set are scored, none of which was learnt from."""
        return not protocols.find(self.protocol).column

    @property
    def learnt(self) -> str:
        """In words, what it learnt from, where that is not the protocol's own training images alone."""
        return sources_in_words(self.sources, self.protocol)

    @property
    def title(self) -> str:
        """For people, in a line."""
        text = title_of(self.name, self.sources, self.protocol, self.split, self.seed, self.photographs)
        return text if self.scored_as == self.protocol else f"{text}, {self.target.replace('_', ' ')}"

    @property
    def schedule(self) -> str:
        """Steps x patches a step x side of a patch, stage by stage."""
        stages = TrainingConfig.model_validate(self.config["training"]).plan()
        return " + ".join(f"{one.steps} × {one.batch_size * one.accumulate} × {one.patch_size}" for one in stages)

    @property
    def megapixels_a_step(self) -> float:
        """Seen by the network in a step of the first stage; a whole photograph counts as a square of its width."""
        stage = TrainingConfig.model_validate(self.config["training"]).plan()[0]
        side = self.config["preprocess"]["fov_diameter"] if stage.patch_size == "image" else stage.patch_size
        return stage.batch_size * stage.accumulate * (side or math.nan) ** 2 / 1e6

    def path(self, folder: Path) -> Path:
        """Its file below the folder of records."""
        own = folder / self.name
        return path_of(own, self.sources, self.protocol, self.target, self.split, self.seed, self.photographs)

    def to_json(self) -> str:
        """Strict JSON text with a line for each group of scores and each image."""
        return laid_out(asdict(self), depth=4) + "\n"


def sources_in_words(sources: Sequence[str], protocol: str) -> str:
    """In words, what was learnt from, where that is not the training images of the scoring protocol alone."""
    return "" if tuple(sources) == (protocol,) else f" from {' + '.join(sources)}"


def title_of(
    name: str, sources: Sequence[str], protocol: str, split: str, seed: int, photographs: int | None = None
) -> str:
    """For people: what was trained and how it is scored, in a line."""
    where = protocol + ("" if split == "test" else f" ({split})")
    few = f", {photographs} photograph{'s' * (photographs > 1)}" if photographs else ""
    return f"{name}{sources_in_words(sources, protocol)} on {where}{few}, seed {seed}"


def path_of(
    folder: Path,
    sources: Sequence[str],
    protocol: str,
    target: str,
    split: str,
    seed: int,
    photographs: int | None = None,
) -> Path:
    """Where a record is kept in its configuration's folder.

    That is <protocol>[-<target>][-<n>photographs][-val]-seed<k>.json, with the sources before it where they are others.
    """
    scored = protocols.report_name(protocol, target)
    where = scored if tuple(sources) == (protocol,) else f"{'+'.join(sources)}-on-{scored}"
    return folder / f"{where}{part_of(split, photographs)}-seed{seed}.json"


def part_of(split: str, photographs: int | None) -> str:
    """What names of files and folders say of the split and of the number of photographs; "" where that is all."""
    return (f"-{photographs}photographs" if photographs else "") + ("" if split == "test" else f"-{split}")


def stored(report: Report, *, images: bool) -> dict[str, Any]:
    """A report as records hold it: no curves, 6 significant digits.

    With `images` the rows of the images stay, their hashes shortened to what tells them apart. Without, all that no
    table needs of a variant that is not the result is empty.
    """
    plain: dict[str, Any] = _rounded(report.to_dict())
    del plain["curves"]
    if not images:
        empty: dict[str, Any] = {
            name: {} for name in ("ci95_per_image_mean", "undefined", "at_half", "oracle", "provenance", "further")
        }
        return {**plain, **empty, "per_image": [], "per_fold": [], "warnings": [], "second_observer": None}
    hashes = ("label_sha256", "fov_sha256")
    rows = [{key: row[key] for key in row if key != "image_sha256"} for row in plain["per_image"]]
    return {**plain, "per_image": [{**row, **{key: row[key][:16] for key in hashes}} for row in rows]}


def read(path: Path) -> Record:
    """One record; UserError where the file is missing, damaged or another's."""
    try:
        loaded = io.read_json(path)
        if set(loaded) != {field.name for field in fields(Record)}:
            raise ValueError("not the names of a record")
        loaded["sources"], loaded["weights_sha256"] = tuple(loaded["sources"]), tuple(loaded["weights_sha256"])
        # Settings that are younger than the record have their defaults, which are what was done before.
        loaded["config"] = Config.model_validate(loaded["config"]).model_dump(mode="json")
        record = Record(**loaded)
        for report in record.variants.values():
            scores.from_json(json.dumps(report))
        if not isinstance(record.seed, int) or not record.sources:
            raise ValueError("no seed or no sources")
        for protocol in (record.protocol, *record.sources):
            protocols.find(protocol)
        if not set(record.variants) <= set(VARIANTS) or not record.report["per_image"] or not record.schedule:
            raise ValueError("unknown variants, no images or no schedule")
        kinds = {type(value) for value in (record.parameters, record.steps, record.seconds)}
        counts = [set(one["counts"]) for one in record.report["per_image"]]
        if kinds != {int} or any(names != {"tp", "fp", "fn", "tn"} for names in counts):
            raise ValueError("parameters, steps, seconds or counts of another kind")
        if not isinstance(record.report["provenance"]["data_sha256"], str):
            raise ValueError("no hash of the data")
        if record.path(path.parents[1]) != path:
            raise ValueError(f"it belongs to {record.path(path.parents[1])}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise UserError(
            f"{path} is not a record of this version of `retina-seg benchmark` ({problem}): remove it and run the "
            "benchmark again; finished runs are not trained again"
        ) from None
    return record


def read_all(folder: Path) -> list[Record]:
    """Every record below the folder; UserError where there is none."""
    paths = sorted(path for path in folder.glob("*/*.json") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"there are no records in {folder}: make them with `retina-seg benchmark`, or name --results")
    return [read(path) for path in paths]


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration as "a.b" -> value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two configurations, in words: "training.steps 500 (was 100)"; "" where nothing does."""
    a, b = settings(old), settings(new)
    keys = [key for key in dict.fromkeys([*b, *a]) if a.get(key) != b.get(key)]
    return ", ".join(f"{key} {_short(b.get(key))} (was {_short(a.get(key))})" for key in keys)


def _short(value: Any) -> str:
    return "none" if value is None or value == "" or value == [] else str(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
