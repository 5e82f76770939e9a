"""Degrees of freedom of a standard error that is estimated from few or unequal clusters.

The reach of an interval is that of t, whose degrees of freedom say how well the standard error is
known. Where a few clusters decide it, as large documents do, it is known as badly as from that few
observations: their number is the effective number of the squared influences, ``(sum d^2)^2 /
sum d^4``. Satterthwaite's degrees of freedom are up to three times that number, and cover too
little where large clusters also have other values, as little as 90 %; the number itself covers up
to 98 % of plain data. Between them planted data decided: one and a half times the number for a
bootstrap, twice for a jackknife, whose variance is larger where clusters are unequal. Shares of
which few clusters hold the rarer outcome are skewed, and have the number itself (``proportions``).
See the planted data in the documentation of the study.

Reference:
    Satterthwaite 1946, doi:10.2307/3002019; Kish 1965, Survey Sampling (effective number).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

FACTOR, JACKKNIFE_FACTOR = 1.5, 2.0
"""Degrees of freedom of an effective cluster."""


def of_influences(
    influence: Num[np.ndarray, " cluster"], size: float, factor: float = FACTOR
) -> float:
    """Degrees of freedom of a variance that is a sum of squared influences; at least 1.

    Args:
        influence: What leaving out each cluster does to the estimate; not finite where there is no
            estimate without the cluster.
        size: Effective number of clusters by their observations, less one of which are the most
            degrees of freedom that there can be.
        factor: `FACTOR`, or `JACKKNIFE_FACTOR`.
    """
    squares = np.square(np.asarray(influence, np.float64))
    squares = squares[np.isfinite(squares) & (squares > 0)]
    most = max(size - 1, 1.0)
    if not len(squares):
        return most
    squares = squares / squares.max()  # so that no fourth power underflows
    return max(1.0, min(most, factor * float(squares.sum() ** 2 / (squares @ squares))))
