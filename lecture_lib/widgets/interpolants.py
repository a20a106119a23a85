"""I_t = alpha x0 + beta x1 + gamma z on the line: choose the three functions and a process, see what it does to p_t."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib.core import (
    BrownianNoise,
    Interpolant,
    SubVP,
    VPLinear,
    encoding_decoding,
    linear_interpolant,
    no_noise,
    one_sided,
    parabolic_noise,
    sine_noise,
    trigonometric_interpolant,
)
from lecture_lib.core.schedules import TimeFunction
from lecture_lib.errors import RangeError
from lecture_lib.oracles import GaussianBridge, GaussianMixture
from lecture_lib.viz import DATA, EXACT, NOISE, OTHERS, SAMPLED, Backdrop, panels, shades, styled
from lecture_lib.widgets.controls import choice, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

EDGE = 0.002  # this near an end is taken for the end: the slope of sqrt(t (1 - t)) is infinite there
ROWS, SUBSTEPS = 201, 2  # times of the tables, and steps of a process from one to the next
PARTICLES, SHOWN = 1500, 14
_X = np.linspace(-4.5, 4.5, 145)
_WINDOW = 3.0
_SPREAD = OTHERS[1]  # colour, marker and line of gamma

DATA_LAW = GaussianMixture([0.35, 0.65], [[-1.3], [1.1]], [0.06, 0.06])
OTHER_ENDS = {
    "noise N(0, 1)": GaussianMixture([1.0], [[0.0]], [1.0]),
    "two other modes": GaussianMixture([0.5, 0.5], [[-0.4], [1.9]], [0.09, 0.09]),
}
PROCESSES: dict[str, float | None] = {
    "between given ends": None,
    "ODE (epsilon = 0)": 0.0,
    "SDE, epsilon = 0.5": 0.5,
    "SDE, epsilon = 2": 2.0,
}


# What there is to choose ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """``scale`` times a function of time."""

    function: TimeFunction
    scale: float

    def __call__(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        return self.scale * self.function(t)


def _fast_slow(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The straight line at another pace: slow at both ends."""
    return t * t * (3 - 2 * t)


