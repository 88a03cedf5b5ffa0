"""Comparisons of classifiers: what is trained how often, run anew by one command, kept as JSON, shown as tables.

No formulas and no drawing.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.svm import SVC

from retina_seg import checkpoint, figures, io, markdown, report, zoo
from retina_seg.classify import evaluation, inference, tasks, training
from retina_seg.classify.config import ClassifyConfig
from retina_seg.classify.inference import card_of
from retina_seg.errors import UserError

INTRODUCTION = "introduction.md"
_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "quadratic_kappa": "quadratic kappa",
    "macro_auc": "AUC, macro",
    "ece": "calibration error",
    "r2": "R²",
    "rmse": "RMSE",
}
_SHORT = {"steps": 400, "batch_size": 32, "validate_every": 400, "ema": 0.98}
_SVM: dict[str, dict[str, Any]] = {
    "kernel SVM, quadratic": {"kernel": "poly", "degree": 2},
    "kernel SVM, Gaussian": {"kernel": "rbf"},
}


@dataclass(frozen=True)
class Arm:
    """One row of a study: a name and what is trained, or for `svm` the arguments of scikit-learn's classifier."""

    name: str
    data: Mapping[str, Any]
    model: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    svm: Mapping[str, Any] | None = None

    def config(self, seed: int, fold: int) -> ClassifyConfig:
        """As a training."""
        return ClassifyConfig.model_validate(
            {
                "name": "arm",
                "seed": seed,
                "data": {**self.data, **({"fold": fold} if fold else {})},
                "preprocess": dict(self.preprocess),
                "model": {"name": self.model or "linear", "arguments": dict(self.arguments)},
                "training": {**_SHORT, **self.training},
            }
        )


@dataclass(frozen=True)
class Study:
    """Arms that are trained alike but for what is compared.

    Attributes
    ----------
    title, about : what is compared, and what it shows, for the page of results.
    arms : the rows of the table.
    seeds : how often each is trained.
    folds : the folds of the task, each with seed 0, in the place of seeds.
    curve : also keep how loss and score went, for a picture.
    without_seen_by : packaged model; no arm is scored on what it has seen.
    """

    title: str
    about: str
    arms: tuple[Arm, ...]
    seeds: int = 3
    folds: int = 0
    curve: bool = False
    without_seen_by: str = ""

    def runs(self) -> list[tuple[Arm, int, int]]:
        """(arm, seed, fold or 0) of every training."""
        if self.folds:
            return [(arm, 0, fold) for arm in self.arms for fold in range(1, self.folds + 1)]
        return [(arm, seed, 0) for arm in self.arms for seed in range(self.seeds)]


def _flowers() -> Study:
    flowers, few = {"task": "iris"}, {"steps": 500, "batch_size": 90, "learning_rate": 0.05}
    svm = {"task": "iris", "fit": ["train"]}
    return Study(
        "Linear models on flowers",
        "Fisher's irises, the species from four measures: 90 flowers to learn from, 30 to be scored on, drawn ten "
        "times. Least squares lose the species in the middle of the three (masking, Hastie 2009, section 4.2), and the "
        "features of the quadratic kernel lack the measures themselves; the others are alike, one flower being .033.",
        (
            Arm("linear, least squares", flowers, "linear", training={**few, "loss": "least_squares"}),
            Arm("linear, logistic", flowers, "linear", training=few),
            Arm("quadratic features, logistic", flowers, "polynomial", training=few),
            *(Arm(name, svm, svm=given) for name, given in _SVM.items()),
            Arm("MLP, 16 hidden", flowers, "mlp", {"hidden": [16]}, few),
        ),
        seeds=10,
    )


