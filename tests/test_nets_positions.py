"""Positions against diffusers and closed forms; the relative-position law of rotary embeddings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import (
    AxialRotary,
    LearnedPositions,
    MultiHeadAttention,
    QKNorm,
    cropped_positions,
    explicit_attention,
    grid_positions,
    joint_positions,
    positions_1d,
    positions_2d,
    rotary_angles,
    rotate,
)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_sin_cos_tables_equal_diffusers():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    places = torch.tensor([0.0, 1.0, 2.5, 191.0])
    theirs = embeddings.get_1d_sincos_pos_embed_from_grid(48, places, output_type="pt", dtype=torch.float64)
    assert torch.allclose(positions_1d(places, 48), theirs.float(), atol=1e-6)
    theirs = embeddings.get_2d_sincos_pos_embed(32, (3, 5), base_size=1, output_type="pt", device="cpu").float()
    # base_size=1: the side of diffusers' grid is the unit, so that its neighbours are 1/3 (rows) and 1/5 apart.
    rows, columns = positions_2d(3, 5, 32, spacing=1 / 3)[:, :16], positions_2d(3, 5, 32, spacing=1 / 5)[:, 16:]
    assert torch.allclose(torch.cat([columns, rows], dim=1), theirs, atol=1e-6)  # theirs has the columns first


def test_sin_cos_by_hand():
    got = positions_1d(torch.tensor([3.0]), 4)  # frequencies 1 and 10000^(-1/2) = 0.01
    assert torch.allclose(got, torch.tensor([[math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]]), atol=1e-7)


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
    with pytest.raises(ShapeError, match="multiple of 4"):
        positions_2d(2, 2, 6)


def test_positions_tell_rows_from_columns():
    table = positions_2d(2, 3, 8)  # token 3 is (1, 0), token 1 is (0, 1)
    assert torch.equal(table[3, 4:], table[0, 4:]) and torch.equal(table[1, :4], table[0, :4])
    assert not torch.allclose(table[3, :4], table[0, :4])


def test_cropped_positions_equal_those_of_stable_diffusion_3():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.PatchEmbed(
        height=16, width=16, patch_size=2, in_channels=4, embed_dim=32, pos_embed_max_size=24
    )
    mine = positions_2d(24, 24, 32, spacing=8 / 24)  # PatchEmbed's unit: its 8 x 8 base grid over 24 table rows
    mine = torch.cat([mine[:, 16:], mine[:, :16]], dim=1)  # theirs has the columns first
    for height, width in ((8, 8), (5, 10), (24, 24), (1, 3)):
        cropped = theirs.cropped_pos_embed(2 * height, 2 * width)[0]
        assert torch.allclose(cropped_positions(mine, height, width), cropped, atol=1e-6)


def test_cropped_positions_refuse_what_does_not_fit():
    table = positions_2d(4, 4, 8)
    with pytest.raises(RangeError, match="width: got 5, expected at most 4"):
        cropped_positions(table, 4, 5)
    with pytest.raises(ShapeError, match="square grid"):
        cropped_positions(table[:12], 2, 2)


def test_learned_positions_resample_smoothly():
    learned = LearnedPositions(4, 6, 8)
    assert learned(4, 6) is learned.table
    columns = grid_positions(4, 6)[:, 1].float()
    learned.table.data[:] = columns[:, None]  # a ramp along the columns
    finer = learned(8, 12).reshape(8, 12, 8)
    ramp = (torch.arange(12) + 0.5) / 2 - 0.5  # where the finer columns' centres lie among the coarse ones
    # Bicubic interpolation keeps linear functions; at the border, where it repeats the edge, it cannot.
    assert torch.allclose(finer[:, 3:-3], ramp[3:-3, None].expand(8, 6, 8), atol=1e-5)
    learned(8, 12).sum().backward()
    assert learned.table.grad is not None and learned.table.grad.abs().sum() > 0


def test_rotary_equals_flux_in_diffusers():
    flux = pytest.importorskip("diffusers.models.transformers.transformer_flux")
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    places = joint_positions(5, 6, 9)
    assert places.tolist() == [[0, 0, 0]] * 5 + [[0, row, column] for row in range(6) for column in range(9)]
    cos, sin = flux.FluxPosEmbed(theta=10_000, axes_dim=[16, 56, 56])(places)
    x = randn(2, 3, 59, 128)
    theirs = embeddings.apply_rotary_emb(x, (cos, sin))
    assert (rotate(x, AxialRotary((16, 56, 56))(places)) - theirs).abs().max() <= 1e-6


def test_rotation_by_hand():
    angles = rotary_angles(torch.tensor([2.0]), 4)  # clocks 1 and 0.01: angles 2 and 0.02
    got = rotate(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), angles)
    assert torch.allclose(got, torch.tensor([[math.cos(2), math.sin(2), -math.sin(0.02), math.cos(0.02)]]), atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shift", [(5, 0), (0, 9), (40, 13)])
def test_rotary_scores_depend_on_displacement_alone(dtype, tolerance, shift):
    rotary, places = AxialRotary((32, 32)), grid_positions(4, 5)
    q, k = (F.normalize(randn(20, 64, seed=s, dtype=dtype), dim=-1) for s in (1, 2))  # scores within -1..1

    def scores(at):
        return rotate(q, rotary(at)) @ rotate(k, rotary(at)).T

    assert (scores(places) - scores(places + torch.tensor(shift))).abs().max() <= tolerance
    # Each axis counts, and so does the sign of the displacement.
    one = [rotate(q[:1], rotary(torch.tensor([[0, 0]]))) @ rotate(k[:1], rotary(torch.tensor([p]))).T
           for p in ([0, 3], [3, 0], [0, -3])]  # fmt: skip
    assert min((one[0] - other).abs() for other in one[1:]) > 0.01


def test_rotation_keeps_lengths_and_text_does_not_turn():
    angles = AxialRotary((8, 12, 12))(joint_positions(3, 4, 4))
    x = randn(2, 19, 32)
    turned = rotate(x, angles)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[:, :3], x[:, :3]) and not torch.allclose(turned[:, 4:], x[:, 4:], atol=0.1)
    assert torch.equal(turned[..., :8], x[..., :8])  # the first axis is 0 for every token


def test_clocks_of_an_axis_are_those_of_its_own_width():
    """MISTAKES A77: with 64 of 128 channels the slowest clock is 1.33e-4, not 1.8e-8."""
    angles = AxialRotary((64, 64))(torch.tensor([[0, 1]]))[0]
    assert torch.equal(angles[:32], torch.zeros(32, dtype=torch.float64)) and angles[32] == 1
    assert angles[-1] == pytest.approx(1.33e-4, rel=0.01)


def test_half_precision_is_turned_in_float32():
    angles = AxialRotary((8, 8))(grid_positions(8, 8) + 100)
    x = randn(1, 64, 16).bfloat16()
    turned = rotate(x, angles)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), angles).bfloat16())


def test_attention_turns_queries_and_keys_after_their_normalisation():
    layer = MultiHeadAttention(32, 2, kernel=explicit_attention, qk_norm=QKNorm(16))
    for gain in (layer.qk_norm.q_gain, layer.qk_norm.k_gain):
        gain.data = 1 + 0.5 * randn(16, seed=3)  # turning and this gain do not commute
    x, angles = randn(2, 12, 32), AxialRotary((8, 8))(grid_positions(3, 4))
    q, k, v = (part.unflatten(-1, (2, 16)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=-1))
    q, k = layer.qk_norm(q, k)
    pairs = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)  # turning is multiplying by e^(i angle)
    q, k = (torch.view_as_real(torch.view_as_complex(z.unflatten(-1, (8, 2)).contiguous()) * pairs).flatten(-2)
            for z in (q, k))  # fmt: skip
    expected = layer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x, angles), expected, atol=1e-6)
    shifted = AxialRotary((8, 8))(grid_positions(3, 4) + 7)
    assert torch.allclose(layer(x, shifted), layer(x, angles), atol=1e-5)
    assert (layer(x) - layer(x, angles)).abs().max() > 1e-3


def test_rotary_errors_say_what_was_expected():
    with pytest.raises(ShapeError, match=r"got shape \(4, 3\), expected \(n, 2\)"):
        AxialRotary((8, 8))(torch.zeros(4, 3))
    with pytest.raises(ShapeError, match=r"got shape \(4, 8\)"):
        rotate(torch.zeros(2, 5, 16), AxialRotary((8, 8))(grid_positions(2, 2)))
    with pytest.raises(ShapeError, match="expected even numbers"):
        AxialRotary((7, 9))
    with pytest.raises(RangeError, match="theta"):
        AxialRotary((8, 8), theta=1.0)
    with pytest.raises(ShapeError, match="dim even"):
        rotary_angles(torch.zeros(3), 5)
    with pytest.raises(RangeError, match="height"):
        grid_positions(0, 3)
    with pytest.raises(RangeError, match="n_text"):
        joint_positions(-1, 2, 2)
