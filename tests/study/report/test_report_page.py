"""The page of the report: words of strangers are only text, and a browser finds nothing to load."""

import ast
import base64
import hashlib
import html
import inspect
import io
import json
import re
import shlex
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from study.report.pages import Page, made, pictures
from view.hostile import prompt_of

from jaxlens.store import records
from jaxlens.study.report import (
    content,
    copying,
    decoders,
    discarding,
    excerpt,
    induction,
    page,
    rarity,
    uncertainty,
)
from jaxlens.view import pages
from jaxlens.view.figures import palette, plots


def test_the_page_runs_nothing_and_loads_nothing(text):
    shown = Page(text)
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(shown.tags)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    policy = html.unescape(policy)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; script-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy and "img-src data:" in policy
    for tag, name, value in shown.attributes:
        assert name != "style" and not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#")), value[:60]
    assert "url(" not in style and "@import" not in style
    for svg in pictures(text):
        assert "<script" not in svg and "<foreignObject" not in svg
        # A scale of colours is an image that lies in the figure; all else refers to the figure.
        for address in re.findall(r'href="([^"]{0,15})', svg):
            assert address.startswith(("#", "data:image/png;")), address


HOSTILE = [
    "</style><script>window.hacked = 1</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b]0;title\x07",
    "\u202edrowssap\u2066",
    "x" * 10_000,
    "{{ 7 * 7 }}{% raw %}",
    "$(reboot)`id`; rm -rf ~ 'quoted\n",
]


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(word, id=str(place), marks=[pytest.mark.long] * bool(place % 3))
        for place, word in enumerate(HOSTILE)
    ],
)
def test_words_of_strangers_in_the_notes_of_a_run_are_only_text(bare, plain, tmp_path, word):
    copy = tmp_path / "run"
    shutil.copytree(bare, copy)
    (note,) = (copy / "environment").glob("*.json")
    document = json.loads(note.read_text())
    document["settings"]["model"]["path"] = word
    document["settings"]["corpus"]["paths"] = [word, word]
    document["settings"]["out"] = word
    document["environment"]["processor"] = word
    document["environment"]["packages"]["jax"] = word
    note.write_bytes(records.encode_note(document))  # a checksum is no signature
    found = made(copy)
    assert [t for t in Page(found).tags if t != "pre"] == [
        t for t in Page(plain).tags if t != "pre"
    ]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", found)
    for command in re.findall(r"<pre>(jaxlens run.*?)</pre>", found, re.S):
        # Whoever pastes it into a shell gives the program one odd word, and runs nothing else.
        assert shlex.split(html.unescape(command))[:2] == ["jaxlens", "run"]
        lexer = shlex.shlex(html.unescape(command), posix=True, punctuation_chars=True)
        assert not set(lexer) & {";", "|", "&", "&&", "||", "(", ")"}


