"""Schedules side by side: half log-SNR curves, one scene on its way to noise, and what is left of it at the end."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    Discrete,
    Path,
    RectifiedFlow,
    cosine_table,
    ddpm_linear,
    shift_times,
    stable_diffusion,
    zero_terminal_snr,
)
from lecture_lib.data.shapes import captioned
from lecture_lib.viz import Backdrop, captioned_grid, legend, other, panels, stack, styled
from lecture_lib.widgets.controls import choice, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

PICTURES = {"all black": -1.0, "all white": 1.0}
SCENES = 8
SHOWN = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
WINDOW = (-9.0, 7.0)  # half log-SNR; the curves of zero terminal SNR leave it downwards
_DENSE = torch.linspace(1e-3, 1.0, 400, dtype=torch.float64)


@cache
def schedules() -> dict[str, Path]:
    """Every schedule that the widget offers, by name."""
    tables = {
        "DDPM linear": ddpm_linear(),
        "Stable Diffusion (scaled linear)": stable_diffusion(),
        "cosine": cosine_table(),
        "DDPM linear, zero terminal SNR": zero_terminal_snr(ddpm_linear()),
        "Stable Diffusion, zero terminal SNR": zero_terminal_snr(stable_diffusion()),
        "cosine, zero terminal SNR": zero_terminal_snr(cosine_table()),
    }
    return {name: Discrete(table) for name, table in tables.items()} | {"rectified flow": RectifiedFlow()}


@cache
def pictures() -> dict[str, Float[Tensor, " 3 32 32"]]:
    """Two plain pictures, whose brightness is all there is to them, and a few scenes."""
    plain = {name: torch.full((3, 32, 32), level) for name, level in PICTURES.items()}
    scenes = captioned(SCENES, torch.Generator().manual_seed(0), split="test")
    return plain | dict(zip(scenes.captions, scenes.images, strict=True))


def moments(path: Path, t: Float[Tensor, " n"], kappa: float) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, sigma and half log-SNR at times ``t`` of a path whose noise levels are ``kappa`` times as high."""
    shifted = shift_times(path, t.double(), kappa)
    return path.alpha(shifted), path.sigma(shifted), path.lam(shifted)


@lru_cache(maxsize=64)
def noised(name: str, picture: str, kappa: float, seed: int) -> Float[Tensor, " n 3 32 32"]:
    """The picture at the times ``SHOWN``, always with the same noise."""
    alpha, sigma, _ = moments(schedules()[name], torch.tensor(SHOWN), kappa)
    eps = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed))
    alpha, sigma = (v.float()[:, None, None, None] for v in (alpha, sigma))
    return alpha * pictures()[picture] + sigma * eps


@cache
@styled
def _stage() -> Backdrop:
    """All schedules, thin."""
    figure, ax = panels(size=(8.6, 4.4))
    for k, (name, path) in enumerate(schedules().items()):
        look = other(k) | {"marker": ""}
        ax.plot(_DENSE.numpy(), path.lam(_DENSE).clamp(-1e3, 1e3).numpy(), label=name, linewidth=1.4, **look)
    ax.set(xlim=(0, 1.005), ylim=WINDOW, xlabel="time t (0: data, 1: noise; dimensionless)")
    ax.set_ylabel(r"half log-SNR $\lambda_t=\log(\alpha_t/\sigma_t)$ (dimensionless)")
    ax.set_title("reserved")
    legend(ax, "right")
    figure.canvas.draw()  # the layout is settled with a title in place, then the title goes
    figure.set_layout_engine("none")
    ax.set_title("")
    return Backdrop(figure)


def schedule_scene(schedule: str, kappa: float, picture: str, seed: int) -> Scene:
    """The chosen schedule as a broad line among the others, and the picture on its way along it."""
    stage, index = _stage(), list(schedules()).index(schedule)
    ax = stage.figure.axes[0]
    lam = moments(schedules()[schedule], _DENSE, kappa)[2]
    look = {"color": other(index)["color"], "linewidth": 4.0, "alpha": 0.75}
    artists = ax.plot(_DENSE.numpy(), lam.clamp(-1e3, 1e3).numpy(), **look)
    title = f"{schedule}" + (f", noise levels x {kappa:g}" if kappa != 1 else "")
    artists.append(ax.text(0, 1.02, title, transform=ax.transAxes, fontsize=12, fontweight="bold"))
    curves = stage.paint(artists)
    alpha, _, lam = moments(schedules()[schedule], torch.tensor(SHOWN), kappa)
    words = [f"t = {t:g}\n\u03b1 = {a:.3g}\n\u03bb = {v:.2f}" for t, a, v in zip(SHOWN, alpha, lam, strict=True)]
    words = [text.replace("inf", "\u221e") for text in words]
    films = captioned_grid(noised(schedule, picture, kappa, seed), words, columns=len(SHOWN), scale=3, gap=12)
    return Scene(stack(curves, films), left_over(schedule, picture, kappa))


def left_over(schedule: str, picture: str, kappa: float = 1.0) -> str:
    """What the noisiest input still tells of the picture's mean brightness, against the noise's own mean.

    The mean over d numbers of x_T is ``alpha_T m + sigma_T N(0, 1/d)``.
    """
    x = pictures()[picture]
    alpha, sigma, _ = (float(v) for v in moments(schedules()[schedule], torch.ones(1), kappa))
    mean = float(x.mean())
    words = f"At t = 1: alpha_T = {alpha:.4g}, SNR_T = {(alpha / sigma) ** 2:.3g}. "
    words += f"The picture's mean brightness is {mean:.3f}; "
    if alpha == 0:
        return words + "nothing of it is left: the network starts from what sampling starts from."
    deviations = abs(alpha * mean) / (sigma / x.numel() ** 0.5)
    return words + (
        f"{alpha * mean:+.3g} of it is left, {deviations:.2g} standard deviations of the mean of "
        f"{x.numel()} noise values. Training shows it to the network, sampling starts without it."
    )


def schedule_explorer() -> Explorer:
    """Which schedule ends in pure noise, and what the others leave behind; needs no model."""
    scenes = [(name if len(name) < 50 else f"{name[:48]}...", name) for name in pictures()]
    controls = {
        "schedule": choice("schedule", "Stable Diffusion (scaled linear)", list(schedules()), "The broad line"),
        "kappa": number("resolution shift", 1.0, 0.25, 6.0, 0.25, "All noise levels sigma/alpha times this number"),
        "picture": choice("picture", "all black", scenes, "What is turned into noise"),
        "seed": same_seed(),
    }
    return Explorer(
        schedule_scene,
        controls,
        caption="Compare Stable Diffusion's schedule with its zero-terminal-SNR version at t = 1, for *all black* and "
        "*all white*: the pictures look alike, but the mean brightness is several standard deviations from nothing. "
        "Then move the resolution shift: every curve moves down by log of that number, and more of the way is noise.",
        alt="Half log-SNR of seven schedules against time, the chosen one broad; below, one picture at eight times "
        "from data to noise with alpha and half log-SNR of each.",
    )
