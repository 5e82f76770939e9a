"""Leases: every shard is given out until it is committed, whatever becomes of the workers."""

import heapq
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlens.sweep.distributed import ledger


def uniform(count, tokens=100):
    return ledger.Ledger(dict.fromkeys(range(count), tokens))


def work(book, worker, seconds, now, workers=2):
    """A lease of a worker, done after some seconds a shard; its shards."""
    if shards := book.lease(worker, workers, now):
        book.settle(worker, shards, now + seconds * len(shards))
    return shards


def test_leases_grow_to_ten_seconds_and_shrink_towards_the_end():
    book, now, sizes = uniform(400), 0.0, []
    while shards := work(book, "a", 0.5, now):
        sizes.append(len(shards))
        now += 0.5 * len(shards)
    assert book.is_finished and book.committed == sum(sizes) == 400
    assert sizes[0] == 1 and max(sizes) == sizes[1] == 20
    assert sizes[-1] == 1 and sizes[1:] == sorted(sizes[1:], reverse=True)


def test_a_shard_longer_than_a_lease_is_leased_alone():
    book = uniform(50)
    assert len(work(book, "a", 60, 0)) == len(work(book, "a", 60, 60)) == 1


def test_what_a_lost_worker_had_is_leased_last_and_alone():
    book = uniform(100)
    work(book, "a", 1.0, 0)
    lost = book.lease("b", 2, 1)
    assert len(lost) == 10
    assert book.lose("b", lost[:4], is_suspicious=False) == list(lost[:4])
    order = []
    while shards := work(book, "a", 1.0, 2):
        order.append(shards)
    assert book.is_finished
    assert order[-6:] == [(shard,) for shard in lost[4:]]


def test_a_shard_that_kills_three_workers_while_others_go_on_is_named():
    book = uniform(12)
    poison = book.lease("a", 2, 0)[0]
    book.lose("a", [], is_suspicious=True)
    named = []
    for number in range(30):
        shards = book.lease(f"w{number}", 2, number)
        if not shards:
            break
        if poison in shards:
            if book.committed < 11:  # others go on
                book.settle("other", book.lease("other", 2, number), number + 1)
            book.lose(f"w{number}", [], is_suspicious=True)
        else:
            book.settle(f"w{number}", shards, number + 1)
        named.append(book.suspect)
        if book.suspect is not None:
            break
    assert book.suspect == poison and book.committed == 11
    assert named.count(None) == len(named) - 1


def test_alone_at_the_end_a_shard_needs_more_kills_and_is_named_in_the_end():
    book = uniform(1)
    for number in range(ledger.KILLS_AT_MOST):
        assert book.suspect is None
        assert book.lease(f"w{number}", 1, number) == (0,)
        book.lose(f"w{number}", [], is_suspicious=True)
    assert book.suspect == 0


@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_name_no_shard(seed):
    """Four workers, of which a busy one is killed every two seconds; a shard takes one or two."""
    chance, book = random.Random(seed), uniform(60)
    held, now, started = {}, 0.0, 4
    free = [f"w{number}" for number in range(started)]
    while not book.is_finished:
        for worker in free:
            if shards := book.lease(worker, 4, now):
                held[worker] = (shards, now + chance.uniform(1, 2) * len(shards))
        free = []
        now += 0.25
        for worker, (shards, end) in list(held.items()):
            if end <= now:
                book.settle(worker, shards, now)
                free.append(worker)
                del held[worker]
        if held and now < 120 and now % 2 == 0:
            killed = chance.choice(sorted(held))
            book.lose(killed, [], is_suspicious=True)
            del held[killed]
            started += 1
            free.append(f"w{started}")
        assert book.suspect is None
    assert book.committed == 60


def test_machines_that_are_taken_away_name_no_shard():
    book = uniform(2)
    for number in range(50):
        book.lease(f"w{number}", 2, number)
        book.lose(f"w{number}", [], is_suspicious=False)
    assert book.suspect is None


def test_a_worker_that_asks_early_holds_ten_seconds_of_work_in_all():
    book = uniform(400)
    work(book, "a", 1.0, 0)
    first = book.lease("a", 2, 1)
    assert len(first) == 10
    assert book.settle("a", first[:8], 9, kept=first[8:]) == list(first[:8])
    assert book.leased("a") == first[8:] and len(book.lease("a", 2, 9)) == 8
    assert book.leased("a")[:2] == first[8:] and len(book.leased("a")) == 10
    assert book.holders() == ["a"]
    kept = book.leased("a")[2:3]
    assert book.settle("a", first[8:], 11, kept) == list(first[8:])  # the others are given back
    assert book.leased("a") == kept and book.holders() == []
    while work(book, "b", 1.0, 12):
        pass
    assert book.leased("a") == kept and book.committed == 399


def test_what_may_kill_a_worker_is_not_leased_beside_anything():
    book = uniform(2)
    (lost,) = book.lease("a", 2, 0)
    book.lose("a", [], is_suspicious=True)
    (other,) = book.lease("b", 2, 1)
    assert book.settle("b", [], 1, kept=[other]) == []
    assert book.lease("b", 2, 1) == ()
    assert book.settle("b", [other], 2) == [other]
    assert book.lease("b", 2, 2) == (lost,)
    assert book.settle("b", [], 2, kept=[lost]) == [] and book.lease("b", 2, 2) == ()


