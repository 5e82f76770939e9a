"""What an ablation says in words, from its lines: layers, directions, and how much they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from jaxlens.study import readings, sentences
from jaxlens.study.estimators.ablation import ACTIONS, DIFFERENCES, MATERIALS
from jaxlens.study.questions.ablation import PRIMARIES
from jaxlens.study.table import Result


def verdict(results: list[Result]) -> str:
    """What the ablation says, from the lines of the trained run; empty where there is none."""
    words = [
        sentences.judged(line, f"the {readings.label(line)}, is {{}} of the copy gain")
        for line in results
        if line.primary and line.estimator in PRIMARIES
    ]
    for material, title in MATERIALS.items():
        gain = _line(results, f"ablation_gain_{material}")
        if gain is None or math.isnan(gain.estimate):
            continue
        words.append(f"In {title} the copy gain is {readings.format_number(gain)} nat.")
        words += _whole(results, material)
        words += _directions(results, material)
    return " ".join(words)


def _whole(results: list[Result], material: str) -> Iterator[str]:
    """Layers at which the whole stream of the source decides at least half of the copy gain."""
    lines = _lines(results, f"ablation_share_{material}_whole")
    what = "Replacing the whole stream at the source costs at least half of it at"
    if lines and not any(_is_judged(line) for line in lines):
        yield (
            "At which layers the whole stream costs at least half of it cannot be judged: "
            f"{lines[0].note}."
        )
    elif lines:
        yield f"{what} {layer_names([r for r in lines if r.low >= 0.5])}."


def _directions(results: list[Result], material: str) -> Iterator[str]:
    """Layers at which an own direction loses more, or less, than what it is compared with."""
    for arm, other in DIFFERENCES:
        lines = _lines(results, f"ablation_difference_{material}_{arm}_{other}")
        action = ACTIONS[arm][:1].upper() + ACTIONS[arm][1:]
        if lines and not any(_is_judged(line) for line in lines):
            yield (
                f"Whether {ACTIONS[arm]} costs more than {ACTIONS[other]} cannot be judged: "
                f"{lines[0].note}."
            )
        elif lines:
            more, less = ([r for r in lines if r.low > 0], [r for r in lines if r.high < 0])
            yield (
                f"{action} costs more than {ACTIONS[other]} at {layer_names(more)}, and less "
                f"at {layer_names(less)}{_at_most(results, material, arm, other)}."
            )


def _at_most(results: list[Result], material: str, arm: str, other: str) -> str:
    """The greatest shares of the gain that both cost after the first block, where known."""
    shares = [
        [
            r.estimate
            for r in _lines(results, f"ablation_share_{material}_{name}")
            if r.layer and _is_judged(r)
        ]
        for name in (arm, other)
    ]
    if not all(shares):
        return ""
    one, two = (max(values) for values in shares)
    return f" (shares of up to {one:.2f} and {two:.2f} of the gain after the first block)"


def _is_judged(line: Result) -> bool:
    return math.isfinite(line.low)


def layer_names(lines: list[Result]) -> str:
    """Numbers of layers, those that follow each other as a range."""
    numbers = sorted(line.layer for line in lines if line.layer is not None)
    if not numbers:
        return "no layer"
    cuts = [i for i, (a, b) in enumerate(itertools.pairwise(numbers), 1) if b > a + 1]
    runs = [numbers[i:j] for i, j in zip([0, *cuts], [*cuts, None], strict=True)]
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ("layer " if len(numbers) == 1 else "layers ") + ", ".join(words)


def _lines(results: list[Result], name: str) -> list[Result]:
    found = [r for r in results if r.estimator == name and r.stratum == "all" and not r.null]
    return sorted(found, key=lambda line: line.layer or 0)


def _line(results: list[Result], name: str) -> Result | None:
    return next(iter(_lines(results, name)), None)
