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
# # Lecture 3 · Diffusion transformers
# *Why did everyone leave the U-Net?*
#
# **After this lecture you will be able to**
# - build every block between a patch and FLUX on one screen, and show that it equals the published one;
# - say what a token costs: which part grows linearly, which quadratically, and when that begins to matter;
# - explain why a fresh DiT block is the identity to the last bit, and which two recipes for "zero" do not do that;
# - compute attention with memory for one tile, and prove that nothing is approximated;
# - recompute the parameters and the "Gflops" of twelve published networks, and say what is wrong with the word;
# - run one network as an ODE and as three SDEs, and show on a grid why their exact marginals are the same.
#
# **Time** 100 min reading · runs in 18 s · peak memory 0.9 GB (2 CPU cores)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $t=1$ is noise,
# $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is the plain conditional model. $N$ tokens of width $D$.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 4 min</summary>
#
# Do not read the goals out. Say instead that eight of the fourteen statements in the summary table are wrong, that
# you may read most of them elsewhere, and that everybody will be able to say why.
#
# Still on the title, ask: a trained network gets its 16 tokens shuffled, and their positions shuffled alike; what
# does it draw? Wait twenty seconds; most expect rubbish. Next slide: row 2 is row 1, cut up (equal to 6e-7). The
# misconception to catch is that a transformer reads patches in order. All it knows of order are 16 vectors; row 3 is
# what remains without them.
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
import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib import nets, viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import RectifiedFlow, uniform_grid
from lecture_lib.data import digits
from lecture_lib.families import decode, masked
from lecture_lib.guidance import extrapolate
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import EulerMaruyama, Heun, last, sample, sde

torch.set_grad_enabled(False)  # gradients are asked for where they are needed
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 0 · Thirty seconds
# A transformer sees a picture as a *set* of patches. Cut the noise into 16 tokens of $2\times2$ pixels, shuffle them,
# and let the same network draw ten digits three times: with the right positions, with positions shuffled along with
# the tokens, and with every token told the same position.

# %%
model = zoo.load("digits-dit")
labels, grid = torch.arange(10), uniform_grid(model.path, 12)
noise = torch.randn(10, 1, 8, 8, generator=seeded(7))
order = torch.randperm(16, generator=seeded(1))


def shuffled(x):
    return nets.unpatchify(nets.patchify(x, 2)[:, order], 2, 8)


def draw(x_T, change_positions):
    other = copy.deepcopy(model)
    other.network.positions.copy_(change_positions(other.network.positions))
    return last(sample(other.given(labels), other.path, Heun(), grid, x_T))


with_places = draw(noise, lambda table: table)
both_shuffled = draw(shuffled(noise), lambda table: table[order])
same_place = draw(noise, lambda table: table.mean(0).expand_as(table))
rows = ["positions", "tokens and positions\nshuffled alike", "the same position\nfor all tokens"]
viz.show(
    viz.image_grid(torch.cat([with_places, both_shuffled, same_place]), columns=10, scale=7, row_labels=rows),
    caption="Row 2 is row 1, cut up and shuffled: the network did not notice. Row 3 is a bag of patches: pieces of "
    "strokes that do not know where they belong.",
    alt="Three rows of generated digits: clean digits, the same with patches shuffled, and unreadable patches.",
)
verify("shuffling tokens and positions alike shuffles the result, nothing else", both_shuffled, shuffled(with_places),
       tol=1e-5)  # fmt: skip

# %% [markdown]
# Everything that a U-Net knows by construction (up, down, near, far) this network has to be *told*, by 16 vectors
# that are added to the tokens, and has to learn to use. That sounds like a reason to stay with the U-Net. This
# lecture is about what one gets in return.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1 · Play

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Leave the widget alone at first and go on to the three questions: two minutes in silence, a show of hands for each,
# then press once more for the numbers (4.08 times the cost, the same parameters) and open the answers.
#
# Back to the widget, network XL: patch 4 costs 29.04 billion multiply-adds, patch 2 costs 118.6, of which pairs of
# tokens are 3.6 %. Let the class hunt for a setting in which pairs are the larger part. There is exactly one: S,
# patch 2, 1024 x 1024 (64 %); XL there is at 37 %. Last, take the digit with patch 8: one token, nobody left to
# attend to.
# </details>

# %%
widgets.patch_explorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. Halve the patch side. What happens to the number of tokens, to the cost of one evaluation, to the number of
#    parameters?
# 2. Pick one token and shuffle all the others (with their positions). Does its output change?
# 3. Stack 28 untrained blocks. What comes out of the last one?
#
# <details><summary>Answers</summary>
#
# 1. Four times the tokens; about four times the cost (XL: 3.93 from patch 8 to 4, 4.08 from 4 to 2); the parameters
#    stay within one percent. So the patch size is a dial for compute that leaves the model's size alone.
# 2. No. Attention sums over a set; the order of the terms does not matter.
# 3. What went in, to the last bit: every branch passes a gate, and all gates start at zero.
# </details>


