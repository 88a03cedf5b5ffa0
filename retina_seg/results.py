"""The tables of a benchmark: nothing but its stored records (records.py) is read.

No training and no scoring (benchmark.py); what a score means is in scores.py.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retina_seg import io, protocols
from retina_seg.datasets import LESIONS
from retina_seg.errors import UserError
from retina_seg.records import VARIANTS, Record, changes, read_all
from retina_seg.scores import METRICS, TITLES, compare, headline

INTRODUCTION, TABLE, FLAT = "introduction.md", "results.csv", "results.json"
ENOUGH_SEEDS = 3
ABLATION, REFERENCE = "ablation-", "-reference"  # how names begin, and how that of what they are compared with ends
# The metrics of a table, the third with its interval.
_COLUMNS = {
    "vessels": ("auc", "ap", "dice", "sensitivity", "specificity", "accuracy", "mcc", "cldice"),
    "disc": ("auc", "dice", "iou", "sensitivity", "precision"),
}
_LESION_COLUMNS = ("auc", "dice", "ap", "iou", "sensitivity", "precision")
_DASH = "–"


# --- groups of records


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
        """What must be known of the group, see `_HOW_TO_READ`."""
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
        group = found.setdefault((record.name, record.sources, record.scored_as, record.split), [])
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


# --- published figures


class Published(NamedTuple):
    """A figure from the literature: inside the field of view, its threshold not chosen on test images.

    `protocol` is that of `Record.scored_as`.
    """

    protocol: str
    method: str
    parameters: str
    source: str
    dice: float = math.nan
    auc: float = math.nan
    mcc: float = math.nan
    ap: float = math.nan
    sensitivity: float = math.nan
    specificity: float = math.nan
    accuracy: float = math.nan
    cldice: float = math.nan
    iou: float = math.nan
    precision: float = math.nan

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"*published: {self.method}{f' ({self.source})' if self.source else ''}*"


_RESCORED, _IDIAP = "re-scored from its published weights, pooled", "rerun by Idiap"
# The human row that is published with these figures (.768) is that of 01L to 10R; on 05L to 14R it is .783.
_OTHER_SPLIT = "trained on 11L to 14R, tested on 01L to 10R"
# Microaneurysms, haemorrhages, hard exudates, soft exudates.
_LESION_FIGURES = (
    ("best of the challenge, each lesion another", "IDRiD challenge", 0.502, 0.680, 0.885, 0.700),
    ("L-Seg", "", 0.463, 0.637, 0.795, 0.711),
    ("PBDA", "", 0.534, 0.715, 0.864, 0.731),
)
_OLIVEIRA, _OPENMMLAB = "Oliveira 2018, rotations averaged", "mmsegmentation"
PUBLISHED = (
    Published("drive", "Little W-Net", "68 k", _RESCORED, 0.8283, 0.9811, 0.8029, 0.915, 0.8475, 0.9710, 0.9553),
    Published("cross-chase", "Little W-Net from DRIVE", "68 k", _RESCORED, 0.759, 0.9718, 0.734),
    Published("drive", "Little W-Net", "68 k", _IDIAP, 0.828),
    Published("stare-10", "Little W-Net", "68 k", _IDIAP, 0.839),
    Published("chase-8-20", "Little W-Net", "68 k", f"{_IDIAP}, {_OTHER_SPLIT}", 0.820),
    Published("drive", "SA-UNetv2", "0.26 M", "its authors", 0.8284, 0.9811, 0.8044),
    Published("drive", "FCN + wavelets", "", _OLIVEIRA, auc=0.9821, mcc=0.8054),
    Published("stare-5fold", "FCN + wavelets", "", _OLIVEIRA, auc=0.9905, mcc=0.8330),
    Published("chase-4fold", "FCN + wavelets", "", _OLIVEIRA, auc=0.9855, mcc=0.8009),
    Published("drive", "DRIU", "15 M", "", 0.821),
    Published("stare-10", "DRIU", "15 M", "", 0.828),
    Published("chase-8-20", "DRIU", "15 M", _OTHER_SPLIT, 0.812),
    Published("drive", "nnU-Net", "", "", 0.8109, 0.9634, 0.788),
    Published("chase-20-8", "nnU-Net", "", "", 0.8185, 0.9586, 0.800),
    Published("drive", "nnWNet", "", "CVPR 2025", 0.8138, 0.9759, 0.792),
    Published("chase-20-8", "nnWNet", "", "CVPR 2025", 0.8221, 0.9868, 0.804),
    Published("drive", "U-Net, best head", "", _OPENMMLAB, 0.7956),
    Published("stare-10", "U-Net, best head", "", _OPENMMLAB, 0.8284),
    Published("chase-20-8", "U-Net, best head", "", _OPENMMLAB, 0.8047),
    *(
        Published(f"idrid-{target}", method, "", source, ap=ap)
        for method, source, *values in _LESION_FIGURES
        for target, ap in zip(LESIONS, values, strict=True)
    ),
    Published("idrid-disc", "best of those compared", "", "would rank second in the challenge", iou=0.9317),
)


# --- tables


def write(folder: Path, out: Path, *, reference: str = "") -> list[Path]:
    """Make the page of all tables and, beside the records, results.csv and results.json; returns the paths.

    `folder` may hold introduction.md, which the page begins with. Errors are those of `read_all` and `page`.
    """
    records = read_all(folder)
    introduction = folder / INTRODUCTION
    try:
        text = introduction.read_text(encoding="utf-8") if introduction.is_file() else ""
    except UnicodeDecodeError:
        raise UserError(f"{introduction} is not UTF-8 text: save it as that") from None
    page_text = page(records, introduction=text, reference=reference)
    lines = flat(records)
    table = StringIO()
    writer = csv.DictWriter(table, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    listed = ",\n".join(json.dumps(line, allow_nan=False, ensure_ascii=False) for line in lines)
    io.write_text(out, page_text)
    io.write_text(folder / TABLE, table.getvalue())
    io.write_text(folder / FLAT, f"[\n{listed}\n]\n")
    return [out, folder / TABLE, folder / FLAT]


def flat(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One line for each record and variant: what was trained, how it was used, what it scored."""
    lines = []
    for record in records:
        for name, report in record.variants.items():
            line = {
                "config": record.name,
                "net": record.config["model"]["name"],
                "parameters": record.parameters,
                "schedule": record.schedule,
                "training_seconds": record.seconds,
                "training_device": record.device,
                "learnt_from": "+".join(record.sources),
                "protocol": record.protocol,
                "target": record.target,
                "split": record.split,
                "seed": record.seed,
                "variant": name,
                "is_result": name == record.default,
                "n_images": report["n_images"],
                "threshold": report["threshold"],
                **{metric: report["fov"][metric] for metric in METRICS},
                **{f"{metric}_low": report["ci95"][metric][0] for metric in ("auc", "dice")},
                **{f"{metric}_high": report["ci95"][metric][1] for metric in ("auc", "dice")},
                **{f"image_mean_{metric}": report["per_image_mean"][metric] for metric in ("auc", "dice")},
                **{f"full_frame_{metric}": report["full_frame"][metric] for metric in ("auc", "dice")},
            }
            lines.append(line)
    return lines


