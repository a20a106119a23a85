"""A student of the ring beside the exact flow map: from any point of a trajectory, where does each say that it ends?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, lru_cache, partial

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.core import EDM, logsnr_grid
from lecture_lib.distill import Jump
from lecture_lib.samplers import UniPC, last, sample
from lecture_lib.viz import DATA, EXACT, GUIDED, NOISE, STUDENT, Backdrop, density_contours, panels, styled
from lecture_lib.widgets.catalogue import flow_end, ring
from lecture_lib.widgets.controls import choice, count, ladder
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.zoo.plane import PlaneRecipe
from lecture_lib.zoo.recipes import RECIPES

PATH = EDM()
LEVELS = [float(f"{level:.3g}") for level in np.geomspace(80.0, 0.02, 31)]
ANGLE = 5  # degrees between two starting points
_ENDS = 0.002  # noise level at which the exact trajectories stop
_WINDOW = (-1.75, 1.75, -1.75, 1.75)
_DEGREES = np.arange(0, 360.1, 1.5)


@cache
def denoiser_mean() -> Jump:
    """The exact denoiser's x0, which is no flow map: what a student must not be taught."""
    return lambda x, t: ring().denoise(PATH)(x, t).x0


def ring_students() -> dict[str, Jump]:
    """The jumps of all students of the zoo that can tell an end from anywhere, and the denoiser to compare with."""
    known = {name: r.jump(zoo.load(name)) for name, r in RECIPES.items() if isinstance(r, PlaneRecipe)}
    return {name: jump for name, jump in known.items() if jump is not None} | {"exact denoiser": denoiser_mean()}


# What is exact ------------------------------------------------------------------------------------------------------


@cache
def tracks() -> Float[Tensor, " levels angles 2"]:
    """Exact trajectories from the circle of radius 80 sqrt(2), one each ``ANGLE`` degrees, at ``LEVELS`` and then 0."""
    phi = torch.arange(0, 360, ANGLE, dtype=torch.float64).deg2rad()
    x = 80 * math.sqrt(2) * torch.stack([phi.cos(), phi.sin()], 1)
    found = [x]
    for high, low in zip(LEVELS, [*LEVELS[1:], _ENDS], strict=True):
        grid = logsnr_grid(PATH, 10, start=high, end=low)
        found.append(last(sample(ring().denoise(PATH), PATH, UniPC(3), grid, found[-1])))
    return torch.stack(found)


def circle(level: float) -> Float[Tensor, " m 2"]:
    """Points around the circle on which most of p_t lies: its root-mean-square radius, one each 1.5 degrees."""
    phi = torch.from_numpy(_DEGREES).deg2rad()
    return math.sqrt(1.02 + 2 * level**2) * torch.stack([phi.cos(), phi.sin()], 1)


@lru_cache(maxsize=64)
def exact_ends(level: float) -> Float[Tensor, " m 2"]:
    """Where the exact flow takes that circle."""
    return flow_end(ring(), PATH, circle(level), level)


def told(jump: Jump, x: Float[Tensor, " b 2"], level: float | Float[Tensor, " b"]) -> Float[Tensor, " b 2"]:
    """What a student says, in its own float32 (the exact denoiser answers in float64)."""
    t = level if isinstance(level, Tensor) else torch.full((len(x),), level, dtype=torch.float64)
    x = x if jump is denoiser_mean() else x.float()
    with torch.no_grad():
        return jump(x, t).double()


def turned(ends: Float[Tensor, " m 2"], degrees: np.ndarray = _DEGREES) -> np.ndarray:
    """The angles of the ends in degrees, each within half a turn of the angle that it came from."""
    angle = np.degrees(np.arctan2(*ends.numpy().T[::-1]))
    return degrees + (angle - degrees + 180) % 360 - 180


