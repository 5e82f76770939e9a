"""Estimators of Q3, ablation: what a copy loses where its source is replaced."""

from __future__ import annotations

from jaxlens.store import ablation_file
from jaxlens.study.estimators.definition import CLUSTERED, Group, Table

DIFFERENCES = (
    ("embedding", "foreign"),
    ("embedding", "random"),
    ("probe", "random_plane"),
    ("probe", "foreign_probe"),
    ("probe", "random_shift"),
)
"""Arms that differ in one thing: whose direction it is, or which way the stream is moved."""

PARTS = {
    "probe": "the probe's directions for the token",
    "embedding": "the own embedding",
    "foreign": "another token's embedding",
    "random": "a random direction",
    "random_plane": "two random directions",
    "foreign_probe": "the probe's directions for another token",
    "random_shift": "a random shift of equal length",
    "whole": "the whole stream",
    "rest": "all but the own directions",
}
"""What each arm replaces, in words."""

ACTIONS = {arm: f"replacing {part}" for arm, part in PARTS.items()} | {
    "random_shift": "a random shift of equal length"
}
"""What each arm does, in words."""

MATERIALS = {"blocks": "repeated random blocks", "copies": "natural copies"}
"""The materials of ``ablation_file`` in words."""

_OWN = "the own directions and of all but them, each replaced alone"

_BY_MATERIAL = [{"material": name, "title": title} for name, title in MATERIALS.items()]
_BY_ARM = [
    {"arm": arm, "action": ACTIONS[arm]} | members
    for members in _BY_MATERIAL
    for arm in ablation_file.ARMS
]
_BY_PAIR = [
    {"arm": arm, "other": other, "action": ACTIONS[arm], "other_action": ACTIONS[other]} | members
    for members in _BY_MATERIAL
    for arm, other in DIFFERENCES
]

TABLE: Table = {
    Group("Q3", "nat", CLUSTERED, _BY_MATERIAL): {
        "ablation_gain_{material}": "log-probability of the copied token at its copy minus at its "
        "earlier occurrence, in {title}",
    },
    Group("Q3", "nat", CLUSTERED, _BY_ARM): {
        "ablation_loss_{material}_{arm}": "loss of log-probability of the copied token after "
        "{action} at its source, in {title}",
    },
    Group("Q3", "1", CLUSTERED, _BY_ARM): {
        "ablation_share_{material}_{arm}": "loss after {action}, as a share of the copy gain, in "
        "{title}",
    },
    Group("Q3", "nat", CLUSTERED, _BY_PAIR, tested=True): {
        "ablation_difference_{material}_{arm}_{other}": "loss after {action} minus loss after "
        "{other_action}, in {title}",
    },
    Group("Q3", "1", CLUSTERED, _BY_PAIR, tested=True): {
        "ablation_early_{material}_{arm}_{other}": "loss after {action} minus loss after "
        "{other_action}, mean over the layers after the first block to mid depth, as a share of "
        "the copy gain, in {title}",
    },
    Group("Q3", "nat", CLUSTERED, list(_BY_MATERIAL)): {
        "ablation_sum_{material}": f"sum of the losses of {_OWN}, in {{title}}",
    },
    Group("Q3", "nat", CLUSTERED, _BY_MATERIAL, tested=True): {
        "ablation_sum_minus_whole_{material}": f"that sum of the losses of {_OWN}, minus the loss "
        "of the whole stream, in {title}",
    },
}
