"""HDF5 files built in RAM; the same input gives the same bytes, at any time and on any host.

Every dataset carries fletcher32 checksums, every axis a dimension scale, every variable its unit
and meaning, so that h5py, xarray, MATLAB, Julia and h5dump 1.10 understand a file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.store import columns, records, summary
from jaxlens.store.hdf5 import buffer, writing
from jaxlens.tally import bins, definitions

_LAYER_NAME = "name of the residual stream: input, or the block it leaves"


def shard_image(
    place: records.Place,
    rows: Mapping[str, np.ndarray],
    tallies: Mapping[str, np.ndarray],
    layer_names: Sequence[str],
    *,
    skipped: object = None,
    labels: summary.Labels | None = None,
    compression: Literal["none", "gzip"] = "none",
    memory: buffer.Buffer | None = None,
    version: int = schema.FORMAT_VERSION,
) -> memoryview:
    """One shard.

    Args:
        place: Where it belongs.
        rows: Quantities of the schema as they are stored, [row, layer(, k)] or [row], one row
            for each token of the place; empty where only tallies are kept.
        tallies: Totals of the schema over the same tokens, int64.
        layer_names: Labels of the layers.
        skipped: What the corpus skipped there; anything that JSON can say.
        labels: Labels of the axes ``quantity`` and ``reference``; the schema's by default.
        compression: Filter of the rows; tallies are always compressed.
        memory: Where to build it; the image then holds until that is used again.
        version: That of the run's spec, one of ``schema.FORMATS``.

    Raises:
        ValueError: An array has the wrong name, type or shape.
    """
    n_rows = place.token_stop - place.token_start
    memory = memory or buffer.Buffer()
    with writing.new_file(memory) as file:
        about = {"skipped": json.dumps(skipped, sort_keys=True, allow_nan=False), **vars(place)}
        writing.describe(file, f"Logit lens, shard {place.shard}", about, version)
        sizes = {name: _row_axes(name, data, n_rows) for name, data in rows.items()}
        scales = row_scales(file, sizes.values(), layer_names)
        if rows:
            scales["row"] = writing.scale(
                file, "row", np.arange(place.token_start, place.token_stop)
            )
        for name in (name for name in schema.QUANTITIES if name in rows):
            item = writing.dataset(file, name, rows[name], compression == "gzip")
            explain_quantity(item, name, scales, version)
        _tally_group(file, tallies, layer_names, labels)
    return memory.image()


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
    memory = buffer.Buffer()
    with writing.new_file(memory) as file:
        writing.describe(file, "Logit lens, summary", attributes, version)
        scales = row_scales(file, (), layer_names)
        for name, statistic in summary.statistics(dict(tallies), labels).items():
            item = writing.dataset(file, name, statistic.values, compress=True)
            writing.explain(item, statistic.unit, statistic.meaning)
            item.attrs["coordinates"] = "layer_name"
            writing.attach(item, ("layer",), scales)
        _tally_group(file, tallies, layer_names, labels)
    return memory.image()


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
    memory = buffer.Buffer()
    with writing.new_file(memory) as file:
        note = "a missing source reads as fill values; jaxlens.open_run refuses instead"
        writing.describe(file, "Logit lens, all rows", {"comment": note, **attributes}, version)
        sizes = {
            name: dict(zip(schema.QUANTITIES[name].axes[1:], tail, strict=True))
            for name, (_, tail) in columns.items()
        }
        scales = row_scales(file, sizes.values(), layer_names)
        scales["row"] = writing.virtual(file, "row", np.dtype(np.int64), (), entries, sources)
        writing.make_scale(scales["row"], "row")
        for name, (dtype, tail) in columns.items():
            item = writing.virtual(file, name, dtype, tail, entries, sources, version)
            explain_quantity(item, name, scales, version)
    return memory.image()


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
    memory = buffer.Buffer()
    with writing.new_file(memory) as file:
        writing.describe(file, "jaxlens arrays", attributes, schema.ARRAYS_VERSION)
        scales: dict[str, h5py.Dataset] = {}
        for name, data in sorted(arrays.items()):
            own = tuple(f"{name}_axis_{i}" for i in range(data.ndim))
            names = (axes or {}).get(name, own)
            for axis, length in zip(names, data.shape, strict=True):
                if axis not in scales:
                    scales[axis] = writing.scale(file, axis, np.arange(length))
            writing.attach(writing.dataset(file, name, data, compress=True), names, scales)
    return memory.image()


def _row_axes(name: str, data: np.ndarray, n_rows: int) -> dict[str, int]:
    quantity = schema.QUANTITIES.get(name)
    if quantity is None or not columns.is_stored_as(quantity, data.dtype, data.ndim):
        raise ValueError(f"rows {name} cannot be stored as {data.dtype}, shape {data.shape}")
    if len(data) != n_rows:
        raise ValueError(f"rows {name} have shape {data.shape} for {n_rows} tokens")
    return dict(zip(quantity.axes[1:], data.shape[1:], strict=True))


def row_scales(
    file: h5py.File,
    sizes: Iterable[Mapping[str, int]],
    layer_names: Sequence[str],
    layers: Sequence[int] | None = None,
) -> dict[str, h5py.Dataset]:
    """Scales of every axis but ``row``.

    Args:
        file: Where they go.
        sizes: Lengths of each variable's axes but ``row``, by name.
        layer_names: Labels of the layers.
        layers: Their numbers; counted from 0 by default.
    """
    lengths: dict[str, int] = {}
    for size in sizes:
        lengths.update(size)
    scales = _layer_scale(file, layer_names, layers)
    for axis in sorted(set(lengths) - {"layer"}):
        scales[axis] = writing.scale(file, axis, np.arange(lengths[axis], dtype=np.int32))
    return scales


def _layer_scale(
    group: h5py.Group, layer_names: Sequence[str], layers: Sequence[int] | None = None
) -> dict[str, h5py.Dataset]:
    numbers = np.array(range(len(layer_names)) if layers is None else layers, np.int32)
    scales = {"layer": writing.scale(group, "layer", numbers)}
    names = writing.label_dataset(group, "layer_name", layer_names)
    writing.explain(names, "", _LAYER_NAME)
    writing.attach(names, ("layer",), scales)
    return scales


def _tally_group(
    file: h5py.File,
    tallies: Mapping[str, np.ndarray],
    layer_names: Sequence[str],
    labels: summary.Labels | None,
) -> None:
    group = writing.new_group(file, "tally")
    scales = _layer_scale(group, layer_names)
    named = summary.axis_labels(tallies) | dict(labels or {})
    for name, data in sorted(tallies.items()):
        tally = definitions.BY_NAME[name]
        if data.dtype != np.int64 or data.ndim != len(tally.axes):
            raise ValueError(f"tally {name} is {data.dtype} {data.shape}")
        for axis, length in zip(tally.axes, data.shape, strict=True):
            if axis not in scales:
                scales[axis] = _tally_scale(group, axis, length, named.get(axis))
        item = writing.dataset(group, name, data, compress=True)
        writing.explain(item, tally.unit, tally.meaning)
        item.attrs["merge"] = tally.merge
        if "layer" in tally.axes:
            item.attrs["coordinates"] = "layer_name"
        writing.attach(item, tally.axes, scales)
    if "ln_rank_bin" in scales:
        writing.scale(group, "ln_rank_edge", bins.LN_RANK_EDGES)
    if "log_bin" in scales:
        writing.scale(group, "log_edge", bins.LOG_EDGES)


def _tally_scale(
    group: h5py.Group, axis: str, length: int, labels: Sequence[str] | None
) -> h5py.Dataset:
    if labels is None:
        return writing.scale(group, axis, np.arange(length, dtype=np.int32))
    item = writing.label_dataset(group, axis, labels)
    writing.make_scale(item, axis)
    return item


def explain_quantity(
    item: h5py.Dataset,
    name: str,
    scales: Mapping[str, h5py.Dataset],
    version: int = schema.FORMAT_VERSION,
) -> None:
    """Gives a quantity's rows their unit, meaning and axes, and the mark of a missing value.

    The mark is ``_FillValue``, by which readers that follow the CF conventions mask. It is left
    out where every row has a value: such readers turn integers with a mark into floats. Ids have
    the older ``missing`` too.
    """
    quantity = schema.QUANTITIES[name]
    writing.explain(item, quantity.unit, quantity.meaning)
    if quantity.kind == "id":
        item.attrs["missing"] = np.array(np.iinfo(item.dtype).max, item.dtype)
    fill = schema.fill_value(name, item.dtype)
    if fill is not None and version > 3:
        item.attrs["_FillValue"] = fill
    if "layer" in quantity.axes:
        item.attrs["coordinates"] = "layer_name"
    writing.attach(item, quantity.axes, scales)
