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
# # Lecture 2 · Guidance
# *Turn one knob and the pictures get sharper. Which distribution are you sampling?*
#
# **After this lecture you will be able to**
# - derive classifier guidance and classifier-free guidance from Bayes' rule, in three languages (score, noise,
#   density);
# - say what $w$ means in any paper, and convert between $w$ and $1+w$ without fear;
# - prove that guidance does not care what the network predicts, and find the operation that breaks this;
# - compute in closed form what a guided sampler really produces, and show that it is *not* the sharpened density;
# - predict where samples go as $w\to\infty$, when a negative prompt stops making sense, and what all of it costs.
#
# **Time** 90 min reading · runs in 19 s · peak memory 0.5 GB (2 CPU cores)
#
# **You need** the conventions page of `00_start_here`: $t=0$ is data, $t=1$ is noise,
# $x_t=\alpha_t x_0+\sigma_t\epsilon$, and $w=1$ is the plain conditional model.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# Do not read the list aloud. One sentence is enough: by the end they will know what $w$ does to the *distribution*,
# not only to one picture. Next slide: thirty seconds of silence, then ask what changes from row to row and what does
# not. At $w=0$ the column labels are ignored; from $w=1$ on all ten columns are obeyed, so on these easy digits
# guidance is not needed for obedience. What still changes after that is contrast and the shape of strokes. Common
# question: "so is more guidance always sharper?" Leave it open; the whole lecture answers it.
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
import math

import torch

from lecture_lib import viz, widgets, zoo
from lecture_lib.checks import verify, verify_less
from lecture_lib.core import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    RectifiedFlow,
    V,
    VPCosine,
    drop_condition,
    logsnr_grid,
    uniform_grid,
)
from lecture_lib.data import digits
from lecture_lib.guidance import classifier_guidance, clipped, extrapolate, fused, interval, linear
from lecture_lib.metrics import fidelity_diversity
from lecture_lib.oracles import Gaussian, GaussianMixture, Tilted, guided_moments, guided_ode_variance, tilted_gaussian
from lecture_lib.samplers import DDIM, EulerMaruyama, Heun, last, sample

torch.set_grad_enabled(False)  # nothing is trained in this notebook
torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## 0 · Thirty seconds
# One network, one batch of noise, one number. Every column below starts from the *same* noise; only $w$ changes from
# row to row.

# %%
model = zoo.load("digits-dit")
scales = [0.0, 1.0, 1.5, 2.0, 4.0, 8.0]
labels = torch.arange(10).repeat(len(scales))
w = torch.tensor(scales).repeat_interleave(10)
noise = torch.randn(10, 1, 8, 8, generator=seeded(7)).repeat(len(scales), 1, 1, 1)

