"""Fenced blocks of the documentation, and what runs them: a real shell, the real command line.

A block of commands is given to bash. There `jaxlens` is a small client that passes its words to
the test process, which runs the command line itself: the shell's own rules hold (variables, pipes,
exit codes), and no command pays for another start of Python and JAX.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from jaxlens.cli import main

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]

# Blocks without a language count as commands, so that an output nobody marked fails when it is run.
SHELL, PYTHON, OUTPUT = {"", "sh", "bash", "shell", "console"}, {"python", "py"}, {"text"}
DATA = {"yaml", "json"}

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,}) *(?P<language>[\w+-]*)(?P<rest>.*)$")

_CLIENT = """#!{python} -SEs
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
variables = {{k: v for k, v in os.environ.items() if k.startswith(("JAXLENS_", "SLURM_"))}}
asked = {{"words": sys.argv[1:], "folder": os.getcwd(), "variables": variables}}
asked["stdin"] = sys.stdin.read()
server.sendall(json.dumps(asked).encode())
server.shutdown(socket.SHUT_WR)
answer = json.loads(b"".join(iter(lambda: server.recv(65536), b"")))
sys.stderr.write(answer["stderr"])
sys.stdout.write(answer["stdout"])
sys.exit(answer["code"])
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path from the root of the checkout.
        line: Of its opening fence, from 1.
        language: What the fence says; empty where it says nothing.
        text: What stands between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    def begins(self, page: str, text: str) -> bool:
        """Whether it stands on a page and begins like this."""
        return self.page == page and self.text.lstrip().startswith(text)

    @property
    def kind(self) -> str:
        """What is done with it."""
        kinds = {"shell": SHELL, "python": PYTHON, "output": OUTPUT, "data": DATA}
        return next((kind for kind, names in kinds.items() if self.language in names), "other")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def collect(page):
    """All fenced blocks of a page, in their order."""
    found, opening, inside = [], None, []
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opening is None:
            if fence:
                opening, inside, at = fence, [], number
        elif fence and fence["marks"].startswith(opening["marks"]) and not fence["language"]:
            found.append(Block(page, at, opening["language"], "\n".join(inside) + "\n"))
            opening = None
        else:
            inside.append(line.removeprefix(opening["indent"]))
    assert opening is None, f"{page}:{at}: a fence is never closed"
    return found


def says(shown, printed):
    """Whether an output is what was printed; `...` stands for anything, also for lines."""
    wanted = re.escape(_plain(shown)).replace(re.escape("..."), ".*?")
    return re.fullmatch(wanted, _plain(printed), re.DOTALL) is not None


def _plain(text):
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@dataclass(frozen=True)
class Done:
    """What a block printed, and how it ended."""

    code: int
    stdout: str
    stderr: str


class Shell:
    """Runs blocks in a folder; a context manager."""

    def __init__(self, folder, variables):
        self.folder = pathlib.Path(folder)
        self.variables = dict(os.environ) | variables
        self.commands = 0

    def __enter__(self):
        # Not in the folder of the test: the names of sockets are short.
        self._private = tempfile.TemporaryDirectory(prefix="jl-")
        path = f"{self._private.name}/s"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen(16)
        client = pathlib.Path(self._private.name) / "jaxlens"
        client.write_text(_CLIENT.format(python=sys.executable, path=path))
        client.chmod(0o755)
        python = pathlib.Path(sys.executable).parent
        self.variables["PATH"] = f"{self._private.name}:{python}:{self.variables['PATH']}"
        return self

    def __exit__(self, *_):
        self._server.close()
        self._private.cleanup()

    def run(self, text, **variables):
        """Gives commands to bash, which stops at the first that fails."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.folder,
                env=self.variables | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            while process.poll() is None:
                if select.select([self._server], [], [], 0.02)[0]:
                    self._answer()
            out.seek(0)
            err.seek(0)
            return Done(process.returncode, out.read(), err.read())

    def _answer(self):
        asker, _ = self._server.accept()
        with asker:
            asked = json.loads(b"".join(iter(lambda: asker.recv(65536), b"")))
            with contextlib.suppress(BrokenPipeError):  # who asked has seen enough
                asker.sendall(json.dumps(self._called(asked)).encode())

    def _called(self, asked):
        self.commands += 1
        out, err = io.StringIO(), io.StringIO()
        before, stdin = dict(os.environ), sys.stdin
        os.environ |= asked["variables"]
        sys.stdin = io.StringIO(asked["stdin"])
        try:
            with (
                contextlib.chdir(asked["folder"]),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                code = _exit_code(asked["words"])
        finally:
            sys.stdin = stdin
            os.environ.clear()
            os.environ |= before
        return {"stdout": out.getvalue(), "stderr": err.getvalue(), "code": code}


def _exit_code(words):
    try:
        main.main(words)
    except SystemExit as stop:
        return stop.code or 0
    return 0


def run_python(block, namespace, folder):
    """Runs a block in the namespace of its page."""
    out = io.StringIO()
    code = compile(block.text, str(block), "exec")
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(code, namespace)
    return Done(0, out.getvalue(), "")
