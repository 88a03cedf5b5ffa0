import numpy as np
import pytest
import torch

from retina_seg.errors import UserError
from retina_seg.patches import PatchDataset, RangeSampler, TrainingImage, loader


@pytest.fixture
def images() -> list[TrainingImage]:
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:90, :80]
    fov = (yy - 45) ** 2 + (xx - 40) ** 2 < 38**2
    return [
        TrainingImage(
            rng.standard_normal((3, 90, 80)).astype(np.float32) * fov, (rng.random((2, 90, 80)) > 0.8) & fov, fov
        )
        for _ in range(3)
    ]


def _dataset(images, size=32, augment="standard", seed=5) -> PatchDataset:
    return PatchDataset(images, size=size, augment=augment, length=40, seed=seed)


def test_shapes_and_values(images):
    patch = _dataset(images)[0]
    assert patch["image"].shape == (3, 32, 32)
    assert patch["target"].shape == (2, 32, 32)
    assert patch["fov"].shape == (1, 32, 32)
    assert {t.dtype for t in patch.values()} == {torch.float32}
    assert set(patch["target"].unique().tolist()) <= {0.0, 1.0}


def test_a_patch_depends_on_seed_and_index_alone(images):
    first, second = _dataset(images), _dataset(images)
    for index in (7, 0, 31):
        second[index + 1]
        torch.testing.assert_close(first[index]["image"], second[index]["image"], rtol=0, atol=0)
    assert not torch.equal(first[7]["image"], first[8]["image"])
    assert not torch.equal(first[7]["image"], _dataset(images, seed=6)[7]["image"])


def test_a_loader_that_starts_late_gives_the_tail(images):
    dataset = _dataset(images)
    whole = list(loader(dataset, batch_size=4))
    tail = list(loader(dataset, batch_size=4, start=24))
    assert len(whole) == 10
    assert len(tail) == 4
    for a, b in zip(whole[6:], tail, strict=True):
        torch.testing.assert_close(a["image"], b["image"], rtol=0, atol=0)


def test_patches_lie_over_the_field_of_view_and_reach_all_of_it(images):
    dataset = _dataset(images, size=24, augment="none")
    visited = np.zeros((90, 80), bool)
    marked = images[0].image
    for index in range(60):
        patch = dataset[index]
        assert patch["fov"].mean() > 0.2
        template = patch["image"][0].numpy()
        spots = [i for i, image in enumerate(images) if np.isin(template[12, 12], image.image[0])]
        if spots == [0]:
            y, x = np.argwhere(marked[0] == template[12, 12])[0]
            visited[y - 12 : y + 12, x - 12 : x + 12] = True
    assert visited[images[0].fov].mean() > 0.6


def test_a_patch_larger_than_the_photograph(images):
    patch = _dataset(images, size=128, augment="none")[3]
    assert patch["image"].shape == (3, 128, 128)
    assert patch["fov"].sum() == images[0].fov.sum()


def test_whole_photographs_come_once_a_round(images):
    dataset = PatchDataset(images, size="image", augment="none", length=9, seed=2)
    assert dataset[0]["image"].shape == (3, 96, 96)
    assert dataset[0]["fov"].sum() == images[0].fov.sum()
    sums = [round(dataset[index]["image"].double().sum().item(), 3) for index in range(9)]
    for first in (0, 3, 6):
        assert len(set(sums[first : first + 3])) == 3
    assert set(sums) == {round(float(image.image.astype(float).sum()), 3) for image in images}


def test_soft_targets_stay_soft(images):
    soft = [TrainingImage(i.image, i.target * np.float32(0.25), i.fov) for i in images]
    hard, mean = (_dataset(some, augment="none")[4] for some in (images, soft))
    torch.testing.assert_close(mean["target"], hard["target"] * 0.25)
    torch.testing.assert_close(mean["fov"], hard["fov"])
    values = _dataset(soft)[4]["target"]
    assert 0 <= values.min() < values.max() <= 0.25


def test_no_images():
    with pytest.raises(UserError, match="no training images"):
        _dataset([])


def test_range_sampler():
    assert list(RangeSampler(3, 6)) == [3, 4, 5]
    assert len(RangeSampler(3, 6)) == 3


def _sparse() -> list[TrainingImage]:
    """Three photographs; target 0 marks a large and a small piece in the second, target 1 nothing."""
    fov = np.ones((200, 200), bool)
    target = np.zeros((3, 2, 200, 200), bool)
    target[1, 0, 20:60, 20:60] = target[1, 0, 150:152, 150:152] = True
    rng = np.random.default_rng(0)
    return [TrainingImage(rng.standard_normal((3, 200, 200)).astype(np.float32), one, fov) for one in target]


def test_patches_are_cut_around_pieces_small_ones_as_often_as_large_ones():
    images = _sparse()
    dataset = PatchDataset(images, size=32, augment="none", length=200, seed=1, on_target=1.0)
    shown = [patch["target"].sum().item() for patch in (dataset[index] for index in range(200))]
    assert min(shown) > 0  # every patch shows something marked
    small = sum(count <= 4 for count in shown)
    assert 70 < small < 130
    assert all(dataset[index]["target"][1].sum() == 0 for index in range(20))
    # The piece is not always in the middle of its patch.
    assert len({tuple(dataset[i]["target"][0].nonzero()[0].tolist()) for i in range(40)}) > 20


def test_a_share_of_the_patches_is_cut_around_pieces():
    images = _sparse()
    shares = []
    for share in (0.0, 0.5):
        dataset = PatchDataset(images, size=32, augment="none", length=300, seed=1, on_target=share)
        shares.append(np.mean([dataset[index]["target"].sum().item() > 0 for index in range(300)]))
    assert shares[0] < 0.1
    assert 0.4 < shares[1] < 0.65
    # Without it the patches are those of versions that did not have it.
    plain = PatchDataset(images, size=32, augment="standard", length=10, seed=1)
    same = PatchDataset(images, size=32, augment="standard", length=10, seed=1, on_target=0.0)
    torch.testing.assert_close(plain[3]["image"], same[3]["image"], rtol=0, atol=0)


def test_what_cannot_be_cut_around_is_refused():
    images = _sparse()
    with pytest.raises(UserError, match="number of pixels, not image"):
        PatchDataset(images, size="image", augment="none", length=3, seed=1, on_target=0.5)
    with pytest.raises(UserError, match="nothing is marked"):
        PatchDataset(images[:1], size=32, augment="none", length=3, seed=1, on_target=0.5)


def test_the_photograph_is_not_copied():
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((40, 40, 3)).astype(np.float32)
    fov = np.ones((40, 40), bool)
    dataset = PatchDataset(
        [TrainingImage(pixels.transpose(2, 0, 1), fov[None], fov)], size=32, augment="none", length=3, seed=1
    )
    assert np.shares_memory(dataset.images[0].image, pixels)
