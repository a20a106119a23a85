"""Guidance that remembers earlier steps of the same trajectory.

A ``Denoise`` has no memory. What needs one is a recipe for making a fresh one: ``sample`` calls ``fresh()`` once
per run, so that memory lives exactly as long as a trajectory, and two runs never see each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lecture_lib.core.prediction import Denoise
from lecture_lib.guidance.rules import Scale, check_radius, check_scale, project, scale_at
from lecture_lib.tensors import check_count, check_number


@dataclass(frozen=True)
class Remembering:
    """A denoiser with memory: ``fresh()`` gives the denoiser of one new trajectory."""

    fresh: Callable[[], Denoise]

    def then(self, repair: Callable[[Denoise], Denoise]) -> Remembering:
        """The same recipe with ``repair`` (``clipped``, ``interval`` ...) around each fresh denoiser."""
        return Remembering(lambda: repair(self.fresh()))


def projected_momentum(
    reference: Denoise, main: Denoise, w: Scale, *, eta: float = 0.0, radius: float = float("inf"), beta: float = -0.5
) -> Remembering:
    """APG complete: projection, norm limit and *reverse* momentum (Sadat et al. 2024, Alg. 1; beta in (-1, 0)).

    The running update ``m <- (x0_main - x0_reference) + beta m`` subtracts what was pushed before.
    """
    w, beta, radius = check_scale(w), check_number("beta", beta, -1, 1), check_radius(radius)
    eta = check_number("eta", eta)

    def fresh() -> Denoise:
        running = 0.0

        def denoise(x_t, t):
            nonlocal running
            m = main(x_t, t)
            r = reference(x_t, t).on(m.path)
            running = (m.x0 - r.x0) + beta * running
            push = project(running, m.x0, eta, radius)
            return replace(m.with_x0(m.x0 + (scale_at(w, m) - 1) * push), nfe=r.nfe + m.nfe)

        return denoise

    return Remembering(fresh)


def cached(reference: Denoise, main: Denoise, w: Scale, every: int = 2) -> Remembering:
    """Linear guidance whose reference runs only at every ``every``-th call; in between the last difference serves.

    Costs ``1 + 1/every`` evaluations instead of 2, and is exact for ``every = 1``. The bet: the difference of the
    predictions changes slowly along a trajectory.
    """
    w, every = check_scale(w), check_count("every", every)

    def fresh() -> Denoise:
        calls, difference = 0, None

        def denoise(x_t, t):
            nonlocal calls, difference
            m = main(x_t, t)
            cost = m.nfe
            if calls % every == 0:
                r = reference(x_t, t).on(m.path)
                difference, cost = (m.x0 - r.x0, m.eps - r.eps), cost + r.nfe
            calls += 1
            gain = scale_at(w, m) - 1
            return replace(m, x0=m.x0 + gain * difference[0], eps=m.eps + gain * difference[1], nfe=cost)

        return denoise

    return Remembering(fresh)
