"""Material: repeated blocks and natural copies, and that each place is what it is said to be."""

import numpy as np
import pytest
from sweeps import configure

from jaxlens import designs
from jaxlens.corpus import references
from jaxlens.sweep import prepare
from jaxlens.sweep.ablation import blocks, copies, passages
from jaxlens.tally import bins

RARITY = np.repeat([5.5, 7.5, 20.0], [60, 30, 200])
ROOM = 128


def n_sequences(material):
    return sum(map(len, material.groups))


def made(**how):
    options = {"count": 24, "seed": 0, "length": ROOM} | how
    return blocks.make(RARITY, np.ones(len(RARITY), bool), **options)


def by_cluster(material):
    found = {}
    for group in material.groups:
        for i in range(len(group)):
            found[int(group.cluster[i])] = group.part(slice(i, i + 1))
    return found


def at(group, places):
    """Tokens at places of each sequence."""
    return np.take_along_axis(group.tokens, places, 1)


@pytest.mark.parametrize("bos", [None, 7])
def test_the_second_block_repeats_the_first(bos):
    for group in made(bos=bos).groups:
        first = 0 if bos is None else 1
        lag = int(group.lag[0])
        body = group.tokens[:, first:]
        assert bos is None or (group.tokens[:, 0] == bos).all()
        np.testing.assert_array_equal(body[:, :lag], body[:, lag:])
        np.testing.assert_array_equal(at(group, group.source), group.copied)
        np.testing.assert_array_equal(at(group, group.target + 1), group.copied)
        np.testing.assert_array_equal(at(group, group.earlier + 1), group.copied)
        np.testing.assert_array_equal(group.target + 1 - group.source, lag)
        # The start of a context, whose stream is unlike any other, is never a source.
        assert group.source.min() == first + 1
        assert group.source.shape[1] == lag - 1


def test_blocks_are_of_one_bin_and_hold_no_token_twice():
    material = made()
    assert n_sequences(material) == 24
    for group in material.groups:
        for line, number, lag in zip(group.tokens, group.rarity, group.lag, strict=True):
            block = line[:lag]
            assert len(set(block.tolist())) == lag
            # The last bin holds what is rarer still.
            assert set(np.minimum(np.floor(RARITY[block]), bins.FREQUENCY_BINS - 1)) == {number}


def test_bins_and_lags_have_as_many_sequences_each_and_what_does_not_fit_is_counted():
    material = made()
    cells = {}
    for group in material.groups:
        for number, lag in zip(group.rarity.tolist(), group.lag.tolist(), strict=True):
            cells[number, lag] = cells.get((number, lag), 0) + 1
    # 60 tokens and 30 do not fill a block of 64.
    assert cells == {(5, 16): 6, (7, 16): 6, (15, 16): 6, (15, 64): 6}
    too_long = sum(2 * lag > ROOM for lag in designs.LAGS)
    assert material.left_out == {blocks.TOO_LONG: too_long, blocks.TOO_FEW: 2}
    assert made(length=30).groups == ()
    assert {group.lag[0] for group in made(length=32, bos=1).groups} == set()


def test_a_sequence_hangs_on_the_seed_and_its_cell_alone():
    few, many = by_cluster(made(count=8)), by_cluster(made(count=24))
    for number, line in few.items():
        np.testing.assert_array_equal(line.tokens, many[number].tokens)
    other = by_cluster(made(seed=1))
    assert not any(np.array_equal(other[n].tokens, many[n].tokens) for n in many)