def test_one_backup_of_a_straggler_where_nothing_else_is_left():
    book = uniform(3)
    work(book, "a", 10.0, 0)
    (slow,) = book.lease("slow", 2, 10)
    assert work(book, "a", 10.0, 10)  # the last in the queue
    assert book.lease("a", 2, 30) == ()  # not long enough
    assert book.lease("a", 2, 41) == (slow,)
    assert book.lease("b", 2, 100) == ()  # one backup
    assert book.settle("a", [slow], 51) == [slow] and book.is_finished
    assert book.settle("slow", [slow], 200) == [] and book.committed == 3


def test_a_lost_straggler_leaves_its_backup_alone():
    book = uniform(2)
    work(book, "a", 10.0, 0)
    (slow,) = book.lease("slow", 2, 10)
    assert book.lease("a", 2, 100) == (slow,)
    book.lose("slow", [], is_suspicious=True)
    assert book.lease("b", 2, 101) == ()
    book.lose("a", [], is_suspicious=False)
    assert book.lease("b", 2, 102) == (slow,)


def test_who_was_told_to_stop_gives_the_rest_back():
    book = uniform(100)
    work(book, "a", 1.0, 0)
    shards = book.lease("a", 1, 1)
    assert book.settle("a", shards[:2], 5) == list(shards[:2])
    while work(book, "b", 1.0, 6):
        pass
    assert book.is_finished


@settings(max_examples=60)
@given(st.integers(0, 30), st.data())
def test_whatever_happens_every_shard_is_committed_once(count, data):
    book = uniform(count)
    names, busy, known = iter(f"w{number}" for number in range(10**6)), {}, []
    for now in range(10**5):
        if book.is_finished:
            break
        # What happens to an end settles everything.
        quiet = now > 60
        asks_for_more = bool(busy) and not quiet and data.draw(st.booleans())
        if asks_for_more or len(busy) < 4:
            name = data.draw(st.sampled_from(sorted(busy))) if asks_for_more else next(names)
            if shards := book.lease(name, 4, now):
                assert not set(shards) & {*known, *busy.get(name, ())}
                busy[name] = (*busy.get(name, ()), *shards)
        if busy and (quiet or data.draw(st.booleans())):
            name = next(iter(busy)) if quiet else data.draw(st.sampled_from(sorted(busy)))
            shards = busy.pop(name)
            done = shards if quiet else data.draw(st.sets(st.sampled_from(shards)))
            if quiet or data.draw(st.booleans()):
                rest = [shard for shard in shards if shard not in {*done, *known}]
                kept = [] if quiet else [shard for shard in rest if data.draw(st.booleans())]
                known += book.settle(name, done, now, kept)
                assert book.leased(name) == tuple(kept)
                if kept:
                    busy[name] = tuple(kept)
            else:
                known += book.lose(name, done, is_suspicious=False)
                assert book.leased(name) == ()
    assert book.is_finished and sorted(known) == list(range(count))


def test_a_million_leases_are_quick():
    book, began = uniform(20_000), time.perf_counter()
    while work(book, "a", 60.0, 0):
        pass
    print(f"{20_000 / (time.perf_counter() - began):,.0f} leases a second")
    assert book.is_finished


def test_three_hundred_workers_take_little_longer_than_an_ideal_order():
    """As in `test_claims`: some slow, all now and then taken away; a shard takes ten seconds."""
    chance, workers, each, pause, lifetime = random.Random(0), 300, 60, 80.0, 1500.0
    book = uniform(workers * each)
    speed = [0.1 * (1 / 3 if chance.random() < 0.05 else 1) for _ in range(workers)]
    dies = [chance.expovariate(1 / lifetime) for _ in range(workers)]
    events, idle, number, computed, now = [], dict.fromkeys(range(workers)), 0, 0, 0.0
    while not book.is_finished:
        for worker in list(idle):
            if not (shards := book.lease(name := f"{worker}-{dies[worker]}", workers, now)):
                break
            del idle[worker]
            number += 1
            end = now + sum(chance.uniform(0.95, 1.05) for _ in shards) / speed[worker]
            heapq.heappush(events, (min(end, dies[worker]), number, worker, name, shards))
        now, _, worker, name, shards = heapq.heappop(events)
        if not shards:
            idle[worker] = None
        elif now < dies[worker]:
            computed += len(shards)
            book.settle(name, shards, now)
            idle[worker] = None
        else:
            book.lose(name, [], is_suspicious=False)
            dies[worker] = now + pause + chance.expovariate(1 / lifetime)
            heapq.heappush(events, (now + pause, 0, worker, "", ()))
    ideal = workers * each / sum(speed) * (lifetime + pause) / lifetime
    computed += sum(len(shards) for *_, shards in events)
    print(f"{now / ideal:.3f} times the ideal, {computed / (workers * each) - 1:.2%} twice")
    assert now < 1.06 * ideal and computed < 1.02 * workers * each
