"""Other right answers to exercise 4."""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.special import erf


def flow_by_z(x, t, s, mean, std):
    z = (x - mean) / torch.sqrt(std**2 + t[:, None] ** 2)
    return mean + torch.sqrt(std**2 + s[:, None] ** 2) * z


def flow_numpy(x, t, s, mean, std):
    ratio = np.hypot(std, s.numpy()) / np.hypot(std, t.numpy())
    out = [m + (v - m) * ratio for m, v in zip(mean.numpy(), x.numpy().T, strict=True)]
    return np.stack(out, 1)


def boundary_loop(F, x, t, eps, std):
    said = F(x / torch.hypot(t, torch.full_like(t, std))[:, None], 0.25 * torch.log(t))
    rows = []
    for point, y, time in zip(x, said, t.tolist(), strict=True):
        skip, out = 1 / (1 + ((time - eps) / std) ** 2), (time - eps) / math.hypot(time / std, 1)
        rows.append(skip * point + out * y)
    return torch.stack(rows)


def boundary_double(F, x, t, eps, std):
    x, t = x.double(), t.double()[:, None]
    var = torch.tensor(std, dtype=torch.float64) ** 2
    c_in = torch.rsqrt(t.square() + var)
    network = F((c_in * x).float(), (t.log() / 4).float().squeeze(1))
    return x * var / ((t - eps).square() + var) + std * (t - eps) * c_in * network


def ct_no_grad(f, x0, noise, spare, t, u):
    with torch.no_grad():
        target = f(x0 + u[:, None] * noise, u)
    return torch.nn.functional.mse_loss(f(torch.addcmul(x0, t[:, None], noise), t), target)


def ct_by_interpolation(f, x0, noise, spare, t, u):
    x_t = x0 + torch.einsum("b,bd->bd", t, noise)
    ratio = (u / t).unsqueeze(1)
    gap = f(x_t, t) - f(ratio * x_t + (1 - ratio) * x0, u).data
    return torch.stack([(row @ row) / len(row) for row in gap]).mean()


def cd_as_ddim(f, f_slow, denoiser, x0, noise, t, u):
    x_t = x0 + t[:, None] * noise
    with torch.no_grad():
        target = f_slow(torch.lerp(denoiser(x_t, t), x_t, (u / t)[:, None]), u)
    return torch.mean((f(x_t, t) - target) ** 2)


def cd_by_score(f, f_slow, denoiser, x0, noise, t, u):
    x_t, time, then = x0 + t[:, None] * noise, t[:, None], u[:, None]
    score = (denoiser(x_t, t) - x_t) / time**2
    x_u = x_t - (then - time) * time * score
    return (f_slow(x_u, u).detach() - f(x_t, t)).pow(2).sum() / x0.numel()