def _slow_fast(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return _fast_slow(1 - t)


WAYS: dict[str, Interpolant] = {
    "straight": linear_interpolant(no_noise),
    "straight, slow at its ends": Interpolant(_slow_fast, _fast_slow, no_noise),
    "trigonometric": trigonometric_interpolant(no_noise),
    "VP linear (DDPM)": one_sided(VPLinear()),
    "sub-VP": one_sided(SubVP()),
    "encoding-decoding": encoding_decoding(),
}
NOISES = {
    "none": lambda a: no_noise,
    "a t (1 - t)": lambda a: Scaled(parabolic_noise, a),
    "a sqrt(t (1 - t))": lambda a: BrownianNoise(a**2),
    "a sin^2(pi t)": lambda a: Scaled(sine_noise, a),
}
_NAMES = {  # the rows of the lecture's table that can be told apart here
    ("straight", "none", "noise N(0, 1)"): "flow matching and rectified flow",
    ("trigonometric", "none", "noise N(0, 1)"): "the trigonometric (cosine) path",
    ("VP linear (DDPM)", "none", "noise N(0, 1)"): "DDPM and the VP SDE",
    ("sub-VP", "none", "noise N(0, 1)"): "the sub-VP SDE",
    ("straight", "a sqrt(t (1 - t))", "two other modes"): "a bridge with independent ends (no Schroedinger bridge)",
    ("encoding-decoding", "a sin^2(pi t)", "two other modes"): "encoding, then decoding",
}


def path_of(way: str, noise: str, a: float) -> Interpolant:
    """The interpolant with this gamma.

    Raises:
        RangeError: nothing would be left of x_t half way.
    """
    if way == "encoding-decoding" and noise == "none":
        raise RangeError("gamma: got none; encoding-decoding loses both ends at t = 1/2, so expected some noise there")
    found = WAYS[way]
    return Interpolant(found.alpha, found.beta, NOISES[noise](a))


# What is exact -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """Of one interpolant between two laws, over times (rows) and places (columns).

    Attributes:
        times: (n,). density, velocity: (n, m). score: (n, m), or None where no noise is left to read it from.
    """

    path: Interpolant
    times: np.ndarray
    density: np.ndarray
    velocity: np.ndarray
    score: np.ndarray | None

    def cdf(self, row: int) -> np.ndarray:
        """``P(x_t <= x)`` at the places of the columns."""
        p = self.density[row]
        mass = np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2)])
        return mass / mass[-1]


@lru_cache(maxsize=48)
def tables(way: str, noise: str, a: float, end: str) -> Tables:
    """Everything of ``oracles.GaussianBridge`` on the lattice."""
    path, bridge = path_of(way, noise, a), GaussianBridge(DATA_LAW, OTHER_ENDS[end])
    times = torch.linspace(EDGE, 1 - EDGE, ROWS, dtype=torch.float64)
    t, x = times.repeat_interleave(len(_X)), torch.from_numpy(_X).repeat(ROWS)[:, None]
    said, score = bridge.denoise(path)(x, t), None
    if noise != "none":
        score = said.score
    elif end == "noise N(0, 1)":  # x1 is white noise itself, and in x_t with weight beta
        score = -said.x1 / path.beta(t)[:, None]
    grids = (bridge.log_prob(x, path, t).exp(), said.velocity, score)
    return Tables(path, times.numpy(), *(g if g is None else g.reshape(ROWS, -1).numpy() for g in grids))


# The processes -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=48)
def particles(way: str, noise: str, a: float, end: str, process: str, seed: int) -> Float[np.ndarray, " rows n"]:
    """``PARTICLES`` of a process at all times of the tables.

    Raises:
        RangeError: an SDE, and no noise from which the score could be read.
    """
    found, generator = tables(way, noise, a, end), torch.Generator().manual_seed(seed)
    x1, x0 = (law.sample(PARTICLES, generator=generator) for law in (OTHER_ENDS[end], DATA_LAW))
    if PROCESSES[process] is None:
        z = torch.randn(PARTICLES, 1, generator=generator, dtype=torch.float64)
        times = torch.from_numpy(found.times)
        rows = [found.path.interpolate(x0, x1, z, t.expand(PARTICLES)) for t in times]
        return torch.stack(rows)[..., 0].numpy()
    return _sampled(found, x1[:, 0].numpy(), PROCESSES[process], np.random.default_rng(seed))


def _sampled(found: Tables, x: np.ndarray, epsilon: float, random: np.random.Generator) -> np.ndarray:
    """``dx = (b - epsilon s) dt + sqrt(2 epsilon) dW`` with t falling from 1 to 0, by Euler and Maruyama."""
    if epsilon > 0 and found.score is None:
        raise RangeError(
            "process: got an SDE with gamma = 0 between two data sets; its score would have to be read from noise in "
            "x_t, so expected some gamma, or noise at the other end"
        )
    drift = found.velocity if epsilon == 0 else found.velocity - epsilon * found.score
    h, rows = (found.times[1] - found.times[0]) / SUBSTEPS, [x]
    for row in range(ROWS - 1, 0, -1):
        for part in range(SUBSTEPS):
            share = part / SUBSTEPS
            x = x - h * np.interp(x, _X, (1 - share) * drift[row] + share * drift[row - 1])
            if epsilon > 0:
                x = x + (2 * epsilon * h) ** 0.5 * random.standard_normal(len(x))
        rows.append(x)
    return np.stack(rows[::-1])


def apart(found: Tables, row: int, x: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance between particles and p_t: the largest gap of their distribution functions."""
    exact, n = np.interp(np.sort(x), _X, found.cdf(row)), len(x)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - exact).max(), (exact - steps[:-1]).max()))


