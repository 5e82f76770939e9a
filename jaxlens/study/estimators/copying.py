"""Estimators of Q3, copying."""

from __future__ import annotations

from jaxlens.study.estimators.definition import (
    BOOTSTRAP,
    COPY_COVARIATES,
    NONE,
    PAIRED,
    RETRIEVAL_RANKS,
    RETRIEVED,
    WITHIN,
    Group,
    Table,
    ranks_of,
)

_HELD = "position, room, recency and piece held"
_ON_THE_WAY = f"is within rank {RETRIEVED} from here to the last layer"
_IN_THE_END = f"are within the first {RETRIEVED} at the last layer"
_DEPTHS = "of the depths of copies and matched controls; positive: copies later"

TABLE: Table = {
    Group("Q3", "depth", PAIRED, ranks_of(RETRIEVAL_RANKS), tested=True): {
        "retrieval_depth_{rank}": "depth from which the next token stays within rank {rank}: "
        "copies minus matched controls; positive: copies are retrieved later",
        "retrieval_depth_adjusted_{rank}": "depth from which the next token stays within rank "
        "{rank}: copies minus matched controls at equal covariates, by regression",
    },
    Group("Q3", "1", NONE, [{"covariate": name} for name in COPY_COVARIATES]): {
        "balance_{covariate}": "mean {covariate} of copies minus that of controls, over the "
        "copies' standard deviation",
    },
    Group("Q3", "depth", NONE, ranks_of(RETRIEVAL_RANKS)): {
        "mean_retrieval_depth_{rank}": "mean depth from which the next token stays within rank "
        "{rank}",
    },
    Group("Q3", "1", PAIRED, tested=True): {"cliff_delta": f"Cliff's delta {_DEPTHS}"},
    Group("Q3", "depth", NONE): {"hodges_lehmann": f"Hodges-Lehmann shift {_DEPTHS}"},
    Group("Q3", "nat", PAIRED, tested=True): {
        "scramble_recover": "prominence of ln rank of the next token along depth: copies minus "
        "matched controls",
    },
    Group("Q3", "nat", NONE): {
        "mean_prominence": "mean prominence of ln rank of the next token; 0 where it only falls",
    },
    Group("Q3", "1", PAIRED): {
        f"retrieved_within_{RETRIEVED}": f"share whose next token {_ON_THE_WAY}",
    },
    Group("Q3", "1", BOOTSTRAP): {
        f"twins_retrieved_{RETRIEVED}": f"share of copies that {_IN_THE_END}",
        f"twins_control_{RETRIEVED}": f"share of controls that {_IN_THE_END}",
    },
    Group("Q3", "nat", PAIRED): {"matched_ln_rank_next": "mean ln rank of the next token"},
    Group("Q3", "nat", BOOTSTRAP): {
        "twins_mean_ln_rank_copy": "mean ln rank of the token to come, copy",
        "twins_mean_ln_rank_control": "mean ln rank of the token to come, control",
    },
    Group("Q3", "1", NONE): {
        f"copy_within_{RETRIEVED}": f"share whose copy candidate {_ON_THE_WAY}",
        "copied_share": "share of the positions that their context copies later",
    },
    Group("Q3", "1 per nat", WITHIN, tested=True): {
        "copied_within_type": "slope of the probability of being copied later on ln rank_input "
        f"within types, surprisal, {_HELD}; negative: what is kept is copied more often",
    },
    Group("Q3", "depth", BOOTSTRAP): {
        f"twins_depth_{RETRIEVED}": "depth from which those copies stay within the first "
        f"{RETRIEVED}",
    },
    Group("Q3", "depth", BOOTSTRAP, tested=True): {
        f"twins_depth_difference_{RETRIEVED}": f"depth from which the token to come stays within "
        f"the first {RETRIEVED}, copy minus control; one layer beyond the last where it never does",
    },
    Group("Q3", "nat", BOOTSTRAP, tested=True): {
        "twins_gain": "ln rank of the control minus that of the copy, at the last layer",
        "twins_prominence": "prominence of ln rank along depth, copy minus control",
    },
}