# The picture --------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, (plane, stairs, along) = panels(1, 3, size=(10.8, 4.5), width_ratios=(1.15, 1.0, 1.0))
    log_density = lambda points: ring().log_prob(torch.from_numpy(points))  # noqa: E731
    density_contours(log_density, _WINDOW, colour=DATA, filled=True, levels=(0.05, 0.3, 0.7), points=110, ax=plane)
    z = _drawn(tracks()).numpy()
    plane.plot(*z[:, ::3].transpose(2, 0, 1), color=NOISE, linewidth=0.7, alpha=0.6)
    plane.set(xlabel=r"$x_1/(1+\sigma)$ (data units)", ylabel=r"$x_2/(1+\sigma)$ (data units)")
    plane.set_title("One trajectory")
    stairs.set(xlim=(0, 360), ylim=(-20, 380), xticks=range(0, 361, 90), yticks=range(0, 361, 90))
    stairs.set(xlabel="angle of $x_t$ (degrees)", ylabel="angle of its end (degrees)")
    stairs.set_title("The whole circle")
    along.set(xscale="log", xlim=(LEVELS[0] * 1.3, LEVELS[-1] / 1.3), ylim=(-0.03, 1.35))
    along.set(xlabel=r"noise level $\sigma$ of $x_t$ (data units)", ylabel="distance from the exact end (data units)")
    along.set_title("From every point of it")
    looks = {
        "exact": {"color": EXACT, "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
        "student": {"color": STUDENT, "marker": "D"},
        "exact denoiser's mean": {"color": DATA, "linestyle": ":"},
        "$x_t$ now": {"color": GUIDED, "marker": "o", "linestyle": "none"},
    }
    handles = [plane.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return Backdrop(figure)


def _drawn(x: Float[Tensor, " levels b 2"]) -> Float[Tensor, " levels b 2"]:
    """Positions as they are drawn: x/(1 + sigma)."""
    scale = 1 + torch.tensor([*LEVELS, _ENDS], dtype=torch.float64)
    return x / scale[:, None, None]


@styled
def flow_map_scene(students: Mapping[str, Jump], student: str, level: float, angle: int) -> Scene:
    """One trajectory with what is said about its end now, all angles at this noise level, and all of its points."""
    jump, now, mine = students[student], LEVELS.index(level), angle // ANGLE
    track, place = tracks()[:, mine], float(np.degrees(np.arctan2(*tracks()[now, mine].numpy()[::-1]))) % 360
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    said, mean = (told(j, track[:-1], levels) for j in (jump, denoiser_mean()))
    gap, mean_gap = ((ends - track[-1]).norm(dim=1).numpy() for ends in (said, mean))
    ends = told(jump, circle(level), level)
    picture = _painted(track, said[now], now, (place, ends, exact_ends(level)), (gap, mean_gap))
    wrong = (ends - exact_ends(level)).norm(dim=1)
    note = (
        f"From noise level {level:g} on this trajectory, {student} ends {gap[now]:.3f} data units from the exact end; "
        f"the exact denoiser's mean, {mean_gap[now]:.3f}. Around the whole circle the median is "
        f"{float(wrong.median()):.3f}, and {float((wrong > 0.3).double().mean()):.0%} of it ends more than 0.3 away."
    )
    return Scene(picture, note)


def _painted(
    track: Tensor, said: Tensor, now: int, around: tuple[float, Tensor, Tensor], gaps: tuple[np.ndarray, np.ndarray]
) -> Image.Image:
    stage = _stage()
    plane, stairs, along = stage.figure.axes[:3]
    place, ends, exact = around
    z = _drawn(track[:, None])[:, 0].numpy()
    artists = plane.plot(*z.T, "--", color=EXACT, linewidth=1.4)
    artists += plane.plot(*z[-1:].T, "o", color=EXACT, markerfacecolor="white", markersize=9)
    artists += plane.plot(*np.stack([z[now], said.numpy()]).T, color=STUDENT, linewidth=1.2)
    artists += plane.plot(*said[None].numpy().T, "D", color=STUDENT, markersize=7)
    artists += plane.plot(*z[now : now + 1].T, "o", color=GUIDED, markersize=8, markeredgecolor="white")
    artists += stairs.plot(_DEGREES, turned(exact), "--", color=EXACT, linewidth=1.4)
    artists += stairs.plot(_DEGREES, turned(ends), color=STUDENT, linewidth=1.8)
    artists += [stairs.axvline(place, color=GUIDED, linewidth=1.2)]
    artists += along.plot(LEVELS, gaps[1], ":", color=DATA)
    artists += along.plot(LEVELS, gaps[0], "-D", color=STUDENT, markersize=3)
    artists += [along.axhline(0, color=EXACT, linestyle="--", linewidth=1.2)]
    artists += [along.axvline(LEVELS[now], color=GUIDED, linewidth=1.2)]
    return stage.paint(artists)


def flow_map_explorer(students: Mapping[str, Jump] | None = None) -> Explorer:
    """Drag a point along its trajectory: student and exact flow map side by side.

    Args:
        students: name -> jump to the data on EDM's path, at least one; default all of the zoo that have one.
    """
    students = ring_students() if students is None else dict(students)
    first = "ring-ect" if "ring-ect" in students else next(iter(students))
    controls = {
        "student": choice("student", first, list(students), "Who says where the trajectory ends"),
        "level": ladder(
            "noise level", LEVELS[8], [(f"{v:g}", v) for v in LEVELS], "Drag the point along its trajectory"
        ),
        "angle": count("starting angle", 35, 0, 360 - ANGLE, "Degrees on the circle of pure noise, in steps of five"),
    }
    controls["angle"].step = ANGLE
    return Explorer(
        partial(flow_map_scene, students),
        controls,
        caption="Drag the noise level from 80 down: an exact flow map would say the same end all the way (right, a "
        "flat line at 0); the denoiser's mean only gets there when little noise is left. In the middle, eight modes "
        "make a staircase. Where does the student miss it, on the steps or at their edges? Take the exact denoiser as "
        "the student: at level 80 it knows nothing but the mean, and its angle means nothing.",
        alt="Left, the ring of eight modes with exact trajectories in grey and one of them as a black dashed curve, "
        "with the present point in red, its exact end as an open circle and the student's as a purple diamond. Middle, "
        "the angle of the end against the angle of the start: a black dashed staircase and the student's line. Right, "
        "distance from the exact end against noise level, for the student and for the exact denoiser.",
    )
