"""Which positions of prompts are read, and what is carried along with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlens import arguments, errors
from jaxlens.api.prompts import inputs, table


def rows(
    positions: Any, encoded: inputs.Encoded, problems: list[table.Problem]
) -> list[np.ndarray]:
    """Positions to read of each prompt; adds what has none to the problems.

    Raises:
        ConfigError: They are neither last, all nor numbers, or not of as many prompts.
    """
    count = len(encoded.ids)
    if isinstance(positions, (int, np.integer)) and not isinstance(positions, bool):
        positions = [positions]
    wanted: Iterator[Any]
    if isinstance(positions, str):
        if positions not in ("last", "all"):
            raise errors.ConfigError(
                f"positions are {errors.show(positions)}", "last, all, or numbers"
            )
        everything = positions == "all"
        wanted = (np.arange(len(ids)) if everything else [-1] for ids in encoded.ids)
    else:
        wanted = _wanted(positions, count)
    lines = []
    for number, (ids, positions_of_prompt) in enumerate(zip(encoded.ids, wanted, strict=True)):
        line = np.asarray(positions_of_prompt, np.int64).reshape(-1)
        if number in encoded.reasons:
            line = line[:0]
        elif not len(line) or (line < -len(ids)).any() or (line >= len(ids)).any():
            problems.append(table.Problem(number, inputs.NO_POSITION))
            line = line[(line >= -len(ids)) & (line < len(ids))]
        lines.append(np.unique(line % max(1, len(ids))))
    return lines


def _wanted(positions: Any, count: int) -> Iterator[Any]:
    refusal = errors.ConfigError(
        f"positions are {errors.show(positions)}",
        "last, all, numbers for all prompts, or a list of numbers for each prompt",
    )
    try:
        several = list(positions)
        nested = [np.atleast_1d(np.asarray(one)) for one in several]
    except (TypeError, ValueError) as error:
        raise refusal from error
    if not several or any(one.size and one.dtype.kind not in "iu" for one in nested):
        raise refusal
    if all(np.ndim(one) == 0 for one in several):
        return iter([several] * count)
    if len(several) != count:
        raise errors.ConfigError(
            f"positions of {len(several)} prompts for {count}", "give a list for each prompt"
        )
    return iter(nested)


def difference_of(wanted: Any, names: tuple[str, ...]) -> tuple[str, str] | None:
    """The two answers of the logit difference.

    Raises:
        ConfigError: One of them is unknown, or there are not two.
    """
    if wanted is None:
        return (names[0], names[1]) if len(names) == 2 else None
    several = None if isinstance(wanted, str) else arguments.listed(wanted)
    pair = (wanted,) if several is None else tuple(several)
    known = all(isinstance(one, str) and one in names for one in pair)
    if len(pair) != 2 or not known or pair[0] == pair[1]:
        names_shown = ", ".join(one if isinstance(one, str) else errors.show(one) for one in pair)
        raise errors.ConfigError(
            f"difference of {names_shown or 'nothing'}",
            f"name two different answers of these: {', '.join(names)}"
            if names
            else "there are no answers: give some",
        )
    return pair[0], pair[1]


def metadata_of(metadata: Mapping[str, Sequence[Any]] | None, count: int) -> dict[str, list[Any]]:
    """Columns of one value a prompt.

    Raises:
        ConfigError: They are not columns by name, or one has another length.
    """
    columns: dict[str, list[Any]] = {}
    if metadata is not None and not callable(getattr(metadata, "items", None)):
        raise errors.ConfigError(
            f"metadata are {arguments.described(metadata)}", "give a mapping of names to lists"
        )
    for key, column in () if metadata is None else metadata.items():
        name = str(key)
        if name in columns:
            raise errors.ConfigError(f"two columns of metadata are called {name!r}", "rename one")
        listed = arguments.listed(column)
        if listed is None:
            raise errors.ConfigError(
                f"metadata {name!r} are {arguments.described(column)}", "give a list"
            )
        columns[name] = listed
        if len(columns[name]) != count:
            raise errors.ConfigError(
                f"metadata {name!r} has {len(columns[name])} values for {count} prompts",
                "give one for each prompt",
            )
    return columns
