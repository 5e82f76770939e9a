"""Q2. Are rare tokens kept, beyond frequency and chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.study import curves, table
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.stats import binned, bootstrap, multiplicity, slope
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

QUESTION = "Q2"

RARITY = np.arange(bins.FREQUENCY_BINS) + 0.5
"""Middle of each bin of rarity, nat."""

FEW_TOKENS = f"fewer than {slope.FEWEST_TOKENS} tokens"

PIECES = ("whole word", "first piece", "middle piece", "last piece")


def answer(of: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primaries are marked for a trained one."""
    return [
        *_slopes(of),
        *_excess(of),
        *_fan(of),
        *_preservation(of),
        *_pieces(of),
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """The slope of excess preservation against null runs, paired by groups of documents."""
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        sums, counts = (_compared(run, what)[..., run.middle] for what in ("sum", "count"))
        parts = [sums, counts]
        for null in same:
            parts += [_compared(null, what)[..., null.middle] for what in ("sum", "count")]
        weight = slope.bin_weights(counts.sum(0))

        def of_totals(*totals: np.ndarray, weight: np.ndarray = weight) -> np.ndarray:
            pairs = zip(totals[::2], totals[1::2], strict=True)
            values = [
                slope.weighted_slope(slope.excess(binned.mean(*pair)), RARITY, weight)
                for pair in pairs
            ]
            return values[0] - np.mean(values[1:], axis=0)

        found = bootstrap.bootstrap(of_totals, tuple(parts), run.group_rows)
        lines.append(
            result(
                run,
                QUESTION,
                "excess_slope_of_means",
                "slope of the excess preservation of means on rarity, trained minus null",
                found,
                unit="nat per nat",
                layer=run.middle,
                null=f"{kind} x {len(same)}",
                smallest=smallest_slope(run),
                tested=True,
            )
        )
    return lines


def smallest_slope(of: Inputs) -> float:
    """Slope that makes preservation differ by the smallest effect between rare and frequent.

    The difference of P, 0.02, is one of 0.02 ln V in ln rank; rare and frequent are the ninth and
    the first decile of the tokens' rarity. NaN where no position counts.
    """
    counts = of.ranks("input")[0].sum((1, 2))
    if not counts.any():
        return math.nan
    reached = np.cumsum(counts) / counts.sum()
    low, high = (float(RARITY[int(np.searchsorted(reached, share))]) for share in (0.1, 0.9))
    wide = multiplicity.SMALLEST["preservation"] * math.log(of.vocab_size)
    return wide / max(high - low, 1.0)


def _compared(of: Inputs, what: str) -> np.ndarray:
    """Tallies of own and foreign ranks, ``[group, own_foreign, bin, layer]``; counts repeat."""
    found = np.moveaxis(of.tallies[f"excess_{what}"], 0, 1)
    if what == "count":
        return np.repeat(found[..., None], of.n_layers, axis=-1)
    return found


def _slopes(of: Inputs) -> list[Result]:
    smallest, trained = smallest_slope(of), of.kind == TRAINED
    histogram = np.moveaxis(of.tallies["excess_histogram"], 0, 1)
    found = slope.median_slope(histogram, bins.RANK_EDGES, RARITY)
    lines = [
        result(
            of,
            QUESTION,
            "excess_slope",
            "slope of the excess preservation of medians on rarity; positive: rarer tokens are "
            "preserved more",
            found,
            unit="nat per nat",
            layer=of.middle,
            smallest=smallest,
            tested=True,
            primary=trained,
        )
    ]
    sums, counts = _compared(of, "sum"), _compared(of, "count")
    return lines + table.by_layer(
        of,
        QUESTION,
        "excess_slope_of_means",
        "slope of the excess preservation of means on rarity",
        [
            slope.mean_slope(sums[..., layer], counts[..., layer], RARITY)
            for layer in range(of.n_layers)
        ],
        unit="nat per nat",
        smallest=smallest,
        tested=True,
    )


def _excess(of: Inputs) -> list[Result]:
    """Excess preservation in each bin of rarity, at mid depth."""
    sums, counts = (_compared(of, what)[..., of.middle] for what in ("sum", "count"))
    lines = []
    for place in range(bins.FREQUENCY_BINS):
        found = _excess_of(sums[:, :, place], counts[:, :, place])
        lines.append(
            result(
                of,
                QUESTION,
                "excess_preservation",
                "mean ln rank of tokens of other documents minus that of the own tokens",
                found,
                unit="nat",
                layer=of.middle,
                stratum=_bin_name(place),
            )
        )
    return lines


def _excess_of(sums: np.ndarray, counts: np.ndarray) -> bootstrap.Estimate:
    """Of one bin, ``[group, own_foreign]``; without a number where it holds too few tokens."""
    fewest = int(counts.sum(0).min())
    if fewest < slope.FEWEST_TOKENS:
        return bootstrap.missing(FEW_TOKENS, n=fewest, clusters=int(np.count_nonzero(counts[:, 0])))

    def of_totals(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        means = binned.mean(total, count)
        return means[..., 1] - means[..., 0]

    return bootstrap.bootstrap(of_totals, (sums, counts), counts[:, 0])


def _bin_name(place: int) -> str:
    last = place == bins.FREQUENCY_BINS - 1
    return f"rarity {place} nat or more" if last else f"rarity {place} to {place + 1} nat"


def _fan(of: Inputs) -> list[Result]:
    """Mean ln rank at each layer by rarity: of the own tokens, and of equally rare foreign ones."""
    lines = []
    for place, name in enumerate(definitions.COMPARED):
        whose = "the own token" if name == "input" else "a token of another document"
        for rarity in range(bins.FREQUENCY_BINS):
            sums = of.tallies["excess_sum"][place, :, rarity]
            counts = of.tallies["excess_count"][place, :, rarity]
            lines += table.by_layer(
                of,
                QUESTION,
                f"fan_{name}",
                f"mean ln rank of {whose}, by the rarity of that token",
                _means_of_bin(sums, counts),
                unit="nat",
                stratum=_bin_name(rarity),
            )
    return lines


def _means_of_bin(sums: np.ndarray, counts: np.ndarray) -> list[bootstrap.Estimate]:
    """Of one bin of rarity, ``[group, layer]`` and ``[group]``; none where it holds too few."""
    n, clusters = int(counts.sum()), int(np.count_nonzero(counts))
    if n < slope.FEWEST_TOKENS:
        return [bootstrap.missing(FEW_TOKENS, n=n, clusters=clusters)] * sums.shape[1]
    return curves.by_layer(sums, np.repeat(counts[:, None], sums.shape[1], axis=1))


def landscape(of: Inputs) -> Float[np.ndarray, "rarity surprisal"]:
    """Mean preservation over the interior layers, by rarity and surprisal of the token.

    Bins are those of ``binning.FINE_BINS``; NaN where a bin holds fewer than
    ``slope.FEWEST_TOKENS`` tokens.
    """
    counts = of.tallies["joint_histogram"][0].sum(-1)
    if of.n_layers <= 2:  # a model of one block has no interior layer
        return np.full(counts.shape, np.nan)
    sums = of.tallies["preservation_sum"] / bins.ONE / (of.n_layers - 2)
    none = np.full(counts.shape, np.nan)
    mean = np.divide(sums, counts, out=none, where=counts >= slope.FEWEST_TOKENS)
    return 1 - mean / math.log(of.vocab_size)


def _preservation(of: Inputs) -> list[Result]:
    """P = 1 - ln rank / ln V: its mean over interior layers, and by rarity at each layer."""
    ln_vocab, rank = math.log(of.vocab_size), "rank_input"
    inside, sums = slice(1, of.n_layers - 1), of.measured(rank)
    area = bootstrap.missing("no layer lies between the input and the last")
    if of.n_layers > 2:
        area = curves.statistic(*sums, lambda curve: 1 - curve[..., inside].mean(-1) / ln_vocab)
    lines = [
        result(of, QUESTION, "aupc", "mean preservation over the interior layers", area, unit="1")
    ]
    meaning = "1 - mean ln rank_input / ln V"
    found = [_preserved(mean, ln_vocab) for mean in curves.means(of, rank)]
    lines += table.by_layer(of, QUESTION, "preservation", meaning, found, unit="1")
    counts = of.tallies["frequency_count"][definitions.MEASURES.index(rank)][:, 0]
    by_bin = 1 - of.by_frequency(rank) / ln_vocab
    for place, n in enumerate(counts.tolist()):
        enough = n >= slope.FEWEST_TOKENS
        values = by_bin[place] if enough else np.full(of.n_layers, math.nan)
        why = "by bin, without interval" if enough else FEW_TOKENS
        found = [bootstrap.missing(why, float(value), n) for value in values]
        stratum = _bin_name(place)
        lines += table.by_layer(
            of, QUESTION, "preservation", meaning, found, unit="1", stratum=stratum
        )
    return lines


def _preserved(found: bootstrap.Estimate, ln_vocab: float) -> bootstrap.Estimate:
    return bootstrap.Estimate(
        1 - found.value / ln_vocab,
        1 - found.high / ln_vocab,
        1 - found.low / ln_vocab,
        found.se / ln_vocab,
        found.n,
        found.clusters,
        found.note,
        found.df,
    )


def _pieces(of: Inputs) -> list[Result]:
    """Median ln rank by piece of a word, on rarity, at mid depth."""
    histogram = of.ranks("input")[of.middle]
    lines = []
    for piece, name in enumerate(PIECES):
        counts = histogram[:, [piece, piece + 4]].sum(1)
        medians = binned.ln_rank_quantile(counts, bins.RANK_EDGES)
        tokens = counts.sum(-1)
        weight = np.where(tokens >= slope.FEWEST_TOKENS, np.sqrt(tokens), 0.0)
        value = float(slope.weighted_slope(medians, RARITY, weight))
        found = bootstrap.missing("by piece, without interval", value, int(tokens.sum()))
        lines.append(
            result(
                of,
                QUESTION,
                "median_slope",
                "slope of the median ln rank of the own token on rarity, chance not subtracted",
                found,
                unit="nat per nat",
                layer=of.middle,
                stratum=name,
            )
        )
    return lines
