"""The mixture oracle against torch.distributions, autograd, scipy and torchdiffeq."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.stats import norm
from worlds import F64, PATH_NAMES, PATHS, gap, inner_times, normal, plane, seeded, times, tiny_pictures

from lecture_lib.core import EDM, Discrete, RectifiedFlow, Trigonometric, VPLinear, rebase, stable_diffusion
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.guidance import extrapolate
from lecture_lib.oracles import GaussianMixture, flow_map

every_path = pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)


def noised(mixture, covs, alpha, sigma):
    """The noised mixture as torch.distributions sees it."""
    d = mixture.means.shape[1]
    full = covs if covs.ndim == 3 else covs[:, None, None] * torch.eye(d, dtype=F64)
    parts = torch.distributions.MultivariateNormal(
        alpha * mixture.means, alpha**2 * full + sigma**2 * torch.eye(d, dtype=F64)
    )
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), parts)


PLANE_COVS = torch.tensor(
    [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.25, -0.05], [-0.05, 0.15]]], dtype=F64
)


@every_path
def test_log_prob_is_torchs(path):
    mixture, t = plane(), inner_times(path)
    x = 2 * normal(9, 2)
    got = mixture.log_prob(x, path, t)
    for i in range(9):
        alpha, sigma = float(path.alpha(t[i : i + 1])), float(path.sigma(t[i : i + 1]))
        assert gap(got[i], noised(mixture, PLANE_COVS, alpha, sigma).log_prob(x[i])) <= 1e-11
    assert gap(mixture.log_prob(x), noised(mixture, PLANE_COVS, 1.0, 0.0).log_prob(x)) <= 1e-11


def test_log_prob_of_pictures_is_torchs():
    mixture, x = tiny_pictures(), tiny_pictures().sample(5, generator=seeded())
    expected = noised(mixture, torch.tensor([0.3, 0.2], dtype=F64), 0.7, 0.3).log_prob(x.flatten(1))
    assert gap(mixture.log_prob(x, RectifiedFlow(), torch.full((5,), 0.3)), expected) <= 1e-6  # t is float32 here
    assert gap(mixture.log_prob(x, RectifiedFlow(), times(*[0.3] * 5)), expected) <= 1e-10


@every_path
@pytest.mark.parametrize("make", [plane, tiny_pictures], ids=["plane", "pictures"])
def test_score_is_the_gradient_of_log_prob(path, make):
    mixture, t = make(), inner_times(path)
    x = path.mix(mixture.sample(9, generator=seeded(1)), normal(9, *mixture.event), t).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, path, t).sum(), x)
    x = x.detach()
    assert gap(mixture.score(x, path, t), gradient) <= 1e-10
    p = mixture.denoise(path)(x, t)
    sigma = path.sigma(t).reshape(9, *[1] * len(mixture.event))
    assert gap(p.eps, -sigma * gradient) <= 1e-10
    assert gap(p.score, gradient) <= 1e-9
    assert gap(path.mix(p.x0, p.eps, t), x) <= 1e-11 * max(1, path.t_max)  # both rows, each by its own formula
    alpha = path.alpha(t).reshape(sigma.shape)
    assert gap(p.x0, (x + sigma**2 * gradient) / alpha) <= 1e-8 * max(1, path.t_max)  # Tweedie


def test_denoiser_is_the_posterior_mean_by_quadrature():
    mixture = GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [0.2, 0.5])
    grid = torch.linspace(-9, 9, 20001, dtype=F64)
    for path, t in ((RectifiedFlow(), 0.4), (VPLinear(), 0.3), (EDM(), 1.5), (Trigonometric(), 1.1)):
        alpha, sigma = float(path.alpha(times(t))), float(path.sigma(times(t)))
        for x in (-2.0, 0.1, 1.7):
            w = mixture.log_prob(grid[:, None]).exp() * torch.exp(-((x - alpha * grid) ** 2) / (2 * sigma**2))
            expected = float(torch.trapezoid(w * grid, grid) / torch.trapezoid(w, grid))
            p = mixture.denoise(path)(torch.tensor([[x]], dtype=F64), times(t))
            assert float(p.x0) == pytest.approx(expected, abs=1e-9)
            assert float(p.eps) == pytest.approx((x - alpha * expected) / sigma, abs=1e-8)


def test_ends_of_the_oracle():
    mixture, x = plane(), normal(4, 2)
    clean = mixture.denoise(RectifiedFlow())(x, torch.zeros(4, dtype=F64))
    assert gap(clean.x0, x) <= 1e-14 and gap(clean.eps, torch.zeros_like(x)) == 0
    noise = mixture.denoise(RectifiedFlow())(x, torch.ones(4, dtype=F64))
    assert gap(noise.x0, (mixture.weights @ mixture.means).expand(4, 2)) <= 1e-14 and gap(noise.eps, x) <= 1e-14


# Labels


def test_labels_condition_exactly():
    mixture = plane()
    one, x, path, t = mixture.given(1), normal(6, 2), VPLinear(), inner_times(VPLinear(), 6)
    assert gap(one.weights, times(0.6, 0.4)) <= 1e-15
    expected = noised(one, PLANE_COVS[1:], 1.0, 0.0).log_prob(x)
    assert gap(one.log_prob(x), expected) <= 1e-10
    prior = {0: 0.5, 1: 0.5}
    for label in (0, 1):
        bayes = math.log(prior[label]) + mixture.given(label).log_prob(x, path, t) - mixture.log_prob(x, path, t)
        assert gap(mixture.log_prob_label(label, x, path, t), bayes) <= 1e-10
    both = mixture.log_prob_label(0, x, path, t).exp() + mixture.log_prob_label(1, x, path, t).exp()
    assert gap(both, torch.ones(6, dtype=F64)) <= 1e-13


def test_a_conditional_in_float32_is_no_asymmetric_one():
    """Rebuilt from their axes, float32 covariances are symmetric up to rounding; `given` refused its own mixture."""
    x = normal(200, 2, 24, dtype=torch.float32)
    covs = torch.stack([part.T.cov() for part in x.unbind(1)])
    mixture = GaussianMixture([0.5, 0.5], torch.zeros(2, 24), covs, [0, 1])
    one, at = mixture.given(1), normal(5, 24, dtype=torch.float32)
    assert gap(one.log_prob(at), GaussianMixture([1.0], torch.zeros(1, 24), covs[1:]).log_prob(at)) <= 1e-3
    with pytest.raises(RangeError, match="symmetric"):  # 1e-8 is no rounding of 1e-9
        GaussianMixture([1.0], [[0.0, 0.0]], [[[1e-9, 9e-10], [-9e-10, 1e-9]]])


def test_labels_that_are_not_there_are_named():
    with pytest.raises(ShapeError, match="return_labels: got True"):
        GaussianMixture([1.0], [[0.0]], [1.0]).sample(3, return_labels=True)


# Samples


@pytest.mark.parametrize("make", [plane, tiny_pictures], ids=["plane", "pictures"])
def test_moments_of_samples(make):
    mixture, n = make(), 30_000
    x, label = mixture.sample(n, generator=seeded(2), return_labels=True)
    assert x.shape == (n, *mixture.event) and x.dtype == F64
    flat, mean = x.flatten(1), mixture.weights @ mixture.means
    assert gap(flat.mean(0), mean) <= 0.025
    covs = mixture.axes @ torch.diag_embed(mixture.variances) @ mixture.axes.mT
    spread = mixture.means - mean
    cov = torch.einsum("k,kij->ij", mixture.weights, covs) + torch.einsum(
        "k,ki,kj->ij", mixture.weights, spread, spread
    )
    assert gap(flat.T.cov(), cov) <= 0.03
    share = mixture.weights[mixture.labels == 1].sum()
    assert float((label == 1).double().mean()) == pytest.approx(float(share), abs=0.01)
    inside = flat[label == 0]
    assert gap(inside.mean(0), mixture.given(0).means[0]) <= 0.03


def test_axes_rebuild_the_covariances():
    mixture = plane()
    assert gap(mixture.axes @ torch.diag_embed(mixture.variances) @ mixture.axes.mT, PLANE_COVS) <= 1e-15


# Flow map against three independent solvers


def own_clock(mixture, path, x, t, s):
    """scipy's DOP853 in the path's own clock, the velocity written from the score: nothing of flow_map's circle."""

    def slope(u, flat):
        y, time = torch.from_numpy(flat).reshape(x.shape), torch.full((len(x),), u, dtype=F64)
        f, g2 = path.drift_diffusion(time)
        return (f[:, None] * y - 0.5 * g2[:, None] * mixture.score(y, path, time)).numpy().ravel()

    out = solve_ivp(slope, (t, s), x.numpy().ravel(), method="DOP853", rtol=3e-14, atol=1e-13)
    return torch.from_numpy(out.y[:, -1]).reshape(x.shape)


