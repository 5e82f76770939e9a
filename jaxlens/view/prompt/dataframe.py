"""A readout as a data frame: one record a layer and real position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors
from jaxlens.view.prompt import prompt, readouts

if TYPE_CHECKING:
    import pandas

    from jaxlens import types


def of(readout: types.Readout) -> pandas.DataFrame:
    """The frame; see ``types.Readout.to_pandas``.

    Raises:
        ConfigError: The readout has no labels.
        MissingError: pandas is not installed.
    """
    pandas = errors.require_package("pandas", "view", "data frames")
    references = readouts.known(readout)
    labels = readout.labels
    real = np.asarray(references.mask, bool)
    line, position = np.nonzero(real)
    depth, count = len(labels.layers), len(line)
    token = np.tile(np.asarray(references.input)[real], depth)
    columns: dict[str, Any] = {
        "layer": np.repeat(np.array(labels.layers), count),
        "layer_name": pandas.Series(labels.layer_names, dtype="string").repeat(count).array,
        "batch": np.tile(line, depth),
        "position": np.tile(position, depth),
        "token_id": _column(token, token < 0),
        "token": _texts(token, labels),
    }
    for name, values in _quantities(readout, references).items():
        flat = values[:, real].reshape(depth * count, -1)
        if name.startswith("ties_"):
            absent = np.tile(_absent(name, references)[real], depth)[:, None]
        else:
            absent = flat < 0 if name.endswith("_id") else flat == 0
        columns |= {key: _column(*pair) for key, *pair in _numbered(name, flat, absent)}
        if name in _SPELLED and np.issubdtype(flat.dtype, np.integer):
            columns |= {key: _texts(ids, labels) for key, ids in _numbered(_SPELLED[name], flat)}
    return pandas.DataFrame(columns)


_SPELLED = {"top_id": "top_token", "follow_id": "follow_token"}


def _quantities(readout: types.Readout, references: types.References) -> dict[str, np.ndarray]:
    """Arrays ``[layer, batch, position, ...]``; followed tokens stand before their numbers."""
    columns: dict[str, np.ndarray] = {}
    for name, values in readout.present().items():
        if name in prompt.FOLLOWED and references.follow is not None:
            every = (len(readout.labels.layers), *np.shape(references.follow))
            columns.setdefault("follow_id", np.broadcast_to(references.follow, every))
        columns[name] = np.asarray(values)
    return columns


def _numbered(name: str, *flat: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Columns with their names, which are numbered from 1 where there are several."""
    several = flat[0].shape[1] > 1
    for number in range(flat[0].shape[1]):
        yield f"{name}.{number + 1}" if several else name, *(one[:, number] for one in flat)


def _absent(name: str, references: types.References) -> np.ndarray:
    """Where there was no token whose ties could be counted; 0 says that it had none."""
    tokens = getattr(references, name.removeprefix("ties_"), None)
    mask = np.asarray(references.mask)
    return ~mask if tokens is None else ~mask | (np.asarray(tokens) < 0)


def _column(values: np.ndarray, absent: np.ndarray) -> Any:
    """Ids and counts as whole numbers that may be missing; the rest as it is."""
    import pandas

    if np.issubdtype(values.dtype, np.integer):
        return pandas.arrays.IntegerArray(values.astype(np.int32), np.array(absent))
    # pandas does not know bfloat16.
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def _texts(ids: np.ndarray, labels: types.Labels) -> Any:
    """What tokens spell; missing without a tokenizer, and for ids without a token."""
    import pandas

    different, of_token = np.unique(ids, return_inverse=True)
    asked = different[different >= 0].tolist()
    token_bytes = labels.spell(asked) if labels.spell is not None else {}
    texts = [token_bytes.get(number, b"") for number in different.tolist()]
    words = [raw.decode("utf-8", "backslashreplace") if raw else None for raw in texts]
    return pandas.array(words, dtype=pandas.StringDtype()).take(of_token)
