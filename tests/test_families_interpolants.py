"""Two-sided families: learned against exact denoisers, one marginal flow for all epsilon, likelihood, targets."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from worlds import F64, gap, normal, plane, seeded, times

from lecture_lib.core import (
    VELOCITY,
    BrownianNoise,
    Denoiser,
    Interpolant,
    TwoSided,
    TwoSidedDenoiser,
    UniformTimes,
    VPLinear,
    encoding_decoding,
    linear_interpolant,
    mirrored,
    no_noise,
    one_sided,
    parabolic_noise,
    trigonometric_interpolant,
    uniform_grid,
)
from lecture_lib.data import Batches
from lecture_lib.errors import NotTractable, RangeError, ShapeError, SingularError
from lecture_lib.families import (
    Cloud,
    OneSidedInterpolant,
    StochasticInterpolant,
    White,
    antithetic_loss,
    fit,
    velocity_loss,
)
from lecture_lib.families.interpolants import two_mlps
from lecture_lib.metrics import two_sample_test
from lecture_lib.oracles import GaussianBridge, GaussianMixture
from lecture_lib.samplers import ConstantDiffusion, EulerMaruyama, Heun, last, sample

DATA = GaussianMixture([0.4, 0.6], [[-1.5], [1.0]], [0.1, 0.3])
OTHER = GaussianMixture([1.0], [[3.0]], [0.25])
BRIDGE = GaussianBridge(DATA, OTHER)
PATH = linear_interpolant(BrownianNoise(1.0))
EPSILONS = [0.0, 0.5, 2.0]
STEPS = {0.0: 50, 0.5: 100, 2.0: 200}  # second order without noise; the more noise, the shorter the steps


def how(epsilon: float):
    """The ODE, or the SDE with this epsilon."""
    return EulerMaruyama(ConstantDiffusion(2 * epsilon)) if epsilon else Heun()


class Exact(nn.Module):
    """One of the two regressions, answered by the oracle."""

    def __init__(self, path: Interpolant, name: str):
        super().__init__()
        self.path, self.name, self.unused = path, name, nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, x, t, cond=None):
        t = t.double() / 1000
        p = BRIDGE.denoise(self.path)(x, t)
        dalpha, dbeta, _ = self.path.derivatives(t)
        return p.z if self.name == "noise" else dalpha[:, None] * p.x0 + dbeta[:, None] * p.x1


def exact_model(path: Interpolant, epsilon: float = 0.0) -> StochasticInterpolant:
    """The family with the oracle in place of its networks."""
    denoiser = TwoSidedDenoiser(Exact(path, "transport"), Exact(path, "noise"), path)
    return StochasticInterpolant(denoiser, (1,), other=Cloud(OTHER.sample(5000, generator=seeded(9))), how=how(epsilon))


# The denoiser


@pytest.mark.parametrize("path", [PATH, trigonometric_interpolant(parabolic_noise)], ids=["linear", "trigonometric"])
def test_two_regressions_say_all_that_the_oracle_says(path):
    x, t = normal(9, 1), torch.linspace(0.05, 0.95, 9, dtype=F64)
    said, known = exact_model(path).denoiser(x, t), BRIDGE.denoise(path)(x, t)
    for name in ("x0", "x1", "z", "velocity", "score"):
        assert gap(getattr(said, name), getattr(known, name)) < 1e-10, name


def test_where_an_end_is_lost_it_says_so():
    x, t = normal(3, 2), times(0.2, 0.3, 0.4)
    with pytest.raises(SingularError, match="both ends"):
        TwoSided.decoded(encoding_decoding(), t, x, x, x)
    with pytest.raises(ShapeError, match="Interpolant"):
        TwoSidedDenoiser(*two_mlps(), VPLinear())


def test_its_loss_is_smallest_for_the_conditional_means():
    """No multiple of the exact regressions does better; either is seen by the loss."""
    x0, x1 = DATA.sample(20_000, generator=seeded(1)), OTHER.sample(20_000, generator=seeded(2))

    def loss(a=1.0, b=1.0):
        denoiser = exact_model(PATH).denoiser
        raw = denoiser.raw
        denoiser.raw = lambda x, t, c: tuple(k * y for k, y in zip((a, b), raw(x, t, c), strict=True))
        return denoiser.loss(x0, x1, times=UniformTimes(1e-3, 0.999), generator=seeded(3)).mean().item()

    assert loss() < min(loss(a=0.97), loss(a=1.03), loss(b=0.97), loss(b=1.03))
    # the floor is what stays unknown: E Var(x1 - x0 | x_t) + E Var(z | x_t), by the same oracle
    t = UniformTimes(1e-3, 0.999).sample(20_000, generator=seeded(3))
    z = torch.randn(20_000, 1, generator=seeded(4), dtype=F64)
    p = BRIDGE.denoise(PATH)(PATH.interpolate(x0, x1, z, t), t)
    floor = ((x1 - x0 - (p.x1 - p.x0)) ** 2 + (z - p.z) ** 2).mean().item()
    assert loss() == pytest.approx(floor, rel=0.02)


def test_mirrored_is_the_same_way_backwards():
    x, t = normal(5, 1), torch.linspace(0.1, 0.9, 5, dtype=F64)
    path, denoise = PATH.mirrored(), mirrored(BRIDGE.denoise(PATH), PATH)
    p, q = denoise(x, 1 - t), BRIDGE.denoise(PATH)(x, t)
    assert gap(p.velocity, -q.velocity) < 1e-12 and gap(p.score, q.score) < 1e-12
    assert path.mirrored() == PATH and p.on(path) is p and torch.equal(p.x0, q.x1)


# One marginal flow, many processes


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("path", [PATH, trigonometric_interpolant(BrownianNoise(2.0))], ids=["linear", "trigonometric"])
def test_the_exact_bridge_ends_in_the_data_for_every_epsilon(path, epsilon):
    got = exact_model(path, epsilon).sample(800, steps=STEPS[epsilon], generator=seeded(3)).double()
    assert two_sample_test(got, DATA.sample(800, generator=seeded(4)), generator=seeded(5)).same


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_and_outward_in_the_other_end(epsilon):
    outward = exact_model(PATH, epsilon).outward
    *_, got = outward(DATA.sample(800, generator=seeded(6)), steps=STEPS[epsilon], generator=seeded(7))
    assert two_sample_test(got, OTHER.sample(800, generator=seeded(8)), generator=seeded(5)).same


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_half_way_too(epsilon):
    """Not only the ends: the marginal at t = 1/2, which the bridge's own draws have."""
    grid = uniform_grid(PATH, 100, start=0.999, end=0.5)
    x1 = OTHER.sample(800, generator=seeded(1))
    got = last(sample(BRIDGE.denoise(PATH), PATH, how(epsilon), grid, x1, generator=seeded(2)))
    x0, x1 = DATA.sample(800, generator=seeded(3)), OTHER.sample(800, generator=seeded(4))
    drawn = PATH.interpolate(x0, x1, normal(800, 1, seed=5), times(0.5).expand(800))
    assert two_sample_test(got, drawn, generator=seeded(6)).same


