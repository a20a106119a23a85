"""The notebook pipeline on small notebooks of its own: run, measure, tidy, save, compare, and read offline."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from PIL import Image, ImageChops

from lecture_lib.errors import CourseError
from lecture_lib.tooling import execute, headers, mathml, outputs, pairing, reading, running
from lecture_lib.tooling.headers import Cost
from lecture_lib.tooling.project import Notebook

HEAD = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

"""
TEXT = r"""# %% [markdown]
# # A title with $p_w$
#
# What it is about. And more.
#
# **Time** 5 min reading · runs in ? s · peak memory ? GB (? CPU cores)

# %% [markdown]
# ## Section
# $$\nabla\log p_w = w\,\nabla\log p \tag{L2.1}$$
#
# Inline $\alpha_t < \sigma_t$, and a price of \$5. See [the lab](toy_lab.ipynb#part).

"""
CODE = """# %%
# NBVAL_CHECK_OUTPUT
print(6 * 7)

# %%
import base64
from IPython.display import display

png = base64.b64encode(open("dot.png", "rb").read()).decode()
view = {"version_major": 2, "version_minor": 0, "model_id": "dead"}
display({"application/vnd.jupyter.widget-view+json": view, "image/png": png, "text/plain": "Box()"}, raw=True)
"""


@pytest.fixture
def book(tmp_path):
    """A notebook with text, a formula, a checked cell and a widget that sends a picture along."""
    Image.new("RGB", (8, 8), (0, 114, 178)).save(tmp_path / "dot.png")
    source = tmp_path / "toy_lecture.py"
    source.write_text(HEAD + TEXT + CODE, encoding="utf-8")
    return Notebook(source)


@pytest.fixture
def built(book):
    execution = execute.execute(book)
    running.save(book, outputs.tidy(execution.notebook), execution.cost)
    return book


def cells(book):
    return json.loads(book.paired.read_text(encoding="utf-8"))["cells"]


def test_a_built_notebook_agrees_with_its_source_and_has_its_outputs(built):
    assert pairing.drift(built) == ""
    code = [cell for cell in cells(built) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [1, 2]
    assert code[0]["outputs"][0]["text"] == ["42\n"]
    assert list(code[1]["outputs"][0]["data"]) == ["image/png"], "the widget is dead, its picture stays"


def test_the_measured_cost_is_in_both_forms(built):
    texts = [built.source.read_text(encoding="utf-8"), "".join(cells(built)[0]["source"])]
    costs = {headers.recorded(text, built.name) for text in texts}
    assert len(costs) == 1
    cost = costs.pop()
    assert 1 <= cost.seconds < 60 and 0.02 < cost.gigabytes < 1 and cost.cores == execute.cores()


def test_building_twice_gives_the_same_file(built):
    def without_time(text):
        return headers.LINE.sub("", text)

    before = built.paired.read_text(encoding="utf-8")
    execution = execute.execute(built)
    running.save(built, outputs.tidy(execution.notebook), execution.cost)
    assert without_time(built.paired.read_text(encoding="utf-8")) == without_time(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [("6 * 7", "6 * 8"), ("What it is about", "What it was about"), ("# %%\nimport", "# %%\n\n# %%\nimport")],
)
def test_an_edit_of_the_source_is_a_drift(built, old, new):
    built.source.write_text(built.source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert pairing.drift(built)


def test_an_edit_of_the_notebook_is_a_drift(built):
    built.paired.write_text(built.paired.read_text(encoding="utf-8").replace("6 * 7", "6 * 8"), encoding="utf-8")
    assert "6 * 8" in pairing.drift(built)


def test_a_missing_notebook_is_a_drift(book):
    assert "missing" in pairing.drift(book)


def test_another_version_of_jupytext_is_no_drift(built):
    text = built.source.read_text(encoding="utf-8")
    assert "jupytext_version" in text
    built.source.write_text(re.sub("jupytext_version: .*", "jupytext_version: 9.9.9", text), encoding="utf-8")
    assert pairing.drift(built) == ""


def test_a_failing_cell_stops_the_notebook_and_is_named(book):
    book.source.write_text(HEAD + TEXT + "# %%\n1 / 0\n", encoding="utf-8")
    with pytest.raises(execute.CellFailedError, match=r"toy_lecture, cell 3 of 3(.|\n)*ZeroDivisionError"):
        execute.execute(book)


def test_a_cell_that_hangs_is_stopped(book):
    book.source.write_text(HEAD + TEXT + "# %%\nimport time\ntime.sleep(60)\n", encoding="utf-8")
    with pytest.raises(execute.CellFailedError, match="toy_lecture, cell 3"):
        execute.execute(book, timeout=2)


def test_a_dead_kernel_is_an_error(book):
    book.source.write_text(HEAD + TEXT + "# %%\nimport os\nos._exit(1)\n", encoding="utf-8")
    with pytest.raises(execute.CellFailedError):
        execute.execute(book)


def test_peak_memory_is_that_of_the_kernel(book):
    book.source.write_text(HEAD + TEXT + "# %%\nblock = bytearray(400_000_000)\ndel block\n", encoding="utf-8")
    assert 0.4 < execute.execute(book).cost.gigabytes < 0.8


# --- headers -----------------------------------------------------------------------------------------------------


def test_cost_is_written_and_read_back():
    text = headers.with_cost(TEXT, Cost(73.6, 0.94, 2))
    assert "**Time** 5 min reading · runs in 74 s · peak memory 0.9 GB (2 CPU cores)" in text
    assert headers.recorded(text, "x") == Cost(74, 0.9, 2)


@pytest.mark.parametrize("text", [TEXT, "no such line"])
def test_an_unmeasured_notebook_is_an_error(text):
    with pytest.raises(CourseError, match="Time"):
        headers.recorded(text, "x")


def test_budgets():
    assert headers.budget("L2_guidance_lab").seconds == 360
    assert headers.budget("L2_guidance_lecture").seconds == headers.budget("00_start_here").seconds == 180
    assert Cost(181, 1.0, 2).over(headers.budget("a_lecture")) != []
    assert Cost(181, 2.1, 2).over(headers.budget("a_lab")) == ["2.1 GB is over the 2.0 GB that are allowed"]


# --- outputs -----------------------------------------------------------------------------------------------------


def as_png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue()).decode()


def test_small_pictures_keep_every_pixel():
    image = Image.effect_noise((64, 64), 80).convert("RGB")
    small = outputs.shrink_png(as_png(image))
    assert Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB").tobytes() == image.tobytes()


def test_large_pictures_get_smaller_and_stay_alike():
    image = Image.merge("RGB", [Image.effect_noise((400, 400), spread) for spread in (20, 40, 60)])
    small = outputs.shrink_png(as_png(image))
    assert len(small) < len(as_png(image)) / 2
    back = Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB")
    assert (
        max(
            abs(a - b)
            for a, b in zip(image.resize((1, 1)).getpixel((0, 0)), back.resize((1, 1)).getpixel((0, 0)), strict=True)
        )
        < 6
    )


def test_a_rare_gradient_does_not_fall_apart():
    """Most of the picture is a noisy grey; a small corner goes through greens and blues. A palette of the frequent
    colours alone (median cut) is off by more than 100 of 255 there."""
    image = Image.merge("RGB", [Image.effect_noise((400, 400), 10) for _ in range(3)])
    rise, nothing = Image.linear_gradient("L").resize((20, 20)), Image.new("L", (20, 20))
    image.paste(Image.merge("RGB", [nothing, rise, rise.rotate(90)]))
    back = Image.open(io.BytesIO(base64.b64decode(outputs.shrink_png(as_png(image))))).convert("RGB")
    off = ImageChops.difference(image, back).crop((0, 0, 20, 20)).getextrema()
    assert back.getcolors(256) and max(high for _, high in off) < 30


def test_transparency_survives():
    image = Image.effect_noise((400, 400), 60).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((400, 400)))
    back = Image.open(io.BytesIO(base64.b64decode(outputs.shrink_png(as_png(image))))).convert("RGBA")
    assert back.getchannel("A").getextrema() != (255, 255)


