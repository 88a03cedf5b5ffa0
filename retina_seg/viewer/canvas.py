"""The picture of the viewer as a Streamlit component: canvas.js draws, this file mounts it and passes messages.

All of it is inline: the page asks no other address.
"""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from retina_seg.viewer import parts
from retina_seg.viewer.scene import Scene

KEY = "canvas"
_WANTED = "canvas tiles wanted"


_component = parts.declare("canvas")


def show(
    scene: Scene,
    *,
    thresholds: Mapping[str, float],
    um_per_px: float | None,
    on_thresholds: Callable[[Mapping[str, float]], None],
) -> None:
    """Mount the picture; call it inside a fragment, so that tiles the browser asks for run nothing else.

    Parameters
    ----------
    thresholds : layer -> threshold in use, where it is not the card's.
    um_per_px : size of a pixel, None where unknown.
    on_thresholds : called with layer -> threshold when the user lets a slider go.
    """

    def moved() -> None:
        told = _told("thresholds")
        values = told.get("values")
        if told.get("scene") == scene.id and isinstance(values, Mapping):
            on_thresholds({str(layer): value for layer, value in values.items() if _is_probability(value)})

    def asked() -> None:
        st.session_state[_WANTED] = _told("want")

    wanted = st.session_state.pop(_WANTED, {})
    keys = wanted.get("tiles")
    tiles = [str(key) for key in keys] if wanted.get("id") == scene.id and isinstance(keys, list) else []
    data = scene.answer(tiles) if tiles else scene.opening(thresholds, um_per_px)
    _component(key=KEY, data=data, on_thresholds_change=moved, on_want_change=asked)


def _told(name: str) -> Mapping[str, Any]:
    """What the browser said last under a name; it may be anything, so what is no mapping is passed over."""
    told = (st.session_state.get(KEY) or {}).get(name)
    return told if isinstance(told, Mapping) else {}


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
