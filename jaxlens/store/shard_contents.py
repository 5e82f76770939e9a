"""What an open shard holds: its layers, its quantities, its tallies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.store import bounds, lazy_column, records, summary
from jaxlens.store.hdf5 import reading
from jaxlens.tally import definitions

MAX_VOCABULARY = 1 << 20
"""Most tokens of a vocabulary: four times those of any published model."""

MAX_TALLY_BYTES = 1 << 30
"""Most bytes of a run's tallies, which are held in RAM whole; the shapes of those follow from the
model. Of GPT-2 small they are 5 MiB, with the study 84; of 63 layers of 262,208 tokens 128 and 879;
of 127 layers of 128,256 tokens 126 and 1,000."""

Columns = dict[str, tuple[np.dtype, tuple[int, ...]]]
"""Type and trailing shape of each quantity that has rows."""

_LAYER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Form:
    """What all shards of a run have in common.

    Attributes:
        layer_names: Labels of the layers.
        columns: Quantities with rows, in the order of the schema.
        labels: Labels of the tallies' axes.
    """

    layer_names: tuple[str, ...]
    columns: Columns
    labels: dict[str, tuple[str, ...]]


def tallies(contents: reading.Contents, spec: Mapping[str, Any]) -> dict[str, h5py.Dataset]:
    """The totals in ``/tally``, not yet read.

    Args:
        contents: Shard, or summary.
        spec: Of the run, which says how large they can be.

    Raises:
        ValueError: A total has another shape, or they are too many or too large.
    """
    architecture = spec["model"]["architecture"]
    n_layers, vocab_size = architecture["n_layer"] + 1, architecture["vocab_size"]
    if vocab_size > MAX_VOCABULARY:
        raise ValueError(
            f"its vocabulary has {vocab_size} tokens, at most {MAX_VOCABULARY} are allowed"
        )
    items = _tally_items(contents).items()
    stored = {n: item for n, item in items if item.dtype.kind != "S" and not item.is_scale}
    # A run that keeps more states it in its spec.
    profile = spec.get("store", {}).get("tallies")
    profile = profile if profile in definitions.TALLIES else "basic"
    limit = min(8 * definitions.items(n_layers, vocab_size, profile), MAX_TALLY_BYTES)
    for name, item in stored.items():
        shape = definitions.shape(definitions.BY_NAME[name], n_layers, vocab_size)
        if item.shape != shape:
            raise ValueError(f"tally {name} is {item.shape}, not {shape}")
    claimed = sum(item.size * item.dtype.itemsize for item in stored.values())
    if claimed > limit:
        raise ValueError(f"its tallies take {claimed} bytes, at most {limit} are allowed")
    return stored


def read_tallies(
    contents: reading.Contents, spec: Mapping[str, Any], tokens: int
) -> summary.Tallies:
    """Reads the totals in ``/tally``; see `tallies`.

    Args:
        contents: Summary.
        spec: Of the run.
        tokens: Tokens that were counted.

    Raises:
        DataError: A total has another type than the schema says, or an impossible value.
    """
    sizes = bounds.sizes(spec, tokens)
    return summary.add(None, str(contents.file.filename), tallies(contents, spec), sizes)


def read_form(contents: reading.Contents) -> Form:
    """Reads what all shards have in common.

    Raises:
        ValueError: A quantity is not stored as the schema says.
    """
    names = reading.labels(contents.datasets["layer_name"])
    if odd := [name for name in names if not _LAYER_NAME.fullmatch(name)]:
        raise ValueError(f"a layer is called {odd[0]!a:.60}")
    quantities = {}
    for name, item in row_items(contents).items():
        quantity, tail = schema.QUANTITIES[name], item.shape[1:]
        if not lazy_column.is_stored_as(quantity, item.dtype, item.ndim):
            raise ValueError(f"{name} cannot be {item.dtype} {item.shape}")
        if "layer" in quantity.axes and tail[0] != len(names):
            raise ValueError(f"{name} has {tail[0]} layers, not {len(names)}")
        if not all(tail):
            raise ValueError(f"{name} is empty: {item.shape}")
        quantities[name] = (item.dtype, tail)
    labelled = {
        name: reading.labels(item)
        for name, item in _tally_items(contents).items()
        if item.dtype.kind == "S" and item.is_scale
    }
    return Form(names, quantities, labelled)


def skipped(contents: reading.Contents) -> object:
    """What the corpus skipped in the shard's range."""
    return json.loads(str(contents.attribute("skipped")))


def row_items(contents: reading.Contents) -> dict[str, h5py.Dataset]:
    """Datasets of the quantities that have rows, in the order of the schema."""
    stored = contents.datasets
    return {name: stored[name] for name in schema.QUANTITIES if name in stored}


def _tally_items(contents: reading.Contents) -> dict[str, h5py.Dataset]:
    prefix = "tally/"
    stored = contents.datasets.items()
    return {n.removeprefix(prefix): item for n, item in stored if n.startswith(prefix)}


def check_values(
    contents: reading.Contents, spec: Mapping[str, Any], entry: records.Record, path: Path
) -> None:
    """Reads all datasets of a shard, so that HDF5 compares their checksums, and checks the values.

    Raises:
        ValueError: The form, the tallies or the row numbers are not those of the run.
        DataError: A quantity has an impossible value.
    """
    read_form(contents)
    if spec:
        tallies(contents, spec)
    sizes = bounds.sizes(spec, entry.token_stop)
    for name, dataset in contents.datasets.items():
        for start, block in reading.blocks(dataset):
            first = entry.token_start + start
            if name in schema.QUANTITIES:
                bounds.check_rows(path, name, block, sizes)
            if name == "row" and (block != np.arange(first, first + len(block))).any():
                raise ValueError("its rows are not those of its token range")
