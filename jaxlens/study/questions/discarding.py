"""Q1. Is the input discarded at once?"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.study import curves, table
from jaxlens.study.inputs import RANDOM_INIT, Inputs
from jaxlens.study.questions import dilution
from jaxlens.study.stats import bootstrap, multiplicity, shape, two_lines
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

QUESTION = "Q1"

NO_NULL = (
    "no random-init null was given: make one with jaxlens run --null random-init, pass it by --null"
)

_ALWAYS = {
    "kl_final": "KL(last layer || this layer)",
    "kl_final_matched": "KL(last layer || this layer at its matched temperature)",
    "kl_input": "KL(input layer || this layer)",
    "logp_input": "log-probability of the input token",
    "rank_input": "ln rank of the input token",
}

_IF_RECORDED = {
    "js_final": "Jensen-Shannon divergence of this layer from the last",
    "js_input": "Jensen-Shannon divergence of this layer from the input layer",
}


def answer(of: Inputs) -> list[Result]:
    """Shape of the curves of one run, trained or null."""
    return [
        *_means(of),
        *_shapes(of),
        *_token_shares(of),
        *_nearer(of),
        *_two_lines(of),
        *_steps(of),
        *dilution.answer(of),
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """The trained run against its nulls; the primary is against fresh weights.

    Without a null of fresh weights the primary is there, not estimable, and says why.
    """
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        for name, what in _curves(run, *same).items():
            measured = [null.measured(name) for null in same]
            found = curves.difference(*run.measured(name), measured, shape.jump_share)
            primary = name == "kl_final_matched" and kind == RANDOM_INIT
            lines.append(_contrast(run, found, name, what, f"{kind} x {len(same)}", primary))
    if not any(line.primary for line in lines):
        found = bootstrap.missing(NO_NULL)
        what = _ALWAYS["kl_final_matched"]
        lines.append(_contrast(run, found, "kl_final_matched", what, RANDOM_INIT, True))
    return lines


def _curves(*runs: Inputs) -> dict[str, str]:
    """Measures that all of these runs have, and what they are."""
    more = {name: what for name, what in _IF_RECORDED.items() if all(r.has(name) for r in runs)}
    return _ALWAYS | more


def _contrast(
    run: Inputs, found: bootstrap.Estimate, name: str, what: str, null: str, primary: bool
) -> Result:
    return result(
        run,
        QUESTION,
        f"jump_share_{name}",
        f"share of the first block in all steps of the mean {what}, trained minus null",
        found,
        unit="1",
        null=null,
        smallest=multiplicity.SMALLEST["phi"],
        tested=True,
        primary=primary,
    )


def _means(of: Inputs) -> list[Result]:
    lines = []
    for name, what in _curves(of).items():
        if name == "kl_final":  # reported with Q0
            continue
        label, found = curves.name_of_mean(name), curves.means(of, name)
        lines += table.by_layer(of, QUESTION, label, f"mean {what}", found, unit="nat")
        if name in definitions.DIVERGENCES:
            lines += curves.quartiles(of, QUESTION, name)
    return lines


def _shapes(of: Inputs) -> list[Result]:
    lines = []
    for name, what in _curves(of).items():
        share = curves.statistic(*of.measured(name), shape.jump_share)
        ratio = curves.statistic(*of.measured(name), shape.jump_ratio)
        lines += [
            result(
                of,
                QUESTION,
                f"jump_share_{name}",
                f"share of the first block in all steps of the mean {what}; 1/L if even",
                share,
                unit="1",
                note=f"even: {1 / (of.n_layers - 1):.3f}",
            ),
            result(
                of,
                QUESTION,
                f"jump_ratio_{name}",
                f"first step of the mean {what} over the median of the later ones",
                ratio,
                unit="1",
            ),
        ]
    return lines


def token_shares(of: Inputs, name: str) -> Float[np.ndarray, " bin"]:
    """Share of the tokens in each bin of the first block's part in all steps of a token's curve.

    Args:
        of: Run.
        name: One of ``ledger.JUMPS``.
    """
    counts = of.tallies["jump_histogram"][definitions.JUMPS.index(name)].sum(0)
    none = np.full(counts.shape, np.nan)
    return np.divide(counts, counts.sum(), out=none, where=counts.sum() > 0)


def _token_shares(of: Inputs) -> list[Result]:
    """Median over tokens of their own jump share; noise of single tokens makes it smaller."""
    lines = []
    for place, name in enumerate(definitions.JUMPS):
        counts = of.tallies["jump_histogram"][place].sum(0)
        total = int(counts.sum())
        middle = (np.arange(bins.JUMP_BINS) + 0.5) / bins.JUMP_BINS
        value = float(middle[np.searchsorted(np.cumsum(counts), total / 2)]) if total else np.nan
        found = bootstrap.missing("a quantile of tokens", value, total)
        meaning = f"median over tokens of the first block's share in the steps of {_ALWAYS[name]}"
        lines.append(result(of, QUESTION, f"token_jump_share_{name}", meaning, found, unit="1"))
    return lines


def _nearer(of: Inputs) -> list[Result]:
    counts = np.repeat(of.group_rows[:, None], of.n_layers, axis=1)
    meaning = "share of positions nearer the last layer than the input layer, in KL"
    found = curves.by_layer(of.tallies["nearer_final"], counts, scale=1)
    return table.by_layer(of, QUESTION, "share_nearer_output", meaning, found, unit="1")


def _two_lines(of: Inputs) -> list[Result]:
    """Whether a divergence turns on the interior layers, as a U-shape would."""
    lines = []
    for name in ("kl_input", "kl_final"):
        sums, counts = of.measured(name)
        none = np.full(sums.shape, np.nan)
        by_group = np.divide(sums / bins.ONE, counts, out=none, where=counts > 0)
        inside = slice(1, of.n_layers - 1)
        found = two_lines.two_lines(by_group[:, inside], of.depths[inside], counts[:, 0])
        note = f"shape: {found.shape}, break at depth {found.depth:.2f}"
        for which, slope in (("first", found.first), ("second", found.second)):
            lines.append(
                result(
                    of,
                    QUESTION,
                    f"two_lines_{which}_{name}",
                    f"slope of the mean {_ALWAYS[name]} on depth, {which} of two lines inside",
                    slope,
                    unit="nat",
                    tested=True,
                    note=note,
                )
            )
    return lines


def _steps(of: Inputs) -> list[Result]:
    lines = []
    for place, name in enumerate(definitions.JUMPS):
        downward = name in ("kl_final", "kl_final_matched", "logp_input")
        along = functools.partial(shape.monotone_share, falling=downward)
        lines.append(
            result(
                of,
                QUESTION,
                f"monotone_share_{name}",
                f"share of the steps of the mean {_ALWAYS[name]} that "
                + ("fall" if downward else "rise"),
                curves.statistic(*of.measured(name), along),
                unit="1",
            )
        )
        falling = of.tallies["descending"][place]
        counts = np.repeat(falling[:, :1], of.n_layers, axis=1)
        found = curves.by_layer(falling, counts, scale=1)
        meaning = f"share of positions whose {_ALWAYS[name]} falls at this layer"
        # No step leads to the input: its place counts the positions.
        lines += table.by_layer(of, QUESTION, f"falling_{name}", meaning, found, unit="1")[1:]
    return lines
