"""The digits' fixed split, the toy worlds, and batches whose only state is a generator."""

from __future__ import annotations

import hashlib

import pytest
import torch

from lecture_lib.data import Batches, checkerboard, digits, labelled_mixture, moons, ring, spirals
from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.metrics import frechet_distance


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_split_is_fixed_complete_and_stratified():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1442, 355)
    for part in (train, test):
        assert part.images.dtype == torch.float32 and part.images.shape[1:] == (1, 8, 8)
        assert part.images.min() == -1 and part.images.max() == 1
        share = part.labels.bincount() / len(part)
        assert (share - torch.from_numpy(sklearn.target).bincount() / 1797).abs().max() < 0.005
    together = torch.cat([train.images, test.images]).flatten(1).sort(dim=0).values
    table = torch.from_numpy(sklearn.data).float().div(8).sub(1).sort(dim=0).values
    assert torch.equal(together, table)  # every image once, scaled, none lost
    # Whoever has the pixels can tell the split: every fifth of a class, in the order of their SHA-256.
    fives = [image for image, label in zip(sklearn.images, sklearn.target, strict=True) if label == 5]
    fives.sort(key=lambda image: hashlib.sha256(bytes(int(p) for p in image.ravel())).digest())
    chosen = {bytes(int(p) for p in image.ravel()) for image in fives[4::5]}
    assert {bytes(int(p) for p in (8 * image + 8).ravel()) for image in test.of(5)} == chosen


def test_split_is_as_good_as_random():
    """In pixels, the parts are as far apart as those of random splits, not closer as twins would be."""
    train, test = digits("train").images, digits("test").images
    assert 0.33 < frechet_distance(train, test) < 0.52


def test_split_cannot_be_spoilt_by_its_user():
    digits("test").images.zero_()
    assert digits("test").images.std() > 0.5
    with pytest.raises(UnknownNameError, match="validation"):
        digits("validation")


WORLDS = {
    "ring": lambda n, g: ring(n, generator=g),
    "moons": lambda n, g: moons(n, generator=g),
    "checkerboard": lambda n, g: checkerboard(n, generator=g),
    "spirals": lambda n, g: spirals(n, generator=g),
    "mixture": lambda n, g: labelled_mixture(n, torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), generator=g),
}


@pytest.mark.parametrize("world", WORLDS)
def test_worlds_are_functions_of_the_generator(world):
    points, labels = WORLDS[world](500, seeded(3))
    again, labels_again = WORLDS[world](500, seeded(3))
    assert points.shape == (500, 2) and labels.shape == (500,) and labels.dtype == torch.int64
    assert points.dtype == torch.float32 and points.abs().max() < 3
    assert torch.equal(points, again) and torch.equal(labels, labels_again)
    assert not torch.equal(points, WORLDS[world](500, seeded(4))[0])
    with pytest.raises(RangeError):
        WORLDS[world](0, seeded())


def test_ring_centres_and_spread():
    points, labels = ring(40_000, modes=5, radius=1.2, std=0.2, generator=seeded())
    for k in range(5):
        angle = torch.tensor(2 * torch.pi * k / 5)
        centre = 1.2 * torch.stack([angle.cos(), angle.sin()])
        assert (points[labels == k].mean(0) - centre).abs().max() < 0.01
        assert points[labels == k].std(0) == pytest.approx([0.2, 0.2], abs=0.01)


def test_moons_equal_sklearn_up_to_a_shift():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs, which = datasets.make_moons(20_000, noise=0.08, random_state=0)
    points, labels = moons(20_000, std=0.08, generator=seeded())
    for k in (0, 1):
        target = torch.from_numpy(theirs[which == k]).float() - torch.tensor([0.5, 0.25])
        mine = points[labels == k]
        assert (mine.mean(0) - target.mean(0)).abs().max() < 0.03
        assert (mine.T.cov() - target.T.cov()).abs().max() < 0.03
    assert points.mean(0).abs().max() < 0.03  # the pair is centred


def test_checkerboard_is_uniform_on_its_eight_squares():
    points, row = checkerboard(40_000, generator=seeded())
    column, floor_row = (points + 2).floor().long().unbind(1)
    assert torch.equal(floor_row, row) and ((column + row) % 2 == 0).all()
    counts = (4 * row + column).bincount(minlength=16).view(4, 4)
    assert (counts > 0).sum() == 8 and (counts[counts > 0] / 5000 - 1).abs().max() < 0.1


def test_mixture_weights():
    weights = torch.tensor([0.8, 0.2])
    points, labels = labelled_mixture(
        20_000, torch.tensor([[-1.0, 2.0], [1.0, 0.0]]), std=0.5, weights=weights, generator=seeded()
    )
    assert (labels == 0).float().mean() == pytest.approx(0.8, abs=0.01)
    assert points[labels == 1].mean(0) == pytest.approx([1.0, 0.0], abs=0.03)
    assert points[labels == 1].std(0) == pytest.approx([0.5, 0.5], abs=0.02)


def test_batches_follow_the_generator_and_keep_rows_together():
    x = torch.arange(100.0)[:, None]
    batches = Batches((x, x[:, 0] * 2), 32)
    g = seeded(1)
    first, state = batches.draw(g), g.get_state()
    second = batches.draw(g)
    g.set_state(state)
    assert torch.equal(batches.draw(g)[0], second[0])  # resuming the generator resumes the batches
    assert torch.equal(first[0][:, 0] * 2, first[1]) and first[0].shape == (32, 1)
    assert not torch.equal(first[0], second[0])
    seen = torch.cat([b for b, _ in (next(s) for s in [batches.stream(seeded(2))] for _ in range(60))])
    assert len(seen.unique()) == 100


def test_batches_refuse_what_cannot_be_drawn():
    with pytest.raises(ShapeError):
        Batches((torch.zeros(3), torch.zeros(4)), 2)
    with pytest.raises(ShapeError):
        Batches((torch.zeros(0),), 2)
    with pytest.raises(ShapeError):
        Batches((), 2)
    with pytest.raises(ShapeError, match=r"got a tensor of shape \(3, 2\)"):
        Batches(torch.zeros(3, 2), 2)
    with pytest.raises(RangeError):
        Batches((torch.zeros(3),), 0)


def test_a_mixture_has_a_weight_for_each_component():
    """Two weights for four means drew from the first two, silently."""
    with pytest.raises(ShapeError, match="weights"):
        labelled_mixture(10, torch.zeros(4, 2), weights=torch.ones(2))
