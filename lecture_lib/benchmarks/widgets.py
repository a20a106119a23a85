"""From a slider's new value to the new picture: the real widgets, drawing and PNG included, on the CPU, no browser."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from lecture_lib.tooling.benching import Measurement

BAR = 150.0  # milliseconds, median
PATIENCE = 1000.0  # for the widgets of text to image
SCALES = [2.25 + 0.25 * index for index in range(20)]  # each one new, so that no picture comes from memory
SHARES = [0.01 + 0.05 * index for index in range(12)]
WARM_UP = 3


def measure() -> Iterator[Measurement]:
    """The sweep of Lecture 2 with each of its samplers, sixteen digits of one class, ten steps; then the other widgets.

    The bar is for samplers with one evaluation per step (two with guidance), which the widget starts with.
    """
    from lecture_lib.widgets import guidance_sweep

    sweep = guidance_sweep()
    for sampler in sweep.controls["sampler"].options:
        sweep.set(w=SCALES[0] - 0.25, label=7, steps=10, sampler=sampler)
        bar = BAR if sampler != "Heun" else None
        yield Measurement(f"sweep: 16 digits, 10 {sampler} steps", _median(sweep, "w", SCALES), "ms", bar)
    yield from _others()


def _others() -> Iterator[Measurement]:
    """Every other widget of the lecture, moved by the slider that matters most; for information."""
    from lecture_lib import widgets

    yield Measurement("interval: a new row of 10, 16 steps", _median(widgets.interval_explorer(), "low", SHARES), "ms")
    yield Measurement(
        "repairs: a new row of 10, 16 steps", _median(widgets.repairs_explorer(), "strength", SHARES), "ms"
    )
    conventions = widgets.two_conventions()
    yield Measurement(
        "conventions: 3 new rows of 10", _median(conventions, "w", [0.25 + 0.5 * k for k in range(8)]), "ms"
    )
    yield Measurement("mixture playground: 2 x 3000 samples", _median(widgets.mixture_playground(), "w", SCALES), "ms")
    yield Measurement("negative prompt: 3000 samples", _median(widgets.negative_prompt(), "w", SCALES), "ms")
    yield Measurement("parallelogram", _median(widgets.parallelogram_explorer(), "w", SCALES), "ms")
    yield from _samplers()
    yield from _latent_diffusion()
    yield from _transformers()
    yield from _fast_generation()
    yield from _interpolants()
    yield from _families()


def _samplers() -> Iterator[Measurement]:
    """The widgets of sampling in the plane: a walk through one run, new runs, and new lines of errors."""
    from lecture_lib import widgets

    films, few = widgets.trajectories_explorer(), list(range(1, 20))
    films.set(steps=50)
    yield Measurement("trajectories: a step of the same run", _median(films, "step", list(range(10, 30))), "ms", BAR)
    films.set(step=5, steps=10)
    yield Measurement("trajectories: another seed, 10 steps", _median(films, "seed", few), "ms", BAR)
    names = list(films.controls["sampler"].options)
    yield Measurement("trajectories: another sampler, 10 steps", _median(films, "sampler", names), "ms", BAR)
    errors = widgets.error_nfe_explorer()
    yield Measurement("error against NFE: a new line", _median(errors, "more", errors.controls["more"].options), "ms")
    errors.set(pp3m=True)
    lines = [_milliseconds(errors, name, not errors.values[name]) for name in ("ddim", "heun", "pp2m", "unipc3")]
    yield Measurement("error against NFE: a known line on or off", statistics.median(lines), "ms", BAR)


def _latent_diffusion() -> Iterator[Measurement]:
    """The widgets of text to image: new pictures, and the pictures that need no sampling."""
    from lecture_lib import widgets, zoo
    from lecture_lib.nets import add_lora

    box, seeds = widgets.prompt_box(), list(range(1, 12))
    yield Measurement("prompt box: 4 new pictures, 10 steps", _median(box, "seed", seeds), "ms", PATIENCE)
    latents = widgets.latent_explorer()
    amounts = [0.5 * k for k in range(-8, 4)]
    yield Measurement("latents: another change to one number", _median(latents, "amount", amounts), "ms", BAR)
    yield Measurement("latents: another scene", _median(latents, "scene", seeds), "ms", PATIENCE)
    yield Measurement("schedules: other noise", _median(widgets.schedule_explorer(), "seed", seeds), "ms", BAR)
    attention = widgets.attention_explorer()
    yield Measurement("attention: another step", _median(attention, "step", list(range(1, 11))), "ms", BAR)
    yield Measurement("attention: three new pictures", _median(attention, "seed", seeds), "ms")
    model = copy.deepcopy(zoo.text_to_image())
    adapter = add_lora(model.denoiser.network, 4, generator=torch.Generator().manual_seed(0))
    strengths = [0.05 + 0.1 * k for k in range(10)]
    lora = widgets.lora_strength(model, {"adapter": adapter})
    yield Measurement("adapter: 4 new pictures, every layer", _median(lora, "adapter", strengths), "ms")


def _transformers() -> Iterator[Measurement]:
    """The widgets of the transformers: tables and curves, and new pictures where there are any."""
    from lecture_lib import widgets

    seeds = list(range(1, 12))
    patches = widgets.patch_explorer()
    names, values = ("network", "patch", "side"), (("S", 2, 64), ("B", 8, 128), ("L", 4, 32))
    walk = [(name, value) for step in values for name, value in zip(names, step, strict=True)]
    bills = [_milliseconds(patches, name, value) for name, value in walk]
    yield Measurement("patches: another bill", statistics.median(bills), "ms", PATIENCE)
    yield Measurement("positions: another row", _median(widgets.position_explorer(), "row", seeds[:7]), "ms", BAR)
    told = widgets.modulation_explorer()
    yield Measurement("modulations: another time", _median(told, "t", [0.05 * k for k in range(20)]), "ms", BAR)
    laws = widgets.scaling_explorer()
    far = [_milliseconds(laws, "reach", reach) for reach in (1, 100, 1000)]
    yield Measurement("scaling: as far as that", statistics.median(far), "ms", PATIENCE)
    off = [_milliseconds(laws, name, not laws.values[name]) for name in ("budget5", "budget1", "budget2")]
    yield Measurement("scaling: other budgets, 60 resamples", statistics.median(off), "ms")
    joint = widgets.quadrant_explorer()
    yield Measurement("quadrants: another step", _median(joint, "step", list(range(1, 11))), "ms", BAR)
    yield Measurement("quadrants: a new picture", _median(joint, "seed", seeds), "ms", PATIENCE)
    strengths = [0.25 * k for k in range(-8, 8)]
    slider = widgets.concept_slider()
    yield Measurement("concepts: 12 new pictures", _median(slider, "strength", strengths), "ms", PATIENCE)


def _fast_generation() -> Iterator[Measurement]:
    """The widgets of few steps: one trajectory, one curriculum, one sweep over steps, one budget."""
    from lecture_lib import widgets

    flow = widgets.flow_map_explorer()
    levels = flow.controls["level"]._options_full
    yield Measurement("flow maps: another point", _median(flow, "level", [v for _, v in levels][:16]), "ms", BAR)
    students = list(flow.controls["student"].options)
    yield Measurement("flow maps: another student", _median(flow, "student", students), "ms", BAR)
    curricula = widgets.curriculum_explorer()
    yield Measurement("curricula: another share", _median(curricula, "done", [0.02 * k for k in range(20)]), "ms", BAR)
    sweep = widgets.steps_explorer()
    yield Measurement("steps: a known sweep, other steps", _median(sweep, "steps", [1, 2, 3, 4, 6, 8, 12]), "ms", BAR)
    yield Measurement("steps: 7 new clouds of 3000", _median(sweep, "seed", list(range(1, 8))), "ms", PATIENCE)
    front = widgets.front_explorer()
    yield Measurement("front: another budget", _median(front, "place", list(range(0, 80, 5))), "ms")


def _interpolants() -> Iterator[Measurement]:
    """The widgets of interpolants, couplings, energies and bridges: another place in one picture, and new particles."""
    from lecture_lib import widgets

    seeds = list(range(1, 12))
    ways = widgets.interpolant_explorer()
    yield Measurement("interpolants: another time", _median(ways, "t", [0.02 * k for k in range(12)]), "ms", BAR)
    ways.set(process="SDE, epsilon = 2")
    yield Measurement("interpolants: 1500 new SDE paths", _median(ways, "seed", seeds), "ms", BAR)
    sizes = [0.1 * k for k in range(1, 16)]
    yield Measurement("interpolants: another gamma, all new", _median(ways, "a", sizes), "ms", BAR)
    pairs = widgets.coupling_explorer()
    yield Measurement("couplings: another batch", _median(pairs, "batch", [1, 2, 4, 16, 32, 64]), "ms", BAR)
    yield Measurement("couplings: new points, 18 couplings", _median(pairs, "seed", seeds), "ms", BAR)
    land = widgets.energy_landscape()
    yield Measurement("energies: 50 new steps of 500", _median(land, "seed", seeds), "ms", BAR)
    yield Measurement(
        "energies: other temperature", _median(land, "temperature", [0.1, 0.25, 0.5, 2.0, 4.0]), "ms", BAR
    )
    bridge = widgets.bridge_explorer()
    yield Measurement("bridge: 600 new paths", _median(bridge, "seed", seeds), "ms", BAR)


def _families() -> Iterator[Measurement]:
    """The widgets of the zoo's families: the first picture is on record, everything else is drawn."""
    from lecture_lib import widgets

    began = time.perf_counter()
    gallery = widgets.family_gallery()
    yield Measurement("gallery: all families, on record", 1000 * (time.perf_counter() - began), "ms", PATIENCE)
    one = [_milliseconds(gallery, "family", name) for name in gallery.controls["family"].options[1:]]
    yield Measurement("gallery: 50 digits of a family, median", statistics.median(one), "ms")
    plane, places = widgets.latent_plane_explorer(), [0.25 * k for k in range(-12, 0)]
    yield Measurement("latent plane: another point", _median(plane, "u", places), "ms", BAR)
    yield Measurement("latent plane: another digit", _median(plane, "label", list(range(10))), "ms", BAR)


def _median(explorer: Any, name: str, values: list[float]) -> float:
    """Median milliseconds over the values not yet drawn, the first few left out: they also pay for lazy imports."""
    fresh = [value for value in values if value != explorer.values[name]]
    return statistics.median([_milliseconds(explorer, name, value) for value in fresh][WARM_UP:])


def _milliseconds(explorer: Any, name: str, value: float) -> float:
    draws = explorer.draws
    start = time.perf_counter()
    explorer.set(**{name: value})
    elapsed = 1000 * (time.perf_counter() - start)
    assert explorer.draws > draws, "a picture from memory measures nothing"
    return elapsed
