"""I_t = alpha x0 + beta x1 + gamma z on the line: choose the three functions and a process, see what it does to p_t."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image

from lecture_lib.viz import DATA, EXACT, NOISE, OTHERS, SAMPLED, Backdrop, panels, shades, styled
from lecture_lib.widgets.controls import choice, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.ways import (
    NAMES,
    NOISES,
    OTHER_ENDS,
    PARTICLES,
    PLACES,
    PROCESSES,
    ROWS,
    WAYS,
    Tables,
    apart,
    particles,
    tables,
)

SHOWN = 14  # of the particles, as lines
_WINDOW = 3.0
_SPREAD = OTHERS[1]  # colour, marker and line of gamma


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
    named = NAMES.get((way, noise, end))
    note = (
        f"{f'This is {named}. ' if named else ''}"
        f"At t = {t:g}: alpha = {alpha:.2f}, beta = {beta:.2f}, gamma = {gamma:.2f}. "
        f"{PARTICLES} particles, {process}: mean {x[row].mean():+.2f}, standard deviation {x[row].std():.2f}; their "
        f"distribution function is at most {gap:.3f} from that of p_t (chance alone: below {chance:.3f} in 95 of 100)."
    )
    return Scene(_painted(found, row, x), note)


def _painted(found: Tables, row: int, x: np.ndarray) -> Image.Image:
    stage = _stage()
    plane, density, speed, scales = stage.figure.axes[:4]
    t, p, b = found.times[row], found.density[row], found.velocity[row]
    extent = (0, 1, PLACES[0], PLACES[-1])
    look = {"cmap": shades(DATA), "vmin": 0, "vmax": 1.3, "interpolation": "bilinear"}
    artists = [plane.imshow(found.density.T**0.6, origin="lower", extent=extent, aspect="auto", **look)]
    plane.set(xlim=(0, 1), ylim=(-_WINDOW, _WINDOW))
    artists += plane.plot(found.times, x[:, :SHOWN], color=SAMPLED, linewidth=0.9, alpha=0.75)
    artists += plane.plot(np.full(SHOWN, t), x[row, :SHOWN], "o", color=SAMPLED, markersize=4)
    artists += [ax.axvline(t, color=SAMPLED, linewidth=1) for ax in (plane, scales)]
    edges = np.linspace(-_WINDOW, _WINDOW, 49)
    counts = np.histogram(x[row], edges)[0] / (x.shape[1] * (edges[1] - edges[0]))
    artists += [density.stairs(counts, edges, orientation="horizontal", fill=True, color=SAMPLED, alpha=0.35)]
    artists += density.plot(p, PLACES, "--", color=EXACT, linewidth=1.6)
    seen = p > 3e-3
    artists += speed.plot(np.where(seen, b, np.nan), PLACES, "--", color=EXACT, linewidth=1.6)
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
