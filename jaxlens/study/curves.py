"""Means by layer and statistics of them, clustered by groups of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Num

from jaxlens import binning
from jaxlens.study import binned, correlation, resample
from jaxlens.study.inputs import Inputs

Statistic = Callable[[Float[np.ndarray, "... layer"]], Float[np.ndarray, "..."]]

WEIGHTS = resample.weights(binning.GROUPS)
"""Weights of the groups in each replica; those of all runs are the same, so runs are paired."""


def by_layer(
    sums: Num[np.ndarray, "group layer"],
    counts: Num[np.ndarray, "group layer"],
    scale: float = binning.ONE,
) -> list[resample.Estimate]:
    """Mean of every layer with its interval.

    Args:
        sums: Sums by group, in units of 1 / ``scale``.
        counts: Number of values.
        scale: 1 for counts.
    """
    means = _ratio(sums.sum(0), counts.sum(0), scale)
    totals, sizes = (resample.replicate(part, WEIGHTS) for part in (sums, counts))
    replicas = _ratio(totals, sizes, scale)
    return [
        resample.interval(float(means[layer]), replicas[:, layer], counts[:, layer])
        for layer in range(sums.shape[1])
    ]


def means(of: Inputs, name: str) -> list[resample.Estimate]:
    """Mean of a measure at every layer; of a rank that of its logarithm."""
    return by_layer(*of.measured(name))


def statistic(of: Inputs, name: str, function: Statistic) -> resample.Estimate:
    """A statistic of the mean curve of a measure."""
    sums, counts = of.measured(name)

    def of_totals(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        return function(binned.mean(total, count))

    return resample.bootstrap(of_totals, (sums, counts), of.group_rows, weight=WEIGHTS)


def difference(
    run: Inputs, nulls: Sequence[Inputs], name: str, function: Statistic
) -> resample.Estimate:
    """The statistic of a run minus its mean over null runs, paired by group of documents.

    The null models are taken as given: the interval is about other documents.
    """
    parts = [run.measured(name), *(null.measured(name) for null in nulls)]

    def of_totals(*totals: np.ndarray) -> np.ndarray:
        pairs = zip(totals[::2], totals[1::2], strict=True)
        values = [function(binned.mean(total, count)) for total, count in pairs]
        return values[0] - np.mean(values[1:], axis=0)

    tallies = tuple(array for part in parts for array in part)
    return resample.bootstrap(of_totals, tallies, run.group_rows, weight=WEIGHTS)


def design_effect(of: Inputs) -> float:
    """Clustering of ln rank_input at mid depth by groups of documents; 1 where it is unknown."""
    sums, counts = of.measured("rank_input")
    squares = of.tallies["outcome_square"][:, of.middle].sum() / binning.ONE
    found = correlation.design_effect(
        counts[:, of.middle], sums[:, of.middle] / binning.ONE, float(squares)
    )
    return found if np.isfinite(found) else 1.0


def _ratio(sums: np.ndarray, counts: np.ndarray, scale: float) -> np.ndarray:
    none = np.full(np.shape(sums), np.nan)
    return np.divide(sums / scale, counts, out=none, where=counts > 0)
