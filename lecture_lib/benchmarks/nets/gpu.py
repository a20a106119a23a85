"""Training steps of the large diffusion transformers on a GPU: tokens per second and model FLOPs utilisation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from lecture_lib.nets import dit_network, multiply_adds
from lecture_lib.nets.dit import DiT
from lecture_lib.tooling.benching import Measurement

BATCHES = {"B/2": 128, "XL/2": 64}  # latents 4 x 32 x 32: 256 tokens each
NEEDED = 38  # GiB; the activations of DiT-XL/2 take most of it
WARM_UP, REPEATS = 3, 10  # the first steps compile, and choose kernels
# Dense bfloat16 peaks in FLOP/s, as NVIDIA's data sheets give them for the SXM modules.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}


def measure() -> Iterator[Measurement]:
    """DiT-B/2 and DiT-XL/2, forward and backward in bfloat16, as written and with ``torch.compile`` (some minutes)."""
    found = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0
    if found < NEEDED:
        yield Measurement(f"GPU memory; training steps of DiT-XL/2 need {NEEDED} GiB: skipped", found, "GiB")
        return
    card = torch.cuda.get_device_name()
    rate = 2 * 8192**3 / seconds_of(matrix_product(8192, "cuda"))
    yield Measurement(f"{card}: bfloat16 matrix product", rate / 1e12, "TFLOP/s")
    for name, batch in BATCHES.items():
        for how, transform in (("as written", lambda net: net), ("compiled", torch.compile)):
            net = filled(dit_network(name)).to("cuda", torch.bfloat16)
            seconds = seconds_of(training_step(transform(net), net, batch))
            yield from rows(f"DiT-{name}, batch {batch}, bf16, {how}", net, batch / seconds, card, rate)
            del net
            torch.cuda.empty_cache()


def rows(what: str, net: DiT, images_per_second: float, card: str, rate: float) -> Iterator[Measurement]:
    """Tokens per second, and the share of the FLOP/s that the card can do and of those it did in a matrix product."""
    done = images_per_second * training_flops(net)
    yield Measurement(f"{what}: tokens", images_per_second * (net.size // net.patch) ** 2, "1/s")
    for name, peak in PEAKS.items():
        if name in card:
            yield Measurement(f"{what}: model FLOPs utilisation", done / peak, "")
    yield Measurement(f"{what}: share of the matrix product's rate", done / rate, "")


def filled(net: DiT) -> DiT:
    """``net`` with random weights everywhere: the zeros of adaLN-Zero draw less power, and a GPU then runs faster."""
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data.normal_(std=0.02, generator=generator)
    return net


def training_flops(net: DiT) -> float:
    """FLOPs of the matrix products of one image, forward and backward; twice as many backwards as forwards.

    Source: Chowdhery et al. 2022 (PaLM), appendix B: what the model needs, not what an implementation recomputes.
    """
    device = net.embed.weight.device
    x, t = torch.zeros(1, net.channels, net.size, net.size, device=device), torch.zeros(1, device=device)
    return 3 * 2 * multiply_adds(net, x.to(net.embed.weight), t)


def training_step(run: Callable, net: DiT, batch: int) -> Callable[[], None]:
    """A call that runs ``run`` (``net``, or ``net`` compiled) on random latents and labels, and its backward pass."""
    device, generator = net.embed.weight.device, torch.Generator().manual_seed(0)
    x = torch.randn(batch, net.channels, net.size, net.size, generator=generator).to(net.embed.weight)
    t = (1000 * torch.rand(batch, generator=generator)).to(device)
    labels = torch.randint(net.condition.null, (batch,), generator=generator).to(device)
    out_channels = net.final.linear.out_features // net.patch**2
    slope = torch.randn(batch, out_channels, net.size, net.size, generator=generator).to(x)

    def step() -> None:
        net.zero_grad(set_to_none=True)
        run(x, t, labels).backward(slope)

    return step


def matrix_product(n: int, device: str) -> Callable[[], None]:
    """A call that multiplies two n x n matrices in bfloat16: 2 n^3 FLOPs."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: torch.mm(a, b)


def seconds_of(call: Callable[[], object]) -> float:
    """Median seconds of ``call`` after warming up; waits for the GPU, if there is one."""
    taken = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[WARM_UP:])
