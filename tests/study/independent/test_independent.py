"""Every line of the study's table, recomputed from the stored rows by other code.

Estimates agree to rounding, and standard errors with those of a plain bootstrap of documents, or of
the design that the line states where documents are not what is random.
"""

import math
import typing

import numpy as np
import pandas as pd
import pytest
from study.independent import (
    ablation,
    contrasts,
    copies,
    corpus,
    crossed,
    curves,
    over_types,
    passages,
    probe,
    rarity,
    regressions,
    rows,
    twins,
)
from sweeps import once, run_cli

from jaxlens.study import estimators

pytestmark = pytest.mark.long

QUANTITIES = "store.quantities=[js_final,js_input,norm,retention,retention_foreign]"
SWEEP = ("--limit", "300000", "--rows", "full", "--tallies", "study", "--set", QUANTITIES)
REPEATS = ("--limit", "40000", "--rows", "full")
SMALL_PROBE = ("--tokens", "40000")
SMALL_ABLATION = ("--layers", "0", "1", "2", "3", "4", "--blocks", "48", "--copies", "64")
TRAINED, TWINS, NULL, NULLS = "trained", "twins", "random-init (seed 1)", "random-init x 1"

FAMILIES = (curves, passages, rarity, over_types, crossed, regressions, copies)

EXACT = ("quantile_", "median_", "settled_", "exit_", "half_life", "falling_", "token_jump_")
EXACT += ("share_nearer", "monotone_", "partial_spearman", "excess_slope", "probe_", "lens_")
EXACT += ("retrieve", "mean_retrieval", "cliff", "hodges", "scramble", "mean_prominence")
EXACT += ("matched_", "balance_", "copy_within", "copied_share", "twins_")
SUMMED = ("excess_slope_",)
"""Beginnings of the names of what is counted, or computed from rows; the others are of sums."""

ROUNDING = {"abs_tol": 2**-17, "rel_tol": 4e-5}
"""Sums are of values that were rounded once to a multiple of 2**-16, so a mean is within half of
that; in ratios of small steps, and in slopes, it is a share of the value."""

OF_ERROR = 0.1
"""Share of its error that rounding may move a pooled slope: norms of fresh embeddings differ by
little more than products of rounded norms are rounded by."""

NARROW, WIDE = 0.85, 1.18

NOT_RECOMPUTED: dict[str, str] = {}
"""Estimators of the table without a reference, and why."""


class Line(typing.NamedTuple):
    """What the table says: absent numbers are NaN."""

    estimate: float
    low: float
    se: float
    note: str


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory):
    """Studies of 300,000 tokens, with probe, ablation and null, and of repeated tokens."""

    def make(out):
        out.mkdir()
        texts = out / "texts.jsonl"
        assert corpus.write(shared_data / "corpus", texts) >= 100
        run, null, repeats = out / "run", out / "null", out / "twins"
        sweep = ("run", "--quiet", "--corpus", texts, *SWEEP)
        commands = (
            (*sweep, "--out", run),
            (*sweep, "--out", null, "--null", "random-init", "--seed", "1"),
            *(("probe", one, *SMALL_PROBE) for one in (run, null)),
            ("ablate", run, *SMALL_ABLATION),
            ("study", run, "--null", null),
            ("run", "--quiet", "--corpus", "twins:repeats", *REPEATS, "--out", repeats),
            ("study", repeats),
        )
        for command in commands:
            assert run_cli(*command) == 0

    return once(tmp_path_factory, "independent", make)


@pytest.fixture(scope="module")
def table(folder):
    """Lines by run and null, and then by estimator, stratum and layer."""
    found = {}
    for name, label in (("run", ""), ("twins", TWINS)):
        for line in pd.read_parquet(folder / name / "study" / "results.parquet").itertuples():
            key = line.estimator, line.stratum, None if pd.isna(line.layer) else int(line.layer)
            lines = found.setdefault((label or line.run, line.null), {})
            assert key not in lines
            lines[key] = Line(line.estimate, line.low, line.se, line.note)
    return found


