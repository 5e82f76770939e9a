"""A run as a data set of xarray, as a data frame of pandas, and in notebooks."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import arguments, errors, schema
from jaxlens.store import document_fields

if TYPE_CHECKING:
    import pandas
    import xarray

    from jaxlens.store import lazy_column, reader


LIMIT = 100_000
"""Most records of a data frame, unless the caller says."""


def dataset(
    run: reader.Run, names: Iterable[str] | None = None, masked: bool = True
) -> xarray.Dataset:
    """Rows as an ``xarray.Dataset``; see `reader.Run.to_xarray`.

    Raises:
        MissingError: xarray is not installed.
        ConfigError: The run does not record a quantity.
    """
    xarray = errors.require_package("xarray", "study", "datasets of xarray")
    masked = arguments.flag(masked, "masked")
    quantities = {name: run[name] for name in wanted(names, run.names)}
    coordinates: dict[str, Any] = {
        "layer": np.arange(len(run.layer_names)),
        "layer_name": ("layer", np.array(run.layer_names, dtype=object)),
    }
    if run.n_rows:
        coordinates["row"] = np.arange(run.n_rows)
    variables = {name: _variable(column, masked) for name, column in quantities.items()}
    about = {"Conventions": "CF-1.10", "spec_hash": run.spec_hash}
    return xarray.Dataset(variables, coordinates, about)


def _variable(column: lazy_column.Column, masked: bool) -> tuple[Any, ...]:
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


def records(
    run: reader.Run,
    names: Iterable[str] | None,
    start: int,
    stop: int | None,
    layers: Iterable[int | str] | None,
    limit: int | None,
) -> pandas.DataFrame:
    """Rows as a ``pandas.DataFrame``; see `reader.Run.to_pandas`.

    Raises:
        ConfigError: The run has no such quantity or layer.
        MissingError: pandas is not installed.
    """
    pandas = errors.require_package("pandas", "view", "data frames")
    all_names = wanted(names, (*run.names, *run.document_fields))
    document_names = [name for name in all_names if name.startswith(document_fields.PREFIX)]
    quantities = {name: run[name] for name in all_names if name not in document_names}
    layer_numbers = _layers(run, layers)
    layered = [name for name, column in quantities.items() if "layer" in column.quantity.axes]
    depth = len(layer_numbers) if layered else 1
    first, last = extent(start, stop, run.n_rows)
    end_of_limit = (
        last if limit is None else first + max(1, arguments.whole(limit, "limit") // depth)
    )
    end = min(last, end_of_limit)
    fields: dict[str, Any] = {"row": np.repeat(np.arange(first, max(first, end)), depth)}
    for name in (n for n in quantities if n not in layered):
        values = quantities[name][first:end]
        fields |= _pandas(quantities[name].quantity, np.repeat(values, depth, axis=0))
    if document_names:
        parts = list(run.batches(document_names, start=first, stop=end)) if end > first else []
        for name in document_names:
            values = [part[name] for part in parts]
            whole = np.concatenate(values) if values else np.zeros(0, object)
            fields[name] = np.repeat(whole, depth)
    if layered:
        count = max(0, end - first)
        labels = np.array([run.layer_names[number] for number in layer_numbers], object)
        fields["layer"] = np.tile(np.array(layer_numbers, np.int64), count)
        fields["layer_name"] = pandas.array(np.tile(labels, count).tolist(), dtype="string")
    for name in layered:
        values = quantities[name][first:end][:, layer_numbers]
        fields |= _pandas(quantities[name].quantity, values.reshape(-1, *values.shape[2:]))
    frame = pandas.DataFrame(fields)
    if end < last:
        frame.attrs["next_row"] = end
        warnings.warn(
            f"the data frame is cut after {len(frame):,} records, before row {end:,} of {last:,}: "
            f"give limit=None for all, start={end} to read on, or names= and layers= for less",
            stacklevel=3,
        )
    return frame


def wanted(names: Any, default: Iterable[str]) -> tuple[str, ...]:
    """The quantities that a caller asks for; ``default`` where none are named.

    Raises:
        ConfigError: They are not names.
    """
    chosen_names = arguments.names(names, "names", "names=['rank_input']")
    return tuple(default if chosen_names is None else chosen_names)


def extent(start: Any, stop: Any, count: int) -> tuple[int, int]:
    """First row and end of the rows ``start:stop``, as of a slice.

    Raises:
        ConfigError: One is not a whole number.
    """
    end = None if stop is None else arguments.whole(stop, "stop")
    first, last, _ = slice(arguments.whole(start, "start"), end).indices(count)
    return first, last


def _layers(run: reader.Run, layers: Iterable[int | str] | None) -> list[int]:
    labels = run.layer_names
    if layers is None:
        return list(range(len(labels)))
    listed = arguments.listed(layers)
    several: list[Any] = [layers] if listed is None else listed
    if not several:
        raise errors.ConfigError("no layers to read", "name at least one, or leave it out")
    numbers = []
    for one in several:
        if isinstance(one, str) and one in labels:
            numbers.append(labels.index(one))
        elif arguments.is_whole(one) and -len(labels) <= one < len(labels):
            numbers.append(int(one) % len(labels))
        else:
            known = f"{', '.join(labels)}, or 0 to {len(labels) - 1}"
            raise errors.ConfigError(f"no layer {errors.show(one)}", f"layers are {known}")
    return numbers


def _pandas(quantity: schema.Quantity, values: np.ndarray) -> dict[str, Any]:
    """The columns of a quantity; several where it has further axes."""
    import pandas

    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    columns = {}
    for number in range(flat.shape[1]):
        one = flat[:, number]
        if quantity.kind in ("rank", "id"):
            absent = one == 0 if quantity.kind == "rank" else one < 0
            # Ranks of large vocabularies need more than 16 bits; all fit 32.
            column: Any = pandas.arrays.IntegerArray(one.astype(np.int32), absent)
        else:
            column = one
        columns[f"{quantity.name}.{number + 1}" if flat.shape[1] > 1 else quantity.name] = column
    return columns


def facts(run: reader.Run) -> dict[str, str]:
    """Sizes of a run by name."""
    return {
        "tokens": f"{run.n_tokens:,}",
        "rows": f"{run.n_rows:,}",
        "layers": f"{len(run.layer_names):,}",
        "quantities": f"{len(run.names):,}",
    }


def fragment(run: reader.Run) -> str:
    """A run as HTML without a script: sizes, names, and a line for each layer."""
    from jaxlens.view.prompt import notebook

    sizes = facts(run) | {"recorded": ", ".join(run.names) or "tallies only"}
    parts = [notebook.facts(f"Run {run.path}", sizes)]
    summary: dict[str, dict[str, float]] = {}
    with contextlib.suppress(errors.JaxlensError):  # what is damaged is told where it is read
        summary = run.summary()
    all_columns = list(dict.fromkeys(name for line in summary.values() for name in line))
    shown = [name for name in all_columns if name in _SHOWN]
    if shown:
        lines = [
            [layer, *(_number(line, name) for name in shown)] for layer, line in summary.items()
        ]
        parts.append(notebook.table(["layer", *(_SHOWN[name] for name in shown)], lines))
    return "".join(parts)


_SHOWN = {
    "median_rank_input": "median rank of input",
    "median_rank_final": "median rank of final",
    "mean_kl_final": "mean KL(final‖layer), nat",
    "mean_kl_input": "mean KL(input‖layer), nat",
    "mean_entropy": "mean entropy, nat",
}


def _number(line: Any, name: str) -> str:
    value = line.get(name, np.nan)
    return "–" if np.isnan(value) else f"{value:,.1f}" if "rank" in name else f"{value:.3f}"