def _petals() -> Study:
    data = {"task": "petals"}
    few = {"steps": 500, "batch_size": 90, "learning_rate": 0.05, "loss": "least_squares", "weight_decay": 0}
    return Study(
        "A regression on flowers",
        "The width of a petal from its length, least squares, 90 flowers to learn from and 30 to be scored on, drawn "
        "ten times; errors in centimetres. The feature of the quadratic kernel is the square of the length alone, and "
        "bends where the flowers do not; the MLP may bend and finds the line.",
        (
            Arm("a line", data, "linear", training=few),
            Arm("quadratic feature", data, "polynomial", training=few),
            Arm("MLP, 16 hidden", data, "mlp", {"hidden": [16]}, {**few, "learning_rate": 0.01}),
        ),
        seeds=10,
    )


def _lecun() -> Study:
    names = ("single_layer", "two_layers", "locally_connected", "constrained", "constrained_2")
    alike = {"steps": 1000, "learning_rate": 1e-2, "batch_size": 64}
    ways: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("", alike),
        (", turned and moved", {**alike, "augment": "written"}),
    )
    return Study(
        "LeCun 1989: what constraints buy",
        "The five networks of Generalization and network design strategies, 320 digits of 16 x 16 to learn from and "
        "160 to be scored on, ten draws of them; AdamW in the place of 1989's gradient descent. Links (2570, 3240, "
        "1226, 2266, 5194) and weights are as many as published; accuracies of 1989 were .80, .87, .885, .94, .984. "
        "As scikit-learn's digits lie, straight in their frame, a single layer does as well as constrained 2, and "
        "those between are not better. Where training digits are turned and moved, all else alike, the means stand in "
        "the published order but for the first two; with ten draws only the last step, to constrained 2, is more than "
        "chance (paired difference .0125, standard error .0045).",
        tuple(
            Arm(one.replace("_", " ") + text, {"task": "digits-320", "size": 16}, f"lecun_{one}", training=given)
            for text, given in ways
            for one in names
        ),
        seeds=10,
    )


def _networks() -> Study:
    both = {"fit": ["train", "val"]}
    small, large = {"task": "digits", "size": 8, **both}, {"task": "digits", "size": 28, **both}
    turned = {"augment": "written"}
    quick = {"steps": 1000, "learning_rate": 1e-2}
    longer = {"steps": 800, "batch_size": 64, "learning_rate": 3e-3}
    arms = [
        Arm("linear, least squares", small, "linear", training={**quick, "loss": "least_squares"}),
        Arm("linear, logistic", small, "linear", training=quick),
        Arm("quadratic features, logistic", small, "polynomial", training=quick),
        *(Arm(name, small, svm=given) for name, given in _SVM.items()),
        Arm("MLP, 128 hidden", small, "mlp", training=quick),
        Arm("MLP, 256 and 128 hidden", large, "mlp", {"hidden": [256, 128]}, longer),
        Arm("LeNet-5", large, "lenet_5", training=longer),
        Arm("LeNet-5, digits turned and moved", large, "lenet_5", training={**longer, **turned}),
        Arm(
            "small CNN, digits turned and moved",
            large,
            "small_cnn",
            {"features": [16, 32, 64]},
            {**longer, **turned, "steps": 600},
        ),
        Arm("recurrent, row by row", large, "row_rnn", training=longer),
        Arm("transformer", large, "transformer", {"patch_size": 7, "hidden": 48, "depth": 2, "heads": 4}, longer),
    ]
    return Study(
        "Networks on digits",
        "scikit-learn's 1,797 digits, five folds, each network with one setting that was not searched for.",
        tuple(arms),
        folds=5,
    )


