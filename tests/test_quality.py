"""Doubts on drawn photographs and masks, on pictures that are no photographs of a fundus, and on real ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from retina_seg import datasets, io, phantom, quality
from retina_seg.fov import find_fov

Image = NDArray[np.uint8]
Bools = NDArray[np.bool_]
DIAMETER = 540
LEVELS, COLUMNS = np.mgrid[:584, :565].astype(np.float32)
DISC = np.hypot(LEVELS - 291.5, COLUMNS - 282) <= 265


def kinds(image: Image, fov: Bools, fov_diameter: int | None = DIAMETER) -> list[str]:
    return [doubt.kind for doubt in quality.of_photograph(image, fov, fov_diameter=fov_diameter)]


def rounded(values: NDArray) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blurred(image: Image, sigma: float) -> Image:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def noisy(image: Image, sd: float, *, light: float = 1.0) -> Image:
    return rounded(image * light + np.random.default_rng(0).normal(0, sd, image.shape))


@pytest.fixture(scope="module")
def drawings() -> list[phantom.Phantom]:
    return [phantom.draw(seed) for seed in range(3)]


# Photographs


def test_a_drawn_photograph_raises_no_doubt(drawings):
    for drawing in drawings:
        assert kinds(drawing.image, drawing.fov) == []
        assert kinds(drawing.image, find_fov(drawing.image)) == []


@pytest.mark.parametrize("width", [400, 1100])
def test_a_photograph_of_another_size_raises_no_doubt(width):
    drawing = phantom.draw(5, width=width, height=width)
    assert kinds(drawing.image, drawing.fov) == []


HARMLESS = {
    "blurred by 1 px": lambda image: blurred(image, 1.0),
    "half the light": lambda image: rounded(image * 0.5),
    "noise of 3 grey levels": lambda image: noisy(image, 3),
    "half the contrast": lambda image: rounded(image * 0.5 + 50),
    "a third more light": lambda image: rounded(image * 1.33),
    "mirrored": lambda image: image[:, ::-1],
}
HARMFUL = {
    "blurred by 2.5 px": (lambda image: blurred(image, 2.5), "blurred"),
    "blurred by 8 px": (lambda image: blurred(image, 8), "blurred"),
    "moved by 17 px": (lambda image: cv2.blur(image, (17, 1)), "blurred"),
    "moved aslant": (lambda image: cv2.filter2D(image, -1, np.eye(13, dtype=np.float32) / 13), "blurred"),
    "blurred, noise of 2 grey levels": (lambda image: noisy(blurred(image, 3), 2), "blurred"),
    "noise of 12 grey levels": (lambda image: noisy(image, 12), "noisy"),
    "little light": (lambda image: rounded(image * 0.1), "dark"),
    "little light and noise": (lambda image: noisy(image, 2, light=0.15), "noisy"),
    "three times the light": (lambda image: rounded(image * 3.0), "overexposed"),
    "green only": (lambda image: np.repeat(image[..., 1:2], 3, axis=2), "grey"),
    "red and blue exchanged": (lambda image: np.ascontiguousarray(image[..., ::-1]), "not_fundus"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_does_little_harm_raises_no_doubt(drawings, change):
    for drawing in drawings:
        fov = drawing.fov[:, ::-1] if change is HARMLESS["mirrored"] else drawing.fov
        assert kinds(change(drawing.image), fov) == []


@pytest.mark.parametrize(("change", "kind"), HARMFUL.values(), ids=HARMFUL.keys())
def test_what_does_harm_is_named_and_withholds_numbers_but_for_missing_colours(drawings, change, kind):
    for drawing in drawings:
        doubts = {doubt.kind: doubt for doubt in quality.of_photograph(change(drawing.image), drawing.fov)}
        assert doubts[kind].withholds == (kind != "grey")


def test_a_reduced_photograph_is_coarse_for_a_model_of_known_scale(drawings):
    drawing = drawings[0]
    for scale, expected in ((0.7, []), (0.5, ["coarse"])):
        image = cv2.resize(drawing.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        fov = cv2.resize(drawing.fov.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        assert kinds(image, fov) == expected
        assert kinds(image, fov, None) == []


def test_a_small_field_of_view_in_a_large_picture(drawings):
    drawing = drawings[0]
    for margin, expected in ((150, []), (400, ["small_fov"])):
        image = cv2.copyMakeBorder(drawing.image, *[margin] * 4, cv2.BORDER_CONSTANT, value=(7, 7, 7))
        assert kinds(image, np.pad(drawing.fov, margin)) == expected


def test_a_part_of_a_photograph_without_border(drawings):
    for drawing in drawings:
        part = drawing.image[90:490, 90:490]
        assert kinds(part, np.ones(part.shape[:2], bool)) == []
        part = drawing.image[200:400, 200:400]
        assert "coarse" in kinds(part, np.ones(part.shape[:2], bool))


def test_what_lies_outside_the_field_of_view_has_no_influence(drawings):
    drawing = drawings[1]
    for image in (drawing.image, blurred(drawing.image, 2.5)):
        other = image.copy()
        other[~drawing.fov] = np.random.default_rng(1).integers(0, 256, ((~drawing.fov).sum(), 3))
        assert quality.edges(other, drawing.fov) == quality.edges(image, drawing.fov)
        assert quality.of_photograph(other, drawing.fov) == quality.of_photograph(image, drawing.fov)


def test_edges_measure_the_blur_and_not_the_number_of_pixels(drawings):
    image, fov = drawings[0].image, drawings[0].fov
    own = quality.edges(image, fov).width
    for sigma in (2.0, 3.0, 4.0):
        assert quality.edges(blurred(image, sigma), fov).width == pytest.approx(np.hypot(own, sigma), rel=0.2)
    large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    wide = np.kron(fov, np.ones((3, 3), bool))
    assert quality.edges(large, wide).width == pytest.approx(own, rel=0.1)


def test_edges_of_a_flat_picture_are_nowhere():
    flat = np.full((64, 64, 3), (180, 95, 50), np.uint8)
    assert quality.edges(flat, np.ones((64, 64), bool)) == (float("inf"), 0.0, 0.0)
    assert quality.of_photograph(flat, np.ones((64, 64), bool)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (20, 20)])
def test_slivers_of_a_field_of_view_are_no_error(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    fov = np.ones(shape, bool)
    assert set(kinds(image, fov)) <= set(quality.KINDS)
    quality.of_mask("vessels", np.ones(shape, np.float32), fov, fov)


# Pictures of other things


def test_the_photograph_of_a_fundus_among_them_is_one():
    image = io.read_image(Path(skimage.__file__).parent / "data" / "retina.jpg")
    assert kinds(image, find_fov(image)) == []


def page(paper: tuple[int, ...], ink: tuple[int, ...]) -> Image:
    image = np.full((584, 565, 3), paper, np.uint8)
    for y in range(30, 570, 20):
        cv2.putText(image, "The quick brown fox jumps over the lazy dog again", (10, y), 0, 0.6, ink, 1, cv2.LINE_AA)
    return image


def tiles(colour: tuple[int, ...]) -> Image:
    bright = 0.5 + 0.5 * (np.indices((584, 565)) // 40).sum(axis=0) % 2
    return rounded(bright[..., None] * np.array(colour))


OTHER = {
    "white": np.full((584, 565, 3), 255, np.uint8),
    "page": page((255, 255, 255), (0, 0, 0)),
    "dark page": page((30, 30, 30), (220, 220, 220)),
    "tiles": tiles((200, 200, 200)),
    "orange tiles": tiles((200, 105, 60)),
    "sky": rounded((0.5 + COLUMNS / 1200)[..., None] * np.array([110, 160, 230])),
}


@pytest.mark.parametrize("disc", [False, True], ids=["whole", "cut to a circle"])
@pytest.mark.parametrize("image", OTHER.values(), ids=OTHER.keys())
def test_white_paper_steep_outlines_and_blue_light_are_no_fundus(image, disc):
    image = image * DISC[..., None] if disc else image
    assert kinds(image, DISC if disc else np.ones_like(DISC))[0] == "not_fundus"


# Masks


def doubts_of(target: str, mask: Bools, fov: Bools) -> list[quality.Doubt]:
    return quality.of_mask(target, mask.astype(np.float32), mask, fov)


def test_a_drawn_vessel_tree_raises_no_doubt(drawings):
    for drawing in drawings:
        assert doubts_of("vessels", drawing.vessels, drawing.fov) == []
        assert doubts_of("disc", drawing.disc, drawing.fov) == []
        large = np.kron(drawing.vessels, np.ones((3, 3), bool)), np.kron(drawing.fov, np.ones((3, 3), bool))
        assert doubts_of("vessels", *large) == []


def specks(fov: Bools, size: int, share: float) -> Bools:
    rng = np.random.default_rng(0)
    few = rng.random((fov.shape[0] // size + 1, fov.shape[1] // size + 1)) < share
    return np.kron(few, np.ones((size, size), bool))[: fov.shape[0], : fov.shape[1]] & fov


def test_masks_that_are_no_vessel_tree_are_implausible(drawings):
    fov, vessels = drawings[0].fov, drawings[0].vessels
    thick = cv2.dilate(vessels.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    broad = fov & (np.hypot(LEVELS - 200, COLUMNS - 250) < 100)
    dashed = vessels & (LEVELS % 24 < 14) & (COLUMNS % 24 < 14)
    wrong = {
        "all": fov,
        "thick": thick,
        "broad": broad,
        "specks": specks(fov, 5, 0.12),
        "dashed": dashed,
        "hardly any": vessels & (LEVELS < 120),
    }
    for name, mask in wrong.items():
        found = doubts_of("vessels", mask & fov, fov)
        assert [doubt.kind for doubt in found] == ["implausible"], name
        assert found[0].withholds, name
    assert "pieces" in doubts_of("vessels", dashed, fov)[0].text
    assert "Broad" in doubts_of("vessels", broad, fov)[0].text
    assert [doubt.kind for doubt in doubts_of("disc", fov, fov)] == ["implausible"]


def test_an_empty_mask_is_doubted_only_of_what_every_eye_has(drawings):
    fov = drawings[0].fov
    prob = np.full(fov.shape, 0.125, np.float32)
    for target in ("vessels", "disc"):
        (doubt,) = quality.of_mask(target, prob, np.zeros_like(fov), fov)
        assert (doubt.kind, doubt.withholds) == ("empty", True)
        assert "0.12" in doubt.text
        assert target in doubt.text
    assert quality.of_mask("hard_exudates", prob, np.zeros_like(fov), fov) == []
    assert doubts_of("hard_exudates", specks(fov, 5, 0.01), fov) == []


def test_of_a_mask_only_the_field_of_view_counts(drawings):
    fov, vessels = drawings[0].fov, drawings[0].vessels
    for mask in (vessels, np.zeros_like(fov), specks(fov, 5, 0.12)):
        prob = mask * np.float32(0.5)
        assert quality.of_mask("vessels", prob + ~fov, mask | ~fov, fov) == quality.of_mask("vessels", prob, mask, fov)


def test_doubts_are_sentences_of_a_known_kind(drawings):
    image, fov, vessels = drawings[0].image, drawings[0].fov, drawings[0].vessels
    found = [doubt for change, _ in HARMFUL.values() for doubt in quality.of_photograph(change(image), fov)]
    found += quality.of_photograph(image, fov, fov_diameter=1500) + doubts_of("vessels", fov, fov)
    found += quality.of_photograph(np.pad(image, ((400, 400), (400, 400), (0, 0))), np.pad(fov, 400))
    found += doubts_of("vessels", vessels & False, fov)
    covered, bright = image.copy(), np.where(fov[..., None], image, np.uint8(180))
    covered[200:300, 100:250] = 255
    for other in (covered, np.concatenate([image, drawings[1].image], axis=1)):
        found += quality.of_photograph(other, find_fov(other))
    found += quality.of_photograph(bright, np.ones_like(fov))
    assert {doubt.kind for doubt in found} == set(quality.KINDS)
    assert all(doubt.text[0].isupper() and doubt.text.endswith(".") and "{" not in doubt.text for doubt in found)


def test_wrong_arrays_are_refused(drawings):
    image, fov = drawings[0].image, drawings[0].fov
    for wrong in (image[..., 0], image.astype(np.float32), image[:-1]):
        with pytest.raises(ValueError, match="expected"):
            quality.of_photograph(wrong, fov)
    with pytest.raises(ValueError, match="at least one pixel"):
        quality.of_photograph(image, np.zeros_like(fov))
    with pytest.raises(ValueError, match="one shape"):
        quality.of_mask("vessels", np.zeros((3, 3), np.float32), np.zeros((3, 4), bool), np.ones((3, 3), bool))


def test_inputs_are_left_as_they_are(drawings):
    image, fov, mask = drawings[0].image.copy(), drawings[0].fov.copy(), drawings[0].vessels.copy()
    quality.of_photograph(image, fov)
    doubts_of("vessels", mask, fov)
    assert np.array_equal(image, drawings[0].image)
    assert np.array_equal(fov, drawings[0].fov)
    assert np.array_equal(mask, drawings[0].vessels)


# Real photographs


@pytest.mark.parametrize(
    ("name", "step"), [("drive", 7), ("stare", 6), ("chase_db1", 7), ("idrid_grade", 60)], ids=lambda value: str(value)
)
def test_real_photographs_raise_no_doubt_until_they_are_blurred(data_root, name, step):
    for row in datasets.rows(name)[::step]:
        sample = datasets.load(row, data_root)
        fov = find_fov(sample.image) if sample.fov is None else sample.fov
        assert kinds(sample.image, fov) == [], row.id
        if "vessels" in sample.targets:
            assert doubts_of("vessels", sample.targets["vessels"], fov) == [], row.id
        width = np.flatnonzero(fov.any(axis=0))
        sigma = 2.5 * (width[-1] - width[0] + 1) / quality.WORK_WIDTH
        assert kinds(blurred(sample.image, sigma), fov) == ["blurred"], row.id