# --- reading version ---------------------------------------------------------------------------------------------


def test_a_page_stands_alone(built, tmp_path):
    page = reading.render(running.saved(built), built.name)
    index = reading.write([page], tmp_path / "site")
    html = (tmp_path / "site" / "toy_lecture.html").read_text(encoding="utf-8")
    assert page.title == "A title with p_w" and page.summary == "What it is about. And more."
    assert page.problems == []
    for text in (html, index.read_text(encoding="utf-8")):
        assert not re.search(r"""<script|<link|@import|(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert "toy_lecture.html" in index.read_text(encoding="utf-8")
    assert "output_widget_view" not in html and "data:image/png;base64," in html
    assert 'href="toy_lab.html#part"' in html
    assert "price of $5" in html and '<span class="number">(L2.1)</span>' in html


def test_formulas_of_a_page_are_mathml_in_an_embedded_font(built):
    html = reading.render(running.saved(built), built.name).html
    assert html.count("<math") == 3  # in the title, displayed, and inline
    assert "font/woff;base64" in html


@pytest.mark.parametrize(
    "latex",
    [
        r"\tilde\epsilon = \epsilon_\theta(x_t,\varnothing) + w\,\bigl(a-b\bigr)",
        r"\begin{aligned} a &= b \\ c &= \int_0^1 \underbrace{g(t)^2}_{\text{diffusion}}\,\mathrm dt\end{aligned}",
        r"p(x)\Bigl(\frac{p(x\mid c)}{p(x)}\Bigr)^{w}",
        r"\begin{cases}1 & t<s\\ 0&\text{else}\end{cases}",
        r"\operatorname*{arg\,max}_x\ \mathbb E\left[\lVert x\rVert^2\right]",
        r"\boxed{w = 1 + w'} \label{eq:trap} \tag{2}",
    ],
)
def test_the_formulas_that_lectures_use_are_understood(latex):
    assert mathml.to_mathml(latex, display=True).startswith('<div class="formula"><math')


def test_a_scripted_bracket_grows():
    assert "minsize" not in mathml.to_mathml(r"\Bigl(\frac ab\Bigr)^{w}")


@pytest.mark.parametrize("latex", [r"\unknowncommand", r"\frac{1}{", r"\begin{nonsense}x\end{nonsense}"])
def test_a_formula_that_is_not_understood_is_an_error_that_quotes_it(latex):
    with pytest.raises(mathml.FormulaError, match=re.escape(latex)):
        mathml.to_mathml(latex)
