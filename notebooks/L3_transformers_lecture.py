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
# # Lecture 3 · Diffusion transformers
# *Why did everyone leave the U-Net?*
#
# **After this lecture you will be able to**
# - build every block between a patch and FLUX on one screen, and show that it equals the published one;
# - say what a token costs: which part grows linearly, which quadratically, and when that begins to matter;
# - explain why a fresh DiT is the identity to the last bit, and which two recipes for "zero" do not do that;
# - compute attention with memory for one tile, and prove that nothing is approximated;
# - recompute the parameters and the "Gflops" of twelve published networks, and say what is wrong with the word;
# - run one network as an ODE and as four SDEs, and show on a grid that all have the same marginals.
#
# **Time** 100 min reading · runs in 60 s · peak memory 1.0 GB (1 CPU core)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $t=1$ is noise,
# $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is the plain conditional model. $N$ tokens of width $D$.

# %%
import copy
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib import nets, viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import RectifiedFlow, uniform_grid
from lecture_lib.data import digits
from lecture_lib.families import cosine, decode, masked
from lecture_lib.guidance import extrapolate
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import EulerMaruyama, Heun, last, sample, sde

torch.set_grad_enabled(False)  # gradients are asked for where they are needed
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
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
# Everything that a U-Net knows by construction (up, down, near, far) this network has to be *told*, by 16 vectors that
# are added to the tokens, and has to learn to use. That sounds like a reason to stay with the U-Net. This lecture is
# about what one gets in return.
#
# ## 1 · Play

# %%
widgets.patch_explorer()

# %% [markdown]
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. Halve the patch side. What happens to the number of tokens, to the cost of one evaluation, to the number of
#    parameters?
# 2. Pick one token and shuffle all the others (with their positions). Does its output change?
# 3. Stack 28 untrained blocks. What comes out of the last one?
#
# <details><summary>Answers</summary>
#
# 1. Four times the tokens; a little more than four times the cost; the parameters stay within half a percent. So the
#    patch size is a dial for compute that leaves the model's size alone.
# 2. No. Attention sums over a set; the order of the terms does not matter.
# 3. What went in, to the last bit: every branch passes a gate, and all gates start at zero.
# </details>


