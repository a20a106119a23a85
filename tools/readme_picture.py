"""Draws docs/guidance.png, the picture of the README: ``python tools/readme_picture.py``."""

from pathlib import Path

import torch

from lecture_lib import viz, zoo
from lecture_lib.core import VPCosine, logsnr_grid, uniform_grid
from lecture_lib.guidance import extrapolate, fused, linear
from lecture_lib.oracles import Gaussian, tilted_gaussian
from lecture_lib.samplers import EulerMaruyama, Heun, last, sample


def digits() -> object:
    """Ten classes, five guidance scales, the same ten noises."""
    scales = [0.0, 1.0, 2.0, 4.0, 8.0]
    model, labels = zoo.load("digits-dit"), torch.arange(10).repeat(len(scales))
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(7)).repeat(len(scales), 1, 1, 1)
    guided = fused(model, None, labels, linear(torch.tensor(scales).repeat_interleave(10)))
    x = last(sample(guided, model.path, Heun(), uniform_grid(model.path, 10), noise))
    rows = [f"w = {w:g}" for w in scales]
    return viz.image_grid(
        x,
        columns=10,
        scale=7,
        row_labels=rows,
        column_labels=list("0123456789"),
        title="Turn one knob, and digits get sharper ...",
    )


def laws() -> object:
    """What the sharpened density is, and what two guided samplers draw instead."""
    p, p_c, w, path = Gaussian(0.0, 1.0), Gaussian(1.0, 0.25), 3.0, VPCosine()
    denoise = extrapolate(p.mixture().denoise(path), p_c.mixture().denoise(path), w)
    grid = logsnr_grid(path, 200, start=0.9999, end=1e-4)
    noise = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ode = last(sample(denoise, path, Heun(), grid, noise))
    sde = last(sample(denoise, path, EulerMaruyama(), grid, noise, generator=torch.Generator().manual_seed(1)))
    x = torch.linspace(-2.5, 3, 600, dtype=torch.float64)
    curves = [
        viz.Curve(p.density(x), "p(x)", viz.UNCOND),
        viz.Curve(p_c.density(x), "p(x|c)", viz.COND),
        viz.Curve(tilted_gaussian(p, p_c, w).density(x), "the density you are told, $p_w$", viz.EXACT, dashed=True),
    ]
    histograms = [
        viz.Histogram(sde, "what the guided SDE draws", viz.GUIDED, hollow=True),
        viz.Histogram(ode, "what the guided ODE draws", viz.GUIDED),
    ]
    title = "... but which distribution is that? (w = 3)"
    return viz.density_curves(x, curves, histograms=histograms, bins=150, title=title)


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "guidance.png"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(viz.png_bytes(viz.stack(digits(), viz.as_picture(laws()), sideways=True)))
    print(target, target.stat().st_size, "bytes")
