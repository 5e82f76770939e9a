"""Tokenizers: loading them, and what their tokens look like."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool

from jaxlens import errors
from jaxlens.corpus import archives

TOKENIZER_BYTES = 256 * 2**20
"""Largest tokenizer file that is read; the largest in use have a tenth of it."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def load_tokenizer(directory: str | Path) -> tokenizers.Tokenizer | None:
    """Loads the tokenizer that lies beside a model.

    What would change the number of tokens (truncation, padding) or make them random (dropout of
    merges) is switched off.

    Args:
        directory: Holds ``tokenizer.json``, or else ``vocab.json`` and ``merges.txt``.

    Returns:
        The tokenizer, None where there is none.

    Raises:
        DataError: A file is malformed or too large.
        StorageError: The system refuses to read.
    """
    folder = Path(directory)
    whole = folder / "tokenizer.json"
    parts = (folder / "vocab.json", folder / "merges.txt")
    if whole.exists():
        tokenizer = _parsed([whole], lambda: tokenizers.Tokenizer.from_buffer(whole.read_bytes()))
    elif all(part.exists() for part in parts):
        tokenizer = _parsed(parts, lambda: _from_parts(folder))
    else:
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None
    return tokenizer


def tokenizer_digest(tokenizer: tokenizers.Tokenizer) -> str:
    """The sha256, in hexadecimal, of everything that decides the tokens."""
    spec = json.loads(tokenizer.to_str())
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode("ascii")).hexdigest()


def strings(tokenizer: tokenizers.Tokenizer, vocab_size: int) -> list[bytes]:
    """The bytes that each token stands for; empty for ids without a token.

    Byte-level vocabularies are undone, so a leading space is a space and a token may hold part
    of a character; of other tokenizers it is the decoded token, as UTF-8.
    """
    spec = json.loads(tokenizer.to_str())
    spell = _speller(tokenizer, spec)
    added = {number: token.content for number, token in _added(tokenizer).items()}
    return [
        added[number].encode("utf-8") if number in added else spell(number)
        for number in range(vocab_size)
    ]


def word_tables(
    spelled: Sequence[bytes],
) -> tuple[Bool[np.ndarray, " vocab"], Bool[np.ndarray, " vocab"]]:
    """Whether each token starts, and ends, with a letter or a digit.

    A part of a character counts as a letter: it is joined to what its neighbours hold.
    """
    size = len(spelled)
    # Four bytes hold the outermost character, whatever the cut leaves beside it.
    starts = (token[:4].decode("utf-8", "replace")[:1] for token in spelled)
    ends = (token[-4:].decode("utf-8", "replace")[-1:] for token in spelled)
    return (
        np.fromiter((c.isalnum() or c == "\ufffd" for c in starts), bool, size),
        np.fromiter((c.isalnum() or c == "\ufffd" for c in ends), bool, size),
    )


def splits_at_spaces(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether text can be cut before any space or line end that follows a character.

    So it is for GPT-2's pattern, in which a match has white space at its start or is all white
    space, if nothing but the pattern sees the text.
    """
    spec = json.loads(tokenizer.to_str())
    before = spec.get("pre_tokenizer") or {}
    return (
        spec.get("normalizer") is None
        and before.get("type") == "ByteLevel"
        and before.get("use_regex", True)
        and not before.get("add_prefix_space", True)
        and not any(
            token.lstrip or token.rstrip or re.search(r"\s", token.content)
            for token in _added(tokenizer).values()
        )
    )


def _parsed(files: Sequence[Path], parse: Callable[[], Any]) -> tokenizers.Tokenizer:
    for file in files:
        with archives.refusals(str(file)):
            size = file.stat().st_size
        if size > TOKENIZER_BYTES:
            raise errors.DataError(
                f"{file} has {size} bytes", f"a tokenizer has at most {TOKENIZER_BYTES}"
            )
    try:
        return parse()
    except OSError as error:
        raise archives.refused(str(files[0]), error) from error
    except Exception as error:  # tokenizers raises plain Exception for whatever is wrong
        first = str(error).partition("\n")[0]
        raise errors.DataError(
            f"{files[0]} is not a tokenizer: {first}", "fetch the model again"
        ) from error


def _from_parts(folder: Path) -> tokenizers.Tokenizer:
    transformers = importlib.import_module("transformers")
    kind = transformers.GPT2TokenizerFast
    return kind.from_pretrained(str(folder), local_files_only=True).backend_tokenizer


def _added(tokenizer: tokenizers.Tokenizer) -> dict[int, Any]:
    return tokenizer.get_added_tokens_decoder()


def _speller(tokenizer: tokenizers.Tokenizer, spec: dict[str, Any]) -> Callable[[int], bytes]:
    def name(number: int) -> str:
        return tokenizer.id_to_token(number) or ""

    around = json.dumps([spec.get("pre_tokenizer"), spec.get("normalizer"), spec.get("decoder")])
    if '"ByteLevel"' in around:
        table = _byte_table()
        return lambda number: b"".join(table.get(c, c.encode()) for c in name(number))
    if json.dumps("\u2581") in around:
        # Decoding one token alone would drop its leading space, which says where words begin.
        return lambda number: _unmarked(name(number))
    return lambda number: (
        tokenizer.decode([number], skip_special_tokens=False).encode() if name(number) else b""
    )


def _unmarked(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _byte_table() -> dict[str, bytes]:
    """The character that stands for each byte in byte-level vocabularies, inverted.

    Reference:
        ``bytes_to_unicode`` of GPT-2's encoder: printable Latin-1 stands for itself, the other
        68 bytes are the characters from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = (byte for byte in range(256) if byte not in printable)
    shown = {chr(byte): bytes([byte]) for byte in printable}
    return shown | {chr(256 + rank): bytes([byte]) for rank, byte in enumerate(hidden)}
