"""The benchmark of the samplers: budgets that are spent, files that are written, rivals on the same problem."""

from __future__ import annotations

import csv
import math

import pytest
from worlds import gap

from lecture_lib.benchmarks import samplers
from lecture_lib.benchmarks.samplers import convergence, overhead
from lecture_lib.benchmarks.samplers.rivals import rivals
from lecture_lib.oracles import ring_of_modes
from lecture_lib.samplers import DDIM, DPMSolver3, DPMSolverPP2M, DPMSolverPP3M, Heun, UniPC, sample
from lecture_lib.tooling.benching import Measurement, save


@pytest.mark.parametrize("sampler", [DDIM(), Heun(), DPMSolver3(), DPMSolverPP3M(), UniPC(3)], ids=repr)
def test_budgets_are_spent_exactly(sampler):
    spent = 0
    for nfe in range(1, 12):
        steps = convergence.steps_for(sampler, nfe)
        if steps is not None:
            frames = sample(
                ring_of_modes().denoise(convergence.PATH),
                convergence.PATH,
                sampler,
                convergence.to_clean(steps, 0.01),
                convergence.problem()[0][:3],
            )
            *_, final = frames
            assert final.nfe == nfe or (isinstance(sampler, DPMSolverPP3M) and nfe == 2)
            spent += 1
    assert spent >= 3


def test_the_problem_is_the_rings():
    x_T, exact = convergence.problem()
    assert x_T.shape == exact.shape == (convergence.POINTS, 2)
    radius = exact.norm(dim=1)
    assert abs(float(radius.mean()) - 1) < 0.02 and 0.08 < float(radius.std()) < 0.12  # radius 1, std 0.1
    assert pytest.approx(math.sqrt(1 / 4.035830e-5 - 1), rel=1e-6) == convergence.LEVEL  # FORMULAS, part 5


def test_the_error_of_a_known_sampler_is_what_diffusers_has():
    # DDIM, trailing timesteps, ten steps: theirs on this problem, and ours on the same timesteps.
    pytest.importorskip("diffusers", reason="the oracle needs `diffusers`")
    from lecture_lib.core import trailing_grid

    found = {name: value for value, name in rivals(ring_of_modes(), convergence.PATH, *convergence.problem(), 10)}
    theirs = next(value for name, value in found.items() if name.startswith("DDIM"))
    assert convergence.error(DDIM(), trailing_grid(convergence.PATH, 10)) == pytest.approx(theirs, rel=1e-4)
    best = min(found.values())
    assert convergence.error(UniPC(4), convergence.to_clean(50, 0.0015)) < best  # fifty evaluations against ten
    assert convergence.error(DPMSolverPP2M(), convergence.to_clean(10, 0.01), seed=1) < 0.2


def test_overhead_compares_the_same_step():
    # What is timed computes the same thing on both sides: one pass of each from the same x with the same output.
    import torch

    from lecture_lib.core import EPS, Discrete, Prediction, stable_diffusion, trailing_grid
    from lecture_lib.samplers import last

    pytest.importorskip("diffusers", reason="the oracle needs `diffusers`")
    path = Discrete(stable_diffusion())
    x, eps = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    scheduler = overhead._scheduler("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"})()
    scheduler.set_timesteps(5)
    theirs = x
    for t in scheduler.timesteps:
        theirs = scheduler.step(eps, t, theirs).prev_sample

    def denoise(x_t, t):
        return Prediction.decoded(path, t, x_t, eps, EPS)

    ours = last(sample(denoise, path, DDIM(), trailing_grid(path, 5), x))
    assert gap(ours, theirs) <= 2e-4  # x0 from the first timestep is 14.6 times as large as x


def test_measurements_are_written(tmp_path, monkeypatch):
    rows = [Measurement("a number", 1.25, "s", 2.0), Measurement("ring, 10 NFE, best: X() on Y", 0.004, "data units")]
    assert save("import_time", rows, tmp_path / "new") == [tmp_path / "new" / "import_time.csv"]
    with (tmp_path / "new" / "import_time.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {"what": "a number", "value": "1.25", "unit": "s", "bar": "2.0", "within": "True"}
    assert second["bar"] == "" and second["value"] == "0.004"
    points = [0.1 / (k + 1) for k in range(len(convergence.BUDGETS))]
    monkeypatch.setattr(convergence, "curves", lambda: {"DDIM": points, "Heun": [math.nan, *points[1:]]})
    table, picture = save("samplers", rows, tmp_path)
    assert table.stat().st_size > 50 and picture.read_bytes().startswith(b"\x89PNG")
    (ax,) = samplers.figure(rows).axes
    assert {"DDIM", "Heun", "best of these, any grid"} <= {text.get_text() for text in ax.get_legend().get_texts()}
