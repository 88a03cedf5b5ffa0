"""The tables of a benchmark: nothing but its stored records (records.py) is read.

No training and no scoring (benchmark.py); what a score means is in scores.py.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retina_seg import degradations, files, io, markdown, matrices, protocols
from retina_seg.degradations import Line
from retina_seg.errors import UserError
from retina_seg.groups import ENOUGH_SEEDS, Group, best_first, grouped, paired
from retina_seg.markdown import DASH
from retina_seg.matrices import REFERENCE
from retina_seg.published import PUBLISHED, Published
from retina_seg.records import ENSEMBLE, VARIANTS, Record, changes, read_all
from retina_seg.scores import METRICS, TITLES

INTRODUCTION, STUDY, PAGE, TABLE, FLAT = (
    *("introduction.md", "hybrids.md"),
    *("RESULTS.md", "results.csv", "results.json"),
)
_MARK = "Written by `retina-seg results`, never by hand; records: "
_TRAINED = ("config", "learnt_from", "protocol", "target", "split", "seed", "photographs")  # what tells records apart
ABLATION = "ablation-"  # how names begin
ENOUGH_SUBJECTS = 6  # with fewer not even all of one sign would be p < .05 (2 / 2^5)
# The metrics of a table, the third with its interval.
_COLUMNS = {
    "vessels": ("auc", "ap", "dice", "sensitivity", "specificity", "accuracy", "mcc", "cldice"),
    "disc": ("auc", "dice", "iou", "sensitivity", "precision"),
}
_LESION_COLUMNS = ("auc", "dice", "ap", "iou", "sensitivity", "precision")


def write(
    folder: Path, out: Path | None = None, *, worse: Path, reference: str = "", overwrite: bool = False
) -> list[Path]:
    """Make the page of all tables and, beside the records, results.csv and results.json; returns the paths.

    `folder` may hold introduction.md, which the page begins with, and hybrids.md, which the study of the hybrids begins
    with; `worse` may hold what `retina-seg robustness` recorded. The page is `out`, by default RESULTS.md in `folder`.

    Raises
    ------
    UserError
        As `read_all` and `page` raise, and where a file is there that was not made so of the same records, but for
        `overwrite`: a page of other records, or somebody's own.
    """
    records, out = read_all(folder), out or folder / PAGE
    files.check_replaceable(
        (out, folder / TABLE, folder / FLAT), overwrite=overwrite, own=lambda path: _is_made_of(folder, path)
    )
    page_text = page(
        records,
        introduction=_text(folder / INTRODUCTION),
        reference=reference,
        worse=degradations.read_all(worse),
        study=_text(folder / STUDY),
    )
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


def _is_made_of(folder: Path, path: Path) -> bool:
    """Whether a page or table was made by `write` of the records in a folder, as results.json there lists them."""
    try:
        listed = io.read_json(folder / FLAT)
        trained = {tuple(str(line[key]) for key in _TRAINED) for line in listed}
        text = io.read_text(path)
    except (ValueError, LookupError, TypeError):
        return False
    if path == folder / FLAT:
        return bool(trained)
    if path == folder / TABLE:
        return text.partition("\n")[0].split(",") == list(listed[0])
    mark = re.search(rf"^{re.escape(_MARK)}(\d+)\.$", text, re.MULTILINE)
    return mark is not None and int(mark[1]) == len(trained) and all(names[0] in text for names in trained)


def is_drawn(path: Path) -> bool:
    """Whether a picture was drawn by this program, in this version or an earlier one."""
    if files.is_own(path):
        return True
    try:
        with Image.open(path) as opened:
            return str(opened.info.get("Software", "")).startswith("Matplotlib")
    except (OSError, ValueError, SyntaxError):
        return False


def _text(path: Path) -> str:
    return io.read_text(path) if path.is_file() else ""


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
                "photographs": record.photographs,
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


def page(
    records: Sequence[Record],
    *,
    introduction: str = "",
    reference: str = "",
    worse: Sequence[Line] = (),
    study: str = "",
) -> str:
    """All tables as Markdown.

    Parameters
    ----------
    introduction : Markdown that stands above them.
    reference : configuration that every other one is compared with; by default the one with the highest Dice.
    worse : scores of photographs made worse.
    study : Markdown that stands above the tables of the hybrids.

    Raises
    ------
    UserError
        An unknown `reference`, or records that must not stand in one table (`grouped`).
    """
    groups = grouped(records)
    known = sorted({group.first.name for group in groups})
    if reference and reference not in known:
        raise UserError(f"--reference {reference!r}: there are records of {', '.join(known)}")
    parts = ["# Results", f"{_MARK}{len(records)}."]
    parts += [introduction.strip()] if introduction.strip() else []
    parts.append(_HOW_TO_READ)
    ablated, studied = _called(groups, ABLATION), _called(groups, matrices.STUDY)
    ordinary = [group for group in groups if not group.first.name.startswith((ABLATION, matrices.STUDY))]
    whole = [group for group in ordinary if not group.first.photographs]
    for own in _by_table([group for group in whole if not group.first.crossed]):
        parts += _protocol(own, reference)
    parts += _crossed(whole)
    parts += matrices.few([*ordinary, *ablated])
    parts += matrices.degraded(line for line in worse if not line.config.startswith(matrices.STUDY))
    parts += matrices.study(studied, [line for line in worse if line.config.startswith(matrices.STUDY)], study)
    parts += ["## Ablations"] if ablated else []
    for own in _by_table([group for group in ablated if not group.first.photographs]):
        parts += _ablations(own)
    return "\n\n".join(parts) + "\n"


def _called(groups: Iterable[Group], beginning: str) -> list[Group]:
    return [group for group in groups if group.first.name.startswith(beginning)]


_HOW_TO_READ = f"""\
Every score is taken inside the field of view, at the photograph's own size, against the untouched first observer, at \
a threshold that saw training or validation images only. Rows give the mean ± SD over seeds of the score pooled over \
all pixels of the images; the interval (95 %, subjects resampled) is that of the images, averaged over the seeds. \
"Full frame" counts the black surround as well and stands here because much of the literature counts it. *Published* \
rows are figures of others, inside the field of view, with a threshold not chosen on test images. The schedule is \
steps × patches a step × side of a patch: compare networks only where it is the same. Parameters are those that the \
steps train: atoms and label atoms that are learnt or solved before the first step are not counted. Minutes are those \
of the steps, of all folds. Differences have a p where there are at least {ENOUGH_SUBJECTS} subjects; an interval over \
fewer says little, and the SD over the seeds of the reference is a yardstick then.

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
    ranked = best_first(groups)
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
            head = (figure.title, DASH, figure.parameters or DASH, DASH, DASH)
            place = getattr(figure, ranked[0].headline[0])
            rows.append((place, (*head, *values[:3], DASH, *values[3:], DASH, DASH, DASH)))
    rows.sort(key=lambda row: -math.inf if math.isnan(row[0]) else row[0], reverse=True)
    return [
        _caption(ranked),
        markdown.table(columns, [*_human_rows(ranked), *(row for _, row in rows)]),
        *_notes(ranked),
    ]


