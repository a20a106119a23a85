"""Where we differ from widely used code on purpose; each time the exact answer says who is right (docs/samplers.md)."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from worlds import F64, normal, plane, seeded, times

from lecture_lib.core import EDM, Discrete, VPLinear, ddpm_linear, timestep_grid
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import B1, DPMSolverPP3M, EDMChurn, SDEDPMSolverPP3M, UniPC, last, one_step, sample

diffusers = pytest.importorskip("diffusers", reason="the oracle needs `diffusers`")
PATH = VPLinear()


def their_step(kind, lam, x0s, x, noise=None):
    """Their third-order multistep update from lam[2] to lam[3], given the predictions x0s at lam[0..2]."""
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, algorithm_type=kind)
    scheduler.set_timesteps(3)
    scheduler.sigmas = torch.exp(-torch.tensor(lam, dtype=F64))  # their sigmas are ours over alpha
    scheduler._step_index = 2
    return scheduler.multistep_dpm_solver_third_order_update(list(x0s), sample=x, noise=noise)


def test_the_second_difference_of_the_third_order_step_needs_its_2():
    # One step after two exact ones, from halved steps: a third-order method has a local error of order 4. The public
    # code multiplies Newton's divided difference, which is h^2 f''/2, with the coefficient of h^2 f''.
    def flow(lam):
        ends = (PATH.time_of(times(v)).expand(8) for v in (-1.0, lam))
        return flow_map(plane().denoise(PATH), PATH, x_T, *ends, tolerance=1e-13)

    x_T, errors = normal(8, 2, seed=3), []
    for h in (0.02, 0.01):
        lam = [-0.3 + k * h for k in (-2, -1, 0, 1)]
        points, moments = [flow(v) for v in lam], [PATH.at_lam(v) for v in lam]
        x0s = [plane().denoise(PATH)(x, times(t.time).expand(8)).x0 for x, t in zip(points, moments, strict=True)]
        history = [(moments[1].lam, x0s[1]), (moments[0].lam, x0s[0])]
        ours, _ = one_step(
            DPMSolverPP3M(), plane().denoise(PATH), PATH, points[2], moments[2].time, moments[3].time, state=history
        )
        theirs = their_step("dpmsolver++", lam, x0s[:3], points[2])
        errors.append([float((x - points[3]).abs().mean()) for x in (ours, theirs)])
    ours, theirs = (math.log2(a / b) for a, b in zip(*errors, strict=True))
    assert ours == pytest.approx(4, abs=0.15) and theirs == pytest.approx(3, abs=0.2)
    assert errors[1][0] < errors[1][1] / 5


@pytest.mark.parametrize("h", [0.02, 0.1, 0.5])
def test_the_sign_in_the_third_order_sde_step(h):
    # The exact weight of a parabola h^2 f'' = 1: alpha_s int 2 e^{-2(h - u)} u^2/2 du. Theirs is too small by alpha_s.
    exact = quad(lambda u: 2 * math.exp(-2 * (h - u)) * (u / h) ** 2 / 2, 0, h)[0]
    lam = [0.4 - 2 * h, 0.4 - h, 0.4, 0.4 + h]
    # Predictions on the parabola f = (lam - lam_t)^2/(2 h^2), which has h^2 f'' = 1 and neither value nor slope at t.
    x0s = [torch.full((1, 1), (v - 0.4) ** 2 / (2 * h**2), dtype=F64) for v in lam[:3]]
    zero = torch.zeros(1, 1, dtype=F64)
    t, s = PATH.at_lam(lam[2]), PATH.at_lam(lam[3])
    point = GaussianMixture([1.0], [[0.0]], [1e-30]).denoise(PATH)  # a model that predicts 0
    ours, _ = one_step(
        SDEDPMSolverPP3M(),
        point,
        PATH,
        zero,
        t.time,
        s.time,
        state=[(lam[1], x0s[1]), (lam[0], x0s[0])],
        noise=lambda: zero,
    )
    theirs = their_step("sde-dpmsolver++", lam, x0s, zero, noise=zero)
    assert float(ours) / s.alpha == pytest.approx(exact, rel=1e-6)
    # Their D2 lacks its 2 as well, so their number is half of (exact - 1) here, not exact - 1.
    assert float(theirs) / s.alpha == pytest.approx((exact - 1) / 2, rel=1e-5)


def test_churn_must_ask_at_the_raised_noise_level():
    # Their EulerDiscreteScheduler adds the noise after the network was asked, and uses the old answer at the new place.
    # Gaussian data of variance 1: the law of the result is known.
    data, path, n = GaussianMixture([1.0], [[0.0]], [1.0]), EDM(t_max=200.0), 20_000
    scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(240)
    sigmas = scheduler.sigmas.double()
    start = (1 + float(sigmas[0]) ** 2) ** 0.5 * normal(n, 1, seed=1)
    start = (start - start.mean()) / start.std() * (1 + float(sigmas[0]) ** 2) ** 0.5
    x, generator = start, seeded(2)
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)
        eps = data.denoise(path)(x, sigmas[i].expand(n)).eps
        x = scheduler.step(eps, timestep, x, s_churn=40.0, s_noise=1.0, generator=generator).prev_sample
    ours = last(sample(data.denoise(path), path, EDMChurn.of(40.0, 240), sigmas, start, generator=seeded(2)))
    assert float(ours.var()) == pytest.approx(1, abs=0.03)  # 0.4 % of discretization, 1 % of sampling error
    assert float(x.var()) > 1.08  # measured: 1.11, falling like 1/n only


def test_unipc_with_b1_goes_down_to_clean_data():
    # Theirs divides infinity by infinity for solver_type="bh1" with an end at sigma = 0; ours takes DDIM's step there.
    path = Discrete(ddpm_linear())
    scheduler = diffusers.UniPCMultistepScheduler(solver_type="bh1", final_sigmas_type="zero", lower_order_final=False)
    scheduler.set_timesteps(10)
    x_T = x = normal(4, 2, seed=3)
    for i in scheduler.timesteps:
        eps = plane().denoise(path)(x, times((int(i) + 1) / 1000).expand(4)).eps
        x = scheduler.step(eps, i, x).prev_sample
    assert not torch.isfinite(x).any()
    grid = timestep_grid(path, scheduler.timesteps)
    assert torch.isfinite(last(sample(plane().denoise(path), path, UniPC(2, B1), grid, x_T))).all()
