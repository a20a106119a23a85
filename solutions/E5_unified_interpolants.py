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
# # Exercise 5 · Unified interpolants
# *Twelve questions, 100 points. Each answer is a function of a few lines; the boss takes fifteen.*
#
# **How it works.** Write each function where it says so, and run the cell below it: `check` answers at once, and says what is wrong, not only
# that something is. Answers may use torch, numpy, scipy and math. Checks use random numbers, both end points and closed forms; the marks are
# given by the same checks on fresh random numbers. Where a loss is asked for, its *gradients* are judged as well. So there is nothing to guess,
# and nothing to look up but the lecture and what is named here.
#
# **Time** about 135 minutes (an estimate). **You need** Lecture 5, sections 2.1, 2.2 and 4 of its lab, and for 5.9 and 5.10 the manual's page on
# `torch.autograd.grad`. As always $t=0$ is the data; $t=1$ is the other end.

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
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import softplus

from lecture_lib.exercises import check

# %% [markdown]
# ## 5.1 One sentence (5 points)
# Draw $x_0$ from the data, $x_1$ from the other end, $z\sim\mathcal N(0,I)$, and mix:
# $x_t=(1-t)\,x_0+t\,x_1+\gamma_t\,z$ with $\gamma_t^2=a\,t(1-t)$. Each sample has its own time. Everything else in this exercise follows from
# this one line.


