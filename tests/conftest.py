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
def drawn_idrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose IDRiD folder holds small drawn photographs with spots, under the names of the release.

    Spots of a target are 3 to 6 pixels wide and bright (exudates) or dark; the disc is a circle.
    """
    import numpy as np
    from PIL import Image

    from retina_seg import datasets, phantom

    root = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[:104, :128]
    sides = {"microaneurysms": 3, "haemorrhages": 6, "hard_exudates": 4, "soft_exudates": 6}
    drawings = [phantom.draw(seed, width=128, height=104) for seed in range(3)]
    for number, row in enumerate(datasets.rows("idrid_seg")):
        rng = np.random.default_rng(number)
        drawing = drawings[number % len(drawings)]
        image, labels = drawing.image.copy(), {"disc": np.hypot(y - 52, x - 35 - number % 7) < 9}
        for target, side in sides.items():
            labels[target] = np.zeros((104, 128), dtype=bool)
            for top, left in rng.integers((25, 40), (75, 90), (3, 2)):
                labels[target][top : top + side, left : left + side] = target in row.targets
            image[labels[target]] = (230, 220, 90) if "exudates" in target else (60, 10, 5)
        image[labels["disc"]] = (250, 240, 170)
        for target, name in (("image", row.image), *row.targets.items()):
            path = root / "IDRiD" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image if target == "image" else labels[target].astype("uint8") * 255).save(path)
    return root


@pytest.fixture(scope="session")
def tiny_lesions(tmp_path_factory: pytest.TempPathFactory, drawn_idrid: Path) -> Path:
    """The folder of a finished run that finds two lesions and the disc, of `drawn_idrid`."""
    from retina_seg.config import Config
    from retina_seg.train import fit

    config = Config.model_validate(
        {
            "name": "tiny-lesions",
            "data": {"protocols": ["idrid"], "targets": ["haemorrhages", "soft_exudates", "disc"]},
            "preprocess": {"fov_diameter": 80},
            "model": {"name": "unet", "arguments": {"features": [4, 4, 4, 4, 4, 4]}},
            "training": {
                **{"steps": 150, "batch_size": 4, "patch_size": 32, "on_target": 0.5, "warmup_steps": 1},
                **{"validate_every": 150, "learning_rate": 0.01, "loss": "balanced_bce"},
            },
        }
    )
    run = tmp_path_factory.mktemp("runs") / "tiny-lesions"
    fit(config, run, drawn_idrid, device="cpu")
    return run


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


@pytest.fixture(scope="session")
def dictionary_run(tmp_path_factory: pytest.TempPathFactory, drawn_drive: Path) -> Path:
    """The folder of a finished run of a small network with a dictionary."""
    from retina_seg.config import Config
    from retina_seg.train import fit

    config = Config.model_validate(
        {
            "name": "atoms",
            "data": {"protocols": ["drive"], "targets": ["vessels"]},
            "preprocess": {"colour": "green", "local_contrast": 10},
            "model": {"name": "csc_unet", "arguments": {"atoms": 6, "side": 5, "features": [4] * 6}},
            "training": {"steps": 4, "batch_size": 2, "patch_size": 32, "warmup_steps": 1, "validate_every": 4},
        }
    )
    run = tmp_path_factory.mktemp("runs") / "atoms"
    fit(config, run, drawn_drive, device="cpu")
    return run


@pytest.fixture(scope="session")
def grader_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a small grader of photographs with random weights."""
    import torch

    from retina_seg import checkpoint
    from retina_seg.classify import fundus, inference

    folder = tmp_path_factory.mktemp("grades") / "grader"
    folder.mkdir()
    arguments = {"grid": 16, "features": 4, "targets": 2, "arguments": {"width": 8}}
    card = inference.ClassifierCard(
        name="grader",
        parameters=1,
        task="idrid-grade",
        heads={head.name: head.classes for head in (fundus.GRADE, fundus.OEDEMA)},
        outputs="ordinal",
        model={"name": "lesion_grader", "in_shape": (3, 128, 128), "arguments": arguments},
        preprocess={"colour": "rgb"},
        limits=("Knows nothing: its weights are random.",),
    )
    torch.manual_seed(0)
    checkpoint.save_model(inference.build(card), card, folder / checkpoint.WEIGHTS, folder / checkpoint.CARD)
    return folder
