"""``course nbgrader``: the same exercises for those who teach with nbgrader."""

from __future__ import annotations

from pathlib import Path

from lecture_lib.errors import CourseError
from lecture_lib.files import all_at_once
from lecture_lib.tooling import exercises, pairing, project

CONFIG = f"""# nbgrader reads this file in the folder in which it is called. The sources are made by `course nbgrader`.
#
#   nbgrader generate_assignment E2           release/E2: what students get
#   nbgrader autograde E2 --no-execute        submitted/STUDENT/E2 for the formgrader; no answer is run
#   course grade submitted --lecture 2 -o results --gradebook gradebook.db
#   nbgrader export
#
# Without --no-execute autograde gives marks of its own. It runs answers with your rights and beside its tests, and can
# be talked into full marks; `course grade` cannot, and replaces them.
c = get_config()
c.ClearSolutions.code_stub = {{"python": {exercises.STUB!r}}}
"""


def lay_out(out: Path) -> Path:
    """Write nbgrader's course folder: ``source/E2/E2_guidance.ipynb`` and the like, and ``nbgrader_config.py``.

    Raises:
        CourseError: the folder exists already.
    """
    import nbformat

    if out.exists():
        raise CourseError(f"nbgrader: {out} exists already; expected a new name")
    with all_at_once(out) as folder:
        for source in exercises.sources(project.root()):
            assignment = folder / "source" / source.stem.split("_")[0]
            assignment.mkdir(parents=True)
            nbformat.write(pairing.read_source(source), assignment / f"{source.stem}.ipynb")
        (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    return out
