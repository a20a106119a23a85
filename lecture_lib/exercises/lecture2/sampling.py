"""2.11 and 2.12: a guided step, and the boss."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.lecture2.rule import A, B, guided
from lecture_lib.exercises.task import question

# 2.11 ----------------------------------------------------------------------------------------------------------------


@question("2.11", 8, "one guided step of DDIM")
def guided_step(x, eps_uncond, eps_cond, w, now, then):
    eps = guided(eps_uncond, eps_cond, w)
    return _step(x, eps, eps, now, then)


def _step(x, out, back, now, then):
    """The noise ``out`` is taken away at one level, and ``back`` is put back at the other."""
    return then[0] * (x - now[1] * out) / now[0] + then[1] * back


@guided_step.inputs
def _(g):
    b, d = shape(g)
    levels = {"now": [number(g, 0.3, 0.45), number(g, 0.85, 0.95)], "then": [number(g, 0.6, 0.75), number(g, 0.5, 0.7)]}
    return {
        "x": normal(g, b, d),
        "eps_uncond": normal(g, b, d),
        "eps_cond": normal(g, b, d),
        "w": number(g, 1.6, 5),
        **levels,
    }


_HERE = [0.6, 0.8]
guided_step.edge("a step of length 0 stays", A, x=A, eps_uncond=B, eps_cond=B / 2, w=2.0, now=_HERE, then=_HERE)
guided_step.edge(
    "with the true noise the last step gives the data",
    A, x=0.6 * A + 0.8 * B, eps_uncond=B, eps_cond=B, w=3.0, now=_HERE, then=[1.0, 0.0],
)  # fmt: skip


@guided_step.mistake
def plus_plus(x, eps_uncond, eps_cond, w, now, then):
    """The noise that is put back is the unconditional one: that is CFG++, another sampler. Here both are guided."""
    return _step(x, guided(eps_uncond, eps_cond, w), eps_uncond, now, then)


@guided_step.mistake
def data_unguided(x, eps_uncond, eps_cond, w, now, then):
    """The clean data are read off the conditional noise: guidance belongs there, too."""
    return _step(x, eps_cond, guided(eps_uncond, eps_cond, w), now, then)


@guided_step.mistake
def old_level(x, eps_uncond, eps_cond, w, now, then):
    """The noise is put back at the *old* level."""
    return guided_step(x, eps_uncond, eps_cond, w, now, [then[0], now[1]])


@guided_step.mistake
def old_alpha_forgotten(x, eps_uncond, eps_cond, w, now, then):
    """The clean data are not divided by the old alpha."""
    return guided_step(x, eps_uncond, eps_cond, w, [1.0, now[1]], then)


@guided_step.mistake
def new_alpha_forgotten(x, eps_uncond, eps_cond, w, now, then):
    """The clean data are not scaled by the new alpha."""
    return guided_step(x, eps_uncond, eps_cond, w, now, [1.0, then[1]])


@guided_step.mistake
def backwards(x, eps_uncond, eps_cond, w, now, then):
    """`now` and `then` are exchanged: the step leads from now to then."""
    return guided_step(x, eps_uncond, eps_cond, w, then, now)


@guided_step.mistake
def one_plus_w(x, eps_uncond, eps_cond, w, now, then):
    """The convention of 1 + w: in this course w = 1 is the conditional model."""
    return guided_step(x, eps_uncond, eps_cond, 1 + w, now, then)


@guided_step.mistake
def nothing_put_back(x, eps_uncond, eps_cond, w, now, then):
    """No noise is put back: the sample at the new level would be too clean."""
    return guided_step(x, eps_uncond, eps_cond, w, now, [then[0], 0.0])


@guided_step.mistake
def clean_data(x, eps_uncond, eps_cond, w, now, then):
    """The clean data are returned: the step goes on from there to the new level."""
    return guided_step(x, eps_uncond, eps_cond, w, now, [1.0, 0.0])


@guided_step.mistake
def conditional_put_back(x, eps_uncond, eps_cond, w, now, then):
    """The noise that is put back is the conditional one: it must be the same that was taken away."""
    return _step(x, guided(eps_uncond, eps_cond, w), eps_cond, now, then)


@guided_step.mistake
def unguided(x, eps_uncond, eps_cond, w, now, then):
    """A step of the conditional model, whatever w is: the noise is guided first."""
    return _step(x, eps_cond, eps_cond, now, then)


@guided_step.mistake
def predictions_exchanged(x, eps_uncond, eps_cond, w, now, then):
    """The two predictions are exchanged: guidance leads from the unconditional to the conditional one."""
    return guided_step(x, eps_cond, eps_uncond, w, now, then)


@guided_step.mistake
def pairs_turned(x, eps_uncond, eps_cond, w, now, then):
    """alpha and sigma are exchanged: alpha comes first in each pair."""
    return guided_step(x, eps_uncond, eps_cond, w, now[::-1], then[::-1])


@guided_step.mistake
def old_alpha(x, eps_uncond, eps_cond, w, now, then):
    """The data keep the *old* alpha, and only the noise changes (Euler in sigma): right if alpha stays as it is."""
    return x + (then[1] - now[1]) * guided(eps_uncond, eps_cond, w)


# 2.12 ----------------------------------------------------------------------------------------------------------------


@question("2.12", 8, "boss: a product of Gaussian experts that may not exist")
def expert_precision(precision_u, precisions, weights):
    total = precision_u + (weights[:, None, None] * (precisions - precision_u)).sum(0)
    return total, _is_density(total)


def _is_density(precision):
    return bool(torch.linalg.eigvalsh((precision + precision.mT) / 2).min() > 0)


@expert_precision.inputs
def _(g):
    d = count(g, 2, 3)
    experts = torch.stack([_matrix(g, d, 1.0, 2.0), _matrix(g, d, 1.0, 2.0)])
    weights = torch.tensor([number(g, 1.2, 1.9), -number(g, 0.3, 1.6)])
    return {"precision_u": _matrix(g, d, 0.4, 0.8), "precisions": experts, "weights": weights}


def _matrix(g, d, low, high):
    """Symmetric, with eigenvalues between two numbers."""
    turn, _ = torch.linalg.qr(normal(g, d, d))
    matrix = (turn * uniform(g, d, low=low, high=high)) @ turn.mT
    return (matrix + matrix.mT) / 2


_ONE, _HALF, _TILTED = torch.eye(2), torch.eye(2) / 2, torch.tensor([[2.0, 1.5], [1.5, 2.0]])
_STRETCHED = torch.diag(torch.tensor([5.0, 0.5]))


def _edge(label, expected, u, first, second, *weights):
    both = {"precisions": torch.stack([first, second]), "weights": torch.tensor(weights)}
    expert_precision.edge(label, expected, precision_u=u, **both)


_edge("weights 0: the unconditional density", (_HALF, True), _HALF, _ONE, _TILTED, 0.0, 0.0)
_edge(
    "it grows without bound in one direction",
    (torch.diag(torch.tensor([6.8, -0.4])), False),
    2 * _ONE,
    _STRETCHED,
    _ONE,
    1.6,
    0.0,
)
_edge("it grows without bound in all directions", (-2 * _ONE, False), _ONE, 4 * _ONE, _ONE, -1.0, 0.0)
_edge(
    "it grows faster in one direction than it falls in the other",
    (torch.diag(torch.tensor([1.0, -3.0])), False),
    _ONE,
    torch.diag(torch.tensor([1.0, 3.0])),
    _ONE,
    -2.0,
    0.0,
)
_edge("it is flat in one direction", (torch.diag(torch.tensor([9.0, 0.0])), False), _ONE, _STRETCHED, _ONE, 2.0, 0.0)
_edge(
    "it exists, with a negative weight",
    (torch.tensor([[1.25, -0.75], [-0.75, 1.25]]), True),
    _HALF,
    _ONE,
    _TILTED,
    3.0,
    -0.5,
)
_edge(
    "a correlation that is too strong", (torch.tensor([[4.0, 4.5], [4.5, 4.0]]), False), _ONE, _TILTED, _ONE, 3.0, 0.0
)


@expert_precision.mistake
def covariances(precision_u, precisions, weights):
    """Covariances are mixed where precisions add up: densities are multiplied."""
    inverse = torch.linalg.inv
    total = inverse(expert_precision(inverse(precision_u), inverse(precisions), weights)[0])
    return total, _is_density(total)


@expert_precision.mistake
def not_taken_away(precision_u, precisions, weights):
    """The precisions are summed without taking the unconditional one away from each."""
    total = precision_u + (weights[:, None, None] * precisions).sum(0)
    return total, _is_density(total)


@expert_precision.mistake
def trace(precision_u, precisions, weights):
    """A density exists if *all* eigenvalues of its precision are positive; the trace is only their sum."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool(torch.trace(total) > 0)


