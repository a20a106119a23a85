"""4.1 and 4.2: the function behind the solver, and a network that meets its boundary."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture4.numbers import MEAN, WEIGHT, A, B, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question

# 4.1 -----------------------------------------------------------------------------------------------------------------


@question("4.1", 6, "the flow map of a Gaussian")
def gaussian_flow_map(x, t, s, mean, std):
    return _about(mean, ((std**2 + s**2) / (std**2 + t**2)).sqrt(), x)


def _about(mean, ratio, x):
    return mean + rows(ratio) * (x - mean)


@gaussian_flow_map.inputs
def _(g):
    b, d = shape(g)
    times = {"t": uniform(g, b, low=1.5, high=4.0), "s": uniform(g, b, low=0.3, high=0.9)}
    return {"x": normal(g, b, d, scale=3.0), **times, "mean": normal(g, d) + 0.7, "std": number(g, 0.3, 0.8)}


_T = torch.tensor([0.8, 0.45])
gaussian_flow_map.edge("a jump of length 0 stays", B, x=B, t=_T, s=_T, mean=MEAN, std=0.6)
gaussian_flow_map.edge(
    "down to the data, one standard deviation stays one standard deviation",
    MEAN + 0.6 * A, x=MEAN + torch.tensor([[1.0], [0.75]]) * A, t=_T, s=0 * _T, mean=MEAN, std=0.6,
)  # fmt: skip


@gaussian_flow_map.mistake
def denoiser(x, t, s, mean, std):
    """That is the denoiser, the mean of all x_0 that may lie behind x. A flow map moves points, it takes no mean: run
    it from many x and compare their spread with the data's."""
    return _about(mean, std**2 / (std**2 + t**2), x)


@gaussian_flow_map.mistake
def variances(x, t, s, mean, std):
    """A ratio of variances: a point keeps its distance from the mean in units of *standard deviations*."""
    return _about(mean, (std**2 + s**2) / (std**2 + t**2), x)


@gaussian_flow_map.mistake
def mean_scaled_too(x, t, s, mean, std):
    """All of x is scaled, its mean too; on this path the mean of x_t is that of the data at every t."""
    return gaussian_flow_map(x, t, s, torch.zeros_like(mean), std)


@gaussian_flow_map.mistake
def all_the_way(x, t, s, mean, std):
    """It goes down to the data whatever s is: the map ends where some noise, s, is left."""
    return gaussian_flow_map(x, t, 0 * s, mean, std)


@gaussian_flow_map.mistake
def upstream(x, t, s, mean, std):
    """t and s are exchanged: with less noise the points lie closer together."""
    return gaussian_flow_map(x, s, t, mean, std)


@gaussian_flow_map.mistake
def deviations_added(x, t, s, mean, std):
    """Standard deviations are added: of data and independent noise the *variances* add up."""
    return _about(mean, (std + s) / (std + t), x)


@gaussian_flow_map.mistake
def deviation_for_variance(x, t, s, mean, std):
    """std is used as if it were a variance: t is squared, so must it be."""
    return gaussian_flow_map(x, t, s, mean, std**0.5)


@gaussian_flow_map.mistake
def euler(x, t, s, mean, std):
    """One Euler step from t to s: the slope changes on the way, and the map has all of the way in it."""
    return x + rows((s - t) / t) * (x - denoiser(x, t, s, mean, std))


@gaussian_flow_map.mistake
def one_point(x, t, s, mean, std):
    """s/t would be right if the data were a single point; they have a standard deviation of their own."""
    return _about(mean, s / t, x)


@gaussian_flow_map.mistake
def mean_left_out(x, t, s, mean, std):
    """That is the distance from the mean at time s; where the mean itself lies is missing."""
    return gaussian_flow_map(x, t, s, mean, std) - mean


@gaussian_flow_map.mistake
def other_path(x, t, s, mean, std):
    """Mean and spread of the data shrink by 1 - t: that is a rectified flow. On EDM's path the data keep their size."""
    deviations = [((1 - time) ** 2 * std**2 + time**2).sqrt() for time in (t, s)]
    return rows(1 - s) * mean + rows(deviations[1] / deviations[0]) * (x - rows(1 - t) * mean)


# 4.2 -----------------------------------------------------------------------------------------------------------------


@question("4.2", 8, "a network that meets the boundary")
def consistency_function(F, x, t, eps, std):
    return _built(F, x, t, *_scalings(t, eps, std))


def _built(F, x, t, skip, out, into):
    return rows(skip) * x + rows(out) * F(rows(into) * x, t.log() / 4)


def _scalings(t, eps, std):
    root = (t**2 + std**2).sqrt()
    return std**2 / ((t - eps) ** 2 + std**2), std * (t - eps) / root, 1 / root


consistency_function.stage(stages.consistency_function)


@consistency_function.inputs
def _(g):
    b, d = shape(g)
    layer = {"weight": normal(g, d, d), "bias": normal(g, d) + 0.5}
    t, eps = uniform(g, b, low=0.6, high=2.5), number(g, 0.1, 0.3)
    t[0] = eps  # one sample at the boundary, the others not
    return {**layer, "x": normal(g, b, d, scale=2.0), "t": t, "eps": eps, "std": number(g, 0.4, 0.8)}


