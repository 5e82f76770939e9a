"""A paragraph for each question, made from the numbers and saying no more than they do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxlens.study import multiplicity
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.table import Result

Lines = Sequence[Result]


def verdicts(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> dict[str, str]:
    """Question to paragraph.

    Args:
        results: All lines of the study.
        run: The trained run.
        nulls: Its null runs.
    """
    return {
        "Q0": _resolving(results, run),
        "Q1": _discarding(results, run, nulls),
        "Q2": _preserving(results, run),
        "Q3": _copying(results, run),
    }


def find(
    results: Lines,
    estimator: str,
    *,
    layer: int | None = None,
    stratum: str = "all",
    run: str = TRAINED,
    contrast: bool = False,
) -> Result | None:
    """The line of an estimator, or None."""
    for line in results:
        if (line.estimator, line.stratum, line.run) != (estimator, stratum, run):
            continue
        if line.layer == layer and bool(line.null) == contrast:
            return line
    return None


def spelled(line: Result | None, digits: int = 3) -> str:
    """A number with its interval, as text."""
    if line is None or math.isnan(line.estimate):
        why = "" if line is None or not line.note else f" ({line.note})"
        return f"not estimable{why}"
    value = f"{line.estimate:.{digits}g}"
    if math.isnan(line.low) or math.isnan(line.high):
        return f"{value} (no interval: {line.note})" if line.note else value
    return f"{value} [{line.low:.{digits}g}, {line.high:.{digits}g}]"


def _judged(line: Result) -> str:
    """What an interval says of an effect."""
    if line.judgement == multiplicity.NOT_ESTIMABLE:
        return "it cannot be judged"
    if line.judgement == multiplicity.LARGER:
        return f"the whole interval lies beyond the smallest effect of interest, {_smallest(line)}"
    if line.judgement == multiplicity.SMALLER:
        return f"the whole interval lies within the smallest effect of interest, {_smallest(line)}"
    return f"the interval crosses the smallest effect of interest, {_smallest(line)}: undecided"


def _smallest(line: Result) -> str:
    return f"{line.smallest:.3g}"


def _resolving(results: Lines, run: Inputs) -> str:
    last, middle = run.n_layers - 1, run.middle
    first, half, end = (find(results, "mean_entropy", layer=i) for i in (0, middle, last))
    words = [
        f"Mean entropy is {spelled(first)} nat at the input layer, {spelled(half)} at mid depth "
        f"and {spelled(end)} at the last layer."
    ]
    if half and end and half.low > end.high:
        words.append("At mid depth predictions are less certain than in the end.")
    elif half and end and half.high < end.low:
        words.append(
            "At mid depth predictions are more certain than in the end, in entropy alone: a layer "
            "can be sure of something else."
        )
    kl = find(results, "mean_kl_final", layer=middle)
    words.append(f"The mean divergence from the output is {spelled(kl)} nat at mid depth.")
    share = find(results, "settled_within_1_share", layer=middle)
    depth = find(results, "settled_within_1_median")
    words.append(
        f"By mid depth {spelled(share)} of the positions have the final top-1 on top for good; "
        f"half have it from depth {spelled(depth)} on (0 is the input, 1 the last layer)."
    )
    return " ".join(words)


def _discarding(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> str:
    raw = find(results, "jump_share_kl_final")
    matched = find(results, "jump_share_kl_final_matched")
    entry = find(results, "jump_share_kl_input")
    even = 1 / (run.n_layers - 1)
    words = [
        f"The first block makes {spelled(raw)} of all steps of the mean KL(output||layer) and "
        f"{spelled(matched)} at matched temperatures, where even steps would each make {even:.3f}; "
        f"of KL(input||layer) it makes {spelled(entry)}."
    ]
    for null in nulls:
        line = find(results, "jump_share_kl_final", run=null.label)
        cold = find(results, "jump_share_kl_final_matched", run=null.label)
        words.append(f"In {null.label} the two are {spelled(line)} and {spelled(cold)}.")
    primary = next(r for r in results if r.primary and r.question == "Q1")
    words.append(
        f"Primary: trained minus fresh weights, at matched temperatures, {spelled(primary)}; "
        f"{_judged(primary)}."
    )
    share = find(results, "share_nearer_output", layer=1)
    words.append(
        f"After the first block {spelled(share)} of the positions are nearer the output than the "
        "input."
    )
    return " ".join(words + _dilution(results, run))


def _dilution(results: Lines, run: Inputs) -> list[str]:
    observed = find(results, "median_rank_input", layer=run.middle)
    if observed is None:
        return []
    pure, kept = (
        find(results, name, layer=run.middle) for name in ("dilution_rank", "retained_rank")
    )
    retention = find(results, "mean_retention", layer=run.middle)
    return [
        f"At mid depth the median rank of the input is {observed.estimate:.3g}; the growth of the "
        f"norm alone explains {pure.estimate:.3g}, and with the mean retention of "
        f"{spelled(retention)} norm and retention explain {kept.estimate:.3g}."
        if pure and kept
        else ""
    ]


def _preserving(results: Lines, run: Inputs) -> str:
    slope = next(r for r in results if r.primary and r.estimator == "excess_slope")
    context = next(r for r in results if r.primary and r.estimator == "within_type_surprisal")
    words = [
        f"Primary: at mid depth the excess preservation changes by {spelled(slope)} nat of rank "
        f"with each nat of rarity (positive: rarer tokens are kept more); {_judged(slope)}."
    ]
    words.append(_by_rarity(results))
    words.append(
        "Primary: within tokens of one type ln rank changes by "
        f"{spelled(context)} nat with each nat of surprisal (negative: more surprising occurrences "
        f"are kept more); {_judged(context)}."
    )
    rho = find(results, "partial_spearman_surprisal", layer=run.middle)
    mirror = find(results, "partial_spearman_rarity", layer=run.middle)
    omega = find(results, "omega_squared", layer=run.middle)
    words.append(
        f"Over all tokens the partial rank correlation of ln rank is {spelled(rho)} with surprisal "
        f"given rarity and {spelled(mirror)} with rarity given surprisal; {spelled(omega)} of its "
        "variance lies between types."
    )
    return " ".join(words)


def _by_rarity(results: Lines) -> str:
    """Where the excess preservation is greatest and least: a slope alone would hide a bend."""
    bins = [r for r in results if r.estimator == "excess_preservation" and r.run == TRAINED]
    known = [r for r in bins if math.isfinite(r.low)]
    if len(known) < 3:
        return "Too few bins of rarity have an interval to say where it is greatest."
    most, least = (pick(known, key=lambda r: r.estimate) for pick in (max, min))
    above = sum(r.low > 0 for r in known)
    words = (
        f"It is above 0 in {above} of {len(known)} bins, greatest at {most.stratum} with "
        f"{spelled(most)} nat and least at {least.stratum} with {spelled(least)}."
    )
    ends = known[0], known[-1]
    inside = most not in ends and all(end.high < most.low for end in ends)
    return f"{words} So it rises and falls with rarity, which no slope tells." if inside else words


def _copying(results: Lines, run: Inputs) -> str:
    primary = next(r for r in results if r.primary and r.question == "Q3")
    copies, controls = (
        find(results, "mean_retrieval_depth_10", stratum=name) for name in ("copies", "controls")
    )
    delta = find(results, "cliff_delta")
    scramble = find(results, "scramble_recover")
    return (
        f"Primary: copies come to stay within the first 10 at a depth that differs from that of "
        f"matched controls by {spelled(primary)} (positive: later); {_judged(primary)}. The means "
        f"are {_value(copies)} and {_value(controls)}; Cliff's delta is {spelled(delta)}. The rank "
        "of a copy rises and falls again on its way by "
        f"{spelled(scramble)} nat more than that of a control. {_copied(results, run)}"
    )


def _copied(results: Lines, run: Inputs) -> str:
    share = find(results, "copied_share")
    slope = find(results, "copied_within_type", layer=run.middle)
    return (
        f"Of all positions {_value(share)} are copied later; within tokens of one type that "
        f"probability changes by {spelled(slope)} with each nat of ln rank at mid depth "
        "(negative: what is kept is copied more often)."
    )


def _value(line: Result | None) -> str:
    return "not estimable" if line is None else f"{line.estimate:.3g}"
