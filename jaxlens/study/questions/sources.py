"""Q3, continued. Is what is kept copied more often?

A position exists before anything repeats it, so being copied is an outcome here and never a cause:
of two occurrences of one token, is the one that ranks better at its own place copied more often?
It is a linear model of a probability; long contexts leave more room for copies, so the room that is
left and the position are held, by splines.
"""

from __future__ import annotations

import math

from jaxlens.study import columns, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import bootstrap, within_type
from jaxlens.study.table import Result, result


def estimate(run: Inputs) -> list[Result]:
    """The share that is copied, and its slope on ln rank_input within types at each layer."""
    copied, total = (int(run.tallies[f"type_{name}"].sum()) for name in ("copied", "count"))
    share = copied / total if total else math.nan
    why = run.lacks(*columns.NEEDED)
    slopes = [
        bootstrap.missing(why)
        if why
        else within_type.slope(*columns.of_copied(run, layer), columns.RANKED, "ln_rank_input")
        for layer in range(run.n_layers)
    ]
    without = bootstrap.missing("all positions, without interval", share, total)
    return [
        result(run, "copied_share", without),
        *table.by_layer(run, "copied_within_type", slopes),
    ]
