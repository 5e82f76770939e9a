"""Copies and their controls: exact strata, calipers, no replacement, no chance.

Reference:
    Rosenbaum 2010, Design of Observational Studies (exact matching with calipers, 1:k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

CONTROLS = 4
CALIPER = 0.25
"""Nats of final log-probability and of entropy."""


@dataclass(frozen=True)
class Matches:
    """Copies with at least one control.

    Attributes:
        copy: Index of each matched copy, increasing, [match].
        control: Indices of its controls in the order they were found, -1 where none, [match, 4].
        unmatched: Number of copies without any control.
    """

    copy: np.ndarray
    control: np.ndarray
    unmatched: int


def match(
    strata: Int[np.ndarray, "copy stratum"],
    measures: Float[np.ndarray, "copy measure"],
    keys: Num[np.ndarray, " copy"],
    control_strata: Int[np.ndarray, "candidate stratum"],
    control_measures: Float[np.ndarray, "candidate measure"],
    control_keys: Num[np.ndarray, " candidate"],
    n_controls: int = CONTROLS,
    caliper: float = CALIPER,
) -> Matches:
    """Matches each copy to at most four candidates.

    Every stratum must be equal and every measure within the caliper. Copies take turns in the
    order of their keys, one control a round, so that none takes four while another gets none;
    each takes the free candidate with the lowest key. The keys are hashes of (document, position),
    hence the result depends on no order of the rows. A candidate serves once. Which candidate is
    nearest does not matter: that would favour the crowded middle of the caliper.

    Args:
        strata: Frequency decile of the token to come, piece class, position quintile.
        measures: Final log-probability and entropy, nat; a NaN is never matched.
        keys: Hash of each copy.
        control_strata: Strata of the candidates, none of them a copy.
        control_measures: Their measures.
        control_keys: Their hashes.
        n_controls: Most controls of a copy.
        caliper: Largest difference in each measure, inclusive.
    """
    labels, control_labels = _labels(strata, control_strata)
    finite = np.flatnonzero(np.isfinite(control_measures).all(axis=1))
    pools = _split(control_labels, finite)
    controls = np.full((len(strata), n_controls), -1, np.int64)
    usable = np.flatnonzero(np.isfinite(measures).all(axis=1))
    for label, copies in _split(labels, usable).items():
        pool = pools.get(label)
        if pool is None:
            continue
        copies = copies[np.argsort(keys[copies], kind="stable")]
        members = _take_turns(
            measures[copies], control_measures[pool], control_keys[pool], n_controls, caliper
        )
        controls[copies] = np.where(members >= 0, pool[members], -1)
    matched = np.flatnonzero(controls[:, 0] >= 0)
    return Matches(matched, controls[matched], len(strata) - len(matched))


def _labels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One number for each combination of strata."""
    both = np.concatenate([np.asarray(first), np.asarray(second)])
    _, label = np.unique(both, axis=0, return_inverse=True)
    label = label.reshape(-1)
    return label[: len(first)], label[len(first) :]


def _split(labels: np.ndarray, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Rows by label."""
    order = rows[np.argsort(labels[rows], kind="stable")]
    keys, start = np.unique(labels[order], return_index=True)
    return dict(zip(keys.tolist(), np.split(order, start[1:]), strict=True)) if len(rows) else {}


def _take_turns(
    measures: np.ndarray, pool: np.ndarray, keys: np.ndarray, n_controls: int, caliper: float
) -> Int[np.ndarray, "copy control"]:
    """Greedy rounds inside one stratum; places in the pool, -1 where none."""
    # Sorted by the first measure, a copy sees a slice instead of the pool.
    order = np.argsort(pool[:, 0], kind="stable")
    pool, keys = pool[order], keys[order]
    start = np.searchsorted(pool[:, 0], measures[:, 0] - caliper, "left")
    stop = np.searchsorted(pool[:, 0], measures[:, 0] + caliper, "right")
    free = np.ones(len(pool), bool)
    members = np.full((len(measures), n_controls), -1, np.int64)
    active = np.arange(len(measures))
    for turn in range(n_controls):
        for i in active:
            window = slice(start[i], stop[i])
            near = np.abs(pool[window, 1:] - measures[i, 1:]) <= caliper
            open_ = np.flatnonzero(free[window] & near.all(axis=1))
            if len(open_):
                member = open_[np.argmin(keys[window][open_])] + start[i]
                free[member] = False
                members[i, turn] = member
        # Who finds none now finds none later: candidates only become fewer.
        active = active[members[active, turn] >= 0]
    return np.where(members >= 0, order[members], -1)
