"""A run as a data set of xarray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors

if TYPE_CHECKING:
    import xarray

    from jaxlens.store import reader


def dataset(run: reader.Run, names: Iterable[str] | None = None) -> xarray.Dataset:
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
    variables = {
        name: (column.quantity.axes, column[:], column.attributes)
        for name, column in columns.items()
    }
    about = {"Conventions": "CF-1.10", "spec_hash": run.spec_hash}
    return xarray.Dataset(variables, coordinates, about)
