"""Small things one does to a network as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention
from lecture_lib.nets.autoencoder import PixelAttention
from lecture_lib.nets.flux import SingleStreamBlock
from lecture_lib.nets.joint_attention import JointAttention
from lecture_lib.nets.spatial_transformer import CrossAttention

ATTENTION = (MultiHeadAttention, CrossAttention, PixelAttention, JointAttention, SingleStreamBlock)


def parameter_count(network: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of scalars among the parameters; frozen tables that are parameters count unless told otherwise."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable_only)


def multiply_adds(network: nn.Module, *inputs: object) -> int:
    """Multiply-adds of one call ``network(*inputs)``: matrix products, convolutions and attention, nothing else.

    Half the operations that torch's counter sees. Many papers call these "flops" (those of ResNet, of vision
    transformers and of DiT do), others count both the product and the sum; a table says which only if one recomputes a
    row. Networks and inputs on the meta device are counted without being computed.
    """
    # Of attention torch counts the matrix products, and it knows nothing of the fused kernel of CPUs.
    with FlopCounterMode(display=False) as counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        network(*inputs)
    return counter.get_total_flops() // 2


def with_kernel(network: nn.Module, kernel: AttentionKernel) -> nn.Module:
    """Give every attention layer of ``network`` another kernel, in place, and return the network.

    ``with_kernel(net, explicit_attention)`` opens a trained network to forward-mode differentiation.
    """
    for module in network.modules():
        if isinstance(module, ATTENTION):
            module.kernel = kernel
    return network


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes of CPU memory that ``call`` needs at its peak, on top of what was there before: results and scratch.

    Counted from the allocator's own log, so that what fused kernels allocate inside counts too.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes to stderr where it starts and stops
    with profile(profile_memory=True) as log:
        call()
    changes = [event for event in log.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate((e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns())), initial=0))
