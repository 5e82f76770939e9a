"""Editions of the study's tallies: a run keeps the one it began with, and says what it lacks."""

import math
import shutil

import pytest
from sweeps import STUDY, configure

import jaxlens
from jaxlens.study import inputs, study
from jaxlens.sweep import resolve
from jaxlens.sweep import run as sweep
from jaxlens.tally import definitions, first_edition


@pytest.fixture(scope="module")
def first(tiny, texts, tmp_path_factory):
    """A finished run as it was made before there was a second edition."""
    out = tmp_path_factory.mktemp("editions") / "first"
    with pytest.MonkeyPatch.context() as before:
        before.setattr(resolve, "_edition", lambda tallies, spec: tallies)
        assert sweep.run(configure(tiny, texts, out, **STUDY)).finished
    return out


def test_a_run_that_begins_now_records_the_second_edition(studied):
    with jaxlens.open_run(studied / "trained") as run:
        assert run.spec["store"]["tallies"] == "study-2"
        assert {one.name for one in definitions.TALLIES["study-2"]} == set(run.tally)


def test_a_run_of_the_first_edition_resumes_to_the_same_bytes(first, tiny, texts, tmp_path):
    out = shutil.copytree(first, tmp_path / "run")
    shards = sorted((out / "shards").glob("*.h5"))
    assert len(shards) > 1
    for path in (shards[-1], shards[-1].with_suffix(".json"), out / "summary.h5"):
        path.unlink()
    result = sweep.run(configure(tiny, texts, out, **STUDY))
    assert result.finished and result.computed == 1
    for path in (*shards, out / "summary.h5"):
        assert path.read_bytes() == (first / path.relative_to(out)).read_bytes(), path.name


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
