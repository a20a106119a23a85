"""Starts JupyterLab on the first notebook of the course.

A lecture is presented there as slides (jupyterlab-slideshow), with widgets that work: Run > Run All Cells,
View > Collapse All Code, click the title cell (the deck starts at the selected cell, and on a cell that is no slide it
stays empty), then the deck button in the notebook's toolbar. Space goes on, Shift+Space goes back, Escape ends. A
click on a slider gives it the arrow keys; Space still goes on.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from lecture_lib.errors import MissingPackageError

FIRST = "notebooks/00_start_here.ipynb"
# Defaults only: what the reader sets in JupyterLab wins. Sizes for the last row hold while a deck is shown; the button
# for fonts, which comes with the deck's package, is hidden.
SETTINGS = Path(__file__).parent / "lab_settings"


def has_display() -> bool:
    """Whether a browser window can be expected to open here."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


def command(folder: Path, arguments: list[str]) -> list[str]:
    """The command line that serves ``folder``; ``arguments`` are passed on to JupyterLab and win over ours.

    Raises:
        MissingPackageError: JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise MissingPackageError('JupyterLab is not installed: run `make lab`, or pip install -e ".[lab]".')
    line = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    line += [f"--LabApp.default_url=/lab/tree/{FIRST}"]
    line += ["--LabApp.news_url=None", f"--LabApp.app_settings_dir={SETTINGS}"]  # no news, and no popup asking about it
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-root")  # containers run as root, and Jupyter would only refuse
    if not has_display() and "--no-browser" not in arguments:
        line.append("--no-browser")
    return line + arguments


def serve(folder: Path, arguments: list[str]) -> None:
    """Replace this process by JupyterLab, so that Ctrl-C and signals reach it directly."""
    line = command(folder, arguments)
    print(f"JupyterLab opens {FIRST}; its address with the access token follows. Stop it with Ctrl-C.", flush=True)
    os.chdir(folder)
    os.execv(line[0], line)
