"""Files that lie under the name of another: Git LFS pointers, web pages, archives.

Downloads go wrong in a few known ways, and each leaves a file with the right name and the wrong
content. Whoever opens a model's file passes its first bytes to ``refuse_stand_in``.
"""

from __future__ import annotations

import codecs

from jaxlens import errors

HEAD_BYTES = 64
"""How many bytes ``refuse_stand_in`` needs."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
"""Names of the files that a tokenizer is read from; see ``corpus.tokenizerfiles``."""

_LFS = ("a Git LFS pointer, not the file itself", "run git lfs pull in its directory")
_PAGE = (
    "a web page, not the file itself",
    "download it with hf download, or from the page's download link",
)
# First bytes -> what they are, and the remedy. None of them can begin the JSON, safetensors,
# msgpack or tokenizer files that are read: as the length of a safetensors header they exceed its
# bound, and as msgpack they are no map.
_BINARY = {
    b"PK\x03\x04": (
        "a ZIP archive, as torch.save writes (a pickle is inside)",
        "load it where you trust it, and save it as safetensors",
    ),
    b"GGUF": (
        "a GGUF file",
        "transformers reads one with gguf_file=NAME; then save_pretrained writes safetensors",
    ),
    b"\x1f\x8b": ("a gzip file", "decompress it"),
    b"\x89HDF": ("an HDF5 file", "save the model as safetensors with the library that wrote it"),
}
_PICKLE = (
    "a pickle, which can run code and is never read",
    "load it where you trust it, and save it as safetensors",
)
_BINARY |= dict.fromkeys((b"\x80\x02\x8a\nl", b"\x80\x04\x95", b"\x80\x05\x95"), _PICKLE)
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": _LFS,
    b"version https://hawser.github.com/spec/": _LFS,
    b"/annex/objects/": ("a git-annex pointer, not the file itself", "run git annex get"),
}
_TEXT = _POINTERS | {b"<!doctype html": _PAGE, b"<html": _PAGE}


def refuse_stand_in(head: bytes, where: str) -> None:
    """Refuses a file that holds something else than its name says.

    Args:
        head: Its first ``HEAD_BYTES`` bytes, or all of it.
        where: What to call it.

    Raises:
        DataError: Saying what it is, with the remedy.
    """
    found = _first(_BINARY, head) or pointer(head)
    if found is not None:
        raise errors.DataError(f"{where}: {found[0]}", found[1])


def pointer(head: bytes) -> tuple[str, str] | None:
    """What a text stands for that is not the file itself, and the remedy; None for any other.

    Args:
        head: Its first ``HEAD_BYTES`` bytes, or all of it.
    """
    return _first(_TEXT, head.removeprefix(codecs.BOM_UTF8).lstrip().lower())


def refuse_pointer(head: bytes, where: str) -> None:
    """Refuses a pointer to a file in place of the file, where any other text may stand.

    Args:
        head: Its first ``HEAD_BYTES`` bytes, or all of it.
        where: What to call it.

    Raises:
        DataError: It is one.
    """
    found = _first(_POINTERS, head)
    if found is not None:
        raise errors.DataError(f"{where} is {found[0]}", found[1])


def _first(table: dict[bytes, tuple[str, str]], data: bytes) -> tuple[str, str] | None:
    return next((found for prefix, found in table.items() if data.startswith(prefix)), None)


def without_bom(data: bytes) -> bytes:
    """A text file as UTF-8 without a byte order mark; UTF-16 is recognised by its mark.

    Raises:
        UnicodeDecodeError: It begins like UTF-16 and is not.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16").encode("utf-8")
    return data.removeprefix(codecs.BOM_UTF8)
