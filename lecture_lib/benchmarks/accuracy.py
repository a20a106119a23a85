"""How exact the core is: conversions, DDIM beside `diffusers`, the flow map beside scipy in the path's own clock."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lecture_lib.core import (
    EDM,
    EPS,
    SCORE,
    VELOCITY,
    X0,
    Discrete,
    RectifiedFlow,
    Trigonometric,
    V,
    VPCosine,
    VPLinear,
    edm,
    stable_diffusion,
    timestep_grid,
)
from lecture_lib.errors import MissingPackageError
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import DDIM, last, sample
from lecture_lib.tooling.benching import Measurement

PATHS = [RectifiedFlow(), Trigonometric(), VPLinear(), VPCosine(), EDM(), Discrete(stable_diffusion())]
WORLD = GaussianMixture([0.3, 0.5, 0.2], [[0.0, 1.0], [-1.5, -0.5], [1.2, -0.8]], [0.1, 0.25, 0.05])


def measure() -> Iterator[Measurement]:
    """The three accuracies that Lecture 2 stands on, each as its largest error."""
    yield Measurement("conversions, 6 parameterizations on 6 paths, float64", conversions(), "", 1e-12)
    yield Measurement("DDIM, 50 steps, against diffusers, float32", ddim(torch.float32), "", 1e-5)
    yield Measurement("DDIM, 50 steps, against diffusers, float64, same table", ddim(torch.float64), "", 1e-10)
    yield Measurement("flow map of a mixture against DOP853 in path time", flow(), "", 1e-8)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conversions() -> float:
    """Largest error of (x0, eps) after encode and decode, at 33 times from 2 % to 98 % of each path."""
    x0, eps, worst = _normal(33, 1, 8, 8, seed=1), _normal(33, 1, 8, 8, seed=2), 0.0
    for path in PATHS:
        t = torch.linspace(0.02, 0.98, 33, dtype=torch.float64) * path.t_max
        x_t, c = path.mix(x0, eps, t), path.coeffs(t)
        for kind in (X0, EPS, V, VELOCITY, SCORE, edm(0.5)):
            found = kind.decode(kind.encode(x0, eps, c), x_t, c)
            worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(found, (x0, eps), strict=True)))
    return worst


def ddim(dtype: torch.dtype) -> float:
    """Largest difference of 64 samples, same noise, same trailing timesteps, the mixture as model."""
    try:
        from diffusers import DDIMScheduler
    except ImportError as error:
        raise MissingPackageError("diffusers is needed to compare with: pip install 'lecture-lib[oracles]'") from error
    path = Discrete(stable_diffusion())
    theirs = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, timestep_spacing="trailing")
    if dtype == torch.float64:
        theirs.alphas_cumprod, theirs.final_alpha_cumprod = stable_diffusion(), torch.ones((), dtype=dtype)
    theirs.set_timesteps(50)
    start = x = _normal(64, 2, seed=3).to(dtype)
    for i in theirs.timesteps:
        t = torch.full((64,), (int(i) + 1) / 1000, dtype=torch.float64)
        x = theirs.step(WORLD.denoise(path)(x, t).eps, i, x).prev_sample
    ours = last(sample(WORLD.denoise(path), path, DDIM(), timestep_grid(path, theirs.timesteps), start))
    return float((ours - x).abs().max())


def flow() -> float:
    """Largest difference at t = 0.02 on the cosine path; the reference integrates x in path time, point by point."""
    from scipy.integrate import solve_ivp

    path, x = VPCosine(), _normal(8, 2, seed=4)
    ones = torch.ones(8, dtype=torch.float64)
    ours, denoise = flow_map(WORLD.denoise(path), path, x, ones, 0.02 * ones), WORLD.denoise(path)

    def slope(t, y):
        return denoise(torch.from_numpy(y)[None], torch.tensor([t], dtype=torch.float64)).velocity[0].numpy()

    ends = [solve_ivp(slope, (1.0, 0.02), row.numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1] for row in x]
    return max(float((a - torch.from_numpy(b)).abs().max()) for a, b in zip(ours, ends, strict=True))