# %% slideshow={"slide_type": "fragment"}
@functools.cache
def on_paper(name, side=32):
    """Parameters and multiply-adds of a published network, on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        net = nets.dit_network(name, size=side)
        return nets.parameter_count(net), nets.multiply_adds(net, torch.zeros(1, 4, side, side), torch.zeros(1))


(p4, c4), (p2, c2) = on_paper("XL/4"), on_paper("XL/2")
print(f"XL/4 to XL/2: tokens x 4, multiply-adds x {c2 / c4:.2f}, parameters x {p2 / p4:.5f}")
verify_less("from patch 4 to patch 2: a little more than 4 times the cost", 4.0, c2 / c4)
verify("and leaves the parameters where they were", p2 / p4, 1.0, tol=0.005)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Intuition, and where each picture breaks
#
# ### "A picture is a sentence of patches"
# Tokens in, tokens out, all of one width: everything that was learned about language models in ten years applies.
# **Where it breaks.** A sentence is read in order and its words are discrete. Patches are real vectors, all denoised
# at once, and they have *two* coordinates. And nobody tells the network that the neighbour of a patch matters more
# than a patch in the corner. A convolution knows that without training: below, for one output pixel, how much each
# input pixel matters, in three *untrained* networks.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# The three networks are *untrained*: this is what they take for near before they have seen a picture. Ask why six
# convolutions hardly use the rim of their square (few paths lead there), and what the third network has to learn that
# the second is given.
#
# Common question: "so a DiT needs more data?" Answer: plausible, but not what is measured here. If somebody says that
# a convolution cannot know where it is: zero padding tells it; the check is in the notebook. Two more analogies are
# skipped, the dictionary and the mixing desk; use them at 3.6 and 3.4.
# </details>


# %% slideshow={"slide_type": "skip"}
def influence(make, side=16, draws=40):
    """Root mean square of d(middle output pixel)/d(input pixel), over random networks and inputs."""
    total = torch.zeros(side, side)
    for seed in range(draws):
        torch.manual_seed(seed)
        net, x = make(), torch.randn(1, 1, side, side).requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(net(x)[0, 0, side // 2, side // 2], x)
        total += g[0, 0] ** 2
    return (total / total.max()).sqrt()


def convolutions(depth):
    widths = [1, *[16] * (depth - 1), 1]
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*[layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.SiLU())][:-1])


def one_attention(side=16, dim=32):
    embed, mix, out = nn.Linear(4, dim), nets.MultiHeadAttention(dim, 4), nn.Linear(dim, 4)
    places = nets.positions_2d(side // 2, side // 2, dim)
    return lambda x: nets.unpatchify(out(mix(embed(nets.patchify(x, 2)) + places)), 2, side)


# %%
makers = {
    "1 convolution": lambda: convolutions(1),
    "6 convolutions": lambda: convolutions(6),
    "1 attention, patch 2": one_attention,
}
maps = {name: influence(make) for name, make in makers.items()}
with viz.style():
    figure, axes = viz.panels(1, 3, size=(10, 3.7), sharey=True)
for ax, (name, m) in zip(axes, maps.items(), strict=True):
    image = ax.imshow(m.clamp(min=1e-4).log10(), cmap="cividis", vmin=-3, vmax=0)
    ax.set(title=name, xlabel="column (pixels)")
    ax.grid(visible=False)
axes[0].set_ylabel("row (pixels)")
figure.colorbar(image, ax=axes, label=r"$\log_{10}$ influence (largest = 0)")
viz.show(
    figure,
    caption="What the pixel at (8, 8) depends on before any training. Six convolutions reach six pixels, and hardly use "
    "the outer ones; one attention layer reaches everything, and prefers nothing but its own patch.",
    alt="Three maps: a 3x3 square, a blurred blob of 13x13 pixels, and a full square of even colour with one bright patch.",
)
reach = {name: (m > 0).double().mean().item() for name, m in maps.items()}
verify("six 3x3 convolutions reach a square of 13 x 13", reach["6 convolutions"], 13**2 / 256, tol=1e-9)
verify("one attention layer reaches every pixel", reach["1 attention, patch 2"], 1.0, tol=0)

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that a convolutional network is translation-invariant and so cannot know where it is.* A convolution
# is **equi**variant (shift in, shift out), and only as long as nothing marks the border. Zero padding does:

# %% slideshow={"slide_type": "skip"}
torch.manual_seed(0)
net, x = convolutions(6), torch.randn(1, 1, 16, 16, generator=seeded(3))
moved_result, result_of_moved = net(x).roll(4, dims=-1), net(x.roll(4, dims=-1))
verify_less("zero padding: the border is noticed", 0.2 * net(x).std(), (moved_result - result_of_moved).abs().max())
for layer in net:
    if isinstance(layer, nn.Conv2d):
        layer.padding_mode = "circular"
        layer._reversed_padding_repeated_twice = [1, 1, 1, 1]
verify("on a torus, without border: shift in, shift out", net(x).roll(4, -1), net(x.roll(4, -1)), tol=1e-5)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### "Attention is a dictionary that answers softly"
# Every token asks a question $q$, every token offers a key $k$ and an answer $v$; the better key and question agree,
# the larger the share of its answer. **Where it breaks.** In a wide space the dictionary turns hard or deaf: random
# keys agree *by chance*, more so the wider they are. Section 3.6 derives the cure, and shows a popular cure that
# makes the dictionary give every key nearly the same share.
#
# ### "Modulation is a mixing desk"
# The condition (time, class, caption) moves three sliders per channel in front of and behind every branch: shift,
# scale, gate. **Where it breaks.** The desk is the same for all tokens: it can say *what* and *how noisy*, never
# *where*. That is why a caption with two things in it needs attention to the words (Section 3.9), and an edge map
# needs a branch of its own (Section 3.13).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Mathematics
# ### 3.1 Patchify is a strided convolution
# Cut a latent of $C\times H\times W$ numbers into $N=\frac Hp\cdot\frac Wp$ patches, write each as a vector of $p^2C$
# numbers, multiply by a matrix: the same as a convolution with kernel $p$ and stride $p$.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 7 min</summary>
#
# Before this slide, ask for the number of tokens of DiT-XL/2 at 256 x 256 pixels; half a minute with a pencil. It is
# 256; who says 16,384 forgot that the network sees latents 32 wide. Unfold the code: the reshape to six axes is the
# only hard line, and the last check shows that a wrong order of channels raises no error, only a scrambled picture.
#
# Eq. 1: write $3+1+8=12$ on the board, term by term, then ask from which $N$ on attention costs more. Divide: $N=6D$.
# In the plot, put a finger on XL/2 (3.6 % quadratic) and on 512 pixels (12.9 %). Common question: "why then all the
# talk about quadratic attention?" Because of memory (3.7), and because it comes nearer in large pictures: 37 % at
# 1024 pixels.
# </details>


# %%
def patchify(x, p):
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // p, p, w // p, p)  # cut both sides: rows of patches, rows within a patch, ...
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // p) * (w // p), p * p * c)  # (row, column, channel)


x = torch.randn(2, 4, 32, 32, generator=seeded(0))
linear = nn.Linear(2 * 2 * 4, 96)
kernel = linear.weight.reshape(96, 2, 2, 4).permute(0, 3, 1, 2)  # the same numbers in a convolution's order
convolved = F.conv2d(x, kernel, linear.bias, stride=2).flatten(2).mT
verify("patchify by hand is the library's", patchify(x, 2), nets.patchify(x, 2), tol=0)
verify("unpatchify is its exact inverse", nets.unpatchify(patchify(x, 2), 2, 32), x, tol=0)
verify("patchify and a linear layer = a convolution of stride 2", linear(patchify(x, 2)), convolved, tol=1e-5)
wrong = nets.unpatchify(F.unfold(x, 2, stride=2).mT, 2, 32)  # a convolution's order is (channel, row, column)
verify_less("mixing the two orders of channels scrambles the picture, silently", 1.0, (wrong - x).abs().max())

# %% [markdown]
# *You may read that DiT-XL/2 works on 16,384 tokens.* Pictures of $256\times256$ pixels have latents of
# $32\times32\times4$ (Lecture 1); patch 2 leaves $16\times16$.

# %%
for p in (8, 4, 2):
    print(f"patch {p}: {patchify(x, p).shape[1]:4d} tokens of {p * p * 4:3d} numbers each")
verify("DiT-XL/2 at 256 x 256 pixels: tokens", patchify(x, 2).shape[1], 256, tol=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What a token costs
# Count the multiply-adds of one block. Queries, keys, values: $3ND^2$. Output projection: $ND^2$. The MLP with its
# hidden width $4D$: $8ND^2$. Scores and weighted sum: $N^2D$ each. The modulation is made once per picture: $6D^2$.
# $$\text{one block}=\underbrace{12\,ND^2}_{\text{linear in tokens}}+\underbrace{2\,N^2D}_{\text{quadratic}}+6D^2.
# \tag{1}$$
# The two are equal at $N=6D$. For DiT-XL ($D=1152$) that is 6912 tokens; at 256 tokens nearly everything is linear.

# %%
N, D, L = 256, 1152, 28
linear_part, quadratic_part, modulation_part = (L * part for part in (12 * N * D**2, 2 * N**2 * D, 6 * D**2))
blocks = linear_part + quadratic_part + modulation_part
rest = N * 16 * D + N * D * 32 + (256 * D + D * D) + 2 * D * D  # patches in and out, time, last modulation
verify("Eq. 1 and the ends = what a profiler counts in DiT-XL/2", blocks + rest, on_paper("XL/2")[1], tol=0)
share = quadratic_part / (linear_part + quadratic_part)
print(f"linear {linear_part / 1e9:.2f} G, quadratic {quadratic_part / 1e9:.2f} G: {share:.1%} of both")
verify("the quadratic part of DiT-XL/2 at 256 tokens is 3.6 %", share, 0.036, tol=5e-4)

# %% slideshow={"slide_type": "skip"}
tokens = 2.0 ** torch.arange(4, 15.01, 0.25)
parts = (28 * 12 * tokens * D**2 / 1e9, 28 * 2 * tokens**2 * D / 1e9)
figure = viz.sweep(
    tokens,
    [
        viz.Line("linear: projections and MLP", parts[0], look={"color": viz.DATA, "marker": ""}),
        viz.Line("quadratic: attention", parts[1], look={"color": viz.GUIDED, "linestyle": "--", "marker": ""}),
        viz.Line("both", parts[0] + parts[1], look={"color": viz.EXACT, "linewidth": 1.2, "marker": ""}),
    ],
    xlabel="tokens N",
    ylabel="multiply-adds per evaluation (10⁹)",
    log_x=True,
    log_y=True,
    title="The width and depth of DiT-XL at any number of tokens",
)

# %% slideshow={"slide_type": "slide"}
for n, name, height in ((16, "XL/8", 7.4), (64, "XL/4", 29), (256, "XL/2", 118.6), (1024, "XL/2\n512 pixels", 525)):
    figure.axes[0].plot(n, height, "o", color=viz.EXACT)
    where = {"xytext": (-3, 8), "ha": "right"} if "512" in name else {"xytext": (3, -8), "va": "top"}
    figure.axes[0].annotate(name, (n, height), textcoords="offset points", fontsize=10, **where)
figure.axes[0].axvline(6 * D, color=viz.NOISE, linewidth=1)
figure.axes[0].annotate("N = 6 D", (6 * D, 0.03), xytext=(-6, 0), textcoords="offset points", ha="right", fontsize=10)
viz.show(
    figure,
    caption="Attention overtakes the rest at 6912 tokens. Below a thousand, 'attention is quadratic' is true and "
    "beside the point.",
    alt="Two straight lines in a double-logarithmic plot, slopes one and two, crossing at 6912 tokens.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that cost goes as $p^{-4}$, so doubling the patch side costs a sixteenth.* Only the pairs of
# tokens do, the last but one term of Eq. 1.
# *Or that a picture costs $c^2$ times as much as a latent with $c$ times fewer channels.* Cost follows tokens and width,
# not the numbers in a patch.

# %% slideshow={"slide_type": "skip"}
cost = {p: on_paper(f"XL/{p}")[1] for p in (8, 4, 2)}
print(f"XL/8 to XL/4: x {cost[4] / cost[8]:.2f};   XL/4 to XL/2: x {cost[2] / cost[4]:.2f};   never 16")
verify("the paper's ratios", [cost[4] / cost[8], cost[2] / cost[4]], [29.05 / 7.39, 118.64 / 29.05], tol=0.01)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.2 Where a token stands
# DiT adds a fixed table. Along one axis a place $p$ becomes $d/2$ sines, then $d/2$ cosines; two axes take half of
# the width each, here the row first (the published code puts the column first; only the names of channels change):
# $$e(p)=\big[\sin p\omega_k\;\big\|\;\cos p\omega_k\big],\quad\omega_k=10000^{-k/(d/2)},\qquad
# \mathrm{PE}(i,j)=\big[e(i)\,\|\,e(j)\big].$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 9 min</summary>
#
# The one sentence: a table *adds* the place to the content, RoPE *turns* the content by it. At the clocks, say that
# the longest hand turns by one radian per place, and ask where it stands at place 6. Nearly where it began (6 of
# 6.28): the slower hands must tell the two apart. On the slide of checks, name two: both tokens moved alike, same
# score; places exchanged, another score. If late, skip it.
#
# Widget: move the column from 2 to 5; the maps of sin-cos and RoPE travel unchanged, the learned one does not. RoPE's
# content, seed 1: a query no longer fits its own place best, content decides. Grid in use 16: sin-cos knows 64 of 256
# vectors, RoPE 52 % of the pairs. Hence the last slide; ask first which row will hold up. Neither does.
# </details>


# %%
def e(p, d):
    phase = p.double()[:, None] * 10000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / (d // 2))
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


i, j = torch.cartesian_prod(torch.arange(16), torch.arange(16)).unbind(1)  # 256 tokens, row by row
table = torch.cat([e(i, 384), e(j, 384)], dim=1)
gram = (table @ table.T).reshape(16, 16, 16, 16)
verify("the table by hand is the library's, for DiT-B", table, nets.positions_2d(16, 16, 768), tol=0)
verify("all positions have the same length: |PE|² = D/2", table.square().sum(1), 384, tol=1e-3)
verify("similarity depends on the displacement only", gram[2, 3, 7, 11], gram[6, 4, 11, 12], tol=1e-3)
closest = (torch.cdist(table, table) + 1e9 * torch.eye(256)).min() ** 2
verify_less("all 256 are well apart: smallest squared distance", 10, closest)

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that the fastest of these waves has a period of one patch and the slowest one of 10,000.* A wave
# $\sin p\omega$ has period $2\pi/\omega$:

# %% slideshow={"slide_type": "skip"}
omega = 10000.0 ** (-torch.arange(384, dtype=torch.float64) / 384)  # one axis of width 768
print(f"periods: {2 * math.pi / omega[0]:.2f} patches to {2 * math.pi / omega[-1]:,.0f} patches")
verify("the fastest period is 2 pi patches", 2 * math.pi / omega[0], 6.2832, tol=1e-4)
verify("the slowest, with 384 frequencies: 61,343 patches", 2 * math.pi / omega[-1], 61_343, tol=1)

# %% [markdown]
# Why sines *and* cosines? Because moving by $\delta$ is then a rotation of every pair $(\sin,\cos)$, whatever the
# place. A linear layer can learn "three to the right". SD3 keeps such a table for a large grid and serves every
# picture its **middle**; ViT **learns** one vector per place, and resamples them for another resolution.

# %%
delta = 3.0
sines, cosines = e(torch.arange(10), 768).double().split(384, dim=1)
moved = torch.cat([sines * (delta * omega).cos() + cosines * (delta * omega).sin(),
                   cosines * (delta * omega).cos() - sines * (delta * omega).sin()], dim=1)  # fmt: skip
verify("moving by 3 is the same rotation at every place", moved, e(torch.arange(10) + 3, 768), tol=1e-5)
big = nets.positions_2d(24, 24, 768)
crop = nets.cropped_positions(big, 16, 16)
verify("a crop keeps all similarities: it is the same table, moved", crop @ crop.T, table @ table.T, tol=2e-3)
verify_less("but its numbers are other ones", 1.0, (crop - table).abs().max())

# %% [markdown] slideshow={"slide_type": "slide"}
# ### RoPE: turning clocks
# The rotation can be put where it is needed: into queries and keys. Pair up their channels; the token at place $p$
# turns pair $k$ by the angle $p\,\omega_k$, like the hands of so many clocks:
# $$q\to R(p)\,q,\quad k\to R(p')\,k,\qquad\langle R(p)q,R(p')k\rangle=q^\top R(p'-p)\,k.\tag{2}$$
# Rotations of a plane commute and add up, hence $R(p)^\top R(p')=R(p'-p)$: scores see *displacements*, and values
# stay untouched. For two axes, row and column turn channels of their own.

# %%
with viz.style():
    figure, axes = viz.panels(1, 6, size=(10, 2.2))
hands, rim = nets.rotary_angles(torch.arange(6), 8, theta=200.0), torch.linspace(0, 2 * math.pi, 100)
for p, ax in enumerate(axes):
    ax.plot(rim.cos(), rim.sin(), color=viz.NOISE, linewidth=1)
    for k, colour in enumerate((viz.GUIDED, viz.DATA, viz.COND, viz.EXACT)):
        tip = (1 - 0.15 * k) * torch.stack([hands[p, k].cos(), hands[p, k].sin()])
        ax.plot([0, tip[0]], [0, tip[1]], color=colour, linewidth=2 + 0.6 * k)
    ax.set(title=f"place {p}", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    ax.axis("off")
viz.show(
    figure,
    caption="Four clocks per place, one for each pair of channels. The fast hand (longest) tells neighbours apart, the slow "
    "ones tell far from near. Between two places, all that counts is the angle between equal hands.",
    alt="Six clock faces with four hands each; the longest hand turns by one radian per place, the others slower.",
)


# %% slideshow={"slide_type": "slide"}
def turn(x, angles):
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(turned, dim=-1).flatten(-2)


rotary = nets.AxialRotary((8, 12, 12))


def score(q, k, at, there):
    """<R(at) q, R(there) k> with places (picture, row, column)."""
    angles = rotary(torch.tensor([at, there]))
    return (turn(q, angles[0]) * turn(k, angles[1])).sum()


# %%
q, k = torch.randn(2, 32, generator=seeded(5), dtype=torch.float64)
angles = rotary(torch.tensor([[0, 3, 9]]))
verify("turning by hand is nets.rotate", turn(q[None], angles), nets.rotate(q[None], angles), tol=1e-12)
verify("turning keeps lengths", turn(q[None], angles).norm(), q.norm(), tol=1e-12)
here = score(q, k, (0, 2, 3), (0, 7, 11))
verify(
    "Eq. 2: ten rows down, fourteen columns right, same score", score(q, k, (0, 12, 17), (0, 17, 25)), here, tol=1e-9
)
verify_less("another row distance, another score", 0.1, (score(q, k, (0, 3, 3), (0, 7, 11)) - here).abs())
verify_less("another column distance, another score", 0.1, (score(q, k, (0, 2, 4), (0, 7, 11)) - here).abs())
verify_less("the *signed* distance counts: not |p - p'|", 0.1, (score(q, k, (0, 7, 11), (0, 2, 3)) - here).abs())

# %% [markdown] slideshow={"slide_type": "skip"}
# Four ways to say "I am at row 5, column 10 of 16", seen by everybody else:

# %% slideshow={"slide_type": "skip"}
at = 5 * 16 + 10
learned = nets.LearnedPositions(16, 16, 768)
rope_angles = nets.AxialRotary((32, 32))(nets.grid_positions(16, 16))
turned = nets.rotate(torch.ones(256, 64), rope_angles)  # a token that asks for its like
coarse = nets.cropped_positions(nets.positions_2d(192, 192, 768, spacing=64 / 192), 16, 16)
tables = {
    "sin-cos (DiT)": table,
    "crop of 192 x 192 (SD3)": coarse,
    "learned, at birth": learned(16, 16),
    "RoPE": turned,
}
with viz.style():
    figure, axes = viz.panels(1, 4, size=(11.4, 3.3), sharey=True)

# %% slideshow={"slide_type": "skip"}
for ax, (name, vectors) in zip(axes, tables.items(), strict=True):
    similarity = F.cosine_similarity(vectors, vectors[at : at + 1])
    image = ax.imshow(similarity.reshape(16, 16), cmap="cividis", vmin=0, vmax=1)
    ax.set(title=name, xlabel="column (tokens)")
    ax.grid(visible=False)
axes[0].set_ylabel("row (tokens)")
figure.colorbar(image, ax=axes, label="cosine similarity")
viz.show(
    figure,
    caption="Crosses (first and last): one axis for rows, one for columns, each with its own clocks. SD3's has its neighbours "
    "a third apart, so everything looks close. Learned vectors know nothing until they are trained.",
    alt="Four similarity maps of a 16 by 16 grid: a cross, a nearly even bright map, noise with one bright cell, a cross.",
)

# %% slideshow={"slide_type": "skip"}
verify_less("nearer is more alike along a row", (table[at] * table[at + 3]).sum(), (table[at] * table[at + 1]).sum())

# %% slideshow={"slide_type": "slide"}
widgets.position_explorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# **The same network at another resolution.** The digits' network knows a grid of $4\times4$ tokens. Ask it for
# $6\times6$, without training: positions can be *continued* beyond the table (places $0\dots5$) or *stretched* to the
# known range ($0,\tfrac35,\tfrac65,\dots$).


# %%
def at_size(side, places):
    """The trained network on a larger picture, with a table of positions for it."""
    bigger = nets.DiT(side, 1, dim=96, depth=4, heads=4, ratio=3.0, condition=nets.LabelEmbedding(10, 96))
    weights = model.network.state_dict() | {"positions": places}
    bigger.load_state_dict(weights)
    other = copy.deepcopy(model)
    other.network = bigger
    x_T = torch.randn(10, 1, side, side, generator=seeded(4))
    return last(sample(other.given(labels), other.path, Heun(), grid, x_T))


continued = at_size(12, nets.positions_2d(6, 6, 96))
stretched = at_size(12, nets.positions_2d(6, 6, 96, spacing=3 / 5))
verify(
    "at its own size this is the network itself",
    at_size(8, nets.positions_2d(4, 4, 96)),
    last(sample(model.given(labels), model.path, Heun(), grid, torch.randn(10, 1, 8, 8, generator=seeded(4)))),
    tol=2e-3,
)  # fmt: skip  (the zoo keeps its tables in half precision)
viz.show(
    viz.image_grid(torch.cat([continued, stretched]), columns=10, scale=6, row_labels=["continued", "stretched"]),
    caption="Twelve pixels wide, from a network that was trained on eight. Continued: a thing like a digit in the known "
    "columns, drawn out to the bottom, dark on the right. Stretched: the layout of a digit, in patches that do not fit. "
    "That sines can be continued "
    "is a statement about the formula, not about a network that learned to read sixteen of its values.",
    alt="Two rows of ten generated pictures of 12 by 12 pixels, mostly broken digits.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.3 Time and class become one vector
# The network time $\tau=1000\,t$ becomes 256 waves $[\cos\tau\omega_k\|\sin\tau\omega_k]$ and passes a small MLP; the
# class is a row of a table with one row more than there are classes, the null class of guidance. Their **sum**
# $c=e_t(\tau)+e_y(y)\in\mathbb R^D$ is all that the blocks hear.
#
# *You may read code that feeds $t\in[0,1]$ into the waves directly.* Then most waves hardly move:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 4 min</summary>
#
# The left picture is a bug that raises no error: the network hears nearly the same time everywhere ($t=0.1$ and
# $t=0.9$ have cosine 0.98; numerical rank 3 instead of 100). One minute, no more.
#
# Then unfold the block and walk along one branch with a finger: norm, scale and shift, attention, gate, add. The
# mixing desk fits here: six sliders per channel, the same for all tokens, so it can say *what* and *how noisy*, never
# *where*. Ask which of the six make a fresh block the identity. The two gates alone; shift and scale could be
# anything.
# </details>

# %%
times = torch.linspace(0.001, 1, 200)
features = {"t in [0, 1]": nets.timestep_features(times), "1000 t": nets.timestep_features(1000 * times)}
with viz.style():
    figure, axes = viz.panels(1, 2, size=(8.6, 3.8), sharey=True)
for ax, (name, f) in zip(axes, features.items(), strict=True):
    alike = F.normalize(f) @ F.normalize(f).T
    image = ax.imshow(alike, cmap="cividis", extent=(0, 1, 0, 1), origin="lower", vmin=-0.2, vmax=1)
    ax.set(title=f"features of {name}", xlabel="time t")
    ax.grid(visible=False)
axes[0].set_ylabel("time t")
figure.colorbar(image, ax=axes, label="cosine similarity")
viz.show(
    figure,
    caption="Left, all times look alike. Right, a time resembles its neighbours most, and far less what is farther away.",
    alt="Two similarity matrices: one uniformly bright, one with a bright diagonal.",
)
for name, f in features.items():
    print(f"{name:12s} numerical rank {int(torch.linalg.matrix_rank(f, rtol=1e-3))}")
early, late = (F.normalize(nets.timestep_features(s * torch.tensor([0.1, 0.9]))) for s in (1, 1000))
verify("unscaled, t = 0.1 and t = 0.9 are the same to 2 %", early[0] @ early[1], 0.982, tol=1e-3)
verify("scaled by 1000 they differ", late[0] @ late[1], 0.189, tol=2e-3)
verify("the class table has a row for the null class", model.network.condition.table.weight.shape[0], 10 + 1, tol=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.4 The block: adaLN-Zero
# A transformer block is two branches on a highway: attention mixes tokens, the MLP works on each of them. DiT takes
# the learned scale and shift out of both norms and makes them from the condition, with a third vector, the **gate**,
# behind each branch: six vectors of width $D$ from one linear layer.
# $$(b_1,s_1,g_1,b_2,s_2,g_2)=W\,\mathrm{SiLU}(c)$$
# $$x\leftarrow x+g_1\odot\mathrm{Attention}\big((1+s_1)\odot\mathrm{LN}(x)+b_1\big),\qquad
# x\leftarrow x+g_2\odot\mathrm{MLP}\big((1+s_2)\odot\mathrm{LN}(x)+b_2\big).\tag{3}$$
# $W$ starts at **zero**. The whole block, on one screen:


# %%
class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)  # no scale, no shift of its own
        self.attention = nets.MultiHeadAttention(dim, heads)  # taken apart in 3.6
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x, c):
        b1, s1, g1, b2, s2, g2 = self.modulation(F.silu(c))[:, None].chunk(6, dim=-1)  # (b, 1, D) each
        x = x + g1 * self.attention((1 + s1) * self.norm1(x) + b1)
        h = F.gelu(self.up((1 + s2) * self.norm2(x) + b2), approximate="tanh")
        return x + g2 * self.down(h)


# %%
torch.manual_seed(0)
mine, library = Block(96, 4), nets.DiTBlock(96, 4)
x, c = torch.randn(2, 16, 96), torch.randn(2, 96)
verify("a fresh block is the identity, bit for bit", mine(x, c), x, tol=0)
nn.init.normal_(mine.modulation.weight, std=0.1)  # as if trained
names = {"up.weight": "feed_forward.inner.weight", "up.bias": "feed_forward.inner.bias",
         "down.weight": "feed_forward.outer.weight", "down.bias": "feed_forward.outer.bias"}  # fmt: skip
library.load_state_dict({names.get(name, name): value for name, value in mine.state_dict().items()})
verify("with equal weights it is the library's block", mine(x, c), library(x, c), tol=1e-5)

# %% [markdown] slideshow={"slide_type": "slide"}
# A whole network of fresh blocks does nothing, and its last layer is zero too: the first prediction is exactly 0. So
# what learns at the first step? Follow the chain rule through Eq. 3: everything *inside* a branch is multiplied by
# its gate, which is 0. Only the last layer moves; then what it can hear, the gates and the patch
# embedding; then the rest.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 7 min</summary>
#
# With the block still on the screen, ask: all gates are zero, the last layer is zero; which weights have a gradient
# at step 1? Give a minute, take votes, go on, and press once more for the table. Most say "the gates". It is the last
# layer alone; then modulations and patch embedding; attention, MLP, time and class only at step 3. If late, skip the
# two recipes.
#
# Widget, block 1, $t=0.5$: shutting attention moves the prediction by 0.018, shutting feed-forward by 0.30. At
# $t=0.05$ the gate of feed-forward is wider, yet the same cut moves it by 0.04. Ask why: the clean digit is
# $x_t-t\,v$, and near data $v$ counts little. In the last table, costs are recounted and FID is the paper's: 118.6
# with and without gates, FID 19.5 with, 25.2 without.
# </details>

# %%
fresh = nets.DiT(8, 1, dim=96, depth=4, heads=4, condition=nets.LabelEmbedding(10, 96))
inputs = torch.randn(64, 1, 8, 8, generator=seeded(1)), torch.full((64,), 500.0), torch.arange(64) % 10
target = torch.randn(64, 1, 8, 8, generator=seeded(2))
tokens, c = fresh.enter(*inputs)
through = tokens
for block in fresh.blocks:
    through = block(through, c)
verify("four fresh blocks: the tokens leave as they came, bit for bit", through, tokens, tol=0)
verify("a fresh DiT predicts zero", fresh(*inputs), 0.0, tol=0)

# %% slideshow={"slide_type": "fragment"}
kinds = {"final.linear": "last layer", "modulation": "modulations (shift, scale, gate)", "attention": "attention",
         "feed_forward": "MLP", "embed": "patches in", "time": "time", "condition": "class"}  # fmt: skip
optimiser = torch.optim.SGD(fresh.parameters(), lr=0.3)
moved = []
for _ in range(3):
    with torch.enable_grad():
        (fresh(*inputs) - target).square().mean().backward()
    norms = dict.fromkeys(kinds.values(), 0.0)
    for name, p in fresh.named_parameters():
        kind = next(kinds[key] for key in kinds if key in name) if p.requires_grad else "patches in"
        norms[kind] += 0.0 if p.grad is None else p.grad.square().sum().item()
    moved.append({kind: n**0.5 for kind, n in norms.items()})
    optimiser.step()
    optimiser.zero_grad()
print(" " * 34, "step 1    step 2    step 3   (norm of the gradient)")
for kind in moved[0]:
    print(f"{kind:34s}" + "".join(f"{m[kind]:10.1e}" for m in moved))
silent = [kind for kind in moved[0] if moved[0][kind] == 0]
verify("at step 1 only the last layer hears anything", len(silent), len(moved[0]) - 1, tol=0)
verify("at step 2 attention and MLP are still deaf behind closed gates", [moved[1]["attention"], moved[1]["MLP"]], [0, 0],
       tol=0)  # fmt: skip
verify_less("at step 3 everybody has heard", 0, torch.tensor(list(moved[2].values())))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Two recipes that are not adaLN-Zero
# *You may read "scale $\gamma\odot\hat x+\beta$ with $\gamma$ initialised at zero, so that tokens keep mean 0 and
# variance 1".* Zero times anything has variance **0**. What is initialised at zero is the $s$ in $1+s$:

# %%
normed = F.layer_norm(torch.randn(4, 16, 96, generator=seeded(3)) * 5 + 2, (96,), eps=1e-6)
zero = torch.zeros(96)
verify("gamma = 0: variance 0, the token is gone", (zero * normed + zero).var(-1, unbiased=False), 0.0, tol=0)
verify("1 + s with s = 0: variance 1", ((1 + zero) * normed + zero).var(-1, unbiased=False), 1.0, tol=1e-5)

# %% [markdown]
# *You may read that zero shift and scale make the block the identity.* Without a gate they do so only if every bias
# is zero as well, and only because the signal is destroyed first (the recipe above). `AdaLNBlock` is the honest block
# without gates: it always does something.

# %%
ungated = nets.AdaLNBlock(96, 4)
nn.init.zeros_(ungated.modulation.weight)
nn.init.zeros_(ungated.modulation.bias)
verify_less("adaLN without gates is not the identity at birth", 0.1, (ungated(x, torch.randn(2, 96)) - x).abs().mean())
gamma_zero = library.feed_forward(0 * library.norm2(x))  # gamma = 0, beta = 0, no gate
verify_less("nor is the gamma = 0 recipe, once there is a bias", 0.01, gamma_zero.abs().max())

# %% slideshow={"slide_type": "slide"}
widgets.modulation_explorer()

# %% [markdown] slideshow={"slide_type": "skip"}
# What the digits' network has made of its gates (told no label): their mean size, block by block, from noise (right)
# to data (left).

# %% slideshow={"slide_type": "skip"}
net = model.network
times = torch.linspace(0, 1, 101)
c = net.time(1000 * times) + net.condition(None, 101)
gates = {}
for k, block in enumerate(net.blocks):
    parts = block.modulation(F.silu(c)).chunk(6, dim=-1)
    gates[k] = {"attention": parts[2].abs().mean(1), "MLP": parts[5].abs().mean(1)}
with viz.style():
    figure, axes = viz.panels(1, 2, size=(9.6, 3.8), sharey=True)
for ax, branch in zip(axes, ("attention", "MLP"), strict=True):
    lines = [viz.Line(f"block {k + 1}", gates[k][branch], look=viz.other(k) | {"marker": ""}) for k in gates]
    viz.sweep(times, lines, xlabel="time t (0 data, 1 noise)", ylabel="mean |gate|", title=f"{branch} gates", ax=ax)
viz.show(
    figure,
    caption="All started at zero. How much a branch may add depends on how noisy the picture is: close to clean data the MLPs "
    "open wide. The lab watches the gates open during training.",
    alt="Two panels of four curves each: mean absolute gate of attention and MLP branches against time.",
)
opened = torch.stack([g[branch] for g in gates.values() for branch in g])
verify_less("every gate has opened", 0.01, opened.mean(1))
verify_less("and every one moves with time", 0.01, opened.amax(1) - opened.amin(1))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.5 Four ways to tell a block what to draw
# | | how the condition enters | changes |
# |---|---|---|
# | in context | two more tokens, dropped at the end | nothing but the sequence |
# | cross-attention | a third branch reads the condition tokens | + attention, + norm |
# | adaLN | shift and scale of both norms | + a linear layer $D\to4D$ |
# | adaLN-Zero | the same and gates | + a linear layer $D\to6D$ |
#
# What each costs at the size of DiT-XL/2, recounted; FID as published (400,000 updates, no guidance):


# %%
def conditioned(block, container=None):
    with torch.device("meta"):
        make = nets.DiT if container is None else container
        size = nets.DIT_SIZES["XL"]
        net = make(32, 4, block=block, patch=2, dim=size.dim, depth=size.depth, heads=size.heads,
                   condition=nets.LabelEmbedding(1000, size.dim), out_channels=8)  # fmt: skip
        return nets.parameter_count(net), nets.multiply_adds(net, torch.zeros(1, 4, 32, 32), torch.zeros(1))


ways = {  # name: counts, published multiply-adds (10^9), published FID
    "in context": (conditioned(nets.InContextBlock, nets.TokenDiT), 119.4, 35.24),
    "cross-attention": (conditioned(nets.CrossAttentionBlock, nets.TokenDiT), 137.6, 26.14),
    "adaLN": (conditioned(nets.AdaLNBlock), 118.6, 25.21),
    "adaLN-Zero": (conditioned(nets.DiTBlock), 118.6, 19.47),
}
for name, ((p, m), said, fid) in ways.items():
    print(
        f"{name:16s} {p / 1e6:6.1f} M parameters {m / 1e9:7.2f} G multiply-adds (paper: {said:5.1f})   FID {fid:5.2f}"
    )

costs = [m / 1e9 for (_, m), _, _ in ways.values()]
verify(
    "multiply-adds: what the paper writes, within one unit of its last digit",
    costs,
    [said for _, said, _ in ways.values()],
    tol=0.06,
)
verify_less("the gates' 74 million parameters cost hardly any arithmetic", costs[3] / costs[2], 1.001)

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that DiT concatenates time and class into one long vector.* It adds them (3.3); only the in-context
# and cross-attention variants keep them apart, as two tokens. All four blocks are in `lecture_lib.nets`;
# the lab trains the last one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.6 Attention, and why the root of $d$
# $$\mathrm{Attention}(Q,K,V)=\mathrm{softmax}\Big(\frac{QK^\top}{\sqrt d}\Big)V.\tag{4}$$
# Let the $d$ entries of $q$ and $k$ be independent with mean 0 and variance 1. Each product $q_ik_i$ has mean 0 and
# variance 1, so $q\cdot k$ has variance $d$: without the root, logits grow with the head's width, and the softmax
# turns into an argmax of *random* agreement, whose gradient goes to zero.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Before this slide, ask for the standard deviation of $q\cdot k$ at $d=64$: 8. Next slide: without the root a query
# at $d=512$ listens to 1.3 of 256 random keys, with it to about 160 at every width. Stress that this is about
# *initialisation*. If somebody says that a logit of 8 is one-hot anyway: 0.999 among 3 keys, but 0.42 among 4096.
#
# Before QK-norm, collect guesses: one of 4096 keys equals the query; which share does it get if both have length 1?
# 0.028 %, and uniform is 0.024 %: its logit is 1/8. With the root mean square it is 8, and the share 31 %. Common
# question: "why still divide by $\sqrt d$?" Because now $|q|=\sqrt d$, and $q\cdot k$ can be as large as $d$.
# </details>


# %%
def attention(q, k, v):
    weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
    return weights @ v


def multi_head(x, layer, heads=4):
    b, n, D = x.shape
    q, k, v = layer.qkv(x).reshape(b, n, 3, heads, D // heads).permute(2, 0, 3, 1, 4)  # (b, heads, n, D/heads) each
    return layer.out(attention(q, k, v).transpose(1, 2).reshape(b, n, D))


layer, x = nets.MultiHeadAttention(96, 4), torch.randn(2, 16, 96, generator=seeded(1))
verify("multi-head attention in four lines is the library's", multi_head(x, layer), layer(x), tol=1e-5)
q, k, v = torch.randn(3, 1, 1, 4000, 64, generator=seeded(2))
verify("the variance of q·k is d", ((q * k).sum(-1)).var() / 64, 1.0, tol=0.1)

# %% slideshow={"slide_type": "skip"}
widths, entropies, slopes = (
    [8, 16, 32, 64, 128, 256, 512],
    {"1 / sqrt d": [], "no scale": []},
    {"1 / sqrt d": [], "no scale": []},
)
for d in widths:
    q, k = torch.randn(2, 200, d, generator=seeded(d)), torch.randn(256, d, generator=seeded(d + 1))
    for name, factor in (("1 / sqrt d", d**-0.5), ("no scale", 1.0)):
        p = torch.softmax(factor * q[0] @ k.T, dim=-1)
        entropies[name].append((-(p * p.clamp(min=1e-30).log()).sum(-1)).exp().mean().item())
        slopes[name].append((p * (1 - p)).sum(-1).mean().item())  # trace of the softmax's Jacobian
# %% slideshow={"slide_type": "slide"}
figure = viz.sweep(
    widths,
    [viz.Line("divided by $\\sqrt{d}$", entropies["1 / sqrt d"]), viz.Line("not divided", entropies["no scale"])],
    xlabel="width of a head, d (channels)",
    ylabel="keys in effect (exp of entropy)",
    log_x=True,
    log_y=True,
    title="How many of 256 random keys a query listens to",
)
viz.show(
    figure,
    caption="With the root, a fresh query averages over about 160 keys at any width. Without it, a wide head has picked one "
    "by chance.",
    alt="Two curves against head width: one flat near 160, the other falling from 30 to 1.",
)
verify(
    "with the root: the same at every width", max(entropies["1 / sqrt d"]) / min(entropies["1 / sqrt d"]), 1, tol=0.2
)
verify_less("without it: one key, at d = 512", entropies["no scale"][-1], 1.6)
verify_less("and with it the gradient goes", slopes["no scale"][-1], 0.2 * slopes["1 / sqrt d"][-1])

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that softmax(8, 0, 0, ...) is one-hot, so dividing is a mathematical necessity.* It depends on how
# many zeros there are, and the argument above is about *initialisation*: trained $q$ and $k$ are not independent (μP
# even divides by $d$ where heads grow; in the lab they do not). And *multi-head attention is a free lunch*? The
# products cost the same; the maps do not.

# %% slideshow={"slide_type": "skip"}
for n in (3, 256, 4096):
    print(f"one logit of 8 among {n:4d}: probability {math.exp(8) / (math.exp(8) + n - 1):.3f}")
verify("of 4096 keys, the one with logit 8 gets 42 %", math.exp(8) / (math.exp(8) + 4095), 0.421, tol=1e-3)
x = torch.randn(1, 256, 96, generator=seeded(4))
with torch.device("meta"):
    macs = [nets.multiply_adds(nets.MultiHeadAttention(96, h), torch.zeros(1, 256, 96)) for h in (1, 16)]
verify("1 head or 16: the same multiply-adds", macs[0], macs[1], tol=0)
print(f"numbers in the maps: {256 * 256:,} with one head, {16 * 256 * 256:,} with sixteen")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### QK-norm
# Trained logits can still run away: let all activations grow by a factor and the logits grow by its square. SD 3.5
# and FLUX divide queries and keys by their root mean square, with a learned gain per channel:
# $$\hat q=g_q\odot\frac{q}{\mathrm{rms}(q)},\quad\hat k=g_k\odot\frac{k}{\mathrm{rms}(k)},\qquad
# \Big|\frac{\hat q\cdot\hat k}{\sqrt d}\Big|\le\sqrt d\,\max|g_qg_k|.$$
# *You may read a version with $q/\|q\|$ and $k/\|k\|$ and the same $\sqrt d$.* Then logits lie in $\pm1/\sqrt d$, and
# no key, however well it matches, can get more than $e^{2/\sqrt d}$ times the share of any other:


# %%
def rms_norm(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


d, n = 64, 4096
keys = torch.randn(n, d, generator=seeded(6))
query = keys[0]  # a key that matches perfectly: the dictionary should find it
norm = nets.QKNorm(d)
hand, lib = (rms_norm(query), rms_norm(keys)), norm(query[None], keys)
verify("QK-norm by hand is the library's", hand[1], lib[1], tol=1e-6)
shares = {}
for name, f in {"plain": lambda x: x, "rms": rms_norm, "l2": F.normalize}.items():
    shares[name] = torch.softmax(f(query[None])[0] @ f(keys).T / d**0.5, dim=-1)
    p = shares[name]
    print(f"{name:6s} the match gets {p[0]:.2e}, the average key {1 / n:.2e}")
verify_less("rms: the match is found among 4096 keys", 0.2, shares["rms"][0])
verify_less("l2: it gets hardly more than its uniform share", shares["l2"][0], 1.2 / n)
verify_less("l2: the largest share is at most exp(2 / sqrt d) times the least", shares["l2"].max() / shares["l2"].min(),
            math.exp(2 / d**0.5))  # fmt: skip

# %% slideshow={"slide_type": "slide"}
growth = torch.tensor([1.0, 2, 4, 8, 16, 32])
q, k = torch.randn(2, 200, d, generator=seeded(7))
logits = {name: [(f(a * q) @ f(a * k).T / d**0.5).abs().max() for a in growth] for name, f in
          {"plain": lambda x: x, "rms": rms_norm, "l2": F.normalize}.items()}  # fmt: skip
lines = [viz.Line("plain", logits["plain"], look={"color": viz.GUIDED}),
         viz.Line("QK-norm (root mean square)", logits["rms"], look={"color": viz.COND, "marker": "s"}),
         viz.Line("divided by the length (l2)", logits["l2"], look={"color": viz.NOISE, "linestyle": ":"})]  # fmt: skip
viz.show(
    viz.sweep(growth, lines, xlabel="activations times", ylabel="largest |logit|", log_x=True, log_y=True,
              references={"bound: square root of d": d**0.5}, title="Logits when activations grow"),
    caption="Plain logits grow with the square of the activations. QK-norm does not move, below its bound; the l2 version "
    "does not move either, at a height where softmax is flat.",
    alt="Three curves: a straight line rising, a flat one below the dashed bound at 8, a flat one near 0.07.",
)  # fmt: skip
verify_less("QK-norm keeps |logit| below sqrt(d)", torch.stack(logits["rms"]), d**0.5)
verify("plain logits grow with the square", logits["plain"][-1] / logits["plain"][0], 32.0**2, tol=0.1)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.7 Attention without the matrix: the online softmax
# At 4096 tokens a map has 16.8 million numbers, *per head*: 24 heads in half precision are 805 MB for one layer. None
# of them is needed for longer than a moment. A query reads its keys tile by tile and remembers three things: the
# largest logit $m$, the sum $\ell=\sum_je^{s_j-m}$, and $o=\sum_je^{s_j-m}v_j$. The next tile brings
# $$m'=\max(m,\max_js_j),\quad\ell'=e^{m-m'}\ell+\sum_je^{s_j-m'},\quad o'=e^{m-m'}o+\sum_je^{s_j-m'}v_j.\tag{5}$$
# At the end $o/\ell$ is the softmax average: exactly, because a common factor $e^{-m}$ cancels. Numbers moving:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Check the 805 MB with the class ($24\times4096^2\times2$ bytes), then do the third row of the printed table on the
# board: the maximum jumps from 3 to 6, old sums shrink by $e^{-3}=0.0498$, and
# $\ell=0.0498\cdot1.5853+1.0067=1.0857$.
#
# Ask what happens if $\ell$ is rescaled and $o$ is not: the answer is off by 1.36, without any warning. The
# misconception is "FlashAttention approximates": all tiles agree with the whole map to about $10^{-15}$. Nor does it
# save arithmetic, but memory and traffic: from 1024 to 2048 tokens the whole map grows with $N^{2.00}$, the tiles
# with $N^{0.47}$.
# </details>

# %%
s = torch.tensor([1.0, 3.0, 0.5, 2.0, 6.0, 1.0, 4.0, 5.0])  # eight logits of one query
v = torch.arange(8.0)[:, None]  # and the values it averages
m, l, o, careless = torch.tensor(-torch.inf), torch.tensor(0.0), torch.zeros(1), torch.zeros(1)
print("tile        logits     shrink       m         l         o     o / l")
for tile in range(4):
    part, values = s[2 * tile : 2 * tile + 2], v[2 * tile : 2 * tile + 2]
    m_new = torch.maximum(m, part.max())
    shrink, weights = (m - m_new).exp(), (part - m_new).exp()
    l, o, careless = shrink * l + weights.sum(), shrink * o + weights @ values, careless + weights @ values
    m = m_new
    print(f"{tile}      {part[0]:4.1f} {part[1]:4.1f} {shrink:10.4f} {m:7.1f} {l:9.4f} {o[0]:9.4f} {o[0] / l:9.4f}")
exact = torch.softmax(s, 0) @ v
verify("Eq. 5 after the last tile is the softmax average", o / l, exact, tol=1e-6)
verify_less("forget to shrink the old sums in o, and it is not", 0.1, (careless / l - exact).abs())

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that the recurrence is about $m$ and $\ell$, and that a safe softmax takes two passes.* Maximum, sum,
# division: three. With $m$ and $\ell$ online: two. One pass needs the third line of Eq. 5, the rescaled **output**;
# leave the rescaling out and the result is wrong, as above. With queries cut into tiles too, this is FlashAttention:


# %%
def tiled(q, k, v, tile=64):
    out = torch.empty_like(q)
    for rows in range(0, q.shape[-2], tile):
        seen = nets.Seen.nothing(*q[..., rows : rows + tile, :].shape, like=q)
        for cols in range(0, k.shape[-2], tile):
            s = q[..., rows : rows + tile, :] @ k[..., cols : cols + tile, :].mT / q.shape[-1] ** 0.5
            seen = nets.online_softmax(seen, s, v[..., cols : cols + tile, :])  # Eq. 5
        out[..., rows : rows + tile, :] = seen.output()
    return out


q, k, v = torch.randn(3, 1, 4, 300, 32, generator=seeded(8), dtype=torch.float64)
whole = nets.explicit_attention(q, k, v)
for tile in (7, 64, 300):
    verify(f"tiles of {tile}: the same numbers", tiled(q, k, v, tile), whole, tol=1e-12)
verify("and the library's, with its own backward pass", nets.tiled_attention(q, k, v, tile=64), whole, tol=1e-12)
verify("huge logits do not overflow", tiled(100 * q, k, v), nets.explicit_attention(100 * q, k, v), tol=1e-10)

# %% slideshow={"slide_type": "slide"}
lengths, peaks = [256, 512, 1024, 2048], {"the whole map": [], "tiles of 128": []}
for n in lengths:
    q, k, v = torch.randn(3, 1, 1, n, 32, generator=seeded(0))
    for name, kernel in (("the whole map", nets.explicit_attention), ("tiles of 128", nets.tiled_attention)):
        peaks[name].append(nets.peak_memory(functools.partial(kernel, q, k, v)) / 2**20)
looks = ({"color": viz.GUIDED}, {"color": viz.COND, "marker": "s"})
lines = [viz.Line(name, y, look=look) for (name, y), look in zip(peaks.items(), looks, strict=True)]
figure = viz.sweep(lengths, lines, xlabel="tokens", ylabel="peak memory (MiB)", log_x=True, log_y=True,
                   title="Memory of one attention head, measured")  # fmt: skip
figure.axes[0].set_xticks(lengths, [str(n) for n in lengths])
figure.axes[0].minorticks_off()
viz.show(
    figure,
    caption="Twice the tokens: four times the memory for the whole map, at most twice for tiles.",
    alt="Two lines in a double-logarithmic plot; the upper one has slope two, the lower one slope below one.",
)
growth = {name: math.log2(y[-1] / y[-2]) for name, y in peaks.items()}
print({name: f"memory ~ tokens^{g:.2f}" for name, g in growth.items()})
verify("the whole map: quadratic", growth["the whole map"], 2.0, tol=0.1)
verify_less("tiles: at most linear", growth["tiles of 128"], 1.1)

# %% [markdown]
# Tiling saves *memory and traffic*, not arithmetic, and pays when maps are large. *You may read that DiT-XL/2 cannot
# be trained without FlashAttention.* The published code was: at 256 tokens the maps are 3.6 % of the work (3.1).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.8 The family
# Four widths, three patch sizes, twelve networks (Peebles & Xie 2023, tables 1 and 4). Nothing stops us from counting
# all of them: on the meta device a network has shapes and no numbers.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Read three rows only, XL/8, XL/4, XL/2: the same parameters to a tenth of a percent, FID 106, 43, 19. Whoever
# compares the paper's 119 "Gflops" with a data sheet is off by two: 237 billion operations. At the table, ask what
# FID follows, parameters or compute; a show of hands before you go on.
#
# The pair to point at: S/2 and B/4, 33 and 130 million parameters, nearly equal compute, FID 68.40 and 68.38. Common
# question: "compute in training, or per picture?" All twelve had 400,000 updates, so both grow together, and this
# plot cannot tell them apart. Nor does it say that U-Nets stop improving.
# </details>

# %%
counts = {name: on_paper(name) for name in nets.DIT_REPORTS}
print("name     tokens  parameters    multiply-adds   paper's Gflops    FID at 400k")
for name, (p, m) in counts.items():
    report = nets.DIT_REPORTS[name]
    print(
        f"DiT-{name:4s} {(32 // int(name[-1])) ** 2:5d} {p:12,d} {m / 1e9:12.2f} G {report.gflops:14.2f} {report.fid:14.2f}"
    )
ratios = [m / 1e9 / nets.DIT_REPORTS[name].gflops for name, (_, m) in counts.items()]
verify("all twelve: the paper's 'Gflops' are our multiply-adds", ratios, [1.0] * 12, tol=0.01)
verify("DiT-XL/2 to the last parameter", counts["XL/2"][0], 675_129_632, tol=0)
verify("DiT-S/2 to the last parameter", counts["S/2"][0], 32_963_360, tol=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# One multiply-add is *two* floating-point operations. Who compares the paper's 119 "Gflops" with a chip's data sheet
# is off by two; a profiler says:

# %%
from torch.utils.flop_counter import FlopCounterMode

with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.enable_grad():
    nets.dit_network("S/2")(torch.zeros(1, 4, 32, 32), torch.zeros(1))
verify("operations = 2 x multiply-adds", counter.get_total_flops() / counts["S/2"][1], 2.0, tol=0)

# %% [markdown]
# *You may read that quality is a function of the number of parameters.* The paper's own finding is another: it
# follows **compute**. The same twelve networks, against both:

# %% slideshow={"slide_type": "slide"}
reports = nets.DIT_REPORTS
with viz.style():
    figure, axes = viz.panels(1, 2, size=(10.4, 4.2), sharey=True)
for k, size in enumerate(nets.DIT_SIZES):
    names = [f"{size}/{p}" for p in (8, 4, 2)]
    for ax, values in zip(
        axes, ([counts[n][0] / 1e6 for n in names], [counts[n][1] / 1e9 for n in names]), strict=True
    ):
        ax.plot(values, [reports[n].fid for n in names], label=f"DiT-{size}, patch 8, 4, 2", **viz.other(k))
axes[0].set(xlabel="parameters (millions)", ylabel="FID at 400,000 updates", xscale="log", yscale="log")
axes[0].set_xticks([30, 100, 300, 700], ["30", "100", "300", "700"])
axes[0].set_yticks([20, 50, 100, 150], ["20", "50", "100", "150"])
axes[1].set(xlabel="multiply-adds per evaluation (10⁹)", xscale="log")
axes[1].set_xticks([1, 10, 100], ["1", "10", "100"])
axes[1].legend()
for ax in axes:
    ax.minorticks_off()
viz.show(
    figure,
    caption="Left: with the parameters fixed, the patch size changes FID, twofold in S and fivefold in XL. Right: along "
    "compute, the twelve fall near one line. FID values are the paper's (50,000 samples, no guidance).",
    alt="Two scatter plots of FID: against parameters vertical columns of points, against multiply-adds a falling band.",
)
# %%
log_m = torch.tensor([counts[n][1] for n in reports]).double().log()
log_p = torch.tensor([counts[n][0] for n in reports]).double().log()
log_f = torch.tensor([r.fid for r in reports.values()]).double().log()
correlation = {
    name: torch.corrcoef(torch.stack([x, log_f]))[0, 1] for name, x in (("compute", log_m), ("parameters", log_p))
}
print({name: f"{r:.2f}" for name, r in correlation.items()}, "(correlation of the logarithms)")
verify_less("log FID goes with log compute ...", correlation["compute"], -0.9)
verify_less("... and much less with log parameters", -0.7, correlation["parameters"])
verify("S/2 (33 M) and B/4 (130 M), nearly equal compute, equal FID", reports["S/2"].fid, reports["B/4"].fid, tol=0.1)

# %% [markdown] slideshow={"slide_type": "skip"}
# What this picture does *not* say: that U-Nets stop improving (SDXL's has 2.6 billion parameters), or what happens
# outside the measured range. Scaling laws, and how little a laptop may claim about them, are in the lab.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.9 Text and image in one attention: MM-DiT
# A caption is many tokens. Stable Diffusion 3 gives text and image a DiT block **each**, with weights of their own,
# and lets the two meet in one place: queries, keys and values of both are put side by side, one softmax runs over all
# of them, and the result is cut apart again.
# $$[a_\text{text};a_\text{image}]=\mathrm{softmax}\Big(\frac{[q_\text{text};q_\text{image}]\,
# [k_\text{text};k_\text{image}]^\top}{\sqrt d}\Big)[v_\text{text};v_\text{image}]$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 8 min</summary>
#
# Before the formula, draw a square for 5 words and 16 patches on the board, cut it into four quadrants, and ask what
# each row sums to: 1. Then: is this self-attention plus cross-attention? No, those rows would sum to two; the next
# slide checks it.
#
# Widget: word 3 (yellow), step 1, layer 1. There is only noise, yet the upper half reads the word: words say where.
# Change "above" to "below", press Enter: the maps turn over. Even the two a's light up different halves: tokens carry
# their context. At step 5, layer 1 reads 51 % words and the others about 30 %; an even spread is 41 %. Do not let a
# share pass for an importance.
# </details>


# %%
def mmdit_block(block, text, image, c):
    """The block from its parts: what `MMDiTBlock` computes, in the order of the formula."""
    later, q, k, v = {}, [], [], []
    for name, x in (("text", text), ("image", image)):
        own, attention_weights = getattr(block, name), getattr(block.attention, name)
        b1, s1, *later[name] = own.modulation(F.silu(c))[:, None].chunk(6, dim=-1)
        h = (1 + s1) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + b1
        parts = attention_weights.qkv(h).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        for total, part in zip((q, k, v), parts, strict=True):
            total.append(part)
    a = attention(*(torch.cat(part, dim=2) for part in (q, k, v))).transpose(1, 2).flatten(2)  # one softmax
    out = []
    for name, x, attended in (("text", text, a[:, : text.shape[1]]), ("image", image, a[:, text.shape[1] :])):
        g1, b2, s2, g2 = later[name]
        x = x + g1 * getattr(block.attention, name).out(attended)
        h = (1 + s2) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + b2
        out.append(x + g2 * getattr(block, name).feed_forward(h))
    return out


# %%
torch.manual_seed(1)
joint = nets.MMDiTBlock(96, 4)
for stream in (joint.text, joint.image):
    nn.init.normal_(stream.modulation.weight, std=0.1)  # as if trained: at birth it is the identity
text, image, c = torch.randn(2, 5, 96), torch.randn(2, 16, 96), torch.randn(2, 96)
for name, mine, theirs in zip(
    ("text", "image"), mmdit_block(joint, text, image, c), joint(text, image, c), strict=True
):
    verify(f"MM-DiT block from its parts = the library's, {name}", mine, theirs, tol=1e-5)
without_text = joint(text[:, :0], image, c)[1]
plain = nets.DiTBlock(96, 4)
plain.load_state_dict({**joint.image.state_dict(), **{f"attention.{n}": w for n, w in
                       joint.attention.image.state_dict().items()}})  # fmt: skip
verify("with no words it is a DiT block with the image's weights", without_text, plain(image, c), tol=1e-5)

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that joint attention is bidirectional cross-attention, or self-attention plus cross-attention.* Those
# have *two* softmaxes, and each source gets a full share of 1. Here there is **one**: what a word takes, the pixels
# lose.

# %%
q, k, v = torch.randn(3, 1, 1, 21, 24, generator=seeded(9))
one_softmax = attention(q, k, v)[..., 5:, :]  # the image's rows, reading 5 words and 16 patches
two = attention(q[..., 5:, :], k[..., 5:, :], v[..., 5:, :]) + attention(q[..., 5:, :], k[..., :5, :], v[..., :5, :])
verify_less("self + cross is something else", 0.1, (one_softmax - two).abs().mean())
with nets.recorded_attention(joint) as maps:
    joint(text, image, c)
(probs,) = maps.values()
four = nets.quadrants(probs, words=5)
print("quadrants:", {name: tuple(part.shape[-2:]) for name, part in four._asdict().items()})
verify(
    "each row of text: 1 = what it reads of text + of image",
    four.text_text.sum(-1) + four.text_image.sum(-1),
    1.0,
    tol=1e-5,
)
verify("each row of image: 1 = what it reads of text + of image", four.image_text.sum(-1) + four.image_image.sum(-1), 1.0,
       tol=1e-5)  # fmt: skip

# %% [markdown]
# *You may read that text and image run through the same transformer.* They share the attention's softmax and nothing
# else: the block has two of everything. The text itself changes from block to block, which a cross-attended caption
# never does. In the last block it is only read.

# %%
sizes = [nets.parameter_count(m) for m in (joint.text, joint.image, joint.attention.text, joint.attention.image)]
verify("two equal sets of weights", sizes[0] + sizes[2], sizes[1] + sizes[3], tol=0)
verify("and nothing besides", nets.parameter_count(joint), sum(sizes), tol=0)
last_text, _ = nets.MMDiTBlock(96, 4, last=True)(text, image, c)
verify("in the last block the text stays as it is", last_text, text, tol=0)
with torch.device("meta"):
    sd3 = nets.sd3_medium()
verify("the transformer of Stable Diffusion 3 Medium, every parameter", nets.parameter_count(sd3), 2_028_328_000, tol=0)
verify("its picture of 1024 pixels: a latent of 128, patch 2, tokens", (1024 // 8 // 2) ** 2, 4096, tol=0)

# %% [markdown]
# Two kinds of text reach it: the *tokens* join the attention; one *pooled* vector joins the time in $c$ and moves all
# modulations. A small MM-DiT that was trained on the shapes of Lecture 1, looked at while it draws:

# %% slideshow={"slide_type": "slide"}
widgets.quadrant_explorer()

# %% slideshow={"slide_type": "skip"}
painter = zoo.transformer_text_to_image()  # Lecture 1's encoders and latents, an MM-DiT in the place of the U-Net
prompt = "a large red circle left of a small blue square"
shares, per_word, mask = [], [], painter.condition(prompt)["mask"]


def watched(denoise):
    """The same denoiser; it leaves behind what was read of what."""

    def run(x_t, t):
        with nets.recorded_attention(painter.denoiser.network) as maps:
            guess = denoise(x_t, t)
        told = {name: probs[1:] for name, probs in maps.items()}  # row 0 is the null branch of guidance
        shares.append(nets.quadrant_shares(told, mask)[:, 0])  # (layers, reader, read)
        per_word.append(nets.word_shares(told, mask.shape[1])[:, 0])  # (layers, words)
        return guess

    return run


scene = painter.picture(painter.frames(watched(painter.guided(prompt)), painter.noise(1, seeded(3)), steps=10))
shares, per_word = torch.stack(shares), torch.stack(per_word)  # steps first

# %% slideshow={"slide_type": "skip"}
words, even = prompt.split(), int(mask.sum()) / (int(mask.sum()) + 16)  # if every token got the same
by_word = per_word.mean(dim=(0, 1))[1 : 1 + len(words)]  # <start> comes first
with viz.style():
    figure, axes = viz.panels(1, 3, size=(12, 3.9), width_ratios=[1, 1.5, 1.5])
axes[0].imshow(viz.to_pixels(scene)[0])
axes[0].set_title(prompt.replace(" left", "\nleft"), fontsize=10)
axes[0].axis("off")
lines = [viz.Line(f"block {k + 1}", shares[:, k, 1, 0], look=viz.other(k)) for k in range(shares.shape[1])]
viz.sweep(torch.arange(1, 11), lines, xlabel="step of sampling", ylabel="image's attention that goes to text",
          title="Image reads text", references={"even spread": even}, ax=axes[1])  # fmt: skip
axes[1].set_ylim(0, 1.1)  # room for the legend
labels_ = [f"{i + 1}. {word}" for i, word in enumerate(words)]
viz.bars(labels_, by_word, xlabel="share of the image's attention", title="Word by word", ax=axes[2])
viz.show(
    figure,
    caption="One of the four quadrants while a picture is drawn: how much the pixels read of the words, block by block, and of "
    "which words. The rest of each reader's 1 goes to other pixels. Dashed: if all words and patches got the same.",
    alt="A generated picture, four curves of attention shares over ten steps, and bars per word of the prompt.",
)
print("shares, mean over steps and blocks (reader -> read):")
for reader, row in zip(("text", "image"), shares.mean(dim=(0, 1)), strict=True):
    print(f"  {reader:5s} reads {row[0]:.0%} of text, {row[1]:.0%} of the image")
verify("text and image shares of each reader add up to 1", shares.sum(-1), 1.0, tol=1e-5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.10 FLUX: two streams, then one
# FLUX.1 starts with 19 **double-stream** blocks (the block above with QK-norm and rotary positions), then writes text
# and image into one sequence for 38 **single-stream** blocks: one set of weights, one modulation, and attention and
# MLP *side by side* instead of one after the other.
# $$h=(1+s)\odot\mathrm{LN}(x)+b,\quad(q,k,v,m)=W_\text{in}h,\qquad
# x\leftarrow x+g\odot W_\text{out}\big[\mathrm{Attention}(q,k,v)\,\|\,\mathrm{GELU}(m)\big].\tag{6}$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Point at $W_\text{in}$: one matrix makes $q,k,v$ and the MLP's input, which is what "side by side" means. The checks
# say that words have no places, so their order must come from the text encoder. Before the bars, ask which hold more
# parameters, 19 double blocks or 38 single ones. The 19: 6.5 against 5.4 billion.
#
# Before guidance as an input, vote: does 3 mean $w=3$ or $w=1+3$? Our student is off by 0.098 (mean square) from the
# first, by 0.359 from the second; FLUX's formula is unpublished. The misconception: one evaluation instead of two per
# step is not fewer steps. If late, show only the bars.
# </details>


# %%
def single_block(block, x, c, rotary, heads=4):
    D = x.shape[-1]
    b, s, g = block.modulation(F.silu(c))[:, None].chunk(3, dim=-1)
    *qkv, m = block.inner((1 + s) * F.layer_norm(x, (D,), eps=1e-6) + b).split([D, D, D, 4 * D], dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv)
    q, k = rms_norm(q) * block.qk_norm.q_gain, rms_norm(k) * block.qk_norm.k_gain  # first the norm, then the clocks
    a = attention(turn(q, rotary), turn(k, rotary), v).transpose(1, 2).flatten(2)
    return x + g * block.outer(torch.cat([a, F.gelu(m, approximate="tanh")], dim=-1))


torch.manual_seed(2)
single, x = nets.SingleStreamBlock(96, 4), torch.randn(2, 5 + 16, 96)
nn.init.normal_(single.modulation.weight, std=0.1)
rotary = nets.AxialRotary((8, 8, 8))(nets.joint_positions(5, 4, 4))  # words at (0, 0, 0), patches at (0, row, column)
verify("single-stream block from its parts = the library's", single_block(single, x, c, rotary.float()),
       single(x, c, None, rotary), tol=1e-5)  # fmt: skip
swap = torch.tensor([4, 1, 2, 3, 0, *range(5, 21)])
verify("words have no places: swap two, and their results are swapped", single(x[:, swap], c, None, rotary),
       single(x, c, None, rotary)[:, swap], tol=1e-5)  # fmt: skip
swap = torch.tensor([*range(5), 20, *range(6, 20), 5])
verify_less("patches have: swap two, and something else comes out", 0.01,
            (single(x[:, swap], c, None, rotary) - single(x, c, None, rotary)[:, swap]).abs().max())  # fmt: skip

# %% slideshow={"slide_type": "slide"}
with torch.device("meta"):
    flux = nets.flux_dev()
verify("FLUX.1 [dev], every parameter", nets.parameter_count(flux), 11_901_408_320, tol=0)
streams = {"image": [], "text": [], "both": []}
for block in flux.blocks:
    for name in ("text", "image"):
        own = getattr(block, name), getattr(block.attention, name)
        streams[name].append(sum(nets.parameter_count(part) for part in own))
for block in flux.single:
    streams["both"].append(nets.parameter_count(block))
print("axes of its rotary positions (picture, row, column):", flux.rotary.dims)

# %%
millions = {name: torch.tensor(counts_, dtype=torch.float64) / 1e6 for name, counts_ in streams.items()}
with viz.style():
    figure, ax = viz.panels(size=(10, 3.4))
double, single_places = torch.arange(19), 19 + torch.arange(38)
ax.bar(double, millions["image"], color=viz.DATA, label="image stream's own weights")
ax.bar(double, -millions["text"], color=viz.UNCOND, hatch="//", edgecolor="white", label="text stream's own weights")
ax.bar(single_places, millions["both"] / 2, color=viz.COND, label="one set of weights for both")
ax.bar(single_places, -millions["both"] / 2, color=viz.COND)
ax.set(xlabel="block, in the order of computation", ylabel="parameters (millions)")
ax.set_yticks([-100, 0, 100], ["100", "0", "100"])
ax.legend(loc="upper right", ncols=3)
ax.set_ylim(-190, 240)
viz.show(
    figure,
    caption="The flow of tokens through FLUX, drawn from its modules: 19 blocks in which text and image keep to themselves but "
    "for the softmax, then 38 in which they are one sequence. After the last one the text is dropped.",
    alt="Bar diagram: 19 blocks with an upper and a lower bar, then 38 blocks with one bar across the middle.",
)
print({name: f"{m.sum() / 1e3:.2f} billion" for name, m in millions.items()})

# %% [markdown] slideshow={"slide_type": "skip"}
# *You may read that FLUX's blocks are $z+\mathrm{Attention}(z)+\mathrm{MLP}(z)$.* The 38 single ones, with a gate;
# the 19 double ones are sequential. And there is no paper: the published code is the source.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Guidance as an input
# FLUX.1 [dev] takes the guidance scale as a number, embeds it like a time and adds it to $c$. It was *distilled*:
# trained so that one evaluation gives what two gave, such as $u_\varnothing+w(u_c-u_\varnothing)$ (how exactly was not
# published). The digits have such a
# network. Lecture 2's trap is waiting: Meng et al. write $(1+w')u_c-w'u_\varnothing$, so their $w'$ is our $w-1$.
# Which one did our student learn?

# %%
student, t = zoo.load("digits-dit-distilled"), torch.full((200,), 0.6, dtype=torch.float64)
x_t = model.path.mix(digits("test").images[:200], torch.randn(200, 1, 8, 8, generator=seeded(3)), t)
label = digits("test").labels[:200]
cond, null = model.given(label), model.given(None)
told = student.given({"label": label, "w": torch.full((200,), 3.0)})(x_t, t).velocity


def teacher(w):
    return extrapolate(null, cond, w)(x_t, t).velocity


ours = (told - teacher(3.0)).square().mean()
theirs = (told - teacher(1.0 + 3.0)).square().mean()
ignored = (told - teacher(1.0)).square().mean()
print(f"told w = 3, the student is off by {ours:.4f} from w = 3, {theirs:.4f} from w = 4, {ignored:.4f} from w = 1")
verify_less("it says what the teacher says at our w = 3, not at theirs", ours, theirs)
verify_less("and it listens: far from the plain conditional model", 4 * ours, ignored)
verify("the two conventions differ by one", (1 + 2.0) * cond(x_t, t).velocity - 2.0 * null(x_t, t).velocity, teacher(3.0),
       tol=1e-4)  # fmt: skip

# %% [markdown]
# *You may read that guidance distillation makes a model run in four steps.* It halves the evaluations *per step*.
# Fewer steps need another distillation (FLUX.1 [schnell]; Lecture 4).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.11 One network, an ODE and many SDEs: SiT
# SiT keeps DiT's network, number for number, and changes what it says: the velocity of $x_t=(1-t)x_0+t\epsilon$
# instead of the noise (Ma et al. 2024). Velocity and score are two readings of one prediction:
# $$\epsilon=x+(1-t)\,v,\qquad s=\nabla\log p_t=-\frac{\epsilon}{t}=-\frac{x+(1-t)\,v}{t}.$$
# So the sampler may walk the ODE $\dot x=v$, or, for **any** $w_t\ge0$ chosen *after* training, the SDE that adds
# noise of rate $w$ and pushes back along the score. From noise to data, with a step $h$:
# $$x\leftarrow x-h\big[v-\tfrac12w_t\,s\big]+\sqrt{w_th}\;z.\tag{7}$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 8 min</summary>
#
# The message: the network is trained once, the noise is chosen afterwards. Before the second slide, ask what noise
# does to a histogram, and what could undo it; then let somebody say in words why push and noise cancel
# ($s=\partial_x\log\rho$). The residuals are below $10^{-3}$ for every $w$, and 2.9 to 7.4 without the push; in the
# fifth panel the blur is there to see.
#
# Common question: "which $w$ is best?" With the exact field and fine steps all have the same marginals; for a learned
# field it is an experiment, and on the digits all four score 99 or 100 %. Before the slide of digits, ask where one
# Euler step from pure noise lands. On the mean, $-0.25$, from every start. Straight lines of pairs do not make
# straight paths.
# </details>

# %%
world, path = GaussianMixture([0.7, 0.3], [[-1.0], [1.5]], [0.09, 0.25]), RectifiedFlow()
x = torch.linspace(-5, 5, 2001, dtype=torch.float64)  # the line on which all is known


def exact(when):
    """Density, velocity and score at time ``when``, on the grid."""
    t = torch.full((2001,), when, dtype=torch.float64)
    p = world.denoise(path)(x[:, None], t)
    return world.log_prob(x[:, None], path, t).exp(), p.velocity[:, 0], world.score(x[:, None], path, t)[:, 0]


rho, v, s = exact(0.5)
verify("the score from the velocity", -(x + 0.5 * v) / 0.5, s, tol=1e-9)

# %% [markdown] slideshow={"slide_type": "slide"}
# Why is Eq. 7 allowed? Write down what each term does to the density (the Fokker-Planck equation, in forward time):
# $$\partial_t\rho=-\partial_x(v\rho)\;+\;\underbrace{\tfrac w2\,\partial_x(s\rho)
# -\tfrac w2\,\partial_x^2\rho}_{=0,\ \text{because }s\rho=\partial_x\rho}.$$
# Push and noise cancel, whatever $w$. On a grid, with the exact mixture:


# %%
def d_dx(f):
    return torch.gradient(f, spacing=(x[1] - x[0]).item())[0]


h, residuals = 1e-4, {}
for when in (0.25, 0.5, 0.75):
    rho, v, s = exact(when)
    change = (exact(when + h)[0] - exact(when - h)[0]) / (2 * h)
    for name, w in {"w = 0 (ODE)": 0.0, "w = sigma": when, "w = 4": 4.0}.items():
        flow = -d_dx(v * rho) + w / 2 * d_dx(s * rho) - w / 2 * d_dx(d_dx(rho))
        residuals[name, when] = ((change - flow).abs().max() / change.abs().max()).item()
    careless = -d_dx(v * rho) - 2.0 * d_dx(d_dx(rho))  # noise of rate 4, and no push
    residuals["noise, no push", when] = ((change - careless).abs().max() / change.abs().max()).item()
for name in dict.fromkeys(name for name, _ in residuals):
    print(f"{name:15s} residual / largest change: " + ", ".join(f"{residuals[name, t]:.1e}" for t in (0.25, 0.5, 0.75)))
verify("Fokker-Planck holds for every w", [r for (name, _), r in residuals.items() if name[0] == "w"], 0.0, tol=2e-3)
verify_less("noise without its push breaks it", 0.5, [r for (name, _), r in residuals.items() if name[0] == "n"])

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that a stochastic interpolant needs noise in its training path to give diverse samples, or an SDE
# $dx=v\,dt+\gamma\,dW$.* The noise belongs to the *sampler*, is free, and must come with its push. Four choices and
# the careless one, 4000 samples each:

# %% slideshow={"slide_type": "skip"}
n, steps = 4000, uniform_grid(path, 150, start=0.999)
x_T = torch.randn(n, 1, generator=seeded(0), dtype=torch.float64)
choices = {
    "w = 0: ODE": sde.no_diffusion,
    "w = sigma": sde.sigma_diffusion,
    "w = sin²(pi t)": sde.bump_diffusion,
    "w = KL (forward SDE)": sde.forward_diffusion,
}
drawn = {name: last(sample(world.denoise(path), path, EulerMaruyama(w), steps, x_T, generator=seeded(1)))[:, 0]
         for name, w in choices.items()}  # fmt: skip
careless = x_T[:, 0].clone()
for t0, t1 in itertools.pairwise(steps):
    now = torch.full((n,), float(t0), dtype=torch.float64)
    z = torch.randn(n, generator=seeded(int(1e6 * t0)), dtype=torch.float64)
    careless += (t1 - t0) * world.denoise(path)(careless[:, None], now).velocity[:, 0] + ((t0 - t1) * t0) ** 0.5 * z

# %%
density = world.log_prob(x[:, None]).exp()
with viz.style():
    figure, axes = viz.panels(1, 5, size=(12.5, 3.0), sharey=True)
for ax, (name, y) in zip(axes, (drawn | {"careless: no push": careless}).items(), strict=True):
    colour = viz.NOISE if "careless" in name else viz.GUIDED
    ax.hist(y.clamp(-3, 4).numpy(), bins=70, density=True, color=colour, alpha=0.5)
    ax.plot(x, density, color=viz.EXACT, linestyle="--", linewidth=1.5)
    ax.set(title=name, xlabel="x (data units)", xlim=(-3, 4))
axes[0].set_ylabel("probability density")
viz.show(
    figure,
    caption="One field, five samplers, the exact data density dashed. Four agree; the fifth has the noise of the "
    "second without its push, and blurs.",
    alt="Five histograms with the true bimodal density; the first four match, the last is too wide.",
)
# %%
cdf = torch.cumsum(density, 0) * (x[1] - x[0])


def kolmogorov(y):
    """Kolmogorov-Smirnov: the largest distance from the exact distribution function; 1.63 / sqrt(n) is its 1 % level."""
    here = torch.searchsorted(y.sort().values, x) / len(y)
    return (here - cdf).abs().max()


for name, y in drawn.items():
    verify(f"{name}: 4000 samples have the law of the data", kolmogorov(y), 0.0, tol=1.63 / n**0.5)
verify_less("without the push it is another law", 0.05, kolmogorov(careless))

# %% [markdown] slideshow={"slide_type": "slide"}
# The same with the digits' *network*, which was trained once, for the velocity:

# %%
wanted, steps = torch.arange(10).repeat(10), uniform_grid(path, 30, start=0.999)
x_T = torch.randn(100, 1, 8, 8, generator=seeded(2))
accuracy, firsts = {}, []
for name, w in choices.items():
    y = last(sample(model.given(wanted), path, EulerMaruyama(w), steps, x_T, generator=seeded(3)))
    accuracy[name] = zoo.judge().accuracy(y, wanted)
    firsts.append(y[:10])
viz.show(
    viz.image_grid(torch.cat(firsts), columns=10, scale=7, row_labels=list(choices), column_labels=list("0123456789")),
    caption="One network, the same starting noise, four diffusion coefficients: each draws what was asked for.",
    alt="Four rows of ten generated digits.",
)
print({name: f"{a:.0%}" for name, a in accuracy.items()}, "judged to be the digit that was asked for")
verify_less("all four draw what was asked for", 0.85, list(accuracy.values()))

# %% [markdown]
# *You may read that a constant velocity per pair $(x_0,\epsilon)$ makes the ODE's paths straight.* The pairs' lines
# are straight; the network learns their **average** at each point, and averages bend. One Euler step from pure noise
# goes to the mean of the data:

# %%
z = torch.randn(100, 1, generator=seeded(4), dtype=torch.float64)
one_step = last(sample(world.denoise(path), path, EulerMaruyama(sde.no_diffusion), uniform_grid(path, 1), z))
verify("one step from t = 1: every sample is the mean of the data", one_step, 0.7 * -1.0 + 0.3 * 1.5, tol=1e-9)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.12 The rival, on one page: MaskGIT
# Turn the picture into discrete tokens (Lecture 1's quantisers), hide some, and train a transformer to say what is
# hidden: a distribution over codes *at every hidden place*. To draw, start with everything hidden and repeat: draw
# all hidden places at once, keep those you trust most, hide the rest again. After step $k$ of $T$, $\lfloor
# N\cos(\frac\pi2\frac kT)
# \rfloor$ places are hidden: few are kept while little is known, many at the end.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# The toy world in one sentence: each picture is a training digit with 2 % of its pixels flipped, so Bayes knows
# $p(y_i\mid\text{visible})$ exactly. In the film, follow one row from left to right.
#
# Then, before the curves, ask what goes wrong if all is kept after one step: pixels are drawn without knowing of each
# other, 8.2 of them off on average; twelve steps bring 0.7. Then the trap: an exact sample is off by 1.28, so the
# lower curve is *too clean*. If late, skip the film.
# </details>

# %% slideshow={"slide_type": "skip"}
hidden = [math.floor(256 * math.cos(math.pi / 2 * k / 12)) for k in range(12)] + [0]
kept = [a - b for a, b in itertools.pairwise(hidden)]
print("256 places in 12 steps, kept per step:", kept)
verify("all are kept in the end", sum(kept), 256, tol=0)
verify_less("more from step to step, first and last", kept[0], kept[-1])

# %% [markdown]
# No training needed to understand it: here is a world in which $p(y_i\mid\text{visible})$ is *known*. Take the
# training digits in black and white; a picture is one of them with each pixel flipped with probability 2 %. Given
# some visible pixels, Bayes weighs the digits, and the weights give every hidden pixel.

# %% slideshow={"slide_type": "skip"}
templates = (digits("train").images.flatten(1) > 0).float()  # (n, 64), 0 or 1
flip, hidden_token = 0.02, 2


def predict(tokens):
    """log p(y_i = 0 or 1 | visible places), exactly, (b, 64, 2)."""
    signs = torch.where(tokens == hidden_token, 0.0, 2.0 * tokens - 1)  # 0 where hidden
    agreement = signs @ (2 * templates - 1).T  # matches - mismatches with every digit
    weights = torch.softmax(agreement / 2 * math.log((1 - flip) / flip), dim=1)
    ink = weights @ (templates * (1 - 2 * flip) + flip)
    return torch.stack([1 - ink, ink], dim=-1).log()


# %% slideshow={"slide_type": "skip"}
def fill(tokens, steps, generator, temperature=2.0):
    """MaskGIT's decoding (Chang et al. 2022, section 3.2)."""
    n, covered = tokens.shape[1], tokens == hidden_token
    for k in range(1, steps + 1):
        log_p = F.log_softmax(predict(tokens.masked_fill(covered, hidden_token)), dim=-1)
        guess = (log_p + masked.gumbel(log_p, generator)).argmax(-1)  # a draw at every place, independently
        tokens = torch.where(covered, guess, tokens)
        trust = log_p.gather(-1, tokens[..., None])[..., 0].masked_fill(~covered, 0.0)
        trust = trust + temperature * (1 - k / steps) * masked.gumbel(trust, generator)
        trust = trust.masked_fill(~covered, math.inf)  # what was kept stays
        left = min(math.floor(n * math.cos(math.pi / 2 * k / steps)), int(covered[0].sum()) - 1)
        covered = trust.argsort(1).argsort(1) < left
        yield tokens, covered


