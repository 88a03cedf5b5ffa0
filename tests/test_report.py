import json
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from retina_seg import explain, figures, report
from retina_seg.checkpoint import Card, CardModel
from retina_seg.cli import app
from retina_seg.errors import UserError
from retina_seg.inference import Segmenter
from retina_seg.models import build_model


def test_a_run_is_drawn(tiny_run, drawn_drive, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    paths = report.draw_run(run, drawn_drive)
    assert [path.relative_to(run).as_posix() for path in paths] == [
        "curves.png",
        *(f"samples/drive_{number}_vessels.png" for number in range(37, 41)),
    ]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_curves_show_the_log():
    log = [{"step": s, "loss": 1 / s, "dice": s / 10, "auc": 0.9, "seconds": s} for s in (1, 2, 3)]
    left, right = report.curves(log, "validation images").axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [(1, 1), (2, 0.5), (3, 1 / 3)])
    assert [line.get_label() for line in right.lines] == ["dice", "auc"]
    assert right.get_title() == "validation images"


def test_an_empty_log_can_be_drawn():
    assert not report.curves([], "validation images").axes[1].lines


def test_the_log_of_a_classifier_is_drawn(tmp_path):
    scores = {"minus_loss": -1.0, "dr_grade_accuracy": 0.5, "size_rmse": 2.0}
    lines = [json.dumps({"step": s, "loss": 1 / s, **scores}) for s in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (path,) = report.draw_log(tmp_path)
    assert path == tmp_path / "curves.png"
    first = path.read_bytes()
    (tmp_path / "log.jsonl").write_text("\n".join(lines[:2]), encoding="utf-8")
    report.draw_log(tmp_path)
    assert path.read_bytes() != first
    log = [json.loads(line) for line in lines]
    _, right = report.curves(log, "watched", scores=("accuracy", "rmse"), ylabel="score").axes
    assert [line.get_label() for line in right.lines] == ["dr_grade_accuracy", "size_rmse"]
    assert right.get_ylabel() == "score"
    for axes in report.curves(log[:1], "watched", scores=("accuracy",)).axes:
        assert [line.get_marker() for line in axes.lines] == ["o"]  # a line of one point would not be seen


def test_compared_curves_count_what_was_seen():
    log = [{"step": s, "loss": 1 / s, "auc": 0.9 + s / 100} for s in (1, 2, 3)]
    left, right = report.compared_curves({"slow": (log, 0.5), "fast": (log[:2], 2)}, "validation images").axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [(0.5, 1), (1, 0.5), (1.5, 1 / 3)])
    np.testing.assert_allclose(right.lines[1].get_xydata(), [(2, 0.91), (4, 0.92)])
    assert [line.get_label() for line in right.lines] == ["slow", "fast"]


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no configuration"):
        report.draw_run(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "csc_unet",
            {"atoms": 6, "side": 5, "features": [4] * 6},
            ["votes", "atoms", "codes", "penalties", "rebuilt", "objective"],
        ),
        ("dict_unet", {"count": 6, "side": 5, "features": [4] * 6}, ["atoms", "codes", "penalties"]),
        (
            "patch_dictionary",
            {"count": 20, "side": 5, "scales": [1, 2], "steps": 5, "readout": "ridge"},
            ["votes", "atoms-1", "atoms-2", "codes-1", "codes-2", "objective"],
        ),
    ],
)
def test_a_dictionary_is_drawn(name, arguments, expected, drawn, tmp_path):
    net = build_model(name, 1, 1, arguments=arguments)
    preprocess = {"colour": "green", "local_contrast": 10}
    card = Card(
        name="tried",
        targets=("vessels",),
        model=CardModel(name=name, in_channels=1, arguments=arguments),
        preprocess=preprocess,
        thresholds={"vessels": 0.5},
        threshold_source="none",
        parameters=0,
    )
    pixel = (50, 60) if "votes" in expected else None
    paths = report.draw_dictionary(Segmenter(net, card, "cpu"), drawn.image, tmp_path / "explained", pixel)
    assert [path.name for path in paths] == [f"{one}.png" for one in expected]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_atoms_stand_in_the_order_of_their_use():
    image = np.zeros((3, 1, 3, 3), np.float32)
    image[:, 0, 1, 1] = (0.2, -0.5, 1.0)
    found = explain.Atoms(image, None, 1)
    figure = report.atom_grid(found, np.array([0.1, 0.3, 0.2], np.float32))
    (picture,) = figure.axes[0].images
    np.testing.assert_allclose(picture.get_array()[1, [1, 5, 9]], [-0.5, 1.0, 0.2])
    assert picture.norm.vmin == -picture.norm.vmax == -1
    paired = report.atom_grid(explain.Atoms(image, 2 * image, 1), np.array([0.1, 0.3, 0.2], np.float32))
    np.testing.assert_allclose(paired.axes[0].images[0].get_array()[1, [1, 4]], [-0.5, -0.5])