def page(records: Sequence[Record], *, introduction: str = "", reference: str = "") -> str:
    """All tables as Markdown.

    Parameters
    ----------
    introduction : Markdown that stands above them.
    reference : configuration that every other one is compared with; by default the one with the highest Dice.

    Raises
    ------
    UserError
        An unknown `reference`, or records that must not stand in one table (`grouped`).
    """
    groups = grouped(records)
    known = sorted({group.first.name for group in groups})
    if reference and reference not in known:
        raise UserError(f"--reference {reference!r}: there are records of {', '.join(known)}")
    parts = ["# Results", f"Written by `retina-seg results`, never by hand; records: {len(records)}."]
    parts += [introduction.strip()] if introduction.strip() else []
    parts.append(_HOW_TO_READ)
    ordinary = [group for group in groups if not group.first.name.startswith(ABLATION)]
    ablated = [group for group in groups if group.first.name.startswith(ABLATION)]
    for own in _by_table([group for group in ordinary if not group.first.crossed]):
        parts += _protocol(own, reference)
    parts += _crossed(ordinary)
    parts += ["## Ablations"] if ablated else []
    for own in _by_table(ablated):
        parts += _ablations(own)
    return "\n\n".join(parts) + "\n"


_HOW_TO_READ = f"""\
Every score is taken inside the field of view, at the photograph's own size, against the untouched first observer, at \
a threshold that saw training or validation images only. Rows give the mean ± SD over seeds of the score pooled over \
all pixels of the images; the interval (95 %, subjects resampled) is that of the images, averaged over the seeds. \
"Full frame" counts the black surround as well and stands here because much of the literature counts it. *Published* \
rows are figures of others, inside the field of view, with a threshold not chosen on test images. The schedule is \
steps × patches a step × side of a patch: compare networks only where it is the same. Minutes are those of the \
training with all its folds.

† fewer than {("no", "one", "two", "three")[ENOUGH_SEEDS]} seeds: no claim about the method. ‡ has seen some of the \
images it is scored on, or others of their subjects: not a result."""


