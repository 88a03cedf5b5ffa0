import json
from dataclasses import replace

import numpy as np
import pytest

from retina_seg import metrics, overlay
from retina_seg.viewer import pyramid
from retina_seg.viewer import scene as scenes
from retina_seg.viewer.pyramid import FULL
from retina_seg.viewer.scene import MESSAGE_BYTES, Scene, Source

SIZE = (200, 206)


@pytest.fixture
def scene(prediction, drawing):
    return Scene("one", "drawn:1", [Source("a", "vessels-drive", prediction)], {"vessels": drawing.vessels})


def test_the_opening_says_what_there_is_and_shows_all_of_it(scene, unpack, joined, prediction, drawing):
    header, tiles = unpack(scene.opening({"a:vessels": 0.7}, 7.5))
    told = header["scene"]
    assert (header["id"], told["id"], told["photograph"]) == ("one", "one", "drawn:1")
    assert (told["width"], told["height"], told["levels"]) == (*SIZE, [list(SIZE)])
    assert told["thresholds"] == {"a:vessels": 0.7}
    assert told["um_per_px"] == 7.5
    assert [layer["id"] for layer in told["layers"]] == ["a:vessels", "fov", "truth:vessels"]
    assert set(tiles) == {f"{plane}/0/0/0" for plane in ("colour", "prob:a:vessels", "fov", "truth:vessels")}
    assert {layer["plane"] for layer in told["layers"]} | {"colour", told["fov"]} == {
        key.split("/")[0] for key in tiles
    }
    np.testing.assert_array_equal(joined(tiles, "fov", 0, SIZE), prediction.fov)
    np.testing.assert_array_equal(joined(tiles, "truth:vessels", 0, SIZE), drawing.vessels)
    assert np.abs(joined(tiles, "colour", 0, SIZE).astype(int) - drawing.image).mean() < 4
    assert len(told["scale"]) == 256
    assert told["agreement"] == {
        "hit": list(overlay.HIT),
        "missed": list(overlay.MISSED),
        "false": list(overlay.FALSE),
    }


def test_what_is_marked_in_the_browser_is_the_mask_of_the_library(scene, unpack, joined, prediction):
    header, tiles = unpack(scene.opening({}))
    layer = header["scene"]["layers"][0]
    assert layer["threshold"] == prediction.thresholds[0]
    values = joined(tiles, "prob:a:vessels", 0, SIZE)
    for threshold in (layer["threshold"], 0.1, 0.9):
        marked = (values >= threshold * FULL) & prediction.fov
        mask = prediction.at(threshold).mask[0]
        differing = np.abs(prediction.prob[0][marked != mask] - threshold)
        assert (differing <= 0.51 / FULL).all()
        assert marked.mean() == pytest.approx(mask.mean(), abs=1e-3)


def test_the_histogram_gives_share_and_dice_at_any_threshold(scene, prediction, drawing):
    layer = scene.layers[0]
    unmarked, marked = counts = np.array(layer["histogram"])
    fov = prediction.fov
    assert counts.sum() == fov.sum()
    assert marked.sum() == (drawing.vessels & fov).sum()
    for bin_ in (41, 250, 512, 1000):
        mask = prediction.at(bin_ / counts.shape[1]).mask[0]
        assert counts[:, bin_:].sum() == mask.sum()
        hits, false = marked[bin_:].sum(), unmarked[bin_:].sum()
        dice = 2 * hits / (hits + false + marked.sum())
        assert dice == pytest.approx(metrics.dice(mask, drawing.vessels, fov))


def test_the_picture_knows_where_numbers_are_withheld(prediction, doubtful, worthless):
    for given, withheld in ((prediction, False), (doubtful, False), (worthless, True)):
        scene = Scene("s", "p", [Source("a", "m", given)], {})
        assert scene.layers[0]["withheld"] is withheld


def test_without_a_truth_nothing_is_scored(prediction):
    scene = Scene("one", "file:1", [Source("a", "m", prediction)], {})
    assert [layer["id"] for layer in scene.layers] == ["a:vessels", "fov"]
    assert not scene.layers[0]["scored"]
    assert sum(scene.layers[0]["histogram"][1]) == 0


