"""Numbers and tables as Markdown."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

DASH = "–"
"""What stands where there is no number."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, a line for each row."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± SD over seeds; the mean alone where there is one seed."""
    if len(values) < 2 or any(math.isnan(value) for value in values):
        return number(float(np.mean(values)))
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def number(value: float | None, digits: int = 4) -> str:
    """So many digits; a dash where the value is undefined."""
    return DASH if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(edges: Iterable[float | None], digits: int = 4) -> str:
    """`low to high`; a dash where one of the two is undefined."""
    low, high = (number(edge, digits) for edge in edges)
    return DASH if DASH in (low, high) else f"{low} to {high}"


def difference(value: float, edges: Iterable[float]) -> str:
    """`+0.0012 (-0.0010 to +0.0031)`; without its interval where that is undefined."""
    low, high = edges
    return f"{value:+.4f}" + ("" if math.isnan(low) else f" ({low:+.4f} to {high:+.4f})")
