# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,nbgrader,slideshow,-all
#     notebook_metadata_filter: kernelspec,jupytext,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lecture 1 · Latent diffusion
# *An image is mostly predictable. What is left when you throw the predictable part away?*
#
# **After this lecture you will be able to**
# - say what a latent saves, factor by factor, and why no single number like "48x" or "2304x" is the answer;
# - write down every term of the autoencoder's loss with its sign, and say what each of them forbids;
# - scale latents the right way round, and recognise the picture of a model that was fed the wrong scale;
# - convert losses between $\epsilon$, $x_0$ and $v$ in your head, and explain what zero terminal SNR repairs;
# - follow a word from its token through cross-attention into the pixels it paints, and swap it on the way;
# - read a U-Net's parts list down to its 859,520,964th parameter.
#
# **Time** 90 min reading · runs in ? s · peak memory ? GB (? CPU cores)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $t=1$ is noise,
# $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is the plain conditional model.

# %%
import copy
import math

import torch
import torch.nn.functional as F

from lecture_lib import core, nets, viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import EPS, VELOCITY, X0, RectifiedFlow, V, VPCosine
from lecture_lib.data import shapes
from lecture_lib.families import LatentSpace, image_to_image, psnr
from lecture_lib.guidance import interval, linear

torch.set_grad_enabled(False)  # gradients are asked for where they are needed
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## 0 · Thirty seconds
# One model, 3.4 million parameters, trained on a laptop processor in a world of coloured shapes. Write, and it paints.

# %%
painter = zoo.text_to_image()
prompts = [
    "a large green triangle above a small blue ring",  # no training picture contains a blue ring
    "a small red circle left of a large yellow square",
    "a large pink cross on a black background",
    "a big orange rhombus over a little cyan disc on a white background",
    "there is a small purple ring at the top",
    "a large red triangle",  # nor a red triangle
]
pictures = painter.generate(prompts, generator=seeded(7))
viz.show(
    viz.captioned_grid(pictures, prompts, columns=3, scale=5),
    caption="Six prompts, one picture each, ten sampler steps. The blue ring and the red triangle are combinations that "
    "no training picture shows.",
    alt="Six small pictures of coloured shapes, each with its prompt below.",
)

# %% [markdown]
# The model never saw a pixel while it learned to denoise: it works on $8\times8\times4$ numbers where the picture has
# $32\times32\times3$, and a second network turns the result into pixels. Which numbers, why that works, what it saves
# and what it costs: this lecture.
#
# ## 1 · Play
# Type, change the scale, change the seed. The vocabulary is small: sizes, colours, six shapes, four relations, places,
# two backgrounds; a word it does not know is refused with a suggestion.

# %%
# TODO widgets.prompt_box()

# %% [markdown]
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. "a red circle left of a blue square" and "a blue square right of a red circle" mean the same. Same seed: same
#    picture?
# 2. One thing or two things: which prompts does the model get right more often? And pairs that it never saw?
# 3. The empty prompt: what does it paint?
#
# <details><summary>Answers</summary>
#
# 1. The same meaning, not the same picture: the encoders read words in order, and the features differ. The oracle
#    accepts most of both.
# 2. One thing is easier than two. Pairs never seen (a red triangle) are harder than pairs seen, but far from
#    hopeless: the words were learned separately. The next cell measures all three.
# 3. Scenes like those of the training set, one or two things of any kind: "" is the null text, which stood for one
#    caption in ten during training. It is the model's $p(x)$, and what guidance moves away from.
# </details>


# %%
def share_right(n, seed, **split):
    """Share of pictures that show everything their caption asks for, read back from the pixels by the oracle."""
    captions = shapes.captioned(n, seeded(seed), **split).captions
    return shapes.judge_captions(painter.generate(captions, generator=seeded(seed + 1)), captions).all.double().mean()


right = {
    "one thing": share_right(150, 10, split="test", two=0.0),
    "one thing, a pair never seen": share_right(150, 20, split="held_out", two=0.0),
    "two things": share_right(150, 30, split="test", two=1.0),
}
for kind, share in right.items():
    print(f"{kind:30s} {share:4.0%} of 150 pictures right in every attribute")
verify_less("one thing is easier than two", right["two things"], right["one thing"])
verify_less(
    "pairs never seen come out right far more often than by chance", 0.25, right["one thing, a pair never seen"]
)

