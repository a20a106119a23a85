"""The widgets of Lecture 2: every control is fired at both ends, and every scene says what is true."""

from __future__ import annotations

import re

import ipywidgets
import numpy as np
import pytest
import torch

from lecture_lib import widgets
from lecture_lib.errors import RangeError
from lecture_lib.oracles import Gaussian, guided_moments, guided_ode_variance
from lecture_lib.samplers import DPMSolverPP2M
from lecture_lib.viz import COND, GUIDED, UNCOND, as_picture
from lecture_lib.widgets import digits, laws, plane, repairs
from tests.widget_laws import one_thread  # noqa: F401 - a fixture

MAKERS = {
    "guidance_sweep": widgets.guidance_sweep,
    "interval_explorer": widgets.interval_explorer,
    "two_conventions": widgets.two_conventions,
    "repairs_explorer": widgets.repairs_explorer,
    "mixture_playground": widgets.mixture_playground,
    "negative_prompt": widgets.negative_prompt,
    "parallelogram_explorer": widgets.parallelogram_explorer,
}


def some_values(control: ipywidgets.Widget) -> list:
    """Both ends and the middle of a slider, every option of a list."""
    if isinstance(control, ipywidgets.Dropdown):
        return [value for _, value in control._options_full]
    middle = control.min + control.step * round((control.max - control.min) / control.step / 2)
    return [control.min, type(control.value)(middle), control.max]


@pytest.mark.parametrize("name", MAKERS)
def test_every_control_changes_the_picture_at_every_value(name):
    explorer = MAKERS[name]()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument, control in explorer.controls.items():
        home, pictures = control.value, {}
        for value in some_values(control):
            explorer.set(**{argument: value})
            pictures[value] = explorer.picture
            assert explorer.failed == ("expected" in explorer.note or "No picture" in explorer.note), explorer.note
        explorer.set(**{argument: home})
        twins = 1 if argument == "sampler" else 0  # Euler and DDIM are one method on the path of rectified flow
        assert len(set(pictures.values())) == len(pictures) - twins, (argument, [len(p) for p in pictures.values()])


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_settings_give_the_same_picture(name):
    assert MAKERS[name]().picture == MAKERS[name]().picture


def pixels(picture) -> np.ndarray:
    return np.asarray(as_picture(picture).convert("RGB")).reshape(-1, 3)


