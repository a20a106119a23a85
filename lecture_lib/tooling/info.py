"""What ``course info`` prints: the facts that a bug report needs, also when half of the packages are missing."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from lecture_lib import __version__
from lecture_lib.errors import CourseError
from lecture_lib.tooling.execute import cores

PACKAGES = (
    "numpy",
    "scipy",
    "matplotlib",
    "scikit-learn",
    "ipywidgets",
    "jupyterlab",
    "jupytext",
    "einops",
    "safetensors",
)


def report() -> Iterator[tuple[str, str]]:
    """Pairs of (what, value), one per line of the report."""
    yield "lecture_lib", __version__
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "cpu", f"{_processor()}, {cores()} cores usable of {os.cpu_count()}"
    yield "memory", _memory()
    yield from _torch()
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield "zoo", _zoo()


def summary() -> str:
    """One line for the top of a notebook: versions and device."""
    torch = import_module("torch")
    if torch.cuda.is_available():
        device = f"GPU: {torch.cuda.get_device_name()}"
    else:
        device = f"CPU, {cores()} cores"
    return f"lecture_lib {__version__} · Python {platform.python_version()} · torch {torch.__version__} · {device}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _processor() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _torch() -> Iterator[tuple[str, str]]:
    """Build, threads and devices of torch; a torch that does not import says why."""
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of the CUDA build is missing
        yield "torch", f"does not import ({type(error).__name__}: {error})"
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield "torch", f"{torch.__version__} ({build} build, {torch.get_num_threads()} threads)"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield "device", f"cuda: {', '.join(names)}"
    else:
        yield "device", "cpu (no CUDA device)"


def _zoo() -> str:
    """One line on the pretrained weights."""
    try:
        rows = import_module("lecture_lib.zoo").status()
    except (ImportError, OSError, CourseError) as error:
        return f"cannot be read ({type(error).__name__}: {error})"
    bad = [row.name for row in rows if row.state != "ready"]
    wrong = f"missing, damaged or old: {', '.join(bad)} (`course zoo` says more)"
    return f"{len(rows)} models, {wrong if bad else 'all present and intact'}"
