"""Layers of models of different depth that belong together."""

from __future__ import annotations


def matched(first: int, second: int) -> list[tuple[int, int]]:
    """For each stream of the shallower model the nearest of the deeper one by relative depth.

    The first and the last go with the first and the last, and the order is kept.

    Args:
        first: Residual streams of one model, at least 2.
        second: Those of the other.

    Returns:
        Pairs of a stream of the first model and one of the second.
    """
    few, many = sorted((first, second))
    pairs = [(i, (2 * i * (many - 1) + few - 1) // (2 * (few - 1))) for i in range(few)]
    return pairs if first <= second else [(deep, i) for i, deep in pairs]