CASES = [
    (RectifiedFlow(), 0.95, 0.02),
    (RectifiedFlow(), 0.1, 0.9),  # upwards
    (VPLinear(), 1.0, 1e-3),
    (Trigonometric(), 1.4, 0.05),
    (EDM(), 80.0, 0.01),
]


@pytest.mark.parametrize(("path", "t", "s"), CASES, ids=str)
def test_flow_map_is_scipys_solution_in_the_paths_own_clock(path, t, s):
    x = float(path.sigma(times(t))) * normal(5, 2, seed=4)
    got = flow_map(plane().denoise(path), path, x, torch.full((5,), t, dtype=F64), torch.full((5,), s, dtype=F64))
    assert gap(got, own_clock(plane(), path, x, t, s)) <= 1e-8


def test_flow_map_is_torchdiffeqs():
    torchdiffeq = pytest.importorskip("torchdiffeq", reason="the oracle needs `torchdiffeq`")
    path, x = RectifiedFlow(), normal(5, 2, seed=4)
    denoise = plane().denoise(path)

    def slope(u, y):
        return denoise(y, u.expand(5)).velocity

    expected = torchdiffeq.odeint(slope, x, times(0.9, 0.05), method="dopri8", rtol=1e-12, atol=1e-13)[-1]
    got = flow_map(denoise, path, x, torch.full((5,), 0.9, dtype=F64), torch.full((5,), 0.05, dtype=F64))
    assert gap(got, expected) <= 1e-8


