"""The schema of a training that classifies: the parts every run has, with the data and losses of this side-path.

See retina_seg.config for how files are read; never imported by models or losses.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from retina_seg import config
from retina_seg.config import PreprocessConfig, RunConfig, Schedule


class ClassifyData(config._Strict):
    """What is learnt from: a task of `tasks.TASKS` and which of its examples.

    `share` of the training labels are used, drawn by the seed alike from every class. Test digits are moved by up to
    `shift` pixels each way, training ones are not. `folder` is where below the data root a task of files lies.
    """

    task: str
    size: int | None = Field(None, ge=4, le=2048, description="side of the images, px; default: as the task has them")
    fold: int = Field(
        1, ge=1, description="which fold is the test set of the digits, the validation set of idrid-grade"
    )
    share: float = Field(1, gt=0, le=1)
    shift: int = Field(0, ge=0)
    folder: str = ""
    fit: tuple[Literal["train", "val"], ...] = Field(("train",), min_length=1)
    monitor: Literal["train", "val"] = "val"


class ClassifyTraining(Schedule):
    """How the weights of a classifier are found.

    `frozen` trains the head alone, on what the body makes of the images, which `augment` then mirrors and turns;
    `class_weights` weighs every class by the inverse of its frequency.
    """

    batch_size: int = Field(32, ge=1, description="examples a step")
    loss: str = "cross_entropy"
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(20, ge=0)
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    frozen: bool = False
    class_weights: bool = False


class ClassifyConfig(RunConfig):
    """A training run from labelled images to the weights of a classifier."""

    data: ClassifyData
    preprocess: PreprocessConfig = PreprocessConfig()
    training: ClassifyTraining


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ClassifyConfig:
    """As `retina_seg.config.load_config`."""
    return config.load(ClassifyConfig, path, overrides)
