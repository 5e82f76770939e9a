"""A process that has imported the package, and forks for each script: starting one takes a second.

``python warm.py`` runs what stdin asks for, one line of JSON a script, and tells how each ended.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import traceback

PATHS = os.pathsep.join(str(pathlib.Path(__file__).resolve().parents[up]) for up in (0, 1))
MODULES = (
    "h5py",
    "jaxlens.corpus.ingest",
    "jaxlens.models.checkpoints.checkpoint",
    "jaxlens.store.verify",
)
"""Imported once; they start no thread, which a fork would not have."""


def run(script, *arguments, seconds=60):
    """Runs a script in a fork, as ``python -c`` would; returns its exit status, stdout, stderr."""
    server = _server()
    with tempfile.TemporaryDirectory(prefix="jaxlens-warm-") as folder:
        files = [pathlib.Path(folder, name) for name in ("out", "err")]
        wanted = [script, [str(a) for a in arguments], *map(str, files), seconds]
        print(json.dumps(wanted), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return status, *(file.read_text() for file in files)


@functools.cache
def _server():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # The first panic of the tokenizer library would load 50 MiB of symbols.
    more = {"PYTHONPATH": PATHS, "OPENBLAS_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    server = subprocess.Popen([sys.executable, __file__], env=os.environ | more, **pipes)
    atexit.register(_end, server)
    return server


def _end(server):
    server.stdin.close()
    server.wait()
    server.stdout.close()


def main():
    """Serves until there is no more input."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin:
        script, arguments, out, err, seconds = json.loads(line)
        child = os.fork()
        if not child:
            _become(arguments, out, err)
            os._exit(_execute(script))
        signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
        signal.alarm(seconds)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        print(status, flush=True)


def _become(arguments, out, err):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
    sys.argv = ["-c", *arguments]


def _execute(script):
    """Ends as a process of its own would, but without taking all modules apart."""
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
