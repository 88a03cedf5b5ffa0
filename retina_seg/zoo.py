"""Models by name: the packaged weights and their cards, and finished run folders.

No training; reading and writing of weights is in checkpoint.
"""

from pathlib import Path

from torch import nn

from retina_seg import checkpoint, io
from retina_seg.checkpoint import Card
from retina_seg.errors import UserError

FOLDER = Path(__file__).resolve().parent / "weights"
SUFFIX = ".safetensors"


def names() -> list[str]:
    """Names of the packaged models, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


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


def verify() -> dict[str, str]:
    """Load every packaged model; name -> "" where it is sound, else what is wrong with it."""
    problems = {}
    for name in names():
        try:
            load(name)
            problems[name] = ""
        except UserError as error:
            problems[name] = str(error)
    return problems


def package(run: Path, updates: dict[str, object], folder: Path = FOLDER) -> Card:
    """Copy a finished run's weights and card into `folder`, with fields of the card replaced by `updates`."""
    weights, card_path = _files(run)
    original = checkpoint.read_card(card_path)
    finished = Card.model_validate({**original.model_dump(), **updates})
    io.make_folder(folder)
    with io.atomic(folder / f"{finished.name}{SUFFIX}") as temporary:
        temporary.write_bytes(weights.read_bytes())
    checkpoint.write_card(finished, folder / f"{finished.name}.json")
    return finished


def _files(name: str | Path) -> tuple[Path, Path]:
    """Paths of weights and card."""
    if str(name) in names():
        return FOLDER / f"{name}{SUFFIX}", FOLDER / f"{name}.json"
    folder = Path(name)
    if (folder / checkpoint.CARD).is_file():
        return folder / checkpoint.WEIGHTS, folder / checkpoint.CARD
    if (folder / checkpoint.STATE).is_file():
        raise UserError(f"the run {folder} is not finished: go on with `retina-seg train --resume {folder}`")
    known = ", ".join(names()) or "none"
    raise UserError(f"there is no model or finished run {str(name)!r}: packaged models are {known}")
