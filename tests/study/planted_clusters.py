"""Values in clusters with a known mean: heavy tails, skewness, sizes, and sizes tied to values."""

import functools
import zlib

import numpy as np

from jaxlens.study.stats import clustered_ratio

SIZES = {"equal": 1.0, "two lags": 0.68, "three lags": 0.53, "documents": 0.55}
"""Kinds of sizes, with the effective number of clusters as a share of all."""

TAILS = ("normal", "t3", "exponential")
"""Of the clusters' own effects; those of t with 3 degrees of freedom have no third moment."""

TIED = (0.0, 0.3)
"""How much the value of a cluster rises with the logarithm of its size."""


def sizes(kind, n, random):
    """Observations of each cluster: lags give 15, 63 or 255 tokens, documents a few copies."""
    if kind == "documents":
        return np.minimum(random.geometric(0.3, n), 20).astype(float)
    choices = {"equal": [1], "two lags": [15, 63], "three lags": [15, 63, 255]}
    return random.choice(choices[kind], n).astype(float)


def values(tails, size, tied, random):
    """Mean of each cluster: an effect of its own, and noise that its size evens out."""
    n = len(size)
    effect = {
        "normal": lambda: random.normal(0, 1, n),
        "t3": lambda: random.standard_t(3, n),
        "exponential": lambda: random.exponential(1, n) - 1,
        "lognormal": lambda: np.exp(random.normal(0, 1, n)) - np.exp(0.5),
    }[tails]()
    return 1 + effect + random.normal(0, 1, n) / np.sqrt(size) + tied * np.log(size)


@functools.cache
def truth(kind, tied):
    """Mean over observations, to four digits; effects have mean 0 and do not hang on the size."""
    size = sizes(kind, 4_000_000, np.random.default_rng(0))
    return float((size * (1 + tied * np.log(size))).sum() / size.sum())


def coverage(kind, tails, tied, effective, replicas):
    """Share of the intervals that hold the truth, of those that there are.

    Args:
        kind: Of sizes.
        tails: Of the clusters' effects.
        tied: See `TIED`.
        effective: Effective number of clusters, on average.
        replicas: Intervals.
    """
    random = np.random.default_rng(zlib.crc32(f"{kind} {tails} {tied} {effective}".encode()))
    n, held, made = round(effective / SIZES[kind]), 0, 0
    while made < replicas:
        size = sizes(kind, n, random)
        value = values(tails, size, tied, random)
        found = clustered_ratio.mean(value, size, np.arange(n))
        made += not np.isnan(found.low)
        held += found.low <= truth(kind, tied) <= found.high
    return held / replicas
