"""The page of a series of checkpoints: its figures, its words, and every number as a table."""

import dataclasses
import re

import numpy as np
import pytest
from study.report.pages import Page, pictures
from sweeps import STEPS

from jaxlens.study.checkpoints import steps, study_checkpoints
from jaxlens.study.report import checkpoints
from jaxlens.study.stats import multiplicity
from jaxlens.view.figures import layout, plots, svg

CONTEXT = "within_type_surprisal"


@pytest.fixture(scope="module")
def series(checkpointed):
    runs = [checkpointed / str(step) for step in STEPS]
    return study_checkpoints.study_checkpoints(runs)


@pytest.fixture(scope="module")
def text(series):
    return checkpoints.page(series)


def test_there_is_a_small_figure_for_each_primary_over_one_axis(series):
    plotted = checkpoints.figures(series)
    assert [plot.name for plot in plotted] == list(series.primaries)
    for plot in plotted:
        (panel,) = plot.panels
        (curve,) = panel.curves
        lines = series.primaries[plot.name]
        np.testing.assert_array_equal(curve.values, [line.estimate for line in lines])
        np.testing.assert_array_equal(curve.low, [line.low for line in lines])
        np.testing.assert_array_equal(curve.high, [line.high for line in lines])
        assert panel.places == ("0", "1000", "143000") and "logarithmic" in panel.across
        assert panel.bars and plot.small
    at = plotted[0].panels[0].at
    assert at[0] < at[1] == 3.0 and at[2] == pytest.approx(np.log10(143_000))


def test_an_estimate_without_an_interval_is_named_and_not_drawn(series):
    lines = tuple(
        dataclasses.replace(line, estimate=-50.0, low=np.nan, high=np.nan, note="no reason; more")
        if line.estimator == CONTEXT and line.label == "0"
        else line
        for line in series.lines
    )
    changed = dataclasses.replace(series, lines=lines)
    (plot,) = [plot for plot in checkpoints.figures(changed) if plot.name == CONTEXT]
    (curve,) = plot.panels[0].curves
    np.testing.assert_array_equal(np.isnan(curve.values), [True, False, False])
    assert "Not drawn, without an interval: 0 (no reason)." in plot.basis
    assert "-50" in " ".join(Page(checkpoints.page(changed)).text)


def test_a_figure_stands_from_left_to_right_whatever_the_order_of_the_runs(series):
    turned = dataclasses.replace(
        series,
        runs=series.runs[::-1],
        lines=tuple(line for start in (10, 5, 0) for line in series.lines[start : start + 5]),
        labels=steps.Labels(
            series.labels.texts[::-1], series.labels.steps[::-1], series.labels.sources
        ),
    )
    for one, other in zip(checkpoints.figures(series), checkpoints.figures(turned), strict=True):
        (panel,), (mirrored,) = one.panels, other.panels
        assert panel.places == mirrored.places
        np.testing.assert_array_equal(panel.curves[0].values, mirrored.curves[0].values)


def test_every_number_stands_in_a_table(series, text):
    shown = " ".join("".join(Page(text).text).split())
    known = [line for line in series.lines if np.isfinite(line.low)]
    assert len(known) == 2 * len(STEPS)
    for line in known:
        estimate, low, high = map(plots.format_number, (line.estimate, line.low, line.high))
        assert f"{estimate} [{low}, {high}]" in shown
        row = f"{line.label} {estimate} {low} to {high} {line.n:,}{line.clusters:,}"
        assert row.replace(" ", "") in shown.replace(" ", "")
    assert "whether two intervals overlap is no test" in shown
    assert "no probe was made" in shown
    for run in series.runs:
        assert run.spec["model"]["sha256"] in shown and str(run.path) in shown


def test_the_page_runs_nothing_and_loads_nothing(text):
    shown = Page(text)
    assert not {"script", "iframe", "object", "link", "form"} & set(shown.tags)
    for _, name, value in shown.attributes:
        assert name != "style" and not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#"))
    assert len(pictures(text)) == 2