# %%
@functools.cache
def on_paper(name, side=32):
    """Parameters and multiply-adds of a published network, on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        net = nets.dit_network(name, size=side)
        return nets.parameter_count(net), nets.multiply_adds(net, torch.zeros(1, 4, side, side), torch.zeros(1))


(p4, c4), (p2, c2) = on_paper("XL/4"), on_paper("XL/2")
print(f"XL/4 to XL/2: tokens x 4, multiply-adds x {c2 / c4:.2f}, parameters x {p2 / p4:.5f}")
verify_less("half the patch side costs a little more than 4 times as much", 4.0, c2 / c4)
verify("and leaves the parameters where they were", p2 / p4, 1.0, tol=0.005)

# %% [markdown]
# ## 2 · Intuition, and where each picture breaks
#
# ### "A picture is a sentence of patches"
# Tokens in, tokens out, all of one width: everything that was learned about language models in ten years applies.
# **Where it breaks.** A sentence is read in order and its words are discrete. Patches are real vectors, all denoised at
# once, and they have *two* coordinates. And nobody tells the network that the neighbour of a patch matters more than
# a patch in the corner. A convolution knows that without training: below, for one output pixel, how much each input
# pixel matters, in three *untrained* networks.


# %%
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
    pairs = zip(widths, widths[1:], strict=False)
    return nn.Sequential(*[layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.SiLU())][:-1])


def one_attention(side=16, dim=32):
    embed, mix, out = nn.Linear(4, dim), nets.MultiHeadAttention(dim, 4), nn.Linear(dim, 4)
    places = nets.positions_2d(side // 2, side // 2, dim)
    return lambda x: nets.unpatchify(out(mix(embed(nets.patchify(x, 2)) + places)), 2, side)


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

# %% [markdown]
# *You may read that a convolutional network is translation-invariant and so cannot know where it is.* A convolution is
# **equi**variant (shift in, shift out), and only as long as nothing marks the border. Zero padding does:

# %%
net, x = convolutions(6), torch.randn(1, 1, 16, 16, generator=seeded(3))
shift_of_result, result_of_shift = net(x).roll(4, dims=-1), net(x.roll(4, dims=-1))
verify_less("zero padding: the border is noticed", 0.01, (shift_of_result - result_of_shift).abs().max())
for layer in net:
    if isinstance(layer, nn.Conv2d):
        layer.padding_mode = "circular"
        layer._reversed_padding_repeated_twice = [1, 1, 1, 1]
verify("on a torus, without border: shift in, shift out", net(x).roll(4, -1), net(x.roll(4, -1)), tol=1e-5)

# %% [markdown]
# ### "Attention is a dictionary that answers softly"
# Every token asks a question $q$, every token offers a key $k$ and an answer $v$; the better key and question agree,
# the larger the share of its answer. **Where it breaks.** In a wide space the dictionary turns hard or deaf: random
# keys agree *by chance*, more so the wider they are. Section 3.6 derives the cure, and shows a popular cure that makes
# the dictionary give every key the same share.
#
# ### "Modulation is a mixing desk"
# The condition (time, class, caption) moves three sliders per channel in front of and behind every branch: shift,
# scale, gate. **Where it breaks.** The desk is the same for all tokens: it can say *what* and *how noisy*, never
# *where*. That is why a caption with two things in it needs attention to the words (Section 3.9), and an edge map needs
# a branch of its own (Section 3.13).
#
# ## 3 · Mathematics
# ### 3.1 Patchify is a strided convolution
# Cut a latent of $C\times H\times W$ numbers into $N=\frac Hp\cdot\frac Wp$ patches, write each as a vector of $p^2C$
# numbers, multiply by a matrix: the same as a convolution with kernel $p$ and stride $p$.


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

# %% [markdown]
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

# %%
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
for n, name, height in ((16, "XL/8", 7.4), (64, "XL/4", 29), (256, "XL/2", 118.6), (1024, "XL/2\n512 pixels", 525)):
    figure.axes[0].plot(n, height, "o", color=viz.EXACT)
    figure.axes[0].annotate(name, (n, height), xytext=(3, -8), textcoords="offset points", va="top", fontsize=10)
figure.axes[0].axvline(6 * D, color=viz.NOISE, linewidth=1)
figure.axes[0].annotate("N = 6 D", (6 * D, 0.03), xytext=(-6, 0), textcoords="offset points", ha="right", fontsize=10)
viz.show(
    figure,
    caption="Attention overtakes the rest at 6912 tokens. Below a thousand, 'attention is quadratic' is true and "
    "beside the point.",
    alt="Two straight lines in a double-logarithmic plot, slopes one and two, crossing at 6912 tokens.",
)

# %% [markdown]
# *You may read that cost goes as $p^{-4}$, so doubling the patch side costs a sixteenth.* Only the attention does. And
# that $512^2$ *pixels* cost $c^2=256$ times as much as latents: cost follows tokens, not channels.

# %%
cost = {p: on_paper(f"XL/{p}")[1] for p in (8, 4, 2)}
print(f"XL/8 to XL/4: x {cost[4] / cost[8]:.2f};   XL/4 to XL/2: x {cost[2] / cost[4]:.2f};   never 16")
verify("the paper's ratios", [cost[4] / cost[8], cost[2] / cost[4]], [29.05 / 7.39, 118.64 / 29.05], tol=0.01)

# %% [markdown]
# ### 3.2 Where a token stands
# DiT adds a fixed table. Along one axis a place $p$ becomes $d/2$ sines, then $d/2$ cosines; two axes take half of the
# width each:
# $$e(p)=\big[\sin p\omega_k\;\big\|\;\cos p\omega_k\big],\quad\omega_k=10000^{-k/(d/2)},\qquad
# \mathrm{PE}(i,j)=\big[e(i)\,\|\,e(j)\big].$$


# %%
def e(p, d):
    phase = p.double()[:, None] * 10000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / (d // 2))
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


i, j = torch.cartesian_prod(torch.arange(16), torch.arange(16)).unbind(1)  # 256 tokens, row by row
table = torch.cat([e(i, 384), e(j, 384)], dim=1)
gram = (table @ table.T).reshape(16, 16, 16, 16)
verify("the table by hand is DiT-B's", table, nets.positions_2d(16, 16, 768), tol=0)
verify("all positions have the same length: |PE|² = D/2", table.square().sum(1), 384, tol=1e-3)
verify("similarity depends on the displacement only", gram[2, 3, 7, 11], gram[6, 4, 11, 12], tol=1e-3)
closest = (torch.cdist(table, table) + 1e9 * torch.eye(256)).min() ** 2
verify_less("all 256 are well apart: smallest squared distance", 10, closest)

# %% [markdown]
# *You may read that the fastest of these waves has a period of one patch and the slowest one of 10,000.* A wave
# $\sin p\omega$ has period $2\pi/\omega$:

# %%
omega = 10000.0 ** (-torch.arange(384, dtype=torch.float64) / 384)  # one axis of width 768
print(f"periods: {2 * math.pi / omega[0]:.2f} patches to {2 * math.pi / omega[-1]:,.0f} patches")
verify("the fastest period is 2 pi patches", 2 * math.pi / omega[0], 6.2832, tol=1e-4)
verify("the slowest, with 384 frequencies: 61,343 patches", 2 * math.pi / omega[-1], 61_343, tol=1)

# %% [markdown]
# Why sines *and* cosines? Because moving by $\delta$ is then a rotation of every pair $(\sin,\cos)$, whatever the
# place. A linear layer can learn "three to the right". SD3 keeps such a table for a large grid and serves every picture
# its **middle**; ViT **learns** one vector per place, and resamples them for another resolution.

# %%
delta, w0 = 3.0, omega[:, None]
sines, cosines = e(torch.arange(10), 768).double().split(384, dim=1)
moved = torch.cat([sines * (delta * omega).cos() + cosines * (delta * omega).sin(),
                   cosines * (delta * omega).cos() - sines * (delta * omega).sin()], dim=1)  # fmt: skip
verify("moving by 3 is the same rotation at every place", moved, e(torch.arange(10) + 3, 768), tol=1e-5)
big = nets.positions_2d(24, 24, 768)
crop = nets.cropped_positions(big, 16, 16)
verify("a crop keeps all similarities: it is the same table, moved", crop @ crop.T, table @ table.T, tol=2e-3)
verify_less("but its numbers are other ones", 1.0, (crop - table).abs().max())

# %% [markdown]
# ### RoPE: turning clocks
# The rotation can be put where it is needed: into queries and keys. Pair up their channels; the token at place $p$
# turns pair $k$ by the angle $p\,\omega_k$, like the hands of so many clocks:
# $$q\to R(p)\,q,\quad k\to R(p')\,k,\qquad\langle R(p)q,R(p')k\rangle=q^\top R(p'-p)\,k.\tag{2}$$
# Rotations of a plane commute and add up, hence $R(p)^\top R(p')=R(p'-p)$: scores see *displacements*, and values stay
# untouched. For two axes, row and column turn channels of their own.

# %%
with viz.style():
    figure, axes = viz.panels(1, 6, size=(10, 2.2))
hands = nets.rotary_angles(torch.arange(6), 8)  # 6 places, 4 pairs of channels
for p, ax in enumerate(axes):
    ax.add_patch(viz.DATA and __import__("matplotlib").patches.Circle((0, 0), 1, fill=False, color=viz.NOISE))
    for k, (colour, length) in enumerate(zip((viz.GUIDED, viz.DATA, viz.COND, viz.EXACT), (1, 0.85, 0.7, 0.55))):
        ax.plot([0, length * hands[p, k].cos()], [0, length * hands[p, k].sin()], color=colour, linewidth=3 - 0.4 * k)
    ax.set(title=f"place {p}", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    ax.axis("off")
viz.show(
    figure,
    caption="Four clocks per place, one for each pair of channels. The fast hand (longest) tells neighbours apart, the slow "
    "ones tell far from near. Between two places, all that counts is the angle between equal hands.",
    alt="Six clock faces with four hands each; the longest hand turns by one radian per place, the others slower.",
)


# %%
def turn(x, angles):
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(turned, dim=-1).flatten(-2)


def score(q, k, at, there, rotary=nets.AxialRotary((8, 12, 12))):
    """<R(at) q, R(there) k> with places (picture, row, column)."""
    angles = rotary(torch.tensor([at, there]))
    return (turn(q, angles[0]) * turn(k, angles[1])).sum()


q, k = torch.randn(2, 32, generator=seeded(5), dtype=torch.float64)
angles = nets.AxialRotary((8, 12, 12))(torch.tensor([[0, 3, 9]]))
verify("turning by hand is nets.rotate", turn(q[None], angles), nets.rotate(q[None], angles), tol=1e-12)
verify("turning keeps lengths", turn(q[None], angles).norm(), q.norm(), tol=1e-12)
here = score(q, k, (0, 2, 3), (0, 7, 11))
verify("Eq. 2: ten rows down, fourteen columns right, same score", score(q, k, (0, 12, 17), (0, 17, 25)), here, tol=1e-9)
verify_less("another row distance, another score", 0.1, (score(q, k, (0, 3, 3), (0, 7, 11)) - here).abs())
verify_less("another column distance, another score", 0.1, (score(q, k, (0, 2, 4), (0, 7, 11)) - here).abs())
verify_less("the *signed* distance counts: not |p - p'|", 0.1, (score(q, k, (0, 7, 11), (0, 2, 3)) - here).abs())

# %% [markdown]
# Four ways to say "I am at row 5, column 10 of 16", seen by everybody else:

# %%
at = 5 * 16 + 10
learned = nets.LearnedPositions(16, 16, 768)
rope_angles = nets.AxialRotary((32, 32))(nets.grid_positions(16, 16))
turned = nets.rotate(torch.ones(256, 64), rope_angles)  # a token that asks for its like
coarse = nets.cropped_positions(nets.positions_2d(192, 192, 768, spacing=64 / 192), 16, 16)
tables = {"sin-cos (DiT)": table, "crop of 192 x 192 (SD3)": coarse, "learned, at birth": learned(16, 16), "RoPE": turned}
with viz.style():
    figure, axes = viz.panels(1, 4, size=(10.6, 3.2), sharey=True)
for ax, (name, vectors) in zip(axes, tables.items(), strict=True):
    similarity = F.cosine_similarity(vectors, vectors[at : at + 1])
    image = ax.imshow(similarity.reshape(16, 16), cmap="cividis", vmin=0, vmax=1)
    ax.set(title=name, xlabel="column (tokens)")
    ax.grid(visible=False)
axes[0].set_ylabel("row (tokens)")
figure.colorbar(image, ax=axes, label="cosine similarity")
viz.show(
    figure,
    caption="Crosses: one axis for rows, one for columns, each with its own clocks. SD3's table has its neighbours "
    "a third apart, so everything looks close. Learned vectors know nothing until they are trained.",
    alt="Four similarity maps of a 16 by 16 grid: two crosses around the token, a noise map with one bright cell, a cross.",
)
verify_less("nearer is more alike along a row", (table[at] * table[at + 3]).sum(), (table[at] * table[at + 1]).sum())

# %%
widgets.position_explorer()

# %% [markdown]
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
verify("at its own size this is the network itself", at_size(8, nets.positions_2d(4, 4, 96)),
       last(sample(model.given(labels), model.path, Heun(), grid, torch.randn(10, 1, 8, 8, generator=seeded(4)))),
       tol=1e-5)  # fmt: skip
viz.show(
    viz.image_grid(torch.cat([continued, stretched]), columns=10, scale=6, row_labels=["continued", "stretched"]),
    caption="Twelve pixels wide, from a network that was trained on eight. Neither works: 'sines extrapolate' is a "
    "statement about the formula, not about the network that learned to read sixteen of its values.",
    alt="Two rows of ten generated pictures of 12 by 12 pixels, mostly broken digits.",
)

# %% [markdown]
# ### 3.3 Time and class become one vector
# The network time $\tau=1000\,t$ becomes 256 waves $[\cos\tau\omega_k\|\sin\tau\omega_k]$ and passes a small MLP; the class is
# a row of a table with one row more than there are classes, the null class of guidance. Their **sum**
# $c=e_t(\tau)+e_y(y)\in\mathbb R^D$ is all that the blocks hear.
#
# *You may read code that feeds $t\in[0,1]$ into the waves directly.* Then most waves hardly move:

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
    caption="Left, all times look alike. Right, a time resembles its neighbours and nobody else.",
    alt="Two similarity matrices: one uniformly bright, one with a bright diagonal.",
)
for name, f in features.items():
    print(f"{name:12s} numerical rank {int(torch.linalg.matrix_rank(f, rtol=1e-3))}")
early, late = (F.normalize(nets.timestep_features(s * torch.tensor([0.1, 0.9]))) for s in (1, 1000))
verify("unscaled, t = 0.1 and t = 0.9 are the same to 2 %", early[0] @ early[1], 0.982, tol=1e-3)
verify("scaled by 1000 they differ", late[0] @ late[1], 0.189, tol=2e-3)
verify("the class table has a row for the null class", model.network.condition.table.weight.shape[0], 10 + 1, tol=0)
