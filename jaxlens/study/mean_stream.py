"""How well the mean stream of each layer predicts the next tokens of a run's rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from jaxlens.store import mean_stream_file, reader
from jaxlens.study import fold
from jaxlens.tally import bins

NEEDED = ("document", "position", "next_token")


class Surprisal(NamedTuple):
    """Sums by group of documents, over positions with a next token.

    Attributes:
        total: Minus the log-probability of the next token, in units of 2^-16 nat.
        count: Positions.
    """

    total: Int64[np.ndarray, "group layer"]
    count: Int64[np.ndarray, " group"]


def surprisal(
    run: reader.Run, documents: Bool[np.ndarray, " document"] | None = None
) -> Surprisal | None:
    """Sums over the rows of a run; None where it has no rows, or no probe that has the means.

    Args:
        run: Finished run.
        documents: Those whose rows count; all by default.

    Raises:
        DataError: A file is damaged.
    """
    if not all(name in run for name in NEEDED):
        return None
    log_p = mean_stream_file.read_of_run(run.path)
    if log_p is None:
        return None
    fixed = np.rint(-log_p.T.astype(np.float64) * bins.ONE).astype(np.int64)
    groups = bins.group_of(run.corpus.documents.hash)
    total = np.zeros((bins.GROUPS, log_p.shape[0]), np.int64)
    count = np.zeros(bins.GROUPS, np.int64)
    for batch in run.batches(NEEDED, rows=fold.ROWS):
        used = (batch["position"] > 0) & (batch["next_token"].astype(np.int64) >= 0)
        if documents is not None:
            used &= documents[batch["document"]]
        group = groups[batch["document"][used]]
        np.add.at(total, group, fixed[batch["next_token"][used]])
        count += np.bincount(group, minlength=bins.GROUPS)
    return Surprisal(total, count)
