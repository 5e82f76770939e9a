"""Estimators of the ablation: the part of the table in ``estimators`` that is about it.

It is data, which ``estimators`` gives its form: question, unit, kind of interval, whether 0 is a
hypothesis, members of the family, and its name and meaning.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxlens.store import ablation_file

CLUSTERED = "jackknife and studentised bootstrap over sequences or documents"

DIFFERENCES = (("embedding", "foreign"), ("embedding", "random"), ("probe", "random_plane"))
"""Arms that differ in one thing: whose direction it is."""

_REPLACED = {
    "probe": "the probe's directions of the own token",
    "embedding": "the direction of the own embedding",
    "foreign": "the embedding of another token of like rarity",
    "random": "a random direction",
    "random_plane": "two random directions",
    "whole": "the whole stream",
    "rest": "all but the own directions",
}
_OWN = "the own directions and of all but them, each replaced alone"


class Family(NamedTuple):
    """Estimators that share a definition."""

    name: str
    question: str
    meaning: str
    unit: str
    interval: str
    tested: bool
    members: list[dict[str, str]]


_BY_MATERIAL = [{"material": material} for material in ablation_file.MATERIALS]
_BY_ARM = [
    {"arm": arm, "part": _REPLACED[arm]} | members
    for members in _BY_MATERIAL
    for arm in ablation_file.ARMS
]
_BY_PAIR = [
    {"arm": arm, "other": other} | members for members in _BY_MATERIAL for arm, other in DIFFERENCES
]

FAMILIES = (
    Family(
        "ablation_gain_{material}",
        "Q3",
        "log-probability of the copied token at its copy minus at its earlier occurrence, in "
        "{material}",
        *("nat", CLUSTERED, False, _BY_MATERIAL),
    ),
    Family(
        "ablation_loss_{material}_{arm}",
        "Q3",
        "loss of log-probability of the copied token where {part} at its source is replaced by "
        "the mean, in {material}",
        *("nat", CLUSTERED, False, _BY_ARM),
    ),
    Family(
        "ablation_share_{material}_{arm}",
        "Q3",
        "loss where {part} is replaced, as a share of the copy gain, in {material}",
        *("1", CLUSTERED, False, _BY_ARM),
    ),
    Family(
        "ablation_difference_{material}_{arm}_{other}",
        "Q3",
        "loss of the arm {arm} minus loss of the arm {other}, in {material}",
        *("nat", CLUSTERED, True, _BY_PAIR),
    ),
    Family(
        "ablation_sum_{material}",
        "Q3",
        f"sum of the losses of {_OWN}, in {{material}}",
        *("nat", CLUSTERED, False, _BY_MATERIAL),
    ),
    Family(
        "ablation_sum_minus_whole_{material}",
        "Q3",
        f"that sum of the losses of {_OWN}, minus the loss of the whole stream, in {{material}}",
        *("nat", CLUSTERED, True, _BY_MATERIAL),
    ),
)
"""In the order of the table."""
