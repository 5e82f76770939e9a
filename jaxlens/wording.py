"""Numbers with their nouns, as messages spell them."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: ``1 token``, ``2,000 tokens``.

    Args:
        number: How many.
        noun: What one of them is called.
        plural: What several are called; the noun with an ``s`` by default.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
