from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retina_seg import io, labels, phantom
from retina_seg.errors import UserError
from retina_seg.phantom import Phantom

BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def eye() -> Phantom:
    return phantom.draw(1, width=200, height=206)


@pytest.fixture(scope="module")
def kinds(eye: Phantom) -> NDArray[np.uint8]:
    """Which class a pixel is of: 0 background, 1 arteries, 2 veins, 3 crossings, 4 uncertain."""
    found = eye.vessels.astype(np.uint8)
    found[:, 90:] *= 2
    found[eye.vessels & (np.arange(206)[:, None] % 23 == 0)] = 3
    found[eye.vessels & (np.arange(206)[:, None] % 29 == 0)] = 4
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}
    return found


def coloured(kinds: NDArray[np.uint8], *colours: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.array(colours, np.uint8)[kinds]


def saved(folder: Path, pixels: NDArray[np.generic], name: str = "av.png") -> Path:
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_arteries_and_veins_are_vessels(tmp_path: Path, eye: Phantom, kinds: NDArray[np.uint8]) -> None:
    rite = coloured(kinds, BLACK, RED, BLUE, GREEN, WHITE)
    stray = rite.copy()
    stray[tuple(np.argwhere(kinds == 1)[0])] = (255, 0, 255)
    stray[tuple(np.argwhere(kinds == 2)[0])] = (4, 0, 251)  # as in a released set
    forms = {
        "rite": rite,
        "stray": stray,
        "two": coloured(np.minimum(kinds, 2), BLACK, RED, BLUE),
        "muted": coloured(kinds, BLACK, (220, 20, 30), (30, 40, 210), GREEN, WHITE),
        "on white": coloured(np.minimum(kinds, 3), WHITE, RED, BLUE, GREEN),
        "alpha": np.dstack([rite, np.full(kinds.shape, 255, np.uint8)]),
        "cut out": np.dstack([rite, 255 * eye.vessels.astype(np.uint8)]),
    }
    for name, pixels in forms.items():
        read = io.read_mask(saved(tmp_path, pixels, f"{name}.png"), target="vessels")
        np.testing.assert_array_equal(read, eye.vessels, err_msg=name)
    palette = Image.fromarray(kinds, "P")
    palette.putpalette([*BLACK, *RED, *BLUE, *GREEN, *WHITE])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(io.read_mask(tmp_path / "palette.png", target="vessels"), eye.vessels)


def test_arteries_and_veins_are_nothing_else(tmp_path: Path, kinds: NDArray[np.uint8]) -> None:
    path = saved(tmp_path, coloured(kinds, BLACK, RED, BLUE, GREEN, WHITE))
    for target in ("disc", ""):
        with pytest.raises(UserError, match=r"5 colours black \(\d\d\.\d %\), (red|blue) .* arteries and veins"):
            io.read_mask(path, target=target)


@pytest.mark.parametrize(
    "colours",
    [
        (BLACK, RED, GREEN, GREEN, GREEN),  # no veins
        (BLACK, RED, BLUE, (128, 128, 128), WHITE),  # a level that may say "ignore"
        (BLACK, RED, BLUE, (128, 0, 128), WHITE),
        (WHITE, RED, BLUE, GREEN, BLACK),
        ((0, 90, 0), RED, BLUE, GREEN, WHITE),
    ],
)
def test_other_colours_are_named_and_not_taken(
    tmp_path: Path, kinds: NDArray[np.uint8], colours: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(UserError, match=rf"{len(set(colours))} colours .* map of classes") as error:
        io.read_mask(saved(tmp_path, coloured(kinds, *colours)), target="vessels")
    assert "JPEG" not in str(error.value)
    assert "of its own with two values" in str(error.value)


def test_grey_classes_are_named(tmp_path: Path, eye: Phantom, kinds: NDArray[np.uint8]) -> None:
    rim = np.where(eye.vessels, 255, np.where(eye.fov, 0, 128)).astype(np.uint8)
    for pixels, said in {
        "map": (kinds, r"5 grey values 0 \(.*1 \(.*4 \("),
        "rim": (rim, r"3 grey values 0 \(.*128 \(.*255 \("),
        "deep": (kinds.astype(np.uint16) * 10000, "5 grey values 0 .*40000"),
    }.values():
        with pytest.raises(UserError, match=said) as error:
            io.read_mask(saved(tmp_path, pixels), target="vessels")
        assert "classes, a rim" in str(error.value)


def test_shades_keep_their_advice(tmp_path: Path, eye: Phantom, kinds: NDArray[np.uint8]) -> None:
    grey = 255 * eye.vessels.astype(np.uint8)
    colours = coloured(kinds, BLACK, RED, BLUE, GREEN, WHITE)
    Image.fromarray(grey).save(tmp_path / "grey.jpg")
    Image.fromarray(colours).save(tmp_path / "colours.jpg")
    saved(tmp_path, cv2.resize(grey, (333, 350), interpolation=cv2.INTER_CUBIC), "resized.png")
    saved(tmp_path, cv2.resize(colours, (333, 350), interpolation=cv2.INTER_LINEAR), "resized colours.png")
    saved(tmp_path, eye.image, "photograph.png")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=r"more than two values, and more than 16: .* never as JPEG"):
            io.read_mask(path, target="vessels")


def test_values_that_equal_nothing_end() -> None:
    with pytest.raises(UserError, match="more than two values"):
        labels.of_classes(np.array([[0.0, 1.0], [np.nan, 2.0]]), "nan.tif")


def test_a_truth_that_is_turned_is_turned_back(eye: Phantom) -> None:
    found = cv2.dilate(eye.fov.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.bool_)  # never quite the truth's
    for given in (~eye.vessels, ~eye.vessels & eye.fov):
        marked, said = labels.right_way_round(given, found, "t.png", "vessels")
        wrong = marked != eye.vessels
        assert wrong.sum() <= (0 if given[0, 0] else 0.01 * eye.vessels.sum())
        assert f"t.png marks {100 * given[found].mean():.0f} %" in said
        assert "turned round" in said


def test_a_plausible_truth_stays(eye: Phantom) -> None:
    marked, said = labels.right_way_round(eye.vessels, eye.fov, "t.png", "vessels")
    assert marked is eye.vessels
    assert said == ""


def test_odd_truths_are_named(eye: Phantom) -> None:
    rows = np.broadcast_to(np.arange(206)[:, None], eye.fov.shape)
    third = (rows % 3 == 0) & eye.fov
    marked, said = labels.right_way_round(third, eye.fov, "t.png", "hard_exudates")
    assert marked is third
    assert "33 % of the field of view; hard exudates at most 25 %" in said
    empty = np.zeros_like(eye.fov)
    assert "marks nothing" in labels.right_way_round(empty, eye.fov, "t.png", "disc")[1]
    around = ~cv2.erode(eye.fov.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    assert "more outside of the field of view than inside" in labels.right_way_round(around, eye.fov, "t", "vessels")[1]
    for hopeless in (np.ones_like(eye.fov), eye.fov, (rows % 3 > 0) & eye.fov):
        with pytest.raises(UserError, match="nor turned round"):
            labels.right_way_round(hopeless, eye.fov, "t.png", "vessels")


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("change", [cv2.erode, cv2.dilate])
def test_a_mask_of_the_field_is_no_truth(eye: Phantom, size: int, change: Callable[..., NDArray[np.uint8]]) -> None:
    given = change(eye.fov.astype(np.uint8), np.ones((size, size), np.uint8))
    given[100:106, -12:] = 1  # the notch that some cameras show
    with pytest.raises(UserError, match=r"marks the whole field of view \((9\d|100) % of it\)"):
        labels.right_way_round(given.astype(np.bool_), eye.fov, "t.png", "hard_exudates")


def test_one_small_lesion_that_is_turned_is_turned_back(eye: Phantom) -> None:
    lesion = np.zeros_like(eye.fov)
    lesion[80:83, 90:94] = True
    for given in (~lesion, ~lesion & eye.fov):
        marked, said = labels.right_way_round(given, eye.fov, "t.png", "hard_exudates")
        np.testing.assert_array_equal(marked, lesion)
        assert "turned round" in said


@pytest.mark.parametrize("transparent", [0, 255, 90])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_drawn_in_black_on_transparent_is_marked(
    tmp_path: Path, eye: Phantom, transparent: int, mode: str
) -> None:
    colour = np.where(eye.vessels, 0, 0 if transparent == 90 else transparent).astype(np.uint8)
    alpha = np.where(eye.vessels, 255, transparent if transparent == 90 else 0).astype(np.uint8)
    path = saved(tmp_path, np.dstack([colour] * (3 if mode == "RGBA" else 1) + [alpha]))
    np.testing.assert_array_equal(io.read_mask(path, target="vessels"), eye.vessels)


@pytest.mark.parametrize("alpha", [0, 255])
def test_black_of_one_alpha_marks_nothing(tmp_path: Path, alpha: int) -> None:
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[..., 3] = alpha
    assert not io.read_mask(saved(tmp_path, pixels)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_named(tmp_path: Path, eye: Phantom, value: float) -> None:
    label = eye.vessels.astype(np.float32)
    label[label == 0] = value  # two values
    with pytest.raises(UserError, match=r"holds NaN or infinite values: expected a label image"):
        io.read_mask(saved(tmp_path, label, "t.tif"))


def test_without_a_field_of_view_the_whole_picture_counts(eye: Phantom) -> None:
    none = np.zeros_like(eye.fov)
    np.testing.assert_array_equal(labels.right_way_round(~eye.vessels, none, "t", "vessels")[0], eye.vessels)
