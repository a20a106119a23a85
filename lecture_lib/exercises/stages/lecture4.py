"""Calls the answers to exercise 4 that need a network, a denoiser, a flow map or gradients."""

import torch


def consistency_function(answer, weight, bias, **inputs):
    """F is one layer, told the noise level."""

    def F(x, c_noise):
        return torch.tanh(x.to(weight) @ weight + _column(c_noise) * bias)

    return answer(F, **inputs)


def ct_loss(answer, weight, **inputs):
    """The loss, and its gradient at the weights of f."""
    with torch.enable_grad():
        weight.requires_grad_()
        loss = answer(_student(weight), **inputs)
        return [loss, *_gradients(loss, weight)]


def cd_loss(answer, weight, slow, mean, std, **inputs):
    """The loss, and its gradients at the weights of f and at those of its average."""
    with torch.enable_grad():
        weight.requires_grad_(), slow.requires_grad_()
        loss = answer(_student(weight), _student(slow), _gaussian(mean, std), **inputs)
        return [loss, *_gradients(loss, weight, slow)]


def scm_target(answer, weight, bias, **inputs):
    """F is one layer, told the angle; value and derivative along a direction, as of ``torch.func.jvp``, but at once."""

    def F_jvp(x, t, dx, dt):
        value = torch.tanh(x.to(weight) @ weight + _column(t) * bias)
        return value, (1 - value**2) * (dx.to(weight) @ weight + _column(dt) * bias)

    return answer(F_jvp, **inputs)


def gamma_sample(answer, mean, std, bend, **inputs):
    """For bend = 0 two jumps end where one does; for bend > 0 they do not."""

    def jump(x, t, s):
        return mean + (std + s) / (std + t) * (x - mean) + bend * (t - s) * torch.tanh(x)

    return answer(jump, **inputs)


def mean_flow_loss(answer, weight, on_t, on_s, **inputs):
    """The loss, and its gradient at the weights of u."""
    with torch.enable_grad():
        weight.requires_grad_()

        def u_jvp(x, t, s, dx, dt, ds):
            value = torch.tanh(x.to(weight) @ weight + _column(t) * on_t + _column(s) * on_s)
            return value, (1 - value**2) * (dx.to(weight) @ weight + _column(dt) * on_t + _column(ds) * on_s)

        loss = answer(u_jvp, **inputs)
        return [loss, *_gradients(loss, weight)]


def halved_target(answer, weight, bias, **inputs):
    """The denoiser is one layer, told alpha and sigma."""

    def denoise(z, level):
        return bias + torch.tanh((level[0] - 2 * level[1]) * z.to(weight) @ weight)

    return answer(denoise, **inputs)


def matching_loss(answer, weight, z, real_mean, real_std, fake_mean, fake_std, **inputs):
    """The student is x = z W: the loss, and its gradient at W."""
    with torch.enable_grad():
        weight.requires_grad_()
        loss = answer(z @ weight, _gaussian(real_mean, real_std), _gaussian(fake_mean, fake_std), **inputs)
        return [loss, *_gradients(loss, weight)]


def reflow(answer, linear, curved, **inputs):
    """The velocity of the first flow."""

    def velocity(x, t):
        return x.to(linear) @ linear + t * torch.tanh(x.to(curved) @ curved)

    return answer(velocity, **inputs)


# Parts ---------------------------------------------------------------------------------------------------------------


def _column(t):
    return torch.as_tensor(t).float().reshape(-1, 1)


def _student(weight):
    return lambda x, t: x + _column(t) * torch.tanh(x.to(weight) @ weight)


def _gaussian(mean, std):
    """The denoiser of N(mean, std^2) on EDM's path."""

    def denoise(x, t):
        return mean + std**2 / (std**2 + _column(t) ** 2) * (x - mean)

    return denoise


def _gradients(loss, *weights):
    """Of the loss at each, zeros where it does not depend on them."""
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        return [torch.zeros_like(w) for w in weights]
    found = torch.autograd.grad(loss.sum(), weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
