"""Other right answers to exercise 2."""

import math

import numpy as np
import torch


def rule_as_mean(uncond, cond, w):
    return (1 - w) * uncond + w * cond


def rule_by_lerp(uncond, cond, w):
    return torch.lerp(uncond.double(), cond.double(), w)


def classifier_loop(eps, grad_log_prob, sigma, scale):
    return torch.stack([e - scale * float(s) * g for e, g, s in zip(eps, grad_log_prob, sigma, strict=True)])


def classifier_einsum(eps, grad_log_prob, sigma, scale):
    return eps.sub(torch.einsum("b,bd->bd", sigma, grad_log_prob).mul(scale))


def dropout_indexing(labels, null, p, u):
    labels[u < p] = null
    return labels


def dropout_list(labels, null, p, u):
    return torch.tensor([null if x < p else int(label) for label, x in zip(labels, u.tolist(), strict=True)])


def dropout_numpy(labels, null, p, u):
    return np.where(u.numpy() >= p, labels.numpy(), null)


def data_by_score(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    x0 = [(x_t - sigma * eps) / alpha for eps in (eps_uncond, eps_cond)]
    return x0[0] + w * (x0[1] - x0[0])


def data_numpy(x_t, eps_uncond, eps_cond, w, alpha, sigma):
    eps = (1 - w) * eps_uncond.numpy() + w * eps_cond.numpy()
    return np.divide(x_t.numpy() - sigma * eps, alpha)


def gaussian_by_completing(mean_u, var_u, mean_c, var_c, w):
    a, b = -0.5 * ((1 - w) / var_u + w / var_c), (1 - w) * mean_u / var_u + w * mean_c / var_c
    return [-b / (2 * a), -1 / (2 * a)]


def gaussian_as_tensors(mean_u, var_u, mean_c, var_c, w):
    weights, means = torch.tensor([(1 - w) / var_u, w / var_c]).double(), torch.tensor([mean_u, mean_c]).double()
    return (weights @ means / weights.sum(), 1 / weights.sum())


def table_in_logs(p_x, p_c_given_x, w):
    return torch.softmax(p_x.log() + w * p_c_given_x.log(), dim=0)


def table_loop(p_x, p_c_given_x, w):
    raw = [float(a) * math.pow(float(b), w) for a, b in zip(p_x, p_c_given_x, strict=True)]
    return torch.tensor([r / sum(raw) for r in raw])


def prompts_by_loop(uncond, conds, weights):
    out = uncond.clone()
    for cond, w in zip(conds, weights, strict=True):
        out += w * (cond - uncond)
    return out


def prompts_as_weights(uncond, conds, weights):
    return (1 - weights.sum()) * uncond + torch.tensordot(weights, conds, dims=1)


def rescaled_loop(guided, cond, phi):
    return torch.stack([phi * g * (c.std() / g.std()) + (1 - phi) * g for g, c in zip(guided, cond, strict=True)])


def rescaled_one_factor(guided, cond, phi):
    axes = tuple(range(1, guided.ndim))
    return guided * (1 + phi * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True) - 1))


def projected_by_unit(uncond, cond, w, eta):
    unit = torch.nn.functional.normalize(cond, dim=-1)
    push = cond - uncond
    along = torch.einsum("bd,bd->b", push, unit)[:, None] * unit
    across = push - along
    return cond + (w - 1) * across + (w - 1) * eta * along


def projected_loop(uncond, cond, w, eta):
    rows = []
    for u, c in zip(uncond, cond, strict=True):
        along = torch.dot(c - u, c) / torch.dot(c, c) * c
        rows.append(c + (w - 1) * (c - u - along + eta * along))
    return torch.stack(rows)


def interval_list(sigma, w, low, high):
    return torch.tensor([w if low < s <= high else 1.0 for s in sigma.tolist()])


def interval_product(sigma, w, low, high):
    return torch.pow(torch.full_like(sigma, w), (sigma > low).float() * (sigma <= high).float())


def step_by_data(x, eps_uncond, eps_cond, w, now, then):
    x0 = [(x - now[1] * eps) / now[0] for eps in (eps_uncond, eps_cond)]
    x0 = x0[0] + w * (x0[1] - x0[0])
    return then[0] * x0 + then[1] * (x - now[0] * x0) / now[1]


def step_exponential(x, eps_uncond, eps_cond, w, now, then):
    eps = torch.lerp(eps_uncond, eps_cond, w)
    return then[0] / now[0] * x + (then[1] - then[0] / now[0] * now[1]) * eps


def experts_cholesky(precision_u, precisions, weights):
    total = (1 - weights.sum()) * precision_u + sum(w * p for w, p in zip(weights, precisions, strict=True))
    return total, int(torch.linalg.cholesky_ex((total + total.T) / 2).info) == 0


def experts_minors(precision_u, precisions, weights):
    total = precision_u + torch.tensordot(weights, precisions - precision_u, dims=1)
    minors = [torch.linalg.det(total[:k, :k]) for k in range(1, len(total) + 1)]
    return [total, all(bool(m > 0) for m in minors)]


def experts_tried(precision_u, precisions, weights):
    u, others, w = precision_u.numpy(), precisions.numpy(), weights.numpy()
    total = u + np.einsum("k,kij->ij", w, others - u)
    try:
        np.linalg.cholesky(total)
    except np.linalg.LinAlgError:
        return total, False
    return total, True


ANSWERS = {
    "2.1": (rule_as_mean, rule_by_lerp),
    "2.2": (classifier_loop, classifier_einsum),
    "2.3": (dropout_indexing, dropout_list, dropout_numpy),
    "2.4": (data_by_score, data_numpy),
    "2.5": (gaussian_by_completing, gaussian_as_tensors),
    "2.6": (table_in_logs, table_loop),
    "2.7": (prompts_by_loop, prompts_as_weights),
    "2.8": (rescaled_loop, rescaled_one_factor),
    "2.9": (projected_by_unit, projected_loop),
    "2.10": (interval_list, interval_product),
    "2.11": (step_by_data, step_exponential),
    "2.12": (experts_cholesky, experts_minors, experts_tried),
}
