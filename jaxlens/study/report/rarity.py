"""Figures of Q2: whether rare and surprising tokens are kept."""

from __future__ import annotations

import math

import numpy as np

from jaxlens.study import inputs
from jaxlens.study.questions import rarity
from jaxlens.study.report import series
from jaxlens.tally import axes
from jaxlens.view.figures import plots

_HALF = 0.5  # nat, width of a fine bin
_THIRDS = {
    "frequent third": plots.Style(0.15, ":", "^"),
    "middle third": plots.Style(0.55, "--", "s"),
    "rare third": plots.Style(1.0, "-", "o"),
}


def figures(source: series.Source) -> list[plots.Plot]:
    """Ranks by rarity, their excess, the landscape, what a type explains, and survival."""
    drawn = [_fan(source), _excess(source), _slopes(source)]
    drawn += [_landscape(source), _types(source), _survival(source)]
    return drawn


def _fan(source: series.Source) -> plots.Plot:
    """Own beside foreign on one axis: the gap between equal colours is what context keeps."""
    shown = [("own token", "fan_input", source.kinds[0])]
    shown += [("of another document", "fan_foreign", source.kinds[0])]
    shown += [
        (f"own, {series.NAMES.get(kind.kind, kind.name)}", "fan_input", kind)
        for kind in source.kinds[1:]
    ]
    fans = [(title, _rarities(source, estimator, kind)) for title, estimator, kind in shown]
    _, worst = plots.ends(*(curve.values for _, curves in fans for curve in curves))
    panels = [
        plots.Lines(
            title,
            "layer",
            source.layers,
            "rank",
            curves,
            plots.RANK,
            span=(1.4 * worst, 0.8) if math.isfinite(worst) else None,
            why=source.why(estimator),
        )
        for (title, curves), (_, estimator, _) in zip(fans, shown, strict=True)
    ]
    return plots.Plot(
        "fan",
        "Rank of the input by rarity",
        "Geometric mean rank of the input token (left) beside that of equally rare tokens of other "
        "documents: the gap is what is kept of this particular token; curves of rarer tokens "
        "contrast more with the page.",
        tuple(panels),
        series.basis(source, panels),
    )


def _rarities(source: series.Source, estimator: str, kind: series.Kind) -> tuple[plots.Curve, ...]:
    """A curve for each bin of rarity that holds enough tokens; the rarer stand out more."""
    strata = [s for s in source.strata(estimator) if _held(source, estimator, s)]
    return tuple(
        source.curve(estimator, kind, s, scale=math.exp, name=s, style=_shade(s, strata))
        for s in strata
    )


def _held(source: series.Source, estimator: str, stratum: str) -> bool:
    points = source.along(estimator, source.study.run.label, stratum)
    return bool(np.isfinite(points[0]).any())


def _shade(stratum: str, strata: list[str]) -> plots.Style:
    number = strata.index(stratum)
    marks = ("o", "s", "^", "D", "v")
    return plots.Style(number / max(len(strata) - 1, 1), "-", marks[number % len(marks)])


def _excess(source: series.Source) -> plots.Plot:
    rows = [("excess_preservation", s) for s in source.strata("excess_preservation")]
    held = source.points(rows, source.kinds[0])
    rows = [row for row, value in zip(rows, held.values, strict=True) if math.isfinite(value)]
    labels = tuple(stratum for _, stratum in rows)
    # Fresh weights keep the input whole: on one axis with the rest they would squeeze it.
    fresh = [kind for kind in source.kinds if kind.kind == inputs.RANDOM_INIT]
    others = [kind for kind in source.kinds if kind not in fresh]
    across = "excess, nat of rank"
    panels = [
        plots.Points(
            title,
            across,
            labels,
            tuple(source.points(rows, kind) for kind in kinds),
            level=0,
            why=source.why("excess_preservation"),
        )
        for title, kinds in (("at mid depth", others), ("fresh weights, another scale", fresh))
        if kinds
    ]
    return plots.Plot(
        "excess",
        "Excess preservation: the input token beside equally rare ones",
        "Mean ln rank of equally rare tokens of other documents minus that of the input token, by "
        "rarity: above 0, more of the input is kept than its frequency explains"
        f"{'; fresh weights have a scale of their own' if fresh else ''}.",
        tuple(panels),
        series.basis(source, panels, "Bars"),
    )


