"""Where a run is kept: in a directory, or in an object store of which a directory is the mirror."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from jaxlens import errors
from jaxlens.files import fetching, scratch, system
from jaxlens.store import commit, records
from jaxlens.store.objects import urls

Opened = TypeVar("Opened")


class Storage(Protocol):
    """What a sweep needs of the place in which it writes."""

    @property
    def path(self) -> Path:
        """Directory that has all files of the run, or stands for them."""
        ...

    @property
    def name(self) -> str:
        """The place as users call it."""
        ...

    @property
    def disk(self) -> system.Disk:
        """System calls that write to it."""
        ...

    def refresh(self) -> None:
        """Makes visible in the directory what others have written."""
        ...

    def refresh_shard(self, shard: int) -> None:
        """Makes one shard visible, if it is committed."""
        ...

    def publish_shard(
        self, shard_range: records.ShardRange, image: memoryview, rows: int
    ) -> records.Record | None:
        """Commits a shard, see ``commit.publish_shard``."""
        ...


@dataclass(frozen=True)
class Directory:
    """A run in a directory; see `Storage`."""

    path: Path
    disk: system.Disk = system.DISK

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def refresh(self) -> None:
        """Does nothing: a directory shows what others have written."""

    def refresh_shard(self, shard: int) -> None:
        """Does nothing either."""

    def publish_shard(
        self, shard_range: records.ShardRange, image: memoryview, rows: int
    ) -> records.Record | None:
        """See ``commit.publish_shard``."""
        return commit.publish_shard(self.path, shard_range, image, rows, self.disk)


@contextlib.contextmanager
def mirrored(place: str | Path | None, writable: bool = False) -> Generator[Storage | None]:
    """The mirror of a run in an object store while the block lasts; None for any other place.

    Args:
        place: URL, path, or nothing.
        writable: Whether to make sure that a run can be written there.

    Raises:
        ConfigError: It is no folder in a bucket; or, to write, it holds other objects and no run,
            or its bucket knows no conditional writes.
        MissingError: obstore is not installed, or there is no such bucket.
        StorageError: The store cannot be reached or denies access.
    """
    if place is None or not urls.is_url(place):
        if place is not None:
            urls.refuse_other_scheme(place)
        yield None
        return
    location = urls.parse(place)
    # Both are imported where they are needed: most runs are in directories.
    from jaxlens.store.objects import client, mirror

    with scratch.folder() as temporary:
        opened = mirror.Mirror(client.Client(location), location, temporary.resolve())
        with fetching.renamed(opened), fetching.attached(opened):
            opened.refresh()
            if writable:
                opened.require_writable()
            yield opened


@contextlib.contextmanager
def readable(place: str | Path) -> Generator[Path]:
    """A directory with a run, while the block lasts: the mirror of a URL, or the path itself.

    Raises:
        JaxlensError: See `mirrored`.
    """
    with mirrored(place) as mirror:
        yield Path(place) if mirror is None else mirror.path


def opened(place: str | Path, open_in: Callable[[Path], Opened]) -> Opened:
    """Opens something in a directory with a run; what is fetched of a mirror lasts as long as that.

    Args:
        place: URL or path.
        open_in: Opens it, given the directory.

    Raises:
        JaxlensError: See `mirrored`.
    """
    with contextlib.ExitStack() as stack:
        found = open_in(stack.enter_context(readable(place)))
        weakref.finalize(found, stack.pop_all().close)
        return found


def refuse_url(place: str | Path | None, what: str, hint: str) -> None:
    """Refuses a URL where only directories will do.

    Args:
        place: URL or path.
        what: What does not work there, for instance ``jaxlens repair``.
        hint: What to do instead.

    Raises:
        ConfigError: It is a URL.
    """
    if urls.is_url(place):
        raise errors.ConfigError(f"{what} does not work on runs in object stores", hint)
