"""The command line `retina-seg`: arguments in, tables and files out.

Every command calls the library and shows what it returns; nothing is computed here.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retina_seg._version import __version__
from retina_seg.errors import UserError

if TYPE_CHECKING:
    from retina_seg.batch import Outcome

app = typer.Typer(
    name="retina-seg",
    help="Segment, train and measure on retinal photographs. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data = typer.Typer(help="The public sets: what is known, is it whole, where to get it.", no_args_is_help=True)
models = typer.Typer(help="The packaged models and their cards.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(models, name="models")

# Where there is no terminal, tables are written wide enough not to be folded.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
errors = Console(stderr=True)

DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="RETINA_SEG_DATA",
        help="Folder that holds DRIVE/, STARE/, CHASE_DB1/, IDRiD/.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Flips = Annotated[
    bool | None,
    typer.Option("--flips/--no-flips", help="Average four flips; default: as the model's card says."),
]


def main() -> None:
    """Run the command line; errors a user can mend become one line and exit code 2."""
    from retina_seg.errors import Interrupted

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        app()
    except UserError as error:
        errors.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:
        errors.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except Interrupted as stop:
        errors.print(_plain(stop), soft_wrap=True, highlight=False)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        console.print(f"retina-seg {__version__}", highlight=False)
        raise typer.Exit()


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo")) -> None:
    """Segment a drawn photograph with the packaged weights and score it against its exact truth.

    Example: `retina-seg demo --out demo`
    """
    from retina_seg import demonstration

    with console.status("drawing and segmenting", spinner="line") if console.is_terminal else _silence():
        result = demonstration.run(out)
    _table(("metric", "value", "meaning"), result.rows, title=result.title)
    _files(result.files)


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Photographs or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="Packaged model or run folder.")] = "vessels-drive",
    save: Annotated[str, typer.Option(help="Any of mask,prob,overlay,nifti.")] = "mask,prob,overlay",
    device: Device = "auto",
    flips: Flips = None,
) -> None:
    """Segment photographs of any size: mask, probability, overlay and JSON for each.

    Examples:

    `retina-seg predict eye.jpg --out masks`

    `retina-seg predict clinic/ more/*.tif --out masks --save mask,nifti`
    """
    from retina_seg import batch
    from retina_seg.inference import Segmenter, saved

    what = saved(save)
    planned = batch.plan(inputs)
    segmenter = Segmenter.from_pretrained(model, device, flips=flips)
    with _bar("photographs", len(planned)) as advance:

        def tell(outcome: batch.Outcome) -> None:
            _tell(outcome)
            advance()

        outcomes = batch.predict_files(segmenter, planned, out, what=what, on_done=tell)
    failed = sum(bool(outcome.error) for outcome in outcomes)
    where = "" if failed == len(outcomes) else f", results in {_plain(out)}"
    count = f"{len(outcomes) - failed} of {len(outcomes)}"
    console.print(f"{count} photographs segmented{where}", soft_wrap=True, highlight=False)
    raise typer.Exit(2 if failed else 0)


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml", help="See configs/.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="a.b=value, may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<name>.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder of an unfinished training.")] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Train a network; Ctrl-C saves, --resume goes on and ends in the same weights.

    Examples:

    `retina-seg train configs/vessels-drive.yaml --set training.steps=500 --out runs/short --data-root data`

    `retina-seg train --resume runs/short --data-root data`
    """
    from retina_seg import checkpoint, report
    from retina_seg import config as settings
    from retina_seg import train as training

    if (config is None) == (resume is None):
        raise UserError("give either CONFIG.yaml to begin a training or --resume RUN to go on with one")
    if resume and (changes or out):
        raise UserError("--resume goes on with the run as it was: leave out --set and --out")
    loaded = settings.load_config(config or resume / checkpoint.CONFIG, changes or ())  # type: ignore[operator]
    run = resume or out or Path("runs") / loaded.name
    with _bar("steps", loaded.training.steps) as advance:
        card = training.fit(
            loaded,
            run,
            data_root,
            resume=resume is not None,
            device=device,
            progress=lambda p: advance(p.step, p.describe()),
        )
    if not training.is_main_process():
        return
    _files([run / checkpoint.WEIGHTS, run / checkpoint.CARD, *report.draw_run(run, data_root)])
    thresholds = ", ".join(f"{target} {value}" for target, value in card.thresholds.items())
    text = f"{card.parameters:,} parameters; threshold of {thresholds}, {card.threshold_source}"
    console.print(text, soft_wrap=True, highlight=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="Packaged model or run folder.")],
    protocol: Annotated[str, typer.Option(help="For example drive; an unknown name lists all.")],
    data_root: DataRoot = Path("data"),
    json: Annotated[Path | None, typer.Option(help="Write the whole report here.")] = None,
    save_predictions: Annotated[Path | None, typer.Option(help="Folder for masks and probabilities.")] = None,
    device: Device = "auto",
    flips: Flips = None,
) -> None:
    """Score a model on a published protocol, inside the field of view, with 95 % intervals.

    Example: `retina-seg evaluate vessels-drive --protocol drive --data-root data --json drive.json`
    """
    from retina_seg import io, scoring
    from retina_seg.scores import TABLE_COLUMNS, table_rows

    with _bar("photographs", None) as advance:
        report = scoring.score(
            model,
            protocol,
            data_root,
            device=device,
            flips=flips,
            save_to=save_predictions,
            progress=lambda done, total: advance(done, total=total),
        )
    title = (
        f"{report.model} on {report.protocol} ({report.split}, {report.n_images} images, {report.annotator}), "
        f"threshold {report.threshold:.4g} from {report.threshold_source}"
    )
    _table(TABLE_COLUMNS, table_rows(report), title=title)
    for warning in report.warnings:
        errors.print(f"[yellow]note[/]: {_plain(warning)}", soft_wrap=True, highlight=False)
    if json is not None:
        io.write_text(json, report.to_json())
        _files([json])


