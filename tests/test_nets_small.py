"""The MLP, the U-Net and the classifiers."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import FeatureNetwork, NoisyClassifier, TimeMLP, UNet
from lecture_lib.nets.unet import ResBlock, SpatialAttention

G = torch.Generator().manual_seed(2)


def shaken(net):
    for p in net.parameters():
        p.data.normal_(std=0.1, generator=G)
    return net


def sensitive_to_time_and_label(net, x):
    t, label = torch.full((len(x),), 300.0), torch.full((len(x),), 1)
    base = net(x, t, label)
    assert base.shape == x.shape
    assert (net(x, t + 300, label) - base).abs().max() > 1e-4
    assert (net(x, t, label + 1) - base).abs().max() > 1e-4
    null = torch.full((len(x),), 3)
    assert torch.equal(net(x, t), net(x, t, null))
    with pytest.raises(RangeError):
        net(x, t, null + 1)


def test_mlp():
    sensitive_to_time_and_label(shaken(TimeMLP(2, width=16, depth=2, n_classes=3)), torch.randn(4, 2, generator=G))
    fresh = TimeMLP(5, width=16)
    assert torch.equal(fresh(torch.randn(3, 5, generator=G), torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3, 5))


def test_mlp_hears_numbers_beside_the_label():
    net = shaken(TimeMLP(2, width=16, depth=2, n_classes=3, numbers={"s": 1.0, "w": 100.0}))
    x, t, cond = torch.randn(4, 2, generator=G), torch.rand(4) * 1000, {"s": torch.rand(4) * 1000, "w": torch.rand(4)}
    base = net(x, t, cond | {"label": torch.tensor([0, 1, 2, 3])})
    for name, other in (("s", cond["s"] + 300), ("w", cond["w"] + 1), ("label", torch.tensor([1, 1, 2, 3]))):
        told = cond | {"label": torch.tensor([0, 1, 2, 3])} | {name: other}
        assert (net(x, t, told)[0] - base[0]).abs().max() > 1e-4
    assert torch.equal(net(x, t, cond), net(x, t, cond | {"label": torch.full((4,), 3)}))  # no label: the null class
    for wrong in (None, {"s": cond["s"]}, cond | {"w": torch.zeros(1)}):
        with pytest.raises(ShapeError, match="one number per sample"):
            net(x, t, wrong)


def test_mlp_treats_samples_alone():
    net, x, t = shaken(TimeMLP(2, width=16, depth=2)), torch.randn(4, 2, generator=G), torch.rand(4, generator=G) * 1000
    assert torch.allclose(net(x, t)[1:2], net(x[1:2], t[1:2]), atol=1e-6)


@pytest.mark.parametrize("size", [8, 10])
def test_unet(size):
    net = shaken(UNet(2, width=8, n_classes=3, heads=2))
    sensitive_to_time_and_label(net, torch.randn(2, 2, size, size, generator=G))
    with pytest.raises(ShapeError, match="even"):
        net(torch.zeros(1, 2, 7, 8), torch.zeros(1))


def test_unet_starts_at_zero_and_its_blocks_at_their_skip():
    net = UNet(1, width=8, heads=2)
    assert torch.equal(net(torch.randn(2, 1, 8, 8, generator=G), torch.tensor([1.0, 9.0])), torch.zeros(2, 1, 8, 8))
    x = torch.randn(2, 8, 4, 4, generator=G)
    assert torch.equal(ResBlock(8, 8, 4)(x, torch.randn(2, 4, generator=G)), x)
    assert torch.equal(SpatialAttention(8, 2)(x), x)


def test_unet_sees_the_whole_image():
    """A change in one corner reaches the opposite one, through attention and the lower resolution."""
    net, x = shaken(UNet(1, width=8, heads=2)), torch.randn(1, 1, 16, 16, generator=G)
    other = x.clone()
    other[..., 0, 0] += 1.0
    t = torch.tensor([500.0])
    assert (net(x, t) - net(other, t))[..., -1, -1].abs() > 0


def test_classifiers():
    x = torch.randn(3, 1, 8, 8, generator=G)
    noisy = shaken(NoisyClassifier(n_classes=4, width=8))
    t = torch.tensor([0.0, 500.0, 1000.0])
    assert noisy(x, t).shape == (3, 4)
    assert (noisy(x, t + 100) - noisy(x, t)).abs().max() > 1e-4
    net = FeatureNetwork()
    assert net(x).shape == (3, 10) and net.features(x).shape == (3, 64) and (net.features(x) >= 0).all()
    assert torch.allclose(net(x), net.leave(net.features(x)))


def test_unet_skip_connection_carries_the_details():
    """With the path through the lower resolution cut, the image still reaches the output."""
    net = shaken(UNet(1, width=8, heads=2))
    net.grow.weight.data.zero_()
    x, t = torch.randn(2, 1, 8, 8, generator=G), torch.tensor([100.0, 100.0])
    change = (net(x, t) - net(-x, t)).abs().amax(dim=(1, 2, 3))
    assert (change > 1e-3).all()
