"""A whole drawn data set with manifest and card, for the tests of datasets, audit and download. No test lives here."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from retina_seg import datasets, duplicates, manifest, phantom
from retina_seg.manifest import Row

NAME, FOLDER, COUNT = "drawn", "DRAWN", 5


@dataclass(frozen=True)
class DrawnSet:
    """`root` is the data root that holds the folder, `manifests` holds drawn.csv and drawn.yaml."""

    root: Path
    manifests: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def rows(self) -> list[Row]:
        return manifest.read(self.manifests / f"{NAME}.csv")


@cache
def photograph(seed: int, width: int = 168, height: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Image and vessels; drawn once, never to be changed by a test."""
    drawing = phantom.draw(seed, width=width, height=height)
    return drawing.image, drawing.vessels


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path)


def row(number: int) -> Row:
    image, vessels = photograph(number)
    return Row(
        dataset=NAME,
        id=str(number),
        subject=str(number),
        eye="",
        image=f"images/{number}.png",
        targets={"vessels": f"labels/{number}_vessels.png"},
        fov="",
        splits={"drawn": "test" if number >= 3 else "train"},
        labels={},
        width=image.shape[1],
        height=image.shape[0],
        pixel_sha256=datasets.pixel_hash(image),
        target_sha256={"vessels": datasets.pixel_hash(vessels)},
        perceptual_hash=duplicates.perceptual_hash(duplicates.view(image)),
    )


def card(downloads: list[str], *, registration: bool = False) -> dict[str, object]:
    words = ("name", "title", "licence", "source", "obtain", "citation", "split_rule")
    return {
        **{word: f"the {word} of the drawn set" for word in words},
        "registration": registration,
        "redistribution": True,
        "notes": [],
        "known_shared_subjects": {},
        "downloads": downloads,
    }


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_files: bool = True) -> DrawnSet:
    """Write the set below `folder` and make it the only one the package knows."""
    made = DrawnSet(folder / "data", folder / "manifests")
    made.root.mkdir()
    made.manifests.mkdir()
    rows = [row(number) for number in range(COUNT)]
    manifest.write(rows, made.manifests / f"{NAME}.csv")
    (made.manifests / f"{NAME}.yaml").write_text(yaml.safe_dump(card([])), encoding="utf-8")
    if with_files:
        write_files(made.folder)
    monkeypatch.setattr(manifest, "folder", lambda: made.manifests)
    monkeypatch.setattr(datasets, "DATASETS", {NAME: datasets.DatasetSpec(FOLDER, ("vessels",), ("drawn",))})
    return made


def write_files(folder: Path) -> None:
    for number in range(COUNT):
        image, vessels = photograph(number)
        save(image, folder / row(number).image)
        save(vessels, folder / row(number).targets["vessels"])
