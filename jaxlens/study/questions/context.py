"""Q2, continued. Is what is kept contextual, or a property of the token?"""

from __future__ import annotations

import math

from jaxlens.study import columns, curves, table
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.stats import (
    bootstrap,
    correlation,
    least_squares,
    multiplicity,
    regression,
    variance,
    within_type,
)
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

QUESTION = "Q2"


def answer(of: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primary is marked for a trained one."""
    return [*_correlations(of), *_between_types(of), *_within_types(of), *_pooled(of)]


def _correlations(of: Inputs) -> list[Result]:
    joint = of.tallies["joint_histogram"]
    surprisal, mirror = correlation.partial_spearman(joint)
    effect, n = curves.design_effect(of), int(joint[0].sum())
    lines = []
    for name, given, rho in (
        ("surprisal", "rarity", surprisal),
        ("rarity", "surprisal", mirror),
    ):
        lines += table.by_layer(
            of,
            QUESTION,
            f"partial_spearman_{name}",
            f"partial rank correlation of ln rank_input with {name} given {given}",
            [correlation.interval(float(value), n, 1, effect) for value in rho],
            unit="1",
            smallest=multiplicity.SMALLEST["rho"],
            tested=True,
            note=bootstrap.WIDENED,
        )
    return lines


def _between_types(of: Inputs) -> list[Result]:
    counts = of.tallies["type_count"]
    sums, squared = (of.tallies[f"type_{what}"] / bins.ONE for what in ("sum", "square"))
    meaning = "share of the variance of ln rank_input between types; the interval is over types"
    found = variance.omega_squared(counts, sums, squared)
    return table.by_layer(of, QUESTION, "omega_squared", meaning, found, unit="1")


def _within_types(of: Inputs) -> list[Result]:
    lines = []
    for layer in range(of.n_layers):
        found = within_type.slope(*columns.of_rank(of, layer), columns.NAMES, "surprisal")
        lines.append(
            result(
                of,
                QUESTION,
                "within_type_surprisal",
                "slope of ln rank_input on surprisal within types, position, recency, piece and "
                "final log-probability held; not 0: preservation is contextual",
                found,
                unit="nat per nat",
                layer=layer,
                smallest=_smallest_within(of),
                tested=True,
                primary=of.kind == TRAINED and layer == of.middle,
            )
        )
    return lines


def _smallest_within(of: Inputs) -> float:
    """Slope by which a standard deviation of surprisal moves preservation by 0.02."""
    sums = of.tallies["covariate_product"].sum(0) / bins.ONE
    constant, place = (definitions.COVARIATES.index(name) for name in ("constant", "surprisal"))
    n = max(float(sums[constant, constant]), 1.0)
    mean = sums[constant, place] / n
    spread = math.sqrt(max(sums[place, place] / n - mean * mean, 1e-12))
    return multiplicity.SMALLEST["preservation"] * math.log(of.vocab_size) / spread


def _pooled(of: Inputs) -> list[Result]:
    """One regression over all tokens at mid depth, clustered by groups of documents."""
    names = definitions.COVARIATES
    found = regression.clustered(
        of.tallies["covariate_product"] / bins.ONE,
        of.tallies["covariate_outcome"][..., of.middle] / bins.ONE,
        of.group_rows,
        names,
    )
    return [
        result(
            of,
            QUESTION,
            f"pooled_{name}",
            f"slope of ln rank_input on {name}, all others held, over all types",
            least_squares.coefficient(found, name),
            unit="nat per unit",
            layer=of.middle,
            tested=True,
        )
        for name in names
        if name != "constant"
    ]
