"""The patch discriminator and its losses."""

from __future__ import annotations

import pytest
import torch
from worlds import gap, normal

from lecture_lib.errors import ShapeError
from lecture_lib.nets import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss


def test_hinge_losses_by_hand():
    real, fake = torch.tensor([[0.5, 2.0], [-1.0, 1.0]]), torch.tensor([[0.0, -3.0], [1.0, -0.5]])
    # (.5 + 0 + 1 + 0)/4 and (2 + 0 + 2 + .5)/4
    assert hinge_discriminator_loss(real, fake).tolist() == [0.375, 1.125]
    assert hinge_generator_loss(fake).tolist() == [1.5, -0.25]
    maps = normal(3, 1, 4, 4)
    assert gap(hinge_generator_loss(maps), -maps.mean((1, 2, 3))) <= 1e-15
    with pytest.raises(ShapeError, match="fake"):
        hinge_discriminator_loss(maps, maps[:2])


def test_the_discriminator_is_pushed_the_right_way():
    real, fake = torch.zeros(2, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    hinge_discriminator_loss(real, fake).sum().backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # real up, fake down
    fake.grad = None
    hinge_generator_loss(fake).sum().backward()
    assert (fake.grad < 0).all()  # fake up


@pytest.mark.parametrize("layers", [1, 2])
def test_a_logit_sees_its_patch_and_nothing_else(layers):
    net = PatchDiscriminator(3, 8, layers).eval()
    x = normal(1, 3, 64, 64, dtype=torch.float32).requires_grad_()
    logits = net(x)
    assert logits.shape == (1, 1, 64 // 2**layers, 64 // 2**layers)
    k = logits.shape[-1] // 2
    seen = torch.autograd.grad(logits[0, 0, k, k], x)[0][0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    assert len(rows) == len(columns) == net.receptive_field == {1: 8, 2: 18}[layers]
    assert rows[-1] - rows[0] == net.receptive_field - 1


def test_default_size_and_independence_of_samples():
    net = PatchDiscriminator()
    for _ in range(30):
        net(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))  # power iterations settle
    net.eval()
    x = normal(3, 3, 32, 32, dtype=torch.float32)
    assert net(x).shape == (3, 1, 8, 8)
    assert gap(net(x)[1:2].detach(), net(x[1:2]).detach()) <= 1e-5
    for layer in (*net.halvings, net.leave):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_patch_discriminator_refuses():
    with pytest.raises(ShapeError, match=r"x: got \(1, 3, 30, 32\), expected .* multiples of 4"):
        PatchDiscriminator(3, 8, 2)(torch.zeros(1, 3, 30, 32))
