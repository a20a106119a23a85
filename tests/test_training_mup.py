"""μP against the paper's tables, against its other form, and by the coordinate check."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes
from lecture_lib.data import Batches
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import DiT, LabelEmbedding, TimeMLP, fused_attention, with_kernel
from lecture_lib.training import (
    Role,
    activations,
    movement,
    movement_slopes,
    mup_adamw,
    mup_attention,
    mup_groups,
    mup_init,
    train,
    width_rules,
)
from lecture_lib.training.mup import root_mean_square

INPUT, HIDDEN, OUTPUT = Role.INPUT, Role.HIDDEN, Role.OUTPUT
FLAT = 0.1  # a slope of log movement over log width up to this counts as flat (FORMULAS T16)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def built(make, width, seed=None):
    """``make(width)`` with initial weights that depend on the seed alone (by default, on the width alone)."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.set_state(seeded(width if seed is None else seed).get_state())
        return make(width)


def transformer(width):
    return DiT(8, 1, patch=4, dim=width, depth=2, heads=4, condition=LabelEmbedding(10, width))


def vectors(width):
    return TimeMLP(2, width=width, depth=2)


def plain(width):
    """A hidden matrix between a first layer and an output that does not start at zero."""
    layers = nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
    return nn.Sequential(*layers).double()


def dit(width):
    return built(transformer, width)


def test_every_weight_of_a_transformer_has_its_row_of_table_3():
    rules = width_rules(dit(128), dit(32))
    assert "positions" not in rules  # frozen
    table = {
        "embed.weight": (INPUT, 1.0, 1.0),
        "embed.bias": (INPUT, 1.0, 1.0),
        "time.mlp.0.weight": (INPUT, 1.0, 1.0),  # 256 features, whatever the width
        "time.mlp.2.weight": (HIDDEN, 0.5, 0.25),
        "condition.table.weight": (INPUT, 1.0, 1.0),  # rows are looked up, not summed: no fan-in
        "blocks.0.attention.qkv.weight": (HIDDEN, 0.5, 0.25),
        "blocks.1.feed_forward.outer.weight": (HIDDEN, 0.5, 0.25),
        "blocks.1.feed_forward.outer.bias": (INPUT, 1.0, 1.0),
        "blocks.0.modulation.weight": (HIDDEN, 0.5, 0.25),  # adaLN-Zero
        "final.modulation.weight": (HIDDEN, 0.5, 0.25),
        "final.linear.weight": (OUTPUT, 0.25, 0.25),
        "final.linear.bias": (INPUT, 1.0, 1.0),
    }
    assert {name: (rules[name].role, rules[name].std, rules[name].rate) for name in table} == table
    assert sum(rule.role is OUTPUT for rule in rules.values()) == 1


def test_convolutions_have_their_fan_in_on_the_second_axis():
    def net(width):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.GroupNorm(2, width), nn.Conv2d(width, width, 1),
                             nn.Conv2d(width, 5, 3))  # fmt: skip

    rules = width_rules(net(24), net(8))
    assert [rules[f"{k}.weight"].role for k in range(4)] == [INPUT, INPUT, HIDDEN, OUTPUT]
    assert rules["2.weight"].rate == rules["3.weight"].rate == pytest.approx(1 / 3)


def test_initial_sizes_follow_the_base_model():
    model, base, pattern = built(plain, 256), built(plain, 64), built(plain, 256)
    assert mup_init(model, base) is model
    expected = {"0.weight": 1, "0.bias": 1, "2.weight": 0.5, "2.bias": 1, "4.weight": 0.25, "4.bias": 1}
    for name, p in model.named_parameters():
        size = root_mean_square(dict(base.named_parameters())[name])
        assert root_mean_square(p) == pytest.approx(expected[name] * size, rel=1e-12)
        before = dict(pattern.named_parameters())[name]
        assert F.cosine_similarity(p.detach().flatten(), before.detach().flatten(), dim=0) == pytest.approx(
            1, abs=1e-12
        )


