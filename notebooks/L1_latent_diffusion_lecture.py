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

# %% [markdown] slideshow={"slide_type": "slide"}
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
# **Time** 90 min reading · runs in 41 s · peak memory 1.2 GB (2 CPU cores)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $t=1$ is noise,
# $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is the plain conditional model.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 2 min</summary>
#
# Ask before anything else: at which size does Stable Diffusion denoise a picture of 512 x 512? Most say 512; it is
# 64 x 64, with four channels. On the next slide point at the blue ring and the red triangle: neither combination is
# in the training set, and the oracle that reads the pixels found all six pictures right. Say why the world is so
# small: whatever is claimed today is measured in this notebook, on two cores. Explain nothing yet; the class should
# want to play.
# </details>

# %% slideshow={"slide_type": "skip"} tags=["setup"]
# On Colab this fetches the course, and replaces nothing that is there. Elsewhere it only says what runs here.
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("lecture_lib") is None:
    get_ipython().run_line_magic("pip", "install -q https://github.com/OWNER/NAME/archive/main.zip")

from lecture_lib.tooling.info import summary

print(summary())

# %% slideshow={"slide_type": "skip"}
import copy
import math

import torch
import torch.nn.functional as F

from lecture_lib import core, nets, viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import EPS, VELOCITY, X0, RectifiedFlow, V, VPCosine
from lecture_lib.data import shapes
from lecture_lib.families import LatentSpace, psnr
from lecture_lib.guidance import interval, linear

torch.set_grad_enabled(False)  # gradients are asked for where they are needed
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 0 · Thirty seconds
# One model, 2.5 million parameters, trained on a laptop processor in a world of coloured shapes. Write, and it paints.

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
fine = shapes.judge_captions(pictures, prompts).all  # an oracle reads the pixels
labels = [text if good else f"{text} (not quite)" for text, good in zip(prompts, fine, strict=True)]
viz.show(
    viz.captioned_grid(pictures, labels, columns=3, scale=5),
    caption="Six prompts, one picture each, ten sampler steps. The blue ring and the red triangle are "
    "combinations that "
    "no training picture shows.",
    alt="Six small pictures of coloured shapes, each with its prompt below.",
)

# %% [markdown]
# The model never saw a pixel while it learned to denoise: it works on $8\times8\times4$ numbers where the picture has
# $32\times32\times3$, and a second network turns the result into pixels. Which numbers, why that works, what it saves
# and what it costs: this lecture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1 · Play
# Type, change the scale, change the seed. The vocabulary is small: sizes, colours, six shapes, four relations, places,
# two backgrounds; a word it does not know is refused with a suggestion.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Keep the prompt and the seed of the box and set w to 0, 1, 3 and 10. At 0 the prompt is ignored, at 1 and 3 all four
# pictures are right, at 10 the triangle falls to pieces: more guidance is not more obedience. Type "a large grean
# triangle" and let them read the answer, then let somebody dictate a prompt with two things. Next slide: two minutes
# in pairs, guesses written down, before you press the key. The misconception is that a seed fixes the picture; it
# fixes the noise, and two wordings of one scene come out as near twins. If late, leave out the two wordings.
# </details>

# %%
widgets.prompt_box()

# %% [markdown] slideshow={"slide_type": "slide"}
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. "a red circle left of a blue square" and "a blue square right of a red circle" mean the same. Same seed: same
#    picture?
# 2. One thing or two things: which prompts does the model get right more often? And pairs that it never saw?
# 3. The empty prompt: what does it paint?
#
# <details><summary>Answers</summary>
#
# 1. The same meaning, not the same picture: the encoders read words in order, and the features differ. Close relatives,
#    since they grew from the same noise.
# 2. One thing is easier than two: with two, somebody must know which colour belongs to which shape, and what "left
#    of" means. Pairs never seen (a red triangle) come out right nearly as often as pairs seen, since the words were
#    learned separately; 80 pictures of each show no difference. The next cell counts.
# 3. Scenes like those of the training set, one or two things of any kind: "" is the null text, which stood for one
#    caption in ten during training. It is the model's $p(x)$, and what guidance moves away from.
# </details>


# %% slideshow={"slide_type": "fragment"}
def share_right(n, seed, **split):
    """Share of pictures that show everything their caption asks for, read back from the pixels by the oracle."""
    captions = shapes.captioned(n, seeded(seed), **split).captions
    return shapes.judge_captions(painter.generate(captions, generator=seeded(seed + 1)), captions).all.double().mean()


right = {
    "one thing": share_right(80, 10, split="test", two=0.0),
    "one thing, a pair never seen": share_right(80, 20, split="held_out", two=0.0),
    "two things": share_right(80, 30, split="test", two=1.0),
}
for kind, share in right.items():
    print(f"{kind:30s} {share:4.0%} of 80 pictures right in every attribute")
verify_less("one thing is easier than two", right["two things"], right["one thing"])
verify_less(
    "pairs never seen come out right far more often than by chance", 0.25, right["one thing, a pair never seen"]
)

# %% slideshow={"slide_type": "slide"}
wordings = ["a large red circle left of a large green square", "a large green square right of a large red circle"]
both = [painter.generate([text] * 16, generator=seeded(3)) for text in wordings]
for text, y in zip(wordings, both, strict=True):
    print(f"{text!r}: {shapes.judge_captions(y, [text] * 16).all.double().mean():.0%} of 16 right")
