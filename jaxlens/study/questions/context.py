"""Q2, continued. Is what is kept contextual, or a property of the token?"""

from __future__ import annotations

import math

from jaxlens.study import columns, demeaned, table
from jaxlens.study.estimators import ESTIMATORS, HELD
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
from jaxlens.tally import axes, bins


def estimate(run: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primary is marked for a trained one."""
    return [*_correlations(run), *_between_types(run), *_within_types(run), *_pooled(run)]


def _correlations(run: Inputs) -> list[Result]:
    joint = run.tallies["joint_histogram"]
    n, lines = int(joint[0].sum()), []
    for name, rho in zip(("surprisal", "rarity"), correlation.partial_spearman(joint), strict=True):
        note = f"see partial_correlation_{name}, which has an interval"
        values = [bootstrap.missing(note, float(value), n) for value in rho]
        lines += table.by_layer(run, f"partial_spearman_{name}", values)
        lines += table.by_layer(
            run,
            f"partial_correlation_{name}",
            _partial_correlations(run, name, "rarity" if name == "surprisal" else "surprisal"),
            smallest=multiplicity.SMALLEST["rho"],
        )
    return lines


def _partial_correlations(run: Inputs, name: str, held: str) -> list[bootstrap.Estimate]:
    """Of ln rank_input with a column, another one held; at each layer."""
    if why := run.lacks(*columns.NEEDED):
        return [bootstrap.missing(why)] * run.n_layers
    mine = [axes.REGRESSORS.index(one) for one in ("constant", held, name)]
    xtx = run.tallies["regressor_product"][:, mine][:, :, mine] / bins.ONE
    xty = run.tallies["regressor_outcome"][:, mine] / bins.ONE
    yty = run.tallies["outcome_square"] / bins.ONE
    return [
        correlation.partial_of_groups(xtx, xty[:, :, layer], yty[:, layer], run.group_rows)
        for layer in range(run.n_layers)
    ]


def _between_types(run: Inputs) -> list[Result]:
    counts = run.tallies["type_count"]
    sums, squares = (run.tallies[f"type_{what}"] / bins.ONE for what in ("sum", "square"))
    return table.by_layer(run, "omega_squared", variance.omega_squared(counts, sums, squares))


def _within_types(run: Inputs) -> list[Result]:
    why = run.lacks(*columns.NEEDED)
    return [
        result(
            run,
            "within_type_surprisal",
            bootstrap.missing(why)
            if why
            else within_type.slope(*columns.of_rank(run, layer), demeaned.NAMES, "surprisal"),
            layer=layer,
            smallest=math.nan if why else _smallest_within(run),
            primary=run.kind == TRAINED and layer == run.middle,
        )
        for layer in range(run.n_layers)
    ]


def _smallest_within(run: Inputs) -> float:
    """Slope by which a standard deviation of surprisal moves preservation by 0.02."""
    sums = run.tallies["regressor_product"].sum(0) / bins.ONE
    constant, surprisal = (axes.REGRESSORS.index(name) for name in ("constant", "surprisal"))
    n = max(float(sums[constant, constant]), 1.0)
    mean = sums[constant, surprisal] / n
    spread = math.sqrt(max(sums[surprisal, surprisal] / n - mean * mean, 1e-12))
    return multiplicity.SMALLEST["preservation"] * math.log(run.vocab_size) / spread


def _pooled(run: Inputs) -> list[Result]:
    """One regression over all tokens at mid depth, clustered by groups of documents."""
    reported = [n for n in HELD if f"pooled_{n}" in ESTIMATORS]
    if why := run.lacks(*columns.NEEDED):
        nothing = bootstrap.missing(why)
        return [result(run, f"pooled_{name}", nothing, layer=run.middle) for name in reported]
    held = [axes.REGRESSORS.index(name) for name in HELD]
    fit = regression.clustered(
        run.tallies["regressor_product"][:, held][:, :, held] / bins.ONE,
        run.tallies["regressor_outcome"][:, held, run.middle] / bins.ONE,
        run.group_rows,
        HELD,
    )
    return [
        result(run, f"pooled_{name}", least_squares.coefficient(fit, name), layer=run.middle)
        for name in reported
    ]
