import numpy as np
import pytest
import torch

from retina_seg.errors import UserError
from retina_seg.losses import BALANCED, LOSSES
from retina_seg.losses import get_loss as loss_of


def get_loss(name):
    """Two targets, one on a third of the field of view, the other on a thousandth."""
    return loss_of(name, (0.3, 0.001))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 24, 24, generator=generator)
    target = (torch.rand(2, 2, 24, 24, generator=generator) > 0.7).float()
    fov = torch.zeros(2, 1, 24, 24)
    fov[..., 4:20, 2:20] = 1
    return logits, target, fov


@pytest.mark.parametrize("name", [*LOSSES, *BALANCED])
def test_pixels_outside_the_field_of_view_do_not_matter(name, batch):
    logits, target, fov = batch
    logits = logits.clone().requires_grad_()
    loss = get_loss(name)(logits, target, fov)
    loss.backward()
    flipped = torch.where(fov > 0, target, 1 - target)
    shouted = torch.where(fov > 0, logits, 50.0)
    torch.testing.assert_close(get_loss(name)(shouted, flipped, fov), loss)
    assert loss.ndim == 0
    assert not logits.grad[(fov == 0).expand_as(logits)].any()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [*LOSSES, *BALANCED])
def test_right_beats_unsure_beats_wrong(name, batch):
    _, target, fov = batch
    sign = 2 * target - 1
    right, unsure, wrong = (get_loss(name)(scale * sign, target, fov).item() for scale in (8, 0.1, -8))
    assert right < unsure < wrong
    assert right < 0.25


@pytest.mark.parametrize("name", [*LOSSES, *BALANCED])
def test_finite_without_truth_or_field_of_view(name, batch):
    logits, target, fov = batch
    assert torch.isfinite(get_loss(name)(logits, target * 0, fov))
    assert torch.isfinite(get_loss(name)(logits, target, fov * 0))


def test_bce_by_hand(batch):
    logits, target, fov = (t.double().numpy() for t in batch)
    prob = 1 / (1 + np.exp(-logits))
    values = -(target * np.log(prob) + (1 - target) * np.log(1 - prob))
    expected = values[np.broadcast_to(fov > 0, values.shape)].mean()
    assert get_loss("bce")(*batch).item() == pytest.approx(expected, rel=1e-5)


def test_dice_by_hand(batch):
    logits, target, fov = (t.double().numpy() for t in batch)
    prob, truth = fov / (1 + np.exp(-logits)), target * fov
    axes = (0, 2, 3)
    dice = 2 * (prob * truth).sum(axes) / (prob.sum(axes) + truth.sum(axes))
    assert get_loss("dice")(*batch).item() == pytest.approx(1 - dice.mean(), abs=1e-4)


def test_focal_by_hand(batch):
    logits, target, fov = (t.double().numpy() for t in batch)
    right = 1 / (1 + np.exp(-logits * (2 * target - 1)))
    values = -((1 - right) ** 2) * np.log(right)
    expected = values[np.broadcast_to(fov > 0, values.shape)].mean()
    assert get_loss("focal")(*batch).item() == pytest.approx(expected, rel=1e-4)


def test_tversky_punishes_misses_more_than_false_alarms():
    target = torch.zeros(1, 1, 10, 10)
    target[..., :5, :] = 1
    more, less = torch.full_like(target, -20.0), torch.full_like(target, -20.0)
    more[..., :6, :], less[..., :4, :] = 20, 20
    fov = torch.ones_like(target)
    assert get_loss("tversky")(less, target, fov) > get_loss("tversky")(more, target, fov)


def test_unknown_name():
    with pytest.raises(UserError, match="bce_dice"):
        get_loss("hinge")


def test_balanced_cross_entropy_is_1_for_a_network_that_knows_the_prevalence_alone():
    prevalence = (0.2, 0.01, 0.002)
    target = torch.zeros(1, 3, 100, 100)
    for k, share in enumerate(prevalence):
        target[0, k].view(-1)[: round(share * 10_000)] = 1
    share = torch.tensor(prevalence).view(1, 3, 1, 1)
    knows_nothing = torch.logit(share).expand(1, 3, 100, 100).clone().requires_grad_()
    loss = loss_of("balanced_bce", prevalence)
    value = loss(knows_nothing, target, torch.ones(1, 1, 100, 100))
    assert value.item() == pytest.approx(1, abs=1e-5)
    # Of all constants this is the best one: its gradient is 0, so the probabilities stay calibrated.
    value.backward()
    assert knows_nothing.grad.sum(dim=(2, 3)).abs().max() < 1e-6


def test_a_target_that_never_occurs_has_a_finite_weight():
    loss = loss_of("balanced_bce", (0.0, 0.9))
    value = loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
    assert torch.isfinite(value)
    assert value > 0
