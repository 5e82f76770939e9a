"""What the sign of an estimate says: nouns for labels, and a direction only where there is one.

A label names a quantity and claims nothing. What a positive and what a negative number mean stands
here once for every estimator that has a direction; `direction` chooses by the interval, so that no
sentence can contradict its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxlens.study.estimators import ablation
from jaxlens.study.stats import multiplicity
from jaxlens.study.table import Result


@dataclass(frozen=True)
class Reading:
    """An estimator in words.

    Attributes:
        label: A noun; says nothing of the sign.
        above: What a positive estimate means.
        below: What a negative estimate means.
    """

    label: str
    above: str
    below: str


READINGS = {
    "jump_share_kl_final_matched": Reading(
        "first block's share of the total change, trained minus fresh weights",
        "the first block accounts for a larger share than in fresh weights",
        "the first block accounts for a smaller share than in fresh weights",
    ),
    "probe_minus_lens_recall_1_own": Reading(
        "recall of the own token at rank 1, linear probe minus lens",
        "a linear probe finds the own token where the lens does not",
        "the lens finds the own token where a linear probe does not",
    ),
    "excess_slope_same_type": Reading(
        "slope of excess preservation on rarity, each type against itself elsewhere",
        "rarer tokens are kept more",
        "rarer tokens are kept less",
    ),
    "crossed_rarity": Reading(
        "slope of excess preservation on rarity, with crossed effects",
        "at the mean rarity of the corpus, rarer tokens are kept more",
        "at the mean rarity of the corpus, rarer tokens are kept less",
    ),
    "crossed_rarity_squared": Reading(
        "coefficient of squared rarity in the excess preservation, with crossed effects",
        "the slope on rarity rises with rarity",
        "the slope on rarity falls with rarity",
    ),
    "within_type_surprisal": Reading(
        "slope of ln rank on surprisal, within a type",
        "more surprising occurrences of a token are kept less",
        "more surprising occurrences of a token are kept more",
    ),
    "retrieval_depth_adjusted_10": Reading(
        "depth of retrieval, copies minus controls at equal covariates",
        "copies are retrieved later than their controls",
        "copies are retrieved earlier than their controls",
    ),
    "scramble_recover": Reading(
        "prominence of ln rank, copies minus controls",
        "the rank of a copy rises and falls again more than that of its control",
        "the rank of a copy rises and falls again less than that of its control",
    ),
    "copied_within_type": Reading(
        "slope of the probability of being copied on ln rank, within a type",
        "tokens that are kept are copied less often",
        "tokens that are kept are copied more often",
    ),
    "partial_correlation_surprisal": Reading(
        "correlation of ln rank and surprisal, given rarity",
        "more surprising tokens are kept less",
        "more surprising tokens are kept more",
    ),
    "partial_correlation_rarity": Reading(
        "correlation of ln rank and rarity, given surprisal",
        "rarer tokens have greater ranks",
        "rarer tokens have smaller ranks",
    ),
    "twins_depth_difference_10": Reading(
        "depth of retrieval, planted copy minus control",
        "planted copies are retrieved later than their controls",
        "planted copies are retrieved earlier than their controls",
    ),
    "twins_gain": Reading(
        "ln rank at the last layer, control minus planted copy",
        "planted copies rank better than their controls",
        "planted copies rank worse than their controls",
    ),
}
READINGS |= {
    f"ablation_{kind}_{material}_{arm}_{other}": Reading(
        f"loss of the copy{where} in {title}, {ablation.PARTS[arm]} minus {ablation.PARTS[other]}",
        f"{ablation.ACTIONS[arm]} costs the copy more than {ablation.ACTIONS[other]}",
        f"{ablation.ACTIONS[arm]} costs the copy less than {ablation.ACTIONS[other]}",
    )
    for kind, where in (("early", " to mid depth"), ("difference", ""))
    for material, title in ablation.MATERIALS.items()
    for arm, other in ablation.DIFFERENCES
}
"""Estimators whose sign has a meaning."""

_JUDGEMENTS = {
    multiplicity.LARGER: "large enough to matter",
    multiplicity.SMALLER: "too small to matter",
}

NO_DIRECTION = "no direction: the interval contains 0"
NO_INTERVAL = "no direction: there is no interval"


def label(line: Result) -> str:
    """The noun of an estimator; its short name where it has none."""
    reading = READINGS.get(line.estimator)
    return reading.label if reading else line.estimator


def reason(line: Result) -> str:
    """Why a line has no number or no interval; what else its note says stays in the table."""
    return line.note.partition("; ")[0]


def format_number(line: Result | None, digits: int = 3) -> str:
    """A number with its interval, as text."""
    if line is None or math.isnan(line.estimate):
        why = "" if line is None or not line.note else f" ({reason(line)})"
        return f"not estimable{why}"
    value = f"{line.estimate:.{digits}g}"
    if math.isnan(line.low) or math.isnan(line.high):
        return f"{value} (no interval: {reason(line)})" if line.note else value
    return f"{value} [{line.low:.{digits}g}, {line.high:.{digits}g}]"


def format_p(p: float, absent: str) -> str:
    """A p-value as text; one that is too small for a float is not 0.

    Args:
        p: The p-value.
        absent: What stands for NaN.
    """
    if math.isnan(p):
        return absent
    return "<1e-300" if p == 0 else f"{p:.2g}"


def has_direction(line: Result) -> bool:
    """Whether the whole interval lies on one side of 0."""
    return line.low > 0 or line.high < 0


def direction(line: Result) -> str:
    """What the sign says, where the interval allows it."""
    if math.isnan(line.low) or math.isnan(line.high):
        return NO_INTERVAL
    if not has_direction(line):
        return NO_DIRECTION
    reading = READINGS[line.estimator]
    return reading.above if line.low > 0 else reading.below


def judged(line: Result) -> str:
    """What an interval says of the size of an effect."""
    smallest = f"the smallest effect of interest, {line.smallest:.3g}"
    if line.judgement == multiplicity.LARGER:
        return f"the whole interval lies beyond {smallest}"
    if line.judgement == multiplicity.SMALLER:
        return f"the whole interval lies within {smallest}"
    if line.judgement == multiplicity.UNDECIDED:
        return f"the interval crosses {smallest}: undecided"
    return "it cannot be judged"


def judgement(line: Result) -> str:
    """The judgement of a line in plain words; an estimate without an interval is not judged."""
    if line.judgement == multiplicity.NOT_ESTIMABLE and math.isfinite(line.estimate):
        return "not judged"
    return _JUDGEMENTS.get(line.judgement, line.judgement)


def finding(line: Result) -> str:
    """A sentence in plain words on an estimate that was judged, with its numbers."""
    name = label(line)
    if line.judgement == multiplicity.NOT_ESTIMABLE or not line.judgement:
        if math.isnan(line.estimate):
            return f"Not estimable: the {name} ({reason(line) or 'no reason is known'})."
        return f"Not judged: the {name} is {format_number(line)}."
    unit = {"1": "", "depth": " of the depth"}.get(line.unit, f" {line.unit}")
    least = f"the smallest effect that matters: {line.smallest:.3g}"
    numbers = f"the {name} is {format_number(line)}{unit} ({least})"
    text = direction(line)
    text = text[0].upper() + text[1:]
    if line.judgement == multiplicity.LARGER:
        return f"{text}: {numbers}."
    if line.judgement == multiplicity.SMALLER:
        if has_direction(line):
            return f"{text}, but by too little to matter: {numbers}."
        return f"No effect that matters: {numbers}."
    if has_direction(line):
        return f"{text}; whether by enough to matter is undecided: {numbers}."
    return f"Undecided, even the direction: {numbers}."
