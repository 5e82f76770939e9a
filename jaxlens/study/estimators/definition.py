"""What an estimator is: the fields of its definition, the kinds of intervals, and shared lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxlens.tally import axes

BOOTSTRAP = "bootstrap over groups of documents"
CROSSING = "where the interval of the share crosses one half"
ROBUST = "cluster-robust, by groups of documents"
WITHIN = "jackknife over groups of documents, from rows less the means of their types"
TWO_WAY = "two-way jackknife, over token types and groups of documents"
PAIRED = "jackknife over the documents of matched pairs"
TYPES = "jackknife over token types"
WILSON = "Wilson's, with the design effect of groups of documents"
RECOVERED = "from the intervals of two shares, paired by groups of documents"
CLUSTERED = "jackknife and studentised bootstrap over sequences or documents"
NONE = "none"

ROOM = tuple(f"room_{knot}" for knot in axes.KNOTS)
"""The room that a context leaves, which decides how often a position is copied, not its ranks."""

HELD = tuple(name for name in axes.REGRESSORS if name not in ROOM)
"""What regressions of ranks hold; the position enters as a spline."""

_FINAL = ("logp_next_last", "entropy_last")
COPY_COVARIATES = ("rarity_next", "surprisal", *_FINAL, "ln_position", "ln_distance", "ln_count")
"""What copies and their controls should have alike."""

RETRIEVED = 10
"""Rank within which a token counts as retrieved; 1 and 5 are secondary."""

RETRIEVAL_RANKS = (1, 5, RETRIEVED)

RECORDED = {
    "kl_final": "KL(last layer || this layer)",
    "kl_final_matched": "KL(last layer || this layer at its matched temperature)",
    "kl_input": "KL(input layer || this layer)",
    "logp_input": "log-probability of the input token",
    "rank_input": "ln rank of the input token",
}
"""Measures whose mean curves are described, and what each is."""

ON_DEMAND = {
    "js_final": "Jensen-Shannon divergence of this layer from the last",
    "js_input": "Jensen-Shannon divergence of this layer from the input layer",
}
"""Further ones, for runs that record them."""

FALLING = ("kl_final", "kl_final_matched", "logp_input")
"""Measures of which the steps that fall are counted; of the others those that rise are."""


@dataclass(frozen=True)
class Estimator:
    """What is estimated, and how.

    Attributes:
        name: As in the table; of a family with placeholders such as ``{measure}``.
        question: ``Q0`` to ``Q3``.
        meaning: One sentence.
        unit: Unit of the estimate.
        interval: Kind of its interval; ``none`` where it never has one.
        tested: Whether 0 is a hypothesis; of a difference from null runs it always is.
    """

    name: str
    question: str
    meaning: str
    unit: str
    interval: str
    tested: bool = False

    @property
    def contrast(self) -> str:
        """Meaning of its difference from null runs."""
        return f"{self.meaning.partition('; ')[0]}, trained minus null"


Members = Sequence[Mapping[str, object]]
"""Values of the placeholders of a family, for each of its estimators."""


@dataclass(frozen=True, eq=False)
class Group:
    """What the families of a group share; see `Estimator`."""

    question: str
    unit: str
    interval: str
    members: Members = ({},)
    tested: bool = False


Table = Mapping[Group, Mapping[str, str]]
"""Names and meanings of families, by what they share."""


def ranks_of(ranks: Sequence[int]) -> Members:
    """Members of a family by rank."""
    return [{"rank": rank} for rank in ranks]


def measures(*names: str) -> Members:
    """Members of a family by measure."""
    what, direction = RECORDED | ON_DEMAND, {True: "fall", False: "rise"}
    return [{"measure": n, "what": what[n], "move": direction[n in FALLING]} for n in names]
