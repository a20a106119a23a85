"""Samplers: pure steps with explicit state, under one driver."""

from lecture_lib.samplers.base import Frame, Sampler, last, sample
from lecture_lib.samplers.deterministic import DPMSolverPP2M, Euler, Heun
from lecture_lib.samplers.stochastic import (
    DDIM,
    DDPM,
    EulerMaruyama,
    forward_diffusion,
    forward_variance,
    posterior_variance,
)

__all__ = [
    "DDIM",
    "DDPM",
    "DPMSolverPP2M",
    "Euler",
    "EulerMaruyama",
    "Frame",
    "Heun",
    "Sampler",
    "forward_diffusion",
    "forward_variance",
    "last",
    "posterior_variance",
    "sample",
]
