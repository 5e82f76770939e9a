"""One stored tensor of a checkpoint: what its header says, and its value once it is wanted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxlens import errors
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import checks, layout, variants

_ROWS = 64
"""Rows that are transposed at a time."""


class Tensor(NamedTuple):
    """One stored tensor, not read yet, so that it can be refused for the price of a header.

    Attributes:
        name: Its name there.
        dtype: Name of its type there.
        shape: Its shape there.
        read: Gives its value.
        file: What to call the file that it came from.
        read_rows: Gives some of its rows, if they can be read without the others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    file: str
    read_rows: Callable[[slice], np.ndarray] | None = None


def of_array(name: str, value: np.ndarray, file: str) -> Tensor:
    """A tensor that is in memory."""
    return Tensor(name, value.dtype.name, value.shape, lambda: value, file)


def is_turned(
    tensor: Tensor, leaf: layout.Leaf, flavour: layout.Flavour, kernels: list[variants.Kernel]
) -> bool:
    """Whether a tensor is the transpose of ours, as far as its shape tells that.

    Kernels that tell are added to ``kernels``.

    Raises:
        DataError: Its type or shape does not fit.
    """
    where = _where(tensor)
    checks.require_dtype(tensor.dtype, where)
    shape = leaf.shape
    is_turned = flavour in leaf.transposed_in
    if leaf.either_way and not leaf.is_square:
        is_turned = is_turned if tensor.shape not in (shape, shape[::-1]) else tensor.shape != shape
        kernels.append(variants.Kernel(where, leaf, is_turned))
    checks.require_shape(tensor.shape, shape[::-1] if is_turned else shape, where)
    return is_turned


def read(tensor: Tensor, is_turned: bool) -> np.ndarray:
    """The value of a tensor, float32 and in our orientation.

    Raises:
        DataError: It is not finite.
    """
    return _float32(tensor.read().T if is_turned else tensor.read(), tensor)


def chunks(tensor: Tensor, is_turned: bool, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The same in parts: which rows, and their values.

    Args:
        tensor: Any.
        is_turned: Whether it is the transpose of ours.
        size: Numbers in a part at most, if a row has no more.

    Raises:
        DataError: It is not finite; parts before the one at fault have been given.
    """
    read_rows, shape = tensor.read_rows, tensor.shape[::-1] if is_turned else tensor.shape
    if is_turned:
        read_rows = functools.partial(_turned, tensor.read())
    elif read_rows is None:
        read_rows = tensor.read().__getitem__
    rows = max(1, size // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], rows):
        chosen = slice(first, min(first + rows, shape[0]))
        yield chosen, _float32(read_rows(chosen), tensor)


def _turned(value: np.ndarray, chosen: slice) -> np.ndarray:
    """Some rows of the transpose of a matrix, in C order."""
    # As integers, and a few rows at a time: their columns then lie in pages that stay at hand.
    columns = value[:, chosen].view(f"u{value.itemsize}")
    rows = np.empty(columns.shape[::-1], columns.dtype)
    for first in range(0, len(columns), _ROWS):
        part = slice(first, first + _ROWS)
        rows[:, part] = columns[part].T
    return rows.view(value.dtype)


def _float32(value: np.ndarray, tensor: Tensor) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is refused on the next line
        value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise errors.DataError(
            f"{_where(tensor)} holds values that are not finite in float32", checks.FINITE
        )
    return value


def _where(tensor: Tensor) -> str:
    return f"{tensor.file}: tensor {untrusted.shown(tensor.name)}"
