"""Maximal-update parameterization (μP): the learning rate that is best for a narrow network is best for a wide one too.

Adam moves every weight by about its rate, whatever the gradient. A layer that sums over n inputs then moves its output
by n times that, because the moves are aligned with the inputs; the random initial weights, which are not, add up to
sqrt(n) only. So both have to shrink as the network is widened, each at its own pace. With m = fan-in / base fan-in:

    weight                                  fan-in   initial std    Adam's rate
    input: first layer, bias, gain, table   fixed    base           η
    hidden: width to width                  grows    base / √m      η / m
    output: width to a fixed size           grows    base / m       η / m

and attention logits q·k / d instead of q·k / √d, where the heads themselves grow. The base model's own numbers are left
alone, so that at its width μP is the standard parameterization (SP).

Weights that start at zero stay at zero, whatever their std is multiplied with: the adaLN-Zero modulations of a ``DiT``
are hidden weights (rate η / m) and its last layer is an output weight (rate η / m).

Source: Yang et al. 2022 (Tensor programs V), table 3 and definition 4.1. Their table 8 says the same with a factor 1/m
behind the last layer in place of its smaller std and rate. For diffusion transformers: Zheng et al. 2025 (2505.15270).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.tensors import check_count, check_number

WITH_FAN_IN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # weights (out, in, ...); everything else sums over nothing


class Role(Enum):
    """What a parameter does as the network is widened."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True)
class WidthRule:
    """How one parameter is treated.

    Attributes:
        role: whether its fan-in and fan-out grow.
        growth: m, its fan-in over that of the base model; 1 for input weights.
    """

    role: Role
    growth: float

    @property
    def std(self) -> float:
        """Factor on the base model's initial standard deviation."""
        return {Role.INPUT: 1.0, Role.HIDDEN: self.growth**-0.5, Role.OUTPUT: 1 / self.growth}[self.role]

    @property
    def rate(self) -> float:
        """Factor on the learning rate of Adam."""
        return 1 / self.growth


