"""Fidelity and diversity, the judge, straightness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lecture_lib.data import digits
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.metrics import Judge, count_modes, fidelity_diversity, straightness
from lecture_lib.oracles import ring_of_modes


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_neighbours(real, fake, k):
    """Precision, recall, density, coverage by scikit-learn's neighbour search and plain loops."""
    neighbours = pytest.importorskip("sklearn.neighbors").NearestNeighbors

    def radii(x):
        return neighbours(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]  # the point itself comes first

    def inside(points, centres, r):
        return np.array([[np.linalg.norm(p - c) <= r[j] for j, c in enumerate(centres)] for p in points])

    fakes = inside(fake, real, radii(real))
    return (
        fakes.any(1).mean(),
        inside(real, fake, radii(fake)).any(1).mean(),
        fakes.sum(1).mean() / k,
        fakes.any(0).mean(),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_neighbour_search(k):
    real, fake = normal(0, 60, 3), 0.7 * normal(1, 45, 3) + 0.4
    got = fidelity_diversity(real, fake, k)
    expected = by_neighbours(real.numpy(), fake.numpy(), k)
    assert (got.precision, got.recall, got.density, got.coverage) == pytest.approx(expected, abs=1e-12)
    assert got.precision != pytest.approx(got.recall, abs=0.02)


def two_modes(seed, n, share=0.5):
    side = (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share).double()[:, None] * 2 - 1
    return normal(seed + 1, n, 2) * 0.5 + torch.cat([4 * side, 0 * side], dim=1)


def test_known_failures_show_where_they_should():
    real = two_modes(0, 1000)
    same = fidelity_diversity(real, two_modes(10, 1000))
    one_mode = fidelity_diversity(real, two_modes(20, 1000, share=1.0))
    wide = fidelity_diversity(real, 12 * normal(30, 1000, 2))
    assert min(same.precision, same.recall) > 0.95
    assert one_mode.precision > 0.95 and one_mode.recall == pytest.approx(0.49, abs=0.05)
    assert one_mode.coverage < 0.55 and wide.precision < 0.2


def test_k_is_checked():
    x = normal(0, 4, 2)
    for k in (0, 4):
        with pytest.raises(RangeError):
            fidelity_diversity(x, x, k)


def test_judge_sees_digits_and_knows_its_limits():
    train, test = digits("train"), digits("test")
    judge = Judge(train.images, train.labels)
    assert 0.97 < judge.accuracy(test.images, test.labels) < 1.0
    assert judge.accuracy(test.images, (test.labels + 1) % 10) < 0.02
    assert torch.equal(judge.predict(3 * test.images), judge.predict((3 * test.images).clamp(-1, 1)))
    with pytest.raises(ShapeError):
        judge.accuracy(test.images, test.labels[:3])


def test_straightness_of_a_gaussian_flow():
    """N(0, s^2) on the line path: z_t = z_1 m(t), m^2 = (1-t)^2 s^2 + t^2, so S = z_1^2 (int m'^2 dt - (1 - s)^2)."""
    quad = pytest.importorskip("scipy.integrate").quad
    s = 0.4

    def m(t):
        return math.sqrt((1 - t) ** 2 * s**2 + t**2)

    def slope(t):
        return (t - (1 - t) * s**2) / m(t)

    factor = quad(lambda t: slope(t) ** 2, 0, 1)[0] - (1 - s) ** 2
    z = normal(1, 7, 3)

    def velocity(x, t):
        rate = (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2)
        return rate[:, None] * x

    got = straightness(velocity, z, steps=400)
    assert torch.allclose(got, factor * z.square().sum(1), rtol=1e-4)
    assert (got > 0.1).any()


def test_straight_flows_are_straight():
    target = normal(2, 5, 2)

    def straight(x, t):
        return (x - target) / t.clamp(min=1e-12)[:, None]

    assert straightness(straight, normal(3, 5, 2), start=1.0, end=0.01).max() < 1e-12


def test_modes_by_hand():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    points = torch.tensor(
        [[0.1, 0.0], [0.0, -0.9], [4.0, 1.0], [2.0, 0.0], [0.0, 5.1], [0.0, 0.0], [0.3, 0.3], [9.0, 9.0]]
    )
    shares, covered, between = count_modes(points, centres, 1.0)
    assert shares.tolist() == [0.5, 0.125, 0.0] and covered == 2 and between == 0.375
    assert count_modes(points.repeat(2, 1), centres, 1.0).between == 0.375
    few = torch.cat([centres[:1].repeat(95, 1), centres[1:2].repeat(5, 1)])  # 5 % is less than a quarter of a third
    assert count_modes(few, centres, 1.0).covered == 1
    with pytest.raises(ShapeError, match="centres"):
        count_modes(points, centres[:, :1], 1.0)


def test_data_of_the_plane_cover_all_modes_and_leave_e_to_minus_4_5_between():
    world = ring_of_modes()
    shares, covered, between = count_modes(
        world.sample(100_000, generator=torch.Generator().manual_seed(2)), world.means, 0.3
    )
    assert covered == 8 and between == pytest.approx(math.exp(-4.5), abs=1e-3)
    assert shares.tolist() == pytest.approx([(1 - math.exp(-4.5)) / 8] * 8, abs=4e-3)


def test_a_trajectory_of_no_length_is_not_straight():
    with pytest.raises(RangeError, match="end"):
        straightness(lambda x, t: x, torch.ones(2, 2), start=0.5, end=0.5)


def test_a_judge_names_what_does_not_fit():
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    with pytest.raises(ShapeError, match="labels"):
        Judge(images, labels[:5])
    with pytest.raises(ShapeError, match="images"):
        Judge(images, labels).predict(torch.zeros(2, 1, 3, 3))
