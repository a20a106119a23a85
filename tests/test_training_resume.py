"""Exact resume: a process is really killed, at several places, and the weights come out the same to the last bit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lecture_lib import files
from lecture_lib.data import Batches
from lecture_lib.errors import CourseError, DamagedFileError
from lecture_lib.training import Ema, adamw, checkpoint, restore, save, train

# A training with everything that has a state: dropout, batch norm, Adam's moments, an average, a noisy loss.
# torch is imported once; every run is a child of its own, forked before anything is drawn, and really killed.
SCRIPT = textwrap.dedent("""
    import hashlib, os, signal, sys
    from pathlib import Path
    import torch
    from torch import nn
    from lecture_lib import files
    from lecture_lib.data import Batches
    from lecture_lib.training import Ema, adamw, checkpoint, restore, save, train, warmup_cosine

    torch.set_num_threads(1)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def loss(model, batch, generator):
        noise = 0.1 * torch.randn(batch[0].shape, generator=generator)
        return (model(batch[0] + noise) - batch[1]).square().mean(1)

    def digest(model, ema, optimizer, generator):
        total = hashlib.sha256()
        moments = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
        states = [*model.state_dict().values(), *ema.average.state_dict().values(), *moments, generator.get_state()]
        for value in states:
            total.update(value.numpy().tobytes())
        return total.hexdigest()

    def run(path, kill_at, where):
        first = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 2))
        for p in model.parameters():
            p.data.normal_(std=0.3, generator=first)
        x = torch.randn(50, 4, generator=first)
        torch.default_generator.manual_seed(2)
        generator = torch.Generator().manual_seed(1)
        optimizer, ema = adamw(model, 0.02, weight_decay=0.1), Ema(model, 0.95)
        parts = {"model": model, "optimizer": optimizer, "ema": ema}
        start = restore(path, parts, generator) if path.exists() else 0
        print("from", start, flush=True)
        for step in train(model, loss, Batches((x, x[:, :2].sin()), 8), steps=40, optimizer=optimizer,
                          generator=generator, ema=ema, schedule=warmup_cosine(40, warmup=5), start=start):
            if step.number == kill_at and where == "saving":
                files.os.replace = die  # the temporary file is complete, its name is not yet the checkpoint's
            if step.number % 7 == 0 or step.number == 40:
                save(path, step.number, parts, generator)
            if step.number == kill_at and where == "training":
                die()
        print("done", digest(model, ema, optimizer, generator), flush=True)

    for path, kill_at, where in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
        child = os.fork()
        if child == 0:
            run(Path(path), int(kill_at), where)
            os._exit(0)
        print("signal", os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
""")


def run(*runs: tuple[Path, int, str]) -> list[str]:
    """What all runs print, one after the other; each is (checkpoint, step to die at or -1, where to die)."""
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(str(word) for words in runs for word in words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout.splitlines()


def test_killed_at_several_steps_the_weights_are_the_same_bits(tmp_path):
    """Killed before the first checkpoint, between two, right after one, in the middle of a write, after the last."""
    whole, path = tmp_path / "whole.ckpt", tmp_path / "parts.ckpt"
    kills = [(3, "training"), (10, "training"), (14, "training"), (28, "saving"), (39, "training"), (40, "training")]
    lines = run((whole, -1, "never"), *((path, *kill) for kill in kills), (path, -1, "never"))
    assert lines[0] == "from 0" and lines[2] == "signal 0"
    undisturbed = lines[1]
    expected = ["from 0", "from 0", "from 7", "from 14", "from 21", "from 35"]
    assert lines[3:-3] == [word for start in expected for word in (start, f"signal {int(signal.SIGKILL)}")]
    assert lines[-3:] == ["from 40", undisturbed, "signal 0"]
    assert undisturbed.startswith("done ") and len(undisturbed) == 69


def model_and_parts(seed):
    model = nn.Linear(2, 2)
    for p in model.parameters():
        p.data.normal_(generator=torch.Generator().manual_seed(seed))
    return model, {"model": model, "optimizer": adamw(model, 0.1), "ema": Ema(model)}


@pytest.fixture
def saved(tmp_path):
    model, parts = model_and_parts(0)
    path = tmp_path / "folder" / "run.ckpt"
    save(path, 12, parts, torch.Generator().manual_seed(5), about={"recipe": "a"})
    return path, model


def test_round_trip_and_no_leftovers(saved):
    path, model = saved
    other, parts = model_and_parts(1)
    g = torch.Generator()
    assert restore(path, parts, g, about={"recipe": "a"}) == 12
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(g.get_state(), torch.Generator().manual_seed(5).get_state())
    assert [p.name for p in path.parent.iterdir()] == ["run.ckpt"]


def test_a_failed_write_leaves_the_old_checkpoint_and_no_debris(saved, monkeypatch):
    path, _ = saved
    before, full = path.read_bytes(), OSError("no space left on device")

    def fail(*_):
        raise full

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        save(path, 13, model_and_parts(1)[1], torch.Generator())
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["run.ckpt"]


def damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    pickle_of_others = b"PK\x03\x04" + data[60:]
    return {
        "empty": b"",
        "truncated": data[:-10],
        "only the header": data[:20],
        "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "one bit of the sum": data[:30] + bytes([data[30] ^ 1]) + data[31:],
        "longer": data + b"\0",
        "foreign": pickle_of_others,
        "right sum, no archive": checkpoint.MAGIC + hashlib.sha256(b"hello").digest() + b"hello",
    }


@pytest.mark.parametrize("kind", damaged(bytes(100)))
def test_damaged_files_are_refused_and_change_nothing(saved, kind):
    path, _ = saved
    path.write_bytes(damaged(path.read_bytes())[kind])
    model, parts = model_and_parts(1)
    g = torch.Generator().manual_seed(9)
    before = model.weight.clone(), g.get_state(), torch.get_rng_state()
    with pytest.raises(DamagedFileError, match=r"run\.ckpt"):
        restore(path, parts, g, about={"recipe": "a"})
    after = model.weight, g.get_state(), torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_checkpoints_of_another_training_are_refused_and_change_nothing(saved):
    path, _ = saved
    model, parts = model_and_parts(1)
    before, g = model.weight.clone(), torch.Generator()
    with pytest.raises(DamagedFileError, match="another training"):
        restore(path, parts, g, about={"recipe": "b"})
    with pytest.raises(DamagedFileError, match="parts"):
        restore(path, {"model": model}, g, about={"recipe": "a"})
    wide = nn.Linear(2, 3)
    mixed = {"model": model, "optimizer": parts["optimizer"], "ema": Ema(wide)}
    with pytest.raises(DamagedFileError, match="does not fit"):
        restore(path, mixed, g, about={"recipe": "a"})
    assert torch.equal(model.weight, before)  # the model fitted, but not all did: it was put back
    with pytest.raises(FileNotFoundError):
        restore(path.with_name("none"), parts, g)


def test_what_could_not_be_restored_is_not_saved(saved):
    path, parts, generator = saved[0], {"model": saved[1]}, torch.Generator()
    before = path.read_bytes()
    with pytest.raises(CourseError, match="plain values"):
        save(path, 13, parts, generator, about={"rate": np.float64(0.1)})
    assert path.read_bytes() == before


def test_a_schedule_of_numpy_numbers_can_be_saved(tmp_path):
    model, generator = nn.Linear(2, 1), torch.Generator().manual_seed(0)
    optimizer, batches = adamw(model, 1e-3), Batches([torch.ones(4, 2)], 2)
    options = {"optimizer": optimizer, "generator": generator, "schedule": lambda done: np.exp(-done / 10)}
    list(train(model, lambda model, batch, _: model(batch[0])[:, 0] ** 2, batches, steps=2, **options))
    parts = {"model": model, "optimizer": optimizer}
    save(tmp_path / "run.ckpt", 2, parts, generator)
    assert restore(tmp_path / "run.ckpt", parts, generator) == 2
