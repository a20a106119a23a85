"""What a sampler is, and the one loop that drives all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.grids import check_grid
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_batch, check_finite, randn_like


class Sampler(ABC):
    """One step from time t down to s. State is a value, in and out; nothing is remembered on ``self``."""

    order: ClassVar[int]
    evaluations: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def step(
        self,
        denoise: Denoise,
        path: Path,
        x: Float[Tensor, " b *d"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        state: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """``(x_s, state)`` from ``x_t``; ``state`` is None at the first step; ``noise()`` draws one N(0, I) like x."""

    def __repr__(self) -> str:
        shown = (f"{f.name}={_name(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_markdown_(self) -> str:
        return f"**{self!r}**, order {self.order}, {self.evaluations}: ${self.formula}$. *{self.source}*"


def _name(value: Any) -> str:
    """A function by its name, anything else by its repr."""
    return value.__name__ if callable(value) else repr(value)


@dataclass(frozen=True)
class Frame:
    """A sampler's film, picture by picture.

    Attributes:
        step: 0 for the initial noise, n for the result.
        t: the time of ``x``.
        x: the sample so far, ``(b, ...)``.
        x0: what the denoiser predicted at the start of the step that led here; None at step 0.
        nfe: network evaluations per sample so far, counted, both branches of guidance included.
    """

    step: int
    t: float
    x: Float[Tensor, " b *d"]
    x0: Float[Tensor, " b *d"] | None
    nfe: int


def sample(
    denoise: Denoise,
    path: Path,
    sampler: Sampler,
    grid: Float[Tensor, " n+1"],
    x_T: Float[Tensor, " b *d"],
    *,
    generator: torch.Generator | None = None,
) -> Iterator[Frame]:
    """Runs ``sampler`` down ``grid`` from ``x_T``: a generator of n + 1 frames.

    Progress bars, films, early stopping belong to whoever iterates; ``last(sample(...))`` is the result alone, and
    nothing else is kept in memory. A denoiser with memory (``fresh()``, see guidance) starts anew for each run.

    Raises (at the call, not at the first frame):
        ShapeError, RangeError, NonFiniteError: a grid that is not falling, times past ``path.t_max``, x_T with NaN.
    """
    grid = check_grid(grid)
    if grid[0] > path.t_max * (1 + 1e-6):
        raise RangeError(f"grid: starts at t = {grid[0]:g}, but {type(path).__name__} ends at t_max = {path.t_max:g}")
    check_batch("x_T", x_T)
    if not isinstance(sampler, Sampler):
        raise ShapeError(f"sampler: got {sampler!r}, expected an instance such as DDIM() or Heun()")
    denoise = denoise.fresh() if hasattr(denoise, "fresh") else denoise
    return _frames(denoise, path, sampler, grid, x_T, generator)


@torch.no_grad()
def _frames(denoise, path, sampler, grid, x, generator) -> Iterator[Frame]:
    b, state, nfe = x.shape[0], None, 0
    grid = grid.to(x.device)
    times = grid.tolist()
    yield Frame(0, times[0], x, None, 0)
    for i in range(len(grid) - 1):
        meter = _Meter(denoise, path)
        x, state = sampler.step(
            meter, path, x, grid[i].expand(b), grid[i + 1].expand(b), state, lambda x=x: randn_like(x, generator)
        )
        nfe += meter.nfe
        if i == len(grid) - 2:
            check_finite("sample", x)  # a silent wrong picture is worse than an error
        yield Frame(i + 1, times[i + 1], x, meter.first.x0, nfe)


class _Meter:
    """The denoiser of one step, watched: how many evaluations, and what the first one predicted."""

    def __init__(self, denoise: Denoise, path: Path):
        self.denoise, self.path, self.nfe, self.first = denoise, path, 0, None

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        p = self.denoise(x, t).on(self.path)
        self.nfe += p.nfe
        self.first = self.first or p
        return p


def last(frames: Iterator[Frame]) -> Float[Tensor, " b *d"]:
    """The result: x of the final frame. Only one frame is alive at a time."""
    return deque(frames, maxlen=1)[0].x
