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
# # Exercise 4 · Fast generation
# *Twelve questions, 100 points. From one line to a whole reflow.*
#
# **How it works.** Write each function where it says so, and run the cell below it: `check` answers at once, and says what is wrong, not only
# that something is. Answers may use torch, numpy, scipy and math. Checks use random numbers, end points and closed forms; the marks are
# given by the same checks on fresh random numbers. No answer draws random numbers: noise comes with the question.
#
# Questions 3, 4, 9 and 11 ask for a *loss*. There `check` looks at its gradient as well, because half of what makes these methods work is where
# the gradient does **not** go. Where a formula says $\mathrm{sg}$, stop it with `.detach()` or `torch.no_grad()`.
#
# **Time** about 105 minutes (an estimate). **You need** Lecture 4 up to 3.13. Questions 1 to 6, 8 and 11 live on EDM's path, $x_t=x_0+t\,\epsilon$.

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
from itertools import pairwise

import torch

from lecture_lib.exercises import check

# %% [markdown]
# ## 4.1 The function behind the solver (6 points)
# All of this lecture is about one function, $\Phi(x_t,t,s)=x_s$: where the flow takes a point between two times. For data
# $\mathcal N(\mu,s_d^2)$ it is known. Trajectories cannot overtake each other, so a point keeps its rank; among Gaussians, that is its distance from
# the mean *counted in standard deviations*. What is the standard deviation of $x_t$, and of $x_s$?
#
# Note what you have then: any number of solver's steps in one evaluation. So much for "2284 steps are needed" (3.15).


# %% nbgrader={"grade": false, "grade_id": "q4_1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gaussian_flow_map(x, t, s, mean, std):
    """x at time s, (b, d), from x at time t (b, d); t and s are (b,), mean is (d,), std a number."""
    ### BEGIN SOLUTION
    z = (x - mean) / torch.sqrt(std**2 + t[:, None] ** 2)
    return mean + z * torch.sqrt(std**2 + s[:, None] ** 2)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_1_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("4.1")
