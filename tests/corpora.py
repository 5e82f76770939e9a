"""A small tokenizer, and texts in files, for every test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 401
"""Prime, so nothing divides it; the tokenizer below has a few tokens fewer."""

PROSE = (
    "The quick brown fox jumps over the lazy dog; it's 42 degrees in Übersee, naïve façade.\n"
    "Don't panic: they've 1,024 reasons -- and we'll see 日本語 and \U0001f600 too.\r\n\n"
    "    indented\tcode(x) = [1, 2, 3]  \n"
)


@pytest.fixture(scope="session")
def tokenizer() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([PROSE * 3], trainer)
    return made


@pytest.fixture(scope="session")
def shared_data(shared) -> Path:
    return shared / "data"


@pytest.fixture
def write_lines(tmp_path):
    """Writes records as JSON lines (bytes and strings as they are) and returns the path."""

    def write(*records, name="corpus.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode()
            for r in records
        ]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


# The peak that getrusage knows is inherited from the parent; this one starts with the program.
PEAK = """
def _peak():
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
def mark():
    global _before
    _before = _peak()
"""


@pytest.fixture
def memory_growth():
    """Runs a script; gives by how many MiB its peak memory grew after it called ``mark()``."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc/self/status")

    def run(script, *arguments):
        whole = PEAK + script + "\nprint(_peak() - _before)\n"
        command = [sys.executable, "-c", whole, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    return run
