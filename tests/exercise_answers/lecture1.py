"""Other right answers to exercise 1."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def saved_by_counting(height, width, f, channels):
    pixels, places = height * width, height // f * (width // f)
    return [3 * pixels / (channels * places), pixels / places, pixels**2 / places**2]


def saved_in_numpy(height, width, f, channels):
    return np.float64(3 * f * f / channels), np.int64(f * f), np.array(float(f) ** 4)


def psnr_loop(x, y):
    return torch.tensor([-10 * math.log10(float(F.mse_loss(b, a)) / 4) for a, b in zip(x, y, strict=True)])


def psnr_in_unit_range(x, y):
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2
    return -20 * torch.log10((x - y).pow(2).mean((1, 2, 3)).sqrt())


def loss_by_distributions(x, x_hat, mean, logvar, log_scale, beta):
    likelihood = torch.distributions.Laplace(x_hat, math.exp(log_scale)).log_prob(x).sum((1, 2, 3))
    code, prior = torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    return beta * torch.distributions.kl_divergence(code, prior).sum((1, 2, 3)) - likelihood


def loss_loop(x, x_hat, mean, logvar, log_scale, beta):
    losses = []
    for a, b, m, v in zip(x, x_hat, mean, logvar, strict=True):
        error = float(((a - b).abs() / math.exp(log_scale) + math.log(2 * math.exp(log_scale))).sum())
        losses.append(error + beta * 0.5 * float((m**2 + torch.exp(v) - v).sum() - m.numel()))
    return torch.tensor(losses)


def latent_numpy(mean, logvar, noise, scale, shift):
    return scale * (mean.numpy() - shift + np.sqrt(np.exp(logvar.numpy())) * noise.numpy())


def latent_expanded(mean, logvar, noise, scale, shift):
    return torch.addcmul(scale * mean, logvar.mul(0.5).exp(), noise, value=scale) - scale * shift


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, codes):
        return codes.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope, None


def quantised_by_function(z, codebook, beta):
    codes = codebook[torch.cdist(z, codebook).argmin(dim=1)]
    return StraightThrough.apply(z, codes), beta * (z - codes.detach()).pow(2).mean()


def quantised_loop(z, codebook, beta):
    with torch.no_grad():
        rows = [codebook[int(((codebook - row) ** 2).sum(1).argmin())].clone() for row in z]
    codes = torch.stack(rows)
    return codes + z - z.detach(), beta * sum((r - c).square().sum() for r, c in zip(z, rows, strict=True)) / z.numel()


def cosine_loop(steps):
    def f(t):
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, steps + 1)]
    left = 1.0
    return torch.tensor(betas), torch.tensor([left := left * (1 - beta) for beta in betas])


def cosine_in_single_precision(steps):
    bar = torch.cos((torch.linspace(0, 1, steps + 1) + 0.008) / 1.008 * torch.pi / 2) ** 2
    kept = (bar[1:] / bar[:-1]).clamp(min=1 - 0.999)
    return 1 - kept, kept.log().cumsum(0).exp()


def zero_terminal_numpy(alpha_bar):
    root = np.sqrt(alpha_bar.numpy())
    return np.interp(root, [root[-1], root[0]], [0.0, root[0]]) ** 2


def zero_terminal_loop(alpha_bar):
    first, last = math.sqrt(alpha_bar[0]), math.sqrt(alpha_bar[-1])
    return torch.tensor([(first / (first - last) * (math.sqrt(a) - last)) ** 2 for a in alpha_bar.tolist()])


def read_off_by_solving(x_t, out, kind, alpha, sigma):
    """Two equations for two unknowns: x_t and what the network says."""
    rows = {"x0": [1.0, 0.0], "eps": [0.0, 1.0], "v": [-sigma, alpha], "score": [0.0, -1 / (sigma or 1)]}[kind]
    system = torch.tensor([[alpha, sigma], rows], dtype=torch.float64)
    both = torch.stack([x_t, out]).double().flatten(1)
    return list(torch.linalg.solve(system, both).reshape(2, *x_t.shape))


def read_off_by_data(x_t, out, kind, alpha, sigma):
    """First the data (Tweedie for the score); then the noise, by v's own way where sigma may be 0."""
    if kind == "v":
        x0 = alpha * x_t - sigma * out
        return x0, (out + sigma * x0) / alpha if alpha > 0.5 else (x_t - alpha * x0) / sigma
    x0 = {"x0": out, "eps": (x_t - sigma * out) / alpha, "score": (x_t + sigma**2 * out) / alpha}[kind]
    return x0, (x_t - alpha * x0) / sigma


def min_snr_loop(out, target, kind, alpha, sigma, gamma):
    total = 0.0
    for a, s, y, z in zip(alpha.tolist(), sigma.tolist(), out, target, strict=True):
        snr = a * a / (s * s)
        weight = min(snr, gamma) / {"x0": 1, "eps": snr, "v": 1 + snr}[kind]
        total += weight * float(F.mse_loss(y, z))
    return total / len(out)


def min_snr_by_errors(out, target, kind, alpha, sigma, gamma):
    """The error is told as one of x0, and weighed there."""
    factor = {"x0": torch.ones_like(sigma), "eps": sigma / alpha, "v": sigma}[kind]
    error = factor[:, None] * (out - target)
    return torch.einsum("b,bd->", torch.fmin((alpha / sigma) ** 2, torch.tensor(gamma)), error**2) / error.numel()