@expert_precision.mistake
def determinant(precision_u, precisions, weights):
    """A density exists if *all* eigenvalues are positive; the determinant is positive for two negative ones, too."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool(torch.linalg.det(total) > 0)


@expert_precision.mistake
def diagonal(precision_u, precisions, weights):
    """A positive diagonal is not enough, since the rest may be stronger: look at the eigenvalues."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool((total.diagonal() > 0).all())


@expert_precision.mistake
def flat_allowed(precision_u, precisions, weights):
    """An eigenvalue 0 is let through: along its direction the product stays constant, and has no finite integral."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool(torch.linalg.eigvalsh(total).min() >= 0)


@expert_precision.mistake
def one_direction(precision_u, precisions, weights):
    """*One* positive eigenvalue is not enough: a density falls in all directions."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool(torch.linalg.eigvalsh(total).max() > 0)


@expert_precision.mistake
def entries(precision_u, precisions, weights):
    """The signs of a matrix's entries do not say whether it is positive definite: look at the eigenvalues."""
    total, _ = expert_precision(precision_u, precisions, weights)
    return total, bool((total > 0).all())


@expert_precision.mistake
def signs_of_weights(precision_u, precisions, weights):
    """The signs of the weights do not decide it: products with a negative one may exist, and others may not."""
    return expert_precision(precision_u, precisions, weights)[0], bool((weights >= 0).all())


@expert_precision.mistake
def unconditional_forgotten(precision_u, precisions, weights):
    """The unconditional density is in no factor: with all weights 0 it is what must be left."""
    total = (weights[:, None, None] * precisions).sum(0)
    return total, _is_density(total)


@expert_precision.mistake
def covariance_returned(precision_u, precisions, weights):
    """The covariance is returned, the inverse of what is asked for; where the product is flat there is none."""
    total, exists = expert_precision(precision_u, precisions, weights)
    return torch.linalg.inv(total), exists


@expert_precision.mistake
def always(precision_u, precisions, weights):
    """It is said to exist always; with negative weights the product can grow without bound."""
    return expert_precision(precision_u, precisions, weights)[0], True


@expert_precision.mistake
def turned_round(precision_u, precisions, weights):
    """The second answer is turned round: True stands for a density that exists."""
    total, exists = expert_precision(precision_u, precisions, weights)
    return total, not exists