def _by_table(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups that stand in one table: of the same scored images and, where sets are crossed, the same sources."""
    tables: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        one = group.first
        order = list(protocols.PROTOCOLS).index(one.protocol)
        target = protocols.find(one.protocol).targets.index(one.target)
        tables.setdefault((order, target, one.split, one.sources if one.crossed else ()), []).append(group)
    return [tables[key] for key in sorted(tables)]


def _heading(record: Record) -> str:
    learnt = f", learnt{record.learnt}" if record.crossed else ""
    scored = "" if record.scored_as == record.protocol else f", {record.target.replace('_', ' ')}"
    return f"`{record.protocol}`{scored}{learnt}{'' if record.split == 'test' else ', validation images'}"


def _protocol(groups: list[Group], reference: str) -> list[str]:
    """The section of one protocol: scores, variants, comparisons."""
    ranked = _best_first(groups)
    named = [group for group in groups if group.first.name == reference]
    compared = _comparisons(ranked, (named or ranked)[0], chosen=not named)
    return [f"## {_heading(ranked[0].first)}", *_scores(ranked), *_variants(ranked), *compared]


def _scores(ranked: Sequence[Group]) -> list[str]:
    shown, frame = _columns(ranked[0]), _frame_columns(ranked[0])
    columns = (
        *("model", "network", "parameters", "schedule", "seeds", *(TITLES[m] for m in shown[:3])),
        *(f"{TITLES[shown[2]]}, 95 %", *(TITLES[m] for m in shown[3:])),
        *(*(f"{TITLES[m]}, full frame" for m in frame), "minutes"),
    )
    rows: list[tuple[float, tuple[str, ...]]] = [
        (math.nan if group.leaked else group.mean(group.headline[0]), _score_row(group)) for group in ranked
    ]
    for figure in PUBLISHED:
        if (figure.protocol, "test") == (ranked[0].first.scored_as, ranked[0].first.split):
            values = [_published(getattr(figure, metric)) for metric in shown]
            head = (figure.title, _DASH, figure.parameters or _DASH, _DASH, _DASH)
            place = getattr(figure, ranked[0].headline[0])
            rows.append((place, (*head, *values[:3], _DASH, *values[3:], _DASH, _DASH, _DASH)))
    rows.sort(key=lambda row: -math.inf if math.isnan(row[0]) else row[0], reverse=True)
    return [_caption(ranked), _table(columns, [*_human_rows(ranked), *(row for _, row in rows)]), *_notes(ranked)]


def _columns(group: Group) -> tuple[str, ...]:
    return _COLUMNS.get(group.first.target, _LESION_COLUMNS)


def _frame_columns(group: Group) -> tuple[str, str]:
    """The headline, AUC or AP first, as everywhere in a table."""
    return tuple(sorted(group.headline, key=_columns(group).index))  # type: ignore[return-value]


def _score_row(group: Group) -> tuple[str, ...]:
    first, shown = group.first, _columns(group)
    values = [_mean_sd(group.values(metric)) for metric in shown]
    edges = np.array([record.report["ci95"][shown[2]] for record in group.records], dtype=float).mean(axis=0)
    minutes = np.mean([record.seconds for record in group.records]) / 60
    return (
        *(group.title, first.config["model"]["name"], f"{first.parameters:,}", first.schedule),
        *(str(len(group.records)), *values[:3], _interval(edges), *values[3:]),
        *(_mean_sd(group.values(metric, "full_frame")) for metric in _frame_columns(group)),
        f"{minutes:.0f} ({'/'.join(sorted({record.device for record in group.records}))})",
    )


def _human_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """The second observer, scored as if a model; [] where the set has none."""
    human = groups[0].first.report["second_observer"]
    if human is None:
        return []
    values = [_number(human["fov"].get(metric)) for metric in _columns(groups[0])]
    interval = _interval(human["ci95"]["dice"])
    head = ("second human observer", *[_DASH] * 4)
    return [(*head, *values[:3], interval, *values[3:], _DASH, _number(human["full_frame"]["dice"]), _DASH)]


def _caption(groups: Sequence[Group]) -> str:
    """What every table must say of its scores."""
    report = groups[0].first.report
    sources = dict.fromkeys(one.report["threshold_source"] for group in groups for one in group.records)
    seeds = sorted({len(group.records) for group in groups})
    counted = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    kind = "test" if report["split"] == "test" else "validation"
    return (
        f"{report['n_images']} {kind} images of {report['n_subjects']} subjects; inside the field of view "
        f"({report['fov_source']}), pooled; reference: {report['annotator']}; threshold: {' / '.join(sources)}; "
        f"{counted}, mean ± SD; flips as each configuration says; no post-processing."
    )


def _notes(groups: Sequence[Group]) -> list[str]:
    said = dict.fromkeys(text for group in groups for one in group.records for text in one.report["warnings"])
    return [f"Note: {text}." for text in said]


def _variants(ranked: Sequence[Group]) -> list[str]:
    """Flips x post-processing, the headline of every configuration."""
    rows = []
    for group in ranked:
        cells = [_two(group, name) + (" *" if name == group.first.default else "") for name in VARIANTS]
        rows.append((group.title, *cells))
    done = dict.fromkeys(
        report["postprocessing"] for group in ranked for record in group.records for report in record.variants.values()
    )
    words = "; ".join(text for text in done if text != "none")
    two = " / ".join(TITLES[metric] for metric in ranked[0].headline)
    text = (
        f"Flips and post-processing, {two}, same images and thresholds; * as in the table above. Post-processing: "
        f"{words}, so that its AUC and AP are those of the altered map."
    )
    return [text, _table(("model", *VARIANTS.values()), rows)]


def _comparisons(ranked: Sequence[Group], reference: Group, *, chosen: bool) -> list[str]:
    """Every configuration minus the reference, paired."""
    rows = [
        (group.title, *_differences(group, reference)) for group in ranked if group.first.name != reference.first.name
    ]
    if not rows:
        return []
    first, second = (TITLES[metric] for metric in reference.headline)
    how = f", the highest {first} on these very images, which favours it" if chosen else ""
    text = (
        f"Each minus {reference.title}{how}: image means, averaged over the seeds that both have; 95 % interval and "
        "two-sided p by a paired bootstrap over subjects, not corrected for the number of rows."
    )
    return [text, _table(("model", first, "p", second, "p"), rows)]


def _differences(group: Group, reference: Group) -> tuple[str, ...]:
    """Difference with interval, and p, of the two metrics of the headline."""
    cells: list[str] = []
    for metric in group.headline:
        found = paired(group, reference, metric)
        if found is None:
            cells += ["no seed in common", _DASH]
            continue
        low, high = found["ci95"]
        interval = "" if math.isnan(low) else f" ({low:+.4f} to {high:+.4f})"
        cells += [f"{found['difference']:+.4f}{interval}", _DASH if interval == "" else f"{found['p_value']:.3g}"]
    return tuple(cells)


def _crossed(groups: Sequence[Group]) -> list[str]:
    """For each configuration one matrix, learnt from x scored on: Dice / AUC."""
    crossed = [group for group in groups if group.first.crossed]
    targets = [name for name in protocols.PROTOCOLS if any(group.first.protocol == name for group in crossed)]
    scored = {target: [group for group in crossed if group.first.protocol == target] for target in targets}
    columns = []
    for target, found in scored.items():
        report = found[0].first.report
        columns.append(f"{target}: {report['n_images']} images, {report['annotator']}, fov {report['fov_source']}")
    order = list(dict.fromkeys(sources for sources, _ in protocols.cross()))
    parts = [f"## Across sets\n\n{_CROSS}"] if crossed else []
    for name in sorted({group.first.name for group in crossed}):
        own = [group for group in groups if group.first.name == name and group.first.split == "test"]
        mine = {(group.first.sources, group.first.protocol): group for group in own}
        rows = [("second human observer", _DASH, *(_human_dice(found[0]) for found in scored.values()))]
        rows += [_figure_row(figure, targets) for figure in PUBLISHED if figure.protocol in targets]
        learnt = {group.first.sources for group in mine.values() if group.first.crossed}
        for sources in (*(one for one in order if one in learnt), *sorted(learnt - set(order))):
            cells = [_cross_cell(mine, sources, target) for target in targets]
            seeds = min(len(group.records) for group in mine.values() if group.first.sources == sources)
            mark = "" if seeds >= ENOUGH_SEEDS else " †"
            rows.append((" + ".join(sources) + mark, str(seeds), *cells))
        records = [one for group in mine.values() if group.first.crossed for one in group.records]
        thresholds = dict.fromkeys(one.report["threshold_source"] for one in records)
        table = _table(("learnt from", "seeds", *columns), rows)
        parts += [f"### {name}", f"Thresholds: {' / '.join(thresholds)}.", table]
    return [*parts, *_notes(crossed)]


_CROSS = """\
Learnt from the training images of one protocol or of two, scored on all images of a set it has never seen: Dice / \
AUC, inside the field of view, pooled, mean ± SD over seeds; flips as each configuration says, no post-processing. In \
brackets, for comparison, the test images of the set that was learnt from."""


def _cross_cell(mine: Mapping[tuple[tuple[str, ...], str], Group], sources: tuple[str, ...], target: str) -> str:
    if group := mine.get((sources, target)):
        return _two(group) + (" ‡" if group.leaked else "")
    own = mine.get((sources, sources[0]))
    same = protocols.find(sources[0]).datasets == protocols.find(target).datasets
    return f"({_two(own)})" if own and same else _DASH


def _figure_row(figure: Published, targets: Sequence[str]) -> tuple[str, ...]:
    text = f"{_published(figure.dice)} / {_published(figure.auc)}"
    cells = [text if figure.protocol == target else _DASH for target in targets]
    return (figure.title, _DASH, *cells)


def _human_dice(group: Group) -> str:
    human = group.first.report["second_observer"]
    return f"{_number(human['fov']['dice'])} / {_DASH}" if human else _DASH


def _two(group: Group, variant: str = "") -> str:
    """The headline: of vessels Dice / AUC."""
    return " / ".join(_mean_sd(group.values(metric, variant=variant)) for metric in group.headline)


def _ablations(groups: Sequence[Group]) -> list[str]:
    """What each change is worth against the reference of the ablations, by one protocol."""
    reference = next((group for group in groups if group.first.name.endswith(REFERENCE)), None)
    rows = []
    for group in _best_first(groups):
        own = group is reference or reference is None
        configs = [{**one.first.config, "name": "", "seed": 0} for one in (reference or group, group)]
        a, p_a, b, p_b = [_DASH] * 4 if own or reference is None else _differences(group, reference)
        scored = [_mean_sd(group.values(metric)) for metric in group.headline]
        head = (group.title, changes(*configs) or _DASH, f"{group.first.parameters:,}", group.first.schedule)
        rows.append((*head, str(len(group.records)), scored[0], a, p_a, scored[1], b, p_b))
    one, two = (TITLES[metric] for metric in groups[0].headline)
    columns = ("model", "what differs", "parameters", "schedule", "seeds", one, f"Δ {one}", "p", two, f"Δ {two}", "p")
    text = (
        f"Δ: each minus `{reference.first.name}`: image means, averaged over the seeds that both have; 95 % interval "
        "and two-sided p by a paired bootstrap over subjects, not corrected for the number of rows."
        if reference
        else "The reference of these ablations has no record here."
    )
    return [f"### {_heading(groups[0].first)}", _caption(groups), text, _table(columns, rows), *_notes(groups)]


def _best_first(groups: Iterable[Group]) -> list[Group]:
    """By the mean of the headline; undefined ones and those that have seen what they are scored on last."""

    def place(group: Group) -> tuple[bool, bool, float]:
        score = group.mean(group.headline[0])
        return group.leaked, math.isnan(score), -score

    return sorted(groups, key=place)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def _mean_sd(values: Sequence[float]) -> str:
    """Mean ± SD over seeds; the mean alone where there is one seed."""
    if len(values) < 2 or any(math.isnan(value) for value in values):
        return _number(float(np.mean(values)))
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _number(value: float | None) -> str:
    return _DASH if value is None or math.isnan(value) else f"{value:.4f}"


def _published(value: float) -> str:
    """Three digits where no more were given."""
    return _number(value).removesuffix("0")


def _interval(edges: Iterable[float | None]) -> str:
    low, high = (_number(edge) for edge in edges)
    return _DASH if _DASH in (low, high) else f"{low} to {high}"
