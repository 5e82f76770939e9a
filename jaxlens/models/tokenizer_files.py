"""Which files hold a tokenizer, and reading those that transformers has to make one of.

``tokenizer.json`` is read by the tokenizers library alone. Every older form goes through the class
of transformers that it was written for, from a folder of its own: the library opens whatever else
lies beside the files, and its settings can name further files. It is imported on use, and the
network is never asked.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from jaxlens import errors
from jaxlens.files import file_types, refusals, scratch

logger = logging.getLogger("jaxlens")

TOKENIZER_BYTES = 32 * 2**20
"""Largest tokenizer file that is read; GPT-2's has a twentieth of it."""

WHOLE = "tokenizer.json"
"""The file that holds everything."""

_SETTINGS = "tokenizer_config.json"
_BESIDE = ("special_tokens_map.json", "added_tokens.json")
# All of the settings that tokens depend on; others name classes and files.
_USED = (
    "add_prefix_space",
    *(f"{role}_token" for role in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")),
    "additional_special_tokens",
    "added_tokens_decoder",
)
_BERT_USED = (*_USED, "do_lower_case", "strip_accents", "tokenize_chinese_chars")

_NOT_READ = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


class Form(NamedTuple):
    """A form in which a tokenizer is stored.

    Attributes:
        files: Name of each file -> the name that the classes look for.
        classes: Classes of transformers that read it; the first where none is named.
        settings: Keys of ``tokenizer_config.json`` that are handed on.
    """

    files: Mapping[str, str]
    classes: tuple[str, ...]
    settings: tuple[str, ...] = _USED


_BYTE_LEVEL = ("GPT2Tokenizer", "RobertaTokenizer", "Qwen2Tokenizer", "CodeGenTokenizer")
FORMS: tuple[Form, ...] = (
    Form({"vocab.json": "vocab.json", "merges.txt": "merges.txt"}, _BYTE_LEVEL),
    # The names in OpenAI's release of GPT-2.
    Form({"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}, ("GPT2Tokenizer",)),
    Form({"vocab.txt": "vocab.txt"}, ("BertTokenizer",), _BERT_USED),
)
"""In the order in which they are looked for."""

# Names that say nothing about how text is split.
_UNSPECIFIC = ("PreTrainedTokenizer", "TokenizersBackend", "AutoTokenizer")


def form(folder: Path) -> Form | None:
    """The form in which a folder without ``tokenizer.json`` holds a tokenizer, if any."""
    for one in FORMS:
        absent = [name for name in one.files if not os.path.lexists(folder / name)]
        if not absent:
            return one
        if len(absent) < len(one.files):
            (present,) = set(one.files) - set(absent)
            logger.info("%s: %s without %s is not a tokenizer", folder, present, absent[0])
    for name in _NOT_READ:
        if os.path.lexists(folder / name):
            logger.info(
                "%s/%s: SentencePiece is not read, since its conversions change tokens; "
                "a tokenizer.json is needed for text",
                *(folder, name),
            )
    return None


def read_whole(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of ``tokenizer.json``, with the one setting that transformers puts above it.

    ``add_prefix_space`` of ``tokenizer_config.json`` replaces that of the byte-level step.

    Raises:
        DataError: See ``contents``.
        Exception: What the library raises for malformed files.
    """
    tokenizer = tokenizers.Tokenizer.from_buffer(contents(folder / WHOLE))
    wanted = _stated(folder).get("add_prefix_space")
    if not isinstance(wanted, bool):
        return tokenizer
    document = json.loads(tokenizer.to_str())
    before = document["pre_tokenizer"] or {}
    steps = [one for one in before.get("pretokenizers", [before]) if one.get("type") == "ByteLevel"]
    if all(one["add_prefix_space"] == wanted for one in steps):
        return tokenizer
    for one in steps:
        one["add_prefix_space"] = wanted
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def adds_bos(folder: Path) -> bool | None:
    """Whether ``tokenizer_config.json`` has the beginning-of-text token put before each text."""
    stated = _stated(folder).get("add_bos_token")
    return stated if isinstance(stated, bool) else None


def _stated(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says; nothing where it is damaged or not there.

    Raises:
        DataError: See ``contents``.
    """
    settings: Any = None
    if os.path.lexists(folder / _SETTINGS):
        with contextlib.suppress(ValueError):  # transformers alone needs the rest of it
            settings = json.loads(contents(folder / _SETTINGS))
    return settings if isinstance(settings, dict) else {}


def read(folder: Path, one: Form) -> tokenizers.Tokenizer:
    """The tokenizer of a folder.

    Args:
        folder: Where the files are.
        one: From ``form``.

    Raises:
        DataError: It is of a class that is not known to be read rightly.
        Exception: What transformers raises for malformed files.
    """
    settings = _settings(folder)
    name = _class(settings, one, folder)
    transformers = importlib.import_module("transformers")
    with scratch.folder() as alone:
        for stored, wanted in (*one.files.items(), *((name, name) for name in _BESIDE)):
            if os.path.lexists(folder / stored):
                data = contents(folder / stored)
                if wanted == "merges.txt":  # a line each, and the library refuses an empty one
                    data = data.rstrip() + b"\n"
                (alone / wanted).write_bytes(data)
        used = {key: settings[key] for key in one.settings if key in settings}
        if os.path.lexists(folder / _SETTINGS):
            (alone / _SETTINGS).write_text(json.dumps(used), encoding="utf-8")
        kind = getattr(transformers, name)
        return kind.from_pretrained(alone, local_files_only=True).backend_tokenizer


def contents(path: Path) -> bytes:
    """All of a tokenizer's file, opened without waiting for anybody, as a pipe would.

    Returns:
        UTF-8 without a byte order mark.

    Raises:
        MissingError: It is not there.
        DataError: It is no regular file, too large, or something else than its name says.
        StorageError: The system refuses.
    """
    with refusals.reading(str(path)):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise errors.DataError(f"{path} is no regular file", "fetch the model again")
            if status.st_size > TOKENIZER_BYTES:
                raise errors.DataError(
                    f"{path} has {status.st_size} bytes",
                    f"a tokenizer has at most {TOKENIZER_BYTES}",
                )
            with open(descriptor, "rb", closefd=False) as file:  # refuses a folder
                data = file.read(TOKENIZER_BYTES)
        finally:
            os.close(descriptor)
    file_types.refuse_stand_in(data[: file_types.HEAD_BYTES], str(path))
    return file_types.without_bom(data)


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``; empty where there is none."""
    if not os.path.lexists(folder / _SETTINGS):
        return {}
    try:
        settings = json.loads(contents(folder / _SETTINGS))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_SETTINGS}: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{_SETTINGS} holds no object")
    return settings


def _class(settings: Mapping[str, Any], one: Form, folder: Path) -> str:
    """The class of transformers to use."""
    stated = settings.get("tokenizer_class")
    if stated is None:
        return one.classes[0]
    name = str(stated).removesuffix("Fast")
    if name in _UNSPECIFIC:
        return one.classes[0]
    if name not in one.classes:
        shown = name[:80] if name[:80].isprintable() else ascii(name[:80])
        raise errors.DataError(
            f"{folder}/{_SETTINGS}: tokenizer_class {shown} is not read from "
            f"{' and '.join(one.files)}",
            f"put a tokenizer.json beside the weights; read are {', '.join(one.classes)}",
        )
    return name
