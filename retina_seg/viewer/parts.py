"""Streamlit components of three files beside this one: NAME.html, NAME.css, NAME.js, all of it inline."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import streamlit as st


def read(name: str, suffix: str) -> str:
    """One of the three files of a component."""
    return files("retina_seg.viewer").joinpath(f"{name}.{suffix}").read_text(encoding="utf-8")


def declare(name: str) -> Callable[..., Any]:
    """The component `name`, to be mounted by calling it; the page asks no other address for it."""
    html, css, js = (read(name, suffix) for suffix in ("html", "css", "js"))
    return st.components.v2.component(f"retina_seg.{name}", html=html, css=css, js=js)
