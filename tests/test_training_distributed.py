"""One process or two, copies or parts: the same losses and the same weights up to rounding."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file

from lecture_lib.data import Batches
from lecture_lib.errors import RangeError
from lecture_lib.families import FlowMatching, phase_loss, phase_optimizer
from lecture_lib.training import distributed
from lecture_lib.training.distributed import Shards, train_distributed
from lecture_lib.zoo.families_flow import FLOW_MATCHING
from lecture_lib.zoo.scale_out import scale_out

NAME, STEPS = "family-flow-matching", 12


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def launched(path, processes, spread="copies"):
    """Losses and weights of ``course scale`` in so many processes."""
    command = ["-m", "lecture_lib.cli", "scale", NAME, "--steps", str(STEPS), "--spread", spread, "--path", str(path)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, *command], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{processes} processes, 2 shards" in done.stdout
    return [float(x) for x in re.findall(r"loss ([\d.]+)", done.stdout)], load_file(path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launched(tmp_path_factory.mktemp("alone") / "w.safetensors", 1)


@pytest.mark.parametrize("spread", ["copies", "parts"])
def test_two_processes_train_as_one(alone, tmp_path, spread):
    """Float32 sums in another order: 1e-6 of a loss of about 2, and after 12 updates 1e-5 of a weight.

    A process with the other's random numbers, or one that averages nothing, is off by whole percents.
    """
    losses, weights = launched(tmp_path / "w.safetensors", 2, spread)
    assert losses == pytest.approx(alone[0], rel=2e-6)
    for name, weight in alone[1].items():
        assert torch.allclose(weights[name], weight, rtol=0, atol=1e-5), name


def test_an_update_is_the_mean_over_its_shards():
    """Two shards: the gradient of the mean over both, computed here by hand from the same keys."""
    torch.manual_seed(0)
    model, batches, _ = FlowMatching.small()
    shards, key = Shards(batches, 2), torch.tensor(12345)
    loss = phase_loss(model, 1).at(0)
    together = shards.losses(loss, model, key).mean()
    by_hand = []
    for k in (0, 1):
        g = seeded(12345 + k)
        by_hand.append(loss(model, batches.draw(g), g).mean())
    assert together.item() == pytest.approx(sum(by_hand).item() / 2, rel=1e-6)


def test_the_key_is_all_that_an_update_takes_from_the_generator(monkeypatch):
    """Resume by generator and step number as everywhere; and other processes draw other shards of the same key."""
    model, batches, _ = FlowMatching.small()
    runs = []
    for start in (0, 2):
        torch.manual_seed(0)
        again, _, _ = FlowMatching.small()
        g = seeded(5)
        for _ in range(start):
            Shards(batches, 2).draw(g)
        options = {"shards": 2, "optimizer": lambda m: phase_optimizer(m, 1e-3), "generator": g, "start": start}
        runs.append([s.number for s in train_distributed(again, phase_loss(model, 4), batches, steps=4, **options)])
    assert runs == [[1, 2, 3, 4], [3, 4]]
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    shards = Shards(batches, 2)
    seen = []
    for r in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda r=r: r)
        seen.append(shards.losses(lambda model, batch, g: batch[0][:, 0], model, torch.tensor(7)))
    assert len(seen[0]) == batches.batch_size and not torch.equal(*seen)
    with pytest.raises(RangeError, match="count: got 3 shards, expected a multiple of 2"):
        Shards(Batches((torch.zeros(4, 2),), 2), 3)


def test_what_a_family_does_between_updates_is_done(tmp_path):
    """Running codebooks and averaged targets move in ``scale_out`` as in ``zoo.train``: once after every update."""
    settled = []

    class Watched(type(FLOW_MATCHING)):
        def settle(self, model, done):
            settled.append(done)

    recipe = Watched(**{field.name: getattr(FLOW_MATCHING, field.name) for field in fields(FLOW_MATCHING)})
    assert [step.number for step in scale_out(recipe, tmp_path / "w.safetensors", shards=1, steps=3)] == settled
    assert settled == [1, 2, 3] and (tmp_path / "w.safetensors").is_file()
