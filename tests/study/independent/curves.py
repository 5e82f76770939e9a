"""Q0 and Q1: means by layer, the shapes of mean curves, shares of positions, quantiles."""

from __future__ import annotations

import numpy as np
from scipy import stats
from study.independent import bootstrap, rows
from study.independent.lines import Lines

FALLS = ("kl_final", "kl_final_matched", "logp_input")
RISES = ("kl_input", "rank_input")
CURVES = (*FALLS, *RISES, "js_final", "js_input")
MEANS = ("entropy", "kl_final", "rank_final", "rank_next", *CURVES[1:], "norm", "retention")
QUARTERS = (0.25, 0.5, 0.75)


def of_run(run):
    """All of these lines of one run."""
    lines = Lines()
    for part in (means, shapes, falling, token_shares, constants, two_lines, quantiles, dilution):
        part(run, lines)
    return lines


def mean_name(measure):
    return f"mean_ln_{measure}" if measure.startswith("rank_") else f"mean_{measure}"


def by_document(run, values):
    """Sums and numbers of the values that there are, ``[document, ...]``."""
    known = ~np.isnan(values)
    return [bootstrap.totals(x, run.document, run.n_documents) for x in (values, known)]


def ratio(total, count):
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def means(run, lines):
    """Means by layer, and those that are linear in them."""
    for measure in MEANS:
        value, se = bootstrap.estimate(ratio, *by_document(run, run.measure(measure)))
        lines.by_layer(mean_name(measure), value, se)
        if measure == "rank_input":
            lines.by_layer("preservation", 1 - value / run.ln_vocab, se / run.ln_vocab)
    foreign = by_document(run, run["retention_foreign"])
    own = by_document(run, run["retention"])
    lines.by_layer("mean_retention_foreign", *bootstrap.estimate(ratio, *foreign))
    beyond = bootstrap.estimate(lambda a, b, c, d: a / b - c / d, *own, *foreign)
    lines.by_layer("retention_beyond_mean", *beyond)
    nearer = (run["kl_final"] < run["kl_input"]).astype(float)
    lines.by_layer("share_nearer_output", *bootstrap.estimate(ratio, *by_document(run, nearer)))


def jump_share(curve):
    """The first step over the sum of all, in absolute value."""
    steps = np.abs(np.diff(curve))
    return steps[0] / steps.sum()


def shapes(run, lines):
    """Jump share and ratio, the share of steps in one direction, mean preservation inside."""
    for measure in CURVES:
        sums = by_document(run, run.measure(measure))

        def shape(total, count, rises=measure in RISES):
            steps = np.diff(total / count)
            ratio = abs(steps[0]) / np.median(np.abs(steps[1:]))
            along = (steps >= 0 if rises else steps <= 0).mean()
            return np.array([jump_share(total / count), ratio, along])

        values, errors = bootstrap.estimate(shape, *sums)
        names = ("jump_share", "jump_ratio", "monotone_share")
        for name, value, se in zip(names, values, errors, strict=True):
            if not (name == "monotone_share" and measure.startswith("js_")):
                lines.put(f"{name}_{measure}", value, np.nan if name == "monotone_share" else se)
    sums = by_document(run, run.ln("input"))
    area = bootstrap.estimate(lambda t, n: 1 - (t / n)[1:-1].mean() / run.ln_vocab, *sums)
    lines.put("aupc", *area)


def falling(run, lines):
    """Share of positions whose value is less than at the layer before."""
    for measure in (*FALLS, *RISES):
        curve = rows.fixed(run.measure(measure))
        lower = np.zeros(curve.shape)
        lower[:, 1:] = curve[:, 1:] < curve[:, :-1]
        value, se = bootstrap.estimate(ratio, *by_document(run, lower))
        lines.by_layer(f"falling_{measure}", value, se, first=1)


def token_shares(run, lines):
    """Median over tokens of the first step's share, as the middle of one of 64 bins."""
    for measure in (*FALLS, *RISES):
        steps = np.abs(np.diff(rows.fixed(run.measure(measure)), axis=1))
        way = steps.sum(1)
        share = np.sort(steps[way > 0, 0] / way[way > 0])
        median = share[int(np.ceil(len(share) / 2)) - 1]
        middle = (min(int(median * 64), 63) + 0.5) / 64
        lines.put(f"token_jump_share_{measure}", middle)


def constants(run, lines):
    """What predictions without context would make of the first step: frequencies, mean streams."""
    unigram = ("unigram_kl_final", "unigram_share", "jump_share_beyond_unigram")
    streams = ("mean_stream_share", "jump_share_beyond_mean_stream")
    if run.kind != "none":
        for name in (*unigram, "mean_stream_kl_final", *streams):
            lines.put(name, np.nan)
        return
    known = run["next_token"] >= 0
    rarity = np.where(known, run.rarity["next"], np.nan)
    for name, found in zip(unigram, _of_first_step(run, rarity), strict=True):
        lines.put(name, *found)
    surprisal = np.where(known[:, None], -run.mean_stream.T[run["next_token"]], np.nan)
    found = [_of_first_step(run, surprisal[:, layer]) for layer in range(run.n_layers)]
    lines.by_layer("mean_stream_kl_final", *np.array([of_layer[0] for of_layer in found]).T)
    for name, pair in zip(streams, found[1][1:], strict=True):
        lines.put(name, *pair)


