"""Other right answers to exercise 3."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def pixels_by_loop(tokens, p, height):
    b, n, size = tokens.shape
    width = n * p * p // height
    picture = torch.zeros(b, size // p**2, height, width)
    for i in range(n):
        top, left = p * (i // (width // p)), p * (i % (width // p))
        patch = tokens[:, i].reshape(b, p, p, -1)
        picture[:, :, top : top + p, left : left + p] = patch.movedim(-1, 1)
    return picture


def pixels_by_fold(tokens, p, height):
    b, n, size = tokens.shape
    channels_first = tokens.reshape(b, n, p * p, -1).transpose(2, 3).reshape(b, n, size)
    return F.fold(channels_first.mT, (height, n * p * p // height), kernel_size=p, stride=p)


def pixels_einops_like(tokens, p, height):
    rows = height // p
    x = np.asarray(tokens).reshape(len(tokens), rows, -1, p, p, tokens.shape[2] // p**2)
    x = np.einsum("bijpqc->bcipjq", x)
    return x.reshape(len(tokens), x.shape[1], height, -1)


def table_by_loop(height, width, dim):
    quarter, rows = dim // 4, []
    for i in range(height):
        for j in range(width):
            row = []
            for p in (i, j):
                angles = [p * 10000 ** (-k / quarter) for k in range(quarter)]
                row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(row)
    return torch.tensor(rows)


def table_numpy(height, width, dim):
    omega = 1 / np.power(10000, np.arange(dim // 4) / (dim / 4))
    i, j = np.mgrid[:height, :width].reshape(2, -1)
    parts = [f(np.outer(p, omega)) for p in (i, j) for f in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1)


def table_in_logs(height, width, dim):
    omega = torch.exp(-math.log(10000.0) * torch.arange(dim // 4) / (dim // 4))
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    i, j = i.reshape(-1, 1) * omega, j.reshape(-1, 1) * omega
    return torch.hstack([torch.sin(i), torch.cos(i), torch.sin(j), torch.cos(j)])


def turned_complex(x, places):
    n, dim = x.shape
    omega = 10000.0 ** (-torch.arange(0, dim // 2, 2, dtype=torch.float64) / (dim // 2))
    angles = torch.einsum("na,k->nak", places.double(), omega).reshape(n, -1)
    pairs = torch.view_as_complex(x.double().reshape(n, -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(n, dim)


def turned_matrices(x, places):
    out, d = x.clone(), x.shape[1] // 2
    for token in range(len(x)):
        for axis in range(2):
            for k in range(d // 2):
                a = float(places[token, axis]) * 10000 ** (-2 * k / d)
                turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
                here = slice(axis * d + 2 * k, axis * d + 2 * k + 2)
                out[token, here] = turn @ x[token, here]
    return out


def turned_float32(x, places):
    d = x.shape[1] // 2
    omega = torch.pow(10000.0, -2 * torch.arange(d // 2) / d)
    cos, sin = (f(places[..., None] * omega).flatten(1).repeat_interleave(2, dim=1) for f in (torch.cos, torch.sin))
    other = torch.stack([-x[:, 1::2], x[:, ::2]], dim=-1).flatten(1)
    return x * cos + other * sin


def branch_layer_norm(x, shift, scale, gate, f):
    h = F.layer_norm(x, (x.shape[-1],), eps=1e-6)
    return x + torch.einsum("bd,bnd->bnd", gate, f(h + scale[:, None] * h + shift[:, None]))


def branch_loop(x, shift, scale, gate, f):
    norm = torch.nn.LayerNorm(x.shape[-1], eps=1e-6, elementwise_affine=False)
    return torch.stack([x[i] + gate[i] * f(norm(x[i]) * (1 + scale[i]) + shift[i]) for i in range(len(x))])


def tile_by_query(m, l, o, s, v):
    rows = []
    for i in range(len(m)):
        top = max(float(m[i]), float(s[i].max()))
        old = math.exp(float(m[i]) - top)
        p = [math.exp(float(x) - top) for x in s[i]]
        rows.append((top, old * float(l[i]) + sum(p), old * o[i] + sum(w * y for w, y in zip(p, v, strict=True))))
    return torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows]), torch.stack([r[2] for r in rows])


def tile_by_whole_sums(m, l, o, s, v):
    together = torch.cat([m[:, None], s], dim=1).double()
    top = together.amax(dim=1, keepdim=True)
    p = torch.exp(together - top)
    o_new = p[:, :1] * o + torch.einsum("nt,td->nd", p[:, 1:], v.double())
    return [top[:, 0], p[:, 0] * l + p[:, 1:].sum(1), o_new]


def cost_from_formula(tokens, dim, depth, ratio, gates):
    v = 4 + 2 * gates
    parameters = (4 + 2 * ratio + v) * dim**2 + (4 + ratio + 1 + v) * dim
    macs = (4 + 2 * ratio) * tokens * dim**2 + 2 * tokens**2 * dim + v * dim**2
    return depth * parameters, 2.0 * depth * macs


def cost_from_modules(tokens, dim, depth, ratio, gates):
    with torch.device("meta"):
        sizes = [(dim, 3 * dim), (dim, dim), (dim, ratio * dim), (ratio * dim, dim), (dim, (6 if gates else 4) * dim)]
        layers = [torch.nn.Linear(*size) for size in sizes]
    parameters = sum(p.numel() for layer in layers for p in layer.parameters())
    macs = sum(layer.weight.numel() * (1 if layer is layers[-1] else tokens) for layer in layers)
    return [depth * parameters, 2 * depth * (macs + tokens * tokens * dim * 2)]


def joint_by_heads(text, image, heads):
    words, d = text.shape[2], text.shape[-1] // heads
    q, k, v = (torch.cat(pair, dim=1) for pair in zip(text, image, strict=True))
    parts = []
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        scores = torch.einsum("bid,bjd->bij", q[..., own], k[..., own]) * d**-0.5
        parts.append(scores.softmax(-1) @ v[..., own])
    out = torch.cat(parts, dim=-1)
    return [out[:, :words], out[:, words:]]


def joint_image_first(text, image, heads):
    qkv = torch.cat([image, text], dim=2).unflatten(-1, (heads, -1)).transpose(-3, -2)
    out = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
    return out[:, image.shape[2] :], out[:, : image.shape[2]]


def kept_numpy(n, steps):
    hidden = np.floor(n * np.cos(np.linspace(0, np.pi / 2, steps + 1))).astype(int)
    hidden[-1] = 0
    for k in range(1, steps):
        hidden[k] = min(hidden[k], hidden[k - 1] - 1)
    return -np.diff(hidden)


def kept_as_tensor(n, steps):
    left, result = n, torch.zeros(steps)
    for k in range(steps):
        share = math.cos(0.5 * math.pi * (k + 1) / steps)
        result[k] = max(1, left - max(math.floor(share * n), 0))
        left -= int(result[k])
    return result


def times_by_logit(u, mean, std, old, new):
    return torch.sigmoid(mean + std * u + 0.5 * (math.log(new) - math.log(old)))


def times_by_noise_level(u, mean, std, old, new):
    t = 1 / (1 + np.exp(-(mean + std * u.numpy())))
    level = (new / old) ** 0.5 * t / (1 - t)
    return level / (1 + level)


def law_numpy(compute, loss, floors, far):
    best = None
    for floor in floors.numpy():
        line, error, *_ = np.polyfit(np.log(compute.numpy()), np.log(loss.numpy() - floor), 1, full=True)
        best = min(best or (math.inf,), (float(error[0]) if len(error) else 0.0, float(floor), *line.tolist()))
    _, floor, slope, level = best
    return floor, -slope, floor + math.exp(level + slope * math.log(far))


def law_in_base_ten(compute, loss, floors, far):
    x = torch.log10(compute)
    design = torch.stack([x, torch.ones_like(x)], dim=1)
    y = torch.log10(loss[:, None] - floors)
    fits = torch.linalg.lstsq(design, y).solution  # (2, k)
    k = (design @ fits - y).square().sum(0).argmin()
    slope, level = fits[:, k]
    return [floors[k], -slope, floors[k] + 10 ** (level + slope * math.log10(far))]


def mup_by_cases(shapes, base):
    rows = []
    for new, old in zip(shapes, base, strict=True):
        wider_in, wider_out = bool(new[1] > old[1]), bool(new[0] > old[0])
        m = float(new[1]) / float(old[1])
        if not wider_in:
            rows.append((1.0, 1.0))
        elif wider_out:
            rows.append((1 / m, 1 / math.sqrt(m)))
        else:
            rows.append((1 / m, 1 / m))
    return torch.tensor(rows)


def mup_by_powers(shapes, base):
    out, inputs = (shapes / base).T
    power = torch.where(out > 1, -0.5, -1.0)
    return np.stack([(1 / inputs).numpy(), inputs.pow(power).numpy()], axis=-1)


def solver_by_history(x, denoise, alphas, sigmas):
    guesses, lam = [], (alphas.double() / sigmas.double()).log()
    for s, t in zip(range(len(lam)), range(1, len(lam)), strict=False):
        guesses.append(denoise(x, alphas[s], sigmas[s]))
        h = lam[t] - lam[s]
        slope = 0.0 if s == 0 else (guesses[-1] - guesses[-2]) / (lam[s] - lam[s - 1])  # per unit of lambda
        x = sigmas[t] / sigmas[s] * x + alphas[t] * (1 - torch.exp(-h)) * (guesses[-1] + h / 2 * slope)
    return x


def solver_of_scaled_x(x, denoise, alphas, sigmas):
    y, last = x / sigmas[0], None
    snr = (alphas / sigmas).tolist()
    for k in range(len(snr) - 1):
        guess = denoise(sigmas[k] * y, float(alphas[k]), float(sigmas[k]))
        mixed = guess
        if k > 0:
            r = math.log(snr[k] / snr[k - 1]) / math.log(snr[k + 1] / snr[k])
            mixed = (1 + 0.5 / r) * guess - 0.5 / r * last
        y, last = y + (snr[k + 1] - snr[k]) * mixed, guess
    return sigmas[-1] * y


def block_by_matrices(x, c, w, heads):
    def layer(name, y):
        return y @ w[name].T + w[f"{name}_bias"]

    def norm(y):
        y = y - y.mean(-1, keepdim=True)
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)

    b1, s1, g1, b2, s2, g2 = layer("modulation", c * torch.sigmoid(c)).reshape(len(c), 6, 1, -1).unbind(1)
    h = layer("qkv", norm(x) * (1 + s1) + b1)
    q, k, v = h.unflatten(-1, (3, heads, -1)).unbind(2)  # (b, n, heads, d) each
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    x = x + g1 * layer("out", torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2))
    h = layer("up", norm(x) * (1 + s2) + b2)
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return x + g2 * layer("down", h)


def block_picture_by_picture(x, c, w, heads):
    w, out = {name: value.double() for name, value in w.items()}, []
    for y, condition in zip(x.double(), c.double(), strict=True):
        b1, s1, g1, b2, s2, g2 = (w["modulation"] @ F.silu(condition) + w["modulation_bias"]).chunk(6)
        q, k, v = F.linear(F.layer_norm(y, y.shape[1:], 1 + s1, b1, 1e-6), w["qkv"], w["qkv_bias"]).chunk(3, dim=1)
        pieces = zip(*(part.chunk(heads, dim=1) for part in (q, k, v)), strict=True)
        a = torch.cat([torch.softmax(q @ k.T / k.shape[1] ** 0.5, 1) @ v for q, k, v in pieces], dim=1)
        y = y + g1 * F.linear(a, w["out"], w["out_bias"])
        h = F.linear(F.layer_norm(y, y.shape[1:], 1 + s2, b2, 1e-6), w["up"], w["up_bias"])
        out.append(y + g2 * F.linear(F.gelu(h, approximate="tanh"), w["down"], w["down_bias"]))
    return torch.stack(out)


ANSWERS = {
    "3.1": (pixels_by_loop, pixels_by_fold, pixels_einops_like),
    "3.2": (table_by_loop, table_numpy, table_in_logs),
    "3.3": (turned_complex, turned_matrices, turned_float32),
    "3.4": (branch_layer_norm, branch_loop),
    "3.5": (tile_by_query, tile_by_whole_sums),
    "3.6": (cost_from_formula, cost_from_modules),
    "3.7": (joint_by_heads, joint_image_first),
    "3.8": (kept_numpy, kept_as_tensor),
    "3.9": (times_by_logit, times_by_noise_level),
    "3.10": (law_numpy, law_in_base_ten),
    "3.11": (mup_by_cases, mup_by_powers),
    "3.12": (solver_by_history, solver_of_scaled_x),
    "3.13": (block_by_matrices, block_picture_by_picture),
}
