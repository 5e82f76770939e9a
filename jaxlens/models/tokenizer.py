"""Tokenizers: loading them, and what their tokens look like."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool

from jaxlens import errors
from jaxlens.files import memory
from jaxlens.models import encoding, gguf_tokenizer, tokenizer_files
from jaxlens.models.checkpoints import gguf_header

LARGEST_ID = 2**20
"""Bound of the token ids: the library counts the holes below the largest one by one."""

# Doublings in a row, or long replacements, would make any text fill the memory.
logger = logging.getLogger("jaxlens")

_MOST_GROWTH = 10_000

_SAMPLE_SECONDS = 20
_SAMPLE = "Hello, world! It's 1,024\n\tna\u00efve \u65e5\u672c \U0001f600  <|endoftext|> x"

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def load_tokenizer(directory: str | Path) -> tokenizers.Tokenizer | None:
    """Loads the tokenizer that lies beside a model.

    What would change the number of tokens (truncation, padding) or make them random (dropout of
    merges) is switched off.

    Args:
        directory: Holds ``tokenizer.json``, or else files of one of ``tokenizerfiles.FORMS``; or a
            GGUF file.

    Returns:
        The tokenizer, None where there is none.

    Raises:
        DataError: A file is malformed or too large.
        StorageError: The system refuses to read.
    """
    folder = Path(directory)
    if gguf_header.is_one(folder):
        stored = gguf_tokenizer.stored(folder)
        if stored is None:
            return None
        where = folder
        loaded = _parsed(str(where), lambda: gguf_tokenizer.build(stored, folder))
    elif os.path.lexists(folder / tokenizer_files.WHOLE):
        where = folder / tokenizer_files.WHOLE
        loaded = _parsed(str(where), lambda: tokenizer_files.read_whole(folder))
    else:
        form = tokenizer_files.form(folder)
        if form is None:
            return None
        where = folder / next(iter(form.files))
        loaded = _parsed(str(where), lambda: tokenizer_files.read(folder, form))
    if loaded.num_special_tokens_to_add(False) or tokenizer_files.adds_bos(folder):
        logger.info(
            "%s puts special tokens around each text: of them jaxlens takes the beginning-of-text "
            "token of the model, before each window (--set corpus.bos=none leaves it out)",
            where,
        )
    return loaded


def as_tokenizer(value: Any) -> tokenizers.Tokenizer:
    """A tokenizer that was given by its directory, as it is, or inside of one of transformers.

    Raises:
        MissingError: The directory has none.
        ConfigError: It is something else.
        DataError: A file is malformed.
    """
    if isinstance(value, (str, os.PathLike)):
        loaded = load_tokenizer(Path(value))
        if loaded is None:
            raise errors.MissingError(
                f"{os.fspath(value)} holds no tokenizer",
                "name the directory of tokenizer.json, or a GGUF file",
            )
        return loaded
    inner = getattr(value, "backend_tokenizer", value)
    if not isinstance(inner, tokenizers.Tokenizer):
        raise errors.ConfigError(
            f"the tokenizer is a {type(value).__name__}",
            "give a directory, a tokenizers.Tokenizer, or a fast tokenizer of transformers",
        )
    # What truncates or pads is switched off in a copy: the caller's stays as it is.
    return _parsed("the tokenizer", lambda: tokenizers.Tokenizer.from_str(inner.to_str()))


def tokenizer_digest(tokenizer: tokenizers.Tokenizer) -> str:
    """The sha256, in hexadecimal, of everything that decides the tokens."""
    spec = json.loads(tokenizer.to_str())
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode("ascii")).hexdigest()


def strings(tokenizer: tokenizers.Tokenizer, vocab_size: int) -> list[bytes]:
    """The bytes that each token of the vocabulary stands for; see `token_bytes`."""
    return list(token_bytes(tokenizer, range(vocab_size)).values())


def token_bytes(tokenizer: tokenizers.Tokenizer, ids: Iterable[int]) -> dict[int, bytes]:
    """The bytes that some tokens stand for; empty for ids without a token.

    Byte-level vocabularies are undone, so a leading space is a space and a token may hold part
    of a character; of other tokenizers it is the decoded token, as UTF-8.
    """
    spec = json.loads(tokenizer.to_str())
    spell = _speller(tokenizer, spec)
    added = {number: token.content for number, token in _added(tokenizer).items()}
    return {
        number: added[number].encode("utf-8") if number in added else spell(number)
        for number in ids
    }


def word_tables(
    token_bytes: Sequence[bytes],
) -> tuple[Bool[np.ndarray, " vocab"], Bool[np.ndarray, " vocab"]]:
    """Whether each token starts, and ends, with a letter or a digit.

    A part of a character counts as a letter: it is joined to what its neighbours hold.
    """
    size = len(token_bytes)
    # Four bytes hold the outermost character, whatever the cut leaves beside it.
    starts = (token[:4].decode("utf-8", "replace")[:1] for token in token_bytes)
    ends = (token[-4:].decode("utf-8", "replace")[-1:] for token in token_bytes)
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


def _parsed(where: str, parse: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    try:
        with _shut(2), errors.panics():  # a panic also writes pages to stderr
            tokenizer = parse()
            tokenizer.no_truncation()
            tokenizer.no_padding()
            if getattr(tokenizer.model, "dropout", None) is not None:
                tokenizer.model.dropout = None
            _require_ids(tokenizer)
            normalizer = tokenizer.normalizer
            state = b"null" if normalizer is None else normalizer.__getstate__()
            if _growth(json.loads(state)) > _MOST_GROWTH:
                raise ValueError("its normalizer inflates the text")
            _try_out(tokenizer)
    except errors.JaxlensError:
        raise
    except Exception as error:  # tokenizers raises plain Exception for whatever is wrong
        memory.reraise(error)
        first = str(error).partition("\n")[0]
        raise errors.DataError(
            f"{where} is not a tokenizer: {first}", "fetch the model again"
        ) from error
    return tokenizer


def _try_out(tokenizer: tokenizers.Tokenizer) -> None:
    """Encodes a sample.

    Raises:
        ValueError: It panics, or takes longer than a sample can.
    """
    try:
        encoding.encode(tokenizer, [_SAMPLE], _SAMPLE_SECONDS, add_special_tokens=True)
    except encoding.TooSlow:
        raise ValueError(
            f"it takes over {_SAMPLE_SECONDS} s for {len(_SAMPLE)} characters"
        ) from None
    except errors.Panic:
        raise
    except Exception:  # some lack a token for what is unknown
        pass


def _require_ids(tokenizer: tokenizers.Tokenizer) -> None:
    ids = tokenizer.get_vocab().values()
    if max(ids, default=0) >= LARGEST_ID:
        raise ValueError(f"token id {max(ids)}, they end below {LARGEST_ID}")
    if len(set(ids)) != len(ids):
        raise ValueError("two tokens have one id")


def _growth(normalizer: Any) -> int:
    """At most how many times as long as the text a normalizer's output is."""
    if isinstance(normalizer, list):
        return math.prod(map(_growth, normalizer))
    if not isinstance(normalizer, dict):
        return 1
    inserted = normalizer.get("content", normalizer.get("prepend", ""))
    pattern = normalizer.get("pattern", {"String": " "})
    between = 0 if pattern.get("String") else 1  # matches may be empty
    return max(1, len(inserted) + between) * _growth(normalizer.get("normalizers"))


@contextlib.contextmanager
def _shut(descriptor: int) -> Generator[None]:
    try:
        saved = os.dup(descriptor)
    except OSError:  # is shut already
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def added_ids(tokenizer: tokenizers.Tokenizer) -> frozenset[int]:
    """Ids that were added to the vocabulary by hand, such as special tokens."""
    return frozenset(_added(tokenizer))


def special(tokenizer: tokenizers.Tokenizer) -> dict[int, str]:
    """Ids and spellings of the tokens that stand for no text, such as ``<|endoftext|>``."""
    return {number: token.content for number, token in _added(tokenizer).items() if token.special}


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
