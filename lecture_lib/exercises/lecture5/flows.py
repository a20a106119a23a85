"""5.6: an exact likelihood, with all of its constants."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape
from lecture_lib.exercises.lecture5.mixing import A
from lecture_lib.exercises.stages import lecture5 as stages
from lecture_lib.exercises.task import question

LOG_2PI = math.log(2 * math.pi)

# 5.6 -----------------------------------------------------------------------------------------------------------------


@question("5.6", 10, "bits per dimension of a coupling layer")
def flow_bits(x, mask, network, bound, step):
    z, s = _coupled(x, mask, *network(mask * x).chunk(2, 1), bound)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


def _coupled(x, mask, s, shift, bound):
    s = ~mask * bound * torch.tanh(s)
    return x * s.exp() + ~mask * shift, s


def _log_normal(z):
    return -0.5 * (z.square() + LOG_2PI).sum(1)


def _bits(log_prob, d, step):
    return -log_prob / (d * math.log(2)) - math.log2(step)


flow_bits.stage(stages.coupling)


@flow_bits.inputs
def _(g):
    b, d = shape(g)
    d, hidden = d + 1, d + 6
    mask = torch.arange(d) % 3 == count(g, 0, 1)
    weights = {
        "w1": normal(g, hidden, d, scale=0.8),
        "w2": normal(g, 2 * d, hidden, scale=0.5),
        "c2": normal(g, 2 * d, scale=0.4),
    }
    return {"x": normal(g, b, d), "mask": mask, **weights, "bound": number(g, 1.3, 1.9), "step": number(g, 0.1, 0.3)}


_MASK = torch.tensor([True, False, True])
_STILL = {"x": A, "mask": _MASK, "w1": torch.ones(4, 3), "w2": torch.zeros(6, 4), "bound": 2.0}
flow_bits.edge(
    "a layer that does nothing, at x = 0, with cells of width 1/8: the constants alone",
    torch.full((2,), 3 + 0.5 * math.log2(2 * math.pi)),
    **{**_STILL, "x": 0 * A},
    c2=torch.zeros(6),
    step=0.125,
)
flow_bits.edge(
    "a layer that stretches the middle number by e",
    ((A * torch.tensor([1.0, math.e, 1.0])).square().sum(1) / 2 + 1.5 * LOG_2PI - 1) / (3 * math.log(2)) + 2,
    **_STILL,
    c2=torch.tensor([math.atanh(0.5)] * 3 + [0.0] * 3),
    step=0.25,
)


def _parts(x, mask, network, bound):
    z, s = _coupled(x, mask, *network(mask * x).chunk(2, 1), bound)
    return z, s.sum(1), x.shape[1]


@flow_bits.mistake
def two_pi(x, mask, network, bound, step):
    """A constant of the normal density is missing, worth 1.3 bits in every dimension: pure noise convicts it."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(-0.5 * z.square().sum(1) + log_det, d, step)


@flow_bits.mistake
def no_volume(x, mask, network, bound, step):
    """That is the *density*, which depends on the unit of x. A grey level has a probability: mind the cell's width."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) + log_det, d, 1.0)


@flow_bits.mistake
def volume_divides(x, mask, network, bound, step):
    """The sign of the cell's volume: finer cells take *more* bits."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) + log_det, d, 1 / step)


@flow_bits.mistake
def nats(x, mask, network, bound, step):
    """These are nats; a bit is a logarithm of base 2."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) + log_det, d, step) * math.log(2)


@flow_bits.mistake
def of_the_picture(x, mask, network, bound, step):
    """These are the bits of a whole picture: asked for are those of one dimension."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) + log_det, d, step) * d


@flow_bits.mistake
def volume_shared(x, mask, network, bound, step):
    """The cell's width is counted once for the picture: it is the width in *each* dimension."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) + log_det, d, 1.0) - math.log2(step) / d


@flow_bits.mistake
def determinant_sign(x, mask, network, bound, step):
    """The sign of the log-determinant: where the layer from x to z stretches, x is denser than z, not thinner."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) - log_det, d, step)


@flow_bits.mistake
def determinant_missing(x, mask, network, bound, step):
    """The density of z is taken for that of x: a change of variables has a determinant."""
    z, _, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z), d, step)


@flow_bits.mistake
def halves_exchanged(x, mask, network, bound, step):
    """The halves are exchanged: `mask` marks what is kept and looked at, the others are moved."""
    return flow_bits(x, ~mask, network, bound, step)


