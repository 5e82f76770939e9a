"""What runs that are merged must have in common beside their specs, or must not have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.store import layout, reader, token_counts_file, type_means_file
from jaxlens.store.merged import merged_corpus, sources
from jaxlens.tally import definitions


@dataclass(frozen=True)
class Part:
    """A run that is merged.

    Attributes:
        path: Its directory.
        spec: Its spec.
        source: What the merged run records of it.
    """

    path: Path
    spec: layout.Spec
    source: sources.Source


def count_repeated(parts: Sequence[Part], allowed: bool) -> int:
    """Documents that are in several runs.

    Args:
        parts: The runs.
        allowed: Whether there may be some.

    Raises:
        ConfigError: There are some, which are not allowed.
    """
    found = merged_corpus.repeated(_documents(part) for part in parts)
    if found is None:
        return 0
    if not allowed:
        one, two = (parts[place].path for place in found.places)
        raise errors.ConfigError(
            f"{errors.count(found.count, 'document')} of several runs have the same text, the "
            f"first is {found.first!r:.60} of {one}, which is in {two} too",
            "they would count in each: leave them out of one corpus, or merge with "
            "--allow-repeated",
        )
    return found.count


def _documents(part: Part) -> tuple[np.ndarray, np.ndarray]:
    with reader.Run(part.path) as run:
        documents = run.corpus.documents
        return documents.hash, documents.id


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
        means = type_means_file.read(part.path, part.spec.document).means
        raw = b"".join(np.ascontiguousarray(one, "<i4").tobytes() for one in means)
        digests.setdefault(hashlib.sha256(raw).hexdigest(), part.path)
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
    own, kept = (one["store"].get("tallies", "basic") for one in (parts[0].spec.document, spec))
    return "" if own == kept else own


def has_other_counts(parts: Sequence[Part]) -> bool:
    """Whether runs define rarity by counts that are not those of their corpora together."""
    if token_counts_file.recorded(parts[0].spec.document) is None:
        return False
    shared = token_counts_file.read(parts[0].path, parts[0].spec.document).counts
    total = np.zeros_like(shared)
    for part in parts:
        with reader.Run(part.path) as run:
            total += run.corpus.token_counts
    return not np.array_equal(total, shared)


def token_counts(parts: Sequence[Part]) -> bytes | None:
    """The counts by which all runs define rarity; None where each has its own."""
    if token_counts_file.recorded(parts[0].spec.document) is None:
        return None
    tables = [token_counts_file.read(part.path, part.spec.document) for part in parts]
    return tables[0].data  # of all, since their specs name one hash