# %% slideshow={"slide_type": "skip"}
blank = torch.full((200, 64), hidden_token)
film = list(fill(blank, 12, seeded(5)))
library = list(decode(predict, blank, hidden_token, steps=12, generator=seeded(5)))
verify("decoding by hand is the library's, every step", torch.stack([y for y, _ in film]),
       torch.stack([frame.tokens for frame in library]), tol=0)  # fmt: skip
verify("nothing is hidden at the end", film[-1][1].sum(), 0, tol=0)

# %%
pictures = torch.stack([torch.where(covered, 0.0, 2.0 * y - 1)[:4] for y, covered in film], dim=1).reshape(-1, 1, 8, 8)
viz.show(
    viz.image_grid(pictures, columns=12, scale=6, column_labels=[str(k) for k in range(1, 13)],
                   title="What is kept after each of 12 steps (grey: hidden)"),
    caption="First a few places, black or white, far from one another; then more from step to step, until strokes appear.",
    alt="Four rows of twelve frames: grey squares that fill with black and white pixels until digits appear.",
)  # fmt: skip

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that all tokens are predicted simultaneously and independently.* Within one step, yes. That is the
# price: one step knows no correlations at all. How far are the results from the nearest real digit, in pixels, by
# number of steps?


# %%
def pixels_off(y):
    return torch.cdist(y.float(), templates, p=1).min(1).values.mean().item()


