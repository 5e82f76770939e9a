"""Contexts of the corpus: which documents an ablation looks at, and their windows.

Documents come in the order of a hash, up to a number of tokens, so that a sample of a large corpus
is read without reading all of it, and does not depend on batches or shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxlens.corpus import plan, token_file
from jaxlens.corpus.synthetic import draws
from jaxlens.tally import hashing

MEAN_TOKENS = 2**16
"""Positions that the mean stream is over."""

SEARCHED_TOKENS = 2**20
"""Tokens that are searched for copies."""


@dataclass(frozen=True, eq=False)
class Window:
    """The tokens of one context.

    Attributes:
        document: Number of its document.
        offset: Place of its first token in the document; -1 of a BOS token before it.
        skip: Tokens at its start that an earlier window has as well, or that are no text.
        tokens: Ids.
    """

    document: int
    offset: int
    skip: int
    tokens: Int[np.ndarray, " n"]


def sampled(
    tokens: token_file.TokenFile, windows: plan.Plan, seed: int, limit: int
) -> Iterator[Window]:
    """Windows of documents in the order of their hashes, until ``limit`` tokens were seen.

    Args:
        tokens: Open token file.
        windows: Its plan, which cuts the documents.
        seed: Decides the order.
        limit: Tokens; the document in which it is reached is read to its end.
    """
    start = tokens.index.document_start
    keys = hashing.mix(draws.start(seed) ^ tokens.index.document_hash)
    first = np.searchsorted(windows.window_start, start)
    seen = 0
    for document in np.lexsort((np.arange(len(keys)), keys)).tolist():
        if seen >= limit:
            return
        seen += int(start[document + 1] - start[document])
        for w in range(int(first[document]), int(first[document + 1])):
            begin, size = int(windows.window_start[w]), int(windows.window_length[w])
            ids = tokens.read(begin, begin + size).astype(np.int64)
            skip = int(windows.window_skip[w])
            offset = begin - int(start[document])
            if windows.bos_id is not None:
                ids, skip, offset = np.append(windows.bos_id, ids), skip + 1, offset - 1
            yield Window(document, offset, skip, ids)
