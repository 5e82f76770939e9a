"""When something happens on the way through the layers, as lines of the table.

What never happens to a position is last seen at the last layer, so no position is lost on the way:
the Kaplan-Meier curve is the share to which it has not happened yet. Each share has an interval of
its own over groups of documents, see ``stats.shares``.

Reference:
    Kaplan and Meier 1958, doi:10.1080/01621459.1958.10501452; Brookmeyer and Crowley 1982,
    doi:10.2307/2530286 (interval of the median).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from jaxlens.study import table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import bootstrap, shares
from jaxlens.study.table import Result


def lines(
    run: Inputs,
    name: str,
    counts: Int[np.ndarray, "group depth"],
    *,
    stratum: str = "all",
    happened: bool = False,
) -> list[Result]:
    """The median depth, and at each layer the share to which it has, or has not, happened.

    Args:
        run: Run.
        name: Of the estimators without their ending, ``_median`` and ``_survival`` or ``_share``.
        counts: Positions by group of documents and by the layer at which it happens first; the
            last entry counts those to which it never does.
        stratum: See ``table.Result``.
        happened: Whether to report the share to which it has happened.
    """
    total = counts.sum(1)
    by_layer = np.cumsum(counts[:, :-1], axis=1)
    remaining = [shares.of_groups(total - reached, total) for reached in by_layer.T]
    reported = [shares.of_groups(reached, total) for reached in by_layer.T]
    share_name = f"{name}_share" if happened else f"{name}_survival"
    return [
        table.result(run, f"{name}_median", _median(remaining, run.depths), stratum=stratum),
        *table.by_layer(run, share_name, reported if happened else remaining, stratum=stratum),
    ]


def lacking(run: Inputs, name: str, why: str, happened: bool = False) -> list[Result]:
    """The same lines without numbers.

    Args:
        run: Run.
        name: See `lines`.
        why: For the note.
        happened: See `lines`.
    """
    nothing, share_name = bootstrap.missing(why), "share" if happened else "survival"
    return [
        table.result(run, f"{name}_median", nothing),
        *table.by_layer(run, f"{name}_{share_name}", [nothing] * run.n_layers),
    ]


def _median(
    remaining: list[bootstrap.Estimate], depths: Float[np.ndarray, " layer"]
) -> bootstrap.Estimate:
    """Where half remain; its interval ends where those of the shares cross one half."""
    curves = [[getattr(share, end) for share in remaining] for end in ("value", "low", "high")]
    value, low, high = (first_half(np.array(curve), depths) for curve in curves)
    n, clusters, why = remaining[0].n, remaining[0].clusters, remaining[0].note
    if math.isnan(value):
        why = "less than half by the last layer" if n else bootstrap.EMPTY
    return bootstrap.Estimate(value, low, high, math.nan, n, clusters, why)


def first_half(share: Float[np.ndarray, " layer"], depths: Float[np.ndarray, " layer"]) -> float:
    """First depth at which a share is at most one half; NaN where it stays above."""
    reached = np.flatnonzero(share <= 0.5)
    return float(depths[reached[0]]) if len(reached) else math.nan