@pytest.fixture(scope="module")
def job(tiny, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return prepare.prepare(configure(tiny, texts, folder / "out"), folder)


@pytest.fixture(scope="module")
def found(job):
    with job.ingested.open() as tokens:
        return copies.find(tokens, job.plan, count=60, seed=0)


def columns(job):
    """Token columns of all rows, which the ablation does not use."""
    with job.ingested.open() as tokens:
        parts = [job.batch(step, tokens)[1] for step in range(job.plan.n_steps)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_copies_are_those_of_the_columns_of_a_run(job, found):
    rows = columns(job)
    start = job.ingested.index.document_start
    is_copy = (rows["copy_token"] == rows["next_token"]) & (rows["match_length"] >= 2)
    is_copy &= rows["next_token"] >= 0
    known = {}
    for i in np.flatnonzero(is_copy):
        place = (int(rows["document"][i]), int(rows["position"][i]), int(rows["next_token"][i]))
        known.setdefault(place, []).append(int(rows["prev_distance"][i]))
    assert n_sequences(found) == 60
    for group in found.groups:
        for i in range(len(group)):
            target, source = int(group.target[i, 0]), int(group.source[i, 0])
            place = (int(group.cluster[i]), target, int(group.copied[i, 0]))
            # The source stands one behind the earlier occurrence of the token at the target.
            assert target - (source - 1) in known[place]
            assert group.lag[i] == target + 1 - source
            line = group.tokens[i]
            assert line[source] == group.copied[i, 0] and line[source - 1] == line[target]
            assert line[source - 2] == line[target - 1] and source < target
            assert not line[target + 1 :].any()
            assert group.earlier[i, 0] == source - 1
    assert start is not None


def test_all_copies_are_found_and_those_at_their_source_counted(job):
    rows = columns(job)
    is_copy = (rows["copy_token"] == rows["next_token"]) & (rows["match_length"] >= 2)
    is_copy &= rows["next_token"] >= 0
    # The last position of a window has its next token outside; it is left out.
    last = np.append(rows["position"][1:] == 0, True)
    at_source = is_copy & (rows["prev_distance"] == 1) & ~last
    with job.ingested.open() as tokens:
        every = copies.find(tokens, job.plan, count=10**6, seed=0)
    assert n_sequences(every) == int((is_copy & ~last & ~at_source).sum()) > 60
    assert every.left_out.get(copies.AT_SOURCE, 0) == int(at_source.sum())


def test_rarity_is_that_of_the_other_half_of_the_documents(job, found):
    index = job.ingested.index
    table = bins.rarity(index.token_counts)
    for group in found.groups:
        fold = (index.document_hash[group.cluster] & np.uint64(1)).astype(int)
        np.testing.assert_array_equal(group.rarity, np.floor(table[fold, group.copied[:, 0]]))


def test_a_sample_of_fewer_is_part_of_one_of_more_and_the_seed_changes_it(job, found):
    def events(material):
        return {
            (int(c), int(t))
            for g in material.groups
            for c, t in zip(g.cluster, g.target[:, 0], strict=True)
        }

    with job.ingested.open() as tokens:
        fewer = copies.find(tokens, job.plan, count=20, seed=0)
        other = copies.find(tokens, job.plan, count=60, seed=1)
        assert copies.find(tokens, job.plan, count=0, seed=0).groups == ()
    assert events(fewer) < events(found)
    assert events(other) != events(found)


def test_lengths_are_few_and_hold_the_target(job, found):
    for group in found.groups:
        length = group.tokens.shape[1]
        assert length in (32, job.plan.length) and group.target.max() < length


def test_documents_come_in_the_order_of_a_hash_until_there_are_enough_tokens(job):
    with job.ingested.open() as tokens:
        some = list(passages.sampled(tokens, job.plan, 0, 300))
        every = list(passages.sampled(tokens, job.plan, 0, 10**9))
        other = list(passages.sampled(tokens, job.plan, 1, 300))
        assert sum(len(w.tokens) - w.skip for w in every) == tokens.index.n_tokens
        start = tokens.index.document_start
        for window in every[:40]:
            begin = int(start[window.document]) + window.offset
            np.testing.assert_array_equal(
                tokens.read(begin, begin + len(window.tokens)), window.tokens
            )
    assert 300 <= sum(len(w.tokens) for w in some) < 600
    assert [w.document for w in some] == [w.document for w in every[: len(some)]]
    assert [w.document for w in some] != [w.document for w in other]


def test_the_rarity_of_types_is_over_the_whole_corpus():
    counts = np.array([[3, 0, 1], [1, 0, 5]])
    expected = -np.log((np.array([4, 0, 6]) + 0.5) / 11.5)
    np.testing.assert_allclose(bins.type_rarity(counts), expected)


def test_windows_that_overlap_give_each_copy_once(tiny, texts, tmp_path):
    settings = configure(tiny, texts, tmp_path / "out", **{"plan.overlap": 8})
    job = prepare.prepare(settings, tmp_path)
    with job.ingested.open() as tokens:
        every = copies.find(tokens, job.plan, count=10**6, seed=0)
        keys = []
        for window in passages.sampled(tokens, job.plan, 0, 10**9):
            previous, _ = references.earlier(window.tokens, np.zeros(len(window.tokens), np.int64))
            length = references.match_length(
                window.tokens, np.zeros(len(window.tokens), np.int64), previous
            )
            for p in range(window.skip, len(window.tokens) - 1):
                follows = (
                    previous[p] >= 0 and window.tokens[previous[p] + 1] == window.tokens[p + 1]
                )
                if follows and length[p] >= 2 and previous[p] + 1 < p:
                    keys.append((window.document, window.offset + p))
    assert len(keys) == len(set(keys)) == n_sequences(every)
