"""The driver of a distributed run: it hires workers, leases shards to them, and counts commits.

It holds no model and no rows, and starts no JAX. Nothing of value is lost with it: run again, it
begins with what the run lacks then.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxlens import errors
from jaxlens.store import shards
from jaxlens.sweep.distributed import hired, ledger, ray_cluster, seats, wire

WAIT_SECONDS = 0.25
"""After which the driver looks around if no worker has answered."""

LOOK_SECONDS = 2.0
"""Between two looks at the nodes of the cluster."""

START_SECONDS = 600.0
"""In which one worker must become ready where several are lost before they are."""

START_LOSSES = 3
"""Workers that must be lost for that."""

SAME_ERRORS = 3
"""Workers that must report the same error to end a run in which others go on."""

_MAX_PAUSE = 15.0


@dataclass(eq=False)
class Driver:
    """One distributed run.

    Attributes:
        cluster: Where workers are hired.
        settings: Of the run, see ``wire.settings``.
        folder: Where the run was started.
        workers: How many there may be; None for one on each accelerator or host.
        report: Is told what happens.
    """

    cluster: ray_cluster.Cluster
    settings: Mapping[str, Any]
    folder: str
    workers: int | None
    report: hired.Report
    members: list[hired.Worker] = field(default_factory=list)
    plan: Mapping[str, Any] | None = None
    book: ledger.Ledger = field(default_factory=lambda: ledger.Ledger({}))
    _names: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _tokens: Mapping[int, int] = field(default_factory=dict)
    _recorded: int = 0
    _lost_early: int = 0
    _hire_at: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _first_ready: float | None = None
    _refused: dict[tuple[str, int], errors.JaxlensError] = field(default_factory=dict)
    _last_commit: float = 0.0

    def step(self) -> dict[str, Any] | None:
        """Hires, waits for answers, and asks for more; the result once there is one.

        Raises:
            JaxlensError: Of a worker; or a shard kills workers, or none becomes ready.
        """
        self._hire()
        waiting = {
            worker.question: worker for worker in self.members if worker.question is not None
        }
        for question in self.cluster.answered(list(waiting), WAIT_SECONDS):
            if (result := self._hear(waiting[question], question)) is not None:
                return result
        self._employ()
        return None

    def stop(self, name: str) -> None:
        """Asks workers to end after the shard in work, and lets go of those without one.

        Args:
            name: Of the signal.
        """
        for worker in list(self.members):
            if worker.doing == "work" and worker.question is not None:
                worker.actor.stop.remote(name)
            else:
                self._let_go(worker)

    def settle(self) -> bool:
        """After `stop`: takes back leases without new ones; whether all have been."""
        waiting = {worker.question: worker for worker in self.members}
        for question in self.cluster.answered(list(waiting), WAIT_SECONDS) if waiting else ():
            worker = waiting[question]
            self._hear(worker, question)
            if worker in self.members and self.book.leased(worker.name):
                worker.ask("work", [])  # it had answered before it heard of the stop
            else:
                self._let_go(worker)
        return not self.members

    def _hire(self) -> None:
        now = time.monotonic()
        if now < self._hire_at:
            return
        self._hire_at = now + LOOK_SECONDS
        taken = [worker.seat.key for worker in self.members] + list(self._refused)
        nodes, devices = self.cluster.nodes(), self.settings.get("mesh.model") or 1
        if not self.members:
            seats.require_room(nodes, devices)
        free = seats.free_seats(nodes, self.workers, taken, devices)
        if self._refused and not self.members and not free:
            raise next(reversed(self._refused.values()))
        for seat in free:
            actor = self.cluster.hire(seat, self.settings, self.folder)
            worker = hired.Worker(f"worker {next(self._names)}", seat, actor, place=seat.host)
            worker.ask("hello")
            self.members.append(worker)

    def _hear(self, worker: hired.Worker, question: Any) -> dict[str, Any] | None:
        """Takes an answer; returns the result of the run if it is that."""
        answer = self.cluster.answer(question)
        if isinstance(answer, ray_cluster.Loss):
            self._lose(worker, answer)
            return None
        worker.question = None
        self.report.repeat(answer["log"], self.plan is None)
        try:
            if (told := answer.get("error")) is not None:
                raise wire.raised(told, f"{worker.name} at {worker.place}")
            return self._take(worker, answer["value"])
        except errors.JaxlensError as error:
            self._refuse(worker, error)
        return None

    def _refuse(self, worker: hired.Worker, error: errors.JaxlensError) -> None:
        """Goes on without a worker that reports an error, where others can do the work.

        Raises:
            JaxlensError: The error, where none can, or several workers have reported it.
        """
        same = [other for other in self._refused.values() if other.message == error.message]
        interrupted = isinstance(error, errors.InterruptedRun) or worker.doing == "finish"
        can_go_on = hired.can_do_without(worker, self.members)
        if interrupted or not can_go_on or len(same) + 1 >= SAME_ERRORS:
            raise error
        self._refused[worker.seat.key] = error
        self._let_go(worker)
        self._take_back(worker, is_suspicious=False)
        self.report.say(
            logging.ERROR,
            f"the run goes on without {worker.name} at {worker.place}: {error.message}",
        )

    def _take(self, worker: hired.Worker, value: Any) -> dict[str, Any] | None:
        match worker.doing:
            case "hello":
                worker.place = f"{value['host']} (process {value['pid']})"
                wire.require_versions(value["versions"], value["host"])
            case "begin":
                if self.plan is None:
                    self._plan(value)
                if not self.book.is_finished:
                    worker.ask("get_ready")
            case "get_ready":
                worker.is_ready = True
                self._lost_early = 0
                self._first_ready = self._first_ready or time.monotonic()
                self.report.say(logging.INFO, f"{worker.name} is ready at {worker.place}")
            case "work":
                done, kept = value["committed"], value["kept"]
                self._advance(self.book.settle(worker.name, done, time.monotonic(), kept))
            case "finish":
                return self._result(value)
        return None

    def _employ(self) -> None:
        """Gives everyone who has nothing to do the next thing."""
        beginning = any(worker.doing == "begin" and worker.question for worker in self.members)
        finishing = any(worker.doing == "finish" for worker in self.members)
        for worker in self.members:
            if worker.question is not None:
                continue
            if worker.doing == "hello":
                # The first fixes tokens and spec alone; the others find them.
                if self.plan is not None or not beginning:
                    worker.ask("begin", self.plan is None)
                    beginning = True
            elif self.book.is_finished:
                if not finishing:
                    worker.ask("finish")
                    finishing = True
            elif not worker.is_ready:
                worker.ask("get_ready")
        if not self.book.is_finished:
            self._lease()

    def _lease(self) -> None:
        """Gives shards to workers that ask for more, those first that have least."""
        ready = [worker for worker in self.members if worker.is_ready]
        held = {worker: self.book.leased(worker.name) for worker in ready if not worker.question}
        starving = []
        for worker in sorted(held, key=lambda worker: len(held[worker])):
            leased = () if starving else self.book.lease(worker.name, len(ready), time.monotonic())
            if leased or held[worker]:
                worker.ask("work", leased)
            else:
                starving.append(worker)
        if starving:
            names = {worker.name: worker for worker in ready}
            holders = [names[name] for name in self.book.holders() if name in names]
            asked = [worker for worker in holders if not worker.gives_back]
            for worker in asked[: len(starving)]:
                worker.ask_back()

    def _plan(self, value: Mapping[str, Any]) -> None:
        self.plan = value
        self._tokens = {shard: tokens for shard, tokens in value["missing"]}
        self.book = ledger.Ledger(self._tokens)
        missing = sum(self._tokens.values())
        if missing:
            done = value["n_tokens"] - missing
            self.report.begin(value["n_tokens"], done)

    def _lose(self, worker: hired.Worker, loss: ray_cluster.Loss) -> None:
        """Takes back what a lost worker had.

        Raises:
            JaxlensError: Its shard has killed too many, or no worker becomes ready.
        """
        self._let_go(worker)
        alive = {node.name for node in self.cluster.nodes()}
        taken_away = loss.was_preempted or worker.seat.node not in alive
        self._take_back(worker, worker.doing == "work" and not taken_away)
        reason = loss.reason if worker.seat.node in alive else "its node is gone"
        self.report.say(logging.WARNING, f"lost {worker.name} at {worker.place}: {reason}")
        if self.book.suspect is not None:
            assert self.plan is not None
            raise hired.poisoned(self.book.suspect, self.plan["n_shards"], loss.reason)
        if not worker.is_ready and not taken_away:
            self._lost_early += 1
            pause = min(_MAX_PAUSE, 2.0 ** (self._lost_early - 2))
            self._hire_at = time.monotonic() + pause
            self._require_start(loss.reason)
        else:
            self._hire_at = 0.0

    def _take_back(self, worker: hired.Worker, is_suspicious: bool) -> None:
        held = self.book.leased(worker.name)
        committed = [shard for shard in held if self._is_committed(shard)]
        self._advance(self.book.lose(worker.name, committed, is_suspicious))

    def _let_go(self, worker: hired.Worker) -> None:
        if worker in self.members:
            self.members.remove(worker)
        self.cluster.fire(worker.actor)

    def _require_start(self, reason: str) -> None:
        since = time.monotonic() - (self._last_commit or self._first_ready or self._began)
        if self._lost_early >= START_LOSSES and since > START_SECONDS:
            raise errors.JaxlensError(
                f"no worker has become ready for {since / 60:.0f} minutes, and "
                f"{self._lost_early} were lost: {reason}",
                "look for lack of memory on the nodes; without --distributed the same command "
                "shows what a worker does",
            )

    def _is_committed(self, shard: int) -> bool:
        assert self.plan is not None
        try:
            shards.check(self.plan["out"], shard, self.plan["spec_hash"], "fast")
        except errors.JaxlensError:
            return False
        return True

    def _advance(self, fresh: list[int]) -> None:
        if count := sum(self._tokens[shard] for shard in fresh):
            self._recorded += count
            self._last_commit = time.monotonic()
            self.report.advance(count)

    def _result(self, finished: bool) -> dict[str, Any]:
        assert self.plan is not None
        told = {name: value for name, value in self.plan.items() if name != "missing"}
        seconds = self._last_commit - (self._first_ready or 0.0)
        rate = self._recorded / seconds if self._recorded and seconds > 0 else None
        return told | {
            "computed": self.book.committed,
            "tokens_per_second": rate,
            "finished": finished,
        }
