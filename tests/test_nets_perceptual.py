"""The form of LPIPS against torchmetrics' pieces and by hand; the course's own feature network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _normalize_tensor, _spatial_average
from worlds import gap, normal, seeded

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import PerceptualDistance, ShapeFeatures, parameter_count


class Shown(nn.Module):
    """A network whose layers are its input at several scales: distances can be worked out by hand."""

    def __init__(self, gains=(1.0,)):
        super().__init__()
        self.gains = gains
        self.drop = nn.Dropout(0.5)

    def layers(self, x):
        return [gain * self.drop(x)[:, :, ::step, ::step] for step, gain in enumerate(self.gains, start=1)]


def test_distance_by_hand():
    x, y = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1)
    # Unit vectors (.6, .8) and (0, 1): squares .36 and .04.
    assert PerceptualDistance(Shown())(x, y).item() == pytest.approx(0.40, abs=1e-6)
    weighted = PerceptualDistance(Shown(), [torch.tensor([2.0, 5.0])])
    assert weighted(x, y).item() == pytest.approx(0.92, abs=1e-6)
    flat = torch.cat([x, y, y], dim=3), torch.cat([y, y, x], dim=3)  # two of three places differ: a mean over places
    assert PerceptualDistance(Shown())(*flat).item() == pytest.approx(0.8 / 3, abs=1e-6)


def test_length_of_features_does_not_count():
    d = PerceptualDistance(Shown((1.0, 50.0)))
    x, y = normal(3, 4, 6, 6, dtype=torch.float32), normal(3, 4, 6, 6, dtype=torch.float32, seed=1)
    assert gap(d(x, y), d(7 * x, 0.2 * y)) <= 1e-5
    both = PerceptualDistance(Shown((1.0, 1.0)))
    assert gap(d(x, y), both(x, y)) <= 1e-5


def test_distance_is_made_of_torchmetrics_pieces():
    torch_net = ShapeFeatures({"shape": 6})
    weights = [torch.rand(c, generator=seeded(c)) for c in (24, 48, 96, 104)]
    x, y = normal(4, 3, 32, 32, dtype=torch.float32), normal(4, 3, 32, 32, dtype=torch.float32, seed=1)
    got = PerceptualDistance(torch_net, weights)(x, y)
    expected = 0
    for w, a, b in zip(weights, torch_net.layers(x), torch_net.layers(y), strict=True):
        squares = (_normalize_tensor(a) - _normalize_tensor(b)) ** 2
        one_by_one = torch.nn.functional.conv2d(squares, w[None, :, None, None])
        expected = expected + _spatial_average(one_by_one, keep_dim=False)[:, 0]
    assert got.shape == (4,) and gap(got, expected) <= 1e-5


def test_distance_is_a_premetric_with_gradients_to_the_pictures_only():
    net = ShapeFeatures({"shape": 6})
    d = PerceptualDistance(net)
    assert not any(p.requires_grad for p in d.parameters())
    x, y = normal(2, 3, 32, 32, dtype=torch.float32), normal(2, 3, 32, 32, dtype=torch.float32, seed=1)
    assert d(x, x).tolist() == [0, 0] and (d(x, y) > 0).all() and gap(d(x, y), d(y, x)) <= 1e-6
    for start in (y.clone().requires_grad_(), torch.zeros_like(y, requires_grad=True)):
        assert torch.isfinite(torch.autograd.grad(d(x, start).sum(), start)[0]).all()
    blank = PerceptualDistance(Shown())
    zero = torch.zeros(1, 2, 2, 2, requires_grad=True)  # features of length zero
    assert torch.isfinite(torch.autograd.grad(blank(torch.ones(1, 2, 2, 2), zero).sum(), zero)[0]).all()


def test_stays_in_evaluation_mode():
    d = nn.ModuleList([PerceptualDistance(Shown())]).train()[0]
    x, y = normal(1, 3, 4, 4), normal(1, 3, 4, 4, seed=1)
    assert torch.equal(d(x, y), d(x, y)) and not d.network.drop.training


def test_perceptual_distance_refuses():
    x = normal(1, 2, 4, 4)
    with pytest.raises(ShapeError, match="y: got shape"):
        PerceptualDistance(Shown())(x, x[:, :1])
    with pytest.raises(RangeError, match=r"weights\[1\]"):
        PerceptualDistance(Shown(), [torch.ones(2), -torch.ones(2)])
    with pytest.raises(ShapeError, match="weights: got 2 layers, expected 1"):
        PerceptualDistance(Shown(), [torch.ones(2), torch.ones(2)])(x, x)
    with pytest.raises(ShapeError, match=r"weights\[0\]: got shape \(3,\), expected \(2,\)"):
        PerceptualDistance(Shown(), [torch.ones(3)])(x, x)


# The feature network


def test_shape_features_show_four_stages_and_several_heads():
    net = ShapeFeatures({"shape": 6, "colour": 8, "size": 3})
    x = normal(2, 3, 32, 32, dtype=torch.float32)
    assert [tuple(m.shape[1:]) for m in net.layers(x)] == [(24, 32, 32), (48, 16, 16), (96, 8, 8), (104, 4, 4)]
    assert {name: tuple(y.shape) for name, y in net(x).items()} == {"shape": (2, 6), "colour": (2, 8), "size": (2, 3)}
    assert gap(net.features(x).detach(), net.layers(x)[-1].detach().mean((2, 3))) <= 1e-6
    assert net.features(x).min() >= 0
    # 9 * (3*24 + 24*48 + 48*96 + 96*104) + 3 * 272 (biases, gains, shifts) + 105 * 17
    assert parameter_count(net) == 9 * (72 + 1152 + 4608 + 9984) + 3 * 272 + 105 * 17 == 144_945


def test_shape_features_learn_two_attributes_at_once():
    net = ShapeFeatures({"bright": 2, "red": 2})
    g = seeded(3)
    labels = {name: torch.randint(2, (32,), generator=g) for name in ("bright", "red")}
    x = 0.3 * torch.randn(32, 3, 32, 32, generator=g)
    x[:, :, ::2] += labels["bright"][:, None, None, None].float()
    x[:, 0, :, ::2] += 2 * labels["red"][:, None, None].float()
    before = net.loss(x, labels)
    hand = sum(-net(x)[n].log_softmax(1)[torch.arange(32), y] for n, y in labels.items())
    assert before.shape == (32,) and gap(before.detach(), hand.detach()) <= 1e-5
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        net.loss(x, labels).mean().backward()
        optimizer.step()
    assert net.loss(x, labels).mean() < 0.3 * before.mean()


def test_shape_features_refuse():
    with pytest.raises(RangeError, match="heads: got none"):
        ShapeFeatures({})
    with pytest.raises(ShapeError, match="labels: got"):
        ShapeFeatures({"shape": 2}).loss(torch.zeros(1, 3, 32, 32), {"colour": torch.zeros(1, dtype=torch.long)})