# %% nbgrader={"grade": false, "grade_id": "q5_1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def interpolate(x0, x1, z, t, a):
    """x_t (b, d), from x0, x1 and z (b, d), times t (b,) and a number a."""
    ### BEGIN SOLUTION
    clock = t[:, None]
    gamma = torch.sqrt(a * clock * (1 - clock))
    return (1 - clock) * x0 + clock * x1 + gamma * z
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_1_check", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("5.1")
### BEGIN HIDDEN TESTS
assert check("5.1", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.2 Velocity and score (8 points)
# Two networks were trained by regression: $v=\mathbb E[\dot\alpha x_0+\dot\beta x_1\mid x_t]$ and $\eta=\mathbb E[z\mid x_t]$. With the same
# $\gamma_t=\sqrt{a\,t(1-t)}$, what are the velocity $b=\mathbb E[\dot x_t\mid x_t]$ and the score $s=\nabla\log p_t$? No third network is
# needed: whoever has $v$ and $\eta$ can run the ODE and every SDE.


# %% nbgrader={"grade": false, "grade_id": "q5_2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def velocity_and_score(v, eta, t, a):
    """b and s, both (b, d), from v and eta (b, d), times t (b,) strictly between 0 and 1, and a
    number a."""
    ### BEGIN SOLUTION
    clock = t[:, None]
    gamma = torch.sqrt(a * clock * (1 - clock))
    gamma_dot = a * (1 - 2 * clock) / (2 * gamma)
    return v + gamma_dot * eta, -eta / gamma
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_2_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("5.2")
### BEGIN HIDDEN TESTS
assert check("5.2", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.3 One marginal flow, many walks (10 points)
# The ODE $\dot x=b$ and all SDEs with $\epsilon\ge0$ have the same marginals (equation 5). Walk *down*, from the first of
# `times` to the last: $dx=(b-\epsilon s)\,dt+\sqrt{2\epsilon}\,d\bar W$, by Euler-Maruyama. Ask `velocity(x, t)` and `score(x, t)`, $t$ a number, where a step
# begins. `noise[k]` is standard normal, and belongs to step $k$; the last step gets its noise, too. Samplers differ in $\epsilon$, not in what they
# are trained for.


# %% nbgrader={"grade": false, "grade_id": "q5_3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def walk_down(velocity, score, x, times, epsilon, noise):
    """x at times[-1], (b, d), from x (b, d) at times[0], falling times (n + 1,), a number epsilon
    and noise (n, b, d)."""
    ### BEGIN SOLUTION
    for k in range(len(times) - 1):
        now, dt = float(times[k]), float(times[k + 1] - times[k])  # dt is negative
        drift = velocity(x, now) - epsilon * score(x, now)
        x = x + drift * dt + math.sqrt(2 * epsilon * abs(dt)) * noise[k]
    return x
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_3_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("5.3")
### BEGIN HIDDEN TESTS
assert check("5.3", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.4 Special cases (8 points)
# Two rows of the table. **VP** is $dx=-\frac12r(t)\,x\,dt+\sqrt{r(t)}\,dW$ with a *rate* that grows evenly, $r(t)=r_0+(r_1-r_0)\,t$: which $\alpha$
# and $\sigma$ has $x_t=\alpha x_0+\sigma\epsilon$? **VE** is $dx=g(t)\,dW$ with noise of standard deviation
# $\sigma(t)=\sigma_{\min}(\sigma_{\max}/\sigma_{\min})^t$: from $\sigma_{\min}^2$ on, the *variance* grows by what $g^2$ adds up to. Which $g$? Both are
# often printed wrong, and a sampler with a wrong $g$ does not arrive.


# %% nbgrader={"grade": false, "grade_id": "q5_4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def special_cases(t, rate_0, rate_1, sigma_min, sigma_max):
    """alpha and sigma of VP and g of VE, three tensors (n,), at times t (n,); the others are
    numbers."""
    ### BEGIN SOLUTION
    integral = rate_0 * t + (rate_1 - rate_0) * t**2 / 2
    alpha, sigma = torch.exp(-integral / 2), torch.sqrt(1 - torch.exp(-integral))
    log_ratio = math.log(sigma_max / sigma_min)
    g = sigma_min * torch.exp(log_ratio * t) * math.sqrt(2 * log_ratio)
    return alpha, sigma, g
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_4_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("5.4")
### BEGIN HIDDEN TESTS
assert check("5.4", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.5 Who goes with whom (7 points)
# Pairs may be chosen freely. Find the permutation of this batch that makes $\sum_i\|x_0^i-x_1^{\pi(i)}\|^2$ smallest (`scipy` knows
# how), and return $x_1$ in that order. Straighter trajectories for the price of one assignment per batch.


# %% nbgrader={"grade": false, "grade_id": "q5_5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def partners(x0, x1):
    """x1 in the order of its partners: row i belongs to x0[i]; all are (n, d)."""
    ### BEGIN SOLUTION
    cost = torch.cdist(x0, x1).square()
    _, pick = linear_sum_assignment(cost.numpy())
    return x1[pick]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_5_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("5.5")
### BEGIN HIDDEN TESTS
assert check("5.5", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.6 Bits per dimension (10 points)
# A coupling layer keeps the numbers where `mask` is True, and moves the others: $z=x\,e^s+m$ with $s=\mathtt{bound}\cdot\tanh(\cdot)$. Both come from
# `network`, which sees the kept numbers (the others set to 0) and returns (b, 2d), first what goes into the $\tanh$, then $m$. Behind the
# layer $z$ is standard normal. The pictures are dequantised: a grey level is a cell of width `step`, and its probability is the density times
# the cell's *volume*. How many bits per dimension? Two constants are easily forgotten.


# %% nbgrader={"grade": false, "grade_id": "q5_6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def flow_bits(x, mask, network, bound, step):
    """Bits per dimension of each picture, (b,), from x (b, d), mask (d,), a function and two
    numbers."""
    ### BEGIN SOLUTION
    d = x.shape[1]
    raw, shift = network(x * mask).split(d, dim=1)
    moved = (~mask).to(x)
    s = moved * bound * torch.tanh(raw)
    z = x * torch.exp(s) + moved * shift
    log_normal = -0.5 * (z**2).sum(1) - 0.5 * d * math.log(2 * math.pi)
    log_probability = log_normal + s.sum(1) + d * math.log(step)
    return -log_probability / (d * math.log(2))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_6_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("5.6")
### BEGIN HIDDEN TESTS
assert check("5.6", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.7 An importance-weighted bound (10 points)
# For each picture, $\log\frac1K\sum_k\frac{p(x|z_k)\,p(z_k)}{q(z_k|x)}\le\log p(x)$. Here $q=\mathcal N(\mu,\mathrm{diag}\,\varsigma^2)$ is what the encoder
# says of it, $p(z)=\mathcal N(0,I)$, and the decoder is linear, $p(x|z)=\mathcal N(Wz,\,s^2I)$. The draws are $z_k=\mu+\varsigma\,\varepsilon_k$
# with the `noise` $\varepsilon_k$. Stay with logarithms, and keep every normaliser: a bound without them bounds nothing.


# %% nbgrader={"grade": false, "grade_id": "q5_7", "locked": false, "schema_version": 3, "solution": true, "task": false}
def iw_bound(x, mean, std, W, s, noise):
    """The bound of each picture, (b,), from x (b, d), mean and std (b, l), W (d, l), a number s
    and noise (K, b, l)."""
    ### BEGIN SOLUTION
    z = mean + std * noise
    d, two_pi = x.shape[1], math.log(2 * math.pi)
    log_decoder = -((x - torch.einsum("dl,kbl->kbd", W, z)) ** 2).sum(-1) / (2 * s**2) - d * (math.log(s) + two_pi / 2)
    log_ratio = (-(z**2) / 2 + noise**2 / 2 + std.log()).sum(-1)  # log p(z) - log q(z|x): two pi cancels
    return torch.logsumexp(log_decoder + log_ratio, dim=0) - math.log(len(noise))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_7_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("5.7")
### BEGIN HIDDEN TESTS
assert check("5.7", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.8 Straight through (9 points)
# A VQ-VAE replaces $z_e$ by the nearest code $e$. Return a $z$ that *is* $e$ and whose gradient goes to $z_e$ as if nothing had happened, and
# the loss $\|\mathrm{sg}[z_e]-e\|^2+\beta\,\|z_e-\mathrm{sg}[e]\|^2$, mean over the batch; sg stops gradients. What is judged is who hears what:
# the reconstruction is heard by the encoder only, the first term by the codebook only, the second by the encoder only.


# %% nbgrader={"grade": false, "grade_id": "q5_8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantise(z_e, codes, beta):
    """z (b, d) and the loss, one number as a tensor, from z_e (b, d), codes (k, d) and a number
    beta."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        pick = ((z_e[:, None, :] - codes[None, :, :]) ** 2).sum(-1).argmin(dim=1)
    e = codes[pick]
    z = z_e + (e - z_e).detach()
    codebook, commitment = ((z_e.detach() - e) ** 2).sum(-1), ((z_e - e.detach()) ** 2).sum(-1)
    return z, (codebook + beta * commitment).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_8_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("5.8")
### BEGIN HIDDEN TESTS
assert check("5.8", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.9 A critic that does not circle (9 points)
# The critic returns logits: $L_D=\overline{\mathrm{softplus}(-D(x))}+\overline{\mathrm{softplus}(D(\tilde x))}+\frac\gamma2\,\overline{\|\nabla_xD(x)\|^2}$, with means over
# the real $x$ and the fake $\tilde x$, and the slope at the *data* (R1). The fakes come straight from a generator. Judged are the loss, the
# gradients of the critic's weights, and that the generator hears nothing of it. That little penalty is what made the Dirac-GAN's circle a spiral.


# %% nbgrader={"grade": false, "grade_id": "q5_9", "locked": false, "schema_version": 3, "solution": true, "task": false}
def critic_loss(critic, real, fake, gamma):
    """The loss, one number as a tensor; critic takes (n, d) to (n,), real is (n, d), fake (m, d),
    gamma a number."""
    ### BEGIN SOLUTION
    at = real.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    penalty = (slope**2).sum(dim=1).mean()
    return softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean() + gamma / 2 * penalty
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_9_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("5.9")
### BEGIN HIDDEN TESTS
assert check("5.9", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.10 An energy, without its normaliser (8 points)
# $p=e^{-E}/Z$, and nobody knows $Z$. Hyvärinen's loss does without: the mean over the data of $\frac12\|\nabla E\|^2-\Delta E$. The Laplacian
# $\Delta E$ is the sum of the *unmixed* second derivatives. The loss is to be minimised, so gradients of the energy's weights must get
# through both terms; they are judged, too.


# %% nbgrader={"grade": false, "grade_id": "q5_10", "locked": false, "schema_version": 3, "solution": true, "task": false}
def hyvarinen(energy, x):
    """The loss, one number as a tensor; energy takes (b, d) to (b,), each sample for itself, and x
    is (b, d)."""
    ### BEGIN SOLUTION
    at = x.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(at).sum(), at, create_graph=True)
    laplacian = torch.zeros(len(x))
    for i in range(x.shape[1]):
        (row,) = torch.autograd.grad(slope[:, i].sum(), at, create_graph=True)
        laplacian = laplacian + row[:, i]
    return (0.5 * (slope**2).sum(dim=1) - laplacian).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_10_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("5.10")
### BEGIN HIDDEN TESTS
assert check("5.10", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.11 Steepest descent of a density (7 points)
# One JKO step, $\arg\min_\rho\ \mathrm{KL}(\rho\,\|\,\mathcal N(m_*,v_*))+\frac1{2\tau}W_2^2(\rho,\mathcal N(m,\sigma^2))$. The minimiser is a Gaussian again, so
# two numbers are wanted. Up to a constant the KL of $\mathcal N(\mu,s^2)$ is $\frac{(\mu-m_*)^2+s^2}{2v_*}-\log s$, and between Gaussians of one
# dimension $W_2^2=(\mu-m)^2+(s-\sigma)^2$. Set two derivatives to zero. It is an implicit step, hence stable for every $\tau$.


# %% nbgrader={"grade": false, "grade_id": "q5_11", "locked": false, "schema_version": 3, "solution": true, "task": false}
def jko_step(mean, var, tau, goal_mean, goal_var):
    """Mean and variance after the step, two numbers; var and goal_var are variances."""
    ### BEGIN SOLUTION
    r = tau / goal_var
    new_mean = (mean + r * goal_mean) / (1 + r)
    sigma = math.sqrt(var)  # (1 + r) s^2 - sigma s - tau = 0
    new_std = (sigma + math.sqrt(sigma**2 + 4 * (1 + r) * tau)) / (2 * (1 + r))
    return new_mean, new_std**2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_11_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("5.11")
### BEGIN HIDDEN TESTS
assert check("5.11", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 5.12 Boss: a batch of a Schrödinger bridge (9 points)
# Everything at once. Given are $n$ data and $m$ points of the other end, all equally likely.
# 1. **Coupling.** The entropic plan $\pi_{ij}\propto e^{f_i+g_j-\|x_0^i-x_1^j\|^2/2\sigma^2}$, with row sums $1/n$ and column sums $1/m$: `rounds` of
#    Sinkhorn, in logarithms: choose $f$ so that the rows are right, then $g$ so that the columns are, and again (45 rounds or more, so that
#    nothing depends on who begins). Return the *conditional* chances $\pi(j|i)$.
# 2. **Partners.** For each data point draw one: the first $j$ at which the cumulated chances exceed `u[i]`.
# 3. **Bridge.** $x_t=(1-t)x_0+t\,x_1+\sigma\sqrt{t(1-t)}\,z$, pinned at both ends. Return it, and its target velocity $\dot x_t$, given the pair and $z$.
#
# A network that regresses this velocity (and $z$, for the score) *is* the bridge between the two ends, from noise to transport.


# %% nbgrader={"grade": false, "grade_id": "q5_12", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bridge_batch(x0, x1, sigma, rounds, u, t, z):
    """The chances (n, m), x_t and its velocity (n, d); x0, z are (n, d), x1 (m, d), u, t (n,),
    sigma and rounds numbers."""
    ### BEGIN SOLUTION
    n, m = len(x0), len(x1)
    log_kernel = -((x0[:, None] - x1[None]) ** 2).sum(-1) / (2 * sigma**2)
    f, g = torch.zeros(n, 1), torch.zeros(1, m)
    for _ in range(rounds):
        f = -math.log(n) - torch.logsumexp(log_kernel + g, dim=1, keepdim=True)
        g = -math.log(m) - torch.logsumexp(log_kernel + f, dim=0, keepdim=True)
    chances = torch.softmax(log_kernel + g, dim=1)
    j = torch.searchsorted(chances.cumsum(1), u[:, None], right=True).clamp(max=m - 1)[:, 0]
    partner, t = x1[j], t[:, None]
    root = torch.sqrt(t * (1 - t))
    x_t = (1 - t) * x0 + t * partner + sigma * root * z
    return chances, x_t, partner - x0 + sigma * (1 - 2 * t) / (2 * root) * z
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q5_12_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("5.12")
### BEGIN HIDDEN TESTS
assert check("5.12", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## That was it
# Twelve ticks are 100 points. What to look at next: give `bridge_batch` a small and a large $\sigma$, and see in the bridge widget of Lecture 5
# what becomes of the coupling; or take `velocity_and_score` and `walk_down` to section 2.1 of the lab, where the two networks are trained.
