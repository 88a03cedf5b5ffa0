"""Seconds and memory from array to mask on the CPU: python tests/benchmark_inference.py [MODEL...]. Not a test.

Beside the models stands the published pipeline of Little W-Net (Galdran 2022), rebuilt from its description: crop to
the field of view, resize to 512 x 512, the cascade of two U-Nets, mean of four flips, resize back. Its weights are
random here: they make no difference to the time.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from retina_seg import phantom
from retina_seg.fov import crop_box, find_fov
from retina_seg.inference import Segmenter, predict_probability
from retina_seg.models import build_model

SIZES = {"DRIVE": (565, 584), "STARE": (700, 605), "IDRiD": (4288, 2848)}
REPEATS = 9
LITTLE_W_NET = "Little W-Net, published pipeline"

Predict = Callable[[NDArray[np.uint8]], object]


def little_w_net(flips: bool) -> Predict:
    """The published pipeline, from uint8 (H, W, 3) to probabilities (H, W)."""
    net = build_model("w_net", 3, 1).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        fov = find_fov(image)
        y0, x0, y1, x1 = crop_box(fov)
        small = cv2.resize(image[y0:y1, x0:x1], (512, 512), interpolation=cv2.INTER_LINEAR)
        prob = predict_probability(net, small.transpose(2, 0, 1).astype(np.float32) / 255, flips=flips)[0]
        full = np.zeros(image.shape[:2], np.float32)
        full[y0:y1, x0:x1] = cv2.resize(prob, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        return full * fov

    return predict


def main(models: list[str]) -> None:
    """One line for each size, model and use; all take turns, so that whatever else runs slows all alike."""
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; median (least) of {REPEATS}")
    candidates: dict[str, Predict] = {}
    for flips in (True, False):
        use = "four flips" if flips else "no flips"
        candidates[f"{LITTLE_W_NET}, {use}"] = little_w_net(flips)
        for model in models:
            candidates[f"{model}, {use}"] = Segmenter.from_pretrained(model, "cpu", flips=flips).predict
    for name, (width, height) in SIZES.items():
        image = phantom.draw(0, width=width, height=height).image
        seconds: dict[str, list[float]] = {candidate: [] for candidate in candidates}
        for round_ in range(1 + REPEATS):
            for candidate, predict in candidates.items():
                start = time.perf_counter()
                predict(image)
                if round_:  # the first warms up
                    seconds[candidate].append(time.perf_counter() - start)
        for candidate, measured in seconds.items():
            print(f"{name} {width} x {height}, {candidate}: {statistics.median(measured):.3f} ({min(measured):.3f}) s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:] or ["vessels-drive"])
