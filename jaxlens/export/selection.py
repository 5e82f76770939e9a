"""What is exported: quantities, layers, rows, and the columns that they make."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxlens import errors, schema
from jaxlens.export import text
from jaxlens.store import document_fields as metadata
from jaxlens.store import reader

Layout = Literal["wide", "long"]
"""One record a token, or one for each token and layer."""

Kind = Literal["int32", "int64", "float32", "float64", "bool_", "string"]

KIND_BYTES = {"int32": 4, "int64": 8, "float32": 4, "float64": 8, "bool_": 1, "string": 24}
"""Bytes of a value in memory; of text about so many."""

_IDENTIFIERS = {
    "row": ("int64", "1", "index of the token in the corpus, from 0"),
    "document_id": ("string", "", "id of the document, escaped"),
    "token_string": ("string", "", "text of the token, escaped"),
    "layer": ("int32", "1", "index of the residual stream, 0 the embedding"),
    "layer_name": ("string", "", "name of the residual stream: input, or the block it leaves"),
}


@dataclass(frozen=True)
class Field:
    """A column of a table.

    Attributes:
        name: Its heading.
        kind: Type of its values.
        unit: Unit, as of the quantity.
        meaning: One sentence.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str


@dataclass(frozen=True)
class Selection:
    """Rows of a run.

    Attributes:
        names: Quantities, in the order of their columns.
        layers: Numbers of the layers, likewise.
        start: First row.
        stop: End of the rows, exclusive.
        layout: ``wide`` or ``long``.
        texts: Whether there are columns ``document_id`` and ``token_string``, and those of the
            documents' fields.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    start: int
    stop: int
    layout: Layout = "wide"
    texts: bool = False

    @property
    def records_per_row(self) -> int:
        """Records that a row makes."""
        return len(self.layers) if self.layout == "long" else 1


def select(
    run: reader.Run,
    names: Sequence[str] | None,
    layers: Sequence[str] | None,
    start: int,
    stop: int | None,
    layout: Layout,
    texts: bool,
) -> Selection:
    """What a user asked for, checked.

    Args:
        run: Where it comes from.
        names: Quantities; all by default.
        layers: Numbers, negative ones from the end, or names; all by default.
        start: First row.
        stop: End of the rows, exclusive; all by default.
        layout: ``wide`` or ``long``.
        texts: Whether ids of documents and texts of tokens are wanted.

    Raises:
        ConfigError: There are no such quantities, layers or rows.
    """
    if not run.n_rows:
        raise errors.ConfigError(
            f"{run.path} has no rows, only tallies", "export them with --tallies"
        )
    for name in names or ():
        _ = run[name]  # refuses what is not recorded
    end = run.n_rows if stop is None else stop
    if not 0 <= start < end <= run.n_rows:
        raise errors.ConfigError(
            f"rows {start} to {end} of {run.n_rows}",
            f"choose --start and --stop between 0 and {run.n_rows}, start before stop",
        )
    numbers = range(len(run.layer_names))
    wanted = numbers if layers is None else [_layer(run, layer) for layer in layers]
    return Selection(
        names=tuple(dict.fromkeys(run.names if names is None else names)),
        layers=tuple(dict.fromkeys(wanted)),
        start=start,
        stop=end,
        layout=layout,
        texts=texts,
    )


def fields(run: reader.Run, selection: Selection) -> list[Field]:
    """The columns of the table, in order."""
    before = ["row", *(("document_id", "token_string") if selection.texts else ())]
    before += ["layer", "layer_name"] if selection.layout == "long" else []
    selected = [Field(name, *_IDENTIFIERS[name]) for name in before]  # type: ignore[arg-type]
    after_text = before.index("token_string") + 1 if selection.texts else 0
    selected[after_text:after_text] = document_fields(run) if selection.texts else []
    for name in selection.names:
        quantity, stored = run[name].quantity, run[name].stored
        for heading, where in _headings(run, selection, name):
            meaning = quantity.meaning + where
            selected.append(Field(heading, kind(quantity, stored.name), quantity.unit, meaning))
    return selected


def document_fields(run: reader.Run) -> list[Field]:
    """Columns of the kept fields of documents; of mixed kinds they are text."""
    columns = run.corpus.documents.kept
    return [
        Field(heading, _kind_of(values), "", f"field {name} of the document")
        for heading, name, values in zip(
            labels([metadata.PREFIX + name for name in columns.names]),
            labels(columns.names),
            columns.values,
            strict=True,
        )
    ]


def _kind_of(values: Sequence[metadata.Value]) -> Kind:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "bool_"
    if kinds and kinds <= {int, float}:
        return "int64" if kinds == {int} else "float64"
    return "string"


def labels(names: Sequence[str]) -> list[str]:
    """Names of layers and of other labels; they come out of files, so they are escaped."""
    return [text.escape(name.encode(), spreadsheet=True) for name in names]


def record_bytes(columns: Sequence[Field]) -> int:
    """About as many bytes as a record takes in memory."""
    return sum(KIND_BYTES[column.kind] for column in columns)


def _headings(run: reader.Run, selection: Selection, name: str) -> Iterator[tuple[str, str]]:
    """Headings of a quantity's columns with what they add to its meaning, layer by layer."""
    column = run[name]
    layered = "layer" in column.quantity.axes
    places = math.prod(column.shape[2:])
    in_columns = layered and selection.layout == "wide"
    names = labels(run.layer_names)
    for layer in selection.layers if in_columns else (None,):
        for number in range(places):
            heading = name if column.ndim < 3 or places == 1 else f"{name}.{number + 1}"
            where = "" if heading == name else f"; number {number + 1}"
            if layer is not None:
                heading += f".{names[layer]}"
                where += f"; layer {layer}"
            yield heading, where


def kind(quantity: schema.Quantity, stored: str) -> Kind:
    """Signed integers, so that no difference of two columns wraps around; no half floats.

    Not every tool reads half floats from Parquet; as float32 their values are the same. Ranks
    and ids are below 2^20, so that 32 bits hold them.
    """
    if quantity.kind == "float":
        return "float32"
    return "int64" if quantity.kind == "column" and stored == "uint32" else "int32"


def _layer(run: reader.Run, wanted: str) -> int:
    names = run.layer_names
    if wanted in names:
        return names.index(wanted)
    try:
        number = int(wanted)
    except ValueError:
        number = len(names)
    if not -len(names) <= number < len(names):
        raise errors.ConfigError(
            f"there is no layer {wanted}",
            f"layers are 0 to {len(names) - 1}, or {names[0]}, {', '.join(names[1:3])}, ...",
        )
    return number % len(names)
