"""What attention needs in memory: written out it grows with the square of the tokens, fused or tiled with the tokens.

Counted in float32 on the CPU, from the allocator's log: results, scratch and gradients, at the moment when they are
most. Queries, keys and values were there before and do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure

from lecture_lib.nets import explicit_attention, fused_attention, peak_memory, tiled_attention
from lecture_lib.nets.attention import AttentionKernel
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement

KERNELS = {"explicit": explicit_attention, "fused": fused_attention, "tiled": tiled_attention}
PASSES = ("forward", "forward and backward")
TOKENS = (256, 512, 1024, 2048, 4096)  # of a DiT with patches of 2: pictures of 256 to 1024 pixels, f = 8
HEADS, WIDTH = 4, 64
BAR = 1.05  # exponent of a memory that is linear in the tokens


def measure() -> Iterator[Measurement]:
    """MiB at the peak for each kernel and number of tokens, and the exponent of the growth (about a minute)."""
    with few_threads(1):
        for name, kernel in KERNELS.items():
            for passes in PASSES:
                extra = [extra_memory(kernel, n, backward=passes != "forward") for n in TOKENS]
                for n, value in zip(TOKENS, extra, strict=True):
                    yield Measurement(f"{name} attention, {passes}, {n} tokens", value / 2**20, "MiB")
                bar = BAR if name == "tiled" else None
                yield Measurement(f"{name} attention, {passes}: exponent", exponent(TOKENS, extra), "", bar)


def extra_memory(kernel: AttentionKernel, n: int, *, backward: bool) -> int:
    """Bytes at the peak for ``n`` tokens that attend to each other, on top of queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, slope = (torch.randn(1, HEADS, n, WIDTH, generator=generator) for _ in range(4))
    if not backward:
        with torch.no_grad():
            return peak_memory(lambda: kernel(q, k, v))
    for x in (q, k, v):
        x.requires_grad_()
    return peak_memory(lambda: kernel(q, k, v).backward(slope))


def exponent(tokens: Sequence[int], values: Sequence[float]) -> float:
    """The power p of values = constant + c tokens^p, for tokens that double from one value to the next.

    The constant (the tiles, here) drops out of the differences of neighbours, which also grow as tokens^p; p is the
    slope of the straight line through the logarithms, by least squares.
    """
    x = torch.tensor(tokens[:-1], dtype=torch.float64).log()
    y = torch.tensor(values, dtype=torch.float64).diff().log()
    return float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Memory against tokens, one panel forwards and one with the backward pass; dashed, slopes 1 and 2."""
    from lecture_lib.viz.style import EXACT, label_axes, other, panels, style

    with style():
        fig, axes = panels(columns=2, size=(9.0, 4.0), sharey=True)
        for ax, passes in zip(axes, PASSES, strict=True):
            for i, name in enumerate(KERNELS):
                rows = [m.value for m in measurements if m.what.startswith(f"{name} attention, {passes}, ")]
                ax.plot(TOKENS, rows, label=name, **other(i))
            for power, start, side, align in (
                (1, 0.1, "top", "left"),
                (2, 8.0, "bottom", "right"),
            ):  # beside all curves
                line = [start * (n / TOKENS[0]) ** power for n in TOKENS]
                ax.plot(TOKENS, line, color=EXACT, linestyle="--", linewidth=1)
                ax.annotate(f"slope {power}", (TOKENS[1], line[1]), ha=align, va=side)
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(TOKENS, [str(n) for n in TOKENS])
            ax.minorticks_off()
            label_axes(ax, "tokens", "memory at the peak (MiB)", passes)
        axes[0].legend()
    return fig
