"""The race of schedules: energies against quadrature, one flow for all of them, and who is compared with whom."""

from __future__ import annotations

import pytest
import torch
from scipy.integrate import quad
from worlds import F64, normal, seeded

from lecture_lib.benchmarks import schedules
from lecture_lib.benchmarks.schedules import BEST, FIXED, LEARNED, REBASED, race
from lecture_lib.core import RectifiedFlow, Trigonometric, VPLinear
from lecture_lib.data import moons
from lecture_lib.families import LearnedLine
from lecture_lib.metrics import two_sample_test
from lecture_lib.oracles import GaussianMixture, moons_mixture, ring_of_modes
from lecture_lib.samplers import Heun
from lecture_lib.tooling.benching import save


def bent(seed: int) -> LearnedLine:
    """A schedule that nobody chose."""
    path = LearnedLine()
    with torch.no_grad():
        path.alpha_logits.copy_(normal(12, seed=seed))
        path.sigma_logits.copy_(normal(12, seed=seed + 1))
    return path


def test_the_mixture_of_moons_is_the_moons():
    mixture = moons_mixture()
    points, labels = moons(2000, generator=seeded(1))
    drawn, drawn_labels = mixture.sample(2000, generator=seeded(2), return_labels=True)
    assert two_sample_test(drawn[:500], points[:500].double(), generator=seeded(3)).same
    upper = drawn[drawn_labels == 0].double().mean(0), points[labels == 0].double().mean(0)
    torch.testing.assert_close(*upper, atol=0.07, rtol=0)  # five standard errors
    fine = moons_mixture(480)  # as good as the limit; their densities at points that the moons visit
    off = mixture.log_prob(points.double()) - fine.log_prob(points.double())
    assert off.abs().mean() < 1e-2


@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric(), VPLinear()], ids=lambda p: type(p).__name__)
def test_the_energy_of_a_gaussian_is_its_integral(path):
    """v = m alpha' + (r'/r)(x - m alpha), r^2 = alpha^2 s^2 + sigma^2, so E|v|^2 = |m|^2 alpha'^2 + d r'^2."""
    s, m = 0.4, 1.5
    world = GaussianMixture([1.0], [[m, 0.0]], [s**2])

    def speed(u):
        t = torch.tensor([u * path.t_max], dtype=F64)
        (alpha, sigma), (dalpha, dsigma) = (path.alpha(t), path.sigma(t)), path.slopes(t)
        dr = (alpha * dalpha * s**2 + sigma * dsigma) / (alpha**2 * s**2 + sigma**2).sqrt()
        return float(path.t_max**2 * ((m * dalpha) ** 2 + 2 * dr**2))

    exact, _ = quad(speed, race.NEAR, 1)
    assert float(race.energy(world, path)) == pytest.approx(exact, rel=3e-3)


def test_energy_is_the_pairs_cost_and_the_bend_and_no_schedule_changes_the_pairs():
    world, eps, costs = ring_of_modes(), torch.special.ndtri(race.balanced(512, 2)).float(), []
    course = race.Course(world, eps, world.sample(100, generator=seeded(1)).float(), race.exact_ends(world, eps))
    for path in (RectifiedFlow(), Trigonometric(), bent(2)):
        exact, ran = course.exactly(path), course.ran(world.denoise(path), path)
        costs.append(race.apart(race.walk(world.denoise(path), path, Heun(), 64, eps), eps) ** 2)
        assert exact["energy"] == pytest.approx(costs[-1] + ran["straightness"], rel=0.015)
        for k in race.STEPS[1:]:  # the network's own end is the exact one if it is the exact network
            own = ran[f"{k} Euler, {race.OWN}"]
            assert own == pytest.approx(exact[f"{k} Euler, {race.EXACT}"], rel=0.03)
    assert max(costs) == pytest.approx(min(costs), rel=0.015)


def test_the_best_schedule_beats_all_that_are_tried():
    world = ring_of_modes()
    best = race.best_line(world, updates=80)
    with torch.no_grad():
        least = race.energy(world, best)
        assert all(least < 0.8 * race.energy(world, path) for path in (*FIXED.values(), bent(3), LearnedLine()))


def test_the_learned_schedule_has_no_updates_for_nothing(monkeypatch):
    phases, fit = [], race.fit

    def watched(*args, **options):
        for step in fit(*args, **options):
            phases.append(step.phase)
            yield step

    monkeypatch.setattr(race, "fit", watched)
    model = race.trained(ring_of_modes(), LearnedLine(), 0, 20)
    assert phases.count("schedule") == 4 and len(phases) == 20
    assert not torch.equal(model.path.alpha_logits, LearnedLine().alpha_logits)
    race.trained(ring_of_modes(), RectifiedFlow(), 0, 20)
    assert len(phases) == 40 and phases[20:] == ["all"] * 20


@pytest.fixture(scope="module")
def rows():
    """Twenty updates, two seeds, a few hundred points."""
    patch = pytest.MonkeyPatch()
    patch.setattr(race, "POINTS", 200)
    patch.setattr(schedules, "best_line", lambda world: bent(4))
    yield list(schedules.measure({"ring": ring_of_modes()}, (0, 1), updates=20))
    patch.undo()


def test_all_schedules_are_measured_and_drawn(rows, tmp_path):
    found = schedules.table(rows)["ring"]
    assert set(found) == {*FIXED, LEARNED, REBASED, BEST, "real", "pairs"}
    assert found["pairs"]["energy, W2^2"] <= found["pairs"]["energy, least of all schedules"] < found["line"]["energy"]
    # The line's network has one flow, whatever it is sampled on: many steps end at the same place.
    far = "64 Heun, off the data"
    assert found[REBASED][far] == pytest.approx(found["line"][far], rel=0.02)
    assert found[LEARNED]["alpha at 0.5, spread"] > 0 and "energy, spread" not in found["line"]
    table, picture = save("schedules", rows, tmp_path)
    assert table.exists() and picture.read_bytes().startswith(b"\x89PNG")
    schedule, energies, own, data = schedules.figure(rows).axes
    assert [bar.get_width() for bar in energies.patches][:3] == [found[name]["energy"] for name in FIXED]
    assert list(own.lines[0].get_ydata()) == [found["line"][f"{k} Euler, {race.OWN}"] for k in race.STEPS]
    assert data.lines[-1].get_ydata()[0] == found["real"][far] and len(schedule.lines) == 2 + 2 * 2


def test_a_schedule_that_has_learned_nothing_misses_its_bar(rows):
    """Twenty updates leave it near the line, whose energy is half as much again as the quarter circle's."""
    (bar,) = [row for row in rows if row.bar is not None]
    assert not bar.within and 1.2 < bar.value < 1.7
