"""A worker's shards are published without a pause between leases, and no lease is lost."""

import queue
import threading

import pytest

from jaxlens.sweep import preemption
from jaxlens.sweep.distributed import stream


class Publisher:
    """Publishes a shard when it is let, as a sweep does that takes each when the last is begun."""

    def __init__(self):
        self.allowed, self.runs, self.there = queue.Queue(), [], set()
        self.taken = queue.Queue()
        self.stop = preemption.StopRequest(60)
        self.stream = stream.Stream(self.publish, self.there.__contains__, self.stop)

    def publish(self, numbers):
        self.runs.append([])
        for shard in numbers:
            if self.stop.requested:
                return
            self.taken.put(shard)
            self.allowed.get(timeout=60)
            if shard == "broken":
                raise OSError("no space")
            self.runs[-1].append(shard)
            self.stream.committed(shard)

    def await_taken(self, shard):
        while self.taken.get(timeout=60) != shard:
            pass

    def let(self, count):
        for _ in range(count):
            self.allowed.put(None)


@pytest.fixture
def publisher():
    return Publisher()


def later(function, *given):
    """What a call returns that another thread waits for."""
    found = queue.Queue()
    threading.Thread(target=lambda: found.put(function(*given)), daemon=True).start()
    return found


def test_it_asks_for_more_while_it_still_has_some_and_never_stops_between_leases(publisher):
    answer = later(publisher.stream.feed, list(range(8)))
    publisher.let(5)
    first = answer.get(timeout=60)
    assert first == {"committed": [0, 1, 2, 3, 4], "kept": [5, 6, 7]}
    answer = later(publisher.stream.feed, [8, 9])
    publisher.let(3)
    assert answer.get(timeout=60) == {"committed": [5, 6, 7], "kept": [8, 9]}
    answer = later(publisher.stream.feed, [])
    publisher.let(2)
    assert answer.get(timeout=60) == {"committed": [8, 9], "kept": []}
    assert publisher.runs == [list(range(10))]


def test_what_has_not_begun_is_given_back(publisher):
    answer = later(publisher.stream.feed, list(range(8)))
    publisher.let(2)
    publisher.await_taken(2)
    publisher.stream.give_back()
    assert answer.get(timeout=60) == {"committed": [0, 1], "kept": [2]}
    answer = later(publisher.stream.feed, [])
    publisher.stream.give_back()  # there is nothing
    publisher.let(1)
    assert answer.get(timeout=60) == {"committed": [2], "kept": []}
    assert publisher.runs == [[0, 1, 2]]


def test_shards_of_others_are_counted_and_not_computed(publisher):
    publisher.there.update([1, 2])
    publisher.let(2)
    publisher.stream.feed([0, 1, 2, 3])
    publisher.stream.drain()
    assert [shard for run in publisher.runs for shard in run] == [0, 3]
    assert publisher.stream.feed([])["kept"] == []


def test_a_stop_drops_what_has_not_begun(publisher):
    answer = later(publisher.stream.feed, list(range(8)))
    publisher.let(1)
    publisher.await_taken(1)
    with publisher.stop.deferred():
        publisher.stop.request("SIGTERM")
    publisher.let(1)
    assert answer.get(timeout=60) == {"committed": [0, 1], "kept": []}
    publisher.stream.feed([9])
    assert publisher.stream.feed([]) == {"committed": [], "kept": []}


def test_an_error_is_raised_by_the_next_question(publisher):
    publisher.let(1)
    with pytest.raises(OSError, match="no space"):
        publisher.stream.feed(["broken", 1, 2, 3])
    with pytest.raises(OSError, match="no space"):
        publisher.stream.feed([])
