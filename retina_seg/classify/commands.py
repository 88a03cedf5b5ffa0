"""The commands `retina-seg classify`: arguments in, tables and files out; nothing is computed here."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina_seg import arguments, markdown, terminal
from retina_seg.arguments import Changes, Device, Overwrite, Resumed, RunFolder
from retina_seg.errors import UserError

if TYPE_CHECKING:
    from retina_seg.classify.evaluation import ClassReport
    from retina_seg.loop import Progress

app = typer.Typer(
    help="Train, score and use classifiers: digits, vessel pixels, grades of retinopathy. Research use only.",
    no_args_is_help=True,
)

DataRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="RETINA_SEG_DATA", help="Folder that holds DRIVE/, IDRiD/, perhaps MNIST/."),
]
STUDIES = Path("runs/studies/records")
Model = Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="Packaged classifier or run folder.")]


@app.command("list")
def list_() -> None:
    """The tasks, networks and packaged classifiers that there are.

    Example: `retina-seg classify list`
    """
    from retina_seg.classify import inference, losses, models, tasks

    rows = ((name, spec.about, ", ".join(spec.columns)) for name, spec in tasks.TASKS.items())
    terminal.table(("task", "what it asks", "columns (--by)"), rows)
    terminal.table(("network", "model.arguments"), ((name, models.arguments_of(name)) for name in models.MODELS))
    terminal.console.print(f"losses: {', '.join(losses.OUTPUTS)}", soft_wrap=True, highlight=False)
    packaged = ", ".join(inference.names()) or "none"
    terminal.console.print(f"packaged classifiers: {packaged}", soft_wrap=True, highlight=False)


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml", help="See configs/classify/.")] = None,
    changes: Changes = None,
    out: RunFolder = None,
    resume: Resumed = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Train a classifier; Ctrl-C saves, --resume goes on and ends in the same weights.

    Examples:

    `retina-seg classify train configs/classify/lenet-5.yaml --out runs/lenet-5`

    `retina-seg classify train --resume runs/lenet-5`
    """
    from retina_seg import checkpoint, loop, report
    from retina_seg.classify import config as settings
    from retina_seg.classify import training

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
    terminal.files([run / checkpoint.WEIGHTS, run / checkpoint.CARD, *report.draw_log(run)])
    log = checkpoint.read_log(run)
    text = f"{card.parameters:,} parameters"
    if log:
        last = next((one for one in log if one["step"] == card.training.get("best_step")), log[-1])
        scores = ", ".join(f"{name} {last[name]:.4f}" for name in last if name.endswith(("accuracy", "rmse")))
        text += f"; {scores} of the validation examples"
    text += terminal.stopped_early(card.training)
    terminal.console.print(text, soft_wrap=True, highlight=False)


