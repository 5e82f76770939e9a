"""Values that a run can hold: whatever is read is compared with the schema before it is used.

A hash says that a file is the one that its record names, not that its values are valid: whoever
rewrites the record can store anything. The limits are those below, with the sizes of the run in the
place of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors, schema
from jaxlens.tally import bins, definitions, sampling

LIMITS: dict[str, str | int] = {
    "document": "documents",
    "offset": "tokens",
    "position": "positions",
    "prev_distance": "positions",
    "prev_count": "positions",
    "match_length": 256,
    "copied": 2,
    "piece": 4,
    "fold": 2,
    "foreign_fold": 2,
}
"""What every value of a column is below: a number, or a size of the run."""

UNKNOWN: dict[str, int] = {"piece": 255, "foreign_fold": 255}
"""Values of columns that stand for none."""

ALWAYS = ("token",)
"""Ids that every row has."""

NON_NEGATIVE = ("norm", "embedding_norm")
"""Floats that cannot be negative; a divergence near 0 may be, by rounding."""

UNSTATED = 2**62
"""A size that the spec does not state."""

_HINT = "its values are not what jaxlens writes: restore it from a copy, or compute the run again"

SIGNED = (
    "sum",
    "type_covariate",
    "covariate_product",
    "covariate_outcome",
    "copied_covariate",
    "foreign_retention_sum",
    "group_sum",
    "frequency_sum",
    "within_product",
    "within_outcome",
)
"""Sums that can be negative; no other tally can."""

_SAMPLED: dict[str, str | int] = {"group": bins.GROUPS, "key": sampling.NO_KEY}
"""Fields of sampled rows that are not columns of the schema."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run, which bound its values; 2**62 where its spec does not say.

    Attributes:
        vocab: Tokens of the vocabulary.
        positions: Of the model.
        documents: Of the corpus.
        tokens: Of the corpus.
        layers: Residual streams.
        counted: Tokens that totals are of.
    """

    vocab: int = UNSTATED
    positions: int = UNSTATED
    documents: int = UNSTATED
    tokens: int = UNSTATED
    layers: int = UNSTATED
    counted: int = UNSTATED


def sizes(spec: Mapping[str, Any], counted: int = UNSTATED) -> Sizes:
    """The sizes that a spec states.

    Args:
        spec: Of the run.
        counted: Tokens that totals are of.
    """
    model, corpus = (spec.get(part) for part in ("model", "corpus"))
    shape = model.get("architecture") if isinstance(model, Mapping) else None
    return Sizes(
        vocab=_count(shape, "vocab_size"),
        positions=_count(shape, "n_positions"),
        documents=_count(corpus, "n_documents"),
        tokens=_count(corpus, "n_tokens"),
        layers=_count(shape, "n_layer") + 1,
        counted=counted,
    )


def check_rows(path: Path, name: str, block: np.ndarray, of: Sizes) -> None:
    """Compares stored values of a quantity with its limits.

    Args:
        path: File, for the message.
        name: Quantity.
        block: As stored.
        of: Sizes of the run.

    Raises:
        DataError: A value is beyond them; names file, quantity and value.
    """
    quantity = schema.QUANTITIES[name]
    if quantity.kind == "float":
        if name in NON_NEGATIVE and (wrong := block[block < 0]).size:
            raise _impossible(path, name, wrong[0], "no negative ones")
        return
    limit = _limit(name, of)
    wrong = block >= limit
    if not wrong.any():
        return
    none = UNKNOWN.get(name)
    if quantity.kind == "id" and name not in ALWAYS:
        none = np.iinfo(block.dtype).max
    if none is not None:
        wrong &= block != none
    if wrong.any():
        raise _impossible(path, name, block[wrong][0], f"numbers below {limit:,}")


def check_tally(path: str | Path, name: str, block: np.ndarray, of: Sizes) -> None:
    """Compares totals with what that many tokens can add up to.

    Args:
        path: File, for the message.
        name: Tally.
        block: Some of its lines.
        of: Sizes of the run, and of what was counted.

    Raises:
        DataError: A total is beyond them; names file, tally and value.
    """
    tally, name = definitions.BY_NAME[name], f"tally {name}"
    if tally.merge == "bottom_k":
        _check_sampled(path, name, block, of)
        return
    high = of.counted if tally.unit == "1" else min(of.counted * _MAX_PRODUCT, 2**63 - 1)
    low = -high if tally.name in SIGNED else 0
    wrong = (block < low) | (block > high)
    if wrong.any():
        raise _impossible(path, name, block[wrong][0], f"numbers from {low:,} to {high:,}")


_MAX_PRODUCT = int(bins.FIXED_POINT_LIMIT) ** 2 * bins.ONE
"""Greatest magnitude that a row adds to a sum: a product of two clipped values."""


def _check_sampled(path: str | Path, name: str, block: np.ndarray, of: Sizes) -> None:
    """Rows of a sample, ``[line, field]``; lines without a key hold nothing."""
    if (block[:, 0] < 0).any():
        raise _impossible(path, f"{name}, key", block[block[:, 0] < 0, 0][0], "no negative ones")
    lines = block[block[:, 0] != sampling.NO_KEY]
    for number, field in enumerate(sampling.fields(of.layers)):
        column = field.partition(".")[0]
        values, low = lines[:, number], 0
        if column in sampling.FIXED_FIELDS:
            limit, low = _MAX_FIXED, -_MAX_FIXED
        elif column in _SAMPLED:
            limit = int(_SAMPLED[column])
        else:
            limit = _limit(column, of)
            low = 0 if column not in ("next_token", "copy_token") else -1
        wrong = (values < low) | (values >= limit)
        if column in UNKNOWN:
            wrong &= values != UNKNOWN[column]
        if wrong.any():
            what = f"numbers from {low:,} to {limit - 1:,}"
            raise _impossible(path, f"{name}, {field}", values[wrong][0], what)


_MAX_FIXED = 2**31


def _limit(name: str, of: Sizes) -> int:
    """What every value of a rank, id or column is below."""
    quantity = schema.QUANTITIES[name]
    if quantity.kind == "rank":
        return of.vocab + 1
    if quantity.kind == "id":
        return of.vocab
    limit = LIMITS[name]
    return limit if isinstance(limit, int) else int(getattr(of, limit))


def _count(part: object, name: str) -> int:
    value = part.get(name) if isinstance(part, Mapping) else None
    return value if type(value) is int and 0 <= value < UNSTATED else UNSTATED


def _impossible(path: str | Path, name: str, value: Any, possible: str) -> errors.DataError:
    return errors.DataError(
        f"{path} is damaged: {name} holds {value}, where there can be {possible}", _HINT
    )
