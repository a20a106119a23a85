"""Masked image modelling: laws of small worlds that are known exactly, diffusers' scheduler, and sums by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import AmusedScheduler
from diffusers.schedulers.scheduling_amused import mask_by_random_topk
from scipy.stats import chisquare, kstest
from worlds import gap, normal, seeded

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import MaskedImageModel, MostConfident, RandomOrder, cosine, decode, hide
from lecture_lib.families.masked import gumbel, least_trusted
from lecture_lib.nets import MaskedTransformer

MASK = 2  # of the worlds below, whose tokens are 0 and 1
DRAWS = 20_000
STATES = torch.tensor(list(itertools.product((0, 1), repeat=3)))


def joint(seed=0):
    """A law of three correlated bits: (8,) probabilities of STATES."""
    return torch.softmax(1.5 * normal(8, seed=seed), 0)


def oracle(p):
    """The exact predictor of this law: log p(y_i = v | the visible bits), by summation over all eight states."""

    def predict(tokens):
        fits = ((tokens[:, None] == STATES) | (tokens[:, None] == MASK)).all(-1) * p  # (b, 8)
        by_value = torch.stack([fits @ (v == STATES).double() for v in (0, 1)], -1)  # (b, 3, 2)
        return (by_value / fits.sum(1)[:, None, None]).log()

    return predict


def drawn(predict, steps, order, seed=0, start=None):
    start = torch.full((DRAWS, 3), MASK) if start is None else start
    *_, end = decode(predict, start, MASK, steps=steps, order=order, generator=seeded(seed))
    assert not end.hidden.any()
    return torch.bincount(end.tokens @ torch.tensor([4, 2, 1]), minlength=8).double()


def fit(counts, p):
    """p-value of Pearson's test."""
    return chisquare(counts, DRAWS * p / p.sum()).pvalue


def product_of_marginals(p):
    marginal = STATES.double().T @ p  # (3,) P(bit = 1)
    return torch.where(STATES == 1, marginal, 1 - marginal).prod(1)


# --- what decoding draws from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_one_place_per_step_in_random_order_is_exact(seed):
    p = joint(seed)
    assert fit(drawn(oracle(p), 3, RandomOrder(), seed), p) > 1e-3
    assert fit(drawn(oracle(p), 3, RandomOrder(), seed), product_of_marginals(p)) < 1e-9  # they are correlated


@pytest.mark.parametrize("order", [RandomOrder(), MostConfident(0.0), MostConfident(4.0)])
def test_one_step_draws_all_places_independently(order):
    p = joint()
    assert fit(drawn(oracle(p), 1, order), product_of_marginals(p)) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_independent_places_are_exact_in_any_number_of_steps(steps):
    p = product_of_marginals(joint())
    assert fit(drawn(oracle(p), steps, RandomOrder()), p) > 1e-3


def test_confidence_changes_the_law():
    """What is kept depends on what was drawn: likely pictures come too often, less so with more noise in the order."""
    p = joint()
    entropies = []
    for order in (MostConfident(0.0), MostConfident(4.0), RandomOrder()):
        q = drawn(oracle(p), 3, order) / DRAWS
        entropies.append(torch.special.entr(q).sum().item())
    assert fit(drawn(oracle(p), 3, MostConfident(0.0)), p) < 1e-9
    exact = torch.special.entr(p).sum().item()
    assert entropies[0] < entropies[1] < exact
    assert abs(entropies[2] - exact) < 0.02


def test_a_picture_is_completed_by_the_conditional_law():
    p = joint()
    start = torch.tensor([[1, MASK, MASK]]).expand(DRAWS, 3)
    counts = drawn(oracle(p), 2, RandomOrder(), start=start)
    assert counts[:4].sum() == 0  # the visible bit stayed
    assert fit(counts[4:], p[4:]) > 1e-3


# --- the schedule ----------------------------------------------------------------------------------------------------


def noise_predictor(tokens, seed=7, size=5):
    return normal(*tokens.shape, size, seed=seed)


def hidden_counts(n, steps, **options):
    frames = decode(noise_predictor, torch.full((3, n), 5), 5, steps=steps, generator=seeded(1), **options)
    return torch.stack([frame.hidden.sum(1) for frame in frames])  # (steps, b)


def test_the_published_numbers_of_new_tokens():
    """256 tokens in 12 steps (MaskGIT's cosine schedule)."""
    counts = hidden_counts(256, 12)
    new = -counts.diff(dim=0, prepend=torch.full((1, 3), 256))
    assert new.T.tolist() == 3 * [[3, 6, 11, 15, 18, 22, 26, 27, 31, 31, 33, 33]]


