"""Matrices of scores: configurations in rows, what is varied in columns.

Few training photographs, photographs made worse, and the study of the hybrids, which has both and more. No scoring.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from retina_seg import markdown, protocols
from retina_seg.degradations import DEGRADATIONS, Line
from retina_seg.errors import UserError
from retina_seg.groups import ENOUGH_SEEDS, Group, paired
from retina_seg.scores import TITLES

STUDY, REFERENCE = "hybrids-", "-reference"  # how names begin, and how that of what they are compared with ends
_DIFFERENCE = (
    "in brackets the difference from `{reference}`: image means, averaged over the seeds that both have, 95 % interval "
    "by a paired bootstrap over subjects"
)
_DEGRADED = (
    "Test images made worse, pooled inside the field of view, mean ± SD over seeds. Dice is at the threshold of the "
    "card, and falls also where probabilities have moved but pixels keep their order, which AUC tells. Gaussian blur "
    "(sigma, px), noise (SD, of 255), JPEG (quality), dark (grey values times 1/4), gamma, grey values that fall to a "
    "third from left to right, no colour, another size."
)


def few(groups: Sequence[Group]) -> list[str]:
    """The section on trainings with a part of the training images (`data.photographs`), a matrix for each protocol."""
    parts = [part for own in _by_protocol(groups) for part in _few(own)]
    return ["## Few training photographs", *parts] if parts else []


def degraded(lines: Iterable[Line]) -> list[str]:
    """The section on photographs made worse."""
    parts = _degraded(list(lines))
    return ["## Photographs made worse", *parts] if parts else []


def study(groups: Sequence[Group], lines: Iterable[Line], text: str) -> list[str]:
    """The section on the hybrids: `text`, what was trained, and the matrices of all that was varied."""
    if not groups:
        return []
    vessels = [group for group in groups if not group.first.crossed and len(_targets(group)) == 1]
    lesions = [group for group in groups if not group.first.crossed and len(_targets(group)) > 1]
    parts = ["## What the hybrids are good for", *([text.strip()] if text.strip() else []), _trained(groups)]
    for own in _by_protocol(vessels):
        whole = [group for group in own if group.first.name not in _in_part(own, alike=True)]
        title = f"`{own[0].first.scored_as}`{own[0].first.learnt}"
        parts += _few(own, alike=True)
        parts += [f"### {title}, all training images", *_matrices({title: whole})] if whole else []
    crossed = [group for group in groups if group.first.crossed]
    for own in _by_protocol(crossed):
        parts += _few(own)
    if whole := [group for group in crossed if not group.first.photographs]:
        parts += ["### Another camera", "Learnt from the training images of one set, scored on all of another."]
        parts += _matrices(_columns(whole, lambda one: f"{' + '.join(one.first.sources)}, on {one.first.protocol}"))
    if found := _degraded(list(lines)):
        parts += ["### Photographs made worse", *found]
    if lesions:
        parts += ["### Lesions", "IDRiD, test images."]
        parts += _matrices(_columns(lesions, lambda one: one.first.target.replace("_", " ")))
    return parts


def _targets(group: Group) -> tuple[str, ...]:
    return protocols.find(group.first.protocol).targets


def _by_protocol(groups: Iterable[Group]) -> list[list[Group]]:
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        found.setdefault((group.first.scored_as, group.first.split, *group.first.sources), []).append(group)
    return list(found.values())


def _in_part(groups: Iterable[Group], *, alike: bool = False) -> set[str]:
    """Names of the configurations that learnt from a part of the training images, too; with `alike` also of those
    that had the same schedule as one of them."""
    names = {group.first.name for group in groups if group.first.photographs}
    schedules = {group.first.schedule for group in groups if alike and group.first.name in names}
    return names | {group.first.name for group in groups if group.first.schedule in schedules}


def _few(groups: Sequence[Group], *, alike: bool = False) -> list[str]:
    """The matrix of one protocol over numbers of photographs; [] where none learnt from a part."""
    own = [group for group in groups if group.first.name in _in_part(groups, alike=alike)]
    if not own:
        return []
    first = own[0].first
    ordered = sorted(own, key=lambda group: group.first.photographs or 10**9)
    kind = "" if first.split == "test" else ", validation images"
    text = (
        "Learnt from so many of the training images, drawn by the seed; those of a smaller number are among those of a "
        f"larger one. Scored on the same {first.report['n_images']} images."
    )
    columns = _columns(ordered, lambda one: str(one.first.photographs or "all"))
    return [f"### `{first.scored_as}`{first.learnt}, few photographs{kind}", text, *_matrices(columns)]


def _columns(groups: Iterable[Group], title: Callable[[Group], str]) -> dict[str, list[Group]]:
    columns: dict[str, list[Group]] = {}
    for group in groups:
        columns.setdefault(title(group), []).append(group)
    return columns


def _matrices(columns: Mapping[str, Sequence[Group]]) -> list[str]:
    """A table for each metric of the headline."""
    found: dict[str, dict[str, Group]] = {}
    for title, own in columns.items():
        for group in own:
            assert title not in found.setdefault(group.first.name, {})
            found[group.first.name][title] = group
    names = sorted(found, key=lambda name: (not name.endswith(REFERENCE), name))
    reference = next((name for name in names if name.endswith(REFERENCE)), "")
    others = found.get(reference, {})
    parts = []
    for metric in next(iter(found[names[0]].values())).headline:
        rows = []
        for name in names:
            mine = found[name]
            few_seeds = min(len(group.records) for group in mine.values()) < ENOUGH_SEEDS
            cells = [_cell(mine.get(title), others.get(title), metric) for title in columns]
            rows.append((name + (" †" if few_seeds else ""), *cells))
        how = f"; {_DIFFERENCE.format(reference=reference)}" if reference else ""
        parts += [f"{TITLES[metric]}, mean ± SD over seeds{how}:", markdown.table(("model", *columns), rows)]
    return parts


def _cell(group: Group | None, reference: Group | None, metric: str) -> str:
    if group is None:
        return markdown.DASH
    text = markdown.mean_sd(group.values(metric)) + (" ‡" if group.leaked else "")
    found = None if reference in (None, group) else paired(group, reference, metric)
    return text if found is None else f"{text} ({markdown.difference(found['difference'], found['ci95'])})"


def _trained(groups: Sequence[Group]) -> str:
    """What was trained, a row for each configuration."""
    rows: dict[str, tuple[str, ...]] = {}
    for group in sorted(groups, key=lambda one: (one.first.crossed, one.first.photographs or 0)):
        one = group.first
        minutes = sum(record.seconds for record in group.records) / len(group.records) / 60
        row = (
            one.name,
            one.config["model"]["name"],
            f"{one.parameters:,}",
            one.schedule,
            f"{minutes:.1f} ({one.device})",
        )
        rows.setdefault(one.name, row)
    return markdown.table(("model", "network", "parameters", "schedule", "minutes"), rows.values())


def _degraded(lines: Sequence[Line]) -> list[str]:
    """A matrix for each protocol and target: rows are models and how their codes were found."""
    parts: list[str] = [_DEGRADED] if lines else []
    for scored in dict.fromkeys((line.protocol, line.target) for line in lines):
        own = [line for line in lines if (line.protocol, line.target) == scored]
        other = next((line for line in own if line.data_sha256 != own[0].data_sha256), None)
        if other:
            raise UserError(
                f"{own[0].file_name} and {other.file_name} of `retina-seg robustness` were not scored on the same "
                f"images, annotations and fields of view by {scored[0]}: remove one and run it again"
            )
        columns = [name for name in DEGRADATIONS if any(line.degradation == name for line in own)]
        for metric in ("dice", "auc"):
            title = f"`{protocols.report_name(*scored)}`, {TITLES[metric]}:"
            parts += [title, markdown.table(("model", *columns), _degraded_rows(own, columns, metric))]
    return parts


def _degraded_rows(lines: Sequence[Line], columns: Sequence[str], metric: str) -> list[tuple[str, ...]]:
    """A metric of every training by degradation, mean ± SD over its seeds."""
    names = [line.config for line in {line.training: line for line in lines if line.setting == (None, 1.0)}.values()]
    rows = []
    for training in dict.fromkeys(line.training for line in lines):
        mine = [line for line in lines if line.training == training]
        first = mine[0]
        values = [[getattr(line, metric) for line in mine if line.degradation == name] for name in columns]
        cells = [markdown.mean_sd(found) if found else markdown.DASH for found in values]
        mark = (" ‡" if any(line.leaked for line in mine) else "") + (
            "" if min(len(found) for found in values) >= ENOUGH_SEEDS else " †"
        )
        learnt = f" from {first.learnt_from}" if names.count(first.config) > 1 else ""
        rows.append((first.config + learnt + _recoded(*first.setting) + mark, *cells))
    return rows


def _recoded(steps: int | None, penalty_factor: float) -> str:
    """How the codes were found, where that was not as in the training."""
    said = [f"{steps} iterations"] if steps else []
    said += [f"penalty × {penalty_factor:g}"] if penalty_factor != 1 else []
    return f", {', '.join(said)}" if said else ""
