"""A small mutating fuzzer: seeds in, mangled bytes out, read under limits of time and memory.

`main` calls a function with each mangled input and prints what became of them; it runs in a process
of its own, so that a crash is seen as one.
"""

import importlib
import json
import pathlib
import random
import resource
import signal
import sys
import time

import pytest
import warm

COUNTS = (300, pytest.param(10_000, marks=pytest.mark.long))
"""Mangled inputs for a reader; the first of the many are the few."""

HANG_SECONDS = 5
MAX_MIB = 50
"""Growth of the process beyond what reading the seeds took."""

_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


class Hang(BaseException):
    """An input took longer than ``HANG_SECONDS``; no reader may catch it."""


def fuzz(target, seeds, count, folder, seed=0, words=()):
    """Reads ``count`` mangled inputs in another process.

    Args:
        target: ``module:function`` below ``tests``; takes bytes. A `JaxlensError` is a refusal, any
            other exception a failure.
        seeds: Sound inputs, as bytes.
        count: Number of inputs.
        folder: Where to put the seeds.
        seed: Of the mutations.
        words: Further tokens of the format, to be inserted.

    Returns:
        Dictionary: ``read`` and ``refused`` count outcomes, ``slowest`` is in seconds, ``mib`` the
        growth of the process.

    Raises:
        AssertionError: An input led to another exception, a signal, a hang or too much memory.
    """
    folder.mkdir(parents=True)
    for number, raw in enumerate(seeds):
        (folder / f"seed-{number:03d}").write_bytes(raw)
    (folder / "words").write_text(json.dumps([word.hex() for word in words]))
    script = f"import fuzzing; fuzzing.main({target!r}, {str(folder)!r}, {count}, {seed})"
    status, printed, said = warm.run(script, seconds=550)
    assert status == 0, (status, printed[-2000:], said[-4000:])
    found = json.loads(printed.splitlines()[-1])
    assert found["read"] + found["refused"] == count, found
    assert found["refused"] > 0, "nothing was refused: the mutations do not reach the reader"
    assert found["slowest"] < HANG_SECONDS, found
    assert found["mib"] < MAX_MIB, found
    return found


def mangle(chance, seeds, words):
    """One mangled input: a seed with a few random changes."""
    raw = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8, 30))):
        at = chance.randrange(len(raw) + 1)
        way = chance.randrange(9)
        if way == 0 and raw:  # one bit
            raw[at % len(raw)] ^= 1 << chance.randrange(8)
        elif way == 1 and raw:  # one byte
            raw[at % len(raw)] = chance.randrange(256)
        elif way == 2:  # cut off
            del raw[at:]
        elif way == 3:  # a piece taken out
            del raw[at : at + chance.choice((1, 2, 4, 16, 256))]
        elif way == 4:  # a piece doubled
            raw[at:at] = raw[at : at + chance.choice((1, 4, 64, 512))]
        elif way == 5:  # a number that is often an edge
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(_NUMBERS) & (2 ** (8 * size) - 1)
            raw[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
        elif way == 6:  # random bytes
            raw[at:at] = chance.randbytes(chance.choice((1, 3, 17)))
        elif way == 7 and words:  # a word of the format
            raw[at : at + chance.choice((0, 0, 4))] = chance.choice(words)
        else:  # a piece of another seed
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            raw[at : at + 8] = other[start : start + chance.choice((4, 32, 256))]
    return bytes(raw)


def peak_kib():
    """Most memory that this process has held; getrusage would begin with its parent's."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _hang(number, frame):
    raise Hang


def main(target, folder, count, seed):
    """Reads the inputs and prints the outcome."""
    from jaxlens import errors

    module, _, name = target.partition(":")
    read = getattr(importlib.import_module(module), name)
    folder = pathlib.Path(folder)
    seeds = [path.read_bytes() for path in sorted(folder.glob("seed-*"))]
    words = [bytes.fromhex(word) for word in json.loads((folder / "words").read_text())]
    for raw in seeds:
        read(raw)  # a seed that is refused would make the whole search worthless
    signal.signal(signal.SIGALRM, _hang)
    chance, outcomes, slowest = random.Random(seed), {"read": 0, "refused": 0}, 0.0
    before = peak_kib()
    for number in range(count):
        raw = mangle(chance, seeds, words)
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        try:
            read(raw)
            outcomes["read"] += 1
        except errors.JaxlensError as error:
            assert error.message and "\n" not in error.message, error.message
            outcomes["refused"] += 1
        except BaseException:
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(f"input {number}: {raw[:400]!r} ({len(raw)} bytes)", file=sys.stderr)
            raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)
    grown = (peak_kib() - before) / 1024
    print(json.dumps({**outcomes, "slowest": slowest, "mib": grown}))
