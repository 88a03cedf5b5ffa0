"""A picture of which the visitor chooses one pixel, as a Streamlit component; pointer.js draws it."""

import base64
from collections.abc import Mapping

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from retina_seg.viewer import parts, pyramid

KEY = "pointer"


_component = parts.declare("pointer")


def show(picture: NDArray[np.uint8], name: str) -> tuple[int, int]:
    """Mount the picture uint8 (h, w, 3) and return the chosen pixel (y, x), at first the middle.

    Parameters
    ----------
    name : of the picture: a choice made in another one is forgotten.
    """
    height, width = picture.shape[:2]
    y, x = chosen(name, (height, width))
    text = base64.b64encode(pyramid.jpeg(picture)).decode()
    data = {"picture": name, "jpeg": text, "width": width, "height": height, "x": x, "y": y}
    _component(key=KEY, data=data, on_pixel_change=lambda: None)
    return y, x


def chosen(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """What the browser chose last in the picture `name` of size (h, w); it may say anything, so it is checked."""
    told = (st.session_state.get(KEY) or {}).get("pixel")
    if isinstance(told, Mapping) and told.get("picture") == name:
        y, x = told.get("y"), told.get("x")
        if isinstance(y, int) and isinstance(x, int) and 0 <= y < size[0] and 0 <= x < size[1]:
            return y, x
    return size[0] // 2, size[1] // 2
