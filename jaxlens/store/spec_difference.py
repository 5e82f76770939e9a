"""How the specs of two runs differ, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT = object()
_MAX_NAMED = 3

_FOLLOWS_FROM_TOKENS = re.compile(
    r"corpus\.(sha256|index_sha256|n_tokens|n_documents|skipped\b.*)|plan\.(n_steps|n_shards)"
)
"""Fields that differ only because the tokens do."""

_DECIDES_TOKENS = re.compile(r"null\b.*|seed|corpus\.(kind|bos)|tokenizer\b.*")
"""Fields that make other tokens of the same text."""


def describe(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, bool]:
    """The first fields that differ, and whether they do because the corpora have other tokens.

    Args:
        existing: Spec of the run that has begun.
        wanted: Spec that was asked for.
    """
    old, new = dict(_flatten(existing)), dict(_flatten(wanted))
    keys = [k for k in sorted(old | new) if old.get(k, _ABSENT) != new.get(k, _ABSENT)]
    keys.sort(key=lambda k: not _DECIDES_TOKENS.fullmatch(k))
    # The index of the tokens holds the kept fields.
    if "corpus.sha256" not in keys and any(k.startswith("corpus.keep") for k in keys):
        keys = [k for k in keys if k != "corpus.index_sha256"]
    tokens = ""
    if keys and not _DECIDES_TOKENS.fullmatch(keys[0]) and (tokens := _token_difference(old, new)):
        keys = [k for k in keys if not _FOLLOWS_FROM_TOKENS.fullmatch(k)]
    parts = [tokens] if tokens else []
    parts += [
        f"{_short(ascii(key)[1:-1])} is {_show(old, key)} there, {_show(new, key)} here"
        for key in keys[:_MAX_NAMED]
    ]
    more = f" (and {len(keys) - _MAX_NAMED} more)" if len(keys) > _MAX_NAMED else ""
    return f"{'; '.join(parts) or 'its bytes differ'}{more}", bool(tokens)


def first(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first field that differs, by name, with both values in words; None where none does."""
    ours, theirs = dict(_flatten(one)), dict(_flatten(other))
    for key in sorted(ours | theirs):
        if ours.get(key, _ABSENT) != theirs.get(key, _ABSENT):
            return _short(ascii(key)[1:-1]), _show(ours, key), _show(theirs, key)
    return None


def _token_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How the tokens of two specs differ; empty where they are the same."""
    before, after = (spec.get("corpus.n_tokens") for spec in (old, new))
    if type(before) is int and type(after) is int and before != after:
        return f"its corpus has {before:,} tokens, this one {after:,}"
    before, after = (spec.get("corpus.sha256") for spec in (old, new))
    if isinstance(before, str) and isinstance(after, str) and before != after:
        return "its corpus has other tokens, as many as this one"
    return ""


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(document: Mapping[str, Any], key: str) -> str:
    return _short(repr(document[key])) if key in document else "absent"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
