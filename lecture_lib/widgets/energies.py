"""Energy landscapes of the plane, and particles that walk down them with noise: temperature, step size, bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib.errors import NonFiniteError
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import langevin
from lecture_lib.viz import DATA, EXACT, NOISE, OTHERS, SAMPLED, Backdrop, lattice, panels, shades, square, styled
from lecture_lib.widgets.catalogue import WORLDS
from lecture_lib.widgets.controls import choice, ladder, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

PARTICLES, TRAILS, TAIL = 500, 5, 16
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400)
SIZES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
SPREAD, LOWEST = "spread out", "all in the lowest place"
GAUSSIAN, VARIANCE = "one Gaussian", 0.25
_SIDE = 4.0  # integrals run over [-4, 4]^2
_EXTENT = (-_SIDE, _SIDE, -_SIDE, _SIDE)
_WINDOW = (-3.2, 3.2, -3.2, 3.2)
_CELLS = 161
_DEEP = 9.0  # nats above the lowest place, from where on the landscape is white
_FAR = 50.0
_TRAIL = OTHERS[4][0]


@dataclass(frozen=True, eq=False)
class Landscape:
    """An energy of points of the plane.

    Attributes:
        energy: ``(b, 2) -> (b,)`` nats, up to a constant.
        force: ``-grad energy``, ``(b, 2) -> (b, 2)``; None takes the gradient of ``energy``.
        dtype: of the points it is given.
    """

    energy: Callable[[Tensor], Tensor]
    force: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32

    def push(self, x: Float[Tensor, " b 2"]) -> Float[Tensor, " b 2"]:
        """``-grad E(x)``."""
        if self.force is not None:
            return self.force(x)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(x).sum(), x)[0]

    def of(self, x: Float[Tensor, " b 2"]) -> Float[Tensor, " b"]:
        """The energy, without gradients, in float64."""
        with torch.no_grad():
            return self.energy(x.to(self.dtype)).double()

    # By sums over a lattice ----------------------------------------------------------------------------------------

    @cached_property
    def grid(self) -> Float[Tensor, " y x"]:
        """Energies on the lattice, the second coordinate down the rows."""
        points = torch.from_numpy(lattice(_EXTENT, _CELLS)[2])
        return self.of(points).reshape(_CELLS, _CELLS)

    @property
    def lowest(self) -> tuple[float, float]:
        """Where the energy is lowest on the lattice."""
        return tuple(lattice(_EXTENT, _CELLS)[2][int(self.grid.argmin())])

    def weights(self, temperature: float) -> Float[Tensor, " y x"]:
        """``exp(-E/T)`` on the lattice, adding up to 1."""
        return (-self.grid / temperature).flatten().softmax(0).reshape(self.grid.shape)

    def mean(self, temperature: float) -> float:
        """E[E] under ``exp(-E/T)/Z``."""
        return float((self.weights(temperature) * self.grid).sum())


def exact_landscape(law: GaussianMixture) -> Landscape:
    """``-log p`` of a mixture, normalised."""
    return Landscape(lambda x: -law.log_prob(x), law.score, torch.float64)


def exact_landscapes() -> dict[str, Landscape]:
    """One Gaussian, for which the bias is known, and the worlds of the course."""
    laws = {name: make() for name, make in WORLDS.items()}
    laws[GAUSSIAN] = GaussianMixture([1.0], [[0.0, 0.0]], [VARIANCE])
    return {name: exact_landscape(laws[name]) for name in ("three classes", GAUSSIAN, "ring of eight")}


def settled_variance(variance: float, step: float, temperature: float) -> float:
    """Of Langevin's chain on a Gaussian: ``T s^2/(1 - h/(2 s^2))``, infinite from h = 2 s^2 on; right is T s^2."""
    return temperature * variance / (1 - step / (2 * variance)) if step < 2 * variance else np.inf


# Chains --------------------------------------------------------------------------------------------------------------


