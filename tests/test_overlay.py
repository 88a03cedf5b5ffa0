import numpy as np

from retina_seg import overlay


def test_blend_colours_the_mask_and_nothing_else(drawn):
    before = drawn.image.copy()
    mask = np.stack([drawn.vessels, drawn.disc])
    out = overlay.blend(drawn.image, mask, ["vessels", "disc"], opacity=1.0)
    assert out.dtype == np.uint8
    untouched = ~mask.any(axis=0)
    np.testing.assert_array_equal(out[untouched], drawn.image[untouched])
    assert (out[drawn.disc] == overlay.COLOURS["disc"]).all()
    assert (out[drawn.vessels & ~drawn.disc] == overlay.COLOURS["vessels"]).all()
    np.testing.assert_array_equal(drawn.image, before)
    np.testing.assert_array_equal(overlay.blend(drawn.image, mask, ["vessels", "disc"], 0.0), drawn.image)


def test_unknown_targets_have_a_colour(drawn):
    out = overlay.blend(drawn.image, drawn.disc[None], ["drusen"], 1.0)
    assert (out[drawn.disc] == overlay.OTHER).all()


def test_colours_differ_between_targets():
    assert len({*overlay.COLOURS.values(), overlay.OTHER}) == len(overlay.COLOURS) + 1


def test_agreement_shows_hits_false_and_missed(drawn):
    mask = np.roll(drawn.vessels, 2, axis=1)
    out = overlay.agreement(drawn.image, mask, drawn.vessels, drawn.fov)
    for where, colour in (
        (mask & drawn.vessels, overlay.HIT),
        (mask & ~drawn.vessels, overlay.FALSE),
        (~mask & drawn.vessels, overlay.MISSED),
    ):
        assert (out[where & drawn.fov] == colour).all()
    rest = out[~mask & ~drawn.vessels]
    assert (rest[:, 0] == rest[:, 2]).all()


def test_the_legend_names_every_colour_and_fits():
    targets = ["microaneurysms", "haemorrhages", "hard_exudates", "soft_exudates", "disc"]
    heights = []
    for width in (150, 600, 4288):
        band = overlay.legend(width, targets)
        assert band.dtype == np.uint8
        assert band.shape[1:] == (width, 3)
        shown = {tuple(pixel) for pixel in np.unique(band.reshape(-1, 3), axis=0).tolist()}
        assert {overlay.colour(target) for target in targets} <= shown
        heights.append(band.shape[0] / max(width // 50, 11))
    assert heights == sorted(heights, reverse=True)  # more rows where it is narrow
    assert heights[0] > heights[-1]


def test_titles_are_words():
    assert overlay.title("hard_exudates") == "hard exudates"
    assert overlay.title("disc") == "optic disc"
    assert set(overlay.MEANING) == {"microaneurysms", "haemorrhages", "hard_exudates", "soft_exudates"}