guided = fused(model, None, labels, linear(w))  # both branches, all rows, one batch
pictures = last(sample(guided, model.path, Heun(), uniform_grid(model.path, 10), noise))
viz.show(
    viz.image_grid(
        pictures, columns=10, scale=7, row_labels=[f"w = {s:g}" for s in scales], column_labels=list("0123456789")
    ),
    caption="The same ten noises, six guidance scales. At w = 0 the column label is ignored; from w = 1 on it is "
    "obeyed; towards w = 8 strokes turn hard, black and white, and unlike any handwriting.",
    alt="Grid of generated digits: six rows for w from 0 to 8, ten columns for the classes.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1 · Play
# Before any theory: move things. Each slider answers at once; drag with the mouse, or focus it and use the arrow
# keys.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Show the widget at $w=2$, go on to the questions (one minute of writing, hands up for question 2), and come back
# here. Settle question 1 live: $w=0$, class 3, then class 8; no pixel moves. Then class "all" and $w=1, 3, 8, 12$: 20
# of 20 are read as asked all the way, while the pixels outside the range grow from 0 % to 12 % ($w=8$) and 20 %
# ($w=12$).
#
# Next key press on the questions: measured. The misconception is that less variety means equal pixels: coverage falls
# 100, 98, 76, 33 %, but the pixel spread goes 0.30, 0.26, 0.24 and back up to 0.29. Common question: "why 17 % there
# and 12 % in the widget?" Threes only, Heun instead of Euler, and a limit of 1.05 instead of 1.1.
# </details>

# %%
widgets.guidance_sweep()

# %% [markdown] slideshow={"slide_type": "slide"}
# **Predict, then run.** Write your guess down before you open the answer.
#
# 1. At $w=0$, what happens to the pictures when you change the class?
# 2. Draw 200 threes. As $w$ grows, do they cover the handwriting of real threes better or worse?
# 3. Pixels of real digits lie in $[-1,1]$. Does the sampler know?
#
# <details><summary>Answers</summary>
#
# 1. Nothing: $w=0$ multiplies the conditional branch by zero. The next cell checks it bit for bit.
# 2. Worse. At $w=8$ most real threes have no sample nearby any more. And yet the samples do *not* become alike pixel by
#    pixel: they leave the real digits behind. "Guidance removes variance" is too simple a story; Section 3 has a better one.
# 3. No. At $w=1$ few pixels overshoot, at $w=8$ many do: guidance extrapolates, and nothing stops it at the border.
# </details>

# %% slideshow={"slide_type": "fragment"}
path, grid = model.path, uniform_grid(model.path, 10)
x_T = torch.randn(200, 1, 8, 8, generator=seeded(1))
real = digits("train").of(3)


def threes(w, label=3):
    return last(sample(fused(model, None, label, linear(w)), path, Heun(), grid, x_T))


verify("w = 0 ignores the class, bit for bit", threes(0.0, label=3), threes(0.0, label=8), tol=0)
drawn = {w: threes(w) for w in (1.0, 2.0, 4.0, 8.0)}
covered = {w: fidelity_diversity(real, x, k=5).coverage for w, x in drawn.items()}
outside = {w: (x.abs() > 1.05).double().mean() for w, x in drawn.items()}
for w, x in drawn.items():
    print(f"w = {w:g}: {covered[w]:5.0%} of the real threes covered, pixel std {x.std(0).mean():.2f}, "
          f"{outside[w]:5.1%} of the pixels beyond 1.05")  # fmt: skip
verify_less("at w = 8 far fewer real threes are covered than at w = 1", covered[8.0], 0.6 * covered[1.0])
verify_less("more pixels leave [-1.05, 1.05] at w = 8 than at w = 1", outside[1.0], outside[8.0])

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The trap that catches everyone: $w$ or $1+w$?
# Half of the literature writes $\epsilon_\varnothing+w(\epsilon_c-\epsilon_\varnothing)$, the other half
# $(1+w')\,\epsilon_c-w'\,\epsilon_\varnothing$. It is the same line with $w=1+w'$: their "guidance 0" is our
# "guidance 1". In the first convention $w=1$ switches guidance off, in the second $w'=0$ does.
#
# | | unconditional | plain conditional | "scale 7.5" means |
# |---|---|---|---|
# | **this course**, Imagen, Stable Diffusion | $w=0$ | $w=1$ | $w=7.5$ |
# | Ho & Salimans 2022, LCM | $w'=-1$ | $w'=0$ | $w=8.5$ |

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 4 min</summary>
#
# Ask who has typed "guidance scale 7.5" somewhere, and into which formula; hardly anybody knows. Widget at $w=3$: row
# three differs from row one by up to 0.92 in a pixel, and still the judge reads ten of ten in every row. That is the
# trouble with this mistake: nothing crashes and nothing looks wrong. Then move to $w=0$: row one ignores its labels
# (judge 1 of 10), row three obeys them all, because their 0 is our 1. The habit to pass on: ask of every paper which
# number switches guidance *off*.
# </details>

# %% slideshow={"slide_type": "slide"}
widgets.two_conventions()

# %%
t = torch.full((200,), 0.6, dtype=torch.float64)
null, cond = model.given(None)(x_T, t), model.given(3)(x_T, t)


def ours(w):
    return null.eps + w * (cond.eps - null.eps)


def theirs(w):
    return (1 + w) * cond.eps - w * null.eps


verify("(1 + w') cond - w' null with w' = w - 1 is the same prediction", theirs(2.5 - 1), ours(2.5), tol=1e-5)
verify_less("forgetting the 1 is a different prediction", 0.01, (theirs(2.5) - ours(2.5)).abs().max())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2 · Intuition, and where each picture breaks
#
# ### The lever
# At every point $x$ and noise level there are two arrows: the score of everything, $s_\varnothing$, and the score of
# your class, $s_c$. Guidance walks from the first tip to the second one **and keeps going**:
# $s_w=s_\varnothing+w\,(s_c-s_\varnothing)$. Move the point and the scale.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Start the widget at $w=0$ (vermilion lies on orange), then 1 (on green), 3, and $-1$ (it runs the other way). The
# line below gives lengths: 1.54, 2.03 and, at $w=3$, 4.17. Ask before moving the point, and wait: where does guidance
# do nothing? A common guess is "far away from the data". Try the point (0, 2), deep in the class: all three lengths
# are 1.01. Then back to (1.6, 0.9) with $t=1$: all three 1.84. The answer: wherever a small step of $x_t$ does not
# change $p_t(c|x_t)$. On the third slide dwell on the word *average*; its last sentence announces the heart of the
# lecture.
# </details>

# %% slideshow={"slide_type": "slide"}
widgets.parallelogram_explorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that guidance takes a weighted average of two scores.* An average stays between its ends. Here the
# weights are $1-w$ and $w$: for $w>1$ one of them is negative, and the guided arrow lies **outside** the segment.

# %%
world = GaussianMixture(
    weights=[1, 1, 1], means=[[-1.5, 0.0], [1.2, 0.8], [1.2, -1.0]], covs=[0.35, 0.2, 0.2], labels=[0, 1, 1]
)
curve = VPCosine()
points = torch.randn(500, 2, generator=seeded(2), dtype=torch.float64)
now = torch.full((500,), 0.5, dtype=torch.float64)
s_null = world.denoise(curve)(points, now).score
s_cond = world.given(1).denoise(curve)(points, now).score
s_w = s_null + 3.0 * (s_cond - s_null)

length = (s_cond - s_null).norm(dim=1)
verify(
    "at w = 3 the guided score lies 3 segments from the null score ...",
    (s_w - s_null).norm(dim=1),
    3 * length,
    tol=1e-12,
)
verify("... and 2 segments beyond the conditional one", (s_w - s_cond).norm(dim=1), 2 * length, tol=1e-12)

# %% [markdown]
# **Where the lever breaks.** Arrows add at *one* point. A sampler follows arrows through a hundred noise levels, and
# the sum of fields need not be the field of the sum of anything. That gap is Section 3.5, the heart of this lecture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The contrast knob
# "Guidance is a temperature: it sharpens $p(x|c)$ to $p(x)^{1-w}p(x|c)^w$." Below are the five curves that this
# sentence mixes up: what the data look like, what the class looks like, what that product *is*, and what two guided
# samplers *really* draw.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# The widget to take time for. Begin at $w=1$: all three guided laws lie on the green curve. Ask for a vote: at $w=3$,
# will the two histograms lie under the dashed curve? Most say yes. Move there: variances 0.100 (dashed), 0.067 (SDE)
# and 0.016 (ODE); the legend strays by a few percent, 3000 samples and finite steps. Both samplers use exact scores,
# so no network can be blamed; promise the derivation. Leave a riddle standing: with the width of class c at 1.0,
# equal to the rest, all three agree. Why?
# </details>

# %%
widgets.mixture_playground()

# %% [markdown]
# The three variances that you can read off at $w=3$ with $p=\mathcal N(0,1)$ and $p(\cdot|c)=\mathcal N(1,0.25)$
# differ by up to a factor of six. Section 3.5 derives those of $p_w$ and of the ODE, and computes that of the SDE from
# its moment equations.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The crowd
# "Walk away from everybody, towards your own group." This one survives almost everything, and it predicts something
# unexpected: with a neighbour on your right, walking away from the crowd takes you to the *left* side of your own
# group.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# Ask before you change to this slide: a neighbour moves in on your right; does the peak of the sharpened density stay
# at 1, go left, or go right? The misconception is that it stays at the mode of the class. The peak stands at 0.82 for
# $w=4$ and at 0.66 for $w=16$; Section 3.6 says where it ends. The same in motion: widget of the slide before, world
# "three classes", width of the rest 0.5, $w$ from 1 to 8. If late, show the picture and move on.
# </details>

# %%
crowd = GaussianMixture([1, 1, 1], [[-1.0], [1.0], [2.0]], [0.25, 0.25, 0.25], labels=[0, 1, 2])
x = torch.linspace(-3, 4, 701, dtype=torch.float64)
mine = crowd.given(1)
curves = [
    viz.Curve(crowd.log_prob(x[:, None]).exp(), "everybody p(x)", viz.UNCOND),
    viz.Curve(mine.log_prob(x[:, None]).exp(), "my class p(x|c)", viz.COND),
    viz.Curve(Tilted(crowd, mine, 4.0).density(x), "sharpened $p_w$", viz.EXACT, dashed=True),
    viz.Curve(Tilted(crowd, mine, 16.0).density(x), "", viz.EXACT, dashed=True),
]
figure = viz.density_curves(x, curves, title="Three classes with means -1, 1, 2; mine is the middle one")
for name, at in (("w = 4", (1.02, 1.1)), ("w = 16", (0.8, 1.7))):
    figure.axes[0].annotate(name, at, fontsize=11)
viz.show(
    figure,
    caption="The sharpened density leaves the peak of the class (x = 1) and moves left, away from the neighbour at 2.",
    alt="Densities of a three-class mixture; the tilted density narrows and moves from 1 to 0.66 at w = 16.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3 · Mathematics
# Everything from here on is checked against a world where all is known: Gaussian mixtures. Noised along any path they
# stay mixtures, so score, denoiser, classifier and density have closed forms (`lecture_lib.oracles`).
#
# ### 3.1 Bayes on scores: classifier guidance
# At every noise level, Bayes' rule for $x_t$ reads $\log p_t(x|c)=\log p_t(x)+\log p_t(c|x)-\log p(c)$. The last term
# does not contain $x$:
# $$\nabla\log p_t(x|c)=\nabla\log p_t(x)+\nabla\log p_t(c|x).\tag{1}$$
# So an unconditional model plus the gradient of a *classifier of noisy images* is a conditional model.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 8 min</summary>
#
# Write Bayes' rule on the board, take the gradient, and ask which term vanishes and why. Stress the index $t$: this
# is a classifier of $x_t$, not of $x_0$. The second slide only changes units ($\epsilon=-\sigma s$). Ask before the
# third: how wrong can a classifier be that is *perfect* on clean images? Its gradient is off by 4 % at $t=0.05$, by
# 650 % at $t=0.6$, by 5376 % at $t=0.9$. In the picture compare the left halves. Common question: "so one classifier
# for each noise level?" No, a single one that is told $t$; the lab trains it. If late, skip the picture.
# </details>

# %%
from lecture_lib.guidance import log_prob_gradient


def classifier(x_t, t):
    return world.log_prob_label(1, x_t, curve, t)  # exact log p_t(c = 1 | x_t)


for when in (0.1, 0.5, 0.9):
    t = torch.full((500,), when, dtype=torch.float64)
    difference = world.given(1).score(points, curve, t) - world.score(points, curve, t)
    verify(
        f"Eq. 1: score difference = classifier gradient, t = {when}",
        difference,
        log_prob_gradient(classifier, points, t),
        tol=1e-10,
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# A sampler speaks noise, not score. With $s=-\epsilon/\sigma$, Eq. 1 becomes (Dhariwal & Nichol 2021, Alg. 2, with a
# scale $k$)
# $$\tilde\epsilon=\epsilon_\theta(x_t)-k\,\sigma_t\,\nabla_{x_t}\log p_\phi(c\,|\,x_t),\qquad
# \tilde x_0=x_\theta(x_t)+k\,\tfrac{\sigma_t^2}{\alpha_t}\nabla_{x_t}\log p_\phi(c\,|\,x_t).$$
# Both rows are Tweedie's formula. With the exact classifier and $k=1$ the result must be the exact conditional
# denoiser:

# %%
t = torch.full((500,), 0.7, dtype=torch.float64)
bayes = classifier_guidance(world.denoise(curve), classifier, scale=1.0)(points, t)
exact = world.given(1).denoise(curve)(points, t)
verify("classifier guidance at scale 1: noise prediction", bayes.eps, exact.eps, tol=1e-10)
verify("classifier guidance at scale 1: data prediction", bayes.x0, exact.x0, tol=1e-10)

# %% [markdown] slideshow={"slide_type": "slide"}
# *You may read that classifier guidance needs one classifier per noise level.* It needs **one** classifier that is
# told $t$ and trained on noisy images. What it must not be is a classifier of clean images: far from data, that one
# is confidently wrong.


# %%
def clean_classifier(x_t, t):
    return world.log_prob_label(1, x_t)  # knows clean data perfectly, and nothing of noise


errors = []
for when in (0.05, 0.3, 0.6, 0.9):
    t = torch.full((500,), when, dtype=torch.float64)
    x_t = curve.mix(
        world.sample(500, generator=seeded(4)), torch.randn(500, 2, generator=seeded(5), dtype=torch.float64), t
    )
    right, wrong = log_prob_gradient(classifier, x_t, t), log_prob_gradient(clean_classifier, x_t, t)
    errors.append(((wrong - right).norm() / right.norm()).item())
    print(f"t = {when:4}: the clean classifier's gradient is off by {100 * errors[-1]:6.0f} %")
verify_less("the clean classifier is far worse at t = 0.9 than at t = 0.05", 3 * errors[0], errors[-1])

# %% slideshow={"slide_type": "slide"}
lattice = torch.cartesian_prod(*[torch.linspace(-3, 3, 15, dtype=torch.float64)] * 2)
t = torch.full((len(lattice),), 0.6, dtype=torch.float64)
with viz.style():
    figure, axes = viz.panels(1, 2, size=(10.4, 4.8), sharey=True)
titles = ("a classifier that knows t = 0.6", "a classifier of clean images")
for ax, judge, title in zip(axes, (classifier, clean_classifier), titles, strict=True):
    field = log_prob_gradient(judge, lattice, t)
    viz.vector_field(lattice, field, colour=viz.GUIDED, longest=0.11 * field.norm(dim=1).max().item(), ax=ax)
    viz.density_contours(lambda z: world.log_prob(torch.as_tensor(z)), (-3.2, 3.2, -3.2, 3.2), colour=viz.DATA, ax=ax)
    ax.set_title(title)
viz.show(
    figure,
    caption="Gradient of log p(c = 1 | x) at t = 0.6, clean data as blue contours, arrows of both panels in one "
    "scale. Right: the clean classifier takes every noisy point on the left for a certain class 0, and pushes too hard.",
    alt="Two vector fields over a two-class mixture: short arrows for the noise-aware classifier, long for the clean one.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.2 The classifier that was there all along
# Read Eq. 1 backwards. If one network knows both $s_c$ and $s_\varnothing$, their difference *is* the gradient of a
# classifier: $\nabla\log p_t(c|x)=s_c-s_\varnothing$. Put it into classifier guidance of scale $w$:
# $$\boxed{\,s_w=s_\varnothing+w\,\nabla\log p_t(c|x)=s_\varnothing+w\,(s_c-s_\varnothing)\,}\tag{2}$$
# No classifier is trained; the implicit one is as good as the two scores. This is classifier-free guidance (Ho &
# Salimans 2022).

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Pause at the box and let them read Eq. 1 backwards themselves. Nothing has been approximated: the check holds to
# 4e-14 even at $w=7.5$. Common question: "is the difference of two *learned* scores still the gradient of a
# classifier?" Not necessarily; a network's output need not be a gradient of anything. Next slide: ask what a network
# learns that sees a null token in place of the class (the average over all classes). In the code point at
# `first.shape[0]`: one coin per sample, not per batch. Ask what happens if keep and drop are swapped, then press the
# key.
# </details>

# %%
for w in (0.0, 1.0, 2.5, 7.5):
    with_classifier = classifier_guidance(world.denoise(curve), classifier, scale=w)(points, now)
    without = extrapolate(world.denoise(curve), world.given(1).denoise(curve), w)(points, now)
    verify(
        f"Eq. 2 at w = {w}: classifier guidance = classifier-free guidance",
        with_classifier.score,
        without.score,
        tol=1e-9,
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# #### One network, two roles
# Where does $s_\varnothing$ come from? From the same network, shown the class with probability $1-p$ and a null token
# with probability $p\approx 0.1$. The least-squares optimum for "null" is the average over all classes,
# $\mathbb E[\,\cdot\,|x_t]$: the unconditional model. The whole change to training is this line, *per sample*:

# %%
import inspect

print(inspect.getsource(drop_condition))

# %% slideshow={"slide_type": "skip"}
batch = torch.arange(10).repeat(4000)
dropped = drop_condition(batch, torch.tensor(10), p=0.1, generator=seeded(0)) == 10
verify(
    "a tenth of the labels is dropped (4 standard errors)", dropped.double().mean(), 0.1, tol=4 * (0.09 / 40000) ** 0.5
)
per_batch = dropped.reshape(400, 100).double().mean(1)
verify("each sample has its own coin: batches of 100 lose 10 +- 3", per_batch.std(), 0.03, tol=0.005)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *You may read "keep the condition with probability 0.1".* That is the same code with the two cases swapped: a model
# that sees its class one time in ten, and a null branch that gets nine tenths of the training. Nothing crashes, which
# is why this mistake ships; the lab trains both and measures the damage.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.3 Three derivations of one line
# **Score.** Eq. 2.
#
# **Noise.** Multiply Eq. 2 by $-\sigma_t$: $\;\epsilon_w=\epsilon_\varnothing+w(\epsilon_c-\epsilon_\varnothing)$.
#
# **Density.** Integrate Eq. 2: at each *fixed* noise level, $s_w$ is the score of
# $$p_{w,t}(x)\;\propto\;p_t(x)^{1-w}\,p_t(x|c)^{w}\;\propto\;p_t(x)\,p_t(c|x)^w.\tag{3}$$

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 7 min</summary>
#
# Three readings of one line; give the time to the third. Have a student read the words "at each *fixed* noise level"
# aloud, for the trap of Section 3.5 is in there. At 3.4 ask where $(1-w)+w=1$ is used: weighted copies of an affine
# map $a+by$ keep their $a$ only if the weights add up to one. Vote before the slide on clipping: does the order
# matter? Clip then guide leaves values of 5.48, as large as without clipping, because at that pixel both branches
# were in range (0.80 and $-0.77$); guide then clip gives 1.00. Common question: "which order, then?" Guide first, clip
# last: only that bounds what guidance has pushed outward. If late, skip the check of all predictions (ten lines, all
# below 1e-14).
# </details>

# %%
w, t = 2.5, now
line = extrapolate(world.denoise(curve), world.given(1).denoise(curve), w)(points, t)
null, cond = world.denoise(curve)(points, t), world.given(1).denoise(curve)(points, t)
verify("noise: eps_w = eps_0 + w (eps_c - eps_0)", null.eps + w * (cond.eps - null.eps), line.eps, tol=1e-12)
verify(
    "... is -sigma times the guided score",
    -curve.sigma(t)[:, None] * (s_null + w * (s_cond - s_null)),
    line.eps,
    tol=1e-12,
)


def log_p_w(x_t, t):
    return (1 - w) * world.log_prob(x_t, curve, t) + w * world.given(1).log_prob(x_t, curve, t)


def log_p_w_bayes(x_t, t):
    return world.log_prob(x_t, curve, t) + w * world.log_prob_label(1, x_t, curve, t)


verify(
    "density: grad log of p^(1-w) p_c^w is the guided score",
    log_prob_gradient(log_p_w, points, t),
    line.score,
    tol=1e-10,
)
gap = log_p_w(points, t) - log_p_w_bayes(points, t)
verify("p^(1-w) p_c^w and p p(c|x)^w differ by a constant factor only", gap - gap.mean(), torch.zeros(500), tol=1e-10)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.4 Guidance does not care what the network predicts
# Any prediction is $y=a_tx_0+b_t\epsilon$, and $x_t=\alpha_tx_0+\sigma_t\epsilon$ is given. Two equations, two
# unknowns: $x_0$ and $\epsilon$ are **affine** in $y$. An affine map commutes with combinations whose weights add up
# to one, and $(1-w)+w=1$. So we may guide $\epsilon$, $x_0$, $v$, the velocity or the score: same result, on every
# path.

# %%
for path in (VPCosine(), RectifiedFlow()):
    null, cond = world.denoise(path)(points, now), world.given(1).denoise(path)(points, now)
    want = extrapolate(world.denoise(path), world.given(1).denoise(path), w)(points, now)
    c = path.coeffs(now)
    for kind in (X0, EPS, V, VELOCITY, SCORE):
        y_null, y_cond = kind.encode(null.x0, null.eps, c), kind.encode(cond.x0, cond.eps, c)
        x0, eps = kind.decode(y_null + w * (y_cond - y_null), points, c)
        verify(f"{type(path).__name__:13s} guided in {kind.name:8s} = guided in the library", x0, want.x0, tol=1e-11)

# %% [markdown] slideshow={"slide_type": "slide"}
# **What breaks it** is anything that is not affine. Clip $x_0$ to $[-1,1]$ in each branch, then guide; or guide, then
# clip: now the order matters. Where the clip sits in the conversion to $x_0$, guiding in $x_0$ does the first and
# guiding in $\epsilon$ the second: they have become different methods, and so have libraries that clip inside the model
# wrapper and libraries that clip inside the sampler. (Here a tenth of the values of each branch lies outside $[-1,1]$,
# none beyond 1.25, so clipping the branches does change the prediction. But the largest overshoot, 5.48, comes from a
# pixel where both branches were inside: the extrapolation alone makes it.)

# %%
t = torch.full((200,), 0.6, dtype=torch.float64)
null, cond = model.given(None), model.given(3)
clip_then_guide = extrapolate(clipped(null), clipped(cond), 4.0)(x_T, t)
guide_then_clip = clipped(extrapolate(null, cond, 4.0))(x_T, t)
plain = extrapolate(null, cond, 4.0)(x_T, t)
verify_less("clipping does not commute with guidance", 1.0, (clip_then_guide.x0 - guide_then_clip.x0).abs().max())
print(f"largest |x0|: guided {plain.x0.abs().max():.2f}, clip then guide {clip_then_guide.x0.abs().max():.2f}, "
      f"guide then clip {guide_then_clip.x0.abs().max():.2f}")  # fmt: skip

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.5 The heart: what the guided sampler draws
# *You may read that guided sampling draws from $p_w\propto p(x)^{1-w}p(x|c)^w$.* Eq. 3 holds at each noise level
# separately. For a sampler to follow a family of densities, each member must be the **noising** of the data-level
# one. Is $p_{w,t}$ the noising of $p_{w,0}$?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Slow down: this is the heart. Leave the question standing, let neighbours talk for one minute, then vote yes or no;
# press on only after that. Have somebody compute at the board: at $\sigma=0$ the precision is $-2+12=10$, so both
# variances are 0.1; at $\sigma=1$ it is $-1+2.4=1.4$, variance 0.71, where the noised $p_w$ has 1.1. Two numbers
# settle it. The misconception is "a small error of training or of steps": every quantity here is exact. Next slide:
# the axis is logarithmic; the curves meet at zero and nowhere else.
# </details>

# %% [markdown] slideshow={"slide_type": "fragment"}
# Take $p=\mathcal N(0,1)$, $p(\cdot|c)=\mathcal N(1,\tfrac14)$, in the clock of the noise level,
# $x_\sigma=x_0+\sigma\epsilon$. Powers of Gaussians add precisions:
# $$\frac1{\mathrm{Var}(p_{w,\sigma})}=\frac{1-w}{1+\sigma^2}+\frac{w}{\frac14+\sigma^2}\qquad\text{against}\qquad\mathrm{Var}(p_{w,0}*\mathcal N(0,\sigma^2))=\mathrm{Var}(p_{w,0})+\sigma^2 .$$

# %%
p, p_c, w = Gaussian(0.0, 1.0), Gaussian(1.0, 0.25), 3.0
noise_level = torch.linspace(0, 1.5, 301, dtype=torch.float64)
sharpened = 1 / ((1 - w) / (p.var + noise_level**2) + w / (p_c.var + noise_level**2))
noised = tilted_gaussian(p, p_c, w).var + noise_level**2

verify("at sigma = 0 the two agree by construction", sharpened[0], noised[0], tol=1e-15)
verify_less("at sigma = 1 they do not: p_w,t is far narrower than the noised p_w", sharpened[200], 0.7 * noised[200])

# %% slideshow={"slide_type": "slide"}
viz.show(
    viz.sweep(
        noise_level,
        [
            viz.Line(
                "noising of $p_{w,0}$: what a sampler of $p_w$ would need",
                noised,
                look={"color": viz.EXACT, "linestyle": "--", "marker": ""},
            ),
            viz.Line(
                "$p_{w,\\sigma}$: whose score guidance supplies", sharpened, look={"color": viz.GUIDED, "marker": ""}
            ),
        ],
        xlabel="noise level sigma (data units)",
        ylabel="variance (data units squared)",
        title="Two families with the same starting point (w = 3)",
        log_y=True,
    ),
    caption="Both start at variance 0.1 and part at once. The guided score is that of the lower curve; no noised data set "
    "gives it.",
    alt="Two rising curves of variance against noise level that agree at zero and separate.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# So the sampler follows *some* flow, but not the one that ends in $p_w$. Where does it end? For Gaussians the guided
# score is linear in $x$, and a linear ODE keeps Gaussians Gaussian. In the clock $q=\sigma^2$ the probability-flow
# ODE is $\frac{dx}{dq}=-\tfrac12 s_w$, hence
# $$\frac{d\log\mathrm{Var}}{dq}=\frac{w}{v_c+q}+\frac{1-w}{v_\varnothing+q}
# \quad\Longrightarrow\quad\mathrm{Var}\simeq\frac{(v_c+q)^w(v_\varnothing+q)^{1-w}}{Q}\,\mathrm{Var}_Q\;\xrightarrow{\;q\to0,\;Q\to\infty\;}\;\boxed{v_c^{\,w}\,v_\varnothing^{\,1-w}}.$$
# A **geometric** mean of variances, where $p_w$ has a **harmonic** one. Here: $0.25^3=0.0156$ against $0.1$.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 10 min</summary>
#
# Derive it by hand: the slope of $s_w$ in $x$ is minus the sum of fractions, times $-\tfrac12$ from the ODE, times
# two because a variance is quadratic. Check $w=1$ together: $\mathrm{Var}/(v_c+q)$ stays constant, as it must. Ask
# for the ranking of ODE, SDE and $p_w$ by variance before showing the table; the usual guess is SDE $=p_w$. The
# sentence to keep: geometric where $p_w$ is harmonic, 1/64 against 1/10. Picture: the needle stands at 1.5, the
# dashed curve at 1.2. Common question: "do more steps repair it?" No; 400 steps agree with the closed form to about
# 1e-5, so it is the limit that differs. The last slide solves the riddle of the widget: equal widths only shift, here
# to 3. If late, leave out that one, never the table.
# </details>

# %%
verify(
    "ODE, closed form against the moment equations (scipy)",
    guided_ode_variance(p, p_c, w),
    guided_moments(p, p_c, w).var,
    tol=1e-6,
)

path = VPCosine()
guided = extrapolate(p.mixture().denoise(path), p_c.mixture().denoise(path), w)
fine = logsnr_grid(path, 400, start=0.9999, end=1e-4)
two = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # the sampler is affine in x_T: two points tell all
ends = last(sample(guided, path, Heun(), fine, two))
verify(
    "ODE, closed form against the sampler itself", (ends[1] - ends[0]) ** 2, guided_ode_variance(p, p_c, w), tol=1e-4
)

# %% [markdown] slideshow={"slide_type": "slide"}
# The reverse **SDE** contracts twice as hard and adds noise, so its noise near the end is only partly squeezed: it
# lands somewhere else again.

# %%
# NBVAL_CHECK_OUTPUT
ode, sde, sharp = guided_moments(p, p_c, w), guided_moments(p, p_c, w, stochastic=1.0), tilted_gaussian(p, p_c, w)
for name, law in {"class p(x|c)": p_c, "sharpened p_w": sharp, "guided SDE": sde, "guided ODE": ode}.items():
    print(f"{name:14s} mean {law.mean:.3f}   variance {law.var:.4f}")

# %%
n = 8000
start, steps = (
    torch.randn(n, 1, generator=seeded(0), dtype=torch.float64),
    logsnr_grid(path, 200, start=0.9999, end=1e-4),
)
drawn_ode = last(sample(guided, path, Heun(), steps, start))
drawn_sde = last(sample(guided, path, EulerMaruyama(), steps, start, generator=seeded(1)))
for name, drawn, law in (("ODE", drawn_ode, ode), ("SDE", drawn_sde, sde)):
    four_errors = 4 * law.var * (2 / n) ** 0.5  # standard error of a Gaussian's sample variance, four times
    verify(f"{n} {name} samples have the {name}'s variance", drawn.var(), law.var, tol=four_errors)

# %% slideshow={"slide_type": "slide"}
x = torch.linspace(-2.5, 3, 600, dtype=torch.float64)
laws = [(p, "p(x)", viz.UNCOND, False), (p_c, "p(x|c)", viz.COND, False), (sharp, "sharpened $p_w$", viz.EXACT, True)]
viz.show(
    viz.density_curves(
        x,
        [viz.Curve(law.density(x), name, colour, dashed) for law, name, colour, dashed in laws],
        histograms=[
            viz.Histogram(drawn_sde, "guided SDE samples", viz.GUIDED, hollow=True),
            viz.Histogram(drawn_ode, "guided ODE samples", viz.GUIDED),
        ],
        bins=160,
        title="w = 3: three things that are all called 'guided'",
    ),
    caption="The dashed curve is the density that guidance is said to sample. The ODE's samples form a needle of a sixth of "
    "its variance, shifted by 0.3; the SDE's lie between.",
    alt="Densities p, p given c and p_w with histograms of guided ODE and SDE samples; the ODE's is a narrow spike at 1.5.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# **When do they agree?** If $v_c=v_\varnothing$, precision-weighted and geometric means coincide, and all three shift
# the mean by $w\,(m_c-m_\varnothing)$ at the same variance. Much of the intuition in circulation comes from this one
# easy case.

# %%
same = Gaussian(0.0, 1.0), Gaussian(1.0, 1.0)
for name, law in {
    "p_w": tilted_gaussian(*same, w),
    "ODE": guided_moments(*same, w),
    "SDE": guided_moments(*same, w, stochastic=1.0),
}.items():
    verify(f"equal variances: {name} has mean 3", law.mean, 3.0, tol=1e-3)
    verify(f"equal variances: {name} has variance 1", law.var, 1.0, tol=1e-3)

# %% [markdown] slideshow={"slide_type": "slide"}
# #### The reading that is exact: predictor and corrector
# The reverse SDE drifts with $-g^2s_w$. Split it: half a step of the ODE of the *plain conditional* model, and a
# remainder that is exactly Langevin dynamics,
# $$-g^2s_w=\underbrace{-\tfrac12g^2s_c}_{\text{DDIM step of }p_t(x|c)}\;\underbrace{-\tfrac12g^2s_{2w-1}}_{\text{Langevin towards }p_{2w-1,t}}\qquad(\text{Bradley \& Nakkiran 2024}).$$
# Guided SDE sampling = walk down the conditional flow, and at each noise level equilibrate *a little* towards the
# sharpened density. "A little" is why it never gets there.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# This is the positive answer to "so what *is* guided sampling?". Ask what the corrector aims at for $w=1$ ($p_t(x|c)$
# itself, which it leaves as it is) and for $w=3$ ($p_5$, not $p_3$). One Langevin step per noise level does not reach
# equilibrium, so $p_5$ is not what comes out either. If late, read out the sentence below the formula and go on; the
# lab comes back to it in Section 6.1.
# </details>

# %%
s_guided = s_null + w * (s_cond - s_null)
s_corrector = s_null + (2 * w - 1) * (s_cond - s_null)
verify(
    "-s_w = -(1/2) s_c - (1/2) s_{2w-1}: the split is exact", -s_guided, -0.5 * s_cond - 0.5 * s_corrector, tol=1e-12
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.6 Turning the knob to infinity
# *You may read that large $w$ concentrates on the mode of $p(x|c)$.* From Eq. 3, $p_w\propto p(x)\,p(c|x)^w$: as
# $w\to\infty$ only the maximum of $p(c|x)$ survives, the point at which you are *most clearly not one of the others*.
# For the crowd of Section 2 that is not the class's mode.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 6 min</summary>
#
# Return to the crowd and ask where the mean ends at $w=1000$. Measured: 0.561; the most certain point of the
# classifier is 0.558, the mode of the class 1.00. Before the second slide say 1.00, 1.10, 1.20 for $w=1, 10, 100$ and
# ask for $w=1000$ (1.34): slow as a logarithm, but nothing stops it. The guided ODE's samples do not follow
# $p_w$ and run faster: medians of 1.6, 2.7, 4.6 at $w=4, 16, 64$. The hard strokes at $w=8$ are the same push
# outward. The slide on the two KLs is the first one to drop today. On the last slide ask which mode wins: 51, 73 and
# 94 percent of the samples choose the private one, though both are equally likely in the class; the other one, at 2,
# has a foreign class at 2.3.
# </details>

# %%
x = torch.linspace(-2, 3, 5001, dtype=torch.float64)
most_certain = x[crowd.log_prob_label(1, x[:, None]).argmax()]
limit = Tilted(crowd, mine, 1000.0)
print(f"mode of p(x|c): 1.00     argmax p(c|x): {most_certain:.3f}     mean of p_w at w = 1000: {limit.mean():.3f}")
verify("p_w goes to the most certain point of the classifier", limit.mean(), most_certain, tol=0.02)
verify_less("and that point is far from the mode of the class", 0.4, 1.0 - most_certain)

# %% [markdown] slideshow={"slide_type": "slide"}
# With only *two* classes, of equal width, it is worse: $p(c|x)$ has no maximum, it rises for ever, and $p_w$ drifts
# outward without bound. In pixels, outward is called *saturation*.

# %%
pair = GaussianMixture([1, 1], [[-1.0], [1.0]], [0.25, 0.25], labels=[0, 1])
means = [Tilted(pair, pair.given(1), w).mean() for w in (1.0, 10.0, 100.0, 1000.0)]
print("mean of p_w at w = 1, 10, 100, 1000:", ", ".join(f"{m:.2f}" for m in means))
verify_less("the mean moves outward at every step", torch.tensor(means[:-1]), torch.tensor(means[1:]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.7 Mode seeking, and the two KLs
# *You may read that $w>1$ is mode-seeking because it minimises $\mathrm{KL}(p\|q)$, and $w<1$ mode-covering.* Two
# errors in one sentence: forward $\mathrm{KL}(p\|q)$ is the **covering** one, reverse $\mathrm{KL}(q\|p)$ the
# **seeking** one, and guidance minimises neither. Fit one Gaussian to two bumps and see:

# %%
bumps = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [0.2, 0.2])
x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
log_p = bumps.log_prob(x[:, None])
candidates = [(m, s) for m in torch.linspace(-3, 3, 25).tolist() for s in torch.linspace(0.2, 3, 29).tolist()]


def divergences(m, s):
    log_q = -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
    forward = torch.trapezoid(log_p.exp() * (log_p - log_q), x)
    reverse = torch.trapezoid(log_q.exp() * (log_q - log_p), x)
    return forward.item(), reverse.item()


table = {ms: divergences(*ms) for ms in candidates}
forward, reverse = (min(table, key=lambda ms, k=k: table[ms][k]) for k in (0, 1))
print(
    f"forward KL(p||q): mean {forward[0]:+.2f}, std {forward[1]:.2f}     "
    f"reverse KL(q||p): mean {reverse[0]:+.2f}, std {reverse[1]:.2f}"
)
verify("forward KL covers: its std is that of the whole mixture", forward[1], (4 + 0.2) ** 0.5, tol=0.06)
verify("reverse KL seeks: it sits on one bump", abs(reverse[0]), 2.0, tol=0.13)

# %% [markdown] slideshow={"slide_type": "slide"}
# What guidance *does* to a class with two modes: it favours the mode that no other class shares.

# %%
shared = GaussianMixture([0.25, 0.25, 0.5], [[-2.0], [2.0], [2.3]], [0.15, 0.15, 0.15], labels=[1, 1, 0])
path, start = VPCosine(), torch.randn(4000, 1, generator=seeded(6), dtype=torch.float64)
private = []
for w in (1.0, 2.0, 4.0):
    denoise = extrapolate(shared.denoise(path), shared.given(1).denoise(path), w)
    drawn = last(sample(denoise, path, Heun(), logsnr_grid(path, 60, start=0.999, end=0.002), start))
    private.append((drawn < 0).double().mean())
    print(f"w = {w:g}: {100 * private[-1]:.0f} % of the samples on the private mode")
verify("at w = 1 both modes of the class get half", private[0], 0.5, tol=0.03)
verify_less("at w = 4 the mode shared with another class has lost nearly all", 0.9, private[2])

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.8 Negative prompts: a product of experts that may not exist
# Replace $\varnothing$ by a condition you do *not* want: $s_w=s_-+w\,(s_+-s_-)$, the score of
# $p_t(x|+)^w\,p_t(x|-)^{1-w}$ at each noise level. The second factor is a density raised to a **negative** power. For
# Gaussians the product has precision $\frac w{v_+}-\frac{w-1}{v_-}$; if the negative prompt is *narrower* than the
# positive one, this turns negative at a finite $w$, and there is no distribution left.

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 5 min</summary>
#
# Widget: at $w=1$ the negative prompt does nothing. At $w=2$ the product exists, with mean 1.59, while the samples
# have mean 1.98. Now set the unwanted width to 0.5 (the wanted one is 0.6) and $w=2.25$: the product moves to 7.00,
# the samples only to 3.39. At $w=3.5$ there is no product, and the samples still form a neat bell around 6.6: the
# sampler raises no alarm. Let them compute the threshold, $w/0.36=(w-1)/0.25$, so $w=3.27$. The slide after it does
# the same with variances 0.5 and 0.3, and gets 2.5.
# </details>

# %% slideshow={"slide_type": "slide"}
widgets.negative_prompt()

# %% slideshow={"slide_type": "slide"}
plus, minus = Gaussian(1.0, 0.5), Gaussian(0.0, 0.3)
critical = (1 / minus.var) / (1 / minus.var - 1 / plus.var)
print(f"the product exists for w < {critical:.3f}")
verify(
    "just below, the variance explodes",
    1 / tilted_gaussian(minus, plus, 0.99 * critical).var,
    0.01 / minus.var,
    tol=1e-9,
)
try:
    tilted_gaussian(minus, plus, 1.01 * critical)
    refused = False
except ValueError as error:
    refused = True
    print(error)
verify("just above, the library refuses to name a density", refused, True, tol=0)

# %% [markdown]
# The sampler, of course, does not refuse. It follows the arrows and returns *something*; only the density story has
# ended. Two more pitfalls: with $w<1$ a "negative" prompt is mixed **in** (at $w=0$ you sample it), and two prompts
# far apart push along the line between them rather than towards what you asked for.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.9 The bill
# *You may read that a negative prompt brings the cost of guidance from 2x down to 1.5x.* It replaces the null branch;
# both branches still run. Count:

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# Ask first: how many network evaluations for ten DDIM steps with a negative prompt? Twenty, like any guidance; the
# "1.5x" of the quotation is wrong because both branches run. The interval costs 14, since four of its ten steps are
# guided. A fused batch does not lower the count, only the number of launches. The distilled student pays 10, since
# $w$ is one of its inputs. If late, skip the bars.
# </details>

# %%
# NBVAL_CHECK_OUTPUT
steps, x_T = uniform_grid(model.path, 10), torch.randn(4, 1, 8, 8, generator=seeded(0))
student = zoo.load("digits-dit-distilled")
distilled = student.given({"label": torch.tensor([3]), "w": torch.tensor([3.0])})
null, cond, negative = model.given(None), model.given(3), model.given(8)
methods = {
    "plain conditional": cond,
    "guided, two passes": extrapolate(null, cond, 3.0),
    "guided, one fused batch": fused(model, None, 3, linear(3.0)),
    "negative prompt": extrapolate(negative, cond, 3.0),
    "guided for sigma/alpha in (0.3, 2]": interval(model.path, extrapolate(null, cond, 3.0), cond, 0.3, 2.0),
    "distilled: w is an input": distilled,
}
cost = {name: list(sample(d, model.path, DDIM(), steps, x_T))[-1].nfe for name, d in methods.items()}
for name, nfe in cost.items():
    print(f"{name:36s} {nfe:3d} network evaluations per sample, {nfe / cost['plain conditional']:.1f}x")

# %% slideshow={"slide_type": "slide"}
verify(
    "a negative prompt costs exactly what guidance costs", cost["negative prompt"], cost["guided, two passes"], tol=0
)
two_pass, one_pass = methods["guided, two passes"], methods["guided, one fused batch"]
t = torch.full((4,), 0.5, dtype=torch.float64)
verify("one fused batch computes the same numbers", one_pass(x_T, t).x0, two_pass(x_T, t).x0, tol=1e-5)
colours = [viz.COND, *[viz.GUIDED] * 4, viz.STUDENT]
axis = "network evaluations per sample (count)"
viz.show(
    viz.bars(list(cost), list(cost.values()), xlabel=axis, title="Ten DDIM steps", colours=colours),
    caption="Fusing both branches saves launches, not evaluations (the lab measures milliseconds); an interval and a "
    "distilled model save evaluations.",
    alt="Bar chart of network evaluations per sample for six ways of guiding.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
# | statement | true? | where |
# |---|---|---|
# | $s_w=s_\varnothing+w(s_c-s_\varnothing)$ is classifier guidance with the implicit classifier | yes, exactly | 3.2 |
# | guidance is the same in $\epsilon$, $x_0$, $v$, velocity, score | yes, until something clips | 3.4 |
# | at each noise level $s_w$ is the score of $p_t^{1-w}p_t(\cdot\vert c)^w$ | yes | 3.3 |
# | the guided sampler draws from $p^{1-w}p(\cdot\vert c)^w$ | **no**; ODE, SDE and $p_w$ all differ | 3.5 |
# | guided SDE = DDIM on $p(\cdot\vert c)$ + Langevin towards $p_{2w-1,t}$ | yes, as the steps go to zero | 3.5 |
# | $w\to\infty$ goes to the mode of the class | **no**; to the maximum of $p(c\vert x)$, possibly infinity | 3.6 |
# | a negative prompt samples a product of experts | **no**, and the product may not exist | 3.8 |
# | negative prompts make guidance cheaper | **no**; intervals and distillation do | 3.9 |

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Speaker · 3 min</summary>
#
# Before this slide comes up, read three or four statements of the left column aloud and let the class vote; then show
# it. The one to take home is the fourth line. Of the quiz do questions 1 (answer 1.5) and 3 (0.571 and 0.25, a minute
# with paper) together; the others and the boss battle are for home. Announce the lab, and keep the last five minutes
# for questions.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Quiz
# 1. A paper reports its best FID at "guidance 0.5" and uses the formula of Ho & Salimans. What is that here?
#
# <details><summary>Answer</summary>
#
# w = 1.5. Their zero is our one.
# </details>
#
# 2. You guide with a conditional *and* a classifier of scale $k$ (exact). Which $w$ is that?
#
# <details><summary>Answer</summary>
#
# w = 1 + k: the conditional score already contains the classifier once (Eq. 1).
# </details>
#
# 3. $p=\mathcal N(0,4)$, $p(\cdot|c)=\mathcal N(0,1)$, $w=2$. Variances of $p_w$ and of the guided ODE?
#
# <details><summary>Answer</summary>
#
# Precision $-\frac14+2=\frac74$, so $0.571$; ODE: $1^2\cdot4^{-1}=0.25$. The next cell computes both.
# </details>
#
# 4. Why must the classifier of classifier guidance see noise, while classifier-free guidance needs no such care?
#
# <details><summary>Answer</summary>
#
# The implicit classifier is a difference of two denoisers trained at every noise level: it has seen noise by
# construction.
# </details>
#
# 5. Your sampler clips $x_0$. Your colleague's network predicts $v$, yours $\epsilon$. Same $w$: same pictures?
#
# <details><summary>Answer</summary>
#
# Suppose that both networks are equally good. Then yes if both of you clip at the same place, say after guiding; no if
# one clips each branch and the other clips the guided $x_0$ (3.4). What the network predicts is not what matters.
# </details>

# %% [markdown]
# 6. "Guidance works because the difference of the two predictions cancels noise." What is wrong with this?
#
# <details><summary>Answer</summary>
#
# Both predictions are deterministic functions of the same $x_t$: there is no noise in them to cancel. What the
# difference does carry are the *errors* of both roles, and guidance multiplies them by $w$ and $w-1$.
# </details>

# %% slideshow={"slide_type": "skip"}
# NBVAL_CHECK_OUTPUT
quiz = Gaussian(0.0, 4.0), Gaussian(0.0, 1.0)
print(f"p_w: {tilted_gaussian(*quiz, 2.0).var:.3f}   guided ODE: {guided_ode_variance(*quiz, 2.0):.3f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Boss battle
# Find, by hand, the $w$ at which the guided **ODE** of $p=\mathcal N(0,1)$, $p(\cdot|c)=\mathcal N(1,\tfrac14)$ has
# the *same variance as the sharpened density* $p_{3}$ (0.1). Then put it into the cell below. (Hint: the ODE's
# variance is an exponential in $w$.) The lab's boss is bigger: concepts joined by AND and NOT.
#
# <details><summary>Answer</summary>
#
# $0.25^{w}=0.1\Rightarrow w=\ln 0.1/\ln 0.25=1.661$. The ODE at $w=1.66$ is as sharp as "$p_3$": one more reason not
# to compare scales between samplers.
# </details>

# %% slideshow={"slide_type": "skip"}
my_w = math.log(0.1) / math.log(0.25)  # your formula here
verify("boss: the guided ODE at my w is as sharp as p_3", guided_ode_variance(p, p_c, my_w), 0.1, tol=1e-6)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
# - J. Ho, T. Salimans. *Classifier-free diffusion guidance.* [2207.12598](https://arxiv.org/abs/2207.12598)
# - P. Dhariwal, A. Nichol. *Diffusion models beat GANs on image synthesis.*
#   [2105.05233](https://arxiv.org/abs/2105.05233)
# - A. Bradley, P. Nakkiran. *Classifier-free guidance is a predictor-corrector.*
#   [2408.09000](https://arxiv.org/abs/2408.09000)
# - T. Karras et al. *Guiding a diffusion model with a bad version of itself.*
#   [2406.02507](https://arxiv.org/abs/2406.02507)
# - T. Kynkäänniemi et al. *Applying guidance in a limited interval improves sample and distribution quality.*
#   [2404.07724](https://arxiv.org/abs/2404.07724)
# - C. Meng et al. *On distillation of guided diffusion models.* [2210.03142](https://arxiv.org/abs/2210.03142)
#
# Next: the **lab** builds each of these from its parts, trains them, and measures every repair on one plane.
