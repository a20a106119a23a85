"""A plane through the latent space of a VAE on digits: where the data's codes lie, and what every place decodes to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.data import digits
from lecture_lib.errors import RangeError
from lecture_lib.families import VAE
from lecture_lib.viz import DATA, NOISE, SAMPLED, Backdrop, panels, shades, styled
from lecture_lib.widgets.controls import choice, count, number
from lecture_lib.widgets.explorer import Explorer, Scene

REACH, CELLS = 3.0, 9  # the map of decoded digits: so far to either side, so many in a row
_EDGE = REACH * CELLS / (CELLS - 1)  # the middle of the outermost cell is at REACH
_LATTICE = torch.linspace(-_EDGE, _EDGE, 67, dtype=torch.float64)
FIRST, SECOND, LAST = "most used: 1 and 2", "next: 3 and 4", "least used"


class Codes:
    """What the encoder of a VAE does with the training digits, seen along its principal axes; each computed once.

    Attributes:
        means, variances: of q(z | x, label) for every training digit, (n, latent), float64.
        axes: (latent, latent), rows by how much the means vary along them, the most first. spread: that variance.
    """

    def __init__(self, model: VAE) -> None:
        self.model, train = model, digits("train")
        self.labels = train.labels
        cond = train.labels if model.n_classes else None
        with torch.no_grad():
            q = model.posterior(train.images, cond)
        self.means, self.variances = q.mean.double(), q.logvar.double().exp()
        spread, axes = torch.linalg.eigh(self.means.T.cov())  # rising, directions as columns
        self.spread, self.axes = spread.flip(0).clamp(min=0), axes.T.flip(0)
        self.density = lru_cache(maxsize=64)(self._density)
        self.decoded = lru_cache(maxsize=128)(self._decoded)

    def planes(self) -> dict[str, tuple[int, int]]:
        """Name -> which two axes."""
        n = len(self.axes)
        return {FIRST: (0, 1)} | ({SECOND: (2, 3)} if n >= 4 else {}) | ({LAST: (n - 2, n - 1)} if n >= 6 else {})

    def flat(self, plane: tuple[int, int], label: int) -> Float[Tensor, " m 2"]:
        """The means of the digits of one label, projected on the plane."""
        return self.means[self.labels == label] @ self.axes[list(plane)].T

    def _density(self, plane: tuple[int, int], label: int) -> Float[Tensor, " y x"]:
        """The aggregate posterior of one label, ``mean_n q(z | x_n)``, projected on the plane: a mixture, exact."""
        a, kept = self.axes[list(plane)], self.labels == label
        where = self.means[kept] @ a.T
        cov = torch.einsum("ik,nk,jk->nij", a, self.variances[kept], a)
        v, u = torch.meshgrid(_LATTICE, _LATTICE, indexing="ij")
        points = torch.stack([u.ravel(), v.ravel()], 1)
        delta = points[:, None] - where
        inverse = torch.linalg.inv(cov)
        square = torch.einsum("pni,nij,pnj->pn", delta, inverse, delta)
        heights = (-square / 2).exp() / (2 * np.pi * torch.linalg.det(cov).sqrt())
        return heights.mean(1).reshape(len(_LATTICE), len(_LATTICE))

    def at(self, plane: tuple[int, int], u: Tensor, v: Tensor) -> Float[Tensor, " b latent"]:
        """Latents at these places of the plane; everything across the plane is 0."""
        a = self.axes[list(plane)]
        return (u[:, None] * a[0] + v[:, None] * a[1]).float()

    def _decoded(self, plane: tuple[int, int], label: int) -> Float[Tensor, " cells 1 8 8"]:
        """The map: ``CELLS`` x ``CELLS`` digits, the highest v first."""
        line = torch.linspace(-REACH, REACH, CELLS, dtype=torch.float64)
        v, u = torch.meshgrid(line.flip(0), line, indexing="ij")
        return self.decode(self.at(plane, u.ravel(), v.ravel()), torch.full((CELLS**2,), label))

    def decode(self, z: Float[Tensor, " b latent"], labels: Tensor) -> Float[Tensor, " b 1 8 8"]:
        """x_hat, clipped to [-1, 1]."""
        with torch.no_grad():
            return self.model.decode(z, labels if self.model.n_classes else None).clamp(-1, 1)


def zoo_vaes() -> dict[str, VAE]:
    """The VAEs of the zoo."""
    return {"VAE": zoo.load("family-vae"), "beta-VAE": zoo.load("family-beta-vae")}


# The picture ---------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, axes = panels(2, 3, size=(10.8, 5.4), width_ratios=(1, 1, 0.52), height_ratios=(1, 0.42))
    for ax in axes[1, :2]:
        ax.remove()
    grid = axes[0, 0].get_gridspec()
    for ax, column in ((axes[0, 0], 0), (axes[0, 1], 1)):
        ax.set_subplotspec(grid[:, column])
    (codes, atlas, digit), told = axes[0], axes[1, 2]
    for ax in (codes, atlas):
        ax.set(xlim=(-_EDGE, _EDGE), ylim=(-_EDGE, _EDGE), aspect="equal", xlabel="along the first axis (prior sd)")
        ax.grid(visible=False)
    codes.set(ylabel="along the second axis (prior sd)", title="Codes of the digits")
    atlas.set(title="What each place decodes to", yticklabels=[])
    digit.set(title="This point", xlim=(-0.5, 7.5), ylim=(7.5, -0.5))
    told.set(title="told 0 to 9", xlim=(-0.5, 43.5), ylim=(16.5, -0.5))
    for ax in (digit, told):
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.spines[["left", "bottom"]].set_visible(False)
    looks = {
        "aggregate posterior": {"color": DATA, "linewidth": 7, "alpha": 0.45},
        "means of q(z | x)": {"color": DATA, "marker": "o", "linestyle": "none", "markersize": 4},
        "prior, 1 and 2 sd": {"color": NOISE, "linestyle": "--"},
        "the point": {"color": SAMPLED, "marker": "o", "linestyle": "none", "markersize": 9},
    }
    handles = [codes.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return Backdrop(figure)


@styled
def latent_plane_scene(space: Codes, plane: tuple[int, int], label: int, u: float, v: float) -> Scene:
    """Codes of one label in the plane, the map of digits, and the point's own digit, told each label."""
    z = space.at(plane, *torch.tensor([[u], [v]], dtype=torch.float64))
    told = space.decode(z.expand(10, -1), torch.arange(10))
    now = space.decode(z, torch.tensor([label]))
    used = [float(space.spread[k]) for k in plane]
    near = (space.flat(plane, label) - torch.tensor([u, v], dtype=torch.float64)).norm(dim=1)
    note = (
        f"The point is {(u * u + v * v) ** 0.5:.2f} prior standard deviations from the middle, and in this plane "
        f"{float(near.min()):.2f} from the nearest of {len(near)} codes of the digit {label}. The codes vary by "
        f"{used[0]:.2f} and {used[1]:.2f} along its axes (the prior by 1; an axis near 0 says nothing). "
        f"The judge reads this digit as {int(zoo.judge().predict(now)[0])}."
    )
    return Scene(_painted(space, plane, label, (u, v), now, told), note)


