"""The shapes world: scenes, captions that are true, drawing against exact areas, and an oracle that can say no."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw

from lecture_lib.data.shapes import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    VOCABULARY,
    Scene,
    Scenes,
    Thing,
    caption,
    captioned,
    draw,
    draw_scenes,
    glosses,
    judge_captions,
    kept_for_test,
    parse,
    read,
    relation,
)
from lecture_lib.data.shapes.captions import place
from lecture_lib.data.shapes.drawing import coverage
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError, UnknownNameError

SPLITS = ("train", "test", "held_out")
N = 2000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=SPLITS)
def world(request):
    """(split, 2000 captioned scenes of it)."""
    return request.param, captioned(N, generator(7), split=request.param)


def test_the_same_generator_gives_the_same_world():
    a, b, c = captioned(50, generator()), captioned(50, generator()), captioned(50, generator(1))
    assert torch.equal(a.images, b.images) and a.captions == b.captions
    assert not torch.equal(a.images, c.images) and a.captions != c.captions
    state = torch.get_rng_state()
    captioned(5, generator())
    assert torch.equal(state, torch.get_rng_state())


def test_things_lie_inside_and_apart(world):
    scenes = world[1].scenes
    reach = scenes.radius[..., None]
    there = torch.arange(2) < scenes.count[:, None]
    assert ((scenes.centre - reach)[there] >= 0.75 - 1e-4).all() and (
        (scenes.centre + reach)[there] <= 31.25 + 1e-4
    ).all()
    two = scenes.count == 2
    assert 0.45 < two.double().mean() < 0.55
    apart = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs().amax(1) - scenes.radius.sum(1)
    assert apart[two].min() >= 2 - 1e-4


def test_held_out_pairs_stay_where_they_belong(world):
    split, data = world
    pairs = [[(t.shape, t.colour) in HELD_OUT for t in data.scenes[i].things] for i in range(N)]
    assert all(row[0] for row in pairs) if split == "held_out" else not any(map(any, pairs))
    first = {data.scenes[i].things[0].shape for i in range(N)}
    assert first == set(SHAPES)


def test_captions_are_true_and_in_the_vocabulary(world):
    told = set()
    for i, text in enumerate(world[1].captions):
        scene, wish = world[1].scenes[i], parse(text)
        assert wish.things == tuple((t.shape, t.colour, t.size) for t in scene.things)
        assert wish.background == scene.background
        if len(scene.things) == 2:
            (x, y), (p, q) = (t.centre for t in scene.things)
            far = {"left of": p - x, "right of": x - p, "above": q - y, "below": y - q}
            assert wish.place is None and far[wish.relation] == max(far.values())
        else:
            x, y = scene.things[0].centre
            inside = 12 <= x <= 20 and 12 <= y <= 20
            true = {"on the left": x < 12, "on the right": x > 20, "at the top": y < 12, "at the bottom": y > 20}
            assert wish.relation is None and (true | {None: True, "in the middle": inside})[wish.place]
        assert set(text.split()) <= set(VOCABULARY)
        told |= {wish.place, wish.relation}
    assert len(told) == 10  # every place, every relation, and none


def test_a_gloss_brings_together_what_a_caption_says_of_a_thing(world):
    for i in range(300):
        scene = world[1].scenes[i]
        for text in (caption(scene), *(caption(scene, generator(k)) for k in range(3))):
            told, words = glosses(text), text.split()
            assert len(told.owner) == len(words) and len(told.texts) == 1 + len(scene.things)
            assert set(" ".join(told.texts).split()) <= set(VOCABULARY)
            for number, thing in enumerate(scene.things, start=1):
                own = [word for word, owner in zip(words, told.owner, strict=True) if owner == number]
                assert len(own) == 4 and own[2] == thing.colour  # a SIZE COLOUR SHAPE
                assert f"a {thing.size} {thing.colour} {thing.shape}" in told.texts[number]
        if len(scene.things) == 2:
            sides = [gloss.split(" a ")[0] for gloss in glosses(caption(scene)).texts[1:]]
            pairs = [("on the left", "on the right"), ("on the right", "on the left"), ("at the top", "at the bottom")]
            assert tuple(sides) == dict(zip(("left of", "right of", "above"), pairs, strict=True)).get(
                relation(*scene.things), ("at the bottom", "at the top")
            )
    told = glosses("there is a big red disc over a little blue plus on a white background")
    assert told.texts == (
        "on a white background",
        "at the top a large red circle on a white background",
        "at the bottom a small blue cross on a white background",
    )
    assert told.owner == (0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0, 0, 0)
    assert glosses("a picture of a small red circle in the middle").texts == ("", "in the middle a small red circle")


def test_the_test_captions_are_kept_from_training(world):
    split, data = world
    kept = [kept_for_test(text) for text in data.captions]
    if split == "train":
        assert not any(kept)
    elif split == "test":
        assert sum(kept) / N > 0.93  # no wording of the other scenes is kept


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.995), (0.1, 0.99)])
def test_the_oracle_confirms_true_captions(world, noise, least):
    n = 600
    images = world[1].images[:n]
    images = images + noise * torch.randn(images.shape, generator=generator(3))
    rates = judge_captions(images, world[1].captions[:n]).rates()
    assert min(rates.values()) >= least, rates


def other(value: str, known) -> str:
    """The next name after a value."""
    names = tuple(known)
    return names[(names.index(value) + 1) % len(names)]


def wrong_in(judged, attribute: str) -> bool:
    """Whether everything but one attribute (and `all`) is right."""
    return judged.rates() == {name: float(name not in (attribute, "all")) for name in judged.rates()}


PAIRS = [
    scene
    for scenes in [draw_scenes(80, torch.Generator().manual_seed(5), two=1.0)]
    for scene in (scenes[i] for i in range(80))
    if scene.things[0].shape != scene.things[1].shape and scene.things[0].colour != scene.things[1].colour
][:30]


@pytest.mark.parametrize(("attribute", "known"), [("shape", SHAPES), ("colour", COLOURS), ("size", SIZES)])
@pytest.mark.parametrize("which", [0, 1])
def test_the_oracle_sees_exactly_the_attribute_that_is_wrong(attribute, known, which):
    for scene in PAIRS:
        things = list(scene.things)
        changed = {attribute: other(getattr(things[which], attribute), known)}
        things[which] = dataclasses.replace(things[which], **changed)
        false = caption(dataclasses.replace(scene, things=tuple(things)))
        assert wrong_in(judge_captions(draw(Scenes.of([scene])), [false]), attribute), (caption(scene), false)


def test_the_oracle_sees_wrong_relations_backgrounds_and_counts():
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in PAIRS:
        image, true, told = draw(Scenes.of([scene])), caption(scene), relation(*scene.things)
        assert judge_captions(image, [true]).all.all()
        assert wrong_in(judge_captions(image, [true.replace(told, opposite[told])]), "relation"), true
        ground = dataclasses.replace(scene, background=other(scene.background, ("black", "grey", "white")))
        assert wrong_in(judge_captions(image, [caption(ground)]), "background"), true
        alone = judge_captions(image, [caption(dataclasses.replace(scene, things=scene.things[:1]))])
        assert not alone.count.any() and not alone.all.any()


def test_the_oracle_sees_wrong_places():
    image = draw(Scenes.of([Scene((Thing("ring", "red", "small", (7.0, 16.0)),))]))
    text = "a small red ring"
    for where in ("on the right", "at the top", "at the bottom", "in the middle"):
        assert wrong_in(judge_captions(image, [f"{text} {where}"]), "place"), where
    assert judge_captions(image, [f"{text} on the left"]).all.all()


def test_the_oracle_sees_nothing_in_nothing_and_nothing_good_in_noise():
    assert read(torch.zeros(1, 3, 32, 32))[0].things == ()
    noise = torch.randn(20, 3, 32, 32, generator=generator()).clamp(-1, 1)
    assert not judge_captions(noise, ["a small red circle"] * 20).all.any()


# Drawing, against corners written down here and 16 x 16 points per pixel


CORNERS = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
    "cross": [
        (a * x, a * y)
        for a in (1, -1)
        for x, y in ((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3))
    ],
}
AREAS = {
    "circle": math.pi,
    "square": 4,
    "triangle": 2,
    "diamond": 2,
    "ring": 0.75 * math.pi,
    "cross": 4 * 0.3 * 2 - 4 * 0.3**2,
}


def sampled(name: str, x: float, y: float, r: float, fine: int = 16) -> torch.Tensor:
    """Share of each pixel's points that lie inside."""
    axis = ((torch.arange(32 * fine) + 0.5) / fine).double()
    px, py = torch.meshgrid((axis - x) / r, (axis - y) / r, indexing="xy")
    if name in CORNERS:
        points = torch.stack([px.flatten(), py.flatten()], 1).numpy()
        inside = torch.from_numpy(Outline(CORNERS[name]).contains_points(points)).view_as(px)
    else:
        rho = torch.hypot(px, py)
        inside = (rho <= 1) & (rho >= (0.5 if name == "ring" else 0.0))
    return inside.double().view(32, fine, 32, fine).mean((1, 3))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("r", SIZES.values())
