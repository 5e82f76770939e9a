"""Q1: recall and log-probability of a linear probe and of the lens, from the file of a probe.

What is recomputed are the statistics of its counts by group of documents, not the probe itself.
"""

from __future__ import annotations

import h5py
import numpy as np
from study.independent import bootstrap, curves, rarity, rows
from study.independent.lines import Lines

TARGETS = ("own", "previous", "two_back", "permuted")
READOUTS = ("probe", "lens")


def read(folder):
    """Counts of groups that hold any, ``[group, layer, target, readout, statistic, rarity]``."""
    with h5py.File(folder / "probe" / "probe.h5") as file:
        counts = np.moveaxis(file["evaluation"][:].astype(float), -1, 0)
    return counts[counts[..., 0, :].any(axis=(1, 2, 3, 4))]


def of_run(run, counts):
    lines = Lines()
    _of_positions(lines, counts.sum(-1), "all")
    held = counts[:, 0, 0, 0, 0].sum(0) > 0
    for b in np.flatnonzero(held & (run.types_by_bin >= rarity.FEWEST_TYPES)):
        _of_positions(lines, counts[..., b], rows.rarity_label(b))
    return lines


def _of_positions(lines, counts, stratum):
    """Lines of ``[group, layer, target, readout, statistic]``.

    The errors of shares are those of a jackknife, which is the design: a bootstrap of some thirty
    unequal documents is narrower where one of them holds the only hits.
    """
    for t, target in enumerate(TARGETS[: 4 if stratum == "all" else 3]):
        n = counts[:, :, t, :, 0]
        for name, place, scale in (("recall_1", 1, 1), ("recall_10", 2, 1), ("logp", 3, 65_536)):
            sums = counts[:, :, t, :, place] / scale
            value, se = bootstrap.estimate(_with_difference, sums, n)
            held = n.any(axis=(1, 2))
            if name != "logp":
                se = bootstrap.jackknife(_with_difference, sums[held], n[held])
            elif held.sum() > 1:
                se = se * _of_few(n[:, 0, 0])
            for i, readout in enumerate((*READOUTS, "probe_minus_lens")):
                if target != "permuted" or readout == "probe":
                    key = f"{readout}_{name}_{target}"
                    lines.by_layer(key, value[i], se[i], stratum=stratum)


def _of_few(n):
    """What a bootstrap of few documents lacks: it divides by their (effective) number, not less 1.

    Reference:
        Kish 1965, Survey Sampling.
    """
    effective = n.sum() ** 2 / np.square(n).sum()
    return np.sqrt(effective / (effective - 1))


def _with_difference(sums, n):
    probe, lens = curves.ratio(sums, n).T
    return np.stack([probe, lens, probe - lens])


def contrasts(ours, theirs):
    """Recall of the probe minus that of a probe of fresh weights, at the same positions."""
    lines = Lines()
    for t, target in enumerate(TARGETS[:3]):
        for k, rank in ((1, 1), (2, 10)):
            sums = [one.sum(-1)[:, :, t, 0] for one in (ours, theirs)]
            gap = sums[0][..., k] - sums[1][..., k]
            n = sums[0][..., 0]
            value, se = gap.sum(0) / n.sum(0), bootstrap.jackknife(np.divide, gap, n)
            lines.by_layer(f"probe_recall_{rank}_{target}", value, se)
    return lines
