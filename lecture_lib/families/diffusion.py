"""Diffusion: DDPM with its table of noise levels and its variational bound, and the score SDEs VP, VE and sub-VP.

All four train a network to say which noise is in ``x_t``; read as a score it is ``s = -eps/sigma``, and then the loss
``|eps_hat - eps|^2`` is ``|sigma s + eps|^2``. What differs is the path, the process back and the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import (
    EPS,
    VE,
    Cond,
    Denoise,
    Denoiser,
    Discrete,
    Path,
    SubVP,
    TableTimes,
    UniformTimes,
    VPLinear,
    ddpm_linear,
    quadratic_grid,
    then_clean,
    trailing_grid,
    uniform_grid,
    unit_input,
)
from lecture_lib.families.base import LogProb
from lecture_lib.families.decoders import Decoder, GaussianDecoder
from lecture_lib.families.denoising import DenoisingModel, two_moons
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import DDPM as Ancestral
from lecture_lib.samplers import EulerMaruyama, Sampler, posterior_variance
from lecture_lib.tensors import Number, check_batch, check_count, randn_like

Variance = Callable[[Number, Number, Number], Number]
"""``(beta, sigma_t, sigma_s) -> variance`` of a step back from t to s, as ``samplers.DDPM`` takes it."""


class DDPM(DenoisingModel):
    """A table of T noise levels, noise predicted at each, and as many ancestral steps back.

    DDIM is not another family: ``DDPM(ddpm.denoiser.network, event, sampler=samplers.DDIM())`` has the same network,
    loss and bound, and takes fewer ``steps``.

    Args:
        network: ``(x, network time, cond) -> like x``.
        event: shape of one sample.
        table: (T,), alpha_bar falling; Ho et al.'s with T = 1000 unless another is given.
        null: label that stands for none; None for a network without labels.
        decoder: ``p(x0 | x_1)`` of the bound: a density, or one of grey levels.
        variance: of the steps back, in samples and in the bound: right for points (and so for grey levels) is
            ``samplers.posterior_variance``; for data that has a density, ``samplers.forward_variance`` is nearer.
        sampler: the step of ``reverse_process``; ancestral unless another is given.
        terms: how many of the bound's T terms ``log_prob`` draws, at most; the others are stood for by these.
        w, p_uncond: guidance scale of ``sample``, and how often a label is dropped in training.
    """

    formula = r"\min_{\hat\epsilon}\,\mathbb E\,\|\hat\epsilon(\alpha_i x_0+\sigma_i\epsilon,\,i)-\epsilon\|^2"
    source = "Ho et al. 2020 (2006.11239), Alg. 1 and 2; the bound: Eq. 5 and 13"

    def __init__(
        self,
        network: nn.Module,
        event: tuple[int, ...],
        *,
        table: Float[Tensor, " T"] | None = None,
        null: Cond | None = None,
        decoder: Decoder | None = None,
        variance: Variance = posterior_variance,
        sampler: Sampler | None = None,
        terms: int = 200,
        w: float = 1.0,
        p_uncond: float = 0.1,
    ) -> None:
        with torch.device("cpu"):  # a table is numbers, not weights, also for who builds the model on "meta"
            path = Discrete(ddpm_linear() if table is None else table)
        super().__init__(Denoiser(network, path, EPS, null=null), event, w=w, p_uncond=p_uncond)
        self.decoder = GaussianDecoder() if decoder is None else decoder
        self.variance, self.step = variance, Ancestral(variance) if sampler is None else sampler
        self.steps, self.terms = len(path.angles) - 1, check_count("terms", terms)

    def times(self):
        return TableTimes(self.denoiser.path)

    def sampler(self):
        return self.step

    def grid(self, steps):
        return trailing_grid(self.denoiser.path, steps)

    def log_prob(self, x, cond=None, *, generator=None):
        """The variational bound, of a density or of levels as the decoder has it; its terms are drawn."""
        denoise, path = self.denoiser.given(cond), self.denoiser.path
        with torch.no_grad():
            bound = variational_bound(
                denoise, path, x, self.decoder, self.variance, terms=self.terms, generator=generator
            )
        return LogProb(bound, "lower bound", self.decoder.of)

    @classmethod
    def small(cls):
        table = VPLinear().alpha(torch.arange(1, 101, dtype=torch.float64) / 100) ** 2  # DDPM's, at 100 of its times
        return cls(TimeMLP(2, width=64, depth=2), (2,), table=table), two_moons(), 800


def variational_bound(
    denoise: Denoise,
    path: Discrete,
    x0: Float[Tensor, " b *d"],
    decoder: Decoder,
    variance: Variance = posterior_variance,
    *,
    terms: int = 1000,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """An unbiased draw of DDPM's lower bound of ``log p(x0)``, in nats, float64.

        log p(x0 | x_1) - sum_i KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)) - KL(q(x_T | x0) || N(0, I)),   i = 2..T

    Args:
        decoder: p(x0 | x_1), around the predicted x0, with the std of the first step forward.
        variance: of p(x_{i-1} | x_i), as for ``samplers.DDPM``.
        terms: how many i are drawn per sample, one from each of so many equal stretches of 2..T; T - 1 takes them all.

    Source: Ho et al. 2020, Eq. 5, and 6 to 8 for what is between.
    """
    b, d, T = len(check_batch("x0", x0)), x0[0].numel(), len(path.angles) - 1
    t = torch.arange(1, T + 1, dtype=torch.float64, device=x0.device) / T
    alpha, sigma = (
        path.alpha(t),
        path.sigma(t),
    )  # entry i of the table is number i - 1 here, and the term i number i - 2
    beta = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    right, used = (v(beta, sigma[1:], sigma[:-1]) for v in (posterior_variance, variance))
    pull = (alpha[:-1] * beta / sigma[1:] ** 2) ** 2 / (2 * used)  # the two means differ by an error in x0 only
    spread = d * (right / used - 1 - (right / used).log()) / 2

    def error(i: Tensor) -> Tensor:
        x_i = path.mix(x0, randn_like(x0, generator), t[i - 1])
        return x0 - denoise(x_i, t[i - 1]).x0

    first = decoder.log_prob(x0, x0 - error(torch.ones(b, dtype=torch.long, device=x0.device)), float(sigma[0]))
    n, between = min(check_count("terms", terms), T - 1), torch.zeros(b, dtype=torch.float64, device=x0.device)
    drawn_on = x0.device if generator is None else generator.device
    for k in range(n):
        place = (k + torch.rand(b, generator=generator, device=drawn_on, dtype=torch.float64)) * (T - 1) / n
        i = 2 + place.floor().long().clamp(max=T - 2).to(x0.device)
        between += (pull[i - 2] * squared(error(i)) + spread[i - 2]) * (T - 1) / n
    last = (alpha[-1] ** 2 * squared(x0) + d * (sigma[-1] ** 2 - 1 - 2 * sigma[-1].log())) / 2
    return first - between - last


def squared(x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``|x|^2`` of each sample, float64."""
    return x.double().square().flatten(1).sum(1)


