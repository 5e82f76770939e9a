"""A fixed sample of positions: ranks of what was read there, and of a token of another document.

Those with the lowest keys of document and place (``sampling.key_of``) among all that have both
ranks: the same whatever the shards, their order and the workers, and the same in a null run of
fresh weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxlens.store import reader, token_counts_file
from jaxlens.tally import bins, sampling

MOST = 20_000
"""Positions of a sample."""

NEEDED = (
    *("document", "offset", "position", "surprisal"),
    *("token", "foreign_token", "rank_input", "rank_foreign"),
)
"""Rows that a sample is taken from."""

NO_ROWS = "needs rows of rank_foreign: a new run with --rows full"

_BATCH = 65_536


class Positions(NamedTuple):
    """Sampled positions, the lowest key first.

    Attributes:
        token: That was read, and that of another document.
        rank: Of the two.
        group: Group of documents.
        level: Of the document: means of the rarity less the centre, and of its square, over all
            tokens that were read there.
        rarity: Of all types by all occurrences, less the centre, nat.
        centre: Mean rarity of the tokens of the corpus, nat.
    """

    token: Int[np.ndarray, "own_foreign position"]
    rank: Int[np.ndarray, "own_foreign position layer"]
    group: Int[np.ndarray, " position"]
    level: Float[np.ndarray, "position power"]
    rarity: Float[np.ndarray, " vocab"]
    centre: float


def sample(run: reader.Run, most: int = MOST) -> Positions | None:
    """Sampled positions of a run; None where it has no such rows.

    Args:
        run: Finished run.
        most: Positions, where there are so many.

    Raises:
        DataError: A shard is damaged.
    """
    if not all(name in run for name in NEEDED):
        return None
    counts = token_counts_file.of_run(run)
    rarity = bins.type_rarity(counts)
    centre = float(counts.sum(0) @ rarity / max(counts.sum(), 1))
    rarity = rarity - centre
    hashes = run.corpus.documents.hash
    sums = np.zeros((3, len(hashes)))  # of powers of rarity, by document
    kept: dict[str, np.ndarray] = {}
    for batch in run.batches(NEEDED, rows=_BATCH):
        used = (batch["position"] > 0) & ~np.isnan(batch["surprisal"])
        document, x = batch["document"][used], rarity[batch["token"][used]]
        for power, total in enumerate(sums):
            total += np.bincount(document, x**power, len(hashes))
        used &= batch["rank_foreign"][:, 0] > 0
        part = {name: batch[name][used] for name in NEEDED}
        part["key"] = sampling.key_of(hashes[part["document"]], part["offset"])
        kept = _lowest(kept, part, most)
    means = (sums[1:] / np.maximum(sums[0], 1)).T
    return Positions(
        token=np.stack([kept["token"], kept["foreign_token"]]).astype(np.int64),
        rank=np.stack([kept["rank_input"], kept["rank_foreign"]]).astype(np.int64),
        group=bins.group_of(hashes[kept["document"]]),
        level=means[kept["document"]],
        rarity=rarity,
        centre=centre,
    )


def _lowest(
    kept: dict[str, np.ndarray], part: dict[str, np.ndarray], most: int
) -> dict[str, np.ndarray]:
    """The rows with the lowest keys of two parts, in their order."""
    if kept:
        part = {name: np.concatenate([kept[name], column]) for name, column in part.items()}
    order = np.lexsort((part["offset"], part["document"], part["key"]))[:most]
    return {name: column[order] for name, column in part.items()}
