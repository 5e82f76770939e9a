"""Q3, continued. Is what is kept copied more often?

A position exists before anything repeats it, so being copied is an outcome here and never a cause:
of two occurrences of one token, is the one that ranks better at its own place copied more often?
It is a linear model of a probability; long documents and early positions leave more room for
copies, so the position is held.
"""

from __future__ import annotations

from jaxlens.study import columns, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import bootstrap, within_type
from jaxlens.study.table import Result, result

QUESTION = "Q3"


def answer(of: Inputs) -> list[Result]:
    """The share that is copied, and its slope on ln rank_input within types at each layer."""
    copied, total = (int(of.tallies[f"type_{name}"].sum()) for name in ("copied", "count"))
    share = copied / total if total else float("nan")
    found = bootstrap.missing("all positions, without interval", share, total)
    meaning = "share of the positions that their context copies later"
    slopes = [
        within_type.slope(*columns.of_copied(of, layer), columns.RANKED, "ln_rank_input")
        for layer in range(of.n_layers)
    ]
    return [
        result(of, QUESTION, "copied_share", meaning, found, unit="1"),
        *table.by_layer(
            of,
            QUESTION,
            "copied_within_type",
            "slope of the probability of being copied later on ln rank_input within types, "
            "surprisal, position, recency, piece and final log-probability held; negative: what "
            "is kept is copied more often",
            slopes,
            unit="1 per nat",
            tested=True,
        ),
    ]
