"""Verifying an untrusted run in a process with limits.

HDF5 was not written for hostile files: forged metadata can end the process that reads it (see
`reading`, and ``test_run_that_needs_too_much_memory_is_a_finding_that_names_the_file`` in
``tests/store/test_untrusted.py``). `structure` refuses what is known to harm; against the rest, the
files are read in a child process that has bounded memory, time and descriptors, cannot write to any
file, and inherits neither secrets nor descriptors. Whatever happens to the child becomes a finding.
It is not a sandbox: code that ran in the child could do what its user may do, within those limits.
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
from jaxlens.store import layout, shards, strict_json, verify
from jaxlens.store.merged import sources

MEMORY_BYTES = 512 << 20
"""Memory of the child beyond that of Python and its libraries, where the system can limit it."""

SECONDS = 60
"""Processor time of the child; it may take twice as long in all."""

BYTES_PER_SECOND = 10 << 20
"""Slowest rate of reading; the child gets the time for it in addition."""

_INHERITED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "HDF5_USE_FILE_LOCKING",
    "LC_ALL",
    "LANG",
)
_CHILD = "from jaxlens.store import untrusted; untrusted.main()"
_NONSENSE = "made the process write nonsense"
_MAX_LINE_BYTES = 8 << 20
_MAX_NAME_CHARACTERS = 1000
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
        MissingError: The directory does not exist, or holds no run.
        DataError: See `verify.verify`.
        ConfigError: It holds merged runs.
        StorageError: The system cannot start another process.
    """
    sources.refuse(
        run_dir, f"verify each of its runs with --untrusted, then jaxlens verify {run_dir}"
    )
    seconds = SECONDS + _size(run_dir) // BYTES_PER_SECOND
    arguments = json.dumps([os.path.abspath(run_dir), level, memory, seconds])
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-B", "-c", _CHILD, arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise _not_started(os.strerror(error.errno or 0)) from error
    with child:
        killer = threading.Timer(2 * seconds, child.kill)
        try:
            killer.start()
            assert child.stdout is not None
            at, answer = _listen(child.stdout)
        finally:
            killer.cancel()
            child.kill()
    if at is None:
        raise _not_started(_spell(child.returncode))
    return _judge(at, answer, child.returncode)


def main() -> None:
    """The child: sets its limits, verifies, and prints JSON objects, one a line."""
    run_dir, level, memory, seconds = json.loads(sys.argv[1])
    _limit(memory, seconds)

    def say(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    say(at="")  # from here on, errors are due to the files of the run
    try:
        report = verify.verify(run_dir, level, lambda name: say(at=name))
        say(report=dataclasses.asdict(report))
    except errors.MissingError as error:
        say(missing=[error.message, error.hint])
    except errors.DataError as error:
        say(refused=[error.message, error.hint])
    except MemoryError:
        say(died="needs more memory than it may have")


def _limit(memory: int, seconds: int) -> None:
    import resource  # only on POSIX systems, as the command

    def lower(which: int, value: int) -> None:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # not every system can limit everything
            resource.setrlimit(which, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, 0)
    lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    lower(resource.RLIMIT_CPU, seconds)
    with contextlib.suppress(OSError):  # only Linux tells it, and only there the limit works
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    root = str(Path(jaxlens.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # One thread of BLAS: each takes address space. No HDF5 plugins: they are code.
    return inherited | {
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",
        "HDF5_PLUGIN_PRELOAD": "::",
    }


def _listen(lines: IO[bytes]) -> tuple[str | None, dict[str, Any]]:
    """The file that the child checked last, and its last message.

    The file is None where the child did not begin. Memory does not grow with what the child writes.
    """
    at = None
    while (line := lines.readline(_MAX_LINE_BYTES)).endswith(b"\n"):
        try:
            message = strict_json.parse(line, "")
        except errors.DataError:
            return at, {"died": _NONSENSE}
        if not isinstance(message.get("at"), str):
            return at, message
        at = message["at"][:_MAX_NAME_CHARACTERS]
    return at, {}


def _judge(at: str, answer: dict[str, Any], status: int) -> verify.Report:
    """The report that the last message of the child means; the message is not trusted either."""
    match answer:
        case {
            "report": {
                "shards": int(n),
                "rows": int(rows),
                "damaged": list(items),
                "missing": int(missing),
                "finished": bool(finished),
            }
        }:
            return verify.Report(n, rows, tuple(_findings(items)), missing, finished)
        case {"missing": [str(message), str(hint)]}:
            raise errors.MissingError(message, hint)
        case {"refused": [str(message), str(hint)]}:
            raise errors.DataError(message, hint)
        case {"died": str(reason)}:
            what = f"reading it {reason}"
        case _ if answer:
            what = f"reading it {_NONSENSE}"
        case _:
            what = f"reading it ended the process: {_spell(status)}"
    return verify.Report(0, 0, ((at or "the run", what),))


def _findings(items: list[Any]) -> Iterator[tuple[str, str]]:
    for item in items:
        match item:
            case [str(name), str(what)]:
                yield name, what
            case _:
                yield "the run", "what the process reported makes no sense"


def _not_started(why: str) -> errors.StorageError:
    return errors.StorageError(
        f"cannot start a process to read the run in: {why}", "free some memory, then try again"
    )


def _spell(status: int) -> str:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return "it took too long or too much"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"exit status {status}"


def _size(run_dir: str | Path) -> int:
    """Bytes that the files of a run take on disk; none are opened."""
    total, folders = 0, [os.path.join(run_dir, layout.TOKENS), os.path.join(run_dir, layout.SHARDS)]
    with contextlib.suppress(OSError), os.scandir(folders[-1]) as entries:
        folders += [e.path for e in entries if layout.segment_number(e.name) is not None]
    for folder in (os.fspath(run_dir), *folders):
        with contextlib.suppress(OSError):
            if not os.path.islink(folder):
                with os.scandir(folder) as entries:
                    total += sum(512 * e.stat(follow_symlinks=False).st_blocks for e in entries)
    return total
