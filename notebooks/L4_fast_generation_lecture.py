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
# # Lecture 4 · Consistency models and fast generation
# *The solver takes fifty steps to evaluate a function. Learn the function.*
#
# **After this lecture you will be able to**
# - draw the exact function that every one-step generator of this lecture is after, and say where it is hard;
# - derive consistency training and distillation from one sentence, and predict the order of their errors;
# - say what the theorem behind consistency models promises, and refute the version that is usually printed;
# - differentiate a network along its own trajectories, and read sCM, CTM, shortcut models and MeanFlow as one idea;
# - tell the three families of one-step students apart by what they do between two modes;
# - take apart the claim that information theory demands thousands of steps.
#
# **Time** 110 min reading · runs in 60 s · peak memory 0.9 GB (2 CPU cores)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is
# the plain conditional model. Most of this lecture lives on EDM's path, where $x_t=x_0+t\,\epsilon$ and $t$ runs to 80.

# %%
import itertools
import math

import torch
from scipy.stats import norm

from lecture_lib import distill, viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import EDM, RectifiedFlow, Trigonometric, karras_grid, uniform_grid
from lecture_lib.data import digits
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import DDIM, ConsistencyMultistep, Euler, Heun, last, sample

torch.set_grad_enabled(False)  # gradients are asked for where they are needed
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## 0 · Thirty seconds
# One batch of noise, two roads. Above, a transformer is asked a hundred times along the way (fifty steps of Heun's
# method). Below, its student is asked **once**.

# %%
teacher, student = zoo.load("digits-dit"), zoo.load("digits-one-step")
labels = torch.arange(10)
noise = torch.randn(10, 1, 8, 8, generator=seeded(3))
slow = last(sample(teacher.given(labels), teacher.path, Heun(), uniform_grid(teacher.path, 50), noise))
fast = distill.ConsistencyFunction(student, labels)(noise, torch.ones(10, dtype=torch.float64))

# %%
viz.show(
    viz.image_grid(torch.cat([slow, fast]), columns=10, scale=7, row_labels=["100 evaluations", "1 evaluation"]),
    caption="The same noise in each column. The student was never told which digit belongs to which noise: it learned "
    "where its teacher's trajectories end.",
    alt="Two rows of ten generated digits from the same noise: by fifty steps of a solver, and by one evaluation of a student.",
)
together = torch.corrcoef(torch.stack([slow.flatten(), fast.flatten()]))[0, 1]
verify_less("the same digits, pixel by pixel", 0.6, together)

# %% [markdown]
# Nothing random happens on the upper road: the same noise always gives the same digit. A process that turns one input
# into one output, always in the same way, *is a function*, however long it takes. This lecture looks at that function,
# first in a world where it is known to ten digits, and then asks how a network can learn it.
#
# ## 1 · Play

# %%
widgets.flow_map_explorer()

# %% [markdown]
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. Noise of two million different values goes in, and out come three modes. Where do nearby values of noise end far
#    apart?
# 2. A denoiser is asked for $x_0$ at $t=80$, where nothing is left of the data. What does it say? And what does the
#    exact function say?
# 3. Which is harder to learn: the function at small $t$, or at large $t$?
#
# <details><summary>Answers</summary>
#
# 1. At the borders between the modes' catchment areas. There the function is as steep as a cliff, everywhere else nearly
#    flat.
# 2. The denoiser says the mean of all data, whatever it is shown. The function says where *this* noise will end.
# 3. At large $t$. Near the data it is almost the identity: little is left to be decided.
# </details>
#
# ## 2 · Intuition, and where each picture breaks
#
# | picture | what it explains | where it breaks |
# |---|---|---|
# | a river system: every drop above flows to one place below | why one noise has one picture, and why trajectories never cross | rivers merge; these never do, the map can be run upstream |
# | a staircase with treads (modes) and risers (borders) | why one step is hard: the risers | in a thousand dimensions the "risers" are surfaces, and most of the map's work is not between classes |
# | tutoring: the student copies the master's last stroke | distillation without solving to the end | the student is compared with *itself* one step on, not with the master's finished picture |
# | folding a map along its creases | each method folds the trajectory differently | a fold can be undone; what a student forgets is gone |
#
# ## 3 · Derivation
# ### 3.1 The function behind the solver
# The probability-flow ODE moves $x_t$ without noise, and its marginals are those of diffusion (Lecture 1):
#
# $$\frac{dx_t}{dt}=\dot\alpha_t\,\hat x_0(x_t,t)+\dot\sigma_t\,\hat\epsilon(x_t,t)\tag{1}$$
#
# Its **flow map** $\Phi(x_t,t,s)=x_s$ says where a point comes to be. Solutions of an ODE through one point are unique,
# so it does not matter whether one stops on the way:
#
# $$\Phi(x,t,t)=x,\qquad \Phi\big(\Phi(x,t,u),u,s\big)=\Phi(x,t,s)\tag{2}$$
#
# The **consistency function** is the flow map down to the data, $f(x_t,t)=\Phi(x_t,t,0)$. In a mixture of Gaussians
# the right-hand side of (1) is known in closed form, and a good solver gives $\Phi$ to ten digits.

