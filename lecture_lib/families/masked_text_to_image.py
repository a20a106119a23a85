"""Text to image without diffusion: words become features, an empty map of tokens is filled, tokens become a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.core.conditions import Cond
from lecture_lib.families.masked import MaskedFrame, MaskedImageModel, Order, decode
from lecture_lib.nets import JointText, TokenAutoencoder, Tokenizer


class MaskedTextToImage(nn.Module):
    """A masked image model with everything it needs to go from a caption to a picture; ``TextToImage``'s rival.

    Args:
        model: on tokens, conditioned on what ``text`` says.
        autoencoder: makes the tokens, frozen.
        text: the text encoders, frozen.
        tokenizer: theirs.
    """

    def __init__(
        self, model: MaskedImageModel, autoencoder: TokenAutoencoder, text: JointText, tokenizer: Tokenizer
    ) -> None:
        super().__init__()
        self.model, self.autoencoder, self.text, self.tokenizer = model, autoencoder, text, tokenizer

    @torch.no_grad()
    def condition(self, prompts: str | Sequence[str]) -> Cond:
        """What the model is told, one row per prompt; "" is no condition.

        Raises:
            UnknownNameError: a word that the tokenizer does not know; the message suggests others.
        """
        tokens = self.tokenizer.encode([prompts] if isinstance(prompts, str) else list(prompts))
        return self.text(tokens.to(next(self.model.parameters()).device))

    def frames(
        self,
        prompts: str | Sequence[str],
        *,
        generator: torch.Generator,
        w: float = 1.75,
        steps: int = 12,
        negative: str = "",
        order: Order | None = None,
        start: Int[Tensor, " b n"] | None = None,
    ) -> Iterator[MaskedFrame]:
        """The steps of decoding, for films; ``start`` has masks where the picture is to be filled, default everywhere.

        Each step is one evaluation for w = 1 and two otherwise.
        """
        predict = self.model.guided(self.condition(prompts), w, negative=self.condition(negative))
        start = self.model.blank(1 if isinstance(prompts, str) else len(prompts)) if start is None else start
        return decode(
            torch.no_grad()(predict), start, self.model.network.mask, steps=steps, order=order, generator=generator
        )

    @torch.no_grad()
    def picture(self, frame: MaskedFrame) -> Float[Tensor, " b 3 h w"]:
        """The picture of a frame, draws that are not trusted yet included; in [-1, 1]."""
        return self.autoencoder.decode(frame.tokens).clamp(-1, 1)

    def generate(
        self, prompts: str | Sequence[str], *, generator: torch.Generator, **options: object
    ) -> Float[Tensor, " b 3 h w"]:
        """One picture per prompt; options as in ``frames``."""
        *_, end = self.frames(prompts, generator=generator, **options)
        return self.picture(end)
