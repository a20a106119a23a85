"""The papers of the installation say the same: pyproject.toml, environment.yml, constraints.txt, CITATION.cff."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import lecture_lib
from lecture_lib import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "pillow": "pillow"}
FROM_PIP = {"jupyterlab-slideshow", "math-core", "ziamath"}  # not packaged by conda-forge, or not kept up to date there
FORBIDDEN = {"torchvision", "timm", "k-diffusion", "torch-fidelity", "clean-fid", "smalldiffusion"}


def requirements(*extras: str) -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {requirement.name.lower(): requirement for requirement in map(Requirement, lines)}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_conda_environment_equals_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    got = {*(entry for entry in listed if isinstance(entry, str)), *pip}
    wanted = {f"python{PROJECT['requires-python']}", "pip", "-e ."}
    for name, requirement in requirements("lab").items():
        wanted.add(f"{CONDA_NAMES.get(name, name)}{requirement.specifier}")
    assert got == wanted
    assert {Requirement(entry).name for entry in pip if not entry.startswith("-")} == FROM_PIP


def test_pyproject_has_lower_bounds_only():
    for name, requirement in requirements(*EXTRAS).items():
        assert [spec.operator for spec in requirement.specifier] == [">="], name


def test_constraints_fulfil_the_lower_bounds():
    exact = constraints()
    for name, requirement in requirements("lab", "dev", "oracles", "grading").items():
        assert name in exact, f"{name} is not in constraints.txt; run tools/freeze.sh"
        assert requirement.specifier.contains(exact[name]), f"{name} {exact[name]} is below {requirement.specifier}"


def test_constraints_name_no_build_and_nothing_that_breaks_torch():
    exact = constraints()
    assert exact["torch"] == "2.13.0"
    assert not any("+" in version for version in exact.values()), "a local build label excludes the other builds"
    assert not FORBIDDEN & set(exact)


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_what_breaks_torch_is_not_a_dependency(package):
    assert package not in requirements(*EXTRAS)


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == lecture_lib.__version__
    assert f"## {lecture_lib.__version__}" in changelog
    assert Version(lecture_lib.__version__).release


PAPERS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("exercises/*.md")]
each_paper = pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.name)


@each_paper
def test_links_of_the_papers_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


@each_paper
def test_commands_that_the_papers_name_exist(page):
    """Whatever stands as code and begins with ``course`` or ``make``, options included."""
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", text) + [
        line for block in re.findall(r"```.*?```", text, re.DOTALL) for line in block.splitlines()
    ]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = typer.main.get_command(cli.app).commands
    for words in (span.strip().split() for span in spans):
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in targets, " ".join(words)
        if words[:1] == ["course"] and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in commands, " ".join(words)
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            passed_on = commands[words[1]].ignore_unknown_options
            assert passed_on or {word for word in words[2:] if word.startswith("-")} <= known, " ".join(words)


def test_the_example_of_the_readme_runs():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["points"].shape == (512, 2)
    assert names["points"][:, 0].abs().mean() > 1.5, "the points lie on both modes"