def _tiles(images: Float[Tensor, " n 1 8 8"], columns: int, gap: int = 0) -> np.ndarray:
    """Images side by side in rows, as one array; between them white."""
    before, after = gap // 2, gap - gap // 2
    padded = torch.nn.functional.pad(images[:, 0], (before, after, before, after), value=1.0)
    rows = [torch.cat(list(row), dim=1) for row in padded.split(columns)]
    return torch.cat(rows).numpy()


@styled
def _painted(
    space: Codes, plane: tuple[int, int], label: int, place: tuple[float, float], now: Tensor, told: Tensor
) -> Image.Image:
    stage = _stage()
    codes, atlas, digit, ten = stage.figure.axes[:4]
    frame = (-_EDGE, _EDGE, -_EDGE, _EDGE)
    grey = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    look = {"cmap": shades(DATA), "vmin": 0, "vmax": 0.6, "interpolation": "bilinear", "zorder": 0}
    artists = [codes.imshow(space.density(plane, label).numpy(), origin="lower", extent=frame, **look)]
    around = np.linspace(0, 2 * np.pi, 90)
    for radius in (1, 2):
        artists += codes.plot(radius * np.cos(around), radius * np.sin(around), "--", color=NOISE, linewidth=1.4)
    artists += codes.plot(*space.flat(plane, label).T.numpy(), "o", color=DATA, markersize=2.2, alpha=0.7)
    artists += [atlas.imshow(_tiles(space.decoded(plane, label), CELLS, 2), extent=frame, **grey)]
    artists += codes.plot(*place, "o", color=SAMPLED, markersize=9, markeredgecolor="white")
    artists += atlas.plot(
        *place, "s", markersize=30, markerfacecolor="none", markeredgecolor=SAMPLED, markeredgewidth=3
    )
    artists += [digit.imshow(now[0, 0].numpy(), **grey), ten.imshow(_tiles(told, 5, 1)[:-1, :-1], **grey)]
    return stage.paint(artists)


class Spaces:
    """VAEs by name, with their codes, which are computed when they are first looked at."""

    def __init__(self, models: Mapping[str, VAE]) -> None:
        self.models = dict(models)
        self.codes = cache(lambda name: Codes(self.models[name]))

    def scene(self, model: str, plane: str, label: int, u: float, v: float) -> Scene:
        """The plane of this name.

        Raises:
            RangeError: the model has too few latents for it.
        """
        planes = self.codes(model).planes()
        if plane not in planes:
            raise RangeError(f"plane: got {plane!r}, expected {', '.join(planes)}; this model has too few latents")
        return latent_plane_scene(self.codes(model), planes[plane], label, u, v)


def latent_plane_explorer(models: Mapping[str, VAE] | None = None) -> Explorer:
    """Drag a point through the latent space of a VAE of digits.

    Args:
        models: name -> VAE of 8x8 digits, at least one; default the two of the zoo.
    """
    spaces = Spaces(zoo_vaes() if models is None else models)
    first = next(iter(spaces.models))
    controls = {
        "model": choice("model", first, list(spaces.models), "Whose latent space"),
        "plane": choice("plane", FIRST, list(spaces.codes(first).planes()), "Principal axes of the codes"),
        "label": count("digit", 3, 0, 9, "Whose codes are shown, and what the decoder is told"),
        "u": number("first axis", 0.0, -REACH, REACH, 0.25, "Where the point is, in standard deviations of the prior"),
        "v": number("second axis", 0.0, -REACH, REACH, 0.25, "Where the point is, in standard deviations of the prior"),
    }
    return Explorer(
        spaces.scene,
        controls,
        caption="The decoder is trained where codes lie, and samples come from the prior (dashed circles): drag the "
        "point into a hole between them, or far out, and look at the digit. Then go through the planes: along the "
        "least used axes all codes sit at 0, q(z | x) is the prior itself, and the digit does not change. What stays "
        "the same when one latent is told ten labels?",
        alt="Left, the plane: the aggregate posterior of one digit as a shade of blue, its codes as blue points, the "
        "prior as two dashed circles, and the point. Middle, a map of nine by nine decoded digits over the same "
        "plane. Right, the digit that the point decodes to, and below it what it decodes to when told each label.",
    )