def has_colour(picture, colour: str) -> bool:
    return (pixels(picture) == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(1).any()


# The sweep ----------------------------------------------------------------------------------------------------------


def test_w_one_is_plain_conditional_and_costs_one_branch():
    plain = list(digits.sweep_scenes(1.0, 4, "Euler", 3, -1, 0))[-1]
    batch = digits.drawn(digits.model().given(3), torch.full((16,), 3), steps=4, seed=0)
    assert "; 4 network evaluations" in plain.note and batch.nfe == 4
    assert plain.png == digits.Scene(digits._tiles(batch, 3)).png


def test_two_branches_are_counted():
    assert "; 8 network evaluations" in list(digits.sweep_scenes(3.0, 4, "Euler", 3, -1, 0))[-1].note
    assert "; 14 network evaluations" in list(digits.sweep_scenes(3.0, 4, "Heun", 3, -1, 0))[-1].note


def test_w_zero_ignores_the_class_and_guidance_finds_it():
    free, guided = (list(digits.sweep_scenes(w, 10, "Euler", -1, -1, 0))[-1].note for w in (0.0, 3.0))
    reads = [int(re.search(r"reads (\d+) of 20", note).group(1)) for note in (free, guided)]
    assert reads[0] <= 8 and reads[1] >= 18


def test_long_runs_show_themselves_on_the_way():
    scenes = list(digits.sweep_scenes(2.0, 25, "Euler", 3, -1, 0))
    assert [scene.progress for scene in scenes] == [0.4, 0.8, 1.0]
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_half_finished_run_leaves_no_inference_mode_behind():
    scenes = digits.sweep_scenes(2.0, 25, "Euler", 3, -1, 0)
    next(scenes)
    assert not torch.is_inference_mode_enabled()
    scenes.close()
    assert not torch.is_inference_mode_enabled()


def test_negative_class_pushes_away():
    plain, pushed = (list(digits.sweep_scenes(3.0, 10, "Euler", 3, n, 0))[-1] for n in (-1, 8))
    assert plain.png != pushed.png
    same = list(digits.sweep_scenes(3.0, 10, "Euler", 3, 3, 0))[-1]  # "3 but not 3" is 3 at any scale
    unguided = list(digits.sweep_scenes(1.0, 10, "Euler", 3, -1, 0))[-1]
    close = np.abs(pixels(same.png).astype(int) - pixels(unguided.png).astype(int)).max()
    assert close <= 1  # one grey level: two branches round differently from one


# Interval, conventions, repairs ---------------------------------------------------------------------------------------


def test_interval_that_spans_everything_is_plain_guidance_and_an_empty_one_is_refused():
    everywhere = digits.reference_row(4.0, 8, 0)
    labels = torch.arange(10)
    scene = digits.interval_scene(4.0, 0.0, 1.0, 8, 0)
    assert "from 0 to inf" in scene.note and everywhere.nfe == 16
    with pytest.raises(RangeError, match="low"):
        digits.interval_scene(4.0, 0.6, 0.6, 8, 0)
    explorer = widgets.interval_explorer().set(low=0.9, high=0.3)
    assert explorer.failed and explorer.note == "low: got t = 0.9, expected a time below high = 0.3"
    assert len(labels) == len(everywhere.labels)


def test_the_two_conventions_agree_and_the_trap_does_not():
    explorer = widgets.two_conventions()
    for name, value, other in (("w", 5.0, ("extra", 4.0)), ("extra", 0.0, ("w", 1.0))):
        explorer.set(**{name: value})
        assert explorer.values[other[0]] == other[1]
        same, wrong = map(float, re.search(r"second row ([\d.e+-]+), third row (\d+\.\d+)", explorer.note).groups())
        assert same < 1e-3 < wrong


def test_a_moved_twin_slider_draws_consistent_settings():
    explorer = widgets.two_conventions()
    seen = []
    inner = explorer.draw
    explorer.draw = lambda **values: (seen.append(values), inner(**values))[1]
    explorer.controls["w"].value = 6.5
    explorer.controls["extra"].value = 1.5
    assert seen and all(values["extra"] == values["w"] - 1 for values in seen)


@pytest.mark.parametrize("name", ["rescale", "projected (APG)", "limited interval"])
def test_strength_zero_leaves_guidance_alone(name):
    labels, repair = torch.arange(10), repairs.REPAIRS[name]
    denoise = repair.build(labels, 4.0, repair.value(0.0))
    mended = digits.drawn(denoise, labels, steps=6, seed=0)
    assert torch.allclose(mended.images, digits.reference_row(4.0, 6, 0).images, atol=1e-3)


def test_at_w_one_there_are_three_rows_as_everywhere():
    one, more = (repairs.repair_scene("rescale", 0.5, w, 4, 0) for w in (1.0, 1.5))
    assert one.picture.height == more.picture.height
    assert one.note.count("%") == more.note.count("%") == 3


def test_repairs_reduce_saturation():
    strong = digits.reference_row(8.0, 10, 0).outside
    labels = torch.arange(10)
    # Rescaling is not among them: it restores the spread of v, which need not bring pixels back into range (lab, 5.4).
    for name in ("dynamic threshold", "projected (APG)", "CFG++"):
        repair = repairs.REPAIRS[name]
        mended = digits.drawn(
            repair.build(labels, 8.0, repair.value(0.8)), labels, steps=10, seed=0, sampler=digits.DDIM()
        )
        assert mended.outside < strong, name


# One dimension and two ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "base_width"), [(0.5, 1.0), (0.5, 0.2), (0.2, 1.0)])
def test_a_few_percent_are_said_only_where_they_are_a_few(width, base_width):
    pair = Gaussian(0.0, base_width**2), Gaussian(1.0, width**2)
    exact = guided_ode_variance(*pair, 3.0), guided_moments(*pair, 3.0, stochastic=1.0).var
    worlds, runs = laws.world("two Gaussians", 1.0, width, base_width), ((laws.DPMSolverPP2M(), 48), (laws.SDE, 80))
    found = [float(laws.guided_samples(*worlds, 3.0, sampler, steps=steps).var()) for sampler, steps in runs]
    few = all(abs(a / b - 1) < 0.1 for a, b in zip(found, exact, strict=True))
    note = laws.mixture_scene("two Gaussians", 3.0, 1.0, width, base_width).note
    assert ("a few percent" in note) == few == (width == 0.5 and base_width == 1.0)
    assert few or "{:.2g} and {:.2g} times those".format(*(a / b for a, b in zip(found, exact, strict=True))) in note


def test_samples_have_the_variance_of_the_closed_form():
    p, p_c = Gaussian(0.0, 1.0), Gaussian(1.0, 0.25)
    ode = laws.guided_samples(p.mixture(), p_c.mixture(), 3.0, DPMSolverPP2M(), steps=48)
    sde = laws.guided_samples(p.mixture(), p_c.mixture(), 3.0, laws.SDE, steps=80)
    assert float(ode.var()) == pytest.approx(0.015625, rel=0.05)
    assert float(sde.var()) == pytest.approx(guided_moments(p, p_c, 3.0, stochastic=1.0).var, rel=0.1)
    note = laws.mixture_scene("two Gaussians", 3.0, 1.0, 0.5, 1.0).note
    assert all(number in note for number in ("0.0156", "0.0666", "0.1000"))


def test_playground_uses_the_colours_of_their_meanings():
    picture = laws.mixture_scene("two Gaussians", 3.0, 1.0, 0.5, 1.0).png
    assert all(has_colour(picture, colour) for colour in (UNCOND, COND, GUIDED))


def test_p_w_is_missing_where_it_does_not_exist_and_the_widget_says_so():
    scene = laws.mixture_scene("two Gaussians", 6.0, 1.0, 1.2, 0.6)
    assert "No density p_w" in scene.note and scene.png.startswith(b"\x89PNG")


@pytest.mark.parametrize(("w", "there"), [(2.0, True), (3.0, True), (3.25, True), (3.5, False)])
def test_p_w_beyond_the_picture_is_not_called_missing(w, there):
    """Widths 1.2 and 1: the precision of p_w is (1 - w) + w / 1.44, which is positive up to w = 3.27."""
    scene = laws.mixture_scene("two Gaussians", w, 1.0, 1.2, 1.0)
    assert ("No density p_w" not in scene.note) == there
    assert ("beyond" in scene.note) == (there and w > 2.0)


@pytest.mark.parametrize("name", laws.WORLDS[1:])
def test_p_w_of_a_class_among_others_always_exists(name):
    """p is at least a share of p_c, so that p_w is bounded by a multiple of p_c."""
    for w, width, base_width in [(8.0, 1.5, 0.2), (8.0, 0.2, 2.0), (3.0, 1.5, 1.5)]:
        assert "No density" not in laws.mixture_scene(name, w, 3.0, width, base_width).note


def test_product_of_experts_exists_or_is_said_not_to():
    assert laws.product_scene(2.0, 1.0, -0.5, 0.6, 0.8).note.startswith("The product exists")
    gone = laws.product_scene(6.0, 1.0, -0.5, 0.9, 0.5)
    assert gone.note.startswith("No distribution exists") and "not normalisable" in gone.note


def test_parallelogram_vectors_are_exact_and_affine():
    uncond, cond = plane.scaled_scores(2, (1.6, 0.9), 0.35)
    law, path, t = plane.three_classes(), plane.VPCosine(), torch.tensor([0.35], dtype=torch.float64)
    x = torch.tensor([[1.6, 0.9]], dtype=torch.float64, requires_grad=True)
    for got, density in ((uncond, law), (cond, law.given(2))):
        (gradient,) = torch.autograd.grad(density.log_prob(x, path, t).sum(), x)
        assert np.allclose(got, (path.sigma(t) * gradient[0]).detach().numpy(), atol=1e-12)