def _columns(group: Group) -> tuple[str, ...]:
    return _COLUMNS.get(group.first.target, _LESION_COLUMNS)


def _frame_columns(group: Group) -> tuple[str, str]:
    """The headline, AUC or AP first, as everywhere in a table."""
    return tuple(sorted(group.headline, key=_columns(group).index))  # type: ignore[return-value]


def _score_row(group: Group) -> tuple[str, ...]:
    first, shown = group.first, _columns(group)
    values = [markdown.mean_sd(group.values(metric)) for metric in shown]
    edges = np.array([record.report["ci95"][shown[2]] for record in group.records], dtype=float).mean(axis=0)
    minutes = np.mean([record.seconds for record in group.records]) / 60
    return (
        *(group.title, first.config["model"]["name"], f"{first.parameters:,}", first.schedule),
        *(str(len(group.records)), *values[:3], markdown.interval(edges), *values[3:]),
        *(markdown.mean_sd(group.values(metric, "full_frame")) for metric in _frame_columns(group)),
        f"{minutes:.0f} ({'/'.join(sorted({record.device for record in group.records}))})",
    )


def _human_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """The second observer, scored as if a model; [] where the set has none."""
    human = groups[0].first.report["second_observer"]
    if human is None:
        return []
    values = [markdown.number(human["fov"].get(metric)) for metric in _columns(groups[0])]
    interval = markdown.interval(human["ci95"]["dice"])
    head = ("second human observer", *[DASH] * 4)
    return [(*head, *values[:3], interval, *values[3:], DASH, markdown.number(human["full_frame"]["dice"]), DASH)]


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
        known = set.intersection(*(set(record.variants) for record in group.records))
        cells = [
            _two(group, name) + (" *" if name == group.first.default else "") if name in known else DASH
            for name in VARIANTS
        ]
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
    return [text, markdown.table(("model", *VARIANTS.values()), rows)]


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
    return [text, markdown.table(("model", first, "p", second, "p"), rows)]


