"""Named augmentation pipelines: where a patch lies in its photograph and how it looks; the only file that imports
albumentations.

No choice of where patches are centred (see patches) and no normalisation (see preprocess).
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its newest version

import albumentations as A

# How standardised values become the grey levels that cameras and files work on: mean and standard deviation.
_GREY_MEAN, _GREY_SD = 128.0, 36.0


class IntensityJitter(A.ImageOnlyTransform):
    """Gain, offset and noise on standardised channels: the camera, the lamp and the sensor of another clinic.

    albumentations' own colour transforms clip float images to [0, 1]; standardised ones leave that range.

    Parameters
    ----------
    gain, offset : standard deviation of the log gain and of the offset, drawn for each channel.
    noise : largest standard deviation of the pixel noise; every second patch gets none, the others one that is
        uniform in [0, noise].
    """

    def __init__(self, gain: float, offset: float, noise: float, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.gain, self.offset, self.noise = gain, offset, noise

    def apply(self, img: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """`img` float32 (h, w, C); pixels that are exactly 0 are outside and stay 0."""
        rng = self.random_generator
        channels = img.shape[2]
        gain = np.exp(rng.normal(0, self.gain, channels)).astype(np.float32)
        offset = rng.normal(0, self.offset, channels).astype(np.float32)
        out = img * gain
        out += offset
        if rng.random() < 0.5:
            out += rng.standard_normal(img.shape, dtype=np.float32) * np.float32(rng.uniform(0, self.noise))
        out *= _inside(img)
        return out

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Names of the parameters, for albumentations' own serialisation."""
        return ("gain", "offset", "noise")


