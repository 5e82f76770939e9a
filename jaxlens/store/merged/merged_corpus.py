"""The corpora of merged runs, one after the other, as one corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64

from jaxlens import errors
from jaxlens.store import corpus_index, document_fields, layout, records


@dataclass(frozen=True, eq=False, kw_only=True)
class MergedIndex(corpus_index.TokenIndex):
    """The index of several token files.

    Attributes:
        parts: Those of the runs, in their order.
    """

    parts: tuple[corpus_index.TokenIndex, ...]

    def tokens(self, start: int = 0, stop: int | None = None) -> Int[np.ndarray, " n"]:
        """Tokens ``start:stop`` of all corpora; see ``corpus_index.TokenIndex.tokens``."""
        low, high, _ = slice(start, stop).indices(self.record.n_tokens)
        read = [np.zeros(0, np.int32)]
        begin = 0
        for part in self.parts:
            end = begin + part.record.n_tokens
            if max(low, begin) < min(high, end):
                read.append(part.tokens(max(low, begin) - begin, min(high, end) - begin))
            begin = end
        return np.concatenate(read)


def concatenate(
    run_dir: Path, corpus: dict[str, Any], parts: Sequence[corpus_index.TokenIndex]
) -> MergedIndex:
    """The index of merged runs: documents one after the other, counts added.

    Args:
        run_dir: Merged run.
        corpus: Of its spec.
        parts: Indices of its runs, in their order.

    Raises:
        DataError: The runs have tokens of other strings.
    """
    strings = parts[0].token_strings
    if any(not np.array_equal(strings, part.token_strings) for part in parts):
        raise errors.DataError(
            f"{run_dir}: its runs have tokens of other strings", "merge runs of one tokenizer"
        )
    documents = [part.documents for part in parts]
    sizes = [part.record.n_tokens for part in parts]
    starts = np.cumsum([0, *sizes])
    begins = [one.start[:-1] + first for one, first in zip(documents, starts[:-1], strict=True)]
    return MergedIndex(
        documents=corpus_index.Documents(
            start=np.concatenate([*begins, starts[-1:]]),
            hash=np.concatenate([one.hash for one in documents]),
            id=np.concatenate([one.id for one in documents]),
            kept=joined_fields([one.kept for one in documents]),
        ),
        token_counts=np.sum([part.token_counts for part in parts], axis=0),
        token_strings=strings,
        path=run_dir / layout.TOKENS,
        record=records.Tokens(
            sha256=corpus["sha256"],
            n_tokens=int(starts[-1]),
            dtype=parts[0].record.dtype,
            index_sha256=corpus["index_sha256"],
        ),
        parts=tuple(parts),
    )


def joined_fields(parts: Sequence[document_fields.Metadata]) -> document_fields.Metadata:
    """Kept fields of all documents; values are numbered anew, in the order of the runs.

    Args:
        parts: Those of the runs, which keep the same fields.
    """
    if not parts[0].names:
        return parts[0]
    columns, values = [], []
    for number in range(len(parts[0].names)):
        # By kind too: True, 1 and 1.0 are equal in Python.
        known: dict[tuple[type, document_fields.Value], int] = {}
        column = []
        for part in parts:
            own = [known.setdefault((type(v), v), len(known)) for v in part.values[number]]
            column.append(np.array([*own, -1], np.int32)[part.codes[:, number]])
        columns.append(np.concatenate(column))
        values.append(tuple(value for _, value in known))
    return document_fields.Metadata(parts[0].names, np.stack(columns, axis=1), tuple(values))


@dataclass(frozen=True)
class Repeated:
    """Documents whose text is in several runs.

    Attributes:
        count: Documents, in all runs.
        runs: Numbers of two runs that have one of them in common.
        document: Its number in the first of these.
    """

    count: int
    runs: tuple[int, int]
    document: int


def repeated(hashes: Sequence[UInt64[np.ndarray, " document"]]) -> Repeated | None:
    """Documents of several runs, by the hashes of their texts; None where there are none.

    Args:
        hashes: Of the documents of each run.
    """
    # Within a run a text may well stand twice.
    distinct = np.concatenate([np.unique(own) for own in hashes])
    known, times = np.unique(distinct, return_counts=True)
    shared = known[times > 1]
    if not len(shared):
        return None
    within = [np.isin(own, shared) for own in hashes]
    first = next(i for i, mask in enumerate(within) if mask.any())
    document = int(np.flatnonzero(within[first])[0])
    text = hashes[first][document]
    second = next(i for i in range(first + 1, len(hashes)) if (hashes[i] == text).any())
    return Repeated(int(sum(mask.sum() for mask in within)), (first, second), document)
