"""Copy events and the positions that they are compared with."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxlens.study.inputs import Inputs
from jaxlens.study.sampled import Lines
from jaxlens.study.stats import matched, matching
from jaxlens.tally import bins

DECILES, QUINTILES = 10, 5

MIN_SUFFIX = 2
"""Tokens that a copy event repeats before the one that it copies: one alone is often a bigram."""

UNBALANCED = 0.1
"""Standardized difference of a covariate beyond which a note names it."""


def matched_pairs(run: Inputs) -> Pairs:
    """Copies with a long suffix, and positions that copy nothing though their token stood before.

    Where the token did not stand earlier in the context nothing could have been copied, so such
    positions are no controls.
    """
    copies = Lines.of(run.tallies["copies"], run.n_layers)
    long = copies.where(copies["match_length"] >= MIN_SUFFIX)
    others = Lines.of(run.tallies["controls"], run.n_layers)
    others = others.where(others["prev_count"] > 0)
    return Pairs(long, others, match(long, others), len(copies) - len(long))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Copies, candidates for their controls, and which of these are the controls.

    Attributes:
        copies: Copy events.
        others: Positions that copy nothing.
        matches: Places of both that belong together.
        short: Copies that were left out since they repeat one token alone.
    """

    copies: Lines
    others: Lines
    matches: matching.Matches
    short: int = 0

    @property
    def note(self) -> str:
        """How many copies are left out."""
        unmatched = f"{self.matches.unmatched} of {len(self.copies)} copies had no control"
        short = f"; {self.short} more, with a suffix of one token, are left out"
        return unmatched + (short if self.short else "")

    @functools.cached_property
    def covariates(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What a copy and its controls should have alike, of all copies and of all others."""
        sides = [_covariates(rows) for rows in (self.copies, self.others)]
        return {name: (sides[0][name], sides[1][name]) for name in sides[0]}

    @functools.cached_property
    def balance(self) -> dict[str, float]:
        """Standardized differences that matching left, by covariate."""
        return {
            name: matched.standardized_difference(self.values(*sides))
            for name, sides in self.covariates.items()
        }

    @property
    def unbalanced(self) -> str:
        """Covariates that matching left apart, for a note."""
        apart = {name: value for name, value in self.balance.items() if abs(value) > UNBALANCED}
        named = ", ".join(f"{name} {value:+.2f}" for name, value in apart.items())
        return f"; unbalanced after matching: {named}" if named else ""

    def sides(
        self, of_copies: Shaped[np.ndarray, " copy"], of_others: Shaped[np.ndarray, " other"]
    ) -> tuple[Shaped[np.ndarray, " match"], Float[np.ndarray, "match control"]]:
        """Values of the matched copies and of their controls, NaN where there is none."""
        control = self.matches.control
        controls = np.where(control >= 0, of_others[np.maximum(control, 0)], np.nan)
        return of_copies[self.matches.copy], controls

    def values(
        self,
        of_copies: Shaped[np.ndarray, " copy"],
        of_others: Shaped[np.ndarray, " other"],
        some: Bool[np.ndarray, " match"] | slice = slice(None),
    ) -> matched.Values:
        """The same with their documents, as the statistics take them; of some of the matches."""
        copies, controls = self.sides(of_copies, of_others)
        theirs = self.others["document"][np.maximum(self.matches.control, 0)]
        return matched.values(copies[some], controls[some], self.documents[some], theirs[some])

    @property
    def documents(self) -> Shaped[np.ndarray, " match"]:
        """Documents of the matched copies."""
        return self.copies["document"][self.matches.copy]

    @functools.cached_property
    def matched_covariates(self) -> tuple[np.ndarray, np.ndarray]:
        """Covariates of the matches: ``[match, covariate]``, ``[match, control, covariate]``."""
        both = [self.sides(*sides) for sides in self.covariates.values()]
        mine, theirs = (np.stack([sides[i] for sides in both], axis=-1) for i in (0, 1))
        return mine, theirs


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


def _covariates(rows: Lines) -> dict[str, Float[np.ndarray, " row"]]:
    return {
        "rarity_next": rows["rarity_next"] / bins.ONE,
        "surprisal": rows["surprisal"] / bins.ONE,
        "logp_next_last": rows["logp_next_last"] / bins.ONE,
        "entropy_last": rows["entropy_last"] / bins.ONE,
        "ln_position": np.log1p(rows["position"]),
        "ln_distance": np.log(np.maximum(rows["prev_distance"], 1)),
        "ln_count": np.log1p(rows["prev_count"]),
    }


def _edges(values: np.ndarray, parts: int) -> np.ndarray:
    shares = np.arange(1, parts) / parts
    return np.quantile(values, shares) if len(values) else np.zeros(parts - 1)
