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
# # Exercise 2 · Guidance
# *Twelve questions, 100 points. Each answer is a function of a few lines.*
#
# **How it works.** Write each function where it says so, and run the cell below it: `check` answers at once, and says what is wrong, not only
# that something is. Answers may use torch, numpy, scipy and math. Checks use random numbers, both end points and a closed form; the marks are
# given by the same checks on fresh random numbers. So there is nothing to guess, and nothing to look up but the lecture.
#
# **Time** about 60 minutes (an estimate). **You need** Lecture 2 up to 3.9 and section 5.2 of its lab.

# %% tags=["setup"]
# On Colab this fetches the course, and replaces nothing that is there. Elsewhere it only says what runs here.
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("lecture_lib") is None:
    get_ipython().run_line_magic("pip", "install -q https://github.com/OWNER/NAME/archive/main.zip")

from lecture_lib.tooling.info import summary

print(summary())

# %%
import torch

from lecture_lib.exercises import check

# %% [markdown]
# ## 2.1 The rule (5 points)
# Two predictions of one network, without and with the condition. Guidance goes from the first towards the second, and
# past it: $\hat y_w=\hat y_\varnothing+w\,(\hat y_c-\hat y_\varnothing)$. In this course $w=0$ is the unconditional model and $w=1$ the conditional
# one. You may know another convention; `check` does, too.


# %% nbgrader={"grade": false, "grade_id": "q2_1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def guided(uncond, cond, w):
    """The guided prediction, (b, d) like both inputs; w is a number."""
    ### BEGIN SOLUTION
    return uncond + w * (cond - uncond)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_1_check", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
