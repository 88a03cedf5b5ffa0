from pathlib import Path

import pytest

from retina_seg.config import load_config
from retina_seg.errors import UserError

ROOT = Path(__file__).resolve().parents[1] / "configs"
CLASSIFIERS = sorted((ROOT / "classify").glob("*.yaml"))
CONFIGS = sorted(set(ROOT.rglob("*.yaml")) - set(CLASSIFIERS))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_published_configs_load_and_build(path):
    from retina_seg.losses import get_loss
    from retina_seg.models import build_model
    from retina_seg.photographs import rows_of
    from retina_seg.preprocess import Preprocess

    config = load_config(path)
    assert config.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("#"), "the head says command, hardware, minutes, score"
    settings = Preprocess(**config.preprocess.model_dump())
    assert build_model(config.model.name, settings.channels, 1, arguments=config.model.arguments)
    assert get_loss(config.training.loss)
    assert config.data.drawn or rows_of(config.data.protocols, config.data.fit)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_head_says_whether_there_is_a_record(path):
    head = path.read_text(encoding="utf-8").partition("\nname:")[0]
    recorded = (ROOT / "results" / path.stem).is_dir()
    assert ("see RESULTS.md" in head) <= recorded
    assert ("not yet run" in head) <= (not recorded)


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_published_classifiers_load_and_build(path):
    import torch

    from retina_seg.classify import losses, models, tasks
    from retina_seg.classify.config import load_config

    config = load_config(path)
    assert config.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("#"), "the head says command, hardware, minutes, score"
    spec = tasks.find(config.data.task)
    side = config.data.size or spec.size
    shape = (3 if spec.retinal else 4 if config.data.task == "iris" else 1, side, side)
    with torch.device("meta"):  # VGG16 has 138 million weights
        assert models.build_model(config.model.name, shape, 4, arguments=config.model.arguments, pretrained=False)
    assert losses.get_loss(config.training.loss)


def test_there_are_published_configs():
    assert CONFIGS
    assert CLASSIFIERS


def test_resolved_config_loads_equal(tiny_config, tmp_path):
    config = load_config(tiny_config, ["training.steps=9", "model.arguments.stem=2"])
    assert config.training.steps == 9
    assert config.model.arguments["stem"] == 2
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config


def test_no_precision_needs_no_quotes(tiny_config):
    assert load_config(tiny_config, ["training.precision=no"]).training.precision == "no"


def test_a_name_is_short_for_a_model(tiny_config):
    assert load_config(tiny_config, ["model=unet"]).model.name == "unet"
    assert load_config(tiny_config, ["model=unet", "model.arguments.stem=2"]).model.arguments == {"stem": 2}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.stepz=5", ["training.stepz: there is no such key", "--set training.stepz=5"]),
        ("training.steps=-5", ["training.steps", "greater"]),
        ("training.steps=abc", ["training.steps", "integer"]),
        ("training.warmup_steps=50", ["warm-up must be shorter"]),
        ("data.fit=[test]", ["data.fit", "train"]),
        ("data.protocols=[]", ["data.protocols"]),
        ("name=Über", ["name"]),
        ("training", ["expected key.subkey=value"]),
        ("name.x=1", ["no keys below"]),
        ("model.arguments=[", ["not YAML"]),
        ("preprocess.colour=blue", ["preprocess.colour", "rgb"]),
    ],
)
def test_errors_name_the_key(tiny_config, override, words):
    with pytest.raises(UserError) as caught:
        load_config(tiny_config, [override])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no settings"),
        ("[1, 2]", "no settings"),
        ("a: [", "not YAML"),
        ("a: 1", "data"),
        ("\xff\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=words):
        load_config(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no configuration"):
        load_config(tmp_path / "none.yaml")
