"""Where the course's folder is, and which notebooks it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lecture_lib.errors import CourseError, UnknownNameError


@dataclass(frozen=True)
class Notebook:
    """One notebook of the course: ``source`` is the ``.py:percent`` text, ``paired`` the ``.ipynb`` made from it."""

    source: Path

    @property
    def name(self) -> str:
        """The name on the command line, e.g. ``L2_guidance_lecture``."""
        return self.source.stem

    @property
    def paired(self) -> Path:
        """The executed notebook next to the source."""
        return self.source.with_suffix(".ipynb")


def is_root(folder: Path) -> bool:
    """Whether ``folder`` is a checkout of the course, and not merely an installed package."""
    return (
        (folder / "pyproject.toml").is_file() and (folder / "lecture_lib").is_dir() and (folder / "notebooks").is_dir()
    )


def root() -> Path:
    """The course's folder: where the package was installed from, else the first that fits from here upwards.

    Raises:
        CourseError: there is none, as when the package was installed from a wheel.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if is_root(folder):
            return folder
    raise CourseError(f"No checkout of the course around {here}: run this inside a clone of the repository.")


def notebooks(folder: Path | None = None) -> list[Notebook]:
    """All notebooks of the course in reading order: those with a ``.py`` source in ``notebooks/``."""
    folder = folder or root() / "notebooks"
    sources = [path for path in folder.glob("*.py") if path.read_text(encoding="utf-8").startswith("# ---")]
    # A lab comes after its lecture, although "lab" sorts before "lecture".
    return sorted(map(Notebook, sources), key=lambda book: book.name.replace("_lab", "_zlab"))


def select(names: list[str], folder: Path | None = None) -> list[Notebook]:
    """The notebooks with these names (with or without folder and suffix); all of them when ``names`` is empty.

    Raises:
        UnknownNameError: a name is not there; the message lists the ones that are.
    """
    books = {book.name: book for book in notebooks(folder)}
    wanted = [Path(name).stem for name in names]
    unknown = [name for name in wanted if name not in books]
    if unknown:
        raise UnknownNameError(f"No notebook called {', '.join(unknown)}; there are: {', '.join(books) or 'none yet'}.")
    return [book for name, book in books.items() if not wanted or name in wanted]
