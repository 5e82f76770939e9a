"""The page of prompts as its readers find it: what it says, to be compared with what was read."""

import re

import numpy as np
import pytest
from view.hostile import prompt_of

from jaxlens.view.prompt import html, metrics

KEPT = 0.0005 + 1e-6
"""Half of the thousandth of a nat in which the page keeps numbers."""

CELLS = """
return [...document.querySelectorAll("section")].map((section) =>
  [...section.querySelectorAll("tbody td")].map((cell) =>
    [cell.ariaLabel, cell.firstChild.textContent, cell.lastChild.textContent, cell.className]))
"""
DETAILS = """
const panel = document.getElementById("details");
const rows = (kind) => [...panel.querySelectorAll(kind + " tbody tr")].map(
  (row) => [...row.children].map((cell) => cell.title || cell.textContent));
return { token: panel.querySelector("h2").textContent, where: panel.querySelector("p").textContent,
  best: rows(".best"), ranks: rows(".ranks"), more: rows(".more") };
"""


@pytest.fixture
def show(chromium, tmp_path):
    """Opens the page of some prompts; in the end nothing was loaded and nothing complained."""
    opened = []

    def act(*prompts, **window):
        path = tmp_path / "prompt.html"
        path.write_text(html.page(prompts), encoding="utf-8")
        opened.append(chromium.open(path, **window))
        return chromium

    yield act
    chromium.read_logs()
    assert [url for url in chromium.asked if not url.startswith("data:")] == opened[-1:]
    assert chromium.complaints == []


def small(n_layers=4, count=30, **given):
    return prompt_of([f" w{i}".encode() for i in range(count)], n_layers, **given)


def near(text, value, kind):
    """Whether a text is what a number looks like, to the last digit that is shown."""
    if np.isnan(value) or (kind == metrics.RANK and value == 0):
        return text == "–"
    if kind == metrics.RANK:
        return int(text.replace(",", "")) == value
    if kind == metrics.NATS:
        return abs(float(text) - value) <= 0.005 + KEPT
    digit = 10.0 ** int(text.partition("e")[2] or -3)
    return abs(float(text) - value) <= 0.5 * digit + KEPT * value + 1e-12


def cell(browser, layer, position, section=0):
    found = f'section:nth-of-type({section + 1}) td[aria-label^="{layer}, position {position}:"]'
    return browser.driver.find_element("css selector", found)


def here(browser):
    """Name of the cell that has the focus."""
    label = browser.driver.switch_to.active_element.get_attribute("aria-label") or ""
    return label.partition(":")[0]


def choose(browser, box, value):
    browser.run(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'))",
        box,
        value,
    )
    browser.settle()


def shown_cells(browser):
    """Best token, number and colour by section, layer and position."""
    found = []
    for section in browser.run(CELLS):
        parts = [re.match(r"(.*), position ([\d]+): ", label) for label, *_ in section]
        found.append(
            {(m[1], int(m[2])): rest for m, (_, *rest) in zip(parts, section, strict=True)}
        )
    return found


def check_details(browser, shown, decoder, layer, at):
    """The panel holds the numbers of one cell."""
    panel, reading = browser.run(DETAILS), shown.readings[decoder]
    assert panel["token"] == shown.name(shown.ids[at])
    assert panel["where"] == f"position {shown.start + at:,} · {shown.layers[layer]} · {decoder}"
    best = reading["top_id"][layer, at]
    assert [name for name, _ in panel["best"]] == [shown.name(i) for i in best]
    shares = np.exp(reading["top_logp"][layer, at].astype(float))
    assert all(near(s, p, metrics.SHARE) for (_, s), p in zip(panel["best"], shares, strict=True))
    rows = [("input", shown.ids[at]), ("next", shown.following[at])]
    rows += [("final", reading["top_id"][-1, at, 0])]
    named = [(what, token, f"rank_{what}", f"logp_{what}", ()) for what, token in rows]
    for k, token in enumerate(shown.follow):
        named.append(("followed", token, "rank_follow", "logp_follow", (k,)))
    assert len(panel["ranks"]) == len(named)
    for row, (what, token, ranked, logged, k) in zip(panel["ranks"], named, strict=True):
        assert row[:2] == [what, shown.name(token) if token >= 0 else ""]
        assert near(row[2], reading[ranked][(layer, at, *k)], metrics.RANK)
        share = np.exp(float(reading[logged][(layer, at, *k)]))
        assert near(row[3], share, metrics.SHARE)
    more = ("kl_final", "kl_to_final", "kl_input", "entropy")
    for (_, text), name in zip(panel["more"], more, strict=True):
        assert near(text, reading[name][layer, at], metrics.NATS), name
