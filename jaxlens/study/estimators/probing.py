"""Estimators of Q1, probing: what a linear probe reads that the lens does not see."""

from __future__ import annotations

from jaxlens.study.estimators.definition import BOOTSTRAP, RECOVERED, WILSON, Group, Table

RANKS = (1, 10)
"""Ranks among the candidates within which a token counts as read."""

_TARGETS = {
    "own": "the own token",
    "previous": "the previous token",
    "two_back": "the token two back",
    "permuted": "the own token, of a probe that learnt permuted labels",
}
"""Names as in ``store.probe_file``, and what each is."""

_READOUTS = {"probe": "a linear probe", "lens": "the lens"}

PERMUTED = "permuted"
"""The null of permuted labels, of which the lens has no counterpart."""

_BY_TARGET = [
    {"target": target, "token": token} for target, token in _TARGETS.items() if target != PERMUTED
]
_BY_READOUT = [
    {"readout": readout, "reader": reader, "target": target, "token": token}
    for readout, reader in _READOUTS.items()
    for target, token in _TARGETS.items()
    if target != PERMUTED or readout == "probe"
]
_WHERE = "on held-out documents, among candidates"

TABLE: Table = {
    Group(
        "Q1", "1", WILSON, [{"rank": rank} | members for members in _BY_READOUT for rank in RANKS]
    ): {
        "{readout}_recall_{rank}_{target}": "share of positions at which {reader} has {token} "
        f"within the first {{rank}}, {_WHERE}",
    },
    Group("Q1", "nat", BOOTSTRAP, _BY_READOUT): {
        "{readout}_logp_{target}": "mean log-probability that {reader} gives {token}, "
        f"{_WHERE}",
    },
    Group(
        "Q1", "1", RECOVERED, [{"rank": rank} | members for members in _BY_TARGET for rank in RANKS]
    ): {
        "probe_minus_lens_recall_{rank}_{target}": "share of positions at which a linear probe has "
        f"{{token}} within the first {{rank}}, minus that share of the lens, {_WHERE}",
    },
    Group("Q1", "nat", BOOTSTRAP, _BY_TARGET): {
        "probe_minus_lens_logp_{target}": "mean log-probability that a linear probe gives "
        f"{{token}}, minus that of the lens, {_WHERE}",
    },
}
