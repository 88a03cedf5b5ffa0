"""Pictures that are no photographs of a retina get no grade, no lesions and no vessels, from any model; retinas do."""

from pathlib import Path

import cv2
import numpy as np
import other_pictures
import pytest
import skimage
from numpy.typing import NDArray

from retina_seg import Segmenter, datasets, extents, gate, inference, io, phantom, quality, zoo
from retina_seg.classify.inference import Classifier
from retina_seg.errors import UserError
from retina_seg.fov import find_fov
from retina_seg.viewer import graders, numbers
from retina_seg.viewer.opened import Loaded

Image = NDArray[np.uint8]


def kinds(image: Image) -> list[str]:
    """Of what is doubted in a photograph; "refused" where no field of view is found."""
    try:
        return [doubt.kind for doubt in inference.photograph_doubts(image, find_fov(image))]
    except UserError:
        return ["refused"]


def passes(image: Image) -> bool:
    try:
        return not quality.withheld(inference.photograph_doubts(image, find_fov(image)))
    except UserError:
        return False


def rounded(values: NDArray) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def leaf() -> Image:
    return other_pictures.picture("leaf", 1, like_a_retina=True, circle=True)


@pytest.fixture(scope="module")
def drawing() -> phantom.Phantom:
    return phantom.draw(0)


# Other pictures


def test_hardly_any_picture_of_something_else_passes():
    made = [
        (kind, seed, like_a_retina, circle)
        for kind in other_pictures.KINDS
        for seed in range(3)
        for like_a_retina in (False, True)
        for circle in (False, True)
    ]
    assert len(made) >= 200
    passed = [
        key for key in made if passes(other_pictures.picture(key[0], key[1], like_a_retina=key[2], circle=key[3]))
    ]
    assert len(passed) <= 0.02 * len(made), passed


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut to a circle"])
@pytest.mark.parametrize(
    "name", ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "ihc.png", "rocket.jpg"]
)
def test_photographs_of_other_things_do_not_pass(name, cut):
    image = io.read_image(Path(skimage.__file__).parent / "data" / name)
    if cut:
        rows, columns = np.indices(image.shape[:2])
        side = min(image.shape[:2])
        image[np.hypot(rows - image.shape[0] / 2, columns - image.shape[1] / 2) > 0.48 * side] = 0
    assert not passes(image)


def test_a_retina_whose_vessels_shine_or_are_as_dark_in_red_as_in_green_does_not_pass(drawing):
    green = drawing.image[..., 1:2].astype(float)
    usual = np.median(green[drawing.fov])
    for part in (green / usual, 2 - green / usual):  # one scale of colours; as in an angiogram
        assert not passes(rounded(part * [160, 90, 50] * drawing.fov[..., None]))


def test_what_does_not_pass_is_told_in_a_sentence_that_leaves_a_sick_eye_possible():
    image = leaf()
    (doubt,) = inference.photograph_doubts(image, find_fov(image))
    assert doubt.kind in quality.KINDS
    assert doubt.withholds
    assert doubt.text.startswith("No vessel tree")
    assert "haze" in doubt.text


# Photographs of a retina


@pytest.mark.parametrize("width", [300, 560, 900])
def test_drawn_photographs_pass_at_every_size(width):
    for seed in range(3):
        assert kinds(phantom.draw(seed, width=width, height=width).image) == []


CAMERAS = {
    "greenish": (0.6, 1.3, 1.0),
    "bluish": (0.6, 1.0, 1.6),
    "red": (1.5, 0.6, 0.6),
    "magenta": (1.2, 0.6, 1.6),
}


@pytest.mark.parametrize("gains", CAMERAS.values(), ids=CAMERAS.keys())
@pytest.mark.parametrize("sharpened", [0.0, 0.7])
def test_a_camera_of_another_white_balance_takes_photographs_of_a_retina(drawing, gains, sharpened):
    image = drawing.image.astype(np.float32)
    image += sharpened * (image - cv2.GaussianBlur(image, (0, 0), 1.5))
    assert kinds(rounded(image * gains)) == []


def test_a_retina_in_bad_light_is_not_called_another_thing(drawing):
    hazy = rounded(cv2.GaussianBlur(drawing.image, (0, 0), 2.5) * 0.5 + 60 * drawing.fov[..., None])
    for image, kind in ((hazy, "blurred"), (rounded(drawing.image * 0.1), "dark")):
        assert kind in kinds(image)
        assert not {"not_fundus", "implausible"} & set(kinds(image))


@pytest.mark.parametrize(
    ("name", "step"), [("drive", 8), ("stare", 7), ("chase_db1", 9), ("idrid_seg", 27), ("idrid_grade", 120)]
)
def test_real_photographs_pass(data_root, name, step):
    for row in datasets.rows(name)[::step]:
        sample = datasets.load(row, data_root)
        for gains in ((1.0, 1.0, 1.0), (0.6, 1.2, 1.4)):
            assert passes(rounded(sample.image * gains)), (row.id, gains)


# Every model asks the same


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_that_marks_withholds_its_numbers(name):
    large = cv2.resize(leaf(), None, fx=1.6, fy=1.6)  # else it is too coarse for some
    found = Segmenter.from_pretrained(name, "cpu", flips=False).predict(large)
    assert "implausible" in [doubt.kind for doubt in found.photograph_doubts]
    assert extents.withheld(found)
    assert extents.measure(found, None) == {}
    assert extents.disc_pixels(found) is None
    assert numbers.measure(found) == {}
    assert any(text.startswith("No vessel tree") for text in found.provenance["warnings"])
    again = found.at(*(0.5 for _ in found.targets))
    assert again.photograph_doubts == found.photograph_doubts