verify_less("two wordings, one meaning, one noise: not the same pictures", 0.01, (both[0] - both[1]).abs().mean())
untold = painter.generate([""] * 4, generator=seeded(4))
viz.show(
    viz.captioned_grid(
        torch.cat([*(y[:2] for y in both), untold]),
        [wordings[0]] * 2 + [wordings[1]] * 2 + ["(the empty prompt)"] * 4,
        scale=4,
    ),
    caption="Above: two wordings of one scene, the same two noises. Below: what the model paints when it is "
    "told nothing.",
    alt="Eight pictures: two wordings of the same scene twice, and four pictures from the empty prompt.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Intuition, and where each picture breaks
#
# ### The archive
# "An autoencoder is a ZIP file for images." Both make something small from something large. Now look closer. Flip
# one bit of the archive, and nudge every number of the latent a little:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# The contrast to bring out: one wrong bit ruins the archive, while noise of 10 % on every number of the latent costs
# 0.6 dB. A denoiser never writes a code exactly, so it needs the second kind. At the thumbnail, ask what the ten
# decibels between 25 and 35 consist of, with nearly the same count of numbers: they are knowledge of this world, kept
# in the decoder's weights. On the third slide ask what the decoder will make of a chessboard, wait twenty seconds,
# then press; hardly anybody expects plain grey. If late, drop the archive.
# </details>

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
plain, shifted = (psnr(x, space.decode(latents)) for latents in (z, nudged))
print(f"reconstruction {plain.mean():.1f} dB, from a latent nudged by 10 % {shifted.mean():.1f} dB")
verify_less("the autoencoder is lossy (exact would be infinitely many dB)", plain.max(), 60.0)
verify_less("and a nudged latent is a nudged picture", 20.0, shifted.mean())

# %% [markdown]
# **Where the archive breaks.** ZIP is lossless, the autoencoder is not: Stable Diffusion's gives back 24.2 dB (Rombach
# et al. 2022, model table of the repository). And an archive must not *look like* anything: a good compressor leaves
# bytes without structure. Diffusion needs the opposite, a code in which nearby means alike, for it will only ever
# arrive *nearby*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The thumbnail
# "A latent is a thumbnail." Closer: neighbours stay neighbours, and one can nearly see the scene in it. But a thumbnail
# of as many numbers, enlarged again, loses the edges that the decoder puts back, because it *knows the world*.

# %%
thumbnail = F.interpolate(x, size=9, mode="area")  # 9 x 9 x 3 = 243 numbers; the latent has 8 x 8 x 4 = 256
enlarged = F.interpolate(thumbnail, size=32, mode="bicubic").clamp(-1, 1)
decoded = space.decode(z).clamp(-1, 1)
one = slice(0, 5)
viz.show(
    viz.image_grid(
        torch.cat([x[one], F.interpolate(thumbnail[one], size=32), enlarged[one], decoded[one]]),
        columns=5,
        scale=3,
        row_labels=["picture", "thumbnail, 9x9", "thumbnail, enlarged", "decoded latent"],
    ),
    caption="As many numbers, another picture: smooth interpolation knows no edges, the decoder has learned what edges "
    "this world has.",
    alt="Four rows of pictures: originals, coarse thumbnails, blurred enlargements, sharp reconstructions.",
)
verify_less("decoder beats thumbnail, mean PSNR in dB", psnr(x, enlarged).mean(), psnr(x, decoded).mean())

# %% [markdown] slideshow={"slide_type": "slide"}
# **Where the thumbnail breaks.** Show the decoder something its world does not contain, and the knowledge turns into
# prejudice. Where interpolation only blurs, the decoder invents:

# %% slideshow={"slide_type": "fragment"}
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

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Mathematics
#
# ### 3.1 What a latent saves
# Take *one* U-Net and run it on maps of two sizes. PyTorch can count the multiplications and additions; we only sort
# them. In a U-Net with transformers there are four kinds: convolutions, linear layers on each pixel, attention among
# pixels (self), attention from pixels to words (cross). The network is Stable Diffusion 1.5's, on the *meta* device:
# shapes without numbers, so that 3.4 GB of weights cost nothing.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 8 min</summary>
#
# Everybody writes down four factors, one for each kind of operation, before you press; the usual guess is 64 for all.
# For the 4096 of self-attention draw it: every pixel looks at every pixel, so pairs count. Somebody may ask why
# linear layers stay at 63.3: a few of them work on the words and on the time, which do not grow with the map. Below
# the numbers say where 48 comes from (numbers in over numbers out) and that it prices no operation. Before the plot
# ask how much of the whole is self-attention: 15 % at 64 a side, 92 % at 512. Close with the clock: 20.7 times the
# work, but only 7 to 8 times the time on the machine that ran this. If late, drop the clock.
# </details>

# %% slideshow={"slide_type": "skip"}
from torch.utils.flop_counter import FlopCounterMode

with torch.device("meta"):
    sd = nets.with_kernel(nets.stable_diffusion_unet(), nets.explicit_attention)


def flops(net, side, channels, words=77):
    """Floating-point operations of one forward pass on a map of side x side, by kind."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        cond = {"tokens": torch.zeros(1, words, net.context_dim)}
        cond |= {"vector": torch.zeros(1, net.vector_dim)} if net.vector_dim else {}
        net(torch.zeros(1, channels, side, side), torch.zeros(1), cond)
    kinds = dict.fromkeys(("convolution", "linear layers", "self-attention", "cross-attention"), 0)
    for module, operations in counter.get_flop_counts().items():
        for operation, count in operations.items():
            if "bmm" in str(operation) and module.endswith(("self_attention", "cross_attention")):
                kinds["self-attention" if module.endswith("self_attention") else "cross-attention"] += count
            elif module == "Global" and "bmm" not in str(operation):
                kinds["convolution" if "convolution" in str(operation) else "linear layers"] += count
    return kinds


# %% slideshow={"slide_type": "fragment"}
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

# %% slideshow={"slide_type": "skip"}
wrong = (3 * f**2 / 4) ** 2
for kind in latent:
    verify_less(f"2304 is off by more than 40 % for: {kind}", 0.4, abs(pixel[kind] / latent[kind] / wrong - 1))
verify_less("... and the sum lies more than 60 % below it", 0.6, 1 - all_of_it / wrong)
doubled = flops(sd, 128, 4)
verify(
    "'doubling the resolution costs 16x' holds for self-attention",
    doubled["self-attention"] / latent["self-attention"],
    16,
    tol=0,
)
verify("... and not for the convolutions", doubled["convolution"] / latent["convolution"], 4, tol=0)

# %% slideshow={"slide_type": "slide"}
sides = [16, 32, 64, 128, 256, 512]
costs = [flops(sd, side, 4) for side in sides]
looks = dict(zip(latent, (viz.other(0), viz.other(3), viz.other(2), viz.other(1)), strict=True))
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
    caption="Three lines of slope 2 and one of slope 4. Where Stable Diffusion works (dashed, 64 a side) "
    "self-attention "
    "is the smaller part; at 512 a side it would be nearly everything.",
    alt="Log-log plot of cost against map side; self-attention rises twice as steeply as the other three kinds.",
)

# %% [markdown]
# So what is "the" speed-up? Of *this* network 63 to 4096, by kind, and a sum that depends on the mixture. But nobody
# would run this network on 512 pixels a side: pixel models keep attention to maps of 8 to 32. Two different networks
# can only be compared by a stopwatch, and at equal quality; the paper does that (Rombach et al. 2022, Figures 6 and 7),
# and so does the lab, at equal seconds.

# %% [markdown] slideshow={"slide_type": "slide"}
# On this course's own U-Net (with $f=4$: maps of 8 against 32 a side) we can hold the count against a clock:

# %%
import time

small = painter.denoiser.network
counted = nets.with_kernel(copy.deepcopy(small).to("meta"), nets.explicit_attention)
eight, thirty_two = (sum(flops(counted, side, 4, words=24).values()) for side in (8, 32))
told, seconds = painter.condition("a large red circle"), {}
for side in (8, 32):
    noisy, clock = torch.randn(1, 4, side, side, generator=seeded(0)), torch.full((1,), 500.0)
    small(noisy, clock, told)  # the first call pays for set-up
    ticks = []
    for _ in range(5):
        begin = time.perf_counter()
        small(noisy, clock, told)
        ticks.append(time.perf_counter() - begin)
    seconds[side] = min(ticks)
print(f"counted: {thirty_two / eight:.1f} times the work; clocked: {seconds[32] / seconds[8]:.1f} times the time")
verify_less("between f^2 and f^4", [16, thirty_two / eight], [thirty_two / eight, 256])

# %% [markdown]
# A count is not a clock: on a small map each operation costs more to *start* than to do, and the saving is smaller than
# the count says; on large maps memory traffic counts, too.

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that the number of parameters grows with the picture ("input dimension times 1000").* Weights are shared
# by all positions, and time enters as a vector:

# %% slideshow={"slide_type": "skip"}
outputs = [small(torch.zeros(1, 4, side, side), clock, told) for side in (8, 32)]
verify("the same weights run on 8 x 8 and on 32 x 32", [o.shape[-1] for o in outputs], [8, 32], tol=0)
print(f"{nets.parameter_count(small):,} parameters for both; "
      f"'dimension x 1000' says {8 * 8 * 4 * 1000:,} and {32 * 32 * 4 * 1000:,}")  # fmt: skip
verify("Stable Diffusion 1.5: one count for every resolution", nets.parameter_count(sd), 859_520_964, tol=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.2 What it costs: rate and distortion
# $f$ is a ratio of **sides**, $f=H/h=W/w$ (Rombach et al. 2022, Section 3.1). *You may read $f=HW/(hw)$, "typically
# 8".* By that definition Stable Diffusion would have $f=64$:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Ask for Stable Diffusion's f; 8, 64 and 48 will all be offered. 8 is the ratio of sides, 64 that of areas, 48 that
# of numbers. On the second slide let them look for the first real lie of f = 8: the red diamond at the right comes
# back orange, the small ring in the middle as a blue blob. Ask which f they would build on, then show the plot; the
# course takes 4. The misconception is that a better denoiser repairs a bad first stage: it learns the latents that it
# is given. In the table, f = 16 is as good as f = 8, since channels buy back what the side takes. Common question:
# "why not f = 2?" Answer: four times the places of f = 4, sixteen times the self-attention.
# </details>

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
test = shapes.captioned(200, seeded(11), split="test")
rebuilt = {f: stage.decode(stage.encode(test.images).mode()).clamp(-1, 1) for f, stage in stages.items()}
readable = {f: shapes.judge_captions(y, test.captions).all.double().mean().item() for f, y in rebuilt.items()}
quality = {f: psnr(test.images, y).mean().item() for f, y in rebuilt.items()}
numbers = {f: 4 * (32 // f) ** 2 for f in stages}
for f in stages:
    print(f"f = {f}: {numbers[f]:5d} numbers instead of 3072, {quality[f]:.1f} dB, {readable[f]:.1%} still read right")
verify(
    "the oracle reads every untouched picture right",
    shapes.judge_captions(test.images, test.captions).all.double().mean(),
    1.0,
    tol=0,
)
verify_less("fewer numbers, fewer decibels", [quality[8], quality[4]], [quality[4], quality[2]])

# %% slideshow={"slide_type": "slide"}
shown = (test.scenes.background != 2).nonzero()[:5, 0]  # white pictures would not show on a white page
errors = {
    f: 4 * (rebuilt[f] - test.images).abs()[shown].mean(1, keepdim=True).expand(-1, 3, -1, -1) - 1 for f in stages
}
rows, names = [test.images[shown]], ["picture"]
for f in stages:
    rows += [rebuilt[f][shown], errors[f]]
    names += [f"f = {f}", "error x 4"]
viz.show(
    viz.image_grid(torch.cat(rows), columns=len(shown), scale=3, row_labels=names),
    caption="At f = 2 and f = 4 the errors sit at the edges: flat colour is the predictable part. At f = 8, with 64 "
    "numbers for everything, whole things change colour and shape.",
    alt="Five pictures, their reconstructions at f = 2, 4, 8, and error maps: outlines at f = 2 and 4, whole things "
    "at f = 8.",
)

# %% slideshow={"slide_type": "slide"}
sizes = [5, 6, 8, 9, 13, 18]
small_again = [F.interpolate(F.interpolate(test.images, size=s, mode="area"), size=32, mode="bicubic") for s in sizes]
figure, ax = viz.panels(size=(7.2, 3.8))
grey = {"color": viz.NOISE, "linestyle": ":", "marker": "s"}
ax.plot(
    [3 * s * s for s in sizes], [psnr(test.images, y).mean() for y in small_again], label="thumbnail, enlarged", **grey
)
ax.plot(list(numbers.values()), list(quality.values()), color=viz.DATA, marker="o", label="autoencoder, 4 channels")
for f in stages:
    place = {"xytext": (-8, -4), "ha": "right"} if f == 8 else {"xytext": (8, -14)}
    ax.annotate(f"f = {f}: {readable[f]:.0%} read right", (numbers[f], quality[f]), **place, textcoords="offset points")
ax.set(xscale="log", xlabel="numbers per picture (3072 in pixels)", ylabel="mean PSNR (dB)", xlim=(14, 2600))
ax.set_title("Rate and distortion on 200 test pictures", loc="left", weight="bold", size=12)
ax.legend(loc="upper left")
viz.show(
    figure,
    caption="What is lost in the first stage no denoiser can bring back: the share beside each point is what a "
    "model reaches that draws its latents exactly as the encoder makes them.",
    alt="PSNR against numbers per picture: the autoencoder's curve lies far above that of thumbnails.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# That share is the best one can hope for, not a promise: a latent diffusion model is a trade. Large $f$ makes the
# second stage cheap and the first one lossy. The published table for real photographs (ImageNet; Rombach et al. 2022,
# the repository's model zoo) shows that channels move along with $f$; a table that changes $f$ alone is not from there.
#
# | first stage (KL) | latent of 256x256 | rFID | PSNR (dB) |
# |---|---|---|---|
# | f = 4 | 64 x 64 x 3 | 0.27 | 27.5 |
# | **f = 8** (Stable Diffusion's kind) | 32 x 32 x 4 | 0.90 | 24.2 |
# | f = 16 | 16 x 16 x 16 | 0.87 | 24.1 |
# | f = 32 | 8 x 8 x 64 | 2.04 | 22.3 |

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.3 The autoencoder's loss, term by term
# #### The evidence bound and its sign
# $$\log p(x)\;\ge\;\underbrace{\mathbb E_{q(z|x)}[\log p(x|z)]-\mathrm{KL}(q(z|x)\,\|\,p(z))}_{\text{ELBO: to be maximised}},
# \qquad\mathcal L=-\mathbb E_q[\log p(x|z)]+\beta\,\mathrm{KL}.$$
# *You may read "minimise $\mathbb E[\log p(x|z)]-\beta\,\mathrm{KL}$".* In a world small enough to know everything,
# $z\sim\mathcal N(0,1)$, $x|z\sim\mathcal N(2z,0.5)$, both can be watched:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Give each term one job, aloud: the reconstruction forbids forgetting, the KL forbids growing without limit, the
# perceptual distance forbids blur that pixels hardly punish, the critic forbids what a patch would give away. Ask for
# the sign before you read the two runs: minimising -ELBO finds the evidence, -1.859, and the other run is at -5e13,
# where the clamp holds it. At the KL ask whether a weight of one millionth makes latents Gaussian; it does not, and
# nobody needs it to. On the last slide only one thing matters: features ten times as loud leave LPIPS alone, and put
# the printed form a hundred times as far. If late, show the first slide and say the four jobs; the lab trains the
# ladder.
# </details>

# %%
a, s2, observed = 2.0, 0.5, torch.tensor(1.3, dtype=torch.float64)
evidence = -0.5 * (observed**2 / (a**2 + s2) + math.log(2 * math.pi * (a**2 + s2)))


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
        for _ in range(1000):
            (slope,) = torch.autograd.grad(sign * elbo(*q), q)
            q = (q - 0.02 * slope).clamp(-30, 30).detach().requires_grad_()
        ends[name] = elbo(*q).item()
        print(f"{name}: ELBO after 1000 steps {ends[name]:12.3g}   (evidence {evidence:.4f})")
verify("the right sign finds the evidence", ends["minimise -ELBO"], evidence, tol=1e-4)
verify_less("the printed sign runs away", ends["minimise +ELBO"], -1e3)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### The KL, in closed form
# $\mathrm{KL}(\mathcal N(\mu,\varsigma^2)\|\mathcal N(0,1))=\tfrac12\sum(\mu^2+\varsigma^2-1-\ln\varsigma^2)$, summed
# over the latent. Its weight is tiny, $\beta=10^{-6}$ in Stable Diffusion: it keeps the latent from growing without
# limit, and does not make it Gaussian.

# %%
from lecture_lib.families import absolute_error, adaptive_weight, laplace_nll
from lecture_lib.nets import kl_to_standard_normal

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
# $|x-\hat x|_1/b+N\ell$ is the negative log-likelihood of *Laplace* noise of scale $b=e^\ell$ on $N$ numbers, up to a
# constant: the first stage learns $\ell$ too, and at the best $\ell$ the scale is the mean error itself.

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

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read LPIPS as $\sum_l w_l\|\Phi_l(x)-\Phi_l(\hat x)\|^2$.* It is
# $$d(x,\hat x)=\sum_l\frac1{H_lW_l}\sum_{h,w}\|w_l\odot(\hat\phi^l_{hw}(x)-\hat\phi^l_{hw}(\hat x))\|_2^2:$$
# features of *unit length* at each place, one weight per *channel*, averaged over places (Zhang et al. 2018, Eq. 1).
# Turn the features up tenfold and the printed form is a different distance; the real one does not notice.


# %% slideshow={"slide_type": "skip"}
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

# %%
distance = nets.PerceptualDistance(seeing)(x, decoded)
pairs = list(zip(seeing.layers(x), seeing.layers(decoded), strict=True))
by_hand = sum((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) for a, b in pairs)
verify("LPIPS written out", distance, by_hand, tol=1e-4)
louder = nets.PerceptualDistance(Louder(seeing, 10.0))(x, decoded)
verify("ten times louder features, the same distance", louder, distance, tol=1e-4)


def printed(gain):
    return sum((gain * a - gain * b).square().sum((1, 2, 3)) for a, b in pairs)


verify("the printed form: a hundred times as far", printed(10) / printed(1), torch.full((64,), 100.0), tol=1e-2)

# %% [markdown]
# #### The critic's weight
# The last rung is a patch discriminator with a hinge loss. How strongly should it pull? As strongly as the
# reconstruction does, measured where both meet, at the decoder's last layer (Esser et al. 2021, Eq. 7; constants of
# their code):
# $\lambda=\|\nabla_{W}\mathcal L_{nll}\|\,/\,(\|\nabla_{W}\mathcal L_G\|+10^{-4})$, clipped to $[0,10^4]$, without
# gradient; Stable Diffusion's config multiplies it by 0.5 and starts at step 50 001. So the *units* of the critic
# cancel:

# %% slideshow={"slide_type": "skip"}
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

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.4 Latents to look at, and their scale
# The four channels of a latent are no RGB: the encoder chose them. Places are kept, values are a private language.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# In the widget go from f = 4 to 2 and to 8 and back: the errors sit on edges, and at 8 the ring has lost its hole.
# With +2 on channel 1, compare "at one place" with "everywhere": a spot of a few pixels, then a black ground and a
# cyan triangle. Leave the scale at 1 for now. On the next slide say how to read s: 0.18215 means that the raw latents
# have a standard deviation of 5.49. Ask in which row of the table they are narrower than 1: Stable Diffusion 3, with
# 0.65. The usual bug is dividing on the way in. Unit variance does not mean Gaussian: the histogram that is skipped
# here has two peaks.
# </details>

# %% slideshow={"slide_type": "skip"}
stage = space.autoencoder
raw = stage.encode(test.images).mode()
four = raw[shown].transpose(0, 1).reshape(-1, 1, 8, 8)
low, high = raw.amin((0, 2, 3)).repeat_interleave(len(shown)), raw.amax((0, 2, 3)).repeat_interleave(len(shown))
grey_maps = 2 * (four - low[:, None, None, None]) / (high - low)[:, None, None, None] - 1
rows = torch.cat([test.images[shown], grey_maps.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)])
viz.show(
    viz.image_grid(rows, columns=len(shown), scale=3, row_labels=["picture", *(f"channel {k}" for k in (1, 2, 3, 4))]),
    caption="Each channel is drawn from its own lowest (black) to its highest value (white). One sees where "
    "things are in all "
    "of them; what they are is spread over the channels.",
    alt="Five pictures above the four channels of their latents as 8 by 8 grey maps.",
)

# %%
widgets.latent_explorer()

# %% [markdown] slideshow={"slide_type": "slide"}
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
hundred = test.images[:100]
fitted = LatentSpace.fitted(stage, hundred)
scaled = fitted.encode(hundred)
print(
    f"this course: s = {space.scale:.4f}, b = {space.shift:+.4f}; "
    f"fitted to 100 test pictures: {fitted.scale:.4f}, {fitted.shift:+.4f}"
)
verify("affine: z = s (E(x) - b)", scaled, fitted.scale * (raw[:100] - fitted.shift), tol=1e-6)
verify("... and back: D(z/s + b)", fitted.decode(scaled[:20]), stage.decode(raw[:20]), tol=1e-4)
verify("fitted: mean 0, variance 1", [scaled.mean(), scaled.std()], [0.0, 1.0], tol=1e-5)

std = 1 / 0.18215  # of Stable Diffusion's raw latents: what their s means
print(f"Stable Diffusion: raw std {std:.2f}; times s: {std * 0.18215:.2f}; divided by s: {std / 0.18215:.1f}")
verify("'z = E(x)/s' leaves a standard deviation of 30.1", std / 0.18215, 30.1, tol=0.05)

# %% slideshow={"slide_type": "skip"}
x_axis = torch.linspace(-4, 4, 400, dtype=torch.float64)
normal = torch.distributions.Normal(0.0, 1.0).log_prob(x_axis).exp()
viz.show(
    viz.density_curves(
        x_axis,
        [viz.Curve(normal, "N(0, 1): the noise", viz.NOISE)],
        histograms=[
            viz.Histogram(raw[:100].flatten(), "latents as encoded", viz.other(2)["color"], hollow=True),
            viz.Histogram(scaled.flatten(), "after shift and scale", viz.DATA),
        ],
        bins=120,
        xlabel="value of a latent component (dimensionless)",
        ylabel="share per unit",
        title="All components of 100 latents",
    ),
    caption="Scaling fits the size, not the shape: latents of a KL with a tiny weight are far from Gaussian, and need "
    "not be Gaussian.",
    alt="Histograms of latent components before and after scaling beside a standard normal density.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### Slide the factor, and watch samples die
# Hand the *trained* denoiser latents of the wrong size: encode, multiply by $k$ too much, add the noise of $t=0.6$,
# denoise under the picture's own caption, divide by $k$, decode.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Let them vote before you press: what is worse, latents ten times too small or three times too large? Too small, 0 %
# against 34 %; even thirty times too large many outlines survive. The reason is the noise of t = 0.6: beside small
# latents it hides everything, beside large ones ever less, and what dies there are mostly the colours. The glare in
# the top rows comes from the end of the chain: the denoiser answers in its own size, and dividing by 0.1 blows that
# up. On the last slide ask what an encoder would do that may help to lower the denoising loss; it shrinks, here from
# an error of 0.25 to 0.0001. If late, say that in one sentence. Discrete latents (3.5) are for reading and for the
# lab.
# </details>

# %% slideshow={"slide_type": "skip"}
factors = [0.1, 0.3, 1.0, 1.8, 3.0, 30.1]
subjects = shapes.captioned(32, seeded(21), split="test", two=0.3)
wish = painter.guided(subjects.captions, rule=linear(2.0))


def denoised_at(k, z, t=0.6):
    """Latents k times too large: noised to time t, denoised, made k times smaller, decoded."""
    z_t = painter.path.mix(k * z, torch.randn(z.shape, generator=seeded(5)), torch.full((len(z),), t))
    *_, end = painter.frames(wish, z_t, steps=6, start=t)
    return space.decode(end.x / k).clamp(-1, 1)


outcome = {k: denoised_at(k, space.encode(subjects.images)) for k in factors}
alive = [shapes.judge_captions(y, subjects.captions).all.double().mean().item() for y in outcome.values()]

# %% slideshow={"slide_type": "fragment"}
viz.show(
    viz.image_grid(
        torch.cat([y[:5] for y in outcome.values()]),
        columns=5,
        scale=3,
        row_labels=[f"x {k:g}: {a:.0%} right" for k, a in zip(factors, alive, strict=True)],
    ),
    caption="Too small, and the noise drowns the picture: the model invents another. Too large, and it meets "
    "signals that "
    "it was never shown. The last row is 'divide instead of multiply' with Stable Diffusion's number.",
    alt="Rows of pictures for six scale errors; only the row with factor 1 is clean.",
)
verify_less(
    "the right scale beats a tenth of it, three times it, and the division", [alive[0], alive[4], alive[5]], alive[2]
)

# %% [markdown] slideshow={"slide_type": "slide"}
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

# %% [markdown] slideshow={"slide_type": "skip"}
# ### 3.5 Discrete latents in one page
# Some first stages end in whole numbers instead of Gaussians: an autoregressive model wants tokens. Training them, dead
# codes included, is in the lab; here is what can be checked in a line.
#
# **Finite scalar quantisation** rounds each channel to $L$ levels. *You may read
# $\mathrm{round}(\tfrac{L-1}2\tanh z)\cdot\tfrac2{L-1}$ for every $L$.* Rounding to whole numbers, symmetric around 0,
# always gives an odd number of them: an even $L$ loses a level. The half-step offset gives it back (Mentzer et al.
# 2023, Section 3.1).

# %% slideshow={"slide_type": "skip"}
line = torch.linspace(-8, 8, 20001)[None, None, None]  # (1, 1, 1, n): one channel, every value


def printed_fsq(z, levels):
    return torch.round((levels - 1) / 2 * torch.tanh(z)) * 2 / (levels - 1)


even, odd = [2, 4, 6, 8, 16], [3, 5, 7, 15]
levels_of = {L: nets.FSQ([L])(line).quantised.unique().numel() for L in (*even, *odd)}
printed_of = {L: printed_fsq(line, L).unique().numel() for L in (*even, *odd)}
print("L:      ", *levels_of, "\nlibrary:", *levels_of.values(), "\nprinted:", *printed_of.values())
verify("FSQ has exactly L levels", list(levels_of.values()), [*even, *odd], tol=0)
verify("the printed formula loses one for every even L", [printed_of[L] for L in even], [L - 1 for L in even], tol=0)
verify("... and is right for odd ones", [printed_of[L] for L in odd], odd, tol=0)
verify("two channels of 8 levels: 64 codes, of which the printed formula reaches", printed_of[8] ** 2, 49, tol=0)

# %% slideshow={"slide_type": "skip"}
plane = 1.5 * torch.randn(1, 2, 30, 30, generator=seeded(0))
lattices = {"library: 4 x 4 codes": nets.FSQ([4, 4])(plane).quantised, "printed: 3 x 3 codes": printed_fsq(plane, 4)}
figure, axes = viz.panels(1, 2, size=(7.6, 3.9), sharex=True, sharey=True)
for ax, (name, codes) in zip(axes, lattices.items(), strict=True):
    squashed = torch.tanh(plane)[0].flatten(1).T
    viz.scatter(squashed, colour=viz.NOISE, size=2, ax=ax)
    viz.scatter(codes[0].flatten(1).T.unique(dim=0), colour=viz.DATA, size=70, ax=ax)
    ax.set(xlabel="channel 1 (dimensionless)", ylabel="channel 2 (dimensionless)", xlim=(-1.15, 1.15))
    ax.set_title(name, loc="left", weight="bold", size=12)
    ax.set_aspect("equal")
viz.show(
    figure,
    caption="Grey: what is quantised, after tanh. Blue: the codes. With L = 4 the printed formula has lost a row and "
    "a column of the lattice; the library's codes are uneven about 0, and all there.",
    alt="Two lattices of codes in a square of grey points: 16 codes on the left, 9 on the right.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Vector quantisation** replaces each vector by the nearest of $K$ codes. The gradient passes *straight through*:
# $z_q=z_e+\mathrm{sg}(e-z_e)$. The codebook follows the encoder by moving averages. *You may read that this is gradient
# descent on the codebook loss.* It is online k-means; as gradient descent it would have its own step size for each
# code, $(1-\gamma)\,n_k/\tilde N_k$:

# %% slideshow={"slide_type": "skip"}
vq = nets.VectorQuantizer(6, 2, gamma=0.9, epsilon=0.0, dead=0.0, generator=seeded(1))
with torch.enable_grad():
    z_e = torch.randn(4, 2, 5, 5, generator=seeded(2), requires_grad=True)
    out = vq(z_e)
    upstream = torch.randn(out.quantised.shape, generator=seeded(3))
    (passed,) = torch.autograd.grad((out.quantised * upstream).sum(), z_e)
verify("straight through: the gradient is handed on unchanged", passed, upstream, tol=0)

before, count = vq.codebook.clone(), vq.count.clone()
vq.update(z_e.detach(), out.index)
vectors, chosen = z_e.detach().movedim(1, -1).reshape(-1, 2), out.index.flatten()
n_k = torch.bincount(chosen, minlength=6)
mean_k = torch.stack([vectors[chosen == k].mean(0) if n_k[k] else before[k] for k in range(6)])
own_step = (1 - vq.gamma) * n_k / (vq.gamma * count + (1 - vq.gamma) * n_k)
verify(
    "EMA = a step towards each cluster's mean, of its own size",
    vq.codebook,
    before + own_step[:, None] * (mean_k - before),
    tol=1e-5,
)
print(
    "those steps:", ", ".join(f"{s:.2f}" for s in own_step), "  (one learning rate for all would be a different method)"
)

# %% slideshow={"slide_type": "skip"}
k_means = nets.VectorQuantizer(6, 2, gamma=0.0, epsilon=0.0, dead=0.0, generator=seeded(1))
k_means.update(z_e.detach(), out.index)
followed = n_k > 0
verify("without memory (gamma = 0) it is Lloyd's k-means", k_means.codebook[followed], mean_k[followed], tol=1e-5)
verify(
    "perplexity: one code for everything counts as",
    nets.perplexity(torch.zeros(100, dtype=torch.long), 64),
    1.0,
    tol=1e-6,
)
verify("perplexity: all codes alike count as", nets.perplexity(torch.arange(64).repeat(3), 64), 64.0, tol=1e-3)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.6 Schedules, and what the last step still knows
# A schedule is one curve: the half log-SNR $\lambda_t=\log(\alpha_t/\sigma_t)$. *You may read
# $\lambda=\log(\bar\alpha/\sqrt{1-\bar\alpha})$*; with $\alpha=\sqrt{\bar\alpha}$ it is
# $\tfrac12\log\tfrac{\bar\alpha}{1-\bar\alpha}$, and at $\bar\alpha=\tfrac12$ it is 0.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# First figure: which curves do not fall for ever? Stable Diffusion's stops at -2.7, DDPM's at -5.1. Widget, "all
# black", with eyes on the line below the picture: Stable Diffusion keeps 3.8 standard deviations of the mean at
# t = 1, DDPM linear 0.35, zero terminal SNR nothing, while the pictures at t = 1 look alike. Third slide, and a pause
# of half a minute: how can one pixel know nothing and the mean of 1024 so much (0.81)? Averaging divides the noise
# by 32 and leaves the brightness alone. The misconception is that 0.068 is as good as 0. The resolution shift can
# wait for SD3.
# </details>

# %% slideshow={"slide_type": "skip"}
sd_table, ddpm_table, cosine = core.stable_diffusion(), core.ddpm_linear(), core.cosine_table()
zero_table = core.zero_terminal_snr(sd_table)
schedules = {
    "DDPM, linear": core.Discrete(ddpm_table),
    "Stable Diffusion 1, 2, SDXL": core.Discrete(sd_table),
    "cosine": VPCosine(),
    "Stable Diffusion, zero terminal SNR": core.Discrete(zero_table),
    "rectified flow (SD3, FLUX)": RectifiedFlow(),
}

# %%
t = torch.linspace(0.002, 0.998, 400, dtype=torch.float64)
bare = [viz.other(i) | {"marker": ""} for i in range(5)]
figure = viz.sweep(
    t,
    [viz.Line(name, path.lam(t), look=look) for (name, path), look in zip(schedules.items(), bare, strict=True)],
    xlabel="time t (0 is data, 1 is noise)",
    ylabel="half log-SNR  log(alpha/sigma)",
    title="Every schedule is one falling curve",
)
figure.axes[0].set_ylim(-8, 6)
viz.show(
    figure,
    caption="They differ in where they linger and where they end: Stable Diffusion's stops at -2.7, DDPM's at -5.1; "
    "the other three fall for ever.",
    alt="Five falling curves of half log-SNR against time; Stable Diffusion's ends highest.",
)

# %%
# NBVAL_CHECK_OUTPUT
for name, table in {"DDPM linear": ddpm_table, "Stable Diffusion": sd_table, "cosine": cosine}.items():
    last_bar = table[-1].item()
    print(
        f"{name:17s} alpha-bar_T = {last_bar:.3e}   alpha_T = {last_bar**0.5:.4f}   "
        f"sigma_T/alpha_T = {(1 / last_bar - 1) ** 0.5:.2f}"
    )

# %% slideshow={"slide_type": "slide"}
widgets.schedule_explorer()

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that Stable Diffusion uses DDPM's linear schedule and ends at $\bar\alpha_T=4.6\cdot10^{-5}$.* It is
# linear in $\sqrt\beta$, from $\sqrt{0.00085}$ to $\sqrt{0.012}$ (`v1-inference.yaml`), and ends a hundred times
# higher. Two more details that printed formulas leave out: $\beta$ runs over $T-1$ intervals, and the cosine's last
# betas are clipped at 0.999.

# %% slideshow={"slide_type": "skip"}
verify("Stable Diffusion: alpha-bar_T", sd_table[-1], 4.660099e-3, tol=1e-8)
verify("DDPM: alpha-bar_T", ddpm_table[-1], 4.035830e-5, tol=1e-10)
n = torch.arange(1, 1001, dtype=torch.float64)
over_T = (1 - (1e-4 + n / 1000 * (0.02 - 1e-4))).cumprod(0)  # "beta_s + t (beta_e - beta_s)/T"
print(f"DDPM with T instead of T - 1 intervals: {over_T[-1]:.3e}")
verify_less("one interval too many, one percent too little", 0.009, abs(over_T[-1] / ddpm_table[-1] - 1))
unclipped = torch.cos(torch.tensor(math.pi / 2, dtype=torch.float64)) ** 2 / math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
print(f"cosine: alpha-bar_T = {cosine[-1]:.3e} with the clip, {unclipped:.1e} without")
verify("cosine with its clip", cosine[-1], 2.4288e-9, tol=1e-12)
half = VPCosine().time_of(torch.zeros(1))  # where lambda = 0 ...
verify("... alpha-bar = 1/2", VPCosine().alpha(half.double()) ** 2, 0.5, tol=1e-12)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### What pure noise still knows
# At the last training step of Stable Diffusion $x_T=0.068\,x_0+0.998\,\epsilon$. One *pixel* of it knows next to
# nothing of $x_0$. But noise averages out over $N$ pixels, and the mean of a picture does not:
# $$\operatorname{corr}(\overline{x_T},\overline{x_0})=\frac{\alpha_T\,s}{\sqrt{\alpha_T^2s^2+\sigma_T^2/N}},\qquad
# s=\operatorname{std}\,\overline{x_0}.$$

# %%
bright = shapes.captioned(2000, seeded(31)).images[:, :1]  # a black, grey or white ground: one channel is enough
known = {}
for name, table in {"Stable Diffusion": sd_table, "DDPM linear": ddpm_table, "zero terminal SNR": zero_table}.items():
    alpha, sigma = table[-1].sqrt(), (1 - table[-1]).sqrt()
    x_T = alpha * bright + sigma * torch.randn(bright.shape, generator=seeded(32))
    both = torch.stack([x_T.mean((1, 2, 3)), bright.mean((1, 2, 3))]).double()
    s, N = both[1].std(), bright[0].numel()
    formula = alpha * s / (alpha**2 * s**2 + sigma**2 / N) ** 0.5
    known[name] = torch.corrcoef(both)[0, 1]
    pixel_knows = torch.corrcoef(torch.stack([x_T[:, 0, 3, 3], bright[:, 0, 3, 3]]))[0, 1]
    print(f"{name:18s} correlation with x_0: one pixel {pixel_knows:+.2f}, the mean of 1024 pixels {known[name]:.2f}")
    verify(f"{name}: closed form (4 standard errors)", known[name], formula, tol=4 / 2000**0.5)
verify_less("Stable Diffusion's last step knows the brightness well", 0.7, known["Stable Diffusion"])

# %% [markdown] slideshow={"slide_type": "slide"}
# The network learns to *trust* the mean of $x_T$. At sampling time $x_T$ is pure noise, its mean is about 0, and the
# network politely keeps it: grey pictures, no midnight, no snow. This has nothing to do with guidance (*you may read
# that it appears at high guidance*); it is a mismatch between training and sampling at one end of the schedule.
#
# A world where all is known shows it clean. Pictures of one brightness, black (1/4), grey (1/2) or white (1/4), of
# $64\times64$ pixels: only the mean matters, and divided by the noise of a mean it is one number,
# $y=\sqrt N\,\overline x\in\{-64,0,64\}$ plus unit noise. The denoiser is *exact*; only the schedule differs:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Say twice that this denoiser is exact: whatever goes wrong is the schedule's fault. Ask for three percentages before
# you press; fair would be 25, 50, 25. Out come 1, 98, 1, with trailing steps as well: the grid alone repairs nothing,
# the table does. The misconception is that guidance makes the grey; there is none here. On the last slide read the
# error message together and ask what predicting the noise is worth at alpha = 0, where the input *is* the noise.
# Point at the roots in the recipe: rescaling alpha-bar itself gives another schedule. Wrong recipes and the noise
# offset are skipped.
# </details>

# %% slideshow={"slide_type": "fragment"}
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, last, sample

grounds = GaussianMixture([1, 2, 1], [[-64.0], [0.0], [64.0]], [1e-4, 1e-4, 1e-4])
tables = {
    "Stable Diffusion, leading steps": (sd_table, lambda p: core.leading_grid(p, 200, 1)),
    "Stable Diffusion, trailing steps": (sd_table, lambda p: core.trailing_grid(p, 200)),
    "zero terminal SNR, trailing steps": (zero_table, lambda p: core.trailing_grid(p, 200)),
    "zero terminal SNR, but 50 leading steps": (zero_table, lambda p: core.leading_grid(p, 50, 1)),
}
start = torch.randn(4000, 1, generator=seeded(33), dtype=torch.float64)
dark = {}
for name, (table, steps) in tables.items():
    path = core.Discrete(table)
    y = last(sample(grounds.denoise(path), path, DDIM(), steps(path), start))
    dark[name] = [((y - c).abs() < 16).double().mean().item() for c in (-64, 0, 64)]
    print(f"{name:46s} black {dark[name][0]:5.1%}, grey {dark[name][1]:5.1%}, white {dark[name][2]:5.1%}")

# %%
first, _, third, late = dark.values()
verify_less("with the original table almost no picture is black", first[0], 0.03)
verify("with zero terminal SNR, a quarter is", third[0], 0.25, tol=0.05)
verify_less("but only for who starts at its last step", third[1] + 0.03, late[1])
try:
    EPS.inverse(core.Discrete(zero_table).at(1.0))
except ValueError as error:
    print(error)

# %% [markdown]
# That last message is the price: at $\alpha=0$ a prediction of $\epsilon$ says nothing about $x_0$. Zero terminal SNR
# needs $v$- or $x_0$-prediction, and a grid that *starts* at the last step ("trailing"; leading steps stop a stride
# short of it: with 50 of them grey is still too frequent, with 200 the stride is too short to tell). The recipe acts on
# the root:
# $$\sqrt{\bar\alpha'_t}=(\sqrt{\bar\alpha_t}-\sqrt{\bar\alpha_T})\,\frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1}-\sqrt{\bar\alpha_T}}
# \qquad\text{(Lin et al. 2023, Algorithm 1)}.$$

# %% [markdown] slideshow={"slide_type": "skip"}
# Two other versions are in circulation, and a table shows at once that neither is a schedule. A third, the same recipe
# without the roots, is one, but another one:

# %% slideshow={"slide_type": "skip"}
verify("zero terminal SNR: the last entry", zero_table[-1], 0.0, tol=0)
verify("... and the first one stays", zero_table[0], sd_table[0], tol=1e-15)
divided = ddpm_table.sqrt() / ddpm_table[-1].sqrt()  # "alpha_t / alpha_T"
print(f"'alpha_t/alpha_T' runs from {divided[-1]:.0f} to {(ddpm_table / ddpm_table[-1])[0]:.0f} (in alpha-bar)")
verify("'alpha_t/alpha_T' ends at 1, not at 0", divided[-1], 1.0, tol=1e-12)
bar0 = 0.9999999
printed_1 = (sd_table[0] - sd_table[-1]) / (1 - sd_table[-1]) * (1 - bar0) / (bar0 - sd_table[-1])
verify_less("the printed 'derivation' starts at 0 instead of 1", printed_1, 1e-3)
own = core.zero_terminal_snr(sd_table**2).sqrt()  # the recipe applied to alpha-bar itself
print(f"rescaling alpha-bar instead of its root: alpha-bar_900 = {own[899]:.1e} instead of {zero_table[899]:.1e}")
verify_less("... which is another schedule", zero_table[899] * 2, own[899])

# %% [markdown] slideshow={"slide_type": "skip"}
# #### Noise offset: the other repair
# *You may read "add a constant to the noise".* It is a second draw, one per image and channel, the same at all pixels:
# $\epsilon=z+s\,z_c$ with $s\approx0.1$, and $\epsilon$, the sum, is the target. Its mean is zero; it makes the noise
# *non-white*, so that the network meets noise that changes brightness (N. Guttenberg 2023):

# %% slideshow={"slide_type": "skip"}
latents = torch.zeros(3000, 1, 64, 64)  # one channel of Stable Diffusion's at 512 pixels
for s in (0.0, 0.1):
    means = core.offset_noise(s)(latents, seeded(34)).mean((2, 3)).double()
    var = means.var()
    print(f"s = {s}: variance of a channel's mean {var:.3e}")
    verify(
        f"s = {s}: 1/N + s^2 (4 standard errors)",
        var,
        1 / 4096 + s**2,
        tol=float(4 * (1 / 4096 + s**2) * (2 / 3000) ** 0.5),
    )
verify("s = 0.1: 42 times", (1 / 4096 + 0.01) / (1 / 4096), 42, tol=0.1)

# %% [markdown] slideshow={"slide_type": "skip"}
# The lab trains three small models, with neither repair and with each of the two, and asks them for five brightnesses.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.7 One loss, four parameterizations
# A network predicts $y=a_tx_0+b_t\epsilon$. At a fixed $x_t$ an error in $x_0$ *forces* an error in everything else:
# $$\hat\epsilon-\epsilon=-\tfrac{\alpha}{\sigma}(\hat x_0-x_0),\quad \hat v-v=\tfrac1\alpha(\hat\epsilon-\epsilon)\ (\text{VP})
# \;\Rightarrow\;\boxed{\mathcal L_\epsilon=\mathrm{SNR}\,\mathcal L_{x_0}=\alpha^2\mathcal L_v,\quad\mathcal L_{x_0}=\sigma^2\mathcal L_v.}$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# One line for the board: at a fixed noisy input, alpha times the error of x0 plus sigma times the error of epsilon is
# zero. Give the class a minute to get the first equation of the box from it. Then ask which loss dies at the last
# step: epsilon's, at 0.0047 of the v-loss, and there is the link to zero terminal SNR. At min-SNR ask "a weight on
# which loss?" first. In the figure let them say where v goes with x0 (noise side) and where with epsilon (data side);
# the kink sits at SNR 5, a half log-SNR of 0.8. If late, go from the box straight to the figure.
# </details>

# %%
path = core.Discrete(sd_table)
times = torch.tensor([0.05, 0.3, 0.6, 1.0], dtype=torch.float64)
c = path.coeffs(times)
x_0, eps, wrong_x0 = torch.randn(3, 4, 50, generator=seeded(40), dtype=torch.float64)
x_t = path.mix(x_0, eps, times)
wrong_eps = (x_t - c.alpha[:, None] * wrong_x0) / c.sigma[:, None]  # the eps that this x_0 means at this x_t
loss = {
    kind.name: (kind.encode(wrong_x0, wrong_eps, c) - kind.encode(x_0, eps, c)).square().mean(1)
    for kind in (X0, EPS, V)
}
snr = (c.alpha / c.sigma) ** 2
verify("L_eps / L_v = alpha^2", loss["eps"] / loss["v"], c.alpha**2, tol=1e-12)
verify("L_x0 / L_v = sigma^2", loss["x0"] / loss["v"], c.sigma**2, tol=1e-12)
verify("L_eps / (SNR L_x0) = 1", loss["eps"] / (snr * loss["x0"]), torch.ones(4), tol=1e-12)
verify("L_v = (1 + 1/SNR) L_eps", loss["v"] / ((1 + 1 / snr) * loss["eps"]), torch.ones(4), tol=1e-12)
printed = (1 - c.alpha**2) / c.alpha**2  # "L_eps = (1 - alpha-bar)/alpha-bar L_v"
verify_less("the printed ratio is off by more than a factor 2 somewhere", 2, (printed / c.alpha**2).max())

# %% [markdown]
# *You may read that "$\mathrm{SNR}\cdot\mathcal L_\epsilon$ is $v$-prediction" and that "at low SNR the $\epsilon$-loss
# has a high weight".* The first is off by $\bar\alpha\,\mathrm{SNR}$; and relative to the other two, the
# $\epsilon$-loss *vanishes* at low SNR, which is why zero terminal SNR cannot use it.

# %%
verify_less("at the last step the eps-loss is a hundredth of the v-loss", loss["eps"][-1] / loss["v"][-1], 0.01)
ratio = snr * loss["eps"] / loss["v"]
print("SNR L_eps / L_v at t = 0.05, 0.3, 0.6, 1:", ", ".join(f"{r:.2g}" for r in ratio), "  (would be 1 if it were v)")
verify("it is alpha-bar SNR", ratio, c.alpha**2 * snr, tol=1e-9)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### Min-SNR: one weight, three spellings
# $\min(\mathrm{SNR},\gamma)$ with $\gamma=5$ is a weight on the **$x_0$-loss** (Hang et al. 2023). Converted:
# $\min(S,\gamma)/S$ on $\epsilon$, $\min(S,\gamma)/(S+1)$ on $v$. *You may read it as a weight on the $\epsilon$-loss.*

# %% slideshow={"slide_type": "skip"}
S, weighted = snr, {}
for kind in (X0, EPS, V):
    weighted[kind.name] = core.min_snr(5.0)(kind, c) * loss[kind.name]
verify("min-SNR: on eps and on x0 the same loss", weighted["eps"], weighted["x0"], tol=1e-12)
verify("min-SNR: on v and on x0 the same loss", weighted["v"], weighted["x0"], tol=1e-12)
verify("the converted weights: min(S, 5)/S ...", core.min_snr(5.0)(EPS, c), S.clamp(max=5) / S, tol=1e-12)
verify("... and min(S, 5)/(S + 1)", core.min_snr(5.0)(V, c), S.clamp(max=5) / (S + 1), tol=1e-12)
misquoted = S.clamp(max=5) * loss["eps"]
verify("the misquoted one is off by a factor SNR", misquoted / weighted["x0"], S, tol=1e-9)

# %% slideshow={"slide_type": "skip"}
lam = torch.linspace(-4, 4, 300, dtype=torch.float64)
path = VPCosine()
c_line = path.coeffs(path.time_of(lam))
kinds = {"x0": X0, "eps": EPS, "v": V, "EDM's F, sigma_data = 0.5": core.edm(0.5)}


def weights(weight):
    """What ``weight`` on each network's own loss amounts to on the x0 error."""
    lines = [(name, weight(kind, c_line) * kind.x0_weight(c_line)) for name, kind in kinds.items()]
    thick = [look | {"linewidth": 5 - 1.3 * i} for i, look in enumerate(bare)]  # so that one sees them all
    return [viz.Line(name, y, look=look) for (name, y), look in zip(lines, thick, strict=False)]


# %%
figure, axes = viz.panels(1, 2, size=(9.4, 3.8), sharex=True)
labels = {"xlabel": "half log-SNR  log(alpha/sigma)", "ylabel": "weight on the squared error of x0", "log_y": True}
viz.sweep(lam, weights(core.plain), **labels, title="Each network's own plain loss", ax=axes[0])
viz.sweep(lam, weights(core.min_snr(5.0)), **labels, title="min-SNR on each of them", ax=axes[1])
viz.show(
    figure,
    caption="Left: four plain losses, four opinions about which noise levels matter. Right: the same weight, converted "
    "for each network: one curve.",
    alt="Left, four different weight curves over log-SNR; right, four curves that coincide and are flat above SNR 5.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **EDM's preconditioning** is the fourth row of the same system: $\hat x_0=c_{skip}x_\sigma+c_{out}F$ with
# $c_{skip}=\frac{s_d^2}{\sigma^2+s_d^2}$, $c_{out}=\frac{\sigma s_d}{\sqrt{\sigma^2+s_d^2}}$ (Karras et al. 2022, Table
# 1), solved for $F$. At $s_d=1$ on a VP path $F$ is nothing but $-v$:

# %% slideshow={"slide_type": "skip"}
ve, level = core.EDM(), torch.tensor([0.1, 0.5, 2.0, 20.0], dtype=torch.float64)
c_ve, s_d = ve.coeffs(level), 0.5
x_sigma = ve.mix(x_0, eps, level)
F_target = core.edm(s_d).encode(x_0, eps, c_ve)
c_skip, c_out = s_d**2 / (level**2 + s_d**2), level * s_d / (level**2 + s_d**2) ** 0.5
verify("EDM: c_skip x + c_out F gives x0", c_skip[:, None] * x_sigma + c_out[:, None] * F_target, x_0, tol=1e-12)
verify("EDM at sigma_data = 1 on a VP path is -v", core.edm(1.0).encode(x_0, eps, c), -V.encode(x_0, eps, c), tol=1e-12)
verify(
    "its plain loss weighs x0 by EDM's (sigma^2 + s_d^2)/(sigma s_d)^2",
    core.edm(s_d).x0_weight(c_ve),
    (level**2 + s_d**2) / (level * s_d) ** 2,
    tol=1e-9,
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.8 Words become vectors
# A caption becomes numbers, one per word (large models cut rare words into pieces; this world needs none of that), and
# the numbers become vectors, by two small encoders with two educations:
# - **CLIP's part**: causal, trained to find the right image among 128 and the right caption among 128;
# - **the reader**: bidirectional, trained on captions alone, in the place that T5 has in SD3 and FLUX. *You may read "T5
#   is a language model"*: it is an encoder-decoder trained to write spans of words that were cut out, of which only the
#   encoder is used. What our reader was asked instead, and why, comes below.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Point at the second row of tokens: the null text is a text of two tokens, the rest is masked. On the CLIP slide
# stress the norm: raw products lower the loss from 3.3 to 0.018 by growing tenfold, with nothing learned. In the
# matrix let them find the best wrong pair: green circle and green square, 0.63, of one colour and one size. Before
# the bars the class ranks the six changes by a show of hands. A new colour is always noticed; swapped places are
# nearly a coin toss (56 %). If late, skip the tokens.
# </details>

# %%
tokenizer, clip, reader = painter.tokenizer, zoo.load("shapes-clip"), zoo.load("shapes-lm")
tokens = tokenizer.encode(["a large green triangle above a small blue ring", ""])
print(tokens.tolist())
print(tokenizer.decode(tokens))
try:
    tokenizer.encode("a large grean triangle")
except ValueError as error:
    print(error)
null = painter.condition("")
verify("the null text is a text: <start><end>", painter.denoiser.null["tokens"], null["tokens"][0], tol=1e-6)
verify(
    "padding is masked: 11 of 24 tokens of the caption are read, 2 of the null text",
    painter.condition(["a large green triangle above a small blue ring", ""])["mask"].sum(1),
    [11, 2],
    tol=0,
)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### InfoNCE
# $u_i=f_I/\|f_I\|$, $v_j=f_T/\|f_T\|$, logits $e^{s}\,u_i^\top v_j$ with a learned $s$ that starts at $\ln(1/0.07)$ and
# is kept at $\ln100$ or below; then the cross-entropy of rows and columns (Radford et al. 2021, Figure 3). *You may read it
# with raw inner products.* Without the norms the features can win by shouting:

# %%
from lecture_lib.families import info_nce

some = shapes.captioned(64, seeded(50), split="test")
texts = tokenizer.encode(some.captions)
u, v = clip.embed_images(some.images), clip.embed_texts(texts)
verify("unit length", torch.cat([u, v]).norm(dim=1), torch.ones(128), tol=1e-5)
logits = clip.similarity(some.images, texts)
verify("logits are scaled cosines", logits, clip.log_scale.exp() * u @ v.T, tol=1e-3)
ce = F.cross_entropy(logits, torch.arange(64)), F.cross_entropy(logits.T, torch.arange(64))
verify("InfoNCE: rows and columns", info_nce(logits).mean(), sum(ce) / 2, tol=1e-5)
print(f"learned scale e^s = {clip.log_scale.exp():.1f} (start 14.3, limit 100)")
shouted = {}
for loud in (1, 3, 10):
    shouted[loud] = info_nce((loud * u) @ (loud * v).T).mean()
    same = info_nce(clip.log_scale.exp() * F.normalize(loud * u, dim=1) @ F.normalize(loud * v, dim=1).T).mean()
    print(f"features {loud:2d} times as long: raw inner products {shouted[loud]:.3f}, normalised {same:.3f}")
verify_less("raw: the same features, ten times as long, a hundredth of the loss", shouted[10], shouted[1] / 100)

# %% slideshow={"slide_type": "slide"}
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    newborn = zoo.recipe("shapes-clip").build()
eight = [i for i, text in enumerate(some.captions) if len(text) < 52][:7]
cosines = torch.stack([m.embed_texts(texts[eight]) @ m.embed_images(some.images[eight]).T for m in (newborn, clip)])
viz.show(
    viz.similarity_matrix(
        cosines,
        some.images[eight],
        [some.captions[i] for i in eight],
        value_label="cosine of caption and image",
        titles=("before training", "after training"),
    ),
    caption="Before training an image is about as near to any caption as to its own: the columns are even. Afterwards "
    "the diagonal stands out, and the nearest misses share two traits (two small rings, two large green things). One "
    "alone need not help: the orange ring and the orange triangle are strangers.",
    alt="Two tables of cosines between seven captions and seven images: even columns before training, a bright "
    "diagonal after.",
)
hit = (logits.argmax(1)[:, None] == torch.arange(64)[:, None]).double().mean()
print(f"right caption among 64: {hit:.0%} (chance 2 %)")
verify_less("trained: most images find their caption among 64", 0.5, hit)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### Which words it confuses
# Take an image of two things and two captions: the true one and one with a single change. Does the cosine prefer the
# truth?

# %% slideshow={"slide_type": "skip"}
from dataclasses import replace

pairs = shapes.captioned(400, seeded(51), split="test", two=1.0)
scene_list = [pairs.scenes[i] for i in range(400)]


def changed(scene, attribute, how):
    """The scene with one attribute exchanged between its two things, or replaced by one that occurs in neither."""
    a, b = scene.things
    old = getattr(a, attribute), getattr(b, attribute)
    if how == "swap":
        a, b = replace(a, **{attribute: old[1]}), replace(b, **{attribute: old[0]})
    else:
        every = {"colour": tuple(shapes.COLOURS), "shape": shapes.SHAPES}[attribute]
        a = replace(a, **{attribute: next(word for word in every if word not in old)})
    return shapes.Scene((a, b), scene.background)


# %% slideshow={"slide_type": "skip"}
changes = [
    ("colour", "new"),
    ("shape", "new"),
    ("size", "swap"),
    ("colour", "swap"),
    ("shape", "swap"),
    ("centre", "swap"),
]
truth = [shapes.caption(scene) for scene in scene_list]
seen, told = clip.embed_images(pairs.images), clip.embed_texts(tokenizer.encode(truth))

# %% slideshow={"slide_type": "skip"}
prefers = {}
for attribute, how in changes:
    lie = [shapes.caption(changed(scene, attribute, how)) for scene in scene_list]
    differ = torch.tensor([a != b for a, b in zip(truth, lie, strict=True)])  # two red things: nothing to swap
    gap = (seen * (told - clip.embed_texts(tokenizer.encode(lie)))).sum(1)[differ]
    plural = {"centre": "places"}.get(attribute, attribute + "s")
    name = f"{plural} swapped" if how == "swap" else f"a {attribute} that is not there"
    prefers[name] = (gap > 0).double().mean().item()
verify_less(
    "swapped places fool it more often than a new colour",
    prefers["places swapped"] + 0.2,
    prefers["a colour that is not there"],
)

# %% slideshow={"slide_type": "fragment"}
viz.show(
    viz.bars(
        list(prefers),
        list(prefers.values()),
        colours=[viz.other(0)["color"]] * len(prefers),
        form="{:.0%}",
        xlabel="share of images nearer to the true caption (0.5 is chance)",
        title="One change in the caption: does the cosine notice?",
    ),
    caption="A colour that is nowhere in the picture is noticed every time, swapped sizes nearly so. Of the swapped "
    "colours and shapes one in six is missed; which thing stands where (the relation turned round) is nearest to a "
    "coin toss.",
    alt="Bar chart: new colours and shapes and swapped sizes are noticed, swapped colours and shapes less, places "
    "hardly.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# So a single vector per caption knows who has which colour in five cases of six, and who stands where hardly better
# than a *bag of words* would. But the U-Net reads **one vector per word**. Does the vector of "circle" know that the
# circle is red? A linear probe: from the vector of each shape word, guess the colour of its thing (8 colours).

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 4 min</summary>
#
# The probe answers the objection that the binding is lost: it is in the word's own vector, and partly lost in the
# pooled one. Ask why CLIP's first shape word cannot know the other thing's colour (11 %, chance is 12): its
# mask is causal. Next slide, a prediction: does the probe find more after 150 steps on missing words? 60 % before and
# after, although the task is being learned. Common question: "60 % from an untrained network?" Its random attention
# already mixes the neighbours in. Read two of the glosses aloud, then the price: 36 or 89 captions of 100, with the
# same U-Net.
# </details>

# %% slideshow={"slide_type": "skip"}
shape_words = torch.tensor([tokenizer.ids[w] for w in (*shapes.SHAPES, "disc", "rhombus", "plus")])
colour_words = torch.tensor([tokenizer.ids[w] for w in shapes.COLOURS])


texts_of = [
    tokenizer.encode(shapes.captioned(n, seeded(seed), split=split, two=1.0).captions)
    for n, seed, split in ((1000, 61, "train"), (500, 62, "test"))
]


def first_thing(encoder, texts, other):
    """The vector of the first shape word of each text, and the colour of that thing or of the other one."""
    at = torch.isin(texts, shape_words)
    colour = (texts.roll(1, 1)[at][:, None] == colour_words).int().argmax(1)
    return encoder(texts).tokens[at][0::2].double(), colour[int(other) :: 2]


def guess_colour(encoder, other=False):
    """Share of test captions in which ridge regression guesses the colour."""
    (X, y), (X_test, y_test) = (first_thing(encoder, texts, other) for texts in texts_of)
    X, X_test = (F.pad((Z - X.mean(0)) / X.std(0), (0, 1), value=1.0) for Z in (X, X_test))
    solved = torch.linalg.solve(X.T @ X + 10.0 * torch.eye(X.shape[1]), X.T @ F.one_hot(y, 8).double())
    return ((X_test @ solved).argmax(1) == y_test).double().mean().item()


# %%
knows = {}
for name, encoder in (("CLIP's part", clip.text), ("the reader", reader.encoder)):
    knows[name] = own, others = guess_colour(encoder), guess_colour(encoder, other=True)
    print(f"{name:12s} the first shape word knows its own colour: {own:4.0%}, the other thing's: {others:4.0%}")
verify_less("in CLIP's token vectors the binding is there", 0.95, knows["CLIP's part"][0])
verify_less("... and a causal encoder cannot know what comes later (chance 12 %)", knows["CLIP's part"][1], 0.3)
verify_less("the reader sees both sides, and knows at least as well whose the colour is", 0.95, knows["the reader"][0])

# %% [markdown]
# The vector of the word knows what the vector of the sentence has half forgotten: that is why a U-Net is fed the tokens,
# and not only the pooled vector.

# %% [markdown]
# #### What an encoder is asked is what it tells
# T5's question, *which words are missing?*, teaches much about a language in which people talk about everything. In
# ours of 43 words the gap in "a large ... triangle" wants a colour, any colour: whose it is need not be known. Give a
# fresh encoder that question for ten seconds, and probe before and after:

# %% slideshow={"slide_type": "fragment"}
from lecture_lib.data import Batches
from lecture_lib.families import span_loss
from lecture_lib.training import adamw, train

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    young = nets.SpanDenoiser(nets.TextEncoder(len(tokenizer), dim=64, visible=nets.full_mask))
with torch.no_grad():
    before = guess_colour(young.encoder)
texts = Batches((tokenizer.encode(shapes.captioned(4000, seeded(65)).captions),), 64)


def missing_words(model, batch, generator):
    return span_loss(model, batch[0], generator)


training = train(young, missing_words, texts, steps=150, optimizer=adamw(young, 3e-3), generator=seeded(66))
with torch.enable_grad():
    losses = [step.loss for step in training]
with torch.no_grad():
    after = guess_colour(young.encoder)
print(
    f"missing words: {losses[0]:.2f} -> {losses[-1]:.2f} nats each; the probe finds the colour: {before:.0%} -> {after:.0%}"
)
verify_less("it learns its task", losses[-1] + 1, losses[0])
verify_less("... and knows whose the colour is no better than a network that has learned nothing", after, before + 0.1)

# %% [markdown] slideshow={"slide_type": "slide"}
# So the reader was asked another question. From the vector of **one** word, the rest of the caption out of sight, write
# the *gloss* of that word: which thing it belongs to, and where that is.

# %%
from lecture_lib.nets.tokenizer import END, START


@torch.no_grad()
def gloss(vectors, longest=15):
    """What the reader's small decoder writes about each vector, the likeliest word after the likeliest word."""
    written = torch.full((len(vectors), 1), START)
    for _ in range(longest):
        written = torch.cat([written, reader(vectors, written)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokenizer.decode(F.pad(written, (0, 1), value=END))


text = "there is a large green triangle above a small blue ring"
vectors = reader.encoder(tokenizer.encode(text)).tokens[0, 1 : 1 + len(text.split())]
for word, told in zip(text.split(), gloss(vectors), strict=True):
    print(f"{word:10s}{told or '(nothing to say: it belongs to no thing, and the background is plain)'}")

# %% slideshow={"slide_type": "skip"}
agree = []
for text in shapes.captioned(60, seeded(64), split="test", two=1.0).captions:
    known = shapes.glosses(text)
    vectors = reader.encoder(tokenizer.encode(text)).tokens[0, 1 : 1 + len(known.owner)]
    agree += [said == known.texts[k] for said, k in zip(gloss(vectors), known.owner, strict=True)]
print(f"{sum(agree)} of {len(agree)} words of test captions say, word for word, what they are about")
verify_less("each word speaks for its thing", 0.98, sum(agree) / len(agree))

# %% [markdown] slideshow={"slide_type": "skip"}
# The decoder is kept simple on purpose. It adds a linear map of the vector to what it has written, nothing more, and while
# it was trained noise lay over every vector. So the encoder learned to speak plainly and loudly: **a sum of one vector
# per attribute**. From 2000 captions, by least squares, one vector for each shape, colour, size, relation and background:

# %% slideshow={"slide_type": "skip"}
plain = shapes.captioned(2000, seeded(63), two=1.0).captions
first = [shapes.glosses(text).owner.index(1) + 4 for text in plain]  # <start>, then a SIZE COLOUR SHAPE
with torch.no_grad():
    said = reader.encoder(tokenizer.encode(plain)).tokens[torch.arange(2000), first].double()
wishes = [shapes.parse(text) for text in plain]
told_of = dict(zip(("shape", "colour", "size"), zip(*(wish.things[0] for wish in wishes), strict=True), strict=True))
told_of |= {"relation": [wish.relation for wish in wishes], "background": [wish.background for wish in wishes]}
kinds = {name: sorted(set(values)) for name, values in told_of.items()}
one_hot = {name: F.one_hot(torch.tensor([kinds[name].index(v) for v in values])) for name, values in told_of.items()}
A = torch.cat([*one_hot.values(), torch.ones(2000, 1)], dim=1).double()
parts = torch.linalg.lstsq(A, said, driver="gelsd").solution
spread = (said - said.mean(0)).square().sum()
verify_less("the sum of five vectors is all but all there is", 0.95, 1 - (said - A @ parts).square().sum() / spread)

# %% slideshow={"slide_type": "skip"}
sizes = [len(names) for names in kinds.values()]
voices = [(hot.double() @ part) for hot, part in zip(one_hot.values(), parts[:-1].split(sizes), strict=True)]
loud = [((voice - voice.mean(0)).square().sum() / spread).item() for voice in voices]
viz.show(
    viz.bars(
        list(kinds),
        loud,
        colours=[viz.other(0)["color"]] * len(loud),
        form="{:.0%}",
        xlabel="share of the variance of the vector of a shape word",
        title="What the word says, and how loudly",
    ),
    caption="No part is whispered; the relation, which says two things at once "
    "(which axis, which side), is the loudest.",
    alt="Bar chart: relation about 40 %, colour 21 %, shape 15 %, size 11 %, background 8 %.",
)
verify_less("no attribute is whispered", 0.04, min(loud))

# %% [markdown]
# How much this matters for the pictures: with a reader trained on missing words, the same U-Net after
# the same 5500 updates fulfilled 36 of 100 captions about two things, and with this one 89 (`course zoo --evaluate`,
# before and after). Toy results stay toy, but the rule is known from large models: with T5-XXL in CLIP's place human
# raters preferred the pictures of hard prompts (Saharia et al. 2022).

# %% [markdown] slideshow={"slide_type": "skip"}
# #### Several encoders side by side
# *You may read "SDXL uses CLIP and T5".* The published list:
#
# | model | tokens come from | shape | pooled |
# |---|---|---|---|
# | Stable Diffusion 1 | CLIP ViT-L/14, last layer | 77 x 768 | - |
# | Stable Diffusion 2 | OpenCLIP ViT-H/14, penultimate | 77 x 1024 | - |
# | SDXL | CLIP ViT-L **and** OpenCLIP ViT-bigG, penultimate, along the width | 77 x (768 + 1280) | 1280 |
# | Stable Diffusion 3 | the same pair, zero-padded to 4096, **then** T5-XXL along the sequence | (77 + 77) x 4096 | 768 + 1280 |
# | FLUX | T5-XXL | 256 or 512 x 4096 | 768 (CLIP-L) |


# %% slideshow={"slide_type": "skip"}
def features(width, n=77):
    """What an encoder of this width says of one text, as far as shapes go."""
    states = torch.randn(2, 1, n, width, generator=seeded(width))
    return nets.TextFeatures(states[0], states[1], states[0, :, -1], torch.ones(1, n, dtype=torch.bool))


large, big_g, t5 = features(768), features(1280), features(4096)
sdxl = torch.cat([large.penultimate, big_g.penultimate], dim=-1)
verify("SDXL: 77 tokens of 2048", sdxl.shape, (1, 77, 2048), tol=0)
sd3 = nets.sd3_condition(large, big_g, t5)
verify("SD3: 154 tokens of 4096", sd3["tokens"].shape, (1, 154, 4096), tol=0)
verify("SD3: CLIP's part is padded with zeros, not projected", sd3["tokens"][:, :77, 2048:].abs().max(), 0.0, tol=0)
verify("SD3: the vector is 768 + 1280", sd3["vector"].shape, (1, 2048), tol=0)
joint = painter.condition("a large red circle")
verify(
    "this course: 24 tokens of 64 + 64, vector 64 + 64",
    [*joint["tokens"].shape, joint["vector"].shape[1]],
    [1, 24, 128, 128],
    tol=0,
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.9 Cross-attention: from the word to the pixel
# Each pixel asks, each word answers: $Q=W_qh$, $K=W_kc$, $V=W_vc$, and
# $\mathrm{softmax}(QK^\top/\sqrt d)\,V$, in several heads at once. Written out, in index notation ($b$ image, $n$ pixel,
# $m$ word, $h$ head):

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 8 min</summary>
#
# Ask what changes if the words are shuffled after the encoder: nothing, so order has to be in the vectors. In the
# maps "circle" and "square" find their places in the first steps, "large" and "left" stay diffuse, and the guess
# knows where the square is before it knows that it is blue. Widget: word "square" at steps 1, 3 and 10, then
# "yellow". The weights are small since all tokens share one unit, and `<start>` takes a fifth of it from step 5 on.
# Write "circle" for "square" into the second prompt: at seed 0 the overlap is 0.24 on its own and 0.74 with the maps
# lent. Prompt-to-prompt: outside the thing the change falls from 0.094 to 0.023; all right are 18 of 21 instead of 19,
# which is no difference. If late, drop the grid of maps, which the widget shows as well.
# </details>

# %%
layer = nets.CrossAttention(48, 4, context_dim=20)
for weight in layer.parameters():
    weight.copy_(0.3 * torch.randn(weight.shape, generator=seeded(70)))
h, words = torch.randn(2, 64, 48, generator=seeded(71)), torch.randn(2, 9, 20, generator=seeded(72))
q, k, v = (
    layer.q(h).unflatten(-1, (4, 12)),
    layer.k(words).unflatten(-1, (4, 12)),
    layer.v(words).unflatten(-1, (4, 12)),
)
A = torch.einsum("bnhd,bmhd->bhnm", q, k).div(12**0.5).softmax(-1)  # who reads what: each pixel spends one unit
by_hand = layer.out(torch.einsum("bhnm,bmhd->bnhd", A, v).flatten(2))
verify("cross-attention by hand = the library's", by_hand, layer(h, words), tol=1e-5)
shuffled = torch.randperm(9, generator=seeded(73))
verify("order means nothing to it: shuffle the words", layer(h, words[:, shuffled]), layer(h, words), tol=1e-5)

# %% [markdown] slideshow={"slide_type": "slide"}
# All word order must therefore be in the vectors already (3.8). Now look at the maps of the trained model while it
# paints: one row per step, one column per word.

# %% slideshow={"slide_type": "skip"}
prompt = "a large red circle left of a small blue square"
shown_words = {word: 1 + prompt.split().index(word) for word in ("large", "red", "circle", "left", "blue", "square")}
frames, maps = [], []


def watched(denoise):
    """The same denoiser; it leaves its attention maps and its guess of the picture behind."""

    def run(x_t, t):
        with nets.recorded_attention(painter.denoiser.network) as layers:
            guess = denoise(x_t, t)
        maps.append({name: probs[1:] for name, probs in layers.items()})  # row 0 is the null branch
        frames.append(guess.x0)
        return guess

    return run


drawn = painter.picture(painter.frames(watched(painter.guided(prompt)), painter.noise(1, seeded(3)), steps=8))

# %%
steps = [0, 2, 4, 6, 7]
tiles = []
for i in steps:
    tiles.append(F.interpolate(space.decode(frames[i]).clamp(-1, 1), size=32))
    for place in shown_words.values():
        heat = nets.word_map(maps[i], place, (8, 8))[:, None]
        heat = 2 * (heat - heat.min()) / (heat.max() - heat.min()) - 1
        tiles.append(F.interpolate(heat, size=32, mode="nearest").expand(-1, 3, -1, -1))
viz.show(
    viz.image_grid(
        torch.cat(tiles),
        columns=1 + len(shown_words),
        scale=3,
        row_labels=[f"step {i + 1} of 8" for i in steps],
        column_labels=["guess", *shown_words],
    ),
    caption="Left: the guess of the final picture at each step. Right of it: how much each latent pixel reads of each "
    "word (mean over heads and layers, each map from its own least to its own most).",
    alt="Grid of attention maps: rows are steps, columns are words, beside the denoiser's guess of the picture.",
)

# %% slideshow={"slide_type": "skip"}
colour = torch.tensor(shapes.COLOURS["red"])[None, :, None, None]
is_red = F.avg_pool2d(((drawn - colour).norm(dim=1, keepdim=True) < 0.7).float(), 4)[0, 0]  # share of each 4x4 square
heat = nets.word_map(maps[-1], shown_words["red"], (8, 8))[0]
on, off = heat[is_red > 0.5].mean(), heat[is_red == 0].mean()
print(f"a pixel of the red thing reads 'red' with weight {on:.2f}, one elsewhere with {off:.2f}")
verify_less("the map of 'red' lies on the red thing", off, on)

# %% slideshow={"slide_type": "slide"}
widgets.attention_explorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# #### Prompt-to-prompt: swap the word, keep the map
# The maps say *where* each word speaks. So, to change a word and nothing else: paint the source prompt and keep every
# map, then paint the edited prompt from the same noise with those maps put in place of its own (Hertz et al. 2022,
# Section 3). The pixels still listen to the same places; what they hear there is "blue". We inject them during the
# first half of the steps, which settles the places. Does the new word suffer? Not that we saw: of 100 captions 84 came
# out all right without maps, 86 with maps for half of the steps, 88 with maps to the end. (One leak may help: in this
# model, as in SDXL, the word also comes in through the pooled vector, which no map controls.)

# %% slideshow={"slide_type": "skip"}
network = painter.denoiser.network


def remember(denoise, store):
    def run(x_t, t):
        with nets.recorded_attention(network) as layers:
            guess = denoise(x_t, t)
        store.append(dict(layers))
        return guess

    return run


def replay(denoise, store, share):
    """The denoiser with the stored maps injected during the first ``share`` of the steps."""
    left = iter(store[: round(share * len(store))])

    def run(x_t, t):
        source = next(left, None)
        if source is None:
            return denoise(x_t, t)
        with nets.controlled_attention(network, lambda layer, own: source[layer]):
            return denoise(x_t, t)

    return run


# %% slideshow={"slide_type": "skip"}
asked = shapes.captioned(250, seeded(80), split="test", two=1.0).captions
with_red = [text for text in asked if text.split().count("red") == 1 and "red ring" not in text]  # no blue rings seen
source = [text for text in with_red if not {"blue", "pink", "orange"} & set(text.split())][:24]
edited = [text.replace("red", "blue") for text in source]
noise, store = painter.noise(len(source), seeded(81)), []
paint = lambda denoise: painter.picture(painter.frames(denoise, noise, steps=10))  # noqa: E731
before = paint(remember(painter.guided(source), store))
plain = paint(painter.guided(edited))
injected = paint(replay(painter.guided(edited), store, share=0.5))

red = torch.tensor(shapes.COLOURS["red"])[None, :, None, None]
thing = F.max_pool2d(((before - red).norm(dim=1, keepdim=True) < 0.7).float(), 5, 1, 2) > 0  # the red thing and a rim


def moved(after):
    """Mean absolute change per picture, outside the red thing."""
    outside = ~thing.expand_as(before)
    return ((after - before).abs() * outside).flatten(1).sum(1) / outside.flatten(1).sum(1)


# %%
for name, y in (("blue, same noise", plain), ("blue, maps kept", injected)):
    fulfilled = shapes.judge_captions(y, edited)
    print(f"{name:17s} outside the thing {moved(y).mean():.4f} (mean absolute change); "
          f"colours right {fulfilled.colour.double().mean():.0%}, all right {fulfilled.all.double().mean():.0%}")  # fmt: skip
row = torch.cat([before[:6], plain[:6], injected[:6]])
viz.show(
    viz.image_grid(row, columns=6, scale=4, row_labels=["source: red", "blue, same noise", "blue, maps kept"]),
    caption="Same noise in all rows. Changing the word alone rearranges the scene; with the source's maps more of "
    "it stays where it was. Of 21 edits 18 are all right instead of 19: no price that so few could show.",
    alt="Three rows of six pictures: source scenes with a red thing, plain edits, and edits with injected "
    "attention maps.",
)
verify_less("with the maps kept, less moves outside the thing", moved(injected).mean(), moved(plain).mean())

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.10 The U-Net, part by part
# Two networks of the same class, read from their module trees: this course's (latents of $8\times8$) and Stable
# Diffusion 1.5's (latents of $64\times64$).

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Ask where the parameters sit: more than four fifths at 16 x 16 and 8 x 8, where the maps are small. Sixteen
# self-attentions settle the second sentence. At SDXL somebody recomputes 2816 = 6 x 256 + 1280; then ask whether
# t = 200 of 1000 is mostly noise, before you point at SNR 3.09. Hand-over: what is decided first, place, colour or
# outline? At 0.36 the place is kept in 69 % and colour and shape in none; at 0.10 all are still red, but squares. A
# trap in the figure: at 0.20 the place drops to 0 because the thing itself has been wiped out. If late, leave out
# micro-conditioning.
# </details>

# %%
figure, axes = viz.panels(2, 1, size=(9.4, 6.4))
viz.network_map(
    nets.block_table(small, 8), title=f"This course: {nets.parameter_count(small):,} parameters", ax=axes[0]
)
viz.network_map(nets.block_table(sd, 64), title="Stable Diffusion 1.5: 859,520,964 parameters", ax=axes[1])
viz.show(
    figure,
    caption="One U, twice. Each box is a block at the height of its resolution, as wide as its share of the "
    "parameters, "
    "with its channels inside. Most parameters sit low in the U: 76 % at 4 x 4 above, 82 % at 16 x 16 and 8 x 8 below.",
    alt="Two diagrams of U-Nets: blocks descend to lower resolutions and come up again; the wide ones are low.",
)

# %% slideshow={"slide_type": "skip"}
from itertools import zip_longest

tables = nets.block_table(sd, 64), nets.block_table(small, 8)
for row in zip_longest(*tables):
    cells = [
        f"{r.block:17s} {r.kind:22s} {r.size or '':>3} {r.channels:5d} {r.parameters:11,}" if r else "" for r in row
    ]
    print("  |  ".join(cells))
totals = [sum(r.parameters for r in table) for table in tables]
print(f"{totals[0]:62,}  |  {totals[1]:62,}")
verify("the table adds up: Stable Diffusion 1.5", totals[0], 859_520_964, tol=0)
verify("... and ours", totals[1], nets.parameter_count(small), tol=0)
verify("its autoencoder", nets.parameter_count(first_stage), 83_653_863, tol=0)
with torch.device("meta"):
    xl = nets.sdxl_unet()
verify("SDXL's U-Net", nets.parameter_count(xl), 2_567_463_684, tol=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### You may read elsewhere that ...
# Seven sentences about this network that are in circulation, each with the line that settles it.
#
# **"Three levels, each with cross-attention; the middle is one residual block."** Four levels of 320, 640, 1280, 1280
# channels; transformers at 64, 32, 16 and in the middle, which is residual, transformer, residual.
#
# **"Stable Diffusion has no self-attention, only FLUX has."** Every spatial transformer has one of each:

# %%
table = tables[0]
at = {size: sum("transformer" in r.kind for r in table if r.size == size) for size in (64, 32, 16, 8)}
print("spatial transformers by resolution:", at)
verify("transformers at 64, 32, 16 and one in the middle", list(at.values()), [5, 5, 5, 1], tol=0)
names = [name for name, _ in sd.named_modules()]
verify("16 self-attentions", sum(n.endswith("self_attention") for n in names), 16, tol=0)
verify("16 cross-attentions", sum(n.endswith("cross_attention") for n in names), 16, tol=0)
verify(
    "levels: channels",
    [r.channels for r in table if r.block.startswith("down") and "stages[1]" in r.block],
    [320, 640, 1280, 1280],
    tol=0,
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **"A GroupNorm before each sub-layer, cross-attention and feed-forward in parallel."** One GroupNorm and a projection
# at the entrance; inside, LayerNorm before each sub-layer, one *after* the other; a zero-initialised projection at the
# exit, and a residual connection around it all.


# %% slideshow={"slide_type": "skip"}
def shaken(module, seed):
    """The module with every weight drawn at random, so that nothing is hidden by a zero start."""
    generator = seeded(seed)
    for weight in module.parameters():
        weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return module


block = shaken(nets.SpatialTransformer(32, 4, context_dim=20, groups=8), 90)
x_in, words = torch.randn(2, 32, 4, 4, generator=seeded(91)), torch.randn(2, 7, 20, generator=seeded(92))
inner = block.blocks[0]
h = block.proj_in(block.norm(x_in).flatten(2).transpose(1, 2))
entered = h
h = h + inner.self_attention(inner.norm1(h))
h = h + inner.cross_attention(inner.norm2(h), words)
h = h + inner.feed_forward(inner.norm3(h))
by_hand = x_in + block.proj_out(h).transpose(1, 2).reshape(x_in.shape)
verify("the block, written out", by_hand, block(x_in, words), tol=1e-4)
parallel = entered + inner.cross_attention(inner.norm2(entered), words) + inner.feed_forward(inner.norm3(entered))
verify_less("the parallel form is another function", 0.1, (parallel - h).abs().max())
fresh = nets.SpatialTransformer(32, 4, context_dim=20, groups=8)
verify("at the start of training the block is the identity", fresh(x_in, words), x_in, tol=0)

# %% [markdown] slideshow={"slide_type": "skip"}
# **"The map is flattened to $(BHW)\times C$."** Then it would be *one* sequence, and the images of a batch would look
# at each other. It is $B\times(HW)\times C$:

# %% slideshow={"slide_type": "skip"}
other_batch = x_in.clone()
other_batch[1] = torch.randn(32, 4, 4, generator=seeded(93))  # another second image
verify("the first image does not notice the second", block(other_batch, words)[0], block(x_in, words)[0], tol=1e-5)


def flattened(x):
    """Self-attention on the printed shape."""
    one_sequence = block.proj_in(block.norm(x).permute(0, 2, 3, 1).reshape(1, -1, 32))
    return inner.self_attention(inner.norm1(one_sequence))[0, :16]  # what the first image's 16 pixels get


leak = (flattened(other_batch) - flattened(x_in)).abs().max()
verify_less("on the printed shape it does", 0.01, leak)

# %% [markdown] slideshow={"slide_type": "skip"}
# **"GEGLU is $(xW_1)\otimes\mathrm{sigmoid}(xW_2)$."** That is GLU; the gate of GEGLU is a GELU (Shazeer 2020).
#
# **"The time enters by scale and shift of the GroupNorm."** That is ADM (Dhariwal & Nichol 2021). Here it is *added*
# between the two convolutions.
#
# **"$\omega_k=10000^{-2k/d}$, $k=1,\dots,d/2$, sines and cosines interleaved."** $k$ starts at 0, so that the fastest
# wave has frequency 1, and all cosines come before all sines.

# %% slideshow={"slide_type": "skip"}
gate = shaken(nets.GEGLU(16), 94)
row = torch.randn(5, 16, generator=seeded(95))
value, switch = gate.inner(row).chunk(2, dim=-1)
verify("GEGLU: value times GELU(gate)", gate.outer(value * F.gelu(switch)), gate(row), tol=1e-5)
verify_less("with a sigmoid it is another layer", 0.1, (gate.outer(value * switch.sigmoid()) - gate(row)).abs().max())

from lecture_lib.nets.text_unet import TimeResBlock

res = shaken(TimeResBlock(16, 16, 24, groups=4), 96)
maps_in, e = torch.randn(3, 16, 4, 4, generator=seeded(97)), torch.randn(3, 24, generator=seeded(98))
h = res.conv1(F.silu(res.norm1(maps_in))) + res.time(F.silu(e))[:, :, None, None]
verify("the time is added: h + Linear(SiLU(e))", maps_in + res.conv2(F.silu(res.norm2(h))), res(maps_in, e), tol=1e-4)

clock = torch.tensor([0.0, 1.0, 250.0, 999.0])
omega = 10_000.0 ** (-torch.arange(160) / 160)
verify(
    "320 time features: all cosines, then all sines",
    nets.timestep_features(clock, 320),
    torch.cat([(clock[:, None] * omega).cos(), (clock[:, None] * omega).sin()], 1),
    tol=1e-3,
)
print(f"frequencies from {omega[0]:g} down to {omega[-1]:.3g}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.11 SDXL: what it adds
# **Micro-conditioning.** Small photographs were not thrown away: the model is *told* the original size, the corner of
# the crop and the target size, six numbers, each through the ordinary timestep features (256, *no* extra $2\pi$).
# Beside the pooled text (1280) they make the 2816 of its second input; an MLP adds that to the time vector. (*You may
# read "adaptive GroupNorm"*.)

# %% slideshow={"slide_type": "skip"}
sizes = nets.size_features(torch.tensor([[512, 768]]), torch.tensor([[0, 64]]), torch.tensor([[1024, 1024]]))
verify("six numbers, 256 features each", sizes.shape, (1, 1536), tol=0)
verify("with the pooled text", sizes.shape[1] + 1280, 2816, tol=0)
verify(
    "each of them is the ordinary timestep embedding",
    sizes[0, 256:512],
    nets.timestep_features(torch.tensor([768.0]), 256)[0],
    tol=1e-6,
)
verify("what SDXL's U-Net expects", [xl.vector_dim, xl.context_dim], [2816, 768 + 1280], tol=0)

# %% [markdown]
# **The refiner** is a second denoiser that takes over near the data: at $t=200$ of 1000, with the *latent* handed on and
# no new noise. *You may read "SNR(200) = 0.11, mostly noise".* And "the base is trained on $t\in[200,1000]$ only": it
# is trained on all of it.

# %%
# NBVAL_CHECK_OUTPUT
snr_of = sd_table / (1 - sd_table)
print(f"SNR at t = 200: {snr_of[199]:.2f} (DDPM's linear schedule: {(ddpm_table / (1 - ddpm_table))[199]:.2f})")
nearest = {level: 1 + int((snr_of.log() - math.log(level)).abs().argmin()) for level in (1.0, 0.11)}
print(f"SNR = 1 at t = {nearest[1.0]}, SNR = 0.11 at t = {nearest[0.11]}")

# %% [markdown]
# Handing over *at a noise level* is a switch of denoisers: `guidance.interval` does it, since a denoiser is a denoiser.
# Here both halves are the same network with different prompts, so that one can see **who decides what, when**: the
# base hears "a large red circle on the left", the refiner "a large blue square on the right".

# %% slideshow={"slide_type": "skip"}
verify("SNR(200) = 3.09", snr_of[199], 3.0856, tol=1e-3)
base, refiner = (painter.guided(p) for p in ("a large red circle on the left", "a large blue square on the right"))
path, start = painter.path, painter.noise(16, seeded(100))
level = snr_of[199].item() ** -0.5  # sigma/alpha at Stable Diffusion's t = 200 ...
sdxl_time = level / (1 + level)  # ... which our path has here, since sigma/alpha = t/(1 - t)
when = [0.0, 0.1, 0.2, sdxl_time, 0.5, 0.7, 0.9]


def relay(t):
    """The base down to path time t, the refiner from there."""
    switch = interval(path, base, refiner, t / (1 - t), math.inf)
    return painter.picture(painter.frames(switch, start, steps=12))


baton = {t: relay(t) for t in when}
alone = painter.picture(painter.frames(base, start, steps=12))
verify("handed over at 0: the base alone", baton[0.0], alone, tol=0)

# %% slideshow={"slide_type": "skip"}
found = {t: [s.things[0] if s.things else None for s in shapes.read(y)] for t, y in baton.items()}
traits = {
    "place: left": lambda thing: thing.centre[0] < 16,
    "shape: circle": lambda thing: thing.shape == "circle",
    "colour: red": lambda thing: thing.colour == "red",
}
kept = {trait: [sum(o is not None and has(o) for o in found[t]) / 16 for t in when] for trait, has in traits.items()}
figure = viz.sweep(
    when,
    [viz.Line(trait, share, look=viz.other(i)) for i, (trait, share) in enumerate(kept.items())],
    xlabel="time at which the refiner takes over (0: never)",
    ylabel="share of 16 pictures as the base wanted",
    title="What is decided before the hand-over?",
)
figure.axes[0].axvline(sdxl_time, color=viz.EXACT, linestyle="--", linewidth=1.2)
for trait, share in kept.items():
    print(f"{trait:14s}", "  ".join(f"{value:4.0%} at {t:.2f}" for t, value in zip(when, share, strict=True)))

# %% slideshow={"slide_type": "slide"}
strip = torch.cat([baton[t][:2] for t in when]).unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
viz.show(
    viz.stack(
        viz.image_grid(strip, scale=3, columns=len(when), column_labels=[f"{t:.2f}" for t in when]),
        viz.as_picture(figure),
    ),
    caption="Two noises, handed over at ever higher noise levels, and the count over 16. Dashed: SDXL's level. By then "
    "the place is mostly settled, while colour and shape can still be overruled. At 0.20 so little noise is left that "
    "the refiner can wipe out the red thing, which it was not asked for, but no longer paint a blue one.",
    alt="Strips of seven pictures that change from a red circle to a blue square; three curves of what the base "
    "decided.",
)
verify_less("at SDXL's level the place is decided in most pictures ...", 0.5, kept["place: left"][3])
verify_less("... and the colour is not", kept["colour: red"][3], 0.2)
verify_less(
    "at 0.1 the colour is decided, and the shape is not", kept["shape: circle"][1] + 0.5, kept["colour: red"][1]
)

# %% [markdown] slideshow={"slide_type": "skip"}
# From coarse to fine, in this toy: first the place, then the colour, at last the outline. Compare noise levels between
# models with care: a latent of $128\times128$ places (SDXL) shows a thing through much more noise than one of
# $8\times8$. Item 3 of the next section is the remedy.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.12 SD3 and FLUX, as far as this lecture goes
# Three changes of the second stage (the first two are in this course's model, too; the transformer is Lecture 3):
#
# 1. **Rectified flow**: $x_t=(1-t)x_0+t\epsilon$, the network predicts the velocity, $\epsilon-x_0$.
# 2. **Logit-normal times**: $t=\mathrm{sigmoid}(u)$, $u\sim\mathcal N(0,1)$: mostly the middle, where guessing is hard.
# 3. **Resolution shift**: more pixels average noise away, so every noise level is multiplied by $\kappa$ (3 at 1024
#    pixels): $t'=\frac{\kappa t}{1+(\kappa-1)t}$.
#
# And one of the first stage: 16 channels instead of 4.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 4 min</summary>
#
# Only the shift needs a sentence: more pixels average more noise away, as in the grey pictures of 3.6, so every noise
# level is multiplied. Ask "rectified, hence straight?" and show 1.33 times the straight distance, and Euler equal to
# DDIM. In the summary read three statements and let the class call true or false before they find the row. Quiz 3 and
# 6 aloud; the others, LoRA and the boss battle (t = 816) are for home and the lab.
# </details>

# %% slideshow={"slide_type": "skip"}
flow = RectifiedFlow()
t = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
x_0, eps = torch.randn(2, 3, 6, generator=seeded(110), dtype=torch.float64)
x_t, velocity = flow.mix(x_0, eps, t), VELOCITY.encode(x_0, eps, flow.coeffs(t))
verify("velocity = eps - x0", velocity, eps - x_0, tol=1e-12)
verify("x0 = x_t - t velocity", x_t - t[:, None] * velocity, x_0, tol=1e-12)
verify("eps = x_t + (1 - t) velocity", x_t + (1 - t[:, None]) * velocity, eps, tol=1e-12)
shifted = core.shift_times(flow, t, 3.0)
verify("shift: t' = 3t/(1 + 2t)", shifted, 3 * t / (1 + 2 * t), tol=1e-12)
verify("... is three times the noise level", flow.coeffs(shifted).level, 3 * flow.coeffs(t).level, tol=1e-10)
drawn_times = core.LogitNormalTimes().sample(4000, generator=seeded(111))
inside = ((drawn_times > 0.25) & (drawn_times < 0.75)).double().mean()
expected = math.erf(math.log(3) / 2**0.5)  # P(|u| < log 3)
verify(
    "logit-normal: 73 % of the times lie between 1/4 and 3/4 (4 standard errors)",
    inside,
    expected,
    tol=4 * (0.2 / 4000) ** 0.5,
)
verify("numbers in over numbers out at f = 8: 4 channels, 16 channels", [3 * 64 / 4, 3 * 64 / 16], [48, 12], tol=0)

# %% [markdown]
# *You may read that flow models are fast because their paths are straight, or because they have 16 channels.* Only the
# path of *one* pair $(x_0,\epsilon)$ is straight; the flow of a whole distribution bends, and an Euler step on it is a
# DDIM step. Few steps come from distillation (Lecture 4), not from the straight line, and four times the channels
# can make a model better, never faster.

# %%
from lecture_lib.core import uniform_grid
from lecture_lib.samplers import Euler

world = GaussianMixture([1, 1], [[-1.0, 0.5], [1.2, -0.3]], [0.05, 0.05])
grid, start = uniform_grid(flow, 20, start=0.999), torch.randn(200, 2, generator=seeded(112), dtype=torch.float64)
runs = {s: torch.stack([f.x for f in sample(world.denoise(flow), flow, s, grid, start)]) for s in (Euler(), DDIM())}
euler, ddim = runs.values()
verify("Euler on the velocity = DDIM", euler, ddim, tol=1e-10)
chord, walked = (euler[-1] - euler[0]).norm(dim=1), euler.diff(dim=0).norm(dim=2).sum(0)
print(f"walked {walked.sum() / chord.sum():.3f} times the straight distance")
verify_less("the flow is not straight", 1.01, walked.sum() / chord.sum())

# %% [markdown] slideshow={"slide_type": "skip"}
# ### 3.13 LoRA in five lines
# Fine-tuning moves each weight matrix by some $\Delta W$. Make that a product of two thin ones, $W=W_0+s\,\frac\alpha
# r\,BA$, with $A$ random and $B=0$: at the start nothing changes, at the end the product can be added to the weights,
# and its rank cannot exceed $r$. Training one, its singular values, its strength, and two of them at once: in the lab.

# %% slideshow={"slide_type": "skip"}
student = copy.deepcopy(small)
inputs = torch.randn(2, 4, 8, 8, generator=seeded(120)), torch.full((2,), 300.0)
told = painter.condition(["a large red circle", ""])
adapter = nets.add_lora(student, 4, targets=["q", "k", "v", "out"], generator=seeded(121))
verify("zero start: not a bit changes", student(*inputs, told), small(*inputs, told), tol=0)
for part in adapter.parameters():
    part.add_(0.1 * torch.randn(part.shape, generator=seeded(122)))  # as if trained
beside = student(*inputs, told)
adapter.merge()
verify("merged: the same function, no extra cost", student(*inputs, told), beside, tol=1e-4)
adapter.unmerge()
adapter.scale = 0.0
verify("strength 0: the old model", student(*inputs, told), small(*inputs, told), tol=1e-6)
adapter.scale = 1.0
layer = adapter.names[0]
verify(f"rank of the update of {layer}", torch.linalg.matrix_rank(adapter.delta(layer)), 4, tol=0)
print(f"{nets.parameter_count(adapter):,} new parameters beside {nets.parameter_count(small):,}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
# | statement | true? | where |
# |---|---|---|
# | latent diffusion is 2304 times cheaper | **no**; convolutions $f^2$, self-attention $f^4$, the sum depends | 3.1 |
# | the parameters grow with the picture | **no**; weights are shared by all places | 3.1 |
# | the first stage bounds the quality of everything after it | yes, measurably | 3.2 |
# | latents are divided by 0.18215 | **no**; multiplied, $s=1/\mathrm{std}$ | 3.4 |
# | FSQ with an even $L$ needs a half step | yes, or it has $L-1$ levels | 3.5 |
# | pure noise at Stable Diffusion's last step knows nothing | **no**; it knows the brightness | 3.6 |
# | min-SNR is a weight on the $\epsilon$-loss | **no**; on the $x_0$-loss, or converted | 3.7 |
# | a pooled caption vector knows who is where | hardly; the token vectors do | 3.8 |
# | injected attention maps keep the scene while a word changes | much better than without | 3.9 |
# | Stable Diffusion has no self-attention | **no**; sixteen of them | 3.10 |
# | the refiner takes over in mostly noise | **no**; at SNR 3.09 | 3.11 |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Quiz
# 1. An autoencoder maps $256\times256$ pictures to $16\times16\times16$ latents. What is $f$, and what is the ratio of
#    numbers?
#
# <details><summary>Answer</summary>
#
# $f=16$; $3\cdot256^2/(16^2\cdot16)=48$: the same ratio as Stable Diffusion's, with another $f$.
# </details>
#
# 2. Somebody doubles $f$ and keeps the U-Net. Which part of its cost falls by 4, which by 16?
#
# <details><summary>Answer</summary>
#
# Convolutions, cross-attention and (all but exactly) linear layers by 4, self-attention by 16 (3.1).
# </details>
#
# 3. All pictures of your new model have grey skies, at every guidance scale. What do you check first?
#
# <details><summary>Answer</summary>
#
# The last entry of the schedule and the first step of the sampler: does training ever see pure noise, and does sampling
# start there (3.6)? Guidance is not the cause.
# </details>
#
# 4. Your $v$-model is trained with weight $\min(\mathrm{SNR},5)$ on the $v$-loss. Which weight on $x_0$ is that?
#
# <details><summary>Answer</summary>
#
# $\min(S,5)\,(1+S)$, for $\mathcal L_v=(1+S)\,\mathcal L_{x_0}$: far more weight on nearly clean pictures than min-SNR.
# </details>

# %% [markdown]
# 5. Cross-attention does not know the order of the words. How does "left of" work at all?
#
# <details><summary>Answer</summary>
#
# Positions enter in the text encoder: each word's vector has seen where it stands and what came before (3.8, 3.9).
# </details>
#
# 6. Why may the encoder not learn together with the denoiser?
#
# <details><summary>Answer</summary>
#
# It could lower the denoising loss by shrinking the latents, without making anything easier to draw (3.4).
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Boss battle
# A colleague forgot the scale factor and trains Stable Diffusion on *raw* latents of standard deviation 5.49, in the
# same schedule. With the right latents, signal and noise are equally strong at $t=355$. At which $t$ are they now? Put
# your formula into the cell (hint: a factor $k$ on the data is a shift of the half log-SNR). Then meet the boss of the
# **lab**: text to image in sixty lines.
#
# <details><summary>Answer</summary>
#
# $k^2\,\mathrm{SNR}(t)=1$, so $\mathrm{SNR}(t)=0.18215^2=0.0332$: that is $t=816$. More than four fifths of
# all training steps show the model a signal stronger than the noise.
# </details>

# %% slideshow={"slide_type": "skip"}
k = 1 / 0.18215
my_t = 1 + int((k**2 * snr_of).log().abs().argmin())  # your formula here
print(f"equal strength at t = {my_t} instead of {nearest[1.0]}")
lam = core.Discrete(sd_table).lam(torch.tensor([my_t / 1000], dtype=torch.float64))
verify("boss: half log-SNR + log k = 0 there", lam + math.log(k), 0.0, tol=0.005)
verify_less(
    "boss: raw latents outshine the noise in four fifths of all steps", 0.8, (k**2 * snr_of > 1).double().mean()
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
# - R. Rombach et al. *High-resolution image synthesis with latent diffusion models.*
#   [2112.10752](https://arxiv.org/abs/2112.10752)
# - P. Esser, R. Rombach, B. Ommer. *Taming transformers for high-resolution image synthesis.*
#   [2012.09841](https://arxiv.org/abs/2012.09841)
# - D. Kingma, M. Welling. *Auto-encoding variational Bayes.* [1312.6114](https://arxiv.org/abs/1312.6114)
# - R. Zhang et al. *The unreasonable effectiveness of deep features as a perceptual metric.*
#   [1801.03924](https://arxiv.org/abs/1801.03924)
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu. *Neural discrete representation learning.*
#   [1711.00937](https://arxiv.org/abs/1711.00937); F. Mentzer et al. *Finite scalar quantization.*
#   [2309.15505](https://arxiv.org/abs/2309.15505)
# - S. Lin et al. *Common diffusion noise schedules and sample steps are flawed.*
#   [2305.08891](https://arxiv.org/abs/2305.08891)
# - T. Salimans, J. Ho. *Progressive distillation for fast sampling of diffusion models* ($v$).
#   [2202.00512](https://arxiv.org/abs/2202.00512); T. Hang et al. *Efficient diffusion training via min-SNR weighting
#   strategy.* [2303.09556](https://arxiv.org/abs/2303.09556); T. Karras et al. *Elucidating the design space of
#   diffusion-based generative models.* [2206.00364](https://arxiv.org/abs/2206.00364)
# - A. Radford et al. *Learning transferable visual models from natural language supervision.*
#   [2103.00020](https://arxiv.org/abs/2103.00020); C. Raffel et al. *Exploring the limits of transfer learning with a
#   unified text-to-text transformer.* [1910.10683](https://arxiv.org/abs/1910.10683)
# - A. Hertz et al. *Prompt-to-prompt image editing with cross attention control.*
#   [2208.01626](https://arxiv.org/abs/2208.01626)
# - D. Podell et al. *SDXL.* [2307.01952](https://arxiv.org/abs/2307.01952); P. Esser et al. *Scaling rectified flow
#   transformers for high-resolution image synthesis* (SD3). [2403.03206](https://arxiv.org/abs/2403.03206)
# - P. Dhariwal, A. Nichol. *Diffusion models beat GANs on image synthesis* (ADM).
#   [2105.05233](https://arxiv.org/abs/2105.05233); N. Shazeer. *GLU variants improve transformer.*
#   [2002.05202](https://arxiv.org/abs/2002.05202); C. Saharia et al. *Photorealistic text-to-image diffusion models
#   with deep language understanding* (Imagen). [2205.11487](https://arxiv.org/abs/2205.11487)
# - N. Guttenberg. *Diffusion with offset noise*, 2023, crosslabs.org
# - E. Hu et al. *LoRA.* [2106.09685](https://arxiv.org/abs/2106.09685)
#
# Next: the **lab** builds autoencoder, attention and adapters from their parts, trains the ladder of losses, and paints
# from captions in sixty lines.
