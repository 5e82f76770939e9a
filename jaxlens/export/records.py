"""Columns of NumPy arrays as Parquet, CSV or JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors
from jaxlens.export import text
from jaxlens.files import outputs, publish

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".csv", ".csv.gz", ".json")

Columns = Mapping[str, tuple[np.ndarray, np.ndarray | None]]
"""Values by name, and where they are missing; floats are missing where they are NaN."""


def require(path: Path) -> None:
    """Refuses a file that could not be written, before the work for it is done.

    Raises:
        ConfigError: Another suffix, the file exists, or it is a directory or a socket.
        MissingError: pyarrow, which Parquet and CSV need, is not installed.
        StorageError: The folder is not there, or nothing may be written into it.
    """
    streams = outputs.is_stream(path)
    if not streams and not path.name.endswith(FORMATS):
        raise errors.ConfigError(
            f"{path} does not name a table", f"let it end in {', '.join(FORMATS)}"
        )
    if not streams and os.path.lexists(path):
        raise errors.ConfigError(f"{path} exists", "remove it, or name another --out")
    outputs.require(path)
    if path.suffix != ".json":
        errors.require_package("pyarrow", "data", "files of Parquet and CSV")


def is_spreadsheet(path: Path) -> bool:
    """Whether a path is written as CSV, as a device or pipe is whose suffix names no format."""
    return not path.name.endswith((".parquet", ".json"))


def write(path: Path, columns: Columns, about: Mapping[str, Any]) -> int:
    r"""Writes a record for each entry of the columns.

    Values of several types, and whole numbers beyond 64 bits, are text in Parquet and CSV; lists
    and objects are JSON where they do not fit a type of Arrow, and always in CSV. In CSV texts are
    escaped as in exports, so that no cell begins a formula, and bytes likewise. A surrogate alone,
    which UTF-8 cannot hold, is ``\ud800`` in Parquet and in JSON, and three ``\xNN`` in CSV.

    Args:
        path: File to create, or a device or pipe to write to; its suffix says the format.
        columns: What to write.
        about: What JSON says beside the records.

    Returns:
        Number of records.

    Raises:
        ConfigError: The file exists, or its suffix is another one.
        StorageError: The system refused.
    """
    require(path)
    streams = outputs.is_stream(path)
    if path.suffix == ".json":
        records = _records(columns)
        document = json.dumps({**about, "records": records}, allow_nan=False, default=_said)
        if streams:
            outputs.write(path, document.encode())
        else:
            publish.publish(path, document.encode(), replace=False)
        return len(records)
    from jaxlens.export import formats

    to: formats.Format = "csv" if is_spreadsheet(path) else "parquet"
    table = _table(columns, spreadsheet=to == "csv")
    if streams:
        outputs.write(path, formats.encode(path, to, table.schema, [table]))
        return table.num_rows
    return formats.write(path, to, table.schema, [table])[0]


def plain(columns: Columns) -> dict[str, list[Any]]:
    """Columns as plain values, None where they are missing."""
    return {name: _plain(*pair) for name, pair in columns.items()}


def _records(columns: Columns) -> list[dict[str, Any]]:
    lists = plain(columns)
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _plain(values: np.ndarray, absent: np.ndarray | None) -> list[Any]:
    if values.dtype.kind == "f":
        # The shortest text that is the same float32.
        return [None if math.isnan(value) else float(str(value)) for value in values]
    plain = [_finite(value) for value in values.tolist()]
    if absent is None:
        return plain
    return [None if gone else value for value, gone in zip(plain, absent.tolist(), strict=True)]


def _finite(value: Any) -> Any:
    """A value without the numbers that JSON lacks, also inside lists and objects."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {_key(key): _finite(one) for key, one in value.items()}
    return value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(_said(key))


def _said(value: Any) -> str:
    """What JSON has no type for."""
    return _text(value) if isinstance(value, bytes) else str(value)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _table(columns: Columns, spreadsheet: bool) -> pa.Table:
    import pyarrow as pa

    heading = _escape if spreadsheet else _utf_8
    return pa.table({heading(name): _arrow(*pair, spreadsheet) for name, pair in columns.items()})


def _escape(word: str | bytes) -> str:
    raw = word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass")
    return text.escape(raw, spreadsheet=True)


def _utf_8(word: str | bytes) -> str:
    return _text(word if isinstance(word, bytes) else word.encode("utf-8", "backslashreplace"))


def _arrow(values: np.ndarray, absent: np.ndarray | None, spreadsheet: bool) -> pa.Array:
    import pyarrow as pa

    if values.dtype.kind == "f":
        return pa.array(values, mask=np.isnan(values))
    if values.dtype != object:
        return pa.array(values, mask=absent)
    items = values.tolist()
    made = _typed(items)
    if made is not None and not (spreadsheet and _is_text(made.type)):
        return made
    encode = _escape if spreadsheet else _utf_8
    words = [None if one is None else encode(_word(one)) for one in items]
    return pa.array(words, pa.string())


def _typed(values: list[Any]) -> pa.Array | None:
    """Values of one type of Arrow's; None where there is no such type."""
    import pyarrow as pa

    kinds: list[pa.DataType | None] = [None]
    if all(one is None or type(one) is int for one in values):
        kinds.append(pa.uint64())
    for kind in kinds:
        # What Arrow raises, of its own and else, is one of these.
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError, ArithmeticError):
            return pa.array(values, kind)
    return None


def _is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are formatted here before they become cells."""
    import pyarrow as pa

    types = pa.types
    plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_null, types.is_decimal)
    dated = (types.is_date, types.is_time, types.is_timestamp)
    return not any(is_kind(kind) for is_kind in (*plain, *dated))


def _word(value: Any) -> str | bytes:
    if isinstance(value, (str, bytes)):
        return value
    return json.dumps(_finite(value), default=_said) if _is_nested(value) else _scalar(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict))


def _scalar(value: Any) -> str:
    """A number or a truth value as JSON spells it; anything else in Python's words."""
    return json.dumps(value, default=_said) if isinstance(value, (bool, int, float)) else str(value)