@pytest.fixture(scope="module")
def recomputed(folder):
    """The same lines from rows, and from the files of the probe and of the ablation."""
    return recompute(folder)


def recompute(folder):
    runs = {TRAINED: rows.read(folder / "run"), NULL: rows.read(folder / "null")}
    found = {(label, ""): {} for label in runs}
    probes = {TRAINED: probe.read(folder / "run"), NULL: probe.read(folder / "null")}
    for label, run in runs.items():
        for family in FAMILIES:
            found[label, ""] |= family.of_run(run)
        found[label, ""] |= probe.of_run(run, probes[label])
    found[TRAINED, ""] |= ablation.of_run(runs[TRAINED], folder / "run")
    found[TRAINED, NULLS] = contrasts.of_runs(runs[TRAINED], runs[NULL])
    found[TRAINED, NULLS] |= crossed.contrasts(runs[TRAINED], runs[NULL])
    found[TWINS, ""] = twins.of_run(folder / "twins")
    found[TRAINED, NULLS] |= probe.contrasts(probes[TRAINED], probes[NULL])
    return found


def test_every_line_is_recomputed(table, recomputed):
    assert set(table) == set(recomputed)
    for of, lines in table.items():
        assert {name for name, *_ in set(lines) - set(recomputed[of])} <= set(NOT_RECOMPUTED), of
        assert set(recomputed[of]) <= set(lines), of
    printed = {name for lines in table.values() for name, *_ in lines}
    assert set(estimators.ESTIMATORS) == printed
    known = {name for lines in recomputed.values() for name, *_ in lines}
    assert printed - known == set(NOT_RECOMPUTED)


def test_estimates_agree(table, recomputed):
    apart = {
        (*of, *key): (line.estimate, recomputed[of][key].estimate)
        for of, lines in table.items()
        for key, line in lines.items()
        if key[0] not in NOT_RECOMPUTED and not agree(key[0], line, recomputed[of][key].estimate)
    }
    assert apart == {}


def agree(name, line, other):
    one = line.estimate
    if name.startswith("pooled_") and abs(one - other) <= OF_ERROR * line.se:
        return True
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    exact = name.startswith(EXACT) and not name.startswith(SUMMED)
    tolerance = {"abs_tol": 1e-12, "rel_tol": 1e-9} if exact else ROUNDING
    return math.isclose(one, other, **tolerance)


def test_errors_are_those_of_a_bootstrap(table, recomputed):
    compared = {
        (*of, *key): (line.se, recomputed[of][key].se)
        for of, lines in table.items()
        for key, line in lines.items()
        if key[0] not in NOT_RECOMPUTED and not math.isnan(line.se)
    }
    apart = {
        key: (printed, error)
        for key, (printed, error) in compared.items()
        if not is_like(printed, error, WIDE)
    }
    assert apart == {}
    without = [line for lines in table.values() for line in lines.values() if math.isnan(line.low)]
    assert [line for line in without if not line.note] == []


def is_like(printed, error, widest):
    if printed == 0 or error == 0:
        return max(printed, error) < 1e-9
    return NARROW <= printed / error <= widest


def test_quantiles_of_bins_are_those_of_rows_within_a_bin(folder, table):
    run = rows.read(folder / "run")
    for (name, stratum, layer), line in table[TRAINED, ""].items():
        if name.startswith("quantile_"):
            column = run[name.removeprefix("quantile_")][:, layer].astype(float)
            exact = np.quantile(column, float(stratum.removeprefix("quantile ")))
            wide = 0.2 if name == "quantile_rank_final" else math.log(1.02)
            low = 1 if name == "quantile_rank_final" else 1e-5
            assert abs(math.log(max(line.estimate, low) / max(exact, low))) <= wide * 1.001
