"""Drawn photographs with other surrounds, with boxes over a name, and several in one picture."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from retina_seg import framing, phantom, quality
from retina_seg.fov import find_fov

Image = NDArray[np.uint8]
Bools = NDArray[np.bool_]
LEFT, RIGHT = phantom.draw(1, width=300, height=310), phantom.draw(5, width=300, height=310)


def iou(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / (a | b).sum())


def jpeg(image: Image) -> Image:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=75)
    return np.array(Pillow.open(buffer))


def kinds(image: Image) -> set[str]:
    """Kinds of the doubts that speak of the framing."""
    told = {doubt.kind for doubt in quality.of_photograph(image, find_fov(image))}
    return told & {"several", "covered", "surround"}


def around(colour: tuple[int, int, int]) -> Image:
    image = LEFT.image.copy()
    image[~LEFT.fov] = colour
    return image


COLOURS = {
    "dark grey": (64, 64, 64),
    "grey": (128, 128, 128),
    "light grey": (200, 200, 200),
    "white": (255, 255, 255),
    "blue": (40, 80, 200),
    "green": (30, 160, 60),
    "cream": (250, 240, 215),
    "skin": (200, 150, 120),
}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())
def test_the_surround_may_have_any_colour(colour: tuple[int, int, int]) -> None:
    image = around(colour)
    assert iou(find_fov(image), LEFT.fov) > 0.97
    assert iou(find_fov(jpeg(image)), LEFT.fov) > 0.97
    assert kinds(image) == set()


def test_the_surround_may_change_evenly_or_be_noisy() -> None:
    height, width = LEFT.fov.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rng = np.random.default_rng(0)
    for grey in (90 + 70 * (y + 1), 240 - 100 * np.hypot(x, y), 160 + rng.normal(0, 12, y.shape)):
        image = np.where(LEFT.fov[..., None], LEFT.image, np.clip(grey, 0, 255)[..., None].astype(np.uint8))
        assert iou(find_fov(image), LEFT.fov) > 0.97


@pytest.mark.parametrize("margin", [6, 60, 200])
def test_white_margins_around_a_photograph_with_its_black_border(margin: int) -> None:
    image = cv2.copyMakeBorder(LEFT.image, *(margin,) * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    assert iou(find_fov(image), np.pad(LEFT.fov, margin)) > 0.97
    assert "surround" not in kinds(image)


def test_a_crop_without_margins_has_no_surround() -> None:
    crop = np.ascontiguousarray(LEFT.image[70:240, 70:230])
    assert not framing.surround(crop).any()
    assert find_fov(crop).all()
    assert kinds(crop) == set()


def test_a_border_that_cannot_be_told_is_said() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(60, 255, (31, 30, 1), np.uint8).repeat(10, 0).repeat(10, 1).repeat(3, 2)
    image = np.where(LEFT.fov[..., None], LEFT.image, cells)
    assert iou(find_fov(image), LEFT.fov) > 0.95 or kinds(image) & {"surround", "covered", "several"}


BOXES = {
    "at the rim": np.s_[0:80, 0:130],
    "in the middle": np.s_[130:175, 100:210],
    "at the lower rim": np.s_[280:310, 90:210],
    "at one side": np.s_[100:160, 240:300],
}
FILLS = {"black": 0, "white": 255, "grey": 128, "red": (255, 0, 0), "blue": (0, 0, 255), "skin": (200, 150, 120)}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS.keys())
@pytest.mark.parametrize("place", BOXES.values(), ids=BOXES.keys())
def test_what_a_box_covers_is_not_in_the_field_of_view(place: tuple[slice, slice], fill: int) -> None:
    image, left = LEFT.image.copy(), LEFT.fov.copy()
    image[place], left[place] = fill, False
    found = find_fov(image)
    assert iou(found, left) > 0.975
    assert found[place][LEFT.fov[place]].mean() < 0.06
    assert kinds(image) == {"covered"}
    assert kinds(jpeg(image)) == {"covered"}


def test_a_covered_part_is_told_and_withholds_only_where_it_is_large() -> None:
    for place, withholds in ((np.s_[130:175, 100:210], False), (np.s_[80:220, 70:230], True)):
        image = LEFT.image.copy()
        image[place] = 255
        (doubt,) = (one for one in quality.of_photograph(image, find_fov(image)) if one.kind == "covered")
        assert doubt.withholds == withholds
        assert "covered" in doubt.text


def test_labels_outside_the_field_of_view_and_notches_are_no_boxes() -> None:
    image = LEFT.image.copy()
    image[4:16, 4:50] = 255
    cv2.putText(image, "OD", (8, 304), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    cv2.fillConvexPoly(image, np.array([[258, 60], [284, 76], [262, 84]]), (200, 110, 60))
    assert kinds(image) == set()
    assert iou(find_fov(image), LEFT.fov) > 0.975


def gap(grey: int) -> Image:
    return np.full((310, 25, 3), grey, np.uint8)


def smaller() -> Image:
    return cv2.copyMakeBorder(cv2.resize(RIGHT.image, (180, 186)), 0, 124, 0, 0, cv2.BORDER_CONSTANT)


def with_strip(grey: int) -> Image:
    pair = np.concatenate([LEFT.image, RIGHT.image], 1)
    strip = np.full((50, 600, 3), grey, np.uint8)
    cv2.putText(strip, "OD   2026   OS", (40, 35), cv2.FONT_HERSHEY_SIMPLEX, 1, (255 - grey,) * 3, 2)
    return np.concatenate([strip, pair], 0)


def cropped(image: Image) -> Image:
    return image[70:240, 70:230]


def on_grey() -> Image:
    return np.concatenate([around((180, 180, 180)), RIGHT.image], 1)


SEVERAL: dict[str, Callable[[], Image]] = {
    "side by side": lambda: np.concatenate([LEFT.image, RIGHT.image], 1),
    "one above the other": lambda: np.concatenate([LEFT.image, RIGHT.image], 0),
    "the same, mirrored": lambda: np.concatenate([LEFT.image, LEFT.image[:, ::-1]], 1),
    "with a black gap": lambda: np.concatenate([LEFT.image, gap(0), RIGHT.image], 1),
    "with a white gap": lambda: np.concatenate([LEFT.image, gap(255), RIGHT.image], 1),
    "of unequal sizes": lambda: np.concatenate([LEFT.image, smaller()], 1),
    "under a white strip": lambda: with_strip(255),
    "under a black strip": lambda: with_strip(0),
    "one on grey": on_grey,
    "four": lambda: np.tile(np.concatenate([LEFT.image, RIGHT.image], 1), (2, 1, 1)),
    "touching": lambda: np.concatenate([LEFT.image[20:290, 20:280], RIGHT.image[20:290, 20:280]], 1),
    "as a JPEG file": lambda: jpeg(np.concatenate([LEFT.image, RIGHT.image], 1)),
    "crops": lambda: np.concatenate([cropped(LEFT.image), cropped(RIGHT.image)], 1),
    "crops, one above the other": lambda: np.concatenate([cropped(LEFT.image), cropped(RIGHT.image)], 0),
}


@pytest.mark.parametrize("draw", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_photographs_in_one_picture_are_withheld(draw: Callable[[], Image]) -> None:
    image = draw()
    (doubt,) = (one for one in quality.of_photograph(image, find_fov(image)) if one.kind == "several")
    assert doubt.withholds
    assert "several photographs" in doubt.text


def test_both_eyes_are_in_the_field_of_view_and_one_that_is_given_is_not_doubted() -> None:
    pair = np.concatenate([LEFT.image, RIGHT.image], 1)
    assert iou(find_fov(pair), np.concatenate([LEFT.fov, RIGHT.fov], 1)) > 0.975
    one = np.concatenate([LEFT.fov, np.zeros_like(RIGHT.fov)], 1)
    assert "several" not in {doubt.kind for doubt in quality.of_photograph(pair, one)}


@pytest.mark.parametrize("seed", range(6))
def test_a_single_photograph_is_none_of_all_this(seed: int) -> None:
    drawing = phantom.draw(seed, width=300, height=310)
    assert kinds(drawing.image) == set()
    assert framing.measure(drawing.image, drawing.fov) == (False, 0.0, False)


@pytest.mark.parametrize("part", [4, 5, 6])
def test_a_small_field_of_view_in_a_large_picture_is_found(part: int) -> None:
    height, width = LEFT.fov.shape
    image, fov = np.zeros((height * part, width * part, 3), np.uint8), np.zeros((height * part, width * part), bool)
    image[height : 2 * height, width : 2 * width], fov[height : 2 * height, width : 2 * width] = LEFT.image, LEFT.fov
    found = find_fov(image)
    assert iou(found, fov) > 0.975
    told = {doubt.kind for doubt in quality.of_photograph(image, found)}
    assert "small_fov" in told
    assert "not_fundus" not in told


def framed(image: Image, depth: int, colour: int) -> Image:
    return cv2.copyMakeBorder(image, *(depth,) * 4, cv2.BORDER_CONSTANT, value=(colour,) * 3)


@pytest.mark.parametrize("depth", [2, 6, 16, 45])
@pytest.mark.parametrize(("surround", "frame"), [(60, 0), (128, 0), (255, 0), (128, 255), (20, 255), (200, 90)])
def test_a_frame_around_a_surround_that_is_not_black(surround: int, frame: int, depth: int) -> None:
    image = framed(around((surround,) * 3), depth, frame)
    assert iou(find_fov(image), np.pad(LEFT.fov, depth)) > 0.97
    assert kinds(image) == set()


@pytest.mark.parametrize("sides", [(4, 0, 0, 0), (0, 0, 4, 0), (5, 5, 0, 0), (3, 0, 9, 2)])
def test_a_frame_may_lie_at_some_sides_only(sides: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = sides
    image = cv2.copyMakeBorder(around((128, 128, 128)), *sides, cv2.BORDER_CONSTANT)
    assert iou(find_fov(image), np.pad(LEFT.fov, ((top, bottom), (left, right)))) > 0.97
    assert kinds(image) == set()


@pytest.mark.parametrize("gamma", [0.4, 0.5, 0.6])
def test_a_brightened_photograph_with_a_dark_rim(gamma: float) -> None:
    """The surround of a camera is brighter than the rim of its sensor; to see it take a root of the grey levels."""
    image = np.maximum(LEFT.image, 8)
    image[:4], image[:, :1] = 0, 0
    brightened = np.rint(255 * (image / 255) ** gamma).astype(np.uint8)
    assert iou(find_fov(brightened), LEFT.fov) > 0.97
    assert kinds(brightened) == set()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("wide", [4, 7, 24])
def test_crops_of_two_eyes_with_a_gap_are_both_found_and_withheld(wide: int, grey: int, axis: int) -> None:
    shape = (170, wide, 3) if axis == 1 else (wide, 160, 3)
    image = np.concatenate([cropped(LEFT.image), np.full(shape, grey, np.uint8), cropped(RIGHT.image)], axis)
    assert find_fov(image).mean() > 0.85
    assert kinds(image) & {"several"}


@pytest.mark.parametrize("place", [np.s_[186:204], np.s_[:, 96:114], np.s_[100:118]])
@pytest.mark.parametrize("grey", [0, 180, 255])
def test_a_bar_across_the_field_of_view_cuts_nothing_away_without_a_word(
    grey: int, place: tuple[slice, ...] | slice
) -> None:
    image, left = LEFT.image.copy(), LEFT.fov.copy()
    image[place], left[place] = grey, False
    assert iou(find_fov(image), left) > 0.95
    assert kinds(image) & {"covered", "several"}


def test_crops_of_retina_have_no_surround_though_their_corners_differ() -> None:
    """A crop whose middle is bright and whose rim is dark, uneven and red."""
    crop = cropped(LEFT.image)
    y, x = np.mgrid[-1 : 1 : len(crop) * 1j, -1 : 1 : crop.shape[1] * 1j]
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 60, y.shape), (0, 0), 3)
    image = crop * (1.1 - 0.35 * np.hypot(y, x))[..., None] * (1 + texture / 100)[..., None]
    faded = np.clip(image, 0, 255).astype(np.uint8)
    assert not framing.surround(faded).any()
    assert kinds(faded) == set()
