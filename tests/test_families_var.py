"""VAR: scales by perturbation, laws of small pyramids by enumeration, and codebooks that leave nothing over."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from worlds import normal, seeded

from lecture_lib.data import Batches, digits
from lecture_lib.errors import NotDefined, RangeError, ShapeError
from lecture_lib.families import VAR, ScaleTokenizer, fit
from lecture_lib.nets import ScaleQuantizer, ScaleTransformer, scale_levels

PAPER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
DRAWS = 20_000
PYRAMIDS = torch.tensor(list(itertools.product((0, 1), repeat=5)))  # all there are with 2 codes on scales 1 and 2


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def tiny(w=1.0, n_classes=2):
    """Two codes, scales 1 and 2, two classes, and weights far from their start."""
    model = VAR((1, 2, 2), scales=(1, 2), size=2, code_dim=3, code_width=4, n_classes=n_classes, dim=8, depth=1, w=w)
    for i, weight in enumerate(model.transformer.parameters()):
        weight.data += 0.5 * normal(*weight.shape, seed=i).float()
    return model.eval()


def law(model, label, w=1.0):
    """Probabilities of PYRAMIDS: the first scale at w = 1, the second at w, each row of logits by itself."""
    labels = None if label is None else torch.full((32,), label)
    inputs = model.tokenizer.quantiser.inputs(PYRAMIDS)
    told, silent = (model.transformer(inputs, c)[0].double() for c in (labels, None))
    strength = torch.tensor([1.0] + 4 * [w])[:, None]
    log_p = F.log_softmax(silent + strength * (told - silent), dim=-1)
    return log_p.gather(-1, PYRAMIDS[..., None])[..., 0].sum(1).exp().detach()


def counts(model, label):
    """How often each pyramid is drawn, read off what the decoder is given."""
    labels = None if label is None else torch.full((DRAWS,), label)
    drawn = []

    def watch(_module, args):
        drawn.append(args[0])

    handle = model.tokenizer.decoder.register_forward_pre_hook(watch)
    model.sample(DRAWS, labels, generator=seeded(3))
    handle.remove()
    *_, every = model.tokenizer.quantiser.partial(PYRAMIDS)
    return torch.bincount(torch.cdist(drawn[-1].flatten(1), every.flatten(1)).argmin(1), minlength=32)


# --- what a scale is -------------------------------------------------------------------------------------------------


def test_the_paper_has_680_tokens_and_needs_ten_passes():
    """And (8, 16, 32), the sizes of the popular wrong VAR, have 1344 tokens in three passes."""
    assert ScaleQuantizer(2, 3, PAPER).length == 680
    assert ScaleQuantizer(2, 3, (8, 16, 32)).length == 1344
    model, passes = VAR((1, 16, 16), scales=PAPER, size=4, code_dim=3, code_width=4, dim=8, depth=1), []
    model.transformer.register_forward_hook(lambda *_: passes.append(1))
    model.sample(2, generator=seeded())
    assert len(passes) == model.steps == 10


def test_logits_of_a_scale_know_the_coarser_ones_and_nothing_else():
    """By changing tokens, exactly: neither their own scale nor a coarser one moves by a bit."""
    scales = (1, 2, 4)
    model = VAR((1, 4, 4), scales=scales, size=8, code_dim=3, n_classes=3, dim=16)
    level, tokens, label = scale_levels(scales), torch.randint(8, (2, 21), generator=seeded()), torch.tensor([0, 2])
    with torch.no_grad():
        before = model.transformer(model.tokenizer.quantiser.inputs(tokens), label)[0]
        for k in range(3):
            changed = torch.where(level == k, (tokens + 1) % 8, tokens)
            after = model.transformer(model.tokenizer.quantiser.inputs(changed), label)[0]
            same = (after == before).all(-1).all(0)  # (n,)
            assert same[level <= k].all() and not same[level > k].any()


def test_within_a_scale_all_places_see_each_other():
    """The mask is not causal inside: the first place of a scale hears the last one's input, of its own scale only."""
    net, inputs = ScaleTransformer(8, 3, (1, 2, 4), width=16), normal(1, 20, 3).float().requires_grad_()
    (slope,) = torch.autograd.grad(net(inputs, None)[0][0, 1].sum(), inputs)  # logits at the first place of scale 2
    heard = slope[0].abs().sum(-1) > 0
    assert heard[:4].all() and not heard[4:].any()


