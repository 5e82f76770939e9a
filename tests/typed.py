"""The command line in a process of its own, on a terminal that is looked at."""

import os
import pty
import re
import select
import subprocess
import sys
import time

COMMAND = [sys.executable, "-m", "jaxlens"]
_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n|[^\x1b\r\n]+")


class Terminal:
    """A command on a pseudo-terminal.

    Attributes:
        raw: What it wrote so far.
        code: How it ended; negative where a signal ended it.
    """

    def __init__(self, *words, **variables):
        self.raw, self.code = "", None
        self._near, far = pty.openpty()
        told = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"} | variables
        self._process = subprocess.Popen(
            # Who opens a terminal first in a session gets SIGINT where Ctrl-C is typed on it.
            ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(far), *COMMAND, *map(str, words)],
            env=dict(os.environ) | told,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)

    def wait(self, until=None, seconds=120):
        """Reads to the end, or until a text was written; whether it was."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if until is not None and re.search(until, self.raw):
                return True
            if select.select([self._near], [], [], 0.05)[0]:
                try:
                    data = os.read(self._near, 65536)
                except OSError:  # nobody holds the other end
                    data = b""
                if not data:
                    break
                self.raw += data.decode("utf-8", "replace")
        else:
            self._process.kill()
        self.code = self._process.wait()
        os.close(self._near)
        return until is not None and re.search(until, self.raw) is not None

    def type(self, text):
        """Types a text."""
        os.write(self._near, text.encode())

    def screen(self):
        """The lines that stand on the screen."""
        lines, row, column = [""], 0, 0
        for found in _CONTROL.finditer(self.raw):
            text, (number, kind) = found[0], found.groups()
            if kind == "A":
                row = max(0, row - int(number or 1))
            elif kind == "K":
                lines[row] = "" if number == "2" else lines[row][:column]
            elif text == "\r":
                column = 0
            elif text in ("\n", "\r\n"):
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif kind is None:
                line = lines[row].ljust(column)
                lines[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
        return [line.rstrip() for line in lines]
