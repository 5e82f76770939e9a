"""Where workers sit on a cluster."""

import collections

import pytest

from jaxlens import errors
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


def test_a_worker_of_a_model_that_devices_share_takes_as_many():
    gpus = nodes({"CPU": 96, "GPU": 8}, {"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 1}, {"CPU": 64})
    found = seats.seats(gpus, None, 2)
    assert counts(found) == {"n0": 4, "n1": 1}
    assert all(seat.needs == {"GPU": 2} and seat.share == 0 for seat in found)
    assert counts(seats.seats(nodes({"TPU": 4}, {"TPU": 1}), None, 2)) == {"n0": 1}
    cores = nodes({"CPU": 7}, {"CPU": 2}, {"CPU": 1})
    assert {(s.node, s.share) for s in seats.seats(cores, None, 2)} == {("n0", 6), ("n1", 2)}
    many = seats.seats(cores, 9, 2)
    assert counts(many) == {"n0": 3, "n1": 1}
    assert {(seat.share, seat.needs["CPU"]) for seat in many} == {(2, 2)}
    assert seats.free_seats(cores, 1, [], 2)[0].share == 6


@pytest.mark.parametrize(
    ("offers", "what"),
    [
        ([{"CPU": 96, "GPU": 2}, {"CPU": 8, "GPU": 1}], "host-0 has 2 GPUs"),
        ([{"CPU": 96}, {"TPU": 4}], "host-1 has 4 TPUs"),
        ([{"CPU": 2}, {"CPU": 1}], "host-0 has 2 CPU cores"),
    ],
)
def test_a_cluster_without_room_for_one_worker_is_refused(offers, what):
    with pytest.raises(errors.ConfigError, match=rf"mesh.model is 3, .*: {what}"):
        seats.require_room(nodes(*offers), 3)
    seats.require_room(nodes(*offers), 2)
    seats.require_room(nodes({"memory": 1e9}), 3)  # nodes with devices may be starting