def curriculum_numpy(k, total, first, last, low, high, mean, std):
    doublings = round(math.log2(last / first))
    stage = min(k // (total // (doublings + 1)), doublings)
    n = first * 2**stage + 1
    i = np.arange(1, n + 1)
    grid = (low ** (1 / 7) + (i - 1) / (n - 1) * (high ** (1 / 7) - low ** (1 / 7))) ** 7
    below = erf((np.log(grid) - mean) / (np.sqrt(2) * std))
    return grid, np.diff(below) / (below[-1] - below[0])


def curriculum_normal(k, total, first, last, low, high, mean, std):
    per_stage = math.floor(total / (math.log2(last // first) + 1))
    n = min(first * 2 ** (k // per_stage), last) + 1
    ends = torch.tensor([low, high]).double().pow(1 / 7)
    grid = torch.stack([torch.lerp(*ends, j / (n - 1)) for j in range(n)]) ** 7
    mass = torch.distributions.Normal(mean, std).cdf(grid.log()).diff()
    return [grid, mass / mass.sum()]


def huber_loop(a, b, factor):
    c = factor * math.sqrt(a[0].numel())
    return torch.tensor([math.sqrt(float((p - q).norm()) ** 2 + c * c) - c for p, q in zip(a, b, strict=True)])


def huber_by_mean(a, b, factor):
    axes = tuple(range(1, a.ndim))
    d = np.prod(a.shape[1:])
    return np.sqrt(d) * (np.sqrt(((a - b).numpy() ** 2).mean(axes) + factor**2) - factor)


def huber_as_factor(a, b, factor):
    c = factor * math.sqrt(math.prod(a.shape[1:]))
    return c * (torch.sqrt(1 + (a - b).flatten(1).norm(dim=1).double().square() / c**2) - 1)


def scm_whole(F_jvp, x, t, velocity, r, c):
    said, slope = F_jvp(x, t, velocity, torch.ones(len(t)))
    cos, sin = torch.cos(t)[:, None], torch.sin(t)[:, None]
    g = cos * (cos * (velocity - said) - r * sin * (x + slope))
    return said + g / (torch.linalg.vector_norm(g, dim=-1, keepdim=True) + c)


def scm_per_sample(F_jvp, x, t, velocity, r, c):
    rows = []
    for x_i, t_i, v_i in zip(x[:, None], t[:, None], velocity[:, None], strict=True):
        share = t_i.cos() * t_i.sin()
        said, scaled = F_jvp(x_i, t_i, share * v_i, share)
        g = -(t_i.cos() ** 2) * (said - v_i) - r * (share * x_i + scaled)
        rows.append((said + g / (g.norm() + c))[0])
    return torch.stack(rows)


def gamma_by_index(jump, start, times, gamma, eps, noise):
    x = torch.mul(start, times[0])
    for i in range(len(noise)):
        r = np.maximum(np.sqrt(1 - gamma**2) * times[i + 1], eps)
        x = jump(x, times[i], r)
        x = x + np.sqrt(times[i + 1] ** 2 - r**2) * noise[i]
    return x


def gamma_in_cases(jump, start, times, gamma, eps, noise):
    x = 0 + times[0] * start
    for z, (t, s) in zip(noise, pairwise(times), strict=True):
        if s * math.sqrt(1 - gamma * gamma) > eps:
            x = jump(x, t, s * math.sqrt(1 - gamma * gamma)) + gamma * s * z
        else:
            x = jump(x, t, eps) + math.sqrt((s - eps) * (s + eps)) * z
    return x


def gamma_in_tensors(jump, start, times, gamma, eps, noise):
    """In float32 throughout, where the difference of two equal levels squared is not always 0."""
    x, times = times[0] * start, torch.tensor(times)
    for t, s, z in zip(times, times[1:], noise, strict=False):
        r = torch.clamp(torch.sqrt(torch.tensor(1 - gamma**2)) * s, min=eps)
        x = jump(x, t, r) + torch.sqrt((s**2 - r**2).clamp(min=0)) * z
    return x


def gamma_with_a_rounded_level(jump, start, times, gamma, eps, noise):
    """Only the level is float32: against a time of Python's the difference is 1e-8, and its root 1e-4."""
    x = times[0] * start
    for (t, s), z in zip(pairwise(times), noise, strict=True):
        r = torch.tensor(max(math.sqrt(1 - gamma**2) * s, eps))
        x = jump(x, t, r) + (s**2 - r**2).clamp(min=0).sqrt() * z
    return x


def mean_flow_no_grad(u_jvp, x0, noise, t, s):
    x_t, v = torch.lerp(x0, noise, t[:, None]), noise - x0
    with torch.no_grad():
        _, slope = u_jvp(x_t, t, s, v, torch.ones_like(t), torch.zeros_like(s))
    said, _ = u_jvp(x_t, t, s, v, t, s)
    return torch.nn.functional.mse_loss(said, v - (t - s)[:, None] * slope)


def mean_flow_scaled(u_jvp, x0, noise, t, s):
    v = noise - x0
    said, by_span = u_jvp(noise - (1 - t)[:, None] * v, t, s, (s - t)[:, None] * v, s - t, 0 * s)
    return ((said - (v + by_span).detach()) ** 2).sum(1).mean() / x0.shape[1]


def halved_by_weights(denoise, z, now, mid, then):
    (a, s), (a_mid, s_mid), (a_then, s_then) = now, mid, then
    first = denoise(z, now)
    z_mid = s_mid / s * z + (a_mid - a * s_mid / s) * first
    z_then = s_then / s_mid * z_mid + (a_then - a_mid * s_then / s_mid) * denoise(z_mid, mid)
    return (s * z_then - s_then * z) / (s * a_then - s_then * a)


def halved_as_mean(denoise, z, now, mid, then):
    ratios = [a / s for a, s in (now, mid, [then[0], max(then[1], 1e-9)])]
    first = denoise(z, now)
    eps = (z - now[0] * first) / now[1]
    second = denoise(mid[0] * first + mid[1] * eps, mid)
    share = (ratios[1] - ratios[0]) / (ratios[2] - ratios[0])
    return share * first + (1 - share) * second


def matching_no_grad(x, real, fake, noise, t):
    with torch.no_grad():
        x_t = torch.addcmul(x, t[:, None], noise)
        wanted, made = real(x_t, t), fake(x_t, t)
        goal = x - (made - wanted) / torch.mean(torch.abs(x - wanted), dim=-1, keepdim=True)
    return 0.5 * torch.nn.functional.mse_loss(x, goal)


def matching_loop(x, real, fake, noise, t):
    clean = x.detach()
    x_t = clean + torch.diag(t) @ noise
    losses = []
    for point, here, wanted, made in zip(x, clean, real(x_t, t), fake(x_t, t), strict=True):
        pull = (made - wanted) / (here - wanted).abs().mean()
        losses.append((point - here + pull).pow(2).mean() / 2)
    return sum(losses) / len(losses)


def reflow_trapezoid(velocity, noise, spare, steps, times):
    x, asked, slopes = noise.clone(), 0, []
    for t, s in pairwise(torch.linspace(1, 0, steps + 1).tolist()):
        v = velocity(x, t)
        w = velocity(x + (s - t) * v, s)
        x, asked = x + (s - t) * (v + w) / 2, asked + 2
        slopes.append(v)
    line = noise - x
    bend = sum(((line - v) ** 2).sum(1).mean() for v in slopes) / steps
    points = [x + t * line for t in times]
    return x, bend, torch.stack([torch.linalg.pinv(y) @ line for y in points]), asked


def reflow_normal_equations(velocity, noise, spare, steps, times):
    counted = []

    def v(x, k):
        counted.append(k)
        return velocity(x.float(), k / steps).double()

    x, bend = noise.double(), 0.0
    path = [x]
    for k in range(steps, 0, -1):
        slope = v(x, k)
        x = x - (slope + v(x - slope / steps, k - 1)) / (2 * steps)
        path.append(slope)
    for slope in path[1:]:
        bend += float((noise - x - slope).pow(2).sum()) / (steps * len(noise))
    lines = [(1 - t) * x + t * noise for t in times]
    return [x, bend, torch.stack([torch.linalg.solve(y.mT @ y, y.mT @ (noise - x)) for y in lines]), len(counted)]


ANSWERS = {
    "4.1": (flow_by_z, flow_numpy),
    "4.2": (boundary_loop, boundary_double),
    "4.3": (ct_no_grad, ct_by_interpolation),
    "4.4": (cd_as_ddim, cd_by_score),
    "4.5": (curriculum_numpy, curriculum_normal),
    "4.6": (huber_loop, huber_by_mean, huber_as_factor),
    "4.7": (scm_whole, scm_per_sample),
    "4.8": (gamma_by_index, gamma_in_cases, gamma_in_tensors, gamma_with_a_rounded_level),
    "4.9": (mean_flow_no_grad, mean_flow_scaled),
    "4.10": (halved_by_weights, halved_as_mean),
    "4.11": (matching_no_grad, matching_loop),
    "4.12": (reflow_trapezoid, reflow_normal_equations),
}
