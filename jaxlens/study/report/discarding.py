"""Figures of Q1: whether the input is discarded at once."""

from __future__ import annotations

import numpy as np

from jaxlens.study import inputs
from jaxlens.study.questions import dilution, discarding
from jaxlens.study.report import probing, series
from jaxlens.tally import bins
from jaxlens.view.figures import plots

_MEASURES = {
    "kl_final": "KL(last ‖ layer)",
    "kl_final_matched": "KL(last ‖ layer), matched",
    "kl_input": "KL(input ‖ layer)",
    "js_final": "JS(last, layer)",
    "js_input": "JS(input, layer)",
    "logp_input": "log-probability of the input",
    "rank_input": "ln rank of the input",
}
_LAW = (
    "Rank of the input beside the rank that the growth of the norm alone would give, and the norm "
    "together with what is retained of the embedding"
)
_NO_LAW = f"Rank of the input; {dilution.UNTIED}, so no rank follows from the norm"


def figures(source: series.Source) -> list[plots.Plot]:
    """The matched curve, the first jump, its density, who is nearer, and the input's fate."""
    shapes = [_matched(source), _jumps(source), _densities(source), _nearer(source), _fate(source)]
    return [*probing.figures(source), *shapes]


def _matched(source: series.Source) -> plots.Plot:
    panels = [
        source.panel("as decoded", "nat", "mean_kl_final"),
        source.panel("at matched temperatures", "nat", "mean_kl_final_matched"),
    ]
    return plots.Plot(
        "matched",
        "Divergence from the output, as decoded and at matched temperatures",
        "What the first block does to KL(last layer ‖ layer), and how much of it remains when each "
        "layer has a temperature of its own.",
        plots.alike(*panels),
        series.basis(source, panels),
    )


def _jumps(source: series.Source) -> plots.Plot:
    names = [name for name in _MEASURES if source.has(f"jump_share_{name}")]
    rows = [(f"jump_share_{name}", "all") for name in names]
    even = 1 / (len(source.layers) - 1)
    curves = tuple(source.points(rows, kind) for kind in source.kinds)
    labels = tuple(_MEASURES[name] for name in names)
    share = plots.Points(
        "the first block's share",
        "share of the total change",
        labels,
        curves,
        level=even,
        why=source.why("jump_share_kl_final"),
    )
    panels = [share]
    contrast = _contrasts(source, names)
    if contrast:
        panels.append(
            plots.Points(
                "this model minus null",
                "difference of shares",
                labels,
                contrast,
                level=0.0,
                region=_smallest(source),
            )
        )
    return plots.Plot(
        "jumps",
        "The jump at the first block",
        "The first block's share of the total change of each mean curve; dotted line: equal steps "
        f"({even:.3f}){'; grey: differences too small to matter' if contrast else ''}.",
        tuple(panels),
        series.basis(source, panels, "Bars"),
    )


def _contrasts(source: series.Source, names: list[str]) -> tuple[plots.Curve, ...]:
    contrasts = []
    for kind in source.kinds[1:]:
        numbers = np.full((3, len(names)), np.nan)
        for line in source.study.results:
            name = line.estimator.removeprefix("jump_share_")
            if line.null.startswith(f"{kind.kind} x") and name in names:
                numbers[:, names.index(name)] = line.estimate, line.low, line.high
        contrasts.append(plots.Curve(kind.name, kind.style, *numbers))
    return tuple(contrasts)


def _smallest(source: series.Source) -> float:
    """Difference of shares that matters, as the table has it."""
    lines = source.study.results
    return next(r.smallest for r in lines if r.null and r.estimator.startswith("jump_share"))


def _densities(source: series.Source) -> plots.Plot:
    places = tuple(f"{bin / bins.JUMP_BINS:.2f}" for bin in range(bins.JUMP_BINS))
    panels = []
    for name in ("kl_final", "kl_final_matched"):
        curves = []
        for kind in source.kinds:
            runs = [r for r in (source.study.run, *source.study.nulls) if r.label in kind.labels]
            shares = [
                discarding.token_shares(r, name) for r in runs if isinstance(r, inputs.Inputs)
            ]
            style = plots.Style(kind.style.colour, kind.style.dashes, "")
            curves.append(plots.bare(kind.name, style, np.mean(shares, axis=0)))
        panels.append(
            plots.Lines(
                _MEASURES[name],
                "φ of a position, from",
                places,
                "share of positions",
                tuple(curves),
                every=bins.JUMP_BINS // 4,
                why=source.why(f"token_jump_share_{name}") or source.why("mean_kl_final"),
            )
        )
    return plots.Plot(
        "densities",
        "The jump at single positions",
        "Share of positions by φ, the first block's share of the total change of the position's "
        "own curve, in 64 bins.",
        plots.alike(*panels),
        "Shares of all positions, without intervals; the mean curves above have them.",
    )


def _nearer(source: series.Source) -> plots.Plot:
    titles = {
        "share_nearer_output": "nearer to the output than to the input",
        "falling_kl_final": "moved nearer to the output by this block",
    }
    panels = tuple(
        source.panel(title, "share of positions", estimator, level=0.5)
        for estimator, title in titles.items()
    )
    return plots.Plot(
        "nearer",
        "Input-like or output-like",
        "Share of positions at which a layer is nearer to the last layer than to the input layer "
        "in KL, and share that each block moves nearer to the output.",
        plots.alike(*panels),
        series.basis(source, panels),
    )


def _fate(source: series.Source) -> plots.Plot:
    label = source.study.run.label
    laws = {
        "median_rank_input": ("this model", series.STYLES[inputs.TRAINED]),
        "dilution_rank": ("if only the norm changed", plots.Style(3, "--", "s")),
        "retained_rank": ("norm and retention", plots.Style(4, ":", "D")),
    }
    has_law = dilution.is_tied(source.study.run.spec)
    ranks = tuple(
        plots.bare(name, style, source.along(estimator, label)[0])
        for estimator, (name, style) in laws.items()
        if has_law or estimator == "median_rank_input"
    )
    grown = source.curves("mean_norm")
    least, _ = plots.ends(*(curve.values for curve in grown))
    scale = plots.LOG if least > 0 else plots.LINEAR
    why = source.why("dilution_rank")
    panels = (
        plots.Lines(
            "median rank of the input", "layer", source.layers, "rank", ranks, plots.RANK, why=why
        ),
        source.panel(
            "retention beyond the mean residual",
            "",
            "retention_beyond_mean",
            level=0,
            why=why or source.why("retention_beyond_mean"),
        ),
        source.panel("norm of the residual", "", "mean_norm", scale, why=why),
    )
    return plots.Plot(
        "fate",
        "What happens to the input: erased or drowned out",
        (_LAW if has_law else _NO_LAW) + "; retention beyond the mean residual is the projection "
        "on the own embedding minus that on another token's, 1 where all of it is kept.",
        panels,
        series.basis(source, panels) + " Medians over tokens and rules of thumb have none.",
    )