def preconditioned_loop(network, x, sigma, sigma_data):
    rows = []
    for row, level in zip(x, sigma.tolist(), strict=True):
        size = math.hypot(level, sigma_data)
        answer = network(row[None] / size, torch.tensor([0.25 * math.log(level)]))[0]
        rows.append((sigma_data / size) ** 2 * row + level * sigma_data / size * answer)
    return torch.stack(rows)


def preconditioned_in_columns(network, x, sigma, sigma_data):
    level = sigma[:, None]
    inward = torch.rsqrt(level**2 + sigma_data**2)
    return (sigma_data * inward) ** 2 * x + level * sigma_data * inward * network(inward * x, level.log() / 4)


def attention_by_torch(x, words, mask, w_q, w_k, w_v, w_o, heads):
    q, k, v = x.flatten(2).transpose(1, 2) @ w_q, words @ w_k, words @ w_v
    q, k, v = (y.view(*y.shape[:2], heads, -1).transpose(1, 2) for y in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :]).transpose(1, 2).flatten(2)
    return x + (y @ w_o).transpose(1, 2).unflatten(2, x.shape[2:])


def attention_loop(x, words, mask, w_q, w_k, w_v, w_o, heads):
    out, depth = x.clone(), w_q.shape[1] // heads
    for i in range(len(x)):
        heard = words[i][mask[i]]
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            q = torch.einsum("chw,cd->hwd", x[i], w_q[:, part])
            weights = torch.einsum("hwd,nd->hwn", q, heard @ w_k[:, part]).div(math.sqrt(depth)).softmax(-1)
            out[i] += torch.einsum("hwn,nd,dc->chw", weights, heard @ w_v[:, part], w_o[part])
    return out


def paint_by_posterior(network, alpha_bar, noise, fresh, eta, steps, scale, shift):
    """The noise of the step as eta^2 times the variance of DDPM's posterior; timesteps as single numbers."""
    bar, x = [1.0, *alpha_bar.double().tolist()], noise.double()
    times = np.rint(len(alpha_bar) * np.arange(steps, -1, -1) / steps).astype(int).tolist()
    for t, s, z in zip(times[:-1], times[1:], fresh, strict=True):
        v = network(x.float(), t)
        x0 = bar[t] ** 0.5 * x - (1 - bar[t]) ** 0.5 * v
        eps = (1 - bar[t]) ** 0.5 * x + bar[t] ** 0.5 * v
        variance = eta**2 * (1 - bar[s]) / (1 - bar[t]) * (1 - bar[t] / bar[s])
        x = bar[s] ** 0.5 * x0 + (1 - bar[s] - variance) ** 0.5 * eps + variance**0.5 * z
    return x / scale + shift


def paint_in_single_precision(network, alpha_bar, noise, fresh, eta, steps, scale, shift):
    alpha = torch.cat([torch.ones(1), alpha_bar]).sqrt()
    sigma = torch.cat([torch.zeros(1), 1 - alpha_bar]).sqrt()
    grid = torch.linspace(len(alpha_bar), 0, steps + 1).round().long()
    x = noise
    for k in range(steps):
        t, s = grid[k], grid[k + 1]
        v = network(x, t.expand(len(x)))
        std = eta * sigma[s] / sigma[t] * (1 - (alpha[t] / alpha[s]) ** 2).sqrt()
        kept = (sigma[s] ** 2 - std**2).clamp(min=0).sqrt()
        x = alpha[s] * (alpha[t] * x - sigma[t] * v) + kept * (sigma[t] * x + alpha[t] * v) + std * fresh[k]
    return shift + x * (1 / scale)


def paint_by_variances(network, alpha_bar, noise, fresh, eta, steps, scale, shift):
    """All in alpha-bar, in single precision, and nothing clamped."""
    bar, x = torch.cat([torch.ones(1), alpha_bar]), noise
    grid = np.round(np.linspace(len(alpha_bar), 0, steps + 1)).astype(int)
    for k in range(steps):
        t, s = grid[k], grid[k + 1]
        v = network(x, torch.full((len(x),), int(t)))
        x0, eps = bar[t].sqrt() * x - (1 - bar[t]).sqrt() * v, (1 - bar[t]).sqrt() * x + bar[t].sqrt() * v
        std = eta * ((1 - bar[s]) / (1 - bar[t]) * (1 - bar[t] / bar[s])).sqrt()
        x = bar[s].sqrt() * x0 + (1 - bar[s] - std**2).sqrt() * eps + std * fresh[k]
    return x / scale + shift


ANSWERS = {
    "1.1": (saved_by_counting, saved_in_numpy),
    "1.2": (psnr_loop, psnr_in_unit_range),
    "1.3": (loss_by_distributions, loss_loop),
    "1.4": (latent_numpy, latent_expanded),
    "1.5": (quantised_by_function, quantised_loop),
    "1.6": (cosine_loop, cosine_in_single_precision),
    "1.7": (zero_terminal_numpy, zero_terminal_loop),
    "1.8": (read_off_by_solving, read_off_by_data),
    "1.9": (min_snr_loop, min_snr_by_errors),
    "1.10": (preconditioned_loop, preconditioned_in_columns),
    "1.11": (attention_by_torch, attention_loop),
    "1.12": (paint_by_posterior, paint_in_single_precision, paint_by_variances),
}
