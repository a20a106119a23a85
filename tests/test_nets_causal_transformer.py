"""The causal transformer: layers against PyTorch's, who sees whom to the last bit, a memory that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import CausalTransformer, CausalTrunk, block_causal_mask, causal_mask, explicit_attention

G = torch.Generator().manual_seed(5)
SIZE, LENGTH = 7, 9


def shaken(net, std=0.3):
    for p in net.parameters():
        p.data.normal_(std=std, generator=G)
    return net.eval()


def small(**options):
    return shaken(CausalTransformer(SIZE, LENGTH, dim=16, depth=2, heads=2, **options))


def tokens(b=3, n=LENGTH):
    return torch.randint(SIZE, (b, n), generator=G)


def copied(ours, dim, heads, depth):
    """PyTorch's own pre-norm encoder layers with the weights of a trunk."""
    theirs = nn.ModuleList(
        nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation=lambda x: nn.functional.gelu(x, approximate="tanh"),
            batch_first=True, norm_first=True,
        )
        for _ in range(depth)
    )  # fmt: skip
    for block, layer in zip(ours.blocks, theirs, strict=True):
        layer.self_attn.in_proj_weight.data, layer.self_attn.in_proj_bias.data = (
            block.attention.qkv.weight.data,
            block.attention.qkv.bias.data,
        )
        pairs = [
            (layer.self_attn.out_proj, block.attention.out), (layer.norm1, block.norm1), (layer.norm2, block.norm2),
            (layer.linear1, block.feed_forward.inner), (layer.linear2, block.feed_forward.outer),
        ]  # fmt: skip
        for their, our in pairs:
            their.load_state_dict(our.state_dict())
    return theirs


def test_the_layers_are_pytorchs():
    """Logits by hand around ``nn.TransformerEncoderLayer`` with a causal mask: an implementation that is not ours."""
    net, x, labels = small(n_classes=4).double(), tokens(), torch.tensor([0, 3, 4])
    with torch.no_grad():
        h = torch.stack([torch.stack([net.start.table.weight[c], *(4.0 * net.table.weight[row[:-1]])])
                         for row, c in zip(x, labels, strict=True)]) + net.positions  # fmt: skip
        for layer in copied(net.trunk, 16, 2, 2).double():
            h = layer(h, src_mask=nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=h.dtype))
        expected = net.head(net.trunk.norm(h))
        got = net(x, labels)
    assert got.shape == (3, LENGTH, SIZE)
    assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("kernel", [None, explicit_attention], ids=["fused", "explicit"])
def test_no_logit_hears_its_own_token_or_a_later_one(kernel):
    """Exactly, by perturbation: token i leaves the logits of places 0..i the same bits, and moves all later."""
    net = small(**({"kernel": kernel} if kernel else {}))
    x = tokens()
    with torch.no_grad():
        before = net(x)
        for i in range(LENGTH):
            other = x.clone()
            other[:, i] = (other[:, i] + 1) % SIZE
            after = net(other)
            assert torch.equal(after[:, : i + 1], before[:, : i + 1])
            assert ((after - before)[:, i + 1 :].abs().amax(-1) > 0).all()


def test_a_beginning_has_the_logits_of_the_whole():
    net, x = small(), tokens()
    for n in range(1, LENGTH + 1):
        assert torch.allclose(net(x[:, :n]), net(x)[:, :n], atol=1e-5)


def test_the_memory_changes_nothing_but_the_time():
    """Step by step as in sampling: float64 shows that only rounding differs; a memory may be used twice."""
    net, x, labels = small(n_classes=4).double(), tokens(), torch.tensor([1, 2, 0])
    with torch.no_grad():
        whole = net(x, labels)
        logits, memory = net.begin(3, labels)
        got = [logits]
        for i in range(LENGTH - 1):
            logits, longer = net.next(x[:, i], memory)
            again, _ = net.next(x[:, i], memory)
            assert torch.equal(logits, again)
            memory = longer
            got.append(logits)
    assert (torch.stack(got, 1) - whole).abs().max() <= 1e-13 * whole.abs().max()


def test_blocks_see_themselves_and_what_came_before():
    assert torch.equal(block_causal_mask([1] * 6), causal_mask(6))
    expected = [[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]] + [[1] * 6] * 3
    assert torch.equal(block_causal_mask((1, 2, 3)).int(), torch.tensor(expected))


def test_a_trunk_reads_blocks_at_once_or_one_after_the_other():
    sizes = (1, 4, 9)
    trunk = shaken(CausalTrunk(block_causal_mask(sizes), 16, depth=2, heads=2)).double()
    x = torch.randn(3, 14, 16, generator=G, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = trunk(x)
        memory, pieces = (), []
        for block in x.split(sizes, dim=1):
            h, memory = trunk(block, memory)
            pieces.append(h)
        assert (torch.cat(pieces, 1) - whole).abs().max() <= 1e-13 * whole.abs().max()
        other = x.clone()
        other[:, 5:] = 0  # the last block: no block before it may notice, all places of its own must
        changed, _ = trunk(other)
    assert torch.equal(changed[:, :5], whole[:, :5]) and not (changed == whole)[:, 5:].all(-1).any()
    with pytest.raises(RangeError, match=r"places 0\.\.2, which see later ones"):
        trunk(x[:, :3])
    with pytest.raises(ShapeError, match="up to 15, expected at most 14"):
        trunk(x[:, :1], memory)


def test_a_memory_keeps_its_order():
    """With a mask that forgets (a window of two places) it matters which key in the memory belongs to which place."""
    sees = causal_mask(8) & ~causal_mask(8).tril(-2)
    trunk = shaken(CausalTrunk(sees, 16, depth=2, heads=2)).double()
    x = torch.randn(3, 8, 16, generator=G, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = trunk(x)
        memory, pieces = (), []
        for place in x.split(1, dim=1):
            h, memory = trunk(place, memory)
            pieces.append(h)
    assert (torch.cat(pieces, 1) - whole).abs().max() <= 1e-13 * whole.abs().max()


def test_all_tokens_are_alike_before_training():
    net = CausalTransformer(SIZE, LENGTH, dim=16, depth=2, heads=2)
    assert torch.equal(net(tokens()).softmax(-1), torch.full((3, LENGTH, SIZE), 1.0).softmax(-1))


def test_what_it_refuses():
    net = small(n_classes=4)
    for wrong, message in [(tokens(n=LENGTH)[:, :0], "expected whole"), (tokens().float(), "expected whole")]:
        with pytest.raises(ShapeError, match=message):
            net(wrong)
    with pytest.raises(RangeError, match=r"expected 0\.\.6"):
        net(tokens() + 1 + SIZE)
    with pytest.raises(RangeError, match="labels"):
        net(tokens(), torch.tensor([0, 1, 5]))
    with pytest.raises(ShapeError, match="every place sees itself"):
        CausalTrunk(causal_mask(4).roll(1, 0), 16, heads=2)
    with pytest.raises(ShapeError, match="positions"):
        CausalTransformer(SIZE, LENGTH, dim=16, heads=2, positions=torch.zeros(LENGTH, 8))
    _, memory = net.begin(3)
    for i in range(LENGTH - 1):
        _, memory = net.next(tokens()[:, i], memory)
    with pytest.raises(ShapeError, match="nothing follows the last"):
        net.next(tokens()[:, 0], memory)
