"""Q2: excess preservation by bins of rarity, and its slope over them."""

from __future__ import annotations

import numpy as np
from study.independent import bootstrap, curves, rows
from study.independent.lines import Lines

SIDES = ("input", "foreign")
FEWEST_TOKENS, FEWEST_TYPES, FEWEST_BINS = 50, 20, 3
MIDDLES = np.arange(rows.RARITIES) + 0.5


def of_run(run):
    lines = Lines()
    sums, counts = by_side(run)
    _fan(run, lines, sums, counts)
    _excess(run, lines, sums, counts)
    _preservation(run, lines)
    _slopes(run, lines, sums, counts)
    _pieces(run, lines)
    return lines


def by_side(run):
    """Sums of ln rank and positions by document, side and bin of the rarity of that token."""
    sums = np.zeros((run.n_documents, 2, rows.RARITIES, run.n_layers))
    counts = np.zeros((run.n_documents, 2, rows.RARITIES))
    for i, side in enumerate(SIDES):
        there = run[f"rank_{side}"][:, 0] > 0
        cell = run.document[there], i, run.rarity_bin[side][there]
        np.add.at(sums, cell, run.ln(side)[there])
        np.add.at(counts, cell, 1)
    return sums, counts


def enough(run, counts):
    """Bins with 50 positions and 20 token types."""
    return (counts >= FEWEST_TOKENS) & (run.types_by_bin >= FEWEST_TYPES)


def _fan(run, lines, sums, counts):
    for i, side in enumerate(SIDES):
        has_number = enough(run, counts[:, i].sum(0))
        for b in range(rows.RARITIES):
            value = se = np.full(run.n_layers, np.nan)
            if has_number[b]:
                value, se = bootstrap.estimate(np.divide, sums[:, i, b], counts[:, i, [b]])
            lines.by_layer(f"fan_{side}", value, se, stratum=rows.rarity_label(b))


def excess_of(total, count):
    mean = curves.ratio(total, count)
    return mean[1] - mean[0]


def _excess(run, lines, sums, counts):
    layer = run.middle
    value, se = bootstrap.estimate(excess_of, sums[..., layer], counts)
    has_number = enough(run, counts.sum(0).min(0))
    for b in range(rows.RARITIES):
        number = (value[b], se[b]) if has_number[b] else (np.nan, np.nan)
        lines.put("excess_preservation", *number, stratum=rows.rarity_label(b), layer=layer)


def _preservation(run, lines):
    bins, ln = run.rarity_bin["input"], run.ln("input")
    has_number = enough(run, np.bincount(bins, minlength=rows.RARITIES))
    for b in range(rows.RARITIES):
        mean = ln[bins == b].mean(0) if has_number[b] else np.full(run.n_layers, np.nan)
        lines.by_layer("preservation", 1 - mean / run.ln_vocab, stratum=rows.rarity_label(b))


def weights(run, counts):
    """Root of the smaller number of positions of the two sides, 0 of bins without a number."""
    smaller = counts.sum(0).min(0)
    return np.where(enough(run, smaller), np.sqrt(smaller), 0)


def line_through(values, weight):
    """Weighted least squares on the middles of the bins."""
    used = (weight > 0) & np.isfinite(values)
    if used.sum() < FEWEST_BINS:
        return np.nan
    return np.polyfit(MIDDLES[used], values[used], 1, w=np.sqrt(weight[used]))[0]


def _slopes(run, lines, sums, counts):
    weight = weights(run, counts)

    def of_means(total, count):
        excess = excess_of(total, count[..., None])
        return np.array([line_through(column, weight) for column in excess.T])

    lines.by_layer("excess_slope_of_means", *bootstrap.estimate(of_means, sums, counts))

    def of_medians(histogram):
        medians = np.array([[_median(bin_) for bin_ in side] for side in histogram])
        return line_through(medians[1] - medians[0], weight)

    number = bootstrap.estimate(of_medians, _histogram(run))
    lines.put("excess_slope", *number, layer=run.middle)


RANK_EDGES = np.linspace(0, 12.8, 65, dtype=np.float32)


def _rank_bins(ln):
    return np.clip(np.searchsorted(RANK_EDGES, ln.astype(np.float32), "right") - 1, 0, 63)


def _histogram(run):
    counts = np.zeros((run.n_documents, 2, rows.RARITIES, 64))
    for i, side in enumerate(SIDES):
        there = run[f"rank_{side}"][:, 0] > 0
        place = _rank_bins(run.ln(side)[there, run.middle])
        np.add.at(counts, (run.document[there], i, run.rarity_bin[side][there], place), 1)
    return counts


def _median(counts):
    """Median of ln rank from its bins, as `curves.ln_rank_quantile` has it from ranks."""
    reached = np.cumsum(counts)
    if not reached[-1]:
        return np.nan
    i = int(np.argmax(reached >= reached[-1] / 2))
    inside = (reached[-1] / 2 - (reached[i] - counts[i])) / counts[i]
    return 0.0 if i == 0 else RANK_EDGES[i] + inside * (float(RANK_EDGES[i + 1]) - RANK_EDGES[i])


def _pieces(run, lines):
    piece = np.where(run["piece"] == 255, 0, run["piece"])
    for number, name in enumerate(rows.PIECES):
        mine = piece == number
        bins, place = run.rarity_bin["input"][mine], _rank_bins(run.ln("input")[mine, run.middle])
        counts = np.zeros((rows.RARITIES, 64))
        np.add.at(counts, (bins, place), 1)
        tokens = counts.sum(1)
        weight = np.where(tokens >= FEWEST_TOKENS, np.sqrt(tokens), 0)
        slope = line_through(np.array([_median(c) for c in counts]), weight)
        lines.put("median_slope", slope, stratum=name, layer=run.middle)
