import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import errors, schema
from jaxlens.store import summary
from jaxlens.tally import bins as binning
from jaxlens.tally import definitions

BINS = len(binning.LN_RANK_EDGES) - 1
BIN_FACTOR = math.exp(0.1) * (1 + 1e-6)
"""A bin of ln rank is 0.1 wide; the float32 edges add a rounding."""


def histogram(ranks):
    bins = binning.ln_rank_bins(50_257)[np.asarray(ranks)]
    return np.bincount(bins, minlength=BINS).astype(np.int64)


def tallies(**changes):
    found = {
        "count": np.full((len(schema.SUMMED), 2), 2),
        "sum": np.full((len(schema.SUMMED), 2), 3 << binning.FIXED_POINT_BITS),
        "ln_rank_histogram": np.stack([histogram([1, 1, 7])[None].repeat(2, 0)] * 5),
    }
    return found | changes


def fold(parts):
    total = None
    for name, part in parts:
        total = summary.add(total, name, part)
    return total


@given(st.lists(st.integers(1, 50_257), min_size=1, max_size=60))
def test_median_rank_is_right_to_a_bin(ranks):
    # With an even number any value between the middle two is a median.
    middle = sorted(ranks)[(len(ranks) - 1) // 2 : len(ranks) // 2 + 1]
    found = summary.median_rank(histogram(ranks))
    assert middle[0] / BIN_FACTOR <= found <= middle[-1] * BIN_FACTOR


def test_median_of_mostly_first_ranks_is_exactly_one():
    assert summary.median_rank(histogram([1, 1, 1, 50_000, 50_000])) == 1.0
    assert summary.median_rank(histogram([1, 50_000])) == 1.0


def test_median_is_interpolated_in_ln_rank():
    counts = np.zeros(BINS, np.int64)
    counts[10], counts[20] = 1, 3  # half of four is reached at a third of bin 20
    low, high = binning.LN_RANK_EDGES[20:22].astype(float)
    expected = math.exp(low + (high - low) / 3)
    assert math.isclose(summary.median_rank(counts), expected, rel_tol=1e-12)


def test_median_of_nothing_is_nan():
    assert math.isnan(summary.median_rank(np.zeros(BINS, np.int64)))


def test_statistics_are_means_and_medians_of_what_was_counted():
    count = np.full((len(schema.SUMMED), 2), 2)
    count[schema.SUMMED.index("entropy")] = 0
    count[schema.SUMMED.index("kl_final"), 1] = 0
    made = tallies(count=count)
    found = summary.statistics(made, summary.axis_labels(made))
    assert "mean_entropy" not in found
    np.testing.assert_array_equal(found["mean_kl_final"].values, [1.5, np.nan])
    np.testing.assert_array_equal(found["mean_ln_rank_next"].values, [1.5, 1.5])
    np.testing.assert_array_equal(found["median_rank_copy"].values, [1.0, 1.0])
    assert found["mean_kl_final"].unit == "nat"


def test_fold_adds_beyond_32_bits_and_leaves_its_parts_alone():
    part = tallies(count=np.full((len(schema.SUMMED), 2), 2**40))
    merged = fold([("a", part), ("b", part), ("c", part)])
    assert merged["count"].dtype == np.int64
    assert (merged["count"] == 3 * 2**40).all() and (part["count"] == 2**40).all()


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (tallies(count=np.zeros((3, 2), np.int64)), "b: tally count is"),
        (tallies(count=np.zeros((len(schema.SUMMED), 2), np.int32)), "int32"),
        (tallies(count=np.zeros(3, np.int64)), "count is int64"),
        ({"count": tallies()["count"]}, "other tallies"),
        (tallies(foreign=np.zeros(1, np.int64)), "foreign"),
    ],
)
def test_fold_refuses_parts_that_do_not_fit(other, match):
    with pytest.raises(errors.DataError, match=match):
        fold([("a", tallies()), ("b", other)])


def test_fold_refuses_a_tally_that_the_schema_lacks():
    with pytest.raises(errors.DataError, match="unknown"):
        fold([("a", {"foreign": np.zeros(1, np.int64)})])


def test_every_tally_of_the_schema_can_be_merged():
    assert {tally.merge for tally in definitions.BY_NAME.values()} <= set(summary._MERGES)


def test_quantity_that_was_never_counted_has_no_statistic():
    made = tallies()
    made["ln_rank_histogram"][1] = 0
    found = summary.statistics(made, summary.axis_labels(made))
    assert "median_rank_next" not in found and "median_rank_final" in found


@pytest.mark.parametrize("sign", [1, -1])
def test_totals_that_exceed_64_bits_are_refused(sign):
    part = {
        "count": np.full(
            definitions.shape(definitions.BY_NAME["count"], 2, 3), sign * 2**62, np.int64
        )
    }
    total = summary.add(None, "a", part)
    if sign < 0:
        total = summary.add(total, "b", part)  # the least number is one
    with pytest.raises(errors.DataError, match=r"b: tally count .* exceed 64 bits"):
        summary.add(total, "b", part)


def test_values_that_are_clipped_in_sums_are_counted():
    tally = {"saturated": np.array([[2, 0], [0, 1]]), "count": np.full((2, 2), 1000)}
    said = "3 of 4,000 values, 0.07%: larger in size than 16,384"
    assert summary.clipped(tally) == said
    tally["saturated"] *= 0
    assert summary.clipped(tally) == "none of 4,000 values"
