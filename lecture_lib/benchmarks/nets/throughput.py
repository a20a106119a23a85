"""Training steps of the small DiT, ours and `diffusers`', in turn, in one process, on one thread.

Seconds are those of the core (process time), so that other programs on the machine decide less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lecture_lib.errors import MissingPackageError
from lecture_lib.nets import DiT, LabelEmbedding, multiply_adds
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement

BAR = 1.0  # seconds of ours over seconds of theirs
BATCH, STEPS, REPEATS = 64, 3, 21
SIZE, CHANNELS, DIM, DEPTH, HEADS, CLASSES = 8, 4, 128, 4, 4, 10  # latents of Lecture 1

Step = Callable[[], None]


def measure() -> Iterator[Measurement]:
    """Images per second of both, ours over theirs in seconds, and our share of what a matrix product reaches."""
    net, rival = networks()
    x, t, labels = batch()
    with few_threads(1):
        ours = training(net, lambda: net(x, t, labels), x)
        theirs = training(rival, lambda: rival(x, timestep=t, class_labels=labels).sample, x)
        for step in (ours, theirs):
            seconds(step)  # warm
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
        peak = statistics.median(matmul_seconds() for _ in range(REPEATS))
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    yield Measurement("training of our DiT", BATCH / mine, "images/s")
    yield Measurement("training of diffusers' DiT", BATCH / other, "images/s")
    yield Measurement("seconds of ours over theirs, median of pairs", statistics.median(ratios), "", BAR)
    low, _, high = statistics.quantiles(ratios, n=4)
    yield Measurement("... half of the distance between the quartiles", (high - low) / 2, "")
    # A backward pass has two products for each of the forward pass.
    share = 3 * multiply_adds(net, x, t, labels) / mine * peak
    yield Measurement("multiply-adds per second over those of a plain product", share, "")


def networks() -> tuple[DiT, nn.Module]:
    """Our network and diffusers' of the same shape; theirs in evaluation mode, in which it drops no labels."""
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError as error:
        raise MissingPackageError("diffusers is needed to compare with: pip install 'lecture-lib[oracles]'") from error
    shape = {"num_attention_heads": HEADS, "attention_head_dim": DIM // HEADS, "num_layers": DEPTH}
    images = {"in_channels": CHANNELS, "sample_size": SIZE, "patch_size": 2, "num_embeds_ada_norm": CLASSES}
    with torch.random.fork_rng(devices=[]):
        net = DiT(SIZE, CHANNELS, dim=DIM, depth=DEPTH, heads=HEADS, condition=LabelEmbedding(CLASSES, DIM))
        return net, DiTTransformer2DModel(**shape, **images).eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, times and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE, generator=generator)
    return x, 1000 * torch.rand(BATCH, generator=generator), torch.arange(BATCH) % CLASSES


def training(net: nn.Module, predict: Callable[[], Tensor], target: Tensor) -> Step:
    """One update of ``net`` by AdamW: forward, backward, step."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (predict() - target).square().mean().backward()
        optimizer.step()

    return step


def seconds(step: Step) -> float:
    """Seconds of the core per call."""
    began = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - began) / STEPS


def matmul_seconds(n: int = 512) -> float:
    """Seconds per multiply-add in a product of n x n matrices."""
    a = torch.ones(n, n)
    return seconds(lambda: a @ a) / n**3
