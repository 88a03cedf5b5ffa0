import shutil

import numpy as np
import pytest
from PIL import Image

from retina_seg import report
from retina_seg.errors import UserError


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