@pytest.mark.parametrize(("n", "steps"), [(64, 1), (64, 12), (64, 64), (5, 5), (7, 100), (1, 3)])
def test_every_step_keeps_one_more_and_visible_tokens_stay(n, steps):
    before = torch.full((3, n), 5)
    left = n
    for frame in decode(noise_predictor, before, 5, steps=steps, generator=seeded(1)):
        expected = max(min(math.floor(n * math.cos(math.pi / 2 * frame.step / steps)), left - 1), 0)
        left = expected if frame.step < steps else 0
        assert (frame.hidden.sum(1) == left).all()
        known = before != 5
        assert torch.equal(frame.tokens[known], before[known]) and not (frame.hidden & known).any()
        assert frame.tokens.max() < 5  # no frame shows a mask
        before = frame.tokens.masked_fill(frame.hidden, 5)
    assert left == 0


def test_rows_with_different_gaps_keep_their_own_schedule():
    start = torch.full((2, 8), 5)
    start[1, :6] = 0
    counts = torch.stack([f.hidden.sum(1) for f in decode(noise_predictor, start, 5, steps=4, generator=seeded(0))])
    assert counts.tolist() == [[7, 1], [5, 0], [3, 0], [0, 0]]


def test_the_chain_equals_diffusers_scheduler():
    """Draws that are all but certain, each a little less than the last: the same places are hidden at every step.

    61 places, not 64: theirs rounds 64 cos(60 degrees) = 32 down to 31 in float32.
    """
    theirs = AmusedScheduler(mask_token_id=5)
    theirs.set_timesteps(12, temperature=(0, 0))
    doubt = 1e-5 * (1 + torch.rand(2, 61, generator=seeded(0)).argsort(1))  # 1e-5 .. 61e-5, never twice in a row
    answer = torch.randint(5, (2, 61), generator=seeded(1))
    p = torch.where(F.one_hot(answer, 5).bool(), 1 - doubt[..., None], doubt[..., None] / 4)
    sample = torch.full((2, 61), 5)
    mine = decode(lambda _: p.log(), sample, 5, steps=12, order=MostConfident(0.0), generator=seeded(2))
    for frame, t in zip(mine, theirs.timesteps, strict=True):
        out = theirs.step(p.log(), t, sample, generator=seeded(3))
        sample = out.prev_sample
        assert torch.equal(frame.tokens, answer) and torch.equal(out.pred_original_sample, answer)
        assert torch.equal(frame.hidden, sample == 5)


def test_what_is_trusted_least_against_diffusers():
    p, hidden = torch.rand(6, 20, generator=seeded(0)), torch.rand(6, 20, generator=seeded(1)) < 0.7
    count = torch.tensor([[0], [1], [3], [5], [6], [7]])
    mine = least_trusted(p.log(), hidden, count)
    known_last = torch.where(hidden, p, torch.finfo(p.dtype).max)
    assert torch.equal(mine, mask_by_random_topk(count, known_last, temperature=0.0))


def test_temperature_is_annealed():
    """At the last step but none the scores are log p alone; before, noise of the stated size."""
    log_p = normal(4, 50, seed=3)
    assert torch.equal(MostConfident(3.0)(log_p, 0.0, seeded(0)), log_p)
    noise = MostConfident(3.0)(log_p, 0.25, seeded(0)) - log_p
    assert gap(noise, 0.75 * gumbel(log_p, seeded(0))) <= 1e-12


def test_gumbel_noise_is_gumbel():
    noise = gumbel(torch.empty(DRAWS), seeded(4))
    assert kstest(noise.numpy(), "gumbel_r").pvalue > 1e-3


# --- training --------------------------------------------------------------------------------------------------------


def test_hidden_places_follow_the_cosine_and_are_spread_evenly():
    """P(m hidden of n) = (2/pi) (arccos((m-1)/n) - arccos(m/n)), as r = (2/pi) arccos(share) is uniform."""
    n = 6
    masked = hide(torch.zeros(DRAWS, n, dtype=torch.long), 9, generator=seeded(5)) == 9
    edge = torch.arange(n + 1, dtype=torch.float64) / n
    p = 2 / math.pi * (torch.arccos(edge[:-1]) - torch.arccos(edge[1:]))
    assert fit(torch.bincount(masked.sum(1), minlength=n + 1)[1:].double(), p) > 1e-3
    single = masked[masked.sum(1) == 1].sum(0).double()
    assert chisquare(single).pvalue > 1e-3
    assert torch.equal(cosine(torch.tensor([0.0])), torch.ones(1))


def test_the_rest_of_the_tokens_stays_and_0_is_no_mask():
    tokens = torch.randint(4, (50, 16), generator=seeded(0))
    masked = hide(tokens, 4, generator=seeded(1))
    assert torch.equal(masked[masked != 4], tokens[masked != 4])
    assert ((masked == 4).sum(1) >= 1).all()


class Shouting(MaskedTransformer):
    """Logits that are right by ``gain`` where the token is visible and flat where it is not."""

    gain = 0.0

    def forward(self, tokens, cond=None):
        self.seen = tokens
        return (
            self.gain * F.one_hot(tokens.clamp(max=self.size - 1), self.size).float() * (tokens < self.size)[..., None]
        )


