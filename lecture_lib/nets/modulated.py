"""What StyleGAN is made of: layers with equalised rates, the mapping network, the modulated convolution."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count, check_number


class EqualLinear(nn.Module):
    """``(r/sqrt(n)) W x + r b`` with W drawn from N(0, 1/r^2): the scale of the layer's start, applied at run time.

    Adam moves every weight by about its rate, however large the weight is; written like this, all layers move equally
    fast relative to their size, and one with r = 0.01 a hundred times slower than the others.

    Args:
        inputs, outputs: lengths; n is ``inputs``.
        rate: r.
        bias: what ``r b`` starts at.

    Source: Karras et al. 2018 (1710.10196), section 4.1; the rate of 0.01: Karras et al. 2019 (1812.04948), appendix C.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.rate = check_number("rate", rate, 1e-9)
        self.weight = nn.Parameter(torch.randn(check_count("outputs", outputs), check_count("inputs", inputs)) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))

    def forward(self, x: Float[Tensor, " b n"]) -> Float[Tensor, " b m"]:
        return F.linear(x, self.weight * (self.rate / math.sqrt(x.shape[1])), self.bias * self.rate)


def unit_square(z: Float[Tensor, " b d"]) -> Float[Tensor, " b d"]:
    """``z sqrt(d)/|z|``: on the sphere on which nearly all of N(0, I) lies anyway."""
    return z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def lifted(x: Tensor) -> Tensor:
    """Leaky ReLU times sqrt(2): of about the same mean square as x."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class MappingNetwork(nn.Module):
    """``z -> w``: normalise, then ``depth`` slow layers; styles need not be normally distributed, z must be.

    Args:
        latent: length of z.
        dim: length of w.
        depth: layers.
        n_classes: number of classes, 0 for none; a label's vector is normalised and appended to z.
        rate: of these layers, relative to the rest of the generator.

    Source: Karras et al. 2019 (1812.04948), section 2; labels as in Karras et al. 2020 (2006.06676).
    """

    def __init__(
        self, latent: int = 32, dim: int = 32, *, depth: int = 8, n_classes: int = 0, rate: float = 0.01
    ) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, latent) if check_count("n_classes", n_classes, 0) else None
        inputs = 2 * latent if n_classes else latent
        widths = [inputs, *[dim] * check_count("depth", depth)]
        self.layers = nn.ModuleList(EqualLinear(a, b, rate=rate) for a, b in pairwise(widths))

    def forward(self, z: Float[Tensor, " b l"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b w"]:
        w = unit_square(z)
        if self.label is not None:
            w = torch.cat([w, unit_square(self.label(cond, len(z)))], dim=1)
        for layer in self.layers:
            w = lifted(layer(w))
        return w


def modulated_conv(
    x: Float[Tensor, " b i h w"],
    weight: Float[Tensor, " o i k k"],
    style: Float[Tensor, " b i"],
    *,
    demodulate: bool = True,
) -> Float[Tensor, " b o h w"]:
    """A convolution whose weights differ from sample to sample: ``w'_oikl = s_i w_oikl``.

    Demodulated, each output filter is divided by ``sqrt(sum_ikl w'^2 + 1e-8)``: inputs of independent entries with
    variance 1 give outputs of variance 1 whatever the style, and no statistics of the data are needed for it.

    Args:
        x: the maps.
        weight: one for all samples, odd k; the maps keep their size.
        style: of each sample, one factor per input channel.
        demodulate: False for the layer that paints, whose output *is* the statistics.

    Source: Karras et al. 2020 (1912.04958), eq. 1 and 3.
    """
    b, _, h, w = x.shape
    weights = weight * style[:, None, :, None, None]  # (b, o, i, k, k)
    if demodulate:
        weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    # One group per sample: a grouped convolution over b * i channels is b convolutions at once.
    y = F.conv2d(x.reshape(1, -1, h, w), weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=b)
    return y.reshape(b, -1, h, w)


class ModulatedConv(nn.Module):
    """``modulated_conv`` with its weights, and the affine map from w to the style of its inputs, which starts at 1.

    Args:
        inputs, outputs: channels.
        size: side of the kernel, odd.
        dim: length of w.
        demodulate: whether outputs are brought to variance 1.
    """

    def __init__(self, inputs: int, outputs: int, size: int, dim: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.style = EqualLinear(dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = 1 / math.sqrt(inputs * size**2)  # the rate is equalised here as in EqualLinear

    def forward(self, x: Float[Tensor, " b i h w"], w: Float[Tensor, " b d"]) -> Float[Tensor, " b o h w"]:
        return modulated_conv(x, self.weight * self.scale, self.style(w), demodulate=self.demodulate)