@pytest.mark.parametrize(
    ("path", "t", "s"),
    [(RectifiedFlow(), 1.0, 0.0), (VPLinear(), 0.8, 0.0), (EDM(), 20.0, 0.3), (VPLinear(), 0.02, 0.9)],
)
def test_flow_map_in_one_dimension_is_the_quantile_map(path, t, s):
    # In one dimension the flow keeps the order, hence quantiles: x_s = F_s^-1(F_t(x_t)). No ODE solver at all.
    weights, means, variances = np.array([0.3, 0.5, 0.2]), np.array([-2.0, 0.5, 2.0]), np.array([0.1, 0.3, 0.05])
    mixture = GaussianMixture(weights.tolist(), means[:, None].tolist(), variances.tolist())

    def cdf(y, time):
        alpha, sigma = float(path.alpha(times(time))), float(path.sigma(times(time)))
        return float(weights @ norm.cdf(y, alpha * means, np.sqrt(alpha**2 * variances + sigma**2)))

    alpha, sigma = float(path.alpha(times(t))), float(path.sigma(times(t)))
    x = alpha * mixture.sample(6, generator=seeded(3)) + sigma * normal(6, 1)
    got = flow_map(mixture.denoise(path), path, x, torch.full((6,), t, dtype=F64), torch.full((6,), s, dtype=F64))
    for start, end in zip(x.flatten().tolist(), got.flatten().tolist(), strict=True):
        level = cdf(start, t)
        assert end == pytest.approx(brentq(lambda y, q=level: cdf(y, s) - q, -400, 400, xtol=1e-13), abs=1e-8)


def test_flow_map_laws():
    path, x = RectifiedFlow(), normal(4, 2)
    denoise = plane().denoise(path)
    t, u, s = times(0.9, 0.8, 0.7, 1.0), times(0.5, 0.6, 0.3, 0.2), times(0.0, 0.1, 0.2, 0.05)  # one time per sample
    there = flow_map(denoise, path, x, t, s)
    assert gap(flow_map(denoise, path, flow_map(denoise, path, x, t, u), u, s), there) <= 1e-9  # semigroup
    assert gap(flow_map(denoise, path, there, s, t), x) <= 1e-9  # inverse
    assert gap(flow_map(denoise, path, x, t, t), x) <= 1e-14  # identity
    for i in range(4):
        alone = flow_map(denoise, path, x[i : i + 1], t[i : i + 1], s[i : i + 1])
        assert gap(alone[0], there[i]) <= 1e-9
    single = flow_map(denoise, path, x.float(), t, s)
    assert single.dtype == torch.float32 and gap(single.double(), there) <= 1e-5


def test_flow_map_of_a_gaussian_is_linear():
    path, v = EDM(), 0.25
    mixture = GaussianMixture([1.0], [[0.0]], [v])
    x = times(80.0, -40.0)[:, None]
    got = flow_map(mixture.denoise(path), path, x, times(80.0, 80.0), times(0.0, 0.0))
    assert gap(got, x * math.sqrt(v / (v + 6400))) <= 1e-10  # 0.0062499 x, FORMULAS part 5
    assert float(got[0]) == pytest.approx(80 * 0.0062499, abs=1e-4)


def test_all_paths_share_one_trajectory():
    z, results = normal(4, 2), []
    for path in (RectifiedFlow(), Trigonometric(), VPLinear(), EDM(), Discrete(stable_diffusion())):
        t, s = (path.time_of(times(lam)).expand(4) for lam in (-2.0, 3.0))
        x = path.sigma(t)[:, None] * z
        results.append(flow_map(plane().denoise(path), path, x, t, s) / path.alpha(s)[:, None])
    for other in results[1:]:
        assert gap(other, results[0]) <= 1e-8


def test_flow_map_of_guided_and_rebased_denoisers():
    path, x = EDM(), 10 * normal(3, 2)
    t, s = torch.full((3,), 10.0, dtype=F64), torch.full((3,), 0.1, dtype=F64)
    guided = extrapolate(plane().denoise(path), plane().given(1).denoise(path), 2.0)
    other = rebase(rebase(guided, path, RectifiedFlow()), RectifiedFlow(), path)
    assert gap(flow_map(guided, path, x, t, s), flow_map(other, path, x, t, s)) <= 1e-8


@pytest.mark.gpu
def test_oracle_answers_where_its_input_lives():
    x = normal(4, 2).cuda()
    p = plane().denoise(RectifiedFlow())(x, torch.full((4,), 0.5, device="cuda"))
    assert (
        p.x0.device.type == "cuda"
        and gap(p.x0.cpu(), plane().denoise(RectifiedFlow())(x.cpu(), times(*[0.5] * 4)).x0) <= 1e-12
    )