# The picture ---------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, axes = panels(2, 3, size=(10.8, 6.3), width_ratios=(2.2, 1, 1), height_ratios=(3.2, 1))
    (plane, density, speed), (scales, words, rest) = axes
    plane.set(
        xlim=(0, 1), ylim=(-_WINDOW, _WINDOW), ylabel="$x_t$ (data units)", xlabel="time t (0: data, 1: other end)"
    )
    plane.set_title("Marginals $p_t$ and ways")
    plane.grid(visible=False)
    density.set(xlim=(0, 1.25), ylim=(-_WINDOW, _WINDOW), xlabel="density (1 / data unit)", yticklabels=[])
    density.set_title("$p_t$ at time t")
    speed.set(xlim=(-9, 9), ylim=(-_WINDOW, _WINDOW), xlabel="b (data units / time)", yticklabels=[])
    speed.axvline(0, color="#BBBBBB", linewidth=1)
    speed.set_title("velocity b(x, t)")
    scales.set(xlim=(0, 1), ylim=(-0.08, 1.6), xlabel="time t", ylabel="weight")
    looks = {
        r"$\alpha$: of the data $x_0$": {"color": DATA},
        r"$\beta$: of the other end $x_1$": {"color": NOISE, "linestyle": (0, (6, 1))},
        r"$\gamma$: of fresh noise $z$": {"color": _SPREAD[0], "linestyle": _SPREAD[2]},
        f"{SHOWN} of {PARTICLES} particles": {"color": SAMPLED},
        "exact (closed form)": {"color": EXACT, "linestyle": "--"},
        "time t": {"color": SAMPLED, "linewidth": 1},
    }
    handles = [plane.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    for ax in (words, rest):
        ax.axis("off")
    words.legend(handles=handles[:3], loc="center left", bbox_to_anchor=(-0.12, 0.45), frameon=False)
    rest.legend(handles=handles[3:], loc="center left", bbox_to_anchor=(0.02, 0.45), frameon=False)
    return Backdrop(figure)


@styled
def interpolant_scene(way: str, noise: str, a: float, end: str, process: str, t: float, seed: int) -> Scene:
    """Density over time with ways of the process, and at t its particles beside p_t, and the velocity."""
    found, row = tables(way, noise, a, end), round(t * (ROWS - 1))
    x = particles(way, noise, a, end, process, seed)
    gap, chance = apart(found, row, x[row]), 1.36 / PARTICLES**0.5
    alpha, beta, gamma = (
        float(f(torch.tensor([t]).double())) for f in (found.path.alpha, found.path.beta, found.path.gamma)
    )
    named = _NAMES.get((way, noise, end))
    note = (
        f"{f'This is {named}. ' if named else ''}"
        f"At t = {t:g}: alpha = {alpha:.2f}, beta = {beta:.2f}, gamma = {gamma:.2f}. "
        f"{PARTICLES} particles, {process}: mean {x[row].mean():+.2f}, standard deviation {x[row].std():.2f}; their "
        f"distribution function is at most {gap:.3f} from that of p_t (chance alone: below {chance:.3f} in 95 of 100)."
    )
    return Scene(_painted(found, row, x, 0.0 if PROCESSES[process] is None else PROCESSES[process]), note)


def _painted(found: Tables, row: int, x: np.ndarray, epsilon: float) -> Image.Image:
    stage = _stage()
    plane, density, speed, scales = stage.figure.axes[:4]
    t, p, b = found.times[row], found.density[row], found.velocity[row]
    extent = (0, 1, _X[0], _X[-1])
    look = {"cmap": shades(DATA), "vmin": 0, "vmax": 1.3, "interpolation": "bilinear"}
    artists = [plane.imshow(found.density.T**0.6, origin="lower", extent=extent, aspect="auto", **look)]
    plane.set(xlim=(0, 1), ylim=(-_WINDOW, _WINDOW))
    artists += plane.plot(found.times, x[:, :SHOWN], color=SAMPLED, linewidth=0.9, alpha=0.75)
    artists += plane.plot(np.full(SHOWN, t), x[row, :SHOWN], "o", color=SAMPLED, markersize=4)
    artists += [ax.axvline(t, color=SAMPLED, linewidth=1) for ax in (plane, scales)]
    edges = np.linspace(-_WINDOW, _WINDOW, 49)
    counts = np.histogram(x[row], edges)[0] / (x.shape[1] * (edges[1] - edges[0]))
    artists += [density.stairs(counts, edges, orientation="horizontal", fill=True, color=SAMPLED, alpha=0.35)]
    artists += density.plot(p, _X, "--", color=EXACT, linewidth=1.6)
    seen = p > 3e-3
    artists += speed.plot(np.where(seen, b, np.nan), _X, "--", color=EXACT, linewidth=1.6)
    weights = [f(torch.from_numpy(found.times)).numpy() for f in (found.path.alpha, found.path.beta, found.path.gamma)]
    looks = (
        {"color": DATA},
        {"color": NOISE, "linestyle": (0, (6, 1))},
        {"color": _SPREAD[0], "linestyle": _SPREAD[2]},
    )
    for values, look in zip(weights, looks, strict=True):
        artists += scales.plot(found.times, values, **look)
    return stage.paint(artists)


def interpolant_explorer() -> Explorer:
    """The map of methods: pick the way, the noise, the other end and a process."""
    controls = {
        "way": choice("alpha, beta", "straight", list(WAYS), "How the two ends are weighed"),
        "noise": choice("gamma", "a sqrt(t (1 - t))", list(NOISES), "How much fresh noise is on top"),
        "a": number("a, size of gamma", 0.7, 0.1, 1.5, 0.1, "Factor of gamma (none: without effect)"),
        "end": choice("other end, x1", "two other modes", list(OTHER_ENDS), "What stands at t = 1"),
        "process": choice("process", "between given ends", list(PROCESSES), "Who has p_t as marginals"),
        "t": number("time t", 0.3, 0.0, 1.0, 0.02, "0 is data, 1 the other end"),
        "seed": same_seed(),
    }
    return Explorer(
        interpolant_scene,
        controls,
        caption="Take the process 'between given ends', then the ODE, then the SDEs: the ways look nothing alike, and "
        "at every t the particles have the same p_t. Then set gamma to none and the other end to noise: straight is "
        "flow matching, VP is DDPM. 'Straight, slow at its ends' has the pictures of 'straight', at other times. Which "
        "combinations make the ways of the ODE cross from one mode to the other?",
        alt="Left, the marginal densities over time as shades of blue with fourteen particle paths over them; below, "
        "the weights alpha, beta and gamma over time. Right of it, at the chosen time, the exact density as a dashed "
        "line with a histogram of the particles, and the exact velocity.",
    )
