"""The same photograph, the same eye, or neither: drawn pairs with known answers."""

import io

import cv2
import numpy as np
import pytest
from drawn_set import photograph
from PIL import Image

from retina_seg import duplicates
from retina_seg.duplicates import SAME_EYE, SAME_PHOTOGRAPH


def large(seed: int = 0) -> np.ndarray:
    return photograph(seed, 440, 420)[0]


def encoded(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def window(image: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """What a camera sees of the eye when it is moved by (dx, dy): the disc of view stays in the frame."""
    moved = np.roll(image, (-dy, -dx), axis=(0, 1))
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    view = (y - 210) ** 2 + (x - 220) ** 2 < 150**2
    return np.where(view[..., None], moved, 3).astype(np.uint8)


COPIES = {
    "encoded anew": lambda image: encoded(image, 70),
    "reduced": lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "enlarged": lambda image: cv2.resize(image, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "another frame": lambda image: np.pad(image, ((0, 0), (60, 20), (0, 0))),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_copies_are_the_same_photograph(change):
    copy = change(large())
    original, other = duplicates.view(large()), duplicates.view(copy)
    assert duplicates.compare(original, other)[0] == SAME_PHOTOGRAPH
    hashes = [duplicates.perceptual_hash(photo) for photo in (original, other)]
    assert duplicates.likeness(hashes[:1], hashes[1:])[0, 0] >= duplicates.SAME_LIKENESS


@pytest.mark.parametrize(("dx", "dy"), [(12, 5), (-25, 20)])
def test_a_second_photograph_of_an_eye_is_the_same_eye_only(dx, dy):
    first, second = (duplicates.view(window(large(), *shift)) for shift in ((0, 0), (dx, dy)))
    relation, similarity = duplicates.compare(first, second)
    assert relation == SAME_EYE
    assert similarity < 0.9


def test_different_eyes_are_not_related():
    views = [duplicates.view(large(seed)) for seed in range(3)]
    hashes = [duplicates.perceptual_hash(view) for view in views]
    alike = duplicates.likeness(hashes, hashes)
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert (alike[~np.eye(3, dtype=bool)] < duplicates.SAME_LIKENESS).all()
    for first in range(3):
        for second in range(first):
            assert duplicates.compare(views[first], views[second])[0] == ""


def test_find_gives_every_pair_once_and_reports_progress():
    images = [large(0), window(large(1), 0, 0), encoded(large(0), 80), window(large(1), 15, 9), large(2)]
    calls = []
    pairs = duplicates.find([duplicates.view(image) for image in images], progress=lambda *c: calls.append(c))
    assert [(pair.first, pair.second, pair.relation) for pair in pairs] == [
        (0, 2, SAME_PHOTOGRAPH),
        (1, 3, SAME_EYE),
    ]
    assert calls == [(number, 5) for number in range(1, 6)]


def test_nothing_and_blank_images_have_no_pairs():
    assert duplicates.find([]) == []
    blank = [np.zeros((80, 80, 3), np.uint8), np.full((80, 80, 3), 90, np.uint8)]
    assert duplicates.find([duplicates.view(image) for image in blank]) == []


def test_views_do_not_change_their_image():
    image = large().copy()
    duplicates.perceptual_hash(duplicates.view(image))
    np.testing.assert_array_equal(image, large())


def test_local_contrast_ignores_what_is_outside():
    grey = np.random.default_rng(0).normal(100, 10, (40, 40)).astype(np.float32)
    inside = np.zeros((40, 40), bool)
    inside[8:30, 5:33] = True
    changed = np.where(inside, grey, 1e4).astype(np.float32)
    np.testing.assert_allclose(
        duplicates.local_contrast(changed, inside, 3), duplicates.local_contrast(grey, inside, 3), atol=1e-3
    )


def test_likeness_is_the_correlation_of_the_cells():
    def code(*cells):
        return np.packbits([[c < 0, c > 0] for c in (*cells, *[0] * (400 - len(cells)))]).tobytes().hex()

    hashes = [code(1, 1, 0), code(1, -1, 0), code(-1, -1), code(1, 1, 1, 1), ""]
    np.testing.assert_allclose(duplicates.likeness(hashes[:1], hashes), [[1, 0, -1, 2 / 8**0.5, 0]], atol=1e-6)