steps = [1, 2, 4, 8, 12, 16, 32, 64]
off = {"most trusted first": [], "in random order": []}
for count in steps:
    for name, rule in (("most trusted first", masked.MostConfident()), ("in random order", masked.RandomOrder())):
        *_, frame = decode(predict, blank, hidden_token, steps=count, order=rule, generator=seeded(6))
        off[name].append(pixels_off(frame.tokens))
viz.show(
    viz.sweep(steps, [viz.Line(name, y) for name, y in off.items()], xlabel="steps of decoding", log_x=True,
              ylabel="pixels off the nearest digit (mean)", references={"an exact sample": 64 * flip},
              title="Parallel decoding: 64 pixels in how many steps?"),
    caption="One step draws pixels independently: noise with the right average. A dozen steps do most of what 64 do. "
    "Trusting the likely ones first lands below an exact sample: it prefers pictures without flips, and is not the model's law.",
    alt="Two falling curves over steps from 1 to 64; both drop from about eight to about one or below.",
)  # fmt: skip
verify_less("12 steps are far better than 1", off["most trusted first"][4], 0.3 * off["most trusted first"][0])
verify("64 steps in random order are an exact draw: as many flips as there should be", off["in random order"][-1], 64 * flip,
       tol=0.35)  # fmt: skip

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.13 ControlNet, on one page
# A frozen network should obey a picture: edges, a pose, a depth map. Copy its first blocks, show the copies the hint,
# and add what they say to the frozen blocks through linear layers $Z$ (1x1 convolutions in a U-Net) whose weights
# start at **zero**:
# $$x_{i+1}=\mathrm{block}_i(x_i)+Z_i\big(\mathrm{copy}_i\big).$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# Before this slide, ask whether a layer of zeros can learn; hands. Then read the printed gradients: at step 1 the
# zero layers hear the loss (0.59) and the copies nothing, at step 2 everybody does. Two zeros in a row would be
# stuck; one is not.
#
# Concept maps: nobody reads the concepts, so the picture stays the same to the last bit. Maps compare, they do not
# measure: a single concept would get everything, and green, which nobody said, gets what red and blue leave. If late,
# skip both slides: ControlNet and concept directions are in the lab (4.3, 5.6), the maps only here.
# </details>

