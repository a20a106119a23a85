"""ControlNet branches: silent at birth, diffusers' networks with the same weights, what learns first, errors."""

from __future__ import annotations

import copy
from functools import cache

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from test_nets_dit_family import CONFIGURATIONS, ours_of, theirs_of

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import (
    ControlledDiT,
    ControlledUNet,
    ControlNet,
    DiT,
    DiTControlNet,
    HintEncoder,
    LabelEmbedding,
    TextUNet,
    controlnet_from_diffusers,
    dit_from_diffusers,
    parameter_count,
    stable_diffusion_unet,
    unet_from_diffusers,
)

diffusers.logging.set_verbosity_error()
G = torch.Generator().manual_seed(3)
T = torch.tensor([3.0, 700.0])
PLAN = {"channels": 16, "multipliers": (1, 2, 2), "context_dim": 12, "groups": 8, "heads": 2}


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net, std=0.1):
    """All weights random, those that start at zero too; the norms keep their gain of about 1."""
    for name, p in net.named_parameters():
        p.data.normal_(std=std, generator=G)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return net.eval()


def born():
    """A trained network (here: random weights) and its branch, as it is before the first update."""
    base = shaken(TextUNet(**PLAN, blocks=1, depths=(1, 1, 0), vector_dim=5))
    return base, ControlNet(base, HintEncoder(1, 16, (4, 6, 8)))


def text():
    mask = torch.tensor([[True, True, False], [True] * 3])
    return {"tokens": randn(2, 3, 12), "mask": mask, "vector": randn(2, 5)}


def born_dit(copies=2):
    base = shaken(DiT(8, 1, dim=16, depth=4, heads=2, condition=LabelEmbedding(10, 16)))
    return base, DiTControlNet(base, copies=copies, hint_channels=3, hint_size=16)


def distance(a, b):
    return (a - b).abs().max().item()


# --- at birth --------------------------------------------------------------------------------------------------------


def test_at_birth_the_controlled_unet_is_the_frozen_one_bit_for_bit():
    base, branch = born()
    x, cond, hint = randn(2, 4, 8, 8), text(), randn(2, 1, 32, 32)
    assert torch.equal(ControlledUNet(base, branch)(x, T, cond | {"hint": hint}), base(x, T, cond))
    assert not branch.hint(hint).any()  # the copy, too, sees what the base sees


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_at_birth_the_controlled_dit_is_the_frozen_one_bit_for_bit(copies):
    base, branch = born_dit(copies)
    x, label = randn(2, 1, 8, 8), torch.tensor([3, 10])
    cond = {"hint": randn(2, 3, 16, 16), "label": label}
    assert torch.equal(ControlledDiT(base, branch)(x, T, cond), base(x, T, label))
    assert torch.equal(ControlledDiT(base, branch)(x, T, {"hint": cond["hint"]}), base(x, T))


def test_the_branch_is_a_copy_that_learns_and_the_base_is_not():
    base, branch = born()
    before = copy.deepcopy(base.state_dict())
    assert all(torch.equal(branch.state_dict()[name], value) for name, value in before.items() if name[:2] not in UP)
    net = ControlledUNet(base, branch)
    assert not any(p.requires_grad for p in base.parameters()) and all(p.requires_grad for p in branch.parameters())
    optimizer = torch.optim.SGD(branch.parameters(), lr=1.0)
    net(randn(2, 4, 8, 8), T, text() | {"hint": randn(2, 1, 32, 32)}).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(base.state_dict()[name], value) for name, value in before.items())
    late = ControlNet(TextUNet(**PLAN, blocks=1, depths=(1, 1, 0), vector_dim=5), HintEncoder(1, 16, (4, 6, 8)))
    late.load_state_dict(base.state_dict(), strict=False)  # as its docstring has it
    assert all(torch.equal(late.state_dict()[name], value) for name, value in before.items() if name[:2] not in UP)


UP = ("up", "no", "le")  # up, norm, leave: the half that is not copied


