"""Pictures: exact pixels, one colour per meaning, no trace left in matplotlib's global state."""

from __future__ import annotations

import base64
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from lecture_lib import viz
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.viz.style import DATA_UNIT


def ramp(b=4, c=1, h=2, w=3):
    return torch.linspace(-1, 1, b * c * h * w).reshape(b, c, h, w)


def test_enlarging_repeats_every_pixel_exactly():
    x = ramp()
    small, large = viz.to_pixels(x), viz.to_pixels(x, scale=5)
    assert large.shape == (4, 10, 15, 3)
    assert (large[:, ::5, ::5] == small).all() and (large[:, 4::5, 4::5] == small).all()
    assert small[0, 0, 0, 0] == 0 and small[-1, -1, -1, 0] == 255


def test_values_outside_the_range_are_clipped_not_wrapped():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert viz.to_pixels(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_colour_channels_keep_their_places():
    x = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert (viz.to_pixels(x)[0] == np.array([255, 0, 0])).all()


@pytest.mark.parametrize(
    ("x", "scale", "error"),
    [
        (torch.zeros(8, 8), 1, ShapeError),
        (torch.zeros(1, 2, 8, 8), 1, ShapeError),
        (torch.full((1, 1, 8, 8), float("nan")), 1, NonFiniteError),
        (torch.zeros(1, 1, 8, 8), 0, RangeError),
        (torch.zeros(1, 1, 8, 8), 2.5, RangeError),
    ],
)
def test_bad_images_are_refused_by_name(x, scale, error):
    with pytest.raises(error, match=r"^(x|scale)"):
        viz.to_pixels(x, scale)


def test_grid_places_images_row_by_row():
    x = ramp(6, 1, 4, 4)
    grid = np.asarray(viz.image_grid(x, columns=3, scale=2, gap=4))
    cells = viz.to_pixels(x, 2)
    for k in range(6):
        top, left = 8 + (k // 3) * 12, 8 + (k % 3) * 12
        assert (grid[top : top + 8, left : left + 8] == cells[k]).all(), k


def test_labels_must_match_the_grid():
    with pytest.raises(ShapeError, match="row_labels"):
        viz.image_grid(ramp(6), columns=3, row_labels=["only one"])
    with pytest.raises(ShapeError, match="column_labels"):
        viz.image_grid(ramp(6), columns=3, column_labels=["a", "b"])


def test_numbers_become_the_colours_of_their_place_on_the_scale():
    values = np.array([[[-9.0, -2.0, 0.0, 2.0, 9.0]]])
    for diverging, name in ((False, "cividis"), (True, "PuOr")):
        images = viz.coloured(values, -2.0, 2.0, diverging=diverging)
        assert images.shape == (1, 3, 1, 5) and np.abs(images).max() <= 1
        ends = [2 * np.array(matplotlib.colormaps[name](share)[:3]) - 1 for share in (0.0, 1.0)]
        for place, end in ((0, ends[0]), (1, ends[0]), (3, ends[1]), (4, ends[1])):  # beyond the ends: as at the ends
            assert np.allclose(images[0, :, 0, place], end)
    assert (viz.coloured(values, -2.0, 2.0, diverging=True)[0, :, 0, 2] > 0.9).all()  # zero is (nearly) white
    with pytest.raises(NonFiniteError, match="values"):
        viz.coloured(values * np.nan, -2.0, 2.0)
    with pytest.raises(RangeError, match="low"):
        viz.coloured(values, 2.0, 2.0)


def test_the_bar_runs_through_the_scale_from_left_to_right():
    bar = np.asarray(viz.colour_bar(-1.0, 1.0, "cosine", diverging=True, width=101))
    row = bar[10].astype(float) / 127.5 - 1
    strip = viz.coloured(np.linspace(-1, 1, 101)[None, None], -1.0, 1.0, diverging=True)[0, :, 0].T
    places = [k for k in range(len(row) - 101) if np.abs(row[k : k + 101] - strip).max() < 0.01]
    assert len(places) == 1


def test_png_is_lossless_and_small():
    picture = viz.image_grid(ramp(16, 1, 8, 8), columns=8, row_labels=["w = 0", "w = 4"])
    png = viz.png_bytes(picture)
    assert (np.asarray(viz.as_picture(png).convert("RGB")) == np.asarray(picture)).all()
    assert len(png) < 10_000
    coloured = Image.new("RGB", (3, 3), viz.GUIDED)
    assert viz.as_picture(viz.png_bytes(coloured)).convert("RGB").getpixel((1, 1)) == (0xD5, 0x5E, 0x00)


def test_captions_wrap_under_their_images_and_never_widen_the_grid():
    x, long = ramp(3, 3, 32, 32), "a small red circle left of a large blue square"
    short, wrapped = (np.asarray(viz.captioned_grid(x, [text] * 3, scale=4, gap=10)) for text in ("red", long))
    assert short.shape[1] == wrapped.shape[1] == 2 * 8 + 3 * 128 + 2 * 10
    assert wrapped.shape[0] > short.shape[0]
    for k in range(3):  # the pixels themselves, exactly, and ink below them
        left = 8 + k * (128 + 10)
        assert (wrapped[8:136, left : left + 128] == viz.to_pixels(x, 4)[k]).all()
        assert (wrapped[136:, left : left + 128] < 100).any()


def test_captioned_rows_make_room_for_their_longest_caption():
    x = ramp(4, 3, 32, 32)
    plain = viz.captioned_grid(x, [""] * 4, columns=2)
    lines = [viz.captioned_grid(x, ["a" + "\nb" * k, "", "", ""], columns=2).height for k in range(3)]
    assert len(set(np.diff(lines))) == 1 and lines[0] > plain.height == viz.captioned_grid(x, [], columns=2).height
    word = viz.captioned_grid(x, ["incomprehensibilities " * 2, "", "", ""], columns=2)  # wider than its image
    assert word.width > plain.width and viz.captioned_grid(x, [], columns=2, width=200).width == 2 * 200 + 14 + 16
    with pytest.raises(ShapeError, match="captions"):
        viz.captioned_grid(x, ["only one"])


def test_one_colour_per_meaning():
    meanings = [viz.DATA, viz.NOISE, viz.UNCOND, viz.COND, viz.GUIDED, viz.EXACT, viz.STUDENT]
    assert meanings == ["#0072B2", "#999999", "#E69F00", "#009E73", "#D55E00", "#222222", "#CC79A7"]
    free = [colour for colour, _, _ in viz.OTHERS]
    assert len({*meanings, *free}) == len(meanings) + len(free)
    assert len({marker for _, marker, _ in viz.OTHERS}) == len(free)


X = np.linspace(-1, 1, 5)
FIGURES = {
    "density_curves": lambda: viz.density_curves(
        X, [viz.Curve(X**2, "p", viz.COND)], histograms=[viz.Histogram(X, "h", viz.GUIDED)]
    ),
    "density_contours": lambda: viz.density_contours(lambda p: -(p**2).sum(1), (-2, 2, -2, 2), points=20),
    "vector_field": lambda: viz.vector_field(np.eye(2), np.eye(2)),
    "trajectories": lambda: viz.trajectories(np.zeros((3, 4, 2))),
    "parallelogram": lambda: viz.parallelogram((0, 0), (1, 0), (0, 1), 3.0),
    "sweep": lambda: viz.sweep(
        [0, 1, 2], [viz.Line("a", [1, 2, 3], [0, 1, 2], [2, 3, 4])], ylabel="accuracy (fraction)"
    ),
    "tradeoff": lambda: viz.tradeoff([viz.Tradeoff("a", [0.9, 0.5], [0.1, 0.8], [0, 4])]),
    "heat_map": lambda: viz.heat_map(
        np.arange(6.0).reshape(2, 3), [0, 1, 2], [0.5, 1.0], xlabel="a (1)", ylabel="b (1)", value_label="c (1)"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_and_labels_both_axes_with_units(name):
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name]()
    assert viz.png_bytes(figure).startswith(b"\x89PNG")
    ax = figure.axes[0]
    assert "(" in ax.get_xlabel() and "(" in ax.get_ylabel()
    assert dict(matplotlib.rcParams) == before
    assert to_hex(figure.get_facecolor()) == "#ffffff"  # opaque: legible on dark pages too


def test_bars_write_their_numbers():
    figure = viz.bars(["two passes", "one"], [20, 10], xlabel="evaluations per sample (count)")
    assert [t.get_text() for t in figure.axes[0].texts] == ["20", "10"]


def test_parallelogram_tip_is_reference_plus_w_times_the_difference():
    figure = viz.parallelogram((1.0, 2.0), (1.0, 0.5), (-0.5, 1.0), 3.0, length=0.5)
    lever = figure.axes[0].lines[0].get_xydata()
    expected = np.array([1.0, 2.0]) + 0.5 * (np.array([1.0, 0.5]) + 3.0 * np.array([-1.5, 0.5]))
    assert np.allclose(lever[-1], expected)


def test_histogram_outside_the_window_is_not_rescaled_to_one():
    samples = np.array([0.0, 0.5, 5.0, 6.0])  # half of them lie outside [-1, 1]
    figure = viz.density_curves(X, [], histograms=[viz.Histogram(samples, "h", viz.GUIDED)], bins=10)
    values, edges, _ = figure.axes[0].patches[0].get_data()
    assert np.isclose((values * np.diff(edges)).sum(), 0.5)


def test_bad_numbers_are_refused_by_name():
    with pytest.raises(NonFiniteError, match="'p'"):
        viz.density_curves(X, [viz.Curve(X * np.nan, "p", viz.COND)])
    with pytest.raises(ShapeError, match="'p'"):
        viz.density_curves(X, [viz.Curve(X[:2], "p", viz.COND)])
    with pytest.raises(ShapeError, match="vectors"):
        viz.vector_field(np.eye(2), np.ones((3, 2)))
    with pytest.raises(ShapeError, match="paths"):
        viz.trajectories(np.zeros((3, 2)))
    with pytest.raises(NonFiniteError, match="a"):
        viz.sweep([0, 1], [viz.Line("a", [1, np.inf])], ylabel="y (1)")


def test_lines_without_a_meaning_look_different():
    looks = [tuple(map(str, viz.other(k).values())) for k in range(len(viz.OTHERS))]
    assert len(set(looks)) == len(looks)


def test_show_sends_png_with_words_then_the_caption(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: sent.append((a, k)))
    viz.show(viz.image_grid(ramp()), caption="Look at row two.", alt="Four grey ramps.")
    (data,), options = sent[0]
    assert options["raw"] and data["text/plain"] == "Four grey ramps." == options["metadata"]["image/png"]["alt"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert "Look at row two." in sent[1][0][0].data


def test_pictures_never_load_pyplot_and_the_library_never_loads_pictures():
    code = (
        "import sys, lecture_lib; assert 'matplotlib' not in sys.modules and 'ipywidgets' not in sys.modules;"
        "from lecture_lib import viz; viz.png_bytes(viz.bars(['a'], [1.0], xlabel='x (1)'));"
        "assert 'matplotlib.pyplot' not in sys.modules and 'ipywidgets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_axes_are_in_data_units():
    assert DATA_UNIT in FIGURES["vector_field"]().axes[0].get_xlabel()


class Talkative:
    def method(self, x):
        """What it does.

        In many words.
        """
        return x + 1

    def silent(self, x):
        return x - 1


@pytest.mark.parametrize(
    ("function", "printed"),
    [
        (Talkative.method, "def method(self, x):\n    return x + 1\n"),
        (Talkative.silent, "def silent(self, x):\n    return x - 1\n"),
    ],
)
def test_a_function_is_shown_without_its_docstring(function, printed, capsys):
    viz.show_source(function)
    assert capsys.readouterr().out == printed


def test_half_precision_of_either_kind_is_drawn_like_single():
    for dtype in (torch.bfloat16, torch.float16, torch.int8):
        x = torch.tensor([-1, 0, 1]).reshape(1, 1, 1, 3)
        assert (viz.to_pixels(x.to(dtype)) == viz.to_pixels(x.float())).all()


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: viz.image_grid(torch.zeros(0, 1, 8, 8)), ShapeError, "x: got no images"),
        (lambda: viz.captioned_grid(torch.zeros(0, 1, 8, 8), []), ShapeError, "x: got no images"),
        (lambda: viz.image_grid(ramp(), columns=-1), RangeError, "columns: got -1"),
        (lambda: viz.captioned_grid(ramp(), [], columns=0), RangeError, "columns: got 0"),
        (lambda: viz.vector_field(np.zeros((0, 2)), np.zeros((0, 2))), ShapeError, "points"),
        (lambda: viz.density_curves([0, 1], [], histograms=[viz.Histogram([], "h", viz.DATA)]), ShapeError, "'h'"),
        (lambda: viz.density_contours(lambda p: p[:, 0] - np.inf, (0, 1, 0, 1)), NonFiniteError, "log_density.*-inf"),
        (lambda: viz.density_contours(lambda p: p[:, 0] + np.inf, (0, 1, 0, 1)), NonFiniteError, "log_density.*inf"),
    ],
)
def test_nothing_to_draw_is_said_by_name(call, error, name):
    with pytest.raises(error, match=name):
        call()


def test_a_single_arrow_has_a_length():
    figure = viz.vector_field([[2.0, 1.0]], [[0.0, 3.0]])
    (arrow,) = figure.axes[0].collections
    assert arrow.scale == 3.0  # so that it is one data unit long
