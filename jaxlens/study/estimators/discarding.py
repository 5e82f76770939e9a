"""Estimators of Q1, discarding."""

from __future__ import annotations

from jaxlens.study.estimators.definition import (
    BOOTSTRAP,
    NONE,
    ON_DEMAND,
    RECORDED,
    ROBUST,
    Group,
    Table,
    measures,
)
from jaxlens.tally import axes

_JUMPS = measures(*axes.JUMPS)
_QUANTILE = "quantile over positions"

TABLE: Table = {
    Group("Q1", "nat", BOOTSTRAP): {"mean_ln_rank_input": f"mean {RECORDED['rank_input']}"},
    Group(
        "Q1", "nat", BOOTSTRAP, measures("kl_final_matched", "kl_input", "logp_input", *ON_DEMAND)
    ): {"mean_{measure}": "mean {what}"},
    Group("Q1", "nat", NONE, measures("kl_final_matched", "kl_input", *ON_DEMAND)): {
        "quantile_{measure}": _QUANTILE,
    },
    Group("Q1", "1", BOOTSTRAP, measures(*RECORDED, *ON_DEMAND)): {
        "jump_share_{measure}": "share of the first block in all steps of the mean {what}; 1/L if "
        "even",
        "jump_ratio_{measure}": "first step of the mean {what} over the median of the later ones",
    },
    Group("Q1", "1", NONE, _JUMPS): {
        "token_jump_share_{measure}": "median over tokens of the first block's share in the steps "
        "of {what}",
    },
    Group("Q1", "1", BOOTSTRAP): {
        "share_nearer_output": "share of positions nearer the last layer than the input layer, in "
        "KL",
        "mean_norm": "mean norm of the residual",
        "mean_retention": "mean projection on the token's own centred embedding, 1 at the "
        "embedding",
        "mean_retention_foreign": "mean projection on the centred embedding of a token of another "
        "document, which is that of the mean residual",
        "retention_beyond_mean": "mean projection on the own centred embedding less that on "
        "another token's: what is left of the token where the mean residual is removed",
    },
    Group("Q1", "nat", BOOTSTRAP): {
        "unigram_kl_final": "mean KL(last layer || frequencies of the corpus), if the last layer "
        "is calibrated",
        "mean_stream_kl_final": "mean KL(last layer || the lens of the mean stream of this layer, "
        "at its matched temperature), if the last layer is calibrated",
    },
    Group("Q1", "1", BOOTSTRAP): {
        "unigram_share": "share of the first step of the mean kl_final_matched that frequencies of "
        "the corpus alone would make",
        "mean_stream_share": "share of the first step of the mean kl_final_matched that the mean "
        "stream after the first block alone would make",
        "jump_share_beyond_mean_stream": "share of the first block in all steps of the mean "
        "kl_final_matched, beyond what the mean stream after it makes",
        "jump_share_beyond_unigram": "share of the first block in all steps of the mean "
        "kl_final_matched, beyond what frequencies of the corpus make",
    },
    Group("Q1", "nat", ROBUST, measures("kl_input", "kl_final"), tested=True): {
        "two_lines_first_{measure}": "slope of the mean {what} on depth, first of two lines inside",
        "two_lines_second_{measure}": "slope of the mean {what} on depth, second of two lines "
        "inside",
    },
    Group("Q1", "1", NONE, _JUMPS): {
        "monotone_share_{measure}": "share of the steps of the mean {what} that {move}",
    },
    Group("Q1", "1", BOOTSTRAP, _JUMPS): {
        "falling_{measure}": "share of positions whose {what} falls at this layer",
    },
    Group("Q1", "1", NONE): {
        "median_rank_input": "median rank of the input token",
        "dilution_rank": "median rank that growth of the norm alone explains",
        "retained_rank": "median rank that norm and retention explain",
    },
}
