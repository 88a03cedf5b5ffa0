"""Learners of atoms on signals whose atoms are known."""

import numpy as np
import pytest
import torch

from retina_seg import atoms, sparse
from retina_seg.errors import UserError


@pytest.fixture(scope="module")
def planted():
    """Signals (n, P) that are sums of two of 24 known atoms, and these atoms."""
    rng = np.random.default_rng(0)
    known = atoms._unit(rng.standard_normal((24, 20)))
    codes = np.zeros((3000, 24))
    for row in codes:
        row[rng.choice(24, 2, replace=False)] = rng.choice([-1, 1], 2) * rng.uniform(1, 2, 2)
    return (codes @ known).astype(np.float32), known


@pytest.mark.parametrize("name", atoms.LEARNERS)
def test_atoms_have_norm_one_and_depend_on_the_seed_alone(name, planted):
    signals, _ = planted
    before = signals.copy()
    found = atoms.learn(name, signals, 24, penalty=0.2, seed=1).atoms
    assert found.shape == (24, 20)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(atoms.learn(name, signals, 24, penalty=0.2, seed=1).atoms, found)
    np.testing.assert_array_equal(signals, before)


def _cost(signals: np.ndarray, found: np.ndarray) -> float:
    dictionary, given = sparse.Patches(torch.from_numpy(found)), torch.from_numpy(signals[:500])
    codes = sparse.code(given, dictionary, 0.2, 300)
    return float(sparse.objective(given, codes, dictionary, 0.2))


def test_learnt_atoms_cost_less_than_those_of_chance(planted):
    signals, known = planted
    cost = {name: _cost(signals, atoms.learn(name, signals, 24, penalty=0.2, seed=0).atoms) for name in atoms.LEARNERS}
    assert cost["online"] < 0.9 * cost["random"]
    assert cost["ksvd"] < 0.9 * cost["random"]
    assert _cost(signals, known) < cost["online"] < cost["samples"]


@pytest.mark.parametrize(("name", "share"), [("online", 0.4), ("ksvd", 0.8)])
def test_known_atoms_are_found_again(name, share, planted, monkeypatch):
    """Up to sign and order (Aharon 2006, section V.A); the lasso shrinks its codes and finds fewer."""
    monkeypatch.setattr(atoms, "_USED", 2)
    monkeypatch.setattr(atoms, "_ROUNDS", 40)
    signals, known = planted
    found = atoms.learn(name, signals, 24, penalty=0.2, seed=0).atoms
    likeness = np.abs(known @ found.T).max(axis=1)
    assert (likeness > 0.97).mean() > share
    by_chance = np.abs(known @ atoms.learn("random", signals, 24, penalty=0.2, seed=0).atoms.T).max(axis=1)
    assert (by_chance > 0.97).mean() < 0.1


def test_principal_axes_are_those_of_the_covariance(planted):
    signals, _ = planted
    found = atoms.learn("pca", signals, 24, penalty=0.2, seed=0).atoms
    _, vectors = np.linalg.eigh(np.cov(signals.T))
    np.testing.assert_allclose(np.abs(np.sum(found[:20] * vectors.T[::-1], axis=1)), 1, atol=1e-3)


def test_joint_atoms_say_the_labels(planted):
    """Labels that depend on the same codes come back from codes of the signals alone."""
    signals, known = planted
    codes = np.linalg.lstsq(known.T, signals.T, rcond=None)[0].T
    labels = (codes @ np.random.default_rng(1).standard_normal((24, 4)) > 1).astype(np.float32)
    found = atoms.learn_jointly("ksvd", signals, labels, 24, penalty=0.2, seed=0)
    assert found.label_atoms.shape == (24, 4)
    np.testing.assert_allclose(np.linalg.norm(found.atoms, axis=1), 1, atol=1e-5)
    coded = sparse.code(torch.from_numpy(signals), sparse.Patches(torch.from_numpy(found.atoms)), 0.01, 500).numpy()
    told = [np.corrcoef(said, label)[0, 1] for said, label in zip((coded @ found.label_atoms).T, labels.T, strict=True)]
    assert min(told) > 0.2, told


def test_atoms_that_nobody_uses_take_different_signals():
    rng = np.random.default_rng(0)
    signals = np.outer(rng.uniform(1, 2, 200), rng.standard_normal(16)) + 1e-2 * rng.standard_normal((200, 16))
    found = atoms.learn("ksvd", signals.astype(np.float32), 12, penalty=0.1, seed=0).atoms
    assert len(np.unique(found.round(6), axis=0)) == 12


def test_joint_atoms_scale_back_to_signals_and_labels():
    """One atom for signal and label: its label part is the label of the signal that is the atom."""
    rng = np.random.default_rng(0)
    direction = atoms._unit(rng.standard_normal((1, 9)))
    size = rng.uniform(0.5, 2, (400, 1)).astype(np.float32)
    signals, labels = size * direction, size * np.array([[0.1, 0.4]], np.float32)
    for weight in (0.3, 1.0, 3.0):
        found = atoms.learn_jointly("ksvd", signals, labels, 1, penalty=0.1, seed=0, weight=weight)
        sign = np.sign(found.atoms[0] @ direction[0])
        np.testing.assert_allclose(sign * found.atoms[0], direction[0], atol=1e-4)
        np.testing.assert_allclose(sign * found.label_atoms[0], [0.1, 0.4], atol=1e-4)


def test_atoms_that_know_the_labels_are_used_by_one_class_more():
    """The class depends on two of sixteen planted atoms; how one-sided the use of the learnt ones is, on average."""
    rng = np.random.default_rng(0)
    known = atoms._unit(rng.standard_normal((16, 20)))
    planted = (rng.random((2000, 16)) < 0.25) * rng.uniform(1, 2, (2000, 16))
    classes = planted[:, :2].any(axis=1)
    signals = (planted @ known + 0.3 * rng.standard_normal((2000, 20))).astype(np.float32)
    labels = classes[:, None].astype(np.float32)
    settings = {"penalty": 0.1, "seed": 0}
    found = {
        "none": atoms.learn("ksvd", signals, 16, **settings),
        "joint": atoms.learn_jointly("ksvd", signals, labels, 16, **settings),
        "consistent": atoms.learn_jointly("ksvd", signals, labels, 16, classes=classes, **settings),
    }
    sided = {}
    for name, learnt in found.items():
        codes = sparse.code(torch.from_numpy(signals), sparse.Patches(torch.from_numpy(learnt.atoms)), 0.1, 200)
        use, other = (codes.abs().numpy()[which].mean(axis=0) for which in (classes, ~classes))
        sided[name] = np.mean(np.abs(use - other) / (use + other))
    assert sided["joint"] > 1.2 * sided["none"]
    assert sided["consistent"] > sided["none"]
    assert not np.allclose(found["joint"].atoms, found["consistent"].atoms)


def test_errors_name_what_was_given(planted):
    signals, _ = planted
    with pytest.raises(UserError, match="unknown learner 'kmedians': choose one of online, ksvd"):
        atoms.learn("kmedians", signals, 4, penalty=0.1, seed=0)
    with pytest.raises(UserError, match="3 patches cannot teach 4 atoms"):
        atoms.learn("online", signals[:3], 4, penalty=0.1, seed=0)
