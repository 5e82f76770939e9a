"""Shell commands that messages give to users, to make a readable file of another."""

from __future__ import annotations

import os
import shlex

UNPACK = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".zst": "zstd -dc"}
"""What decompresses a file, by the suffix of its compression."""


def split_name(path: str) -> tuple[str, str, str]:
    """A path in three: ``a``, ``.jsonl`` and ``.gz``."""
    plain, packing = os.path.splitext(path)
    if packing.lower() not in UNPACK:
        plain, packing = path, ""
    stem, suffix = os.path.splitext(plain)
    return stem, suffix, packing.lower()


def convert(path: str, command: str, suffix: str = "") -> str:
    """The command that converts a file, decompressed if need be, into another beside it.

    Args:
        path: File.
        command: What reads one form and writes the other.
        suffix: Of the new file; the same by default.
    """
    stem, own_suffix, packing = split_name(path)
    target = shlex.quote(f"{stem}.new{suffix or own_suffix}")
    if packing:
        return f"{UNPACK[packing]} {shlex.quote(path)} | {command} > {target}"
    return f"{command} < {shlex.quote(path)} > {target}"


def rename(path: str, suffix: str) -> str:
    """The command that gives a file, decompressed if need be, the suffix of what it holds."""
    stem, own_suffix, packing = split_name(path)
    target = f"{stem}{own_suffix}{suffix}" if suffix in UNPACK else f"{stem}{suffix}"
    if packing:
        return f"{UNPACK[packing]} {shlex.quote(path)} > {shlex.quote(target)}"
    return shlex.join(["mv", path, target])
