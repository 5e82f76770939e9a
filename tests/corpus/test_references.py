import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import errors, schema
from jaxlens.corpus import references
from jaxlens.tally import hashing


def brute_context(window):
    """Previous occurrence, earlier count and match length of each token of one window."""
    rows = []
    for i in range(len(window)):
        earlier = [j for j in range(i) if window[j] == window[i]]
        j = earlier[-1] if earlier else -1
        length = 0
        while j - length >= 0 and earlier and window[j - length] == window[i - length]:
            length += 1
        rows.append((j, len(earlier), min(length, 255)))
    return rows


WINDOWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=5)


@given(windows=WINDOWS)
def test_repetition_in_context_is_what_its_definition_says(windows):
    token = np.concatenate(windows).astype(np.int32)
    window = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
    start = np.concatenate([[0], np.cumsum([len(w) for w in windows])])[window]
    previous, count = references.earlier(token, window)
    length = references.match_length(token, window, previous)
    copied = references.copy_token(token, previous)
    expected = np.array([row for w in windows for row in brute_context(w)])
    np.testing.assert_array_equal(np.where(previous < 0, -1, previous - start), expected[:, 0])
    np.testing.assert_array_equal(count, expected[:, 1])
    np.testing.assert_array_equal(length, expected[:, 2])
    for i, j in enumerate(previous):
        assert copied[i] == (token[j + 1] if j >= 0 else -1)


def test_a_token_is_copied_where_its_bigram_returns_and_the_last_one_counts():
    a, b, c, d = range(4)
    token = np.array([a, b, c, a, b, d, a, b, a, c, c])
    window = np.repeat([0, 1], [8, 3])
    previous, _ = references.earlier(token, window)
    found = references.copied(token, np.append(token[1:], -1), previous)
    # Both b's are copied, each by the next one; what follows them differs; windows are apart.
    assert np.flatnonzero(found).tolist() == [1, 4]
    beyond = np.append(token[1:], -1)
    beyond[7] = d  # the window ends, the document goes on with what came after b before
    assert np.flatnonzero(references.copied(token, beyond, previous)).tolist() == [1, 4, 5]


def test_match_length_saturates_and_uniform_text_stays_fast():
    token = np.zeros(65_536, np.int32)
    window = np.arange(65_536) // 1024
    start = time.perf_counter()
    previous, count = references.earlier(token, window)
    length = references.match_length(token, window, previous)
    assert time.perf_counter() - start < 2  # about 20 ms on a quiet core
    inside = np.arange(65_536) % 1024
    np.testing.assert_array_equal(length, np.minimum(inside, references.MATCH_LIMIT))
    np.testing.assert_array_equal(count, inside)


def test_nothing_repeats_in_an_empty_or_single_context():
    for token in (np.array([], np.int32), np.array([5], np.int32)):
        window = np.zeros(len(token), np.int64)
        previous, count = references.earlier(token, window)
        assert previous.tolist() == [-1] * len(token)
        assert count.tolist() == [0] * len(token)
        assert references.copy_token(token, previous).tolist() == [-1] * len(token)
        assert references.match_length(token, window, previous).tolist() == [0] * len(token)


START = np.array([0, 5, 6, 400, 1000])


def test_foreign_comes_from_another_document_and_depends_on_its_index_alone():
    index = np.arange(1000)
    document = references.document_of(START, index)
    drawn = references.foreign_index(index, document, START, seed=3)
    found = drawn >= 0
    assert np.all(references.document_of(START, drawn[found]) != document[found])
    assert drawn.max() < 1000
    order = np.random.default_rng(0).permutation(1000)[:100]
    again = references.foreign_index(order, document[order], START, seed=3)
    np.testing.assert_array_equal(again, drawn[order])


def test_foreign_is_redrawn_up_to_eight_times():
    """A document of 99 % of the file is left with probability 0.99**8 = 0.92."""
    start = np.array([0, 100, 10_000])
    index = np.arange(100, 10_000)
    drawn = references.foreign_index(index, np.ones(len(index), np.int64), start, seed=0)
    assert np.mean(drawn < 0) == pytest.approx(0.99**references.FOREIGN_TRIES, abs=0.01)


def test_foreign_is_uniform_over_the_other_documents():
    start = np.arange(0, 1001, 10)
    index = np.arange(1000)
    document = references.document_of(start, index)
    counts = np.zeros(1000)
    for seed in range(100):
        np.add.at(counts, references.foreign_index(index, document, start, seed), 1)
    # Poisson with mean 100: a place with fewer than 50 or more than 150 is beyond five sigma.
    assert counts.sum() == 100_000
    assert counts.min() > 50 and counts.max() < 150


def test_foreign_changes_with_any_seed():
    index, document = np.arange(5), np.zeros(5, np.int64)
    seeds = (0, 1, -1, 2**63, 2**64 - 2, 123_456_789)
    drawn = {tuple(references.foreign_index(index, document, START, s)) for s in seeds}
    assert len(drawn) == len(seeds)


