"""Verifying what a stranger made: in a process that may do little, and may die.

HDF5 was not written for hostile files. Its structure checks and ours refuse what is known to harm;
against the rest, the files are read in a child that has bounded memory, time and descriptors, can
write no file, and inherits no secrets. Whatever happens to it becomes a finding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jaxlens
from jaxlens import errors
from jaxlens.store import shards, verify

MEMORY_BYTES = 512 << 20
"""Memory of the child beyond what Python and its libraries take."""

BYTES_PER_SECOND = 10 << 20
"""Slowest rate of reading that is waited for; beside it the child has a minute."""

_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_LONGEST_LINE = 64 << 20
_DESCRIPTORS = 64


def verify_untrusted(
    run_dir: str | Path, level: shards.Level = "full", memory: int = MEMORY_BYTES
) -> verify.Report:
    """As `verify.verify`, in a process with limits.

    Args:
        run_dir: Run.
        level: ``fast`` or ``full``.
        memory: Bytes that the process may add to those of an idle one.

    Raises:
        MissingError: There is no such directory, or no run in it.
    """
    seconds = 60 + _size(run_dir) // BYTES_PER_SECOND
    wanted = json.dumps([os.path.abspath(run_dir), level, memory, seconds])
    code = "from jaxlens.store import guarded; guarded.main()"
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # One thread of BLAS: each takes address space. No HDF5 plugins: they are code to be loaded.
    kept |= {"PYTHONPATH": _root(), "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, wanted],
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        killer = threading.Timer(2 * seconds, child.kill)
        killer.start()
        try:
            assert child.stdout is not None
            at, answer = _listen(child.stdout)
        finally:
            killer.cancel()
            child.kill()
    return _judge(at, answer, child.returncode)


def main() -> None:
    """The child: sets its limits, verifies, and prints one JSON value a line."""
    run_dir, level, memory, seconds = json.loads(sys.argv[1])
    _limit(memory, seconds)

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    try:
        report = verify.verify(run_dir, level, lambda name: say(at=name))
        say(report=dataclasses.asdict(report))
    except errors.JaxlensError as error:
        say(error=[error.exit_code, error.message, error.hint])
    except MemoryError:
        say(died="needs more memory than it may have")


def _limit(memory: int, seconds: int) -> None:
    import resource  # not on every system, where the parent then has no such command

    def lower(which: int, value: int) -> None:
        _, most = resource.getrlimit(which)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        with contextlib.suppress(OSError, ValueError):  # not every system can limit everything
            resource.setrlimit(which, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, 0)
    lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    lower(resource.RLIMIT_CPU, seconds)
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)


def _listen(lines: IO[bytes]) -> tuple[str, dict[str, Any]]:
    """The file that the child looked at last, and what it said in the end."""
    at = ""
    while line := lines.readline(_LONGEST_LINE):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(said, dict) or "at" not in said:
            return at, said if isinstance(said, dict) else {}
        at = str(said["at"])
    return at, {}


def _judge(at: str, answer: dict[str, Any], status: int) -> verify.Report:
    """What the child's last words mean; those are not trusted either."""
    match answer:
        case {"report": {"shards": int(n), "rows": int(rows), "damaged": list(items)}}:
            damaged = tuple((str(name), str(what)) for name, what in _pairs(items))
            return verify.Report(n, rows, damaged)
        case {"error": [int(code), str(message), str(hint)]} if code == 66:
            raise errors.MissingError(message, hint)
        case {"error": [int(), str(message), str()]}:
            what = message
        case {"died": str(reason)}:
            what = f"reading it {reason}"
        case _:
            what = f"reading it ended the process: {_spell(status)}"
    return verify.Report(0, 0, ((at or "the run", what),))


def _pairs(items: list[Any]) -> Iterator[list[Any]]:
    return (item for item in items if isinstance(item, list) and len(item) == 2)


def _spell(status: int) -> str:
    if status == -signal.SIGXCPU or status == -signal.SIGKILL:
        return "it took too long or too much"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"exit status {status}"


def _size(run_dir: str | Path) -> int:
    """Bytes that all files of a run take on disk, whatever they claim; none are opened."""
    total = 0
    for folder, _, names in os.walk(run_dir):
        for name in names:
            with contextlib.suppress(OSError):
                total += 512 * os.lstat(os.path.join(folder, name)).st_blocks
    return total


def _root() -> str:
    """The folder that the package is imported from."""
    return str(Path(jaxlens.__file__).resolve().parents[1])
