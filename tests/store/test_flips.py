"""Flipped bits in each kind of file, 250 or a thousand (long): none is silent, each names it."""

import os
import random

import pytest
from store import example

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import layout, reader, run_directory, shards, verify
from jaxlens.store.hdf5 import reading

SHARDS, ROWS = 3, 40
FLIPS = 1000
VERIFIED = 8
"""Flips of a kind that the whole of `verify` sees too; one takes a tenth of a second."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    made = tmp_path_factory.mktemp("run") / "run"
    example.write_run(made, SHARDS, ROWS)
    assert verify.verify(made).ok
    yield made
    assert verify.verify(made).ok


def part(shard, kind="h5"):
    return f"shards/part-{shard:05d}.{kind}"


def flip(path, bit):
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, bit // 8)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)


def check_shard(out):
    """As a resume does, which recomputes what is refused."""
    shards.check(out, 1, example.config.spec_hash(example.spec(SHARDS, ROWS)))


def check_spec(out):
    """As a resume does, before it writes anything."""
    run_directory.require_same_run(out, example.spec(SHARDS, ROWS))


def check_token_file(out):
    """As whoever reads the token file does."""
    tokens = layout.read_tokens(out)
    for name, sha256 in (
        (layout.TOKEN_FILE, tokens.sha256),
        (layout.TOKEN_INDEX, tokens.index_sha256),
    ):
        path = layout.token_path(out, name)
        with contained.opened(path) as descriptor:
            if contained.sha256(path, descriptor) != sha256:
                raise errors.DataError(f"{path} differs")


def check_token_record(out):
    """By the checksum, before any of it is believed."""
    layout.read_tokens(out)


def check_index(out):
    """By the seal, as whoever opens the index does."""
    reading.open_sealed(out / layout.INDEX, virtual=True).close()


def open_run(out):
    """As every reader does."""
    reader.open_run(out).close()


def read_totals(out):
    """As every reader of the summary does."""
    with reader.open_run(out) as run:
        assert run.tally


KINDS = [
    (part(1), check_shard, {part(1)}),
    (part(1, "json"), check_shard, {part(1), part(1, "json")}),
    ("MANIFEST", open_run, {"MANIFEST", part(0), part(1), part(2)}),
    ("RUN.json", check_spec, {"RUN.json"}),
    ("summary.h5", read_totals, {"summary.h5"}),
    ("index.h5", check_index, {"index.h5"}),
    ("tokens/tokens.bin", check_token_file, {"tokens/tokens.bin"}),
    ("tokens/index.h5", check_token_file, {"tokens/index.h5"}),
    ("tokens/TOKENS.json", check_token_record, {"tokens/TOKENS.json"}),
]


def flips(out, name, every=1):
    """Flips bits, each alone: a thousand, or every so many-th of them."""
    path = out / name
    for bit in random.Random(name).sample(range(path.stat().st_size * 8), FLIPS)[::every]:
        flip(path, bit)
        yield bit
        flip(path, bit)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("name", "check", "_"), KINDS, ids=[kind[0] for kind in KINDS])
def test_flipped_bits_are_refused_by_whoever_reads_the_file(out, name, check, _, every):
    check(out)
    for bit in flips(out, name, every):
        with pytest.raises(errors.JaxlensError) as caught:
            check(out)
        assert name.rsplit(".", 1)[0] in caught.value.message, bit


@pytest.mark.parametrize("every", [FLIPS // VERIFIED, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("name", "_", "culprits"), KINDS, ids=[kind[0] for kind in KINDS])
def test_flipped_bits_are_found_and_named_by_verify(out, name, _, culprits, every):
    for bit in flips(out, name, every):
        found = {where for where, _ in verify.verify(out).damaged}
        assert found and found <= culprits, (bit, found)
