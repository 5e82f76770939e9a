"""Committing a shard to an object store exactly once, without renaming and without locks.

The image goes to an object whose name has its sha256: whoever writes that object writes the same
bytes, so that it does not matter how often or in which order. Then the record is created, which
succeeds once: it is the commit, and names the image that counts. A record is never replaced.
"""

from __future__ import annotations

from jaxlens import errors
from jaxlens.store import layout, records
from jaxlens.store.objects import names
from jaxlens.store.objects.client import Client, Object

_REMOVE = "it is never replaced: remove that object, then run the same jaxlens run again"


def publish_shard(client: Client, entry: records.Record, image: memoryview) -> records.Record:
    """Commits a shard, unless another writer has.

    Args:
        client: Of the folder of the run.
        entry: Record of the image.
        image: Of ``images.shard_image``.

    Returns:
        The record that stands: this one, or that of another writer with other bits.

    Raises:
        DataError: The record that stands is damaged, or its image is gone and is not the one that
            was computed here.
        StorageError: The store cannot be reached or refuses.
    """
    standing = _standing(client, entry)
    if standing is None:
        client.put(names.image(entry), image)
        if client.create(layout.sidecar_file(entry.shard), records.encode(entry)) is not None:
            return entry
        # Another writer was first, or an earlier try of this request, whose answer was lost.
        standing = _standing(client, entry)
    if standing == entry:
        # The object of that name may be there and damaged: that is why it was computed again.
        client.put(names.image(entry), image)
        return entry
    if standing is None or find_image(client, standing) is None:
        raise errors.DataError(
            f"{client.url(layout.sidecar_file(entry.shard))} stands, but its image is gone, and "
            "this environment computes other bits",
            "resume where the run began, or remove that object and MANIFEST and run again",
        )
    return standing


def _standing(client: Client, entry: records.Record) -> records.Record | None:
    """The record of the same shard of the same run, whatever its bits.

    Raises:
        DataError: It is damaged, or that of another shard or run.
    """
    standing = read_record(client, entry.shard)
    if standing is not None and standing.shard_range() != entry.shard_range():
        raise errors.DataError(
            f"{client.url(layout.sidecar_file(entry.shard))} is the record of another shard",
            _REMOVE,
        )
    return standing


def read_record(client: Client, shard: int) -> records.Record | None:
    """The record of a shard; None where it is not committed.

    Raises:
        DataError: It is damaged.
    """
    name = layout.sidecar_file(shard)
    found = client.get(name, layout.SMALL)
    if found is None:
        return None
    with errors.hinted(_REMOVE):
        return records.parse_record(found[0], client.url(name))


def find_image(client: Client, entry: records.Record) -> Object | None:
    """The object of an image; None where there is none of the right size."""
    found = client.head(names.image(entry))
    return found if found is not None and found.size == entry.size else None
