"""Every likelihood of the course on noise whose entropy is known, and wrong ones that this exposes.

Networks work on one number at a time, since those of noise are independent: then seconds of training suffice, and
Hutchinson's estimate of a diagonal Jacobian is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from likelihood_laws import NoisePictures, assert_near_entropy, trained
from torch import nn
from worlds import F64

from lecture_lib.core import (
    VELOCITY,
    BrownianNoise,
    Denoiser,
    RectifiedFlow,
    RungeKutta4,
    Trigonometric,
    TwoSidedDenoiser,
    VPLinear,
    linear_interpolant,
)
from lecture_lib.core import likelihood as core_likelihood
from lecture_lib.errors import NotDefined, NotTractable
from lecture_lib.families import (
    CATALOGUE,
    CNF,
    DDPM,
    FSQVAE,
    MAR,
    VAE,
    VAR,
    VESDE,
    VPSDE,
    VQVAE,
    AutoregressiveTransformer,
    BetaVAE,
    BridgeMatching,
    FlowMatching,
    GenerativeModel,
    JKOFlow,
    LearnedInterpolant,
    LearnedLine,
    LogProb,
    OneSidedInterpolant,
    OTFlowMatching,
    PixelCNN,
    RealNVP,
    Reflow,
    SchrodingerBridge,
    StochasticInterpolant,
    SubVPSDE,
    Transfusion,
    cnf,
    decoders,
    denoising,
    interpolants,
    jko,
    mar,
)
from lecture_lib.nets import CausalTransformer, GatedPixelCNN, TimeMLP
from lecture_lib.samplers import forward_variance

EIGHT, FOUR, TWO = (1, 8, 8), (1, 4, 4), (1, 2, 2)
ELSEWHERE = {VAE, BetaVAE, VQVAE, FSQVAE, RealNVP}  # test_families_vae, _vq, _realnvp


class Each(nn.Module):
    """One small network for every number of a picture."""

    def __init__(self, std: float = 0.0):
        super().__init__()
        self.one = TimeMLP(1, width=32, depth=1)
        nn.init.normal_(self.one.leave.weight, std=std)

    def forward(self, x, t, cond=None):
        return self.one(x.reshape(-1, 1), t.repeat_interleave(x[0].numel())).reshape(x.shape)


def line() -> Denoiser:
    return Denoiser(Each(), RectifiedFlow(), VELOCITY)


def two_sided() -> TwoSidedDenoiser:
    return TwoSidedDenoiser(Each(), Each(), linear_interpolant(BrownianNoise(1.0)))


def bridge_matching() -> BridgeMatching:
    return BridgeMatching((Each(), Each()), (Each(), Each()), EIGHT, walk_steps=4, rounds=1)


def transfusion() -> Transfusion:
    return Transfusion(2, 2, EIGHT, patch=4, dim=16, depth=1, heads=2, picture_first=0.0)


def ddpm() -> DDPM:
    """A hundred of DDPM's times. The variance is that for data with a density; the posterior's costs one bit more."""
    table = VPLinear().alpha(torch.arange(1, 101, dtype=F64) / 100) ** 2
    return DDPM(Each(), EIGHT, table=table, terms=99, variance=forward_variance)


def jko_flow() -> JKOFlow:
    """It hears no data: its target is the Gaussian that has the variance of noise pictures, a quarter of a bit off."""
    return JKOFlow(lambda x: x.square().sum(1) / (2 * (17 / 8) ** 2 / 12), 2, steps=3, tau=0.4, width=16)


def lossless_var() -> VAR:
    """Four pixels are their own features, codes are the grey levels, and what is left is the cell: a quarter of a bit.

    One scale, since a second would tell a second time what is in the first; pyramids are added up in test_families_var.
    """
    model = VAR(TWO, scales=(2,), size=17, code_dim=1, code_width=1, dim=16, depth=1, heads=2, first=0.0)
    tokenizer, quantiser = model.tokenizer, model.tokenizer.quantiser
    tokenizer.encoder = tokenizer.decoder = nn.Identity()
    quantiser.codebook.data = torch.linspace(-1, 1, 17)[:, None]
    nn.init.dirac_(quantiser.phi[0].weight)
    nn.init.zeros_(quantiser.phi[0].bias)
    tokenizer.log_std.data.fill_(math.log(1 / 8 / 12**0.5))
    return model


class Captioned(NoisePictures):
    """With captions that say nothing."""

    def draw(self, generator):
        (x,) = super().draw(generator)
        return x, torch.ones(len(x), 2, dtype=torch.long)


@dataclass(frozen=True)
class Case:
    """A fresh model, how it is trained, how many pictures are measured and how near to the entropy they must come."""

    make: Callable[[], GenerativeModel]
    steps: int = 200
    within: float = 0.3
    n: int = 16
    batch_size: int = 32
    lr: float = 5e-3
    pictures: type[NoisePictures] = NoisePictures


CASES = {
    # trained on log N(x_1) alone, without the divergence, it sends all to 0 and is 0.24 bits too high: hence 0.18
    CNF: Case(lambda: CNF(Each(0.02), EIGHT, solver=RungeKutta4(2)), 60, 0.18, batch_size=16),
    PixelCNN: Case(lambda: PixelCNN(GatedPixelCNN(17, (2, 2), width=8, depth=2, kernel=3), TWO), 100, 0.1, 256),
    AutoregressiveTransformer: Case(
        lambda: AutoregressiveTransformer(CausalTransformer(17, 4, dim=16, depth=1, heads=2), TWO), 100, 0.1, 256
    ),
    DDPM: Case(ddpm, 500),
    VPSDE: Case(lambda: VPSDE(Each(), EIGHT, sigma_data=0.6)),
    VESDE: Case(lambda: VESDE(Each(), EIGHT, sigma_data=0.6)),
    SubVPSDE: Case(lambda: SubVPSDE(Each(), EIGHT, sigma_data=0.6)),
    FlowMatching: Case(lambda: FlowMatching(line(), EIGHT), 150),
    OTFlowMatching: Case(lambda: OTFlowMatching(line(), EIGHT), 150),
    Reflow: Case(lambda: Reflow(line(), line(), EIGHT, solver_steps=8), 300),
    LearnedInterpolant: Case(lambda: LearnedInterpolant(Denoiser(Each(), LearnedLine(), VELOCITY), EIGHT), 200),
    OneSidedInterpolant: Case(lambda: OneSidedInterpolant(Denoiser(Each(), Trigonometric(), VELOCITY), EIGHT), 150),
    StochasticInterpolant: Case(lambda: StochasticInterpolant(two_sided(), EIGHT), batch_size=16),
    SchrodingerBridge: Case(lambda: SchrodingerBridge(Each(), Each(), EIGHT), batch_size=16),
    BridgeMatching: Case(bridge_matching, 300, batch_size=8),
    JKOFlow: Case(jko_flow, 300, 0.4, 2048),
    VAR: Case(lossless_var, 150, 0.4, 256, lr=1e-2),
    MAR: Case(lambda: MAR(FOUR, dim=16, depth=1, heads=2, head_width=48), 250, n=64, batch_size=64),
    Transfusion: Case(transfusion, 300, lr=1e-2, pictures=Captioned),
}


@cache
def learned(family):
    """The model of a case, trained once for all tests."""
    case = CASES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = case.make()
    return trained(model, case.pictures(model.event, case.batch_size), steps=case.steps, lr=case.lr)


def check(family):
    return assert_near_entropy(*learned(family), n=CASES[family].n, within=CASES[family].within)


@pytest.mark.parametrize("family", CASES, ids=lambda family: family.__name__)
def test_noise_costs_its_entropy(family):
    check(family)


def test_no_likelihood_is_left_out():
    """Every family whose ``log_prob`` gives numbers is tried above, or by the tests of its own room."""
    for family in CATALOGUE:
        model, batches, _ = family.small()
        model.likelihood_steps = model.terms = 1
        try:
            model.log_prob(*(part[:2] for part in batches.draw(torch.Generator().manual_seed(0))))
        except (NotDefined, NotTractable):
            continue
        assert family in CASES or family in ELSEWHERE, family.__name__


# Wrong likelihoods, each a way to write it that runs ------------------------------------------------------------------


def without_constant(z):
    """The standard normal's log-density without D/2 log 2 pi."""
    return -0.5 * z.flatten(1).double().square().sum(1)


