"""What a sampler is, and the one loop that drives all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.grids import check_grid
from lecture_lib.core.paths import Coeffs, Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_batch, check_finite, randn_like


class Sampler(ABC):
    """One step from time t down to s. State is a value, in and out; nothing is remembered on ``self``.

    A step is written in the numbers of the two moments, ``t.alpha``, ``s.sigma``, ``s.lam - t.lam``: floats, since the
    whole batch is at one time. Samplers that are ``per_sample`` use nothing but arithmetic and ``blend``, and also take
    ``(b,)`` tensors, one time per sample.
    """

    order: ClassVar[int]
    evaluations: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    deterministic: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False  # whether the two moments may differ from sample to sample

    @abstractmethod
    def step(
        self,
        denoise: Callable[[Tensor, Coeffs], Prediction],
        x: Float[Tensor, " b *d"],
        t: Coeffs,
        s: Coeffs,
        state: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """``(x_s, state)`` from ``x_t``; ``state`` is None at the first step; ``noise()`` draws one N(0, I) like x."""

    def __repr__(self) -> str:
        shown = (f"{f.name}={_name(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_markdown_(self) -> str:
        kind = "deterministic" if self.deterministic else "stochastic, weak order"
        return f"**{self!r}**, {kind}, order {self.order}, {self.evaluations}: ${self.formula}$. *{self.source}*"


def _name(value: Any) -> str:
    """A function by its name, anything else by its repr."""
    return getattr(value, "__name__", repr(value))


class Frame(NamedTuple):
    """A sampler's film, picture by picture.

    Attributes:
        step: 0 for the initial noise, n for the result.
        t: the time of ``x``.
        x: the sample so far, ``(b, ...)``.
        prediction: what the denoiser said at the start of the step that led here; None at step 0.
        nfe: network evaluations per sample so far, counted, both branches of guidance included.
    """

    step: int
    t: float
    x: Float[Tensor, " b *d"]
    prediction: Prediction | None
    nfe: int

    @property
    def x0(self) -> Float[Tensor, " b *d"] | None:
        """The clean data that was predicted at the start of the step that led here; None at step 0."""
        return None if self.prediction is None else self.prediction.x0


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


def _frames(denoise, path, sampler, grid, x, generator) -> Iterator[Frame]:
    moments, state, watched, as_it_is = path.along(grid, x), None, Watched(denoise, path), nullcontext()

    def noise() -> Tensor:
        return randn_like(x, generator)

    yield Frame(0, moments[0].time, x, None, 0)
    for i, (t, s) in enumerate(pairwise(moments), start=1):
        watched.first = None
        with torch.no_grad() if torch.is_grad_enabled() else as_it_is:  # switching costs as much as a small step
            x, state = sampler.step(watched, x, t, s, state, noise)
        if i == len(moments) - 1:
            check_finite("sample", x)  # a silent wrong picture is worse than an error
        yield Frame(i, s.time, x, watched.first, watched.nfe)


class Watched:
    """A denoiser as a step sees it: asked at a moment of the path, its evaluations counted, its first answer kept."""

    def __init__(self, denoise: Denoise, path: Path):
        self.denoise, self.path, self.nfe, self.first = denoise, path, 0, None

    def __call__(self, x: Float[Tensor, " b *d"], t: Coeffs) -> Prediction:
        p = self.denoise(x, t.batch(x)).on(self.path).at(t)
        self.nfe += p.nfe
        if self.first is None:
            self.first = p
        return p


def one_step(
    sampler: Sampler,
    denoise: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    t: float | Float[Tensor, " b"],
    s: float | Float[Tensor, " b"],
    *,
    state: Any = None,
    noise: Callable[[], Tensor] | None = None,
) -> tuple[Float[Tensor, " b *d"], Any]:
    """One step outside the driver, for distillation and for tests: ``(x_s, state)``.

    t and s are times, floats or, for samplers that are ``per_sample``, one per sample ``(b,)``. Gradients flow.

    Raises:
        ShapeError: times per sample for a sampler that steps the batch together.
    """
    if not sampler.per_sample and (isinstance(t, Tensor) or isinstance(s, Tensor)):
        raise ShapeError(f"t, s: got one time per sample, but {sampler!r} steps a batch together; expected two floats")
    moments = [path.coeffs(time) if isinstance(time, Tensor) else path.at(time) for time in (t, s)]
    return sampler.step(Watched(denoise, path), x, *moments, state, noise or (lambda: randn_like(x)))


def last(frames: Iterator[Frame]) -> Float[Tensor, " b *d"]:
    """The result: x of the final frame. Of each frame only x is alive while the next step is made."""
    for frame in frames:
        x = frame.x
        del frame  # its prediction would keep the picture before alive, and memory is what a small step is waiting for
    return x
