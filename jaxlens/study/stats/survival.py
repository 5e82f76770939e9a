"""Kaplan-Meier curves from counts by depth.

The time is a depth: the first layer at which something happens to a token, such as its leaving
the ten best. Tokens to which it never happens are censored at the last layer.

Reference:
    Kaplan and Meier 1958, doi:10.1080/01621459.1958.10501452; Greenwood 1926; Kalbfleisch and
    Prentice 2002, The Statistical Analysis of Failure Time Data (log-log interval); Brookmeyer
    and Crowley 1982, doi:10.2307/2530286 (interval of the median).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy import stats


@dataclass(frozen=True)
class Survival:
    """A curve of survival by depth.

    Attributes:
        survival: Share to which nothing happened up to and including each depth, [depth].
        se: Greenwood's standard error.
        low: Lower end of the log-log interval, pointwise.
        high: Upper end.
        at_risk: Tokens under observation just before each depth.
        median: First depth at which at most half survive; NaN where that is never reached.
        median_low: Lower end of its interval.
        median_high: Upper end; NaN where open.
        n: Tokens.
    """

    survival: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_risk: np.ndarray
    median: float
    median_low: float
    median_high: float
    n: int


def curve(
    events: Num[np.ndarray, "... depth"], censored: Num[np.ndarray, "... depth"]
) -> Float[np.ndarray, "... depth"]:
    """Kaplan-Meier survival, for totals or for replicas of totals.

    Args:
        events: Tokens to which it first happens at each depth.
        censored: Tokens last seen at each depth without it; they are at risk there.

    Returns:
        Share that survives each depth; NaN where nobody was ever at risk.
    """
    events, at_risk = np.asarray(events, np.float64), _at_risk(events, censored)
    # Behind the last token the curve stays where it was.
    hazard = np.divide(events, at_risk, out=np.zeros_like(at_risk), where=at_risk > 0)
    survival = np.cumprod(1 - hazard, axis=-1)
    return np.where(at_risk[..., :1] > 0, survival, np.nan)


def median(
    survival: Float[np.ndarray, "... depth"], depths: Num[np.ndarray, " depth"]
) -> Float[np.ndarray, "..."]:
    """First depth at which at most half survive; NaN where that is never reached."""
    # Products of shares may miss one half by a rounding.
    reached = survival <= 0.5 + 1e-12
    first = np.asarray(depths, np.float64)[np.argmax(reached, axis=-1)]
    return np.where(reached.any(axis=-1), first, np.nan)


def kaplan_meier(
    events: Num[np.ndarray, " depth"],
    censored: Num[np.ndarray, " depth"],
    depths: Num[np.ndarray, " depth"] | None = None,
    level: float = 0.95,
    design_effect: float = 1.0,
) -> Survival:
    """Kaplan-Meier curve with its standard error, interval and median.

    Args:
        events: Tokens to which it first happens at each depth.
        censored: Tokens last seen at each depth without it.
        depths: Depth of each entry, increasing; by default 0, 1, ...
        level: Coverage of the intervals.
        design_effect: Greenwood's variance is of independent tokens; it is multiplied by this.

    Returns:
        Where the survival is 1 or 0 the log-log interval does not exist, and its ends are NaN.
    """
    events = np.asarray(events, np.float64)
    depths = np.arange(events.shape[-1]) if depths is None else np.asarray(depths)
    at_risk = _at_risk(events, censored)
    survival = curve(events, censored)
    left = at_risk * (at_risk - events)
    terms = np.divide(events, left, out=np.zeros_like(left), where=left > 0)
    relative = np.cumsum(terms) * design_effect
    se = survival * np.sqrt(relative)
    inner = (survival > 0) & (survival < 1)
    log_survival = np.log(np.where(inner, survival, 0.5))
    spread = np.sqrt(relative) / np.abs(log_survival)
    factor = np.exp(float(stats.norm.ppf(0.5 + level / 2)) * spread)
    low = np.where(inner, np.exp(log_survival * factor), np.nan)
    high = np.where(inner, np.exp(log_survival / factor), np.nan)
    # Ends of the median: where the lower and the upper curve cross one half.
    ends = [median(np.where(inner, end, survival), depths) for end in (low, high)]
    n = int(at_risk[0])
    middle = float(median(survival, depths))
    return Survival(survival, se, low, high, at_risk, middle, float(ends[0]), float(ends[1]), n)


def _at_risk(
    events: Num[np.ndarray, "... depth"], censored: Num[np.ndarray, "... depth"]
) -> Float[np.ndarray, "... depth"]:
    gone = np.asarray(events, np.float64) + np.asarray(censored, np.float64)
    return np.cumsum(gone[..., ::-1], axis=-1)[..., ::-1]
