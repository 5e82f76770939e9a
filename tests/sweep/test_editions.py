"""Editions of the study's tallies: a run keeps the one it began with, and says what it lacks."""

import math
import shutil

import pytest
from sweeps import EVERYTHING, STUDY, configure

import jaxlens
from jaxlens.study import inputs, study
from jaxlens.study.stats import within_type
from jaxlens.sweep import resolve
from jaxlens.sweep import run as sweep
from jaxlens.tally import definitions, first_edition


@pytest.fixture(scope="module")
def first(tiny, texts, tmp_path_factory):
    """A finished run as it was made before there was a second edition."""
    out = tmp_path_factory.mktemp("editions") / "first"
    with pytest.MonkeyPatch.context() as before:
        before.setattr(resolve, "_edition", lambda store, spec: store.tallies)
        assert sweep.run(configure(tiny, texts, out, **STUDY)).finished
    return out


@pytest.fixture(scope="module")
def second(tiny, texts, tmp_path_factory):
    """A finished run without rows as it was made before there was a third edition."""
    out = tmp_path_factory.mktemp("editions") / "second"
    assert sweep.run(configure(tiny, texts, out, **STUDY | {"store.tallies": "study-2"})).finished
    return out


def test_a_run_that_begins_now_records_the_third_edition_where_it_keeps_no_rows(studied):
    with jaxlens.open_run(studied / "trained") as run:
        assert run.spec["store"]["tallies"] == "study-3"
        assert {one.name for one in definitions.TALLIES["study-3"]} == set(run.tally)


def test_a_run_that_begins_now_records_the_second_edition_where_it_keeps_rows(
    tiny, texts, tmp_path
):
    sweep.run(configure(tiny, texts, tmp_path / "run", **EVERYTHING, **{"corpus.limit": 500}))
    with jaxlens.open_run(tmp_path / "run") as run:
        assert run.spec["store"]["tallies"] == "study-2" and "type_means" not in run.spec
        assert {one.name for one in definitions.TALLIES["study-2"]} == set(run.tally)
    assert not (tmp_path / "run" / "type_means.h5").exists()


@pytest.mark.parametrize("edition", [pytest.param("first", marks=pytest.mark.long), "second"])
def test_a_run_of_an_earlier_edition_resumes_to_the_same_bytes(
    edition, tiny, texts, tmp_path, request
):
    begun = request.getfixturevalue(edition)
    out = shutil.copytree(begun, tmp_path / "run")
    shards = sorted((out / "shards").glob("*.h5"))
    assert len(shards) > 1
    for path in (shards[-1], shards[-1].with_suffix(".json"), out / "summary.h5"):
        path.unlink()
    result = sweep.run(configure(tiny, texts, out, **STUDY))
    assert result.finished and result.computed == 1
    for path in (*shards, out / "summary.h5"):
        assert path.read_bytes() == (begun / path.relative_to(out)).read_bytes(), path.name
    assert not (out / "type_means.h5").exists()


def test_the_study_of_a_second_edition_without_rows_has_slopes_without_intervals(second):
    slopes = [one for one in study.study(second).results if one.estimator == "copied_within_type"]
    assert len(slopes) == 3 and all(within_type.NO_ROWS in one.note for one in slopes)
    assert all(math.isnan(one.low) for one in slopes)


@pytest.mark.long  # nothing else compiles its step
def test_the_study_of_a_first_edition_says_which_lines_need_what(first):
    with jaxlens.open_run(first) as run:
        assert run.spec["store"]["tallies"] == "study"
        names = {one.name for one in first_edition.FIRST}
        assert names <= set(run.tally) and "type_regressor" not in run.tally
    found = study.study(first)
    lacking = [line for line in found.results if line.note.startswith(inputs.FIRST_EDITION)]
    assert {"excess_slope_same_type", "half_life_median", "pooled_rarity", "unigram_share"} <= {
        line.estimator for line in lacking
    }
    assert all(math.isnan(line.estimate) for line in lacking)
    # What the first edition counts is estimated as before.
    known = {line.estimator for line in found.results if math.isfinite(line.estimate)}
    assert {"mean_entropy", "excess_preservation", "omega_squared", "copied_share"} <= known
