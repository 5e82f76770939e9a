"""The table of estimators: what the questions use, and what each line of a study says."""

import math

import pytest

from jaxlens.study import estimators, inputs, readings, sentences, study, table
from jaxlens.study.stats import bootstrap

KINDS = {
    value for name, value in vars(estimators).items() if name.isupper() and isinstance(value, str)
}

MORE = ("probe_", "lens_", "ablation_", "mean_stream_", "jump_share_beyond_mean_stream")
"""Beginnings of the names of estimators that need a probe or an ablation."""


def test_names_are_unique_and_every_field_is_filled():
    members = [one for family, values in estimators.FAMILIES for one in [family] * len(values)]
    assert len(members) == len(estimators.ESTIMATORS)
    for name, one in estimators.ESTIMATORS.items():
        assert name == one.name and "{" not in name + one.meaning
        assert one.question in {"Q0", "Q1", "Q2", "Q3"} and one.unit and one.meaning
        assert one.interval in KINDS


def test_an_unknown_name_is_refused():
    run = inputs.RunInfo(None, "trained", "trained", {}, ("input", "h.0"))  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        table.result(run, "mean_entropi", bootstrap.missing("none"))


@pytest.fixture(scope="module")
def lines(studied):
    nulls = [studied / name for name in ("random-1", "random-2", "shuffled")]
    return study.study(studied / "trained", nulls).results


def test_every_estimator_is_estimated(lines):
    unused = set(estimators.ESTIMATORS) - {line.estimator for line in lines}
    # Those of repeated tokens need such a corpus, the others a probe or an ablation of the run.
    assert [name for name in unused if not name.startswith(("twins_", *MORE))] == []


def test_lines_say_what_the_table_says(lines):
    for line in lines:
        one = estimators.ESTIMATORS[line.estimator]
        assert (line.question, line.unit) == (one.question, one.unit)
        assert line.meaning.endswith("trained minus null") == bool(line.null)
        assert one.interval != estimators.NONE or math.isnan(line.low)
        tested = one.tested or bool(line.null)
        assert tested == (not math.isnan(line.p)) or math.isnan(line.se)


def test_kinds_of_intervals_are_those_that_lines_have(lines, swept):
    """But for what three layers and few tokens have none of."""
    with_rows = study.study(swept).results  # slopes within types have an interval there alone
    never = set(estimators.ESTIMATORS) - {
        line.estimator for line in (*lines, *with_rows) if math.isfinite(line.low)
    }
    none = {name for name, one in estimators.ESTIMATORS.items() if one.interval == estimators.NONE}
    assert none <= never
    absent = ("twins_", "two_lines_", "excess_slope", "crossed_", "retrieval_depth", *MORE)
    tiny = {name for name in never if name.startswith(absent)}
    assert never - none - tiny == set()


def test_the_report_and_the_verdicts_refuse_names_that_are_not_in_the_table(lines):
    with pytest.raises(KeyError):
        sentences.find(lines, "mean_entropi")
    assert set(readings.READINGS) <= set(estimators.ESTIMATORS)
