import os
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


ENDLESS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "[" * 30 + "]" * 30, "more than 12 levels"),
        (ENDLESS, "more than 10000 values"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "<< in line 2"),
        ("a: &a [*a]", "levels"),
        ("seed: " + "9" * 10_000, "more than 4096 characters"),
        ("seed: 0x" + "f" * 40, "more than 64 bits"),
        ("seed: " + ":".join(["1"] * 5000), "more than 4096 characters"),
        ("seed: 2001-99-99", "month"),
        ("seed: !!bool maybe", "not YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("name: a\nname: b", "'name' is given twice"),
        ("clip: .nan", "no number to compute with"),
        ("a: 1\n" * 1 + "b: " + "x " * 600_000, "larger than"),
    ],
)
def test_yaml_that_breaks_readers_is_told_in_a_line(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as told:
        load_config(path)
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        *("training.batch_size=100000000", "training.steps=1000000000000", "training.patch_size=100000000"),
        *("training.workers=100000", "training.accumulate=100000000", "inference.window=100000000"),
        *("preprocess.fov_diameter=100000000", "training.learning_rate=.inf", "training.patch_size=²"),
        *("model.arguments.features=[1000000]", "model.arguments.features=" + str([1] * 300), "data.drawn=1000000"),
        *(".".join(["a"] * 5000) + "=1", "model.arguments.x=" + "{a: " * 3000, "name=" + "a" * 300),
    ],
)
def test_values_beyond_any_use_are_refused(tiny_config, change):
    with pytest.raises(UserError) as told:
        load_config(tiny_config, [change])
    assert len(str(told.value)) < 1000


def test_pipes_and_devices_are_no_configurations(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(UserError, match="no regular file"):
            load_config(path)


def test_a_spreadsheets_byte_order_mark_is_no_key(tiny_config, tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + tiny_config.read_bytes())
    assert load_config(path) == load_config(tiny_config)
