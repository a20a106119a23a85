"""The same problem given to `diffusers`: its solvers with the settings that users have, the network asked exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lecture_lib.core import Discrete
from lecture_lib.errors import MissingPackageError
from lecture_lib.oracles import GaussianMixture

SPACINGS = (
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
)
LU = ({"use_lu_lambdas": True}, {"use_lu_lambdas": True, "euler_at_final": True})
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "DDIMScheduler": [{"clip_sample": False, "timestep_spacing": "trailing"}],
    "DPMSolverMultistepScheduler": [
        {"solver_order": order, "solver_type": kind, **spacing}
        for order, kind, spacing in product((2, 3), ("midpoint", "heun"), (*SPACINGS, *LU))
        if (order, kind) != (3, "heun")
    ],
    "DPMSolverSinglestepScheduler": [
        {"solver_order": order, "lower_order_final": True, **spacing}
        for order, spacing in product((2, 3), (SPACINGS[3], SPACINGS[4], {}))
    ],
    "UniPCMultistepScheduler": [
        {"solver_order": order, "predict_x0": data, "final_sigmas_type": end, **spacing}
        for order, data, end, spacing in product((2, 3), (True, False), ("zero", "sigma_min"), SPACINGS)
    ],
    "DEISMultistepScheduler": [{"solver_order": order, **spacing} for order, spacing in product((2, 3), SPACINGS)],
    "LMSDiscreteScheduler": list(SPACINGS),
    "HeunDiscreteScheduler": list(SPACINGS),
}


def rivals(world: GaussianMixture, path: Discrete, x_T: Tensor, exact: Tensor, nfe: int) -> Iterator[tuple[float, str]]:
    """``(median error, name with settings)`` of every setting that spends ``nfe`` evaluations and gives numbers.

    The model answers at the very noise level of each step, not at a rounded timestep: a favour to them.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackageError("diffusers is needed to compare with: pip install 'lecture-lib[oracles]'") from error
    diffusers.logging.set_verbosity_error()
    for family, settings in FAMILIES.items():
        for options in settings:
            scheduler = getattr(diffusers, family)(**options)  # DDPM's linear betas are their default
            steps = (nfe + 1) // 2 if family.startswith("Heun") else nfe
            scheduler.set_timesteps(steps)
            if len(scheduler.timesteps) != nfe:
                continue
            x = _run(scheduler, world, path, x_T)
            value = float((x - exact).norm(dim=1).median())
            if math.isfinite(value):
                yield value, f"{family}({', '.join(f'{k}={v}' for k, v in options.items())})"


@torch.no_grad()
def _run(scheduler: Any, world: GaussianMixture, path: Discrete, x_T: Tensor) -> Tensor:
    denoise, b = world.denoise(path), len(x_T)
    exploding = type(scheduler).__name__ in ("LMSDiscreteScheduler", "HeunDiscreteScheduler")  # x/alpha is their x
    x = x_T * (float(scheduler.sigmas[0] ** 2 + 1) ** 0.5 if exploding else 1.0)
    for i, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "sigmas"):
            t = path.at_lam(-math.log(max(float(scheduler.sigmas[i]), 1e-12)))
        else:
            t = path.at((int(timestep) + 1) / 1000)
        scheduler.scale_model_input(x, timestep)
        eps = denoise(t.alpha * x if exploding else x, torch.full((b,), t.time, dtype=torch.float64)).eps
        x = scheduler.step(eps, timestep, x).prev_sample
    return x
