"""Copy events and candidates for their controls from the rows, and which of these are matched."""

from __future__ import annotations

import numpy as np
from study.independent import rows

CONTROLS, CALIPER = 4, 0.25
COLUMNS = ("document", "position", "piece", "next_token", "rank_next")
COLUMNS += ("match_length", "prev_count")


def facts(run, sample):
    """Rows of a sample by their document and place; their keys are in the sample."""
    key = run.document * 2**32 + run["offset"]
    order = np.argsort(key)
    wanted = sample["document"] * 2**32 + sample["offset"]
    place = order[np.searchsorted(key[order], wanted)]
    assert np.array_equal(key[place], wanted)
    return {
        "key": sample["key"],
        "copies": (run["copy_token"] == run["next_token"])[place],
        "rarity_next": rows.fixed(run.rarity["next"][place]),
        "surprisal": rows.fixed(run["surprisal"][place]),
        "logp_next_last": rows.fixed(run["logp_next"][place, -1]),
        "entropy_last": rows.fixed(run["entropy"][place, -1]),
        "ln_position": np.log1p(run["position"][place]),
        "ln_distance": np.log(np.maximum(run["prev_distance"][place], 1)),
        "ln_count": np.log1p(run["prev_count"][place]),
        **{name: run[name][place] for name in COLUMNS},
    }


def some(side, mask):
    return {name: column[mask] for name, column in side.items()}


def match(copies, others):
    """Controls of each copy, at most four: a list of places in ``others``.

    Copies take turns by their key; each takes the free candidate with the least key that has the
    same stratum and is within both calipers.
    """
    edges = {
        name: np.quantile(copies[name], np.arange(1, parts) / parts)
        for name, parts in (("rarity_next", 10), ("position", 5))
    }

    def strata(side):
        parts = [np.searchsorted(e, side[name], "right") for name, e in edges.items()]
        return list(zip(*(p.tolist() for p in (*parts, side["piece"])), strict=True))

    pools = {}
    for place, stratum in enumerate(strata(others)):
        pools.setdefault(stratum, []).append(place)
    pools = {s: np.array(sorted(p, key=others["key"].__getitem__)) for s, p in pools.items()}
    mine, free = strata(copies), np.ones(len(others["key"]), bool)
    found = [[] for _ in mine]
    active = [i for i in np.argsort(copies["key"], kind="stable") if mine[i] in pools]
    for _ in range(CONTROLS):
        still = []
        for i in active:
            pool = pools[mine[i]]
            near = free[pool]
            for name in ("logp_next_last", "entropy_last"):
                near = near & (np.abs(others[name][pool] - copies[name][i]) <= CALIPER)
            if near.any():
                taken = pool[np.argmax(near)]
                free[taken] = False
                found[i].append(taken)
                still.append(i)
        active = still
    return found
