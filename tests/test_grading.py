"""Marks that are due, and no others: honest, damaged and hostile submissions, and a grader that is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from submissions import GUIDANCE, MINI, RIGHT, SHORT, cells, marks_of, notebook

from lecture_lib.errors import CourseError, MissingPackageError
from lecture_lib.exercises.judging import judge
from lecture_lib.exercises.task import Sheet
from lecture_lib.grading import report
from lecture_lib.grading.grade import grade
from lecture_lib.grading.submission import Unreadable, found, read
from lecture_lib.sandbox.box import Sandbox, heard
from lecture_lib.sandbox.inside import wire
from lecture_lib.sandbox.inside.cutting import NothingHere, run_slice, slice_for
from lecture_lib.tooling import marking

# Hostile answers to 2.2; 2.1 and 2.3 are right -----------------------------------------------------------------------

TRUE = "return eps - scale * sigma[:, None] * grad_log_prob"


def forging(reply: str) -> str:
    """The body of an answer that writes a reply of its own."""
    return f"""text = sys.modules['inside.wire'].pack({reply})
for k in range(3, 64):
    with contextlib.suppress(OSError): os.write(k, text)
os._exit(0)"""


FLOOD = """for k in range(3, 64):
    with contextlib.suppress(OSError):
        while True: os.write(k, bytes(1 << 16))"""
HOSTILE = {  # the body of an answer to 2.2, what stands before it, and what is due
    "syntax": ("return ((eps", "", 0),
    "endless": ("while True: pass", "", 0),
    "exits": ("os._exit(0)", "", 0),
    "raises_exit": ("raise SystemExit", "", 0),
    "patches_numpy": ("np.testing.assert_allclose = np.allclose = lambda *a, **k: True\nreturn eps", "", 0),
    "patches_the_grader": ("sys.modules['inside.answering'].plain = lambda v: None\nreturn eps", "", 0),
    "patches_torch": ("torch.Tensor.__eq__ = torch.equal = torch.allclose = lambda *a, **k: True\nreturn eps", "", 0),
    "equal_to_all": ("return Same()", "class Same:\n    def __eq__(self, other): return True", 0),
    "prints_much": ("print('a' * (40 << 20))\n" + TRUE, "", 8),
    "allocates": ("hoard = [bytearray(1 << 28) for _ in range(48)]\n" + TRUE, "", 0),
    "forks": ("while True: os.fork()", "", 0),
    "leaves_a_process": ("subprocess.Popen(['sleep', '600'])\n" + TRUE, "", 8),
    "returns_a_gigabyte": ("return torch.zeros(1 << 28)", "", 0),
    "returns_nan": ("return eps * float('nan')", "", 0),
    "returns_integers": ("return (eps - scale * sigma[:, None] * grad_log_prob).int()", "", 0),
    "returns_complex": ("return (eps - scale * sigma[:, None] * grad_log_prob).to(torch.complex64)", "", 0),
    "returns_double": ("return eps.double() - scale * sigma[:, None] * grad_log_prob", "", 8),
    "writes_a_reply": (
        "for k in range(3, 64):\n    with contextlib.suppress(OSError): os.write(k, b'x')\n" + TRUE,
        "",
        0,
    ),
    "forges_a_failure": (forging("{'failed': 'walls', 'detail': 'x'}"), "", 0),
    "floods_the_reply": (FLOOD, "", 0),
    "kills_all": ("with contextlib.suppress(OSError): os.kill(-1, signal.SIGKILL)\n" + TRUE, "", 8),
    "deletes": ("for p in ('/work', '/own', '/tmp', '/etc'): shutil.rmtree(p, ignore_errors=True)\n" + TRUE, "", 8),
    "imports_the_course": ("from lecture_lib.exercises.lecture2.rule import classifier_guided\n" + TRUE, "", 0),
    "asks_the_net": ("socket.create_connection(('8.8.8.8', 53), timeout=1)\n" + TRUE, "", 0),
    "recursion": ("return classifier_guided(eps, grad_log_prob, sigma, scale)", "", 0),
    "raises_half_a_letter": ("raise ValueError(chr(0xDC80))", "", 0),
    "hides_memory": ("m = mmap.mmap(-1, 3 << 30)\nfor _ in range(96): m.write(bytes(32 << 20))\n" + TRUE, "", 0),
    "endless_number": ("return 10 ** 4000", "", 0),
    "is_lost_in_lists": ("return [[[[[eps]]]]]", "", 0),
    "forges_a_failure_beside_values": (forging("{'outcomes': [], 'failed': 'walls', 'detail': 'x'}"), "", 0),
    "forges_an_error": (
        forging("{'outcomes': [{'error': 'E' * 10**5, 'message': 'm' * 10**5, 'line': np.zeros(3)}] * 5}"),
        "",
        0,
    ),
    "forges_no_list": (forging("{'outcomes': {'value': 1}}"), "", 0),
    "returns_twice": ("os.fork()\n" + TRUE, "", 0),
    "does_not_exit": ("os._exit = lambda code: None\n" + TRUE, "", 8),
    "exits_when_it_is_forgotten": ("D()\n" + TRUE, "class D:\n    def __del__(self): sys.exit(3)", 8),
    "stops_itself": ("os.kill(os.getpid(), signal.SIGSTOP)\n" + TRUE, "", 8),
    "closes_everything": ("os.closerange(0, 100)\n" + TRUE, "", 0),
    "fills_the_disk": (
        "with contextlib.suppress(OSError):\n    for k in range(10**6): open(f'/tmp/{k}', 'w').close()\n" + TRUE,
        "",
        8,
    ),
    "raises_strangely": ("raise Odd", "class Odd(Exception):\n    def __str__(self): raise RuntimeError", 0),
}
MODULES = "import contextlib, mmap, os, shutil, signal, socket, subprocess, sys\nimport numpy as np\nimport torch\n"


def hostile(body: str, before: str) -> str:
    head = "def classifier_guided(eps, grad_log_prob, sigma, scale):\n"
    return f"{MODULES}{before}\n{head}{textwrap.indent(body, '    ')}"


def test_hostile_answers_get_what_is_due_and_touch_nothing_else(tmp_path):
    students = {name: cells(classifier_guided=hostile(body, before)) for name, (body, before, _) in HOSTILE.items()}
    points, marks = marks_of(tmp_path, students)
    assert points == {name: [5, due, 8] for name, (*_, due) in sorted(HOSTILE.items())}
    assert all(0 < len(mark.hint) < 1000 for row in marks.values() for mark in row if not mark.points)
    assert "memory" in marks["hides_memory"][1].hint and "far more numbers" in marks["floods_the_reply"][1].hint
    time.sleep(0.2)
    assert not subprocess.run(["pgrep", "-f", "sleep 600"], capture_output=True).stdout


SPY = """import os, socket
def classifier_guided(eps, grad_log_prob, sigma, scale):
    found = [p for p in {paths!r} if os.path.exists(p)]
    try:
        open({wanted!r}, "w").write("x")
        found.append("written")
    except OSError:
        pass
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid != str(os.getpid()):
            found.append("process " + pid)
    status = open("/proc/self/status").read()
    for line in ("CapEff:\\t0000000000000000", "CapPrm:\\t0000000000000000", "NoNewPrivs:\\t1"):
        if line not in status:
            found.append("no " + line)
    for line in open("/proc/self/mountinfo"):
        place, options = line.split()[4:6]
        if "ro" not in options.split(",") and place != "/" and not place.startswith(("/dev/", "/proc")):
            found.append("a writable " + place)
    try:
        socket.create_connection(("127.0.0.1", {port}), timeout=1)
        found.append("a port of this machine")
    except OSError:
        pass
    if found:
        raise ValueError(str(found))
    return eps - scale * sigma[:, None] * grad_log_prob
