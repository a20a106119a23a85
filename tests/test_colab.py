"""The course where Colab's versions are: the first cell installs it, and then notebooks and their widgets run.

Needs ``.venv-colab``, which ``make colab`` and CI make; skipped, and said so, where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nbclient
import nbformat
import pytest

import lecture_lib
from lecture_lib.tooling import exercises, project, publishing

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("COLAB_PYTHON", ROOT / ".venv-colab" / "bin" / "python"))
ADDED = {"jaxtyping", "lecture-lib", "wadler-lindig"}  # jaxtyping needs the third
CHECKED = "# NBVAL_CHECK_OUTPUT"
# Moves every control of the widgets that a notebook shows; a callback that fails raises here.
MOVES = """
import ipywidgets

def _move(widget):
    if isinstance(widget, (ipywidgets.FloatSlider, ipywidgets.FloatLogSlider, ipywidgets.IntSlider)):
        widget.value = widget.max
        widget.value = widget.min
    elif isinstance(widget, (ipywidgets.SelectionSlider, ipywidgets.Dropdown, ipywidgets.ToggleButtons)):
        widget.index = len(widget.options) - 1
    else:
        return 0
    return 1

print("moved", sum(map(_move, list(ipywidgets.Widget.widgets.values()))), "on ipywidgets", ipywidgets.__version__)
"""

pytestmark = [
    pytest.mark.colab,
    pytest.mark.skipif(not PYTHON.is_file(), reason="no .venv-colab with Colab's versions; `make colab` makes it"),
]


def packages() -> dict[str, str]:
    command = [PYTHON, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in listed}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A function that runs a notebook in Colab's environment, from a folder where nothing of the course lies."""
    home = tmp_path_factory.mktemp("colab")
    spec = {"argv": [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    (home / "kernels" / "colab").mkdir(parents=True)
    (home / "kernels" / "colab" / "kernel.json").write_text(json.dumps({**spec, "display_name": "Colab"}))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(nb):
        os.environ["JUPYTER_PATH"] = str(home)
        client = nbclient.NotebookClient(
            nb,
            kernel_name="colab",
            timeout=300,
            store_widget_state=False,
            extra_arguments=["--log-level=40"],
            resources={"metadata": {"path": str(home)}},
        )
        client.execute(env=environment)
        return nb

    before = os.environ.get("JUPYTER_PATH")
    yield run
    os.environ.pop("JUPYTER_PATH")
    if before is not None:
        os.environ["JUPYTER_PATH"] = before


@pytest.fixture(scope="module")
def bare():
    """Colab as one finds it: the course is not there. Returns the versions that are."""
    subprocess.run([PYTHON, "-m", "pip", "uninstall", "-qq", "-y", *ADDED], check=True, capture_output=True)
    return packages()


def from_here(nb):
    """The notebook, whose first cell fetches this checkout in the place of the archive on GitHub."""
    archive = publishing.address(ROOT).archive
    (setup,) = [cell for cell in nb.cells if publishing.SETUP in cell.metadata.get("tags", [])]
    assert archive in setup.source
    setup.source = setup.source.replace(archive, f"--disable-pip-version-check {ROOT}")
    return nb


def printed(nb) -> str:
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def checked(nb) -> list[str]:
    """What the cells print that nbval compares: the same numbers on every machine."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code" and CHECKED in cell.source]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def executed(name, kernel) -> str:
    """Run a notebook of the course, move its controls, compare its checked numbers; returns what it printed."""
    (book,) = project.select([name], ROOT / "notebooks")
    nb = from_here(nbformat.read(book.paired, as_version=4))
    at_home = checked(nb)
    nb.cells.append(nbformat.v4.new_code_cell(MOVES))
    text = printed(kernel(nb))
    assert at_home and checked(nb) == at_home
    assert "on ipywidgets 7.7.1" in text and "moved 0" not in text
    return text


@pytest.fixture(scope="module")
def start_page(bare, kernel):
    """What the start page prints; afterwards the course is there, as on Colab after the first notebook."""
    return executed("00_start_here", kernel)


def test_the_first_cell_installs_the_course_and_replaces_nothing(bare, start_page):
    after = packages()
    assert set(after) - set(bare) == ADDED
    assert {name: after[name] for name in bare} == bare
    assert f"lecture_lib {lecture_lib.__version__} · Python 3." in start_page


def test_a_lecture_runs_with_the_same_numbers_and_its_controls_move(start_page, kernel):
    executed("L2_guidance_lecture", kernel)


def test_an_exercise_answers_as_at_home(start_page, kernel):
    source = next(path for path in exercises.sources(ROOT) if path.stem.startswith("E2"))
    solved = printed(kernel(from_here(exercises.pairing.read_source(source))))
    assert solved.count("✓") >= 12
    stub = nbformat.reads(exercises.students_text(source), as_version=4)
    text = printed(kernel(from_here(stub)))
    assert "✓" not in text and text.count("is still empty") == 12