def test_a_transformers_initial_sizes_in_numbers():
    # Xavier uniform has variance 2 / (fan-in + fan-out); the base is 64 wide, m = 4. A base tensor of n uniform
    # numbers has a root mean square within 1 / sqrt(5 n) of that: 3 % for the first layer, 0.3 % for qkv.
    model = dict(mup_init(dit(256), dit(64)).named_parameters())
    first = (2 / (16 + 64)) ** 0.5
    assert root_mean_square(model["embed.weight"]) == pytest.approx(first, rel=0.05)
    hidden = 0.5 * (2 / (64 + 3 * 64)) ** 0.5
    assert root_mean_square(model["blocks.0.attention.qkv.weight"]) == pytest.approx(hidden, rel=0.01)
    assert root_mean_square(model["time.mlp.2.weight"]) == pytest.approx(0.5 * 0.02, rel=0.03)
    for name in ("blocks.0.modulation.weight", "final.modulation.weight", "final.linear.weight"):
        assert not model[name].any()  # what adaLN-Zero starts at zero stays there


def test_at_the_base_width_nothing_changes():
    model, base = dit(64), dit(64)
    before = copy.deepcopy(model.state_dict())
    mup_init(model, base)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    (group,) = mup_groups(model, base, 3e-3, weight_decay=0.1)
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.1)
    assert len(group["params"]) == sum(p.requires_grad for p in model.parameters())


class Table8(nn.Module):
    """The paper's other form of μP: an output layer at the base's size, followed by a factor 1/m."""

    def __init__(self, body, m):
        super().__init__()
        self.body, self.m = body, m
        with torch.no_grad():
            body[4].weight.mul_(m)

    def forward(self, x):
        return self.body[4](self.body[:4](x) / self.m)


def adam(groups):
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-30)  # eps must vanish: gradients differ by m


def test_tables_3_and_8_train_the_same_function():
    # Table 8: every rate is η but that of hidden weights, η/m. Equal in exact arithmetic; in float64 over 20 updates
    # of 0.01 each, rounding (1e-16, amplified by Adam's division where a gradient is small) stays below 1e-9.
    m, lr = 4, 1e-2
    ours = mup_init(built(plain, 64), built(plain, 16))
    theirs = Table8(copy.deepcopy(ours), m)
    hidden = theirs.body[2].weight
    others = [p for p in theirs.parameters() if p is not hidden]
    mine = adam([{key: group[key] for key in ("params", "lr")} for group in mup_groups(ours, built(plain, 16), lr)])
    optimizers = mine, adam([{"params": others, "lr": lr}, {"params": [hidden], "lr": lr / m}])
    x = torch.randn(32, 3, generator=seeded(1), dtype=torch.float64)
    y = torch.stack([x.prod(1), x.square().sum(1)], dim=1)
    start = ours(x).detach()
    for _ in range(20):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
    assert (ours(x) - start).abs().mean() > 0.1
    assert (ours(x) - theirs(x)).abs().max() < 1e-9


