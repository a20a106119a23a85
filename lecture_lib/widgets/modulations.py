"""What a transformer is told of time and label: shift, scale and gate of every block, and a branch shut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from lecture_lib import zoo
from lecture_lib.core import Denoiser
from lecture_lib.data import digits
from lecture_lib.nets import MODULATIONS, modulations
from lecture_lib.viz import (
    NOISE,
    Backdrop,
    captioned_grid,
    colour_bar,
    coloured,
    image_grid,
    legend,
    other,
    panels,
    stack,
    styled,
)
from lecture_lib.widgets.controls import choice, count, number, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

CLASSES = 10
BRANCHES = {"nothing": (), "attention": ("attention",), "feed-forward": ("feed_forward",)}
BRANCHES["both branches"] = ("attention", "feed_forward")
LOUD = 1.5  # numbers from here on have the colour at the end of the scale
_TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)


def told(model: Denoiser, t: Float[Tensor, " n"], label: int) -> Float[Tensor, " blocks 6 n d"]:
    """The modulations at path times ``t`` for one label (``CLASSES``: no label)."""
    times = model.network_time(model.path, t).float()
    return modulations(model.network, times, torch.full((len(t),), label))


@contextmanager
def shut(block: nn.Module, branches: tuple[str, ...]) -> Iterator[None]:
    """Within the ``with``, the branches of a block say nothing, as with their gates at zero."""
    with ExitStack() as undo:
        for name in branches:
            handle = getattr(block, name).register_forward_hook(lambda _module, _inputs, said: torch.zeros_like(said))
            undo.callback(handle.remove)
        yield


@torch.inference_mode()
def predicted(model: Denoiser, x_t: Tensor, t: Float[Tensor, " 1"], label: int) -> Float[Tensor, " 1 1 8 8"]:
    """The clean digit that the model sees in ``x_t``."""
    return model.given(label)(x_t, t).x0


# The picture ----------------------------------------------------------------------------------------------------------


class Curves:
    """Sizes of the six modulations over time, drawn once for each label."""

    def __init__(self, model: Denoiser) -> None:
        self.model, self.stage = model, lru_cache(maxsize=CLASSES + 1)(self._stage)

    @styled
    def _stage(self, label: int) -> Backdrop:
        """Root mean square over the channels against time: one panel per modulation, one line per block."""
        sizes = told(self.model, _TIMES, label).square().mean(-1).sqrt()  # (blocks, 6, n)
        figure, axes = panels(2, 3, size=(9.6, 4.9), sharex=True, sharey="col")
        for kind, ax in enumerate(axes.flat):
            for k, block in enumerate(sizes[:, kind]):
                ax.plot(_TIMES.numpy(), block.numpy(), label=f"block {k + 1}", **other(k) | {"marker": ""})
            ax.set_title(MODULATIONS[kind])
        for ax in axes[1]:  # after all lines: the two panels of a column share their limits
            ax.set_xlabel("time t (0: data, 1: noise)")
            ax.set_ylim(bottom=0)
        for ax in axes[:, 0]:
            ax.set_ylabel("root mean square")
        legend(axes[0, 0], "below")
        return Backdrop(figure)

    def at(self, t: float, label: int) -> Image.Image:
        """The curves of a label with a bar at time ``t``."""
        stage = self.stage(label)
        bars = [ax.axvline(t, color=NOISE, linewidth=5, alpha=0.5) for ax in stage.figure.axes]
        return stage.paint(bars)


def _vectors(values: Float[Tensor, " 6 d"], title: str) -> Image.Image:
    """Six vectors as rows of coloured squares, with the scale."""
    tiles = coloured(values[:, None], -LOUD, LOUD, diverging=True).repeat(2, axis=2)
    scale = max(1, 820 // values.shape[-1])
    rows = image_grid(tiles, columns=1, scale=scale, row_labels=MODULATIONS, title=title)
    return stack(rows, colour_bar(-LOUD, LOUD, "one square per channel", diverging=True))


def modulation_scene(curves: Curves, t: float, label: int, block: int, off: str, seed: int) -> Scene:
    """A digit on its way to noise and what is seen in it, the curves of all blocks, and one block's vectors."""
    model = curves.model
    time = torch.tensor([t], dtype=torch.float64)
    of_class = digits("test").of(label % CLASSES)
    x0 = of_class[seed % len(of_class)][None]
    x_t = model.path.mix(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)), time)
    images = [x0, x_t, predicted(model, x_t, time, label)]
    with shut(model.network.blocks[block - 1], BRANCHES[off]):
        images.append(predicted(model, x_t, time, label))
    told_now = told(model, time, label)[block - 1, :, 0]
    words = ["test digit", f"at t = {t:g}", "seen in it", f"seen with {off} of block {block} shut"]
    film = captioned_grid(torch.cat(images).clamp(-1, 1), words, columns=4, scale=14, width=180)
    changed = float((images[3] - images[2]).square().mean().sqrt())
    picture = stack(film, curves.at(t, label), _vectors(told_now, f"block {block} at t = {t:g}"), gap=10)
    sizes = [f"{name} {float(v.square().mean().sqrt()):.2f}" for name, v in zip(MODULATIONS, told_now, strict=True)]
    note = f"Block {block} is told (root mean square): {', '.join(sizes)}. Shutting {off} moves the prediction by "
    return Scene(picture, note + f"{changed:.3f} (root mean square; range -1 to 1).")


def modulation_explorer(model: Denoiser | None = None) -> Explorer:
    """Shift, scale and gate of a trained transformer over time and label.

    Args:
        model: its network a ``DiT`` that hears labels of digits; default ``zoo.load("digits-dit")``.
    """
    model = zoo.load("digits-dit") if model is None else model
    labels = [(f"digit {c}", c) for c in range(CLASSES)] + [("no label", CLASSES)]
    controls = {
        "t": number("time t", 0.5, 0.0, 1.0, 0.05, "0 is data, 1 is noise"),
        "label": choice("label", 3, labels, "What the network is told to see"),
        "block": count("block", 1, 1, len(model.network.blocks), "Whose vectors are shown, and which is shut"),
        "off": choice("shut off", "attention", list(BRANCHES), "As if the gate of that branch were zero"),
        "seed": same_seed(),
    }
    return Explorer(
        partial(modulation_scene, Curves(model)),
        controls,
        caption="At initialisation every gate is zero and every block the identity; these have opened. Where along t "
        "does the network change its mind most, and in which of the six? Change the label at t = 1 and at t = 0.1: "
        "when does it matter? Then shut one branch after the other: which one is missed most, and at which t?",
        alt="A digit, the digit with noise, and what the network sees in it with all branches and with some shut off. "
        "Below, six panels with the size of shift, scale and gate over time, one line per block; then the six vectors "
        "of one block as rows of coloured squares.",
    )
