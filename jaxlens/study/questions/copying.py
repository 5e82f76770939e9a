"""Q3. When are copies retrieved, and are they scrambled before?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from jaxlens.study import table
from jaxlens.study.estimators import RETRIEVAL_RANKS, RETRIEVED
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.sampled import Lines
from jaxlens.study.stats import binned, bootstrap, effects, matched, matching, multiplicity, shape
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

DECILES, QUINTILES = 10, 5


def estimate(run: Inputs) -> list[Result]:
    """Copies against controls that are as frequent, as probable and as uncertain in the end."""
    copies = Lines.of(run.tallies["copies"], run.n_layers)
    others = Lines.of(run.tallies["controls"], run.n_layers)
    pairs = Pairs(copies, others, match(copies, others))
    return [
        *_depths(run, pairs),
        *_prominence(run, pairs),
        *_on_the_way(run, pairs),
        *_retrieval_curve(run),
    ]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Copies, candidates for their controls, and which of these are the controls.

    Attributes:
        copies: Copy events.
        others: Positions that copy nothing.
        matches: Places of both that belong together.
    """

    copies: Lines
    others: Lines
    matches: matching.Matches

    @property
    def note(self) -> str:
        """How many copies are left out."""
        return f"{self.matches.unmatched} of {len(self.copies)} copies had no control"

    def values(
        self, of_copies: Shaped[np.ndarray, " copy"], of_others: Shaped[np.ndarray, " other"]
    ) -> tuple[Shaped[np.ndarray, " match"], Float[np.ndarray, "match control"]]:
        """Values of the matched copies and of their controls, NaN where there is none."""
        control = self.matches.control
        controls = np.where(control >= 0, of_others[np.maximum(control, 0)], np.nan)
        return of_copies[self.matches.copy], controls

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        """Documents of the matched copies and of their controls."""
        controls = self.others["document"][np.maximum(self.matches.control, 0)]
        return self.copies["document"][self.matches.copy], controls


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
        cut: Greatest rank that counts.
    """
    stays = np.flip(ranks <= cut, 1).astype(np.int64)
    first = ranks.shape[1] - np.cumprod(stays, axis=1).sum(1)
    return first / (ranks.shape[1] - 1)


def ln_rank(ranks: np.ndarray) -> Float[np.ndarray, "..."]:
    """Natural logarithm of ranks; 0 where there is none."""
    return np.log(np.maximum(ranks, 1))


def _depths(run: Inputs, pairs: Pairs) -> list[Result]:
    lines = []
    for rank in RETRIEVAL_RANKS:
        values = pairs.values(
            *(retrieval_depth(r.layers("rank_next"), rank) for r in (pairs.copies, pairs.others))
        )
        difference = matched.matched_difference(*values, *pairs.documents)
        lines.append(
            result(
                run,
                f"retrieval_depth_{rank}",
                difference,
                smallest=1 / (2 * (run.n_layers - 1)),
                primary=rank == RETRIEVED and run.kind == TRAINED,
                note=f"{pairs.note}; smallest effect: half a layer",
            )
        )
        lines += _flat_means(run, f"mean_retrieval_depth_{rank}", *values)
        if rank == RETRIEVED:
            lines += _effects(run, *values, pairs.note)
    return lines


def _flat_means(run: Inputs, name: str, copies: np.ndarray, controls: np.ndarray) -> list[Result]:
    """Means of the matched copies and of all their controls."""
    lines = []
    for stratum, values in (("copies", copies), ("controls", controls[np.isfinite(controls)])):
        mean = float(values.mean()) if len(values) else np.nan
        without = bootstrap.missing("of the matched, without interval", mean, len(values))
        lines.append(result(run, name, without, stratum=stratum))
    return lines


def _effects(run: Inputs, copies: np.ndarray, controls: np.ndarray, note: str) -> list[Result]:
    """Cliff's delta and the Hodges-Lehmann shift of the matched."""
    delta = effects.cliff(copies, controls[np.isfinite(controls)])
    shift = effects.hodges_lehmann(copies - _row_means(controls))
    smallest = multiplicity.SMALLEST["cliff"]
    return [
        result(run, "cliff_delta", delta, smallest=smallest, note=note),
        result(run, "hodges_lehmann", shift, note=note),
    ]


def _row_means(values: Float[np.ndarray, "match control"]) -> Float[np.ndarray, " match"]:
    """Mean of the controls of each match."""
    known = np.isfinite(values)
    return binned.ratio(np.where(known, values, 0.0).sum(1), known.sum(1))


def _prominence(run: Inputs, pairs: Pairs) -> list[Result]:
    """How far ln rank rises and falls again on its way: scrambled, then recovered."""
    values = pairs.values(
        *(shape.prominence(ln_rank(r.layers("rank_next"))) for r in (pairs.copies, pairs.others))
    )
    difference = matched.matched_difference(*values, *pairs.documents)
    return [
        result(run, "scramble_recover", difference, note=pairs.note),
        *_flat_means(run, "mean_prominence", *values),
    ]


def _on_the_way(run: Inputs, pairs: Pairs) -> list[Result]:
    """Of the matched at each layer: the share that is retrieved for good, and mean ln rank."""
    ranks = [rows.layers("rank_next") for rows in (pairs.copies, pairs.others)]
    measures = {
        f"retrieved_within_{RETRIEVED}": [
            retrieval_depth(part, RETRIEVED)[:, None] <= run.depths for part in ranks
        ],
        "matched_ln_rank_next": [ln_rank(part) for part in ranks],
    }
    lines = []
    for name, sides in measures.items():
        for layer in range(run.n_layers):
            copies, controls = pairs.values(*(side[:, layer] for side in sides))
            for stratum, values in (("copies", copies), ("controls", _row_means(controls))):
                mean = bootstrap.clustered_mean(values, pairs.documents[0])
                lines.append(result(run, name, mean, layer=layer, stratum=stratum, note=pairs.note))
    return lines


def _retrieval_curve(run: Inputs) -> list[Result]:
    """Of all positions with an earlier occurrence: when the token that followed it is in reach."""
    target, cut = definitions.TARGETS.index("copy"), definitions.RETRIEVAL_CUTS.index(RETRIEVED)
    counts = run.tallies["retrieval"][target, cut].sum(0)
    total = int(counts.sum())
    shares = np.cumsum(counts)[:-1] / total if total else np.full(run.n_layers, np.nan)
    note = "all positions, without interval"
    estimates = [bootstrap.missing(note, float(share), total) for share in shares]
    return table.by_layer(run, f"copy_within_{RETRIEVED}", estimates)
