"""One step in every runtime: pictures per second of the student eager, compiled, in ONNX and in int8; and its teacher.

All draw in turn, in one process, on one thread, and the seconds are those of the core (process time), so that other
programs on the machine decide less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.core import Denoiser
from lecture_lib.data import digits
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.zoo import store
from lecture_lib.zoo.evaluate_students import NFE, teacher_digits
from lecture_lib.zoo.export import OneStepGenerator, OnnxGenerator, to_int8, to_onnx
from lecture_lib.zoo.recipes import ONE_STEP

BAR = 1e-4  # largest difference of a grey value between onnxruntime and PyTorch
LEAST = 0.97  # judge accuracy
BATCHES, REPEATS = (64, 1), 15
W = 1.5
TEACHER = f"teacher, {NFE} steps"

Draw = Callable[[Tensor, Tensor], Tensor]
"""``(noise, label) -> pictures``."""


def measure() -> Iterator[Measurement]:
    """Sizes, what is lost on the way, then pictures per second; some minutes, most of them compiling."""
    with few_threads(1), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        student = OneStepGenerator(zoo.load(ONE_STEP.name)).eval()
        exact = to_onnx(student, (1, 8, 8), Path(folder) / "float32.onnx")
        rough = to_int8(exact, Path(folder) / "int8.onnx")
        yield Measurement("on disk: weights of the zoo, float16", store.manifest()[ONE_STEP.name]["bytes"] / 1e6, "MB")
        yield Measurement("on disk: ONNX, float32", exact.stat().st_size / 1e6, "MB")
        yield Measurement("on disk: ONNX, int8", rough.stat().st_size / 1e6, "MB")
        told = {"eager": student, "ONNX float32": OnnxGenerator(exact), "ONNX int8": OnnxGenerator(rough)}
        runs = {name: partial(_at_w, run) for name, run in told.items()}
        yield from quality(runs)
        try:
            runs["torch.compile"] = compiled(student)
        except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, for one
            why = str(error).splitlines()[0][:60]
            yield Measurement(f"torch.compile is left out: {why}", float("nan"), "images/s")
        runs[TEACHER] = partial(_teacher, zoo.load(ONE_STEP.teacher.name))
        for batch in BATCHES:
            yield from race(runs, batch)


def quality(runs: dict[str, Draw]) -> Iterator[Measurement]:
    """How far the exported ones are from PyTorch, and what the judge reads in the digits of each."""
    labels = digits("train").labels
    noise = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = {name: run(noise, labels) for name, run in runs.items()}
    for name, bar in (("ONNX float32", BAR), ("ONNX int8", None)):
        error = drawn[name] - drawn["eager"]
        yield Measurement(f"{name}: largest difference from eager", error.abs().max().item(), "", bar)
        yield Measurement(f"{name}: root mean square difference", error.square().mean().sqrt().item(), "")
    for name, pictures in drawn.items():
        missed = 1 - zoo.judge().accuracy(pictures, labels)
        yield Measurement(f"{name}: share that the judge misreads", missed, "", 1 - LEAST)


def compiled(student: OneStepGenerator) -> Draw:
    """The student compiled for any batch, and called once: compiling happens there."""
    run = partial(_at_w, torch.compile(student, dynamic=True))
    for batch in BATCHES:
        run(torch.zeros(batch, 1, 8, 8), torch.zeros(batch, dtype=torch.long))
    return run


def race(runs: dict[str, Draw], batch: int) -> Iterator[Measurement]:
    """Pictures per second of each, drawn in turn; and the student's over the teacher's, median of rounds."""
    noise = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(batch) % 10
    for run in runs.values():
        run(noise, labels)  # warm
    rounds = [{name: seconds(run, noise, labels) for name, run in runs.items()} for _ in range(REPEATS)]
    for name in runs:
        rate = batch / statistics.median(r[name] for r in rounds)
        yield Measurement(f"{name}, {batch} at once", rate, "images/s")
    for name in runs:
        faster = statistics.median(r[TEACHER] / r[name] for r in rounds)
        yield Measurement(f"{name}, {batch} at once: times as fast as the teacher", faster, "")


def seconds(run: Draw, noise: Tensor, labels: Tensor) -> float:
    """Seconds of the core per call."""
    calls = max(1, 64 // len(noise))
    began = time.process_time()
    for _ in range(calls):
        run(noise, labels)
    return (time.process_time() - began) / calls


def _at_w(run: Callable[..., Tensor], noise: Tensor, labels: Tensor) -> Tensor:
    return run(noise, labels, torch.full((len(labels),), W))


def _teacher(model: Denoiser, noise: Tensor, labels: Tensor) -> Tensor:
    """Its noise is drawn anew, which costs next to nothing."""
    return teacher_digits(model, labels, W, generator=torch.Generator().manual_seed(len(noise)))


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Pictures per second as bars, logarithmic, one panel per batch size."""
    from lecture_lib.viz.style import GUIDED, STUDENT, panels, style

    with style():
        fig, axes = panels(1, len(BATCHES), size=(9.6, 3.4), sharey=True)
        for ax, batch in zip(axes, BATCHES, strict=True):
            ending = f", {batch} at once"
            rows = [m for m in measurements if m.what.endswith(ending)][::-1]
            names = [m.what.removesuffix(ending) for m in rows]
            colours = [GUIDED if name == TEACHER else STUDENT for name in names]
            bars = ax.barh(names, [m.value for m in rows], color=colours)
            ax.bar_label(bars, fmt="%.0f", padding=3)
            ax.set(xscale="log", xlabel="digits per second of one core", title=f"{batch} at once")
            ax.margins(x=0.2)
    return fig
