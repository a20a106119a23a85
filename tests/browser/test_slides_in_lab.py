"""A lecture as slides in JupyterLab, as it is given in class: run, collapse the code, start the deck, use a slider."""

from __future__ import annotations

import pytest

nbformat = pytest.importorskip("nbformat")
pytestmark = pytest.mark.browser

FIRST, NOTE, SKIPPED, LAST = "Title of the deck", "Only the speaker reads this", "Small print", "The last slide"
WIDGET = """slider = widgets.IntSlider(3, 0, 10, description="guidance")
square = widgets.HTML()
slider.observe(lambda _: setattr(square, "value", f"square {slider.value ** 2}"), "value")
slider.value = 4
display(widgets.VBox([slider, square]))"""
SHOWN = "[...document.querySelectorAll('.jp-Notebook .jp-deck-mod-visible')].map(cell => cell.innerText).join(' | ')"


def notebook():
    """Three slides; the second one has a widget, and the last cells are not shown."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def of(kind):
        return {"slideshow": {"slide_type": kind}}

    cells = [
        new_markdown_cell(f"# {FIRST}", metadata=of("slide")),
        new_markdown_cell(
            f"<details open><summary>Speaker · 5 min</summary>\n\n{NOTE}\n</details>", metadata=of("notes")
        ),
        new_code_cell("import ipywidgets as widgets", metadata=of("skip")),
        new_markdown_cell("## A slider", metadata=of("slide")),
        new_code_cell(WIDGET),
        new_markdown_cell(SKIPPED, metadata=of("skip")),
        new_markdown_cell(f"## {LAST}", metadata=of("slide")),
        new_markdown_cell(SKIPPED, metadata=of("skip")),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def choose(page, menu: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()


def wait_for_text(page, selector: str, text: str) -> None:
    page.locator(f"{selector}:visible").filter(has_text=text).first.wait_for()


def leave(page) -> None:
    """End the deck, and wait until the server has noted it: JupyterLab opens in a deck that nobody ended."""
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "slideshow" in answer.url):
        page.keyboard.press("Escape")
    page.wait_for_function("document.body.dataset.jpDeckMode === undefined")


@pytest.fixture
def deck(course, lab, page):
    """A page with the notebook run, its code collapsed, and the deck on its first slide."""
    nbformat.write(notebook(), course / "notebooks" / "deck.ipynb")
    page.set_viewport_size({"width": 1280, "height": 720})
    # In a workspace of its own: the usual one is opened again by other tests, with the tabs that were left in it.
    page.goto(lab("notebooks/deck.ipynb").replace("/lab/tree/", "/lab/workspaces/deck/tree/"))
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_timeout(3000)
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0, "the lab opens without a dialog or popup"
    choose(page, "Run", "Run All Cells")
    wait_for_text(page, ".jp-OutputArea", "square 16")
    choose(page, "View", "Collapse All Code")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.locator("[data-command='deck:toggle']").first.click()
    page.wait_for_function("document.body.dataset.jpDeckMode === 'presenting'")
    page.wait_for_timeout(1500)  # the side bars close a second later
    return page


def test_a_deck_shows_slides_and_its_slider_works(deck, pictures):
    page = deck
    page.screenshot(path=pictures / "deck-title.png")
    assert page.evaluate(SHOWN) == FIRST
    hidden = [page.get_by_text(text) for text in (NOTE, SKIPPED, LAST, "A slider", "import ipywidgets")]
    assert not any(text.first.is_visible() for text in hidden), "nothing but the slide is seen"

    page.keyboard.press("Space")
    wait_for_text(page, ".jp-deck-mod-visible", "square 16")
    assert FIRST not in page.evaluate(SHOWN) and NOTE not in page.evaluate(SHOWN)
    assert not page.get_by_text("slider.observe").first.is_visible(), "collapsed code stays collapsed"

    page.keyboard.press("Space")  # to the widget's cell, which is on the same slide
    page.locator(".jp-deck-mod-visible .noUi-handle").first.click()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, ".jp-deck-mod-visible", "square 25")
    page.screenshot(path=pictures / "deck-slider.png")
    page.keyboard.press("Space")
    wait_for_text(page, ".jp-deck-mod-visible", LAST)
    assert page.evaluate(SHOWN) == LAST, "the small print in between is skipped"

    leave(page)


def test_letters_are_large_in_a_deck_and_as_ever_elsewhere(deck):
    def size():
        return deck.evaluate("parseFloat(getComputedStyle(document.querySelector('.jp-RenderedMarkdown')).fontSize)")

    assert 20 <= size() <= 26
    assert not deck.locator(".jp-NotebookPanel-toolbar [data-jp-item-name='fonts']").first.is_visible()
    leave(deck)
    assert size() == 14, "JupyterLab's own size"
