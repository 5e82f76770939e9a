"""The tokenizer that a GGUF file holds, as one of the tokenizers library.

A file has the vocabulary and the merges or scores, but only the name of how text is split before
that (``tokenizer.ggml.pre``). Names that are not known are refused: split in another way, text
becomes other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as token_models

from jaxlens import errors
from jaxlens.models.checkpoints import gguf_header

LARGEST_VOCABULARY = 2**20

_BOS = "bos"  # name within the template
_SPACE = "\u2581"
_LONGEST_PIECE = 200
_CONTROL, _USER_DEFINED = 3, 4
_HINT = "give token ids, or another form of the model, with a tokenizer.json"

# Of Llama 3 and Qwen 2: contractions, words with one character before them, digits, punctuation
# with the line ends after it, white space.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(digits: str) -> list[Any]:
    return [
        pre_tokenizers.Split(tokenizers.Regex(_PATTERN % digits), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _before(name: str) -> Any:
    """How text is split; None for a name that is not known."""
    return {
        "gpt-2": lambda: _gpt2(),
        "smollm": lambda: pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), _gpt2()]
        ),
        "llama-bpe": lambda: pre_tokenizers.Sequence(_split("{1,3}")),
        "qwen2": lambda: pre_tokenizers.Sequence(_split("")),
    }.get(name, lambda: None)()


BYTE_LEVEL = ("gpt-2", "smollm", "llama-bpe", "qwen2")
"""Values of ``tokenizer.ggml.pre`` that are read."""


def stored(path: Path) -> dict[str, Any] | None:
    """What a file says of its tokenizer, without ``tokenizer.ggml.``; None where it has none.

    Raises:
        DataError: The file is damaged.
        MissingError: There is no such file.
        StorageError: The system refused.
    """
    metadata = gguf_header.read(path, str(path), with_strings=True).metadata
    prefix = "tokenizer.ggml."
    found = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    return found if "tokens" in found else None


def build(found: Mapping[str, Any], path: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a file.

    Args:
        found: See ``stored``.
        path: The file, for messages.

    Raises:
        DataError: It is damaged, or of a kind that is not read; the message names the kind.
        Exception: What the library raises for vocabularies that make no sense.
    """
    words = _words(found, path)
    kind = found.get("model")
    if kind == "gpt2":
        made = _byte_level(found, words, path)
    elif kind == "llama":
        made = _sentence_piece(found, words, path)
    else:
        raise _unknown(path, f"tokenizer.ggml.model {errors.show(kind)}", "gpt2, llama")
    _add(made, found, words)
    bos = found.get("bos_token_id")
    # What llama.cpp does with files that leave it out.
    by_default = kind == "llama" or found.get("pre") == "llama-bpe"
    adds_bos = found.get("add_bos_token", by_default)
    if adds_bos is True and isinstance(bos, int) and 0 <= bos < len(words):
        made.post_processor = processors.TemplateProcessing(
            single=f"{_BOS} $A", special_tokens=[(_BOS, bos)]
        )
    return made


def _unknown(path: Path, what: str, known: str) -> errors.DataError:
    return errors.DataError(f"{path}: {what} is not read; known: {known}", _HINT)


def _damaged(path: Path, reason: str) -> errors.DataError:
    return errors.DataError(f"{path}: damaged tokenizer: {reason}", "fetch the model again")


def _words(found: Mapping[str, Any], path: Path) -> list[str]:
    words, kinds = found["tokens"], found.get("token_type")
    if not isinstance(words, list):
        raise _damaged(path, "tokens are no strings")
    if len(words) > LARGEST_VOCABULARY:
        raise _damaged(path, f"{len(words)} tokens")
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(words):
        raise _damaged(path, "token_type is not as long as tokens")
    return words


def _byte_level(found: Mapping[str, Any], words: list[str], path: Path) -> tokenizers.Tokenizer:
    name = found.get("pre")
    before = _before(name) if isinstance(name, str) else None
    if before is None:
        known = ", ".join(BYTE_LEVEL)
        raise _unknown(path, f"tokenizer.ggml.pre {errors.show(name)}", known)
    merges = found.get("merges")
    if not isinstance(merges, list):
        raise _damaged(path, "merges are missing")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise _damaged(path, "a merge is not of two tokens")
    made = tokenizers.Tokenizer(
        token_models.BPE(_numbered(words), pairs, ignore_merges=name == "llama-bpe")
    )
    if name == "qwen2":
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = before
    made.decoder = decoders.ByteLevel()
    return made


def _sentence_piece(found: Mapping[str, Any], words: list[str], path: Path) -> tokenizers.Tokenizer:
    """SentencePiece's BPE, which joins the pair whose piece has the highest score.

    Pieces are joined from merges in that order; what no piece spells becomes bytes.
    """
    scores = found.get("scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(words):
        raise _damaged(path, "scores are not as many as tokens")
    unknown = found.get("unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(words):
        raise _damaged(path, f"unknown_token_id {errors.show(unknown)}")
    made = tokenizers.Tokenizer(
        token_models.BPE(
            _numbered(words),
            _merges(words, scores, found["token_type"]),
            unk_token=words[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    marks: list[Any] = [normalizers.Replace(" ", _SPACE)]
    if found.get("add_space_prefix", True):
        marks.insert(0, normalizers.Prepend(_SPACE))
    made.normalizer = normalizers.Sequence(marks)
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if found.get("add_space_prefix", True):
        steps.append(decoders.Strip(" ", 1, 0))
    made.decoder = decoders.Sequence(steps)
    return made


def _merges(words: list[str], scores: np.ndarray, kinds: np.ndarray) -> list[tuple[str, str]]:
    """Every way to make a piece of two, in the order of the scores of what is made."""
    joined = {word for word, kind in zip(words, kinds, strict=True) if kind == 1}
    merges: list[tuple[str, str]] = []
    for number in np.argsort(-scores, kind="stable"):
        word = words[number]
        if word in joined and len(word) <= _LONGEST_PIECE:
            pairs = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
            merges += [pair for pair in pairs if pair[0] in joined and pair[1] in joined]
    return merges


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def _add(made: tokenizers.Tokenizer, found: Mapping[str, Any], words: list[str]) -> None:
    """Tokens that are found in the text before it is split."""
    whole = [
        tokenizers.AddedToken(word, special=kind == _CONTROL, normalized=False)
        for word, kind in zip(words, found["token_type"], strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    made.add_tokens(whole)
