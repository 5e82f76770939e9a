"""The page as text: what it holds is what was read, and nothing of it is markup or leaves it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from view.hostile import TOKENS, prompt_of

from jaxlens import errors
from jaxlens.view import pages, printable
from jaxlens.view.prompt import html, metrics

HALF = 0.0005 + 1e-6
"""Half of the thousandth of a nat in which numbers are kept."""


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        self.text.setdefault(self._open, []).append(data)


def data_of(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def test_the_numbers_of_the_page_are_the_numbers_that_were_read():
    shown = prompt_of()
    (found,) = data_of(html.page([shown]))["prompts"]
    assert found["tokens"] == shown.ids.tolist()
    assert found["following"] == shown.following.tolist()
    for decoder, reading in shown.readings.items():
        for name, values in reading.items():
            stored = html.unpack(found["readings"][decoder][name])
            if name == "top_id" or name.startswith("rank_"):
                np.testing.assert_array_equal(stored, values)
            else:
                missing = np.isnan(values)
                np.testing.assert_array_equal(stored == html.MISSING, missing)
                difference = np.abs(stored / 1000 - np.abs(values))[~missing]
                assert difference.max() <= HALF, name


def test_large_divergences_and_vocabularies_are_kept_or_said_to_be_more():
    shown = prompt_of()
    reading = shown.readings["plain"]
    reading["kl_final"][0, 0] = 80.0
    reading["rank_input"][0, 0] = 100_000
    (found,) = data_of(html.page([shown]))["prompts"]
    assert html.unpack(found["readings"]["plain"]["kl_final"])[0, 0] == html.MAX
    assert html.unpack(found["readings"]["plain"]["rank_input"])[0, 0] == 100_000


def test_every_followed_token_has_its_two_metrics_with_its_own_numbers():
    shown = prompt_of(follow=(8, 0))
    offered = [m for m in data_of(html.page([shown]))["metrics"] if "_follow" in m["quantity"]]
    assert [m["place"] for m in offered] == [0, 0, 1, 1]
    assert offered[0]["title"] == "rank of ·plasma"
    known = [m for n in (0, 1) for m in metrics.followed("x", n, shown.vocab_size)]
    for place, metric in enumerate(known):
        stored = shown.readings["plain"][metric.quantity][..., place // 2]
        expected = np.exp(stored.astype(float)) if metric.kind == metrics.SHARE else stored
        np.testing.assert_allclose(metric.values(shown.readings["plain"]), expected)


def test_no_token_or_title_becomes_markup():
    text = html.page([prompt_of(), prompt_of(seed=1)])
    elements = Elements(text)
    tags = [tag for tag, _ in elements.found]
    assert "img" not in tags and "b" not in tags
    assert tags.count("script") == 2
    assert not [attrs for _, attrs in elements.found if any(a.startswith("on") for a in attrs)]
    assert "<b>model</b>" not in text
    (embedded,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    assert not set("<>&\u2028\u2029") & set(embedded)
    names = data_of(text)["names"]
    assert names["0"] == printable.token(TOKENS[0])
    assert "\x1b" not in json.dumps(names, ensure_ascii=False)
    assert "\u202e" not in json.dumps(names, ensure_ascii=False)
    assert len(names["5"]) < 300


def test_the_policy_allows_the_script_and_the_style_of_the_page_and_nothing_else():
    text = html.page([prompt_of()])
    (policy,) = (a["content"] for t, a in Elements(text).found if "http-equiv" in a and t == "meta")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    for rule, inline in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_the_page_loads_nothing():
    elements = Elements(html.page([prompt_of()]))
    assert not [a for _, a in elements.found if a.keys() & {"src", "href", "srcset", "action"}]
    assert "url(" not in pages.asset("prompt.css") and "@import" not in pages.asset("prompt.css")
    for script in html.SCRIPTS:
        for word in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "innerHTML", "eval("):
            assert word not in pages.asset(script)


def test_prompts_that_cannot_share_a_page_are_refused():
    with pytest.raises(errors.ConfigError, match="different"):
        html.page([prompt_of(), prompt_of(follow=(1,))])


def test_a_prompt_of_1024_tokens_and_13_layers_takes_less_than_two_megabytes():
    rng = np.random.default_rng(0)
    tokens = [f" w{i}".encode() for i in range(1024)]
    shown = prompt_of(tokens, n_layers=13, follow=())
    for reading in shown.readings.values():
        for name in [name for name in reading if name.endswith("_follow")]:
            del reading[name]
        reading["top_id"] = rng.integers(0, 1024, (13, 1024, 5)).astype(np.int32)
        reading["top_logp"] = -np.sort(rng.exponential(2, (13, 1024, 5))).astype(np.float32)
    assert len(html.page([shown]).encode()) < 2_000_000
