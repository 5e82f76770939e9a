"""Totals of runs added up: sums by addition, samples by their keys; documents number on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlens import config, errors
from jaxlens.store import bounds, reader, summary
from jaxlens.store.hdf5 import images, reading
from jaxlens.store.merged import sources
from jaxlens.tally import definitions, sampling

OF = "manifests_sha256"
"""Attribute of the summary: `fingerprint` of the runs that it adds up."""

DOCUMENT = sampling.FIELDS.index("document")


@dataclass(frozen=True, eq=False)
class Sum:
    """What runs add up to.

    Attributes:
        tallies: Totals, int64.
        layer_names: Labels of the layers.
        labels: Labels of the axes of the totals.
    """

    tallies: summary.Tallies
    layer_names: tuple[str, ...]
    labels: summary.Labels


def fingerprint(of: Sequence[sources.Source]) -> str:
    """A hash of the contents of runs, in their order."""
    manifests = [source.manifest_sha256 for source in of]
    return hashlib.sha256(config.canonical({"manifests": manifests})).hexdigest()


def fold(runs: Iterable[reader.Run], spec: Mapping[str, Any]) -> Sum:
    """Adds up the totals of runs, one in memory at a time.

    Args:
        runs: In their order.
        spec: Of the merged run, whose set of tallies is kept.

    Raises:
        ConfigError: The runs have other layers or labels.
        DataError: A run is damaged, or a sum is beyond 64 bits.
    """
    kept = {tally.name for tally in definitions.TALLIES[spec["store"].get("tallies", "basic")]}
    total: summary.Tallies | None = None
    form: tuple[tuple[str, ...], dict[str, tuple[str, ...]]] | None = None
    first_dir, documents = None, 0
    for run in runs:
        names = kept & set(run.tally)
        labels = {
            axis: tuple(run.tally_labels.get(axis, own))
            for axis, own in summary.axis_labels(sorted(names)).items()
        }
        form, first_dir = form or (run.layer_names, labels), first_dir or run.path
        if form != (run.layer_names, labels):
            raise errors.ConfigError(
                f"{first_dir} and {run.path} have other names of layers, or of places of totals",
                "merge runs of one version of jaxlens",
            )
        part = {name: _moved(name, run.tally[name], documents) for name in sorted(names)}
        total = summary.add(total, str(run.path), part, bounds.sizes(spec))
        documents += run.spec["corpus"]["n_documents"]
        del run.tally, part  # megabytes
        run.close()
    assert total is not None and form is not None
    return Sum(total, *form)


def image(
    added: Sum, spec: Mapping[str, Any], spec_hash: str, of: Sequence[sources.Source]
) -> bytes:
    """The bytes of ``summary.h5``.

    Args:
        added: What the runs add up to.
        spec: Of the merged run.
        spec_hash: Its hash.
        of: The runs.
    """
    about: dict[str, int | str] = {
        "spec_hash": spec_hash,
        "n_shards": spec["plan"]["n_shards"],
        "n_tokens": spec["corpus"]["n_tokens"],
        "n_rows": sum(source.n_rows for source in of),
        "tokens_sha256": spec["corpus"]["sha256"],
        OF: fingerprint(of),
    }
    version = spec["format_version"]
    return reading.seal(
        images.summary_image(about, added.tallies, added.layer_names, added.labels, version)
    )


def _moved(name: str, total: np.ndarray, documents: int) -> np.ndarray:
    """A total of a run whose documents are numbered from another number on."""
    if definitions.BY_NAME[name].merge != "bottom_k":
        return total
    moved = total.copy()
    moved[total[:, 0] != sampling.NO_KEY, DOCUMENT] += documents
    return moved
