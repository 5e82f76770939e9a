"""Encoding text beside the main thread, which goes on answering signals, within a limit of time.

The regular expression of a tokenizer can need longer than anybody waits, and no call into the
library can be stopped. So the call runs in a thread of its own, which lets go of the interpreter
(``encode_batch_fast`` does, ``encode`` does not) and does not keep the process from ending. Where
it takes long, a process that can be stopped looks for the text that does.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

import jaxlens
from jaxlens import errors

SECONDS = 60
"""Longest time for one text, where no other is asked for."""

_CHILD = "from jaxlens.models import encoding; encoding.main()"
_START_SECONDS = 60  # for Python and its imports, on a busy machine


class TooSlow(Exception):
    """The tokenizer takes too long for one text.

    Attributes:
        place: Which of the texts.
    """

    def __init__(self, place: int) -> None:
        super().__init__(f"it takes too long for text {place}")
        self.place = place


def encode(
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    seconds: float = SECONDS,
    *,
    add_special_tokens: bool = False,
) -> list[tokenizers.Encoding]:
    """Encodes texts on all cores; special tokens in them are read as such.

    Args:
        tokenizer: From ``vocabulary.load_tokenizer``.
        texts: What to encode.
        seconds: Longest time for one of them.
        add_special_tokens: Whether to add what the tokenizer puts around a text.

    Raises:
        TooSlow: One of them takes longer, alone on a core.
        ValueError: The tokenizer fails.
    """
    work = _Work(
        lambda: tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
    )
    if not work.done.wait(seconds):
        # Many texts may take that long together; one that does so alone is to be named.
        text = 0 if len(texts) == 1 else _slow(tokenizer, texts, seconds, work.done)
        if text is not None:
            raise TooSlow(text)
        work.done.wait()
    try:
        return work.result()
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # the library raises plain ones, as for an unknown word
        raise ValueError(str(error).partition("\n")[0]) from error


class _Work(threading.Thread):
    """A call that goes on beside; the process does not wait for it to end."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True, name="jaxlens-encode")
        self.done = threading.Event()
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Notes what the call returns or raises."""
        try:
            with errors.panics():
                self._value = self._call()
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def result(self) -> Any:
        """What the call returned."""
        if self._error is not None:
            raise self._error
        return self._value


def _slow(
    tokenizer: tokenizers.Tokenizer, texts: Sequence[str], seconds: float, done: threading.Event
) -> int | None:
    """The first text that takes too long; None where none does, or all are done meanwhile."""
    with _Child(tokenizer, seconds) as child:
        for number, text in enumerate(texts):
            if done.is_set():
                return None
            if not child.encodes(text):
                return None if done.is_set() else number
    return None


class _Child:
    """A process that encodes one text after the other, and can be stopped; a context manager."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, seconds: float) -> None:
        self._tokenizer = tokenizer
        self._seconds = seconds
        self._ready = selectors.DefaultSelector()

    def __enter__(self) -> _Child:
        root = str(Path(jaxlens.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, str(math.ceil(self._seconds) + _START_SECONDS)],
            env=dict(os.environ) | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which ends this process
        )
        self._ready.register(self._process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        try:
            if not self._answers(self._tokenizer.to_str(), _START_SECONDS):
                raise _gone()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._ready.close()
        with contextlib.suppress(BrokenPipeError), self._process:  # closes the pipes, and waits
            pass

    def encodes(self, text: str) -> bool:
        """Whether it encodes a text in time."""
        return self._answers(text, self._seconds)

    def _answers(self, text: str, seconds: float) -> bool:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(text).encode("ascii") + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise _gone() from None
        if not self._ready.select(seconds):
            return False
        if not stdout.read(1):
            raise _gone()
        return True


def _gone() -> errors.StorageError:
    return errors.StorageError(
        "the process that looks for a slow document has ended", "free some memory, then try again"
    )


def main() -> None:
    """The process: a tokenizer, then texts, as JSON, one a line; one byte for each that is done."""
    tokenizer = None
    for line in sys.stdin.buffer:
        signal.alarm(int(sys.argv[1]))  # where the parent is gone, nobody else ends it
        text = json.loads(line)
        if tokenizer is None:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        else:
            with contextlib.suppress(BaseException):  # the parent meets the same failure
                tokenizer.encode_batch_fast([text], add_special_tokens=False)
        signal.alarm(0)
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()
