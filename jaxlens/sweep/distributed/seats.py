"""Where workers of a distributed run may sit: one on each accelerator, or one on each host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxlens import errors


@dataclass(frozen=True)
class Seat:
    """A place for a worker.

    Attributes:
        node: Node of the cluster.
        number: On this node.
        host: Its name, for messages.
        needs: Resources of the cluster that the worker takes.
        share: Cores that it may use; 0 for everything that it sees.
    """

    node: str
    number: int
    host: str
    needs: Mapping[str, float] = field(default_factory=dict)
    share: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What no other seat has."""
        return self.node, self.number


@dataclass(frozen=True)
class Node:
    """A host of a cluster.

    Attributes:
        name: Its identifier in the cluster.
        host: Name of the machine.
        resources: What it offers, as Ray names it: ``CPU``, ``GPU``, ``TPU``.
    """

    name: str
    host: str
    resources: Mapping[str, float]


def seats(nodes: Sequence[Node], workers: int | None, devices: int = 1) -> list[Seat]:
    """The seats of a cluster.

    A GPU has one seat, since a process takes most of its memory, or as many GPUs as share a model;
    the TPU chips of a host have one together. Where there are such, no other host has a seat:
    another kind of device computes other bits. Where there are none, each host has one, on all its
    cores; if more workers are asked for, hosts get more seats, which share their cores. A node that
    offers nothing has none.

    Args:
        nodes: Those that are alive.
        workers: How many workers there may be; None for one on each accelerator or host.
        devices: How many of a host share a model, ``mesh.model``; a host with fewer has no seat.

    Returns:
        At most ``workers`` seats; fewer where there is no room.
    """
    found = [seat for node in nodes for seat in _accelerators(node, devices)]
    plain = [] if any(map(_kind, nodes)) else nodes
    plain = [node for node in plain if node.resources.get("CPU", 0) >= devices]
    counts = dict.fromkeys((node.name for node in plain), 1)
    room = {node.name: int(node.resources["CPU"]) // devices for node in plain}
    while workers is not None and len(found) + sum(counts.values()) < workers:
        free = [name for name in counts if counts[name] < room[name]]
        if not free:
            break
        counts[min(free, key=counts.__getitem__)] += 1
    for node in plain:
        share = devices * (room[node.name] // counts[node.name])
        found += [
            Seat(node.name, number, node.host, {"CPU": devices}, share)
            for number in range(counts[node.name])
        ]
    return found if workers is None else found[:workers]


def free_seats(
    nodes: Sequence[Node],
    workers: int | None,
    taken: Sequence[tuple[str, int]],
    devices: int = 1,
) -> list[Seat]:
    """Seats on which a worker should be started now.

    Args:
        nodes: As in `seats`.
        workers: As in `seats`.
        taken: Keys of the seats that have a worker.
        devices: As in `seats`.
    """
    free = [seat for seat in seats(nodes, workers, devices) if seat.key not in set(taken)]
    return free if workers is None else free[: max(0, workers - len(taken))]


def require_room(nodes: Sequence[Node], devices: int) -> None:
    """Refuses a cluster whose hosts have devices, but none of them as many as share a model.

    Args:
        nodes: As in `seats`.
        devices: As in `seats`.

    Raises:
        ConfigError: Naming the host that has most.
    """
    if seats(nodes, None, devices) or not seats(nodes, None):
        return
    kind = next(filter(None, map(_kind, nodes)), "CPU")
    best = max(nodes, key=lambda node: node.resources.get(kind, 0))
    have = errors.count(int(best.resources[kind]), f"{kind} core" if kind == "CPU" else kind)
    raise errors.ConfigError(
        f"mesh.model is {devices}, and no node of the cluster offers as many devices, or a "
        f"multiple where they are TPU chips: {best.host} has {have}",
        "give mesh.model at most what a node has; a run that has begun needs as many as it began "
        "with",
    )


def _kind(node: Node) -> str:
    """Which accelerators a node has; empty for none."""
    return next((kind for kind in ("TPU", "GPU") if node.resources.get(kind, 0)), "")


def _accelerators(node: Node, devices: int) -> list[Seat]:
    if chips := node.resources.get("TPU", 0):
        return [] if chips % devices else [Seat(node.name, 0, node.host, {"TPU": chips})]
    one = Seat(node.name, 0, node.host, {"GPU": devices})
    count = int(node.resources.get("GPU", 0)) // devices
    return [dataclasses.replace(one, number=number) for number in range(count)]
