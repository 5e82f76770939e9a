"""Executors: who computes the shards that a run lacks, by name.

An executor receives the numbers of shards and returns once they are published. Shards are functions
of the spec and their number, and are published atomically, so that executors differ in speed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jaxlens.corpus import token_file
from jaxlens.sweep import in_process
from jaxlens.sweep.job import Job
from jaxlens.sweep.preemption import StopRequest
from jaxlens.sweep.progress import Progress


class Executor(Protocol):
    """Computes and publishes shards of a run that has begun."""

    def __call__(
        self,
        job: Job,
        tokens: token_file.TokenFile,
        numbers: Sequence[int],
        progress: Progress | None,
        stop: StopRequest,
    ) -> float:
        """Publishes the shards, or those of them that the time after a stop request allows.

        Args:
            job: Sweep.
            tokens: Its token file.
            numbers: Shards, in the order in which they are wanted.
            progress: Receives updates.
            stop: Checked before every step.

        Returns:
            Tokens a second of the sweep itself, compilation left out.

        Raises:
            JaxlensError: See ``errors``; what was published stays.
        """


EXECUTORS: dict[str, Executor] = {"process": in_process.execute}
"""Name -> executor; ``process`` computes in this process, on all of its devices."""
