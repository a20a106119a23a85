"""Embeddings against diffusers and against hand numbers."""

from __future__ import annotations

import math

import pytest
import torch

from lecture_lib.errors import CourseError, RangeError, ShapeError
from lecture_lib.nets import LabelAndScale, LabelEmbedding, TimestepEmbedding, positions_2d, timestep_features


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


def test_positions_equal_diffusers_up_to_the_order_of_the_axes():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_2d_sincos_pos_embed(32, 4, base_size=4, output_type="pt").float()
    rows_last = torch.cat([theirs[:, 16:], theirs[:, :16]], dim=1)  # diffusers puts the columns first
    assert torch.allclose(positions_2d(4, 4, 32), rows_last, atol=1e-6)


def test_positions_laws():
    table = positions_2d(16, 16, 768)
    assert torch.allclose(table.square().sum(1), torch.full((256,), 384.0), atol=1e-3)  # constant norm D/2
    distance = torch.cdist(table.double(), table.double()).square().fill_diagonal_(1e9)
    assert distance.min() == pytest.approx(10.46, abs=0.01)  # FORMULAS T2
    gram = (table @ table.T).reshape(16, 16, 16, 16)
    assert gram[1, 2, 4, 7] == pytest.approx(float(gram[5, 6, 8, 11]), abs=1e-3)  # displacement alone matters
    with pytest.raises(ShapeError):
        positions_2d(2, 2, 6)


def test_positions_tell_rows_from_columns():
    table = positions_2d(2, 3, 8)  # token 3 is (1, 0), token 1 is (0, 1)
    assert torch.equal(table[3, 4:], table[0, 4:]) and torch.equal(table[1, :4], table[0, :4])
    assert not torch.allclose(table[3, :4], table[0, :4])


def test_label_embedding_null_and_errors():
    label = LabelEmbedding(10, 6)
    assert label.table.weight.shape == (11, 6)
    null = label(None, 3)
    assert torch.equal(null, label(torch.full((3,), 10), 3))
    assert not torch.equal(null, label(torch.tensor([0, 1, 2]), 3))
    for wrong in (torch.tensor([11]), torch.tensor([-1])):
        with pytest.raises(RangeError, match=r"0\.\.10"):
            label(wrong, 1)
    for wrong in (torch.tensor([1, 2]), torch.tensor([1.0]), torch.tensor(1)):
        with pytest.raises(ShapeError):
            label(wrong, 1)


def test_label_and_scale_defaults_and_sum():
    both = LabelAndScale(10, 8)
    labels, w = torch.tensor([3, 7]), torch.tensor([1.5, 4.0])
    assert torch.allclose(both({"label": labels, "w": w}, 2), both.label(labels, 2) + both.scale(w))
    assert torch.equal(both(None, 2), both({"label": torch.tensor([10, 10]), "w": torch.ones(2)}, 2))
    assert issubclass(RangeError, CourseError)


def test_timestep_embedding_follows_the_dtype_of_its_weights():
    assert TimestepEmbedding(8)(torch.tensor([5.0], dtype=torch.float64)).dtype == torch.float32
    assert TimestepEmbedding(8).double()(torch.tensor([5.0])).dtype == torch.float64