# %%
path = EDM()
world = GaussianMixture([0.3, 0.45, 0.25], [[-1.3], [0.2], [1.4]], [0.02, 0.01, 0.03])
denoise = world.denoise(path)


def at(t, n):
    return torch.full((n,), float(t), dtype=torch.float64)


def phi(x, t, s):
    return flow_map(denoise, path, x, at(t, len(x)), at(s, len(x)))


x_T = torch.linspace(-200, 200, 401, dtype=torch.float64)[:, None]
end = phi(x_T, 80, 0)
verify("stopping on the way changes nothing (Eq. 2)", phi(phi(x_T, 80, 3), 3, 0), end, tol=1e-8)
verify("and the river runs back up", phi(end, 0, 80), x_T, tol=1e-5)

# %% [markdown]
# The second line allows a thousand times more: upstream, the cliffs between the modes magnify the last digit.
#
# Is it really the right function? In one dimension there is a witness that knows nothing of ODEs. Trajectories on a
# line cannot overtake each other, so a point keeps its *rank*: the share of probability to its left is the same at
# both ends. With $F_t$ the distribution function of $x_t$, that is $f(x,t)=F_0^{-1}(F_t(x))$.


# %%
def rank(x, t):
    """F_t(x): the share of probability to the left of x."""
    std = (world.variances[:, 0] + t**2).sqrt()
    return (world.weights * torch.from_numpy(norm.cdf((x - world.means[:, 0]) / std))).sum(1)


verify("every point keeps its rank", rank(end, 0), rank(x_T, 80), tol=1e-9)

# %%
with viz.style():
    figure, (left, right) = viz.panels(1, 2, size=(9.8, 3.7), width_ratios=(1.45, 1))
mean = denoise(x_T, at(80, 401)).x0
left.plot(x_T / 80, end, color=viz.EXACT, linestyle="--", label="consistency function $f(x,80)$")
left.plot(x_T / 80, mean, color=viz.UNCONDITIONAL, label=r"denoiser $\mathrm{E}[x_0\,|\,x_{80}=x]$")
left.set(xlabel="$x_{80}/80$ (standard deviations of the noise)", ylabel="$x_0$", title="a staircase, and a nearly flat line")
viz.legend(left)
places = torch.linspace(-2.2, 2.2, 300, dtype=torch.float64)[:, None]
right.plot(world.log_prob(places).exp(), places, color=viz.DATA)
right.set(xlabel="density of the data", ylabel="$x_0$", title="three modes: three treads")
viz.show(
    figure,
    caption="Left, dashed: the function that a one-step generator has to be. Its treads are the modes, its risers the borders "
    "between them; most noise (within two standard deviations) lands on a tread.",
    alt="A staircase function with three treads beside the density of three modes, and a nearly constant line for the denoiser.",
)
slope = end.diff(dim=0) / x_T.diff(dim=0) * 80
verify_less("steepest riser against the median tread: more than 20 times", 20 * slope[100:300].median(), slope.max())

# %% [markdown]
# ### 3.2 Along one trajectory
# Take one trajectory and ask, at every $t$ on it: *what is $x_0$?* The denoiser answers with a mean over everything that
# could have become $x_t$, and changes its mind on the way. The consistency function cannot change its mind: all points
# of the trajectory have the same end.

# %%
t_grid = torch.cat([karras_grid(path, 60, sigma_max=80.0, sigma_min=0.02)[:-1]])
starts = torch.tensor([[-70.0], [-30.0], [22.0], [95.0]], dtype=torch.float64)
on_way = torch.stack([phi(starts, 80, float(t)) for t in t_grid])  # (60, 4, 1)
said = torch.stack([denoise(x, at(t, 4)).x0 for x, t in zip(on_way, t_grid, strict=True)])
kept = torch.stack([phi(x, float(t), 0) for x, t in zip(on_way, t_grid, strict=True)])

with viz.style():
    figure, axes = viz.panels(1, 2, size=(9.6, 3.4), sharey=True)
