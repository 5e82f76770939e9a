"""Comparisons: what is aligned, the sign of a difference, and the colour that says so."""

import dataclasses
import itertools
import json
import math
import re

import numpy as np
import pytest
from view import hostile, seen
from view.labelled import readout_of

from jaxlens import errors
from jaxlens.view.comparison import depths, difference, figure, html
from jaxlens.view.comparison.comparison import compare
from jaxlens.view.figures import palette
from jaxlens.view.prompt import metrics, raster

WORDS = ["The", " capital", " of", " France", " is", " Paris", " here", " and", " the"]


KNOWN = (*WORDS, " x", " y", " z")


def prompt_of(words, seed=0, n_layers=4, known=KNOWN, **more):
    """A prompt of known words with random numbers."""
    made = hostile.prompt_of([w.encode() for w in known], n_layers, seed, (0,), ("plain",))
    ids = np.array([known.index(word) for word in words])
    places = np.arange(len(ids)) % len(known)
    reading = {name: values[:, places] for name, values in made.readings["plain"].items()}
    reading["rank_next"][:, -1] = 0
    text = "".join(words)
    return dataclasses.replace(
        made,
        ids=ids,
        following=np.append(ids[1:], -1),
        readings={"plain": reading},
        text=text,
        **more,
    )


def test_differences_are_first_minus_second_of_ranks_their_ratio():
    one, two = prompt_of(WORDS), prompt_of(WORDS, seed=1)
    found = compare(one, two)
    assert found.equal.all() and len(found) == len(WORDS)
    for name, metric in found.views().items():
        a, b = (metric.values(side.readings["plain"]) for side in (one, two))
        expected = np.log(a) - np.log(b) if metric.kind == metrics.RANK else a - b
        values = found.difference(name).values
        np.testing.assert_array_equal(values, expected)
        back = compare(two, one).difference(name).values
        np.testing.assert_array_equal(back, -values)
    assert np.isnan(found.difference("rank_next").values[:, -1]).all(), "no token follows"


def test_tokens_are_aligned_by_position_where_they_are_equal():
    other = [*WORDS[:3], " here", *WORDS[4:]]
    found = compare(prompt_of(WORDS), prompt_of(other, seed=1))
    assert found.equal.tolist() == [True] * 3 + [False] + [True] * 5
    values = found.difference("entropy").values
    assert np.isnan(values[:, 3]).all() and np.isfinite(np.delete(values, 3, 1)).all()
    assert found.notes[0] == "8 tokens aligned by position; at 1 position the tokens differ"
    assert found.token(3) == ("·France", "·here")
    # What follows the third token is another one on each side: its ranks are not compared.
    assert np.isnan(found.difference("rank_next").values[:, 2]).all()


def test_prompts_of_other_lengths_are_aligned_from_both_ends():
    longer = [*WORDS[:3], " here", " and", *WORDS[4:]]
    found = compare(prompt_of(WORDS), prompt_of(longer, seed=1))
    assert found.columns.tolist() == [
        *([i, i] for i in range(3)),
        *([3, 3], [-1, 4]),
        *([i, i + 1] for i in range(4, 9)),
    ]
    assert found.notes[0] == "9 and 10 tokens: 3 aligned from the beginning, 5 from the end"
    one, two = (found.values("entropy", side) for side in (0, 1))
    np.testing.assert_array_equal(one[:, 8], found.first.readings["plain"]["entropy"][:, 7])
    np.testing.assert_array_equal(two[:, 8], found.second.readings["plain"]["entropy"][:, 8])
    assert np.isnan(one[:, 4]).all() and np.isfinite(two[:, 4]).all()
    repeated = compare(prompt_of([" the"] * 3), prompt_of([" the"] * 5, seed=1))
    assert repeated.columns.tolist() == [[0, 0], [1, 1], [2, 2], [-1, 3], [-1, 4]]


def test_other_tokenizers_are_aligned_where_tokens_cover_the_same_text():
    pieces = ["The", " cap", "ital", " of", " France", " ", "is"]
    other = prompt_of(pieces, 1, known=[*pieces, "x", "y", "z", "v", "w"], model="other")
    found = compare(prompt_of(WORDS[:5]), other)
    assert found.columns[found.equal].tolist() == [[0, 0], [2, 3], [3, 4]]
    alone = sorted(found.columns[~found.equal].tolist())
    assert alone == [[-1, 1], [-1, 2], [-1, 5], [-1, 6], [1, -1], [4, -1]]
    assert "3 of 5 and 7 tokens stand for the same part of the text" in found.notes[0]
    wordless = dataclasses.replace(other, token_bytes={})
    with pytest.raises(errors.ConfigError, match="without the text"):
        compare(prompt_of(WORDS), wordless)