@flow_bits.mistake
def sees_all(x, mask, network, bound, step):
    """The network sees the numbers that it moves: then the Jacobian is not triangular, nor the layer invertible."""
    z, s = _coupled(x, mask, *network(x).chunk(2, 1), bound)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def kept_counted(x, mask, network, bound, step):
    """The log-determinant adds up the stretches of all numbers; those that are kept have none."""
    z, _, d = _parts(x, mask, network, bound)
    s = bound * torch.tanh(network(mask * x).chunk(2, 1)[0])
    return _bits(_log_normal(z) + s.sum(1), d, step)


@flow_bits.mistake
def unbounded(x, mask, network, bound, step):
    """The stretch is not bounded as asked: one wild activation, and exp overflows."""
    s, shift = network(mask * x).chunk(2, 1)
    z, s = x * (~mask * s).exp() + ~mask * shift, ~mask * s
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def tanh_lost(x, mask, network, bound, step):
    """`bound` multiplies the raw output: without the tanh it bounds nothing."""
    s, shift = network(mask * x).chunk(2, 1)
    z, s = x * (~mask * bound * s).exp() + ~mask * shift, ~mask * bound * s
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def bound_inside(x, mask, network, bound, step):
    """`bound` stands inside the tanh: the stretch is bounded by 1, whatever it says."""
    s, shift = network(mask * x).chunk(2, 1)
    z, s = _coupled(x, mask, bound * s, shift, 1.0)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def stretches_added(x, mask, network, bound, step):
    """The factors e^s are added up: the determinant is their *product*, and its logarithm is asked for."""
    z, s = _coupled(x, mask, *network(mask * x).chunk(2, 1), bound)
    return _bits(_log_normal(z) + (~mask * s.exp()).sum(1), x.shape[1], step)


@flow_bits.mistake
def bound_lost(x, mask, network, bound, step):
    """The stretch is bounded by 1: `bound` is not used."""
    return flow_bits(x, mask, network, 1.0, step)


@flow_bits.mistake
def outputs_exchanged(x, mask, network, bound, step):
    """The two halves of the network's output are exchanged: first comes what goes into the tanh."""
    shift, s = network(mask * x).chunk(2, 1)
    z, s = _coupled(x, mask, s, shift, bound)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def all_moved(x, mask, network, bound, step):
    """All numbers are stretched and shifted, those that are kept, too: then no inverse knows what the network saw."""
    z, s = _coupled(x, torch.zeros_like(mask), *network(mask * x).chunk(2, 1), bound)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def kept_shifted(x, mask, network, bound, step):
    """The kept numbers are shifted: they are to pass unchanged."""
    s, shift = network(mask * x).chunk(2, 1)
    z, s = _coupled(x, mask, s, shift, bound)
    return _bits(_log_normal(z + mask * shift) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def way_back(x, mask, network, bound, step):
    """(x - m)/e^s leads from z to x: the layer is run backwards."""
    s, shift = network(mask * x).chunk(2, 1)
    s = ~mask * bound * torch.tanh(s)
    return _bits(_log_normal((x - ~mask * shift) * (-s).exp()) - s.sum(1), x.shape[1], step)


@flow_bits.mistake
def shifted_first(x, mask, network, bound, step):
    """The shift is stretched, too: x is stretched first, and shifted then."""
    s, shift = network(mask * x).chunk(2, 1)
    s = ~mask * bound * torch.tanh(s)
    return _bits(_log_normal((x + ~mask * shift) * s.exp()) + s.sum(1), x.shape[1], step)


@flow_bits.mistake
def per_moved_number(x, mask, network, bound, step):
    """Divided by the number of *moved* dimensions: the kept ones are to be coded as well."""
    return flow_bits(x, mask, network, bound, step) * len(mask) / (~mask).sum()


@flow_bits.mistake
def half_lost(x, mask, network, bound, step):
    """The exponent of the normal density lacks its factor before z squared."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(_log_normal(z) - 0.5 * z.square().sum(1) + log_det, d, step)


@flow_bits.mistake
def two_pi_shared(x, mask, network, bound, step):
    """The normal density's constant is counted once for the picture: each dimension has one."""
    z, log_det, d = _parts(x, mask, network, bound)
    return _bits(-0.5 * z.square().sum(1) - 0.5 * LOG_2PI + log_det, d, step)


@flow_bits.mistake
def looks_away(x, mask, network, bound, step):
    """The network sees the moved numbers instead of the kept ones."""
    z, s = _coupled(x, mask, *network(~mask * x).chunk(2, 1), bound)
    return _bits(_log_normal(z) + s.sum(1), x.shape[1], step)
