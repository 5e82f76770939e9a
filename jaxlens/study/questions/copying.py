"""Q3. When are copies retrieved, and are they scrambled before?"""

from __future__ import annotations

import numpy as np

from jaxlens.study import table
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.sampled import Lines
from jaxlens.study.stats import bootstrap, effects, matched, matching, multiplicity, shape
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

QUESTION = "Q3"

CUT = 10
"""Rank within which a token counts as retrieved; 1 and 5 are secondary."""

DECILES, QUINTILES = 10, 5


def answer(of: Inputs) -> list[Result]:
    """Copies against controls that are as frequent, as probable and as uncertain in the end."""
    copies = Lines.of(of.tallies["copies"], of.n_layers)
    others = Lines.of(of.tallies["controls"], of.n_layers)
    found = match(copies, others)
    note = f"{found.unmatched} of {len(copies)} copies had no control"
    return [
        *_depths(of, copies, others, found, note),
        *_prominence(of, copies, others, found, note),
        *_on_the_way(of, copies, others, found, note),
        *_retrieval_curves(of),
    ]


def match(copies: Lines, others: Lines) -> matching.Matches:
    """Controls of the copies: see ``matching.match``; deciles and quintiles are the copies' own."""
    edges = {
        "rarity_next": _edges(copies["rarity_next"], DECILES),
        "position": _edges(copies["position"], QUINTILES),
    }

    def strata(rows: Lines) -> np.ndarray:
        columns = [np.searchsorted(edges[name], rows[name], side="right") for name in edges]
        return np.stack([*columns, rows["piece"]], axis=1)

    def measures(rows: Lines) -> np.ndarray:
        names = ("logp_next_last", "entropy_last")
        return np.stack([rows[name] / bins.ONE for name in names], axis=1)

    return matching.match(
        strata(copies),
        measures(copies),
        copies["key"],
        strata(others),
        measures(others),
        others["key"],
    )


def _edges(values: np.ndarray, parts: int) -> np.ndarray:
    shares = np.arange(1, parts) / parts
    return np.quantile(values, shares) if len(values) else np.zeros(parts - 1)


def retrieval_depth(ranks: np.ndarray, cut: int) -> np.ndarray:
    """Depth from which a rank stays within a cut, 0 to 1; a layer beyond 1 where it never does.

    Args:
        ranks: ``[row, layer]``.
        cut: Greatest rank.
    """
    stays = np.flip(ranks <= cut, 1).astype(np.int64)
    first = ranks.shape[1] - np.cumprod(stays, axis=1).sum(1)
    return first / (ranks.shape[1] - 1)


