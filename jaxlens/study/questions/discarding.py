"""Q1. Is the input discarded at once?"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.study import curves, table
from jaxlens.study.estimators import FALLING, ON_DEMAND, RECORDED
from jaxlens.study.inputs import RANDOM_INIT, Inputs
from jaxlens.study.questions import dilution
from jaxlens.study.stats import binned, bootstrap, multiplicity, shape, two_lines
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

NO_NULL = (
    "no random-init null was given: make one with jaxlens run --null random-init, pass it by --null"
)


def estimate(run: Inputs) -> list[Result]:
    """Shape of the curves of one run, trained or null."""
    return [
        *_means(run),
        *_shapes(run),
        *_token_shares(run),
        *_nearer(run),
        *_two_lines(run),
        *_steps(run),
        *dilution.estimate(run),
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """The trained run against its nulls; the primary is against fresh weights.

    Without a null of fresh weights the primary is there, not estimable, and says why.
    """
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        for measure in _measures(run, *same):
            others = [null.measured(measure) for null in same]
            difference = curves.difference(*run.measured(measure), others, shape.jump_share)
            primary = measure == "kl_final_matched" and kind == RANDOM_INIT
            lines.append(_contrast(run, difference, measure, f"{kind} x {len(same)}", primary))
    if not any(line.primary for line in lines):
        absent = bootstrap.missing(NO_NULL)
        lines.append(_contrast(run, absent, "kl_final_matched", RANDOM_INIT, True))
    return lines


def _measures(*runs: Inputs) -> list[str]:
    """Measures that all of these runs have."""
    further = [name for name in ON_DEMAND if all(run.has(name) for run in runs)]
    return [*RECORDED, *further]


def _contrast(
    run: Inputs, difference: bootstrap.Estimate, measure: str, null: str, primary: bool
) -> Result:
    smallest = multiplicity.SMALLEST["phi"]
    name = f"jump_share_{measure}"
    return result(run, name, difference, null=null, smallest=smallest, primary=primary)


def _means(run: Inputs) -> list[Result]:
    lines = []
    for measure in _measures(run):
        if measure == "kl_final":  # reported with Q0
            continue
        lines += table.by_layer(run, curves.name_of_mean(measure), curves.means(run, measure))
        if measure in definitions.DIVERGENCES:
            lines += curves.quartiles(run, measure)
    return lines


def _shapes(run: Inputs) -> list[Result]:
    lines = []
    even = f"even: {1 / (run.n_layers - 1):.3f}"
    for measure in _measures(run):
        share = curves.statistic(*run.measured(measure), shape.jump_share)
        ratio = curves.statistic(*run.measured(measure), shape.jump_ratio)
        lines += [
            result(run, f"jump_share_{measure}", share, note=even),
            result(run, f"jump_ratio_{measure}", ratio),
        ]
    return lines


def token_shares(run: Inputs, measure: str) -> Float[np.ndarray, " bin"]:
    """Share of the tokens in each bin of the first block's part in all steps of a token's curve.

    Args:
        run: Run.
        measure: One of ``definitions.JUMPS``.
    """
    counts = run.tallies["jump_histogram"][definitions.JUMPS.index(measure)].sum(0)
    return binned.ratio(counts, counts.sum())


def _token_shares(run: Inputs) -> list[Result]:
    """Median over tokens of their own jump share; noise of single tokens makes it smaller."""
    lines = []
    middles = (np.arange(bins.JUMP_BINS) + 0.5) / bins.JUMP_BINS
    for i, measure in enumerate(definitions.JUMPS):
        counts = run.tallies["jump_histogram"][i].sum(0)
        total = int(counts.sum())
        median = float(middles[np.searchsorted(np.cumsum(counts), total / 2)]) if total else np.nan
        without = bootstrap.missing("a quantile of tokens", median, total)
        lines.append(result(run, f"token_jump_share_{measure}", without))
    return lines


def _nearer(run: Inputs) -> list[Result]:
    counts = np.repeat(run.group_rows[:, None], run.n_layers, axis=1)
    shares = curves.by_layer(run.tallies["nearer_final"], counts, scale=1)
    return table.by_layer(run, "share_nearer_output", shares)


def _two_lines(run: Inputs) -> list[Result]:
    """Whether a divergence turns on the interior layers, as a U-shape would."""
    lines = []
    inside = slice(1, run.n_layers - 1)
    for measure in ("kl_input", "kl_final"):
        sums, counts = run.measured(measure)
        by_group = binned.mean(sums, counts)
        test = two_lines.two_lines(by_group[:, inside], run.depths[inside], counts[:, 0])
        note = f"shape: {test.shape}, break at depth {test.depth:.2f}"
        for which, slope in (("first", test.first), ("second", test.second)):
            lines.append(result(run, f"two_lines_{which}_{measure}", slope, note=note))
    return lines


def _steps(run: Inputs) -> list[Result]:
    lines = []
    for i, measure in enumerate(definitions.JUMPS):
        along = functools.partial(shape.monotone_share, falling=measure in FALLING)
        share = curves.statistic(*run.measured(measure), along)
        lines.append(result(run, f"monotone_share_{measure}", share))
        falling = run.tallies["descending"][i]
        counts = np.repeat(falling[:, :1], run.n_layers, axis=1)
        shares = curves.by_layer(falling, counts, scale=1)
        # No step leads to the input: its place counts the positions.
        lines += table.by_layer(run, f"falling_{measure}", shares)[1:]
    return lines
