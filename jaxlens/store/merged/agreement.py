"""What runs that are merged must have in common beside their specs, or must not have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64

from jaxlens import errors
from jaxlens.store import reader, token_counts_file, type_means_file
from jaxlens.store.merged import merged_corpus, sources
from jaxlens.tally import definitions


@dataclass(frozen=True, eq=False)
class Part:
    """A run that is merged.

    Attributes:
        run: Opened; what was read of it is not kept.
        source: What the merged run records of it.
        hashes: Of the texts of its documents.
        counts: Occurrences of each token in each fold of its documents.
    """

    run: reader.Run
    source: sources.Source
    hashes: UInt64[np.ndarray, " document"]
    counts: Int[np.ndarray, "fold vocab"]


def count_repeated(parts: Sequence[Part], allowed: bool) -> int:
    """Documents that are in several runs.

    Args:
        parts: The runs.
        allowed: Whether there may be some.

    Raises:
        ConfigError: There are some, which are not allowed.
    """
    found = merged_corpus.repeated([part.hashes for part in parts])
    if found is None:
        return 0
    if not allowed:
        one, two = (parts[number].run for number in found.runs)
        name = one.documents()["document_id"][found.document]
        raise errors.ConfigError(
            f"{errors.count(found.count, 'document')} of several runs have the same text, the "
            f"first is {name!r:.60} of {one.path}, which is in {two.path} too",
            "they would count in each: leave them out of one corpus, or merge with "
            "--allow-repeated",
        )
    return found.count


def type_means(parts: Sequence[Part], tallies: str) -> dict[str, str]:
    """A hash of the means of token types that all runs subtract; nothing where none does.

    The files of the runs differ, since each names the spec that it was made for.

    Args:
        parts: The runs.
        tallies: Set of tallies that is kept.

    Raises:
        ConfigError: The means differ.
        DataError: A table is missing or damaged.
    """
    if tallies not in definitions.WITH_TYPE_MEANS:
        return {}
    digests: dict[str, Path] = {}
    for part in parts:
        means = type_means_file.read(part.run.path, part.run.spec).means
        raw = b"".join(np.ascontiguousarray(one, "<i4").tobytes() for one in means)
        digests.setdefault(hashlib.sha256(raw).hexdigest(), part.run.path)
    if len(digests) > 1:
        one, two, *_ = digests.values()
        raise errors.ConfigError(
            f"{one} and {two} subtract other means of token types",
            "products about them add up only where they are equal: sweep all runs with the same "
            "--type-means and the same --token-counts",
        )
    return {type_means_file.SECTION: next(iter(digests))}


def left_out(parts: Sequence[Part], spec: Mapping[str, Any]) -> str:
    """The set of tallies of the runs, where merged runs do not keep it; else nothing."""
    own, kept = (one["store"].get("tallies", "basic") for one in (parts[0].run.spec, spec))
    return "" if own == kept else own


def has_other_counts(parts: Sequence[Part]) -> bool:
    """Whether runs define rarity by counts that are not those of their corpora together."""
    run = parts[0].run
    if token_counts_file.FILE.recorded(run.spec) is None:
        return False
    shared = token_counts_file.read(run.path, run.spec).counts
    return not np.array_equal(np.sum([part.counts for part in parts], axis=0), shared)


def token_counts(parts: Sequence[Part]) -> bytes | None:
    """The counts by which all runs define rarity; None where each has its own."""
    if token_counts_file.FILE.recorded(parts[0].run.spec) is None:
        return None
    tables = [token_counts_file.read(part.run.path, part.run.spec) for part in parts]
    return tables[0].data  # of all, since their specs name one hash
