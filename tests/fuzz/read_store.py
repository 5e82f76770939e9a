"""What the fuzzer of runs calls: each function reads one input, or refuses it.

`main` reads shards whose record was made to fit them; HDF5 may crash on those, so each batch has a
process, and the crashes are counted.
"""

import atexit
import collections
import functools
import json
import os
import pathlib
import random
import resource
import signal
import struct
import tempfile

from store import example

from jaxlens import errors
from jaxlens.store import findings, layout, reader, records, run_directory, shards, verify
from jaxlens.store import manifest as manifests

SHARDS, ROWS = 2, 8
_SCRATCH = tempfile.TemporaryDirectory(prefix="jaxlens-fuzz-")
atexit.register(_SCRATCH.cleanup)
FOLDER = pathlib.Path(_SCRATCH.name) / "run"
SIGNATURES = (
    b"OHDR",
    b"OCHK",
    b"FRHP",
    b"FHDB",
    b"FHIB",
    b"BTHD",
    b"BTLF",
    b"BTIN",
    b"FAHD",
    b"FADB",
)
HANG_SECONDS = 20
"""Of computing: on a loaded machine HDF5 may take as long for gigabytes that a file claims."""


@functools.cache
def sound():
    """The files of a run."""
    example.write_run(FOLDER, SHARDS, ROWS)
    return example.tree(FOLDER)


def put(name, raw):
    sound()
    (FOLDER / name).write_bytes(raw)


def manifest(raw):
    put("MANIFEST", raw)
    table = manifests.read(FOLDER, SHARDS)
    spec_hash, entries = table.spec_hash, list(table)
    table.misplaced()
    assert example.manifest(spec_hash, entries) == raw


def sidecar(raw):
    put("shards/part-00001.json", raw)
    entry = layout.read_record(FOLDER, 1)
    assert records.encode(entry) == raw


def spec(raw):
    put("RUN.json", raw)
    run_directory.require_same_run(FOLDER, raw)
    try:
        run_directory.require_same_run(FOLDER, sound()["RUN.json"])
    except errors.ConfigError as error:
        assert "\n" not in error.message
    layout.read_spec(FOLDER)


def token_record(raw):
    put("tokens/TOKENS.json", raw)
    verify._check_tokens(findings.Findings(FOLDER, None), layout.read_spec(FOLDER), [], "full")
    layout.read_tokens(FOLDER)


def fitting(raw):
    """The files of a run whose second shard is this one, as record and manifest say."""
    first, place = (
        records.parse_record(sound()[f"shards/part-{number:05d}.json"], "") for number in range(2)
    )
    entry = records.record(place.shard_range(), ROWS, raw)
    return sound() | {
        "shards/part-00001.h5": raw,
        "shards/part-00001.json": records.encode(entry),
        "MANIFEST": example.manifest(place.spec_hash, [first, entry]),
    }


def shard(raw):
    """A shard whose record and manifest fit it."""
    for name, data in fitting(raw).items():
        put(name, data)
    shards.check(FOLDER, 1, layout.read_spec(FOLDER).hash)
    damaged = verify.verify(FOLDER).damaged
    (FOLDER / "summary.h5").unlink()  # or it would be believed
    with reader.open_run(FOLDER) as run:
        for name in run.names:
            assert run[name][:].shape == run[name].shape
        assert run.tally
        run.summary()
    if damaged:
        raise errors.DataError("verify found it")


def lookup3(data):
    """The checksum of HDF5's metadata: Bob Jenkins' lookup3."""
    mask, rot = 0xFFFFFFFF, lambda x, k: (x << k | x >> 32 - k) & 0xFFFFFFFF
    a = b = c = 0xDEADBEEF + len(data) & mask
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for i in range(0, len(words), 3):
        a, b, c = a + words[i] & mask, b + words[i + 1] & mask, c + words[i + 2] & mask
        if i + 3 < len(words):
            for first, second, third in ((4, 6, 8), (16, 19, 4)):
                a = a - c & mask ^ rot(c, first)
                c = c + b & mask
                b = b - a & mask ^ rot(a, second)
                a = a + c & mask
                c = c - b & mask ^ rot(b, third)
                b = b + a & mask
    c = (c ^ b) - rot(b, 14) & mask
    a = (a ^ c) - rot(c, 11) & mask
    b = (b ^ a) - rot(a, 25) & mask
    c = (c ^ b) - rot(b, 16) & mask
    a = (a ^ c) - rot(c, 4) & mask
    b = (b ^ a) - rot(a, 14) & mask
    return (c ^ b) - rot(b, 24) & mask


