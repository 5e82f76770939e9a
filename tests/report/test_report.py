"""The report through the real command line: its numbers, its words, and nothing it could do."""

import base64
import csv
import hashlib
import html
import itertools
import json
import math
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from sweeps import configure, refused, run_cli

from jaxlens import sweep
from jaxlens.report import (
    content,
    copying,
    discarding,
    facts,
    page,
    preserving,
    primaries,
    resolving,
    series,
)
from jaxlens.store import reader
from jaxlens.study import answers
from jaxlens.view import drawing, palette, plots

NULLS = ("random-1", "random-2", "shuffled")
PIXEL = 0.02
"""Points by which a mark in a picture may lie beside its number: the file has six digits."""


class Page(HTMLParser):
    """Tags, the text of each element by its id or tag, and the tables of figures."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.tables, self.text = [], [], {}, []
        self._figure, self._cell, self._table = None, None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "figure":
            self._figure = dict(attrs)["id"]
            self.tables[self._figure] = []
        if tag == "table":
            self._table = []
            if self._figure:
                self.tables[self._figure].append(self._table)
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("th", "td"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._table[-1].append("".join(self._cell).strip())
            self._cell = None
        if tag == "figure":
            self._figure = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)


@pytest.fixture(scope="module")
def study(studied):
    return answers.study(studied / "trained", [studied / name for name in NULLS])


@pytest.fixture(scope="module")
def source(study):
    return series.Source(study)


@pytest.fixture(scope="module")
def everything(source, study):
    rooms = (resolving, discarding, preserving, copying)
    return [*primaries.figures(study), *(plot for room in rooms for plot in room.figures(source))]


@pytest.fixture(scope="module")
def text(studied):
    folders = [studied / name for name in NULLS]
    return made(studied / "trained", folders)


@pytest.fixture(scope="module")
def core(tiny, texts, tmp_path_factory):
    """A run that cannot be studied, whose page takes a second."""
    out = tmp_path_factory.mktemp("report") / "core"
    sweep.run(configure(tiny, texts, out, **{"store.rows": "core"}))
    return out


def made(run_dir, nulls=(), variants=()):
    """The page of a run."""
    return page.page(content.gather(run_dir, nulls, variants), "jaxlens report")


def pictures(text):
    """The SVG of every figure, in order."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    return [base64.b64decode(one).decode() for one in found]


