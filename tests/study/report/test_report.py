"""The report through the real command line: its figures hold the numbers of the files."""

import csv
import dataclasses
import html
import itertools
import math
import re
import shlex
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from study.report.pages import Page, made, pictures
from sweeps import STUDY, configure, refused, run_cli

from jaxlens import errors
from jaxlens.store import reader
from jaxlens.study import readings
from jaxlens.study import study as answers
from jaxlens.study.comparison import compare
from jaxlens.study.report import (
    comparing,
    content,
    decoders,
    excerpt,
    facts,
    page,
    primaries,
    prose,
    series,
)
from jaxlens.sweep import run as sweep
from jaxlens.view.figures import palette, plots
from jaxlens.view.figures import svg as drawing

NULLS = ("random-1", "random-2", "shuffled")
PIXEL = 0.02
"""Points by which a mark in a picture may lie beside its number: the file has six digits."""


def test_the_command_writes_one_page_into_the_run(reported):
    copy, printed = reported
    assert printed == f"wrote {copy}/report.html\n"
    assert len((copy / "report.html").read_bytes()) < 5e6
    assert run_cli("verify", copy) == 0  # it is no damage to the run


def test_the_same_run_gives_the_same_bytes(bare, plain, everything):
    assert made(bare) == plain
    for plot in everything[:3]:
        assert drawing.svg(plot) == drawing.svg(plot)


@pytest.fixture(scope="module")
def table(studied, tmp_path_factory):
    """Lines of the table that the study writes."""
    folder = tmp_path_factory.mktemp("table")
    nulls = [studied / name for name in NULLS]
    assert run_cli("study", studied / "trained", "--null", *nulls, "--out", folder) == 0
    with (folder / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("figure", "panel", "column", "estimator", "run"),
    [
        ("Q0-depth", 0, "this model", "mean_kl_final", "trained"),
        ("Q0-depth", 2, "shuffled text", "mean_entropy", "shuffled (seed 1)"),
        ("Q0-settled", 0, "within the top 5", "settled_within_5_share", "trained"),
        ("Q1-matched", 1, "this model", "mean_kl_final_matched", "trained"),
        ("Q1-nearer", 0, "shuffled text", "share_nearer_output", "shuffled (seed 1)"),
        ("Q2-slopes", 1, "this model", "within_type_surprisal", "trained"),
        ("Q3-copied", 0, "this model", "copied_within_type", "trained"),
    ],
)
def test_the_numbers_below_a_figure_are_those_of_the_table(
    table, text, figure, panel, column, estimator, run
):
    lines = [line for line in table if not line["null"] and line["stratum"] == "all"]
    expected = {
        r["layer_name"]: [float(r[k]) if r[k] else math.nan for k in ("estimate", "low", "high")]
        for r in lines
        if (r["estimator"], r["run"]) == (estimator, run)
    }
    heading, *rows = Page(text).tables[figure][panel]
    place = heading.index(column)
    shown = {row[0]: row[place] for row in rows}
    missing = {layer: "–" for layer in shown if layer not in expected}
    assert shown == missing | {layer: plots.format_number(*n) for layer, n in expected.items()}


def test_several_seeds_are_one_curve_with_the_range_of_their_intervals(source):
    (fresh,) = [kind for kind in source.kinds if kind.kind == "random-init"]
    curve = source.curve("mean_norm", fresh)
    seeds = np.stack([source.along("mean_norm", label) for label in fresh.labels])
    assert len(seeds) == 2
    np.testing.assert_allclose(curve.values, seeds[:, 0].mean(0))
    np.testing.assert_array_equal(curve.low, seeds[:, 1].min(0))
    np.testing.assert_array_equal(curve.high, seeds[:, 2].max(0))


def drawn(svg, name):
    """Points of each curve of a name in an SVG, panel after panel, in the picture's units."""
    paths = re.findall(rf'<g id="{re.escape(html.escape(name))}">\s*<path d="([^"]*)"', svg)
    pairs = [[pair.split() for pair in re.split("[ML]", path)[1:]] for path in paths]
    return [np.array(points, float) for points in pairs]


def test_marks_lie_where_the_numbers_are():
    """Parsed back from the picture: heights are an increasing map of values, and a straight one."""
    values = np.array([0.0, 2.5, -1.0, 10.0, 4.0])
    style = plots.Style(0)
    curve = plots.bare("this model", style, values)
    panel = plots.Lines("t", "layer", tuple("abcde"), "nat", (curve,))
    svg = drawing.svg(plots.Plot("n", "t", "c", (panel,), "b"))
    (points,) = drawn(svg, "curve:this model")
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


