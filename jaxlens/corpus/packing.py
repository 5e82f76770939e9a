"""Windows into the lines of steps: bin packing of contiguous runs, deterministic."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int


def pack(
    size: Int[np.ndarray, " window"], length: int, lines: int
) -> tuple[Int[np.ndarray, " steps_plus_1"], Int[np.ndarray, " window"]]:
    """First window of each step, and the line of each window."""
    total = np.concatenate([[0], np.cumsum(size, dtype=np.int64)])
    line = np.zeros(len(size), np.int32)
    bounds = [0]
    while bounds[-1] < len(size):
        first = bounds[-1]
        room = np.searchsorted(total, total[first] + lines * length, side="right") - 1
        lines_of = _fill(size[first:room].tolist(), length, lines)
        line[first : first + len(lines_of)] = lines_of
        bounds.append(first + len(lines_of))
    return np.asarray(bounds, np.int64), line


def _fill(sizes: list[int], length: int, lines: int) -> list[int]:
    """Lines of the longest run of windows, from the first on, that was found to fit.

    Windows are placed as they come; then, by bisection, longer runs are tried with the largest
    placed first, which leaves less unused.
    """
    best = _place(sizes, range(len(sizes)), length, lines)
    low, high = len(best), len(sizes)
    while low < high:
        middle = (low + high + 1) // 2
        largest_first = sorted(range(middle), key=sizes.__getitem__, reverse=True)
        lines_of = _place(sizes[:middle], largest_first, length, lines)
        if len(lines_of) == middle:
            best, low = lines_of, middle
        else:
            high = middle - 1
    return best


def _place(sizes: list[int], order: Iterable[int], length: int, lines: int) -> list[int]:
    """Lines by best fit, in the given order; cut before the first window that fits nowhere."""
    room = [length] * lines  # ascending
    owner = list(range(lines))
    lines_of = [0] * len(sizes)
    for done, item in enumerate(order):
        slot = bisect.bisect_left(room, sizes[item])
        if slot == lines:
            return lines_of[:done]
        rest = room.pop(slot) - sizes[item]
        line = owner.pop(slot)
        lines_of[item] = line
        slot = bisect.bisect_left(room, rest)
        room.insert(slot, rest)
        owner.insert(slot, line)
    return lines_of


def columns(
    size: Int[np.ndarray, " window"],
    step_window: Int[np.ndarray, " steps_plus_1"],
    line: Int[np.ndarray, " window"],
) -> tuple[Int[np.ndarray, " window"], Int[np.ndarray, " window"]]:
    """Column and number in its line of each window; a line keeps the order of the file."""
    step = np.repeat(np.arange(len(step_window) - 1), np.diff(step_window))
    order = np.lexsort((line, step))  # stable, so windows of a line stay in order
    fresh = np.ones(len(size), bool)
    fresh[1:] = (np.diff(step[order]) != 0) | (np.diff(line[order]) != 0)
    group = np.cumsum(fresh) - 1
    before = np.cumsum(size[order], dtype=np.int64) - size[order]
    rank = np.arange(len(size))
    column = np.empty(len(size), np.int32)
    segment = np.empty(len(size), np.int32)
    column[order] = before - before[fresh][group]
    segment[order] = rank - rank[fresh][group] + 1
    return column, segment