def gradients(net, branch, x, cond):
    """Norm of the gradient in the zero layers behind the copy, and in everything before them."""
    branch.zero_grad()
    net(x, T, cond).square().mean().backward()
    zeros = sum(p.grad.norm() for name, p in branch.named_parameters() if name.startswith("zero"))
    rest = sum(p.grad.norm() for name, p in branch.named_parameters() if not name.startswith("zero"))
    return zeros.item(), rest.item()


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_the_first_gradient_reaches_the_zero_layers_alone_and_the_second_everything(kind):
    base, branch = born() if kind == "unet" else born_dit()
    net = (ControlledUNet if kind == "unet" else ControlledDiT)(base, branch)
    x = randn(2, 4, 8, 8) if kind == "unet" else randn(2, 1, 8, 8)
    cond = text() | {"hint": randn(2, 1, 32, 32)} if kind == "unet" else {"hint": randn(2, 3, 16, 16)}
    zeros, rest = gradients(net, branch, x, cond)
    assert zeros > 1e-3 and rest == 0
    torch.optim.SGD(branch.parameters(), lr=0.1).step()
    assert min(gradients(net, branch, x, cond)) > 1e-6


# --- diffusers with the same weights ---------------------------------------------------------------------------------

COMMON = {
    "in_channels": 4,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,  # despite its name, the number of heads
    "norm_num_groups": 8,
}
UPWARDS = {"out_channels": 4, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
HINT = {"conditioning_channels": 3, "conditioning_embedding_out_channels": (4, 6, 8, 10)}


@cache
def theirs():
    return shaken(UNet2DConditionModel(**COMMON, **UPWARDS)), shaken(ControlNetModel(**COMMON, **HINT))


def ours():
    base = TextUNet(**PLAN, blocks=2, depths=(1, 1, 0))
    return base, ControlNet(base, HintEncoder(3, 16, (4, 6, 8, 10)))


@pytest.mark.parametrize(("b", "h", "w", "strength"), [(2, 8, 8, 1.0), (1, 4, 12, 0.7), (3, 16, 8, 0.0)])
def test_equals_diffusers(b, h, w, strength):
    (their_base, their_branch), (base, branch) = theirs(), ours()
    assert parameter_count(branch) == parameter_count(their_branch)
    unet_from_diffusers(base, their_base.state_dict())
    assert controlnet_from_diffusers(branch, their_branch.state_dict()) is branch
    x, tokens, hint = randn(b, 4, h, w), randn(b, 7, 12), randn(b, 3, 8 * h, 8 * w)
    t = 999 * torch.rand(b, generator=G)
    with torch.no_grad():
        down, middle = their_branch(x, t, tokens, hint, conditioning_scale=strength, return_dict=False)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        expected, plain = their_base(x, t, tokens, **added).sample, their_base(x, t, tokens).sample
        got = ControlledUNet(base, branch, strength=strength)(x, t, {"tokens": tokens, "hint": hint})
    assert distance(got, expected) <= 1e-5
    assert (distance(expected, plain) > 0.01) == (strength > 0)  # the comparison above can see the branch


def test_the_published_branch_of_stable_diffusion_has_its_parameters():
    """361,279,120, counted in diffusers' network of the configuration of lllyasviel/sd-controlnet-canny."""
    with torch.device("meta"):
        branch = ControlNet(stable_diffusion_unet(), HintEncoder(3, 320))
        assert parameter_count(branch) == parameter_count(ControlNetModel(cross_attention_dim=768)) == 361_279_120


@pytest.mark.parametrize("copies", [1, 2])
def test_the_dit_branch_against_hooks_on_diffusers_dit(copies):
    """Their transformer, whose blocks have hooks that add what a row of copies of their own blocks says."""
    twin, other = (theirs_of(CONFIGURATIONS[0][1]) for _ in range(2))
    base, donor = (dit_from_diffusers(ours_of(CONFIGURATIONS[0][0]), net.state_dict()) for net in (twin, other))
    branch = shaken(DiTControlNet(base, copies=copies, hint_channels=3, hint_size=16), std=0.2)
    row = other.transformer_blocks[:copies]
    for mine, donated, theirs in zip(branch.blocks, donor.blocks, row, strict=False):
        mine.load_state_dict(donated.state_dict())
        theirs.norm1.emb = twin.transformer_blocks[0].norm1.emb  # the copies hear the base's own embedding
    x, t, label, hint = randn(2, 1, 8, 8), torch.tensor([30.0, 900.0]), torch.tensor([1, 10]), randn(2, 3, 16, 16)
    kernel = branch.hint.weight.unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)
    seen = torch.nn.functional.conv2d(hint, kernel, branch.hint.bias, stride=4).flatten(2).transpose(1, 2)
    said = []

    def before(_module, arguments, options):
        h = arguments[0] + seen
        for block, zero in zip(row, branch.zeros, strict=True):
            h = block(h, *arguments[1:], **options)
            said.append(zero(h))

    twin.transformer_blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    for i, block in enumerate(twin.transformer_blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: out + said[min(i, copies - 1)])
    with torch.no_grad():
        expected = twin(x, timestep=t, class_labels=label).sample
        got = ControlledDiT(base, branch)(x, t, {"hint": hint, "label": label})
        assert distance(base(x, t, label), expected) > 0.1
    assert distance(got, expected) <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("copies", "order"), [(1, [0] * 4), (2, [0, 0, 1, 1]), (3, [0, 0, 1, 2]), (4, [0, 1, 2, 3])])