"""


def test_an_answer_sees_neither_the_course_nor_other_students_nor_other_processes(tmp_path):
    root = Path(__file__).parents[1]
    other = notebook(tmp_path / "in" / "anna" / "E2_guidance.ipynb", cells())
    hidden = (
        other,
        tmp_path / "out",
        root / "solutions",
        root / "lecture_lib",
        root / "exercises",
        Path.home() / ".ssh",
    )
    paths = [*map(str, hidden), "/etc/passwd", "/etc/shadow"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        spy = SPY.format(paths=paths, wanted=str(other), port=server.getsockname()[1])
        points, marks = marks_of(tmp_path, {"anna": cells(), "eve": cells(classifier_guided=spy)})
    assert points["eve"] == [5, 8, 8], marks["eve"][1].hint
    assert read(other)[0] == cells()


def test_damaged_files(tmp_path):
    place = tmp_path / "in"
    good = notebook(place / "shuffled" / "E2_guidance.ipynb", list(reversed(cells())))
    text = good.read_text()
    for student, data in {
        "truncated": text[: len(text) // 2].encode(),
        "latin": text.replace("import torch", "# déjà vu\\nimport torch").encode("latin-1"),
        "utf16": text.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "nothing": b"",
        "list": b"[1, 2]",
        "deep": b'{"cells": ' + b"[" * 100_000,
        "binary": bytes(range(256)) * 40,
    }.items():
        (place / student).mkdir()
        (place / student / "E2_guidance.ipynb").write_bytes(data)
    (place / "missing").mkdir()
    (place / "linked").mkdir()
    (place / "linked" / "E2_guidance.ipynb").symlink_to(good)
    (place / "pipe").mkdir()
    os.mkfifo(place / "pipe" / "E2_guidance.ipynb")
    _, marks = grade(place, tmp_path / "out", MINI, seed=3, limits=SHORT)
    full = {student for student, row in marks.items() if sum(m.points for m in row) == 21}
    assert full == {"shuffled", "latin", "utf16", "bom"}
    others = [m for student, row in marks.items() if student not in full for m in row]
    assert {m.kind for m in others} == {"unreadable"} and all(m.points == 0 and m.hint for m in others)


@pytest.mark.slow
def test_outputs_of_half_a_gigabyte(tmp_path):
    path = notebook(tmp_path / "in" / "loud" / "E2_guidance.ipynb", cells())
    nb = json.loads(path.read_text())
    nb["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * (500 << 20)}]
    path.write_text(json.dumps(nb))
    assert marks_of(tmp_path, {})[0] == {"loud": [5, 8, 8]}


def test_a_missing_answer_and_a_known_mistake_are_named(tmp_path):
    wrong = RIGHT["guided"].replace("uncond + w *", "cond + w *")
    stub = "def drop_labels(labels, null, p, u):\n    raise NotImplementedError('yours')"
    _, marks = marks_of(tmp_path, {"eve": cells(guided=wrong, drop_labels=stub, classifier_guided="x = 1")})
    assert [(m.kind, m.mistake) for m in marks["eve"]] == [("known", "one_plus_w"), ("empty", ""), ("empty", "")]


def test_the_same_seed_gives_the_same_marks_and_another_one_other_numbers(tmp_path):
    lucky = "def guided(uncond, cond, w):\n    raise ValueError(f'{w}')"
    said = []
    for run, seed in enumerate((3, 3, 4)):
        notebook(tmp_path / "in" / "eve" / "E2_guidance.ipynb", cells(guided=lucky))
        one = Sheet(2, "", "E2_guidance", (GUIDANCE.tasks[0],))
        said.append([case.inputs["w"] for case in one.tasks[0].cases(seed)])
        grade(tmp_path / "in", tmp_path / f"out{run}", one, seed=seed, limits=SHORT)
    assert said[0] == said[1] != said[2]


def test_a_broken_scratch_cell_costs_nothing(tmp_path):
    scratch = "def classifier_guided(eps, ...:\n    not yet"
    assert marks_of(tmp_path, {"anna": [scratch, *cells()]})[0] == {"anna": [5, 8, 8]}


def test_too_much_code_is_said_and_stops_nobody_else(tmp_path):
    points, marks = marks_of(tmp_path, {"anna": cells(), "long": [*cells(), "x = '" + "a" * (5 << 20) + "'"]})
    assert points == {"anna": [5, 8, 8], "long": [0, 0, 0]}
    assert "too large" in marks["long"][0].hint


def test_names_that_are_no_text_and_names_that_look_alike(tmp_path):
    place = tmp_path / "in"
    for name in (b"m\xfcller", b"a b", b"a?b", ("x" * 200).encode()):
        notebook(Path(os.fsdecode(os.fsencode(place) + b"/" + name)) / "E2_guidance.ipynb", cells())
    notebook(place / "dora" / "E2_guidance.ipynb", cells())
    notebook(place / "dora.ipynb", cells(guided="x = 1"))
    head, marks = grade(place, tmp_path / "out", MINI, seed=3, limits=SHORT)
    report.write(tmp_path / "out", MINI, head, marks)
    assert {s: sum(m.points for m in row) for s, row in marks.items() if s.startswith("dora")} == {
        "dora": 21,
        "dora.ipynb": 16,
    }
    assert len(marks) == 6 and len(list((tmp_path / "out" / "feedback").rglob("*.html"))) == 6


def test_what_must_stay_hidden_is_hidden_within_what_must_be_seen(tmp_path):
    """As when the submissions lie below /usr, which an answer sees."""
    with Sandbox(SHORT) as box:
        there = box.ask(["import os\ndef f(): return len(os.listdir('/usr/share'))"], "f", calls=[{}])
    with Sandbox(SHORT, hidden=(Path("/usr/share"),)) as box:
        gone = box.ask(["import os\ndef f(): return len(os.listdir('/usr/share'))"], "f", calls=[{}])
    assert there[0]["value"] > 0 and gone == [{"value": 0}]
    with Sandbox(SHORT, hidden=(Path("/usr/bin/env"),)) as box:
        gone = box.ask(["def f(): return len(open('/usr/bin/env', 'rb').read())"], "f", calls=[{}])
    assert gone == [{"value": 0}]


def test_a_gradebook_is_hidden(tmp_path):
    """As a file that lies within what an answer sees; the course's own sheet and command are not needed for that."""
    source = (
        "def guided(uncond, cond, w):\n    open('/usr/bin/env', 'rb').read(1)[0]\n" + RIGHT["guided"].split("\n")[1]
    )
    notebook(tmp_path / "in" / "spy" / "E2_guidance.ipynb", cells(guided=source))
    points = {}
    for name, hidden in {"seen": (), "hidden": (Path("/usr/bin/env"),)}.items():
        _, marks = grade(tmp_path / "in", tmp_path / name, MINI, seed=3, limits=SHORT, hidden=hidden)
        points[name] = marks["spy"][0].points
    assert points == {"seen": 5, "hidden": 0}


