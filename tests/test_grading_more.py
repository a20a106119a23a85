"""What a second look at the grader found: ways past the walls, and honest notebooks that lost marks."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from submissions import MINI, SHORT, cells, marks_of, notebook

from lecture_lib.errors import CourseError
from lecture_lib.exercises.catalogue import sheet
from lecture_lib.exercises.judging import Verdict, judge
from lecture_lib.grading import report, submission
from lecture_lib.grading.grade import Ledger, _verdict, grade
from lecture_lib.grading.submission import found
from lecture_lib.sandbox.box import GRACE, Failure, Limits, Sandbox, answer_folders
from lecture_lib.sandbox.inside import calls
from lecture_lib.sandbox.inside.cutting import slice_for
from lecture_lib.tooling import pairing

ROOT = Path(__file__).parents[1]

# Ways past the walls --------------------------------------------------------------------------------------------------

SEARCH = """import ctypes, re
def f():
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # may be looked into
    mark, found = bytes(reversed(b"anna_fo_krow")), []
    memory = open("/proc/self/mem", "rb", 0)
    for line in open("/proc/self/maps"):
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        try:
            memory.seek(start)
            found += re.findall(mark + b"[.]{40}", memory.read(end - start))
        except (OSError, OverflowError, ValueError):
            pass
    return float(len(found))
"""


def test_nothing_of_one_student_is_in_the_memory_of_another():
    anna = [f"x{k} = {k}" for k in range(300)] + ["def f(): return 1.0  # work_of_anna" + "." * 40]
    anna += 100 * ["# more " * 20]
    with Sandbox(Limits(seconds=30)) as box:
        assert box.ask([*anna, SEARCH], "f", calls=[{}])[0]["value"] > 0  # it finds what is there
        box.ask(anna, "f", calls=[{}])
        assert box.ask([SEARCH], "f", calls=[{}]) == [{"value": 0.0}]


def test_every_copy_of_the_answers_is_hidden(tmp_path, monkeypatch):
    """Another copy of the course may be installed where Python's packages are, all of which an answer sees."""
    for folder in ("usr/lib/python3.11/site-packages/lecture_lib/exercises", "other/lecture_lib/exercises"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "usr"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "other")])
    hidden = {folder for folder, _ in answer_folders()}
    assert {tmp_path / "usr/lib/python3.11/site-packages/lecture_lib", tmp_path / "other/lecture_lib"} <= hidden
    assert {ROOT / "lecture_lib", ROOT / "solutions", ROOT / "tests"} <= hidden


HOARDS = {
    "a file without a name": "os.memfd_create('x')",
    "memory that is not attached": "called(libc.shmget(0, 1 << 20, 0o1600))",
    "a namespace that is not watched": "called(libc.unshare(0x10000000 | 0x20000000))",
    "a process in a namespace": "called(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))",
    "a key for the next student": "called(libc.syscall(248, b'user', b'k', b'v', 1, -3))",
    "life after the grader": "called(libc.prctl(1, 0, 0, 0, 0))",
}
CALLED = """import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "called")
    if result == 0:
        os._exit(0)
"""


@pytest.mark.skipif(calls.platform.machine() != "x86_64", reason="the numbers of other machines are below")
def test_what_holds_memory_unseen_or_outlives_its_process_is_refused():
    with Sandbox(SHORT) as box:
        said = {name: box.ask([CALLED, f"def f(): {call}"], "f", calls=[{}]) for name, call in HOARDS.items()}
        threads = ["import threading\ndef f(): t = threading.Thread(target=print); t.start(); t.join(); return 1.0"]
        assert box.ask(threads, "f", calls=[{}]) == [{"value": 1.0}]
    assert {name: outcome[0]["error"] for name, outcome in said.items()} == dict.fromkeys(HOARDS, "PermissionError")