def _pairs(
    values: np.ndarray, other: np.ndarray, found: matching.Matches
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the matched copies and of their controls, NaN where there is none."""
    controls = np.where(found.control >= 0, other[np.maximum(found.control, 0)], np.nan)
    return values[found.copy], controls


def _matched(
    copies: Lines, others: Lines, found: matching.Matches, values: np.ndarray, other: np.ndarray
) -> tuple[bootstrap.Estimate, np.ndarray, np.ndarray]:
    ours, theirs = _pairs(values, other, found)
    clusters = copies["document"][found.copy]
    control = others["document"][np.maximum(found.control, 0)]
    return matched.matched_difference(ours, theirs, clusters, control), ours, theirs


def _depths(
    of: Inputs, copies: Lines, others: Lines, found: matching.Matches, note: str
) -> list[Result]:
    lines = []
    for cut in (1, 5, CUT):
        depths = [retrieval_depth(rows.layers("rank_next"), cut) for rows in (copies, others)]
        difference, ours, theirs = _matched(copies, others, found, *depths)
        primary = cut == CUT and of.kind == TRAINED
        lines.append(
            result(
                of,
                QUESTION,
                f"retrieval_depth_{cut}",
                f"depth from which the next token stays within rank {cut}: copies minus matched "
                "controls; positive: copies are retrieved later",
                difference,
                unit="depth",
                smallest=1 / (2 * (of.n_layers - 1)),
                tested=True,
                primary=primary,
                note=f"{note}; smallest effect: half a layer",
            )
        )
        for name, rows in (("copies", ours), ("controls", theirs[np.isfinite(theirs)])):
            mean = bootstrap.missing("of the matched, without interval", _mean(rows), len(rows))
            meaning = f"mean depth from which the next token stays within rank {cut}"
            label = f"mean_retrieval_depth_{cut}"
            lines.append(result(of, QUESTION, label, meaning, mean, unit="depth", stratum=name))
        if cut == CUT:
            lines += _effects(of, ours, theirs, note)
    return lines


def _effects(of: Inputs, ours: np.ndarray, theirs: np.ndarray, note: str) -> list[Result]:
    """Cliff's delta and the Hodges-Lehmann shift of the matched."""
    flat = theirs[np.isfinite(theirs)]
    pairs = ours - _row_means(theirs)
    meaning = "of the depths of copies and matched controls; positive: copies later"
    return [
        result(
            of,
            QUESTION,
            "cliff_delta",
            f"Cliff's delta {meaning}",
            effects.cliff(ours, flat),
            unit="1",
            smallest=multiplicity.SMALLEST["cliff"],
            tested=True,
            note=note,
        ),
        result(
            of,
            QUESTION,
            "hodges_lehmann",
            f"Hodges-Lehmann shift {meaning}",
            effects.hodges_lehmann(pairs),
            unit="depth",
            note=note,
        ),
    ]


def _row_means(values: np.ndarray) -> np.ndarray:
    held = np.isfinite(values)
    total = np.where(held, values, 0.0).sum(1)
    return np.divide(total, held.sum(1), out=np.full(len(values), np.nan), where=held.any(1))


def _prominence(
    of: Inputs, copies: Lines, others: Lines, found: matching.Matches, note: str
) -> list[Result]:
    """How far ln rank rises and falls again on its way: scrambled, then recovered."""
    values = [
        shape.prominence(np.log(np.maximum(rows.layers("rank_next"), 1)))
        for rows in (copies, others)
    ]
    difference, ours, theirs = _matched(copies, others, found, *values)
    lines = [
        result(
            of,
            QUESTION,
            "scramble_recover",
            "prominence of ln rank of the next token along depth: copies minus matched controls",
            difference,
            unit="nat",
            tested=True,
            note=note,
        )
    ]
    for name, rows in (("copies", ours), ("controls", theirs[np.isfinite(theirs)])):
        mean = bootstrap.missing("of the matched, without interval", _mean(rows), len(rows))
        meaning = "mean prominence of ln rank of the next token; 0 where it only falls"
        lines.append(
            result(of, QUESTION, "mean_prominence", meaning, mean, unit="nat", stratum=name)
        )
    return lines


def _on_the_way(
    of: Inputs, copies: Lines, others: Lines, found: matching.Matches, note: str
) -> list[Result]:
    """Of the matched at each layer: the share that is retrieved for good, and mean ln rank."""
    clusters = copies["document"][found.copy]
    measures = {
        f"retrieved_within_{CUT}": (
            f"share whose next token is within rank {CUT} from here to the last layer",
            "1",
            lambda ranks: retrieval_depth(ranks, CUT)[:, None] <= of.depths,
        ),
        "matched_ln_rank_next": (
            "mean ln rank of the next token",
            "nat",
            lambda ranks: np.log(np.maximum(ranks, 1)),
        ),
    }
    lines = []
    for name, (meaning, unit, measure) in measures.items():
        ours, theirs = (measure(rows.layers("rank_next")) for rows in (copies, others))
        for layer in range(of.n_layers):
            pairs = _pairs(ours[:, layer], theirs[:, layer], found)
            for whose, values in zip(
                ("copies", "controls"), (pairs[0], _row_means(pairs[1])), strict=True
            ):
                mean = bootstrap.clustered_mean(values, clusters)
                lines.append(
                    result(
                        of,
                        QUESTION,
                        name,
                        meaning,
                        mean,
                        unit=unit,
                        layer=layer,
                        stratum=whose,
                        note=note,
                    )
                )
    return lines


def _retrieval_curves(of: Inputs) -> list[Result]:
    """Of all positions with an earlier occurrence: when the token that followed it is in reach."""
    counts = of.tallies["retrieval"][
        definitions.TARGETS.index("copy"), definitions.RETRIEVAL_CUTS.index(CUT)
    ].sum(0)
    total = int(counts.sum())
    shares = np.cumsum(counts)[:-1] / total if total else np.full(of.n_layers, np.nan)
    why = "all positions, without interval"
    found = [bootstrap.missing(why, float(share), total) for share in shares]
    meaning = f"share whose copy candidate is within rank {CUT} from here to the last layer"
    return table.by_layer(of, QUESTION, f"copy_within_{CUT}", meaning, found, unit="1")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
