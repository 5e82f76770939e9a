"""Files of a run that its spec names by their sha256: published before it, never written again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import config, errors
from jaxlens.files import contained, publish, system
from jaxlens.store import layout


@dataclass(frozen=True)
class SpecFile:
    """A kind of file that a spec names.

    Attributes:
        name: Of the file, in the run directory.
        section: Of the spec; its ``sha256`` is that of the file.
        hint: What to do where the file is missing or damaged.
    """

    name: str
    section: str
    hint: str

    def path(self, run_dir: str | Path) -> Path:
        """Where the file of a run is."""
        return contained.contained(run_dir, self.name)

    def recorded(self, spec: Mapping[str, Any]) -> str | None:
        """The sha256 of the file that a spec names; None where it names none."""
        section = spec.get(self.section)
        return section.get("sha256") if isinstance(section, Mapping) else None

    def read(self, run_dir: str | Path, spec: Mapping[str, Any], limit: int) -> bytes:
        """All bytes of the file that a spec names, compared with its hash.

        Args:
            run_dir: Run.
            spec: Its spec.
            limit: Most bytes that make sense.

        Raises:
            DataError: It is missing or damaged.
        """
        file = self.path(run_dir)
        if not os.path.lexists(file):
            raise errors.DataError(f"{file} is missing: {layout.RUN} names it", self.hint)
        data = contained.read(file, limit)
        if config.spec_hash(data) != self.recorded(spec):
            raise errors.DataError(
                f"{file} is damaged: its sha256 is not that of {layout.RUN}", self.hint
            )
        return data

    def check(
        self,
        run_dir: str | Path,
        spec: Mapping[str, Any],
        read: Callable[[str | Path, Mapping[str, Any]], object] | None,
    ) -> None:
        """Checks the file of a run, if its spec names one.

        Args:
            run_dir: Run.
            spec: Its spec.
            read: Reads it whole; None where its presence is enough.

        Raises:
            JaxlensError: It is missing or damaged.
        """
        if self.recorded(spec) is None:
            return
        if read is None:
            contained.size(self.path(run_dir))
        else:
            read(run_dir, spec)

    def publish(self, run_dir: str | Path, data: bytes, disk: system.Disk = system.DISK) -> bool:
        """Publishes the file, unless there is one; whether it holds these bytes now.

        Raises:
            StorageError: The disk is full or failed.
        """
        publish.make_directory(run_dir, disk)
        publish.publish(self.path(run_dir), data, disk, replace=False)
        return contained.holds(self.path(run_dir), data)
