"""The address on Colab: in one place, in every notebook, and changed by one command that loses nothing."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest

from lecture_lib.errors import CourseError
from lecture_lib.tooling import exercises, pairing, project, publishing, reading
from lecture_lib.tooling.publishing import Address

ROOT = Path(__file__).parents[1]
BOOKS = project.notebooks(ROOT / "notebooks")
NOTEBOOKS = [
    *(book.paired for book in BOOKS),
    *(exercises.target(source) for source in exercises.sources(ROOT)),
]
FORK = Address("a-class/course.2026", "v1.2")


def first_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return cells[0].source, next(cell for cell in cells if cell.cell_type == "code")


def texts(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def copy(tmp_path):
    """What an address stands in: two notebooks, an exercise, and the papers."""
    root = tmp_path / "course"
    for folder in ("notebooks", "solutions", "exercises"):
        (root / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "jupytext.toml"):
        shutil.copy(ROOT / name, root)
    for book in project.select(["00_start_here", "L2_guidance_lecture"], ROOT / "notebooks"):
        shutil.copy(book.source, root / "notebooks")
        shutil.copy(book.paired, root / "notebooks")
    source = ROOT / "solutions" / "E2_guidance.py"
    shutil.copy(source, root / "solutions")
    shutil.copy(exercises.target(source), root / "exercises")
    return root


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_the_cell_and_the_badge_of_this_address(path):
    here = publishing.address(ROOT)
    title, code = first_cells(path)
    assert code.source == here.first_cell() and code.metadata["tags"] == [publishing.SETUP]
    badge = here.badge(f"{path.parent.name}/{path.name}")
    assert (badge in title) if badge else ("Open in Colab" not in title)


def test_the_readme_has_the_links_of_this_address():
    assert publishing.LINKS.search((ROOT / "README.md").read_text("utf-8"))[0] == publishing.links(
        ROOT, publishing.address(ROOT)
    )


def test_an_address_comes_everywhere(copy):
    publishing.publish(copy, FORK)
    assert publishing.address(copy) == FORK
    for path in (*copy.glob("notebooks/*.ipynb"), *copy.glob("exercises/*.ipynb")):
        title, code = first_cells(path)
        lines = title.split("\n")
        where = f"https://colab.research.google.com/github/a-class/course.2026/blob/v1.2/{path.relative_to(copy)}"
        assert lines[0].startswith("# ") and lines[1].endswith(f"]({where})") and lines[2] == ""
        assert "https://github.com/a-class/course.2026/archive/v1.2.zip" in code.source
        assert f"({where})" in (copy / "README.md").read_text("utf-8")
    everything = b"".join(texts(copy).values())
    assert publishing.NOWHERE.encode() not in everything.replace(b"--repo OWNER/NAME", b"")


def test_notebooks_and_sources_still_agree_and_no_output_is_lost(copy):
    before = {path: nbformat.read(path, as_version=4) for path in copy.glob("notebooks/*.ipynb")}
    publishing.publish(copy, FORK)
    for book in project.notebooks(copy / "notebooks"):
        assert pairing.drift(book) == ""
        after = nbformat.read(book.paired, as_version=4)
        assert [cell.id for cell in after.cells] == [cell.id for cell in pairing.read_source(book.source).cells]
        nbformat.validate(after)
        for old, new in zip(before[book.paired].cells, after.cells, strict=True):
            assert old.get("outputs") == new.get("outputs")
            assert old.get("execution_count") == new.get("execution_count")
    assert exercises.drifted(copy) == []


def test_the_next_address_replaces_the_last_one_and_the_way_back_is_exact(copy):
    home = publishing.address(copy)
    publishing.publish(copy, home)  # the README of a copy that has an address lists all notebooks; here are two
    at_first = texts(copy)
    assert publishing.publish(copy, home) == [], "publishing what is there changes nothing"
    publishing.publish(copy, FORK)
    once = texts(copy)
    assert publishing.publish(copy, FORK) == []
    publishing.publish(copy, Address("someone/else", "main"))
    assert not [path for path, text in texts(copy).items() if b"a-class" in text]
    publishing.publish(copy, FORK)
    assert texts(copy) == once
    publishing.publish(copy, home)
    assert texts(copy) == at_first


def break_notebook(root):
    (root / "notebooks" / "L2_guidance_lecture.ipynb").write_text("{", encoding="utf-8")


def lose_the_cell(root):
    path = root / "notebooks" / "L2_guidance_lecture.py"
    path.write_text(path.read_text("utf-8").replace('"setup"', '"set"'), encoding="utf-8")


def lose_the_marks(root):
    path = root / "README.md"
    path.write_text(path.read_text("utf-8").replace("<!-- end of links -->", ""), encoding="utf-8")


@pytest.mark.parametrize("damage", [break_notebook, lose_the_cell, lose_the_marks])
def test_nothing_is_written_when_something_cannot_be_read(copy, damage):
    damage(copy)
    before = texts(copy)
    with pytest.raises(CourseError, match=r"publish: .*(notebooks/L2_guidance_lecture|README)"):
        publishing.publish(copy, FORK)
    assert texts(copy) == before


@pytest.mark.parametrize(
    ("repository", "ref"),
    [
        ("course", "main"),
        ("https://github.com/a/b", "main"),
        ("a/b/c", "main"),
        ("-a/b", "main"),
        ("a/b c", "main"),
        ('a/b"); import os; ("', "main"),
        ("a/b", ""),
        ("a/b", "feature/x"),
        ("a/b", "--upload-pack"),
        ("a/b", "v1..2"),
        ("a/b", "v1.lock"),
        ("a/b\n", "main"),
        ("a/b", "main\n"),
        ("a/b", "ma in"),
    ],
)
def test_what_is_no_address_is_refused(repository, ref):
    with pytest.raises(CourseError, match=r"publish: .* expected"):
        Address(repository, ref)


def test_links_are_addresses_of_files_that_exist():
    for path in NOTEBOOKS:
        link = urlparse(FORK.link(f"{path.parent.name}/{path.name}"))
        assert link.scheme == "https" and link.netloc == "colab.research.google.com"
        assert (ROOT / link.path.split("/blob/v1.2/")[1]).is_file()


def test_the_reading_version_has_a_link_in_words_and_the_versions_but_not_the_cell(copy):
    publishing.publish(copy, FORK)
    nb = nbformat.read(copy / "notebooks" / "00_start_here.ipynb", as_version=4)
    html = reading.render(nb, "00_start_here").html
    assert f'<a href="{FORK.link("notebooks/00_start_here.ipynb")}">Open in Colab</a>' in html
    assert publishing.PICTURE not in html and "find_spec" not in html
    assert "torch" in html and "CPU, " in html
    assert "find_spec" in nb.cells[1].source, "the notebook itself is left as it is"


@pytest.mark.parametrize("there", [True, False])
def test_the_first_cell_installs_only_where_the_course_is_missing(there, monkeypatch, capsys):
    calls = []
    shell = types.SimpleNamespace(run_line_magic=lambda *words: calls.append(words))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if there else None)
    exec(compile(FORK.first_cell(), "<first cell>", "exec"), {})
    assert calls == ([] if there else [("pip", f"install -q {FORK.archive}")])
    printed = capsys.readouterr().out
    assert f"Python {sys.version.split()[0]}" in printed and "torch" in printed and printed.count("\n") == 1


def test_a_saved_notebook_is_still_json_that_jupyter_reads(copy):
    publishing.publish(copy, FORK)
    for path in copy.rglob("*.ipynb"):
        assert json.loads(path.read_text("utf-8"))["nbformat"] == 4
