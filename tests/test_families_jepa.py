"""JEPA: who sees what by perturbation, the moving average by hand, and the collapse in numbers."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from worlds import normal, seeded

from lecture_lib.data import DIRECTIONS, Batches, digits, moving_digits
from lecture_lib.errors import NotDefined, RangeError, ShapeError
from lecture_lib.families import JEPA, VJEPA, Masks, fit, hide_blocks
from lecture_lib.metrics import effective_rank, feature_std, linear_probe
from lecture_lib.nets import PatchEncoder, PlacePredictor, patches_3d, positions_2d, positions_3d


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def built(family, **options):
    return family(dim=32, **options).eval()


class Followed(JEPA):
    """The mistake: targets from the encoder itself, with the gradient."""

    def targets(self, patches):
        seen = self.encoder(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool))
        return F.layer_norm(seen, seen.shape[-1:])


# --- who sees what ---------------------------------------------------------------------------------------------------


def halves():
    """Patches of two pictures, the first 10 of 16 visible, the next 4 asked for."""
    place = torch.arange(16).expand(2, 16)
    return normal(2, 16, 4).float(), place < 10, (place >= 10) & (place < 14)


def test_a_guess_knows_visible_patches_only():
    """Changing what is hidden moves no guess by a bit; changing anything visible moves every guess."""
    model, (patches, visible, asked) = built(JEPA), halves()
    with torch.no_grad():
        guess = model.predictor(model.encoder(patches, visible), visible, asked)[asked]
        hidden = torch.where(visible[..., None], patches, -patches)
        assert torch.equal(model.predictor(model.encoder(hidden, visible), visible, asked)[asked], guess)
        seen = torch.where(visible[..., None], -patches, patches)
        assert (model.predictor(model.encoder(seen, visible), visible, asked)[asked] != guess).any(-1).all()


def test_mask_tokens_of_different_blocks_do_not_see_each_other():
    """What is asked for elsewhere at the same time leaves a block's guess alone, in the loss as well."""
    model, (patches, _, asked) = built(JEPA), halves()
    other = torch.zeros_like(asked)
    other[:, 14:] = True
    visible = ~(asked | other)
    targets = normal(2, 16, 32, seed=1).float()
    with torch.no_grad():
        each = [model.mistaken(patches, targets, Masks(visible, part[:, None])) for part in (asked, other)]
        both = model.mistaken(patches, targets, Masks(visible, torch.stack([asked, other], dim=1)))
        together = model.mistaken(patches, targets, Masks(visible, (asked | other)[:, None]))
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    assert not torch.allclose(both, together, atol=1e-6)


def test_without_its_place_a_mask_token_cannot_know_what_is_asked():
    """A predictor that sees the context alone gives every target the same answer; with places they differ."""
    (patches, visible, asked), table = halves(), positions_2d(4, 4, 32)
    encoder = PatchEncoder(4, table).eval()
    for places, alike in ((table, False), (torch.zeros_like(table), True)):
        guess = PlacePredictor(32, places).eval()(encoder(patches, visible), visible, asked)[asked].unflatten(0, (2, 4))
        assert bool(guess.std(dim=1).max() < 1e-5) is alike


def test_extra_tokens_are_always_seen_and_come_first():
    encoder, (patches, _, _) = PatchEncoder(4, positions_2d(4, 4, 32)).eval(), halves()
    nothing, extra = torch.zeros(2, 16, dtype=torch.bool), normal(2, 3, 32).float()
    with torch.no_grad():
        seen = encoder(patches, nothing, extra)
        assert seen.shape == (2, 19, 32) and torch.isfinite(seen).all()
        assert torch.equal(encoder(-patches, nothing, extra)[:, :3], seen[:, :3])
        assert (encoder(patches, nothing, -extra)[:, :3] != seen[:, :3]).any()


# --- the target ------------------------------------------------------------------------------------------------------


