"""Variables of an HDF5 image: quantities and tallies with their axes, units and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.store import lazy_column, summary
from jaxlens.store.hdf5 import writing
from jaxlens.tally import bins, definitions

_LAYER_NAME = "name of the residual stream: input, or the block it leaves"


def row_axes(name: str, data: np.ndarray, n_rows: int) -> dict[str, int]:
    """Lengths of the axes of a quantity but ``row``.

    Raises:
        ValueError: The array has the wrong name, type or shape.
    """
    quantity = schema.QUANTITIES.get(name)
    if quantity is None or not lazy_column.is_stored_as(quantity, data.dtype, data.ndim):
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


def add_tallies(
    file: h5py.File,
    tallies: Mapping[str, np.ndarray],
    layer_names: Sequence[str],
    labels: summary.Labels | None,
) -> None:
    """Adds the group ``tally``: totals, their axes and the edges of their bins.

    Args:
        file: Where they go.
        tallies: Totals by name, int64.
        layer_names: Labels of the layers.
        labels: Labels of other axes; those of the schema by default.

    Raises:
        ValueError: A total has the wrong type or shape.
    """
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