def test_without_nbgrader_a_gradebook_is_refused_before_anything_is_graded(tmp_path, monkeypatch):
    for name in ("nbgrader", "nbgrader.api"):
        monkeypatch.setitem(sys.modules, name, None)
    notebook(tmp_path / "in" / "anna.ipynb", cells())
    with pytest.raises(MissingPackageError, match=r"pip install -e \"\.\[grading\]\""):
        marking.mark(tmp_path / "in", tmp_path / "out", 2, seed=1, jobs=1, isolated=True, book=tmp_path / "book.db")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


OWNED = '''
import sys
from lecture_lib.sandbox.box import Sandbox
ANSWER = """
def f(path):
    assert "CapEff:\\t0000000000000000" in open("/proc/self/status").read()
    open(path + "/stain", "w")
"""
with Sandbox() as box:
    print(box.ask([ANSWER], "f", calls=[{"path": sys.prefix}]))
'''


def test_without_root_an_answer_has_no_rights_and_cannot_write_to_files_of_its_user():
    """Not root, the second user is missing, and the files in sight may belong to the grader: they are sealed."""
    as_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
    run = subprocess.run([*as_user, sys.executable, "-c", OWNED], capture_output=True, text=True, check=True)
    assert "Read-only file system" in run.stdout, run.stdout
    assert not (Path(sys.prefix) / "stain").exists()