class Walk:
    """Chains that are walked only as far as they have been asked for."""

    def __init__(self, land: Landscape, x: Float[Tensor, " n 2"], step: float, temperature: float, seed: int) -> None:
        noise = torch.Generator().manual_seed(seed)
        self.frames, self.step, self.error = [x], step, None
        self._chain = langevin(land.push, x, step=step, temperatures=repeat(temperature), generator=noise)

    def until(self, step: int) -> Float[Tensor, " step+1 n 2"]:
        """All positions up to this step.

        Raises:
            NonFiniteError: the chains have run away.
        """
        try:
            while len(self.frames) <= step and self.error is None:
                self.frames.append(next(self._chain))
        except NonFiniteError as error:
            self.error = NonFiniteError(
                f"step size: got {self.step:g}, expected a shorter one; particles ran away: {error}"
            )
        if len(self.frames) <= step:
            raise self.error
        return torch.stack(self.frames[: step + 1])


class Walks:
    """Landscapes by name, and the chains on them, remembered."""

    def __init__(self, landscapes: Mapping[str, Landscape]) -> None:
        self.landscapes = dict(landscapes)
        self.walk = lru_cache(maxsize=32)(self._walk)
        self.stage = lru_cache(maxsize=None)(lambda name: _stage(self.landscapes[name]))

    def _walk(self, name: str, start: str, step: float, temperature: float, seed: int) -> Walk:
        land, generator = self.landscapes[name], torch.Generator().manual_seed(1000 + seed)
        x = 1.5 * torch.randn(PARTICLES, 2, generator=generator, dtype=land.dtype)
        if start == LOWEST:
            x = torch.tensor([land.lowest], dtype=land.dtype).repeat(PARTICLES, 1)
        return Walk(land, x, step, temperature, seed)

    def scene(self, name: str, temperature: float, size: float, steps: int, start: str, seed: int) -> Scene:
        """Particles on the landscape, their mean energy on the way, and their first coordinate beside the exact law."""
        land = self.landscapes[name]
        frames = self.walk(name, start, size, temperature, seed).until(steps)
        marks = [k for k in STEPS if k <= steps]
        means = [float(land.of(frames[k]).mean()) for k in marks]
        exact = land.mean(temperature)
        note = (
            f"After {steps} steps of {size:g} at T = {temperature:g}: mean energy {_said(means[-1])}; the exact "
            f"exp(-E/T) has {exact:.2f} nats."
        )
        if name == GAUSSIAN:
            note += _bias(float(frames[-1].var(0).mean()), size, temperature)
        picture = _painted(self.stage(name), land, frames, temperature, dict(zip(marks, means, strict=True)), exact)
        return Scene(picture, note)


def _said(energy: float) -> str:
    return f"{energy:.2f} nats" if energy < 1e4 else f"{energy:.1g} nats (they are running away: the step is too long)"


def _bias(variance: float, size: float, temperature: float) -> str:
    return (
        f" Variance of a coordinate {variance:.3f}; this chain settles at T s^2/(1 - h/2s^2) = "
        f"{settled_variance(VARIANCE, size, temperature):.3f}, and T s^2 = {temperature * VARIANCE:.3f} would be right."
    )


# The picture ---------------------------------------------------------------------------------------------------------


