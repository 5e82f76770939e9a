"""The page in a real browser shows what was read, and nothing else."""

import math

import numpy as np
import pytest
from view import seen
from view.hostile import prompt_of

from jaxlens.view.figures import palette
from jaxlens.view.prompt import html, metrics


def test_hovering_a_cell_shows_the_numbers_that_were_read(show):
    shown = prompt_of()
    browser = show(shown)
    for layer, at in ((0, 0), (3, 12), (2, 5), (1, 8)):
        browser.point_at(seen.cell(browser, shown.layers[layer], at))
        seen.check_details(browser, shown, "final_norm", layer, at)
    seen.choose(browser, "decoder", "plain")
    seen.check_details(browser, shown, "plain", 1, 8)


@pytest.mark.parametrize("decoder", ["final_norm", "plain"])
def test_every_metric_says_in_every_cell_what_was_read_and_colours_it_so(show, decoder):
    shown = prompt_of(follow=(8, 0))
    browser = show(shown)
    seen.choose(browser, "decoder", decoder)
    reading = shown.readings[decoder]
    known = list(metrics.table(shown.vocab_size).values())
    for k, token in enumerate(shown.follow):
        known += metrics.followed(shown.name(token), k, shown.vocab_size)
    offered = browser.each("#metric option", "e.value")
    assert offered == [metric.name for metric in known]
    for metric in known:
        seen.choose(browser, "metric", metric.name)
        values = metric.values(reading)
        strengths = metric.strength(values) * (html.COLOURS - 1)
        (cells,) = seen.shown_cells(browser)
        assert len(cells) == values.size
        for (layer, at), (best, number, colour) in cells.items():
            place = shown.layers.index(layer), at
            assert best == shown.name(reading["top_id"][(*place, 0)])
            assert seen.near(number, values[place], metric.kind), (metric.name, place)
            if np.isnan(values[place]):
                assert colour.split()[0] == "none"
            else:
                assert abs(int(colour.split()[0][1:]) - strengths[place]) <= 0.51
        assert browser.driver.find_element("id", "says").text == metric.title
        labels = browser.driver.find_element("id", "swatches").text.split("\n")
        assert labels == [label for _, label in metric.ticks()]


def test_numbers_beyond_what_is_kept_are_said_to_be_more(show):
    shown = seen.small(follow=())
    reading = shown.readings["final_norm"]
    reading["kl_final"][2, 3], reading["logp_input"][2, 3] = 80.0, -90.0
    browser = show(shown)
    browser.point_at(seen.cell(browser, "h.1", 3))
    panel = browser.run(seen.DETAILS)
    assert panel["more"][0][1] == "≥65.53"
    assert panel["ranks"][0][3] == "≤3e-29" and math.isclose(math.exp(-65.534), 3e-29, rel_tol=0.2)


def test_a_range_shows_its_tokens_and_no_others(show):
    shown = seen.small(count=100)
    browser = show(shown)
    (cells,) = seen.shown_cells(browser)
    assert {at for _, at in cells} == set(range(64))
    seen.choose(browser, "to", "29")
    seen.choose(browser, "from", "20")
    (cells,) = seen.shown_cells(browser)
    assert {at for _, at in cells} == set(range(20, 30))
    best = shown.readings["final_norm"]["top_id"]
    for (layer, at), (name, *_) in cells.items():
        assert name == shown.name(best[shown.layers.index(layer), at, 0])
    ends = browser.each("tfoot th[scope=col]", "e.title")
    assert ends == [f"{shown.name(at)} at position {at}" for at in range(20, 30)]
    browser.driver.find_element("id", "on").click()
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(30, 40))
    browser.press("[", "[", "[", "[", "[")
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(10))
    assert not browser.driver.find_element("id", "back").is_enabled()
    for wrong in ("-5", "1e9", ""):
        seen.choose(browser, "from", wrong)
        assert seen.shown_cells(browser)[0]


def test_the_map_goes_to_the_tokens_under_the_pointer(show):
    browser = show(seen.small(count=400))
    canvas = browser.driver.find_element("css selector", "canvas")
    assert canvas.is_displayed()
    browser.run("arguments[0].scrollIntoView()", canvas)
    browser.point_at(canvas)
    canvas.click()
    shown = {at for _, at in seen.shown_cells(browser)[0]}
    # The middle of an even number of pixels is one of two.
    assert len(shown) == 64 and min(shown) in (167, 168)
    pixels = browser.run(
        "return [...arguments[0].getContext('2d').getImageData(0, 1, 400, 1).data]", canvas
    )
    colours = np.array(pixels).reshape(400, 4)[:, :3].tolist()
    ramp = palette.ramp(palette.LIGHT, html.COLOURS)
    values = np.exp(
        seen.small(count=400).readings["final_norm"]["top_logp"][-1, :, 0].astype(float)
    )
    places = [ramp.index("#" + bytes(colour).hex()) for colour in colours]
    assert np.abs(np.array(places) - values * (html.COLOURS - 1)).max() <= 0.51


