"""How results, progress and errors look on a terminal, and how they read in a pipe.

No arguments (see cli) and nothing computed.
"""

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retina_seg.files import readable

if TYPE_CHECKING:
    from retina_seg.batch import Outcome
    from retina_seg.datasets import Summary
    from retina_seg.records import Record
    from retina_seg.scores import Report

# Where there is no terminal, tables are written wide enough not to be folded.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
errors = Console(stderr=True)
_LONG, _SHOWN = 12, 3


def tell(outcome: "Outcome") -> None:
    """The error or the warnings of one photograph, as soon as they are known."""
    for line in [outcome.error] if outcome.error else outcome.warnings:
        kind = "[bold red]error[/]" if outcome.error else "[yellow]warning[/]"
        name = "" if str(outcome.source) in line else f"{plain(outcome.source)}: "
        errors.print(f"{kind}: {name}{plain(line)}", soft_wrap=True, highlight=False)
    for line in outcome.notes:
        note(line)


def summary_line(summary: "Summary") -> tuple[str, ...]:
    """One line of `data list`."""
    protocols = (f"{name} {'/'.join(map(str, counts.values()))}" for name, counts in summary.splits.items())
    here = "" if summary.missing is None else f"{summary.files - summary.missing} of {summary.files} files"
    return (
        summary.name,
        summary.folder,
        str(summary.images),
        ", ".join(summary.targets) or "grades",
        "; ".join(protocols),
        here,
    )


def record_line(record: "Record", new: bool) -> None:
    """One line for a cell of a benchmark, as soon as it is scored."""
    from retina_seg.scores import TITLES, headline

    fov, names = record.report["fov"], headline(record.target)
    values = (f"{TITLES[name]} {'undefined' if fov[name] is None else format(fov[name], '.4f')}" for name in names)
    text = f"{record.title}: {', '.join(values)}"
    console.print(text + ("" if new else " (recorded before)"), soft_wrap=True, highlight=False)


def report(scored: "Report") -> None:
    """The table of one report, what only some targets have, and what must be said beside it."""
    from retina_seg.scores import TABLE_COLUMNS, further_lines, table_rows

    title = (
        f"{scored.model} on {scored.protocol}, {scored.target.replace('_', ' ')} ({scored.split}, {scored.n_images} "
        f"images, {scored.annotator}), threshold {scored.threshold:.4g} from {scored.threshold_source}, "
        f"post-processing: {scored.postprocessing}"
    )
    table(TABLE_COLUMNS, table_rows(scored), title=title)
    for line in further_lines(scored):
        console.print(plain(line), highlight=False)
    for warning in scored.warnings:
        note(warning)


def comparison(one: "Report", other: "Report", names: tuple[str, str]) -> None:
    """By how much the first of two reports on the same images is above the other, image means and pooled."""
    from retina_seg.scores import DIFFERENCE_COLUMNS, difference_rows

    title = f"{names[0]} less {names[1]}, subjects resampled in pairs"
    table(DIFFERENCE_COLUMNS, difference_rows(one, other), title=title)
    for name, scored in zip(names, (one, other), strict=True):
        if scored.leaked_images:
            note(f"{name} has seen {len(scored.leaked_images)} of these images: the difference is no result")


def labels(given: tuple[str, str], models: tuple[str, str]) -> tuple[str, str]:
    """What two reports are called: their models or, where these are alike, what the user gave."""
    return models if models[0] != models[1] else given


def shortened(value: Any) -> Any:
    """What JSON holds, with long lists cut to their first entries and how many there are."""
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    if isinstance(value, list):
        first = [shortened(one) for one in value[:_SHOWN]]
        return value if len(value) <= _LONG else [*first, f"and {len(value) - _SHOWN} more (--all)"]
    return value


def stopped_early(training: Mapping[str, Any]) -> str:
    """What a card's facts say of early stopping, to be added to a sentence; "" without `training.patience`."""
    if "best_step" not in training:
        return ""
    planned = training["config"]["training"]["steps"]
    done = f"; {training['steps']} of {planned} steps" if training["steps"] < planned else ""
    return f"{done}; the weights are those of step {training['best_step']}, the best validation"


def note(text: str) -> None:
    """Something to know that is no error."""
    errors.print(f"[yellow]note[/]: {plain(text)}", soft_wrap=True, highlight=False)


@contextmanager
def resumable() -> Iterator[None]:
    """Whoever stops the work reads how to go on: with the same command."""
    from retina_seg.errors import Interrupted

    try:
        yield
    except Interrupted as stop:
        raise Interrupted(stop.what, join(["retina-seg", *sys.argv[1:]])) from None


@contextmanager
def working(what: str) -> Iterator[None]:
    """A moving sign on the terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield
        return
    with console.status(plain(what), spinner="line"):
        yield


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on the terminal, nothing elsewhere; gives advance(done, text, total)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        """Things done in a second, or seconds for one."""

        def render(self, task: Task) -> Text:
            if not task.speed:
                return Text("")
            return Text(f"{task.speed:.1f}/s" if task.speed >= 1 else f"{1 / task.speed:.1f} s each")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task(plain(what), total=total, text="")

        def advance(done: int | None = None, text: str = "", *, total: int | None = None) -> None:
            progress.update(task, total=total)
            if done is None:
                progress.advance(task)
            else:
                progress.update(task, completed=done)
            progress.update(task, text=text)

        yield advance


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """`bar` of work that tells its size on the way; gives advance(done, total)."""
    with bar(what, None) as advance:
        yield lambda done, total: advance(done, total=total)


def table(columns: tuple[str, ...], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows under their columns."""
    drawn = Table(title=None if title is None else plain(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(plain(column), overflow="fold", no_wrap=number == 0)
    for row in rows:
        drawn.add_row(*map(plain, row))
    console.print(drawn)


def files(paths: Iterable[Path]) -> None:
    """Say which files were written."""
    for path in paths:
        console.print(f"wrote {plain(path)}", highlight=False, soft_wrap=True)


def plain(value: object) -> str:
    r"""Text of one line in which rich finds no markup and the terminal no command.

    File names may hold anything: control characters, marks that turn the direction of writing, and bytes that are no
    UTF-8 are shown as in \x1b, \u202e and \xe4.
    """
    return _visible(str(value)).replace("[", r"\[")


def unmasked(value: Any) -> Any:
    """What JSON holds, its texts without anything that a terminal would take for a command."""
    if isinstance(value, dict):
        return {_visible(key): unmasked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [unmasked(one) for one in value]
    return _visible(value) if isinstance(value, str) else value


def _visible(text: str) -> str:
    shown = (_escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in readable(text))
    return "".join(shown)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, format, surrogate, private, unassigned, line ends