def width_rules(model: nn.Module, base: nn.Module) -> dict[str, WidthRule]:
    """The rule of every trainable parameter, found by comparing its shape with the one in a narrower ``base``.

    Args:
        model: the network to train.
        base: the same network at the width where the learning rate was chosen.

    Raises:
        ShapeError: the two differ by more than the length of axes, or an axis grows about which μP says nothing (of a
            table that is not indexed by its first axis, for example).
    """
    theirs = dict(base.named_parameters())
    if (names := set(dict(model.named_parameters()))) != set(theirs):
        raise ShapeError(f"base: its parameters are not those of model; they differ in {sorted(names ^ set(theirs))}")
    return {
        name: _rule(name, p.shape, theirs[name].shape, summed)
        for name, p, summed in _parameters(model)
        if p.requires_grad
    }


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Every parameter with its name, and whether its second axis is summed over: it is a fan-in."""
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(prefix, recurse=False):
            yield name, p, isinstance(module, WITH_FAN_IN) and p is module.weight


def _rule(name: str, shape: torch.Size, base: torch.Size, summed: bool) -> WidthRule:
    if len(shape) != len(base):
        raise ShapeError(f"base: {name} has shape {tuple(base)}, in model {tuple(shape)}: another number of axes")
    grows = [axis for axis, (new, old) in enumerate(zip(shape, base, strict=True)) if new != old]
    if not set(grows) <= ({0, 1} if summed else {len(shape) - 1}):
        raise ShapeError(f"{name}: grows from {tuple(base)} to {tuple(shape)}; μP has no rule for axis {grows[0]}")
    if not summed or 1 not in grows:
        return WidthRule(Role.INPUT, 1.0)
    return WidthRule(Role.HIDDEN if 0 in grows else Role.OUTPUT, shape[1] / base[1])


@torch.no_grad()
def mup_init(model: nn.Module, base: nn.Module) -> nn.Module:
    """Rescale the initial weights of ``model`` in place to the sizes that μP derives from ``base``; returns the model.

    A tensor keeps its random pattern and gets the root mean square of its counterpart, times ``WidthRule.std``. So it
    does not matter by which law (Xavier, a fixed std, PyTorch's default) the layers were filled, and a base of
    n weights fixes the size to about 1 / sqrt(2 n). Call it once, before training.

    Raises:
        ShapeError: see ``width_rules``.
    """
    mine, theirs = dict(model.named_parameters()), dict(base.named_parameters())
    for name, rule in width_rules(model, base).items():
        size = root_mean_square(mine[name])
        if size > 0:
            mine[name].mul_(rule.std * root_mean_square(theirs[name]) / size)
    return model


def root_mean_square(x: Float[Tensor, "*s"]) -> float:
    """sqrt(mean(x^2))."""
    return x.double().square().mean().sqrt().item()


def mup_groups(model: nn.Module, base: nn.Module, lr: float, *, weight_decay: float = 0.0) -> list[dict[str, object]]:
    """Parameter groups for Adam or AdamW, one for each growth of the fan-in, that carry μP's learning rates.

    Weight decay is multiplied with what the rate is divided by: AdamW shrinks weights by rate x decay, and that
    product must not depend on the width.

    Args:
        lr: η, chosen at the base width.

    Raises:
        ShapeError: see ``width_rules``.
    """
    check_number("lr", lr, 0.0)
    weights, groups = dict(model.named_parameters()), {}
    for name, rule in width_rules(model, base).items():
        values = {"params": [], "lr": lr * rule.rate, "weight_decay": weight_decay / rule.rate}
        groups.setdefault(rule.growth, values)["params"].append(weights[name])
    return [groups[growth] for growth in sorted(groups)]


def mup_adamw(
    model: nn.Module,
    base: nn.Module,
    lr: float,
    *,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.99),
) -> torch.optim.AdamW:
    """AdamW with the rates of ``mup_groups``; ``mup_adamw(model, model, lr)`` has one rate for all, as in SP.

    The gradient of a single weight shrinks as the network is widened, and PyTorch's ``eps`` of 1e-8 would sooner or
    later outweigh it: in a ``TimeMLP`` of width 1024 the first layer then moves by a quarter of what it should.
    """
    groups = mup_groups(model, base, lr, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, betas=betas, eps=1e-15, fused=True)


def mup_attention(base_dim: int) -> AttentionKernel:
    """Attention with logits q·k sqrt(base_dim) / d for heads of width d; equal to the usual one at d = base_dim.

    Trained queries and keys are aligned, so q·k grows like d and not like sqrt(d). Needed only where the heads grow;
    a network that is widened by more heads of the same width keeps the usual kernel. For layers of
    ``MultiHeadAttention``: ``with_kernel(net, mup_attention(16))`` puts it into a network.

    Source: Yang et al. 2022, definition 4.1.
    """
    check_count("base_dim", base_dim)

    def kernel(q: Float[Tensor, " b h n d"], k: Tensor, v: Tensor, *mask: Tensor) -> Float[Tensor, " b h n d"]:
        return fused_attention(q * math.sqrt(base_dim / q.shape[-1]), k, v, *mask)

    return kernel


Probe = Callable[[nn.Module], object]
"""Runs a model on one fixed input: ``lambda model: model(x, t, labels)``."""


def activations(model: nn.Module, probe: Probe) -> dict[str, Float[Tensor, "*s"]]:
    """Outputs of all layers that own weights, by name, on the probe; "" is the output of the model itself.

    The probe runs in evaluation mode, so that dropout does not look like movement.
    """
    seen, handles, modes = {}, [], {module: module.training for module in model.modules()}
    model.eval()
    for name, module in model.named_modules():
        if name == "" or next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_hook(partial(_keep, seen, name)))
    try:
        with torch.no_grad():
            probe(model)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def _keep(seen: dict[str, Tensor], name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
    seen[name] = output.detach().clone()  # a clone: the next layer may work in place


def movement(model: nn.Module, probe: Probe, updates: Iterable[object]) -> dict[str, float]:
    """How far training moves each layer's output on the probe: mean |after - before|, by name of the layer.

    Args:
        updates: a training under way, such as ``train(model, ..., steps=5)``; it is run to its end.
    """
    before = activations(model, probe)
    for _ in updates:
        pass
    after = activations(model, probe)
    return {name: (after[name] - before[name]).abs().mean().item() for name in before}


def movement_slopes(movements: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The coordinate check: slope of log movement over log width, for each layer.

    Under μP every slope tends to 0: all layers learn, none blows up. Under SP with one learning rate the layers behind
    a hidden one have slopes up to 1.

    Args:
        movements: width -> what ``movement`` returned at that width.

    Raises:
        RangeError: fewer than two widths, or a layer that did not move.

    Source: Yang et al. 2022, section 5 and figure 5.
    """
    if len(movements) < 2:
        raise RangeError(f"movements: got {len(movements)} widths, expected at least 2")
    still = [name for moved in movements.values() for name, size in moved.items() if not size > 0]
    if still:
        raise RangeError(f"movements: {still[0]!r} did not move; take more updates")
    layers: Sequence[str] = list(next(iter(movements.values())))
    widths = torch.tensor([float(width) for width in movements]).log()
    sizes = torch.tensor([[moved[name] for name in layers] for moved in movements.values()]).log()  # (widths, layers)
    centred = widths - widths.mean()
    return dict(zip(layers, (centred @ sizes / centred.square().sum()).tolist(), strict=True))
