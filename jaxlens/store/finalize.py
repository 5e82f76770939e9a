"""Files that follow from the shards: ``MANIFEST``, ``summary.h5``, ``index.h5``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained, publish, system
from jaxlens.store import bounds, layout, records, shard_contents, shards, summary
from jaxlens.store.hdf5 import images, reading

TRIES = 8
"""Attempts to derive files from shards that concurrent writers with other bits keep replacing."""

MAX_INDEXED = 256
"""Shards beyond which there is no index: HDF5 keeps every source of a virtual dataset open."""


@dataclass(frozen=True)
class Derived:
    """What follows from the shards.

    Attributes:
        files: Bytes by name; None for a file that must not exist.
        tallies: Merged totals.
    """

    files: dict[str, bytes | None]
    tallies: summary.Tallies


def finalize(run_dir: str | Path, disk: system.Disk = system.DISK) -> summary.Tallies:
    """Rebuilds the derived files of a run that has all its shards.

    It is idempotent: a file that is right is left alone, and the bytes are the same each time. A
    concurrent writer with other bits may replace a shard meanwhile, so the shards are checked again
    in the end.

    Args:
        run_dir: Run.
        disk: System calls.

    Returns:
        Merged tallies, int64.

    Raises:
        MissingError: Shards are missing.
        DataError: Shards are damaged, do not fit together, or do not come to rest.
        StorageError: The disk is full or failed.
    """
    for _ in range(TRIES):
        derived = derive(run_dir)
        for name, data in derived.files.items():
            path = contained.contained(run_dir, name)
            if data is None:
                publish.remove(path, disk)
            elif not holds(path, data):
                publish.publish(path, data, disk)
        if _is_of(run_dir, derived):
            return derived.tallies
    raise errors.DataError(
        f"{run_dir}: its shards change while the derived files are built",
        "look for writers whose results differ, then run jaxlens finalize",
    )


def derive(run_dir: str | Path, hashed: bool = True) -> Derived:
    """Computes the derived files, writing nothing.

    Args:
        run_dir: Run.
        hashed: Whether to compare the hash of each shard.

    Raises:
        MissingError: Shards are missing.
        DataError: Shards are damaged or do not fit together.
    """
    spec = layout.read_spec(run_dir)
    entries = shards.complete(run_dir, spec)
    # The manifest comes last: where it exists, the others do.
    files: dict[str, bytes | None] = {layout.SUMMARY: None, layout.INDEX: None}
    tallies: summary.Tallies = {}
    if entries:
        form, tallies = _fold(run_dir, spec, entries, hashed)
        with reading.reading(
            contained.contained(run_dir, layout.SHARDS)
        ):  # sound, yet without sense
            files |= _images(spec, entries, form, tallies)
    files[layout.MANIFEST] = records.manifest(spec.hash, entries)
    return Derived(files, tallies)


def _images(
    spec: layout.Spec,
    entries: Sequence[records.Record],
    form: shard_contents.Form,
    tallies: summary.Tallies,
) -> dict[str, bytes | None]:
    about = _attributes(spec, entries)
    version = layout.format_version(spec)
    image = images.summary_image(about, tallies, form.layer_names, form.labels, version)
    files: dict[str, bytes | None] = {layout.SUMMARY: reading.seal(image), layout.INDEX: None}
    if about["n_rows"] and len(entries) <= MAX_INDEXED:
        sources = [f"{layout.SHARDS}/{layout.shard_name(e.shard)}" for e in entries]
        image = images.index_image(about, entries, sources, form.columns, form.layer_names, version)
        files[layout.INDEX] = reading.seal(image)
    return files


def fold_shards(
    run_dir: str | Path, spec: layout.Spec, entries: Sequence[records.Record]
) -> summary.Tallies:
    """Merges the tallies of shards in their order.

    Raises:
        DataError: A shard is damaged or does not fit the others.
    """
    return _fold(run_dir, spec, entries, hashed=True)[1] if entries else {}


def holds(path: Path, data: bytes) -> bool:
    """Whether a file has exactly these bytes."""
    try:
        return contained.size(path) == len(data) and contained.read(path, len(data)) == data
    except (errors.MissingError, errors.DataError):
        return False


def _is_of(run_dir: str | Path, derived: Derived) -> bool:
    """Whether the shards are still those that something was derived from."""
    spec = layout.read_spec(run_dir)
    with contextlib.suppress(errors.DataError):
        entries = shards.complete(run_dir, spec)
        return records.manifest(spec.hash, entries) == derived.files[layout.MANIFEST]
    return False


def _attributes(spec: layout.Spec, entries: Sequence[records.Record]) -> dict[str, int | str]:
    return {
        "spec_hash": spec.hash,
        "n_shards": spec.n_shards,
        "n_tokens": entries[-1].token_stop,
        "n_rows": sum(entry.rows for entry in entries),
        "tokens_sha256": entries[0].tokens_sha256,
    }


def _fold(
    run_dir: str | Path, spec: layout.Spec, entries: Sequence[records.Record], hashed: bool
) -> tuple[shard_contents.Form, summary.Tallies]:
    """What all shards have in common, and the sum of their tallies."""
    form: shard_contents.Form | None = None
    tallies: summary.Tallies | None = None
    for entry in entries:
        path = layout.shard_path(run_dir, entry.shard)
        with shards.open_shard(run_dir, entry, hashed) as contents, reading.reading(path):
            own_form = shard_contents.read_form(contents)
            form = form or own_form
            if own_form != form:
                raise ValueError("its layers or quantities are not those of the first shard")
            part = shard_contents.tallies(contents, spec.document)
            sizes = bounds.sizes(spec.document, entry.token_stop - entry.token_start)
            tallies = summary.add(tallies, str(path), part, sizes)
    assert form is not None and tallies is not None
    return form, tallies
