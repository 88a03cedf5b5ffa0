"""Comparisons of classifiers run anew by one command, kept as JSON, shown as tables; what is compared is in studies.

No formulas; pictures are drawn by figures.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from retina_seg import checkpoint, evaluate, figures, files, io, markdown, phantom, report, results, scoring, zoo
from retina_seg.classify import evaluation, inference, painting, tasks, training
from retina_seg.classify.inference import Classifier, card_of
from retina_seg.classify.studies import STUDIES, Arm, Study
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter
from retina_seg.scores import Report

INTRODUCTION = "introduction.md"
_BEGINNING = (
    "# Classification: results\n\nWritten by `retina-seg results`: introduction.md, then the tables of the records."
)
_SHOWN = re.compile(r"!\[[^\]]*\]\(([^/)]+)/[^)]*\.png\)")
_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "quadratic_kappa": "quadratic kappa",
    "macro_auc": "AUC, macro",
    "ece": "calibration error",
    "r2": "R²",
    "rmse": "RMSE",
    "auc": "AUC",
    "dice": "Dice",
}
_PAINTED = "drive"
_EYE = 3  # the drawn photograph that shows what is painted


def run(
    name: str,
    data_root: str | Path,
    folder: Path,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Run what of a study is not recorded yet, and write its record after every training; returns the record's path.

    Raises UserError for an unknown study.
    """
    if name not in STUDIES:
        raise UserError(f"unknown study {name!r}: choose one of {', '.join(STUDIES)}")
    study = STUDIES[name]()
    path = io.make_folder(folder) / f"{name}.json"
    rows = _read(path)["rows"] if path.is_file() else []
    picture = folder / f"{name}.png"
    files.check_replaceable([picture], own=results.is_drawn)
    if study.painted and not picture.is_file():
        rows = []  # what is painted is in no record
    planned = study.runs()
    wanted = [json.loads(json.dumps(_identity(arm, seed, fold))) for arm, seed, fold in planned]
    rows = [row for row in rows if row["identity"] in wanted]
    shown: dict[str, NDArray[np.float32]] = {}
    looked: dict[str, training.Looked] = {}
    for done, ((arm, seed, fold), identity) in enumerate(zip(planned, wanted, strict=True)):
        if progress:
            progress(done, len(planned))
        if any(row["identity"] == identity for row in rows):
            continue
        if arm.svm is not None:
            found = _svm(arm, seed, fold, data_root)
        elif arm.segmenter:
            found, shown[arm.name] = _segmented(arm, data_root, device)
        elif study.painted:
            found, shown[arm.name] = _painted(arm, (seed, fold), data_root, device)
        else:
            found = _train(
                study, arm, (seed, fold), data_root, device, looked.setdefault(_body(arm), training.Looked())
            )
        rows.append({"arm": arm.name, "seed": seed, "fold": fold, **found, "identity": identity})
        rows.sort(key=lambda row: wanted.index(row["identity"]))
        io.write_json(path, {"study": name, "rows": rows})
    if len(shown) == len(study.arms):
        drawing = phantom.draw(_EYE)
        figure = figures.probabilities(drawing.image, {"truth": drawing.vessels.astype(np.float32), **shown})
        io.write_bytes(picture, report.png(figure))
    if progress:
        progress(len(planned), len(planned))
    return path


def _identity(arm: Arm, seed: int, fold: int) -> dict[str, Any]:
    """What decides about the result of a training."""
    if arm.segmenter:
        return {"arm": arm.name, "segmenter": arm.segmenter, "weights": zoo.card(arm.segmenter).weights_sha256}
    return {"arm": arm.name, "svm": arm.svm, "config": arm.config(seed, fold).model_dump(mode="json")}


def _body(arm: Arm) -> str:
    """What decides what a frozen body makes of an example: trainings that agree in it look but once."""
    data = {name: value for name, value in arm.data.items() if name != "share"}
    return json.dumps([data, arm.model, arm.arguments, arm.preprocess, arm.training.get("start")], sort_keys=True)


