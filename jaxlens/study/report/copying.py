"""Figures of Q3: when copies are retrieved."""

from __future__ import annotations

import math

import numpy as np

from jaxlens.study.estimators import COPY_COVARIATES, RETRIEVAL_RANKS, RETRIEVED
from jaxlens.study.questions.copy_pairs import UNBALANCED
from jaxlens.study.report import ablation, series
from jaxlens.view.figures import plots

_COVARIATES = {
    "rarity_next": "rarity of the next token",
    "surprisal": "surprisal of the token",
    "logp_next_last": "final log-probability of the next token",
    "entropy_last": "final entropy",
    "ln_position": "ln(1 + position)",
    "ln_distance": "ln distance to the last occurrence",
    "ln_count": "ln(1 + earlier occurrences)",
}
_COPIES, _CONTROLS = plots.Style(0, "-", "o"), plots.Style(3, "--", "s")


def figures(source: series.Source) -> list[plots.Plot]:
    """Copies beside their matched controls, and whether what is kept is copied."""
    return [
        *ablation.figures(source),
        _matched(source),
        _depths(source),
        *_by_rarity(source),
        *_balance(source),
        _copied(source),
    ]


def _matched(source: series.Source) -> plots.Plot:
    why = source.why(f"retrieval_depth_{RETRIEVED}")
    shares = [
        plots.Lines(
            f"within the top {RETRIEVED} for good" if kind is source.kinds[0] else kind.name,
            "layer",
            source.layers,
            "share of matched positions",
            _pair(source, kind, f"retrieved_within_{RETRIEVED}"),
            why=why,
        )
        for kind in source.kinds
    ]
    ranks = plots.Lines(
        "rank of the next token",
        "layer",
        source.layers,
        "rank",
        _pair(source, source.kinds[0], "matched_ln_rank_next", math.exp),
        plots.RANK,
        why=why,
    )
    ours, *theirs = plots.alike(*shares)
    panels = [ours, ranks, *theirs]
    line = source.line(f"retrieval_depth_{RETRIEVED}", source.study.run.label)
    note = f" {line.note.split(';')[0]}." if line is not None else ""
    return plots.Plot(
        "copies",
        "Copies beside matched controls",
        "Positions whose next token repeats what followed the last occurrence of at least the two "
        "tokens before it, beside positions whose token stood earlier too but that copy nothing, "
        "and that match them in frequency, probability and final certainty.",
        tuple(panels),
        series.basis(source, panels) + note,
    )


def _pair(
    source: series.Source, kind: series.Kind, estimator: str, scale: series.Number | None = None
) -> tuple[plots.Curve, ...]:
    styles = {"copies": _COPIES, "controls": _CONTROLS}
    return tuple(
        source.curve(estimator, kind, name, scale=scale, name=name, style=style)
        for name, style in styles.items()
    )


def _depths(source: series.Source) -> plots.Plot:
    estimators = {"retrieval_depth": "", "retrieval_depth_adjusted": ", at equal covariates"}
    rows = [(f"{name}_{rank}", "all") for rank in RETRIEVAL_RANKS for name in estimators]
    labels = tuple(
        f"stays within rank {rank}{how}" for rank in RETRIEVAL_RANKS for how in estimators.values()
    )
    later = plots.Points(
        "copies minus controls",
        "difference of relative depth",
        labels,
        tuple(source.points(rows, kind) for kind in source.kinds),
        level=0.0,
        region=source.smallest(rows[-1][0]),
        why=source.why(*(name for name, _ in rows)),
    )
    effects = [("cliff_delta", "all"), ("scramble_recover", "all")]
    sizes = plots.Points(
        "effect size, and prominence",
        "Cliff's δ; nat of prominence",
        ("Cliff's δ of depth", "prominence of ln rank"),
        tuple(source.points(effects, kind) for kind in source.kinds),
        level=0.0,
        why=source.why(*(name for name, _ in effects)),
    )
    return plots.Plot(
        "retrieval",
        "Depth of retrieval: copies minus matched controls",
        "Depth from which the next token stays within a given rank, copies minus matched controls, "
        "as they are and at equal covariates by regression; right of 0, copies are retrieved "
        "later; grey: less than half a layer.",
        (later, sizes),
        series.basis(source, (later, sizes), "Bars"),
    )


