"""Sparse coding against its theory: adjoints, step sizes, optimality, and independent solvers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, correlate2d
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import Lasso
from torch.nn import functional as F

from retina_seg import sparse
from retina_seg.sparse import Convolutional, Patches

SIZE = (23, 31)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _patches(atoms: int = 20, length: int = 12) -> Patches:
    return Patches(sparse.unit(_random(atoms, length, seed=1)))


def _images(channels: int = 1, stride: int = 1, side: int = 5, size: tuple[int, int] = SIZE) -> Convolutional:
    return Convolutional(sparse.unit(_random(6, channels, side, side, seed=1)), size, stride)


DICTIONARIES = {
    "patches": (_patches(), _random(7, 12)),
    "images": (_images(), _random(2, 1, *SIZE)),
    "colour images": (_images(3), _random(2, 3, *SIZE)),
    "stride 2": (_images(3, 2), _random(2, 3, *SIZE)),
    "stride 3": (_images(1, 3), _random(2, 1, *SIZE)),
}


@pytest.fixture(params=DICTIONARIES)
def given(request):
    return DICTIONARIES[request.param]


def test_correlation_is_the_adjoint_of_synthesis(given):
    dictionary, signals = given
    codes = torch.randn_like(dictionary.correlate(signals))
    left = (dictionary.correlate(signals) * codes).sum()
    torch.testing.assert_close(left, (signals * dictionary.synthesise(codes)).sum(), rtol=1e-10, atol=1e-10)


def test_synthesis_and_correlation_are_what_scipy_computes():
    dictionary, images = _images(3), _random(1, 3, *SIZE)
    codes = _random(1, 6, *SIZE, seed=2)
    kernels = dictionary.atoms.numpy()
    for channel in range(3):
        expected = sum(convolve2d(codes[0, k].numpy(), kernels[k, channel], mode="same") for k in range(6))
        np.testing.assert_allclose(dictionary.synthesise(codes)[0, channel].numpy(), expected, atol=1e-12)
    for k in range(6):
        expected = sum(correlate2d(images[0, c].numpy(), kernels[k, c], mode="same") for c in range(3))
        np.testing.assert_allclose(dictionary.correlate(images)[0, k].numpy(), expected, atol=1e-12)


def _power_iteration(dictionary, signals: torch.Tensor, steps: int = 400) -> float:
    for _ in range(steps):
        signals = dictionary.synthesise(dictionary.correlate(signals))
        norm = torch.linalg.vector_norm(signals)
        signals = signals / norm
    return float(norm)


def test_bounds_of_the_largest_eigenvalue_are_tight():
    for size, spare in ((1, 1e-12), (3, 0.01), (64, 0.034)):
        root = torch.complex(_random(5, size, 2 * size), _random(5, size, 2 * size, seed=1))
        matrices = root @ root.mH
        ratio = sparse._largest(matrices) / torch.linalg.eigvalsh(matrices)[..., -1]
        assert ((ratio >= 1 - 1e-12) & (ratio <= 1 + spare)).all()


@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (3, 1), (1, 2), (3, 2), (1, 3)])
def test_the_gain_lies_barely_above_power_iteration(channels, stride):
    size = (150, 150)
    found = float(_images(channels, stride, size=size).gain())
    assert 1 <= found / _power_iteration(_images(channels, stride, size=size), _random(1, channels, *size)) <= 1.05


def test_the_gain_of_patches_is_the_square_of_the_largest_singular_value():
    for dictionary in (_patches(20, 12), _patches(5, 12)):
        largest = torch.linalg.svdvals(dictionary.atoms)[0]
        torch.testing.assert_close(dictionary.gain(), largest**2)


def test_shrinkage_minimises_its_own_objective():
    values, grid = _random(50), torch.linspace(-5, 5, 200_001, dtype=torch.float64)
    for nonnegative in (False, True):
        allowed = grid[grid >= 0] if nonnegative else grid
        cost = 0.5 * (values[:, None] - allowed) ** 2 + 0.4 * allowed.abs()
        best = allowed[cost.argmin(dim=1)]
        torch.testing.assert_close(sparse.shrink(values, 0.4, nonnegative=nonnegative), best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_ista_never_raises_the_objective_and_fista_ends_below_it(given, nonnegative):
    dictionary, signals = given
    ends = []
    for accelerated in (False, True):
        run = sparse.iterations(signals, dictionary, 0.3, 300, nonnegative=nonnegative, accelerated=accelerated)
        values = [float(sparse.objective(signals, codes, dictionary, 0.3)) for codes in run]
        assert len(values) == 300
        if not accelerated:
            assert all(after <= before + 1e-12 * before for before, after in pairwise(values))
        ends.append(values[-1])
    assert ends[1] <= ends[0] + 1e-12 * ends[0]


@pytest.mark.parametrize("nonnegative", [False, True])
def test_optimality_conditions_hold_after_many_steps(given, nonnegative):
    """Karush-Kuhn-Tucker: D^T r is the penalty with the sign of the code where there is one, and no more elsewhere."""
    dictionary, signals = given
    penalty = 0.5
    codes = sparse.code(signals, dictionary, penalty, 6000, nonnegative=nonnegative)
    slope = dictionary.correlate(signals - dictionary.synthesise(codes))
    assert (codes != 0).any()
    torch.testing.assert_close(slope[codes != 0], penalty * codes.sign()[codes != 0], rtol=0, atol=1e-4)
    elsewhere = slope[codes == 0]
    assert (elsewhere if nonnegative else elsewhere.abs()).max() <= penalty + 1e-4


def test_a_penalty_above_every_correlation_leaves_nothing(given):
    dictionary, signals = given
    limit = dictionary.correlate(signals).abs().max()
    # Correlations and penalty are divided by L apart from each other: at the limit itself rounding decides.
    assert not sparse.code(signals, dictionary, (1 + 1e-12) * limit, 20).any()
    assert sparse.code(signals, dictionary, 0.9 * limit, 20).any()


def test_patch_codes_are_those_of_scikit_learn():
    dictionary, signals = _patches(), _random(7, 12)
    ours = sparse.code(signals, dictionary, 0.2, 3000)
    theirs = sparse_encode(signals.numpy(), dictionary.atoms.numpy(), algorithm="lasso_lars", alpha=0.2, max_iter=1000)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_places_side_by_side_are_patches():
    atoms = sparse.unit(_random(20, 1, 4, 4, seed=1))
    image = _random(1, 1, 12, 8)
    ours = sparse.code(image, Convolutional(atoms, (12, 8), stride=4, padding=0), 0.2, 3000)  # (1, 20, 3, 2)
    signals = F.unfold(image, 4, stride=4)[0].T  # (6, 16)
    theirs = sparse_encode(signals.numpy(), atoms.flatten(1).numpy(), algorithm="lasso_lars", alpha=0.2, max_iter=1000)
    np.testing.assert_allclose(ours[0].flatten(1).T.numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("stride", "side", "padding"),
    [(4, 4, 0), *((stride, side, None) for stride in (1, 2, 3, 4) for side in (1, 3, 5, 7, 9, 11))],
)
def test_a_folded_dictionary_gives_the_same_codes(stride, side, padding):
    atoms, images = sparse.unit(_random(6, 3, side, side, seed=1)), _random(2, 3, 24, 36)
    dictionary = Convolutional(atoms, (24, 36), stride, padding)
    folded, blocks = dictionary.folded(), dictionary.fold(images)
    torch.testing.assert_close(dictionary.unfold(blocks), images)
    gain = dictionary.gain()  # the bound of a padded dictionary may be a little higher
    codes = sparse.code(images, dictionary, 0.3, 4, gain=gain)
    found = sparse.code(blocks, folded, 0.3, 4, gain=gain)[..., : codes.shape[2], : codes.shape[3]]
    torch.testing.assert_close(found, codes)
    torch.testing.assert_close(
        dictionary.unfold(folded.synthesise(F.pad(codes, _missing(codes, folded)))), dictionary.synthesise(codes)
    )


def test_what_cannot_be_folded_says_so():
    with pytest.raises(ValueError, match="atoms of 8 px with padding 1"):
        Convolutional(_random(2, 1, 8, 8), (24, 36), 3, 1).folded()


def _missing(codes: torch.Tensor, folded: Convolutional) -> tuple[int, int, int, int]:
    return 0, folded.size[1] - codes.shape[3], 0, folded.size[0] - codes.shape[2]


@pytest.mark.parametrize("nonnegative", [False, True])
def test_convolutional_codes_are_those_of_the_whole_matrix(nonnegative):
    """scikit-learn's coordinate descent on the matrix whose columns are scipy's pictures of every atom everywhere."""
    size, atoms = (9, 8), sparse.unit(_random(2, 1, 3, 3, seed=3))
    spots = np.eye(72).reshape(72, *size)
    columns = [convolve2d(spot, atom[0].numpy(), mode="same").ravel() for atom in atoms for spot in spots]
    image = _random(1, 1, *size)
    # Its objective is divided by the number of pixels. Codes are not unique, the picture they make is.
    solver = Lasso(0.3 / 72, fit_intercept=False, positive=nonnegative, max_iter=100_000, tol=1e-12)
    solver.fit(np.stack(columns, axis=1), image.numpy().ravel())
    dictionary = Convolutional(atoms, size)
    ours = sparse.code(image, dictionary, 0.3, 20_000, nonnegative=nonnegative)
    theirs = torch.from_numpy(solver.coef_).view(1, 2, *size)
    torch.testing.assert_close(dictionary.synthesise(ours), dictionary.synthesise(theirs), rtol=0, atol=1e-4)
    values = [sparse.objective(image, codes, dictionary, 0.3) for codes in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)


def test_one_step_is_convolution_bias_and_relu():
    dictionary, images = _images(3), _random(2, 3, *SIZE)
    penalty = torch.linspace(0.1, 0.6, 6, dtype=torch.float64).view(6, 1, 1)
    gain = dictionary.gain()
    layer = F.relu(F.conv2d(images, dictionary.atoms / gain, -(penalty / gain).flatten(), padding=2))
    torch.testing.assert_close(sparse.code(images, dictionary, penalty, 1, nonnegative=True), layer, rtol=0, atol=1e-12)


def test_gradients_reach_images_atoms_and_penalty():
    """Against finite differences; the codes' kinks are far from these numbers."""

    def coded(images, atoms, penalty):
        dictionary = Convolutional(sparse.unit(atoms), (6, 5))
        return sparse.code(images, dictionary, penalty, 3, nonnegative=True, gain=4.0)

    given = (_random(1, 1, 6, 5), _random(2, 1, 3, 3, seed=1), torch.tensor(0.2, dtype=torch.float64))
    assert torch.autograd.gradcheck(coded, [one.requires_grad_() for one in given])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shifted_image_has_shifted_codes(stride):
    image = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    image[..., 14:26, 14:26] = _random(1, 1, 12, 12)
    dictionary = _images(stride=stride, size=(40, 40))
    codes = sparse.code(image, dictionary, 0.3, 3)
    moved = sparse.code(image.roll((2, -4), (2, 3)), dictionary, 0.3, 3)
    torch.testing.assert_close(moved, codes.roll((2 // stride, -4 // stride), (2, 3)))
    assert codes.any()


def test_atoms_have_unit_norm():
    for atoms in (_random(4, 9), _random(4, 3, 5, 5)):
        norms = torch.linalg.vector_norm(sparse.unit(atoms).flatten(1), dim=1)
        torch.testing.assert_close(norms, torch.ones(4, dtype=torch.float64))
    assert not sparse.unit(torch.zeros(2, 9)).any()