def test_intervals_reach_from_their_low_ends_to_their_high_ends():
    """Asymmetric ones, so that swapped or mirrored ends would lie elsewhere."""
    values = np.array([0.0, 2.5, -1.0, 4.0])
    curve = plots.Curve("c", plots.Style(0), values, values - [1, 0.5, 2, 1.5], values + 3)
    panels = (
        plots.Lines("t", "layer", tuple("abcd"), "nat", (curve,)),
        plots.Points("t", "nat", tuple("abcd"), (curve,)),
    )
    svg = drawing.svg(plots.Plot("n", "t", "c", panels, "b"))
    (up,) = drawn(svg, "curve:c")
    path, height = re.search(
        r'<g id="band:c">\s*<defs>\s*<path id="\w+" d="(.*?)z.*?<use [^>]*y="([\d.]+)"', svg, re.S
    ).groups()
    band = np.array([pair.split() for pair in re.split("[ML]", path)[1:]], float)
    band[:, 1] += float(height)
    slope, offset = np.polyfit(values, up[:, 1], 1)
    for x, low, high in zip(up[:, 0], curve.low, curve.high, strict=True):
        there = (band[abs(band[:, 0] - x) < PIXEL, 1] - offset) / slope
        np.testing.assert_allclose([there.min(), there.max()], [low, high], atol=PIXEL)
    group = re.search(r'<g id="bars:c">(.*?)</g>', svg, re.S)[1]
    bars = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+)', group)
    left, top, right, bottom = np.array(bars, float).T
    assert (np.diff(top) > 0).all() and (top == bottom).all()
    ends = np.concatenate([curve.low, curve.high])
    slope, offset = np.polyfit(ends, np.concatenate([left, right]), 1)
    assert slope > 0
    np.testing.assert_allclose(np.concatenate([left, right]), offset + slope * ends, atol=PIXEL)


def test_every_curve_of_the_report_is_drawn_at_its_values(text, everything):
    shown = [plot for plot in everything if not plot.empty]
    checked = 0
    for plot, svg in zip(shown, pictures(text), strict=True):
        panels = [panel for panel in plot.panels if isinstance(panel, plots.Lines)]
        for name in {curve.name for panel in panels for curve in panel.curves}:
            # A curve without a number is no path.
            curves = [(p, c) for p in panels for c in p.curves if c.name == name]
            curves = [(p, c) for p, c in curves if np.isfinite(c.values).any()]
            found = drawn(svg, f"curve:{name}")
            for (panel, curve), points in zip(curves, found, strict=True):
                held = curve.values[np.isfinite(curve.values)]
                # What lies beyond a given span is cut off.
                low, high = panel.span or (-np.inf, np.inf)
                inside = (held >= low).all() and (held <= high).all()
                straight = panel.scale == plots.LINEAR and inside
                if straight and len(held) >= 3 and np.ptp(held) > 1e-6:
                    slope, offset = np.polyfit(held, points[:, 1], 1)
                    expected = offset + slope * held
                    np.testing.assert_allclose(points[:, 1], expected, atol=PIXEL, err_msg=name)
                    checked += 1
    assert checked > 40


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


@pytest.mark.usefixtures("undrawn")
def test_without_nulls_it_says_what_is_missing_and_how_to_make_it(studied, tmp_path):
    found = made(studied / "trained")
    notices = re.findall(r'<section class="notice"><p>(.*?)</p>.*?<pre>(.*?)</pre>', found, re.S)
    kinds = ("random-init", "shuffled")
    assert [f"--null {kind}" in how for (_, how), kind in zip(notices, kinds, strict=True)]
    assert "fresh weights" in notices[0][0] and "shuffled text" in notices[1][0]
    assert "no random-init null was given" in html.unescape(found)
    words = shlex.split(html.unescape(notices[0][1]))
    words[words.index("--out") + 1] = str(tmp_path / "fresh")
    assert words[0] == "jaxlens" and run_cli(*words[1:], "--set", "devices=1") == 0
    answers.study(studied / "trained", [tmp_path / "fresh"])  # is comparable


