"""A corpus of many documents of unequal size, each in a group of documents of its own.

The study's intervals take 256 groups of documents for clusters, by a hash of the hash of their
text. Two documents in one group only add noise to a comparison with a bootstrap of documents, so
here no two of them share one.
"""

from __future__ import annotations

import bz2
import hashlib
import json

FILES = ("val-modern-000", "val-books-000", "train-modern-000")
CHARACTERS = 1_250_000
GROUPS = 256
_WORD = 2**64 - 1


def group_of(text):
    """SplitMix64 of the first 8 bytes of the text's BLAKE2b, modulo the number of groups."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    x = int.from_bytes(digest, "little") + 0x9E3779B97F4A7C15 & _WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _WORD
    return (x ^ x >> 31) % GROUPS


def write(folder, path, characters=CHARACTERS):
    """Beginnings of documents, of 2,000 to 24,400 characters, as JSON lines; their number."""
    taken, written = set(), 0
    with path.open("w") as out:
        for number, document in enumerate(_documents(folder)):
            text = document["text"][: 2_000 + number * 7_919 % 29 * 800]
            group = group_of(text)
            if group in taken:
                continue
            taken.add(group)
            written += len(text)
            out.write(json.dumps({"id": document["id"], "text": text}) + "\n")
            if written > characters:
                break
    return len(taken)


def _documents(folder):
    for name in FILES:
        with bz2.open(folder / f"{name}.jsonl.bz2", "rt") as lines:
            yield from map(json.loads, lines)
