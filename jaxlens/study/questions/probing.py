"""Q1, continued. What can be read linearly where the lens does not see it?

A probe's file has integers by groups of held-out documents; see ``store.probe_file``. Shares have
Wilson's interval with the design effect of the groups, since many of them are 1 or nearly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxlens import errors
from jaxlens.store import probe_file
from jaxlens.store.probe_file import Probe
from jaxlens.study import curves, table
from jaxlens.study.estimators import probing
from jaxlens.study.inputs import RANDOM_INIT, TRAINED, Inputs, RunInfo, rarity_label
from jaxlens.study.stats import bootstrap, multiplicity, paired_shares, shares, slope
from jaxlens.study.table import Result
from jaxlens.tally import bins

Groups = Float[np.ndarray, "layer group"] | Int[np.ndarray, "layer group"]

TARGETS = tuple(target for target in probe_file.TARGETS if target != probing.PERMUTED)
"""Targets that the lens reads too."""

PRIMARY = "probe_minus_lens_recall_1_own"
"""What a probe reads of the own token beyond what the lens sees; a primary at mid depth."""

MIN_MISSED = 20
"""Groups with a position that is not read, for an interval of a mean log-probability."""

FEW_MISSED = f"fewer than {MIN_MISSED} groups of documents with a position that is not read"


def estimate(run: Inputs, probe: Probe) -> list[Result]:
    """Recall at 1 and 10 and log-probability: of probe and lens, and their difference.

    Args:
        run: Trained or null.
        probe: Its probe.
    """
    lines = _of_positions(run, probe, "all", None)
    for rarity in np.flatnonzero(_has_types(run, probe)).tolist():
        lines += _of_positions(run, probe, rarity_label(rarity), rarity)
    return lines


def contrasts(
    run: Inputs, probe: Probe | None, nulls: Sequence[tuple[Inputs, Probe | None]]
) -> list[Result]:
    """Recall of the probe, minus its mean over probes of fresh weights, at the same positions.

    Args:
        run: Trained run.
        probe: Its probe.
        nulls: Null runs with theirs.

    Raises:
        ConfigError: A null run of fresh weights was probed with other settings.
    """
    same = [(null, of_null) for null, of_null in nulls if null.kind == RANDOM_INIT and of_null]
    if probe is None or not same:
        return []
    lines = []
    for null, of_null in same:
        require_same_settings(run, probe, null, of_null)
    for target in TARGETS:
        for rank in probing.RANKS:
            ours, counts = _sums(probe, target, "probe", f"hits_{rank}", None)
            theirs = [_sums(one, target, "probe", f"hits_{rank}", None)[0] for _, one in same]
            mean = np.mean(theirs, axis=0)
            lines += table.by_layer(
                run,
                f"probe_recall_{rank}_{target}",
                [
                    paired_shares.difference(*of_layer)
                    for of_layer in zip(ours, mean, counts, strict=True)
                ],
                null=f"{RANDOM_INIT} x {len(same)}",
            )
    return lines


def require_same_settings(run: RunInfo, probe: Probe, other: RunInfo, of_other: Probe) -> None:
    """Refuses two probes that were not made with the same options, of the same positions.

    Raises:
        ConfigError: Naming what differs.
    """
    ours, theirs = probe.spec["probe"], of_other.spec["probe"]
    differing = [name for name, value in ours.items() if theirs.get(name) != value]
    if differing or dict(probe.counts) != dict(of_other.counts):
        what = ", ".join(f"{name} {theirs.get(name)}" for name in differing) or "positions"
        raise errors.ConfigError(
            f"the probe of {other.path} differs from that of {run.path}: {what}",
            f"remove {other.path}/{probe_file.FOLDER}, and probe it with the same options",
        )


def _of_positions(run: Inputs, probe: Probe, stratum: str, rarity: int | None) -> list[Result]:
    """Lines of all positions, or of those whose target is in a bin of rarity."""
    targets = TARGETS if rarity is not None else probe_file.TARGETS
    lines = []
    for target in targets:
        compared = target != probing.PERMUTED
        for rank in probing.RANKS:
            hits = [
                _sums(probe, target, readout, f"hits_{rank}", rarity)
                for readout in probe_file.READOUTS
            ]
            name = f"recall_{rank}_{target}"
            (ours, counts), (lens, _) = hits
            of_groups = {
                f"probe_{name}": map(shares.of_groups, ours, counts),
                f"lens_{name}": map(shares.of_groups, lens, counts),
                f"probe_minus_lens_{name}": map(paired_shares.difference, ours, lens, counts),
            }
            for estimator, estimates in of_groups.items():
                if compared or estimator.startswith("probe_recall"):
                    lines += _by_layer(run, estimator, list(estimates), stratum)
        lines += _log_probabilities(run, probe, target, stratum, rarity)
    return lines


def _by_layer(
    run: Inputs, estimator: str, estimates: Sequence[bootstrap.Estimate], stratum: str
) -> list[Result]:
    """A line for each layer; at mid depth of the trained run one of them is a primary."""
    judged = estimator == PRIMARY and stratum == "all"
    return [
        table.result(
            run,
            estimator,
            estimate,
            layer=layer,
            stratum=stratum,
            smallest=multiplicity.SMALLEST["recall"] if judged else math.nan,
            primary=judged and run.kind == TRAINED and layer == run.middle,
        )
        for layer, estimate in enumerate(estimates)
    ]


def absent(run: Inputs) -> Result:
    """The primary of a run that was not probed."""
    why = bootstrap.missing("no probe was made: make one with jaxlens probe RUN")
    smallest = multiplicity.SMALLEST["recall"]
    return table.result(run, PRIMARY, why, layer=run.middle, smallest=smallest, primary=True)


def _log_probabilities(
    run: Inputs, probe: Probe, target: str, stratum: str, rarity: int | None
) -> list[Result]:
    (ours, counts), (lens, _) = (
        _sums(probe, target, readout, "logp", rarity) for readout in probe_file.READOUTS
    )
    our_misses, lens_misses = (
        counts - _sums(probe, target, readout, "hits_1", rarity)[0]
        for readout in probe_file.READOUTS
    )
    sums = {f"probe_logp_{target}": (ours, our_misses)}
    if target != probing.PERMUTED:
        sums |= {
            f"lens_logp_{target}": (lens, lens_misses),
            f"probe_minus_lens_logp_{target}": (ours - lens, our_misses + lens_misses),
        }
    return [
        line
        for estimator, (of_groups, misses) in sums.items()
        for line in table.by_layer(
            run, estimator, mean_log_probability(of_groups, counts, misses), stratum=stratum
        )
    ]


def mean_log_probability(sums: Groups, counts: Groups, misses: Groups) -> list[bootstrap.Estimate]:
    """Mean of each layer; without an interval where few groups decide it.

    Where nearly all positions are read, the mean is that of the few which are not, and the groups
    at hand may hold none of the worst: in simulations the interval then covers 75 to 90 %, and 92
    to 97 % where at least `MIN_MISSED` groups hold one.

    Args:
        sums: In fixed point.
        counts: Positions.
        misses: Positions whose target is not the first.
    """
    missed = (misses > 0).sum(-1)
    return [
        bootstrap.missing(FEW_MISSED, one.value, one.n, one.clusters)
        if math.isfinite(one.low) and missed[layer] < MIN_MISSED
        else one
        for layer, one in enumerate(curves.by_layer(sums.T, counts.T))
    ]


def _sums(
    probe: Probe, target: str, readout: str, statistic: str, rarity: int | None
) -> tuple[Groups, Groups]:
    """Sums of a statistic and positions, ``[layer, group]``, of a bin of rarity or of all."""
    parts = [probe.of(target, readout, name) for name in (statistic, "positions")]
    one, other = (part.sum(1) if rarity is None else part[:, rarity] for part in parts)
    return one, other


def _has_types(run: Inputs, probe: Probe) -> np.ndarray:
    """Bins of rarity with as many candidate types as a line about types needs."""
    # Of a type the rarity by all documents; that of a position is by those of the other fold.
    counts = run.n_types
    if counts is None:
        return np.zeros(bins.FREQUENCY_BINS, bool)
    positions = probe.of("own", "probe", "positions")[0].sum(-1)
    return (counts >= slope.MIN_TYPES) & (positions > 0)
