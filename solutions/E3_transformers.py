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
# # Exercise 3 · Diffusion transformers
# *Thirteen questions, 100 points. From a patch to a whole block, and what it costs.*
#
# **How it works.** Write each function where it says so, and run the cell below it: `check` answers at once, and says what is wrong, not only
# that something is. Answers may use torch, numpy, scipy and math. Checks use random numbers, both end points and a closed form; the marks are
# given by the same checks on fresh random numbers. Sizes are never equal, so that an exchanged axis shows.
#
# **Time** about 90 minutes (an estimate). **You need** Lecture 3, and sections 5.4, 5.5 and 5.7 of its lab (3.9 brings all
# it needs). $N$ tokens have width $D$; $t=0$ is data and $t=1$ is noise.

# %% tags=["setup"]
# On Colab this fetches the course, and replaces nothing that is there. Elsewhere it only says what runs here.
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("lecture_lib") is None:
    get_ipython().run_line_magic("pip", "install -q https://github.com/OWNER/NAME/archive/main.zip")

from lecture_lib.tooling.info import summary

print(summary())

# %%
import math

import torch
import torch.nn.functional as F

from lecture_lib.exercises import check

# %% [markdown]
# ## 3.1 From tokens back to pixels (5 points)
# `patchify` cuts a picture $(b,C,H,W)$ into patches of $p\times p$ pixels, row by row, and writes each as $p^2C$ numbers in the order
# (row, column, channel). Write the way back. The picture need not be square: its height is given, its width follows. Whoever gets
# one axis wrong here trains a network that learns anyway, and draws scrambled pictures.


# %% nbgrader={"grade": false, "grade_id": "q3_1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def unpatchify(tokens, p, height):
    """The picture (b, C, height, W), from tokens (b, N, p*p*C); p and height are numbers, in
    pixels."""
    ### BEGIN SOLUTION
    b, n, size = tokens.shape
    rows, channels = height // p, size // p**2
    columns = n // rows
    x = tokens.reshape(b, rows, columns, p, p, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, rows * p, columns * p)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_1_check", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("3.1")
