import io
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlens import errors, schema
from jaxlens.corpus import plan, references, step_inputs, token_file, tokenize
from jaxlens.corpus.readers import documents

VOCAB_SIZE = 7


@st.composite
def shapes(draw):
    length = draw(st.integers(1, 9))
    return {
        "length": length,
        "overlap": draw(st.integers(0, length - 1)),
        "step_sequences": draw(st.integers(1, 4)),
        "shard_tokens": draw(st.integers(1, 80)),
    }


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def starts_of(sizes):
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def brute_windows(sizes, length, overlap):
    """Start, length and skipped tokens of every window, by the definition."""
    found, base = [], 0
    for size in sizes:
        recorded = 0
        for number in itertools.count():
            start = number * (length - overlap)
            stop = min(start + length, size)
            if recorded == size:
                break
            found.append((base + start, stop - start, recorded - start))
            recorded = stop
        base += size
    return found


@given(sizes=SIZES, shape=shapes())
def test_windows_are_what_their_definition_says(sizes, shape):
    made = plan.build(starts_of(sizes), **shape)
    found = zip(made.window_start, made.window_length, made.window_skip, strict=True)
    assert [tuple(map(int, w)) for w in found] == brute_windows(
        sizes, shape["length"], shape["overlap"]
    )


@given(sizes=SIZES, shape=shapes())
def test_shards_and_steps_cover_every_token_once_in_order(sizes, shape):
    made = plan.build(starts_of(sizes), **shape)
    shards = [made.tokens_of_shard(s) for s in range(made.n_shards)]
    steps = [made.tokens_of_step(s) for r in map(made.steps_of, range(made.n_shards)) for s in r]
    for ranges in (shards, steps):
        assert ranges[0][0] == 0 and ranges[-1][1] == made.n_tokens == sum(sizes)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
        assert all(start < stop for start, stop in ranges)
    assert len(steps) == made.n_steps
    assert all(stop - start <= made.capacity for start, stop in steps)
    limit = max(1, shape["shard_tokens"] // made.capacity)
    assert all(len(made.steps_of(s)) == limit for s in range(made.n_shards - 1))


@given(sizes=SIZES, shape=shapes())
def test_windows_of_a_step_fit_beside_each_other(sizes, shape):
    made = plan.build(starts_of(sizes), **shape)
    for step in range(made.n_steps):
        grid = np.zeros((made.step_sequences, made.length), int)
        last = np.zeros(made.step_sequences, int)
        for w in range(made.step_window[step], made.step_window[step + 1]):
            line, column = made.window_line[w], made.window_column[w]
            grid[line, column : column + made.window_length[w]] += 1
            last[line] += 1
            assert made.window_segment[w] == last[line]
            assert column + made.window_length[w] <= made.length
        assert grid.max() == 1
        # Right-padded: nothing real behind the first gap.
        assert np.all(np.diff(grid, axis=1) <= 0)
    total = made.window_length.sum() / (made.n_steps * made.capacity)
    assert made.fill == pytest.approx(total)


@given(sizes=SIZES, shape=shapes(), other=st.integers(1, 500))
def test_steps_do_not_depend_on_the_size_of_shards(sizes, shape, other):
    first = plan.build(starts_of(sizes), **shape)
    second = plan.build(starts_of(sizes), **shape | {"shard_tokens": other})
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name))


def online_best_fit(sizes, length, lines):
    """How many windows fit when each goes into the fullest line that has room."""
    room = [length] * lines
    for done, size in enumerate(sizes):
        fitting = [line for line in range(lines) if room[line] >= size]
        if not fitting:
            return done
        room[min(fitting, key=room.__getitem__)] -= size
    return len(sizes)


@given(sizes=SIZES, shape=shapes())
def test_a_step_takes_no_fewer_windows_than_placing_them_as_they_come(sizes, shape):
    made = plan.build(starts_of(sizes), **shape)
    for first, stop in itertools.pairwise(made.step_window):
        simple = online_best_fit(made.window_length[first:], made.length, made.step_sequences)
        assert stop - first >= simple


