"""Means by layer and statistics of them, clustered by groups of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Num

from jaxlens.study import table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned, bootstrap
from jaxlens.study.table import Result
from jaxlens.tally import axes, bins

Statistic = Callable[[Float[np.ndarray, "... layer"]], Float[np.ndarray, "..."]]
Groups = Num[np.ndarray, "group ..."]

_NO_INTERVAL = "a quantile of tokens"

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
    means = binned.ratio(sums.sum(0) / scale, counts.sum(0))
    totals, sizes = (bootstrap.replicate(part, weight) for part in (sums, counts))
    replicas = binned.ratio(totals / scale, sizes)
    left_out = binned.ratio((sums.sum(0) - sums) / scale, counts.sum(0) - counts)
    return [
        bootstrap.interval(
            float(means[layer]),
            replicas[:, layer],
            counts[:, layer],
            left_out=left_out[:, layer],
        )
        for layer in range(sums.shape[1])
    ]


def means(run: Inputs, measure: str) -> list[bootstrap.Estimate]:
    """Mean of a measure at every layer; of a rank that of its logarithm."""
    return by_layer(*run.measured(measure))


def name_of_mean(measure: str) -> str:
    """What the table calls the mean of a measure."""
    return f"mean_ln_{measure}" if measure.startswith("rank_") else f"mean_{measure}"


def quartiles(run: Inputs, measure: str) -> list[Result]:
    """Quartiles of a divergence or an entropy at every layer; descriptive, without intervals."""
    histogram = run.tallies["divergence_histogram"][axes.DIVERGENCES.index(measure)].sum(1)
    edges = np.concatenate([[0.0], bins.LOG_EDGES, [np.inf]])
    last = edges[-2]
    lines = []
    for share in QUARTERS:
        values = binned.bucket_quantile(histogram, edges, share)
        # The last bucket has no upper end: a quantile in it is known to be beyond, and no more.
        is_beyond = values >= last
        reasons = np.where(is_beyond, f"beyond {last:.3g} nats, the last bin", _NO_INTERVAL)
        lines += quantile_lines(run, measure, np.where(is_beyond, np.nan, values), share, reasons)
    return lines


def quantile_lines(
    run: Inputs,
    measure: str,
    values: Float[np.ndarray, " layer"],
    share: float,
    reasons: Sequence[str] | np.ndarray | None = None,
) -> list[Result]:
    """A quantile of the positions at every layer, as lines of the table.

    Args:
        run: Inputs.
        measure: Of which.
        values: NaN where it is not known.
        share: Of the positions.
        reasons: Why there is no interval, by layer.
    """
    n = int(run.group_rows.sum())
    why = [_NO_INTERVAL] * len(values) if reasons is None else [str(one) for one in reasons]
    return table.by_layer(
        run,
        f"quantile_{measure}",
        [bootstrap.missing(one, float(value), n) for one, value in zip(why, values, strict=True)],
        stratum=f"quantile {share}",
        meaning=f"{share:.0%} of the positions are at or below",
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
    sums: Groups,
    counts: Groups,
    nulls: Sequence[tuple[Groups, Groups]],
    function: Statistic,
    rows: Num[np.ndarray, " group"] | None = None,
) -> bootstrap.Estimate:
    """The statistic of a mean curve minus its mean over null models, paired by group.

    The null models are taken as given: the interval is about other documents, not other seeds.

    Args:
        sums: Fixed-point sums by group of documents.
        counts: Number of values.
        nulls: The same of models that saw the same documents in the same groups.
        function: From curves ``[..., layer]`` to numbers.
        rows: Observations of each group; by default the counts of the first layer.
    """

    def of_totals(*totals: np.ndarray) -> np.ndarray:
        pairs = zip(totals[::2], totals[1::2], strict=True)
        values = [function(binned.mean(total, count)) for total, count in pairs]
        return values[0] - np.mean(values[1:], axis=0)

    tallies = (sums, counts, *(array for null in nulls for array in null))
    return bootstrap.bootstrap(of_totals, tallies, counts[:, 0] if rows is None else rows)
