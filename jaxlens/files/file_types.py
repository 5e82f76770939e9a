"""Kinds of files by their first bytes, and what to do where one lies under the name of another.

Downloads go wrong in a few known ways, and each leaves a file with the right name and the wrong
content: a Git LFS pointer, a web page, an archive.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from jaxlens import errors
from jaxlens.files import commands

HEAD_BYTES = 64
"""First bytes of a file that tell its kind."""

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
"""Names of the files that a tokenizer is read from; see ``models.tokenizer_files``."""


class FileType(NamedTuple):
    """A kind of file, told by its first bytes.

    Attributes:
        what: In a message, with its article.
        for_model: What to do where a file of a model should be; empty where the first bytes do not
            rule such a file out.
        for_text: What to do where text should be; empty where a name with the suffix suffices.
        suffix: By which readers of text know such a file.
    """

    what: str
    for_model: str = ""
    for_text: str = ""
    suffix: str = ""


_SAFETENSORS = "load it where you trust it, and save it as safetensors"
_PICKLE = FileType("a pickle, which can run code and is never read", "", "save its text as .jsonl")

# None of those with a remedy for models can begin the JSON, safetensors, msgpack or tokenizer files
# that are read: as the length of a safetensors header they exceed its bound, and as msgpack they
# are not a map.
_BINARY: dict[bytes, FileType] = {
    b"PK\x03\x04": FileType(
        "a ZIP archive, as torch.save and office programs write",
        _SAFETENSORS,
        "unpack it, or save its text (a sheet as CSV UTF-8)",
    ),
    b"GGUF": FileType(
        "a GGUF file",
        "name it so: its name must end in .gguf, and the command must name the file",
        "give the text, not the model",
    ),
    b"\x1f\x8b": FileType("a gzip file", "decompress it", suffix=".gz"),
    b"\x28\xb5\x2f\xfd": FileType("a Zstandard file", suffix=".zst"),
    b"\xfd7zXZ": FileType("an xz file", for_text="decompress it: xz -d"),
    b"PAR1": FileType("a Parquet file", suffix=".parquet"),
    b"ARROW1\0\0": FileType("an Arrow file", suffix=".arrow"),
    b"%PDF": FileType("a PDF", for_text="take its text out: pdftotext writes it"),
    b"\x89HDF": FileType(
        "an HDF5 file",
        "save the model as safetensors with the library that wrote it",
        "save its text as .jsonl",
    ),
    **{b"BZh%d1AY&SY" % level: FileType("a bzip2 file", suffix=".bz2") for level in range(1, 10)},
    **dict.fromkeys(
        (b"\x80\x02\x8a\nl", b"\x80\x04\x95", b"\x80\x05\x95"),
        _PICKLE._replace(for_model=_SAFETENSORS),
    ),
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
}

_GIT_LFS = FileType(
    "a Git LFS pointer, not the file itself",
    *("run git lfs pull in its directory", "run git lfs pull in its directory"),
)
_WEB_PAGE = FileType(
    "a web page, not the file itself",
    "download it with hf download, or from the page's download link",
    "download the file itself, from the page's download link or with hf download",
)
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": _GIT_LFS,
    b"version https://hawser.github.com/spec/": _GIT_LFS,
    b"/annex/objects/": FileType(
        "a git-annex pointer, not the file itself", "run git annex get", "run git annex get"
    ),
}
_TEXT = _POINTERS | {b"<!doctype html": _WEB_PAGE, b"<html": _WEB_PAGE}


def refuse_stand_in(head: bytes, where: str) -> None:
    """Refuses a file of a model that holds something else than its name says.

    Args:
        head: Its first ``HEAD_BYTES`` bytes, or all of it.
        where: What to call it.

    Raises:
        DataError: Saying what it is, with the remedy.
    """
    kind = _identify(head)
    if kind is not None and kind.for_model:
        raise errors.DataError(f"{where}: {kind.what}", kind.for_model)


def of_text(path: str, head: bytes) -> tuple[str, str] | None:
    """What lies under the name of a text without being one, and the remedy; None for text.

    Args:
        path: Its path, for the remedy.
        head: Its first ``HEAD_BYTES`` bytes, or all of it, decompressed.
    """
    kind = _identify(head)
    if kind is None:
        return None
    return kind.what, kind.for_text or f"name it so: {commands.rename(path, kind.suffix)}"


def refuse_pointer(head: bytes, where: str) -> None:
    """Refuses a pointer to a file in place of the file, where any other text may stand.

    Args:
        head: Its first ``HEAD_BYTES`` bytes, or all of it.
        where: What to call it.

    Raises:
        DataError: It is one.
    """
    kind = _first(_POINTERS, head)
    if kind is not None:
        raise errors.DataError(f"{where} is {kind.what}", kind.for_text)


def _identify(head: bytes) -> FileType | None:
    text = head[:HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return _first(_BINARY, head) or _first(_TEXT, text)


def _first(table: dict[bytes, FileType], data: bytes) -> FileType | None:
    return next((kind for prefix, kind in table.items() if data.startswith(prefix)), None)


def without_bom(data: bytes) -> bytes:
    """A text file as UTF-8 without a byte order mark; UTF-16 is recognised by its mark.

    Raises:
        UnicodeDecodeError: It begins like UTF-16 and is not.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16").encode("utf-8")
    return data.removeprefix(codecs.BOM_UTF8)
