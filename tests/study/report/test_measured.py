"""Figures of a probe and an ablation: drawn where there are such lines, absent elsewhere."""

import dataclasses

import pytest

from jaxlens.study import table
from jaxlens.study.estimators.ablation import DIFFERENCES
from jaxlens.study.report import ablation, probing, series
from jaxlens.study.stats import bootstrap


@pytest.fixture(scope="module")
def measured(study):
    """The study with lines as a probe and an ablation have them."""
    run, lines = study.run, []

    def add(name, value, **columns):
        estimate = bootstrap.Estimate(value, value - 0.1, value + 0.1, 0.05, 100, 40)
        lines.append(table.result(run, name, estimate, **columns))

    strata = ("all", "rarity 4 to 5 nat", "rarity 6 to 7 nat", "rarity 9 to 10 nat")
    for layer in range(run.n_layers):
        for target in probing.TARGETS:
            for readout, value in (("probe", 0.9), ("lens", 0.1)):
                for stratum in strata if target == "own" else strata[:1]:
                    add(f"{readout}_recall_1_{target}", value, layer=layer, stratum=stratum)
        for material in ("blocks", "copies"):
            for i, arm in enumerate(ablation._STYLES):
                add(f"ablation_loss_{material}_{arm}", 3.0 - i, layer=layer)
            for arm, other in DIFFERENCES:
                add(f"ablation_difference_{material}_{arm}_{other}", 1.0, layer=layer)
    for material in ("blocks", "copies"):
        add(f"ablation_gain_{material}", 4.0)
    kept = tuple(r for r in study.results if not r.primary)
    return series.Source(dataclasses.replace(study, results=(*kept, *lines)))


def test_a_probe_is_drawn_beside_the_lens(measured):
    recall, by_rarity = probing.figures(measured)
    assert [panel.title for panel in recall.panels] == list(probing._TITLES.values())
    for panel in (*recall.panels, *by_rarity.panels):
        assert [curve.name for curve in panel.curves] == ["probe", "lens"]
        assert (panel.curves[0].values == 0.9).all() and (panel.curves[1].values == 0.1).all()
    assert [panel.title for panel in by_rarity.panels] == [
        "rarity 4 to 5 nat",
        "rarity 6 to 7 nat",
        "rarity 9 to 10 nat",
    ]


def test_an_ablation_is_drawn_by_arm_with_the_gain_as_a_line(measured):
    losses, differences = ablation.figures(measured)
    for panel in losses.panels:
        assert panel.level == 4.0
        assert [curve.values[0] for curve in panel.curves] == [3.0 - i for i in range(6)]
    titles = [panel.title for panel in differences.panels]
    assert titles == ["blocks: embedding", "blocks: probe", "copies: embedding", "copies: probe"]
    for plot in (losses, differences, *probing.figures(measured)):
        assert plot.caption.count(". ") == 0, "one sentence"
        assert all(len(panel.title) < 30 for panel in plot.panels), "beside each other"


def test_a_run_without_either_has_no_such_figures(source):
    assert probing.figures(source) == [] and ablation.figures(source) == []
