"""The study's tallies of a few rows, by loops over rows and layers, written from the definitions.

Slow, and shares nothing with the package but names, edges and the sizes of axes.
"""

import itertools
import math

import numpy as np

from jaxlens.tally import axes, bins, definitions, sampling

SIXTEENTH = 2**16


def fixed(x, limit=2.0**14):
    """To the nearest multiple of 2**-16, halves to even, as float32 has it."""
    x = float(np.float32(min(max(float(x), -limit), limit)))
    return round(x * SIXTEENTH)


def measured(name, x):
    if name.startswith("rank_"):
        return ln(int(x))
    return fixed(x, 2.0**28 if name in ("norm", "retention", "retention_foreign") else 2.0**14)


def ln(n):
    return round(math.log(n) * SIXTEENTH) if n > 0 else 0


def times(a, b):
    return math.floor(a * b / SIXTEENTH + 0.5)


def log_bin(x):
    return int(sum(np.float32(x) >= edge for edge in bins.LOG_EDGES))


class Rows:
    """Rows of a run, one at a time, with the rarity of every token they name."""

    def __init__(self, values, counts):
        self.values, self.counts = values, np.asarray(counts)
        self.n_rows, self.n_layers = values["rank_input"].shape

    def rarity(self, token, fold):
        others = self.counts[1 - fold]
        share = (others[token] + 0.5) / (others.sum() + len(others) / 2)
        return round(-math.log(share) * SIXTEENTH)

    def __iter__(self):
        for i in range(self.n_rows):
            row = {name: value[i] for name, value in self.values.items()}
            if row["position"] > 0 and not math.isnan(row["surprisal"]):
                yield row

    def tokens(self, row):
        fold = int(row["fold"])
        yield "input", int(row["token"]), fold
        yield "next", int(row["next_token"]), fold
        yield "final", int(row["final_token"]), fold
        yield "foreign", int(row["foreign_token"]), min(int(row["foreign_fold"]), 1)
        yield "copy", int(row["copy_token"]), fold