def test_two_models_have_layers_of_their_own(two_targets, prediction, drawing, unpack, joined):
    sources = [Source("a", "first model", two_targets), Source("b", "second model", prediction)]
    scene = Scene("two", "drawn:1", sources, {"vessels": drawing.vessels})
    header, tiles = unpack(scene.opening({}))
    layers = {layer["id"]: layer for layer in header["scene"]["layers"]}
    assert list(layers) == ["a:vessels", "a:disc", "b:vessels", "fov", "truth:vessels"]
    assert layers["a:disc"]["title"] == "optic disc · first model"
    assert layers["b:vessels"]["title"] == "vessels · second model"
    assert [layers[name]["scored"] for name in ("a:vessels", "a:disc", "b:vessels")] == [True, False, True]
    assert layers["a:disc"]["colour"] == list(overlay.colour("disc"))
    assert layers["b:vessels"]["colour"] != layers["a:vessels"]["colour"]
    shown = joined(tiles, "prob:a:disc", 0, SIZE) / FULL
    np.testing.assert_allclose(shown, two_targets.prob[1], rtol=0, atol=1.01 / FULL)


def test_every_plane_that_has_a_name_can_be_asked_for(scene, unpack, joined, drawing):
    wanted = [f"{plane}/0/0/0" for plane in ("colour", "green", "contrast", "fov", "truth:vessels", "prob:a:vessels")]
    header, tiles = unpack(scene.answer(wanted))
    assert header["asked"] == wanted
    assert [tile["key"] for tile in header["tiles"]] == wanted
    green = joined(tiles, "green", 0, SIZE)
    assert np.abs(green.astype(int) - drawing.image[..., 1]).mean() < 4


@pytest.mark.parametrize(
    "key",
    [
        *("", "colour", "colour/0/0", "colour/0/0/x", "colour/0/0/1", "colour/0/-1/0", "colour/9/0/0", "colour/-1/0/0"),
        *("nothing/0/0/0", "truth:disc/0/0/0", "prob:a:disc/0/0/0", "prob:b:vessels/0/0/0", "prob:/0/0/0"),
        *("_planes/0/0/0", "colour:x/0/0/0", "contrast:y/0/0/0", "fov:z/0/0/0"),
        f"colour/0/0/{10**30}",
    ],
)
def test_tiles_that_do_not_exist_are_passed_over(scene, unpack, key):
    header, tiles = unpack(scene.answer([key, "fov/0/0/0"]))
    assert list(tiles) == ["fov/0/0/0"]
    assert header["asked"] == [key, "fov/0/0/0"]


def test_a_message_stays_small_and_holds_the_first_tiles(prediction, unpack):
    side = 2048
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)  # grain does not compress
    empty = np.zeros((1, side, side), np.float32)
    large = replace(prediction, image=image, fov=empty[0] == 0, prob=empty, mask=empty > 0)
    scene = Scene("large", "file:1", [Source("a", "m", large)], {})
    wanted = pyramid.keys("colour", 0, (side, side))
    header, tiles = unpack(scene.answer(wanted))
    assert 0 < len(tiles) < len(wanted)
    assert list(tiles) == wanted[: len(tiles)]
    assert sum(tile["length"] for tile in header["tiles"]) <= MESSAGE_BYTES
    assert len(unpack(scene.answer(wanted[len(tiles) :]))[1])


def test_a_single_tile_is_sent_however_large_it_is(scene, unpack, monkeypatch):
    monkeypatch.setattr(scenes, "MESSAGE_BYTES", 10)
    assert list(unpack(scene.answer(["colour/0/0/0", "fov/0/0/0"]))[1]) == ["colour/0/0/0"]


def test_a_large_photograph_opens_with_its_coarsest_level(prediction, unpack, joined):
    prob = np.random.default_rng(0).random((1, 1400, 2100), dtype=np.float32)
    image = np.zeros((1400, 2100, 3), np.uint8)
    image[..., 0] = 200
    large = replace(prediction, image=image, fov=np.ones((1400, 2100), np.bool_), prob=prob, mask=prob > 0.5)
    scene = Scene("large", "file:1", [Source("a", "m", large)], {})
    header, tiles = unpack(scene.opening({}))
    assert header["scene"]["levels"] == [[2100, 1400], [1050, 700]]
    assert {key.split("/")[1] for key in tiles} == {"1"}
    means = prob[0].reshape(700, 2, 1050, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(joined(tiles, "prob:a:vessels", 1, (1050, 700)) / FULL, means, rtol=0, atol=1.1 / FULL)
    assert joined(tiles, "colour", 1, (1050, 700))[..., 0].mean() > 190


def test_the_description_is_plain(scene):
    assert json.loads(json.dumps(scene.describe()))["layers"][0]["name"] == "vessels"
