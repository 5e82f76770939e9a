"""Estimators of Q2, rarity."""

from __future__ import annotations

from jaxlens.study.estimators.definition import (
    BOOTSTRAP,
    CROSSING,
    HELD,
    NONE,
    ROBUST,
    TWO_WAY,
    TYPES,
    WILSON,
    WITHIN,
    Group,
    Table,
    ranks_of,
)
from jaxlens.tally import axes

_EXITS = ranks_of(axes.EXIT_CUTS)
_COVARIATES = [
    {"covariate": name} for name in HELD if name != "constant" and not name.startswith("position_")
]
_GIVEN = (
    {"covariate": "surprisal", "other": "rarity"},
    {"covariate": "rarity", "other": "surprisal"},
)
_HALF = "depth at which for half of the positions"
_CROSSED = "with crossed random effects of token types and documents, of sampled positions"
_HELD = "position, recency and piece held"

TABLE: Table = {
    Group("Q2", "nat per nat", TWO_WAY, tested=True): {
        "excess_slope_same_type": "slope on rarity, over token types, of the mean ln rank that a "
        "type has elsewhere less the one that it has where it was read; positive: rarer tokens are "
        "kept more",
        "crossed_rarity": f"slope of the excess preservation on rarity at the mean rarity of the "
        f"corpus, {_CROSSED}; positive: rarer tokens are kept more",
    },
    Group("Q2", "nat per squared nat", TWO_WAY, tested=True): {
        "crossed_rarity_squared": f"coefficient of squared rarity in the excess preservation, "
        f"{_CROSSED}; positive: the slope on rarity rises with it",
    },
    Group("Q2", "nat per nat", BOOTSTRAP, tested=True): {
        "excess_slope": "slope of the excess preservation of medians on rarity; positive: rarer "
        "tokens are preserved more",
        "excess_slope_of_means": "slope of the excess preservation of means on rarity",
    },
    Group("Q2", "nat", BOOTSTRAP): {
        "excess_preservation": "mean ln rank of tokens of other documents minus that of the own "
        "tokens",
        "fan_input": "mean ln rank of the own token, by the rarity of that token",
        "fan_foreign": "mean ln rank of a token of another document, by the rarity of that token",
    },
    Group("Q2", "1", BOOTSTRAP): {
        "aupc": "mean preservation over the interior layers",
        "preservation": "1 - mean ln rank_input / ln V",
    },
    Group("Q2", "nat per nat", NONE): {
        "median_slope": "slope of the median ln rank of the own token on rarity, chance not "
        "subtracted",
    },
    Group("Q2", "1", NONE, _GIVEN): {
        "partial_spearman_{covariate}": "partial rank correlation of ln rank_input with "
        "{covariate} given {other}",
    },
    Group("Q2", "1", BOOTSTRAP, _GIVEN, tested=True): {
        "partial_correlation_{covariate}": "partial correlation of ln rank_input with {covariate} "
        "given {other}",
    },
    Group("Q2", "1", TYPES): {
        "omega_squared": "share of the variance of ln rank_input between types; the interval is "
        "over types",
    },
    Group("Q2", "nat per nat", WITHIN, tested=True): {
        "within_type_surprisal": f"slope of ln rank_input on surprisal within types, {_HELD}; not "
        "0: preservation is contextual",
    },
    Group("Q2", "nat per unit", ROBUST, _COVARIATES, tested=True): {
        "pooled_{covariate}": "slope of ln rank_input on {covariate}, all others held, over all "
        "types",
    },
    Group("Q2", "depth", CROSSING): {
        "half_life_median": f"{_HALF} preservation is half of what it was; Kaplan-Meier",
    },
    Group("Q2", "1", WILSON): {
        "half_life_survival": "share of positions for which not yet preservation is half of what "
        "it was",
    },
    Group("Q2", "depth", CROSSING, _EXITS): {
        "exit_from_{rank}_median": f"{_HALF} the input is out of the first {{rank}}; Kaplan-Meier",
    },
    Group("Q2", "1", WILSON, _EXITS): {
        "exit_from_{rank}_survival": "share of positions for which not yet the input is out of the "
        "first {rank}",
    },
}
