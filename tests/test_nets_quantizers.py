"""Quantisers: k-means by hand and by scikit-learn, diffusers' quantiser, exact codes and their numbers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.autoencoders.vae import VectorQuantizer as DiffusersQuantizer
from worlds import gap, normal, seeded

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.nets import FSQ, VectorQuantizer, perplexity

# Perplexity


def test_perplexity_by_hand():
    assert perplexity(torch.tensor([3, 3, 3]), 8) == pytest.approx(1)
    assert perplexity(torch.arange(8).reshape(2, 2, 2), 8) == pytest.approx(8)
    assert perplexity(torch.tensor([0, 0, 0, 1]), 5) == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    with pytest.raises(RangeError, match=r"index: got entries in 0..5, expected 0..4"):
        perplexity(torch.tensor([0, 5]), 5)
    with pytest.raises(ShapeError, match="index: got"):
        perplexity(torch.tensor([]), 5)


# Vector quantiser


def test_nearest_code_loss_and_gradient_are_those_of_diffusers():
    ours, theirs = VectorQuantizer(12, 3, beta=0.25, generator=seeded(1)), DiffusersQuantizer(12, 3, 0.25, legacy=False)
    theirs.embedding.weight.data.copy_(ours.codebook)
    z = normal(2, 3, 4, 5, dtype=torch.float32, seed=2).requires_grad_()
    q = ours(z)
    z_q, loss, (_, _, index) = theirs(z)
    assert torch.equal(q.index.flatten(), index.flatten())
    assert gap(q.quantised.detach(), z_q.detach()) == 0
    # Theirs adds the codebook term, of the same value: (1 + beta) instead of beta.
    assert q.loss.mean().item() == pytest.approx(loss.item() * 0.25 / 1.25, rel=1e-6)
    g = normal(*z.shape, dtype=torch.float32, seed=3)
    assert gap(*torch.autograd.grad(q.quantised, z, g, retain_graph=True), g) == 0  # straight through
    # The encoder is pulled to its code: the gradient of beta mean |z - e|^2.
    pull = torch.autograd.grad(q.loss.sum(), z)[0]
    assert gap(pull, 0.25 * 2 * (z - q.quantised).detach() / 60) <= 1e-7


def test_one_update_by_hand():
    vq = VectorQuantizer(3, 1, gamma=0.9, epsilon=0.1, dead=0.0)
    vq.codebook.copy_(torch.tensor([[-1.0], [0.0], [5.0]]))
    vq.total.copy_(vq.codebook)
    z = torch.tensor([-2.0, -1.0, 0.2, 0.4]).reshape(1, 1, 2, 2)
    q = vq(z)
    assert q.index.tolist() == [[[0, 0], [1, 1]]]
    vq.update(z, q.index)
    N, m = [0.9 + 0.2, 0.9 + 0.2, 0.9], [-0.9 - 0.3, 0.06, 4.5]
    assert gap(vq.count, torch.tensor(N)) <= 1e-6
    smooth = [(n + 0.1) / (sum(N) + 0.3) * sum(N) for n in N]
    assert gap(vq.smoothed(), torch.tensor(smooth)) <= 1e-6
    assert vq.smoothed().sum() == pytest.approx(sum(N), rel=1e-6)
    assert gap(vq.codebook.flatten(), torch.tensor([a / b for a, b in zip(m, smooth, strict=True)])) <= 1e-6


def test_repeated_updates_are_k_means():
    # On a fixed batch the averages forget the start, and the fixed point is Lloyd's: each code its followers' mean.
    from sklearn.cluster import KMeans

    centres = 4 * normal(6, 2, seed=5, dtype=torch.float32)
    z = centres.repeat(20, 1) + 0.3 * normal(120, 2, seed=6, dtype=torch.float32)
    maps = z.T.reshape(1, 2, 12, 10)
    vq = VectorQuantizer(6, 2, gamma=0.8, epsilon=0.0, dead=0.0)
    vq.codebook.copy_(centres)
    vq.total.copy_(centres)
    for _ in range(100):
        vq.update(maps, vq(maps).index)
    lloyd = KMeans(6, init=centres.numpy(), n_init=1, tol=0).fit(z.numpy())
    assert gap(vq.codebook, torch.tensor(lloyd.cluster_centers_)) <= 1e-4
    assert vq.count.sort().values.tolist() == pytest.approx([20.0] * 6, rel=1e-4)


def test_the_codebook_changes_only_when_told_to():
    vq, z = VectorQuantizer(8, 2, generator=seeded(1)), normal(2, 2, 3, 3, dtype=torch.float32)
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    for mode in (True, False):
        vq.train(mode)(z)
    assert all(torch.equal(before[name], value) for name, value in vq.state_dict().items())
    vq.update(z, vq(z).index)
    assert not torch.equal(before["codebook"], vq.codebook)
    assert not list(vq.parameters())
    assert gap(vq.look_up(vq(z).index), vq(z).quantised) <= 1e-6


def test_dead_codes_come_back_as_vectors_of_the_batch():
    def revived(seed):
        vq = VectorQuantizer(10, 2, generator=seeded(1), gamma=0.5)
        vq.codebook[1:] += 100  # nobody will choose them
        vq.total.copy_(vq.codebook)
        z = normal(4, 2, 4, 4, dtype=torch.float32, seed=2)
        counts = [vq.update(z, vq(z).index, seeded(seed)) for _ in range(12)]
        return vq, z, counts

    vq, z, counts = revived(3)
    assert counts[0] == 0 and sum(counts) >= 9  # N of the others must first fade
    rows = {tuple(row) for row in z.permute(0, 2, 3, 1).reshape(-1, 2).tolist()}
    first = next(i for i, n in enumerate(counts) if n)
    assert counts[first] == 9
    assert perplexity(vq(z).index, 10) > 5  # all of them live: 1 before
    again, _, _ = revived(3)
    other, _, _ = revived(4)
    assert torch.equal(vq.codebook, again.codebook) and not torch.equal(vq.codebook, other.codebook)
    lone = VectorQuantizer(10, 2, dead=1.0, gamma=0.0)
    lone.update(z, torch.zeros(4, 4, 4, dtype=torch.long), seeded(1))
    assert len({tuple(row) for row in lone.codebook[1:].tolist()} & rows) == 9  # nine different vectors of the batch


def test_vector_quantizer_refuses():
    vq = VectorQuantizer(4, 3)
    with pytest.raises(ShapeError, match=r"z: got shape \(2, 2, 4, 4\), expected \(b, 3, h, w\)"):
        vq(torch.zeros(2, 2, 4, 4))
    with pytest.raises(NonFiniteError, match="z: 1 of"):
        vq(torch.full((1, 3, 1, 1), 0.0).index_fill(1, torch.tensor([1]), math.nan))
    with pytest.raises(RangeError, match="index"):
        vq.look_up(torch.full((1, 2, 2), 4))
    with pytest.raises(ShapeError, match="index: got 4 entries"):
        vq.update(torch.zeros(1, 3, 3, 3), torch.zeros(1, 2, 2, dtype=torch.long))
    with pytest.raises(RangeError, match="gamma"):
        VectorQuantizer(4, 3, gamma=1.0)


# FSQ


@pytest.mark.parametrize("L", range(2, 17))
def test_fsq_has_exactly_its_codes(L):
    # MISTAKES A55: without the half step an even L has L - 1 codes.
    fsq = FSQ([L])
    z = torch.linspace(-12, 12, 4001).reshape(1, 1, 1, -1)
    q = fsq(z)
    codes = [(k - L // 2) / (L // 2) for k in range(L)]
    assert sorted({round(value, 6) for value in q.quantised.flatten().tolist()}) == [round(c, 6) for c in codes]
    assert q.index.unique().tolist() == list(range(L))
    assert (q.index.flatten().diff() >= 0).all()
    assert fsq(torch.zeros(1, 1, 1, 1)).quantised.item() == 0  # delta undoes the offset
    assert fsq.squash(torch.zeros(1)).item() == pytest.approx(0, abs=1e-6)


def test_fsq_numbers_are_a_mixed_radix():
    fsq = FSQ([8, 5, 2, 3])
    index = torch.arange(240).reshape(2, 12, 10)
    codes = fsq.look_up(index)
    assert torch.equal(fsq.index(codes), index)
    assert len({tuple(c) for c in codes.permute(0, 2, 3, 1).reshape(-1, 4).tolist()}) == 240 == fsq.size
    # By hand: digits (7, 1, 0, 2) -> 7 + 1*8 + 0*40 + 2*80 = 175; codes (3/4, -1/2, -1, 1).
    assert fsq.look_up(torch.tensor([[[175]]])).flatten().tolist() == [0.75, -0.5, -1.0, 1.0]
    assert FSQ([5, 5, 5, 5]).size == 625
    q = fsq(3 * normal(3, 4, 6, 6, dtype=torch.float32))
    assert gap(fsq.look_up(q.index), q.quantised) <= 1e-6
    assert q.index.max() < 240 and q.index.min() >= 0 and q.loss.tolist() == [0, 0, 0]


def test_fsq_gradient_is_that_of_the_squashing():
    fsq = FSQ([8, 5])
    z = normal(2, 2, 3, 3, dtype=torch.float32).requires_grad_()
    fsq(z).quantised.sum().backward()
    h = torch.tensor([3.5 * 1.001, 2 * 1.001])[:, None, None]
    delta = torch.tensor([math.atanh(0.5 / (3.5 * 1.001)), 0.0])[:, None, None]
    expected = h / torch.tensor([4.0, 2.0])[:, None, None] / torch.cosh(z + delta) ** 2
    assert gap(z.grad, expected.detach()) <= 1e-6


def test_fsq_refuses():
    for wrong in ([], [1], [8, 300]):
        with pytest.raises(RangeError, match="levels"):
            FSQ(wrong)
    with pytest.raises(ShapeError, match=r"expected \(b, 2, h, w\)"):
        FSQ([3, 3])(torch.zeros(1, 3, 2, 2))
    with pytest.raises(RangeError, match=r"index: got entries in 9..9, expected 0..8"):
        FSQ([3, 3]).look_up(torch.tensor([[[9]]]))


def test_quantisers_move_with_their_dtype():
    z = normal(1, 2, 3, 3)
    assert FSQ([4, 3]).double()(z).quantised.dtype == torch.float64
    assert VectorQuantizer(4, 2)(z).quantised.dtype == torch.float64
