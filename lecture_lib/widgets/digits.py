"""Guidance on digits: the sweep, the interval of noise levels, and the two conventions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from traitlets import link

from lecture_lib import zoo
from lecture_lib.core import Denoise, Denoiser, Prediction, uniform_grid
from lecture_lib.errors import RangeError
from lecture_lib.guidance import Rule, fused, guide, interval, linear
from lecture_lib.samplers import DDIM, DDPM, DPMSolverPP2M, Euler, Heun, Sampler, sample
from lecture_lib.tensors import check_number
from lecture_lib.viz import image_grid
from lecture_lib.widgets.controls import choice, count, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

CLASSES = 10
SAMPLERS: dict[str, Sampler] = {
    "Euler": Euler(),
    "Heun": Heun(),
    "DDIM (Euler's twin here)": DDIM(),  # on the straight path of rectified flow the two are one method
    "DPM-Solver++(2M)": DPMSolverPP2M(),
    "DDPM (adds noise)": DDPM(),
}
ALL = -1  # "all classes", one per column
NONE = -1  # "no negative class": the unconditional branch is the reference
_EVERY = 10  # long runs show themselves after every tenth step


@dataclass(frozen=True)
class Batch:
    """Digits with what they were asked to be and what they cost."""

    images: Float[Tensor, " b 1 8 8"]
    labels: Int[Tensor, " b"]
    nfe: int

    @property
    def right(self) -> int:
        """How many the independent judge reads as asked."""
        return int((zoo.judge().predict(self.images) == self.labels).sum())

    @property
    def outside(self) -> float:
        """Share of pixel values beyond [-1.1, 1.1], where no data lies: the saturation of strong guidance.

        The margin keeps out the background, which is exactly -1 in the data and -1 give or take a little in samples.
        """
        return float((self.images.abs() > 1.1).double().mean())

    def __str__(self) -> str:
        return (
            f"The judge reads {self.right} of {len(self.labels)} as asked; {self.outside:.0%} of the pixel values lie "
            f"outside [-1.1, 1.1]; {self.nfe} network evaluations per digit."
        )


def model() -> Denoiser:
    """The course's class-conditional digit transformer."""
    return zoo.load("digits-dit")


def wanted(label: int) -> Int[Tensor, " b"]:
    """Sixteen of one class, or two rows of all ten."""
    return torch.arange(2 * CLASSES) % CLASSES if label == ALL else torch.full((16,), label)


def starting_noise(seed: int, n: int) -> tuple[Float[Tensor, " n 1 8 8"], torch.Generator]:
    """The noise of a seed, and the generator that goes on with it for stochastic samplers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=generator), generator


@torch.inference_mode()
def drawn(
    denoise: Denoise, labels: Int[Tensor, " b"], *, steps: int, seed: int, sampler: Sampler | None = None
) -> Batch:
    """Digits from any denoiser on the transformer's path, equal steps from pure noise."""
    noise, generator = starting_noise(seed, len(labels))
    path = model().path
    frames = sample(denoise, path, sampler or Euler(), uniform_grid(path, steps), noise, generator=generator)
    final = deque(frames, maxlen=1)[0]
    return Batch(final.x, labels, final.nfe)


def _tiles(batch: Batch, label: int) -> Image.Image:
    """All classes: one column each. One class: two rows of eight, larger."""
    if label == ALL:
        return image_grid(batch.images, columns=CLASSES, scale=7, column_labels=[str(c) for c in range(CLASSES)])
    return image_grid(batch.images, columns=8, scale=8, title=f"class {label}")


# 1. The sweep ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def sweep_scenes(w: float, steps: int, sampler: str, label: int, negative: int, seed: int) -> Iterator[Scene]:
    """Guided digits; runs of more than ten steps show the prediction of clean digits on the way.

    Both branches go through the network in one batch. ``w = 1`` needs one branch only.
    """
    labels = wanted(label)
    reference = None if negative == NONE else torch.full_like(labels, negative)
    denoise = model().given(labels) if w == 1 else fused(model(), reference, labels, linear(w))
    noise, generator = starting_noise(seed, len(labels))
    path = model().path
    for frame in sample(denoise, path, SAMPLERS[sampler], uniform_grid(path, steps), noise, generator=generator):
        batch = Batch(frame.x if frame.step == steps else frame.x0, labels, frame.nfe)
        if frame.step == steps:
            yield Scene(_tiles(batch, label), str(batch), progress=1.0)
        elif frame.step and frame.step % _EVERY == 0:
            yield Scene(_tiles(batch, label), f"Step {frame.step} of {steps}.", progress=frame.step / steps)


def _classes(first: str) -> list[tuple[str, int]]:
    return [(first, -1), *((str(c), c) for c in range(CLASSES))]


def guidance_sweep() -> Explorer:
    """The heart of Lecture 2: one knob, and the pictures change."""
    controls = {
        "w": number("guidance scale w", 2.0, 0.0, 12.0, 0.25, "0 unconditional, 1 plain conditional, above 1 guided"),
        "steps": count("steps", 10, 1, 50, "Sampler steps; each costs two evaluations when guided (Heun: four)"),
        "sampler": choice("sampler", "Euler", list(SAMPLERS), "How the equation is solved"),
        "label": choice("class", ALL, _classes("all, one per column"), "What to draw"),
        "negative": choice("negative class", NONE, _classes("none"), "Takes the place of the unconditional branch"),
        "seed": same_seed(),
    }
    return Explorer(
        sweep_scenes,
        controls,
        caption="Go from w = 0 (any digit) over w = 1 (the class) to w = 3, then on to 12: strokes turn "
        "hard, then unlike any handwriting. Same seed, same noise, so only guidance moves.",
        alt="A grid of generated 8 by 8 digits, one class per column.",
    )


