"""Where a computation ran: versions, devices and flags, for records and bug reports."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlens.files import memory

_PACKAGES = (
    "jaxlens-logitlens",
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "h5py",
    "tokenizers",
    "orbax-checkpoint",
    "safetensors",
)
_VARIABLES = (
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "XLA_FLAGS",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def describe() -> dict[str, Any]:
    """Versions, devices and the variables that JAX reads; JSON values."""
    import jax

    from jaxlens.lens import numerics
    from jaxlens.store.hdf5 import reading

    numerics.require_precision("float32")  # which finds out whether there is a device
    devices = [
        {"platform": device.platform, "kind": device.device_kind} for device in jax.devices()
    ]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "memory_bytes": _memory(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hdf5": reading.library_version(),
        "backend": jax.default_backend(),
        "devices": devices,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def decisive(described: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a description that can decide the bits of a result."""
    packages, variables = described.get("packages"), described.get("variables")
    decisive = {name: described.get(name) for name in ("backend", "processor", "cores")}
    if isinstance(devices := described.get("devices"), list):
        decisive["devices"] = sorted(
            {json.dumps(d, sort_keys=True) for d in devices}
        )  # not how many
    if isinstance(packages, dict):
        decisive |= {name: packages.get(name) for name in ("jax", "jaxlib")}
    if isinstance(variables, dict):
        decisive |= {name: variables.get(name) for name in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    return decisive


def cores() -> int:
    """Cores that this process may use; programs for another number of them give other bits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_bytes() -> int:
    """Most memory that this process has held so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int | None:
    """Memory that this process can still get without pushing others out; None if unknown.

    Of the machine, of the control group that it runs in, and of its own limit.
    """
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    limits = [int(match[1]) * 1024] if match else []
    with contextlib.suppress(OSError, ValueError):  # no such group, or no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.M)
        used = int((group / "memory.current").read_text()) - (int(cached[1]) if cached else 0)
        limits.append(max(0, limit - used))
    if (left := memory.address_space_left()) is not None:
        limits.append(left)
    return min(limits, default=None)


def release_memory() -> None:
    """Gives back what the allocator keeps of freed memory, where the system has a call for it.

    A compilation leaves a hundred MiB or more behind, in many small pieces.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def worker_name() -> str:
    """A name for this process that no other worker of a run has."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:60] or "host"
    return f"{host.lstrip('-') or 'host'}-{os.getpid()}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Model of the processor, whose instructions the compiler chooses among."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def instructions() -> str:
    """Instruction sets of the processor, as the system lists them; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    match = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.M)
    return match[1] if match else ""


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not a POSIX system
        return 0
