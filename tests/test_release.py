"""What students get: everything they need and nothing of a solution."""

from __future__ import annotations

import json
import zipfile

import pytest
import small_deck

from lecture_lib.errors import CourseError
from lecture_lib.tooling import exercises, project, publishing, releasing, running


@pytest.mark.parametrize("lecture", (1, 2, 3, 4, 5))
def test_a_folder_has_the_notebooks_and_no_solution(lecture, tmp_path):
    folder = releasing.release(lecture, tmp_path / "students")
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 4 and "README.txt" in names
    exercise = next(path for path in folder.iterdir() if path.name.startswith("E"))
    cells = json.loads(exercise.read_text())["cells"]
    stubs = [cell for cell in cells if "NotImplementedError" in "".join(cell["source"]) and cell["cell_type"] == "code"]
    assert len(stubs) >= 10 and not any(cell.get("outputs") for cell in cells)
    source = (project.root() / "solutions" / f"{exercise.stem}.py").read_text()
    assert releasing.leaking(folder, source) == []


def test_a_zip_has_the_same(tmp_path):
    with zipfile.ZipFile(releasing.release(2, tmp_path / "week2.zip")) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    assert "week2/E2_guidance.ipynb" in names and len(names) == 4


def test_a_leak_stops_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "stripped", lambda nb: nb)  # a stripping that forgets to strip
    with pytest.raises(CourseError, match="would get out"):
        releasing.release(2, tmp_path / "students")
    assert not (tmp_path / "students").exists()


def test_the_speakers_notes_stay_with_the_speaker(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "saved", lambda book: small_deck.notebook())
    folder = releasing.release(2, tmp_path / "students")
    lectures = [path.read_text(encoding="utf-8") for path in folder.glob("L2_*.ipynb")]
    assert len(lectures) == 2
    for text in lectures:
        assert small_deck.SKIPPED in text and small_deck.NOTE not in text and "Speaker" not in text


@pytest.mark.parametrize("repository", ["a-class/course", publishing.NOWHERE])
def test_the_letter_promises_colab_only_where_its_first_cell_works(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "address", lambda root: publishing.Address(repository, "main"))
    letter = (releasing.release(2, tmp_path / "students") / "README.txt").read_text(encoding="utf-8")
    assert ("On Colab" in letter) == (repository != publishing.NOWHERE)
    assert "E2_guidance.ipynb" in letter and "{" not in letter


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "students").mkdir()
    with pytest.raises(CourseError, match="exists already"):
        releasing.release(2, tmp_path / "students")
