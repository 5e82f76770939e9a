"""Every estimator of the study: its name, question, meaning, unit, and kind of interval.

What ``schema`` is for columns this is for the lines of the study's table: questions refer to
estimators by name. ``ESTIMATORS`` has all of them, and ``FAMILIES`` their definitions, with
placeholders where one definition serves several measures or ranks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxlens.study import ablation_estimators
from jaxlens.tally import axes

BOOTSTRAP = "bootstrap over groups of documents"
WIDENED = "of independent positions, widened by the design effect"
CROSSING = "where the interval of the share crosses one half"
ROBUST = "cluster-robust, by groups of documents"
SAMPLED = "cluster-robust, from sampled rows"
PAIRED = "jackknife over the documents of matched pairs"
TYPES = "jackknife over token types"
CLUSTERED = ablation_estimators.CLUSTERED
NONE = "none"

HELD = tuple(name for name in axes.COVARIATES if name != "logp_input_last")
"""What regressions hold: not the covariate that follows from the outcome in late layers."""
_FINAL = ("logp_next_last", "entropy_last")
COPY_COVARIATES = ("rarity_next", "surprisal", *_FINAL, "ln_position", "ln_distance", "ln_count")
"""What copies and their controls should have alike."""

RETRIEVED = 10
"""Rank within which a token counts as retrieved; 1 and 5 are secondary."""
RETRIEVAL_RANKS = (1, 5, RETRIEVED)

RECORDED = {
    "kl_final": "KL(last layer || this layer)",
    "kl_final_matched": "KL(last layer || this layer at its matched temperature)",
    "kl_input": "KL(input layer || this layer)",
    "logp_input": "log-probability of the input token",
    "rank_input": "ln rank of the input token",
}
"""Measures whose mean curves are described, and what each is."""
ON_DEMAND = {
    "js_final": "Jensen-Shannon divergence of this layer from the last",
    "js_input": "Jensen-Shannon divergence of this layer from the input layer",
}
"""Further ones, for runs that record them."""
FALLING = ("kl_final", "kl_final_matched", "logp_input")
"""Measures of which the steps that fall are counted; of the others those that rise are."""


@dataclass(frozen=True)
class Estimator:
    """What is estimated, and how.

    Attributes:
        name: As in the table; of a family with placeholders such as ``{measure}``.
        question: ``Q0`` to ``Q3``.
        meaning: One sentence.
        unit: Unit of the estimate.
        interval: Kind of its interval; ``none`` where it never has one.
        tested: Whether 0 is a hypothesis; of a difference from null runs it always is.
    """

    name: str
    question: str
    meaning: str
    unit: str
    interval: str
    tested: bool = False

    @property
    def contrast(self) -> str:
        """Meaning of its difference from null runs."""
        return f"{self.meaning.partition('; ')[0]}, trained minus null"


Members = Sequence[Mapping[str, object]]
"""Values of the placeholders of a family, for each of its estimators."""


@dataclass(frozen=True, eq=False)
class _Group:
    """What the families of a group share; see `Estimator`."""

    question: str
    unit: str
    interval: str
    members: Members = ({},)
    tested: bool = False


def _ranks(ranks: Sequence[int]) -> Members:
    return [{"rank": rank} for rank in ranks]


def _measures(*names: str) -> Members:
    what, direction = RECORDED | ON_DEMAND, {True: "fall", False: "rise"}
    return [{"measure": n, "what": what[n], "move": direction[n in FALLING]} for n in names]


_JUMPS = _measures(*axes.JUMPS)
_SETTLING, _EXITS = _ranks(axes.RETRIEVAL_CUTS), _ranks(axes.EXIT_CUTS)
_COVARIATES = [{"covariate": name} for name in HELD if name != "constant"]
_GIVEN = (
    {"covariate": "surprisal", "other": "rarity"},
    {"covariate": "rarity", "other": "surprisal"},
)

_QUANTILE = "quantile over positions"
_HALF = "depth at which for half of the positions"
_HELD = "position, recency and piece held"
_ON_THE_WAY = f"is within rank {RETRIEVED} from here to the last layer"
_IN_THE_END = f"are within the first {RETRIEVED} at the last layer"
_DEPTHS = "of the depths of copies and matched controls; positive: copies later"

_TABLE: Mapping[_Group, Mapping[str, str]] = {
    _Group("Q0", "nat", BOOTSTRAP): {
        "mean_entropy": "mean entropy of a layer's prediction",
        "mean_kl_final": f"mean {RECORDED['kl_final']}",
        "mean_ln_rank_final": "mean ln rank of the model's own top-1",
        "mean_ln_rank_next": "mean ln rank of the true next token",
    },
    _Group("Q0", "1", NONE): {"quantile_rank_final": _QUANTILE},
    _Group("Q0", "nat", NONE): {"quantile_entropy": _QUANTILE, "quantile_kl_final": _QUANTILE},
    _Group("Q0", "depth", CROSSING, _SETTLING): {
        "settled_within_{rank}_median": f"{_HALF} the final top-1 is within the first {{rank}} for "
        "good; Kaplan-Meier",
    },
    _Group("Q0", "1", WIDENED, _SETTLING): {
        "settled_within_{rank}_share": "share of positions for which the final top-1 is within the "
        "first {rank} for good",
    },
    _Group("Q1", "nat", BOOTSTRAP): {"mean_ln_rank_input": f"mean {RECORDED['rank_input']}"},
    _Group(
        "Q1", "nat", BOOTSTRAP, _measures("kl_final_matched", "kl_input", "logp_input", *ON_DEMAND)
    ): {"mean_{measure}": "mean {what}"},
    _Group("Q1", "nat", NONE, _measures("kl_final_matched", "kl_input", *ON_DEMAND)): {
        "quantile_{measure}": _QUANTILE,
    },
    _Group("Q1", "1", BOOTSTRAP, _measures(*RECORDED, *ON_DEMAND)): {
        "jump_share_{measure}": "share of the first block in all steps of the mean {what}; 1/L if "
        "even",
        "jump_ratio_{measure}": "first step of the mean {what} over the median of the later ones",
    },
    _Group("Q1", "1", NONE, _JUMPS): {
        "token_jump_share_{measure}": "median over tokens of the first block's share in the steps "
        "of {what}",
    },
    _Group("Q1", "1", BOOTSTRAP): {
        "share_nearer_output": "share of positions nearer the last layer than the input layer, in "
        "KL",
        "mean_norm": "mean norm of the residual",
        "mean_retention": "mean projection on the token's own centred embedding, 1 at the "
        "embedding",
    },
    _Group("Q1", "nat", ROBUST, _measures("kl_input", "kl_final"), tested=True): {
        "two_lines_first_{measure}": "slope of the mean {what} on depth, first of two lines inside",
        "two_lines_second_{measure}": "slope of the mean {what} on depth, second of two lines "
        "inside",
    },
    _Group("Q1", "1", BOOTSTRAP, _JUMPS): {
        "monotone_share_{measure}": "share of the steps of the mean {what} that {move}",
        "falling_{measure}": "share of positions whose {what} falls at this layer",
    },
    _Group("Q1", "1", NONE): {
        "median_rank_input": "median rank of the input token",
        "dilution_rank": "median rank that growth of the norm alone explains",
        "retained_rank": "median rank that norm and retention explain",
    },
    _Group("Q2", "nat per nat", BOOTSTRAP, tested=True): {
        "excess_slope": "slope of the excess preservation of medians on rarity; positive: rarer "
        "tokens are preserved more",
        "excess_slope_of_means": "slope of the excess preservation of means on rarity",
    },
    _Group("Q2", "nat", BOOTSTRAP): {
        "excess_preservation": "mean ln rank of tokens of other documents minus that of the own "
        "tokens",
        "fan_input": "mean ln rank of the own token, by the rarity of that token",
        "fan_foreign": "mean ln rank of a token of another document, by the rarity of that token",
    },
    _Group("Q2", "1", BOOTSTRAP): {
        "aupc": "mean preservation over the interior layers",
        "preservation": "1 - mean ln rank_input / ln V",
    },
    _Group("Q2", "nat per nat", NONE): {
        "median_slope": "slope of the median ln rank of the own token on rarity, chance not "
        "subtracted",
    },
    _Group("Q2", "1", WIDENED, _GIVEN, tested=True): {
        "partial_spearman_{covariate}": "partial rank correlation of ln rank_input with "
        "{covariate} given {other}",
    },
    _Group("Q2", "1", TYPES): {
        "omega_squared": "share of the variance of ln rank_input between types; the interval is "
        "over types",
    },
    _Group("Q2", "nat per nat", SAMPLED, tested=True): {
        "within_type_surprisal": f"slope of ln rank_input on surprisal within types, {_HELD}; not "
        "0: preservation is contextual",
    },
    _Group("Q2", "nat per unit", ROBUST, _COVARIATES, tested=True): {
        "pooled_{covariate}": "slope of ln rank_input on {covariate}, all others held, over all "
        "types",
    },
    _Group("Q2", "depth", CROSSING): {
        "half_life_median": f"{_HALF} preservation is half of what it was; Kaplan-Meier",
    },
    _Group("Q2", "1", WIDENED): {
        "half_life_survival": "share of positions for which not yet preservation is half of what "
        "it was",
    },
    _Group("Q2", "depth", CROSSING, _EXITS): {
        "exit_from_{rank}_median": f"{_HALF} the input is out of the first {{rank}}; Kaplan-Meier",
    },
    _Group("Q2", "1", WIDENED, _EXITS): {
        "exit_from_{rank}_survival": "share of positions for which not yet the input is out of the "
        "first {rank}",
    },
    _Group("Q3", "depth", PAIRED, _ranks(RETRIEVAL_RANKS), tested=True): {
        "retrieval_depth_{rank}": "depth from which the next token stays within rank {rank}: "
        "copies minus matched controls; positive: copies are retrieved later",
        "retrieval_depth_adjusted_{rank}": "depth from which the next token stays within rank "
        "{rank}: copies minus matched controls at equal covariates, by regression",
    },
    _Group("Q3", "1", NONE, [{"covariate": name} for name in COPY_COVARIATES]): {
        "balance_{covariate}": "mean {covariate} of copies minus that of controls, over the "
        "copies' standard deviation",
    },
    _Group("Q3", "depth", NONE, _ranks(RETRIEVAL_RANKS)): {
        "mean_retrieval_depth_{rank}": "mean depth from which the next token stays within rank "
        "{rank}",
    },
    _Group("Q3", "1", PAIRED, tested=True): {"cliff_delta": f"Cliff's delta {_DEPTHS}"},
    _Group("Q3", "depth", NONE): {"hodges_lehmann": f"Hodges-Lehmann shift {_DEPTHS}"},
    _Group("Q3", "nat", PAIRED, tested=True): {
        "scramble_recover": "prominence of ln rank of the next token along depth: copies minus "
        "matched controls",
    },
    _Group("Q3", "nat", NONE): {
        "mean_prominence": "mean prominence of ln rank of the next token; 0 where it only falls",
    },
    _Group("Q3", "1", BOOTSTRAP): {
        f"retrieved_within_{RETRIEVED}": f"share whose next token {_ON_THE_WAY}",
        f"twins_retrieved_{RETRIEVED}": f"share of copies that {_IN_THE_END}",
        f"twins_control_{RETRIEVED}": f"share of controls that {_IN_THE_END}",
    },
    _Group("Q3", "nat", BOOTSTRAP): {
        "matched_ln_rank_next": "mean ln rank of the next token",
        "twins_mean_ln_rank_copy": "mean ln rank of the token to come, copy",
        "twins_mean_ln_rank_control": "mean ln rank of the token to come, control",
    },
    _Group("Q3", "1", NONE): {
        f"copy_within_{RETRIEVED}": f"share whose copy candidate {_ON_THE_WAY}",
        "copied_share": "share of the positions that their context copies later",
    },
    _Group("Q3", "1 per nat", SAMPLED, tested=True): {
        "copied_within_type": "slope of the probability of being copied later on ln rank_input "
        f"within types, surprisal, {_HELD}; negative: what is kept is copied more often",
    },
    _Group("Q3", "depth", BOOTSTRAP): {
        f"twins_depth_{RETRIEVED}": "depth from which those copies stay within the first "
        f"{RETRIEVED}",
    },
    _Group("Q3", "depth", BOOTSTRAP, tested=True): {
        f"twins_depth_difference_{RETRIEVED}": f"depth from which the token to come stays within "
        f"the first {RETRIEVED}, copy minus control; one layer beyond the last where it never does",
    },
    _Group("Q3", "nat", BOOTSTRAP, tested=True): {
        "twins_gain": "ln rank of the control minus that of the copy, at the last layer",
        "twins_prominence": "prominence of ln rank along depth, copy minus control",
    },
}


def _families() -> Iterator[tuple[Estimator, Members]]:
    for group, meanings in _TABLE.items():
        for name, meaning in meanings.items():
            rest = group.unit, group.interval, group.tested
            yield Estimator(name, group.question, meaning, *rest), group.members
    for family in ablation_estimators.FAMILIES:
        yield Estimator(*family[:-1]), family.members


FAMILIES: tuple[tuple[Estimator, Members], ...] = tuple(_families())
"""Definitions, in the order of the questions, with what their placeholders stand for."""


def _members() -> Iterator[Estimator]:
    for family, members in FAMILIES:
        for values in members:
            name, meaning = (text.format(**values) for text in (family.name, family.meaning))
            yield dataclasses.replace(family, name=name, meaning=meaning)


ESTIMATORS = {estimator.name: estimator for estimator in _members()}
"""Every estimator by its name."""