def coarse(rarity):
    return min(rarity // SIXTEENTH, 15)


def fine(value):
    return min(max(value // (SIXTEENTH // 2), 0), 31)


def rank_bin(rank):
    x = np.float32(math.log(rank))
    return min(int(np.searchsorted(bins.LN_RANK_EDGES, x, side="right")) - 1, 127) // 2


def retrieved(ranks, cut):
    depth = len(ranks)
    while depth and ranks[depth - 1] <= cut:
        depth -= 1
    return depth


def first(condition, start=0):
    for place, holds in enumerate(condition):
        if place >= start and holds:
            return place
    return len(condition)


def covariates(rows, row, rarity):
    piece = 0 if row["piece"] == 255 else int(row["piece"])
    known = {
        "constant": SIXTEENTH,
        "rarity": rarity,
        "surprisal": fixed(row["surprisal"]),
        "ln_position": ln(int(row["position"]) + 1),
        "later_occurrence": SIXTEENTH * (row["prev_count"] > 0),
        "ln_distance": ln(int(row["prev_distance"])),
        "ln_count": ln(int(row["prev_count"]) + 1),
        "first_piece": SIXTEENTH * (piece == 1),
        "middle_piece": SIXTEENTH * (piece == 2),
        "last_piece": SIXTEENTH * (piece == 3),
        "embedding_norm": fixed(row["embedding_norm"]),
        "logp_input_last": fixed(row["logp_input"][-1]),
    }
    return [int(known[name]) for name in axes.COVARIATES]


def regressors(row, rarity):
    """The second edition's columns, with splines of position and of the room left in a context."""
    piece = 0 if row["piece"] == 255 else int(row["piece"])
    known = {
        "constant": SIXTEENTH,
        "rarity": rarity,
        "surprisal": fixed(row["surprisal"]),
        "later_occurrence": SIXTEENTH * (row["prev_count"] > 0),
        "ln_distance": ln(int(row["prev_distance"])),
        "ln_count": ln(int(row["prev_count"]) + 1),
        "first_piece": SIXTEENTH * (piece == 1),
        "middle_piece": SIXTEENTH * (piece == 2),
        "last_piece": SIXTEENTH * (piece == 3),
        "embedding_norm": fixed(row["embedding_norm"]),
    }
    for name, number in (("position", int(row["position"])), ("room", int(row["room"]) + 1)):
        octave = min(ln(number) * SIXTEENTH // ln(2), 11 * SIXTEENTH)
        for i in range(1, 12):
            known[f"{name}_{2**i}"] = max(0, SIXTEENTH - abs(octave - i * SIXTEENTH))
    return [int(known[name]) for name in axes.REGRESSORS]


def weights(rows, token):
    """Rarity of a token type by all counts, and the weight of one of its tokens."""
    total = rows.counts.sum(0)
    rarity = -math.log((total[token] + 0.5) / (total.sum() + len(total) / 2))
    n = int(total[token])
    by = {"types": 4096 / max(n, 1), "root": 64 / math.sqrt(max(n, 1)), "tokens": 1.0}
    scale = [round((by[name] if n >= 5 else 0.0) * SIXTEENTH) for name in axes.WEIGHTINGS]
    return round(rarity * SIXTEENTH), scale


def curve(row, name):
    if name.startswith("rank_"):
        return [ln(int(rank)) for rank in row[name]]
    return [fixed(x) for x in row[name]]


def tallies(values, counts, means):
    """All summed tallies of the study, of every edition; those of the third less these means."""
    rows = Rows(values, counts)
    n_layers, vocab = rows.n_layers, rows.counts.shape[1]
    out = {
        t.name: np.zeros(definitions.shape(t, n_layers, vocab), np.int64)
        for t in definitions.BY_NAME.values()
        if t.merge == "sum" and t.kind == "study"
    }
    for row in rows:
        _of_references(rows, row, out)
        _of_input(rows, row, out)
        _of_curves(rows, row, out)
        _within(rows, row, out, means)
    return out


def _within(rows, row, out, means):
    token, group = int(row["token"]), int(row["group"])
    known = dict(zip(axes.REGRESSORS, regressors(row, 0), strict=True))
    known["copied"] = SIXTEENTH * bool(row["copied"])
    x = [known[name] - int(means.column[token, i]) for i, name in enumerate(axes.WITHIN)]
    y = [ln(int(rank)) - int(means.ln_rank[token, i]) for i, rank in enumerate(row["rank_input"])]
    out["within_product"][group] += [[times(a, b) for b in x] for a in x]
    out["within_outcome"][group] += [[times(a, b) for b in y] for a in x]
    out["within_square"][group] += [times(a, a) for a in y]


def _of_references(rows, row, out):
    middle = rows.n_layers // 2
    piece = 0 if row["piece"] == 255 else int(row["piece"])
    stratum = piece + 4 * int(row["prev_count"] > 0)
    for line, (name, token, fold) in enumerate(rows.tokens(row)):
        ranks = [int(rank) for rank in row[f"rank_{name}"]]
        if token < 0:
            assert not any(ranks)
            continue
        rarity = coarse(rows.rarity(token, fold))
        for layer, rank in enumerate(ranks):
            out["rank_histogram"][line, layer, rarity, stratum, rank_bin(rank)] += 1
        if name in axes.COMPARED:
            place = axes.COMPARED.index(name), row["group"], rarity
            out["excess_count"][place] += 1
            out["excess_histogram"][(*place, rank_bin(ranks[middle]))] += 1
            out["excess_sum"][place] += [ln(rank) for rank in ranks]
            _of_weights(rows, row, out, axes.COMPARED.index(name), token, ranks)
        if name == "foreign":
            out["foreign_type_count"][token] += 1
            out["foreign_type_sum"][token] += [ln(rank) for rank in ranks]
            out["foreign_type_square"][token] += [times(ln(rank), ln(rank)) for rank in ranks]
        if name == "next":
            out["next_rarity_count"][row["group"]] += 1
            out["next_rarity_sum"][row["group"]] += rows.rarity(token, fold)
        if name == "final":
            for c, cut in enumerate(axes.RETRIEVAL_CUTS):
                out["settled_by_group"][c, row["group"], retrieved(ranks, cut)] += 1
        if name in axes.TARGETS:
            for c, cut in enumerate(axes.RETRIEVAL_CUTS):
                depth = retrieved(ranks, cut)
                out["retrieval"][axes.TARGETS.index(name), c, rarity, depth] += 1


def _of_weights(rows, row, out, line, token, ranks):
    rarity, scale = weights(rows, token)
    for kind, weight in enumerate(scale):
        once = times(weight, rarity)
        place = line, kind, row["group"]
        out["type_weight_product"][place] += [weight, once, times(once, rarity)]
        for power, factor in enumerate((weight, once)):
            amount = [times(factor, ln(rank)) for rank in ranks]
            out["type_weight_outcome"][(*place, power)] += amount


def _of_input(rows, row, out):
    token, group = int(row["token"]), int(row["group"])
    rarity = rows.rarity(token, int(row["fold"]))
    cell = fine(rarity), fine(fixed(row["surprisal"]))
    ranks = [int(rank) for rank in row["rank_input"]]
    lns = [ln(rank) for rank in ranks]
    for layer, rank in enumerate(ranks):
        out["joint_histogram"][(layer, *cell, rank_bin(rank))] += 1
    out["preservation_sum"][cell] += sum(lns[1:-1])
    out["type_count"][token] += 1
    out["type_sum"][token] += lns
    out["type_square"][token] += [times(x, x) for x in lns]
    # The covariates of the first edition, and the regressors of the second.
    x, z = covariates(rows, row, rarity), regressors(row, rarity)
    out["type_covariate"][token] += x
    out["covariate_product"][group] += [[times(a, b) for b in x] for a in x]
    out["covariate_outcome"][group] += [[times(a, b) for b in lns] for a in x]
    out["type_regressor"][token] += z
    out["regressor_product"][group] += [[times(a, b) for b in z] for a in z]
    out["regressor_outcome"][group] += [[times(a, b) for b in lns] for a in z]
    if row["copied"]:
        out["type_copied"][token] += 1
        out["copied_covariate"] += x
        out["copied_regressor"] += z
        out["copied_outcome"] += lns
    out["outcome_square"][group] += [times(a, a) for a in lns]
    out["frequency_norm"][coarse(rarity)] += fixed(row["embedding_norm"])
    for c, cut in enumerate(axes.EXIT_CUTS):
        depth = first([rank > cut for rank in ranks], 1)
        out["first_exit"][c, coarse(rarity), depth] += 1
        out["first_exit_by_group"][c, group, coarse(rarity), depth] += 1
    whole = ln(rows.counts.shape[1])
    # P_l = 1 - ln r / ln V is at most half of P_0.
    half = first([2 * (whole - x) <= whole - lns[0] for x in lns], 1)
    out["half_life"][coarse(rarity), half] += 1
    out["half_life_by_group"][group, coarse(rarity), half] += 1


def _of_curves(rows, row, out):
    rarity = coarse(rows.rarity(int(row["token"]), int(row["fold"])))
    group = int(row["group"])
    for line, name in enumerate(axes.MEASURES):
        for layer in range(rows.n_layers if name in row else 0):
            x = row[name][layer]
            missing = x == 0 if name.startswith("rank_") else math.isnan(x)
            if not missing:
                amount = measured(name, x)
                for kind, place in (("group", group), ("frequency", rarity)):
                    out[f"{kind}_count"][line, place, layer] += 1
                    out[f"{kind}_sum"][line, place, layer] += amount
    for layer in range(rows.n_layers if "retention_foreign" in row else 0):
        if not math.isnan(x := row["retention_foreign"][layer]):
            out["foreign_retention_count"][group, layer] += 1
            out["foreign_retention_sum"][group, layer] += measured("retention_foreign", x)
    for line, name in enumerate(axes.DIVERGENCES):
        for layer in range(rows.n_layers if name in row else 0):
            out["divergence_histogram"][line, layer, rarity, log_bin(row[name][layer])] += 1
    for line, name in enumerate(axes.JUMPS):
        values = curve(row, name)
        steps = [b - a for a, b in itertools.pairwise(values)]
        out["descending"][line, group, 0] += 1
        for layer, step in enumerate(steps, 1):
            out["descending"][line, group, layer] += step < 0
        total = sum(map(abs, steps))
        if total:
            place = min(abs(steps[0]) * 64 // total, 63)
            out["jump_histogram"][line, rarity, place] += 1
    nearer = [a < b for a, b in zip(row["kl_final"], row["kl_input"], strict=True)]
    out["nearer_final"][group] += nearer
    out["flip"][rarity, first(nearer)] += 1


def sampled(values, counts, name, size):
    """The lines of a sample, ascending by key."""
    rows = Rows(values, counts)
    lines = []
    for row in rows:
        same = row["copy_token"] == row["next_token"]
        if name != "reservoir" and (row["next_token"] < 0 or same != (name == "copies")):
            continue
        known = {
            "rarity_next": rows.rarity(max(int(row["next_token"]), 0), int(row["fold"])),
            "surprisal": fixed(row["surprisal"]),
            "logp_next_last": 0
            if math.isnan(row["logp_next"][-1])
            else fixed(row["logp_next"][-1]),
            "entropy_last": fixed(row["entropy"][-1]),
            "logp_input_last": fixed(row["logp_input"][-1]),
        }
        line = [int(known.get(field, row.get(field, 0))) for field in sampling.FIELDS]
        for field in sampling.LAYER_FIELDS:
            line += [int(x) if field.startswith("rank") else fixed(x) for x in row[field]]
        if name == "controls":
            logp = line[sampling.FIELDS.index("logp_next_last")] / SIXTEENTH
            line[0] //= 2 ** sum(logp > edge for edge in (-4, -2, -1, -0.5, -0.125))
        lines.append(line)
    lines.sort(key=lambda line: (line[0], line[1]))
    return np.array(lines[:size], np.int64)
