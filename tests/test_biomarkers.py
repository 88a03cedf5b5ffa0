"""Biomarkers against known calibres, curves and dimensions, on drawn vessels, and by invariance."""

import math
import re
from collections.abc import Callable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import cKDTree

from retina_seg import biomarkers, datasets, phantom
from retina_seg.biomarkers import DESCRIPTIONS, Biomarkers, measure
from retina_seg.fov import crop_box, find_fov

Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.complex128]  # x + iy
ALONE: dict[str, Callable[..., float]] = {
    "density": biomarkers.density,
    "calibre_px": biomarkers.calibre_px,
    "tortuosity": biomarkers.tortuosity,
    "fractal_dimension": biomarkers.fractal_dimension,
}


def vessel(curve: Places, calibre: Any, shape: tuple[int, int]) -> Bools:
    """Pixels whose centre lies within half a calibre (a number, or one per point) of a curve."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve)))])
    dense = np.linspace(0, along[-1], 2 + int(10 * along[-1]))
    place = np.interp(dense, along, curve.real) + 1j * np.interp(dense, along, curve.imag)
    half = np.interp(dense, along, np.broadcast_to(calibre, along.shape)) / 2
    pixels = np.argwhere(np.ones(shape))[:, ::-1]
    reach = half.max() + 0.1
    distance, nearest = cKDTree(np.stack([place.real, place.imag], 1)).query(pixels, distance_upper_bound=reach)
    return (distance <= np.append(half, 0)[nearest]).reshape(shape)


def bar(angle: float, calibre: float, length: float = 150, size: int = 180, offset: complex = 0) -> Bools:
    """A straight vessel through the middle, angle in degrees."""
    half = length / 2 * np.exp(1j * np.radians(angle))
    middle = (1 + 1j) * size / 2 + offset
    return vessel(np.array([middle - half, middle + half]), calibre, (size, size))


def disc(size: int, radius: float) -> Bools:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(y, x) <= radius


def ratio(curve: Places) -> float:
    return float(np.abs(np.diff(curve)).sum() / abs(curve[-1] - curve[0]))


def turtle(axiom: str, rules: dict[str, str], angle: float, depth: int, size: int) -> Bools:
    """A curve one pixel wide by a Lindenmayer system; capital letters go forward, X and Y stay."""
    for _ in range(depth):
        axiom = "".join(rules.get(letter, letter) for letter in axiom)
    place, heading, turn = [0j], 1 + 0j, np.exp(1j * np.radians(angle))
    for letter in axiom:
        if letter in "+-":
            heading = heading * turn if letter == "+" else heading / turn
        elif letter not in "XY":
            place.append(place[-1] + heading)
    curve = np.array(place)
    curve -= complex(curve.real.min(), curve.imag.min())
    return vessel(10 + 10j + curve * (size - 20) / max(curve.real.max(), curve.imag.max()), 1.0, (size, size))


KOCH = ("F", {"F": "F+F--F+F"}, 60.0)
ARROWHEAD = ("A", {"A": "B-A-B", "B": "A+B+A"}, 60.0)  # its limit is the Sierpinski triangle
HILBERT = ("X", {"X": "-YF+XFX+FY-", "Y": "+XF-YFY-FX+"}, 90.0)


@pytest.fixture(scope="module")
def eye() -> phantom.Phantom:
    return phantom.draw(0)


@pytest.fixture(scope="module")
def segments(eye: phantom.Phantom) -> list[tuple[Places, npt.NDArray[np.float64]]]:
    """Some of its vessels, each as a curve of its own near the origin, with its calibres (1 px at least)."""
    some = []
    for segment in eye.segments[::3]:
        curve = segment.path @ (1j, 1)
        if np.abs(np.diff(curve)).sum() >= 25:
            curve = curve - complex(curve.real.min(), curve.imag.min()) + 15 + 15j
            some.append((curve, np.maximum(segment.width_px, 1)))
    return some


def alone(curve: Places, calibre: Any) -> Biomarkers:
    return measure(vessel(curve, calibre, (int(curve.imag.max()) + 16, int(curve.real.max()) + 16)))


# --- calibre


@pytest.mark.parametrize("calibre", [1, 1.5, 2, 3, 4, 5, 7, 10, 15, 25])
def test_calibre_of_bars_at_many_angles(calibre: float) -> None:
    rng = np.random.default_rng(0)
    found = [
        biomarkers.calibre_px(bar(angle, calibre, offset=complex(*rng.uniform(-0.5, 0.5, 2))))
        for angle in np.arange(3, 180, 16)
    ]
    assert np.mean(found) == pytest.approx(calibre, abs=0.12)
    assert np.std(found) < 0.2


@pytest.mark.parametrize("calibre", [1, 2, 3, 4, 9, 10])
def test_calibre_along_rows_and_columns_is_exact(calibre: int) -> None:
    mask = np.zeros((60, 120), dtype=bool)
    mask[20 : 20 + calibre, 10:110] = True
    assert biomarkers.calibre_px(mask) == pytest.approx(calibre, abs=1e-6)
    assert biomarkers.calibre_px(mask.T) == pytest.approx(calibre, abs=1e-6)


@pytest.mark.parametrize("step", [(0, 1), (1, 1), (1, -1), (1, 0)])
def test_vessel_of_single_pixels_is_one_pixel_wide(step: tuple[int, int]) -> None:
    mask = np.zeros((90, 90), dtype=bool)
    k = np.arange(-40, 41)
    mask[45 + k * step[0], 45 + k * step[1]] = True
    assert biomarkers.calibre_px(mask) == pytest.approx(1, abs=1e-6)


def test_calibre_of_drawn_vessels(segments: list[Any]) -> None:
    error = np.array([alone(curve, calibre).calibre_px - calibre.mean() for curve, calibre in segments])
    assert abs(np.nanmean(error)) < 0.1
    assert np.nanmax(np.abs(error)) < 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_calibre_of_a_drawn_eye(seed: int) -> None:
    drawing = phantom.draw(seed)
    weight, total = 0.0, 0.0
    for segment in drawing.segments:
        at = np.rint(segment.path).astype(int)
        seen = ((at >= 0) & (at < drawing.fov.shape)).all(1)
        seen[seen] = drawing.vessels[tuple(at[seen].T)]
        step = np.abs(np.gradient(segment.path @ (1j, 1)))[seen]
        weight, total = weight + step.sum(), total + step @ np.maximum(segment.width_px[seen], 1)
    assert biomarkers.calibre_px(drawing.vessels, drawing.fov) == pytest.approx(total / weight, rel=0.04)


@pytest.mark.parametrize("angle", [30, 60, 90])
def test_crossings_do_not_widen(angle: float) -> None:
    crossing = bar(20, 7, 150) | bar(20 + angle, 7, 150)
    assert biomarkers.calibre_px(crossing) == pytest.approx(7, abs=0.15)


def test_the_rim_does_not_narrow() -> None:
    fov = disc(181, 88)
    across = bar(37, 9, 300, 181)
    y, x = np.mgrid[:181, :181] - 90
    along_rim = np.abs(np.hypot(y, x) - 87) <= 4.5  # half of it outside
    assert biomarkers.calibre_px(across, fov) == pytest.approx(9, abs=0.2)
    assert biomarkers.calibre_px((across & (np.hypot(y, x) < 70)) | along_rim, fov) == pytest.approx(9, abs=0.2)
    assert math.isnan(biomarkers.calibre_px(along_rim, fov))


# --- tortuosity


@pytest.mark.parametrize("calibre", [1, 2, 3, 6, 12])
def test_straight_vessels_have_tortuosity_one(calibre: float) -> None:
    found = np.array([biomarkers.tortuosity(bar(angle, calibre)) for angle in np.arange(0, 180, 14)])
    assert found.min() >= 1 - 1e-12
    assert found.max() < 1.008
    assert found.mean() < 1.004


@pytest.mark.parametrize("calibre", [1, 3, 5])
@pytest.mark.parametrize(("radius", "turn"), [(15, 180), (30, 120), (60, 90), (60, 240)])
def test_tortuosity_of_arcs(radius: float, turn: float, calibre: float) -> None:
    curve = 90 + 90j + radius * np.exp(1j * np.radians(np.linspace(20, 20 + turn, 400)))
    assert biomarkers.tortuosity(vessel(curve, calibre, (180, 180))) == pytest.approx(ratio(curve), rel=0.015)


@pytest.mark.parametrize("calibre", [1, 2, 5, 9])
@pytest.mark.parametrize(("amplitude", "wavelength"), [(3, 40), (10, 60), (20, 100)])
def test_tortuosity_of_sines(amplitude: float, wavelength: float, calibre: float) -> None:
    x = np.linspace(20, 320, 2000)
    curve = x + 1j * (60 + amplitude * np.sin(2 * np.pi * x / wavelength))
    assert biomarkers.tortuosity(vessel(curve, calibre, (120, 340))) == pytest.approx(ratio(curve), abs=0.01)


def test_tortuosity_of_drawn_vessels(segments: list[Any]) -> None:
    error = np.array([alone(curve, calibre).tortuosity - ratio(curve) for curve, calibre in segments])
    assert abs(np.nanmean(error)) < 0.004
    assert np.nanmax(np.abs(error)) < 0.03


def test_branching_and_crossing_straight_vessels_stay_straight() -> None:
    middle, half = 90 + 90j, 70 * np.exp(1j * np.radians([10, 170, 215]))
    branches = zip(half, (7, 6, 4), strict=True)
    tree = np.any([vessel(np.array([middle, middle + to]), calibre, (180, 180)) for to, calibre in branches], axis=0)
    assert biomarkers.tortuosity(tree) == pytest.approx(1, abs=0.004)
    assert biomarkers.tortuosity(bar(10, 6) | bar(70, 6)) == pytest.approx(1, abs=0.004)


def test_tortuosity_weighs_by_length() -> None:
    bent = 90 + 60j + 40 * np.exp(1j * np.linspace(np.pi, 2 * np.pi, 400))
    both = vessel(bent, 3, (180, 180)) | vessel(np.array([20 + 120j, 160 + 120j]), 3, (180, 180))
    arcs, chords = 40 * np.pi + 140, 80 + 140
    assert biomarkers.tortuosity(both) == pytest.approx(arcs / chords, rel=0.01)


def test_a_closed_loop_has_no_tortuosity_but_calibre_and_length() -> None:
    ring = disc(160, 62.5) & ~disc(160, 57.5)
    found = measure(ring)
    assert math.isnan(found.tortuosity)
    assert found.calibre_px == pytest.approx(5, abs=0.1)
    assert found.length_px == pytest.approx(2 * np.pi * 60, rel=0.005)


def test_ragged_edges_add_no_branches() -> None:
    smooth = bar(30, 9)
    rng = np.random.default_rng(0)
    ragged = (smooth | (bar(30, 11) & (rng.random(smooth.shape) < 0.1))) & (
        bar(30, 8) | (rng.random(smooth.shape) < 0.9)
    )
    found, expected = measure(ragged), measure(smooth)
    assert found.length_px == pytest.approx(expected.length_px, rel=0.05)
    assert found.tortuosity == pytest.approx(1, abs=0.02)


# --- fractal dimension


@pytest.mark.parametrize("angle", [0, 20, 45, 77])
def test_a_line_has_dimension_one(angle: float) -> None:
    assert biomarkers.fractal_dimension(bar(angle, 3, 270, 300)) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(
    ("curve", "depth", "dimension"),
    [(KOCH, 5, math.log(4) / math.log(3)), (ARROWHEAD, 7, math.log(3) / math.log(2)), (HILBERT, 6, 2.0)],
    ids=["Koch", "Sierpinski", "Hilbert"],
)
def test_dimension_of_fractals(curve: tuple[str, dict[str, str], float], depth: int, dimension: float) -> None:
    mask = turtle(*curve, depth, 600)
    assert biomarkers.fractal_dimension(mask) == pytest.approx(dimension, abs=0.07)


def test_dimension_hardly_depends_on_position(eye: phantom.Phantom) -> None:
    frame = np.pad(eye.vessels, 40)
    expected = biomarkers.fractal_dimension(frame)
    for shift in ((7, 0), (0, -13), (25, 31)):
        assert biomarkers.fractal_dimension(np.roll(frame, shift, axis=(0, 1))) == pytest.approx(expected, abs=0.03)


# --- the whole


def test_the_functions_agree_with_measure(eye: phantom.Phantom) -> None:
    found = measure(eye.vessels, eye.fov)
    for name, function in ALONE.items():
        assert function(eye.vessels, eye.fov) == getattr(found, name)
    assert found.density == pytest.approx(eye.vessels.sum() / eye.fov.sum(), rel=1e-12)
    assert all(type(value) is float for value in astuple(found))


def test_pixels_outside_the_fov_have_no_influence(eye: phantom.Phantom) -> None:
    assert measure(eye.vessels | ~eye.fov, eye.fov) == measure(eye.vessels & eye.fov, eye.fov)
    noise = np.random.default_rng(0).random(eye.fov.shape) < 0.5
    assert measure(eye.vessels ^ (noise & ~eye.fov), eye.fov) == measure(eye.vessels, eye.fov)


def test_the_frame_around_the_fov_does_not_matter(eye: phantom.Phantom) -> None:
    expected = measure(eye.vessels, eye.fov)
    assert measure(np.pad(eye.vessels, ((3, 50), (21, 0))), np.pad(eye.fov, ((3, 50), (21, 0)))) == expected
    y0, x0, y1, x1 = crop_box(eye.fov)
    assert measure(eye.vessels[y0:y1, x0:x1], eye.fov[y0:y1, x0:x1]) == expected


@pytest.mark.parametrize("turn", [lambda a: np.rot90(a), lambda a: a[::-1], lambda a: a.T], ids=["90", "flip", "T"])
def test_turned_and_mirrored_masks(eye: phantom.Phantom, turn: Callable[[Bools], Bools]) -> None:
    expected, found = measure(eye.vessels, eye.fov), measure(turn(eye.vessels), turn(eye.fov))
    assert found.density == expected.density
    assert found.calibre_px == pytest.approx(expected.calibre_px, rel=0.01)
    assert found.tortuosity == pytest.approx(expected.tortuosity, abs=0.003)
    assert found.fractal_dimension == pytest.approx(expected.fractal_dimension, abs=0.03)
    assert found.length_px == pytest.approx(expected.length_px, rel=0.005)


def test_the_same_eye_twice_as_large() -> None:
    # The same mask enlarged: a larger drawing shows more fine vessels, as a better camera would.
    small = phantom.draw(1)
    found, expected = (
        measure(np.kron(small.vessels, np.ones((k, k), bool)), np.kron(small.fov, np.ones((k, k), bool)))
        for k in (2, 1)
    )
    assert found.density == pytest.approx(expected.density, rel=1e-12)
    assert found.calibre_px == pytest.approx(2 * expected.calibre_px, rel=0.05)
    assert found.tortuosity == pytest.approx(expected.tortuosity, abs=0.01)
    assert found.fractal_dimension == pytest.approx(expected.fractal_dimension, abs=0.02)
    assert found.length_px == pytest.approx(2 * expected.length_px, rel=0.04)


# --- undefined, wrong, untouched


def test_undefined_is_nan() -> None:
    nothing = np.zeros((80, 80), dtype=bool)
    dot, blob = nothing.copy(), disc(80, 20)
    dot[40, 40] = True
    for mask, share in ((nothing, 0.0), (dot, 1 / 6400), (blob, blob.mean())):
        found = measure(mask)
        assert found.density == pytest.approx(share)
        assert found.length_px == 0.0
        assert np.isnan([found.calibre_px, found.tortuosity, found.fractal_dimension]).all()
    assert np.isnan(astuple(measure(~nothing, nothing))).all()
    assert math.isnan(measure(np.zeros((0, 0), dtype=bool)).density)
    short = nothing.copy()
    short[40, 40:46] = True
    assert math.isnan(measure(short).tortuosity)
    assert math.isnan(biomarkers.fractal_dimension(bar(20, 3, 30, 50)))  # a field too small for five sizes of boxes


def test_wrong_arguments() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    for function in (measure, *ALONE.values()):
        with pytest.raises(TypeError, match="mask is float64; expected bool or integer"):
            function(mask.astype(float))
        with pytest.raises(TypeError, match="fov is float64"):
            function(mask, mask.astype(float))
        with pytest.raises(ValueError, match=r"mask has shape \(1, 20, 30\)"):
            function(mask[None])
        with pytest.raises(ValueError, match="shapes differ"):
            function(mask, mask.T)


def test_inputs_are_not_modified_and_integers_are_masks(eye: phantom.Phantom) -> None:
    mask, fov = eye.vessels.copy(), eye.fov.copy()
    found = measure(mask, fov)
    assert np.array_equal(mask, eye.vessels)
    assert np.array_equal(fov, eye.fov)
    assert measure(mask.astype(np.uint8) * 255, fov.astype(np.int64)) == found


def test_every_biomarker_is_described() -> None:
    assert list(DESCRIPTIONS) == [field.name for field in fields(Biomarkers)]
    for name, description in DESCRIPTIONS.items():
        assert description.sentence.endswith(".")
        assert description.sentence.count(". ") == 0, "one sentence"
        assert (description.unit == "px") == name.endswith("_px")


def test_the_ranges_stated_are_those_of_the_hand_marked_photographs(data_root: Path) -> None:
    measured = []
    rows = [row for row in datasets.rows("drive") if row.splits["drive"] in ("train", "val")]
    for row in (*rows, *datasets.rows("stare"), *datasets.rows("chase_db1")):
        sample = datasets.load(row, data_root)
        fov = find_fov(sample.image) if sample.fov is None else sample.fov
        width = np.ptp(np.flatnonzero(fov.any(axis=0))) + 1
        found = measure(sample.targets["vessels"], fov)
        unit = {"density": 100, "calibre_px": 540 / width, "length_px": 540 / width}
        measured.append([value * unit.get(name, 1) for name, value in zip(DESCRIPTIONS, astuple(found), strict=True)])
    assert len(measured) == 68
    limits = np.percentile(measured, (5, 95), axis=0).T
    half_digit = (0.5, 0.05, 0.005, 0.005, 50)
    for (name, description), expected, tolerance in zip(DESCRIPTIONS.items(), limits, half_digit, strict=True):
        said = re.findall(r": ([\d.]+) to ([\d.]+) ", description.sentence)
        assert len(said) == 1, name
        assert [float(number) for number in said[0]] == pytest.approx(expected.tolist(), abs=tolerance), name


def test_only_what_lies_clearly_outside_its_range_is_unusual():
    usual = {"density": 0.1, "calibre_px": 3.0, "tortuosity": 1.05, "fractal_dimension": 1.4, "length_px": 7000.0}
    assert biomarkers.unusual(usual) == {}
    assert biomarkers.unusual({**usual, "density": 0.15, "fractal_dimension": 1.25}) == {}
    found = biomarkers.unusual({**usual, "density": 0.2, "fractal_dimension": 1.0, "calibre_px": 50.0})
    assert set(found) == {"density", "fractal_dimension"}
    assert found["density"] > 0.5
    assert found["fractal_dimension"] == pytest.approx((1.0 - 1.302) / (1.534 - 1.302))
    assert biomarkers.unusual(dict.fromkeys(usual, float("nan"))) == {}
