"""The HTML deck in a real browser: keys, notes, the speaker's window, fitting, paper, and no script."""

from __future__ import annotations

import re

import pytest
import small_deck

from lecture_lib.tooling import slides

pytestmark = pytest.mark.browser
SEEN = "[...document.querySelectorAll('section')].filter((one) => one.checkVisibility()).map((one) => +one.id)"
ROOM = "(() => { const main = document.querySelector('main'); return main.scrollHeight - main.clientHeight; })()"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("slides")
    made = slides.render(small_deck.notebook(), "small", folder.parent)
    slides.write([made], folder)
    return (folder / "small.html").as_uri()


@pytest.fixture
def deck(page, address):
    """The deck on its first slide, as a projector shows it; what went wrong inside fails the test."""
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(address)
    page.wait_for_selector("body.live:not(.measured)")
    yield page
    assert not complaints, complaints


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_keys_lead_through_the_deck(deck):
    answer = deck.get_by_text(small_deck.ANSWER, exact=True)
    assert deck.evaluate(SEEN) == [1]
    press(deck, "Space", "PageDown")
    assert deck.evaluate(SEEN) == [3] and not answer.is_visible()
    press(deck, "ArrowRight")
    assert deck.evaluate(SEEN) == [3] and answer.is_visible(), "the answer comes with the next key"
    press(deck, "Space", "Space")
    assert deck.evaluate(SEEN) == [4] and deck.url.endswith("#4"), "the last slide stays"
    press(deck, "Shift+Space")
    assert deck.evaluate(SEEN) == [3] and answer.is_visible(), "back to the slide as it was left"
    press(deck, "Shift+Space", "PageUp")
    assert deck.evaluate(SEEN) == [2]
    press(deck, "End")
    assert deck.evaluate(SEEN) == [4] and deck.locator("#number").inner_text() == "4 / 4"
    press(deck, "Home")
    assert deck.evaluate(SEEN) == [1]
    deck.evaluate("location.hash = '#2'")
    deck.wait_for_function(f"({SEEN})[0] === 2")


def test_the_space_bar_opens_a_fold_that_has_the_focus(deck):
    press(deck, "Space")
    folded = deck.locator("details.code").last
    folded.locator("summary").focus()
    press(deck, "Space")
    assert deck.evaluate(SEEN) == [2] and folded.evaluate("(fold) => fold.open")


def test_a_swipe_turns_the_page(deck):
    swipe = """([from, to]) => ["touchstart", "touchend"].forEach((kind, index) => {
        const touch = new Touch({ identifier: 1, target: document.body, clientX: [from, to][index], clientY: 300 });
        document.body.dispatchEvent(new TouchEvent(kind, { changedTouches: [touch], bubbles: true }));
    })"""
    deck.evaluate(swipe, [900, 300])
    assert deck.evaluate(SEEN) == [2]
    deck.evaluate(swipe, [300, 320])
    assert deck.evaluate(SEEN) == [2], "a touch is no swipe"
    deck.evaluate(swipe, [300, 900])
    assert deck.evaluate(SEEN) == [1]


def test_notes_stand_beside_the_slides_they_cover(deck, pictures):
    first, second = deck.get_by_text(small_deck.NOTE), deck.get_by_text(small_deck.SECOND_NOTE)
    assert not first.is_visible() and not second.is_visible(), "the class sees no notes"
    press(deck, "n")
    assert first.is_visible() and deck.locator("#clock").inner_text() == "minute 0 of 15"
    press(deck, "Space")
    deck.screenshot(path=pictures / "deck-notes.png")
    assert first.is_visible() and deck.locator("#due").inner_text() == "this slide: 3 to 6"
    assert deck.locator("#next").inner_text() == "Next: Is it so?"
    press(deck, "Space")
    assert second.is_visible() and not first.is_visible()
    press(deck, "n")
    assert not second.is_visible()


def test_the_speakers_window_goes_along(deck):
    with deck.expect_popup() as opened:
        press(deck, "w")
    speaker = opened.value
    speaker.wait_for_selector("body.live.speaking:not(.measured)")
    assert speaker.get_by_text(small_deck.NOTE).is_visible()
    assert not deck.get_by_text(small_deck.NOTE).is_visible(), "the class still sees no notes"
    press(speaker, "Space", "Space", "Space")
    deck.wait_for_function(f"({SEEN})[0] === 3")
    assert deck.get_by_text(small_deck.ANSWER, exact=True).is_visible()
    press(deck, "Space")
    speaker.wait_for_function(f"({SEEN})[0] === 4")


def test_the_clock_runs(page, address):
    page.clock.install()
    page.goto(address)
    page.wait_for_selector("body.live:not(.measured)")
    press(page, "n", "Space")
    page.clock.fast_forward("05:10")
    assert page.locator("#clock").inner_text() == "minute 5 of 15"
    page.locator("#clock").click()
    assert page.locator("#clock").inner_text() == "minute 0 of 15", "a click starts it again"


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1024, 768), (900, 900)])
def test_slides_fill_the_window_and_a_tall_picture_is_made_to_fit(deck, size, pictures):
    width, height = size
    deck.set_viewport_size({"width": width, "height": height})
    press(deck, "Space")
    deck.screenshot(path=pictures / f"deck-{width}.png")
    box = deck.locator("section:visible").bounding_box()
    assert min(width / box["width"], height / box["height"]) == pytest.approx(1, abs=0.01)
    assert deck.evaluate(ROOM) <= 0, "nothing to scroll, although the picture is 700 pixels high"
    deck.locator("details.code").last.evaluate("(fold) => { fold.open = true; }")
    if width / height > 1.5:
        assert deck.evaluate(ROOM) > 0, "what is opened can be scrolled to"


def test_paper_has_a_page_per_slide(deck, tmp_path):
    deck.pdf(path=tmp_path / "small.pdf", prefer_css_page_size=True)
    pages = re.findall(rb"/Type\s*/Page\b", (tmp_path / "small.pdf").read_bytes())
    assert len(pages) == 4
    deck.emulate_media(media="print")
    assert deck.evaluate(SEEN) == [1, 2, 3, 4]
    assert deck.get_by_text(small_deck.ANSWER, exact=True).is_visible()
    assert not deck.get_by_text(small_deck.NOTE).is_visible()


def test_without_a_script_the_deck_is_one_long_page(page, address):
    bare = page.context.browser.new_page(java_script_enabled=False)
    bare.goto(address)
    for number in (1, 2, 3, 4):
        assert bare.locator(f"section[id='{number}']").is_visible()
    assert bare.get_by_text(small_deck.ANSWER, exact=True).is_visible()
    assert not bare.get_by_text(small_deck.NOTE).is_visible()
