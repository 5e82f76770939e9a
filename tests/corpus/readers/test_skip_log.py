import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import config
from jaxlens.corpus import token_folder
from jaxlens.corpus.readers import skip_log

EMPTY, BAD_JSON, NO_TOKENS = skip_log.EMPTY, skip_log.BAD_JSON, skip_log.NO_TOKENS


def filled(skips):
    log = skip_log.SkipLog()
    for number, line, reason in skips:
        log.add(skip_log.Location(number, line, f"f{number}"), reason)
    return log


def test_lines_that_follow_each_other_are_one_entry():
    log = filled([(0, n, EMPTY) for n in (2, 3, 4, 6)] + [(1, n, EMPTY) for n in (1, 2)])
    assert log.entries == [("f0:2-4", EMPTY), ("f0:6", EMPTY), ("f1:1-2", EMPTY)]
    assert log.counts == {EMPTY: 6}


def test_each_reason_has_runs_of_its_own():
    log = filled([(0, 1, EMPTY), (0, 2, EMPTY), (0, 3, BAD_JSON), (0, 4, EMPTY), (0, 5, BAD_JSON)])
    assert [f"{where}: {why}" for where, why in log.entries] == [
        "f0:1-2: empty",
        "f0:3: bad JSON",
        "f0:4: empty",
        "f0:5: bad JSON",
    ]


def test_what_is_found_out_late_stands_in_its_place():
    log = filled(
        [(0, 1, EMPTY), (0, 9, EMPTY), (2, 0, EMPTY), (0, 3, NO_TOKENS), (0, 4, NO_TOKENS)]
    )
    assert [where for where, _ in log.entries] == ["f0:1", "f0:3-4", "f0:9", "f2"]


def test_a_whole_file_and_the_first_line_of_the_next_are_no_run():
    assert [where for where, _ in filled([(0, 0, EMPTY), (1, 1, EMPTY)]).entries] == ["f0", "f1:1"]


def test_beyond_the_first_runs_each_file_and_reason_has_a_number(monkeypatch):
    monkeypatch.setattr(skip_log, "LOGGED", 2)
    lines = [(0, n, EMPTY) for n in range(1, 20, 2)] + [(1, 0, EMPTY)]
    lines += [(2, n, (EMPTY, BAD_JSON)[n % 2]) for n in range(4, 9)]
    assert filled(lines).entries == [
        ("f0:1", EMPTY),
        ("f0:3", EMPTY),
        ("f0:5-19", "empty (8 of these lines)"),
        ("f1", EMPTY),
        ("f2:4-8", "empty (3 of these lines)"),
        ("f2:5-7", "bad JSON (2 of these lines)"),
    ]


def test_beyond_the_first_files_each_reason_has_a_number(monkeypatch):
    monkeypatch.setattr(skip_log, "LOGGED", 1)
    log = filled([(n, 3, EMPTY) for n in range(9)])
    assert log.entries == [
        ("f0:3", EMPTY),
        ("f1:3", EMPTY),
        ("f2:3 to f8:3", "empty (7 documents or lines)"),
    ]


SKIPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 12), st.sampled_from([EMPTY, BAD_JSON, NO_TOKENS])),
    max_size=60,
    unique_by=lambda skip: skip[:2],
)


def count_of(where, what):
    told = re.search(r"\((\d+) ", what)
    if told:
        return int(told[1])
    first, _, last = where.partition(":")[2].partition("-")
    return int(last or first) - int(first) + 1


@given(skips=SKIPS, logged=st.integers(1, 6))
def test_entries_hold_every_skip_once_in_reading_order(skips, logged):
    skips.sort()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skip_log, "LOGGED", logged)
        # Those without tokens come last, as from the tokenizer.
        log = filled(sorted(skips, key=lambda skip: skip[2] == NO_TOKENS))
    for reason in (EMPTY, BAD_JSON, NO_TOKENS):
        wanted = [skip[:2] for skip in skips if skip[2] == reason]
        found = [entry for entry in log.entries if entry[1].startswith(reason)]
        assert log.counts.get(reason, 0) == len(wanted)
        assert sum(count_of(*entry) for entry in found) == len(wanted)
        for number, line in wanted:
            assert any(covers(where, number, line) for where, _ in found)
    assert log.skipped == len(skips)
    firsts = [ends(where)[0] for where, _ in log.entries]
    assert firsts == sorted(firsts)
    assert len(log.entries) <= 2 * logged + 3


def ends(where):
    first, _, last = where.partition(" to ")
    number, lines = first[1:].split(":")
    low, _, high = lines.partition("-")
    end = last[1:].split(":") if last else (number, high or low)
    return (int(number), int(low)), (int(end[0]), int(end[1]))


def covers(where, number, line):
    low, high = ends(where)
    return low <= (number, line) <= high


@pytest.mark.parametrize(
    ("letter", "length"),
    [("a", 4_000), ("a", 980), ("\x07", 163), ("\x07", 4_000), ("日", 163), ("\U0001f600", 4_000)],
)
def test_the_record_stays_small_whatever_the_corpus(letter, length):
    log = skip_log.SkipLog()
    reasons = sorted(skip_log.REASONS)
    for number in range(3_000):
        name = f"{number:04d}" + letter * length + ".x"
        for line in (7_777_777_777, 7_777_777_779, 7_777_777_781):
            log.add(skip_log.Location(number, line, name), reasons[number % len(reasons)])
    assert len(log.entries) == 2 * skip_log.LOGGED + len(reasons)
    at = [f"{where}: {why}" for where, why in log.entries]
    size = len(config.canonical({"skipped": log.counts, "skipped_at": at}))
    assert size < token_folder.RECORD_BYTES - 10_000  # hashes and sizes
    assert at[0].startswith("0000") and at[0].endswith(f".x:7777777777: {reasons[0]}")


def test_names_as_long_as_usual_are_kept_whole():
    place = skip_log.Location(0, 3, "ordner/" + "日" * 160 + ".jsonl")
    assert len(json.dumps(place.file)) < skip_log.NAME_BYTES
    log = skip_log.SkipLog()
    log.add(place, EMPTY)
    assert log.entries == [(str(place), EMPTY)]


SCRIPT = """
import sys
from jaxlens.corpus.readers import documents, skip_log
def skip(count):
    log = skip_log.SkipLog()
    for n in range(count):
        log.add(skip_log.Location(n // 3, 2 * (n % 3), "name"), skip_log.EMPTY)
    assert log.counts == {skip_log.EMPTY: count}
skip(10_000)
mark()
skip(300_000)
"""


def test_memory_does_not_grow_with_the_number_of_skips(memory_growth):
    assert memory_growth(SCRIPT) < 1
