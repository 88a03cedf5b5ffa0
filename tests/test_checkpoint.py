import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from retina_seg import checkpoint
from retina_seg.errors import UserError


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
    ("content", "words"), [("{", "not a model card"), ("{}", "not a model card"), (None, "there is no model card")]
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


def test_state_round_trip(tmp_path):
    state = {"step": 3, "net": {"w": torch.arange(4.0)}, "config": "a: 1", "learnt_from": []}
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
