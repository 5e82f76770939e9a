"""Figures of a probe and an ablation: drawn where there are such lines, absent elsewhere."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from jaxlens.store import ablation_file
from jaxlens.study import inputs, table
from jaxlens.study.estimators.ablation import DIFFERENCES, MATERIALS
from jaxlens.study.questions import ablation as questions
from jaxlens.study.report import ablation, primaries, probing, series
from jaxlens.study.stats import bootstrap
from jaxlens.view.figures import plots, svg

VALUES = {pair: 1.0 + i for i, pair in enumerate(DIFFERENCES)}
PRIMARIES = ("own embedding minus foreign embedding", "probe minus random shift")


@pytest.fixture(scope="module")
def measured(study):
    """The study with lines as a probe and an ablation have them, of the run and of its nulls."""
    run, lines = study.run, []
    fresh = [null for null in study.nulls if null.kind == inputs.RANDOM_INIT]

    def add(name, value, of=run, **columns):
        estimate = bootstrap.Estimate(value, value - 0.1, value + 0.1, 0.05, 100, 40)
        lines.append(table.result(of, name, estimate, **columns))

    strata = ("all", "rarity 4 to 5 nat", "rarity 6 to 7 nat", "rarity 9 to 10 nat")
    for layer in range(run.n_layers):
        for target in probing.TARGETS:
            for readout, value in (("probe", 0.9), ("lens", 0.1)):
                for stratum in strata if target == "own" else strata[:1]:
                    name = f"{readout}_recall_1_{target}"
                    add(name, value, layer=layer, stratum=stratum)
                    for null in fresh:
                        add(name, value / 2, null, layer=layer, stratum=stratum)
        add("probe_recall_1_permuted", 0.02, layer=layer)
        for material in ("blocks", "copies"):
            for i, arm in enumerate(ablation_file.ARMS):
                add(f"ablation_loss_{material}_{arm}", 3.0 - i, layer=layer)
            for arm, other in DIFFERENCES:
                name = f"ablation_difference_{material}_{arm}_{other}"
                add(name, VALUES[arm, other], layer=layer)
                for null in fresh:
                    add(name, 0.0, null, layer=layer)
    for material in ("blocks", "copies"):
        add(f"ablation_gain_{material}", 4.0)
    for name in questions.PRIMARIES:
        add(name, 0.3, smallest=0.05, primary=True)
    kept = tuple(r for r in study.results if not r.primary)
    return series.Source(dataclasses.replace(study, results=(*kept, *lines)))


def test_a_probe_is_drawn_beside_the_lens(measured):
    recall, by_rarity = probing.figures(measured)
    assert [panel.title for panel in recall.panels] == list(probing._TITLES.values())
    of_fresh = ["probe, fresh weights, 2 seeds", "lens, fresh weights, 2 seeds"]
    for panel in (*recall.panels, *by_rarity.panels):
        curves = {curve.name: curve.values for curve in panel.curves}
        assert list(curves)[:4] == ["probe", "lens", *of_fresh]
        for name, value in zip(curves, (0.9, 0.1, 0.45, 0.05), strict=False):
            assert (curves[name] == value).all()
    permuted = [[c.name for c in panel.curves[4:]] for panel in recall.panels]
    assert permuted == [["probe, permuted labels"], [], []]
    assert (recall.panels[0].curves[4].values == 0.02).all()
    assert [panel.title for panel in by_rarity.panels] == [
        "rarity 4 to 5 nat",
        "rarity 6 to 7 nat",
        "rarity 9 to 10 nat",
    ]


def test_an_ablation_is_drawn_by_arm_with_the_gain_as_a_line(measured):
    losses, _ = ablation.figures(measured)
    for panel in losses.panels:
        assert panel.level == 4.0
        found = {curve.name: curve.values[0] for curve in panel.curves}
        assert len(found) == len(ablation_file.ARMS)
        for i, arm in enumerate(ablation_file.ARMS):
            assert found[ablation._ARMS[arm][0]] == 3.0 - i


def test_differences_name_both_arms_and_the_primaries(measured):
    """A panel for each material; of null runs the pairs of the primaries."""
    _, differences = ablation.figures(measured)
    names = {arm: name for arm, (name, _) in ablation._ARMS.items()}
    assert [panel.title for panel in differences.panels] == list(MATERIALS.values())
    for panel in differences.panels:
        found = {curve.name: curve.values[0] for curve in panel.curves}
        expected = {f"{names[arm]} minus {names[o]}": v for (arm, o), v in VALUES.items()}
        expected |= {f"{name}, fresh weights, 2 seeds": 0.0 for name in PRIMARIES}
        assert found == expected
    assert all(name in differences.caption for name in PRIMARIES)
    pairs = {name.split("blocks_")[1] for name in questions.PRIMARIES}
    assert pairs == {"_".join(pair) for pair in ablation._OF_PRIMARIES}


def test_figures_fit_their_page_and_their_curves_differ_in_grey(measured):
    import matplotlib
    from matplotlib.backends import backend_agg

    plotted = [*ablation.figures(measured), *probing.figures(measured)]
    plotted += primaries.figures(measured.study)
    for plot in plotted:
        assert plot.caption.count(". ") == 0, "one sentence"
        for panel in plot.panels:
            looks = {(curve.style.dashes, curve.style.mark) for curve in panel.curves}
            assert len(looks) == len(panel.curves), plot.name
        with matplotlib.rc_context(svg._LOOK):
            made = svg.figure(plot)
        canvas = backend_agg.FigureCanvasAgg(made)
        canvas.draw()
        page, renderer = made.bbox, canvas.get_renderer()
        boxes = [legend.get_window_extent(renderer) for legend in made.legends]
        titles = [axes._left_title.get_window_extent(renderer) for axes in made.axes]
        boxes += titles
        for axes in made.axes:
            labels = [axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()]
            boxes += [label.get_window_extent(renderer) for label in labels if label.get_text()]
        for box in boxes:
            assert box.x0 >= page.x0 and box.x1 <= page.x1, plot.name
        assert not any(one.overlaps(two) for one, two in itertools.pairwise(titles))


def test_the_labels_of_the_primaries_leave_most_of_the_width(measured):
    import matplotlib

    (plot,) = primaries.figures(measured.study)
    (panel,) = plot.panels
    long = [label for label in panel.rows if "random shift" in label.replace("\n", " ")]
    assert len(long) == 1 and long[0].count("\n") >= 3
    assert max(len(line) for label in panel.rows for line in label.split("\n")) <= 56
    with matplotlib.rc_context(svg._LOOK):
        made = svg.figure(plot)
        made.draw_without_rendering()
    (axes,) = made.axes
    assert axes.get_position().width > 0.55


def test_an_interval_without_neighbours_is_drawn(measured):
    """A band between two layers has no width at a layer that was ablated alone."""
    low = np.array([0.0, 0.0, np.nan, 0.0, np.nan])
    curve = plots.Curve("c", plots.Style(0), low + 1, low, low + 2)
    panel = plots.Lines("t", "layer", tuple("abcde"), "nat", (curve,))
    drawn = svg.svg(plots.Plot("n", "t", "c", (panel,), "b"))
    (_, alone) = re.findall(r'<g id="band:c">(.*?)</g>', drawn, re.S)
    assert len(re.findall(r'd="M [^"]*L [^"]*"', alone)) == 1


def test_a_run_without_either_has_no_such_figures(source):
    assert probing.figures(source) == [] and ablation.figures(source) == []