def _shift() -> Study:
    nets: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
        ("MLP", "mlp", {"hidden": [64]}),
        ("CNN", "small_cnn", {"features": [8, 16, 32]}),
    )
    rows = [("moved by up to {} px", {"shift": shift}) for shift in (0, 2, 4)]
    arms = [
        Arm(
            f"{name}, test digits {text.format(given['shift']) if given['shift'] else 'as they are'}",
            {"task": "digits", "size": 28, **given},
            model,
            arguments,
        )
        for name, model, arguments in nets
        for text, given in rows
    ]
    arms += [
        Arm(f"{name}, {share:.0%} of the labels", {"task": "digits", "size": 28, "share": share}, model, arguments)
        for name, model, arguments in nets
        for share in (0.02, 0.05, 0.1, 0.5)
    ]
    return Study(
        "MLP and CNN: shifted digits, fewer labels",
        "What locality, shared weights and invariance to translation buy: an MLP and a smaller CNN, trained on digits "
        "that are not moved. With two digits of each class they buy nothing: the MLP is ahead there.",
        tuple(arms),
    )


def _optimisers() -> Study:
    data = {"task": "digits", "size": 16}
    plain = {"ema": 0, "weight_decay": 0, "validate_every": 10, "warmup_steps": 0, "clip": 1e9}
    chosen: tuple[tuple[str, str, int, int, float], ...] = (
        ("gradient descent, all 1,149 digits a step", "sgd", 1149, 100, 0.5),
        ("stochastic, 1 digit a step", "sgd", 1, 3000, 0.01),
        ("mini-batches of 32", "sgd", 32, 720, 0.1),
        ("mini-batches, momentum", "momentum", 32, 720, 0.02),
        ("mini-batches, RMSprop", "rmsprop", 32, 720, 1e-3),
        ("mini-batches, Adam", "adam", 32, 720, 2e-3),
    )
    arms = [
        Arm(
            name,
            data,
            "mlp",
            {"hidden": [64]},
            {
                **plain,
                "optimiser": optimiser,
                "batch_size": size,
                "steps": steps,
                "learning_rate": rate,
                "validate_every": max(1, steps // 60),
            },
        )
        for name, optimiser, size, steps, rate in chosen
    ]
    return Study(
        "Ways downhill",
        "One MLP on digits by each rule, with a learning rate that is usual for it and was not searched for; every "
        "rate falls along half a cosine. The rules do not pass over the digits equally often (100 times all at once, "
        "2.6 times one by one, 20 times in mini-batches), and three digits more or less right are .01. The picture "
        "shows the first of the seeds.",
        tuple(arms),
        curve=True,
    )


def _transfer() -> Study:
    data = {"task": "idrid-grade", "size": 528}
    alike = {"steps": 100, "batch_size": 8, "loss": "ordinal", "augment": "flips", "precision": "bf16"}
    ways: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("from scratch", {}),
        ("frozen body", {"start": "lesions", "frozen": True}),
        ("fine-tuned", {"start": "lesions", "learning_rate": 5e-4}),
    )
    arms = [
        Arm(
            f"{name}, {share:.0%} of the labels",
            {**data, "share": share},
            "lesion_grader",
            training={**alike, "validate_every": 100, **given},
            preprocess={"fov_diameter": 512},
        )
        for name, given in ways
        for share in (0.01, 0.05, 0.1, 0.5, 1.0)
    ]
    return Study(
        "Transfer: grades of retinopathy from a network that knows lesions",
        "The grader at 512 px of field of view, 100 steps of 8 photographs: all of it from random weights, its body "
        "frozen as the packaged `lesions` has it, or the whole fine-tuned from there. All are scored without the "
        "photographs that `lesions` has seen. That body learnt at 1280 px, which costs it something here, and 2.4 "
        "passes over the photographs are too few for random weights: compared is what little computing buys.",
        tuple(arms),
        without_seen_by="lesions",
    )