def test_a_part_of_a_text_keeps_its_positions(show):
    shown = seen.small().part(10, 20)
    browser = show(shown)
    (cells,) = seen.shown_cells(browser)
    assert {at for _, at in cells} == set(range(10, 20))
    browser.point_at(seen.cell(browser, "h.0", 14))
    seen.check_details(browser, shown, "final_norm", 1, 4)
    ends = [browser.driver.find_element("id", one).get_property("value") for one in ("from", "to")]
    assert ends == ["10", "19"]
    seen.choose(browser, "from", "15")
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(15, 20))


def points(browser, section):
    """Height of each point of each line, in the order of the followed tokens."""
    lines = browser.each(
        f"section:nth-of-type({section + 1}) polyline",
        "e.getAttribute('points').split(' ').map((p) => Number(p.split(',')[1]))",
    )
    return np.array(lines)


def test_followed_tokens_of_every_prompt_follow_the_decoder_and_the_chosen_position(show):
    prompts = [seen.small(seed=seed, follow=(8, 0, 3)) for seed in (0, 1)]
    browser = show(*prompts)
    browser.point_at(seen.cell(browser, "h.0", 2, section=0))
    browser.point_at(seen.cell(browser, "h.1", 4, section=1))
    for decoder in ("final_norm", "plain"):
        seen.choose(browser, "decoder", decoder)
        for section, (shown, at) in enumerate(zip(prompts, (2, 4), strict=True)):
            ranks = np.log(shown.readings[decoder]["rank_follow"][:, at].T)
            drawn = points(browser, section)
            slope, start = np.polyfit(ranks.ravel(), drawn.ravel(), 1)
            assert slope > 0, "rank 1 is on top"
            np.testing.assert_allclose(drawn, start + slope * ranks, atol=0.01)
    labels = browser.each("section:first-child svg title", "e.textContent")
    assert sorted(labels) == sorted(prompts[0].name(i) for i in (8, 0, 3))


def test_several_prompts_show_each_its_own_numbers(show):
    prompts = [seen.small(), seen.small(seed=1), seen.small(count=12, seed=2)]
    prompts[2] = prompts[2].part(0, 5)
    browser = show(*prompts)
    seen.choose(browser, "metric", "kl_final")
    for shown, cells in zip(prompts, seen.shown_cells(browser), strict=True):
        assert len(cells) == 4 * len(shown)
        values = shown.readings["final_norm"]["kl_final"]
        for (layer, at), (_, number, _) in cells.items():
            assert seen.near(number, values[shown.layers.index(layer), at], metrics.NATS)
    browser.point_at(seen.cell(browser, "h.0", 3, section=1))
    seen.check_details(browser, prompts[1], "final_norm", 1, 3)
    seen.choose(browser, "from", "20")
    assert [len(cells) for cells in seen.shown_cells(browser)] == [40, 40, 0]
    last = browser.driver.find_elements("css selector", "section")[2]
    assert "This text has only 5 tokens." in last.text


def longest():
    """A prompt as long as GPT-2 reads, in as many layers."""
    shown = seen.small(13, 1024, follow=())
    for reading in shown.readings.values():
        for name in ("rank_follow", "logp_follow"):
            del reading[name]
    return shown


def test_a_prompt_of_1024_tokens_takes_a_bounded_number_of_elements(show):
    shown = longest()
    assert len(html.page([shown]).encode()) < 2_000_000
    browser = show(shown)
    many = "return document.querySelectorAll('tbody td').length"
    assert browser.run(many) <= 64 * 13 + 100
    browser.point_at(seen.cell(browser, "h.11", 40))
    seen.check_details(browser, shown, "final_norm", 12, 40)
    seen.choose(browser, "to", "1023")
    assert browser.run(many) <= 128 * 13 + 100
    browser.run("window.kept = document.querySelector('tbody td')")
    browser.press("]", "]", "m", "d")
    assert {at for _, at in seen.shown_cells(browser)[0]} == set(range(256, 384))
    assert browser.run("return window.kept.isConnected"), "cells are painted anew, not made anew"
    seen.check_details(browser, shown, "plain", 12, 256)


def test_many_prompts_do_not_make_more_cells_than_one_page_can_hold(show):
    browser = show(*(seen.small(13, 200, seed=seed) for seed in range(8)))
    assert browser.run("return document.querySelectorAll('tbody td').length") <= 4096 + 200


@pytest.mark.parametrize("metric", [None, "kl_final", "rank_follow.2"])
def test_a_page_opens_with_the_metric_that_was_asked_for(chromium, tmp_path, metric):
    shown = prompt_of(follow=(8, 0))
    path = tmp_path / "prompt.html"
    path.write_text(html.page([shown], metric), encoding="utf-8")
    chromium.open(path)
    wanted = shown.view(metric or "p_top")
    assert chromium.run("return document.getElementById('metric').value") == wanted.name
    assert chromium.driver.find_element("id", "says").text == wanted.title
    (cells,) = seen.shown_cells(chromium)
    values = wanted.values(shown.readings["final_norm"])
    for (layer, at), (_, number, _) in cells.items():
        assert seen.near(number, values[shown.layers.index(layer), at], wanted.kind)
    chromium.press("m")
    after = list(shown.views())
    following = after[(after.index(wanted.name) + 1) % len(after)]
    assert chromium.run("return document.getElementById('metric').value") == following
