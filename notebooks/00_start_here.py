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
# # Modern image generation, from the inside
# *A course in which every formula runs, every claim is checked, and every picture appears in seconds.*
#
# **After this page you will** have moved a generative model with a slider, know the conventions that hold everywhere
# in the course, and know that your installation works.
#
# **Time** 15 min reading · runs in 8 s · peak memory 0.6 GB (2 CPU cores)
#
# You need Python, some probability and linear algebra, and a laptop. No GPU, no account, no download: the models are
# small, were trained by the recipes of this course, and came with it.

# %% tags=["setup"]
# On Colab this fetches the course, and replaces nothing that is there. Elsewhere it only says what runs here.
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("lecture_lib") is None:
    get_ipython().run_line_magic("pip", "install -q https://github.com/OWNER/NAME/archive/main.zip")

from lecture_lib.tooling.info import summary

print(summary())

# %% [markdown]
# ## Thirty seconds
# Below, a diffusion transformer with under a million parameters draws digits, from noise, whenever you move
# something. *w* is the **guidance scale**: how hard the picture is pushed towards its class. Try 0, 1 and 8.

# %%
from lecture_lib import widgets

widgets.guidance_sweep()

# %% [markdown]
# **How it works**: shift-enter runs a cell and moves on. Sliders take the mouse or, once focused, the arrow keys.
# Whoever only reads sees the picture that stood there when the notebook was last run.
#
# ## The same thing in eight lines
# Nothing is hidden in the widget: a network that was put on a path, a guidance rule, a sampler, a grid of times.

# %%
import torch

from lecture_lib import viz, zoo
from lecture_lib.core import uniform_grid
from lecture_lib.guidance import fused, linear
from lecture_lib.samplers import Heun, sample

torch.set_num_threads(1)  # models this small lose more to waiting for a second thread than they gain
model = zoo.load("digits-dit")
labels = torch.arange(10)
noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
guided = fused(model, None, labels, linear(2.0))
frames = list(sample(guided, model.path, Heun(), uniform_grid(model.path, 8), noise))

viz.show(
    viz.image_grid(
        torch.cat([frame.x for frame in frames]),
        columns=10,
        scale=5,
        row_labels=[f"t = {frame.t:.2f}" for frame in frames],
        column_labels=list("0123456789"),
    ),
    caption="From noise (t = 1) to data (t = 0) in eight steps. The class is decided early, the strokes late.",
    alt="Nine rows of ten small pictures: pure noise at the top, the digits 0 to 9 at the bottom.",
)

# %% [markdown]
# ## The map
# | | lecture | in one sentence | state |
# |---|---|---|---|
# | **1** | **Latent diffusion** | An image is mostly predictable; what is left when you throw the predictable part away? | **[lecture](L1_latent_diffusion_lecture.ipynb) · [lab](L1_latent_diffusion_lab.ipynb)** |
# | **2** | **Guidance** | Turn one knob and pictures get sharper: which distribution are you sampling? | **[lecture](L2_guidance_lecture.ipynb) · [lab](L2_guidance_lab.ipynb)** |
# | **3** | **Diffusion transformers** | Why did everyone leave the U-Net? | **[lecture](L3_transformers_lecture.ipynb) · [lab](L3_transformers_lab.ipynb)** |
# | **4** | **Consistency models** | The solver takes fifty steps to evaluate a function: learn the function. | **[lecture](L4_fast_generation_lecture.ipynb) · [lab](L4_fast_generation_lab.ipynb)** |
# | **5** | **Unified interpolants** | Thirty-six families, and the sentence that many of them share: $x_t=\alpha x_0+\beta x_1+\gamma z$. | **[lecture](L5_unified_interpolants_lecture.ipynb) · [lab](L5_unified_interpolants_lab.ipynb)** |
#
# Each lecture is a pair: the *lecture* (play, intuition, mathematics; 90 minutes) and the *lab* (build, measure,
# frontier; 105 minutes).
#
# ## Four habits of this course
# 1. **Predict, then run.** Questions come before their cell; answers are folded away below them. Guess first.
# 2. **Every claim has a check.** `verify` states a claim, prints how far its two sides are apart, and stops the
#    notebook if they differ:

# %%
from lecture_lib.checks import verify
from lecture_lib.errors import CourseError

