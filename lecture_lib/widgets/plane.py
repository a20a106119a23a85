"""Two dimensions: the parallelogram of scores, at any place and any noise level."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from lecture_lib.core import VPCosine
from lecture_lib.oracles import GaussianMixture
from lecture_lib.viz import COND, UNCOND, density_contours, panels, parallelogram, styled
from lecture_lib.widgets.controls import choice, number
from lecture_lib.widgets.explorer import Explorer, Scene

EXTENT = (-3.5, 3.5, -3.2, 3.2)
CLASSES = (("c = 0, lower left", 0), ("c = 1, lower right", 1), ("c = 2, top", 2))


@cache
def three_classes() -> GaussianMixture:
    """Three round classes on a triangle, one Gaussian each, labelled 0, 1, 2."""
    means = [[-1.3, -0.8], [1.3, -0.8], [0.0, 1.4]]
    return GaussianMixture([1.0, 1.0, 1.0], means, [0.20, 0.20, 0.20], [0, 1, 2])


def scaled_scores(label: int, point: tuple[float, float], t: float) -> tuple[np.ndarray, np.ndarray]:
    """``sigma_t * score`` at ``point``, unconditional and given the class: ``-eps``, the size of data at any t."""
    path, law = VPCosine(), three_classes()
    x, time = torch.tensor([point], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)
    return tuple(-d.denoise(path)(x, time).eps[0].numpy() for d in (law, law.given(label)))


@styled
def parallelogram_scene(label: int, x: float, y: float, w: float, t: float) -> Scene:
    """Contours of p_t(x) and p_t(x|c) with the three arrows at one point."""
    path, law, time = VPCosine(), three_classes(), torch.tensor([t], dtype=torch.float64)
    figure, ax = panels(size=(5.8, 6.3))
    for density, colour, name in ((law, UNCOND, "$p_t(x)$"), (law.given(label), COND, "$p_t(x\\,|\\,c)$")):

        def log_density(points: np.ndarray, density: GaussianMixture = density) -> torch.Tensor:
            return density.log_prob(torch.from_numpy(points), path, time.expand(len(points)))

        density_contours(
            log_density, EXTENT, colour=colour, label=name, filled=True, levels=(0.05, 0.3, 0.7), points=70, ax=ax
        )
    uncond, cond = scaled_scores(label, (x, y), t)
    arrows = "$\\sigma_t\\,\\nabla\\log p_t$"
    parallelogram((x, y), uncond, cond, w, length=0.6, quantity=arrows, legend_place="below", ax=ax)
    ax.set_title(f"t = {t:g}, w = {w:g}")
    guided = uncond + w * (cond - uncond)
    sizes = [float(np.linalg.norm(v)) for v in (uncond, cond, guided)]
    note = (
        "Arrow lengths (sigma_t times score, dimensionless): unconditional {:.2f}, conditional {:.2f}, guided {:.2f}."
    )
    return Scene(figure, note.format(*sizes))


def parallelogram_explorer() -> Explorer:
    """Drag a point over the plane and pull the lever w."""
    controls = {
        "label": choice("class c", 2, CLASSES, "Which class the conditional score belongs to"),
        "x": number("point, across", 1.6, -3.0, 3.0, 0.1, "First coordinate of the point, in data units"),
        "y": number("point, up", 0.9, -3.0, 3.0, 0.1, "Second coordinate of the point, in data units"),
        "w": number("guidance scale w", 3.0, -1.0, 8.0, 0.25, "How far along the dotted line: 0 orange, 1 green"),
        "t": number("time t", 0.35, 0.05, 1.0, 0.05, "Noise level on the cosine path: 0 is data, 1 is noise"),
    }
    return Explorer(
        parallelogram_scene,
        controls,
        caption="The vermilion tip slides along the dotted line as w grows. Go to a place where the green and orange "
        "arrows agree (deep inside the class, or t near 1): there guidance has nothing to pull on.",
        alt="Contours of the unconditional and the conditional density with three arrows at one point: "
        "unconditional, conditional and guided score; the tips lie on one line.",
    )