def test_other_depths_are_refused_unless_relative_depth_is_asked_for():
    one, two = prompt_of(WORDS, n_layers=9), prompt_of(WORDS, seed=1, n_layers=13)
    with pytest.raises(errors.ConfigError, match="8 and 12 blocks") as refused:
        compare(one, two)
    assert "--relative-depth" in refused.value.hint
    found = compare(one, two, relative_depth=True)
    assert found.pairs[0] == (0, 0) and found.pairs[-1] == (8, 12) and len(found.pairs) == 9
    assert all(abs(i / 8 - j / 12) <= 1 / 24 + 1e-12 for i, j in found.pairs)
    assert found.layer_names[1] == "h.0 | h.1" and found.layer_names[0] == "input"
    swapped = compare(two, one, relative_depth=True)
    assert swapped.pairs == tuple((j, i) for i, j in found.pairs)
    np.testing.assert_array_equal(
        swapped.difference("entropy").values, -found.difference("entropy").values
    )


@pytest.mark.parametrize(("few", "many"), [(2, 2), (2, 49), (7, 13), (13, 49), (25, 37)])
def test_relative_depth_keeps_both_ends_and_the_order(few, many):
    pairs = depths.matched(few, many)
    assert pairs[0] == (0, 0) and pairs[-1] == (few - 1, many - 1) and len(pairs) == few
    assert all(a < b for a, b in itertools.pairwise(j for _, j in pairs))
    assert depths.matched(many, few) == [(j, i) for i, j in pairs]


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (0.0, metrics.SHARE, "0"),
        (0.12345, metrics.SHARE, "+0.123"),
        (-0.12345, metrics.SHARE, "−0.123"),
        (-3.2e-5, metrics.SHARE, "−3e-5"),
        (1.005, metrics.NATS, "+1.00"),
        (-0.004, metrics.NATS, "−4e-3"),
        (-123.4, metrics.NATS, "−123"),
        (math.log(12), metrics.RANK, "×12.0"),
        (-math.log(1.5), metrics.RANK, "÷1.50"),
        (math.log(2345), metrics.RANK, "×2,345"),
        (0.0, metrics.RANK, "×1"),
        (math.nan, metrics.NATS, "–"),
    ],
)
def test_a_difference_is_spelled_with_its_sign(value, kind, words):
    assert difference.format_difference(value, kind) == words


@pytest.mark.parametrize("name", ["p_top", "rank_input", "kl_final"])
def test_the_scale_is_centred_on_zero_and_no_value_is_beyond_it(name):
    found = compare(prompt_of(WORDS), prompt_of(WORDS, seed=1)).difference(name)
    assert found.limit >= np.nanmax(np.abs(found.values))
    places = [place for place, _ in found.ticks()]
    assert places[0] == 1 and places[2] == 0 and places[-1] == -1
    np.testing.assert_allclose(places, [-place for place in reversed(places)])
    assert float(found.strength(np.array(0.0))) == 0
    signs = np.sign(found.strength(found.values))
    np.testing.assert_array_equal(signs, np.sign(found.values))


def test_small_differences_are_not_painted_as_if_they_mattered():
    one = prompt_of(WORDS)
    reading = one.readings["plain"] | {
        "entropy": one.readings["plain"]["entropy"] + np.float32(1e-4)
    }
    found = compare(one, dataclasses.replace(one, readings={"plain": reading}))
    entropy = found.difference("entropy")
    assert entropy.limit == difference.MIN_LIMIT[metrics.NATS]
    assert np.abs(entropy.strength(entropy.values)).max() < 0.05


def test_what_cannot_be_compared_is_refused():
    one = prompt_of(WORDS)
    with pytest.raises(errors.ConfigError, match="no token stands at the same place"):
        compare(prompt_of(["The", " of"]), prompt_of([" of", "The"]))
    with pytest.raises(errors.ConfigError, match="a part of a prompt"):
        compare(one.part(1, None), one)
    with pytest.raises(errors.ConfigError, match="no metric loss"):
        compare(one, one).difference("loss")
    with pytest.raises(errors.ConfigError, match="no tokens from 9"):
        compare(one, one).part(9, None)
    lacking = {n: v for n, v in one.readings["plain"].items() if n != "entropy"}
    other = dataclasses.replace(one, readings={"plain": lacking})
    with pytest.raises(errors.ConfigError, match="entropy needs entropy"):
        compare(one, other).difference("entropy")