def test_the_test_would_see_a_wrong_sign():
    """With +epsilon s in place of -epsilon s, or [SI]'s code where s = eta/gamma, the marginal is another (B137)."""

    def wrong(x, t):
        p = BRIDGE.denoise(PATH)(x, t)
        flipped = TwoSided(p.path, p.t, p.x_t, p.x0, p.x1, p.z)
        object.__setattr__(flipped, "parts", lambda velocity, score: [(velocity, p.velocity), (-score, p.score)])
        return flipped

    grid = uniform_grid(PATH, 100, start=0.999, end=0.05)
    got = last(sample(wrong, PATH, how(0.5), grid, OTHER.sample(400, generator=seeded(1)), generator=seeded(2)))
    assert not two_sample_test(got, DATA.sample(400, generator=seeded(3)), generator=seeded(4)).same


@pytest.fixture(scope="module")
def trained():
    """A learned interpolant from N(3, 1/4) to two Gaussians on the line: 700 updates."""
    data = Batches((DATA.sample(20_000, generator=seeded(1)).float(),), 256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = TwoSidedDenoiser(*two_mlps(1), PATH)
    model = StochasticInterpolant(denoiser, (1,), other=Cloud(OTHER.sample(20_000, generator=seeded(2)).float()))
    for _ in fit(model, data, steps=700, generator=seeded(3), schedule=lambda done: 1 - done / 700):
        pass
    return model


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_trained_interpolant_has_one_marginal_for_every_epsilon(trained, epsilon):
    trained.how = how(epsilon)
    got = trained.sample(400, steps=STEPS[epsilon], generator=seeded(4))
    trained.how = how(0.0)
    ode = trained.sample(400, steps=50, generator=seeded(5))
    assert two_sample_test(got, ode, generator=seeded(6)).same
    assert two_sample_test(got, DATA.sample(400, generator=seeded(7)).float(), generator=seeded(8)).same


def test_what_it_learned_is_near_the_exact_velocity(trained):
    x0, x1 = DATA.sample(2000, generator=seeded(1)), OTHER.sample(2000, generator=seeded(2))
    t = torch.rand(2000, generator=seeded(3), dtype=F64) * 0.9 + 0.05
    x = PATH.interpolate(x0, x1, normal(2000, 1, seed=4), t)
    with torch.no_grad():
        said = trained.denoiser(x.float(), t)
    known = BRIDGE.denoise(PATH)(x, t)
    assert ((said.velocity - known.velocity).norm() / known.velocity.norm()).item() < 0.1
    assert ((said.z - known.z).norm() / known.z.norm()).item() < 0.25


# Likelihood


def test_log_prob_is_the_bridges_density():
    """Between a mixture and white noise, the oracle as network: the density of x_margin, which is nearly the data's."""
    world = GaussianBridge(plane(), GaussianMixture([1.0], torch.zeros(1, 2, dtype=F64), [1.0]))
    path = trigonometric_interpolant(parabolic_noise)

    class Net(Exact):
        def forward(self, x, t, cond=None):
            t = t.double() / 1000
            p = world.denoise(path)(x, t)
            dalpha, dbeta, _ = path.derivatives(t)
            return p.z if self.name == "noise" else dalpha[:, None] * p.x0 + dbeta[:, None] * p.x1

    model = StochasticInterpolant(TwoSidedDenoiser(Net(path, "transport"), Net(path, "noise"), path), (2,))
    x, model.likelihood_steps = plane().sample(40, generator=seeded(1)), 40
    found = model.log_prob(x)
    assert found.kind == "exact" and gap(found.nats, plane().log_prob(x)) < 0.02
    margin = times(1e-3).expand(40)
    assert gap(found.nats, world.log_prob(x, path, margin)) < 2e-3  # what it is the density of, up to RK4's steps


def test_without_a_density_at_the_other_end_there_is_none():
    with pytest.raises(NotTractable, match="set of points"):
        exact_model(PATH).log_prob(normal(3, 1))
    white = White((2,))
    assert gap(white.log_prob(normal(5, 2)), torch.distributions.Normal(0, 1).log_prob(normal(5, 2)).sum(1)) < 1e-12


# What is one-sided, and what is no interpolant


def test_the_one_sided_case_is_a_denoiser_on_a_path():
    """gamma = 0 and x1 = eps: score and velocity are those of the path (B134: DDPM is a row of this)."""
    world, path = plane(), VPLinear()
    white = GaussianMixture([1.0], torch.zeros(1, 2, dtype=F64), [1.0])
    x, t = normal(6, 2), torch.linspace(0.1, 0.9, 6, dtype=F64)
    p, q = GaussianBridge(world, white).denoise(one_sided(path))(x, t), world.denoise(path)(x, t)
    assert gap(p.velocity, q.velocity) < 1e-10
    assert gap(-p.x1 / path.sigma(t)[:, None], q.score) < 1e-9
    with pytest.raises(SingularError, match="gamma = 0"):  # x1 is the noise; there is no z to read a score from
        _ = p.score


def test_ddpm_is_not_two_sided():
    """B134: with beta = 0 and gamma = sqrt(1 - alpha-bar) nothing of x1 is left at the end but noise: refused."""
    path = VPLinear()
    with pytest.raises(RangeError, match="expected a positive number"):
        Interpolant(path.alpha, no_noise, path.sigma)


def test_the_slope_of_ddpms_noise_explodes():
    """B138: sqrt(1 - alpha-bar) has slopes 3.3, 16 and 158 at t = 1e-2, 1e-4, 1e-6: keep a margin."""
    slopes = VPLinear().slopes(times(1e-2, 1e-4, 1e-6))[1]
    assert slopes.tolist() == pytest.approx([3.3, 16, 158], rel=0.05)


def test_a_one_sided_model_follows_any_path_with_any_epsilon():
    """The oracle as a network on VP: ODE and SDE end in the data."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros((), dtype=F64))

        def forward(self, x, t, cond=None):
            return DATA.denoise(VPLinear())(x, t.double() / 1000).velocity

    for sampler in (Heun(), EulerMaruyama(ConstantDiffusion(1.0))):
        model = OneSidedInterpolant(Denoiser(Net(), VPLinear(), VELOCITY), (1,), how=sampler)
        model.grid = lambda steps: uniform_grid(VPLinear(), steps, end=1e-3)  # the velocity is infinite at 0
        got = model.sample(600, steps=200, generator=seeded(1))
        assert two_sample_test(got, DATA.sample(600, generator=seeded(2)), generator=seeded(3)).same


# The whole velocity by one network


def gradients(loss, t: float, n: int = 4000) -> torch.Tensor:
    """Per-sample derivatives of a loss with respect to a scale on the exact velocity, at one time: (n,)."""
    scale = torch.ones(n, 1, dtype=F64, requires_grad=True)
    x0, x1 = DATA.sample(n, generator=seeded(1)), OTHER.sample(n, generator=seeded(2))
    field = lambda x, t: scale * BRIDGE.denoise(PATH)(x, t).velocity  # noqa: E731
    total = loss(field, PATH, x0, x1, normal(n, 1, seed=3), times(t).expand(n)).sum()
    return torch.autograd.grad(total, scale)[0][:, 0]


def test_antithetic_pairs_keep_the_variance_finite():
    """B137: gamma' of sqrt(t (1 - t)) makes the plain target's variance grow as 1/t; with z and -z it does not."""
    plain, paired = (
        [gradients(loss, t).std().item() for t in (1e-2, 1e-4, 1e-6)] for loss in (velocity_loss, antithetic_loss)
    )
    assert plain[1] / plain[0] > 5 and plain[2] / plain[1] == pytest.approx(10, rel=0.1)
    assert max(paired) < 2 * min(paired) and plain[2] > 50 * paired[2]


def test_both_losses_have_their_minimum_at_the_exact_velocity():
    for loss in (velocity_loss, antithetic_loss):
        slope = gradients(loss, 0.3, 40_000)
        assert abs(slope.mean().item()) < 4 * slope.std().item() / 200
