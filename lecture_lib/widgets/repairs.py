"""Every repair of strong guidance on the same noise: plain, guided, repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.core import Denoise
from lecture_lib.guidance import extrapolate, fused, interval, linear, plus_plus, projected, rescaled, thresholded
from lecture_lib.samplers import DDIM
from lecture_lib.widgets.controls import choice, count, number, same_seed
from lecture_lib.widgets.digits import CLASSES, compared, drawn, level, model, reference_row
from lecture_lib.widgets.explorer import Explorer, Scene


@dataclass(frozen=True)
class Repair:
    """One repair with one parameter.

    Attributes:
        parameter: its name in the paper. low, high: what a strength of 0 and of 1 mean for it.
        build: ``(labels, w, parameter) -> Denoise``.
    """

    parameter: str
    low: float
    high: float
    build: Callable[[Tensor, float, float], Denoise]

    def value(self, strength: float) -> float:
        """The parameter at a strength in [0, 1]."""
        return self.low + strength * (self.high - self.low)


def _limited(labels: Tensor, w: float, high: float) -> Denoise:
    everywhere = fused(model(), None, labels, linear(w))
    return interval(model().path, everywhere, model().given(labels), 0.0, level(high))


def _autoguided(labels: Tensor, w: float, scale: float) -> Denoise:
    """The weaker model, given the same class, is what to move away from; ``scale`` is a share of w - 1."""
    return extrapolate(zoo.load("digits-dit-weak").given(labels), model().given(labels), 1.0 + scale * (w - 1.0))


REPAIRS: dict[str, Repair] = {
    "rescale": Repair("phi", 0.0, 1.0, lambda c, w, v: fused(model(), None, c, rescaled(w, v))),
    "dynamic threshold": Repair(
        "percentile", 1.0, 0.8, lambda c, w, v: thresholded(fused(model(), None, c, linear(w)), v)
    ),
    "limited interval": Repair("guided up to t", 1.0, 0.3, _limited),
    "projected (APG)": Repair("eta", 1.0, 0.0, lambda c, w, v: fused(model(), None, c, projected(w, v))),
    "CFG++": Repair("lambda", 0.0, 1.0, lambda c, w, v: fused(model(), None, c, plus_plus(v))),
    "autoguidance": Repair("share of w - 1", 0.0, 1.0, _autoguided),
}


def repair_scene(repair: str, strength: float, w: float, steps: int, seed: int) -> Scene:
    """Three rows on the same noise: w = 1, guided by w, guided by w and repaired; DDIM throughout."""
    chosen = REPAIRS[repair]
    value, labels = chosen.value(strength), torch.arange(CLASSES)
    repaired = drawn(chosen.build(labels, w, value), labels, steps=steps, seed=seed, sampler=DDIM())
    name = f"{repair}\n{chosen.parameter} = {value:.2g}"
    guided = f"w = {w:g}" if w != 1 else "w = 1, guided"  # two rows of one name would be one row
    rows = {"w = 1": reference_row(1.0, steps, seed), guided: reference_row(w, steps, seed), name: repaired}
    scene = compared(rows)
    extra = " CFG++ replaces w by lambda in [0, 1]." if repair == "CFG++" else ""
    return Scene(scene.picture, scene.note + extra)


def repairs_explorer() -> Explorer:
    """Pick a repair, turn it up, compare with the same noise."""
    none = "0 leaves guidance as it is (threshold: divides by the largest value; CFG++, autoguidance: no guidance)"
    controls = {
        "repair": choice("repair", "rescale", list(REPAIRS), "What mends the guided prediction"),
        "strength": number("strength", 0.7, 0.0, 1.0, 0.05, none),
        "w": number("guidance scale w", 6.0, 1.0, 12.0, 0.5, "Strong on purpose, so that there is something to mend"),
        "steps": count("steps", 16, 4, 40, "DDIM steps"),
        "seed": same_seed(),
    }
    return Explorer(
        repair_scene,
        controls,
        caption="Row two is too much guidance. Which repair brings back the greys of row one without losing the class? "
        "Watch the share of pixel values outside [-1.1, 1.1] below the picture.",
        alt="Three rows of ten digits with the same noise per column: plain, strongly guided, guided and repaired.",
    )