def test_the_command_writes_one_page_into_the_run(studied, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(studied / "trained", copy)
    assert run_cli("report", copy, "--null", *(studied / name for name in NULLS)) == 0
    assert capsys.readouterr().out == f"wrote {copy}/report.html\n"
    assert len((copy / "report.html").read_bytes()) < 5e6
    assert run_cli("verify", copy) == 0  # it is no damage to the run


def test_the_same_run_gives_the_same_bytes(core, everything):
    assert made(core) == made(core)
    for plot in everything[:3]:
        assert drawing.svg(plot) == drawing.svg(plot)


@pytest.mark.parametrize(
    ("figure", "panel", "column", "estimator", "run"),
    [
        ("Q0-depth", 0, "this model", "mean_kl_final", "trained"),
        ("Q0-depth", 2, "shuffled text", "mean_entropy", "shuffled (seed 1)"),
        ("Q0-settled", 0, "within the first 5", "settled_within_5_share", "trained"),
        ("Q1-matched", 1, "this model", "mean_kl_final_matched", "trained"),
        ("Q1-nearer", 0, "shuffled text", "share_nearer_output", "shuffled (seed 1)"),
        ("Q2-slopes", 1, "this model", "within_type_surprisal", "trained"),
        ("Q3-copied", 0, "this model", "copied_within_type", "trained"),
    ],
)
def test_the_numbers_below_a_figure_are_those_of_the_table(
    studied, text, tmp_path, figure, panel, column, estimator, run
):
    nulls = [studied / name for name in NULLS]
    run_cli("study", studied / "trained", "--null", *nulls, "--out", tmp_path)
    with (tmp_path / "results.csv").open(newline="") as stream:
        lines = [r for r in csv.DictReader(stream) if not r["null"] and r["stratum"] == "all"]
    expected = {
        r["layer_name"]: [float(r[k]) if r[k] else math.nan for k in ("estimate", "low", "high")]
        for r in lines
        if (r["estimator"], r["run"]) == (estimator, run)
    }
    heading, *rows = Page(text).tables[figure][panel]
    place = heading.index(column)
    shown = {row[0]: row[place] for row in rows}
    missing = {layer: "–" for layer in shown if layer not in expected}
    assert shown == missing | {layer: plots.spelled(*n) for layer, n in expected.items()}


def test_several_seeds_are_one_curve_with_the_range_of_their_intervals(source):
    (fresh,) = [kind for kind in source.kinds if kind.kind == "random-init"]
    curve = source.curve("mean_norm", fresh)
    seeds = np.stack([source.along("mean_norm", label) for label in fresh.labels])
    assert len(seeds) == 2
    np.testing.assert_allclose(curve.values, seeds[:, 0].mean(0))
    np.testing.assert_array_equal(curve.low, seeds[:, 1].min(0))
    np.testing.assert_array_equal(curve.high, seeds[:, 2].max(0))


def drawn(svg, name):
    """Points of a curve in an SVG, in its own units, by the id that carries its name."""
    (path,) = re.findall(rf'<g id="{re.escape(html.escape(name))}">\s*<path d="([^"]*)"', svg)
    return np.array([[float(v) for v in pair.split()] for pair in re.split("[ML]", path)[1:]])


def test_marks_lie_where_the_numbers_are():
    """Parsed back from the picture: heights are an increasing map of values, and a straight one."""
    values = np.array([0.0, 2.5, -1.0, 10.0, 4.0])
    style = plots.Style(0)
    curve = plots.bare("this model", style, values)
    panel = plots.Lines("t", "layer", tuple("abcde"), "nat", (curve,))
    svg = drawing.svg(plots.Plot("n", "t", "c", (panel,), "b"))
    points = drawn(svg, "curve:this model")
    slope, offset = np.polyfit(values, points[:, 1], 1)
    assert slope < 0  # up is less in SVG
    np.testing.assert_allclose(points[:, 1], offset + slope * values, atol=PIXEL)
    ticks = [
        (float(label.replace("\N{MINUS SIGN}", "-")), float(y))
        for y, label in re.findall(
            r'<g id="ytick_\d+">.*?<use [^>]*?y="([\d.]+)".*?<!-- (\S+) -->', svg, re.S
        )
    ]
    assert len(ticks) > 3
    for value, y in ticks:
        assert abs(offset + slope * value - y) < PIXEL


def test_every_curve_of_the_report_is_drawn_at_its_values(everything):
    for plot in everything:
        svg = None if plot.empty else drawing.svg(plot)
        for panel in plot.panels:
            if not isinstance(panel, plots.Lines) or panel.scale != plots.LINEAR or panel.span:
                continue
            for curve in panel.curves:
                held = np.isfinite(curve.values)
                names = [c.name for p in plot.panels if p is not panel and not
                         isinstance(p, plots.Heat) for c in p.curves]  # fmt: skip
                if curve.name in names or held.sum() < 3 or np.ptp(curve.values[held]) < 1e-6:
                    continue
                points = drawn(svg, f"curve:{curve.name}")
                slope, offset = np.polyfit(curve.values[held], points[:, 1], 1)
                np.testing.assert_allclose(
                    points[:, 1], offset + slope * curve.values[held], atol=PIXEL
                )


def test_every_figure_says_what_to_see_of_what_and_with_which_interval(text, everything):
    assert len(everything) >= 17
    assert len(pictures(text)) == sum(not plot.empty for plot in everything)
    shown = Page(text)
    words = " ".join(shown.text)
    for plot in everything:
        assert plot.caption in words and plot.basis in words
        assert plot.caption.count(". ") == 0, "one sentence"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.S)
    assert len(captions) == len(everything)
    for caption in captions:
        assert "decoder final_norm" in caption and " tokens" in caption and "tiny" in caption


def test_curves_of_a_panel_can_be_told_apart_without_colour(everything):
    for plot in everything:
        for panel in plot.panels:
            if isinstance(panel, plots.Heat):
                continue
            looks = []
            for curve in panel.curves:
                style = curve.style
                grey = None
                if isinstance(style.colour, float):
                    ramp = palette.ramp(count=256)
                    grey = round(20 * palette.luminance(ramp[round(40 + 215 * style.colour)]))
                looks.append((style.dashes, style.mark, grey))
            names = [curve.name for curve in panel.curves]
            assert len(set(names)) == len(names)
            # Of many bins of rarity neighbours differ by their mark, and the grey goes one way.
            assert all(a != b for a, b in itertools.pairwise(looks)), (plot.name, looks)


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