class Camera(A.ImageOnlyTransform):
    """What optics, sensor and file format do to a photograph, on standardised channels taken back to grey levels.

    Blur of the eye's media, of focus or of motion; fewer pixels; uneven light; gamma; faded or absent colour; sensor
    noise; JPEG. Each befalls at most a third of the patches, so that some show none and some show several.

    Parameters
    ----------
    coloured : whether the patches have three channels; those of one channel have no colour to fade.
    """

    def __init__(self, *, coloured: bool, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.coloured = coloured
        colour = [
            A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=40, val_shift_limit=20, p=0.2),
            A.ToGray(p=0.05),
        ]
        blur = [
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.6)),
            A.Defocus(radius=(1, 2), alias_blur=(0.1, 0.3)),
            A.MotionBlur(blur_limit=(3, 7)),
            A.Downscale(scale_range=(0.5, 0.9), interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": 1}),
        ]
        self._steps = A.Compose(
            [
                A.OneOf(blur, p=0.3),
                A.Illumination(intensity_range=(0.05, 0.2), p=0.25),
                A.RandomGamma(gamma_limit=(60, 160), p=0.3),
                *(colour if coloured else []),
                A.GaussNoise(std_range=(0.01, 0.05), noise_scale_factor=1.0, p=0.2),
                A.ImageCompression(quality_range=(25, 95), p=0.3),
            ]
        )

    def apply(self, img: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """`img` float32 (h, w, 1 or 3); pixels that are exactly 0 are outside and stay 0."""
        grey = np.clip(img * _GREY_SD + (_GREY_MEAN + 0.5), 0, 255).astype(np.uint8)
        self._steps.set_random_seed(int(self.random_generator.integers(2**32)))
        out = self._steps(image=grey)["image"].astype(np.float32)
        out -= _GREY_MEAN
        out /= _GREY_SD
        out *= _inside(img)
        return out

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Names of the parameters, for albumentations' own serialisation."""
        return ("coloured",)


def _inside(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (h, w, 1) of `image` (h, w, C) that are not exactly 0."""
    return (image[..., :1] != 0) | (image[..., -1:] != 0)


@dataclass(frozen=True)
class Pipeline:
    """How patches differ from what lies in the photograph.

    Attributes
    ----------
    look : from whether the patches are coloured to the transforms of their pixels, standardised float32 (h, w, C).
    turn : largest rotation, degrees.
    zoom : largest enlargement and reduction, a factor; drawn uniformly in its logarithm.
    mirror : also one of the eight quarter turns and mirrorings of the square.
    move : largest shift each way, a share of the side.
    """

    look: Callable[[bool], list[A.BasicTransform]]
    turn: float = 0.0
    zoom: float = 1.0
    mirror: bool = False
    move: float = 0.0


def _plain(_coloured: bool) -> list[A.BasicTransform]:
    return []


def _jitter(_coloured: bool) -> list[A.BasicTransform]:
    return [IntensityJitter(gain=0.15, offset=0.15, noise=0.1)]


def _camera(coloured: bool) -> list[A.BasicTransform]:
    return [Camera(coloured=coloured), *_jitter(coloured)]


PIPELINES: dict[str, Pipeline] = {
    "none": Pipeline(_plain),
    "flips": Pipeline(_plain, mirror=True),
    "written": Pipeline(_plain, turn=15, zoom=1.2, move=0.08),
    "standard": Pipeline(_jitter, turn=45, zoom=1.3, mirror=True),
    "camera": Pipeline(_camera, turn=45, zoom=1.6, mirror=True),
}


class Augmenter:
    """Cuts augmented square patches; the same seed gives the same patch.

    Turning, zooming, mirroring and cutting are one resampling of the photograph, straight to the patch.

    Parameters
    ----------
    name : in PIPELINES; UserError otherwise.
    size : side of the patches, px.
    channels : of the photographs, 1 or 3.
    """

    def __init__(self, name: str, size: int, channels: int = 3) -> None:
        if name not in PIPELINES:
            raise UserError(f"unknown augmentation {name!r}: choose one of {', '.join(PIPELINES)}")
        self.size = size
        self._pipeline = PIPELINES[name]
        self._look = A.Compose(self._pipeline.look(channels == 3))

    def __call__(
        self, image: NDArray[np.float32], labels: Sequence[NDArray[Any]], centre: tuple[int, int], seed: int
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """Cut a patch around `centre` (y, x) of `image` float32 (h, w, C) and of each of `labels` (h, w, M) alike.

        Labels of whole numbers keep their values, those of floats are interpolated. Returns the patch float32
        (size, size, C) and the labels (size, size, M), all 0 where the patch leaves the photograph; `seed` in
        [0, 2^32).
        """
        place = self._place(centre, np.random.default_rng(seed))
        self._look.set_random_seed(seed)
        patch = self._look(image=_resample(image, place, self.size))["image"]
        return patch, [_resample(label, place, self.size) for label in labels]

    def _place(self, centre: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """The affine map (2, 3) from a pixel (x, y) of the patch to its place (x, y) in the photograph."""
        angle = math.radians(rng.uniform(-self._pipeline.turn, self._pipeline.turn))
        scale = self._pipeline.zoom ** rng.uniform(-1, 1)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / scale
        if self._pipeline.mirror:
            quarters, mirrored = divmod(int(rng.integers(8)), 2)
            square = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters) @ np.diag([1 - 2 * mirrored, 1])
            turn = turn @ square
        middle = (self.size - 1) / 2
        y, x = (c - self.size // 2 + middle for c in centre)
        if self._pipeline.move:
            dy, dx = rng.uniform(-self._pipeline.move, self._pipeline.move, 2) * self.size
            y, x = y + dy, x + dx
        return np.hstack([turn, np.array([[x], [y]]) - turn @ np.full((2, 1), middle)])


def _resample(array: NDArray[Any], place: NDArray[np.float64], size: int) -> NDArray[Any]:
    """The patch (size, size, C) of `array` (h, w, C) whose pixels lie at `place` of theirs."""
    method = cv2.INTER_LINEAR if np.issubdtype(array.dtype, np.floating) else cv2.INTER_NEAREST
    # OpenCV takes at most four channels at a time and drops the axis of a single one.
    parts = [
        cv2.warpAffine(array[..., i : i + 4], place, (size, size), flags=method | cv2.WARP_INVERSE_MAP)
        for i in range(0, array.shape[2], 4)
    ]
    return np.concatenate([part.reshape(size, size, -1) for part in parts], axis=2)
