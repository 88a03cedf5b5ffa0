"""Connected pieces of a mask: which pixel belongs to which, and how large each is.

Arrays in, arrays out; what a piece means is told elsewhere (lesions, postprocess, patches).
"""

import cv2
import numpy as np
from numpy.typing import NDArray


def numbered(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of the pieces of `mask` bool (H, W), and for each pixel the number of its piece from 1, else 0.

    A piece is 8-connected: pixels that touch at a corner belong together.
    """
    count, labels = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    return count - 1, labels


def areas(labels: NDArray[np.int32], count: int, where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many pixels of `where` bool (H, W) each of the `count` pieces of `numbered` has, (count,)."""
    return np.bincount(labels[where], minlength=count + 1)[1:]
