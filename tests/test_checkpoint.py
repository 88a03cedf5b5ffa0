import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from retina_seg import checkpoint, report
from retina_seg.config import Config
from retina_seg.errors import UserError
from retina_seg.models import build_model


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def _load(run: Path):
    return checkpoint.load_model(run / checkpoint.WEIGHTS, run / checkpoint.CARD)


def test_loaded_network_is_ready_for_use(run):
    net, card = _load(run)
    assert not net.training
    assert card.weights_sha256 == checkpoint.sha256(run / checkpoint.WEIGHTS)
    assert sum(p.numel() for p in net.parameters()) == card.parameters


def test_changed_weights_are_refused(run):
    data = bytearray((run / checkpoint.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (run / checkpoint.WEIGHTS).write_bytes(data)
    with pytest.raises(UserError, match="changed or damaged"):
        _load(run)


def test_weights_of_another_network_are_refused(run):
    card = json.loads((run / checkpoint.CARD).read_text())
    card["model"]["arguments"] = {"features": [4, 4, 4, 4, 4, 8]}
    (run / checkpoint.CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match="does not fit"):
        _load(run)


@pytest.mark.parametrize(
    ("content", "words"), [("{", "no JSON"), ("{}", "not a model card"), (None, "there is no model card")]
)
def test_bad_cards(run, content, words):
    path = run / checkpoint.CARD
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        _load(run)


def test_missing_weights(run):
    (run / checkpoint.WEIGHTS).unlink()
    with pytest.raises(UserError, match="no weights"):
        _load(run)


def test_unknown_key_in_a_card_is_an_error(run):
    card = json.loads((run / checkpoint.CARD).read_text())
    (run / checkpoint.CARD).write_text(json.dumps({**card, "treshold": 1}))
    with pytest.raises(UserError, match="treshold"):
        checkpoint.read_card(run / checkpoint.CARD)


def _state():
    """What every version of state.pt has held."""
    weights = {"w": torch.arange(4.0)}
    return {
        "config": "a: 1",
        "learnt_from": [],
        "step": 3,
        "net": weights,
        "seconds": 1.5,
        "loss": [0.5, 2],
        "averaged": weights,
        "optimiser": {},
        "random": torch.get_rng_state(),
    }


def test_state_round_trip(tmp_path):
    state = _state()
    checkpoint.save_state(state, tmp_path)
    loaded = checkpoint.load_state(tmp_path)
    assert loaded["step"] == 3
    torch.testing.assert_close(loaded["net"]["w"], state["net"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.STATE]


class _Evil:
    def __reduce__(self):
        return (Path("/nowhere").exists, ())


def test_a_state_never_runs_code(tmp_path):
    torch.save({"step": _Evil()}, tmp_path / checkpoint.STATE)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load_state(tmp_path)
    (tmp_path / checkpoint.STATE).write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load_state(tmp_path)


@pytest.mark.parametrize("other", [{"step": 1}, [1, 2], torch.zeros(2)])
def test_another_file_is_no_state(tmp_path, other):
    torch.save(other, tmp_path / checkpoint.STATE)
    with pytest.raises(UserError, match="is no state of a run"):
        checkpoint.load_state(tmp_path)


def test_a_torn_log_is_named(tmp_path):
    (tmp_path / checkpoint.LOG).write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    with pytest.raises(UserError, match=r"log\.jsonl is no log of a run"):
        checkpoint.read_log(tmp_path)


def test_no_state(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        checkpoint.load_state(tmp_path)


CHANGES = {
    "unknown key of preprocess": (("preprocess", "x"), 1, "x: there is no such key"),
    "huge field of view": (("preprocess", "fov_diameter"), 10**8, "less than or equal to"),
    "threshold that is no number": (("thresholds", "vessels"), float("nan"), "finite number"),
    "threshold beyond 1": (("thresholds", "vessels"), 2, "less than or equal to 1"),
    "no threshold": (("thresholds",), {}, "no threshold for vessels"),
    "target with separators": (("targets",), ["x/../../evil"], r"targets\.0"),
    "target twice": (("targets",), ["vessels", "vessels"], "named twice"),
    "name with separators": (("name",), "../evil", "separators"),
    "negative window": (("inference", "window"), -1, "greater than or equal to 64"),
    "negative parameters": (("parameters",), -1, "greater than or equal to 0"),
    "channels of another colour": (("model", "in_channels"), 7, "3 channels, not 7"),
    "huge argument": (("model", "arguments"), {"features": [10**6] * 6}, "at most 4096"),
    "ensemble of ensembles": (
        *(("model",), {"name": "ensemble", "in_channels": 3, "arguments": {"member": "ensemble"}}),
        "none of them an ensemble",
    ),
    "images that are no keys": (("training", "images"), [1], r"training\.images"),
    "scores of another shape": (("scores",), {"drive": 1}, "without a block fov"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_cards_that_would_do_harm_are_refused(run, kind):
    path, value, words = CHANGES[kind]
    card = json.loads((run / checkpoint.CARD).read_text())
    place = card
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (run / checkpoint.CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match=words):
        _load(run)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 10_000 + "}", "[1]", "NaN", '{"name": "\\ud800"}'])
def test_json_that_breaks_readers_is_no_card(run, text):
    (run / checkpoint.CARD).write_text(text)
    with pytest.raises(UserError, match=r"no JSON that can be read|not a model card"):
        _load(run)


def test_a_card_larger_than_its_weights_takes_no_memory(run, monkeypatch):
    card = json.loads((run / checkpoint.CARD).read_text())
    card["model"]["arguments"] = {"features": [4096] * 6}  # 12 GB
    (run / checkpoint.CARD).write_text(json.dumps(card))
    built = []
    monkeypatch.setattr(
        checkpoint, "build_model", lambda *given, **named: built.append(1) or build_model(*given, **named)
    )
    with pytest.raises(UserError, match=r"bytes of weights, the file"):
        _load(run)
    assert built == [1]  # without memory; never with


def test_weights_of_another_kind_or_no_numbers_are_refused(run):
    card = checkpoint.read_card(run / checkpoint.CARD)
    weights = load_file(run / checkpoint.WEIGHTS)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    for changed, words in ((weights[name].double(), "float64"), (weights[name] * float("nan"), "no numbers")):
        content = save({**weights, name: changed})
        (run / checkpoint.WEIGHTS).write_bytes(content)
        new = card.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
        checkpoint.write_card(new, run / checkpoint.CARD)
        with pytest.raises(UserError, match=words):
            _load(run)


def test_a_compressed_state_is_not_unpacked(tmp_path):
    torch.save(_state(), tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / checkpoint.STATE, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for one in whole.namelist():
            packed.writestr(one, whole.read(one))
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load_state(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1),
        ("step", 10**12),
        ("seconds", float("nan")),
        ("loss", [1]),
        ("net", {"w": 1}),
        ("config", 5),
        ("best", 1),
    ],
)
def test_states_of_another_shape_are_none(tmp_path, key, value):
    torch.save({**_state(), key: value}, tmp_path / checkpoint.STATE)
    with pytest.raises(UserError, match=rf"no state of a run \({key}"):
        checkpoint.load_state(tmp_path)


@pytest.mark.parametrize("line", ['{"loss": 1}', "[1]", "[" * 100_000, '{"step": "x"}', '{"step": NaN}'])
def test_foreign_lines_are_no_log(tmp_path, line):
    (tmp_path / checkpoint.LOG).write_text(f'{{"step": 1, "loss": NaN}}\n{line}\n')
    with pytest.raises(UserError, match="is no log of a run"):
        checkpoint.read_log(tmp_path)


def test_a_held_folder_is_swept_and_refused_to_others(tmp_path):
    (tmp_path / checkpoint.CONFIG).write_text("name: t")
    left = tmp_path / f".retina_seg-{'0' * 16}.part.pt"
    for path in (left, tmp_path / ".0123456789abcdef.part.png", tmp_path / "mine.part.pt"):
        path.write_bytes(b"x")
    with checkpoint.held(tmp_path):
        assert not left.exists()
        with pytest.raises(UserError, match="another process"), checkpoint.held(tmp_path):
            pass
    assert (tmp_path / "mine.part.pt").exists()
    with checkpoint.held(tmp_path):
        pass


def test_files_of_somebody_else_are_no_begun_run(tmp_path):
    for name in (checkpoint.CONFIG, checkpoint.LOG, checkpoint.TABLE, checkpoint.CURVES):
        (tmp_path / name).write_text("name: mine\n")
        with pytest.raises(UserError, match=rf"{name} is there already"):
            checkpoint.check_new(tmp_path, Config)
        (tmp_path / name).unlink()
    report.draw_log(tmp_path)  # of a run whose other files were removed
    checkpoint.check_new(tmp_path, Config)
