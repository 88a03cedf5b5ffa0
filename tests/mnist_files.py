"""Files of MNIST's format, for the tests of tasks and trainings. No test lives here."""

import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Images and labels of "train" or "t10k"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
