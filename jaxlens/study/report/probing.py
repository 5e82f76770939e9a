"""Figures of Q1, continued: what a linear probe reads where the lens sees nothing."""

from __future__ import annotations

import math

from jaxlens.study import inputs
from jaxlens.study.estimators import probing
from jaxlens.study.questions.probing import TARGETS
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_TITLES = {"own": "the own token", "previous": "the token before", "two_back": "two tokens back"}
_SPAN = (-0.03, 1.03)
"""Shares from 0 to 1, with room for the marks at both ends."""

# Of this model, solid, and of fresh weights, dashed, as in every figure; marks tell readouts apart.
_READOUTS = {
    "probe": (plots.Style(0, "-", "o"), plots.Style(1, "--", "s")),
    "lens": (plots.Style(3, "-", "^"), plots.Style(4, "--", "D")),
}
_PERMUTED = plots.Style(6, ":", "v")


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
            span=_SPAN,
            percent=True,
        )
        for target in TARGETS
    )
    return plots.Plot(
        "probe",
        "What a linear probe reads, and what the lens shows",
        "Share of held-out positions at which a linear probe of each layer, and the lens, have a "
        "token of the input first among the token types that the probe knows, beside the same of "
        "fresh weights and a probe that learnt permuted labels, where there are such.",
        panels,
        series.basis(source, panels),
    )


def _curves(source: series.Source, name: str, stratum: str = "all") -> tuple[plots.Curve, ...]:
    """Of the probe and the lens of this model and of fresh weights; of permuted labels."""
    shown = [(source.kinds[0], 0, "")]
    shown += [(k, 1, f", {k.name}") for k in source.kinds[1:] if k.kind == inputs.RANDOM_INIT]
    curves = [
        source.curve(f"{readout}_{name}", kind, stratum, name=readout + of, style=styles[which])
        for kind, which, of in shown
        for readout, styles in _READOUTS.items()
    ]
    if name == "recall_1_own" and stratum == "all":
        permuted = f"probe_recall_1_{probing.PERMUTED}"
        labels = {"name": "probe, permuted labels", "style": _PERMUTED}
        curves.append(source.curve(permuted, source.kinds[0], **labels))
    # A null run need not be probed.
    return tuple(curve for curve in curves if any(map(math.isfinite, curve.values)))


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
            span=_SPAN,
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
