"""The zoo on the command line: list, evaluate, train."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lecture_lib.errors import MissingPackageError, UnknownNameError

if TYPE_CHECKING:  # the zoo loads torch, and `course` must not
    from lecture_lib.zoo import Recipe


def _zoo() -> ModuleType:
    """The zoo, imported when asked for: it loads torch."""
    try:
        return import_module("lecture_lib.zoo")
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"The zoo needs {error.name}, which is not installed: run `make lab`.") from error


def show_status() -> bool:
    """Print each pretrained model with what is known about it; whether all of them are present and intact."""
    rows = _zoo().status()
    for row in rows:
        print(f"{row.name:<29} {row.parameters:>10,} parameters {row.bytes / 1e6:6.2f} MB  {row.state}")
        print(f"  {row.kind}: {row.about}")
        if row.metrics:
            print(f"  {', '.join(f'{key} {_short(value)}' for key, value in row.metrics.items())}")
    print(f"{len(rows)} models, {sum(row.bytes for row in rows) / 1e6:.2f} MB")
    return all(row.state.startswith("ready") for row in rows)


def show_evaluation(*, embed: bool = False) -> bool:
    """Measure the models now and print each figure as it is known; whether every bar holds.

    With ``embed`` the figures replace those in the weights files, whether or not the bars hold.
    """
    zoo, rows = _zoo(), []
    print(f"\n{'model':<29} {'measure':<58} {'mean ± spread':>18}  bar")
    for row in zoo.evaluate():
        bar = "" if row.bar is None else f"{'≥' if row.at_least else '≤'} {row.bar:.4g}: {_verdict(row.passed)}"
        print(f"{row.name:<29} {row.measure:<58} {row.figure:>18}  {bar}", flush=True)
        rows.append(row)
    if embed:
        for name in zoo.names():
            print(f"embedded: {zoo.embed(name, zoo.summary(row for row in rows if row.name == name))}")
    return all(row.passed for row in rows)


def train(name: str, directory: Path, *, resume: bool, install: bool) -> None:
    """Train one recipe into ``directory``, with a progress bar; with ``install`` the result goes into the zoo."""
    zoo = _zoo()
    recipe = zoo.recipe(name)  # an unknown name is an error that lists the names, before anything is created
    checkpoint = _train(zoo, recipe, directory, resume=resume)
    if install:
        print(f"installed in the zoo, with its measured figures: {_install(zoo, name, checkpoint)}")
    else:
        print(f"done: {checkpoint} (course train {name} --install puts it into the zoo)")


def _train(zoo: ModuleType, recipe: Recipe, directory: Path, *, resume: bool) -> Path:
    """The finished checkpoint of a training with a progress bar."""
    from tqdm.auto import tqdm

    steps = zoo.train(recipe, directory, resume=resume)
    checkpoint = directory / f"{recipe.name}.ckpt"
    print(f"training {recipe.name} for {recipe.steps} steps into {checkpoint}; the same command goes on after Ctrl-C")
    with tqdm(total=recipe.steps, unit="step") as bar:
        for step in steps:
            bar.update(step.number - bar.n)
            bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
    return checkpoint


def mnist(directory: Path) -> None:
    """Train every family on MNIST, each into its own checkpoint in ``directory``, and measure them as the digits' are.

    What is finished is not trained again; without a network nothing is written at all.
    """
    from lecture_lib.benchmarks import families
    from lecture_lib.tooling import benching
    from lecture_lib.zoo.library import keep
    from lecture_lib.zoo.mnist import mnist_pictures, mnist_recipes

    data = mnist_pictures(directory / "weights")
    print(f"{len(data.train())} digits to train on, {len(data.test())} to test with", flush=True)
    features, recipes = mnist_recipes(data)
    for recipe in (features, *recipes):
        keep(recipe, _train(_zoo(), recipe, directory, resume=True))
    measurements = []
    for measurement in families.measure(recipes):
        print(measurement, flush=True)
        measurements.append(measurement)
    for path in benching.save("families", measurements, directory):
        print(f"wrote {path}", flush=True)


def scale(name: str, path: Path, *, shards: int, steps: int | None, spread: str) -> None:
    """Train one recipe in all processes of the group that ``torchrun`` started; process 0 speaks."""
    from lecture_lib.zoo import scale_out as room

    recipe, ways = _zoo().recipe(name), {"copies": room.copies, "parts": room.parts}
    if spread not in ways:
        raise UnknownNameError(f"spread: got {spread!r}, expected one of {', '.join(ways)}")
    with room.process_group():
        began = time.monotonic()
        for step in room.scale_out(recipe, path, shards=shards, steps=steps, spread=ways[spread]):
            if room.rank() == 0 and (step.number == 1 or step.number % 50 == 0 or step.number == steps):
                print(
                    f"{step.number:>6} loss {step.loss:.6f}  {step.number / (time.monotonic() - began):.1f} updates/s"
                )
        if room.rank() == 0:
            print(f"{room.processes()} processes, {shards} shards: {path}")


def _install(zoo: ModuleType, name: str, checkpoint: Path) -> Path:
    """Weights into the zoo, then the figures that these weights reach into the same file."""
    zoo.install(checkpoint)
    return zoo.embed(name, zoo.summary(zoo.evaluate([name])))


def _verdict(passed: bool) -> str:
    return "holds" if passed else "MISSED"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
