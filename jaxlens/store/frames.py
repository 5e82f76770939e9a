"""A run as a data set of xarray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors, schema

if TYPE_CHECKING:
    import xarray

    from jaxlens.store import reader, rows


def dataset(
    run: reader.Run, names: Iterable[str] | None = None, masked: bool = True
) -> xarray.Dataset:
    """Rows as an ``xarray.Dataset``; see `reader.Run.to_xarray`.

    Raises:
        MissingError: xarray is not installed.
        ConfigError: The run does not record a quantity.
    """
    xarray = errors.require_package("xarray", "study", "datasets of xarray")
    columns = {name: run[name] for name in (run.names if names is None else names)}
    coordinates: dict[str, Any] = {
        "layer": np.arange(len(run.layer_names)),
        "layer_name": ("layer", np.array(run.layer_names, dtype=object)),
    }
    if run.n_rows:
        coordinates["row"] = np.arange(run.n_rows)
    variables = {name: _variable(column, masked) for name, column in columns.items()}
    about = {"Conventions": "CF-1.10", "spec_hash": run.spec_hash}
    return xarray.Dataset(variables, coordinates, about)


def _variable(column: rows.Column, masked: bool) -> tuple[Any, ...]:
    """Axes, values, attributes and encoding, as xarray would read them from a shard."""
    quantity, values, about = column.quantity, column[:], column.attributes
    fill = schema.fill_value(quantity.name, column.stored)
    if fill is None or not masked:
        return quantity.axes, values, about
    if values.dtype.kind != "f":
        # Ranks and ids of two bytes are exact as float32.
        wide = np.float32 if column.stored.itemsize <= 2 else np.float64
        values = np.where(values == quantity.absent, wide(np.nan), values.astype(wide))
    about.pop("missing", None)
    return quantity.axes, values, about, {"_FillValue": fill, "dtype": column.stored}
