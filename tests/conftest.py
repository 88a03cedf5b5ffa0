"""Fixtures shared by all tests: where the real images are, if they are here at all."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder that holds DRIVE, STARE, CHASE_DB1 and IDRiD; skips where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ["RETINA_SEG_DATA"]) if "RETINA_SEG_DATA" in os.environ else beside
    if not root.is_dir():
        pytest.skip(f"no real images at {root}: set RETINA_SEG_DATA to the folder that holds DRIVE, STARE, ...")
    return root


@pytest.fixture(scope="session")
def drawn():
    """A small drawn photograph with its truth."""
    from retina_seg import phantom

    return phantom.draw(3, width=120, height=112)


@pytest.fixture(scope="session")
def drawn_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose DRIVE folder holds small drawn photographs under the names of the release."""
    from PIL import Image

    from retina_seg import datasets, phantom

    root = tmp_path_factory.mktemp("data")
    drawings = [phantom.draw(seed, width=96, height=104) for seed in range(4)]
    for number, row in enumerate(datasets.rows("drive")):
        drawing = drawings[number % len(drawings)]
        labels = {row.fov: drawing.fov, **dict.fromkeys(row.targets.values(), drawing.vessels)}
        for name in row.files():
            path = root / "DRIVE" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = drawing.image if name == row.image else labels[name].astype("uint8") * 255
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that takes seconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        """
name: tiny
data: {protocols: [drive], fit: [train], monitor: [val], targets: [vessels]}
model: {name: unet, arguments: {features: [4, 4, 4, 4, 4, 4]}}
training: {steps: 6, batch_size: 2, patch_size: 32, warmup_steps: 1, validate_every: 4, learning_rate: 0.01}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path, drawn_drive: Path) -> Path:
    """The folder of a finished run of `tiny_config`."""
    from retina_seg.config import load_config
    from retina_seg.train import fit

    run = tmp_path_factory.mktemp("runs") / "tiny"
    fit(load_config(tiny_config), run, drawn_drive, device="cpu")
    return run
