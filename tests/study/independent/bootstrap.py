"""A plain bootstrap: whole units, most often documents, drawn with replacement.

A statistic is a function of sums over rows. Sums by unit are computed once; a replica weighs them
by how often each unit was drawn and evaluates the statistic again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

REPLICAS = 600


class Number(NamedTuple):
    """An estimate and, where there is one, its standard error."""

    estimate: float
    se: float = np.nan


def drawn(n_units, replicas=REPLICAS, seed=20201):
    """How often each unit is drawn, ``[replica, unit]``."""
    chances = np.full(n_units, 1 / n_units)
    return np.random.default_rng(seed).multinomial(n_units, chances, size=replicas)


def totals(values, unit, n_units):
    """Sums of rows by unit, ``[unit, ...]``; what is not a number adds nothing."""
    values = np.nan_to_num(np.asarray(values, np.float64))
    flat = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(unit, column, n_units) for column in flat.T], axis=1)
    return sums.reshape(n_units, *values.shape[1:])


def estimate(statistic, *by_unit, replicas=REPLICAS):
    """The statistic of all units and its standard deviation over replicas.

    Args:
        statistic: From totals ``[...]`` to numbers.
        by_unit: Sums of each unit, ``[unit, ...]``.
        replicas: Their number.
    """
    value = np.asarray(statistic(*(part.sum(0) for part in by_unit)))
    return value, spread(statistic, *by_unit, replicas=replicas)


def spread(statistic, *by_unit, replicas=REPLICAS):
    """Standard deviation of a statistic over replicas that draw the units of its sums."""
    flat = [part.reshape(len(part), -1) for part in by_unit]
    again = []
    for weight in drawn(len(by_unit[0]), replicas).astype(np.float64):
        sums = [(weight @ f).reshape(p.shape[1:]) for f, p in zip(flat, by_unit, strict=True)]
        again.append(statistic(*sums))
    return deviation(np.stack(again))


def deviation(replicas):
    """Standard deviation over replicas of what exists; NaN of what exists in fewer than two."""
    there = np.isfinite(replicas)
    n = there.sum(0)
    mean = np.where(there, replicas, 0).sum(0) / np.maximum(n, 1)
    squares = np.square(np.where(there, replicas - mean, 0)).sum(0)
    return np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)


def jackknife(statistic, *by_unit):
    """Standard error of a statistic from its values without each unit."""
    whole = [part.sum(0) for part in by_unit]
    n = len(by_unit[0])
    without = np.stack(
        [
            statistic(*(total - part[i] for total, part in zip(whole, by_unit, strict=True)))
            for i in range(n)
        ]
    )
    return np.sqrt((n - 1) * without.var(axis=0))
