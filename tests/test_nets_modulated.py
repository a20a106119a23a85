"""StyleGAN's parts: equalised rates, the mapping network, modulated convolutions against one loop per sample."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from worlds import normal

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import EqualLinear, MappingNetwork, ModulatedConv, StyleGenerator, modulated_conv

F32, F64 = torch.float32, torch.float64


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_one_convolution_per_sample(demodulate):
    x, weight, style = normal(3, 4, 5, 6), normal(2, 4, 3, 3, seed=1), 2 + normal(3, 4, seed=2)
    y = modulated_conv(x, weight, style, demodulate=demodulate)
    for i in range(3):
        w = weight.clone()
        for channel in range(4):
            w[:, channel] *= style[i, channel]
        if demodulate:
            w = torch.stack([kernel / math.sqrt(kernel.square().sum() + 1e-8) for kernel in w])
        assert torch.allclose(y[i], F.conv2d(x[i : i + 1], w, padding=1)[0], rtol=1e-10)


def test_demodulated_outputs_have_unit_variance():
    """FORMULAS.md: a standard deviation of 1.00, whatever the styles; without demodulation it follows them."""
    x, weight = normal(64, 32, 16, 16, dtype=F32), 3 * normal(32, 32, 3, 3, seed=1, dtype=F32)
    style = normal(64, 32, seed=2, dtype=F32).exp()
    inside = lambda y: y[:, :, 1:-1, 1:-1]  # noqa: E731 - at the border a third of the inputs is padding
    assert inside(modulated_conv(x, weight, style)).std().item() == pytest.approx(1, abs=0.01)
    assert inside(modulated_conv(x, weight, style, demodulate=False)).std() > 50
    assert inside(modulated_conv(x, weight, 100 * style)).std().item() == pytest.approx(1, abs=0.01)


def test_a_layer_with_rate_r_is_a_plain_one_that_learns_r_times_as_fast():
    """Adam's first step is its rate: outputs move by lr r/sqrt(n), and start with variance 1/n whatever r."""
    for rate in (1.0, 0.01):
        layer = built(lambda rate=rate: EqualLinear(400, 300, rate=rate, bias=0.5))
        read = lambda layer=layer: layer(torch.eye(400)).detach() - 0.5  # noqa: E731
        before = read()
        assert before.std().item() == pytest.approx(1 / 20, rel=0.01)
        optimizer = torch.optim.Adam([layer.weight], lr=1e-3)
        layer(torch.ones(1, 400)).sum().backward()
        optimizer.step()
        assert (before - read()).mean().item() == pytest.approx(1e-3 * rate / 20, rel=2e-2)
    assert torch.allclose(layer(torch.zeros(1, 400)), torch.tensor(0.5))


def test_the_mapping_network_normalises_and_hears_labels():
    mapping, z = built(lambda: MappingNetwork(8, 16, n_classes=3)), normal(5, 8, dtype=F32)
    labels = torch.tensor([0, 1, 2, 0, 1])
    w = mapping(z, labels)
    assert torch.allclose(mapping(5 * z, labels), w, atol=1e-5)  # only the direction of z counts
    assert (mapping(z, labels.flip(0)) - w).abs()[[0, 4]].max() > 1e-2
    assert len(mapping.layers) == 8 and all(layer.rate == 0.01 for layer in mapping.layers)
    wide = built(lambda: MappingNetwork(64, 4096, depth=1))(normal(200, 64, seed=3, dtype=F32))
    assert wide.square().mean().item() == pytest.approx(1.04, rel=0.05)  # 2 (1 + 0.2^2)/2: layers keep the scale


def test_styles_start_at_one():
    conv = built(lambda: ModulatedConv(6, 4, 3, dim=5))
    assert torch.equal(conv.style(torch.zeros(2, 5)), torch.ones(2, 6))
    x = normal(2, 6, 8, 8, dtype=F32)
    assert torch.allclose(conv(x, torch.zeros(2, 5)), modulated_conv(x, conv.weight, torch.ones(2, 6)), atol=1e-5)


def test_pictures_of_all_resolutions_are_added_up():
    """Silence the painter at 8x8, and what is left is the 4x4 picture, enlarged bilinearly."""
    net, w = built(lambda: StyleGenerator(8, 2, width=8, dim=8, depth=2)), normal(3, 8, dtype=F32)
    assert net.noise_sides == [4, 8, 8]
    noise = [torch.zeros(3, 1, side, side) for side in net.noise_sides]
    full = net.synthesise(w, noise)
    with torch.no_grad():
        net.paint[1].weight.zero_()
    coarse = net.synthesise(w, noise)
    first = net.layers[0](net.constant.expand(3, -1, -1, -1), w, noise[0])
    expected = F.interpolate(net.paint[0](first, w) + net.colour, size=8, mode="bilinear")
    assert torch.allclose(coarse, expected, atol=1e-6) and (full - coarse).abs().max() > 1e-2


def test_style_generators_of_other_sizes():
    assert built(lambda: StyleGenerator(8, 3, side=16, width=8, dim=8, depth=2))(torch.ones(2, 8)).shape == (
        2,
        3,
        16,
        16,
    )
    for side in (2, 6, 12, 0):
        with pytest.raises(RangeError, match="side"):
            StyleGenerator(side=side)
    with pytest.raises(ShapeError, match="got 1 maps, expected 3"):
        built(StyleGenerator).synthesise(torch.ones(1, 32), [torch.zeros(1, 1, 4, 4)])