_ONE_LAYER = {"weight": WEIGHT, "bias": MEAN}
_SILENT = {"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}
consistency_function.edge(
    "at t = eps the point itself, whatever the network says",
    A, **_ONE_LAYER, x=A, t=torch.tensor([0.2, 0.2]), eps=0.2, std=0.6,
)  # fmt: skip
consistency_function.edge(
    "what is left of x if the network says nothing",
    torch.tensor([[0.36], [0.5]]) * A, **_SILENT, x=A, t=torch.tensor([1.0, 0.8]), eps=0.2, std=0.6,
)  # fmt: skip


@consistency_function.mistake
def edm(F, x, t, eps, std):
    """Those are EDM's scalings, whose boundary lies at t = 0. Here trajectories end at eps: put t = eps in."""
    return consistency_function(F, x, t, 0.0, std)


@consistency_function.mistake
def eps_everywhere(F, x, t, eps, std):
    """t - eps stands in the root below as well; that root keeps the size of x_t, whose noise is t."""
    skip, _, into = _scalings(t, eps, std)
    return _built(F, x, t, skip, std * (t - eps) / ((t - eps) ** 2 + std**2).sqrt(), into)


@consistency_function.mistake
def input_unscaled(F, x, t, eps, std):
    """The network is shown x as it is, at t = 80 numbers of size 80: its input must be scaled to size one."""
    skip, out, into = _scalings(t, eps, std)
    return _built(F, x, t, skip, out, torch.ones_like(into))


@consistency_function.mistake
def raw_time(F, x, t, eps, std):
    """The network is told t itself, which runs over five powers of ten: it is to hear a logarithm."""
    return consistency_function(lambda y, _: F(y, t), x, t, eps, std)


@consistency_function.mistake
def logarithm_whole(F, x, t, eps, std):
    """The logarithm is not divided by 4."""
    return consistency_function(lambda y, c: F(y, 4 * c), x, t, eps, std)


@consistency_function.mistake
def exchanged(F, x, t, eps, std):
    """c_skip and c_out are exchanged: near the data x must be kept, and the network must not be heard."""
    skip, out, into = _scalings(t, eps, std)
    return _built(F, x, t, out, skip, into)


@consistency_function.mistake
def latent(F, x, t, eps, std):
    """c_out goes to 1 for large t. That is LCM's, whose network speaks of x_0 itself; here F has size one and is to
    become as large as data."""
    skip, out, into = _scalings(t, eps, std)
    return _built(F, x, t, skip, out / std, into)


@consistency_function.mistake
def skip_by_deviations(F, x, t, eps, std):
    """A root too many: c_skip is a share of *variances*."""
    skip, out, into = _scalings(t, eps, std)
    return _built(F, x, t, skip.sqrt(), out, into)


@consistency_function.mistake
def divided_by_variance(F, x, t, eps, std):
    """The input is divided by its variance; to have size one it is divided by its standard deviation."""
    skip, out, into = _scalings(t, eps, std)
    return _built(F, x, t, skip, out, into**2)


@consistency_function.mistake
def one_level(F, x, t, eps, std):
    """One noise level for the whole batch: each sample has its own."""
    return consistency_function(F, x, t.mean().expand(len(t)), eps, std)


@consistency_function.mistake
def heard_at_the_end(F, x, t, eps, std):
    """c_skip is right, c_out is EDM's: at t = eps the network is still heard."""
    skip, _, into = _scalings(t, eps, std)
    return _built(F, x, t, skip, _scalings(t, 0.0, std)[1], into)


@consistency_function.mistake
def shrunk_at_the_end(F, x, t, eps, std):
    """c_out is right, c_skip is EDM's: at t = eps it is a little less than 1."""
    _, out, into = _scalings(t, eps, std)
    return _built(F, x, t, _scalings(t, 0.0, std)[0], out, into)


@consistency_function.mistake
def eps_in_input(F, x, t, eps, std):
    """eps is taken from t in c_in as well: the input is brought to size one, and its noise is t."""
    skip, out, _ = _scalings(t, eps, std)
    return _built(F, x, t, skip, out, 1 / ((t - eps) ** 2 + std**2).sqrt())


@consistency_function.mistake
def quarter_inside(F, x, t, eps, std):
    """The network is told the logarithm of a quarter of t: the quarter stands outside."""
    return consistency_function(lambda y, _: F(y, (t / 4).log()), x, t, eps, std)


@consistency_function.mistake
def other_logarithm(F, x, t, eps, std):
    """The logarithm is that to base 10: ln is the natural one."""
    return consistency_function(lambda y, _: F(y, t.log10() / 4), x, t, eps, std)


@consistency_function.mistake
def all_or_none(F, x, t, eps, std):
    """As soon as one sample is at eps all of them are returned as they are: each has its own t, and the formula needs
    no case for eps."""
    return x if (t <= eps + 1e-6).any() else consistency_function(F, x, t, eps, std)