def test_without_nulls_it_says_what_is_missing_and_how_to_make_it(studied, tmp_path, tiny, texts):
    found = made(studied / "trained")
    notices = re.findall(r'<section class="notice"><p>(.*?)</p><pre>(.*?)</pre>', found, re.S)
    kinds = ("random-init", "shuffled")
    assert [f"--null {kind}" in how for (_, how), kind in zip(notices, kinds, strict=True)]
    assert "fresh weights" in notices[0][0] and "shuffled text" in notices[1][0]
    assert "no random-init null was given" in html.unescape(found)
    words = shlex.split(html.unescape(notices[0][1]))
    words[words.index("--out") + 1] = str(tmp_path / "fresh")
    assert words[0] == "jaxlens" and run_cli(*words[1:], "--set", "devices=1") == 0
    answers.study(studied / "trained", [tmp_path / "fresh"])  # is comparable


def test_the_command_on_the_page_makes_the_same_run(studied, text, tmp_path, capsys):
    (command,) = re.findall(r"own notes have it:</p>\s*<pre>(.*?)</pre>", text, re.S)
    words = shlex.split(html.unescape(command))
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert run_cli(*words[1:]) == 0
    ours, theirs = (folder / "RUN.json" for folder in (studied / "trained", tmp_path / "again"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert facts.gather(tmp_path / "again").run_hash in text


def test_a_run_that_cannot_be_studied_has_its_curves_and_says_why(core):
    found = made(core)
    assert "cannot answer the questions of the study" in found
    assert "--tallies study" in html.unescape(found)
    (svg,) = pictures(found)
    assert "curve:of the input" in svg
    summary = reader.open_run(core).summary()
    heading, *rows = Page(found).tables["totals-layers"][0]
    place = heading.index("of the input")
    assert [row[place] for row in rows] == [
        plots.spelled(summary[layer]["median_rank_input"]) for layer in summary
    ]


def test_skips_padding_and_coverage_are_told(studied, text):
    words = " ".join(" ".join(Page(text).text).split())
    with reader.open_run(studied / "trained") as run:
        skipped = run.spec["corpus"]["skipped"]
        assert skipped
        for reason, count in skipped.items():
            assert f"{count} {reason}" in words
        assert f"{run.n_tokens:,} of {run.spec['corpus']['n_documents']} documents" in words
    assert "of the computed positions" in words and "first of each context" in words


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
def test_words_of_strangers_in_the_notes_of_a_run_are_only_text(core, tmp_path, word):
    copy = tmp_path / "run"
    shutil.copytree(core, copy)
    (note,) = (copy / "environment").glob("*.json")
    document = json.loads(note.read_text())
    document["settings"]["model"]["path"] = word
    document["settings"]["corpus"]["paths"] = [word, word]
    document["settings"]["out"] = word
    document["environment"]["processor"] = word
    document["environment"]["packages"]["jax"] = word
    note.write_text(json.dumps(document))
    found = made(copy)
    plain = made(core)
    assert [t for t in Page(found).tags if t != "pre"] == [
        t for t in Page(plain).tags if t != "pre"
    ]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", found)
    for command in re.findall(r"<pre>(jaxlens run.*?)</pre>", found, re.S):
        # Whoever pastes it into a shell gives the program one odd word, and runs nothing else.
        assert shlex.split(html.unescape(command))[:2] == ["jaxlens", "run"]
        lexer = shlex.shlex(html.unescape(command), posix=True, punctuation_chars=True)
        assert not set(lexer) & {";", "|", "&", "&&", "||", "(", ")"}


@pytest.mark.parametrize("notes", ["{", "[]", '{"settings": 7, "environment": []}', '{"a": 1}'])
def test_notes_that_make_no_sense_are_left_out(core, tmp_path, notes):
    copy = tmp_path / "run"
    shutil.copytree(core, copy)
    (note,) = (copy / "environment").glob("*.json")
    note.write_text(notes)
    assert "No note of the run tells the command" in made(copy)


def test_a_damaged_run_a_missing_one_and_a_foreign_null_are_refused(
    studied, swept, tmp_path, capsys
):
    assert "missing" in refused(capsys, 66, "report", tmp_path / "nothing")
    copy = tmp_path / "run"
    shutil.copytree(studied / "trained", copy)
    data = bytearray((copy / "summary.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "summary.h5").write_bytes(data)
    assert "summary.h5" in refused(capsys, 65, "report", copy)
    assert not (copy / "report.html").exists()
    refused(capsys, 2, "report", studied / "trained", "--null", swept)


def test_a_null_in_the_place_of_the_run_has_its_curves_and_is_called_a_null(studied):
    found = made(studied / "random-1")
    assert "is itself a random-init run" in found and len(pictures(found)) == 1
