"""The controls against scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression

from retina_seg import metrics, phantom, preprocess
from retina_seg.errors import UserError
from retina_seg.models import Begins, build_model
from retina_seg.models.controls import platt
from retina_seg.preprocess import Preprocess


def test_vesselness_is_frangis_formula():
    """Hessians by scipy, eigenvalues by numpy, pixel by pixel."""
    image = np.random.default_rng(0).standard_normal((30, 40))
    for sigma in (1.0, 2.5):
        net = build_model("frangi", 1, 1, arguments={"sigmas": [sigma], "beta": 0.7, "c": 0.4})
        orders = ((2, 0), (1, 1), (1, 1), (0, 2))
        hessian = [gaussian_filter(image, sigma, order=order, mode="nearest", truncate=5) for order in orders]
        values = np.linalg.eigvalsh(sigma**2 * np.stack(hessian, axis=-1).reshape(30, 40, 2, 2))
        values = np.take_along_axis(values, np.argsort(np.abs(values), axis=-1), axis=-1)
        small, large = values[..., 0], values[..., 1]
        expected = np.exp(-((small / large) ** 2) / (2 * 0.7**2)) * (1 - np.exp(-(small**2 + large**2) / (2 * 0.4**2)))
        found = net.vesselness(torch.from_numpy(image)[None, None].float())[0, 0].numpy()
        np.testing.assert_allclose(found, np.where(large > 0, expected, 0), atol=0.02)


def test_a_dark_line_stands_out_at_its_own_scale():
    image = torch.zeros(1, 1, 60, 60)
    image[..., 28:32] = -3
    net = build_model("frangi", 1, 1, arguments={"sigmas": [2.0]})
    found = net.vesselness(image)[0, 0]
    assert found[30, 29] > 0.5
    assert found[30, 5] == 0
    assert not net.vesselness(-image)[0, 0, 30, 29] > 0.01  # a bright line


def test_it_finds_drawn_vessels():
    settings = Preprocess(colour="green", local_contrast=10)
    seen = []
    for seed in (0, 1):
        drawing = phantom.draw(seed, width=224, height=232)
        prepared = preprocess.apply(drawing.image, drawing.fov, settings)
        target = preprocess.apply_to_target(drawing.vessels, prepared.geometry)
        seen.append([torch.from_numpy(one) for one in (prepared.image, target[None], prepared.fov)])
    net = build_model("frangi", 1, 1)
    assert isinstance(net, Begins)
    net.begin(seen[:1], seed=0)
    image, target, fov = seen[1]
    with torch.no_grad():
        prob = torch.sigmoid(net(image[None]))[0, 0]
    assert metrics.auc(prob.numpy(), target[0].numpy(), fov.numpy()) > 0.8
    assert 0.5 < prob[fov].mean() / target[0][fov].float().mean() < 2


def test_slope_and_shift_are_those_of_logistic_regression():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 500)).astype(np.float32)
    truth = (rng.random((2, 500)) < 1 / (1 + np.exp(-3 * values + 1))).astype(np.float32)
    truth[1] = 0
    (slope, shift), nothing = platt(torch.from_numpy(values), torch.from_numpy(truth), seed=0)
    fitted = LogisticRegression(C=1e6).fit(values[0, :, None], truth[0])
    assert slope == pytest.approx(float(fitted.coef_[0, 0]), rel=1e-3)
    assert shift == pytest.approx(float(fitted.intercept_[0]), rel=1e-3)
    assert nothing == (1.0, 0.0)


def test_a_pixel_is_read_alone():
    net, image = build_model("pixel", 3, 2), torch.randn(1, 3, 8, 9)
    changed = image.clone()
    changed[..., 0, 0] += 1
    difference = (net(changed) - net(image)).abs()
    assert difference[..., 0, 0].min() > 0
    assert not difference.flatten(2)[..., 1:].any()


def test_errors():
    with pytest.raises(UserError, match="must be above 0"):
        build_model("frangi", 1, 1, arguments={"sigmas": []})