verify("sin^2 + cos^2 = 1", torch.sin(noise) ** 2 + torch.cos(noise) ** 2, 1.0, tol=1e-6)
try:
    verify("sin = cos", torch.sin(noise), torch.cos(noise), tol=1e-6)
except CourseError as error:
    print(error)

# %% [markdown]
# 3. **Popular mistakes are shown failing.** Where you may read something elsewhere that is not so, a cell lets it
#    fail in front of you.
# 4. **Errors talk.** Wrong input gets a message that says what came and what was expected:

# %%
# NBVAL_CHECK_OUTPUT
try:
    model.given(11)
except CourseError as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## The conventions, on one page
# They hold in all notebooks and in every function of `lecture_lib`. Papers that differ get a boxed remark, not a
# second notation.
#
# | | here | beware of |
# |---|---|---|
# | **time** | $t=0$ is data, $t=1$ is noise; sampling runs downwards | flow-matching papers often run the other way |
# | **path** | $x_t=\alpha_t x_0+\sigma_t\epsilon$ | some write $x_1$ for data |
# | **half log-SNR** | $\lambda_t=\log(\alpha_t/\sigma_t)$ | others mean $\log\mathrm{SNR}=2\lambda$ |
# | **velocity** | $u=\dot x_t=\dot\alpha x_0+\dot\sigma\epsilon$ | |
# | **v** | $v=\alpha\epsilon-\sigma x_0$, only this | "v" for velocity |
# | **score** | $\nabla\log p_t(x_t)=-\epsilon/\sigma_t$ | |
# | **guidance** | $w=0$ unconditional, $w=1$ conditional, $w>1$ guided | $(1+w')$ with $w'=w-1$ |
# | **steps** | $n$ steps are $n+1$ times | |
# | **cost** | NFE: network evaluations *per sample*, both branches of guidance counted | "steps" |
# | **images** | `(b, c, h, w)` in $[-1,1]$; times `(b,)` | |
#
# What a network predicts, in one table: $y=a\,x_0+b\,\epsilon$ is all there is, and each prediction is a pair
# $(a,b)$. Given $x_t$, any one of them yields all the others.

# %%
from lecture_lib.core import EPS, SCORE, VELOCITY, X0, RectifiedFlow, V, VPCosine

generator = torch.Generator().manual_seed(1)
x0, eps = (torch.randn(6, 3, dtype=torch.float64, generator=generator) for _ in range(2))
t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
for path in (RectifiedFlow(), VPCosine()):
    x_t, c = path.mix(x0, eps, t), path.coeffs(t)
    for kind in (X0, EPS, V, VELOCITY, SCORE):
        found, _ = kind.decode(kind.encode(x0, eps, c), x_t, c)
        verify(f"{type(path).__name__:13s} {kind.name:8s} and back", found, x0, tol=1e-12)

# %% [markdown]
# Objects explain themselves: leave one at the end of a cell.

# %%
Heun()

# %% [markdown]
# ## Is everything in place?
# The next cells test the installation: the report that one pastes into a bug report, the weights against their
# checksums, and two numbers that must hold on every machine.

# %%
from lecture_lib.tooling.info import report

for name, value in report():
    print(f"{name:12s} {value}")

# %%
# NBVAL_CHECK_OUTPUT
for status in zoo.status():
    print(f"{status.name:22s} {status.state:8s} {status.parameters:9,d} parameters   {status.about}")

# %%
from lecture_lib.checks import verify_less

labels = torch.arange(10).repeat(20)
noise = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(2))
*_, end = sample(fused(model, None, labels, linear(1.5)), model.path, Heun(), uniform_grid(model.path, 8), noise)
verify("8 Heun steps, the last one Euler, both branches: 30 network evaluations", end.nfe, 30, tol=0)
verify_less(
    "an independent judge reads more than 98 % of 200 digits as asked", 0.98, zoo.judge().accuracy(end.x, labels)
)

# %% [markdown]
# If all of this ran, everything will. Go on with **[Lecture 1: Latent diffusion](L1_latent_diffusion_lecture.ipynb)**.
#
# *Stuck?* `course info` in a terminal prints the report above; `course --help` lists what else there is; `make test`
# proves the whole course.