STUDIES: dict[str, Callable[[], Study]] = {
    "flowers": _flowers,
    "petals": _petals,
    "lecun": _lecun,
    "networks": _networks,
    "shift": _shift,
    "optimisers": _optimisers,
    "transfer": _transfer,
}


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
    planned = study.runs()
    wanted = [json.loads(json.dumps(_identity(arm, seed, fold))) for arm, seed, fold in planned]
    rows = [row for row in rows if row["identity"] in wanted]
    for done, ((arm, seed, fold), identity) in enumerate(zip(planned, wanted, strict=True)):
        if progress:
            progress(done, len(planned))
        if any(row["identity"] == identity for row in rows):
            continue
        if arm.svm is not None:
            found = _svm(arm, seed, fold, data_root)
        else:
            found = _train(study, arm, (seed, fold), data_root, device)
        rows.append({"arm": arm.name, "seed": seed, "fold": fold, **found, "identity": identity})
        rows.sort(key=lambda row: wanted.index(row["identity"]))
        io.write_json(path, {"study": name, "rows": rows})
    if progress:
        progress(len(planned), len(planned))
    return path


def _identity(arm: Arm, seed: int, fold: int) -> dict[str, Any]:
    """What decides about the result of a training."""
    return {"arm": arm.name, "svm": arm.svm, "config": arm.config(seed, fold).model_dump(mode="json")}


def _train(study: Study, arm: Arm, which: tuple[int, int], data_root: str | Path, device: str) -> dict[str, Any]:
    """Train and score an arm with one (seed, fold); examples are counted without those of the model it starts from."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        training.fit(arm.config(*which), folder, data_root, device=device)
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
    return {
        "parameters": int(machine.support_vectors_.size + machine.dual_coef_.size),
        "seconds": round(time.perf_counter() - started, 1),
        "examples": len(x),
        "scores": {learning.heads[0].name: {"accuracy": round(float(right.mean()), 5)}},
        "joint": None,
        "left_out": 0,
        "log": [],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "rows": list(found["rows"])}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no record of a study ({error}): remove it") from None


def write(folder: Path, out: Path) -> list[Path]:
    """Make the page of the recorded studies, in the order of STUDIES, and their pictures; returns the paths.

    `folder` may hold introduction.md, which the page begins with. UserError where a record is damaged.
    """
    introduction = folder / INTRODUCTION
    parts = [
        "# Classification: results",
        "Written by `retina-seg results`: introduction.md, then the tables of the records.",
    ]
    parts += [introduction.read_text(encoding="utf-8").strip()] if introduction.is_file() else []
    parts += [_packaged(name) for name in inference.names()]
    pictures = []
    for name in STUDIES:
        if not (path := folder / f"{name}.json").is_file():
            continue
        record, study = _read(path), STUDIES[name]()
        parts.append(_section(study, record))
        if any(row["log"] for row in record["rows"]):
            pictures.append(folder / f"{name}.png")
            _draw(record, pictures[-1])
            parts.append(f"![{study.title}]({folder.name}/{name}.png)")
    io.write_text(out, "\n\n".join(parts) + "\n")
    return [out, *pictures]


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
    """Title, what it is, and the table: mean and standard deviation over seeds or folds."""
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
    lines += [f"| | parameters | examples | {' | '.join([*titles, *joint])} | trainings | seconds |"]
    lines += ["| --- |" + " ---: |" * (len(titles) + len(joint) + 4)]
    for name, rows in arms.items():
        cells = [_spread([row["scores"][head].get(score) for row in rows]) for head, score in shown]
        cells += [_spread([row.get("joint") for row in rows]) for _ in joint]
        seconds = np.mean([row["seconds"] for row in rows])
        counts = f"{rows[0]['parameters']:,} | {rows[0]['examples']:,}"
        lines.append(f"| {name} | {counts} | {' | '.join(cells)} | {len(rows)} | {seconds:.0f} |")
    return "\n".join(lines)


def _shown(scores: Mapping[str, float], *, alone: bool) -> tuple[str, ...]:
    """The scores of a question that a table has: of one that is asked beside others, too, how far answers are off."""
    if "accuracy" not in scores:
        return ("r2", "rmse")
    return ("accuracy", "quadratic_kappa") if "quadratic_kappa" in scores and not alone else ("accuracy",)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return markdown.mean_sd(known) if known else ""
