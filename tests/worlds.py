"""Small worlds shared by the tests: every path, every parameterization, a mixture, a tiny network, counting helpers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    zero_terminal_snr,
)
from lecture_lib.oracles import GaussianMixture

F64 = torch.float64

PATHS = [
    RectifiedFlow(),
    Trigonometric(),
    VPLinear(),
    VPCosine(),
    EDM(),
    Discrete(stable_diffusion()),
    Discrete(zero_terminal_snr(stable_diffusion())),
]
PATH_NAMES = ["rf", "trig", "vp", "cosine", "edm", "sd", "ztsnr"]
ROWS = [X0, EPS, V, VELOCITY, SCORE, edm(0.5)]
ROW_NAMES = [row.name for row in ROWS]


def times(*values: float) -> Tensor:
    """Times as a ``(b,)`` float64 tensor."""
    return torch.tensor(values, dtype=F64)


def inner_times(path, n: int = 9) -> Tensor:
    """Times strictly inside the path, whatever its clock."""
    return torch.linspace(0.02, 0.98, n, dtype=F64) * path.t_max


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own for each use."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype=F64) -> Tensor:
    """Standard normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def plane() -> GaussianMixture:
    """Three components in the plane, two classes, one covariance tilted."""
    covs = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.25, -0.05], [-0.05, 0.15]]], dtype=F64)
    return GaussianMixture([0.5, 0.3, 0.2], [[-1.5, 0.0], [1.0, 1.2], [0.5, -1.3]], covs, labels=[0, 1, 1])


def tiny_pictures() -> GaussianMixture:
    """Two classes of 1 x 8 x 8 pictures."""
    means = 0.5 * normal(2, 1, 8, 8, seed=3)
    return GaussianMixture([0.4, 0.6], means, [0.3, 0.2], labels=[0, 1])


class TinyNetwork(nn.Module):
    """A conditional network in float64 that really depends on input, time and label; class 3 is "no class"."""

    def __init__(self, d: int = 2, seed: int = 0, classes: int = 3):
        super().__init__()
        g = seeded(seed)
        self.weight = nn.Parameter(torch.randn(d, d, generator=g, dtype=F64) / d)
        self.labels = nn.Parameter(torch.randn(classes + 1, d, generator=g, dtype=F64))
        self.calls: list[int] = []

    def forward(self, x, t, cond=None):
        self.calls.append(x.shape[0])
        flat = x.flatten(1)
        shift = 0 if cond is None else self.labels[cond].to(x.dtype)
        return (torch.tanh(flat @ self.weight.to(x.dtype) + shift) * (1 + t[:, None] / 1000)).reshape(x.shape)


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x_t, t):
        self.calls += 1
        return self.denoise(x_t, t)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    assert a.shape == b.shape
    return float((a - b).abs().max())