def test_only_hidden_places_are_paid_for():
    net = Shouting(8, (4, 4), dim=8, depth=1, heads=1)
    tokens = torch.randint(8, (40, 16), generator=seeded(0))
    for net.gain in (0.0, 50.0, -50.0):
        loss = MaskedImageModel(net).loss(tokens, generator=seeded(1))
        share = (net.seen == 8).double().mean(1)
        assert gap(loss.double(), share * math.log(8)) <= 1e-6
    smooth = MaskedImageModel(net, smoothing=0.1).loss(tokens, generator=seeded(1))
    assert gap(smooth.double(), share * math.log(8)) <= 1e-6  # a flat answer pays log 8 to any target


def built(*sizes, **options):
    """A network whose initial weights do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MaskedTransformer(*sizes, **options)


def text_model():
    net = built(6, (3, 3), dim=16, depth=1, heads=2, context_dim=4)
    for weight in net.parameters():  # as it starts, the network does not hear the text yet
        torch.nn.init.normal_(weight, std=0.3, generator=seeded(0))
    null = {"tokens": torch.zeros(3, 4), "mask": torch.tensor([True, False, False])}
    return MaskedImageModel(net, null=null).eval()


def caption(b=2):
    return {"tokens": normal(b, 3, 4, seed=1).float(), "mask": torch.ones(b, 3, dtype=torch.bool)}


def test_the_loss_drops_conditions_of_single_samples():
    model, tokens = text_model(), torch.randint(6, (64, 9), generator=seeded(0))
    cond = caption(64)
    never, always, half = (model.loss(tokens, cond, p_uncond=p, generator=seeded(2)) for p in (1e-9, 1.0, 0.5))
    assert torch.isclose(always, never, atol=1e-6).sum() == 0
    as_dropped, as_told = (torch.isclose(half, other, atol=1e-6) for other in (always, never))
    assert (as_dropped ^ as_told).all() and 16 < as_dropped.sum() < 48
    with pytest.raises(ShapeError, match="no condition to drop"):
        MaskedImageModel(MaskedTransformer(6, (3, 3), dim=8, heads=1)).loss(tokens, p_uncond=0.1, generator=seeded(0))


def test_guidance_is_a_product_of_densities():
    model, tokens = text_model(), torch.randint(7, (2, 9), generator=seeded(3))
    with torch.no_grad():
        plain, empty = model(tokens, caption()), model(tokens)
        assert gap(plain, empty) > 1e-3
        assert torch.equal(model.guided(caption(), 1.0)(tokens), plain)
        assert gap(model.guided(caption(), 0.0)(tokens), empty) <= 1e-6
        p = F.softmax(model.guided(caption(), 2.5)(tokens).double(), -1)
        expected = F.softmax(empty.double(), -1) ** -1.5 * F.softmax(plain.double(), -1) ** 2.5
        assert gap(p, expected / expected.sum(-1, keepdim=True)) <= 1e-5
        away = model.guided(caption(), 2.0, negative=caption())(tokens)
        assert gap(away, plain) <= 1e-5  # from here to here
    with pytest.raises(ShapeError, match="without condition"):
        MaskedImageModel(MaskedTransformer(6, (3, 3), dim=8, heads=1)).guided(None, 2.0)


def test_a_small_model_learns_a_law_and_draws_from_it():
    """Three correlated bits again, this time learned: the trained conditionals come near the oracle's."""
    p, model = joint(), MaskedImageModel(built(2, (1, 3), dim=32, depth=2, heads=2))
    rows, generator = torch.multinomial(p, 100_000, replacement=True, generator=seeded(0)), seeded(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=1000)
    for batch in STATES[rows].split(100):
        optimizer.zero_grad()
        model.loss(batch, generator=generator).mean().backward()
        optimizer.step()
        falling.step()
    every = torch.tensor([s for s in itertools.product((0, 1, 2), repeat=3) if 2 in s])
    with torch.no_grad():
        error = (model(every).double().softmax(-1) - oracle(p)(every).exp()).abs()[every == 2]
        q = drawn(model.guided(None, 1.0), 3, RandomOrder()) / DRAWS
    assert error.mean() < 0.03
    assert (q - p).abs().sum() / 2 < 0.05  # total variation; sampling noise alone gives about 0.008


def test_same_seed_same_picture_and_errors():
    model = text_model()

    def end(seed):
        return list(decode(model.guided(caption(), 3.0), model.blank(2), 6, steps=4, generator=seeded(seed)))[-1]

    assert torch.equal(end(0).tokens, end(0).tokens) and not torch.equal(end(0).tokens, end(1).tokens)
    with pytest.raises(RangeError, match="steps"):
        next(decode(model, model.blank(2), 6, steps=0))
    with pytest.raises(ShapeError, match="cond"):
        model(model.blank(2), {"tokens": torch.zeros(2, 3, 4)})
