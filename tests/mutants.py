"""Wrong versions of the library that the tests must notice: one textual change each.

``python tests/mutants.py`` runs the suites of core, samplers, guidance and oracles against every mutant, in a copy, and
prints which tests killed it; ``python tests/mutants.py NAME ...`` does so for some. ``test_mutants.py`` asserts it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CORE, PARAMETERIZATION, DENOISER = "test_core_paths", "test_core_parameterization", "test_core_denoiser"
SAMPLERS, DIFFUSERS, GUIDANCE = "test_samplers_laws", "test_samplers_diffusers", "test_guidance_rules"
ORDERS = "test_samplers_orders"
MIXTURE, GUIDED = "test_oracles_mixture", "test_oracles_guided"
RECIPES, QUANTIZERS, LORA = "test_core_recipes", "test_nets_quantizers", "test_nets_lora"
LATENT, SHAPES = "test_families_latent", "test_data_shapes"
PERCEPTUAL, PATCHES, FAMILIES = "test_nets_perceptual", "test_nets_patchgan", "test_families_autoencoding"
CONSISTENCY, CURRICULA = "test_distill_consistency", "test_distill_curricula"
EXACT, MULTISTEP = "test_distill_exact", "test_distill_multistep"
TENSORS, DISTANCES = "test_tensors", "test_metrics_distances"
SCHEDULES, GRIDS, INTERPOLANTS = "test_core_schedules", "test_core_grids", "test_core_interpolants"


class Mutant(NamedTuple):
    """``before`` becomes ``after`` in ``file``; ``suites`` are the test files that should notice."""

    file: str
    before: str
    after: str
    suites: tuple[str, ...]


def _of(file: str, before: str, after: str, *suites: str) -> Mutant:
    return Mutant(f"lecture_lib/{file}.py", before, after, suites)


MUTANTS = {
    # signs
    "sign of v": _of("core/parameterization", "(-c.sigma, c.alpha)", "(c.sigma, -c.alpha)", PARAMETERIZATION),
    "sign of velocity": _of(
        "core/parameterization", "(c.dalpha, c.dsigma)", "(-c.dalpha, -c.dsigma)", PARAMETERIZATION
    ),
    "sign of the score row": _of("core/parameterization", "-1 / c.sigma)", "1 / c.sigma)", PARAMETERIZATION),
    "sign of the score": _of("core/prediction", "return -self.eps / self", "return self.eps / self", PARAMETERIZATION),
    "sign of the edm row": _of(
        "core/parameterization", "c.sigma / (s * n), -c.alpha", "-c.sigma / (s * n), c.alpha", PARAMETERIZATION
    ),
    "sign of the SDE's push": _of("samplers/sde", "score=h * w / 2", "score=-h * w / 2", SAMPLERS),
    "sign of the divergence": _of("core/likelihood", "sigma.log() + total", "sigma.log() - total", DENOISER),
    "sign of the momentum": _of("guidance/memory", "+ beta * running", "- beta * running", GUIDANCE),
    "sign of 2M's exponent": _of(
        "samplers/dpm_solver_multistep",
        "gain = s.sigma / t.sigma, -s.alpha * expm1(-h)",
        "gain = s.sigma / t.sigma, -s.alpha * expm1(h)",
        DIFFUSERS,
    ),
    # squares and roots
    "sigma for sigma^2 in the shift": _of("core/prediction", "sigma**2 / alpha", "sigma / alpha", GUIDANCE),
    "sigma for sigma^2 in the posterior": _of(
        "samplers/ancestral", "return beta * (sigma_s / sigma_t) ** 2", "return beta * (sigma_s / sigma_t)", SAMPLERS
    ),
    "sigma for sigma^2 in DDPM's beta": _of(
        "samplers/ancestral", "t.sigma**2 - (alpha_ts * s.sigma) ** 2", "t.sigma - (alpha_ts * s.sigma)", DIFFUSERS
    ),
    "sigma for sigma^2 in the x0 weight": _of(
        "core/parameterization", "(self.det(c) / c.sigma) ** 2", "(self.det(c) / c.sigma).abs()", PARAMETERIZATION
    ),
    "sigma for sigma^2 in the oracle": _of(
        "oracles/mixture",
        "self.variances + sigma[:, None, None] ** 2",
        "self.variances + sigma[:, None, None]",
        MIXTURE,
    ),
    "variance for deviation in the SDE": _of("samplers/sde", "fresh(root(w * h)", "fresh((w * h)", SAMPLERS),
    "all of the score, not half": _of("samplers/sde", "score=h * w / 2", "score=h * w", SAMPLERS),
    "g^2 without its 2": _of("core/paths", "return f, 2 * c.sigma * (c.dsigma", "return f, c.sigma * (c.dsigma", CORE),
    "alpha-bar for alpha in the table": _of(
        "core/tables",
        "torch.atan2((1 - table).sqrt(), table.sqrt())",
        "torch.atan2((1 - table**2).sqrt(), table)",
        CORE,
    ),
    "alpha-bar rescaled for zero SNR": _of(
        "core/tables", "alphas_cumprod.double().sqrt()", "alphas_cumprod.double()", CORE
    ),
    "log-SNR for its half": _of(
        "core/paths",
        "return self.alpha(t).log() - self.sigma(t).log()",
        "return 2 * (self.alpha(t).log() - self.sigma(t).log())",
        CORE,
    ),
    "1 - exp for expm1": _of(
        "core/paths",
        "torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))",
        "torch.sqrt(1 - torch.exp(2 * self._log_alpha(t)))",
        CORE,
    ),
    "eps through x0": _of(
        "core/parameterization",
        "return tuple(blend((on_x, x_t), (on_y, y)) for on_x, on_y in self.inverse(c))",
        "(p, q), _ = self.inverse(c)\n        x0 = blend((p, x_t), (q, y))\n"
        "        return x0, blend((1 / c.sigma, x_t), (-c.alpha / c.sigma, x0))",
        PARAMETERIZATION,
    ),
    "min-SNR not converted": _of(
        "core/losses", "snr.clamp(max=gamma) / parameterization.x0_weight(c)", "snr.clamp(max=gamma)", PARAMETERIZATION
    ),
    # time
    "t reversed in network time": _of(
        "core/denoiser", "1000 * t / path.t_max", "1000 * (1 - t / path.t_max)", DENOISER
    ),
    "t in [0, 1] for the network": _of("core/denoiser", "1000 * t / path.t_max", "t / path.t_max", DENOISER),
    "t reversed on the path": _of("core/paths", "        return 1 - t\n", "        return t * 1.0\n", CORE),
    "table read one entry early": _of("core/grids", "[(i + 1) / T for i", "[max(i, 0.5) / T for i", CORE),
    "one step short": _of(
        "core/grids",
        'torch.linspace(start, end, check_count("steps", steps) + 1',
        'torch.linspace(start, end, check_count("steps", steps)',
        CORE,
    ),
    "times broadcast over the width": _of("tensors", ".reshape(c.shape[0], *(1,) * (like.ndim - 1))", "", CORE),
    # schedules and grids
    "cosine betas without their bound": _of("core/tables", ".clamp(min=1 - max_beta)", "", SCHEDULES),
    "sigmoid without its temperature": _of(
        "core/schedules", "(self.end - self.start) / self.tau", "(self.end - self.start)", SCHEDULES
    ),
    "learned schedule that may be flat": _of(
        "core/schedules", "fixed: ClassVar[float] = 0.01", "fixed: ClassVar[float] = 0.0", SCHEDULES
    ),
    "own path not checked": _of("core/schedules", "if not good.all():", "if False:", SCHEDULES),
    "table's slope of the wrong cell": _of("core/tables", "(right - left) * (len", "(right - left) / (len", SCHEDULES),
    "table goes on flat": _of("core/tables", "2 * angle[-1:] - self.angles[-2:-1]", "angle[-1:]", SCHEDULES),
    "exponential in sigma": _of(
        "core/grids", "math.log(high), math.log(low), steps", "math.log(high), math.log(low) / 2, steps", GRIDS
    ),
    "trailing without its -1": _of(
        "core/grids", "[:steps].round().astype(int) - 1", "[:steps].round().astype(int) - 2", GRIDS
    ),
    "leading with steps + 1": _of("core/grids", "i * (T // steps) + offset", "i * (T // (steps + 1)) + offset", GRIDS),
    "shift the wrong way": _of("core/shift", "path.time_of(lam - shift)", "path.time_of(lam + shift)", GRIDS),
    "shift by kappa^2": _of("core/shift", "path.time_of(lam - shift)", "path.time_of(lam - 2 * shift)", GRIDS),
    "shift that drops steps": _of(
        "core/shift", "past + 1, dtype=torch.float64)[:past]", "past + 1, dtype=torch.float64)[:1]", GRIDS
    ),
    # interpolants
    "sign of the two-sided score": _of(
        "core/interpolants", "return -self.z / per", "return self.z / per", INTERPOLANTS
    ),
    "velocity without gamma'": _of(
        "core/interpolants",
        "zip(slopes, (self.x0, self.x1, self.z), strict=True)",
        "zip(slopes[:2], (self.x0, self.x1), strict=True)",
        INTERPOLANTS,
    ),
    "gamma for gamma^2": _of(
        "oracles/bridge", "(gamma**2)[..., None] * torch.eye", "gamma[..., None] * torch.eye", INTERPOLANTS
    ),
    "pairs without their weights": _of(
        "oracles/bridge", "return log_u + log_v + log_norm", "return log_norm", INTERPOLANTS
    ),
    "pairs in step": _of(
        "oracles/bridge", "torch.arange(k1).repeat(k0)", "torch.arange(k1).repeat_interleave(k0)", INTERPOLANTS
    ),
    # samplers
    "step ratio inverted": _of("samplers/dpm_solver_multistep", "k = h / (2 * h_prev)", "k = h_prev / (2 * h)", ORDERS),
    "DDIM keeps all of eps": _of(
        "samplers/ancestral",
        "kept = s.sigma * root(1 - self.eta**2 + (self.eta * q) ** 2)",
        "kept = s.sigma",
        SAMPLERS,
    ),
    "DDPM's last noise kept": _of(
        "samplers/ancestral", "if all_zero(s.sigma):  # clean", "if False:  # clean", SAMPLERS
    ),
    "SDE's last noise kept": _of("samplers/sde", "        if all_zero(s.sigma):\n", "        if False:\n", SAMPLERS),
    "Heun without its average": _of(
        "samplers/classical",
        "*p.parts(velocity=h / 2), *q.parts(velocity=h / 2)",
        "*q.parts(velocity=h)",
        ORDERS,
    ),
    "noise mutated": _of(
        "tensors",
        "total = per_sample(c, x) * x\n",
        "total = x.mul_(per_sample(c, x))\n",
        SAMPLERS,
    ),
    "DDIM jumps with the old sigma": _of("samplers/ancestral", "kept = s.sigma *", "kept = t.sigma *", ORDERS),
    "churn asked at the old sigma": _of("samplers/sde", "noise)), hat\n", "noise)), t\n", SAMPLERS),
    "Langevin step without its 2": _of("samplers/sde", "e = (2 * (self.snr", "e = (1 * (self.snr", SAMPLERS),
    "ancestral up and down swapped": _of(
        "samplers/ancestral",
        "*p.parts(eps=s.alpha * (down - t.level))",
        "*p.parts(eps=s.alpha * (up - t.level))",
        SAMPLERS,
    ),
    "consistency noise of all of sigma": _of(
        "samplers/consistency", "root(s.sigma**2 - (ratio * end.sigma) ** 2)", "s.sigma", SAMPLERS
    ),
    "phi without its subtraction": _of(
        "samplers/weights", "(values[-1] - 1 / math.factorial(k)) / tau", "values[-1] / tau", ORDERS
    ),
    "phi downwards without its term": _of(
        "samplers/weights", "tau * values[-1] + 1 / math.factorial(k)", "tau * values[-1]", ORDERS
    ),
    "moments matched at other nodes": _of(
        "samplers/weights", "w[j] -= nodes[k] * w[j - 1]", "w[j] -= nodes[j] * w[j - 1]", ORDERS
    ),
    "midpoint correction doubled": _of("samplers/dpm_solver", "(gain / (2 * r), m_mid)", "(gain / r, m_mid)", ORDERS),
    "third order without 1/r2": _of("samplers/dpm_solver", "(-amp / r2 * tau", "(-amp * tau", ORDERS),
    "fast budget of the wrong rest": _of("samplers/dpm_solver", "[3] * whole + [rest]", "[3] * whole + [1]", ORDERS),
    "3M without its 2": _of(
        "samplers/dpm_solver_multistep", ", 2 * (D10 - D11) / (r0 + r1)", ", (D10 - D11) / (r0 + r1)", ORDERS
    ),
    "3M starting with order 1": _of(
        "samplers/dpm_solver_multistep",
        "return singlestep2(DATA, denoise, p, x, t, s, 0.5), history",
        "return jump(p, s), history",
        ORDERS,
    ),
    "SDE without its damping": _of(
        "samplers/dpm_solver_multistep", "s.sigma / t.sigma * exp(-h)", "s.sigma / t.sigma", SAMPLERS
    ),
    "SDE 2M the wrong way": _of(
        "samplers/dpm_solver_multistep", "gain = -s.alpha * expm1(-2 * h)", "gain = s.alpha * expm1(-2 * h)", SAMPLERS
    ),
    "SDE 3M with -1/2": _of("samplers/dpm_solver_multistep", "psi2 = 0.5 -", "psi2 = -0.5 -", SAMPLERS),
    "UniC left out": _of("samplers/unipc", "x = self.update(state, t, arrived=m)  # UniC", "pass", ORDERS),
    "UniPC without B": _of("samplers/unipc", "scale = -amp * self.B(tau)", "scale = -amp", ORDERS),
    "UniPC's order of rows": _of("samplers/unipc", "tau))][1:])", "tau))][:-1])", ORDERS),
    "PLMS with Adams of equal weights": _of(
        "samplers/pndm", "(23 / 12, -16 / 12, 5 / 12)", "(1 / 3, 1 / 3, 1 / 3)", DIFFUSERS
    ),
    "pseudo Runge-Kutta unweighted": _of(
        "samplers/pndm", "(e1 + 2 * e2 + 2 * e3 + e4) / 6", "(e1 + e2 + e3 + e4) / 4", DIFFUSERS
    ),
    "v3 does not carry its history": _of("samplers/dpm_solver_v3", "growth * (g + shift)", "g", ORDERS),
    "v3 without the decay of L": _of("samplers/dpm_solver_v3", "np.exp(-L[-1])", "np.ones_like(L[-1])", ORDERS),
    "v3's l of a neighbour": _of("samplers/dpm_solver_v3", "share * (v[low + 1] - v[low])", "0 * v[low]", ORDERS),
    "graph lost by reading early": _of(
        "core/prediction", "if value.requires_grad or not self._y.requires_grad:", "if True:", DENOISER
    ),
    "slopes of the grid's first time": _of(
        "core/paths", "self._all_slopes()[self.time]", "next(iter(self._all_slopes().values()))", ORDERS
    ),
    "times per sample of another moment": _of(
        "core/paths", "x.shape[0]).unbind()", "x.shape[0]).flip(0).unbind()", CORE
    ),
    "running mean with the plain weight": _of("tensors", "lerp(mean, y, c / so_far)", "lerp(mean, y, c)", TENSORS),
    "running mean through nothing": _of("tensors", "if abs(so_far) < 0.1", "if abs(so_far) < 0.0", TENSORS),
    "Frechet limit a part too low": _of(
        "metrics/frechet", "sum(apart) / parts) / (parts - 1)", "sum(apart) / parts) / parts", DISTANCES
    ),
    "terms merged once": _of("tensors", "sums[id(x)][0] + c if", "c if", SAMPLERS),
    "global generator": _of(
        "tensors", "torch.randn(x.shape, generator=generator", "torch.randn(x.shape, generator=None", SAMPLERS
    ),
    "evaluations undercounted": _of("samplers/base", "self.nfe += p.nfe", "self.nfe += 1", SAMPLERS),
    "memory kept between runs": _of(
        "samplers/base",
        'denoise = denoise.fresh() if hasattr(denoise, "fresh") else denoise',
        'denoise = denoise.__dict__.setdefault("kept", denoise.fresh()) if hasattr(denoise, "fresh") else denoise',
        SAMPLERS,
        GUIDANCE,
    ),
    # guidance
    "1 + w for w": _of("guidance/rules", "scale = scale_at(w, main)", "scale = 1 + scale_at(w, main)", GUIDANCE),
    "w for w - 1 in projection": _of(
        "guidance/rules", "(scale_at(w, main) - 1) * push", "scale_at(w, main) * push", GUIDANCE
    ),
    "guidance on part of the channels": _of(
        "guidance/rules",
        "        return replace(main, x0=x0, eps=eps, nfe=reference.nfe + main.nfe)",
        "        x0 = torch.cat([x0[:, :1], main.x0[:, 1:]], 1)\n"
        "        return replace(main, x0=x0, eps=eps, nfe=reference.nfe + main.nfe)",
        GUIDANCE,
    ),
    "branches swapped in fused": _of("guidance/guide", "torch.cat([r, m])", "torch.cat([m, r])", GUIDANCE),
    "interval closed below": _of("guidance/guide", "(level > low)", "(level >= low * 0.999)", GUIDANCE),
    "rescaling over the batch": _of(
        "guidance/rules",
        "y_main.flatten(1).std(1) / y.flatten(1).std(1)",
        "(y_main.std() / y.std()).expand(len(y))",
        GUIDANCE,
    ),
    "the parallel part kept": _of("guidance/rules", "d - parallel + eta * parallel", "eta * d + parallel", GUIDANCE),
    "thresholding without division": _of("guidance/repairs", "p.x0.clamp(-s, s) / s", "p.x0.clamp(-s, s)", GUIDANCE),
    "CFG++ with the main noise": _of("guidance/rules", "eps=reference.eps)", "eps=main.eps)", GUIDANCE),
    "cached difference never renewed": _of("guidance/memory", "calls % every == 0", "calls == 0", GUIDANCE),
    # training
    "missing c_in": _of(
        "core/denoiser",
        "x_t if self.input_scale is None else per_sample(self.input_scale(c), x_t) * x_t",
        "x_t",
        DENOISER,
    ),
    "label dropout per batch": _of(
        "core/conditions",
        "torch.rand(first.shape[0], generator=generator, device=device) < p)",
        "torch.rand(1, generator=generator, device=device) < p).expand(first.shape[0])",
        DENOISER,
    ),
    "label kept with p": _of("core/conditions", "device=device) < p)", "device=device) >= p)", DENOISER),
    "coupling not optimal": _of(
        "core/couplings", "return x1[torch.as_tensor(columns", "return x1.flip(0)[torch.as_tensor(columns", DENOISER
    ),
    "target without its row": _of(
        "core/denoiser", "target = self.parameterization.encode(x0, eps, c)", "target = eps - x0", DENOISER
    ),
    # oracles
    "rebasing without rescaling": _of("core/rebase", "per_sample(radius_old / radius_new, x_t) * x_t", "x_t", DENOISER),
    "tilted the wrong way": _of(
        "oracles/guided",
        "(1 - self.w) * self.p.log_prob(x) + self.w * self.p_c",
        "self.w * self.p.log_prob(x) + (1 - self.w) * self.p_c",
        GUIDED,
    ),
    "guided variance of the tilted density": _of(
        "oracles/guided", "p_c.var**w * p.var ** (1 - w)", "1 / (w / p_c.var + (1 - w) / p.var)", GUIDED
    ),
    "labels without their weights": _of(
        "oracles/mixture", "return self.log_weights + log_norm", "return log_norm", MIXTURE
    ),
    "flow map on the wrong radius": _of(
        "core/flow", "per_sample(radius_s, y1) * y1", "per_sample(radius_t, y1) * y1", MIXTURE
    ),
    # latents and editing
    "latents divided by the scale": _of(
        "families/latent",
        "return self.scale * ((posterior.mode() if generator is None else posterior.sample(generator)) - self.shift)",
        "return ((posterior.mode() if generator is None else posterior.sample(generator)) - self.shift) / self.scale",
        LATENT,
    ),
    "the encoder thawed": _of("families/latent", "if thawed:", "if False:", LATENT),
    "the wrong side painted": _of(
        "families/editing",
        "torch.where(paint, prediction.x0, known)",
        "torch.where(paint, known, prediction.x0)",
        LATENT,
    ),
    "x0 replaced, eps not": _of(
        "families/editing", "prediction.with_x0(", '__import__("dataclasses").replace(prediction, x0=', LATENT
    ),
    "strength from the wrong end": _of("families/editing", '"start": strength', '"start": 1 - strength', LATENT),
    "KL with the sign of its logarithm": _of(
        "nets/autoencoder", "torch.expm1(logvar) - logvar", "torch.expm1(logvar) + logvar", LATENT
    ),
    # parts of networks, and what they are trained with
    "offset per pixel": _of(
        "core/couplings",
        "z_c = randn_like(x0.flatten(2)[:, :, 0], generator)  # (b, c)",
        "return z + scale * randn_like(x0, generator)",
        RECIPES,
    ),
    "max(SNR, 1) not converted": _of(
        "core/losses", "snr.clamp(min=1) / parameterization.x0_weight(c)", "snr.clamp(min=1)", RECIPES
    ),
    "FSQ without the half step": _of("nets/quantizers", "[0.0 if L % 2 else 0.5 for", "[0.0 for", QUANTIZERS),
    "FSQ with h below its value": _of("nets/quantizers", "(L - 1) * (1 + 1e-3) / 2", "(L - 1) / 2", QUANTIZERS),
    "sign of straight-through": _of(
        "nets/quantizers", "return z + (rounded - z).detach()", "return rounded.detach() + (rounded - z)", QUANTIZERS
    ),
    "counts that forget with 1 - gamma": _of(
        "nets/quantizers", "self.count.lerp_(n, 1 - self.gamma)", "self.count.lerp_(n, self.gamma)", QUANTIZERS
    ),
    "counts without smoothing": _of(
        "nets/quantizers",
        "return (self.count + self.epsilon) / (N + self.size * self.epsilon) * N",
        "return self.count + 0 * N",
        QUANTIZERS,
    ),
    "adaptive weight inverted": _of("nets/critics", "(pull / (push + 1e-4))", "(push / (pull + 1e-4))", FAMILIES),
    "critic with the sign of its fakes": _of(
        "families/adversarial", "discriminator(x_hat.detach())", "-discriminator(x_hat.detach())", FAMILIES
    ),
    "KL with deviation for variance": _of(
        "nets/autoencoder", "torch.expm1(logvar) - logvar", "torch.expm1(logvar / 2) - logvar", FAMILIES
    ),
    "LoRA's alpha/r inverted": _of("nets/lora", "self.alpha / self.rank", "self.rank / self.alpha", LORA),
    "LoRA heard twice when merged": _of("nets/lora", "self._part(name).on = False", "pass", LORA),
    "LPIPS without normalisation": _of(
        "nets/perceptual",
        "features * torch.rsqrt(features.square()",
        "features * torch.ones_like(features.square()",
        PERCEPTUAL,
    ),
    "hinge with its sides swapped": _of(
        "nets/critics", "F.relu(1 - real) + F.relu(1 + fake)", "F.relu(1 + real) + F.relu(1 - fake)", PATCHES
    ),
    # consistency models in discrete time
    "dropout masks not shared": _of(
        "distill/consistency", "default_generator.manual_seed(seed)", "default_generator.seed()", CONSISTENCY
    ),
    "CT forgets its slower target": _of(
        "distill/consistency", "masked(student if target is None else target)", "masked(student)", CONSISTENCY
    ),
    "iCT weighs by the clock, not the level": _of(
        "distill/consistency", "1 / (level_t - level_u)", "1 / (pair.t - pair.u)", CONSISTENCY
    ),
    "ECT ends at 0.002": _of("distill/consistency", "distance=distance, end=0.0,", "distance=distance,", CONSISTENCY),
    "a float32 end is missed": _of("distill/maps", "self.end * (1 + 1e-6)", "self.end", CONSISTENCY),
    "pairs the wrong way round": _of(
        "distill/curricula", "Pair(grid[lower + 1], grid[lower])", "Pair(grid[lower], grid[lower + 1])", CURRICULA
    ),
    "ECT's n(t) rises": _of("distill/curricula", "sigmoid(-self.b", "sigmoid(self.b", CURRICULA),
    "the lognormal's root of two": _of("distill/curricula", "(math.sqrt(2) * self.std)", "self.std", CURRICULA),
    "CT's N(k) one too many": _of("distill/curricula", "+ first**2) - 1) + 1", "+ first**2)) + 1", CURRICULA),
    "iCT's N(k) without + 1": _of("distill/curricula", "2**stage, last) + 1", "2**stage, last)", CURRICULA),
    "the two-way weights forgotten": _of(
        "distill/exact", "* std**2 + sigma[1:] * sigma[:-1]) / gap", "* std**2 + sigma[1:] * sigma[:-1])", EXACT
    ),
    "CT's conditional mean on EDM only": _of("distill/exact", "low.alpha - ratio * high.alpha", "1 - ratio", EXACT),
    "the posterior's variance for its root": _of("distill/exact", "/ of_x).sqrt()", "/ of_x)", EXACT),
    "a step that stands still": _of(
        "distill/multistep", "sigma_max=sigma_max)[:-2]", "sigma_max=sigma_max)[:-1]", MULTISTEP
    ),
    "the search for the worst grid": _of("distill/multistep", "< score(grid", "> score(grid", MULTISTEP),
}


# Where to look first: a ``-k`` expression per mutant. Without a hint, or if it finds nothing, the whole suites run.
HINTS = {
    "sign of v": "papers",
    "sign of velocity": "papers",
    "sign of the score row": "papers",
    "sign of the score": "prediction_reads",
    "sign of the edm row": "karras",
    "sign of the SDE's push": "EulerMaruyama and rf and marginals",
    "sign of the divergence": "log_likelihood_is and rf",
    "sign of the momentum": "momentum",
    "sign of 2M's exponent": "dpm_solver",
    "sigma for sigma^2 in the shift": "classifier",
    "sigma for sigma^2 in the posterior": "ddpm",
    "sigma for sigma^2 in DDPM's beta": "ddpm and 20",
    "sigma for sigma^2 in the x0 weight": "implied",
    "sigma for sigma^2 in the oracle": "log_prob",
    "variance for deviation in the SDE": "EulerMaruyama and rf and marginals",
    "all of the score, not half": "EulerMaruyama and rf and marginals",
    "g^2 without its 2": "forward_sde",
    "alpha-bar for alpha in the table": "table",
    "alpha-bar rescaled for zero SNR": "zero_terminal",
    "log-SNR for its half": "lam",
    "1 - exp for expm1": "cancels",
    "eps through x0": "float32",
    "min-SNR not converted": "min_snr",
    "t reversed in network time": "network_time",
    "t in [0, 1] for the network": "network_time",
    "t reversed on the path": "closed_forms",
    "table read one entry early": "timestep_grid",
    "one step short": "grid",
    "times broadcast over the width": "broadcasts",
    "cosine betas without their bound": "cosine_table",
    "sigmoid without its temperature": "papers",
    "learned schedule that may be flat": "no_parameters",
    "own path not checked": "no_path",
    "table's slope of the wrong cell": "by_hand",
    "table goes on flat": "by_hand",
    "exponential in sigma": "one_factor",
    "trailing without its -1": "one_step",
    "leading with steps + 1": "timesteps_are",
    "shift the wrong way": "papers",
    "shift by kappa^2": "papers",
    "shift that drops steps": "spread",
    "sign of the two-sided score": "gradient",
    "velocity without gamma'": "carries",
    "gamma for gamma^2": "add_up",
    "pairs without their weights": "density",
    "pairs in step": "gradient",
    "step ratio inverted": "2m_by_hand",
    "DDIM keeps all of eps": "eta_one",
    "DDPM's last noise kept": "no_noise",
    "SDE's last noise kept": "no_noise",
    "Heun without its average": "heun",
    "noise mutated": "inputs_stay and Euler",
    "global generator": "generator",
    "evaluations undercounted": "counted or twice",
    "memory kept between runs": "never_see or anew",
    "1 + w for w": "bit",
    "w for w - 1 in projection": "projection",
    "guidance on part of the channels": "channel",
    "branches swapped in fused": "fused",
    "interval closed below": "interval",
    "rescaling over the batch": "rescaling",
    "the parallel part kept": "project",
    "thresholding without division": "thresholding",
    "CFG++ with the main noise": "plus_plus",
    "cached difference never renewed": "cached",
    "missing c_in": "c_in",
    "label dropout per batch": "drop",
    "label kept with p": "drop",
    "coupling not optimal": "minibatch_ot",
    "target without its row": "loss",
    "rebasing without rescaling": "rebas",
    "tilted the wrong way": "tilted",
    "guided variance of the tilted density": "reference_values",
    "labels without their weights": "log_prob",
    "flow map on the wrong radius": "one_dimension",
}


class Failures:
    """A pytest plugin that remembers what failed."""

    def __init__(self):
        self.names, self.passed = [], 0

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.names.append(report.nodeid.removeprefix("tests/"))
        self.passed += report.passed

    def pytest_collectreport(self, report):
        if report.failed:
            self.names.append(report.nodeid.removeprefix("tests/"))


def warm() -> None:
    """Import what the tests need, once; nothing of ``lecture_lib`` itself, which every child imports from its copy."""
    import diffusers
    import hypothesis
    import scipy.integrate
    import scipy.optimize
    import scipy.stats
    import torch
    import torchdiffeq

    torch.set_num_threads(1)
    torch.func.jvp(lambda t: torch.sqrt(-torch.expm1(-t)), (torch.ones(2),), (torch.ones(2),))
    assert diffusers.DDIMScheduler and hypothesis and scipy and torchdiffeq


def _child(copy: Path, suites: tuple[str, ...], hint: str, most: int, answer: Connection) -> None:
    import pytest

    os.chdir(copy)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path[:0] = [str(copy), str(copy / "tests")]
    failures = Failures()
    files = [f"tests/{suite}.py" for suite in suites]
    for only in [["-k", hint]] * bool(hint) + [[]]:
        if not failures.names:
            line = ["-q", "-p", "no:cacheprovider", f"--maxfail={most}", "--tb=no", *only, *files]
            pytest.main(line, plugins=[failures])
    answer.send((failures.names, failures.passed))


def killers(mutant: Mutant, hint: str = "", *, most: int = 3) -> list[str]:
    """The first ``most`` tests that fail on the mutant, in a copy and a forked process; empty if it survives."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copytree(
            ROOT / "lecture_lib", copy / "lecture_lib", ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__", "browser"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        source = copy / mutant.file
        text = source.read_text()
        if mutant.before not in text:
            raise LookupError(f"{mutant.file} no longer contains {mutant.before!r}: bring this mutant up to date")
        source.write_text(text.replace(mutant.before, mutant.after))
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=_child, args=(copy, mutant.suites, hint, most, sender))
        child.start()
        sender.close()
        try:
            failed, passed = receiver.recv()
        except EOFError:
            raise RuntimeError("the suite did not run to its end") from None
        child.join()
    if not failed and not passed:
        raise RuntimeError("the suite ran no test")
    return failed


def main() -> int:
    """Every mutant, or those named on the command line; the exit status is the number of survivors."""
    warm()
    names = sys.argv[1:] or list(MUTANTS)
    survivors = 0
    for name in names:
        killed_by = killers(MUTANTS[name], HINTS.get(name, ""))
        survivors += not killed_by
        print(f"{'killed  ' if killed_by else 'SURVIVED'} {name}: {', '.join(killed_by)}", flush=True)
    print(f"{len(names) - survivors} of {len(names)} mutants killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
