"""Pictures from pictures: image to image, inpainting, and what lies between two captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lecture_lib.core import Denoise, Prediction
from lecture_lib.core.conditions import Cond
from lecture_lib.errors import ShapeError
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.guidance import Rule
from lecture_lib.samplers import Sampler
from lecture_lib.tensors import check_count, check_number, randn_like


@torch.inference_mode()
def image_to_image(
    model: TextToImage,
    images: Float[Tensor, " n 3 h w"],
    prompts: str | Sequence[str],
    *,
    strength: float,
    generator: torch.Generator,
    steps: int = 10,
    rule: Rule | None = None,
    sampler: Sampler | None = None,
) -> Float[Tensor, " n 3 h w"]:
    """Forget a picture as far as time ``strength``, then denoise it under another caption (SDEdit).

    ``strength`` 0 gives the picture back (through the autoencoder), 1 forgets it wholly; only the last
    ``strength * steps`` of the steps are made.

    Raises:
        RangeError: strength outside [0, 1], steps < 1.

    Source: Meng et al. 2022 (arXiv 2108.01073), Algorithm 1.
    """
    t, steps = check_number("strength", strength, 0, 1) * model.path.t_max, check_count("steps", steps)
    z = model.space.encode(images)
    if t == 0:
        return model.space.decode(z).clamp(-1, 1)
    z_t = model.path.mix(z, randn_like(z, generator), torch.full((len(z),), t, dtype=torch.float64, device=z.device))
    options = {"steps": max(1, round(strength * steps)), "start": strength, "sampler": sampler, "generator": generator}
    return model.picture(model.frames(model.guided(prompts, rule=rule), z_t, **options))


def keep_known(denoise: Denoise, known: Float[Tensor, " n k h w"], paint: Bool[Tensor, " n 1 h w"]) -> Denoise:
    """The denoiser that already knows x0 where there is nothing to ``paint``.

    Its x0 is replaced there, and its eps follows, so that every sampler leads these places to ``known`` exactly, and
    the others see them on their way at the right noise level.
    """
    if paint.dtype != torch.bool or paint.shape != (len(known), 1, *known.shape[2:]):
        raise ShapeError(
            f"paint: got {paint.dtype} {tuple(paint.shape)}, expected bool {(len(known), 1, *known.shape[2:])}"
        )

    def informed(x_t: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x_t, t)
        return prediction.with_x0(torch.where(paint, prediction.x0, known))

    return informed


@torch.inference_mode()
def inpaint(
    model: TextToImage,
    images: Float[Tensor, " n 3 h w"],
    paint: Bool[Tensor, " n 1 h w"],
    prompts: str | Sequence[str],
    *,
    generator: torch.Generator,
    steps: int = 10,
    rule: Rule | None = None,
    sampler: Sampler | None = None,
) -> Float[Tensor, " n 3 h w"]:
    """New content where ``paint`` is True, as the caption of the *whole* picture says; the rest keeps its pixels.

    A latent is painted anew if any of its f x f pixels is. The method replaces x0 in every step (in the spirit of Song
    et al. 2021, appendix I, and Lugmayr et al. 2022, without resampling); no network was trained for it.

    Raises:
        ShapeError: paint is not bool of shape (n, 1, h, w).
    """
    if paint.dtype != torch.bool or paint.shape != (len(images), 1, *images.shape[2:]):
        raise ShapeError(
            f"paint: got {paint.dtype} {tuple(paint.shape)}, expected bool {(len(images), 1, *images.shape[2:])}"
        )
    known = model.space.encode(images)
    coarse = F.max_pool2d(paint.float(), model.space.autoencoder.factor) > 0
    denoise = keep_known(model.guided(prompts, rule=rule), known, coarse)
    noise = torch.randn(known.shape, generator=generator).to(known)
    painted = model.picture(model.frames(denoise, noise, steps=steps, sampler=sampler, generator=generator))
    return torch.where(paint, painted, images)


def between(first: Cond, second: Cond, share: float | Float[Tensor, " n"]) -> Cond:
    """The features of two captions with equally many words, mixed: share 0 is the first, 1 the second.

    Args:
        first, second: conditions of ``TextToImage.condition``.
        share: one number, or one per sample.

    Raises:
        ShapeError: the captions differ in their number of words: their tokens do not correspond.
    """
    if not torch.equal(first["mask"], second["mask"]):
        words = [int(cond["mask"].sum(-1).max()) - 2 for cond in (first, second)]
        raise ShapeError(f"first, second: got captions of {words[0]} and {words[1]} words, expected equally many")
    share = torch.as_tensor(share, dtype=torch.float32).reshape(-1)
    return {
        "tokens": torch.lerp(first["tokens"], second["tokens"], share[:, None, None]),
        "mask": first["mask"].expand(len(share), -1) if len(first["mask"]) == 1 else first["mask"],
        "vector": torch.lerp(first["vector"], second["vector"], share[:, None]),
    }
