"""Named augmentation pipelines on standardised arrays; the only file that imports albumentations.

No choice of where patches are cut (see patches) and no normalisation (see preprocess).
"""

import math
import os
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its newest version

import albumentations as A

Transforms = list[A.BasicTransform]

# Largest enlargement of a patch's footprint by a pipeline: rotation by 45 degrees and zooming out to 1/1.3.
# patches.py cuts its patches larger by this factor, so that augmentation shows no empty corners.
FOOTPRINT = 1.42 * 1.3


class IntensityJitter(A.ImageOnlyTransform):
    """Gain, offset and noise on standardised channels: the camera, the lamp and the sensor of another clinic.

    albumentations' own colour transforms clip float images to [0, 1]; standardised ones leave that range.

    Parameters
    ----------
    gain, offset : standard deviation of the log gain and of the offset, drawn for each channel.
    noise : largest standard deviation of the pixel noise; the one used is uniform in [0, noise].
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
        out = rng.standard_normal(img.shape, dtype=np.float32)
        out *= np.float32(rng.uniform(0, self.noise))
        out += img * gain
        out += offset
        out *= (img[..., :1] != 0) | (img[..., -1:] != 0)
        return out

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Names of the parameters, for albumentations' own serialisation."""
        return ("gain", "offset", "noise")


def _affine(angle: float, zoom: float) -> A.Affine:
    return A.Affine(
        rotate=(-angle, angle),
        scale=(1 / zoom, zoom),
        keep_ratio=True,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
        fill=0,
        fill_mask=0,
        p=1.0,
    )


def _none() -> tuple[Transforms, Transforms]:
    return [], []


def _flips() -> tuple[Transforms, Transforms]:
    return [], [A.D4(p=1.0)]


def _standard() -> tuple[Transforms, Transforms]:
    return [_affine(45, 1.3)], [A.D4(p=1.0), IntensityJitter(gain=0.15, offset=0.15, noise=0.1)]


# Each gives the transforms that need the surroundings of the patch, then those that see the patch alone.
PIPELINES: dict[str, Callable[[], tuple[Transforms, Transforms]]] = {
    "none": _none,
    "flips": _flips,
    "standard": _standard,
}


class Augmenter:
    """A named pipeline that gives the same patch for the same seed.

    Parameters
    ----------
    name : in PIPELINES; UserError otherwise.
    size : side of the patch cut from the middle once the surroundings are no longer needed, px.
    """

    def __init__(self, name: str, size: int) -> None:
        if name not in PIPELINES:
            raise UserError(f"unknown augmentation {name!r}: choose one of {', '.join(PIPELINES)}")
        wide, narrow = PIPELINES[name]()
        self._transform = A.Compose([*wide, A.CenterCrop(size, size), *narrow])
        self.reach = math.ceil(size * FOOTPRINT) if wide else size

    def __call__(
        self, image: NDArray[np.float32], masks: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Augment `image` float32 (r, r, C) and `masks` uint8 (r, r, M) alike, r = `reach`.

        Returns both cropped to (size, size); `seed` in [0, 2^32).
        """
        self._transform.set_random_seed(seed)
        out = self._transform(image=image, mask=masks)
        return out["image"], out["mask"]
