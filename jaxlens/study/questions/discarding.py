"""Q1. Is the input discarded at once?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.study import curves, table
from jaxlens.study.estimators import FALLING, ON_DEMAND, RECORDED
from jaxlens.study.inputs import RANDOM_INIT, Inputs
from jaxlens.study.questions import constant_predictions, dilution
from jaxlens.study.stats import binned, bootstrap, multiplicity, shape, two_lines
from jaxlens.study.table import Result, result
from jaxlens.tally import axes, bins

NO_RETENTION = (
    "needs retention and retention_foreign: --tallies study, or "
    "--set store.quantities=[retention,retention_foreign]"
)

NO_NULL = (
    "no random-init null was given: make one with jaxlens run --null random-init, and pass it with "
    "--null"
)


def estimate(run: Inputs) -> list[Result]:
    """Shape of the curves of one run, trained or null."""
    return [
        *_means(run),
        *_shapes(run),
        *_token_shares(run),
        *_nearer(run),
        *_retention(run),
        *constant_predictions.estimate(run),
        *_two_lines(run),
        *_steps(run),
        *dilution.estimate(run),
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """The trained run against its nulls; without one of fresh weights a line says why."""
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        for measure in _measures(run, *same):
            others = [null.measured(measure) for null in same]
            difference = curves.difference(*run.measured(measure), others, shape.jump_share)
            lines.append(_contrast(run, difference, measure, f"{kind} x {len(same)}"))
    if not any(null.kind == RANDOM_INIT for null in nulls):
        absent = bootstrap.missing(NO_NULL)
        lines.append(_contrast(run, absent, "kl_final_matched", RANDOM_INIT))
    return lines


def _measures(*runs: Inputs) -> list[str]:
    """Measures that all of these runs have."""
    further = [name for name in ON_DEMAND if all(run.has(name) for run in runs)]
    return [*RECORDED, *further]


def _contrast(run: Inputs, difference: bootstrap.Estimate, measure: str, null: str) -> Result:
    smallest = multiplicity.SMALLEST["phi"]
    return result(run, f"jump_share_{measure}", difference, null=null, smallest=smallest)


def _means(run: Inputs) -> list[Result]:
    lines = []
    for measure in _measures(run):
        if measure == "kl_final":  # reported with Q0
            continue
        lines += table.by_layer(run, curves.name_of_mean(measure), curves.means(run, measure))
        if measure in axes.DIVERGENCES:
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
        measure: One of ``axes.JUMPS``.
    """
    counts = run.tallies["jump_histogram"][axes.JUMPS.index(measure)].sum(0)
    return binned.ratio(counts, counts.sum())


def _token_shares(run: Inputs) -> list[Result]:
    """Median over tokens of their own jump share; noise of single tokens makes it smaller."""
    lines = []
    middles = (np.arange(bins.JUMP_BINS) + 0.5) / bins.JUMP_BINS
    for i, measure in enumerate(axes.JUMPS):
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


def _retention(run: Inputs) -> list[Result]:
    """The projection on another token's embedding, and what the own one has beyond it."""
    names = ("mean_retention_foreign", "retention_beyond_mean")
    why = run.lacks("foreign_retention_sum", "foreign_retention_count")
    if not why and not (run.has("retention") and run.tallies["foreign_retention_count"].any()):
        why = NO_RETENTION if not run.has("retention") else "no tokens of other documents"
    if why:
        nothing = [bootstrap.missing(why)] * run.n_layers
        return [line for name in names for line in table.by_layer(run, name, nothing)]
    foreign, counts = (run.tallies[f"foreign_retention_{what}"] for what in ("sum", "count"))
    own, own_counts = run.measured("retention")
    beyond = [
        curves.difference(
            own[:, [layer]],
            own_counts[:, [layer]],
            [(foreign[:, [layer]], counts[:, [layer]])],
            lambda mean: mean[..., 0],
        )
        for layer in range(run.n_layers)
    ]
    return [
        *table.by_layer(run, names[0], curves.by_layer(foreign, counts)),
        *table.by_layer(run, names[1], beyond),
    ]


def _two_lines(run: Inputs) -> list[Result]:
    """Whether a divergence turns on the interior layers, as a U-shape would."""
    lines = []
    inside = slice(1, run.n_layers - 1)
    for measure in ("kl_input", "kl_final"):
        sums, counts = run.measured(measure)
        by_group = binned.mean(sums, counts)
        test = two_lines.two_lines(by_group[:, inside], run.depths[inside], counts[:, 0])
        note = f"shape: {test.shape}"
        if np.isfinite(test.depth):
            note += f", break at depth {test.depth:.2f}"
        for which, slope in (("first", test.first), ("second", test.second)):
            lines.append(result(run, f"two_lines_{which}_{measure}", slope, note=note))
    return lines


def _steps(run: Inputs) -> list[Result]:
    lines = []
    for i, measure in enumerate(axes.JUMPS):
        sums, counts = run.measured(measure)
        curve = binned.mean(sums.sum(0), counts.sum(0))
        share = float(shape.monotone_share(curve, falling=measure in FALLING))
        # It moves by whole steps, so that no standard error describes it.
        counted = bootstrap.missing(
            "of the mean curve, without interval", share, int(counts[:, 0].sum())
        )
        lines.append(result(run, f"monotone_share_{measure}", counted))
        falling = run.tallies["descending"][i]
        counts = np.repeat(falling[:, :1], run.n_layers, axis=1)
        shares = curves.by_layer(falling, counts, scale=1)
        # No step leads to the input: its place counts the positions.
        lines += table.by_layer(run, f"falling_{measure}", shares)[1:]
    return lines
