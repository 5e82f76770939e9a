"""Q3: planted copies in sequences of repeated tokens, beside the same tokens in the first block."""

from __future__ import annotations

import re

import numpy as np
from study.independent import bootstrap
from study.independent.copies import prominence, retrieval_depth
from study.independent.lines import Lines

import jaxlens

ID = re.compile(r"repeats/bin-(\d)/lag-(\d+)/\d+")


def of_run(folder):
    """All lines of a run over ``twins:repeats``."""
    copy, control, sequence, bins, lags = _pairs(folder)
    lines = Lines()
    _cell(lines, copy, control, sequence, "all")
    for lag in np.unique(lags):
        mine = lags == lag
        for name, ranks in (("copy", copy), ("control", control)):
            number = _mean(np.log(ranks[mine]), sequence[mine])
            lines.by_layer(f"twins_mean_ln_rank_{name}", *number, stratum=f"lag {lag}")
        for b in np.unique(bins[mine]):
            cell = mine & (bins == b)
            stratum = f"frequency bin {b}, lag {lag}"
            _cell(lines, copy[cell], control[cell], sequence[cell], stratum)
    return lines


def _pairs(folder):
    """Ranks of the next token before a copy and one block before; sequence, bin, lag of each."""
    with jaxlens.open_run(folder) as run:
        ranks = run["rank_next"][:].astype(np.int64)
        token, document = run["token"][:], run["document"][:].astype(np.int64)
        offset = run["offset"][:].astype(np.int64)
        ids = [identifier.decode() for identifier in run.corpus.documents.id.tolist()]
    design = np.array([[int(n) for n in ID.fullmatch(one).groups()] for one in ids])
    bins, lags = design[document].T
    # The last token of a sequence announces nothing, nor does the first block its copy.
    place = np.flatnonzero((offset >= lags) & (offset < 2 * lags - 1))
    place = place[(place + 1 < len(token))]
    place = place[document[place + 1] == document[place]]
    before = place - lags[place]
    same = token[place + 1] == token[before + 1]
    place, before = place[same], before[same]
    return ranks[place], ranks[before], document[place], bins[place], lags[place]


def _mean(values, sequence):
    _, unit = np.unique(sequence, return_inverse=True)
    parts = values, np.ones(values.shape)
    sums = [bootstrap.totals(part, unit, unit.max() + 1) for part in parts]
    return bootstrap.estimate(np.divide, *sums)


def _cell(lines, copy, control, sequence, stratum):
    depth, other = (retrieval_depth(ranks, 10) for ranks in (copy, control))
    gone = np.log(control[:, -1]) - np.log(copy[:, -1])
    measures = {
        "twins_retrieved_10": depth <= 1,
        "twins_control_10": control[:, -1] <= 10,
        "twins_depth_difference_10": depth - other,
        "twins_gain": gone,
        "twins_prominence": prominence(copy) - prominence(control),
    }
    for name, values in measures.items():
        lines.put(name, *_mean(values, sequence), stratum=stratum)
    there = depth <= 1
    number = _mean(depth[there], sequence[there]) if there.any() else (np.nan, np.nan)
    lines.put("twins_depth_10", *number, stratum=stratum)
