"""A thousand mangled inputs for each text of a run (long: 10,000), and shards that fit records.

A text is read or refused with one line. Shards whose record was made to fit reach HDF5 itself,
which crashes on about one in a hundred (47 of 4,000 in 2.0.0; three of four have odd bytes in their
metadata under checksums that fit) and takes gigabytes for some. No check of ours can come before
that: this is what ``verify --untrusted`` is for, and what it must turn into findings.
"""

import json
import shutil

import fuzzing
import pytest
import warm
from fuzz import read_store

from jaxlens.store import untrusted, verify

WORDS = [
    *(b"1e999", b"NaN", b"-1", b"9" * 5000, b"[" * 2000, b'{"a":' * 200, b"null", b"true", b"{}"),
    *(b"4611686018427387904", b"\n", b"\r\n", b"\0", b"\xff", b'"\\ud800"', b"\xe2\x80\xa8", b" "),
    *(b'"sha256":"', b'"shard":1,', b'"n_shards":100000000', b'"plan":{', b'"a\\n":1,'),
]
READERS = {
    "manifest": ["MANIFEST"],
    "sidecar": ["shards/part-00000.json", "shards/part-00001.json"],
    "spec": ["RUN.json"],
    "token_record": ["tokens/TOKENS.json"],
}


@pytest.mark.parametrize("count", fuzzing.COUNTS)
@pytest.mark.parametrize("reader", READERS)
def test_mangled_text_is_read_or_refused(reader, count, tmp_path):
    seeds = [read_store.sound()[name] for name in READERS[reader]]
    target = f"fuzz.read_store:{reader}"
    found = fuzzing.fuzz(target, seeds, count, tmp_path / "seeds", words=WORDS)
    print(reader, found)


def fuzz_shards(count, seed, folder):
    """Outcomes and crashes of mangled shards; the crashes are findings of a process with limits."""
    script = f"from fuzz import read_store; read_store.main({count}, {seed})"
    status, printed, said = warm.run(script, seconds=570)
    assert status == 0, said
    found = json.loads(printed)
    inputs = found.pop("inputs")
    assert {"read", "refused"} <= set(found["outcomes"]) <= {"read", "refused", "aftermath"}, found
    assert sum(found["outcomes"].values()) + len(found["crashes"]) == count
    assert set(found["crashes"].values()) <= {"SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS"}, found
    for number in found["crashes"]:
        out = folder / number
        for name, raw in read_store.fitting(bytes.fromhex(inputs[number])).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(raw)
        names = {name for name, _ in untrusted.verify_untrusted(out).damaged}
        assert "shards/part-00001.h5" in names, (number, names)
        shutil.rmtree(out)
    return found


def test_sound_shard_that_fits_its_record_is_read(tmp_path):
    for name, raw in read_store.fitting(read_store.sound()["shards/part-00001.h5"]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    assert verify.verify(tmp_path).ok


@pytest.mark.parametrize(
    ("count", "seed"), [(20, 0), pytest.param(2_000, 1, marks=pytest.mark.long)]
)
def test_mangled_shards_that_fit_their_record_are_read_refused_or_found(count, seed, tmp_path):
    print(fuzz_shards(count, seed, tmp_path))
