"""Input-convex networks: potentials whose gradients are optimal-transport maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_batch, check_count


class PositiveLinear(nn.Module):
    """``W x`` with every entry of W positive: what keeps a sum of convex functions convex. W = softplus(raw)/inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(0.5 * torch.randn(outputs, inputs))

    def forward(self, x: Float[Tensor, " b i"]) -> Float[Tensor, " b o"]:
        return F.linear(x, F.softplus(self.raw) / self.raw.shape[1])


class ICNN(nn.Module):
    """A strongly convex ``psi(x)``: every layer is a convex, increasing function of convex functions.

        z_1 = s(A_0 x + b_0),   z_{i+1} = s(W_i z_i + A_i x + b_i),   psi = w.z_L + a.x + c |x|^2/2

    with W_i, w, c > 0, A_i free, and s = softplus, which is convex, increasing and smooth (a ReLU's psi has no Hessian
    where a map needs one). At initialisation a = 0, c = 1: grad psi is the identity and bends beside it.

    Args:
        features: length of x.
        width, depth: width and number of hidden layers.

    Source: Amos, Xu & Kolter 2017 (1609.07152), proposition 1; its gradient as a map: Brenier 1991.
    """

    def __init__(self, features: int = 2, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        check_count("features", features)
        self.skips = nn.ModuleList(nn.Linear(features, width) for _ in range(check_count("depth", depth)))
        self.inner = nn.ModuleList(PositiveLinear(width, width) for _ in range(depth - 1))
        self.leave = PositiveLinear(width, 1)
        for layer in self.skips:  # bends of all kinds within a few units of the origin, some of them sharp
            nn.init.normal_(layer.weight, std=2.0)
            nn.init.normal_(layer.bias, std=2.0)
        self.slope = nn.Parameter(torch.zeros(features))
        self.raw_curvature = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus of it is 1

    def forward(self, x: Float[Tensor, " b d"]) -> Float[Tensor, " b"]:
        """``psi(x)``."""
        z = F.softplus(self.skips[0](x))
        for positive, skip in zip(self.inner, self.skips[1:], strict=True):
            z = F.softplus(positive(z) + skip(x))
        quadratic = F.softplus(self.raw_curvature) * x.square().sum(1) / 2
        return self.leave(z)[:, 0] + x @ self.slope + quadratic

    def push(self, x: Float[Tensor, " b d"]) -> tuple[Float[Tensor, " b d"], Float[Tensor, " b d d"]]:
        """``grad psi(x)`` and the Hessian of psi, positive definite; both with graphs of their own where x or the
        weights need them. One gradient per dimension: for few dimensions."""
        graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone() if x.is_inference() else x
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
            rows = [
                torch.autograd.grad(gradient[:, i].sum(), x, create_graph=graph, retain_graph=True)[0]
                for i in range(x.shape[1])
            ]
        hessian = torch.stack(rows, 1)
        return (gradient, hessian) if graph else (gradient.detach(), hessian.detach())

    @torch.no_grad()
    def pull(self, y: Float[Tensor, " b d"], *, tolerance: float = 1e-9, most: int = 100) -> Float[Tensor, " b d"]:
        """The x with ``grad psi(x) = y``: the minimum of ``psi(x) - x.y``, by damped Newton steps.

        Args:
            tolerance: largest error of ``grad psi(x)``; below float32's rounding it needs a model in float64.
            most: iterations before giving up.

        Raises:
            RangeError: not there after ``most`` iterations.
        """
        x = check_batch("y", y).clone()
        for _ in range(most):
            gradient, hessian = self.push(x)
            residual = gradient - y
            if residual.abs().max() <= tolerance:
                return x
            step = torch.linalg.solve(hessian, residual)
            value, slope, length = self(x) - (x * y).sum(1), (residual * step).sum(1), torch.ones_like(x[:, 0])
            for _ in range(30):  # halve where the convex objective does not fall (Armijo)
                there = x - length[:, None] * step
                poor = self(there) - (there * y).sum(1) > value - 1e-4 * length * slope + 1e-12 * (1 + value.abs())
                if not poor.any():
                    break
                length = torch.where(poor, length / 2, length)
            x = x - length[:, None] * step
        raise RangeError(
            f"y: grad psi(x) = y to {float(residual.abs().max()):.1e} after {most} steps, not {tolerance:g}"
        )
