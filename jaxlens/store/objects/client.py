"""Requests to an object store: what they do, how often they are tried, how they fail.

Places and credentials come from the environment, as obstore reads it (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ...); nothing of them is kept.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import urllib.parse
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.store.objects import urls

RETRY_SECONDS = 60.0
"""How long a request that fails is tried again."""

REQUEST_SECONDS = 600.0
"""How long a request may take, for instance the upload of a shard."""

_SINGLE_BYTES = 1 << 30
"""Files up to this size are uploaded in one request, of which nothing stays where it fails."""

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
_KEYS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "gs": ()}
_VARIABLES = {"s3": "AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...", "gs": "GOOGLE_SERVICE_ACCOUNT, ..."}


class _Exists(Exception):
    """An object that was to be created is there."""


@dataclass(frozen=True)
class Object:
    """What a listing says of an object.

    Attributes:
        size: Bytes.
        e_tag: Another one after each change.
    """

    size: int
    e_tag: str | None


class Client:
    """The objects of a folder in a bucket, by their names relative to it.

    Every method raises a `StorageError` where the store cannot be reached or refuses, and a
    `MissingError` where there is no such bucket. Each request is tried for `RETRY_SECONDS`.

    Args:
        location: Of the folder.

    Raises:
        MissingError: obstore is not installed.
    """

    def __init__(self, location: urls.Location) -> None:
        self._obstore = errors.require_package("obstore", "objects", "runs in object stores")
        self._exceptions = errors.require_package("obstore.exceptions", "objects", "these runs")
        self._location = location
        stores = errors.require_package("obstore.store", "objects", "runs in object stores")
        patience = datetime.timedelta(seconds=RETRY_SECONDS)
        endpoints = _ENDPOINTS[location.scheme]
        _require_endpoints(endpoints, _KEYS[location.scheme])
        # Who names an endpoint without encryption means it.
        plain = any(os.environ.get(name, "").startswith("http://") for name in endpoints)
        with self._settings():
            self._store = stores.from_url(
                str(location),
                client_options={
                    "timeout": datetime.timedelta(seconds=REQUEST_SECONDS),
                    **({"allow_http": True} if plain else {}),
                },
                retry_config={"max_retries": 1000, "retry_timeout": patience},
            )

    @contextlib.contextmanager
    def _settings(self) -> Generator[None]:
        """Refuses what the environment says of the store, which is all read here."""
        try:
            with errors.panics():
                yield
        except (self._exceptions.BaseError, errors.Panic) as error:
            raise errors.ConfigError(
                f"{self._location}: {_reason(error)}",
                f"check {_VARIABLES[self._location.scheme]} in the environment",
            ) from error

    def url(self, name: str) -> str:
        """An object as users call it."""
        return f"{self._location}/{name}"

    def list(self) -> Iterator[tuple[str, Object]]:
        """All objects, by name."""
        with self._errors(""):
            for page in self._obstore.list(self._store, chunk_size=1000):
                for found in page:
                    yield found["path"], Object(found["size"], found["e_tag"])

    def head(self, name: str) -> Object | None:
        """What there is to know of an object; None where it does not exist."""
        with contextlib.suppress(FileNotFoundError), self._errors(name):
            found = self._obstore.head(self._store, name)
            return Object(found["size"], found["e_tag"])
        return None

    def get(self, name: str, limit: int) -> tuple[bytes, Object] | None:
        """All bytes of a small object; None where it does not exist.

        Raises:
            DataError: It has more than ``limit`` bytes.
        """
        with contextlib.suppress(FileNotFoundError), self._errors(name):
            found = self._obstore.get(self._store, name)
            self._require_size(name, found.meta["size"], limit)
            return bytes(found.bytes()), Object(found.meta["size"], found.meta["e_tag"])
        return None

    def download(self, name: str, target: Path) -> Object | None:
        """Writes the bytes of an object into a new file; None where it does not exist."""
        with contextlib.suppress(FileNotFoundError), self._errors(name):
            found = self._obstore.get(self._store, name)
            with target.open("xb") as file:
                for chunk in found.stream(min_chunk_size=1 << 20):
                    file.write(chunk)
            return Object(found.meta["size"], found.meta["e_tag"])
        return None

    def put(self, name: str, data: bytes | memoryview | Path) -> Object:
        """Creates or replaces an object.

        Args:
            name: Object.
            data: Its bytes, or a file that holds them.
        """
        size = data.stat().st_size if isinstance(data, Path) else memoryview(data).nbytes
        with self._errors(name):
            done = self._obstore.put(self._store, name, data, use_multipart=size > _SINGLE_BYTES)
        return Object(size, done["e_tag"])

    def create(self, name: str, data: bytes) -> Object | None:
        """Creates an object; None where it exists, and it stays then.

        A request whose answer is lost is sent again, and finds what it created the first time: who
        is told that the object exists must compare it.
        """
        with contextlib.suppress(_Exists), self._errors(name):
            done = self._obstore.put(self._store, name, data, mode="create", use_multipart=False)
            return Object(len(data), done["e_tag"])
        return None

    def delete(self, name: str) -> None:
        """Removes an object if it exists."""
        with contextlib.suppress(FileNotFoundError), self._errors(name):
            self._obstore.delete(self._store, name)

    def require_create_only(self, name: str) -> None:
        """Refuses a bucket that does not keep apart who creates an object from who replaces it.

        Args:
            name: An object to try it with. It stays, and is found by those who ask later.

        Raises:
            ConfigError: It accepts what it should refuse, or does not know the request.
        """
        try:
            # Where it is there already, that was said because of the condition.
            kept = self.create(name, b"") is None or self.create(name, b"") is None
        except errors.StorageError as error:
            if not re.search("NotImplemented|status code: 501", str(error.__cause__)):
                raise
            kept = False
        if not kept:
            with contextlib.suppress(errors.JaxlensError):
                self.delete(name)
            raise errors.ConfigError(
                f"{self._location}: a bucket without conditional writes",
                "its store must refuse If-None-Match of an object that exists; use another --out",
            )

    def _require_size(self, name: str, size: int, limit: int) -> None:
        if size > limit:
            raise errors.DataError(
                f"{self._location}/{name} has {size} bytes, at most {limit} make sense",
                "it is not of a run; remove it",
            )

    @contextlib.contextmanager
    def _errors(self, name: str) -> Generator[None]:
        """Turns the errors of obstore into ours, of one line.

        Raises:
            FileNotFoundError: There is no such object.
            _Exists: There is one.
        """
        try:
            with errors.panics():
                yield
        except self._exceptions.AlreadyExistsError as error:
            raise _Exists from error
        except (self._exceptions.BaseError, FileNotFoundError, errors.Panic) as error:
            if not isinstance(error, FileNotFoundError) or _is_without_bucket(error):
                raise self._translated(name, error) from error
            raise

    def _translated(self, name: str, error: Exception) -> errors.JaxlensError:
        where = f"{self._location}/{name}".rstrip("/")
        if _is_without_bucket(error):
            return errors.MissingError(
                f"{where}: there is no bucket {self._location.bucket}", "create it, or check --out"
            )
        variables = _VARIABLES[self._location.scheme]
        denied = (self._exceptions.PermissionDeniedError, self._exceptions.UnauthenticatedError)
        if isinstance(error, denied) or re.search("status code: 40[13]", str(error)):
            return errors.StorageError(
                f"{where}: access denied",
                f"it needs the right to list, read and write; see {variables}",
            )
        return errors.StorageError(
            f"{where}: {_reason(error)}",
            f"check the network and {variables}; then run the same command again",
        )


def _require_endpoints(endpoints: Iterable[str], keys: Iterable[str]) -> None:
    """Refuses addresses and keys, of these names, with which obstore would end the process.

    Raises:
        ConfigError: There is one.
    """
    for name in endpoints:
        value = os.environ.get(name)
        if value is not None and not _is_address(value):
            raise errors.ConfigError(
                f"{name} is {errors.show(value)}", "write http://HOST:PORT or https://HOST"
            )
    for name in keys:
        if not os.environ.get(name, "").isprintable():
            raise errors.ConfigError(f"{name} has a line break in it", "write it without")


def _is_address(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False
    return known and text.isprintable() and " " not in text


def _is_without_bucket(error: Exception) -> bool:
    return "NoSuchBucket" in str(error) or "bucket does not exist" in str(error)


def _reason(error: Exception) -> str:
    """What obstore says first, without the answer of the server behind it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"//[^/@\s]*@", "//", line)  # an endpoint may hold a password
    cause = re.search("Connection refused|failed to lookup address|timed out", str(error))
    if cause is not None and cause[0] not in line:
        line = f"{cause[0]}: {line}"
    return line.partition(": <?xml")[0].partition(", after ")[0][:200]
