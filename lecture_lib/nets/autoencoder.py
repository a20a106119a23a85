"""Autoencoders: images to small maps of latents and back, after the first stage of Stable Diffusion.

Every level of the encoder halves the side of its map, so that f = 2^(levels - 1) is the ratio of the sides H/h; the
number of pixels falls by f^2. Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.1 and appendix G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.tensors import randn_like

EPS = 1e-6  # of the group norms


class PlainResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))): no time, no condition; a 1x1 convolution where the width changes."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b k h w"]:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(hidden)))


class PixelAttention(nn.Module):
    """Self-attention of one head among all places of a map, with a residual connection."""

    def __init__(self, channels: int, groups: int, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)
        self.kernel = kernel

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # (b, 1 head, h*w, c)
        mixed = self.out(self.kernel(self.q(tokens), self.k(tokens), self.v(tokens)))
        return x + mixed[:, 0].transpose(1, 2).reshape(x.shape)


class Shrink(nn.Module):
    """Half the side: a 3x3 convolution with stride 2, padded at the right and the bottom only, as in the original."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h/2 w/2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Grow(nn.Module):
    """Twice the side: every pixel becomes four, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c 2*h 2*w"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int, groups: int) -> nn.Sequential:
    first, last = (PlainResBlock(channels, channels, groups) for _ in range(2))
    return nn.Sequential(first, PixelAttention(channels, groups), last)


class Encoder(nn.Module):
    """Images (b, in_channels, h, w) to maps (b, out_channels, h/f, w/f); each level: ``blocks`` blocks, then Shrink."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        self.in_channels, self.factor = in_channels, 2 ** (len(widths) - 1)
        self.enter = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for i, (before, width) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers = [PlainResBlock(before if j == 0 else width, width, groups) for j in range(blocks)]
            self.levels.append(nn.Sequential(*layers, *([Shrink(width)] if i < len(widths) - 1 else [])))
        self.middle = _middle(widths[-1], groups)
        self.norm = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.leave = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b k h/f w/f"]:
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            expected = f"(b, {self.in_channels}, h, w) with h and w multiples of {self.factor}"
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected {expected}")
        x = self.enter(x)
        for level in self.levels:
            x = level(x)
        return self.leave(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """Maps (b, in_channels, h, w) to images (b, out_channels, f h, f w): encoder reversed, one more block a level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in reversed(multipliers)]
        self.in_channels = in_channels
        self.enter = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.middle = _middle(widths[0], groups)
        self.levels = nn.ModuleList()
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            layers = [PlainResBlock(before if j == 0 else width, width, groups) for j in range(blocks + 1)]
            self.levels.append(nn.Sequential(*layers, *([Grow(width)] if i < len(widths) - 1 else [])))
        self.norm = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.leave = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, z: Float[Tensor, " b k h w"]) -> Float[Tensor, " b c f*h f*w"]:
        if z.ndim != 4 or z.shape[1] != self.in_channels:
            raise ShapeError(f"z: got shape {tuple(z.shape)}, expected (b, {self.in_channels}, h, w)")
        z = self.middle(self.enter(z))
        for level in self.levels:
            z = level(z)
        return self.leave(F.silu(self.norm(z)))


def kl_to_standard_normal(mean: Float[Tensor, " b *d"], logvar: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``KL(N(mean, e^logvar) || N(0, I)) = 1/2 sum (mean^2 + e^logvar - 1 - logvar)``, summed over the latent.

    Raises:
        ShapeError: mean and logvar differ in shape.

    Source: Kingma & Welling 2014, appendix B.
    """
    if mean.shape != logvar.shape:
        raise ShapeError(f"logvar: got shape {tuple(logvar.shape)}, expected that of mean, {tuple(mean.shape)}")
    return (mean.square() + torch.expm1(logvar) - logvar).flatten(1).sum(1) / 2


@dataclass(frozen=True)
class Posterior:
    """q(z|x), a Gaussian with independent components: where the encoder believes the latent to be.

    Attributes:
        mean, logvar: (b, k, h, w); the logarithm of the variance is kept within -30..20.
    """

    mean: Float[Tensor, " b k h w"]
    logvar: Float[Tensor, " b k h w"]

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, " b k h w"]:
        """mean + std xi: a draw through which gradients flow (Kingma & Welling 2013, section 2.4)."""
        return self.mean + (self.logvar / 2).exp() * randn_like(self.mean, generator)

    def mode(self) -> Float[Tensor, " b k h w"]:
        """The most likely latent."""
        return self.mean

    def kl(self) -> Float[Tensor, " b"]:
        """KL(q(z|x) | N(0, I)) in nats, summed over all components."""
        return kl_to_standard_normal(self.mean, self.logvar)


class KLAutoencoder(nn.Module):
    """A variational autoencoder with a map of latents.

    The defaults are those of Stable Diffusion 1.x (f = 8, 83,653,863 parameters).

    Args:
        in_channels: of the images.
        latent_channels: k, of the latents.
        channels, multipliers: widths of the levels, finest first.
        blocks: residual blocks per level of the encoder (the decoder has one more).
        groups: of the group norms; every width must be a multiple.
    """

    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 4,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        groups: int = 32,
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "multipliers": multipliers, "blocks": blocks, "groups": groups}
        self.encoder = Encoder(in_channels, 2 * latent_channels, **sizes)
        self.moments = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.unmix = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = Decoder(latent_channels, in_channels, **sizes)

    @property
    def factor(self) -> int:
        """f, the ratio of the sides of image and latent."""
        return self.encoder.factor

    def encode(self, x: Float[Tensor, " b c h w"]) -> Posterior:
        """The posterior of each image."""
        mean, logvar = self.moments(self.encoder(x)).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, z: Float[Tensor, " b k h w"]) -> Float[Tensor, " b c f*h f*w"]:
        """The image of each latent."""
        return self.decoder(self.unmix(z))

    def forward(
        self, x: Float[Tensor, " b c h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " b c h w"], Posterior]:
        """A reconstruction from a sampled latent, and the posterior that it was drawn from: what a loss needs."""
        posterior = self.encode(x)
        return self.decode(posterior.sample(generator)), posterior
