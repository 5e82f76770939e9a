"""A paragraph for each question, made from the numbers and saying no more than they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxlens.study import readings
from jaxlens.study.inputs import RANDOM_INIT, TRAINED, Inputs, RunInfo
from jaxlens.study.questions import crossed
from jaxlens.study.sentences import Lines, directed, find, judged, said
from jaxlens.study.table import Result

format_number = readings.format_number


_JUMP = "jump_share_kl_final_matched"


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
        "Q2": _preserving(results, run, nulls),
        "Q3": _copying(results, run),
    }


def findings(results: Lines, run: RunInfo, paragraphs: Mapping[str, str]) -> list[tuple[str, str]]:
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


def _resolving(results: Lines, run: Inputs) -> str:
    last, middle = run.n_layers - 1, run.middle
    first, half, end = (find(results, "mean_entropy", layer=i) for i in (0, middle, last))
    words = [
        said(
            first,
            f"Mean entropy is {{}} nat at the input layer, {format_number(half)} at mid depth and "
            f"{format_number(end)} at the last layer.",
            "Mean entropy",
        )
    ]
    if half and end and half.low > end.high:
        words.append("At mid depth predictions are less certain than at the last layer.")
    elif half and end and half.high < end.low:
        words.append(
            "At mid depth predictions have less entropy than at the last layer, though a layer can "
            "be certain of another token."
        )
    kl = find(results, "mean_kl_final", layer=middle)
    what = "The mean divergence from the output at mid depth"
    words.append(said(kl, f"{what} is {{}} nat.", what))
    words += _settled(results, middle)
    return " ".join(words)


def _settled(results: Lines, middle: int) -> list[str]:
    share = find(results, "settled_within_1_share", layer=middle)
    depth = find(results, "settled_within_1_median")
    what = "reached their final top-1 token for good"
    return [
        said(
            share,
            f"By mid depth, a share of {{}} of the positions have {what}.",
            f"The share of positions that have {what} by mid depth",
        ),
        said(
            depth,
            f"Half of the positions have {what} by depth {{}} (0 is the input, 1 the last layer).",
            f"The depth by which half of the positions have {what}",
        ),
    ]


def _discarding(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> str:
    read = next(r for r in results if r.primary and r.question == "Q1")
    words = [
        judged(
            read,
            "at mid depth, the share of held-out positions at which the own token comes first, "
            "linear probe minus lens, is {}",
        ),
        *_jump(results, run, nulls),
    ]
    share = find(results, "share_nearer_output", layer=1)
    what = "nearer to the output than to the input"
    words.append(
        said(
            share,
            f"After the first block, a share of {{}} of the positions are {what}.",
            f"The share of positions that are {what} after the first block",
        )
    )
    return " ".join(words + _dilution(results, run))


def _jump(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> list[str]:
    """What the first block does to the mean divergences, beside null runs and frequencies."""
    raw, matched = (find(results, name) for name in ("jump_share_kl_final", _JUMP))
    entry = find(results, "jump_share_kl_input")
    even = 1 / (run.n_layers - 1)
    words = [
        said(
            raw,
            "The first block accounts for {} of the total change of the mean KL(output||layer), "
            f"and for {format_number(matched)} at matched temperatures, where equal steps "
            f"would account for {even:.3f} each; of KL(input||layer) it accounts for "
            f"{format_number(entry)}.",
            "The first block's share of the change of the mean divergences",
        ),
    ]
    for null in nulls:
        line, cold = (find(results, r, run=null.label) for r in ("jump_share_kl_final", _JUMP))
        words.append(
            f"In {null.label} the two are {format_number(line)} and {format_number(cold)}."
        )
    jump = next(r for r in results if r.estimator == _JUMP and r.null.startswith(RANDOM_INIT))
    words.append(judged(jump, "trained minus fresh weights, at matched temperatures, it is {}"))
    words.append(
        said(
            find(results, "unigram_share"),
            "At matched temperatures, a layer that predicted the frequencies of the corpus "
            "whatever the context would have gone {} times the way of the first step (0 is the "
            "input, 1 the output of the first block).",
            "The share of the first step that frequencies of the corpus alone would make",
        )
    )
    constant = find(results, "mean_stream_share")
    if constant is not None and not math.isnan(constant.estimate):
        words.append(
            "The mean stream after the first block alone would have gone "
            f"{format_number(constant)} times that way."
        )
    return words


def _dilution(results: Lines, run: Inputs) -> list[str]:
    observed = find(results, "median_rank_input", layer=run.middle)
    pure = find(results, "dilution_rank", layer=run.middle)
    retained = find(results, "retained_rank", layer=run.middle)
    what = "The rank of the input that the norm alone would give"
    if observed is None or pure is None or retained is None:
        return [said(find(results, "dilution_rank"), "{}", what)]
    beyond = find(results, "retention_beyond_mean", layer=run.middle)
    law = f"{pure.note}, so no rank follows from the norm"
    if not math.isnan(pure.estimate):
        law = f"the norm alone would give a rank of {_rank(pure)}, and the norm with the mean "
        law += f"retention a rank of {_rank(retained)}"
    return [
        said(
            observed,
            f"At mid depth the median rank of the input is {_rank(observed)}; {law}. The mean "
            f"projection on the own embedding minus that on another token's is "
            f"{format_number(beyond)} (1 is the embedding itself).",
            what,
        )
    ]


def _preserving(results: Lines, run: Inputs, nulls: Sequence[Inputs]) -> str:
    slope = next(r for r in results if r.primary and r.estimator == "excess_slope_same_type")
    context = next(r for r in results if r.primary and r.estimator == "within_type_surprisal")
    words = [
        judged(
            slope,
            "at mid depth, each token type against itself where it was not read, excess "
            "preservation changes by {} nat of rank per nat of rarity",
        ),
        *_of_nulls(results, slope, nulls),
        _by_rarity(results),
        *crossed.sentences(results, run, nulls),
        judged(
            context,
            "among tokens of one type, ln rank changes by {} nat per nat of surprisal",
        ),
        *_of_nulls(results, context, nulls),
    ]
    rho = find(results, "partial_correlation_surprisal", layer=run.middle)
    mirror = find(results, "partial_correlation_rarity", layer=run.middle)
    omega = find(results, "omega_squared", layer=run.middle)
    words.append(
        said(
            rho,
            "Over all tokens, the partial correlation of ln rank is {} with surprisal given "
            f"rarity and {format_number(mirror)} with rarity given surprisal.",
            "The partial correlation of ln rank with surprisal",
        )
    )
    words.append(
        said(
            omega,
            "A share of {} of the variance of ln rank lies between token types.",
            "The share of the variance of ln rank between types",
        )
    )
    return " ".join(words)


def _of_nulls(results: Lines, line: Result, nulls: Sequence[Inputs]) -> list[str]:
    """The same number of each null run."""
    of_nulls = [find(results, line.estimator, layer=line.layer, run=null.label) for null in nulls]
    return [
        said(found, f"In {null.label} it is {{}}.", f"The same of {null.label}")
        for null, found in zip(nulls, of_nulls, strict=True)
    ]


def _by_rarity(results: Lines) -> str:
    """Where the excess preservation is greatest and least: a slope alone would hide a bend."""
    bins = [r for r in results if r.estimator == "excess_preservation" and r.run == TRAINED]
    known = [r for r in bins if math.isfinite(r.low)]
    if len(known) < 3:
        return "Too few bins of rarity have an interval to say where it is greatest."
    most, least = (pick(known, key=lambda r: r.estimate) for pick in (max, min))
    above, below = sum(r.low > 0 for r in known), sum(r.high < 0 for r in known)
    words = (
        f"The whole interval is above 0 in {above} of {len(known)} bins of rarity and below "
        f"0 in {below}; the estimate is greatest at {most.stratum}, {format_number(most)} nat, "
        f"and least at {least.stratum}, {format_number(least)} nat."
    )
    ends = known[0], known[-1]
    inside = most not in ends and all(end.high < most.low for end in ends)
    return (
        f"{words} So it rises and then falls with rarity, which a slope cannot show."
        if inside
        else words
    )


def _copying(results: Lines, run: Inputs) -> str:
    depth = find(results, "retrieval_depth_adjusted_10")
    assert depth is not None, "every study of text estimates it"
    copies, controls = (
        find(results, "mean_retrieval_depth_10", stratum=name) for name in ("copies", "controls")
    )
    names = "retrieval_depth_10", "cliff_delta", "scramble_recover"
    gap, delta, scramble = (find(results, name) for name in names)
    words = [
        judged(
            depth,
            "copies settle within the top 10 at a depth that differs from that of matched controls "
            "with equal covariates by {}",
        ),
        said(
            delta,
            f"The means are {_value(copies)} and {_value(controls)}, a difference of "
            f"{format_number(gap)}; Cliff's delta is {{}}.",
            "Cliff's delta",
        ),
        directed(
            scramble, "The prominence of ln rank along depth is {} nat, copies minus controls"
        ),
        _copied(results, run),
    ]
    return " ".join(words)


def _copied(results: Lines, run: Inputs) -> str:
    share = find(results, "copied_share")
    slope = find(results, "copied_within_type", layer=run.middle)
    words = (
        "Among tokens of one type, the probability of being copied changes by {} per nat of ln "
        "rank at mid depth"
    )
    return " ".join(
        [
            "No position could be counted."
            if share is None or math.isnan(share.estimate)
            else f"The share of all positions that are copied later is {share.estimate:.3g}.",
            directed(slope, words),
        ]
    )


def _rank(line: Result) -> str:
    return f"{line.estimate:,.0f}" if line.estimate >= 100 else f"{line.estimate:.3g}"


def _value(line: Result | None) -> str:
    known = line is not None and math.isfinite(line.estimate)
    return f"{line.estimate:.3g}" if known and line else "not estimable"
