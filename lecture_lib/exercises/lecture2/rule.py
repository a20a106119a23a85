"""2.1 to 2.4: the rule, where it comes from, what it needs of training, and in which words it is told."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.task import question

A, B = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), torch.tensor([[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]])


# 2.1 -----------------------------------------------------------------------------------------------------------------


@question("2.1", 5, "the guidance rule")
def guided(uncond, cond, w):
    return uncond + w * (cond - uncond)


@guided.inputs
def _(g):
    b, d = shape(g)
    return {"uncond": normal(g, b, d), "cond": normal(g, b, d), "w": number(g, 1.6, 8.4)}


guided.edge("w = 0 gives the unconditional prediction", A, uncond=A, cond=B, w=0.0)
guided.edge("w = 1 gives the conditional prediction", B, uncond=A, cond=B, w=1.0)


@guided.mistake
def one_plus_w(uncond, cond, w):
    """The convention of 1 + w (Ho & Salimans), where w = 0 is the conditional model. In this course w = 1 is."""
    return (1 + w) * cond - w * uncond


@guided.mistake
def plus_for_minus(uncond, cond, w):
    """The weights w and w - 1 with a plus between them: the two weights must add up to 1."""
    return w * cond + (w - 1) * uncond


@guided.mistake
def exchanged(uncond, cond, w):
    """The two predictions are exchanged: guidance goes from the unconditional one towards the conditional one."""
    return cond + w * (uncond - cond)


@guided.mistake
def conditional_alone(uncond, cond, w):
    """That scales the conditional prediction alone: with w = 0 the unconditional one must be left."""
    return w * cond


@guided.mistake
def without_start(uncond, cond, w):
    """The unconditional prediction that the step starts from is missing."""
    return w * (cond - uncond)


@guided.mistake
def added_whole(uncond, cond, w):
    """All of the conditional prediction is added: only its difference from the unconditional one is the push."""
    return uncond + w * cond


@guided.mistake
def away_from_it(uncond, cond, w):
    """The sign of the push: it leads away from the condition."""
    return uncond - w * (cond - uncond)


@guided.mistake
def one_step_short(uncond, cond, w):
    """w - 1 counts from the conditional prediction; from the unconditional one on, the step is longer by one push."""
    return uncond + (w - 1) * (cond - uncond)


@guided.mistake
def weighted_average(uncond, cond, w):
    """An average with the weights 1 and w stays between the two predictions; guidance leads past the second one."""
    return (uncond + w * cond) / (1 + w)


# 2.2 -----------------------------------------------------------------------------------------------------------------


@question("2.2", 8, "classifier guidance of a noise prediction")
def classifier_guided(eps, grad_log_prob, sigma, scale):
    return eps - scale * sigma[:, None] * grad_log_prob


@classifier_guided.inputs
def _(g):
    b, d = shape(g)
    sigma = uniform(g, b, low=0.2, high=0.9)
    return {"eps": normal(g, b, d), "grad_log_prob": normal(g, b, d), "sigma": sigma, "scale": number(g, 1.3, 4.7)}


_LEVELS = torch.tensor([0.3, 0.8])
classifier_guided.edge("scale 0 changes nothing", A, eps=A, grad_log_prob=B, sigma=_LEVELS, scale=0.0)
classifier_guided.edge("at sigma = 0 nothing is added", A, eps=A, grad_log_prob=B, sigma=0 * _LEVELS, scale=2.5)


@classifier_guided.mistake
def wrong_sign(eps, grad_log_prob, sigma, scale):
    """The sign: a score is minus the noise over sigma, so what is added to the score is taken from the noise."""
    return eps + scale * sigma[:, None] * grad_log_prob


@classifier_guided.mistake
def as_if_a_score(eps, grad_log_prob, sigma, scale):
    """The gradient is used as if the prediction were a score: between score and noise lies a factor sigma."""
    return eps - scale * grad_log_prob


@classifier_guided.mistake
def sigma_squared(eps, grad_log_prob, sigma, scale):
    """sigma squared: that factor belongs to a prediction of the clean data; for the noise it is sigma."""
    return eps - scale * sigma[:, None] ** 2 * grad_log_prob


@classifier_guided.mistake
def divided_by_sigma(eps, grad_log_prob, sigma, scale):
    """Divided by sigma: the noise is -sigma times the score, so a change of the score is *multiplied* by sigma."""
    return eps - scale * grad_log_prob / sigma[:, None]


@classifier_guided.mistake
def one_sigma(eps, grad_log_prob, sigma, scale):
    """One sigma for the whole batch: each sample has its own."""
    return eps - scale * sigma.mean() * grad_log_prob


@classifier_guided.mistake
def scale_unused(eps, grad_log_prob, sigma, scale):
    """`scale` is not used: with scale 0 nothing may change."""
    return eps - sigma[:, None] * grad_log_prob


@classifier_guided.mistake
def one_plus_scale(eps, grad_log_prob, sigma, scale):
    """The gradient is taken once too often, as if 1 + scale were asked for: scale 0 is the model without it."""
    return eps - (1 + scale) * sigma[:, None] * grad_log_prob


@classifier_guided.mistake
def score_returned(eps, grad_log_prob, sigma, scale):
    """The guided *score* is returned; asked for is the noise that belongs to it (which exists at sigma = 0, too)."""
    return scale * grad_log_prob - eps / sigma[:, None]


# 2.3 -----------------------------------------------------------------------------------------------------------------


@question("2.3", 8, "label dropout")
def drop_labels(labels, null, p, u):
    return torch.where(u < p, torch.full_like(labels, null), labels)


@drop_labels.inputs
def _(g):
    n, classes = count(g, 40, 60), count(g, 5, 9)
    labels = torch.randint(classes, (n,), generator=g)
    return {"labels": labels, "null": classes, "p": number(g, 0.15, 0.4), "u": uniform(g, n)}


_FOUR, _U = torch.tensor([3, 0, 2, 1]), torch.tensor([0.0, 0.3, 0.6, 0.95])
drop_labels.edge("p = 0 drops nothing", _FOUR, labels=_FOUR, null=4, p=0.0, u=_U)
drop_labels.edge("p = 1 drops all", torch.full((4,), 4), labels=_FOUR, null=4, p=1.0, u=_U)


@drop_labels.mistake
def inverted(labels, null, p, u):
    """Inverted: p is the share of labels that are *dropped*; this keeps that share."""
    return torch.where(u < p, labels, torch.full_like(labels, null))


@drop_labels.mistake
def dropped_above(labels, null, p, u):
    """Inverted: labels go where u lies *above* p, and only the share p of them stays."""
    return torch.where(u > p, torch.full_like(labels, null), labels)


@drop_labels.mistake
def rest_dropped(labels, null, p, u):
    """Inverted: the share 1 - p is dropped; p is the share that goes."""
    return torch.where(u < 1 - p, torch.full_like(labels, null), labels)


@drop_labels.mistake
def not_strictly(labels, null, p, u):
    """A label whose u *is* p goes, too: u may be 0 but never 1, so that only "below" drops nothing at p = 0."""
    return torch.where(u <= p, torch.full_like(labels, null), labels)


@drop_labels.mistake
def whole_batch(labels, null, p, u):
    """The whole batch is dropped or kept together: each sample has a number u of its own."""
    return torch.full_like(labels, null) if u[0] < p else labels


@drop_labels.mistake
def class_zero(labels, null, p, u):
    """Dropped labels become class 0, which is a class like any other: `null` stands for none."""
    return torch.where(u < p, torch.zeros_like(labels), labels)


@drop_labels.mistake
def minus_one(labels, null, p, u):
    """Dropped labels become -1: which number stands for "no class" is given, `null`."""
    return torch.where(u < p, torch.full_like(labels, -1), labels)


@drop_labels.mistake
def last_class(labels, null, p, u):
    """Dropped labels become null - 1, the last class: labels count from 0, so `null` itself is the free number."""
    return torch.where(u < p, torch.full_like(labels, null - 1), labels)


@drop_labels.mistake
def other_end(labels, null, p, u):
    """Dropped where u > 1 - p: as often, but not those labels: one goes where its u lies below p."""
    return torch.where(u > 1 - p, torch.full_like(labels, null), labels)


# 2.4 -----------------------------------------------------------------------------------------------------------------


@question("2.4", 8, "guided noise, told as clean data")
def guided_data(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    return (x_t - sigma * guided(eps_uncond, eps_cond, w)) / alpha


@guided_data.inputs
def _(g):
    b, d = shape(g)
    levels = {"alpha": number(g, 0.3, 0.6), "sigma": number(g, 0.65, 0.9)}
    return {
        "x_t": normal(g, b, d),
        "eps_uncond": normal(g, b, d),
        "eps_cond": normal(g, b, d),
        "w": number(g, 1.6, 5.0),
        **levels,
    }


guided_data.edge("without noise x_t is the data", A, x_t=A, eps_uncond=B, eps_cond=-B, w=2.5, alpha=1.0, sigma=0.0)


@guided_data.mistake
def still_noise(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The guided *noise* is returned; asked for are the clean data that it implies."""
    return guided(eps_uncond, eps_cond, w)


