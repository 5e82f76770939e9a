"""Columns of NumPy arrays as Parquet, CSV or JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors
from jaxlens.export import text
from jaxlens.store import publish

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".csv", ".csv.gz", ".json")

Columns = Mapping[str, tuple[np.ndarray, np.ndarray | None]]
"""Values by name, and where they are missing; floats are missing where they are NaN."""


def require(path: Path) -> None:
    """Refuses a file that could not be written, before the work for it is done.

    Raises:
        ConfigError: Another suffix, or the file exists.
        MissingError: pyarrow, which Parquet and CSV need, is not installed.
    """
    if not path.name.endswith(FORMATS):
        raise errors.ConfigError(
            f"{path} does not name a table", f"let it end in {', '.join(FORMATS)}"
        )
    if os.path.lexists(path):
        raise errors.ConfigError(f"{path} exists", "remove it, or name another --out")
    if path.suffix != ".json":
        errors.require_package("pyarrow", "data", "files of Parquet and CSV")


def write(path: Path, columns: Columns, about: Mapping[str, Any]) -> int:
    """Writes a record for each entry of the columns.

    Args:
        path: File to create; its suffix says the format. In CSV, texts are escaped as in exports,
            so that no cell begins a formula.
        columns: What to write.
        about: What JSON says beside the records.

    Returns:
        Number of records.

    Raises:
        ConfigError: The file exists, or its suffix is another one.
        StorageError: The system refused.
    """
    require(path)
    if path.suffix == ".json":
        records = _records(columns)
        data = json.dumps({**about, "records": records}, allow_nan=False, default=str)
        publish.publish(path, data.encode(), replace=False)
        return len(records)
    from jaxlens.export import formats

    to: formats.Format = "parquet" if path.suffix == ".parquet" else "csv"
    table = _table(columns, spreadsheet=to == "csv")
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
    found = [_finite(value) for value in values.tolist()]
    if absent is None:
        return found
    return [None if gone else value for value, gone in zip(found, absent.tolist(), strict=True)]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(columns: Columns, spreadsheet: bool) -> pa.Table:
    import pyarrow as pa

    from jaxlens.export import text

    def heading(name: str) -> str:
        raw = name.encode("utf-8", "replace")
        return text.escape(raw, spreadsheet=True) if spreadsheet else raw.decode()

    return pa.table({heading(name): _arrow(*pair, spreadsheet) for name, pair in columns.items()})


def _arrow(values: np.ndarray, absent: np.ndarray | None, spreadsheet: bool) -> Any:
    import pyarrow as pa

    if values.dtype.kind == "f":
        return pa.array(values, mask=np.isnan(values))
    if values.dtype != object:
        return pa.array(values, mask=absent)
    found = values.tolist()
    nested = any(isinstance(one, (list, tuple, dict)) for one in found)
    if not (spreadsheet and nested):
        try:
            made = pa.array(found)
        except (pa.ArrowException, TypeError, ValueError):  # values of several types
            nested = True
        else:
            return _escaped(found) if spreadsheet and pa.types.is_string(made.type) else made
    words = [None if one is None else _word(one) for one in found]
    return _escaped(words) if spreadsheet else pa.array(words, pa.string())


def _escaped(words: list[Any]) -> Any:
    import pyarrow as pa

    raw = (None if one is None else one.encode("utf-8", "replace") for one in words)
    return pa.array([None if one is None else text.escape(one, True) for one in raw], pa.string())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
