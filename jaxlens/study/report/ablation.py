"""Figures of Q3, continued: what a copy loses where its source is replaced."""

from __future__ import annotations

import numpy as np

from jaxlens.study.estimators.ablation import DIFFERENCES, MATERIALS, PARTS
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_STYLES = {
    "whole": plots.Style(0, "-", "o"),
    "probe": plots.Style(2, "-", "s"),
    "random_shift": plots.Style(2, ":", ""),
    "foreign_probe": plots.Style(2, "-.", "v"),
    "embedding": plots.Style(3, "--", "^"),
    "foreign": plots.Style(4, "-.", "D"),
    "random": plots.Style(5, ":", ""),
}


def figures(source: series.Source) -> list[plots.Plot]:
    """Losses by layer and arm, and the differences that answer the question."""
    known = [name for name in MATERIALS if source.has(f"ablation_gain_{name}")]
    return [_losses(source, known), *_differences(source, known)] if known else []


def _losses(source: series.Source, materials: list[str]) -> plots.Plot:
    panels = tuple(
        plots.Lines(
            MATERIALS[material],
            "layer",
            source.layers,
            "loss of log-probability, nat",
            tuple(
                source.curve(
                    f"ablation_loss_{material}_{arm}", source.kinds[0], name=PARTS[arm], style=style
                )
                for arm, style in _STYLES.items()
                if source.has(f"ablation_loss_{material}_{arm}")
            ),
            level=_gain(source, material),
        )
        for material in materials
    )
    return plots.Plot(
        "ablation",
        "What a copy loses where its source is replaced",
        "Loss of the copied token's log-probability where a part of the stream at its earlier "
        "occurrence is replaced by its mean, at one layer at a time; the line is what the copy "
        "gains over the earlier occurrence.",
        panels,
        series.basis(source, panels, how=", clustered by sequence or document"),
    )


def _gain(source: series.Source, material: str) -> float:
    line = source.line(f"ablation_gain_{material}", source.study.run.label)
    return line.estimate if line is not None else float("nan")


def _differences(source: series.Source, materials: list[str]) -> list[plots.Plot]:
    """Pairs of arms that differ in whose direction is removed, for this model and its nulls."""
    pairs = [
        (material, arm, other)
        for material in materials
        for arm, other in DIFFERENCES
        if (arm, other) != ("embedding", "random")
        and source.has(f"ablation_difference_{material}_{arm}_{other}")
    ]
    if not pairs:
        return []
    panels = tuple(
        plots.Lines(
            f"{material}: {arm}",
            "layer",
            source.layers,
            "difference of losses, nat",
            tuple(
                curve
                for curve in source.curves(f"ablation_difference_{material}_{arm}_{other}")
                if np.isfinite(curve.values).any()  # a null run need not be ablated
            ),
            level=0,
        )
        for material, arm, other in pairs
    )
    return [
        plots.Plot(
            "ablation-differences",
            "Whose direction a copy is read along",
            "Loss where a direction of the copied token is replaced minus that where another one "
            "is, in repeated random blocks and in natural copies (the own embedding minus another "
            "token's; what a probe reads the token by minus two random directions): above 0, "
            "copies are read along the direction of their own token.",
            panels,
            series.basis(source, panels, how=", clustered by sequence or document"),
        )
    ]
