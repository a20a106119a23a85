"""Rules: how two predictions at the same point become one guided prediction.

``reference`` is what to move away from (unconditional model, negative prompt, weaker model), ``main`` what to move
towards. ``w = 0`` returns the reference, ``w = 1`` the main prediction, ``w > 1`` extrapolates. Papers that write
``(1 + w') main - w' reference`` have ``w' = w - 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lecture_lib.core.parameterization import Parameterization, V
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Prediction
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_finite, check_number, per_sample

Rule = Callable[[Prediction, Prediction], Prediction]
"""``(reference, main) -> guided``; the result's nfe is the sum of both."""

Scale = float | Tensor | Callable[[Path, Tensor], Tensor]
"""A guidance scale: one number, one per sample ``(b,)``, or a schedule ``(path, t (b,)) -> (b,)``."""


def check_scale(w: Scale, name: str = "w") -> Scale:
    """``w`` itself, if it is finite (a schedule is checked when it is called)."""
    if isinstance(w, Tensor):
        if w.ndim != 1:
            raise ShapeError(f"{name}: got shape {tuple(w.shape)}, expected one number or a tensor (b,)")
        return check_finite(name, w)
    return w if callable(w) else check_number(name, w)


def scale_at(w: Scale, p: Prediction) -> Tensor:
    """The scale at this prediction, shaped to multiply images."""
    if callable(w):
        w = check_finite("w(path, t)", torch.as_tensor(w(p.path, p.t)))
    if isinstance(w, Tensor):
        if w.shape != (p.x_t.shape[0],):
            raise ShapeError(f"w: got scales of shape {tuple(w.shape)}, expected ({p.x_t.shape[0]},), one per sample")
    else:
        w = torch.full((1,), w, dtype=torch.float64, device=p.x_t.device)
    return per_sample(w.to(p.x_t.device), p.x_t)


def linear(w: Scale) -> Rule:
    """Classifier-free guidance ``reference + w (main - reference)`` (Ho & Salimans 2022, Eq. 6, with w = 1 + theirs).

    The same line in x0, eps, v, velocity and score, since all are affine in (x0, eps) at fixed x_t.
    """
    w = check_scale(w)

    def rule(reference: Prediction, main: Prediction) -> Prediction:
        scale = scale_at(w, main)
        # lerp returns its end points exactly, so w = 1 *is* the conditional model, bit for bit.
        x0, eps = torch.lerp(reference.x0, main.x0, scale), torch.lerp(reference.eps, main.eps, scale)
        return replace(main, x0=x0, eps=eps, nfe=reference.nfe + main.nfe)

    return rule


def rescaled(w: Scale, phi: float = 0.7, space: Parameterization = V) -> Rule:
    """Linear guidance whose standard deviation is pulled back to the main prediction's by a share ``phi``.

    Per sample, over all its dimensions (two at least), in ``space`` (Lin et al. 2023, Eq. 15-16, use v).
    """
    phi, guide = check_number("phi", phi, 0, 1), linear(w)

    def rule(reference: Prediction, main: Prediction) -> Prediction:
        guided, c = guide(reference, main), main.path.coeffs(main.t)
        if main.x_t[0].numel() < 2:
            raise ShapeError(f"x_t: got shape {tuple(main.x_t.shape)}, a single number has no standard deviation")
        y, y_main = space.encode(guided.x0, guided.eps, c), space.encode(main.x0, main.eps, c)
        ratio = y_main.flatten(1).std(1) / y.flatten(1).std(1)
        y = phi * per_sample(ratio, y) * y + (1 - phi) * y
        x0, eps = space.decode(y, main.x_t, c)
        return replace(guided, x0=x0, eps=eps)

    return rule


def check_radius(radius: float) -> float:
    """``radius`` itself, if it is positive; infinity means no limit."""
    if not radius > 0:
        raise RangeError(f"radius: got {radius!r}, expected a positive number, or infinity for no limit")
    return radius


def project(delta: Tensor, onto: Tensor, eta: float, radius: float) -> Tensor:
    """``delta`` shortened to at most ``radius``, its part along ``onto`` times ``eta``; per sample, in float64."""
    d, u = delta.flatten(1).double(), torch.nn.functional.normalize(onto.flatten(1).double(), dim=1)
    d = d * (radius / d.norm(dim=1, keepdim=True)).clamp(max=1)
    parallel = (d * u).sum(1, keepdim=True) * u
    return (d - parallel + eta * parallel).reshape(delta.shape).to(delta.dtype)


def projected(w: Scale, eta: float = 0.0, radius: float = float("inf")) -> Rule:
    """Adaptive projected guidance without momentum: push sideways, not louder (Sadat et al. 2024, Alg. 1).

    The update ``x0_main - x0_reference`` loses all but a share ``eta`` of its part along x0_main, the part that
    saturates. ``eta = 1`` and infinite ``radius`` is linear guidance. With momentum: ``memory.projected_momentum``.
    """
    w, eta, radius = check_scale(w), check_number("eta", eta), check_radius(radius)

    def rule(reference: Prediction, main: Prediction) -> Prediction:
        push = project(main.x0 - reference.x0, main.x0, eta, radius)
        return replace(main.with_x0(main.x0 + (scale_at(w, main) - 1) * push), nfe=reference.nfe + main.nfe)

    return rule


def plus_plus(lam: float) -> Rule:
    """CFG++: the guided x0 with the *reference's* eps (Chung et al. 2024, Alg. 2); lam in [0, 1] interpolates.

    Made for samplers that re-noise with eps, such as DDIM: ``mix(x0_guided, eps_reference, s)``. Here x_t is
    deliberately not ``alpha x0 + sigma eps``, and other samplers read it otherwise: DDPM and DPM-Solver++ use x_t and
    x0 alone, which is linear guidance with w = lam; Euler on the EDM clock uses eps alone and is not guided at all.
    """
    guide = linear(check_number("lam", lam, 0, 1))

    def rule(reference: Prediction, main: Prediction) -> Prediction:
        return replace(guide(reference, main), eps=reference.eps)

    return rule
