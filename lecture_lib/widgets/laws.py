"""One dimension, everything known: the density one asked for, and the samples guidance really gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import EDM, karras_grid
from lecture_lib.errors import RangeError
from lecture_lib.guidance import extrapolate
from lecture_lib.oracles import Gaussian, GaussianMixture, Tilted, guided_moments, guided_ode_variance, tilted_gaussian
from lecture_lib.samplers import DDPM, DPMSolverPP2M, Sampler, last, sample
from lecture_lib.viz import COND, EXACT, GUIDED, UNCOND, Curve, Histogram, density_curves
from lecture_lib.widgets.controls import choice, number
from lecture_lib.widgets.explorer import Explorer, Scene

WINDOW = (-4.0, 5.0)
TOP = 3.5
SAMPLES = 3000
FEW = 0.1  # a few percent
# The geometric mean of the two customary ancestral variances: without bias at w = 1, a few percent low at w = 3.
SDE = DDPM(variance=lambda beta, sigma_t, sigma_s: beta * sigma_s / sigma_t)
WORLDS = ("two Gaussians", "two classes", "three classes")


@dataclass(frozen=True)
class Law:
    """Mean and variance, as they are quoted beside a picture."""

    mean: float
    var: float

    @classmethod
    def of(cls, samples: Tensor) -> Law:
        return cls(float(samples.mean()), float(samples.var()))

    def __str__(self) -> str:
        return f"mean {self.mean:.2f}, variance {self.var:{'.4f' if self.var < 10 else '.4g'}}"


def guided_samples(
    reference: GaussianMixture, main: GaussianMixture, w: float, sampler: Sampler, *, steps: int, seed: int = 0
) -> Float[Tensor, " n"]:
    """What guided sampling with exact denoisers gives: ``SAMPLES`` numbers, from noise level 30 down to data.

    The starting noise is stratified (one quantile each), so the histogram is as smooth as its number of samples allows.
    """
    path = EDM()
    quantiles = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    grid = karras_grid(path, steps, sigma_max=30.0, sigma_min=0.02, rho=20.0)
    denoise = extrapolate(reference.denoise(path), main.denoise(path), w)
    noise = torch.Generator().manual_seed(seed)
    start = 30.0 * torch.special.ndtri(quantiles)[:, None]
    return last(sample(denoise, path, sampler, grid, start, generator=noise))[:, 0]


def world(name: str, mean: float, width: float, base_width: float) -> tuple[GaussianMixture, GaussianMixture]:
    """``p(x)`` and ``p(x|c)`` of a playground; class c is ``N(mean, width^2)`` in each of them."""
    target = Gaussian(mean, width**2).mixture()
    if name == "two Gaussians":
        return Gaussian(0.0, base_width**2).mixture(), target
    others = [-1.0] if name == "two classes" else [-1.0, 2.0]
    k = 1 + len(others)
    means, covs = [[mean], *([m] for m in others)], [width**2, *[base_width**2] * len(others)]
    return GaussianMixture([1.0] * k, means, covs), target


def sharpened(p: GaussianMixture, p_c: GaussianMixture, w: float) -> Tilted | None:
    """``p_w`` on the grid of :class:`Tilted`, or None: there is no such density, or it lies beyond the grid."""
    try:
        return Tilted(p, p_c, w)
    except RangeError:
        return None


def _density(law: GaussianMixture, x: Tensor) -> Tensor:
    return law.log_prob(x[:, None]).exp()


def mixture_scene(world_name: str, w: float, mean: float, width: float, base_width: float) -> Scene:
    """p(x), p(x|c), p_w, and histograms of guided ODE and SDE samples, on one axis with fixed limits."""
    p, p_c = world(world_name, mean, width, base_width)
    x = torch.linspace(*WINDOW, 500, dtype=torch.float64)
    tilted = sharpened(p, p_c, w)
    ode = guided_samples(p, p_c, w, DPMSolverPP2M(), steps=48)
    sde = guided_samples(p, p_c, w, SDE, steps=80)
    curves = [
        Curve(_density(p, x), "p(x), unconditional", UNCOND),
        Curve(_density(p_c, x), "p(x | c), conditional", COND),
    ]
    if tilted is not None:
        law = Law(tilted.mean(), tilted.var())
        curves.append(Curve(tilted.density(x), f"$p_w$ sharpened: {law}", EXACT, dashed=True))
    histograms = [
        Histogram(ode, f"guided ODE: {Law.of(ode)}", GUIDED),
        Histogram(sde, f"guided SDE: {Law.of(sde)}", GUIDED, hollow=True),
    ]
    figure = density_curves(
        x, curves, histograms=histograms, bins=150, top=TOP, title=f"w = {w:g}", legend_place="below"
    )
    variances = float(ode.var()), float(sde.var())
    return Scene(figure, _mixture_note(world_name, w, mean, width, base_width, tilted, variances))


def _mixture_note(
    name: str,
    w: float,
    mean: float,
    width: float,
    base_width: float,
    tilted: Tilted | None,
    variances: tuple[float, float],
) -> str:
    """The closed forms where they exist, and a plain word where p_w does not exist or does not fit."""
    beyond = "" if tilted is not None else f"p_w lies beyond the picture at w = {w:g}. "
    if name != "two Gaussians":  # p holds a share of p_c, so that p_w is at most a multiple of p_c: it always exists
        return beyond + "The histograms are samples with exact scores; for mixtures only p_w has a closed form."
    pair = Gaussian(0.0, base_width**2), Gaussian(mean, width**2)
    ode, sde = guided_ode_variance(*pair, w), guided_moments(*pair, w, stochastic=1.0).var
    words = f"Closed forms: variance of the guided ODE {ode:.4f}, of the guided SDE {sde:.4f}"
    shares = [found / exact for found, exact in zip(variances, (ode, sde), strict=True)]
    if all(abs(share - 1) < FEW for share in shares):
        end = ". The histograms stray from them by a few percent: finite steps, 3000 samples."
    else:  # a runaway, or narrower than the last step resolves
        end = ". The histograms have {:.2g} and {:.2g} times those: finite steps, 3000 samples.".format(*shares)
    try:
        law = tilted_gaussian(*pair, w)
    except RangeError:
        return f"No density p_w exists at w = {w:g}: p^(1-w) p_c^w cannot be normalised. {words}{end}"
    return f"{beyond}{words}, of p_w {law.var:.4f} around {law.mean:.2f}{end}"


def mixture_playground() -> Explorer:
    """Five laws in one picture: which of them does guidance sample?"""
    controls = {
        "world_name": choice("world", WORLDS[0], WORLDS, "What p(x) is made of; class c is always one Gaussian"),
        "w": number("guidance scale w", 3.0, 0.0, 8.0, 0.25, "0 unconditional, 1 plain conditional, above 1 guided"),
        "mean": number("mean of class c", 1.0, -2.0, 3.0, 0.1, "Centre of p(x | c), in data units"),
        "width": number("width of class c", 0.5, 0.2, 1.5, 0.05, "Standard deviation of p(x | c), in data units"),
        "base_width": number("width of the rest", 1.0, 0.2, 2.0, 0.05, "Standard deviation of p(x), or of the others"),
    }
    return Explorer(
        mixture_scene,
        controls,
        caption="Raise w from 1. All three guided laws leave p(x | c), each for a different place: neither histogram "
        "lies under the dashed curve. In the three-class world, watch where the dashed curve walks.",
        alt="Densities p(x), p(x|c) and the sharpened density p_w as lines over one axis, with histograms of samples "
        "from the guided ODE (filled) and the guided SDE (outline).",
    )


def product_scene(w: float, positive: float, negative: float, positive_width: float, negative_width: float) -> Scene:
    """Positive and negative prompt, their product of experts where it exists, and what the sampler gives anyway."""
    plus, minus = Gaussian(positive, positive_width**2), Gaussian(negative, negative_width**2)
    x = torch.linspace(-6.0, 8.0, 600, dtype=torch.float64)
    samples = guided_samples(minus.mixture(), plus.mixture(), w, DPMSolverPP2M(), steps=48)
    curves = [
        Curve(minus.density(x), "negative prompt (takes the place of p(x))", UNCOND),
        Curve(plus.density(x), "positive prompt", COND),
    ]
    try:
        product = tilted_gaussian(minus, plus, w)
        curves.append(
            Curve(product.density(x), f"product of experts: {Law(product.mean, product.var)}", EXACT, dashed=True)
        )
        note = f"The product exists: {Law(product.mean, product.var)}."
    except RangeError as error:
        note = f"No distribution exists: {error}. The sampler returns pictures all the same."
    title = f"w = {w:g}" if len(curves) == 3 else f"w = {w:g}: no such distribution"
    outside = float(((samples < x[0]) | (samples > x[-1])).double().mean())
    if outside >= 0.01:
        title += f"; {outside:.0%} of samples off the axis"
    histogram = Histogram(samples, f"guided ODE: {Law.of(samples)}", GUIDED)
    figure = density_curves(x, curves, histograms=[histogram], bins=150, top=2.0, title=title, legend_place="below")
    return Scene(figure, f"{note} Guided ODE samples: {Law.of(samples)}.")


def negative_prompt() -> Explorer:
    """Pushing away from an unwanted prompt: a product of experts, as long as it can be normalised."""
    controls = {
        "w": number("guidance scale w", 2.0, 0.0, 8.0, 0.25, "1 ignores the negative prompt"),
        "positive": number("wanted, centre", 1.0, -2.0, 3.0, 0.1, "Mean of the positive prompt, in data units"),
        "negative": number("unwanted, centre", -0.5, -2.0, 3.0, 0.1, "Mean of the negative prompt, in data units"),
        "positive_width": number("wanted, width", 0.6, 0.2, 1.5, 0.05, "Standard deviation, in data units"),
        "negative_width": number("unwanted, width", 0.8, 0.2, 1.5, 0.05, "Standard deviation, in data units"),
    }
    return Explorer(
        product_scene,
        controls,
        caption="Make the unwanted prompt narrower than the wanted one, then raise w: at some point no distribution "
        "has the score you are following, and the samples run away. At w = 1 the negative prompt does nothing.",
        alt="Densities of a positive and a negative prompt, the product of experts as a dashed line where it exists, "
        "and a histogram of guided samples.",
    )
