"""The demo: a drawn photograph, the packaged model, the scores against the exact truth.

Needs no data and no network connection.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retina_seg import files, io, metrics, overlay, phantom, zoo
from retina_seg.inference import Segmenter

SEED = 0


@dataclass(frozen=True)
class Result:
    """A table (metric, value, meaning), its title and the files written."""

    title: str
    rows: list[tuple[str, str, str]]
    files: list[Path]


def run(out: Path, seed: int = SEED, *, overwrite: bool = False) -> Result:
    """Draw a photograph, segment it on the CPU, write photograph, truth and results to `out`, score them.

    comparison.png shows the photograph, the mask over it, and its agreement with the truth (`overlay.agreement`).
    UserError where a file of one of their names is there that the program did not write, but for `overwrite`.
    """
    drawn = phantom.draw(seed)
    files.make_folder(out)
    photograph, truth, comparison = (out / f"{name}.png" for name in ("photograph", "photograph_truth", "comparison"))
    files.check_replaceable((photograph, truth, comparison), overwrite=overwrite)
    io.write_rgb(photograph, drawn.image)
    io.write_mask(truth, drawn.vessels)
    prediction = Segmenter.from_pretrained(zoo.DEFAULT, "cpu").predict(photograph)
    prob, mask = prediction.prob[0], prediction.mask[0]
    panels = (
        drawn.image,
        overlay.blend(drawn.image, prediction.mask, prediction.targets),
        overlay.agreement(drawn.image, mask, drawn.vessels, drawn.fov),
    )
    io.write_rgb(comparison, np.concatenate(panels, axis=1), files.RESULT)
    written = [photograph, truth, *prediction.save(out, photograph.stem, overwrite=overwrite), comparison]
    scores = (
        ("Dice", metrics.dice(mask, drawn.vessels, drawn.fov), "overlap with the truth, 1 is perfect"),
        ("AUC", metrics.auc(prob, drawn.vessels, drawn.fov), "vessels rank above background, .5 is chance"),
        ("sensitivity", metrics.sensitivity(mask, drawn.vessels, drawn.fov), "share of the vessels found"),
        ("specificity", metrics.specificity(mask, drawn.vessels, drawn.fov), "share of the background left"),
        ("clDice", metrics.cldice(mask, drawn.vessels, drawn.fov), "the same for centrelines"),
    )
    rows = [(name, f"{value:.3f}", meaning) for name, value, meaning in scores]
    rows.append(("seconds", f"{prediction.provenance['seconds']:.2f}", "for this photograph on the CPU"))
    title = f"{zoo.DEFAULT} on a drawn photograph it never saw, {drawn.image.shape[1]} x {drawn.image.shape[0]} px"
    return Result(title, rows, written)
