"""Photographs made worse, and what models scored on them, kept in files.

No scoring (robustness.py) and no tables (matrices.py).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from retina_seg import io
from retina_seg.errors import UserError

Image = NDArray[np.uint8]
Change = Callable[[Image], Image]


def _resized(scale: float) -> Change:
    def change(image: Image) -> Image:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=method), np.uint8)

    return change


def _blurred(sigma: float) -> Change:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def _noisy(sd: float) -> Change:
    def change(image: Image) -> Image:
        noise = np.random.default_rng(0).normal(0, sd, image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)

    return change


def _compressed(quality: int) -> Change:
    def change(image: Image) -> Image:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])

    return change


def _lit(gamma: float, gain: float) -> Change:
    return lambda image: np.clip(255 * gain * (image / 255.0) ** gamma, 0, 255).astype(np.uint8)


def _shaded(image: Image) -> Image:
    return (image * np.linspace(1, 1 / 3, image.shape[1])[None, :, None]).astype(np.uint8)


def _grey(image: Image) -> Image:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)


DEGRADATIONS: Mapping[str, Change] = {
    "untouched": lambda image: image,
    **{f"blur {sigma:g}": _blurred(sigma) for sigma in (1, 1.5, 2)},
    **{f"noise {sd}": _noisy(sd) for sd in (5, 10, 20)},
    **{f"JPEG {quality}": _compressed(quality) for quality in (50, 20, 10)},
    "dark": _lit(1, 0.25),
    "gamma 2": _lit(2, 1),
    "gamma 0.5": _lit(0.5, 1),
    "uneven light": _shaded,
    "grey": _grey,
    **{f"size {scale:g}": _resized(scale) for scale in (0.5, 0.7, 1.5, 3)},
}
"""Name -> what it does to uint8 (H, W, 3): Gaussian blur (sigma, px), noise (SD, grey levels of 255, the same for every
photograph of a size), JPEG (quality), grey values times 1/4, gamma, grey values falling to a third from left to right,
no colour, another size."""


@dataclass(frozen=True)
class Line:
    """What one model scores on photographs made worse in one way.

    Attributes
    ----------
    config, learnt_from, seed : of the training: its name, the protocols whose training images it learnt from with the
        number of photographs where that is a part ("drive-5photographs"), its seed; "" and None of a silent card.
    weights_sha256 : of the model.
    protocol, target : what is scored.
    degradation : in `DEGRADATIONS`.
    steps, penalty_factor : of the sparse codes, where they are not those of the training (`models.Recodes`).
    data_sha256 : of all scored images, annotations and fields of view.
    n_images, leaked : scored images; how many of them the model has seen.
    dice, auc : inside the field of view, pooled over all pixels, at the threshold of the card.
    """

    config: str
    learnt_from: str
    seed: int | None
    weights_sha256: str
    protocol: str
    target: str
    degradation: str
    steps: int | None
    penalty_factor: float
    data_sha256: str
    n_images: int
    leaked: int
    dice: float
    auc: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What is scored how: two lines of one key are the same measurement."""
        return (*self.training, self.seed, self.protocol, self.target, self.degradation)

    @property
    def training(self) -> tuple[str, str, int | None, float]:
        """What differs in the seed alone."""
        return (self.config, self.learnt_from, *self.setting)

    @property
    def file_name(self) -> str:
        """Of the file that keeps it."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        return f"{self.config}{f'-{self.learnt_from}' if self.learnt_from else ''}{seed}.json"

    @property
    def setting(self) -> tuple[int | None, float]:
        """How the codes are found."""
        return self.steps, self.penalty_factor


_LINES = TypeAdapter(list[Line])


def read(path: Path) -> list[Line]:
    """The lines of a file; [] where there is none, UserError for a file that is something else."""
    if not path.exists():
        return []
    try:
        lines = _LINES.validate_json(io.read_text(path), strict=True)
        if unknown := {line.degradation for line in lines} - set(DEGRADATIONS):
            raise ValueError(f"unknown degradation {', '.join(sorted(unknown))}")
    except (ValueError, TypeError, RecursionError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} holds no scores of this version of `retina-seg robustness` ({problem}): remove it"
        ) from None
    return lines


def read_all(folder: Path) -> list[Line]:
    """The lines of every file of a folder; [] where there is none."""
    return [line for path in sorted(folder.glob("*.json")) for line in read(path)]


def remember(folder: Path, lines: Sequence[Line]) -> list[Path]:
    """Keep lines, those of each training in a file: FOLDER/<configuration>-<learnt from>-seed<k>.json.

    Those of the same training, scored in the same way, take the place of the old ones. Returns the files.
    """
    io.make_folder(folder)
    by_path: dict[Path, list[Line]] = {}
    for line in lines:
        if Path(line.file_name).name != line.file_name or "\\" in line.file_name:
            raise UserError(f"{line.file_name!r} is no name of a file: the card of the model names its training so")
        by_path.setdefault(folder / line.file_name, []).append(line)
    for path, own in by_path.items():
        merged = {line.key: line for line in (*read(path), *own)}
        text = ",\n".join(json.dumps(asdict(line), allow_nan=False) for line in merged.values())
        io.write_text(path, f"[\n{text}\n]\n")
    return list(by_path)