@data.command("list")
def data_list(
    data_root: Annotated[
        Path | None, typer.Option("--data-root", envvar="RETINA_SEG_DATA", help="Say what of each set is there.")
    ] = None,
) -> None:
    """The sets this package knows: photographs, annotations, protocols, terms.

    Example: `retina-seg data list --data-root data`
    """
    from retina_seg import datasets

    columns = ("set", "folder", "photographs", "annotated", "protocols: train/val/test", "here")
    _table(columns, (_summary(summary) for summary in datasets.summary(data_root)))


@data.command("check")
def data_check(
    sets: Annotated[list[str], typer.Argument(metavar="SET...", help="Names of sets, or all.")],
    data_root: DataRoot = Path("data"),
) -> None:
    """Compare a copy with the manifests: missing, damaged, mixed up or duplicate images, leaks across splits.

    Examples:

    `retina-seg data check drive --data-root data`

    `retina-seg data check all --data-root data`
    """
    from retina_seg import audit, datasets

    names = list(datasets.DATASETS) if sets == ["all"] else sets
    with _bar("photographs", None) as advance:
        findings = audit.check(names, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    colours = {"error": "bold red", "warning": "yellow", "info": "cyan"}
    for finding in findings:
        head = f"[{colours[finding.severity]}]{finding.severity}[/] {finding.kind}"
        console.print(f"{head}: {_plain(finding.message)}", soft_wrap=True, highlight=False)
    count = {severity: sum(f.severity == severity for f in findings) for severity in colours}
    summary = ", ".join(f"{number} {severity}" for severity, number in count.items())
    console.print(f"checked {', '.join(names)}: {summary}", highlight=False)
    raise typer.Exit(2 if count["error"] else 0)


@data.command("scan")
def data_scan(
    dataset: Annotated[str, typer.Argument(metavar="SET", help="Name of a set.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="CSV to write; default SET.csv here.")] = None,
) -> None:
    """Write the manifest of a whole copy of a set: paths, sizes, hashes, subjects, splits.

    Example: `retina-seg data scan drive --data-root data --out data_manifests/drive.csv`
    """
    from retina_seg import audit, manifest

    with _bar("photographs", None) as advance:
        rows = audit.scan(dataset, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    path = out or Path(f"{dataset}.csv")
    manifest.write(rows, path)
    _files([path])


@data.command("fetch")
def data_fetch(
    dataset: Annotated[str, typer.Argument(metavar="SET", help="Name of a set.")],
    data_root: DataRoot = Path("data"),
) -> None:
    """Download a set where its owners allow that, else say where to register.

    Example: `retina-seg data fetch stare --data-root data`
    """
    from retina_seg import download

    with _bar("bytes", None) as advance:
        fetched = download.fetch(dataset, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    console.print(_plain(fetched.message), soft_wrap=True, highlight=False)


@models.command("list")
def models_list() -> None:
    """The packaged models: what they find, how large they are, what they score.

    Example: `retina-seg models list`
    """
    from retina_seg import zoo

    rows = [
        (name, ", ".join(card.targets), f"{card.parameters:,}", card.headline(), card.description)
        for name, card in ((name, zoo.card(name)) for name in zoo.names())
    ]
    _table(("model", "finds", "parameters", "scores", "description"), rows)


@models.command("show")
def models_show(name: Annotated[str, typer.Argument(help="Packaged model or run folder.")]) -> None:
    """The whole card of a model as JSON.

    Example: `retina-seg models show vessels-drive`
    """
    from retina_seg import zoo

    console.print_json(zoo.card(name).model_dump_json())


@models.command("verify")
def models_verify() -> None:
    """Load every packaged model and compare its weights with the hash on its card.

    Example: `retina-seg models verify`
    """
    from retina_seg import zoo

    problems = zoo.verify()
    for name, problem in problems.items():
        console.print(f"{name}: {problem or 'sound'}", highlight=False, soft_wrap=True)
    if not problems:
        raise UserError("no model is packaged with this installation: reinstall retina-seg")
    raise typer.Exit(2 if any(problems.values()) else 0)


def _tell(outcome: "Outcome") -> None:
    """The error or the warnings of one photograph, as soon as they are known."""
    for line in [outcome.error] if outcome.error else outcome.warnings:
        kind = "[bold red]error[/]" if outcome.error else "[yellow]warning[/]"
        name = "" if str(outcome.source) in line else f"{_plain(outcome.source)}: "
        errors.print(f"{kind}: {name}{_plain(line)}", soft_wrap=True, highlight=False)


def _summary(summary: Any) -> tuple[str, ...]:
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


@contextmanager
def _silence() -> Iterator[None]:
    yield


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[..., None]]:
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
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total, text="")

        def advance(done: int | None = None, text: str = "", *, total: int | None = None) -> None:
            bar.update(task, total=total)
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done)
            bar.update(task, text=text)

        yield advance


def _table(columns: tuple[str, ...], rows: Any, title: str | None = None) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(_plain, row))
    console.print(table)


def _files(paths: Any) -> None:
    for path in paths:
        console.print(f"wrote {_plain(path)}", highlight=False, soft_wrap=True)


def _plain(value: object) -> str:
    """Text in which rich finds no markup."""
    return str(value).replace("[", r"\[")


if __name__ == "__main__":
    main()
