"""The page of the report: words of strangers are only text, and a browser finds nothing to load."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
from xml.etree import ElementTree

import pytest
from report.pages import Page, made, pictures
from view.hostile import prompt_of

from jaxlens.report import content, excerpt, page
from jaxlens.store import records


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


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
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


def test_tokens_of_strangers_in_an_excerpt_are_only_text(monkeypatch, bare):
    shown = prompt_of(decoders=("plain",))
    svg = excerpt.svg(shown)
    names = {tag.tag.rpartition("}")[2] for tag in ElementTree.fromstring(svg).iter()}
    assert not names & {"script", "foreignObject", "a", "set", "animate"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", svg)
    monkeypatch.setattr(excerpt, "read", lambda run: shown)
    found = content.gather(bare)
    tags = Page(page.page(found, "")).tags
    assert {"script", "b"} & set(tags) == set() and tags.count("img") == 2
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
    assert "No note of the run tells the command" in made(copy)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_in_a_browser_it_loads_nothing_complains_of_nothing_and_fits(
    chromium, text, tmp_path, width, scheme
):
    path = tmp_path / "report.html"
    path.write_text(text)
    address = chromium.open(path, width=width, scheme=scheme)
    loaded = chromium.each("img", "e.complete && e.naturalWidth > 100")
    assert len(loaded) == len(pictures(text)) and all(loaded)
    chromium.run("document.querySelectorAll('details').forEach((e) => { e.open = true })")
    chromium.settle()
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    assert set(chromium.each("a", "document.querySelector(e.getAttribute('href')) !== null")) == {
        True
    }
    ground = chromium.style("html", "backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 21, 26)")
    assert (chromium.style("img", "filter") == "none") == (scheme == "light")
    chromium.read_logs()
    assert [url for url in chromium.asked if not url.startswith("data:")] == [address]
    assert chromium.complaints == []


def test_print_is_black_on_white_and_without_what_only_a_screen_needs(chromium, text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text)
    chromium.open(path, scheme="dark")
    chromium.command("Emulation.setEmulatedMedia", media="print")
    chromium.settle()
    assert chromium.style("html", "backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.style("img", "filter") == "none" and chromium.style("nav", "display") == "none"
    printed = chromium.command("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
