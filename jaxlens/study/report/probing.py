"""Figures of Q1, continued: what a linear probe reads where the lens sees nothing."""

from __future__ import annotations

import math

from jaxlens.study import inputs
from jaxlens.study.questions.probing import TARGETS
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_TITLES = {"own": "the own token", "previous": "the token before", "two_back": "two tokens back"}
_PROBE, _LENS = plots.Style(0, "-", "o"), plots.Style(3, "--", "s")


def figures(source: series.Source) -> list[plots.Plot]:
    """Recall by layer, and that of the own token by rarity; nothing of a run without a probe."""
    if not source.has("probe_recall_1_own"):
        return []
    return [_recall(source), *_by_rarity(source)]


def _recall(source: series.Source) -> plots.Plot:
    panels = tuple(
        plots.Lines(
            _TITLES[target],
            "layer",
            source.layers,
            "share of held-out positions",
            _curves(source, f"recall_1_{target}"),
            span=(0.0, 1.0),
            percent=True,
        )
        for target in TARGETS
    )
    return plots.Plot(
        "probe",
        "What a linear probe reads, and what the lens shows",
        "Share of held-out positions at which a linear probe of each layer, and the lens, have a "
        "token of the input first among the token types that the probe knows.",
        panels,
        series.basis(source, panels),
    )


def _curves(source: series.Source, name: str, stratum: str = "all") -> tuple[plots.Curve, ...]:
    """Of the probe and the lens of this model, and of the probes of null runs that have one."""
    trained = source.kinds[0]
    curves = [
        source.curve(f"{readout}_{name}", trained, stratum, name=title, style=style)
        for readout, title, style in (("probe", "probe", _PROBE), ("lens", "lens", _LENS))
    ]
    for kind in source.kinds[1:]:
        curve = source.curve(f"probe_{name}", kind, stratum, name=f"probe, {kind.name}")
        if kind.kind == inputs.RANDOM_INIT and any(map(math.isfinite, curve.values)):
            curves.append(curve)
    return tuple(curves)


def _by_rarity(source: series.Source) -> list[plots.Plot]:
    """The most frequent and the rarest tokens that have a number."""
    strata = [s for s in source.strata("probe_recall_1_own") if s != "all"]
    shown = [strata[0], strata[len(strata) // 2], strata[-1]] if len(strata) > 2 else strata
    if not shown:
        return []
    panels = tuple(
        plots.Lines(
            stratum,
            "layer",
            source.layers,
            "share of held-out positions",
            _curves(source, "recall_1_own", stratum),
            span=(0.0, 1.0),
            percent=True,
        )
        for stratum in shown
    )
    return [
        plots.Plot(
            "probe-rarity",
            "The own token by its rarity: linear probe and lens",
            "The same for the own token, of frequent, of less frequent and of the rarest tokens "
            "that have enough types.",
            panels,
            series.basis(source, panels),
        )
    ]
