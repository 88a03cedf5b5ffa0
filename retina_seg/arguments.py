"""What the commands share: options, and a training that is begun or gone on with.

The commands themselves are in cli and classify.commands.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from retina_seg import terminal
from retina_seg.errors import UserError

if TYPE_CHECKING:
    from retina_seg.checkpoint import BaseCard
    from retina_seg.loop import Progress

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="a.b=value, may be repeated.")]
RunFolder = Annotated[Path | None, typer.Option(help="Run folder; default runs/<name>.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of these names, also what this program did not write.")
]
Resumed = Annotated[Path | None, typer.Option(help="Run folder of an unfinished training.")]
AnyCard = TypeVar("AnyCard", bound="BaseCard")


def train(
    load: Callable[[Path, Sequence[str]], Any],
    fit: Callable[..., AnyCard],
    *,
    config: Path | None,
    changes: Sequence[str] | None,
    out: Path | None,
    resume: Path | None,
    data_root: Path,
    device: str,
) -> tuple[Path, AnyCard]:
    """Begin the training of a configuration file, or go on with a run, under a progress bar: its folder and card.

    Parameters
    ----------
    load : reads a configuration file with changes.
    fit : trains it, as `train.fit`.

    Raises
    ------
    UserError
        Where it is not clear which of the two is asked for, and what `load` and `fit` raise.
    """
    from retina_seg import checkpoint

    if (config is None) == (resume is None):
        raise UserError("give either CONFIG.yaml to begin a training or --resume RUN to go on with one")
    if resume and (changes or out):
        raise UserError("--resume goes on with the run as it was: leave out --set and --out")
    loaded = load(config or resume / checkpoint.CONFIG, changes or ())  # type: ignore[operator]
    run = resume or out or Path("runs") / loaded.name
    with terminal.bar("steps", loaded.training.steps) as advance:

        def progress(now: "Progress") -> None:
            if now.warning:
                terminal.note(now.warning)
            advance(now.step, now.describe())

        card = fit(loaded, run, data_root, resume=resume is not None, device=device, progress=progress)
    return run, card
