"""The kinds of files that are read, by their suffixes: one table.

A new format is a module with a reader and a line in ``_TABLE``.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxlens.corpus.readers import (
    arrow,
    delimited,
    items,
    json_files,
    json_lines,
    parquet,
    plain_text,
    tar,
)
from jaxlens.files import compression


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: How its names end, in lower case.
        read: Reads its records.
        rank: Of a folder or a pattern only the files of the lowest rank in it are read. So files
            beside a corpus, such as its description in JSON, do not become part of it, and folders
            are read as they were before formats of later ranks were added.
        compressible: Whether a suffix of ``compression.SUFFIXES`` may follow.
    """

    suffix: str
    read: items.Reader
    rank: int = 0
    compressible: bool = False


_TABLE = (
    Format(".txt", plain_text.read, compressible=True),
    Format(".jsonl", json_lines.read_file, compressible=True),
    Format(".ndjson", json_lines.read_file, compressible=True),
    Format(".json", json_files.read, rank=2, compressible=True),
    Format(".csv", delimited.read_csv, rank=1, compressible=True),
    Format(".tsv", delimited.read_tsv, rank=1, compressible=True),
    Format(".tar", tar.read, rank=1, compressible=True),
    Format(".tgz", tar.read, rank=1),
    Format(".parquet", parquet.read),
    Format(".arrow", arrow.read, rank=1),
)

FORMATS: dict[str, Format] = {}
"""Formats by suffix, that of a compression included."""


def register(kind: Format) -> None:
    """Adds a format."""
    for packing in compression.SUFFIXES if kind.compressible else ("",):
        FORMATS[kind.suffix + packing] = kind


for _kind in _TABLE:
    register(_kind)


def of_name(name: str) -> Format | None:
    """The format of a file name, in any case."""
    return FORMATS.get(suffix(name))


def suffix(name: str) -> str:
    """The key of ``FORMATS`` in which a file name ends, in any case; empty for none."""
    lower = name.lower()
    return next((end for end in FORMATS if lower.endswith(end)), "")


def supported() -> str:
    """The suffixes, for messages."""
    kinds = dict.fromkeys(FORMATS.values())
    packed = ", ".join(kind.suffix for kind in kinds if kind.compressible)
    plain = ", ".join(kind.suffix for kind in kinds if not kind.compressible)
    *packings, last = compression.SUFFIXES[1:]
    return f"{packed} (each also with {', '.join(packings)} or {last}), {plain}"
