"""Too little address space: exit 2 with a hint, never damage, never an abort."""

import errno
import shlex
import signal
import subprocess
import sys
import time

import pytest
from sweeps import flags

from jaxlens import errors
from jaxlens.files import memory

# Fills its memory, then tries an allocation until it succeeds.
STUBBORN = """
import mmap, resource, time
from jaxlens.files import memory
memory.supervise()
held = []
for size in (1 << 20, 1 << 14):
    try:
        while True:
            held.append(mmap.mmap(-1, size))
    except OSError:
        pass
while True:
    try:
        held.append(mmap.mmap(-1, 4 << 20))
        break
    except OSError:
        time.sleep(0.05)
print(resource.getrlimit(resource.RLIMIT_AS)[0] >> 10)
"""
MAIN = "from jaxlens.cli.main import main; main()"


def limited(mebibytes, *arguments):
    """The command line in a process of little address space; of its own session, so no Ctrl-C."""
    words = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.Popen(
        f"ulimit -v {int(1024 * mebibytes)}; exec {shlex.join(words)}",
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process, seconds=240):
    said = process.communicate(timeout=seconds)[1]
    return process.returncode, said


def ends_with_a_report(said):
    """Whether one line of what and one of what to do come last, and no traceback before them."""
    error, hint = said.rstrip().splitlines()[-2:]
    known = error.startswith(("error: out of memory", "error: a step needs"))
    helpful = hint.startswith("hint: ") and "lower plan.step_sequences" in hint
    return known and helpful and "Traceback" not in said


# A step of so many positions takes 9 GB; at the other limits nothing can begin.
LARGE = ("--rows", "none", "--set", "plan.step_sequences=250000", "--set", "store.shard_tokens=1k")


@pytest.mark.parametrize(
    "mebibytes", [400, *(pytest.param(size, marks=pytest.mark.long) for size in (1500, 6000))]
)
def test_a_run_without_memory_ends_with_2_and_a_hint(mebibytes, tiny, texts, tmp_path):
    how = [*flags(tiny, texts, tmp_path / "out"), *LARGE]
    code, said = ended(limited(mebibytes, *how))
    assert code == 2, said
    assert ends_with_a_report(said) and "damaged" not in said, said


def test_a_whole_run_is_never_called_damaged_for_lack_of_memory(swept):
    for mebibytes in (260, 320):
        code, said = ended(limited(mebibytes, "verify", swept))
        assert code in (0, 2), said
        assert "damaged" not in said


@pytest.mark.parametrize(
    "kibibytes",
    [
        410_200,
        *(pytest.param(size, marks=pytest.mark.long) for size in range(380_000, 440_000, 1000)),
    ],
)
def test_memory_that_ends_while_modules_load_is_reported(kibibytes, tiny, texts, tmp_path):
    """In one of 25 sizes not even the report, or the error itself, had the bytes that it takes."""
    how = [*flags(tiny, texts, tmp_path / "out"), *LARGE]
    code, said = ended(limited(kibibytes / 1024, *how))
    assert code == 2, said
    assert ends_with_a_report(said), said


@pytest.mark.parametrize("which", ["-v", "-Sv"])
def test_what_tries_for_ever_to_allocate_gets_the_reserve_and_no_more(which):
    """As CPython 3.11 does where it has no bytes for what handling an error takes."""
    command = f"ulimit {which} 300000; exec {sys.executable} -c {shlex.quote(STUBBORN)}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("300000\n", 0), done.stderr


def test_too_little_for_any_command_is_said_at_once(swept):
    code, said = ended(limited(150, "verify", swept))
    assert code == 2
    assert said.startswith("error: out of memory: 150 MiB of address space")
    assert "hint: allow at least 256 MiB (ulimit -v 262144)" in said


def test_what_a_library_says_near_the_limit_is_no_evidence_of_damage(monkeypatch):
    """HDF5 reports a failed allocation as whatever it was about to do."""
    said = RuntimeError("Unspecified error in H5Pget_chunk (return value <0)")
    assert not memory.is_shortage(said)
    peak = memory.peak_address_space()
    monkeypatch.setattr(memory, "address_space", lambda: peak + (8 << 20))
    assert memory.is_shortage(said)
    assert not memory.is_shortage(errors.DataError("a checksum differs", "repair"))
    monkeypatch.setattr(memory, "address_space", lambda: peak + (1 << 30))
    assert not memory.is_shortage(said)


def test_an_allocation_that_no_memory_could_hold_is_damage(monkeypatch):
    """A damaged file may claim any size, and HDF5 then says the same as where memory is short."""
    said = RuntimeError("Unable to get group info (memory allocation failed for chunk)")
    assert not memory.is_shortage(said)
    peak = memory.peak_address_space()
    monkeypatch.setattr(memory, "address_space", lambda: peak + (1 << 30))
    assert not memory.is_shortage(said)
    monkeypatch.setattr(memory, "address_space", lambda: peak + (128 << 20))
    assert memory.is_shortage(said)


def test_what_is_refused_with_enough_memory_is_refused_with_its_own_code(tmp_path):
    assert ended(limited(20_000, "verify", tmp_path))[0] == 66
    assert ended(limited(20_000, "--version"))[0] == 0


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_signals_reach_a_supervised_run(sent, tiny, texts, tmp_path):
    process = limited(20_000, *flags(tiny, texts, tmp_path / "out"), "--set", "grace=0")
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "RUN.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    code, said = ended(process)
    assert code in ((75,) if sent == signal.SIGTERM else (130, 75)), said


def test_a_supervised_run_ends_with_its_parent(tiny, texts, tmp_path):
    process = limited(20_000, *flags(tiny, texts, tmp_path / "out"), *LARGE)
    while not (tmp_path / "out" / "tokens").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.kill()
    # Its pipes are closed once nothing is left that holds them.
    process.communicate(timeout=60)


CAUSES = {
    "memory": MemoryError(),
    "the system": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "the loader": ImportError("x.so: failed to map segment from shared object"),
    "XLA": RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
    "threads": RuntimeError("can't start new thread"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_libraries_say_it_in_many_ways_and_it_is_found_behind_other_errors(cause):
    assert memory.is_shortage(CAUSES[cause])
    try:
        try:
            raise CAUSES[cause]
        except Exception as error:
            raise errors.DataError("x is damaged") from error
    except errors.DataError as error:
        assert memory.is_shortage(error)
        with pytest.raises(MemoryError):
            memory.reraise(error)


def test_other_errors_are_none(tmp_path):
    for error in (ValueError("x"), OSError(errno.ENOSPC, "No space"), errors.DataError("damaged")):
        assert not memory.is_shortage(error)
        memory.reraise(error)