def test_repacking_saves_steps_that_the_order_of_the_file_would_waste():
    """As they come, 4 and 4 share a line and only one 6 has room."""
    made = plan.build(starts_of([4, 4, 6, 6]), length=10, step_sequences=2, shard_tokens=1)
    assert (made.n_steps, made.fill) == (1, 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"overlap": 8},
        {"overlap": 9},
        {"overlap": -1},
        {"length": 0},
        {"step_sequences": 0},
        {"shard_tokens": 0},
    ],
)
def test_numbers_out_of_range_are_refused(change):
    shape = {"length": 8, "overlap": 0, "step_sequences": 2, "shard_tokens": 16} | change
    with pytest.raises(errors.ConfigError):
        plan.build(starts_of([5]), **shape)


def test_step_and_shard_out_of_range_raise():
    made = plan.build(starts_of([5]), length=8, step_sequences=1, shard_tokens=1)
    for ask in (made.steps_of, made.tokens_of_step, made.tokens_of_shard):
        for index in (-1, 1):
            with pytest.raises(IndexError):
                ask(index)


def test_a_million_windows_are_planned_in_seconds():
    sizes = np.random.default_rng(0).geometric(1 / 600, 800_000)
    start = time.perf_counter()
    made = plan.build(starts_of(sizes), length=1024, step_sequences=8, shard_tokens=65_536)
    assert time.perf_counter() - start < 20  # 0.8 s on a quiet core
    assert made.n_windows > 900_000
    assert made.fill > 0.9


def write(folder, sizes, seed=0):
    """A token file of random tokens over a small vocabulary, and its index."""
    starts = starts_of(sizes)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB_SIZE, starts[-1]).astype("<u2")
    counts = np.zeros((2, VOCAB_SIZE), np.int64)
    counts[0] = np.bincount(ids, minlength=VOCAB_SIZE)
    hashes = rng.integers(0, 2**64, len(sizes), dtype=np.uint64)
    index = token_file.Index(starts, hashes, np.full(len(sizes), b"x", "S1"), counts)
    path = folder / "tokens.bin"
    path.write_bytes(ids.tobytes())
    return path, index, ids


STARTS = np.array([True, False, True, True, False, True, False])
ENDS = np.array([True, True, True, False, False, True, True])
CODES = {(0, 0): schema.PIECE_WHOLE, (0, 1): schema.PIECE_FIRST} | {
    (1, 1): schema.PIECE_MIDDLE,
    (1, 0): schema.PIECE_LAST,
}


