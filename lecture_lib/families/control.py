"""Text to image under a hint: a model and the branch of a ControlNet become a model like any other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoiser
from lecture_lib.core.conditions import Cond, drop_condition
from lecture_lib.core.times import Times
from lecture_lib.errors import ShapeError
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.nets import ControlledUNet, ControlNet


class Hinted(nn.Module):
    """A controlled network with its hint bound, called as the network without: (x, t, cond).

    Guidance evaluates all its branches in one batch; each of them sees the same hint, so that guidance is about the
    words alone.

    Args:
        network: takes ``cond["hint"]``.
        hint: one per sample, or one for all.
    """

    def __init__(self, network: ControlledUNet, hint: Float[Tensor, " b c h w"]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("hint", hint, persistent=False)

    def forward(
        self, x: Float[Tensor, " m k h w"], t: Float[Tensor, " m"], cond: Mapping[str, Tensor]
    ) -> Float[Tensor, " m k h w"]:
        branches, rest = divmod(len(x), len(self.hint))
        if rest:
            raise ShapeError(f"hint: got {len(self.hint)} hints for a batch of {len(x)}, expected one per sample or 1")
        return self.network(x, t, {**cond, "hint": self.hint.repeat(branches, 1, 1, 1)})


def on_path_of(denoiser: Denoiser, network: nn.Module, null: Cond | None) -> Denoiser:
    """``network`` in the place of the network of ``denoiser``."""
    return Denoiser(
        network,
        denoiser.path,
        denoiser.parameterization,
        null=null,
        network_time=denoiser.network_time,
        input_scale=denoiser.input_scale,
    )


def controlled(
    model: TextToImage, branch: ControlNet, hint: Float[Tensor, " b c h w"], *, strength: float = 1.0
) -> TextToImage:
    """The text-to-image model that obeys ``hint``: to be prompted, guided and edited like the one without.

    Args:
        model: whose U-Net the branch was trained for; frozen in place.
        branch: trained.
        hint: one per picture to be made, or one for all.
        strength: factor on what the branch says; 0 is ``model`` itself.
    """
    network = Hinted(ControlledUNet(model.denoiser.network, branch, strength=strength), hint)
    denoiser = on_path_of(model.denoiser, network, model.denoiser.null)
    return TextToImage(denoiser, model.space, model.text, model.tokenizer)


def control_loss(
    branch: ControlNet,
    denoiser: Denoiser,
    latents: Float[Tensor, " b k h w"],
    cond: Cond,
    hint: Float[Tensor, " b c h w"],
    *,
    times: Times,
    p_uncond: float = 0.5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """The denoiser's own loss, with the branch attached and half of the captions dropped, but no hint.

    Without words the branch has to read the hint by itself. Source: Zhang et al. 2023, section 3.3.

    Args:
        branch: is trained.
        denoiser: of the model that is controlled; frozen.
        latents, cond, hint: what to draw, what is told, what is shown.
        times: when.
        p_uncond: share of captions dropped.
    """
    cond = drop_condition(cond, denoiser.null, p_uncond, generator)
    network = ControlledUNet(denoiser.network, branch)
    null = denoiser.null | {"hint": torch.zeros_like(hint[0])}
    return on_path_of(denoiser, network, null).loss(latents, cond | {"hint": hint}, times=times, generator=generator)
