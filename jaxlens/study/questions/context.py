"""Q2, continued. Is what is kept contextual, or a property of the token?"""

from __future__ import annotations

import math

from jaxlens.study import columns, curves, table
from jaxlens.study.estimators import HELD
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.stats import (
    correlation,
    least_squares,
    multiplicity,
    regression,
    variance,
    within_type,
)
from jaxlens.study.table import Result, result
from jaxlens.tally import axes, bins


def estimate(run: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primary is marked for a trained one."""
    return [*_correlations(run), *_between_types(run), *_within_types(run), *_pooled(run)]


def _correlations(run: Inputs) -> list[Result]:
    joint = run.tallies["joint_histogram"]
    effect, n = curves.design_effect(run), int(joint[0].sum())
    lines = []
    for name, rho in zip(("surprisal", "rarity"), correlation.partial_spearman(joint), strict=True):
        lines += table.by_layer(
            run,
            f"partial_spearman_{name}",
            [correlation.interval(float(value), n, 1, effect) for value in rho],
            smallest=multiplicity.SMALLEST["rho"],
        )
    return lines


def _between_types(run: Inputs) -> list[Result]:
    counts = run.tallies["type_count"]
    sums, squares = (run.tallies[f"type_{what}"] / bins.ONE for what in ("sum", "square"))
    return table.by_layer(run, "omega_squared", variance.omega_squared(counts, sums, squares))


def _within_types(run: Inputs) -> list[Result]:
    return [
        result(
            run,
            "within_type_surprisal",
            within_type.slope(*columns.of_rank(run, layer), columns.NAMES, "surprisal"),
            layer=layer,
            smallest=_smallest_within(run),
            primary=run.kind == TRAINED and layer == run.middle,
        )
        for layer in range(run.n_layers)
    ]


def _smallest_within(run: Inputs) -> float:
    """Slope by which a standard deviation of surprisal moves preservation by 0.02."""
    sums = run.tallies["covariate_product"].sum(0) / bins.ONE
    constant, surprisal = (axes.COVARIATES.index(name) for name in ("constant", "surprisal"))
    n = max(float(sums[constant, constant]), 1.0)
    mean = sums[constant, surprisal] / n
    spread = math.sqrt(max(sums[surprisal, surprisal] / n - mean * mean, 1e-12))
    return multiplicity.SMALLEST["preservation"] * math.log(run.vocab_size) / spread


def _pooled(run: Inputs) -> list[Result]:
    """One regression over all tokens at mid depth, clustered by groups of documents."""
    held = [axes.COVARIATES.index(name) for name in HELD]
    fit = regression.clustered(
        run.tallies["covariate_product"][:, held][:, :, held] / bins.ONE,
        run.tallies["covariate_outcome"][:, held, run.middle] / bins.ONE,
        run.group_rows,
        HELD,
    )
    return [
        result(run, f"pooled_{name}", least_squares.coefficient(fit, name), layer=run.middle)
        for name in HELD
        if name != "constant"
    ]