def _of_first_step(run, surprisal):
    """KL from the output, share of the first step and jump share beyond, each with its error."""
    parts = [*by_document(run, surprisal), *by_document(run, run["entropy"][:, -1])]
    parts += by_document(run, run["kl_final_matched"])

    def statistics(surprisal, n_next, entropy, n, kl, n_kl):
        curve, alone = kl / n_kl, surprisal / n_next - entropy / n
        beyond = np.concatenate([[min(curve[0], alone)], curve[1:]])
        return np.array([alone, (curve[0] - alone) / (curve[0] - curve[1]), jump_share(beyond)])

    return list(zip(*bootstrap.estimate(statistics, *parts), strict=True))


def two_lines(run, lines):
    """Slopes of two lines inside; the break, chosen once, is held in the replicas."""
    depths = run.depths[1:-1]
    for measure in ("kl_input", "kl_final"):
        sums, counts = by_document(run, run[measure][:, 1:-1])
        break_ = _robin_hood(sums, counts, depths)
        sides = [depths <= break_, depths >= break_]

        def slopes(total, count, sides=sides):
            return np.array([np.polyfit(depths[s], (total / count)[s], 1)[0] for s in sides])

        values, errors = bootstrap.estimate(slopes, sums, counts)
        for which, value, se in zip(("first", "second"), values, errors, strict=True):
            lines.put(f"two_lines_{which}_{measure}", value, se)


def _robin_hood(sums, counts, depths):
    """Simonsohn's break: of the flat middle, the stronger line gives layers to the weaker."""
    mean = sums.sum(0) / counts.sum(0)
    upward = 1 if np.polyfit(depths, mean, 2)[0] >= 0 else -1
    se = bootstrap.spread(ratio, sums, counts)
    inside = np.arange(1, len(depths) - 1)
    lowest = inside[np.argmin(upward * mean[inside])]
    flat = inside[upward * mean[inside] <= upward * mean[lowest] + se[lowest]]
    middle = depths[flat[(len(flat) - 1) // 2]]
    sides = [depths <= middle, depths >= middle]

    def slopes(total, count):
        return np.array([np.polyfit(depths[s], (total / count)[s], 1)[0] for s in sides])

    value, error = bootstrap.estimate(slopes, sums, counts)
    z = np.abs(value) / error
    return depths[flat[round(z[1] / z.sum() * (len(flat) - 1))]]


def ln_rank_quantile(ranks, share):
    """Of ranks in bins of ln rank that are 0.2 wide; the first is rank 1 alone and stands for 0."""
    edges = np.linspace(0, 12.8, 65, dtype=np.float32)
    counts = np.histogram(np.log(ranks).astype(np.float32), edges)[0]
    reached = np.cumsum(counts)
    i = int(np.argmax(reached >= share * reached[-1]))
    inside = (share * reached[-1] - (reached[i] - counts[i])) / counts[i]
    return 0.0 if i == 0 else float(edges[i] + inside * (float(edges[i + 1]) - edges[i]))


def divergence_quantile(values, share):
    """Of values in bins that are 2 % wide, the first of which begins at 0."""
    edges = (1e-5 * 1.02 ** np.arange(799)).astype(np.float32)
    counts = np.bincount(np.searchsorted(edges, values.astype(np.float32), "right"), minlength=800)
    reached = np.cumsum(counts)
    i = int(np.argmax((reached >= share * reached[-1]) & (reached > 0)))
    inside = (share * reached[-1] - (reached[i] - counts[i])) / counts[i]
    if i == 0:
        return inside * float(edges[0])
    low, high = float(edges[i - 1]), float(edges[i])
    return low * (high / low) ** inside


def quantiles(run, lines):
    for share in QUARTERS:
        stratum = f"quantile {share}"
        ranks = [np.exp(ln_rank_quantile(r, share)) for r in run["rank_final"].T]
        lines.by_layer("quantile_rank_final", ranks, stratum=stratum)
        for name in ("entropy", "kl_final", "kl_final_matched", "kl_input", "js_final", "js_input"):
            values = [divergence_quantile(column, share) for column in run[name].T]
            lines.by_layer(f"quantile_{name}", values, stratum=stratum)
    ranks = [np.exp(ln_rank_quantile(r, 0.5)) for r in run["rank_input"].T]
    lines.by_layer("median_rank_input", ranks)


def dilution(run, lines):
    """Ranks that the law of dilution gives to means of norms by bin of rarity."""
    logs = []
    for i in np.unique(run.rarity_bin["input"]):
        mine = run.rarity_bin["input"] == i
        cosine = run["embedding_norm"][mine].mean() / run["norm"][mine].mean(0)
        retained = cosine * run["retention"][mine].mean(0)
        logs.append((mine.sum(), [np.log(_diluted(c, run)) for c in (cosine, retained)]))
    weight = np.array([n for n, _ in logs]) / len(run.document)
    mean = np.tensordot(weight, np.array([both for _, both in logs]), 1)
    for name, values in zip(("dilution_rank", "retained_rank"), np.exp(mean), strict=True):
        lines.by_layer(name, values)


def _diluted(cosine, run):
    c = np.clip(cosine, -1, 1)
    with np.errstate(divide="ignore"):
        z = -c * np.sqrt(run.width) / np.sqrt(1 - c**2)
    return 1 + (run.vocab - 1) * stats.norm.cdf(z)
