import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import errors
from jaxlens.view.prompt import metrics

NAMES = tuple(metrics.table(97))


@given(st.sampled_from(NAMES), st.floats(0.001, 1000), st.floats(0.001, 1000))
def test_what_is_nearer_never_has_a_weaker_colour(name, one, other):
    metric = metrics.find(name, 97)
    low, high = sorted([one, other])
    if metric.kind == metrics.RANK:
        low, high = 1 + low, 1 + high
    weak, strong = metric.strength(np.array([low, high]))
    if metric.kind != metrics.SHARE:
        weak, strong = strong, weak
    assert 0 <= weak <= strong <= 1


def test_ranks_and_divergences_have_the_caps_of_the_post():
    final, given_, kl = (metrics.find(n, 97) for n in ("rank_final", "rank_input", "kl_final"))
    assert final.strength(np.array([1.0, 10.0, 100.0, 5000.0])).tolist() == [1, 0.5, 0, 0]
    assert given_.strength(np.array([1000.0, 999.0]))[0] == 0 < given_.strength(np.array([999.0]))
    assert kl.strength(np.array([0.0, 7.5, 30.0, 99.0])).tolist() == [1, 0.5, 0, 0]
    assert [label for _, label in final.ticks()] == ["1", "10", "100+"]
    assert kl.ticks()[-1] == (0.0, "30+")


def test_values_are_shares_ranks_or_nats_and_nan_where_there_is_none():
    readings = {
        "top_logp": np.log([[[0.5, 0.25]]]).astype(np.float32),
        "rank_next": np.array([[3, 0]], np.int32),
    }
    assert metrics.find("p_top", 97).values(readings) == pytest.approx(np.array([[0.5]]))
    ranks = metrics.find("rank_next", 97).values(readings)
    assert ranks[0, 0] == 3 and math.isnan(ranks[0, 1])


def test_numbers_are_spelled_alike_everywhere():
    assert metrics.format_number(math.nan, "rank") == "–"
    assert metrics.format_number(1234.0, "rank") == "1,234"
    assert metrics.format_number(0.5, "share") == "0.500"
    assert metrics.format_number(2e-7, "share") == "2e-7"
    assert metrics.format_number(12.345, "nat") == "12.35"
    assert metrics.format_number(1234.5, "nat") == "1234"


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(errors.ConfigError) as refusal:
        metrics.find("loss", 97)
    assert "kl_final" in refusal.value.hint
