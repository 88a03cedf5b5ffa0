import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from retina_seg import explain, report
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
        ("csc_unet", {"atoms": 6, "side": 5, "features": [4] * 6}, ["atoms", "codes", "rebuilt", "objective"]),
        ("dict_unet", {"count": 6, "side": 5, "features": [4] * 6}, ["atoms", "codes"]),
        (
            "patch_dictionary",
            {"count": 20, "side": 5, "scales": [1, 2], "steps": 5, "readout": "ridge"},
            ["atoms-1", "atoms-2", "codes", "objective"],
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
    paths = report.draw_dictionary(Segmenter(net, card, "cpu"), drawn.image, tmp_path / "explained")
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
