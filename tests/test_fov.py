"""Field of view on drawn photographs with known truth, and on the released masks where the data are here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retina_seg.errors import UserError
from retina_seg.fov import circle, crop_box, erode, find_fov
from retina_seg.io import read_image, read_mask

Bools = NDArray[np.bool_]
Image = NDArray[np.uint8]


def disc(height: int, width: int, y: float, x: float, radius: float) -> Bools:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - y, columns - x) <= radius


def photograph(fov: Bools, *, noise: float = 2.0, light: float = 1.0, outside: float = 4.0, seed: int = 0) -> Image:
    """Uneven orange light inside `fov`, with dark and bright patches; a dim border outside."""
    rng = np.random.default_rng(seed)
    height, width = fov.shape
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    shade = 0.55 + 0.45 * np.cos(3 * (rows - 0.45)) * np.cos(3 * (columns - 0.4))
    ripple = 1 - 0.25 * (np.sin(40 * rows + 9 * columns) > 0.9)  # vessels, more or less
    grey = np.where(fov, np.clip(shade, 0.2, 1) * ripple, 0.0)
    rgb = grey[..., None] * np.array([230.0, 130.0, 60.0]) + outside * ~fov[..., None]
    rgb = rgb * light + rng.normal(0, noise, rgb.shape)
    return np.clip(rgb, 0, 255).round().astype(np.uint8)


def iou(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / (a | b).sum())


SHAPES = {
    "whole circle": (584, 565, 290, 280, 260),
    "wide frame": (500, 900, 250, 430, 220),
    "cut at top and bottom": (425, 640, 212, 300, 256),
    "cut at one side": (500, 500, 250, 180, 230),
    "small": (96, 100, 47, 50, 40),
    "very small": (64, 64, 31, 32, 28),
    "large": (1424, 2144, 712, 1000, 860),
    "touching the frame": (400, 400, 199.5, 199.5, 199.5),
    "off centre and small": (600, 800, 220, 560, 180),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_finds_a_drawn_circle(shape: tuple[int, int, float, float, float]) -> None:
    truth = disc(*shape)
    found = find_fov(photograph(truth))
    assert found.dtype == bool
    assert found.shape == truth.shape
    assert iou(found, truth) > (0.99 if min(shape[:2]) > 200 else 0.96)


@pytest.mark.parametrize("light", [0.15, 0.4, 1.0, 2.5])
def test_does_not_depend_on_brightness(light: float) -> None:
    truth = disc(500, 520, 250, 255, 230)
    assert iou(find_fov(photograph(truth, light=light)), truth) > 0.985


@pytest.mark.parametrize("noise", [0.0, 8.0, 25.0])
def test_stands_noise_outside(noise: float) -> None:
    truth = disc(500, 520, 250, 255, 230)
    assert iou(find_fov(photograph(truth, noise=noise, outside=12.0)), truth) > 0.985


def test_moves_and_turns_with_the_image() -> None:
    image = photograph(disc(460, 520, 220, 250, 200))
    found = find_fov(image)
    assert iou(find_fov(np.rot90(image).copy()), np.rot90(found)) > 0.995
    assert iou(find_fov(image[:, ::-1].copy()), found[:, ::-1]) > 0.995
    shifted = np.roll(image, (9, -17), axis=(0, 1))
    assert iou(find_fov(shifted), np.roll(found, (9, -17), axis=(0, 1))) > 0.995


def test_grey_and_single_colour_images() -> None:
    truth = disc(400, 420, 200, 205, 185)
    image = photograph(truth)
    assert iou(find_fov(image[..., 1].copy()), truth) > 0.985
    green = image * np.array([0, 1, 0], np.uint8)
    assert iou(find_fov(green), truth) > 0.985


def test_does_not_change_its_input() -> None:
    image = photograph(disc(300, 300, 150, 150, 130))
    image.setflags(write=False)
    before = image.copy()
    find_fov(image)
    np.testing.assert_array_equal(image, before)


def cut_flat(fov: Bools) -> tuple[Bools, Image]:
    """A camera mask cuts the circle inside the frame, a little askew."""
    rows, columns = np.mgrid[: fov.shape[0], : fov.shape[1]]
    truth = fov & (rows > 70 + 0.03 * columns) & (rows < 430)
    return truth, photograph(truth)


def with_notch_and_text(fov: Bools) -> tuple[Bools, Image]:
    image = photograph(fov)
    image[60:95, 395:440] = (200, 110, 60)  # touches the circle
    image[470:480, 20:110:3] = 255
    image[10:30, 10:14] = 255
    return fov, image


def with_dark_rim(fov: Bools) -> tuple[Bools, Image]:
    """A shadow eats a crescent of the rim."""
    shadow = disc(*fov.shape, 330, 560, 120)
    return fov, photograph(fov & ~shadow)


def with_dark_centre(fov: Bools) -> tuple[Bools, Image]:
    return fov, photograph(fov & ~disc(*fov.shape, 240, 260, 90))


def with_bright_edge(fov: Bools) -> tuple[Bools, Image]:
    rows, columns = np.mgrid[: fov.shape[0], : fov.shape[1]]
    glare = np.clip(1.2 - np.hypot(rows - 250, columns - 20) / 150, 0, 1)[..., None] * fov[..., None]
    image = photograph(fov)
    return fov, np.clip(image + 255 * glare, 0, 255).astype(np.uint8)


def with_glow_outside(fov: Bools) -> tuple[Bools, Image]:
    """Stray light that falls off from the edge, as around some IDRiD photographs."""
    rows, columns = np.mgrid[: fov.shape[0], : fov.shape[1]]
    glow = 22 * np.exp(-np.maximum(np.hypot(rows - 250, columns - 255) - 230, 0) / 30)
    image = photograph(fov).astype(float)
    return fov, np.where(fov[..., None], image, image + glow[..., None]).astype(np.uint8)


def in_a_film_frame(fov: Bools) -> tuple[Bools, Image]:
    """Greyish film between the circle and black bars, as in STARE."""
    image = photograph(fov, outside=0.0)
    film = ~fov
    film[:12] = film[-12:] = False
    image[film] = image[film] + np.array([8, 34, 20], np.uint8)
    return fov, image


@pytest.mark.parametrize(
    "draw",
    [
        cut_flat,
        with_notch_and_text,
        with_dark_rim,
        with_dark_centre,
        with_bright_edge,
        with_glow_outside,
        in_a_film_frame,
    ],
)
def test_finds_difficult_fields(draw: Callable[[Bools], tuple[Bools, Image]]) -> None:
    truth, image = draw(disc(500, 520, 250, 255, 230))
    assert iou(find_fov(image), truth) > 0.985


def test_ellipse_and_square_fields() -> None:
    rows, columns = np.mgrid[:500, :700]
    ellipse = np.hypot((rows - 250) / 230, (columns - 340) / 310) <= 1
    assert iou(find_fov(photograph(ellipse)), ellipse) > 0.98
    square = (abs(rows - 250) < 180) & (abs(columns - 340) < 220)
    assert iou(find_fov(photograph(square)), square) > 0.98


@pytest.mark.parametrize("size", [(300, 300), (200, 500)])
def test_without_a_dark_border_everything_is_field_of_view(size: tuple[int, int]) -> None:
    assert find_fov(photograph(np.ones(size, bool))).all()


def test_full_frame_with_a_dark_lesion_at_the_edge() -> None:
    everything = np.ones((400, 400), bool)
    image = photograph(everything & ~disc(400, 400, 200, 0, 60), outside=60)
    assert find_fov(image).mean() > 0.99


BAD = {
    "black": np.zeros((300, 300, 3), np.uint8),
    "nearly black": np.random.default_rng(0).integers(0, 6, (300, 300, 3)).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8),
    "one colour": np.full((300, 300, 3), 90, np.uint8),
    "two pixels wide": np.random.default_rng(0).integers(0, 256, (300, 2, 3)).astype(np.uint8),
    "bright spot": photograph(disc(400, 400, 100, 100, 30)),
}


@pytest.mark.parametrize("image", BAD.values(), ids=BAD.keys())
def test_says_so_where_there_is_none(image: Image) -> None:
    with pytest.raises(UserError, match=r"^no field of view found: "):
        find_fov(image)


def test_wrong_arrays_are_programming_errors() -> None:
    with pytest.raises(ValueError, match="uint8") as error:
        find_fov(np.zeros((80, 80, 3), np.float32))  # type: ignore[arg-type]
    assert not isinstance(error.value, UserError)


def test_crop_box() -> None:
    fov = np.zeros((50, 80), bool)
    fov[10:20, 30:75] = True
    assert crop_box(fov) == (10, 30, 20, 75)
    assert crop_box(fov, 3) == (7, 27, 23, 78)
    assert crop_box(fov, 100) == (0, 0, 50, 80)
    y0, x0, y1, x1 = crop_box(fov)
    assert fov[y0:y1, x0:x1].all()
    with pytest.raises(ValueError, match="at least one pixel"):
        crop_box(np.zeros((5, 5), bool))


def test_erode_agrees_with_its_definition() -> None:
    fov = disc(60, 70, 25, 30, 28)  # leaves the frame at the top
    assert (erode(fov, 0) == fov).all()
    outside = np.pad(~fov, 1, constant_values=True)
    ys, xs = np.nonzero(outside)
    rows, columns = np.mgrid[1:61, 1:71]
    nearest = np.full(fov.shape, np.inf)
    for y, x in zip(ys, xs, strict=True):
        nearest = np.minimum(nearest, np.hypot(rows - y, columns - x))
    for px in (1, 2.5, 8):
        np.testing.assert_array_equal(erode(fov, px), nearest > px + 1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_circle_of_a_drawn_circle(shape: tuple[int, int, float, float, float]) -> None:
    fitted = circle(disc(*shape))
    assert (fitted.y, fitted.x, fitted.radius) == pytest.approx(shape[2:], abs=0.5)


def test_circle_of_other_shapes_is_their_box() -> None:
    assert circle(np.ones((100, 300), bool)) == (49.5, 149.5, 150.0)


def test_drive_masks(data_root: Path) -> None:
    images = sorted((data_root / "DRIVE").glob("*/images/*.tif"))
    assert len(images) == 40
    scores = []
    for path in images[::3]:
        released = path.parent.with_name("mask") / f"{path.stem}_mask.gif"
        scores.append(iou(find_fov(read_image(path)), read_mask(released)))
    assert np.mean(scores) > 0.99
    assert min(scores) > 0.98


def test_annotated_vessels_are_inside(data_root: Path) -> None:
    inside = total = 0
    for path in sorted((data_root / "STARE" / "stare-images").glob("*.ppm")):
        vessels = read_mask(data_root / "STARE" / "labels-ah" / f"{path.stem}.ah.ppm")
        fov = find_fov(read_image(path))
        assert 0.7 < fov.mean() < 0.82, path.name
        inside, total = inside + (vessels & fov).sum(), total + vessels.sum()
    assert inside / total > 0.998
    inside = total = 0
    for path in sorted((data_root / "CHASE_DB1").glob("*.jpg")):
        vessels = read_mask(path.with_name(f"{path.stem}_1stHO.png"))
        fov = find_fov(read_image(path))
        assert 0.64 < fov.mean() < 0.71, path.name
        inside, total = inside + (vessels & fov).sum(), total + vessels.sum()
    assert inside / total > 0.998


def test_idrid_circles_are_alike(data_root: Path) -> None:
    images = sorted((data_root / "IDRiD").glob("A*/1*/*/*.jpg"))[::16]
    assert len(images) >= 5
    for path in images:
        fov = find_fov(read_image(path))
        # The release holds two magnifications: four of the 81 circles are larger.
        assert 0.685 < fov.mean() < 0.7 or 0.79 < fov.mean() < 0.805, path.name
        assert fov[0].any(), path.name  # cut by the frame
        assert fov[-1].any(), path.name