def test_foreign_values_are_pinned():
    """The draw is part of the format: another value is another run under the same spec."""
    drawn = references.foreign_index(np.arange(5), np.zeros(5, np.int64), START, seed=0)
    assert drawn.tolist() == [433, 432, 549, 272, 983]


def test_single_document_has_no_foreign_token():
    drawn = references.foreign_index(np.arange(9), np.zeros(9, np.int64), np.array([0, 9]), 0)
    assert drawn.tolist() == [-1] * 9


def test_splitmix_gives_its_published_sequence():
    """First outputs of SplitMix64 from state 1234567."""
    state = np.array([1234567], np.uint64)
    step = np.uint64(0x9E3779B97F4A7C15)
    out = []
    for _ in range(3):
        out.append(int(hashing.mix(state)[0]))
        state = state + step
    assert out == [6457827717110365317, 3203168211198807973, 9817491932198370423]


WORDS = [b" the", b"re", b"fore", b",", b" ", b"4", b"<|endoftext|>", b"The"]
STARTS = np.array([w[:1].isalnum() for w in WORDS])
ENDS = np.array([w[-1:].isalnum() for w in WORDS])


def brute_piece(token, first):
    def goes_on(i):
        inside = 0 < i < len(token) and not first[i]
        return bool(inside and STARTS[token[i]] and ENDS[token[i - 1]])

    codes = {
        (False, False): schema.PIECE_WHOLE,
        (False, True): schema.PIECE_FIRST,
        (True, True): schema.PIECE_MIDDLE,
        (True, False): schema.PIECE_LAST,
    }
    return [codes[goes_on(i), goes_on(i + 1)] for i in range(len(token))]


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=40))
def test_piece_is_what_its_definition_says(items):
    token = np.array([t for t, _ in items])
    first = np.array([f for _, f in items])
    codes = references.piece(token, first, (STARTS, ENDS))
    assert codes.tolist() == brute_piece(token, first)
    assert codes.dtype == np.uint8


def test_piece_of_therefore_is_first_middle_last():
    token, first = np.array([0, 1, 2, 3, 0, 7]), np.zeros(6, bool)
    expected = [schema.PIECE_FIRST, schema.PIECE_MIDDLE, schema.PIECE_LAST, schema.PIECE_WHOLE]
    assert references.piece(token, first, (STARTS, ENDS))[:4].tolist() == expected


def test_piece_is_unknown_without_a_tokenizer():
    codes = references.piece(np.array([1, 2]), np.array([True, False]), None)
    assert codes.tolist() == [schema.PIECE_UNKNOWN] * 2


@given(
    lines=st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=5),
    padding=st.integers(0, 3),
)
def test_in_memory_lines_are_documents(lines, padding):
    width = max(map(len, lines)) + padding
    tokens = np.full((len(lines), width), 99)
    mask = np.zeros(tokens.shape, bool)
    for row, line in enumerate(lines):
        tokens[row, : len(line)] = line
        mask[row, : len(line)] = True
    found = references.in_memory(tokens, mask, seed=1)
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.input, np.where(mask, tokens, -1))
    for row, line in enumerate(lines):
        context = brute_context(line)
        copied = [line[j + 1] if j >= 0 else -1 for j, _, _ in context]
        others = {t for r, other in enumerate(lines) if r != row for t in other}
        rest = [-1] * (width - len(line))
        assert found.next[row].tolist() == ([*line[1:], -1] if line else []) + rest
        assert found.copy[row].tolist() == copied + rest
        assert found.foreign[row, len(line) :].tolist() == rest
        assert set(found.foreign[row, : len(line)].tolist()) <= others | {-1}
    for name in ("input", "next", "foreign", "copy"):
        assert getattr(found, name).dtype == np.int32


def test_in_memory_takes_every_token_as_real_by_default():
    found = references.in_memory([[1, 2, 1], [3, 3, 3]])
    assert found.mask.all()
    assert found.next.tolist() == [[2, 1, -1], [3, 3, -1]]
    assert found.copy.tolist() == [[-1, -1, 2], [-1, 3, 3]]
    assert set(found.foreign[0].tolist()) <= {3, -1}


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]]], ids=["left padding", "hole"])
def test_in_memory_refuses_padding_before_a_token(mask):
    with pytest.raises(errors.ConfigError, match="after padding") as caught:
        references.in_memory([[1, 2, 3]], np.array(mask, bool))
    assert "right" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("tokens", "mask"),
    [([1, 2], None), ([[1.5]], None), ([[1, 2]], [[True]]), ([[-1, 2]], None)],
    ids=["one axis", "floats", "mask of another shape", "negative id"],
)
def test_in_memory_refuses_what_is_no_batch_of_tokens(tokens, mask):
    with pytest.raises(errors.ConfigError):
        references.in_memory(tokens, mask)