class ScoreSDE(DenoisingModel):
    """A score learned along a forward SDE, and three ways back: the reverse SDE, with correctors, or the ODE.

    ``sampler`` is ``EulerMaruyama()``, ``PredictorCorrector()`` or, without noise, ``Euler()`` or ``Heun()``; the last
    step is without noise. ``log_prob`` follows the probability-flow ODE.

    Args:
        network: ``(x, network time, cond) -> like x``, predicts noise.
        event: shape of one sample.
        path: the family's own, unless you want other constants.
        null: label that stands for none; None for a network without labels.
        sigma_data: spread of the data; the network's input is scaled to unit variance by it.
        sampler: the step of ``reverse_process``.
        w, p_uncond: guidance scale of ``sample``, and how often a label is dropped in training.
    """

    steps = 200
    own: ClassVar[Path]
    train_from, sample_to = 1e-5, 1e-3  # at t = 0 the score is infinite
    source = "Song et al. 2021 (2011.13456), Eq. 6, 7 and 39, Alg. 4 and 5"

    def __init__(
        self,
        network: nn.Module,
        event: tuple[int, ...],
        *,
        path: Path | None = None,
        null: Cond | None = None,
        sigma_data: float = 1.0,
        sampler: Sampler | None = None,
        w: float = 1.0,
        p_uncond: float = 0.1,
    ) -> None:
        path = self.own if path is None else path
        denoiser = Denoiser(network, path, EPS, null=null, input_scale=unit_input(sigma_data))
        super().__init__(denoiser, event, w=w, p_uncond=p_uncond)
        self.step = EulerMaruyama() if sampler is None else sampler

    def times(self):
        return UniformTimes(self.train_from, self.denoiser.path.t_max)

    def sampler(self):
        return self.step

    def grid(self, steps):
        if check_count("steps", steps) == 1:
            return uniform_grid(self.denoiser.path, 1)
        return then_clean(uniform_grid(self.denoiser.path, steps - 1, end=self.sample_to))

    def likelihood_grid(self):
        return quadratic_grid(self.denoiser.path, self.likelihood_steps, end=self.train_from)

    @classmethod
    def small(cls):
        return cls(TimeMLP(2, width=64, depth=2), (2,), sigma_data=0.7), two_moons(), 800


class VPSDE(ScoreSDE):
    """Variance preserving: ``dx = -beta x/2 dt + sqrt(beta) dW``, DDPM in continuous time."""

    own = VPLinear()
    formula = (
        r"dx=-\tfrac12\beta x\,dt+\sqrt\beta\,dW,\quad "
        r"dx=[-\tfrac12\beta x-\beta\nabla\log p_t]\,dt+\sqrt\beta\,d\bar W"
    )


class VESDE(ScoreSDE):
    """Variance exploding: no drift, noise that grows by equal factors in equal times."""

    own = VE()
    likelihood_steps = 100
    formula = (
        r"dx=\sqrt{\tfrac{d\sigma^2}{dt}}\,dW,\quad\sigma=\sigma_{min}\big(\tfrac{\sigma_{max}}{\sigma_{min}}\big)^t"
    )


class SubVPSDE(ScoreSDE):
    """The drift of VP with less noise early on: the variance stays below VP's, and likelihoods are better."""

    own = SubVP()
    formula = r"dx=-\tfrac12\beta x\,dt+\sqrt{\beta(1-e^{-2\int\beta})}\,dW"
