"""The command of runs over parts of a corpus: merge; heavy imports inside."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.cli import options, terminal

if TYPE_CHECKING:
    from jaxlens.store.merged import merge as merging

logger = logging.getLogger("jaxlens")


def merge(
    out: Path,
    first: Path,
    /,
    *runs: Path,
    allow_repeated: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Merge finished runs over parts of a corpus into a directory that reads as one run.

    The runs are of one spec but for the corpus. The directory holds their totals and says where
    they are; rows stay in the runs. The same command again makes what is missing anew.

    Args:
        out: Directory to create.
        first: Run, or merged runs, which stand for theirs.
        runs: The others.
        allow_repeated: Merge runs that have documents in common, which then count in each.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.store.merged import merge as merging

    _show(merging.merge_runs(out, (first, *runs), allow_repeated))


def _show(merged: merging.Merged) -> None:
    if merged.repeated_documents:
        repeated = errors.count(merged.repeated_documents, "document")
        logger.warning("%s of several runs have the same text, and count in each", repeated)
    if merged.left_out:
        logger.warning(
            "the runs' tallies %s are by rarity in each run's own text and do not add up: the "
            "study folds them from rows",
            merged.left_out,
        )
    if merged.other_counts:
        logger.warning("rarity is by counts that are not those of these runs' text together")
    tokens = errors.count(merged.n_tokens, "token")
    documents = errors.count(merged.n_documents, "document")
    rows = errors.count(merged.n_rows, "row") if merged.n_rows else "totals only"
    runs = errors.count(len(merged.runs), "run")
    terminal.say(f"merged {runs} into {merged.out}: {tokens} of {documents}, {rows}")
