"""The benchmark of training throughput races two networks of one shape, and says so in numbers that fit together."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.benchmarks.nets import throughput
from lecture_lib.nets import dit_from_diffusers, parameter_count


def test_both_networks_are_the_same_but_for_their_constants():
    """Each holds the other's weights; diffusers keeps the embedding of time and label once more per block."""
    ours, theirs = throughput.networks()
    embedding = theirs.transformer_blocks[0].norm1.emb
    copies = (throughput.DEPTH - 1) * parameter_count(embedding)
    assert parameter_count(theirs) - copies == parameter_count(ours, trainable_only=True)
    for block in theirs.transformer_blocks:
        block.norm1.emb = embedding
    for p in theirs.parameters():  # else both answer zero
        p.data.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    dit_from_diffusers(ours, theirs.state_dict())
    embedding.time_proj.downscale_freq_shift = 0
    x, t, labels = throughput.batch()
    with torch.no_grad():
        expected = theirs(x, timestep=t, class_labels=labels).sample
        assert expected.std() > 0.01
        # The second norm's epsilon differs, 1e-5 for 1e-6, against a variance of tokens of about 0.5.
        assert (ours(x, t, labels) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_rows_fit_together(monkeypatch):
    monkeypatch.setattr(throughput, "REPEATS", 3)
    monkeypatch.setattr(throughput, "STEPS", 1)
    ours, theirs, ratio, spread, share = (m.value for m in throughput.measure())
    assert theirs / ours == pytest.approx(ratio, rel=0.5)  # a ratio of medians, and a median of ratios
    assert spread >= 0
    assert 0.05 < share < 1
