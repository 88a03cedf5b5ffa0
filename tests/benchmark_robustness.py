"""Dice of models on photographs made worse: python tests/benchmark_robustness.py DATA_ROOT [MODEL...]. Not a test.

The 20 DRIVE test photographs, each degraded in one way, segmented at the threshold of the card and scored against the
untouched first observer, pooled inside the field of view.
"""

import sys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from retina_seg import datasets, metrics, protocols
from retina_seg.inference import Segmenter

Image = NDArray[np.uint8]


def _blurred(sigma: float) -> Callable[[Image], Image]:
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def _noisy(sd: float) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        noise = np.random.default_rng(0).normal(0, sd, image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)

    return change


def _compressed(quality: int) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])

    return change


def _lit(gamma: float, gain: float) -> Callable[[Image], Image]:
    return lambda image: np.clip(255 * gain * (image / 255.0) ** gamma, 0, 255).astype(np.uint8)


def _shaded(image: Image) -> Image:
    """Light that falls to a third from left to right."""
    return (image * np.linspace(1, 1 / 3, image.shape[1])[None, :, None]).astype(np.uint8)


def _grey(image: Image) -> Image:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _same(image: Image) -> Image:
    return image


DEGRADATIONS: dict[str, Callable[[Image], Image]] = {
    "untouched": _same,
    "blur, sigma 1 px": _blurred(1),
    "blur, sigma 1.5 px": _blurred(1.5),
    "blur, sigma 2 px": _blurred(2),
    "noise, SD 5": _noisy(5),
    "noise, SD 10": _noisy(10),
    "JPEG, quality 50": _compressed(50),
    "JPEG, quality 20": _compressed(20),
    "JPEG, quality 10": _compressed(10),
    "dark, a quarter of the light": _lit(1, 0.25),
    "gamma 2": _lit(2, 1),
    "gamma 0.5": _lit(0.5, 1),
    "uneven light": _shaded,
    "grey": _grey,
}
# Shares of the own size: the photograph is resampled, segmented, and its probabilities are brought back to be scored.
SIZES = (0.5, 0.7, 1.5, 3.0)


def main(data_root: str, models: list[str]) -> None:
    """A table of pooled Dice: a row for each degradation, a column for each model."""
    samples = [datasets.load(row, data_root) for _, row in protocols.cases("drive")]
    segmenters = [Segmenter.from_pretrained(model, "cpu") for model in models]
    print(f"| degradation | {' | '.join(models)} |\n| --- |{' --- |' * len(models)}")
    for name, change in DEGRADATIONS.items():
        cells = []
        for segmenter in segmenters:
            total = metrics.Counts()
            for sample in samples:
                assert sample.fov is not None
                prob = segmenter.predict(change(sample.image), sample.fov).prob[0]
                mask = prob >= segmenter.card.thresholds["vessels"]
                total += metrics.confusion_counts(mask, sample.targets["vessels"], sample.fov)
            cells.append(f"{total.dice:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for scale in SIZES:
        cells = []
        for segmenter in segmenters:
            total = metrics.Counts()
            for sample in samples:
                assert sample.fov is not None
                method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                image = cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=method)
                prob = segmenter.predict(image).prob[0]
                back = cv2.resize(prob, sample.fov.shape[::-1], interpolation=cv2.INTER_LINEAR)
                mask = back >= segmenter.card.thresholds["vessels"]
                total += metrics.confusion_counts(mask, sample.targets["vessels"], sample.fov)
            cells.append(f"{total.dice:.3f}")
        print(f"| size x {scale:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or ["vessels-drive"])