def wrong_divergence(factor):
    def hutchinson(probe, **options):
        right = core_likelihood.hutchinson(probe, **options)

        def divergence(field, x):
            u, total = right(field, x)
            return u, factor * total

        return divergence

    return hutchinson


def unscaled(denoise, path, x, grid, **options):
    """``log N(x_T; 0, sigma_T^2 I)`` without -D log sigma_T."""
    sigma = path.sigma(grid[:1])
    return core_likelihood.log_likelihood(denoise, path, x, grid, **options) + x[0].numel() * sigma.log()


def of_tokens(change):
    """MAR's tokens, each with its own log-likelihood, changed."""

    def log_likelihood(*args, **options):
        nats = core_likelihood.log_likelihood(*args, **options)
        return change(nats.unflatten(0, (-1, 4))).flatten()

    return log_likelihood


def without_first(parts):
    return torch.cat([0 * parts[:, :1], parts[:, 1:]], dim=1)


def mean_for_sum(parts):
    return parts / parts.shape[1]


def changed(family, method, change):
    """The method of the trained model, its result changed."""
    right = getattr(family, method)
    return lambda *args: change(right(*args))


LESS, MORE = "not normalised", "a term is missing"
NORMAL, DIVERGENCE = "standard_normal_log_prob", "hutchinson"
NONE, BACKWARDS = wrong_divergence(0), wrong_divergence(-1)
WRONG = {
    "flow without its constant": (FlowMatching, core_likelihood, NORMAL, without_constant, LESS),
    "flow without divergence": (FlowMatching, denoising, DIVERGENCE, NONE, MORE),
    "divergence with the wrong sign": (FlowMatching, denoising, DIVERGENCE, BACKWARDS, MORE),
    "VP without divergence": (VPSDE, denoising, DIVERGENCE, NONE, MORE),
    "VE without divergence": (VESDE, denoising, DIVERGENCE, NONE, MORE),
    "VE without the width of its prior": (VESDE, denoising, "log_likelihood", unscaled, LESS),
    "CNF without its constant": (CNF, cnf, NORMAL, without_constant, LESS),
    "CNF without divergence": (CNF, cnf, DIVERGENCE, NONE, MORE),
    "CNF with the wrong sign": (CNF, cnf, DIVERGENCE, BACKWARDS, MORE),
    "bridge without its other end": (StochasticInterpolant, interpolants, NORMAL, lambda z: 0 * z[:, 0, 0, 0], LESS),
    "bridge without divergence": (StochasticInterpolant, interpolants, DIVERGENCE, NONE, MORE),
    "words and pictures without divergence": (Transfusion, denoising, DIVERGENCE, NONE, MORE),
    "DDPM's decoder without its constant": (DDPM, decoders, NORMAL, without_constant, LESS),
    "JKO without its constant": (JKOFlow, jko, NORMAL, without_constant, LESS),
    "MAR without its first token": (MAR, mar, "log_likelihood", of_tokens(without_first), LESS),
    "MAR's mean": (MAR, mar, "log_likelihood", of_tokens(mean_for_sum), LESS),
    "MAR without divergence": (MAR, mar, "exact_divergence", lambda f, x: (f(x), 0 * x[:, 0]), MORE),
    **{
        f"{family.__name__} {name}": (family, family, method, changed(family, method, change), LESS)
        for family, method in (
            (PixelCNN, "log_probs"),
            (AutoregressiveTransformer, "log_probs"),
            (VAR, "log_prob_tokens"),
        )
        for name, change in (("without its first factor", without_first), ("with a mean for a sum", mean_for_sum))
    },
    "VAR without p(tokens)": (VAR, VAR, "log_prob_tokens", changed(VAR, "log_prob_tokens", lambda z: 0 * z), LESS),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_likelihood_is_caught(mistake, monkeypatch):
    family, where, name, wrong, side = WRONG[mistake]
    learned(family)  # rightly, before
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError, match=side):
        check(family)


def test_a_density_that_passes_for_a_probability_is_caught():
    """The volume of the cells: three bits."""
    model, batches, _ = learned(FlowMatching)
    with pytest.raises(AssertionError, match=LESS):
        assert_near_entropy(model, batches, None, n=16)


def test_one_over_n_of_the_terms_is_caught(monkeypatch):
    """DDPM's bound as a mean over its steps: 99 terms for the price of one."""
    model, batches, step = learned(DDPM)
    right = model.log_prob
    first_and_last = lambda x, **o: LogProb(right(x, **o).nats / 99, "lower bound")  # noqa: E731
    monkeypatch.setattr(model, "log_prob", first_and_last)
    with pytest.raises(AssertionError, match=LESS):
        assert_near_entropy(model, batches, step, n=16)
