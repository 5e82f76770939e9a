"""Too little memory: distinguished from damage, and reported even where a library ends the process.

Compilers and thread pools written in C++ call ``abort`` where an allocation fails. Memory that is
only limited by the machine never fails so; with a limit of address space (``ulimit -v``) it does.
There the command runs in a child, and its parent says what happened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

from jaxlens import errors

HINT = "give it more memory (ulimit -v), or lower plan.step_sequences, lens.block or shard_tokens"

_SAYINGS = (
    *("RESOURCE_EXHAUSTED", "failed to map segment", "annot allocate memory", "bad_alloc"),
    *("can't start new thread", "nable to allocate", "ut of memory"),
    *("realloc of size", "malloc of size", "can't allocate", "thread constructor failed"),
)
"""What libraries say of it, each in its own way; all exceptions of h5py, for one, are alike."""

MIN_ADDRESS_SPACE = 256 << 20
"""Address space below which no command is begun: Python and the libraries nearly fill it alone, and
a thread that gets no memory while it starts leaves its process waiting for ever."""

_RESERVE = 16 << 20
"""Address space that a supervised command leaves unused, so that its error can be reported: what
fails for want of a few bytes leaves none to print why, nor to raise what Python would raise."""

_NEARLY_ALL = 64 << 20
"""Where so little was left, an error of a library is not evidence of damage."""

_HDF5_SAYS, _HDF5_TAKES = "memory allocation failed", 256 << 20
"""What HDF5 says of memory, and the most that it takes at once of a sound file. Where more was left
it failed because a damaged file claims a size that no memory has."""

_FULL, _POLL_SECONDS = 2 << 20, 1.0
"""A child with so little left gets its reserve after one to two of these periods: where CPython
cannot allocate the number that its handling of an error takes, it tries for ever."""

_MAX_DEPTH = 20
_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP}
_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_LOADER_GAVE_UP = 127
_INTERRUPTED = {130, -signal.SIGINT}
_SENT_BY_A_PROCESS = 0
_DIE_WITH_PARENT = 1

_before: list[tuple[int, int]] = []
"""Limits of address space before the reserve was taken from them; empty where it is not kept."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lack of memory."""
    for _ in range(_MAX_DEPTH):
        if error is None:
            return False
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        # A library that is there and does not start; why, few of them say.
        if type(error) is ImportError and address_space() is not None:
            return True
        if not isinstance(error, errors.JaxlensError):
            message = str(error)
            margin = _HDF5_TAKES if _HDF5_SAYS in message else _NEARLY_ALL
            if any(saying in message for saying in _SAYINGS) or _came_within(margin):
                return True
        error = error.__cause__ or error.__context__
    return False


def reraise(error: BaseException) -> None:
    """Raises a lack of memory as such; for handlers that take other errors for damage.

    Raises:
        MemoryError: It is one.
    """
    if is_shortage(error):
        raise MemoryError(str(error)) from error


def address_space() -> int | None:
    """Bytes that this process may map; None where nothing limits them."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def address_space_left() -> int | None:
    """Bytes that this process may still map; None where nothing limits or tells them."""
    limit, mapped = address_space(), _mapped("self")
    return None if limit is None or mapped is None else max(0, limit - mapped)


def _mapped(process: int | str) -> int | None:
    """Bytes that a process maps; None where the system does not tell."""
    try:
        with open(f"/proc/{process}/statm") as status:
            return int(status.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # of a process that has ended the file is empty
        return None


def peak_address_space() -> int:
    """The most bytes that this process ever mapped; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmPeak"))
    except (OSError, StopIteration, ValueError):
        return 0


def _came_within(margin: int) -> bool:
    """Whether so large an allocation may have failed, for this process came near to its limit."""
    limit = address_space()
    return limit is not None and peak_address_space() + margin > limit


def supervise() -> None:
    """Goes on in a child where address space is limited; the parent ends with the child's status.

    Signals reach the child. Must be called before there are threads.

    Raises:
        ConfigError: The limit is below `MIN_ADDRESS_SPACE`, or a library ended the child (raised in
            the parent).
        SystemExit: In the parent: the child has ended.
    """
    limit = address_space()
    if limit is None or sys.platform != "linux":
        return
    if limit < MIN_ADDRESS_SPACE:
        raise errors.ConfigError(
            f"out of memory: {limit >> 20} MiB of address space are not enough for any command",
            f"allow at least {MIN_ADDRESS_SPACE >> 20} MiB (ulimit -v {MIN_ADDRESS_SPACE >> 10})",
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    parent = os.getpid()
    child = os.fork()
    if not child:
        _follow(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    status, was_interrupted = _wait(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    # OpenBLAS interrupts its own process where it gets no threads.
    interrupts_itself = code in _INTERRUPTED and not was_interrupted
    if -code in _CRASHES or code == _LOADER_GAVE_UP or interrupts_itself:
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise errors.ConfigError(
            f"out of memory: {limit >> 20} MiB of address space were not enough ({how})", HINT
        )
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


def _follow(parent: int) -> None:
    """Makes this process end with its parent, and leave no image of its memory."""
    import resource

    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread takes address space
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit - _RESERVE, hard))
    _before.append((limit, hard))
    sys.unraisablehook = _report_unless_memory


def _report_unless_memory(ignored: sys.UnraisableHookArgs) -> None:
    """Python prints a traceback of what it ignores; the lack of memory itself is reported."""
    if not isinstance(ignored.exc_value, MemoryError):
        sys.__unraisablehook__(ignored)


def use_reserve() -> None:
    """Allows a supervised command what it left unused; for the report of how it ended."""
    if _before:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, _before.pop())


def _is_full(child: int) -> bool:
    """Whether a child has mapped nearly all of what it may."""
    import resource

    mapped, limit = _mapped(child), resource.prlimit(child, resource.RLIMIT_AS)[0]
    return mapped is not None and mapped + _FULL > limit


def _give_reserve(child: int) -> None:
    """Allows a child what this process may map, which is what it began with."""
    import resource

    resource.prlimit(child, resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS))


def _wait(child: int) -> tuple[int, bool]:
    """Status of the child in the end, and whether someone interrupted it.

    Passes on signals that were sent to this process alone; a terminal signals the child itself.
    """
    was_interrupted, was_full = False, False
    while True:
        received = signal.sigtimedwait({*_FORWARDED, signal.SIGCHLD}, _POLL_SECONDS)
        if received is None:
            full = _is_full(child)
            if full and was_full:
                _give_reserve(child)
            was_full = full
            continue
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status, was_interrupted
            continue
        was_interrupted |= received.si_signo == signal.SIGINT
        if received.si_code <= _SENT_BY_A_PROCESS:
            os.kill(child, received.si_signo)