def _train(
    study: Study, arm: Arm, which: tuple[int, int], data_root: str | Path, device: str, looked: training.Looked
) -> dict[str, Any]:
    """Train and score an arm with one (seed, fold); examples are counted without those of the model it starts from.

    `looked` : what its body, if it is frozen, is known to make of examples; gets what it makes of others.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        training.fit(arm.config(*which), folder, data_root, device=device, looked=looked)
        seconds = time.perf_counter() - started
        images = inference.seen_by(zoo.card(study.without_seen_by)) if study.without_seen_by else ()
        scored = evaluation.evaluate(folder, data_root, device=device, leave_out=images)
        log = checkpoint.read_log(folder) if study.curve else []
        card = card_of(folder)
    found = {name: scored.clean.get(name, head).scores for name, head in scored.heads.items()}
    own = scored.per_example[0]["key"].partition(":")[0]
    return {
        "parameters": card.parameters,
        "seconds": round(seconds, 1),
        "examples": sum(key.partition(":")[0] == own for key in card.training["images"]),
        "scores": {name: {key: round(value, 5) for key, value in one.items()} for name, one in found.items()},
        "joint": None if len(found) == 1 else round(scored.clean_joint if scored.clean else scored.joint, 5),
        "left_out": scored.provenance["left_out"] + len(scored.leaked),
        "log": [{key: round(value, 5) for key, value in entry.items()} for entry in log],
    }


def _painted(
    arm: Arm, which: tuple[int, int], data_root: str | Path, device: str
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Train a patch classifier and score what it paints of DRIVE; also what it paints of the drawn eye."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        training.fit(arm.config(*which), folder, data_root, device=device)
        scored, seconds = painting.score(folder, _PAINTED, data_root, device=device)
        classifier = Classifier.from_pretrained(folder, device)
    drawing = phantom.draw(_EYE)
    images = classifier.card.training["images"]
    found = _as_segmenter(classifier.card.parameters, seconds, len(images), scored)
    return found, painting.paint(classifier, drawing.image, drawing.fov)


def _segmented(arm: Arm, data_root: str | Path, device: str) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The same of a packaged model that segments."""
    segmenter = Segmenter.from_pretrained(arm.segmenter, device)
    drawing = phantom.draw(_EYE)
    painted = segmenter.predict(drawing.image, drawing.fov, judge=False).prob[0]
    candidate, seconds = scoring.timed(scoring.candidate(segmenter))
    scored = evaluate.evaluate(candidate, _PAINTED, data_root)["vessels"]
    images = segmenter.card.training["images"]
    return _as_segmenter(segmenter.card.parameters, float(np.mean(seconds)), len(images), scored), painted


def _as_segmenter(parameters: int, seconds: float, images: int, scored: Report) -> dict[str, Any]:
    return _row(parameters, round(seconds, 2), images, scored.target, {one: scored.fov[one] for one in ("auc", "dice")})