def test_a_sandbox_that_does_not_start_says_so(monkeypatch):
    monkeypatch.setattr("lecture_lib.sandbox.box.START_UP", "import nothing_of_this_name")
    with pytest.raises(CourseError, match="does not start"), Sandbox(SHORT):
        pass


# What a child can forge: any value that the wire carries
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays(np.float32, (2, 3)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OUTCOMES = st.fixed_dictionaries({}, optional={"value": VALUES, "error": VALUES, "message": VALUES, "line": VALUES})


@settings(max_examples=150, deadline=None)
@given(outcomes=st.lists(OUTCOMES, min_size=5, max_size=5), number=st.integers(0, len(GUIDANCE.tasks) - 1))
def test_no_forged_outcome_breaks_the_judge_or_passes(outcomes, number):
    task = GUIDANCE.tasks[number]
    cases = task.cases(0)
    forged = [heard(outcome) for outcome in wire.unpack(wire.pack((outcomes * 2)[: len(cases)]))]
    if None not in forged:  # else the sandbox says so
        found = judge(task, cases, forged)
        assert not found and isinstance(found.hint, str) and 0 < len(found.hint) < 1000


# A grader that is killed ---------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
from lecture_lib.exercises.catalogue import sheet
from lecture_lib.exercises.judging import judge
from lecture_lib.exercises.task import Sheet
from lecture_lib.grading.grade import grade
mini = Sheet(2, "Guidance", "E2_guidance", sheet(2).tasks[:3])
grade(Path(sys.argv[1]), Path(sys.argv[2]), mini, seed=3, jobs=1)
"""


def test_a_killed_grader_loses_nothing_and_counts_nothing_twice(tmp_path):
    for k in range(4):
        notebook(tmp_path / "in" / f"s{k}" / "E2_guidance.ipynb", cells())
    ledger = tmp_path / "out" / "E2_guidance.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out")])
    deadline = time.monotonic() + 120
    while (not ledger.exists() or ledger.read_bytes().count(b"\n") < 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = ledger.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    ledger.write_bytes(whole + b'{"student": "s1", "quest')  # the kill came in the middle of a line
    _, marks = grade(tmp_path / "in", tmp_path / "out", MINI, limits=SHORT, jobs=1)
    assert {s: [m.points for m in row] for s, row in marks.items()} == {f"s{k}": [5, 8, 8] for k in range(4)}
    after = ledger.read_bytes()
    assert after.startswith(whole) and after.count(b"\n") == 1 + 4 * 3
    keys = [(m["student"], m["question"]) for m in map(json.loads, after.splitlines()[1:])]
    assert len(set(keys)) == len(keys)


def test_another_seed_into_the_same_results_is_refused(tmp_path):
    marks_of(tmp_path, {"anna": cells()})
    with pytest.raises(CourseError, match="another run"):
        grade(tmp_path / "in", tmp_path / "out", MINI, seed=4, limits=SHORT)


# Reports -------------------------------------------------------------------------------------------------------------


def test_reports_escape_what_students_write_and_leak_no_number(tmp_path):
    nasty = 'def guided(uncond, cond, w):\n    raise ValueError("<script>alert(1)</script>")'
    students = {"=cmd()": cells(guided=nasty), "bob": cells(guided=RIGHT["guided"].replace("+ w", "- w"))}
    for student, source in students.items():
        notebook(tmp_path / "in" / student / "E2_guidance.ipynb", source)
    head, marks = grade(tmp_path / "in", tmp_path / "out", MINI, seed=3, limits=SHORT)
    overview = report.write(tmp_path / "out", MINI, head, marks)
    pages = [overview, *(tmp_path / "out" / "feedback").rglob("*.html")]
    assert len(pages) == 3 and not any("<script>" in page.read_text() for page in pages)
    rows = list(csv.reader((tmp_path / "out" / "E2_guidance.csv").open()))
    assert rows[1:] == [["'=cmd()", "16", "0", "8", "8"], ["bob", "16", "0", "8", "8"]]
    assert not any(str(np.float32(0.5)) in mark.hint for row in marks.values() for mark in row)


def test_trusted_results_say_so_and_do_without_the_course_as_well(tmp_path):
    notebook(tmp_path / "in" / "anna" / "E2_guidance.ipynb", cells())
    body, before, _ = HOSTILE["imports_the_course"]
    notebook(tmp_path / "in" / "eve" / "E2_guidance.ipynb", cells(classifier_guided=hostile(body, before)))
    head, marks = grade(tmp_path / "in", tmp_path / "out", MINI, seed=3, limits=SHORT, isolated=False)
    assert {s: [m.points for m in row] for s, row in marks.items()} == {"anna": [5, 8, 8], "eve": [5, 0, 8]}
    page = report.write(tmp_path / "out", MINI, head, marks)
    assert report.NOT_ISOLATED in page.read_text()


# Parts ---------------------------------------------------------------------------------------------------------------


def test_only_what_an_answer_needs_is_run():
    source = [
        "import math\n%matplotlib inline\nplot_everything()",
        "def f(x):\n    return g(x) + k",
        "k = 2 * h",
        "h = 3",
        "def g(x):\n    return x",
    ]
    names: dict = {}
    run_slice(slice_for("f", source), names)
    assert names["f"](1) == 7
    with pytest.raises(NothingHere):
        slice_for("missing", source)
    run_slice(slice_for("f", [*source, "def f(x):\n    return -x"]), names)
    assert names["f"](1) == -1


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "text", [1, [2.0]], {"a": np.arange(6).reshape(2, 3), "b": np.float32([1])}]
)
def test_wire_brings_values_back(value):
    assert repr(wire.unpack(wire.pack(value))) == repr(value)


FRAMES = {
    "empty": b"",
    "too long a text": b"\xff" * 8,
    "no array": b"\x10" + b"\0" * 7 + b'{"array":["O",1]}',
    "cut": wire.pack(np.zeros(4))[:-1],
    "too long": wire.pack(1) + b"x",
    "endless number": (5000).to_bytes(8, "little") + b"1" * 5000,
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_wire_refuses_what_is_no_frame(frame):
    with pytest.raises(wire.WireError):
        wire.unpack(frame)


def test_submissions_are_found(tmp_path):
    with pytest.raises(CourseError, match="no folder"):
        found(tmp_path / "nowhere", MINI)
    with pytest.raises(CourseError, match="neither"):
        found(tmp_path, MINI)
    notebook(tmp_path / "dora.ipynb", cells())
    notebook(tmp_path / "emil" / "week2" / "E2_guidance.ipynb", cells())
    notebook(tmp_path / "emil" / "E1_other.ipynb", cells())
    notebook(tmp_path / "fred" / "one.ipynb", cells())
    notebook(tmp_path / "fred" / "two.ipynb", cells())
    got = {s.student: s.path.name if s.path else s.problem for s in found(tmp_path, MINI)}
    assert got["dora"] == "dora.ipynb" and got["emil"] == "E2_guidance.ipynb" and "several" in got["fred"]
    with pytest.raises(Unreadable):
        read(notebook(tmp_path / "x.ipynb", []).rename(tmp_path / "y.ipynb").with_name("y.ipynb") and _broken(tmp_path))


def _broken(folder: Path) -> Path:
    (folder / "broken.ipynb").write_text('{"cells": [{"cell_type": "code"}]}')
    return folder / "broken.ipynb"


def test_a_sandbox_survives_what_it_runs():
    with Sandbox(SHORT) as box:
        box.ask(["import os\ndef f(): os._exit(1)"], "f", calls=[{}])
        assert box.ask(["def f(x): return x"], "f", calls=[{"x": 2.0}]) == [{"value": 2.0}]