def test_reading_scale_by_scale_is_reading_all_at_once():
    net, inputs, label = ScaleTransformer(8, 3, (1, 2, 4), n_classes=3, width=16), normal(2, 20, 3).float(), None
    whole, _ = net(inputs, label)
    past, rows = (), []
    for part in inputs.split([0, 4, 16], dim=1):
        row, past = net(part, label, past)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, dim=1), whole, rtol=0, atol=1e-5)


# --- the quantiser ---------------------------------------------------------------------------------------------------


def halves_off(quantiser):
    """phi = identity: its convolution passes every channel on."""
    for phi in quantiser.phi:
        torch.nn.init.dirac_(phi.weight)
        torch.nn.init.zeros_(phi.bias)
    return quantiser


def test_a_codebook_that_has_every_residual_leaves_nothing_over():
    """phi = identity, and codes that are the very means of each scale: f_hat is f, and token i of scale k is code i.

    Averages are written out as means of blocks; nothing of the quantiser's own arithmetic is used but bicubic growth.
    """
    f, scales, r, codes = normal(1, 3, 4, 4).float(), (1, 2, 4), None, []
    r = f.clone()
    for h in scales:
        mean = r.unflatten(3, (h, 4 // h)).unflatten(2, (h, 4 // h)).mean(dim=(3, 5))
        codes.append(mean.flatten(2)[0].T)
        r = r - (F.interpolate(mean, size=(4, 4), mode="bicubic") if h < 4 else mean)
    quantiser = halves_off(ScaleQuantizer(21, 3, scales))
    quantiser.codebook.data = torch.cat(codes)
    found = quantiser(f)
    assert torch.equal(found.tokens[0], torch.arange(21))
    torch.testing.assert_close(found.quantised, f, rtol=0, atol=1e-6)
    *_, f_hat = quantiser.partial(found.tokens)
    torch.testing.assert_close(f_hat, f, rtol=0, atol=1e-6)


def test_each_scale_says_what_those_before_left_unsaid():
    """After a short training the error of f_hat falls from scale to scale."""
    model = VAR(n_classes=10, code_width=16, first=1.0)
    for _ in fit(model, Batches((digits().images,), 64), steps=100, generator=seeded()):
        pass
    with torch.no_grad():
        f = model.tokenizer.encoder(digits("test").images)
        quantiser = model.tokenizer.quantiser
        error = [f.square().mean()] + [(f - x).square().mean() for x in quantiser.partial(quantiser(f).tokens)]
    assert all(b < a for a, b in itertools.pairwise(error)) and error[-1] < error[0] / 3, error


def test_the_encoder_gets_the_decoders_gradient_and_the_codes_get_theirs():
    """Straight through: d f_hat / d f is the identity. The codebook hears the quantiser's loss alone."""
    quantiser, f = ScaleQuantizer(8, 3, (1, 2)), normal(2, 3, 2, 2).float().requires_grad_()
    found, weight = quantiser(f), normal(2, 3, 2, 2, seed=1).float()
    slope, none = torch.autograd.grad((found.quantised * weight).sum(), (f, quantiser.codebook), allow_unused=True)
    torch.testing.assert_close(slope, weight)
    assert none is None
    loss = quantiser(f).loss.sum()
    of_f, of_codes = torch.autograd.grad(loss, (f, quantiser.codebook))
    assert of_f.abs().sum() > 0 and of_codes.abs().sum() > 0
    expected = 0  # beta 2 (f - f_hat_k) / (c h w), averaged over the two scales
    for f_hat in quantiser.partial(found.tokens):
        expected = expected + 0.25 * 2 * (f - f_hat) / 12 / 2
    torch.testing.assert_close(of_f, expected.detach())
    apart = sum((f.detach() - f_hat).square().mean() for f_hat in quantiser.partial(found.tokens)) / 2
    torch.testing.assert_close(of_codes, torch.autograd.grad(2 * apart, quantiser.codebook)[0])  # two samples


# --- the law of pyramids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, 1])
def test_probabilities_of_all_pyramids_add_up_to_one(label):
    model = tiny()
    labels = None if label is None else torch.full((32,), label)
    p = model.log_prob_tokens(PYRAMIDS, labels).double().sum(1).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert p.std() > 0.01  # and they are not all alike


@pytest.mark.parametrize(("label", "w"), [(None, 1.0), (1, 1.0), (1, 3.0)])
def test_samples_have_the_law_of_the_model(label, w):
    """Pearson's test on all 32 pyramids; guided, the first scale is drawn at w = 1 and the last at w."""
    model = tiny(w)
    assert chisquare(counts(model, label), DRAWS * law(model, label, w)).pvalue > 1e-3
    if w != 1:  # and the unguided law is told apart
        assert chisquare(counts(model, label), DRAWS * law(model, label)).pvalue < 1e-6


def test_the_bound_is_below_the_sum_over_all_pyramids():
    """log p(x) by enumeration, with a decoder that hardly hears the tokens: the posterior is far from a point."""
    model, x, label = tiny(), 0.3 * normal(16, 1, 2, 2, seed=2).float(), torch.arange(16) % 2
    *_, every = model.tokenizer.quantiser.partial(PYRAMIDS)
    means = model.tokenizer.decoder(every).double()
    for i in range(16):
        joint = law(model, int(label[i])).log() + model.tokenizer.log_density(x[i : i + 1], means)
        bound = model.log_prob(x[i : i + 1], label[i : i + 1]).nats[0]
        assert bound < joint.logsumexp(0)
        mine = (model.tokens(x[i : i + 1]) == PYRAMIDS).all(1)
        assert bound == pytest.approx(joint[mine].item(), abs=1e-4)  # all factors, each once
    model.tokenizer.log_std.data.fill_(-9.0)  # a sharp decoder, and a picture that it made itself: the bound is tight
    tokens, label = model.tokens(x[:1]), label[:1]
    *_, f_hat = model.tokenizer.quantiser.partial(tokens)
    seen = model.tokenizer.decoder(f_hat)
    if torch.equal(model.tokens(seen), tokens):
        joint = law(model, 0).log() + model.tokenizer.log_density(seen, means)
        assert model.log_prob(seen, label).nats[0] == pytest.approx(joint.logsumexp(0).item(), abs=1e-4)


def test_the_decoders_density_is_scipys():
    from scipy.stats import norm

    tokenizer = ScaleTokenizer(1, 4, size=4, dim=3, scales=(1, 2), width=4)
    tokenizer.log_std.data.fill_(-0.7)
    x, mean = normal(3, 1, 4, 4).float(), normal(3, 1, 4, 4, seed=1).float()
    expected = norm(mean.numpy(), torch.tensor(-0.7).exp().item()).logpdf(x.numpy()).sum(axis=(1, 2, 3))
    torch.testing.assert_close(tokenizer.log_density(x, mean).detach(), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_deviation_is_the_root_of_the_mean_square():
    """Its likelihood is highest there, and pulls at nothing but the deviation itself."""
    tokenizer, x = ScaleTokenizer(1, 4, size=4, dim=3, scales=(1, 2), width=4), normal(5, 1, 4, 4).float()
    with torch.no_grad():
        mean = tokenizer.decoder(tokenizer.quantiser(tokenizer.encoder(x)).quantised)
        tokenizer.log_std.fill_((x - mean).square().mean().sqrt().log())
    (slope,) = torch.autograd.grad(tokenizer.loss(x).mean(), tokenizer.log_std)
    assert abs(slope.item()) < 1e-5


# --- stages and refusals ---------------------------------------------------------------------------------------------


def test_first_the_tokenizer_then_the_transformer():
    model = tiny()
    names = [model.phase_at(done, 10).name for done in range(10)]
    assert names == 5 * ["tokenizer"] + 5 * ["transformer"]


def test_what_does_not_fit_is_named():
    with pytest.raises(RangeError, match="scales: got"):
        ScaleQuantizer(2, 3, (2, 2))
    with pytest.raises(ShapeError, match="scales: got"):
        VAR((1, 9, 9), scales=(1, 2, 4))
    model = tiny()
    with pytest.raises(ShapeError, match="whole scales"):
        list(model.tokenizer.quantiser.partial(torch.zeros(1, 3, dtype=torch.long)))
    with pytest.raises(RangeError, match=r"expected 0\.\.1"):
        list(model.tokenizer.quantiser.partial(torch.full((1, 5), 2)))
    with pytest.raises(RangeError, match="steps: got 3"):
        model.sample(1, steps=3, generator=seeded())
    with pytest.raises(NotDefined, match="forward_process"):
        model.forward_process(torch.zeros(1, 1, 2, 2), torch.zeros(1))
