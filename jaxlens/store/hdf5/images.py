"""HDF5 files built in RAM; the same input gives the same bytes, at any time and on any host.

Every dataset carries fletcher32 checksums, every axis a dimension scale, every variable its unit
and meaning, so that h5py, xarray, MATLAB, Julia and h5dump 1.10 understand a file alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.store import records, summary
from jaxlens.store.hdf5 import buffers, variables, writing


def shard_image(
    shard_range: records.ShardRange,
    rows: Mapping[str, np.ndarray],
    tallies: Mapping[str, np.ndarray],
    layer_names: Sequence[str],
    *,
    skipped: object = None,
    labels: summary.Labels | None = None,
    compression: Literal["none", "gzip"] = "none",
    buffer: buffers.Buffer | None = None,
    version: int = schema.FORMAT_VERSION,
) -> memoryview:
    """One shard.

    Args:
        shard_range: Where it belongs.
        rows: Quantities of the schema as they are stored, [row, layer(, k)] or [row], one row
            for each token of the place; empty where only tallies are kept.
        tallies: Totals of the schema over the same tokens, int64.
        layer_names: Labels of the layers.
        skipped: What the corpus skipped there; anything that JSON can say.
        labels: Labels of the axes ``quantity`` and ``reference``; the schema's by default.
        compression: Filter of the rows; tallies are always compressed.
        buffer: Where to build it; the image is valid until the buffer is used again.
        version: That of the run's spec, one of ``schema.FORMATS``.

    Raises:
        ValueError: An array has the wrong name, type or shape.
    """
    n_rows = shard_range.token_stop - shard_range.token_start
    buffer = buffer or buffers.Buffer()
    with writing.new_file(buffer) as file:
        about = {
            "skipped": json.dumps(skipped, sort_keys=True, allow_nan=False),
            **vars(shard_range),
        }
        writing.describe(file, f"Logit lens, shard {shard_range.shard}", about, version)
        sizes = {name: variables.row_axes(name, data, n_rows) for name, data in rows.items()}
        scales = variables.row_scales(file, sizes.values(), layer_names)
        if rows:
            scales["row"] = writing.scale(
                file, "row", np.arange(shard_range.token_start, shard_range.token_stop)
            )
        for name in (name for name in schema.QUANTITIES if name in rows):
            item = writing.dataset(file, name, rows[name], compression == "gzip")
            variables.explain_quantity(item, name, scales, version)
        variables.add_tallies(file, tallies, layer_names, labels)
    return buffer.image()


def summary_image(
    attributes: writing.Attributes,
    tallies: Mapping[str, np.ndarray],
    layer_names: Sequence[str],
    labels: summary.Labels,
    version: int = schema.FORMAT_VERSION,
) -> memoryview:
    """Merged tallies, laid out as in a shard, and the statistics that follow from them.

    Args:
        attributes: Of the root.
        tallies: Merged totals, int64.
        layer_names: Labels of the layers.
        labels: Labels of the axes ``quantity`` and ``reference``.
        version: That of the run's spec.
    """
    buffer = buffers.Buffer()
    with writing.new_file(buffer) as file:
        writing.describe(file, "Logit lens, summary", attributes, version)
        scales = variables.row_scales(file, (), layer_names)
        for name, statistic in summary.statistics(dict(tallies), labels).items():
            item = writing.dataset(file, name, statistic.values, compress=True)
            writing.explain(item, statistic.unit, statistic.meaning)
            item.attrs["coordinates"] = "layer_name"
            writing.attach(item, ("layer",), scales)
        variables.add_tallies(file, tallies, layer_names, labels)
    return buffer.image()


def index_image(
    attributes: writing.Attributes,
    entries: Sequence[records.Record],
    sources: Sequence[str],
    columns: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    layer_names: Sequence[str],
    version: int = schema.FORMAT_VERSION,
) -> memoryview:
    """A virtual dataset over the rows of all shards, for foreign tools.

    HDF5 reads a missing source as fill values without a word and keeps every source open, so
    this is for small runs; ``jaxlens.open_run`` checks and needs no index.

    Args:
        attributes: Of the root.
        entries: Records in shard order.
        sources: Their files, relative to the index.
        columns: Type and trailing shape of each quantity.
        layer_names: Labels of the layers.
        version: That of the run's spec.
    """
    buffer = buffers.Buffer()
    with writing.new_file(buffer) as file:
        note = "a missing source reads as fill values; jaxlens.open_run refuses instead"
        writing.describe(file, "Logit lens, all rows", {"comment": note, **attributes}, version)
        sizes = {
            name: dict(zip(schema.QUANTITIES[name].axes[1:], tail, strict=True))
            for name, (_, tail) in columns.items()
        }
        scales = variables.row_scales(file, sizes.values(), layer_names)
        scales["row"] = writing.virtual(file, "row", np.dtype(np.int64), (), entries, sources)
        writing.make_scale(scales["row"], "row")
        for name, (dtype, tail) in columns.items():
            item = writing.virtual(file, name, dtype, tail, entries, sources, version)
            variables.explain_quantity(item, name, scales, version)
    return buffer.image()


def arrays_image(
    arrays: Mapping[str, np.ndarray],
    attributes: writing.Attributes,
    axes: Mapping[str, tuple[str, ...]] | None = None,
) -> memoryview:
    """Plain arrays, compressed, such as the index of the token file.

    Args:
        arrays: Numbers, or byte strings of dtype ``S`` (whose trailing NULs HDF5 drops).
        attributes: Of the root.
        axes: Names of the axes of each array, shared where equal; its own by default.

    Raises:
        ValueError: A type cannot be stored, or axes of one name differ in length.
    """
    buffer = buffers.Buffer()
    with writing.new_file(buffer) as file:
        writing.describe(file, "jaxlens arrays", attributes, schema.ARRAYS_VERSION)
        scales: dict[str, h5py.Dataset] = {}
        for name, data in sorted(arrays.items()):
            own = tuple(f"{name}_axis_{i}" for i in range(data.ndim))
            names = (axes or {}).get(name, own)
            for axis, length in zip(names, data.shape, strict=True):
                if axis not in scales:
                    scales[axis] = writing.scale(file, axis, np.arange(length))
            writing.attach(writing.dataset(file, name, data, compress=True), names, scales)
    return buffer.image()
