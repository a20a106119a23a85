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
# # Lab 3 · Diffusion transformers
# *Write the transformer yourself, open it, and find out which claims about it a laptop can check.*
#
# **After this lab you will be able to**
# - write a DiT in sixty lines, prove it equal to the library's, train it, and watch its gates open block by block;
# - decode a masked image model step by step, and say what one step cannot know;
# - hang a ControlNet on a frozen network, and see its zero convolutions wake up;
# - compare U-Net and transformer, and three training objectives, at equal cost and with error bars;
# - fit a scaling law with its floor and its cone of uncertainty, and say how far it reaches;
# - carry a learning rate from a narrow network to a wide one, and check that it arrives;
# - steer a generation along a concept, and tell a concept from a push;
# - build FLUX from its parts, equal to `diffusers` to 1e-5.
#
# **Time** 100 min reading · runs in 150 s · peak memory 1.2 GB (2 CPU cores)
#
# **You need** the lecture `L3_transformers_lecture`; the mathematics is there, the workshop is here. The sections go on
# counting where the lecture stopped: 4 build, 5 experiments, 6 frontier. All results are of toy worlds (8x8 digits,
# 32x32 scenes of one or two shapes); each conclusion says how far it reaches.

# %%
import copy  # noqa: I001 (a compact import cell)
import csv
import importlib.util
import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib import viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes, logsnr_grid, rebase, then_clean
from lecture_lib.core import uniform_grid
from lecture_lib.data import Batches, digits
from lecture_lib.data.shapes import captioned, edges, judge_captions
from lecture_lib.families import MostConfident, RandomOrder, TextToImage, control_loss, controlled, decode
from lecture_lib.guidance import fused, linear

# %%
from lecture_lib.metrics import frechet_distance, straightness
from lecture_lib.nets import ControlNet, DiT, Flux, HintEncoder, LabelEmbedding, MultiHeadAttention, UNet
from lecture_lib.nets import concept_direction, flux_from_diffusers, multiply_adds, parameter_count, random_direction
from lecture_lib.nets import steered
from lecture_lib.samplers import DDIM, DPMSolverPP2M, DPMSolverPP3M, Euler, Heun, UniPC, last, sample
from lecture_lib.training import fit_power_law, forecast, mup_adamw, mup_init, movement, movement_slopes, read_runs

