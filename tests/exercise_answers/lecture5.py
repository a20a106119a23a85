"""Other right answers to exercise 5."""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy import optimize, special
from scipy.spatial.distance import cdist


def mixed_loop(x0, x1, z, t, a):
    rows = zip(x0, x1, z, t.tolist(), strict=True)
    return torch.stack([p + s * (q - p) + math.sqrt(a * s * (1 - s)) * n for p, q, n, s in rows])


def mixed_einsum(x0, x1, z, t, a):
    shares = torch.stack([1 - t, t, torch.sqrt(a * (t - t**2))])
    return torch.einsum("kb,kbd->bd", shares, torch.stack([x0, x1, z])).double()


def velocity_by_score(v, eta, t, a):
    score = -eta / (a * t * (1 - t)).sqrt()[:, None]
    return v - a * (0.5 - t)[:, None] * score, score


def velocity_autograd(v, eta, t, a):
    clock = t.double().requires_grad_()
    gamma = torch.sqrt(a * clock * (1 - clock))
    (slope,) = torch.autograd.grad(gamma.sum(), clock)
    return [v + torch.einsum("b,bd->bd", slope, eta.double()), -eta / gamma.detach()[:, None]]


def walk_by_index(velocity, score, x, times, epsilon, noise):
    for k in range(len(times) - 1):
        h = times[k] - times[k + 1]
        x = x - h * velocity(x, times[k]) + h * epsilon * score(x, times[k]) + (2 * epsilon * h) ** 0.5 * noise[k]
    return x


def walk_by_g(velocity, score, x, times, epsilon, noise):
    g2, x = 2 * epsilon, x.double()
    for k, (t, s) in enumerate(pairwise(times.double().tolist())):
        drift = velocity(x, t) - 0.5 * g2 * score(x, t)
        x = x + drift * (s - t) + math.sqrt(g2) * math.sqrt(t - s) * noise[k].double()
    return x


def cases_trapezoid(t, rate_0, rate_1, sigma_min, sigma_max):
    total = t * (rate_0 + rate_0 + (rate_1 - rate_0) * t) / 2
    variance = sigma_min**2 * torch.exp(2 * t * math.log(sigma_max / sigma_min))
    g2 = 2 * (math.log(sigma_max) - math.log(sigma_min)) * variance
    return torch.exp(-total / 2), torch.sqrt(-torch.expm1(-total)), torch.sqrt(g2)


def cases_autograd(t, rate_0, rate_1, sigma_min, sigma_max):
    clock = t.double().requires_grad_()
    variance = (sigma_min * (sigma_max / sigma_min) ** clock) ** 2
    (g2,) = torch.autograd.grad(variance.sum(), clock)
    s = t.numpy().astype(float)
    alpha2 = np.exp(-rate_0 * s) * np.exp(-(rate_1 - rate_0) * s * s / 2)
    return [np.sqrt(alpha2), np.sqrt(1 - alpha2), g2.sqrt().numpy()]


def partners_numpy(x0, x1):
    rows, columns = optimize.linear_sum_assignment(cdist(x0.numpy(), x1.numpy(), "sqeuclidean"))
    out = np.empty_like(x1.numpy())
    out[rows] = x1.numpy()[columns]
    return out


def partners_products(x0, x1):
    """Squared lengths are the same for every pairing: only the products count."""
    return x1[optimize.linear_sum_assignment((x0 @ x1.T).numpy(), maximize=True)[1]]


def bits_by_halves(x, mask, network, bound, step):
    out = network(torch.where(mask, x, torch.zeros_like(x)))
    d = x.shape[1]
    s, shift = bound * out[:, :d].tanh()[:, ~mask], out[:, d:][:, ~mask]
    moved = x[:, ~mask] * torch.exp(s) + shift
    nats = 0.5 * (x[:, mask] ** 2).sum(1) + 0.5 * (moved**2).sum(1) + 0.5 * d * math.log(2 * math.pi) - s.sum(1)
    return nats / math.log(2) / d + math.log2(1 / step)


def bits_by_jacobian(x, mask, network, bound, step):
    def layer(row):
        s, shift = network((row * mask)[None])[0].chunk(2)
        return torch.where(mask, row, row * torch.exp(bound * torch.tanh(s)) + shift)

    bits = []
    for row in x:
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(layer(row)).sum()
        log_p = log_p + torch.linalg.slogdet(torch.autograd.functional.jacobian(layer, row)).logabsdet
        bits.append(-(log_p + len(row) * math.log(step)) / (len(row) * math.log(2)))
    return torch.stack(bits)


def bound_by_distributions(x, mean, std, W, s, noise):
    q, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    z = mean + std * noise
    log_w = torch.distributions.Normal(z @ W.T, s).log_prob(x).sum(-1) + (prior.log_prob(z) - q.log_prob(z)).sum(-1)
    return torch.logsumexp(log_w, 0) - math.log(noise.shape[0])


def bound_by_loop(x, mean, std, W, s, noise):
    x, mean, std, W, noise = (v.double().numpy() for v in (x, mean, std, W, noise))
    bounds = []
    for i in range(len(x)):
        weights = []
        for draw in noise[:, i]:
            z = mean[i] + std[i] * draw
            log_p = -0.5 * np.sum((x[i] - W @ z) ** 2) / s**2 - len(x[i]) / 2 * np.log(2 * np.pi * s**2)
            weights.append(log_p - 0.5 * np.sum(z**2) + 0.5 * np.sum(draw**2) + np.sum(np.log(std[i])))
        bounds.append(special.logsumexp(weights) - np.log(len(noise)))
    return np.array(bounds)