def brute_row(ids, index, at, length, overlap, seed):
    """Every column and reference of one recorded token, from the definitions."""
    document = int(np.searchsorted(index.document_start, at, side="right")) - 1
    base, end = (int(x) for x in index.document_start[document : document + 2])
    offset, stride = at - base, length - overlap
    # The first window that holds the token records it.
    number = max(0, -(-(offset - length + 1) // stride))
    start = base + number * stride
    whole = [*ids[start : min(start + length, end)].tolist()]
    context = whole[: at - start + 1]
    position = len(context) - 1
    earlier = [j for j in range(position) if context[j] == context[position]]
    match = 0
    while earlier and earlier[-1] - match >= 0:
        if context[earlier[-1] - match] != context[position - match]:
            break
        match += 1

    def is_copied(whole, beyond):
        """Whether a later bigram repeats the one that ends here, and none in between."""
        following = [*whole, beyond]
        for t in range(max(position, 1), len(whole)):
            latest = [j for j in range(t) if whole[j] == whole[t]][-1:]
            if latest == [position - 1] and following[t + 1] == whole[position]:
                return 1
        return 0

    def goes_on(i):
        return int(base < i < end and STARTS[ids[i]] and ENDS[ids[i - 1]])

    def fold_of(i):
        there = int(np.searchsorted(index.document_start, i, side="right")) - 1
        return int(index.document_hash[there]) % 2

    drawn = references.foreign_index(
        np.array([at]), np.array([document]), index.document_start, seed
    )[0]
    return {
        "token": ids[at],
        "next_token": ids[at + 1] if at + 1 < end else -1,
        "document": document,
        "offset": offset,
        "position": position,
        "prev_distance": position - earlier[-1] if earlier else 0,
        "prev_count": len(earlier),
        "match_length": match,
        "copied": is_copied(whole, ids[start + len(whole)] if start + len(whole) < end else -1),
        "piece": CODES[goes_on(at), goes_on(at + 1)],
        "fold": int(index.document_hash[document]) % 2,
        "foreign_token": ids[drawn] if drawn >= 0 else -1,
        "foreign_fold": fold_of(drawn) if drawn >= 0 else 255,
        "copy_token": context[earlier[-1] + 1] if earlier else -1,
    }


@settings(max_examples=60)
@given(sizes=SIZES, shape=shapes(), seed=st.integers(0, 5))
def test_batches_record_every_token_as_its_definition_says(tmp_path_factory, sizes, shape, seed):
    path, index, ids = write(tmp_path_factory.mktemp("plan"), sizes, seed)
    made = plan.build(index.document_start, **shape)
    rows = []
    with token_file.TokenFile(path, index) as file:
        for step in range(made.n_steps):
            batch, columns = step_inputs.batch(made, step, file, (STARTS, ENDS), seed)
            assert set(columns) == set(schema.COLUMNS)
            order = batch.order[: batch.count]
            start, stop = made.tokens_of_step(step)
            assert batch.count == stop - start
            assert not batch.order[batch.count :].any()
            flat = {
                name: getattr(batch.references, name).reshape(-1)[order]
                for name in ("input", "next", "foreign", "copy")
            }
            np.testing.assert_array_equal(flat["input"], columns["token"])
            np.testing.assert_array_equal(flat["next"], columns["next_token"])
            np.testing.assert_array_equal(batch.positions.reshape(-1)[order], columns["position"])
            np.testing.assert_array_equal(flat["foreign"], columns["foreign_token"])
            np.testing.assert_array_equal(flat["copy"], columns["copy_token"])
            rows += [
                {name: int(values[i]) for name, values in columns.items()}
                for i in range(stop - start)
            ]
    expected = [
        brute_row(ids, index, at, shape["length"], shape["overlap"], seed) for at in range(len(ids))
    ]
    assert rows == expected


@settings(max_examples=40)
@given(sizes=SIZES, shape=shapes())
def test_a_token_before_every_window_is_context_and_no_row(tmp_path_factory, sizes, shape):
    path, index, _ = write(tmp_path_factory.mktemp("plan"), sizes)
    longer = shape | {"length": shape["length"] + 1}
    without = plan.build(index.document_start, **shape)
    made = plan.build(index.document_start, **longer, bos_id=9)
    assert made.n_windows == without.n_windows
    rows = {}
    with token_file.TokenFile(path, index) as file:
        for which, step in [(w, s) for w in (without, made) for s in range(w.n_steps)]:
            batch, columns = step_inputs.batch(which, step, file, None, 0)
            rows.setdefault(id(which), []).append(columns)
            if which is without:
                continue
            before = (batch.segments > 0) & ~batch.references.mask
            assert (batch.tokens[before] == 9).all() and (batch.positions[before] == 0).all()
            line, column = np.nonzero(before)
            # One before each window, in its own segment, and followed by position 1.
            assert len(line) == made.step_window[step + 1] - made.step_window[step]
            assert (batch.positions[line, column + 1] == 1).all()
            np.testing.assert_array_equal(
                batch.segments[line, column + 1], batch.segments[line, column]
            )
            assert not before.reshape(-1)[batch.order[: batch.count]].any()
    for name in schema.COLUMNS:
        plain, led = (np.concatenate([r[name] for r in rows[id(w)]]) for w in (without, made))
        np.testing.assert_array_equal(led, plain + 1 if name == "position" else plain)


def test_a_window_needs_room_for_the_token_before_it():
    with pytest.raises(errors.ConfigError, match="takes one place"):
        plan.build(starts_of([5]), length=1, step_sequences=1, shard_tokens=1, bos_id=0)
    with pytest.raises(errors.ConfigError, match="overlap"):
        plan.build(starts_of([5]), length=4, overlap=3, step_sequences=1, shard_tokens=1, bos_id=0)


@settings(max_examples=60)
@given(sizes=SIZES, shape=shapes())
def test_steps_are_right_padded_to_one_shape(tmp_path_factory, sizes, shape):
    path, index, _ = write(tmp_path_factory.mktemp("plan"), sizes)
    made = plan.build(index.document_start, **shape)
    with token_file.TokenFile(path, index) as file:
        for step in range(made.n_steps):
            batch, _ = step_inputs.batch(made, step, file, None, 0)
            grid = (made.step_sequences, made.length)
            real = batch.references.mask
            for array in (batch.tokens, batch.positions, batch.segments):
                assert array.shape == grid and array.dtype == np.int32
                assert not array[~real].any()
            for name in ("input", "next", "foreign", "copy"):
                reference = getattr(batch.references, name)
                assert reference.shape == grid and reference.dtype == np.int32
                assert np.all(reference[~real] == -1)
            np.testing.assert_array_equal(real, batch.segments > 0)
            assert batch.order.shape == (made.capacity,) and batch.order.dtype == np.int32
            assert batch.count.shape == () and batch.count.dtype == np.int32
            # A new segment starts exactly where positions restart.
            fresh = np.diff(batch.segments, axis=1, prepend=0) > 0
            np.testing.assert_array_equal(fresh, real & (batch.positions == 0))


def test_tokens_of_a_document_do_not_depend_on_its_neighbours(tmp_path):
    """All but the foreign token, which depends on the file."""

    def columns_of(sizes, which, **shape):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        starts = starts_of(sizes)
        path, index, ids = write(folder, sizes)
        middle = np.random.default_rng(9).integers(0, VOCAB_SIZE, sizes[which]).astype("<u2")
        ids[starts[which] : starts[which + 1]] = middle
        path.write_bytes(ids.tobytes())
        made = plan.build(index.document_start, length=8, overlap=3, **shape)
        with token_file.TokenFile(path, index) as file:
            parts = [
                step_inputs.batch(made, s, file, (STARTS, ENDS), 0)[1] for s in range(made.n_steps)
            ]
        kept = set(schema.COLUMNS) - {"document", "fold", "foreign_token", "foreign_fold"}
        rows = slice(starts[which], starts[which + 1])
        return {name: np.concatenate([p[name] for p in parts])[rows].tolist() for name in kept}

    alone = columns_of([29], 0, step_sequences=1, shard_tokens=1)
    assert alone == columns_of([5, 29, 40], 1, step_sequences=3, shard_tokens=64)
    assert alone == columns_of([1, 1, 1, 29], 3, step_sequences=2, shard_tokens=1)


def test_columns_have_the_types_that_are_stored(tmp_path):
    path, index, _ = write(tmp_path, [50, 3])
    made = plan.build(index.document_start, length=8, step_sequences=2, shard_tokens=1)
    with token_file.TokenFile(path, index) as file:
        _, columns = step_inputs.batch(made, 0, file, None, 0)
    for name, values in columns.items():
        kind = schema.QUANTITIES[name].kind
        assert values.dtype == ("int32" if kind == "id" else schema.QUANTITIES[name].dtype), name
    assert np.all(columns["piece"] == schema.PIECE_UNKNOWN)


def test_columns_saturate_in_long_contexts(tmp_path):
    size = 70_000
    path, index, ids = write(tmp_path, [size])
    ids[:] = 1
    ids[0] = ids[-1] = 2
    path.write_bytes(ids.tobytes())
    made = plan.build(index.document_start, length=size, step_sequences=1, shard_tokens=1)
    with token_file.TokenFile(path, index) as file:
        _, columns = step_inputs.batch(made, 0, file, None, 0)
    assert columns["prev_distance"][-1] == 65_535
    assert columns["prev_count"][-2] == 65_535
    assert columns["match_length"][-2] == 255
    assert columns["position"][-1] == 65_535
    assert columns["offset"][-1] == size - 1


def test_real_text_fills_the_steps(shared_data, tmp_path):
    tokenizer = tokenize.load_tokenizer(shared_data / "mini-gpt2")
    out = io.BytesIO()
    reader = documents.read([shared_data / "corpus" / "train-modern-000.jsonl.bz2"])
    index = tokenize.build(reader, tokenizer, out.write, vocab_size=4096, limit=500_000)
    path = tmp_path / "tokens.bin"
    path.write_bytes(out.getvalue())
    made = plan.build(
        index.document_start, length=256, overlap=64, step_sequences=8, shard_tokens=65_536
    )
    assert made.fill > 0.95
    tables = tokenize.word_tables(tokenize.strings(tokenizer, 4096))
    with token_file.TokenFile(path, index) as file:
        steps = [step_inputs.batch(made, s, file, tables, 0)[1] for s in range(made.n_steps)]
    token = np.concatenate([columns["token"] for columns in steps])
    np.testing.assert_array_equal(token, np.frombuffer(out.getvalue(), index.dtype))
    piece = np.concatenate([columns["piece"] for columns in steps])
    assert set(piece.tolist()) == {0, 1, 2, 3}
    # Each word of several pieces has one first and one last.
    assert np.sum(piece == schema.PIECE_FIRST) == np.sum(piece == schema.PIECE_LAST)