def test_targets_are_normalised_frozen_and_of_the_whole_picture():
    model, x = built(JEPA), digits().images[:4]
    targets = model.targets(model.cut(x))
    assert not targets.requires_grad and not any(w.requires_grad for w in model.target.parameters())
    torch.testing.assert_close(targets.mean(-1), torch.zeros(4, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(targets.var(-1, correction=0), torch.ones(4, 16), rtol=0, atol=1e-2)
    changed = model.cut(x).clone()
    changed[:, 0] += 1  # one patch: every place hears of it
    assert (model.targets(changed) != targets).any(-1).all()


def test_the_target_follows_the_encoder_as_an_average():
    """After each update, ``decay old + (1 - decay) new``, weight by weight; forgetting it leaves a random network."""
    model, batches, _ = JEPA.small()
    expected = copy.deepcopy(dict(model.target.named_parameters()))
    for _ in fit(model, batches, steps=3, generator=seeded()):
        for name, weight in model.encoder.named_parameters():
            expected[name] = 0.99 * expected[name] + 0.01 * weight
    for name, weight in model.target.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
    assert not torch.equal(model.target.embed.weight, model.encoder.embed.weight)


def test_the_loss_is_a_mean_over_the_target_places():
    """By hand, for one picture at a time: smooth L1 for pictures, L1 for clips."""
    for model, x, distance in (
        (built(JEPA), digits().images[:3], lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5)),
        (built(VJEPA), moving_digits(3).clips, torch.abs),
    ):
        with torch.no_grad():
            found = model.loss((x,), generator=seeded(5))
            patches, ways = model.cut(x), model.masks(3, seeded(5))
            for i in range(3):
                totals = []
                for visible, targets in ways:
                    encoded = model.encoder(patches[i : i + 1], visible[i : i + 1])
                    for asked in targets[i]:
                        guess = model.predictor(encoded, visible[i : i + 1], asked[None])[0, asked]
                        totals.append(distance(guess - model.targets(patches[i : i + 1])[0, asked]).mean())
                expected = torch.stack(totals).mean()
                torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-6)


def test_collapse_without_a_target_of_its_own():
    """150 updates: with the gradient through the targets the loss is 100 times smaller and the features say nothing.

    The spread over pictures falls to a hundredth of what it was; with the average it stays. A small loss is no merit.
    """
    spread, loss = {}, {}
    for family in (JEPA, Followed):
        torch.manual_seed(0)
        model = family(dim=32)
        before = feature_std(model.features(digits("test").images))
        *_, end = fit(model, Batches((digits().images,), 64), steps=150, lr=4e-3, generator=seeded())
        model.target.load_state_dict(model.encoder.state_dict())  # look at the encoder itself
        spread[family], loss[family] = feature_std(model.features(digits("test").images)) / before, end.loss
    assert spread[Followed] < 0.15 and spread[JEPA] > 2 * spread[Followed]
    assert loss[Followed] < loss[JEPA] / 10


# --- what is hidden --------------------------------------------------------------------------------------------------


def test_blocks_are_rectangles_and_the_rest_is_seen():
    found = hide_blocks(300, (4, 5), (2, 3), 3, generator=seeded())
    rectangles = set()
    for rows, columns in itertools.product(range(3), range(3)):
        shape = torch.zeros(4, 5, dtype=torch.bool)
        shape[rows : rows + 2, columns : columns + 3] = True
        rectangles.add(tuple(shape.flatten().tolist()))
    drawn = [tuple(block.tolist()) for block in found.targets.flatten(0, 1)]
    assert set(drawn) == rectangles  # each of the nine occurs, and nothing else
    assert torch.equal(found.visible, ~found.targets.any(1))


def test_something_is_always_seen():
    found = hide_blocks(50, (2, 2), (2, 2), 2, generator=seeded())
    assert found.visible.sum() == 50 and found.visible[:, 0].all()
    assert (found.targets.sum(-1) == 3).all()


def test_tubes_go_through_all_frames():
    """What is hidden in one frame is hidden in all, and context and target share no place."""
    model = VJEPA()
    for visible, targets in model.masks(100, seeded()):
        assert torch.equal(targets[:, 0], ~visible)
        first, second = visible.unflatten(1, model.grid).unbind(1)
        assert torch.equal(first, second) and visible.any(1).all()


