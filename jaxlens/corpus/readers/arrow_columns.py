"""Columns of Arrow as values: which to read, text that stands as bytes, fields of structures."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

from jaxlens import errors
from jaxlens.corpus.readers import items, missing_text, skip_log
from jaxlens.files import compression, memory

# A hint stays readable beside a table of a thousand columns.
_SHOWN_CHARACTERS = 500
# Beside Arrow's own exception, of which not all that it raises are.
_REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, struct.error)


def arrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow.

    Raises:
        MissingError: The package is not installed.
    """
    return errors.require_package(name, "data", "Parquet and Arrow files")


def require(path: str, schema: Any, fields: items.Fields) -> list[str | None]:
    """Where the fields are in a schema: a column, or with dots a field of structures.

    Raises:
        DataError: There is no such text, it is nested, or two columns have one name.
    """
    columns = [name if _type(schema, name) is not None else None for name in fields.names]
    text, names = fields.names[0], schema.names
    if columns[0] is None:
        leaves = list(_leaves(schema))
        shown = ", ".join(leaves)[:_SHOWN_CHARACTERS]
        texts = [name for name in leaves if is_text(_type(schema, name))]
        remedy = f"name one: {missing_text.option(texts)}" if texts else "none of them is text"
        raise errors.DataError(f"{path} has no column {text!r}", f"its columns: {shown}; {remedy}")
    for column in filter(None, columns):
        top = column if column in names else column.partition(".")[0]
        if names.count(top) > 1:
            raise errors.DataError(
                f"{path} has {names.count(top)} columns {top!r}", "name the columns apart"
            )
    kind = _type(schema, text)
    if is_nested(kind):
        raise errors.DataError(
            f"{path}: the column {text!r} is not text, but {str(kind)[:_SHOWN_CHARACTERS]}",
            "name a column of text, or a field of it; a conversation must be one string first",
        )
    # A list or a structure cannot be an id, and could be large.
    return [
        None if column is None or is_nested(_type(schema, column)) else column for column in columns
    ]


def is_nested(kind: Any) -> bool:
    """Whether a type is a list, a map or a structure."""
    return arrow("pyarrow").types.is_nested(kind)


def is_text(kind: Any) -> bool:
    """Whether a type is that of text."""
    types = arrow("pyarrow").types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def values(
    path: str,
    batch: Any,
    columns: list[str | None],
    check: Callable[[Any], Any] = lambda column: column,
) -> Iterator[items.Found]:
    """The values of each row of a batch.

    Args:
        path: Of the file, for errors.
        batch: Of pyarrow.
        columns: See ``require``.
        check: Is given each column that is read and returns it, or refuses it.

    Raises:
        DataError: The batch is damaged.
    """
    arrays = [
        itertools.repeat(None)
        if column is None
        else call(path, lambda p=column: check(_column(batch, p)))
        for column in columns
    ]
    for scalars in zip(*arrays, strict=False):  # the text, which is first, is always there
        try:
            yield tuple(map(_value, scalars))
        except UnicodeDecodeError:
            yield skip_log.INVALID_UTF8


def call(path: str, work: Callable[[], Any]) -> Any:
    """Runs a call of pyarrow: what it refuses is damage; not so the system, or lack of memory."""
    try:
        return work()
    except MemoryError:
        raise
    except errors.JaxlensError:
        raise
    except OSError as error:
        memory.reraise(error)
        if error.errno is not None:
            raise
        raise compression.damaged(path, str(error)) from error
    except (*_REFUSALS, arrow("pyarrow").ArrowException) as error:
        memory.reraise(error)
        raise compression.damaged(path, str(error)) from error


def _column(batch: Any, name: str) -> Any:
    if name in batch.schema.names:
        return batch.column(name)
    top, *steps = name.split(".")
    # Unlike the structure's own child, a flattened one is missing where the structure is.
    return arrow("pyarrow.compute").struct_field(batch.column(top), steps)


def _type(schema: Any, name: str) -> Any:
    """Type of a column, or of a field of structures; None where there is none."""
    if name in schema.names:
        return schema.types[schema.names.index(name)]
    top, *steps = name.split(".")
    if not steps or top not in schema.names:
        return None
    kind = schema.types[schema.names.index(top)]
    for step in steps:
        known = arrow("pyarrow").types.is_struct(kind)
        index = kind.get_field_index(step) if known else -1
        if index < 0:
            return None
        kind = kind.field(index).type
    return kind


def _leaves(schema: Any) -> Iterator[str]:
    """Names of the columns, and of the fields directly in structures."""
    for name, kind in zip(schema.names, schema.types, strict=True):
        if arrow("pyarrow").types.is_struct(kind):
            yield from (f"{name}.{kind.field(i).name}" for i in range(kind.num_fields))
        else:
            yield name


def _value(scalar: Any) -> Any:
    """The Python value; what has none, such as a date out of range, as it is: no text, no id."""
    try:
        return None if scalar is None else scalar.as_py()
    except (UnicodeDecodeError, MemoryError):
        raise
    except (*_REFUSALS, arrow("pyarrow").ArrowException):
        return scalar