def codes_by_loop(z_e, codes, beta):
    rows, costs = [], []
    for row in z_e:
        e = codes[int((codes - row).square().sum(1).argmin())]
        rows.append(row + (e - row).detach())
        costs.append((e - row.detach()).square().sum() + beta * (row - e.detach()).square().sum())
    return torch.stack(rows), torch.stack(costs).mean()


def codes_by_embedding(z_e, codes, beta):
    pick = (z_e[:, None] - codes[None]).norm(dim=2).argmin(1)
    e, mse = torch.nn.functional.embedding(pick, codes), torch.nn.functional.mse_loss
    loss = z_e.shape[1] * (mse(e, z_e.detach()) + beta * mse(z_e, e.detach()))
    return [z_e - z_e.detach() + e.detach(), loss]


def critic_by_logsigmoid(critic, real, fake, gamma):
    game = (
        -torch.nn.functional.logsigmoid(critic(real)).mean()
        - torch.nn.functional.logsigmoid(-critic(fake.detach())).mean()
    )
    x = real.clone().requires_grad_(True)
    out = critic(x)
    (slope,) = torch.autograd.grad(out, x, grad_outputs=torch.ones_like(out), create_graph=True)
    return game + 0.5 * gamma * slope.norm(dim=1).square().mean()


def critic_by_samples(critic, real, fake, gamma):
    total = torch.log1p(torch.exp(critic(fake.detach()))).mean()
    for row in real:
        x = row[None].clone().requires_grad_()
        logit = critic(x)[0]
        (slope,) = torch.autograd.grad(logit, x, create_graph=True)
        total = total + (torch.log1p(torch.exp(-logit)) + gamma * (slope**2).sum() / 2) / len(real)
    return total


def energy_by_loop(energy, x):
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    bend = 0
    for i in range(x.shape[1]):
        bend = bend + torch.autograd.grad(slope[:, i].sum(), x, create_graph=True)[0][:, i]
    return (0.5 * slope.square().sum(1) - bend).mean()


def energy_by_func(energy, x):
    one = lambda row: energy(row[None])[0]  # noqa: E731
    slope, curves = (
        torch.func.vmap(torch.func.grad(one))(x),
        torch.func.vmap(torch.func.jacrev(torch.func.grad(one)))(x),
    )
    return 0.5 * slope.square().sum() / len(x) - torch.einsum("bii->b", curves).mean()


def jko_times_tau(mean, var, tau, goal_mean, goal_var):
    pull = 1 + tau / goal_var
    spread = (math.sqrt(var) + math.sqrt(var + 4 * tau * pull)) / (2 * pull)
    return goal_mean + (mean - goal_mean) / pull, spread * spread


def jko_by_root(mean, var, tau, goal_mean, goal_var):
    slope = lambda s: s / goal_var - 1 / s + (s - math.sqrt(var)) / tau  # noqa: E731
    spread = optimize.brentq(slope, 1e-6, 50.0, xtol=1e-12)
    return [float((goal_var * mean + tau * goal_mean) / (goal_var + tau)), spread**2]


def bridge_numpy(x0, x1, sigma, rounds, u, t, z):
    a, b, u, t, z = (v.double().numpy() for v in (x0, x1, u, t, z))
    scores = -cdist(a, b, "sqeuclidean") / 2 / sigma**2
    log_plan = scores
    for _ in range(rounds):
        log_plan = log_plan - special.logsumexp(log_plan, axis=1, keepdims=True) - math.log(len(a))
        log_plan = log_plan - special.logsumexp(log_plan, axis=0, keepdims=True) - math.log(len(b))
    chances = len(a) * np.exp(log_plan)
    pick = [min(int(np.searchsorted(np.cumsum(row), v)), len(b) - 1) for row, v in zip(chances, u, strict=True)]
    s, far = t[:, None], b[pick]
    x_t = (1 - s) * a + s * far + sigma * np.sqrt(s * (1 - s)) * z
    return [chances, x_t, far - a + sigma * (1 - 2 * s) / (2 * np.sqrt(s * (1 - s))) * z]


def bridge_by_drift(x0, x1, sigma, rounds, u, t, z):
    logits = -torch.cdist(x0.double(), x1.double()).square() / (2 * sigma**2)
    for _ in range(rounds):
        logits = torch.log_softmax(logits, 0) + math.log(len(x0) / len(x1))
        logits = torch.log_softmax(logits, 1)
    chances = logits.exp()
    partner = x1[torch.searchsorted(chances.cumsum(1), u.double()[:, None])[:, 0].clamp(max=len(x1) - 1)]
    t = t[:, None]
    mean = torch.lerp(x0, partner, t)
    x_t = mean + sigma * (t - t**2).sqrt() * z
    return chances, x_t, partner - x0 + (1 - 2 * t) / (2 * t * (1 - t)) * (x_t - mean)


ANSWERS = {
    "5.1": (mixed_loop, mixed_einsum),
    "5.2": (velocity_by_score, velocity_autograd),
    "5.3": (walk_by_index, walk_by_g),
    "5.4": (cases_trapezoid, cases_autograd),
    "5.5": (partners_numpy, partners_products),
    "5.6": (bits_by_halves, bits_by_jacobian),
    "5.7": (bound_by_distributions, bound_by_loop),
    "5.8": (codes_by_loop, codes_by_embedding),
    "5.9": (critic_by_logsigmoid, critic_by_samples),
    "5.10": (energy_by_loop, energy_by_func),
    "5.11": (jko_times_tau, jko_by_root),
    "5.12": (bridge_numpy, bridge_by_drift),
}
