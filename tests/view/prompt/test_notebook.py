"""Readouts in notebooks: the numbers that were read, and nothing of a token is markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view.hostile import TOKENS
from view.labelled import COUNT, readout_of

from jaxlens.api.readout import Readout
from jaxlens.view import printable
from jaxlens.view.figures import palette
from jaxlens.view.prompt import metrics, notebook

READABLE = 4.5
"""Contrast that WCAG 2 asks of text (level AA)."""

VOID = {"br"}


class Fragment(HTMLParser):
    """Tables of cells ``(style, title, words)``, and every element."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.elements, self.words, self._open = [], [], [], []
        self.feed(text)
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            found = dict(attrs)
            self.tables[-1][-1].append((found["style"], found.get("title", ""), []))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1][2].append(data)


def cut(token):
    """A token as a cell has it."""
    shown = printable.token(token)
    return shown if len(shown) <= 12 else shown[:11] + "…"


def test_the_numbers_of_the_fragment_are_those_that_were_read():
    readout = readout_of((COUNT, 5), n_layers=3)
    tables = Fragment(readout._repr_html_()).tables
    for line, (table, count) in enumerate(zip(tables, (COUNT, 5), strict=True)):
        above, *rows, below = table
        assert [row[0][2] for row in rows] == [["h.1"], ["h.0"], ["input"]]
        assert len(above) == len(below) == count + 1
        for layer, row in enumerate(reversed(rows)):
            for at, (_, title, words) in enumerate(row[1:]):
                best = readout.top_id[layer, line, at, 0]
                name = cut(TOKENS[best]) or f"<{best}>"
                share = float(np.exp(readout.top_logp[layer, line, at, 0].astype(float)))
                assert words == [name, metrics.format_number(share, metrics.SHARE)]
                details = dict(pair.split(" ") for pair in title.split("\n"))
                rank = float(readout.rank_next[layer, line, at]) or np.nan
                assert details["rank_next"] == metrics.format_number(rank, metrics.RANK)
                kl = float(readout.kl_input[layer, line, at])
                assert details["kl_input"] == metrics.format_number(kl, metrics.NATS)
                follow = float(readout.rank_follow[layer, line, at, 1])
                assert details["rank_follow.2"] == metrics.format_number(follow, metrics.RANK)


def test_the_tokens_stand_below_and_those_that_follow_above():
    readout = readout_of((3,))
    ((above, *_, below),) = Fragment(readout._repr_html_()).tables
    names = [cut(token) for token in TOKENS[:3]]
    assert [cell[2] for cell in below] == [["token"], *([name] for name in names)]
    stars = ["★" if right else "" for right in readout.top_id[-1, 0, :2, 0] == [1, 2]]
    marked = [[star + name] for star, name in zip(stars, names[1:], strict=True)]
    assert [cell[2] for cell in above] == [["next"], *marked, []]


@settings(max_examples=50)
@given(
    st.lists(
        st.binary(min_size=1, max_size=40)
        | st.text(min_size=1).map(lambda text: text.encode("utf-8", "surrogatepass")),
        min_size=2,
        max_size=5,
    )
)
def test_no_token_becomes_markup(tokens):
    hostile = (*TOKENS, *tokens)
    readout = readout_of((len(hostile),), 2, tokens=hostile)
    found = Fragment(readout._repr_html_())
    assert {tag for tag, _ in found.elements} == {
        *("div", "span", "table", "tr", "th", "td", "small", "br")
    }
    assert {name for _, attrs in found.elements for name in attrs} == {"style", "title"}
    words = "".join(found.words)
    assert all(c == " " or printable.token(c.encode()) == c for c in words)
    assert "url(" not in str([attrs.get("style") for _, attrs in found.elements])


def test_every_coloured_element_brings_an_ink_that_can_be_read_and_no_other_has_one():
    found = Fragment(readout_of()._repr_html_())
    grounds = 0
    for _, attrs in found.elements:
        rules = dict(rule.split(":") for rule in attrs.get("style", "x:").split(";"))
        ground = rules.get("background", "transparent")
        assert ("color" in rules) == (ground != "transparent")
        if ground != "transparent":
            grounds += 1
            bright = sorted(map(palette.luminance, (ground, rules["color"])))
            assert (bright[1] + 0.05) / (bright[0] + 0.05) >= READABLE
    assert grounds == 4 * COUNT + 5


def test_many_lines_and_tokens_are_counted_and_not_shown():
    tokens = tuple(b"t%d" % i for i in range(60))
    text = readout_of((60, 0, 7, 60, 60), 49, tokens=tokens)._repr_html_()
    tables = Fragment(text).tables
    assert [len(table[0]) - 1 for table in tables] == [24, 7]
    assert "line 0; the first 24 of 60 tokens" in text and "line 2<" in text
    assert "2 more lines: plot(line=3), to_pandas()" in text
    assert len(text) < 1_000_000


def test_a_readout_without_best_tokens_or_anything_to_colour_is_no_mistake():
    full = readout_of()
    numbers = Readout(entropy=full.entropy, labels=full.labels)
    assert "h.2" in numbers._repr_html_() and "★" not in numbers._repr_html_()
    assert Readout(top_id=full.top_id, labels=full.labels)._repr_html_() is None
    assert Readout(norm=full.entropy, labels=full.labels)._repr_html_() is None
    assert readout_of((0, 0))._repr_html_() is None
    missing = full.replace(top_logp=np.full_like(full.top_logp, np.nan))
    assert missing._repr_html_().count(">–</small>") == 4 * COUNT


@pytest.mark.parametrize("words", ["<img src=x>", "a & b", "\"'"])
def test_facts_are_escaped(words):
    found = Fragment(notebook.facts(words, {words: words}))
    assert found.words == [words] * 3
    assert not re.search("<img", notebook.facts(words, {words: words}))
