"""The widgets of Lecture 3: every control matters, and what is shown is what the functions return."""

from __future__ import annotations

import copy
import csv
import re

import pytest
import torch
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets, zoo
from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow
from lecture_lib.data.shapes import VOCABULARY, captioned, read
from lecture_lib.errors import DamagedFileError
from lecture_lib.families import LatentSpace, TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import (
    JointText,
    KLAutoencoder,
    MMDiT,
    TextEncoder,
    Tokenizer,
    concept_direction,
    dit_cost,
    full_mask,
    grid_positions,
    quadrant_shares,
    recorded_attention,
    steered,
)
from lecture_lib.training.forecast import Run, forecast
from lecture_lib.training.scaling import ParametricLaw, isoflop_valleys
from lecture_lib.viz import to_pixels
from lecture_lib.widgets import concepts, modulations, patches, positions, quadrants, scaling


@pytest.fixture(scope="module")
def model():
    """A tiny painter with joint attention, untrained; what starts at zero would leave the text unheard."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Tokenizer(VOCABULARY)
        encoder = TextEncoder(len(tokenizer), dim=16, depth=1, heads=2, visible=full_mask)
        text = JointText([encoder])
        net = MMDiT(4, dim=32, depth=2, heads=2, context_dim=16, vector_dim=16, grid=4, qk_norm=True)
        for p in net.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.3)
        autoencoder = KLAutoencoder(3, 4, channels=8, multipliers=(1, 2, 2), blocks=1, groups=4)
    denoiser = Denoiser(net, RectifiedFlow(), VELOCITY, null=text.null)
    return TextToImage(denoiser, LatentSpace(autoencoder, shift=0.1, scale=2.0), text, tokenizer).eval()


@pytest.fixture(scope="module")
def runs():
    """A sweep that follows a law known exactly, up to a noise of 0.3 %."""
    law, noise, made = ParametricLaw(0.15, 60.0, 0.75, 15.0, 0.55), torch.Generator().manual_seed(0), []
    for compute in (4e9, 12e9, 36e9, 108e9, 324e9):
        for factor in (0.33, 0.6, 0.8, 1.0, 1.7, 3.0):
            size = int(factor * law.best(compute)[0])
            samples = int(compute / 6 / size)
            for seed in (0, 1):
                loss = float(law(size, samples)) * (1 + 0.003 * float(torch.randn((), generator=noise)))
                made.append(Run(compute, size, samples, seed, loss))
    return made


@pytest.fixture(scope="module")
def make(runs, model):
    return {
        "patch_explorer": widgets.patch_explorer,
        "position_explorer": widgets.position_explorer,
        "modulation_explorer": widgets.modulation_explorer,
        "scaling_explorer": lambda: widgets.scaling_explorer(runs),
        "quadrant_explorer": lambda: widgets.quadrant_explorer(model),
        "concept_slider": lambda: widgets.concept_slider(model),
    }


PURE = ("patch_explorer", "position_explorer", "modulation_explorer", "scaling_explorer")
PAINTERS = ("quadrant_explorer", "concept_slider")
NAMES = PURE + PAINTERS


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture_at_every_value(name, make):
    explorer = make[name]()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(name, make, monkeypatch):
    the_picture_goes_out_with_the_widget(make[name], monkeypatch)


# Patches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_tokens_are_the_squares_of_the_picture_row_by_row(patch):
    x = patches.pictures()[list(patches.pictures())[1]]
    tokens = patches.tokens_as_pictures(x, patch)
    k = 32 // patch + 2  # second row, third column
    assert torch.equal(tokens[k], x[0, :, patch : 2 * patch, 2 * patch : 3 * patch])
    shown = to_pixels(tokens[k : k + 1], 10)[0]
    assert shown.shape == (10 * patch, 10 * patch, 3) and len(tokens) == (32 // patch) ** 2


def test_the_bill_is_the_papers_and_quadratic_cost_is_found_where_it_is():
    explorer = widgets.patch_explorer().set(network="XL", patch=2)
    assert "256 tokens, 118.6 billion" in explorer.note and "3.6% of them for pairs" in explorer.note
    assert "table says 118.64" in explorer.note
    explorer.set(side=128, network="S")
    cost = dit_cost("S/2", size=128)
    assert cost.pairs > cost.tokens and "4096 tokens" in explorer.note and "table" not in explorer.note


# Positions ----------------------------------------------------------------------------------------------------------


def test_rotary_scores_of_equal_vectors_are_the_likeness_of_sin_cos_vectors():
    for token in (0, 27, 63):
        table = positions.TABLES["sin-cos"](8)
        scores = positions.rotary_scores(8, token, positions.ALIKE, 10_000.0)
        assert torch.allclose(scores, positions.likeness(table, token), atol=2e-6)


def test_rotary_scores_of_any_content_know_the_displacement_only():
    content = positions.CONTENTS[2]
    first, second = (
        positions.rotary_scores(12, token, content, 100.0).reshape(12, 12) for token in (13, 13 + 2 * 12 + 3)
    )
    assert torch.allclose(first[:-2, :-3], second[2:, 3:], atol=2e-6) and first.std() > 0.01


@pytest.mark.parametrize("side", [4, 8, 12, 16])
def test_pairs_as_in_training_are_counted_one_by_one(side):
    places = grid_positions(side, side)
    apart = (places[:, None] - places).abs().amax(-1)
    assert positions.displacements_seen(side) == pytest.approx(float((apart <= 7).double().mean()), abs=1e-12)


def test_what_was_met_in_training_is_told_from_what_is_new():
    known = {name: positions.familiar(table(16), table(8)) for name, table in positions.TABLES.items()}
    counts = {name: int((values > 1 - 1e-5).sum()) for name, values in known.items()}
    # Squeezed places 0, 1/2, 1, ... hit the old ones with every second token of each axis.
    assert counts == {"sin-cos": 64, "sin-cos, squeezed": 64, "cropped from 16 x 16": 64, "learned, resampled": 0}
    corner = known["sin-cos"].reshape(16, 16)
    assert (corner[:8, :8] > 1 - 1e-5).all() and corner[8:, 8:].max() < 0.99
    assert (known["cropped from 16 x 16"].reshape(16, 16)[4:12, 4:12] > 1 - 1e-5).all()


def test_the_learned_table_has_found_out_who_is_beside_whom():
    table, untrained = (positions.learned(updates).table for updates in (200, 0))
    likeness = positions.likeness(table, 27).reshape(8, 8)  # row 3, column 3
    beside = torch.stack([likeness[2, 3], likeness[4, 3], likeness[3, 2], likeness[3, 4]])
    assert beside.min() > 0.5 > 0 > likeness[:, 7].max()
    assert positions.likeness(untrained, 27).reshape(8, 8)[2:5, 3].median() < 0.5


# Modulations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "gates"), [("attention", [2]), ("feed-forward", [5]), ("both branches", [2, 5])])
def test_a_branch_that_is_shut_has_its_gate_at_zero(off, gates):
    block = copy.deepcopy(zoo.load("digits-dit").network.blocks[1])
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 16, 96, generator=generator), torch.randn(2, 96, generator=generator)
    before = block(x, c)
    with modulations.shut(block, modulations.BRANCHES[off]):
        silent = block(x, c)
    assert torch.equal(block(x, c), before)  # opened again
    for gate in gates:
        block.modulation.weight.data[96 * gate : 96 * (gate + 1)] = 0
        block.modulation.bias.data[96 * gate : 96 * (gate + 1)] = 0
    assert torch.allclose(silent, block(x, c), atol=1e-6) and not torch.allclose(silent, before, atol=1e-2)


def test_a_branch_is_opened_after_an_error():
    block = copy.deepcopy(zoo.load("digits-dit").network.blocks[0])
    with pytest.raises(KeyError), modulations.shut(block, ("attention",)):
        raise KeyError
    assert not block.attention._forward_hooks


def test_the_sizes_in_the_note_are_those_of_the_block():
    explorer = widgets.modulation_explorer().set(t=0.3, label=7, block=3)
    model = zoo.load("digits-dit")
    net = model.network
    c = net.time(torch.tensor([300.0])) + net.condition(torch.tensor([7]), 1)
    vectors = net.blocks[2].modulation(torch.nn.functional.silu(c)).reshape(6, 96)
    sizes = [float(size) for size in re.findall(r"[12] (\d\.\d\d)", explorer.note)]
    assert sizes == pytest.approx(vectors.square().mean(1).sqrt().tolist(), abs=0.0051)
    assert explorer.set(off="nothing").note.endswith("by 0.000 (root mean square; range -1 to 1).")


# Scaling ------------------------------------------------------------------------------------------------------------


def test_what_is_foretold_is_what_forecast_says_of_the_budgets_left(runs):
    note = widgets.scaling_explorer(runs).set(budget4=False).note
    earlier = [run for run in runs if run.compute < 100e9]
    found = forecast(earlier, resamples=scaling.RESAMPLES, generator=torch.Generator().manual_seed(0))
    last = isoflop_valleys(*zip(*((run.compute, run.size, run.loss) for run in runs), strict=True))[-1]
    low, high = found.band(324e9)
    for number in (last.loss, found.law(324e9), low, high, found.straight(324e9)):
        assert f"{float(number):.4f}" in note
    assert "At 324 GFLOP, which were left out" in note
    assert low < last.loss < high and found.straight(324e9) < 0.93 * last.loss  # the lesson of the widget


def test_the_law_is_shown_before_its_band_and_says_nothing_of_it(runs):
    first, second = scaling.Sweep(runs).scenes(-1, 10, **dict.fromkeys(("budget1", "budget2", "budget3"), True),
                                               budget4=False, budget5=False)  # fmt: skip
    assert first.progress < 1 == second.progress and "resamples" not in first.note and "resamples" in second.note


def test_too_few_budgets_and_a_missing_table_are_named(runs, tmp_path):
    explorer = widgets.scaling_explorer(runs).set(budget4=False, budget3=False)
    assert explorer.failed and "got 2 to fit, expected at least 3" in explorer.note
    with pytest.raises(DamagedFileError, match=r"nothing\.csv"):
        widgets.measured_runs(tmp_path / "nothing.csv")
    table = tmp_path / "scaling.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["what", "value"], ["throughput", 3], *([run.what, run.loss] for run in runs)])
    assert widgets.measured_runs(table) == runs


def test_one_seed_looks_at_half_of_the_runs(runs):
    sweep = scaling.Sweep(runs)
    assert len(sweep.of(0)) == len(runs) / 2 and {run.seed for run in sweep.of(0)} == {0}
    assert sweep.of(scaling.EVERY) == runs


# Painters with joint attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAINTERS)
def test_without_a_model_the_zoo_is_asked(name, make, model, monkeypatch):
    monkeypatch.setattr("lecture_lib.zoo.transformer_text_to_image", lambda: model)
    assert getattr(widgets, name)().picture == make[name]().picture


@pytest.mark.parametrize("name", PAINTERS)
def test_unknown_words_are_answered_below_the_picture_which_stays(name, make):
    explorer = make[name]()
    before = explorer.picture
    explorer.set(prompt="a large gren ring")
    assert explorer.failed and explorer.picture == before and "green" in explorer.note


def test_the_maps_of_a_step_are_those_of_the_network_at_that_point(model):
    """The first evaluation sees the starting noise, so it can be made by hand, with the condition and no guidance."""
    prompt, generator = quadrants.FIRST, torch.Generator().manual_seed(4)
    run = quadrants.Runs(model).plain(prompt, 4)
    noise = model.noise(1, generator)
    with torch.no_grad(), recorded_attention(model.denoiser.network) as maps:
        model.denoiser.given(model.condition(prompt))(noise, torch.ones(1, dtype=torch.float64))
    for name, probs in maps.items():
        assert torch.allclose(run.maps[0][name], probs, atol=1e-6)
    mask = model.condition(prompt)["mask"]
    share = float(quadrant_shares(maps, mask)[1, 0, 1, 0])
    note = widgets.quadrant_explorer(model).set(seed=4, step=1, layer=2).note
    assert f"{share:.0%} is words" in note


def test_a_joint_map_has_no_padding_and_its_quadrants_are_where_they_should_be(model):
    prompt = "a small red circle"
    run, mask = quadrants.Runs(model).plain(prompt, 0), model.condition(prompt)["mask"]
    probs = next(iter(run.maps[2].values()))
    table, n = quadrants.joint_map(probs, mask), int(mask.sum())
    assert n == 6 and table.shape == (n + 1 + 16, n + 1 + 16)  # <start>, four words, <end>
    assert table[n].isnan().all() and table[:, n].isnan().all()
    assert torch.allclose(table.nan_to_num(0.0).sum(1)[torch.arange(len(table)) != n], torch.ones(n + 16), atol=1e-5)
    mean, m = probs[0].mean(0), mask.shape[1]
    assert torch.equal(table[n + 1 + 3, 2], mean[m + 3, 2]) and torch.equal(table[2, n + 1 + 5], mean[2, m + 5])
    reads = quadrants.word_reads({"one": probs}, m, 2, 4)
    assert torch.equal(reads[0, 1, 1], mean[2, m + 5])


# Concepts -----------------------------------------------------------------------------------------------------------


def test_steered_rows_are_what_steering_by_hand_returns_and_strength_zero_changes_nothing(model):
    steering, prompt = concepts.Steering(model), "a small red circle"

    def paint():
        generator = torch.Generator().manual_seed(5)
        return model.generate([prompt] * concepts.SAMPLES, generator=generator, steps=concepts.STEPS, rule=linear(3.0))

    for by_chance in (False, True):
        pushed = ("large, not small", 2, by_chance)
        direction = steering.push(*pushed)
        assert float(direction.norm()) == pytest.approx(
            float(steering.direction("large, not small", 2).norm()), rel=1e-5
        )
        with steered(model.denoiser.network, "blocks.1", direction, 1.5):
            by_hand = paint()
        assert torch.equal(steering.pictures(prompt, 5, 1.5, pushed), by_hand)
        assert torch.equal(steering.pictures(prompt, 5, 0.0, pushed), paint())
        assert not torch.equal(by_hand, paint())


def test_a_direction_is_the_difference_of_the_tokens_with_and_without_the_word(model):
    generator = torch.Generator().manual_seed(0)
    x0 = model.space.encode(captioned(concepts.PAIRS, generator).images).detach()
    t = 0.3 + 0.7 * torch.rand(concepts.PAIRS, generator=generator, dtype=torch.float64)
    x_t = (1 - t).float()[:, None, None, None] * x0
    x_t = x_t + t.float()[:, None, None, None] * torch.randn(x0.shape, generator=generator)
    both = [model.condition(texts) for texts in concepts.CONCEPTS["circle, not square"].pairs(concepts.PAIRS)]
    by_hand = concept_direction(model.denoiser.network, "blocks.0", x_t, (1000 * t).float(), *both)
    assert torch.allclose(concepts.Steering(model).direction("circle, not square", 1), by_hand, atol=1e-5)


def test_pairs_differ_in_the_concept_alone_and_the_oracle_knows_it():
    scenes = captioned(60, torch.Generator().manual_seed(1), two=0.0)
    seen = read(scenes.images)
    for concept in concepts.CONCEPTS.values():
        for one, two in zip(*concept.pairs(12), strict=True):
            Tokenizer(VOCABULARY).encode([one, two])
            words = [(a, b) for a, b in zip(one.split(), two.split(), strict=True) if a != b]
            assert len(words) == 1 and words[0][0] == concept.value
        truth = [
            scene.background == concept.value
            if concept.attribute == "background"
            else getattr(scene.things[0], concept.attribute) == concept.value
            for scene in scenes.scenes
        ]
        assert [concept.shown(picture) for picture in seen] == truth and 0 < sum(truth) < 60
