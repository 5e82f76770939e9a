"""Rows with planted effects of known sign, and the whole study of them.

Rows are drawn, and everything behind them is the program: the rules that turn rows into tallies,
every estimator, the verdicts and the figures.
"""

from pathlib import Path

import numpy as np

from jaxlens import schema
from jaxlens.study import demeaned, fold, inputs, positions, table, verdicts
from jaxlens.study import study as answers
from jaxlens.study.questions import ablation, crossed, discarding, probing
from jaxlens.study.questions import rarity as preserving
from jaxlens.study.stats import bootstrap
from jaxlens.tally import bins, definitions, facts, sampling

VOCAB, LAYERS, DOCUMENTS, LENGTH = 400, 5, 150, 80
SPEC = {
    "model": {"architecture": {"vocab_size": VOCAB, "n_embd": 16, "n_layer": LAYERS - 1}},
    "corpus": {"kind": "text"},
    "seed": 1,
}
NAMES = ("input", *(f"h.{i}" for i in range(LAYERS - 1)))


def study(sign):
    """The study of a planted run beside a planted null of fresh weights.

    Args:
        sign: 1, -1 or 0. With 1 rarer tokens are kept more, the more the rarer they are, and
            surprising ones less, copies come later, rise and fall more and what is kept is copied
            less, tokens rank better where they were read, and the first block does more than in the
            null; with -1 all is reversed.
    """
    run = made(sign, 0.35 + 0.2 * sign, inputs.TRAINED, "trained")
    null = made(0, 0.35, inputs.RANDOM_INIT, "random-init (seed 1)")
    lines = answers._of_one(run) + answers._of_one(null)
    lines += discarding.contrasts(run, [null]) + preserving.contrasts(run, [null])
    lines += crossed.contrasts(run, [null])
    lines += measured(run, sign)
    found = tuple(table.adjusted(lines))
    said = answers._with_ablation(verdicts.verdicts(found, run, [null]), found, run)
    return answers.Study(run, (null,), found, said)


def measured(run, sign):
    """Primaries of a probe and of an ablation, whose estimators are planted elsewhere."""
    value = 0.3 * sign
    estimate = bootstrap.Estimate(value, value - 0.01, value + 0.01, 0.005, 10_000, 50, "", 49.0)
    lines = [
        table.result(run, name, estimate, smallest=0.05, primary=True)
        for name in ablation.PRIMARIES
    ]
    read = table.result(
        run, probing.PRIMARY, estimate, layer=run.middle, smallest=0.05, primary=True
    )
    return [*lines, read]


def made(sign, first, kind, label):
    """A run as the study reads it.

    Args:
        sign: Of the effects.
        first: Share of the first block in the way of the divergences.
        kind: Of the run.
        label: Of the run.
    """
    values, counts = rows(np.random.default_rng(20_200_831), sign, first)
    sizes = LAYERS, VOCAB
    tallies = {
        t.name: definitions.empty(t.name, definitions.shape(t, *sizes)) for t in definitions.STUDY
    }
    real, lookup = np.ones(len(values["token"]), bool), facts.tables(VOCAB, counts)
    fold.add(tallies, values, real, lookup)
    within = demeaned.empty(LAYERS)
    demeaned.add(within, facts.of_rows(values, real, lookup, np), tallies)
    more = {"token_counts": counts, "within": within, "positions": sampled(values, counts)}
    return inputs.Inputs(Path("planted"), label, kind, SPEC, NAMES, tallies, **more)


def sampled(values, counts):
    """All positions but the first of each document."""
    rarity = bins.type_rarity(counts)
    centre = counts.sum(0) @ rarity / counts.sum()
    rarity = rarity - centre
    used = values["position"] > 0
    token, rank = (
        np.stack([values[own][used], values[foreign][used]])
        for own, foreign in (("token", "foreign_token"), ("rank_input", "rank_foreign"))
    )
    document = values["document"][used]
    powers = [np.bincount(document, rarity[token[0]] ** power) for power in range(3)]
    level = np.stack([powers[1], powers[2]], axis=1) / powers[0][:, None]
    return positions.Positions(
        token, rank, values["group"][used], level[document], rarity, float(centre)
    )


