"""Verifying what a stranger made: in a process that may do little, and may die.

HDF5 was not written for hostile files. Its structure checks and ours refuse what is known to harm;
against the rest, the files are read in a child that has bounded memory, time and descriptors,
cannot write a byte into any file, and inherits neither secrets nor descriptors. Whatever happens to
it becomes a finding. It is no sandbox: code that ran in the child could do what its user may do,
within those limits.
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

MEMORY_BYTES = 512 << 20
"""Memory of the child beyond what Python and its libraries take, where the system can limit it."""

SECONDS = 60
"""Time of the child; twice as much where it waits more than it computes."""

BYTES_PER_SECOND = 10 << 20
"""Slowest rate of reading that is waited for, beside that."""

_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HDF5_USE_FILE_LOCKING", "LC_ALL", "LANG")
_CHILD = "from jaxlens.store import untrusted; untrusted.main()"
_NONSENSE = "made the process talk nonsense"
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
        MissingError: There is no such directory, or no run in it.
        StorageError: The system has no room for another process.
    """
    seconds = SECONDS + _size(run_dir) // BYTES_PER_SECOND
    wanted = json.dumps([os.path.abspath(run_dir), level, memory, seconds])
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-B", "-c", _CHILD, wanted],
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
    """The child: sets its limits, verifies, and prints one JSON object a line."""
    run_dir, level, memory, seconds = json.loads(sys.argv[1])
    _limit(memory, seconds)

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    say(at="")  # from here on, what goes wrong is the run's doing
    try:
        report = verify.verify(run_dir, level, lambda name: say(at=name))
        say(report=dataclasses.asdict(report))
    except errors.MissingError as error:
        say(missing=[error.message, error.hint])
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
    with contextlib.suppress(OSError):  # only Linux says so, and only there the limit works
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    root = str(Path(jaxlens.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # One thread of BLAS: each takes address space. No HDF5 plugins: they are code to be loaded.
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}


def _listen(lines: IO[bytes]) -> tuple[str | None, dict[str, Any]]:
    """The file that the child looked at last, and what it said in the end.

    The file is None where the child did not begin. Nothing here grows with what it says.
    """
    at = None
    while (line := lines.readline(_MAX_LINE_BYTES)).endswith(b"\n"):
        try:
            said = strict_json.parse(line, "")
        except errors.DataError:
            return at, {"died": _NONSENSE}
        if not isinstance(said.get("at"), str):
            return at, said
        at = said["at"][:_MAX_NAME_CHARACTERS]
    return at, {}


def _judge(at: str, answer: dict[str, Any], status: int) -> verify.Report:
    """What the child's last words mean; those are not trusted either."""
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
                yield "the run", "what was found there makes no sense"


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
    """Bytes that the files of a run take on disk, whatever they claim; none are opened."""
    total = 0
    for part in (".", layout.SHARDS, layout.TOKENS):
        folder = os.path.join(run_dir, part)
        with contextlib.suppress(OSError):
            if not os.path.islink(folder):
                with os.scandir(folder) as entries:
                    total += sum(512 * e.stat(follow_symlinks=False).st_blocks for e in entries)
    return total
