"""A local directory that stands for a run in an object store.

It has the layout of a run, so that whatever reads runs reads it. A file is as large as its object,
and has its bytes once it was opened; of the images of shards it keeps those that were opened last.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Generator, Iterable
from pathlib import Path

from jaxlens import errors
from jaxlens.store import layout, records
from jaxlens.store.objects import commit, names, urls
from jaxlens.store.objects.client import Client, Object
from jaxlens.store.objects.disk import ObjectDisk

KEPT_BYTES = 4 << 30
"""Images of shards that are kept while no one reads them."""

REQUESTS = 16
"""Small objects that are fetched at the same time."""


class Mirror:
    """A run in an object store; see ``storage.Storage`` and ``fetching.Mirror``.

    Args:
        client: Of the folder in which the run is.
        location: The same folder.
        temporary: Directory for the mirror, without links.
    """

    def __init__(self, client: Client, location: urls.Location, temporary: Path) -> None:
        self.path: Path = temporary / location.last
        self.path.mkdir()
        self.name: str = str(location)
        self.disk = ObjectDisk(self.path, self)
        self._client = client
        self._objects: dict[str, Object] = {}
        self._fetched: dict[str, Object] = {}
        self._images: dict[str, str] = {}
        self._kept: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._held: collections.Counter[str] = collections.Counter()
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Lists the folder, and fetches the records of shards that are new."""
        with self._lock:  # what is written meanwhile is not in the listing, and stays
            known = set(self._objects)
        listed = dict(self._client.list())
        files = {name: found for name, found in listed.items() if names.is_file(name)}
        images: dict[int, list[str]] = {}
        for name in listed:
            if (parsed := names.parse_image(name)) is not None:
                images.setdefault(parsed[0], []).append(name)
        committed = [n for name in files if (n := names.record_number(name)) is not None]
        with self._lock:
            for name in known - set(files) - set(map(layout.shard_file, committed)):
                self._forget(name)
            for name, found in files.items():
                self._place(name, found)
        self._fetch_records(committed)
        for shard in committed:
            there = images.get(shard, [])
            # Of several, the record says which counts; a wrong one does not fit its hash.
            name = there[0] if len(there) == 1 else self._image(shard)
            self._place_image(shard, name, listed.get(name))

    def refresh_shard(self, shard: int) -> None:
        """Looks whether a shard is committed."""
        name = layout.sidecar_file(shard)
        if name in self._fetched and layout.shard_file(shard) in self._images:
            return
        if (found := self._client.head(name)) is not None:
            with self._lock:
                self._place(name, found)
            if image := self._image(shard):
                self._place_image(shard, image, self._client.head(image))

    def require_writable(self) -> None:
        """Refuses a folder with other objects and no run, and a bucket that cannot hold one.

        Raises:
            ConfigError: So it is.
        """
        if layout.RUN not in self._objects:
            for name in sorted(name for name, _ in self._client.list()):
                ours = names.is_file(name) or names.parse_image(name) or name == names.CREATE_ONLY
                if not ours:
                    raise errors.ConfigError(
                        f"{self.name} is not empty and does not hold a run: {name}",
                        "use another --out",
                    )
        self._client.require_create_only(names.CREATE_ONLY)

    def publish_shard(
        self, shard_range: records.ShardRange, image: memoryview, rows: int
    ) -> records.Record | None:
        """Commits a shard, see ``objects.commit.publish_shard``.

        Returns:
            The record of a concurrent writer that stands although its bits differ; else None.
        """
        entry = records.record(shard_range, rows, image)
        standing = commit.publish_shard(self._client, entry, image)
        name = names.image(standing)
        self._place_image(entry.shard, name, self._client.head(name))
        self.refresh_shard(entry.shard)
        return None if standing == entry else standing

    def upload(self, name: str, source: Path) -> None:
        """Creates or replaces an object; the caller puts the same bytes into the mirror."""
        self._written(name, self._client.put(name, source))

    def create(self, name: str, source: Path) -> bool:
        """Creates an object, unless it exists; what exists is placed in the mirror then."""
        created = self._client.create(name, source.read_bytes())
        if created is not None:
            self._written(name, created)
        elif (found := self._client.head(name)) is not None:
            with self._lock:
                self._place(name, found)
        return created is not None

    def delete(self, name: str) -> None:
        """Removes an object; the caller removes the file."""
        self._client.delete(name)
        with self._lock:
            self._objects.pop(name, None)
            self._fetched.pop(name, None)

    @contextlib.contextmanager
    def held(self, name: str) -> Generator[None]:
        """Fetches a file, and keeps it while the block lasts."""
        with self._lock:
            self._held[name] += 1
        try:
            self._fetch(name)
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
            yield
        finally:
            with self._lock:
                self._held[name] -= 1
                self._evict()

    def _written(self, name: str, written: Object) -> None:
        with self._lock:
            self._objects[name] = self._fetched[name] = written

    def _place(self, name: str, found: Object) -> None:
        """Lets a file stand for an object, unless it does already."""
        if self._objects.get(name) == found:
            return
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{threading.get_ident()}")
        with draft.open("wb") as file:
            file.truncate(found.size)
        os.replace(draft, path)
        self._objects[name] = found
        self._fetched.pop(name, None)
        self._kept.pop(name, None)

    def _place_image(self, shard: int, image: str, found: Object | None) -> None:
        """Lets the file of a shard stand for an image; there is none where that is not found."""
        name = layout.shard_file(shard)
        with self._lock:
            if found is None or self._images.get(name, image) != image:
                self._forget(name)
            if found is not None:
                self._images[name] = image
                self._place(name, found)

    def _image(self, shard: int) -> str:
        """The object of the image that a record names; empty where the record is damaged."""
        with contextlib.suppress(errors.MissingError, errors.DataError):
            return names.image(layout.read_record(self.path, shard))
        return ""

    def _forget(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        for known in (self._objects, self._fetched, self._images, self._kept):
            known.pop(name, None)

    def _fetch(self, name: str) -> None:
        found = self._objects.get(name)
        if found is None or self._fetched.get(name) == found:
            return
        path = self.path / name
        draft = path.with_name(f".{path.name}.{threading.get_ident()}")
        with _writing(self.path.parent):
            draft.unlink(missing_ok=True)
            fetched = self._client.download(self._images.get(name, name), draft)
        with self._lock:
            if fetched is None:
                self._forget(name)
                return
            os.replace(draft, path)
            self._objects[name] = self._fetched[name] = fetched
            if name in self._images:
                self._kept[name] = fetched.size

    def _evict(self) -> None:
        """Lets placeholders stand again for the images that were opened first."""
        for name in list(self._kept):
            if sum(self._kept.values()) <= KEPT_BYTES:
                return
            if not self._held[name]:
                found = self._objects.pop(name)
                self._place(name, found)

    def _fetch_records(self, numbers: Iterable[int]) -> None:
        """Fetches records, but those of segments that list them in one file of their own."""
        wanted = []
        for shard in numbers:
            listing = "/".join((*layout.segment_parts(layout.segment_of(shard)), layout.MANIFEST))
            if layout.sidecar_file(shard) not in self._fetched and listing not in self._objects:
                wanted.append(layout.sidecar_file(shard))
        with concurrent.futures.ThreadPoolExecutor(REQUESTS, "jaxlens-fetch") as pool:
            list(pool.map(self._fetch, wanted))


@contextlib.contextmanager
def _writing(temporary: Path) -> Generator[None]:
    """Turns an ``OSError`` into an error that names the folder where mirrors are."""
    try:
        yield
    except OSError as error:
        where = temporary.parent
        raise errors.StorageError(
            f"cannot fetch into {where}: {error.strerror}",
            "free some space there, or let TMPDIR name another folder; then run the command again",
        ) from error
