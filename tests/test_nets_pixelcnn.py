"""Masked convolutions: what each place sees, exactly; the blind spot of one stack, and the leak of mask B at first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets import GatedPixelCNN, MaskedConv2d, left_mask, raster_mask, rows_mask

G = torch.Generator().manual_seed(5)
SIZE = (6, 5)
PLACES = SIZE[0] * SIZE[1]


def shaken(net, std=0.3):
    for p in net.parameters():
        p.data.normal_(std=std, generator=G)
    return net.double().eval()


def gated(depth=5, **options):
    return shaken(GatedPixelCNN(4, SIZE, width=8, depth=depth, kernel=3, **options))


def stack(first_own, depth=6):
    """One stack of 3 x 3 windows masked in reading order: PixelCNN as first published."""
    layers = [MaskedConv2d(1, 8, raster_mask(3, own=first_own))]
    for _ in range(depth - 1):
        layers += [nn.Tanh(), MaskedConv2d(8, 8, raster_mask(3, own=True))]
    return shaken(nn.Sequential(*layers))


def sees(net):
    """(n, n): whether output i moves when pixel j does, by perturbation, bit by bit."""
    x = torch.randn(1, 1, *SIZE, generator=G, dtype=torch.float64)
    each = x.repeat(PLACES, 1, 1, 1)
    each.reshape(PLACES, -1).diagonal().add_(1.0)
    with torch.no_grad():
        before, after = net(x.expand_as(each)), net(each)
    return (before != after).any(1).flatten(1).T


def test_two_stacks_see_all_that_was_read_and_nothing_else():
    assert torch.equal(sees(gated()), torch.ones(PLACES, PLACES, dtype=torch.bool).tril(-1))


def test_one_stack_has_a_blind_spot():
    """Of an upper row it sees as many places to the right as it is rows up: the rest stays unseen at any depth."""
    rows, columns = (torch.arange(PLACES) // SIZE[1]), torch.arange(PLACES) % SIZE[1]
    up, right = rows[:, None] - rows, columns - columns[:, None]
    before = torch.ones(PLACES, PLACES, dtype=torch.bool).tril(-1)
    for depth in (6, 9):
        seen = sees(stack(False, depth))
        assert torch.equal(seen, before & (right <= up))
    assert int((before & ~seen).sum()) == 45 and int(before.sum()) == 435  # of 435 pairs 45 are never looked at


def test_mask_b_in_the_first_layer_sees_the_pixel_that_it_predicts():
    assert sees(stack(True)).diagonal().all() and not sees(stack(False)).diagonal().any()


def test_masks():
    assert raster_mask(3, own=False).int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert raster_mask(3, own=True).int().tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert rows_mask(3, own=False).int().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert rows_mask(3, own=True).int().tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert left_mask(5, own=False).int().tolist() == [[1, 1, 0, 0, 0]]
    assert left_mask(5, own=True).int().tolist() == [[1, 1, 1, 0, 0]]


def test_a_masked_convolution_is_a_convolution_with_zeros():
    layer = MaskedConv2d(2, 3, raster_mask(3, own=True)).double()
    x = torch.randn(2, 2, 4, 4, generator=G, dtype=torch.float64)
    plain = nn.Conv2d(2, 3, 3, padding=1).double()
    plain.load_state_dict(layer.state_dict())
    plain.weight.data[:, :, 1, 2] = 0
    plain.weight.data[:, :, 2] = 0
    assert torch.equal(layer(x), plain(x))


def test_rows_one_at_a_time_are_rows_at_once():
    net, x, labels = (
        gated(n_classes=3),
        torch.randn(2, 1, *SIZE, generator=G, dtype=torch.float64),
        torch.tensor([0, 3]),
    )
    with torch.no_grad():
        whole, told = net(x, labels), net.rows_above(x, labels)
        rows = [net.across_rows(x, told, slice(i, i + 1), labels) for i in range(SIZE[0])]
        assert (torch.cat(rows, 2) - whole).abs().max() <= 1e-12
        assert (net(x, labels) - net(x, labels.flip(0))).abs().amin() > 0  # the class reaches every place


def test_all_levels_are_alike_before_training():
    logits = GatedPixelCNN(4, SIZE, width=8, depth=2)(torch.randn(2, 1, *SIZE, generator=G))
    assert torch.equal(logits, torch.zeros_like(logits))


def test_what_it_refuses():
    with pytest.raises(ShapeError, match="kernel: got 4, expected an odd number"):
        GatedPixelCNN(4, SIZE, kernel=4)
    with pytest.raises(ShapeError, match=r"expected \(b, 1, 6, 5\)"):
        gated()(torch.zeros(2, 3, *SIZE, dtype=torch.float64))