def test_drawing_covers_what_the_exact_region_covers(name, r):
    for x, y in ((16.0, 16.0), (13.3, 18.85)):
        exact = sampled(name, x, y, r)
        mine = coverage(name, torch.tensor([[x, y]]), torch.tensor([r]))[0].double()
        touched = (exact > 0) | (mine > 0)
        assert (mine - exact).abs()[touched].mean() < (0.05 if name == "cross" else 0.03)  # twelve corners
        assert exact.sum().item() == pytest.approx(AREAS[name] * r**2, rel=0.01)
        assert mine.sum().item() == pytest.approx(AREAS[name] * r**2, rel=0.03)


@pytest.mark.parametrize("name", CORNERS)
def test_drawing_agrees_with_pillow(name):
    canvas = Image.new("L", (1024, 1024))
    ImageDraw.Draw(canvas).polygon([(512 + 216 * x, 512 + 216 * y) for x, y in CORNERS[name]], fill=1)
    area = sum(canvas.tobytes()) / 32**2
    mine = coverage(name, torch.tensor([[16.0, 16.0]]), torch.tensor([6.75]))
    assert mine.sum().item() == pytest.approx(area, rel=0.03)


def test_colours_and_grounds_are_those_of_the_palette():
    scene = Scene((Thing("square", "orange", "large", (10.5, 20.5)),), "black")
    image = draw(Scenes.of([scene]))[0]
    assert image[:, 20, 10].tolist() == pytest.approx(COLOURS["orange"], abs=1e-6)  # row = y, column = x
    assert (image[:, 10, 20] == -1).all() and image.abs().max() <= 1


