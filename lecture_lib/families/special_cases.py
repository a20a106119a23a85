"""Which alpha, beta, gamma and which coupling give which method: the table of the lecture, with a check of each row.

One-sided rows have the noise itself as x1, so beta = sigma and gamma = 0; two-sided ones have gamma = 0 at both ends.
A row is solved with exact velocities (``SpecialCase.solve``) or trained (``SpecialCase.model``), and what it draws is
compared with data by a two-sample test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    EDM,
    EPS,
    VELOCITY,
    BrownianNoise,
    Denoiser,
    Interpolant,
    Parameterization,
    Path,
    RectifiedFlow,
    SubVP,
    Trigonometric,
    V,
    VPCosine,
    VPLinear,
    encoding_decoding,
    linear_interpolant,
    trigonometric_interpolant,
    uniform_grid,
)
from lecture_lib.core.grids import karras_grid
from lecture_lib.families.interpolants import OneSidedInterpolant
from lecture_lib.nets import TimeMLP
from lecture_lib.oracles import GaussianBridge, GaussianMixture, GaussianSchrodinger
from lecture_lib.samplers import DDIM, ConstantDiffusion, EulerMaruyama, Heun, Sampler, last, sample


@dataclass(frozen=True)
class SpecialCase:
    """One row.

    Attributes:
        name: of the method.
        path: an ``Interpolant`` for two ends, any other ``Path`` for data and noise.
        coupling: how the ends are drawn, in words.
        sampler: that the method is known with.
        grid: number of steps -> falling times.
        source: where the row is from.
        output: what its network predicts; None if it is two-sided.
        sigma: of the Schroedinger bridge; None for all others.
    """

    name: str
    path: Path
    coupling: str
    sampler: Sampler
    grid: Callable[[int], Float[Tensor, " n+1"]]
    source: str
    output: Parameterization | None = None
    sigma: float | None = None

    @property
    def two_sided(self) -> bool:
        """Whether x1 is a distribution of its own."""
        return isinstance(self.path, Interpolant)

    def coefficients(self, t: Float[Tensor, " n"]) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta, gamma at times of the path: what is plotted in the map of methods."""
        t = t.double()
        if self.two_sided:
            return self.path.alpha(t), self.path.beta(t), self.path.gamma(t)
        return self.path.alpha(t), self.path.sigma(t), torch.zeros_like(t)

    def solve(
        self, data: GaussianMixture, other: GaussianMixture, n: int, *, steps: int = 200, generator: torch.Generator
    ) -> Float[Tensor, " n *d"]:
        """``n`` draws with exact velocities: from ``other`` if the row is two-sided, from noise if it is not.

        Both must be single Gaussians for the Schroedinger bridge, whose coupling is known for those alone.
        """
        grid, path = self.grid(steps), self.path
        if not self.two_sided:
            noise = torch.randn(n, *data.event, generator=generator, dtype=torch.float64)
            start, denoise = path.sigma(grid[:1]) * noise, data.denoise(path)
        else:
            start = other.sample(n, generator=generator)
            exact = GaussianBridge(data, other) if self.sigma is None else _bridge(data, other, self.sigma)
            denoise = exact.denoise(path)
        return last(sample(denoise, path, self.sampler, grid, start, generator=generator))

    def model(self, features: int = 2, *, width: int = 64, depth: int = 2) -> OneSidedInterpolant:
        """A small network for a one-sided row, to be trained with ``fit``."""
        model = OneSidedInterpolant(
            Denoiser(TimeMLP(features, width=width, depth=depth), self.path, self.output), (features,), how=self.sampler
        )
        model.grid = self.grid
        return model

    def _repr_markdown_(self) -> str:
        return f"**{self.name}**: ${self.path.formula}$, {self.coupling}. *{self.source}*"


def _bridge(data: GaussianMixture, other: GaussianMixture, sigma: float) -> GaussianSchrodinger:
    ends = ((m.means[0], m.axes[0] @ torch.diag(m.variances[0]) @ m.axes[0].mT) for m in (data, other))
    (mean0, cov0), (mean1, cov1) = ends
    return GaussianSchrodinger(mean0, cov0, mean1, cov1, sigma)


def _from(path: Path, start: float = 1.0, end: float = 0.0) -> Callable[[int], Float[Tensor, " n+1"]]:
    return lambda steps: uniform_grid(path, steps, start=start * path.t_max, end=end)


def _case(name, path, coupling, sampler, source, *, start=1.0, end=0.0, **more) -> SpecialCase:
    return SpecialCase(name, path, coupling, sampler, _from(path, start, end), source, **more)


NOISE, APART = "data and noise, independent", "two ends, independent"


@cache
def one_sided_cases() -> tuple[SpecialCase, ...]:
    """Rows whose x1 is the noise. DDPM is here and not among the two-sided: its noise does not vanish at t = 1."""
    return (
        _case("DDPM / VP", VPLinear(), NOISE, DDIM(), "Ho et al. 2020; Song et al. 2021", output=EPS),
        _case("cosine", VPCosine(), NOISE, DDIM(), "Nichol & Dhariwal 2021", output=V),
        _case("sub-VP", SubVP(), NOISE, Heun(), "Song et al. 2021", output=EPS),
        SpecialCase(
            "EDM / VE", EDM(), NOISE, Heun(), lambda steps: karras_grid(EDM(), steps), "Karras et al. 2022", output=EPS
        ),
        _case("flow matching", RectifiedFlow(), NOISE, Heun(), "Lipman et al. 2023; Liu et al. 2023", output=VELOCITY),
        _case("trigonometric (GVP)", Trigonometric(), NOISE, Heun(), "Albergo et al. 2023; SiT", output=VELOCITY),
    )


@cache
def two_sided_cases() -> tuple[SpecialCase, ...]:
    """Rows with a distribution of its own at either end."""
    linear, trigonometric = linear_interpolant(BrownianNoise(1.0)), trigonometric_interpolant(BrownianNoise(1.0))
    noisy, bridge = EulerMaruyama(ConstantDiffusion(1.0)), "two ends, entropic optimal transport"
    source, inside = "Albergo et al. 2023", {"start": 0.999, "end": 1e-3}
    return (
        _case("stochastic interpolant", linear, APART, Heun(), source, **inside),
        _case("its SDE, epsilon = 1/2", linear, APART, noisy, source, start=0.999),
        _case("trigonometric, two-sided", trigonometric, APART, Heun(), source, **inside),
        _case("encoding-decoding", encoding_decoding(), APART, Heun(), source),
        _case(
            "Schroedinger bridge", linear, bridge, noisy, "Tong et al. 2024; Shi et al. 2023", start=0.9999, sigma=1.0
        ),
    )


def special_cases() -> tuple[SpecialCase, ...]:
    """The whole table. OT-CFM and rectified flow are its flow-matching row with another coupling."""
    return (*one_sided_cases(), *two_sided_cases())
