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
# # Exercise 1 · Latent diffusion
# *Twelve questions, 100 points. Each answer is a function of a few lines; the last one is a whole sampler.*
#
# **How it works.** Write each function where it says so, and run the cell below it: `check` answers at once, and says what is wrong, not only
# that something is. Answers may use torch, numpy, scipy and math. Checks use random numbers, both end points and a closed form; the marks are
# given by the same checks on fresh random numbers. So there is nothing to guess, and nothing to look up but the lecture.
#
# **Time** about two hours (an estimate). **You need** Lecture 1 up to 3.9, and 4.1, 4.2, 4.4 and 5.1 of its lab. As everywhere: $t=0$ is data, $t=1$ noise,
# $x_t=\alpha_tx_0+\sigma_t\epsilon$, and $\bar\alpha=\alpha^2$.

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
# ## 1.1 What a latent saves (5 points)
# A picture of $H\times W$ pixels with three colours becomes a latent of $h\times w$ places with $C$ channels, $f=H/h=W/w$. Run one and the same network
# on maps of both sizes. How many times as much is the picture, counted in numbers? In the cost of a convolution? In the scores of self-attention?
# (You may have read "48 times" and "2304 times": it pays to know which of the three is meant.)


# %% nbgrader={"grade": false, "grade_id": "q1_1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def saved(height, width, f, channels):
    """Three numbers, pixels over latents: numbers, multiplications of a convolution,
    self-attention scores."""
    ### BEGIN SOLUTION
    places = (height // f) * (width // f)
    fewer = height * width // places
    return 3 * height * width / (channels * places), fewer, fewer**2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_1_check", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("1.1")
### BEGIN HIDDEN TESTS
assert check("1.1", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.2 What it costs: decibels (6 points)
# No sampler can be better than the first stage that decodes its latents. How good is that one? The peak signal-to-noise ratio compares the largest
# possible difference of two numbers with the mean square of the errors: $\mathrm{PSNR}=10\log_{10}\frac{\mathrm{peak}^2}{\mathrm{MSE}}$, one for each
# picture. Pictures lie in $[-1,1]$.


# %% nbgrader={"grade": false, "grade_id": "q1_2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def psnr(x, y):
    """Decibels, (b,), of pictures x and their reconstructions y, both (b, c, h, w)."""
    ### BEGIN SOLUTION
    mse = F.mse_loss(x, y, reduction="none").mean(dim=(1, 2, 3))
    peak = 1.0 - (-1.0)
    return 20 * math.log10(peak) - 10 * torch.log10(mse)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_2_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("1.2")
### BEGIN HIDDEN TESTS
assert check("1.2", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.3 The loss of the first stage (9 points)
# A KL autoencoder maximises the evidence bound $\mathbb E_q[\log p(x|z)]-\beta\,\mathrm{KL}(q\,\|\,\mathcal N(0,I))$, so its loss is minus that. Here
# $p(x|z)$ is Laplace noise around the decoded picture, for each number independently with density $\frac1{2b}e^{-|x-\hat x|/b}$ and a learned
# $b=e^\ell$; and $q=\mathcal N(\mu,\varsigma^2)$ for each number of the latent, with
# $\mathrm{KL}=\tfrac12\sum(\mu^2+\varsigma^2-1-\ln\varsigma^2)$. The encoder returns $\mu$ and $\ln\varsigma^2$. Keep all constants: then it *is* a
# likelihood, and two first stages can be compared.


# %% nbgrader={"grade": false, "grade_id": "q1_3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def first_stage_loss(x, x_hat, mean, logvar, log_scale, beta):
    """The loss of each picture in nats, (b,); x and x_hat (b, 3, H, W), mean and logvar
    (b, c, h, w), log_scale (the letter l above) and beta numbers."""
    ### BEGIN SOLUTION
    nll = (x - x_hat).abs() / math.exp(log_scale) + log_scale + math.log(2)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
    return nll.sum(dim=(1, 2, 3)) + beta * kl.sum(dim=(1, 2, 3))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_3_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("1.3")
### BEGIN HIDDEN TESTS
assert check("1.3", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.4 From the encoder to the diffusion model (5 points)
# Draw a raw latent from $\mathcal N(\mu,\varsigma^2)$ in such a way that gradients could reach $\mu$ and $\varsigma$, and bring it to mean 0 and
# variance 1 as the schedule expects it: $z=s\,(\mathcal E(x)-b)$. (For Stable Diffusion 3, $s=1.5305$ and $b=0.0609$; here both are others.) A wrong
# factor raises no error. It only ruins every picture.


# %% nbgrader={"grade": false, "grade_id": "q1_4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def to_latent(mean, logvar, noise, scale, shift):
    """The latent, of the shape of mean, logvar and noise (from N(0, 1)), (b, c, h, w); scale s
    and shift b are numbers."""
    ### BEGIN SOLUTION
    std = torch.exp(0.5 * logvar)
    return (mean + std * noise - shift) * scale
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_4_check", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("1.4")
### BEGIN HIDDEN TESTS
assert check("1.4", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.5 Codes, and a gradient that goes straight through (10 points)
# A VQ autoencoder replaces each vector $z$ by its nearest code $e$. That step has no useful derivative, so the gradient is handed on as if there had
# been none, $z_q=z+\mathrm{sg}(e-z)$, and the encoder is asked to commit itself: $\beta\,\mathrm{mean}\,(z-\mathrm{sg}(e))^2$,
# a mean over all numbers. The codes follow by moving averages, so **no gradient may reach the codebook**. This check looks at your
# numbers *and* at your gradients.


# %% nbgrader={"grade": false, "grade_id": "q1_5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantised(z, codebook, beta):
    """z_q (n, d) of z (n, d), from a codebook (k, d), and the loss of the commitment, a number."""
    ### BEGIN SOLUTION
    distance = torch.cdist(z.detach(), codebook.detach())
    e = codebook.detach()[distance.argmin(dim=1)]
    return z + (e - z).detach(), beta * (z - e).square().mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_5_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("1.5")
### BEGIN HIDDEN TESTS
assert check("1.5", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.6 The cosine schedule, with all that belongs to it (8 points)
# With $f(t)=\cos^2\!\big(\tfrac\pi2\,\tfrac{t/T+s}{1+s}\big)$ and $s=0.008$, the betas are $\beta_t=\min\big(1-\tfrac{f(t)}{f(t-1)},\,0.999\big)$ for
# $t=1,\dots,T$, and $\bar\alpha_t=\prod_{i\le t}(1-\beta_i)$. The clip is no detail: without it the last $\bar\alpha$ is 0, and an $\epsilon$-network has
# nothing to say there.


# %% nbgrader={"grade": false, "grade_id": "q1_6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cosine_table(steps):
    """The betas (T,) and alpha-bar (T,) of T = steps steps."""
    ### BEGIN SOLUTION
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos(math.pi / 2 * (t + 0.008) / (1 + 0.008)) ** 2
    betas = torch.clamp(1 - f[1:] / f[:-1], max=0.999)
    return betas, torch.cumprod(1 - betas, dim=0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_6_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("1.6")
### BEGIN HIDDEN TESTS
assert check("1.6", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.7 Zero terminal SNR (8 points)
# At its last step Stable Diffusion still shows the network 7 % of the picture, and the network learns to trust its brightness: hence no midnight and no
# snow. The repair acts on the root, $\sqrt{\bar\alpha'_t}=\big(\sqrt{\bar\alpha_t}-\sqrt{\bar\alpha_T}\big)\,
# \frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1}-\sqrt{\bar\alpha_T}}$: the last entry becomes exactly 0, the first one stays.


# %% nbgrader={"grade": false, "grade_id": "q1_7", "locked": false, "schema_version": 3, "solution": true, "task": false}
def zero_terminal(alpha_bar):
    """The repaired table (T,), again alpha-bar, from a falling one (T,); entry 0 is t = 1."""
    ### BEGIN SOLUTION
    alpha = torch.sqrt(alpha_bar)
    first, last = alpha[0], alpha[-1]
    return ((alpha - last) * first / (first - last)) ** 2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_7_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("1.7")
### BEGIN HIDDEN TESTS
assert check("1.7", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.8 Four words for one prediction (9 points)
# A network may predict the data $x_0$, the noise $\epsilon$, $v=\alpha\epsilon-\sigma x_0$, or the score $-\epsilon/\sigma$. Together with $x_t$ each of
# them says the same. Read data and noise off; $\alpha^2+\sigma^2=1$. For $v$ find a way without a division: it has to work at *both* ends, where $\alpha=0$
# or $\sigma=0$. That is why $v$ goes together with 1.7.


# %% nbgrader={"grade": false, "grade_id": "q1_8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def read_off(x_t, out, kind, alpha, sigma):
    """x0 and eps, each (b, d); out is (b, d), kind is "x0", "eps", "v" or "score", alpha and sigma
    are numbers."""
    ### BEGIN SOLUTION
    if kind == "x0":
        return out, (x_t - alpha * out) / sigma
    if kind == "v":
        return alpha * x_t - sigma * out, sigma * x_t + alpha * out
    eps = out if kind == "eps" else -sigma * out
    return (x_t - sigma * eps) / alpha, eps
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_8_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("1.8")
### BEGIN HIDDEN TESTS
assert check("1.8", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.9 Min-SNR in the words of the network (9 points)
# With $\mathrm{SNR}=\alpha^2/\sigma^2$, min-SNR weighs the squared error **of $x_0$** by $\min(\mathrm{SNR},\gamma)$. Which weight is that on the error of
# what the network predicts? Use $\mathcal L_\epsilon=\mathrm{SNR}\,\mathcal L_{x_0}$ and $\mathcal L_v=(\mathrm{SNR}+1)\,\mathcal L_{x_0}$. The loss is the mean, over
# the batch, of each sample's weight times its mean square error. (It is often copied with the weight on the wrong error, and trains all the same.)


# %% nbgrader={"grade": false, "grade_id": "q1_9", "locked": false, "schema_version": 3, "solution": true, "task": false}
def min_snr_loss(out, target, kind, alpha, sigma, gamma):
    """The loss, a number; out and target (b, d), kind "x0", "eps" or "v", alpha and sigma (b,),
    gamma a number."""
    ### BEGIN SOLUTION
    snr = (alpha / sigma) ** 2
    weight = torch.clamp(snr, max=gamma)
    if kind == "eps":
        weight = weight / snr
    elif kind == "v":
        weight = weight / (snr + 1)
    return (weight * F.mse_loss(out, target, reduction="none").mean(dim=1)).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_9_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("1.9")
### BEGIN HIDDEN TESTS
assert check("1.9", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.10 EDM's preconditioning (9 points)
# On the path $x=x_0+\sigma\epsilon$ sizes run from 0.002 to 80, and no network likes that. EDM puts it between four factors,
# $D(x,\sigma)=c_{skip}\,x+c_{out}\,F(c_{in}\,x,\,c_{noise})$, such that what goes in and what is asked of $F$ both have variance 1:
# $c_{skip}=\frac{\sigma_d^2}{\sigma^2+\sigma_d^2}$, $c_{out}=\frac{\sigma\,\sigma_d}{\sqrt{\sigma^2+\sigma_d^2}}$, $c_{in}=\frac1{\sqrt{\sigma^2+\sigma_d^2}}$,
# $c_{noise}=\tfrac14\ln\sigma$.


# %% nbgrader={"grade": false, "grade_id": "q1_10", "locked": false, "schema_version": 3, "solution": true, "task": false}
def preconditioned(network, x, sigma, sigma_data):
    """D(x, sigma), (b, d); network(y, c) takes (b, d) and (b,), x is (b, d), sigma (b,),
    sigma_data a number."""
    ### BEGIN SOLUTION
    s = sigma[:, None]
    size = torch.sqrt(s**2 + sigma_data**2)
    answer = network(x / size, torch.log(sigma) / 4)
    return (sigma_data / size) ** 2 * x + s * sigma_data / size * answer
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_10_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("1.10")
### BEGIN HIDDEN TESTS
assert check("1.10", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.11 A map reads words (10 points)
# Here the caption enters the picture. Every place of the map $x$ asks the words: $q=x_{token}W_q$, $k=cW_k$, $v=cW_v$, each cut into `heads` heads of $d$
# numbers (head 1 has the first $d$, and so on); in each head $\mathrm{softmax}\big(qk^\top/\sqrt d\big)\,v$; the heads side by side again, times $W_o$, back to
# a map, and added to $x$. Words whose mask is `False` are padding and must not be read. (No norms and no biases here.)


# %% nbgrader={"grade": false, "grade_id": "q1_11", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cross_attention(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The new map (b, c, h, w); words (b, n, e), mask (b, n), w_q (c, heads d), w_k and w_v
    (e, heads d), w_o (heads d, c)."""
    ### BEGIN SOLUTION
    b, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)  # (b, h w, c)
    q, k, v = (y.reshape(b, y.shape[1], heads, -1) for y in (tokens @ w_q, words @ w_k, words @ w_v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    read = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v).flatten(2)
    return x + (read @ w_o).transpose(1, 2).reshape(b, c, h, w)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_11_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("1.11")
### BEGIN HIDDEN TESTS
assert check("1.11", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 1.12 Boss: a whole sampler (12 points)
# From noise to a latent that the decoder understands, with all of the above: a $v$-network, a table that ends in zero terminal SNR, and DDIM with any
# $\eta$ from 0 to 1.
#
# - **Times** are trailing: $t_k=\mathrm{round}\big(T(1-k/n)\big)$ for $k=0,\dots,n$ with $n$ steps, so $t_0=T$, and $t_n=0$ are data, $\bar\alpha_0=1$.
# - **A step** from $t=t_k$ to $s=t_{k+1}$: ask the network, read off $\hat x_0$ and $\hat\epsilon$, and mix
#   $x\leftarrow\alpha_s\hat x_0+\sqrt{\sigma_s^2-\varsigma^2}\;\hat\epsilon+\varsigma z_k$ with
#   $\varsigma=\eta\,\frac{\sigma_s}{\sigma_t}\sqrt{1-\alpha_t^2/\alpha_s^2}$ and $z_k$ the $k$-th of the fresh noises. $\eta=0$ is deterministic, $\eta=1$ is
#   DDPM with the noise of its posterior.
# - **At the end** undo the shift and the scale of 1.4.
#
# The network is called as `network(x, t)`, with $t$ from 1 to $T$: a number, or one for each sample. Entry 0 of the table belongs to $t=1$.


# %% nbgrader={"grade": false, "grade_id": "q1_12", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paint(network, alpha_bar, noise, fresh, eta, steps, scale, shift):
    """The raw latent (b, d); alpha_bar (T,), noise (b, d) is x at time T, fresh is (steps, b, d),
    the rest are numbers."""
    ### BEGIN SOLUTION
    bars = torch.cat([torch.ones(1), alpha_bar])  # index 0 are data
    alphas, sigmas = bars.sqrt(), (1 - bars).sqrt()
    times = [round(len(alpha_bar) * (1 - k / steps)) for k in range(steps + 1)]
    x = noise
    for k in range(steps):
        (a_t, s_t), (a_s, s_s) = ((alphas[t], sigmas[t]) for t in times[k : k + 2])
        v = network(x, times[k])
        x0, eps = a_t * x - s_t * v, s_t * x + a_t * v
        std = eta * s_s / s_t * torch.sqrt(1 - (a_t / a_s) ** 2)
        x = a_s * x0 + torch.sqrt((s_s**2 - std**2).clamp(min=0)) * eps + std * fresh[k]
    return x / scale + shift
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q1_12_check", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check("1.12")
### BEGIN HIDDEN TESTS
assert check("1.12", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## That was it
# Twelve ticks are 100 points, and your functions are most of a latent diffusion model: hand `paint` a trained network and its result to a decoder,
# and there is the picture. What to look at next: the lab's boss, text to image in sixty lines, where the network is yours as well.
