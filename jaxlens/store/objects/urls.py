"""Names of places in object stores: ``s3://bucket/prefix``, ``gs://bucket/prefix``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors

SCHEMES = ("s3", "gs")

# A ``pathlib.Path`` keeps one of the two slashes.
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}([^/]*)/*(.*?)/*")
_OTHER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/.*)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_STEP = re.compile(r"[A-Za-z0-9_=+,.-]{1,200}")


@dataclass(frozen=True)
class Location:
    """A folder in a bucket.

    Attributes:
        scheme: One of ``SCHEMES``.
        bucket: Name of the bucket.
        prefix: Names of the folders down to it, with slashes between them.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}"

    @property
    def last(self) -> str:
        """The last of its names."""
        return self.prefix.rpartition("/")[2]


def is_url(text: str | Path | None) -> bool:
    """Whether a text, or a path made of one, names a place in an object store."""
    return text is not None and _URL.fullmatch(str(text)) is not None


def refuse_other_scheme(text: str | Path) -> None:
    """Refuses what looks like a URL of another kind, of which a folder would be made here.

    Raises:
        ConfigError: It does.
    """
    if not is_url(text) and (match := _OTHER.fullmatch(str(text))) is not None:
        raise errors.ConfigError(
            f"{errors.show(str(text))}: {match[1]}: names no object store that is known",
            "write s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; ./ before it makes it a path",
        )


def parse(text: str | Path) -> Location:
    """Reads a name.

    Raises:
        ConfigError: It names no folder in a bucket.
    """
    match = _URL.fullmatch(str(text))
    steps = match[3].split("/") if match else []
    if (
        match is None
        or not _BUCKET.fullmatch(match[2])
        or not all(_STEP.fullmatch(step) and step not in (".", "..") for step in steps)
    ):
        raise errors.ConfigError(
            f"{errors.show(str(text))} does not name a folder in a bucket",
            "write s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; letters, digits and -_=+,. in names",
        )
    return Location(match[1], match[2], match[3])


def shown(place: str | Path) -> str:
    """A URL or a path as its user calls it: a ``pathlib.Path`` keeps one slash of a URL."""
    return str(parse(place)) if is_url(place) else str(place)
