"""How answers to exercise 1 are called: with gradients, and with networks made of numbers."""

import torch


def with_gradients(answer, z, codebook, beta, upstream):
    """Codes and loss, and the gradients of (codes * upstream).sum() + loss in z and in the codebook."""
    with torch.enable_grad():
        leaves = z.requires_grad_(), codebook.requires_grad_()
        codes, loss = codes_and_loss(answer(z, codebook, beta), z)
        total = (codes * upstream).sum() + loss
        if total.requires_grad:
            slopes = torch.autograd.grad(total, leaves, allow_unused=True)
        else:
            slopes = None, None
    return [
        codes,
        loss,
        *(torch.zeros_like(x) if slope is None else slope for x, slope in zip(leaves, slopes, strict=True)),
    ]


def codes_and_loss(returned, z):
    """What was returned, if gradients can be asked of it; else an error in the words of the question."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise ValueError("expected two things to be returned, the codes and the loss")
    shapes = tuple(tuple(torch.as_tensor(part).shape) for part in returned)
    if shapes != (tuple(z.shape), ()):
        raise ValueError(
            f"the codes and the loss have the shapes {shapes[0]} and {shapes[1]}, expected {tuple(z.shape)} and ()"
        )
    return returned


def with_last_entry(answer, alpha_bar):
    """The table, and a thousandth if its last entry is no zero, however small: more than the tolerance of a table."""
    table = answer(alpha_bar)
    last = torch.as_tensor(table).flatten()[-1:] if hasattr(table, "shape") else torch.zeros(1)
    return [table, 1e-3 * (last.abs() > 1e-12).float()]


def with_network(answer, x, sigma, sigma_data, weight, slope, bias):
    """The answer, with a network of one layer that hears a number per sample."""

    def network(y, c):
        return torch.tanh(y @ weight + c.reshape(len(y), -1) * slope + bias)

    return answer(network, x, sigma, sigma_data)


def with_timed_network(answer, weight, slope, bias, **inputs):
    """The answer, with a network of one layer that hears the timestep: a number, or one per sample."""

    def network(y, t):
        t = torch.as_tensor(t, dtype=y.dtype).reshape(-1, 1)
        return torch.tanh(y @ weight + torch.cos(0.4 * t) * slope + bias)

    return answer(network, **inputs)