# 2. The interval ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def reference_row(w: float, steps: int, seed: int) -> Batch:
    """One digit of each class, guided by ``w`` at every noise level; remembered."""
    labels = torch.arange(CLASSES)
    denoise = model().given(labels) if w == 1 else fused(model(), None, labels, linear(w))
    return drawn(denoise, labels, steps=steps, seed=seed)


def compared(rows: dict[str, Batch]) -> Scene:
    """Rows of ten digits under one another, each with its bill and the judge's verdict."""
    x = torch.cat([batch.images for batch in rows.values()])
    labels = [f"{name}\n{b.nfe} NFE, judge {b.right}/{len(b.labels)}" for name, b in rows.items()]
    columns = [str(c) for c in range(CLASSES)]
    saturated = "; ".join(f"{name.replace(chr(10), ', ')} {batch.outside:.0%}" for name, batch in rows.items())
    note = f"Share of pixel values outside [-1.1, 1.1]: {saturated}."
    return Scene(image_grid(x, columns=CLASSES, scale=7, row_labels=labels, column_labels=columns), note)


def level(t: float) -> float:
    """Noise level ``sigma/alpha`` at time t on the transformer's path; infinite at pure noise."""
    lam = model().path.lam(torch.tensor([t], dtype=torch.float64))
    return float(torch.exp(-lam))


def interval_scene(w: float, low: float, high: float, steps: int, seed: int) -> Scene:
    """Plain, guided inside (low, high] only, guided everywhere: same noise in each column.

    Raises:
        RangeError: ``low >= high``.
    """
    if not low < high:
        raise RangeError(f"low: got t = {low:g}, expected a time below high = {high:g}")
    labels = torch.arange(CLASSES)
    everywhere, plain = fused(model(), None, labels, linear(w)), model().given(labels)
    limited = interval(model().path, everywhere, plain, level(low), level(high))
    scene = compared(
        {
            "w = 1": reference_row(1.0, steps, seed),
            f"w = {w:g} for t in ({low:g}, {high:g}]": drawn(limited, labels, steps=steps, seed=seed),
            f"w = {w:g} always": reference_row(w, steps, seed),
        }
    )
    levels = f"Noise levels sigma/alpha from {level(low):.3g} to {level(high):.3g}. "
    return Scene(scene.picture, levels + scene.note)


def interval_explorer() -> Explorer:
    """Guidance only where it helps: between two noise levels."""
    controls = {
        "w": number("guidance scale w", 4.0, 0.0, 12.0, 0.25, "Scale inside the interval; outside it is 1"),
        "low": number("from time t", 0.2, 0.0, 0.95, 0.05, "Below this time (almost clean) no guidance"),
        "high": number("to time t", 0.8, 0.05, 1.0, 0.05, "Above this time (almost noise) no guidance"),
        "steps": count("steps", 16, 4, 40, "Sampler steps (Euler)"),
        "seed": same_seed(),
    }
    return Explorer(
        interval_scene,
        controls,
        caption="The middle row pays less than the last one. Move the two times: which part of the way decides the "
        "class, and which part only saturates?",
        alt="Three rows of ten digits with the same noise per column: plain, guided in an interval, guided everywhere.",
    )


# 3. The two conventions ---------------------------------------------------------------------------------------------


def other_convention(extra: float) -> Rule:
    """The rule ``(1 + w') main - w' reference``, written as the papers do that count from the conditional model."""
    check_number("extra", extra)

    def rule(reference: Prediction, main: Prediction) -> Prediction:
        x0, eps = ((1 + extra) * m - extra * r for m, r in ((main.x0, reference.x0), (main.eps, reference.eps)))
        return replace(main, x0=x0, eps=eps, nfe=reference.nfe + main.nfe)

    return rule


def conventions_scene(w: float, extra: float, steps: int, seed: int) -> Scene:
    """The same guidance written twice, and the same number typed into the wrong formula."""
    labels, both = torch.arange(CLASSES), (model().given(None), model().given(torch.arange(CLASSES)))
    theirs = drawn(guide(*both, other_convention(extra)), labels, steps=steps, seed=seed)
    trap = drawn(guide(*both, other_convention(w)), labels, steps=steps, seed=seed)
    ours = reference_row(w, steps, seed)
    rows = {f"w = {w:g}, this course": ours, f"w' = {extra:g}, papers": theirs, f"w' = {w:g} by mistake": trap}
    gap, wrong = (float((batch.images - ours.images).abs().max()) for batch in (theirs, trap))
    note = f"Largest pixel difference from the first row: second row {gap:.1e}, third row {wrong:.2f}. "
    scene = compared(rows)
    return Scene(scene.picture, note + scene.note)


def two_conventions() -> Explorer:
    """Two linked sliders, one picture; and what happens when a number travels without its convention."""
    controls = {
        "w": number("w, this course", 3.0, 0.0, 8.0, 0.5, "u + w (c - u): 1 is the plain conditional model"),
        "extra": number(
            "w' = w - 1, papers", 2.0, -1.0, 7.0, 0.5, "(1 + w') c - w' u: 0 is the plain conditional model"
        ),
        "steps": count("steps", 10, 4, 40, "Sampler steps (Euler)"),
        "seed": same_seed(),
    }
    link((controls["w"], "value"), (controls["extra"], "value"), transform=(lambda w: w - 1.0, lambda e: e + 1.0))
    return Explorer(
        conventions_scene,
        controls,
        caption="Move either slider, the other follows. Rows one and two are one picture in two notations. Row three "
        "is what you get when a number in the one convention is typed into a formula of the other.",
        alt="Three rows of ten digits: scale w, the equal scale w' = w - 1, and w typed as w' by mistake.",
    )