def test_json_holds_both_sides_and_the_differences():
    found = compare(prompt_of(WORDS), prompt_of(WORDS[:-1], seed=1)).document()
    found = json.loads(json.dumps(found, allow_nan=False))
    assert found["first"]["tokens"] == list(range(9)) and found["aligned"][1].startswith("layers")
    assert found["tokens"][-1] == {"first": 8, "second": -1, "equal": False}
    entropy = found["differences"]["entropy"]
    one, two = (found[side]["decoders"]["plain"]["entropy"] for side in ("first", "second"))
    assert entropy["unit"] == "nat" and entropy["values"][0][8] is None
    np.testing.assert_allclose(entropy["values"][2][3], one[2][3] - two[2][3], atol=1e-6)


def test_readouts_compare_their_lines():
    readout = readout_of((13, 13, 7), follow=(8,))
    found = readout.compare(readout, 0, 1)
    expected = readout.entropy[:, 0].astype(float) - readout.entropy[:, 1]
    np.testing.assert_array_equal(found.difference("entropy").values, expected)
    assert found.names == ("first", "second") and "<Comparison of first" in repr(found)
    named = readout.compare(readout_of((13,), seed=5, follow=(8,)), 2, 0, names=("short", "long"))
    assert named.notes[0] == "7 and 13 tokens: 7 aligned from the beginning, 0 from the end"
    assert "rank_follow" in named.views()
    fragment = named._repr_html_()
    assert "<script" not in fragment and "A: short" in fragment
    assert named.difference().format_number(named.difference().values[2, 3]) in fragment


def simulated(colour, kind):
    """A colour as dichromats see it: linear sRGB by Viénot 1999, Machado 2009 for tritan."""
    to = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.01182, 0.04294, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.3039]],
        "normal": np.eye(3),
    }  # fmt: skip
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.clip(np.array(to[kind]) @ linear, 0, 1)


def lab(linear):
    """OKLab of linear sRGB."""
    cone = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ linear
    )
    return (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ cone
    )


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan", "tritan"])
@pytest.mark.parametrize("ends", [palette.DIVERGING_LIGHT, palette.DIVERGING_DARK])
def test_both_signs_differ_for_every_eye_and_size_is_read_in_grey(ends, kind):
    colours = [lab(simulated(c, kind)) for c in palette.diverging(ends, 17)]
    for size in range(3, 9):  # from a third of the scale on
        less, more = colours[8 - size], colours[8 + size]
        assert np.linalg.norm(less - more) > 0.05, (size, kind)
    grey = [palette.luminance(c) for c in palette.diverging(ends, 33)]
    middle = grey[16]
    for side in (grey[16:], grey[16::-1]):
        steps = np.diff(side)
        assert (steps < 0).all() if ends is palette.DIVERGING_LIGHT else (steps > 0).all()
    assert abs(middle - palette.luminance(palette.ramp(count=2)[0])) < 1


@pytest.mark.parametrize("ends", [palette.DIVERGING_LIGHT, palette.DIVERGING_DARK])
def test_every_difference_can_be_read_on_its_colour(ends):
    for colour in palette.diverging(ends, 33):
        low, high = sorted([palette.luminance(palette.ink(colour)), palette.luminance(colour)])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_figure_says_the_numbers_of_all_three_panels():
    longer = [*WORDS[:3], " here", " and", *WORDS[4:]]
    shown = compare(prompt_of(WORDS), prompt_of(longer, seed=1))
    made = figure.figure(shown, "kl_final")
    above, *sides = made.axes[:3]
    found = shown.difference("kl_final")
    assert [t.get_text() for t in above.texts] == [
        found.format_number(v) for v in found.values.ravel()
    ]
    assert above.get_title("left") == "KL(last layer ‖ this layer): A minus B"
    assert not any(t.get_text() == "nan" for axes in sides for t in axes.texts)
    for side, axes in enumerate(sides):
        prompt, best = shown.sides[side], shown.readings[side]["top_id"]
        values = shown.values("kl_final", side)
        expected = [
            [prompt.name(best[layer, at, 0]) if at >= 0 else "", float(values[layer, column])]
            for layer in range(values.shape[0])
            for column, at in enumerate(shown.columns[:, side].tolist())
        ]
        lines = [t.get_text().split("\n") for t in axes.texts]
        assert len(lines) == len(expected)
        for line, (name, number) in zip(lines, expected, strict=True):
            assert line[0] == (raster.cut(name) or "–")
            assert not name or float(line[1]) == pytest.approx(number, abs=0.51)
        assert axes.get_title("left").startswith("AB"[side] + ": best token, and KL")
    labels = [t.get_text() for t in above.get_xticklabels()]
    assert labels[2] == "·of" and labels[3] == "·France\n·here" and labels[4] == "·and"
    image = above.images[0]
    assert image.get_clim() == (-1, 1), "0 has the colour in the middle"
    caption = made._supxlabel.get_text().replace("\n", " ")
    assert "blue: greater in A, orange: greater in B" in caption and shown.notes[0] in caption
    red, _, blue, _ = image.cmap(1.0)
    assert blue > red and image.cmap(0.0)[0] > image.cmap(0.0)[2]
    many = compare(prompt_of(WORDS * 8), prompt_of(WORDS * 8))
    with pytest.raises(errors.ConfigError, match="a figure of 72 tokens"):
        figure.figure(many)