# %%
base = copy.deepcopy(model.network)
control = nets.DiTControlNet(base, copies=2, hint_channels=1, hint_size=8)
controlled = nets.ControlledDiT(base, control)
pictures, label = digits("train").images[:64], digits("train").labels[:64]
hint = (pictures > 0).float()  # where there is ink
x_t, t = 0.2 * pictures + 0.8 * torch.randn(64, 1, 8, 8, generator=seeded(1)), torch.full((64,), 800.0)
cond = {"label": label, "hint": hint}  # what the frozen network hears; what only the copies see
verify("at birth it is the frozen network, bit for bit", controlled(x_t, t, cond), model.network(x_t, t, label), tol=0)

# %% [markdown]
# *You may read that a layer of zeros cannot learn, because its gradient is zero.* For $y=Wx$ the gradient is
# $\partial L/\partial W=\frac{\partial L}{\partial y}x^\top$: proportional to what goes *in*, not to $W$. What is
# zero at first is the gradient of everything *behind* it:

# %%
target = (x_t - pictures) / 0.8  # the velocity of the straight line from this picture through x_t
optimiser = torch.optim.SGD(control.parameters(), lr=0.002)
groups = {"zero layers": control.zeros, "copied blocks": control.blocks, "hint layer": control.hint}
history = []
for step in range(4):
    with torch.enable_grad():
        loss = (controlled(x_t, t, cond) - target).square().mean()
        loss.backward()
    history.append({name: sum(p.grad.square().sum() for p in g.parameters()) ** 0.5 for name, g in groups.items()})
    print(f"step {step + 1}: loss {loss:.4f}; gradients", {name: f"{float(g):.1e}" for name, g in history[-1].items()})
    optimiser.step()
    optimiser.zero_grad()
