"""Shares of positions with intervals over documents, from sums by group of documents.

A share, such as that of the tokens still within the first ten ranks, is near 0 or 1 at many layers,
where ``share ± t se`` would leave the unit interval and a share without any exception would have no
width at all. Wilson's interval with the design effect of the groups does neither; see
``proportions``. Where fewer than ten groups hold an exception, how exceptions come together cannot
be estimated: rates of groups are then taken to vary five times as much as their mean.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Num

from jaxlens.study.stats import bootstrap, proportions

SPREAD = 5.0
"""Standard deviation of the rates of groups over their mean, where it cannot be estimated."""


def of_groups(
    hits: Num[np.ndarray, " group"], counts: Num[np.ndarray, " group"]
) -> bootstrap.Estimate:
    """A share of all positions and its interval over groups of documents.

    Args:
        hits: Positions of each group that count.
        counts: All positions of each group; empty groups may be among them.

    Returns:
        NaN ends with a note where fewer than ten groups hold anything.
    """
    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    n, clusters = int(counts.sum()), int(np.count_nonzero(counts))
    if not n:
        return bootstrap.missing(bootstrap.EMPTY)
    value, low, high = proportions.of_clusters(hits, counts, SPREAD)
    if math.isnan(low):
        return bootstrap.missing(bootstrap.TOO_FEW, value, n, clusters)
    some = counts > 0
    se = math.sqrt(proportions.variance(proportions.leave_one_out(hits[some], counts[some])))
    return bootstrap.Estimate(value, low, high, se, n, clusters)
