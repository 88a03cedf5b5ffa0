"""Many photographs one after another: what cannot be segmented is set aside, the rest goes on.

The segmenting of one photograph is in inference, names and formats of files in io.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retina_seg import io
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter


@dataclass(frozen=True)
class Outcome:
    """What became of one input: the files written and the warnings, or the error."""

    source: Path
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


def plan(inputs: Sequence[str | Path], out: Path) -> list[tuple[Path, str]]:
    """Every photograph of files and folders with the stem of its results; no two stems are alike.

    Raises
    ------
    UserError
        If an input is missing, a folder holds no image, or results would land among the photographs of a folder.
    """
    for given in map(Path, inputs):
        if given.is_dir() and given.resolve() == out.resolve():
            raise UserError(
                f"--out {out} is the folder of the photographs: a second run would take masks for photographs; "
                f"choose another, for example {out / 'masks'}"
            )
    sources = io.find_images(inputs)
    return list(zip(sources, io.output_stems(sources), strict=True))


def predict_files(
    segmenter: Segmenter,
    planned: Sequence[tuple[Path, str]],
    out: Path,
    *,
    what: tuple[str, ...] = ("mask", "prob", "overlay"),
    on_done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Segment the photographs of `plan` and save the results in `out`.

    A photograph that cannot be read or written is reported in its Outcome and leaves no file.
    """
    outcomes = []
    for source, stem in planned:
        try:
            prediction = segmenter.predict(source)
            files = tuple(prediction.save(out, stem, what=what))
            outcome = Outcome(source, files, tuple(prediction.provenance["warnings"]))
        except UserError as error:
            outcome = Outcome(source, error=str(error))
        outcomes.append(outcome)
        if on_done is not None:
            on_done(outcome)
    return outcomes