@app.command()
def train_folds(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Of a lesion_grader with training.frozen.")],
    changes: Changes = None,
    out: RunFolder = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Train a grader on every fold of its task and join them: their mean, calibrated on what each has not learnt from.

    Finished folds are not trained again; after Ctrl-C the same command goes on.

    Example: `retina-seg classify train-folds configs/classify/dr-grade.yaml --data-root data`
    """
    from retina_seg import checkpoint
    from retina_seg.classify import config as settings
    from retina_seg.classify import joining

    loaded = settings.load_config(config, changes or ())
    run = out or Path("runs") / loaded.name
    with terminal.resumable(), terminal.bar("steps", loaded.training.steps) as advance:

        def told(fold: int, now: "Progress") -> None:
            if now.warning:
                terminal.note(now.warning)
            advance(now.step, f"fold {fold}: {now.describe()}")

        card = joining.fit_folds(
            loaded,
            run,
            data_root,
            device=device,
            progress=told,
        )
    terminal.files([run / checkpoint.WEIGHTS, run / checkpoint.CARD])
    text = f"{card.parameters:,} parameters; temperatures from {card.temperature_source}"
    terminal.console.print(text, highlight=False)


@app.command()
def evaluate(
    model: Model,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    by: Annotated[list[str] | None, typer.Option(help="Column that splits the scores; may be repeated.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Another classifier of the task: their difference, and where subgroups reverse their order."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for confusion, ROC and reliability as pictures.")] = None,
    overwrite: Overwrite = False,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Score a classifier on the test examples of its task, with 95 % intervals.

    Example: `retina-seg classify evaluate dr-grade --data-root data --by dme_risk`
    """
    from retina_seg import files
    from retina_seg.classify import drawing, evaluation, inference, pairs

    if against is not None:
        pairs.check_comparable(*((name, inference.card_of(name).task) for name in (model, against)))
    if json is not None:
        files.prepare(json, overwrite=overwrite)
    if out is not None:
        files.check_writable(files.make_folder(out))
    with terminal.working("answering"):
        scored = evaluation.evaluate(model, data_root, split=split, columns=by or (), device=device)
    if json is not None:  # at once: what follows may fail
        files.write_bytes(json, files.sealed_json(scored.to_json()))
        terminal.files([json])
    show(scored, by or ())
    try:
        kept = evaluation.keep(scored, model)
    except OSError as error:  # somebody else's run: the scores stand all the same
        terminal.note(str(error))
    else:
        terminal.files([kept] if kept else [])
    if out is not None:
        terminal.files(drawing.draw_report(scored, out, overwrite=overwrite))
    if against is not None:
        with terminal.working("answering"):
            other = evaluation.evaluate(against, data_root, split=split, columns=by or (), device=device)
        names = terminal.labels((model, against), (scored.model, other.model))
        show(other, by or (), name=names[1])
        said = [*pairs.differences(scored, other, names=names), *pairs.reversals(scored, other, names=names)]
        for line in said:
            terminal.console.print(terminal.plain(line), soft_wrap=True, highlight=False)
        if json is not None:
            files.write_bytes(json, files.sealed_json(replace(scored, comparison=said).to_json()))


def show(scored: "ClassReport", columns: Sequence[str], *, name: str = "") -> None:
    """The tables of a report and what must be said beside them; `name`: what the classifier is called.

    Subgroups of `columns`, be there but one; where none is named of all columns that split the examples.
    """
    of = f"{scored.n_examples} examples" + (
        f" of {scored.n_subjects} subjects" if scored.n_subjects < scored.n_examples else ""
    )
    leak = ", LEAK: see below" if scored.leaked else ""
    for question, head in scored.heads.items():
        title = f"{name or scored.model}, {question} ({scored.split}, {of}{leak})"
        shown = [head, *([scored.clean[question]] if question in scored.clean else [])]
        header = ("score", "value", "95 % interval", "without leaks", "95 % interval")[: 1 + 2 * len(shown)]
        rows = [
            (one, *(text for own in shown for text in (f"{own.scores[one]:.4f}", markdown.interval(own.ci95[one]))))
            for one in head.scores
        ]
        terminal.table(header, rows, title=title)
        clean = scored.clean.get(question, head)
        of_these = ", without leaks" if scored.clean else ""
        if clean.confusion:
            answers = [(true, *counts) for true, counts in zip(clean.classes, clean.confusion, strict=True)]
            terminal.table((f"truth{of_these}", *(f"answered {one}" for one in clean.classes)), answers)
        for column in columns or clean.subgroups:
            groups = clean.subgroups.get(column, {})
            shares = [(group, int(count), f"{share:.4f}") for group, (count, share) in groups.items()]
            if len(shares) > 1 or columns:
                terminal.table((f"{column}{of_these}", "examples", "right"), shares)
    if len(scored.heads) > 1:
        text = f"all answers right: {scored.joint:.4f} ({markdown.interval(scored.joint_ci95)})"
        if scored.clean:
            text += f", {scored.clean_joint:.4f} ({markdown.interval(scored.clean_joint_ci95)}) without leaks"
        terminal.console.print(text, highlight=False)
    for warning in scored.warnings:
        terminal.note(warning)


@app.command()
def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images or folders of them.")],
    json: Annotated[Path | None, typer.Option(help="Write answers and probabilities here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="The same as a table, a line for each image.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Answer the questions of a classifier about images; not where too much speaks against a photograph.

    Examples:

    `retina-seg classify predict dr-grade eye.jpg`

    `retina-seg classify predict dr-grade clinic/ --csv grades.csv`
    """
    from retina_seg import batch, files, io
    from retina_seg.classify import tasks
    from retina_seg.classify.answers import Answered
    from retina_seg.classify.inference import Classifier

    classifier = Classifier.from_pretrained(model, device)
    spec = tasks.find(classifier.card.task)
    if spec.prepare is None:
        instead = ": paint with it, by `retina-seg classify paint`" if spec.retinal else ""
        raise UserError(f"{model} answers {classifier.card.task}, which no single image can ask{instead}")
    if csv is not None and csv == json:
        raise UserError(f"--csv and --json both name {csv}: give each a file of its own")
    found = batch.survey(inputs)
    for line in found.notes:
        terminal.note(line)
    answered = Answered(classifier)
    images = {str(path) for path, _ in found.planned}
    for wanted, own in ((json, partial(answered.is_own_json, images=images)), (csv, lambda _: False)):
        if wanted is not None:
            files.prepare(wanted, overwrite=overwrite, own=own)
    try:
        for path, _stem in found.planned:
            for line in answered.add(path):
                terminal.console.print(terminal.plain(line), soft_wrap=True, highlight=False)
    finally:  # also of a work that was stopped
        contents = {}
        if json is not None:
            contents[json] = io.sealed_json(answered.as_json())
        if csv is not None:
            contents[csv] = answered.as_csv().encode()
        failed = [error for path, content in contents.items() if (error := _written(path, content))]
    if failed:
        raise UserError("; ".join(failed))
    if spec.retinal:
        terminal.note("research use only: not a medical device, not for diagnosis")
        terminal.note(f"how good it is and what it cannot do: retina-seg models show {model}")
    raise typer.Exit(2 if answered.failed else 0)


def _written(path: Path, content: bytes) -> str:
    """Write a file and say so; or, so that others are written all the same, why it could not be."""
    from retina_seg import files

    try:
        files.write_bytes(path, content)
    except UserError as error:
        return str(error)
    terminal.files([path])
    return ""


@app.command()
def explain(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("explained"),
    unit: Annotated[
        int | None, typer.Option(help="Also the test images' patches that activate this map of a layer most.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Of the unit; default the last with maps.")] = None,
    overwrite: Overwrite = False,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Draw what a classifier looks at: filters, feature maps, class activation maps; of a run, its learning curves too.

    Example: `retina-seg classify explain runs/lenet-5 seven.png --unit 3 --layer body.c3 --out explained`
    """
    from retina_seg.classify import drawing
    from retina_seg.classify.inference import Classifier

    if layer is not None and unit is None:
        raise UserError("--layer says where --unit is looked for: give --unit, too")
    classifier = Classifier.from_pretrained(model, device)
    paths = drawing.draw_explained(classifier, classifier.read(image), out, overwrite=overwrite)
    terminal.files([*paths, *drawing.draw_learning(model, out, overwrite=overwrite)])
    if unit is not None:
        with terminal.working("looking through the test images"):
            path = drawing.draw_activating(classifier, data_root, out, unit, layer, overwrite=overwrite)
        terminal.files([path])


@app.command()
def paint(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for masks, probabilities and the report.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE...]", help="Photographs or folders; default: those of --protocol."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="Vessel protocol to score by, without images.")] = "drive",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of named images; default: that of highest Dice on DRIVE's validation images."),
    ] = None,
    overwrite: Overwrite = False,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Segment vessels with a patch classifier slid over every pixel; or, without images, score those of a protocol.

    Examples:

    `retina-seg classify paint runs/patch-cnn eye.jpg --out painted --data-root data`

    `retina-seg classify paint runs/patch-cnn --out painted --data-root data`
    """
    from retina_seg import batch, files
    from retina_seg.classify import painting

    if images:
        survey = batch.survey(images)
        for line in survey.notes:
            terminal.note(line)
        painter = painting.PatchSegmenter.from_pretrained(model, data_root, threshold=threshold, device=device)
        with terminal.bar("photographs", len(survey.planned)) as advance:

            def done(outcome: batch.Outcome) -> None:
                terminal.tell(outcome)
                advance()

            outcomes = batch.predict_files(painter, survey.planned, out, overwrite=overwrite, on_done=done)
        terminal.files([file for outcome in outcomes for file in outcome.files])
        raise typer.Exit(2 if any(outcome.error for outcome in outcomes) else 0)
    if threshold is not None:
        raise UserError("--threshold is of images that are named: the masks of a protocol have their own")
    report_path = out / f"{protocol}.json"
    files.check_replaceable([report_path], overwrite=overwrite)
    with terminal.counting("photographs") as advance:
        scored, seconds = painting.score(
            model,
            protocol,
            data_root,
            save_to=out,
            overwrite=overwrite,
            device=device,
            progress=advance,
        )
    terminal.report(scored)
    terminal.console.print(f"{seconds:.1f} seconds a photograph", highlight=False)
    files.write_bytes(report_path, files.sealed_json(scored.to_json()))
    terminal.files([report_path])


def write_studies(folder: Path, *, overwrite: bool = False) -> list[Path]:
    """The page of all studies recorded in a folder, RESULTS.md beside it; nothing is trained."""
    from retina_seg.classify import comparisons

    return comparisons.write(folder, folder.parent / "RESULTS.md", overwrite=overwrite)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="An unknown name lists all.")],
    folder: Annotated[Path, typer.Option("--results", help="Folder for the records.")] = STUDIES,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Run one of the comparisons of RESULTS.md anew: what it trains, how often and on what is in `studies`.

    What is recorded already is not run again; `retina-seg results` makes the tables.

    Example: `retina-seg classify study lecun`
    """
    from retina_seg.classify import comparisons

    with terminal.resumable(), terminal.counting("trainings") as advance:
        path = comparisons.run(name, data_root, folder, device=device, progress=advance)
    terminal.files([path])