def _row(parameters: int, seconds: float, examples: int, question: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """What is recorded of an arm that answers one question and has no log."""
    return {
        "parameters": parameters,
        "seconds": seconds,
        "examples": examples,
        "scores": {question: {name: round(value, 5) for name, value in scores.items()}},
        "joint": None,
        "left_out": 0,
        "log": [],
    }


def _svm(arm: Arm, seed: int, fold: int, data_root: str | Path) -> dict[str, Any]:
    """scikit-learn's support vector machine, as a baseline that is no network."""
    started = time.perf_counter()
    learning = tasks.load(arm.data["task"], training.wanted(arm.config(seed, fold), data_root))
    learnt = [learning.part(name) for name in arm.data["fit"]]
    x, y = (
        np.stack([part.images[i].ravel() for part in parts for i in range(len(part))])
        for parts in (learnt, [learning.test])
    )
    machine = SVC(**(arm.svm or {})).fit(x, np.concatenate([part.labels[:, 0] for part in learnt]))
    right = machine.predict(y) == learning.test.labels[:, 0]
    parameters = int(machine.support_vectors_.size + machine.dual_coef_.size)
    seconds = round(time.perf_counter() - started, 1)
    return _row(parameters, seconds, len(x), learning.heads[0].name, {"accuracy": float(right.mean())})


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = io.read_json(path)
        for row in found["rows"]:
            if missing := {"arm", "seed", "identity", "scores", "parameters", "examples", "seconds", "log"} - set(row):
                raise KeyError(*missing)
        return {**found, "rows": list(found["rows"])}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no record of a study ({error}): remove it") from None


def write(folder: Path, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Make the page of the recorded studies, in the order of STUDIES, and their pictures; returns the paths.

    `folder` may hold introduction.md, which the page begins with. UserError where a record is damaged, and where a file
    is there that was not made so of these records, but for `overwrite`.
    """
    pages = {folder / f"{name}.png" for name in STUDIES if (folder / f"{name}.json").is_file()}
    files.check_replaceable(pages, overwrite=overwrite, own=results.is_drawn)
    files.check_replaceable([out], overwrite=overwrite, own=lambda path: _is_page_of(folder, path))
    introduction = folder / INTRODUCTION
    parts = [_BEGINNING]
    parts += [io.read_text(introduction).strip()] if introduction.is_file() else []
    parts += [_packaged(name) for name in inference.names()]
    pictures = []
    for name in STUDIES:
        if not (path := folder / f"{name}.json").is_file():
            continue
        record, study = _read(path), STUDIES[name]()
        if not record["rows"]:
            continue
        parts.append(_section(study, record))
        drawn = folder / f"{name}.png"
        if any(row["log"] for row in record["rows"]):
            _draw(record, drawn)
            pictures.append(drawn)
        if drawn in pictures or (study.painted and drawn.is_file()):
            parts.append(f"![{study.title}]({folder.name}/{name}.png)")
    io.write_text(out, "\n\n".join(parts) + "\n")
    return [out, *pictures]


def _is_page_of(folder: Path, page: Path) -> bool:
    """Whether a page was made by `write` of the studies in a folder, whose name is that of its pictures."""
    try:
        text = io.read_text(page)
    except UserError:
        return False
    return text.startswith(_BEGINNING) and set(_SHOWN.findall(text)) <= {folder.name}


def _packaged(name: str) -> str:
    """What the report that comes with a packaged classifier says, with and without what it has seen."""
    scored = evaluation.kept(name)
    lines = [f"## `{name}`", ""]
    if scored is None:
        return "\n".join([*lines, "There is no report of it."])
    unseen = scored.n_examples - len(scored.leaked)
    whole = (f"all {scored.n_examples} test examples", scored.heads, scored.joint, scored.joint_ci95)
    clean = (f"the {unseen} it has not seen", scored.clean, scored.clean_joint, scored.clean_joint_ci95)
    columns = ("quadratic_kappa", "accuracy", "balanced_accuracy", "macro_auc", "ece")
    lines += [f"| | {' | '.join(_TITLES[one] for one in columns)} |", "| --- |" + " ---: |" * len(columns)]
    for title, heads, joint, edges in (whole, clean) if scored.clean else (whole,):
        for question, head in heads.items():
            cells = [f"{head.scores[one]:.3f} ({markdown.interval(head.ci95[one], 3)})" for one in columns]
            lines.append(f"| {question.replace('_', ' ')}, {title} | {' | '.join(cells)} |")
        if len(heads) > 1:
            lines.append(f"| all right, {title} | | {joint:.3f} ({markdown.interval(edges, 3)}) | | | |")
    return "\n".join([*lines, "", "In brackets 95 % intervals over subjects."])


def _draw(record: Mapping[str, Any], path: Path) -> None:
    """How the training loss of every arm fell, by passes over the training examples."""
    curves = {}
    for row in [one for one in record["rows"] if one["seed"] == 0]:
        a_pass = row["examples"] / row["identity"]["config"]["training"]["batch_size"]
        curves[row["arm"]] = ([one["step"] / a_pass for one in row["log"]], [one["loss"] for one in row["log"]])
    figure = figures.compared(curves, "passes over the training digits", "training loss", xscale="log")
    io.write_bytes(path, report.png(figure))


def _section(study: Study, record: Mapping[str, Any]) -> str:
    """Title, what it is, and the table: mean and standard deviation over seeds or folds, the median of seconds."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        arms.setdefault(row["arm"], []).append(row)
    first = record["rows"][0]["scores"]
    shown = [(head, score) for head, scores in first.items() for score in _shown(scores, alone=len(first) == 1)]
    titles = [
        _TITLES[score] if len(first) == 1 else f"{head.replace('_', ' ')}, {_TITLES[score]}" for head, score in shown
    ]
    joint = ["both right"] if len(first) > 1 else []
    lines = [f"## {study.title}", "", study.about, ""]
    learnt, took = ("photographs", "seconds a photograph") if study.painted else ("examples", "seconds")
    lines += [f"| | parameters | {learnt} | {' | '.join([*titles, *joint])} | trainings | {took} |"]
    lines += ["| --- |" + " ---: |" * (len(titles) + len(joint) + 4)]
    for name, rows in arms.items():
        cells = [_spread([row["scores"][head].get(score) for row in rows]) for head, score in shown]
        cells += [_spread([row.get("joint") for row in rows]) for _ in joint]
        seconds = np.median([row["seconds"] for row in rows])  # some were paused
        counts = f"{rows[0]['parameters']:,} | {rows[0]['examples']:,}"
        shown_seconds = f"{seconds:.2g}" if study.painted else f"{seconds:.0f}"
        lines.append(f"| {name} | {counts} | {' | '.join(cells)} | {len(rows)} | {shown_seconds} |")
    return "\n".join(lines)


def _shown(scores: Mapping[str, float], *, alone: bool) -> tuple[str, ...]:
    """The scores of a question that a table has: of one that is asked beside others, too, how far answers are off."""
    if "accuracy" not in scores:
        return ("r2", "rmse") if "r2" in scores else ("auc", "dice")
    return ("accuracy", "quadratic_kappa") if "quadratic_kappa" in scores and not alone else ("accuracy",)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return markdown.mean_sd(known) if known else ""
