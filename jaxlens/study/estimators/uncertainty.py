"""Estimators of Q0, uncertainty."""

from __future__ import annotations

from jaxlens.study.estimators.definition import (
    BOOTSTRAP,
    CROSSING,
    NONE,
    RECORDED,
    WILSON,
    Group,
    Table,
    ranks_of,
)
from jaxlens.tally import axes

_SETTLING = ranks_of(axes.RETRIEVAL_CUTS)
_QUANTILE = "quantile over positions"
_HALF = "depth at which for half of the positions"

TABLE: Table = {
    Group("Q0", "nat", BOOTSTRAP): {
        "mean_entropy": "mean entropy of a layer's prediction",
        "mean_kl_final": f"mean {RECORDED['kl_final']}",
        "mean_ln_rank_final": "mean ln rank of the model's own top-1",
        "mean_ln_rank_next": "mean ln rank of the true next token",
    },
    Group("Q0", "1", NONE): {"quantile_rank_final": _QUANTILE},
    Group("Q0", "nat", NONE): {"quantile_entropy": _QUANTILE, "quantile_kl_final": _QUANTILE},
    Group("Q0", "depth", CROSSING, _SETTLING): {
        "settled_within_{rank}_median": f"{_HALF} the final top-1 is within the first {{rank}} for "
        "good; Kaplan-Meier",
    },
    Group("Q0", "1", WILSON, _SETTLING): {
        "settled_within_{rank}_share": "share of positions for which the final top-1 is within the "
        "first {rank} for good",
    },
}
