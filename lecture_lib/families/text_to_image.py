"""Text to image: words become features, noise becomes a latent, the latent becomes a picture.

caption -> tokens -> text encoders -> condition
noise   -> sampler (denoiser, guided by the condition) -> latent -> decoder -> picture
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoise, Denoiser, Path, shifted_grid, uniform_grid
from lecture_lib.core.conditions import Cond, tell
from lecture_lib.data.shapes.scenes import SIDE
from lecture_lib.families.latent import LatentSpace
from lecture_lib.guidance import Rule, fused, linear
from lecture_lib.nets import JointText, Tokenizer
from lecture_lib.samplers import ConsistencyMultistep, DPMSolverPP2M, Frame, Sampler, last, sample
from lecture_lib.tensors import check_count, check_number


class TextToImage(nn.Module):
    """A latent diffusion model with everything it needs to go from a caption to a picture.

    Args:
        denoiser: on latents, conditioned on what ``text`` says.
        space: the autoencoder, frozen.
        text: the text encoders, frozen.
        tokenizer: theirs.
    """

    def __init__(self, denoiser: Denoiser, space: LatentSpace, text: JointText, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.denoiser, self.space, self.text, self.tokenizer = denoiser, space, text, tokenizer

    @property
    def path(self) -> Path:
        """The path of the denoiser."""
        return self.denoiser.path

    @torch.no_grad()
    def condition(self, prompts: str | Sequence[str]) -> Cond:
        """What the denoiser is told: ``{"tokens", "mask", "vector"}``, one row per prompt; "" is no condition.

        Raises:
            UnknownNameError: a word that the tokenizer does not know; the message suggests others.
        """
        tokens = self.tokenizer.encode([prompts] if isinstance(prompts, str) else list(prompts))
        return self.text(tokens.to(next(self.denoiser.parameters()).device))

    def guided(self, prompts: str | Sequence[str], *, negative: str = "", rule: Rule | None = None) -> Denoise:
        """The denoiser with its prompts bound, guided away from ``negative`` (one pass over a double batch).

        ``rule`` is any rule of ``lecture_lib.guidance``; default ``linear(3.0)``.
        """
        return fused(self.denoiser, self.condition(negative), self.condition(prompts), rule or linear(3.0))

    def given(self, prompts: str | Sequence[str], **heard: float) -> Denoise:
        """The denoiser with its prompts bound, unguided: one evaluation per call.

        ``heard`` is what its network listens to besides the words, one number for all prompts: ``w=2.0`` for a latent
        consistency model.

        Raises:
            ShapeError: the network has no ear for it, or needs something that is missing.
        """
        cond = self.condition(prompts)
        told = {name: torch.full_like(cond["vector"][:, 0], check_number(name, x)) for name, x in heard.items()}
        return self.denoiser.given(tell(cond, **told))

    def noise(self, n: int, generator: torch.Generator, side: int = SIDE) -> Float[Tensor, " n k h w"]:
        """Where sampling starts: ``n`` latents of pure noise for pictures of ``side`` pixels."""
        shape = self.space.latent_shape(side, side)
        return torch.randn(check_count("n", n), *shape, generator=generator).to(next(self.denoiser.parameters()).device)

    def frames(
        self,
        denoise: Denoise,
        x_t: Float[Tensor, " n k h w"],
        *,
        steps: int = 10,
        start: float = 1.0,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Frame]:
        """The sampler's frames from time ``start * t_max`` down to 0: latents on their way, for films and stopping."""
        grid = uniform_grid(self.path, check_count("steps", steps)) * check_number("start", start, 0, 1)
        return sample(denoise, self.path, sampler or DPMSolverPP2M(), grid, x_t, generator=generator)

    @torch.no_grad()
    def picture(self, frames: Iterator[Frame]) -> Float[Tensor, " n 3 h w"]:
        """The last frame, decoded; in [-1, 1]."""
        return self.space.decode(last(frames)).clamp(-1, 1)

    @torch.inference_mode()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        generator: torch.Generator,
        steps: int = 10,
        negative: str = "",
        rule: Rule | None = None,
        sampler: Sampler | None = None,
    ) -> Float[Tensor, " n 3 32 32"]:
        """One picture per prompt; 2 ``steps`` evaluations each."""
        denoise = self.guided(prompts, negative=negative, rule=rule)
        n = 1 if isinstance(prompts, str) else len(prompts)
        x_t = self.noise(n, generator)
        return self.picture(self.frames(denoise, x_t, steps=steps, sampler=sampler, generator=generator))

    @torch.inference_mode()
    def jump(
        self,
        prompts: str | Sequence[str],
        *,
        generator: torch.Generator,
        steps: int = 4,
        kappa: float = 1.0,
        **heard: float,
    ) -> Float[Tensor, " n 3 32 32"]:
        """One picture per prompt from a few-step student: ``steps`` evaluations each, no second pass.

        Each step jumps to the data, and all but the last go back part of the way with fresh noise. In one jump a plain
        denoiser gives blurred means; the more jumps, the less is left for a student to be better at.

        Args:
            kappa: noise levels where jumps start, over those of equal steps; below 1 more of them are near the data.
            heard: as in ``given``: a latent consistency model hears ``w``, one made by an adapter hears words alone.
        """
        n = 1 if isinstance(prompts, str) else len(prompts)
        denoise, x_t = self.given(prompts, **heard), self.noise(n, generator)
        grid = shifted_grid(self.path, uniform_grid(self.path, steps), kappa)
        return self.picture(sample(denoise, self.path, ConsistencyMultistep(), grid, x_t, generator=generator))
