"""Which worker computes which shards: leases, what becomes of those of a lost worker, and backups.

The ledger knows no processes and no files. Nothing in it is of value: after a crash a new one is
made from the shards that the run lacks.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEASE_SECONDS = 10.0
"""Work that a worker holds: long beside the time to hand it over, short beside that of a run."""

STRAGGLES = 3.0
"""A lease that takes so many times as long as usual gets one backup, where nothing else is left."""

KILLS = 3
"""Workers that a shard kills, while others go on and fewer are killed, before it is named."""

KILLS_AT_MOST = 8
"""The same whatever happens to others; near the end nothing else may be left."""

_KEPT = 64
"""Recent leases whose pace counts."""


@dataclass(frozen=True)
class Lease:
    """Shards that a worker holds.

    Attributes:
        shards: In the order in which it computes them.
        began: When it had them or has last committed some, in seconds of any clock.
        is_backup: Whether another worker has the same ones.
    """

    shards: tuple[int, ...]
    began: float
    is_backup: bool = False


class Ledger:
    """Leases of the shards that a run lacks.

    Args:
        tokens: Missing shards and their numbers of tokens.

    Attributes:
        committed: Number of shards that are committed since.
        suspect: A shard that has killed `KILLS` workers; None so far.
    """

    def __init__(self, tokens: Mapping[int, int]) -> None:
        self.committed = 0
        self.suspect: int | None = None
        self._tokens = dict(tokens)  # of what is not committed
        self._queue = collections.deque(tokens)
        self._leases: dict[str, Lease] = {}
        self._paces: collections.deque[float] = collections.deque(maxlen=_KEPT)
        self._n_kills = 0
        # Shard -> of each kill, how many shards were committed by then, and the number of the kill.
        self._kills: dict[int, list[tuple[int, int]]] = {}

    @property
    def is_finished(self) -> bool:
        """Whether all shards are committed."""
        return not self._tokens

    def lease(self, worker: str, n_workers: int, now: float) -> tuple[int, ...]:
        """Shards for a worker, beside those that it has kept; empty where there are none for it.

        Args:
            worker: Its name, which no other has or had.
            n_workers: Workers that share what is left.
            now: Time in seconds.
        """
        kept = self._leases.get(worker, Lease((), now))
        shards = self._next(n_workers, self._uncommitted(kept))
        is_backup = not shards and not kept.shards
        if is_backup:
            shards = self._backup(now)
        if shards:
            every = (*kept.shards, *shards)
            self._leases[worker] = Lease(every, kept.began, is_backup or kept.is_backup)
        return shards

    def settle(
        self, worker: str, committed: Iterable[int], now: float, kept: Iterable[int] = ()
    ) -> list[int]:
        """Takes back the lease of a worker, but for what it keeps.

        Args:
            worker: Whose.
            committed: Shards that are committed, by whomever.
            now: Time in seconds.
            kept: Shards that it goes on with.

        Returns:
            Those of them that were not known to be committed.
        """
        lease, done = self._leases.pop(worker), tuple(committed)
        pace = self._pace(lease, done, now)
        fresh = self._commit(done)
        going_on = tuple(shard for shard in kept if shard in self._tokens)
        left = [shard for shard in self._uncommitted(lease) if shard not in going_on]
        if pace is not None and not left:
            self._paces.append(pace)
        if going_on:
            began = now if done else lease.began
            self._leases[worker] = Lease(going_on, began, lease.is_backup)
        self._return(left)
        return fresh

    def lose(self, worker: str, committed: Iterable[int], is_suspicious: bool) -> list[int]:
        """Takes back the lease of a lost worker; what is left of it is leased last, and alone.

        Args:
            worker: Whose; it may have none.
            committed: Shards of the lease that are committed, by whomever.
            is_suspicious: Whether its work may have killed it; not where the machine was taken
                away.

        Returns:
            As `settle`.
        """
        lease = self._leases.pop(worker, None)
        fresh = self._commit(committed)
        if lease is None:
            return fresh
        left = self._uncommitted(lease)
        if left and is_suspicious:
            self._blame(left[0])
        for shard in left:
            self._kills.setdefault(shard, [])
        self._return(left)
        return fresh

    def leased(self, worker: str) -> tuple[int, ...]:
        """Shards of a worker's lease that are not known to be committed."""
        lease = self._leases.get(worker)
        return () if lease is None else tuple(self._uncommitted(lease))

    def holders(self) -> list[str]:
        """Workers that hold two shards or more, those with most tokens first."""
        tokens = {
            worker: [self._tokens[shard] for shard in self._uncommitted(lease)]
            for worker, lease in self._leases.items()
        }
        several = [worker for worker, each in tokens.items() if len(each) > 1]
        return sorted(several, key=lambda worker: -sum(tokens[worker]))

    def _next(self, n_workers: int, held: list[int]) -> tuple[int, ...]:
        """From the queue: some seconds of work, but no more than leaves each worker two leases."""
        if any(shard in self._kills for shard in held):
            return ()  # what may kill a worker is computed alone
        most = max(1, len(self._queue) // (2 * max(1, n_workers)))
        budget = LEASE_SECONDS / statistics.median(self._paces) if self._paces else 0.0
        budget -= sum(self._tokens[shard] for shard in held)
        shards: list[int] = []
        while self._queue and len(shards) < most:
            shard = self._queue[0]
            if shard not in self._tokens:  # a backup has committed it
                self._queue.popleft()
                continue
            budget -= self._tokens[shard]
            if (shards and budget < 0) or ((shards or held) and shard in self._kills):
                break
            shards.append(self._queue.popleft())
            if shard in self._kills:
                break
        return tuple(shards)

    def _backup(self, now: float) -> tuple[int, ...]:
        """What is left of the lease that takes longest, if that is unusual and has no backup."""
        held = collections.Counter(s for lease in self._leases.values() for s in lease.shards)
        usual = statistics.median(self._paces) if self._paces else float("inf")
        slow: list[tuple[float, tuple[int, ...]]] = []
        for lease in self._leases.values():
            left = tuple(self._uncommitted(lease))
            tokens = sum(self._tokens[shard] for shard in left)
            ratio = (now - lease.began) / (usual * tokens) if tokens else 0.0
            if ratio > STRAGGLES and all(held[shard] == 1 for shard in left):
                slow.append((ratio, left))
        return max(slow)[1] if slow else ()

    def _pace(self, lease: Lease, done: tuple[int, ...], now: float) -> float | None:
        """Seconds a token; None where nothing is done, or another worker may have done a part."""
        if not done or lease.is_backup or any(shard not in self._tokens for shard in done):
            return None
        return max(now - lease.began, 1e-6) / sum(self._tokens[shard] for shard in done)

    def _commit(self, shards: Iterable[int]) -> list[int]:
        fresh = [shard for shard in shards if self._tokens.pop(shard, None) is not None]
        for shard in fresh:
            self._kills.pop(shard, None)
        self.committed += len(fresh)
        return fresh

    def _uncommitted(self, lease: Lease) -> list[int]:
        return [shard for shard in lease.shards if shard in self._tokens]

    def _return(self, shards: list[int]) -> None:
        if not shards:
            return
        held = {shard for lease in self._leases.values() for shard in lease.shards}
        self._queue.extend(shard for shard in shards if shard not in held)

    def _blame(self, shard: int) -> None:
        self._n_kills += 1
        kills = self._kills.setdefault(shard, [])
        kills.append((self.committed, self._n_kills))
        # Whatever kills workers at random spares no shard: others go on, and others are killed.
        amid_others = len({committed for committed, _ in kills})
        of_others = self._n_kills - kills[0][1] + 1 - len(kills)
        if (amid_others >= KILLS and 2 * of_others <= len(kills)) or len(kills) >= KILLS_AT_MOST:
            self.suspect = shard
