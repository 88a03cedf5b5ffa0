"""Atoms learnt from patches: dictionary learning, and the controls it has to beat. Arrays in, arrays out.

No coding of photographs (see sparse) and no network.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA, MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import orthogonal_mp_gram

from retina_seg.errors import UserError

Array = NDArray[np.float32]

# K-SVD: atoms a code may use, and rounds of coding and updating.
_USED, _ROUNDS = 5, 10


def online(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """Lasso codes and atoms in turn, over small batches (Mairal 2009, algorithm 1), scikit-learn's."""
    learner = MiniBatchDictionaryLearning(
        count,
        alpha=penalty,
        batch_size=256,
        max_iter=max(1, round(1000 * 256 / len(signals))),
        max_no_improvement=None,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the codes of a batch: the next batch makes up for it
        return learner.fit(signals.astype(np.float64)).components_.astype(np.float32)


def ksvd(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """K-SVD (Aharon 2006): codes of 5 atoms by orthogonal matching pursuit, then every atom and the coefficients it
    has by the largest singular pair of what the others leave of the signals that use it. `penalty` plays no part.
    """
    rng = np.random.default_rng(seed)
    atoms = _unit(samples(signals, count, penalty, seed)).astype(np.float64)
    for _ in range(_ROUNDS):
        gram, products = atoms @ atoms.T, atoms @ signals.T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of atoms that are all but equal: one of them is used
            codes = orthogonal_mp_gram(gram, products, n_nonzero_coefs=min(_USED, *atoms.shape))
        codes = codes.reshape(count, -1).T  # (n, K)
        rest = signals - codes @ atoms
        for k in range(count):
            users = np.flatnonzero(codes[:, k])
            if not len(users):  # nobody wants it: the signal that is worst explained takes its place
                worst = int(np.argmax(np.einsum("np,np->n", rest, rest) * rng.uniform(0.99, 1, len(rest))))
                atoms[k] = _unit(signals[worst : worst + 1])[0]
                rest[worst] = 0  # the next such atom takes another one
                continue
            alone = rest[users] + np.outer(codes[users, k], atoms[k])
            _, _, right = np.linalg.svd(alone.T @ alone, hermitian=True)
            atoms[k] = right[0]
            codes[users, k] = alone @ atoms[k]
            rest[users] = alone - np.outer(codes[users, k], atoms[k])
    return atoms.astype(np.float32)


def kmeans(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """Centroids of the signals divided by their norm (Coates 2011)."""
    return MiniBatchKMeans(count, n_init=1, random_state=seed).fit(_unit(signals)).cluster_centers_


def pca(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """Principal axes; no more than a signal has numbers, the rest are directions at random."""
    axes = PCA(min(count, *signals.shape), random_state=seed).fit(signals).components_
    return np.concatenate([axes, random(signals, count - len(axes), penalty, seed)]).astype(np.float32)


def samples(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """Signals drawn as they are, none of them twice."""
    return signals[np.random.default_rng(seed).choice(len(signals), count, replace=False)]


def random(signals: Array, count: int, penalty: float, seed: int) -> Array:
    """Directions at random: what any dictionary must beat."""
    return np.random.default_rng(seed).standard_normal((count, signals.shape[1]), dtype=np.float32)


LEARNERS: dict[str, Callable[[Array, int, float, int], Array]] = {
    "online": online,
    "ksvd": ksvd,
    "kmeans": kmeans,
    "pca": pca,
    "samples": samples,
    "random": random,
}


@dataclass(frozen=True)
class Learnt:
    """Atoms float32 (K, P) of norm 1 and, from joint learning, what each says of the labels, float32 (K, L) or None:
    labels = codes @ label_atoms."""

    atoms: Array
    label_atoms: Array | None = None


def learn(name: str, signals: Array, count: int, *, penalty: float, seed: int) -> Learnt:
    """Atoms for signals float (n, P).

    Parameters
    ----------
    name : in LEARNERS.
    count : K.
    penalty : lambda of the codes, for the learners that code by lasso.

    Raises
    ------
    UserError
        For an unknown name or fewer signals than atoms.
    """
    if name not in LEARNERS:
        raise UserError(f"unknown learner {name!r}: choose one of {', '.join(LEARNERS)}")
    if len(signals) < count:
        raise UserError(f"{len(signals)} patches cannot teach {count} atoms: take more patches or fewer atoms")
    return Learnt(_unit(LEARNERS[name](signals, count, penalty, seed)))


def learn_jointly(
    name: str,
    signals: Array,
    labels: Array,
    count: int,
    *,
    penalty: float,
    seed: int,
    weight: float = 1.0,
    classes: NDArray[np.bool_] | None = None,
) -> Learnt:
    """Atoms whose codes explain the signals and the labels at once (Zhang & Li 2010; Jiang 2011, equation 5).

        min over D, A, W, codes Z of |X - Z D|^2 + a |Q - Z A|^2 + b |H - Z W|^2

    is the learner on the rows [X, sqrt(a) Q, sqrt(b) H]; then D and W are divided by the norm of each atom's D.

    Parameters
    ----------
    signals, labels : X, float (n, P) and H, float (n, L) in [0, 1].
    weight : of H, and of Q, in units that make 1 count as much as X.
    classes : bool (n,), which of two classes a signal is of: makes the atoms label consistent. The K places of Q are
        given to the classes in proportion to how often they occur, a quarter at least to either, and Q, (n, K), is 1
        at the places of the signal's class. None leaves Q out.
    """
    total = weight * _energy(signals)
    stretch = math.sqrt(total / max(_energy(labels), 1e-12))
    parts = [signals, stretch * labels]
    if classes is not None:
        share = min(max(float(classes.mean()), 0.25), 0.75)
        agreeing = (np.arange(count) < round(count * share)) == classes[:, None]  # Q, (n, K)
        parts.append(math.sqrt(total / max(_energy(agreeing), 1e-12)) * agreeing)
    stacked = learn(name, np.concatenate(parts, axis=1).astype(np.float32), count, penalty=penalty, seed=seed).atoms
    own = stacked[:, : signals.shape[1]]
    norms = np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-6)
    label_atoms = stacked[:, signals.shape[1] : signals.shape[1] + labels.shape[1]] / stretch / norms
    return Learnt(_unit(own), label_atoms.astype(np.float32))


def places(fov: NDArray[np.bool_], rng: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Up to `number` places of a field of view bool (h, w) to learn from, none twice: indices (n,) of the flat array.

    UserError where it is empty.
    """
    inside = np.flatnonzero(fov)
    if not len(inside):
        raise UserError("a training photograph has an empty field of view")
    return rng.choice(inside, min(number, len(inside)), replace=False)


def _energy(rows: NDArray[Any]) -> float:
    """Mean sum of squares of a row."""
    return float(np.square(rows, dtype=np.float64).sum() / len(rows))


def _unit(atoms: Array) -> Array:
    return (atoms / np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-12)).astype(np.float32)
