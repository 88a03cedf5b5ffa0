"""The command line `retina-seg`: arguments in, tables and files out.

Every command calls the library and shows what it returns; nothing is computed here.
"""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina_seg import arguments, terminal
from retina_seg._version import __version__
from retina_seg.arguments import Changes, Device, Overwrite, Resumed, RunFolder
from retina_seg.classify import commands as classify
from retina_seg.errors import UserError

if TYPE_CHECKING:
    from retina_seg.scores import Report

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
app.add_typer(classify.app, name="classify")

RECORDS, ROBUSTNESS = Path("runs/benchmark/records"), Path("runs/benchmark/robustness")
DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="RETINA_SEG_DATA",
        help="Folder that holds DRIVE/, STARE/, CHASE_DB1/, IDRiD/.",
    ),
]
Flips = Annotated[
    bool | None,
    typer.Option("--flips/--no-flips", help="Average four flips; default: as the model's card says."),
]


def main() -> None:
    """Run the command line; errors a user can mend become one line and exit code 2."""
    from retina_seg.errors import Interrupted

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal cannot show must not end the work
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        terminal.errors.print(f"[bold red]error:[/] {terminal.plain(error)}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:
        terminal.errors.print(f"[bold red]error:[/] {terminal.plain(error)}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except Interrupted as stop:
        terminal.errors.print(terminal.plain(stop), soft_wrap=True, highlight=False)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        terminal.console.print(f"retina-seg {__version__}", highlight=False)
        raise typer.Exit()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"), overwrite: Overwrite = False
) -> None:
    """Segment a drawn photograph with the packaged weights and score it against its exact truth.

    Example: `retina-seg demo --out demo`
    """
    from retina_seg import demonstration

    with terminal.working("drawing and segmenting"):
        result = demonstration.run(out, overwrite=overwrite)
    terminal.table(("metric", "value", "meaning"), result.rows, title=result.title)
    terminal.files(result.files)


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Photographs or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="Packaged model or run folder.")] = "vessels",
    save: Annotated[str, typer.Option(help="Any of mask,prob,overlay,nifti.")] = "mask,prob,overlay",
    overwrite: Overwrite = False,
    device: Device = "auto",
    flips: Flips = None,
) -> None:
    """Segment photographs of any size: mask, probability, overlay and JSON for each.

    Models of several targets write a mask for each of them, and models of lesions lesions.csv, a table of their
    number and area, in pixels and in areas of the optic disc.

    Results of the same photograph are replaced, as long as nobody has changed them; any other file stays.

    Examples:

    `retina-seg predict eye.jpg --out masks`

    `retina-seg predict clinic/ more/*.tif --out masks --save mask,nifti`
    """
    from retina_seg import batch
    from retina_seg.inference import Segmenter, saved

    what = saved(save)
    found = batch.survey(inputs)
    for line in found.notes:
        terminal.note(line)
    segmenter = Segmenter.from_pretrained(model, device, flips=flips)
    with terminal.bar("photographs", len(found.planned)) as advance:

        def done(outcome: batch.Outcome) -> None:
            terminal.tell(outcome)
            advance()

        outcomes = batch.predict_files(segmenter, found.planned, out, what=what, overwrite=overwrite, on_done=done)
    failed = sum(bool(outcome.error) for outcome in outcomes)
    where = "" if failed == len(outcomes) else f", results in {terminal.plain(out)}"
    count = f"{len(outcomes) - failed} of {len(outcomes)}"
    terminal.console.print(f"{count} photographs segmented{where}", soft_wrap=True, highlight=False)
    raise typer.Exit(2 if failed else 0)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="Packaged model or run folder.")],
    photograph: Annotated[Path, typer.Argument(metavar="PHOTOGRAPH")],
    pixel: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="ROW COLUMN",
            help="Also draw which atoms voted at this pixel, counted from 0: parts of the result, of csc_unet parts of "
            "the rebuilt pixel.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("explained"),
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Draw the dictionary of a model, its codes of a photograph and what they rebuild.

    For models of csc_unet, dict_unet and patch_dictionary.

    Example: `retina-seg explain vessels-csc eye.jpg --pixel 240 310 --out explained`
    """
    from retina_seg import io, report
    from retina_seg.inference import Segmenter

    segmenter = Segmenter.from_pretrained(model, device)
    terminal.files(report.draw_dictionary(segmenter, io.read_image(photograph), out, pixel, overwrite=overwrite))


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml", help="See configs/.")] = None,
    changes: Changes = None,
    out: RunFolder = None,
    resume: Resumed = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Train a network; Ctrl-C saves, --resume goes on and ends in the same weights.

    Examples:

    `retina-seg train configs/vessels-drive.yaml --set training.steps=500 --out runs/short --data-root data`

    `retina-seg train --resume runs/short --data-root data`
    """
    from retina_seg import checkpoint, loop, report
    from retina_seg import config as settings
    from retina_seg import train as training

    run, card = arguments.train(
        settings.load_config,
        training.fit,
        config=config,
        changes=changes,
        out=out,
        resume=resume,
        data_root=data_root,
        device=device,
    )
    if not loop.is_main_process():
        return
    terminal.files([run / checkpoint.WEIGHTS, run / checkpoint.CARD, *report.draw_run(run, data_root)])
    thresholds = ", ".join(f"{target} {value}" for target, value in card.thresholds.items())
    text = f"{card.parameters:,} parameters; threshold of {thresholds}, {card.threshold_source}"
    text += terminal.stopped_early(card.training)
    terminal.console.print(text, soft_wrap=True, highlight=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="Packaged model or run folder.")],
    protocol: Annotated[str, typer.Option(help="For example drive; an unknown name lists all.")],
    data_root: DataRoot = Path("data"),
    json: Annotated[
        Path | None, typer.Option(help="Write the whole report here; of several targets, each with its name added.")
    ] = None,
    save_predictions: Annotated[Path | None, typer.Option(help="Folder for masks and probabilities.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the manifest that splits the scores, or quality; may be repeated."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Another model: the difference, and which columns of --by turn the order of the two round."),
    ] = None,
    device: Device = "auto",
    flips: Flips = None,
    postprocess: Annotated[
        bool, typer.Option("--postprocess/--no-postprocess", help="Remove small isolated pieces before scoring.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score a model on a published protocol, inside the field of view, with 95 % intervals.

    Every target of the protocol that the model finds has a report; those of a run are kept in its folder:
    reports/PROTOCOL.json, or PROTOCOL-TARGET.json where the protocol has several targets.

    Examples:

    `retina-seg evaluate vessels-drive --protocol drive --data-root data --json drive.json`

    `retina-seg evaluate vessels-drive --protocol cross-chase --data-root data --against vessels-stare --by eye`
    """
    from retina_seg import files, protocols, scoring

    if json is not None:
        files.prepare(json, overwrite=overwrite)
        targets = protocols.find(protocol).targets
        several = [json.with_stem(f"{json.stem}-{target}") for target in targets if len(targets) > 1]
        files.check_replaceable(several, overwrite=overwrite)

    def score(name: str, save_to: Path | None) -> "dict[str, Report]":
        with terminal.counting("photographs") as advance:
            return scoring.score(
                name,
                protocol,
                data_root,
                device=device,
                flips=flips,
                clean=postprocess,
                save_to=save_to,
                overwrite=overwrite,
                progress=advance,
            )

    def show(report: "Report") -> None:
        terminal.report(report)
        for column, groups in columns.items():
            rows = ((one.name, one.count, f"{one.mean:.4f}") for one in scoring.by_subgroup(report, groups))
            terminal.table((column, "photographs", "mean Dice"), rows)

    columns = scoring.groups_of(protocol, by or (), data_root)
    if against is not None:
        scoring.check_comparable(model, against, protocol)
    reports = score(model, save_predictions)
    for target, report in reports.items():
        if json is not None:
            path = json if len(reports) == 1 else json.with_stem(f"{json.stem}-{target}")
            files.write_bytes(path, files.sealed_json(report.to_json()))
            terminal.files([path])
        try:
            kept = scoring.keep(report, model)
        except UserError as error:  # somebody else's run: the scores stand all the same
            terminal.note(str(error))
        else:
            terminal.files([kept] if kept else [])
        show(report)
    if against is None:
        return
    for target, other in score(against, None).items():
        if target in reports:
            report = reports[target]
            names = terminal.labels((model, against), (report.model, other.model))
            show(other)
            terminal.comparison(report, other, names)
            for line in scoring.reversals(report, other, columns, names=names):
                terminal.note(line)


@app.command()
def benchmark(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG.yaml...", help="See configs/.")],
    protocol: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default drive; an unknown name lists all.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="With commas between them.")] = "0,1,2",
    split: Annotated[str, typer.Option(help="test, or val for choices that must not see test images.")] = "test",
    photographs: Annotated[
        str, typer.Option(help="Numbers of training images with commas between them, such as 1,5,all; default all.")
    ] = "",
    variants: Annotated[
        bool, typer.Option(help="Score flips and post-processing each with and without, or only as configured.")
    ] = True,
    joined: Annotated[
        bool, typer.Option("--ensemble", help="Also score all seeds together, their probabilities averaged.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run folders.")] = Path("runs/benchmark"),
    folder: Annotated[
        Path | None, typer.Option("--results", help="Folder for the records; default OUT/records.")
    ] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Train and score configurations over protocols and seeds, which take the place of those in the files.

    A file that names several protocols is a joint training: it learns from all of them and is scored by any of them.
    Finished runs and records are not made again; after Ctrl-C the same command goes on. `retina-seg results` makes
    the tables.

    Example: `retina-seg benchmark configs/folded-unet-long.yaml --protocol drive --protocol cross --data-root data`
    """
    from retina_seg import benchmark as comparison
    from retina_seg.config import load_config

    loaded = [load_config(path) for path in configs]
    numbers = comparison.photographs_of(photographs) if photographs else ()
    cells = comparison.plan(loaded, protocol or ["drive"], comparison.seeds_of(seeds), split=split, photographs=numbers)
    with terminal.resumable(), terminal.bar("cells", len(cells)) as advance:
        comparison.run(
            cells,
            data_root,
            out=out,
            folder=folder,
            device=device,
            variants=variants,
            joined=joined,
            progress=advance,
            on_record=terminal.record_line,
            on_warning=terminal.note,
        )


@app.command()
def robustness(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Packaged models or run folders.")],
    protocol: Annotated[str, typer.Option(help="Whose test images are made worse.")] = "drive",
    degradation: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default all; an unknown name lists them.")
    ] = None,
    coder_steps: Annotated[int | None, typer.Option(help="Iterations of the sparse codes of a hybrid.")] = None,
    penalty_factor: Annotated[float, typer.Option(help="Multiplies the penalties of the codes of a hybrid.")] = 1.0,
    folder: Annotated[Path, typer.Option("--results", help="Folder of the records.")] = ROBUSTNESS,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Score models on test images made worse: blur, noise, JPEG, light, colour, size.

    What is recorded already is not scored again; `retina-seg results` makes the tables.

    Example: `retina-seg robustness vessels vessels-small --degradation "noise 10" --data-root data`
    """
    from retina_seg import degradations
    from retina_seg import robustness as worse

    names = degradation or list(degradations.DEGRADATIONS)
    scored: dict[tuple[str, str], dict[str, float]] = {}
    for model in models:
        with terminal.counting(f"{model}: photographs") as advance:
            lines = worse.score(
                model,
                protocol,
                data_root,
                degradations=names,
                steps=coder_steps,
                penalty_factor=penalty_factor,
                known=degradations.read_all(folder),
                device=device,
                progress=advance,
                on_lines=lambda found: degradations.remember(folder, found),
            )
        if leaked := max(line.leaked for line in lines):
            terminal.note(f"LEAK: {model} has seen {leaked} of the {lines[0].n_images} images it is scored on")
        terminal.files(sorted({folder / line.file_name for line in lines}))
        for line in lines:
            scored.setdefault((line.degradation, line.target), {})[model] = line.dice
    rows = [
        (*what, *(f"{found[model]:.4f}" if model in found else "" for model in models))
        for what, found in scored.items()
    ]
    terminal.table(("degradation", "target", *models), rows, title=f"Dice by {protocol}, photographs made worse")


@app.command()
def ensemble(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders or packaged models.")],
    out: Annotated[Path, typer.Option(help="Folder of the joined model; its name is the model's.")],
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Join trainings that differ in their seed only into one model, the mean of their probabilities.

    Its threshold is chosen on the images that chose theirs.

    Example: `retina-seg ensemble runs/seed0 runs/seed1 runs/seed2 --out runs/three --data-root data`
    """
    from retina_seg import checkpoint
    from retina_seg.ensemble import join

    with terminal.working("choosing the threshold"):
        join(runs, out, data_root, device=device)
    terminal.files([out / checkpoint.WEIGHTS, out / checkpoint.CARD])


@app.command()
def results(
    folder: Annotated[Path, typer.Option("--results", help="Folder of the records.")] = RECORDS,
    out: Annotated[
        Path | None, typer.Option(help="The page of all tables; default RESULTS.md beside the records.")
    ] = None,
    reference: Annotated[str, typer.Option(help="Configuration to compare with; default the best.")] = "",
    worse: Annotated[
        Path | None, typer.Option("--robustness", help="Folder of what `robustness` recorded; default theirs.")
    ] = None,
    studies: Annotated[
        Path | None,
        typer.Option(help="Folder of what `classify study` recorded, whose page comes beside it; default theirs."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make the tables of a benchmark from its records, as Markdown, CSV and JSON; nothing is scored again.

    Those of `retina-seg robustness` too and, with `--studies` or beside the default folder, of `retina-seg classify
    study`. Pages and tables of other records stay as they are.

    Examples:

    `retina-seg results`

    `retina-seg results --results configs/results --robustness configs/robustness --out RESULTS.md`
    """
    from retina_seg import files, report
    from retina_seg import results as tables

    for option, asked in (("--robustness", worse), ("--studies", studies)):
        if asked is not None and not asked.is_dir():
            raise UserError(f"{option} {asked}: there is no such folder")
    theirs = classify.STUDIES if folder == RECORDS and classify.STUDIES.is_dir() else None
    if studies or not theirs or any(folder.glob("*/*.json")):
        files.check_replaceable([folder / "optimisers.png"], overwrite=overwrite, own=tables.is_drawn)
        made = tables.write(folder, out, worse=worse or ROBUSTNESS, reference=reference, overwrite=overwrite)
        terminal.files([*made, *report.draw_optimisers(folder)])
    if found := studies or theirs:
        terminal.files(classify.write_studies(found, overwrite=overwrite))


@app.command("app")
def viewer(
    port: Annotated[int, typer.Option(help="Of http://127.0.0.1.")] = 8501,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", envvar="RETINA_SEG_DATA", help="Public sets to show in the gallery."),
    ] = None,
    run: Annotated[list[Path] | None, typer.Option(help="Run folder to offer as a model; may be repeated.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Start the viewer: drop photographs on a page of this computer, see and judge the results.

    Example: `retina-seg app --data-root data --run runs/vessels-drive`
    """
    from retina_seg.viewer import launch

    launch.start(port, data_root=data_root, runs=run or (), browser=browser)


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
    terminal.table(columns, (terminal.summary_line(summary) for summary in datasets.summary(data_root)))


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
    with terminal.bar("photographs", None) as advance:
        findings = audit.check(names, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    colours = {"error": "bold red", "warning": "yellow", "info": "cyan"}
    for finding in findings:
        head = f"[{colours[finding.severity]}]{finding.severity}[/] {finding.kind}"
        terminal.console.print(f"{head}: {terminal.plain(finding.message)}", soft_wrap=True, highlight=False)
    count = {severity: sum(f.severity == severity for f in findings) for severity in colours}
    summary = ", ".join(f"{number} {severity}" for severity, number in count.items())
    terminal.console.print(f"checked {', '.join(names)}: {summary}", highlight=False)
    raise typer.Exit(2 if count["error"] else 0)


@data.command("scan")
def data_scan(
    dataset: Annotated[str, typer.Argument(metavar="SET", help="Name of a set.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="CSV to write; default SET.csv here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the manifest of a whole copy of a set: paths, sizes, hashes, subjects, splits.

    Example: `retina-seg data scan drive --data-root data --out drive.csv`
    """
    from retina_seg import audit, files, manifest

    path = out or Path(f"{dataset}.csv")
    files.prepare(path, overwrite=overwrite, own=lambda _: False)  # splits may have been edited there
    with terminal.bar("photographs", None) as advance:
        rows = audit.scan(dataset, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    manifest.write(rows, path)
    terminal.files([path])


@data.command("fetch")
def data_fetch(
    dataset: Annotated[str, typer.Argument(metavar="SET", help="Name of a set.")],
    data_root: DataRoot = Path("data"),
) -> None:
    """Download a set where its owners allow that, else say where to register.

    Example: `retina-seg data fetch stare --data-root data`
    """
    from retina_seg import download

    with terminal.bar("bytes", None) as advance:
        fetched = download.fetch(dataset, data_root, progress=lambda done, all_, text: advance(done, text, total=all_))
    for line in fetched.message.splitlines():
        terminal.console.print(terminal.plain(line), soft_wrap=True, highlight=False)


@models.command("list")
def models_list() -> None:
    """The packaged models: what they find, how large they are, what they score.

    Example: `retina-seg models list`
    """
    from retina_seg import zoo
    from retina_seg.classify import inference

    rows = [
        (name, ", ".join(card.targets), f"{card.parameters:,}", card.headline(), card.description)
        for name, card in ((name, zoo.card(name)) for name in zoo.names())
    ]
    terminal.table(("model", "finds", "parameters", "scores", "description"), rows)
    graders = ((name, inference.card_of(name)) for name in inference.names())
    answers = [(name, ", ".join(card.heads), f"{card.parameters:,}", card.description) for name, card in graders]
    terminal.table(("classifier", "answers", "parameters", "description"), answers)


@models.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Packaged model or run folder.")],
    whole: Annotated[bool, typer.Option("--all", help="Long lists, as of images, to their end.")] = False,
) -> None:
    """The card of a model or classifier as JSON.

    Example: `retina-seg models show vessels-drive`
    """
    import json

    from retina_seg import zoo
    from retina_seg.classify import inference

    card = inference.card_of(name) if inference.is_classifier(name) else zoo.card(name)
    shown = json.loads(card.model_dump_json())
    terminal.console.print_json(data=terminal.unmasked(shown if whole else terminal.shortened(shown)))


@models.command("verify")
def models_verify() -> None:
    """Load every packaged model and compare its weights with the hash on its card.

    Example: `retina-seg models verify`
    """
    from retina_seg import zoo
    from retina_seg.classify import inference

    problems = zoo.verify()
    classifiers = inference.verify()
    for name, problem in (*problems.items(), *classifiers.items()):
        terminal.console.print(f"{name}: {problem or 'sound'}", highlight=False, soft_wrap=True)
    if not problems:
        raise UserError("no model is packaged with this installation: reinstall retina-seg")
    raise typer.Exit(2 if any((*problems.values(), *classifiers.values())) else 0)


if __name__ == "__main__":
    main()
