"""Samplers: pure steps with explicit state, under one driver."""

from lecture_lib.samplers.ancestral import DDIM, DDPM, EulerAncestral, forward_variance, posterior_variance
from lecture_lib.samplers.base import Frame, Sampler, last, one_step, sample
from lecture_lib.samplers.classical import LMS, RK45, Euler, Heun
from lecture_lib.samplers.consistency import ConsistencyMultistep, consistency
from lecture_lib.samplers.dpm_solver import (
    DPMSolver1,
    DPMSolver2,
    DPMSolver3,
    DPMSolverFast,
    DPMSolverPP2S,
    DPMSolverPP3S,
)
from lecture_lib.samplers.dpm_solver_multistep import (
    DPMSolverPP2M,
    DPMSolverPP3M,
    SDEDPMSolverPP1,
    SDEDPMSolverPP2M,
    SDEDPMSolverPP3M,
)
from lecture_lib.samplers.dpm_solver_v3 import DPMSolverV3, Statistics, measure_statistics
from lecture_lib.samplers.exponential import DATA, NOISE, ExponentialAdams
from lecture_lib.samplers.langevin import langevin
from lecture_lib.samplers.pndm import FPNDM, PLMS
from lecture_lib.samplers.sde import (
    ConstantDiffusion,
    EDMChurn,
    EulerMaruyama,
    PredictorCorrector,
    bump_diffusion,
    forward_diffusion,
    no_diffusion,
    sigma_diffusion,
)
from lecture_lib.samplers.unipc import B1, B2, UniPC

__all__ = [
    "B1",
    "B2",
    "DATA",
    "DDIM",
    "DDPM",
    "FPNDM",
    "LMS",
    "NOISE",
    "PLMS",
    "RK45",
    "ConsistencyMultistep",
    "ConstantDiffusion",
    "DPMSolver1",
    "DPMSolver2",
    "DPMSolver3",
    "DPMSolverFast",
    "DPMSolverPP2M",
    "DPMSolverPP2S",
    "DPMSolverPP3M",
    "DPMSolverPP3S",
    "DPMSolverV3",
    "EDMChurn",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "ExponentialAdams",
    "Frame",
    "Heun",
    "PredictorCorrector",
    "SDEDPMSolverPP1",
    "SDEDPMSolverPP2M",
    "SDEDPMSolverPP3M",
    "Sampler",
    "Statistics",
    "UniPC",
    "bump_diffusion",
    "consistency",
    "forward_diffusion",
    "forward_variance",
    "langevin",
    "last",
    "measure_statistics",
    "no_diffusion",
    "one_step",
    "posterior_variance",
    "sample",
    "sigma_diffusion",
]
