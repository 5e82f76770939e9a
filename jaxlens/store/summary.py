"""Merged tallies, and the averages and medians that people ask of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlens import errors, schema
from jaxlens.store import bounds
from jaxlens.store.hdf5 import reading
from jaxlens.tally import axes, bins, definitions, sampling

Tallies = dict[str, np.ndarray]
Part = Mapping[str, Any]
"""Totals by name: arrays, or datasets of an open file."""
Labels = Mapping[str, tuple[str, ...]]
Check = Callable[[np.ndarray], None]
"""Refuses values that make no sense."""


@dataclass(frozen=True)
class Statistic:
    """A value a layer, derived from tallies.

    Attributes:
        values: float64 [layer]; NaN where nothing was counted.
        unit: Unit.
        meaning: One sentence.
    """

    values: np.ndarray
    unit: str
    meaning: str


def axis_labels(tallies: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names of the places of those axes of these tallies whose places have names."""
    names = [axis for name in tallies for axis in definitions.BY_NAME[name].axes]
    return {axis: axes.AXIS_LABELS[axis] for axis in names if axis in axes.AXIS_LABELS}


def add(
    total: Tallies | None,
    name: str,
    part: Part,
    sizes: bounds.Sizes | None = None,
) -> Tallies:
    """Merges the tallies of one more shard, in bounded pieces.

    Args:
        total: What was merged so far, which is altered; None for nothing.
        name: Of the shard, for errors.
        part: Its tallies: arrays, or datasets of an open file.
        sizes: What bounds its values, where they are to be checked.

    Raises:
        DataError: It has other tallies, types or shapes than the shards before, values that its
            tokens cannot add up to, or a sum is beyond 64 bits.
    """
    if total is not None and set(part) != set(total):
        odd = ", ".join(sorted(set(part) ^ set(total)))
        raise errors.DataError(f"{name} has other tallies than the first shard: {odd}", _REPAIR)
    merged: Tallies = {}
    for key, value in part.items():
        _check(name, key, value)
        merged[key] = np.empty(value.shape, np.int64) if total is None else total[key]
        if value.shape != merged[key].shape:
            raise errors.DataError(
                f"{name}: tally {key} is {value.shape}, elsewhere {merged[key].shape}", _REPAIR
            )

        def check(block: np.ndarray, key: str = key) -> None:
            if sizes is not None:
                bounds.check_tally(name, key, block, sizes)

        try:
            _MERGES[definitions.BY_NAME[key].merge](merged[key], value, total is None, check)
        except OverflowError as error:
            raise errors.DataError(
                f"{name}: tally {key} and those of the shards before exceed 64 bits",
                "no text is so long: jaxlens verify names what is damaged",
            ) from error
    return merged


def _sum(merged: np.ndarray, part: Any, first: bool, check: Check) -> None:
    for start, block in reading.blocks(part):
        check(block)
        out = merged[start : start + len(block)]
        if first:
            out[...] = block
            continue
        both = np.add(out, block)
        # Only a sum of two numbers of one sign can overflow, and then it has the other.
        if (((out ^ both) & (block ^ both)) < 0).any():
            raise OverflowError
        out[...] = both


def _bottom_k(merged: np.ndarray, part: Any, first: bool, check: Check) -> None:
    part = np.asarray(part[...], np.int64)
    check(part)
    both = part if first else np.concatenate([merged, part])
    merged[...] = sampling.lowest(both, len(merged))


_REPAIR = "jaxlens repair recomputes the shard"
_MERGES = {"sum": _sum, "bottom_k": _bottom_k}


def statistics(tallies: Tallies, labels: Labels) -> dict[str, Statistic]:
    """Means and medians by layer of every quantity that was counted at all.

    ``mean_<quantity>`` is the average of a float; ``mean_ln_<rank>`` that of the natural
    logarithm of a rank, whose exponential is the geometric mean. ``median_<rank>`` comes from
    the histogram of ln rank, see `median_rank`.
    """
    by_name: dict[str, Statistic] = {}
    if {"count", "sum"} <= set(tallies):
        by_name.update(_means(tallies["count"], tallies["sum"], labels["quantity"]))
    if "ln_rank_histogram" in tallies:
        by_name.update(_medians(tallies["ln_rank_histogram"], labels["reference"]))
    return by_name


def median_rank(histogram: np.ndarray) -> float:
    """Median rank from a histogram of ln rank over `bins.LN_RANK_EDGES`.

    The median lies in the first bin at which half of the values is reached; inside it ln rank is
    taken as uniform, so the result is the exponential of a linear interpolation and is off by at
    most one bin, 10 %. Bin 0 holds rank 1 alone and gives exactly 1.0. NaN for no values.

    Args:
        histogram: Counts, int64 [ln_rank_bin].
    """
    reached = np.cumsum(histogram)
    n = int(reached[-1]) if reached.size else 0
    if n == 0:
        return math.nan
    number = int(np.searchsorted(reached, n / 2, side="left"))
    if number == 0:
        return 1.0
    before = int(reached[number - 1])
    share = (n / 2 - before) / int(histogram[number])
    low, high = (float(edge) for edge in bins.LN_RANK_EDGES[number : number + 2])
    return math.exp(low + share * (high - low))


def _check(name: str, key: str, value: Any) -> None:
    if key not in definitions.BY_NAME:
        raise errors.DataError(f"{name}: tally {key} is unknown here", "use a newer version")
    if value.dtype != np.int64 or len(value.shape) != len(definitions.BY_NAME[key].axes):
        raise errors.DataError(f"{name}: tally {key} is {value.dtype} {value.shape}", _REPAIR)


def _means(count: np.ndarray, total: np.ndarray, names: tuple[str, ...]) -> dict[str, Statistic]:
    statistics = {}
    for name, n, s in zip(names, count, total, strict=True):
        quantity = schema.QUANTITIES[name]
        if not n.any():
            continue
        none = np.full(len(n), np.nan)
        values = np.divide(s / 2.0**bins.FIXED_POINT_BITS, n, out=none, where=n > 0)
        if quantity.kind == "rank":
            statistics[f"mean_ln_{name}"] = Statistic(values, "1", f"mean of ln {name}")
        else:
            statistics[f"mean_{name}"] = Statistic(
                values, quantity.unit, f"mean: {quantity.meaning}"
            )
    return statistics


def _medians(histogram: np.ndarray, references: tuple[str, ...]) -> dict[str, Statistic]:
    statistics = {}
    for reference, layers in zip(references, histogram, strict=True):
        if layers.any():
            values = np.array([median_rank(counts) for counts in layers])
            meaning = f"median of rank_{reference}, interpolated in ln rank"
            statistics[f"median_rank_{reference}"] = Statistic(values, "1", meaning)
    return statistics


def clipped(tally: Mapping[str, np.ndarray]) -> str:
    """How many of the summed values were larger than fixed point holds, in words."""
    beyond, values = (int(tally[name].sum()) for name in ("saturated", "count"))
    if not beyond:
        return f"none of {values:,} values"
    share = f"{beyond:,} of {values:,} values, {beyond / values:.2%}"
    return f"{share}: larger in size than {bins.FIXED_POINT_LIMIT:,.0f}"
