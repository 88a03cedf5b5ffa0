import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from retina_seg import preprocess
from retina_seg.errors import UserError
from retina_seg.preprocess import Preprocess


def test_standardised_inside_and_zero_outside(drawn):
    prepared = preprocess.apply(drawn.image, drawn.fov, Preprocess())
    inside = prepared.image[:, prepared.fov]
    np.testing.assert_allclose(inside.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(inside.std(axis=1), 1, atol=1e-4)
    assert not prepared.image[:, ~prepared.fov].any()
    assert prepared.image.dtype == np.float32
    assert prepared.image.transpose(1, 2, 0).flags.c_contiguous


def test_pixels_outside_the_field_of_view_do_not_matter(drawn):
    painted = drawn.image.copy()
    painted[~drawn.fov] = (255, 0, 128)
    expected = preprocess.apply(drawn.image, drawn.fov, Preprocess()).image
    np.testing.assert_array_equal(preprocess.apply(painted, drawn.fov, Preprocess()).image, expected)


def test_a_brighter_lamp_changes_nothing(drawn):
    dim = (drawn.image // 4 * 2).astype(np.uint8)
    bright = dim * 2
    expected = preprocess.apply(dim, drawn.fov, Preprocess()).image
    np.testing.assert_allclose(preprocess.apply(bright, drawn.fov, Preprocess()).image, expected, atol=1e-4)


@pytest.mark.parametrize(("colour", "channels"), [("rgb", 3), ("green", 1), ("grey", 1)])
@pytest.mark.parametrize("clahe", [False, True])
def test_colours(drawn, colour, channels, clahe):
    settings = Preprocess(colour=colour, clahe=clahe)
    before = drawn.image.copy()
    prepared = preprocess.apply(drawn.image, drawn.fov, settings)
    assert settings.channels == channels == prepared.image.shape[0]
    assert np.isfinite(prepared.image).all()
    np.testing.assert_array_equal(drawn.image, before)


def test_green_is_the_second_channel(drawn):
    rgb = preprocess.apply(drawn.image, drawn.fov, Preprocess()).image
    green = preprocess.apply(drawn.image, drawn.fov, Preprocess(colour="green")).image
    np.testing.assert_allclose(green[0], rgb[1], atol=1e-5)


def test_local_contrast_is_what_scipy_computes(drawn):
    """The definition, pixel by pixel where scipy's filter sees nothing of the border; inside the field of view."""
    sigma = 4.0
    prepared = preprocess.apply(drawn.image, drawn.fov, Preprocess(colour="green", local_contrast=sigma))
    y0, x0, y1, x1 = prepared.geometry.box
    core = binary_erosion(prepared.fov, iterations=preprocess.RIM)
    values, weight = drawn.image[y0:y1, x0:x1, 1].astype(float), core.astype(float)

    def smooth(array):
        return gaussian_filter(array, sigma, mode="constant", truncate=3)

    share = np.maximum(smooth(weight), 1e-6)
    centred = values - smooth(values * weight) / share
    expected = centred / np.maximum(np.sqrt(smooth(centred**2 * weight) / share), 0.5)
    found = prepared.image[0]
    slope, shift = np.polyfit(expected[core], found[core], 1)  # of mean 0 and deviation 1 over the whole field of view
    np.testing.assert_allclose(found[core], slope * expected[core] + shift, atol=0.02)
    nearest = distance_transform_edt(~core, return_distances=False, return_indices=True)
    np.testing.assert_array_equal(found, found[tuple(nearest)])


def test_local_contrast_sees_neither_lamp_nor_frame(drawn):
    settings = Preprocess(colour="rgb", local_contrast=8)
    expected = preprocess.apply(drawn.image, drawn.fov, settings).image
    painted = drawn.image.copy()
    painted[~drawn.fov] = 255
    np.testing.assert_array_equal(preprocess.apply(painted, drawn.fov, settings).image, expected)
    inside = preprocess.apply(drawn.image, drawn.fov, settings).fov
    np.testing.assert_allclose(expected[:, inside].std(axis=1), 1, atol=1e-3)
    # A slope of light over the whole retina all but vanishes.
    slope = np.linspace(0.5, 1, drawn.image.shape[1])[None, :, None]
    lit = preprocess.apply((drawn.image * slope).astype(np.uint8), drawn.fov, settings).image
    plain = Preprocess(colour="rgb")
    before = preprocess.apply(drawn.image, drawn.fov, plain).image
    after = preprocess.apply((drawn.image * slope).astype(np.uint8), drawn.fov, plain).image

    def correlation(a, b):
        return np.corrcoef(a[1][inside], b[1][inside])[0, 1]

    assert correlation(expected, lit) > 0.97 > correlation(before, after)


def test_local_contrast_of_a_flat_photograph_is_zero():
    image, fov = np.full((80, 90, 3), 77, np.uint8), np.ones((80, 90), bool)
    prepared = preprocess.apply(image, fov, Preprocess(local_contrast=5))
    np.testing.assert_allclose(prepared.image, 0, atol=1e-3)


def test_undo_puts_every_pixel_back(drawn):
    prepared = preprocess.apply(drawn.image, drawn.fov, Preprocess())
    truth = preprocess.apply_to_target(drawn.vessels, prepared.geometry)
    back = preprocess.undo(truth[None].astype(np.float32), drawn.fov, prepared.geometry)
    np.testing.assert_array_equal(back[0] > 0.5, drawn.vessels)


@pytest.mark.parametrize("diameter", [64, 200])
def test_undo_after_resampling_keeps_places(drawn, diameter):
    prepared = preprocess.apply(drawn.image, drawn.fov, Preprocess(fov_diameter=diameter))
    found = np.flatnonzero(prepared.fov.any(axis=0))
    assert found[-1] - found[0] + 1 == pytest.approx(diameter, abs=3)
    assert prepared.image.shape[1:] == prepared.fov.shape == prepared.geometry.work
    disc = preprocess.apply_to_target(drawn.disc, prepared.geometry).astype(np.float32)
    back = preprocess.undo(disc[None], drawn.fov, prepared.geometry)[0]
    assert back.shape == drawn.disc.shape
    centre = np.argwhere(back > 0.5).mean(axis=0)
    np.testing.assert_allclose(centre, np.argwhere(drawn.disc).mean(axis=0), atol=1.0)
    assert back.max() <= 1
    assert back.min() >= 0


@pytest.mark.parametrize("diameter", [None, 70, 150])
def test_a_pixel_of_the_photograph_is_found_in_what_is_read(drawn, diameter):
    geometry = preprocess.plan(drawn.fov, Preprocess(fov_diameter=diameter))
    y0, x0, y1, x1 = geometry.box
    height, width = geometry.work
    assert preprocess.place((y0, x0), geometry) == (0, 0)
    bottom, right = preprocess.place((y1 - 1, x1 - 1), geometry)
    step = 2 * max(1, height / (y1 - y0))
    assert height - step <= bottom < height
    assert width - step <= right < width
    rows = np.repeat(np.arange(drawn.image.shape[0], dtype=np.uint8)[:, None, None], drawn.image.shape[1], axis=1)
    y, x = preprocess.place((50, 40), geometry)
    shown = preprocess.crop(np.repeat(rows, 3, axis=2), geometry)  # every pixel says which row it comes from
    assert abs(int(shown[y, x, 0]) - 50) <= 1
    for outside in ((y1, x0), (y0, x1), (-1, x0)):
        with pytest.raises(UserError, match=r"is not read: the photograph is 112 x 120"):
            preprocess.place(outside, geometry)


def test_a_diameter_close_to_the_wanted_one_is_left_alone(drawn):
    columns = np.flatnonzero(drawn.fov.any(axis=0))
    diameter = int(columns[-1] - columns[0] + 1)
    near = preprocess.apply(drawn.image, drawn.fov, Preprocess(fov_diameter=round(diameter * 1.1)))
    assert near.geometry.work == near.geometry.crop


def test_undo_writes_nothing_outside_the_field_of_view(drawn):
    geometry = preprocess.plan(drawn.fov, Preprocess())
    prob = np.ones((2, *geometry.work), np.float32)
    full = preprocess.undo(prob, drawn.fov, geometry)
    assert full.shape == (2, *drawn.fov.shape)
    np.testing.assert_array_equal(full[0] > 0, drawn.fov)


def test_a_field_of_view_that_shows_no_retina_is_refused_at_once():
    shape = (500, 600)
    one, line, few, corner = (np.zeros(shape, bool) for _ in range(4))
    one[200, 300] = True
    line[250, 20:580] = True
    few[::90, ::90] = True
    corner[:15, :15] = True
    for fov in (one, line, few, corner):
        with pytest.raises(
            UserError, match=r"the field of view has \d+ pixels in a box of \d+ x \d+: expected one piece"
        ):
            preprocess.plan(fov, Preprocess(fov_diameter=540))
    corner[:16, :16] = True
    height, width = preprocess.plan(corner, Preprocess(fov_diameter=540)).work
    assert max(height, width) < 2 * 540
    with pytest.raises(UserError, match=r"would be enlarged to 14985 x 14985 px .* at most 8192"):
        preprocess.plan(corner, Preprocess(fov_diameter=9990))


def test_a_given_field_of_view_may_be_a_mask_of_any_type_but_no_probability():
    fov = np.zeros((40, 50), bool)
    fov[5:30, 5:45] = True
    for given in (fov, fov * np.uint8(255), fov.astype(int), fov.astype(np.float32), fov.tolist()):
        np.testing.assert_array_equal(preprocess.given_field(given, (40, 50, 3)), fov)
    with pytest.raises(UserError, match=r"values from 0 to 0\.\d+: expected bool, or 0"):
        preprocess.given_field(np.linspace(0, 0.9, 2000).reshape(40, 50), (40, 50, 3))
    for wrong in (fov.T, fov[..., None], "fov", fov[:1], None):
        with pytest.raises(UserError, match=r"expected bool \(40, 50\), as the image"):
            preprocess.given_field(wrong, (40, 50, 3))


def test_errors_name_what_was_given(drawn):
    with pytest.raises(UserError, match="field of view is empty"):
        preprocess.apply(drawn.image, np.zeros_like(drawn.fov), Preprocess())
    with pytest.raises(UserError, match="must be equal"):
        preprocess.apply(drawn.image, drawn.fov[1:], Preprocess())
    with pytest.raises(UserError, match="uint8"):
        preprocess.apply(drawn.image / 255.0, drawn.fov, Preprocess())
    with pytest.raises(UserError, match="infrared"):
        Preprocess(colour="infrared")
    with pytest.raises(UserError, match=r"local_contrast is 0\.5 px"):
        Preprocess(local_contrast=0.5)
