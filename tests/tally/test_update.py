"""Tallies: exact, in 64 bits, and the same bits in any order and grouping."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens import schema
from jaxlens.tally import bins as binning
from jaxlens.tally import definitions, facts, scatter, update

VOCAB, LAYERS, ROWS = 97, 3, 40
BASIC = definitions.BASIC


def make_rows(seed, rows=ROWS):
    random = np.random.default_rng(seed)
    shape = (rows, LAYERS)
    floats = (random.standard_normal(shape) * 10).astype(np.float32)
    floats[random.random(shape) < 0.1] = np.nan
    return {
        "rank_input": random.integers(0, VOCAB + 1, shape).astype(np.int32),
        "rank_copy": random.integers(0, VOCAB + 1, shape).astype(np.int32),
        "kl_final": floats,
        "token": random.integers(0, VOCAB, rows).astype(np.int32),
    }


def tallied(*steps):
    totals = update.init(BASIC, LAYERS, VOCAB)
    lookup = update.tables(VOCAB)
    for rows, count in steps:
        values = {name: jnp.asarray(value) for name, value in rows.items()}
        totals = update.update(BASIC, totals, values, jnp.int32(count), lookup)
    return jax.device_get(totals)


def same(one, two):
    return all(one[n].tobytes() == two[n].tobytes() for n in one) and set(one) == set(two)


def test_every_total_is_int64_and_has_the_axes_of_the_schema():
    totals = tallied((make_rows(0), ROWS))
    assert {t.name for t in BASIC} == set(totals)
    for tally in BASIC:
        assert totals[tally.name].dtype == np.int64
        assert totals[tally.name].ndim == len(tally.axes)


def test_sums_go_beyond_32_bits():
    """2**14 is the largest value that is not clipped; 2**18 of them need 48 bits."""
    rows = {
        "kl_final": np.full((2**14, LAYERS), 2.0**14, np.float32),
        "token": np.zeros(2**14, np.int32),
        "rank_input": np.ones((2**14, LAYERS), np.int32),
    }
    totals = tallied(*[(rows, 2**14)] * 16)
    line = schema.SUMMED.index("kl_final")
    assert (totals["sum"][line] == 2**18 * 2 ** (14 + 16)).all()
    assert (totals["saturated"] == 0).all()
    assert totals["token_count"][0] == 2**18


def test_what_saturates_is_clipped_and_counted():
    value = np.array([[1e6, -1e6, np.inf], [2.0**14, -(2.0**14), np.nan]], np.float32)
    rows = {
        "kl_final": value,
        "token": np.zeros(2, np.int32),
        "rank_input": np.ones((2, 3), np.int32),
    }
    totals = tallied((rows, 2))
    line = schema.SUMMED.index("kl_final")
    assert totals["saturated"][line].tolist() == [1, 1, 1]
    assert totals["count"][line].tolist() == [2, 2, 1]
    assert totals["sum"][line].tolist() == [2 * 2**30, -2 * 2**30, 2**30]


def test_norms_of_the_stream_are_not_clipped_where_other_values_are():
    value = np.array([1e5, -98_765.43, 2.0**28, 1e9, np.inf, np.nan, 0.1], np.float32)
    expected = [round(float(min(x, 2**28)) * 2**16) if x == x else 0 for x in value]
    with update.wide():
        for xp in (np, jnp):
            made = facts.fixed_of_stream(xp.asarray(value), xp)
            assert made.dtype == np.int64 and made.tolist() == expected
        for add in (scatter.add_wide, scatter.add_parts):
            total = add(jnp.zeros(1, jnp.int64), jnp.zeros(len(value), jnp.int32), made)
            assert total.tolist() == [sum(expected)]
    small = value[np.abs(value) < 2**14]
    assert (facts.fixed_of_stream(small, np) == facts.fixed(small, np)).all()


def test_a_value_is_rounded_once_to_the_nearest_step():
    value = np.array([[1.25 * 2**-16, 0.75 * 2**-16, -1.25 * 2**-16]], np.float32)
    rows = {
        "kl_final": value,
        "token": np.zeros(1, np.int32),
        "rank_input": np.ones((1, 3), np.int32),
    }
    assert tallied((rows, 1))["sum"][schema.SUMMED.index("kl_final")].tolist() == [1, 1, -1]


def test_padding_and_missing_values_are_not_counted():
    rows = make_rows(1)
    part = {name: value[:10] for name, value in rows.items()}
    assert same(tallied((rows, 10)), tallied((part, 10)))
    totals = tallied((rows, ROWS))
    known = (rows["rank_input"] > 0).sum(0)
    assert totals["count"][schema.SUMMED.index("rank_input")].tolist() == known.tolist()
    assert totals["ln_rank_histogram"][0].sum(-1).tolist() == known.tolist()


def test_quantities_that_were_not_read_stay_zero():
    totals = tallied((make_rows(0), ROWS))
    for line, name in enumerate(schema.SUMMED):
        if name not in ("rank_input", "rank_copy", "kl_final"):
            assert not totals["count"][line].any()


@hypothesis.given(
    order=st.permutations(range(5)),
    cut=st.integers(1, 4),
    counts=st.lists(st.integers(0, ROWS), min_size=5, max_size=5),
)
@hypothesis.settings(max_examples=20)
def test_any_order_and_grouping_gives_the_same_bits(order, cut, counts):
    steps = [(make_rows(seed), count) for seed, count in enumerate(counts)]
    whole = tallied(*steps)
    shuffled = [steps[i] for i in order]
    merged = update.merge([tallied(*shuffled[:cut]), tallied(*shuffled[cut:])])
    assert same(whole, merged)


@pytest.mark.parametrize("vocab", [2, 97, 50257, 200_000])
def test_ln_rank_tables_agree_with_float64(vocab):
    ranks = np.arange(1, vocab + 1)
    table, bins = binning.ln_table(vocab), binning.ln_rank_bins(vocab)
    assert np.abs(table[1:] / 2**16 - np.log(ranks)).max() <= 2.0**-17
    assert table[0] == 0
    assert bins[0] == -1
    assert bins[1] == 0
    edges = binning.LN_RANK_EDGES
    assert (edges[bins[1:]] <= np.log(ranks).astype(np.float32)).all()
    assert (np.log(ranks).astype(np.float32) < edges[bins[1:] + 1]).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_parts_of_32_bits_add_up_to_the_same_total(dtype):
    random = np.random.default_rng(1)
    top = 2**31 - 1 if dtype is np.int32 else 2**45
    amount = random.integers(-top, top, (700, 3)).astype(dtype)
    amount[:2] = [[top] * 3, [-top] * 3]
    # All additions at one place, the worst case of an overflow; and some beyond the last.
    for cell in (np.zeros(700, np.int32), random.integers(0, 12, 700).astype(np.int32)):
        with update.wide():
            cell = jnp.asarray(cell)
            total = jnp.asarray(random.integers(-(2**60), 2**60, (9, 3)))
            wide = scatter.add_wide(total, cell, jnp.asarray(amount))
            assert (scatter.add_parts(total, cell, jnp.asarray(amount)) == wide).all()
            one = jnp.ones((700, 1), jnp.int32)
            counted = scatter.add_counts(total, cell, one)
            assert (counted == scatter.add_wide(total, cell, one)).all()
            assert (np.asarray(scatter.add(total, cell)) == np.asarray(counted)).all()
