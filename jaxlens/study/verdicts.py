"""A paragraph for each question, made from the numbers and saying no more than they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxlens.study import readings
from jaxlens.study.inputs import TRAINED, Inputs, Made
from jaxlens.study.table import Result

Lines = Sequence[Result]

spelled = readings.spelled


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


def findings(results: Lines, run: Made, paragraphs: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was found, in plain words: question and sentence, the most general first.

    Args:
        results: All lines of the study.
        run: The trained run.
        paragraphs: The verdicts, for a corpus that has no primaries.
    """
    primaries = sorted((r for r in results if r.primary), key=lambda line: line.question)
    if not primaries:
        return list(paragraphs.items())
    words = [("Q0", sentence) for sentence in _settled(results, run.middle)]
    return words + [(line.question, readings.finding(line)) for line in primaries]


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


def _said(line: Result | None, words: str, what: str) -> str:
    """A sentence around a number, or that there is none, and why.

    Args:
        line: The number.
        words: Sentence with ``{}`` in its place.
        what: Its subject, for the sentence without a number.
    """
    if line is None or math.isnan(line.estimate):
        why = f": {readings.reason(line)}" if line is not None and line.note else ""
        return f"{what} cannot be estimated{why}."
    return words.replace("{}", readings.spelled(line))


def _primary(line: Result, words: str) -> str:
    """The sentence of a primary: its number, what the sign says, and whether it matters."""
    what = readings.label(line)
    said = f"{words}: {readings.direction(line)}; {readings.judged(line)}."
    return _said(line, f"Primary: {said}", f"Primary: the {what}")


def _resolving(results: Lines, run: Inputs) -> str:
    last, middle = run.n_layers - 1, run.middle
    first, half, end = (find(results, "mean_entropy", layer=i) for i in (0, middle, last))
    words = [
        _said(
            first,
            f"Mean entropy is {{}} nat at the input layer, {spelled(half)} at mid depth and "
            f"{spelled(end)} at the last layer.",
            "Mean entropy",
        )
    ]
    if half and end and half.low > end.high:
        words.append("At mid depth predictions are less certain than in the end.")
    elif half and end and half.high < end.low:
        words.append(
            "At mid depth predictions are more certain than in the end, in entropy alone: a layer "
            "can be sure of something else."
        )
    kl = find(results, "mean_kl_final", layer=middle)
    what = "The mean divergence from the output at mid depth"
    words.append(_said(kl, f"{what} is {{}} nat.", what))
    words += _settled(results, middle)
    return " ".join(words)


def _settled(results: Lines, middle: int) -> list[str]:
    share = find(results, "settled_within_1_share", layer=middle)
    depth = find(results, "settled_within_1_median")
    what = "of the positions have the final top-1 on top for good"
    return [
        _said(
            share,
            f"By mid depth {{}} {what}.",
            "The share of positions that have the final top-1 on top for good by mid depth",
        ),
        _said(
            depth,
            f"Half {what} from depth {{}} on (0 is the input, 1 the last layer).",
            f"The depth from which half {what}",
        ),
    ]


