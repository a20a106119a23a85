"""Low-rank adapters turned up and down: the same noise without them, and with each at its strength."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError, UnknownNameError
from lecture_lib.families import TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import Adapter
from lecture_lib.viz import captioned_grid, stack
from lecture_lib.widgets.controls import number, same_seed, text
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.verdicts import verdicts

SAMPLES, STEPS = 4, 10
SCALE = 5
LAST = 1.5  # strongest; 1 is as trained
OWN = ("prompt", "w", "seed")  # controls that no adapter may be called after


@contextmanager
def scales(adapters: Mapping[str, Adapter], values: Mapping[str, float]) -> Iterator[None]:
    """Within the block each adapter has the scale of its name; afterwards, after an error too, its own again."""
    before = {name: adapter.scale for name, adapter in adapters.items()}
    try:
        for name, adapter in adapters.items():
            adapter.scale = values[name]
        yield
    finally:
        for name, adapter in adapters.items():
            adapter.scale = before[name]


class Strengths:
    """Pictures of one model at strengths of its adapters; remembered, so the row without them is drawn once."""

    def __init__(self, model: TextToImage, adapters: Mapping[str, Adapter]) -> None:
        self.model, self.adapters = model, dict(adapters)
        self.pictures = lru_cache(maxsize=128)(self._pictures)

    def _pictures(self, prompt: str, w: float, seed: int, strengths: tuple[float, ...]) -> Float[Tensor, " n 3 h w"]:
        generator = torch.Generator().manual_seed(seed)
        with scales(self.adapters, dict(zip(self.adapters, strengths, strict=True))):
            return self.model.generate([prompt] * SAMPLES, generator=generator, steps=STEPS, rule=linear(w))

    def scene(self, prompt: str, w: float, seed: int, **strengths: float) -> Scene:
        """Two rows on the same noise: all adapters at 0, and each at its strength."""
        start = time.perf_counter()
        values = tuple(strengths[name] for name in self.adapters)
        rows = {"without adapters": self.pictures(prompt, w, seed, (0.0,) * len(values))}
        said = ", ".join(f"{name} x {value:g}" for name, value in strengths.items())
        rows[said] = self.pictures(prompt, w, seed, values)
        grids = [
            captioned_grid(images, verdicts(images, prompt), columns=SAMPLES, scale=SCALE, title=title)
            for title, images in rows.items()
        ]
        moved = float((rows[said] - rows["without adapters"]).abs().mean()) if any(values) else 0.0
        note = f"The rows differ by {moved:.3f} on average (range -1 to 1); {2 * STEPS} network evaluations per "
        note += f"picture, {1000 * (time.perf_counter() - start):.0f} ms for what was new."
        return Scene(stack(*grids, gap=10), note)


def lora_strength(
    model: TextToImage,
    adapters: Mapping[str, Adapter],
    *,
    prompt: str = "a large green square",
) -> Explorer:
    """One slider per adapter, from 0 (not there) over 1 (as trained) to 1.5.

    The adapters' own scales are left as they are: the widget borrows them while it draws.

    Args:
        model: with the adapters added to its network.
        adapters: by the names that the sliders shall have; they add up.
        prompt: what to begin with.

    Raises:
        RangeError: no adapters. UnknownNameError: one is called like another control.
    """
    if not adapters:
        raise RangeError("adapters: got none, expected at least one name and its Adapter")
    if taken := sorted(set(adapters) & set(OWN)):
        raise UnknownNameError(f"adapters: got the name {taken[0]!r}, expected any but {', '.join(OWN)}")
    sliders = {
        name: number(name, 1.0 if k == 0 else 0.0, 0.0, LAST, 0.05, f"Strength of {name}: 0 is off, 1 as trained")
        for k, name in enumerate(adapters)
    }
    controls = {
        "prompt": text("prompt", prompt, "What to draw; press Enter. Unknown words are answered below the picture"),
        **sliders,
        "w": number("guidance scale w", 3.0, 0.0, 10.0, 0.25, "0 ignores the prompt, 1 plain, above 1 guided"),
        "seed": same_seed(),
    }
    return Explorer(
        Strengths(model, adapters).scene,
        controls,
        keep=True,
        caption="At 0 the rows are equal, bit for bit. Turn one adapter up past 1, where it was never trained; then "
        "turn up two of them: their differences add, whether or not the result makes sense.",
        alt="Two rows of four generated pictures with the same noise: without adapters, and with each at its strength.",
    )
