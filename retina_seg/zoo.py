"""Models by name: the packaged weights, their cards and reports, and finished run folders.

No training and no scoring; reading and writing of weights is in checkpoint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from retina_seg import checkpoint, io, protocols, scores
from retina_seg.checkpoint import Card
from retina_seg.errors import UserError

FOLDER = Path(__file__).resolve().parent / "weights"
CLASSIFIERS = FOLDER / "classifiers"
SUFFIX = ".safetensors"
REPORTS = "reports"
DEFAULT = "vessels"
"""The packaged model for photographs of unknown cameras."""
# What a card repeats of each report.
SUMMARY = (
    *("split", "target", "annotator", "n_images", "threshold", "threshold_source", "fov_source", "postprocessing"),
    *("fov", "ci95", "per_image_mean", "per_image_sd", "full_frame", "at_half", "oracle", "warnings"),
)


def names() -> list[str]:
    """Names of the packaged models: DEFAULT, then the others in alphabetical order."""
    return sorted(packaged(FOLDER), key=lambda name: (name != DEFAULT, name))


def packaged(folder: Path) -> list[str]:
    """Names of the cards in a folder, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.json"))


def card(name: str | Path) -> Card:
    """The card of a packaged model or of a run folder."""
    return checkpoint.read_card(_files(name)[1])


def load(name: str | Path) -> tuple[nn.Module, Card]:
    """The network, in evaluation mode on the CPU, and its card.

    Parameters
    ----------
    name : a packaged model, or the folder of a finished run.

    Raises
    ------
    UserError
        If there is no such model, or its weights are missing, changed or of another network.
    """
    return checkpoint.load_model(*_files(name))


def report_path(name: str | Path, report_name: str) -> Path:
    """Where a report (`protocols.report_name`) of a packaged model or of a run folder is kept, if there is one."""
    return _reports(name) / f"{report_name}.json"


def reports(name: str | Path) -> dict[str, dict[str, Any]]:
    """The kept reports of a packaged model or of a run folder: name -> loaded JSON, {} where there are none.

    Their names are those of `protocols.report_name`, they come in the order of `protocols.PROTOCOLS` and hold what
    `scores.Report` holds.

    Raises
    ------
    UserError
        If there is no such model, or a file in its folder of reports is damaged or of other weights.
    """
    known = [protocols.report_name(name, target) for name, one in protocols.PROTOCOLS.items() for target in one.targets]
    weights = card(name).weights_sha256
    found = {path.stem: path for path in sorted(_reports(name).glob("*.json")) if not path.name.startswith(".")}
    ordered = sorted(found, key=lambda stem: known.index(stem) if stem in known else len(known))
    return {stem: _report(found[stem], weights) for stem in ordered}


def _reports(name: str | Path) -> Path:
    return FOLDER / REPORTS / name if str(name) in names() else _files(name)[1].parent / REPORTS


def _report(path: Path, weights_sha256: str) -> dict[str, Any]:
    """One kept report, checked against its name and the weights it must be of."""
    try:
        report = scores.from_json(io.read_text(path))
        scored = {model["weights_sha256"] for model in report["provenance"]["models"]}
        called = protocols.report_name(report["protocol"], report["target"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a report of `retina-seg evaluate` ({' '.join(str(error).split())[:300]}): remove it"
        ) from None
    if called != path.stem or scored != {weights_sha256}:
        raise UserError(
            f"{path} is by another protocol or of other weights than its model's: evaluate again or remove it"
        )
    return report


def verify() -> dict[str, str]:
    """Load every packaged model and its reports; name -> "" where all is sound, else what is wrong."""
    problems = {}
    for name in names():
        try:
            load(name)
            reports(name)
            problems[name] = ""
        except UserError as error:
            problems[name] = str(error)
    return problems


def package(run: Path, updates: dict[str, object], folder: Path = FOLDER) -> Card:
    """Copy a finished run's weights, card and reports into `folder`.

    The card's scores are those of the reports, and its fields are replaced by `updates`; with another `name` the
    reports are of that name too. Reports of an earlier model of the same name are removed: they are of other weights.
    """
    weights, card_path = _files(run)
    original = checkpoint.read_card(card_path)
    kept = reports(run)
    measured = {"scores": {protocol: _summary(report) for protocol, report in kept.items()}} if kept else {}
    finished = Card.model_validate({**original.model_dump(), **measured, **updates})
    target = folder / REPORTS / finished.name
    io.make_folder(target if kept else folder)
    for path in target.glob("*.json"):
        path.unlink()
    with io.atomic(folder / f"{finished.name}{SUFFIX}") as temporary:
        temporary.write_bytes(weights.read_bytes())
    checkpoint.write_card(finished, folder / f"{finished.name}.json")
    for protocol, report in kept.items():
        io.write_text(target / f"{protocol}.json", scores.to_json(_renamed(report, finished.name)))
    return finished


def _renamed(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The report of a model under the name it is packaged by."""
    provenance = report["provenance"]
    models = [{**model, "name": name} for model in provenance["models"]]
    return {**report, "model": name, "provenance": {**provenance, "models": models}}


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """What a card says of a report."""
    human = report["second_observer"]
    blocks = report["further"].items()
    further = {name: {key: one for key, one in block.items() if key != "per_image"} for name, block in blocks}
    summary = {name: report[name] for name in SUMMARY} | ({"second_observer": human["fov"]} if human else {})
    return summary | ({"further": further} if further else {})


def _files(name: str | Path) -> tuple[Path, Path]:
    """Paths of weights and card."""
    if str(name) in packaged(CLASSIFIERS):
        raise UserError(f"{name} is a classifier, which marks nothing: use it with `retina-seg classify`")
    return files(name, FOLDER, names(), what="model", command="train")


def files(name: str | Path, folder: Path, known: Sequence[str], *, what: str, command: str) -> tuple[Path, Path]:
    """Paths of weights and card of a network: one of the `known` in `folder`, or of a finished run.

    UserError where it is neither, calling it `what`; an unfinished run goes on with `retina-seg COMMAND --resume`.
    """
    if str(name) in known:
        return folder / f"{name}{SUFFIX}", folder / f"{name}.json"
    run = Path(name)
    if (run / checkpoint.CARD).is_file():
        return run / checkpoint.WEIGHTS, run / checkpoint.CARD
    if (run / checkpoint.STATE).is_file():
        raise UserError(f"the run {run} is not finished: go on with `retina-seg {command} --resume {run}`")
    raise UserError(
        f"there is no {what} or finished run {str(name)!r}: packaged {what}s are {', '.join(known) or 'none'}"
    )