torch.set_num_threads(1)  # for what is so small a second core is little gain, and a loss when it is busy
train, test = digits("train"), digits("test")
judge, features = zoo.judge(), zoo.load("digits-features").features


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fresh(build, seed=0):
    """PyTorch fills new layers from its global generator: borrow it, and give it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


# %% [markdown]
# ## Thirty seconds: two ways to fill a canvas
# The same caption, twelve steps each. Above, a diffusion transformer (MM-DiT) turns noise into a latent: every step
# moves *every* number a little. Below, a masked transformer (MaskGIT) fills an empty map of 64 tokens: every step decides
# *some* places for good. Both rows are transformers over 16 and 64 tokens; you will take both apart.

# %%
unet = zoo.text_to_image()
mmdit = TextToImage(zoo.load("shapes-mmdit"), unet.space, unet.text, unet.tokenizer)  # only the denoiser is another
maskgit = zoo.masked_text_to_image()
PROMPT = "a large red ring on a white background"
flow = [frame.x for frame in mmdit.frames(mmdit.guided(PROMPT), mmdit.noise(1, seeded(1)), steps=12)][1:]
filling = list(maskgit.frames(PROMPT, generator=seeded(3)))
with torch.no_grad():
    above = [mmdit.space.decode(x).clamp(-1, 1) for x in flow]
below = [maskgit.picture(frame) for frame in filling]
shown = [torch.where(frame.hidden.reshape(1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3), 0.0, x)
         for frame, x in zip(filling, below, strict=True)]  # fmt: skip
viz.show(
    viz.image_grid(torch.cat(above + shown), columns=12, scale=2, row_labels=["MM-DiT", "MaskGIT"],
                   column_labels=[f"step {k}" for k in range(1, 13)]),
    caption=f"“{PROMPT}”. Grey in the lower row: not decided yet. When is the colour certain, when the outline?",
    alt="Two films of twelve frames: a latent that clears up everywhere at once, and a map of tokens that is filled.")  # fmt: skip

# %% [markdown]
# # 4 · Build
# ## 4.1 A diffusion transformer in sixty lines
# Patches in, patches out, and between them blocks that hear the time and the label through six vectors:
#
# $$x \mathrel{+}= g_1\odot\mathrm{Attn}\big((1+s_1)\odot\mathrm{LN}(x)+b_1\big),\qquad
# x \mathrel{+}= g_2\odot\mathrm{MLP}\big((1+s_2)\odot\mathrm{LN}(x)+b_2\big),$$
# $$(b_1,s_1,g_1,b_2,s_2,g_2)=W\,\mathrm{silu}(c)+w,\qquad c=\mathrm{MLP}(\text{features of }t)+\text{label}.$$
#
# The parts bear the library's names, so that weights can be moved between the two.


# %%
def waves(p, dim):
    """Angles of places or times p (n,): dim / 2 clocks, from fast to slow."""
    return p[:, None] * torch.exp(-math.log(10_000) * torch.arange(dim // 2) / (dim // 2))


def places(side, dim):
    """Sines and cosines of the row in one half of the channels, of the column in the other: (side^2, dim)."""
    row, column = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double().unbind(1)
    halves = [torch.cat([a.sin(), a.cos()], 1) for a in (waves(row, dim // 2), waves(column, dim // 2))]
    return torch.cat(halves, 1).float()


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (b, heads, n, d / heads) each
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %%
class FeedForward(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, int(ratio * dim)), nn.Linear(int(ratio * dim), dim)

    def forward(self, x):
        return self.outer(F.gelu(self.inner(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.attention, self.feed_forward = Attention(dim, heads), FeedForward(dim, ratio)
        self.modulation = nn.Linear(dim, 6 * dim)  # starts at zero: both gates are shut

    def forward(self, x, c):
        b1, s1, g1, b2, s2, g2 = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        x = x + g1 * self.attention((1 + s1) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + b1)
        return x + g2 * self.feed_forward((1 + s2) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + b2)


class Final(nn.Module):
    def __init__(self, dim, features):
        super().__init__()
        self.modulation, self.linear = nn.Linear(dim, 2 * dim), nn.Linear(dim, features)

    def forward(self, x, c):
        b, s = self.modulation(F.silu(c))[:, None].chunk(2, -1)
        return self.linear((1 + s) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + b)


# %%
class Time(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t):  # t in 0..1000
        return self.mlp(torch.cat([waves(t, 256).cos(), waves(t, 256).sin()], 1))


class MyDiT(nn.Module):
    def __init__(self, size=8, patch=2, dim=64, depth=4, heads=4, ratio=3.0, classes=10):
        super().__init__()
        self.patch, self.grid = patch, size // patch
        self.embed = nn.Linear(patch**2, dim)
        self.positions = nn.Parameter(places(self.grid, dim), requires_grad=False)
        self.time, self.label = Time(dim), nn.Embedding(classes + 1, dim)  # the last label is "none"
        self.blocks = nn.ModuleList(Block(dim, heads, ratio) for _ in range(depth))
        self.final = Final(dim, patch**2)
        for layer in (*(block.modulation for block in self.blocks), self.final.modulation, self.final.linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, t, labels):
        p, g = self.patch, self.grid
        tokens = x.reshape(-1, g, p, g, p).transpose(2, 3).reshape(-1, g * g, p * p)  # (b, n, p^2)
        tokens, c = self.embed(tokens) + self.positions, self.time(t) + self.label(labels)
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.final(tokens, c).reshape(-1, g, g, p, p).transpose(2, 3).reshape(x.shape)


# %% [markdown]
# Is it the library's? All weights are drawn anew, also those that start at zero (a comparison of two zero functions
# proves nothing), and then every number must agree.

# %%
mine = fresh(MyDiT)
library = fresh(lambda: DiT(8, 1, patch=2, dim=64, depth=4, heads=4, ratio=3.0, condition=LabelEmbedding(10, 64)), 1)
names = {name: name.replace("label.", "condition.table.") for name in mine.state_dict()}
verify("the fixed table of places is the library's", mine.positions, library.positions, tol=1e-6)
shaken = copy.deepcopy(library)
for p in (p for p in shaken.parameters() if p.requires_grad):
    p.data.normal_(std=0.2, generator=seeded(p.numel()))
copied = copy.deepcopy(mine)
copied.load_state_dict({name: shaken.state_dict()[theirs] for name, theirs in names.items()})
x, t, labels = torch.randn(6, 1, 8, 8, generator=seeded(2)), torch.linspace(0, 999, 6), torch.arange(6)
with torch.no_grad():
    verify("sixty lines are DiT", copied(x, t, labels), shaken(x, t, labels), tol=1e-4)
    tokens, c = torch.randn(2, 16, 64, generator=seeded(3)), torch.randn(2, 64, generator=seeded(4))
    verify("a fresh block is the identity, bit for bit", mine.blocks[0](tokens, c), tokens, tol=0)
print(f"{parameter_count(mine):,} parameters, {multiply_adds(mine, x[:1], t[:1], labels[:1]):,} multiply-adds a digit")

# %% [markdown]
# *You may read* that AdaLN-Zero starts with $\gamma=\beta=0$, two vectors per norm. Then the tokens of every layer would
# be zero, not of unit variance: $0\cdot\mathrm{LN}(x)+0$. It is $1+s$, and the zero that matters is the gate's.
#
# **Predict, then run.** With every gate shut and a last layer of zeros: which weights get a gradient in the first
# update? In the second?


# %%
def loss_of(model, batch, g):
    return model.loss(*batch, times=UniformTimes(), p_uncond=0.1, generator=g)


def groups_with_gradient(net):
    parts = {"final.linear": "last layer", "final.modulation": "its modulation", "modulation": "gates and the other modulations"}
    heard = {next((word for key, word in parts.items() if key in name), "everything else")
             for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}  # fmt: skip
    return sorted(heard)


mine = Denoiser(fresh(MyDiT), RectifiedFlow(), VELOCITY, null=torch.tensor(10))
data, g = Batches((train.images, train.labels), 64), seeded(5)
optimizer, heard = torch.optim.AdamW(mine.parameters(), 3e-3, betas=(0.9, 0.99), weight_decay=0.0), []
for _ in range(3):
    optimizer.zero_grad(set_to_none=True)
    loss_of(mine, data.draw(g), g).mean().backward()
    heard.append(groups_with_gradient(mine.network))
    optimizer.step()
    print(f"update {len(heard)}: {', '.join(heard[-1])}")
verify("the first update reaches the last layer alone", heard[0] == ["last layer"], True, tol=0)
verify("attention and feed-forward wait for the third", ["everything else" in part for part in heard], [0, 0, 1], tol=0)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The last layer is zero, so nothing behind it receives a gradient: the first update can move that layer only. The second
# reaches the modulations (a gate's gradient is what stands behind it, and that is not zero). Attention, feed-forward,
# time and label are multiplied by shut gates until the third. Two updates of twelve thousand cost nothing; what is
# gained is that a network of any depth starts as a linear map of the patches, with gradients of moderate size.
# </details>
#
# Now train, and look at the gates from time to time: the mean $|g|$ of every block, over times and labels.


# %%
@torch.no_grad()
def gates(net):
    """Mean |g_1| and |g_2| of every block, (depth, 2), over a hundred times and labels."""
    t, labels = torch.linspace(0, 999, 100), torch.arange(100) % 10
    c = F.silu(net.time(t) + net.label(labels))
    six = torch.stack([block.modulation(c).unflatten(-1, (6, -1)).abs().mean((0, 2)) for block in net.blocks])
    return six[:, [2, 5]]


def fit(model, steps, lr=3e-3, seed=5, watch=lambda step: None):
    g, optimizer = seeded(seed), torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    average = copy.deepcopy(model).requires_grad_(False)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, data.draw(g), g).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast.detach(), 0.02)
        watch(step + 1)
    return average


# %%
BUDGET = 800
mine, opening = Denoiser(fresh(MyDiT), RectifiedFlow(), VELOCITY, null=torch.tensor(10)), {0: torch.zeros(4, 2)}


def look(step):
    if step in (1, 2, 3) or step % 20 == 0:
        opening[step] = gates(mine.network)


start = time.perf_counter()
my_dit = fit(mine, BUDGET, watch=look)
print(f"{BUDGET} updates in {time.perf_counter() - start:.0f} s")

# %%
figure, axes = viz.panels(1, 2, size=(9.6, 3.4), sharey=True)
history = torch.stack(list(opening.values()))
for ax, k, name in zip(axes, (0, 1), ("attention", "feed-forward"), strict=True):
    for block in range(4):
        look_ = viz.other(block)
        ax.plot(list(opening), history[:, block, k], label=f"block {block + 1}", color=look_["color"], linestyle=look_["linestyle"])
    ax.set(title=f"gates of the {name}", xlabel="updates", xscale="symlog")
axes[0].set_ylabel("mean |gate| over times and labels")
viz.legend(axes[1])
viz.show(figure, caption="Every block starts shut. Which opens first? By the end, which path does a block use more, and is the deepest block the most open?",
         alt="Two panels of four curves: mean absolute gates of attention and feed-forward of four blocks, rising from zero over training.")  # fmt: skip
verify("at the start all gates are shut", history[0], 0.0, tol=0)
verify_less("at the end every block speaks on both paths", 0.02, history[-1])


# %%
@torch.no_grad()
def paint(model, labels, *, w=1.0, steps=8, seed=7, sampler=None):
    noise = torch.randn(len(labels), 1, 8, 8, generator=seeded(seed))
    denoise = model.given(labels) if w == 1 else fused(model, None, labels, linear(w))
    return last(sample(denoise, model.path, sampler or Heun(), uniform_grid(model.path, steps), noise))


wanted = torch.arange(200) % 10
pictures = paint(my_dit, wanted, w=1.5)
accuracy = judge.accuracy(pictures, wanted)
viz.show(viz.image_grid(pictures[:20], columns=10, scale=5), caption="Digits of your own transformer, asked for 0 to 9 twice.",
         alt="Two rows of generated digits 0 to 9.")  # fmt: skip
print(f"the judge reads what was asked for in {accuracy:.0%} of 200 digits (of test digits: {judge.accuracy(test.images, test.labels):.0%})")
verify_less("half a minute of training: four of five digits are read right", 0.8, accuracy)
