"""Matched copies and controls with a known truth, made hard: how often intervals cover it.

Documents have effects of their own and sizes of a heavy tail; copies have one to four controls,
the more the later they are retrieved; a copy and its controls share what they were matched on; and
a covariate may be left a standard deviation apart. ``python tests/study/planted_matches.py`` prints
the table of the documentation.
"""

import functools
import sys
from dataclasses import dataclass

import numpy as np

from jaxlens.study.stats import matched, matched_means

DOCUMENTS = (40, 200)
RNG_SEED = 20_261_129
MIN_PRINTED = 0.9  # of the replicas must have an interval
LEVEL, NOISE, COVARIATE_NOISE = 6.0, 1.0, 0.7


@dataclass(frozen=True)
class Case:
    """What makes data hard.

    Attributes:
        effect: Copies come so much later.
        strong: Standard deviation of the documents' effects; that of a row is 1.
        tail: Sigma of the lognormal sizes of documents.
        apart: Shift of the covariate of copies, in its standard deviations.
    """

    effect: float = 0.0
    strong: float = 0.8
    tail: float = 1.0
    apart: float = 0.0


CASES = {
    "no effect": Case(),
    "effect": Case(effect=1.0),
    "heavy tail, strong dependence": Case(effect=1.0, strong=1.5, tail=1.3),
    "covariate one sd apart": Case(effect=1.0, apart=1.2),
}


def matches(rng, documents, case):
    """Values and covariates of copies and controls, and their documents."""
    size = rng.lognormal(0, case.tail, documents)
    of_document = rng.normal(0, case.strong, documents)
    n = 15 * documents
    document = rng.choice(documents, n, p=size / size.sum())
    other = rng.choice(documents, (n, 4), p=size / size.sum())
    other = np.where(other == document[:, None], (other + 1) % documents, other)
    shared = rng.normal(0, 1, n)
    held = np.arange(4) < np.clip(np.rint(2.5 + shared), 1, 4)[:, None]
    mine = shared + case.apart + rng.normal(0, COVARIATE_NOISE, n)
    theirs = shared[:, None] + rng.normal(0, COVARIATE_NOISE, (n, 4))
    copies = LEVEL + mine + of_document[document] + case.effect + rng.normal(0, NOISE, n)
    controls = LEVEL + theirs + of_document[other] + rng.normal(0, NOISE, (n, 4))
    # Whole numbers, as depths are.
    controls = np.where(held, np.rint(controls), np.nan)
    return np.rint(copies), controls, mine[:, None], theirs[..., None], document, other


def difference(rng, documents, case):
    copies, controls, _, _, *cluster = matches(rng, documents, case)
    return matched.difference(matched.values(copies, controls, *cluster))


def adjusted(rng, documents, case):
    copies, controls, mine, theirs, *cluster = matches(rng, documents, case)
    return matched.adjusted_difference(matched.values(copies, controls, *cluster), mine, theirs)


def controls(rng, documents, case):
    copies, controls, _, _, *cluster = matches(rng, documents, case)
    return matched_means.of_controls(matched.values(copies, controls, *cluster))


def cliff(rng, documents, case):
    copies, controls, _, _, *cluster = matches(rng, documents, case)
    return matched.cliff(matched.values(copies, controls, *cluster))


@functools.cache
def delta(case):
    """Cliff's delta of the population, from ten million drawn copies and controls.

    Weights of the documents do not matter: their effects do not depend on their sizes. That early
    copies have fewer controls does not matter either, as each match weighs one.
    """
    rng = np.random.default_rng(RNG_SEED)
    spread = np.sqrt(1 + COVARIATE_NOISE**2 + case.strong**2 + NOISE**2)
    sides = [rng.normal(LEVEL + by, spread, 10_000_000) for by in (case.effect + case.apart, 0.0)]
    x, y = (np.bincount(np.rint(side).astype(int) + 50, minlength=120) for side in sides)
    below = [np.cumsum(count) - count for count in (x, y)]
    return float((x @ below[1] - y @ below[0]) / 1e14)


ESTIMATORS = {
    "matched difference": (difference, lambda case: case.effect + case.apart),
    "difference at equal covariates": (adjusted, lambda case: case.effect),
    "Cliff's delta": (cliff, delta),
    "mean of the controls": (controls, lambda case: LEVEL),
}
"""Estimator on planted data, and its truth."""


def coverage(name, case, documents, replicas):
    """Share of the replicas whose interval holds the truth, and the mean error."""
    draw, truth = ESTIMATORS[name]
    place = list(ESTIMATORS).index(name), list(CASES).index(case)
    of, expected = CASES[case], truth(CASES[case])
    found = [
        draw(np.random.default_rng([RNG_SEED, *place, documents, i]), documents, of)
        for i in range(replicas)
    ]
    printed = [e for e in found if np.isfinite(e.low) and np.isfinite(e.high)]
    # Where a heavy tail leaves effectively fewer than five documents no interval is printed.
    assert len(printed) >= MIN_PRINTED * replicas
    covered = np.mean([e.low <= expected <= e.high for e in printed])
    return float(covered), float(np.mean([e.value for e in found]) - expected)


def markdown(replicas=2_000):
    """The table as the documentation shows it."""
    lines = [
        "| estimator | data | documents | truth | covers | bias |",
        "|---|---|---|---|---|---|",
    ]
    for name, (_, truth) in ESTIMATORS.items():
        for case, of in CASES.items():
            for documents in DOCUMENTS:
                covered, bias = coverage(name, case, documents, replicas)
                lines.append(
                    f"| {name} | {case} | {documents} | {truth(of):.3g} | {covered:.1%} "
                    f"| {bias:+.3f} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000))
