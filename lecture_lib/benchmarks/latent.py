"""Pixel against latent diffusion: the same captions, the same kind of U-Net, the same seconds of training.

Seconds are those of one CPU core (process time), so that other programs on the machine do not decide the race.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib.core import VELOCITY, Denoiser, LogitNormalTimes, RectifiedFlow, uniform_grid
from lecture_lib.data import Batches
from lecture_lib.data.shapes import captioned, judge_captions
from lecture_lib.guidance import fused, linear
from lecture_lib.nets import TextUNet, parameter_count
from lecture_lib.samplers import DPMSolverPP2M, last, sample
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.training import Ema, adamw, train, warmup_cosine
from lecture_lib.zoo.shapes_text import shapes_tokenizer
from lecture_lib.zoo.shapes_text_to_image import shapes_space, shapes_text

MARKS = (60.0, 120.0, 240.0)  # seconds of training after which both are examined
SCENES, PROMPTS = 8_000, 200
W, STEPS = 3.0, 10
BATCH = 64
TEXT = {"heads": 4, "context_dim": 128, "vector_dim": 128, "groups": 8, "blocks": 1}


@dataclass(frozen=True)
class Contestant:
    """A network, what it is trained on, and the way from its output to a picture.

    Attributes:
        network: the U-Net, untrained.
        data: (n, ...) images or latents.
        side: channels, height, width of what it denoises.
    """

    name: str
    network: TextUNet
    data: Tensor
    side: tuple[int, int, int]

    def decode(self, x: Tensor) -> Tensor:
        """Pictures of what the sampler drew."""
        return x if self.side[0] == 3 else shapes_space().decode(x)


def networks() -> dict[str, TextUNet]:
    """Both U-Nets: equal widths, 3 % apart in parameters; they hear the text at maps of 8x8 and 4x4, and of 8x8."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.set_state(torch.Generator().manual_seed(0).get_state())
        return {
            "latent": TextUNet(4, 4, channels=48, multipliers=(1, 2), depths=(1, 1), **TEXT),
            "pixel": TextUNet(3, 3, channels=48, multipliers=(1, 1, 2), depths=(0, 0, 1), **TEXT),
        }


@cache
@torch.no_grad()
def scenes() -> tuple[Tensor, Tensor, Tensor]:
    """Training images, their latents, and their captions as tokens."""
    drawn = captioned(SCENES, torch.Generator().manual_seed(77))
    latents = torch.cat([shapes_space().encode(x) for x in drawn.images.split(250)])
    return drawn.images, latents, shapes_tokenizer().encode(drawn.captions)


def flops(network: TextUNet, side: tuple[int, int, int]) -> int:
    """Floating-point operations of one training sample: forward and backward, as torch's counter sees them."""
    words = {"tokens": torch.zeros(1, 24, 128), "mask": torch.ones(1, 24, dtype=torch.bool)}
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *side), torch.zeros(1), words | {"vector": torch.zeros(1, 128)}).sum().backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


@torch.inference_mode()
def examine(contestant: Contestant, model: Denoiser) -> tuple[float, float]:
    """Share of captions fulfilled in every attribute, and seconds of one core per picture."""
    asked = captioned(PROMPTS, torch.Generator().manual_seed(78), split="test", two=0.0)
    cond = shapes_text()(shapes_tokenizer().encode(asked.captions))
    noise = torch.randn(PROMPTS, *contestant.side, generator=torch.Generator().manual_seed(79))
    began, pictures = time.process_time(), []
    for rows in torch.arange(PROMPTS).split(50):
        denoise = fused(model, None, {key: value[rows] for key, value in cond.items()}, linear(W))
        drawn = last(sample(denoise, model.path, DPMSolverPP2M(), uniform_grid(model.path, STEPS), noise[rows]))
        pictures.append(contestant.decode(drawn))
    seconds = (time.process_time() - began) / PROMPTS
    return judge_captions(torch.cat(pictures), asked.captions).all.double().mean().item(), seconds


def race(contestant: Contestant, marks: Sequence[float] = MARKS) -> Iterator[tuple[float, int, float, float]]:
    """Train; at every mark (seconds, updates made, share of captions fulfilled, seconds per picture)."""
    text = shapes_text()
    model = Denoiser(contestant.network, RectifiedFlow(), VELOCITY, null=text.null)
    ema = Ema(model, 0.99)

    def loss(model: Denoiser, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        return model.loss(batch[0], text(batch[1]), times=LogitNormalTimes(), p_uncond=0.1, generator=generator)

    updates = train(
        model,
        loss,
        Batches((contestant.data, scenes()[2]), BATCH),
        steps=10**6,
        optimizer=adamw(model, 1e-3),
        generator=torch.Generator().manual_seed(1),
        schedule=warmup_cosine(10**6, warmup=50),
        ema=ema,
    )
    spent, began = 0.0, time.process_time()
    for mark in marks:
        update = next(u for u in updates if spent + time.process_time() - began >= mark)
        spent += time.process_time() - began
        yield (mark, update.number, *examine(contestant, ema.average))
        began = time.process_time()


def contestants() -> list[Contestant]:
    """Pixel diffusion and latent diffusion."""
    images, latents, _ = scenes()
    both = networks()
    return [
        Contestant("pixel", both["pixel"], images, (3, 32, 32)),
        Contestant("latent", both["latent"], latents, (4, 8, 8)),
    ]


def measure() -> Iterator[Measurement]:
    """Parameters and operations, then accuracy over training seconds; about a quarter of an hour of one core."""
    with few_threads(1):
        for contestant in contestants():
            name = contestant.name
            yield Measurement(f"{name}: parameters", parameter_count(contestant.network), "")
            yield Measurement(f"{name}: per training sample", flops(contestant.network, contestant.side) / 1e6, "MFLOP")
            for mark, updates, right, seconds in race(contestant):
                yield Measurement(f"{name}: updates of {BATCH} after {mark:g} s", updates, "")
                yield Measurement(f"{name}: captions all right after {mark:g} s", right, "")
                if mark == MARKS[-1]:
                    yield Measurement(f"{name}: picture, {2 * STEPS} NFE, guided, 50 at once", 1e3 * seconds, "ms")


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Accuracy over training seconds, with the binomial standard error."""
    from lecture_lib.viz.style import DATA, GUIDED, panels, style

    with style():
        fig, ax = panels(size=(6.4, 4.0))
        for name, colour, marker in (("latent", GUIDED, "o"), ("pixel", DATA, "s")):
            rows = [m for m in measurements if m.what.startswith(f"{name}: captions")]
            seconds = [float(m.what.split()[-2]) for m in rows]
            right = torch.tensor([m.value for m in rows])
            error = (right * (1 - right) / PROMPTS).sqrt()
            ax.errorbar(seconds, right, error, label=name, color=colour, marker=marker, capsize=3)
        ax.set(xscale="log", xlabel="training (seconds of one core)", ylabel="captions right in all attributes (share)")
        ax.set(ylim=(-0.02, 1.02))
        ax.set_xticks(MARKS, [f"{mark:g}" for mark in MARKS])
        ax.minorticks_off()
        ax.legend()
    return fig
