"""How many steps a student of the ring wants: its samples and their distance to the data, step count by step count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.metrics import sliced_wasserstein
from lecture_lib.viz import DATA, EXACT, STUDENT, Backdrop, density_contours, panels, styled
from lecture_lib.widgets.controls import choice, ladder, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.zoo.plane import PlaneRecipe, ring
from lecture_lib.zoo.recipes import RECIPES

POINTS = 3000
STEPS = (1, 2, 3, 4, 6, 8, 12)
_WINDOW = (-1.6, 1.6, -1.6, 1.6)
_PATIENCE = 0.1  # seconds of work after which what is ready is shown

Draw = Callable[[int, int, torch.Generator], Tensor]
"""``(n, steps, generator) -> (n, 2)``."""


def ring_draws() -> dict[str, Draw]:
    """Every model of the ring in the zoo, by its own sampling rule."""

    def bound(name: str, recipe: PlaneRecipe) -> Draw:
        return lambda n, steps, generator: recipe.draw(zoo.load(name), n, steps=steps, generator=generator)

    return {name: bound(name, recipe) for name, recipe in RECIPES.items() if isinstance(recipe, PlaneRecipe)}


class Sweep:
    """Samples and distances by student, number of steps and seed, remembered."""

    def __init__(self, draws: Mapping[str, Draw]) -> None:
        self.draws = dict(draws)
        self.cloud = lru_cache(maxsize=256)(self._cloud)

    def _cloud(self, student: str, steps: int, seed: int) -> tuple[Float[Tensor, " n 2"], float]:
        with torch.no_grad():
            points = self.draws[student](POINTS, steps, torch.Generator().manual_seed(seed))
        return points, apart(points)

    def scenes(self, student: str, steps: int, seed: int) -> Iterator[Scene]:
        """The samples at once; the distances at all other numbers of steps as they get ready."""
        line, since = {steps: self.cloud(student, steps, seed)[1]}, time.perf_counter()
        for k in STEPS:
            line[k] = self.cloud(student, k, seed)[1]
            if k < STEPS[-1] and time.perf_counter() - since > _PATIENCE:
                yield self._scene(student, steps, seed, line)
                since = time.perf_counter()
        yield self._scene(student, steps, seed, line)

    def _scene(self, student: str, steps: int, seed: int, line: Mapping[int, float]) -> Scene:
        points, now = self.cloud(student, steps, seed)
        best = min(line, key=line.get)
        note = (
            f"{student}, {steps} step{'s' * (steps > 1)}: sliced Wasserstein distance {now:.3f} data units from "
            f"{POINTS} points to as many of the ring; between two draws of the ring itself, {floor():.3f}. "
            f"Of the {len(line)} step counts measured, {best} is best with {line[best]:.3f}."
        )
        return Scene(_painted(points, steps, dict(sorted(line.items()))), note, progress=len(line) / len(STEPS))


@cache
def _reference(which: int = 0) -> Float[Tensor, " n 2"]:
    return ring().sample(POINTS, generator=torch.Generator().manual_seed(10_000 + which))


def apart(points: Float[Tensor, " n 2"]) -> float:
    """Sliced Wasserstein distance to the ring; the same data and directions every time."""
    generator = torch.Generator().manual_seed(0)
    return sliced_wasserstein(points, _reference(), directions=48, generator=generator) ** 0.5


@cache
def floor() -> float:
    """What chance alone does to it: the root mean square of eight draws of the ring."""
    return (sum(apart(_reference(k)) ** 2 for k in range(1, 9)) / 8) ** 0.5


# The picture --------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, (plane, curve) = panels(1, 2, size=(10.0, 4.8))
    log_density = lambda points: ring().log_prob(torch.from_numpy(points).float())  # noqa: E731
    density_contours(log_density, _WINDOW, colour=DATA, filled=True, levels=(0.05, 0.3, 0.7), points=110, ax=plane)
    plane.set_title(f"{POINTS} samples")
    curve.axhline(floor(), color=EXACT, linestyle="--", linewidth=1.4, label="two draws of the data")
    curve.plot([], [], "-o", color=STUDENT, label="student")
    curve.set(yscale="log", ylim=(0.6 * floor(), 1.2), xlim=(0.5, STEPS[-1] + 0.5), xticks=STEPS)
    curve.set(xlabel="network evaluations per sample (count)", ylabel="sliced Wasserstein distance (data units)")
    curve.set_title("Distance to the data")
    curve.legend(loc="upper right")
    return Backdrop(figure)


@styled
def _painted(points: Tensor, steps: int, line: Mapping[int, float]) -> Image.Image:
    stage = _stage()
    plane, curve = stage.figure.axes
    artists = plane.plot(*points.clamp(-9, 9).numpy().T, "o", color=STUDENT, markersize=2.2, alpha=0.55)
    artists += curve.plot(list(line), list(line.values()), "-o", color=STUDENT, markersize=5)
    artists += curve.plot([steps], [line[steps]], "o", color=STUDENT, markersize=12, markeredgecolor=EXACT)
    return stage.paint(artists)


def steps_explorer(draws: Mapping[str, Draw] | None = None) -> Explorer:
    """Sweep the number of steps of any model of the ring.

    Args:
        draws: name -> ``(n, steps, generator) -> (n, 2)``, at least one; default every model of the ring in the zoo.
    """
    draws = ring_draws() if draws is None else dict(draws)
    first = "ring-ect" if "ring-ect" in draws else next(iter(draws))
    controls = {
        "student": choice("model", first, list(draws), "Each by its own sampling rule"),
        "steps": ladder("steps", 1, STEPS, "Evaluations of the network per sample"),
        "seed": same_seed(),
    }
    return Explorer(
        Sweep(draws).scenes,
        controls,
        caption="Go through the models with one step, then with two. For a consistency model each further step adds "
        "noise and jumps again: it repairs what the long jump blurred and puts in the errors of the short ones, so "
        "that somewhere more steps stop helping. The denoiser's solver keeps gaining. Change the seed to see what is "
        "chance.",
        alt="Left, samples of the model in purple over the eight modes of the ring. Right, sliced Wasserstein distance "
        "against network evaluations per sample, with the distance between two draws of the data as a dashed line.",
    )