# --- clips, patches and features -------------------------------------------------------------------------------------


def test_a_digit_flies_in_its_direction_and_stays_whole():
    """The sum of each frame is the digit's; the centre of its mass moves by the direction, exactly."""
    found, again = moving_digits(200, seed=3), moving_digits(200, seed=3)
    assert torch.equal(found.clips, again.clips) and not torch.equal(found.clips, moving_digits(200, seed=4).clips)
    mass = (found.clips[:, :, 0] + 1).double()  # (n, f, 12, 12)
    total = mass.sum((2, 3))
    assert torch.allclose(total, total[:, :1].expand_as(total))
    place = torch.arange(12.0, dtype=torch.float64)
    centre = torch.stack([(mass.sum(3) * place).sum(2), (mass.sum(2) * place).sum(2)], -1) / total[..., None]
    step = torch.tensor(DIRECTIONS, dtype=torch.float64)[found.directions]
    torch.testing.assert_close(centre.diff(dim=1), step[:, None].expand(-1, 3, -1))
    assert set(found.directions.tolist()) == set(range(8)) and set(found.labels.tolist()) == set(range(10))


def test_tubes_are_cut_in_order():
    x = torch.arange(2 * 4 * 1 * 6 * 6.0).reshape(2, 4, 1, 6, 6)
    tokens = patches_3d(x, (2, 3, 3))
    assert torch.equal(tokens[1, 5].reshape(2, 3, 3), x[1, 2:4, 0, 0:3, 3:6])  # place 5 = (1, 0, 1)


def test_places_in_time_and_space_are_all_different():
    table = positions_3d(3, 2, 4, 32)
    apart = torch.cdist(table, table) + 9 * torch.eye(24)
    assert apart.min() > 0.3
    torch.testing.assert_close(table[:8, 16:], positions_2d(2, 4, 16))
    torch.testing.assert_close(table[8:16, 16:], table[:8, 16:])


def test_rank_and_spread_of_known_features():
    """Equal variance in r directions: rank r. On a line: 1. All alike: 0."""
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    for r in (1, 2, 4):
        spread = F.pad(signs[:, :r], (0, 6 - r))
        assert effective_rank(3 * spread + 5) == pytest.approx(r, abs=1e-6)
        assert feature_std(spread) == pytest.approx(r / 6)
    assert effective_rank(torch.ones(5, 3)) == 0 and feature_std(torch.ones(5, 3)) == 0


def test_a_probe_reads_what_is_on_a_line_and_nothing_else():
    x, label = normal(400, 5), torch.arange(400) % 2
    told = x.clone()
    told[:, 3] += 6 * label
    assert linear_probe(told[:300], label[:300], told[300:], label[300:]) > 0.97
    assert linear_probe(x[:300], label[:300], x[300:], label[300:]) < 0.65


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="patch: got 3"):
        JEPA(patch=3)
    with pytest.raises(ShapeError, match="tube: got"):
        VJEPA(tube=(3, 3, 3))
    with pytest.raises(RangeError, match="side: got 9"):
        moving_digits(1, side=9)
    with pytest.raises(ShapeError, match="patches, visible"):
        PatchEncoder(4, positions_2d(4, 4, 32))(torch.zeros(1, 15, 4), torch.ones(1, 15, dtype=torch.bool))
    with pytest.raises(NotDefined, match="JEPA predicts features"):
        JEPA().sample(3, generator=seeded())
    with pytest.raises(NotDefined, match="has none"):
        VJEPA().log_prob(torch.zeros(1, 4, 1, 12, 12))


@pytest.mark.parametrize(("block", "blocks"), [((5, 2), 3), ((0, 2), 3), ((2, 2), 0)])
def test_blocks_that_hide_nothing_or_do_not_fit_are_named(block, blocks):
    """An empty block gave a loss of 0, no blocks at all one of NaN."""
    with pytest.raises(RangeError, match="block"):
        hide_blocks(2, (4, 4), block, blocks, generator=seeded())