@styled
def _stage(land: Landscape) -> Backdrop:
    figure, (plane, energy, marginal) = panels(1, 3, size=(10.8, 4.9), width_ratios=(1.35, 1, 1))
    above = (land.grid - land.grid.min()).numpy()
    image = plane.imshow(np.clip(above, 0, _DEEP), origin="lower", extent=_EXTENT, cmap=shades(DATA).reversed(),
                         alpha=0.75, vmin=0, vmax=_DEEP, interpolation="bilinear")  # fmt: skip
    square(plane, _WINDOW)
    plane.grid(visible=False)
    plane.set_title("Landscape")
    figure.colorbar(image, ax=plane, location="bottom", shrink=0.7, label="energy above the lowest place (nats)")
    low = float(land.grid.min())
    energy.set(xscale="symlog", xlim=(-0.2, 1.3 * STEPS[-1]), ylim=(low - 0.5, low + 12), xticks=[0, 1, 10, 100])
    energy.set_xticklabels(["0", "1", "10", "100"])
    energy.set(xlabel="steps made (count)", ylabel="mean energy (nats)")
    energy.set_title("Mean energy")
    marginal.set(xlim=_WINDOW[:2], ylim=(0, 1.1), xlabel="$x_1$ (data units)", ylabel="density (1 / data unit)")
    marginal.set_title("First coordinate")
    looks = {
        f"{PARTICLES} particles now": {"color": SAMPLED, "marker": "o", "linestyle": "none"},
        f"last steps of {TRAILS} of them": {"color": _TRAIL, "linewidth": 1.1},
        r"exact $e^{-E/T}/Z$": {"color": EXACT, "linestyle": "--"},
        "the same at T = 1": {"color": NOISE, "linestyle": ":"},
    }
    handles = [plane.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return Backdrop(figure)


@styled
def _painted(
    stage: Backdrop, land: Landscape, frames: Tensor, temperature: float, means: Mapping[int, float], exact: float
) -> Image.Image:
    plane, energy, marginal = stage.figure.axes[:3]
    walked = frames.clamp(-_FAR, _FAR).double().numpy()
    now = walked[-1]
    artists = plane.plot(*now.T, "o", color=SAMPLED, markersize=2.6, alpha=0.6)
    artists += plane.plot(*walked[-TAIL:, :TRAILS].transpose(2, 0, 1), color=_TRAIL, linewidth=1.1)
    artists += energy.plot(list(means), np.clip(list(means.values()), None, 1e6), "-o", color=SAMPLED, markersize=5)
    artists += [energy.axhline(exact, color=EXACT, linestyle="--", linewidth=1.5)]
    edges = np.linspace(*_WINDOW[:2], 49)
    counts = np.histogram(now[:, 0], edges)[0] / (len(now) * (edges[1] - edges[0]))
    artists += [marginal.stairs(counts, edges, fill=True, color=SAMPLED, alpha=0.35)]
    across, width = np.linspace(-_SIDE, _SIDE, _CELLS), 2 * _SIDE / (_CELLS - 1)
    artists += marginal.plot(across, land.weights(1.0).sum(0).numpy() / width, ":", color=NOISE, linewidth=1.6)
    artists += marginal.plot(across, land.weights(temperature).sum(0).numpy() / width, "--", color=EXACT, linewidth=1.6)
    return stage.paint(artists)


def energy_landscape(landscapes: Mapping[str, Landscape] | None = None) -> Explorer:
    """Langevin particles on an energy: warm, cold, in long steps and in short ones.

    Args:
        landscapes: name -> energy of the plane, at least one; default ``exact_landscapes()``. A trained model joins as
            ``exact_landscapes() | {"trained": Landscape(model.energy)}``.
    """
    landscapes = exact_landscapes() if landscapes is None else dict(landscapes)
    controls = {
        "name": choice("landscape", next(iter(landscapes)), list(landscapes), "Whose energy"),
        "temperature": ladder("temperature T", 1.0, [(f"{v:g}", v) for v in TEMPERATURES], "1 samples exp(-E)"),
        "size": ladder("step size h", 0.05, [(f"{v:g}", v) for v in SIZES], "x moves by h times the force"),
        "steps": ladder("steps", 50, STEPS, "How many are made"),
        "start": choice("start", SPREAD, [SPREAD, LOWEST], "Where all particles begin"),
        "seed": same_seed(),
    }
    return Explorer(
        Walks(landscapes).scene,
        controls,
        caption="Let the steps grow: the mean energy comes down to the dashed line, if the step size is small. Then "
        "take h = 0.3: it settles above, because every step is too long for the valley (the Gaussian tells by how "
        "much). Start in the lowest place: warm particles find the other valleys, cold ones (T = 0.25) do not in 400 "
        "steps, although their mean energy looks right. On the ring of eight h = 0.05 is more than the valleys allow.",
        alt="Left, the energy as shades of blue, dark in the valleys, with five hundred particles and a few trails. "
        "Middle, their mean energy against steps made, with the exact value as a dashed line. Right, a histogram of "
        "their first coordinate with the exact density at this temperature, dashed, and at temperature one, dotted.",
    )
