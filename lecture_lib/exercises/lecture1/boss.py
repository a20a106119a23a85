"""1.12, the boss: a whole sampler, from noise to a latent that the decoder understands."""

from __future__ import annotations

from itertools import pairwise

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape
from lecture_lib.exercises.stages import lecture1 as stages
from lecture_lib.exercises.task import question


@question("1.12", 12, "boss: a whole sampler")
def paint(network, alpha_bar, noise, fresh, eta, steps, scale, shift):
    return _unscaled(_walked(network, alpha_bar, noise, fresh, eta, _trailing(len(alpha_bar), steps)), scale, shift)


paint.stage(stages.with_timed_network)


def _unscaled(z, scale, shift):
    return z / scale + shift


def _trailing(length, steps):
    return [round(length * (1 - k / steps)) for k in range(steps)] + [0]


def _leading(length, steps):
    return [1 + k * (length // steps) for k in reversed(range(steps))] + [0]


def _from_v(x, v, alpha, sigma):
    return alpha * x - sigma * v, sigma * x + alpha * v


def _ddim(now, then, eta):
    """Standard deviation of the fresh noise."""
    return eta * then[1] / now[1] * (1 - (now[0] / then[0]) ** 2) ** 0.5


def _rest(then, std):
    """What is left for the old noise, NaN if that is more than all."""
    square = then[1] ** 2 - std**2
    return square**0.5 if square >= 0 else float("nan")


def _walked(
    network,
    alpha_bar,
    x,
    fresh,
    eta,
    grid,
    *,
    before=None,
    read=_from_v,
    spread=_ddim,
    back=_rest,
    first=1.0,
    root=torch.sqrt,
):
    """The loop, any part of it replaced; ``before`` says where a step from t leads, default the next of the grid."""
    bars = torch.cat([torch.tensor([first]), alpha_bar]).double()
    levels = list(zip(root(bars).tolist(), (1 - bars).sqrt().tolist(), strict=True))
    for k, (t, s) in enumerate(pairwise(grid)):
        now, then = levels[t], levels[before(t) if before else s]
        x0, eps = read(x, network(x, torch.full((len(x),), float(t))), *now)
        std = spread(now, then, eta)
        left = back(then, std)
        x = then[0] * x0 + left * eps + std * fresh[k]
    return x


@paint.inputs
def _(g):
    b, d = shape(g)
    steps = 2 * count(g, 1, 2) + 1
    length = steps * count(g, 3, 5) + count(g, 1, steps - 1)  # steps do not divide it
    root = torch.linspace(0.97, 0.0, length) ** 0.8 + 0.02 * torch.sin(torch.linspace(0, torch.pi, length))
    net = {"weight": normal(g, d, d, scale=0.6), "slope": normal(g, d), "bias": normal(g, d, scale=0.4)}
    chance = {"noise": normal(g, b, d), "fresh": normal(g, steps, b, d), "eta": number(g, 0.3, 0.9)}
    ends = {"steps": steps, "scale": number(g, 0.15, 0.45), "shift": number(g, 0.3, 1.2)}
    return {"alpha_bar": (root * number(g, 0.96, 0.99)).square(), **chance, **ends, **net}


_START = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
_FRESH = torch.tensor([[[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]], [[0.2, -0.7, 0.4], [1.3, -0.1, 0.9]]])
_GAUSS = {"weight": torch.zeros(3, 3), "slope": torch.zeros(3), "bias": torch.zeros(3)}  # v = 0: data are N(0, 1)
_TWO = {"alpha_bar": torch.tensor([0.5, 0.0]), "noise": _START, "fresh": _FRESH, "scale": 0.25, "shift": 0.5}
_SAYING = {**_GAUSS, "bias": torch.tensor([0.3, -0.6, 0.9]), "scale": 0.25, "shift": 0.5}
paint.edge(
    "one step from alpha = 0: what the network says of the data",
    (-torch.tanh(_SAYING["bias"]) / 0.25 + 0.5).expand(2, 3),
    alpha_bar=torch.tensor([0.8, 0.4, 0.0]), noise=_START, fresh=_FRESH[:1], eta=0.0, steps=1, **_SAYING,
)  # fmt: skip
paint.edge("v = 0, two steps without chance", 0.5 * _START / 0.25 + 0.5, eta=0.0, steps=2, **_TWO, **_GAUSS)
# At alpha_T = 0 and eta = 1 nothing of the old noise is left: the root of a difference of equal numbers. In single
# precision a right answer may find 3e-4 there, or NaN, so eta is less than 1.
paint.edge(
    "v = 0, two steps, eta = 0.6",
    (0.4 * _START + 0.3 * _FRESH[0]) / 0.25 + 0.5, eta=0.6, steps=2, **_TWO, **_GAUSS,
)  # fmt: skip


def _other(network, alpha_bar, noise, fresh, eta, steps, scale, shift, **change):
    """The answer with a part of its loop replaced."""
    grid = change.pop("grid", _trailing)(len(alpha_bar), steps)
    return _unscaled(_walked(network, alpha_bar, noise, fresh, eta, grid, **change), scale, shift)


@paint.mistake
def leading(network, **k):
    """The grid is a leading one: it never visits T, where sampling starts from pure noise, and the brightness of the
    picture is left to chance. Where must the first step start?"""
    return _other(network, **k, grid=_leading)


@paint.mistake
def rounded_down(network, **k):
    """The timesteps are cut off, not rounded."""
    return _other(network, **k, grid=lambda length, steps: [int(length * (1 - j / steps)) for j in range(steps)] + [0])


@paint.mistake
def evenly_to_one(network, **k):
    """The timesteps are spread evenly from T to 1, and then comes 0: the last step is shorter than the others. In
    trailing times all gaps are alike, up to rounding."""
    return _other(
        network, **k, grid=lambda length, steps: [*torch.linspace(length, 1, steps).round().int().tolist(), 0]
    )


@paint.mistake
def stride(network, **k):
    """A step leads from t to t - T // steps: if steps do not divide T, that is not where the next one starts. Take the
    next timestep of the grid."""
    n = len(k["alpha_bar"]) // k["steps"]
    return _other(network, **k, before=lambda t: max(t - n, 0))


@paint.mistake
def not_to_the_end(network, **k):
    """The last step is missing: the walk ends where the network was asked for the last time, and there is noise left.
    Time 0 belongs to the grid."""
    return _other(network, **k, grid=lambda length, steps: _trailing(length, steps)[:-1])


@paint.mistake
def ends_at_the_first_entry(network, **k):
    """The last step ends at the table's first entry, which is the level of t = 1 and still noisy: what is alpha-bar of
    clean data?"""
    return _other(network, **k, first=float(k["alpha_bar"][0]))


@paint.mistake
def counted_from_zero(network, **k):
    """The network is asked one timestep too early: entry number t - 1 of a Python table belongs to timestep t, but
    the network counts 1 to T."""
    return _other(lambda x, t: network(x, t - 1), **k)


@paint.mistake
def asked_at_the_end(network, alpha_bar, **k):
    """The network is asked at the time where the step ends: x still has the noise of the time where it starts."""
    ahead = dict(pairwise(_trailing(len(alpha_bar), k["steps"])))
    return _other(lambda x, t: network(x, float(ahead[int(t[0])])), alpha_bar=alpha_bar, **k)


@paint.mistake
def clock_turned(network, **k):
    """The network's clock runs backwards: in this course T is noise, and it is asked at T first."""
    return _other(lambda x, t: network(x, len(k["alpha_bar"]) - t), **k)


@paint.mistake
def clock_of_one(network, **k):
    """The network hears t/T: this one counts timesteps from 1 to T."""
    return _other(lambda x, t: network(x, t / len(k["alpha_bar"])), **k)


@paint.mistake
def noise_prediction(network, **k):
    """The network's output is used as the noise. At alpha = 0 noise says nothing of the data, hence the division by
    zero: this network predicts v."""
    return _other(network, **k, read=lambda x, out, alpha, sigma: ((x - sigma * out) / torch.tensor(alpha), out))


@paint.mistake
def v_turned(network, **k):
    """v has the other sign: in this course v is alpha eps - sigma x0."""
    return _other(network, **k, read=lambda x, out, alpha, sigma: _from_v(x, -out, alpha, sigma))


@paint.mistake
def clipped(network, **k):
    """The data that are read off are clipped to [-1, 1], as for pixels: latents have no such bounds."""

    def read(x, v, alpha, sigma):
        x0, eps = _from_v(x, v, alpha, sigma)
        return x0.clamp(-1, 1), eps

    return _other(network, **k, read=read)


@paint.mistake
def bars(network, alpha_bar, **k):
    """alpha-bar is used as if it were alpha: it is the square of what multiplies the data."""
    return _other(network, alpha_bar=alpha_bar.square(), **k)


@paint.mistake
def bars_beside_roots(network, **k):
    """alpha-bar stands where its root belongs, beside a sigma that is right: their squares no longer add up to 1."""
    return _other(network, **k, root=lambda bars: bars)


@paint.mistake
def too_much_noise(network, **k):
    """Fresh noise is added, and as much of the old is kept as without it: together they are too loud. The two
    *variances* have to add up to that of the new level."""
    return _other(network, **k, back=lambda then, std: then[1])


@paint.mistake
def deviations_subtracted(network, **k):
    """The standard deviation of the fresh noise is taken from that of the level: variances are what adds up."""
    return _other(network, **k, back=lambda then, std: then[1] - std)


@paint.mistake
def variance_for_deviation(network, **k):
    """The fresh noise is multiplied by its variance: a standard deviation belongs there."""

    def squared(now, then, eta):
        return _ddim(now, then, eta) ** 2

    return _other(network, **k, spread=squared, back=lambda then, std: (then[1] ** 2 - std) ** 0.5)


@paint.mistake
def larger_variance(network, **k):
    """The fresh noise is that of beta; DDIM's at eta = 1 is the noise of the *posterior*, smaller by the ratio of the
    two sigmas."""

    def plain(now, then, eta):
        return eta * (1 - (now[0] / then[0]) ** 2) ** 0.5 if then[1] else 0.0

    return _other(network, **k, spread=plain)


@paint.mistake
def eta_forgotten(network, **k):
    """No fresh noise at all: that is eta = 0."""
    return _other(network, **{**k, "eta": 0.0})


@paint.mistake
def same_noise(network, fresh, **k):
    """The same fresh noise in every step: each step has its own."""
    return _other(network, fresh=fresh[:1].expand_as(fresh), **k)


@paint.mistake
def scaled_again(network, scale, shift, **k):
    """The latent is multiplied by the scale once more: what was multiplied on the way in is divided on the way out."""
    return _other(network, scale=1 / scale, shift=shift, **k)


@paint.mistake
def shifted_first(network, scale, shift, **k):
    """The shift is undone before the scale: it was the *first* thing done on the way in, so it is the last on the way
    out."""
    return (_other(network, scale=1.0, shift=0.0, **k) + shift) / scale


@paint.mistake
def left_scaled(network, scale, shift, **k):
    """The latent is still scaled and shifted as for diffusion: the decoder has never seen such latents."""
    return _other(network, scale=1.0, shift=0.0, **k)
