"""Figures of Q0: how fast uncertainty falls with depth."""

from __future__ import annotations

from jaxlens.study.report import series
from jaxlens.tally import axes
from jaxlens.view.figures import plots

_CUTS = (plots.Style(0, "-", "o"), plots.Style(2, "--", "s"), plots.Style(3, "-.", "^"))
_CUTS += (plots.Style(4, ":", "D"),)


def figures(source: series.Source) -> list[plots.Plot]:
    """Divergences and entropy by depth, and when the final top-1 comes to stay."""
    return [_depth(source), _settled(source)]


def _depth(source: series.Source) -> plots.Plot:
    panels = [
        *plots.alike(
            _panel(source, "kl_final", "from the output: KL(last layer ‖ layer)"),
            _panel(source, "kl_input", "from the input: KL(input ‖ layer)"),
        ),
        _panel(source, "entropy", "entropy"),
    ]
    return plots.Plot(
        "depth",
        "Divergence and entropy by depth",
        "How far each layer's prediction is from the model's output and from the prediction of the "
        "input layer, and how uncertain it is.",
        tuple(panels),
        "Marks: means; their 95\u00a0% intervals, clustered by document, are in the table. Band: "
        "the middle half of this model's positions.",
    )


def _panel(source: series.Source, name: str, title: str) -> plots.Lines:
    curves = [source.curve(f"mean_{name}", kind) for kind in source.kinds]
    label = source.study.run.label
    ends = [source.along(f"quantile_{name}", label, f"quantile {q}")[0] for q in (0.25, 0.75)]
    middle = source.along(f"quantile_{name}", label, "quantile 0.5")[0]
    spread = plots.Curve("median, middle half", plots.Style(5, "--", ""), middle, *ends)
    why = source.why(f"mean_{name}")
    return plots.Lines(title, "layer", source.layers, "nat", (*curves, spread), why=why)


def _settled(source: series.Source) -> plots.Plot:
    trained = source.kinds[0]
    ours = tuple(
        source.curve(
            f"settled_within_{cut}_share",
            trained,
            name="at rank 1" if cut == 1 else f"within the top {cut}",
            style=style,
        )
        for cut, style in zip(axes.RETRIEVAL_CUTS, _CUTS, strict=True)
    )
    up = "share of positions"
    why = source.why("settled_within_1_share")
    panels = [plots.Lines("this model", "layer", source.layers, up, ours, why=why)]
    if len(source.kinds) > 1:
        first = source.curves("settled_within_1_share")
        panels.append(
            plots.Lines("at rank 1 for good, beside null runs", "layer", source.layers, up, first)
        )
    return plots.Plot(
        "settled",
        "When the model's final prediction settles",
        "Share of positions whose final top-1 token stays within the top ranks from this layer to "
        "the last.",
        plots.alike(*panels),
        series.basis(source, panels),
    )
