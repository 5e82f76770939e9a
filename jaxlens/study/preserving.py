"""Q2. Are rare tokens kept, beyond frequency and chance, and by context?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxlens import binning, ledger
from jaxlens.study import (
    binned,
    correlation,
    curves,
    multiplicity,
    regression,
    resample,
    slope,
    squares,
    survival,
    variance,
    within,
)
from jaxlens.study.inputs import Inputs
from jaxlens.study.table import Result, result

QUESTION = "Q2"

RARITY = np.arange(binning.FREQUENCY_BINS) + 0.5
"""Middle of each bin of rarity, nat."""

RANK_EDGES = binning.LN_RANK_EDGES[::2].astype(np.float64)

WITHIN = (
    "surprisal",
    "ln_position",
    "later_occurrence",
    "ln_distance",
    "ln_count",
    "first_piece",
    "middle_piece",
    "last_piece",
    "logp_input_last",
)
"""Columns of the within-type regression; rarity and the embedding's norm belong to the type."""

PIECES = ("whole word", "first piece", "middle piece", "last piece")


def answer(of: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primaries are marked for a trained one."""
    return [
        *_slopes(of),
        *_excess(of),
        *_preservation(of),
        *_pieces(of),
        *_correlations(of),
        *_between_types(of),
        *_within_types(of),
        *_pooled(of),
        *_survival(of),
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

        found = resample.bootstrap(of_totals, tuple(parts), run.group_rows, weight=curves.WEIGHTS)
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
    the first decile of the tokens' rarity.
    """
    counts = of.ranks("input")[0].sum((1, 2))
    reached = np.cumsum(counts) / max(counts.sum(), 1)
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
    smallest, trained = smallest_slope(of), of.kind == "trained"
    histogram = np.moveaxis(of.tallies["excess_histogram"], 0, 1)
    found = slope.median_slope(histogram, RANK_EDGES, RARITY)
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
    for layer in range(of.n_layers):
        found = slope.mean_slope(sums[..., layer], counts[..., layer], RARITY)
        lines.append(
            result(
                of,
                QUESTION,
                "excess_slope_of_means",
                "slope of the excess preservation of means on rarity",
                found,
                unit="nat per nat",
                layer=layer,
                smallest=smallest,
                tested=True,
            )
        )
    return lines


def _excess(of: Inputs) -> list[Result]:
    """Excess preservation in each bin of rarity, at mid depth."""
    sums, counts = (_compared(of, what)[..., of.middle] for what in ("sum", "count"))
    lines = []
    for place in range(binning.FREQUENCY_BINS):
        pair = sums[:, :, place], counts[:, :, place]
        if pair[1].sum(0).min() < slope.FEWEST_TOKENS:
            continue

        def of_totals(total: np.ndarray, count: np.ndarray) -> np.ndarray:
            means = binned.mean(total, count)
            return means[..., 1] - means[..., 0]

        found = resample.bootstrap(of_totals, pair, pair[1][:, 0], weight=curves.WEIGHTS)
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


def _bin_name(place: int) -> str:
    last = place == binning.FREQUENCY_BINS - 1
    return f"rarity {place} nat or more" if last else f"rarity {place} to {place + 1} nat"


def _preservation(of: Inputs) -> list[Result]:
    """P = 1 - ln rank / ln V: its mean over interior layers, and by rarity at each layer."""
    ln_vocab, rank = math.log(of.vocab_size), "rank_input"
    inside = slice(1, of.n_layers - 1)
    area = curves.statistic(of, rank, lambda curve: 1 - curve[..., inside].mean(-1) / ln_vocab)
    meaning = "mean preservation over the interior layers"
    lines = [result(of, QUESTION, "aupc", meaning, area, unit="1")]
    for layer, found in enumerate(curves.means(of, rank)):
        lines.append(
            result(
                of,
                QUESTION,
                "preservation",
                "1 - mean ln rank_input / ln V",
                _preserved(found, ln_vocab),
                unit="1",
                layer=layer,
            )
        )
    counts = of.tallies["frequency_count"][ledger.MEASURES.index(rank)][:, 0]
    by_bin = 1 - of.by_frequency(rank) / ln_vocab
    for place in np.flatnonzero(counts >= slope.FEWEST_TOKENS):
        for layer in range(of.n_layers):
            value = float(by_bin[place, layer])
            found = resample.missing("by bin, without interval", value, int(counts[place]))
            lines.append(
                result(
                    of,
                    QUESTION,
                    "preservation",
                    "1 - mean ln rank_input / ln V",
                    found,
                    unit="1",
                    layer=layer,
                    stratum=_bin_name(int(place)),
                )
            )
    return lines


def _preserved(found: resample.Estimate, ln_vocab: float) -> resample.Estimate:
    return resample.Estimate(
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
        medians = binned.ln_rank_quantile(counts, RANK_EDGES)
        tokens = counts.sum(-1)
        weight = np.where(tokens >= slope.FEWEST_TOKENS, np.sqrt(tokens), 0.0)
        value = float(slope.weighted_slope(medians, RARITY, weight))
        found = resample.missing("by piece, without interval", value, int(tokens.sum()))
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


def _correlations(of: Inputs) -> list[Result]:
    joint = of.tallies["joint_histogram"]
    surprisal, mirror = correlation.partial_spearman(joint)
    effect, n = curves.design_effect(of), int(joint[0].sum())
    lines = []
    for name, given, rho in (
        ("surprisal", "rarity", surprisal),
        ("rarity", "surprisal", mirror),
    ):
        for layer in range(of.n_layers):
            found = correlation.interval(float(rho[layer]), n, 1, effect)
            lines.append(
                result(
                    of,
                    QUESTION,
                    f"partial_spearman_{name}",
                    f"partial rank correlation of ln rank_input with {name} given {given}",
                    found,
                    unit="1",
                    layer=layer,
                    smallest=multiplicity.SMALLEST["rho"],
                    tested=True,
                    note="interval widened by the design effect",
                )
            )
    return lines


def _between_types(of: Inputs) -> list[Result]:
    counts = of.tallies["type_count"]
    sums, squared = (of.tallies[f"type_{what}"] / binning.ONE for what in ("sum", "square"))
    meaning = "share of the variance of ln rank_input between types; the interval is over types"
    return [
        result(of, QUESTION, "omega_squared", meaning, found, unit="1", layer=layer)
        for layer, found in enumerate(variance.omega_squared(counts, sums, squared))
    ]


def _within_types(of: Inputs) -> list[Result]:
    sums = [_within_sums(of, layer) for layer in range(of.n_layers)]
    lines = []
    for layer in range(of.n_layers):
        sample = _sample(of, layer)
        found = within.slope(sums[layer], sample, WITHIN, "surprisal")
        primary = of.kind == "trained" and layer == of.middle
        lines.append(
            result(
                of,
                QUESTION,
                "within_type_surprisal",
                "slope of ln rank_input on surprisal within types, position, recency, piece and "
                "final log-probability held; not 0: preservation is contextual",
                found,
                unit="nat per nat",
                layer=layer,
                smallest=_smallest_within(of),
                tested=True,
                primary=primary,
            )
        )
    return lines


def _smallest_within(of: Inputs) -> float:
    """Slope by which a standard deviation of surprisal moves preservation by 0.02."""
    sums = of.tallies["covariate_product"].sum(0) / binning.ONE
    constant, place = (ledger.COVARIATES.index(name) for name in ("constant", "surprisal"))
    n = max(float(sums[constant, constant]), 1.0)
    mean = sums[constant, place] / n
    spread = math.sqrt(max(sums[place, place] / n - mean * mean, 1e-12))
    return multiplicity.SMALLEST["preservation"] * math.log(of.vocab_size) / spread


def _within_sums(of: Inputs, layer: int) -> within.Sums:
    places = [ledger.COVARIATES.index(name) for name in WITHIN]
    products = of.tallies["covariate_product"].sum(0) / binning.ONE
    return within.Sums(
        xtx=products[np.ix_(places, places)],
        xty=of.tallies["covariate_outcome"].sum(0)[places, layer] / binning.ONE,
        yty=float(of.tallies["outcome_square"][:, layer].sum() / binning.ONE),
        type_counts=of.tallies["type_count"],
        type_x=of.tallies["type_covariate"][:, places] / binning.ONE,
        type_y=of.tallies["type_sum"][:, layer] / binning.ONE,
    )


def _sample(of: Inputs, layer: int) -> within.Sample:
    """The reservoir as the columns of the regression."""
    lines = of.tallies["reservoir"]
    lines = lines[lines[:, 0] != ledger.NO_KEY]
    names = ledger.fields(of.n_layers)
    column = {name: lines[:, place] for place, name in enumerate(names)}
    piece = column["piece"]
    x = {
        "surprisal": column["surprisal"] / binning.ONE,
        "ln_position": np.log1p(column["position"]),
        "later_occurrence": column["prev_count"] > 0,
        "ln_distance": np.log(np.maximum(column["prev_distance"], 1)),
        "ln_count": np.log1p(column["prev_count"]),
        "first_piece": piece == 1,
        "middle_piece": piece == 2,
        "last_piece": piece == 3,
        "logp_input_last": column["logp_input_last"] / binning.ONE,
    }
    return within.Sample(
        types=column["token"],
        clusters=column["document"],
        x=np.stack([x[name].astype(np.float64) for name in WITHIN], axis=1),
        y=np.log(np.maximum(column[f"rank_input.{layer}"], 1)),
    )


def _pooled(of: Inputs) -> list[Result]:
    """One regression over all tokens at mid depth, clustered by groups of documents."""
    names = ledger.COVARIATES
    found = regression.clustered(
        of.tallies["covariate_product"] / binning.ONE,
        of.tallies["covariate_outcome"][..., of.middle] / binning.ONE,
        of.group_rows,
        names,
    )
    return [
        result(
            of,
            QUESTION,
            f"pooled_{name}",
            f"slope of ln rank_input on {name}, all others held, over all types",
            squares.coefficient(found, name),
            unit="nat per unit",
            layer=of.middle,
            tested=True,
        )
        for name in names
        if name != "constant"
    ]


def _survival(of: Inputs) -> list[Result]:
    """Layers until half of the preservation is gone, and until the first ranks are left."""
    lines = []
    effect = curves.design_effect(of)
    kinds = {"half_life": of.tallies["half_life"]}
    for place, cut in enumerate(ledger.EXIT_CUTS):
        kinds[f"exit_from_{cut}"] = of.tallies["first_exit"][place]
    for name, counts in kinds.items():
        for stratum, bins in _thirds(counts.sum(1)).items():
            events = counts[bins].sum(0)
            never = np.zeros(of.n_layers, np.int64)
            never[-1] = events[-1]
            found = survival.kaplan_meier(events[:-1], never, of.depths, design_effect=effect)
            median = resample.Estimate(
                found.median,
                found.median_low,
                found.median_high,
                math.nan,
                found.n,
                0,
                "" if math.isfinite(found.median) else "less than half by the last layer",
            )
            what = (
                "P is half of what it was" if name == "half_life" else f"rank {name[10:]} is left"
            )
            meaning = f"depth at which for half of the tokens {what}; Kaplan-Meier"
            lines.append(result(of, QUESTION, name, meaning, median, unit="depth", stratum=stratum))
            for layer in range(of.n_layers):
                share = resample.Estimate(
                    float(found.survival[layer]),
                    float(found.low[layer]),
                    float(found.high[layer]),
                    float(found.se[layer]),
                    found.n,
                    0,
                )
                lines.append(
                    result(
                        of,
                        QUESTION,
                        f"{name}_survival",
                        f"share of tokens for which not yet {what}",
                        share,
                        unit="1",
                        layer=layer,
                        stratum=stratum,
                        note="interval widened by the design effect",
                    )
                )
    return lines


def _thirds(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of rarity in three strata of as equal numbers of tokens as bins allow."""
    reached = (np.cumsum(tokens) - tokens / 2) / max(tokens.sum(), 1)
    third = np.minimum((3 * reached).astype(int), 2)
    names = ("frequent third", "middle third", "rare third")
    return {name: np.flatnonzero(third == i) for i, name in enumerate(names) if (third == i).any()}
