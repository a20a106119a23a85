"""Latent spaces, text to image and editing: laws that hold for any weights, checked on untrained networks."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, VPCosine, uniform_grid
from lecture_lib.data.shapes import VOCABULARY, captioned
from lecture_lib.errors import FrozenError, RangeError, ShapeError, UnknownNameError
from lecture_lib.families import LatentSpace, TextToImage, between, image_to_image, inpaint, keep_known, psnr
from lecture_lib.guidance import extrapolate, linear
from lecture_lib.nets import JointText, KLAutoencoder, TextEncoder, TextUNet, Tokenizer, causal_mask, full_mask
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, DPMSolverPP2M, Heun, UniPC, last, sample
from lecture_lib.training import adamw


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def autoencoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KLAutoencoder(3, 4, channels=8, multipliers=(1, 2, 2), blocks=1, groups=4)


@pytest.fixture(scope="module")
def model(autoencoder):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tokenizer = Tokenizer(VOCABULARY)
        text = JointText(
            [TextEncoder(len(tokenizer), dim=16, depth=1, heads=2, visible=v) for v in (causal_mask, full_mask)]
        )
        net = TextUNet(
            channels=8, multipliers=(1, 2), blocks=1, depths=(0, 1), heads=2, context_dim=32, vector_dim=32, groups=4
        )
        for p in net.parameters():  # what starts at zero would leave the text unheard
            if not p.any():
                torch.nn.init.normal_(p, std=0.3)
    denoiser = Denoiser(net, RectifiedFlow(), VELOCITY, null=text.null)
    return TextToImage(denoiser, LatentSpace(autoencoder, shift=0.1, scale=2.0), text, tokenizer).eval()


@pytest.fixture(scope="module")
def images():
    return captioned(6, seeded(3)).images


def test_scale_and_shift_cancel_on_the_way_back(autoencoder, images):
    plain, scaled = LatentSpace(autoencoder), LatentSpace(autoencoder, shift=0.3, scale=0.18215)
    z = plain.encode(images)
    assert torch.allclose(scaled.encode(images), 0.18215 * (z - 0.3), atol=1e-6)
    assert torch.allclose(scaled.decode(scaled.encode(images)), plain.decode(z), atol=1e-5)
    assert torch.equal(plain.encode(images), autoencoder.encode(images).mean)


def test_fitted_latents_have_mean_0_and_variance_1(autoencoder, images):
    z = LatentSpace.fitted(autoencoder, images).encode(images)
    assert abs(z.mean()) < 1e-5 and abs(z.std() - 1) < 1e-5


def test_samples_of_the_posterior_scatter_as_it_says(autoencoder, images):
    space, posterior = LatentSpace(autoencoder, scale=2.0), autoencoder.encode(images)
    z = torch.stack([space.encode(images, seeded(k)) for k in range(200)])
    error = (z.std(0) / (2 * (posterior.logvar / 2).exp()) - 1).abs().mean()
    assert error < 0.06  # 1/sqrt(2 * 200) = 0.05 is the relative scatter of a deviation; its mean is 0.04
    assert torch.equal(space.encode(images, seeded(5)), space.encode(images, seeded(5)))


def test_kl_against_torch_distributions(autoencoder, images):
    posterior = autoencoder.encode(images)
    normal = torch.distributions.Normal
    q = normal(posterior.mean.double(), (posterior.logvar.double() / 2).exp())
    exact = torch.distributions.kl_divergence(q, normal(torch.zeros(()).double(), 1.0)).flatten(1).sum(1)
    assert torch.allclose(posterior.kl().double(), exact, rtol=1e-5)


def test_the_encoder_cannot_be_trained_by_accident(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = KLAutoencoder(3, 4, channels=8, multipliers=(1, 2), blocks=1, groups=4)
    space = LatentSpace(autoencoder)
    assert not space.encode(images).requires_grad
    assert not torch.nn.ModuleList([space]).train()[0].autoencoder.training
    outer = torch.nn.ModuleDict({"space": space, "denoiser": torch.nn.Linear(2, 2)})
    held = {id(p) for group in adamw(outer, 1e-3).param_groups for p in group["params"]}
    assert held == {id(p) for p in outer["denoiser"].parameters()}
    autoencoder.encoder.enter.weight.requires_grad_(True)
    for use in (lambda: space.encode(images), lambda: space.decode(torch.zeros(1, 4, 16, 16))):
        with pytest.raises(FrozenError, match=r"encoder\.enter\.weight.*requires_grad_"):
            use()


def test_gradients_pass_through_the_decoder_to_the_latent(autoencoder):
    z = torch.zeros(1, 4, 8, 8, requires_grad=True)
    LatentSpace(autoencoder, scale=2.0).decode(z).sum().backward()
    assert z.grad.abs().max() > 0 and all(p.grad is None for p in autoencoder.parameters())


def test_psnr_against_its_definition_in_eight_bits():
    x, y = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 2 / 255)  # one grey level apart
    assert psnr(x, y).item() == pytest.approx(48.1308, abs=1e-3)  # 20 log10(255)


def test_generate_is_the_sampler_on_the_guided_denoiser(model):
    prompts = ["a small red circle", "a large blue square on a white background"]
    got = model.generate(prompts, generator=seeded(4), steps=3, rule=linear(2.0))
    noise = torch.randn(2, 4, 8, 8, generator=seeded(4))
    null = model.denoiser.given(model.condition(""))
    denoise = extrapolate(null, model.denoiser.given(model.condition(prompts)), 2.0)
    z = last(sample(denoise, model.path, DPMSolverPP2M(), uniform_grid(model.path, 3), noise))
    assert torch.allclose(got, model.space.decode(z).clamp(-1, 1), atol=1e-4)
    assert not torch.allclose(got[0], model.generate(prompts[::-1], generator=seeded(4), steps=3)[0], atol=1e-3)


def test_the_empty_prompt_is_the_null_condition(model):
    x, t = torch.randn(2, 4, 8, 8, generator=seeded(0)), torch.tensor([0.3, 0.8]).double()
    told = model.denoiser.given(model.condition(""))(x, t).x0
    assert torch.allclose(told, model.denoiser(x, t).x0, atol=1e-6)


def test_twenty_evaluations_are_ten_guided_steps(model):
    frames = list(model.frames(model.guided("a small red circle"), model.noise(1, seeded(0)), steps=10))
    assert frames[-1].nfe == 20


def test_a_negative_prompt_takes_the_place_of_the_empty_one(model):
    x, t = torch.randn(1, 4, 8, 8, generator=seeded(0)), torch.full((1,), 0.6, dtype=torch.float64)
    got = model.guided("a small red circle", negative="a large blue ring", rule=linear(3.0))(x, t).x0
    main, other = (
        model.denoiser.given(model.condition(p))(x, t).x0 for p in ("a small red circle", "a large blue ring")
    )
    assert torch.allclose(got, other + 3 * (main - other), atol=1e-4)


def test_image_to_image_from_nothing_forgotten_to_everything(model, images):
    prompts = ["a small red circle"] * 6
    kept = image_to_image(model, images, prompts, strength=0.0, generator=seeded(1))
    rebuilt = model.space.decode(model.space.encode(images)).clamp(-1, 1)
    assert torch.equal(kept, rebuilt)
    forgotten = image_to_image(model, images, prompts, strength=1.0, generator=seeded(1), steps=4)
    assert torch.allclose(forgotten, model.generate(prompts, generator=seeded(1), steps=4), atol=1e-5)
    with pytest.raises(RangeError, match="strength"):
        image_to_image(model, images, prompts, strength=1.2, generator=seeded(1))


def test_inpainting_leaves_every_other_pixel_alone(model, images):
    paint = torch.zeros(6, 1, 32, 32, dtype=torch.bool)
    paint[:, :, 5:14, 8:20] = True
    got = inpaint(model, images, paint, "a small red circle", generator=seeded(2), steps=3)
    outside = ~paint.expand_as(images)
    assert torch.equal(got[outside], images[outside])
    assert not torch.allclose(got[~outside], images[~outside], atol=1e-2)
    with pytest.raises(ShapeError, match="paint"):
        inpaint(model, images, paint.float(), "a small red circle", generator=seeded(2))


@pytest.mark.parametrize(
    ("path", "sampler"),
    [(path, sampler) for path in (RectifiedFlow(), VPCosine()) for sampler in (DDIM(), DPMSolverPP2M(), UniPC(2))]
    + [(RectifiedFlow(), Heun())],  # Heun needs a finite slope at t = 0, which the cosine path has not
    ids=repr,
)
def test_known_places_end_where_they_must_and_the_others_follow(path, sampler):
    """On a world whose two halves are strongly correlated, the painted half must land near its known twin."""
    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]]).double()
    denoise = GaussianMixture([1.0], torch.zeros(1, 1, 1, 2).double(), covariance[None]).denoise(path)
    n = 2000
    known = torch.randn(n, 1, 1, 2, generator=seeded(0), dtype=torch.float64)
    paint = torch.tensor([False, True]).expand(n, 1, 1, 2)
    noise = torch.randn(n, 1, 1, 2, generator=seeded(1), dtype=torch.float64)
    grid = uniform_grid(path, 40)
    x = last(sample(keep_known(denoise, known, paint), path, sampler, grid, noise))[:, 0, 0]
    assert torch.allclose(x[:, 0], known[:, 0, 0, 0], atol=1e-9)
    correlation = torch.corrcoef(x.T)[0, 1]
    assert correlation > 0.6  # independent halves would give 0; replacement alone does not reach the exact 0.95


def test_between_two_captions(model):
    a, b = model.condition("a small red circle"), model.condition("a large blue square")
    ends = between(a, b, torch.tensor([0.0, 0.5, 1.0]))
    for key in ("tokens", "vector"):
        assert torch.allclose(ends[key][0], a[key][0]) and torch.allclose(ends[key][2], b[key][0], atol=1e-6)
        assert torch.allclose(ends[key][1], (a[key][0] + b[key][0]) / 2, atol=1e-6)
    assert ends["mask"].shape == (3, 24)
    with pytest.raises(ShapeError, match="4 and 5 words"):
        between(a, model.condition("there is a small ring"), 0.5)


def test_words_that_nobody_taught(model):
    with pytest.raises(UnknownNameError, match="circel"):
        model.generate("a small red circel", generator=seeded(0))
