"""Seconds and memory from array to mask on the CPU: python tests/benchmark_inference.py [MODEL]. Not a test."""

import resource
import statistics
import sys
import time

import torch

from retina_seg import phantom
from retina_seg.inference import Segmenter

SIZES = {"DRIVE": (565, 584), "STARE": (700, 605), "IDRiD": (4288, 2848)}


def main(model: str, repeats: int = 7) -> None:
    """Print one line for each size with and without flips: median of `repeats` after one warm-up."""
    print(f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, (width, height) in SIZES.items():
        image = phantom.draw(0, width=width, height=height).image
        for flips in (True, False):
            segmenter = Segmenter.from_pretrained(model, "cpu", flips=flips)
            segmenter.predict(image)
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                segmenter.predict(image)
                seconds.append(time.perf_counter() - start)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{name:6} {width} x {height}, {'four flips' if flips else 'no flips  '}: "
                f"{statistics.median(seconds):.3f} s, peak memory so far {peak:.0f} MiB"
            )


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["vessels-drive"])