# %%
same_seed = [
    "a large red circle left of a large green square",
    "a large green square right of a large red circle",
    "",
    "",
]
viz.show(
    viz.captioned_grid(
        torch.cat([painter.generate([text], generator=seeded(s)) for text, s in zip(same_seed, (3, 3, 3, 4))]),
        [text or "(the empty prompt)" for text in same_seed],
        scale=5,
    ),
    caption="Two wordings of one scene, same noise; and what the model paints when it is told nothing, for two seeds.",
    alt="Four pictures: two wordings of the same scene, and two pictures from the empty prompt.",
)

# %% [markdown]
# ## 2 · Intuition, and where each picture breaks
#
# ### The archive
# "An autoencoder is a ZIP file for images." Both make something small from something large. Now look closer. Damage
# one byte of the archive and one number of the latent:

# %%
import zlib

space = painter.space  # the frozen autoencoder, with its scale and shift (Section 3.4)
scenes = shapes.captioned(64, seeded(1), split="test")
x = scenes.images
pixels = viz.to_pixels(x[:1])[0]
archive = bytearray(zlib.compress(pixels.tobytes(), 9))
verify("ZIP is lossless: every byte comes back", list(zlib.decompress(archive)), list(pixels.tobytes()), tol=0)
archive[len(archive) // 2] ^= 1
try:
    zlib.decompress(archive)
    survived = 1
except zlib.error as error:
    survived = 0
    print("one flipped bit:", error)
verify("a ZIP file with one wrong bit is refused as a whole", survived, 0, tol=0)

z = space.encode(x)
nudged = z + 0.1 * torch.randn(z.shape, generator=seeded(2))
print(
    f"reconstruction {psnr(x, space.decode(z)).mean():.1f} dB, latent nudged by 10 % {psnr(x, space.decode(nudged)).mean():.1f} dB"
)
verify_less("the autoencoder is lossy (exact would be infinitely many dB)", psnr(x, space.decode(z)).max(), 60.0)
verify_less("and a nudged latent is a nudged picture", 20.0, psnr(x, space.decode(nudged)).mean())

# %% [markdown]
# **Where the archive breaks.** ZIP is lossless, the autoencoder is not: Stable Diffusion's gives back 24.2 dB (Rombach
# et al. 2022, model table of the repository). And an archive must not *look like* anything: a good compressor leaves
# bytes without structure. Diffusion needs the opposite, a code in which nearby means alike, for it will only ever
# arrive *nearby*.
#
# ### The thumbnail
# "A latent is a thumbnail." Closer: neighbours stay neighbours, and one can nearly see the scene in it. But a thumbnail
# of as many numbers, enlarged again, loses the edges that the decoder puts back, because it *knows the world*.

# %%
thumbnail = F.interpolate(x, size=9, mode="area")  # 9 x 9 x 3 = 243 numbers; the latent has 8 x 8 x 4 = 256
enlarged = F.interpolate(thumbnail, size=32, mode="bicubic").clamp(-1, 1)
decoded = space.decode(z).clamp(-1, 1)
one = slice(0, 6)
viz.show(
    viz.image_grid(
        torch.cat([x[one], F.interpolate(thumbnail[one], size=32), enlarged[one], decoded[one]]),
        columns=6,
        scale=3,
        row_labels=["picture", "thumbnail, 9x9", "thumbnail, enlarged", "decoded latent"],
    ),
    caption="As many numbers, another picture: smooth interpolation knows no edges, the decoder has learned what edges "
    "this world has.",
    alt="Four rows of pictures: originals, coarse thumbnails, blurred enlargements, sharp reconstructions.",
)
verify_less("decoder beats thumbnail, mean PSNR in dB", psnr(x, enlarged).mean(), psnr(x, decoded).mean())

# %% [markdown]
# **Where the thumbnail breaks.** Show the decoder something its world does not contain, and the knowledge turns into
# prejudice. Where interpolation only blurs, the decoder invents:

# %%
checkers = ((torch.arange(32)[:, None] // 2 + torch.arange(32) // 2) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
stripes = ((torch.arange(32) // 3) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
strange = torch.cat([checkers, stripes, torch.randn(1, 3, 32, 32, generator=seeded(0)).clamp(-1, 1)])
imagined = space.decode(space.encode(strange)).clamp(-1, 1)
viz.show(
    viz.image_grid(
        torch.cat([strange, imagined]),
        columns=3,
        scale=4,
        row_labels=["picture", "decoded latent"],
        column_labels=["checkers", "stripes", "noise"],
    ),
    caption="The same autoencoder on pictures from another world: what it cannot say, it replaces.",
    alt="Checkerboard, stripes and noise above their badly wrong reconstructions.",
)
verify_less("far worse than on its own world", psnr(strange, imagined).max(), psnr(x, decoded).mean() - 5)

# %% [markdown]
# ## 3 · Mathematics
#
# ### 3.1 What a latent saves
# Take *one* U-Net and run it on maps of two sizes. PyTorch can count the multiplications and additions; we only sort
# them. In a U-Net with transformers there are four kinds: convolutions, linear layers on each pixel, attention among
# pixels (self), attention from pixels to words (cross). The network is Stable Diffusion 1.5's, on the *meta* device:
# shapes without numbers, so that 3.4 GB of weights cost nothing.

# %%
from torch.utils.flop_counter import FlopCounterMode

with torch.device("meta"):
    sd = nets.with_kernel(nets.stable_diffusion_unet(), nets.explicit_attention)


def flops(net, side, channels, words=77):
    """Floating-point operations of one forward pass on a map of side x side, by kind."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        cond = {"tokens": torch.zeros(1, words, net.context_dim)}
        net(torch.zeros(1, channels, side, side), torch.zeros(1), cond)
    kinds = dict.fromkeys(("convolution", "linear layers", "self-attention", "cross-attention"), 0)
    for module, operations in counter.get_flop_counts().items():
        for operation, count in operations.items():
            if "bmm" in str(operation) and module.endswith(("self_attention", "cross_attention")):
                kinds["self-attention" if module.endswith("self_attention") else "cross-attention"] += count
            elif module == "Global" and "bmm" not in str(operation):
                kinds["convolution" if "convolution" in str(operation) else "linear layers"] += count
    return kinds


# %%
latent, pixel = flops(sd, 64, 4), flops(sd, 512, 4)  # f = 8: 64 latents a side; f = 1: 512 pixels a side
for kind in latent:
    print(f"{kind:16s} {latent[kind] / 1e9:8.1f} GFLOP at 64 x 64, x{pixel[kind] / latent[kind]:7.1f} at 512 x 512")
all_of_it = sum(pixel.values()) / sum(latent.values())
print(f"{'everything':16s} {sum(latent.values()) / 1e9:8.1f} GFLOP at 64 x 64, x{all_of_it:7.1f} at 512 x 512")
f = 8
verify("convolutions: f^2", pixel["convolution"] / latent["convolution"], f**2, tol=0)
verify("attention to words: f^2", pixel["cross-attention"] / latent["cross-attention"], f**2, tol=0)
verify("attention among pixels: f^4", pixel["self-attention"] / latent["self-attention"], f**4, tol=0)
verify_less(
    "linear layers: f^2, less what works on words and times only",
    pixel["linear layers"] / latent["linear layers"],
    f**2,
)

# %% [markdown]
# *You may read that latent diffusion is $(3f^2/C)^2=48^2=2304$ times cheaper, "because the cost is quadratic in the
# dimension $d=HWC$".* Channels are not tokens: $3/C$ touches the first and the last convolution and nothing else. The
# number matches no factor above, nor their sum:

# %%
wrong = (3 * f**2 / 4) ** 2
for kind in latent:
    verify_less(f"2304 is off by more than 40 % for: {kind}", 0.4, abs(pixel[kind] / latent[kind] / wrong - 1))
doubled = flops(sd, 128, 4)
verify(
    "'doubling the resolution costs 16x' holds for self-attention",
    doubled["self-attention"] / latent["self-attention"],
    16,
    tol=0,
)
verify("... and not for the convolutions", doubled["convolution"] / latent["convolution"], 4, tol=0)

# %%
sides = [16, 32, 64, 128, 256, 512]
costs = [flops(sd, side, 4) for side in sides]
looks = dict(zip(latent, (viz.other(0), viz.other(3), viz.other(2), viz.other(1))))
figure = viz.sweep(
    sides,
    [viz.Line(kind, [c[kind] / 1e9 for c in costs], look=looks[kind]) for kind in latent],
    xlabel="side of the map that the U-Net works on (pixels or latents)",
    ylabel="cost of one evaluation (GFLOP)",
    title="One network, maps of six sizes (Stable Diffusion 1.5's U-Net)",
    log_x=True,
    log_y=True,
)
figure.axes[0].axvline(64, color=viz.EXACT, linestyle="--", linewidth=1.2)
figure.axes[0].set_xticks(sides, [str(s) for s in sides], minor=False)
figure.axes[0].minorticks_off()
viz.show(
    figure,
    caption="Three lines of slope 2 and one of slope 4. Where Stable Diffusion works (dashed, 64 a side) self-attention "
    "is the smaller part; at 512 a side it would be nearly everything.",
    alt="Log-log plot of cost against map side; self-attention rises twice as steeply as the other three kinds.",
)

# %% [markdown]
# So what is "the" speed-up? Of *this* network 64 to 4096, by kind, and a sum that depends on the mixture. But nobody
# would run this network on 512 pixels a side: pixel models keep attention to maps of 8 to 32. Two different networks
# can only be compared by a stopwatch, and at equal quality; the paper does that (Rombach et al. 2022, Figures 6 and 7),
# and so does the lab, at equal seconds.
#
# *You may read that the number of parameters grows with the picture ("input dimension times 1000").* Weights are shared
# by all positions, and time enters as a vector:

# %%
small = painter.denoiser.network
eight, thirty_two = (torch.randn(1, 4, s, s, generator=seeded(0)) for s in (8, 32))
told = painter.condition("a large red circle")
outputs = [small(v, torch.full((1,), 500.0), told) for v in (eight, thirty_two)]
verify("the same weights run on 8 x 8 and on 32 x 32", [o.shape[-1] for o in outputs], [8, 32], tol=0)
print(f"{nets.parameter_count(small):,} parameters for both; "
      f"'dimension x 1000' says {8 * 8 * 4 * 1000:,} and {32 * 32 * 4 * 1000:,}")  # fmt: skip
verify("Stable Diffusion 1.5: one count for every resolution", nets.parameter_count(sd), 859_520_964, tol=0)

# %% [markdown]
# ### 3.2 What it costs: rate and distortion
# $f$ is a ratio of **sides**, $f=H/h=W/w$ (Rombach et al. 2022, Section 3.1). *You may read $f=HW/(hw)$, "typically
# 8".* By that definition Stable Diffusion would have $f=64$:

# %%
with torch.device("meta"):
    first_stage = nets.stable_diffusion_autoencoder()
    code = first_stage.encode(torch.zeros(1, 3, 512, 512)).mean
print("Stable Diffusion: 512 x 512 x 3 becomes", " x ".join(str(n) for n in (*code.shape[2:], code.shape[1])))
verify("f = H/h", 512 / code.shape[-1], first_stage.factor, tol=0)
verify("the area ratio is f^2", 512**2 / code.shape[-1] ** 2, first_stage.factor**2, tol=0)
verify("numbers in, over numbers out: 48 (this is where '48x' comes from)", 3 * 512**2 / code[0].numel(), 48, tol=0)

# %%
stages = {f: zoo.load(f"shapes-kl-f{f}") for f in (2, 4, 8)}
test = shapes.captioned(300, seeded(11), split="test")
rebuilt = {f: stage.decode(stage.encode(test.images).mode()).clamp(-1, 1) for f, stage in stages.items()}
readable = {f: shapes.judge_captions(y, test.captions).all.double().mean().item() for f, y in rebuilt.items()}
quality = {f: psnr(test.images, y).mean().item() for f, y in rebuilt.items()}
numbers = {f: 4 * (32 // f) ** 2 for f in stages}
for f in stages:
    print(
        f"f = {f}: {numbers[f]:5d} numbers instead of 3072, {quality[f]:.1f} dB, {readable[f]:.1%} still read right by the oracle"
    )
verify(
    "the oracle reads every untouched picture right",
    shapes.judge_captions(test.images, test.captions).all.double().mean(),
    1.0,
    tol=0,
)
verify_less("fewer numbers, fewer decibels", [quality[8], quality[4]], [quality[4], quality[2]])

# %%
shown = [0, 3, 5, 7, 8, 11]
errors = {
    f: 4 * (rebuilt[f] - test.images).abs()[shown].mean(1, keepdim=True).expand(-1, 3, -1, -1) - 1 for f in stages
}
rows, names = [test.images[shown]], ["picture"]
for f in stages:
    rows += [rebuilt[f][shown], errors[f]]
    names += [f"f = {f}", "error x 4"]
viz.show(
    viz.image_grid(torch.cat(rows), columns=len(shown), scale=3, row_labels=names),
    caption="Every error sits at an edge: flat colour is the predictable part. With f = 8, 64 numbers must say where "
    "each edge runs, and cannot.",
    alt="Six pictures, their reconstructions at f = 2, 4, 8, and error maps that light up along the outlines.",
)

# %%
sizes = [5, 6, 8, 9, 13, 18]
small_again = [F.interpolate(F.interpolate(test.images, size=s, mode="area"), size=32, mode="bicubic") for s in sizes]
figure, ax = viz.panels(size=(7.2, 3.8))
grey = {"color": viz.NOISE, "linestyle": ":", "marker": "s"}
ax.plot(
    [3 * s * s for s in sizes], [psnr(test.images, y).mean() for y in small_again], label="thumbnail, enlarged", **grey
)
ax.plot(list(numbers.values()), list(quality.values()), color=viz.DATA, marker="o", label="autoencoder, 4 channels")
for f in stages:
    ax.annotate(
        f"f = {f}: {readable[f]:.0%} read right", (numbers[f], quality[f]), (8, -14), textcoords="offset points"
    )
ax.set(xscale="log", xlabel="numbers per picture (3072 in pixels)", ylabel="mean PSNR (dB)", xlim=(50, 2600))
ax.set_title("Rate and distortion on 300 test pictures")
ax.legend(loc="upper left")
viz.show(
    figure,
    caption="What is lost in the first stage no denoiser can bring back: the share beside each point is a ceiling for "
    "every model built on that latent.",
    alt="PSNR against numbers per picture: the autoencoder's curve lies far above that of thumbnails.",
)

# %% [markdown]
# The ceiling is a *bound*, not a promise: a latent diffusion model is a trade. Large $f$ makes the second stage cheap
# and the first one lossy. The published table for real photographs (ImageNet; Rombach et al. 2022, the repository's
# model zoo) shows that channels move along with $f$; a table that changes $f$ alone is not from there.
#
# | first stage (KL) | latent of 256x256 | rFID | PSNR (dB) |
# |---|---|---|---|
# | f = 4 | 64 x 64 x 3 | 0.27 | 27.5 |
# | **f = 8** (Stable Diffusion's kind) | 32 x 32 x 4 | 0.90 | 24.2 |
# | f = 16 | 16 x 16 x 16 | 0.87 | 24.1 |
# | f = 32 | 8 x 8 x 64 | 2.04 | 22.3 |
#
# ### 3.3 The autoencoder's loss, term by term
# #### The evidence bound and its sign
# $$\log p(x)\;\ge\;\underbrace{\mathbb E_{q(z|x)}[\log p(x|z)]-\mathrm{KL}(q(z|x)\,\|\,p(z))}_{\text{ELBO: to be maximised}},
# \qquad\mathcal L=-\mathbb E_q[\log p(x|z)]+\beta\,\mathrm{KL}.$$
# *You may read "minimise $\mathbb E[\log p(x|z)]-\beta\,\mathrm{KL}$".* In a world small enough to know everything,
# $z\sim\mathcal N(0,1)$, $x|z\sim\mathcal N(2z,0.5)$, both can be watched:

# %%
a, s2, observed = 2.0, 0.5, torch.tensor(1.3, dtype=torch.float64)
evidence = torch.distributions.Normal(0.0, (a**2 + s2) ** 0.5).log_prob(observed)


def elbo(mean, logvar):
    """E_q log p(x|z) - KL(q | N(0, 1)) for q = N(mean, e^logvar): every expectation in closed form."""
    expected_square = (observed - a * mean) ** 2 + a**2 * logvar.exp()
    reconstruction = -0.5 * (expected_square / s2 + math.log(2 * math.pi * s2))
    return reconstruction - 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


posterior_var = 1 / (1 + a**2 / s2)
exact = torch.tensor([posterior_var * a * observed / s2, math.log(posterior_var)], dtype=torch.float64)
verify("at the exact posterior the bound is tight", elbo(*exact), evidence, tol=1e-12)
somewhere = exact + torch.randn(500, 2, generator=seeded(0), dtype=torch.float64)
verify_less("anywhere else it is a bound", elbo(*somewhere.T), evidence)

# %%
with torch.enable_grad():
    ends = {}
    for sign, name in ((-1, "minimise -ELBO"), (+1, "minimise +ELBO")):
        q = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        for _ in range(300):
            (slope,) = torch.autograd.grad(sign * elbo(*q), q)
            q = (q - 0.02 * slope).clamp(-30, 30).detach().requires_grad_()
        ends[name] = elbo(*q).item()
        print(f"{name}: ELBO after 300 steps {ends[name]:12.3g}   (evidence {evidence:.4f})")
verify("the right sign finds the evidence", ends["minimise -ELBO"], evidence, tol=1e-4)
verify_less("the printed sign runs away", ends["minimise +ELBO"], -1e3)

# %% [markdown]
# #### The KL, in closed form
# $\mathrm{KL}(\mathcal N(\mu,\varsigma^2)\|\mathcal N(0,1))=\tfrac12\sum(\mu^2+\varsigma^2-1-\ln\varsigma^2)$, summed
# over the latent. Its weight is tiny, $\beta=10^{-6}$ in Stable Diffusion: it keeps the latent from growing without
# limit, and does not make it Gaussian.

# %%
from lecture_lib.families.autoencoding import absolute_error, adaptive_weight, kl_to_standard_normal, laplace_nll

mean, logvar = torch.randn(2, 1, 4, 8, 8, generator=seeded(1), dtype=torch.float64)
q, p = torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
draws = mean + (logvar / 2).exp() * torch.randn(4000, 4, 8, 8, generator=seeded(2), dtype=torch.float64)
log_ratio = (q.log_prob(draws) - p.log_prob(draws)).flatten(1).sum(1)
four_errors = 4 * log_ratio.std() / 4000**0.5
verify(
    "KL: closed form against 4000 draws",
    kl_to_standard_normal(mean, logvar)[0],
    log_ratio.mean(),
    tol=float(four_errors),
)

# %% [markdown]
# #### Absolute error is a likelihood; the perceptual distance is not
# $|x-\hat x|_1/b$ is the negative log-likelihood of *Laplace* noise of scale $b=e^\ell$, up to a constant: the first
# stage learns $\ell$ too, and at the best $\ell$ the scale is the mean error itself.

# %%
y = (x + 0.1 * torch.randn(x.shape, generator=seeded(3))).double()
log_scale = torch.tensor(-1.2, dtype=torch.float64)
laplace = torch.distributions.Laplace(y, log_scale.exp())
ours = laplace_nll(absolute_error(x.double(), y), log_scale, 3072)
verify(
    "L1 is a Laplace likelihood", ours + 3072 * math.log(2), -laplace.log_prob(x.double()).flatten(1).sum(1), tol=1e-8
)
grid = torch.linspace(-4, 0, 4001, dtype=torch.float64)
mean_error = absolute_error(x.double(), y).mean()
best = grid[torch.stack([laplace_nll(mean_error, l, 3072) for l in grid]).argmin()]
verify("the best scale is the mean absolute error", best.exp(), mean_error, tol=1e-3)

# %% [markdown]
# *You may read LPIPS as $\sum_l w_l\|\Phi_l(x)-\Phi_l(\hat x)\|^2$.* It is
# $$d(x,\hat x)=\sum_l\frac1{H_lW_l}\sum_{h,w}\|w_l\odot(\hat\phi^l_{hw}(x)-\hat\phi^l_{hw}(\hat x))\|_2^2:$$
# features of *unit length* at each place, one weight per *channel*, averaged over places (Zhang et al. 2018, Eq. 1).
# Turn one layer up tenfold and the printed form is a different distance; the real one does not notice.


# %%
class Louder(torch.nn.Module):
    """A feature network whose layers are multiplied by a constant: the same knowledge, other units."""

    def __init__(self, network, gain):
        super().__init__()
        self.network, self.gain = network, gain

    def layers(self, x):
        return [self.gain * layer for layer in self.network.layers(x)]


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    seeing = nets.ShapeFeatures({"shape": 6}).eval()
distance = nets.PerceptualDistance(seeing)(x, decoded)
by_hand = sum(
    (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
    for a, b in zip(seeing.layers(x), seeing.layers(decoded))
)
raw = {
    g: sum(
        (a - b).square().sum((1, 2, 3)) for a, b in zip(Louder(seeing, g).layers(x), Louder(seeing, g).layers(decoded))
    )
    for g in (1, 10)
}
verify("LPIPS written out", distance, by_hand, tol=1e-4)
verify(
    "ten times louder features, the same distance",
    nets.PerceptualDistance(Louder(seeing, 10.0))(x, decoded),
    distance,
    tol=1e-4,
)
verify("the printed form: a hundred times as far", raw[10] / raw[1], torch.full((64,), 100.0), tol=1e-2)

# %% [markdown]
# #### The critic's weight
# The last rung is a patch discriminator with a hinge loss. How strongly should it pull? As strongly as the
# reconstruction does, measured where both meet, at the decoder's last layer (Esser et al. 2021, Eq. 7):
# $\lambda=\|\nabla_{W}\mathcal L_{nll}\|\,/\,(\|\nabla_{W}\mathcal L_G\|+10^{-4})$, clipped to $[0,10^4]$, without
# gradient; Stable Diffusion's config multiplies it by 0.5 and starts at step 50 001. So the *units* of the critic
# cancel:

# %%
with torch.enable_grad():
    W = torch.randn(3, 8, generator=seeded(4), requires_grad=True)
    features, target = torch.randn(50, 8, generator=seeded(5)), torch.randn(50, 3, generator=seeded(6))
    out = features @ W.T
    nll, fool = (out - target).abs().mean(), -(out[:, 0] * 0.01).mean()
    pull = torch.autograd.grad(nll, W, retain_graph=True)[0].norm()
    for volume in (1.0, 100.0):
        weight = adaptive_weight(nll, volume * fool, W)
        push = torch.autograd.grad(weight * volume * fool, W, retain_graph=True)[0].norm()
        verify(
            f"critic at volume {volume:g}: weighted, it pulls as hard as the reconstruction", push / pull, 1.0, tol=0.03
        )

# %% [markdown]
# The lab trains the ladder rung by rung (L1, + perceptual, + critic) and shows the crops.
#
# ### 3.4 Latents to look at, and their scale
# The four channels of a latent are no RGB: the encoder chose them. Places are kept, values are a private language.

# %%
stage = space.autoencoder
raw = stage.encode(test.images).mode()
four = raw[shown].transpose(0, 1).reshape(-1, 1, 8, 8)
low, high = raw.amin((0, 2, 3)).repeat_interleave(len(shown)), raw.amax((0, 2, 3)).repeat_interleave(len(shown))
grey_maps = 2 * (four - low[:, None, None, None]) / (high - low)[:, None, None, None] - 1
rows = torch.cat([test.images[shown], grey_maps.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)])
viz.show(
    viz.image_grid(rows, columns=len(shown), scale=3, row_labels=["picture", *(f"channel {k}" for k in range(4))]),
    caption="Each channel is drawn from its own lowest (black) to its highest value (white). One sees where things are in all "
    "of them; what they are is spread over the channels.",
    alt="Six pictures above the four channels of their latents as 8 by 8 grey maps.",
)

# %%
# TODO widgets.latent_explorer()

# %% [markdown]
# A schedule says how much noise *unit-variance* data get. Latents have the variance that training left them with, so
# they are scaled: **multiply** by $s=1/\mathrm{std}$ on the way in, divide on the way out. Newer models also shift:
# $z=s\,(\mathcal E(x)-b)$, $x=\mathcal D(z/s+b)$.
#
# | | $s$ | $b$ |
# |---|---|---|
# | Stable Diffusion 1, 2 | 0.18215 | 0 |
# | SDXL | 0.13025 | 0 |
# | Stable Diffusion 3 | 1.5305 | 0.0609 |
# | FLUX | 0.3611 | 0.1159 |

# %%
fitted = LatentSpace.fitted(stage, test.images)
scaled = fitted.encode(test.images)
print(
    f"this course: s = {space.scale:.4f}, b = {space.shift:+.4f} (fitted to these 300 pictures: {fitted.scale:.4f}, {fitted.shift:+.4f})"
)
verify("affine: z = s (E(x) - b)", scaled, fitted.scale * (raw - fitted.shift), tol=1e-6)
verify("... and back: D(z/s + b)", fitted.decode(scaled), stage.decode(raw), tol=1e-4)
verify("fitted: mean 0, variance 1", [scaled.mean(), scaled.std()], [0.0, 1.0], tol=1e-5)

std = 1 / 0.18215  # of Stable Diffusion's raw latents: what their s means
print(f"Stable Diffusion: raw std {std:.2f}; times s: {std * 0.18215:.2f}; divided by s: {std / 0.18215:.1f}")
verify("'z = E(x)/s' leaves a standard deviation of 30.1", std / 0.18215, 30.1, tol=0.05)

# %%
x_axis = torch.linspace(-4, 4, 400, dtype=torch.float64)
normal = torch.distributions.Normal(0.0, 1.0).log_prob(x_axis).exp()
viz.show(
    viz.density_curves(
        x_axis,
        [viz.Curve(normal, "N(0, 1): the noise", viz.NOISE)],
        histograms=[
            viz.Histogram(raw.flatten(), "latents as encoded", viz.UNCOND, hollow=True),
            viz.Histogram(scaled.flatten(), "after shift and scale", viz.DATA),
        ],
        bins=120,
        xlabel="value of a latent component (dimensionless)",
        ylabel="share per unit",
        title="All components of 300 latents",
    ),
    caption="Scaling fits the size, not the shape: latents of a KL with a tiny weight are far from Gaussian, and need "
    "not be Gaussian.",
    alt="Histograms of latent components before and after scaling beside a standard normal density.",
)

# %% [markdown]
# #### Slide the factor, and watch samples die
# Hand the *trained* denoiser latents of the wrong size: encode, multiply by $k$ too much, add the noise of $t=0.6$,
# denoise under the picture's own caption, divide by $k$, decode.

# %%
factors = [0.1, 0.3, 1.0, 1.8, 3.0, 30.1 / 1.0]
subjects = shapes.captioned(40, seeded(21), split="test", two=0.3)


def denoised_at(k, z, captions, t=0.6):
    time = torch.full((len(z),), t, dtype=torch.float64)
    z_t = painter.path.mix(k * z, torch.randn(z.shape, generator=seeded(5)), time)
    z_0 = painter.frames(painter.guided(captions, rule=linear(2.0)), z_t, steps=6, start=t)
    *_, end = z_0
    return painter.space.decode(end.x / k).clamp(-1, 1)


outcome = {k: denoised_at(k, space.encode(subjects.images), subjects.captions) for k in factors}
alive = [shapes.judge_captions(y, subjects.captions).all.double().mean().item() for y in outcome.values()]
viz.show(
    viz.image_grid(
        torch.cat([y[:8] for y in outcome.values()]),
        columns=8,
        scale=3,
        row_labels=[f"x {k:g}: {a:.0%} right" for k, a in zip(factors, alive)],
    ),
    caption="Too small, and the noise drowns the picture: the model invents another. Too large, and it meets signals that it "
    "was never shown. The last row is 'divide instead of multiply' with Stable Diffusion's number.",
    alt="Rows of pictures for six scale errors; only the row with factor 1 is clean.",
)
verify_less("nothing beats the right scale", [*alive[:2], *alive[4:]], alive[2])

# %% [markdown]
# #### The frozen guard
# The second stage learns the latents of a first stage that *stays still*. *You may read training loops that put the
# encoder's weights into the optimizer as well.* The denoising loss is then easiest to lower by making the data small:
# for $z=s\,x$ with $x\sim\mathcal N(0,1)$ the best possible error of $x_0$ is $s^2\sigma^2/(s^2\alpha^2+\sigma^2)$,
# which falls to 0 with $s$. The library refuses:

# %%
shrink = torch.tensor([1.0, 0.5, 0.1, 0.01], dtype=torch.float64)
best_error = shrink**2 * 0.5**2 / (shrink**2 * 0.75 + 0.5**2)
verify_less("the smaller the latent, the lower the loss that nothing can beat", best_error[1:], best_error[:-1])
thawed = LatentSpace(copy.deepcopy(stage))
thawed.autoencoder.requires_grad_(True)
try:
    thawed.encode(x)
    refused = False
except ValueError as error:  # lecture_lib.errors.FrozenError
    refused = type(error).__name__ == "FrozenError"
    print(f"{type(error).__name__}: {error}")
verify("a thawed encoder is refused", refused, True, tol=0)
