"""Fields of documents that a run keeps: a value for each document and field, or null.

Most fields have few different values, so each value is stored once and documents hold its number.
Values are strings, whole numbers of 64 bits, other numbers, and booleans; their kind is stored as
a letter before their text. Long strings are cut, and end in a hash of the whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from jaxlens import schema

Value = str | int | float | bool | None

VALUE_BYTES = 4 + 1 + schema.STRING_BYTES
"""Most bytes that a value of a document takes: its number, its kind, its text."""

PREFIX = "document."
"""What names of kept fields begin with, beside names of quantities."""

CUT, OTHER, MISSING = "cut", "other", "missing"
"""Strings that were cut, values of other kinds (stored as null), and fields that were not there."""


@dataclass(frozen=True, eq=False)
class Metadata:
    """Kept fields of all documents.

    Attributes:
        names: Fields.
        codes: Number of each document's value among those of the field; -1 for null.
        values: The different values of each field, in the order in which they were met.
    """

    names: tuple[str, ...] = ()
    codes: Int[np.ndarray, "document field"] = field(
        default_factory=lambda: np.zeros((0, 0), np.int32)
    )
    values: tuple[tuple[Value, ...], ...] = ()

    def column(self, name: str) -> Shaped[np.ndarray, " document"]:
        """Values of a field, an array of Python objects, None for null.

        Raises:
            KeyError: There is no such field.
        """
        if name not in self.names:
            raise KeyError(name)
        number = self.names.index(name)
        known = np.empty(len(self.values[number]) + 1, object)
        known[:-1] = self.values[number]
        known[-1] = None
        return known[self.codes[:, number]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As they are stored; none where nothing is kept."""
        if not self.names:
            return {}
        values = [_encoded(value) for column in self.values for value in column]
        return {
            "kept_name": np.array([name.encode() for name in self.names]),
            "kept_code": np.asarray(self.codes, np.int32),
            "kept_start": np.cumsum([0, *map(len, self.values)]).astype(np.int64),
            # HDF5 has no strings of no length.
            "kept_value": np.array(values or [b"s"]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_documents: int) -> Metadata:
        """What `to_arrays` gave.

        Raises:
            ValueError: The arrays do not fit each other.
        """
        if "kept_name" not in arrays:
            return cls()
        for name, (kinds, axes) in _FIELDS.items():
            if arrays[name].dtype.kind not in kinds or arrays[name].ndim != axes:
                raise ValueError(f"{name} is {arrays[name].dtype} of {arrays[name].ndim} axes")
        names = tuple(raw.decode("utf-8") for raw in arrays["kept_name"].tolist())
        start, codes = arrays["kept_start"].astype(np.int64), arrays["kept_code"]
        stored = arrays["kept_value"].tolist()
        ordered = start[0] == 0 and np.all(start[1:] >= start[:-1]) and start[-1] <= len(stored)
        if codes.shape != (n_documents, len(names)) or len(start) != len(names) + 1 or not ordered:
            raise ValueError("its kept fields differ in length")
        codes = codes.astype(np.int64)
        if codes.size and not ((codes >= -1) & (codes < start[1:] - start[:-1])).all():
            raise ValueError("a kept field has a value that is not there")
        values = [_decoded(raw) for raw in stored[: int(start[-1])]]
        pieces = tuple(tuple(values[a:b]) for a, b in itertools.pairwise(start))
        return cls(names, codes.astype(np.int32), pieces)


_FIELDS = {
    "kept_name": ("S", 1),
    "kept_code": ("iu", 2),
    "kept_start": ("iu", 1),
    "kept_value": ("S", 1),
}
"""Kinds of type, and number of axes."""


class Builder:
    """Metadata while documents come in.

    Attributes:
        counts: How many values of each field were cut, of another kind, or missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.counts = {name: dict.fromkeys((CUT, OTHER, MISSING), 0) for name in self.names}
        # By kind too: True, 1 and 1.0 are equal in Python.
        self._known: list[dict[tuple[str, Value], int]] = [{} for _ in self.names]
        self._codes = array("i")

    def add(self, values: Sequence[Any]) -> None:
        """The next document's values, in the order of the names; what is not given is missing."""
        for number, name in enumerate(self.names):
            value, what = stored(values[number] if number < len(values) else None)
            if what:
                self.counts[name][what] += 1
            known = self._known[number]
            key = (_kind(value), value)
            self._codes.append(-1 if value is None else known.setdefault(key, len(known)))

    def finish(self) -> Metadata:
        """All of them."""
        if not self.names:
            return Metadata()
        codes = np.array(self._codes, np.int32).reshape(-1, len(self.names))
        values = tuple(tuple(value for _, value in known) for known in self._known)
        return Metadata(self.names, codes, values)


def stored(value: Any) -> tuple[Value, str]:
    """A value as it is kept, and why it is another than was given, if it is."""
    if value is None:
        return None, MISSING
    if isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value, ""
    if isinstance(value, int):
        return (value, "") if -(2**63) <= value < 2**63 else _string(str(value))
    return _string(value) if isinstance(value, str) else (None, OTHER)


def _string(text: str) -> tuple[str, str]:
    # Fixed-width strings drop NULs at their end.
    whole = text.replace("\0", "\ufffd").encode("utf-8", "replace")
    if len(whole) <= schema.STRING_BYTES:
        return whole.decode("utf-8"), ""
    mark = "~" + hashlib.blake2b(whole, digest_size=4).hexdigest()
    return whole[: schema.STRING_BYTES - len(mark)].decode("utf-8", "ignore") + mark, CUT


def as_text(value: Value) -> str:
    """A value as a word: text as it is, null as ``null``, the others as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def names_in(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields that a run keeps, by its spec."""
    corpus = spec.get("corpus")
    names = corpus.get("keep") if isinstance(corpus, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _kind(value: Value) -> str:
    return "b" if isinstance(value, bool) else type(value).__name__[:1]


def _encoded(value: Value) -> bytes:
    text = value if isinstance(value, str) else repr(value)
    return (_kind(value) + text).encode()


def _decoded(raw: bytes) -> Value:
    kind, text = raw[:1], raw[1:].decode("utf-8")
    if kind == b"s":
        return text
    if kind == b"b" and text in ("True", "False"):
        return text == "True"
    if kind == b"i" and len(text) <= 20:
        return int(text)
    if kind == b"f" and math.isfinite(number := float(text)):
        return number
    raise ValueError(f"a kept value of kind {kind!r:.10}")
