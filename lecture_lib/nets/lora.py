"""Low-rank adapters: a trained network stays as it is, and small matrices beside its layers learn the difference.

    W = W_0 + s (alpha/r) B A        A: (r, inputs), Gaussian       B: (outputs, r), zero at the start

An adapter listens at the layers it was added to and adds its part to what they return; the network's own modules,
names and weights are not touched. Several adapters on one network add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import CourseError, RangeError, ShapeError, UnknownNameError
from lecture_lib.tensors import check_count, check_number, randn_like

Targets = Sequence[str] | Callable[[str, nn.Module], bool] | None


class LowRank(nn.Module):
    """The difference beside one linear or convolutional layer: ``gain B A``, with ``gain = s alpha/r``.

    For a convolution A has the kernel of the layer and r outputs, B is 1x1 (so A is (r, inputs k k) as a matrix).
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator | None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        inputs = weight[0].numel()
        self.kernel = weight.shape[1:]
        self.window = {k: getattr(layer, k) for k in ("stride", "padding", "dilation") if isinstance(layer, nn.Conv2d)}
        self.A = nn.Parameter(randn_like(weight.new_empty(rank, inputs), generator) / inputs**0.5)
        self.B = nn.Parameter(weight.new_zeros(len(weight), rank))
        self.gain, self.on = 1.0, True

    def add(self, layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """What the layer returned, plus this difference; a forward hook."""
        return out + self.gain * self(args[0]) if self.on else out

    def forward(self, x: Tensor) -> Tensor:
        if not self.window:
            return F.linear(F.linear(x, self.A), self.B)
        return F.conv2d(F.conv2d(x, self.A.unflatten(1, self.kernel), **self.window), self.B[:, :, None, None])

    def delta(self) -> Float[Tensor, " out inputs"]:
        """``gain B A`` as a matrix of rank at most r."""
        return self.gain * (self.B @ self.A)


class Adapter(nn.Module):
    """Low-rank differences beside some layers of a network; ``parameters()`` are its A and B and nothing else.

    Made by ``add_lora``. The network's own state and names stay as they were, so its checkpoints still load; the
    adapter's ``state_dict`` is the difference alone. A deep copy of the network keeps a copy of the adapter's part.
    It is made on the device of the layers; if the network moves, move the adapter too.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, nn.Module],
        rank: int,
        alpha: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self._scale = rank, alpha, 1.0
        self._layers = dict(layers)  # a plain dict: the network's weights are not this module's
        self._network = (network,)  # hidden in a tuple for the same reason
        self.parts = nn.ModuleDict({_key(name): LowRank(layer, rank, generator) for name, layer in layers.items()})
        self._hooks = [layer.register_forward_hook(self._part(name).add) for name, layer in layers.items()]
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        self.scale = 1.0

    @property
    def network(self) -> nn.Module:
        """The network it was added to."""
        return self._network[0]

    @property
    def names(self) -> list[str]:
        """The layers it was added to, as the network names them."""
        return list(self._layers)

    @property
    def merged(self) -> bool:
        """Whether the difference is in the weights at the moment."""
        return bool(self._kept)

    @property
    def scale(self) -> float:
        """Strength s: 0 is the network without it, 1 as trained; it may be any number, negative ones too."""
        return self._scale

    @scale.setter
    def scale(self, s: float) -> None:
        s = check_number("scale", s)
        with self._apart():
            self._scale = s
            for part in self.parts.values():
                part.gain = self._scale * self.alpha / self.rank

    def delta(self, name: str) -> Float[Tensor, " out inputs"]:
        """The update ``s (alpha/r) B A`` of one layer as a matrix; a kernel k x k counts as inputs k k.

        Raises:
            UnknownNameError: the adapter has no part beside that layer.
        """
        if name not in self._layers:
            raise UnknownNameError(f"name: got {name!r}, expected one of {self.names}")
        return self._part(name).delta()

    @torch.no_grad()
    def merge(self) -> None:
        """Write the difference into the weights (``W_0`` is kept): the network runs as fast as without an adapter.

        Raises:
            CourseError: it is merged already, or was removed.
        """
        if self.merged or not self._hooks:
            raise CourseError(f"merge: the adapter is {'merged already' if self.merged else 'no longer there'}")
        for name, layer in self._layers.items():
            before = layer.weight.detach().clone()
            layer.weight += self._part(name).delta().reshape(before.shape)
            self._kept[name] = before, layer.weight.detach().clone()
            self._part(name).on = False

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weights back as they were before ``merge``, bit for bit.

        Raises:
            CourseError: it is not merged, or the weights have changed since; unmerge adapters in reverse order.
        """
        if not self.merged:
            raise CourseError("unmerge: the adapter is not merged")
        changed = [n for n, layer in self._layers.items() if not torch.equal(layer.weight, self._kept[n][1])]
        if changed:
            raise CourseError(
                f"unmerge: the weights of {changed[0]!r} have changed since the merge, expected them untouched; "
                "adapters merged later must be unmerged first"
            )
        for name, layer in self._layers.items():
            layer.weight.copy_(self._kept.pop(name)[0])
            self._part(name).on = True

    def remove(self) -> None:
        """Take the adapter off the network, which is then as it was (its weights stay frozen); idempotent."""
        if self.merged:
            self.unmerge()
        while self._hooks:
            self._hooks.pop().remove()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """Load A and B of an adapter of the same rank on the same layers; if merged, the weights follow.

        Raises:
            ShapeError: names or shapes differ.
        """
        got = {name: tuple(value.shape) for name, value in state_dict.items()}
        expected = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        wrong = [n for n in sorted(got.keys() | expected.keys()) if got.get(n) != expected.get(n)]
        if wrong:
            name = wrong[0]
            raise ShapeError(f"state_dict: {name!r} is {got.get(name)}, expected {expected.get(name)} (None: missing)")
        with self._apart():
            return super().load_state_dict(state_dict, strict, assign)

    def _part(self, name: str) -> LowRank:
        return self.parts[_key(name)]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Unmerged for as long as something changes, merged again afterwards."""
        was = self.merged
        if was:
            self.unmerge()
        yield
        if was:
            self.merge()


def add_lora(
    network: nn.Module,
    rank: int,
    *,
    alpha: float | None = None,
    targets: Targets = None,
    generator: torch.Generator | None = None,
) -> Adapter:
    """Add a low-rank adapter to the layers of ``network`` and freeze the network's own weights.

    At first the network's answers do not change by a single bit, since B = 0. Train ``adapter.parameters()`` with the
    network's own loss, or pass ``adapter`` where a model's weights are asked for (an optimizer, an average).

    Args:
        network: changed only in that its weights need no gradient any more.
        rank: r >= 1, the largest rank of each update.
        alpha: the update is ``alpha/r B A``; None is alpha = rank, a factor of 1. Fixed alpha keeps the size of the
            updates about the same from rank to rank.
        targets: ends of layer names, such as ``["attention.qkv"]``; or ``(name, layer) -> bool``; None for every linear
            and every ungrouped 2D convolution. Only layers that the network *calls* are heard: the projections inside
            ``nn.MultiheadAttention`` are read, not called.
        generator: draws A, normal with variance 1/inputs.

    Raises:
        RangeError: rank < 1 or alpha not positive.
        UnknownNameError: no layer matches; the message lists those there are.

    Source: Hu et al. 2021, section 4.1.
    """
    rank = check_count("rank", rank)
    alpha = float(rank) if alpha is None else check_number("alpha", alpha)
    if alpha <= 0:
        raise RangeError(f"alpha: got {alpha}, expected a positive number")
    able = {name: layer for name, layer in network.named_modules() if name and _is_able(layer)}
    layers = {name: layer for name, layer in able.items() if _is_target(name, layer, targets)}
    if not layers:
        raise UnknownNameError(f"targets: {targets!r} fits none of the network's layers, {list(able)}")
    network.requires_grad_(False)
    return Adapter(network, layers, rank, alpha, generator)


def _is_able(layer: nn.Module) -> bool:
    convolution = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return convolution or isinstance(layer, nn.Linear)


def _is_target(name: str, layer: nn.Module, targets: Targets) -> bool:
    if targets is None or callable(targets):
        return targets is None or bool(targets(name, layer))
    ends = [targets] if isinstance(targets, str) else targets
    return any(name == end or name.endswith("." + end) for end in ends)


def _key(name: str) -> str:
    return name.replace(".", "/")  # module names may not contain dots
