"""The five verbs: laws for every family, the trainer with phases, and what a broken family is told."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from lecture_lib import families
from lecture_lib.data import Batches, Dequantised, digits
from lecture_lib.errors import NotDefined, NotTractable, RangeError, ShapeError
from lecture_lib.families import CATALOGUE, GenerativeModel, LogProb, Phase, fit, laws, phase_optimizer
from lecture_lib.oracles import ring_of_modes
from lecture_lib.tensors import randn_like


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def built(family):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return family.small()


@pytest.mark.parametrize("family", CATALOGUE, ids=lambda family: family.__name__)
def test_laws(family):
    model, batches, _ = built(family)
    broken = [claim for claim, holds in laws(model, batches) if not holds]
    assert not broken


@pytest.mark.parametrize("family", CATALOGUE, ids=lambda family: family.__name__)
def test_a_time_outside_0_to_1_is_refused(family):
    """Straight lines would go on beyond the noise (alpha = -1/2 at t = 3/2), as if nothing were wrong."""
    model, batches, _ = built(family)
    x = batches.draw(seeded())[0][:4]
    for t in (torch.full((4,), 1.5), torch.full((4,), -0.1), torch.full((4,), math.nan)):
        with pytest.raises((RangeError, NotDefined)):
            model.forward_process(x, t, generator=seeded())


@pytest.mark.parametrize("name", ["VAE", "VQVAE", "FSQVAE", "MMDFlow", "UnbalancedTransport"])
def test_steps_that_a_family_cannot_take_are_refused(name):
    model, _, _ = built(getattr(families, name))
    for steps in (0, 3, 2.5):
        with pytest.raises(RangeError, match=f"steps: got {steps}, expected {model.steps}"):
            model.sample(2, steps=steps, generator=seeded())
    assert len(model.sample(2, steps=model.steps, generator=seeded())) == 2


@pytest.mark.parametrize("name", ["VAE", "DiffusionSchrodingerBridge", "JKOFlow"])
def test_labels_for_a_model_without_classes_are_refused(name):
    """Unheard they would give p(x) for p(x | label)."""
    model, batches, _ = built(getattr(families, name))
    labels = torch.tensor([0, 1])
    with pytest.raises(ShapeError, match="cond: got labels, but"):
        model.sample(2, labels, generator=seeded())
    with pytest.raises((ShapeError, NotTractable), match=r"cond: got labels, but|log_prob: Diffusion"):
        model.log_prob(batches.draw(seeded())[0][:2], labels, generator=seeded())


@pytest.mark.parametrize("family", CATALOGUE, ids=lambda family: family.__name__)
def test_demo(family):
    """Ten seconds at most on an idle core (processor time, so that a busy machine does not count); no family of the
    course needs more to show that its loss falls. Where two networks play, neither loss need fall: they stay finite."""
    start = time.process_time()
    demo = family.demo()
    assert time.process_time() - start < 10
    assert demo.samples is None or torch.isfinite(demo.samples).all()
    for name, losses in demo.losses.items():
        tenth = max(1, len(losses) // 10)
        first, last = (torch.tensor(part).mean().item() for part in (losses[:tenth], losses[-tenth:]))
        assert last < first or name in demo.model.games, f"{name}: {first:.3f} -> {last:.3f}"
    assert demo.model._repr_markdown_().startswith(f"**{family.__name__}**")


class Duel(GenerativeModel):
    """Two weights, three updates per round: the least model that has phases."""

    formula, source, event = "x", "here", (1,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def phases(self):
        return Phase("a", (self.a,)), Phase("a", (self.a,)), Phase("b", (self.b,), lr=0.1, betas=(0.0, 0.9))

    def loss(self, batch, phase="a", *, generator):
        return (batch[0][:, 0] - (self.a if phase == "a" else self.b)) ** 2

    def reverse_process(self, z, cond=None, *, steps=None, generator):
        yield z + self.a.detach()

    @classmethod
    def small(cls):
        return cls(), Batches((torch.ones(8, 1),), 4), 9


def test_phases_take_turns_and_each_moves_its_own_weights():
    model, batches, _ = Duel.small()
    seen = []
    for step in fit(model, batches, steps=6, lr=0.1, generator=seeded(), clip=None):
        seen.append((step.phase, model.a.item(), model.b.item()))
        assert step.learning_rate == pytest.approx({"a": 0.1, "b": 0.01}[step.phase])  # that of its own phase
    assert [name for name, *_ in seen] == ["a", "a", "b", "a", "a", "b"]
    assert seen[1][2] == 0.0 and seen[2][1] == seen[1][1]  # b waits for its turn, a rests in b's
    assert seen[0][1] == pytest.approx(0.1, rel=1e-4)  # Adam's first step is the rate: a's is lr ...
    assert seen[2][2] == pytest.approx(0.01, rel=1e-4)  # ... and b's a tenth of it


def test_laws_catch_a_loss_that_pulls_at_the_other_weights():
    class Cheat(Duel):
        def loss(self, batch, phase="a", *, generator):
            return super().loss(batch, phase, generator=generator) + self.a * self.b

    assert any("own weights" in claim for claim, holds in laws(*Cheat.small()[:2]) if not holds)


def test_laws_catch_what_is_drawn_from_the_global_generator():
    class Loud(Duel):
        def reverse_process(self, z, cond=None, *, steps=None, generator):
            yield z + torch.rand(1)

    broken = [claim for claim, holds in laws(*Loud.small()[:2]) if not holds]
    assert "no verb draws from the global generator" in broken
    assert any("same samples" in claim for claim in broken)


def test_laws_catch_an_exact_density_that_hears_its_neighbours():
    class Nosy(Duel):
        def log_prob(self, x, cond=None, *, generator=None):
            return LogProb((x - x.mean() + randn_like(x, generator)).flatten().double(), "exact")

    assert any("neighbours" in claim for claim, holds in laws(*Nosy.small()[:2]) if not holds)


def test_a_weight_without_a_phase_is_named():
    class Lazy(Duel):
        def phases(self):
            return (Phase("a", (self.a,)),)

    with pytest.raises(ShapeError, match="'b'"):
        phase_optimizer(Lazy(), 1e-3)


def test_what_a_family_lacks_it_says():
    model = Duel()
    with pytest.raises(NotTractable, match="log_prob: Duel"):
        model.log_prob(torch.zeros(2, 1))
    with pytest.raises(NotDefined, match="forward_process: Duel"):
        model.forward_process(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(ShapeError, match="cond: got 3 conditions"):
        model.sample(2, torch.zeros(3), generator=seeded())
    with pytest.raises(ShapeError, match="float64"):
        LogProb(torch.zeros(2), "exact")


def test_the_notebooks_new_family_has_fifteen_lines_and_keeps_the_laws():
    notebook = (Path(__file__).parents[1] / "notebooks" / "L5_unified_interpolants_lecture.py").read_text()
    text = notebook[notebook.index("class Parzen") :].split("\n# %%")[0]
    assert len([line for line in text.splitlines() if line.strip()]) <= 15
    truth = ring_of_modes(std=0.15)
    cloud = Batches((truth.sample(2000, generator=torch.Generator().manual_seed(0)).float(),), 64)
    names = {"families": families, "torch": torch, "math": math, "truth": truth, "cloud": cloud}
    names["seeded"] = lambda seed: torch.Generator().manual_seed(seed)
    exec(text, names)
    model, batches, _ = names["Parzen"].small()
    assert all(holds for _, holds in laws(model, batches))


def test_dequantised_digits_stay_in_their_cells():
    """Uniform in the cell of each level: mean 0, variance step^2/12, and rounding brings the level back."""
    draws = Dequantised(Batches((digits().images, digits().labels), 200))
    noisy, labels = draws.draw(seeded(3))
    plain, same = draws.batches.draw(seeded(3))
    noise = noisy - plain
    assert torch.equal(labels, same) and torch.equal((noisy * 8).round() / 8, plain)
    assert noise.abs().max() <= 1 / 16 and noise.var().item() == pytest.approx(1 / 768, rel=0.03)