@guided_data.mistake
def noise_added(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The sign of the noise: x_t = alpha x0 + sigma eps, so the noise is taken away."""
    return (x_t + sigma * guided(eps_uncond, eps_cond, w)) / alpha


@guided_data.mistake
def not_divided(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The division by alpha is missing: what is left of x_t without its noise is alpha x0."""
    return x_t - sigma * guided(eps_uncond, eps_cond, w)


@guided_data.mistake
def levels_exchanged(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """alpha and sigma are exchanged."""
    return (x_t - alpha * guided(eps_uncond, eps_cond, w)) / sigma


@guided_data.mistake
def one_plus_w_again(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The convention of 1 + w, here too: w = 1 must be the conditional model."""
    return (x_t - sigma * guided(eps_uncond, eps_cond, 1 + w)) / alpha


@guided_data.mistake
def half_divided(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """Only the noise is divided by alpha: x_t must be as well."""
    return x_t - sigma * guided(eps_uncond, eps_cond, w) / alpha


@guided_data.mistake
def as_if_v(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """alpha x_t - sigma times the prediction is the formula for a prediction of v; here it is the noise."""
    return alpha * x_t - sigma * guided(eps_uncond, eps_cond, w)


@guided_data.mistake
def variance_taken(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """sigma squared: it is sigma itself that stands before the noise in x_t."""
    return (x_t - sigma**2 * guided(eps_uncond, eps_cond, w)) / alpha


@guided_data.mistake
def unguided(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """These are the data that the *conditional* noise implies, whatever w is: guide first."""
    return (x_t - sigma * eps_cond) / alpha


@guided_data.mistake
def predictions_exchanged(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    """The two predictions are exchanged: guidance leads from the unconditional to the conditional one."""
    return guided_data(x_t, eps_cond, eps_uncond, w, alpha, sigma)