def test_the_answer_does_not_depend_on_the_model(drawing):
    for name in zoo.names():
        found = Segmenter.from_pretrained(name, "cpu", flips=False).predict(drawing.image)
        assert {doubt.kind for doubt in found.photograph_doubts} <= {"coarse"}


def test_looking_for_a_retina_changes_doubts_only(tiny_run):
    image = leaf()
    segmenter = Segmenter.from_pretrained(tiny_run, "cpu")
    judged, other = segmenter.predict(image), segmenter.predict(image, judge=False)
    assert np.array_equal(judged.prob, other.prob)
    assert np.array_equal(judged.mask, other.mask)
    assert "implausible" in [doubt.kind for doubt in judged.photograph_doubts]
    assert other.photograph_doubts == ()


def loaded(image: Image) -> Loaded:
    return Loaded(image, None, {})


def test_a_grader_answers_about_a_colour_photograph_of_a_retina_only(grader_run, drawing):
    grey = np.repeat(drawing.image[..., 1:2], 3, axis=2)
    grader = Classifier.from_pretrained(grader_run, "cpu")
    for image, kind in ((drawing.image, None), (leaf(), "implausible"), (grey, "grey")):
        said = grader.predict(image)
        assert [doubt.kind for doubt in said.doubts] == ([] if kind is None else [kind])
        assert said.withheld == (kind is not None)
        shown = graders.grade(str(grader_run), loaded(image))
        assert bool(shown.answers) == bool(shown.figures) == (kind is None)
        assert list(shown.doubts) == [doubt.text for doubt in said.doubts]


def test_vessels_of_a_photograph_without_colours_are_measured_all_the_same(drawing):
    grey = np.repeat(drawing.image[..., 1:2], 3, axis=2)
    found = Segmenter.from_pretrained("vessels-small", "cpu").predict(grey)
    assert [doubt.kind for doubt in found.doubts] == ["grey"]
    assert numbers.measure(found)


# Measures


def measured(image: Image, fov: NDArray[np.bool_], prob: NDArray[np.float32]) -> dict[str, float]:
    return gate.measures(*quality.reduced(image, fov), prob)


def test_the_true_vessels_of_a_drawing_are_measured_and_only_those_of_the_field(drawing):
    small, inside = quality.reduced(drawing.image, drawing.fov)
    vessels, _ = quality.reduced(np.repeat(drawing.vessels[..., None] * np.uint8(255), 3, axis=2), drawing.fov)
    prob = vessels[..., 0] / np.float32(255)
    found = gate.measures(small, inside, prob)
    assert set(found) == set(gate.USUAL)
    assert found["dark"] > 0.9  # nearly everywhere darker than around
    assert 0.2 < found["red"] < 0.5  # in red a third as dark as in green, as they are drawn
    assert found["thick"] == pytest.approx(5, abs=2)  # px
    noise = np.random.default_rng(0).integers(0, 256, small.shape).astype(np.uint8)
    other = gate.measures(np.where(inside[..., None], small, noise), inside, np.where(inside, prob, np.float32(1)))
    for name in ("dark", "largest", "pieces", "radial"):
        assert other[name] == pytest.approx(found[name], rel=1e-4), name


def test_measures_tell_shapes_apart(drawing):
    small, inside = quality.reduced(drawing.image, drawing.fov)
    rows, columns = np.indices(inside.shape)
    stripes = ((rows % 30 < 4) & inside).astype(np.float32)
    spokes = ((np.arctan2(rows - 270, columns - 270) * 20 / np.pi % 2 < 0.3) & inside).astype(np.float32)
    of_stripes, of_spokes = (gate.measures(small, inside, prob) for prob in (stripes, spokes))
    assert of_stripes["one_way"] > 0.9 > 0.3 > of_spokes["one_way"]
    assert of_spokes["radial"] > 0.8 > of_stripes["radial"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (20, 20)])
def test_slivers_and_flat_pictures_are_strange_but_no_error(shape):
    image, fov = np.full((*shape, 3), (180, 95, 50), np.uint8), np.ones(shape, bool)
    found = gate.measures(image, fov, np.zeros(shape, np.float32))
    assert np.isfinite(list(found.values())).all()
    assert gate.strangeness(found, grey=False) > gate.STRANGE
    assert gate.strangeness(found, grey=True) > gate.STRANGE_GREY


def test_each_measure_counts_by_how_far_it_lies_beyond_the_usual():
    usual = {name: (one.low + one.high) / 2 for name, one in gate.USUAL.items()}
    assert gate.strangeness(usual, grey=False) == 0
    for name, (low, high, step) in gate.USUAL.items():
        assert low < high
        for value, expected in ((low, 0), (high, 0), (low - 2 * step, 2), (high + 3 * step, 3), (high + 99 * step, 4)):
            found = usual | {name: value}
            assert gate.strangeness(found, grey=False) == pytest.approx(expected)
            assert gate.strangeness(found, grey=True) == pytest.approx(0 if name in gate.NEEDS_COLOUR else expected)


def test_inputs_are_left_as_they_are(drawing):
    image, fov = drawing.image.copy(), drawing.fov.copy()
    inference.photograph_doubts(image, fov)
    assert np.array_equal(image, drawing.image)
    assert np.array_equal(fov, drawing.fov)
