"""The rows of `planted_within`, less means of types that a sample of them fixed before.

Run as a script it prints coverage and widths for several shares.
"""

import sys

import numpy as np
from study import planted_within
from study.planted_within import CASES, DOCUMENTS, NAMES, VOCAB, truth

from jaxlens.study.stats import within_type
from jaxlens.tally import bins, type_means

CONTEXT, RNG_SEED = 128, 20_261_202
SHARES = (0.01, 0.1)


def replica(rng, documents, case, share):
    """Estimates of one replica from the rows and from a table, and the share of unseen types."""
    token, document, group, x, y = planted_within.draw(rng, documents, case)
    sample = sampled(rng, document, share)
    means = table(token, np.column_stack([x, y]), sample)
    left = np.column_stack([x, y]) - means[token]
    groups = planted_within.products(group, left[:, :-1], left[:, -1])
    sums = planted_within.sums_of(token, x, y)
    unseen = 1 - len(np.unique(token[sample])) / len(np.unique(token))
    return (
        planted_within.estimate(token, group, x, y),
        within_type.slope(sums, within_type.about_own_means(groups, sums), NAMES, NAMES[0]),
        unseen,
    )


def sampled(rng, document, share):
    """Rows of contexts that are drawn until they hold a share of all."""
    first = np.flatnonzero(np.diff(document, prepend=-1))
    place = np.arange(len(document)) - first[document]
    _, context = np.unique(document * len(document) + place // CONTEXT, return_inverse=True)
    order = rng.permutation(context.max() + 1)
    reached = np.cumsum(np.bincount(context)[order])
    return np.isin(context, order[: np.searchsorted(reached, share * len(document)) + 1])


def table(token, values, sample):
    """Means of types as a run takes them of its sample."""
    counts = np.zeros((2, VOCAB), np.int64)
    counts[0] = np.bincount(token, minlength=VOCAB)
    fixed = np.rint(values[sample] * bins.ONE)
    total = np.stack([np.bincount(token[sample], c, VOCAB) for c in fixed.T], axis=1)
    rarity = bins.frequency_bin(bins.type_rarity(counts))
    seen = np.bincount(token[sample], minlength=VOCAB)
    return type_means.shrunk(total.astype(np.int64), seen, rarity) / bins.ONE


def coverage(name, documents, share, replicas):
    """Shares of the intervals that hold the truth, and what they are beside those of the rows.

    Returns:
        Coverage from the table and from the rows, the mean ratio of their widths, and the share
        of the types that the sample has not seen.
    """
    case, place = CASES[name], list(CASES).index(name)
    covered, ratios, unseen = [], [], []
    for i in range(replicas):
        rng = np.random.default_rng([RNG_SEED, place, documents, round(1 / share), i])
        rows, fixed, lacking = replica(rng, documents, case, share)
        assert fixed.value == rows.value
        if not np.isfinite(rows.low) or not np.isfinite(fixed.low):
            continue
        covered.append([one.low <= truth(case) <= one.high for one in (fixed, rows)])
        ratios.append((fixed.high - fixed.low) / (rows.high - rows.low))
        unseen.append(lacking)
    assert len(covered) >= 0.9 * replicas
    both = np.mean(covered, axis=0)
    return float(both[0]), float(both[1]), float(np.mean(ratios)), float(np.mean(unseen))


if __name__ == "__main__":
    for documents in DOCUMENTS:
        for share in SHARES:
            for name in CASES:
                found = coverage(name, documents, share, int(sys.argv[1]))
                print(documents, share, name, *(f"{value:.3f}" for value in found), flush=True)
