"""How answers of exercise 5 are called that need functions, or whose gradients are judged."""

import torch


def walking(answer, x, times, epsilon, noise, data, other, a):
    """Between two independent Gaussians, each given as mean and variance, with gamma^2 = a t (1 - t)."""
    (m0, v0), (m1, v1) = data, other

    def law(t):
        mean, var = (1 - t) * m0 + t * m1, (1 - t) ** 2 * v0 + t**2 * v1 + a * t * (1 - t)
        return mean, var, -2 * (1 - t) * v0 + 2 * t * v1 + a * (1 - 2 * t)

    def velocity(x, t):
        mean, var, slope = law(t)
        return m1 - m0 + slope / (2 * var) * (x - mean)

    def score(x, t):
        mean, var, _ = law(t)
        return -(x - mean) / var

    return answer(velocity, score, x, times, epsilon, noise)


def coupling(answer, x, mask, w1, w2, c2, bound, step):
    """With a network of one hidden layer, from (b, d) to (b, 2 d)."""
    return answer(x, mask, lambda seen: torch.tanh(seen @ w1.T) @ w2.T + c2, bound, step)


def quantising(answer, z_e, codes, beta, goal):
    """The quantised z, the loss, and what encoder and codebook hear of it and of a reconstruction error."""
    leaves = z_e.requires_grad_(), codes.requires_grad_()
    said = answer(*leaves, beta)
    if not (isinstance(said, (tuple, list)) and len(said) == 2):
        raise TypeError("it is to return two things: z and the loss")
    z, loss = said
    joint = _shape(z) == goal.shape and loss is not None
    together = (z - goal).square().sum(1).mean() + loss if joint else None
    return [z, loss, *_heard(together, leaves)]


def criticising(answer, real, fake, gamma, w1, c1, w2):
    """The loss, and what the critic's weights and the fake samples hear of it."""
    leaves = w1.requires_grad_(), w2.requires_grad_(), fake.requires_grad_()
    made = 1.0 * fake  # as if a generator had made them
    loss = answer(lambda x: torch.tanh(x @ w1.T + c1) @ w2, real, made, gamma)
    return [loss, *_heard(loss, leaves)]


def matching(answer, x, stiffness, weights, waves):
    """The loss of an energy, and what its weights hear of it."""
    leaves = stiffness.requires_grad_(), weights.requires_grad_()
    loss = answer(lambda x: 0.5 * ((x @ stiffness) * x).sum(1) + torch.sin(x @ waves.T) @ weights, x)
    return [loss, *_heard(loss, leaves)]


def _heard(loss, leaves):
    """Gradients, zero where there is no way, or no single number to start from."""
    if not (_shape(loss) == () and loss.requires_grad):
        return [torch.zeros_like(leaf) for leaf in leaves]
    try:
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    except RuntimeError as error:
        raise RuntimeError(f"on the way back from the loss that it returns: {error}") from error
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def _shape(thing):
    """Of a tensor; None of anything else."""
    return thing.shape if isinstance(thing, torch.Tensor) else None
