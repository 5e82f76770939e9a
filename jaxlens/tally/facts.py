"""Rows as integers, from which the rules of the study's tallies start.

All is integer arithmetic on values that were rounded once (see ``bins``), so a device and a reader
of the stored rows start from the same numbers. ``xp`` is ``jax.numpy`` or ``numpy``; this module
imports neither JAX nor a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlens import schema
from jaxlens.tally import axes, bins, regressors, type_means


class Tables(NamedTuple):
    """Integer functions of integers; all but the first two are needed by the study alone."""

    ln_rank: Any  # fixed-point ln, by rank from 0 to the vocabulary size
    ln_rank_bin: Any  # bin of `bins.LN_RANK_EDGES`, by rank
    ln: Any = None  # fixed-point ln, by integer to `bins.MAX_LN`
    rarity: Any = None  # fixed-point rarity, [fold, vocab]
    log_edges: Any = None  # `bins.LOG_EDGES`
    type_rarity: Any = None  # fixed-point rarity by all counts, [vocab]
    type_weight: Any = None  # fixed-point weight of a token, [weighting, vocab]
    type_means: Any = None  # `type_means.TypeMeans`, of the third edition


def tables(
    vocab_size: int, counts: np.ndarray | None = None, means: type_means.TypeMeans | None = None
) -> Tables:
    """NumPy tables of a vocabulary.

    Args:
        vocab_size: Its size.
        counts: Of the corpus, ``[fold, vocab]``; for the study alone.
        means: Of token types; for the third edition of its tallies alone.
    """
    ranks = bins.ln_table(vocab_size), bins.ln_rank_bins(vocab_size)
    if counts is None:
        return Tables(*ranks)
    rarity = bins.rarity_table(counts)
    types = bins.type_rarity_table(counts), regressors.type_weights(counts)
    return Tables(*ranks, bins.ln_table(bins.MAX_LN), rarity, bins.LOG_EDGES, *types, means)


class Facts(NamedTuple):
    """Rows as integers; ``[row]`` or ``[row, layer]``, tokens absent as -1."""

    xp: Any
    values: Mapping[str, Any]  # quantities as they were computed, and the columns
    valid: Any  # whether the row counts
    layers: Any  # [1, layer]
    ln: Mapping[str, Any]  # fixed-point ln rank by reference
    rank_bin: Mapping[str, Any]
    present: Mapping[str, Any]  # whether the reference exists and the row counts
    frequency: Mapping[str, Any]  # bin of rarity by reference
    rarity: Mapping[str, Any]
    fine_frequency: Any
    fine_surprisal: Any
    stratum: Any
    group: Any
    covariates: Any  # [row, covariate], of the first edition
    regressors: Any  # [row, regressor], of the second
    tables: Tables


def fixed(value: Any, xp: Any) -> Any:
    """Floats in units of 2**-16, int32; missing ones become 0."""
    return _rounded(value, bins.FIXED_POINT_LIMIT, xp).astype(xp.int32)


def fixed_of_stream(value: Any, xp: Any) -> Any:
    """`fixed` of norms and projections of the residual stream, int64."""
    return _rounded(value, bins.STREAM_LIMIT, xp).astype(xp.int64)


def _rounded(value: Any, limit: float, xp: Any) -> Any:
    # A product with a power of two is exact in float32, and 2**14 * 2**16 fits int32.
    bound = np.float32(limit)
    clipped = xp.clip(xp.nan_to_num(value, posinf=bound, neginf=-bound), -bound, bound)
    return xp.rint(clipped * np.float32(bins.ONE))


def product(one: Any, other: Any, xp: Any) -> Any:
    """Product of fixed-point numbers in fixed point, int64, rounded half up."""
    wide = one.astype(xp.int64) * other.astype(xp.int64)
    return (wide + bins.ONE // 2) >> bins.FIXED_POINT_BITS


def of_rows(values: Mapping[str, Any], real: Any, lookup: Tables, xp: Any) -> Facts:
    """The integers from which all rules start.

    Args:
        values: Quantities by name, float32 and int32, ``[row, layer]`` or ``[row]``, the columns of
            the corpus among them; ``final_token`` is the model's own top-1, ``group`` and ``key``
            are those of ``bins``.
        real: Which rows are not padding.
        lookup: `tables`.
        xp: ``numpy`` or ``jax.numpy``.
    """
    ranks = {name: values[f"rank_{name}"] for name in schema.REFERENCES}
    n_layers = ranks["input"].shape[1]
    surprisal = values["surprisal"]
    valid = real & (values["position"] > 0) & ~xp.isnan(surprisal)
    rarity = _rarity(values, lookup, xp)
    ln = {name: lookup.ln_rank[rank] for name, rank in ranks.items()}
    explained = {"rarity": rarity["input"], "surprisal": fixed(surprisal, xp)}
    explained["embedding_norm"] = fixed(values["embedding_norm"], xp)
    return Facts(
        xp=xp,
        values=values,
        valid=valid,
        layers=xp.arange(n_layers, dtype=xp.int32)[None],
        ln=ln,
        rank_bin={name: lookup.ln_rank_bin[rank] >> 1 for name, rank in ranks.items()},
        present={name: (rank > 0) & valid[:, None] for name, rank in ranks.items()},
        frequency={
            name: bin_of(value >> bins.FIXED_POINT_BITS, bins.FREQUENCY_BINS, xp)
            for name, value in rarity.items()
        },
        rarity=rarity,
        fine_frequency=_fine(rarity["input"], xp),
        fine_surprisal=_fine(fixed(surprisal, xp), xp),
        stratum=_piece(values, xp) + 4 * _later(values, xp),
        group=values["group"],
        covariates=_covariates(values, rarity["input"], lookup, xp),
        regressors=regressors.of_rows(values, _piece(values, xp), explained, lookup.ln, xp),
        tables=lookup,
    )


def bin_of(value: Any, count: int, xp: Any) -> Any:
    """The number of a bin, int32, clipped to the first and the last of ``count``."""
    return xp.clip(value, 0, count - 1).astype(xp.int32)


def _fine(value: Any, xp: Any) -> Any:
    """Bin of half a nat."""
    return bin_of(value >> (bins.FIXED_POINT_BITS - 1), bins.FINE_BINS, xp)


def _rarity(values: Mapping[str, Any], lookup: Tables, xp: Any) -> dict[str, Any]:
    """Rarity of each reference token, by the counts of the documents that are not in its fold."""
    tokens = {
        "input": values["token"],
        "next": values["next_token"],
        "final": values["final_token"],
        "foreign": values["foreign_token"],
        "copy": values["copy_token"],
    }
    fold = {"foreign": xp.minimum(values["foreign_fold"], 1)}
    return {
        name: lookup.rarity[fold.get(name, values["fold"]), xp.maximum(token, 0)]
        for name, token in tokens.items()
    }


def _piece(values: Mapping[str, Any], xp: Any) -> Any:
    piece = values["piece"]
    return xp.where(piece == schema.PIECE_UNKNOWN, schema.PIECE_WHOLE, piece).astype(xp.int32)


def _later(values: Mapping[str, Any], xp: Any) -> Any:
    return (values["prev_count"] > 0).astype(xp.int32)


def _covariates(values: Mapping[str, Any], rarity: Any, lookup: Tables, xp: Any) -> Any:
    piece = _piece(values, xp)
    columns = {
        "constant": xp.ones_like(piece) * bins.ONE,
        "rarity": rarity,
        "surprisal": fixed(values["surprisal"], xp),
        "ln_position": lookup.ln[values["position"] + 1],
        "later_occurrence": _later(values, xp) * bins.ONE,
        "ln_distance": lookup.ln[values["prev_distance"]],
        "ln_count": lookup.ln[values["prev_count"] + 1],
        "first_piece": (piece == schema.PIECE_FIRST).astype(xp.int32) * bins.ONE,
        "middle_piece": (piece == schema.PIECE_MIDDLE).astype(xp.int32) * bins.ONE,
        "last_piece": (piece == schema.PIECE_LAST).astype(xp.int32) * bins.ONE,
        "embedding_norm": fixed(values["embedding_norm"], xp),
        "logp_input_last": fixed(values["logp_input"][:, -1], xp),
    }
    return xp.stack([columns[name] for name in axes.COVARIATES], axis=-1)