def _slopes(source: series.Source) -> plots.Plot:
    titles = {
        "excess_slope_same_type": "excess preservation on rarity, over types",
        "within_type_surprisal": "ln rank on surprisal, within types",
    }
    panels = tuple(
        source.panel(title, "nat per nat", name, level=0, region=source.smallest(name))
        for name, title in titles.items()
    )
    return plots.Plot(
        "slopes",
        "Rarity and surprise, layer by layer",
        "Slope of the excess preservation on rarity (above 0: rarer tokens are kept more), and of "
        "ln rank on surprisal among occurrences of one token (below 0: surprising ones are kept "
        "more); grey: too small to matter.",
        panels,
        series.basis(source, panels),
    )


def _inputs(source: series.Source) -> inputs.Inputs:
    run = source.study.run
    if not isinstance(run, inputs.Inputs):
        raise TypeError("a study of text")
    return run


def _landscape(source: series.Source) -> plots.Plot:
    fresh = [null for null in source.study.nulls if null.kind == inputs.RANDOM_INIT]
    shown = [("this model", _inputs(source)), *(("fresh weights", null) for null in fresh[:1])]
    maps = {name: rarity.landscape(of) for name, of in shown if isinstance(of, inputs.Inputs)}
    low, top = plots.ends(*maps.values())
    held = np.isfinite(maps["this model"])
    rows, columns = (np.flatnonzero(held.any(axis)) for axis in (1, 0))
    panels = [
        plots.Heat(
            name,
            "surprisal, nat",
            "rarity, nat",
            _HALF * np.arange(columns[0], columns[-1] + 2),
            _HALF * np.arange(rows[0], rows[-1] + 2),
            values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1],
            "mean preservation",
            (min(low, 0.0), top),
        )
        for name, values in maps.items()
        if held.any()
    ]
    return plots.Plot(
        "landscape",
        "Preservation by rarity and surprisal",
        "Mean over the interior layers of P = 1 - ln rank / ln V: rows show how "
        "preservation changes with surprisal, columns how it changes with rarity.",
        tuple(panels),
        "Cells of fewer than 50 positions are left out. Single cells have no intervals; the slopes "
        "above have them.",
    )


def _types(source: series.Source) -> plots.Plot:
    titles = {
        "partial_correlation_surprisal": "ln rank and surprisal, given rarity",
        "partial_correlation_rarity": "ln rank and rarity, given surprisal",
    }
    correlations = (
        source.panel(title, "partial correlation", name, level=0, region=source.smallest(name))
        for name, title in titles.items()
    )
    panels = (
        source.panel("variance between types: ω²", "share", "omega_squared"),
        *plots.alike(*correlations),
    )
    return plots.Plot(
        "types",
        "A property of the token, or of its context",
        "Share of the variance of ln rank that lies between token types, and correlations of "
        "ln rank with surprisal and with rarity, each given the other.",
        panels,
        series.basis(
            source, panels, how="; those of ω² are over types, those of correlations over documents"
        ),
    )


def _survival(source: series.Source) -> plots.Plot:
    trained = source.kinds[0]
    panels = []
    for cut in axes.EXIT_CUTS:
        estimator = f"exit_from_{cut}_survival"
        curves = [
            source.curve(estimator, trained, third, name=third, style=_THIRDS[third])
            for third in source.strata(estimator)
        ]
        for kind in source.kinds[1:]:
            if kind.kind == inputs.RANDOM_INIT:
                style = plots.Style(kind.style.colour, "-.", "")
                name = f"rare third, {kind.name}"
                curves.append(source.curve(estimator, kind, "rare third", name=name, style=style))
        panels.append(
            plots.Lines(
                f"within the top {cut:,}",
                "layer",
                source.layers,
                "share that stayed",
                tuple(curves),
                why=source.why(f"exit_from_{cut}_median"),
            )
        )
    return plots.Plot(
        "survival",
        "How long the input stays near the top",
        "Kaplan-Meier share of tokens that have stayed within the top ranks at every layer so far, "
        "by rarity.",
        plots.alike(*panels),
        series.basis(source, panels),
    )
