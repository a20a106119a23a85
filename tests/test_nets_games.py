"""Generators and critics of the games: what they start as, whom they hear, and that each sample is judged alone."""

from __future__ import annotations

import pytest
import torch
from worlds import normal

from lecture_lib.errors import RangeError
from lecture_lib.nets import (
    ConvFeatures,
    ConvGenerator,
    PointFeatures,
    PointGenerator,
    ProjectionCritic,
    ResNeXtBlock,
    ResNeXtFeatures,
    ResNeXtGenerator,
    relativistic_discriminator_loss,
    wasserstein_discriminator_loss,
)

F32 = torch.float32
BODIES = {"points": (PointFeatures, (2,)), "conv": (ConvFeatures, (1, 8, 8)), "resnext": (ResNeXtFeatures, (1, 8, 8))}
GENERATORS = {"points": PointGenerator, "conv": ConvGenerator, "resnext": ResNeXtGenerator}


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def test_losses_of_pairs_by_hand():
    """softplus(fake - real) and fake - real, mean over two logits: (log(1 + e^-1) + log(1 + e^2))/2 and 1/2."""
    real, fake = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert relativistic_discriminator_loss(real, fake).item() == pytest.approx((0.3132617 + 2.1269280) / 2, rel=1e-6)
    assert wasserstein_discriminator_loss(real, fake).item() == pytest.approx(0.5)
    # only differences count: another zero of the critic changes nothing
    assert torch.allclose(
        relativistic_discriminator_loss(real + 7, fake + 7), relativistic_discriminator_loss(real, fake)
    )


@pytest.mark.parametrize("body", BODIES)
def test_a_critic_projects_on_its_label_and_judges_each_alone(body):
    make, event = BODIES[body]
    critic, x, labels = built(lambda: ProjectionCritic(make(), 3)), normal(4, *event, dtype=F32), torch.arange(4) % 3
    logits = critic(x, labels)
    phi, head = critic.body(x), critic.leave
    for i in range(4):
        by_hand = head.weight[0] @ phi[i] + head.bias[0] + critic.label.table.weight[labels[i]] @ phi[i]
        assert logits[i].item() == pytest.approx(by_hand.item(), abs=1e-5)
        assert torch.allclose(critic(x[i : i + 1], labels[i : i + 1])[0], logits[i], atol=1e-5)
    assert torch.allclose(critic(x), head(phi))


@pytest.mark.parametrize("network", GENERATORS)
def test_generators_hear_noise_and_label(network):
    make, z = GENERATORS[network], normal(6, 5, dtype=F32)
    generator = built(lambda: make(5, n_classes=4)).eval()
    with torch.no_grad():  # ResNeXt blocks start as identities and DCGAN's weights small: shake them
        for seed, p in enumerate(generator.parameters()):
            p.add_(0.1 * normal(*p.shape, seed=seed, dtype=F32))
    x = generator(z, torch.zeros(6, dtype=torch.int64))
    other = generator(z, torch.tensor([0, 1, 2, 3, 0, 1]))
    assert torch.allclose(x[[0, 4]], other[[0, 4]], atol=1e-6)
    assert (x - other)[[1, 2, 3, 5]].flatten(1).abs().amax(1).min() > 1e-4
    assert (x[0] - x[1]).abs().max() > 1e-4


def test_dcgan_starts_small_and_stays_within_grey_levels():
    generator = built(lambda: ConvGenerator(64, width=64))
    for layer in generator.layers:
        if getattr(layer, "weight", None) is not None and layer.weight.ndim > 1:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert generator(100 * normal(32, 64, dtype=F32)).abs().max() <= 1


def test_resnext_blocks_start_as_identities_and_scaled_by_their_number():
    """Fix-up: scale L^(-1/4) for two layers that are not last; a network of any depth then starts as one of depth 0."""
    x = normal(2, 64, 4, 4, dtype=F32)
    one, many = (built(lambda n=n: ResNeXtBlock(64, blocks=n)) for n in (1, 16))
    assert torch.equal(one(x), x)
    assert torch.allclose(many.widen.weight, one.widen.weight / 2) and torch.allclose(
        many.mix.weight, one.mix.weight / 2
    )
    assert one.widen.weight.std().item() == pytest.approx((2 / (1 + 0.2**2) / 64) ** 0.5, rel=0.02)  # He et al. 2015
    shallow, deep = (built(lambda n=n: ResNeXtFeatures(depth=n)) for n in (1, 8))
    assert len([m for m in deep.modules() if isinstance(m, ResNeXtBlock)]) == 16
    deep.enter, deep.basis = shallow.enter, shallow.basis
    pictures = normal(3, 1, 8, 8, dtype=F32)
    assert torch.allclose(deep(pictures), shallow(pictures), atol=1e-6)


def test_sizes_are_doublings_of_four():
    assert built(lambda: ResNeXtGenerator(channels=3, side=16))(torch.ones(2, 32)).shape == (2, 3, 16, 16)
    assert built(lambda: ResNeXtFeatures(3, side=16))(torch.ones(2, 3, 16, 16)).shape == (2, 64)
    for make in (ResNeXtGenerator, ResNeXtFeatures):
        with pytest.raises(RangeError, match="side: got 12"):
            make(side=12)