### BEGIN HIDDEN TESTS
assert check("3.1", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.2 A table of positions (7 points)
# Attention sees a set. DiT tells it places by a fixed table: half of the width for the row $i$, half for the column $j$,
# $$\mathrm{PE}(i,j)=\big[e(i)\,\|\,e(j)\big],\qquad e(p)=\big[\sin p\omega_0,\dots,\sin p\omega_{d/2-1}\,\big\|\,\cos p\omega_0,\dots\big],
# \qquad\omega_k=10000^{-k/(d/2)},\quad d=D/2.$$
# Tokens are listed row by row, and rows and columns count from 0.


# %% nbgrader={"grade": false, "grade_id": "q3_2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def positions(height, width, dim):
    """The table (height*width, dim) for a grid of height x width tokens; dim is a multiple of 4."""
    ### BEGIN SOLUTION
    k = torch.arange(dim // 4)
    omega = 10000.0 ** (-k / (dim // 4))
    i = torch.arange(height).repeat_interleave(width)[:, None] * omega
    j = torch.arange(width).repeat(height)[:, None] * omega
    return torch.cat([i.sin(), i.cos(), j.sin(), j.cos()], dim=1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_2_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("3.2")
### BEGIN HIDDEN TESTS
assert check("3.2", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.3 Turning clocks, in two dimensions (8 points)
# Rotary positions turn queries and keys, so that scores know the *signed displacement* and nothing else. Neighbouring channels are a pair,
# $(x_0,x_1),(x_2,x_3),\dots$ The first half of the channels is turned by the row, the second by the column; within a half of width $d$
# the pair $k=0,\dots,d/2-1$ turns by the angle $p\,\omega_k$ with $\omega_k=10000^{-2k/d}$:
# $$\begin{pmatrix}x'_{2k}\\x'_{2k+1}\end{pmatrix}=\begin{pmatrix}\cos p\omega_k&-\sin p\omega_k\\\sin p\omega_k&\cos p\omega_k\end{pmatrix}
# \begin{pmatrix}x_{2k}\\x_{2k+1}\end{pmatrix}.$$


# %% nbgrader={"grade": false, "grade_id": "q3_3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def turned(x, places):
    """The turned vectors (n, D), from vectors (n, D) and their places (n, 2): row and column of
    each."""
    ### BEGIN SOLUTION
    d = x.shape[1] // 2
    omega = 10000.0 ** (-torch.arange(0, d, 2) / d)
    angles = torch.cat([places[:, :1] * omega, places[:, 1:] * omega], dim=1)  # (n, D/2), one for each pair
    even, odd, out = x[:, 0::2], x[:, 1::2], torch.empty_like(x)
    out[:, 0::2] = even * angles.cos() - odd * angles.sin()
    out[:, 1::2] = even * angles.sin() + odd * angles.cos()
    return out
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_3_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("3.3")
### BEGIN HIDDEN TESTS
assert check("3.3", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.4 A branch under adaLN-Zero (7 points)
# The condition speaks to a branch $f$ (attention or MLP) by three vectors, shift $b$, scale $s$ and gate $g$:
# $$x+g\odot f\big((1+s)\odot\mathrm{LN}(x)+b\big).$$
# LN norms every token to mean 0 and variance 1 over its channels, with $10^{-6}$ added to the variance, and has no weights of its own. All three
# vectors start at zero: see what that makes of a network of a hundred such branches.


# %% nbgrader={"grade": false, "grade_id": "q3_4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def branch(x, shift, scale, gate, f):
    """The tokens after the branch, (b, N, D) like x and like what the function f takes and gives;
    vectors are (b, D)."""
    ### BEGIN SOLUTION
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    shift, scale, gate = (vector.unsqueeze(1) for vector in (shift, scale, gate))
    return x + gate * f((1 + scale) * h + shift)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_4_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("3.4")
### BEGIN HIDDEN TESTS
assert check("3.4", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.5 Softmax, one tile at a time (8 points)
# A query that reads its keys tile by tile remembers three things: the largest logit $m$, the sum $\ell=\sum_je^{s_j-m}$ and the output
# $o=\sum_je^{s_j-m}v_j$. Bring all three up to date with the logits and values of one more tile. This is the heart of FlashAttention:
# the large matrix of weights never exists, and nothing is approximated. Before the first tile $m=-\infty$, $\ell=0$, $o=0$.


# %% nbgrader={"grade": false, "grade_id": "q3_5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def read_tile(m, l, o, s, v):
    """The new m (n,), l (n,) and o (n, d) of n queries, from the old ones, logits s (n, t) and
    values v (t, d)."""
    ### BEGIN SOLUTION
    m_new = torch.maximum(m, s.max(dim=1).values)
    old = torch.exp(m - m_new)
    p = torch.exp(s - m_new[:, None])
    return m_new, old * l + p.sum(dim=1), old[:, None] * o + p @ v
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_5_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("3.5")
### BEGIN HIDDEN TESTS
assert check("3.5", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.6 What a block costs (8 points)
# A stack of `depth` DiT blocks of width $D$ works on $N$ tokens of one picture; the MLP's hidden width is `ratio` times $D$. Each block has
# queries, keys, values and an output layer, an MLP of two layers, and one linear layer from the condition to the modulation: shift, scale and gate
# for both branches, or (`gates` is False, plain adaLN) no gates. All linear layers have biases; the norms have no weights.
#
# Count the parameters, and the floating-point *operations* of one evaluation: those of all matrix products, scores and weighted sums included,
# and nothing else (no biases, norms or softmax). A multiply-add is two operations. Exact whole numbers, please: with them
# you can check any claim about the cost of a transformer.


# %% nbgrader={"grade": false, "grade_id": "q3_6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cost(tokens, dim, depth, ratio, gates):
    """Parameters and operations of the stack, two whole numbers; `gates` is True or False, all else
    whole numbers."""
    ### BEGIN SOLUTION
    vectors = 6 if gates else 4
    layers = [(dim, 3 * dim, tokens), (dim, dim, tokens)]  # inputs, outputs, how often it is used
    layers += [(dim, ratio * dim, tokens), (ratio * dim, dim, tokens), (dim, vectors * dim, 1)]
    parameters = sum(i * o + o for i, o, _ in layers)
    multiply_adds = sum(i * o * times for i, o, times in layers) + 2 * tokens * tokens * dim
    return depth * parameters, depth * 2 * multiply_adds
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_6_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("3.6")
### BEGIN HIDDEN TESTS
assert check("3.6", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.7 Two streams, one softmax (9 points)
# In an MM-DiT block text and image have weights of their own, and meet in one place: queries, keys and values of both are put one behind the
# other (text first), **one** softmax runs over all keys, and the result is cut apart. With $h$ heads the $D$ channels are split
# into $h$ blocks of neighbours, each head of width $d=D/h$ computes
# $$[a_\text{text};a_\text{image}]=\mathrm{softmax}\Big(\frac{[q_\text{text};q_\text{image}]\,[k_\text{text};k_\text{image}]^\top}{\sqrt d}\Big)
# [v_\text{text};v_\text{image}],$$
# and the heads' results stand side by side again. Words may be missing altogether: then this is a DiT's self-attention.


# %% nbgrader={"grade": false, "grade_id": "q3_7", "locked": false, "schema_version": 3, "solution": true, "task": false}
def joint_attention(text, image, heads):
    """Results for text (b, m, D) and image (b, n, D); inputs are (3, b, m, D) and (3, b, n, D):
    queries, keys, values."""
    ### BEGIN SOLUTION
    both = torch.cat([text, image], dim=2)
    _, b, n, dim = both.shape
    q, k, v = both.reshape(3, b, n, heads, dim // heads).permute(0, 1, 3, 2, 4)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(dim // heads), dim=-1)
    out = (weights @ v).transpose(1, 2).reshape(b, n, dim)
    words = text.shape[2]
    return out[:, :words], out[:, words:]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_7_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("3.7")
### BEGIN HIDDEN TESTS
assert check("3.7", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.8 How many places a masked model keeps (6 points)
# MaskGIT starts with all $n$ places hidden. After step $k=1,\dots,T$ there are $\lfloor n\cos(\frac\pi2\frac kT)\rfloor$ places hidden still, but always
# at least one fewer than before, and none after the last step. How many does each step keep? Few while little is known, many in the end.
# (Never more steps than places.)


# %% nbgrader={"grade": false, "grade_id": "q3_8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def kept(n, steps):
    """How many places each step keeps: a list (or tensor) of `steps` whole numbers that add up to
    n."""
    ### BEGIN SOLUTION
    hidden, counts = n, []
    for k in range(1, steps + 1):
        left = 0 if k == steps else math.floor(n * math.cos(math.pi / 2 * k / steps))
        left = min(left, hidden - 1)
        counts.append(hidden - left)
        hidden = left
    return counts
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_8_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("3.8")
### BEGIN HIDDEN TESTS
assert check("3.8", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.9 Training times for more pixels (7 points)
# Stable Diffusion 3 draws logit-normal times, mostly in the hard middle: $t=\mathrm{sigmoid}(\mu+s\,u)$ with $u\sim\mathcal N(0,1)$. A picture with
# more pixels averages noise away better. So a model that goes from $n$ to $m$ pixels gets times whose noise level $\frac{\sigma}{\alpha}=\frac{t}{1-t}$
# is $\kappa=\sqrt{m/n}$ times as high:
# $$t'=\frac{\kappa\,t}{1+(\kappa-1)\,t}.$$
# Here $u$ comes with the question, and you return $t'$.


# %% nbgrader={"grade": false, "grade_id": "q3_9", "locked": false, "schema_version": 3, "solution": true, "task": false}
def training_times(u, mean, std, old, new):
    """Times (b,) from standard normal u (b,); mean and std of the logit, old and new numbers of
    pixels are numbers."""
    ### BEGIN SOLUTION
    t = torch.sigmoid(mean + std * u)
    kappa = math.sqrt(new / old)
    return kappa * t / (1 + (kappa - 1) * t)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_9_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("3.9")
### BEGIN HIDDEN TESTS
assert check("3.9", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.10 What a scaling law foretells (8 points)
# Losses of a few runs follow $L(C)=E+A\,C^{-\alpha}$. For a given floor $E$ this is a straight line, $\log(L-E)=\log A-\alpha\log C$. Fit it by
# least squares for each candidate in `floors` (all lie below the smallest loss), keep the floor whose line has the smallest sum of squared errors
# in $\log(L-E)$ (the lab's fit compared those in $\log L$), and say what loss it foretells at the compute `far`. Forget the floor, and the forecast
# will be far too good.


# %% nbgrader={"grade": false, "grade_id": "q3_10", "locked": false, "schema_version": 3, "solution": true, "task": false}
def foretold(compute, loss, floors, far):
    """E, alpha and the loss at `far`, three numbers; compute and loss are (n,), floors is (k,),
    far is a number."""
    ### BEGIN SOLUTION
    best = None
    x = compute.double().log()
    for floor in floors.double():
        y = (loss.double() - floor).log()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        level = y.mean() - slope * x.mean()
        error = (y - level - slope * x).square().sum()
        if best is None or error < best[0]:
            best = error, floor, level, slope
    _, floor, level, slope = best
    return float(floor), float(-slope), float(floor + level.exp() * far**slope)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_10_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("3.10")
### BEGIN HIDDEN TESTS
assert check("3.10", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.11 A learning rate that travels (6 points)
# Under μP the best rate of a narrow network is good for a wide one, too. A weight of shape (outputs, inputs) whose inputs have grown by $m$
# over those of the base network gets, with Adam,
#
# | weight | outputs | inputs | Adam's rate | initial standard deviation |
# |---|---|---|---|---|
# | input | grow | fixed | as in the base | as in the base |
# | hidden | grow | grow | times $1/m$ | times $1/\sqrt m$ |
# | output | fixed | grow | times $1/m$ | times $1/m$ |
#
# What does not grow at all stays as it is. Return both factors for a list of layers.


# %% nbgrader={"grade": false, "grade_id": "q3_11", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mup_factors(shapes, base):
    """Factors (k, 2) of rate and initial deviation of k layers; shapes and base are whole numbers,
    (k, 2): outputs, inputs."""
    ### BEGIN SOLUTION
    factors = []
    for (out, inputs), (base_out, base_inputs) in zip(shapes.tolist(), base.tolist(), strict=True):
        m = inputs / base_inputs
        factors.append([1 / m, m**-0.5 if out > base_out else 1 / m])
    return torch.tensor(factors)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_11_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("3.11")
### BEGIN HIDDEN TESTS
assert check("3.11", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.12 DPM-Solver++(2M), the whole loop (9 points)
# A second-order solver for one evaluation per step: it remembers the last guess of the clean data. From level $s$ to level $t$, with
# $\lambda=\log(\alpha/\sigma)$, $h=\lambda_t-\lambda_s$ and $r=h_\text{last}/h$,
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s-\alpha_t\,(e^{-h}-1)\,D,\qquad
# D=\Big(1+\frac1{2r}\Big)\hat x_0(s)-\frac1{2r}\,\hat x_0(\text{the level before}).$$
# In the first step $D$ is the guess itself. `denoise(x, alpha, sigma)` gives $\hat x_0$; walk from the first level to the last.


# %% nbgrader={"grade": false, "grade_id": "q3_12", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sample_2m(x, denoise, alphas, sigmas):
    """x at the last level, (b, d), from x at the first; alphas and sigmas are (k,), noise first,
    none of them 0."""
    ### BEGIN SOLUTION
    lam = torch.log(alphas / sigmas)
    before = None
    for i in range(len(lam) - 1):
        guess = denoise(x, alphas[i], sigmas[i])
        h, d = lam[i + 1] - lam[i], guess
        if before is not None:
            r = (lam[i] - lam[i - 1]) / h
            d = guess + (guess - before) / (2 * r)
        x = sigmas[i + 1] / sigmas[i] * x - alphas[i + 1] * torch.expm1(-h) * d
        before = guess
    return x
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_12_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("3.12")
### BEGIN HIDDEN TESTS
assert check("3.12", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 3.13 Boss: a whole DiT block (12 points)
# Tokens $x$, a condition $c$, and weights as a published network stores them. All of 3.4 and 3.7 comes together:
# $$(b_1,s_1,g_1,b_2,s_2,g_2)=W_\text{modulation}\,\mathrm{SiLU}(c)+\text{bias},$$
# $$x\leftarrow x+g_1\odot\mathrm{Attention}\big((1+s_1)\odot\mathrm{LN}(x)+b_1\big),\qquad
# x\leftarrow x+g_2\odot\mathrm{MLP}\big((1+s_2)\odot\mathrm{LN}(x)+b_2\big).$$
# The layer `qkv` makes all queries, then all keys, then all values; heads are blocks of neighbouring channels; `out` mixes their results. The MLP
# is `up`, a GELU in its tanh approximation, `down`. LN is that of 3.4. Do not trust a block that is right when all gates are closed.


# %% nbgrader={"grade": false, "grade_id": "q3_13", "locked": false, "schema_version": 3, "solution": true, "task": false}
def dit_block(x, c, w, heads):
    """The tokens after the block, (b, N, D), from x (b, N, D), c (b, D) and weights w.

    w is a dict of tensors: "modulation" (6D, D), "qkv" (3D, D), "out" (D, D), "up" (rD, D), "down" (D, rD), and to each its
    bias, "modulation_bias" (6D,) and so on. Weights are (outputs, inputs), as in `torch.nn.functional.linear`.
    """
    ### BEGIN SOLUTION
    b, n, dim = x.shape

    def linear(name, h):
        return F.linear(h, w[name], w[name + "_bias"])

    b1, s1, g1, b2, s2, g2 = linear("modulation", F.silu(c)).unsqueeze(1).split(dim, dim=-1)
    h = (1 + s1) * F.layer_norm(x, (dim,), eps=1e-6) + b1
    q, k, v = (y.reshape(b, n, heads, -1).transpose(1, 2) for y in linear("qkv", h).split(dim, dim=-1))
    a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim)
    x = x + g1 * linear("out", a)
    h = (1 + s2) * F.layer_norm(x, (dim,), eps=1e-6) + b2
    return x + g2 * linear("down", F.gelu(linear("up", h), approximate="tanh"))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q3_13_check", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check("3.13")
### BEGIN HIDDEN TESTS
assert check("3.13", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## That was it
# Thirteen ticks are 100 points. What to look at next: the lab's boss builds a small FLUX of such blocks, equal to the published code; and with 3.6 you
# can recompute the cost of every transformer you read about.
