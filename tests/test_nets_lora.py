"""Low-rank adapters: nothing at the start, a sum in the end, and a way back that is exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from worlds import normal, seeded

from lecture_lib.errors import CourseError, RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import DiT, LabelEmbedding, UNet, add_lora, parameter_count
from lecture_lib.training import Ema


def gap(a, b):
    return float((a.detach() - b.detach()).abs().max())


def small(dtype=torch.float64):
    """Linear layers, a k x k convolution with stride and padding, a 1x1 one."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(64, 5)
    )
    g = seeded(9)
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=g)
    return net.to(dtype)


def filled(adapter, seed=1):
    """The adapter with a B that is not zero any more."""
    g = seeded(seed)
    for part in adapter.parts.values():
        part.B.data = torch.randn(part.B.shape, generator=g).to(part.B.dtype)
    return adapter


X = normal(4, 3, 8, 8, seed=3)


def weights(net):
    return {name: p.clone() for name, p in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_nothing_changes_at_the_start():
    net = small()
    before, kept = net(X), weights(net)
    adapter = add_lora(net, 2, generator=seeded(1))
    assert torch.equal(net(X), before) and same(kept, weights(net))
    again = add_lora(small(), 2, generator=seeded(1))
    assert same(weights(adapter), weights(again))
    assert not any(p.requires_grad for p in net.parameters()) and all(p.requires_grad for p in adapter.parameters())


def test_update_is_alpha_over_rank_b_a():
    # By hand, on one linear layer: rank 2, alpha 6, strength .5: .5 * 3 * B A x.
    net = nn.Sequential(nn.Linear(3, 2)).double()
    x, before = normal(5, 3), net(normal(5, 3))
    adapter = filled(add_lora(net, 2, alpha=6.0, generator=seeded(1)))
    A, B = adapter.parts["0"].A, adapter.parts["0"].B
    assert gap(net(x), before + 3.0 * x @ A.T @ B.T) <= 1e-14
    adapter.scale = 0.5
    assert gap(net(x), before + 1.5 * x @ A.T @ B.T) <= 1e-14
    assert gap(adapter.delta("0"), 1.5 * B @ A) <= 1e-14
    adapter.scale = 0.0
    assert torch.equal(net(x), before)


def test_gradients_at_the_start():
    net = small()
    adapter = add_lora(net, 2, generator=seeded(1))
    net(X).square().sum().backward()
    for part in adapter.parts.values():
        assert (part.A.grad == 0).all() and (part.B.grad != 0).any()
    assert all(p.grad is None for p in net.parameters())


def test_merged_is_the_same_function_and_the_way_back_is_exact():
    net = small(torch.float32)
    x, kept = X.float(), weights(net)
    adapter = filled(add_lora(net, 3, alpha=1.5, generator=seeded(1)))
    beside = net(x)
    adapter.merge()
    assert adapter.merged and gap(net(x), beside) <= 1e-6 * float(beside.detach().abs().max())
    assert not torch.equal(net[0].weight, kept["0.weight"])
    adapter.scale = -2.0  # the merged weights follow
    inside = net(x)
    adapter.unmerge()
    assert same(kept, weights(net)) and gap(net(x), inside) <= 1e-5 * float(inside.detach().abs().max())
    adapter.merge()
    adapter.remove()
    adapter.remove()
    assert same(kept, weights(net)) and gap(net(x), small(torch.float32)(x)) == 0


def test_two_adapters_add_up():
    net = small()
    one = filled(add_lora(net, 2, targets=["4"], generator=seeded(1)), 1)
    two = filled(add_lora(net, 3, alpha=1.0, targets=["0", "4"], generator=seeded(2)), 2)
    one.scale, two.scale = 0.7, -0.4
    by_hand = small()
    for adapter in (one, two):
        for name in adapter.names:
            layer = by_hand.get_submodule(name)
            layer.weight.data += adapter.delta(name).reshape(layer.weight.shape)
    assert gap(net(X), by_hand(X)) <= 1e-12
    one.merge()
    two.merge()
    assert gap(net(X), by_hand(X)) <= 1e-12
    with pytest.raises(CourseError, match="merged later must be unmerged first"):
        one.unmerge()
    two.unmerge()
    one.unmerge()
    assert same(weights(net), weights(small()))
    two.remove()
    alone = small()
    alone[4].weight.data += one.delta("4")
    assert gap(net(X), alone(X)) <= 1e-12


def test_rank_and_number_of_parameters():
    net = small()
    adapter = filled(add_lora(net, 2, generator=seeded(1)))
    assert adapter.names == ["0", "2", "4"]
    for name, inputs, outputs in (("0", 27, 6), ("2", 6, 4), ("4", 64, 5)):
        delta = adapter.delta(name)
        assert delta.shape == (outputs, inputs) and torch.linalg.matrix_rank(delta) == 2
    assert parameter_count(adapter) == 2 * (27 + 6 + 6 + 4 + 64 + 5)
    A = add_lora(nn.Sequential(nn.Linear(400, 3)), 300, generator=seeded(1)).parts["0"].A
    assert A.var().item() == pytest.approx(1 / 400, rel=0.03)


def test_only_the_adapter_learns():
    # A linear map whose update has rank 1 is found, and the weights beside it have not moved.
    net = nn.Sequential(nn.Linear(6, 5, bias=False)).double()
    kept = weights(net)
    goal = net[0].weight.detach() + torch.outer(normal(5, seed=1), normal(6, seed=2))
    adapter = add_lora(net, 1, generator=seeded(1))
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.05)
    x = normal(64, 6)
    for _ in range(400):
        optimizer.zero_grad()
        (net(x) - x @ goal.T).square().mean().backward()
        optimizer.step()
    assert same(kept, weights(net)) and gap(adapter.delta("0"), goal - net[0].weight) <= 1e-3