def rows(rng, sign, first):
    """Values as the rules take them, and the counts of tokens by fold."""
    n = DOCUMENTS * LENGTH
    document = np.repeat(np.arange(DOCUMENTS), LENGTH)
    offset = np.tile(np.arange(LENGTH), DOCUMENTS)
    fold_of = document % 2
    token, foreign = (drawn_tokens(rng, n) for _ in range(2))
    counts = np.stack([np.bincount(token[fold_of == f], minlength=VOCAB) for f in (0, 1)])
    rarity = bins.rarity(counts)[fold_of, token]
    foreign_rarity = bins.rarity(counts)[1 - fold_of, foreign]
    surprisal = 0.5 * rarity + rng.gamma(2.0, 1.0, n)
    ranks, copied = input_ranks(rng, sign, rarity, foreign_rarity, surprisal - 0.5 * rarity)
    copies = rng.random(n) < 0.3
    next_token = np.roll(token, -1)
    end = offset == LENGTH - 1
    next_token[end] = -1
    # Any other token stands for a candidate that is not the next one.
    copy_token = np.where(copies, next_token, (next_token + 1) % VOCAB)
    values = {
        "rank_input": ranks["input"],
        "rank_foreign": ranks["foreign"],
        "rank_next": np.where(end[:, None], 0, next_ranks(rng, sign, copies)),
        "rank_final": np.maximum(1, ranks["foreign"] // 4),
        "rank_copy": np.where(end[:, None], 0, next_ranks(rng, 0, copies)),
        "token": token,
        "next_token": next_token,
        "copy_token": np.where(end, -1, copy_token),
        "foreign_token": foreign,
        "final_token": drawn_tokens(rng, n),
        "document": document,
        "offset": offset,
        "position": offset,
        "room": LENGTH - 1 - offset,
        "prev_distance": rng.integers(0, 20, n),
        "prev_count": rng.integers(0, 3, n),
        "match_length": np.where(copies, rng.integers(2, 5, n), 0),
        "copied": copied,
        "piece": np.full(n, schema.PIECE_WHOLE),
        "fold": fold_of,
        "foreign_fold": 1 - fold_of,
        "group": bins.group_of(document.astype(np.uint64)),
    }
    values = {name: np.asarray(value, np.int32) for name, value in values.items()}
    values["key"] = sampling.key_of(document.astype(np.uint64), offset)
    return values | floats(rng, n, surprisal, first, sign), counts


def drawn_tokens(rng, n):
    chance = 1 / np.arange(3, VOCAB + 3)
    return rng.choice(VOCAB, n, p=chance / chance.sum())


def input_ranks(rng, sign, rarity, foreign_rarity, surprise):
    """Ranks of the own and of a foreign token, and whether the position is copied later."""
    wiggle = rng.normal(0, 0.3, (len(rarity), LAYERS))
    centred = rarity - rarity.mean()
    gap = sign * (0.8 + 0.35 * centred + 0.1 * centred**2)
    noise = rng.normal(0, 0.5, len(rarity))
    own = 3.2 - gap + 0.4 * sign * (surprise - 2) + noise
    chance = np.clip(0.3 + 0.25 * sign * noise, 0, 1)
    copied = rng.random(len(rarity)) < chance
    other = 3.2 + rng.normal(0, 0.5, len(foreign_rarity))
    rank = {
        name: np.clip(np.rint(np.exp(level[:, None] + wiggle)), 1, VOCAB).astype(int)
        for name, level in (("input", own), ("foreign", other))
    }
    return rank, copied


def next_ranks(rng, sign, copies):
    """Ranks that come within 10 at some layer; of copies two layers later, or earlier.

    Between, ranks of copies rise above where they were, or those of all others do.
    """
    arrives = 2 + sign * copies + rng.integers(0, 2, len(copies))
    layers = np.arange(LAYERS)
    ranks = np.where(layers < arrives[:, None], 60, 4)
    scrambled = copies if sign > 0 else ~copies if sign < 0 else np.zeros_like(copies)
    ranks[:, 0] = np.where(scrambled, 20, 60)  # so that rank 60 after it is a bump
    return ranks


def floats(rng, n, surprisal, first, sign):
    """Divergences that fall with depth, and all that only has to be there."""
    later = (1 - first) / (LAYERS - 2)
    left = 1 - np.cumsum([0, first, *[later] * (LAYERS - 2)])
    noise = rng.normal(0, 0.05, (n, LAYERS))
    falls = (6 * left + 0.2 + noise).astype(np.float32)
    rises = (6 - 6 * left + 0.2 + noise).astype(np.float32)
    entropy = np.full((n, LAYERS), 3.0) + noise
    entropy[:, LAYERS // 2] += sign
    flat = np.float32(-2.0) * np.ones((n, LAYERS), np.float32)
    # The first of a context has no surprisal.
    seen = np.where(np.arange(n) % LENGTH == 0, np.nan, surprisal)
    # A positive sign: the middle is nearer the output than the input.
    near, far = (falls, rises) if sign >= 0 else (rises, falls)
    return {
        "kl_final": near,
        "kl_input": far,
        "kl_final_matched": falls,
        "entropy": entropy.astype(np.float32),
        "logp_input": flat,
        "logp_next": flat,
        "logp_final": flat,
        "norm": np.float32(2.0) * np.ones((n, LAYERS), np.float32),
        "retention": np.float32(0.5) * np.ones((n, LAYERS), np.float32),
        "retention_foreign": np.float32(0.25) * np.ones((n, LAYERS), np.float32),
        "surprisal": seen.astype(np.float32),
        "embedding_norm": np.full(n, 1.0, np.float32),
    }
