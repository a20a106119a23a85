"""``course publish``: the address that Colab fetches the course from, in every badge and every first cell.

The address stands in one place, ``[tool.course]`` of ``pyproject.toml``. Everything here is made from it: the badge
below the title of a notebook, the cell that installs the course where it is missing, and the list of links in the
README. Outputs stay as they are, since nothing is run.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError
from lecture_lib.files import write_atomically
from lecture_lib.tooling import exercises, pairing, project

if TYPE_CHECKING:
    from nbformat import NotebookNode

SETUP = "setup"  # tag of the cell that installs the course
NOWHERE = "OWNER/NAME"  # the address of a copy that was not published
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
REFERENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # without a slash: Colab could not tell it from the path
BADGE = re.compile(r"^\[!\[Open in Colab\].*\n\n", re.MULTILINE)
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
LINKS = re.compile(r"(?<=<!-- links to Colab -->\n).*?(?=<!-- end of links -->)", re.DOTALL)
SETTINGS = re.compile(r'(?<=\[tool\.course\]\n)repository = ".*"\nref = ".*"\n')
FIRST_CELL = """\
# On Colab this fetches the course, and replaces nothing that is there. Elsewhere it only says what runs here.
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("lecture_lib") is None:
    get_ipython().run_line_magic("pip", "install -q {archive}")

from lecture_lib.tooling.info import summary

print(summary())"""


@dataclass(frozen=True)
class Address:
    """A repository on GitHub, ``owner/name``, and a branch, tag or commit of it.

    Raises:
        CourseError: they are no such names.
    """

    repository: str
    ref: str

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise CourseError(f"publish: the repository is {self.repository!r}, expected OWNER/NAME as on GitHub")
        if not REFERENCE.fullmatch(self.ref) or ".." in self.ref or self.ref.endswith((".lock", ".")):
            raise CourseError(f"publish: ref is {self.ref!r}, expected a tag, a commit, or a branch without a slash")

    @property
    def published(self) -> bool:
        """Whether it is one; a copy that was not published yet has a place for it only."""
        return self.repository != NOWHERE

    @property
    def archive(self) -> str:
        """What pip installs; a zip, so that no git is needed."""
        return f"https://github.com/{self.repository}/archive/{self.ref}.zip"

    def link(self, path: str) -> str:
        """Where Colab opens a notebook of the repository."""
        return f"https://colab.research.google.com/github/{self.repository}/blob/{self.ref}/{path}"

    def badge(self, path: str) -> str:
        """The line below a title; empty for a copy without an address, since a dead link helps nobody."""
        return f"[![Open in Colab]({PICTURE})]({self.link(path)})" if self.published else ""

    def first_cell(self) -> str:
        """The code of the cell that installs the course where it is missing."""
        return FIRST_CELL.format(archive=self.archive)


def address(root: Path) -> Address:
    """The address in ``pyproject.toml``."""
    course = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]
    return Address(course["repository"], course["ref"])


def publish(root: Path, new: Address) -> list[Path]:
    """Write an address into everything that names one; returns the files that changed.

    All texts are made before the first is written, so a notebook that cannot be read leaves the others alone.
    """
    texts = {path: _replaced(path, pattern, text) for path, pattern, text in _papers(root, new)}
    for book in project.notebooks(root / "notebooks"):
        texts |= _notebook(book.source, book.paired, new, f"notebooks/{book.paired.name}")
    for source in exercises.sources(root):
        texts |= _exercise(source, new)
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        write_atomically(path, texts[path].encode())
    return changed


def addressed(nb: NotebookNode, new: Address, path: str) -> NotebookNode:
    """A notebook with the badge and the first cell of an address (in place).

    Raises:
        CourseError: it has no cell with the tag ``setup``, or does not begin with a title.
    """
    setup = [cell for cell in nb.cells if SETUP in cell.metadata.get("tags", [])]
    if len(setup) != 1 or not nb.cells[0].source.startswith("# "):
        raise CourseError(f"publish: {path} needs a title, and one cell with the tag {SETUP!r}; it has {len(setup)}")
    setup[0].source = new.first_cell()
    title, *rest = BADGE.sub("", nb.cells[0].source).split("\n")
    badge = new.badge(path)
    nb.cells[0].source = "\n".join([title, *([badge, ""] if badge else []), *rest])
    return nb


def _notebook(source: Path, paired: Path, new: Address, path: str) -> dict[Path, str]:
    import nbformat

    try:
        nb = addressed(nbformat.read(paired, as_version=4), new, path)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise CourseError(f"publish: {path} cannot be read ({type(error).__name__}); nothing was changed") from error
    pairing.set_stable_ids(nb)
    text = pairing.as_source(addressed(pairing.read_source(source), new, path), source)
    return {source: text, paired: nbformat.writes(nb) + "\n"}


def _exercise(source: Path, new: Address) -> dict[Path, str]:
    target = exercises.target(source)
    solved = addressed(pairing.read_source(source), new, f"exercises/{target.name}")
    text = pairing.as_source(solved, source)
    return {source: text, target: exercises.as_text(solved)}


def _papers(root: Path, new: Address) -> list[tuple[Path, re.Pattern[str], str]]:
    return [
        (root / "pyproject.toml", SETTINGS, f'repository = "{new.repository}"\nref = "{new.ref}"\n'),
        (root / "README.md", LINKS, links(root, new)),
    ]


def links(root: Path, new: Address) -> str:
    """The lines of the README that open the notebooks on Colab."""
    if not new.published:
        return "This copy has no address yet, so there is nothing to click on.\n"
    books = [(book.paired.stem, f"notebooks/{book.paired.name}") for book in project.notebooks(root / "notebooks")]
    books += [(path.stem, f"exercises/{exercises.target(path).name}") for path in exercises.sources(root)]
    return "\n".join(f"- [{name}]({new.link(path)})" for name, path in books) + "\n"


def _replaced(path: Path, pattern: re.Pattern[str], text: str) -> str:
    found, count = pattern.subn(lambda _: text, path.read_text(encoding="utf-8"))
    if count != 1:
        raise CourseError(f"publish: {path.name} has {count} places for the address, expected one")
    return found