@pytest.mark.long
def test_tokens_of_strangers_in_an_excerpt_are_only_text(monkeypatch, bare):
    shown = prompt_of(decoders=("plain",))
    svg = excerpt.svg(shown)
    names = {tag.tag.rpartition("}")[2] for tag in ElementTree.fromstring(svg).iter()}
    assert not names & {"script", "foreignObject", "a", "set", "animate"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", svg)
    monkeypatch.setattr(excerpt, "read", lambda run: shown)
    found = content.gather(bare)
    tags = Page(page.page(found, "")).tags
    assert {"script", "b"} & set(tags) == set() and tags.count("img") == 3
    monkeypatch.setattr(excerpt, "tables", lambda shown: ())
    plain = Page(page.page(content.gather(bare), "")).tags
    extra = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert [t for t in tags if t not in extra] == [t for t in plain if t not in extra]


@pytest.mark.parametrize("notes", ["{", "[]", '{"settings": 7, "environment": []}', '{"a": 1}'])
def test_notes_that_make_no_sense_are_left_out(bare, tmp_path, notes):
    copy = tmp_path / "run"
    shutil.copytree(bare, copy)
    (note,) = (copy / "environment").glob("*.json")
    note.write_text(notes)
    assert "do not hold the command" in made(copy)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_in_a_browser_it_loads_nothing_complains_of_nothing_and_fits(
    chromium, text, tmp_path, width, scheme
):
    path = tmp_path / "report.html"
    path.write_text(text)
    address = chromium.open(path, width=width, scheme=scheme)
    loaded = chromium.each("img", "e.complete && e.naturalWidth > 100")
    twice = len(chromium.each("img.dark", "1"))
    assert len(loaded) == len(pictures(text)) + twice and all(loaded)
    seen = chromium.each("img", "getComputedStyle(e).display !== 'none'")
    assert sum(seen) == len(pictures(text)), "one picture a figure"
    assert twice and set(chromium.each("img.dark", "getComputedStyle(e).display")) == {
        "none" if scheme == "light" else "block"
    }
    chromium.run("document.querySelectorAll('details').forEach((e) => { e.open = true })")
    chromium.settle()
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    assert set(chromium.each("a", "document.querySelector(e.getAttribute('href')) !== null")) == {
        True
    }
    ground = chromium.style("html", "backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 21, 26)")
    assert (chromium.style("img:not(.light)", "filter") == "none") == (scheme == "light")
    chromium.read_logs()
    assert [url for url in chromium.asked if not url.startswith("data:")] == [address]
    assert chromium.complaints == []


def contrast(one, other):
    bright = sorted(palette.luminance(c) + 0.05 for c in (one, other))
    return bright[1] / bright[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_captions_say_of_colours_is_true_in_both_themes(chromium, tmp_path, scheme):
    """Colours are taken from the picture of the page as it is shown, filters and all."""
    values = np.array([[0.0, 1.0], [0.5, np.nan]])
    edges = np.arange(3.0)
    heat = plots.Heat("t", "x", "y", edges, edges, values, "shade", (0.0, 1.0))
    layers = tuple("abcd")
    curves = tuple(
        plots.bare(name, plots.Style(place, "-", ""), np.full(4, height))
        for name, place, height in (("frequent", 0.0, 0.0), ("rare", 1.0, 1.0))
    )
    fan = plots.Lines("t", "layer", layers, "rank", curves)
    figures = content.drawn(
        [plots.Plot(name, "t", "c", (p,), "b") for name, p in (("heat", heat), ("fan", fan))], "Q2"
    )
    assert [bool(figure.dark) for figure in figures] == [True, False]
    style = pages.asset("report.css", "jaxlens.study.report")
    kinds = [(figures[0].address, "light"), (figures[0].dark_address, "dark")]
    kinds += [(figures[1].address, "both")]
    images = "".join(f'<p><img class="{kind}" src="{address}"></p>' for address, kind in kinds)
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><style>{style}</style>{images}")
    chromium.open(path, scheme=scheme)
    shot = base64.b64decode(chromium.command("Page.captureScreenshot")["data"])
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).reshape(-1, 3)
    ground = "#" + "".join(f"{int(c):02x}" for c in pixels[5])
    ramp = palette.ramp(palette.DARK if scheme == "dark" else palette.LIGHT, 256)
    turned = [shown(palette.ramp(count=256)[place], scheme) for place in (40, 255)]
    # The colours of a heat map are those of `jaxlens show --html` in the same theme.
    for pair in ([rgb(ramp[0]), rgb(ramp[255])], turned):
        found = [nearest(pixels, colour) for colour in pair]
        assert contrast(found[1], ground) > 2 * contrast(found[0], ground), (scheme, found)
    # So the sentences may speak of what stands out, and of nothing that turns with the theme.
    template = pages.asset("report.html", "jaxlens.study.report")
    template = re.sub(r"<[^>]*>|{[{%].*?[%}]}", "", template, flags=re.S)
    for words in (SAID, template):
        assert not re.search(r"\b(dark|darker|darkest|pale|paler|strong|deep|bright)\b", words)


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def shown(colour, scheme):
    """A colour after the filter of the dark page: inverted by .92, hue turned by 180 degrees."""
    if scheme == "light":
        return rgb(colour)
    turned = rgb(colour) / 255 * (1 - 2 * 0.92) + 0.92
    turn = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
    return np.clip(turn @ turned, 0, 1) * 255


def nearest(pixels, colour):
    """The pixel nearest to a colour, which must be there within a few steps."""
    apart = np.abs(pixels.astype(float) - colour).max(axis=1)
    assert apart.min() < 12, (colour, apart.min())
    return "#" + "".join(f"{int(c):02x}" for c in pixels[int(apart.argmin())])


def strings(module):
    """What a module says in strings, without its documentation."""
    tree = ast.parse(inspect.getsource(module))
    told = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    silent = {id(node.value) for node in told}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [c.value for c in constants if isinstance(c.value, str) and id(c) not in silent]


SAID = " ".join(
    words
    for module in (content, copying, decoders, discarding, rarity, uncertainty, induction)
    for words in strings(module)
)


@pytest.mark.parametrize(
    "inner", ["document.getElementById('primaries')", "document.querySelector('#Q3-retrieval img')"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_wider_than_a_phone_shows_that_it_scrolls(chromium, text, tmp_path, scheme, inner):
    path = tmp_path / "report.html"
    path.write_text(text)
    chromium.open(path, width=390, scheme=scheme)
    box = f"{inner}.parentElement"
    told = chromium.run(f"return getComputedStyle({box}, '::after').content")
    assert ("sideways" in told) == ("img" in inner), told
    wide, inside = chromium.run(f"return [{box}.scrollWidth, {box}.clientWidth]")
    assert wide > inside + 20
    assert chromium.run(f"return getComputedStyle({box}).overflowX") == "auto"
    assert chromium.run(f"return {box}.tabIndex") == 0  # keys scroll it too

    def edges():
        chromium.run(f"{box}.scrollIntoView({{block: 'center'}})")
        chromium.settle()
        left, top, width = chromium.run(
            f"const b = {box}.getBoundingClientRect(); return [b.left, b.top, b.width]"
        )
        shot = base64.b64decode(chromium.command("Page.captureScreenshot")["data"])
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L")).astype(int)
        ground = pixels[:, 2]
        rows = slice(int(top) + 5, int(top) + 60)
        at = int(left) + 1, int(left + width) - 2
        return [float(np.median(np.abs(pixels[rows, x] - ground[rows]))) for x in at]

    left, right = edges()
    assert right > 20 and left < 5, (left, right)  # more is at the right
    chromium.run(f"{box}.scrollLeft = 10000")
    left, right = edges()
    assert left > 20 and right < 5, (left, right)


def test_print_is_black_on_white_and_without_what_only_a_screen_needs(chromium, text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text)
    chromium.open(path, scheme="dark")
    chromium.command("Emulation.setEmulatedMedia", media="print")
    chromium.settle()
    assert chromium.style("html", "backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.style("img.light", "display") == "block"
    assert chromium.style("img.dark", "display") == "none"
    assert chromium.style("img", "filter") == "none" and chromium.style("nav", "display") == "none"
    printed = chromium.command("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
