"""How answers to exercise 3 are called where they need a function, weights, or may return a list or a tensor."""

import torch


def branch_of(answer, x, shift, scale, gate, weight):
    """A branch of a block, around a layer that mixes channels."""
    return answer(x, shift, scale, gate, lambda h: torch.tanh(h @ weight.T))


def whole_numbers(answer, **inputs):
    """Counts, one for each step, in a list or a tensor."""
    return torch.as_tensor(answer(**inputs))


def two_clusters(answer, x, alphas, sigmas, mean):
    """A sampler, with the denoiser of data whose every number is +mean or -mean, at even odds."""
    return answer(x, lambda x_t, alpha, sigma: mean * torch.tanh(alpha * mean * x_t / sigma**2), alphas, sigmas)


def with_weights(answer, x, c, heads, **weights):
    """A block, with its weights in a dict."""
    return answer(x, c, weights, heads)
