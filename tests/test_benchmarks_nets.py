"""The benchmark of networks: bytes that can be counted by hand, exponents of known powers, FLOPs of the paper."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.benchmarks import nets
from lecture_lib.benchmarks.nets import gpu, memory
from lecture_lib.nets import DIT_REPORTS, DiT, LabelEmbedding, dit_network, explicit_attention, tiled_attention
from lecture_lib.tooling.benching import Measurement, save


def test_bytes_of_attention_by_hand():
    n, heads = 512, memory.HEADS
    # At most two matrices n x n at once: products and logits, then logits and probabilities.
    assert memory.extra_memory(explicit_attention, n, backward=False) == pytest.approx(2 * heads * n**2 * 4, rel=1e-3)
    # Output, one sum per query, and a few tiles of 128 x 128.
    output, tiles = heads * n * memory.WIDTH * 4, heads * 128**2 * 4
    assert output < memory.extra_memory(tiled_attention, n, backward=False) < output + 5 * tiles


def test_exponents_of_known_powers():
    tokens = memory.TOKENS
    assert memory.exponent(tokens, [10**6 + 40 * n for n in tokens]) == pytest.approx(1, abs=1e-12)
    assert memory.exponent(tokens, [7 + 3 * n**2 for n in tokens]) == pytest.approx(2, abs=1e-12)


def test_memory_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "TOKENS", (128, 256, 512))
    rows = list(memory.measure())
    exponents = {m.what: m.value for m in rows if "exponent" in m.what}
    assert exponents["explicit attention, forward: exponent"] == pytest.approx(2, abs=0.01)
    assert exponents["tiled attention, forward and backward: exponent"] <= memory.BAR
    assert all(m.within for m in rows) and len(rows) == 3 * 2 * (3 + 1)
    table, picture = save("nets", rows, tmp_path)
    assert table.stat().st_size > 500 and picture.read_bytes().startswith(b"\x89PNG")
    left, right = nets.figure(rows).axes
    for ax in (left, right):
        shown = {line.get_label(): line.get_ydata()[-1] for line in ax.lines}
        assert shown["explicit"] > shown["tiled"] and shown["explicit"] > shown["fused"]


def test_training_flops_are_three_times_the_papers():
    with torch.device("meta"):
        net = dit_network("B/4")
    assert gpu.training_flops(net) == pytest.approx(
        6e9 * DIT_REPORTS["B/4"].gflops, rel=0.01
    )  # it prints multiply-adds
    tokens, utilisation, share = gpu.rows("what", net, 100.0, "NVIDIA H100 80GB HBM3", 700e12)
    assert tokens.value == 6_400
    assert utilisation.value == pytest.approx(600e9 * 5.56 / 989e12, rel=0.01)
    assert share.value == pytest.approx(utilisation.value * 989 / 700)
    assert len(list(gpu.rows("what", net, 100.0, "another card", 700e12))) == 2


def test_a_training_step_reaches_every_weight():
    net = gpu.filled(DiT(8, 4, dim=32, depth=2, heads=2, condition=LabelEmbedding(5, 32), out_channels=8)).bfloat16()
    step = gpu.training_step(net, net, 3)
    step()
    first = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    assert all(grad.dtype == torch.bfloat16 and grad.abs().sum() > 0 for grad in first.values())
    step()  # from zero again: gradients do not pile up
    assert all(torch.equal(p.grad, first[name]) for name, p in net.named_parameters() if p.requires_grad)
    assert gpu.seconds_of(step) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the part runs where there is a GPU")
def test_without_a_gpu_it_says_so():
    (row,) = gpu.measure()
    assert "skipped" in row.what and row == Measurement(row.what, 0.0, "GiB")
