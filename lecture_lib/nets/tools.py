"""Small things one does to a network as a whole."""

from __future__ import annotations

from torch import nn

from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention
from lecture_lib.nets.autoencoder import PixelAttention
from lecture_lib.nets.flux import SingleStreamBlock
from lecture_lib.nets.joint_attention import JointAttention
from lecture_lib.nets.spatial_transformer import CrossAttention

ATTENTION = (MultiHeadAttention, CrossAttention, PixelAttention, JointAttention, SingleStreamBlock)


def parameter_count(network: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of scalars among the parameters; frozen tables that are parameters count unless told otherwise."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable_only)


def with_kernel(network: nn.Module, kernel: AttentionKernel) -> nn.Module:
    """Give every attention layer of ``network`` another kernel, in place, and return the network.

    ``with_kernel(net, explicit_attention)`` opens a trained network to forward-mode differentiation.
    """
    for module in network.modules():
        if isinstance(
            module, MultiHeadAttention | CrossAttention | PixelAttention | JointAttention | SingleStreamBlock
        ):
            module.kernel = kernel
    return network