verify_less("step 1: the zero layers hear the loss", 1e-4, history[0]["zero layers"])
verify("step 1: copies and hint hear nothing", [history[0]["copied blocks"], history[0]["hint layer"]], [0, 0], tol=0)
verify_less("step 2: everybody does", 0, torch.stack(list(history[1].values())))
verify("and the frozen network has not moved", base.embed.weight, model.network.embed.weight, tol=0)

# %% [markdown]
# The lab trains one, from edges to shapes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.14 Looking inside: concept maps
# Where does a transformer with joint attention "see" a red circle, whether or not the prompt names it? Give some
# **concepts** a text stream of their own: they read the image and one another, and *nobody reads them*, so the
# picture stays the same. In the space of attention outputs $o$ (Helbling et al. 2025):
# $$\mathrm{map}[k]=\mathrm{softmax}_k\,\langle o_{\text{concept }k},\,o_{\text{image}}\rangle.$$

# %% slideshow={"slide_type": "skip"}
torch.manual_seed(3)
small = nets.MMDiT(4, dim=64, depth=2, heads=4, context_dim=32, vector_dim=32, grid=8)
for name, p in small.named_parameters():
    if "modulation" in name or "final" in name:
        nn.init.normal_(p, std=0.1)  # as if trained
z, when = torch.randn(2, 4, 8, 8), torch.tensor([300.0, 700.0])
asked = {"tokens": torch.randn(2, 6, 32), "vector": torch.randn(2, 32)}
concepts = torch.randn(3, 32)
before = small(z, when, asked)
maps = nets.concept_maps(small, z, when, asked, concepts)
print("layers, pictures, concepts, rows, columns:", tuple(maps.shape))
verify("asked about concepts, the network draws what it would have drawn", small(z, when, asked), before, tol=0)
in_the_prompt = small(z, when, asked | {"tokens": torch.cat([asked["tokens"], concepts.expand(2, -1, -1)], dim=1)})
verify_less("put into the prompt instead, it changes the picture", 1e-3, (in_the_prompt - before).abs().max())
verify("each place is shared out among the concepts", maps.sum(2), 1.0, tol=1e-5)
words_alone = nets.concept_maps(small, z, when, asked, concepts[:1])
verify("a single concept gets everything: maps compare, they do not measure", words_alone, 1.0, tol=1e-6)

