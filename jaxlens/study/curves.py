"""Means by layer and statistics of them, clustered by groups of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Num

from jaxlens.study import table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned, bootstrap, correlation
from jaxlens.study.table import Result
from jaxlens.tally import bins, definitions

Statistic = Callable[[Float[np.ndarray, "... layer"]], Float[np.ndarray, "..."]]
Groups = Num[np.ndarray, "group ..."]

QUARTERS = (0.25, 0.5, 0.75)


def by_layer(
    sums: Groups,
    counts: Groups,
    scale: float = bins.ONE,
) -> list[bootstrap.Estimate]:
    """Mean of every layer with its interval.

    Args:
        sums: Sums by group, in units of 1 / ``scale``.
        counts: Number of values.
        scale: 1 for counts.
    """
    weight = bootstrap.weights(len(counts))
    means = _ratio(sums.sum(0), counts.sum(0), scale)
    totals, sizes = (bootstrap.replicate(part, weight) for part in (sums, counts))
    replicas = _ratio(totals, sizes, scale)
    return [
        bootstrap.interval(float(means[layer]), replicas[:, layer], counts[:, layer])
        for layer in range(sums.shape[1])
    ]


def means(of: Inputs, name: str) -> list[bootstrap.Estimate]:
    """Mean of a measure at every layer; of a rank that of its logarithm."""
    return by_layer(*of.measured(name))


def name_of_mean(name: str) -> str:
    """What the table calls the mean of a measure."""
    return f"mean_ln_{name}" if name.startswith("rank_") else f"mean_{name}"


def quartiles(of: Inputs, question: str, name: str) -> list[Result]:
    """Quartiles of a divergence or an entropy at every layer; descriptive, without intervals."""
    histogram = of.tallies["divergence_histogram"][definitions.DIVERGENCES.index(name)].sum(1)
    edges = np.concatenate([[0.0], bins.LOG_EDGES, [np.inf]])
    return [
        line
        for share in QUARTERS
        for line in quantile_lines(
            of, question, name, binned.bucket_quantile(histogram, edges, share), share, "nat"
        )
    ]


def quantile_lines(
    of: Inputs,
    question: str,
    name: str,
    values: Float[np.ndarray, " layer"],
    share: float,
    unit: str,
) -> list[Result]:
    """A quantile of the positions at every layer, as lines of the table."""
    n = int(of.group_rows.sum())
    return table.by_layer(
        of,
        question,
        f"quantile_{name}",
        f"{share:.0%} of the positions are at or below",
        [bootstrap.missing("a quantile of tokens", float(value), n) for value in values],
        unit=unit,
        stratum=f"quantile {share}",
    )


def statistic(sums: Groups, counts: Groups, function: Statistic) -> bootstrap.Estimate:
    """A statistic of a mean curve.

    Args:
        sums: Fixed-point sums by group of documents.
        counts: Number of values.
        function: From curves ``[..., layer]`` to numbers.
    """
    return bootstrap.bootstrap(
        lambda total, count: function(binned.mean(total, count)), (sums, counts), counts[:, 0]
    )


def difference(
    sums: Groups, counts: Groups, nulls: Sequence[tuple[Groups, Groups]], function: Statistic
) -> bootstrap.Estimate:
    """The statistic of a mean curve minus its mean over null models, paired by group.

    The null models are taken as given: the interval is about other documents, not other seeds.

    Args:
        sums: Fixed-point sums by group of documents.
        counts: Number of values.
        nulls: The same of models that saw the same documents in the same groups.
        function: From curves ``[..., layer]`` to numbers.
    """

    def of_totals(*totals: np.ndarray) -> np.ndarray:
        pairs = zip(totals[::2], totals[1::2], strict=True)
        values = [function(binned.mean(total, count)) for total, count in pairs]
        return values[0] - np.mean(values[1:], axis=0)

    tallies = (sums, counts, *(array for null in nulls for array in null))
    return bootstrap.bootstrap(of_totals, tallies, counts[:, 0])


def design_effect(of: Inputs) -> float:
    """Clustering of ln rank_input at mid depth by groups of documents; 1 where it is unknown."""
    sums, counts = of.measured("rank_input")
    squares = of.tallies["outcome_square"][:, of.middle].sum() / bins.ONE
    found = correlation.design_effect(
        counts[:, of.middle], sums[:, of.middle] / bins.ONE, float(squares)
    )
    return found if np.isfinite(found) else 1.0


def _ratio(sums: np.ndarray, counts: np.ndarray, scale: float) -> np.ndarray:
    none = np.full(np.shape(sums), np.nan)
    return np.divide(sums / scale, counts, out=none, where=counts > 0)