def test_rates_and_decay_as_the_optimiser_applies_them():
    # One AdamW update with a unit gradient moves a weight by rate x (1 + decay x weight).
    model, base, lr, decay = built(plain, 64), built(plain, 16), 1e-3, 0.2
    optimizer = mup_adamw(model, base, lr, weight_decay=decay)
    before = copy.deepcopy(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    rates = {"0.weight": 1, "0.bias": 1, "2.weight": 1 / 4, "2.bias": 1, "4.weight": 1 / 4, "4.bias": 1}
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        expected = old - lr * decay * old - lr * rates[name]
        assert (new - expected).abs().max() < 1e-12


def test_attention_logits_are_divided_by_the_width():
    q, k, v = (torch.randn(2, 3, 5, 32, generator=seeded(seed), dtype=torch.float64) for seed in range(3))
    expected = torch.softmax(q @ k.mT * 8**0.5 / 32, dim=-1) @ v
    assert (mup_attention(8)(q, k, v) - expected).abs().max() < 1e-14
    assert torch.equal(mup_attention(32)(q, k, v), fused_attention(q, k, v))
    mask = torch.tensor([True, True, False, True, False]).expand(2, 1, 1, 5)
    expected = torch.softmax((q @ k.mT * 8**0.5 / 32)[..., mask[0, 0, 0]], dim=-1) @ v[:, :, mask[0, 0, 0]]
    assert (mup_attention(8)(q, k, v, mask) - expected).abs().max() < 1e-14


# ---- the coordinate check


RING = F.normalize(torch.randn(500, 2, generator=seeded(3)), dim=1)
STRIPES = torch.cos(torch.linspace(0, 6, 8) * torch.linspace(0.2, 1.5, 50)[:, None])[:, None, None].expand(50, 1, 8, 8)
SETTINGS = {
    "mlp": (vectors, (64, 128, 256, 512), (RING,), None, lambda model: model),
    "dit": (transformer, (64, 128, 256), (STRIPES, torch.arange(50) % 10), torch.tensor(10),
            lambda model: with_kernel(model, mup_attention(64 // 4))),
}  # fmt: skip


def moved(net, optimizer, data, null, steps=5):
    """Movement of every layer over five updates, on inputs and times that are the same for all widths."""
    denoiser = Denoiser(net, RectifiedFlow(), VELOCITY, null=null)

    def loss(model, batch, generator):
        return model.loss(*batch, times=UniformTimes(), generator=generator)

    def probe(net):
        x = torch.randn(64, *data[0].shape[1:], generator=seeded(5))
        return net(x, torch.linspace(0, 1000, 64), *(column[:10].repeat(7)[:64] for column in data[1:]))

    updates = train(denoiser, loss, Batches(data, 64), steps=steps, optimizer=optimizer, generator=seeded(0), clip=None)
    return movement(net, probe, updates)


def check(setting, mup, lr=2e-3):
    make, widths, data, null, widen = SETTINGS[setting]
    base, found = built(make, widths[0]), {}
    for width in widths:
        net = built(make, width)
        if mup:
            net = widen(mup_init(net, base))
        found[width] = moved(net, mup_adamw(net, base if mup else net, lr), data, null)
    return movement_slopes(found)


@pytest.mark.parametrize("setting", SETTINGS)
def test_coordinate_check_is_flat_under_mup(setting):
    slopes = check(setting, mup=True)
    assert len(slopes) > 10
    assert max(map(abs, slopes.values())) < FLAT, slopes


@pytest.mark.parametrize("setting", SETTINGS)
def test_coordinate_check_grows_under_the_standard_parameterization(setting):
    # Layers that read the hidden state move by (width x rate): slope 1 in the limit. Measured 0.9 to 1.0 for the
    # steepest; the layer that reads the data does not grow.
    slopes = check(setting, mup=False)
    assert 0.75 < max(slopes.values()) < 1.25, slopes
    assert slopes["enter" if setting == "mlp" else "embed"] < FLAT


def test_movement_sees_every_layer_and_leaves_no_hooks():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[2].weight.fill_(1.0)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    probe = lambda model: model(x)  # noqa: E731
    seen = activations(net, probe)
    assert set(seen) == {"", "0", "2"} and torch.equal(seen["0"], x) and torch.equal(seen[""], seen["2"])

    def updates():
        net[0].weight.data.mul_(2.0)
        yield
        net[2].weight.data.mul_(0.5)
        yield

    assert movement(net, probe, updates()) == {"": 0.0, "0": 2.5, "2": 0.0}
    assert not any(module._forward_hooks for module in net.modules())


def test_slopes_of_exact_powers():
    movements = {width: {"a": 3 * width**0.5, "b": 0.1, "c": 7 / width} for width in (64, 100, 512)}
    assert movement_slopes(movements) == pytest.approx({"a": 0.5, "b": 0.0, "c": -1.0}, abs=1e-5)


def test_named_errors():
    with pytest.raises(ShapeError, match="they differ in"):
        width_rules(nn.Linear(2, 3), nn.Linear(2, 3, bias=False))
    with pytest.raises(ShapeError, match="another number of axes"):
        width_rules(nn.Conv1d(2, 3, 1), nn.Linear(2, 3))
    with pytest.raises(ShapeError, match="no rule for axis 0"):
        width_rules(nn.Embedding(20, 3), nn.Embedding(10, 3))
    with pytest.raises(ShapeError, match=r"no rule for axis 2"):
        width_rules(nn.Conv2d(2, 3, 5), nn.Conv2d(2, 3, 3))
    with pytest.raises(RangeError, match="lr"):
        mup_groups(nn.Linear(2, 3), nn.Linear(2, 3), -1.0)
    with pytest.raises(RangeError, match="base_dim"):
        mup_attention(0)
    with pytest.raises(RangeError, match="at least 2"):
        movement_slopes({64: {"a": 1.0}})
    with pytest.raises(RangeError, match="'b' did not move"):
        movement_slopes({64: {"a": 1.0, "b": 0.0}, 128: {"a": 1.0, "b": 1.0}})


def test_dropout_is_no_movement():
    """Training leaves the model in training mode: with a rate of 0 its output "moved" by 0.3."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    x = torch.ones(3, 4)
    moved = movement(model, lambda model: model(x), iter([model.train()]))
    assert set(moved.values()) == {0.0} and model.training