def blocks(raw):
    """Checksummed pieces of an HDF5 file: start and length without the checksum."""
    found = [(0, 44)]  # the superblock
    for signature in SIGNATURES:
        at = raw.find(signature)
        while at >= 0:
            for length in range(8, 1500):
                if raw[at + length : at + length + 4] == struct.pack(
                    "<I", lookup3(raw[at : at + length])
                ):
                    found.append((at, length))
                    break
            at = raw.find(signature, at + 1)
    return found


def refitted(chance, raw, pieces):
    """A file with a few odd bytes in its metadata, whose checksums fit them."""
    raw = bytearray(raw)
    for at, length in chance.choices(pieces, k=chance.choice((1, 1, 2, 4))):
        for _ in range(chance.choice((1, 1, 2, 6))):
            size = chance.choice((1, 1, 2, 4, 8))
            place = at + chance.randrange(4, length)
            number = chance.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            odd = chance.choice((number, chance.getrandbits(64), 1 << chance.randrange(64)))
            new = (odd & 2 ** (8 * size) - 1).to_bytes(size, "little")
            stop = min(place + size, at + length)
            raw[place:stop] = new[: stop - place]
        checksum = struct.pack("<I", lookup3(bytes(raw[at : at + length])))
        raw[at + length : at + length + 4] = checksum
    return bytes(raw)


def mangled(seed, number):
    """A shard; every fourth has only random changes, which HDF5's checksums see."""
    raw = sound()["shards/part-00001.h5"]
    chance = random.Random(f"{seed}:{number}")
    if number % 4:
        return refitted(chance, raw, _pieces())
    import fuzzing

    return fuzzing.mangle(chance, [raw], [])


@functools.cache
def _pieces():
    return blocks(sound()["shards/part-00001.h5"])


def batch(seed, numbers, tell):
    """Reads inputs and tells what became of each, in a process that may die of it."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # noqa: E731
    shard(sound()["shards/part-00001.h5"])
    before = peak()
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
        try:
            shard(mangled(seed, number))
            outcome = "read"
        except errors.JaxlensError as error:
            outcome = "odd message" if "\n" in error.message else "refused"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:200].replace("\n", " ")
        os.write(tell, json.dumps([number, outcome, (peak() - before) >> 10]).encode() + b"\n")


def alone(seed, numbers):
    """Runs a batch in a process; returns what became of each input, and the signal if it died."""
    listen, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(listen)
        batch(seed, numbers, tell)
        os._exit(0)
    os.close(tell)
    with os.fdopen(listen) as lines:
        told = [json.loads(line) for line in lines]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return told, signal.Signals(-status).name if status else ""


def main(count, seed):
    """Reads shards whose record fits them; prints outcomes, crashes, their inputs, growth in MiB.

    A crash that an input alone does not repeat was the doing of the inputs before it.
    """
    _pieces()
    outcomes, crashes, grown, number = collections.Counter(), {}, [0], 0
    while number < count:
        told, died = alone(seed, range(number, count))
        outcomes.update(outcome for _, outcome, _ in told)
        grown += [mib for _, _, mib in told]
        number += len(told)
        if died:
            _, again = alone(seed, [number])
            crashes |= {number: again} if again else {}
            outcomes["aftermath"] += not again
            number += 1
    inputs = {number: mangled(seed, number).hex() for number in crashes}
    print(
        json.dumps({"outcomes": outcomes, "crashes": crashes, "inputs": inputs, "mib": max(grown)})
    )