def _differences(group: Group, reference: Group) -> tuple[str, ...]:
    """Difference with interval, and p, of the two metrics of the headline."""
    cells: list[str] = []
    for metric in group.headline:
        found = paired(group, reference, metric)
        if found is None:
            cells += ["no seed in common", DASH]
            continue
        told = not math.isnan(found["ci95"][0]) and group.first.report["n_subjects"] >= ENOUGH_SUBJECTS
        text = markdown.difference(found["difference"], found["ci95"])
        cells += [text, f"{found['p_value']:.3g}" if told else DASH]
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
        rows = [("second human observer", DASH, *(_human_dice(found[0]) for found in scored.values()))]
        rows += [_figure_row(figure, targets) for figure in PUBLISHED if figure.protocol in targets]
        learnt = {group.first.sources for group in mine.values() if group.first.crossed}
        for sources in (*(one for one in order if one in learnt), *sorted(learnt - set(order))):
            cells = [_cross_cell(mine, sources, target) for target in targets]
            seeds = min(len(group.records) for group in mine.values() if group.first.sources == sources)
            mark = "" if seeds >= ENOUGH_SEEDS else " †"
            rows.append((" + ".join(sources) + mark, str(seeds), *cells))
        records = [one for group in mine.values() if group.first.crossed for one in group.records]
        thresholds = dict.fromkeys(one.report["threshold_source"] for one in records)
        table = markdown.table(("learnt from", "seeds", *columns), rows)
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
    return f"({_two(own)})" if own and same else DASH


def _figure_row(figure: Published, targets: Sequence[str]) -> tuple[str, ...]:
    text = f"{_published(figure.dice)} / {_published(figure.auc)}"
    cells = [text if figure.protocol == target else DASH for target in targets]
    return (figure.title, DASH, *cells)


def _human_dice(group: Group) -> str:
    human = group.first.report["second_observer"]
    return f"{markdown.number(human['fov']['dice'])} / {DASH}" if human else DASH


def _two(group: Group, variant: str = "") -> str:
    """The headline: of vessels Dice / AUC."""
    return " / ".join(markdown.mean_sd(group.values(metric, variant=variant)) for metric in group.headline)


def _gain(group: Group, reference: Group | None) -> float:
    """The difference of the first metric from the reference; 0 where there is none."""
    found = paired(group, reference, group.headline[0], n_bootstrap=1) if reference else None
    return found["difference"] if found and not math.isnan(found["difference"]) else 0.0


def _ablations(groups: Sequence[Group]) -> list[str]:
    """What each change is worth against the reference of the ablations, by one protocol."""
    reference = next((group for group in groups if group.first.name.endswith(REFERENCE)), None)
    rows = []
    for group in sorted(best_first(groups), key=lambda group: -_gain(group, reference)):
        own = group is reference or reference is None
        configs = [{**one.first.config, "name": "", "seed": 0} for one in (reference or group, group)]
        a, p_a, b, p_b = [DASH] * 4 if own or reference is None else _differences(group, reference)
        scored = [markdown.mean_sd(group.values(metric)) for metric in group.headline]
        same = "several seeds averaged" if group.first.name.endswith(ENSEMBLE) else DASH
        head = (group.title, changes(*configs) or same, f"{group.first.parameters:,}", group.first.schedule)
        rows.append((*head, str(len(group.records)), scored[0], a, p_a, scored[1], b, p_b))
    one, two = (TITLES[metric] for metric in groups[0].headline)
    columns = ("model", "what differs", "parameters", "schedule", "seeds", one, f"Δ {one}", "p", two, f"Δ {two}", "p")
    text = (
        f"Δ: each minus `{reference.first.name}`: image means, averaged over the seeds that both have; 95 % interval "
        "and two-sided p by a paired bootstrap over subjects, not corrected for the number of rows."
        if reference
        else "The reference of these ablations has no record here."
    )
    return [f"### {_heading(groups[0].first)}", _caption(groups), text, markdown.table(columns, rows), *_notes(groups)]


def _published(value: float) -> str:
    """Three digits where no more were given."""
    return markdown.number(value).removesuffix("0")
