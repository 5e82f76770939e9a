"""Figures of Q3, continued: what a copy loses where its source is replaced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxlens.study.estimators.ablation import MATERIALS
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_ARMS = {
    "whole": ("whole stream", plots.Style(0, "-", "o")),
    "rest": ("all but the own", plots.Style(8, "--", "v")),
    "probe": ("probe", plots.Style(2, "-", "s")),
    "foreign_probe": ("foreign probe", plots.Style(2, "-.", "D")),
    "random_plane": ("random plane", plots.Style(2, "--", "x")),
    "random_shift": ("random shift", plots.Style(6, ":", "P")),
    "embedding": ("own embedding", plots.Style(3, "-", "^")),
    "foreign": ("foreign embedding", plots.Style(4, "-.", "<")),
    "random": ("random direction", plots.Style(5, ":", "+")),
}
"""Short name and look of each arm, in the order of the legend."""

_PAIRS = {
    ("embedding", "foreign"): plots.Style(3, "-", "^"),
    ("embedding", "random"): plots.Style(5, "-.", "+"),
    ("probe", "random_shift"): plots.Style(0, "-", "o"),
    ("probe", "foreign_probe"): plots.Style(2, "--", "v"),
    ("probe", "random_plane"): plots.Style(4, ":", "D"),
}
"""Look of each pair of arms; those of the primaries, and ones of nulls beside them, are below."""

_OF_PRIMARIES = {("embedding", "foreign"): ":", ("probe", "random_shift"): "--"}
"""Pairs whose means are primaries, which are drawn of null runs too, and their dashes there."""

_CLUSTERS = ", clustered by sequence or document"


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
                    f"ablation_loss_{material}_{arm}", source.kinds[0], name=name, style=style
                )
                for arm, (name, style) in _ARMS.items()
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
        "occurrence is replaced by its mean, at one layer at a time; probe: what a linear probe "
        "reads the own token by; foreign: the same of another token; random shift: the stream "
        "moved as far as by probe, along a random direction; dotted line: the gain of the copy "
        "over the earlier occurrence.",
        panels,
        series.basis(source, panels, how=_CLUSTERS),
    )


def _gain(source: series.Source, material: str) -> float:
    line = source.line(f"ablation_gain_{material}", source.study.run.label)
    return line.estimate if line is not None else float("nan")


def _differences(source: series.Source, materials: list[str]) -> list[plots.Plot]:
    """Pairs of arms that differ in one thing, a panel for each material."""
    drawn = {material: tuple(_of_material(source, material)) for material in materials}
    panels = tuple(
        plots.Lines(
            MATERIALS[material],
            "layer",
            source.layers,
            "difference of losses, nat",
            curves,
            level=0,
        )
        for material, curves in drawn.items()
        if curves
    )
    if not panels:
        return []
    primary = " and ".join(map(_name, _OF_PRIMARIES))
    return [
        plots.Plot(
            "ablation-differences",
            "Whose direction a copy is read along",
            "Loss of the copy from the first change of its source minus loss from the second: "
            f"above 0, the first costs more; the primaries are the means of {primary} over the "
            "layers after the first block to mid depth, in repeated random blocks.",
            panels,
            series.basis(source, panels, how=_CLUSTERS),
        )
    ]


def _of_material(source: series.Source, material: str) -> Iterator[plots.Curve]:
    """Every pair of this model, then the pairs of the primaries of null runs that were ablated."""
    for pair, style in _PAIRS.items():
        estimator = f"ablation_difference_{material}_{pair[0]}_{pair[1]}"
        if source.has(estimator):
            yield source.curve(estimator, source.kinds[0], name=_name(pair), style=style)
    for kind in source.kinds[1:]:
        for pair, dashes in _OF_PRIMARIES.items():
            estimator = f"ablation_difference_{material}_{pair[0]}_{pair[1]}"
            style = plots.Style(kind.style.colour, dashes, kind.style.mark)
            name = f"{_name(pair)}, {kind.name}"
            curve = source.curve(estimator, kind, name=name, style=style)
            if np.isfinite(curve.values).any():
                yield curve


def _name(pair: tuple[str, str]) -> str:
    return " minus ".join(_ARMS[arm][0] for arm in pair)