CELLS = """
return [...document.querySelectorAll("section")].map((section) =>
  [...section.querySelectorAll("tbody td")].map((cell) => [cell.layer, cell.at,
    [...cell.querySelectorAll("span")].map((e) => e.textContent), cell.lastChild.textContent,
    cell.className, getComputedStyle(cell).backgroundColor]))
"""


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens the page of a comparison; in the end nothing was loaded and nothing complained."""
    addresses = []

    def act(shown, **window):
        path = tmp_path / "compared.html"
        path.write_text(html.page(shown), encoding="utf-8")
        addresses.append(chromium.open(path, **window))
        return chromium

    yield act
    chromium.read_logs()
    assert [url for url in chromium.asked if not url.startswith("data:")] == addresses[-1:]
    assert chromium.complaints == []
    assert chromium.run("return window.violations") == []


def is_blue(colour):
    red, _, blue = map(int, re.findall(r"\d+", colour)[:3])
    return blue > red


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_every_number_and_the_legend_is_true_in_both_themes(opened, scheme):
    other = [*WORDS[:3], " here", *WORDS[4:]]
    shown = compare(prompt_of(WORDS), prompt_of(other, seed=1))
    browser = opened(shown, scheme=scheme)
    assert (
        "blue: greater in A; orange: greater in B" in browser.each("#difference", "e.innerText")[0]
    )
    for name, metric in shown.views().items():
        seen.choose(browser, "metric", name)
        found = shown.difference(name)
        tables = browser.run(CELLS)
        assert [len(cells) for cells in tables] == [found.values.size] * 3
        for layer, at, names, number, look, ground in tables[0]:
            value = float(found.values[layer, at])
            assert number == found.format_number(value)
            best = [
                side.name(side.readings["plain"]["top_id"][layer, at, 0]) for side in shown.sides
            ]
            assert names == list(dict.fromkeys(best))
            if math.isnan(value):
                assert look.split()[0] == "none"
            elif abs(float(found.strength(np.array(value)))) > 0.2:
                assert is_blue(ground) == (value > 0), (name, layer, at)
        for side in (0, 1):
            values = shown.values(name, side)
            for layer, at, _, number, _, _ in tables[side + 1]:
                assert number == metrics.format_number(float(values[layer, at]), metric.kind)
        legend = browser.each("#difference .swatches span", "e.textContent")
        assert legend == [label for _, label in found.ticks()]
        grounds = browser.each("#difference .swatches span", "getComputedStyle(e).backgroundColor")
        assert is_blue(grounds[0]) and not is_blue(grounds[-1])
        page = browser.style(":root", "backgroundColor")
        middle, around = (int(re.findall(r"\d+", c)[1]) for c in (grounds[2], page))
        assert abs(middle - around) < 24, "no difference looks like the page"
    browser.press("m")
    assert browser.each("#metric", "e.value") == [next(iter(shown.views()))]


def test_the_chosen_cell_shows_both_sides_and_fits_a_phone(opened):
    shown = compare(prompt_of(WORDS), prompt_of(WORDS, seed=1))
    browser = opened(shown, width=390, height=844, touch=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    cell = browser.driver.find_elements("css selector", "#difference tbody td")[3]
    browser.run("arguments[0].click()", cell)
    layer, at = browser.run("return [arguments[0].layer, arguments[0].at]", cell)
    rows = browser.run(
        "return [...document.querySelectorAll('.both tbody tr')].map("
        "(row) => [...row.children].map((cell) => cell.textContent))"
    )
    for row, (name, metric) in zip(rows, shown.views().items(), strict=True):
        sides = [
            metrics.format_number(float(shown.values(name, s)[layer, at]), metric.kind)
            for s in (0, 1)
        ]
        found = shown.difference(name)
        assert row == [metric.title, *sides, found.format_number(float(found.values[layer, at]))]
    assert len(browser.driver.find_elements("css selector", "td.here")) == 3
    browser.press("ArrowRight")


def test_hostile_tokens_are_text_on_the_page(opened):
    readout = readout_of((13, 13))
    browser = opened(readout.compare(readout, 0, 1))
    assert browser.run("return document.querySelectorAll('img').length") == 0
    with pytest.raises(errors.ConfigError, match="a page that compares 135 tokens"):
        html.page(compare(prompt_of(WORDS * 15), prompt_of(WORDS * 15)))