# %% [markdown]
# In the network that drew the picture of 3.9, with single words as concepts. One of them names a thing that is *not*
# in the prompt:

# %% slideshow={"slide_type": "skip"}
names = ["red", "blue", "green"]
spoken = painter.condition(names)["tokens"][:, 1]  # what each word's own token has become, alone in a prompt
latent, noise_ = painter.space.encode(scene), torch.randn(16, 4, 8, 8, generator=seeded(8))
t = torch.full((16,), 0.5, dtype=torch.float64)
x_t = painter.path.mix(latent.expand(16, -1, -1, -1), noise_, t)
told = {name: value.expand(16, *value.shape[1:]) for name, value in painter.condition(prompt).items()}
layers = nets.concept_maps(painter.denoiser.network, x_t, 1000 * t.float(), told, spoken)
maps = layers.mean(dim=(0, 1))  # over blocks and sixteen noises: (concepts, rows, columns)
with viz.style():
    figure, axes = viz.panels(1, 4, size=(10.4, 2.9))
axes[0].imshow(viz.to_pixels(scene)[0])
for ax, name, m in zip(axes[1:], names, maps, strict=True):
    image = ax.imshow(m, cmap="cividis", vmin=0, vmax=maps.max())
    ax.set_title(f"concept: {name}")