def _by_rarity(source: series.Source) -> list[plots.Plot]:
    """The adjusted difference by the rarity of the token that is copied; rows with a number."""
    estimator, label = f"retrieval_depth_adjusted_{RETRIEVED}", source.study.run.label
    strata = [
        stratum
        for stratum in source.strata(estimator)
        if stratum != "all"
        and (line := source.line(estimator, label, stratum)) is not None
        and math.isfinite(line.estimate)
    ]
    if not strata:
        return []
    panel = plots.Points(
        f"stays within rank {RETRIEVED}, at equal covariates",
        "difference of relative depth",
        tuple(strata),
        tuple(source.points([(estimator, name) for name in strata], kind) for kind in source.kinds),
        level=0.0,
        region=source.smallest(estimator),
    )
    return [
        plots.Plot(
            "copies-by-rarity",
            "Depth of retrieval by the rarity of the copied token",
            "Copies minus matched controls at equal covariates, in bins of the rarity of the token "
            "that is copied; right of 0, copies are retrieved later; grey: less than half a layer.",
            (panel,),
            series.basis(source, (panel,), "Bars"),
        )
    ]


def _balance(source: series.Source) -> list[plots.Plot]:
    """How much alike copies and controls are, before and after matching."""
    names = [f"balance_{name}" for name in COPY_COVARIATES]
    kind = source.kinds[0]
    curves = []
    for stratum, name, style in (
        ("sampled", "before matching", _CONTROLS),
        ("matched", "after matching", _COPIES),
    ):
        values = source.points([(estimator, stratum) for estimator in names], kind).values
        if np.isfinite(values).any():
            curves.append(plots.bare(name, style, values))
    if not curves:
        return []
    panel = plots.Points(
        "copies minus controls",
        "standard deviations of the copies",
        tuple(_COVARIATES[name] for name in COPY_COVARIATES),
        tuple(curves),
        level=0.0,
        region=UNBALANCED,
    )
    return [
        plots.Plot(
            "balance",
            "How much alike copies and controls are",
            "Mean of each covariate over the copies minus that over the controls, before matching "
            f"and after; grey: less than {UNBALANCED}; what is left is regressed out of the "
            "differences at equal covariates.",
            (panel,),
            "Standardized differences describe the matches; they have no interval.",
        )
    ]


def _copied(source: series.Source) -> plots.Plot:
    curves = source.curves("copied_within_type")
    # Where ranks hardly vary, as in fresh weights at the input, a slope can be anything.
    ours = curves[0]
    reach = 2.5 * plots.ends(np.abs([ours.values, ours.low, ours.high]))[1]
    panel = plots.Lines(
        "within tokens of one type",
        "layer",
        source.layers,
        "probability per nat of ln rank",
        curves,
        level=0.0,
        span=(-reach, reach) if reach > 0 else None,
        why=source.why("copied_within_type"),
    )
    candidate = source.panel(
        "copy candidate of the context",
        f"share within the top {RETRIEVED}",
        f"copy_within_{RETRIEVED}",
    )
    share = source.line("copied_share", source.study.run.label)
    base = (
        f" The share of all positions that are copied later is {share.estimate:.3f}."
        if share
        else ""
    )
    return plots.Plot(
        "copied",
        "Are tokens that are kept copied more often?",
        "Change in the probability that a position is copied later per nat of ln rank of its token "
        "(below 0: tokens that are kept are copied more often), and share of positions whose copy "
        f"candidate stays within the top {RETRIEVED}.",
        (panel, candidate),
        series.basis(source, (panel, candidate))
        + base
        + " The panel on the right counts all positions. Slopes beyond the axis are in the table.",
    )
