"""Executors: who computes the shards that a run lacks, by name.

An executor takes the numbers of shards one by one and returns once they are published. Shards are
functions of the spec and their number, and are published atomically, so that executors differ in
speed alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from jaxlens.corpus import token_file
from jaxlens.sweep import in_process, progress
from jaxlens.sweep.job import Job
from jaxlens.sweep.preemption import StopRequest


class Executor(Protocol):
    """Computes and publishes shards of a run that has begun."""

    def __call__(
        self,
        job: Job,
        tokens: token_file.TokenFile,
        numbers: Iterable[int],
        count: progress.Count,
        stop: StopRequest,
    ) -> float:
        """Publishes the shards, or those of them that the time after a stop request allows.

        Args:
            job: Sweep.
            tokens: Its token file.
            numbers: Shards, in the order in which they are wanted. Each is taken shortly before
                it is computed: which comes next may depend on what others have committed by then.
            count: Hears of every commit.
            stop: Checked before every step.

        Returns:
            Tokens a second of the sweep itself, compilation left out.

        Raises:
            JaxlensError: See ``errors``; what was published stays.
        """


EXECUTORS: dict[str, Executor] = {"process": in_process.execute}
"""Name -> executor; ``process`` computes in this process, on all of its devices."""
