"""The page in a real browser can be used by anyone, in any window, whatever tokens hold."""

import base64
import re

import pytest
from view import seen
from view.hostile import TOKENS, prompt_of

from jaxlens.view import printable
from jaxlens.view.figures import palette
from jaxlens.view.prompt import html

WIDE, NARROW = 1440, 390
INK = """
(() => {
  const ground = (one) => getComputedStyle(one).backgroundColor;
  let below = e;
  while (ground(below) === "rgba(0, 0, 0, 0)") below = below.parentElement;
  return [getComputedStyle(e).color, ground(below)];
})()
"""
PAPER_WIDTH = 718  # of A4 between the margins, in CSS pixels
PAPER = "rgb(255, 255, 255)"
INTRUDER = """
const script = document.createElement("script");
script.textContent = "window.hacked = 1";
const button = document.createElement("button");
button.setAttribute("onclick", "window.hacked = 1");
const image = document.createElement("img");
image.src = arguments[0];
document.body.append(script, button, image);
button.click();
"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_in_any_window_without_a_word_and_without_sideways_scrolling(
    show, width, scheme
):
    long = f" {'w' * 300}".encode()
    shown = prompt_of((*TOKENS, long), follow=(5, 13, 0))
    browser = show(
        shown,
        prompt_of((*TOKENS, long), seed=1, follow=(5, 13, 0)),
        width=width,
        scheme=scheme,
        touch=width == NARROW,
    )
    wide = browser.run("const e = document.documentElement; return [e.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1] == width
    assert browser.run("return document.documentElement.dataset.theme") == scheme
    assert browser.run("return window.violations") == []
    inside = browser.run(
        "return [...document.querySelectorAll('form *, td, th, section, svg')].filter((e) => {"
        "const b = e.getBoundingClientRect(); return b.right > innerWidth + 1 || b.left < -1"
        "}).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert inside == []


def rgb(colour):
    return "#" + "".join(f"{int(c):02x}" for c in re.findall(r"\d+", colour)[:3])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sentence_on_colours_is_true_of_the_extreme_cells(show, scheme):
    browser = show(seen.small(), scheme=scheme)
    (said,) = [words for words in browser.each("header p", "e.textContent") if "olours" in words]
    assert "contrast more with the page mean values that are nearer" in " ".join(said.split())
    ground = palette.luminance(rgb(browser.style("html", "backgroundColor"))) + 0.05
    swatches = browser.each("#swatches span", "getComputedStyle(e).backgroundColor")
    bright = [palette.luminance(rgb(colour)) + 0.05 for colour in swatches]
    out = [max(one, ground) / min(one, ground) for one in bright]
    # Ticks go from near to far.
    assert out == sorted(out, reverse=True) and out[0] > 4 > 1.5 > out[-1], out
    named = browser.run("return document.getElementById('swatches').ariaLabel")
    assert "from most to least contrast" in named
    words = f"{browser.run('return document.body.innerText')} {named}".lower()
    assert not re.search(r"\b(strong|pale|darker|dark colours?)\b", words)


def test_both_themes_can_be_chosen_and_read(show):
    browser = show(seen.small())
    grounds = {}
    for theme in ("light", "dark", "light"):
        assert browser.run("return document.documentElement.dataset.theme") == theme
        pairs = browser.each("tbody td, #swatches span, #details *, header p, footer p", INK)
        for ink, ground in {tuple(pair) for pair in pairs}:
            bright = sorted(palette.luminance(rgb(c)) + 0.05 for c in (ink, ground))
            assert bright[1] / bright[0] >= 4.5, (theme, ink, ground)
        grounds[theme] = browser.style(":root", "backgroundColor")
        button = browser.driver.find_element("id", "theme")
        assert button.text == {"light": "Dark", "dark": "Light"}[theme]  # what a click does
        button.click()
    assert grounds["light"] != grounds["dark"]


def test_a_tap_on_a_telephone_shows_the_numbers_that_were_read(show):
    shown = seen.small()
    browser = show(shown, width=NARROW, height=844, touch=True)
    target = seen.cell(browser, "h.1", 5)
    browser.run("arguments[0].scrollIntoView({ block: 'start' })", target)
    box = target.rect
    top = browser.run("return scrollY")
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2 - top}
    browser.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[place])
    browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.settle()
    seen.check_details(browser, shown, "final_norm", 2, 5)
    panel = browser.driver.find_element("id", "details").rect
    assert place["y"] < panel["y"] - top, "the panel would hide the cell"


def test_the_keyboard_reaches_every_cell_and_shows_its_numbers(show):
    from selenium.webdriver import Keys

    shown = seen.small(count=100)
    browser = show(shown)
    browser.run("document.getElementById('theme').focus()")
    browser.press(Keys.TAB)
    assert seen.here(browser) == "h.2, position 63", (
        "one stop for the whole grid, at the chosen cell"
    )
    browser.press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert seen.here(browser) == "h.0, position 1"
    seen.check_details(browser, shown, "final_norm", 1, 1)
    ring = [browser.style(":focus", name) for name in ("outlineStyle", "outlineWidth")]
    assert ring == ["solid", "3px"]
    browser.press(*[Keys.ARROW_DOWN] * 3, *[Keys.ARROW_LEFT] * 3)
    assert seen.here(browser) == "input, position 0"
    browser.press(Keys.END, *[Keys.ARROW_UP] * 9)
    assert seen.here(browser) == "h.2, position 99"
    seen.check_details(browser, shown, "final_norm", 3, 99)
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(36, 100))
    browser.press(*[Keys.ARROW_LEFT] * 64)
    assert seen.here(browser) == "h.2, position 35"
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(35, 99))


def test_the_keys_of_the_page_keep_the_focus_and_change_what_is_shown(show):
    from selenium.webdriver import Keys

    shown = seen.small(count=100)
    browser = show(shown)
    browser.run("document.getElementById('theme').focus()")
    browser.press(Keys.TAB, Keys.HOME)
    browser.press("]")
    assert seen.here(browser) == "h.2, position 36", "the last 64 tokens, and the focus among them"
    browser.press(Keys.ARROW_RIGHT, "d", "m")
    assert seen.here(browser) == "h.2, position 37"
    seen.check_details(browser, shown, "plain", 3, 37)
    assert browser.driver.find_element("id", "metric").get_property("value") == "rank_final"
    assert browser.driver.find_element("id", "decoder").get_property("value") == "plain"
    chosen = browser.driver.find_elements("css selector", "[aria-selected=true]")
    assert [c.get_attribute("class").split()[-1] for c in chosen] == ["here"]
    stops = browser.driver.find_elements("css selector", "tbody td[tabindex='0']")
    assert len(stops) == 1


def test_a_screen_reader_is_told_what_a_cell_is_and_where(show):
    shown = seen.small()
    browser = show(shown)
    found = seen.cell(browser, "h.1", 7)
    best = shown.name(shown.readings["final_norm"]["top_id"][2, 7, 0])
    number = found.find_element("css selector", "small").text
    assert found.accessible_name == (
        f"h.1, position 7: {best}; probability of the best token {number}"
    )
    assert found.aria_role == "gridcell"
    for css, role in (("tbody th", "rowheader"), ("tfoot th[scope=col]", "columnheader")):
        assert browser.driver.find_element("css selector", css).aria_role == role
    for control in browser.driver.find_elements("css selector", "select, input, button, canvas"):
        assert control.accessible_name or not control.is_displayed()
    assert browser.driver.find_element("id", "swatches").accessible_name.startswith("colours")
    assert browser.driver.find_element("id", "details").aria_role == "complementary"


def test_whatever_tokens_hold_is_text_and_never_runs(show):
    from selenium.common import NoAlertPresentException

    hostile = (
        *TOKENS,
        b"<script>window.hacked=1</script>",
        b"<svg onload=window.hacked=1>",
        b"javascript:window.hacked=1",
        b"{{ 7*7 }}${7*7}",
    )
    tame = [f"w{i}".encode() for i in range(len(hostile))]
    count = "return [...document.querySelectorAll('*')].map((e) => e.tagName)"
    follow = (0, 13, 14)
    usual = show(prompt_of(tame, follow=follow)).run(count)
    shown = prompt_of(hostile, follow=follow)
    browser = show(shown)
    assert browser.run(count) == usual
    assert browser.run("return [typeof window.hacked, window.violations]") == ["undefined", []]
    with pytest.raises(NoAlertPresentException):
        browser.driver.switch_to.alert.text  # noqa: B018
    heads = browser.each("tfoot th[scope=col]", "e.firstChild.data")
    assert heads == [shown.name(i) for i in range(len(hostile))]
    assert heads[1] == printable.token(hostile[1])
    text = browser.run("return document.body.innerText + document.title")
    assert "\x1b" not in text and not set("\u202e\u2066\u2028\u200b\0") & set(text)
    for at in range(len(hostile)):
        browser.run("arguments[0].click()", seen.cell(browser, "h.0", at))
        seen.check_details(browser, shown, "final_norm", 1, at)
    assert browser.run("return typeof window.hacked") == "undefined"


def test_the_policy_stops_a_script_that_got_into_the_page(show):
    browser = show(seen.small())
    elsewhere = "https://example.invalid/x.png"
    browser.run(INTRUDER, elsewhere)
    browser.settle()
    assert browser.run("return typeof window.hacked") == "undefined"
    found = browser.run("return window.violations")
    assert sorted(found) == ["img-src", "script-src-attr", "script-src-elem"]
    browser.read_logs()
    assert len(browser.complaints) == 3
    assert all("Content Security Policy" in line for line in browser.complaints)
    # Chromium names a request before its policy stops it.
    assert browser.run("return document.images[0].naturalWidth") == 0
    browser.complaints.clear()
    browser.asked.remove(elsewhere)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_shows_the_grids_and_their_legend_on_white_and_no_controls(show, scheme):
    browser = show(seen.small(count=100), seen.small(seed=1, count=20), scheme=scheme)
    made = browser.command("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(made).count(b"/Type /Page\n") >= 2
    browser.command("Emulation.setEmulatedMedia", media="print", features=[])
    browser.run("dispatchEvent(new Event('beforeprint'))")
    for name, printed in (("controls", 0), ("details", 0), ("legend", 1), ("prompts", 1)):
        assert browser.driver.find_element("id", name).is_displayed() == bool(printed), name
    assert browser.style(":root", "backgroundColor") == PAPER
    legend = browser.driver.find_element("id", "legend").text
    assert "probability of the best token" in legend
    assert "decoder final_norm, tokens 0 to 63" in legend
    strong = rgb(browser.style("#swatches span", "backgroundColor"))
    assert strong == palette.ramp(palette.LIGHT, html.COLOURS)[-1]
    assert max(browser.each("table.grid", "e.offsetWidth")) <= PAPER_WIDTH
    assert len(seen.shown_cells(browser)[0]) == 64 * 4
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.command("Emulation.setEmulatedMedia", media="", features=[])
