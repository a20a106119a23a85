"""Files and folders that are there whole, or not at all."""

from __future__ import annotations

import pytest

from lecture_lib import files


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "a.bin"
    files.write_atomically(path, b"first")
    files.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        files.write_atomically(path, b"third")
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


def test_what_is_made_appears_when_it_is_done(tmp_path):
    out = tmp_path / "deep" / "class.zip"
    with files.all_at_once(out) as place:
        assert place.name == out.name and not out.exists()
        place.write_bytes(b"whole")
        (place.parent / "scratch.txt").write_text("left behind")
    assert out.read_bytes() == b"whole" and list(out.parent.iterdir()) == [out]

    folder = tmp_path / "folder"
    with files.all_at_once(folder) as place:
        place.mkdir()
        (place / "a.txt").write_text("a")
    assert (folder / "a.txt").read_text() == "a"


def test_after_an_error_nothing_is_there(tmp_path):
    with pytest.raises(ValueError, match="half way"), files.all_at_once(tmp_path / "out") as place:
        place.mkdir()
        (place / "a.txt").write_text("a")
        raise ValueError("half way")
    assert list(tmp_path.iterdir()) == []