@pytest.mark.long
def test_the_command_on_the_page_makes_the_same_run(studied, text, tmp_path, capsys):
    said = r"The run, according to its own notes:</p>\s*<pre>(.*?)</pre>"
    (command,) = re.findall(said, text, re.S)
    words = shlex.split(html.unescape(command))
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert run_cli(*words[1:]) == 0
    ours, theirs = (folder / "RUN.json" for folder in (studied / "trained", tmp_path / "again"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert facts.gather(tmp_path / "again").run_hash in text


def test_a_run_that_cannot_be_studied_has_its_curves_and_says_why(bare, plain):
    found = plain
    assert "cannot answer the questions of the study" in found
    assert "--tallies study" in html.unescape(found)
    (svg,) = pictures(found)
    assert "curve:of the input" in svg
    summary = reader.open_run(bare).summary()
    heading, *rows = Page(found).tables["totals-layers"][0]
    place = heading.index("of the input")
    assert [row[place] for row in rows] == [
        plots.format_number(summary[layer]["median_rank_input"]) for layer in summary
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


@pytest.fixture(scope="module")
def of_rows(swept):
    """The page of a run with full rows, nothing drawn."""
    with pytest.MonkeyPatch.context() as undrawn:
        undrawn.setattr(drawing, "svg", lambda plot, *ends: "<svg/>")
        return made(swept)


def test_an_excerpt_shows_the_rows_of_the_run(swept, of_rows):
    found = Page(of_rows)
    with reader.open_run(swept) as run:
        first = excerpt.place(run)
        ranks = run["rank_input"][first : first + excerpt.TOKENS]
        nats = run["kl_final"][first : first + excerpt.TOKENS]
        ids = run.corpus.tokens(first, first + excerpt.TOKENS)
        words = [run.corpus.token_strings[i] for i in ids]
    tables = {table[0][0]: table for table in found.tables["excerpt-final_norm"]}
    assert set(tables) == {"layer"} and len(found.tables["excerpt-final_norm"]) == 4
    _, divergence, rank, _ = found.tables["excerpt-final_norm"]
    assert [w.replace("·", " ").encode() for w in rank[0][1:]] == words
    assert [line[0] for line in rank[1:]] == ["h.1", "h.0", "input"]
    shown = np.array([[int(cell.replace(",", "")) for cell in line[1:]] for line in rank[1:]])
    np.testing.assert_array_equal(shown[::-1].T, ranks)
    shown = np.array([[float(cell) for cell in line[1:]] for line in divergence[1:]])
    np.testing.assert_allclose(shown[::-1].T, nats, atol=0.005 + 1e-6)


def test_shards_that_were_passed_on_without_their_tokens_have_no_excerpt(swept, tmp_path):
    assert len(content._excerpt(swept)) == 1
    shutil.copytree(swept, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokens")
    assert content._excerpt(tmp_path / "run") == ()


def test_variants_stand_beside_the_run_and_strangers_are_refused(
    studied, study, decoded, tiny, texts, tmp_path
):
    shorter = STUDY | {"lens.decoder": "plain", "corpus.limit": 700}
    sweep.run(configure(tiny, texts, tmp_path / "shorter", **shorter))
    variants = decoders.studies(study, [decoded / "trained"])
    (figure,) = decoders.figures(study, variants)
    assert [[curve.name for curve in panel.curves] for panel in figure.panels] == [
        ["final_norm", "plain"]
    ] * 4
    for panel, estimator in zip(
        figure.panels, ("mean_kl_final", "mean_kl_final_matched"), strict=False
    ):
        expected = [
            plots.format_number(r.estimate, r.low, r.high)
            for r in variants[0].results
            if (r.estimator, r.stratum) == (estimator, "all")
        ]
        assert [line[2] for line in panel.table()[1]] == expected
    assert len(decoders.compared(study, variants)) == 5
    for folder, why in (
        (tmp_path / "shorter", "another text"),
        (studied / "trained", "the same decoder"),
        (studied / "random-1", "itself a random-init run"),
    ):
        with pytest.raises(errors.ConfigError, match=why):
            decoders.studies(study, [folder])


def test_the_page_has_the_decoders_that_it_was_given(study, bare):
    held = content.Content(
        facts=facts.gather(bare),
        variants=tuple(decoders.compared(study, [study])),
        decoders=content.drawn(decoders.figures(study, [study]), "variants"),
    )
    found = page.page(held, "")
    assert 'id="decoders"' in found and 'href="#decoders"' in found
    shown = Page(found)
    assert len(shown.tables["variants-decoders"]) == 4
    for meaning, lines in held.variants:
        assert meaning in " ".join(shown.text)
        for _, line in lines:
            assert plots.format_number(line.estimate, line.low, line.high) in " ".join(shown.text)


def test_figures_are_written_as_files_too_on_white(bare, tmp_path, capsys):
    assert run_cli("report", bare, "--out", tmp_path / "r.html", "--figures", tmp_path / "f") == 0
    written = [line.removeprefix("wrote ") for line in capsys.readouterr().out.splitlines()]
    assert written == [f"{tmp_path}/r.html", f"{tmp_path}/f/totals-layers.svg"]
    svg = (tmp_path / "f" / "totals-layers.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    (shown,) = pictures((tmp_path / "r.html").read_text())
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    assert white in svg and white not in shown


def test_a_null_in_the_place_of_the_run_has_its_curves_and_is_called_a_null(studied):
    found = made(studied / "random-1")
    assert "is itself a random-init run" in found and len(pictures(found)) == 1


def test_panels_that_are_to_be_compared_have_one_axis(everything):
    compared = {
        "depth": (0, 1),
        "matched": (0, 1),
        "densities": (0, 1),
        "nearer": (0, 1),
        "types": (1, 2),
        "survival": (0, 1, 2),
        "settled": (0, 1),
        "copies": (0, 2, 3),
        "fan": (0, 1, 2),
    }
    found = {plot.name: plot for plot in everything}
    for name, places in compared.items():
        panels = [found[name].panels[place] for place in places]
        spans = {panel.span for panel in panels}
        assert len(spans) == 1 and None not in spans, name
        (span,) = spans
        for panel in panels:
            for curve in panel.curves:
                low, high = plots.ends(curve.values, curve.low, curve.high)
                if name != "fan":  # whose bands of single bins may reach beyond every rank
                    assert not low < min(span) and not high > max(span), name
    # Fresh weights keep nearly everything: on one axis the model's own bars would be dots.
    excess = found["excess"]
    assert [panel.span for panel in excess.panels] == [None, None]
    assert "a scale of their own" in excess.caption
    # And in the picture: a tick of one panel stands as high as that of the other.
    svg = drawing.svg(found["matched"])
    ticks = re.findall(r'<g id="ytick_\d+">.*?<use [^>]*?y="([\d.]+)".*?<!-- (\S+) -->', svg, re.S)
    heights = {}
    for y, label in ticks:
        heights.setdefault(label, set()).add(y)
    assert len(ticks) == 2 * len(heights) and all(len(found) == 1 for found in heights.values())


@pytest.mark.long  # it draws every figure once more
def test_labels_of_ticks_never_overlap(everything):
    import matplotlib
    from matplotlib.backends import backend_agg

    checked = 0
    for plot in everything:
        with matplotlib.rc_context(drawing._LOOK):
            made = drawing.figure(plot)
        canvas = backend_agg.FigureCanvasAgg(made)
        canvas.draw()
        for axes in made.axes:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                boxes = [
                    tick.label1.get_window_extent(canvas.get_renderer())
                    for tick in axis.get_major_ticks()
                    if tick.label1.get_visible()
                    and tick.label1.get_text()
                    and low <= tick.get_loc() <= high
                ]
                for one, two in itertools.pairwise(boxes):
                    assert not one.overlaps(two), (plot.name, axes.get_title("left"))
                    checked += 1
    assert checked > 200


def test_a_caption_speaks_of_intervals_only_where_some_are_drawn(study, source):
    style = plots.Style(0)
    bare = plots.Points("t", "x", ("a",), (plots.bare("this model", style, [1.0]),))
    one, nothing = np.ones(1), plots.missing(1)
    whole = plots.Points("t", "x", ("a",), (plots.Curve("c", style, one, one - 1, one + 1),))
    half = plots.Points("t", "x", ("a",), (plots.Curve("c", style, one, nothing, one + 1),))
    said = series.basis(source, [bare, half], "Bars")
    assert said.startswith("No intervals could be estimated") and "Bars" not in said
    assert series.basis(source, [bare, whole], "Bars").startswith("Bars: 95")
    lines = [
        dataclasses.replace(line, low=math.nan, high=math.nan, note="too few clusters; and more")
        for line in study.results
    ]
    (plot,) = primaries.figures(dataclasses.replace(study, results=tuple(lines)))
    assert plot.basis == "No intervals could be estimated: too few clusters."
    silent = series.Source(dataclasses.replace(study, results=tuple(lines)))
    assert silent.why_no_interval() == "too few clusters"


def test_every_curve_of_the_figure_of_two_runs_has_a_colour_of_its_own(studied):
    found = compare.compare(studied / "trained", studied / "random-1")
    names = {"rank_input", "rank_next", "rank_final", "kl_final", "kl_input", "entropy"}
    lines = [dataclasses.replace(found.lines[0], quantity=name) for name in names]
    for name, statistic in (("top_id", "agreement"), ("rank_next", "rank correlation")):
        change = {"quantity": name, "statistic": statistic}
        lines.append(dataclasses.replace(found.lines[0], **change))
    change = {"quantity": "entropy", "statistic": "rank correlation"}
    lines.append(dataclasses.replace(found.lines[0], **change))
    plot = comparing.figure(dataclasses.replace(found, lines=tuple(lines)))
    styles = [curve.style for panel in plot.panels for curve in panel.curves]
    colours = {palette.LINES[style.colour % len(palette.LINES)] for style in styles}
    assert len(styles) == len(colours) == 9


def test_a_panel_without_a_number_says_why(source):
    lacking = [
        plots.bare("this model", plots.Style(0), plots.missing(len(source.layers))) for _ in "ab"
    ]
    empty = plots.Lines("t", "layer", source.layers, "nat", lacking[:1], why="needs <norm>")
    full = source.panel("kl", "nat", "mean_kl_final")
    plot = plots.Plot("n", "title", "caption", (full, empty), "basis")
    assert not plot.empty and plot.lacking == (("t", "needs <norm>"),)
    assert "<!-- nothing to draw: needs <norm> -->" in html.unescape(drawing.svg(plot))
    (figure,) = content.drawn([dataclasses.replace(plot, panels=(empty,))], "Q0")
    assert not figure.svg and figure.why == "needs <norm>"


def test_the_reason_that_is_known_is_printed_where_a_figure_is_missing(of_rows):
    """Full rows, yet without norm and retention, as the default run keeps them."""
    found = html.unescape(of_rows)
    reason = "needs norm and retention: --tallies study, or --set store.quantities=[norm,retention]"
    assert f"Nothing to draw: {reason}." in found
    assert "so few tokens" not in found
    verdict = re.search(r'<section id="Q1">.*?<p class="verdict">(.*?)</p>', found, re.S)[1]
    assert f"cannot be estimated: {reason}" in verdict


def test_the_page_opens_with_what_was_found_and_says_of_what(text, study):
    order = [text.index(f'id="{name}"') for name in ("found", "summary", "Q0", "quality")]
    assert order == sorted(order)
    listed = html.unescape(re.search(r'id="found">.*?</section>', text, re.S)[0])
    for line in primaries.lines(study):
        assert readings.finding(line) in listed
    about = dict(re.findall(r"<dt>(\w+)</dt><dd>(.*?)</dd>", text))
    assert set(about) == {"model", "text", "lens"}
    assert "2 blocks, width 8, 4,096 tokens in the vocabulary" in about["model"]
    assert " tokens of " in about["text"] and "documents" in about["text"]


def test_an_excerpt_that_is_not_there_has_its_reason(text, bare, plain):
    for found in (text, plain):
        assert "There is none: the run stores no rows: --rows core or full." in found
    assert "The median rank of the input is " in plain


CODE = "def f ( x ) : return { } ; 0 1 2 3 4 5 6 7 8 9 | | | | -- --"
PROSE = "They walked along the river and spoke of home ."


def test_an_excerpt_is_prose_where_there_is_any():
    """A table of code, then fragments, then sentences: the window is the sentence."""
    documents = [CODE.split(), ["A", "=", "b", "\n"] * 8, ["x", "."] + PROSE.split() * 2]
    words = [[f" {w}" for w in document] for document in documents]
    vocabulary = sorted({w for document in words for w in document})
    ids = np.array([vocabulary.index(w) for document in words for w in document])
    starts = np.cumsum([0, *map(len, words)])
    strings = np.array([w.encode() for w in vocabulary], np.bytes_)
    first = prose.place(ids, starts, strings, 8)
    begin = int(starts[2]) + 2
    assert first in (begin, begin + len(PROSE.split()))
    assert vocabulary[ids[first]] == " They"
    # Without any prose there is still a passage, and none reaches into the next document.
    first = prose.place(ids[: starts[2]], starts[:3], strings, 8)
    assert first is not None and not first < starts[1] < first + 8
    assert prose.place(ids, starts, strings, 1_000) is None
    assert prose.place(ids[:3], np.array([0, 3]), strings, 8) is None
