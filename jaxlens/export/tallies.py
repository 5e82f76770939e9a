"""Totals as long tables, a record for each cell that is not zero; sampled rows in columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from jaxlens.export import selection, tables
from jaxlens.store import reader, summary
from jaxlens.tally import bins, definitions, sampling

_BLOCK_ITEMS = 1 << 20
"""Cells that are looked at at once."""

_AXES: dict[str, tuple[selection.Field, ...]] = {
    "layer": (
        selection.Field("layer", "int32", "1", "index of the residual stream, 0 the embedding"),
        selection.Field("layer_name", "string", "", "name of the residual stream"),
    ),
    "vocab": (
        selection.Field("token", "int32", "id", "token id"),
        selection.Field("token_string", "string", "", "text of the token, escaped"),
    ),
    "ln_rank_bin": (
        selection.Field("ln_rank_bin", "int32", "1", "bin of ln rank"),
        selection.Field("ln_rank_low", "float32", "1", "least ln rank of the bin"),
        selection.Field("ln_rank_high", "float32", "1", "least ln rank of the next bin"),
    ),
}
"""Columns of the axes that have more than an index."""


def form(run: reader.Run, name: str, words: tables.Texts | None) -> pa.Schema:
    """Schema of the table of a tally."""
    if definitions.BY_NAME[name].merge == "bottom_k":
        return _sample_form(run, name)
    tally, labels = definitions.BY_NAME[name], _labels(run)
    fields = [f for axis in tally.axes for f in _fields(axis, labels, words)]
    value = selection.Field("value", "int32", tally.unit, tally.meaning)
    about = {"spec_hash": run.spec_hash, "tally": name, "merge": tally.merge}
    made = tables.arrow_schema([*fields, value], about)
    last = made.get_field_index("value")
    exact = pa.from_numpy_dtype(run.tally[name].dtype)
    return made.set(last, made.field(last).with_type(exact))


def cells(
    run: reader.Run, name: str, words: tables.Texts | None, of: pa.Schema
) -> Iterator[pa.Table]:
    """The cells of a tally, a bounded number at a time, in the order of its axes."""
    tally, total, labels = definitions.BY_NAME[name], run.tally[name], _labels(run)
    if tally.merge == "bottom_k":
        used = total[total[:, 0] != sampling.NO_KEY]
        if len(used):
            yield pa.Table.from_arrays([pa.array(column) for column in used.T], schema=of)
        return
    step = max(1, _BLOCK_ITEMS // max(1, math.prod(total.shape[1:])))
    for start in range(0, len(total), step):
        block = total[start : start + step]
        places = np.nonzero(block)
        if not places[0].size:  # a row group has records, and a file may have no row group
            continue
        columns = [
            column
            for number, (axis, index) in enumerate(zip(tally.axes, places, strict=True))
            for column in _columns(axis, index + (0 if number else start), run, labels, words)
        ]
        yield pa.Table.from_arrays([*columns, pa.array(block[places])], schema=of)


def _sample_form(run: reader.Run, name: str) -> pa.Schema:
    """A column for each field of a sampled row; those in fixed point are 2**16 times the value."""
    fields = [
        selection.Field(field, "int64", sampling.unit(field), f"{field} of a sampled row")
        for field in sampling.fields(len(run.layer_names))
    ]
    about = {"spec_hash": run.spec_hash, "tally": name, "merge": definitions.BY_NAME[name].merge}
    return tables.arrow_schema(fields, about)


def _labels(run: reader.Run) -> Mapping[str, tuple[str, ...]]:
    return summary.axis_labels(run.tally) | dict(run.tally_labels)


def _fields(
    axis: str, labels: Mapping[str, tuple[str, ...]], words: tables.Texts | None
) -> tuple[selection.Field, ...]:
    if axis in labels:
        return (selection.Field(axis, "string", "", f"name of the {axis}"),)
    if axis == "vocab" and words is None:
        return _AXES[axis][:1]
    return _AXES.get(axis, (selection.Field(axis, "int32", "1", f"index of {axis}"),))


def _columns(
    axis: str,
    places: np.ndarray,
    run: reader.Run,
    labels: Mapping[str, tuple[str, ...]],
    words: tables.Texts | None,
) -> Iterator[pa.Array]:
    """What `_fields` names."""
    indices = pa.array(places)
    if axis in labels:
        yield pa.array(selection.labels(labels[axis]), pa.string()).take(indices)
        return
    yield pa.array(places.astype(np.int32))
    if axis == "layer":
        yield pa.array(selection.labels(run.layer_names), pa.string()).take(indices)
    elif axis == "vocab" and words is not None:
        yield words.tokens.take(indices)
    elif axis == "ln_rank_bin":
        yield pa.array(bins.LN_RANK_EDGES[places])
        yield pa.array(bins.LN_RANK_EDGES[places + 1])
