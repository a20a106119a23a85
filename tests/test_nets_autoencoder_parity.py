"""The autoencoder: the published size, and diffusers' AutoencoderKL with the same weights."""

from __future__ import annotations

from functools import cache

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets import (
    KLAutoencoder,
    autoencoder_from_diffusers,
    explicit_attention,
    parameter_count,
    stable_diffusion_autoencoder,
    with_kernel,
)

diffusers.logging.set_verbosity_error()
G = torch.Generator().manual_seed(3)
# (channels, latent channels, width, multipliers, blocks, groups)
PLANS = [(3, 4, 8, (1, 2, 2), 2, 4), (1, 2, 12, (1, 3), 1, 6)]


def randn(*shape):
    return torch.randn(*shape, generator=G)


@cache
def theirs(plan):
    """diffusers' autoencoder with random weights: small ones, and norms with a gain of about 1."""
    channels, latent, width, multipliers, blocks, groups = plan
    net = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent,
        block_out_channels=tuple(width * m for m in multipliers),
        layers_per_block=blocks,
        norm_num_groups=groups,
        down_block_types=("DownEncoderBlock2D",) * len(multipliers),
        up_block_types=("UpDecoderBlock2D",) * len(multipliers),
    )
    for name, p in net.named_parameters():
        p.data.normal_(std=0.15, generator=G)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return net.eval().requires_grad_(False)


def mine(plan):
    channels, latent, width, multipliers, blocks, groups = plan
    sizes = {"channels": width, "multipliers": multipliers, "blocks": blocks, "groups": groups}
    return KLAutoencoder(channels, latent, **sizes).requires_grad_(False)


def distance(a, b):
    return (a - b).abs().max().item()


def test_parameter_count_is_the_published_one():
    with torch.device("meta"):
        net = stable_diffusion_autoencoder()
    assert parameter_count(net) == 83_653_863
    assert net.factor == 8


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("b", "h", "w"), [(1, 16, 16), (3, 8, 24)])
def test_equals_diffusers(plan, b, h, w):
    reference, net = theirs(plan), mine(plan)
    assert autoencoder_from_diffusers(net, reference.state_dict()) is net
    x = randn(b, plan[0], h, w)
    expected, posterior = reference.encode(x).latent_dist, net.encode(x)
    assert expected.mean.std() > 0.05
    assert distance(posterior.mean, expected.mean) <= 1e-5
    assert distance(posterior.logvar, expected.logvar) <= 1e-5
    assert torch.allclose(posterior.kl(), expected.kl(), rtol=1e-5)
    z = randn(*expected.mean.shape)
    image = reference.decode(z).sample
    assert image.std() > 0.1
    assert image.shape == x.shape
    assert distance(net.decode(z), image) <= 1e-5


def test_the_sample_is_the_mean_plus_the_noise_that_diffusers_draws():
    reference, net = theirs(PLANS[0]), autoencoder_from_diffusers(mine(PLANS[0]), theirs(PLANS[0]).state_dict())
    x = randn(2, 3, 16, 16)
    expected = reference.encode(x).latent_dist.sample(torch.Generator().manual_seed(5))
    assert distance(net.encode(x).sample(torch.Generator().manual_seed(5)), expected) <= 1e-5


def test_the_log_variance_is_clamped_as_in_diffusers():
    weights = {name: p.clone() for name, p in theirs(PLANS[0]).state_dict().items()}
    weights["quant_conv.bias"][4:] = torch.tensor([-100.0, -29.0, 19.0, 100.0])
    reference = theirs(PLANS[0])
    kept = reference.quant_conv.bias.clone()
    reference.quant_conv.bias.copy_(weights["quant_conv.bias"])
    try:
        x = randn(1, 3, 16, 16)
        expected = reference.encode(x).latent_dist.logvar
    finally:
        reference.quant_conv.bias.copy_(kept)
    logvar = autoencoder_from_diffusers(mine(PLANS[0]), weights).encode(x).logvar
    assert distance(logvar, expected) <= 1e-5
    assert logvar[:, 0].max() == -30
    assert logvar[:, 3].min() == 20


def test_the_explicit_kernel_gives_the_same_pictures_and_opens_the_decoder_to_forward_mode():
    net = autoencoder_from_diffusers(mine(PLANS[0]), theirs(PLANS[0]).state_dict()).double()
    z, dz = randn(1, 4, 3, 4).double(), randn(1, 4, 3, 4).double()
    fused = net.decode(z)
    with_kernel(net, explicit_attention)
    assert distance(net.decode(z), fused) <= 1e-12
    _, slope = torch.func.jvp(net.decode, (z,), (dz,))
    assert distance(slope, (net.decode(z + 1e-5 * dz) - net.decode(z - 1e-5 * dz)) / 2e-5) <= 1e-6


def test_names_of_before_2023():
    weights = theirs(PLANS[0]).state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, weight in weights.items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        renamed[name] = weight
    assert sum("proj_attn" in name for name in renamed) == 4
    new, same = (autoencoder_from_diffusers(mine(PLANS[0]), w).state_dict() for w in (weights, renamed))
    assert all(torch.equal(new[name], same[name]) for name in new)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w: w.pop("encoder.conv_in.bias"), UnknownNameError, r"1 weights are missing \(encoder.conv_in.bias\)"),
        (lambda w: w.update({"vq.weight": torch.ones(1)}), UnknownNameError, r"1 have no place .* \(vq.weight\)"),
        (
            lambda w: w.update({"quant_conv.bias": torch.ones(6)}),
            ShapeError,
            r"\(6,\), expected \(8,\)",
        ),
    ],
)
def test_wrong_weights_are_named_and_change_nothing(change, error, words):
    net, weights = mine(PLANS[0]), dict(theirs(PLANS[0]).state_dict())
    change(weights)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    with pytest.raises(error, match=words):
        autoencoder_from_diffusers(net, weights)
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
