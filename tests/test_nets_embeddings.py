"""Embeddings against diffusers and against hand numbers."""

from __future__ import annotations

import math

import pytest
import torch

from lecture_lib.errors import CourseError, RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import LabelAndScale, LabelEmbedding, TimestepEmbedding, timestep_features


def test_timestep_features_equal_diffusers():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.tensor([0.0, 1.0, 17.5, 999.0])
    theirs = embeddings.get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.allclose(timestep_features(t, 256), theirs, atol=2e-4)  # float32 phases up to 1000 rad
    assert torch.allclose(timestep_features(t[:3], 64), theirs_64(embeddings, t[:3]), atol=1e-5)


def theirs_64(embeddings, t):
    return embeddings.get_timestep_embedding(t, 64, flip_sin_to_cos=True, downscale_freq_shift=0)


def test_timestep_features_by_hand():
    got = timestep_features(torch.tensor([3.0], dtype=torch.float64), 4)
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert torch.allclose(got, torch.tensor([expected], dtype=torch.float64), atol=1e-12)


def test_half_precision_times_keep_their_phase():
    t = torch.tensor([511.0], dtype=torch.float16)  # exact in float16, its phases are not
    assert torch.allclose(timestep_features(t), timestep_features(t.float()), atol=1e-6)


def test_network_times_differ_clearly_where_unit_times_would_not():
    far = timestep_features(torch.tensor([100.0, 900.0]))
    near = timestep_features(torch.tensor([0.1, 0.9]))
    assert (far[0] - far[1]).norm() > 4 * (near[0] - near[1]).norm()


@pytest.mark.parametrize(("t", "dim"), [(torch.zeros(2, 1), 8), (torch.tensor(1.0), 8), (torch.zeros(2), 7)])
def test_timestep_features_refuse_other_shapes(t, dim):
    with pytest.raises(ShapeError):
        timestep_features(t, dim)


def test_label_embedding_null_and_errors():
    label = LabelEmbedding(10, 6)
    assert label.table.weight.shape == (11, 6)
    null = label(None, 3)
    assert torch.equal(null, label(torch.full((3,), 10), 3))
    assert not torch.equal(null, label(torch.tensor([0, 1, 2]), 3))
    for wrong in (torch.tensor([11]), torch.tensor([-1])):
        with pytest.raises(RangeError, match=r"0\.\.10"):
            label(wrong, 1)
    for wrong in (torch.tensor([1, 2]), torch.tensor([1.0]), torch.tensor(1), torch.tensor([True]), 1, [1]):
        with pytest.raises(ShapeError, match="integer labels"):
            label(wrong, 1)
    assert torch.equal(label(torch.tensor([3], dtype=torch.uint8), 1), label(torch.tensor([3]), 1))


def test_label_and_scale_defaults_and_sum():
    both = LabelAndScale(10, 8)
    labels, w = torch.tensor([3, 7]), torch.tensor([1.5, 4.0])
    assert torch.allclose(both({"label": labels, "w": w}, 2), both.label(labels, 2) + both.scale(w))
    assert torch.equal(both(None, 2), both({"label": torch.tensor([10, 10]), "w": torch.ones(2)}, 2))
    assert issubclass(RangeError, CourseError)


def test_timestep_embedding_follows_the_dtype_of_its_weights():
    assert TimestepEmbedding(8)(torch.tensor([5.0], dtype=torch.float64)).dtype == torch.float32
    assert TimestepEmbedding(8).double()(torch.tensor([5.0])).dtype == torch.float64


def test_label_and_scale_hear_nothing_else():
    both = LabelAndScale(10, 8)
    with pytest.raises(UnknownNameError, match="'scale'"):
        both({"label": torch.tensor([1]), "scale": torch.tensor([3.0])}, 1)
    with pytest.raises(ShapeError, match="cond"):
        both(torch.tensor([1]), 1)
    with pytest.raises(ShapeError, match="cond\\['w'\\]"):
        both({"w": torch.tensor([3.0])}, 2)