def test_twice_the_side_is_the_same_picture():
    scenes = draw_scenes(100, generator(2))
    small, large = draw(scenes), torch.nn.functional.avg_pool2d(draw(scenes, 64), 2)
    difference = (small - large).abs()
    assert difference.mean() < 0.002 and difference.max() < 0.7  # of a range of 2, at corners


def test_scenes_in_words_and_in_tensors_are_the_same():
    scenes = draw_scenes(60, generator(4))
    again = Scenes.of([scenes[i] for i in range(60)])
    assert torch.equal(draw(scenes), draw(again)) and torch.equal(scenes.count, again.count)
    assert torch.equal(scenes.take(slice(5, 9)).centre, scenes.centre[5:9])


def test_places_overlap_only_as_they_should():
    assert place(Thing("ring", "red", "small", (16.0, 16.0))) == ("in the middle",)
    assert place(Thing("ring", "red", "small", (6.0, 6.0))) == ("on the left", "at the top")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: draw_scenes(3, generator(), split="valid"), UnknownNameError, "split"),
        (lambda: draw_scenes(0, generator()), RangeError, "n"),
        (lambda: draw_scenes(3, generator(), two=1.5), RangeError, "two"),
        (lambda: Thing("star", "red", "small", (9, 9)), UnknownNameError, "shape: got 'star'"),
        (lambda: Thing("ring", "teal", "small", (9, 9)), UnknownNameError, "colour"),
        (lambda: Thing("ring", "red", "tiny", (9, 9)), UnknownNameError, "size"),
        (lambda: Scene(()), RangeError, "things"),
        (lambda: Scene((Thing("ring", "red", "small", (9, 9)),), "blue"), UnknownNameError, "background"),
        (lambda: draw(draw_scenes(1, generator()), 0), RangeError, "side"),
        (lambda: parse("nothing at all"), UnknownNameError, "text"),
        (lambda: parse("a small red circle a large blue ring"), UnknownNameError, "one relation"),
        (lambda: read(torch.zeros(1, 3, 28, 28)), ShapeError, "images"),
        (lambda: read(torch.full((1, 3, 32, 32), math.nan)), NonFiniteError, "images"),
        (lambda: judge_captions(torch.zeros(2, 3, 32, 32), ["a small red ring"]), ShapeError, "captions"),
    ],
)
def test_wrong_arguments_are_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("second", ["a blue square", "a large blue hexagon", "blue square"])
def test_a_second_thing_that_cannot_be_read_is_not_left_out(second):
    """A picture of both was judged to have one thing too many."""
    with pytest.raises(UnknownNameError, match="two things"):
        parse(f"a small red circle left of {second}")