for ax, values, title in zip(axes, (said, kept), ("denoiser: bends", "consistency function: flat"), strict=True):
    for k in range(4):
        ax.plot(t_grid, values[:, k, 0], **viz.other(k))
    ax.set(xscale="log", xlabel="$t$ (noise level)", title=title)
axes[0].set_ylabel("$x_0$ as told at $t$")
viz.show(
    figure,
    caption="Four trajectories, asked for their end at every moment. Read from right (noise) to left (data).",
    alt="Left: four curves that start together and part as noise falls. Right: four horizontal lines.",
)
verify("f is constant along each trajectory", kept, kept[-1].expand_as(kept), tol=1e-8)
verify_less("the denoiser moves by more than half a unit on each", 0.5, (said[0] - said[-1]).abs())

# %% [markdown]
# **You may read elsewhere** that consistency distillation trains $f(x_t,t)$ towards the teacher's $\hat x_0(x_t,t)$. Then
# the minimum is the left panel: a denoiser. Run its one step and see what it makes of noise:

# %%
noise_T = 80 * torch.randn(4000, 1, generator=seeded(1), dtype=torch.float64)
means, truth = denoise(noise_T, at(80, 4000)).x0, phi(noise_T, 80, 0)
data = world.sample(4000, generator=seeded(2))
print(f"standard deviation of the data {data.std():.3f}, of f's samples {truth.std():.3f}, of the denoiser's {means.std():.3f}")
verify("one step of f: the data's standard deviation", truth.std(), data.std(), tol=0.05)
verify_less("one step of the denoiser: less than a twentieth of it", means.std(), data.std() / 20)

# %% [markdown]
# And **you may read** that sampling starts from `randn`. On this path the noise at $t=80$ has standard deviation 80, not 1.
# Started 80 times too small, everything lands near the middle of the staircase:

# %%
narrow = phi(noise_T / 80, 80, 0)
print(f"from N(0, 80^2): {truth.std():.3f}   from N(0, 1): {narrow.std():.4f}")
verify_less("the picture collapses", narrow.std(), 0.1 * truth.std())
gaussian = GaussianMixture([1.0], [[0.0]], [0.25])  # standard deviation 0.5, where f is one number times x
exact = distill.exact_consistency(gaussian.denoise(path), path)(x_T[300:], at(80, 101)) / x_T[300:]
verify("Gaussian data: f(x, 80) = x s / sqrt(s^2 + 80^2)", exact, 0.5 / math.hypot(0.5, 80), tol=1e-9)

# %% [markdown]
# ### 3.3 The boundary, and why it is built in
# Equation (2) alone does not determine $f$: a constant satisfies it too. What pins $f$ down is the **boundary condition**
# $f(x,\varepsilon)=x$: a picture without noise is its own end. Every method of this lecture builds it into the
# parameterization, so that no training can lose it:
#
# $$f(x,t)=c_{skip}(t)\,x+c_{out}(t)\,F(x,t),\qquad c_{skip}(\varepsilon)=1,\quad c_{out}(\varepsilon)=0\tag{3}$$
#
# In Song et al. $\varepsilon=0.002$ and $c_{skip}=\frac{\sigma_d^2}{(t-\varepsilon)^2+\sigma_d^2}$,
# $c_{out}=\frac{\sigma_d(t-\varepsilon)}{\sqrt{t^2+\sigma_d^2}}$. **You may read** these without "$-\varepsilon$". Those are
# EDM's, for a boundary at zero; at 0.002 they miss:

# %%
eps_time = path.coeffs(torch.tensor([0.002], dtype=torch.float64))
right = distill.consistency_scalings(0.5, end=0.002).scalings(eps_time)
wrong = distill.consistency_scalings(0.5, end=0.0).scalings(eps_time)
print(f"with t - eps: ({right[0].item():.6f}, {right[1].item():.4f})    without: ({wrong[0].item():.6f}, {wrong[1].item():.4f})")
verify("c_skip, c_out at the boundary", right, [1.0, 0.0], tol=0)
verify_less("EDM's own move x by up to c_out F there", 0.001, wrong[1])

# %% [markdown]
# Nothing new has to be built for this. A consistency function is a denoiser whose $x_0$ *is read as the end of the
# trajectory*. In every parameterization but $x_0$ itself (eps, v, velocity, EDM's $F$) clean data determines $x_0$,
# whatever the network says, so the boundary at 0 comes for free. Look at the whole class:

# %%
print(inspect.getsource(distill.ConsistencyFunction.__call__))
