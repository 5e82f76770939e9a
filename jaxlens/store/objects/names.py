"""Names of the objects of a run, and of the files that stand for them in a mirror.

They are the same, but for the images of shards: their objects have the sha256 in their names, so
that whoever writes one writes the same bytes.
"""

from __future__ import annotations

import re

from jaxlens.store import layout, records, segments

CREATE_ONLY = f"{layout.ENVIRONMENT}/create-only"
"""An object that shows that the store refuses to replace what may only be created."""

_IMAGE = re.compile(r"part-(\d{5,9})-([0-9a-f]{64})\.h5")
_NOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}(\.json|\.passed)")
_TOP = {layout.RUN, layout.TYPE_MEANS, layout.TOKEN_COUNTS, *layout.DERIVED}
_TOKENS = {layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD}


def image(entry: records.Record) -> str:
    """``shards/part-00017-<sha256>.h5``: the object that holds the image of a shard."""
    return f"{layout.shard_file(entry.shard).removesuffix('.h5')}-{entry.sha256}.h5"


def parse_image(name: str) -> tuple[int, str] | None:
    """Shard and sha256 of the object of an image; None for other objects."""
    folder, _, last = name.rpartition("/")
    match = _IMAGE.fullmatch(last)
    if match is None:
        return None
    shard = int(match[1])
    in_place = layout.shard_file(shard) == f"{folder}/part-{match[1]}.h5"
    return (shard, match[2]) if in_place else None


def record_number(name: str) -> int | None:
    """The shard of the object of a record; None for other objects."""
    shard = layout.part_number(name.rpartition("/")[2])
    return shard if shard is not None and name == layout.sidecar_file(shard) else None


def is_file(name: str) -> bool:
    """Whether an object stands in the mirror under its own name."""
    folder, slash, last = name.rpartition("/")
    if not slash:
        return name in _TOP
    match folder.split("/"):
        case [layout.TOKENS]:
            return last in _TOKENS
        case [layout.ENVIRONMENT]:
            return _NOTE.fullmatch(last) is not None
        case [layout.SHARDS]:
            return last in segments.FILES or record_number(name) is not None
        case [layout.SHARDS, segment] if layout.segment_number(segment) is not None:
            return last in segments.FILES or record_number(name) is not None
    return False
