"""The trained run minus a null run, paired by documents."""

from __future__ import annotations

from study.independent import bootstrap, curves, rarity
from study.independent.lines import Lines


def of_runs(run, null):
    """Jump shares of the mean curves, and the slope of excess preservation at mid depth."""
    lines = Lines()
    for measure in curves.CURVES:
        both = (curves.by_document(one, one.measure(measure)) for one in (run, null))
        sums = [part for parts in both for part in parts]

        def difference(total, count, other_total, other_count):
            ours, theirs = (total / count, other_total / other_count)
            return curves.jump_share(ours) - curves.jump_share(theirs)

        lines.put(f"jump_share_{measure}", *bootstrap.estimate(difference, *sums))
    sides = []
    for one in (run, null):
        sums, counts = rarity.by_side(one)
        sides += [sums[..., run.middle], counts]
    weight = rarity.weights(run, sides[1])

    def slopes(*parts):
        ours, theirs = (rarity.excess_of(*pair) for pair in (parts[:2], parts[2:]))
        return rarity.line_through(ours, weight) - rarity.line_through(theirs, weight)

    number = bootstrap.estimate(slopes, *sides)
    lines.put("excess_slope_of_means", *number, layer=run.middle)
    return lines
