"""Repeated blocks: the second is the first, and all tokens are of one frequency."""

import functools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import designs
from jaxlens.corpus.readers import skip_log
from jaxlens.corpus.synthetic import repeated_tokens

BINS = np.repeat(np.arange(-1, designs.N_BINS), 50).astype(np.int8)


def made(bins=BINS, seed=0, room=1024):
    log = skip_log.SkipLog()
    return list(repeated_tokens.read(bins, seed, room, log)), log


whole = functools.cache(made)


def test_there_are_as_many_of_every_bin_and_lag():
    found, log = whole()
    ids = [document.id for document in found]
    assert ids == list(dict.fromkeys(ids))
    assert log.documents == len(ids) == designs.N_BINS * len(designs.LAGS) * designs.SEQUENCES
    assert log.skipped == 0
    cells = designs.N_BINS * len(designs.LAGS)
    for start in (0, cells, 7 * cells):  # so a corpus with a limit has, too
        cell = {(d.bin, d.lag) for d in map(designs.parse, ids[start : start + cells])}
        assert len(cell) == cells


def test_the_second_block_is_the_first_and_of_the_bin_that_the_id_names():
    for document in whole()[0][:2000]:
        design = designs.parse(document.id)
        ids = np.array(document.ids)
        assert document.text == ""
        assert len(ids) == 2 * design.lag
        assert ids[: design.lag].tolist() == ids[design.lag :].tolist()
        assert (BINS[ids] == design.bin).all()


@given(st.integers(1, 40), st.integers(1, 120), st.integers(-9, 9))
def test_no_token_comes_again_before_all_have_come(n_tokens, size, seed):
    tokens = np.arange(100, 100 + n_tokens)
    block = repeated_tokens.block(tokens, (seed, 1), size)
    assert len(block) == size
    for start in range(0, size, n_tokens):
        one_round = block[start : start + n_tokens].tolist()
        assert len(set(one_round)) == len(one_round)
        assert set(one_round) <= set(tokens.tolist())


def test_a_sequence_depends_on_the_seed_and_itself_alone():
    all_of_it = {document.id: document.ids for document in whole()[0]}
    assert len(set(all_of_it.values())) == len(all_of_it)
    fewer = BINS.copy()
    fewer[BINS == 3] = -1
    some = {document.id: document.ids for document in made(fewer, room=128)[0]}
    assert 0 < len(some) < len(all_of_it)
    assert some == {name: all_of_it[name] for name in some}
    other = {document.id: document.ids for document in made(seed=1)[0]}
    assert not any(other[name] == ids for name, ids in all_of_it.items())


def test_lags_that_do_not_fit_and_empty_bins_are_counted_as_skips():
    bins = BINS.copy()
    bins[BINS == 3] = -1
    found, log = made(bins, room=128)
    assert {designs.parse(d.id).lag for d in found} == {16, 64}
    assert log.counts == {
        skip_log.LONGER_THAN_SEQUENCE: designs.N_BINS * designs.SEQUENCES,
        skip_log.EMPTY_BIN: 2 * designs.SEQUENCES,
    }
    assert set(log.counts) <= skip_log.REASONS
    assert [where for where, _ in log.entries] == [
        "twins:repeats:601-800",
        "twins:repeats:2201-2400",
        "twins:repeats:3201-4800",
    ]


def test_blocks_that_just_fit_are_made():
    assert {designs.parse(d.id).lag for d in made(room=32)[0]} == {16}
    assert made(room=31)[0] == []
