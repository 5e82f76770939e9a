"""Accelerators to compile for without having one: their public facts, and how JAX names them.

The facts are those of the vendors' data sheets. A compiler needs more of a GPU, such as the sizes
of its caches and register files: that stands in ``<name>.textproto`` beside this module.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.resources
import os
from collections.abc import Iterator
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from jaxlens import errors

_TPU_ENVIRONMENT = {
    # libtpu otherwise asks the metadata server of a cloud machine what it runs on, and waits.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Without a type it warns; which one does not matter to what is compiled.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    # Compiling takes no device, so that several processes may do it at once.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Target:
    """A device, of which a program uses one.

    Attributes:
        name: On the command line.
        title: Of the device.
        platform: ``tpu`` or ``cuda``.
        topology: Its name in libtpu; empty for GPUs.
        flops: Peak of matrix multiplies with bfloat16 operands, operations a second.
        bandwidth: Of the device's memory, bytes a second.
        memory: Bytes that programs may use.
        packages: Distributions that bring the compiler.
        extra: Extra of jaxlens that brings them.
    """

    name: str
    title: str
    platform: str
    topology: str
    flops: float
    bandwidth: float
    memory: int
    packages: tuple[str, ...]
    extra: str


_LIBTPU = ("libtpu",), "tpu"
_CUDA = ("jax-cuda13-plugin", "jax-cuda13-pjrt"), "cuda13"

TARGETS = {
    target.name: target
    for target in (
        Target("v5e", "TPU v5e", "tpu", "v5e:2x2", 197e12, 0.82e12, int(15.75 * 2**30), *_LIBTPU),
        Target("v6e", "TPU v6e", "tpu", "v6e:2x2", 918e12, 1.64e12, int(31.25 * 2**30), *_LIBTPU),
        Target("h100", "H100 SXM 80 GB", "cuda", "", 989e12, 3.35e12, 84_942_979_072, *_CUDA),
        Target("h200", "H200 SXM 141 GB", "cuda", "", 989e12, 4.8e12, 151_397_597_184, *_CUDA),
    )
}
"""Name -> target. Memory of TPUs is what their compiler allows, a little below the chip's."""


def require(name: str) -> Target:
    """A target whose compiler is installed.

    Raises:
        ConfigError: No such target.
        MissingError: The packages of its compiler are not installed.
    """
    if name not in TARGETS:
        raise errors.ConfigError(f"unknown target {name}", f"one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    extra = target.extra
    for package in target.packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise errors.MissingError(
                f"compiling for {target.title} needs the package {package}, which is not installed",
                f"in a clone of jaxlens: pip install '.[{extra}]'; no device is needed",
            ) from error
    return target


def versions(target: Target) -> dict[str, str]:
    """Versions of jax and of the packages that compile for a target."""
    return {name: importlib.metadata.version(name) for name in ("jax", *target.packages)}


def device(target: Target) -> jax.Device:
    """A device to compile for; nothing can run on it.

    Raises:
        MissingError: The compiler does not start.
    """
    return devices(target)[0]


def devices(target: Target, count: int = 1) -> tuple[jax.Device, ...]:
    """So many devices of one host to compile for.

    Raises:
        ConfigError: More than a host has.
        MissingError: The compiler does not start.
    """
    for name, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = {"topology_name": target.topology}
    if target.platform == "cuda":
        facts = importlib.resources.files("jaxlens.bench.compiled") / f"{target.name}.textproto"
        options |= {"target_config": facts.read_text(), "topology": f"1x1x{count}"}
    try:
        # A compiler that is damaged, or of another version than JAX, fails in any of these ways.
        found = topologies.get_topology_desc(platform=target.platform, **options).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        what = " ".join(str(error).split())[:200]
        raise errors.MissingError(
            f"the compiler for {target.title} does not start: {what}",
            f"install the {' and '.join(target.packages)} of jax {jax.__version__}",
        ) from error
    if count > len(found):
        raise errors.ConfigError(
            f"mesh.model is {count}, a host of {target.title} has {len(found)} devices",
            f"give {len(found)} or less",
        )
    return tuple(found[:count])


@contextlib.contextmanager
def assembling(target: Target) -> Iterator[None]:
    """Context in which a program with kernels is compiled: those of GPUs need NVIDIA's assembler.

    Raises:
        MissingError: It is not installed.
    """
    try:
        yield
    except (RuntimeError, errors.JaxlensError) as error:
        if "No PTX compilation provider" not in f"{error} {error.__cause__}":
            raise
        raise errors.MissingError(
            f"compiling kernels for {target.title} needs ptxas, which is not installed",
            "in a clone of jaxlens: pip install '.[cuda13]', or use --lens tiled",
        ) from error
