"""What a student does first: open the lab, run the notebook, move the guidance slider, see the picture change."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser
NOTEBOOK = "notebooks/00_start_here.ipynb"
SLIDER = ".widget-hslider:has(.widget-label:text-matches('guidance', 'i'))"
RUN_TIMEOUT = 240_000  # milliseconds, for the whole notebook


def run_all(page) -> None:
    """Menu Run, entry Run All Cells."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()


def scroll_to(page, locator) -> None:
    """JupyterLab keeps only the cells near the view in the page: scroll through it until the locator is there."""
    page.locator(".jp-Notebook").hover()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Home")
    for _ in range(400):
        if locator.count() and locator.first.is_visible():
            locator.first.scroll_into_view_if_needed()
            return
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(600)
    pytest.fail("the guidance slider never came into view")


def test_the_guidance_slider_answers_the_keyboard(lab, page, pictures):
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(lab(NOTEBOOK))
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_timeout(3000)
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0, "the lab opens without a dialog or popup"

    run_all(page)
    slider = page.locator(SLIDER)
    scroll_to(page, slider)
    box = page.locator(".jupyter-widgets.widget-vbox").filter(has=slider).first
    image, handle = box.locator("img").first, slider.locator(".noUi-handle").first
    readout = slider.locator(".widget-readout").first
    image.wait_for()
    before, seen, value = image.get_attribute("src"), image.screenshot(), readout.inner_text()
    page.screenshot(path=pictures / "slider-before.png")

    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([node, old]) => node.src !== old", arg=[image.element_handle(), before], timeout=RUN_TIMEOUT
    )
    page.wait_for_timeout(1500)  # until the last of the pictures is drawn
    page.screenshot(path=pictures / "slider-after.png")

    assert float(readout.inner_text()) > float(value), "the number beside the slider follows"
    assert image.screenshot() != seen, "and so does the picture"
    assert not complaints, complaints
