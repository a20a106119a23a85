"""The widgets of Lecture 1, on a tiny untrained model: every control matters, and what is shown is what is computed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from widget_laws import (
    TEXTS,
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import viz, widgets
from lecture_lib.core import VELOCITY, Denoiser, Discrete, RectifiedFlow, stable_diffusion
from lecture_lib.data.shapes import VOCABULARY, captioned, parse
from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.families import LatentSpace, TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import (
    JointText,
    KLAutoencoder,
    TextEncoder,
    TextUNet,
    Tokenizer,
    add_lora,
    causal_mask,
    full_mask,
    word_map,
)
from lecture_lib.nets.attention_maps import attention_layers
from lecture_lib.viz import as_picture
from lecture_lib.widgets import adapters, attention, latents, prompts, schedules


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer, encoders = Tokenizer(VOCABULARY), []
        for visible in (causal_mask, full_mask):
            encoders.append(TextEncoder(len(tokenizer), dim=16, depth=1, heads=2, visible=visible))
        text = JointText(encoders)
        net = TextUNet(
            channels=8, multipliers=(1, 2), blocks=1, depths=(1, 1), heads=2, context_dim=32, vector_dim=32, groups=4
        )
        for p in net.parameters():  # what starts at zero would leave the text unheard
            if not p.any():
                torch.nn.init.normal_(p, std=0.3)
        autoencoder = KLAutoencoder(3, 4, channels=8, multipliers=(1, 2, 2), blocks=1, groups=4)
    denoiser = Denoiser(net, RectifiedFlow(), VELOCITY, null=text.null)
    return TextToImage(denoiser, LatentSpace(autoencoder, shift=0.1, scale=2.0), text, tokenizer).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def spaces(model):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        finer = KLAutoencoder(3, 4, channels=8, multipliers=(1, 2), blocks=1, groups=4)
    return {2: LatentSpace(finer, scale=2.0), 4: model.space}


@pytest.fixture(scope="module")
def styles():
    """A model of its own with two adapters on it."""
    model, made = tiny(), {}
    for seed, name in enumerate(("stripes", "pastel")):
        made[name] = add_lora(model.denoiser.network, 2, targets=["q", "v"], generator=seeded(seed))
        for part in made[name].parts.values():
            torch.nn.init.normal_(part.B, std=0.5, generator=seeded(seed))
    return model, made


@pytest.fixture(scope="module")
def make(model, spaces, styles):
    return {
        "prompt_box": lambda: widgets.prompt_box(model),
        "latent_explorer": lambda: widgets.latent_explorer(model, spaces),
        "schedule_explorer": widgets.schedule_explorer,
        "attention_explorer": lambda: widgets.attention_explorer(model),
        "lora_strength": lambda: widgets.lora_strength(*styles),
    }


NAMES = ("prompt_box", "latent_explorer", "schedule_explorer", "attention_explorer", "lora_strength")


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture_at_every_value(name, make):
    explorer = make[name]()
    assert not explorer.failed and explorer.caption and explorer.alt
    if name == "attention_explorer":
        explorer.set(inject=False)  # its texts may then have any number of words
    if name == "latent_explorer":
        explorer.set(where="at one place")
    for argument in explorer.controls:
        if (name, argument) == ("attention_explorer", "share"):
            explorer.set(inject=True)  # does nothing when nothing is lent
        every_value_has_its_picture(explorer, argument)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(name, make, monkeypatch):
    the_picture_goes_out_with_the_widget(make[name], monkeypatch, width=1000)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_come_from_memory_the_second_time(name, make):
    explorer = make[name]()
    argument = {"latent_explorer": "scene", "lora_strength": "stripes"}.get(name, "seed")
    home = explorer.values[argument]
    first, note = explorer.picture, explorer.note
    explorer.set(**{argument: 0.5 if name == "lora_strength" else 7}).set(**{argument: home})
    assert explorer.draws == 2 and (explorer.picture, explorer.note) == (first, note)


@pytest.mark.parametrize("name", ["prompt_box", "attention_explorer", "lora_strength"])
def test_unknown_words_are_answered_below_the_picture_which_stays(name, make):
    explorer = make[name]()
    before = explorer.picture
    explorer.set(prompt="a large gren ring")
    assert explorer.failed and explorer.picture == before
    assert "unknown word &#x27;gren&#x27;" in explorer.message.value and "green" in explorer.note
    explorer.set(prompt="a large green ring" if name != "attention_explorer" else attention.PROMPTS[1])
    assert not explorer.failed and explorer.picture != before


def test_without_a_model_the_zoo_is_asked(monkeypatch, model):
    monkeypatch.setattr("lecture_lib.zoo.text_to_image", lambda: model)
    assert widgets.prompt_box().picture == widgets.prompt_box(model).picture
    assert widgets.attention_explorer().picture == widgets.attention_explorer(model).picture


# The prompt box -----------------------------------------------------------------------------------------------------


def test_the_prompt_box_shows_what_generate_returns(model):
    prompt = "a small green cross on a black background"
    explorer = widgets.prompt_box(model).set(prompt=prompt, negative="a ring", w=4.5, steps=6, seed=3)
    images = model.generate([prompt] * 4, generator=seeded(3), steps=6, negative="a ring", rule=linear(4.5))
    expected = viz.captioned_grid(images, widgets.verdicts(images, prompt), scale=prompts.SCALE)
    assert explorer.picture == viz.png_bytes(expected)
    assert "12 network evaluations per picture" in explorer.note and re.search(r"in \d+ ms", explorer.note)


def test_plain_conditional_needs_one_branch_and_still_reads_the_negative_prompt(model):
    explorer = widgets.prompt_box(model).set(w=1.0, steps=5)
    assert "5 network evaluations per picture" in explorer.note
    assert explorer.set(negative="nonsense").failed


def test_long_runs_show_themselves_on_the_way(model):
    scenes = list(prompts.prompt_scenes(model, "a small red circle", "", 3.0, 30, 0))
    assert [scene.progress for scene in scenes] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert not torch.is_inference_mode_enabled()


def test_lists_write_captions_and_follow_typed_ones(model):
    explorer = widgets.prompt_box(model)
    lists = explorer.helpers
    assert prompts.composed(**{name: box.value for name, box in lists.items()}) == prompts.FIRST
    explorer.set(prompt="a large green triangle above a small blue ring")
    for name, value in {"size": "small", "colour2": "pink", "relation": "left of", "ground": "white"}.items():
        lists[name].value = value
    prompt = explorer.values["prompt"]
    assert prompt == "a small green triangle left of a small pink ring on a white background" and not explorer.failed
    lists["relation"].value = "alone"
    assert explorer.values["prompt"] == "a small green triangle on a white background"
    explorer.set(prompt="A picture of a big red plus, over a little cyan disc")
    assert explorer.values["prompt"].startswith("A picture")  # following does not rewrite what was typed
    shown = {name: box.value for name, box in lists.items()}
    assert parse(prompts.composed(**shown)).things == (("cross", "red", "large"), ("circle", "cyan", "small"))
    explorer.set(prompt="red")  # no caption: the lists stay
    assert {name: box.value for name, box in lists.items()} == shown and "cannot judge" in explorer.note


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_lists_can_say_every_scene(split):
    tokenizer = Tokenizer(VOCABULARY)
    for text in captioned(60, seeded(2), split=split).captions:
        shown = prompts._as_lists(text)
        rest = {"size2": "small", "colour2": "red", "shape2": "circle"}
        again = prompts.composed(**(rest | shown))
        tokenizer.encode(again)
        want, got = parse(text), parse(again)
        assert (got.things, got.relation, got.background) == (want.things, want.relation, want.background)


def test_verdicts_tell_right_from_wrong_in_words():
    scenes = captioned(40, seeded(4))
    for i, text in enumerate(scenes.captions):
        (words,) = widgets.verdicts(scenes.images[i : i + 1], text)
        assert words.endswith("all right"), (text, words)
        for thing in scenes.scenes[i].things:
            assert f"{thing.size} {thing.colour} {thing.shape}" in words
    image = captioned(1, seeded(0), two=0.0)
    size, colour, shape = (getattr(image.scenes[0].things[0], name) for name in ("size", "colour", "shape"))
    another = "pink" if colour != "pink" else "cyan"
    assert (
        widgets.verdicts(image.images, f"a {size} {another} {shape}")[0]
        .split("wrong ")[1]
        .startswith("colour" if image.scenes[0].background == "grey" else "background, colour")
    )
    assert "\n" not in widgets.verdicts(image.images, "red")[0]
    assert widgets.verdicts(torch.zeros(1, 3, 32, 32), "a small red ring") == ["nothing\n\u2717 wrong number of shapes"]


# Latents ------------------------------------------------------------------------------------------------------------


def test_an_edit_adds_to_one_channel_everywhere_or_at_one_place():
    z = torch.zeros(1, 4, 8, 8)
    assert torch.equal(latents.edited(z, 2, 1.5), torch.zeros(1, 4, 8, 8).index_fill(1, torch.tensor([2]), 1.5))
    one = latents.edited(z, 0, -2.0, (3, 5))
    assert one[0, 0, 3, 5] == -2 and one.count_nonzero() == 1 and not z.any()


def test_channels_are_drawn_as_squares_of_the_numbers_themselves(model, spaces):
    explorer = widgets.latent_explorer(model, spaces).set(amount=0.0, scene=3)
    z = model.space.encode(latents.scenes().images[3:4])
    maps = viz.to_pixels(
        torch.nn.functional.interpolate((z[0] / latents.SPREAD).clamp(-1, 1)[:, None], size=(32, 32)), 4
    )
    shown = np.asarray(as_picture(explorer.picture).convert("RGB"))
    strip = [shown[k : k + 128, 8:136] for k in range(shown.shape[0] - 128)]
    assert any((tile == maps[0]).all() for tile in strip)


def test_no_change_and_the_right_factor_leave_the_reconstruction_alone(model, spaces):
    scene = latents.latent_scene(spaces, latents.Samples(model), 0, 4, 1, 0.0, latents.EVERYWHERE, 0, 0, 1.0)
    shown = np.asarray(as_picture(scene.png).convert("RGB")).astype(int)
    step = latents.WIDTH + 14
    tiles = [shown[8 : 8 + 128, 8 + k * step : 8 + k * step + 128] for k in range(4)]
    assert (tiles[1] == tiles[3]).all() and not (tiles[0] == tiles[1]).all()
    x = latents.scenes().images[:1]
    assert (tiles[1] == viz.to_pixels(model.space.decode(model.space.encode(x)).clamp(-1, 1).detach(), 4)[0]).all()


def test_the_right_size_of_latents_is_ordinary_image_to_image(model):
    from lecture_lib.families import image_to_image

    x, text = latents.scenes().images[:1], latents.scenes().captions[0]
    usual = image_to_image(model, x, text, strength=latents.STRENGTH, generator=seeded(0), steps=latents.STEPS)
    assert torch.allclose(latents.painted_again(model, 0, 1.0), usual, atol=1e-5)
    assert not torch.allclose(latents.painted_again(model, 0, 5.0), usual, atol=1e-2)


def test_samples_are_shown_for_the_autoencoder_of_the_model_only(model, spaces):
    explorer = widgets.latent_explorer(model, spaces)
    assert "new picture" in explorer.note
    explorer.set(f=2)
    assert "1024" in explorer.note and "pick that to see samples" in explorer.note


def test_samples_are_remembered(model):
    samples = latents.Samples(model)
    for _ in range(3):
        samples.again(0, 2.0)
        samples.latent(0)
    assert samples.again.cache_info().misses == samples.latent.cache_info().misses == 1


# Schedules ----------------------------------------------------------------------------------------------------------


def test_what_is_left_of_the_brightness_is_alpha_T_times_it():
    words = schedules.left_over("Stable Diffusion (scaled linear)", "all black")
    alpha = float(stable_diffusion()[-1].sqrt())
    assert f"alpha_T = {alpha:.4g}" in words and f"{-alpha:+.3g} of it is left" in words
    assert f"{alpha / (1 - alpha**2) ** 0.5 * 3072**0.5:.2g} standard deviations" in words


@pytest.mark.parametrize("name", [name for name in schedules.schedules() if "zero" in name or "rectified" in name])
@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_zero_terminal_snr_leaves_nothing_whatever_the_shift(name, kappa):
    assert "nothing of it is left" in schedules.left_over(name, "all white", kappa)
    one, two = (schedules.noised(name, picture, kappa, 0)[-1] for picture in ("all black", "all white"))
    assert torch.equal(one, two)


def test_noised_pictures_are_the_paths_own():
    name, t = "Stable Diffusion (scaled linear)", torch.tensor(schedules.SHOWN).double()
    x = schedules.pictures()["all white"]
    eps = torch.randn(3, 32, 32, generator=seeded(5))
    usual = Discrete(stable_diffusion()).mix(x.expand(len(t), -1, -1, -1), eps.expand(len(t), -1, -1, -1), t)
    assert torch.allclose(schedules.noised(name, "all white", 1.0, 5), usual, atol=1e-6)


def test_shift_moves_half_log_snr_down_by_its_logarithm():
    t = torch.linspace(0.1, 0.9, 9).double()
    path = schedules.schedules()["rectified flow"]
    lam = schedules.moments(path, t, 3.0)[2]
    assert torch.allclose(lam, path.lam(t) - np.log(3.0))


# Attention ----------------------------------------------------------------------------------------------------------


def test_recording_leaves_the_picture_alone_and_keeps_a_map_per_step_and_layer(model):
    run = attention.recorded_run(model, TEXTS[1], seed=2)
    usual = model.generate(TEXTS[1], generator=seeded(2), steps=attention.STEPS)
    assert torch.allclose(run.image, usual, atol=1e-4)
    assert len(run.maps) == attention.STEPS and run.sides() == [8, 4]
    assert set(run.maps[0]) == set(attention_layers(model.denoiser.network))
    words = len(TEXTS[1].split())
    for probs in run.maps[3].values():
        assert torch.allclose(probs.sum(-1), torch.ones(()), atol=1e-5)
        assert probs.shape[0] == 1 and not probs[..., words + 2 :].any()


def test_lent_maps_are_the_sources_in_the_first_steps_only(model):
    first, second = "a small red circle", "a small pink circle"
    source = attention.recorded_run(model, first)
    lent = attention.recorded_run(model, second, source=source, share=0.6)
    own = attention.recorded_run(model, second)
    layer = next(iter(source.maps[0]))
    same = [torch.equal(lent.maps[k][layer], source.maps[k][layer]) for k in range(10)]
    assert same == [True] * 6 + [False] * 4
    nothing = attention.recorded_run(model, second, source=source, share=0.0)
    assert torch.equal(nothing.image, own.image) and not torch.allclose(lent.image, own.image)
    self_lent = attention.recorded_run(model, first, source=source)
    assert torch.allclose(self_lent.image, source.image, atol=1e-5)


def test_the_kernels_are_back_after_an_error(model):
    kernels = [layer.kernel for layer in attention_layers(model.denoiser.network).values()]
    broken = attention.Run(torch.zeros(1, 3, 32, 32), ({},) * 10)
    with pytest.raises(KeyError):
        attention.recorded_run(model, TEXTS[0], source=broken)
    assert all(a.kernel is b for a, b in zip(attention_layers(model.denoiser.network).values(), kernels, strict=True))


def test_the_explorer_shows_the_word_map(model):
    explorer = widgets.attention_explorer(model).set(word=3, step=7, side=4)
    run = attention.recorded_run(model, attention.PROMPTS[0])
    chosen = word_map({n: p for n, p in run.maps[6].items() if p.shape[-2] == 16}, 3, (4, 4))
    tile = viz.to_pixels(attention.heat(run.image, chosen), attention.LARGE)[0]
    shown = np.asarray(as_picture(explorer.picture).convert("RGB"))
    left = 8 + attention.WIDTH + 14
    assert np.abs(shown[8 : 8 + 192, left : left + 192].astype(int) - tile).max() <= 1


def test_overlap_compares_places_not_colours():
    x = -torch.ones(1, 3, 32, 32)
    left, right, blue = x.clone(), x.clone(), x.clone()
    left[:, 0, 4:12, 4:12] = right[:, 0, 4:12, 8:16] = blue[:, 2, 4:12, 4:12] = 1
    assert attention.overlap(left, blue) == 1 and attention.overlap(left, right) == pytest.approx(1 / 3)
    assert attention.overlap(x, left) == 0 == attention.overlap(x, x)


def test_the_word_list_follows_the_prompt(model):
    explorer = widgets.attention_explorer(model).set(inject=False, word=8)
    explorer.set(prompt="a small red circle")
    assert [text for text, _ in explorer.controls["word"].options] == ["1: a", "2: small", "3: red", "4: circle"]
    assert explorer.values["word"] == 4 and not explorer.failed
    explorer.set(prompt="a large red circle", word=2)
    assert explorer.controls["word"].label == "2: large"
    assert not explorer.set(prompt="").failed


def test_maps_are_lent_between_equally_long_prompts_only(model):
    explorer = widgets.attention_explorer(model)
    before = explorer.picture
    explorer.set(second="a red circle")
    assert explorer.failed and "got 3 words, expected 8" in explorer.note and explorer.picture == before
    assert not explorer.set(inject=False).failed and not explorer.set(second=attention.PROMPTS[1], inject=True).failed
    with pytest.raises(ShapeError, match="words"):
        attention.Runs(model).swapped("a ring", "a red ring", 0, 1.0)


# Adapters -----------------------------------------------------------------------------------------------------------


def test_strengths_are_the_adapters_scales_and_are_put_back(styles):
    model, made = styles
    made["stripes"].scale, made["pastel"].scale = 0.3, 0.7
    explorer = widgets.lora_strength(model, made).set(stripes=0.5, pastel=1.5, seed=4)
    assert (made["stripes"].scale, made["pastel"].scale) == (0.3, 0.7)
    with adapters.scales(made, {"stripes": 0.5, "pastel": 1.5}):
        prompt = explorer.values["prompt"]
        images = model.generate([prompt] * 4, generator=seeded(4), rule=linear(3.0))
    shown = np.asarray(as_picture(explorer.picture).convert("RGB"))
    tile = viz.to_pixels(images, adapters.SCALE)[0]
    assert any((shown[k : k + 160, 8:168] == tile).all() for k in range(shown.shape[0] - 160))


def test_scales_are_put_back_after_an_error(styles):
    model, made = styles
    made["stripes"].scale = 0.25
    explorer = widgets.lora_strength(model, made)
    assert explorer.set(prompt="nonsense").failed and made["stripes"].scale == 0.25


def test_strength_zero_is_the_model_without_adapters(styles):
    explorer = widgets.lora_strength(*styles).set(stripes=0.0, pastel=0.0)
    assert "differ by 0.000" in explorer.note
    bare = tiny().generate([explorer.values["prompt"]] * 4, generator=seeded(0), rule=linear(3.0))
    shown = np.asarray(as_picture(explorer.picture).convert("RGB"))
    tile = viz.to_pixels(bare, adapters.SCALE)[0]
    assert any((shown[k : k + 160, 8:168] == tile).all() for k in range(40))


def test_bad_adapters_are_refused(model, styles):
    with pytest.raises(RangeError, match="adapters"):
        widgets.lora_strength(model, {})
    with pytest.raises(UnknownNameError, match="seed"):
        widgets.lora_strength(model, {"seed": styles[1]["stripes"]})
