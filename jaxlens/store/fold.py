"""Merging the tallies of shards in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxlens.store import bounds, layout, record_table, shard_contents, shards, summary
from jaxlens.store.hdf5 import reading


@dataclass(frozen=True)
class Folded:
    """What shards have in common, and the sum of what they counted.

    Attributes:
        form: Layers, quantities with rows, labels.
        tallies: Merged totals, int64.
    """

    form: shard_contents.Form
    tallies: summary.Tallies


class Cancelled(Exception):
    """Merging was given up on request."""


def fold(
    run_dir: str | Path,
    spec: layout.Spec,
    entries: record_table.RecordTable,
    hashed: bool = True,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Folded:
    """Merges the tallies of some shards.

    Args:
        run_dir: Run.
        spec: Its spec.
        entries: Records of the shards, at least one.
        hashed: Whether to compare the hash of each shard, which reads all of it.
        is_cancelled: Asked before each shard.

    Raises:
        DataError: A shard is damaged or does not fit the others.
        Cancelled: ``is_cancelled`` said so.
    """
    folded: Folded | None = None
    for entry in entries:
        if is_cancelled():
            raise Cancelled
        path = layout.shard_path(run_dir, entry.shard)
        with shards.open_shard(run_dir, entry, hashed) as contents, reading.reading(path):
            form = shard_contents.read_form(contents)
            tallies = shard_contents.tallies(contents, spec.document)
            sizes = bounds.sizes(spec.document, entry.token_stop - entry.token_start)
            folded = _add(folded, str(path), form, tallies, sizes)
    assert folded is not None
    return folded


def add(total: Folded | None, name: str, part: Folded) -> Folded:
    """Merges what was folded before; ``total`` is altered.

    Args:
        total: What was merged so far; None for nothing.
        name: Of the part, for errors.
        part: More.

    Raises:
        DataError: They do not fit together.
    """
    if total is None:
        return part
    with reading.reading(name):
        return _add(total, name, part.form, part.tallies, None)


def _add(
    total: Folded | None,
    name: str,
    form: shard_contents.Form,
    tallies: summary.Part,
    sizes: bounds.Sizes | None,
) -> Folded:
    if total is not None and form != total.form:
        raise ValueError("its layers or quantities are not those of the first shard")
    before = None if total is None else total.tallies
    return Folded(form, summary.add(before, name, tallies, sizes))