def test_words_of_strangers_are_only_text(series):
    evil = "</style><script>window.hacked = 1</script>"
    labels = dataclasses.replace(series.labels, texts=(evil, "b", "\x1b[31mc"), steps=None)
    plotted = checkpoints.figures(dataclasses.replace(series, labels=labels))
    assert {len(plot.panels[0].places[0]) for plot in plotted} == {16}
    lines = [
        dataclasses.replace(line, label=labels.texts[i // 5], note=evil)
        for i, line in enumerate(series.lines)
    ]
    page = checkpoints.page(dataclasses.replace(series, labels=labels, lines=tuple(lines)))
    assert "script" not in Page(page).tags and "\x1b" not in page


def test_what_is_found_follows_the_estimate(series):
    def said(low, high):
        middle = (low + high) / 2
        changed = [
            dataclasses.replace(
                line,
                estimate=middle,
                low=low,
                high=high,
                judgement=multiplicity.judge(middle, low, high, line.smallest),
            )
            if line.estimator == CONTEXT and line.label == "143000"
            else line
            for line in series.lines
        ]
        found = checkpoints.findings(dataclasses.replace(series, lines=tuple(changed)))
        ((_, sentences),) = [one for one in found if one[0].startswith("Q2 Slope of ln rank")]
        assert [label for label, _ in sentences] == ["0", "143000"]
        return sentences[1][1]

    assert said(1.0, 2.0).startswith("More surprising occurrences of a token are kept less: ")
    assert said(-2.0, -1.0).startswith("More surprising occurrences of a token are kept more: ")
    assert said(-2.0, 2.0).startswith("Undecided")


def test_what_no_checkpoint_has_is_said_once(series):
    found = dict(checkpoints.findings(series))
    ((label, sentence),) = found["Q1 Recall of the own token at rank 1, linear probe minus lens"]
    assert label == "" and "no probe was made" in sentence


def test_the_command_on_the_page_names_labels_that_were_given(series):
    runs = [str(run.path) for run in series.runs]
    assert checkpoints.command(series) == f"jaxlens study --over {' '.join(runs)}"
    given = dataclasses.replace(series.labels, sources=(steps.GIVEN,) * 3)
    command = checkpoints.command(dataclasses.replace(series, labels=given))
    assert command.endswith(f"{runs[-1]} --labels 0 1000 143000")


def test_labels_of_places_that_would_touch_are_left_out():
    at = np.array([0.0, 1.0, 2.0, 50.0, 100.0])
    labels = ("0", "10", "20", "500", "100000")
    assert layout.apart(at, labels, 40.0) == [0, 3, 4]
    assert layout.apart(at, labels, 4000.0) == [0, 1, 2, 3, 4]


def test_bars_stand_at_their_places_and_no_band_between_them(series):
    (plot,) = [plot for plot in checkpoints.figures(series) if plot.name == CONTEXT]
    picture = svg.svg(plot)
    group = re.search(r'<g id="band:this model">(.*?)</g>', picture, re.S)[1]
    places = re.findall(r"M ([\d.]+) [\d.]+ *\nL ([\d.]+) ", group)
    assert len(places) == 3 and all(one == other for one, other in places)
    left = [float(one) for one, _ in places]
    at = plot.panels[0].at
    np.testing.assert_allclose(
        (left[1] - left[0]) / (left[2] - left[0]), (at[1] - at[0]) / (at[2] - at[0]), rtol=1e-4
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_shows_every_figure_whole(chromium, text, tmp_path, scheme):
    page = tmp_path / "page.html"
    page.write_text(text)
    chromium.open(page, width=390, scheme=scheme)
    assert chromium.run("return document.documentElement.scrollWidth") <= 390
    widths = chromium.each("figure img", "e.getBoundingClientRect().right")
    assert len(widths) == 2 and max(widths) <= 390
    boxes = chromium.each("figure .wide:has(img)", "e.scrollWidth - e.clientWidth")
    assert boxes == [0, 0]
    chromium.read_logs()
    assert chromium.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in chromium.asked)