check("2.1")
### BEGIN HIDDEN TESTS
assert check("2.1", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.2 Classifier guidance (8 points)
# Bayes: $\nabla\log p_t(x|c)=\nabla\log p_t(x)+\nabla\log p_t(c|x)$. A network predicts the noise, and the score is
# $-\hat\epsilon/\sigma_t$. Which noise belongs to the score with `scale` times the classifier's gradient added?


# %% nbgrader={"grade": false, "grade_id": "q2_2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def classifier_guided(eps, grad_log_prob, sigma, scale):
    """The guided noise (b, d), from noise (b, d), the gradient of log p(c|x) (b, d), sigma (b,),
    which may be 0, and a number."""
    ### BEGIN SOLUTION
    return eps - scale * sigma[:, None] * grad_log_prob
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_2_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.2")
### BEGIN HIDDEN TESTS
assert check("2.2", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.3 Label dropout (8 points)
# One network learns both predictions if its label is sometimes replaced by `null`, "no class". So that your answer is
# the same each time, the random numbers come with the question: drop a label where its `u`, uniform on $[0, 1)$, lies below `p`.


# %% nbgrader={"grade": false, "grade_id": "q2_3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def drop_labels(labels, null, p, u):
    """The labels (b,) after dropout; null and p are numbers, u is (b,)."""
    ### BEGIN SOLUTION
    return torch.where(u < p, torch.full_like(labels, null), labels)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_3_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.3")
### BEGIN HIDDEN TESTS
assert check("2.3", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.4 Guided noise, told as data (8 points)
# With $x_t=\alpha x_0+\sigma\epsilon$, what clean data does the *guided* noise imply?


# %% nbgrader={"grade": false, "grade_id": "q2_4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def guided_data(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The guided prediction of the clean data, (b, d); w, alpha and sigma are numbers."""
    ### BEGIN SOLUTION
    eps = eps_uncond + w * (eps_cond - eps_uncond)
    return (x_t - sigma * eps) / alpha
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_4_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.4")
### BEGIN HIDDEN TESTS
assert check("2.4", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.5 What it means, for Gaussians (12 points)
# At one noise level the guided score is that of $p(x)^{1-w}\,p(x|c)^w$. Let $p(x)=\mathcal N(\mu_u,s_u^2)$ and
# $p(x|c)=\mathcal N(\mu_c,s_c^2)$, narrower than $p$. The product is a Gaussian again, up to a constant. Which one?
# (Write down the exponent, and collect $x^2$ and $x$.)


# %% nbgrader={"grade": false, "grade_id": "q2_5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def tilted_gaussian(mean_u, var_u, mean_c, var_c, w):
    """Mean and variance, two numbers; var_u and var_c are variances, w is a number."""
    ### BEGIN SOLUTION
    precision = (1 - w) / var_u + w / var_c
    mean = ((1 - w) * mean_u / var_u + w * mean_c / var_c) / precision
    return mean, 1 / precision
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_5_check", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check("2.5")
### BEGIN HIDDEN TESTS
assert check("2.5", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.6 The same on a table (8 points)
# A world of $n$ things: $p(x)$ and $p(c|x)$ are vectors. Return $p(x)\,p(c|x)^w$, normalised.


# %% nbgrader={"grade": false, "grade_id": "q2_6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def tilted_table(p_x, p_c_given_x, w):
    """The tilted distribution, (n,)."""
    ### BEGIN SOLUTION
    raw = p_x * p_c_given_x**w
    return raw / raw.sum()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_6_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.6")
### BEGIN HIDDEN TESTS
assert check("2.6", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.7 Several prompts (7 points)
# Each of $k$ prompts pulls with its own weight, all from the unconditional prediction; a negative weight pushes away:
# $\hat y=\hat y_\varnothing+\sum_iw_i\,(\hat y_i-\hat y_\varnothing)$.


# %% nbgrader={"grade": false, "grade_id": "q2_7", "locked": false, "schema_version": 3, "solution": true, "task": false}
def composed(uncond, conds, weights):
    """The guided prediction (b, d), from uncond (b, d), conds (k, b, d) and weights (k,)."""
    ### BEGIN SOLUTION
    return uncond + torch.einsum("k,kbd->bd", weights, conds - uncond)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_7_check", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
check("2.7")
### BEGIN HIDDEN TESTS
assert check("2.7", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.8 Rescaling (10 points)
# Large $w$ makes predictions too wide, and pictures burn out. Multiply each sample of the guided prediction by *one*
# number, so that its standard deviation, *over all its numbers*, becomes that of the conditional one. Then mix: a share
# $\phi$ of the rescaled prediction, $1-\phi$ of the guided one.


# %% nbgrader={"grade": false, "grade_id": "q2_8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rescaled(guided, cond, phi):
    """The rescaled prediction, of the shape of guided and cond, (b, ...); use `std` as PyTorch
    does by default."""
    ### BEGIN SOLUTION
    spread = [y.flatten(1).std(dim=1).reshape(-1, *[1] * (y.ndim - 1)) for y in (guided, cond)]
    return phi * guided * spread[1] / spread[0] + (1 - phi) * guided
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_8_check", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check("2.8")
### BEGIN HIDDEN TESTS
assert check("2.8", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.9 Push sideways, not louder (12 points)
# Adaptive projected guidance splits the push $\hat y_c-\hat y_\varnothing$ into a part along $\hat y_c$, which saturates,
# and a part across. Of the first a share $\eta$ is kept. From the conditional prediction on, $w-1$ such pushes are made.


# %% nbgrader={"grade": false, "grade_id": "q2_9", "locked": false, "schema_version": 3, "solution": true, "task": false}
def projected(uncond, cond, w, eta):
    """The guided prediction (b, d); w and eta are numbers."""
    ### BEGIN SOLUTION
    push = cond - uncond
    unit = cond / cond.norm(dim=1, keepdim=True)
    along = (push * unit).sum(dim=1, keepdim=True) * unit
    return cond + (w - 1) * (push - (1 - eta) * along)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_9_check", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check("2.9")
### BEGIN HIDDEN TESTS
assert check("2.9", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.10 Guidance in an interval (6 points)
# Guidance helps most in the middle of the ladder. Which scale does each sample get, if only noise levels in
# $(\mathtt{low},\mathtt{high}]$ are guided? (Not guided means: the conditional model.)


# %% nbgrader={"grade": false, "grade_id": "q2_10", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scale_in(sigma, w, low, high):
    """The scale of each sample, (b,), from noise levels (b,) and three numbers."""
    ### BEGIN SOLUTION
    inside = (sigma > low) & (sigma <= high)
    return 1.0 + (w - 1.0) * inside.to(sigma)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_10_check", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check("2.10")
### BEGIN HIDDEN TESTS
assert check("2.10", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.11 A guided step (8 points)
# DDIM reads the clean data off the guided noise, and mixes the *same* noise back at the new level. `now` and `then` are the
# pairs $(\alpha,\sigma)$ of the two levels.


# %% nbgrader={"grade": false, "grade_id": "q2_11", "locked": false, "schema_version": 3, "solution": true, "task": false}
def guided_step(x, eps_uncond, eps_cond, w, now, then):
    """x at the level `then`, (b, d)."""
    ### BEGIN SOLUTION
    eps = eps_uncond + w * (eps_cond - eps_uncond)
    x0 = (x - now[1] * eps) / now[0]
    return then[0] * x0 + then[1] * eps
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_11_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.11")
### BEGIN HIDDEN TESTS
assert check("2.11", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## 2.12 Boss: a product that may not exist (8 points)
# Gaussian experts with precision matrices $\Lambda_i$, with weights $w_i$ of any sign, around an unconditional one $\Lambda_u$:
# $p\propto p_u\prod_i(p_i/p_u)^{w_i}$. What is its precision, and is it a density at all?


# %% nbgrader={"grade": false, "grade_id": "q2_12", "locked": false, "schema_version": 3, "solution": true, "task": false}
def expert_precision(precision_u, precisions, weights):
    """The precision (d, d), symmetric, and whether a density with it exists, True or False; from
    (d, d), (k, d, d) and (k,)."""
    ### BEGIN SOLUTION
    total = precision_u + torch.einsum("k,kij->ij", weights, precisions - precision_u)
    total = 0.5 * (total + total.T)
    return total, bool((torch.linalg.eigvalsh(total) > 0).all())
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "q2_12_check", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check("2.12")
### BEGIN HIDDEN TESTS
assert check("2.12", seed=20261128)
### END HIDDEN TESTS

# %% [markdown]
# ## That was it
# Twelve ticks are 100 points. What to look at next: the contrast knob of Lecture 2 (section 2) draws `tilted_gaussian` as a dashed curve,
# and shows that a guided *sampler* ends somewhere else (section 3.5).
