"""The ``course`` command: help, exit codes, and errors that a person can act on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lecture_lib import __version__, cli, zoo
from lecture_lib.errors import CourseError, MissingPackageError, UnknownNameError
from lecture_lib.tooling import benching, info, project, server, testing

ROOT = Path(__file__).parents[1]
COMMANDS = ("lab", "run", "test", "check", "train", "zoo", "info", "bench", "slides")


def course(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "lecture_lib.cli", *arguments]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_the_commands():
    result = course("--help")
    assert result.returncode == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name):
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.split("Options:")[0]) > 60, "help says what the command does"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command"),
        (["run", "--nonsense"], "No such option"),
        (["run", "no_such_notebook"], "no_such_notebook"),
        (["run", "--write", "--html-only"], "runs nothing"),
        (["zoo", "--embed"], "--evaluate"),
        (["bench", "no_such_benchmark"], "import_time"),
        (["train"], "Missing argument"),
        (["train", "no_such_recipe"], "digits-dit"),
    ],
)
def test_a_wrong_command_is_one_clear_error(arguments, says):
    result = course(*arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_info_has_what_a_bug_report_needs():
    result = course("info")
    assert result.returncode == 0
    words = [line.split()[0] for line in result.stdout.splitlines()]
    assert words == ["lecture_lib", "python", "system", "cpu", "memory", "torch", "device", "packages", "zoo"]
    assert __version__ in result.stdout


def test_info_works_where_torch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` raise ImportError
    monkeypatch.setitem(sys.modules, "lecture_lib.zoo", None)
    report = dict(info.report())
    assert "does not import" in report["torch"]
    assert "cannot be read" in report["zoo"]


def test_info_says_missing_for_a_missing_package(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("numpy", "no-such-package-at-all"))
    assert "no-such-package-at-all missing" in dict(info.report())["packages"]


# --- zoo ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accuracy", "code"), [(1.0, 0), (0.5, 1)])
def test_evaluate_embeds_only_when_asked_and_fails_when_a_bar_is_missed(monkeypatch, accuracy, code):
    embedded = {}
    rows = [zoo.Row(name, f"accuracy of {name}", (accuracy,), 0.9) for name in zoo.names()]
    monkeypatch.setattr(zoo, "evaluate", lambda: iter(rows))
    monkeypatch.setattr(zoo, "embed", lambda name, metrics: embedded.update({name: metrics}))
    assert CliRunner().invoke(cli.app, ["zoo", "--evaluate"]).exit_code == code
    assert not embedded
    assert CliRunner().invoke(cli.app, ["zoo", "--evaluate", "--embed"]).exit_code == code
    assert embedded == {name: {f"accuracy of {name}": f"{accuracy:.4g}"} for name in zoo.names()}


# --- lab ---------------------------------------------------------------------------------------------------------


def test_lab_opens_the_first_notebook_without_a_popup(monkeypatch):
    monkeypatch.setattr(server, "has_display", lambda: True)
    line = server.command(ROOT, [])
    assert f"--LabApp.default_url=/lab/tree/{server.FIRST}" in line
    assert "--LabApp.news_url=None" in line
    assert "--no-browser" not in line


def test_lab_without_a_display_prints_the_address_only(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert server.command(ROOT, ["--port=8890"])[-2:] == ["--no-browser", "--port=8890"]
    assert server.command(ROOT, ["--no-browser"]).count("--no-browser") == 1


def test_lab_says_how_to_install_jupyterlab(monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="make lab"):
        server.command(ROOT, [])


# --- finding things ----------------------------------------------------------------------------------------------


def test_the_checkout_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project.root() == ROOT


def test_outside_of_a_checkout_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "is_root", lambda folder: False)
    with pytest.raises(CourseError, match="clone"):
        project.root()


def test_notebooks_are_selected_by_name_path_or_file(tmp_path):
    for name in ("L2_b_lab", "L2_b_lecture", "00_start"):
        (tmp_path / f"{name}.py").write_text("# ---\n# jupyter:\n# ---\n")
    (tmp_path / "helper.py").write_text("print('not a notebook')\n")
    everything = [book.name for book in project.select([], tmp_path)]
    assert everything == ["00_start", "L2_b_lecture", "L2_b_lab"]
    some = project.select(["notebooks/L2_b_lab.ipynb", "00_start"], tmp_path)
    assert [book.name for book in some] == ["00_start", "L2_b_lab"]
    with pytest.raises(UnknownNameError, match="L2_b_lecture"):
        project.select(["L9"], tmp_path)


# --- counting ----------------------------------------------------------------------------------------------------


def test_counts_add_up(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.fixture\ndef broken(): raise RuntimeError\n"
        "def test_error(broken): pass\n"
        "def test_skipped(): pytest.skip('why not')\n"
    )
    counts = testing.pytest(tmp_path, ["-q", "-p", "no:cacheprovider", "test_a.py"])
    assert counts == testing.Counts(passed=1, failed=2, skipped=1)
    assert str(counts + counts) == "2 passed, 4 failed, 2 skipped"


def test_a_test_run_that_cannot_start_is_a_failure(tmp_path):
    assert testing.pytest(tmp_path, ["-q", "no_such_file.py"]).failed == 1


def test_quick_and_all_choose_by_marker():
    assert testing.marks(quick=False, everything=False) == ["-m", "not slow"]
    assert testing.marks(quick=True, everything=False) == ["-m", "not slow and not browser"]
    assert testing.marks(quick=False, everything=True) == []


@pytest.mark.parametrize(("counts", "code"), [((3, 0, 1), 0), ((3, 1, 0), 1), ((0, 0, 2), 1)])
def test_the_last_line_of_the_test_command_is_the_counts(monkeypatch, counts, code):
    monkeypatch.setattr(testing, "run", lambda *_, **__: testing.Counts(*counts))
    result = CliRunner().invoke(cli.app, ["test", "--quick"])
    assert result.stdout.splitlines()[-1] == "{} passed, {} failed, {} skipped".format(*counts)
    assert result.exit_code == code, "nothing passed is no proof either"


# --- benchmarks --------------------------------------------------------------------------------------------------


def test_every_benchmark_can_be_run_by_name():
    from importlib import import_module

    for name in benching.names():
        module = import_module(f"lecture_lib.benchmarks.{name}")
        assert callable(module.measure) and module.__doc__


def test_a_measurement_says_whether_its_bar_holds():
    assert "holds" in str(benching.Measurement("time", 0.1, "s", 0.3))
    assert "MISSED" in str(benching.Measurement("time", 0.4, "s", 0.3))
    assert benching.Measurement("size", 5, "MB").within