### BEGIN HIDDEN TESTS
assert check("4.1", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.2 A boundary that no training can lose (8 points)
# A constant agrees with itself everywhere, so a consistency function needs a fixed end: $f(x,\varepsilon)=x$. It is built in around a raw network $F$:
#
# $$f(x,t)=c_{skip}\,x+c_{out}\,F\big(c_{in}\,x,\ \tfrac14\ln t\big),\qquad c_{skip}=\frac{s_d^2}{(t-\varepsilon)^2+s_d^2},\quad
# c_{out}=\frac{s_d\,(t-\varepsilon)}{\sqrt{t^2+s_d^2}},\quad c_{in}=\frac1{\sqrt{t^2+s_d^2}}$$
#
# Before you write it down: what are the three at $t=\varepsilon$? And in EDM, where $\varepsilon$ is left out?


# %% nbgrader={"grade": false, "grade_id": "q4_2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def consistency_function(F, x, t, eps, std):
    """f(x, t), (b, d), for x (b, d) and t (b,); F takes an input (b, d) and a noise level (b,);
    eps, std: numbers."""
    ### BEGIN SOLUTION
    beyond, width = (t - eps)[:, None], torch.sqrt(t**2 + std**2)[:, None]
    network = F(x / width, torch.log(t) / 4)
    return std**2 / (beyond**2 + std**2) * x + std * beyond / width * network
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_2_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("4.2")
### BEGIN HIDDEN TESTS
assert check("4.2", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.3 Consistency training (9 points)
# From one time to the next $f$ must not change. Two points, $x_t$ and $x_u$ with $u<t$, and the nearer one to the data is the target:
#
# $$\mathcal L=\mathrm{mean}\,\big|f(x_t,t)-\mathrm{sg}\,f(x_u,u)\big|^2$$
#
# Without a teacher both points are made of data and noise. You are given two draws of noise; if one is enough, take `noise`. The
# mean is over all numbers of the batch. One wrong choice here and $f$ collapses to a point, another and it stays at 0.64 of the truth.


# %% nbgrader={"grade": false, "grade_id": "q4_3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ct_loss(f, x0, noise, spare, t, u):
    """The loss, one number; f(x, t) takes (b, d) and (b,); x0, noise and spare are (b, d), t and u
    are (b,)."""
    ### BEGIN SOLUTION
    x_t, x_u = x0 + t[:, None] * noise, x0 + u[:, None] * noise
    with torch.no_grad():
        target = f(x_u, u)
    return ((f(x_t, t) - target) ** 2).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_3_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("4.3")
### BEGIN HIDDEN TESTS
assert check("4.3", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.4 Consistency distillation (9 points)
# With a teacher $x_u$ need not be guessed: *one* Euler step, from $t$ to $u$, on the teacher's ODE $\dfrac{dx}{dt}=\dfrac{x-D(x,t)}{t}$, with $D$ its
# denoiser. And let the target come from a slow average of the student's weights, $f^-$, as in the first papers:
#
# $$\mathcal L=\mathrm{mean}\,\big|f(x_t,t)-\mathrm{sg}\,f^-(\hat x_u,u)\big|^2$$
#
# What does *not* stand here is $D$ as the target. That is the most popular mistake about distillation, and it gives back the denoiser.


# %% nbgrader={"grade": false, "grade_id": "q4_4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cd_loss(f, f_slow, denoiser, x0, noise, t, u):
    """The loss, one number; f, f_slow and denoiser take (b, d) and (b,); x0 and noise are (b, d),
    t and u are (b,)."""
    ### BEGIN SOLUTION
    x_t = x0 + t[:, None] * noise
    with torch.no_grad():
        slope = (x_t - denoiser(x_t, t)) / t[:, None]
        target = f_slow(x_t + (u - t)[:, None] * slope, u)
    return ((f(x_t, t) - target) ** 2).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_4_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("4.4")
### BEGIN HIDDEN TESTS
assert check("4.4", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.5 Which rungs, and how often (9 points)
# A coarse ladder learns fast and ends wrong, a fine one ends right and learns slowly. So iCT refines it while training. After $k$ of $K$ updates
# ($k,K$ and the two sizes $s_0<s_1=2^m s_0$ are whole numbers):
#
# $$N=\min\big(s_0\,2^{\lfloor k/K'\rfloor},\,s_1\big)+1,\quad K'=\Big\lfloor\frac K{m+1}\Big\rfloor,\qquad
# t_i=\Big(l^{1/7}+\tfrac{i-1}{N-1}\,(h^{1/7}-l^{1/7})\Big)^7,\quad i=1,\dots,N$$
#
# with $l$, $h$ the lowest and the highest noise level. A pair $(t_{n+1},t_n)$ is drawn with the probability that a lognormal $t$ lies between them (mean $\mu$ and
# standard deviation $\varsigma$ are those of $\ln t$): $p_n\propto\mathrm{erf}\Big(\frac{\ln t_{n+1}-\mu}{\sqrt2\,\varsigma}\Big)-\mathrm{erf}\Big(\frac{\ln t_n-\mu}{\sqrt2\,\varsigma}\Big)$, all together 1.


# %% nbgrader={"grade": false, "grade_id": "q4_5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ict_curriculum(k, total, first, last, low, high, mean, std):
    """Two tensors: the grid (N,), rising, and the odds (N - 1,) of its pairs.

    k, total, first and last stand for k, K, s_0 and s_1, low and high for l and h, mean and std for the law of ln t.
    """
    ### BEGIN SOLUTION
    doublings = round(math.log2(last / first))
    per_stage = total // (doublings + 1)
    n = min(first * 2 ** (k // per_stage), last) + 1
    share = torch.arange(n) / (n - 1)
    grid = (low ** (1 / 7) + share * (high ** (1 / 7) - low ** (1 / 7))) ** 7
    below = torch.erf((grid.log() - mean) / (math.sqrt(2) * std))
    odds = below[1:] - below[:-1]
    return grid, odds / odds.sum()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_5_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("4.5")
### BEGIN HIDDEN TESTS
assert check("4.5", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.6 A distance that forgives outliers (6 points)
# $d(a,b)=\sqrt{|a-b|^2+c^2}-c$ is a square near zero and a length far away. Its length is that of the *whole* sample, and since lengths grow with
# the number $d$ of dimensions, so does its width: $c=\mathtt{factor}\cdot\sqrt d$. (iCT's factor is 0.00054. You may read that this is $c$.)


# %% nbgrader={"grade": false, "grade_id": "q4_6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pseudo_huber(a, b, factor):
    """The distance of each sample, (b,), from two batches of the same shape (b, ...) and a number."""
    ### BEGIN SOLUTION
    gap = (a - b).flatten(1)
    c = factor * math.sqrt(gap.shape[1])
    return torch.sqrt((gap**2).sum(dim=1) + c**2) - c
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_6_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("4.6")
### BEGIN HIDDEN TESTS
assert check("4.6", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.7 A quarter circle, without a grid (9 points)
# On sCM's path $x_t=\cos t\,x_0+\sin t\,\epsilon$ the consistency function is $f=\cos t\,x_t-\sin t\,F(x_t,t)$, and the limit of ever smaller steps
# is a derivative along the trajectory. Told as where $F$ should go, with $v=dx_t/dt$ and a warm-up $r\in[0,1]$:
#
# $$g=-\cos^2\!t\,(F-v)-r\cos t\sin t\,\Big(x_t+\frac{dF}{dt}\Big),\qquad \text{target}=F+\frac g{|g|+c}$$
#
# where each sample has a length $|g|$ of its own. $\frac{dF}{dt}$ is the *total* derivative: time goes on, and the point moves. In your own code `torch.func.jvp` finds it in
# one pass; here the network comes with it: `F_jvp(x, t, dx, dt)` returns two things, $F(x,t)$ and its derivative as $x$ and $t$ move in the directions `dx` and `dt`.


# %% nbgrader={"grade": false, "grade_id": "q4_7", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scm_target(F_jvp, x, t, velocity, r, c):
    """Where F should go, (b, d); x and velocity are (b, d), t is (b,), r and c are numbers."""
    ### BEGIN SOLUTION
    F, dF = F_jvp(x, t, velocity, torch.ones_like(t))
    cos, sin = torch.cos(t)[:, None], torch.sin(t)[:, None]
    g = -(cos**2) * (F - velocity) - r * cos * sin * (x + dF)
    length = torch.sqrt((g**2).sum(dim=1, keepdim=True))
    return F + g / (length + c)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_7_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("4.7")
### BEGIN HIDDEN TESTS
assert check("4.7", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.8 More than one jump (8 points)
# A jump $\Phi(x,t,s)$ is not perfect, and noise forgives: go a little *further* than $s$, and add fresh noise up to $s$. With
# $\gamma\in[0,1]$, and $\varepsilon$ where the model's trajectories end, the jump goes to $r=\max\big(\sqrt{1-\gamma^2}\,s,\ \varepsilon\big)$. How much noise leads from level $r$ to level $s$?
# (Variances of independent noises add up.) $\gamma=0$ walks along the trajectory; $\gamma=1$ is multistep sampling of consistency models.
#
# Mind the start: on this path noise at time $T$ does not have size one. `start` has.


# %% nbgrader={"grade": false, "grade_id": "q4_8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gamma_sample(jump, start, times, gamma, eps, noise):
    """The sample (b, d) at times[-1] = eps.

    jump(x, t, s) takes (b, d) and two numbers; start (b, d) is standard normal, to be made into noise at times[0];
    times is a falling list of n + 1 numbers; noise (n, b, d) is standard normal, one for each jump.
    """
    ### BEGIN SOLUTION
    x = times[0] * start
    for i, (t, s) in enumerate(pairwise(times)):
        r = max(s * math.sqrt(1 - gamma**2), eps)
        x = jump(x, t, r) + math.sqrt(s**2 - r**2) * noise[i]
    return x
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_8_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("4.8")
### BEGIN HIDDEN TESTS
assert check("4.8", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.9 An average velocity (9 points)
# MeanFlow lives on the line $x_t=(1-t)\,x_0+t\,\epsilon$ and learns $u(x_t,t,s)$, the average velocity between $t$ and $s<t$, so that a jump is
# $x_s=x_t-(t-s)\,u$. Differentiate $(t-s)\,u=\int_s^tv\,d\tau$ in $t$, along the trajectory, with $s$ held fast: $u=v-(t-s)\frac{du}{dt}$. That is the loss:
#
# $$\mathcal L=\mathrm{mean}\,\Big|u-\mathrm{sg}\Big[v-(t-s)\frac{du}{dt}\Big]\Big|^2$$
#
# $v$ is the velocity of the pair, $dx_t/dt$. As in 4.7 the derivative comes with the network: `u_jvp(x, t, s, dx, dt, ds)` returns $u$ and its derivative in the
# direction `(dx, dt, ds)`. (Leave out `sg`, and the loss rewards a map that is too flat: its noise is squared.)


# %% nbgrader={"grade": false, "grade_id": "q4_9", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mean_flow_loss(u_jvp, x0, noise, t, s):
    """The loss, one number, from x0 and noise (b, d) and times s <= t (b,).

    u_jvp takes x and dx (b, d), and t, s, dt and ds (b,).
    """
    ### BEGIN SOLUTION
    t_, s_ = t[:, None], s[:, None]
    v = noise - x0
    u, du = u_jvp((1 - t_) * x0 + t_ * noise, t, s, v, torch.ones_like(t), torch.zeros_like(s))
    target = v - (t_ - s_) * du
    return ((u - target.detach()) ** 2).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_9_check", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
check("4.9")
### BEGIN HIDDEN TESTS
assert check("4.9", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.10 Two steps told as one (7 points)
# Progressive distillation halves the number of steps: the student does in one DDIM step what its teacher does in two. `now`, `mid` and `then` are the pairs
# $(\alpha,\sigma)$ of three levels. A DDIM step reads $\hat x_0$, and with it $\hat\epsilon=(z-\alpha\hat x_0)/\sigma$, and mixes both anew: $z'=\alpha'\hat x_0+\sigma'\hat\epsilon$.
# Let the teacher make both steps. With which *single* $\tilde x$ does one step from `now` to `then` arrive at the same point $z''$? (Solve for it.)


# %% nbgrader={"grade": false, "grade_id": "q4_10", "locked": false, "schema_version": 3, "solution": true, "task": false}
def halved_target(denoise, z, now, mid, then):
    """The clean data to be learned, (b, d).

    denoise(z, (alpha, sigma)) returns the teacher's x_0, (b, d); now, mid and then are pairs of numbers, the noisiest
    first; in `then` sigma may be 0.
    """
    ### BEGIN SOLUTION
    arrived = z
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise([now, mid, then]):
        x0 = denoise(arrived, (alpha, sigma))
        eps = (arrived - alpha * x0) / sigma
        arrived = alpha_next * x0 + sigma_next * eps
    ratio = then[1] / now[1]
    return (arrived - ratio * z) / (then[0] - ratio * now[0])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_10_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("4.10")
### BEGIN HIDDEN TESTS
assert check("4.10", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.11 Match distributions, not points (8 points)
# DMD lets the student choose which noise becomes what; all samples *together* are to look like the teacher's. Noise the samples, $x_t=x+t\,\epsilon$,
# and ask two denoisers, the teacher's and one of what the student makes at present. Their difference points along the gradient of reverse KL:
#
# $$g=\frac{D_{fake}(x_t,t)-D_{real}(x_t,t)}{\mathrm{mean}\,|x-D_{real}(x_t,t)|},\qquad \mathcal L=\tfrac12\,\mathrm{mean}\,\big|x-\mathrm{sg}(x-g)\big|^2$$
#
# The mean below $g$ is over each sample's own numbers, that of $\mathcal L$ over all. The value of this loss means nothing; its gradient at $x$ *is* $g$, up to the mean.


# %% nbgrader={"grade": false, "grade_id": "q4_11", "locked": false, "schema_version": 3, "solution": true, "task": false}
def matching_loss(x, real, fake, noise, t):
    """The loss, one number; x (b, d) is what the student made; real and fake take (b, d) and (b,);
    noise (b, d), t (b,)."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        x_t = x + t[:, None] * noise
        x0 = real(x_t, t)
        g = (fake(x_t, t) - x0) / (x - x0).abs().mean(dim=1, keepdim=True)
        goal = x - g
    return 0.5 * ((x - goal) ** 2).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_11_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("4.11")
### BEGIN HIDDEN TESTS
assert check("4.11", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 4.12 Boss: reflow (12 points)
# Straight flows need one step. Make one, on the line $x_t=(1-t)\,x_0+t\,\epsilon$, from a `velocity` that is crooked:
#
# 1. **Pairs.** Solve from $\epsilon$ at $t=1$ down to $\hat x_0$ at $t=0$ in `steps` equal steps of Heun's method (slope at both ends of *every* step, their mean).
# 2. **Bend.** How crooked was it? $S=\mathrm{mean}\;|(\epsilon-\hat x_0)-v(x_{t_k},t_k)|^2$, squared lengths of vectors, averaged over samples and over the times $t_k$ at which steps *start*.
# 3. **The new flow.** At each of the given `times`, find the matrix $A_t$ whose linear velocity $x\mapsto xA_t$ (points are rows) has the smallest reflow loss
#    $\sum|x_tA_t-(\epsilon-\hat x_0)|^2$ on the new lines between $\hat x_0$ and $\epsilon$.
# 4. **The bill.** How many evaluations of `velocity` do the pairs cost, per sample?
#
# There is a second draw of noise in the arguments. Ask yourself whether reflow needs it.


# %% nbgrader={"grade": false, "grade_id": "q4_12", "locked": false, "schema_version": 3, "solution": true, "task": false}
def reflow(velocity, noise, spare, steps, times):
    """Four things: the ends (b, d), the bend (a number), the matrices as one tensor (k, d, d), the evaluations (an int).

    velocity(x, t) takes (b, d) and a number; noise and spare are (b, d); times is a list of k numbers.
    """
    ### BEGIN SOLUTION
    x, h, slopes = noise, 1 / steps, []
    for k in range(steps):
        t = 1 - k * h
        here = velocity(x, t)
        there = velocity(x - h * here, t - h)
        x = x - h * (here + there) / 2
        slopes.append(here)
    line = noise - x
    bend = torch.stack([((line - v) ** 2).sum(dim=1) for v in slopes]).mean()
    matrices = [torch.linalg.lstsq((1 - t) * x + t * noise, line).solution for t in times]
    return x, bend, torch.stack(matrices), 2 * steps
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q4_12_check", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check("4.12")
### BEGIN HIDDEN TESTS
assert check("4.12", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## That was it
# Twelve ticks are 100 points, and you have written the core of eight papers. What to look at next: train `ct_loss` of your own on the ring (section 4.2 of
# the lab), break it on purpose, and see whether the picture says the same as `check`.
