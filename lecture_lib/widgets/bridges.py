"""The Schroedinger bridge between two Gaussians: from optimal transport (small sigma) to independent ends (large)."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from lecture_lib.oracles import GaussianSchrodinger
from lecture_lib.viz import DATA, EXACT, NOISE, SAMPLED, Backdrop, panels, styled
from lecture_lib.widgets.controls import ladder, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

MEAN0, MEAN1 = -1.0, 1.0
PARTICLES, SHOWN, STEPS = 600, 16, 100
SIGMAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_WINDOW = 4.0


@lru_cache(maxsize=64)
def bridge(sigma: float, std0: float, std1: float) -> GaussianSchrodinger:
    """Between ``N(-1, std0^2)`` at t = 0 and ``N(1, std1^2)`` at t = 1."""
    ends = [torch.tensor(v, dtype=torch.float64) for v in ([MEAN0], [[std0**2]], [MEAN1], [[std1**2]])]
    return GaussianSchrodinger(*ends, sigma)


@lru_cache(maxsize=64)
def walked(sigma: float, std0: float, std1: float, seed: int) -> Float[np.ndarray, " steps+1 n"]:
    """``PARTICLES`` from t = 0 to 1 by ``dx = E[x1 - x_t | x_t]/(1 - t) dt + sigma dW``, the exact drift of the bridge.

    Euler and Maruyama's steps, the last one with its noise like all others: x1 has variance given any x_t before.
    """
    found, generator = bridge(sigma, std0, std1), torch.Generator().manual_seed(seed)
    denoise, h = found.denoise(found.path), 1 / STEPS
    x = MEAN0 + std0 * torch.randn(PARTICLES, 1, generator=generator, dtype=torch.float64)
    rows = [x]
    for k in range(STEPS):
        t = torch.full((PARTICLES,), k * h, dtype=torch.float64)
        drift = (denoise(x, t).x1 - x) / (1 - k * h)
        x = x + h * drift + sigma * h**0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        rows.append(x)
    return torch.stack(rows)[..., 0].numpy()


def band(found: GaussianSchrodinger, covariance: float, t: np.ndarray) -> np.ndarray:
    """Standard deviation of x_t, for ends with this covariance and a Brownian bridge between them."""
    v0, v1 = float(found.cov0), float(found.cov1)
    return np.sqrt((1 - t) ** 2 * v0 + t**2 * v1 + t * (1 - t) * (2 * covariance + found.sigma**2))


def ellipse(found: GaussianSchrodinger, covariance: float) -> np.ndarray:
    """Two standard deviations of (x0, x1) around their means, (2, 90)."""
    cov = np.array([[float(found.cov0), covariance], [covariance, float(found.cov1)]])
    phi = np.linspace(0, 2 * np.pi, 90)
    around = 2 * np.linalg.cholesky(cov) @ np.stack([np.cos(phi), np.sin(phi)])
    return around + np.array([[MEAN0], [MEAN1]])


# The picture ---------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, (ways, ends) = panels(1, 2, size=(10.6, 5.4), width_ratios=(1.45, 1))
    ways.set(
        xlim=(0, 1), ylim=(-_WINDOW, _WINDOW), xlabel="time t (0: data, 1: other end)", ylabel="$x_t$ (data units)"
    )
    ways.set_title("Ways of the bridge")
    ends.set(xlim=(-_WINDOW, _WINDOW - 1), ylim=(-_WINDOW + 1, _WINDOW), aspect="equal")
    ends.set(xlabel="$x_0$ (data units)", ylabel="$x_1$ (data units)")
    ends.set_title("Who comes from where")
    looks = {
        f"{SHOWN} of {PARTICLES} particles": {"color": SAMPLED, "linewidth": 1.2},
        "exact, 2 sd": {"color": EXACT, "linestyle": "--"},
        "independent ends, same $\\sigma$": {"color": NOISE, "linestyle": "-."},
        "optimal transport": {"color": DATA, "linewidth": 1.4},
    }
    handles = [ways.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return Backdrop(figure)


@styled
def bridge_scene(sigma: float, std0: float, std1: float, seed: int) -> Scene:
    """Paths with the exact band, and the two ends with the exact ellipse."""
    found, x = bridge(sigma, std0, std1), walked(sigma, std0, std1, seed)
    exact, measured = float(found.cross_covariance), float(np.cov(x[0], x[-1])[0, 1])
    note = (
        f"Covariance of x0 and x1: {exact:.3f} in closed form, (sqrt(4 s0^2 s1^2 + sigma^4) - sigma^2)/2, and "
        f"{measured:.3f} of {PARTICLES} particles; optimal transport has {std0 * std1:.3f}, independent ends 0. "
        f"The particles arrive with mean {x[-1].mean():.2f} and standard deviation {x[-1].std():.2f} ({MEAN1:g} and "
        f"{std1:g} are exact)."
    )
    return Scene(_painted(found, x, exact), note)


def _painted(found: GaussianSchrodinger, x: np.ndarray, covariance: float) -> Image.Image:
    stage = _stage()
    ways, ends = stage.figure.axes
    t = np.linspace(0, 1, STEPS + 1)
    mean, s0, s1 = MEAN0 + t * (MEAN1 - MEAN0), float(found.cov0) ** 0.5, float(found.cov1) ** 0.5
    artists = ways.plot(t, x[:, :SHOWN], color=SAMPLED, linewidth=0.9, alpha=0.8)
    for cov, look in ((covariance, {"color": EXACT, "linestyle": "--"}), (0.0, {"color": NOISE, "linestyle": "-."})):
        for side in (-2, 2):
            artists += ways.plot(t, mean + side * band(found, cov, t), **look)
        artists += ends.plot(*ellipse(found, cov), **look)
    artists += ends.plot(x[0], x[-1], "o", color=SAMPLED, markersize=2.6, alpha=0.6)
    line = np.array([-2.5, 2.5])
    artists += ends.plot(MEAN0 + s0 * line, MEAN1 + s1 * line, color=DATA, linewidth=1.4)
    for z in line / 2.5 * 1.5:
        artists += ways.plot([0, 1], [MEAN0 + s0 * z, MEAN1 + s1 * z], color=DATA, linewidth=1.4)
    return stage.paint(artists)


def bridge_explorer() -> Explorer:
    """Sigma from transport to noise, against the closed form."""
    controls = {
        "sigma": ladder("sigma", 0.75, [(f"{v:g}", v) for v in SIGMAS], "Of the Brownian motion, in data units"),
        "std0": number("sd of the data", 0.4, 0.1, 1.2, 0.1, "At t = 0, in data units"),
        "std1": number("sd of the other end", 0.8, 0.1, 1.2, 0.1, "At t = 1, in data units"),
        "seed": same_seed(),
    }
    return Explorer(
        bridge_scene,
        controls,
        caption="With sigma = 0.05 the ways are the straight lines of optimal transport, and the points on the right "
        "lie on a line. Raise sigma: the cloud opens into the ellipse of independent ends, and the ways wander. The "
        "marginals in the middle of the way differ from those of independent ends with the same noise: that is why "
        "the coupling is half of a Schroedinger bridge.",
        alt="Left, sixteen random paths from one Gaussian to the other, with a dashed band of two standard deviations "
        "in closed form and a second band for independent ends. Right, start against end of six hundred paths, with "
        "the exact ellipse, that of independent ends, and the line of optimal transport.",
    )
