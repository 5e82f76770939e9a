"""Where workers sit on a cluster."""

import collections

import pytest

from jaxlens.sweep.distributed import seats


def nodes(*resources):
    return [seats.Node(f"n{i}", f"host-{i}", offers) for i, offers in enumerate(resources)]


def counts(found):
    return dict(collections.Counter(seat.node for seat in found))


def test_a_worker_for_each_gpu_and_for_the_chips_of_a_host_together():
    found = seats.seats(nodes({"CPU": 96, "GPU": 8}, {"CPU": 8, "TPU": 4}, {"CPU": 4}), None)
    assert counts(found) == {"n0": 8, "n1": 1}  # not beside them on a host without
    assert [seat.needs for seat in found] == [{"GPU": 1}] * 8 + [{"TPU": 4}]
    assert {seat.share for seat in found} == {0}
    assert len({seat.key for seat in found}) == 9


@pytest.mark.parametrize(
    ("workers", "expected", "shares"),
    [
        (None, {"n0": 1, "n1": 1}, {8, 4}),
        (1, {"n0": 1}, {8}),
        (2, {"n0": 1, "n1": 1}, {8, 4}),
        (5, {"n0": 3, "n1": 2}, {2}),
        (100, {"n0": 8, "n1": 4}, {1}),
    ],
)
def test_hosts_without_accelerators_share_their_cores(workers, expected, shares):
    found = seats.seats(nodes({"CPU": 8.0}, {"CPU": 4.0}, {"memory": 1e9}), workers)
    assert counts(found) == expected
    assert {seat.share for seat in found} == shares


def test_only_free_seats_are_filled_and_never_more_than_there_may_be():
    two = nodes({"CPU": 2}, {"CPU": 2})
    assert [s.key for s in seats.free_seats(two, None, [("n0", 0)])] == [("n1", 0)]
    assert seats.free_seats(two, 2, [("n0", 0), ("gone", 0)]) == []
    assert len(seats.free_seats(two, 3, [("n0", 0), ("n0", 1)])) == 1
    assert seats.seats([], None) == seats.seats([], 4) == []
