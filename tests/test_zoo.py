import shutil

import pytest

from retina_seg import checkpoint, zoo
from retina_seg.errors import UserError


def test_packaged_models_are_sound_and_small():
    assert "vessels-drive" in zoo.names()
    assert zoo.verify() == dict.fromkeys(zoo.names(), "")
    assert sum(path.stat().st_size for path in zoo.FOLDER.iterdir()) < 25e6


@pytest.mark.parametrize("name", zoo.names())
def test_cards_are_complete(name):
    card = zoo.card(name)
    assert card.name == name
    assert card.description
    assert card.limits
    assert card.scores
    assert card.speed
    sets = {image.partition(":")[0] for image in card.training["images"]}
    assert sets == set(card.terms)
    assert set(card.thresholds) == set(card.targets)


def test_vessels_drive_learnt_from_the_twenty_training_images_alone():
    card = zoo.card("vessels-drive")
    expected = {f"drive:{number}" for number in range(21, 41)}
    assert set(card.training["images"]) == expected
    assert set(card.training["threshold_images"]) <= expected


def test_a_run_folder_is_a_model(tiny_run):
    net, card = zoo.load(tiny_run)
    assert card.name == "tiny"
    assert sum(p.numel() for p in net.parameters()) == card.parameters


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="vessels-drive"):
        zoo.load("vessel")
    with pytest.raises(UserError, match="packaged models are"):
        zoo.load(tmp_path)


def test_an_unfinished_run_says_how_to_finish(tiny_run, tmp_path):
    shutil.copy(tiny_run / checkpoint.STATE, tmp_path)
    with pytest.raises(UserError, match="--resume"):
        zoo.load(tmp_path)


def test_package_copies_weights_and_completes_the_card(tiny_run, tmp_path):
    card = zoo.package(tiny_run, {"name": "mini", "description": "small", "limits": ["none known"]}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mini.safetensors", "mini.json"}
    _, loaded = checkpoint.load_model(tmp_path / "mini.safetensors", tmp_path / "mini.json")
    assert loaded == card
    assert loaded.description == "small"
