"""Q0 and Q2: the layer at which something happens first, as shares of positions and medians."""

from __future__ import annotations

import numpy as np
from study.independent import bootstrap
from study.independent.lines import Lines

NEVER = 10**6
THIRDS = ("frequent third", "middle third", "rare third")


def of_run(run):
    lines = Lines()
    for rank in (1, 5, 10, 100):
        name = f"settled_within_{rank}"
        put(run, lines, name, stays(run["rank_final"] <= rank), happened=True)
    first = {f"exit_from_{k}": first_after_input(run["rank_input"] > k) for k in (10, 100, 1000)}
    # P_l <= P_0 / 2 is r_l^2 >= V r_0, which integers decide.
    ranks = run["rank_input"]
    first["half_life"] = first_after_input(ranks**2 >= run.vocab * ranks[:, :1])
    for name, layer in first.items():
        for i, third in enumerate(THIRDS):
            put(run, lines, name, layer, rows=thirds(run) == i, stratum=third)
    return lines


def stays(within):
    """The layer from which something is so to the last; `NEVER` where it is not so in the end."""
    broken = ~within
    last = within.shape[1] - 1 - np.argmax(broken[:, ::-1], axis=1)
    layer = np.where(broken.any(1), last + 1, 0)
    return np.where(layer == within.shape[1], NEVER, layer)


def first_after_input(happens):
    """The first layer after the input at which something is so."""
    later = happens[:, 1:]
    return np.where(later.any(1), 1 + np.argmax(later, axis=1), NEVER)


def thirds(run):
    """Third of each position: bins of rarity, each where the middle of its positions lies."""
    tokens = np.bincount(run.rarity_bin["input"], minlength=16)
    middle = (np.cumsum(tokens) - tokens / 2) / tokens.sum()
    return np.minimum((3 * middle).astype(int), 2)[run.rarity_bin["input"]]


def put(run, lines, name, layer, *, rows=slice(None), stratum="all", happened=False):
    """Share at each layer to which it has, or has not, happened, and where half are left."""
    reached = layer[rows, None] <= np.arange(run.n_layers)
    counted = reached if happened else ~reached
    sums = [
        bootstrap.totals(part, run.document[rows], run.n_documents)
        for part in (counted, np.ones(counted.shape))
    ]
    share, se = bootstrap.estimate(lambda hits, n: hits / n, *sums)
    lines.by_layer(f"{name}_{'share' if happened else 'survival'}", share, se, stratum=stratum)
    left = 1 - share if happened else share
    below = np.flatnonzero(left <= 0.5)
    median = run.depths[below[0]] if len(below) else np.nan
    lines.put(f"{name}_median", median, stratum=stratum)