def test_penalties_stand_in_the_order_of_use():
    figure = report.penalties(np.array([0.3, 0.1, 0.2], np.float32), np.array([0.1, 0.3, 0.2], np.float32))
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    np.testing.assert_allclose(heights, [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["1", "2", "0"]


def test_votes_are_drawn_the_loudest_first_with_their_label_atoms():
    image = np.zeros((3, 1, 3, 3), np.float32)
    image[:, 0, 1, 1] = (0.2, -0.5, 1.0)
    found = [explain.Vote(2, 1, -0.7), explain.Vote(2, 2, 0.1)]
    figure = report.votes(found, [explain.Atoms(image, None, 1), explain.Atoms(image, 4 * image, 2)])
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title().split()[0] for axes in shown] == ["-0.700", "+0.100"]
    picture = shown[0].images[0].get_array()
    assert picture.shape == (3, 7)
    np.testing.assert_allclose(picture[1, [1, 5]], [-0.5, -0.5])
    assert not report.votes([], [explain.Atoms(image, None, 1)]).axes[0].images


def test_the_command_explains(tiny_run, drawn, tmp_path):
    result = CliRunner().invoke(app, ["explain", str(tiny_run), str(tmp_path / "eye.png")])
    assert result.exit_code != 0
    assert "eye.png" in str(result.exception)
    Image.fromarray(drawn.image).save(tmp_path / "eye.png")
    result = CliRunner().invoke(app, ["explain", str(tiny_run), str(tmp_path / "eye.png")])
    assert "a UNet has no dictionary to show" in str(result.exception)


def test_the_command_draws_the_votes_at_a_pixel(drawn, tmp_path):
    Image.fromarray(drawn.image).save(tmp_path / "eye.png")
    command = ["explain", "vessels-csc", str(tmp_path / "eye.png"), "--out", str(tmp_path / "explained"), "--pixel"]
    outside = CliRunner().invoke(app, [*command, "500", "3"])
    assert "pixel 500, 3 is not read: the photograph is 112 x 120" in str(outside.exception)
    corner = CliRunner().invoke(app, [*command, "8", "12"])
    assert "pixel 8, 12" in str(corner.exception)  # within the box around the field of view, but outside it
    assert not (tmp_path / "explained").exists()
    assert CliRunner().invoke(app, [*command, "50", "60"]).exit_code == 0
    names = {path.stem for path in (tmp_path / "explained").glob("*.png")}
    assert names == {"votes", "atoms", "codes", "penalties", "rebuilt", "objective"}


def _pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(report.png(figure))).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_filters_stand_side_by_side_on_one_scale(channels):
    filters = np.zeros((20, channels, 3, 3), np.float32)
    filters[:, :, 1, 1] = np.linspace(-1, 0.5, 20)[:, None]
    figure = figures.filter_grid(filters)
    (picture,) = figure.axes[0].images
    shown = np.asarray(picture.get_array())
    if channels == 3:  # grey is zero, one is the largest weight
        assert shown.shape == (8, 64, 3)
        np.testing.assert_allclose(shown[[1, 1, 5], [1, 5, 13], 0], 0.5 + filters[[0, 1, 19], 0, 1, 1] / 2, atol=1e-6)
    else:
        assert shown.shape == (8, 64)
        np.testing.assert_allclose(shown[[1, 1, 5], [1, 5, 13]], filters[[0, 1, 19], 0, 1, 1], atol=1e-6)
        assert picture.norm.vmin == -picture.norm.vmax == -1
    assert figure.axes[0].get_title() == "20 filters of 3 x 3 px"
    assert (_pixels(figure) != _pixels(figures.filter_grid(filters[::-1]))).any()


def test_no_more_than_256_filters_are_drawn():
    figure = figures.filter_grid(np.random.default_rng(0).standard_normal((300, 1, 2, 2)).astype(np.float32))
    assert figure.axes[0].get_title() == "the first 256 of 300 filters of 2 x 2 px"
    assert figure.axes[0].images[0].get_array().shape == (16 * 3, 16 * 3)