def filtered(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> int:
    """What the filter says to a call, by a machine that reads its words as the kernel does."""
    seen = {0: number, 4: calls.ARCHITECTURES[machine] if architecture is None else architecture, 16: argument}
    words, at, loaded = list(struct.iter_unpack("HBBI", calls.program(machine))), 0, 0
    while True:
        code, yes, no, value = words[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            loaded = seen[value]
        else:
            at += yes if {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code] else no


@pytest.mark.parametrize("machine", calls.ARCHITECTURES)
def test_the_filter_refuses_by_the_numbers_of_each_machine(machine):
    k, denied, allowed = list(calls.ARCHITECTURES).index(machine), 0x00050001, 0x7FFF0000
    refused = {numbers[k] for numbers in calls.REFUSED.values()}
    special = {calls.CLONE[k], calls.PRCTL[k], 435}
    assert all(filtered(machine, n) == (denied if n in refused else allowed) for n in set(range(500)) - special)
    assert filtered(machine, calls.CLONE[k], 17) == filtered(machine, calls.PRCTL[k], 4) == allowed
    assert filtered(machine, calls.CLONE[k], 17 | 1 << 28) == filtered(machine, calls.PRCTL[k], 1) == denied
    assert filtered(machine, 435) == 0x00050026 and filtered(machine, 0x40000000) == denied
    assert filtered(machine, 0, architecture=0x40000003) == 0x80000000  # the same machine, 32 bits at a time


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", calls.ARCHITECTURES)
def test_the_numbers_are_those_of_the_kernel(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not here")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    k = list(calls.ARCHITECTURES).index(machine)
    ours = {**calls.REFUSED, "clone": calls.CLONE, "prctl": calls.PRCTL, "clone3": (calls.CLONE3,) * 2}
    assert {name: str(numbers[k]) for name, numbers in ours.items()} == {name: known.get(name) for name in ours}


SPINS = """import threading, torch
def f():
    a = torch.ones(200, 200)
    def spin():
        while True: a @ a
    threads = [threading.Thread(target=spin) for _ in range(8)]
    for t in threads: t.start()
    threads[0].join()
"""


def test_what_counts_is_computing_so_a_busy_machine_costs_nobody_a_mark():
    with Sandbox(Limits(seconds=0.6)) as box:
        kept_waiting = "import time\ndef f(): time.sleep(0.9); return 1.0"
        assert box.ask([kept_waiting], "f", calls=[{}]) == [{"value": 1.0}]
        for cell in (SPINS, "def f():\n    while True: pass", "import time\ndef f(): time.sleep(60)"):
            began = time.monotonic()
            assert box.ask([cell], "f", calls=[{}]) == Failure("time", "0.6 s")
            assert time.monotonic() - began < 1.8 + GRACE


ASLEEP = """
from lecture_lib.sandbox.box import GRACE, Failure, Limits, Sandbox, answer_folders
with Sandbox(Limits(seconds=60)) as box:
    print("ready", flush=True)
    box.ask(["import time\\ndef f(): time.sleep(61.25)"], "f", calls=[{}])
"""


def descendants(pid: int) -> set[int]:
    """Of a process, with their own."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = {pid}
    for _ in parents:
        found |= {child for child, parent in parents if parent in found}
    return found - {pid}


def test_of_a_grader_that_is_killed_no_answer_stays():
    process = subprocess.Popen([sys.executable, "-c", ASLEEP], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 20
    while len(theirs := descendants(process.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # the zygote, a keeper, who builds the walls, and the answer
    assert len(theirs) >= 4
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while (left := {pid for pid in theirs if alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def alive(pid: int) -> bool:
    """Whether it runs; who waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Honest notebooks: what two hours of work leave behind ----------------------------------------------------------------

RULE = "def guided(uncond, cond, w):\n    return uncond + w * (cond - uncond)"


def using(what: str) -> str:
    """A right answer that multiplies by something which is 1."""
    return f"def guided(uncond, cond, w):\n    return uncond + {what} * w * (cond - uncond)"


HONEST = {
    "a parameter's name as a result": [RULE, "w = check('2.1')"],
    "a parameter's name in a cell that raises": [RULE, "w = torch.load('weights.pt')"],
    "a local name in cells that raise": [
        "def guided(uncond, cond, w):\n    diff = cond - uncond\n    return uncond + w * diff",
        "diff = lost.foo(3)",
        "for diff in [1, 2]: raise ValueError",
    ],
    "all of the course imported": ["from lecture_lib.core import *", RULE],
    "all of Colab imported": ["from google.colab.patches import *", RULE],
    "a constant, and a later cell that raises": ["k = 1.0", using("k"), "k = lost()"],
    "a formula broken before a percent sign": [using("(7\n        % 6\n    )")],
    "percent signs in a text": [RULE.replace("\n", '\n    """One:\n    % two\n    !three?\n    """\n')],
    "timed": ["%%time\n" + RULE],
    "captured": ["%%capture out\n" + RULE],
    "magic around it": [f"%matplotlib inline\n!ls -l \\\n  -a\n{RULE}\n%timeit guided(1, 2, 3)\nfiles = !ls\nguided?"],
    "shown on the way": ["def guided(uncond, cond, w):\n    display(w)\n    return uncond + w * (cond - uncond)"],
    "hints of types that are not here": [
        "from no_such_types import Float",
        "def guided(uncond: Float[Tensor, 'b d'], cond: Tensor, w: float) -> Tensor:\n"
        "    return uncond + w * (cond - uncond)",
    ],
    "a dataclass": [
        "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    k: float = 1.0",
        using("Settings().k"),
    ],
    "only if run by hand": ["if __name__ == '__main__':\n    k = 1.0", using("k")],
    "defined in a block": ["with torch.no_grad():\n    " + RULE.replace("\n", "\n    ")],
    "a table that is filled": ["table = {}", "table['k'] = 1.0", using("table['k']")],
    "a list that grows": ["ks = []\nfor k in range(3):\n    ks.append(k)", using("ks[1]")],
    "a tensor that is written to": ["z = torch.zeros(3)\nz[1] = 1", using("z[1]")],
    "a method that comes later": ["class Net: pass", "Net.k = lambda self: 1.0", using("Net().k()")],
    "a counter": ["n = 0", RULE.replace("\n", "\n    global n\n    n += 1\n", 1)],
    "compiled": ["@torch.compile\n" + RULE],
    "scripted": [
        "@torch.jit.script\ndef guided(uncond: torch.Tensor, cond: torch.Tensor, w: float):\n"
        "    return uncond + w * (cond - uncond)"
    ],
    "a helper below": [RULE.replace("uncond + w * (cond - uncond)", "lerp(uncond, cond, w)"), "def lerp(a, b, w):\n"
                       "    return a + w * (b - a)"],
    "its inputs overwritten": ["def guided(uncond, cond, w):\n    cond -= uncond\n    cond *= w\n    uncond += cond\n"
                               "    return uncond"],
    "with a gradient": [using("torch.ones((), requires_grad=True)")],
    "numpy": ["def guided(uncond, cond, w):\n    u, c = uncond.numpy(), cond.numpy()\n    return u + w * (c - u)"],
    "Windows line ends": ["%matplotlib inline\r\n" + RULE.replace("\n", "\r\n")],
    "indented as a whole": ["\n  " + RULE.replace("\n", "\n  ")],
    "all of a package": ["from torch import *", RULE.replace("uncond + w * (cond - uncond)", "lerp(uncond, cond, w)")],
    "another sum": ["from numpy import *", using("sum(ones(1), axis=0)")],
    "tabs": [RULE.replace("    ", "\t")],
    "no function but an object": ["class Rule:\n    def __call__(self, uncond, cond, w):\n        return uncond + w * "
                                  "(cond - uncond)", "guided = Rule()"],
    "a sum without an end": ["total = " + " + ".join(["1"] * 2000), RULE],
    "the notebook left": ["exit()", RULE, "quit()\nraise SystemExit"],
}  # fmt: skip
DISHONOURED = {  # what is wrong, and what is said of it
    "a helper of the course": (
        ["from lecture_lib.core import lerp", using("lerp(1, 1, 1)")],
        "graded answers do without",
    ),
    "a constant that raises": (["k = 1 / 0", using("k")], "ZeroDivisionError"),
    "a name that nobody knows": (["from lecture_lib.core import lerp", using("k")], "NameError in line 2"),
    "a decorator that is missing": (["from typeguarding import typed", "@typed\n" + RULE], "No module named"),
    "another language": (["%%writefile rule.py\n" + RULE], "not defined yet"),
    "a slip with a question behind it": ([RULE.replace("return", "retrun") + "  # right?"], "Python cannot read"),
    "a line that is no Python": ([RULE + "\nreturn return"], "Python cannot read"),
}
START = "import torch\nfrom lecture_lib.exercises import check"


@pytest.fixture(scope="module")
def box():
    """One for all."""
    with Sandbox(Limits(seconds=20)) as box:
        yield box


def marked(cells: list[str], box: Sandbox) -> Verdict:
    """The verdict on an answer to 2.1 that is part of a notebook."""
    return _verdict(MINI.tasks[0], [START, *cells, 'check("2.1")'], box, 3)


@pytest.mark.parametrize("cells", HONEST.values(), ids=HONEST)
def test_honest_notebooks_get_their_marks(cells, box):
    verdict = marked(cells, box)
    assert verdict, verdict.hint


@pytest.mark.parametrize(("cells", "said"), DISHONOURED.values(), ids=DISHONOURED)
def test_of_what_is_missing_the_cause_is_named(cells, said, box):
    assert said in marked(cells, box).hint


RETURNED = {
    "in the other order of bytes": ("(uncond + w * (cond - uncond)).numpy().astype('>f4')", ""),
    "by columns": ("np.asfortranarray((uncond + w * (cond - uncond)).numpy())", ""),
    "without data": ("uncond.to('meta')", "raised NotImplementedError"),
    "of a type that has no such function": (
        "torch.nn.functional.softplus(torch.arange(3))",
        "not implemented for 'Long'",
    ),
    "one row for all": ("uncond[:1].expand(uncond.shape)", "in no simple way"),
    "with holes": ("uncond.to_sparse()", "raised TypeError"),
    "itself": ("[x := [], x.append(x)][0]", "raised RecursionError"),
    "with orders to a terminal": ("[][chr(27) + '[2J' + chr(0x202e)]", "raised TypeError"),
    "an error of such a name": (
        "(_ for _ in ()).throw(type('E' + chr(27) + '[2J', (Exception,), {})())",
        "raised E [2J",
    ),
    "an array of things": ("np.array([object()])", "something that is no number"),
}


@pytest.mark.parametrize(("value", "said"), RETURNED.values(), ids=RETURNED)
def test_what_is_said_of_strange_values(value, said, box):
    cell = f"import numpy as np\ndef guided(uncond, cond, w):\n    return {value}"
    verdict = marked([cell], box)
    assert said in verdict.hint and bool(verdict) == (not said) and verdict.kind != "empty"
    assert verdict.hint.isprintable()


SCRATCH = [
    "%load_ext autoreload\n%autoreload 2\n!pip list | head -3",
    "import matplotlib.pyplot as plt\n%matplotlib inline\nfor w in 0, 1: plt.plot(torch.randn(9) * w)\nplt.show()",
    "x = torch.load('nothing.pt')\nz = eps = sigma = alpha = t = x",
    "w, s, b, d, n, k, g, c, h, q, v, out, noise, labels, mean, var, loss = undefined()",
    "from lecture_lib.core import *",
    "model = torch.nn.Linear(2, 2)\nfor step in range(10**9):\n    model.zero_grad()",
    "from ipywidgets import interact\n@interact(w=(0, 5))\ndef show(w): plt.imshow(torch.rand(4, 4) * w)",
    "torch.lerp??",
    "%%bash\nls",
    "x = 3\n$$$",
]


def test_a_solution_among_scratch_cells_keeps_its_points(tmp_path):
    source = ROOT / "solutions" / "E4_fast_generation.py"
    code = [cell.source for cell in pairing.read_source(source).cells if cell.cell_type == "code"]
    mixed = [text for pair in zip(code, itertools.cycle(SCRATCH)) for text in pair]
    notebook(tmp_path / "in" / "anna" / f"Copy of {source.stem} (1).ipynb", mixed)
    _, marks = grade(tmp_path / "in", tmp_path / "out", sheet(4), jobs=1)
    assert sum(mark.points for mark in marks["anna"]) == 100, [mark.hint for mark in marks["anna"]]


def test_of_what_is_imported_whole_nothing_is_loaded_in_vain():
    stars = ["from matplotlib.pyplot import *", "from math import *"]
    assert len(slice_for("guided", [START, *stars, RULE])) == 1  # not even torch
    assert len(slice_for("guided", [START, *stars, using("tau")])) == len(stars) + 1


def test_several_values_in_a_named_tuple_are_several_values(box):
    two = "from typing import NamedTuple\nclass Two(NamedTuple):\n    a: float\n    b: float"
    assert box.ask([two, "def f(): return Two(1.0, 2.0)"], "f", calls=[{}]) == [{"value": [1.0, 2.0]}]


# Folders and files ----------------------------------------------------------------------------------------------------

BOOK = "E2_guidance.ipynb"
LAYOUTS = {  # files, and for each student the notebook that is marked, or what is said
    "a Mac's zip": (["anna/work.ipynb", "anna/__MACOSX/._work.ipynb"], {"anna": "work.ipynb"}),
    "hidden copies": (["anna/a.ipynb", "anna/.git/b.ipynb", "anna/.ipynb_checkpoints/a.ipynb"], {"anna": "a.ipynb"}),
    "a second download": (["anna/E2_guidance (1).ipynb", "anna/E1_a.ipynb"], {"anna": "E2_guidance (1).ipynb"}),
    "a copy beside it": ([f"anna/{BOOK}", "anna/E2_guidance-Copy1.ipynb"], {"anna": BOOK}),
    "small letters": (["anna/e2_Guidance.ipynb", "anna/E1_a.ipynb"], {"anna": "e2_Guidance.ipynb"}),
    "two of them": ([f"anna/a/{BOOK}", f"anna/b/{BOOK}"], {"anna": "several"}),
    "no notebooks beside notebooks": (["anna.ipynb", "bob.zip", "carl.py", "README.md"],
                                      {"anna": "anna.ipynb", "bob": "ends in .ipynb", "carl": "ends in .ipynb"}),
    "what was unpacked": ([f"anna/{BOOK}", "anna.zip", "class.zip"], {"anna": BOOK}),
    "large letters": (["ANNA.IPYNB"], {"ANNA": "ANNA.IPYNB"}),
    "a folder called notebook": ([f"anna/x.ipynb/{BOOK}", "b.ipynb/x"], {"anna": BOOK, "b.ipynb": "no notebook in"}),
    "other letters": ([f"Zoë Müller 王小明/{BOOK}"], {"Zoë Müller 王小明": BOOK}),
}  # fmt: skip


@pytest.mark.parametrize(("files", "wanted"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_right_notebook_is_marked(files, wanted, tmp_path):
    for name in files:
        notebook(tmp_path / name, [])
    words = ("several", "ends in .ipynb", "no notebook in")
    said = {
        s.student: s.path.name if s.path else next(w for w in words if w in s.problem) for s in found(tmp_path, MINI)
    }
    assert said == wanted


def test_links_and_pipes_are_named_and_not_followed(tmp_path):
    notebook(tmp_path / "anna" / BOOK, [])
    (tmp_path / "eve").symlink_to("anna")
    (tmp_path / "evi.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "eva.ipynb").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "anna" / "loop").symlink_to(".")
    (tmp_path / "ring.ipynb").symlink_to("ring.ipynb")
    listed = {s.student: s.path for s in found(tmp_path, MINI)}
    assert listed.pop("anna") == tmp_path / "anna" / BOOK
    assert listed == dict.fromkeys(("eva", "eve", "evi", "pipe", "ring"))


def test_folders_without_an_end_stop_nobody(tmp_path):
    notebook(tmp_path / "anna" / BOOK, [])
    (tmp_path / "eve").mkdir()
    here, place = os.open(tmp_path / "eve", os.O_RDONLY), None
    for _ in range(1200):  # a path that is too long to be opened
        os.mkdir("folder", dir_fd=here)
        place, here = here, os.open("folder", os.O_RDONLY, dir_fd=here)
        os.close(place)
    os.close(here)
    assert [bool(s.path) for s in found(tmp_path, MINI)] == [True, False]
    subprocess.run(["rm", "-rf", str(tmp_path / "eve")], check=True)  # pytest's own way of clearing up gives up


def test_two_names_that_would_be_written_alike_are_two_students(tmp_path):
    for name in (b"m\xfcller", b"m\\udcfcller"):
        notebook(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) / BOOK, [])
    assert len({s.student for s in found(tmp_path, MINI)}) == 2


def test_names_that_are_orders_to_a_terminal_are_spelled_out(tmp_path):
    names = {
        "eve\nanna": "eve\\nanna", "\x1b[2Jeve": "\\x1b[2Jeve", "eve\u202etxt": "eve\\u202etxt",
        "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627": "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
    }  # fmt: skip
    for name in names:
        notebook(tmp_path / name / BOOK, [])
    assert {s.student for s in found(tmp_path, MINI)} == set(names.values())


def test_a_file_that_is_made_to_fill_the_memory_is_no_notebook(tmp_path, monkeypatch):
    opening = tmp_path / "opening.py"
    opening.write_text(submission.OPENING.read_text().replace("MEMORY = 4 << 30", "MEMORY = 1 << 28"))
    monkeypatch.setattr(submission, "OPENING", opening)
    (tmp_path / "bomb.ipynb").write_text('{"cells": [' + "{}," * (3 << 20) + "{}]}")
    with pytest.raises(submission.Unreadable, match="too large"):
        submission.read(tmp_path / "bomb.ipynb")
    assert submission.read(notebook(tmp_path / "honest.ipynb", ["x = 1"]))[0] == ["x = 1"]


FORMATS = {
    "lines": {"cells": [{"cell_type": "code", "source": ["x = 1\n", "y"]}], "nbformat": 4, "nbformat_minor": 4},
    "version 3": {"worksheets": [{"cells": [{"cell_type": "code", "input": "x = 1\ny"}]}], "nbformat": 3},
    "other cells": {"cells": [{"cell_type": "raw", "source": "z"}, {"cell_type": "markdown", "source": "z"},
                              {"cell_type": "code", "source": "x = 1\ny", "outputs": [{"data": {"w": [1] * 9}}]}]},
}  # fmt: skip


@pytest.mark.parametrize("book", FORMATS.values(), ids=FORMATS)
def test_notebooks_of_other_editors_are_read(book, tmp_path):
    (tmp_path / BOOK).write_text(json.dumps(book))
    assert submission.read(tmp_path / BOOK)[0] == ["x = 1\ny"]


# Results -------------------------------------------------------------------------------------------------------------


def test_results_beside_submissions_are_no_student(tmp_path):
    notebook(tmp_path / "anna" / BOOK, cells())
    for _ in range(2):
        _, marks = grade(tmp_path, tmp_path / "results", MINI, seed=3, limits=SHORT, jobs=1)
        assert list(marks) == ["anna"]
    with pytest.raises(CourseError, match="folder of the submissions"):
        grade(tmp_path, tmp_path / "results" / "..", MINI, limits=SHORT)


def test_two_runs_do_not_write_the_same_results(tmp_path):
    notebook(tmp_path / "in" / "anna" / BOOK, cells())
    with closing(Ledger(tmp_path / "out", MINI, seed=3, isolated=True)) as first:
        kept = first.path.read_bytes()
        with pytest.raises(CourseError, match="another run is writing"):
            grade(tmp_path / "in", tmp_path / "out", MINI, limits=SHORT)
        assert first.path.read_bytes() == kept
    Ledger(tmp_path / "out", MINI, seed=3, isolated=True).close()  # it is free again


def test_results_that_cannot_be_written_or_read_are_named(tmp_path):
    notebook(tmp_path / "in" / "anna" / BOOK, cells())
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot be written"):
        grade(tmp_path / "in", tmp_path / "file", MINI, limits=SHORT)
    Ledger(tmp_path / "out", MINI, seed=3, isolated=True).close()
    with (tmp_path / "out" / "E2_guidance.jsonl").open("a") as file:
        file.write("edited by hand\n")
    with pytest.raises(CourseError, match="changed by something else"):
        grade(tmp_path / "in", tmp_path / "out", MINI, limits=SHORT)


def test_a_value_that_nobody_has_thought_of_stops_nobody(tmp_path, monkeypatch):
    def judged(task, cases, outcomes):
        return judge(task, cases, outcomes) if task.name != "2.2" else 1 / 0

    monkeypatch.setattr("lecture_lib.grading.grade.judge", judged)
    points, marks = marks_of(tmp_path, {"anna": cells()}, jobs=1)
    assert points == {"anna": [5, 0, 8]} and "ZeroDivisionError" in marks["anna"][1].hint


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@a", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff201"])
def test_no_name_is_a_formula_of_a_spreadsheet(name, tmp_path):
    report._table(tmp_path / "t.csv", MINI, {name: []}, {name: 0})
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[1].startswith("'")


def test_where_memory_runs_out_it_is_an_answer_that_goes(box):
    cell = "def f(): return float(open('/proc/self/oom_score_adj').read())"
    assert box.ask([cell], "f", calls=[{}]) == [{"value": 1000.0}]