def _discarding(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> str:
    raw = find(results, "jump_share_kl_final")
    matched = find(results, "jump_share_kl_final_matched")
    entry = find(results, "jump_share_kl_input")
    even = 1 / (run.n_layers - 1)
    words = [
        _said(
            raw,
            "The first block makes {} of all steps of the mean KL(output||layer) and "
            f"{spelled(matched)} at matched temperatures, where even steps would each make "
            f"{even:.3f}; of KL(input||layer) it makes {spelled(entry)}.",
            "The share of the first block in the steps of the mean divergences",
        )
    ]
    for null in nulls:
        line = find(results, "jump_share_kl_final", run=null.label)
        cold = find(results, "jump_share_kl_final_matched", run=null.label)
        words.append(f"In {null.label} the two are {spelled(line)} and {spelled(cold)}.")
    primary = next(r for r in results if r.primary and r.question == "Q1")
    words.append(_primary(primary, "trained minus fresh weights, at matched temperatures, {}"))
    share = find(results, "share_nearer_output", layer=1)
    what = "nearer the output than the input"
    words.append(
        _said(
            share,
            f"After the first block {{}} of the positions are {what}.",
            f"The share of positions that are {what} after the first block",
        )
    )
    return " ".join(words + _dilution(results, run))


def _dilution(results: Lines, run: Inputs) -> list[str]:
    observed = find(results, "median_rank_input", layer=run.middle)
    pure, kept = (
        find(results, name, layer=run.middle) for name in ("dilution_rank", "retained_rank")
    )
    what = "What the norm explains of the rank of the input"
    if observed is None or pure is None or kept is None:
        return [_said(find(results, "dilution_rank"), "{}", what)]
    retention = find(results, "mean_retention", layer=run.middle)
    return [
        _said(
            observed,
            f"At mid depth the median rank of the input is {observed.estimate:.3g}; the norm alone "
            f"explains {pure.estimate:.3g}, and with the mean retention of {spelled(retention)} "
            f"norm and retention explain {kept.estimate:.3g}.",
            what,
        )
    ]


def _preserving(results: Lines, run: Inputs) -> str:
    slope = next(r for r in results if r.primary and r.estimator == "excess_slope")
    context = next(r for r in results if r.primary and r.estimator == "within_type_surprisal")
    words = [
        _primary(
            slope,
            "at mid depth the excess preservation changes by {} nat of rank with each nat of "
            "rarity",
        ),
        _by_rarity(results),
        _primary(
            context,
            "within tokens of one type ln rank changes by {} nat with each nat of surprisal",
        ),
    ]
    rho = find(results, "partial_spearman_surprisal", layer=run.middle)
    mirror = find(results, "partial_spearman_rarity", layer=run.middle)
    omega = find(results, "omega_squared", layer=run.middle)
    words.append(
        _said(
            rho,
            "Over all tokens the partial rank correlation of ln rank is {} with surprisal given "
            f"rarity and {spelled(mirror)} with rarity given surprisal.",
            "The partial rank correlation of ln rank with surprisal",
        )
    )
    words.append(
        _said(
            omega,
            "Of the variance of ln rank {} lies between types.",
            "The share of the variance of ln rank between types",
        )
    )
    return " ".join(words)


def _by_rarity(results: Lines) -> str:
    """Where the excess preservation is greatest and least: a slope alone would hide a bend."""
    bins = [r for r in results if r.estimator == "excess_preservation" and r.run == TRAINED]
    known = [r for r in bins if math.isfinite(r.low)]
    if len(known) < 3:
        return "Too few bins of rarity have an interval to say where it is greatest."
    most, least = (pick(known, key=lambda r: r.estimate) for pick in (max, min))
    above, below = sum(r.low > 0 for r in known), sum(r.high < 0 for r in known)
    words = (
        f"The whole interval is above 0 in {above} of {len(known)} bins of rarity, below in "
        f"{below}; the estimate is greatest at {most.stratum} with {spelled(most)} nat and least "
        f"at {least.stratum} with {spelled(least)}."
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
    words = [
        _primary(
            primary,
            "copies come to stay within the first 10 at a depth that differs from that of matched "
            "controls by {}",
        ),
        _said(
            delta,
            f"The means are {_value(copies)} and {_value(controls)}; Cliff's delta is {{}}.",
            "Cliff's delta",
        ),
        _directed(
            scramble, "The prominence of ln rank along depth is {} nat, copies minus controls"
        ),
        _copied(results, run),
    ]
    return " ".join(words)


def _directed(line: Result | None, words: str) -> str:
    """A number with what its sign says."""
    what = "" if line is None else readings.label(line)
    said = "" if line is None else readings.direction(line)
    return _said(line, f"{words}: {said}.", f"The {what}" if what else "It")


def _copied(results: Lines, run: Inputs) -> str:
    share = find(results, "copied_share")
    slope = find(results, "copied_within_type", layer=run.middle)
    words = (
        "Within tokens of one type the chance to be copied changes by {} with each nat of ln rank "
        "at mid depth"
    )
    return " ".join(
        [
            "No position counts."
            if share is None or math.isnan(share.estimate)
            else f"Of all positions {share.estimate:.3g} are copied later.",
            _directed(slope, words),
        ]
    )


def _value(line: Result | None) -> str:
    known = line is not None and math.isfinite(line.estimate)
    return f"{line.estimate:.3g}" if known and line else "not estimable"