def test_the_feature_maps_that_vary_most_are_drawn_block_by_block():
    maps = {"one": np.zeros((5, 8, 8), np.float32), "two": np.zeros((2, 4, 900), np.float32)}
    maps["one"][3, 2, 2], maps["one"][1, 2, 2], maps["two"][1, 0, 0] = 5, 2, 1
    figure = figures.feature_map_grid(maps, count=3)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["map 3", "map 1", "map 0", "map 1", "map 0"]
    np.testing.assert_array_equal(shown[0].images[0].get_array(), maps["one"][3])
    assert max(shown[3].images[0].get_array().shape) == 640
    assert figure.axes[3].get_ylabel() == "two\n2 x 4 x 900"
    assert not figures.feature_map_grid({}).axes


def test_patches_that_excite_a_unit_are_drawn_with_its_values():
    patch = np.zeros((3, 5, 5), np.float32)
    patch[0, 2, 2] = 1
    found = [explain.Activation(7, (1, 1), patch, 2.5), explain.Activation(3, (0, 1), -patch, 1.25)]
    shown = [axes for axes in figures.activating_grid(found).axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["2.5, image 7", "1.25, image 3"]
    first, second = (np.asarray(axes.images[0].get_array())[2, 2] for axes in shown)
    np.testing.assert_array_equal([first, second], [(255, 0, 0), (0, 255, 255)])
    assert figures.activating_grid([]).axes


def test_a_class_activation_lies_over_its_place():
    cam = np.zeros((40, 60), np.float32)
    cam[4:14, 5:20] = 1
    grey = np.full((40, 60, 3), 128, np.uint8)
    figure = figures.activation_overlay(grey, cam, title="grade 3")
    left, right, *_ = figure.axes
    assert right.get_title() == "grade 3"
    np.testing.assert_array_equal(left.images[0].get_array(), grey)
    np.testing.assert_array_equal(right.images[1].get_array(), cam)
    drawn = _pixels(figure)
    where = right.transData.transform([(12, 9), (40, 30)]) * 120 / figure.dpi
    inside, outside = (drawn[round(len(drawn) - y), round(x)] for x, y in where)
    assert (outside == 128).all()
    assert np.abs(inside.astype(int) - 128).max() > 60
    assert figures.activation_overlay(grey, 0 * cam, title="grade 3").axes[1].get_title() == "grade 3: nothing"


def test_what_a_network_reads_is_drawn_in_its_colours():
    image = np.zeros((3, 900, 700), np.float32)
    image[0, :450], image[2, 450:] = 3, 3
    shown = np.asarray(figures.activation_overlay(image, image[0] / 3).axes[0].images[0].get_array())
    assert shown.shape == (640, 498, 3)
    np.testing.assert_array_equal(shown[[10, 630], [10, 10]], [(255, 0, 0), (0, 0, 255)])
    grey = np.asarray(figures.activation_overlay(image[:1], image[0] / 3).axes[0].images[0].get_array())
    np.testing.assert_array_equal(grey[[10, 630], [10, 10]], [(255, 255, 255), (0, 0, 0)])


def test_confusion_shows_counts_and_shares_of_the_truth():
    figure = figures.confusion([[3, 1], [0, 0]], ("none", "some"))
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [(*text.get_position(), text.get_text()) for text in axes.texts] == [
        *((0, 0, "3"), (1, 0, "1"), (0, 1, "0"), (1, 1, "0"))
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "truth")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "some"]
    assert (_pixels(figure) != _pixels(figures.confusion([[1, 3], [0, 0]], ("none", "some")))).any()


def test_roc_curves_name_their_area():
    figure = figures.roc_curves({"a": ([0, 0.5, 1], [0, 1, 1], 0.75), "b": ([], [], float("nan"))})
    _, first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [(0, 0), (0.5, 1), (1, 1)])
    assert (first.get_label(), second.get_label()) == ("a: AUC 0.750", "b: AUC undefined")


def test_reliability_leaves_out_empty_bins():
    nan = float("nan")
    figure = figures.reliability_diagram([nan, 0.3, nan, 0.9], [nan, 0.5, nan, 0.8], [0, 2, 0, 10])
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [(0.3, 0.5), (0.9, 0.8)])
    assert [(bar.get_x(), bar.get_height()) for bar in below.patches] == [(0, 0), (0.25, 2), (0.5, 0), (0.75, 10)]


def test_runs_are_compared():
    figure = figures.compared({"a": ([1, 2], [0.1, 0.4]), "b": ([1], [0.2])}, "labels", "accuracy")
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [(1, 0.1), (2, 0.4)])
    assert (first.get_label(), second.get_label()) == ("a", "b")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("labels", "accuracy")