# %%
for ax in axes:
    ax.axis("off")
figure.colorbar(image, ax=axes, label="share")
viz.show(
    figure,
    caption="Sixteen image tokens, and which of three colours each of them speaks of. Red has the circle; blue is highest at "
    "the square, but has much of the empty right as well; nobody said green, and it gets what is left.",
    alt="A picture with a red circle and a blue square, and three 4 by 4 maps for red, blue and green.",
)
for name, m, channel in (("red", maps[0], 0), ("blue", maps[1], 2)):
    pure = scene[0, channel] - (scene[0].sum(0) - scene[0, channel]) / 2  # how much more of this channel
    there = F.avg_pool2d(pure[None], 8)[0] > 0.3  # patches of 8 x 8 pixels
    verify_less(f"the map of {name} is higher where the picture is {name}", m[~there].mean(), m[there].mean())

# %% [markdown] slideshow={"slide_type": "skip"}
# Sixteen noises of one picture are no proof. The lab puts the question to another use of concepts: it pushes along a
# concept's direction, and along a random one beside it (5.6).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
# | statement | true? | where |
# |---|---|---|
# | patchify + linear layer is a strided convolution | yes, if the channel orders agree | 3.1 |
# | attention's quadratic cost dominates | **no**, below $N=6D$; 3.6 % for DiT-XL/2 at 256 tokens | 3.1 |
# | rotary scores depend on the signed displacement, on every axis | yes, exactly | 3.2 |
# | sin-cos positions let a trained network draw at any size | **no** | 3.2 |
# | a fresh DiT block is the identity, because gates start at zero | yes, bit for bit | 3.4 |
# | zero-initialised $\gamma$ keeps variance 1 | **no**, it makes it 0 | 3.4 |
# | QK-norm divides by the length | **no**, by the root mean square; the l2 version is flat | 3.6 |
# | tiled attention approximates | **no**, it reorders a sum; memory is linear | 3.7 |
# | DiT's "Gflops" | are multiply-adds: twice as many operations | 3.8 |
# | joint attention is self- plus cross-attention | **no**, one softmax over both | 3.9 |
# | a guidance *input* of 3 means our $w=3$ | our student's does, measured; FLUX's formula is unpublished | 3.10 |
# | the SDE's noise must be in the training path | **no**, any $w_t\ge0$, chosen afterwards, same marginals | 3.11 |
# | masked models predict all tokens independently | within one step only | 3.12 |
# | layers of zeros cannot learn | **no**, their gradient depends on their input | 3.13 |

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 2 min</summary>
#
# Leave the table up for half a minute and let everybody pick the bold "no" that they would have got wrong before;
# take two or three aloud. Then question 3 of the quiz from memory, in pairs. The others, the boss battle and the lab
# are homework.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Quiz
# 1. A latent of $64\times64$, patch 2, width 1152: which part of a block's cost is quadratic?
#
# <details><summary>Answer</summary>
#
# $N=1024$; quadratic over linear is $2N^2D/(12ND^2)=N/(6D)=0.148$: 13 % of both.
# </details>
#
# 2. You take the table of positions out of DiT and shuffle the tokens. What happens to the output of the last block?
#
# <details><summary>Answer</summary>
#
# It is shuffled in the same way: attention is equivariant to permutations, everything else acts on tokens one by one.
# </details>
#
# 3. Which weights of a DiT have a gradient at the very first step, and which at the second?
#
# <details><summary>Answer</summary>
#
# First the last linear layer only; then its inputs can be heard: the patch embedding, the gates of all blocks, the last
# layer's shift and scale. Attention and MLP follow at the third step, once their gates have left zero.
# </details>
#
# 4. Somebody measures "DiT-XL/2: 237 GFLOPs" and calls the paper's 119 wrong. Who is right?
#
# <details><summary>Answer</summary>
#
# Both: 119 billion multiply-adds are 237 billion operations.
# </details>
#
# 5. Text has 154 tokens, the image 4096. A fresh joint attention spreads its weight evenly. Which share of an image
#    token's attention goes to text? And in self- plus cross-attention?
#
# <details><summary>Answer</summary>
#
# $154/4250=3.6$ %. With two softmaxes the text gets a full 1, as much as the whole image.
# </details>
#
# 6. Why does a ControlNet start with zeros in $Z$ and not in the copied blocks?
#
# <details><summary>Answer</summary>
#
# Zeros in $Z$ silence the copies at birth and keep what was copied. Zeroed copies would throw it away without being
# silent: a block of zeros hands its input on (Eq. 3), and $Z$ would add it. And two linear layers of zeros directly in
# a row would never learn: each weight's gradient is proportional to the other.
# </details>

# %% slideshow={"slide_type": "skip"}
# NBVAL_CHECK_OUTPUT
quadratic = 1024 / (6 * 1152)
operations = 2 * counts["XL/2"][1] / 1e9
print(f"1: {quadratic / (1 + quadratic):.0%}   4: {operations:.0f} billion operations   5: {154 / 4250:.1%}")

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Boss battle
# Write **one formula** for the number of parameters of a DiT with width $D$, depth $L$, patch $p$ on latents of
# $32\times32\times4$ with 1000 classes, and hit all twelve published networks to the last parameter. Everything you
# need is above: $W$ of Eq. 3 has a bias, the norms have nothing, the table of positions counts, the last layer speaks
# of eight channels. The lab's boss is bigger: a small FLUX from its parts, equal to `diffusers`.
#
# <details><summary>Hint</summary>
#
# Per block: attention $4D^2+4D$, MLP $8D^2+5D$, modulation $6D^2+6D$.
# </details>


# %% slideshow={"slide_type": "skip"}
def my_count(D, L, p):
    tokens = (32 // p) ** 2
    block = (4 * D * D + 4 * D) + (8 * D * D + 5 * D) + (6 * D * D + 6 * D)  # attention, MLP, modulation
    ends = (p * p * 4 * D + D) + tokens * D + (2 * D * D + 2 * D) + (D * p * p * 8 + p * p * 8)
    heard = (256 * D + D) + (D * D + D) + 1001 * D  # time, classes and the null class
    return L * block + ends + heard


mine = [my_count(*nets.DIT_SIZES[name.split("/")[0]][:2], int(name.split("/")[1])) for name in counts]
verify("boss: all twelve, to the last parameter", mine, [p for p, _ in counts.values()], tol=0)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
# - W. Peebles, S. Xie. *Scalable diffusion models with transformers.* [2212.09748](https://arxiv.org/abs/2212.09748)
# - N. Ma et al. *SiT: exploring flow and diffusion-based generative models with scalable interpolant transformers.*
#   [2401.08740](https://arxiv.org/abs/2401.08740)
# - P. Esser et al. *Scaling rectified flow transformers for high-resolution image synthesis* (Stable Diffusion 3).
#   [2403.03206](https://arxiv.org/abs/2403.03206)
# - Black Forest Labs. *FLUX.1*, published code.
#   [github.com/black-forest-labs/flux](https://github.com/black-forest-labs/flux)
# - J. Su et al. *RoFormer: enhanced transformer with rotary position embedding.*
#   [2104.09864](https://arxiv.org/abs/2104.09864)
# - A. Dosovitskiy et al. *An image is worth 16x16 words.* [2010.11929](https://arxiv.org/abs/2010.11929)
# - M. Dehghani et al. *Scaling vision transformers to 22 billion parameters* (parallel blocks, QK-norm).
#   [2302.05442](https://arxiv.org/abs/2302.05442)
# - M. Milakov, N. Gimelshein. *Online normalizer calculation for softmax.*
#   [1805.02867](https://arxiv.org/abs/1805.02867)
# - T. Dao et al. *FlashAttention.* [2205.14135](https://arxiv.org/abs/2205.14135)
# - C. Meng et al. *On distillation of guided diffusion models.* [2210.03142](https://arxiv.org/abs/2210.03142)
# - H. Chang et al. *MaskGIT: masked generative image transformer.* [2202.04200](https://arxiv.org/abs/2202.04200)
# - L. Zhang, A. Rao, M. Agrawala. *Adding conditional control to text-to-image diffusion models.*
#   [2302.05543](https://arxiv.org/abs/2302.05543)
# - A. Helbling et al. *ConceptAttention: diffusion transformers learn highly interpretable features.*
#   [2502.04320](https://arxiv.org/abs/2502.04320)
#
# Next: the **lab** trains these networks, compares them at equal cost, and builds FLUX from its parts.
