"""One schedule on a world that is known exactly: its energy, a network that is trained on it, and few steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import VELOCITY, Denoise, Denoiser, Path, Trigonometric, uniform_grid
from lecture_lib.data import Batches
from lecture_lib.families import DenoisingModel, LearnedInterpolant, LearnedLine, OneSidedInterpolant, fit
from lecture_lib.metrics import sliced_wasserstein, straightness
from lecture_lib.nets import TimeMLP
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import Euler, Heun, Sampler, last, sample
from lecture_lib.tensors import layers_from
from lecture_lib.training import Ema

BATCH = 256
STEPS, MANY = (1, 2, 4, 8), 64
POINTS, NEAR = 2000, 1e-3  # of each cloud; the time next to data at which the velocity of VP is still finite
MARKS = tuple(k / 8 for k in range(1, 8))  # of the unit clock: where learned schedules are written down
OWN, DATA, EXACT = "off its own 64 steps", "off the data", "exact velocity, off the exact flow"


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def balanced(n: int, d: int, seed: int = 0) -> Float[Tensor, " n d"]:
    """Points of the unit cube that are more even than random ones (Sobol): a mean needs fewer of them."""
    points = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return points.clamp(1e-9, 1 - 1e-9)


def noised(world: GaussianMixture, path: Path, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``n`` points of the noised world, each at its own time: mode k is N(alpha m_k, alpha^2 C_k + sigma^2 I)."""
    u = balanced(n, 2 + world.means.shape[1], seed)
    t = path.t_max * u[:, 0].clamp(min=NEAR)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    k = torch.searchsorted(world.weights.cumsum(0)[:-1], u[:, 1].contiguous())
    spread = (alpha**2 * world.variances[k] + sigma**2).sqrt() * torch.special.ndtri(u[:, 2:])
    return alpha * world.means[k] + torch.einsum("nij,nj->ni", world.axes[k], spread), t


def energy(world: GaussianMixture, path: Path, n: int = 16_384, seed: int = 0) -> Float[Tensor, ""]:
    """``int E|v|^2 dt`` with the exact velocity, on a clock from 0 to 1; the schedule receives gradients."""
    v = world.denoise(path)(*noised(world, path, n, seed)).velocity
    return path.t_max**2 * v.square().sum(1).mean()


def best_line(world: GaussianMixture, updates: int = 200) -> LearnedLine:
    """The schedule that the game would find if its network were perfect: gradients of the exact energy."""
    path = LearnedLine()
    optimizer = torch.optim.Adam(path.parameters(), 0.05)
    for k in range(updates):
        optimizer.zero_grad()
        energy(world, path, 1024, seed=k).backward()
        optimizer.step()
    return path.requires_grad_(False)


def trained(world: GaussianMixture, path: Path, seed: int, updates: int) -> Denoiser:
    """A small network on ``path`` after ``updates`` updates, those of a learned schedule counted among them."""
    family: type[DenoisingModel] = LearnedInterpolant if isinstance(path, LearnedLine) else OneSidedInterpolant
    with layers_from(seed):
        model = family(Denoiser(TimeMLP(2, width=64, depth=2), path, VELOCITY), (2,))
    batches = Batches((world.sample(4096, generator=seeded(100 + seed)).float(),), BATCH)
    ema = Ema(model, 0.99)
    for _ in fit(model, batches, steps=updates, generator=seeded(200 + seed), ema=ema):
        pass
    return ema.average.denoiser


@torch.no_grad()
def walk(denoise: Denoise, path: Path, sampler: Sampler, steps: int, eps: Tensor) -> Tensor:
    """Data from noise in equal steps of the path's own clock."""
    return last(sample(denoise, path, sampler, uniform_grid(path, steps), eps))


def apart(x: Float[Tensor, " n 2"], y: Float[Tensor, " n 2"]) -> float:
    """Root mean square of the way between the two ends of the same noise."""
    return float((x - y).square().sum(1).mean().sqrt())


def heights(path: Path) -> dict[str, float]:
    """A schedule at the marks."""
    t = torch.tensor(MARKS, dtype=torch.float64) * path.t_max
    rows = {"alpha": path.alpha(t), "sigma": path.sigma(t)}
    return {f"{name} at {mark:g}": float(v) for name, row in rows.items() for mark, v in zip(MARKS, row, strict=True)}


def exact_ends(world: GaussianMixture, eps: Float[Tensor, " n 2"]) -> Float[Tensor, " n 2"]:
    """Where the exact flow leads from noise; the same on any path."""
    path = Trigonometric()
    return walk(world.denoise(path), path, Heun(), 2 * MANY, eps)


@dataclass(frozen=True)
class Course:
    """Where all run: a world, noise to start from, data to be compared with, and where the exact flow ends."""

    world: GaussianMixture
    eps: Float[Tensor, " n 2"]
    data: Float[Tensor, " m 2"]
    ends: Float[Tensor, " n 2"]

    @classmethod
    def of(cls, world: GaussianMixture) -> Course:
        """The same for all seeds, so that they are compared in pairs."""
        eps, data = torch.randn(POINTS, 2, generator=seeded(1)), world.sample(4 * POINTS, generator=seeded(2)).float()
        return cls(world, eps, data, exact_ends(world, eps))

    def far(self, x: Float[Tensor, " n 2"]) -> float:
        """Sliced Wasserstein distance to the data, not squared."""
        return sliced_wasserstein(x, self.data, directions=128, generator=seeded(3)) ** 0.5

    def exactly(self, path: Path) -> dict[str, float]:
        """What a schedule is worth where the velocity is known."""
        denoise = self.world.denoise(path)
        off = {f"{k} Euler, {EXACT}": apart(walk(denoise, path, Euler(), k, self.eps), self.ends) for k in STEPS}
        with torch.no_grad():
            return {"energy": float(energy(self.world, path)), **off}

    def ran(self, denoise: Denoise, path: Path) -> dict[str, float]:
        """What a trained network makes of it."""
        found, many = {}, walk(denoise, path, Heun(), MANY, self.eps)
        for sampler, counts in ((Euler(), STEPS), (Heun(), STEPS[1:])):  # one step of Heun is Euler's
            for steps in counts:
                x, name = walk(denoise, path, sampler, steps, self.eps), f"{steps} {type(sampler).__name__}"
                found |= {f"{name}, {OWN}": apart(x, many), f"{name}, {DATA}": self.far(x)}
        ends = {"start": path.t_max, "end": NEAR * path.t_max}
        bends = straightness(lambda x, t: denoise(x, t).velocity, self.eps[:512], steps=MANY // 2, **ends)
        return found | {f"{MANY} Heun, {DATA}": self.far(many), "straightness": path.t_max**2 * float(bends.mean())}