def test_state_is_the_difference_alone():
    adapter = filled(add_lora(small(), 2, generator=seeded(1)))
    assert sorted(adapter.state_dict()) == sorted(f"parts.{n}.{m}" for n in "024" for m in "AB")
    net = small()
    other = add_lora(net, 2, generator=seeded(5))
    other.merge()
    other.load_state_dict(adapter.state_dict())
    assert gap(net[4].weight, small()[4].weight + adapter.delta("4")) <= 1e-14  # merged weights follow
    with pytest.raises(ShapeError, match=r"state_dict: 'parts.0.A' is \(2, 27\), expected \(3, 27\)"):
        add_lora(small(), 3).load_state_dict(adapter.state_dict())
    with pytest.raises(ShapeError, match=r"'parts.0.A' is \(2, 27\), expected None"):
        add_lora(small(), 2, targets=["2", "4"]).load_state_dict(adapter.state_dict())


@pytest.mark.parametrize(
    "make",
    [lambda: DiT(8, 2, dim=32, depth=2, condition=LabelEmbedding(3, 32)), lambda: UNet(2, n_classes=3)],
    ids=["dit", "unet"],
)
def test_networks_of_the_course(make):
    net = make()
    for p in net.parameters():
        p.data = 0.05 * torch.randn(p.shape, generator=seeded(p.numel()))
    x, t, cond = normal(2, 2, 8, 8, dtype=torch.float32), torch.tensor([100.0, 700.0]), torch.tensor([0, 3])
    before = net(x, t, cond)
    adapter = add_lora(net, 2, targets=["qkv", "attention.out"], generator=seeded(1))
    assert adapter.names and all(name.rpartition(".")[2] in ("qkv", "out") for name in adapter.names)
    assert torch.equal(net(x, t, cond), before)
    beside = filled(adapter) and net(x, t, cond)
    assert gap(beside, before) > 1e-4
    twin = copy.deepcopy(net)  # keeps its own part
    adapter.merge()
    assert gap(net(x, t, cond), beside) <= 1e-5 and gap(twin(x, t, cond), beside) == 0
    adapter.remove()
    assert torch.equal(net(x, t, cond), before) and gap(twin(x, t, cond), beside) == 0


def test_an_average_follows_an_adapter():
    net = small()
    adapter = add_lora(net, 2, generator=seeded(1))
    ema = Ema(adapter, decay=0.5)
    filled(adapter)
    for _ in range(60):
        ema.update(adapter)
    learned = net(X)
    assert gap(ema.average.delta("4"), adapter.delta("4")) <= 1e-9
    filled(adapter, seed=8)
    assert gap(ema.average.delta("4"), adapter.delta("4")) > 0.1 and gap(net(X), learned) > 0.1  # a copy of its own
    adapter.load_state_dict(ema.average.state_dict())
    assert gap(net(X), learned) <= 1e-8


def test_targets():
    assert add_lora(small(), 1, targets=lambda name, layer: isinstance(layer, nn.Conv2d)).names == ["0", "2"]
    assert add_lora(small(), 1, targets="4").names == ["4"]
    odd = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
    with pytest.raises(UnknownNameError, match=r"fits none of the network's layers, \[\]"):
        add_lora(odd, 1)


def test_adapters_refuse():
    net = small()
    with pytest.raises(UnknownNameError, match=r"targets: \['query'\] fits none .*'0', '2', '4'"):
        add_lora(net, 1, targets=["query"])
    assert all(p.requires_grad for p in net.parameters())  # nothing was done
    with pytest.raises(RangeError, match="rank: got 0"):
        add_lora(net, 0)
    with pytest.raises(RangeError, match="alpha: got -1"):
        add_lora(net, 1, alpha=-1.0)
    adapter = add_lora(net, 1)
    with pytest.raises(UnknownNameError, match="name: got '7'"):
        adapter.delta("7")
    with pytest.raises(CourseError, match="not merged"):
        adapter.unmerge()
    adapter.merge()
    with pytest.raises(CourseError, match="merged already"):
        adapter.merge()
    net[0].weight.data += 1
    with pytest.raises(CourseError, match="have changed since"):
        adapter.unmerge()


def test_a_strength_that_is_refused_leaves_the_adapter_merged():
    adapter = filled(add_lora(small(), 2))
    adapter.merge()
    with pytest.raises(RangeError, match="scale"):
        adapter.scale = float("nan")
    assert adapter.merged and adapter.scale == 1.0
