"""The only file that draws figures: learning curves and sample overlays of a run.

Nothing is measured here; masks over photographs as plain pixels are in overlay.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retina_seg import checkpoint, datasets, io, overlay
from retina_seg.photographs import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 4


def draw_run(run: Path, data_root: str | Path) -> list[Path]:
    """Draw curves.png and samples/ of a finished run; returns the paths.

    The samples are the first monitor images: hits white, false pixels yellow, missed ones blue.
    """
    from retina_seg.config import load_config
    from retina_seg.inference import Segmenter

    config = load_config(run / checkpoint.CONFIG)
    held_out = not set(config.data.fit) & set(config.data.monitor)
    written = [run / "curves.png"]
    figure = curves(checkpoint.read_log(run), "validation images" if held_out else "images that are also trained on")
    with io.atomic(written[0]) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    segmenter = Segmenter.from_pretrained(run)
    io.make_folder(run / "samples")
    for row in rows_of(config.data.protocols, config.data.monitor)[:SAMPLES]:
        sample = datasets.load(row, data_root)
        prediction = segmenter.predict(sample.image, sample.fov)
        for target, mask in zip(prediction.targets, prediction.mask, strict=True):
            name = row.key.replace(":", "_").replace("/", "_")
            written.append(run / "samples" / f"{name}_{target}.png")
            picture = overlay.agreement(sample.image, mask, sample.targets[target], prediction.fov)
            io.write_rgb(written[-1], np.concatenate([sample.image, picture], axis=1))
    return written


def curves(log: Sequence[Mapping[str, float]], images: str) -> "Figure":
    """Loss and validation scores against steps, from the entries of log.jsonl; `images` says what they are of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [entry["step"] for entry in log]
    left.plot(steps, [entry["loss"] for entry in log], color="black")
    left.set(xlabel="step", ylabel="training loss, mean of the interval", yscale="log")
    scores = [key for key in log[0] if key.endswith(("dice", "auc"))] if log else []
    for key in scores:
        right.plot(steps, [entry[key] for entry in log], label=key)
    right.set(xlabel="step", ylabel="score inside the field of view", title=images)
    right.title.set_fontsize("medium")
    if scores:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