def test_which_copy_serves_which_block(copies, order):
    """As in diffusers' SD3: block i is given residual int(i / (n / k))."""
    assert order == [int(i / (4 / copies)) for i in range(4)]
    base, branch = born_dit(copies)
    for j, zero in enumerate(branch.zeros):
        zero.bias.data.fill_(10.0**j)
    seen = []
    for block in base.blocks:  # each block says zero, so that the tokens change by what is added alone
        block.register_forward_hook(lambda _m, args, _out: args[0])
    for block in (*base.blocks[1:], base.final):
        block.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    x, hint = randn(1, 1, 8, 8), randn(1, 3, 16, 16)
    start, _ = base.enter(x, T[:1], None)
    ControlledDiT(base, branch, strength=0.5)(x, T[:1], {"hint": hint})
    steps = torch.stack(seen).diff(dim=0, prepend=start[None]).mean(dim=(1, 2, 3))
    assert torch.allclose(steps, 0.5 * 10.0 ** torch.tensor(order), rtol=1e-4)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_say_what_is_wrong():
    base, branch = born()
    net, x, cond = ControlledUNet(base, branch), randn(2, 4, 8, 8), text()
    with pytest.raises(ShapeError, match=r"cond\['hint'\]: got shape \(2, 1, 16, 16\), expected \(2, 1, 32, 32\)"):
        net(x, T, cond | {"hint": randn(2, 1, 16, 16)})
    for bad in (cond, None, {"hint": 3}):
        with pytest.raises(ShapeError, match="dictionary with a tensor 'hint'"):
            net(x, T, bad)
    with pytest.raises(UnknownNameError, match="texture"):
        net(x, T, cond | {"hint": randn(2, 1, 32, 32), "texture": x})
    with pytest.raises(RangeError, match="strength"):
        ControlledUNet(base, branch, strength=float("nan"))
    with pytest.raises(UnknownNameError, match="missing"):
        controlnet_from_diffusers(branch, {})


def test_errors_of_the_dit_branch():
    base, branch = born_dit()
    net, x = ControlledDiT(base, branch), randn(2, 1, 8, 8)
    for copies in (0, 5):
        with pytest.raises(RangeError, match="copies"):
            DiTControlNet(base, copies=copies, hint_channels=1, hint_size=8)
    with pytest.raises(ShapeError, match="multiple of 4"):
        DiTControlNet(base, copies=1, hint_channels=1, hint_size=10)
    with pytest.raises(ShapeError, match=r"expected \(2, 3, 16, 16\)"):
        net(x, T, {"hint": randn(2, 1, 16, 16)})
    with pytest.raises(UnknownNameError, match="tokens"):
        net(x, T, {"hint": randn(2, 3, 16, 16), "tokens": x})
