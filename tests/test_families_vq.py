"""Quantised autoencoders: the bound against enumeration, draws against chances, gradients across the rounding."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from likelihood_laws import assert_no_better_than_entropy
from scipy import stats

from lecture_lib.data import digits
from lecture_lib.errors import ShapeError
from lecture_lib.families import FSQVAE, VQVAE, DiscretisedLogistic, Levels, fit
from lecture_lib.nets import (
    FSQ,
    CausalTransformer,
    Decoder,
    TokenAutoencoder,
    VectorQuantizer,
    WindowEncoder,
    perplexity,
    straight_through,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(family=VQVAE, quantiser=None, side=2, levels=2, n_classes=0, seed=0, **options):
    """Side 2: one token; side 4: four. The prior's head is random, so that all tokens are not alike."""
    torch.manual_seed(seed)
    quantiser = quantiser or VectorQuantizer(4, 2, gamma=0.9, generator=seeded(seed))
    channels = getattr(quantiser, "dim", 2)
    encoder = WindowEncoder(channels, in_channels=1, factor=2, window=2, width=8)
    decoder = Decoder(channels, 1, channels=8, multipliers=(1, 2), blocks=1, groups=8)
    transformer = CausalTransformer(quantiser.size, (side // 2) ** 2, dim=16, depth=1, n_classes=n_classes)
    torch.nn.init.normal_(transformer.head.weight)
    observation = DiscretisedLogistic((1, side, side), levels=Levels(levels))
    model = family(TokenAutoencoder(encoder, quantiser, decoder), transformer, observation, n_classes=n_classes)
    return model.double()


def all_of(count, places):
    return torch.tensor(list(itertools.product(range(count), repeat=places)))


@torch.no_grad()
def exact_log_prob(model, x, cond=None):
    """log sum over all k of p(k | cond) p(x | k), by enumeration."""
    codes = all_of(model.autoencoder.size, model.steps)
    log_k = model.log_prior(codes, None if cond is None else cond.expand(len(codes)))
    x_hat = model.autoencoder.decode(codes)
    log_x = torch.stack([model.observation.log_prob(part.expand_as(x_hat), x_hat) for part in x])  # (b, codes)
    assert log_k.exp().sum().item() == pytest.approx(1, abs=1e-6)
    return (log_k + log_x).logsumexp(1)


def pictures(side, levels):
    return Levels(levels).values(all_of(levels, side * side)).reshape(-1, 1, side, side).double()


def test_probabilities_of_all_pictures_add_up_to_one_and_the_bound_stays_below():
    model, x = tiny(), pictures(2, 3)[::2]
    model.observation = DiscretisedLogistic((1, 2, 2), levels=Levels(3)).double()
    everything = exact_log_prob(model, pictures(2, 3))
    assert everything.exp().sum().item() == pytest.approx(1, abs=1e-6)  # 81 pictures, 4 codes
    found = model.log_prob(x)
    assert (found.kind, found.of) == ("lower bound", "probability")
    gap = everything[::2] - found.nats
    assert (gap > 0).all()  # what is missing are the other codes, 3 of 4 here
    codes, k = all_of(4, 1), model.autoencoder.tokens(x)
    joint = torch.stack([model.log_prior(c.expand(len(x), 1)) for c in codes]).detach()
    seen = [model.observation.log_prob(x, model.autoencoder.decode(c.expand(len(x), 1))).detach() for c in codes]
    posterior = (joint + torch.stack(seen)).log_softmax(0).gather(0, k.T)[0]
    assert torch.allclose(gap, -posterior, atol=1e-6)  # exactly -log p(k | x): an encoder that is sure of k


def test_four_tokens_against_enumeration_with_labels():
    model = tiny(side=4, n_classes=3)
    x = Levels(2).values(torch.randint(2, (3, 1, 4, 4), generator=seeded())).double()
    for label in (0, 2):
        cond = torch.tensor([label])
        exact, found = exact_log_prob(model, x, cond), model.log_prob(x, cond.expand(3)).nats  # 256 codes
        assert (found < exact).all()
    assert not torch.allclose(found, model.log_prob(x).nats)


def test_samples_have_the_probabilities_of_the_model():
    """20,000 draws of 2x2 pictures of two levels, against p(x) by enumeration: prior, decoder and observation."""
    model = tiny(seed=1)
    drawn = Levels(2).numbers(model.sample(20_000, generator=seeded())).flatten(1)
    number = (drawn * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    p = exact_log_prob(model, pictures(2, 2)).exp()
    assert stats.chisquare(number.double().numpy(), (p / p.sum() * 20_000).numpy()).pvalue > 1e-3


def test_tokens_are_drawn_in_order_and_given_ones_are_kept():
    """The memory of the transformer makes no difference: sequences have the frequencies that log_prior says."""
    model = tiny(side=4, seed=2)
    *steps, x_hat, _ = model.reverse_process(model.prior(8, generator=seeded()), generator=seeded())
    assert [step.shape[1] for step in steps] == [1, 2, 3, 4]
    assert torch.equal(x_hat, model.autoencoder.decode(steps[-1]))
    begun = torch.tensor([[3, 1]]).expand(4000, 2)
    *_, tokens, _, _ = model.reverse_process(begun, generator=seeded())
    assert torch.equal(tokens[:, :2], begun)
    rest = (tokens[:, 2:] * torch.tensor([4, 1])).sum(1).bincount(minlength=16)
    law = model.log_prior(torch.cat([begun[:16], all_of(4, 2)], 1)).detach().softmax(0)
    assert stats.chisquare(rest.double().numpy(), (law * 4000).numpy()).pvalue > 1e-3


def test_guided_tokens_have_the_extrapolated_law():
    """w = 2: log-odds l_0 + 2 (l_c - l_0) of the first token, against 20,000 draws; w = 1 is the conditional law."""
    model = tiny(seed=3, n_classes=3)
    cond = torch.tensor([1])
    with torch.no_grad():
        for weight in model.transformer.start.parameters():
            weight.mul_(30)  # labels that matter
        none, one = (model.transformer.begin(1, c)[0] for c in (None, cond))
    for w in (1.0, 2.0):
        model.w = w
        start = model.prior(20_000, generator=seeded())
        tokens = next(model.reverse_process(start, cond.expand(20_000), generator=seeded()))[:, 0]
        law = (none + w * (one - none)).softmax(-1)[0].double()
        found = tokens.bincount(minlength=len(law))
        assert stats.chisquare(found.double().numpy(), (law / law.sum() * 20_000).numpy()).pvalue > 1e-3
    assert ((none + one).softmax(-1) - one.softmax(-1)).abs().max() > 0.02


def test_the_encoder_hears_of_its_pictures_through_the_rounding():
    """The gradient at z_e is that at the codes, and the commitment's own comes on top: 2 beta (z_e - e), a sum. Without
    the stop-gradient z_e + (e - z_e) is e, and the encoder hears nothing (B100)."""
    model = tiny(VQVAE, VectorQuantizer(5, 3, generator=seeded()), levels=17)
    x = Levels(17).values(torch.randint(17, (4, 1, 2, 2), generator=seeded())).double()
    quantiser, decoder, nll = model.autoencoder.quantiser, model.autoencoder.decoder, model.observation.log_prob
    encoder = model.autoencoder.encoder
    live = encoder(x)
    e = quantiser.look_up(quantiser.nearest(live)).requires_grad_()
    at_code = torch.autograd.grad(-nll(x, decoder(e)).sum(), e)[0]
    expected = torch.autograd.grad(live, list(encoder.parameters()), at_code + 2 * 0.25 * (live - e).detach())
    found = torch.autograd.grad(model.loss((x,), "tokenizer", generator=seeded()).sum(), list(encoder.parameters()))
    assert all(torch.allclose(mine, theirs, atol=1e-10) for mine, theirs in zip(found, expected, strict=True))
    z_e = live.detach().requires_grad_()
    common = z_e + (e.detach() - z_e)
    assert torch.autograd.grad(-nll(x, decoder(common)).sum(), z_e)[0].abs().max() < 1e-12
    assert torch.equal(straight_through(z_e, e.detach()), common)  # the same numbers, and no way to see it in them


def test_first_the_tokenizer_then_the_prior_and_the_codebook_rests():
    model, batches, _ = VQVAE.small()
    state = lambda: {k: v.clone() for k, v in model.state_dict().items()}  # noqa: E731
    seen, states = [], [state()]
    for step in fit(model, batches, steps=6, generator=seeded()):
        seen.append(step.phase), states.append(state())
    assert seen == ["tokenizer"] * 3 + ["prior"] * 3
    moved = [{k.split(".")[0] for k in a if not torch.equal(a[k], b[k])} for a, b in itertools.pairwise(states)]
    assert moved == [{"autoencoder", "observation"}] * 3 + [{"transformer"}] * 3
    codebooks = [s["autoencoder.quantiser.codebook"] for s in states]
    assert not torch.equal(codebooks[0], codebooks[1]) and torch.equal(codebooks[3], codebooks[6])
    model.loss(batches.draw(seeded()), "tokenizer", generator=seeded())  # somebody looks at the other loss meanwhile
    model.after_update("prior")
    assert torch.equal(model.autoencoder.quantiser.codebook, codebooks[6]) and model._seen is None


class Forgetful(VQVAE):
    def after_update(self, phase):
        """The codebook stays where it was born."""


def test_a_codebook_that_follows_uses_more_codes():
    """Far from the encoder's outputs, few codes are ever the nearest: followed and revived ones share the work."""
    used = {}
    for family in (VQVAE, Forgetful):
        torch.manual_seed(0)
        model, batches, _ = family.small()
        model.tokenizer_share = 1.0
        model.autoencoder.quantiser.codebook.add_(3.0)
        model.autoencoder.quantiser.total.add_(3.0)
        for _ in fit(model, batches, steps=60, generator=seeded()):
            pass
        used[family] = perplexity(model.autoencoder.tokens(batches.tensors[0]), 32).item()
    assert used[VQVAE] > 8 and used[Forgetful] < 3


@pytest.mark.parametrize("family", [VQVAE, FSQVAE])
def test_noise_costs_its_entropy(family):
    model = tiny(family, FSQ((2, 2)) if family is FSQVAE else None, side=4, levels=17).float()
    torch.nn.init.zeros_(model.transformer.head.weight)
    assert_no_better_than_entropy(model, steps=240, lr=5e-3)


def test_without_a_prior_the_codes_are_no_pictures():
    """Codes drawn evenly cost log 32 a piece; the prior of digits knows much better, and that of the right label
    better still (B102: without it there is nothing to sample)."""
    torch.manual_seed(0)
    model, batches, steps = FSQVAE.small()
    for _ in fit(model, batches, steps=steps, generator=seeded()):
        pass
    test = digits("test")
    tokens = model.autoencoder.tokens(test.images)
    with torch.no_grad():
        right, wrong = (model.log_prior(tokens, (test.labels + j) % 10).mean().item() for j in (0, 1))
    assert right > -0.6 * 16 * math.log(32)
    assert right > wrong + 1


def test_sizes_that_do_not_fit_are_named():
    model = tiny()
    with pytest.raises(ShapeError, match=r"got \(5, 1\).*expected.*\(4, 1\)"):
        VQVAE(model.autoencoder, CausalTransformer(5, 1, dim=16), model.observation)
