"""Rows as Arrow tables, a batch at a time; what is missing is null."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import jaxlens
from jaxlens import schema
from jaxlens.export import selection, text
from jaxlens.store import document_fields, reader

GROUP_BYTES = 32 << 20
"""About as much of a table as is held at once, and as a row group of Parquet has."""

MAX_RECORDS = 1 << 17
"""Records of a row group, where `GROUP_BYTES` allows more."""


@dataclass(frozen=True)
class Texts:
    """Texts to be chosen from.

    Attributes:
        run: Where documents and tokens are known.
        tokens: Text of each token of the vocabulary; null for ids without a token.
        spreadsheet: See `text.escape`.
    """

    run: reader.Run
    tokens: pa.Array
    spreadsheet: bool

    def documents(self, rows: np.ndarray) -> pa.Array:
        """Id of the document of each of some rows, which are in order."""
        numbers = self.run.corpus.documents.of(rows)
        first = int(numbers[0])
        mine = self.run.corpus.documents.id[first : int(numbers[-1]) + 1]
        known = [text.escape(raw, self.spreadsheet) for raw in mine.tolist()]
        return pa.array(known, pa.string()).take(pa.array(numbers - first))

    def fields(self, rows: np.ndarray) -> Iterator[pa.Array]:
        """Kept fields of the document of each of some rows, which are in order."""
        documents = self.run.corpus.documents
        numbers = documents.of(rows)
        columns = selection.document_fields(self.run)
        for number, (column, values) in enumerate(zip(columns, documents.kept.values, strict=True)):
            known = list(values)
            if column.kind == "string":
                words = [document_fields.as_text(value).encode() for value in values]
                known = [text.escape(raw, self.spreadsheet) for raw in words]
            codes = documents.kept.codes[numbers, number]
            array = pa.array(known, getattr(pa, column.kind)())
            yield array.take(pa.array(codes, mask=codes < 0))

    def strings(self, rows: np.ndarray) -> pa.Array:
        """Text of the token of each of some rows, which follow each other."""
        ids = self.run.corpus.tokens(int(rows[0]), int(rows[-1]) + 1)
        return self.tokens.take(pa.array(ids))


def texts(run: reader.Run, spreadsheet: bool) -> Texts:
    """The texts of a run; it must have a token file."""
    known = [text.escape(raw, spreadsheet) or None for raw in run.corpus.token_strings.tolist()]
    return Texts(run, pa.array(known, pa.string()), spreadsheet)


def arrow_schema(fields: Sequence[selection.Field], about: Mapping[str, str]) -> pa.Schema:
    """Types, units and meanings.

    Units and meanings are also in the key ``jaxlens.columns`` of the file, as JSON, for tools
    that do not see the metadata of columns.

    Args:
        fields: Columns.
        about: Metadata of the file, without the prefix ``jaxlens.``.
    """
    explained = {field.name: {"units": field.unit, "meaning": field.meaning} for field in fields}
    more = {"version": jaxlens.__version__, "columns": json.dumps(explained), **about}
    return pa.schema(
        [
            pa.field(
                field.name,
                getattr(pa, field.kind)(),
                metadata={"units": field.unit, "long_name": field.meaning},
            )
            for field in fields
        ],
        metadata={f"jaxlens.{key}": value for key, value in more.items()},
    )


def tables(
    run: reader.Run, selected: selection.Selection, form: pa.Schema, words: Texts | None
) -> Iterator[pa.Table]:
    """The table, in pieces of `group_records` records whatever the shards are.

    Raises:
        DataError: A shard is damaged.
    """
    records = group_records(run, selected)
    most = max(1, records // selected.records_per_row)
    batches = run.batches(selected.names, most, selected.start, selected.stop)
    pieces = (
        pa.Table.from_arrays(list(_columns(run, selected, batch, words)), schema=form)
        for batch in batches
    )
    return grouped(pieces, records)


def group_records(run: reader.Run, selected: selection.Selection) -> int:
    """Records that are held, and written, at once."""
    size = selection.record_bytes(selection.fields(run, selected))
    return max(1, min(MAX_RECORDS, GROUP_BYTES // size))


def grouped(tables: Iterator[pa.Table], records: int) -> Iterator[pa.Table]:
    """The same records in tables of equal length, but for the last."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= records:
            cut = records - count
            yield pa.concat_tables([*held, table.slice(0, cut)])
            table, held, count = table.slice(cut), [], 0
        if table.num_rows:
            held.append(table)
            count += table.num_rows
    if held:
        yield pa.concat_tables(held)


def nullable(quantity: schema.Quantity, values: np.ndarray, kind: str) -> pa.Array:
    """Values of a quantity, one axis, with nulls for those that are missing."""
    if quantity.kind == "float":
        missing = np.isnan(values)
    elif quantity.kind == "id":
        missing = values < 0
    else:
        missing = np.full(len(values), False)
        if quantity.absent is not None:
            missing = values == quantity.absent
    return pa.array(values.astype(kind), mask=missing)


def _columns(
    run: reader.Run,
    selected: selection.Selection,
    batch: Mapping[str, np.ndarray],
    words: Texts | None,
) -> Iterator[pa.Array]:
    """The columns of a batch, in the order of `selection.fields`."""
    rows, each = batch["row"], selected.records_per_row
    yield pa.array(np.repeat(rows, each))
    if words is not None:
        places = pa.array(np.repeat(np.arange(len(rows)), each))
        yield words.documents(rows).take(places)
        yield words.strings(rows).take(places)
        yield from (column.take(places) for column in words.fields(rows))
    if selected.layout == "long":
        yield pa.array(np.tile(np.array(selected.layers, np.int32), len(rows)))
        names = pa.array(selection.labels([run.layer_names[layer] for layer in selected.layers]))
        yield names.take(pa.array(np.tile(np.arange(each), len(rows))))
    for name in selected.names:
        quantity, stored = run[name].quantity, run[name].stored
        kind = selection.kind(quantity, stored.name)
        for values in _split(quantity, batch[name], selected):
            yield nullable(quantity, values, kind)


def _split(
    quantity: schema.Quantity, block: np.ndarray, selected: selection.Selection
) -> Iterator[np.ndarray]:
    """The columns of one quantity: layer by layer, and place by place where there are several."""
    if "layer" not in quantity.axes:
        yield np.repeat(block, selected.records_per_row)
        return
    block = block.reshape(*block.shape[:2], -1)[:, selected.layers]
    if selected.layout == "long":
        yield from (block[:, :, number].reshape(-1) for number in range(block.shape[2]))
    else:
        # Once for all columns: each of them alone would walk through the whole block.
        yield from np.ascontiguousarray(block.reshape(len(block), -1).T)
